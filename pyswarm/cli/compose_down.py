"""`pyswarm compose down|stop|kill|rm`: containers end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import click

from pyswarm.cli import compose_local as local
from pyswarm.cli import nodes, values
from pyswarm.cli.app import warn
from pyswarm.cli.compose_images import build_all_services
from pyswarm.cli.compose_provider import providers
from pyswarm.cli.compose_provider import run as provide
from pyswarm.cli.compose_session import ComposeCommand, Scope, in_project, note, say, settings
from pyswarm.cli.compose_state import containers, is_one_off, short_name, stage
from pyswarm.cli.compose_up import halt, needed_by
from pyswarm.cli.compose_wait import POLL, signal_tasks, until_ended, until_gone
from pyswarm.errors import Conflict, NotFound, PyswarmError
from pyswarm.objects import Kind, Service, TaskState, alive
from pyswarm.specs import STACK_LABEL

_CHANCES = 20
"""How often it is tried to remove an image that is still in use."""


@click.command(cls=ComposeCommand)
@click.option(
    "--remove-orphans", is_flag=True, help="Remove containers for services not in the Compose file."
)
@click.option(
    "--rmi", type=click.Choice(("local", "all")), default=None, help="Remove images used by services."
)
@click.option("-t", "--timeout", type=float, default=None, help="Specify a shutdown timeout in seconds.")
@click.option("-v", "--volumes", is_flag=True, help="Remove named volumes of the project.")
@click.argument("names", nargs=-1, metavar="[SERVICE...]")
@in_project()
async def down(
    scope: Scope,
    remove_orphans: bool,
    rmi: str | None,
    timeout: float | None,
    volumes: bool,
    names: tuple[str, ...],
) -> None:
    """Stop and remove containers, networks."""
    chosen = scope.chosen(names, one_offs=True)
    orphans = [each for each in scope.orphans() if not is_one_off(each)]
    if orphans and not remove_orphans and not names:
        found = ", ".join(sorted(each.spec.name for each in orphans))
        note(f"found orphan services ({found}) for this project: --remove-orphans removes them")
        chosen = [each for each in chosen if each not in orphans]
    images = {each.task.container.image for each in (service.spec for service in chosen)}
    if not chosen and not names:
        warn(f"no containers of project {scope.name} found")
    await discard(scope, chosen, timeout)
    if scope.project is not None:
        found = providers(scope.project, names or None)
        await provide(scope.project, [each for each in reversed(found) if not names or each in names], "down")
    if not names:
        await _remove_rest(scope, keep=bool(orphans) and not remove_orphans)
        if volumes:
            await _remove_volumes(scope)
    if rmi is not None:
        await _remove_images(scope, images, rmi)


async def discard(scope: Scope, services: Sequence[Service], timeout: float | None = None) -> None:
    """Remove services and wait until their containers are gone: the dependent ones first, each after those that
    need it."""
    ordered = list(reversed(needed_by(scope, services)))
    still = [each.name for each in containers(services, scope.tasks) if not alive(each.task.status.state)]
    for each in [each for each in ordered if each in services]:
        if settings().dry_run:
            say("Service", short_name(each), "Removing")
            continue
        await scope.client.remove("service", each.id)
    if services and not settings().dry_run:
        await until_ended(scope, [each.id for each in services], grace=timeout, verb="Removed")
        await until_gone(scope, {each.id: each.spec.name for each in services})
        for name in still:
            say("Container", name, "Removed")


async def _remove_rest(scope: Scope, keep: bool) -> None:
    """Remove the project's networks, secrets and configs. `keep`: orphans still use some of them."""
    client = scope.client
    networks = await client.networks(scope.label)
    secrets, configs = await client.secrets(scope.label), await client.configs(scope.label)
    kinds: list[tuple[Kind, str, str]] = [
        *(("network", each.id, each.spec.name) for each in networks),
        *(("secret", each.id, each.spec.name) for each in secrets),
        *(("config", each.id, each.spec.name) for each in configs),
    ]
    for kind, ref, name in kinds:
        if settings().dry_run:
            say(kind.capitalize(), name, "Removing")
            continue
        try:
            await client.remove(kind, ref)
        except NotFound:
            continue
        except Conflict as error:
            if not keep:
                raise
            note(f"{kind} {name} stays: {error}")
            continue
        say(kind.capitalize(), name, "Removed")


async def _remove_volumes(scope: Scope) -> None:
    from pyswarm.cli.volume import remove_data

    for each in await scope.client.volumes():
        if each.spec.labels.get(STACK_LABEL) != scope.name:
            continue
        if settings().dry_run:
            say("Volume", each.spec.name, "Removing")
            continue
        await scope.client.remove("volume", each.id)
        await remove_data(scope.client, each.spec.name)
        say("Volume", each.spec.name, "Removed")


