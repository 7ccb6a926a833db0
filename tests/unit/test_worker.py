"""The worker over a fake machine: tasks from assignment to end, stops, adoption after kill -9 and reboot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from node_agent.ports import Paths
from node_agent.worker import Worker, WorkerOptions, generic_resources
from pyswarm.clock import SystemClock
from pyswarm.errors import NotFound
from pyswarm.objects import (
    AllocatedPool,
    Assignments,
    Member,
    Network,
    NetworkAttachment,
    NetworkTable,
    Node,
    NodeDescription,
    Secret,
    Task,
    TaskState,
    TaskStatus,
    TaskStatusUpdate,
    terminal,
)
from pyswarm.specs import (
    ContainerSpec,
    EndpointSpec,
    FileReference,
    GenericResource,
    Healthcheck,
    Hook,
    PortConfig,
    SecretSpec,
    TaskSpec,
)
from tests.agent_fakes import FakeImages, FakeNetwork, FakeRuntime, FakeStorage, Machine

S = TaskState
DEADLINE = 5.0


class Bench:
    """A worker over a fake machine, and what it reported."""

    def __init__(self, directory: Path) -> None:
        self.paths = Paths(state=directory / "state", run=directory / "run")
        self.machine = Machine()
        self.options = WorkerOptions(drain_delay=0.05, hook_timeout=1.0)
        self.reports: dict[str, list[TaskStatus]] = {}
        self.left_at_end: dict[str, tuple[bool, bool]] = {}
        """Whether container and namespace were still there when a task's end was reported."""
        self._news = asyncio.Event()
        self.worker = self.make()

    def make(self) -> Worker:
        machine = self.machine
        self.worker = Worker(
            paths=self.paths,
            node=Node(id="node1", description=NodeDescription(hostname="host1")),
            runtime=FakeRuntime(machine),
            images=FakeImages(machine),
            storage=FakeStorage(machine, self.paths),
            network=FakeNetwork(machine),
            clock=SystemClock(),
            report=self._report,
            options=self.options,
        )
        return self.worker

    @asynccontextmanager
    async def agent(self) -> AsyncGenerator[Worker]:
        """A fresh agent over the same machine; leaving it is like kill -9: nothing is put in order."""
        async with self.make() as worker:
            yield worker

    def _report(self, update: TaskStatusUpdate) -> None:
        self.reports.setdefault(update.task_id, []).append(update.status)
        if terminal(update.status.state):
            machine = self.machine
            left = (update.task_id in machine.containers, update.task_id in machine.namespaces)
            self.left_at_end[update.task_id] = left
        self._news.set()

    def last(self, task_id: str) -> TaskStatus:
        return self.reports[task_id][-1]

    def states(self, task_id: str) -> list[TaskState]:
        """States in the order of their first report."""
        return list(dict.fromkeys(status.state for status in self.reports[task_id]))

    async def until(self, condition: Callable[[], bool], what: str = "") -> None:
        try:
            async with asyncio.timeout(DEADLINE):
                while not condition():
                    self._news.clear()
                    with_timer = asyncio.create_task(self._news.wait())
                    await asyncio.wait((with_timer,), timeout=0.01)
                    with_timer.cancel()
        except TimeoutError:
            pytest.fail(f"never {what}: {self.reports} {self.machine.journal}")

    async def reaches(self, task_id: str, state: TaskState) -> TaskStatus:
        await self.until(
            lambda: bool(self.reports.get(task_id)) and self.last(task_id).state == state,
            f"{task_id} {state.name}",
        )
        return self.last(task_id)

    def happened(self, what: str) -> bool:
        return what in self.machine.journal


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    for task_id, statuses in bench.reports.items():
        states = [status.state for status in statuses]
        assert states == sorted(states), f"{task_id} went back: {states}"


def task(task_id: str = "t1", image: str = "web", desired: TaskState = S.RUNNING, **container: Any) -> Task:
    return Task(
        id=task_id,
        service_id=f"s-{task_id}",
        service_name=f"shop_{task_id}",
        slot=1,
        node_id="node1",
        spec=TaskSpec(container=ContainerSpec(image=image, **container)),
        status=TaskStatus(state=S.ASSIGNED),
        desired_state=desired,
    )


def full(*tasks: Task, **rest: Any) -> Assignments:
    return Assignments(tasks=tasks, **rest)


def delta(*tasks: Task, **rest: Any) -> Assignments:
    return Assignments(complete=False, tasks=tasks, **rest)


