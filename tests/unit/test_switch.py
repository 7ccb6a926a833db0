"""The switch in front of the leader: here, elsewhere, nobody, and what happens to calls while that changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from manager import switch as module
from manager.store import Deposed
from manager.switch import Switch, forwardable
from pyswarm.api import (
    METHOD,
    METHODS,
    Empty,
    EventMessage,
    EventsRequest,
    GetRequest,
    InfoResponse,
    NodeCommand,
    NodeReply,
    ObjectBox,
    RemoveRequest,
)
from pyswarm.errors import NotFound, Unavailable
from pyswarm.objects import Node
from pyswarm.rpc import SERVER_OPTIONS, Peer, Stub, add_service, channel, identify_local
from tests.unit.leader import FACTS

ADMIN = Peer("admin")


@dataclass
class Handler:
    """A leader's Control service, as far as these tests call it."""

    name: str = "leader"
    asked: list[object] = field(default_factory=list[object])
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    hold: asyncio.Event = field(default_factory=asyncio.Event)

    def __getattr__(self, method: str) -> Any:
        async def missing(request: object, peer: Peer) -> object:
            raise NotFound(method)

        return missing

    async def info(self, request: Empty, peer: Peer) -> InfoResponse:
        return InfoResponse(node_id=self.name, is_leader=True, nodes=7)

    async def get(self, request: GetRequest, peer: Peer) -> ObjectBox:
        self.asked.append(request)
        return ObjectBox(node=Node(id=request.ref))

    async def remove(self, request: RemoveRequest, peer: Peer) -> Empty:
        await self.hold.wait()
        return Empty()

    async def events(self, request: EventsRequest, peer: Peer) -> AsyncIterator[EventMessage]:
        try:
            yield EventMessage(action="create", name=self.name)
            await self.hold.wait()
            raise NotFound("the end")
        finally:
            self.ended.set()

    async def command(self, requests: AsyncIterator[NodeCommand], peer: Peer) -> AsyncIterator[NodeReply]:
        async for request in requests:
            yield NodeReply(kind="progress", text=request.node)


@pytest.fixture
async def elsewhere(tmp_path: Path) -> AsyncGenerator[tuple[str, Handler]]:
    """Another manager that leads, behind a real server."""
    handler = Handler("other")
    server = grpc.aio.server(options=SERVER_OPTIONS)
    server.add_insecure_port(f"unix:{tmp_path}/other")
    add_service(server, "Control", handler, identify_local)
    await server.start()
    yield f"unix:{tmp_path}/other", handler
    await server.stop(None)


def make(service: str = "Control") -> Any:
    return Switch(service, lambda address: Stub(channel(address), forwards=True), FACTS)


def events(switch: Any) -> Any:
    return switch.events(EventsRequest(), ADMIN)


async def test_on_the_leader_calls_go_to_its_handler() -> None:
    switch = make()
    switch.leader_is_self(Handler())
    assert (await switch.info(Empty(), ADMIN)).is_leader
    async with aclosing(events(switch)) as stream:
        assert (await anext(stream)).name == "leader"


async def test_elsewhere_calls_are_forwarded(elsewhere: tuple[str, Handler]) -> None:
    switch = make()
    switch.leader_is(elsewhere[0])
    answer = await switch.info(Empty(), ADMIN)
    assert (answer.nodes, answer.node_id, answer.is_leader) == (7, "m1", False)
    async with aclosing(events(switch)) as stream:
        assert (await anext(stream)).name == "other"


async def test_the_manager_that_is_asked_is_this_one_wherever_it_is_answered(
    elsewhere: tuple[str, Handler],
) -> None:
    switch = make()
    switch.leader_is(elsewhere[0])

    async def commands() -> AsyncIterator[NodeCommand]:
        yield NodeCommand(verb="image.ls")
        yield NodeCommand(data=b"more")

    assert (await switch.get(GetRequest(kind="node", ref="self"), ADMIN)).node.id == "m1"
    assert (await switch.get(GetRequest(kind="node", ref="n7"), ADMIN)).node.id == "n7"
    assert [reply.text async for reply in switch.command(commands(), ADMIN)] == ["m1", ""]


@pytest.mark.parametrize("first", ["self", "other"])
async def test_the_lead_is_known_in_whichever_order_the_news_come(
    first: str, elsewhere: tuple[str, Handler]
) -> None:
    """The watch of the election and the own scope's end are told by two tasks."""
    switch = make()
    switch.leader_is_self(Handler())
    if first == "self":
        switch.resigned()
        switch.leader_is(elsewhere[0])
    else:
        switch.leader_is(elsewhere[0])
        switch.resigned()
    assert (await switch.info(Empty(), ADMIN)).node_id == "m1"
    switch.leader_is_self(Handler())
    switch.leader_is(elsewhere[0])  # the watch lags behind: it still tells of the former leader
    assert (await switch.info(Empty(), ADMIN)).node_id == "leader"
    switch.leader_is(None)
    assert (await switch.info(Empty(), ADMIN)).node_id == "leader"