async def _remove_images(scope: Scope, images: set[str], which: str) -> None:
    """Those that were built under the name that pyswarm chose (`local`), or all that the services used."""
    names = sorted(images)
    if which == "local":
        names = [each for each in names if _own(scope, each)]
    for name in names:
        say("Image", name, "Removing")
        if settings().dry_run:
            continue
        try:
            await _remove_image(scope, name)
        except NotFound:
            continue
        except PyswarmError as error:
            note(f"image {name} stays: {error}")
            continue
        say("Image", name, "Removed")


async def _remove_image(scope: Scope, name: str) -> None:
    """Remove an image. The node may need a moment to forget the containers that it was used by: Conflict when it
    is used after that."""
    question = {"references": [name], "force": False}
    for chance in range(_CHANCES, 0, -1):
        try:
            await nodes.ask(scope.client, "image.rm", question, node=await scope.node())
        except Conflict:
            if chance == 1:
                raise
            await asyncio.sleep(POLL)
            continue
        return


def _own(scope: Scope, image: str) -> bool:
    """Whether the image has no name but `project-service`."""
    if scope.project is None:
        return image.startswith(f"{scope.name}-")
    from pyswarm.cli.compose_session import specs_of

    builds = build_all_services(specs_of(scope.project).builds)
    return any(
        values.tagged(each.image) == image and not scope.project.services[each.service].image
        for each in builds
    )


@click.command(cls=ComposeCommand)
@click.option("-t", "--timeout", type=float, default=None, help="Specify a shutdown timeout in seconds.")
@click.argument("names", nargs=-1, metavar="[SERVICE...]")
@in_project()
async def stop(scope: Scope, timeout: float | None, names: tuple[str, ...]) -> None:
    """Stop services. Their containers stay to be looked at; `start` makes new ones in their places."""
    chosen = scope.chosen(names)
    await halt(scope, chosen, timeout)


@click.command(cls=ComposeCommand)
@click.option(
    "--remove-orphans", is_flag=True, help="Remove containers for services not in the Compose file."
)
@click.option("-s", "--signal", "name", default="SIGKILL", help="SIGNAL to send to the container.")
@click.argument("names", nargs=-1, metavar="[SERVICE...]")
@in_project()
async def kill(scope: Scope, remove_orphans: bool, name: str, names: tuple[str, ...]) -> None:
    """Force stop service containers. One that SIGKILL has ended is not restarted."""
    chosen = scope.chosen(names, one_offs=not names)
    running = [each for each in containers(chosen, scope.tasks) if stage(each.task) in ("started", "healthy")]
    if not running:
        warn("no container to kill")
    if settings().dry_run:
        for each in running:
            say("Container", each.name, "Killing")
        return
    by_id = {each.id: each for each in chosen}
    if name.upper().removeprefix("SIG") in ("KILL", "9"):
        for service_id in sorted({each.task.service_id for each in running}):
            service = by_id[service_id]
            if service.spec.task.restart.condition != "none" and service.spec.mode.kind == "replicated":
                await scope.amend(service, local.stopped)
    reached = await signal_tasks(scope, [each.task for each in running], name)
    for each in running:
        if each.task.id in reached:
            say("Container", each.name, "Killed")
    if remove_orphans:
        await discard(scope, [each for each in scope.orphans() if not is_one_off(each)])


@click.command("rm", cls=ComposeCommand)
@click.option("-f", "--force", is_flag=True, help="Don't ask to confirm removal.")
@click.option(
    "-s", "--stop", "first", is_flag=True, help="Stop the containers, if required, before removing."
)
@click.option("-v", "--volumes", is_flag=True, help="Always so: anonymous volumes go with their containers.")
@click.argument("names", nargs=-1, metavar="[SERVICE...]")
@in_project()
async def remove(scope: Scope, force: bool, first: bool, volumes: bool, names: tuple[str, ...]) -> None:
    """Remove stopped service containers."""
    del volumes
    chosen = scope.chosen(names, one_offs=True)
    if not first:
        alive = {
            each.service_id
            for each in scope.tasks
            if each.status.state <= TaskState.RUNNING and each.desired_state <= TaskState.RUNNING
        }
        chosen = [each for each in chosen if each.id not in alive]
    if not chosen:
        warn("no stopped containers")
        return
    if not force and not settings().dry_run:
        listed = ", ".join(sorted(short_name(each) for each in chosen))
        click.confirm(f"Going to remove {listed}\nAre you sure?", abort=True)
    await discard(scope, chosen)
