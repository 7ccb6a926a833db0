"""The worker with every part real: buildah's image, overlay mount, namespace, conmon and runc."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from node_agent.images.buildah import Images
from node_agent.logs import Logs
from node_agent.network.manager import NetworkManager
from node_agent.ports import Paths
from node_agent.runtime.oci import Conmon
from node_agent.storage import Storage
from node_agent.worker import Worker
from pyswarm.clock import SystemClock
from pyswarm.objects import (
    AllocatedPool,
    Assignments,
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
)
from pyswarm.specs import (
    ContainerSpec,
    EndpointSpec,
    FileReference,
    Healthcheck,
    Hook,
    Mount,
    NetworkSpec,
    PortConfig,
    ResourceRequirements,
    Resources,
    SecretSpec,
    TaskSpec,
)
from tests.integration.image_lab import *  # noqa: F403  fixtures
from tests.integration.image_lab import Lab, built

pytestmark = pytest.mark.root

S = TaskState
DEADLINE = 30.0
NODE = Node(id="node1", description=NodeDescription(hostname="host1"))
NETWORK = Network(
    id="net1",
    spec=NetworkSpec(name="front"),
    pools=(AllocatedPool(subnet="10.91.7.0/24", gateway="10.91.7.1"),),
    vni=4999,
)


class Agent:
    """One machine's paths, and agents that come and go on it."""

    def __init__(self, lab: Lab, images: Images) -> None:
        self.paths: Paths = replace(lab.paths, cgroup_parent=f"/{lab.directory.name}")
        self.images = images
        self.reports: dict[str, TaskStatus] = {}
        self._news = asyncio.Event()
        self.network = self._network()

    def _network(self) -> NetworkManager:
        return NetworkManager(
            self.paths, node_id="node1", data_path_addr="127.0.0.1", data_path_port=14789, prefix="wk"
        )

    def _report(self, update: TaskStatusUpdate) -> None:
        self.reports[update.task_id] = update.status
        self._news.set()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Worker]:
        """An agent; leaving it leaves the containers."""
        runtime = Conmon(self.paths)
        self.network = self._network()
        worker = Worker(
            paths=self.paths,
            node=NODE,
            runtime=runtime,
            images=Images(self.paths),
            storage=Storage(self.paths, NODE),
            network=self.network,
            clock=SystemClock(),
            report=self._report,
        )
        try:
            async with worker:
                yield worker
        finally:
            await self.network.stop(remove=False)
            runtime.close()

    async def reaches(self, task_id: str, state: TaskState) -> TaskStatus:
        async with asyncio.timeout(DEADLINE):
            while task_id not in self.reports or self.reports[task_id].state != state:
                status = self.reports.get(task_id)
                if status is not None and status.state > state:
                    pytest.fail(f"{task_id} is {status}")
                self._news.clear()
                await self._news.wait()
        return self.reports[task_id]

    async def says(self, task_id: str, word: str) -> None:
        """Wait until the container has printed a word."""
        lines = Logs(self.paths).read(
            task_id, follow=True, tail=-1, since=0, until=0, stdout=True, stderr=True
        )
        async with asyncio.timeout(DEADLINE):
            async for line in lines:
                if word in line.data.decode():
                    return

    async def logged(self, task_id: str) -> str:
        lines = Logs(self.paths).read(
            task_id, follow=False, tail=-1, since=0, until=0, stdout=True, stderr=True
        )
        return "".join([line.data.decode() async for line in lines])


@pytest.fixture
async def agent(lab: Lab, images: Images) -> AsyncGenerator[Agent]:
    """Afterwards the node has left its cluster: nothing is left on the machine."""
    await built(lab, images)
    agent = Agent(lab, images)
    yield agent
    async with agent.running() as worker:
        await worker.apply(Assignments())
        await worker.remove_all()
    runtime = Conmon(agent.paths)
    assert not await runtime.known()
    assert runtime.remove_parent()
    runtime.close()
    assert not list((agent.paths.state / "tasks").iterdir())


def task(task_id: str, *argv: str, desired: TaskState = S.RUNNING, number: int = 2, **spec: Any) -> Task:
    resources = spec.pop("resources", ResourceRequirements())
    container: dict[str, Any] = {"command": argv or ("/bin/sleep", "1000"), "stop_grace_period": 0.2, **spec}
    return Task(
        id=task_id,
        service_id=f"s-{task_id}",
        service_name=f"shop_{task_id}",
        slot=1,
        node_id="node1",
        spec=TaskSpec(container=ContainerSpec(image="demo:1", **container), resources=resources),
        status=TaskStatus(state=S.ASSIGNED),
        desired_state=desired,
        networks=(NetworkAttachment(network_id="net1", addresses=(f"10.91.7.{number}/24",)),),
    )


