"""Keeps the garbage collector off the cluster's objects.

They are frozen dataclasses without cycles: reference counts free them. A full collection looks at each of them
all the same, for about a second at 30,000 tasks, in which a manager answers nobody. So full collections do not
come by themselves; after every so many changes the objects that are new since the last time are collected and
set aside (`gc.freeze`), where no later collection looks.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence

from manager.state import Changed

EVERY = 5_000
"""Changes between two times."""
THRESHOLDS = (10_000, 20, 1_000_000)
"""As `gc.set_threshold` has them: the youngest often, the oldest never."""


class Garbage:
    """An observer of the controller."""

    def __init__(self) -> None:
        self._changes = 0

    def start(self) -> None:
        """The state is loaded: set it aside."""
        gc.set_threshold(*THRESHOLDS)
        gc.collect()
        gc.freeze()

    def observe(self, revision: int, changes: Sequence[Changed]) -> None:
        del revision
        self._changes += len(changes)
        if self._changes >= EVERY:
            self._changes = 0
            gc.collect()
            gc.freeze()
