"""A client at the streams of a container's own process, from before it starts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from node_agent.ports import ExecInput
from node_agent.runtime.oci import Conmon
from pyswarm.errors import NotFound
from tests.integration import containers
from tests.integration.containers import DEADLINE, Make, ended

pytestmark = pytest.mark.root
scratch, rootfs, paths = containers.scratch, containers.rootfs, containers.paths
runtime, make = containers.runtime, containers.make


async def attached(
    runtime: Conmon, task_id: str, inputs: AsyncIterator[ExecInput], rows: int = 0, cols: int = 0
) -> tuple[bytes, bytes, bytes]:
    """(exit code, stdout, stderr) of a container that starts when somebody is there."""

    async def start() -> None:
        await runtime.attached(task_id)
        await runtime.start(task_id)

    streams = {"stdout": b"", "stderr": b"", "exit": b""}
    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
        group.create_task(start())
        async for kind, data in await runtime.attach(task_id, rows=rows, cols=cols, inputs=inputs):
            streams[kind] += data
    return streams["exit"], streams["stdout"], streams["stderr"]


async def given(*inputs: ExecInput) -> AsyncIterator[ExecInput]:
    for item in inputs:
        yield item


async def test_nothing_is_missed_of_a_short_command(runtime: Conmon, make: Make) -> None:
    launch = make("/bin/sh", "-c", "printf out; printf err >&2; exit 3")
    await runtime.create(launch)
    assert await attached(runtime, launch.task.id, given()) == (b"3", b"out", b"err")


async def test_input_reaches_the_process_and_ends(runtime: Conmon, make: Make) -> None:
    launch = make("/bin/sh", "-c", "wc -c; echo end", open_stdin=True)
    await runtime.create(launch)
    code, out, _ = await attached(
        runtime, launch.task.id, given(("stdin", b"x" * 300_000), ("stdin", b"y"), ("eof", b""))
    )
    assert (code, out.split()) == (b"0", [b"300001", b"end"])


async def test_a_terminal_has_the_size_that_it_is_told(runtime: Conmon, make: Make) -> None:
    launch = make("/bin/sh", "-c", "read x; stty size; read y; stty size", tty=True, open_stdin=True)
    await runtime.create(launch)
    sized = asyncio.Event()

    async def typed() -> AsyncIterator[ExecInput]:
        yield ("stdin", b"\n")
        await sized.wait()
        yield ("resize", b"50x111")
        while await _size(runtime, launch.task.id) != "50 111":
            pass  # a probe each time: it takes a while by itself
        yield ("stdin", b"\n")

    async def start() -> None:
        await runtime.attached(launch.task.id)
        await runtime.start(launch.task.id)

    text = b""
    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
        group.create_task(start())
        async for kind, data in await runtime.attach(launch.task.id, rows=33, cols=99, inputs=typed()):
            if kind == "stdout":
                text += data
            if b"33 99" in text:
                sized.set()
    assert text.split() == [b"33", b"99", b"50", b"111"]


async def _size(runtime: Conmon, task_id: str) -> str:
    _, text = await runtime.probe(task_id, ("/bin/sh", "-c", "stty size < /proc/1/fd/0"), 10)
    return text.strip()


async def test_who_detaches_leaves_the_process_to_itself(runtime: Conmon, make: Make) -> None:
    launch = make("/bin/sh", "-c", "read x; exit 5", open_stdin=True)
    task_id = launch.task.id
    await runtime.create(launch)
    assert await attached(runtime, task_id, given(("detach", b""))) == (b"0", b"", b"")
    assert await runtime.running(task_id)
    assert await attached(runtime, task_id, given(("stdin", b"go\n"))) == (b"5", b"", b"")
    assert (await ended(runtime, task_id)).code == 5


async def test_what_has_ended_cannot_be_attached_to(runtime: Conmon, make: Make) -> None:
    launch = make("/bin/true")
    await runtime.create(launch)
    await runtime.start(launch.task.id)
    await ended(runtime, launch.task.id)
    with pytest.raises(NotFound, match="is not running"):
        await runtime.attach(launch.task.id, rows=0, cols=0, inputs=given())