async def test_a_task_walks_all_states_up_to_running(bench: Bench) -> None:
    async with bench.agent() as worker:
        await worker.apply(full(task()))
        status = await bench.reaches("t1", S.RUNNING)
        assert bench.states("t1") == [S.ACCEPTED, S.PREPARING, S.READY, S.STARTING, S.RUNNING]
        assert status.pid > 0
        assert status.container_id == "t1"
        assert status.running_since == status.started_at > 0
        launch = bench.machine.containers["t1"].launch
        assert launch.netns == bench.paths.netns("t1")
        assert [mount.target for mount in launch.mounts] == ["/etc/hosts"]
        assert worker.statuses() == [TaskStatusUpdate(task_id="t1", status=status)]


async def test_a_container_for_a_client_starts_when_that_is_there(bench: Bench) -> None:
    async with bench.agent() as worker:
        await worker.apply(full(task(attach_first=True)))
        await bench.until(lambda: "t1" in bench.machine.containers)
        assert bench.last("t1").state == S.STARTING and not bench.happened("start t1")
        bench.machine.containers["t1"].attached.set()
        await bench.reaches("t1", S.RUNNING)


async def test_a_container_whose_client_does_not_come_fails(bench: Bench) -> None:
    bench.options = replace(bench.options, attach_timeout=0.02)
    async with bench.agent() as worker:
        await worker.apply(full(task(attach_first=True)))
        status = await bench.reaches("t1", S.FAILED)
        assert "nobody attached to the container" in status.err
        assert not bench.happened("start t1")


async def test_a_job_completes(bench: Bench) -> None:
    async with bench.agent() as worker:
        await worker.apply(full(task(image="job")))
        status = await bench.reaches("t1", S.COMPLETE)
        assert (status.exit_code, status.err) == (0, "")
        await bench.until(lambda: bench.happened("release t1"))
        assert not bench.machine.containers
        assert not bench.machine.namespaces


async def test_a_crash_fails_with_its_code(bench: Bench) -> None:
    async with bench.agent() as worker:
        await worker.apply(full(task(image="crash")))
        status = await bench.reaches("t1", S.FAILED)
        assert (status.exit_code, status.err) == (1, "task: non-zero exit (1)")


async def test_an_oom_kill_is_told_apart(bench: Bench) -> None:
    async with bench.agent() as worker:
        await worker.apply(full(task()))
        await bench.reaches("t1", S.RUNNING)
        bench.machine.exit("t1", 137, oom=True)
        status = await bench.reaches("t1", S.FAILED)
        assert status.oom_killed
        assert status.err == "task: non-zero exit (137): OOM killed"


@pytest.mark.parametrize(
    ("changes", "state", "reason"),
    [
        ({"image": "missing"}, S.REJECTED, "manifest unknown"),
        ({"image": "nocommand"}, S.FAILED, "executable file not found"),
        ({"pids_mode": "service:db"}, S.REJECTED, "pid: service:db"),
        ({"network_mode": "service:db"}, S.REJECTED, "network_mode: service:db"),
        ({"healthcheck": Healthcheck(test=("CMD",))}, S.REJECTED, "healthcheck.test"),
        ({"env": ("A={{.Nope}}",)}, S.REJECTED, "env[0]"),
        ({"secrets": (FileReference(source_id="x", source_name="pw"),)}, S.REJECTED, "secret pw"),
    ],
)
async def test_what_cannot_be_done_is_said(
    bench: Bench, changes: dict[str, Any], state: TaskState, reason: str
) -> None:
    async with bench.agent() as worker:
        await worker.apply(full(task(**changes)))
        assert reason in (await bench.reaches("t1", state)).err
        await bench.until(lambda: bench.happened("release t1"))
        assert not bench.machine.namespaces


async def test_an_assignment_broken_off_is_made_good_by_the_next(bench: Bench) -> None:
    async with bench.agent() as worker:
        bench.machine.network_gate.clear()
        applied = asyncio.create_task(worker.apply(full(task())))
        await asyncio.sleep(0)
        applied.cancel()
        await asyncio.gather(applied, return_exceptions=True)
        bench.machine.network_gate.set()
        await worker.apply(full(task()))
        await bench.reaches("t1", S.RUNNING)


async def test_desired_ready_prepares_and_waits(bench: Bench) -> None:
    async with bench.agent() as worker:
        await worker.apply(full(task(desired=S.READY)))
        await bench.reaches("t1", S.READY)
        assert "t1" not in bench.machine.containers
        await worker.apply(delta(task(desired=S.RUNNING)))
        await bench.reaches("t1", S.RUNNING)


