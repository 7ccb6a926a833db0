"""Processes of others, watched without being their parent: descriptors, start times, ends."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import Any


async def readable(descriptor: int, instead: asyncio.Future[Any] | None = None) -> None:
    """Wait until the descriptor can be read (for a pidfd: until the process has ended), or until the future
    `instead` is done, which is left as it is."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def done(_: asyncio.Future[Any]) -> None:
        _done(future)

    if instead is not None:
        instead.add_done_callback(done)
    loop.add_reader(descriptor, _done, future)
    try:
        await future
    finally:
        loop.remove_reader(descriptor)
        if instead is not None:
            instead.remove_done_callback(done)


async def writable(descriptor: int) -> None:
    """Wait until the descriptor can be written."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.add_writer(descriptor, _done, future)
    try:
        await future
    finally:
        loop.remove_writer(descriptor)


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot (field 22 of proc(5) stat); 0 when there is none or
    it has ended. Together with the pid it names a process for as long as the machine runs."""
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        text = os.read(descriptor, 4096)
    except ProcessLookupError:
        return 0
    finally:
        os.close(descriptor)
    fields = text[text.rfind(b")") + 2 :].split()
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def open_process(pid: int, started: int) -> int | None:
    """A pidfd of the process with this pid and start time; None when it has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if start_time(pid) != started or not started:
        os.close(descriptor)
        return None
    return descriptor


def read_pid(text: str) -> int:
    """The number in a pid file's text; 0 when it holds none (yet)."""
    with suppress(ValueError):
        return int(text.strip())
    return 0
