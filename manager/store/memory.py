"""The store in memory: the contract of `manager.store` without etcd, with faults that a test can ask for.

A `MemoryServer` is the cluster's data; a `MemoryStore` is one manager's connection to it, so a test can cut
one manager off, lose an answer, or let a lease run out, while the others go on.
"""

from __future__ import annotations

import asyncio
import contextlib
from bisect import bisect_right
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, field

from manager.store import (
    Batch,
    Change,
    Compacted,
    Deposed,
    Event,
    Fence,
    Leadership,
    Listing,
    Put,
    UntilGone,
)
from manager.store.layout import (
    NameStep,
    ObjectKey,
    check_bytes,
    check_distinct,
    check_operations,
    key_of,
    name_steps,
    name_taken,
    stale,
)
from pyswarm.errors import Unavailable
from pyswarm.objects import Config, Kind, Object, Secret, unique_name
from pyswarm.wire import with_version


@dataclass(slots=True)
class _Candidate:
    """A key of the election and its lease."""

    name: str
    key: str
    created: int
    ttl: float
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    expiry: asyncio.TimerHandle | None = None


class MemoryServer:
    """What etcd holds: objects, the log of changes, the election. Not bound to a loop until it is used."""

    def __init__(self) -> None:
        self.revision = 0
        self.oldest = 1
        """The first revision whose changes are kept."""
        self.down = False
        self._objects: dict[ObjectKey, Object] = {}
        self._names: dict[tuple[Kind, str], str] = {}
        self._log: list[Batch] = []
        self._candidates: list[_Candidate] = []
        self._news = asyncio.Event()
        self._leases = 0

    # -------------------------------------------------------------------------------- for tests to turn

    def compact(self, revision: int) -> None:
        """Forget the changes before `revision`."""
        self.oldest = max(self.oldest, min(revision, self.revision))
        self._log = [batch for batch in self._log if batch.revision >= self.oldest]
        self._announce()

    def expire(self, candidate: str) -> None:
        """End the leases of a candidate now, as if etcd had not heard of it in time."""
        for entry in [c for c in self._candidates if c.name == candidate]:
            self.remove(entry)

    def set_down(self, down: bool) -> None:
        """Whether all managers get `Unavailable`. Leases are kept while it is down, as etcd does."""
        self.down = down
        self._announce()

    # ------------------------------------------------------------------------------------- the data

    @property
    def leader(self) -> str | None:
        return self._candidates[0].name if self._candidates else None

    def first(self, entry: _Candidate) -> bool:
        return bool(self._candidates) and self._candidates[0] is entry

    def enlist(self, name: str, ttl: float) -> _Candidate:
        self.expire(name)  # of a former process of this candidate
        self._leases += 1
        self.revision += 1
        entry = _Candidate(name, f"election/{self._leases:016x}", self.revision, ttl)
        self._candidates.append(entry)
        self._announce()
        return entry

    def remove(self, entry: _Candidate) -> None:
        entry.lost.set()
        if entry.expiry is not None:
            entry.expiry.cancel()
        if entry in self._candidates:
            self._candidates.remove(entry)
            self.revision += 1
            self._announce()

    def read(self, kind: Kind | None) -> Listing:
        found = sorted((key, obj) for key, obj in self._objects.items() if kind in (None, key[0]))
        return Listing(tuple(obj for _, obj in found), self.revision)

    def get(self, kind: Kind, id: str) -> Object | None:
        return self._objects.get((kind, id))

    def apply(self, changes: Sequence[Change], fence: Fence | None) -> int:
        """Check everything, then change everything."""
        check_distinct(changes)
        self._check_fence(fence)
        for change in changes:
            found = self._objects.get(key_of(change))
            if (found.meta.version if found else 0) != change.obj.meta.version:
                raise stale(change, found.meta.version if found else 0)
        steps = name_steps(changes, self._stored_names(changes))
        _check_size(changes, steps, fence)
        for step in steps:
            if self._names.get((step.kind, step.name), "") != step.before:
                raise name_taken(step.kind, step.name, step.after)
        return self._write(changes, steps)

    def _check_fence(self, fence: Fence | None) -> None:
        if fence is None:
            return
        if not any(c.key == fence.key and c.created == fence.create_revision for c in self._candidates):
            raise Deposed("this manager does not lead any more: the write was refused")

    def _stored_names(self, changes: Sequence[Change]) -> dict[ObjectKey, str]:
        keys = [key_of(change) for change in changes]
        return {key: unique_name(self._objects[key]) for key in keys if key in self._objects}

    def _write(self, changes: Sequence[Change], steps: Sequence[NameStep]) -> int:
        if not changes:
            return self.revision
        self.revision += 1
        for step in steps:
            if step.after:
                self._names[step.kind, step.name] = step.after
            else:
                del self._names[step.kind, step.name]
        events = [self._write_one(change) for change in changes]
        self._log.append(Batch(self.revision, tuple(events)))
        self._announce()
        return self.revision

    def _write_one(self, change: Change) -> Event:
        kind, id = key_of(change)
        if not isinstance(change, Put):
            del self._objects[kind, id]
            return Event(kind, id, None)
        obj = with_version(change.obj, self.revision)
        self._objects[kind, id] = obj
        return Event(kind, id, obj)

    # ------------------------------------------------------------------------------------ what is new

    def _announce(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    def poke(self) -> None:
        """Let everyone who waits look again."""
        self._announce()

    @property
    def news(self) -> asyncio.Event:
        """Set at the next change of anything. Take it before looking, so that no change is missed."""
        return self._news

    def since(self, after: int) -> list[Batch]:
        """The changes after a revision. Raises Compacted."""
        if after + 1 < self.oldest:
            raise Compacted(f"the store keeps no changes before revision {self.oldest}")
        return self._log[bisect_right(self._log, after, key=lambda batch: batch.revision) :]


def _check_size(changes: Sequence[Change], steps: Sequence[NameStep], fence: Fence | None) -> None:
    """The limits that etcd has. Bytes are counted where there can be many: in secrets and configs."""
    check_operations(len(changes) + len(steps) + (fence is not None))
    bulky = [c.obj for c in changes if isinstance(c, Put) and isinstance(c.obj, (Secret, Config))]
    check_bytes(sum(len(obj.spec.data) for obj in bulky))


class MemoryStore:
    """One manager's connection to a `MemoryServer` (its own, if none is given)."""

    def __init__(self, server: MemoryServer | None = None) -> None:
        self.server = server if server is not None else MemoryServer()
        self.latency: Callable[[], float] | None = None
        """Seconds that a request travels, asked for each way; None: no time, but others run in between."""
        self._cut = False
        self._lost_answers = 0
        self._refusals: list[Exception] = []
        self._mine: list[_Candidate] = []

    # -------------------------------------------------------------------------------- for tests to turn

    def cut(self) -> None:
        """Lose the connection: calls fail, watches stand still, and leases run out after their time."""
        self._cut = True
        loop = asyncio.get_running_loop()
        for entry in self._mine:
            entry.expiry = loop.call_later(entry.ttl, self.server.remove, entry)
        self.server.poke()

    def heal(self) -> None:
        """Have the connection back; watches go on where they stood."""
        self._cut = False
        for entry in self._mine:
            if entry.expiry is not None:
                entry.expiry.cancel()
                entry.expiry = None
        self.server.poke()

    def lose_answers(self, count: int = 1) -> None:
        """The next `count` commits are carried out (or refused), but the caller gets Unavailable."""
        self._lost_answers += count

    def refuse(self, error: Exception) -> None:
        """The next commit is not carried out and raises `error`. Calls add up."""
        self._refusals.append(error)

    # ------------------------------------------------------------------------------------ the contract

    @property
    def _reachable(self) -> bool:
        return not self._cut and not self.server.down

    async def _travel(self) -> None:
        """One way between manager and store. Raises Unavailable if there is none."""
        await asyncio.sleep(self.latency() if self.latency is not None else 0)
        if not self._reachable:
            raise Unavailable("the store cannot be reached")

    async def close(self) -> None:
        """Nothing to close; here because EtcdStore has it."""

    async def list(self, kind: Kind | None = None) -> Listing:
        await self._travel()
        return self.server.read(kind)

    async def get(self, kind: Kind, id: str) -> Object | None:
        await self._travel()
        return self.server.get(kind, id)

    async def commit(self, changes: Sequence[Change], fence: Fence | None = None) -> int:
        changes = tuple(changes)
        await self._travel()
        if self._refusals:
            raise self._refusals.pop(0)
        try:
            revision = self.server.apply(changes, fence)
        finally:
            if self._lost_answers:
                self._lost_answers -= 1
                raise Unavailable("no answer from the store in time: whether it wrote is not known")
        await self._travel()
        return revision

    async def compact(self, revision: int) -> None:
        await self._travel()
        self.server.compact(revision)

    @asynccontextmanager
    async def watch(self, after: int) -> AsyncGenerator[AsyncIterator[Batch], None]:
        async with aclosing(self._batches(after)) as batches:
            yield batches

    async def _batches(self, after: int) -> AsyncGenerator[Batch, None]:
        while True:
            news = self.server.news
            for batch in self.server.since(after) if self._reachable else []:
                await asyncio.sleep(self.latency() if self.latency is not None else 0)
                after = batch.revision
                yield batch
            await news.wait()

    def campaign(
        self, candidate: str, ttl: float = 1.0, until_gone: UntilGone | None = None
    ) -> AbstractAsyncContextManager[Leadership]:
        del until_gone  # leases run out by the clock alone here
        return self._campaign(candidate, ttl)

    @asynccontextmanager
    async def _campaign(self, candidate: str, ttl: float) -> AsyncGenerator[Leadership, None]:
        entry = await self._win(candidate, ttl)
        try:
            yield _MemoryLeadership(Fence(entry.key, entry.created), entry, self)
        finally:
            self._leave(entry)

    async def _win(self, candidate: str, ttl: float) -> _Candidate:
        """Queue, and queue anew when the lease ran out meanwhile, until the candidate is first."""
        while True:
            await self._until(lambda: self._reachable)
            entry = self.server.enlist(candidate, ttl)
            self._mine.append(entry)
            try:
                await self._until(
                    lambda entry=entry: entry.lost.is_set() or (self._reachable and self.server.first(entry))
                )
            except BaseException:
                self._leave(entry)
                raise
            if not entry.lost.is_set():
                return entry
            self._leave(entry)

    async def _until(self, condition: Callable[[], bool]) -> None:
        await asyncio.sleep(0)
        while not condition():
            await self.server.news.wait()

    def _leave(self, entry: _Candidate) -> None:
        """Resign: at once if the store can be reached, else when the lease ends."""
        entry.lost.set()
        if self._reachable:
            self.server.remove(entry)
        elif entry.expiry is None:
            entry.expiry = asyncio.get_running_loop().call_later(entry.ttl, self.server.remove, entry)
        with contextlib.suppress(ValueError):
            self._mine.remove(entry)

    async def leader(self) -> str | None:
        await self._travel()
        return self.server.leader

    async def leaders(self) -> AsyncGenerator[str | None, None]:
        seen: list[str | None] = []
        while True:
            if self._reachable and seen != [self.server.leader]:
                seen = [self.server.leader]
                yield seen[0]
            else:
                await self.server.news.wait()


@dataclass(frozen=True, slots=True)
class _MemoryLeadership:
    fence: Fence
    _entry: _Candidate
    _store: MemoryStore

    async def lost(self) -> None:
        await self._entry.lost.wait()

    async def confirm(self) -> None:
        await self._store.commit((), self.fence)
