"""Nodes that cannot keep their tasks: down, drained, gone, or no longer what the tasks ask for.

Keys: `("node", id)`, of all nodes that a service's tasks are on when other constraints count for them.
A task that has to leave gets desired state SHUTDOWN; its service then gives its slot another one. Tasks of a
node that is gone, or down for a day, are ORPHANED: nobody will ever hear of them again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace

from manager.orchestrator.drain import moved_first
from manager.orchestrator.services import same_for_placement
from manager.orchestrator.tasks import (
    ACTIVE_UPDATE,
    PAUSED_UPDATE,
    holds_resources,
    is_global,
    is_job,
    live,
    same_work,
    wanted,
)
from manager.scheduler.constraints import node_matches
from manager.state import Changed, Key, Plan, View
from pyswarm.objects import Node, NodeState, Service, Task, TaskState, Volume, alive, volume_name
from pyswarm.specs import GenericResource

ORPHAN_AFTER = 86_400.0
"""Seconds a node has to be down before its tasks count as lost."""


class ConstraintEnforcer:
    """Takes tasks off nodes that they may not be on."""

    name = "constraints"

    def keys(self, change: Changed, view: View) -> Iterable[Key]:
        before, after = change.before, change.after
        obj = change.obj
        if isinstance(obj, Node):
            if isinstance(before, Node) and isinstance(after, Node) and same_for_placement(before, after):
                return ()
            return (("node", obj.id),)
        if isinstance(before, Service) and isinstance(after, Service) and _ruled_anew(before, after):
            return [
                ("node", id)
                for id in sorted({t.node_id for t in view.tasks_of_service(after.id) if t.node_id})
            ]
        if isinstance(before, Volume) and isinstance(after, Volume):
            return [("node", id) for id in _left(view, before, after)]
        if isinstance(before, Task) and live(before) and not _live(after):
            return [("node", t.node_id) for t in view.tasks_of_slot(before) if _on_drained_node(view, t)]
        if isinstance(after, Task) and _newly_there(before, after):
            node = view.get(Node, after.node_id)
            if node is None or node.status.state == NodeState.DOWN or node.spec.availability == "drain":
                return (("node", after.node_id),)
        return ()

    def everything(self, view: View) -> Iterable[Key]:
        nodes = {node.id for node in view.nodes()}
        nodes.update(task.node_id for task in view.tasks() if task.node_id and task.node_id not in nodes)
        return [("node", id) for id in sorted(nodes)]

    def plan(self, view: View, keys: Collection[Key], now: float) -> Plan:
        plan = Plan()
        for key in keys:
            node = view.get(Node, key[1])
            tasks = view.tasks_of_node(key[1])
            if node is None:
                _orphan(plan, tasks, now, "its node was removed")
            elif node.status.state == NodeState.DOWN:
                _leave_down_node(plan, key, node, tasks, now)
            elif node.spec.availability == "drain":
                staying = moved_first(plan, view, key, node, tasks, now)
                _shut_down(plan, (t for t in tasks if live(t) and t.id not in staying))
            else:
                _shut_down(plan, misplaced(view, node, tasks, now))
        return plan


def _ruled_anew(before: Service, after: Service) -> bool:
    """Whether other constraints count for the service's tasks now: they were changed, or the update that was to
    bring the tasks to them in turn has come to its end."""
    former, present = before.update_status, after.update_status
    ended = (former.state if former is not None else "") != (present.state if present is not None else "")
    return ended or before.spec.task.placement != after.spec.task.placement


def _left(view: View, before: Volume, after: Volume) -> list[str]:
    """Ids of the nodes that the volume is not on any more since it is bound to another one."""
    if after.node_id in ("", before.node_id):
        return []
    return [before.node_id] if before.node_id else [n.id for n in view.nodes() if n.id != after.node_id]


def _live(after: object) -> bool:
    return isinstance(after, Task) and live(after)


def _on_drained_node(view: View, task: Task) -> bool:
    """Whether the task stays on its node only until its successor, which has just ended, would have run."""
    node = view.get(Node, task.node_id) if live(task) else None
    return node is not None and node.spec.availability == "drain"


def _newly_there(before: object, after: Task) -> bool:
    if not after.node_id or not live(after):
        return False
    return not isinstance(before, Task) or before.node_id != after.node_id


def _shut_down(plan: Plan, tasks: Iterable[Task]) -> None:
    for task in tasks:
        plan.put(replace(task, desired_state=TaskState.SHUTDOWN, waiting_for=""))


def _orphan(plan: Plan, tasks: Iterable[Task], now: float, why: str) -> None:
    for task in tasks:
        if not alive(task.status.state):
            continue
        status = replace(
            task.status, state=TaskState.ORPHANED, timestamp=now, message="orphaned", err=why, finished_at=now
        )
        desired = max(task.desired_state, TaskState.SHUTDOWN)
        plan.put(replace(task, status=status, desired_state=TaskState(desired), waiting_for=""))


def _leave_down_node(plan: Plan, key: Key, node: Node, tasks: Iterable[Task], now: float) -> None:
    held = [task for task in tasks if alive(task.status.state)]
    if not held:
        return
    lost_at = node.status.since + ORPHAN_AFTER
    if node.status.since and lost_at <= now:
        _orphan(plan, held, now, "its node has been down for 24 hours")
        return
    if node.status.since:
        plan.wake_at(key, lost_at)
    _shut_down(plan, (task for task in held if wanted(task)))


def misplaced(view: View, node: Node, tasks: Iterable[Task], now: float) -> list[Task]:
    """Tasks that are on the node and that its constraints, CPU, memory or generic resources cannot bear.

    A task is held against the placement its service asks for now, not the one it was made with. The tasks
    that have been there longest keep their resources.
    """
    cpus = node.description.resources.nano_cpus
    memory = node.description.resources.memory
    named, counted = _generic_of(node)
    leave: list[Task] = []
    for task in sorted(tasks, key=lambda t: (t.meta.created_at, t.id)):
        if not holds_resources(task):
            continue
        want = task.spec.resources.reservations
        fits = want.nano_cpus <= cpus and want.memory <= memory
        fits = fits and _has_generic(task.assigned_generic, named, counted)
        if wanted(task) and not (
            fits and _meets_constraints(view, node, task, now) and _has_volumes(view, node, task)
        ):
            leave.append(task)
            continue
        cpus -= want.nano_cpus
        memory -= want.memory
        for resource in task.assigned_generic:
            if not resource.string_value:
                counted[resource.kind] -= resource.value
    return leave


def _has_volumes(view: View, node: Node, task: Task) -> bool:
    """Whether none of the task's volumes is bound to another node."""
    names = [name for mount in task.spec.container.mounts if (name := volume_name(task, mount))]
    found = [volume for name in names if (volume := view.by_name(Volume, name)) is not None]
    return all(volume.node_id in ("", node.id) for volume in found)


