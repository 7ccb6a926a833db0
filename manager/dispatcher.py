"""The managers' side of the agents: sessions and liveness, assignments out, status in.

Heartbeats stay in memory; only a change of a node's state is written. A node is DOWN when no heartbeat came
for `heartbeat_grace` periods. The time that this process itself was held up (SIGSTOP, a machine under full
load) is not counted against the nodes: nobody could have been heard.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Protocol

from manager import registration
from manager.controller import Controller, Transaction
from manager.images import ImageRelay
from manager.logbroker import LogBroker
from manager.state import Changed, View
from manager.trust import trust_of
from pyswarm.api import (
    AnswerInput,
    AnswerMessage,
    AssignmentsRequest,
    Demand,
    Empty,
    FetchImageRequest,
    HeartbeatRequest,
    HeartbeatResponse,
    ImagePiece,
    ListenRequest,
    SessionMessage,
    SessionRequest,
    UpdateStatusRequest,
)
from pyswarm.clock import Clock, IdSource
from pyswarm.errors import NotFound, PermissionDenied, Unavailable
from pyswarm.objects import (
    Assignments,
    Cluster,
    ContainerStats,
    ManagerStatus,
    Node,
    NodeState,
    NodeStatus,
    Task,
    TaskState,
    TaskStatus,
    TaskStatusUpdate,
)
from pyswarm.rpc import Peer
from pyswarm.specs import ClusterSpec

log = logging.getLogger(__name__)

SHORTEST_LOOK, LONGEST_LOOK = 0.05, 1.0
"""Seconds between two looks at the heartbeats: until the next one could be overdue, within these bounds."""
OVERSLEPT = 0.1
"""Seconds that a look may come late before the delay counts as this process's own."""
NEW_LEADER_GRACE = 2.0
"""How many times the usual grace a node has to report to a manager that has just taken the lead."""
RESTART_GRACE = 15.0
"""Seconds more for an agent whose connection ended: a machine that tells so is alive, and its supervisor brings
the agent back, which takes over its containers. A machine that is gone says nothing."""
BEATS = 100
"""Heartbeats a second that a manager asks for at most: with more nodes the period grows with their number, so
that a thousand nodes beat every 10 seconds."""
LONE = 5
"""How many times rarer the only node of a cluster beats: were it lost, there is no other to move its tasks to."""
QUEUE = 1_000
"""Deltas held for a node before its stream is cut, so that it starts again with a complete set."""


class Tracker(Protocol):
    """What turns commits into deltas per node (`manager.assignments`)."""

    def open(self, view: View, node_id: str) -> Assignments: ...
    def close(self, node_id: str) -> None: ...
    def changed(self, change: Changed) -> None: ...
    def collect(self, view: View) -> Mapping[str, Assignments]: ...


@dataclass(slots=True, eq=False)
class Session:
    """One agent's registration. A newer one of the same node ends it."""

    id: str
    node_id: str
    addr: str
    last_beat: float
    """Monotonic seconds."""
    cut: bool = False
    """Whether the agent's end of the connection was closed."""
    period: float = 0.0
    """Seconds between heartbeats, as the agent was last told."""
    messages: asyncio.Queue[SessionMessage | None] = field(
        default_factory=asyncio.Queue[SessionMessage | None]
    )
    deltas: asyncio.Queue[Assignments | None] | None = None

    def end(self) -> None:
        self.messages.put_nowait(None)
        if self.deltas is not None:
            cut_off(self.deltas)


def cut_off(queue: asyncio.Queue[Assignments | None]) -> None:
    """End a stream at once, full or not: what was not taken is of no use to an agent that begins anew."""
    while not queue.empty():
        queue.get_nowait()
    queue.put_nowait(None)


