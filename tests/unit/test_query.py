"""Finding and filtering objects as docker's commands do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from manager import query
from manager.state import State, View
from pyswarm.api import Filter
from pyswarm.clock import SeededIds
from pyswarm.errors import Conflict, Invalid, NotFound
from pyswarm.objects import (
    Config,
    Kind,
    Network,
    Node,
    NodeDescription,
    NodeState,
    NodeStatus,
    Service,
    Task,
    TaskState,
)
from pyswarm.specs import (
    ConfigSpec,
    ContainerSpec,
    FileReference,
    NetworkSpec,
    NodeSpec,
    ServiceSpec,
    TaskSpec,
)


def world() -> View:
    state = State(SeededIds())
    node = Node(
        id="node1",
        spec=NodeSpec(labels={"zone": "a"}),
        description=NodeDescription(hostname="host1", engine_labels={"disk": "ssd"}),
        status=NodeStatus(state=NodeState.READY),
    )
    used = TaskSpec(
        container=ContainerSpec(image="i", configs=(FileReference(source_id="conf1", target="c"),))
    )
    old = Task(id="task1", service_id="serv1", service_name="web", slot=1, node_id="node1")
    ended = replace(old, id="task2", desired_state=TaskState.SHUTDOWN)
    state.load(
        [
            node,
            Node(id="node2", spec=NodeSpec(name="named", role="manager"), role="manager"),
            Node(id="node3"),
            Service(id="serv1", spec=ServiceSpec(name="web", labels={"tier": "front"}, task=used)),
            Service(id="serv2", spec=ServiceSpec(name="webby")),
            replace(old, desired_state=TaskState.RUNNING),
            ended,
            Network(id="net1", spec=NetworkSpec(name="bridge")),
            Network(id="net2", spec=NetworkSpec(name="mine")),
            Config(id="conf1", spec=ConfigSpec(name="conf")),
        ],
        1,
    )
    return state.view


@pytest.mark.parametrize(
    ("kind", "ref", "id"),
    [
        ("service", "serv1", "serv1"),
        ("service", "web", "serv1"),
        ("node", "host1", "node1"),
        ("node", "named", "node2"),
        ("config", "con", "conf1"),
        ("task", "web.1", "task1"),
        ("task", "task2", "task2"),
    ],
)
def test_found_by_id_name_and_beginning(kind: Kind, ref: str, id: str) -> None:
    assert query.find(world(), kind, ref).id == id


@pytest.mark.parametrize(
    ("kind", "ref", "error"),
    [
        ("service", "nope", NotFound),
        ("service", "serv", Conflict),
        ("node", "", Invalid),
        ("service", "", Invalid),
    ],
)
def test_not_found_or_not_one(kind: Kind, ref: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        query.find(world(), kind, ref)


def ids(kind: Kind, *filters: tuple[str, str]) -> list[str]:
    view = world()
    return [o.id for o in query.select(view, kind, [Filter(key=k, value=v) for k, v in filters])]


@pytest.mark.parametrize(
    ("kind", "filters", "found"),
    [
        ("service", [("name", "web")], ["serv1", "serv2"]),
        ("service", [("name", "webb")], ["serv2"]),
        ("service", [("label", "tier")], ["serv1"]),
        ("service", [("label", "tier=front")], ["serv1"]),
        ("service", [("label", "tier=back")], []),
        ("service", [("label", "tier"), ("label", "other")], []),
        ("service", [("mode", "replicated")], ["serv1", "serv2"]),
        ("service", [("id", "serv1"), ("id", "serv2")], ["serv1", "serv2"]),
        ("service", [("id", "serv1"), ("name", "webby")], []),
        ("node", [("role", "manager")], ["node2"]),
        ("node", [("node.label", "zone=a")], ["node1"]),
        ("node", [("label", "disk=ssd")], ["node1"]),
        ("node", [("state", "ready")], ["node1"]),
        ("task", [("desired-state", "running")], ["task1"]),
        ("task", [("desired-state", "shutdown")], ["task2"]),
        ("task", [("desired-state", "complete")], []),
        ("task", [("desired-state", "running"), ("desired-state", "Shutdown")], ["task1", "task2"]),
        ("task", [("node", "host1"), ("service", "web")], ["task1", "task2"]),
        ("task", [("node", "other")], []),
        ("network", [("type", "custom")], ["net2"]),
        ("network", [("type", "builtin")], ["net1"]),
        ("network", [("dangling", "true")], ["net1", "net2"]),
        ("config", [("name", "on")], ["conf1"]),
    ],
)
def test_filters(kind: Kind, filters: list[tuple[str, str]], found: list[str]) -> None:
    assert ids(kind, *filters) == found


@pytest.mark.parametrize(
    ("kind", "item"),
    [
        ("service", ("node", "x")),
        ("node", ("state", "asleep")),
        ("node", ("role", "boss")),
        ("service", ("mode", "loud")),
        ("task", ("desired-state", "lost")),
        ("volume", ("colour", "red")),
        ("cluster", ("id", "x")),
    ],
)
def test_a_filter_that_does_not_exist_is_refused_even_where_there_is_nothing(
    kind: Kind, item: tuple[str, str]
) -> None:
    with pytest.raises(Invalid):
        ids(kind, item)


def test_in_use() -> None:
    view = world()
    config, network = view.get(Config, "conf1"), view.get(Network, "net2")
    assert config is not None and network is not None
    assert query.in_use(config, view)
    assert not query.in_use(network, view)
    with pytest.raises(Invalid, match="unknown kind"):
        query.kind_named("pod")
