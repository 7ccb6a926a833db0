"""The agent's side of the managers: register, beat, take assignments, report, answer demands.

A session is one TaskGroup over one connection; when any part of it fails, the whole is given up and begun
again with a manager that answers, after a back-off of 100 ms to 8 s. Containers do not notice: the worker
keeps what it was assigned and what there is to report for as long as the managers are away.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Protocol, cast

from pyswarm.api import (
    AnswerInput,
    AnswerMessage,
    AssignmentsRequest,
    Demand,
    FetchImageRequest,
    HeartbeatRequest,
    ImagePiece,
    IssueResponse,
    ListenRequest,
    RenewRequest,
    SessionMessage,
    SessionRequest,
    UpdateStatusRequest,
)
from pyswarm.clock import Clock
from pyswarm.errors import PyswarmError, Unavailable
from pyswarm.objects import Assignments, ContainerStats, Node, NodeDescription, TaskStatus, TaskStatusUpdate
from pyswarm.rpc import TLS, Stub, channel

log = logging.getLogger(__name__)

BACKOFF_MIN, BACKOFF_MAX = 0.1, 8.0
STATUS_BATCH = 0.005
"""Seconds that a status report waits for others to travel with."""
STATS_PERIOD = 5.0
RPC_TIMEOUT = 5.0
MANAGER_TIMEOUT = 10.0
"""Seconds for the first answer of a manager before the next one is tried."""


class Assignee(Protocol):
    """What assignments are for: the worker."""

    async def apply(self, assignments: Assignments) -> None: ...
    def statuses(self) -> Sequence[TaskStatusUpdate]:
        """The last status of every task that the worker holds."""
        ...


class Answerer(Protocol):
    """Who serves demands: logs, exec, commands."""

    def answer(self, demand: Demand, inputs: AsyncIterator[AnswerInput]) -> AsyncIterator[AnswerMessage]: ...


class Outbox:
    """Reports that no manager has confirmed yet: the last status of each task. Bounded by the tasks."""

    def __init__(self) -> None:
        self._pending: dict[str, TaskStatus] = {}
        self._filled = asyncio.Event()

    def put(self, update: TaskStatusUpdate) -> None:
        self._pending[update.task_id] = update.status
        self._filled.set()

    async def batch(self) -> tuple[TaskStatusUpdate, ...]:
        """Wait until there is something, give it a moment to gather, return it all."""
        await self._filled.wait()
        await asyncio.sleep(STATUS_BATCH)
        return tuple(TaskStatusUpdate(task_id=id, status=status) for id, status in self._pending.items())

    def confirm(self, batch: Sequence[TaskStatusUpdate]) -> None:
        """A manager has committed these; what changed meanwhile stays."""
        for update in batch:
            if self._pending.get(update.task_id) is update.status:
                del self._pending[update.task_id]
        if not self._pending:
            self._filled.clear()


class Session:
    """Keeps this node registered with one of the managers, for ever."""

    def __init__(
        self,
        *,
        worker: Assignee,
        answerer: Answerer,
        outbox: Outbox,
        managers: Sequence[str],
        tls: Callable[[], TLS],
        describe: Callable[[], NodeDescription],
        stats: Callable[[], Awaitable[Sequence[ContainerStats]]],
        clock: Clock,
        addr: str,
        data_path_addr: str,
        remember_managers: Callable[[Sequence[str]], None],
        registered: Callable[[str], None] = lambda manager: None,
        told: Callable[[Node | None, str], None] = lambda node, roots: None,
        manager_addresses: Callable[[], tuple[str, str]] = lambda: ("", ""),
    ) -> None:
        """`registered` is told the manager of each session when it begins, and "" when it has ended; `told` the
        node's own record, and the roots to trust, as they come. `manager_addresses` are those of a manager on
        this node: where machines join, and of its API."""
        self._worker = worker
        self._answerer = answerer
        self._outbox = outbox
        self._managers = list(managers)
        self._tls = tls
        self._describe = describe
        self._stats = stats
        self._clock = clock
        self._addr = addr
        self._data_path_addr = data_path_addr
        self._remember_managers = remember_managers
        self._registered = registered
        self._told = told
        self._manager_addresses = manager_addresses
        self._current: tuple[Stub, str] | None = None
        """The connection and the session's id, while there is one."""
        self._anew = False
        """Whether a new session was asked for: it begins without a pause, with the manager of the last one first."""
        self._serving: asyncio.Event | None = None
        """Set to end the session."""
        self._period = 1.0
        self._random = random.Random()

    async def run(self) -> None:
        backoff = BACKOFF_MIN
        while True:
            started = self._clock.monotonic()
            self._anew = False
            for manager in self._known():
                try:
                    await self._connect(manager)
                except* PyswarmError as group:
                    log.warning("session with manager %s ended: %s", manager, _reason(group))
                if self._anew:
                    backoff, started = BACKOFF_MIN, self._clock.monotonic()
                    break
            if self._clock.monotonic() - started > BACKOFF_MAX:
                backoff = BACKOFF_MIN
            await asyncio.sleep(backoff * self._random.uniform(0.5, 1.0))
            backoff = min(backoff * 2, BACKOFF_MAX)

    def _known(self) -> list[str]:
        """The managers to try, in order: those that were told last, and this node's own if it is one (the others may
        not know of it yet)."""
        _, own = self._manager_addresses()
        return list(dict.fromkeys([*self._managers, *([own] if own else [])]))

    async def _connect(self, manager: str) -> None:
        connection = channel(f"ipv4:{manager}", tls=self._tls())
        try:
            stub = Stub(connection, RPC_TIMEOUT)
            join_addr, api_addr = self._manager_addresses()
            request = SessionRequest(
                description=self._describe(),
                addr=self._addr,
                data_path_addr=self._data_path_addr,
                join_addr=join_addr,
                api_addr=api_addr,
            )
            stream = cast("AsyncGenerator[SessionMessage, None]", stub.stream("Dispatcher.Session", request))
            async with aclosing(stream) as messages:
                first = await self._first(manager, messages)
                self._take(first)
                log.info("registered with manager %s", manager)
                self._registered(manager)
                await self._serve(stub, first.session_id, messages)
        finally:
            self._registered("")
            await connection.close(None)

    async def _first(self, manager: str, messages: AsyncIterator[SessionMessage]) -> SessionMessage:
        try:
            async with asyncio.timeout(MANAGER_TIMEOUT):
                first = await anext(messages, None)
        except TimeoutError:
            raise Unavailable(f"manager {manager} did not answer in {MANAGER_TIMEOUT:.0f} s") from None
        if first is None:
            raise Unavailable(f"manager {manager} ended the session before it began")
        return first

    def _take(self, message: SessionMessage) -> None:
        self._period = message.heartbeat_period
        if message.managers and list(message.managers) != self._managers:
            self._managers = list(message.managers)
            self._remember_managers(self._managers)
        self._told(message.node, message.root_ca)

    async def renew(self, csr: str) -> IssueResponse:
        """A new certificate for this node, of the role that it is to have. Unavailable without a manager."""
        if self._current is None:
            raise Unavailable("this node is not connected to a manager")
        return await self._current[0].unary("CA.Renew", RenewRequest(csr=csr))

    def reconnect(self) -> None:
        """Begin a new session: with a renewed certificate, or other addresses to tell."""
        self._anew = True
        if self._serving is not None:
            self._serving.set()

    async def _serve(self, stub: Stub, session: str, messages: AsyncIterator[SessionMessage]) -> None:
        for update in self._worker.statuses():
            self._outbox.put(update)
        self._current = (stub, session)
        self._serving = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._until_reconnect(self._serving))
                group.create_task(self._watch_session(messages))
                group.create_task(self._beat(stub, session))
                group.create_task(self._assignments(stub, session))
                group.create_task(self._report(stub, session))
                group.create_task(self._report_stats(stub, session))
                group.create_task(self._listen(stub, session))
        finally:
            self._current = self._serving = None

    async def _until_reconnect(self, asked: asyncio.Event) -> None:
        await asked.wait()
        raise Unavailable("this node's role or certificate has changed")

    async def fetch_image(self, reference: str) -> AsyncGenerator[tuple[str, bytes]]:
        """A copy of an image from a node that has it, as pieces of named files. NotFound when none has it,
        Unavailable while no manager is connected."""
        if self._current is None:
            raise Unavailable("this node is not connected to a manager")
        stub, session = self._current
        request = FetchImageRequest(session_id=session, reference=reference)
        # `stream` is a generator, though it promises less: closed when the reader stops early.
        pieces = cast("AsyncGenerator[ImagePiece]", stub.stream("Dispatcher.FetchImage", request))
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece.file, piece.data

    async def _watch_session(self, messages: AsyncIterator[SessionMessage]) -> None:
        async for message in messages:
            self._take(message)
        raise Unavailable("the manager ended the session")

    async def _beat(self, stub: Stub, session: str) -> None:
        while True:
            await asyncio.sleep(self._period * self._random.uniform(0.9, 1.0))
            response = await stub.unary("Dispatcher.Heartbeat", HeartbeatRequest(session_id=session))
            self._period = response.period

    async def _assignments(self, stub: Stub, session: str) -> None:
        expected = 0
        stream: AsyncIterator[Assignments] = stub.stream(
            "Dispatcher.WatchAssignments", AssignmentsRequest(session_id=session)
        )
        async for message in stream:
            if message.sequence != expected:
                raise Unavailable(f"assignments {expected} to {message.sequence - 1} were lost")
            expected += 1
            await self._worker.apply(message)
        raise Unavailable("the manager ended the assignments")

    async def _report(self, stub: Stub, session: str) -> None:
        while True:
            batch = await self._outbox.batch()
            await stub.unary(
                "Dispatcher.UpdateStatus", UpdateStatusRequest(session_id=session, updates=batch)
            )
            self._outbox.confirm(batch)

    async def _report_stats(self, stub: Stub, session: str) -> None:
        while True:
            await asyncio.sleep(STATS_PERIOD)
            stats = tuple(await self._stats())
            if stats:
                await stub.unary(
                    "Dispatcher.UpdateStatus", UpdateStatusRequest(session_id=session, stats=stats)
                )

    async def _listen(self, stub: Stub, session: str) -> None:
        demands: AsyncIterator[Demand] = stub.stream("Dispatcher.Listen", ListenRequest(session_id=session))
        async with asyncio.TaskGroup() as group:
            async for demand in demands:
                group.create_task(self._answer(stub, demand))
            raise Unavailable("the manager ended the demands")

    async def _answer(self, stub: Stub, demand: Demand) -> None:
        """Serve one demand; its failure is its asker's alone."""
        inputs = Inputs()

        async def answers() -> AsyncIterator[AnswerMessage]:
            try:
                yield AnswerMessage(demand_id=demand.id)
                async for message in self._answerer.answer(demand, inputs):
                    yield message
            finally:
                inputs.close()

        try:
            async for message in stub.duplex("Dispatcher.Answer", answers()):
                await inputs.put(message)
        except PyswarmError as error:
            log.info("demand %s ended: %s", demand.id, error)
        finally:
            inputs.close()


class Inputs:
    """What a demand's asker sends, on its way to who answers it: bounded, and closed from either end. After the
    close what has arrived is still read, and nothing more is taken."""

    def __init__(self, size: int = 64) -> None:
        self._size = size
        self._held: deque[AnswerInput] = deque()
        self._changed = asyncio.Event()
        self._closed = False

    async def put(self, message: AnswerInput) -> None:
        """Waits while the reader is behind; drops the message once this is closed."""
        while len(self._held) >= self._size and not self._closed:
            await self._change()
        if not self._closed:
            self._held.append(message)
            self._tell()

    def close(self) -> None:
        self._closed = True
        self._tell()

    def __aiter__(self) -> AsyncIterator[AnswerInput]:
        return self

    async def __anext__(self) -> AnswerInput:
        while not self._held and not self._closed:
            await self._change()
        if not self._held:
            raise StopAsyncIteration
        self._tell()
        return self._held.popleft()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _change(self) -> None:
        await self._changed.wait()


def _reason(group: BaseExceptionGroup[PyswarmError]) -> str:
    """The first error's text: the others follow from it."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            return _reason(error)
        return str(error)
    return str(group)
