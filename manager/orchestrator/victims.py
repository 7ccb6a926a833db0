"""Which slots go first when a service has too many: by the scheduler's own ranking, seen from the end."""

from __future__ import annotations

from collections.abc import Sequence

from manager.orchestrator.slots import Slot
from manager.orchestrator.tasks import running
from manager.scheduler.place import removal_order
from manager.state import View
from pyswarm.objects import Service, Task


def slots_to_remove(view: View, service: Service, slots: Sequence[Slot], count: int) -> list[Slot]:
    """`count` of the slots: those that have nothing running, then as the scheduler would remove tasks.

    Stateful services (`volumes_per_slot`) lose their highest numbers, so that the names that stay are 1 to n.
    """
    if service.spec.volumes_per_slot:
        return sorted(slots, key=lambda slot: -slot.number)[:count]
    idle = [slot for slot in slots if not slot.live]
    if len(idle) >= count:
        return idle[-count:]
    by_task = {_face(slot).id: slot for slot in slots if slot.live}
    order = removal_order(view, service, [_face(slot) for slot in by_task.values()])
    return [*idle, *(by_task[task.id] for task in order[: count - len(idle)])]


def _face(slot: Slot) -> Task:
    """The task that stands for the slot: its running one, or the newest that may get there."""
    tasks = slot.live or slot.tasks
    return next((t for t in reversed(tasks) if running(t)), tasks[-1])
