"""The Engine API's JSON: errors name the field, status codes follow the class, secrets stay secret."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pyswarm import engine
from pyswarm.cli.rows import replicas
from pyswarm.errors import (
    Conflict,
    Fatal,
    Invalid,
    NotFound,
    PermissionDenied,
    PyswarmError,
    Unavailable,
)
from pyswarm.objects import JobStatus, Service, Task, TaskState, TaskStatus
from pyswarm.specs import ContainerSpec, Mount, ServiceMode, ServiceSpec, TaskSpec


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Invalid("x"), 400),
        (NotFound("x"), 404),
        (Conflict("x"), 409),
        (PermissionDenied("x"), 403),
        (Unavailable("x"), 503),
        (Fatal("x"), 500),
        (PyswarmError("x"), 500),
    ],
)
def test_status_codes(error: PyswarmError, status: int) -> None:
    assert engine.http_status(error) == status


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], "body must be an object, not a list"),
        ({"Name": 5}, "Name must be a string, not a number"),
        ({"Labels": {"a": 1}}, "Labels.a must be a string"),
        (
            {"Mode": {"Replicated": {"Replicas": "3"}}},
            "Mode.Replicated.Replicas must be a whole number, not a string",
        ),
        ({"Mode": {"Global": {}, "Replicated": {}}}, "must provide one service mode"),
        (
            {"TaskTemplate": {"ContainerSpec": {"Mounts": [{"Type": "floppy"}]}}},
            r"TaskTemplate.ContainerSpec.Mounts\[0\].Type: unknown value 'floppy': choose one of bind",
        ),
        ({"TaskTemplate": {"PluginSpec": {}}}, "plugins are not run as services"),
        ({"TaskTemplate": {"Networks": [{}]}}, r"TaskTemplate.Networks\[0\].Target is missing"),
        ({"EndpointSpec": {"Ports": [{"Protocol": "icmp"}]}}, r"EndpointSpec.Ports\[0\].Protocol"),
        ({"UpdateConfig": {"Delay": "1s"}}, "UpdateConfig.Delay must be a whole number"),
        ({"DependsOn": [{}]}, r"Service.DependsOn\[0\]: incomplete"),
        ({"TaskTemplate": {"ContainerSpec": {"Privileged": "yes"}}}, "Privileged must be true or false"),
    ],
)
def test_errors_name_the_field(body: Any, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        engine.service_spec(body)


def test_data_must_be_base64() -> None:
    with pytest.raises(Invalid, match="Data must be base64"):
        engine.secret_spec({"Data": "%%"})


def test_credentials_are_never_shown() -> None:
    spec = ServiceSpec(task=TaskSpec(registry_auth="c2VjcmV0"))
    assert "c2VjcmV0" not in str(engine.service(Service(id="s", spec=spec, previous_spec=spec)))


def test_a_bind_without_options_must_exist() -> None:
    body = {"TaskTemplate": {"ContainerSpec": {"Mounts": [{"Type": "bind", "Source": "/a", "Target": "/b"}]}}}
    mount = engine.service_spec(body).task.container.mounts[0]
    assert mount == Mount(type="bind", source="/a", target="/b", bind_create_host_path=False)


def test_pointers_are_shown_when_false() -> None:
    shown = engine.container_spec(ContainerSpec(init=False, stop_grace_period=0.0))
    assert shown == {"Init": False, "StopGracePeriod": 0}
    assert engine.container_spec(ContainerSpec()) == {}


def _task(
    number: int, state: TaskState, desired: TaskState = TaskState.RUNNING, iteration: int | None = None
) -> Task:
    return Task(
        id=str(number),
        service_id="s",
        slot=number,
        status=TaskStatus(state=state),
        desired_state=desired,
        job_iteration=iteration,
    )


def test_counts() -> None:
    tasks = [
        _task(1, TaskState.RUNNING),
        _task(2, TaskState.FAILED, TaskState.SHUTDOWN),
        _task(3, TaskState.PENDING),
    ]
    replicated = Service(id="s", spec=ServiceSpec(mode=ServiceMode(replicas=4)))
    assert engine.count_tasks(replicated, tasks) == engine.ServiceCounts(running=1, desired=4)
    everywhere = Service(id="s", spec=ServiceSpec(mode=ServiceMode(kind="global")))
    assert engine.count_tasks(everywhere, tasks) == engine.ServiceCounts(running=1, desired=2)


def test_counts_of_a_job_are_those_of_its_run() -> None:
    job = Service(
        id="s",
        spec=ServiceSpec(mode=ServiceMode(kind="replicated-job", max_concurrent=2, total_completions=5)),
        job_status=JobStatus(iteration=2),
    )
    tasks = [
        _task(1, TaskState.COMPLETE, TaskState.COMPLETE, 1),
        _task(1, TaskState.COMPLETE, TaskState.COMPLETE, 2),
        _task(2, TaskState.RUNNING, TaskState.COMPLETE, 2),
    ]
    assert engine.count_tasks(job, tasks) == engine.ServiceCounts(running=1, desired=2, completed=1)
    assert replicas(job, engine.count_tasks(job, tasks)) == "1/2 (1/5 completed)"
    everywhere = replace(job, spec=ServiceSpec(mode=ServiceMode(kind="global-job")))
    counts = engine.count_tasks(everywhere, tasks)
    assert counts == engine.ServiceCounts(running=1, desired=1, completed=1)
    assert replicas(everywhere, counts) == "1/1 (1/2 completed)"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1970-01-01T00:00:01Z", 1.0),
        ("1970-01-01T00:00:01.500000000Z", 1.5),
        ("1970-01-01T01:00:00+01:00", 0.0),
        ("1970-01-02", 86400.0),
    ],
)
def test_times_are_read(text: str, moment: float) -> None:
    assert engine.parse_rfc3339(text) == moment


def test_bad_times_are_refused() -> None:
    with pytest.raises(Invalid, match="is not a time such as"):
        engine.parse_rfc3339("yesterday")
