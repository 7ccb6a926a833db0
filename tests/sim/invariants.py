"""What must hold after every commit, whoever made it and whatever went wrong: checked against the objects.

The checks are written from the promises, not from the code: they share nothing with the reconcilers but the
words of `pyswarm.objects` and `pyswarm.specs`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from manager.scheduler.constraints import node_matches
from pyswarm.objects import (
    Cluster,
    Network,
    Node,
    NodeState,
    Object,
    Service,
    Task,
    TaskState,
    Volume,
    alive,
)
from pyswarm.specs import update_config

STOP_TIMEOUT = 60.0
"""Seconds after which a successor may start though its predecessor has not said that it stopped."""

MOVED_LABEL = "moved"
"""On a volume: the node that a person said it is on, "" for any."""


class Violated(AssertionError):
    """An invariant does not hold."""


@dataclass(slots=True)
class World:
    """The objects of one moment."""

    nodes: dict[str, Node] = field(default_factory=dict[str, Node])
    services: dict[str, Service] = field(default_factory=dict[str, Service])
    tasks: dict[str, Task] = field(default_factory=dict[str, Task])
    networks: dict[str, Network] = field(default_factory=dict[str, Network])
    volumes: dict[str, Volume] = field(default_factory=dict[str, Volume])
    cluster: Cluster | None = None

    @staticmethod
    def of(objects: Iterable[Object]) -> World:
        world = World()
        for obj in objects:
            world.put(obj)
        return world

    def put(self, obj: Object) -> None:
        if isinstance(obj, Node):
            self.nodes[obj.id] = obj
        elif isinstance(obj, Service):
            self.services[obj.id] = obj
        elif isinstance(obj, Task):
            self.tasks[obj.id] = obj
        elif isinstance(obj, Network):
            self.networks[obj.id] = obj
        elif isinstance(obj, Volume):
            self.volumes[obj.id] = obj
        elif isinstance(obj, Cluster):
            self.cluster = obj

    def remove(self, id: str) -> None:
        for table in (self.nodes, self.services, self.tasks, self.networks, self.volumes):
            table.pop(id, None)

    def by_service(self) -> dict[str, list[Task]]:
        tasks: dict[str, list[Task]] = defaultdict(list)
        for task in self.tasks.values():
            tasks[task.service_id].append(task)
        return tasks


def wanted(task: Task) -> bool:
    return task.desired_state <= TaskState.COMPLETE


def live(task: Task) -> bool:
    return wanted(task) and alive(task.status.state)


def running(task: Task) -> bool:
    return task.status.state == TaskState.RUNNING


def slot_of(task: Task) -> str:
    return f"{task.service_id}/{task.slot or '@' + task.node_id}"


def good_node(world: World, id: str) -> bool:
    node = world.nodes.get(id)
    return node is not None and node.status.state == NodeState.READY and node.spec.availability == "active"


def require(condition: bool, message: str, *tasks: Task) -> None:
    """Messages name tasks by `{}`: to show them takes longer than most checks."""
    if not condition:
        raise Violated(message.format(*map(show, tasks)) if tasks else message)


def show(task: Task) -> str:
    return (
        f"{task.service_name}.{task.slot or '@'}.{task.id[-5:]} on {task.node_id or '-'} "
        f"{task.desired_state.name}/{task.status.state.name} v{task.spec_version} {task.rollout}"
    )


def check_step(
    before: World, after: World, changed: Mapping[str, tuple[Object | None, Object | None]], now: float
) -> None:
    """All invariants of one commit."""
    for old, new in changed.values():
        if isinstance(old, Task) and isinstance(new, Task):
            _forward(old, new)
        if isinstance(new, Task):
            _placed_well(old if isinstance(old, Task) else None, new, after)
            _placed_by_its_volumes(old if isinstance(old, Task) else None, new, before, after)
    by_service = after.by_service()
    for service in _touched(after, changed):
        tasks = by_service.get(service.id, [])
        if service.pending_delete:
            require(not any(wanted(t) for t in tasks), f"{service.spec.name} is removed but has wanted tasks")
            continue
        _slots(service, tasks)
        _counts(service, tasks, after)
        _history(service, tasks, after)
        if service.spec.volumes_per_slot:
            _volumes(tasks, after)
    for service_id, tasks in by_service.items():
        if service_id not in after.services:
            require(
                not any(wanted(t) for t in tasks), f"tasks of the missing service {service_id} are wanted"
            )
    _nothing_on_bad_nodes(after)
    _nothing_twice(after)
    _updates(before, after, changed)
    _dependencies(changed, after)
    for old, new in changed.values():
        if isinstance(new, Task) and isinstance(old, Task | None):
            _after_its_predecessor(old, new, by_service.get(new.service_id, []), after, now)
        if isinstance(new, Service) and isinstance(old, Service):
            _completed_with_reason(old, new, by_service.get(new.id, []))


def _touched(after: World, changed: Mapping[str, tuple[Object | None, Object | None]]) -> Iterable[Service]:
    """The services of which something may not hold any more."""
    ids: dict[str, None] = {}
    for old, new in changed.values():
        obj = new or old
        if isinstance(obj, Task):
            ids[obj.service_id] = None
        elif isinstance(obj, Service):
            ids[obj.id] = None
        elif isinstance(obj, (Node, Cluster, Volume)):
            return list(after.services.values())
    return [service for id in ids if (service := after.services.get(id)) is not None]


def _forward(old: Task, new: Task) -> None:
    require(new.desired_state >= old.desired_state, "desired state went back: {} -> {}", old, new)
    require(new.status.state >= old.status.state, "observed state went back: {} -> {}", old, new)
    require(not old.node_id or new.node_id == old.node_id, "task moved: {} -> {}", old, new)
    same = (old.spec, old.service_id, old.slot) == (new.spec, new.service_id, new.slot)
    require(same, "task changed its kind: {}", old)


def _placed_well(old: Task | None, new: Task, world: World) -> None:
    if not _newly_assigned(old, new) or not wanted(new):
        return
    require(good_node(world, new.node_id), f"assigned to a node that takes no tasks: {show(new)}")
    node = world.nodes[new.node_id]
    require(
        node_matches(new.spec.placement.constraints, node), f"assigned against its constraints: {show(new)}"
    )
    on_node = [t for t in world.tasks.values() if t.node_id == node.id and _holds(t)]
    limit = new.spec.placement.max_replicas
    if limit and new.slot:
        same = [t for t in on_node if t.service_id == new.service_id and wanted(t)]
        require(len(same) <= limit, f"more than {limit} tasks on {node.id}: {show(new)}")
    require(
        sum(t.spec.resources.reservations.memory for t in on_node) <= node.description.resources.memory,
        f"memory of {node.id} is given out twice: {show(new)}",
    )
    require(
        sum(t.spec.resources.reservations.nano_cpus for t in on_node) <= node.description.resources.nano_cpus,
        f"CPU of {node.id} is given out twice: {show(new)}",
    )


def _holds(task: Task) -> bool:
    return TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING


def _slots(service: Service, tasks: list[Task]) -> None:
    """At most one task desired RUNNING per slot, but for the overlap of a start-first step or a move."""
    by_slot: dict[str, list[Task]] = defaultdict(list)
    for task in tasks:
        if live(task):
            by_slot[f"{slot_of(task)}/{task.job_iteration}"].append(task)
    for slot, mates in by_slot.items():
        started = [t for t in mates if t.desired_state >= TaskState.RUNNING]
        if len(started) < 2:
            continue
        require(len(started) == 2, f"{len(started)} tasks started in {slot}: {[show(t) for t in started]}")
        older, newer = sorted(started, key=lambda t: t.meta.created_at)
        require(
            bool(newer.rollout) or older.spec_version != newer.spec_version,
            f"two tasks started in {slot}: {[show(t) for t in started]}",
        )


def _newly_assigned(old: Task | None, new: Task) -> bool:
    assigned = new.status.state == TaskState.ASSIGNED
    return assigned and (old is None or old.status.state < TaskState.ASSIGNED)


def _own_volumes(task: Task, world: World) -> dict[str, str]:
    """Node by name of the slot's own volumes that there is a record of."""
    names = {f"{m.source}.{task.slot}" for m in task.spec.container.mounts if m.source}
    volumes = sorted(world.volumes.values(), key=lambda volume: volume.spec.name)
    return {v.spec.name: v.node_id for v in volumes if v.spec.name in names}


