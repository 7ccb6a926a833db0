"""Real containers under conmon and runc: their life, their ends, and what is left of them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from node_agent.ports import BindMount, Paths
from node_agent.runtime import cgroups
from node_agent.runtime.oci import Conmon
from node_agent.runtime.processes import start_time
from pyswarm.errors import Invalid, NotFound
from pyswarm.specs import ResourceRequirements, Resources
from tests.integration import containers
from tests.integration.containers import DEADLINE, Make, ended, gone, printed, run, said

pytestmark = pytest.mark.root
scratch, rootfs, paths = containers.scratch, containers.rootfs, containers.paths
runtime, make = containers.runtime, containers.make


@pytest.mark.parametrize("code", [0, 1, 42, 255])
async def test_exit_code(runtime: Conmon, make: Make, code: int) -> None:
    task_id = await run(runtime, make("/bin/sh", "-c", f"exit {code}"))
    end = await ended(runtime, task_id)
    assert (end.code, end.oom_killed) == (code, False)
    assert end.finished_at > 1_000_000_000


async def test_created_container_waits_for_start(runtime: Conmon, make: Make, paths: Paths) -> None:
    launch = make("/bin/echo", "hello")
    pid = await runtime.create(launch)
    assert await runtime.running(launch.task.id)
    assert b"init" in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert await printed(paths, launch.task.id) == ""
    await runtime.start(launch.task.id)
    assert (await ended(runtime, launch.task.id)).code == 0
    assert await printed(paths, launch.task.id) == "hello\n"
    assert not await runtime.running(launch.task.id)


# ------------------------------------------------------------------------------------------------ ends


@pytest.mark.parametrize("name", ["TERM", "SIGKILL", "2", "RTMIN+3"])
async def test_signals_reach_init(runtime: Conmon, make: Make, name: str) -> None:
    script = (
        'trap "exit 7" TERM; trap "exit 8" INT; trap "exit 9" 37; echo ready; while :; do sleep 0.05; done'
    )
    launch = make("/bin/sh", "-c", script)
    task_id = await run(runtime, launch)
    await said(runtime, make.paths, task_id, "ready")
    await runtime.kill(task_id, name)
    expected = {"TERM": 7, "SIGKILL": 137, "2": 8, "RTMIN+3": 9}[name]
    assert (await ended(runtime, task_id)).code == expected
    with pytest.raises(NotFound):
        await runtime.kill(task_id, name)


async def test_out_of_memory_is_told_apart(runtime: Conmon, make: Make) -> None:
    limit = ResourceRequirements(limits=Resources(memory=16 << 20), swap=0)
    eat = 'x=$(/bin/tr "\\0" x < /dev/zero | /bin/head -c 200000000); echo "${#x}"'
    task_id = await run(runtime, make("/bin/sh", "-c", f"exec /bin/sh -c '{eat}'", resources=limit))
    end = await ended(runtime, task_id)
    assert end.oom_killed
    assert end.code == 137
    other = await run(runtime, make("/bin/sh", "-c", "kill -9 $$; exit 137", resources=limit))
    end = await ended(runtime, other)
    assert (end.code, end.oom_killed) == (137, False)


async def test_killed_monitor_and_live_container(runtime: Conmon, make: Make, paths: Paths) -> None:
    launch = make()
    task_id = await run(runtime, launch)
    monitor = int((paths.task_run(task_id) / "bundle/conmon.pid").read_text())
    waiting = asyncio.ensure_future(runtime.wait(task_id))
    os.kill(monitor, signal.SIGKILL)
    async with asyncio.timeout(DEADLINE):
        await gone(monitor)
    assert await runtime.running(task_id)
    assert not waiting.done()
    await runtime.kill(task_id, "KILL")
    async with asyncio.timeout(DEADLINE):
        assert (await waiting).code == 137
    await runtime.delete(task_id)
    assert await runtime.known() == ()


async def test_monitor_and_container_killed_together(runtime: Conmon, make: Make, paths: Paths) -> None:
    launch = make()
    pid = await runtime.create(launch)
    await runtime.start(launch.task.id)
    monitor = int((paths.task_run(launch.task.id) / "bundle/conmon.pid").read_text())
    os.kill(monitor, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    assert (await ended(runtime, launch.task.id)).code == 137


# ------------------------------------------------------------------------------------------------ adoption


async def test_next_agent_adopts(runtime: Conmon, make: Make, paths: Paths) -> None:
    long, quick, late = (
        make(),
        make("/bin/sh", "-c", "exit 33"),
        make("/bin/sh", "-c", "read x < /tmp/f; exit 5"),
    )
    os.mkfifo(make.rootfs / "tmp/f")
    for launch in (long, quick, late):
        await run(runtime, launch)
    made = make("/bin/sh", "-c", "exit 6")
    pid = await runtime.create(made)
    await ended(runtime, quick.task.id)
    runtime.close()

    after = Conmon(paths)
    try:
        assert await after.known() == tuple(sorted(x.task.id for x in (long, quick, late, made)))
        assert (await ended(after, quick.task.id)).code == 33
        assert await after.running(long.task.id)
        (make.rootfs / "tmp/f").write_text("go\n")
        assert (await ended(after, late.task.id)).code == 5
        assert await after.create(made) == pid
        await after.start(made.task.id)
        await after.start(made.task.id)
        assert (await ended(after, made.task.id)).code == 6
        await after.kill(long.task.id, "KILL")
        assert (await ended(after, long.task.id)).code == 137
        (await ended(after, late.task.id))
    finally:
        after.close()


async def test_ended_while_nobody_looked(runtime: Conmon, make: Make, paths: Paths) -> None:
    os.mkfifo(make.rootfs / "tmp/f")
    launch = make("/bin/sh", "-c", "read x < /tmp/f; exit 21")
    pid = await runtime.create(launch)
    await runtime.start(launch.task.id)
    runtime.close()
    (make.rootfs / "tmp/f").write_text("go\n")
    async with asyncio.timeout(DEADLINE):
        await gone(pid)
    after = Conmon(paths)
    try:
        assert not await after.running(launch.task.id)
        assert (await ended(after, launch.task.id)).code == 21
    finally:
        after.close()


@pytest.mark.parametrize("init_too", [False, True])
async def test_adoption_after_the_monitor_was_killed(
    runtime: Conmon, make: Make, paths: Paths, init_too: bool
) -> None:
    launch = make()
    pid = await runtime.create(launch)
    task_id = launch.task.id
    await runtime.start(task_id)
    runtime.close()
    monitor = int((paths.task_run(task_id) / "bundle/conmon.pid").read_text())
    os.kill(monitor, signal.SIGKILL)
    await gone(monitor)
    if init_too:
        os.kill(pid, signal.SIGKILL)
        await gone(pid)
    after = Conmon(paths)
    try:
        assert await after.running(task_id) != init_too
        if not init_too:
            await after.kill(task_id, "KILL")
        assert (await ended(after, task_id)).code == 137
        await after.delete(task_id)
        assert await after.known() == ()
    finally:
        after.close()


def command(pid: int) -> str:
    """The name of a process; "" when it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text() if start_time(pid) else ""
    except OSError:
        return ""


