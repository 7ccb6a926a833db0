"""Many agents in one process, for `benchmarks/scale.py`: they speak the Dispatcher protocol and run nothing.

    python benchmarks/simulated_agents.py CA_PEM JOIN_ADDRESS API_ADDRESS TOKEN

Each joins with the token, gets a certificate of its own and keeps its own connection (mutual TLS) with session,
heartbeats, assignments and demands, as a real agent does. A task is reported RUNNING as soon as it is to run and
SHUTDOWN as soon as it is to stop. Commands come as lines of JSON on standard input, each is answered by one line:

    {"do": "join", "count": 1000}                    the agents come, 50 at a time
    {"do": "running", "count": 30000, "seconds": 60} wait until so many tasks run, by confirmed reports
    {"do": "lose", "count": 10}                      so many nodes fall silent; answers what they ran
    {"do": "react", "count": 50}                     that many tasks fail, one after the other; answers the
                                                     milliseconds from each report to the replacement's arrival
    {"do": "received"}                               bytes of assignments received since the last time, and
                                                     sessions that broke so far
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
import traceback
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pyswarm import pki
from pyswarm.api import (
    AssignmentsRequest,
    HeartbeatRequest,
    HeartbeatResponse,
    IssueRequest,
    IssueResponse,
    ListenRequest,
    SessionMessage,
    SessionRequest,
)
from pyswarm.errors import PyswarmError, Unavailable
from pyswarm.objects import NodeDescription, TaskState
from pyswarm.rpc import OPTIONS, TLS, Stub, channel
from pyswarm.specs import Platform, Resources
from pyswarm.v1 import api_pb2, objects_pb2

AT_A_TIME = 50
BATCH = 0.005
"""Seconds that a report waits for others, as in a real agent."""
MEMORY = 256 << 30
CPUS = 64
DEADLINE = 60.0


@dataclass(slots=True)
class Tally:
    """What all agents together have seen."""

    running: dict[str, int] = field(default_factory=dict[str, int])
    """Task id -> number of its agent, of tasks whose RUNNING was confirmed."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    arrivals: dict[tuple[str, int], asyncio.Future[float]] = field(
        default_factory=dict[tuple[str, int], asyncio.Future[float]]
    )
    """(service id, slot) -> set to the time when the next new task of it arrives."""
    slots: dict[str, tuple[str, int]] = field(default_factory=dict[str, tuple[str, int]])
    received: int = 0
    broken: int = 0
    """Sessions that ended."""


