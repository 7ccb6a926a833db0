"""What replaces a task and what does not; which versions of configs go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from manager.orchestrator.configs import VersionCollector
from manager.orchestrator.tasks import Matcher, ended_at, ran_for, running_since
from manager.state import State
from pyswarm.clock import SeededIds
from pyswarm.objects import Config, Meta, Node, Object, Service, Task, TaskState, TaskStatus, kind_of
from pyswarm.specs import (
    STACK_LABEL,
    ConfigSpec,
    ContainerSpec,
    Driver,
    EndpointSpec,
    FileReference,
    NodeSpec,
    Placement,
    PortConfig,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)

BASE = ServiceSpec(
    name="web",
    task=TaskSpec(
        container=ContainerSpec(image="a:1"), placement=Placement(constraints=("node.labels.a==1",))
    ),
    endpoint=EndpointSpec(ports=(PortConfig(target_port=80, published_port=0, publish_mode="host"),)),
)


def state_of(*objects: Object) -> State:
    state = State(SeededIds(1))
    state.load(objects, 1)
    return state


def task_of(spec: ServiceSpec, **changes: object) -> Task:
    task = Task(
        id="t", service_id="s", slot=1, node_id="n", spec=spec.task, spec_version=1, endpoint=spec.endpoint
    )
    return replace(task, **changes)  # type: ignore[arg-type]  # fields by name


def with_task(**changes: object) -> ServiceSpec:
    return replace(BASE, task=replace(BASE.task, **changes))  # type: ignore[arg-type]  # fields by name


@pytest.mark.parametrize(
    ("spec", "clean"),
    [
        (BASE, True),
        (replace(BASE, labels={"a": "b"}), True),
        (replace(BASE, mode=ServiceMode(replicas=9)), True),
        (with_task(container=ContainerSpec(image="a:2")), False),
        (with_task(force_update=1), False),
        (with_task(log_driver=Driver(name="json-file")), False),
        (with_task(restart=RestartPolicy(delay=9.0)), True),
        (with_task(registry_auth="secret"), True),
        (with_task(placement=Placement(constraints=("node.labels.a==1", "node.id==n"))), True),
        (with_task(placement=Placement(constraints=("node.labels.a==2",))), False),
        (with_task(placement=Placement(max_replicas=1)), True),
        (replace(BASE, endpoint=EndpointSpec()), False),
        (
            replace(
                BASE,
                endpoint=EndpointSpec(
                    mode="dnsrr", ports=(*BASE.endpoint.ports, PortConfig(target_port=81, published_port=81))
                ),
            ),
            True,
        ),
        (
            replace(BASE, endpoint=EndpointSpec(ports=(PortConfig(target_port=81, publish_mode="host"),))),
            False,
        ),
    ],
)
def test_clean(spec: ServiceSpec, clean: bool) -> None:
    state = state_of(Node(id="n", spec=NodeSpec(labels={"a": "1"})))
    service = Service(id="s", spec=spec, spec_version=2)
    assert Matcher(state.view, service).clean(task_of(BASE)) is clean


def test_a_port_that_was_chosen_is_still_the_one_asked_for() -> None:
    given = PortConfig(target_port=80, published_port=49999, publish_mode="host")
    task = task_of(BASE, endpoint=EndpointSpec(ports=(given,)))
    assert Matcher(state_of().view, Service(id="s", spec=BASE, spec_version=2)).clean(task)


def test_the_clusters_log_driver_is_no_difference() -> None:
    task = replace(task_of(BASE), spec=replace(BASE.task, log_driver=Driver(name="journald")))
    assert Matcher(state_of().view, Service(id="s", spec=BASE, spec_version=2)).clean(task)


def test_tasks_that_ran_before_a_dependency_changed_are_stale() -> None:
    matcher = Matcher(state_of().view, Service(id="s", spec=BASE), stale_before=100.0)
    running = TaskStatus(state=TaskState.RUNNING, timestamp=99.0, running_since=99.0)
    assert not matcher.clean(task_of(BASE, status=running))
    assert matcher.clean(task_of(BASE, status=replace(running, running_since=100.0)))
    assert matcher.clean(task_of(BASE))


# ----------------------------------------------------------------------------------------- configs


def config(id: str, name: str, at: float, stack: str = "shop", of: str = "") -> Config:
    labels = {STACK_LABEL: stack} if stack else {}
    if of:
        labels["pyswarm.version-of"] = of
    return Config(id=id, meta=Meta(created_at=at), spec=ConfigSpec(name=name, labels=labels))


def using(id: str) -> TaskSpec:
    return TaskSpec(container=ContainerSpec(configs=(FileReference(source_id=id),)))


OLD, NEW = config("old", "conf", 1.0), config("new", "conf-2", 2.0, of="conf")


def collected(*objects: Object) -> list[str]:
    collector = VersionCollector()
    state = state_of(*objects)
    return [
        obj.id for obj in collector.plan(state.view, sorted(collector.everything(state.view)), 9.0).deletes
    ]


@pytest.mark.parametrize(
    ("objects", "gone"),
    [
        ((OLD, NEW), ["old"]),
        ((OLD,), []),
        ((OLD, NEW, Service(id="s", spec=ServiceSpec(name="s", task=using("old")))), []),
        ((OLD, NEW, Service(id="s", previous_spec=ServiceSpec(name="s", task=using("old")))), []),
        ((OLD, NEW, Task(id="t", service_id="s", slot=1, spec=using("old"))), []),
        (
            (OLD, NEW, Task(id="t", slot=1, spec=using("old"), status=TaskStatus(state=TaskState.FAILED))),
            ["old"],
        ),
        ((config("old", "conf", 1.0, stack=""), NEW), []),
        ((config("old", "conf", 1.0, stack="other"), NEW), []),
    ],
)
def test_old_versions(objects: tuple[Object, ...], gone: list[str]) -> None:
    assert collected(*objects) == gone


def test_an_old_version_is_asked_about_when_its_last_user_goes() -> None:
    task = Task(id="t", service_id="s", slot=1, spec=using("old"))
    state = state_of(OLD, NEW, task)
    ended = replace(task, status=TaskStatus(state=TaskState.SHUTDOWN))
    changed = state.stage(kind_of(ended), ended.id, ended)
    assert changed is not None
    assert list(VersionCollector().keys(changed, state.view)) == [("config", "old")]


# ----------------------------------------------------------------------------------------- clocks


@pytest.mark.parametrize(
    ("skew", "since", "ended"),
    [(0.0, 110.0, 150.0), (3600.0, 160.0, 160.0), (-3600.0, 100.0, 100.0)],
)
def test_a_nodes_wrong_clock_moves_nothing_into_the_future(skew: float, since: float, ended: float) -> None:
    status = TaskStatus(
        state=TaskState.FAILED,
        timestamp=150.0 + skew,
        running_since=110.0 + skew,
        finished_at=150.0 + skew,
    )
    task = Task(id="t", meta=Meta(created_at=100.0, updated_at=160.0), status=status)
    assert (running_since(task), ended_at(task)) == (since, ended)
    assert ran_for(task) == 40.0
