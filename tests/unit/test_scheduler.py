"""The scheduler's scenarios: where tasks go, what waits and why, and what wakes it up."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from manager.scheduler.scheduler import (
    ASSIGNED_MESSAGE,
    CONFIRMED_MESSAGE,
    REASON_REFRESH,
    Scheduler,
)
from pyswarm.objects import SLOT_OF_LABEL, Meta, Node, NodeState, Service, Task, TaskState, Volume
from pyswarm.specs import ContainerSpec, Driver, GenericResource, Mount, PortConfig, VolumeSpec
from tests.unit.rounds import GIB, NOW, Rounds, node, service, tasks_of

HTTP = PortConfig(target_port=80, published_port=80, publish_mode="host")


def start(*nodes: Node) -> Rounds:
    rounds = Rounds(Scheduler())
    rounds.put(*nodes)
    return rounds


def running(owner: Service, node_id: str, count: int, first: int = 1000) -> list[Task]:
    return tasks_of(owner, count, first=first, state=TaskState.RUNNING, node_id=node_id)


def failed(owner: Service, node_id: str, count: int, when: float = NOW - 10) -> list[Task]:
    return [
        replace(
            task,
            id=f"{task.id}-{node_id}-failed",
            status=replace(task.status, state=TaskState.FAILED, timestamp=when),
            desired_state=TaskState.SHUTDOWN,
        )
        for task in running(owner, node_id, count, first=5000)
    ]


# -------------------------------------------------------------------------------------------------- placing


def test_pending_tasks_are_assigned() -> None:
    rounds = start(node("a"), node("b"))
    web = service("web")
    rounds.put(web, *tasks_of(web, 1))
    [task] = rounds.tasks(web)
    assert task.node_id in ("a", "b")
    assert task.status.state == TaskState.ASSIGNED
    assert task.status.message == ASSIGNED_MESSAGE
    assert task.status.timestamp == NOW


def test_spreads_evenly() -> None:
    rounds = start(*(node(id) for id in "abcde"))
    web = service("web")
    rounds.put(web, *tasks_of(web, 13))
    assert sorted(rounds.per_node(web).values()) == [2, 2, 3, 3, 3]


def test_fewest_tasks_of_the_service_before_fewest_tasks() -> None:
    """HA: a node full of other services' tasks still comes before one that has a task of this service."""
    rounds = start(node("a"), node("b"))
    web, other = service("web"), service("other")
    rounds.put(web, other, *running(other, "a", 10), *running(web, "b", 1))
    rounds.put(*tasks_of(web, 1))
    assert rounds.per_node(web) == {"a": 1, "b": 1}


def test_fewest_tasks_break_ties() -> None:
    rounds = start(node("a"), node("b"), node("c"))
    web, other = service("web"), service("other")
    rounds.put(
        web,
        other,
        *running(other, "a", 3),
        *running(other, "b", 1, first=2000),
        *running(other, "c", 2, 3000),
    )
    rounds.put(*tasks_of(web, 1))
    assert rounds.per_node(web) == {"b": 1}


def test_tasks_that_shut_down_do_not_count() -> None:
    rounds = start(node("a"), node("b"))
    web = service("web")
    leaving = [replace(t, desired_state=TaskState.SHUTDOWN) for t in running(web, "a", 3)]
    rounds.put(web, *leaving, *running(web, "b", 1, first=2000))
    rounds.put(*tasks_of(web, 1))
    assert rounds.per_node(web) == {"a": 4, "b": 1}


def test_services_of_one_round_see_each_other() -> None:
    rounds = start(node("a", memory=GIB), node("b", memory=GIB))
    one, two = service("one", memory=GIB), service("two", memory=GIB)
    rounds.put(one, two, *tasks_of(one, 1), *tasks_of(two, 1))
    assert sorted(rounds.per_node()) == ["a", "b"]


def test_binpack_fills_a_node_before_the_next() -> None:
    rounds = start(node("a", memory=3 * GIB), node("b", memory=3 * GIB), node("c", memory=3 * GIB))
    web = service("web", memory=GIB, strategy="binpack")
    rounds.put(web, *tasks_of(web, 4))
    assert sorted(rounds.per_node(web).values()) == [1, 3]
    rounds.put(*tasks_of(web, 2, first=5))
    assert sorted(rounds.per_node(web).values()) == [3, 3]


