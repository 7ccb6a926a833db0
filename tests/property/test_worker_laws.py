"""Whatever managers, containers and crashes do in whatever order: a task runs once, its state never goes
back, and in the end the machine holds what is assigned to it and nothing else."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from node_agent.ports import Paths
from node_agent.worker import Worker, WorkerOptions
from pyswarm.clock import SystemClock
from pyswarm.objects import Assignments, Node, Task, TaskState, TaskStatus, TaskStatusUpdate, terminal
from pyswarm.specs import ContainerSpec, TaskSpec
from tests.agent_fakes import FakeImages, FakeNetwork, FakeRuntime, FakeStorage, Machine

IDS = ("t1", "t2", "t3")
TURNS = 120
"""Turns of the loop after which everything that can happen without a timer has happened."""

OPERATION = st.one_of(
    st.tuples(
        st.just("assign"), st.sampled_from(IDS), st.sampled_from(["web", "job", "crash", "missing", "slow"])
    ),
    st.tuples(st.sampled_from(["run", "shutdown", "remove", "exit"]), st.sampled_from(IDS), st.just("")),
    st.tuples(st.sampled_from(["kill", "reboot", "pulled", "full", "sync"]), st.just(""), st.just("")),
    st.tuples(st.just("turns"), st.just(""), st.integers(1, 40).map(str)),
)


@dataclass
class History:
    """A machine, its managers' wish, and the agents that come and go."""

    directory: Path
    machine: Machine = field(default_factory=Machine)
    wanted: dict[str, Task] = field(default_factory=dict[str, Task])
    used: set[str] = field(default_factory=set[str])
    """Ids that were removed: never given again."""
    seen: dict[str, TaskStatus] = field(default_factory=dict[str, TaskStatus])

    synced: dict[str, TaskStatus] = field(default_factory=dict[str, TaskStatus])
    """The managers' view of the statuses: as old as the last `sync`."""

    def __post_init__(self) -> None:
        self.paths = Paths(state=self.directory / "state", run=self.directory / "run")

    def report(self, update: TaskStatusUpdate) -> None:
        before = self.seen.get(update.task_id)
        if before is not None:
            assert update.status.state >= before.state, f"{update.task_id}: {before} -> {update.status}"
        self.seen[update.task_id] = update.status
        if terminal(update.status.state):
            assert update.task_id not in self.machine.containers, "its container is gone when it is reported"

    def agent(self) -> Worker:
        return Worker(
            paths=self.paths,
            node=Node(id="n"),
            runtime=FakeRuntime(self.machine),
            images=FakeImages(self.machine),
            storage=FakeStorage(self.machine, self.paths),
            network=FakeNetwork(self.machine),
            clock=SystemClock(),
            report=self.report,
            options=WorkerOptions(drain_delay=0.0),
        )

    def full(self) -> Assignments:
        """What the managers would send: their own view of the status with it."""
        known = [replace(task, status=self.synced.get(task.id, task.status)) for task in self.wanted.values()]
        return Assignments(tasks=tuple(known))

    def want(self, operation: str, task_id: str, image: str) -> Assignments | None:
        """Change the wish; the delta that tells an agent so."""
        task = self.wanted.get(task_id)
        if operation == "assign" and task is None and task_id not in self.used:
            task = Task(
                id=task_id,
                service_name=task_id,
                spec=TaskSpec(container=ContainerSpec(image=image)),
                status=TaskStatus(state=TaskState.ASSIGNED),
                desired_state=TaskState.RUNNING,
            )
        elif operation in ("run", "shutdown") and task is not None:
            desired = TaskState.RUNNING if operation == "run" else TaskState.SHUTDOWN
            task = replace(task, desired_state=max(desired, task.desired_state))
        elif operation == "remove" and task is not None:
            del self.wanted[task_id]
            self.used.add(task_id)
            return Assignments(complete=False, removed_tasks=(task_id,))
        else:
            return None
        self.wanted[task_id] = task
        return Assignments(complete=False, tasks=(task,))


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def play(history: History, operations: list[tuple[str, str, str]]) -> None:
    """Agents one after the other: each lives until the next kill or reboot."""
    rest = iter([*operations, ("end", "", "")])
    operation = ""
    while operation != "end":
        async with history.agent() as worker:
            await worker.apply(history.full())
            for operation, task_id, argument in rest:
                if operation in ("kill", "reboot", "end"):
                    break
                await step(history, worker, operation, task_id, argument)
            if operation == "end":
                await finish(history, worker)
        if operation == "reboot":
            history.machine.reboot()
            shutil.rmtree(history.paths.run, ignore_errors=True)


async def step(history: History, worker: Worker, operation: str, task_id: str, argument: str) -> None:
    machine = history.machine
    if operation == "turns":
        await turns(int(argument))
    elif operation == "pulled":
        machine.pull_gate.set()
    elif operation == "sync":
        history.synced.update(history.seen)
    elif operation == "full":
        await worker.apply(history.full())
    elif operation == "exit":
        if task_id in machine.containers and machine.containers[task_id].started:
            machine.exit(task_id, 9)
    elif (delta := history.want(operation, task_id, argument)) is not None:
        await worker.apply(delta)


async def finish(history: History, worker: Worker) -> None:
    """Let everything settle, then compare the machine with the wish."""
    history.machine.pull_gate.set()
    await worker.apply(history.full())
    history.synced.update(history.seen)
    await turns(TURNS)
    machine = history.machine
    assert all(count == 1 for count in machine.started_in_all.values()), machine.started_in_all
    assert set(worker.tasks()) == set(history.wanted)
    alive = {
        task.id
        for task in history.wanted.values()
        if task.desired_state == TaskState.RUNNING and not terminal(history.seen[task.id].state)
    }
    assert set(machine.containers) == alive
    assert machine.namespaces == alive
    for task_id in history.wanted:
        state = history.seen[task_id].state
        assert terminal(state) or state == TaskState.RUNNING, f"{task_id} stays {state.name}"
    assert machine.layers <= set(history.wanted)
    await worker.remove_all()
    assert not (machine.containers or machine.namespaces or machine.layers)


@settings(max_examples=60, deadline=None)
@given(st.lists(OPERATION, max_size=25))
def test_any_history_ends_well(operations: list[tuple[str, str, str]]) -> None:
    directory = Path(tempfile.mkdtemp(prefix="psw-", dir="/dev/shm"))
    try:
        asyncio.run(play(History(directory), operations))
    finally:
        shutil.rmtree(directory)
