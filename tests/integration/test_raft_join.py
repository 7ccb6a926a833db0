"""Managers that join, are killed on the way, demoted and promoted again: real etcds, the API over mutual TLS."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import grpc.aio
import pytest

from manager import raft
from manager.etcd_process import EtcdProcess, MemberRemoved
from manager.membership import Membership
from manager.raft import Caretaker
from manager.sealer import Sealer, new_key
from manager.store import Put, StaleWrite
from manager.store.etcd import EtcdStore
from manager.store.etcd_client import Tls
from pyswarm.api import JoinRaftRequest, JoinRaftResponse
from pyswarm.clock import SystemClock
from pyswarm.errors import Conflict, Invalid, PermissionDenied
from pyswarm.objects import ManagerStatus, Node
from pyswarm.pki import Subject, issue
from pyswarm.rpc import TLS, Stub, add_service, channel, identify_tls
from pyswarm.specs import NodeSpec
from tests.etcd_rig import CLUSTER, Group, Member, free_port, manager_tls, new_root
from tests.store_contract import task, within

pytestmark = pytest.mark.root
ADDRESSES = ("10.0.0.9:2377", "10.0.0.9:2378")


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
    caretaker: Caretaker

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

        def keep(answer: JoinRaftResponse) -> None:
            Sealer(*answer.seal_keys).save(key)

        member.process = await raft.join(
            member.config, lambda: member.tls, self.ask(member), keep, ADDRESSES, notes.append, timeout=60
        )
        member.supervise()

    async def nodes(self) -> Sequence[Node]:
        return [n for n in (await self.store.list("node")).objects if isinstance(n, Node)]

    async def node(self, id: str) -> Node:
        return next(node for node in await self.nodes() if node.id == id)

    async def role(self, id: str, role: Literal["worker", "manager"]) -> None:
        """Promote or demote, as people do."""
        while True:
            with contextlib.suppress(StaleWrite):
                node = await self.node(id)
                await self.store.commit([Put(replace(node, spec=NodeSpec(role=role)))])
                self.caretaker.noticed()
                return

    async def write(self, changed: Sequence[Node]) -> None:
        with contextlib.suppress(StaleWrite):
            await self.store.commit([Put(node) for node in changed])


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncGenerator[Cluster, None]:
    group = Group(tmp_path, new_root())
    sealer = Sealer(new_key())
    server = grpc.aio.server()
    stubs: list[grpc.aio.Channel] = []
    tending: asyncio.Task[None] | None = None
    try:
        first = await group.first()
        store = group.store(first)
        await store.commit([Put(manager_node("m1"))])
        cluster = Cluster(group, first, store, sealer, "", stubs, cast("Caretaker", None))
        membership = Membership(store.client)
        cluster.caretaker = Caretaker(
            membership, cluster.nodes, cluster.write, lambda: sealer.keys, SystemClock(), period=0.2
        )
        tending = asyncio.create_task(cluster.caretaker.run())
        add_service(server, "Raft", cluster.caretaker, identify_tls)
        tls = first.tls
        credentials = grpc.ssl_server_credentials([(tls.key, tls.cert)], tls.ca, require_client_auth=True)
        port = server.add_secure_port(f"127.0.0.1:{free_port()}", credentials)
        await server.start()
        cluster.address = f"127.0.0.1:{port}"
        yield cluster
    finally:
        if tending is not None:
            assert not tending.done(), "the leader's care has ended"
            tending.cancel()
            await asyncio.gather(tending, return_exceptions=True)
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
    request = JoinRaftRequest(peer_url=member.config.peer_url)
    # Killed after it had asked for its place.
    answer: JoinRaftResponse = await ask("Raft.Join", request)
    assert {m.name for m in answer.members} == {"m1", "m2"}
    again: JoinRaftResponse = await ask("Raft.Join", request)
    assert again.member_id == answer.member_id
    # Killed after its etcd had started, before it was a voter; and then it lost its data.
    peers = {m.name: m.peer_url for m in answer.members}
    process = EtcdProcess(replace(member.config, initial_cluster=peers), member.tls)
    await process.start()
    await process.stop()
    shutil.rmtree(member.config.directory)
    await cluster.join(member)
    assert await voters(cluster.store) == ["m1", "m2"]
    assert (await Membership(cluster.store.client).find("m2")).id == raft.held(member.config)
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


async def test_nobody_joins_under_a_taken_address(cluster: Cluster) -> None:
    member = await cluster.new()
    await cluster.join(member)
    await cluster.store.commit([Put(manager_node("m7"))])
    rival = cluster.stub(manager_tls(cluster.group.root, "m7", "127.0.0.1"))
    with pytest.raises(Conflict, match="belongs to the cluster already"):
        await rival.unary("Raft.Join", JoinRaftRequest(peer_url=member.config.peer_url))


async def test_the_leader_takes_demoted_members_out_and_keeps_the_records_true(cluster: Cluster) -> None:
    member = await cluster.new()
    await cluster.join(member)
    await eventually(
        cluster, lambda node: node.manager_status is not None and bool(node.manager_status.raft_id)
    )
    status = (await cluster.node("m2")).manager_status
    assert status is not None and status.reachability == "reachable"
    assert (status.addr, status.api) == ADDRESSES, "others can find it, whatever becomes of its agent"
    await cluster.role("m2", "worker")
    assert member.supervision is not None
    with pytest.raises(MemberRemoved):
        await within(member.supervision, 15)
    await eventually(cluster, lambda node: node.manager_status is None)
    assert await voters(cluster.store) == ["m1"]


async def test_a_manager_that_was_taken_out_and_is_wanted_again_starts_from_nothing(cluster: Cluster) -> None:
    """As when it is demoted and promoted before its agent has noticed: its data are of a member that is no more."""
    member = await cluster.new()
    await cluster.join(member)
    former = raft.held(member.config)
    assert former and raft.begun(member.config) is True
    await cluster.role("m2", "worker")
    assert member.supervision is not None
    with pytest.raises(MemberRemoved):
        await within(member.supervision, 15)
    raft.removed(member.config)  # as the manager's process does then
    assert not raft.begun(member.config)
    await member.stop()
    with pytest.raises(PermissionDenied, match="m2 is not to be a manager"):
        await cluster.join(member)
    await cluster.role("m2", "manager")
    await cluster.join(member)
    assert await voters(cluster.store) == ["m1", "m2"]
    assert raft.held(member.config) not in ("", former)
    assert raft.begun(member.config)
    assert (member.config.directory / "former" / "member").exists(), "what it had is put aside"


async def test_a_manager_whose_data_are_lost_gets_a_new_member(cluster: Cluster) -> None:
    for _ in range(2):
        await cluster.join(await cluster.new())
    member = cluster.group.members[2]
    former = raft.held(member.config)
    await member.stop()
    shutil.rmtree(member.config.directory)
    await cluster.join(member)
    assert await voters(cluster.store) == ["m1", "m2", "m3"]
    assert raft.held(member.config) != former
    assert len(await Membership(cluster.store.client).members()) == 3


async def test_a_place_that_nobody_takes_is_given_to_the_next(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manager that dies between asking for its place and starting etcd leaves a learner without a name."""
    monkeypatch.setattr(raft, "LEARNER_TIME", 1.0)
    lost = await cluster.new()
    await cluster.ask(lost)("Raft.Join", JoinRaftRequest(peer_url=lost.config.peer_url))
    await cluster.join(await cluster.new())
    assert await voters(cluster.store) == ["m1", "m3"]
    assert len(await Membership(cluster.store.client).members()) == 2


async def test_a_manager_that_nobody_tells_finds_out_that_it_is_a_member_no_more(cluster: Cluster) -> None:
    """Its certificate is revoked when it is taken out, so that the others' etcds do not even speak to it."""
    for _ in range(2):
        await cluster.join(await cluster.new())
    member = cluster.group.members[1]
    watching = asyncio.create_task(
        raft.watch_place(member.config, lambda: member.tls, cluster.ask(member), period=0.2)
    )
    await member.stop()
    await Membership(cluster.store.client).remove("m2")
    # Started from its data, it reaches nobody: its etcd waits for the others without end.
    cut_off = replace(member.config, peer_port=free_port(), initial_cluster=None)
    process = EtcdProcess(cut_off, manager_tls(new_root(), "m2", "127.0.0.1"))
    starting = asyncio.create_task(process.start())
    try:
        await within(watching, 20)
    finally:
        for task in (watching, starting):
            task.cancel()
        await asyncio.gather(watching, starting, return_exceptions=True)
        await process.stop()


async def eventually(cluster: Cluster, condition: Callable[[Node], bool]) -> None:
    """Until the record of m2 is so."""
    async with asyncio.timeout(15):
        while not condition(await cluster.node("m2")):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
