"""Managers that join, are killed on the way, leave and are demoted: real etcds, the API over mutual TLS."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from manager import raft
from manager.etcd_process import EtcdProcess, MemberRemoved
from manager.membership import Membership
from manager.raft import RaftService
from manager.sealer import Sealer, new_key
from manager.store import Put, Store
from manager.store.etcd import EtcdStore
from manager.store.etcd_client import Tls
from pyswarm.api import JoinRaftRequest, JoinRaftResponse, PromoteRaftRequest
from pyswarm.errors import Conflict, Invalid, PermissionDenied, Unavailable
from pyswarm.objects import ManagerStatus, Node
from pyswarm.pki import Subject, issue
from pyswarm.rpc import TLS, Stub, add_service, channel, identify_tls
from pyswarm.specs import NodeSpec
from tests.etcd_rig import CLUSTER, Group, Member, free_port, manager_tls, new_root
from tests.store_contract import task, within

pytestmark = pytest.mark.root


def manager_node(id: str) -> Node:
    return Node(id=id, role="manager", spec=NodeSpec(role="manager"), manager_status=ManagerStatus())


@dataclass
class Cluster:
    """A first manager with its API; the others call it with their own certificates."""

    group: Group
    first: Member
    store: EtcdStore
    sealer: Sealer
    address: str
    stubs: list[grpc.aio.Channel]

    def stub(self, tls: Tls) -> Stub:
        self.stubs.append(channel(f"ipv4:{self.address}", tls=TLS(tls.ca, tls.cert, tls.key)))
        return Stub(self.stubs[-1])

    async def new(self, *, record: bool = True) -> Member:
        member = self.group.new_member()
        if record:
            await self.store.commit([Put(manager_node(member.config.name))])
        return member

    def ask(self, member: Member) -> raft.Ask:
        stub = self.stub(member.tls)

        async def ask(name: str, request: object) -> Any:
            return await stub.unary(name, request, wait=True)

        return ask

    async def join(self, member: Member, said: list[str] | None = None) -> None:
        notes = said if said is not None else []
        key = member.config.directory.parent / f"{member.config.name}.key"
        member.process = await raft.join(
            member.config, member.tls, self.ask(member), key, notes.append, timeout=60
        )
        member.supervise()


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncGenerator[Cluster, None]:
    group = Group(tmp_path, new_root())
    sealer = Sealer(new_key())
    server = grpc.aio.server()
    stubs: list[grpc.aio.Channel] = []
    try:
        first = await group.first()
        store = group.store(first)
        await store.commit([Put(manager_node("m1"))])
        service = RaftService(Membership(store.client), store, sealer)
        add_service(server, "Raft", service, identify_tls)
        tls = first.tls
        credentials = grpc.ssl_server_credentials([(tls.key, tls.cert)], tls.ca, require_client_auth=True)
        port = server.add_secure_port(f"127.0.0.1:{free_port()}", credentials)
        await server.start()
        yield Cluster(group, first, store, sealer, f"127.0.0.1:{port}", stubs)
    finally:
        for stub in stubs:
            await stub.close(None)
        await server.stop(None)
        await group.close()


async def voters(store: EtcdStore) -> list[str]:
    states = await Membership(store.client).status()
    return sorted(state.name for state in states if not state.learner and state.reachable)


async def test_three_managers_join_and_share_the_sealing_key(cluster: Cluster) -> None:
    said: list[str] = []
    for name in ("m2", "m3"):
        member = await cluster.new()
        await cluster.join(member, said)
        key = Sealer.load(member.config.directory.parent / f"{name}.key")
        assert key.open(cluster.sealer.seal(b"secret")) == b"secret"
    assert await voters(cluster.store) == ["m1", "m2", "m3"]
    assert any("connected for 5 seconds" in text for text in said)
    assert len(said) == len(set(said))
    local = cluster.group.store(cluster.group.members[2])
    await local.commit([Put(task("t1"))])
    assert await cluster.store.get("task", "t1") is not None


async def test_a_join_that_was_killed_goes_on_where_it_stood(cluster: Cluster) -> None:
    member = await cluster.new()
    ask = cluster.ask(member)
    # Killed after it had asked for its place.
    answer: JoinRaftResponse = await ask("Raft.Join", JoinRaftRequest(peer_url=member.config.peer_url))
    assert {m.name for m in answer.members} == {"m1", "m2"}
    # Killed after its etcd had started, before it was a voter.
    peers = {m.name: m.peer_url for m in answer.members}
    process = EtcdProcess(replace(member.config, initial_cluster=peers), member.tls)
    await process.start()
    await process.stop()
    assert await voters(cluster.store) == ["m1"]
    await cluster.join(member)
    assert await voters(cluster.store) == ["m1", "m2"]
    # And a manager that is a voter just starts.
    await member.stop()
    await cluster.join(member)
    assert await voters(cluster.store) == ["m1", "m2"]


async def test_only_managers_with_a_record_may_join(cluster: Cluster) -> None:
    stranger = await cluster.new(record=False)
    with pytest.raises(PermissionDenied, match="m2 is not to be a manager"):
        await cluster.join(stranger)
    root = cluster.group.root
    pair = issue(root, Subject("w1", "worker", CLUSTER), time.time())
    stub = cluster.stub(Tls(root.cert, pair.cert, pair.key))
    with pytest.raises(PermissionDenied, match="not for the role 'worker'"):
        await stub.unary("Raft.Join", JoinRaftRequest(peer_url="https://127.0.0.99:1"))
    member = await cluster.new()
    for url in ("", "http://127.0.0.1:1", "https://127.0.0.1", "nonsense"):
        with pytest.raises(Invalid, match="is not an address for etcd"):
            await cluster.ask(member)("Raft.Join", JoinRaftRequest(peer_url=url))
    assert len(await Membership(cluster.store.client).members()) == 1


async def test_nobody_promotes_another_or_joins_under_a_taken_address(cluster: Cluster) -> None:
    member = await cluster.new()
    await cluster.join(member)
    own = (await Membership(cluster.store.client).find("m1")).id
    with pytest.raises(PermissionDenied, match="is not the caller's"):
        await cluster.ask(member)("Raft.Promote", PromoteRaftRequest(member_id=own))
    await cluster.store.commit([Put(manager_node("m7"))])
    rival = cluster.stub(manager_tls(cluster.group.root, "m7", "127.0.0.1"))
    with pytest.raises(Conflict, match="belongs to the cluster already"):
        await rival.unary("Raft.Join", JoinRaftRequest(peer_url=member.config.peer_url))


async def test_leaving_ends_the_member(cluster: Cluster) -> None:
    member = await cluster.new()
    await cluster.join(member)
    await raft.leave(cluster.ask(member), timeout=20)
    assert member.supervision is not None
    with pytest.raises(MemberRemoved):
        await within(member.supervision)
    await within(settle(cluster.store))
    assert await voters(cluster.store) == ["m1"]
    # A new one may take its place.
    other = await cluster.new()
    await cluster.join(other)
    assert await voters(cluster.store) == ["m1", "m3"]


async def settle(store: Store) -> None:
    while True:
        with contextlib.suppress(Unavailable):
            await store.commit([])
            return
        await asyncio.sleep(0.02)


async def test_the_leader_takes_demoted_members_out_and_keeps_the_records_true(cluster: Cluster) -> None:
    member = await cluster.new()
    await cluster.join(member)
    written = asyncio.Event()

    async def nodes() -> Sequence[Node]:
        return [n for n in (await cluster.store.list("node")).objects if isinstance(n, Node)]

    async def write(changed: Sequence[Node]) -> None:
        await cluster.store.commit([Put(node) for node in changed])
        written.set()

    tending = asyncio.create_task(raft.tend(Membership(cluster.store.client), nodes, write, 0.1))
    try:
        await within(written.wait())
        found = {n.id: n for n in await nodes()}
        status = found["m2"].manager_status
        assert status is not None and status.reachability == "reachable" and status.raft_id
        await cluster.store.commit([Put(replace(found["m2"], spec=NodeSpec(role="worker")))])
        assert member.supervision is not None
        with pytest.raises(MemberRemoved):
            await within(member.supervision, 15)
        async with asyncio.timeout(10):
            while {n.id: n for n in await nodes()}["m2"].manager_status is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    finally:
        tending.cancel()
        await asyncio.gather(tending, return_exceptions=True)
