"""`pyswarm system`: info, df, prune, events."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from pyswarm.cli import human, inspection, network, nodes, pruning
from pyswarm.cli.app import App, connected, format_option, prune_filter_option
from pyswarm.cli.image import DANGLING, UNUSED
from pyswarm.cli.lazy import Entry, LazyGroup
from pyswarm.cli.table import Layout, formatted, row
from pyswarm.errors import Invalid

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
@prune_filter_option
@click.option("-f", "--force", is_flag=True, help="Do not prompt for confirmation.")
@connected
async def prune(
    app: App, client: Client, everything: bool, volumes: bool, filters: tuple[str, ...], force: bool
) -> None:
    """Remove unused networks and images, on every node."""
    chosen = pruning.chosen(filters, app.now())
    if volumes and chosen.before is not None:
        raise Invalid(
            'the "until" filter is not supported with --volumes: nobody knows when a volume was last used'
        )
    what = ["all networks not used by at least one container"]
    what += ["all anonymous volumes not used by at least one container"] if volumes else []
    what += [UNUSED if everything else DANGLING]
    if not pruning.confirmed(":\n" + "".join(f"  - {each}\n" for each in what), force):
        return
    failures = inspection.Failures()
    await network.prune_unused(client, chosen, failures)
    reclaimed = 0
    for each in await nodes.ready(client):
        for verb in ("image.prune", *(["volume.prune"] if volumes else [])):
            args = {"all": everything, **asdict(chosen)} if verb == "image.prune" else {"all": False}
            answer = await nodes.ask(client, verb, args, node=each.id)
            deleted = answer.get("deleted") or ()
            if deleted:
                kind = "Images" if verb == "image.prune" else "Volumes"
                click.echo(f"Deleted {kind}:\n" + "".join(f"{name}\n" for name in deleted))
            reclaimed += int(answer.get("reclaimed") or 0)
    click.echo(f"Total reclaimed space: {human.decimal_size(reclaimed)}")
    failures.finish()