async def test_a_stop_sends_the_signal_and_cleans_up_before_it_is_reported(bench: Bench) -> None:
    async with bench.agent() as worker:
        await worker.apply(full(task(stop_signal="SIGQUIT")))
        await bench.reaches("t1", S.RUNNING)
        await worker.apply(delta(task(stop_signal="SIGQUIT", desired=S.SHUTDOWN)))
        status = await bench.reaches("t1", S.SHUTDOWN)
        assert status.exit_code == 143
        assert bench.happened("kill t1 SIGQUIT")
        assert bench.left_at_end["t1"] == (False, False)


async def test_sigkill_comes_after_the_grace_period(bench: Bench) -> None:
    async with bench.agent() as worker:
        await worker.apply(full(task(image="deaf", stop_grace_period=0.05)))
        await bench.reaches("t1", S.RUNNING)
        await worker.apply(delta(task(stop_grace_period=0.05, desired=S.SHUTDOWN)))
        assert (await bench.reaches("t1", S.SHUTDOWN)).exit_code == 137
        journal = bench.machine.journal
        assert journal.index("kill t1 SIGTERM") < journal.index("kill t1 SIGKILL")


async def test_a_stop_breaks_off_a_pull(bench: Bench) -> None:
    async with bench.agent() as worker:
        await worker.apply(full(task(image="slow")))
        await bench.reaches("t1", S.PREPARING)
        await worker.apply(delta(task(desired=S.SHUTDOWN)))
        await bench.reaches("t1", S.SHUTDOWN)
        assert "t1" not in bench.machine.started_in_all


async def test_a_slow_pull_is_shown(bench: Bench) -> None:
    async with bench.agent() as worker:
        await worker.apply(full(task(image="slow")))
        await bench.until(lambda: any(s.message == "pulling image slow" for s in bench.reports.get("t1", ())))
        bench.machine.pull_gate.set()
        assert (await bench.reaches("t1", S.RUNNING)).message == "started"


async def test_what_is_no_longer_assigned_is_stopped_and_forgotten(bench: Bench) -> None:
    async with bench.agent() as worker:
        await worker.apply(full(task("t1"), task("t2")))
        await bench.reaches("t1", S.RUNNING)
        await bench.reaches("t2", S.RUNNING)
        await worker.apply(delta(removed_tasks=("t1",)))
        await bench.until(lambda: "t1" not in worker.tasks(), "t1 forgotten")
        await worker.apply(full())
        await bench.until(lambda: not worker.tasks(), "all forgotten")
        assert not bench.machine.containers
        assert not bench.machine.layers
        assert list((bench.paths.run / "agent").glob("t*")) == []


async def test_an_ended_task_is_forgotten_when_it_is_unassigned(bench: Bench) -> None:
    async with bench.agent() as worker:
        await worker.apply(full(task(image="job")))
        await bench.reaches("t1", S.COMPLETE)
        await bench.until(lambda: bench.happened("release t1"))
        assert worker.tasks(), "its log is kept as long as the managers remember it"
        await worker.apply(delta(removed_tasks=("t1",)))
        await bench.until(lambda: not worker.tasks() and not bench.machine.layers)


async def test_unknown_containers_are_removed(bench: Bench) -> None:
    async with bench.agent() as worker:
        await worker.apply(full(task("stray")))
        await bench.reaches("stray", S.RUNNING)
    for path in (bench.paths.run / "agent").glob("stray*"):
        path.unlink()
    async with bench.agent() as worker:
        assert "stray" in bench.machine.containers, "nothing is killed before the managers have spoken"
        await worker.apply(full(task("t1")))
        await bench.reaches("t1", S.RUNNING)
        assert list(bench.machine.containers) == ["t1"]


# ------------------------------------------------------------------------------------ health and hooks


async def test_starting_until_healthy(bench: Bench) -> None:
    bench.machine.probes["t1"] = [(1, "not yet"), (0, "ok")]
    async with bench.agent() as worker:
        await worker.apply(full(task(image="checked")))
        status = await bench.reaches("t1", S.RUNNING)
        assert status.health == "healthy"
        waiting = [s for s in bench.reports["t1"] if s.state == S.STARTING and "not yet" in s.message]
        assert waiting
        assert waiting[0].health == "starting"


