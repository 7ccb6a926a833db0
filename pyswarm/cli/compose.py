"""`pyswarm compose`: the group with docker compose's options, and the commands that need no cluster."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pyswarm.cli.app import warn
from pyswarm.cli.compose_session import ComposeCommand, Settings, refuse, remember, settings
from pyswarm.cli.lazy import Entry, LazyGroup
from pyswarm.errors import Invalid

if TYPE_CHECKING:
    from compose.errors import Problem
    from compose.load import Passes
    from compose.project import Project

_UP, _LOOK, _RUN = "pyswarm.cli.compose_up", "pyswarm.cli.compose_look", "pyswarm.cli.compose_run"
_IMAGES = "pyswarm.cli.compose_images"
_ENTRIES = {
    "attach": Entry(
        f"{_RUN}:attach_command", "Attach to a service's running container's input, output and errors"
    ),
    "build": Entry(f"{_IMAGES}:build", "Build or rebuild services"),
    "config": Entry(
        "pyswarm.cli.compose_config:config", "Parse, resolve and render compose file in canonical format"
    ),
    "cp": Entry("pyswarm.cli.compose_copy:cp", "Copy files between a service container and this machine"),
    "create": Entry(f"{_UP}:create", "Create what services need, and do not start them"),
    "down": Entry("pyswarm.cli.compose_down:down", "Stop and remove containers, networks"),
    "events": Entry(f"{_LOOK}:events", "Receive real time events from containers"),
    "exec": Entry(f"{_RUN}:exec_command", "Execute a command in a running container"),
    "images": Entry(f"{_IMAGES}:images", "List images used by the created containers"),
    "kill": Entry("pyswarm.cli.compose_down:kill", "Force stop service containers"),
    "logs": Entry("pyswarm.cli.compose_logs:logs", "View output from containers"),
    "ls": Entry(f"{_LOOK}:list_projects", "List running compose projects"),
    "port": Entry(f"{_LOOK}:port", "Print the public port for a port binding"),
    "ps": Entry(f"{_LOOK}:ps", "List containers"),
    "pull": Entry(f"{_IMAGES}:pull", "Pull service images"),
    "push": Entry(f"{_IMAGES}:push", "Push service images"),
    "restart": Entry(f"{_UP}:restart", "Restart service containers"),
    "rm": Entry("pyswarm.cli.compose_down:remove", "Remove stopped service containers"),
    "run": Entry(f"{_RUN}:run", "Run a one-off command on a service"),
    "scale": Entry(f"{_UP}:scale", "Scale services"),
    "start": Entry(f"{_UP}:start", "Start services"),
    "stats": Entry("pyswarm.cli.compose_stats:stats", "Display the containers' use of resources"),
    "stop": Entry("pyswarm.cli.compose_down:stop", "Stop services"),
    "top": Entry(f"{_LOOK}:top", "Display the running processes"),
    "up": Entry(f"{_UP}:up", "Create and start containers"),
    "version": Entry(f"{_LOOK}:version", "Show the version information"),
    "volumes": Entry(f"{_LOOK}:volumes", "List volumes"),
    "wait": Entry(f"{_LOOK}:wait", "Block until containers of services stop"),
    "watch": Entry("pyswarm.cli.compose_watch:watch", "Rebuild or refresh containers when files are updated"),
}
REFUSED = {
    "pause": "the node's agent cannot freeze containers: use `compose stop`",
    "unpause": "the node's agent cannot freeze containers: use `compose start`",
    "commit": "images are made by `compose build` alone",
    "export": "images are made by `compose build` alone",
    "publish": "applications are files here: commit them",
    "bridge": "there is no other model to convert to",
}


class _Group(LazyGroup):
    """The group, and docker compose's commands that pyswarm has not: refused with the reason."""

    command_class = ComposeCommand

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] in REFUSED:
            refuse(f"compose {args[0]}", REFUSED[args[0]])
        return super().resolve_command(ctx, args)


