"""Waiting for services to converge, in sight: bars that are redrawn on a terminal, lines elsewhere.

Everything goes to standard error, so that what a command answers (an id, JSON) stays alone on its output.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from pyswarm.api import LogsRequest
from pyswarm.cli.convergence import Lagging, Progress, assess, monitor
from pyswarm.clock import Clock
from pyswarm.errors import PyswarmError, Unavailable
from pyswarm.objects import Service, Task

if TYPE_CHECKING:
    from pyswarm.client import Client

TICK = 0.2
"""Seconds between redraws while nothing happens."""
BAR = 30
MOST_REASONS = 4
"""Slots that are named per service."""
LOG_LINES = 10


class NotConverged(PyswarmError):
    """The wait ended without every service being as desired; the text says which, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """What is waited for, and how long."""

    services: Sequence[str]
    """Ids."""
    timeout: float | None = None
    """Seconds; None waits until it converges or cannot."""
    rolling_back: bool = False
    quiet: bool = False


class _Watched:
    """The services and their tasks, as the events tell them."""

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = tuple(ids)
        self.services: dict[str, Service] = {}
        self.tasks: dict[str, dict[str, Task]] = {each: {} for each in ids}
        self.removed: list[str] = []
        self.synced = asyncio.Event()
        self.changed = asyncio.Event()

    async def follow(self, client: Client) -> None:
        """Keep up with the events; ends only with an error. Reconnects while a manager comes back."""
        failures = 0
        while True:
            try:
                async for event in client.events([("type", "service"), ("type", "task")], snapshot=True):
                    failures = 0
                    if event.action == "synced":
                        self.synced.set()
                    elif event.object.service is not None:
                        self._service(event.object.service, event.action == "remove")
                    elif event.object.task is not None:
                        self._task(event.object.task, event.action == "remove")
                    self.changed.set()
                failures += 1
            except Unavailable:
                failures += 1
                if failures > 30:
                    raise
            await asyncio.sleep(min(0.1 * failures, 1.0))

    def _service(self, service: Service, gone: bool) -> None:
        if service.id not in self.tasks:
            return
        if gone:
            self.removed.append(service.spec.name)
            self.services.pop(service.id, None)
        else:
            self.services[service.id] = service

    def _task(self, task: Task, gone: bool) -> None:
        tasks = self.tasks.get(task.service_id)
        if tasks is None:
            return
        if gone:
            tasks.pop(task.id, None)
        else:
            tasks[task.id] = task


async def wait(client: Client, what: Wait, clock: Clock, stream: TextIO | None = None) -> None:
    """Return when every service has converged and stayed so for its monitor period.

    Raises NotConverged when one cannot (paused, rolled back, given up) or the time is over.
    """
    watched = _Watched(what.services)
    out = stream or sys.stderr
    view = _view(out, what.quiet)
    follower = asyncio.create_task(watched.follow(client))
    try:
        await _watch(client, what, clock, watched, view, follower)
    finally:
        view.close()
        follower.cancel()
        await asyncio.gather(follower, return_exceptions=True)


async def _watch(
    client: Client,
    what: Wait,
    clock: Clock,
    watched: _Watched,
    view: _View,
    follower: asyncio.Task[None],
) -> None:
    asked_at, started = clock.now(), clock.monotonic()
    stable_since: dict[str, float] = {}
    while True:
        if follower.done():
            follower.result()
        found: list[Progress] = []
        if watched.synced.is_set():
            found = [
                assess(
                    watched.services[each],
                    watched.tasks[each].values(),
                    clock.now(),
                    asked_at=asked_at,
                    rolling_back=what.rolling_back,
                )
                for each in watched.ids
                if each in watched.services
            ]
            waiting = _unstable(watched, found, stable_since, clock)
            view.show(found, waiting)
            failed = [each for each in found if each.verdict == "failed"]
            if watched.removed:
                raise NotConverged(f"service {watched.removed[0]} was removed")
            if failed:
                raise NotConverged(await _explained(client, failed, "did not converge"))
            if found and not waiting and all(each.verdict == "stable" for each in found):
                view.finish(found)
                return
        if what.timeout is not None and clock.monotonic() - started >= what.timeout:
            going = [each for each in found if each.verdict != "stable"] or found
            raise NotConverged(await _explained(client, going, f"not converged after {what.timeout:g} s"))
        watched.changed.clear()
        await _changed(watched, follower)


