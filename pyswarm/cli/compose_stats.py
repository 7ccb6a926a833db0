"""`pyswarm compose stats`: what the containers use, once or as it changes.

Nodes report figures with their heartbeats. The share of the processors is that between the last two reports; of a
container with one report, its average since it started.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from pyswarm.cli import human, task
from pyswarm.cli.app import format_option
from pyswarm.cli.compose_session import ComposeCommand, Scope, in_project
from pyswarm.cli.compose_state import Container, containers
from pyswarm.cli.table import Layout, formatted, row
from pyswarm.gotemplate import Struct
from pyswarm.objects import ContainerStats

LAYOUT = Layout(
    columns=("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"),
    headers={
        "ID": "CONTAINER ID",
        "Name": "NAME",
        "CPUPerc": "CPU %",
        "MemUsage": "MEM USAGE / LIMIT",
        "MemPerc": "MEM %",
        "NetIO": "NET I/O",
        "BlockIO": "BLOCK I/O",
        "PIDs": "PIDS",
    },
    quiet="Name",
)
PAUSE = 1.0
"""Seconds between two looks."""
CLEAR = "\x1b[H\x1b[2J"


@dataclass(slots=True)
class Shares:
    """The containers' shares of the processors, from the reports that were seen so far."""

    _last: dict[str, ContainerStats] = field(default_factory=dict[str, ContainerStats])
    _shares: dict[str, float] = field(default_factory=dict[str, float])

    def share(self, figures: ContainerStats, started: float) -> float:
        """Of one processor, 1.0 being all of it; `started` is when the container did."""
        last = self._last.get(figures.task_id)
        since, used = (last.timestamp, last.cpu_nanos) if last is not None else (started, 0)
        if figures.timestamp > since:
            self._shares[figures.task_id] = (
                max(0, figures.cpu_nanos - used) / 1e9 / (figures.timestamp - since)
            )
            self._last[figures.task_id] = figures
        return self._shares.get(figures.task_id, 0.0)


def figures_row(each: Container, use: ContainerStats | None, share: float, memory: int, full: bool) -> Struct:
    """A row of the table; dashes for a container that nothing is known of. `memory` is the node's."""
    identity = human.short(each.task.status.container_id or each.task.id, full)
    if use is None:
        blank = dict.fromkeys(("CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"), "--")
        return row(ID=identity, Container=identity, Name=each.name, **blank)
    limit = use.memory_limit or memory
    return row(
        ID=identity,
        Container=identity,
        Name=each.name,
        CPUPerc=f"{share * 100:.2f}%",
        MemUsage=f"{human.binary_size(use.memory)} / {human.binary_size(limit)}",
        MemPerc=f"{use.memory / limit * 100 if limit else 0:.2f}%",
        NetIO=f"{human.decimal_size(use.network_rx)} / {human.decimal_size(use.network_tx)}",
        BlockIO=f"{human.decimal_size(use.block_read)} / {human.decimal_size(use.block_write)}",
        PIDs=str(use.pids),
    )


@click.command(cls=ComposeCommand)
@click.option(
    "-a", "--all", "everything", is_flag=True, help="Show all containers (default shows just running)."
)
@format_option
@click.option("--no-stream", is_flag=True, help="Disable streaming stats and only pull the first result.")
@click.option("--no-trunc", is_flag=True, help="Do not truncate output.")
@click.argument("names", nargs=-1, metavar="[SERVICE]")
@in_project()
async def stats(
    scope: Scope, everything: bool, format: str, no_stream: bool, no_trunc: bool, names: tuple[str, ...]
) -> None:
    """Display the containers' use of resources, live until it is interrupted."""
    shares = Shares()
    memory = {each.id: each.description.resources.memory for each in await scope.client.nodes()}
    while True:
        shown = await _rows(scope, names, shares, memory, everything, no_trunc)
        text = formatted(shown, LAYOUT, format)
        click.echo((CLEAR if not no_stream and sys.stdout.isatty() else "") + text, nl=False)
        if no_stream:
            return
        await asyncio.sleep(PAUSE)
        await scope.refresh()


async def _rows(
    scope: Scope,
    names: Sequence[str],
    shares: Shares,
    memory: Mapping[str, int],
    everything: bool,
    full: bool,
) -> list[Any]:
    found = containers(scope.chosen(names, one_offs=True), scope.tasks)
    figures = {each.task_id: each for each in await scope.client.stats([each.task.id for each in found])}
    shown: list[Any] = []
    for each in found:
        runs = task.state(each.task) == "running"
        if not runs and not everything:
            continue
        use = figures.get(each.task.id) if runs else None
        share = shares.share(use, each.task.status.started_at) if use is not None else 0.0
        shown.append(figures_row(each, use, share, memory.get(each.task.node_id, 0), full))
    return shown