async def test_an_unhealthy_container_is_stopped(bench: Bench) -> None:
    bench.machine.probes["t1"] = [(0, "ok"), (1, "disk full")]
    check = Healthcheck(test=("CMD", "x"), interval=0.01, retries=2)
    async with bench.agent() as worker:
        await worker.apply(full(task(healthcheck=check)))
        status = await bench.reaches("t1", S.FAILED)
        assert status.err == "task: unhealthy container (probe exited 1): disk full"
        assert status.health == "unhealthy"
        assert bench.happened("kill t1 SIGTERM")
        assert not bench.machine.containers


async def test_an_exit_while_starting_is_an_exit(bench: Bench) -> None:
    bench.machine.probes["t1"] = [(1, "no")]
    async with bench.agent() as worker:
        await worker.apply(full(task(image="checked")))
        await bench.reaches("t1", S.STARTING)
        await bench.until(lambda: "t1" in bench.machine.started_in_all)
        bench.machine.exit("t1", 2)
        assert (await bench.reaches("t1", S.FAILED)).err == "task: non-zero exit (2)"


async def test_hooks_run_and_a_failed_post_start_fails_the_task(bench: Bench) -> None:
    async with bench.agent() as worker:
        good = task("t1", post_start=(Hook(command=("setup",)),), pre_stop=(Hook(command=("bye",)),))
        bad = task("t2", post_start=(Hook(command=("fail",)),))
        await worker.apply(full(good, bad))
        await bench.reaches("t1", S.RUNNING)
        status = await bench.reaches("t2", S.FAILED)
        assert status.err == "task: post_start[0] exited 3: it does not work"
        await worker.apply(delta(replace(good, desired_state=S.SHUTDOWN)))
        await bench.reaches("t1", S.SHUTDOWN)
        journal = bench.machine.journal
        assert (
            journal.index("exec t1 setup") < journal.index("exec t1 bye") < journal.index("kill t1 SIGTERM")
        )


# ------------------------------------------------------------------------------------ the rest of the node


async def test_host_ports_are_free_before_the_end_is_reported(bench: Bench) -> None:
    def with_port(task_id: str, desired: TaskState = S.RUNNING) -> Task:
        port = PortConfig(target_port=80, published_port=8080, publish_mode="host")
        return replace(task(task_id, desired=desired), endpoint=EndpointSpec(ports=(port,)))

    async with bench.agent() as worker:
        await worker.apply(full(with_port("t1")))
        assert (await bench.reaches("t1", S.RUNNING)).ports[0].published_port == 8080
        await worker.apply(delta(with_port("t2")))
        assert "in use" in (await bench.reaches("t2", S.FAILED)).err
        await worker.apply(delta(with_port("t1", S.SHUTDOWN)))
        await bench.reaches("t1", S.SHUTDOWN)
        await worker.apply(delta(with_port("t3")))
        await bench.reaches("t3", S.RUNNING)


async def test_another_tasks_network_is_shared(bench: Bench) -> None:
    async with bench.agent() as worker:
        await worker.apply(full(task("t1")))
        await bench.reaches("t1", S.RUNNING)
        await worker.apply(delta(task("t2", network_mode="service:t1")))
        await bench.reaches("t2", S.RUNNING)
        assert bench.machine.containers["t2"].launch.netns == bench.paths.netns("t1")
        await worker.apply(delta(task("t3", network_mode="host")))
        await bench.reaches("t3", S.RUNNING)
        launch = bench.machine.containers["t3"].launch
        assert (launch.netns, launch.hostname) == (None, "host1")


def _tables(node_of_other: str) -> NetworkTable:
    def member(task_id: str, node_id: str) -> Member:
        return Member(
            task_id=task_id,
            service_id="s",
            node_id=node_id,
            node_addr="",
            address="10.0.0.2",
            mac_address="",
            healthy=True,
        )

    network = Network(id="net", pools=(AllocatedPool(subnet="10.0.0.0/24", gateway="10.0.0.1"),))
    return NetworkTable(network=network, members=(member("t1", "node1"), member("o", node_of_other)))


@pytest.mark.parametrize(("other", "waits"), [("node1", False), ("node2", True)])
async def test_drains_only_when_other_nodes_send_to_it(bench: Bench, other: str, waits: bool) -> None:
    attached = replace(task(), networks=(NetworkAttachment(network_id="net"),))
    async with bench.agent() as worker:
        await worker.apply(full(attached, networks=(_tables(other),)))
        await bench.reaches("t1", S.RUNNING)
        await worker.apply(delta(replace(attached, desired_state=S.SHUTDOWN)))
        for _ in range(10):
            await asyncio.sleep(0)
        assert bench.happened("kill t1 SIGTERM") != waits
        await bench.reaches("t1", S.SHUTDOWN)


