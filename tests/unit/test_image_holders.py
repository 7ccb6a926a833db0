"""Which nodes are asked for an image, and which node may ask."""

from __future__ import annotations

from dataclasses import replace

import pytest

from manager.images import MOST_ASKED, holders
from node_agent.images.transfer import config_of, members_of, proven
from pyswarm.errors import Invalid, PermissionDenied
from pyswarm.objects import ManagerStatus, Node, NodeState, TaskState
from pyswarm.specs import ContainerSpec, Mount
from tests.unit.rounds import Rounds, node, service, tasks_of

IMAGE = f"app:1@sha256:{'a' * 64}"
DATA = f"data:1@sha256:{'b' * 64}"
WEB = service(
    "web", container=ContainerSpec(image=IMAGE, mounts=(Mount(type="image", source=DATA, target="/d"),))
)
OTHER = service("other", container=ContainerSpec(image="else"))


def manager(id: str, *, leader: bool = False, state: NodeState = NodeState.READY) -> Node:
    return replace(node(id, role="manager", state=state), manager_status=ManagerStatus(leader=leader))


def cluster(*nodes: Node, **on: TaskState) -> Rounds:
    """Node `asker` has a task of WEB that is being prepared; each of `on` has one in the state given."""
    rounds = Rounds()
    rounds.put(*nodes, node("asker"), node("idle"), WEB, OTHER)
    rounds.put(*tasks_of(WEB, 1, state=TaskState.PREPARING, node_id="asker"))
    for slot, (name, state) in enumerate(on.items(), 2):
        rounds.put(node(name), *tasks_of(WEB, 1, first=slot, state=state, node_id=name))
    return rounds


def test_the_leader_first_then_who_runs_it_then_other_managers() -> None:
    rounds = cluster(
        manager("m1"),
        manager("m2", leader=True),
        b=TaskState.RUNNING,
        a=TaskState.READY,
        c=TaskState.PREPARING,
        d=TaskState.FAILED,
    )
    assert holders(rounds.view, IMAGE, "asker") == ["m2", "a", "b", "m1"]
    assert holders(rounds.view, DATA, "asker") == ["m2", "a", "b", "m1"]


def test_nodes_that_are_down_are_not_asked() -> None:
    rounds = cluster(manager("m1", leader=True, state=NodeState.DOWN), a=TaskState.RUNNING)
    rounds.put(node("a", state=NodeState.DOWN))
    assert holders(rounds.view, IMAGE, "asker") == []


def test_only_for_a_task_of_the_node() -> None:
    rounds = cluster(manager("m1", leader=True))
    for image, who in ((IMAGE, "idle"), ("secret@sha256:1", "asker"), (IMAGE, "stranger")):
        with pytest.raises(PermissionDenied, match="needs the image"):
            holders(rounds.view, image, who)


def test_not_more_than_some_are_asked() -> None:
    rounds = cluster(manager("m1", leader=True), **{f"n{i:02}": TaskState.RUNNING for i in range(40)})
    asked = holders(rounds.view, IMAGE, "asker")
    assert len(asked) == MOST_ASKED
    assert asked[0] == "m1"


CHILD = b'{"schemaVersion": 2, "config": {"digest": "sha256:c0ffee"}}'
INDEX = b'{"schemaVersion": 2, "manifests": [{"digest": "sha256:absent"}, {"digest": "sha256:child"}]}'
MANIFESTS = {"sha256:child": CHILD, "sha256:index": INDEX}


def test_manifests_prove_an_image() -> None:
    assert config_of(CHILD) == "c0ffee"
    assert config_of(INDEX) == config_of(b"no json") == config_of(b"[]") == ""
    assert members_of(INDEX) == ["sha256:absent", "sha256:child"]
    assert members_of(CHILD) == []
    assert proven("sha256:child", "c0ffee", MANIFESTS) == {"sha256:child": CHILD}
    assert proven("sha256:index", "c0ffee", MANIFESTS) == MANIFESTS


@pytest.mark.parametrize(
    ("digest", "image_id", "manifests"),
    [
        ("sha256:child", "another", MANIFESTS),
        ("sha256:index", "another", MANIFESTS),
        ("sha256:unknown", "c0ffee", MANIFESTS),
        ("sha256:index", "c0ffee", {"sha256:index": INDEX}),
        ("sha256:child", "c0ffee", {}),
        ("sha256:child", "", {"sha256:child": b"{}"}),
    ],
)
def test_manifests_that_prove_nothing(digest: str, image_id: str, manifests: dict[str, bytes]) -> None:
    with pytest.raises(Invalid, match="is not the image"):
        proven(digest, image_id, manifests)
