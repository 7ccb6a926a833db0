"""A leading manager in memory for tests: controller, dispatcher, broker and control service over a MemoryStore."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from manager.assignments import Tracker
from manager.control import Control, Facts
from manager.controller import Controller, Transaction
from manager.desired import Builder
from manager.dispatcher import Dispatcher
from manager.logbroker import LogBroker
from manager.state import Reconciler, State
from manager.store.memory import MemoryStore
from pyswarm.api import SessionRequest
from pyswarm.clock import SeededIds, SystemClock
from pyswarm.objects import (
    Cluster,
    JoinTokens,
    Node,
    NodeDescription,
    Object,
    RootCA,
    Task,
    TaskState,
    TaskStatus,
)
from pyswarm.rpc import Peer
from pyswarm.specs import ClusterSpec, NodeSpec

SEAL = b"sealed:"
QUICK = ClusterSpec(heartbeat_period=0.1, heartbeat_grace=2.0)


def unseal(data: bytes) -> bytes:
    assert data.startswith(SEAL)
    return data.removeprefix(SEAL)


def peer(node_id: str) -> Peer:
    return Peer("worker", node_id, "c1")


@dataclass
class Leader:
    store: MemoryStore
    controller: Controller
    dispatcher: Dispatcher
    broker: LogBroker
    control: Control
    task: asyncio.Task[None]

    async def put(self, *objects: Object) -> None:
        def write(tx: Transaction) -> None:
            for obj in objects:
                tx.put(obj)

        await self.controller.submit(write)

    async def node(self, node_id: str) -> Node:
        found = await self.controller.read(lambda view: view.get(Node, node_id))
        assert found is not None
        return found

    async def task_of(self, task_id: str) -> Task:
        found = await self.controller.read(lambda view: view.get(Task, task_id))
        assert found is not None
        return found


@asynccontextmanager
async def leading(*reconcilers: Reconciler, objects: Sequence[Object] = ()) -> AsyncGenerator[Leader]:
    """A leader with a cluster record (heartbeats of 0.1 s, down after two) and `objects`."""
    store, clock, ids = MemoryStore(), SystemClock(), SeededIds(3)
    controller = Controller(store, State(ids), reconcilers, clock)
    broker = LogBroker(ids)
    dispatcher = Dispatcher(controller, Tracker(), broker, clock, ids, lambda: ("10.0.0.1:2378",), unseal)
    builder = Builder(lambda view, spec: None, lambda data: SEAL + data, unseal)
    control = Control(controller, dispatcher, broker, builder, clock, FACTS)
    leader = Leader(store, controller, dispatcher, broker, control, asyncio.ensure_future(controller.run()))
    try:
        async with asyncio.timeout(15):
            await controller.loaded.wait()
            tokens = JoinTokens(worker="worker-secret", manager="manager-secret")
            ca = RootCA(cert="CERT", key=b"sealed:key", join_tokens=tokens)
            await leader.put(Cluster(id="c1", spec=QUICK, root_ca=ca), *objects)
            yield leader
    finally:
        leader.task.cancel()
        await asyncio.wait({leader.task})


def _rotated(cluster: Cluster, request: object) -> Cluster:
    tokens = JoinTokens(worker="new", manager=cluster.root_ca.join_tokens.manager)
    return replace(cluster, root_ca=replace(cluster.root_ca, join_tokens=tokens))


FACTS = Facts(
    node_id="m1",
    node_addr="10.0.0.1",
    version="1",
    raft_version=lambda: "etcd",
    managers=lambda: ("10.0.0.1:2378",),
    join_addresses=lambda: ("10.0.0.1:2377",),
    state_dir="/state",
    run_dir="/run",
    tokens=lambda cluster: (cluster.root_ca.join_tokens.worker, cluster.root_ca.join_tokens.manager),
    rotate=_rotated,
    sign_client=lambda cluster, name, request: f"certificate of {name}",
    trust=lambda cluster: cluster.root_ca.cert,
    begin_rotation=lambda cluster, request: cluster,
    locked=lambda cluster, rotate: cluster,
    unlock_key=lambda cluster: "",
)
REQUEST = SessionRequest(
    description=NodeDescription(hostname="host"), addr="10.0.0.2", data_path_addr="10.0.0.2"
)


def node(id: str, name: str = "") -> Node:
    return Node(id=id, spec=NodeSpec(name=name or id))


def task(id: str, node_id: str, state: TaskState = TaskState.RUNNING, service_id: str = "s1") -> Task:
    return Task(
        id=id,
        service_id=service_id,
        service_name="web",
        slot=1,
        node_id=node_id,
        status=TaskStatus(state=state),
        desired_state=TaskState.RUNNING,
    )