def _placed_by_its_volumes(old: Task | None, new: Task, before: World, after: World) -> None:
    """A slot's task starts where the slot's volumes are, or where they are from then on."""
    if not new.slot_volumes or not _newly_assigned(old, new):
        return
    now = _own_volumes(new, after)
    require(
        len(now) == len(new.spec.container.mounts), f"nobody wrote down where the volumes are: {show(new)}"
    )
    require(set(now.values()) == {new.node_id}, f"{show(new)}, but its volumes are on {now}")
    service = after.services.get(new.service_id)
    if service is not None and service.spec.volumes_move_after is None:
        former = {name: node_id for name, node_id in _own_volumes(new, before).items() if node_id}
        moved = {name for name, node_id in former.items() if node_id != new.node_id}
        by_hand = {
            volume.spec.name
            for volume in after.volumes.values()
            if volume.spec.labels.get(MOVED_LABEL) in (new.node_id, "")
        }
        require(moved <= by_hand, f"{show(new)} left its volumes {sorted(moved - by_hand)}")


def _volumes(tasks: list[Task], world: World) -> None:
    """Nothing is wanted of a slot on a node that does not have its volumes."""
    for task in tasks:
        if task.slot_volumes and task.node_id and live(task):
            found = _own_volumes(task, world)
            require(
                set(found.values()) <= {task.node_id, ""}, f"{show(task)}, but its volumes are on {found}"
            )


