"""Histories and hunts on all cores: a history depends on its seed alone, so they need not know of each other."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial

from tests.sim.history import STEPS_PER_HISTORY, Outcome, play
from tests.sim.mutants import MUTANTS, hunt

CHUNK = 10
"""Histories that a process plays before it asks for more."""


class Pool:
    """Processes that play. `with Pool() as pool: ...`"""

    def __init__(self, jobs: int | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        self._executor = ProcessPoolExecutor(jobs or os.cpu_count(), mp_context=context)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *error: object) -> None:
        self._executor.shutdown(cancel_futures=True)

    def play(self, seeds: Sequence[int], steps: int = STEPS_PER_HISTORY) -> Iterator[Outcome]:
        """The outcome of each seed, in order."""
        return self._executor.map(partial(_played, steps), seeds, chunksize=CHUNK)

    def hunt(self, names: Iterable[str], seeds: Sequence[int]) -> dict[str, Future[Outcome | None]]:
        """For each bug what the first history said that found it; None for one that survives."""
        return {name: self._executor.submit(_hunted, name, seeds) for name in names}


def _played(steps: int, seed: int) -> Outcome:
    return _packed(play(seed, steps))


def _hunted(name: str, seeds: Sequence[int]) -> Outcome | None:
    found = hunt(MUTANTS[name], seeds)
    return _packed(found) if found is not None else None


def _packed(outcome: Outcome) -> Outcome:
    """An outcome that can travel between processes: its error as plain text."""
    if outcome.error is not None:
        outcome.error = AssertionError(f"{type(outcome.error).__name__}: {outcome.error}")
    return outcome
