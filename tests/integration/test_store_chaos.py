"""Three etcds, killed and stopped at random moments, while managers write, watch and lead: nothing is lost,
nothing is seen twice, and no two lead at once as far as the store is concerned."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from manager.store import Batch, Deposed, Put, StaleWrite
from manager.store.etcd import EtcdStore
from pyswarm.errors import Unavailable
from pyswarm.objects import Task
from tests.etcd_rig import Group, Member, new_root, three
from tests.store_contract import task

pytestmark = pytest.mark.root

FAULTS = 8


@pytest.fixture
async def group(tmp_path: Path) -> AsyncGenerator[Group, None]:
    group = Group(tmp_path, new_root())
    try:
        yield group
    finally:
        await group.close()


@dataclass
class Record:
    """What the actors saw."""

    acknowledged: dict[str, int] = field(default_factory=dict[str, int])
    """Task id -> revision, of commits that returned."""
    in_doubt: set[str] = field(default_factory=set[str])
    batches: list[Batch] = field(default_factory=list[Batch])
    counted: int = 0
    """Acknowledged increments of the shared counter."""
    doubted: int = 0
    reigns: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    """(candidate, create revision of its key) of each lead."""


async def write(store: EtcdStore, record: Record, name: str) -> None:
    number = 0
    while True:
        number += 1
        id = f"{name}{number:05}"
        try:
            record.acknowledged[id] = await store.commit([Put(task(id))])
        except (Unavailable, asyncio.CancelledError):
            record.in_doubt.add(id)
            raise_if_cancelled()
        await asyncio.sleep(0.005)


def raise_if_cancelled() -> None:
    current = asyncio.current_task()
    if current is not None and current.cancelling():
        raise asyncio.CancelledError


async def count(store: EtcdStore, record: Record) -> None:
    """Increment a counter under the lead, as the controller writes: fenced, compare-and-set, reading again
    after every doubt."""
    name = f"candidate{id(store)}"
    while True:
        async with store.campaign(name) as leadership:
            record.reigns.append((name, leadership.fence.create_revision))
            lost = asyncio.create_task(leadership.lost())
            try:
                while not lost.done():
                    await increment(store, record, leadership.fence)
            except Deposed:
                pass
            finally:
                lost.cancel()


async def increment(store: EtcdStore, record: Record, fence: object) -> None:
    try:
        obj = await store.get("task", "counter")
        assert isinstance(obj, Task)
        try:
            await store.commit([Put(replace(obj, slot=obj.slot + 1))], fence)  # type: ignore[arg-type]
            record.counted += 1
        except Deposed:
            raise
        except (Unavailable, asyncio.CancelledError):
            record.doubted += 1
            raise
    except Deposed:
        raise
    except (Unavailable, StaleWrite):
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.003)


async def watch(store: EtcdStore, record: Record, after: int) -> None:
    async with store.watch(after) as batches:
        async for batch in batches:
            record.batches.append(batch)


async def disturb(members: list[Member], chance: random.Random) -> None:
    """One fault at a time, so that a majority can always come back."""
    for _ in range(FAULTS):
        await asyncio.sleep(chance.uniform(0.2, 1.2))
        pid = chance.choice(members).process.pid
        if pid is None:
            continue
        if chance.random() < 0.6:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            continue
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(chance.uniform(0.3, 2.0))
            finally:
                os.kill(pid, signal.SIGCONT)


async def settled(store: EtcdStore) -> int:
    """The revision of a last write, once the store answers again."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(Unavailable):
                return await store.commit([Put(task(f"last{time.monotonic_ns()}"))])
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("seed", [1, 2])
async def test_nothing_is_lost_and_nothing_seen_twice(group: Group, seed: int) -> None:
    print(f"seed {seed}")
    members = await three(group)
    stores = [group.store(m, *(o for o in members if o is not m)) for m in members]
    start = await stores[0].commit([Put(task("counter"))])
    record = Record()
    actors = [
        *(asyncio.create_task(write(store, record, f"w{n}")) for n, store in enumerate(stores)),
        *(asyncio.create_task(count(group.store(*members[n:], *members[:n]), record)) for n in (0, 1)),
        asyncio.create_task(watch(stores[1], record, start)),
    ]
    try:
        await disturb(members, random.Random(seed))
        await asyncio.sleep(1.0)
        for actor in actors[:-1]:
            actor.cancel()
        await asyncio.gather(*actors[:-1], return_exceptions=True)
        last = await settled(stores[0])
        async with asyncio.timeout(20):
            while not record.batches or record.batches[-1].revision < last:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    finally:
        for actor in actors:
            actor.cancel()
        results = await asyncio.gather(*actors, return_exceptions=True)
    assert all(isinstance(r, asyncio.CancelledError) for r in results), results
    await check(stores[2], record)


async def check(store: EtcdStore, record: Record) -> None:
    listing = {obj.id: obj for obj in (await store.list("task")).objects}
    written = {id: obj.meta.version for id, obj in listing.items() if id.startswith("w")}
    assert record.acknowledged.items() <= written.items(), "an acknowledged write was lost"
    assert written.keys() <= record.acknowledged.keys() | record.in_doubt
    assert len(record.acknowledged) > 100

    revisions = [batch.revision for batch in record.batches]
    assert revisions == sorted(set(revisions)), "the watch repeated itself or went back"
    watched = {e.id: b.revision for b in record.batches for e in b.events if e.id.startswith("w")}
    assert watched == written, "the watch missed writes or invented some"

    counter = listing["counter"]
    assert isinstance(counter, Task)
    assert record.counted <= counter.slot <= record.counted + record.doubted
    assert record.counted > 20
    steps = [
        e.obj.slot for b in record.batches for e in b.events if isinstance(e.obj, Task) and e.id == "counter"
    ]
    assert steps == list(range(1, counter.slot + 1)), "an increment was lost or done twice"
    created = [revision for _, revision in record.reigns]
    assert created == sorted(created)
