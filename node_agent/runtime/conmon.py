"""Starting conmon, the monitor that holds a container's streams and exit code, and hearing its answer.

conmon makes the container through the OCI runtime, says over the sync pipe which process it is (or why there
is none), and lives beside the container from then on, in a session of its own with pid 1 as its parent: the
agent may come and go. See conmon(8), and the pipe's protocol in its source (parent_pipe_fd.c).
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from node_agent.runtime.processes import readable
from pyswarm.errors import Fatal, Invalid, Unavailable

CREATE_TIMEOUT = 120.0
"""Seconds a creation may take on a machine that is overloaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """One start of conmon: where everything is."""

    program: str
    runtime: str
    runtime_root: Path
    task_id: str
    name: str
    bundle: Path
    log: Path | None
    """None keeps no log."""
    exits: Path
    sockets: Path
    terminal: bool
    stdin: bool
    systemd: bool

    @property
    def pidfile(self) -> Path:
        return self.bundle / "pid"

    @property
    def monitor_pidfile(self) -> Path:
        return self.bundle / "conmon.pid"

    @property
    def errors(self) -> Path:
        return self.bundle / "conmon.err"

    def argv(self) -> list[str]:
        argv = [self.program, "--cid", self.task_id, "--cuuid", self.task_id, "--name", self.name]
        argv += ["--bundle", str(self.bundle), "--container-pidfile", str(self.pidfile)]
        log = f"k8s-file:{self.log}" if self.log is not None else "none"
        argv += ["--conmon-pidfile", str(self.monitor_pidfile), "--log-path", log]
        argv += ["--exit-dir", str(self.exits), "--socket-dir-path", str(self.sockets), "--no-sync-log"]
        argv += ["--runtime", self.runtime, f"--runtime-arg=--root={self.runtime_root}"]
        if self.terminal:
            argv.append("--terminal")
        if self.stdin:
            argv.append("--stdin")
        if self.systemd:
            argv.append("--systemd-cgroup")
        return argv


async def start(request: Start, environment: dict[str, str]) -> int:
    """Start conmon and wait until the container exists; returns its init's pid.

    Raises Invalid with the runtime's own words when it refuses the container, Fatal when conmon itself does
    not run, Unavailable when no answer comes in time. A caller that is cancelled leaves conmon at work.
    """
    reader, writer = os.pipe()
    try:
        try:
            process = _spawn(request, environment, writer)
        finally:
            os.close(writer)
        try:
            answer = await _answer(reader, request)
        finally:
            # conmon's first process ends as soon as it has forked; by now it is gone.
            if process.poll() is None:
                await _reap(process)
    finally:
        os.close(reader)
    return _pid(answer, request)


def _spawn(request: Start, environment: dict[str, str], writer: int) -> subprocess.Popen[bytes]:
    """The bundle is conmon's working directory: there it leaves the file `oom`."""
    errors = os.open(request.errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        return subprocess.Popen(
            request.argv(),
            cwd=request.bundle,
            env={**environment, "_OCI_SYNCPIPE": str(writer)},
            pass_fds=(writer,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
    except FileNotFoundError as error:
        raise Fatal(f"cannot start {request.program}: {error.strerror}: {error.filename}") from None
    finally:
        os.close(errors)


async def _answer(reader: int, request: Start) -> bytes:
    """The first line that conmon sends, b"" when it ended without one."""
    os.set_blocking(reader, False)
    data = b""
    try:
        async with asyncio.timeout(CREATE_TIMEOUT):
            while b"\n" not in data:
                await readable(reader)
                with suppress(BlockingIOError):
                    piece = os.read(reader, 1 << 16)
                    if not piece:
                        return data
                    data += piece
    except TimeoutError:
        raise Unavailable(
            f"conmon did not create the container of task {request.task_id} in {CREATE_TIMEOUT:.0f} seconds"
        ) from None
    return data.partition(b"\n")[0]


async def _reap(process: subprocess.Popen[bytes]) -> None:
    descriptor = os.pidfd_open(process.pid)
    try:
        await readable(descriptor)
    finally:
        os.close(descriptor)
        process.poll()


def _pid(answer: bytes, request: Start) -> int:
    try:
        message = json.loads(answer) if answer else {}
    except ValueError:
        raise Fatal(f"conmon answered what is no JSON: {answer[:200]!r}") from None
    pid = int(message.get("data", message.get("pid", -1)))
    if pid > 0:
        return pid
    words = message.get("message") or ""
    if words:
        raise Invalid(runtime_words(words))
    with suppress(OSError):
        words = request.errors.read_text(errors="replace").strip()
    if answer:
        raise Invalid(runtime_words(words) or f"{request.runtime} failed without a word")
    raise Fatal(f"conmon ended at once: {words or 'without a word'}")


_MESSAGE = re.compile(r'msg="((?:[^"\\]|\\.)*)"')


def runtime_words(text: str) -> str:
    """The essence of an OCI runtime's complaint, without its log decoration and repeated prefixes."""
    found: Sequence[str] = _MESSAGE.findall(text)
    words = found[-1].replace('\\"', '"').replace("\\\\", "\\") if found else text.strip()
    for prefix in (
        "runc create failed: ",
        "runc run failed: ",
        "exec failed: ",
        "unable to start container process: ",
        "container_linux.go",
    ):
        words = words.removeprefix(prefix)
    return words.strip().removesuffix(": unknown")