def test_generic_resources_as_variables() -> None:
    assigned = (
        GenericResource(kind="NVIDIA-GPU", string_value="uuid1"),
        GenericResource(kind="NVIDIA-GPU", string_value="uuid2"),
        GenericResource(kind="ssd", value=3),
    )
    assert generic_resources(assigned) == (
        "DOCKER_RESOURCE_NVIDIA-GPU=uuid1,uuid2",
        "DOCKER_RESOURCE_SSD=3",
    )


async def test_remove_all_leaves_nothing(bench: Bench) -> None:
    async with bench.agent() as worker:
        await worker.apply(full(task("t1"), task("t2", image="job"), task("t3", image="slow")))
        await bench.reaches("t1", S.RUNNING)
        await worker.remove_all()
        machine = bench.machine
        assert not (machine.containers or machine.namespaces or machine.layers or machine.mounted)
        assert bench.happened("network stop True")


# ------------------------------------------------------------------------------------ adoption


async def test_a_successor_adopts_what_runs_and_reaps_what_ended(bench: Bench) -> None:
    secret = Secret(id="x", spec=SecretSpec(name="pw", data=b"geheim"))
    async with bench.agent() as worker:
        await worker.apply(full(task("t1"), task("t2"), task("t3", desired=S.READY), secrets=(secret,)))
        for task_id, state in (("t1", S.RUNNING), ("t2", S.RUNNING), ("t3", S.READY)):
            await bench.reaches(task_id, state)
        await bench.until(lambda: (bench.paths.run / "agent" / "assignment").exists())
    bench.machine.exit("t2", 5)
    bench.reports.clear()
    async with bench.agent() as worker:
        assert (await bench.reaches("t2", S.FAILED)).exit_code == 5
        assert {update.task_id: update.status.state for update in worker.statuses()}["t1"] == S.RUNNING
        needs = FileReference(source_id="x", source_name="pw")
        await worker.apply(delta(task("t4", secrets=(needs,)), task("t3")))
        await bench.reaches("t4", S.RUNNING)
        await bench.reaches("t3", S.RUNNING)
        bench.machine.exit("t1", 0)
        await bench.reaches("t1", S.COMPLETE)
    assert bench.machine.started_in_all == {"t1": 1, "t2": 1, "t3": 1, "t4": 1}


async def test_no_secret_is_written_to_the_state_directory(bench: Bench) -> None:
    secret = Secret(id="x", spec=SecretSpec(name="pw", data=b"geheim"))
    async with bench.agent() as worker:
        await worker.apply(full(task(env=("PASSWORD=geheim",)), secrets=(secret,)))
        await bench.reaches("t1", S.RUNNING)
        await bench.until(lambda: (bench.paths.run / "agent" / "assignment").exists())
    for path in bench.paths.state.rglob("*"):
        assert not path.is_file() or b"geheim" not in path.read_bytes()


async def test_after_a_reboot_what_ran_has_failed_and_is_not_run_again(bench: Bench) -> None:
    async with bench.agent() as worker:
        await worker.apply(full(task("t1"), task("t2", image="job"), task("t3", desired=S.READY)))
        for task_id, state in (("t1", S.RUNNING), ("t2", S.COMPLETE), ("t3", S.READY)):
            await bench.reaches(task_id, state)
    bench.machine.reboot()
    for path in (bench.paths.run / "agent").iterdir():
        path.unlink()
    bench.reports.clear()
    async with bench.agent() as worker:
        stale = TaskStatus(state=S.STARTING)
        await worker.apply(
            full(
                replace(task("t1"), status=stale),
                replace(task("t2", image="job"), status=stale),
                task("t3", desired=S.READY),
            )
        )
        assert "restarted" in (await bench.reaches("t1", S.FAILED)).err
        await bench.reaches("t2", S.COMPLETE)
        await bench.reaches("t3", S.READY)
    assert bench.machine.started_in_all == {"t1": 1, "t2": 1}


async def test_a_running_task_of_the_managers_without_a_container_has_failed(bench: Bench) -> None:
    async with bench.agent() as worker:
        await worker.apply(full(replace(task(), status=TaskStatus(state=S.RUNNING))))
        await bench.reaches("t1", S.FAILED)
    assert not bench.machine.started_in_all


