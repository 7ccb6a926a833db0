"""What one change costs in a large cluster: never a scan of everything.

CPU seconds of this thread, the best of several, so that a busy machine does not fail the test.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from manager.allocator import Allocator
from manager.controller import Planner, Transaction
from manager.orchestrator import reconcilers
from manager.scheduler.scheduler import Scheduler
from manager.state import State
from pyswarm.clock import SeededIds
from pyswarm.objects import (
    Cluster,
    Meta,
    Node,
    NodeDescription,
    NodeState,
    NodeStatus,
    Object,
    Service,
    Task,
    TaskState,
    TaskStatus,
)
from pyswarm.specs import ContainerSpec, Resources, ServiceMode, ServiceSpec, TaskSpec

NODES, SERVICES, SLOTS = 1_000, 10, 1_000
REACTION = 0.020


def objects() -> Iterator[Object]:
    yield Cluster(id="c")
    ready = NodeStatus(state=NodeState.READY)
    machine = NodeDescription(resources=Resources(nano_cpus=64 * 10**9, memory=1 << 40))
    for n in range(NODES):
        yield Node(id=f"n{n}", status=ready, description=machine)
    up = TaskStatus(state=TaskState.RUNNING, timestamp=1.0, running_since=1.0)
    for s in range(SERVICES):
        task = TaskSpec(container=ContainerSpec(image=f"image{s}"))
        spec = ServiceSpec(name=f"s{s}", mode=ServiceMode(replicas=SLOTS), task=task)
        yield Service(id=f"s{s}", spec=spec)
        for slot in range(1, SLOTS + 1):
            yield Task(
                id=f"t{s}.{slot}",
                meta=Meta(version=1, created_at=1.0),
                service_id=f"s{s}",
                slot=slot,
                node_id=f"n{(slot + 33 * s) % NODES}",
                spec=task,
                spec_version=1,
                status=up,
            )


@pytest.fixture(scope="module")
def cluster() -> tuple[State, Planner]:
    state = State(SeededIds(1))
    state.load(objects(), 1)
    planner = Planner(state, (*reconcilers(), Allocator(), Scheduler()))
    planner.everything()
    planner.sweep(1000.0)
    state.settle([], 2)
    return state, planner


def change(cluster: tuple[State, Planner], obj: Object) -> tuple[float, int]:
    """CPU seconds until everything that follows from the change is planned, and how much that is."""
    state, planner = cluster
    transaction = Transaction(state, 2000.0)
    started = time.thread_time()
    transaction.put(obj)
    planner.note(transaction.changes)
    planner.sweep(2000.0)
    took = time.thread_time() - started
    written = len(state.staged())
    state.settle([], 3)
    return took, written


def failed(task: Task) -> Task:
    return replace(task, status=replace(task.status, state=TaskState.FAILED, timestamp=2000.0))


def test_one_task_that_fails(cluster: tuple[State, Planner]) -> None:
    view = cluster[0].view
    costs: list[float] = []
    for slot in range(1, 8):
        task = view.get(Task, f"t3.{slot}")
        assert task is not None
        took, written = change(cluster, failed(task))
        assert written == 2, "the ended task and its successor"
        costs.append(took)
    assert min(costs) < REACTION


def test_one_node_that_goes_down(cluster: tuple[State, Planner]) -> None:
    """Thirty tasks move: well below a second, and in proportion to them."""
    node = cluster[0].view.get(Node, "n500")
    assert node is not None
    down = replace(node, status=NodeStatus(state=NodeState.DOWN, since=2000.0))
    took, written = change(cluster, down)
    assert written == 1 + 2 * SERVICES
    assert took < 10 * REACTION


def test_one_report_that_changes_nothing(cluster: tuple[State, Planner]) -> None:
    task = cluster[0].view.get(Task, "t9.500")
    assert task is not None
    report = replace(task, status=replace(task.status, message="still running"))
    took, written = change(cluster, report)
    assert written == 1
    assert took < REACTION
