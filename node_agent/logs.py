"""Container logs: the files that conmon writes, read, followed and rotated.

The form is Kubernetes' CRI one: `time stream tag text`, with tag `P` for a piece of a longer line and `F` for
the piece that ends it. conmon appends to `log`; rotated files are `log.1` (the youngest), `log.2` ... The
agent is no part of the path that a line takes, so nothing is lost while it is away.

Rotation renames the file and then tells conmon, through the FIFO `ctl` in its bundle, to open a new one;
conmon goes on writing into the renamed file until it does. A reader knows that a file is complete when a
file of another inode has the name `log`.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

from node_agent import inotify
from node_agent.ports import LogLine, Paths
from pyswarm.clock import Clock, SystemClock
from pyswarm.errors import Invalid
from pyswarm.specs import Driver

DEFAULT_MAX_SIZE = 20 << 20
DEFAULT_MAX_FILES = 5
"""The limits of Docker's `local` log driver: without limits, logs fill disks."""
_CHUNK = 1 << 18
_TICK = 2.0
"""Seconds after which a follower looks by itself, in case an event got lost."""

Stream = Literal["stdout", "stderr"]


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a task's logs may grow: bytes of one file (0 is without limit), and how many files."""

    max_size: int = DEFAULT_MAX_SIZE
    max_files: int = DEFAULT_MAX_FILES


def limits(driver: Driver | None) -> Limits:
    """The options `max-size` and `max-file` of a log driver, as `docker run --log-opt` takes them."""
    options = driver.options if driver is not None else {}
    size, files = options.get("max-size", ""), options.get("max-file", "")
    if files and (not files.isdecimal() or int(files) < 1):
        raise Invalid(f"logging.options.max-file: {files!r} has to be a number from 1")
    return Limits(
        _size(size) if size else DEFAULT_MAX_SIZE,
        int(files) if files else DEFAULT_MAX_FILES,
    )


_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.IGNORECASE)


def _size(text: str) -> int:
    if text.strip() == "-1":
        return 0
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise Invalid(f"logging.options.max-size: {text!r} is no size: write it as 500k, 10m or 1g")
    return int(float(found[1]) * 1024 ** " kmgt".index(found[2].lower() or " "))


# ---------------------------------------------------------------------------------------------- lines


@dataclass(slots=True)
class Parser:
    """Turns conmon's lines into LogLines. Keeps the last second's number, for most lines share it."""

    task_id: str
    _second: bytes = b""
    _zone: bytes = b""
    _number: int = 0

    def parse(self, line: bytes) -> LogLine | None:
        """A line without its newline; None for one that is torn or foreign."""
        fields = line.split(b" ", 3)
        if len(fields) != 4 or fields[1] not in (b"stdout", b"stderr"):
            return None
        nanos = self._nanos(fields[0])
        if nanos is None:
            return None
        stream: Stream = "stdout" if fields[1] == b"stdout" else "stderr"
        data = fields[3] if fields[2].startswith(b"P") else fields[3] + b"\n"
        return LogLine(task_id=self.task_id, nanos=nanos, stream=stream, data=data)

    def _nanos(self, text: bytes) -> int | None:
        """`2026-01-02T03:04:05.123456789+00:00`, with whatever zone conmon has."""
        second, zone = text[:19], text[29:]
        try:
            if second != self._second or zone != self._zone:
                moment = datetime.fromisoformat((second + zone).decode())
                self._number = int(moment.timestamp())
                self._second, self._zone = second, zone
            return self._number * 1_000_000_000 + int(text[20:29])
        except ValueError:
            return None


def lines_backward(descriptor: int, size: int) -> Iterator[tuple[int, bytes]]:
    """(offset, line without newline) of the complete lines in a file's first `size` bytes, the last first."""
    position, head, complete = size, b"", False
    while position > 0:
        step = min(_CHUNK, position)
        position -= step
        block = os.pread(descriptor, step, position) + head
        head, *lines = block.split(b"\n")
        offset = position + len(block)
        for line in reversed(lines):
            offset -= len(line)
            if complete:
                yield offset, line
            complete = True  # what follows the last newline is no line yet
            offset -= 1
    if complete:
        yield 0, head


def tail_start(files: Sequence[int], count: int, streams: frozenset[bytes]) -> tuple[int, int]:
    """Where the last `count` lines of these streams begin: (index into `files`, offset). The pieces of a long
    line count once; a stream's last piece counts as a line even if nothing has ended it yet."""
    last = len(files) - 1
    seen: set[bytes] = set()
    for index in range(last, -1, -1):
        for offset, line in lines_backward(files[index], os.fstat(files[index]).st_size):
            fields = line.split(b" ", 3)
            if len(fields) != 4 or fields[1] not in streams:
                continue
            if fields[2].startswith(b"P") and fields[1] in seen:
                continue
            if count == 0:
                return index, offset + len(line) + 1
            seen.add(fields[1])
            count -= 1
    return 0, 0