# ---------------------------------------------------------------------------------------------- preferences


def zones(rounds: Rounds, owner: Service, label: str = "az") -> dict[str, int]:
    counts: Counter[str] = Counter()
    for id, count in rounds.per_node(owner).items():
        found = rounds.view.get(Node, id)
        assert found is not None
        counts[found.spec.labels.get(label, "")] += count
    return dict(counts)


def test_preferences_spread_over_label_values() -> None:
    machines = [node(f"a{i}", labels={"az": "1"}) for i in range(5)] + [node("b", labels={"az": "2"})]
    rounds = start(*machines)
    web = service("web", preferences=["node.labels.az"])
    rounds.put(web, *tasks_of(web, 8))
    assert zones(rounds, web) == {"1": 4, "2": 4}


def test_a_missing_label_is_a_branch_of_its_own() -> None:
    rounds = start(node("a", labels={"az": "1"}), node("b"), node("c"))
    web = service("web", preferences=["node.labels.az"])
    rounds.put(web, *tasks_of(web, 4))
    assert zones(rounds, web) == {"1": 2, "": 2}
    assert sorted(rounds.per_node(web).values()) == [1, 1, 2]


def test_multiple_preferences_are_levels() -> None:
    machines = [
        node("a", labels={"az": "1", "rack": "1"}),
        node("b", labels={"az": "1", "rack": "2"}),
        node("c", labels={"az": "1", "rack": "2"}),
        node("d", labels={"az": "2", "rack": "1"}),
    ]
    rounds = start(*machines)
    web = service("web", preferences=["node.labels.az", "node.labels.rack"])
    rounds.put(web, *tasks_of(web, 8))
    assert rounds.per_node(web) == {"a": 2, "b": 1, "c": 1, "d": 4}


def test_scaling_up_keeps_branches_even_with_what_is_there() -> None:
    machines = [node("a", labels={"az": "1"}), node("b", labels={"az": "2"}), node("c", labels={"az": "3"})]
    rounds = start(*machines)
    web = service("web", preferences=["node.labels.az"])
    rounds.put(web, *running(web, "a", 5), *running(web, "b", 1, first=2000))
    rounds.put(*tasks_of(web, 6))
    assert zones(rounds, web) == {"1": 5, "2": 4, "3": 3} or zones(rounds, web) == {"1": 5, "2": 3, "3": 4}


def test_a_full_branch_leaves_the_rest_to_the_others() -> None:
    machines = [node("a", labels={"az": "1"}, memory=GIB), node("b", labels={"az": "2"}, memory=9 * GIB)]
    rounds = start(*machines)
    web = service("web", preferences=["node.labels.az"], memory=GIB)
    rounds.put(web, *tasks_of(web, 6))
    assert rounds.per_node(web) == {"a": 1, "b": 5}


def test_tasks_on_nodes_that_take_none_count_for_their_branch() -> None:
    machines = [
        node("a", labels={"az": "1"}, availability="pause"),
        node("b", labels={"az": "1"}),
        node("c", labels={"az": "2"}),
    ]
    rounds = start(*machines)
    web = service("web", preferences=["node.labels.az"])
    rounds.put(web, *running(web, "a", 3))
    rounds.put(*tasks_of(web, 3))
    assert rounds.per_node(web) == {"a": 3, "c": 3}


def test_engine_labels_and_unknown_descriptors() -> None:
    machines = [node("a", engine_labels={"os": "x"}), node("b", engine_labels={"os": "x"}), node("c")]
    rounds = start(*machines)
    web = service("web", preferences=["node.hostname", "engine.labels.os"])
    rounds.put(web, *tasks_of(web, 4))
    assert rounds.per_node(web) == {"a": 1, "b": 1, "c": 2}


# ------------------------------------------------------------------------------------------------- failures


def test_a_node_with_five_recent_failures_comes_last() -> None:
    rounds = start(node("a"), node("b"))
    web, other = service("web"), service("other")
    rounds.put(web, other, *failed(web, "a", 5), *running(other, "b", 20))
    rounds.put(*tasks_of(web, 3))
    assert rounds.per_node(web) == {"a": 5, "b": 3}


