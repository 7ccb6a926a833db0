"""What every `pyswarm compose` command starts from: the options before the command, the project, its objects."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

import click

from pyswarm.cli.app import App, current_app, warn
from pyswarm.cli.lazy import GoCommand
from pyswarm.errors import Conflict, Invalid, NotFound

if TYPE_CHECKING:
    from compose.convert import StackSpecs
    from compose.project import Project
    from pyswarm.client import Client
    from pyswarm.objects import Service, Task
    from pyswarm.specs import ServiceSpec

P = ParamSpec("P")
_KEY = "pyswarm.compose"


@dataclass(slots=True)
class Settings:
    """The options between `compose` and the command."""

    files: tuple[str, ...] = ()
    name: str = ""
    env_files: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    directory: str = ""
    strict: bool = False
    ansi: str = "auto"
    progress: str = "auto"
    dry_run: bool = False


def remember(ctx: click.Context, settings: Settings) -> None:
    ctx.meta[_KEY] = settings


def settings() -> Settings:
    """Those of the command that is running."""
    found = click.get_current_context().meta.get(_KEY)
    return found if isinstance(found, Settings) else Settings()


def _set_dry_run(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    del param
    found = ctx.meta.get(_KEY)
    if value and isinstance(found, Settings):
        found.dry_run = True


class ComposeCommand(GoCommand):
    """A command that also takes --dry-run after its name, as docker compose's do."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(
            click.Option(
                ["--dry-run"],
                is_flag=True,
                expose_value=False,
                callback=_set_dry_run,
                help="Show what would be done, do nothing.",
            )
        )


def coloured() -> bool:
    """Whether output has colours: --ansi, or a terminal that nobody asked to be plain."""
    said = settings().ansi
    if said != "auto":
        return said == "always"
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb" and "NO_COLOR" not in os.environ


def say(kind: str, name: str, what: str) -> None:
    """One step, as docker compose reports it: ` Container shop-web-1  Started`."""
    form = settings().progress
    if form == "quiet":
        return
    if form == "json":
        click.echo(json.dumps({"id": f"{kind} {name}", "status": what}), err=True)
        return
    prefix = "DRY-RUN MODE - " if settings().dry_run else ""
    click.echo(f"{prefix} {kind} {name}  {what}", err=True)


_CHANCES = 5
"""How often a change is tried that others came before."""


@dataclass(slots=True)
class Scope:
    """The project that a command is about."""

    client: Client
    app: App
    name: str
    project: Project | None = None
    """None when it is known by its name alone."""
    services: tuple[Service, ...] = ()
    tasks: tuple[Task, ...] = ()
    _node: str = field(default="", repr=False)

    @property
    def label(self) -> list[tuple[str, str]]:
        from pyswarm.specs import STACK_LABEL

        return [("label", f"{STACK_LABEL}={self.name}")]

    async def refresh(self) -> None:
        """Read what the cluster has of it."""
        import asyncio

        services, tasks = await asyncio.gather(
            self.client.services(self.label), self.client.tasks(self.label)
        )
        self.services = tuple(each for each in services if not each.pending_delete)
        self.tasks = tasks

    async def node(self) -> str:
        """Id of the node that everything runs on: the one of the manager that answers."""
        if not self._node:
            self._node = (await self.client.info()).node_id
        return self._node

    async def amend(
        self, service: Service, change: Callable[[ServiceSpec], ServiceSpec], *, force: bool = False
    ) -> None:
        """Write a change of a service's spec, over what the managers have noted of it meanwhile too. Nothing is
        written when nothing changes, unless it is `force`d. Raises Conflict when others keep changing it."""
        for chance in range(_CHANCES, 0, -1):
            spec = change(service.spec)
            if spec == service.spec and not force:
                return
            try:
                await self.client.update(service, spec, force=force, resolve_image="never")
            except Conflict:
                if chance == 1:
                    raise
                service = await self.client.get(type(service), service.id)
                continue
            return

    def loaded(self) -> Project:
        """The project's files. Raises Invalid when there are none."""
        if self.project is None:
            raise Invalid(f"project {self.name}: this needs its Compose file: name it with -f")
        return self.project

    def chosen(self, names: Sequence[str], *, one_offs: bool = False) -> list[Service]:
        """The project's services of these names in the cluster, or all. Raises NotFound for one that neither the
        cluster nor the file has."""
        from pyswarm.cli.compose_state import is_one_off, short_name

        known = {short_name(each) for each in self.services}
        declared = set(self.project.services) if self.project is not None else set[str]()
        for name in names:
            if name not in known | declared:
                raise NotFound(f"no such service: {name}")
        return [
            each
            for each in self.services
            if (not names or short_name(each) in names) and (one_offs or not is_one_off(each))
        ]

    def orphans(self) -> list[Service]:
        """Services of the project that its files do not have (any more)."""
        from pyswarm.cli.compose_state import is_one_off, short_name

        if self.project is None:
            return []
        declared = {*self.project.services, *self.project.disabled}
        return [each for each in self.services if short_name(each) not in declared or is_one_off(each)]


