"""One run: a cluster, clients, a seed's faults, and the judgement when all is calm again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pyswarm.client import Client
from pyswarm.errors import PyswarmError
from pyswarm.lab import Machine
from pyswarm.objects import Node, NodeState, Service, Task, TaskState
from tests.chaos import clocks, disks
from tests.chaos.clients import IMAGE, NETWORK, VALUE, Names, Reader, Record, Writer, judge
from tests.chaos.injector import Injector
from tests.chaos.linear import check
from tests.chaos.model import LINGERING, OBJECT
from tests.chaos.plan import plan
from tests.e2e.cluster import busybox_context
from tests.e2e.lab_cluster import LabCluster, containers_of

MANAGERS, WORKERS = 3, 2
DISKS = ("m3", "w2")
"""Machines with a small disk of their own."""
DISK = 448
"""MiB of it: etcd reserves 64 for each of its logs."""
CALM = 90.0
"""Seconds in which a cluster without faults must be well and have what was asked of it. An agent or manager that
failed often waits up to 10 before it is started again."""


Note = Callable[[str], None]
Question = Callable[[], Awaitable[str]]


class Violated(AssertionError):
    """What must hold does not; the text says what."""


@dataclass(slots=True)
class Outcome:
    """What came of a run."""

    seed: int
    duration: float
    timeline: list[str] = field(default_factory=list[str])
    record: Record = field(default_factory=Record)
    error: BaseException | None = None
    logs: Path | None = None
    """Where the machines' logs are kept, after a failure."""

    def story(self) -> str:
        """For a person: how to repeat it, what happened, what is wrong."""
        again = f"python -m tests.chaos --seed {self.seed} --duration {self.duration:.0f}"
        head = f"seed {self.seed}: repeat with `{again}`"
        lines = [head, *self.timeline]
        if self.error is not None:
            lines.append(f"{type(self.error).__name__}: {self.error}")
        if self.logs is not None:
            lines.append(f"the machines' logs are in {self.logs}")
        return "\n".join(lines)


class ChaosCluster(LabCluster):
    """Three managers and two workers; two small disks, and a clock for each."""

    def __init__(self) -> None:
        super().__init__("psc", MANAGERS, WORKERS, "198.18.91.0/24")
        try:
            for machine in self.lab.machines:
                clocks.give(machine)
                if machine.name in DISKS:
                    disks.give(machine, DISK)
            self.init()
            self.lab.join_all()
            self._prepare()
        except BaseException:
            self.leave()
            raise

    def _prepare(self) -> None:
        """The image comes to every machine with a service that goes again: what is there then is the least that a
        machine has."""
        self.build(IMAGE, busybox_context(self.directory))
        self.cli("network", "create", "-d", "overlay", NETWORK)
        self.cli("service", "create", "-d", "--name", "seed", "--mode", "global", IMAGE, "sleep", "1000000")
        self.wait_running("seed", MANAGERS + WORKERS)
        self.cli("service", "rm", "seed")
        deadline = time.monotonic() + CALM
        while any(map(containers_of, self.lab.machines)) or self.tasks():
            if time.monotonic() > deadline:
                raise Violated("the first service's containers do not end")
            time.sleep(0.1)

    @property
    def managers(self) -> tuple[Machine, ...]:
        return self.lab.machines[:MANAGERS]

    def leave(self) -> None:
        super().leave()
        clocks.clear()


def run(seed: int, duration: float, *, logs: Path | None = None, show: bool = False) -> Outcome:
    """Play a seed. `logs` is where the machines' logs go when it fails; `show` prints the timeline as it comes."""
    outcome = Outcome(seed, duration)
    begin = time.monotonic()

    def note(text: str) -> None:
        line = f"{time.monotonic() - begin:8.2f}  {text}"
        outcome.timeline.append(line)
        if show:
            print(line, flush=True)

    assert os.geteuid() == 0, "chaos needs root"
    cluster = ChaosCluster()
    try:
        note("the cluster is up")
        least = {machine.name: leavings(machine) for machine in cluster.lab.machines}
        begin = time.monotonic()
        asyncio.run(_Run(cluster, outcome, note, least).play())
    except BaseException as error:
        outcome.error = error
        if logs is not None:
            outcome.logs = _keep_logs(cluster, logs / f"seed-{seed}")
        if not isinstance(error, Exception):
            raise
    finally:
        cluster.leave()
    if outcome.error is None and (left := cluster.traces()):
        outcome.error = Violated("left on this machine after the lab is down:\n" + "\n".join(left))
    return outcome