def test_four_failures_do_not_matter() -> None:
    rounds = start(node("a"), node("b"))
    web, other = service("web"), service("other")
    rounds.put(web, other, *failed(web, "a", 4), *running(other, "b", 20))
    rounds.put(*tasks_of(web, 1))
    assert rounds.per_node(web) == {"a": 5}


@pytest.mark.parametrize("which", ["old", "another version", "another service"])
def test_failures_that_do_not_count(which: str) -> None:
    rounds = start(node("a"), node("b"))
    web, other = service("web"), service("other")
    bad = failed(web, "a", 5)
    if which == "old":
        bad = failed(web, "a", 5, when=NOW - 301)
    elif which == "another version":
        bad = [replace(task, spec_version=web.spec_version + 1) for task in bad]
    else:
        bad = failed(other, "a", 5)
    rounds.put(web, other, *bad, *running(other, "b", 20))
    rounds.put(*tasks_of(web, 1))
    assert [t.node_id for t in rounds.tasks(web) if t.status.state == TaskState.ASSIGNED] == ["a"]


def test_a_failing_node_is_better_than_none() -> None:
    rounds = start(node("a"))
    web = service("web")
    rounds.put(web, *failed(web, "a", 7))
    rounds.put(*tasks_of(web, 1))
    assert [t.node_id for t in rounds.tasks(web) if t.status.state == TaskState.ASSIGNED] == ["a"]


# -------------------------------------------------------------------------------------------------- waiting


def waiting(rounds: Rounds, owner: Service) -> list[str]:
    return [task.status.err for task in rounds.tasks(owner) if task.status.state == TaskState.PENDING]


def test_without_nodes_tasks_wait_and_a_node_wakes_them() -> None:
    rounds = start()
    web = service("web")
    rounds.put(web, *tasks_of(web, 2))
    assert waiting(rounds, web) == ["no suitable node (the cluster has no nodes)"] * 2
    rounds.put(node("a", state=NodeState.DOWN))
    rounds.put(node("a"))
    assert [t.status.state for t in rounds.tasks(web)] == [TaskState.ASSIGNED] * 2
    assert [t.status.err for t in rounds.tasks(web)] == ["", ""]


def test_the_reason_is_counted_per_filter() -> None:
    rounds = start(
        node("a", labels={"disk": "ssd"}, memory=GIB),
        node("b", labels={"disk": "ssd"}, memory=GIB),
        node("c", memory=8 * GIB),
    )
    web = service("web", memory=2 * GIB, constraints=["node.labels.disk==ssd"])
    rounds.put(web, *tasks_of(web, 1))
    assert waiting(rounds, web) == [
        "no suitable node (3 nodes: 2 insufficient memory, 1 not matching node.labels.disk==ssd)"
    ]


def test_what_fits_is_placed_and_the_rest_waits() -> None:
    rounds = start(node("a", memory=2 * GIB), node("b", memory=GIB))
    web = service("web", memory=GIB)
    rounds.put(web, *tasks_of(web, 5))
    assert rounds.per_node(web) == {"a": 2, "b": 1}
    assert waiting(rounds, web) == ["no suitable node (2 nodes: 2 insufficient memory)"] * 2
    assert [t.slot for t in rounds.tasks(web) if not t.node_id] == [4, 5]


@pytest.mark.parametrize("how", ["ended", "deleted"])
def test_resources_that_become_free_wake_who_waits(how: str) -> None:
    rounds = start(node("a", memory=GIB))
    web, other = service("web", memory=GIB), service("other", memory=GIB)
    [held] = running(other, "a", 1)
    rounds.put(web, other, held)
    rounds.put(*tasks_of(web, 1))
    assert rounds.per_node(web) == {}
    rounds.set_state(held, state=TaskState.RUNNING, desired=TaskState.SHUTDOWN)
    assert rounds.per_node(web) == {}
    if how == "ended":
        rounds.set_state(held, state=TaskState.SHUTDOWN)
    else:
        rounds.delete(held)
    assert rounds.per_node(web) == {"a": 1}


def test_max_replicas_wakes_when_a_task_is_no_longer_wanted() -> None:
    rounds = start(node("a"))
    web = service("web", max_replicas=1)
    [first] = running(web, "a", 1)
    rounds.put(web, first, *tasks_of(web, 1))
    assert waiting(rounds, web) == ["no suitable node (1 node: 1 at max_replicas_per_node (1))"]
    rounds.set_state(first, state=TaskState.RUNNING, desired=TaskState.SHUTDOWN)
    assert rounds.per_node(web) == {"a": 2}


