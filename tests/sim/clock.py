"""Virtual time: an event loop whose clock jumps to the next timer as soon as nothing is left to do.

Everything that waits through asyncio (leases, back-offs, heartbeats, the controller's alarms) then runs in
virtual time, in an order that depends on nothing but the program: a history is replayed by its seed.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

T = TypeVar("T")

EPOCH = 1_700_000_000.0
"""Unix time at which every history begins."""


MOST_TURNS = 100_000


class Deadlock(AssertionError):
    """Nothing is left to do and no timer is set: somebody waits for what never comes."""


class _NoInput(selectors.SelectSelector):
    """A selector to which nothing ever happens; instead of waiting it moves the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Deadlock("every coroutine waits, and no timer is set")
        self._turns += 1
        if timeout > 1e-9:
            self.now += timeout
            self._turns = 0
        elif self._turns > MOST_TURNS:
            raise Deadlock(f"{MOST_TURNS} turns of the loop, and no time passes")
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time."""

    def __init__(self) -> None:
        self._virtual = _NoInput()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now

    def call_exception_handler(self, context: Mapping[str, Any]) -> None:  # Any: asyncio's own
        error = context.get("exception")
        raise AssertionError(f"unhandled in the loop: {context.get('message')}: {error!r}") from error


class VirtualClock:
    """The loop's time as a `pyswarm.clock.Clock`."""

    def now(self) -> float:
        return EPOCH + asyncio.get_running_loop().time()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


def run(main: Coroutine[Any, Any, T]) -> T:  # Any: what a coroutine yields and takes is asyncio's business
    """Run `main` in virtual time, from EPOCH on."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.close()
