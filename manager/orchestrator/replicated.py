"""Replicated services: as many slots as replicas, each kept alive."""

from __future__ import annotations

from collections.abc import Mapping

from manager.orchestrator import update
from manager.orchestrator.slots import Scene, Slot, create, group, release, settle
from manager.orchestrator.victims import slots_to_remove
from manager.state import slot_key
from pyswarm.objects import Task

MOST_NEW = 1_000
"""Tasks made in one plan; the rest is planned right after, so that no transaction grows without limit."""


def reconcile(scene: Scene) -> None:
    """Make the service's slots what its spec says, within this moment's limits."""
    every = group(scene.view.tasks_of_service(scene.service.id))
    slots = {key: slot for key, slot in every.items() if slot.tasks}
    excess = len(slots) - scene.service.replicas
    if excess > 0:
        for slot in slots_to_remove(scene.view, scene.service, list(slots.values()), excess):
            scene.remove(slot)
            del slots[slot.key]
    for slot in slots.values():
        settle(scene, slot)
    if scene.service.spec.stopped:
        return
    for slot in new_slots(scene, every, -excess):
        create(scene, slot)
        release(scene, slot)
    update.advance(scene, list(slots.values()))


def new_slots(scene: Scene, every: Mapping[str, Slot], count: int) -> list[Slot]:
    """The lowest free numbers, at most MOST_NEW of them; asks to be called again for more."""
    slots: list[Slot] = []
    number = 0
    while len(slots) < min(count, MOST_NEW):
        number += 1
        key = slot_key(Task(id="", service_id=scene.service.id, slot=number))
        slot = every.get(key) or Slot(key, number, "")
        if not slot.tasks:
            slots.append(slot)
    if count > MOST_NEW:
        scene.wake_at(scene.service_key, scene.now)
    return slots
