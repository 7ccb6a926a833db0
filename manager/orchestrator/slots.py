"""One slot of a service, and what keeps one task alive in it: ends, successors, hand-overs, the start.

A slot is a number of a replicated service or job, or a node of a global one. Whatever happened, a slot is
settled by looking at its tasks alone: nothing is remembered elsewhere, so it does not matter who was leader
when.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from manager.orchestrator import restart
from manager.orchestrator.depends import stale_before, unmet
from manager.orchestrator.tasks import (
    PAUSED_UPDATE,
    SELF_ENDED,
    Matcher,
    age_order,
    holds_resources,
    is_job,
    live,
    new_task,
    node_lost,
    ran_for,
    running,
    target_state,
    updating,
    wanted,
)
from manager.state import Key, Plan, View, slot_key
from pyswarm.objects import Service, Task, TaskState, alive
from pyswarm.specs import UpdateConfig, update_config

STOP_TIMEOUT = 60.0
"""Seconds that a successor waits for its predecessor to stop, unless its grace period is longer."""
GRACE_PERIOD = 10.0
KILL_MARGIN = 10.0
DEFAULT_MONITOR = 5.0
_NEVER = float("inf")


@dataclass(slots=True)
class Slot:
    """The tasks of one slot that are not being removed, oldest first, and those that are (`leaving`)."""

    key: str
    number: int
    node_id: str
    tasks: list[Task] = field(default_factory=list[Task])
    leaving: list[Task] = field(default_factory=list[Task])

    @property
    def newest(self) -> Task | None:
        return self.tasks[-1] if self.tasks else None

    @property
    def live(self) -> list[Task]:
        return [t for t in self.tasks if live(t)]


def group(tasks: Iterable[Task]) -> dict[str, Slot]:
    """Tasks by slot; slots of which nothing but leaving tasks are there are kept too."""
    slots: dict[str, Slot] = {}
    for task in tasks:
        key = slot_key(task)
        slot = slots.get(key)
        if slot is None:
            slot = slots[key] = Slot(key, task.slot, "" if task.slot else task.node_id)
        (slot.leaving if task.desired_state == TaskState.REMOVE else slot.tasks).append(task)
    for slot in slots.values():
        if len(slot.tasks) > 1:
            slot.tasks.sort(key=age_order)
    return slots


class Scene:
    """One service while it is being decided on: what is known of it, and what has been decided."""

    def __init__(self, view: View, service: Service, now: float) -> None:
        self.view = view
        self.service = service
        self.now = now
        self.target = target_state(service)
        self.matcher = Matcher(view, service, stale_before(view, service) if service.spec.depends_on else 0.0)
        self.puts: dict[str, Task] = {}
        self.service_put: Service | None = None
        self.wakes: dict[Key, float] = {}
        self._unmet: str | None = None

    @property
    def service_key(self) -> Key:
        return "service", self.service.id

    def clean(self, task: Task) -> bool:
        return self.matcher.clean(task)

    @property
    def waiting_for(self) -> str:
        if self._unmet is None:
            self._unmet = unmet(self.view, self.service) if self.service.spec.depends_on else ""
        return self._unmet

    def wake_at(self, key: Key, when: float) -> None:
        self.wakes[key] = min(when, self.wakes.get(key, when))

    def put(self, slot: Slot, task: Task) -> Task:
        """Decide that the task is to be like this (a new one is added)."""
        self.puts[task.id] = task
        if task.desired_state == TaskState.REMOVE:
            slot.tasks = [t for t in slot.tasks if t.id != task.id]
            slot.leaving.append(task)
            return task
        for index, other in enumerate(slot.tasks):
            if other.id == task.id:
                slot.tasks[index] = task
                return task
        slot.tasks.append(task)
        return task

    def say(self, slot: Slot, task: Task, desired: TaskState) -> Task:
        """Raise a task's desired state; it never goes down."""
        if task.desired_state >= desired:
            return task
        return self.put(slot, replace(task, desired_state=desired, waiting_for=""))

    def remove(self, slot: Slot) -> None:
        """The slot is to go, with all its history."""
        for task in list(slot.tasks):
            self.say(slot, task, TaskState.REMOVE)

    def shut_down(self, slot: Slot) -> None:
        for task in slot.live:
            self.say(slot, task, TaskState.SHUTDOWN)

    def write_to(self, plan: Plan) -> None:
        for task in self.puts.values():
            plan.put(task)
        if self.service_put is not None:
            plan.put(self.service_put)
        for key, when in self.wakes.items():
            plan.wake_at(key, when)


