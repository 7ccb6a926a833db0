"""The life of a task on its node, as pure functions: the next step, the exit's meaning, the health check.

After SwarmKit's `exec.Do` (agent/exec/controller.go) and moby's health monitor (daemon/health.go). No I/O,
no clock: what is known goes in, the decision comes out, and the supervisor in `worker` carries it out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Literal

from node_agent.ports import Exit
from pyswarm.errors import Invalid
from pyswarm.objects import HealthState, TaskState, TaskStatus, terminal
from pyswarm.specs import Healthcheck

Container = Literal["absent", "present", "started", "ended"]
"""`present` was made and not seen to start; `started` was started by us and lives; `ended` is there, dead."""


class Step(Enum):
    """What a supervisor does next."""

    ACCEPT = "accept"
    PREPARE = "prepare"
    """Image, root, volumes, network; ends in READY."""
    HOLD = "hold"
    """Wait until the desired state changes."""
    START = "start"
    """Make and start the container; ends in RUNNING (or STARTING until healthy)."""
    WATCH = "watch"
    """Wait for the exit; meanwhile check the health."""
    STOP = "stop"
    """Stop the container if there is one; ends in SHUTDOWN."""
    LOST = "lost"
    """Its container is gone and nobody knows how it ended; ends in FAILED."""
    CLEAN = "clean"
    """Terminal: release what it holds."""


def stopping(desired: TaskState) -> bool:
    """Whether the managers want the task to end. A job's desired state is COMPLETE: that is no such wish."""
    return desired >= TaskState.SHUTDOWN


def next_step(desired: TaskState, observed: TaskState, container: Container, prepared: bool) -> Step:
    """What to do for a task in this state.

    `prepared` says whether this agent has the task's root, mounts and network at hand; after a restart of
    the agent it has not, and a task that had not started is prepared again (every port is idempotent).
    """
    if terminal(observed):
        return Step.CLEAN
    if stopping(desired):
        return Step.STOP
    if container in ("started", "ended"):
        return Step.WATCH
    if observed >= TaskState.RUNNING:
        return Step.LOST
    if observed < TaskState.ACCEPTED:
        return Step.ACCEPT
    if observed < TaskState.READY or not prepared:
        return Step.PREPARE
    if desired < TaskState.STARTING:
        return Step.HOLD
    return Step.START


def advance(status: TaskStatus, change: TaskStatus) -> TaskStatus:
    """The status after a change; a state that would go backwards is kept, the rest is taken over."""
    return change if change.state >= status.state else replace(change, state=status.state)


def failure_state(observed: TaskState) -> TaskState:
    """Where an error leads: REJECTED before the container was to start, FAILED after."""
    return TaskState.REJECTED if observed < TaskState.STARTING else TaskState.FAILED


def exit_error(exit_: Exit) -> str:
    """Why an exit is a failure, in Swarm's words; "" when it is none."""
    if exit_.code == 0:
        return ""
    cause = ": OOM killed" if exit_.oom_killed else ""
    return f"task: non-zero exit ({exit_.code}){cause}"


def exit_state(exit_: Exit) -> TaskState:
    """What a task has become that ended by itself."""
    return TaskState.COMPLETE if exit_.code == 0 else TaskState.FAILED


def started_before(manager: TaskStatus, local: TaskStatus | None) -> TaskStatus:
    """The status to go on from: the further of what the managers have seen and what this node remembers."""
    if local is None or local.state < manager.state:
        return manager
    return local


# ---------------------------------------------------------------------------------------------- health

DEFAULT_INTERVAL = 30.0
DEFAULT_TIMEOUT = 30.0
DEFAULT_RETRIES = 3
DEFAULT_START_INTERVAL = 5.0
FIRST_PROBE = 0.25
"""Seconds until the first probe of a container whose spec does not say how often to probe at the start."""
OUTPUT_LIMIT = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthPolicy:
    """A health check with every value settled."""

    argv: tuple[str, ...]
    interval: float = DEFAULT_INTERVAL
    timeout: float = DEFAULT_TIMEOUT
    retries: int = DEFAULT_RETRIES
    start_period: float = 0.0
    start_interval: float | None = None
    """None: not said; probes then start close together and spread out to Docker's 5 s."""