async def test_agent_killed_while_it_started_a_container(runtime: Conmon, make: Make, paths: Paths) -> None:
    """It opened the FIFO and was gone: either init had written by then, or it has never run."""
    for _ in range(12):
        launch = make("/bin/sh", "-c", "echo once; sleep 1000")
        task_id = launch.task.id
        pid = await runtime.create(launch)
        async with asyncio.timeout(DEADLINE):
            while command(pid).startswith("runc:["):  # until init has come to the FIFO
                os.close(os.open(paths.run / "runc" / task_id / "exec.fifo", os.O_RDONLY | os.O_NONBLOCK))
                await asyncio.to_thread(os.sched_yield)
        ran = bool(command(pid))
        if not ran:
            await ended(runtime, task_id)
        runtime.close()
        assert (task_id in await runtime.known()) == ran
        async with asyncio.timeout(DEADLINE):
            await runtime.create(launch)
            await runtime.start(task_id)
        assert await runtime.running(task_id)
        await said(runtime, paths, task_id, "once")
        assert await printed(paths, task_id) == "once\n"
        await runtime.delete(task_id)


async def test_reboot_leaves_nothing_known(paths: Paths) -> None:
    runtime = Conmon(paths)
    assert await runtime.known() == ()
    with pytest.raises(NotFound):
        await runtime.wait("x" * 25)
    assert not await runtime.running("x" * 25)
    await runtime.delete("x" * 25)
    runtime.close()


