"""`pyswarm service`: create, ls, ps, inspect, logs, scale, update, rollback, rm."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import click

from pyswarm import engine
from pyswarm.cli import inspection, pretty, rows, values
from pyswarm.cli.app import (
    App,
    connected,
    filter_option,
    format_option,
    inspect_format_option,
    quiet_option,
    task_options,
    warn,
)
from pyswarm.cli.completion import complete
from pyswarm.cli.lazy import Entry, LazyGroup
from pyswarm.cli.service_flags import DURATION, apply, create_options, update_options
from pyswarm.cli.table import formatted
from pyswarm.errors import Invalid
from pyswarm.objects import Service
from pyswarm.specs import ContainerSpec, ServiceSpec, TaskSpec

if TYPE_CHECKING:
    from pyswarm.client import Client


@click.group(
    cls=LazyGroup,
    entries={"logs": Entry("pyswarm.cli.logs:logs", "Fetch the logs of a service or task")},
)
def service() -> None:
    """Manage services."""


async def converge(
    app: App, client: Client, ids: Sequence[str], options: Mapping[str, Any], back: bool = False
) -> None:
    """Show the services' progress until they have converged, unless `--detach` was given."""
    if options.get("detach"):
        return
    from pyswarm.cli.progress import Wait, wait

    what = Wait(
        services=ids,
        timeout=options.get("timeout"),
        rolling_back=back,
        quiet=bool(options.get("quiet")),
    )
    await wait(client, what, app.clock)


def with_auth(spec: ServiceSpec) -> ServiceSpec:
    """The spec with the credentials that docker's configuration has for its image's registry."""
    from pyswarm.cli.credentials import registry_auth

    return replace(spec, task=replace(spec.task, registry_auth=registry_auth(spec.task.container.image)))


BLANK = ServiceSpec(task=TaskSpec(container=ContainerSpec(init=False)))
"""What `create` starts from; docker says no to an init unless it is asked for."""


@service.command(context_settings={"allow_interspersed_args": False})
@create_options
@click.argument("image")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND] [ARG]...")
@connected
async def create(app: App, client: Client, image: str, **options: Any) -> None:
    """Create a new service."""
    spec = apply(BLANK, {**options, "image": image}, os.environ)
    if not spec.name:
        spec = replace(spec, name=_random_name())
    if options["with_registry_auth"]:
        spec = with_auth(spec)
    made = cast("Service", await client.create(spec, resolve_image=_resolve(options)))
    click.echo(made.id)
    _warn_unpinned(made, options)
    await converge(app, client, [made.id], options)


def _warn_unpinned(made: Service, options: Mapping[str, Any]) -> None:
    """docker's words for an image that is known by its tag alone."""
    image = made.spec.task.container.image
    if "@" not in image and not options["no_resolve_image"]:
        warn(
            f"image {image} could not be accessed on a registry to record\nits digest. Each node will access "
            f"{image} independently,\npossibly leading to different nodes running different\nversions of the image.\n"
        )


def _resolve(options: Mapping[str, Any]) -> str:
    return "never" if options["no_resolve_image"] else "always"


def _random_name() -> str:
    """A name for a service that was given none: two words, as docker does, from the id source."""
    from pyswarm.clock import RandomIds

    left = (
        "calm",
        "brave",
        "quick",
        "bright",
        "gentle",
        "keen",
        "merry",
        "proud",
        "sharp",
        "warm",
        "wise",
        "bold",
    )
    right = (
        "otter",
        "heron",
        "maple",
        "comet",
        "cedar",
        "raven",
        "tulip",
        "delta",
        "ember",
        "lotus",
        "robin",
        "fjord",
    )
    number = int(RandomIds().new_id(), 36)
    return f"{left[number % 12]}_{right[number // 12 % 12]}_{number // 144 % 10000:04d}"


@service.command("ls")
@filter_option
@format_option
@quiet_option()
@connected
async def list_services(app: App, client: Client, filters: tuple[str, ...], format: str, quiet: bool) -> None:
    """List services."""
    del app
    found = await client.services(values.filters(filters))
    tasks = [] if quiet else await tasks_of(client, found, bool(filters))
    click.echo(formatted(rows.services(found, tasks), rows.SERVICES, format, quiet), nl=False)


async def tasks_of(client: Client, services: Sequence[Service], few: bool) -> Sequence[Any]:
    """The tasks of the services: asked for by service when they are `few`, else all at once."""
    if few and not services:
        return ()
    return await client.tasks([("service", each.id) for each in services] if few else [])


@service.command()
@click.argument("services", nargs=-1, required=True, shell_complete=complete("service"))
@task_options
@connected
async def ps(
    app: App,
    client: Client,
    services: tuple[str, ...],
    filters: tuple[str, ...],
    **shown: Any,
) -> None:
    """List the tasks of one or more services."""

    async def fetch(ref: str) -> Service:
        return await client.get(Service, ref)

    found, errors = await inspection.gather(services, fetch)
    if found:
        wanted = [("service", each.id) for each in found]
        tasks = await client.tasks([*wanted, *values.filters(filters)])
        await show_tasks(app, client, tasks, **shown)
    inspection.finish(errors)


