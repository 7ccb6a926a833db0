"""A cluster for scenarios: the real reconcilers, obedient nodes, and time that passes when the text says so.

What a container does is told by its image: `hang` stays STARTING, `missing` cannot be pulled, `crash` fails as
soon as it runs, `once` completes as soon as it runs; every other runs until the text says otherwise.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from manager.allocator import Allocator
from manager.controller import Planner, Transaction
from manager.desired import bind_volume, create_service, rollback_service, update_service
from manager.orchestrator import TaskUse, reconcilers
from manager.scheduler.scheduler import Scheduler
from manager.state import State, View
from pyswarm.clock import SeededIds
from pyswarm.objects import (
    Cluster,
    Node,
    NodeDescription,
    NodeState,
    NodeStatus,
    Object,
    Service,
    Task,
    TaskState,
    Volume,
    alive,
)
from pyswarm.specs import (
    Autoscale,
    CronSchedule,
    Dependency,
    EndpointSpec,
    GenericResource,
    Mount,
    NodeSpec,
    Placement,
    PortConfig,
    ResourceRequirements,
    Resources,
    RestartPolicy,
    ServiceSpec,
    SpreadPreference,
    UpdateConfig,
)

START = 1_700_006_400.0
"""2023-11-15 00:00:00 UTC."""
GIB = 1 << 30
MOST_ROUNDS = 200
_MODES = {
    "replicated": "replicated",
    "global": "global",
    "job": "replicated-job",
    "global-job": "global-job",
}
_CONDITIONS = {
    "started": "service_started",
    "healthy": "service_healthy",
    "completed": "service_completed_successfully",
}


def seconds(text: str) -> float:
    """`90`, `90s`, `5m`, `24h`."""
    unit = {"s": 1.0, "m": 60.0, "h": 3600.0}.get(text[-1])
    return float(text) if unit is None else float(text[:-1]) * unit


class Stage:
    """The cluster of one scenario."""

    def __init__(self) -> None:
        self.now = START
        self.use: dict[str, TaskUse] = {}
        self._state = State(SeededIds(1))
        self._planner = Planner(self._state, (*reconcilers(self.use), Allocator(), Scheduler()))
        self._numbers: dict[str, str] = {}
        self._frozen = False
        self._led = True
        self._put(Cluster(id="cluster"))

    # ---------------------------------------------------------------------------------- the loop

    @property
    def view(self) -> View:
        return self._state.view

    def _put(self, *objects: Object) -> None:
        self._change(lambda tx: [tx.put(obj) for obj in objects])

    def _change(self, mutation: Callable[[Transaction], object]) -> None:
        transaction = Transaction(self._state, self.now)
        mutation(transaction)
        if not self._led:
            self._state.settle([], 1)
            return
        self._planner.note(transaction.changes)
        self._round()

    def _round(self) -> None:
        for _ in range(MOST_ROUNDS):
            self._planner.wake(self.now)
            self._planner.sweep(self.now)
            due = self._planner.timers.next()
            if self._planner.idle and (due is None or due > self.now):
                self._state.settle([], 1)
                return
        raise AssertionError("the reconcilers answer each other for ever")

    def tick(self, span: float) -> None:
        """Let time pass, stopping at every alarm on the way."""
        end = self.now + span
        while True:
            self._obey()
            due = self._planner.timers.next()
            if due is None or due > end:
                break
            self.now = max(self.now, due)
            self._round()
        self.now = end
        self._obey()

    def new_leader(self) -> None:
        """Another manager takes over: nothing but the objects is left."""
        self._led = True
        objects = [obj for kind in _ALL for obj in kind(self)]
        self._state = State(SeededIds(int(self.now)))
        self._state.load(objects, 1)
        self._planner = Planner(self._state, (*reconcilers(self.use), Allocator(), Scheduler()))
        self._planner.everything()
        self._round()

    # ---------------------------------------------------------------------------------- the nodes

    def _obey(self) -> None:
        """Every node that is up does what it was told, in no time, until nothing is left to do."""
        for _ in range(MOST_ROUNDS):
            moved = [] if self._frozen else [t for t in self.view.tasks() if self._next_state(t) is not None]
            if not moved:
                return
            self._change(lambda tx, moved=moved: [self._advance(tx, task) for task in moved])
        raise AssertionError("the tasks never come to rest")

    def _next_state(self, task: Task) -> TaskState | None:
        node = self.view.get(Node, task.node_id) if task.node_id else None
        state = task.status.state
        if node is None or node.status.state != NodeState.READY or not alive(state):
            return None
        if task.status.state < TaskState.ASSIGNED:
            return None
        if task.desired_state >= TaskState.SHUTDOWN:
            return None if task.spec.container.stop_signal == "IGNORE" else TaskState.SHUTDOWN
        image = task.spec.container.image.partition(":")[0]
        if state < TaskState.READY:
            return TaskState.REJECTED if image == "missing" else TaskState.READY
        if state == TaskState.READY:
            if task.desired_state < TaskState.RUNNING:
                return None
            return TaskState.STARTING if image == "hang" else TaskState.RUNNING
        if state == TaskState.RUNNING:
            return {"crash": TaskState.FAILED, "once": TaskState.COMPLETE}.get(image)
        return None

    def _advance(self, tx: Transaction, task: Task) -> None:
        state = self._next_state(task)
        assert state is not None
        err = {TaskState.REJECTED: "no such image", TaskState.FAILED: "task: non-zero exit (1)"}.get(
            state, ""
        )
        self._report(tx, task, state, err)

    def _report(self, tx: Transaction, task: Task, state: TaskState, err: str = "") -> None:
        status = replace(task.status, state=state, timestamp=self.now, err=err)
        if state == TaskState.RUNNING:
            status = replace(status, running_since=self.now, started_at=self.now)
        if not alive(state):
            status = replace(status, finished_at=self.now)
        tx.put(replace(task, status=status))

    # ---------------------------------------------------------------------------------- commands

    def do(self, line: str) -> None:
        """Carry out one command of a scenario."""
        words = shlex.split(line)
        verb = words[0].replace("-", "_")
        plain = [w for w in words[1:] if "=" not in w]
        said = dict(w.split("=", 1) for w in words[1:] if "=" in w)
        command = getattr(self, f"do_{verb}", None)
        if command is None:
            raise AssertionError(f"no such command: {line}")
        command(plain, said)
        if verb != "tick":
            self._obey()

    def do_node(self, names: list[str], said: Mapping[str, str]) -> None:
        for name in names:
            labels = dict(pair.split(":", 1) for pair in said.get("labels", "").split(",") if pair)
            resources = Resources(
                nano_cpus=int(float(said.get("cpus", "4")) * 1e9),
                memory=int(float(said.get("memory", "4")) * GIB),
                generic=_gpus(said),
            )
            description = NodeDescription(hostname=name, resources=resources)
            status = NodeStatus(state=NodeState.READY, since=self.now)
            self._put(Node(id=name, spec=NodeSpec(labels=labels), description=description, status=status))

    def _node(self, name: str, change: Callable[[Node], Node]) -> None:
        node = self.view.get(Node, name)
        assert node is not None, f"no node {name}"
        self._put(change(node))

    def do_down(self, names: list[str], said: Mapping[str, str]) -> None:
        status = NodeStatus(state=NodeState.DOWN, since=self.now)
        for name in names:
            self._node(name, lambda node: replace(node, status=status))

    def do_up(self, names: list[str], said: Mapping[str, str]) -> None:
        status = NodeStatus(state=NodeState.READY, since=self.now)
        for name in names:
            self._node(name, lambda node: replace(node, status=status))

    def do_availability(self, names: list[str], said: Mapping[str, str]) -> None:
        to = names[1]
        self._node(names[0], lambda node: replace(node, spec=replace(node.spec, availability=to)))  # type: ignore[arg-type]

    def do_label(self, names: list[str], said: Mapping[str, str]) -> None:
        self._node(names[0], lambda node: replace(node, spec=replace(node.spec, labels=dict(said))))

    def do_resize(self, names: list[str], said: Mapping[str, str]) -> None:
        def change(node: Node) -> Node:
            resources = node.description.resources
            if "memory" in said:
                resources = replace(resources, memory=int(float(said["memory"]) * GIB))
            if "gpus" in said:
                resources = replace(resources, generic=_gpus(said))
            return replace(node, description=replace(node.description, resources=resources))

        self._node(names[0], change)

    def do_forget_node(self, names: list[str], said: Mapping[str, str]) -> None:
        node = self.view.get(Node, names[0])
        assert node is not None
        self._change(lambda tx: tx.delete(node))

    def do_forget_service(self, names: list[str], said: Mapping[str, str]) -> None:
        """The record alone is gone, as after a restored backup."""
        service = self._service(names[0])
        self._change(lambda tx: tx.delete(service))

    def do_forget_task(self, names: list[str], said: Mapping[str, str]) -> None:
        task = self._task(names[0])
        self._change(lambda tx: tx.delete(task))

    def do_cluster(self, names: list[str], said: Mapping[str, str]) -> None:
        cluster = self.view.cluster
        assert cluster is not None
        spec = replace(
            cluster.spec,
            task_history_limit=int(said.get("history", cluster.spec.task_history_limit)),
            rebalance=said.get("rebalance", cluster.spec.rebalance),  # type: ignore[arg-type]
        )
        self._put(replace(cluster, spec=spec))

    def do_create(self, names: list[str], said: Mapping[str, str]) -> None:
        for name in names:
            self._change(lambda tx, name=name: create_service(tx, changed(ServiceSpec(name=name), said)))

    def _service(self, name: str) -> Service:
        service = self.view.by_name(Service, name)
        assert service is not None, f"no service {name}"
        return service

    def do_update(self, names: list[str], said: Mapping[str, str]) -> None:
        service = self._service(names[0])
        self._change(lambda tx: update_service(tx, service, changed(service.spec, said)))

    def do_force(self, names: list[str], said: Mapping[str, str]) -> None:
        service = self._service(names[0])
        self._change(lambda tx: update_service(tx, service, service.spec, force=True))

    def do_scale(self, names: list[str], said: Mapping[str, str]) -> None:
        self.do_update(names, {"replicas": names[1]})

    def do_rollback(self, names: list[str], said: Mapping[str, str]) -> None:
        service = self._service(names[0])
        self._change(lambda tx: rollback_service(tx, service))

    def do_remove(self, names: list[str], said: Mapping[str, str]) -> None:
        self._put(*(replace(self._service(name), pending_delete=True) for name in names))

    def _task(self, name: str) -> Task:
        """The newest wanted task of `service.slot` or `service.node`."""
        service, _, place = name.partition(".")
        found = [
            task
            for task in self.view.tasks_of_service(self._service(service).id)
            if place in (str(task.slot), task.node_id) and task.desired_state <= TaskState.COMPLETE
        ]
        assert found, f"no task {name}"
        return max(found, key=lambda task: task.meta.created_at)

    def do_bind(self, names: list[str], said: Mapping[str, str]) -> None:
        volume = self.view.by_name(Volume, names[0])
        assert volume is not None, f"no volume {names[0]}"
        self._change(lambda tx: bind_volume(tx, volume, names[1]))

    def do_fail(self, names: list[str], said: Mapping[str, str]) -> None:
        for name in names:
            task = self._task(name)
            self._change(
                lambda tx, task=task: self._report(tx, task, TaskState.FAILED, "task: non-zero exit (1)")
            )

    def do_reject(self, names: list[str], said: Mapping[str, str]) -> None:
        for name in names:
            task = self._task(name)
            self._change(lambda tx, task=task: self._report(tx, task, TaskState.REJECTED, "no such image"))

    def do_complete(self, names: list[str], said: Mapping[str, str]) -> None:
        for name in names:
            task = self._task(name)
            self._change(lambda tx, task=task: self._report(tx, task, TaskState.COMPLETE))

    def do_tick(self, names: list[str], said: Mapping[str, str]) -> None:
        self.tick(seconds(names[0]))

    def do_freeze(self, names: list[str], said: Mapping[str, str]) -> None:
        """The nodes stop doing what they are told (until `thaw`)."""
        self._frozen = True

    def do_thaw(self, names: list[str], said: Mapping[str, str]) -> None:
        self._frozen = False

    def do_nobody_leads(self, names: list[str], said: Mapping[str, str]) -> None:
        """What happens from now on is written down, and nobody decides on it until `new-leader`."""
        self._led = False

    def do_new_leader(self, names: list[str], said: Mapping[str, str]) -> None:
        self.new_leader()

    def do_outage(self, names: list[str], said: Mapping[str, str]) -> None:
        """Time passes, and nobody leads; then somebody does."""
        self.now += seconds(names[0])
        self.new_leader()

    def do_use(self, names: list[str], said: Mapping[str, str]) -> None:
        """What every running task of a service uses, from now until the next tick ends."""
        for task in self.view.tasks_of_service(self._service(names[0]).id):
            self.use[task.id] = TaskUse(
                at=self.now + 15, nano_cpus=float(said["cpus"]) * 1e9, memory=int(said.get("memory", "0"))
            )

    # ---------------------------------------------------------------------------------- the table

    def table(self) -> str:
        """Services with something to say, then every task: name, node, desired and observed state, notes."""
        services = {service.id: service.spec.name for service in self._services()}
        tasks = sorted(
            self.view.tasks(), key=lambda t: (t.service_name, t.slot, t.node_id * (not t.slot), *_age(t))
        )
        of_tasks = [self._task_line(t, services.get(t.service_id, t.service_name)) for t in tasks]
        lines = [self._service_line(service) for service in self._services() if _notes(service)]
        lines += of_tasks
        return "\n".join(lines) if lines else "(nothing)"

    def _services(self) -> Iterable[Service]:
        return sorted(self.view.services(), key=lambda service: service.spec.name)

    def _service_line(self, service: Service) -> str:
        return f"{service.spec.name}: {self._named(_notes(service))}"

    def _named(self, text: str) -> str:
        """With the tasks' ids replaced by their short names."""
        for id, number in self._numbers.items():
            text = text.replace(id, number)
        return text

    def _task_line(self, task: Task, service: str) -> str:
        number = self._numbers.setdefault(task.id, f"t{len(self._numbers) + 1}")
        name = f"{service}.{task.slot}" if task.slot else f"{service}.@"
        notes = [
            task.spec.container.image,
            f"it{task.job_iteration}" if task.job_iteration is not None else "",
            task.waiting_for,
            task.status.err,
            f"not before +{task.not_before - self.now:g}s" if task.not_before > self.now else "",
        ]
        states = f"{task.desired_state.name}/{task.status.state.name}"
        columns = f"{name:8} {number:4} {task.node_id or '-':4} {states:19}"
        return f"{columns} {'; '.join(note for note in notes if note)}".rstrip()


