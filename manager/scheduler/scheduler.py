"""PENDING tasks get their node, or a reason why not.

Keys: `("service", id)` places what waits of a service; `("node", id)` asks, when a node came up, changed or
got something free, whether a waiting service now fits there. Tasks are placed in groups of one service and
one version of its spec, so that the filters are asked once for all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from manager.scheduler.filters import (
    Request,
    Static,
    claim_generic,
    explain,
    reason_against,
    request_of,
    static_reason,
)
from manager.scheduler.place import Placer
from manager.scheduler.usage import Usage, is_waiting
from manager.state import Changed, Key, Plan, View
from pyswarm.objects import (
    SLOT_OF_LABEL,
    Node,
    Service,
    Task,
    TaskState,
    Volume,
    alive,
    volume_name,
)
from pyswarm.specs import Driver, Mount, VolumeSpec

ASSIGNED_MESSAGE = "scheduler assigned task to node"
CONFIRMED_MESSAGE = "scheduler confirmed task can run on preassigned node"

REASON_REFRESH = 5.0
"""Seconds for which a task's reason stands before other numbers in it are written: with many waiting tasks
each change of a node would otherwise rewrite them all."""

_MAX_STATICS = 256


class Scheduler:
    """The scheduler as a Reconciler. Its caches follow the view (see `Usage`)."""

    name = "scheduler"

    def __init__(self) -> None:
        self.usage = Usage()
        self._view: View | None = None
        self._statics: dict[Static, tuple[dict[str, None], Counter[str]]] = {}

    # ------------------------------------------------------------------------------------------ what is stale

    def keys(self, change: Changed, view: View) -> Iterable[Key]:
        obj = change.obj
        if isinstance(obj, Task):
            return self._keys_of_task(change)
        if isinstance(obj, Node):
            return self._keys_of_node(change, obj)
        if isinstance(obj, Volume):
            return [("service", id) for id in self._waiting(view)]
        return ()

    def _keys_of_task(self, change: Changed) -> list[Key]:
        before, after = change.before, change.after
        assert before is None or isinstance(before, Task)
        assert after is None or isinstance(after, Task)
        self.usage.note((after or before).id)  # pyright: ignore[reportOptionalMemberAccess]
        keys: list[Key] = []
        if after is not None and is_waiting(after) and not _same_but_status(before, after):
            keys.append(("service", after.service_id))
        if before is not None and _holds(before) > _holds(after):
            keys.append(("node", before.node_id))
        return keys

    def _keys_of_node(self, change: Changed, obj: Node) -> list[Key]:
        before, after = change.before, change.after
        assert before is None or isinstance(before, Node)
        assert after is None or isinstance(after, Node)
        self.usage.note_node(obj.id, after is not None)
        if _same_for_placing(before, after):
            return []
        self._statics.clear()
        return [("node", obj.id)]

    def everything(self, view: View) -> Iterable[Key]:
        self.usage.rebuild(view)
        self._statics.clear()
        return [("service", id) for id in self.usage.waiting_services()]

    def _waiting(self, view: View) -> list[str]:
        self.usage.sync(view)
        return self.usage.waiting_services()

    # --------------------------------------------------------------------------------------------- deciding

    def plan(self, view: View, keys: Collection[Key], now: float) -> Plan:
        if self._view is not view:
            self._statics.clear()
            self._view = view
        self.usage.sync(view)
        plan = Plan()
        services = {id: None for kind, id in keys if kind == "service"}
        nodes = [node for kind, id in keys if kind == "node" and (node := view.get(Node, id)) is not None]
        if nodes or any(kind == "node" for kind, _ in keys):
            self._add_services_that_fit(view, nodes, services, plan, now)
        waiting = {id: self._waiting_tasks(view, id) for id in services}
        for tasks in waiting.values():
            for task in tasks:
                if task.node_id:
                    self._confirm(view, task, plan, now)
        for id, tasks in waiting.items():
            groups: dict[object, list[Task]] = {}
            for task in tasks:
                if not task.node_id:
                    groups.setdefault(_group(task), []).append(task)
            for group in groups.values():
                self._place_group(view, ("service", id), group, plan, now)
        return plan

    def _waiting_tasks(self, view: View, service_id: str) -> list[Task]:
        tasks = [view.get(Task, id) for id in self.usage.waiting_tasks(service_id)]
        return sorted((task for task in tasks if task is not None), key=lambda task: (task.slot, task.id))

    def _add_services_that_fit(
        self, view: View, nodes: list[Node], services: dict[str, None], plan: Plan, now: float
    ) -> None:
        """Add the waiting services of which a task now fits on one of the nodes; the others only see
        numbers change in their reason, and are asked when it is due."""
        for id in self.usage.waiting_services():
            if id in services:
                continue
            samples = self._samples(view, id)
            if any(self._fits_one(view, task, nodes) for task in samples):
                services[id] = None
            else:
                due = min(task.status.timestamp for task in samples) + REASON_REFRESH
                plan.wake_at(("service", id), max(due, now))

    def _samples(self, view: View, service_id: str) -> list[Task]:
        """One waiting task for each thing that the service's waiting tasks ask for."""
        service = view.get(Service, service_id)
        each = service is not None and service.spec.volumes_per_slot
        ids = (self.usage.waiting_tasks if each else self.usage.waiting_samples)(service_id)
        return [task for id in ids if (task := view.get(Task, id)) is not None]

    def _fits_one(self, view: View, task: Task, nodes: Iterable[Node]) -> bool:
        request = request_of(task, view)
        return any(
            not self._reason(request, node) for node in nodes if not task.node_id or task.node_id == node.id
        )

    def _reason(self, request: Request, node: Node) -> str:
        own = self.usage.service_counts(request.service_id).get(node.id, 0)
        return reason_against(request, node, self.usage.load(node.id), own)

    def _confirm(self, view: View, task: Task, plan: Plan, now: float) -> None:
        node = view.get(Node, task.node_id)
        request = request_of(task, view)
        reason = self._reason(request, node) if node is not None else "gone"
        if node is None or reason:
            self._wait(task, explain({reason: 1}), ("service", task.service_id), plan, now)
            return
        self._assign(view, task, node, request, CONFIRMED_MESSAGE, plan, now)

    def _place_group(
        self,
        view: View,
        key: Key,
        tasks: list[Task],
        plan: Plan,
        now: float,
        *,
        leave_volumes: bool = False,
    ) -> None:
        first = tasks[0]
        request = request_of(first, view)
        if leave_volumes:
            request = replace(request, volumes=())
        eligible, refused = self._static(view, request.static)
        placement = first.spec.placement
        placer = Placer(
            view,
            self.usage,
            request,
            eligible,
            preferences=[preference.spread_descriptor for preference in placement.preferences],
            strategy=placement.strategy,
            now=now,
        )
        for number, task in enumerate(tasks):
            node = placer.next()
            if node is None and self._may_leave_volumes(view, key, request, task, plan, now):
                self._place_group(view, key, tasks, plan, now, leave_volumes=True)
                return
            if node is None:
                text = self._explain(view, request, refused + placer.reasons)
                for waiting in tasks[number:]:
                    self._wait(waiting, text, key, plan, now)
                return
            self._assign(view, task, node, request, ASSIGNED_MESSAGE, plan, now)

    def _may_leave_volumes(
        self, view: View, key: Key, request: Request, task: Task, plan: Plan, now: float
    ) -> bool:
        """Whether the slot has waited for the node of its volumes for as long as its service says; asks again
        when it will have."""
        if not task.slot_volumes or not request.volumes:
            return False
        service = view.get(Service, task.service_id)
        patience = service.spec.volumes_move_after if service is not None else None
        if patience is None:
            return False
        until = task.meta.created_at + patience
        if until > now:
            plan.wake_at(key, until)
        return until <= now

    def _static(self, view: View, static: Static) -> tuple[Mapping[str, None], Counter[str]]:
        """The nodes that pass the static filters, and the reasons of the others."""
        known = self._statics.get(static)
        if known is None:
            if len(self._statics) >= _MAX_STATICS:
                self._statics.clear()
            eligible: dict[str, None] = {}
            refused: Counter[str] = Counter()
            for node in view.nodes():
                reason = static_reason(static, node)
                if reason:
                    refused[reason] += 1
                else:
                    eligible[node.id] = None
            known = self._statics[static] = (eligible, refused)
        return known

    def _explain(self, view: View, request: Request, reasons: Mapping[str, int]) -> str:
        text = explain(reasons)
        for name, node_id in request.volumes:
            node = view.get(Node, node_id)
            host = (node.description.hostname if node is not None else "") or node_id
            reason = self._reason(request, node) if node is not None else "gone"
            if reason:
                return f"waiting for node {host}, which holds the volume {name}: {reason}"
        return text

    def _assign(
        self, view: View, task: Task, node: Node, request: Request, message: str, plan: Plan, now: float
    ) -> None:
        generic = claim_generic(node, self.usage.load(node.id), request.generic) if request.generic else ()
        status = replace(task.status, state=TaskState.ASSIGNED, timestamp=now, message=message, err="")
        assigned = replace(
            task,
            node_id=node.id,
            status=status,
            assigned_generic=generic,
        )
        plan.put(assigned)
        for volume in _slot_volumes(view, assigned):
            plan.put(volume)
        self.usage.assume(assigned)

    def _wait(self, task: Task, text: str, key: Key, plan: Plan, now: float) -> None:
        if task.status.err == text:
            return
        due = task.status.timestamp + REASON_REFRESH
        if task.status.err and now < due:
            plan.wake_at(key, due)
            return
        plan.put(replace(task, status=replace(task.status, timestamp=now, err=text)))