async def _changed(watched: _Watched, follower: asyncio.Task[None]) -> None:
    """Return when something happened, the follower failed, or it is time to look at the clock again."""
    waiter = asyncio.create_task(watched.changed.wait())
    try:
        await asyncio.wait({waiter, follower}, timeout=TICK, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiter.cancel()


def _unstable(
    watched: _Watched, found: Sequence[Progress], stable_since: dict[str, float], clock: Clock
) -> float:
    """Seconds until every stable service has been so for its monitor period; 0 if that is over."""
    longest = 0.0
    by_name = {service.spec.name: service for service in watched.services.values()}
    for each in found:
        if each.verdict != "stable":
            stable_since.pop(each.name, None)
            continue
        since = stable_since.setdefault(each.name, clock.now())
        if each.since:
            since = min(since, each.since)
        if each.desired and each.verb == "running" and each.since:
            longest = max(longest, since + monitor(by_name[each.name]) - clock.now())
    return longest


async def _explained(client: Client, failed: Sequence[Progress], what: str) -> str:
    parts: list[str] = []
    for each in failed:
        text = f"service {each.name} {what}: {each.running}/{each.desired} {each.verb}"
        if each.why:
            text = f"service {each.name}: {each.why}"
        reasons = [f"\n  {_reason(lag)}" for lag in each.lagging[:MOST_REASONS]]
        log = await _last_lines(client, each)
        parts.append(text + "".join(reasons) + log)
    return "\n".join(parts) or f"services {what}: nothing is known of them"


async def _last_lines(client: Client, failed: Progress) -> str:
    """The end of the failing task's log; what cannot be had is left out, the reason stands without it."""
    task = failed.failing_task
    if not task:
        return ""
    lines: list[str] = []
    try:
        async with asyncio.timeout(5):
            async for message in client.logs(LogsRequest(tasks=(task,), tail=LOG_LINES)):
                if not message.warning:
                    lines += message.data.decode(errors="replace").splitlines()
    except (PyswarmError, TimeoutError):
        pass
    if not lines:
        return ""
    return f"\n  last lines of task {task[:12]}:" + "".join(f"\n    {line}" for line in lines[-LOG_LINES:])


def _reason(lag: Lagging) -> str:
    return f"{lag.name}: {lag.state}" + (f": {lag.reason}" if lag.reason else "")


# ------------------------------------------------------------------------------------------- on the screen


class _View:
    """Shows nothing: `--quiet`."""

    def show(self, found: Sequence[Progress], waiting: float) -> None:
        del found, waiting

    def finish(self, found: Sequence[Progress]) -> None:
        del found

    def close(self) -> None:
        pass


class _Lines(_View):
    """A line for each change of a service."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._said: dict[str, str] = {}

    def show(self, found: Sequence[Progress], waiting: float) -> None:
        del waiting
        for each in found:
            text = f"{each.name}: {each.running}/{each.desired} {each.verb}"
            reasons = "; ".join(_reason(lag) for lag in each.lagging[:MOST_REASONS])
            text += f" ({reasons})" if reasons else ""
            if self._said.get(each.name) != text:
                self._said[each.name] = text
                print(text, file=self._out, flush=True)

    def finish(self, found: Sequence[Progress]) -> None:
        for each in found:
            print(f"verify: Service {each.name} converged", file=self._out, flush=True)


class _Bars(_View):
    """A block of lines that is drawn over itself."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._drawn = 0
        self._out.write("\x1b[?25l")

    def show(self, found: Sequence[Progress], waiting: float) -> None:
        width, height = shutil.get_terminal_size()
        lines = block(found, waiting, width, max(height - 2, len(found)))
        self._draw(lines)

    def _draw(self, lines: Sequence[str]) -> None:
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        body = "".join(f"\x1b[2K{line}\n" for line in lines)
        self._out.write(f"{up}{body}\x1b[J")
        self._out.flush()
        self._drawn = len(lines)

    def finish(self, found: Sequence[Progress]) -> None:
        width, _ = shutil.get_terminal_size()
        lines = block(found, 0.0, width, len(found))[: len(found)]
        self._draw([*lines, *(f"verify: Service {each.name} converged" for each in found)])

    def close(self) -> None:
        self._out.write("\x1b[?25h")
        self._out.flush()


def _view(out: TextIO, quiet: bool) -> _View:
    if quiet:
        return _View()
    terminal = out.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    return _Bars(out) if terminal else _Lines(out)


def bar(done: int, desired: int, width: int = BAR) -> str:
    """`[=====>    ]`."""
    filled = width if not desired else width * done // desired
    head = "" if filled >= width else ">"
    return "[" + ("=" * filled + head).ljust(width)[:width] + "]"


def block(found: Sequence[Progress], waiting: float, width: int, height: int) -> list[str]:
    """The lines to draw: a bar per service, what its slots wait for, and the wait for stability."""
    name = max((len(each.name) for each in found), default=0)
    lines: list[str] = []
    spare = height - len(found)
    for each in found:
        count = f"{each.running}/{each.desired}"
        lines.append(
            f"{each.name.ljust(name)}  {bar(each.running, each.desired)} {count} {each.verb}"[:width]
        )
        reasons = each.lagging[: max(0, min(MOST_REASONS, spare))]
        spare -= len(reasons)
        lines += [f"{' ' * name}    {_reason(lag)}"[:width] for lag in reasons]
    if waiting > 0 and all(each.verdict == "stable" for each in found):
        lines.append(f"verify: Waiting {waiting:.0f} seconds to verify that tasks are stable..."[:width])
    return lines
