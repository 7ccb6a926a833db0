"""`pyswarm system`: info, df, prune, events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pyswarm.cli import human, inspection, nodes
from pyswarm.cli.app import App, connected, format_option
from pyswarm.cli.lazy import Entry, LazyGroup
from pyswarm.cli.table import Layout, formatted, row
from pyswarm.errors import PyswarmError

if TYPE_CHECKING:
    from pyswarm.client import Client

LAYOUT = Layout(
    columns=("Type", "TotalCount", "Active", "Size", "Reclaimable"),
    headers={
        "Type": "TYPE",
        "TotalCount": "TOTAL",
        "Active": "ACTIVE",
        "Size": "SIZE",
        "Reclaimable": "RECLAIMABLE",
    },
    quiet="Type",
)
KINDS = (
    ("images", "Images"),
    ("containers", "Containers"),
    ("volumes", "Local Volumes"),
    ("build_cache", "Build Cache"),
)


@click.group(
    cls=LazyGroup,
    entries={
        "info": Entry("pyswarm.cli.cluster:info", "Display information about the cluster"),
        "events": Entry("pyswarm.cli.events:events", "Get real time events from the cluster"),
    },
)
def system() -> None:
    """Manage the cluster as a whole."""


@system.command()
@format_option
@click.option("--node", default="", help="One node alone (default: the whole cluster).")
@connected
async def df(app: App, client: Client, format: str, node: str) -> None:
    """Show disk usage, summed over the nodes that answer."""
    del app
    chosen = [await nodes.chosen(client, node)] if node else [each.id for each in await nodes.ready(client)]
    answers = [await nodes.ask(client, "system.df", {}, node=each) for each in chosen]
    shown = [_row(title, [answer.get(kind) or {} for answer in answers]) for kind, title in KINDS]
    click.echo(formatted(shown, LAYOUT, format), nl=False)


def _row(title: str, found: list[dict[str, Any]]) -> Any:
    def total(name: str) -> int:
        return sum(int(each.get(name) or 0) for each in found)

    size, reclaimable = total("size"), total("reclaimable")
    share = f" ({100 * reclaimable // size}%)" if size else ""
    return row(
        Type=title,
        TotalCount=str(total("total")),
        Active=str(total("active")),
        Size=human.decimal_size(size),
        Reclaimable=human.decimal_size(reclaimable) + share,
    )


@system.command()
@click.option(
    "-a", "--all", "everything", is_flag=True, help="Remove all unused images, not just dangling ones."
)
@click.option("--volumes", is_flag=True, help="Prune anonymous volumes.")
@click.option("-f", "--force", is_flag=True, help="Do not prompt for confirmation.")
@connected
async def prune(app: App, client: Client, everything: bool, volumes: bool, force: bool) -> None:
    """Remove unused networks and images, on every node."""
    del app
    if not force:
        what = ["all networks not used by at least one container"]
        what += ["all anonymous volumes not used by at least one container"] if volumes else []
        what += [
            "all images without at least one container associated to them"
            if everything
            else "all dangling images"
        ]
        click.echo("WARNING! This will remove:\n" + "".join(f"  - {each}\n" for each in what))
        click.confirm("Are you sure you want to continue?", abort=True)
    errors: list[PyswarmError] = []
    await _networks(client, errors)
    reclaimed = 0
    for each in await nodes.ready(client):
        for verb in ("image.prune", *(["volume.prune"] if volumes else [])):
            args = {"all": everything and verb == "image.prune"}
            answer = await nodes.ask(client, verb, args, node=each.id)
            deleted = answer.get("deleted") or ()
            if deleted:
                kind = "Images" if verb == "image.prune" else "Volumes"
                click.echo(f"Deleted {kind}:\n" + "".join(f"{name}\n" for name in deleted))
            reclaimed += int(answer.get("reclaimed") or 0)
    click.echo(f"Total reclaimed space: {human.decimal_size(reclaimed)}")
    inspection.finish(errors)


async def _networks(client: Client, errors: list[PyswarmError]) -> None:
    removed: list[str] = []
    for found in await client.networks([("dangling", "true"), ("type", "custom")]):
        try:
            await client.remove("network", found.id)
            removed.append(found.spec.name)
        except PyswarmError as error:
            errors.append(error)
    if removed:
        click.echo("Deleted Networks:\n" + "".join(f"{name}\n" for name in removed))