def load_project(*, needed: bool = True) -> tuple[str, Project | None]:
    """The name and the project that the options say. With `needed` false, a name alone will do where there is no
    file."""
    from pyswarm.cli import compose

    said = settings()
    name = said.name or os.environ.get("COMPOSE_PROJECT_NAME", "")
    if not needed and name and not said.files and not _has_file(said):
        return name, None
    project = compose.load(
        said.files,
        name=said.name or None,
        env_files=said.env_files,
        profiles=said.profiles,
        directory=said.directory,
        strict=said.strict,
    )
    return project.name, project


def _has_file(said: Settings) -> bool:
    from pathlib import Path

    from compose.errors import ComposeErrors
    from compose.load import find_files

    try:
        find_files(said.directory or Path.cwd(), os.environ)
    except ComposeErrors:
        return False
    return True


def specs_of(project: Project) -> StackSpecs:
    """The project's specs as a stack's, images with their tags, and warnings shown. Raises Invalid."""
    from compose.convert import convert_stack
    from compose.errors import ComposeErrors
    from pyswarm.cli import compose
    from pyswarm.cli.stack import tagged

    try:
        specs = convert_stack(project, project.name)
    except ComposeErrors as errors:
        raise compose.explained(errors) from None
    shown = list(dict.fromkeys((*project.warnings, *specs.warnings)))
    if settings().strict and specs.warnings:
        raise Invalid("\n".join(str(each) for each in shown))
    compose.show_warnings(
        [each for each in shown if "has no effect: " not in each.message or _matters(each.path)]
    )
    return replace(specs, services=tuple(tagged(each) for each in specs.services))


_FOR_CLUSTERS = ("develop", "attach", "provider")
"""Attributes that a stack cannot use, and a project on one machine does."""


def _matters(path: str) -> bool:
    return not any(part in path.split(".") for part in _FOR_CLUSTERS)


def in_project(
    *, needed: bool = False
) -> Callable[[Callable[Concatenate[Scope, P], Awaitable[int | None]]], Callable[P, None]]:
    """Turn a coroutine of (scope, options...) into a click callback; what it returns is the exit code. The scope
    holds what the cluster has of the project at the start. `needed`: not without its files."""

    def wrap(command: Callable[Concatenate[Scope, P], Awaitable[int | None]]) -> Callable[P, None]:
        @functools.wraps(command)
        def callback(*args: P.args, **kwargs: P.kwargs) -> None:
            name, project = load_project(needed=needed)
            app = current_app()

            async def work(client: Client) -> int | None:
                scope = Scope(client, app, name, project)
                await scope.refresh()
                return await command(scope, *args, **kwargs)

            code = app.run(work)
            if code:
                click.get_current_context().exit(code)

        return callback

    return wrap


def refuse(flag: str, why: str) -> None:
    """Raise Invalid for a flag of docker compose that pyswarm has not."""
    raise Invalid(f"{flag} is not supported: {why}")


def note(text: str) -> None:
    """Say that something is done differently."""
    warn(f"warning: {text}")