async def test_interrupted_creation_is_taken_back(runtime: Conmon, make: Make, paths: Paths) -> None:
    """Cancelled at many moments: nothing is left, and the same task can be made afterwards."""
    for step in range(12):
        launch = make()
        making = asyncio.ensure_future(runtime.create(launch))
        await asyncio.sleep(step * 0.003)
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making
            making.cancel()
            raise asyncio.CancelledError  # it was quicker than the cancellation
        await runtime.delete(launch.task.id)
        assert await runtime.known() == ()
        assert await runtime.create(launch) > 0
        await runtime.delete(launch.task.id)


# ------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("/bin/nosuch",), "no such file or directory"),
        (("nosuch",), "executable file not found in $PATH"),
        (("/etc/passwd",), "permission denied"),
    ],
)
async def test_command_that_cannot_run(runtime: Conmon, make: Make, argv: Sequence[str], words: str) -> None:
    with pytest.raises(Invalid, match=words.replace("$", r"\$")) as error:
        await runtime.create(make(*argv))
    assert "level=" not in str(error.value)
    assert await runtime.known() == ()


@pytest.mark.parametrize("name", ["nosuch", "bash", "/bin/bash"])
async def test_runtime_that_is_none(runtime: Conmon, make: Make, name: str) -> None:
    launch = make()
    task = replace(launch.task, spec=replace(launch.task.spec, runtime=name))
    with pytest.raises(Invalid, match=r"no OCI runtime of this node: it has .*runc"):
        await runtime.create(replace(launch, task=task))
    alias = replace(launch.task, spec=replace(launch.task.spec, runtime="io.containerd.runc.v2"))
    assert await runtime.create(replace(launch, task=alias)) > 0


async def test_mount_that_cannot_be(runtime: Conmon, make: Make) -> None:
    mount = BindMount(source="/nonexistent/source", target="/data")
    with pytest.raises(Invalid, match="/nonexistent/source"):
        await runtime.create(make(launch={"mounts": (mount,)}))
    assert await runtime.known() == ()


# ------------------------------------------------------------------------------------------------ delete


async def test_delete_leaves_nothing(runtime: Conmon, make: Make, paths: Paths) -> None:
    launch = make("/bin/sh", "-c", "sleep 1000 & sleep 1000 & wait")
    pid = await runtime.create(launch)
    task_id = launch.task.id
    await runtime.start(task_id)
    monitor = int((paths.task_run(task_id) / "bundle/conmon.pid").read_text())
    cgroup = f"{paths.cgroup_parent}/{task_id}"
    await runtime.delete(task_id)
    assert not [d for d in runtime.layout.directories(cgroup) if Path(d).exists()]
    assert (start_time(pid), start_time(monitor)) == (0, 0)
    left = [str(p) for p in paths.run.rglob("*") if task_id in p.name and p != paths.task_run(task_id)]
    assert left == []
    assert paths.log(task_id).exists()
    await runtime.delete(task_id)


async def test_delete_of_host_pid_container_takes_its_children(runtime: Conmon, make: Make) -> None:
    launch = make("/bin/sh", "-c", "setsid sleep 1000 & echo ready; wait", pids_mode="host")
    task_id = await run(runtime, launch)
    await said(runtime, make.paths, task_id, "ready")
    path = f"{make.paths.cgroup_parent}/{task_id}"
    pids = cgroups.processes(runtime.layout, path)
    assert len(pids) >= 2
    await runtime.delete(task_id)
    assert [pid for pid in pids if start_time(pid)] == []
    assert not [d for d in runtime.layout.directories(path) if Path(d).exists()]


async def test_nested_cgroups_are_removed(runtime: Conmon, make: Make) -> None:
    task_id = await run(runtime, make())
    for directory in runtime.layout.directories(f"{make.paths.cgroup_parent}/{task_id}"):
        (Path(directory) / "inner" / "most").mkdir(parents=True)
    await runtime.delete(task_id)
    assert await runtime.known() == ()


async def test_forty_at_once(runtime: Conmon, make: Make) -> None:
    launches = [make("/bin/sh", "-c", f"exit {n}") for n in range(40)]
    async with asyncio.timeout(60):
        await asyncio.gather(*(run(runtime, launch) for launch in launches))
        ends = await asyncio.gather(*(runtime.wait(launch.task.id) for launch in launches))
    assert [end.code for end in ends] == list(range(40))
    await asyncio.gather(*(runtime.delete(launch.task.id) for launch in launches))
    assert await runtime.known() == ()