def _counts(service: Service, tasks: list[Task], world: World) -> None:
    kept = [t for t in tasks if t.desired_state != TaskState.REMOVE]
    mode = service.spec.mode
    name = service.spec.name
    if mode.kind == "replicated":
        slots = {t.slot for t in kept}
        require(len(slots) == service.replicas, f"{name} has {len(slots)} slots, not {service.replicas}")
        return
    if mode.kind == "global":
        on = Counter(t.node_id for t in kept if live(t))
        for node in world.nodes.values():
            fits = good_node(world, node.id) and node_matches(service.spec.task.placement.constraints, node)
            some = any(t.node_id == node.id for t in kept)
            require(not fits or some, f"{name} has no task on {node.id}")
            require(on[node.id] <= 2, f"{name} has {on[node.id]} tasks on {node.id}")
        return
    current = service.job_status.iteration if service.job_status else 0
    mine = [t for t in kept if (t.job_iteration or 0) == current]
    if mode.kind == "replicated-job":
        busy = [t for t in mine if live(t)]
        require(len(busy) <= max(1, mode.max_concurrent), f"{name} runs {len(busy)} at a time")
        done = Counter(t.slot for t in mine if t.status.state == TaskState.COMPLETE and wanted(t))
        require(all(n == 1 for n in done.values()), f"{name} completed a slot twice")
        require(len(done) <= mode.total_completions, f"{name} completed {len(done)} times")
    old = [t for t in kept if (t.job_iteration or 0) != current]
    cron = service.spec.cron
    require(cron is not None or not old, f"{name} keeps tasks of a former iteration")
    if cron is not None and cron.concurrency != "allow":
        require(not any(live(t) for t in old), f"{name} runs two iterations at a time")


def _history(service: Service, tasks: list[Task], world: World) -> None:
    limit = world.cluster.spec.task_history_limit if world.cluster else 5
    ended = Counter(slot_of(t) for t in tasks if not alive(t.status.state))
    for slot, count in ended.items():
        require(count <= limit + 1, f"{count} ended tasks are kept in {slot}")
    for task in tasks:
        gone = not alive(task.status.state) or task.status.state < TaskState.ASSIGNED
        require(not (gone and task.desired_state == TaskState.REMOVE), "a removed task is kept: {}", task)
    del service


