"""Rolling updates and rollbacks, with nothing remembered but what the service and its tasks say.

An update is going on while `update_status` says `updating` or `rollback_started`. A task that it put in the
place of another carries `rollout="replacing"`; such a task is *in flight* until it has been RUNNING for
`delay`, and at most `parallelism` are. One that ends within `monitor` of RUNNING, or before it, is a failure
of the update (its successors carry `failed`); when failures over slots to replace exceed the ratio, the
failure action is taken. When the slots are all done and monitored, the update is complete.

Whoever changes a service's spec sets `update_status` to None (and `previous_spec`); whoever asks for a
rollback puts the previous spec in place and sets `rollback_started`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from manager.orchestrator.jobs_state import takes_new_tasks
from manager.orchestrator.slots import (
    Scene,
    Slot,
    create,
    failed_rollout,
    monitor_period,
    release,
    rollout_config,
    succeed,
)
from manager.orchestrator.tasks import (
    PAUSED_UPDATE,
    SELF_ENDED,
    holds_resources,
    is_global,
    running,
    running_since,
    updating,
    wanted,
)
from pyswarm.objects import Task, TaskState, UpdateStatus
from pyswarm.specs import UpdateConfig

PROGRESS_DEADLINE = 600.0
IN_PROGRESS = "update in progress"
ROLLING_BACK = "rollback in progress"


def advance(scene: Scene, slots: Sequence[Slot], resting: Sequence[Slot] = ()) -> None:
    """Begin, go on with, stop or complete the service's update. The slots are settled already; `resting`
    ones (on paused nodes) get nothing new, but what is on its way there counts."""
    status = scene.service.update_status
    if status is not None and status.state in PAUSED_UPDATE:
        return
    todo = [slot for slot in slots if _outdated(scene, slot)]
    if not updating(scene.service):
        if not todo:
            return
        status = _begin(scene, len(todo), status)
    assert status is not None
    if not status.total and todo:
        status = _write(scene, replace(status, total=len(todo), started_at=status.started_at or scene.now))
    flights = [task for slot in (*slots, *resting) if (task := _in_flight(scene, slot, status)) is not None]
    failures = [task for slot in slots if (task := _failure(scene, slot, status)) is not None]
    stuck = _stuck(scene, slots, flights, status)
    if _too_many(scene, status, len(failures) + len(stuck)):
        _act_on_failure(scene, status, _reason(slots, failures, stuck, rollout_config(scene.service)))
        return
    if not flights and _held_up_too_long(scene, slots, todo, status):
        _act_on_failure(scene, status, f"no progress for {_deadline(scene):g} s: {scene.waiting_for}")
        return
    for task in stuck:
        _give_up_waiting(scene, (*slots, *resting), task)
    waiting = [task for task in flights if task not in stuck]
    _start_next(scene, slots, todo, len(waiting))
    if not todo and not waiting and not _monitored(scene, slots, status):
        _complete(scene, status)


def _write(scene: Scene, status: UpdateStatus) -> UpdateStatus:
    scene.service_put = scene.service = replace(scene.service, update_status=status)
    return status


def _begin(scene: Scene, total: int, last: UpdateStatus | None) -> UpdateStatus:
    """A slot that a rollback found without a task, and that gets one later, is part of that rollback still."""
    back = last is not None and last.state == "rollback_completed"
    return _write(
        scene,
        UpdateStatus(
            state="rollback_started" if back else "updating",
            started_at=scene.now,
            progressed_at=scene.now,
            message=ROLLING_BACK if back else IN_PROGRESS,
            total=total,
        ),
    )


def _complete(scene: Scene, status: UpdateStatus) -> None:
    back = status.state == "rollback_started"
    _write(
        scene,
        replace(
            status,
            state="rollback_completed" if back else "completed",
            completed_at=scene.now,
            message="rollback completed" if back else "update completed",
        ),
    )


def _outdated(scene: Scene, slot: Slot) -> bool:
    """Whether the slot is still to be replaced: nothing of the present spec is, or is about to be, in it."""
    newest = slot.newest
    if newest is None:
        return False
    tasks = slot.live
    if tasks:
        if any(scene.clean(t) for t in tasks):
            return False
        # The present spec failed here and is not to be tried again; its predecessor stays.
        return not (scene.clean(newest) and newest.status.state in SELF_ENDED)
    if scene.service.update_status is not None and scene.service.update_status.state == "rollback_started":
        return False
    return not scene.clean(newest)


def _own(task: Task, status: UpdateStatus) -> bool:
    """Whether the task was made since the update began."""
    return task.meta.created_at >= status.started_at


def _in_flight(scene: Scene, slot: Slot, status: UpdateStatus) -> Task | None:
    for task in reversed(slot.live):
        if task.rollout == "replacing" and _own(task, status) and scene.clean(task):
            if not running(task):
                return task
            until = running_since(task) + rollout_config(scene.service).delay
            if until > scene.now:
                scene.wake_at(scene.service_key, until)
                return task
            return None
    return None


def _failure(scene: Scene, slot: Slot, status: UpdateStatus) -> Task | None:
    """The newest task of the present spec in the slot, if the update failed there."""
    for task in reversed(slot.tasks):
        if scene.clean(task):
            return task if _own(task, status) and failed_rollout(scene, task) else None
    return None


def _too_many(scene: Scene, status: UpdateStatus, failures: int) -> bool:
    config = rollout_config(scene.service)
    if not failures or config.failure_action == "continue":
        return False
    return failures / max(1, status.total) > config.max_failure_ratio


def _stuck(scene: Scene, slots: Sequence[Slot], flights: Sequence[Task], status: UpdateStatus) -> list[Task]:
    """Tasks in flight that are not RUNNING though nothing has got further for the progress deadline."""
    seconds = _deadline(scene)
    held_up = [task for task in flights if not running(task)]
    if not seconds or not held_up:
        return []
    last = max(
        _last_progress(scene, slots, status),
        *(max(task.meta.created_at, task.not_before) for task in held_up),
    )
    if last + seconds > scene.now:
        scene.wake_at(scene.service_key, last + seconds)
        return []
    return held_up


def _give_up_waiting(scene: Scene, slots: Sequence[Slot], task: Task) -> None:
    """Count the task as failed and let the update go on without it; it may still get RUNNING."""
    for slot in slots:
        if any(t.id == task.id for t in slot.live):
            scene.put(slot, replace(task, rollout="failed"))


def _deadline(scene: Scene) -> float:
    """Seconds without progress after which the update counts as failed; 0: never."""
    said = rollout_config(scene.service).progress_deadline
    return PROGRESS_DEADLINE if said is None else said


def _held_up_too_long(
    scene: Scene, slots: Sequence[Slot], todo: Sequence[Slot], status: UpdateStatus
) -> bool:
    """Whether what is left of the update has waited for a dependency for as long as it may."""
    if not _deadline(scene) or not any(_must_wait(scene, slot) for slot in todo):
        return False
    last = _last_progress(scene, slots, status) + _deadline(scene)
    if last > scene.now:
        scene.wake_at(scene.service_key, last)
    return last <= scene.now


def _last_progress(scene: Scene, slots: Sequence[Slot], status: UpdateStatus) -> float:
    """When a task of the present spec last got RUNNING, or else the update began."""
    return max(
        status.started_at, *(running_since(t) for slot in slots for t in slot.live if scene.clean(t)), 0.0
    )


def _must_wait(scene: Scene, slot: Slot) -> bool:
    """Whether the slot has something that runs, which must not go for a task that cannot start yet."""
    return bool(scene.waiting_for) and any(running(t) for t in slot.live)


def _act_on_failure(scene: Scene, status: UpdateStatus, reason: str) -> None:
    service = scene.service
    back = status.state == "rollback_started"
    if (
        rollout_config(service).failure_action == "rollback"
        and not back
        and service.previous_spec is not None
    ):
        scene.service_put = scene.service = replace(
            service,
            spec=service.previous_spec,
            spec_version=service.spec_version + 1,
            previous_spec=None,
            previous_spec_version=0,
            update_status=UpdateStatus(
                state="rollback_started",
                started_at=scene.now,
                progressed_at=scene.now,
                message=f"update rolled back due to {reason}",
            ),
        )
        return
    word = "rollback" if back else "update"
    _write(
        scene,
        replace(
            status,
            state="rollback_paused" if back else "paused",
            message=f"{word} paused due to {reason}",
        ),
    )


def _reason(
    slots: Sequence[Slot], failures: Sequence[Task], stuck: Sequence[Task], config: UpdateConfig
) -> str:
    if failures:
        first = failures[0]
        culprit = next(
            (
                t
                for slot in slots
                for t in slot.tasks
                if t.slot == first.slot and t.rollout == "replacing" and t.status.state in SELF_ENDED
            ),
            first,
        )
        detail = f": {culprit.status.err}" if culprit.status.err else ""
        return f"failure or early termination of task {culprit.id}{detail}"
    task = stuck[0]
    deadline = PROGRESS_DEADLINE if config.progress_deadline is None else config.progress_deadline
    why = task.status.err or task.waiting_for or task.status.message
    return f"no progress for {deadline:g} s: task {task.id} is {task.status.state.name.lower()}" + (
        f" ({why})" if why else ""
    )


def _start_next(scene: Scene, slots: Sequence[Slot], todo: Sequence[Slot], in_flight: int) -> None:
    ready = [slot for slot in todo if not _must_wait(scene, slot)]
    _say_what_for(scene, scene.waiting_for if len(ready) < len(todo) else "")
    parallelism = rollout_config(scene.service).parallelism
    room = len(ready) if parallelism == 0 else max(0, parallelism - in_flight)
    if not room or not ready:
        return
    start_first = _start_first(scene, slots)
    for slot in sorted(ready, key=_most_broken_first)[:room]:
        _replace(scene, slot, start_first)


def _say_what_for(scene: Scene, waiting_for: str) -> None:
    status = scene.service.update_status
    if status is None or status.state != "updating":
        return
    if waiting_for or status.message.startswith(f"{IN_PROGRESS} (waiting"):
        message = f"{IN_PROGRESS} ({waiting_for})" if waiting_for else IN_PROGRESS
        if message != status.message:
            _write(scene, replace(status, message=message))


def _most_broken_first(slot: Slot) -> tuple[bool, int, str]:
    return any(running(t) for t in slot.live), slot.number, slot.key


def _replace(scene: Scene, slot: Slot, start_first: bool) -> None:
    """Put a task of the present spec in the slot: beside a running one, or in its place."""
    if not slot.live:
        new = succeed(scene, slot)
        scene.put(slot, replace(new, rollout="replacing", not_before=0.0))
    else:
        new = create(scene, slot)
        scene.put(slot, replace(new, rollout="replacing"))
        for task in slot.live:
            if task.id != new.id and not (start_first and running(task)):
                scene.say(slot, task, TaskState.SHUTDOWN)
    release(scene, slot)


def _start_first(scene: Scene, slots: Sequence[Slot]) -> bool:
    """Whether the next tasks start before the old ones stop; a start-first that cannot work does not."""
    if rollout_config(scene.service).order != "start-first":
        return False
    why = infeasible_start_first(scene, slots)
    status = scene.service.update_status
    note = f" (stop-first: {why})" if why else ""
    if status is not None and note and note not in status.message:
        _write(scene, replace(status, message=status.message + note))
    return not why


def infeasible_start_first(scene: Scene, slots: Sequence[Slot]) -> str:
    """Why old and new tasks of the service cannot run at the same time; "" when they can."""
    spec = scene.service.spec
    if spec.volumes_per_slot:
        return "a slot's volume serves one task at a time"
    ports = [p.published_port for p in spec.endpoint.ports if p.publish_mode == "host" and p.published_port]
    if ports and is_global(scene.service):
        return f"host port {ports[0]} is taken by the old task"
    limit = 1 if ports else spec.task.placement.max_replicas
    if not limit or is_global(scene.service):
        return ""
    on_nodes = sum(1 for slot in slots for task in slot.tasks if holds_resources(task) and wanted(task))
    nodes = sum(1 for node in scene.view.nodes() if takes_new_tasks(node, scene.service))
    if on_nodes < nodes * limit:
        return ""
    if ports:
        return f"host port {ports[0]} is taken on every node"
    return f"max_replicas_per_node {limit} is reached on every node"


def _monitored(scene: Scene, slots: Sequence[Slot], status: UpdateStatus) -> bool:
    """Whether a replaced task is still being watched for an early end."""
    period = monitor_period(scene.service)
    ends = [
        running_since(task) + period
        for slot in slots
        for task in slot.live
        if task.rollout == "replacing" and _own(task, status) and running(task)
    ]
    pending = [end for end in ends if end > scene.now]
    if pending:
        scene.wake_at(scene.service_key, max(pending))
    return bool(pending)
