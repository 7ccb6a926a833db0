"""Whether an ended task gets a successor, when, and what the successor must remember.

Swarm's policy (condition, delay 5 s, max_attempts, window), and an exponential back-off for crash loops: the
n-th crash in a row waits delay * 2**(n-1), at most `max_delay` (300 s, or `delay` if that is more). A task
that ran for a minute and for twice the delay that it had waited counts as well and begins anew; one that
ended with success is never a crash.
"""

from __future__ import annotations

from dataclasses import dataclass

from manager.orchestrator.tasks import SELF_ENDED, ended_at, is_job, ran_for
from pyswarm.objects import Service, Task, TaskState
from pyswarm.specs import RestartPolicy

DEFAULT_DELAY = 5.0
DEFAULT_MAX_DELAY = 300.0
STABLE = 60.0
"""Seconds that a task must have run, at least, to end a crash loop."""


@dataclass(frozen=True, slots=True)
class Succession:
    """What a successor inherits: its delay from now on, and the counters."""

    delay: float = 0.0
    restarts: int = 0
    backoff: int = 0
    window_start: float = 0.0
    window_restarts: int = 0


def base_delay(policy: RestartPolicy) -> float:
    return DEFAULT_DELAY if policy.delay is None else policy.delay


def crash_delay(policy: RestartPolicy, crashes: int) -> float:
    """Seconds to wait after the n-th crash in a row (n from 1). Without a delay the first restart is at
    once, and the back-off begins at a second with the next."""
    base = base_delay(policy)
    cap = max(base, DEFAULT_MAX_DELAY if policy.max_delay is None else policy.max_delay)
    if not base:
        return 0.0 if crashes <= 1 else min(cap, 2.0 ** min(crashes - 2, 60))
    return min(cap, base * 2.0 ** min(crashes - 1, 60))


def should_restart(task: Task, service: Service) -> bool:
    """Whether the slot of a task that is wanted no more, or has ended, gets another one.

    Decided as of the moment the task ended, so that the answer does not change afterwards.
    """
    policy = service.spec.task.restart
    if policy.condition == "none":
        return False
    if task.status.state == TaskState.COMPLETE and (policy.condition == "on-failure" or is_job(service)):
        return False
    if not policy.max_attempts or task.status.state not in SELF_ENDED:
        return True
    return _attempts(task, policy, ended_at(task))[1] < policy.max_attempts


def _attempts(task: Task, policy: RestartPolicy, at: float) -> tuple[float, int]:
    """Start of the window that `at` lies in, and the restarts in it so far."""
    if not policy.window:
        return task.window_start, task.restarts
    if not task.window_start or at - task.window_start > policy.window:
        return at, 0
    return task.window_start, task.window_restarts


def after_end(task: Task, service: Service) -> Succession:
    """For the successor, of the same spec, of a task that ended by itself."""
    policy = service.spec.task.restart
    start, attempts = _attempts(task, policy, ended_at(task))
    crashed = task.status.state != TaskState.COMPLETE
    crashes = (1 if ran_well(task, policy) else task.backoff + 1) if crashed else 0
    return Succession(
        delay=crash_delay(policy, crashes) if crashed else base_delay(policy),
        restarts=task.restarts + 1,
        backoff=crashes,
        window_start=start,
        window_restarts=attempts + 1,
    )


def after_eviction(task: Task) -> Succession:
    """For the successor of a task that did nothing wrong: no delay, nothing counted."""
    return Succession(0.0, task.restarts, task.backoff, task.window_start, task.window_restarts)


def ran_well(task: Task, policy: RestartPolicy) -> bool:
    """Whether the task ran for long enough to end a crash loop."""
    ran = ran_for(task)
    waited = crash_delay(policy, task.backoff) if task.backoff else 0.0
    return ran is not None and ran >= max(STABLE, 2 * waited)
