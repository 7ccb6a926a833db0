"""What a container costs here, beside the bare OCI runtime: one run, the same root file system, the same
parallelism.

`measure` is for other benchmarks; `python benchmarks/floor.py [N] [PARALLEL]` prints a table. Needs root, runc,
conmon and busybox-static.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from node_agent.ports import ImageConfig, Launch, Paths
from node_agent.runtime import cgroups
from node_agent.runtime.oci import Conmon
from pyswarm.objects import Task
from pyswarm.specs import ContainerSpec, ResourceRequirements, Resources, TaskSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Milliseconds a container (wall clock of the whole wave through the number of containers)."""

    bare_start: float
    """`runc create` + `runc start`."""
    bare_delete: float
    """`runc delete --force` of running containers."""
    start: float
    delete: float
    python: float
    """CPU of this process per container, for start and delete together."""

    def __str__(self) -> str:
        rows = (
            ("create + start", self.bare_start, self.start),
            ("kill + delete", self.bare_delete, self.delete),
        )
        lines = [f"{'ms a container':<16}{'bare runc':>10}{'pyswarm':>10}{'ratio':>8}"]
        lines += [f"{name:<16}{bare:>10.1f}{ours:>10.1f}{ours / bare:>8.2f}" for name, bare, ours in rows]
        return "\n".join([*lines, f"Python's own CPU: {self.python:.1f} ms a container"])


def measure(rootfs: Path, n: int, parallel: int) -> Figures:
    """Run `n` containers bare and `n` under the runtime, `parallel` at a time, and remove them again."""
    scratch = Path(tempfile.mkdtemp(prefix="psfloor-", dir="/dev/shm"))
    paths = Paths(state=scratch / "state", run=scratch / "run", cgroup_parent=f"/{scratch.name}")
    try:
        launches = [_launch(rootfs, paths, number) for number in range(n)]
        bare_start, bare_delete = _bare(scratch, launches, parallel)
        used = time.process_time()
        start, delete = asyncio.run(_ours(paths, launches, parallel))
        used = time.process_time() - used
    finally:
        cgroups.remove(cgroups.detect(), paths.cgroup_parent)
        shutil.rmtree(scratch)
    return Figures(
        bare_start=bare_start / n * 1e3,
        bare_delete=bare_delete / n * 1e3,
        start=start / n * 1e3,
        delete=delete / n * 1e3,
        python=used / n * 1e3,
    )


def _launch(rootfs: Path, paths: Paths, number: int) -> Launch:
    spec = TaskSpec(
        container=ContainerSpec(command=("/bin/sleep", "1000")),
        resources=ResourceRequirements(limits=Resources(memory=64 << 20, pids=100)),
    )
    return Launch(
        task=Task(id=f"{number:025d}", service_name="bench", slot=number + 1, spec=spec),
        image=ImageConfig(id="i", digest="d"),
        rootfs=rootfs,
        hostname=f"c{number}",
        cgroup_parent=paths.cgroup_parent,
    )


def _bare(scratch: Path, launches: Sequence[Launch], parallel: int) -> tuple[float, float]:
    """Seconds for all: the same configurations, run by runc alone."""
    root = scratch / "bare"

    def bundle(launch: Launch) -> Path:
        directory = scratch / "bundles" / launch.task.id
        directory.mkdir(parents=True)
        (directory / "config.json").write_text(_configuration(launch))
        return directory

    def runc(*arguments: str) -> None:
        subprocess.run(
            ["runc", f"--root={root}", *arguments],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def begin(launch: Launch) -> None:
        runc("create", "--bundle", str(bundles[launch.task.id]), launch.task.id)
        runc("start", launch.task.id)

    bundles = {launch.task.id: bundle(launch) for launch in launches}
    with ThreadPoolExecutor(parallel) as pool:
        started = time.perf_counter()
        list(pool.map(begin, launches))
        running = time.perf_counter()
        list(pool.map(lambda launch: runc("delete", "--force", launch.task.id), launches))
        return running - started, time.perf_counter() - running


def _configuration(launch: Launch) -> str:
    """config.json exactly as the runtime writes it, seccomp included, but with a namespace per container."""
    from node_agent.runtime import host, oci_spec, seccomp

    bundle = oci_spec.build(launch, cgroup=cgroups.detect(), host=host.read())
    profiles = seccomp.Profiles(host.seccomp_machine())
    config: dict[str, Any] = json.loads(bundle.text(profiles.text("", bundle.capabilities)))
    return json.dumps(config)


async def _ours(paths: Paths, launches: Sequence[Launch], parallel: int) -> tuple[float, float]:
    runtime = Conmon(paths)

    async def begin(launch: Launch) -> None:
        await runtime.create(launch)
        await runtime.start(launch.task.id)

    async def end(launch: Launch) -> None:
        await runtime.kill(launch.task.id, "KILL")
        await runtime.wait(launch.task.id)
        await runtime.delete(launch.task.id)

    try:
        started = time.perf_counter()
        await _all(begin, launches, parallel)
        running = time.perf_counter()
        await _all(end, launches, parallel)
        return running - started, time.perf_counter() - running
    finally:
        runtime.close()


async def _all(work: Callable[[Launch], Awaitable[None]], launches: Sequence[Launch], parallel: int) -> None:
    waiting = list(reversed(launches))

    async def worker() -> None:
        while waiting:
            await work(waiting.pop())

    async with asyncio.TaskGroup() as group:
        for _ in range(parallel):
            group.create_task(worker())


def busybox_root(directory: Path) -> Path:
    """A root file system of busybox alone."""
    for name in ("bin", "sbin", "etc", "proc", "sys", "dev", "tmp"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    shutil.copy("/bin/busybox", directory / "bin/busybox")
    for applet in ("sh", "sleep", "true", "cat", "echo"):
        (directory / "bin" / applet).symlink_to("busybox")
    return directory


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    parallel = int(sys.argv[2]) if len(sys.argv) > 2 else 4
    if os.geteuid() != 0:
        sys.exit("benchmarks/floor.py needs root: it makes containers")
    directory = Path(tempfile.mkdtemp(prefix="psfloor-root-", dir="/dev/shm"))
    try:
        print(f"{n} containers, {parallel} at a time")
        print(measure(busybox_root(directory), n, parallel))
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