def test_max_replicas() -> None:
    rounds = start(node("a"), node("b"), node("c"))
    web = service("web", max_replicas=2)
    rounds.put(web, *tasks_of(web, 7))
    assert rounds.per_node(web) == {"a": 2, "b": 2, "c": 2}
    assert waiting(rounds, web) == ["no suitable node (3 nodes: 3 at max_replicas_per_node (2))"]


def test_host_ports() -> None:
    rounds = start(node("a"), node("b"))
    web, other = service("web", ports=[HTTP]), service("other", ports=[HTTP])
    rounds.put(web, *tasks_of(web, 1))
    rounds.put(other, *tasks_of(other, 2))
    assert sorted(rounds.per_node().values()) == [1, 1]
    assert waiting(rounds, other) == ["no suitable node (2 nodes: 2 host port 80/tcp in use)"]
    [task] = rounds.tasks(web)
    rounds.set_state(task, state=TaskState.COMPLETE)
    assert rounds.per_node(other) == {"a": 1, "b": 1}


def test_labels_that_come_to_match_wake_who_waits() -> None:
    rounds = start(node("a"), node("b"))
    web = service("web", constraints=["node.labels.disk==ssd"])
    rounds.put(web, *tasks_of(web, 1))
    assert rounds.per_node(web) == {}
    rounds.put(node("b", labels={"disk": "ssd"}))
    assert rounds.per_node(web) == {"b": 1}


def test_a_reason_is_written_again_only_when_it_stood_for_a_while() -> None:
    rounds = start(node("a", memory=GIB))
    web = service("web", memory=2 * GIB)
    rounds.put(web, *tasks_of(web, 1))
    assert waiting(rounds, web) == ["no suitable node (1 node: 1 insufficient memory)"]
    rounds.put(node("b", memory=GIB))
    assert waiting(rounds, web) == ["no suitable node (1 node: 1 insufficient memory)"]
    rounds.advance(REASON_REFRESH)
    assert waiting(rounds, web) == ["no suitable node (2 nodes: 2 insufficient memory)"]
    assert not rounds.wake


def test_nothing_is_planned_again() -> None:
    scheduler = Scheduler()
    rounds = Rounds(scheduler)
    web = service("web", memory=GIB)
    rounds.put(node("a", memory=GIB), web, *tasks_of(web, 3))
    keys = list(scheduler.everything(rounds.view))
    assert keys == [("service", "web")]
    plan = scheduler.plan(rounds.view, keys, rounds.now)
    assert (plan.puts, plan.deletes) == ([], [])


def test_a_new_leader_goes_on_where_the_old_one_stopped() -> None:
    rounds = Rounds()
    web = service("web", memory=GIB)
    rounds.put(node("a", memory=2 * GIB), web, *running(web, "a", 1), *tasks_of(web, 2))
    scheduler = Scheduler()
    plan = scheduler.plan(rounds.view, list(scheduler.everything(rounds.view)), NOW)
    assert [(task.node_id, task.status.state) for task in plan.puts if isinstance(task, Task)] == [
        ("a", TaskState.ASSIGNED),
        ("", TaskState.PENDING),
    ]


@pytest.mark.parametrize(
    ("state", "desired"),
    [
        (TaskState.NEW, TaskState.RUNNING),
        (TaskState.PENDING, TaskState.SHUTDOWN),
        (TaskState.PENDING, TaskState.REMOVE),
        (TaskState.FAILED, TaskState.RUNNING),
    ],
)
def test_tasks_that_are_not_the_schedulers(state: TaskState, desired: TaskState) -> None:
    rounds = start(node("a"))
    web = service("web")
    rounds.put(web, *tasks_of(web, 1, state=state, desired=desired))
    assert rounds.per_node(web) == {}


@pytest.mark.parametrize("desired", [TaskState.READY, TaskState.RUNNING, TaskState.COMPLETE])
def test_tasks_that_are(desired: TaskState) -> None:
    rounds = start(node("a"))
    web = service("web")
    rounds.put(web, *tasks_of(web, 1, desired=desired))
    assert rounds.per_node(web) == {"a": 1}