def _nothing_on_bad_nodes(world: World) -> None:
    for task in world.tasks.values():
        if not live(task) or not task.node_id or not task.service_id:
            continue
        node = world.nodes.get(task.node_id)
        require(node is not None, "wanted on a node that is gone: {}", task)
        assert node is not None
        if task.status.state >= TaskState.ASSIGNED:
            drained = node.spec.availability == "drain" and not _moves_away(task, world)
            require(not drained, "wanted on a drained node: {}", task)
            require(node.status.state != NodeState.DOWN, "wanted on a node that is down: {}", task)


def _moves_away(task: Task, world: World) -> bool:
    """Whether a start-first service's task stays until its successor elsewhere runs."""
    service = world.services.get(task.service_id)
    order = update_config(service.spec.update).order if service is not None else ""
    mates = (t for t in world.tasks.values() if slot_of(t) == slot_of(task) and t.id != task.id)
    return order == "start-first" and any(live(t) and t.node_id != task.node_id for t in mates)


def _nothing_twice(world: World) -> None:
    """No host port, address or published port has two owners."""
    ports: set[tuple[str, int, str]] = set()
    addresses: set[tuple[str, str]] = set()
    for service in world.services.values():
        if service.endpoint is not None:
            for vip in service.endpoint.virtual_ips:
                key = (vip.network_id, vip.addr.partition("/")[0])
                require(key not in addresses, f"address {key} is given twice")
                addresses.add(key)
    for task in world.tasks.values():
        if task.status.state < TaskState.PENDING or not alive(task.status.state):
            continue
        for attachment in task.networks:
            for addr in attachment.addresses:
                key = (attachment.network_id, addr.partition("/")[0])
                require(key not in addresses, f"address {key} is given twice: {{}}", task)
                addresses.add(key)
        if _holds(task):
            for port in task.endpoint.ports:
                if port.publish_mode == "host" and port.published_port:
                    host = (task.node_id, port.published_port, port.protocol)
                    require(host not in ports, f"host port {host} is given twice: {{}}", task)
                    ports.add(host)
    published: set[tuple[int, str]] = set()
    for service in world.services.values():
        for port in service.endpoint.ports if service.endpoint else ():
            if port.publish_mode == "ingress" and port.published_port:
                key = (port.published_port, port.protocol)
                require(key not in published, f"port {key} is published twice")
                published.add(key)


def _updates(before: World, after: World, changed: Mapping[str, tuple[Object | None, Object | None]]) -> None:
    """An update takes a running task away only in its turn: at most `parallelism` slots are without one by
    its doing, and with start-first never before the successor runs."""
    struck: dict[str, list[Task]] = defaultdict(list)
    for old, new in changed.values():
        if not isinstance(old, Task) or not isinstance(new, Task) or not live(old) or not running(old):
            continue
        if new.desired_state == TaskState.SHUTDOWN and running(new):
            struck[new.service_id].append(new)
    by_service = after.by_service() if struck else {}
    for service_id, tasks in struck.items():
        service, former = after.services.get(service_id), before.services.get(service_id)
        if service is None or former is None or service.spec.mode.kind not in ("replicated", "global"):
            continue
        status = service.update_status
        if status is None:
            continue
        config = update_config(
            service.spec.rollback if status.state.startswith("rollback") else service.spec.update
        )
        mates = by_service[service_id]
        alone = [
            t
            for t in tasks
            if good_node(after, t.node_id)
            and good_node(before, t.node_id)
            and node_matches(service.spec.task.placement.constraints, after.nodes[t.node_id])
            and not (t.slot_volumes and set(_own_volumes(t, after).values()) - {t.node_id, ""})
            and not any(live(m) and running(m) and slot_of(m) == slot_of(t) and m.id != t.id for m in mates)
        ]
        if not alone:
            continue
        require(
            status.state in ("updating", "rollback_started") or former.update_status != status,
            f"a running task was taken away with no update going on: {[show(t) for t in alone]}",
        )
        waiting = {
            slot_of(t)
            for t in mates
            if live(t)
            and t.rollout == "replacing"
            and not running(t)
            and t.meta.created_at >= status.started_at
            and not any(live(m) and running(m) and slot_of(m) == slot_of(t) for m in mates)
        }
        if config.parallelism:
            require(
                len(waiting) <= config.parallelism,
                f"{len(waiting)} slots of {service.spec.name} wait for the update, {config.parallelism} may",
            )
        if config.order == "start-first" and "stop-first" not in status.message:
            raise Violated(
                f"start-first stopped a task with no successor running: {[show(t) for t in alone]}"
            )