# ---------------------------------------------------------------------------------------------- reading


@dataclass(slots=True)
class _Files:
    """The open files of one log, oldest first, and how far the current one was read."""

    path: Path
    descriptors: list[int] = field(default_factory=list[int])
    offset: int = 0
    carry: bytes = b""

    def open(self) -> None:
        """Open what there is, youngest first: so a rotation in between shows a file twice, but hides none."""
        found: dict[tuple[int, int], int] = {}
        number = 0
        while True:
            descriptor = _open(self.path if not number else _numbered(self.path, number))
            if descriptor is None and number:
                break
            if descriptor is not None:
                status = os.fstat(descriptor)
                if (status.st_dev, status.st_ino) in found:
                    os.close(descriptor)
                else:
                    found[status.st_dev, status.st_ino] = descriptor
            number += 1
        self.descriptors = list(reversed(found.values()))

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors.clear()

    def start(self, index: int, offset: int) -> None:
        """Go on from there, and let go of the older files."""
        for descriptor in self.descriptors[:index]:
            os.close(descriptor)
        del self.descriptors[:index]
        self.offset, self.carry = offset, b""

    def read(self) -> list[bytes] | None:
        """The next complete lines of the current file; None at its end."""
        if not self.descriptors:
            return None
        block = os.pread(self.descriptors[0], _CHUNK, self.offset)
        if not block:
            return None
        self.offset += len(block)
        lines = (self.carry + block).split(b"\n")
        self.carry = lines.pop()
        return lines

    def superseded(self) -> bool:
        """Whether the current file is no longer written, because a younger one is there."""
        if len(self.descriptors) > 1:
            return True
        try:
            youngest = self.path.stat()
        except FileNotFoundError:
            return False
        return not self.descriptors or not os.path.samestat(youngest, os.fstat(self.descriptors[0]))

    def advance(self) -> None:
        """Go on to the next younger file, of those that are open already or that came since."""
        if len(self.descriptors) < 2:
            newer = _Files(self.path)
            newer.open()
            newer.start(self._position_in(newer) + 1, 0)
            none_before = not self.descriptors
            self.descriptors += newer.descriptors
            if none_before or len(self.descriptors) < 2:
                return
        self.start(1, 0)

    def _position_in(self, others: _Files) -> int:
        """Where the current file is among the others; -1 when it is not (rotated away, or none)."""
        if self.descriptors:
            own = os.fstat(self.descriptors[0])
            for index, descriptor in enumerate(others.descriptors):
                if os.path.samestat(own, os.fstat(descriptor)):
                    return index
        return -1


