"""`pyswarm compose`: what Compose files say, without a cluster; and loading them for `stack`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pyswarm.cli.app import warn
from pyswarm.cli.lazy import LazyGroup
from pyswarm.errors import Invalid

if TYPE_CHECKING:
    from compose.errors import Problem
    from compose.project import Project


@click.group(cls=LazyGroup)
def compose() -> None:
    """Check and show Compose files."""


def load(
    files: Sequence[str],
    *,
    name: str | None = None,
    env_files: Sequence[str] = (),
    profiles: Sequence[str] = (),
    directory: str = "",
    strict: bool = False,
) -> Project:
    """The project in these files ("-" is standard input). Raises Invalid with every problem, each with the
    line that it is about when a person reads it."""
    from compose.errors import ComposeErrors
    from compose.load import load_project

    try:
        return load_project(
            [*files],
            project_directory=Path(directory) if directory else None,
            project_name=name,
            env_files=[Path(each) for each in env_files],
            environ=os.environ,
            profiles=profiles,
            strict=strict,
            stdin=sys.stdin.read,
        )
    except ComposeErrors as errors:
        raise explained(errors) from None


def explained(errors: Invalid) -> Invalid:
    """Compose's problems as one error, with excerpts on a terminal and a line each elsewhere."""
    pretty = getattr(errors, "pretty", None)
    return Invalid(str(pretty()) if pretty is not None and sys.stderr.isatty() else str(errors))


def show_warnings(warnings: Sequence[Problem]) -> None:
    """One line each on standard error."""
    for each in warnings:
        warn(f"warning: {each}")


file_option = click.option(
    "-f",
    "--file",
    "files",
    multiple=True,
    metavar="FILE",
    help="Compose file; repeat for overrides, - for stdin.",
)
env_file_option = click.option(
    "--env-file", "env_files", multiple=True, metavar="FILE", help="Instead of .env."
)
profile_option = click.option("--profile", "profiles", multiple=True, help="Enable a profile.")
directory_option = click.option(
    "--project-directory", default="", help="What relative paths are relative to."
)
strict_option = click.option("--strict", is_flag=True, help="Warnings are errors.")


def rendered(project: Project, format: str) -> str:
    """The project in canonical form as YAML or JSON."""
    import json

    import yaml

    value = project.canonical()
    if format == "json":
        return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


@compose.command()
@file_option
@click.option("-p", "--project-name", default="", help="Project name.")
@env_file_option
@profile_option
@directory_option
@strict_option
@click.option("--format", type=click.Choice(("yaml", "json")), default="yaml", show_default=True)
@click.option("-o", "--output", default="", help="Save to file.")
@click.option("-q", "--quiet", is_flag=True, help="Only validate, print nothing.")
@click.option("--services", "only_services", is_flag=True, help="Print the service names, one per line.")
@click.option("--images", "only_images", is_flag=True, help="Print the image names, one per line.")
@click.option("--hash", "hash_of", default="", metavar="SERVICE|*", help="Print the service config hash.")
def config(
    files: tuple[str, ...],
    project_name: str,
    env_files: tuple[str, ...],
    profiles: tuple[str, ...],
    project_directory: str,
    strict: bool,
    format: str,
    output: str,
    quiet: bool,
    only_services: bool,
    only_images: bool,
    hash_of: str,
) -> None:
    """Parse, resolve and render Compose files in canonical form."""
    project = load(
        files,
        name=project_name or None,
        env_files=env_files,
        profiles=profiles,
        directory=project_directory,
        strict=strict,
    )
    show_warnings(project.warnings)
    names = sorted(project.services)
    if quiet:
        return
    if only_services:
        text = "".join(f"{name}\n" for name in names)
    elif only_images:
        text = "".join(f"{project.services[n].image or f'{project.name}-{n}'}\n" for n in names)
    elif hash_of:
        wanted = names if hash_of == "*" else hash_of.split(",")
        missing = [name for name in wanted if name not in names]
        if missing:
            raise Invalid(f"no such service: {missing[0]}")
        text = "".join(f"{name} {project.hash(name)}\n" for name in wanted)
    else:
        text = rendered(project, format)
    if output:
        Path(output).write_text(text)
    else:
        click.echo(text, nl=False)


@compose.command()
@file_option
@env_file_option
@profile_option
@directory_option
@strict_option
@click.option("--stack", "as_stack", default="stack", help="Name to check the stack with.")
def check(
    files: tuple[str, ...],
    env_files: tuple[str, ...],
    profiles: tuple[str, ...],
    project_directory: str,
    strict: bool,
    as_stack: str,
) -> None:
    """Check Compose files and whether a stack can be made of them; exit code 1 if not."""
    from compose.convert import convert_stack
    from compose.errors import ComposeErrors

    project = load(files, env_files=env_files, profiles=profiles, directory=project_directory, strict=strict)
    try:
        specs = convert_stack(project, as_stack)
    except ComposeErrors as errors:
        raise explained(errors) from None
    show_warnings([*dict.fromkeys((*project.warnings, *specs.warnings))])
    click.echo(f"{len(specs.services)} services, no errors")