def _after_its_predecessor(old: Task | None, new: Task, mates: list[Task], world: World, now: float) -> None:
    """A task does not start while a task of its slot that was told to stop may still run, unless that one
    has had its time."""
    started = new.desired_state in (TaskState.RUNNING, TaskState.COMPLETE)
    if not started or (old is not None and old.desired_state >= TaskState.RUNNING) or not live(new):
        return
    if now - new.meta.created_at >= STOP_TIMEOUT:
        return
    for mate in mates:
        if slot_of(mate) != slot_of(new) or mate.id == new.id or wanted(mate) or not _holds(mate):
            continue
        node = world.nodes.get(mate.node_id)
        if mate.job_iteration != new.job_iteration or node is None or node.status.state == NodeState.DOWN:
            continue
        raise Violated(f"{show(new)} starts beside {show(mate)}")


def _completed_with_reason(old: Service, new: Service, tasks: list[Task]) -> None:
    """An update that met more failures than it may does not end as completed."""
    before, status = old.update_status, new.update_status
    if status is None or status.state != "completed" or before is None or before.state != "updating":
        return
    config = update_config(new.spec.update)
    if config.failure_action == "continue":
        return
    monitor = 5.0 if config.monitor is None else config.monitor
    newest: dict[str, Task] = {}
    for task in sorted(tasks, key=lambda t: (t.meta.created_at, wanted(t))):
        newest[slot_of(task)] = task
    failed = {
        slot_of(t)
        for t in newest.values()
        if t.rollout in ("replacing", "failed")
        and t.meta.created_at >= status.started_at
        and t.spec.container == new.spec.task.container
        and t.status.state in (TaskState.FAILED, TaskState.REJECTED)
        and (not t.status.running_since or t.status.finished_at - t.status.running_since <= monitor)
    }
    require(
        len(failed) / max(1, status.total) <= config.max_failure_ratio,
        f"the update of {new.spec.name} completed with {len(failed)} failures of {status.total}",
    )


def _dependencies(changed: Mapping[str, tuple[Object | None, Object | None]], after: World) -> None:
    """No task starts before what it depends on is there."""
    for old, new in changed.values():
        if not isinstance(new, Task) or new.desired_state not in (TaskState.RUNNING, TaskState.COMPLETE):
            continue
        if isinstance(old, Task) and old.desired_state >= TaskState.RUNNING:
            continue
        service = after.services.get(new.service_id)
        for dep in service.spec.depends_on if service is not None else ():
            other = next((s for s in after.services.values() if s.spec.name == dep.service), None)
            if other is None:
                require(not dep.required, f"started though {dep.service} is not there: {show(new)}")
                continue
            mates = [t for t in after.tasks.values() if t.service_id == other.id]
            if dep.condition == "service_completed_successfully":
                met = any(t.status.state == TaskState.COMPLETE for t in mates)
            else:
                met = any(running(t) and wanted(t) for t in mates)
                if dep.condition == "service_started":
                    met = met or any(_started(t) for t in mates)
            require(met or not dep.required, f"started before {dep.service} ({dep.condition}): {show(new)}")


