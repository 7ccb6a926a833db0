"""Global services: one task on every node that is ready, active and meets the constraints."""

from __future__ import annotations

from manager.orchestrator import update
from manager.orchestrator.jobs_state import takes_new_tasks
from manager.orchestrator.slots import Scene, Slot, create, end, group, release, settle
from manager.scheduler.constraints import node_matches
from manager.state import slot_key
from pyswarm.objects import Node, NodeState, Service, Task, TaskState


def node_slot(service: Service, node_id: str) -> str:
    """The slot key of the service's task on a node."""
    return slot_key(Task(id="", service_id=service.id, node_id=node_id))


def reconcile(scene: Scene) -> None:
    slots = group(scene.view.tasks_of_service(scene.service.id))
    for node in scene.view.nodes():
        key = node_slot(scene.service, node.id)
        if key not in slots and takes_new_tasks(node, scene.service):
            slots[key] = Slot(key, 0, node.id)
    staying: list[Slot] = []
    resting: list[Slot] = []
    for slot in slots.values():
        (staying if reconcile_node(scene, slot) else resting).append(slot)
    update.advance(scene, staying, resting)


def reconcile_node(scene: Scene, slot: Slot) -> bool:
    """Settle one node's copy; False when the node is to have none (any more) or takes no new task."""
    node = scene.view.get(Node, slot.node_id)
    if node is None:
        scene.remove(slot)
        return False
    if not keeps_tasks(node, scene.service):
        for task in slot.live:
            scene.say(slot, task, TaskState.SHUTDOWN)
        return False
    if not takes_new_tasks(node, scene.service):
        end(scene, slot)
        return False
    if slot.tasks:
        settle(scene, slot)
    else:
        create(scene, slot)
        release(scene, slot)
    return True


def keeps_tasks(node: Node, service: Service) -> bool:
    """Whether a task of the service that is on the node may stay: a paused or unknown node keeps its own."""
    return (
        node.status.state != NodeState.DOWN
        and node.spec.availability != "drain"
        and node_matches(service.spec.task.placement.constraints, node)
    )