@click.group(cls=_Group, entries=_ENTRIES)
@click.option(
    "-f",
    "--file",
    "files",
    multiple=True,
    metavar="FILE",
    help="Compose file; repeat for overrides, - for stdin.",
)
@click.option("-p", "--project-name", default="", help="Project name.")
@click.option("--env-file", "env_files", multiple=True, metavar="FILE", help="Instead of .env.")
@click.option("--profile", "profiles", multiple=True, help="Enable a profile.")
@click.option("--project-directory", default="", help="What relative paths are relative to.")
@click.option("--workdir", default="", hidden=True)
@click.option("--strict", is_flag=True, help="Warnings are errors.")
@click.option(
    "--ansi",
    type=click.Choice(("never", "always", "auto")),
    default="auto",
    help="Control when to print ANSI control characters.",
)
@click.option(
    "--progress",
    type=click.Choice(("auto", "tty", "plain", "json", "quiet")),
    default="auto",
    envvar="COMPOSE_PROGRESS",
    help="Set type of progress output.",
)
@click.option("--parallel", type=int, default=-1, help="Accepted; the managers decide what runs in parallel.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, do nothing.")
@click.option("--all-resources", is_flag=True, help="Not supported: what no service uses is not made.")
@click.option("--compatibility", is_flag=True, help="Not supported: names are `project-service-1`.")
@click.pass_context
def compose(
    ctx: click.Context,
    files: tuple[str, ...],
    project_name: str,
    env_files: tuple[str, ...],
    profiles: tuple[str, ...],
    project_directory: str,
    workdir: str,
    strict: bool,
    ansi: str,
    progress: str,
    parallel: int,
    dry_run: bool,
    all_resources: bool,
    compatibility: bool,
) -> None:
    """Run a Compose project on one node, with docker compose's commands."""
    if all_resources:
        refuse("--all-resources", "what no service uses is not made")
    if compatibility:
        refuse("--compatibility", "names are `project-service-1`, as docker compose makes them now")
    if parallel != -1:
        warn("warning: --parallel has no effect: the managers decide what runs in parallel")
    remember(
        ctx,
        Settings(
            files=files,
            name=project_name,
            env_files=env_files,
            profiles=profiles,
            directory=project_directory or workdir,
            strict=strict,
            ansi=ansi,
            progress=progress,
            dry_run=dry_run,
        ),
    )


def load(
    files: Sequence[str],
    *,
    name: str | None = None,
    env_files: Sequence[str] = (),
    profiles: Sequence[str] = (),
    directory: str = "",
    strict: bool = False,
    passes: Passes | None = None,
) -> Project:
    """The project in these files ("-" is standard input). Raises Invalid with every problem, each with the
    line that it is about when a person reads it. Without `passes`, all of them run."""
    from compose.errors import ComposeErrors
    from compose.load import ALL_PASSES, load_project

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
            passes=passes or ALL_PASSES,
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


file_option = click.option("-f", "--file", "files", multiple=True, metavar="FILE", hidden=True)
env_file_option = click.option("--env-file", "env_files", multiple=True, metavar="FILE", hidden=True)
profile_option = click.option("--profile", "profiles", multiple=True, hidden=True)
directory_option = click.option("--project-directory", default="", hidden=True)
strict_option = click.option("--strict", is_flag=True, help="Warnings are errors.")


def loaded(
    files: tuple[str, ...],
    name: str,
    env_files: tuple[str, ...],
    profiles: tuple[str, ...],
    directory: str,
    strict: bool,
    passes: Passes | None = None,
) -> Project:
    """The project by the options on either side of the command's name."""
    said = settings()
    return load(
        (*said.files, *files),
        name=name or said.name or None,
        env_files=(*said.env_files, *env_files),
        profiles=(*said.profiles, *profiles),
        directory=directory or said.directory,
        strict=strict or said.strict,
        passes=passes,
    )


def rendered(project: Project, format: str, *, keep_env_files: bool = False) -> str:
    """The project in canonical form as YAML or JSON."""
    from compose.project import render

    return render(project.canonical(keep_env_files=keep_env_files), "json" if format == "json" else "yaml")


def template(
    files: tuple[str, ...],
    name: str,
    env_files: tuple[str, ...],
    profiles: tuple[str, ...],
    directory: str,
    format: str,
    passes: Passes | None = None,
) -> str:
    """The model with the variables left in place."""
    from compose.errors import ComposeErrors
    from compose.load import ALL_PASSES, load_template
    from compose.project import render

    said = settings()
    place = directory or said.directory
    try:
        value = load_template(
            [*said.files, *files],
            project_directory=Path(place) if place else None,
            project_name=name or said.name or None,
            env_files=[Path(each) for each in (*said.env_files, *env_files)],
            environ=os.environ,
            profiles=(*said.profiles, *profiles),
            stdin=sys.stdin.read,
            passes=passes or ALL_PASSES,
        )
    except ComposeErrors as errors:
        raise explained(errors) from None
    return render(value, "json" if format == "json" else "yaml")


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

    project = loaded(files, "", env_files, profiles, project_directory, strict)
    try:
        specs = convert_stack(project, as_stack)
    except ComposeErrors as errors:
        raise explained(errors) from None
    warnings = [*dict.fromkeys((*project.warnings, *specs.warnings))]
    if warnings and (strict or settings().strict):
        raise Invalid("\n".join(str(each) for each in warnings))
    show_warnings(warnings)
    count = len(specs.services)
    click.echo(f"{count} service{'' if count == 1 else 's'}, no errors")