class _Run:
    def __init__(
        self, cluster: ChaosCluster, outcome: Outcome, note: Note, least: dict[str, set[str]]
    ) -> None:
        self._cluster = cluster
        self._lab = cluster.lab
        self._seed = outcome.seed
        self._duration = outcome.duration
        self._record = outcome.record
        self._note = note
        self._least = least

    async def play(self) -> None:
        await self._storm()
        await self._calm()
        await judge(self._cluster.managers, self._record)
        self._note(f"{self._record.operations} operations, {self._record.acknowledged} acknowledged writes")
        problems = [*self._record.surprises, *self._histories()]
        problems += await self._settled()
        problems += await self._nothing_left()
        if problems:
            raise Violated("\n".join(problems))

    # ------------------------------------------------------------------------------ the storm

    async def _storm(self) -> None:
        machines = self._lab.machines
        names = [[m.name for m in machines if m.role == role] for role in ("manager", "worker")]
        faults = plan(self._seed, self._duration, names[0], names[1], DISKS)
        chance = random.Random(self._seed)
        used = Names(asyncio.get_running_loop().time())
        clients = [
            Writer(f"writer{n}", self._cluster.managers, self._record, used, chance, n) for n in range(3)
        ]
        readers = [Reader(f"reader{n}", self._cluster.managers, self._record, used, chance) for n in range(2)]
        work = [asyncio.create_task(client.run()) for client in (*clients, *readers)]
        try:
            await Injector(self._lab, self._note).run(faults)
        finally:
            for task in work:
                task.cancel()
            results = await asyncio.gather(*work, return_exceptions=True)
            for client in (*clients, *readers):
                await client.close()
        for result in results:
            if not isinstance(result, asyncio.CancelledError) and isinstance(result, BaseException):
                raise result

    async def _calm(self) -> None:
        """Wait until every manager answers, one leads, and all nodes are ready."""
        self._note("the faults are over")
        await self._until(self._well, "every manager answers, one leads, and all nodes are ready")

    async def _well(self) -> str:
        """What is not well yet; "" if all is."""
        leaders: list[str] = []
        nodes: Sequence[Node] = ()
        for machine in self._cluster.managers:
            async with Client.local(machine.run / "pyswarm.sock", 5.0) as client:
                info = await client.info()
                if info.is_leader:
                    leaders.append(machine.name)
                nodes = await client.nodes()
        if len(leaders) != 1:
            return f"leaders: {', '.join(leaders) or 'none'}"
        down = [n.description.hostname for n in nodes if n.status.state != NodeState.READY]
        return f"not ready: {', '.join(down)}" if down else ""

    async def _until(self, question: Question, what: str) -> None:
        """Ask until the answer is "", which is what is still wrong."""
        begin = time.monotonic()
        wrong = ""
        while time.monotonic() < begin + CALM:
            try:
                wrong = await question()
            except PyswarmError as error:
                wrong = str(error)
            if not wrong:
                self._note(f"{what}, after {time.monotonic() - begin:.1f} s")
                return
            await asyncio.sleep(0.2)
        raise Violated(f"not within {CALM:.0f} s: {what}: {wrong}")

    # ------------------------------------------------------------------------------ the judgement

    def _histories(self) -> list[str]:
        found: list[str] = []
        for key, history in sorted(self._record.history.items()):
            verdict = check(history, LINGERING if key.kind == "service" else OBJECT)
            if not verdict.linearizable:
                found.append(f"{key.kind} {key.name}: {verdict}")
        return found

    async def _settled(self) -> list[str]:
        """What is wrong with the tasks and containers."""
        try:
            await self._until(self._exact, "the containers are exactly the desired ones, one for each slot")
        except Violated as error:
            return [str(error)]
        return []

    async def _exact(self) -> str:
        async with Client.local(self._cluster.managers[0].run / "pyswarm.sock", 5.0) as client:
            services, tasks = await client.services(), await client.tasks()
        alive = {id: m.name for m in self._lab.machines for id in containers_of(m)}
        count = sum(len(containers_of(m)) for m in self._lab.machines)
        wrong = [text for service in services if (text := _wrong_with(service, tasks, self._record))]
        running = {t.id for t in tasks if t.desired_state <= TaskState.RUNNING}
        wrong += [f"container {id} on {alive[id]} is nobody's" for id in sorted(alive.keys() - running)]
        wrong += [f"task {id} has no container" for id in sorted(running - alive.keys())]
        if count != len(alive):
            wrong.append("a task has two containers")
        return "; ".join(wrong)

    async def _nothing_left(self) -> list[str]:
        """Remove all that was made, then look at what each machine has besides what it had at first."""
        async with Client.local(self._cluster.managers[0].run / "pyswarm.sock") as client:
            for service in await client.services():
                await client.remove("service", service.id)
            for config in await client.configs():
                await client.remove("config", config.id)
        try:
            await self._until(self._empty, "nothing is left of what ran")
        except Violated as error:
            return [str(error)]
        return []

    async def _empty(self) -> str:
        async with Client.local(self._cluster.managers[0].run / "pyswarm.sock", 5.0) as client:
            if tasks := await client.tasks():
                return f"{len(tasks)} tasks are there"
        found: list[str] = []
        for machine in self._lab.machines:
            more = (await asyncio.to_thread(leavings, machine)) - self._least[machine.name]
            found += [f"{machine.name}: {what}" for what in sorted(more)]
        return "; ".join(found)


