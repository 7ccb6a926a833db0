"""A fake set of the worker's ports: containers, images, storage and network that only exist in memory.

`Machine` is what outlives an agent; several agents in a row may be put over the same one. What a container
does is told by the test (`machine.exit(task_id, code)`), or by its image's name: `job` exits with 0 at once,
`crash` with 1, `deaf` ignores every signal but SIGKILL.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from node_agent.ports import (
    BindMount,
    ExecEvent,
    ExecInput,
    ExecRequest,
    Exit,
    ImageConfig,
    Launch,
    Paths,
)
from pyswarm.errors import Conflict, Invalid, NotFound
from pyswarm.objects import Config, ContainerStats, IngressPort, NetworkTable, Secret, Task, Volume
from pyswarm.specs import Healthcheck, PortConfig


@dataclass(slots=True)
class FakeContainer:
    launch: Launch
    started: bool = False
    starts: int = 0
    ended: Exit | None = None
    signals: list[str] = field(default_factory=list[str])
    waiters: asyncio.Event = field(default_factory=asyncio.Event)
    attached: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class Machine:
    """The state of a fake machine, and what happened on it."""

    containers: dict[str, FakeContainer] = field(default_factory=dict[str, FakeContainer])
    namespaces: set[str] = field(default_factory=set[str])
    layers: set[str] = field(default_factory=set[str])
    host_ports: dict[int, str] = field(default_factory=dict[int, str])
    journal: list[str] = field(default_factory=list[str])
    probes: dict[str, list[tuple[int, str]]] = field(default_factory=dict[str, list[tuple[int, str]]])
    """Results of probes to come, by task; the last one is repeated."""
    images: dict[str, ImageConfig] = field(default_factory=dict[str, ImageConfig])
    mounted: set[str] = field(default_factory=set[str])
    tables: dict[str, NetworkTable] = field(default_factory=dict[str, NetworkTable])
    started_in_all: dict[str, int] = field(default_factory=dict[str, int])
    """How often each task's process was started, ever."""
    pull_gate: asyncio.Event = field(default_factory=asyncio.Event)
    """The image `slow` is pulled once this is set."""
    network_gate: asyncio.Event = field(default_factory=asyncio.Event)
    """Tables are applied only while this is set."""

    def __post_init__(self) -> None:
        self.network_gate.set()

    def exit(self, task_id: str, code: int, *, oom: bool = False) -> None:
        """The container's process ends."""
        container = self.containers[task_id]
        if container.ended is None:
            container.ended = Exit(code=code, oom_killed=oom, finished_at=1.0)
            container.waiters.set()

    def reboot(self) -> None:
        """Nothing that ran is left."""
        self.containers.clear()
        self.namespaces.clear()
        self.host_ports.clear()
        self.mounted.clear()


class FakeRuntime:
    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    async def create(self, launch: Launch) -> int:
        task_id, image = launch.task.id, launch.task.spec.container.image
        self._machine.journal.append(f"create {task_id}")
        await asyncio.sleep(0)
        if launch.netns is not None and launch.netns.name not in self._machine.namespaces:
            raise Invalid("no such namespace")
        if image == "nocommand":
            raise Invalid('exec: "nope": executable file not found in $PATH')
        if task_id not in self._machine.containers:
            self._machine.containers[task_id] = FakeContainer(launch)
        return 1000 + len(self._machine.containers)

    async def start(self, task_id: str) -> None:
        container = self._need(task_id)
        await asyncio.sleep(0)
        if container.started:
            return
        container.started = True
        self._machine.started_in_all[task_id] = self._machine.started_in_all.get(task_id, 0) + 1
        self._machine.journal.append(f"start {task_id}")
        image = container.launch.task.spec.container.image
        if image in ("job", "crash"):
            self._machine.exit(task_id, 0 if image == "job" else 1)

    async def kill(self, task_id: str, signal: str) -> None:
        container = self._need(task_id)
        if container.ended is not None:
            raise NotFound(task_id)
        self._machine.journal.append(f"kill {task_id} {signal}")
        container.signals.append(signal)
        if signal == "SIGKILL":
            self._machine.exit(task_id, 137)
        elif container.launch.task.spec.container.image != "deaf":
            self._machine.exit(task_id, 143)

    async def wait(self, task_id: str) -> Exit:
        container = self._need(task_id)
        await container.waiters.wait()
        assert container.ended is not None
        return container.ended

    async def delete(self, task_id: str) -> None:
        if task_id in self._machine.containers:
            self._machine.journal.append(f"delete {task_id}")
            self._machine.exit(task_id, 137)
            await asyncio.sleep(0)
            self._machine.containers.pop(task_id, None)

    async def running(self, task_id: str) -> bool:
        container = self._machine.containers.get(task_id)
        return container is not None and container.ended is None

    async def known(self) -> Sequence[str]:
        return sorted(self._machine.containers)

    async def attach(
        self, task_id: str, *, rows: int, cols: int, inputs: AsyncIterator[ExecInput]
    ) -> AsyncIterator[ExecEvent]:
        self._need(task_id).attached.set()
        ended = await self.wait(task_id)

        async def events() -> AsyncIterator[ExecEvent]:
            yield "exit", str(ended.code).encode()

        return events()

    async def attached(self, task_id: str) -> None:
        await self._need(task_id).attached.wait()

    async def exec(
        self, task_id: str, request: ExecRequest, stdin: AsyncIterator[ExecInput]
    ) -> AsyncIterator[ExecEvent]:
        self._machine.journal.append(f"exec {task_id} {' '.join(request.argv)}")
        return self._events(request)

    async def _events(self, request: ExecRequest) -> AsyncIterator[ExecEvent]:
        if request.argv[0] == "fail":
            yield ("stderr", b"it does not work\n")
            yield ("exit", b"3")
        else:
            yield ("exit", b"0")

    async def probe(self, task_id: str, argv: Sequence[str], timeout: float) -> tuple[int, str]:
        self._need(task_id)
        results = self._machine.probes.setdefault(task_id, [(0, "ok")])
        return results.pop(0) if len(results) > 1 else results[0]

    async def stats(self, task_id: str) -> ContainerStats:
        self._need(task_id)
        return ContainerStats(task_id=task_id)

    def _need(self, task_id: str) -> FakeContainer:
        if task_id not in self._machine.containers:
            raise NotFound(f"no container of task {task_id}")
        return self._machine.containers[task_id]