def settle(scene: Scene, slot: Slot) -> None:
    """Bring the slot as far as it can get now. A slot with no task at all is left to its mode."""
    end(scene, slot)
    if scene.service.spec.stopped:
        scene.shut_down(slot)
        return
    _hand_over(scene, slot)
    if _needs_successor(scene, slot):
        assert slot.newest is not None
        if slot.newest.not_before > scene.now and slot.newest.status.state in SELF_ENDED:
            # It failed while it was held back (no such image): its delay has still to pass.
            scene.wake_at(("slot", slot.key), slot.newest.not_before)
        else:
            succeed(scene, slot)
    release(scene, slot)


def end(scene: Scene, slot: Slot) -> None:
    """Say of tasks that have ended that they are not wanted any more (but for a job's completed ones)."""
    for task in list(slot.tasks):
        if wanted(task) and not alive(task.status.state):
            if is_job(scene.service) and task.status.state == TaskState.COMPLETE:
                continue
            scene.say(slot, task, TaskState.SHUTDOWN)


def _hand_over(scene: Scene, slot: Slot) -> None:
    """Of several live tasks the newest running one that is up to date stays, and newer ones on their way;
    as long as there is none, one running task of an older spec may stay beside them."""
    tasks = slot.live
    if len(tasks) < 2:
        return
    clean = [t for t in tasks if scene.clean(t)]
    best = next((t for t in reversed(clean) if running(t)), None)
    if best is not None:
        keep = [t for t in clean if age_order(t) >= age_order(best)]
    else:
        old = next((t for t in reversed(tasks) if running(t)), None)
        keep = [*clean, *([old] if old is not None else [])] or tasks[-1:]
    for task in tasks:
        if task not in keep:
            scene.say(slot, task, TaskState.SHUTDOWN)


def _needs_successor(scene: Scene, slot: Slot) -> bool:
    newest = slot.newest
    if newest is None or (is_job(scene.service) and completed(slot)):
        return False
    tasks = slot.live
    if not tasks:
        return restart.should_restart(newest, scene.service)
    if wanted(newest) or any(scene.clean(t) for t in tasks):
        return False
    # A start-first successor failed beside its predecessor, which still runs: try again.
    return (
        not _paused(scene.service)
        and scene.clean(newest)
        and newest.status.state in SELF_ENDED
        and restart.should_restart(newest, scene.service)
    )


def completed(slot: Slot) -> bool:
    """Whether a job's slot has done its work."""
    return any(t.status.state == TaskState.COMPLETE for t in slot.tasks)


def _paused(service: Service) -> bool:
    return service.update_status is not None and service.update_status.state in PAUSED_UPDATE


def succeed(scene: Scene, slot: Slot) -> Task:
    """Give the slot a task in the place of its newest one, with the delay and the counters that are due."""
    old = slot.newest
    assert old is not None
    service = scene.service
    by_itself = old.status.state in SELF_ENDED
    if not scene.clean(old):
        delay = restart.base_delay(service.spec.task.restart) if by_itself else 0.0
        heir = restart.Succession(delay=delay)
        rollout = "replacing" if updating(service) else ""
    else:
        heir = restart.after_end(old, service) if by_itself else restart.after_eviction(old)
        rollout = "failed" if failed_rollout(scene, old) else ""
        if not rollout and not by_itself and old.rollout == "replacing":
            rollout = "replacing"
    not_before = scene.now + heir.delay if heir.delay else 0.0 if by_itself else old.not_before
    return create(
        scene,
        slot,
        replace(
            _blank(scene, slot),
            restarts=heir.restarts,
            backoff=heir.backoff,
            window_start=heir.window_start,
            window_restarts=heir.window_restarts,
            not_before=not_before,
            rollout=rollout,
        ),
    )


