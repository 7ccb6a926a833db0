"""A node: the agent's real decisions over containers that are made up.

What a container does is told by its image's name: `ok` runs for ever, `slow` takes ten seconds to start,
`crash` exits with 1 soon after it started, `late` half a minute later, `flaky` now and then, `job` exits
with 0, `missing` cannot be pulled, `stuck` is pulled for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from manager.dispatcher import Dispatcher
from node_agent.lifecycle import Step, advance, exit_error, exit_state, next_step
from node_agent.ports import Exit
from node_agent.session import Outbox
from node_agent.tables import Tables
from pyswarm.api import (
    AssignmentsRequest,
    HeartbeatRequest,
    SessionMessage,
    SessionRequest,
    UpdateStatusRequest,
)
from pyswarm.clock import Clock
from pyswarm.errors import NotFound, PyswarmError, Unavailable
from pyswarm.objects import (
    Assignments,
    NodeDescription,
    Task,
    TaskState,
    TaskStatus,
    TaskStatusUpdate,
    terminal,
)
from pyswarm.rpc import Peer

T = TypeVar("T")

RPC_TIMEOUT = 5.0


async def end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel the tasks and wait until they are over; how they ended is nobody's business any more."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()


@dataclass(slots=True)
class Weather:
    """How bad the network is: chances per message, and the longest delay in seconds."""

    delay: float = 0.02
    lose: float = 0.0
    duplicate: float = 0.0


@dataclass(slots=True)
class Held:
    """A task on its node."""

    task: Task
    status: TaskStatus
    container: Literal["absent", "started", "ended"] = "absent"
    prepared: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)
    supervisor: asyncio.Task[None] | None = None
    dies_at: float | None = None
    exit_code: int = 0


class Agent:
    """One node's agent and containers, connected to whoever leads."""

    def __init__(
        self,
        node_id: str,
        description: NodeDescription,
        leader: Callable[[], Dispatcher | None],
        serves: Callable[[Dispatcher], bool],
        clock: Clock,
        rng: random.Random,
        weather: Weather,
        fail: Callable[[BaseException], None],
    ) -> None:
        self.node_id = node_id
        self.description = description
        self._leader = leader
        self._serves = serves
        self._clock = clock
        self._rng = rng
        self._weather = weather
        self._fail = fail
        self.cut = False
        """Whether no message gets through (a partition, or an agent that hangs)."""
        self.held: dict[str, Held] = {}
        self.tables = Tables()
        self._outbox = Outbox()
        self._session: asyncio.Task[None] | None = None

    # ------------------------------------------------------------------------------------ power

    @property
    def up(self) -> bool:
        return self._session is not None

    def start(self) -> None:
        assert self._session is None
        self._outbox = Outbox()
        self._session = self._spawn(self._run())

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """A task whose mistakes end the history."""
        task = asyncio.get_running_loop().create_task(work)

        def ended(task: asyncio.Task[None]) -> None:
            error = None if task.cancelled() else task.exception()
            if error is not None:
                self._fail(error)

        task.add_done_callback(ended)
        return task

    def crash(self) -> None:
        """The machine loses power: agent and containers are gone, and what the agent had in memory."""
        if self._session is not None:
            self._session.cancel()
            self._session = None
        for held in self.held.values():
            if held.supervisor is not None:
                held.supervisor.cancel()
        self.held.clear()

    def running(self) -> list[Task]:
        """Tasks whose container runs."""
        return [held.task for held in self.held.values() if held.container == "started"]

    def kill_container(self, task_id: str) -> None:
        held = self.held.get(task_id)
        if held is not None and held.container == "started":
            held.dies_at, held.exit_code = self._clock.now(), 137
            held.news.set()

    # ------------------------------------------------------------------------------------ the session

    async def _run(self) -> None:
        while True:
            dispatcher = self._leader()
            if dispatcher is not None:
                with contextlib.suppress(PyswarmError, TimeoutError):
                    await self._serve(dispatcher)
            await asyncio.sleep(self._rng.uniform(0.2, 1.0))

    async def _serve(self, dispatcher: Dispatcher) -> None:
        peer = Peer("worker", self.node_id)
        request = SessionRequest(description=self.description, addr="10.1.0.1", data_path_addr="10.1.0.1")
        messages = dispatcher.session(request, peer)
        first = await self._travel(dispatcher, lambda: anext(messages))
        for held in self.held.values():
            self._outbox.put(TaskStatusUpdate(task_id=held.task.id, status=held.status))
        parts = [
            self._watch(messages),
            self._beat(dispatcher, first.session_id, peer, first.heartbeat_period),
            self._assignments(dispatcher, first.session_id, peer),
            self._report(dispatcher, first.session_id, peer),
        ]
        tasks = [asyncio.get_running_loop().create_task(part) for part in parts]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end(tasks)

    async def _travel(
        self, dispatcher: Dispatcher, call: Callable[[], Awaitable[T]], duplicate: bool = False
    ) -> T:
        """One request over the simulated network: late, lost before or after it was carried out, or twice."""
        await asyncio.sleep(self._rng.uniform(0.0, self._weather.delay))
        if not self._serves(dispatcher):
            raise NotFound("this manager does not lead any more")
        if self.cut:
            await asyncio.sleep(RPC_TIMEOUT)
            raise Unavailable("no answer")
        lost = self._rng.random() < self._weather.lose
        if lost and self._rng.random() < 0.5:
            await asyncio.sleep(RPC_TIMEOUT)
            raise Unavailable("no answer")
        async with asyncio.timeout(RPC_TIMEOUT):
            answer = await call()
            if duplicate and self._rng.random() < self._weather.duplicate:
                self._spawn(self._again(dispatcher, call))
        await asyncio.sleep(self._rng.uniform(0.0, self._weather.delay))
        if lost or self.cut:
            raise Unavailable("no answer")
        return answer

    async def _again(self, dispatcher: Dispatcher, call: Callable[[], Awaitable[object]]) -> None:
        """The same message once more, after others that were sent later."""
        await asyncio.sleep(self._rng.uniform(0.0, 10.0))
        if self._serves(dispatcher):
            with contextlib.suppress(PyswarmError, TimeoutError):
                async with asyncio.timeout(RPC_TIMEOUT):
                    await call()

    async def _watch(self, messages: AsyncIterator[SessionMessage]) -> None:
        async for _ in messages:
            pass

    async def _beat(self, dispatcher: Dispatcher, session: str, peer: Peer, period: float) -> None:
        failures = 0
        while True:
            await asyncio.sleep(period * self._rng.uniform(0.9, 1.0))
            request = HeartbeatRequest(session_id=session)
            try:
                await self._travel(dispatcher, lambda request=request: dispatcher.heartbeat(request, peer))
                failures = 0
            except (Unavailable, TimeoutError):
                failures += 1
                if failures > 2:
                    raise

    async def _assignments(self, dispatcher: Dispatcher, session: str, peer: Peer) -> None:
        stream = dispatcher.watch_assignments(AssignmentsRequest(session_id=session), peer)
        expected = 0
        async for message in stream:
            await asyncio.sleep(self._rng.uniform(0.0, self._weather.delay))
            if self.cut or message.sequence != expected:
                raise Unavailable("the stream broke")
            expected += 1
            self.apply(message)

    async def _report(self, dispatcher: Dispatcher, session: str, peer: Peer) -> None:
        while True:
            batch = await self._outbox.batch()
            request = UpdateStatusRequest(session_id=session, updates=batch)
            try:
                await self._travel(
                    dispatcher,
                    lambda request=request: dispatcher.update_status(request, peer),
                    duplicate=True,
                )
                self._outbox.confirm(batch)
            except (Unavailable, TimeoutError):
                await asyncio.sleep(self._rng.uniform(0.1, 0.5))

    # ------------------------------------------------------------------------------------ the tasks

    def apply(self, assignments: Assignments) -> None:
        """Take over what the managers assign: everything, or a difference."""
        self.tables.take(assignments)
        told = {task.id: task for task in assignments.tasks}
        gone = list(assignments.removed_tasks)
        if assignments.complete:
            gone += [id for id in self.held if id not in told]
        for id in gone:
            held = self.held.pop(id, None)
            if held is not None and held.supervisor is not None:
                held.supervisor.cancel()
        for task in told.values():
            held = self.held.get(task.id)
            if held is None:
                held = self.held[task.id] = Held(task, task.status)
                held.supervisor = self._spawn(self._supervise(held))
            else:
                held.task = task
                held.news.set()

    def _set(self, held: Held, **changes: object) -> None:
        now = self._clock.now()
        change = replace(held.status, timestamp=now, **changes)  # type: ignore[arg-type]  # fields by name
        status = advance(held.status, change)
        if status.state == TaskState.RUNNING and not status.running_since:
            status = replace(status, running_since=now)
        if terminal(status.state) and not status.finished_at:
            status = replace(status, finished_at=now)
        held.status = status
        self._outbox.put(TaskStatusUpdate(task_id=held.task.id, status=status))

    async def _supervise(self, held: Held) -> None:
        while True:
            step = next_step(held.task.desired_state, held.status.state, held.container, held.prepared)
            if step is Step.CLEAN:
                return
            await self._carry_out(held, step)

    async def _carry_out(self, held: Held, step: Step) -> None:
        image = held.task.spec.container.image.partition(":")[0]
        if step is Step.ACCEPT:
            self._set(held, state=TaskState.ACCEPTED)
        elif step is Step.PREPARE:
            await self._prepare(held, image)
        elif step is Step.HOLD:
            await self._news(held, None)
        elif step is Step.START:
            await self._start(held, image)
        elif step is Step.WATCH:
            await self._watch_container(held)
        elif step is Step.STOP:
            if held.container == "started":
                await asyncio.sleep(self._rng.uniform(0.05, 3.0))
                held.container = "ended"
            self._set(held, state=TaskState.SHUTDOWN)
        else:
            self._set(held, state=TaskState.FAILED, err="container lost")

    async def _news(self, held: Held, timeout: float | None) -> None:
        """Wait until the managers say something new about the task, at most for `timeout`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await held.news.wait()
        held.news.clear()

    async def _prepare(self, held: Held, image: str) -> None:
        self._set(held, state=TaskState.PREPARING)
        if image == "stuck":
            await self._news(held, None)
            return
        await self._news(held, self._rng.uniform(0.05, 1.0))
        if held.task.desired_state > TaskState.COMPLETE:
            return
        if image == "missing":
            self._set(held, state=TaskState.REJECTED, err="no such image")
            return
        held.prepared = True
        self._set(held, state=TaskState.READY)

    async def _start(self, held: Held, image: str) -> None:
        now = self._clock.now()
        self._set(held, state=TaskState.STARTING, started_at=now)
        await asyncio.sleep(self._rng.uniform(0.05, 0.5))
        held.container = "started"
        held.dies_at, held.exit_code = self._fate(image)
        if image == "slow":
            await self._news(held, 10.0)
            if held.task.desired_state > TaskState.COMPLETE:
                return
        self._set(held, state=TaskState.RUNNING)

    def _fate(self, image: str) -> tuple[float | None, int]:
        now = self._clock.now()
        if image == "crash":
            return now + self._rng.uniform(0.1, 2.0), 1
        if image == "late":
            return now + self._rng.uniform(20.0, 40.0), 1
        if image == "flaky" and self._rng.random() < 0.3:
            return now + self._rng.uniform(0.1, 8.0), 1
        if image == "job":
            return now + self._rng.uniform(0.5, 10.0), 0
        return None, 0

    async def _watch_container(self, held: Held) -> None:
        now = self._clock.now()
        if held.dies_at is None or held.dies_at > now:
            await self._news(held, None if held.dies_at is None else held.dies_at - now)
            return
        held.container = "ended"
        ended = Exit(code=held.exit_code)
        self._set(held, state=exit_state(ended), err=exit_error(ended), exit_code=held.exit_code)
