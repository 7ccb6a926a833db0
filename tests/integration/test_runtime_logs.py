"""Logs of real containers: nothing lost over rotation, following to the very end."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from node_agent.logs import Limits, Logs
from node_agent.ports import LogLine, Paths
from node_agent.runtime.oci import Conmon
from pyswarm.specs import Driver, TaskSpec
from tests.integration import containers
from tests.integration.containers import DEADLINE, Make, ended, printed, run

pytestmark = pytest.mark.root
scratch, rootfs, paths = containers.scratch, containers.rootfs, containers.paths
runtime, make = containers.runtime, containers.make


async def follow(paths: Paths, task_id: str, **options: bool) -> list[LogLine]:
    streams = {"stdout": True, "stderr": True} | options
    async with asyncio.timeout(DEADLINE):
        return [
            line
            async for line in Logs(paths).read(
                task_id,
                follow=True,
                tail=-1,
                since=0,
                until=0,
                stdout=streams["stdout"],
                stderr=streams["stderr"],
            )
        ]


async def test_streams_and_times(runtime: Conmon, make: Make) -> None:
    task_id = await run(runtime, make("/bin/sh", "-c", "echo out; echo err >&2; printf end"))
    end = await ended(runtime, task_id)
    lines = await follow(make.paths, task_id)
    assert sorted((line.stream, line.data) for line in lines) == [
        ("stderr", b"err\n"),
        ("stdout", b"end"),
        ("stdout", b"out\n"),
    ]
    assert all(abs(line.nanos / 1e9 - end.finished_at) < 60 for line in lines)
    assert [line.data for line in await follow(make.paths, task_id, stdout=False)] == [b"err\n"]


async def test_last_words_are_there_when_wait_returns(runtime: Conmon, make: Make) -> None:
    for _ in range(5):
        task_id = await run(runtime, make("/bin/sh", "-c", "seq 20000"))
        await ended(runtime, task_id)
        text = await printed(make.paths, task_id)
        assert text.splitlines() == [str(n) for n in range(1, 20001)]


async def test_long_line_comes_in_pieces(runtime: Conmon, make: Make) -> None:
    task_id = await run(
        runtime, make("/bin/sh", "-c", "yes abcdefg | head -c 50000 | tr -d '\\n'; echo; echo x")
    )
    await ended(runtime, task_id)
    lines = await follow(make.paths, task_id)
    assert b"".join(line.data for line in lines) == b"abcdefg" * 6250 + b"\nx\n"
    assert len(lines) > 2


async def test_rotation_loses_nothing(runtime: Conmon, make: Make) -> None:
    """801 lines, the log rotated all the while, one reader following and one reading afterwards."""
    os.mkfifo(make.rootfs / "tmp/go")
    script = "read x < /tmp/go; for i in $(seq 801); do echo line $i; [ $((i % 50)) = 0 ] && sleep 0.01; done; true"
    task_id = await run(runtime, make("/bin/sh", "-c", script))
    logs = Logs(make.paths)
    following = asyncio.ensure_future(follow(make.paths, task_id))
    (make.rootfs / "tmp/go").write_text("\n")
    waiting = asyncio.ensure_future(ended(runtime, task_id))
    rotations = 0
    while not waiting.done():
        rotations += logs.rotate(task_id, Limits(2000, 1000))
        await asyncio.wait((waiting,), timeout=0.005)
    assert rotations >= 3
    expected = [f"line {n}\n".encode() for n in range(1, 802)]
    assert [line.data for line in await following] == expected
    assert (await printed(make.paths, task_id)).encode() == b"".join(expected)


async def test_rotation_keeps_no_more_files_than_asked_for(runtime: Conmon, make: Make) -> None:
    os.mkfifo(make.rootfs / "tmp/go")
    script = "while read x; do seq 100; echo done $x; done < /tmp/go"
    task_id = await run(runtime, make("/bin/sh", "-c", script))
    logs = Logs(make.paths)
    directory = make.paths.task_state(task_id)
    pipe = os.open(make.rootfs / "tmp/go", os.O_WRONLY)
    for number in range(6):
        os.write(pipe, f"{number}\n".encode())
        await containers.said(runtime, make.paths, task_id, f"done {number}")
        assert logs.rotate(task_id, Limits(100, 3))
        async with asyncio.timeout(DEADLINE):
            while not make.paths.log(task_id).exists():
                await asyncio.to_thread(os.sched_yield)
    os.close(pipe)
    await ended(runtime, task_id)
    assert sorted(p.name for p in directory.iterdir() if p.name.startswith("log")) == [
        "log",
        "log.1",
        "log.2",
    ]
    logs.remove(task_id)
    assert not list(directory.glob("log*"))


async def test_interrupted_rotation_is_repaired(runtime: Conmon, make: Make) -> None:
    """The agent was killed between the rename and its word to conmon."""
    os.mkfifo(make.rootfs / "tmp/go")
    task_id = await run(runtime, make("/bin/sh", "-c", "echo one; read x < /tmp/go; echo two"))
    await containers.said(runtime, make.paths, task_id, "one")
    log = make.paths.log(task_id)
    log.rename(log.with_name("log.1"))
    Logs(make.paths).rotate(task_id, Limits(1000, 3))
    async with asyncio.timeout(DEADLINE):
        while not log.exists():
            await asyncio.to_thread(os.sched_yield)
    (make.rootfs / "tmp/go").write_text("\n")
    await ended(runtime, task_id)
    assert await printed(make.paths, task_id) == "one\ntwo\n"


async def test_follow_from_before_the_container(runtime: Conmon, make: Make) -> None:
    launch = make("/bin/sh", "-c", "echo hello; exit 3")
    make.paths.task_run(launch.task.id).mkdir(parents=True)
    following = asyncio.ensure_future(follow(make.paths, launch.task.id))
    await asyncio.sleep(0)
    await run(runtime, launch)
    assert [line.data for line in await following] == [b"hello\n"]
    assert await follow(make.paths, "unknown") == []


async def test_no_logs_wanted(runtime: Conmon, make: Make) -> None:
    from dataclasses import replace

    launch = make("/bin/echo", "secret")
    spec: TaskSpec = replace(launch.task.spec, log_driver=Driver(name="none"))
    launch = replace(launch, task=replace(launch.task, spec=spec))
    task_id = await run(runtime, launch)
    assert (await ended(runtime, task_id)).code == 0
    assert await printed(make.paths, task_id) == ""
    assert not Path(make.paths.log(task_id)).exists()
