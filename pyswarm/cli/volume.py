"""`pyswarm volume`: create, ls, inspect, rm, prune."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import click

from pyswarm import engine
from pyswarm.cli import human, inspection, nodes, pruning, values
from pyswarm.cli.app import (
    App,
    connected,
    filter_option,
    format_option,
    inspect_format_option,
    prune_filter_option,
    quiet_option,
)
from pyswarm.cli.completion import complete
from pyswarm.cli.lazy import LazyGroup, refused_option
from pyswarm.cli.table import Layout, formatted, row
from pyswarm.clock import RandomIds
from pyswarm.errors import Invalid, NotFound
from pyswarm.gotemplate import Struct
from pyswarm.objects import Volume
from pyswarm.specs import Driver, VolumeSpec

if TYPE_CHECKING:
    from pyswarm.client import Client

LAYOUT = Layout(
    columns=("Driver", "Name"),
    headers={
        "Driver": "DRIVER",
        "Name": "VOLUME NAME",
        "Labels": "LABELS",
        "Links": "LINKS",
        "Mountpoint": "MOUNTPOINT",
        "Scope": "SCOPE",
        "Size": "SIZE",
        "Status": "STATUS",
        "Group": "GROUP",
        "Availability": "AVAILABILITY",
    },
    quiet="Name",
)


@click.group(cls=LazyGroup)
def volume() -> None:
    """Manage volumes."""


NO_CSI = "volumes of CSI drivers are not: a volume is on one node, or on a share that the local driver mounts"


def _cluster_volumes(command: Any) -> Any:
    """docker's flags of cluster volumes, each refused."""
    names = ("availability", "group", "limit-bytes", "required-bytes", "scope", "secret", "sharing")
    for name in (*names, "topology-preferred", "topology-required", "type"):
        command = refused_option(f"--{name}", why=NO_CSI)(command)
    return command


@volume.command()
@click.argument("name", required=False, default="", metavar="[VOLUME]")
@click.option("-d", "--driver", default="local", help="Volume driver name.")
@click.option("--label", multiple=True, help="Set metadata for a volume.")
@_cluster_volumes
@click.option("--name", "named", default="", hidden=True)
@click.option("-o", "--opt", multiple=True, help="Driver specific options (key=value).")
@connected
async def create(
    app: App,
    client: Client,
    name: str,
    driver: str,
    label: tuple[str, ...],
    named: str,
    opt: tuple[str, ...],
) -> None:
    """Create a volume."""
    del app
    if name and named:
        raise Invalid(
            "conflicting options: cannot specify a volume-name through both --name and as a positional arg"
        )
    spec = VolumeSpec(
        name=name or named or RandomIds().new_id(),
        labels=values.pairs(label),
        driver=Driver(name=driver, options=values.pairs(opt)),
    )
    click.echo(cast("Volume", await client.create(spec)).spec.name)


async def mountpoint(client: Client) -> str:
    """The directory under which every node keeps its volumes."""
    return f"{(await client.info()).state_dir or '/var/lib/pyswarm'}/agent/volumes"


@volume.command("ls")
@filter_option
@format_option
@quiet_option("Only display volume names.")
@refused_option("--cluster", why=NO_CSI, flag=True)
@connected
async def list_volumes(app: App, client: Client, filters: tuple[str, ...], format: str, quiet: bool) -> None:
    """List volumes."""
    del app
    found = sorted(
        await client.volumes(values.filters(filters)), key=lambda each: human.natural(each.spec.name)
    )
    base = "" if quiet else await mountpoint(client)
    shown = [
        row(
            each.spec.labels,
            Driver=each.spec.driver.name,
            Name=each.spec.name,
            Links="N/A",
            Mountpoint=f"{base}/{each.spec.name}/_data",
            Scope="local",
            Size="N/A",
            Status="N/A",
            Group="N/A",
            Availability="N/A",
        )
        for each in found
    ]
    click.echo(formatted(shown, LAYOUT, format, quiet), nl=False)