class Agent:
    """One node."""

    def __init__(self, number: int, tally: Tally) -> None:
        self.number = number
        self._tally = tally
        self._states: dict[str, int] = {}
        self._outbox: dict[str, int] = {}
        self._filled = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._silent = False
        self._session = ""
        self._connection: grpc.aio.Channel | None = None
        self._report: Any = None  # Any: grpc's multi-callable

    # ---------------------------------------------------------------------------------------- coming

    async def join(self, ca: bytes, entry: str, api: str, token: str) -> None:
        key = await asyncio.to_thread(pki.new_key)
        csr = pki.create_request(key).decode()
        request = IssueRequest(csr=csr, token=token, addr=self._address)
        async with _own_connection(entry, ca) as connection:
            answer: IssueResponse = await Stub(connection, DEADLINE).unary("CA.Issue", request)
        self._connection = channel(f"ipv4:{api}", tls=TLS(ca, answer.cert.encode(), key))
        self._report = self._connection.unary_unary(
            "/pyswarm.v1.Dispatcher/UpdateStatus",
            request_serializer=api_pb2.UpdateStatusRequest.SerializeToString,
            response_deserializer=api_pb2.Empty.FromString,
        )
        registered = asyncio.Event()
        self._task = asyncio.create_task(self._live(self._connection, registered))
        await registered.wait()

    async def _live(self, connection: grpc.aio.Channel, registered: asyncio.Event) -> None:
        """Sessions one after the other; the first must come about, the end of another is counted and told."""
        while not self._silent:
            try:
                await self._serve(connection, registered)
            except* (PyswarmError, grpc.aio.AioRpcError, StopAsyncIteration) as group:
                self._tally.broken += not self._silent
                if not self._silent and self._tally.broken <= 3:
                    traceback.print_exception(group)
            await asyncio.sleep(0.2)

    async def _serve(self, connection: grpc.aio.Channel, registered: asyncio.Event) -> None:
        stub = Stub(connection, DEADLINE)
        request = SessionRequest(
            description=self._description(), addr=self._address, data_path_addr=self._address
        )
        messages: AsyncIterator[SessionMessage] = stub.stream("Dispatcher.Session", request)
        first = await anext(messages)
        self._session = first.session_id
        registered.set()
        for id, state in self._states.items():
            self._put(id, state)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(messages))
            group.create_task(self._beat(stub, first.heartbeat_period))
            group.create_task(self._listen(stub))
            group.create_task(self._assignments(connection))
            group.create_task(self._send_reports())

    @property
    def _address(self) -> str:
        return f"10.{self.number // 62500}.{self.number // 250 % 250}.{self.number % 250 + 1}"

    def _description(self) -> NodeDescription:
        return NodeDescription(
            hostname=f"sim{self.number:05d}",
            platform=Platform(architecture="x86_64", os="linux"),
            resources=Resources(nano_cpus=CPUS * 10**9, memory=MEMORY),
        )

    async def _follow(self, messages: AsyncIterator[SessionMessage]) -> None:
        async for _ in messages:
            pass
        raise Unavailable("the manager ended the session")

    async def _beat(self, stub: Stub, period: float) -> None:
        await asyncio.sleep(period * (self.number % 100) / 100)
        while not self._silent:
            answer: HeartbeatResponse = await stub.unary(
                "Dispatcher.Heartbeat", HeartbeatRequest(session_id=self._session)
            )
            await asyncio.sleep(answer.period * 0.95)

    async def _listen(self, stub: Stub) -> None:
        async for _ in stub.stream("Dispatcher.Listen", ListenRequest(session_id=self._session)):
            pass

    def silence(self) -> int:
        """The machine is gone: nothing more comes from it, and nobody says so. Returns what it ran."""
        self._silent = True
        lost = [id for id in self._states if self._tally.running.get(id) == self.number]
        for id in lost:
            del self._tally.running[id]
        return len(lost)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._connection is not None:
            await self._connection.close(None)

    # ---------------------------------------------------------------------------------------- its tasks

    async def _assignments(self, connection: grpc.aio.Channel) -> None:
        call = connection.unary_stream(
            "/pyswarm.v1.Dispatcher/WatchAssignments",
            request_serializer=_encoded,
            response_deserializer=bytes,
        )(AssignmentsRequest(session_id=self._session))
        async for data in call:
            now = time.perf_counter()
            self._tally.received += len(data)
            if not self._silent:
                self._apply(objects_pb2.Assignments.FromString(data), now)

    def _apply(self, message: Any, now: float) -> None:  # Any: the wire's own class
        for task in message.tasks:
            if task.id not in self._states:
                self._arrived(task, now)
            desired = task.desired_state if task.HasField("desired_state") else int(TaskState.RUNNING)
            state = self._states[task.id]
            if state <= desired:
                wanted = min(desired, int(TaskState.RUNNING))
                if desired > TaskState.RUNNING:
                    wanted = int(TaskState.SHUTDOWN)
                if wanted > state and state <= TaskState.RUNNING:
                    self._put(task.id, wanted)
        for id in message.removed_tasks:
            self._states.pop(id, None)
            self._tally.running.pop(id, None)
            self._tally.slots.pop(id, None)

    def _arrived(self, task: Any, now: float) -> None:  # Any: the wire's own class
        self._states[task.id] = int(TaskState.ASSIGNED)
        slot = (task.service_id, task.slot)
        self._tally.slots[task.id] = slot
        waiting = self._tally.arrivals.pop(slot, None)
        if waiting is not None:
            waiting.set_result(now)

    def _put(self, task_id: str, state: int) -> None:
        self._states[task_id] = state
        self._outbox[task_id] = state
        self._filled.set()

    def fail(self, task_id: str) -> None:
        self._tally.running.pop(task_id, None)
        self._put(task_id, int(TaskState.FAILED))

    async def _send_reports(self) -> None:
        while True:
            await self._filled.wait()
            if TaskState.FAILED not in self._outbox.values():
                await asyncio.sleep(BATCH)
            batch, self._outbox = self._outbox, {}
            self._filled.clear()
            await self._report(self._message(batch), timeout=DEADLINE)
            for id, state in batch.items():
                if state == TaskState.RUNNING and not self._silent:
                    self._tally.running[id] = self.number
                elif state > TaskState.RUNNING:
                    self._tally.running.pop(id, None)
            self._tally.changed.set()

    def _message(self, batch: Mapping[str, int]) -> Any:  # Any: the wire's own class
        message: Any = api_pb2.UpdateStatusRequest(session_id=self._session)
        now = time.time()
        for id, state in batch.items():
            update = message.updates.add(task_id=id)
            update.status.state = state
            update.status.timestamp = now
            update.status.message = "simulated"
            if state == TaskState.RUNNING:
                update.status.container_id = id
                update.status.started_at = update.status.running_since = now
            elif state == TaskState.FAILED:
                update.status.err = "task: non-zero exit (1)"
                update.status.exit_code = 1
                update.status.finished_at = now
        return message


