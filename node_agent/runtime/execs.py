"""Commands run in a container that runs already: `runc exec`, its streams, its end.

The runtime is started with pipes or with a terminal of ours, and relays between them and the process inside.
Nothing here polls: streams and the runtime's end come through the loop. The container's own process group
answers to nobody here, so ending an exec means: every process of the session that the runtime made for it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import struct
import subprocess
import termios
import tty
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from node_agent.ports import ExecEvent, ExecInput
from node_agent.runtime.processes import writable

_CHUNK = 1 << 16
_MOST_QUEUED = 32
"""Chunks that wait for the reader of an exec's output before its streams are left unread."""

_START_LOOK = 0.01
"""Seconds between looks at whether a detached command has started."""

Processes = Callable[[], Sequence[int]]
"""The process ids in the container's cgroup."""


@dataclass(frozen=True, slots=True)
class Command:
    """A ready command line of the OCI runtime."""

    argv: Sequence[str]
    environment: dict[str, str]
    pidfile: Path
    processes: Processes


class Exec:
    """One command under way. `events()` is its only consumer, and ends it when it is closed."""

    def __init__(
        self, command: Command, *, terminal: bool, stdin: bool, rows: int = 0, cols: int = 0
    ) -> None:
        self._command = command
        self._terminal = terminal
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[str, bytes]] = deque()
        self._wake: asyncio.Future[None] | None = None
        self._paused: dict[int, str] = {}
        self._open: dict[int, str] = {}
        self._input = -1
        self._ended = False
        self._detached = False
        self._head = bytearray()
        self._process = self._spawn(stdin, rows, cols)
        self._pidfd = os.pidfd_open(self._process.pid)
        self._loop.add_reader(self._pidfd, self._on_end)

    # ------------------------------------------------------------------------------------ starting

    def _spawn(self, stdin: bool, rows: int, cols: int) -> subprocess.Popen[bytes]:
        if self._terminal:
            return self._spawn_terminal(rows, cols)
        readers: list[int] = []
        close: list[int] = []
        source: int = subprocess.DEVNULL
        if stdin:
            source, self._input = os.pipe()
            close.append(source)
            os.set_blocking(self._input, False)
        targets: list[int] = []
        for name in ("stdout", "stderr"):
            reader, writer = os.pipe()
            readers.append(reader)
            targets.append(writer)
            close.append(writer)
            self._listen(reader, name)
        try:
            return self._popen(source, targets[0], targets[1])
        finally:
            for descriptor in close:
                os.close(descriptor)

    def _spawn_terminal(self, rows: int, cols: int) -> subprocess.Popen[bytes]:
        outer, inner = os.openpty()
        try:
            # The terminal inside the container does the line editing and the echo; this one only carries.
            tty.setraw(inner)
            _resize(outer, rows or 24, cols or 80)
            self._input = os.dup(outer)
            os.set_blocking(self._input, False)
            self._listen(outer, "stdout")
            return self._popen(inner, inner, inner)
        finally:
            os.close(inner)

    def _popen(self, stdin: int, stdout: int, stderr: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command.argv,
            env=self._command.environment,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )

    # ------------------------------------------------------------------------------------ streams

    def _listen(self, descriptor: int, name: str) -> None:
        os.set_blocking(descriptor, False)
        self._open[descriptor] = name
        self._loop.add_reader(descriptor, self._on_output, descriptor, name)

    def _on_output(self, descriptor: int, name: str) -> None:
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return
        except OSError:  # EIO: nobody has the terminal open any more
            data = b""
        if data:
            self._keep(name, data)
            if len(self._queue) >= _MOST_QUEUED:
                self._pause()
        else:
            self._close_output(descriptor)
        self._notify()

    def _keep(self, name: str, data: bytes) -> None:
        self._queue.append((name, data))
        if len(self._head) < 2048:
            self._head += data[:2048]

    def _close_output(self, descriptor: int) -> None:
        if self._open.pop(descriptor, None) is not None:
            self._paused.pop(descriptor, None)
            self._loop.remove_reader(descriptor)
            os.close(descriptor)

    def _pause(self) -> None:
        for descriptor, name in self._open.items():
            if descriptor not in self._paused:
                self._paused[descriptor] = name
                self._loop.remove_reader(descriptor)

    def _resume(self) -> None:
        for descriptor, name in self._paused.items():
            self._loop.add_reader(descriptor, self._on_output, descriptor, name)
        self._paused.clear()

    def _on_end(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self._process.poll()
        self._ended = True
        if self._terminal:
            # The outer terminal's slave side died with the runtime; what it carried can still be read.
            for descriptor, name in list(self._open.items()):
                self._drain(descriptor, name)
        self._notify()

    def _drain(self, descriptor: int, name: str) -> None:
        with suppress(OSError):
            while data := os.read(descriptor, _CHUNK):
                self._keep(name, data)
        self._close_output(descriptor)

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    # ------------------------------------------------------------------------------------ the consumer's side

    async def events(self, source: AsyncIterator[ExecInput]) -> AsyncGenerator[ExecEvent, None]:
        """Output as it comes, then the exit code. Closing it or cancelling its reader kills the command, unless
        it was detached: then the caller lets it `finish`."""
        feeder = self._loop.create_task(self._feed(source))
        try:
            while not self._detached:
                while self._queue:
                    name, data = self._queue.popleft()
                    if self._paused and len(self._queue) < _MOST_QUEUED // 2:
                        self._resume()
                    yield ("stderr", data) if name == "stderr" else ("stdout", data)
                if self._ended and not self._open:
                    break
                self._wake = self._loop.create_future()
                await self._wake
            while self._detached and not self._ended and not self._command.pidfile.exists():
                self._wake = self._loop.create_future()
                await asyncio.wait((self._wake,), timeout=_START_LOOK)
            yield "exit", str(self.code()).encode()
        finally:
            feeder.cancel()
            if not self.goes_on:
                self.kill()
            await asyncio.wait((feeder,))
            if not feeder.cancelled():
                feeder.exception()  # its source's failure is the caller's own affair
            if not self.goes_on:
                self.close()

    @property
    def goes_on(self) -> bool:
        """Whether the command was detached and still runs."""
        return self._detached and not self._ended

    async def finish(self) -> None:
        """Let a detached command run to its end; nobody reads what it says."""
        try:
            while not (self._ended and not self._open):
                self._queue.clear()
                self._resume()
                self._wake = self._loop.create_future()
                await self._wake
        finally:
            self.close()

    async def output(self, most: int, timeout: float) -> tuple[int, bytes]:
        """Collect the first `most` bytes of all output until the end; (124, what there was) after `timeout`
        seconds, the command killed."""
        kept = bytearray()
        try:
            async with asyncio.timeout(timeout):
                while not (self._ended and not self._open and not self._queue):
                    while self._queue:
                        kept += self._queue.popleft()[1][: most - len(kept)]
                    self._resume()
                    if not (self._ended and not self._open):
                        self._wake = self._loop.create_future()
                        await self._wake
            return self.code(), bytes(kept)
        except TimeoutError:
            return 124, bytes(kept)
        finally:
            self.kill()
            self.close()

    async def _feed(self, source: AsyncIterator[ExecInput]) -> None:
        async for kind, data in source:
            if kind == "detach":
                self._detached = True
                self._notify()
                return
            if kind == "resize":
                self._on_resize(data)
            elif self._input >= 0 and kind == "stdin":
                await self._write(data)
            elif self._input >= 0 and kind == "eof":
                await self._end_of_input()

    async def _end_of_input(self) -> None:
        if self._terminal:
            await self._write(b"\x04")
        else:
            self._close_input()

    async def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._input, view[:_CHUNK]) :]
            except BlockingIOError:
                await writable(self._input)
            except OSError:  # nobody reads it any more: the rest is lost, as in any pipe
                self._close_input()
                return

    def _close_input(self) -> None:
        if self._input >= 0:
            os.close(self._input)
            self._input = -1

    def _on_resize(self, data: bytes) -> None:
        rows, _, cols = data.decode(errors="replace").partition("x")
        if self._terminal and rows.isdecimal() and cols.isdecimal() and self._input >= 0 and not self._ended:
            _resize(self._input, int(rows), int(cols))
            # The terminal is not the runtime's controlling one, so the kernel does not tell it.
            self._process.send_signal(signal.SIGWINCH)

    def code(self) -> int:
        """The exit code, 128 + signal; 126 or 127 when the command could not be started."""
        status = self._process.returncode or 0
        if status < 0:
            return 128 - status
        if status and not self._command.pidfile.exists():
            return not_started(bytes(self._head).decode(errors="replace"))
        return status

    # ------------------------------------------------------------------------------------ ending

    def kill(self) -> None:
        """End what still runs of the command, inside and outside."""
        if self._process.returncode is not None:
            return
        for leader in self._leaders():
            kill_session(leader, self._command.processes, self._process.pid)
        self._process.kill()
        self._process.wait()
        self._ended = True

    def _leaders(self) -> list[int]:
        """The process that the runtime started, by its pid file or, this early, as its child."""
        found = children(self._process.pid)
        with suppress(OSError, ValueError):
            found.append(int(self._command.pidfile.read_text()))
        return sorted(set(found))

    def close(self) -> None:
        """Give back descriptors and the pid file."""
        for descriptor in list(self._open):
            self._close_output(descriptor)
        self._close_input()
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        self._command.pidfile.unlink(missing_ok=True)


def not_started(words: str) -> int:
    """The shell's exit code for the runtime's reason why a command could not be started."""
    missing = "not found" in words or "no such file or directory" in words.lower()
    return 127 if missing else 126


def _resize(descriptor: int, rows: int, cols: int) -> None:
    with suppress(OSError):
        fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))


def children(pid: int) -> list[int]:
    """The direct children of a process, by all its threads (needs the kernel's PROC_CHILDREN; else none)."""
    found: list[int] = []
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                found += [int(word) for word in (thread / "children").read_text().split()]
    return found


def kill_session(leader: int, processes: Processes, runtime: int = 0) -> None:
    """SIGKILL to a command's first process and to those of its session in the container, until a look finds
    no new one. Children that were left by their parents keep their session. `runtime` is the pid of the
    runtime's own process, which leads the session where the runtime (crun) makes none inside."""
    sessions = {leader, _session(leader), runtime} - {0}
    seen: set[int] = set()
    while True:
        found = {pid for pid in processes() if pid == leader or _session(pid) in sessions} - seen
        if not found:
            return
        seen |= found
        for pid in sorted(found):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _session(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    return int(text[text.rfind(b")") + 2 :].split()[3])
