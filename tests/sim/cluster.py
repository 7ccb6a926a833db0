"""The simulated cluster: the real managers over a store in memory, and nodes with made-up containers.

Three managers campaign for the lead; the leader runs the real controller, reconcilers, allocator, scheduler
and dispatcher. Every commit is checked against the invariants at the moment the store takes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import TypeVar

from manager.allocator import Allocator
from manager.assignments import Tracker, assignments_for
from manager.controller import Controller, Mutation, Planner
from manager.dispatcher import Dispatcher
from manager.logbroker import LogBroker
from manager.orchestrator import TaskUse, reconcilers
from manager.scheduler.scheduler import Scheduler
from manager.state import Reconciler, State, View
from manager.store import Change, Fence, Put
from manager.store.memory import MemoryServer, MemoryStore
from node_agent.tables import Tables
from pyswarm.clock import IdSource, SeededIds
from pyswarm.errors import PyswarmError, Unavailable
from pyswarm.objects import Cluster, Node, NodeDescription, Object, Task, kind_of
from pyswarm.specs import ClusterSpec, Platform, Resources
from tests.sim.agent import Agent, Weather, end
from tests.sim.clock import VirtualClock
from tests.sim.invariants import Violated, World, check_step, show

T = TypeVar("T")

LEASE = 1.0
SUBMIT_TIMEOUT = 15.0
GIB = 1 << 30
MOST_COMMITS_PER_SECOND = 400


def brain(use: dict[str, TaskUse]) -> Sequence[Reconciler]:
    """All reconcilers, as the leader runs them."""
    return (*reconcilers(use), Allocator(), Scheduler())


class CheckedServer(MemoryServer):
    """A store that looks at every commit before it lets it count."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.commits = 0
        self.trace: list[str] = []
        self.violation: Violated | None = None
        self._second = self._storm = 0
        self.container_runs: Callable[[Task], bool] = lambda task: False

    def apply(self, changes: Sequence[Change], fence: Fence | None) -> int:
        before = World(
            dict(self.world.nodes),
            dict(self.world.services),
            dict(self.world.tasks),
            dict(self.world.networks),
            dict(self.world.volumes),
            self.world.cluster,
        )
        first = self.commits == 0
        leads = first or (
            fence is not None and bool(self._candidates) and self._candidates[0].key == fence.key
        )
        revision = super().apply(changes, fence)
        self.commits += 1
        self._no_storm()
        changed: dict[str, tuple[Object | None, Object | None]] = {}
        for change in changes:
            old = _old(before, change.obj)
            new = self.get(kind_of(change.obj), change.obj.id) if isinstance(change, Put) else None
            changed[change.obj.id] = (old, new)
            if new is None:
                self.world.remove(change.obj.id)
            else:
                self.world.put(new)
        try:
            if not leads:
                raise Violated("a manager wrote that does not lead")
            check_step(before, self.world, changed, VirtualClock().now())
            self._records_outlive_containers(changed)
        except Violated as error:
            self.violation = error
            raise
        return revision

    def _records_outlive_containers(self, changed: Mapping[str, tuple[Object | None, Object | None]]) -> None:
        """A task whose container runs on a node of the cluster keeps its record."""
        for old, new in changed.values():
            if not isinstance(old, Task) or new is not None or old.node_id not in self.world.nodes:
                continue
            if self.container_runs(old):
                raise Violated(f"deleted while its container runs: {show(old)}")

    def _no_storm(self) -> None:
        """Managers that answer each other for ever must not look like progress."""
        second = int(asyncio.get_running_loop().time())
        self._storm = self._storm + 1 if second == self._second else 0
        self._second = second
        if self._storm > MOST_COMMITS_PER_SECOND:
            self.violation = Violated(f"over {MOST_COMMITS_PER_SECOND} commits in the second {second}")
            raise self.violation


def _as_told(tables: Tables) -> object:
    """The tables without the networks' own records, whose versions no node is told of."""
    networks = {
        id: (table.members, table.services, table.node_addrs) for id, table in tables.networks.items()
    }
    return networks, tables.ingress


