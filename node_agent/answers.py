"""Answers to the managers' demands: logs of tasks here, exec into them, node commands."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import cast

from node_agent.commands import Commands
from node_agent.ports import ExecInput, ExecRequest, LogLine, LogPort, RuntimePort
from pyswarm.api import (
    AnswerInput,
    AnswerMessage,
    Demand,
    ExecOutputMessage,
    ExecStart,
    LogMessage,
    LogsRequest,
    NodeCommand,
    NodeReply,
)
from pyswarm.errors import PyswarmError

log = logging.getLogger(__name__)

QUEUE = 500


class Answers:
    """The agent's `Answerer`."""

    def __init__(self, runtime: RuntimePort, logs: LogPort, commands: Commands) -> None:
        self._runtime = runtime
        self._logs = logs
        self._commands = commands

    async def answer(
        self, demand: Demand, inputs: AsyncIterator[AnswerInput]
    ) -> AsyncIterator[AnswerMessage]:
        try:
            if demand.logs is not None:
                async for line in self._lines(demand.logs):
                    yield AnswerMessage(log=message(line))
            elif demand.exec is not None:
                async for event in self._exec(demand.exec, inputs):
                    yield AnswerMessage(exec=event)
            elif demand.command is not None:
                async for reply in self._commands.run(demand.command, _commands(inputs)):
                    yield AnswerMessage(reply=reply)
        except PyswarmError as error:
            yield failure(error)
        except (
            Exception
        ) as error:  # a demand that fails in a way nobody thought of costs its asker, not the node
            log.exception("a demand failed")
            yield failure(PyswarmError(f"{type(error).__name__}: {error}"))

    # ------------------------------------------------------------------------------ logs

    def _read(self, task_id: str, request: LogsRequest) -> AsyncGenerator[LogLine]:
        lines = self._logs.read(
            task_id,
            follow=request.follow,
            tail=request.tail,
            since=request.since,
            until=request.until,
            stdout=request.stdout,
            stderr=request.stderr,
        )
        return cast("AsyncGenerator[LogLine]", lines)

    def _lines(self, request: LogsRequest) -> AsyncIterator[LogLine]:
        sources = [self._read(task_id, request) for task_id in request.tasks]
        return _interleaved(sources) if request.follow else _merged(sources)

    # ------------------------------------------------------------------------------ exec

    async def _exec(
        self, start: ExecStart, inputs: AsyncIterator[AnswerInput]
    ) -> AsyncIterator[ExecOutputMessage]:
        if start.attach:
            events = await self._runtime.attach(
                start.task, rows=start.rows, cols=start.cols, inputs=_exec_inputs(inputs)
            )
            async for kind, data in events:
                yield ExecOutputMessage(kind=kind, data=data)
            return
        request = ExecRequest(
            argv=start.argv,
            env=start.env,
            user=start.user,
            working_dir=start.working_dir,
            tty=start.tty,
            stdin=start.stdin,
            privileged=start.privileged,
            rows=start.rows,
            cols=start.cols,
        )
        events = await self._runtime.exec(start.task, request, _exec_inputs(inputs))
        async for kind, data in events:
            yield ExecOutputMessage(kind=kind, data=data)


def failure(error: PyswarmError) -> AnswerMessage:
    return AnswerMessage(reply=NodeReply(kind="error", text=str(error), error_class=type(error).__name__))


def message(line: LogLine) -> LogMessage:
    return LogMessage(task_id=line.task_id, nanos=line.nanos, stream=line.stream, data=line.data)


async def _exec_inputs(inputs: AsyncIterator[AnswerInput]) -> AsyncIterator[ExecInput]:
    async for item in inputs:
        if item.exec is not None and item.exec.kind != "start":
            yield (item.exec.kind, item.exec.data)


async def _commands(inputs: AsyncIterator[AnswerInput]) -> AsyncIterator[NodeCommand]:
    async for item in inputs:
        if item.command is not None:
            yield item.command


async def _merged(sources: Sequence[AsyncGenerator[LogLine]]) -> AsyncIterator[LogLine]:
    """Lines of several tasks in order of time."""
    heap: list[tuple[int, int, LogLine]] = []
    async with contextlib.AsyncExitStack() as stack:
        for index, source in enumerate(sources):
            await stack.enter_async_context(contextlib.aclosing(source))
            if (line := await anext(source, None)) is not None:
                heapq.heappush(heap, (line.nanos, index, line))
        while heap:
            _, index, line = heapq.heappop(heap)
            yield line
            if (following := await anext(sources[index], None)) is not None:
                heapq.heappush(heap, (following.nanos, index, following))


async def _interleaved(sources: Sequence[AsyncGenerator[LogLine]]) -> AsyncIterator[LogLine]:
    """Lines of several tasks as they come."""
    lines: asyncio.Queue[LogLine | PyswarmError | None] = asyncio.Queue(QUEUE)

    async def pump(source: AsyncGenerator[LogLine]) -> None:
        try:
            async with contextlib.aclosing(source):
                async for line in source:
                    await lines.put(line)
        except PyswarmError as error:
            await lines.put(error)

    async def pump_all() -> None:
        async with asyncio.TaskGroup() as group:
            for source in sources:
                group.create_task(pump(source))
        await lines.put(None)

    work = asyncio.ensure_future(pump_all())
    try:
        while (line := await lines.get()) is not None:
            if isinstance(line, PyswarmError):
                raise line
            yield line
    finally:
        work.cancel()
        await asyncio.wait({work})
