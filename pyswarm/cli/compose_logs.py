"""`pyswarm compose logs`, and the log of `up`: each service's lines behind its name, in its colour."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from pyswarm.api import LogMessage, LogsRequest
from pyswarm.cli import logs as plain
from pyswarm.cli.app import warn
from pyswarm.cli.compose_local import SERVICE_LABEL
from pyswarm.cli.compose_session import ComposeCommand, Scope, coloured, in_project
from pyswarm.cli.compose_state import colour, containers, is_one_off, short_name
from pyswarm.clock import rfc3339_nanos
from pyswarm.errors import NotFound, Unavailable
from pyswarm.objects import Service

if TYPE_CHECKING:
    from pyswarm.client import Client

RESET = "\x1b[0m"
QUIET = 0.4
"""Seconds without a line after which a log that nobody writes to any more counts as read to its end."""


class Printer:
    """Writes lines of log as docker compose does: `web-1  | text`, the bars under each other."""

    def __init__(
        self,
        services: Sequence[Service],
        *,
        prefix: bool = True,
        colours: bool = False,
        timestamps: bool = False,
    ) -> None:
        self._prefix, self._colours, self._timestamps = prefix, colours, timestamps
        self._names: dict[str, str] = {}
        self._colour: dict[str, str] = {}
        self._width = 0
        for service in services:
            self.know(service)

    def know(self, service: Service) -> None:
        """A service whose lines may come."""
        if service.id in self._names:
            return
        self._names[service.id] = service.spec.name if is_one_off(service) else f"{short_name(service)}-%d"
        self._colour[service.id] = colour(len(self._colour))
        slots = service.spec.mode.replicas if service.spec.mode.kind == "replicated" else 1
        self._width = max(self._width, len(self._name(service.id, max(slots, 1))))

    def _name(self, service_id: str, slot: int) -> str:
        return self._names.get(service_id, service_id).replace("%d", str(slot or 1))

    def write(self, message: LogMessage) -> None:
        """All lines to standard output, as docker compose has it."""
        if message.warning:
            warn(f"warning: {message.warning}")
            return
        head = ""
        if self._prefix:
            head = f"{self._name(message.service_id, message.slot).ljust(self._width)}  | "
            if self._colours:
                head = f"{self._colour.get(message.service_id, '')}{head}{RESET}"
        if self._timestamps:
            head += f"{rfc3339_nanos(message.nanos)} "
        out = sys.stdout.buffer
        for line in message.data.removesuffix(b"\n").split(b"\n"):
            out.write(head.encode() + line + b"\n")
        out.flush()


class Following:
    """The log of some services while they run, on a task of its own; a manager that goes is asked again."""

    def __init__(self, client: Client, request: LogsRequest, write: Callable[[LogMessage], None]) -> None:
        self._client, self._request, self._write = client, request, write
        self._last = 0
        self._lines = 0
        self._task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        from dataclasses import replace

        while True:
            try:
                async for message in self._client.logs(self._request):
                    self._lines += 1
                    self._last = max(self._last, message.nanos)
                    self._write(message)
            except Unavailable:
                pass
            await asyncio.sleep(QUIET)
            if self._last:
                self._request = replace(self._request, since=(self._last + 1) / 1e9)

    async def drain(self, most: float = 3.0) -> None:
        """Return when no more lines come."""
        for _ in range(int(most / QUIET)):
            before = self._lines
            await asyncio.sleep(QUIET)
            if self._lines == before:
                return

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def failed(self) -> BaseException | None:
        """What ended it, if anything did."""
        if self._task.done() and not self._task.cancelled():
            return self._task.exception()
        return None


@click.command(cls=ComposeCommand)
@click.option("-f", "--follow", is_flag=True, help="Follow log output.")
@click.option("--index", type=int, default=0, help="Index of the container if service has multiple replicas.")
@click.option("--no-color", is_flag=True, help="Produce monochrome output.")
@click.option("--no-log-prefix", is_flag=True, help="Don't print prefix in logs.")
@click.option("--since", default="", help="Show logs since timestamp or relative (42m).")
@click.option("-n", "--tail", default="all", help="Number of lines to show for each container.")
@click.option("-t", "--timestamps", is_flag=True, help="Show timestamps.")
@click.option("--until", default="", help="Show logs before timestamp or relative.")
@click.argument("names", nargs=-1, metavar="[SERVICE...]")
@in_project()
async def logs(
    scope: Scope,
    follow: bool,
    index: int,
    no_color: bool,
    no_log_prefix: bool,
    since: str,
    tail: str,
    timestamps: bool,
    until: str,
    names: tuple[str, ...],
) -> None:
    """View output from containers."""
    services = scope.chosen(names, one_offs=not names)
    if not services:
        return
    now = scope.app.now()
    tasks: tuple[str, ...] = ()
    if index:
        tasks = tuple(each.task.id for each in containers(services, scope.tasks) if each.task.slot == index)
        if not tasks:
            raise NotFound(
                f"no such container: {names[0] if names else scope.name} has none with index {index}"
            )
    request = LogsRequest(
        services=() if tasks else tuple(each.id for each in services),
        tasks=tasks,
        follow=follow,
        tail=plain.tail_of(tail),
        since=plain.moment(since, now),
        until=plain.moment(until, now),
    )
    printer = Printer(
        services, prefix=not no_log_prefix, colours=coloured() and not no_color, timestamps=timestamps
    )
    async for message in scope.client.logs(request):
        printer.write(message)


def attached(services: Sequence[Service], only: Sequence[str], without: Sequence[str]) -> list[Service]:
    """The services whose lines `up` shows: those of `--attach`, or all, but not those of `--no-attach`."""
    return [
        each
        for each in services
        if (not only or each.spec.labels.get(SERVICE_LABEL) in only)
        and each.spec.labels.get(SERVICE_LABEL) not in without
    ]
