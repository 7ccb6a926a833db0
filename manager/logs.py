"""Logs of services and tasks: asked of every node that has some, put together in one stream.

A node that cannot be reached costs its own lines and a warning, never the stream. Without --follow the lines
of all tasks come in order of time; with it, as they arrive.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace

from manager.controller import Controller
from manager.logbroker import LogBroker
from manager.state import Changed, View
from pyswarm.api import Demand, LogMessage, LogsRequest
from pyswarm.errors import NotFound, PyswarmError
from pyswarm.objects import Node, Service, Task, TaskState

QUEUE = 1_000


async def stream_logs(
    controller: Controller, broker: LogBroker, request: LogsRequest
) -> AsyncIterator[LogMessage]:
    """The log lines that `request` asks for. Raises NotFound for a service or task that does not exist."""
    await controller.read(lambda view: _check(view, request))
    source = Source(controller, broker, request)
    async with contextlib.aclosing(source.follow() if request.follow else source.once()) as lines:
        async for line in lines:
            yield line


def _check(view: View, request: LogsRequest) -> None:
    for ref in request.services:
        if view.get(Service, ref) is None:
            raise NotFound(f"no such service: {ref}")
    for ref in request.tasks:
        if view.get(Task, ref) is None:
            raise NotFound(f"no such task: {ref}")
    for ref in request.nodes:
        if view.get(Node, ref) is None:
            raise NotFound(f"no such node: {ref}")


def chosen(view: View, request: LogsRequest) -> list[Task]:
    """The tasks asked for that have been on a node, oldest first."""
    tasks = [t for ref in request.services for t in view.tasks_of_service(ref)]
    tasks += [t for ref in request.tasks if (t := view.get(Task, ref)) is not None]
    tasks += [t for ref in request.nodes for t in view.tasks_of_node(ref)]
    if not request.services and not request.tasks and not request.nodes:
        tasks = list(view.tasks())
    unique = {t.id: t for t in tasks if t.node_id and t.status.state >= TaskState.ASSIGNED}
    return sorted(unique.values(), key=lambda t: (t.meta.created_at, t.id))


@dataclass(slots=True)
class Source:
    """One request's lines."""

    controller: Controller
    broker: LogBroker
    request: LogsRequest

    async def _of_node(self, node_id: str, tasks: Sequence[Task]) -> AsyncGenerator[LogMessage]:
        by_id = {task.id: task for task in tasks}
        request = replace(self.request, services=(), tasks=tuple(by_id), nodes=())
        try:
            async with self.broker.ask(node_id, Demand(id="", logs=request)) as conversation:
                async for answer in conversation.answers():
                    if answer.log is not None:
                        yield labelled(answer.log, by_id)
                    elif answer.reply is not None and answer.reply.kind == "error":
                        yield LogMessage(node_id=node_id, warning=answer.reply.text)
                if conversation.lost:
                    yield LogMessage(node_id=node_id, warning=f"the connection to node {node_id} broke off")
        except PyswarmError as error:
            names = ", ".join(sorted(task.name for task in tasks))
            yield LogMessage(node_id=node_id, warning=f"no logs of {names}: {error}")

    async def once(self) -> AsyncGenerator[LogMessage]:
        """What there is, merged by time."""
        tasks = await self._chosen()
        async with contextlib.AsyncExitStack() as stack:
            streams = [
                await stack.enter_async_context(contextlib.aclosing(self._of_node(node_id, its)))
                for node_id, its in by_node(tasks).items()
            ]
            # All nodes are asked at once: one that does not answer holds the others up once, not each in turn.
            firsts = await asyncio.gather(*(anext(stream, None) for stream in streams))
            heap = [(m.nanos, index, m) for index, m in enumerate(firsts) if m is not None]
            heapq.heapify(heap)
            while heap:
                _, index, message = heapq.heappop(heap)
                yield message
                if (message := await anext(streams[index], None)) is not None:
                    heapq.heappush(heap, (message.nanos, index, message))

    async def _chosen(self) -> list[Task]:
        return await self.controller.read(lambda view: chosen(view, self.request))

    async def follow(self) -> AsyncGenerator[LogMessage]:
        """What there is and what comes, tasks that start later too."""
        lines: asyncio.Queue[LogMessage | None] = asyncio.Queue(QUEUE)
        changed = asyncio.Event()
        changed.set()

        def observe(revision: int, changes: Sequence[Changed]) -> None:
            del revision
            if any(isinstance(c.after, Task) for c in changes):
                changed.set()

        self.controller.observe(observe)
        readers: set[asyncio.Task[None]] = set()
        watcher = asyncio.ensure_future(self._watch(changed, lines, readers))
        try:
            while (line := await lines.get()) is not None:
                yield line
            await watcher
        finally:
            self.controller.unobserve(observe)
            work = {watcher, *readers}
            for task in work:
                task.cancel()
            await asyncio.wait(work)

    async def _watch(
        self,
        changed: asyncio.Event,
        lines: asyncio.Queue[LogMessage | None],
        readers: set[asyncio.Task[None]],
    ) -> None:
        """Read the logs of tasks as they start; ends the lines when this manager does not lead any more. A node
        that is asked before it has made the container answers that there are no lines, and is done."""
        seen: set[str] = set()
        while True:
            await changed.wait()
            changed.clear()
            try:
                tasks = [t for t in await self._chosen() if t.status.state >= TaskState.STARTING]
            except PyswarmError:
                await lines.put(None)
                raise
            new = [task for task in tasks if task.id not in seen]
            seen &= {task.id for task in tasks}
            seen.update(task.id for task in new)
            for node_id, tasks in by_node(new).items():
                reader = asyncio.ensure_future(self._pump(node_id, tasks, lines))
                readers.add(reader)
                reader.add_done_callback(readers.discard)

    async def _pump(
        self, node_id: str, tasks: Sequence[Task], lines: asyncio.Queue[LogMessage | None]
    ) -> None:
        async with contextlib.aclosing(self._of_node(node_id, tasks)) as messages:
            async for message in messages:
                await lines.put(message)


def by_node(tasks: Sequence[Task]) -> dict[str, list[Task]]:
    """Tasks grouped by the node they are on, in the order of the tasks."""
    nodes: dict[str, list[Task]] = {}
    for task in tasks:
        nodes.setdefault(task.node_id, []).append(task)
    return nodes


def labelled(message: LogMessage, tasks: Mapping[str, Task]) -> LogMessage:
    """With the names that an agent leaves out."""
    task = tasks.get(message.task_id)
    if task is None:
        return message
    return replace(
        message,
        service_id=task.service_id,
        service_name=task.service_name,
        slot=task.slot,
        node_id=task.node_id,
    )