class Dispatcher:
    """The handler of the Dispatcher service on the leading manager."""

    def __init__(
        self,
        controller: Controller,
        tracker: Tracker,
        broker: LogBroker,
        clock: Clock,
        ids: IdSource,
        managers: Callable[[], Sequence[str]],
        unseal: Callable[[bytes], bytes],
    ) -> None:
        self._controller = controller
        self._tracker = tracker
        self._broker = broker
        self._clock = clock
        self._ids = ids
        self._managers = managers
        self._unseal = unseal
        self._relay = ImageRelay(controller, broker)
        self._sessions: dict[str, Session] = {}
        self._streams: dict[str, asyncio.Queue[Assignments | None]] = {}
        """Of each node, the stream that its assignments go to: the last one opened."""
        self._unheard: dict[str, float] = {}
        """Nodes believed READY that have not reported to this leader yet: monotonic deadline."""
        self.stats: dict[str, ContainerStats] = {}
        """The last figures of each running task."""
        controller.observe(self._observe)
        broker.registered = self._sessions.__contains__

    # ------------------------------------------------------------------------------ sessions

    def _spec(self) -> ClusterSpec:
        """The cluster's settings; a change that is about to be committed may show already."""
        cluster = self._controller.state.view.cluster
        return cluster.spec if cluster is not None else ClusterSpec()

    async def session(self, request: SessionRequest, peer: Peer) -> AsyncIterator[SessionMessage]:
        """Register the node; yields the session, then every change of the node or the managers. Raises Invalid for
        a description that cannot be believed."""
        registration.check(request)
        session = Session(self._ids.new_id(), peer.node_id, request.addr, self._clock.monotonic())
        former = self._sessions.pop(peer.node_id, None)
        if former is not None:
            former.end()
        self._sessions[peer.node_id] = session
        self._unheard.pop(peer.node_id, None)
        try:
            try:
                node = await self._controller.submit(lambda tx: _register(tx, request, peer))
            except PermissionDenied:
                self._forget(session)
                raise
            yield self._session_message(session, node)
            while (message := await session.messages.get()) is not None:
                yield message
        finally:
            session.cut = True
            session.end()

    def _forget(self, session: Session) -> None:
        if self._sessions.get(session.node_id) is session:
            del self._sessions[session.node_id]

    def _session_message(self, session: Session, node: Node) -> SessionMessage:
        return SessionMessage(
            session_id=session.id,
            node=node,
            managers=tuple(self._managers()),
            heartbeat_period=self._announced(session),
            data_path_port=self._spec().data_path_port,
            root_ca=self._trust(),
        )

    def _trust(self) -> str:
        """The roots that nodes are to trust; a change that is about to be committed may show already."""
        cluster = self._controller.state.view.cluster
        return trust_of(cluster.root_ca) if cluster is not None else ""

    def _period(self) -> float:
        """Seconds between a node's heartbeats, with as many nodes as there are."""
        period = self._spec().heartbeat_period * (LONE if self._alone() else 1)
        return max(period, len(self._sessions) / BEATS)

    def _alone(self) -> bool:
        """Whether the cluster has one node only."""
        return len(self._sessions) == 1 and len(list(islice(self._controller.state.view.nodes(), 2))) == 1

    def _announced(self, session: Session) -> float:
        """The period to tell the agent now, which follows it once it has beaten: until then nothing sooner is to be
        expected than what it was told before."""
        period = self._period()
        session.period = max(session.period, period)
        return period

    def _next_period(self, session: Session) -> float:
        """The period to tell the agent now."""
        session.period = self._period()
        return session.period

    def _session(self, session_id: str, peer: Peer) -> Session:
        session = self._sessions.get(peer.node_id)
        if session is None or session.id != session_id:
            raise NotFound("this session has ended: register again")
        return session

    async def heartbeat(self, request: HeartbeatRequest, peer: Peer) -> HeartbeatResponse:
        session = self._session(request.session_id, peer)
        session.last_beat = self._clock.monotonic()
        return HeartbeatResponse(period=self._next_period(session))

    async def leave(self, request: Empty, peer: Peer) -> Empty:
        """The node has left the cluster: its containers have ended, and it is Down at once."""
        session = self._sessions.pop(peer.node_id, None)
        if session is not None:
            session.end()
        self._unheard.pop(peer.node_id, None)
        await self._controller.submit(lambda tx: _mark_down(tx, peer.node_id, "it has left the swarm"))
        log.info("node %s has left the swarm", peer.node_id)
        return Empty()

    # ------------------------------------------------------------------------------ liveness

    async def watch_heartbeats(self) -> None:
        """Declare nodes DOWN that are not heard; runs for as long as this manager leads."""
        await self._controller.read(self._expect_all)
        while True:
            looked = self._clock.monotonic()
            pause = self._until_overdue(looked)
            await asyncio.sleep(pause)
            now = self._clock.monotonic()
            late = now - looked - pause
            # And a period more: what nodes sent meanwhile lies unread, and the look came when they were due.
            self._forgive(late + self._spec().heartbeat_period if late > OVERSLEPT else 0.0)
            await self._declare(self._silent(now))

    def _until_overdue(self, now: float) -> float:
        period, grace = self._rhythm()
        deadlines = [s.last_beat + _patience(s, period, grace) for s in self._sessions.values()]
        first = min([*deadlines, *self._unheard.values()], default=now + LONGEST_LOOK)
        return min(max(first - now, SHORTEST_LOOK), LONGEST_LOOK)

    def _rhythm(self) -> tuple[float, float]:
        """Seconds between heartbeats, and how many periods of silence are forgiven."""
        return self._period(), self._spec().heartbeat_grace

    def _expect_all(self, view: View) -> None:
        spec = self._spec()
        silent = [node for node in view.nodes() if node.id not in self._sessions]
        expected = [node for node in silent if node.status.state != NodeState.DOWN]
        period = max(spec.heartbeat_period, len(expected) / BEATS)
        deadline = self._clock.monotonic() + NEW_LEADER_GRACE * period * spec.heartbeat_grace
        self._unheard.update((node.id, deadline) for node in expected)

    def _forgive(self, lost: float) -> None:
        """This process was held up for `lost` seconds: nobody's silence in them counts."""
        if lost > 0:
            for session in self._sessions.values():
                session.last_beat += lost
            self._unheard = {node: deadline + lost for node, deadline in self._unheard.items()}

    def _silent(self, now: float) -> list[str]:
        period, grace = self._rhythm()
        silent = [
            s.node_id for s in self._sessions.values() if now - s.last_beat > _patience(s, period, grace)
        ]
        return silent + [node for node, deadline in self._unheard.items() if now > deadline]

    def _overdue(self, session: Session, now: float) -> bool:
        return now - session.last_beat > _patience(session, *self._rhythm())

    async def _declare(self, node_ids: Sequence[str]) -> None:
        for node_id in node_ids:
            session = self._sessions.get(node_id)
            if session is not None and not self._overdue(session, self._clock.monotonic()):
                continue  # it has come back while another node's end was being written
            if session is not None:
                self._forget(session)
                session.end()
            self._unheard.pop(node_id, None)
            log.warning("node %s is down: no heartbeat", node_id)
            try:
                await self._controller.submit(lambda tx, node_id=node_id: _mark_down(tx, node_id))
            except Unavailable as error:
                if node_id not in self._sessions:
                    self._unheard[node_id] = self._clock.monotonic()
                log.warning("could not record that node %s is down: %s", node_id, error)

    # ------------------------------------------------------------------------------ assignments

    async def watch_assignments(self, request: AssignmentsRequest, peer: Peer) -> AsyncIterator[Assignments]:
        """First everything the node is to hold, then what changes."""
        session = self._session(request.session_id, peer)
        deltas: asyncio.Queue[Assignments | None] = asyncio.Queue(QUEUE)

        def opening(view: View) -> Assignments:
            if session.deltas is not None:
                cut_off(session.deltas)
            session.deltas = deltas
            self._streams[peer.node_id] = deltas
            return self._tracker.open(view, peer.node_id)

        sequence = 0
        try:
            yield self._opened(await self._controller.read(opening))
            while (delta := await deltas.get()) is not None:
                sequence += 1
                yield replace(self._opened(delta), complete=False, sequence=sequence)
        finally:
            if self._streams.get(peer.node_id) is deltas:
                del self._streams[peer.node_id]
                self._tracker.close(peer.node_id)

    def _opened(self, assignments: Assignments) -> Assignments:
        """With the payloads of secrets in clear, for the node that may read them."""
        if not assignments.secrets:
            return assignments
        secrets = [
            replace(s, spec=replace(s.spec, data=self._unseal(s.spec.data))) for s in assignments.secrets
        ]
        return replace(assignments, secrets=tuple(secrets))

    def _observe(self, revision: int, changes: Sequence[Changed]) -> None:
        del revision
        for changed in changes:
            self._tracker.changed(changed)
        self._deliver()
        managers = False
        for changed in changes:
            if isinstance(changed.obj, Node):
                self._node_changed(changed)
                managers |= _api(changed.before) != _api(changed.after)
            elif isinstance(changed.obj, Cluster):
                managers |= _trust(changed.before) != _trust(changed.after)
            elif isinstance(changed.before, Task) and (
                not isinstance(changed.after, Task) or changed.after.status.state > TaskState.RUNNING
            ):
                self.stats.pop(changed.before.id, None)
        if managers:
            self._tell_all()

    def _tell_all(self) -> None:
        """Every agent keeps the list of managers, for the day when its own is gone, and the roots to trust."""
        for session in self._sessions.values():
            node = self._controller.state.view.get(Node, session.node_id)
            if node is not None:
                session.messages.put_nowait(self._session_message(session, node))

    def _node_changed(self, changed: Changed) -> None:
        session = self._sessions.get(changed.obj.id)
        if session is None:
            return
        if not isinstance(changed.after, Node):
            self._sessions.pop(changed.obj.id).end()
        elif isinstance(changed.before, Node) and _tells(changed.before, changed.after):
            session.messages.put_nowait(self._session_message(session, changed.after))

    def _deliver(self) -> None:
        for node_id, delta in self._tracker.collect(self._controller.state.view).items():
            deltas = self._streams.get(node_id)
            if deltas is None:
                continue
            try:
                deltas.put_nowait(delta)
            except asyncio.QueueFull:
                log.warning("node %s does not take its assignments: cutting its stream", node_id)
                cut_off(deltas)

    # ------------------------------------------------------------------------------ status

    async def update_status(self, request: UpdateStatusRequest, peer: Peer) -> Empty:
        """Take over a batch of reports; answered once they are committed."""
        self._session(request.session_id, peer).last_beat = self._clock.monotonic()
        if request.stats:
            await self._controller.read(lambda view: self._take_stats(view, request.stats, peer))
        if request.updates:
            await self._controller.submit(lambda tx: _report(tx, request.updates, peer))
        return Empty()

    def _take_stats(self, view: View, stats: Iterable[ContainerStats], peer: Peer) -> None:
        for figures in stats:
            task = view.get(Task, figures.task_id)
            running = task is not None and task.status.state <= TaskState.RUNNING
            if task is not None and running and task.node_id == peer.node_id:
                self.stats[figures.task_id] = figures

    # ------------------------------------------------------------------------------ streams

    async def listen(self, request: ListenRequest, peer: Peer) -> AsyncIterator[Demand]:
        self._session(request.session_id, peer)
        async with contextlib.aclosing(self._broker.listen(peer.node_id)) as demands:
            async for demand in demands:
                yield demand

    async def answer(self, messages: AsyncIterator[AnswerMessage], peer: Peer) -> AsyncIterator[AnswerInput]:
        async with contextlib.aclosing(self._broker.answer(peer.node_id, messages)) as inputs:
            async for message in inputs:
                yield message

    async def fetch_image(self, request: FetchImageRequest, peer: Peer) -> AsyncIterator[ImagePiece]:
        """A copy of an image that a task of the node needs, from a node that has it."""
        self._session(request.session_id, peer)
        async with contextlib.aclosing(self._relay.copy(request.reference, peer.node_id)) as pieces:
            async for piece in pieces:
                yield piece


