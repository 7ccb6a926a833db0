"""Laws of a task's life: it only moves forward, it ends, an unhealthy verdict needs its failures."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from node_agent.lifecycle import (
    Container,
    HealthPolicy,
    Step,
    advance,
    failure_state,
    grace,
    health_start,
    next_probe,
    next_step,
    observe,
)
from pyswarm.objects import TaskState, TaskStatus, terminal

STATES = st.sampled_from([state for state in TaskState if state not in (TaskState.NEW, TaskState.PENDING)])
DESIRED = st.sampled_from([TaskState.READY, TaskState.RUNNING, TaskState.SHUTDOWN, TaskState.REMOVE])
CONTAINERS: st.SearchStrategy[Container] = st.sampled_from(["absent", "present", "started", "ended"])

_AFTER: dict[Step, tuple[TaskState, Container, bool]] = {
    Step.ACCEPT: (TaskState.ACCEPTED, "absent", False),
    Step.PREPARE: (TaskState.READY, "absent", True),
    Step.START: (TaskState.RUNNING, "started", True),
    Step.WATCH: (TaskState.COMPLETE, "ended", True),
    Step.STOP: (TaskState.SHUTDOWN, "absent", False),
    Step.LOST: (TaskState.FAILED, "absent", False),
}


@settings(max_examples=150)
@given(st.lists(STATES, min_size=1, max_size=12))
def test_states_only_move_forward(states: list[TaskState]) -> None:
    status = TaskStatus(state=TaskState.ASSIGNED)
    for state in states:
        after = advance(status, TaskStatus(state=state))
        assert after.state >= status.state
        status = after


@settings(max_examples=200)
@given(DESIRED, STATES, CONTAINERS, st.booleans(), st.data())
def test_every_task_ends_or_holds(
    desired: TaskState, observed: TaskState, container: Container, prepared: bool, data: st.DataObject
) -> None:
    """From any state, steps that succeed or fail lead to the end (or to a hold) in a few steps."""
    for _ in range(8):
        step = next_step(desired, observed, container, prepared)
        if step in (Step.CLEAN, Step.HOLD):
            break
        before = observed
        if data.draw(st.booleans()):
            state, container, prepared = _AFTER[step]
            observed = max(observed, state)
        else:
            observed, container = failure_state(observed), "absent"
        assert observed >= before
    step = next_step(desired, observed, container, prepared)
    assert step in (Step.CLEAN, Step.HOLD)
    assert (step is Step.CLEAN) == terminal(observed)
    assert step is Step.CLEAN or desired < TaskState.STARTING


@settings(max_examples=150)
@given(
    st.floats(0.5, 60), st.floats(0, 60), st.integers(1, 5), st.lists(st.booleans(), min_size=1, max_size=60)
)
def test_unhealthy_needs_its_retries(
    interval: float, start_period: float, retries: int, results: list[bool]
) -> None:
    policy = HealthPolicy(argv=("x",), interval=interval, start_period=start_period, retries=retries)
    health = health_start(1000.0)
    in_a_row = 0
    for good in results:
        due = next_probe(policy, health)
        assert due >= health.last_at, "probes do not go back in time"
        assert due - health.last_at <= max(interval, 5.0) + 1e-6
        counted = health.state != "starting" or due >= 1000.0 + grace(policy)
        health = observe(policy, health, 0 if good else 1, "", due, due)
        in_a_row = 0 if good else in_a_row + counted
        assert (health.state == "unhealthy") == (in_a_row >= retries)
        if health.state == "unhealthy":
            break