def test_a_task_without_a_service_is_placed() -> None:
    rounds = start(node("a"), node("b", availability="drain"))
    [task] = tasks_of(service("x"), 1)
    rounds.put(replace(task, service_id="", slot=0))
    assert rounds.get(task).node_id == "a"


# --------------------------------------------------------------------------------------------- preassigned


def test_preassigned_tasks_are_confirmed_on_their_node() -> None:
    rounds = start(node("a"), node("b"))
    every = service("every")
    rounds.put(every, *tasks_of(every, 1, node_id="b"))
    [task] = rounds.tasks(every)
    assert (task.node_id, task.status.state, task.status.message) == (
        "b",
        TaskState.ASSIGNED,
        CONFIRMED_MESSAGE,
    )


def test_preassigned_tasks_wait_for_their_node_only() -> None:
    rounds = start(node("a", memory=GIB), node("b", memory=4 * GIB))
    every, other = service("every", memory=GIB), service("other", memory=GIB)
    [held] = running(other, "a", 1)
    rounds.put(every, other, held)
    rounds.put(*tasks_of(every, 1, node_id="a"))
    assert waiting(rounds, every) == ["no suitable node (1 node: 1 insufficient memory)"]
    rounds.set_state(held, state=TaskState.COMPLETE)
    assert [t.status.state for t in rounds.tasks(every)] == [TaskState.ASSIGNED]


def test_preassigned_tasks_come_before_others() -> None:
    rounds = start(node("a", memory=GIB), node("b", memory=GIB))
    every, web = service("zz-every", memory=GIB), service("aa-web", memory=GIB)
    rounds.put(every, web, *tasks_of(web, 1), *tasks_of(every, 1, node_id="a"))
    assert rounds.per_node(every) == {"a": 1}
    assert rounds.per_node(web) == {"b": 1}


def test_a_preassigned_task_whose_node_is_gone() -> None:
    rounds = start(node("b"))
    every = service("every")
    rounds.put(every, *tasks_of(every, 1, node_id="a"))
    assert waiting(rounds, every) == ["no suitable node (1 node: 1 gone)"]


# ---------------------------------------------------------------------------------------------- resources


def test_generic_resources_are_claimed_once() -> None:
    names = [GenericResource(kind="gpu", string_value=name) for name in ("gpu0", "gpu1", "gpu2")]
    rounds = start(node("a", generic=names), node("b", generic=[GenericResource(kind="gpu", value=2)]))
    ai = service("ai", generic=[GenericResource(kind="gpu", value=1)])
    rounds.put(ai, *tasks_of(ai, 6))
    claimed = [task.assigned_generic for task in rounds.tasks(ai) if task.node_id == "a"]
    assert sorted(resource.string_value for [resource] in claimed) == ["gpu0", "gpu1", "gpu2"]
    counted = [task.assigned_generic for task in rounds.tasks(ai) if task.node_id == "b"]
    assert counted == [(GenericResource(kind="gpu", value=1),)] * 2
    assert waiting(rounds, ai) == ["no suitable node (2 nodes: 2 insufficient gpu)"]
    [freed] = [
        t for t in rounds.tasks(ai) if t.assigned_generic and t.assigned_generic[0].string_value == "gpu1"
    ]
    rounds.set_state(freed, state=TaskState.FAILED)
    [last] = [t for t in rounds.tasks(ai) if t.slot == 6]
    assert (last.node_id, last.assigned_generic[0].string_value) == ("a", "gpu1")


def test_a_rolled_back_round_leaves_no_trace() -> None:
    scheduler = Scheduler()
    rounds = Rounds(scheduler)
    web = service("web", memory=GIB)
    rounds.put(node("a", memory=GIB), web)
    for task in tasks_of(web, 1):
        rounds.stage(task)
    rounds.sweep()
    assert rounds.per_node(web) == {"a": 1}
    rounds.rollback()
    rounds.sweep()
    other = service("other", memory=GIB)
    rounds.put(other, *tasks_of(other, 1))
    assert rounds.per_node() == {"a": 1}


def test_a_rollback_after_a_task_had_ended_takes_the_resources_back() -> None:
    rounds = start(node("a", memory=GIB))
    web, other = service("web", memory=GIB), service("other", memory=GIB)
    [held] = running(other, "a", 1)
    rounds.put(web, other, held)
    rounds.put(*tasks_of(web, 1))
    rounds.stage(replace(held, status=replace(held.status, state=TaskState.FAILED)))
    rounds.sweep()
    assert rounds.per_node(web) == {"a": 1}
    rounds.rollback()
    rounds.sweep()
    assert rounds.per_node(web) == {}
    assert rounds.per_node(other) == {"a": 1}


