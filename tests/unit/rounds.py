"""A cluster in memory for tests of the reconcilers: state, rounds, and short ways to make objects."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from manager.state import Changed, Key, Plan, Reconciler, State, View
from pyswarm.clock import SeededIds
from pyswarm.objects import (
    Meta,
    Network,
    Node,
    NodeDescription,
    NodeState,
    NodeStatus,
    Object,
    Service,
    Task,
    TaskState,
    TaskStatus,
    kind_of,
)
from pyswarm.specs import (
    ContainerSpec,
    EndpointSpec,
    NetworkAttachmentSpec,
    NetworkSpec,
    NodeSpec,
    Placement,
    Platform,
    PortConfig,
    ResourceRequirements,
    Resources,
    ServiceSpec,
    SpreadPreference,
    TaskSpec,
)

GIB = 1 << 30
CPU = 1_000_000_000
NOW = 1_000_000.0
ObjectT = TypeVar("ObjectT", bound=Object)


class Rounds:
    """Runs reconcilers over a state as the controller does: stage, ask, stage the answer, settle."""

    def __init__(self, *reconcilers: Reconciler, now: float = NOW) -> None:
        self.state = State(SeededIds(1))
        self.reconcilers = reconcilers
        self.pending: list[set[Key]] = [set() for _ in reconcilers]
        self.wake: dict[tuple[int, Key], float] = {}
        self.now = now
        self.revision = 0
        self.committed: list[Changed] = []
        """Every change since somebody cleared it, with versions, as observers see it."""

    @property
    def view(self) -> View:
        return self.state.view

    def stage(self, after: Object | None, before: Object | None = None) -> None:
        obj = after if after is not None else before
        assert obj is not None
        self.note(self.state.stage(kind_of(obj), obj.id, after))

    def note(self, changed: Changed | None) -> None:
        if changed is not None:
            for keys, reconciler in zip(self.pending, self.reconcilers, strict=True):
                keys.update(reconciler.keys(changed, self.view))

    def sweep(self) -> list[Plan]:
        """Let the reconcilers plan until none has a question; returns the plans that said something."""
        plans: list[Plan] = []
        for _ in range(20):
            if not any(self.pending):
                return plans
            for index, reconciler in enumerate(self.reconcilers):
                keys, self.pending[index] = sorted(self.pending[index]), set()
                if keys:
                    plans.append(self.ask(index, reconciler, keys))
        raise AssertionError("the reconcilers answer each other for ever")

    def ask(self, index: int, reconciler: Reconciler, keys: Collection[Key]) -> Plan:
        plan = reconciler.plan(self.view, keys, self.now)
        ids = [(kind_of(obj), obj.id) for obj in (*plan.puts, *plan.deletes)]
        assert len(ids) == len(set(ids)), "an object appears twice in a plan"
        for key in keys:
            self.wake.pop((index, key), None)
        self.wake.update(((index, key), when) for key, when in plan.wake.items())
        changes = [self.state.stage(kind_of(obj), obj.id, obj) for obj in plan.puts]
        changes += [self.state.stage(kind_of(obj), obj.id, None) for obj in plan.deletes]
        for changed in changes:
            self.note(changed)
        return plan

    def settle(self) -> None:
        """Commit what is staged."""
        self.revision += 1
        staged = self.state.staged()
        written = [
            replace(after, meta=replace(after.meta, version=self.revision))
            for _, _, _, after in staged
            if after is not None
        ]
        self.state.settle(written, self.revision)
        self.committed += [
            Changed(before, self.view.get(kind, id))
            for kind, id, before, _ in staged
            if before is not None or self.view.get(kind, id) is not None
        ]

    def rollback(self) -> None:
        """The commit failed: everything staged is undone, and the reconcilers see the inverse changes."""
        staged = self.state.staged()
        self.state.rollback()
        for _, _, before, after in reversed(staged):
            if before is not None or after is not None:
                self.note(Changed(after, before))

    def put(self, *objects: Object) -> None:
        """One round: write the objects, let everybody answer, commit."""
        for obj in objects:
            self.stage(obj)
        self.sweep()
        self.settle()

    def delete(self, *objects: Object) -> None:
        for obj in objects:
            self.stage(None, obj)
        self.sweep()
        self.settle()

    def advance(self, seconds: float) -> None:
        """Let time pass and ring the alarms that came due."""
        self.now += seconds
        for (index, key), when in sorted(self.wake.items()):
            if when <= self.now:
                del self.wake[index, key]
                self.pending[index].add(key)
        self.sweep()
        self.settle()

    def get(self, obj: ObjectT) -> ObjectT:
        """The object as it is now."""
        found = self.view.get(type(obj), obj.id)
        assert found is not None
        return found

    def update(self, obj: ObjectT, change: Callable[[ObjectT], ObjectT]) -> ObjectT:
        """One round that changes the object as it is now."""
        self.put(change(self.get(obj)))
        return self.get(obj)

    def set_state(self, *tasks: Task, state: TaskState, desired: TaskState | None = None) -> None:
        """One round in which the tasks are reported in `state`."""
        self.put(
            *(
                replace(
                    now,
                    status=replace(now.status, state=state, timestamp=self.now),
                    desired_state=desired if desired is not None else now.desired_state,
                )
                for now in map(self.get, tasks)
            )
        )

    def tasks(self, service: Service) -> list[Task]:
        return sorted(self.view.tasks_of_service(service.id), key=lambda task: (task.slot, task.id))

    def per_node(self, *services: Service) -> dict[str, int]:
        """Placed tasks of the services (of all when none are named) by node id."""
        counts: dict[str, int] = {}
        for task in self.view.tasks():
            if task.node_id and (not services or any(task.service_id == s.id for s in services)):
                counts[task.node_id] = counts.get(task.node_id, 0) + 1
        return counts


def node(
    id: str,
    *,
    labels: dict[str, str] | None = None,
    engine_labels: dict[str, str] | None = None,
    state: NodeState = NodeState.READY,
    availability: str = "active",
    cpus: float = 4,
    memory: int = 8 * GIB,
    generic: Sequence[object] = (),
    platform: tuple[str, str] = ("linux", "x86_64"),
    plugins: Sequence[str] = (),
    role: str = "worker",
    addr: str = "",
    hostname: str = "",
    data_path_addr: str = "",
) -> Node:
    return Node(
        id=id,
        meta=Meta(created_at=1.0),
        spec=NodeSpec(labels=labels or {}, availability=availability),  # type: ignore[arg-type]  # a literal's value
        role=role,  # type: ignore[arg-type]  # a literal's value
        status=NodeStatus(state=state, addr=addr),
        data_path_addr=data_path_addr,
        description=NodeDescription(
            hostname=hostname or f"host-{id}",
            platform=Platform(os=platform[0], architecture=platform[1]),
            resources=Resources(nano_cpus=int(cpus * CPU), memory=memory, generic=tuple(generic)),  # type: ignore[arg-type]
            engine_labels=engine_labels or {},
            plugins=tuple(plugins),
        ),
    )


def service(
    id: str,
    *,
    constraints: Sequence[str] = (),
    preferences: Sequence[str] = (),
    max_replicas: int = 0,
    platforms: Sequence[tuple[str, str]] = (),
    strategy: str = "",
    cpus: float = 0,
    memory: int = 0,
    generic: Sequence[object] = (),
    networks: Sequence[NetworkAttachmentSpec | str] = (),
    ports: Sequence[PortConfig] = (),
    mode: str = "vip",
    container: ContainerSpec | None = None,
    created: float = 1.0,
) -> Service:
    task = TaskSpec(
        container=container or ContainerSpec(image="app"),
        resources=ResourceRequirements(
            reservations=Resources(nano_cpus=int(cpus * CPU), memory=memory, generic=tuple(generic))  # type: ignore[arg-type]
        ),
        placement=Placement(
            constraints=tuple(constraints),
            preferences=tuple(SpreadPreference(spread_descriptor=text) for text in preferences),
            max_replicas=max_replicas,
            platforms=tuple(Platform(os=os, architecture=arch) for os, arch in platforms),
            strategy=strategy,
        ),
        networks=tuple(NetworkAttachmentSpec(target=n) if isinstance(n, str) else n for n in networks),
    )
    return Service(
        id=id,
        meta=Meta(created_at=created),
        spec=ServiceSpec(
            name=id,
            task=task,
            endpoint=EndpointSpec(mode=mode, ports=tuple(ports)),  # type: ignore[arg-type]  # a literal's value
        ),
    )


def tasks_of(
    owner: Service,
    count: int,
    *,
    first: int = 1,
    state: TaskState = TaskState.PENDING,
    desired: TaskState = TaskState.RUNNING,
    node_id: str = "",
    ids: Iterable[str] = (),
) -> list[Task]:
    """`count` tasks of the service, slot `first` and up, as the orchestrator makes them."""
    names = iter(ids)
    return [
        Task(
            id=next(names, f"{owner.id}-{owner.spec_version}-{slot:05d}"),
            meta=Meta(created_at=1.0),
            service_id=owner.id,
            slot=slot,
            node_id=node_id,
            spec=owner.spec.task,
            spec_version=owner.spec_version,
            service_name=owner.spec.name,
            endpoint=owner.spec.endpoint,
            status=TaskStatus(state=state, timestamp=NOW),
            desired_state=desired,
        )
        for slot in range(first, first + count)
    ]


def network(id: str, *, created: float = 1.0, **spec: object) -> Network:
    return Network(id=id, meta=Meta(created_at=created), spec=NetworkSpec(name=id, **spec))  # type: ignore[arg-type]
