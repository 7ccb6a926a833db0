"""Stands in front of the leader's services on every manager: hands calls to the leader's handlers.

On the leader itself a call goes to its handler, and a stream ends when the lead is lost. On another manager a
call that people make is forwarded to the leader, so that any manager answers any command; a node, whose
certificate says for whom it speaks, is told to turn to the leader itself. While an election goes on, calls wait
for its outcome for a few seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import replace
from typing import Any, cast

from manager.control import Facts
from manager.store import Deposed
from manager.vigil import Sign, knock
from pyswarm.api import METHODS, GetRequest, InfoResponse, Method, NodeCommand
from pyswarm.errors import Unavailable
from pyswarm.rpc import Peer, Stub, snake

ELECTION_WAIT = 5.0
"""Seconds that a call waits for somebody to lead."""
AHEAD = 16
"""Messages of a stream that are held for its reader."""
NO_LEADER = (
    "the managers have no leader: more than half of them must be up and reach each other; "
    "if they are lost for good, run `pyswarm init --force-new-cluster` on one that is left"
)
LEAD_LOST = "this manager does not lead any more: ask again"
LEADER_GONE = (
    "the leading manager was lost before it answered, so it is not known whether it did what was asked: look, and "
    "ask again"
)
FORWARD_TIMEOUT = 300.0
FOR_CALLER = frozenset({"CA", "Raft"})
"""Services that are told who has called the manager that hands the call on: a node, by its certificate."""
READS = frozenset({"Info", "List", "Get", "Stats", "GetRootCA"})
"""Methods that change nothing: asked again of the next leader when one is lost."""


class _Moved(Unavailable):
    """Another manager than the one that was asked leads now."""


class Switch:
    """One service's handler, whoever leads. Two facts decide, each told by whoever knows it, in any order:
    whether this process leads (`leader_is_self`, `resigned`), and which other manager won (`leader_is`)."""

    def __init__(
        self,
        service: str,
        connect: Callable[[str], Stub] | None,
        facts: Facts | None = None,
        trouble: Callable[[], str] = str,
    ) -> None:
        """`facts` of this manager stand in for the leader's where a call means the manager that is asked.
        `trouble` says what keeps this manager from taking part, "" for nothing."""
        self._connect = connect
        self._trouble = trouble
        self._facts = facts
        self._handler: object | None = None
        self._streams: set[asyncio.Task[None]] = set()
        self._handed: set[asyncio.Task[None]] = set()
        """Streams that another manager's are copied into."""
        self._moved = asyncio.Event()
        """Set when the leader that calls were handed to leads no more."""
        self._gone = asyncio.Event()
        """Set when this process leads no more."""
        self._closing: set[asyncio.Task[None]] = set()
        self._stub: Stub | None = None
        self._address: str | None = None
        self._known = asyncio.Event()
        for method in METHODS:
            if method.service == service:
                make = self._streaming if method.server_stream else self._unary
                setattr(self, snake(method.name), make(method))

    def leader_is_self(self, handler: object) -> None:
        """This process leads, with `handler`."""
        self._handler = handler
        self._settle()

    def resigned(self) -> None:
        """This process does not lead (any more): streams of its handler end."""
        self._handler = None
        self._gone.set()
        self._gone = asyncio.Event()
        for stream in self._streams:
            stream.cancel()
        self._settle()

    def leader_is(self, address: str | None) -> None:
        """Another manager has won the election (host:port of its API); None: no other, or none is known."""
        if address != self._address:
            self._let_go()
            self._address = address
            self._stub = self._connect(address) if address is not None and self._connect is not None else None
        self._settle()

    def reconnect(self) -> None:
        """Connect to the other manager that leads anew, since this one's certificate was renewed. What was handed on
        has time to end."""
        if self._stub is None or self._address is None or self._connect is None:
            return
        self._close(self._stub, FORWARD_TIMEOUT)
        self._stub = self._connect(self._address)

    def _close(self, stub: Stub, grace: float | None = None) -> None:
        closing = asyncio.ensure_future(stub.close(grace))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def _let_go(self) -> None:
        """End what was handed to the former leader: it may be a machine that does not answer any more."""
        self._moved.set()
        self._moved = asyncio.Event()
        for stream in self._handed:
            stream.cancel()
        if self._stub is not None:
            self._close(self._stub)

    def _settle(self) -> None:
        if self._handler is None and self._address is None:
            self._known.clear()
        else:
            self._known.set()

    async def _target(self, method: Method, peer: Peer) -> object | None:
        """The local handler, or None when the call is to be forwarded."""
        await _within(ELECTION_WAIT, self._known)
        if self._handler is not None:
            return self._handler
        if self._address is None:
            trouble = self._trouble()
            raise Unavailable(f"{NO_LEADER} (this manager: {trouble})" if trouble else NO_LEADER)
        if peer.forwarded:
            raise Unavailable("the managers are just changing their leader: ask again")
        if self._stub is None or not forwardable(method):
            raise Unavailable(f"manager {self._address} leads: turn to it")
        return None

    def _unary(self, method: Method) -> Callable[..., Any]:
        async def call(request: Any, peer: Peer) -> Any:
            while True:
                handler = await self._target(method, peer)
                address, moved = self._address, self._moved
                try:
                    if handler is not None:
                        return await getattr(handler, snake(method.name))(request, peer)
                    return self._signed(await self._hand_on(method, self._here(request), peer))
                except (_Moved, Deposed):
                    if method.name not in READS or peer.forwarded:
                        raise
                    await self._changed(handler)
                except Unavailable as error:
                    if handler is not None or await asyncio.to_thread(knock, address or "") is Sign.ANSWERED:
                        raise
                    if method.name not in READS or not await _within(ELECTION_WAIT, moved):
                        raise Unavailable(
                            f"manager {address}, which led, does not answer ({error}): {NO_LEADER}"
                        ) from None

        return call

    async def _changed(self, handler: object | None) -> None:
        """Until `handler` is not the leader's any more, which it has just found out itself, or for a while."""
        if handler is not None and self._handler is handler:
            await _within(ELECTION_WAIT, self._gone)

    async def _hand_on(self, method: Method, request: object, peer: Peer) -> Any:
        """The leader's answer. Raises _Moved when it leads no more before it has answered."""
        assert self._stub is not None
        origin = peer if method.service in FOR_CALLER else None
        moved = asyncio.ensure_future(self._moved.wait())
        answer = asyncio.ensure_future(
            self._stub.unary(_name(method), request, timeout=FORWARD_TIMEOUT, origin=origin)
        )
        try:
            await asyncio.wait({answer, moved}, return_when=asyncio.FIRST_COMPLETED)
            if moved.done() or answer.cancelled():
                raise _Moved(LEADER_GONE)
            return answer.result()
        finally:
            for future in (answer, moved):
                future.cancel()
            await asyncio.gather(answer, moved, return_exceptions=True)

    def _streaming(self, method: Method) -> Callable[..., AsyncIterator[Any]]:
        async def call(request: Any, peer: Peer) -> AsyncGenerator[Any, None]:
            handler = await self._target(method, peer)
            if handler is not None:
                stream = self._until_cut(getattr(handler, snake(method.name))(request, peer), self._streams)
            elif method.client_stream:
                assert self._stub is not None
                theirs = self._stub.duplex(_name(method), self._all_here(request))
                stream = self._until_cut(theirs, self._handed)
            else:
                assert self._stub is not None
                theirs = self._stub.stream(_name(method), request)
                stream = self._until_cut(cast("AsyncGenerator[Any, None]", theirs), self._handed)
            async with contextlib.aclosing(stream) as messages:
                async for message in messages:
                    yield message

        return call

    async def _until_cut(
        self, stream: AsyncGenerator[Any, None], streams: set[asyncio.Task[None]]
    ) -> AsyncGenerator[Any, None]:
        """The messages of a handler or of another manager; Unavailable as soon as that leads no more and the task
        in `streams` is cancelled."""
        held: deque[Any] = deque()
        news, room = asyncio.Event(), asyncio.Event()

        async def pump() -> None:
            async with contextlib.aclosing(stream):
                async for message in stream:
                    held.append(message)
                    news.set()
                    while len(held) >= AHEAD:
                        room.clear()
                        await room.wait()

        work = asyncio.ensure_future(pump())
        work.add_done_callback(lambda _: news.set())
        streams.add(work)
        try:
            while held or not work.done():
                if not held:
                    news.clear()
                    await news.wait()
                while held:
                    yield held.popleft()
                    room.set()
            if work.cancelled():
                raise Unavailable(LEAD_LOST)
            work.result()
        finally:
            streams.discard(work)
            work.cancel()
            await asyncio.wait({work})

    # ------------------------------------------------------------------------------ the manager that is asked

    def _here(self, request: object) -> object:
        """A request whose words for the manager that is asked mean this one, wherever it is answered."""
        if self._facts is None:
            return request
        match request:
            case GetRequest(kind="node", ref="self"):
                return replace(request, ref=self._facts.node_id)
            case NodeCommand(node="") if request.verb:
                return replace(request, node=self._facts.node_id)
            case _:
                return request

    async def _all_here(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for request in requests:
            yield self._here(request)

    def _signed(self, answer: Any) -> Any:
        """The leader's answer, with this manager as the one that gives it."""
        facts = self._facts
        if facts is None or not isinstance(answer, InfoResponse):
            return answer
        return replace(
            answer,
            node_id=facts.node_id,
            node_addr=facts.node_addr,
            is_leader=False,
            version=facts.version,
            raft_version=facts.raft_version(),
            state_dir=facts.state_dir,
            run_dir=facts.run_dir,
        )


async def _within(seconds: float, event: asyncio.Event) -> bool:
    """Whether something happens in time. (wait_for of Python 3.11 may swallow a cancellation.)"""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


def forwardable(method: Method) -> bool:
    """Whether a call may be handed on: what people ask, and what is asked of the CA and of Raft (for which the
    caller's certificate goes along). Agents' sessions are with the leader itself."""
    return method.service in FOR_CALLER or bool(method.roles & {"admin", "anyone"})


def _name(method: Method) -> str:
    return f"{method.service}.{method.name}"
