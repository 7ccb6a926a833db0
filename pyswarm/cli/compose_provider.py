"""Provider services: `provider: {type, options}`: a program outside brings them up and tells their settings.

The protocol is docker compose's (docs/extension.md of docker/compose): `PROGRAM compose --project-name=P up
--option=value SERVICE` prints JSON objects, one a line: `{"type": "info|debug|error|setenv", "message": ...}`.
What it sets reaches the services that depend on it as `SERVICE_NAME=value`. `PROGRAM compose metadata` may say
which options a command knows; without that it gets all of them. Runs where the command runs.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pyswarm.cli.compose_session import say, settings
from pyswarm.errors import Invalid, NotFound, PyswarmError

if TYPE_CHECKING:
    from compose.convert import StackSpecs
    from compose.model import Provider
    from compose.project import Project

PLUGIN_DIRECTORIES = (
    "~/.docker/cli-plugins",
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)
LONGEST_LINE = 1 << 20
"""Bytes of one message."""


class ProviderFailed(PyswarmError):
    """A provider's program said that it failed, or ended with a code other than 0."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """Which parameters a command knows: None when the program does not say."""

    parameters: frozenset[str] | None = None
    required: tuple[str, ...] = ()


@dataclass(slots=True)
class Provided:
    """What the providers set: by the provider's service, names with values."""

    variables: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])

    def environment(self, project: Project, service: str) -> list[str]:
        """What a service that depends on providers gets, as `NAME=value`."""
        found: list[str] = []
        for name in project.services[service].depends_on:
            prefix = name.upper().replace("-", "_") + "_"
            found += [f"{prefix}{key}={value}" for key, value in self.variables.get(name, {}).items()]
        return found


def providers(project: Project, names: Sequence[str] | None = None) -> list[str]:
    """The provider services (among `names`), each after those that it depends on."""
    found: dict[str, None] = {}

    def visit(name: str) -> None:
        service = project.services.get(name)
        if service is None or name in found:
            return
        for other in sorted(service.depends_on):
            visit(other)
        if service.provider is not None:
            found[name] = None

    for name in sorted(project.services if names is None else names):
        visit(name)
    return list(found)


def program(kind: str) -> str:
    """The provider's program: docker's plugin `docker-TYPE`, else TYPE in PATH. Raises NotFound."""
    if not kind or "/" in kind:
        raise Invalid(f"provider type {kind!r} is not the name of a program")
    for place in PLUGIN_DIRECTORIES:
        path = Path(place).expanduser() / f"docker-{kind}"
        if os.access(path, os.X_OK):
            return str(path)
    found = shutil.which(f"docker-{kind}") or shutil.which(kind)
    if found is None:
        raise NotFound(
            f"no program for provider type {kind!r}: install docker-{kind} in ~/.docker/cli-plugins, or {kind} in PATH"
        )
    return found


async def run(project: Project, names: Sequence[str], command: str) -> Provided:
    """Run `up` or `down` of these providers, one after the other. Raises ProviderFailed, NotFound, Invalid."""
    done = Provided()
    for name in names:
        provider = project.services[name].provider
        assert provider is not None, "only providers are run"
        say("Service", name, "Creating" if command == "up" else "Removing")
        if settings().dry_run:
            continue
        done.variables[name] = await _call(project, name, provider, command)
        say("Service", name, "Created" if command == "up" else "Removed")
    return done


async def _call(project: Project, name: str, provider: Provider, command: str) -> dict[str, str]:
    path = program(provider.type)
    metadata = parsed_metadata(await _metadata(path, project), command)
    missing = [each for each in metadata.required if each not in provider.options]
    if missing:
        raise Invalid(f"services.{name}.provider.options: {provider.type} requires {', '.join(missing)}")
    argv = arguments(project.name, name, provider, command, metadata)
    process = await asyncio.create_subprocess_exec(
        path,
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **project.environment},
        cwd=project.directory,
        limit=LONGEST_LINE,
    )
    assert process.stdout is not None
    found: dict[str, str] = {}
    try:
        while line := await process.stdout.readline():
            _hear(name, provider.type, line, found)
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    if code:
        raise ProviderFailed(f"service {name}: provider {provider.type} ended with exit code {code}")
    return found


def arguments(project: str, service: str, provider: Provider, command: str, metadata: Metadata) -> list[str]:
    """The command line after the program's name."""
    options = [
        f"--{key}={value}"
        for key, values in provider.options.items()
        if metadata.parameters is None or key in metadata.parameters
        for value in values
    ]
    return ["compose", f"--project-name={project}", command, *options, service]


def _hear(name: str, kind: str, line: bytes, found: dict[str, str]) -> None:
    """Take one message. Raises ProviderFailed."""
    if not line.strip():
        return
    try:
        message = json.loads(line)
        what, text = str(message["type"]), str(message.get("message", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ProviderFailed(
            f"service {name}: provider {kind} printed what is no message: {line[:200].decode(errors='replace')!r}"
        ) from None
    if what == "error":
        raise ProviderFailed(f"service {name}: provider {kind}: {text}")
    if what == "setenv":
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ProviderFailed(f"service {name}: provider {kind} set {text!r}: it must be NAME=value")
        found[key] = value
    elif what == "info":
        say("Service", name, text)
    elif what != "debug":
        raise ProviderFailed(f"service {name}: provider {kind} sent an unknown message type {what!r}")


async def _metadata(path: str, project: Project) -> bytes:
    """What the program says of itself; nothing when it does not know the question."""
    process = await asyncio.create_subprocess_exec(
        path,
        "compose",
        "metadata",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=project.directory,
    )
    out, _ = await process.communicate()
    return out if process.returncode == 0 else b""


def parsed_metadata(text: bytes, command: str) -> Metadata:
    """The part about one command; everything is allowed where there is none."""
    try:
        whole: Any = json.loads(text)
    except ValueError:
        return Metadata()
    if not isinstance(whole, dict):
        return Metadata()
    said = cast(Mapping[str, Any], whole)
    if not any(isinstance(said.get(each), dict) for each in ("up", "down")):
        return Metadata()
    part = said.get(command)
    listed: Any = cast(Mapping[str, Any], part).get("parameters") if isinstance(part, dict) else None
    entries = [
        cast(Mapping[str, Any], each) for each in cast(list[Any], listed or []) if isinstance(each, dict)
    ]
    return Metadata(
        frozenset(str(each.get("name", "")) for each in entries),
        tuple(str(each["name"]) for each in entries if each.get("required") is True and "name" in each),
    )


def given(specs: StackSpecs, project: Project, provided: Provided) -> StackSpecs:
    """The specs with what the providers set in the environment of those that depend on them."""
    services: list[Any] = []
    for spec in specs.services:
        more = provided.environment(project, spec.name.removeprefix(f"{specs.stack}_"))
        if more:
            names = {each.partition("=")[0] for each in more}
            container = spec.task.container
            kept = tuple(each for each in container.env if each.partition("=")[0] not in names)
            spec = replace(spec, task=replace(spec.task, container=replace(container, env=(*kept, *more))))
        services.append(spec)
    return replace(specs, services=tuple(services))
