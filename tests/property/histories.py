"""Random histories of a small cluster, for properties of the allocator, scheduler and assignments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from hypothesis import strategies as st

from manager.allocator import Allocator
from manager.scheduler.scheduler import Scheduler
from pyswarm.objects import (
    Cluster,
    Config,
    Network,
    Node,
    NodeState,
    Object,
    Secret,
    Service,
    Task,
    TaskState,
    Volume,
)
from pyswarm.specs import (
    ConfigSpec,
    ContainerSpec,
    EndpointSpec,
    FileReference,
    GenericResource,
    IpamPool,
    Mount,
    NetworkAttachmentSpec,
    PortConfig,
    SecretSpec,
    ServiceSpec,
    VolumeSpec,
)
from tests.unit.rounds import GIB, Rounds, network, node, service, tasks_of

Step = tuple[str, int, int]
"""(what, a number that chooses the object, a number that chooses the detail)."""

PORTS = (
    (),
    (PortConfig(target_port=1),),
    (PortConfig(target_port=1, published_port=80),),
    (PortConfig(target_port=1, published_port=80, publish_mode="host"),),
    (PortConfig(target_port=1, published_port=81), PortConfig(target_port=2)),
)
NEXT = {
    TaskState.ASSIGNED: TaskState.STARTING,
    TaskState.STARTING: TaskState.RUNNING,
    TaskState.RUNNING: TaskState.FAILED,
}


class History:
    """A cluster and what can happen to it. Each step is one round; some are rolled back first."""

    def __init__(self) -> None:
        self.rounds = Rounds(Allocator(), Scheduler())
        self._made = 0
        self.rounds.put(
            Cluster(id="c"),
            network("ingress", ingress=True, created=0),
            network("small", created=1, ipam=(IpamPool(subnet="10.200.0.0/28"),)),
            network("wide", created=2),
            Secret(id="sec", spec=SecretSpec(name="sec", data=b"x")),
            Config(id="conf", spec=ConfigSpec(name="conf", data=b"y")),
            Volume(id="vol", spec=VolumeSpec(name="vol")),
        )

    def run(self, step: Step) -> None:
        what, which, detail = step
        changed = STEPS[what](self, which, detail)
        if changed is None:
            return
        if detail % 5 == 0:
            self._stage(changed)
            self.rounds.rollback()
            self.rounds.sweep()
            self.rounds.settle()
        self._stage(changed)
        self.rounds.settle()

    def _stage(self, changed: list[tuple[Object, bool]]) -> None:
        for obj, kept in changed:
            self.rounds.stage(obj if kept else None, obj)
        self.rounds.sweep()

    def fresh_id(self, kind: str) -> str:
        self._made += 1
        return f"{kind}{self._made:04d}"

    def nodes(self) -> list[Node]:
        return sorted(self.rounds.view.nodes(), key=lambda n: n.id)

    def services(self) -> list[Service]:
        return sorted(self.rounds.view.services(), key=lambda s: s.id)

    def tasks(self) -> list[Task]:
        return sorted(self.rounds.view.tasks(), key=lambda t: t.id)


Changes = list[tuple[Object, bool]] | None
"""Objects, and whether they are written (else deleted)."""


def _add_node(h: History, which: int, detail: int) -> Changes:
    id = h.fresh_id("n")
    generic = (GenericResource(kind="gpu", string_value="g0"), GenericResource(kind="gpu", string_value="g1"))
    made = node(
        id,
        labels={"zone": f"z{which % 2}"},
        memory=(2 + which % 3) * GIB,
        generic=generic if which % 2 else (),
        data_path_addr=f"192.0.2.{len(h.nodes()) + 1}",
    )
    return [(made, True)]


def _change_node(h: History, which: int, detail: int) -> Changes:
    nodes = h.nodes()
    if not nodes:
        return None
    found = nodes[which % len(nodes)]
    if detail % 7 == 6:
        return [(found, False)]
    state = NodeState.READY if detail % 2 else NodeState.DOWN
    availability = ("active", "drain", "active")[detail % 3]
    return [
        (
            replace(
                found,
                status=replace(found.status, state=state),
                spec=replace(found.spec, availability=availability),
                data_path_addr=f"192.0.2.{100 + detail}",
            ),
            True,
        )
    ]


def _add_service(h: History, which: int, detail: int) -> Changes:
    id = h.fresh_id("s")
    mounts = (Mount(source="vol", target="/v"),) if detail % 3 == 0 else ()
    secrets = (FileReference(source_id="sec"),) if detail % 2 else ()
    owner = service(
        id,
        memory=GIB * (which % 2),
        networks=(["small"], ["wide"], ["wide", "small"], [])[which % 4],
        ports=PORTS[detail % len(PORTS)],
        mode="dnsrr" if not PORTS[detail % len(PORTS)] and detail % 3 == 1 else "vip",
        preferences=["node.labels.zone"] if which % 3 == 0 else [],
        max_replicas=(which % 4) * (detail % 2),
        generic=[GenericResource(kind="gpu", value=1)] if which % 5 == 4 else [],
        container=ContainerSpec(
            image="app", mounts=mounts, secrets=secrets, configs=(FileReference(source_name="conf"),)
        ),
        created=float(len(h.services())),
    )
    tasks = tasks_of(owner, 1 + detail % 4, state=TaskState.NEW)
    return [(owner, True), *((task, True) for task in tasks)]


def _change_service(h: History, which: int, detail: int) -> Changes:
    services = h.services()
    if not services:
        return None
    found = services[which % len(services)]
    if detail % 6 == 5:
        return [(found, False)]
    if detail % 6 == 4:
        return [(replace(found, pending_delete=True), True)]
    spec: ServiceSpec = replace(found.spec, endpoint=EndpointSpec(ports=PORTS[detail % len(PORTS)]))
    if detail % 2:
        wishes = (NetworkAttachmentSpec(target="wide", aliases=("alias",)),)
        spec = replace(spec, task=replace(spec.task, networks=wishes))
    return [(replace(found, spec=spec, spec_version=found.spec_version + 1), True)]


def _add_tasks(h: History, which: int, detail: int) -> Changes:
    services = h.services()
    if not services:
        return None
    owner = services[which % len(services)]
    return [
        (replace(task, id=h.fresh_id("t")), True)
        for task in tasks_of(owner, 1 + detail % 3, first=100 + detail, state=TaskState.NEW)
    ]


def _advance_task(h: History, which: int, detail: int) -> Changes:
    tasks = [t for t in h.tasks() if t.status.state in NEXT]
    if not tasks:
        return None
    return [
        (replace(task, status=replace(task.status, state=NEXT[task.status.state])), True)
        for task in tasks[which % len(tasks) :][: 1 + detail % 4]
    ]


def _stop_task(h: History, which: int, detail: int) -> Changes:
    tasks = h.tasks()
    if not tasks:
        return None
    found = tasks[which % len(tasks)]
    if found.desired_state > TaskState.COMPLETE and detail % 2:
        return [(found, False)]
    if found.desired_state > TaskState.COMPLETE and found.status.state >= TaskState.ASSIGNED:
        status = replace(found.status, state=max(found.status.state, TaskState.SHUTDOWN))
        return [(replace(found, status=status), True)]
    return [(replace(found, desired_state=TaskState.SHUTDOWN), True)]


def _change_rest(h: History, which: int, detail: int) -> Changes:
    view = h.rounds.view
    if which % 3 == 0:
        cluster = view.cluster
        assert cluster is not None
        selector = ("node.labels.zone==z1",) if detail % 2 else ()
        return [(replace(cluster, spec=replace(cluster.spec, ingress_node_selector=selector)), True)]
    if which % 3 == 1:
        secret = view.get(Secret, "sec")
        assert secret is not None
        return [(replace(secret, spec=replace(secret.spec, labels={"n": str(detail)})), True)]
    id = f"extra{detail % 2}"
    existing = view.get(Network, id)
    if existing is None:
        return [(network(id, created=float(10 + detail)), True)]
    return [(replace(existing, pending_delete=True), True)]


STEPS: Mapping[str, Callable[[History, int, int], Changes]] = {
    "add node": _add_node,
    "change node": _change_node,
    "add service": _add_service,
    "change service": _change_service,
    "add tasks": _add_tasks,
    "advance task": _advance_task,
    "stop task": _stop_task,
    "change rest": _change_rest,
}

NUMBER = st.integers(0, 60)
_WEIGHTED = (*STEPS, "add service", "advance task", "advance task", "stop task", "add node")
HISTORIES = st.lists(st.tuples(st.sampled_from(_WEIGHTED), NUMBER, NUMBER), min_size=5, max_size=30)
