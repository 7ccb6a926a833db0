"""`pyswarm inspect`: an object of any kind, by name or id."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from pyswarm import engine
from pyswarm.cli import inspection, nodes
from pyswarm.cli.app import App, connected, inspect_format_option
from pyswarm.cli.lazy import GoCommand, needless_option
from pyswarm.cli.volume import mountpoint
from pyswarm.errors import NotFound
from pyswarm.gotemplate import Struct
from pyswarm.objects import Config, Network, Node, Secret, Service, Task, Volume

if TYPE_CHECKING:
    from pyswarm.client import Client

Look = Callable[[str], Awaitable[Struct]]
KINDS = ("container", "image", "network", "volume", "node", "service", "task", "secret", "config")


@click.command(cls=GoCommand)
@click.argument("names", nargs=-1, required=True, metavar="NAME|ID...")
@inspect_format_option
@needless_option("-s", "--size")
@click.option("--type", "kind", type=click.Choice(KINDS), help="Only objects of this kind.")
@connected
async def inspect(app: App, client: Client, names: tuple[str, ...], format: str, kind: str | None) -> None:
    """Return low-level information on objects of any kind."""
    del app
    looks = _looks(client)
    chosen = [looks[kind]] if kind else [looks[each] for each in KINDS if each != "container"]

    async def fetch(ref: str) -> Struct:
        return await _first(ref, chosen, kind or "object")

    await inspection.inspect(names, fetch, lambda found: found, format, strict=True)


async def _first(ref: str, looks: Sequence[Look], what: str) -> Struct:
    """What the first kind has of that name, in docker's order of the kinds. Raises NotFound."""
    for look in looks:
        try:
            return await look(ref)
        except NotFound:
            continue
    raise NotFound(f"no such {what}: {ref}")


def _looks(client: Client) -> Mapping[str, Look]:
    async def image(ref: str) -> Struct:
        return Struct(await nodes.ask(client, "image.inspect", {"name": ref}))

    async def network(ref: str) -> Struct:
        return engine.network(await client.get(Network, ref))

    async def volume(ref: str) -> Struct:
        found = await client.get(Volume, ref)
        return engine.volume(found, f"{await mountpoint(client)}/{found.spec.name}/_data")

    async def node(ref: str) -> Struct:
        return engine.node(await client.get(Node, ref))

    async def service(ref: str) -> Struct:
        return engine.service(await client.get(Service, ref), defaults=True)

    async def task(ref: str) -> Struct:
        networks = {each.id: each for each in await client.networks()}
        return engine.task(await client.get(Task, ref), networks)

    async def secret(ref: str) -> Struct:
        return engine.secret(await client.get(Secret, ref))

    async def config(ref: str) -> Struct:
        return engine.config(await client.get(Config, ref))

    return {
        "container": task,
        "image": image,
        "network": network,
        "volume": volume,
        "node": node,
        "service": service,
        "task": task,
        "secret": secret,
        "config": config,
    }