def _started(task: Task) -> bool:
    state = task.status.state
    return state == TaskState.COMPLETE or (
        state == TaskState.STARTING and bool(task.status.started_at) and wanted(task)
    )


def check_converged(world: World) -> None:
    """With the faults over and time passed: exactly what was asked for, and nothing else."""
    by_service = world.by_service()
    for task in world.tasks.values():
        require(
            alive(task.status.state) or not wanted(task) or task.status.state == TaskState.COMPLETE,
            f"an ended task is still wanted: {show(task)}",
        )
        require(wanted(task) or not alive(task.status.state), f"told to stop and still there: {show(task)}")
    for service in world.services.values():
        require(not service.pending_delete, f"{service.spec.name} was removed and is still there")
        tasks = by_service.get(service.id, [])
        image = service.spec.task.container.image
        if service.spec.mode.kind.endswith("job"):
            _job_converged(service, tasks, world)
        elif image.startswith(("ok", "slow")) and not service.spec.depends_on:
            _service_converged(service, tasks, world)
        status = service.update_status
        require(
            status is None or status.state not in ("updating", "rollback_started") or _may_hang(service),
            f"{service.spec.name} is still {status.state if status else ''}: {status}",
        )


def _may_hang(service: Service) -> bool:
    """Whether an update of it may go on for longer than a history waits."""
    return bool(service.spec.depends_on) or not service.spec.task.container.image.startswith(("ok", "slow"))


def _service_converged(service: Service, tasks: list[Task], world: World) -> None:
    up = [t for t in tasks if live(t)]
    name = service.spec.name
    paused = service.update_status is not None and "paused" in service.update_status.state
    pending = [t for t in up if not running(t)]
    require(
        not pending or paused or all(_no_room(t) for t in pending),
        f"{name} does not run: {[show(t) + ' ' + t.status.err for t in pending]}",
    )
    by_slot = Counter(slot_of(t) for t in up if running(t))
    require(paused or all(n == 1 for n in by_slot.values()), f"{name} has slots with two tasks: {by_slot}")
    if service.spec.mode.kind == "global":
        want = {
            n.id
            for n in world.nodes.values()
            if good_node(world, n.id) and node_matches(service.spec.task.placement.constraints, n)
        }
        require({t.node_id for t in up} == want, f"{name} is on {sorted(t.node_id for t in up)}, not {want}")
    else:
        slots = {t.slot for t in up}
        ended_for_good = (
            service.spec.task.restart.condition != "any" or service.spec.task.restart.max_attempts
        )
        require(
            len(slots) == service.replicas or bool(ended_for_good),
            f"{name} has {len(slots)} slots up of {service.replicas}",
        )
    if not paused and not pending:
        for task in up:
            same = task.spec.container == service.spec.task.container
            require(same, f"{name} is to run {service.spec.task.container.image}: {show(task)}")


def _no_room(task: Task) -> bool:
    return task.status.state <= TaskState.PENDING and bool(task.status.err)


def _job_converged(service: Service, tasks: list[Task], world: World) -> None:
    if service.spec.cron is not None or not service.spec.task.container.image.startswith("job"):
        return
    current = service.job_status.iteration if service.job_status else 0
    done = [t for t in tasks if (t.job_iteration or 0) == current and t.status.state == TaskState.COMPLETE]
    restart = service.spec.task.restart
    if restart.condition == "none" or restart.max_attempts:
        return
    if any(live(t) and _no_room(t) for t in tasks) or service.spec.depends_on:
        return
    if service.spec.mode.kind == "replicated-job":
        require(
            len({t.slot for t in done}) == service.spec.mode.total_completions,
            f"{service.spec.name} completed {len(done)} of {service.spec.mode.total_completions}",
        )
    else:
        want = {
            n.id
            for n in world.nodes.values()
            if good_node(world, n.id) and node_matches(service.spec.task.placement.constraints, n)
        }
        require(want <= {t.node_id for t in done}, f"{service.spec.name} has not completed on {want}")
