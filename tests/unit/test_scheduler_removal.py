"""Which tasks of a service go first: the ranking of placement, seen from the other side."""

from __future__ import annotations

from dataclasses import replace

from manager.scheduler.place import removal_order
from pyswarm.objects import NodeState, Service, Task, TaskState
from tests.unit.rounds import Rounds, node, service, tasks_of


def running(owner: Service, node_id: str, *slots: int) -> list[Task]:
    return [
        task
        for slot in slots
        for task in tasks_of(owner, 1, first=slot, state=TaskState.RUNNING, node_id=node_id)
    ]


def order(rounds: Rounds, owner: Service, tasks: list[Task] | None = None) -> list[int]:
    found = removal_order(rounds.view, owner, tasks if tasks is not None else rounds.tasks(owner))
    return [task.slot for task in found]


def test_the_fullest_node_gives_first() -> None:
    rounds = Rounds()
    web = service("web")
    rounds.put(web, node("a"), node("b"), node("c"))
    rounds.put(*running(web, "a", 1, 2, 3, 4), *running(web, "b", 5, 6), *running(web, "c", 7))
    assert order(rounds, web)[:4] == [4, 3, 2, 6]
    remaining = [t for t in rounds.tasks(web) if t.slot not in order(rounds, web)[:4]]
    assert sorted(t.node_id for t in remaining) == ["a", "b", "c"]


def test_what_does_not_run_goes_first() -> None:
    rounds = Rounds()
    web = service("web")
    rounds.put(web, node("a"), node("b"), node("down", state=NodeState.DOWN), node("d", availability="drain"))
    rounds.put(
        *running(web, "a", 1, 2, 3), *running(web, "b", 4), *running(web, "down", 5), *running(web, "d", 6)
    )
    starting = [
        replace(task, status=replace(task.status, state=TaskState.STARTING)) for task in running(web, "b", 7)
    ]
    rounds.put(*starting, *tasks_of(web, 1, first=8))
    assert set(order(rounds, web)[:4]) == {5, 6, 7, 8}
    assert order(rounds, web)[4] == 3


def test_other_services_break_ties() -> None:
    rounds = Rounds()
    web, other = service("web"), service("other")
    rounds.put(web, other, node("a"), node("b"))
    rounds.put(*running(web, "a", 1), *running(web, "b", 2), *running(other, "a", 1, 2))
    assert order(rounds, web) == [1, 2]


def test_preferences_are_kept_even() -> None:
    rounds = Rounds()
    web = service("web", preferences=["node.labels.az"])
    machines = [node("a", labels={"az": "1"}), node("b", labels={"az": "1"}), node("c", labels={"az": "2"})]
    rounds.put(web, *machines)
    rounds.put(*running(web, "a", 1, 2), *running(web, "b", 3), *running(web, "c", 4, 5))
    first = removal_order(rounds.view, web, rounds.tasks(web))
    assert first[0].slot == 2
    left = [task for task in rounds.tasks(web) if task not in first[:3]]
    assert sorted("1" if t.node_id in "ab" else "2" for t in left) == ["1", "2"]


def test_tasks_that_are_not_candidates_still_fill_their_node() -> None:
    rounds = Rounds()
    web = service("web")
    rounds.put(web, node("a"), node("b"))
    tasks = [*running(web, "a", 1, 2, 3), *running(web, "b", 4, 5)]
    rounds.put(*tasks)
    assert order(rounds, web, [tasks[0], tasks[3], tasks[4]]) == [1, 5, 4]


def test_binpack_empties_the_emptiest_node() -> None:
    rounds = Rounds()
    web = service("web", strategy="binpack")
    rounds.put(web, node("a"), node("b"))
    rounds.put(*running(web, "a", 1, 2, 3), *running(web, "b", 4, 5))
    assert order(rounds, web)[:2] == [5, 4]


def test_every_task_is_named_once() -> None:
    rounds = Rounds()
    web = service("web")
    rounds.put(web, node("a"))
    rounds.put(*running(web, "a", *range(1, 20)), *running(web, "gone", 50, 51), *tasks_of(web, 3, first=60))
    assert sorted(order(rounds, web)) == sorted(task.slot for task in rounds.tasks(web))
    assert order(rounds, web, []) == []