def _difference(before: Object | None, after: Object | None) -> str:
    """What changed, field by field."""
    if before is None or after is None:
        obj = before or after
        name = show(obj) if isinstance(obj, Task) else repr(obj)
        return f"{name} {'appears' if before is None else 'goes'}"
    changes = [
        f"{f.name}: {getattr(before, f.name)} -> {getattr(after, f.name)}"
        for f in fields(before)
        if f.name != "meta" and getattr(before, f.name) != getattr(after, f.name)
    ]
    return f"{show(before) if isinstance(before, Task) else ''} {'; '.join(changes)}"


def _same(before: Object | None, after: Object | None) -> bool:
    return before is after or (
        before is not None and after is not None and replace(after, meta=before.meta) == before
    )


def _old(world: World, obj: Object) -> Object | None:
    for table in (world.nodes, world.services, world.tasks, world.networks, world.volumes):
        if obj.id in table:
            return table[obj.id]
    return world.cluster if isinstance(obj, Cluster) else None


class Manager:
    """One manager: campaigns, leads, loses the lead, campaigns again."""

    def __init__(self, name: str, cluster: SimCluster) -> None:
        self.name = name
        self._cluster = cluster
        self.store = MemoryStore(cluster.server)
        self.store.latency = lambda: cluster.rng.uniform(0.0, 0.004)
        self.blind = 0.0
        """Seconds for which it goes on leading after it lost the lead: a stopped process that wakes up."""
        self.controller: Controller | None = None
        self.dispatcher: Dispatcher | None = None

    async def run(self) -> None:
        while True:
            async with self.store.campaign(self.name, LEASE) as leadership:
                with contextlib.suppress(PyswarmError):
                    await self._lead(leadership.fence, leadership.lost())
            await asyncio.sleep(self._cluster.rng.uniform(0.05, 0.3))

    async def _lead(self, fence: Fence, lost: object) -> None:
        cluster = self._cluster
        controller = Controller(self.store, State(cluster.ids), brain(cluster.use), cluster.clock, fence)
        dispatcher = Dispatcher(
            controller,
            Tracker(),
            LogBroker(cluster.ids),
            cluster.clock,
            cluster.ids,
            lambda: (),
            lambda data: data,
        )
        loop = asyncio.get_running_loop()
        parts = [
            loop.create_task(controller.run()),
            loop.create_task(self._until_lost(lost)),
            loop.create_task(self._watch(controller, dispatcher)),
        ]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in done:
                error = part.exception()
                if error is not None and not isinstance(error, PyswarmError):
                    cluster.fail(error)
        finally:
            self.controller = self.dispatcher = None
            await end(parts)

    async def _until_lost(self, lost: object) -> None:
        await lost  # type: ignore[misc]  # the coroutine of Leadership.lost
        await asyncio.sleep(self.blind)

    async def _watch(self, controller: Controller, dispatcher: Dispatcher) -> None:
        """Serve once the state is read: what a manager's wiring waits for, too."""
        await controller.submit(lambda tx: None)
        self.controller, self.dispatcher = controller, dispatcher
        await dispatcher.watch_heartbeats()


