"""`pyswarm stack`: deploy, plan, config, ls, ps, services, rm."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from pyswarm.api import DeployAction, DeployRequest
from pyswarm.cli import rows, values
from pyswarm.cli.app import (
    App,
    connected,
    current_app,
    filter_option,
    format_option,
    quiet_option,
    task_options,
    warn,
)
from pyswarm.cli.completion import complete_stacks
from pyswarm.cli.lazy import LazyGroup
from pyswarm.cli.service import converge, show_tasks
from pyswarm.cli.service_flags import DURATION
from pyswarm.cli.table import Layout, formatted, row
from pyswarm.errors import Conflict, Invalid, NotFound, PyswarmError
from pyswarm.objects import Service
from pyswarm.specs import STACK_LABEL, ServiceSpec

if TYPE_CHECKING:
    from compose.convert import Build, StackSpecs
    from compose.plan import StackPlan
    from pyswarm.client import Client

STACKS = Layout(
    columns=("Name", "Services"),
    headers={
        "Name": "NAME",
        "Services": "SERVICES",
        "Orchestrator": "ORCHESTRATOR",
        "Namespace": "NAMESPACE",
    },
    quiet="Name",
)
REMOVAL_POLL = 0.1
"""Seconds between looks at whether a removed stack is gone."""


@click.group(cls=LazyGroup, aliases={"up": "deploy", "down": "rm"})
def stack() -> None:
    """Manage stacks."""


stack_argument = click.argument("name", metavar="STACK", shell_complete=complete_stacks())


def compose_options(command: Any) -> Any:
    """The options that say what to deploy."""
    option = click.option
    for each in reversed(
        [
            option(
                "-c",
                "--compose-file",
                "files",
                multiple=True,
                metavar="FILE",
                help="Compose file, or - for stdin.",
            ),
            option("--env-file", "env_files", multiple=True, metavar="FILE", help="Instead of .env."),
            option("--profile", "profiles", multiple=True, help="Enable a profile."),
            option("--project-directory", default="", help="What relative paths are relative to."),
            option("--strict", is_flag=True, help="Warnings are errors."),
        ]
    ):
        command = each(command)
    return command


def specs_of(
    name: str,
    files: Sequence[str],
    env_files: Sequence[str],
    profiles: Sequence[str],
    directory: str,
    strict: bool,
) -> StackSpecs:
    """The stack's specs, after showing warnings. Raises Invalid with everything that is wrong."""
    from compose.convert import convert_stack
    from compose.errors import ComposeErrors
    from pyswarm.cli import compose

    _check_name(name)
    project = compose.load(
        files, name=None, env_files=env_files, profiles=profiles, directory=directory, strict=strict
    )
    try:
        specs = convert_stack(project, name)
    except ComposeErrors as errors:
        raise compose.explained(errors) from None
    shown = list(dict.fromkeys((*project.warnings, *specs.warnings)))
    if strict and specs.warnings:
        raise Invalid("\n".join(str(each) for each in shown))
    compose.show_warnings(shown)
    return replace(specs, services=tuple(tagged(each) for each in specs.services))


def tagged(spec: ServiceSpec) -> ServiceSpec:
    """With docker's default tag, so that the image can be told from its pinned form."""
    container = replace(spec.task.container, image=values.tagged(spec.task.container.image))
    return replace(spec, task=replace(spec.task, container=container))


def _check_name(name: str) -> None:
    if not name.strip() or set(name) & set("'\" \t"):
        raise Invalid(f"invalid stack name: {name!r}: use letters, digits, - and _")


# ------------------------------------------------------------------------------------------- deploy