class FakeImages:
    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    async def ensure(self, reference: str, policy: str, auth: str) -> ImageConfig:
        self._machine.journal.append(f"ensure {reference} {policy}")
        await asyncio.sleep(0)
        if reference == "missing":
            raise Invalid("cannot pull image missing: manifest unknown")
        if reference == "slow":
            await self._machine.pull_gate.wait()
        name = reference.removeprefix("sha256:")
        check = Healthcheck(test=("CMD", "true"), interval=10.0) if name == "checked" else None
        return self._machine.images.setdefault(
            name, ImageConfig(id=name, digest=f"sha256:{name}", healthcheck=check)
        )

    async def mount(self, image: ImageConfig) -> Path:
        await asyncio.sleep(0)
        self._machine.mounted.add(image.id)
        return Path("/images") / image.id

    async def release(self, in_use: Sequence[str]) -> None:
        self._machine.mounted &= set(in_use)


class FakeStorage:
    def __init__(self, machine: Machine, paths: Paths) -> None:
        self._machine = machine
        self._paths = paths

    async def prepare(
        self,
        task: Task,
        image: ImageConfig,
        lower: Path,
        secrets: Mapping[str, Secret],
        configs: Mapping[str, Config],
        volumes: Mapping[str, Volume],
    ) -> tuple[Path, Sequence[BindMount]]:
        self._machine.layers.add(task.id)
        await asyncio.sleep(0)
        for number, secret in enumerate(task.spec.container.secrets):
            if secret.source_id not in secrets:
                raise Invalid(f"secrets[{number}]: secret {secret.source_name} is not on this node")
        return self._paths.task_state(task.id) / "merged", ()

    async def resolve_user(
        self, task: Task, image: ImageConfig, root: Path
    ) -> tuple[tuple[int, int, tuple[int, ...]], str]:
        return (0, 0, ()), "/root"

    async def release(self, task_id: str, *, keep_layer: bool) -> None:
        self._machine.journal.append(f"release {task_id}")

    async def forget(self, task_id: str) -> None:
        self._machine.layers.discard(task_id)
        status = self._paths.task_state(task_id) / "status"
        status.unlink(missing_ok=True)

    async def known(self) -> Sequence[str]:
        return sorted(self._machine.layers)


class FakeNetwork:
    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    async def start(self) -> None:
        self._machine.journal.append("network start")

    async def attach(self, task: Task) -> Sequence[BindMount]:
        await asyncio.sleep(0)
        if task.spec.container.network_mode != "host":
            self._machine.namespaces.add(task.id)
        return (BindMount(source=f"/run/{task.id}/hosts", target="/etc/hosts"),)

    async def publish(self, task: Task) -> Sequence[PortConfig]:
        for port in task.endpoint.ports:
            holder = self._machine.host_ports.setdefault(port.published_port, task.id)
            if holder != task.id:
                raise Conflict(f"port {port.published_port}/tcp is in use by {holder}")
        return task.endpoint.ports

    async def detach(self, task_id: str) -> None:
        await asyncio.sleep(0)
        self._machine.journal.append(f"detach {task_id}")
        self._machine.namespaces.discard(task_id)
        for port in [port for port, holder in self._machine.host_ports.items() if holder == task_id]:
            del self._machine.host_ports[port]

    async def apply(
        self, networks: Mapping[str, NetworkTable], ingress: Sequence[IngressPort], tasks: Mapping[str, Task]
    ) -> None:
        await self._machine.network_gate.wait()
        self._machine.journal.append("network apply")
        self._machine.tables = dict(networks)

    async def known(self) -> Sequence[str]:
        return sorted(self._machine.namespaces)

    async def repair(self) -> Sequence[str]:
        self._machine.journal.append("repair")
        return ()

    async def stop(self, *, remove: bool) -> None:
        self._machine.journal.append(f"network stop {remove}")
