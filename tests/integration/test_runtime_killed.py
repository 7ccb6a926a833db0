"""The agent killed at any moment of a container's life: the next one finds its way, and nothing is left."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from node_agent.ports import ImageConfig, Launch, Paths
from node_agent.runtime.oci import Conmon
from pyswarm.objects import Task
from pyswarm.specs import ContainerSpec, TaskSpec
from tests.integration import containers
from tests.integration.containers import DEADLINE, ended

pytestmark = pytest.mark.root
scratch, rootfs, paths = containers.scratch, containers.rootfs, containers.paths
runtime = containers.runtime

_TASKS = 6


def launches(paths: Paths, rootfs: Path) -> Sequence[Launch]:
    """Half of them run on, half of them end by themselves with a code of their own."""
    return [
        Launch(
            task=Task(
                id=f"{number:025d}",
                service_name="killed",
                slot=1,
                spec=TaskSpec(
                    container=ContainerSpec(
                        command=("/bin/sleep", "1000") if number % 2 else ("/bin/sh", "-c", f"exit {number}")
                    )
                ),
            ),
            image=ImageConfig(id="i", digest="d"),
            rootfs=rootfs,
            cgroup_parent=paths.cgroup_parent,
        )
        for number in range(_TASKS)
    ]


async def live(paths: Paths, rootfs: Path) -> None:
    """The victim: make, start and remove containers, over and over."""
    runtime = Conmon(paths)

    async def one(launch: Launch) -> None:
        while True:
            await runtime.create(launch)
            await runtime.start(launch.task.id)
            await runtime.delete(launch.task.id)

    print("begun", flush=True)
    await asyncio.gather(*(one(launch) for launch in launches(paths, rootfs)))


@pytest.mark.parametrize("seed", range(8))
async def test_killed_at_any_moment(runtime: Conmon, paths: Paths, rootfs: Path, seed: int) -> None:
    moment = random.Random(seed).uniform(0.0, 0.4)
    victim = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.test_runtime_killed",
        str(paths.state),
        str(paths.run),
        paths.cgroup_parent,
        str(rootfs),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert victim.stdout is not None
    async with asyncio.timeout(DEADLINE):
        await victim.stdout.readline()
    await asyncio.sleep(moment)  # the moment is the test's subject
    victim.send_signal(signal.SIGKILL)
    await victim.wait()

    for launch in launches(paths, rootfs):
        async with asyncio.timeout(60):
            assert await runtime.create(launch) > 0
            await runtime.start(launch.task.id)
        number = int(launch.task.id)
        if number % 2:
            assert await runtime.running(launch.task.id) or (await ended(runtime, launch.task.id)).code == 137
        else:
            assert (await ended(runtime, launch.task.id)).code in (number, 137)
    await asyncio.gather(*(runtime.delete(launch.task.id) for launch in launches(paths, rootfs)))
    assert await runtime.known() == ()
    assert [p.name for name in ("runc", "exits", "attach") for p in (paths.run / name).iterdir()] == []
    assert left_behind(str(paths.run)) == []


def left_behind(mark: str) -> list[str]:
    """Command lines of living processes that name the directory."""
    found: list[str] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if mark in line:
                found.append(line)
    return found


if __name__ == "__main__":
    asyncio.run(
        live(
            Paths(state=Path(sys.argv[1]), run=Path(sys.argv[2]), cgroup_parent=sys.argv[3]),
            Path(sys.argv[4]),
        )
    )
