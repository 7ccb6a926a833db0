"""Three real etcd members on 127.0.0.x: growing, failing over, shrinking, recovering."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from manager import backup
from manager.etcd_process import MemberRemoved
from manager.membership import Membership, MemberState
from manager.store import Put, Store
from pyswarm.errors import Conflict, NotFound, Unavailable
from pyswarm.pki import KeyPair
from tests.etcd_rig import Group, new_root, three
from tests.store_contract import lead_once, service, take, task, within

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def root() -> KeyPair:
    return new_root()


@pytest.fixture
async def group(tmp_path: Path, root: KeyPair) -> AsyncGenerator[Group, None]:
    group = Group(tmp_path, root)
    try:
        yield group
    finally:
        await group.close()


async def eventually(call: Callable[[], Coroutine[Any, Any, int]], seconds: float = 10.0) -> int:
    """Until the store answers."""
    async with asyncio.timeout(seconds):
        while True:
            with contextlib.suppress(Unavailable):
                return await call()
            await asyncio.sleep(0.02)


def summary(states: list[MemberState]) -> list[tuple[str, bool, bool]]:
    return sorted((s.name, s.learner, s.reachable) for s in states)


async def test_growing_to_three_and_shrinking_to_one(group: Group) -> None:
    members = await three(group)
    membership = group.membership()
    assert summary(await membership.status()) == [(f"m{n}", False, True) for n in (1, 2, 3)]
    assert "waiting until all managers have been connected for 5 seconds" in group.said
    assert len(group.said) == len(set(group.said)) or len(group.said) <= 6
    stores = [group.store(member) for member in members]
    await stores[0].commit([Put(task("t1"))])
    for store in stores:
        assert [o.id for o in (await store.list()).objects] == ["t1"]

    # The leader goes first: the lead is handed over, and its etcd ends by itself.
    leader = await group.leader()
    rest = [m for m in members if m is not leader]
    survivors = group.membership(*rest)
    await survivors.remove(leader.config.name)
    assert leader.supervision is not None
    with pytest.raises(MemberRemoved, match="taken this one out of their group"):
        await within(leader.supervision)
    await survivors.remove(leader.config.name)
    last = rest[1]
    await group.membership(last).remove(rest[0].config.name)
    assert summary(await group.membership(last).status()) == [(last.config.name, False, True)]
    await eventually(lambda: group.store(last).commit([Put(task(f"t{time.monotonic_ns()}"))]))
    with pytest.raises(Conflict, match="the last manager"):
        await group.membership(last).remove(last.config.name)


async def test_leader_is_killed_and_writes_go_on(group: Group) -> None:
    members = await three(group)
    leader = await group.leader()
    others = [m for m in members if m is not leader]
    store = group.store(leader, *others)
    candidate = group.store(*others)
    async with contextlib.AsyncExitStack() as stack:
        batches = await stack.enter_async_context(store.watch((await store.list()).revision))
        revisions = [await store.commit([Put(task(f"a{n}"))]) for n in range(20)]
        await leader.process.stop()  # no supervisor brings it back
        start = time.monotonic()
        revisions.append(await eventually(lambda: candidate.commit([Put(task("after"))])))
        taken = time.monotonic() - start
        assert taken < 20.0, f"{taken:.2f} s until the next write"
        seen = await take(batches, 21)
        assert [batch.revision for batch in seen] == revisions
        assert [e.id for b in seen for e in b.events] == [*(f"a{n}" for n in range(20)), "after"]


async def test_campaign_moves_when_a_manager_dies_with_its_etcd(group: Group) -> None:
    members = await three(group)
    leader = await group.leader()
    others = [m for m in members if m is not leader]
    here, there = group.store(leader), group.store(*others)

    async def lead_until_lost(store: Store) -> None:
        async with store.campaign("here") as leadership:
            await leadership.lost()

    leading = asyncio.create_task(lead_until_lost(here))
    async with asyncio.timeout(5):
        while await there.leader() != "here":  # noqa: ASYNC110 - the other side of a race, asked politely
            await asyncio.sleep(0.02)
    waiting = asyncio.create_task(lead_once(there, "there"))
    assert leader.process.pid is not None
    os.kill(leader.process.pid, signal.SIGSTOP)
    start = time.monotonic()
    try:
        assert await within(waiting, 30.0) == "there"
        taken = time.monotonic() - start
        assert taken < 20.0, f"{taken:.2f} s until the next leader"
        await within(leading, 30.0)
    finally:
        os.kill(leader.process.pid, signal.SIGCONT)


async def test_cut_off_member_hands_its_clients_to_the_others(group: Group) -> None:
    """A member without a leader refuses; the client goes on elsewhere, watch included."""
    members = await three(group)
    store = group.store(*members)
    async with store.watch((await store.list()).revision) as batches:
        first = await store.commit([Put(task("t1"))])
        pid = members[0].process.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            second = await eventually(lambda: store.commit([Put(task(f"n{time.monotonic_ns()}"))]), 15)
            assert [o.id for o in (await store.list()).objects if o.id == "t1"] == ["t1"]
            seen = [(await within(anext(batches), 15)).revision]
            while seen[-1] < second:
                seen.append((await within(anext(batches), 15)).revision)
            assert seen[0] == first and seen[-1] == second
        finally:
            os.kill(pid, signal.SIGCONT)


async def test_without_a_quorum_nothing_is_written_and_the_error_says_so(group: Group) -> None:
    members = await three(group)
    store = group.store(members[0])
    await store.commit([Put(task("t1"))])
    for member in members[1:]:
        await member.stop()
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await within(store.commit([Put(task("t2"))]), 8)
    with pytest.raises(Unavailable, match="no quorum"):
        async with asyncio.timeout(15):
            while True:
                await members[0].process.wait_ready(timeout=0.5)
                await asyncio.sleep(0.1)
    # The way out that the message names: go on alone, with everything that was acknowledged.
    await members[0].stop()
    await members[0].start(force_new_cluster=True)
    assert summary(await group.membership(members[0]).status()) == [("m1", False, True)]
    assert [o.id for o in (await store.list()).objects if o.id == "t1"] == ["t1"]
    await store.commit([Put(task("t3"))])


async def test_join_that_never_starts_can_be_repeated_or_removed(group: Group) -> None:
    first = await group.first()
    membership = group.membership(first)
    plan = await membership.add("m2", "https://127.0.0.12:1")
    assert plan.initial_cluster == {"m1": first.config.peer_url, "m2": "https://127.0.0.12:1"}
    assert await membership.add("m2", "https://127.0.0.12:1") == plan
    with pytest.raises(Unavailable, match="another manager that is joining"):
        await membership.add("m3", "https://127.0.0.13:1", timeout=0.5)
    with pytest.raises(Unavailable, match=r"waiting until|cannot change"):
        await membership.promote(plan.member_id, timeout=0.5)
    await group.store(first).commit([Put(task("t1"))])  # the learner does not count
    await membership.remove(plan.member_id)
    assert [m.name for m in await membership.members()] == ["m1"]


async def test_member_that_is_known_already_is_refused(group: Group) -> None:
    first = await group.first()
    membership = group.membership(first)
    for name, url in (("m1", "https://127.0.0.12:1"), ("m9", first.config.peer_url)):
        with pytest.raises(Conflict, match="belongs to the cluster already"):
            await membership.add(name, url)
    with pytest.raises(NotFound, match="not one of the managers"):
        await membership.find("m7")
    await membership.remove("m7")


async def test_endpoints_are_the_voters_with_ours_first(group: Group) -> None:
    first = await group.first()
    second = await group.join()
    await group.membership().add("m3", "https://127.0.0.13:1")
    endpoints = await group.membership().endpoints(second.config.local_endpoint)
    assert endpoints == [
        second.config.local_endpoint,
        *sorted([first.config.client_endpoint, second.config.client_endpoint], key=endpoints.index),
    ]


async def test_client_follows_the_managers_that_come_and_go(group: Group) -> None:
    first = await group.first()
    store = group.store(first)
    following = asyncio.create_task(Membership(store.client).follow(first.config.local_endpoint, 0.05))
    try:
        second = await group.join()
        async with asyncio.timeout(5):
            while second.config.client_endpoint not in store.client.endpoints:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert store.client.endpoints[0] == first.config.local_endpoint
        await store.commit([Put(task("t1"))])
        await group.membership(second).remove("m1")
        await eventually(lambda: store.commit([Put(task(f"n{time.monotonic_ns()}"))]))
        async with asyncio.timeout(5):
            while first.config.client_endpoint in store.client.endpoints:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_backup_is_restored_into_a_new_cluster(group: Group, tmp_path: Path) -> None:
    first = await group.first()
    store = group.store(first)
    for part in range(3):
        await store.commit([Put(service(f"s{part}{n}", f"web{part}{n}")) for n in range(700)])
    taken = await backup.take(store, 12.5, [b"k" * 32])
    backup.save(taken, tmp_path / "backup")
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o600

    other = group.new_member()
    await other.start()
    fresh = group.store(other)
    loaded = backup.load(tmp_path / "backup")
    assert loaded.seal_keys == (b"k" * 32,)
    await backup.restore(fresh, loaded)
    assert {o.id for o in (await fresh.list()).objects} == {o.id for o in taken.objects}
    with pytest.raises(Conflict, match="named 'web00' exists"):
        await fresh.commit([Put(service("new", "web00"))])
    with pytest.raises(Conflict, match="empty cluster"):
        await backup.restore(fresh, loaded)