@volume.command()
@click.argument("volumes", nargs=-1, required=True, shell_complete=complete("volume"))
@inspect_format_option
@connected
async def inspect(app: App, client: Client, volumes: tuple[str, ...], format: str) -> None:
    """Display detailed information on one or more volumes."""
    del app
    base = await mountpoint(client)

    async def fetch(ref: str) -> Volume:
        return await client.get(Volume, ref)

    def struct(found: Volume) -> Struct:
        return engine.volume(found, f"{base}/{found.spec.name}/_data")

    await inspection.inspect(volumes, fetch, struct, format, strict=True)


@volume.command()
@click.argument("ref", metavar="VOLUME", shell_complete=complete("volume"))
@click.option(
    "--node", metavar="NODE", help='Node that has the data: tasks with the volume run there ("": on any).'
)
@refused_option("--availability", why=NO_CSI)
@connected
async def update(app: App, client: Client, ref: str, node: str | None) -> None:
    """Say on which node a volume's data is.

    The tasks that mount it run there and leave other nodes; what waits for the node that had it waits no more.
    Nothing is copied: the volume is empty on a node that never had it.
    """
    del app
    if node is None:
        raise Invalid("nothing to update: name the node with --node")
    click.echo((await client.bind(await client.get(Volume, ref), node)).spec.name)


@volume.command("rm")
@click.argument("volumes", nargs=-1, required=True, shell_complete=complete("volume"))
@click.option("-f", "--force", is_flag=True, help="Force the removal of one or more volumes.")
@connected
async def remove(app: App, client: Client, volumes: tuple[str, ...], force: bool) -> None:
    """Remove one or more volumes, and their data on every node."""
    del app

    async def one(ref: str) -> None:
        try:
            found = await client.get(Volume, ref)
        except NotFound:
            if force:
                return
            raise
        await client.remove("volume", found.id, force=force)
        await remove_data(client, found.spec.name)

    await inspection.remove_each(volumes, one)


async def remove_data(client: Client, name: str) -> int:
    """Remove the volume's directory from every node that answers; returns on how many there was one."""
    removed = 0
    for each in await nodes.ready(client):
        try:
            await nodes.ask(client, "volume.rm", {"name": name, "force": True}, node=each.id)
            removed += 1
        except NotFound:
            continue
    return removed


@volume.command()
@click.option(
    "-a", "--all", "everything", is_flag=True, help="Remove all unused volumes, not just anonymous ones."
)
@prune_filter_option
@click.option("-f", "--force", is_flag=True, help="Do not prompt for confirmation.")
@connected
async def prune(app: App, client: Client, everything: bool, filters: tuple[str, ...], force: bool) -> None:
    """Remove volumes that nothing uses, on every node."""
    everything = everything or any(each in ("all=1", "all=true") for each in filters)
    chosen = pruning.chosen([each for each in filters if not each.startswith("all=")], app.now(), until=False)
    kind = "all" if everything else "anonymous"
    if not pruning.confirmed(f"{kind} local volumes not used by at least one container.", force):
        return
    removed: list[str] = []
    failures = inspection.Failures()
    for found in await client.volumes([("dangling", "true")]) if everything else ():
        if not chosen.takes(found.spec.labels, found.meta.created_at):
            continue
        with failures.kept():
            await client.remove("volume", found.id)
            removed.append(found.spec.name)
    # A node that has nothing of a service just now may still hold the volume that the service waits for.
    keep = [v.spec.name for v in await client.volumes()] if everything else []
    reclaimed = 0
    if chosen.labels:  # which no anonymous volume has
        for name in removed:
            await remove_data(client, name)
    for each in () if chosen.labels else await nodes.ready(client):
        answer = await nodes.ask(client, "volume.prune", {"all": everything, "keep": keep}, node=each.id)
        removed += [name for name in answer.get("deleted") or () if name not in removed]
        reclaimed += int(answer.get("reclaimed") or 0)
    if removed:
        click.echo("Deleted Volumes:\n" + "".join(f"{name}\n" for name in removed))
    click.echo(f"Total reclaimed space: {human.decimal_size(reclaimed)}")
    failures.finish()