def _wrong_with(service: Service, tasks: Sequence[Task], record: Record) -> str:
    """ "" if its tasks are as many as were asked for, one for each slot, and run."""
    wanted = [t for t in tasks if t.service_id == service.id and t.desired_state <= TaskState.RUNNING]
    slots = sorted(t.slot for t in wanted)
    asked = record.replicas[service.spec.labels[VALUE]]
    if service.spec.mode.replicas != asked:
        return f"{service.spec.name} was written with {asked} replicas and has {service.spec.mode.replicas}"
    if len(set(slots)) != len(slots) or len(slots) != asked:
        return f"{service.spec.name} should have {asked} slots and has {slots}"
    idle = [
        f"{t.slot}: {t.status.state.name} {t.status.err}"
        for t in wanted
        if t.status.state != TaskState.RUNNING
    ]
    return f"{service.spec.name}: {', '.join(idle)}" if idle else ""


def leavings(machine: Machine) -> set[str]:
    """All that containers make on a machine: mounts, links, addresses, namespaces, cgroups, processes, files."""
    mounts = [line.split(" ")[4] for line in _mountinfo() if f"{machine.directory}/" in line]
    # An image stays mounted for up to a minute after its last container.
    found = {f"mount {point}" for point in mounts if f"{machine.state}/agent/images/" not in point}
    for pid in machine.processes():
        with contextlib.suppress(OSError):
            program = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
            if Path(program).name in ("conmon", "runc"):
                found.add(f"process {program}")
    for namespace in (machine.directory / "net", *sorted((machine.run / "agent").glob("*netns*/*"))):
        found.add(f"namespace {namespace}")
        result = machine.exec("nsenter", f"--net={namespace}", "ip", "-o", "addr")
        addresses = [line.split()[1:4] for line in result.stdout.splitlines()]
        # A link's own address is made from its hardware address, which is chance's.
        found |= {f"address {' '.join(words)}" for words in addresses if not words[2].startswith("fe80:")}
        result = machine.exec("nsenter", f"--net={namespace}", "ip", "-o", "link")
        found |= {f"link {line.split(': ')[1]} in {namespace.name}" for line in result.stdout.splitlines()}
    found |= {f"cgroup {path.name}" for path in machine.cgroups()}
    for directory in ("state/agent/volumes", "state/agent/tasks", "run/agent/runc", "run/agent/bundles"):
        found |= {f"file {path}" for path in (machine.directory / directory).glob("*")}
    return found


def _mountinfo() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


def _keep_logs(cluster: ChaosCluster, directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    for machine in cluster.lab.machines:
        target = directory / machine.name
        target.mkdir(parents=True)
        for log in (*(machine.state / "log").glob("*.log*"), *(machine.state / "etcd").glob("etcd.log*")):
            with contextlib.suppress(OSError):
                shutil.copy(log, target)
    return directory
