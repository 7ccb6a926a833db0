"""`pyswarm compose up` in the foreground: everybody's log, until all have ended or somebody presses Ctrl-C.

The first Ctrl-C (or SIGTERM) stops the services as `compose stop` does, the second kills their processes.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine, Sequence
from typing import Any, Literal

import click

from pyswarm.api import LogsRequest
from pyswarm.cli.compose_logs import Following, Printer
from pyswarm.cli.compose_session import Scope, coloured
from pyswarm.cli.compose_state import Container, containers, exit_code, restarts, short_name, stage
from pyswarm.cli.compose_wait import POLL, blocked, signal_tasks, standing
from pyswarm.objects import alive

INTERRUPTED = 130
MARGIN = 1.0
"""Seconds that a node's clock may be behind ours, for "what was logged since we began"."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Foreground:
    """One `up` that stays. `run` returns the exit code."""

    def __init__(
        self,
        scope: Scope,
        ids: Sequence[str],
        shown: Sequence[str],
        *,
        since: float,
        prefix: bool = True,
        monochrome: bool = False,
        timestamps: bool = False,
        abort: Literal["", "exit", "failure"] = "",
        code_from: str = "",
        grace: float | None = None,
    ) -> None:
        self._scope = scope
        self._ids = frozenset(ids)
        self._shown = frozenset(shown)
        self._since = since - MARGIN
        self._abort = abort
        self._code_from = code_from
        self._grace = grace
        self._options = {
            "prefix": prefix,
            "colours": coloured() and not monochrome,
            "timestamps": timestamps,
        }
        self._interrupts = 0
        self._pressed = asyncio.Event()
        self._codes: dict[str, int] = {}
        """Exit code of each task that has ended, by its id."""
        self._first: Container | None = None
        """The container whose end made the others stop."""

    async def run(self, beside: Coroutine[Any, Any, None] | None = None) -> int:
        """Show and wait; `beside` runs meanwhile, and everything ends with its failure."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._interrupt)
        services = [each for each in self._scope.services if each.id in self._ids]
        shown = [each for each in services if short_name(each) in self._shown]
        if shown:
            names = ", ".join(short_name(each) for each in shown)
            click.echo(f"Attaching to {names}", err=True)
        printer = Printer(shown, **self._options)
        request = LogsRequest(services=tuple(each.id for each in shown), follow=True, since=self._since)
        following = Following(self._scope.client, request, printer.write) if shown else None
        work = asyncio.create_task(beside) if beside is not None else None
        try:
            await self._watch(following, work)
            if following is not None:
                await following.drain(1.2)
            return self._code()
        finally:
            if work is not None:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
            if following is not None:
                await following.close()
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    def _interrupt(self) -> None:
        self._interrupts += 1
        self._pressed.set()

    async def _watch(self, following: Following | None, work: asyncio.Task[None] | None) -> None:
        """Return when every container has ended for good, or has been stopped."""
        while True:
            await self._scope.refresh()
            if self._interrupts:
                click.echo("\nGracefully stopping... (press Ctrl+C again to force)", err=True)
                await self._stop()
                return
            over = self._look()
            if self._aborts():
                click.echo("Aborting on container exit...", err=True)
                await self._stop()
                return
            if over and work is None:
                return
            if following is not None and (error := following.failed()) is not None:
                raise error
            if work is not None and work.done():
                work.result()
            await self._tick()

    async def _tick(self) -> None:
        try:
            async with asyncio.timeout(POLL):
                await self._pressed.wait()
        except TimeoutError:
            pass
        self._pressed.clear()

    def _look(self) -> bool:
        """Say which containers have ended since the last look; whether all have. Raises NotStarted."""
        from pyswarm.cli.compose_wait import NotStarted

        services = [each for each in self._scope.services if each.id in self._ids]
        mine = containers(services, self._scope.tasks)
        for each in mine:
            if each.task.id in self._codes or alive(each.task.status.state):
                continue
            if stage(each.task) == "failed" and not restarts(each.task):
                continue
            self._codes[each.task.id] = exit_code(each.task)
            if each.task.status.timestamp and each.task.status.timestamp < self._since:
                continue
            click.echo(f"{each.short} exited with code {exit_code(each.task)}", err=True)
            if self._first is None and not restarts(each.task) and self._counts(each):
                self._first = each
        found = standing(services, self._scope.tasks, healthy=False)
        problems = [*found.failed, *(blocked(services, self._scope.tasks) if found.waiting else ())]
        if problems:
            raise NotStarted("\n".join(problems))
        return not found.waiting and all(
            not alive(each.task.status.state) and not restarts(each.task) for each in mine
        )

    def _counts(self, each: Container) -> bool:
        """Whether the end of this container is one that makes the others stop."""
        return self._abort == "exit" or (self._abort == "failure" and exit_code(each.task) != 0)

    def _aborts(self) -> bool:
        return bool(self._abort) and self._first is not None

    async def _stop(self) -> None:
        """Stop everything; kill it when Ctrl-C comes again."""
        from pyswarm.cli.compose_up import halt

        services = [each for each in self._scope.services if each.id in self._ids]
        before = self._interrupts
        stopping = asyncio.create_task(halt(self._scope, services, self._grace))
        while not stopping.done():
            self._pressed.clear()
            pressed = asyncio.create_task(self._pressed.wait())
            await asyncio.wait({stopping, pressed}, return_when=asyncio.FIRST_COMPLETED)
            pressed.cancel()
            if self._interrupts > before:
                before = self._interrupts
                click.echo("Killing...", err=True)
                await self._kill()
        stopping.result()

    async def _kill(self) -> None:
        tasks = await self._scope.client.tasks(self._scope.label)
        living = [each for each in tasks if each.service_id in self._ids and alive(each.status.state)]
        self._codes |= dict.fromkeys((each.id for each in living), 137)
        await signal_tasks(self._scope, living, "SIGKILL")

    def _code(self) -> int:
        """That of --exit-code-from, of the container whose end stopped all, or of an interrupt."""
        if self._code_from:
            mine = [
                each
                for each in containers(self._scope.services, self._scope.tasks)
                if each.service == self._code_from
            ]
            codes = [self._codes[each.task.id] for each in mine if each.task.id in self._codes]
            if self._first is not None and self._first.service == self._code_from:
                return exit_code(self._first.task)
            return codes[0] if codes else (INTERRUPTED if self._interrupts else 143)
        if self._first is not None:
            return exit_code(self._first.task)
        return INTERRUPTED if self._interrupts else 0
