"""`pyswarm system`: info, df, prune, events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from pyswarm.cli import human, image, inspection, network, nodes, pruning, task
from pyswarm.cli.app import App, connected, format_option, prune_filter_option
from pyswarm.cli.image import DANGLING, UNUSED
from pyswarm.cli.lazy import Entry, LazyGroup
from pyswarm.cli.table import Layout, formatted, row
from pyswarm.errors import Invalid

if TYPE_CHECKING:
    from pyswarm.client import Client
    from pyswarm.objects import Task

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
IMAGES = Layout(
    columns=("Repository", "Tag", "ID", "CreatedSince", "Size", "Containers", "Node"),
    headers=image.LAYOUT.headers,
)
CONTAINERS = Layout(
    columns=("ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names"),
    headers=task.CONTAINERS.headers,
)
VOLUMES = Layout(
    columns=("Name", "Links", "Size"), headers={"Name": "VOLUME NAME", "Links": "LINKS", "Size": "SIZE"}
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
@click.option("-v", "--verbose", is_flag=True, help="Show each image, container and volume.")
@click.option("--node", default="", help="One node alone (default: the whole cluster).")
@connected
async def df(app: App, client: Client, format: str, verbose: bool, node: str) -> None:
    """Show disk usage, summed over the nodes that answer."""
    chosen = [await nodes.chosen(client, node)] if node else [each.id for each in await nodes.ready(client)]
    answers = [await nodes.ask(client, "system.df", {}, node=each) for each in chosen]
    if verbose:
        if format:
            raise Invalid("--format and --verbose exclude each other")
        await _details(app, client, chosen, answers)
        return
    shown = [_row(title, [answer.get(kind) or {} for answer in answers]) for kind, title in KINDS]
    click.echo(formatted(shown, LAYOUT, format), nl=False)


async def _details(
    app: App, client: Client, chosen: Sequence[str], answers: Sequence[dict[str, Any]]
) -> None:
    """docker's tables of `system df -v`: each image, container and volume of the nodes."""
    names = {each.id: each.description.hostname for each in await client.nodes()}
    own = (await client.info()).node_id
    found = [
        (names.get(node or own, node), summary)
        for node in chosen
        for summary in await nodes.ask(client, "image.ls", {}, node=node)
    ]
    click.echo("Images space usage:\n")
    click.echo(formatted(image.image_rows(found, app.now(), False), IMAGES), nl=False)
    sizes: dict[str, int] = {}
    for node in chosen:
        sizes |= await nodes.ask(client, "task.sizes", {}, node=node)
    tasks = [each for each in await client.tasks() if each.id in sizes]
    click.echo("\nContainers space usage:\n")
    rows = [task.container_row(each, {}, {}, app.now(), False, sizes) for each in tasks]
    click.echo(formatted(rows, CONTAINERS), nl=False)
    volumes = [each.get("volumes", {}).get("sizes", {}) for each in answers]
    click.echo("\nLocal Volumes space usage:\n")
    rows = [
        row(Name=name, Links=str(_links(tasks, name)), Size=human.decimal_size(size))
        for each in volumes
        for name, size in sorted(each.items())
    ]
    click.echo(formatted(rows, VOLUMES), nl=False)


def _links(tasks: Sequence[Task], volume: str) -> int:
    """How many of the containers mount the volume."""
    return sum(any(m.source == volume for m in each.spec.container.mounts) for each in tasks)


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
    keep = await image.wanted_by_services(client)
    reclaimed = 0
    for each in await nodes.ready(client):
        for verb in ("image.prune", *(["volume.prune"] if volumes else [])):
            args = (
                {"all": everything, "keep": keep, **asdict(chosen)}
                if verb == "image.prune"
                else {"all": False}
            )
            answer = await nodes.ask(client, verb, args, node=each.id)
            deleted = answer.get("deleted") or ()
            if deleted:
                kind = "Images" if verb == "image.prune" else "Volumes"
                click.echo(f"Deleted {kind}:\n" + "".join(f"{name}\n" for name in deleted))
            reclaimed += int(answer.get("reclaimed") or 0)
    click.echo(f"Total reclaimed space: {human.decimal_size(reclaimed)}")
    failures.finish()
