"""Each filter of the scheduler: what it lets through, and the reason when it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from manager.scheduler.filters import (
    claim_generic,
    explain,
    free_generic,
    reason_against,
    request_of,
)
from manager.scheduler.usage import Usage
from pyswarm.objects import Node, NodeState, Service, Task, TaskState, Volume
from pyswarm.specs import (
    ContainerSpec,
    Driver,
    GenericResource,
    Mount,
    PortConfig,
    VolumeSpec,
)
from tests.unit.rounds import CPU, GIB, Rounds, node, service, tasks_of

HTTP = PortConfig(target_port=80, published_port=80, publish_mode="host")


@dataclass
class Case:
    name: str
    node: Node
    service: Service
    reason: str
    on_node: list[Task] = field(default_factory=list[Task])
    """Tasks that are on the node already."""
    change: Callable[[Task], Task] = lambda task: task


def placed(owner: Service, count: int, node_id: str = "n", **fields: object) -> list[Task]:
    tasks = tasks_of(owner, count, first=100, state=TaskState.RUNNING, node_id=node_id)
    return [replace(task, **fields) for task in tasks]  # type: ignore[arg-type]  # fields of Task


OTHER = service("other", cpus=1, memory=GIB, ports=[HTTP])
GPU = GenericResource(kind="gpu", value=1)
MOUNTED = ContainerSpec(mounts=(Mount(source="data", target="/data"),))
CASES = [
    Case("ready", node("n"), service("s"), ""),
    Case("down", node("n", state=NodeState.DOWN), service("s"), "down"),
    Case("unknown", node("n", state=NodeState.UNKNOWN), service("s"), "not ready"),
    Case("disconnected", node("n", state=NodeState.DISCONNECTED), service("s"), "disconnected"),
    Case("paused", node("n", availability="pause"), service("s"), "paused"),
    Case("drained", node("n", availability="drain"), service("s"), "drained"),
    Case("enough", node("n", cpus=2, memory=2 * GIB), service("s", cpus=2, memory=2 * GIB), ""),
    Case("cpu", node("n", cpus=1), service("s", cpus=1.5), "insufficient CPU"),
    Case("memory", node("n", memory=GIB), service("s", memory=2 * GIB), "insufficient memory"),
    Case("cpu taken", node("n", cpus=3), service("s", cpus=2), "insufficient CPU", placed(OTHER, 2)),
    Case(
        "memory taken", node("n", memory=GIB), service("s", memory=1), "insufficient memory", placed(OTHER, 1)
    ),
    Case(
        "memory of an ended task is free",
        node("n", memory=GIB),
        service("s", memory=GIB),
        "",
        [replace(t, status=replace(t.status, state=TaskState.FAILED)) for t in placed(OTHER, 1)],
    ),
    Case(
        "memory of a task that shuts down is not free yet",
        node("n", memory=GIB),
        service("s", memory=GIB),
        "insufficient memory",
        placed(OTHER, 1, desired_state=TaskState.SHUTDOWN),
    ),
    Case("no gpu", node("n"), service("s", generic=[GPU]), "insufficient gpu"),
    Case("gpu", node("n", generic=[GenericResource(kind="gpu", value=1)]), service("s", generic=[GPU]), ""),
    Case(
        "named gpu taken",
        node("n", generic=[GenericResource(kind="gpu", string_value="a")]),
        service("s", generic=[GPU]),
        "insufficient gpu",
        placed(OTHER, 1, assigned_generic=(GenericResource(kind="gpu", string_value="a"),)),
    ),
    Case(
        "constraint",
        node("n", labels={"disk": "hdd"}),
        service("s", constraints=["node.labels.disk==ssd"]),
        "not matching node.labels.disk==ssd",
    ),
    Case(
        "a constraint that cannot be parsed",
        node("n"),
        service("s", constraints=["node.rolle==x"]),
        "not matching: constraint 'node.rolle==x': unknown key 'node.rolle' (did you mean node.role? the keys "
        "are node.id, node.hostname, node.ip, node.role, node.platform.os, node.platform.arch, "
        "node.labels.NAME and engine.labels.NAME)",
    ),
    Case("platform", node("n"), service("s", platforms=[("linux", "amd64")]), ""),
    Case("any os", node("n"), service("s", platforms=[("", "x86_64")]), ""),
    Case("one of two", node("n"), service("s", platforms=[("windows", "amd64"), ("linux", "")]), ""),
    Case(
        "platform of none",
        node("n", platform=("linux", "aarch64")),
        service("s", platforms=[("linux", "amd64"), ("windows", "amd64")]),
        "not of platform linux/amd64 or windows/amd64",
    ),
    Case("max replicas free", node("n"), service("s", max_replicas=3), "", placed(service("s"), 2)),
    Case(
        "max replicas",
        node("n"),
        service("s", max_replicas=2),
        "at max_replicas_per_node (2)",
        placed(service("s"), 2),
    ),
    Case(
        "a task that shuts down does not count for max replicas",
        node("n"),
        service("s", max_replicas=1),
        "",
        placed(service("s"), 1, desired_state=TaskState.SHUTDOWN),
    ),
    Case("port free", node("n"), service("s", ports=[HTTP]), ""),
    Case("port taken", node("n"), service("s", ports=[HTTP]), "host port 80/tcp in use", placed(OTHER, 1)),
    Case(
        "port of a task that shuts down",
        node("n"),
        service("s", ports=[HTTP]),
        "host port 80/tcp in use",
        placed(OTHER, 1, desired_state=TaskState.SHUTDOWN),
    ),
    Case(
        "udp beside tcp", node("n"), service("s", ports=[replace(HTTP, protocol="udp")]), "", placed(OTHER, 1)
    ),
    Case(
        "ingress ports are not the node's",
        node("n"),
        service("s", ports=[replace(HTTP, publish_mode="ingress")]),
        "",
        placed(OTHER, 1),
    ),
    Case(
        "a port without number is the agent's choice",
        node("n"),
        service("s", ports=[replace(HTTP, published_port=0)]),
        "",
        placed(OTHER, 1),
    ),
    Case(
        "one address of the node beside all of them",
        node("n"),
        service("s", ports=[replace(HTTP, host_ip="10.0.0.1")]),
        "host port 80/tcp in use",
        placed(OTHER, 1),
    ),
    Case(
        "two addresses of the node",
        node("n"),
        service("s", ports=[replace(HTTP, host_ip="10.0.0.1")]),
        "",
        placed(service("other", ports=[replace(HTTP, host_ip="10.0.0.2")]), 1),
    ),
    Case(
        "slot's volumes here",
        node("n"),
        service("s", container=MOUNTED),
        "",
        change=lambda task: replace(task, slot=2, slot_volumes=True),
    ),
    Case(
        "slot's volumes elsewhere",
        node("n"),
        service("s", container=MOUNTED),
        "not holding the volume data.3",
        change=lambda task: replace(task, slot=3, slot_volumes=True),
    ),
    Case(
        "bound volume elsewhere",
        node("n"),
        service("s", container=MOUNTED),
        "not holding the volume data",
    ),
    Case(
        "local volumes need no plugin",
        node("n", plugins=["Volume/x"]),
        service(
            "s",
            container=ContainerSpec(
                mounts=(Mount(source="v", target="/v", volume_driver=Driver(name="local")),)
            ),
        ),
        "",
    ),
    Case(
        "volume plugin",
        node("n", plugins=["Volume/local", "Log/json-file"]),
        service(
            "s",
            container=ContainerSpec(
                mounts=(Mount(source="v", target="/v", volume_driver=Driver(name="nfs")),)
            ),
        ),
        "missing plugin Volume/nfs",
    ),
    Case(
        "volume plugin with a tag",
        node("n", plugins=["Volume/nfs:latest"]),
        service(
            "s",
            container=ContainerSpec(
                mounts=(Mount(source="v", target="/v", volume_driver=Driver(name="nfs")),)
            ),
        ),
        "",
    ),
    Case(
        "log plugin",
        node("n", plugins=["Log/json-file"]),
        service("s"),
        "missing plugin Log/fluentd",
        change=lambda task: replace(task, spec=replace(task.spec, log_driver=Driver(name="fluentd"))),
    ),
    Case(
        "a node that lists no plugins is not judged by them",
        node("n"),
        service("s"),
        "",
        change=lambda task: replace(task, spec=replace(task.spec, log_driver=Driver(name="fluentd"))),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_filter(case: Case) -> None:
    rounds = Rounds()
    bound = {"data": "elsewhere", "data.2": "n", "data.3": "elsewhere"}
    volumes = [Volume(id=name, spec=VolumeSpec(name=name), node_id=id) for name, id in bound.items()]
    rounds.put(case.node, *case.on_node, *volumes)
    usage = Usage()
    usage.sync(rounds.view)
    [task] = tasks_of(case.service, 1)
    own = usage.service_counts("s").get("n", 0)
    request = request_of(case.change(task), rounds.view)
    assert reason_against(request, case.node, usage.load("n"), own) == case.reason


def test_claims_named_resources_in_the_nodes_order() -> None:
    offered = [GenericResource(kind="gpu", string_value=name) for name in ("c", "a", "b")]
    machine = node("n", generic=[*offered, GenericResource(kind="slots", value=5)])
    rounds = Rounds()
    rounds.put(
        machine, *placed(OTHER, 1, assigned_generic=(offered[1], GenericResource(kind="slots", value=2)))
    )
    usage = Usage()
    usage.sync(rounds.view)
    load = usage.load("n")
    assert free_generic(machine, load, "gpu") == 2
    assert free_generic(machine, load, "slots") == 3
    assert free_generic(machine, load, "fpga") == 0
    claimed = claim_generic(machine, load, (("gpu", 2), ("slots", 3)))
    assert claimed == (offered[0], offered[2], GenericResource(kind="slots", value=3))


def test_explains_by_count() -> None:
    assert explain({"insufficient memory": 2, "not matching node.labels.disk==ssd": 1}) == (
        "no suitable node (3 nodes: 2 insufficient memory, 1 not matching node.labels.disk==ssd)"
    )
    assert explain({"drained": 1}) == "no suitable node (1 node: 1 drained)"
    assert explain({}) == "no suitable node (the cluster has no nodes)"


def test_usage_follows_the_view_and_equals_one_made_anew() -> None:
    rounds = Rounds()
    usage = Usage()
    machine = node("n", cpus=8)
    tasks = placed(OTHER, 3)
    rounds.put(machine, *tasks)
    usage.sync(rounds.view)
    assert (usage.load("n").nano_cpus, usage.load("n").total) == (3 * CPU, 3)
    ended = replace(tasks[0], status=replace(tasks[0].status, state=TaskState.COMPLETE))
    leaving = replace(tasks[1], desired_state=TaskState.SHUTDOWN)
    rounds.put(ended, leaving)
    rounds.delete(tasks[2])
    for task in (*tasks, *tasks):
        usage.note(task.id)
    usage.sync(rounds.view)
    assert (usage.load("n").nano_cpus, usage.load("n").total) == (CPU, 0)
    fresh = Usage()
    fresh.sync(rounds.view)
    assert usage.snapshot() == fresh.snapshot()
