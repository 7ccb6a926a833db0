"""Tables of a task's next step, its exits and its health check."""

from __future__ import annotations

import pytest

from node_agent.lifecycle import (
    Container,
    HealthPolicy,
    Step,
    advance,
    exit_error,
    exit_state,
    failure_state,
    health_policy,
    health_start,
    next_probe,
    next_step,
    observe,
    started_before,
    unhealthy_error,
    waiting_message,
)
from node_agent.ports import Exit
from pyswarm.errors import Invalid
from pyswarm.objects import TaskState, TaskStatus
from pyswarm.specs import Healthcheck

S = TaskState


@pytest.mark.parametrize(
    ("desired", "observed", "container", "prepared", "step"),
    [
        (S.RUNNING, S.ASSIGNED, "absent", False, Step.ACCEPT),
        (S.RUNNING, S.ACCEPTED, "absent", False, Step.PREPARE),
        (S.RUNNING, S.PREPARING, "absent", False, Step.PREPARE),
        (S.COMPLETE, S.READY, "absent", True, Step.START),
        (S.COMPLETE, S.RUNNING, "started", True, Step.WATCH),
        (S.READY, S.ACCEPTED, "absent", False, Step.PREPARE),
        (S.READY, S.READY, "absent", True, Step.HOLD),
        (S.READY, S.READY, "absent", False, Step.PREPARE),
        (S.RUNNING, S.READY, "absent", True, Step.START),
        (S.RUNNING, S.STARTING, "present", False, Step.PREPARE),
        (S.RUNNING, S.STARTING, "present", True, Step.START),
        (S.RUNNING, S.STARTING, "started", True, Step.WATCH),
        (S.RUNNING, S.RUNNING, "started", False, Step.WATCH),
        (S.RUNNING, S.RUNNING, "ended", False, Step.WATCH),
        (S.RUNNING, S.RUNNING, "absent", False, Step.LOST),
        (S.SHUTDOWN, S.RUNNING, "started", True, Step.STOP),
        (S.SHUTDOWN, S.ASSIGNED, "absent", False, Step.STOP),
        (S.REMOVE, S.PREPARING, "absent", False, Step.STOP),
        (S.REMOVE, S.COMPLETE, "absent", False, Step.CLEAN),
        (S.RUNNING, S.FAILED, "absent", False, Step.CLEAN),
        (S.RUNNING, S.REJECTED, "absent", True, Step.CLEAN),
    ],
)
def test_next_step(
    desired: TaskState, observed: TaskState, container: Container, prepared: bool, step: Step
) -> None:
    assert next_step(desired, observed, container, prepared) is step


@pytest.mark.parametrize(
    ("exit_", "state", "error"),
    [
        (Exit(code=0), S.COMPLETE, ""),
        (Exit(code=0, oom_killed=True), S.COMPLETE, ""),
        (Exit(code=1), S.FAILED, "task: non-zero exit (1)"),
        (Exit(code=137), S.FAILED, "task: non-zero exit (137)"),
        (Exit(code=137, oom_killed=True), S.FAILED, "task: non-zero exit (137): OOM killed"),
    ],
)
def test_exits(exit_: Exit, state: TaskState, error: str) -> None:
    assert (exit_state(exit_), exit_error(exit_)) == (state, error)


@pytest.mark.parametrize("observed", [S.ASSIGNED, S.ACCEPTED, S.PREPARING, S.READY])
def test_an_error_before_the_start_rejects(observed: TaskState) -> None:
    assert failure_state(observed) is S.REJECTED


@pytest.mark.parametrize("observed", [S.STARTING, S.RUNNING])
def test_an_error_after_the_start_fails(observed: TaskState) -> None:
    assert failure_state(observed) is S.FAILED


