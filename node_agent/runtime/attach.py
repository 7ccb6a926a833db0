"""A client's streams joined to those of a container's own process, over conmon's attach socket.

The socket keeps packets apart: what comes is one byte for the stream and up to 8 KiB of data, what goes is read by
the process. Closing our writing side ends the process's input where it is a pipe; a terminal is sent its end-of-file
key. See conmon(8), and `conn_sock.c` of its source.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from node_agent.ports import ExecEvent, ExecInput

_PACKET = 1 << 16
"""Bytes that one packet from conmon holds at most, and more."""
_PIECE = 8192
"""Bytes of input in one packet: conmon's buffer is larger."""
_STDERR = 3
"""conmon's first byte for the standard error stream; 2 is standard output."""
_RESIZE = 1
"""The control FIFO's word for a new size of the terminal."""


def connect(directory: Path) -> socket.socket:
    """conmon's socket of a container. Raises OSError when there is none (yet). The directory's name may be longer
    than a socket's name can be, so it is reached by descriptor."""
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            stream.connect(f"/proc/self/fd/{place}/attach")
        finally:
            os.close(place)
    except BaseException:
        stream.close()
        raise
    return stream


def resize(bundle: Path, rows: int, cols: int) -> None:
    """Tell the container's terminal its size."""
    with suppress(OSError):
        control = os.open(bundle / "ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(control, f"{_RESIZE} {rows} {cols}\n".encode())
        finally:
            os.close(control)


class Attachment:
    """One client at a container's streams. Owns the socket."""

    def __init__(
        self, stream: socket.socket, bundle: Path, code: Callable[[], Awaitable[int]], *, terminal: bool
    ) -> None:
        """`code` waits for the container's end and gives its exit code."""
        self._stream = stream
        self._bundle = bundle
        self._code = code
        self._terminal = terminal
        self._detached = asyncio.Event()

    async def events(self, source: AsyncIterator[ExecInput]) -> AsyncGenerator[ExecEvent, None]:
        """Output as it comes, then the exit code; 0 at once when the client detaches: then the caller lets it
        `idle`. Closing it otherwise ends the process's input and leaves it to itself."""
        feeder = asyncio.create_task(self._feed(source))
        detaching = asyncio.create_task(self._detached.wait())
        try:
            while (data := await self._next(detaching)) is not None:
                yield ("stderr", data[1:]) if data[0] == _STDERR else ("stdout", data[1:])
            code = 0 if self._detached.is_set() else await self._code()
            yield "exit", str(code).encode()
        finally:
            feeder.cancel()
            detaching.cancel()
            await asyncio.wait((feeder, detaching))
            if not feeder.cancelled():
                feeder.exception()  # its source's failure is the caller's own affair
            if not self.detached:
                self._stream.close()

    @property
    def detached(self) -> bool:
        return self._detached.is_set()

    async def idle(self) -> None:
        """Keep the process's input open for a client that detached, until the process ends: conmon takes a client
        that goes for the end of the input."""
        loop = asyncio.get_running_loop()
        try:
            while await loop.sock_recv(self._stream, _PACKET):
                pass
        except ConnectionError:
            pass
        finally:
            self._stream.close()

    async def _next(self, detaching: asyncio.Task[object]) -> bytes | None:
        """The next packet; None at the end, or when the client detached."""
        reading = asyncio.ensure_future(asyncio.get_running_loop().sock_recv(self._stream, _PACKET))
        try:
            await asyncio.wait((reading, detaching), return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                return None
            try:
                return reading.result() or None
            except ConnectionError:
                return None
        finally:
            if not reading.done():
                reading.cancel()
                await asyncio.wait((reading,))

    async def _feed(self, source: AsyncIterator[ExecInput]) -> None:
        loop = asyncio.get_running_loop()
        async for kind, data in source:
            if kind == "detach":
                self._detached.set()
                return
            with suppress(ConnectionError):  # nobody reads it any more: the rest is lost, as in any pipe
                if kind == "resize":
                    self._on_resize(data)
                elif kind == "eof":
                    await self._end_of_input(loop)
                else:
                    for start in range(0, len(data), _PIECE):
                        await loop.sock_sendall(self._stream, data[start : start + _PIECE])

    async def _end_of_input(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._terminal:
            await loop.sock_sendall(self._stream, b"\x04")
            return
        with suppress(OSError):
            self._stream.shutdown(socket.SHUT_WR)

    def _on_resize(self, data: bytes) -> None:
        rows, _, cols = data.decode(errors="replace").partition("x")
        if self._terminal and rows.isdecimal() and cols.isdecimal():
            resize(self._bundle, int(rows), int(cols))