def _generic_of(node: Node) -> tuple[set[tuple[str, str]], Counter[str]]:
    named: set[tuple[str, str]] = set()
    counted: Counter[str] = Counter()
    for resource in node.description.resources.generic:
        if resource.string_value:
            named.add((resource.kind, resource.string_value))
        else:
            counted[resource.kind] += resource.value
    return named, counted


def _has_generic(
    assigned: Iterable[GenericResource], named: set[tuple[str, str]], counted: Counter[str]
) -> bool:
    return all(
        (r.kind, r.string_value) in named if r.string_value else r.value <= counted[r.kind] for r in assigned
    )


def _meets_constraints(view: View, node: Node, task: Task, now: float) -> bool:
    service = view.get(Service, task.service_id)
    if service is not None and is_global(service):
        return True  # the global modes decide about their nodes themselves
    placement = service.spec.task.placement if service is not None else task.spec.placement
    if node_matches(placement.constraints, node):
        return True
    # The update to the service's new constraints is going to move it; its own must hold until then. A job's run
    # ends under those that it began with.
    return (
        service is not None
        and task.spec_version != service.spec_version
        and (is_job(service) or _rolled_out_in_turn(service, now) or _followed(view, service, task))
        and node_matches(task.spec.placement.constraints, node)
    )


def _rolled_out_in_turn(service: Service, now: float) -> bool:
    """Whether an update is, or is about to be, what brings the service's tasks to its present spec. Without one
    all of them met the present constraints when these came, and it is the node that has changed."""
    if service.update_status is None:
        return service.meta.updated_at >= now
    return service.update_status.state in (*ACTIVE_UPDATE, *PAUSED_UPDATE)


def _followed(view: View, service: Service, task: Task) -> bool:
    """Whether the slot has a task of the service's present spec: this one stays until that runs, or because it
    failed."""
    placement = service.spec.task.placement
    return any(
        other.spec.placement == placement and same_work(other, service.spec)
        for other in view.tasks_of_slot(task)
    )
