"""The stores' contract over real etcd."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from manager.store import Deposed, Put, Store
from manager.store.etcd import EtcdStore
from manager.store.etcd_client import TXN
from pyswarm.errors import Unavailable
from pyswarm.pki import KeyPair
from tests.etcd_rig import Member, new_root
from tests.store_contract import Backing, StoreContract, at, task, within

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def root() -> KeyPair:
    return new_root()


@pytest.fixture
async def backing(tmp_path: Path, root: KeyPair) -> AsyncGenerator[Backing, None]:
    member = Member(tmp_path, root)
    stores: list[EtcdStore] = []

    def connect() -> Store:
        stores.append(member.store())
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
    pass


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
            for round in range(6):
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
