"""Jobs: tasks that are to complete, so many times (replicated) or once on every node (global).

A job runs in iterations. A new one begins when the task spec changed since the tasks of the present one were
made, when a user asks (`force_update`), or by the clock (see cron.py). Slots are numbered 1 to
total_completions; a failed task is followed by another in its slot as the restart policy says, and one that
failed for good leaves the job incomplete.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from manager.orchestrator.global_ import keeps_tasks, node_slot
from manager.orchestrator.jobs_state import busy, due, iteration_of, takes_new_tasks
from manager.orchestrator.restart import should_restart
from manager.orchestrator.slots import Scene, Slot, completed, create, end, group, release, settle
from manager.orchestrator.tasks import is_global
from manager.state import slot_key
from pyswarm.objects import JobStatus, Node, Task, TaskState


def reconcile(scene: Scene) -> None:
    tasks = scene.view.tasks_of_service(scene.service.id)
    iterations = by_iteration(tasks)
    if _outdated(scene, iterations.get(iteration_of(scene.service), [])):
        _next_iteration(scene)
    current = iteration_of(scene.service)
    for iteration in old_iterations_to_remove(scene, iterations, current):
        for slot in group(iterations[iteration]).values():
            scene.remove(slot)
    for iteration in sorted(iterations):
        if iteration == current:
            continue
        if busy(iterations[iteration]):
            _go_on(scene, iterations[iteration], iteration, new=False)
            continue
        for slot in group(_kept(scene, iterations[iteration])).values():
            end(scene, slot)  # the last of a former run has ended: nothing follows it any more
    if due(scene.service):
        _go_on(scene, iterations.get(current, []), current, new=True)


def _kept(scene: Scene, tasks: Sequence[Task]) -> list[Task]:
    return [task for task in tasks if scene.puts.get(task.id, task).desired_state != TaskState.REMOVE]


def by_iteration(tasks: Sequence[Task]) -> dict[int, list[Task]]:
    iterations: dict[int, list[Task]] = defaultdict(list)
    for task in tasks:
        if task.desired_state != TaskState.REMOVE:
            iterations[task.job_iteration or 0].append(task)
    return iterations


def _outdated(scene: Scene, tasks: Sequence[Task]) -> bool:
    """Whether the job was changed since this iteration's tasks were made (cron jobs wait for their time)."""
    return scene.service.spec.cron is None and any(not scene.clean(task) for task in tasks)


def _next_iteration(scene: Scene) -> None:
    status = JobStatus(iteration=iteration_of(scene.service) + 1, last_execution=scene.now)
    scene.service_put = scene.service = replace(scene.service, job_status=status)


def old_iterations_to_remove(
    scene: Scene, iterations: Mapping[int, Sequence[Task]], current: int
) -> list[int]:
    """All former iterations; of a cron job those that are over and beyond its history, and running ones
    unless it allows them beside the new one."""
    cron = scene.service.spec.cron
    former = sorted((i for i in iterations if i != current), reverse=True)
    if cron is None:
        return former
    kept = 0
    remove: list[int] = []
    for iteration in former:
        if busy(iterations[iteration]):
            if cron.concurrency == "replace":
                remove.append(iteration)
            continue
        kept += 1
        if kept > max(0, cron.history - 1):
            remove.append(iteration)
    return remove


def _go_on(scene: Scene, tasks: Sequence[Task], iteration: int, new: bool) -> None:
    slots = group(_kept(scene, tasks))
    if is_global(scene.service):
        _global(scene, slots, new)
    else:
        _replicated(scene, slots, new)


def _replicated(scene: Scene, slots: dict[str, Slot], new: bool) -> None:
    mode = scene.service.spec.mode
    for slot in slots.values():
        if slot.number > mode.total_completions and slot.live:
            scene.remove(slot)
        elif completed(slot):
            scene.shut_down(slot)  # a lost node came back and had done the work after all
        else:
            settle(scene, slot)
    if not new:
        return
    room = mode.max_concurrent - sum(1 for slot in slots.values() if slot.live or delayed(scene, slot))
    if mode.max_concurrent == 0:
        room = mode.total_completions
    for number in range(1, mode.total_completions + 1):
        if room <= 0:
            return
        key = slot_key(Task(id="", service_id=scene.service.id, slot=number))
        if key not in slots:
            slot = Slot(key, number, "")
            create(scene, slot)
            release(scene, slot)
            room -= 1


def delayed(scene: Scene, slot: Slot) -> bool:
    """Whether the slot is between a task that failed and the next one."""
    newest = slot.newest
    return newest is not None and newest.not_before > scene.now and should_restart(newest, scene.service)


def _global(scene: Scene, slots: dict[str, Slot], new: bool) -> None:
    for slot in slots.values():
        node = scene.view.get(Node, slot.node_id)
        if node is None:
            scene.remove(slot)
        elif not keeps_tasks(node, scene.service) or completed(slot):
            scene.shut_down(slot)
        elif takes_new_tasks(node, scene.service):
            settle(scene, slot)
    if not new:
        return
    for node in scene.view.nodes():
        key = node_slot(scene.service, node.id)
        if key not in slots and takes_new_tasks(node, scene.service):
            slot = Slot(key, 0, node.id)
            create(scene, slot)
            release(scene, slot)
