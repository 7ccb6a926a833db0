"""A manager's way into and out of the Raft group, over the managers' API; and the leader's care for the group.

Joining: ask for a place as a learner (and for the key that the store is sealed under), start etcd with what is
answered, wait to be made a voter. Each step may be repeated, after a kill at any moment. The leader alone changes
the group, one member at a time, as `manager.roster` decides: it makes room for managers that ask, promotes those
that have caught up, and takes out those whose nodes were demoted or removed, whose etcd ends by itself then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from manager.etcd_process import EtcdConfig, EtcdProcess
from manager.membership import Membership, MemberState, plan
from manager.roster import (
    Add,
    Joiner,
    Promote,
    Remove,
    Step,
    introduced,
    next_step,
    place,
    refuse_taken,
    with_health,
)
from manager.store.etcd_client import STATUS, EtcdClient, Tls
from manager.store.etcd_pb import rpc_pb2 as pb
from pyswarm.api import JoinRaftRequest, JoinRaftResponse, RaftMember
from pyswarm.clock import Clock
from pyswarm.errors import Conflict, Invalid, NotFound, PermissionDenied, Unavailable
from pyswarm.nodeconfig import write_private
from pyswarm.objects import Node
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
LEARNER_TIME = 30.0
"""Seconds that a member which was to join has to come up, before it is taken out and others may join."""


# ------------------------------------------------------------------------------------ a manager that joins


async def join(
    config: EtcdConfig,
    tls: Callable[[], Tls],
    ask: Ask,
    keep: Callable[[JoinRaftResponse], None],
    addresses: tuple[str, str] = ("", ""),
    progress: Callable[[str], None] = log.info,
    timeout: float = _JOIN_TIME,
) -> EtcdProcess:
    """Make this manager a voter: the way from nothing, and from wherever a former attempt was killed. `keep` is
    given the answer, for the keys in it, before etcd starts; who has begun already needs none. `addresses` are those
    for joining and of the API.

    Returns the running etcd, which the caller supervises and stops. Raises what the others answered: Conflict,
    PermissionDenied, or Unavailable when it took longer than `timeout`; MemberRemoved when the place was lost.
    """
    if not begun(config):
        join_addr, api_addr = addresses
        request = JoinRaftRequest(
            peer_url=config.peer_url, member_id=held(config), join_addr=join_addr, api_addr=api_addr
        )
        answer: JoinRaftResponse = await _insist(lambda: ask("Raft.Join", request), progress, timeout)
        keep(answer)
        _make_room(config, answer.member_id)
        config = replace(config, initial_cluster={m.name: m.peer_url for m in answer.members})
    process = EtcdProcess(config, tls())
    await process.start()
    supervision = asyncio.ensure_future(process.supervise())
    voting = asyncio.ensure_future(until_voter(config, tls(), timeout))
    try:
        await asyncio.wait({supervision, voting}, return_when=asyncio.FIRST_COMPLETED)
        (supervision if supervision.done() else voting).result()
    except BaseException:
        await process.stop()
        raise
    finally:
        for task in (supervision, voting):
            task.cancel()
        await asyncio.gather(supervision, voting, return_exceptions=True)
    return process


def begun(config: EtcdConfig) -> bool:
    """Whether this manager's etcd has run before, and its data are good: then they say whom it belongs to."""
    return (config.directory / "begun").exists() and not (config.directory / "removed").exists()


def removed(config: EtcdConfig) -> None:
    """Remember that the cluster has taken this manager's member out: its data are of no more use."""
    with contextlib.suppress(FileNotFoundError):  # the whole directory is gone
        (config.directory / "removed").touch()


def held(config: EtcdConfig) -> str:
    """The id of the member that the data on disk are of; "" without any that are of use."""
    if (config.directory / "removed").exists():
        return ""
    with contextlib.suppress(FileNotFoundError):
        return (config.directory / "member").read_text().strip()
    return ""


def _make_room(config: EtcdConfig, member_id: str) -> None:
    """Start from empty data, unless they are this member's. A former member's are put aside, in `former`, until
    the node leaves or is demoted."""
    if held(config) == member_id:
        return
    directory = config.directory
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    (directory / "begun").unlink(missing_ok=True)
    if (config.data_dir / "member").exists():
        shutil.rmtree(directory / "former", ignore_errors=True)
        config.data_dir.rename(directory / "former")
    write_private(directory / "member", member_id.encode())
    (directory / "removed").unlink(missing_ok=True)