@stack.command(context_settings={"allow_interspersed_args": True})
@compose_options
@click.option("-d", "--detach/--no-detach", default=False, help="Do not wait for the services to converge.")
@click.option("--dry-run", is_flag=True, help="Show what would change, change nothing.")
@click.option("--prune", is_flag=True, help="Prune services that are no longer referenced.")
@click.option("-q", "--quiet", is_flag=True, help="Suppress progress output.")
@click.option(
    "--resolve-image",
    type=click.Choice(("always", "changed", "never")),
    default="always",
    help="Query the registry to resolve image digest.",
)
@click.option("--timeout", type=DURATION, help="Give up waiting after this time, with exit code 1.")
@click.option(
    "--with-registry-auth", is_flag=True, help="Send registry authentication details to the agents."
)
@click.option("--no-build", is_flag=True, help="Do not build the images of services with `build`.")
@stack_argument
def deploy(
    name: str,
    files: tuple[str, ...],
    env_files: tuple[str, ...],
    profiles: tuple[str, ...],
    project_directory: str,
    strict: bool,
    dry_run: bool,
    prune: bool,
    resolve_image: str,
    with_registry_auth: bool,
    no_build: bool,
    **options: Any,
) -> None:
    """Deploy a new stack or update an existing stack, all of it or nothing."""
    specs = specs_of(name, files, env_files, profiles, project_directory, strict)
    app = current_app()
    request = _request(specs, prune, resolve_image, with_registry_auth)

    async def work(client: Client) -> None:
        if dry_run:
            await _show_plan(client, specs, prune, "text", False)
            return
        await _check(client, request)
        if not options.get("quiet"):
            warn(await _summary(client, specs, prune))
        if not no_build:
            await build_all(client, specs.builds)
        await _deploy(app, client, request, options)

    app.run(work)


def _request(specs: StackSpecs, prune: bool, resolve_image: str, with_auth: bool) -> DeployRequest:
    services = specs.services
    if with_auth:
        from pyswarm.cli.service import with_auth as authorized

        services = tuple(authorized(each) for each in services)
    return DeployRequest(
        stack=specs.stack,
        services=services,
        networks=specs.networks,
        volumes=specs.volumes,
        secrets=specs.secrets,
        configs=specs.configs,
        prune=prune,
        resolve_image=resolve_image,
    )


async def _check(client: Client, request: DeployRequest) -> None:
    """Ask the manager whether the whole is valid, before images are built. Raises what is wrong."""
    await client.deploy(replace(request, dry_run=True, resolve_image="never"))


_DONE = {"create": "Creating", "update": "Updating", "remove": "Removing"}


def action_line(action: DeployAction) -> str:
    """`Updating service shop_web (id: x1y2...)`, docker's line for one change; "" for none."""
    if action.action == "unchanged":
        return ""
    suffix = f" (id: {action.id})" if action.action == "update" else ""
    return f"{_DONE[action.action]} {action.kind} {action.name}{suffix}"


async def _deploy(app: App, client: Client, request: DeployRequest, options: Mapping[str, Any]) -> None:
    answer = await client.deploy(request)
    for text in answer.warnings:
        warn(f"warning: {text}")
    for line in filter(None, map(action_line, answer.actions)):
        click.echo(line)
    if all(each.action == "unchanged" for each in answer.actions):
        click.echo(f"Stack {request.stack} is up to date")
    if options.get("detach"):
        return
    ids = [
        each.id for each in answer.actions if each.kind == "service" and each.action != "remove" and each.id
    ]
    if len(ids) < len(request.services):
        found = await client.services([("label", f"{STACK_LABEL}={request.stack}")])
        wanted = {each.name for each in request.services}
        ids = [each.id for each in found if each.spec.name in wanted]
    if ids:
        await converge(app, client, ids, options)


async def build_all(client: Client, builds: Sequence[Build]) -> None:
    """Build the stack's images on the manager's node, each once: the nodes get them from there."""
    done: set[str] = set()
    for each in builds:
        if each.image in done:
            continue
        done.add(each.image)
        await build_one(client, each)


async def build_one(client: Client, build: Build, *, quiet: bool = False, node: str = "", **more: Any) -> str:
    """Build one image and return its id; `more` are arguments of `image.build` over those of the file. The
    build's own lines are shown when they are asked for, and when it fails."""
    from pyswarm.cli.image import build_on, nodes_say

    if not quiet:
        click.echo(f"Building {build.image}", err=True)
    args: dict[str, Any] = {
        "tags": [build.image, *build.tags],
        "args": dict(build.args),
        "labels": dict(build.labels),
        "target": build.target,
        "cache_from": list(build.cache_from),
        "no_cache": build.no_cache,
        "pull": build.pull,
        "network": build.network,
        "shm_size": build.shm_size,
        "extra_hosts": list(build.extra_hosts),
        "additional_contexts": dict(build.additional_contexts),
        "secrets": [
            {"id": key, "value": data.decode(errors="replace")} for key, data in build.secrets.items()
        ],
        "ssh": list(build.ssh),
        "ulimits": list(build.ulimits),
        "platforms": list(build.platforms),
    }
    if build.dockerfile_inline:
        args["dockerfile_inline"] = build.dockerfile_inline
    lines: list[str] = []
    say = nodes_say(False, build.image) if _verbose() and not quiet else lines.append
    try:
        answer = await build_on(client, build.context, build.dockerfile, {**args, **more}, node, say)
        return str(answer["id"])
    except PyswarmError as error:
        output = "".join(f"\n  {line}" for line in lines[-20:])
        raise type(error)(f"services.{build.service}.build: {error}{output}") from None