def create(scene: Scene, slot: Slot, task: Task | None = None) -> Task:
    """Add a task to the slot; it stays at READY until `release` lets it go."""
    task = task if task is not None else _blank(scene, slot)
    return scene.put(slot, task)


def _blank(scene: Scene, slot: Slot) -> Task:
    iteration = None
    if is_job(scene.service):
        iteration = slot.newest.job_iteration if slot.newest is not None else _iteration(scene.service)
    return new_task(
        scene.view, scene.service, scene.now, slot=slot.number, node_id=slot.node_id, iteration=iteration
    )


def _iteration(service: Service) -> int:
    return service.job_status.iteration if service.job_status is not None else 0


def release(scene: Scene, slot: Slot) -> None:
    """Let tasks that are held at READY start, or say what they wait for."""
    for task in slot.live:
        if task.desired_state != TaskState.READY:
            continue
        start = max(task.not_before, _stopped_by(scene, slot, task))
        if start > scene.now:
            if start < _NEVER:
                scene.wake_at(("slot", slot.key), start)
            waiting = ""
        else:
            waiting = scene.waiting_for
        if start <= scene.now and not waiting:
            scene.put(slot, replace(task, desired_state=scene.target, waiting_for=""))
        elif task.waiting_for != waiting:
            scene.put(slot, replace(task, waiting_for=waiting))


def _stopped_by(scene: Scene, slot: Slot, task: Task) -> float:
    """When the predecessors that are told to stop have stopped, or are not waited for any longer."""
    latest = 0.0
    for old in (*slot.tasks, *slot.leaving):
        if old.id == task.id or wanted(old) or not holds_resources(old):
            continue
        if node_lost(scene.view, old.node_id):
            continue
        if scene.service.spec.volumes_per_slot:
            return _NEVER
        grace = old.spec.container.stop_grace_period
        patience = max(STOP_TIMEOUT, (GRACE_PERIOD if grace is None else grace) + KILL_MARGIN)
        latest = max(latest, task.meta.created_at + patience)
    return latest


def monitor_period(service: Service) -> float:
    """Seconds after RUNNING during which an end counts as a failure of the update."""
    config = rollout_config(service)
    monitor = DEFAULT_MONITOR if config.monitor is None else config.monitor
    return max(monitor, config.delay + 1.0) if config.delay >= monitor else monitor


def rollout_config(service: Service) -> UpdateConfig:
    """The settings of the update, or of the rollback that is going on."""
    status = service.update_status
    if status is not None and status.state.startswith("rollback"):
        return update_config(service.spec.rollback)
    return update_config(service.spec.update)


def failed_rollout(scene: Scene, task: Task) -> bool:
    """Whether the task, or its forerunner, was put in place by an update and did not last. To have completed
    is what a one-shot service (one that is not restarted after success) is for."""
    if task.rollout == "failed":
        return True
    if task.rollout != "replacing" or task.status.state not in SELF_ENDED:
        return False
    if task.status.state == TaskState.COMPLETE and scene.service.spec.task.restart.condition != "any":
        return False
    ran = ran_for(task)
    return ran is None or ran <= monitor_period(scene.service)


def waiting_slots(slots: Sequence[Slot]) -> bool:
    """Whether a task of these is held at READY."""
    return any(t.desired_state == TaskState.READY for slot in slots for t in slot.live)