class Logs:
    """The agent's `LogPort` over one state directory, and the rotation of its files."""

    def __init__(self, paths: Paths, *, clock: Clock | None = None) -> None:
        self._paths = paths
        self._clock = clock or SystemClock()
        self._inotify: inotify.Inotify | None = None

    async def read(
        self, task_id: str, *, follow: bool, tail: int, since: float, until: float, stdout: bool, stderr: bool
    ) -> AsyncIterator[LogLine]:
        """See LogPort. Following ends when the container has ended and its last line is read."""
        streams = frozenset(name for name, wanted in (("stdout", stdout), ("stderr", stderr)) if wanted)
        first, last = round(since * 1e9), round(until * 1e9)
        files = _Files(self._paths.log(task_id))
        try:
            files.open()
            await asyncio.to_thread(_position, files, tail, streams, since)
            source = self._followed(task_id, files, until) if follow else _stored(files)
            parser = Parser(task_id)
            async for lines in source:
                for text in lines:
                    line = parser.parse(text)
                    if line is None or line.stream not in streams or line.nanos < first:
                        continue
                    if last and line.nanos > last:
                        return
                    yield line
        finally:
            files.close()

    async def _followed(self, task_id: str, files: _Files, until: float) -> AsyncIterator[list[bytes]]:
        changed = asyncio.Event()

        def wake(name: str) -> None:
            if not name or name == task_id or name.startswith("log"):
                changed.set()

        subscriptions: list[inotify.Subscription] = []
        try:
            while True:
                if not subscriptions:
                    subscriptions = self._subscribe(task_id, wake)
                changed.clear()
                ended = self._ended(task_id)
                while (lines := _next(files)) is not None:
                    yield lines
                    await asyncio.sleep(0)
                if ended or (until and self._clock.now() > until):
                    return
                with suppress(TimeoutError):
                    async with asyncio.timeout(_TICK):
                        await changed.wait()
        finally:
            self._unsubscribe(subscriptions)

    def _subscribe(self, task_id: str, wake: inotify.Changed) -> list[inotify.Subscription]:
        """Watch the log's directory and the exit files; nothing while the directory is not there yet."""
        if self._inotify is None:
            self._inotify = inotify.Inotify()
        try:
            mask = inotify.MODIFY | inotify.MOVED_TO | inotify.CREATE
            subscriptions = [self._inotify.add(self._paths.task_state(task_id), mask, wake)]
        except FileNotFoundError:
            return []
        with suppress(FileNotFoundError):
            subscriptions.append(self._inotify.add(self._paths.run / "exits", inotify.MOVED_TO, wake))
        return subscriptions

    def _unsubscribe(self, subscriptions: Sequence[inotify.Subscription]) -> None:
        if self._inotify is not None:
            for subscription in subscriptions:
                self._inotify.remove(subscription)
            if self._inotify.idle:
                self._inotify.close()
                self._inotify = None

    def _ended(self, task_id: str) -> bool:
        """Whether no more lines will come: the exit code is written (after the last line), or the container is
        gone, or its monitor is; a restart is no end."""
        if self._paths.restarting(task_id).exists():
            return False
        if (self._paths.run / "exits" / task_id).exists():
            return True
        bundle = self._paths.task_run(task_id) / "bundle"
        if not bundle.exists():
            return self._paths.log(task_id).exists() or not self._paths.task_run(task_id).exists()
        with suppress(OSError):
            pid = (bundle / "conmon.pid").read_text().strip()
            return not _names(pid, task_id)
        return False

    # ------------------------------------------------------------------------------------ rotation

    def rotate(self, task_id: str, limit: Limits) -> bool:
        """Rotate a running container's log if it has outgrown the limit; whether that was done. Costs one
        stat(2) if not. Repairs a rotation that was interrupted."""
        path = self._paths.log(task_id)
        control = self._paths.task_run(task_id) / "bundle" / "ctl"
        try:
            if not limit.max_size or path.stat().st_size < limit.max_size:
                return False
        except FileNotFoundError:
            if _numbered(path, 1).exists():
                _reopen(control)
            return False
        if not self._ended(task_id):
            _shift(path, limit.max_files)
            return _reopen(control)
        return False

    def remove(self, task_id: str) -> None:
        """Remove a task's log files."""
        path = self._paths.log(task_id)
        path.unlink(missing_ok=True)
        number = 1
        while _numbered(path, number).exists():
            _numbered(path, number).unlink(missing_ok=True)
            number += 1


def _position(files: _Files, tail: int, streams: frozenset[str], since: float) -> None:
    """Set the files to the first line that can be of interest."""
    if not files.descriptors:
        return
    if tail >= 0:
        index, offset = tail_start(files.descriptors, tail, frozenset(name.encode() for name in streams))
        files.start(index, offset)
    elif since:
        last = len(files.descriptors) - 1
        index = next(
            (i for i, descriptor in enumerate(files.descriptors) if os.fstat(descriptor).st_mtime >= since),
            last,
        )
        files.start(index, 0)


async def _stored(files: _Files) -> AsyncIterator[list[bytes]]:
    """What is there now, to the end of the youngest file."""
    while files.descriptors:
        lines = await asyncio.to_thread(files.read)
        if lines is not None:
            yield lines
        elif len(files.descriptors) > 1:
            files.start(1, 0)
        else:
            return


def _next(files: _Files) -> list[bytes] | None:
    """The next lines of a log that is being written; None when there are none yet."""
    while True:
        lines = files.read()
        if lines is not None or not files.superseded():
            return lines
        # What was written between that read and the rename belongs to the old file.
        lines = files.read()
        if lines is not None:
            return lines
        files.advance()


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _open(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None


def _shift(path: Path, most: int) -> None:
    """Rename `log` to `log.1` and so on; those beyond `most` files, the current one counted, go."""
    number = 1
    while _numbered(path, number).exists():
        number += 1
    for older in range(number - 1, 0, -1):
        if older + 1 >= max(most, 2):
            _numbered(path, older).unlink()
        else:
            _numbered(path, older).rename(_numbered(path, older + 1))
    path.rename(_numbered(path, 1))


def _reopen(control: Path) -> bool:
    """Tell conmon to open its log anew; False when it does not listen (any more)."""
    try:
        descriptor = os.open(control, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(descriptor, b"2 0 0\n")
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _names(pid: str, task_id: str) -> bool:
    """Whether the process with this pid lives and is the monitor of the task."""
    with suppress(OSError):
        return task_id.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False
