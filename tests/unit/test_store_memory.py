"""The in-memory store: the contract of all stores, and its faults."""

from __future__ import annotations

import asyncio

import pytest

from manager.store import Put
from manager.store.memory import MemoryServer, MemoryStore
from pyswarm.errors import Unavailable
from tests.store_contract import Backing, StoreContract, lead_once, take, task, within


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()


@pytest.fixture
def backing(server: MemoryServer) -> Backing:
    async def crash() -> None:
        server.set_down(True)
        await asyncio.sleep(0)
        server.set_down(False)

    async def compact(revision: int) -> None:
        server.compact(revision)

    return Backing(lambda: MemoryStore(server), crash, compact)


class TestMemoryStore(StoreContract):
    pass


async def test_cut_off_manager_fails_and_its_watch_catches_up(server: MemoryServer) -> None:
    far, near = MemoryStore(server), MemoryStore(server)
    async with far.watch(0) as batches:
        far.cut()
        with pytest.raises(Unavailable):
            await far.list()
        revision = await near.commit([Put(task("t1"))])
        waiting = asyncio.ensure_future(anext(batches))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done()
        far.heal()
        assert (await within(waiting)).revision == revision
    assert len((await far.list()).objects) == 1


async def test_lease_of_a_cut_off_leader_runs_out(server: MemoryServer) -> None:
    far, near = MemoryStore(server), MemoryStore(server)
    async with far.campaign("far", ttl=0.01) as leadership:
        next_leader = asyncio.create_task(lead_once(near, "near"))
        far.cut()
        await within(leadership.lost())
        assert await within(next_leader) == "near"


async def test_lease_is_kept_when_the_cut_heals_in_time(server: MemoryServer) -> None:
    store = MemoryStore(server)
    async with store.campaign("one", ttl=0.2) as leadership:
        store.cut()
        store.heal()
        with pytest.raises(TimeoutError):
            await within(leadership.lost(), 0.25)
        await store.commit([Put(task("t1"))], leadership.fence)


async def test_expired_candidate_is_lost_at_once(server: MemoryServer) -> None:
    store = MemoryStore(server)
    async with store.campaign("one") as leadership:
        server.expire("one")
        await within(leadership.lost())
    assert server.leader is None


async def test_lost_answer_hides_a_commit_that_happened(server: MemoryServer) -> None:
    store = MemoryStore(server)
    store.lose_answers()
    with pytest.raises(Unavailable, match="not known"):
        await store.commit([Put(task("t1"))])
    assert await store.get("task", "t1") is not None


async def test_refused_commit_did_not_happen(server: MemoryServer) -> None:
    store = MemoryStore(server)
    store.refuse(Unavailable("no leader"))
    with pytest.raises(Unavailable, match="no leader"):
        await store.commit([Put(task("t1"))])
    assert await store.get("task", "t1") is None


async def test_server_down_fails_all_and_keeps_leases(server: MemoryServer) -> None:
    store = MemoryStore(server)
    async with store.campaign("one", ttl=0.01) as leadership:
        server.set_down(True)
        for call in (store.list(), store.get("task", "t"), store.commit([]), store.leader()):
            with pytest.raises(Unavailable):
                await call
        server.set_down(False)
        await store.commit([], leadership.fence)


async def test_latency_is_waited_for(server: MemoryServer) -> None:
    store = MemoryStore(server)
    asked: list[int] = []
    store.latency = lambda: float(asked.append(1) or 0)  # type: ignore[func-returns-value]
    await store.commit([Put(task("t1"))])
    assert len(asked) == 2
    async with store.watch(0) as batches:
        await take(batches, 1)
    assert len(asked) == 3