def _age(task: Task) -> tuple[float, str]:
    return task.meta.created_at, task.id


def _notes(service: Service) -> str:
    status = service.update_status
    parts = [
        f"{status.state} ({status.message})" if status is not None else "",
        f"autoscaled to {service.replicas}" if service.autoscale_status is not None else "",
        "being removed" if service.pending_delete else "",
    ]
    return "; ".join(part for part in parts if part)


_ALL: tuple[Callable[[Stage], Iterable[Object]], ...] = (
    lambda stage: [stage.view.cluster] if stage.view.cluster is not None else [],
    lambda stage: stage.view.nodes(),
    lambda stage: stage.view.services(),
    lambda stage: stage.view.tasks(),
    lambda stage: stage.view.networks(),
    lambda stage: stage.view.volumes(),
)


def _gpus(said: Mapping[str, str]) -> tuple[GenericResource, ...]:
    count = int(said.get("gpus", "0"))
    return (GenericResource(kind="gpu", value=count),) if count else ()


def changed(spec: ServiceSpec, said: Mapping[str, str]) -> ServiceSpec:
    """The spec with what a command says on top."""
    for key, value in said.items():
        spec = _set(spec, key, value)
    return spec


def _set(spec: ServiceSpec, key: str, value: str) -> ServiceSpec:
    task, mode = spec.task, spec.mode
    if key == "mode":
        return replace(spec, mode=replace(mode, kind=_MODES[value]))  # type: ignore[arg-type]
    if key in ("replicas", "max_concurrent", "total_completions"):
        return replace(spec, mode=replace(mode, **{key: int(value)}))
    if key == "stopped":
        return replace(spec, stopped=value == "true")
    if key in ("image", "stop_signal"):
        return replace(spec, task=replace(task, container=replace(task.container, **{key: value})))
    if key.startswith("restart."):
        return replace(spec, task=replace(task, restart=_restart(task.restart, key[8:], value)))
    if key.startswith(("update.", "rollback.")):
        which, _, name = key.partition(".")
        return replace(spec, **{which: _update(getattr(spec, which) or UpdateConfig(), name, value)})
    return _set_rest(spec, key, value)