async def until_voter(config: EtcdConfig, tls: Tls, timeout: float = _JOIN_TIME) -> None:
    """Wait until this running member is a voter, to which the leader makes it. Raises Unavailable in the end."""
    client = EtcdClient([config.local_endpoint], tls)
    try:
        async with asyncio.timeout(timeout):
            while True:
                with contextlib.suppress(Unavailable):
                    status = await client.call_member(config.local_endpoint, STATUS, pb.StatusRequest())
                    if status.leader and not status.isLearner:
                        return
                await asyncio.sleep(_RETRY / 3)
    except TimeoutError:
        raise Unavailable(
            f"this manager has not become a voter within {timeout:.0f} s: start the others, or try again later"
        ) from None
    finally:
        await client.close()


async def watch_place(config: EtcdConfig, tls: Callable[[], Tls], ask: Ask, period: float = 3.0) -> None:
    """Returns when the others say that this manager's member is one no more, which they are asked whenever its etcd
    knows of no leader (it does not even answer then, after a start): those that took it out do not speak to it.
    Runs for ever else."""
    used = tls()
    client = EtcdClient([config.local_endpoint], used)
    try:
        while True:
            await asyncio.sleep(period)
            if used != (used := tls()):
                await client.close()
                client = EtcdClient([config.local_endpoint], used)
            member_id = held(config)
            if not member_id or await _follows(client, config.local_endpoint):
                continue
            request = JoinRaftRequest(peer_url=config.peer_url, member_id=member_id)
            with contextlib.suppress(Unavailable, Conflict, PermissionDenied):
                answer: JoinRaftResponse = await ask("Raft.Join", request)
                if answer.member_id != member_id:
                    return
    finally:
        await client.close()


async def _follows(client: EtcdClient, endpoint: str) -> bool:
    """Whether the member at that endpoint knows of a leader."""
    try:
        return bool((await client.call_member(endpoint, STATUS, pb.StatusRequest())).leader)
    except Unavailable:
        return False