def _verbose() -> bool:
    """Whether the builds' own lines are wanted: --log-level info or debug."""
    return current_app().log_level in ("debug", "info")


# ------------------------------------------------------------------------------------------- plan, config


@stack.command()
@compose_options
@click.option("--prune", is_flag=True, help="Also plan the removal of what is no longer referenced.")
@click.option(
    "--format", type=click.Choice(("text", "json", "dot", "graph")), default="text", show_default=True
)
@click.option("--unchanged", is_flag=True, help="Also show what stays as it is.")
@click.option("--detailed-exitcode", is_flag=True, help="Exit with 3 when there is something to change.")
@stack_argument
def plan(
    name: str,
    files: tuple[str, ...],
    env_files: tuple[str, ...],
    profiles: tuple[str, ...],
    project_directory: str,
    strict: bool,
    prune: bool,
    format: str,
    unchanged: bool,
    detailed_exitcode: bool,
) -> None:
    """Show what a deploy would change, field by field, and change nothing."""
    specs = specs_of(name, files, env_files, profiles, project_directory, strict)

    async def work(client: Client) -> bool:
        return await _show_plan(client, specs, prune, format, unchanged)

    empty = current_app().run(work)
    if detailed_exitcode and not empty:
        click.get_current_context().exit(3)


async def _show_plan(client: Client, specs: StackSpecs, prune: bool, format: str, unchanged: bool) -> bool:
    """Print the plan; whether there is nothing to do."""
    from compose import plan as planning

    found = await _planned(client, specs, prune)
    render = {"json": planning.render_json, "dot": planning.render_dot, "graph": planning.render_graph}
    text = render[format](found) if format in render else planning.render_text(found, unchanged=unchanged)
    click.echo(text.rstrip("\n"))
    return found.empty


async def _summary(client: Client, specs: StackSpecs, prune: bool) -> str:
    """The plan in one line: `shop: 3 to create`."""
    from compose.plan import render_text

    return render_text(await _planned(client, specs, prune)).rstrip("\n").rpartition("\n")[2]


async def _planned(client: Client, specs: StackSpecs, prune: bool) -> StackPlan:
    """What the deploy would change. Raises Invalid for services that wait for each other. What the managers
    would refuse is a warning: the plan shows what is meant all the same."""
    from compose import plan as planning

    versions: planning.Versions = {}
    try:
        request = _request(specs, False, "never", False)
        versions = planning.versions_in(request, await client.deploy(replace(request, dry_run=True)))
    except PyswarmError as error:
        warn(f"warning: a deploy would be refused: {error}")

    services, networks, volumes, secrets, configs = await asyncio.gather(
        client.services(), client.networks(), client.volumes(), client.secrets(), client.configs()
    )
    current = planning.StackState(
        services=services, networks=networks, volumes=volumes, secrets=secrets, configs=configs
    )
    return planning.plan_stack(specs, current, prune, versions)


@stack.command()
@click.option(
    "-c", "--compose-file", "files", multiple=True, metavar="FILE", help="Compose file, or - for stdin."
)
@click.option("--env-file", "env_files", multiple=True, metavar="FILE", help="Instead of .env.")
@click.option("--profile", "profiles", multiple=True, help="Enable a profile.")
@click.option("--format", type=click.Choice(("yaml", "json")), default="yaml", show_default=True)
@click.option("--skip-interpolation", is_flag=True, help="Leave variables in place.")
def config(
    files: tuple[str, ...],
    env_files: tuple[str, ...],
    profiles: tuple[str, ...],
    format: str,
    skip_interpolation: bool,
) -> None:
    """Output the final config file, after merges and interpolations."""
    from pyswarm.cli import compose

    if skip_interpolation:
        click.echo(compose.template(files, "", env_files, profiles, "", format), nl=False)
        return
    project = compose.load(files, env_files=env_files, profiles=profiles)
    compose.show_warnings(project.warnings)
    click.echo(compose.rendered(project, format), nl=False)


