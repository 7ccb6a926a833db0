"""inotify(7) on the running loop, through the C library: one descriptor, any number of directories."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path

from pyswarm.errors import Unavailable

MODIFY, MOVED_TO, CREATE, DELETE = 0x2, 0x80, 0x100, 0x200
CLOSE_WRITE = 0x8
DELETE_SELF, OVERFLOW, IGNORED = 0x400, 0x4000, 0x8000
_ONLYDIR = 0x01000000
_HEADER = struct.Struct("iIII")
_libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """Calls `changed(name)` in the loop for each event in the watched directories; `name` is "" when events
    were lost (look at everything again). Close it, or leave its `with` block."""

    def __init__(self, changed: Callable[[str], None]) -> None:
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._descriptor: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise _error("inotify_init1", ctypes.get_errno())
        self._loop.add_reader(self._descriptor, self._read)

    def add(self, directory: Path, mask: int) -> None:
        """Watch a directory too. FileNotFoundError when it does not exist."""
        if _libc.inotify_add_watch(self._descriptor, os.fsencode(directory), mask | _ONLYDIR) < 0:
            raise _error(str(directory), ctypes.get_errno())

    def close(self) -> None:
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, 1 << 16)
        except BlockingIOError:
            return
        offset = 0
        while offset < len(data):
            _, mask, _, length = _HEADER.unpack_from(data, offset)
            offset += _HEADER.size
            name = data[offset : offset + length].rstrip(b"\0")
            offset += length
            if mask & IGNORED:
                continue
            self._changed("" if mask & OVERFLOW else os.fsdecode(name))


def _error(what: str, number: int) -> Exception:
    if number == errno.ENOENT:
        return FileNotFoundError(number, os.strerror(number), what)
    return Unavailable(
        f"inotify: {what}: {os.strerror(number)}: raise fs.inotify.max_user_instances and max_user_watches"
    )
