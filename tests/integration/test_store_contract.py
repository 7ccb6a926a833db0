"""The stores' contract over real etcd."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncGenerator, Iterable, Sequence
from pathlib import Path

import pytest

from manager.sealer import Sealer, new_key
from manager.store import Change, Delete, Deposed, Fence, Put, StaleWrite, Store
from manager.store.etcd import EtcdStore
from manager.store.etcd_client import TXN
from manager.store.memory import MemoryStore
from pyswarm.errors import Fatal, Unavailable
from pyswarm.objects import Object, kind_of
from pyswarm.pki import KeyPair
from tests.etcd_rig import Member, new_root
from tests.store_contract import Backing, StoreContract, at, service, take, task, within

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def root() -> KeyPair:
    return new_root()


@pytest.fixture
async def backing(tmp_path: Path, root: KeyPair) -> AsyncGenerator[Backing, None]:
    member = Member(tmp_path, root)
    stores: list[EtcdStore] = []
    sealer = Sealer(new_key())

    def connect() -> Store:
        stores.append(EtcdStore(member.client(), seal=sealer))
        return stores[-1]

    async def crash() -> None:
        member.kill()

    async def compact(revision: int) -> None:
        await stores[0].compact(revision)

    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(member.stop)
        await member.start()
        yield Backing(connect, crash, compact)
        for store in stores:
            await store.close()


class TestEtcdStore(StoreContract):
    """Sealed, as managers have it."""


async def test_what_was_written_before_stores_were_sealed_is_read(tmp_path: Path, root: KeyPair) -> None:
    """And what is sealed cannot be read without the key, nor with another."""
    member = Member(tmp_path, root)
    try:
        await member.start()
        plain, sealed = member.store(), EtcdStore(member.client(), seal=Sealer(new_key()))
        stranger = EtcdStore(member.client(), seal=Sealer(new_key()))
        await plain.commit([Put(task("old"))])
        await sealed.commit([Put(service("new", "name-in-clear"))])
        assert [o.id for o in (await sealed.list()).objects] == ["new", "old"]
        assert await plain.get("task", "old") == await sealed.get("task", "old")
        with pytest.raises(Fatal, match="no key to open it"):
            await plain.get("service", "new")
        with pytest.raises(Fatal, match="another key"):
            await stranger.list()
        for store in (plain, sealed, stranger):
            await store.close()
    finally:
        await member.stop()


async def test_a_commit_of_unknown_outcome_does_not_happen_after_the_next_read(
    tmp_path: Path, root: KeyPair
) -> None:
    """It may happen before; the read shows it then. Later it would make a liar of the reader."""
    member = Member(tmp_path, root)
    try:
        await member.start()
        impatient, witness = EtcdStore(member.client()), member.store()
        async with impatient.campaign("one", ttl=30) as leadership:
            version = await impatient.commit([Put(task("t"))], leadership.fence)
            pid = member.process.pid
            assert pid is not None
            for round in range(2):
                impatient.client.timeout = 5.0
                await impatient.list()
                impatient.client.timeout = 0.1
                os.kill(pid, signal.SIGSTOP)
                late = [
                    asyncio.create_task(impatient.commit([Put(task(f"r{round}n{n}"))], leadership.fence))
                    for n in range(3)
                ]
                results = await asyncio.gather(*late, return_exceptions=True)
                os.kill(pid, signal.SIGCONT)
                assert all(isinstance(result, Unavailable) for result in results)
                impatient.client.timeout = 5.0
                seen = await impatient.list()
                async with witness.watch(seen.revision) as batches:
                    version = await impatient.commit(
                        [Put(at(task("t", slot=round), version))], leadership.fence
                    )
                    batch = await within(anext(batches))
                    assert [event.id for event in batch.events] == ["t"], "an old commit came after the read"
        await impatient.close()
        await witness.close()
    finally:
        await member.stop()


async def test_a_barrier_refuses_what_was_sent_before_and_not_what_is_sent_after(
    tmp_path: Path, root: KeyPair
) -> None:
    member = Member(tmp_path, root)
    try:
        await member.start()
        store, other = member.store(), member.store()
        async with store.campaign("one", ttl=30) as leadership:
            fence = leadership.fence
            # As it would lie in some queue of etcd's while its sender gives up.
            delayed = store._transaction([Put(task("late"))], [], fence)  # pyright: ignore[reportPrivateUsage]
            store._doubtful.add(fence.key)  # pyright: ignore[reportPrivateUsage]
            await store.list()
            answer = await store.client.call(TXN, delayed)
            assert not answer.succeeded
            await store.commit([Put(task("t1"))], fence)
            await other.commit([Put(task("t2"))], fence)
            store._doubtful.add(fence.key)  # pyright: ignore[reportPrivateUsage]
            results = await asyncio.gather(
                *(store.commit([Put(task(f"p{n}"))], fence) for n in range(8)),
                *(other.commit([Put(task(f"o{n}"))], fence) for n in range(8)),
            )
            assert len(set(results)) == 16
            assert await store.leader() == "one"
        with pytest.raises(Deposed):
            await store.commit([Put(task("t3"))], fence)
        assert await store.get("task", "late") is None
        await store.close()
        await other.close()
    finally:
        await member.stop()


_NAMES = ("a", "b", "c")


def _random_changes(chance: random.Random, known: dict[tuple[str, str], Object]) -> list[Change]:
    """One to four changes of few objects and fewer names, right and wrong ones."""
    changes: list[Change] = []
    for id in chance.sample("12345", chance.randint(1, 4)):
        new = (
            service(id, chance.choice(_NAMES))
            if chance.random() < 0.7
            else task(id, slot=chance.randint(0, 9))
        )
        kind = kind_of(new)
        old = known.get((kind, id))
        right = chance.random() < 0.9
        version = (old.meta.version if old else 0) if right else chance.choice((0, 1))
        if old and chance.random() < 0.3:
            changes.append(Delete(at(old, version)))
        else:
            changes.append(Put(at(new, version)))
    return changes


async def _written(store: Store, changes: Sequence[Change], fence: Fence | None) -> bool:
    """Whether it was accepted. (Of several things that are wrong with it, either may be told.)"""
    try:
        await store.commit(changes, fence)
    except (StaleWrite, Deposed):
        return False
    return True


def _plain(objects: Iterable[Object]) -> list[Object]:
    return [at(obj, 0) for obj in objects]


@pytest.mark.parametrize("seed", range(3))
async def test_memory_and_etcd_answer_alike(backing: Backing, seed: int) -> None:
    """The fake is verified: random commits have the same outcome on both, and watches show the same."""
    chance = random.Random(seed)
    pair: tuple[Store, Store] = (backing.connect(), MemoryStore())
    batches: list[list[list[tuple[str, str, Object | None]]]] = [[], []]
    async with pair[0].campaign("x", 30) as real, pair[1].campaign("x", 30) as fake:
        fences = [real.fence, fake.fence]
        starts = [(await store.list()).revision for store in pair]
        written = 0
        for step in range(150):
            listings = [await store.list() for store in pair]
            known = [{(kind_of(o), o.id): o for o in listing.objects} for listing in listings]
            state = chance.getstate()
            outcomes: list[bool] = []
            fenced = step % 3 == 0
            for store, objects, fence in zip(pair, known, fences, strict=True):
                chance.setstate(state)
                changes = _random_changes(chance, objects)
                wrong = chance.random() < 0.1
                used = Fence(fence.key, fence.create_revision + 1) if wrong else fence
                outcomes.append(await _written(store, changes, used if fenced else None))
            assert outcomes[0] == outcomes[1], f"seed {seed}, step {step}"
            written += outcomes[0]
        assert written > 30
        assert _plain((await pair[0].list()).objects) == _plain((await pair[1].list()).objects)
        for store, start, seen in zip(pair, starts, batches, strict=True):
            async with store.watch(start) as watch:
                for batch in await take(watch, written):
                    events = [(e.kind, e.id, None if e.obj is None else at(e.obj, 0)) for e in batch.events]
                    seen.append(sorted(events, key=lambda event: event[:2]))
        assert batches[0] == batches[1]