def full(*tasks: Task, **rest: Any) -> Assignments:
    return Assignments(tasks=tasks, networks=(NetworkTable(network=NETWORK),), **rest)


async def test_everything_a_task_has(lab: Lab, agent: Agent) -> None:
    script = (
        "id; hostname; cat /run/secrets/pw; echo; cat /data/greeting; touch /data/mine /written; echo $HOME $A; "
        "grep -c 10.91.7.2 /etc/hosts; cat /proc/mounts | grep -c secrets; exit 3"
    )
    wanted = task(
        "t1",
        "/bin/sh",
        "-c",
        script,
        user="app",
        hostname="{{.Service.Name}}-{{.Task.Slot}}",
        env=("A={{.Node.Hostname}}",),
        secrets=(FileReference(source_id="x", source_name="pw"),),
        mounts=(Mount(source="db", target="/data"),),
    )
    secret = Secret(id="x", spec=SecretSpec(name="pw", data=b"geheim"))
    async with agent.running() as worker:
        await worker.apply(full(wanted, secrets=(secret,)))
        status = await agent.reaches("t1", S.FAILED)
        assert (status.exit_code, status.err) == (3, "task: non-zero exit (3)")
        text = await agent.logged("t1")
        assert (
            text.splitlines()[:5]
            == [
                "uid=1000(app) gid=1001(app) groups=2000(extra)",
                "shop_t1-1",
                "geheim",
                "hello",
                "touch: /written: Permission denied",
            ]
            or "Permission denied" in text
        ), text
        assert "/home/app host1" in text
        assert (agent.paths.state / "volumes" / "db" / "_data" / "mine").exists()


async def test_stop_signals_and_hooks(agent: Agent) -> None:
    trap = 'trap "echo got it; exit 0" USR1; echo up; while :; do sleep 0.05; done'
    polite = task("t1", "/bin/sh", "-c", trap, stop_signal="SIGUSR1",
                  pre_stop=(Hook(command=("/bin/sh", "-c", "echo bye > /bye")),))  # fmt: skip
    deaf = task(
        "t2", "/bin/sh", "-c", 'trap "" INT; while :; do sleep 0.05; done', stop_grace_period=0.3, number=3
    )
    async with agent.running() as worker:
        await worker.apply(full(polite, deaf))
        await agent.reaches("t1", S.RUNNING)
        await agent.reaches("t2", S.RUNNING)
        await agent.says("t1", "up")
        await worker.apply(full(*(replace(each, desired_state=S.SHUTDOWN) for each in (polite, deaf))))
        assert (await agent.reaches("t1", S.SHUTDOWN)).exit_code == 0
        assert "got it" in await agent.logged("t1")
        assert (await agent.reaches("t2", S.SHUTDOWN)).exit_code == 137


async def test_health_for_real(agent: Agent) -> None:
    script = "sleep 0.6; touch /tmp/up; sleep 1; rm /tmp/up; sleep 1000"
    check = Healthcheck(
        test=("CMD-SHELL", "test -e /tmp/up || { echo it is down; false; }"), interval=0.2, start_period=10.0
    )
    async with agent.running() as worker:
        await worker.apply(
            full(task("t1", "/bin/sh", "-c", script, healthcheck=check, stop_grace_period=0.1))
        )
        await agent.reaches("t1", S.RUNNING)
        status = await agent.reaches("t1", S.FAILED)
        assert status.err == "task: unhealthy container (probe exited 1): it is down"


async def test_an_oom_kill(agent: Agent) -> None:
    limits = ResourceRequirements(limits=Resources(memory=8 << 20), swap=0)
    async with agent.running() as worker:
        hungry = task("t1", "/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=64M", resources=limits)
        await worker.apply(full(hungry))
        status = await agent.reaches("t1", S.FAILED)
        assert status.err == "task: non-zero exit (137): OOM killed"


