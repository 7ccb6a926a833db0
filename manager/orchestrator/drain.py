"""Leaving a drained node without a gap.

A service whose update order is `start-first` says that two tasks of a slot may run side by side. So when its node is
drained, the successor comes first (`rollout="moving"`), and the old task is told to go when that runs (see
`slots.settle`). The drain wins over the service: when no node can take the successor, when it fails, or when it does
not run within PATIENCE, the old task goes all the same. All other tasks go at once, as with Swarm.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from manager.orchestrator.slots import Scene, Slot, create, group, release
from manager.orchestrator.tasks import SELF_ENDED, age_order, live, running
from manager.state import Key, Plan, View, slot_key
from pyswarm.objects import Node, Service, Task, TaskState
from pyswarm.specs import update_config

PATIENCE = 60.0
"""Seconds that a successor has to get RUNNING."""
LOOK = 1.0
"""Seconds between looks at successors on their way."""


def moved_first(plan: Plan, view: View, key: Key, node: Node, tasks: Iterable[Task], now: float) -> set[str]:
    """The tasks of a drained node that stay for now, each with a successor on its way (which the plan makes)."""
    staying: set[str] = set()
    for task in sorted(tasks, key=age_order):
        service = view.get(Service, task.service_id)
        if service is None or not running(task) or not live(task) or not _overlaps(service):
            continue
        slot = group(view.tasks_in_slot(slot_key(task)))[slot_key(task)]
        if _may_stay(slot, task, node, now):
            staying.add(task.id)
            if not _heirs(slot, task, node):
                _make_heir(plan, view, service, _as_drained(slot, node), now)
    if staying:
        plan.wake_at(key, now + LOOK)
    return staying


def _overlaps(service: Service) -> bool:
    """Whether two tasks of a slot may run side by side."""
    return (
        service.spec.mode.kind == "replicated"
        and update_config(service.spec.update).order == "start-first"
        and not service.spec.volumes_per_slot
        and not service.pending_delete
    )


def _heirs(slot: Slot, task: Task, node: Node) -> list[Task]:
    return [t for t in slot.live if t.id != task.id and t.node_id != node.id]


def _may_stay(slot: Slot, task: Task, node: Node, now: float) -> bool:
    heirs = _heirs(slot, task, node)
    if heirs:
        return any(_on_its_way(heir, now) for heir in heirs)
    failed = (t for t in slot.tasks if t.rollout == "moving" and t.status.state in SELF_ENDED)
    return all(t.meta.created_at + PATIENCE <= now for t in failed)


def _on_its_way(heir: Task, now: float) -> bool:
    """Not running yet, but to be expected; who has no node and an error has found none."""
    lost = not heir.node_id and heir.status.err
    return not running(heir) and not lost and now < heir.meta.created_at + PATIENCE


def _as_drained(slot: Slot, node: Node) -> Slot:
    """The slot when what does not run yet on the node has been told to stop: an heir starts after that, too."""
    tasks = [
        replace(t, desired_state=TaskState.SHUTDOWN)
        if live(t) and t.node_id == node.id and not running(t)
        else t
        for t in slot.tasks
    ]
    return replace(slot, tasks=tasks)


def _make_heir(plan: Plan, view: View, service: Service, slot: Slot, now: float) -> None:
    scene = Scene(view, service, now)
    scene.put(slot, replace(create(scene, slot), rollout="moving"))
    release(scene, slot)
    scene.write_to(plan)
