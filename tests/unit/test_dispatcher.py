"""Sessions of agents with the leader: registered, heard, missed, forgiven; assignments out, reports in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

import pytest

from manager import dispatcher as module
from manager.dispatcher import LONE, merged
from pyswarm.api import (
    AssignmentsRequest,
    Empty,
    HeartbeatRequest,
    ListenRequest,
    SessionMessage,
    UpdateStatusRequest,
)
from pyswarm.errors import NotFound, PermissionDenied, Unavailable
from pyswarm.objects import (
    Assignments,
    ContainerStats,
    ManagerStatus,
    Node,
    NodeState,
    Secret,
    TaskState,
    TaskStatus,
    TaskStatusUpdate,
)
from pyswarm.specs import FileReference, SecretSpec
from tests.unit.leader import REQUEST, Leader, leading, node, peer, task


async def until_down(leader: Leader, node_id: str) -> float:
    """Wait for the commit that declares the node down; returns how long it took."""
    begin, down = time.monotonic(), asyncio.Event()

    def look(revision: int, changes: Any) -> None:
        nodes = [c.after for c in changes if isinstance(c.after, Node)]
        if any(n.id == node_id and n.status.state == NodeState.DOWN for n in nodes):
            down.set()

    leader.controller.observe(look)
    await down.wait()
    return time.monotonic() - begin


async def register(leader: Leader, node_id: str) -> tuple[SessionMessage, AsyncIterator[SessionMessage]]:
    messages = leader.dispatcher.session(REQUEST, peer(node_id))
    return await anext(messages), messages


async def beat(leader: Leader, session: SessionMessage, node_id: str) -> None:
    await leader.dispatcher.heartbeat(HeartbeatRequest(session_id=session.session_id), peer(node_id))


async def test_registering_makes_the_node_ready_and_tells_it_what_it_is() -> None:
    async with leading(objects=[node("n1")]) as leader:
        first, _ = await register(leader, "n1")
        assert first.node == await leader.node("n1")
        assert first.node is not None and first.node.status.state == NodeState.READY
        assert (first.heartbeat_period, first.managers) == (0.5, ("10.0.0.1:2378",))


async def test_the_only_node_of_a_cluster_beats_rarely_until_another_joins() -> None:
    async with leading(objects=[node("n1")]) as leader:
        first, _ = await register(leader, "n1")
        assert first.heartbeat_period == 0.1 * LONE
        await leader.put(node("n2"))
        beat = HeartbeatRequest(session_id=first.session_id)
        assert (await leader.dispatcher.heartbeat(beat, peer("n1"))).period == 0.1


async def test_a_node_that_was_removed_is_turned_away_and_leaves_nothing() -> None:
    async with leading() as leader:
        with pytest.raises(PermissionDenied, match="not part of this cluster"):
            await register(leader, "gone")
        assert not leader.broker.registered("gone")


async def test_a_new_session_ends_the_former_one() -> None:
    async with leading(objects=[node("n1")]) as leader:
        old, messages = await register(leader, "n1")
        new, _ = await register(leader, "n1")
        assert await anext(messages, None) is None
        with pytest.raises(NotFound, match="register again"):
            await beat(leader, old, "n1")
        await beat(leader, new, "n1")


async def test_a_session_is_its_nodes_alone() -> None:
    async with leading(objects=[node("n1"), node("n2")]) as leader:
        first, _ = await register(leader, "n1")
        await register(leader, "n2")
        for call in (
            leader.dispatcher.heartbeat(HeartbeatRequest(session_id=first.session_id), peer("n2")),
            leader.dispatcher.update_status(UpdateStatusRequest(session_id=first.session_id), peer("n2")),
            anext(
                leader.dispatcher.watch_assignments(
                    AssignmentsRequest(session_id=first.session_id), peer("n2")
                )
            ),
            anext(leader.dispatcher.listen(ListenRequest(session_id=first.session_id), peer("n2"))),
        ):
            with pytest.raises(NotFound):
                await call


async def test_a_node_is_not_missed_before_it_knows_that_it_is_to_beat_more_often() -> None:
    """The only node of a cluster beats rarely; when another one joins, it is in the middle of its pause."""
    async with leading(objects=[node("n1")]) as leader:
        first, messages = await register(leader, "n1")
        watch = asyncio.ensure_future(leader.dispatcher.watch_heartbeats())
        try:
            await leader.put(replace(node("n2"), manager_status=ManagerStatus(api="10.0.0.2:2378")))
            told = await asyncio.wait_for(anext(messages), 5)
            assert told.heartbeat_period == 0.1
            session = leader.dispatcher._sessions["n1"]  # pyright: ignore[reportPrivateUsage]
            overdue = leader.dispatcher._overdue  # pyright: ignore[reportPrivateUsage]
            assert not overdue(session, session.last_beat + 0.9), "it beats every 0.5 s still"
            assert overdue(session, session.last_beat + 1.1)
            await beat(leader, first, "n1")
            assert overdue(session, session.last_beat + 0.3), "now it knows"
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)


async def test_a_node_that_has_left_is_down_at_once() -> None:
    async with leading(objects=[node("n1"), node("n2")]) as leader:
        first, messages = await register(leader, "n1")
        await register(leader, "n2")
        await leader.dispatcher.leave(Empty(), peer("n1"))
        assert await anext(messages, None) is None, "its session has ended"
        status = (await leader.node("n1")).status
        assert (status.state, status.message) == (NodeState.DOWN, "it has left the swarm")
        with pytest.raises(NotFound):
            await beat(leader, first, "n1")
        assert (await leader.node("n2")).status.state == NodeState.READY


async def test_a_silent_node_is_down_one_that_beats_is_not() -> None:
    async with leading(objects=[node("n1"), node("n2")]) as leader:
        _, messages = await register(leader, "n1")
        other, kept = await register(leader, "n2")
        watch = asyncio.ensure_future(leader.dispatcher.watch_heartbeats())

        async def beats() -> None:
            while True:
                await beat(leader, other, "n2")
                await asyncio.sleep(0.05)

        beating = asyncio.ensure_future(beats())
        assert await until_down(leader, "n1") >= 0.15
        assert await anext(messages, None) is None, "its session has ended"
        assert (await leader.node("n2")).status.state == NodeState.READY
        assert (await leader.node("n1")).status.message == "heartbeat failure"
        for running in (watch, beating):
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
        del kept


async def test_an_own_pause_is_not_counted_against_the_nodes() -> None:
    async with leading(objects=[node("n1"), node("n2")]) as leader:
        first, kept = await register(leader, "n1")
        watch = asyncio.ensure_future(leader.dispatcher.watch_heartbeats())
        await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        time.sleep(0.8)  # noqa: ASYNC251 - the process stands still, as under SIGSTOP
        await asyncio.sleep(0.05)
        await beat(leader, first, "n1")
        await asyncio.sleep(0.1)
        assert (await leader.node("n1")).status.state == NodeState.READY
        watch.cancel()
        del kept


async def test_a_cut_connection_leaves_time_for_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESTART_GRACE", 0.4)
    async with leading(objects=[node("n1"), node("n2")]) as leader:
        _, messages = await register(leader, "n1")
        watch = asyncio.ensure_future(leader.dispatcher.watch_heartbeats())
        await cast("Any", messages).aclose()
        assert await until_down(leader, "n1") >= 0.45
        watch.cancel()


async def test_a_new_leader_waits_longer_for_nodes_it_has_not_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    ready = replace(node("n1"), status=replace(node("n1").status, state=NodeState.READY))
    async with leading(objects=[ready]) as leader:
        watch = asyncio.ensure_future(leader.dispatcher.watch_heartbeats())
        assert await until_down(leader, "n1") >= 0.35
        watch.cancel()


async def test_a_node_that_comes_back_while_another_is_declared_stays_ready() -> None:
    async with leading(objects=[node("n1"), node("n2")]) as leader:
        _, kept = await register(leader, "n1")
        _, also = await register(leader, "n2")
        leader.store.latency = lambda: 0.15  # the first declaration takes its time
        watch = asyncio.ensure_future(leader.dispatcher.watch_heartbeats())
        down = asyncio.ensure_future(until_down(leader, "n1"))
        await asyncio.sleep(0.35)
        messages = leader.dispatcher.session(REQUEST, peer("n2"))
        again = asyncio.ensure_future(anext(messages))
        await down
        session = await again
        leader.store.latency = None
        for _ in range(3):
            await beat(leader, session, "n2")
            await asyncio.sleep(0.05)
        assert (await leader.node("n2")).status.state == NodeState.READY
        watch.cancel()
        del kept, also


async def assignments(leader: Leader, session: SessionMessage, node_id: str) -> Any:
    return leader.dispatcher.watch_assignments(
        AssignmentsRequest(session_id=session.session_id), peer(node_id)
    )


async def test_first_everything_then_what_changes_in_order() -> None:
    async with leading(objects=[node("n1"), task("t1", "n1", TaskState.ASSIGNED)]) as leader:
        session, kept = await register(leader, "n1")
        stream = await assignments(leader, session, "n1")
        first: Assignments = await anext(stream)
        assert (first.complete, first.sequence, [t.id for t in first.tasks]) == (True, 0, ["t1"])
        for number in range(2, 6):
            await leader.put(task(f"t{number}", "n1", TaskState.ASSIGNED))
        deltas = [await anext(stream) for _ in range(4)]
        assert [d.sequence for d in deltas] == [1, 2, 3, 4]
        assert [[t.id for t in d.tasks] for d in deltas] == [["t2"], ["t3"], ["t4"], ["t5"]]
        assert not any(d.complete for d in deltas)
        await stream.aclose()
        del kept


async def test_secrets_come_in_clear_and_only_those_of_the_nodes_tasks() -> None:
    mine, other = (
        Secret(id=i, spec=SecretSpec(name=i, data=b"sealed:" + i.encode())) for i in ("mine", "other")
    )
    user = task("t1", "n1", TaskState.ASSIGNED)
    container = replace(
        user.spec.container, secrets=(FileReference(source_id="mine", source_name="mine", target="mine"),)
    )
    user = replace(user, spec=replace(user.spec, container=container))
    async with leading(objects=[node("n1"), user, mine, other]) as leader:
        session, kept = await register(leader, "n1")
        stream = await assignments(leader, session, "n1")
        first: Assignments = await anext(stream)
        assert [(s.id, s.spec.data) for s in first.secrets] == [("mine", b"mine")]
        await stream.aclose()
        del kept


async def test_a_second_stream_takes_over_and_outlives_the_first() -> None:
    async with leading(objects=[node("n1")]) as leader:
        session, kept = await register(leader, "n1")
        first, second = (
            await assignments(leader, session, "n1"),
            await assignments(leader, session, "n1"),
        )
        await anext(first)
        await anext(second)
        assert await anext(first, None) is None
        await leader.put(task("t1", "n1", TaskState.ASSIGNED))
        assert [t.id for t in (await anext(second)).tasks] == ["t1"]
        await second.aclose()
        del kept


async def test_an_agent_that_does_not_read_is_cut_off_and_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "QUEUE", 3)
    async with leading(objects=[node("n1")]) as leader:
        session, kept = await register(leader, "n1")
        stream = await assignments(leader, session, "n1")
        await anext(stream)
        for number in range(8):
            await leader.put(task(f"t{number}", "n1", TaskState.ASSIGNED))
        taken = [delta async for delta in stream]
        assert len(taken) < 8
        assert not leader.task.done(), "the leader goes on"
        again = await assignments(leader, session, "n1")
        assert len((await anext(again)).tasks) == 8
        await again.aclose()
        del kept


async def report(
    leader: Leader, session: SessionMessage, node_id: str, *updates: tuple[str, TaskStatus]
) -> None:
    rows = tuple(TaskStatusUpdate(task_id=id, status=status) for id, status in updates)
    await leader.dispatcher.update_status(
        UpdateStatusRequest(session_id=session.session_id, updates=rows), peer(node_id)
    )


async def test_reports_are_committed_when_they_are_answered() -> None:
    async with leading(objects=[node("n1"), task("t1", "n1", TaskState.ASSIGNED)]) as leader:
        session, kept = await register(leader, "n1")
        await report(
            leader, session, "n1", ("t1", TaskStatus(state=TaskState.RUNNING)), ("gone", TaskStatus())
        )
        stored = await leader.store.get("task", "t1")
        assert stored == await leader.task_of("t1")
        assert (await leader.task_of("t1")).status.state == TaskState.RUNNING
        del kept


async def test_a_node_reports_on_its_own_tasks_alone() -> None:
    async with leading(objects=[node("n1"), task("t1", "n1"), task("t2", "n2")]) as leader:
        session, kept = await register(leader, "n1")
        failed = TaskStatus(state=TaskState.FAILED)
        with pytest.raises(PermissionDenied):
            await report(leader, session, "n1", ("t1", failed), ("t2", failed))
        for id in ("t1", "t2"):
            assert (await leader.task_of(id)).status.state == TaskState.RUNNING
        del kept


async def test_figures_are_kept_of_own_running_tasks_until_they_end() -> None:
    async with leading(
        objects=[node("n1"), task("t1", "n1"), task("t2", "n2"), task("t3", "n1", TaskState.FAILED)]
    ) as leader:
        session, kept = await register(leader, "n1")
        figures = tuple(ContainerStats(task_id=id) for id in ("t1", "t2", "t3", "t4"))
        await leader.dispatcher.update_status(
            UpdateStatusRequest(session_id=session.session_id, stats=figures), peer("n1")
        )
        assert list(leader.dispatcher.stats) == ["t1"]
        await report(leader, session, "n1", ("t1", TaskStatus(state=TaskState.COMPLETE)))
        assert leader.dispatcher.stats == {}
        del kept


async def test_a_removed_node_loses_its_session() -> None:
    async with leading(objects=[node("n1")]) as leader:
        session, messages = await register(leader, "n1")
        current = await leader.node("n1")
        await leader.controller.submit(lambda tx: tx.delete(current))
        assert await anext(messages, None) is None
        with pytest.raises(NotFound):
            await beat(leader, session, "n1")


async def test_without_the_lead_nobody_registers() -> None:
    async with leading(objects=[node("n1")]) as leader:
        leader.task.cancel()
        await asyncio.wait({leader.task})
        with pytest.raises(Unavailable):
            await register(leader, "n1")


S = TaskState


@pytest.mark.parametrize(
    ("old", "new", "kept"),
    [
        (S.ASSIGNED, S.RUNNING, S.RUNNING),
        (S.RUNNING, S.PREPARING, S.RUNNING),
        (S.RUNNING, S.COMPLETE, S.COMPLETE),
        (S.COMPLETE, S.FAILED, S.COMPLETE),
        (S.COMPLETE, S.SHUTDOWN, S.COMPLETE),
        (S.SHUTDOWN, S.FAILED, S.SHUTDOWN),
        (S.FAILED, S.SHUTDOWN, S.FAILED),
        (S.FAILED, S.REMOVE, S.REMOVE),
        (S.ORPHANED, S.RUNNING, S.ORPHANED),
        (S.REMOVE, S.ORPHANED, S.ORPHANED),
    ],
)
def test_observed_states_only_move_forward(old: TaskState, new: TaskState, kept: TaskState) -> None:
    assert merged(TaskStatus(state=old), TaskStatus(state=new)).state == kept


def test_news_of_the_same_state_are_taken() -> None:
    new = TaskStatus(state=S.RUNNING, message="healthy")
    assert merged(TaskStatus(state=S.RUNNING), new) == new