async def test_what_cannot_run_says_why(agent: Agent) -> None:
    async with agent.running() as worker:
        nope = task("t1", "/bin/nope")
        missing = replace(task("t2", number=3), spec=TaskSpec(container=ContainerSpec(image="127.0.0.1:1/x")))
        await worker.apply(full(nope, missing))
        assert "/bin/nope" in (await agent.reaches("t1", S.FAILED)).err
        assert "cannot pull image 127.0.0.1:1/x" in (await agent.reaches("t2", S.REJECTED)).err


async def test_a_host_port_is_free_again_when_the_end_is_reported(agent: Agent) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = int(probe.getsockname()[1])
    port = PortConfig(target_port=80, published_port=number, publish_mode="host")
    async with agent.running() as worker:
        first = replace(task("t1"), endpoint=EndpointSpec(ports=(port,)))
        second = replace(task("t2", number=3), endpoint=EndpointSpec(ports=(port,)))
        await worker.apply(full(first))
        assert (await agent.reaches("t1", S.RUNNING)).ports == (port,)
        await worker.apply(full(replace(first, desired_state=S.SHUTDOWN)))
        await agent.reaches("t1", S.SHUTDOWN)
        await worker.apply(full(second))
        await agent.reaches("t2", S.RUNNING)


async def test_network_modes_and_image_mounts(agent: Agent) -> None:
    owner = task("t1")
    script = "cat /proc/net/dev | grep -c eth0; cat /etc/hosts | grep -c 10.91.7.2; ls /other/bin/busybox"
    guest = task(
        "t2",
        "/bin/sh",
        "-c",
        script,
        network_mode="service:t1",
        mounts=(Mount(type="image", source="demo:1", target="/other"),),
    )
    on_host = task(
        "t3", "/bin/sh", "-c", "readlink /proc/self/ns/net; grep -c localhost /etc/hosts", network_mode="host"
    )
    alone = task("t4", "/bin/sh", "-c", "tail -n +3 /proc/net/dev | wc -l", network_mode="none")
    async with agent.running() as worker:
        await worker.apply(full(owner))
        await agent.reaches("t1", S.RUNNING)
        lone = [replace(each, networks=()) for each in (guest, on_host, alone)]
        await worker.apply(full(owner, *lone))
        for each in lone:
            await agent.reaches(each.id, S.COMPLETE)
        assert (await agent.logged("t2")).split() == ["1", "1", "/other/bin/busybox"]
        namespace, names = (await agent.logged("t3")).split()
        assert namespace == str(Path("/proc/self/ns/net").readlink())
        assert int(names) > 0
        assert (await agent.logged("t4")).strip() == "1", "loopback alone"
        assert worker.tasks()["t1"].status.state == S.RUNNING, "the guest's end leaves the owner's network"


async def test_adoption_without_a_restart(agent: Agent) -> None:
    tasks = (
        task("t1"),
        task("t2", number=3),
        task("t3", "/bin/sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done", number=4),
    )
    async with agent.running() as worker:
        await worker.apply(full(*tasks))
        pids = [(await agent.reaches(each.id, S.RUNNING)).pid for each in tasks]
        await agent.says("t3", "up")
    os.kill(pids[2], signal.SIGTERM)
    async with agent.running() as worker:
        assert (await agent.reaches("t3", S.FAILED)).exit_code == 7
        assert [worker.tasks()[each].status.pid for each in ("t1", "t2")] == pids[:2]
        assert all(Path(f"/proc/{pid}").exists() for pid in pids[:2])
        await worker.apply(full(*tasks[:2]))
        os.kill(pids[0], signal.SIGKILL)
        assert (await agent.reaches("t1", S.FAILED)).exit_code == 137
        await worker.apply(full(replace(tasks[1], desired_state=S.SHUTDOWN)))
        await agent.reaches("t2", S.SHUTDOWN)


async def test_a_wave_of_tasks(agent: Agent) -> None:
    """Twenty at once come up and go; nothing of theirs is left but logs."""
    tasks = tuple(task(f"t{n}", number=10 + n) for n in range(20))
    async with agent.running() as worker:
        await worker.apply(full(*tasks))
        for each in tasks:
            await agent.reaches(each.id, S.RUNNING)
        await worker.apply(full(*(replace(each, desired_state=S.SHUTDOWN) for each in tasks)))
        for each in tasks:
            await agent.reaches(each.id, S.SHUTDOWN)
        await worker.apply(full())
        await worker.remove_all()
        assert not worker.tasks()
        assert not list((agent.paths.state / "tasks").iterdir())