def test_a_status_never_goes_back() -> None:
    status = TaskStatus(state=S.RUNNING)
    changed = advance(status, TaskStatus(state=S.PREPARING, message="late"))
    assert (changed.state, changed.message) == (S.RUNNING, "late")
    assert advance(status, TaskStatus(state=S.FAILED)).state is S.FAILED


def test_the_further_of_two_memories_counts() -> None:
    ready, ended = TaskStatus(state=S.READY), TaskStatus(state=S.FAILED)
    assert started_before(ready, None) is ready
    assert started_before(ready, ended) is ended
    assert started_before(ended, ready) is ended


# ------------------------------------------------------------------------------------------ health


def test_the_spec_comes_before_the_image() -> None:
    image = Healthcheck(test=("CMD", "image"), interval=7.0, retries=9)
    policy = health_policy(Healthcheck(test=("CMD-SHELL", "spec"), retries=2), image)
    assert policy == HealthPolicy(argv=("/bin/sh", "-c", "spec"), interval=7.0, retries=2)
    assert health_policy(Healthcheck(interval=3.0), image) == HealthPolicy(
        argv=("image",), interval=3.0, retries=9
    )


@pytest.mark.parametrize(
    ("spec", "image"),
    [(None, None), (Healthcheck(test=("NONE",)), Healthcheck(test=("CMD", "x"))), (Healthcheck(), None)],
)
def test_no_check(spec: Healthcheck | None, image: Healthcheck | None) -> None:
    assert health_policy(spec, image) is None


@pytest.mark.parametrize("test", [("CMD",), ("true",), ("CMD-SHELL", "a", "b")])
def test_a_malformed_check_is_refused(test: tuple[str, ...]) -> None:
    with pytest.raises(Invalid, match=r"healthcheck\.test"):
        health_policy(Healthcheck(test=test), None)


def test_early_probes_only_tell_good_news() -> None:
    policy = HealthPolicy(argv=("x",), interval=30.0, retries=2)
    health = health_start(100.0)
    times: list[float] = []
    while health.state == "starting":
        due = next_probe(policy, health)
        times.append(due - 100.0)
        health = observe(policy, health, 1, "no", due, due)
    assert times[:3] == [0.25, 0.75, 1.75]
    assert times[-2:] == [30.0, 60.0], "fails at the moments at which Docker would have probed"
    assert health.state == "unhealthy"
    assert unhealthy_error(health) == "task: unhealthy container (probe exited 1): no"


def test_start_interval_rules_the_start_period() -> None:
    policy = HealthPolicy(argv=("x",), interval=10.0, start_period=7.0, start_interval=2.0, retries=1)
    health = health_start(0.0)
    times: list[float] = []
    while health.state == "starting":
        due = next_probe(policy, health)
        times.append(due)
        health = observe(policy, health, 1, "", due, due)
    assert times == [2.0, 4.0, 6.0, 7.0]


def test_healthy_resets_and_then_needs_all_retries() -> None:
    policy = HealthPolicy(argv=("x",), interval=10.0, retries=3)
    health = observe(policy, health_start(0.0), 0, "up", 1.0, 1.0)
    assert (health.state, next_probe(policy, health)) == ("healthy", 11.0)
    for due, code in ((11.0, 1), (21.0, 1), (31.0, 0), (41.0, 1), (51.0, 1)):
        health = observe(policy, health, code, "", due, due)
        assert health.state == "healthy"
    assert observe(policy, health, 1, "", 61.0, 61.0).state == "unhealthy"


def test_messages_while_waiting() -> None:
    policy = HealthPolicy(argv=("x",), interval=1.0)
    health = health_start(0.0)
    assert "waiting for the first" in waiting_message(policy, health)
    health = observe(policy, health, 7, "connection\nrefused", 0.5, 0.5)
    assert waiting_message(policy, health) == "starting container, not healthy yet: connection refused"
    health = observe(policy, health, 7, "", 1.0, 1.0)
    assert waiting_message(policy, health) == "starting container, 1/3 failed checks"
