"""The filters of `ps` over a container."""

from __future__ import annotations

import pytest

from pyswarm.cli import container_filters
from pyswarm.errors import Invalid
from pyswarm.objects import NetworkAttachment, Task, TaskState, TaskStatus
from pyswarm.specs import ContainerSpec, Mount, TaskSpec

DIGEST = "sha256:" + "0" * 64
SPEC = ContainerSpec(
    image=f"reg:5000/web:1@{DIGEST}",
    labels={"a": "1"},
    mounts=(Mount(type="volume", source="data", target="/d"),),
)
TASK = Task(
    id="t1",
    service_name="shop_web",
    slot=1,
    spec=TaskSpec(container=SPEC),
    service_labels={"b": "2"},
    networks=(NetworkAttachment(network_id="net1"),),
    status=TaskStatus(state=TaskState.FAILED, exit_code=3, started_at=1.0),
)


@pytest.mark.parametrize(
    ("filters", "passes"),
    [
        ([], True),
        ([("status", "exited")], True),
        ([("status", "running"), ("status", "exited")], True),
        ([("status", "running")], False),
        ([("exited", "3")], True),
        ([("exited", "0")], False),
        ([("health", "none")], True),
        ([("health", "healthy")], False),
        ([("ancestor", "reg:5000/web:1")], True),
        ([("ancestor", "reg:5000/web")], False),
        ([("ancestor", DIGEST)], True),
        ([("network", "front")], True),
        ([("network", "net1")], True),
        ([("network", "back")], False),
        ([("volume", "data")], True),
        ([("volume", "/d")], True),
        ([("volume", "x")], False),
        ([("name", "web")], True),
        ([("name", "api")], False),
        ([("label", "a"), ("label", "b=2")], True),
        ([("label", "a"), ("label", "c")], False),
        ([("label", "a"), ("status", "running")], False),
    ],
)
def test_filters(filters: list[tuple[str, str]], passes: bool) -> None:
    container_filters.check(filters)
    assert container_filters.matches(TASK, filters, {"net1": "front"}) is passes


def test_unknown_ones_are_refused() -> None:
    with pytest.raises(Invalid, match="invalid filter 'colour': one of ancestor"):
        container_filters.check([("colour", "red")])
    for pair in (("status", "asleep"), ("health", "poor")):
        with pytest.raises(Invalid, match=f"invalid filter '{pair[0]}={pair[1]}'"):
            container_filters.check([pair])
