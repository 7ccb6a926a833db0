"""Commands in running containers: streams, terminals, ends, and health probes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from node_agent.ports import ExecEvent, ExecInput, ExecRequest
from node_agent.runtime import cgroups
from node_agent.runtime.oci import Conmon
from pyswarm.errors import Invalid, NotFound
from tests.integration import containers
from tests.integration.containers import DEADLINE, Make, ended, run

pytestmark = pytest.mark.root
scratch, rootfs, paths = containers.scratch, containers.rootfs, containers.paths
runtime, make = containers.runtime, containers.make


async def given(*inputs: ExecInput) -> AsyncIterator[ExecInput]:
    for item in inputs:
        yield item


async def execute(
    runtime: Conmon, task_id: str, request: ExecRequest, *inputs: ExecInput
) -> tuple[int, bytes, bytes]:
    """(exit code, stdout, stderr)."""
    streams = {"stdout": b"", "stderr": b"", "exit": b""}
    async with asyncio.timeout(DEADLINE):
        async for kind, data in await runtime.exec(task_id, request, given(*inputs)):
            streams[kind] += data
    return int(streams["exit"]), streams["stdout"], streams["stderr"]


def shell(script: str, **fields: object) -> ExecRequest:
    return ExecRequest(argv=("/bin/sh", "-c", script), **fields)  # type: ignore[arg-type]


async def test_streams_and_code(runtime: Conmon, make: Make) -> None:
    task_id = await run(runtime, make())
    assert await execute(runtime, task_id, shell("echo out; echo err >&2; exit 3")) == (3, b"out\n", b"err\n")
    assert await execute(runtime, task_id, shell("kill -TERM $$")) == (143, b"", b"")
    assert await execute(runtime, task_id, shell("cat")) == (0, b"", b"")


async def test_command_not_found(runtime: Conmon, make: Make) -> None:
    task_id = await run(runtime, make())
    code, _, errors = await execute(runtime, task_id, ExecRequest(argv=("nosuch",)))
    assert code == 127
    assert b"executable file not found" in errors
    code, _, errors = await execute(runtime, task_id, ExecRequest(argv=("/etc/passwd",)))
    assert code == 126
    assert b"permission denied" in errors


async def test_environment_user_directory(runtime: Conmon, make: Make) -> None:
    task_id = await run(runtime, make(env=("A=1", "B=1")))
    request = shell(
        "id -u; id -g; id -G; pwd; echo $A $B $C $HOME; grep CapEff /proc/self/status",
        env=("B=2", "C=3"),
        user="app",
        working_dir="/tmp",
    )
    code, out, _ = await execute(runtime, task_id, request)
    assert (code, out) == (0, b"1000\n1001\n1001 2000\n/tmp\n1 2 3 /tmp\nCapEff:\t0000000000000000\n")
    code, out, _ = await execute(runtime, task_id, shell("id -u; id -g", user="12:extra"))
    assert out == b"12\n2000\n"
    with pytest.raises(Invalid, match="no user 'nobody'"):
        await runtime.exec(task_id, shell("true", user="nobody"), given())


async def test_users_cannot_be_read_outside_of_the_root(
    runtime: Conmon, make: Make, rootfs: Path, scratch: Path
) -> None:
    (scratch / "passwd").write_text("evil:x:5:5::/:/bin/sh\n")
    (rootfs / "etc/passwd").unlink()
    (rootfs / "etc/passwd").symlink_to(scratch / "passwd")
    task_id = await run(runtime, make())
    with pytest.raises(Invalid, match="no user 'evil'"):
        await runtime.exec(task_id, shell("true", user="evil"), given())


async def test_privileged(runtime: Conmon, make: Make) -> None:
    task_id = await run(runtime, make())
    status = "grep CapEff /proc/self/status"
    _, out, _ = await execute(runtime, task_id, shell(status))
    assert out.split()[1] == b"00000000a80425fb"
    _, out, _ = await execute(runtime, task_id, shell(status, privileged=True))
    assert int(out.split()[1], 16) > 0xA80425FB


async def test_large_input_and_output(runtime: Conmon, make: Make) -> None:
    task_id = await run(runtime, make())
    block = bytes(range(256)) * 4096
    inputs: list[ExecInput] = [("stdin", block)] * 24
    code, out, _ = await execute(
        runtime, task_id, ExecRequest(argv=("/bin/cat",), stdin=True), *inputs, ("eof", b"")
    )
    assert code == 0
    assert len(out) == 24 << 20
    assert hashlib.sha256(out).digest() == hashlib.sha256(block * 24).digest()


async def test_input_that_nobody_reads(runtime: Conmon, make: Make) -> None:
    task_id = await run(runtime, make())
    inputs: list[ExecInput] = [("stdin", b"x" * 1_000_000)] * 4
    code, out, _ = await execute(runtime, task_id, shell("head -c 3; exit 4", stdin=True), *inputs)
    assert (code, out) == (4, b"xxx")


async def test_terminal(runtime: Conmon, make: Make) -> None:
    task_id = await run(runtime, make())
    request = shell("stty size; test -t 0 && echo tty; echo $TERM; read x; echo got $x")
    request = ExecRequest(argv=request.argv, tty=True, stdin=True, rows=33, cols=111)
    ready = asyncio.Event()

    async def inputs() -> AsyncIterator[ExecInput]:
        await ready.wait()
        yield "stdin", b"word\n"

    text = b""
    last: ExecEvent = ("stdout", b"")
    async with asyncio.timeout(DEADLINE):
        async for last in await runtime.exec(task_id, request, inputs()):
            text += last[1]
            if b"xterm" in text:
                ready.set()
    assert last == ("exit", b"0")
    # The word comes twice: its echo, once, and the answer.
    assert text.replace(b"\r", b"") == b"33 111\ntty\nxterm\nword\ngot word\n0"


async def test_resize(runtime: Conmon, make: Make) -> None:
    task_id = await run(runtime, make())
    script = 'trap "stty size; exit 5" WINCH; echo ready; while :; do sleep 0.05; done'
    ready = asyncio.Event()

    async def inputs() -> AsyncIterator[ExecInput]:
        await ready.wait()
        yield "resize", b"44x122"

    seen = b""
    async with asyncio.timeout(DEADLINE):
        async for kind, data in await runtime.exec(task_id, shell(script, tty=True), inputs()):
            seen += data
            if b"ready" in seen:
                ready.set()
            if kind == "exit":
                assert data == b"5"
    assert b"44 122" in seen


async def test_end_of_input_on_a_terminal(runtime: Conmon, make: Make) -> None:
    task_id = await run(runtime, make())
    request = ExecRequest(argv=("/bin/cat",), tty=True, stdin=True)
    code, out, _ = await execute(runtime, task_id, request, ("stdin", b"line\n"), ("eof", b""))
    assert code == 0
    assert out.replace(b"\r", b"") == b"line\nline\n"


def inside(runtime: Conmon, make: Make, task_id: str) -> Sequence[int]:
    return cgroups.processes(runtime.layout, f"{make.paths.cgroup_parent}/{task_id}")


async def only_init(runtime: Conmon, make: Make, task_id: str, before: Sequence[int]) -> None:
    async with asyncio.timeout(DEADLINE):
        for pid in set(inside(runtime, make, task_id)) - set(before):
            await containers.gone(pid)
    assert list(inside(runtime, make, task_id)) == list(before)


@pytest.mark.parametrize("tty", [False, True])
async def test_cancelling_kills_everything_of_it(runtime: Conmon, make: Make, tty: bool) -> None:
    task_id = await run(runtime, make())
    before = inside(runtime, make, task_id)

    async def consume(started: asyncio.Event) -> None:
        request = shell("sleep 1000 & sleep 1000 & echo ready; wait", tty=tty)
        async for event in await runtime.exec(task_id, request, given()):
            if b"ready" in event[1]:
                started.set()

    started = asyncio.Event()
    task = asyncio.ensure_future(consume(started))
    async with asyncio.timeout(DEADLINE):
        await started.wait()
    assert len(inside(runtime, make, task_id)) >= len(before) + 3
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await only_init(runtime, make, task_id, before)
    assert not list((make.paths.task_run(task_id) / "bundle").glob("exec-*"))


async def test_cancelled_while_it_starts(runtime: Conmon, make: Make) -> None:
    task_id = await run(runtime, make())
    before = inside(runtime, make, task_id)
    for step in range(10):
        events: AsyncIterator[ExecEvent] = await runtime.exec(task_id, shell("sleep 1000"), given())
        reading = asyncio.ensure_future(anext(events))
        await asyncio.sleep(step * 0.004)
        reading.cancel()
        await asyncio.wait((reading,))
    await only_init(runtime, make, task_id, before)


async def test_container_that_ends_under_an_exec(runtime: Conmon, make: Make) -> None:
    task_id = await run(runtime, make())
    events = await runtime.exec(task_id, shell("echo ready; sleep 1000"), given())
    last: ExecEvent = ("stdout", b"")
    async with asyncio.timeout(DEADLINE):
        async for last in events:
            if b"ready" in last[1]:
                await runtime.kill(task_id, "KILL")
    assert last == ("exit", b"137")
    await ended(runtime, task_id)
    with pytest.raises(NotFound):
        await runtime.exec(task_id, shell("true"), given())


@pytest.mark.parametrize("tty", [False, True])
async def test_detached_goes_on(runtime: Conmon, make: Make, tty: bool) -> None:
    """It says more than a pipe holds, which nobody reads, and goes on."""
    task_id = await run(runtime, make())
    script = "echo first; seq 100000; while [ ! -e /tmp/go ]; do sleep 0.05; done; touch /tmp/done"
    code, _, _ = await execute(runtime, task_id, shell(script, tty=tty), ("detach", b""))
    assert code == 0
    ask = shell("touch /tmp/go; while [ ! -e /tmp/done ]; do sleep 0.05; done; rm /tmp/go /tmp/done")
    assert (await execute(runtime, task_id, ask))[0] == 0
    code, _, _ = await execute(runtime, task_id, ExecRequest(argv=("nosuch",)), ("detach", b""))
    assert code == 127


async def test_probe(runtime: Conmon, make: Make) -> None:
    task_id = await run(runtime, make())
    assert await runtime.probe(task_id, ("/bin/sh", "-c", "echo fine; exit 0"), 10) == (0, "fine\n")
    code, text = await runtime.probe(task_id, ("/bin/sh", "-c", "echo bad >&2; exit 1"), 10)
    assert (code, text) == (1, "bad\n")
    code, text = await runtime.probe(task_id, ("/bin/sh", "-c", "yes | head -c 100000"), 10)
    assert code == 0
    assert len(text) == 4096
    code, text = await runtime.probe(task_id, ("nosuch",), 10)
    assert code == 127
    assert "not found" in text


async def test_probe_that_takes_too_long(runtime: Conmon, make: Make) -> None:
    task_id = await run(runtime, make())
    before = inside(runtime, make, task_id)
    code, text = await runtime.probe(task_id, ("/bin/sh", "-c", "echo begun; sleep 1000 & sleep 1000"), 0.5)
    assert (code, text) == (124, "begun\n")
    await only_init(runtime, make, task_id, before)


async def test_exec_after_adoption(runtime: Conmon, make: Make) -> None:
    task_id = await run(runtime, make())
    runtime.close()
    after = Conmon(make.paths)
    try:
        assert (await after.probe(task_id, ("/bin/echo", "hi"), 10)) == (0, "hi\n")
    finally:
        after.close()


async def test_execs_of_a_killed_agent_are_ended(runtime: Conmon, make: Make) -> None:
    task_id = await run(runtime, make())
    before = inside(runtime, make, task_id)
    bundle = make.paths.task_run(task_id) / "bundle"
    orphan = (
        "runc",
        f"--root={make.paths.run / 'runc'}",
        "exec",
        "--detach",
        "--pid-file",
        str(bundle / "exec-1.pid"),
    )
    process = await asyncio.create_subprocess_exec(
        *orphan, task_id, "/bin/sh", "-c", "sleep 1000 & sleep 1000", stdout=-3, stderr=-3
    )
    assert await process.wait() == 0
    (bundle / "exec-1.json").write_text("{}")
    assert len(inside(runtime, make, task_id)) > len(before)
    runtime.close()
    after = Conmon(make.paths)
    try:
        assert await after.running(task_id)
        await only_init(after, make, task_id, before)
        assert not list(bundle.glob("exec-*"))
    finally:
        after.close()
