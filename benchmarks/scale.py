"""One manager and a thousand nodes: what a large cluster costs its leader.

    python benchmarks/scale.py [--nodes 1000] [--tasks 30000] [--networks]        (as root)

The manager is a real process with its real etcd; the nodes are agents of `benchmarks/simulated_agents.py`, in
one other process, each with a certificate of the cluster's CA and a connection of its own. Services of 1,000
tasks come one after the other until all tasks run; then tasks fail one by one; then 1% of the nodes fall silent;
then one service is rolled over. With `--networks` each service has an overlay network of its own.

Costs are CPU time of the manager (etcd apart), since wall time is that of the machine and of the agents
beside it; the CPU of the heartbeats of an idle cluster is measured first and taken off.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.task import cpu_seconds, resident
from pyswarm.client import Client
from pyswarm.objects import Node, Service
from pyswarm.specs import (
    ContainerSpec,
    IpamPool,
    NetworkAttachmentSpec,
    NetworkSpec,
    ResourceRequirements,
    Resources,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)
from tests.e2e.cluster import Cluster, until

WAVE = 1_000
IDLE = 10.0
REACTIONS = 50
PARALLELISM = 100
PATIENCE = 120.0
"""Seconds that any phase may take."""


@dataclass(frozen=True, slots=True)
class Wave:
    """One service of `tasks` more tasks, from its creation to all RUNNING."""

    total: int
    """Tasks in the cluster afterwards."""
    tasks: int
    seconds: float
    cpu: float
    """Seconds of the manager's CPU, without heartbeats."""
    spans: Mapping[str, tuple[int, float]]

    @property
    def each(self) -> float:
        """Milliseconds of the manager's CPU for a task."""
        return self.cpu / self.tasks * 1000


