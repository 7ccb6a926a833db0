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
from pyswarm.objects import Service, Task, TaskState

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


def chosen(view: View, request: LogsRequest) -> list[Task]:
    """The tasks asked for that have been on a node, oldest first."""
    tasks = [t for ref in request.services for t in view.tasks_of_service(ref)]
    tasks += [t for ref in request.tasks if (t := view.get(Task, ref)) is not None]
    if not request.services and not request.tasks:
        tasks = list(view.tasks())
    unique = {t.id: t for t in tasks if t.node_id and t.status.state >= TaskState.ASSIGNED}
    return sorted(unique.values(), key=lambda t: (t.meta.created_at, t.id))


@dataclass(slots=True)
class Source:
    """One request's lines."""

    controller: Controller
    broker: LogBroker
    request: LogsRequest

    async def _of_node(self, node_id: str, tasks: Sequence[Task]) -> AsyncIterator[LogMessage]:
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
        streams = [self._of_node(node_id, its) for node_id, its in by_node(tasks).items()]
        heap: list[tuple[int, int, LogMessage]] = []
        for index, stream in enumerate(streams):
            if (message := await anext(stream, None)) is not None:
                heapq.heappush(heap, (message.nanos, index, message))
        while heap:
            _, index, message = heapq.heappop(heap)
            yield message
            if (message := await anext(streams[index], None)) is not None:
                heapq.heappush(heap, (message.nanos, index, message))

    async def _chosen(self) -> list[Task]:
        return await self.controller.read(lambda view: chosen(view, self.request))

    async def follow(self) -> AsyncGenerator[LogMessage]:
        """What there is and what comes, tasks that start later too."""
        lines: asyncio.Queue[LogMessage] = asyncio.Queue(QUEUE)
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
            while True:
                yield await lines.get()
        finally:
            self.controller.unobserve(observe)
            watcher.cancel()
            for reader in readers:
                reader.cancel()

    async def _watch(
        self, changed: asyncio.Event, lines: asyncio.Queue[LogMessage], readers: set[asyncio.Task[None]]
    ) -> None:
        seen: set[str] = set()
        while True:
            await changed.wait()
            changed.clear()
            new = [task for task in await self._chosen() if task.id not in seen]
            seen.update(task.id for task in new)
            for node_id, tasks in by_node(new).items():
                reader = asyncio.ensure_future(self._pump(node_id, tasks, lines))
                readers.add(reader)
                reader.add_done_callback(readers.discard)

    async def _pump(self, node_id: str, tasks: Sequence[Task], lines: asyncio.Queue[LogMessage]) -> None:
        async for message in self._of_node(node_id, tasks):
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
