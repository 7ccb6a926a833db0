"""`pyswarm compose config`: the project as it was understood, or lists of what is in it. Needs no cluster."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyswarm.cli.compose import (
    directory_option,
    env_file_option,
    explained,
    file_option,
    loaded,
    profile_option,
    rendered,
    show_warnings,
    strict_option,
    template,
)
from pyswarm.cli.compose_session import ComposeCommand, settings
from pyswarm.errors import Invalid

if TYPE_CHECKING:
    from compose.interpolate import Variable
    from compose.load import Passes
    from compose.project import Project
    from compose.tree import Node

_LISTS = ("services", "images", "volumes", "networks", "models", "profiles", "variables", "environment")


@click.command(cls=ComposeCommand)
@file_option
@click.option("-p", "--project-name", default="", hidden=True)
@env_file_option
@profile_option
@directory_option
@strict_option
@click.option("--format", type=click.Choice(("yaml", "json", "table")), default=None, help="yaml or json.")
@click.option("-o", "--output", default="", help="Save to file (default to stdout).")
@click.option("-q", "--quiet", is_flag=True, help="Only validate, print nothing.")
@click.option("--services", "list_services", is_flag=True, help="Print the service names, one per line.")
@click.option("--images", "list_images", is_flag=True, help="Print the image names, one per line.")
@click.option("--volumes", "list_volumes", is_flag=True, help="Print the volume names, one per line.")
@click.option("--networks", "list_networks", is_flag=True, help="Print the network names, one per line.")
@click.option("--models", "list_models", is_flag=True, help="Print the model names, one per line.")
@click.option("--profiles", "list_profiles", is_flag=True, help="Print the profile names, one per line.")
@click.option("--variables", "list_variables", is_flag=True, help="Print model variables and default values.")
@click.option(
    "--environment", "list_environment", is_flag=True, help="Print environment used for interpolation."
)
@click.option("--hash", "hash_of", default="", metavar="SERVICE|*", help="Print the service config hash.")
@click.option("--no-env-resolution", is_flag=True, help="Leave the services' env files unread.")
@click.option("--no-consistency", is_flag=True, help="Don't check model consistency.")
@click.option("--no-interpolate", is_flag=True, help="Don't interpolate environment variables.")
@click.option("--no-normalize", is_flag=True, help="Don't normalize compose model.")
@click.option("--no-path-resolution", is_flag=True, help="Don't resolve file paths.")
@click.option("--resolve-image-digests", is_flag=True, help="Pin image tags to digests: asks the registries.")
@click.option("--lock-image-digests", is_flag=True, help="Print an override file with image digests.")
@click.argument("names", nargs=-1, metavar="[SERVICE...]")
def config(
    files: tuple[str, ...],
    project_name: str,
    env_files: tuple[str, ...],
    profiles: tuple[str, ...],
    project_directory: str,
    strict: bool,
    format: str | None,
    output: str,
    quiet: bool,
    hash_of: str,
    no_interpolate: bool,
    names: tuple[str, ...],
    **options: Any,
) -> None:
    """Parse, resolve and render compose file in canonical format."""
    chosen = next((kind for kind in _LISTS if options[f"list_{kind}"]), "")
    if no_interpolate and (chosen not in ("", "variables") or hash_of or names or _digests(options)):
        raise Invalid(
            "--no-interpolate prints the whole model: it goes with --format, --output, --quiet, "
            "--no-normalize, --no-path-resolution and --variables alone"
        )
    if chosen == "variables":
        found = _found_variables(files, project_name, env_files, project_directory)
        _print("" if quiet else _variables(found, format or ""), output)
        return
    if no_interpolate:
        passes = _passes(options)
        text = template(files, project_name, env_files, profiles, project_directory, format or "yaml", passes)
        _print("" if quiet else text, output)
        return
    project = loaded(files, project_name, env_files, profiles, project_directory, strict, _passes(options))
    show_warnings(project.warnings)
    if names:
        project = _narrowed(project, names)
    if _digests(options):
        project = _pinned(project)
    if quiet:
        return
    if chosen:
        text = _listed(project, chosen)
    elif hash_of:
        text = _hashes(project, hash_of)
    elif options["lock_image_digests"]:
        text = _locks(project, format or "yaml")
    else:
        text = rendered(project, format or "yaml", keep_env_files=bool(options["no_env_resolution"]))
    _print(text, output)


def _digests(options: Mapping[str, Any]) -> bool:
    return bool(options["resolve_image_digests"] or options["lock_image_digests"])


def _passes(options: Mapping[str, Any]) -> Passes:
    from compose.load import Passes

    return Passes(
        paths=not options["no_path_resolution"],
        env_files=not options["no_env_resolution"],
        defaults=not options["no_normalize"],
        consistency=not options["no_consistency"],
    )


def _print(text: str, output: str) -> None:
    """To the file, or standard output."""
    if output:
        Path(output).write_text(text)
    else:
        click.echo(text, nl=False)


def _narrowed(project: Project, names: Sequence[str]) -> Project:
    """The project with these services and what they depend on."""
    from compose.tree import mapping
    from pyswarm.cli.compose_local import closure

    kept = closure(project, names)
    nodes = {name: node for name, node in mapping(project.tree.get("services")).items() if name in kept}
    services = {name: each for name, each in project.services.items() if name in kept}
    return _with_services(replace(project, services=services), nodes)


def _with_services(project: Project, nodes: dict[str, Node]) -> Project:
    """The project with other trees of its services."""
    from compose.tree import mapping

    services = project.tree.get("services")
    assert services is not None, "there are services: they were found in it"
    entries = {**mapping(project.tree), "services": services.replaced(nodes)}
    return replace(project, tree=project.tree.replaced(entries))


# ------------------------------------------------------------------------------------------- image digests


def _pinned(project: Project) -> Project:
    """The project with each image's digest behind its name, as the registries have it now.

    Raises NotFound, PermissionDenied or Unavailable as the registry answers."""
    from compose.tree import mapping

    known: dict[str, str] = {}
    nodes: dict[str, Node] = {}
    for name, node in mapping(project.tree.get("services")).items():
        image = node.get("image")
        nodes[name] = node
        if image is None or not image.text():
            continue
        if image.text() not in known:
            known[image.text()] = _pinned_name(image.text())
        nodes[name] = node.replaced({**mapping(node), "image": image.replaced(known[image.text()])})
    return _with_services(project, nodes) if nodes else project


def _pinned_name(image: str) -> str:
    """`docker.io/library/postgres:16@sha256:...`, docker compose's way to write it."""
    from node_agent.images.auth import decode_header
    from node_agent.images.reference import parse
    from node_agent.images.registry import Registry
    from pyswarm.cli.credentials import registry_auth

    reference = parse(image)
    if reference.digest:
        return image
    registry = Registry(reference.registry_host, decode_header(registry_auth(image)))
    return f"{reference.domain}/{reference.path}:{reference.tag}@{registry.digest(reference)}"


