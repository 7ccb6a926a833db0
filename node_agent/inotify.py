"""inotify(7) on the running loop, through the C library: one descriptor for any number of directories.

A user may have only 128 inotify descriptors by default, so they are shared, not made per watcher.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pyswarm.errors import Unavailable

MODIFY, CLOSE_WRITE, MOVED_TO, CREATE = 0x2, 0x8, 0x80, 0x100
_OVERFLOW, _IGNORED, _ONLY_DIRECTORIES, _MASK_ADD = 0x4000, 0x8000, 0x01000000, 0x20000000
_HEADER = struct.Struct("iIII")
_libc = ctypes.CDLL(None, use_errno=True)

Changed = Callable[[str], None]


@dataclass(frozen=True, slots=True, eq=False)
class Subscription:
    """One watcher of one directory."""

    watch: int
    changed: Changed


class Inotify:
    """Calls a subscription's `changed(name)` in the loop for each event in its directory; `name` is "" when
    events were lost, or the directory has gone: look at everything again. To be closed in its loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._subscriptions: dict[int, list[Subscription]] = {}
        self._descriptor: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise _error("inotify_init1", ctypes.get_errno())
        self._loop.add_reader(self._descriptor, self._read)

    def add(self, directory: Path, mask: int, changed: Changed) -> Subscription:
        """Watch a directory. FileNotFoundError when it does not exist, Unavailable when there are too many."""
        flags = mask | _ONLY_DIRECTORIES | _MASK_ADD
        watch: int = _libc.inotify_add_watch(self._descriptor, os.fsencode(directory), flags)
        if watch < 0:
            raise _error(str(directory), ctypes.get_errno())
        subscription = Subscription(watch, changed)
        self._subscriptions.setdefault(watch, []).append(subscription)
        return subscription

    def remove(self, subscription: Subscription) -> None:
        """End a subscription; harmless when its directory has gone."""
        others = self._subscriptions.get(subscription.watch, [])
        if subscription in others:
            others.remove(subscription)
            if not others:
                del self._subscriptions[subscription.watch]
                _libc.inotify_rm_watch(self._descriptor, subscription.watch)

    @property
    def idle(self) -> bool:
        """Whether nobody watches anything."""
        return not self._subscriptions

    def close(self) -> None:
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, 1 << 16)
        except BlockingIOError:
            return
        offset = 0
        while offset < len(data):
            watch, mask, _, length = _HEADER.unpack_from(data, offset)
            offset += _HEADER.size
            name = os.fsdecode(data[offset : offset + length].rstrip(b"\0"))
            offset += length
            self._tell(watch, mask, name)

    def _tell(self, watch: int, mask: int, name: str) -> None:
        if mask & _OVERFLOW:
            told = [one for some in self._subscriptions.values() for one in some]
        elif mask & _IGNORED:
            told = self._subscriptions.pop(watch, [])
        else:
            told = self._subscriptions.get(watch, [])
        for subscription in list(told):
            subscription.changed("" if mask & (_OVERFLOW | _IGNORED) else name)


def _error(what: str, number: int) -> Exception:
    if number == errno.ENOENT:
        return FileNotFoundError(number, os.strerror(number), what)
    return Unavailable(
        f"inotify: {what}: {os.strerror(number)}: raise fs.inotify.max_user_instances and max_user_watches"
    )
