"""`pyswarm node`: ls, inspect, ps, update, promote, demote, rm."""

from __future__ import annotations

from collections.abc import Sequence
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
)
from pyswarm.cli.completion import complete
from pyswarm.cli.lazy import LazyGroup
from pyswarm.cli.service import show_tasks
from pyswarm.cli.table import formatted
from pyswarm.errors import Invalid
from pyswarm.objects import Node

if TYPE_CHECKING:
    from pyswarm.client import Client


@click.group(cls=LazyGroup)
def node() -> None:
    """Manage nodes."""


@node.command("ls")
@filter_option
@format_option
@quiet_option()
@connected
async def list_nodes(app: App, client: Client, filters: tuple[str, ...], format: str, quiet: bool) -> None:
    """List nodes in the cluster."""
    del app
    found = await client.nodes(values.filters(filters))
    own = "" if quiet else (await client.info()).node_id
    click.echo(formatted(rows.nodes(found, own), rows.NODES, format, quiet), nl=False)


@node.command()
@click.argument("nodes", nargs=-1, required=True, metavar="self|NODE...", shell_complete=complete("node"))
@inspect_format_option
@click.option("--pretty", "human_friendly", is_flag=True, help="Print the information for people.")
@connected
async def inspect(
    app: App, client: Client, nodes: tuple[str, ...], format: str, human_friendly: bool
) -> None:
    """Display detailed information on one or more nodes."""
    del app

    async def fetch(ref: str) -> Node:
        return await client.get(Node, ref)

    await inspection.inspect(nodes, fetch, engine.node, format, pretty.node if human_friendly else None)


@node.command()
@click.argument("nodes", nargs=-1, metavar="[NODE...]", shell_complete=complete("node"))
@task_options
@connected
async def ps(
    app: App,
    client: Client,
    nodes: tuple[str, ...],
    filters: tuple[str, ...],
    **shown: Any,
) -> None:
    """List tasks running on one or more nodes, defaults to current node."""

    async def fetch(ref: str) -> Node:
        return await client.get(Node, ref)

    found, errors = await inspection.gather(nodes or ("self",), fetch)
    if found:
        wanted = [("node", each.id) for each in found]
        tasks = await client.tasks([*wanted, *values.filters(filters)])
        await show_tasks(app, client, tasks, **shown)
    inspection.finish(errors)


async def _change(client: Client, ref: str, **changes: Any) -> Node:
    found = await client.get(Node, ref)
    return cast("Node", await client.update(found, replace(found.spec, **changes)))


@node.command()
@click.argument("name", metavar="NODE", shell_complete=complete("node"))
@click.option(
    "--availability", type=click.Choice(("active", "pause", "drain")), help="Availability of the node."
)
@click.option("--role", type=click.Choice(("worker", "manager")), help="Role of the node.")
@click.option("--label-add", multiple=True, help="Add or update a node label (key=value).")
@click.option("--label-rm", multiple=True, help="Remove a node label if exists.")
@connected
async def update(
    app: App,
    client: Client,
    name: str,
    availability: str | None,
    role: str | None,
    label_add: Sequence[str],
    label_rm: Sequence[str],
) -> None:
    """Update a node."""
    del app
    found = await client.get(Node, name)
    missing = [key for key in label_rm if key not in found.spec.labels]
    if missing:
        raise Invalid(f"key {missing[0]} doesn't exist in node's labels")
    labels = {key: value for key, value in found.spec.labels.items() if key not in label_rm}
    spec = replace(found.spec, labels={**labels, **values.pairs(label_add)})
    spec = replace(spec, **{k: v for k, v in (("availability", availability), ("role", role)) if v})
    await client.update(found, spec)
    click.echo(name)


async def _roles(client: Client, names: Sequence[str], role: str) -> None:
    failures = inspection.Failures()
    for name in names:
        with failures.kept():
            click.echo(await _give_role(client, name, role))
    failures.finish()


async def _give_role(client: Client, name: str, role: str) -> str:
    """What docker says of it."""
    found = await client.get(Node, name)
    if found.spec.role == role:
        return f"Node {name} is already a {role}."
    await _change(client, found.id, role=role)
    if role == "manager":
        return f"Node {name} promoted to a manager in the swarm."
    return f"Manager {name} demoted in the swarm."


@node.command()
@click.argument("nodes", nargs=-1, required=True, shell_complete=complete("node"))
@connected
async def promote(app: App, client: Client, nodes: tuple[str, ...]) -> None:
    """Promote one or more nodes to manager in the cluster."""
    del app
    await _roles(client, nodes, "manager")


@node.command()
@click.argument("nodes", nargs=-1, required=True, shell_complete=complete("node"))
@connected
async def demote(app: App, client: Client, nodes: tuple[str, ...]) -> None:
    """Demote one or more nodes from manager in the cluster."""
    del app
    await _roles(client, nodes, "worker")


@node.command("rm")
@click.argument("nodes", nargs=-1, required=True, shell_complete=complete("node"))
@click.option("-f", "--force", is_flag=True, help="Force remove a node from the cluster.")
@connected
async def remove(app: App, client: Client, nodes: tuple[str, ...], force: bool) -> None:
    """Remove one or more nodes from the cluster."""
    del app

    async def one(ref: str) -> None:
        await client.remove("node", (await client.get(Node, ref)).id, force=force)

    await inspection.remove_each(nodes, one)
