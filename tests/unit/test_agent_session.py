"""The agent's session against a real server: registered, resent, lost assignments, demands that fail alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from node_agent import session as module
from node_agent.session import Inputs, Outbox, Session
from pyswarm.api import (
    AnswerInput,
    AnswerMessage,
    AssignmentsRequest,
    Demand,
    Empty,
    HeartbeatRequest,
    HeartbeatResponse,
    ListenRequest,
    NodeCommand,
    NodeReply,
    SessionMessage,
    SessionRequest,
    UpdateStatusRequest,
)
from pyswarm.clock import SystemClock
from pyswarm.errors import NotFound, PyswarmError, Unavailable
from pyswarm.objects import Assignments, NodeDescription, TaskState, TaskStatus, TaskStatusUpdate
from pyswarm.rpc import SERVER_OPTIONS, TLS, Peer, add_service, channel


@dataclass
class Manager:
    """A dispatcher whose answers a test decides."""

    sessions: int = 0
    reports: list[TaskStatusUpdate] = field(default_factory=list[TaskStatusUpdate])
    assignments: Sequence[Assignments] = (Assignments(),)
    demands: asyncio.Queue[Demand] = field(default_factory=asyncio.Queue[Demand])
    answers: asyncio.Queue[AnswerMessage | None] = field(default_factory=asyncio.Queue[AnswerMessage | None])
    refuse: int = 0
    empty: int = 0
    inputs: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def note(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with self.changed:
            await self.changed.wait_for(condition)

    async def session(self, request: SessionRequest, peer: Peer) -> AsyncIterator[SessionMessage]:
        if self.empty:
            self.empty -= 1
            return
        self.sessions += 1
        yield SessionMessage(session_id=str(self.sessions), heartbeat_period=0.05)
        await self.note()
        await asyncio.Event().wait()

    async def heartbeat(self, request: HeartbeatRequest, peer: Peer) -> HeartbeatResponse:
        if int(request.session_id) != self.sessions:
            raise NotFound("register again")
        return HeartbeatResponse(period=0.05)

    async def watch_assignments(self, request: AssignmentsRequest, peer: Peer) -> AsyncIterator[Assignments]:
        for assignment in self.assignments:
            yield assignment
        self.assignments = (Assignments(),)
        await asyncio.Event().wait()

    async def update_status(self, request: UpdateStatusRequest, peer: Peer) -> Empty:
        if self.refuse:
            self.refuse -= 1
            raise Unavailable("not now")
        self.reports += request.updates
        await self.note()
        return Empty()

    async def listen(self, request: ListenRequest, peer: Peer) -> AsyncIterator[Demand]:
        while True:
            yield await self.demands.get()

    async def answer(self, messages: AsyncIterator[AnswerMessage], peer: Peer) -> AsyncIterator[AnswerInput]:
        for _ in range(self.inputs):
            yield AnswerInput(command=NodeCommand(data=b"x"))
        async for message in messages:
            await self.answers.put(message)
        await self.answers.put(None)

    async def leave(self, request: Empty, peer: Peer) -> Empty:
        raise AssertionError("a session ends without leaving the cluster")

    async def fetch_image(self, request: Any, peer: Peer) -> AsyncIterator[Any]:
        raise NotFound("none")
        yield


class Worker:
    def __init__(self) -> None:
        self.applied: asyncio.Queue[Assignments] = asyncio.Queue()

    async def apply(self, assignments: Assignments) -> None:
        self.applied.put_nowait(assignments)

    def statuses(self) -> Sequence[TaskStatusUpdate]:
        return (TaskStatusUpdate(task_id="held", status=TaskStatus(state=TaskState.RUNNING)),)


class Answerer:
    async def answer(
        self, demand: Demand, inputs: AsyncIterator[AnswerInput]
    ) -> AsyncIterator[AnswerMessage]:
        verb = demand.command.verb if demand.command is not None else ""
        if verb == "fail":
            raise PyswarmError("it failed")
        yield AnswerMessage(reply=NodeReply(kind="result", text=verb))


@dataclass
class Rig:
    manager: Manager
    worker: Worker
    outbox: Outbox
    registered: list[str]
    run: asyncio.Task[None]


@asynccontextmanager
async def agent(manager: Manager, path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Rig]:
    server = grpc.aio.server(options=SERVER_OPTIONS)
    server.add_insecure_port(f"unix:{path}/manager")
    add_service(server, "Dispatcher", manager, lambda context: Peer("worker", "w1", "c1"))
    await server.start()

    def local(target: str, tls: TLS) -> grpc.aio.Channel:
        return channel(f"unix:{path}/manager")

    monkeypatch.setattr(module, "channel", local)
    monkeypatch.setattr(module, "BACKOFF_MIN", 0.01)
    worker, outbox, registered = Worker(), Outbox(), list[str]()

    async def stats() -> Sequence[Any]:
        return ()

    session = Session(
        worker=worker,
        answerer=Answerer(),
        outbox=outbox,
        managers=["m1"],
        tls=lambda: TLS(b""),
        describe=NodeDescription,
        stats=stats,
        clock=SystemClock(),
        addr="10.0.0.2",
        data_path_addr="10.0.0.2",
        remember_managers=lambda managers: None,
        registered=registered.append,
    )
    rig = Rig(manager, worker, outbox, registered, asyncio.ensure_future(session.run()))
    try:
        async with asyncio.timeout(10):
            yield rig
    finally:
        rig.run.cancel()
        await asyncio.wait({rig.run})
        await server.stop(None)


async def test_it_registers_tells_all_it_holds_and_takes_its_assignments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with agent(Manager(), tmp_path, monkeypatch) as rig:
        assert (await rig.worker.applied.get()).complete
        await rig.manager.until(lambda: bool(rig.manager.reports))
        assert [u.task_id for u in rig.manager.reports] == ["held"]
        assert rig.registered == ["m1"]


async def test_a_gap_in_the_assignments_begins_a_new_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = (Assignments(), Assignments(complete=False, sequence=2))
    async with agent(Manager(assignments=lost), tmp_path, monkeypatch) as rig:
        await rig.manager.until(lambda: rig.manager.sessions == 2)
        applied = [await rig.worker.applied.get() for _ in range(2)]
        assert all(a.complete for a in applied), "what came after the gap was not applied"


async def test_a_report_is_sent_until_a_manager_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with agent(Manager(refuse=2), tmp_path, monkeypatch) as rig:
        rig.outbox.put(TaskStatusUpdate(task_id="t1", status=TaskStatus(state=TaskState.FAILED)))
        await rig.manager.until(lambda: any(u.task_id == "t1" for u in rig.manager.reports))
        assert rig.manager.sessions == 3


async def test_a_session_that_ends_before_it_begins_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with agent(Manager(empty=2), tmp_path, monkeypatch) as rig:
        await rig.manager.until(lambda: rig.manager.sessions == 1)
        assert not rig.run.done()


async def test_a_demand_that_fails_is_its_askers_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with agent(Manager(), tmp_path, monkeypatch) as rig:
        manager = rig.manager
        await manager.until(lambda: manager.sessions == 1)
        for verb in ("fail", "works"):
            manager.demands.put_nowait(Demand(id=verb, command=NodeCommand(verb=verb)))
        found: list[str] = []
        while "works" not in found:
            message = await manager.answers.get()
            if message is not None and message.reply is not None:
                found.append(message.reply.text)
        assert manager.sessions == 1


async def test_input_that_nobody_reads_does_not_hold_an_answer_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with agent(Manager(inputs=500), tmp_path, monkeypatch) as rig:
        await rig.manager.until(lambda: rig.manager.sessions == 1)
        rig.manager.demands.put_nowait(Demand(id="x", command=NodeCommand(verb="works")))
        while await rig.manager.answers.get() is not None:
            pass


async def test_inputs_are_bounded_ordered_and_closed_from_either_end() -> None:
    inputs = Inputs(size=2)
    messages = [AnswerInput(command=NodeCommand(verb=v)) for v in "abc"]
    for message in messages[:2]:
        await inputs.put(message)
    third = asyncio.ensure_future(inputs.put(messages[2]))
    await asyncio.sleep(0)
    assert not third.done(), "the reader is behind"
    assert await anext(inputs) == messages[0]
    await third
    inputs.close()
    await inputs.put(messages[0])  # dropped
    assert [message async for message in inputs] == messages[1:]


async def test_a_close_lets_a_writer_go() -> None:
    inputs = Inputs(size=1)
    await inputs.put(AnswerInput())
    waiting = asyncio.ensure_future(inputs.put(AnswerInput()))
    await asyncio.sleep(0)
    inputs.close()
    await waiting


async def test_the_outbox_keeps_the_last_status_and_what_changed_meanwhile() -> None:
    outbox = Outbox()

    def status(state: TaskState) -> TaskStatusUpdate:
        return TaskStatusUpdate(task_id="t", status=TaskStatus(state=state))

    outbox.put(status(TaskState.PREPARING))
    outbox.put(status(TaskState.STARTING))
    batch = await outbox.batch()
    assert [u.status.state for u in batch] == [TaskState.STARTING]
    outbox.put(status(TaskState.RUNNING))
    outbox.confirm(batch)
    assert [u.status.state for u in await outbox.batch()] == [TaskState.RUNNING]
    outbox.confirm(await outbox.batch())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await outbox.batch()
