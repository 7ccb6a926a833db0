"""A node that folds every delta into its complete set holds what the complete set would be now."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, TypeVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manager.assignments import Tracker, assignments_for
from manager.state import Changed, View
from node_agent.tables import Tables, changed_table
from pyswarm.objects import (
    Assignments,
    Config,
    Meta,
    NetworkTable,
    Secret,
    Task,
    TaskState,
    TaskStatus,
    Volume,
    terminal,
)
from pyswarm.wire import from_bytes, to_bytes
from tests.property.histories import HISTORIES, History, Step

MODEST = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


_Stored = TypeVar("_Stored", Task, Secret, Config, Volume)


class Agent:
    """What an agent does with what it is told."""

    def __init__(self, complete: Assignments) -> None:
        assert complete.complete
        self.tasks = by_id(complete.tasks)
        self.secrets = by_id(complete.secrets)
        self.configs = by_id(complete.configs)
        self.volumes = by_id(complete.volumes)
        self.tables = Tables()
        self.tables.take(complete)

    def fold(self, delta: Assignments) -> None:
        assert not delta.complete
        self.tasks.update(by_id(delta.tasks))
        self.secrets.update(by_id(delta.secrets))
        self.configs.update(by_id(delta.configs))
        self.volumes.update(by_id(delta.volumes))
        assert set(delta.removed_networks) <= set(self.tables.networks)
        for change in delta.network_changes:
            table = self.tables.networks[change.network_id]
            assert changed_table(table, change) != table, "a change that changes nothing"
        self.tables.take(delta)
        remove(self.tasks, delta.removed_tasks)
        remove(self.secrets, delta.removed_secrets)
        remove(self.configs, delta.removed_configs)
        remove(self.volumes, delta.removed_volumes)

    def holds(self) -> object:
        return (
            {id: for_agent(task) for id, task in self.tasks.items()},
            {id: obj.spec for id, obj in self.secrets.items()},
            {id: obj.spec for id, obj in self.configs.items()},
            {id: obj.spec for id, obj in self.volumes.items()},
            {id: table_for_agent(table) for id, table in self.tables.networks.items()},
            self.tables.ingress,
        )


def by_id(objects: Iterable[_Stored]) -> dict[str, _Stored]:
    return {obj.id: obj for obj in objects}


def remove(held: dict[str, Any], ids: Iterable[str]) -> None:  # Any: each kind in turn
    for id in ids:
        del held[id]


def for_agent(task: Task) -> Task:
    """Without what the agent reported itself, and what only managers read."""
    return replace(task, meta=Meta(), status=TaskStatus(), spec_version=0)


def table_for_agent(table: NetworkTable) -> NetworkTable:
    return replace(table, network=replace(table.network, meta=Meta()))


def what_a_node_may_see(view: View, node_id: str, told: Assignments) -> None:
    """Its own tasks, and only what their specs name while they live."""
    assert {task.node_id for task in told.tasks} <= {node_id}
    assert all(task.status.state >= TaskState.ASSIGNED for task in told.tasks)
    live = [task for task in told.tasks if not terminal(task.status.state)]
    assert bool(told.secrets) == any(task.spec.container.secrets for task in live)
    assert bool(told.configs) == any(task.spec.container.configs for task in live)
    mine = {a.network_id for task in live for a in task.networks}
    ingress = {"ingress"} if told.ingress else set[str]()
    assert {table.network.id for table in told.networks} == mine | ingress
    for table in told.networks:
        members = {member.address for member in table.members}
        assert len(members) == len(table.members)
        for member in table.members:
            task = view.get(Task, member.task_id)
            assert task is not None
            assert member.healthy == (
                task.status.state == TaskState.RUNNING and task.desired_state <= TaskState.COMPLETE
            )


@MODEST
@given(HISTORIES, st.integers(0, 3))
def test_deltas_add_up(steps: list[Step], pace: int) -> None:
    """`pace` rounds share one collection, as when commits come faster than the sender. Everything travels as
    bytes."""
    history, tracker = History(), Tracker()
    agents: dict[str, Agent] = {}
    for number, step in enumerate(steps):
        history.rounds.committed.clear()
        history.run(step)
        view = history.rounds.view
        for changed in history.rounds.committed:
            tracker.changed(changed)
        if pace and number % (pace + 1):
            continue
        for node_id, delta in tracker.collect(view).items():
            agents[node_id].fold(from_bytes(Assignments, to_bytes(delta)))
        for node in sorted(view.nodes(), key=lambda n: n.id):
            if node.id not in agents:
                agents[node.id] = Agent(tracker.open(view, node.id))
            told = assignments_for(view, node.id)
            assert agents[node.id].holds() == Agent(told).holds()
            what_a_node_may_see(view, node.id, told)


@MODEST
@given(HISTORIES)
def test_nothing_changed_nothing_told(steps: list[Step]) -> None:
    history, tracker = History(), Tracker()
    for step in steps:
        history.run(step)
    view = history.rounds.view
    for node in view.nodes():
        tracker.open(view, node.id)
    for task in view.tasks():
        tracker.changed(Changed(task, task))
    assert tracker.collect(view) == {}