def _group(task: Task) -> object:
    if not task.service_id or task.slot_volumes:
        return task.id
    return (task.spec_version, task.endpoint)


def _slot_volumes(view: View, task: Task) -> list[Volume]:
    """The records of the slot's own volumes, where they do not say yet that they are on the task's node. They
    outlive the tasks, the service and its stack, as volumes do."""
    if not task.slot_volumes:
        return []
    records: dict[str, Volume] = {}
    for mount in task.spec.container.mounts:
        name = volume_name(task, mount)
        known = view.by_name(Volume, name) if name else None
        if known is not None and known.node_id != task.node_id:
            records[name] = replace(known, node_id=task.node_id)
        elif known is None and name:
            records[name] = Volume(
                id=view.new_id(), spec=_slot_volume_spec(view, task, mount), node_id=task.node_id
            )
    return list(records.values())


def _slot_volume_spec(view: View, task: Task, mount: Mount) -> VolumeSpec:
    """Like the volume that the service names, if there is a record of it, or else as the mount says."""
    model = view.by_name(Volume, mount.source)
    labels = model.spec.labels if model is not None else mount.volume_labels
    driver = model.spec.driver if model is not None else mount.volume_driver
    return VolumeSpec(
        name=volume_name(task, mount),
        labels={**labels, SLOT_OF_LABEL: mount.source},
        driver=driver or Driver(name="local"),
    )


def _holds(task: Task | None) -> int:
    """2 while the task counts and holds resources, 1 while it only holds them, 0 when it does neither."""
    if task is None or not task.node_id or task.status.state < TaskState.ASSIGNED:
        return 0
    if not alive(task.status.state):
        return 0
    return 2 if task.desired_state <= TaskState.COMPLETE else 1


def _same_but_status(before: Task | None, after: Task) -> bool:
    """Whether only the reason for waiting changed: the scheduler's own answer."""
    return before is not None and is_waiting(before) and before.node_id == after.node_id


def _same_for_placing(before: Node | None, after: Node | None) -> bool:
    if before is None or after is None:
        return before is after
    return (
        before.spec == after.spec
        and before.description == after.description
        and before.status.state == after.status.state
        and before.status.addr == after.status.addr
        and before.role == after.role
    )
