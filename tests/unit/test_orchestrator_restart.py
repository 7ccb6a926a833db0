"""The restart policy as a table: whether, when, and what the successor remembers."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager.orchestrator.restart import after_end, after_eviction, crash_delay, should_restart
from pyswarm.objects import Service, Task, TaskState, TaskStatus
from pyswarm.specs import RestartPolicy, ServiceMode, ServiceSpec, TaskSpec

Condition = Literal["none", "on-failure", "any"]


def service(policy: RestartPolicy, kind: Literal["replicated", "replicated-job"] = "replicated") -> Service:
    return Service(
        id="s", spec=ServiceSpec(name="s", mode=ServiceMode(kind=kind), task=TaskSpec(restart=policy))
    )


def ended(
    state: TaskState,
    at: float = 1000.0,
    since: float = 0.0,
    restarts: int = 0,
    backoff: int = 0,
    window_start: float = 0.0,
    window_restarts: int = 0,
) -> Task:
    status = TaskStatus(state=state, timestamp=at, finished_at=at, running_since=since)
    return Task(
        id="t",
        status=status,
        restarts=restarts,
        backoff=backoff,
        window_start=window_start,
        window_restarts=window_restarts,
    )


@pytest.mark.parametrize(
    ("condition", "state", "again"),
    [
        ("any", TaskState.COMPLETE, True),
        ("any", TaskState.FAILED, True),
        ("any", TaskState.REJECTED, True),
        ("any", TaskState.ORPHANED, True),
        ("on-failure", TaskState.COMPLETE, False),
        ("on-failure", TaskState.FAILED, True),
        ("on-failure", TaskState.SHUTDOWN, True),
        ("on-failure", TaskState.RUNNING, True),
        ("none", TaskState.COMPLETE, False),
        ("none", TaskState.FAILED, False),
        ("none", TaskState.RUNNING, False),
    ],
)
def test_condition(condition: Condition, state: TaskState, again: bool) -> None:
    assert should_restart(ended(state), service(RestartPolicy(condition=condition))) is again


def test_a_job_is_not_run_again_after_success() -> None:
    job = service(RestartPolicy(condition="any"), "replicated-job")
    assert not should_restart(ended(TaskState.COMPLETE), job)
    assert should_restart(ended(TaskState.FAILED), job)


@pytest.mark.parametrize(("restarts", "again"), [(0, True), (2, True), (3, False), (9, False)])
def test_max_attempts(restarts: int, again: bool) -> None:
    policy = RestartPolicy(max_attempts=3)
    assert should_restart(ended(TaskState.FAILED, restarts=restarts), service(policy)) is again


def test_an_eviction_is_no_attempt() -> None:
    policy = RestartPolicy(max_attempts=1)
    assert should_restart(ended(TaskState.SHUTDOWN, restarts=7), service(policy))
    heir = after_eviction(ended(TaskState.SHUTDOWN, restarts=7, backoff=3))
    assert (heir.delay, heir.restarts, heir.backoff) == (0.0, 7, 3)


@pytest.mark.parametrize(
    ("at", "start", "count", "again"),
    [
        (1000.0, 990.0, 1, True),
        (1000.0, 990.0, 2, False),
        (1000.0, 960.0, 2, True),  # the window of 30 s is over
        (1000.0, 0.0, 0, True),
    ],
)
def test_window(at: float, start: float, count: int, again: bool) -> None:
    policy = RestartPolicy(max_attempts=2, window=30.0)
    task = ended(TaskState.FAILED, at, window_start=start, window_restarts=count, restarts=50)
    assert should_restart(task, service(policy)) is again


@pytest.mark.parametrize(
    ("delay", "cap", "waits"),
    [
        (None, None, [5, 10, 20, 40, 80, 160, 300, 300]),
        (0.0, None, [0, 1, 2, 4, 8, 16, 32, 64]),
        (2.0, 10.0, [2, 4, 8, 10, 10]),
        (600.0, None, [600, 600]),
    ],
)
def test_back_off(delay: float | None, cap: float | None, waits: list[float]) -> None:
    policy = RestartPolicy(delay=delay, max_delay=cap)
    assert [crash_delay(policy, n) for n in range(1, len(waits) + 1)] == waits


def test_success_is_no_crash() -> None:
    heir = after_end(ended(TaskState.COMPLETE, backoff=4), service(RestartPolicy()))
    assert (heir.delay, heir.backoff, heir.restarts) == (5.0, 0, 1)


@pytest.mark.parametrize(
    ("ran", "backoff", "crashes"),
    [(1.0, 2, 3), (59.0, 0, 1), (60.0, 2, 1), (100.0, 5, 6), (160.0, 5, 1)],
)
def test_a_task_that_ran_well_ends_the_loop(ran: float, backoff: int, crashes: int) -> None:
    task = ended(TaskState.FAILED, at=2000.0, since=2000.0 - ran, backoff=backoff)
    assert after_end(task, service(RestartPolicy())).backoff == crashes


@given(
    delay=st.floats(0.1, 1000), cap=st.one_of(st.none(), st.floats(0.1, 1000)), crashes=st.integers(1, 10**6)
)
def test_the_delay_only_grows_and_is_bounded(delay: float, cap: float | None, crashes: int) -> None:
    policy = RestartPolicy(delay=delay, max_delay=cap)
    wait = crash_delay(policy, crashes)
    assert delay <= wait <= max(delay, 300.0 if cap is None else cap)
    assert crash_delay(policy, crashes + 1) >= wait