def _encoded(request: AssignmentsRequest) -> bytes:
    return api_pb2.AssignmentsRequest(session_id=request.session_id).SerializeToString()


def _own_connection(entry: str, ca: bytes) -> grpc.aio.Channel:
    """To where machines join: each has its own, as machines do, though they are one process."""
    options = (
        *OPTIONS,
        ("grpc.ssl_target_name_override", TLS(ca).name),
        ("grpc.use_local_subchannel_pool", 1),
    )
    return grpc.aio.secure_channel(f"ipv4:{entry}", grpc.ssl_channel_credentials(ca), options=options)


class Fleet:
    """All agents, and the commands to them."""

    def __init__(self, ca: bytes, entry: str, api: str, token: str) -> None:
        self._ca, self._entry, self._api, self._token = ca, entry, api, token
        self._tally = Tally()
        self._agents: list[Agent] = []
        self._lost = 0

    async def join(self, count: int) -> dict[str, object]:
        room = asyncio.Semaphore(AT_A_TIME)

        async def come(agent: Agent) -> None:
            async with room:
                await agent.join(self._ca, self._entry, self._api, self._token)

        new = [Agent(number, self._tally) for number in range(len(self._agents), len(self._agents) + count)]
        self._agents += new
        await asyncio.gather(*map(come, new))
        return {"agents": len(self._agents)}

    async def running(self, count: int, seconds: float) -> dict[str, object]:
        end = time.monotonic() + seconds
        while len(self._tally.running) != count:
            self._tally.changed.clear()
            try:
                async with asyncio.timeout_at(end):
                    await self._tally.changed.wait()
            except TimeoutError:
                break
        return {"running": len(self._tally.running), "ok": len(self._tally.running) == count}

    async def lose(self, count: int) -> dict[str, object]:
        victims = self._agents[self._lost : self._lost + count]
        self._lost += len(victims)
        return {"tasks": sum(agent.silence() for agent in victims)}

    async def react(self, count: int) -> dict[str, object]:
        milliseconds: list[float] = []
        gc.collect()
        gc.freeze()  # no pause of this program's own is to count as the manager's
        step = max(1, len(self._tally.running) // count)
        for task_id in list(self._tally.running)[::step][:count]:
            slot = self._tally.slots[task_id]
            arrival = self._tally.arrivals[slot] = asyncio.get_running_loop().create_future()
            agent = self._agents[self._tally.running[task_id]]
            start = time.perf_counter()
            agent.fail(task_id)
            async with asyncio.timeout(DEADLINE):
                milliseconds.append((await arrival - start) * 1000)
            await asyncio.sleep(0.1)
        return {"milliseconds": milliseconds}

    async def received(self) -> dict[str, object]:
        received, self._tally.received = self._tally.received, 0
        return {"bytes": received, "broken": self._tally.broken}

    async def obey(self, line: str) -> dict[str, object]:
        command = json.loads(line)
        return await getattr(self, command.pop("do"))(**command)

    async def close(self) -> None:
        await asyncio.gather(*(agent.close() for agent in self._agents))


async def main() -> None:
    ca, entry, api, token = sys.argv[1:]
    fleet = Fleet(Path(ca).read_bytes(), entry, api, token)
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        print(json.dumps(await fleet.obey(line.decode())), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
