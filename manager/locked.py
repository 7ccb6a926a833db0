"""A manager that is locked: it answers on its local socket alone, and that it is locked, until it gets the key."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from manager.gate import Gate
from manager.lock import Vault
from manager.sealer import Sealer
from pyswarm.api import METHODS, Empty, SealKeysResponse, UnlockRequest
from pyswarm.errors import Conflict, Locked
from pyswarm.nodeconfig import SOCKET_GROUP, NodeConfig
from pyswarm.rpc import SERVER_OPTIONS, Peer, add_service, identify_local, snake

log = logging.getLogger(__name__)


class LockedControl:
    """Every method of Control, answered by how to unlock."""

    def __init__(self) -> None:
        for method in METHODS:
            if method.service == "Control":
                setattr(self, snake(method.name), self._stream if method.server_stream else self._unary)

    async def _unary(self, request: Any, peer: Peer) -> Any:
        raise Locked

    async def _stream(self, request: Any, peer: Peer) -> AsyncIterator[Any]:
        raise Locked
        yield  # makes it a generator


class Unlocking:
    """The service `Lock` of a manager that is locked."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self.sealer: asyncio.Future[Sealer] = asyncio.get_running_loop().create_future()

    async def unlock(self, request: UnlockRequest, peer: Peer) -> Empty:
        sealer = self._vault.open(request.key)
        if not self.sealer.done():
            self.sealer.set_result(sealer)
        return Empty()


class NotLocked:
    """The service `Lock` of a manager that is not."""

    async def unlock(self, request: UnlockRequest, peer: Peer) -> Empty:
        raise Conflict("this manager is not locked")


class VaultService:
    """The service `Vault`, on a socket that root alone reaches."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    async def seal_keys(self, request: Empty, peer: Peer) -> SealKeysResponse:
        return SealKeysResponse(keys=tuple(self._sealer.keys))


async def unlocked(config: NodeConfig, vault: Vault) -> Sealer | None:
    """The sealing key, once somebody has unlocked this manager; None on SIGTERM."""
    if not vault.locked:
        return vault.load()
    log.warning("this manager is locked: `pyswarm unlock` unlocks it")
    inner = config.run / "manager" / "grpc.sock"
    inner.parent.mkdir(mode=0o700, exist_ok=True)
    inner.unlink(missing_ok=True)
    unlocking = Unlocking(vault)
    server = grpc.aio.server(options=SERVER_OPTIONS)
    server.add_insecure_port(f"unix:{inner}")
    add_service(server, "Control", LockedControl(), identify_local)
    add_service(server, "Lock", unlocking, identify_local)
    gate = Gate(config.socket, inner, SOCKET_GROUP)
    await server.start()
    await gate.start()
    try:
        return await _or_stopped(unlocking.sealer)
    finally:
        await server.stop(1.0)
        await gate.stop()


async def _or_stopped(sealer: asyncio.Future[Sealer]) -> Sealer | None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({sealer, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return sealer.result() if sealer.done() else None
    finally:
        stopping.cancel()
