"""The managers' Raft group: who belongs to it, growing and shrinking it, its health and upkeep.

A manager joins as a learner, which counts for nothing until it has caught up, and is then promoted to a
voter; so a join that fails on the way does no harm. etcd refuses the next change until all members have been
connected for five seconds: that is waited for, and said.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar
from urllib.parse import urlsplit

from manager.store.etcd_client import (
    ALARM,
    COMPACT,
    DEFRAGMENT,
    MEMBER_ADD,
    MEMBER_LIST,
    MEMBER_PROMOTE,
    MEMBER_REMOVE,
    MEMBER_UPDATE,
    MOVE_LEADER,
    RANGE,
    STATUS,
    EtcdClient,
)
from manager.store.etcd_pb import rpc_pb2 as pb
from pyswarm.errors import Conflict, NotFound, PyswarmError, Unavailable

log = logging.getLogger(__name__)
ResultT = TypeVar("ResultT")
Progress = Callable[[str], None]
"""Told, in a sentence for people, what is being waited for; each sentence once."""

_RETRY = 0.1
_DEFRAGMENT_TIME = 300.0
ROOM_CHECK = 10.0
"""Seconds between two looks at whether the store has reached its quota."""
_WAITS = (
    ("unhealthy cluster", "waiting until all managers have been connected for 5 seconds"),
    ("not enough started members", "waiting until the manager that joined last has started"),
    ("which is in sync with leader", "waiting until the new manager has caught up with the others"),
    ("too many learner members", "waiting until another manager that is joining has done so"),
    ("no leader", "waiting for the managers to elect a leader"),
)


@dataclass(frozen=True, slots=True)
class MemberState:
    """One manager's etcd. What `reachable` and after says is unknown unless it came from `status`."""

    id: str
    """Hexadecimal, as in `ManagerStatus.raft_id`."""
    name: str
    """The node's id; "" until it has started for the first time."""
    peer_url: str
    endpoint: str
    """host:port of its client API; "" until it has started."""
    learner: bool
    reachable: bool = False
    leader: bool = False
    version: str = ""
    db_size: int = 0
    """Bytes on disk."""
    db_used: int = 0
    errors: tuple[str, ...] = ()
    """Alarms: `NOSPACE`, `CORRUPT`."""


@dataclass(frozen=True, slots=True)
class JoinPlan:
    """What a joining manager needs for its EtcdConfig, and its id for the promotion."""

    member_id: str
    initial_cluster: Mapping[str, str]


