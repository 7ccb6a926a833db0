"""The managers' store: objects under a prefix of etcd (Raft), or in memory with the same contract.

The contract, held by `tests/integration/test_store_contract.py` over both implementations:

- `commit` is one transaction: all changes or none. Each change compares the version it was made from
  (`meta.version`; 0 means "does not exist yet"), each new name of a named kind must be free, and with a
  `Fence` the leader's election key must still be the one the fence was made from.
- The revision of a commit becomes `meta.version` of every object it wrote; revisions only grow.
- Reads are linearizable: they see every commit that was acknowledged before they were asked.
- `watch(after)` yields every change after that revision exactly once, in order, whole commits at a time,
  over failures of the server; when the revisions were compacted away it raises `Compacted`: list again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from pyswarm.errors import Conflict, PyswarmError, Unavailable
from pyswarm.objects import Kind, Object


@dataclass(frozen=True, slots=True)
class Put:
    """Write `obj`; its `meta.version` is the version that must be in the store now (0: none)."""

    obj: Object


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove an object; `obj.meta.version` must be the version in the store now."""

    obj: Object


Change = Put | Delete


@dataclass(frozen=True, slots=True)
class Event:
    """One change as a watch sees it: `obj` is the new value, or for a deletion the key alone."""

    kind: Kind
    id: str
    obj: Object | None


@dataclass(frozen=True, slots=True)
class Batch:
    """The events of one commit (one revision)."""

    revision: int
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Fence:
    """Proof of leadership: the election key and the revision at which it was created."""

    key: str
    create_revision: int


class StaleWrite(Conflict):
    """A compared version or name did not match. `kind` and `id` say which object, where that is known."""

    def __init__(self, message: str, kind: str = "", id: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.id = id


class Deposed(Unavailable):
    """The fence did not hold: another manager leads, or the lease ran out."""


class Compacted(PyswarmError):
    """The watch's start lies before the oldest revision kept: list again and watch from there."""


@dataclass(frozen=True, slots=True)
class Listing:
    objects: tuple[Object, ...]
    revision: int
    """All objects as of this revision; watch after it."""


UntilGone = Callable[[str], Awaitable[None]]
"""Returns when a candidate is gone, as far as one can see. It may err: who still leads then is deposed."""


class Records(Protocol):
    """The part of a store that reads and writes single objects."""

    async def list(self, kind: Kind | None = None) -> Listing: ...
    async def get(self, kind: Kind, id: str) -> Object | None: ...
    async def commit(self, changes: Sequence[Change], fence: Fence | None = None) -> int: ...


class Store(Records, Protocol):
    async def list(self, kind: Kind | None = None) -> Listing:
        """Every object (of the kind), read at one revision."""
        ...

    async def get(self, kind: Kind, id: str) -> Object | None: ...

    async def commit(self, changes: Sequence[Change], fence: Fence | None = None) -> int:
        """Apply all changes or none; returns the revision. Raises StaleWrite, Deposed, Unavailable
        (nothing is known of the outcome after a time-out: read again)."""
        ...

    def watch(self, after: int) -> AbstractAsyncContextManager[AsyncIterator[Batch]]: ...

    def campaign(
        self, candidate: str, ttl: float = 1.0, until_gone: UntilGone | None = None
    ) -> AbstractAsyncContextManager[Leadership]:
        """Wait until `candidate` leads. Leaving the context resigns at once. A name is one process: what an
        earlier one of that name (killed, say) still holds is ended, not waited for; nor is what a candidate ahead
        holds of whom `until_gone` says that it is gone."""
        ...

    async def leader(self) -> str | None:
        """The candidate that leads now."""
        ...

    def leaders(self) -> AsyncIterator[str | None]:
        """The leader now and at each change."""
        ...


class Leadership(Protocol):
    """A won election."""

    @property
    def fence(self) -> Fence: ...

    async def lost(self) -> None:
        """Returns when the lease could not be kept alive in time, or the key is gone."""
        ...

    async def confirm(self) -> None:
        """Returns when it is certain that this candidate led still after this was called: what it knew then of
        the store, whose only writer it is, was the newest. Raises Deposed, or Unavailable where nobody answers."""
        ...
