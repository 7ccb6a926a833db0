"""The local socket's door: lets in root and the socket group by peer credentials, and hands the bytes on.

gRPC does not show who is at the other end of a unix socket, the kernel does (SO_PEERCRED). So people connect
here; whoever may passes through to gRPC's own socket, which only root can reach.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import grp
import logging
import os
import socket
import struct
from collections.abc import Collection
from pathlib import Path

log = logging.getLogger(__name__)

CHUNK = 64 * 1024
_CREDENTIALS = struct.Struct("3i")
_SO_PEERGROUPS = 59
"""Linux 4.13; not in Python's socket module."""
_LARGEST_OPTION = 1024
"""Bytes that Python's getsockopt reads at most."""


class Gate:
    """Listens on `path`, forwards to `inner`."""

    def __init__(self, path: Path, inner: Path, group: str) -> None:
        self._path = path
        self._inner = inner
        self._group = _gid(group)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Open it. The group may pass through the directory of the socket, and sees nothing else there."""
        self._path.unlink(missing_ok=True)
        if self._group is not None:
            os.chown(self._path.parent, 0, self._group)
            self._path.parent.chmod(0o710)
        self._server = await asyncio.start_unix_server(self._accept, str(self._path))
        os.chown(self._path, 0, self._group if self._group is not None else 0)
        self._path.chmod(0o660)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        connections = set(self._connections)
        for connection in connections:
            connection.cancel()
        if connections:
            await asyncio.wait(connections)
        self._path.unlink(missing_ok=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = writer.get_extra_info("socket")
        pid, uid, gid = peer_credentials(connection)
        if not self._allowed(uid, {gid, *peer_groups(connection)}):
            log.warning("refused user %d (process %d) on %s", uid, pid, self._path)
            return
        inner_reader, inner_writer = await asyncio.open_unix_connection(str(self._inner))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pipe(reader, inner_writer))
                group.create_task(_pipe(inner_reader, writer))
        except* OSError:
            pass
        finally:
            inner_writer.close()

    def _allowed(self, uid: int, groups: Collection[int]) -> bool:
        return uid == 0 or (self._group is not None and self._group in groups)


def _gid(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def peer_credentials(connection: socket.socket) -> tuple[int, int, int]:
    """pid, uid and gid of the process at the other end of a unix socket."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    return pid, uid, gid


def peer_groups(connection: socket.socket) -> tuple[int, ...]:
    """The groups of that process besides its own, as they were when it connected: by its number, another process
    might be meant by now. More than Python can ask for (256) count as none."""
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _LARGEST_OPTION)
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
        return ()
    return struct.unpack(f"{len(raw) // 4}I", raw)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()
