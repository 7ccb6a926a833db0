"""Takes records away: tasks that are told to go and have gone, history beyond the limit, removed services.

Keys: `("slot", slot_key)` for one slot's history, `("service", id)` for a service that is (being) removed.
(Removed networks are the allocator's.)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from manager.orchestrator.tasks import age_order, ended_at, wanted
from manager.state import Changed, Key, Plan, View, slot_key
from pyswarm.objects import Cluster, Service, Task, TaskState, alive

DEFAULT_HISTORY = 5


class TaskReaper:
    """Deletes what nobody needs to see any more."""

    name = "reaper"

    def keys(self, change: Changed, view: View) -> Iterable[Key]:
        obj = change.obj
        if isinstance(obj, Task):
            return _keys_of_task(change, view, obj)
        if isinstance(obj, Service):
            return (("service", obj.id),) if change.after is None or obj.pending_delete else ()
        if isinstance(obj, Cluster):
            return self.everything(view) if _limit_changed(change) else ()
        return ()

    def everything(self, view: View) -> Iterable[Key]:
        keys: dict[Key, None] = {}
        for task in view.tasks():
            if not wanted(task) or not alive(task.status.state):
                keys["slot", slot_key(task)] = None
            if view.get(Service, task.service_id) is None:
                keys["service", task.service_id] = None
        keys.update((("service", s.id), None) for s in view.services() if s.pending_delete)
        return keys

    def plan(self, view: View, keys: Collection[Key], now: float) -> Plan:
        plan = Plan()
        gone: dict[str, None] = {}
        for kind, id in keys:
            if kind == "service":
                _dismiss_service(view, id, plan, gone)
        for kind, id in keys:
            if kind == "slot":
                _reap_slot(view, id, plan, gone)
        return plan


def reapable(task: Task) -> bool:
    """Whether the record may go as soon as it is not wanted: it ended, or it never came to a node's care."""
    return not alive(task.status.state) or task.status.state < TaskState.ASSIGNED


def _keys_of_task(change: Changed, view: View, task: Task) -> list[Key]:
    service = view.get(Service, task.service_id)
    keys: list[Key] = []
    if service is None or service.pending_delete:
        keys.append(("service", task.service_id))
    elif change.after is not None and (
        change.before is None or not wanted(task) or not alive(task.status.state)
    ):
        keys.append(("slot", slot_key(task)))  # a new task makes history of the one before it
    return keys


def _limit_changed(change: Changed) -> bool:
    before, after = change.before, change.after
    return (
        isinstance(before, Cluster)
        and isinstance(after, Cluster)
        and before.spec.task_history_limit != after.spec.task_history_limit
    )


def _dismiss_service(view: View, service_id: str, plan: Plan, gone: dict[str, None]) -> None:
    """Tell a removed service's tasks to go, delete those that have gone, and in the end the record."""
    service = view.get(Service, service_id)
    if service is not None and not service.pending_delete:
        return
    left = False
    for task in view.tasks_of_service(service_id):
        if not task.service_id:
            continue  # an attachment that is not a service's
        if reapable(task):
            plan.delete(task)
            gone[task.id] = None
            continue
        left = True
        if task.desired_state < TaskState.REMOVE:
            plan.put(replace(task, desired_state=TaskState.REMOVE, waiting_for=""))
    if service is not None and not left:
        plan.delete(service)


def _reap_slot(view: View, key: str, plan: Plan, gone: dict[str, None]) -> None:
    tasks = [task for task in view.tasks_in_slot(key) if task.id not in gone]
    history: list[Task] = []
    for task in tasks:
        if not task.service_id or not reapable(task):
            continue
        if task.desired_state >= TaskState.REMOVE or (
            not wanted(task) and task.status.state < TaskState.ASSIGNED
        ):
            plan.delete(task)
        elif not alive(task.status.state):
            history.append(task)
    newest = max((t for t in tasks if t.desired_state < TaskState.REMOVE), key=age_order, default=None)
    limit = view.cluster.spec.task_history_limit if view.cluster is not None else DEFAULT_HISTORY
    if limit < 0:
        return
    past = sorted((t for t in history if t is not newest), key=lambda t: (ended_at(t), age_order(t)))
    for task in past[: max(0, len(past) - limit)]:
        plan.delete(task)