class Fleet:
    """The process of agents."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, cluster: Cluster, token: str) -> Fleet:
        ports = cluster.options.ports
        script = Path(__file__).with_name("simulated_agents.py")
        ca = cluster.directory / "ca.pem"
        ca.write_bytes(cluster.config.cert("ca.pem"))
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable,
                str(script),
                str(ca),
                f"127.0.0.1:{ports.join}",
                f"127.0.0.1:{ports.api}",
                token,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        )

    async def do(self, command: str, **arguments: object) -> dict[str, object]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write((json.dumps({"do": command, **arguments}) + "\n").encode())
        line = await self._process.stdout.readline()
        assert line, "the agents' process has ended"
        return json.loads(line)

    async def until_running(self, count: int) -> None:
        answer = await self.do("running", count=count, seconds=PATIENCE)
        assert answer["ok"], f"{answer['running']} of {count} tasks run after {PATIENCE:.0f} s"

    async def end(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


class Bench:
    """The phases, each with its figures."""

    def __init__(self, cluster: Cluster, client: Client, fleet: Fleet, spans: Path, networks: bool) -> None:
        self._cluster = cluster
        self._client = client
        self._fleet = fleet
        self._spans = spans
        self._networks = networks
        self._beats = 0.0
        """CPU seconds a second that an idle cluster costs."""

    def _cpu(self) -> float:
        return cpu_seconds([self._cluster.pid("manager")])

    def memory(self) -> float:
        """MiB."""
        return resident([self._cluster.pid("manager")])

    def collect(self) -> dict[str, tuple[int, float]]:
        """Span -> (calls, seconds) since the last time."""
        target = self._spans / "manager.json"
        target.unlink(missing_ok=True)
        os.kill(self._cluster.pid("manager"), signal.SIGUSR1)
        until(target.exists, "the manager writes its figures")
        return {name: (int(n), s) for name, (n, s) in json.loads(target.read_text())["spans"].items()}

    async def measure_idle(self) -> float:
        before = self._cpu()
        await asyncio.sleep(IDLE)
        self._beats = (self._cpu() - before) / IDLE
        return self._beats

    async def wave(self, number: int, tasks: int, total: int) -> Wave:
        spec = service(f"s{number:03d}", tasks)
        if self._networks:
            subnet = f"10.{64 + number // 16}.{number % 16 * 16}.0/20"
            await self._client.create(NetworkSpec(name=f"n{number:03d}", ipam=(IpamPool(subnet=subnet),)))
            attachment = NetworkAttachmentSpec(target=f"n{number:03d}")
            container = replace(spec.task.container, network_mode="")
            spec = replace(spec, task=replace(spec.task, container=container, networks=(attachment,)))
        self.collect()
        cpu, start = self._cpu(), time.perf_counter()
        await self._client.create(spec)
        await self._fleet.until_running(total)
        seconds = time.perf_counter() - start
        used = self._cpu() - cpu - self._beats * seconds
        return Wave(total, tasks, seconds, used, self.collect())

    async def reactions(self) -> tuple[list[float], float]:
        """(milliseconds of each, milliseconds of the manager's CPU for one, whatever else the machine does)."""
        cpu, start = self._cpu(), time.perf_counter()
        answer = await self._fleet.do("react", count=REACTIONS)
        used = self._cpu() - cpu - self._beats * (time.perf_counter() - start)
        return [float(ms) for ms in answer["milliseconds"]], used / REACTIONS * 1000  # type: ignore[attr-defined]

    async def received(self) -> dict[str, int]:
        answer = await self._fleet.do("received")
        return {name: int(number) for name, number in answer.items()}  # type: ignore[call-overload]

    async def lose(self, nodes: int, total: int) -> tuple[int, float]:
        """(tasks that ran there, seconds until all run elsewhere)."""
        start = time.perf_counter()
        lost = (await self._fleet.do("lose", count=nodes))["tasks"]
        await self._fleet.until_running(total)
        return int(lost), time.perf_counter() - start  # type: ignore[call-overload]

    async def roll(self, total: int) -> float:
        start = time.perf_counter()
        found = await self._client.get(Service, "s000")
        container = replace(found.spec.task.container, env=("VERSION=2",))
        await self._client.update(
            found, replace(found.spec, task=replace(found.spec.task, container=container))
        )
        while True:
            status = (await self._client.get(Service, "s000")).update_status
            if status is not None and status.state == "completed":
                break
            assert time.perf_counter() - start < PATIENCE, f"the update does not end: {status}"
            assert status is None or status.state == "updating", status
            await asyncio.sleep(0.1)
        seconds = time.perf_counter() - start
        await self._fleet.until_running(total)
        return seconds


def service(name: str, replicas: int) -> ServiceSpec:
    reserved = ResourceRequirements(reservations=Resources(nano_cpus=100_000_000, memory=64 << 20))
    return ServiceSpec(
        name=name,
        labels={"com.docker.stack.namespace": "bench"},
        task=TaskSpec(
            container=ContainerSpec(
                image="busybox", args=("sleep", "1000000"), env=("A=1", "B=2"), network_mode="none"
            ),
            restart=RestartPolicy(delay=0.0),
            resources=reserved,
        ),
        mode=ServiceMode(replicas=replicas),
        update=UpdateConfig(parallelism=PARALLELISM, monitor=0.5),
    )


async def _drain_own_node(client: Client) -> None:
    (node,) = await client.nodes()
    assert isinstance(node, Node)
    await client.update(node, replace(node.spec, availability="drain"))


def _say(what: str, value: str) -> None:
    print(f"{what:<46} {value}", flush=True)


async def run(cluster: Cluster, spans: Path, arguments: argparse.Namespace) -> None:
    async with Client.local(cluster.run / "pyswarm.sock", timeout=120) as client:
        await _drain_own_node(client)
        token = (await client.join_tokens()).worker
        fleet = await Fleet.start(cluster, token)
        try:
            bench = Bench(cluster, client, fleet, spans, arguments.networks)
            _say("manager alone", f"{bench.memory():,.0f} MiB")
            start = time.perf_counter()
            await fleet.do("join", count=arguments.nodes)
            _say(f"{arguments.nodes:,} nodes joined", f"{time.perf_counter() - start:.1f} s")
            _say("  idle", f"{await bench.measure_idle() * 100:.0f}% of a core, {bench.memory():,.0f} MiB")
            await _phases(bench, arguments)
        finally:
            await fleet.end()


async def _phases(bench: Bench, arguments: argparse.Namespace) -> None:
    waves: list[Wave] = []
    total = 0
    start = time.perf_counter()
    while total < arguments.tasks:
        tasks = min(arguments.wave, arguments.tasks - total)
        total += tasks
        waves.append(await bench.wave(len(waves), tasks, total))
        _say(
            f"  {total:,} tasks run",
            f"{waves[-1].seconds:.2f} s, {waves[-1].each:.2f} ms of CPU a task, {bench.memory():,.0f} MiB",
        )
    _say(f"{total:,} tasks from nothing to RUNNING", f"{time.perf_counter() - start:.1f} s")
    _summary(waves, bench.memory())
    reactions, cpu = await bench.reactions()
    ninth = sorted(reactions)[len(reactions) * 9 // 10]
    _say(
        "one task fails, its replacement has arrived",
        f"median {statistics.median(reactions):.1f} ms (goal 20 ms), 90% within {ninth:.1f} ms",
    )
    _say("  the manager's CPU for it", f"{cpu:.1f} ms, with the replacement's start")
    lost, seconds = await bench.lose(max(1, arguments.nodes // 100), total)
    _say(f"{max(1, arguments.nodes // 100)} nodes lost, their {lost} tasks run again", f"{seconds:.1f} s")
    seconds = await bench.roll(total)
    _say(f"update of a service of {waves[0].tasks:,}, {PARALLELISM} at a time", f"{seconds:.1f} s")
    wire = await bench.received()
    _say("manager at the end", f"{bench.memory():,.0f} MiB")
    _say("assignments sent", f"{wire['bytes'] / 2**20:,.0f} MiB; sessions that broke: {wire['broken']}")


def _summary(waves: list[Wave], memory: float) -> None:
    scheduling = sum(wave.spans.get("scheduling", (0, 0.0))[1] for wave in waves)
    placed = sum(wave.tasks for wave in waves)
    _say("scheduling decisions", f"{placed / max(scheduling, 1e-9):,.0f} a second (goal 5,000)")
    costs: list[tuple[int, float]] = []
    for total in sorted({waves[0].total, waves[len(waves) // 3].total, waves[-1].total}):
        near = [w for w in waves if w.total == total] + [w for w in waves if w.total == total - w.tasks]
        costs.append((total, statistics.mean(wave.each for wave in near)))
    said = ", ".join(f"{cost:.2f} ms at {total:,}" for total, cost in costs)
    _say("the manager's CPU for a task", f"{said}: x{costs[-1][1] / costs[0][1]:.2f} (goal x1.5)")
    _say("manager's memory", f"{memory:,.0f} MiB (goal 1,536 at 30,000 tasks)")
    print("where the manager's time goes, ms a task (first wave, last wave)")
    for name in sorted({name for wave in (waves[0], waves[-1]) for name in wave.spans}):
        first, last = (wave.spans.get(name, (0, 0.0)) for wave in (waves[0], waves[-1]))
        _say(
            f"  {name}",
            f"{first[1] / waves[0].tasks * 1000:8.3f} {last[1] / waves[-1].tasks * 1000:8.3f}"
            f"   ({first[0]} and {last[0]} calls)",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1_000)
    parser.add_argument("--tasks", type=int, default=30_000)
    parser.add_argument("--wave", type=int, default=WAVE, help="tasks of each service")
    parser.add_argument("--networks", action="store_true", help="an overlay network for each service")
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="pyswarm-bench-"))
    spans = directory / "spans"
    spans.mkdir()
    os.environ["PYSWARM_SPANS"] = str(spans)
    cluster = Cluster(directory / "cluster")
    cluster.directory.mkdir()
    cluster.init()
    try:
        asyncio.run(run(cluster, spans, arguments))
    except BaseException:
        print((cluster.state / "log" / "manager.log").read_text()[-4000:], file=sys.stderr)
        raise
    finally:
        cluster.leave()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