class Membership:
    """The Raft group as seen and changed through any of its members."""

    def __init__(self, client: EtcdClient) -> None:
        self._client = client

    # ---------------------------------------------------------------------------------------- looking

    async def members(self) -> list[MemberState]:
        """By id, with nothing known of their health."""
        answer = await self._client.call(
            MEMBER_LIST, pb.MemberListRequest(linearizable=True), repeatable=True
        )
        return sorted((_state(member) for member in answer.members), key=lambda m: m.id)

    async def status(self, timeout: float = 1.0) -> list[MemberState]:
        """All members with their health, each asked directly and at the same time."""
        members = await self.members()
        return list(await asyncio.gather(*(self._ask(member, timeout) for member in members)))

    async def _ask(self, member: MemberState, timeout: float) -> MemberState:
        if not member.endpoint:
            return member
        try:
            answer = await self._client.call_member(member.endpoint, STATUS, pb.StatusRequest(), timeout)
        except PyswarmError:
            return member
        return replace(
            member,
            reachable=answer.leader != 0,
            leader=f"{answer.leader:x}" == member.id,
            version=answer.version,
            db_size=answer.dbSize,
            db_used=answer.dbSizeInUse,
            errors=tuple(answer.errors),
        )

    async def endpoints(self, first: str = "") -> list[str]:
        """The voters' client addresses for `EtcdClient.configure`, our own (`first`) before the others."""
        voters = [m.endpoint for m in await self.members() if m.endpoint and not m.learner]
        return list(dict.fromkeys([*([first] if first else []), *voters]))

    async def follow(self, own: str, period: float = 5.0) -> None:
        """Keep the client's endpoints those of the voters, `own` first, for ever: managers come and go."""
        while True:
            try:
                endpoints = await self.endpoints(own)
                if tuple(endpoints) != self._client.endpoints:
                    await self._client.configure(endpoints)
            except Unavailable as error:
                log.debug("the managers' addresses are not known: %s", error)
            await asyncio.sleep(period)

    async def find(self, member: str) -> MemberState:
        """By id or name. Raises NotFound."""
        for found in await self.members():
            if member in (found.id, found.name):
                return found
        raise NotFound(f"{member} is not one of the managers")

    # --------------------------------------------------------------------------------------- changing

    async def add(
        self, name: str, peer_url: str, progress: Progress | None = None, timeout: float = 60.0
    ) -> JoinPlan:
        """Make room for a manager as a learner. May be repeated for the same one. Raises Conflict when the
        name or address is a full member's, Unavailable when the others are not healthy in time."""

        async def once() -> JoinPlan:
            members = await self.members()
            known = next((m for m in members if peer_url == m.peer_url or name == m.name), None)
            if known is None:
                request = pb.MemberAddRequest(peerURLs=[peer_url], isLearner=True)
                answer = await self._client.call(MEMBER_ADD, request)
                return plan(f"{answer.member.ID:x}", name, map(_state, answer.members))
            if not known.learner or known.peer_url != peer_url or known.name not in ("", name):
                raise Conflict(
                    f"a manager {known.name or known.id} at {known.peer_url} belongs to the cluster already: "
                    f"remove it first with `pyswarm node demote {known.name or known.id}`"
                )
            return plan(known.id, name, members)

        return await _persist(once, progress, timeout)

    async def promote(self, member_id: str, progress: Progress | None = None, timeout: float = 120.0) -> None:
        """Make a learner a voter once it has caught up. Harmless when it is one."""

        async def once() -> None:
            if not (await self.find(member_id)).learner:
                return
            await self._client.call(MEMBER_PROMOTE, pb.MemberPromoteRequest(ID=int(member_id, 16)))

        await _persist(once, progress, timeout)

    async def remove(self, member: str, progress: Progress | None = None, timeout: float = 60.0) -> None:
        """Take a member (id or name) out; its etcd ends by itself. Harmless when it is out. The lead, if it
        has it, is handed over first. Raises Conflict for the last voter."""

        async def once() -> None:
            try:
                found = await self.find(member)
            except NotFound:
                return
            states = await self.status()
            voters = [s for s in states if not s.learner and s.id != found.id]
            if not found.learner and not voters:
                raise Conflict("the last manager cannot be removed: use `pyswarm leave --force` on it")
            await self._hand_over(found, states)
            await self._client.call(MEMBER_REMOVE, pb.MemberRemoveRequest(ID=int(found.id, 16)))

        await _persist(once, progress, timeout)

    async def _hand_over(self, leaving: MemberState, states: Sequence[MemberState]) -> None:
        """Let another voter lead, so that the removal does not cost an election time-out."""
        leads = next((s for s in states if s.leader), None)
        heirs = [s for s in states if s.reachable and not s.learner and s.id != leaving.id]
        if leads is None or leads.id != leaving.id or not heirs:
            return
        request = pb.MoveLeaderRequest(targetID=int(heirs[0].id, 16))
        await self._client.call_member(leads.endpoint, MOVE_LEADER, request)

    async def move(self, member_id: str, peer_url: str) -> None:
        """A member's address has changed (after a recovery on another network)."""
        request = pb.MemberUpdateRequest(ID=int(member_id, 16), peerURLs=[peer_url])
        await self._client.call(MEMBER_UPDATE, request)

    # ------------------------------------------------------------------------------------------ upkeep

    async def keep_room(self, own: str, period: float = ROOM_CHECK) -> None:
        """Make room for ever, whenever the store has reached its quota: it takes no writes until then. The managers
        all do this; the one whose member (`own`, host:port) leads Raft acts."""
        while True:
            try:
                if "NOSPACE" in (await self.alarms()).values() and await self._leads(own):
                    log.error("the store has reached its disk quota and takes no writes: making room")
                    await self.make_room()
                    log.warning("there is room in the store again")
            except PyswarmError as error:
                log.warning("no room could be made in the store: %s", error)
            await asyncio.sleep(period)

    async def _leads(self, endpoint: str) -> bool:
        answer = await self._client.call_member(endpoint, STATUS, pb.StatusRequest())
        return answer.leader == answer.header.member_id

    async def make_room(self) -> None:
        """Forget all but the present state, give the space back, and let writes in again."""
        answer = await self._client.call(RANGE, pb.RangeRequest(key=b"/", count_only=True), repeatable=True)
        request = pb.CompactionRequest(revision=answer.header.revision, physical=True)
        with contextlib.suppress(PyswarmError):  # somebody else has just done it
            await self._client.call(COMPACT, request)
        await self.defragment()

    async def defragment(self) -> None:
        """Give freed disk space back, one member after the other, the leader last (each stands still for
        about a second per 100 MB), then lift the alarm of a full store where there is room again."""
        for member in sorted(await self.status(), key=lambda m: m.leader):
            if member.endpoint and member.reachable:
                await self._client.call_member(
                    member.endpoint, DEFRAGMENT, pb.DefragmentRequest(), _DEFRAGMENT_TIME
                )
        for member_id, alarm in (await self.alarms()).items():
            if alarm == "NOSPACE":
                request = pb.AlarmRequest(
                    action=pb.AlarmRequest.DEACTIVATE, memberID=int(member_id, 16), alarm=pb.NOSPACE
                )
                await self._client.call(ALARM, request)

    async def alarms(self) -> Mapping[str, str]:
        """Raised alarms: member id -> `NOSPACE` or `CORRUPT`."""
        answer = await self._client.call(ALARM, pb.AlarmRequest(), repeatable=True)
        return {f"{a.memberID:x}": pb.AlarmType.Name(a.alarm) for a in answer.alarms}


async def _persist(
    once: Callable[[], Awaitable[ResultT]], progress: Progress | None, timeout: float
) -> ResultT:
    """Try until it works, as long as what etcd says passes by itself. Raises the last error in the end."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    told: set[str] = set()
    while True:
        try:
            return await once()
        except (Unavailable, Conflict) as error:
            wait = next((text for sign, text in _WAITS if sign in str(error)), "")
            if not wait and isinstance(error, Conflict):
                raise
            if loop.time() > deadline:
                raise Unavailable(wait or f"the group of managers cannot change: {error}") from error
            if wait and progress is not None and wait not in told:
                told.add(wait)
                progress(wait)
        await asyncio.sleep(_RETRY)


def plan(member_id: str, name: str, members: Iterable[MemberState]) -> JoinPlan:
    """What a new member starts with. It has no name yet: etcd wants its own."""
    urls = {name if m.id == member_id else m.name or m.id: m.peer_url for m in members}
    return JoinPlan(member_id, urls)


def _state(member: pb.Member) -> MemberState:
    client = urlsplit(member.clientURLs[-1]).netloc if member.clientURLs else ""
    return MemberState(
        id=f"{member.ID:x}",
        name=member.name,
        peer_url=member.peerURLs[0] if member.peerURLs else "",
        endpoint=client,
        learner=member.isLearner,
    )
