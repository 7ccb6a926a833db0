"""A manager's way into and out of the Raft group, over the managers' API; and who of them is well.

Joining: ask any manager for a place as a learner (and for the key that secrets are sealed under), start etcd
with what it answers, ask to be made a voter. Each step may be repeated, after a kill at any moment. Leaving,
or being demoted or removed: the member is taken out, and its etcd ends by itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from manager.etcd_process import EtcdConfig, EtcdProcess
from manager.membership import Membership, MemberState
from manager.sealer import Sealer
from manager.store import Store
from manager.store.etcd_client import STATUS, EtcdClient, Tls
from manager.store.etcd_pb import rpc_pb2 as pb
from pyswarm.api import (
    Empty,
    JoinRaftRequest,
    JoinRaftResponse,
    PromoteRaftRequest,
    RaftMember,
)
from pyswarm.errors import Conflict, Invalid, PermissionDenied, Unavailable
from pyswarm.objects import ManagerStatus, Node
from pyswarm.rpc import Peer

log = logging.getLogger(__name__)

Ask = Callable[[str, object], Awaitable[Any]]
"""Calls a method of the API (`Raft.Join`) on any other manager; `Any` is that method's response."""

_PATIENCE = 4.0
"""Seconds that one request waits for the group to be ready for a change; the asking side repeats it."""
_RETRY = 0.3
_JOIN_TIME = 180.0
TEND_PERIOD = 2.0
LONE = 5
"""How many periods pass between two looks at the Raft group while it has one manager, who would not lead were it
not well."""


class RaftService:
    """The gRPC service `Raft`, on every manager; callers are managers by their certificates."""

    def __init__(self, membership: Membership, store: Store, sealer: Sealer) -> None:
        self._membership = membership
        self._store = store
        self._sealer = sealer

    async def join(self, request: JoinRaftRequest, peer: Peer) -> JoinRaftResponse:
        await self._check(peer)
        url = urlsplit(request.peer_url)
        if url.scheme != "https" or not url.hostname or not url.port:
            raise Invalid(
                f"{request.peer_url!r} is not an address for etcd: it has the form https://host:port"
            )
        plan = await self._membership.add(peer.node_id, request.peer_url, timeout=_PATIENCE)
        members = [RaftMember(name=name, peer_url=url) for name, url in sorted(plan.initial_cluster.items())]
        return JoinRaftResponse(
            member_id=plan.member_id, members=tuple(members), seal_keys=tuple(self._sealer.keys)
        )

    async def promote(self, request: PromoteRaftRequest, peer: Peer) -> Empty:
        await self._check(peer)
        found = await self._membership.find(request.member_id)
        if not found.name:
            raise Unavailable("the new manager's etcd has not told the others its name yet")
        if found.name != peer.node_id:
            raise PermissionDenied(f"the member {request.member_id} is not the caller's")
        await self._membership.promote(request.member_id, timeout=_PATIENCE)
        return Empty()

    async def leave(self, request: Empty, peer: Peer) -> Empty:
        await self._membership.remove(peer.node_id, timeout=_PATIENCE)
        return Empty()

    async def _check(self, peer: Peer) -> None:
        """A certificate outlives a demotion; the node's record does not. Raises PermissionDenied."""
        node = await self._store.get("node", peer.node_id)
        if not isinstance(node, Node) or node.spec.role != "manager":
            raise PermissionDenied(f"node {peer.node_id} is not to be a manager (any more)")


async def join(
    config: EtcdConfig,
    tls: Tls,
    ask: Ask,
    seal_key: Path,
    progress: Callable[[str], None] = log.info,
    timeout: float = _JOIN_TIME,
) -> EtcdProcess:
    """Make this manager a voter: the way from nothing, and from wherever a former attempt was killed.

    Returns the running etcd, which the caller supervises and stops. Raises what the others answered:
    Conflict, PermissionDenied, or Unavailable when it took longer than `timeout`.
    """
    if not begun(config):
        answer: JoinRaftResponse = await _insist(
            lambda: ask("Raft.Join", JoinRaftRequest(peer_url=config.peer_url)), progress, timeout
        )
        Sealer(*answer.seal_keys).save(seal_key)
        config = replace(config, initial_cluster={m.name: m.peer_url for m in answer.members})
    process = EtcdProcess(config, tls)
    await process.start()
    try:
        await ensure_voter(config, tls, ask, progress, timeout)
    except BaseException:
        await process.stop()
        raise
    return process


async def leave(ask: Ask, progress: Callable[[str], None] = log.info, timeout: float = _JOIN_TIME) -> None:
    """Take this manager out of the group. Its etcd ends by itself, and its supervision with MemberRemoved."""
    await _insist(lambda: ask("Raft.Leave", Empty()), progress, timeout)


