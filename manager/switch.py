"""Stands in front of the leader's services on every manager: hands calls to the leader's handlers.

On the leader itself a call goes to its handler. On another manager a control call is forwarded to the leader,
so that any manager answers any command; an agent is told to turn to the leader. While an election goes on,
calls wait for its outcome for a few seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from pyswarm.api import METHODS, Method
from pyswarm.errors import Unavailable
from pyswarm.rpc import Peer, Stub, snake

ELECTION_WAIT = 5.0
"""Seconds that a call waits for somebody to lead."""


class Switch:
    """One service's handler, whoever leads. Set `leader_is_self` or `leader_is` as elections go."""

    def __init__(self, service: str, connect: Callable[[str], Stub] | None) -> None:
        self._connect = connect
        self._handler: object | None = None
        self._stub: Stub | None = None
        self._address: str | None = None
        self._known = asyncio.Event()
        for method in METHODS:
            if method.service == service:
                make = self._streaming if method.server_stream else self._unary
                setattr(self, snake(method.name), make(method))

    def leader_is_self(self, handler: object) -> None:
        self._handler, self._stub, self._address = handler, None, None
        self._known.set()

    def leader_is(self, address: str | None) -> None:
        """Another manager leads (host:port of its API), or nobody that is known."""
        self._handler = None
        if address != self._address:
            self._address = address
            self._stub = self._connect(address) if address is not None and self._connect is not None else None
        if address is None:
            self._known.clear()
        else:
            self._known.set()

    async def _target(self) -> object | None:
        """The local handler, or None when the call is to be forwarded."""
        if not self._known.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._known.wait(), ELECTION_WAIT)
        if self._handler is None and self._address is None:
            raise Unavailable(
                "the managers have no leader: more than half of them must be up and reach each other; "
                "if they are lost for good, run `pyswarm init --force-new-cluster` on one that is left"
            )
        if self._handler is None and self._stub is None:
            raise Unavailable(f"manager {self._address} leads: turn to it")
        return self._handler

    def _unary(self, method: Method) -> Callable[..., Any]:
        async def call(request: Any, peer: Peer) -> Any:
            handler = await self._target()
            if handler is not None:
                return await getattr(handler, snake(method.name))(request, peer)
            assert self._stub is not None
            return await self._stub.unary(f"{method.service}.{method.name}", request, timeout=300)

        return call

    def _streaming(self, method: Method) -> Callable[..., AsyncIterator[Any]]:
        async def call(request: Any, peer: Peer) -> AsyncIterator[Any]:
            handler = await self._target()
            name = f"{method.service}.{method.name}"
            if handler is not None:
                stream: Any = getattr(handler, snake(method.name))(request, peer)
            else:
                assert self._stub is not None
                forward = self._stub.duplex if method.client_stream else self._stub.stream
                stream = forward(name, request)
            async with contextlib.aclosing(stream):
                async for message in stream:
                    yield message

        return call