def _patience(session: Session, period: float, grace: float) -> float:
    """Seconds of silence after which a session's node is down, with heartbeats every `period` seconds."""
    return max(session.period, period) * grace + (RESTART_GRACE if session.cut else 0.0)


def _register(tx: Transaction, request: SessionRequest, peer: Peer) -> Node:
    node = tx.view.get(Node, peer.node_id)
    if node is None:
        raise PermissionDenied(
            f"node {peer.node_id} is not part of this cluster any more: let it leave and join again"
        )
    since = tx.now if node.status.state != NodeState.READY else node.status.since
    changed = replace(
        node,
        description=request.description,
        status=NodeStatus(state=NodeState.READY, addr=request.addr, since=since),
        data_path_addr=request.data_path_addr,
        manager_status=_manager_status(node, request),
    )
    if changed != node:
        tx.put(changed)
    return changed


def _manager_status(node: Node, request: SessionRequest) -> ManagerStatus | None:
    """With the addresses that a manager's agent tells."""
    if node.spec.role != "manager" or not request.api_addr:
        return node.manager_status
    return replace(node.manager_status or ManagerStatus(), addr=request.join_addr, api=request.api_addr)


def _tells(before: Node, after: Node) -> bool:
    """Whether a change is one that the node's agent is told of."""
    former, now = before.manager_status, after.manager_status
    wanted = before.certificate_wanted != after.certificate_wanted
    wanted |= before.certificate_serial != after.certificate_serial
    return wanted or before.spec != after.spec or (former is None) != (now is None)


