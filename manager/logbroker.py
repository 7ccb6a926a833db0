"""Streams between managers and agents: logs, exec and node commands, over the agents' own connections.

An agent may sit behind NAT, so nobody dials it: it listens for *demands* (`Dispatcher.Listen`) and opens one
`Dispatcher.Answer` stream for each. Here the two ends meet: a demand is a pair of bounded queues.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from pyswarm.api import AnswerInput, AnswerMessage, Demand
from pyswarm.clock import IdSource
from pyswarm.errors import NotFound, Unavailable

log = logging.getLogger(__name__)

QUEUE = 256
"""Messages held per direction before the faster end waits."""
LISTEN_TIMEOUT = 5.0
"""Seconds that an agent which has just registered has to begin listening."""
ANSWER_TIMEOUT = 10.0
"""Seconds that an agent has to open the answer to a demand."""

T = TypeVar("T")
R = TypeVar("R")


class Conversation:
    """One demand and its answer. Closing it ends both ends' streams."""

    def __init__(self, demand: Demand, node_id: str, depth: int = QUEUE) -> None:
        """`depth` messages are held per direction."""
        self.demand = demand
        self.node_id = node_id
        self.answered = asyncio.Event()
        self._answers: asyncio.Queue[AnswerMessage | None] = asyncio.Queue(depth)
        self._inputs: asyncio.Queue[AnswerInput | None] = asyncio.Queue(depth)
        self._closed = asyncio.Event()
        self.lost = False
        """Whether the agent's stream broke off instead of ending."""

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    async def send(self, message: AnswerInput) -> None:
        """To the agent."""
        await self._put(self._inputs, message)

    async def finish_input(self) -> None:
        """No more input will come."""
        await self._put(self._inputs, None)

    async def answers(self) -> AsyncIterator[AnswerMessage]:
        """From the agent, until it ends its stream. Raises Unavailable when it never opens it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_TIMEOUT):
                await self._first(self.answered.wait())
        if self.lost and not self.answered.is_set():
            raise Unavailable(f"node {self.node_id} has lost its connection")
        if not self.answered.is_set():
            raise Unavailable(f"node {self.node_id} did not answer in {ANSWER_TIMEOUT:.0f} s")
        while (message := await self._get(self._answers)) is not None:
            yield message

    async def push(self, message: AnswerMessage) -> None:
        """The agent's side: one answer."""
        await self._put(self._answers, message)

    async def finish_answers(self) -> None:
        await self._put(self._answers, None)

    async def inputs(self) -> AsyncIterator[AnswerInput]:
        """The agent's side: what the asker sends."""
        while (message := await self._get(self._inputs)) is not None:
            yield message

    async def over(self, pump: asyncio.Task[None]) -> None:
        """The agent's side: until `pump` has taken over all answers, or the asker is gone."""
        await self._first(asyncio.wait({pump}))

    def close(self) -> None:
        self._closed.set()

    async def _put(self, queue: asyncio.Queue[T | None], item: T | None) -> None:
        if not self.closed:
            if queue.full():
                await self._first(queue.put(item))
            else:
                queue.put_nowait(item)

    async def _get(self, queue: asyncio.Queue[T | None]) -> T | None:
        if not queue.empty():
            return queue.get_nowait()
        if self.closed:
            return None
        return await self._first(queue.get())

    async def _first(self, work: Coroutine[Any, Any, R]) -> R | None:
        """The result of `work`, or None as soon as the conversation is closed."""
        task, closed = asyncio.ensure_future(work), asyncio.ensure_future(self._closed.wait())
        try:
            await asyncio.wait({task, closed}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            for future in (task, closed):
                if not future.done():
                    future.cancel()


@contextlib.asynccontextmanager
async def alongside(work: Coroutine[Any, Any, R]) -> AsyncGenerator[asyncio.Task[R]]:
    """Run `work` while the block runs; it has ended when the block is left. Its failure is no failure of the
    block, which sees the ends of the streams that `work` moves."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("a stream ended: %s", error)


class LogBroker:
    """The demands that are open, by node."""

    def __init__(self, ids: IdSource) -> None:
        self._ids = ids
        self._listeners: dict[str, asyncio.Queue[Demand | None]] = {}
        self._arrival = asyncio.Event()
        self.registered: Callable[[str], bool] = lambda node_id: False
        """Whether a node has a session, so that it will listen in a moment (set by the dispatcher)."""
        self._conversations: dict[str, Conversation] = {}

    def connected(self, node_id: str) -> bool:
        """Whether demands to this node are heard."""
        return node_id in self._listeners

    async def listen(self, node_id: str) -> AsyncGenerator[Demand]:
        """The demands to one node; a second listener takes over from the first, with what it has not taken."""
        queue: asyncio.Queue[Demand | None] = asyncio.Queue()
        former = self._listeners.get(node_id)
        if former is not None:
            while not former.empty():
                queue.put_nowait(former.get_nowait())
            former.put_nowait(None)
        self._listeners[node_id] = queue
        self._arrival.set()
        self._arrival = asyncio.Event()
        try:
            while (demand := await queue.get()) is not None:
                yield demand
        finally:
            if self._listeners.get(node_id) is queue:
                del self._listeners[node_id]
                self._drop(node_id)

    def _drop(self, node_id: str) -> None:
        for conversation in list(self._conversations.values()):
            if conversation.node_id == node_id and not conversation.answered.is_set():
                conversation.lost = True
                conversation.close()

    @contextlib.asynccontextmanager
    async def ask(self, node_id: str, demand: Demand, depth: int = QUEUE) -> AsyncGenerator[Conversation]:
        """Open a conversation with a node's agent; Unavailable when it does not listen. `depth` messages are
        held per direction before the faster end waits."""
        listener = await self._listener(node_id)
        demand = replace(demand, id=self._ids.new_id())
        conversation = Conversation(demand, node_id, depth)
        self._conversations[demand.id] = conversation
        listener.put_nowait(demand)
        try:
            yield conversation
        finally:
            conversation.close()
            self._conversations.pop(demand.id, None)

    async def _listener(self, node_id: str) -> asyncio.Queue[Demand | None]:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LISTEN_TIMEOUT):
                while node_id not in self._listeners and self.registered(node_id):
                    await self._arrival.wait()
        listener = self._listeners.get(node_id)
        if listener is None:
            raise Unavailable(f"node {node_id} is not connected")
        return listener

    async def answer(
        self, node_id: str, messages: AsyncIterator[AnswerMessage]
    ) -> AsyncGenerator[AnswerInput]:
        """Serve an agent's answer stream: its first message names the demand."""
        first = await anext(messages, None)
        conversation = self._conversations.get(first.demand_id) if first is not None else None
        if conversation is None or conversation.node_id != node_id or conversation.answered.is_set():
            raise NotFound("no such demand: the asker has gone away")
        conversation.answered.set()
        async with alongside(self._pump(conversation, messages)) as pump:
            async for message in conversation.inputs():
                yield message
            await conversation.over(pump)

    async def _pump(self, conversation: Conversation, messages: AsyncIterator[AnswerMessage]) -> None:
        conversation.lost = True
        try:
            async for message in messages:
                await conversation.push(message)
            conversation.lost = False
        finally:
            await conversation.finish_answers()