# ------------------------------------------------------------------------------------------------- volumes


MOUNTED = ContainerSpec(mounts=(Mount(source="data", target="/data"),))


def stateful(move_after: float | None = None) -> Service:
    db = service("db", container=MOUNTED)
    return replace(db, spec=replace(db.spec, volumes_per_slot=True, volumes_move_after=move_after))


def slot_tasks(db: Service, slots: int, **fields: object) -> list[Task]:
    tasks = tasks_of(db, slots, **fields)  # type: ignore[arg-type]  # fields of tasks_of
    return [replace(t, slot_volumes=True, meta=Meta(created_at=NOW)) for t in tasks]


def test_a_slot_with_volumes_waits_for_its_node_and_says_so() -> None:
    rounds = start(node("a", hostname="db1"), node("b"))
    db = stateful()
    rounds.put(db, *slot_tasks(db, 1))
    [first] = rounds.tasks(db)
    volume = rounds.view.by_name(Volume, "data.1")
    assert volume is not None
    assert volume.node_id == first.node_id == "a"
    assert volume.spec.labels[SLOT_OF_LABEL] == "data"
    rounds.delete(first)
    rounds.put(node("a", hostname="db1", state=NodeState.DOWN))
    rounds.put(*slot_tasks(db, 1, ids=["second"]))
    assert waiting(rounds, db) == ["waiting for node db1, which holds the volume data.1: down"]
    rounds.put(node("a", hostname="db1"))
    assert rounds.per_node(db) == {"a": 1}


def test_slots_get_volumes_of_their_own_like_the_one_that_the_service_names() -> None:
    driver = Driver(name="local", options={"type": "tmpfs"})
    rounds = start(node("a"))
    rounds.put(Volume(id="v", spec=VolumeSpec(name="data", labels={"a": "b"}, driver=driver)))
    db = stateful()
    rounds.put(db, *slot_tasks(db, 2))
    for slot in (1, 2):
        volume = rounds.view.by_name(Volume, f"data.{slot}")
        assert volume is not None
        assert volume.node_id == "a"
        assert volume.spec.driver == driver
        assert volume.spec.labels == {"a": "b", SLOT_OF_LABEL: "data"}
    shared = rounds.view.by_name(Volume, "data")
    assert shared is not None
    assert shared.node_id == ""


def test_a_slot_leaves_its_volumes_once_its_policy_says_so() -> None:
    rounds = start(node("a", state=NodeState.DOWN), node("b"))
    db = stateful(move_after=600.0)
    rounds.put(Volume(id="v", spec=VolumeSpec(name="data.1"), node_id="a"), db, *slot_tasks(db, 1))
    assert waiting(rounds, db) == ["waiting for node host-a, which holds the volume data.1: down"]
    rounds.advance(599.0)
    assert rounds.per_node(db) == {}
    rounds.advance(1.0)
    assert rounds.per_node(db) == {"b": 1}
    volume = rounds.view.get(Volume, "v")
    assert volume is not None
    assert volume.node_id == "b"


def test_a_bound_volume_decides_the_node() -> None:
    rounds = start(node("a"), node("b"))
    rounds.put(Volume(id="v", spec=VolumeSpec(name="data"), node_id="b"))
    db = service("db", container=MOUNTED)
    rounds.put(db, *tasks_of(db, 3))
    assert rounds.per_node(db) == {"b": 3}


def test_a_volume_that_moved_wakes_who_waits() -> None:
    rounds = start(node("a"), node("b", availability="drain", hostname="old"))
    rounds.put(Volume(id="v", spec=VolumeSpec(name="data"), node_id="b"))
    db = service("db", container=ContainerSpec(mounts=(Mount(source="data", target="/data"),)))
    rounds.put(db, *tasks_of(db, 1))
    assert waiting(rounds, db) == ["waiting for node old, which holds the volume data: drained"]
    rounds.put(Volume(id="v", spec=VolumeSpec(name="data"), node_id="a"))
    assert rounds.per_node(db) == {"a": 1}