async def show_tasks(
    app: App, client: Client, tasks: Sequence[Any], format: str, no_resolve: bool, no_trunc: bool, quiet: bool
) -> None:
    """Print rows of tasks; nodes are asked for only to show their names."""
    nodes = {} if no_resolve or quiet else {node.id: node for node in await client.nodes()}
    shown = rows.tasks(
        tasks,
        nodes,
        app.now(),
        resolve=not no_resolve,
        full=no_trunc or quiet,
        indent=not format or format.startswith("table"),
    )
    click.echo(formatted(shown, rows.TASKS, format, quiet), nl=False)


@service.command()
@click.argument("services", nargs=-1, required=True, shell_complete=complete("service"))
@inspect_format_option
@click.option("--pretty", "human_friendly", is_flag=True, help="Print the information for people.")
@connected
async def inspect(
    app: App, client: Client, services: tuple[str, ...], format: str, human_friendly: bool
) -> None:
    """Display detailed information on one or more services."""
    networks = {network.id: network for network in await client.networks()} if human_friendly else {}

    async def fetch(ref: str) -> Service:
        return await client.get(Service, ref)

    def struct(found: Service) -> engine.Struct:
        return engine.service(found, defaults=True)

    def text(found: Service) -> str:
        return pretty.service(found, networks, app.now())

    await inspection.inspect(services, fetch, struct, format, text if human_friendly else None)


@service.command()
@update_options
@click.argument("name", metavar="SERVICE", shell_complete=complete("service"))
@connected
async def update(app: App, client: Client, name: str, **options: Any) -> None:
    """Update a service."""
    found = await client.get(Service, name)
    back = bool(options["rollback"])
    if back:
        changed = await client.rollback(found)
    else:
        spec = apply(found.spec, options, os.environ, await _network_ids(client, options))
        if options["with_registry_auth"]:
            spec = with_auth(spec)
        changed = cast(
            "Service",
            await client.update(found, spec, force=bool(options["force"]), resolve_image=_resolve(options)),
        )
    click.echo(name)
    if options["image"] and not back:
        _warn_unpinned(changed, options)
    await converge(app, client, [changed.id], options, back)


async def _network_ids(client: Client, options: Mapping[str, Any]) -> dict[str, str]:
    named = [values.network(text).target for text in options["network_add"]] + list(options["network_rm"])
    if not named:
        return {}
    found = await client.networks()
    return {network.spec.name: network.id for network in found} | {
        network.id: network.id for network in found
    }


@service.command()
@click.argument("name", metavar="SERVICE", shell_complete=complete("service"))
@click.option("-d", "--detach/--no-detach", default=False, help="Do not wait for the service to converge.")
@click.option("-q", "--quiet", is_flag=True, help="Suppress progress output.")
@click.option("--timeout", type=DURATION, help="Give up waiting after this time, with exit code 1.")
@connected
async def rollback(app: App, client: Client, name: str, **options: Any) -> None:
    """Revert changes to a service's configuration."""
    changed = await client.rollback(await client.get(Service, name))
    click.echo(name)
    await converge(app, client, [changed.id], options, back=True)


def _scale(text: str) -> tuple[str, int]:
    name, separator, count = text.partition("=")
    if not separator or not name:
        raise Invalid(f"invalid scale specifier '{text}': write SERVICE=REPLICAS")
    if not count.isdigit():
        raise Invalid(f"{name}: invalid replicas value {count}: write a number of 0 or more")
    return name, int(count)


@service.command()
@click.argument(
    "scales", nargs=-1, required=True, metavar="SERVICE=REPLICAS...", shell_complete=complete("service")
)
@click.option("-d", "--detach/--no-detach", default=False, help="Do not wait for the services to converge.")
@click.option("-q", "--quiet", is_flag=True, help="Suppress progress output.")
@click.option("--timeout", type=DURATION, help="Give up waiting after this time, with exit code 1.")
@connected
async def scale(app: App, client: Client, scales: tuple[str, ...], **options: Any) -> None:
    """Scale one or multiple replicated services."""
    wanted = [_scale(text) for text in scales]
    failures = inspection.Failures()
    changed: list[str] = []
    for name, count in wanted:
        with failures.kept(name):
            changed.append(await _scale_one(client, name, count))
            click.echo(f"{name} scaled to {count}")
    if changed:
        await converge(app, client, changed, options)
    failures.finish()


async def _scale_one(client: Client, name: str, count: int) -> str:
    found = await client.get(Service, name)
    mode = found.spec.mode
    if mode.kind == "replicated":
        mode = replace(mode, replicas=count)
    elif mode.kind == "replicated-job":
        mode = replace(mode, total_completions=count)
    else:
        raise Invalid("scale can only be used with replicated or replicated-job mode")
    return (await client.update(found, replace(found.spec, mode=mode))).id


@service.command("rm")
@click.argument("services", nargs=-1, required=True, shell_complete=complete("service"))
@connected
async def remove(app: App, client: Client, services: tuple[str, ...]) -> None:
    """Remove one or more services."""
    del app
    await inspection.remove_all(client, "service", services)