def _set_rest(spec: ServiceSpec, key: str, value: str) -> ServiceSpec:
    task = spec.task
    if key == "memory":
        resources = ResourceRequirements(reservations=Resources(memory=int(float(value) * GIB)))
        return replace(spec, task=replace(task, resources=resources))
    if key == "cpus":
        resources = ResourceRequirements(reservations=Resources(nano_cpus=int(float(value) * 1e9)))
        return replace(spec, task=replace(task, resources=resources))
    if key == "gpus":
        wanted = GenericResource(kind="gpu", value=int(value))
        resources = ResourceRequirements(reservations=Resources(generic=(wanted,)))
        return replace(spec, task=replace(task, resources=resources))
    if key in ("constraint", "prefer", "max_replicas"):
        return replace(spec, task=replace(task, placement=_placement(task.placement, key, value)))
    if key == "depends":
        return replace(spec, depends_on=tuple(_dependency(part) for part in value.split(",")))
    if key == "cron":
        return replace(spec, cron=replace(spec.cron or CronSchedule(schedule=""), schedule=value))
    if key in ("concurrency", "history"):
        assert spec.cron is not None
        return replace(spec, cron=replace(spec.cron, **{key: int(value) if key == "history" else value}))  # type: ignore[arg-type]
    if key == "autoscale":
        low, high, cpu = value.split(":")
        return replace(spec, autoscale=Autoscale(min=int(low), max=int(high), cpu=float(cpu), cooldown=60.0))
    if key == "host_port":
        port = PortConfig(target_port=80, published_port=int(value), publish_mode="host")
        return replace(spec, endpoint=EndpointSpec(ports=(port,)))
    if key == "rebalance":
        return replace(spec, rebalance=value)
    if key == "volume":
        mounts = (Mount(source=value, target="/data"),)
        return replace(spec, task=replace(task, container=replace(task.container, mounts=mounts)))
    if key == "volumes_per_slot":
        return replace(spec, volumes_per_slot=value == "true")
    if key == "volumes_move_after":
        return replace(spec, volumes_move_after=seconds(value))
    raise AssertionError(f"no such option: {key}")


