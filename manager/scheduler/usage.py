"""What is taken on each node: an incremental cache over the tasks of the view.

`note` marks a task as changed, `sync` makes the cache agree with the view for every marked task. So it does
not matter how often, in which order or from where a change is told, or that a round was rolled back: what
counts is what the view says when the cache is used. `rebuild` starts from nothing.

Rules, SwarmKit's: a task holds its node's resources and ports from ASSIGNED until it is observed to have
ended; it counts in the ranking only while it is wanted (`desired_state` up to COMPLETE).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from manager.state import View
from pyswarm.objects import Task, TaskState, alive
from pyswarm.specs import GenericResource, PortConfig

HostPort = tuple[int, str, str]
"""(port, protocol, address of the node or "" for every one)."""

WaitingGroup = tuple[int, str]
"""Spec version, and what ties the task to one node: a task that is tied is a group of its own."""

FAILURE_WINDOW = 300.0
"""Seconds for which a failure counts against a node."""


def host_ports(ports: Iterable[PortConfig]) -> tuple[HostPort, ...]:
    """The ports that a task opens on its node itself and that were asked for by number."""
    return tuple(
        (p.published_port, p.protocol, p.host_ip)
        for p in ports
        if p.publish_mode == "host" and p.published_port
    )


@dataclass(slots=True)
class Load:
    """What the tasks on one node hold."""

    nano_cpus: int = 0
    memory: int = 0
    total: int = 0
    """Wanted tasks of all services."""
    discrete: Counter[str] = field(default_factory=Counter[str])
    """Generic resources by kind, counted."""
    named: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    """Generic resources by kind and name."""
    ports: Counter[HostPort] = field(default_factory=Counter[HostPort])


NO_LOAD = Load()


@dataclass(frozen=True, slots=True)
class _Placed:
    """What one task adds to its node's load."""

    node_id: str
    service_id: str
    nano_cpus: int
    memory: int
    generic: tuple[GenericResource, ...]
    ports: tuple[HostPort, ...]
    wanted: bool


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A task that is to be placed or confirmed."""

    service_id: str
    group: WaitingGroup


@dataclass(frozen=True, slots=True)
class _Failed:
    """A failure that may count against a node."""

    service_id: str
    spec_version: int
    node_id: str
    timestamp: float


_Record = _Placed | _Waiting | _Failed


def is_waiting(task: Task) -> bool:
    """Whether the scheduler has to find or confirm a node for the task."""
    return task.status.state == TaskState.PENDING and task.desired_state <= TaskState.COMPLETE


def _record(task: Task) -> _Record | None:
    state = task.status.state
    if is_waiting(task):
        tied = task.node_id or task.slot_volumes or not task.service_id
        return _Waiting(task.service_id, (task.spec_version, task.id if tied else ""))
    if not task.node_id or state < TaskState.ASSIGNED:
        return None
    if alive(state):
        reserved = task.spec.resources.reservations
        return _Placed(
            task.node_id,
            task.service_id,
            reserved.nano_cpus,
            reserved.memory,
            task.assigned_generic,
            host_ports(task.endpoint.ports),
            task.desired_state <= TaskState.COMPLETE,
        )
    if state in (TaskState.FAILED, TaskState.REJECTED):
        return _Failed(task.service_id, task.spec_version, task.node_id, task.status.timestamp)
    return None


class Usage:
    """The cache. Read it only after `sync` with the view of the moment."""

    def __init__(self) -> None:
        self._view: View | None = None
        self._dirty: dict[str, None] = {}
        self._clear()

    def _clear(self) -> None:
        self._records: dict[str, _Record] = {}
        self._loads: dict[str, Load] = {}
        self._by_service: dict[str, dict[str, int]] = {}
        self._waiting: dict[str, dict[WaitingGroup, dict[str, None]]] = {}
        self._failures: dict[tuple[str, int], dict[str, _Failed]] = {}
        self._order: list[tuple[int, str]] = []
        self._nodes: dict[str, None] = {}
        self._dirty.clear()

    def note(self, task_id: str) -> None:
        """The task changed in some way."""
        self._dirty[task_id] = None

    def note_node(self, node_id: str, exists: bool) -> None:
        """The node came or went."""
        if exists and node_id not in self._nodes:
            self._nodes[node_id] = None
            insort(self._order, (self.load(node_id).total, node_id))
        elif not exists and node_id in self._nodes:
            del self._nodes[node_id]
            self._remove_from_order(self.load(node_id).total, node_id)

    def rebuild(self, view: View) -> None:
        """Forget everything and read the view from the start."""
        self._clear()
        self._view = view
        self._nodes = {node.id: None for node in view.nodes()}
        self._order = sorted((0, id) for id in self._nodes)
        for task in view.tasks():
            self.replace(task.id, task)

    def sync(self, view: View) -> None:
        """Agree with `view`."""
        if self._view is not view:
            self.rebuild(view)
            return
        if not self._dirty:
            return
        dirty, self._dirty = self._dirty, {}
        for task_id in dirty:
            self.replace(task_id, view.get(Task, task_id))

    def replace(self, task_id: str, task: Task | None) -> None:
        """Count the task as `task` is, instead of as it was counted so far."""
        before = self._records.pop(task_id, None)
        after = _record(task) if task is not None else None
        if before is not None:
            self._count(task_id, before, -1)
        if after is not None:
            self._records[task_id] = after
            self._count(task_id, after, 1)

    def assume(self, task: Task) -> None:
        """Count what a plan is about to say; checked against the view at the next `sync`."""
        self.replace(task.id, task)
        self._dirty[task.id] = None

    def _count(self, task_id: str, record: _Record, sign: int) -> None:
        if isinstance(record, _Placed):
            self._count_placed(record, sign)
        elif isinstance(record, _Waiting):
            self._count_waiting(task_id, record, sign)
        else:
            self._count_failed(task_id, record, sign)

    def _count_waiting(self, task_id: str, record: _Waiting, sign: int) -> None:
        if sign > 0:
            self._waiting.setdefault(record.service_id, {}).setdefault(record.group, {})[task_id] = None
            return
        groups = self._waiting[record.service_id]
        del groups[record.group][task_id]
        if not groups[record.group]:
            del groups[record.group]
            if not groups:
                del self._waiting[record.service_id]

    def _count_failed(self, task_id: str, record: _Failed, sign: int) -> None:
        key = (record.service_id, record.spec_version)
        if sign > 0:
            self._failures.setdefault(key, {})[task_id] = record
            return
        del self._failures[key][task_id]
        if not self._failures[key]:
            del self._failures[key]

    def _count_placed(self, record: _Placed, sign: int) -> None:
        load = self._loads.get(record.node_id)
        if load is None:
            load = self._loads[record.node_id] = Load()
        load.nano_cpus += sign * record.nano_cpus
        load.memory += sign * record.memory
        if record.generic:
            _count_generic(load, record.generic, sign)
        for port in record.ports:
            load.ports[port] += sign
        if not record.wanted:
            return
        load.total += sign
        if record.node_id in self._nodes:
            self._remove_from_order(load.total - sign, record.node_id)
            insort(self._order, (load.total, record.node_id))
        counts = self._by_service.setdefault(record.service_id, {})
        count = counts.get(record.node_id, 0) + sign
        if count:
            counts[record.node_id] = count
        else:
            del counts[record.node_id]
            if not counts:
                del self._by_service[record.service_id]

    def _remove_from_order(self, total: int, node_id: str) -> None:
        entry = (total, node_id)
        place = bisect_left(self._order, entry)
        assert self._order[place] == entry
        del self._order[place]

    def load(self, node_id: str) -> Load:
        """What is held on the node."""
        return self._loads.get(node_id, NO_LOAD)

    def order(self) -> list[tuple[int, str]]:
        """(wanted tasks, node id) of every node, fewest first; a copy."""
        return self._order.copy()

    def service_counts(self, service_id: str) -> Mapping[str, int]:
        """Wanted tasks of the service by node id, nodes without one left out."""
        return self._by_service.get(service_id, _NO_COUNTS)

    def waiting_services(self) -> list[str]:
        """Services with tasks that wait for a node, sorted."""
        return sorted(self._waiting)

    def waiting_tasks(self, service_id: str) -> list[str]:
        """Ids of the service's tasks that wait for a node."""
        return [id for tasks in self._waiting.get(service_id, {}).values() for id in tasks]

    def waiting_samples(self, service_id: str) -> list[str]:
        """The id of one waiting task of each group of the service."""
        return [next(iter(tasks)) for tasks in self._waiting.get(service_id, {}).values()]

    def recent_failures(self, service_id: str, spec_version: int, now: float) -> Mapping[str, int]:
        """Failures of this version of the service within `FAILURE_WINDOW`, by node id."""
        failures = self._failures.get((service_id, spec_version))
        if not failures:
            return _NO_COUNTS
        counts: dict[str, int] = defaultdict(int)
        for failed in failures.values():
            if now - failed.timestamp <= FAILURE_WINDOW:
                counts[failed.node_id] += 1
        return counts

    def snapshot(self) -> object:
        """A comparable value of all that is counted: two caches of the same view have equal ones."""
        loads = {
            id: (load.nano_cpus, load.memory, load.total, +load.ports, +load.discrete, +load.named)
            for id, load in self._loads.items()
        }
        return (
            dict(self._records),
            {id: values for id, values in loads.items() if any(values)},
            {id: dict(counts) for id, counts in self._by_service.items()},
            {
                id: {group: sorted(ids) for group, ids in groups.items()}
                for id, groups in self._waiting.items()
            },
            {key: dict(failed) for key, failed in self._failures.items()},
            list(self._order),
        )


_NO_COUNTS: Mapping[str, int] = {}


def _count_generic(load: Load, resources: Iterable[GenericResource], sign: int) -> None:
    for resource in resources:
        if resource.string_value:
            load.named[resource.kind, resource.string_value] += sign
        else:
            load.discrete[resource.kind] += sign * resource.value