async def _insist(call: Callable[[], Awaitable[Any]], progress: Callable[[str], None], timeout: float) -> Any:
    """Repeat a call while the others are not ready, saying why once for each reason."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    told: set[str] = set()
    while True:
        try:
            return await call()
        except Unavailable as error:
            if loop.time() > deadline:
                raise
            if str(error) not in told:
                told.add(str(error))
                progress(str(error))
        await asyncio.sleep(_RETRY)


# ------------------------------------------------------------------------------------ the leader's duty


class Resign(Exception):
    """The leading manager is to be taken out of the group itself: another one does that better."""


class Caretaker:
    """The leader's: keeps Raft's members those that the nodes' records ask for, and the records true. Also the
    gRPC service `Raft`: callers are managers by their certificates."""

    def __init__(
        self,
        membership: Membership,
        nodes: Callable[[], Awaitable[Sequence[Node]]],
        write: Callable[[Sequence[Node]], Awaitable[None]],
        seal_keys: Callable[[], Sequence[bytes]],
        clock: Clock,
        *,
        own: str = "",
        period: float = TEND_PERIOD,
    ) -> None:
        """`nodes` reads the node records, `write` stores changed ones (compare-and-set); `seal_keys` are what the
        store is sealed with. `own` is the node that leads: when it is to be taken out, `run` raises Resign; "" lets
        it take itself out."""
        self._membership = membership
        self._nodes = nodes
        self._write = write
        self._seal_keys = seal_keys
        self._clock = clock
        self._own = own
        self._period = period
        self._joiners: dict[str, Joiner] = {}
        """Managers that wait for their place now, by node id."""
        self._learners: dict[str, float] = {}
        """Since when each learner is known (monotonic)."""
        self._why = ""
        """What the group's next change waits for."""
        self._news = asyncio.Event()
        self._looked = asyncio.Event()
        """Set, and replaced, after each look at the group."""

    # ---------------------------------------------------------------------------------------- the service

    async def join(self, request: JoinRaftRequest, peer: Peer) -> JoinRaftResponse:
        """The place of the manager that asks, made for it where there is none. Raises Unavailable, with the
        reason, while that has to wait."""
        url = urlsplit(request.peer_url)
        if url.scheme != "https" or not url.hostname or not url.port:
            raise Invalid(
                f"{request.peer_url!r} is not an address for etcd: it has the form https://host:port"
            )
        joiner = Joiner(
            peer.node_id, request.peer_url, request.member_id, request.join_addr, request.api_addr
        )
        self._joiners[joiner.node_id] = joiner
        self._news.set()
        try:
            async with asyncio.timeout(_PATIENCE):
                while (answer := await self._place(joiner)) is None:
                    await self._looked.wait()
                return answer
        except TimeoutError:
            raise Unavailable(self._why or "waiting for the managers to make room for another one") from None
        finally:
            if self._joiners.get(joiner.node_id) is joiner:
                del self._joiners[joiner.node_id]

    async def _place(self, joiner: Joiner) -> JoinRaftResponse | None:
        records = await self._nodes()
        if not any(node.id == joiner.node_id and node.spec.role == "manager" for node in records):
            raise PermissionDenied(f"node {joiner.node_id} is not to be a manager (any more)")
        members = await self._membership.members()
        refuse_taken(joiner, members, records)
        found = place(joiner, members)
        if found is None:
            return None
        if changed := introduced(records, joiner):
            await self._write(changed)
        cluster = plan(found.id, joiner.node_id, members).initial_cluster
        return JoinRaftResponse(
            member_id=found.id,
            members=tuple(RaftMember(name=name, peer_url=url) for name, url in sorted(cluster.items())),
            seal_keys=tuple(self._seal_keys()),
        )

    # ------------------------------------------------------------------------------------------- the loop

    def noticed(self) -> None:
        """A node's role may have changed: look at once."""
        self._news.set()

    async def run(self) -> None:
        rounds = 0
        while True:
            self._news.clear()
            pause = self._period
            try:
                records = await self._nodes()
                lone = sum(node.spec.role == "manager" for node in records) == 1 and not self._joiners
                if not lone or rounds % LONE == 0:
                    pause = await self._tend(records)
                rounds = rounds + 1 if lone else 0
            except (Unavailable, Conflict) as error:
                log.warning("the managers' health is not known: %s", error)
            finally:
                looked, self._looked = self._looked, asyncio.Event()
                looked.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._news.wait()
                rounds = 0

    async def _tend(self, records: Sequence[Node]) -> float:
        """One look, and at most one change; returns when to look again (seconds)."""
        members = await self._membership.status()
        step = self._step(records, members)
        done = False
        if step is not None and step == self._step(await self._nodes(), members):
            done = await self._take(step, members)
            members = await self._membership.status() if done else members
        changed = with_health(await self._nodes(), members)
        if changed:
            await self._write(changed)
        if done:
            return 0.0
        return min(self._period, _RETRY) if step is not None or self._learners else self._period

    def _step(self, records: Sequence[Node], members: Sequence[MemberState]) -> Step | None:
        now = self._clock.monotonic()
        self._learners = {m.id: self._learners.get(m.id, now) for m in members if m.learner}
        late = {id for id, since in self._learners.items() if now - since > LEARNER_TIME}
        return next_step(records, members, self._joiners.values(), late)

    async def _take(self, step: Step, members: Sequence[MemberState]) -> bool:
        """Make one change; False when the group is not ready for it. Raises Resign."""
        try:
            match step:
                case Add(joiner):
                    await self._membership.add(joiner.node_id, joiner.peer_url, timeout=0)
                    log.info("node %s joins the managers", joiner.node_id)
                case Promote(member):
                    await self._membership.promote(member.id, timeout=0)
                    log.info("manager %s is a voter now", member.name)
                case Remove(member, why):
                    if self._own and member.name == self._own:
                        raise Resign
                    await self._membership.remove(member.id, timeout=0)
                    log.info("removed %s from the managers: %s", member.name or member.peer_url, why)
        except NotFound:
            return True  # it is out already: look again
        except (Unavailable, Conflict) as error:
            if str(error) != self._why:
                log.info("%s", error)
            self._why = str(error)
            return False
        self._why = ""
        return True