class SimCluster:
    """Everything there is in one history."""

    def __init__(self, seed: int, nodes: int = 4, managers: int = 3) -> None:
        self.rng = random.Random(seed)
        self.clock = VirtualClock()
        self.ids: IdSource = SeededIds(seed)
        self.server = CheckedServer()
        self.use: dict[str, TaskUse] = {}
        self.weather = Weather()
        self.managers = [Manager(f"m{number}", self) for number in range(1, managers + 1)]
        self.agents: dict[str, Agent] = {}
        self.error: BaseException | None = None
        self.log: list[str] = []
        self._first_nodes = nodes
        self._running: list[asyncio.Task[None]] = []
        self._node_count = 0
        self.server.container_runs = self._container_runs

    def _container_runs(self, task: Task) -> bool:
        agent = self.agents.get(task.node_id)
        return agent is not None and any(held.id == task.id for held in agent.running())

    def say(self, text: str) -> None:
        self.log.append(f"{asyncio.get_running_loop().time():9.2f}  {text}")

    def fail(self, error: BaseException) -> None:
        if self.error is None:
            self.error = error

    def raise_errors(self) -> None:
        """Raise what went wrong anywhere since the history began."""
        if self.server.violation is not None:
            raise self.server.violation
        if self.error is not None:
            raise self.error

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        spec = ClusterSpec(heartbeat_period=10.0, task_history_limit=2)
        await self.managers[0].store.commit([Put(Cluster(id="cluster", spec=spec))])
        self._running = [loop.create_task(manager.run()) for manager in self.managers]
        for _ in range(self._first_nodes):
            await self.add_node()

    async def stop(self) -> None:
        for agent in self.agents.values():
            agent.crash()
        await end(self._running)

    async def add_node(self) -> str:
        """A machine joins: its record is made, as the CA does, then its agent registers."""
        self._node_count += 1
        id = f"n{self._node_count}"
        description = NodeDescription(
            hostname=id,
            platform=Platform(os="linux", architecture="x86_64"),
            resources=Resources(nano_cpus=4_000_000_000, memory=4 * GIB),
        )
        await self.submit(lambda tx: tx.put(Node(id=id, description=description)))
        agent = Agent(
            id, description, self.leader, self.serves, self.clock, self.rng, self.weather, self.fail
        )
        self.agents[id] = agent
        agent.start()
        return id

    def leader(self) -> Dispatcher | None:
        """The dispatcher of the manager that the store says leads."""
        for manager in self.managers:
            if manager.name == self.server.leader:
                return manager.dispatcher
        return None

    def serves(self, dispatcher: Dispatcher) -> bool:
        """Whether the manager with this dispatcher still answers as leader (rightly or not)."""
        return any(manager.dispatcher is dispatcher for manager in self.managers)

    async def submit(self, mutation: Mutation[T]) -> T | None:
        """A user's request to the leader; None when it was refused or nobody answered."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SUBMIT_TIMEOUT
        while loop.time() < deadline and self.server.violation is None and self.error is None:
            leading = next((m for m in self.managers if m.name == self.server.leader), None)
            if leading is None or leading.controller is None:
                await asyncio.sleep(0.2)
                continue
            try:
                async with asyncio.timeout(SUBMIT_TIMEOUT):
                    return await leading.controller.submit(mutation)
            except (Unavailable, TimeoutError):
                await asyncio.sleep(0.2)
            except PyswarmError as error:
                self.say(f"refused: {error}")
                return None
        return None

    # ------------------------------------------------------------------------------------ the end

    def calm(self) -> None:
        """Stop all faults."""
        self.weather.delay, self.weather.lose, self.weather.duplicate = 0.02, 0.0, 0.0
        self.server.set_down(False)
        for manager in self.managers:
            manager.blind = 0.0
            manager.store.heal()
        for agent in self.agents.values():
            agent.cut = False
            if not agent.up:
                agent.start()

    def check_nothing_left(self) -> None:
        """A leader that starts now finds nothing to decide: the plan over everything is empty. And the nodes
        hold the tables that it would tell them."""
        state = State(SeededIds(1))
        listing = self.server.read(None)
        state.load(listing.objects, listing.revision)
        self._check_tables(state.view)
        planner = Planner(state, brain(dict(self.use)))
        planner.everything()
        planner.sweep(self.clock.now())
        differences = [
            f"{kind} {id}: {_difference(before, after)}"
            for kind, id, before, after in state.staged()
            if not _same(before, after)
        ]
        if differences:
            raise Violated("a new leader would change what had settled:\n" + "\n".join(differences))

    def _check_tables(self, view: View) -> None:
        for node_id, agent in sorted(self.agents.items()):
            whole = Tables()
            whole.take(assignments_for(view, node_id))
            if _as_told(whole) != _as_told(agent.tables):
                raise Violated(
                    f"node {node_id} holds {_as_told(agent.tables)}\nand should hold {_as_told(whole)}"
                )
