"""The services' reconciler: asks each service's mode what its tasks are to be.

Keys: `("service", id)` decides about the whole service, `("slot", slot_key)` about one slot of it. While no
update goes on, a task's new state concerns its slot only, so a large service costs no more than a small one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from manager.orchestrator import global_, jobs, replicated
from manager.orchestrator.slots import Scene, Slot, group, settle
from manager.orchestrator.tasks import holds_resources, is_global, is_job, node_lost, updating, wanted
from manager.state import Changed, Key, Plan, View, slot_key
from pyswarm.objects import Node, Service, Task, TaskState


class ServiceOrchestrator:
    """Replicated and global services and jobs, their restarts, updates and dependencies."""

    name = "services"

    def keys(self, change: Changed, view: View) -> Iterable[Key]:
        obj = change.obj
        if isinstance(obj, Task):
            return _keys_of_task(change, view)
        if isinstance(obj, Service):
            return _keys_of_service(change, view)
        if isinstance(obj, Node):
            return _keys_of_node(change, view)
        return ()

    def everything(self, view: View) -> Iterable[Key]:
        return [("service", service.id) for service in view.services()]

    def plan(self, view: View, keys: Collection[Key], now: float) -> Plan:
        plan = Plan()
        whole = {_whole(view, kind, key) for kind, key in keys} - {""}
        for id in sorted(whole):
            service = view.get(Service, id)
            if service is not None and not service.pending_delete:
                _reconcile(view, service, now).write_to(plan)
        for kind, key in keys:
            service_id = key.partition("/")[0]
            if kind == "slot" and service_id not in whole:
                _reconcile_slot(view, service_id, key, plan, now)
        return plan


def _whole(view: View, kind: str, key: str) -> str:
    """The id of the service to decide about as a whole; "" when the key is about a slot. The slots of a job
    depend on each other, so they are decided together."""
    if kind == "service":
        return key
    service = view.get(Service, key.partition("/")[0])
    return service.id if service is not None and is_job(service) else ""


def _reconcile(view: View, service: Service, now: float) -> Scene:
    scene = Scene(view, service, now)
    if is_job(service):
        jobs.reconcile(scene)
    elif is_global(service):
        global_.reconcile(scene)
    else:
        replicated.reconcile(scene)
    return scene


def _reconcile_slot(view: View, service_id: str, key: str, plan: Plan, now: float) -> None:
    service = view.get(Service, service_id)
    if service is None or service.pending_delete:
        return
    slot = group(view.tasks_in_slot(key)).get(key)
    scene = Scene(view, service, now)
    if is_global(service):
        node_id = key.partition("/@")[2]
        global_.reconcile_node(scene, slot or Slot(key, 0, node_id))
    elif slot is not None:
        settle(scene, slot)
    if slot is not None and not updating(service):
        told = slot.live or slot.tasks[-1:]
        if any(not scene.clean(task) for task in told):
            scene.wake_at(scene.service_key, now)  # an update left it out, e.g. while its node was away
    scene.write_to(plan)


# ------------------------------------------------------------------------------------------ what is stale


def _keys_of_service(change: Changed, view: View) -> list[Key]:
    before, after = change.before, change.after
    assert before is None or isinstance(before, Service)
    assert after is None or isinstance(after, Service)
    service = change.obj
    assert isinstance(service, Service)
    if before is not None and after is not None and _decided_alike(before, after):
        return []
    keys: list[Key] = [] if after is None else [("service", service.id)]
    return keys + _dependents(view, service.spec.name)


def _decided_alike(one: Service, other: Service) -> bool:
    return (one.spec is other.spec or one.spec == other.spec) and (
        one.spec_version == other.spec_version
        and one.update_status == other.update_status
        and one.job_status == other.job_status
        and one.replicas == other.replicas
        and one.pending_delete == other.pending_delete
    )


def _dependents(view: View, name: str) -> list[Key]:
    return [("service", service.id) for service in view.services_depending_on(name)]


def _keys_of_task(change: Changed, view: View) -> list[Key]:
    before, after = change.before, change.after
    assert before is None or isinstance(before, Task)
    assert after is None or isinstance(after, Task)
    task = change.obj
    assert isinstance(task, Task)
    if before is not None and after is not None and not _moved(before, after):
        return []
    service = view.get(Service, task.service_id)
    if service is None or service.pending_delete:
        return []
    keys = _dependents(view, service.spec.name)
    if updating(service) or is_job(service) or _left_a_hole(change, view):
        keys.append(("service", service.id))
    elif before is not None:
        keys.append(("slot", slot_key(task)))
    return keys


def _moved(before: Task, after: Task) -> bool:
    return (
        before.status.state != after.status.state
        or before.desired_state != after.desired_state
        or before.status.health != after.status.health
        or bool(before.status.started_at) != bool(after.status.started_at)
    )


def _left_a_hole(change: Changed, view: View) -> bool:
    """Whether a task that nobody had told to go is gone, and its slot is empty."""
    task = change.before
    return (
        change.after is None
        and isinstance(task, Task)
        and task.desired_state != TaskState.REMOVE
        and not view.tasks_of_slot(task)
    )


def _keys_of_node(change: Changed, view: View) -> list[Key]:
    before, after = change.before, change.after
    assert before is None or isinstance(before, Node)
    assert after is None or isinstance(after, Node)
    node = change.obj
    assert isinstance(node, Node)
    if before is not None and after is not None and same_for_placement(before, after):
        return []
    keys: list[Key] = []
    for service in view.services():
        if is_job(service):
            if is_global(service):
                keys.append(("service", service.id))
        elif is_global(service):
            keys.append(("slot", global_.node_slot(service, node.id)))
    return keys + _no_longer_waited_for(view, node)


def _no_longer_waited_for(view: View, node: Node) -> list[Key]:
    """The slots whose next task waits for one to stop of which nobody will hear any more."""
    if not node_lost(view, node.id):
        return []
    return [
        ("slot", slot_key(task))
        for task in view.tasks_of_node(node.id)
        if task.service_id and not wanted(task) and holds_resources(task)
    ]


def same_for_placement(before: Node, after: Node) -> bool:
    """Whether nothing changed that decides if a task may be on the node."""
    return (
        before.spec == after.spec
        and before.status.state == after.status.state
        and before.status.addr == after.status.addr
        and before.role == after.role
        and (before.description is after.description or before.description == after.description)
    )
