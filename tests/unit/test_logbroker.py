"""Demands and their answers: found each other, held back, lost, taken over; and logs put together from them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress

import pytest

from manager import logbroker as module
from manager.logbroker import LogBroker
from pyswarm.api import AnswerInput, AnswerMessage, Demand, LogMessage, LogsRequest, NodeCommand, NodeReply
from pyswarm.clock import SeededIds
from pyswarm.errors import NotFound, Unavailable
from pyswarm.objects import TaskState
from tests.unit.leader import Leader, leading, node, peer, task

Answers = Callable[[Demand], AsyncIterator[AnswerMessage]]


async def agent(broker: LogBroker, node_id: str, answers: Answers, listening: asyncio.Event) -> None:
    """An agent that answers every demand."""
    demands = broker.listen(node_id)
    step = asyncio.ensure_future(anext(demands))
    await asyncio.sleep(0)
    listening.set()
    while True:
        demand = await step

        async def stream(demand: Demand = demand) -> AsyncIterator[AnswerMessage]:
            yield AnswerMessage(demand_id=demand.id)
            async for message in answers(demand):
                yield message

        async for _ in broker.answer(node_id, stream()):
            pass
        step = asyncio.ensure_future(anext(demands))


class Agents:
    """Agents that run while the block does."""

    def __init__(self, broker: LogBroker, **answers: Answers) -> None:
        self._broker, self._answers = broker, answers
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Agents:
        for node_id, answers in self._answers.items():
            listening = asyncio.Event()
            self.tasks[node_id] = asyncio.ensure_future(agent(self._broker, node_id, answers, listening))
            await listening.wait()
        return self

    async def __aexit__(self, *error: object) -> None:
        for running in self.tasks.values():
            running.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


def lines(*nanos: int, task_id: str = "t1") -> Answers:
    async def answers(demand: Demand) -> AsyncIterator[AnswerMessage]:
        for n in nanos:
            yield AnswerMessage(log=LogMessage(task_id=task_id, nanos=n, data=b"%d" % n))

    return answers


@pytest.fixture
def broker() -> LogBroker:
    return LogBroker(SeededIds(1))


async def test_a_demand_gets_the_answer_of_its_node(broker: LogBroker) -> None:
    async with Agents(broker, n1=lines(1, 2), n2=lines(3)):
        async with broker.ask("n1", Demand(id="", logs=LogsRequest())) as conversation:
            found = [a.log.nanos async for a in conversation.answers() if a.log is not None]
        assert found == [1, 2]
        assert not conversation.lost


async def test_a_node_that_does_not_listen_is_unavailable_at_once(broker: LogBroker) -> None:
    with pytest.raises(Unavailable, match="not connected"):
        async with broker.ask("n1", Demand(id="")):
            pass


async def test_a_node_that_has_just_registered_is_waited_for(broker: LogBroker) -> None:
    broker.registered = lambda node_id: True

    async def ask() -> int:
        async with broker.ask("n1", Demand(id="", logs=LogsRequest())) as conversation:
            return len([a async for a in conversation.answers()])

    asking = asyncio.ensure_future(ask())
    await asyncio.sleep(0)
    async with Agents(broker, n1=lines(1)):
        assert await asking == 1


async def test_a_node_that_never_answers_is_unavailable(
    broker: LogBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_TIMEOUT", 0.02)
    demands = broker.listen("n1")
    step = asyncio.ensure_future(anext(demands))
    await asyncio.sleep(0)
    async with broker.ask("n1", Demand(id="")) as conversation:
        with pytest.raises(Unavailable, match="did not answer"):
            await anext(conversation.answers())
    await step
    await demands.aclose()


async def test_a_node_that_is_lost_before_it_answers_is_told_at_once(broker: LogBroker) -> None:
    demands = broker.listen("n1")
    step = asyncio.ensure_future(anext(demands))
    await asyncio.sleep(0)
    async with broker.ask("n1", Demand(id="")) as conversation:
        await step
        await demands.aclose()
        with pytest.raises(Unavailable, match="lost its connection"):
            await anext(conversation.answers())


async def test_an_answer_that_breaks_off_is_lost(broker: LogBroker) -> None:
    reached = asyncio.Event()

    async def stuck(demand: Demand) -> AsyncIterator[AnswerMessage]:
        yield AnswerMessage(log=LogMessage(nanos=1))
        reached.set()
        await asyncio.Event().wait()

    async with Agents(broker, n1=stuck) as agents:
        async with broker.ask("n1", Demand(id="")) as conversation:
            answers = conversation.answers()
            await anext(answers)
            await reached.wait()
            agents.tasks["n1"].cancel()
            assert await anext(answers, None) is None
            assert conversation.lost


async def test_an_answer_without_a_demand_or_from_another_node_is_refused(broker: LogBroker) -> None:
    async def first(id: str) -> AsyncIterator[AnswerMessage]:
        yield AnswerMessage(demand_id=id)

    demands = broker.listen("n1")
    step = asyncio.ensure_future(anext(demands))
    await asyncio.sleep(0)
    async with broker.ask("n1", Demand(id="")):
        demand = await step
        for node_id, id in (("n2", demand.id), ("n1", "nonsense")):
            with pytest.raises(NotFound):
                await anext(broker.answer(node_id, first(id)))
    await demands.aclose()


async def test_a_reader_that_is_slow_holds_the_agent_back(broker: LogBroker) -> None:
    sent = 0

    async def much(demand: Demand) -> AsyncIterator[AnswerMessage]:
        nonlocal sent
        for _ in range(5_000):
            sent += 1
            yield AnswerMessage(log=LogMessage())

    async with Agents(broker, n1=much):
        async with broker.ask("n1", Demand(id="")) as conversation:
            answers = conversation.answers()
            await anext(answers)
            for _ in range(50):
                await asyncio.sleep(0)
            assert sent <= module.QUEUE + 3
            assert len([a async for a in answers]) == 4_999


async def test_an_asker_that_goes_away_ends_the_agents_stream(broker: LogBroker) -> None:
    ended = asyncio.Event()

    async def endless(demand: Demand) -> AsyncIterator[AnswerMessage]:
        try:
            while True:
                yield AnswerMessage(log=LogMessage())
                await asyncio.sleep(0)
        finally:
            ended.set()

    async with Agents(broker, n1=endless):
        for finish in (False, True):
            ended.clear()
            async with broker.ask("n1", Demand(id="")) as conversation:
                if finish:
                    await conversation.finish_input()
                await anext(conversation.answers())
            async with asyncio.timeout(5):
                await ended.wait()


async def test_input_reaches_the_agent_in_order_and_ends(broker: LogBroker) -> None:
    demands = broker.listen("n1")
    step = asyncio.ensure_future(anext(demands))
    await asyncio.sleep(0)
    async with broker.ask("n1", Demand(id="")) as conversation:
        demand = await step

        async def stream() -> AsyncIterator[AnswerMessage]:
            yield AnswerMessage(demand_id=demand.id)

        for verb in "abc":
            await conversation.send(AnswerInput(command=NodeCommand(verb=verb)))
        await conversation.finish_input()
        inputs = [i.command.verb async for i in broker.answer("n1", stream()) if i.command is not None]
        assert inputs == ["a", "b", "c"]
    await demands.aclose()


async def test_a_second_listener_takes_over_what_was_not_taken(broker: LogBroker) -> None:
    first = broker.listen("n1")
    step = asyncio.ensure_future(anext(first))
    await asyncio.sleep(0)
    async with broker.ask("n1", Demand(id="")) as one, broker.ask("n1", Demand(id="")) as two:
        assert (await step).id == one.demand.id
        second = broker.listen("n1")
        assert (await anext(second)).id == two.demand.id
        assert await anext(first, None) is None
        await first.aclose()
        assert broker.connected("n1")
        await second.aclose()
        assert not broker.connected("n1")


# ---------------------------------------------------------------------------------------------- logs


async def logs(leader: Leader, request: LogsRequest) -> Sequence[LogMessage]:
    return [message async for message in leader.control.logs(request, peer("x"))]


async def test_logs_of_several_nodes_come_in_order_of_time_with_their_names() -> None:
    objects = [node("n1"), node("n2"), task("t1", "n1"), task("t2", "n2")]
    async with leading(objects=objects) as leader:
        async with Agents(leader.broker, n1=lines(1, 4, 5), n2=lines(2, 3, 6, task_id="t2")):
            found = await logs(leader, LogsRequest())
    assert [m.nanos for m in found] == [1, 2, 3, 4, 5, 6]
    assert {(m.service_name, m.node_id) for m in found} == {("web", "n1"), ("web", "n2")}


async def test_a_node_that_is_away_costs_a_warning_and_its_own_lines() -> None:
    async def broken(demand: Demand) -> AsyncIterator[AnswerMessage]:
        yield AnswerMessage(reply=NodeReply(kind="error", text="disk full"))

    objects = [node(n) for n in ("n1", "n2", "n3")] + [task(f"t{n}", f"n{n}") for n in (1, 2, 3)]
    async with leading(objects=objects) as leader:
        async with Agents(leader.broker, n1=lines(1), n3=broken):
            found = await logs(leader, LogsRequest())
    assert [m.nanos for m in found if not m.warning] == [1]
    warnings = sorted(m.warning for m in found if m.warning)
    assert len(warnings) == 2
    assert warnings[0] == "disk full"
    assert "node n2 is not connected" in warnings[1]


async def test_logs_of_a_node_are_those_of_its_tasks() -> None:
    asked: list[tuple[str, ...]] = []

    async def noted(demand: Demand) -> AsyncIterator[AnswerMessage]:
        assert demand.logs is not None
        asked.append(demand.logs.tasks)
        return
        yield

    objects = [
        node("n1"),
        node("n2"),
        task("t1", "n1"),
        task("t2", "n2"),
        task("t3", "n1", TaskState.PENDING),
    ]
    async with leading(objects=objects) as leader:
        async with Agents(leader.broker, n1=noted, n2=noted):
            await logs(leader, LogsRequest(nodes=("n1",)))
            for request in (
                LogsRequest(nodes=("x",)),
                LogsRequest(tasks=("x",)),
                LogsRequest(services=("x",)),
            ):
                with pytest.raises(NotFound):
                    await logs(leader, request)
    assert asked == [("t1",)]


async def test_following_takes_up_tasks_that_start_later_and_ends_with_the_lead() -> None:
    async def once(demand: Demand) -> AsyncIterator[AnswerMessage]:
        assert demand.logs is not None
        for id in demand.logs.tasks:
            yield AnswerMessage(log=LogMessage(task_id=id))

    async with leading(objects=[node("n1"), task("t1", "n1")]) as leader:
        async with Agents(leader.broker, n1=once):
            stream = leader.control.logs(LogsRequest(follow=True), peer("x"))
            assert (await anext(stream)).task_id == "t1"
            await leader.put(task("t2", "n1"))
            assert (await anext(stream)).task_id == "t2"
            leader.task.cancel()
            with suppress(asyncio.CancelledError):
                await leader.task
            await asyncio.sleep(0)