async def test_without_a_leader_calls_wait_and_then_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    switch = make()
    waiting = asyncio.ensure_future(switch.info(Empty(), ADMIN))
    await asyncio.sleep(0)
    switch.leader_is_self(Handler())
    assert (await waiting).nodes == 7
    switch.resigned()
    monkeypatch.setattr(module, "ELECTION_WAIT", 0.01)
    with pytest.raises(Unavailable, match="no leader"):
        await switch.info(Empty(), ADMIN)


async def test_without_a_leader_a_call_is_told_what_keeps_this_manager(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    switch: Any = Switch("Control", None, FACTS, lambda: "the disk is full")
    monkeypatch.setattr(module, "ELECTION_WAIT", 0.01)
    with pytest.raises(Unavailable, match=r"no leader.*\(this manager: the disk is full\)"):
        await switch.info(Empty(), ADMIN)


async def test_a_call_that_was_handed_on_is_not_handed_on_again() -> None:
    switch = make()
    switch.leader_is("unix:/nonexistent")
    with pytest.raises(Unavailable, match="changing their leader"):
        await switch.info(Empty(), Peer("manager", "m2", "c1", forwarded=True))


async def test_an_agent_is_told_to_turn_to_the_leader() -> None:
    switch: Any = Switch("Dispatcher", None)
    switch.leader_is("10.0.0.9:2378")
    with pytest.raises(Unavailable, match=r"10\.0\.0\.9:2378 leads"):
        await switch.heartbeat(object(), Peer("worker", "w1"))
    with pytest.raises(Unavailable, match="leads"):
        await anext(switch.session(object(), Peer("worker", "w1")))


async def test_streams_end_with_the_lead_and_say_why() -> None:
    switch, handler = make(), Handler()
    switch.leader_is_self(handler)
    stream = events(switch)
    await anext(stream)
    switch.resigned()
    with pytest.raises(Unavailable, match="does not lead"):
        await anext(stream)
    assert handler.ended.is_set()


async def test_a_handlers_error_ends_its_stream() -> None:
    switch, handler = make(), Handler()
    switch.leader_is_self(handler)
    stream = events(switch)
    await anext(stream)
    handler.hold.set()
    with pytest.raises(NotFound, match="the end"):
        await anext(stream)


async def test_a_reader_that_goes_away_ends_the_handlers_stream() -> None:
    switch, handler = make(), Handler()
    switch.leader_is_self(handler)
    stream = events(switch)
    await anext(stream)
    await stream.aclose()
    assert handler.ended.is_set()


async def test_a_write_whose_leader_was_lost_is_not_repeated(elsewhere: tuple[str, Handler]) -> None:
    switch = make()
    switch.leader_is(elsewhere[0])
    removal = asyncio.ensure_future(switch.remove(RemoveRequest(kind="service", ref="x"), ADMIN))
    await asyncio.sleep(0.05)
    switch.leader_is_self(Handler())
    switch.leader_is(None)
    with pytest.raises(Unavailable, match="not known whether"):
        await removal


def test_what_nodes_say_of_themselves_is_not_handed_on() -> None:
    handed = {f"{m.service}.{m.name}" for m in METHODS if forwardable(m)}
    assert not {name for name in handed if name.startswith("Dispatcher.")}
    assert {"Raft.Join", "CA.Renew"} <= handed, "their handlers are told who has called"
    assert {name for name in METHOD if name.startswith("Control.")} <= handed


async def test_a_read_that_a_deposed_leader_refuses_is_asked_of_the_next(
    elsewhere: tuple[str, Handler],
) -> None:
    """A manager that was held up past its lease finds out when it is asked: nothing stale is answered."""

    class Former(Handler):
        async def info(self, request: Empty, peer: Peer) -> InfoResponse:
            asyncio.get_running_loop().call_later(0.05, moved)
            raise Deposed("this manager does not lead any more")

    def moved() -> None:
        switch.resigned()
        switch.leader_is(elsewhere[0])

    switch = make()
    switch.leader_is_self(Former())
    answer: InfoResponse = await asyncio.wait_for(switch.info(Empty(), ADMIN), 5)
    assert answer.nodes == 7, "the next leader was asked"
