"""Whether a service is what its spec says, how far it is, and why not; pure.

`assess` looks at one service and its tasks at one moment. Converged means: no update is going on, and every
slot runs a task of the current spec, or has completed what it was to do once. A rollback is a failure of the
update that it undid, and a task that will not be tried again a failure of its service.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pyswarm.cli import human
from pyswarm.objects import Service, Task, TaskState, terminal
from pyswarm.specs import Placement, TaskSpec, update_config

Verdict = Literal["going", "stable", "failed"]


@dataclass(frozen=True, slots=True)
class Lagging:
    """A slot that is not where it should be."""

    name: str
    """`web.2`."""
    state: str
    """`starting`, `pending`, ..."""
    reason: str = ""
    task_id: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """One service at one moment."""

    name: str
    running: int
    """Slots that are done: running the current spec, or completed."""
    desired: int
    verdict: Verdict
    why: str = ""
    """For a failure, the reason."""
    lagging: tuple[Lagging, ...] = ()
    since: float = 0.0
    """When the youngest of its tasks started to run: it counts as stable some time after that."""
    failing_task: str = ""
    """Id of a task whose log explains the failure; "" if there is none."""
    verb: str = "running"
    """`running`, or `completed` for jobs."""


def monitor(service: Service) -> float:
    """Seconds a task must run before it counts as stable: the update's monitor, Swarm's 5 by default."""
    said = update_config(service.spec.update).monitor
    return 5.0 if said is None else said


def assess(
    service: Service, tasks: Iterable[Task], now: float, *, asked_at: float = 0.0, rolling_back: bool = False
) -> Progress:
    """How far `service` is. `asked_at` is when the waiting began: a global service without a single task some
    time later has no node to run on. `rolling_back`: the user asked for a rollback."""
    mine = [task for task in tasks if task.service_id == service.id]
    if service.spec.cron is not None:
        return _scheduled(service, mine)
    if "job" in service.spec.mode.kind:
        return _assess_job(service, mine)
    slots = _slots(mine)
    if service.spec.mode.kind == "replicated":
        desired = service.replicas
    else:
        wanted = [group for group in slots if any(t.desired_state <= TaskState.RUNNING for t in group)]
        desired = len(wanted)
    current = [_current(service, group) for group in slots]
    done = [task for task in current if task is not None]
    missing = max(0, desired - len(done))
    lagging = tuple(
        _lagging(group) for group, task in zip(slots, current, strict=True) if task is None and _wanted(group)
    )
    surplus = [task for group in slots for task in group if task not in done and _leaving(task)]
    base = Progress(
        name=service.spec.name,
        running=min(len(done), desired),
        desired=desired,
        verdict="going",
        lagging=lagging[: missing + len(surplus)],
        since=max((_since(task) for task in done), default=0.0),
        failing_task=_failing(mine),
    )
    return _judged(service, base, slots, now, asked_at, rolling_back)


def _judged(
    service: Service,
    base: Progress,
    slots: Sequence[Sequence[Task]],
    now: float,
    asked_at: float,
    rolling_back: bool,
) -> Progress:
    status = service.update_status.state if service.update_status else ""
    message = service.update_status.message if service.update_status else ""
    if status in ("paused", "rollback_paused"):
        return replace(
            base, verdict="failed", why=f"service {status.replace('_', ' ')}: {message}".rstrip(": ")
        )
    if status == "rollback_completed" and not rolling_back:
        return replace(base, verdict="failed", why=f"service rolled back: {message}".rstrip(": "))
    dead = next((task for group in slots for task in _given_up(service, group)), None)
    if dead is not None and base.running < base.desired:
        reason = dead.status.err or dead.status.message or f"exit code {dead.status.exit_code}"
        return replace(base, verdict="failed", why=f"{_task_name(dead)}: {reason}", failing_task=dead.id)
    if status in ("updating", "rollback_started"):
        return base
    if service.spec.mode.kind == "global" and not base.desired and now - asked_at < _NO_NODE_AFTER:
        return base
    if base.running == base.desired and not base.lagging:
        return replace(base, verdict="stable")
    return base


_NO_NODE_AFTER = 3.0
"""Seconds after which a global service without tasks counts as having no node to run on."""


def _slots(tasks: Sequence[Task]) -> list[list[Task]]:
    """Tasks by slot (or node), slots in order, newest task first."""
    groups: dict[tuple[int, str], list[Task]] = {}
    for task in sorted(tasks, key=lambda t: (t.slot, t.node_id if not t.slot else "")):
        groups.setdefault((task.slot, "" if task.slot else task.node_id), []).append(task)
    return [sorted(group, key=lambda t: (-t.meta.created_at, t.id)) for group in groups.values()]


def _current(service: Service, group: Sequence[Task]) -> Task | None:
    """The task that makes its slot done, if there is one."""
    for task in group:
        if task.desired_state <= TaskState.RUNNING and task.status.state == TaskState.RUNNING:
            return task if _up_to_date(service, task) else None
    newest = group[0]
    if newest.status.state == TaskState.COMPLETE and service.spec.task.restart.condition != "any":
        return newest if _up_to_date(service, newest) else None
    return None


def _up_to_date(service: Service, task: Task) -> bool:
    """Whether the task is what the spec asks for; an update that only changes where tasks may run leaves the
    tasks that fit alone."""
    if task.spec_version == service.spec_version:
        return True
    if service.update_status is not None and service.update_status.state in (
        "completed",
        "rollback_completed",
    ):
        return True
    return _essence(task.spec) == _essence(service.spec.task)


def _essence(spec: TaskSpec) -> TaskSpec:
    return replace(spec, placement=Placement(), registry_auth="")


def _wanted(group: Sequence[Task]) -> bool:
    return any(task.desired_state <= TaskState.RUNNING or not terminal(task.status.state) for task in group)


def _leaving(task: Task) -> bool:
    return task.desired_state > TaskState.RUNNING and task.status.state in (
        TaskState.STARTING,
        TaskState.RUNNING,
    )


def _lagging(group: Sequence[Task]) -> Lagging:
    wanted = [task for task in group if task.desired_state <= TaskState.RUNNING]
    task = (wanted or group)[0]
    former = next((t for t in group if t.status.err and t is not task), None)
    reason = task.waiting_for or task.status.err
    if not reason and former is not None:
        reason = f"the task before it failed: {former.status.err}"
    if not reason and task.status.state in (TaskState.PREPARING, TaskState.STARTING):
        reason = "" if task.status.message == task.status.state.name.lower() else task.status.message
    return Lagging(_task_name(task), task.status.state.name.lower(), reason, task.id)


def _task_name(task: Task) -> str:
    return f"{task.service_name}.{task.slot or human.short(task.node_id)}"


def _since(task: Task) -> float:
    return (
        task.status.running_since or task.status.timestamp if task.status.state == TaskState.RUNNING else 0.0
    )


def _failing(tasks: Sequence[Task]) -> str:
    """The newest task that failed: its log says why."""
    failed = [task for task in tasks if task.status.state in (TaskState.FAILED, TaskState.REJECTED)]
    return max(failed, key=lambda t: (t.status.timestamp, t.id)).id if failed else ""


def _given_up(service: Service, group: Sequence[Task]) -> list[Task]:
    """The newest task of a slot, if it failed and the restart policy makes no other."""
    newest, policy = group[0], service.spec.task.restart
    if newest.status.state not in (TaskState.FAILED, TaskState.REJECTED) or not _up_to_date(service, newest):
        return []
    attempts = newest.window_restarts or newest.restarts
    if policy.condition == "none" or (policy.max_attempts and attempts >= policy.max_attempts):
        return [newest]
    return []


def _scheduled(service: Service, tasks: Sequence[Task]) -> Progress:
    """A job that runs by the clock is in place once it is known: its next run may be a month away."""
    running = sum(task.status.state == TaskState.RUNNING for task in tasks)
    return Progress(
        name=service.spec.name, running=running, desired=running, verdict="stable", verb="running, scheduled"
    )


def _assess_job(service: Service, tasks: Sequence[Task]) -> Progress:
    iteration = service.job_status.iteration if service.job_status else 0
    mine = [task for task in tasks if (task.job_iteration or 0) == iteration]
    completed = [task for task in mine if task.status.state == TaskState.COMPLETE]
    if service.spec.mode.kind == "replicated-job":
        desired = service.spec.mode.total_completions
    else:
        desired = len({task.node_id for task in mine if task.desired_state <= TaskState.COMPLETE})
    done = min(len({(t.slot, "" if t.slot else t.node_id) for t in completed}), desired)
    base = Progress(
        name=service.spec.name,
        running=done,
        desired=desired,
        verdict="stable"
        if done == desired and (desired or service.spec.mode.kind == "replicated-job")
        else "going",
        lagging=tuple(
            _lagging(group)
            for group in _slots(mine)
            if not any(t.status.state == TaskState.COMPLETE for t in group)
        ),
        failing_task=_failing(mine),
        verb="completed",
    )
    dead = next((task for group in _slots(mine) for task in _given_up(service, group)), None)
    if dead is not None and done < desired:
        reason = dead.status.err or dead.status.message or f"exit code {dead.status.exit_code}"
        return replace(base, verdict="failed", why=f"{_task_name(dead)}: {reason}", failing_task=dead.id)
    return base