async def test_images_nobody_uses_are_let_go_and_the_network_is_repaired(bench: Bench) -> None:
    bench.machine.mounted.add("of-a-former-agent")
    bench.options = replace(bench.options, resync_interval=0.02)
    async with bench.agent() as worker:
        await worker.apply(full(task("t1"), task("t2", image="job")))
        await bench.reaches("t1", S.RUNNING)
        await bench.reaches("t2", S.COMPLETE)
        await bench.until(lambda: bench.machine.mounted == {"web"})
        await bench.until(lambda: bench.happened("repair"))


async def test_an_image_that_came_and_went_between_two_looks_is_let_go(bench: Bench) -> None:
    bench.machine.mounted.add("of-a-former-agent")
    bench.options = replace(bench.options, resync_interval=0.2)
    async with bench.agent() as worker:
        await bench.until(lambda: not bench.machine.mounted)
        await worker.apply(full(task("t1", image="job")))
        await bench.reaches("t1", S.COMPLETE)
        await bench.until(lambda: not bench.machine.mounted)


async def test_damaged_records_are_survived(bench: Bench) -> None:
    async with bench.agent() as worker:
        await worker.apply(full(task("t1"), task("t2")))
        await bench.reaches("t1", S.RUNNING)
        running = await bench.reaches("t2", S.RUNNING)
    (bench.paths.run / "agent" / "t1.task").write_bytes(b"\xff\xff\xff")
    (bench.paths.run / "agent" / "assignment").write_bytes(b"\xff")
    async with bench.agent() as worker:
        await worker.apply(full(replace(task("t1"), status=running), task("t2")))
        bench.machine.exit("t1", 0)
        await bench.reaches("t1", S.COMPLETE)
        assert worker.tasks()["t2"].status.state == S.RUNNING
    assert bench.machine.started_in_all == {"t1": 1, "t2": 1}


@pytest.mark.parametrize("steps", range(1, 60, 3))
async def test_killed_at_any_moment_nothing_runs_twice(bench: Bench, steps: int) -> None:
    """The agent is cut off after a number of turns of the loop; its successor brings the task up."""
    wanted = full(task("t1"), task("t2", image="job"))
    async with bench.agent() as worker:
        applied = asyncio.create_task(worker.apply(wanted))
        for _ in range(steps):
            await asyncio.sleep(0)
        applied.cancel()
        await asyncio.gather(applied, return_exceptions=True)
    async with bench.agent() as worker:
        await worker.apply(wanted)
        await bench.reaches("t1", S.RUNNING)
        await bench.until(lambda: worker.tasks()["t2"].status.state == S.COMPLETE)
    assert bench.machine.started_in_all == {"t1": 1, "t2": 1}


async def test_a_restart_stays_in_its_container(bench: Bench) -> None:
    async with bench.agent() as worker:
        await worker.apply(full(task()))
        first = await bench.reaches("t1", S.RUNNING)
        bench.machine.journal.clear()
        await worker.restart("t1", 0.01)
        assert bench.machine.journal == ["kill t1 SIGTERM", "delete t1", "create t1", "start t1"]
        again = bench.last("t1")
        assert again.state == S.RUNNING and again.message == "restarted"
        assert again.started_at > first.started_at
        assert "t1" in bench.machine.layers
        bench.machine.exit("t1", 3)
        assert (await bench.reaches("t1", S.FAILED)).exit_code == 3
        with pytest.raises(NotFound, match="does not run on this node"):
            await worker.restart("t1")


async def test_a_stop_during_a_restart_comes_after_it(bench: Bench) -> None:
    async with bench.agent() as worker:
        await worker.apply(full(task(image="deaf", stop_grace_period=0.05)))
        await bench.reaches("t1", S.RUNNING)
        restarting = asyncio.create_task(worker.restart("t1", 0.2))
        await bench.until(lambda: bench.happened("kill t1 SIGTERM"))
        await worker.apply(
            delta(replace(task(image="deaf", stop_grace_period=0.05), desired_state=S.SHUTDOWN))
        )
        await restarting
        await bench.reaches("t1", S.SHUTDOWN)
        assert bench.machine.journal.count("start t1") == 2


async def test_a_restart_of_what_ends_by_itself_meanwhile_is_refused_or_done(bench: Bench) -> None:
    async with bench.agent() as worker:
        await worker.apply(full(task()))
        await bench.reaches("t1", S.RUNNING)
        restarting = asyncio.create_task(worker.restart("t1", 0.2))
        bench.machine.exit("t1", 1)
        with pytest.raises(NotFound, match="has ended"):
            await restarting
        assert (await bench.reaches("t1", S.FAILED)).exit_code == 1
