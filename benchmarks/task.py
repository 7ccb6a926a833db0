"""What a task costs from `service scale` to RUNNING, beside the bare OCI runtime, and what an idle node uses.

`python benchmarks/task.py [ROUNDS]`, as root. Each round measures, one right after the other on the same
machine: the floor (`runc create` + `runc start` of the same root file system, 4 at a time) and a wave of a real
cluster, 1 to 40 tasks of a health-check-free image on an overlay network; then back to 1. The ratio of a round
is what counts: absolute times are the machine's.
"""

from __future__ import annotations

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

from benchmarks.floor import busybox_root, measure
from pyswarm.client import Client
from pyswarm.objects import Service, Task, TaskState
from pyswarm.specs import (
    ContainerSpec,
    NetworkAttachmentSpec,
    NetworkSpec,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)
from tests.e2e.cluster import SLEEPER, Cluster, busybox_context, until
from tests.e2e.machine import processes

TASKS = 40
PARALLEL = 4
IDLE_SECONDS = 20.0
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Wave:
    """Seconds of one wave up and down, and where they went: span -> (calls, seconds)."""

    up: float
    down: float
    spans: Mapping[str, tuple[int, float]]


async def _count(client: Client) -> tuple[int, int]:
    """(running, all) tasks of the service that are meant to run or have not gone yet."""
    tasks: tuple[Task, ...] = await client.tasks([("service", "bench")])
    return sum(t.status.state == TaskState.RUNNING for t in tasks), len(tasks)


async def _scale(client: Client, replicas: int) -> float:
    """Scale and wait until exactly so many run and no other is left; seconds."""
    service = await client.get(Service, "bench")
    start = time.perf_counter()
    await client.update(service, replace(service.spec, mode=ServiceMode(replicas=replicas)))
    while await _count(client) != (replicas, replicas):
        await asyncio.sleep(0.01)
    return time.perf_counter() - start


def _collect_spans(cluster: Cluster, directory: Path) -> dict[str, tuple[int, float]]:
    found: dict[str, tuple[int, float]] = {}
    for name in ("manager", "agent"):
        target = directory / f"{name}.json"
        target.unlink(missing_ok=True)
        os.kill(cluster.pid(name), signal.SIGUSR1)
        until(target.exists, f"{name} writes its figures")
        for span, (calls, seconds) in json.loads(target.read_text())["spans"].items():
            found[span] = (int(calls), seconds)
    return found


async def _wave(cluster: Cluster, spans: Path) -> Wave:
    async with Client.local(cluster.run / "pyswarm.sock") as client:
        _collect_spans(cluster, spans)
        up = await _scale(client, TASKS)
        collected = _collect_spans(cluster, spans)
        down = await _scale(client, 1)
        return Wave(up, down, collected)


def _prepare(cluster: Cluster) -> None:
    cluster.build("busybox", busybox_context(cluster.directory))
    cluster.ask(lambda client: client.create(NetworkSpec(name="bench")))
    container = ContainerSpec(image="busybox", args=tuple(SLEEPER))
    task = TaskSpec(container=container, networks=(NetworkAttachmentSpec(target="bench"),))
    cluster.ask(lambda client: client.create(ServiceSpec(name="bench", task=task)))
    cluster.wait_running("bench", 1)


def _memory(pids: list[int]) -> float:
    """Proportional set size in MiB: shared pages are counted once."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


def resident(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1])
    return total / 1024


def cpu_seconds(pids: list[int]) -> float:
    """Seconds of CPU used so far."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


def _daemons(cluster: Cluster) -> list[int]:
    return [cluster.pid(name) for name in ("supervisor", "manager", "agent", "etcd")]


def _idle(cluster: Cluster) -> tuple[float, float]:
    """(MiB resident, share of a core) of all daemons of a node that has nothing to do."""
    pids = _daemons(cluster)
    before = cpu_seconds(pids)
    time.sleep(IDLE_SECONDS)
    return resident(pids), (cpu_seconds(pids) - before) / IDLE_SECONDS


def _each_container(cluster: Cluster) -> float:
    """MiB that a container adds: its monitor, and what the daemons grow by."""

    async def scale(replicas: int) -> None:
        async with Client.local(cluster.run / "pyswarm.sock") as client:
            await _scale(client, replicas)

    def used() -> float:
        return _memory([*_daemons(cluster), *cluster.conmons().values()])

    asyncio.run(scale(1))
    before = used()
    asyncio.run(scale(TASKS))
    after = used()
    asyncio.run(scale(1))
    return (after - before) / (TASKS - 1)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    directory = Path(
        tempfile.mkdtemp(prefix="pyswarm-bench-", dir="/dev/shm" if "--shm" in sys.argv else None)
    )
    spans = directory / "spans"
    spans.mkdir()
    os.environ["PYSWARM_SPANS"] = str(spans)
    cluster = Cluster(directory / "cluster")
    cluster.directory.mkdir()
    cluster.init()
    try:
        idle_memory, idle_cpu = _idle(cluster)
        _prepare(cluster)
        root = busybox_root(directory)
        asyncio.run(_wave(cluster, spans))  # once without measuring: caches fill
        rows: list[tuple[float, float, float, float]] = []
        last: Wave | None = None
        for _ in range(rounds):
            floor = measure(root, TASKS, PARALLEL)
            last = asyncio.run(_wave(cluster, spans))
            each = (last.up / (TASKS - 1) * 1000, last.down / (TASKS - 1) * 1000)
            rows.append((floor.bare_start, each[0], floor.bare_delete, each[1]))
        each_container = _each_container(cluster)
        assert not [a for a in processes(str(cluster.directory)).values() if "defunct" in " ".join(a)]
    finally:
        cluster.leave()
        shutil.rmtree(directory, ignore_errors=True)
    assert last is not None
    _print(rows, last, idle_memory, idle_cpu, each_container)


def _print(
    rows: list[tuple[float, float, float, float]], wave: Wave, memory: float, cpu: float, each: float
) -> None:
    print(f"a task, 1 to {TASKS} on an overlay network, beside bare runc, {PARALLEL} at a time (ms each)")
    print(f"{'runc start':>12} {'pyswarm':>9} {'ratio':>6} {'runc delete':>12} {'pyswarm':>9} {'ratio':>6}")
    for floor, up, delete, down in rows:
        print(f"{floor:12.1f} {up:9.1f} {up / floor:6.2f} {delete:12.1f} {down:9.1f} {down / delete:6.2f}")
    starts = statistics.median(up / floor for floor, up, _, _ in rows)
    stops = statistics.median(down / delete for _, _, delete, down in rows)
    print(f"median ratio: start {starts:.2f} (goal 2), stop {stops:.2f} (goal 2)")
    print(
        f"\nwhere a task's time goes (last wave; spans overlap, {wave.up / (TASKS - 1) * 1000:.1f} ms a task in all)"
    )
    for span, (calls, seconds) in sorted(wave.spans.items(), key=lambda row: -row[1][1]):
        each_task, each_call = seconds / (TASKS - 1) * 1000, seconds / calls * 1000
        print(f"  {span:18} {calls:6} calls {each_task:8.2f} ms a task {each_call:8.2f} ms a call")
    print(f"\nidle node: {memory:.0f} MiB resident (goal 200), {cpu * 100:.2f}% of a core (goal 1)")
    print(f"each further container: {each:.2f} MiB (goal 3)")


if __name__ == "__main__":
    main()