# ------------------------------------------------------------------------------------------- looking


@stack.command("ls")
@format_option
@quiet_option("Only display stack names.")
@connected
async def list_stacks(app: App, client: Client, format: str, quiet: bool) -> None:
    """List stacks."""
    del app
    counts: dict[str, int] = {}
    for each in await client.services([("label", STACK_LABEL)]):
        name = each.spec.labels[STACK_LABEL]
        counts[name] = counts.get(name, 0) + 1
    from pyswarm.cli import human

    shown = [
        row(Name=name, Services=str(counts[name]), Orchestrator="Swarm", Namespace="")
        for name in sorted(counts, key=human.natural)
    ]
    click.echo(formatted(shown, STACKS, format, quiet), nl=False)


async def services_of(client: Client, name: str, filters: Sequence[str] = ()) -> Sequence[Service]:
    """The stack's services. Raises NotFound when it has none at all."""
    label = ("label", f"{STACK_LABEL}={name}")
    found = await client.services([label])
    if not found:
        raise NotFound(f"nothing found in stack: {name}")
    if not filters:
        return found
    matching = {each.id for each in await client.services(values.filters(filters))}
    return [each for each in found if each.id in matching]


@stack.command()
@stack_argument
@filter_option
@format_option
@quiet_option()
@connected
async def services(
    app: App, client: Client, name: str, filters: tuple[str, ...], format: str, quiet: bool
) -> None:
    """List the services in the stack."""
    del app
    try:
        found = await services_of(client, name, filters)
    except NotFound:
        warn(f"Nothing found in stack: {name}")  # which is no error: docker's `stack ps` alone has it as one
        return
    tasks = [] if quiet else await client.tasks([("label", f"{STACK_LABEL}={name}")])
    click.echo(formatted(rows.services(found, tasks), rows.SERVICES, format, quiet), nl=False)


@stack.command()
@stack_argument
@task_options
@connected
async def ps(
    app: App,
    client: Client,
    name: str,
    filters: tuple[str, ...],
    **shown: Any,
) -> None:
    """List the tasks in the stack."""
    tasks = await client.tasks([("label", f"{STACK_LABEL}={name}")])
    if not tasks:
        await services_of(client, name)
    if filters:
        matching = {each.id for each in await client.tasks(values.filters(filters))}
        tasks = tuple(each for each in tasks if each.id in matching)
    await show_tasks(app, client, tasks, **shown)


# ------------------------------------------------------------------------------------------- rm


@stack.command("rm")
@click.argument("names", nargs=-1, required=True, metavar="STACK...", shell_complete=complete_stacks())
@click.option("-d", "--detach/--no-detach", default=False, help="Do not wait for stack removal.")
@click.option("--timeout", type=DURATION, help="Give up waiting after this time, with exit code 1.")
@connected
async def remove(
    app: App, client: Client, names: tuple[str, ...], detach: bool, timeout: float | None
) -> None:
    """Remove one or more stacks, and wait until their tasks have ended."""
    del app
    for name in names:
        _check_name(name)
    removed: list[str] = []
    for name in names:
        try:
            answer = await client.remove_stack(name)
        except NotFound:
            warn(f"Nothing found in stack: {name}")
            continue
        for action in answer.actions:
            click.echo(action_line(replace(action, action="remove")))
        removed.append(name)
    if not detach:
        for name in removed:
            await _gone(client, name, timeout)


async def _gone(client: Client, name: str, timeout: float | None) -> None:
    """Return when the stack has no services, tasks and networks any more. Raises Conflict after `timeout`."""
    label = [("label", f"{STACK_LABEL}={name}")]
    try:
        async with asyncio.timeout(timeout):
            while True:
                left = await asyncio.gather(
                    client.tasks(label), client.services(label), client.networks(label)
                )
                if not any(left):
                    return
                await asyncio.sleep(REMOVAL_POLL)
    except TimeoutError:
        tasks, services, networks = await asyncio.gather(
            client.tasks(label), client.services(label), client.networks(label)
        )
        what = f"{len(services)} services, {len(tasks)} tasks, {len(networks)} networks"
        raise Conflict(f"stack {name} is not gone after {timeout:g} s: left are {what}") from None