def health_policy(spec: Healthcheck | None, image: Healthcheck | None) -> HealthPolicy | None:
    """The check to run: the spec's fields over the image's; None when there is none or it is disabled.
    Invalid for a test of another form."""
    merged = _merge(spec, image)
    if merged is None or not merged.test or merged.test[0] == "NONE":
        return None
    return HealthPolicy(
        argv=_argv(merged.test),
        interval=merged.interval or DEFAULT_INTERVAL,
        timeout=merged.timeout or DEFAULT_TIMEOUT,
        retries=merged.retries or DEFAULT_RETRIES,
        start_period=merged.start_period or 0.0,
        start_interval=merged.start_interval or None,
    )


def _merge(spec: Healthcheck | None, image: Healthcheck | None) -> Healthcheck | None:
    if spec is None or image is None:
        return spec or image
    return Healthcheck(
        test=spec.test or image.test,
        interval=spec.interval or image.interval,
        timeout=spec.timeout or image.timeout,
        retries=spec.retries or image.retries,
        start_period=spec.start_period or image.start_period,
        start_interval=spec.start_interval or image.start_interval,
    )


def _argv(test: tuple[str, ...]) -> tuple[str, ...]:
    kind, *rest = test
    if kind == "CMD" and rest:
        return tuple(rest)
    if kind == "CMD-SHELL" and len(rest) == 1:
        return ("/bin/sh", "-c", rest[0])
    raise Invalid(
        f'healthcheck.test: want ["CMD", ...], ["CMD-SHELL", command] or ["NONE"], not {list(test)!r}'
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What the probes have told so far. Times are seconds of any one clock that does not step."""

    state: HealthState = "starting"
    started_at: float = 0.0
    streak: int = 0
    """Failures in a row that count."""
    probes: int = 0
    last_at: float = 0.0
    """When the last probe ended; the start before the first."""
    output: str = ""
    """Of the last probe."""
    exit_code: int = 0


def health_start(now: float) -> Health:
    """The state of a container that just started."""
    return Health(started_at=now, last_at=now)


def grace(policy: HealthPolicy) -> float:
    """Seconds from the start in which a failed probe does not count: the start period; where there is none,
    the time before Docker would have probed at all."""
    return policy.start_period or policy.interval


def next_probe(policy: HealthPolicy, health: Health) -> float:
    """When the next probe is due.

    As Docker: every `interval`; within the start period every `start_interval` until it was healthy once.
    Beyond Docker: before the first regular probe there are early ones that can only tell good news, so that
    a service whose check passes at once does not wait 30 s to be let in."""
    if health.state != "starting":
        return health.last_at + policy.interval
    end = health.started_at + grace(policy)
    if health.last_at >= end:
        return health.last_at + policy.interval
    if policy.start_interval is not None:
        pause = policy.start_interval
    else:
        pause = min(FIRST_PROBE * 2.0 ** min(health.probes, 16), DEFAULT_START_INTERVAL)
    return min(health.last_at + pause, max(end, health.last_at))


def observe(
    policy: HealthPolicy, health: Health, code: int, output: str, began: float, ended: float
) -> Health:
    """The state after a probe that ran from `began` to `ended`."""
    seen = replace(
        health, probes=health.probes + 1, last_at=ended, output=output[:OUTPUT_LIMIT], exit_code=code
    )
    if code == 0:
        return replace(seen, state="healthy", streak=0)
    if health.state == "starting" and began < health.started_at + grace(policy):
        return seen
    streak = health.streak + 1
    return replace(seen, streak=streak, state="unhealthy" if streak >= policy.retries else health.state)


def unhealthy_error(health: Health) -> str:
    """Why the task failed, with the last probe's words."""
    said = " ".join(health.output.split())
    tail = f": {said[:200]}" if said else ""
    return f"task: unhealthy container (probe exited {health.exit_code}){tail}"


def waiting_message(policy: HealthPolicy, health: Health) -> str:
    """What `ps` shows while a container is not healthy yet."""
    if not health.probes:
        return "starting container, waiting for the first health check"
    said = " ".join(health.output.split())[:120]
    failed = f"{health.streak}/{policy.retries} failed checks" if health.streak else "not healthy yet"
    return f"starting container, {failed}: {said}" if said else f"starting container, {failed}"