def begun(config: EtcdConfig) -> bool:
    """Whether this manager's etcd has run before: then its own data say whom it belongs to."""
    return (config.directory / "begun").exists()


async def ensure_voter(
    config: EtcdConfig,
    tls: Tls,
    ask: Ask,
    progress: Callable[[str], None] = log.info,
    timeout: float = _JOIN_TIME,
) -> None:
    """Have this running member promoted if it is a learner still."""
    client = EtcdClient([config.local_endpoint], tls)
    try:
        member_id = await _own_learner(client, config, timeout)
        if member_id is not None:
            request = PromoteRaftRequest(member_id=member_id)
            await _insist(lambda: ask("Raft.Promote", request), progress, timeout)
    finally:
        await client.close()


async def _own_learner(client: EtcdClient, config: EtcdConfig, timeout: float) -> str | None:
    """The id of our own member while it is a learner. (A learner answers only what it can answer alone.)"""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while True:
        try:
            status = await client.call_member(config.local_endpoint, STATUS, pb.StatusRequest())
            if status.leader:
                break
        except Unavailable:
            if loop.time() > deadline:
                raise
        if loop.time() > deadline:
            raise Unavailable("the managers have no leader: start the others, or try again later")
        await asyncio.sleep(_RETRY)
    if not status.isLearner:
        return None
    return f"{status.header.member_id:x}"


async def _insist(call: Callable[[], Awaitable[Any]], progress: Callable[[str], None], timeout: float) -> Any:
    """Repeat a call while the others are not ready, saying why once for each reason."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    said = ""
    while True:
        try:
            return await call()
        except Unavailable as error:
            if loop.time() > deadline:
                raise
            if str(error) != said:
                said = str(error)
                progress(said)
        await asyncio.sleep(_RETRY)


# ------------------------------------------------------------------------------------ the leader's duty


def superfluous(members: Iterable[MemberState], nodes: Sequence[Node]) -> list[MemberState]:
    """Members whose nodes were removed or demoted, by id. None while nothing is known of the nodes, and
    never the last voter: a mistake here would cost the cluster its quorum."""
    managers = {node.id for node in nodes if node.spec.role == "manager"}
    members = list(members)
    going = [m for m in members if m.name and m.name not in managers]
    staying = [m for m in members if m not in going and not m.learner]
    return sorted(going, key=lambda m: m.id) if managers and staying else []


def with_health(nodes: Sequence[Node], members: Sequence[MemberState]) -> list[Node]:
    """The manager nodes whose record says something else of their Raft member than is true now."""
    by_name = {member.name: member for member in members}
    changed: list[Node] = []
    for node in nodes:
        member = by_name.get(node.id)
        if node.manager_status is None and (member is None or member.learner):
            continue
        if node.spec.role != "manager":
            status = None
        elif member is None or member.learner:
            status = _gone(node.manager_status)
        else:
            old = node.manager_status if node.manager_status is not None else ManagerStatus()
            reach = "reachable" if member.reachable else "unreachable"
            status = replace(old, raft_id=member.id, reachability=reach)
        if status != node.manager_status:
            changed.append(replace(node, manager_status=status, role=node.spec.role))
    return changed


def _gone(status: ManagerStatus | None) -> ManagerStatus | None:
    """Of a manager that is a member no more (or not yet: then nothing is known of it)."""
    return replace(status, reachability="unreachable") if status is not None and status.raft_id else status


async def tend(
    membership: Membership,
    nodes: Callable[[], Awaitable[Sequence[Node]]],
    write: Callable[[Sequence[Node]], Awaitable[None]],
    period: float = TEND_PERIOD,
) -> None:
    """The leader's loop: take out the members of nodes that are no managers any more, and keep the records'
    health true. `nodes` reads the node records, `write` stores changed ones (compare-and-set)."""
    known: set[str] = set()
    rounds = 0
    while True:
        try:
            records = await nodes()
            managers = {node.id for node in records if node.spec.role == "manager"}
            rounds = 0 if managers != known or len(managers) > 1 else (rounds + 1) % LONE
            if rounds == 0:
                await _tend(membership, records, write, period)
                known = managers
        except (Unavailable, Conflict) as error:
            log.warning("the managers' health is not known: %s", error)
        await asyncio.sleep(period)


async def _tend(
    membership: Membership,
    records: Sequence[Node],
    write: Callable[[Sequence[Node]], Awaitable[None]],
    period: float,
) -> None:
    members = await membership.status()
    for member in superfluous(members, records):
        log.info("node %s is not a manager any more: removing it from Raft", member.name)
        await membership.remove(member.id, timeout=period)
    changed = with_health(records, members)
    if changed:
        await write(changed)
