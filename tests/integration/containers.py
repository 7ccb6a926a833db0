"""Fixtures for tests with real containers: a root file system of busybox, the runtime over a scratch directory."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from node_agent.logs import Logs
from node_agent.ports import Exit, ImageConfig, Launch, Paths
from node_agent.runtime.oci import Conmon
from node_agent.runtime.processes import readable
from pyswarm.objects import Task
from pyswarm.specs import ContainerSpec, ResourceRequirements, TaskSpec

BUSYBOX = Path("/bin/busybox")
DEADLINE = 20.0
_APPLETS = (
    "sh cat echo sleep true false id env hostname mount umount unshare grep ls kill head dd stty wc touch seq "
    "ps readlink stat setsid test uname tr printf mkdir yes df"
)


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory of ours on a tmpfs; empty of mounts and gone afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="psrt-", dir="/dev/shm"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def rootfs(scratch: Path) -> Path:
    """A root file system of busybox alone."""
    if not BUSYBOX.exists():
        pytest.fail("busybox is not installed: apt-get install busybox-static")
    root = scratch / "rootfs"
    for name in ("bin", "sbin", "etc", "proc", "sys", "dev", "tmp", "root"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    shutil.copy(BUSYBOX, root / "bin/busybox")
    for applet in _APPLETS.split():
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:app:/tmp:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\napp:x:1001:\nextra:x:2000:app\n")
    return root


@pytest.fixture
def paths(scratch: Path) -> Paths:
    return Paths(state=scratch / "state", run=scratch / "run", cgroup_parent=f"/{scratch.name}")


@pytest.fixture
async def runtime(paths: Paths) -> AsyncIterator[Conmon]:
    """The runtime; whatever it has left when a test ends is removed, and must then be gone."""
    runtime = Conmon(paths)
    yield runtime
    for task_id in await runtime.known():
        await runtime.delete(task_id)
    runtime.close()
    assert runtime.remove_parent()
    assert not [d for d in runtime.layout.directories(paths.cgroup_parent) if Path(d).exists()]


class Make:
    """Makes tasks' launches on one root file system."""

    def __init__(self, rootfs: Path, paths: Paths) -> None:
        self.rootfs, self.paths, self.serial = rootfs, paths, 0

    def __call__(
        self,
        *argv: str,
        resources: ResourceRequirements | None = None,
        launch: dict[str, Any] | None = None,
        **spec: Any,
    ) -> Launch:
        self.serial += 1
        container = ContainerSpec(command=argv or ("/bin/sleep", "1000"), **spec)
        task = Task(
            id=f"{self.serial:025d}",
            service_name="test",
            slot=1,
            spec=TaskSpec(container=container, resources=resources or ResourceRequirements()),
        )
        base = Launch(
            task=task,
            image=ImageConfig(id="i", digest="d"),
            rootfs=self.rootfs,
            hostname="box",
            cgroup_parent=self.paths.cgroup_parent,
        )
        return replace(base, **(launch or {}))


@pytest.fixture
def make(rootfs: Path, paths: Paths) -> Make:
    return Make(rootfs, paths)


async def run(runtime: Conmon, launch: Launch) -> str:
    """Create and start; returns the task id."""
    await runtime.create(launch)
    await runtime.start(launch.task.id)
    return launch.task.id


async def ended(runtime: Conmon, task_id: str) -> Exit:
    async with asyncio.timeout(DEADLINE):
        return await runtime.wait(task_id)


async def output(runtime: Conmon, paths: Paths, launch: Launch) -> str:
    """Run to the end; what it printed."""
    task_id = await run(runtime, launch)
    await ended(runtime, task_id)
    return await printed(paths, task_id)


async def printed(paths: Paths, task_id: str) -> str:
    data = b""
    async for line in Logs(paths).read(
        task_id, follow=False, tail=-1, since=0, until=0, stdout=True, stderr=True
    ):
        data += line.data
    return data.decode()


async def said(runtime: Conmon, paths: Paths, task_id: str, word: str) -> None:
    """Wait until the container has printed a word."""
    async with asyncio.timeout(DEADLINE):
        async for line in Logs(paths).read(
            task_id, follow=True, tail=-1, since=0, until=0, stdout=True, stderr=True
        ):
            if word in line.data.decode():
                return
    pytest.fail(f"the container ended without saying {word!r}")


async def gone(pid: int) -> None:
    """Wait until a process that is not our child has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await readable(descriptor)
    finally:
        os.close(descriptor)
