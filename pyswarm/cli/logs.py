"""`pyswarm logs` and `pyswarm service logs`: the merged logs of a service's tasks, or of one task."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import click

from pyswarm.api import LogMessage, LogsRequest
from pyswarm.cli import human, values
from pyswarm.cli.app import App, connected
from pyswarm.cli.completion import complete
from pyswarm.cli.lazy import GoCommand
from pyswarm.clock import rfc3339_nanos
from pyswarm.engine import parse_rfc3339
from pyswarm.errors import Conflict, Invalid, NotFound
from pyswarm.objects import Service, Task

if TYPE_CHECKING:
    from pyswarm.client import Client


def moment(text: str, now: float) -> float:
    """`42m` (ago), `2026-01-02T15:04:05Z`, `2026-01-02` or Unix seconds, as Unix seconds; 0 for ""."""
    if not text:
        return 0.0
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if re.match(r"\d{4}-\d\d", text):
        return parse_rfc3339(text)
    return now - values.duration(text)


def tail_of(text: str) -> int:
    if text == "all":
        return -1
    if not text.isdigit():
        raise Invalid(f"invalid value for --tail: {text}: write a number or all")
    return int(text)


class Prefix:
    """What stands before each line: `web.1.<task>@node    | `, the bars under each other."""

    def __init__(self, nodes: dict[str, str], resolve: bool, task_ids: bool, full: bool, slots: int) -> None:
        self._nodes = nodes
        self._resolve = resolve
        self._task_ids = task_ids
        self._full = full
        self._width = len(str(slots))

    def of(self, message: LogMessage) -> str:
        service = message.service_name if self._resolve and message.service_name else message.service_id
        slot = str(message.slot) if message.slot else human.short(message.node_id, self._full)
        name = f"{service}.{slot}"
        if self._task_ids:
            name += f".{human.short(message.task_id, self._full)}"
        node = self._nodes.get(message.node_id, message.node_id) if self._resolve else message.node_id
        padding = " " * max(0, self._width - len(slot)) if message.slot else ""
        return f"{name}@{node}{padding}    | "


def lines(message: LogMessage, prefix: str, timestamps: bool, details: str = "") -> list[bytes]:
    """The message as lines to write, each with its time and prefix."""
    stamp = f"{rfc3339_nanos(message.nanos)} " if timestamps else ""
    head = f"{stamp}{details}{prefix}".encode()
    return [head + line + b"\n" for line in message.data.removesuffix(b"\n").split(b"\n")]


@click.command(cls=GoCommand)
@click.argument("name", metavar="SERVICE|TASK", shell_complete=complete("service"))
@click.option("--details", is_flag=True, help="Show extra details provided to logs.")
@click.option("-f", "--follow", is_flag=True, help="Follow log output.")
@click.option("--no-resolve", is_flag=True, help="Do not map IDs to Names in output.")
@click.option("--no-task-ids", is_flag=True, help="Do not include task IDs in output.")
@click.option("--no-trunc", is_flag=True, help="Do not truncate output.")
@click.option("--raw", is_flag=True, help="Do not neatly format logs.")
@click.option(
    "--since", default="", help="Show logs since timestamp (2026-01-02T15:04:05Z) or relative (42m)."
)
@click.option(
    "-n", "--tail", default="all", help="Number of lines to show from the end of the logs of each task."
)
@click.option("-t", "--timestamps", is_flag=True, help="Show timestamps.")
@click.option("--until", default="", help="Show logs before timestamp or relative time.")
@connected
async def logs(
    app: App,
    client: Client,
    name: str,
    details: bool,
    follow: bool,
    no_resolve: bool,
    no_task_ids: bool,
    no_trunc: bool,
    raw: bool,
    since: str,
    tail: str,
    timestamps: bool,
    until: str,
) -> None:
    """Fetch the logs of a service or task."""
    del details  # pyswarm's log driver has none, as docker's own json-file without labels.
    service, task = await find(client, name)
    spec = service.spec.task if service else (task.spec if task else None)
    if spec is not None and spec.log_driver is not None and spec.log_driver.name == "none":
        raise Conflict(f"{name}: configured logging driver does not support reading: it is none")
    now = app.now()
    request = LogsRequest(
        services=(service.id,) if service else (),
        tasks=(task.id,) if task else (),
        follow=follow,
        tail=tail_of(tail),
        since=moment(since, now),
        until=moment(until, now),
    )
    prefix = None
    if not raw:
        nodes = {} if no_resolve else {n.id: n.description.hostname for n in await client.nodes()}
        slots = service.spec.mode.replicas if service else (task.slot if task else 1)
        prefix = Prefix(nodes, not no_resolve, not no_task_ids, no_trunc, slots)
    async for message in client.logs(request):
        show(message, prefix, timestamps)


async def find(client: Client, name: str) -> tuple[Service | None, Task | None]:
    """The service of that name, or else the task. Raises NotFound naming both kinds."""
    try:
        return await client.get(Service, name), None
    except NotFound:
        pass
    try:
        return None, await client.get(Task, name)
    except NotFound:
        raise NotFound(f"no such task or service: {name}") from None


def show(message: LogMessage, prefix: Prefix | None, timestamps: bool) -> None:
    """Write one message: each stream goes where the container sent it, warnings to standard error."""
    if message.warning:
        click.echo(f"warning: {message.warning}", err=True)
        return
    out = sys.stderr.buffer if message.stream == "stderr" else sys.stdout.buffer
    for line in lines(message, prefix.of(message) if prefix else "", timestamps):
        out.write(line)
    out.flush()