def _locks(project: Project, format: str) -> str:
    """An override file that holds the images alone."""
    from compose.project import render
    from compose.tree import mapping

    services = {
        name: {"image": image.text()}
        for name, node in sorted(mapping(project.tree.get("services")).items())
        if (image := node.get("image")) is not None
    }
    return render({"services": services}, "json" if format == "json" else "yaml")


# ------------------------------------------------------------------------------------------- lists


def _listed(project: Project, kind: str) -> str:
    """What `--services`, `--images`, ... print."""
    if kind == "environment":
        return "".join(f"{key}={value}\n" for key, value in sorted(project.environment.items()))
    if kind == "images":
        found = [each.image or f"{project.name}-{name}" for name, each in sorted(project.services.items())]
    elif kind == "profiles":
        everyone = [*project.services.values(), *project.disabled.values()]
        found = sorted({name for each in everyone for name in each.profiles})
    elif kind == "services":
        found = sorted(project.services)
    else:
        value = project.canonical().get(kind)
        found = sorted(str(key) for key in value) if isinstance(value, dict) else []
    return "".join(f"{name}\n" for name in found)


def _found_variables(
    files: Sequence[str], name: str, env_files: Sequence[str], directory: str
) -> list[Variable]:
    """The variables of all files, by name."""
    from compose.errors import ComposeErrors
    from compose.load import list_variables

    said = settings()
    place = directory or said.directory
    try:
        found = list_variables(
            [*said.files, *files],
            project_directory=Path(place) if place else None,
            project_name=name or said.name or None,
            env_files=[Path(each) for each in (*said.env_files, *env_files)],
            environ=os.environ,
            stdin=sys.stdin.read,
        )
    except ComposeErrors as errors:
        raise explained(errors) from None
    return sorted(found, key=lambda variable: variable.name)


def _variables(found: Sequence[Variable], format: str) -> str:
    from compose.project import render
    from pyswarm.cli.table import aligned

    if format in ("json", "yaml"):
        shown = {
            each.name: {
                "Name": each.name,
                "DefaultValue": each.default,
                "PresenceValue": each.alternate,
                "Required": each.required,
            }
            for each in found
        }
        if format == "json":
            return json.dumps(shown, indent=4, ensure_ascii=False) + "\n"
        return render(shown, "yaml")
    lines = ["NAME\tREQUIRED\tDEFAULT VALUE\tALTERNATE VALUE"]
    for each in found:
        lines.append(f"{each.name}\t{str(each.required).lower()}\t{each.default}\t{each.alternate}")
    return aligned(lines)


def _hashes(project: Project, hash_of: str) -> str:
    names = sorted(project.services)
    wanted = names if hash_of == "*" else hash_of.split(",")
    missing = [name for name in wanted if name not in names]
    if missing:
        raise Invalid(f"no such service: {missing[0]}")
    return "".join(f"{name} {project.hash(name)}\n" for name in wanted)
