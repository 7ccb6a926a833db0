"""depends_on, decided by the managers: what a task must wait for before it may start.

A dependency on a service counts as met when

- `service_started`: a task of its present spec has been started,
- `service_healthy`: a task of its present spec is RUNNING (a task with a health check becomes RUNNING by its
  first healthy answer) and not unhealthy,
- `service_completed_successfully`: each of its slots (a job: all completions of its present iteration) ended
  with success, with the present spec.

While an update of the dependency is paused, tasks of its older spec count too: nobody is going to replace
them. Only the start of a task waits; nothing is stopped because a dependency went away.
"""

from __future__ import annotations

from collections.abc import Iterable

from manager.orchestrator.jobs_state import job_complete
from manager.orchestrator.tasks import PAUSED_UPDATE, Matcher, age_order, is_job, running, wanted
from manager.state import View, slot_key
from pyswarm.objects import Service, Task, TaskState
from pyswarm.specs import Dependency

_WORDS = {
    "service_started": "started",
    "service_healthy": "healthy",
    "service_completed_successfully": "completed successfully",
}


def unmet(view: View, service: Service) -> str:
    """`waiting for db (healthy)`, naming all that is not met; "" when the tasks may start."""
    reasons = [reason for dep in service.spec.depends_on if (reason := _unmet(view, dep))]
    return f"waiting for {', '.join(reasons)}" if reasons else ""


def _unmet(view: View, dep: Dependency) -> str:
    service = view.by_name(Service, dep.service)
    if service is None or service.pending_delete:
        return f"{dep.service} (not deployed)" if dep.required else ""
    if met(view, service, dep):
        return ""
    if not dep.required and failed(view, service, dep):
        return ""
    return f"{dep.service} ({_WORDS[dep.condition]})"


def met(view: View, service: Service, dep: Dependency) -> bool:
    if dep.condition == "service_completed_successfully":
        return completed(view, service)
    tasks = _present(view, service)
    if dep.condition == "service_healthy":
        return any(running(t) and t.status.health != "unhealthy" for t in tasks if wanted(t))
    return any(_started(t) for t in tasks)


def failed(view: View, service: Service, dep: Dependency) -> bool:
    """Whether an optional dependency has been tried and did not get there."""
    states = {t.status.state for t in _present(view, service)}
    if dep.condition != "service_completed_successfully" and TaskState.RUNNING in states:
        return False
    return bool(states & {TaskState.FAILED, TaskState.REJECTED})


def _present(view: View, service: Service) -> Iterable[Task]:
    tasks = [t for t in view.tasks_of_service(service.id) if t.desired_state != TaskState.REMOVE]
    if is_job(service):
        iteration = service.job_status.iteration if service.job_status else 0
        return [t for t in tasks if (t.job_iteration or 0) == iteration]
    if service.update_status is not None and service.update_status.state in PAUSED_UPDATE:
        return tasks
    matcher = Matcher(view, service)
    return [t for t in tasks if matcher.clean(t)]


def _started(task: Task) -> bool:
    if task.status.state == TaskState.COMPLETE:
        return True
    up = running(task) or (task.status.state == TaskState.STARTING and bool(task.status.started_at))
    return up and wanted(task)


def completed(view: View, service: Service) -> bool:
    """Whether the service, a job or a one-shot, has done all its work with success."""
    if is_job(service):
        return job_complete(view, service)
    newest: dict[str, Task] = {}
    for task in sorted(view.tasks_of_service(service.id), key=age_order):
        if task.desired_state != TaskState.REMOVE:
            newest[slot_key(task)] = task
    want = service.replicas if service.spec.mode.kind == "replicated" else 1
    matcher = Matcher(view, service)
    done = [t for t in newest.values() if t.status.state == TaskState.COMPLETE and matcher.clean(t)]
    return bool(done) and len(done) >= want and len(done) == len(newest)


def stale_before(view: View, service: Service) -> float:
    """For dependencies with `restart: true`: tasks that run since before this time are to be replaced.

    That is when the last completed update of such a dependency began (its own tasks were replaced since, and
    ours that started later have waited for them), or when the dependency was created anew.
    """
    latest = 0.0
    for dep in service.spec.depends_on:
        other = view.by_name(Service, dep.service) if dep.restart else None
        if other is None or other.pending_delete:
            continue
        latest = max(latest, other.meta.created_at)
        status = other.update_status
        if status is not None and status.state in ("completed", "rollback_completed"):
            latest = max(latest, status.started_at)
    return latest
