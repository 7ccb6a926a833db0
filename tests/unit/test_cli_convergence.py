"""When a service counts as converged, and what is said while it has not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pyswarm.cli.convergence import Progress, assess, monitor
from pyswarm.cli.progress import bar, block
from pyswarm.objects import JobStatus, Service, Task, TaskState, TaskStatus, UpdateStatus
from pyswarm.specs import (
    ContainerSpec,
    CronSchedule,
    Placement,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)

RUNNING, COMPLETE, FAILED = TaskState.RUNNING, TaskState.COMPLETE, TaskState.FAILED


def service(mode: ServiceMode | None = None, *, restart: RestartPolicy | None = None, **more: Any) -> Service:
    spec = ServiceSpec(
        name="web",
        mode=mode or ServiceMode(replicas=2),
        task=TaskSpec(container=ContainerSpec(image="a"), restart=restart or RestartPolicy()),
    )
    return Service(id="s", spec=spec, **more)


def task(
    slot: int,
    state: TaskState,
    desired: TaskState = RUNNING,
    *,
    of: Service | None = None,
    age: int = 0,
    version: int = 1,
    node: str = "",
    **more: Any,
) -> Task:
    own = ("restarts", "window_restarts", "waiting_for", "job_iteration")
    return Task(
        id=f"t{slot}{age}{node}",
        meta=(of or service()).meta.__class__(created_at=100.0 - age),
        service_id="s",
        service_name="web",
        slot=slot,
        node_id=node,
        spec=(of or service()).spec.task,
        spec_version=version,
        status=TaskStatus(state=state, **{k: v for k, v in more.items() if k not in own}),
        desired_state=desired,
        **{k: v for k, v in more.items() if k in own},
    )


def verdict(found: Progress) -> tuple[str, int, int]:
    return found.verdict, found.running, found.desired


def test_all_slots_run() -> None:
    found = assess(
        service(), [task(1, RUNNING, running_since=5.0), task(2, RUNNING, running_since=9.0)], 100.0
    )
    assert verdict(found) == ("stable", 2, 2)
    assert found.since == 9.0


def test_a_missing_slot_is_named_with_its_reason() -> None:
    tasks = [task(1, RUNNING), task(2, TaskState.PENDING, err="no suitable node")]
    found = assess(service(), tasks, 100.0)
    assert verdict(found) == ("going", 1, 2)
    assert [(lag.name, lag.state, lag.reason) for lag in found.lagging] == [
        ("web.2", "pending", "no suitable node")
    ]


def test_waiting_for_a_dependency_is_the_reason() -> None:
    found = assess(service(), [task(1, TaskState.READY, waiting_for="waiting for db (healthy)")], 100.0)
    assert found.lagging[0].reason == "waiting for db (healthy)"


def test_a_crash_loop_says_why() -> None:
    tasks = [
        task(1, RUNNING),
        task(2, TaskState.READY),
        task(2, FAILED, TaskState.SHUTDOWN, age=5, err="exit 1"),
    ]
    found = assess(service(), tasks, 100.0)
    assert found.lagging[0].reason == "the task before it failed: exit 1"
    assert found.failing_task == "t25"


def test_tasks_of_the_old_spec_do_not_count() -> None:
    new = service(ServiceMode(replicas=1), spec_version=2)
    changed = Service(
        id="s",
        spec=ServiceSpec(
            name="web", mode=ServiceMode(replicas=1), task=TaskSpec(container=ContainerSpec(image="b"))
        ),
        spec_version=2,
    )
    assert assess(new, [task(1, RUNNING)], 100.0).verdict == "stable", "nothing but the scale changed"
    assert assess(changed, [task(1, RUNNING)], 100.0).verdict == "going"


def test_a_change_of_constraints_leaves_fitting_tasks_alone() -> None:
    moved = Service(
        id="s",
        spec=ServiceSpec(
            name="web",
            mode=ServiceMode(replicas=1),
            task=TaskSpec(
                container=ContainerSpec(image="a"), placement=Placement(constraints=("node.role==worker",))
            ),
        ),
        spec_version=2,
    )
    assert assess(moved, [task(1, RUNNING)], 100.0).verdict == "stable"


def test_scaling_down_waits_for_the_surplus() -> None:
    tasks = [task(1, RUNNING), task(2, RUNNING), task(3, RUNNING, TaskState.REMOVE)]
    assert assess(service(), tasks, 100.0).verdict == "going"


def test_updates() -> None:
    tasks = [task(1, RUNNING), task(2, RUNNING)]

    def during(state: Any, **more: Any) -> Progress:
        return assess(service(update_status=UpdateStatus(state=state, message="why")), tasks, 100.0, **more)

    assert during("updating").verdict == "going"
    assert during("completed").verdict == "stable"
    assert during("paused").verdict == "failed"
    assert during("paused").why == "service paused: why"
    assert during("rollback_started").verdict == "going"
    assert during("rollback_completed").verdict == "failed"
    assert during("rollback_completed").why == "service rolled back: why"
    assert during("rollback_completed", rolling_back=True).verdict == "stable"
    assert during("rollback_paused", rolling_back=True).verdict == "failed"


def test_one_shot_services() -> None:
    once = service(ServiceMode(replicas=1), restart=RestartPolicy(condition="on-failure"))
    done = task(1, COMPLETE, TaskState.SHUTDOWN, of=once)
    assert verdict(assess(once, [done], 100.0)) == ("stable", 1, 1)
    always = service(ServiceMode(replicas=1))
    assert assess(always, [task(1, COMPLETE, TaskState.SHUTDOWN)], 100.0).verdict == "going"


def test_a_task_that_is_not_tried_again_is_a_failure() -> None:
    never = service(ServiceMode(replicas=1), restart=RestartPolicy(condition="none"))
    found = assess(never, [task(1, FAILED, TaskState.SHUTDOWN, of=never, err="exit 3")], 100.0)
    assert (found.verdict, found.why, found.failing_task) == ("failed", "web.1: exit 3", "t10")
    thrice = service(ServiceMode(replicas=1), restart=RestartPolicy(max_attempts=3))
    last = task(1, FAILED, TaskState.SHUTDOWN, of=thrice, err="x", restarts=3)
    assert assess(thrice, [last], 100.0).verdict == "failed"
    second = task(1, FAILED, TaskState.SHUTDOWN, of=thrice, err="x", restarts=2)
    assert assess(thrice, [second], 100.0).verdict == "going"


def test_global_services() -> None:
    everywhere = service(ServiceMode(kind="global"))
    tasks = [task(0, RUNNING, node="a", of=everywhere), task(0, TaskState.STARTING, node="b", of=everywhere)]
    assert verdict(assess(everywhere, tasks, 100.0)) == ("going", 1, 2)
    assert assess(everywhere, [], 100.0, asked_at=99.0).verdict == "going"
    assert assess(everywhere, [], 110.0, asked_at=99.0).verdict == "stable", "no node to run on"


def test_jobs() -> None:
    job = service(
        ServiceMode(kind="replicated-job", max_concurrent=1, total_completions=2),
        job_status=JobStatus(iteration=1),
    )
    old = task(1, COMPLETE, COMPLETE, job_iteration=0)
    first = task(1, COMPLETE, COMPLETE, job_iteration=1)
    running = task(2, RUNNING, COMPLETE, job_iteration=1)
    found = assess(job, [old, first, running], 100.0)
    assert (*verdict(found), found.verb) == ("going", 1, 2, "completed")
    assert verdict(assess(job, [first, task(2, COMPLETE, COMPLETE, job_iteration=1)], 100.0)) == (
        "stable",
        2,
        2,
    )


def test_a_scheduled_job_is_not_waited_for() -> None:
    job = service(ServiceMode(kind="replicated-job"), job_status=JobStatus())
    nightly = replace(job, spec=replace(job.spec, cron=CronSchedule(schedule="0 3 * * *")))
    assert assess(nightly, [], 100.0).verdict == "stable"
    failed = task(1, FAILED, COMPLETE, of=nightly, err="exit 1")
    assert assess(nightly, [failed], 100.0).verdict == "stable", "an earlier run says nothing about a deploy"


def test_no_replicas_is_converged_at_once() -> None:
    assert verdict(assess(service(ServiceMode(replicas=0)), [], 100.0)) == ("stable", 0, 0)


def test_the_monitor_is_the_updates() -> None:
    assert monitor(service()) == 5.0
    spec = ServiceSpec(name="web", update=UpdateConfig(monitor=0.5))
    assert monitor(Service(id="s", spec=spec)) == 0.5


def test_what_is_drawn() -> None:
    found = assess(service(), [task(1, RUNNING), task(2, TaskState.STARTING, message="pulling")], 100.0)
    assert block([found], 0.0, 80, 10) == [
        "web  [===============>              ] 1/2 running",
        "       web.2: starting: pulling",
    ]
    assert block([found], 0.0, 20, 1) == ["web  [=============="]
    stable = assess(service(), [task(1, RUNNING), task(2, RUNNING)], 100.0)
    assert block([stable], 4.2, 80, 10)[-1] == "verify: Waiting 4 seconds to verify that tasks are stable..."
    assert bar(0, 0) == "[" + "=" * 30 + "]"