def _api(obj: object) -> str:
    """A manager's API address; "" for other nodes and none."""
    return obj.manager_status.api if isinstance(obj, Node) and obj.manager_status is not None else ""


def _trust(obj: object) -> str:
    return trust_of(obj.root_ca) if isinstance(obj, Cluster) else ""


def _mark_down(tx: Transaction, node_id: str, why: str = "heartbeat failure") -> None:
    node = tx.view.get(Node, node_id)
    if node is not None and node.status.state != NodeState.DOWN:
        status = replace(node.status, state=NodeState.DOWN, message=why, since=tx.now)
        tx.put(replace(node, status=status))


def _report(tx: Transaction, updates: Iterable[TaskStatusUpdate], peer: Peer) -> None:
    for update in updates:
        task = tx.view.get(Task, update.task_id)
        if task is None:
            continue
        if task.node_id != peer.node_id:
            raise PermissionDenied(f"task {task.id} is not assigned to node {peer.node_id}")
        status = merged(task.status, registration.believed(update.status))
        if status != task.status:
            tx.put(replace(task, status=status))


def merged(old: TaskStatus, new: TaskStatus) -> TaskStatus:
    """An agent's report on top of what is known: the observed state only moves forward, and a task that
    has ended keeps the way it ended (but may still go on to REMOVE or ORPHANED)."""
    if new.state < old.state:
        return old
    if TaskState.RUNNING < old.state < TaskState.REMOVE and new.state < TaskState.REMOVE:
        return old
    return new
