"""A manager for tests of the command line: the real Control service over the store in memory, on a unix socket,
in a thread of its own. Agents are played: what they would answer is given by the test."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import click
import grpc.aio
from click.testing import CliRunner, Result

from manager.allocator import Allocator, check_network
from manager.assignments import Tracker
from manager.control import Control, Facts
from manager.controller import Controller, Transaction
from manager.desired import Builder
from manager.dispatcher import Dispatcher
from manager.logbroker import LogBroker
from manager.orchestrator import reconcilers
from manager.scheduler.scheduler import Scheduler
from manager.state import State, View
from manager.store import Put
from manager.store.memory import MemoryServer, MemoryStore
from pyswarm.api import (
    ExecInputMessage,
    ExecOutputMessage,
    LogMessage,
    LogsRequest,
    NodeCommand,
    NodeReply,
)
from pyswarm.cli.app import App
from pyswarm.cli.main import run
from pyswarm.clock import RandomIds, SystemClock
from pyswarm.errors import NotFound, PyswarmError
from pyswarm.objects import Object, Task, TaskStatus
from pyswarm.rpc import SERVER_OPTIONS, Peer, add_service, identify_local

T = TypeVar("T")
NODE = "n" * 25


@dataclass
class Played:
    """What the agents answer, and what they were asked."""

    logs: list[LogMessage] = field(default_factory=list[LogMessage])
    answers: dict[str, Any] = field(default_factory=dict[str, Any])
    """By verb; an exception is raised."""
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list[tuple[str, dict[str, Any]]])
    received: bytes = b""
    execs: list[Any] = field(default_factory=list[Any])
    exec_code: int = 0


class PlayedControl(Control):
    """Control whose agents are played."""

    played: Played

    async def logs(self, request: LogsRequest, peer: Peer) -> AsyncIterator[LogMessage]:
        tail = len(self.played.logs) if request.tail < 0 else request.tail
        for message in self.played.logs[len(self.played.logs) - tail :]:
            yield message

    async def command(self, messages: AsyncIterator[NodeCommand], peer: Peer) -> AsyncIterator[NodeReply]:
        first = await anext(messages)
        self.played.asked.append((first.verb, json.loads(first.args)))
        if not first.eof and first.verb == "image.build":
            async for more in messages:
                self.played.received += more.data
                if more.eof:
                    break
        answer = self.played.answers.get(first.verb, NotFound(f"no {first.verb} here"))
        yield NodeReply(kind="progress", text=f"doing {first.verb}")
        if isinstance(answer, PyswarmError):
            yield NodeReply(kind="error", text=str(answer), error_class=type(answer).__name__)
        else:
            yield NodeReply(kind="result", text=json.dumps(answer))

    async def exec(
        self, messages: AsyncIterator[ExecInputMessage], peer: Peer
    ) -> AsyncIterator[ExecOutputMessage]:
        first = await anext(messages)
        self.played.execs.append(first.start)
        yield ExecOutputMessage(kind="stdout", data=b"out\n")
        yield ExecOutputMessage(kind="stderr", data=b"err\n")
        yield ExecOutputMessage(kind="exit", data=str(self.played.exec_code).encode())


class CliManager:
    """The server and, for the test, the command line in front of it."""

    def __init__(
        self,
        run_dir: Path,
        *,
        live: bool = False,
        node_id: str = NODE,
        objects: Sequence[Object] = (),
    ) -> None:
        """`live` runs the reconcilers too; without, `objects` stay as they are given."""
        self._objects = objects
        self.run_dir = run_dir
        self.played = Played()
        self._live = live
        self._node_id = node_id
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        self._stop: asyncio.Event | None = None
        self._controller: Controller | None = None
        self._thread = threading.Thread(target=self._run, name="cli-manager", daemon=True)

    def __enter__(self) -> CliManager:
        self._thread.start()
        assert self._ready.wait(20), "the test's manager did not start"
        if self._error is not None:
            raise self._error
        return self

    def __exit__(self, *_: object) -> None:
        if self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:
            self._error = error
        finally:
            self._ready.set()
            self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        ids, clock = RandomIds(), SystemClock()
        store = MemoryStore(MemoryServer())
        if self._objects:
            await store.commit(
                [Put(replace(each, meta=replace(each.meta, version=0))) for each in self._objects]
            )
        rooms = (*reconcilers({}), Allocator(()), Scheduler()) if self._live else ()
        controller = self._controller = Controller(store, State(ids), rooms, clock)
        broker = LogBroker(ids)
        dispatcher = Dispatcher(controller, Tracker(), broker, clock, ids, lambda: (), _same)
        control = PlayedControl(
            controller, dispatcher, broker, Builder(check_network, _same, _same), clock, _facts(self._node_id)
        )
        control.played = self.played
        server = grpc.aio.server(options=SERVER_OPTIONS)
        server.add_insecure_port(f"unix:{self.run_dir / 'pyswarm.sock'}")
        add_service(server, "Control", control, identify_local)
        loop = asyncio.create_task(controller.run())
        await controller.loaded.wait()
        await server.start()
        self._ready.set()
        await self._stop.wait()
        await server.stop(0)
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)

    def _call(self, mutation: Callable[[Transaction], Any]) -> Any:
        assert self._controller is not None
        return asyncio.run_coroutine_threadsafe(self._controller.submit(mutation), self._loop).result(20)

    def report(self, task: Task, status: TaskStatus) -> None:
        """What the task's agent reports."""

        def mutation(tx: Transaction) -> None:
            current = tx.view.get(Task, task.id)
            if current is not None:
                tx.put(replace(current, status=status))

        self._call(mutation)

    def wait_for(self, question: Callable[[View], T | None]) -> T:
        """The first answer of `question` that is one."""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            answer = self.objects(question)
            if answer is not None:
                return answer
            time.sleep(0.01)
        raise AssertionError("what the test waits for did not happen within 20 s")

    def objects(self, question: Callable[[View], T]) -> T:
        """An answer from the manager's view."""
        assert self._controller is not None
        return asyncio.run_coroutine_threadsafe(self._controller.read(question), self._loop).result(20)

    def __call__(self, *arguments: str, input: str = "", code: int | None = 0) -> Result:
        """Run `pyswarm ARGUMENTS` in this process; `code` is the exit code that it must have."""
        result = CliRunner().invoke(
            Program("pyswarm"), ["--run-dir", str(self.run_dir), *arguments], input=input
        )
        if code is not None:
            assert result.exit_code == code, (arguments, result.exit_code, result.stdout, result.stderr)
        return result


class Program(click.Command):
    """What CliRunner calls: the console script's own `run`, which maps errors to exit codes."""

    def main(self, args: Sequence[str] | None = None, *_: Any, **__: Any) -> Any:
        raise SystemExit(run(list(args or ()), App()))


def _same(data: bytes) -> bytes:
    return data


def _facts(node_id: str) -> Facts:
    return Facts(
        node_id=node_id,
        node_addr="10.0.0.1",
        version="1.2.3",
        raft_version=lambda: "3.4.23",
        managers=lambda: ("10.0.0.1:2378",),
        join_addresses=lambda: ("10.0.0.1:2377",),
        state_dir="/var/lib/pyswarm",
        run_dir="/run/pyswarm",
        tokens=lambda cluster: ("SWMTKN-1-a-worker", "SWMTKN-1-a-manager"),
        rotate=lambda cluster, request: cluster,
        sign_client=lambda cluster, name, csr: "-----BEGIN CERTIFICATE-----\n",
        trust=lambda cluster: cluster.root_ca.cert,
        begin_rotation=lambda cluster, request: cluster,
        locked=lambda cluster, rotate: cluster,
        unlock_key=lambda cluster: "",
    )