def _restart(policy: RestartPolicy, name: str, value: str) -> RestartPolicy:
    if name == "condition":
        return replace(policy, condition=value)  # type: ignore[arg-type]
    return replace(policy, **{name: int(value) if name == "max_attempts" else seconds(value)})  # type: ignore[arg-type]


def _update(config: UpdateConfig, name: str, value: str) -> UpdateConfig:
    if name in ("failure_action", "order"):
        return replace(config, **{name: value})  # type: ignore[arg-type]
    if name == "parallelism":
        return replace(config, parallelism=int(value))
    return replace(config, **{name: seconds(value)})  # type: ignore[arg-type]


def _placement(placement: Placement, key: str, value: str) -> Placement:
    if key == "constraint":
        return replace(placement, constraints=(value,) if value else ())
    if key == "prefer":
        return replace(placement, preferences=(SpreadPreference(spread_descriptor=value),))
    return replace(placement, max_replicas=int(value))


def _dependency(text: str) -> Dependency:
    """`db:healthy`, `db:started:restart`, `db:completed:optional`."""
    name, condition, *flags = text.split(":")
    return Dependency(
        service=name,
        condition=_CONDITIONS[condition],  # type: ignore[arg-type]
        restart="restart" in flags,
        required="optional" not in flags,
    )
