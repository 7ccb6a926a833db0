"""Every rule on a spec: what breaks it, and that the message names the field."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from manager import validate
from pyswarm.errors import Invalid
from pyswarm.specs import (
    Autoscale,
    ClusterSpec,
    ConfigSpec,
    ContainerSpec,
    CronSchedule,
    Driver,
    EndpointSpec,
    ExternalCA,
    FileReference,
    GenericResource,
    Healthcheck,
    Mount,
    NetworkSpec,
    NodeSpec,
    Placement,
    PortConfig,
    ResourceRequirements,
    Resources,
    RestartPolicy,
    SecretSpec,
    ServiceMode,
    ServiceSpec,
    SpreadPreference,
    TaskSpec,
    UpdateConfig,
    VolumeSpec,
)

GOOD = ServiceSpec(name="web", task=TaskSpec(container=ContainerSpec(image="nginx:1.25")))
JOB = replace(
    GOOD,
    mode=ServiceMode(kind="replicated-job"),
    task=replace(GOOD.task, restart=RestartPolicy(condition="on-failure")),
)


def container(**fields: Any) -> ServiceSpec:
    return replace(GOOD, task=replace(GOOD.task, container=replace(GOOD.task.container, **fields)))


def task(**fields: Any) -> ServiceSpec:
    return replace(GOOD, task=replace(GOOD.task, **fields))


def limits(**fields: Any) -> ServiceSpec:
    return task(resources=ResourceRequirements(limits=Resources(**fields)))


def reserved(**fields: Any) -> ServiceSpec:
    resources = ResourceRequirements(
        limits=Resources(nano_cpus=10**9, memory=8 << 20), reservations=Resources(**fields)
    )
    return task(resources=resources)


def ports(*ports: PortConfig, mode: Any = "vip") -> ServiceSpec:
    return replace(GOOD, endpoint=EndpointSpec(mode=mode, ports=ports))


def mount(**fields: Any) -> ServiceSpec:
    given: dict[str, Any] = {"type": "volume", "target": "/data", **fields}
    return container(mounts=(Mount(**given),))


def file(**fields: Any) -> ServiceSpec:
    given: dict[str, Any] = {"source_name": "s", "target": "s", **fields}
    return container(secrets=(FileReference(**given),))


def stateful(source: str) -> ServiceSpec:
    return replace(mount(source=source), volumes_per_slot=True)


STATEFUL = stateful("data")
BAD: list[tuple[ServiceSpec, str]] = [
    (replace(GOOD, name=""), "name: must be provided"),
    (replace(GOOD, name="a" * 64), "name: must be 63 characters"),
    (replace(GOOD, name="-web"), "name: '-web' must start"),
    (replace(GOOD, name="we/b"), "name: 'we/b' must start"),
    (container(image=""), "image: must be provided"),
    (container(image="Nginx"), "image: 'Nginx' is not a valid reference"),
    (container(image="a b"), "image: 'a b'"),
    (container(stop_grace_period=-1.0), "stop_grace_period"),
    (limits(nano_cpus=1), r"resources\.limits\.cpus"),
    (limits(memory=1024), r"resources\.limits\.memory: must be at least 4 MiB"),
    (reserved(memory=9 << 20), r"resources\.reservations\.memory: more than the limit"),
    (reserved(nano_cpus=2 * 10**9), r"resources\.reservations\.cpus: more than the limit"),
    (reserved(pids=5), r"resources\.reservations\.pids"),
    (reserved(generic=(GenericResource(kind="gpu", value=0),)), r"reservations\.generic: gpu"),
    (task(restart=RestartPolicy(delay=-1.0)), r"restart_policy\.delay"),
    (task(restart=RestartPolicy(max_attempts=-1)), r"restart_policy\.max_attempts"),
    (task(restart=RestartPolicy(window=-1.0)), r"restart_policy\.window"),
    (task(placement=Placement(constraints=("node.role=manager",))), r"placement\.constraints"),
    (task(placement=Placement(max_replicas=-1)), "max_replicas_per_node"),
    (
        task(placement=Placement(preferences=(SpreadPreference(spread_descriptor="node.id"),))),
        r"placement\.preferences",
    ),
    (mount(target="data"), r"mounts\[0\]\.target: 'data' must be an absolute path"),
    (mount(target="/data/../etc"), r"mounts\[0\]\.target: .* must not contain"),
    (mount(target="/"), r"mounts\[0\]\.target: nothing can be mounted over"),
    (mount(target="/./"), r"mounts\[0\]\.target: nothing can be mounted over"),
    (mount(type="bind", source="data"), r"mounts\[0\]\.source: a bind mount needs an absolute path"),
    (mount(type="tmpfs", source="x"), r"mounts\[0\]\.source: a tmpfs has no source"),
    (mount(source="../../etc"), r"mounts\[0\]\.source: '\.\./\.\./etc' is not a valid volume name"),
    (mount(type="npipe"), r"mounts\[0\]: mounts of type npipe"),
    (
        container(mounts=(Mount(target="/a"), Mount(target="/a"))),
        r"mounts\[1\]\.target: /a is used by another",
    ),
    (file(source_name="", target="x"), r"secrets\[0\]: names no source"),
    (file(target="../../etc/shadow"), r"secrets\[0\]\.target: .* must not contain '\.\.'"),
    (file(uid="root"), r"secrets\[0\]\.uid"),
    (file(mode=0o100644), r"secrets\[0\]\.mode"),
    (
        container(
            configs=(FileReference(source_name="a", target="t"), FileReference(source_name="b", target="t"))
        ),
        r"configs\[1\]\.target: a and b both go to t",
    ),
    (container(healthcheck=Healthcheck(test=("curl", "x"))), r"healthcheck\.test"),
    (container(healthcheck=Healthcheck(interval=-1.0)), r"healthcheck\.interval: cannot be negative"),
    (container(healthcheck=Healthcheck(interval=0.0001)), r"healthcheck\.interval: at least 1 ms"),
    (replace(GOOD, mode=ServiceMode(replicas=-1)), r"mode\.replicas"),
    (replace(GOOD, mode=ServiceMode(replicas=10**9)), r"mode\.replicas: must be from 0 to"),
    (replace(JOB, update=UpdateConfig()), "update_config: jobs are not updated"),
    (replace(JOB, rollback=UpdateConfig()), "rollback_config: jobs cannot be rolled back"),
    (replace(GOOD, mode=JOB.mode), r"restart_policy\.condition: a job completes"),
    (replace(JOB, mode=ServiceMode(kind="replicated-job", max_concurrent=-1)), "max_concurrent"),
    (replace(GOOD, autoscale=Autoscale(min=5, max=2)), "autoscale: min"),
    (replace(GOOD, autoscale=Autoscale(cpu=0.5)), "autoscale: a share of cpus needs"),
    (replace(GOOD, autoscale=Autoscale(memory=0.5)), "autoscale: a share of memory needs"),
    (replace(GOOD, autoscale=Autoscale(metric="queue", target=1.0)), "autoscale.metric: 'queue' is none of"),
    (replace(JOB, cron=CronSchedule(schedule="99 * * * *")), "minute '99' is not from 0 to 59"),
    (replace(JOB, cron=CronSchedule(schedule="@daily", time_zone="Mars/Base")), "Mars/Base"),
    (replace(JOB, cron=CronSchedule(schedule="@daily", history=-1)), "history cannot be negative"),
    (replace(GOOD, volumes_per_slot=True), "volumes_per_slot: the service mounts no named volume"),
    (replace(GOOD, volumes_move_after=1.0), "volumes_move_after: only slots with volumes_per_slot"),
    (
        replace(STATEFUL, mode=ServiceMode(kind="global")),
        "volumes_per_slot: only replicated services have slots",
    ),
    (replace(STATEFUL, volumes_move_after=-1.0), "volumes_move_after: cannot be negative"),
    (stateful("data-{{.Task.Slot}}"), "needs no template"),
    (
        replace(GOOD, mode=ServiceMode(kind="global"), autoscale=Autoscale(min=1, max=2)),
        "autoscale: only replicated",
    ),
    (replace(GOOD, update=UpdateConfig(parallelism=-1)), r"update_config\.parallelism"),
    (replace(GOOD, update=UpdateConfig(delay=-1.0)), "update_config: delay"),
    (replace(GOOD, update=UpdateConfig(max_failure_ratio=1.5)), r"update_config\.max_failure_ratio"),
    (replace(GOOD, rollback=UpdateConfig(failure_action="rollback")), r"rollback_config\.failure_action"),
    (ports(PortConfig(target_port=0)), r"ports\[0\]\.target"),
    (ports(PortConfig(target_port=80, published_port=70000)), r"ports\[0\]\.published"),
    (
        ports(*[PortConfig(target_port=n, published_port=80) for n in (1, 2)]),
        r"ports\[1\]: 80/tcp is published twice",
    ),
    (ports(PortConfig(target_port=80, published_port=80), mode="dnsrr"), "endpoint mode dnsrr"),
]


@pytest.mark.parametrize(("spec", "words"), BAD, ids=[words for _, words in BAD])
def test_a_service_that_is_refused(spec: ServiceSpec, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        validate.service(spec)


@pytest.mark.parametrize(
    "image",
    [
        "nginx",
        "nginx:1.25",
        "localhost:5000/a/b:tag",
        "registry.example.org/a__b/c-d@sha256:" + "0" * 64,
        "[::1]:5000/a",
    ],
)
def test_images_that_are_accepted(image: str) -> None:
    validate.service(container(image=image))


def test_services_that_are_accepted() -> None:
    for spec in (GOOD, JOB, mount(), file(), ports(PortConfig(target_port=80)), limits(memory=4 << 20)):
        validate.service(spec)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(Invalid) as error:
        validate.service(replace(container(image="", mounts=(Mount(target="x"),)), name=""))
    for words in ("name:", "image:", "mounts[0].target:"):
        assert words in str(error.value)


@pytest.mark.parametrize(
    ("check", "spec", "words"),
    [
        (validate.network, NetworkSpec(name="a b"), "name"),
        (validate.network, NetworkSpec(name="n", driver=Driver(name="macvlan")), "driver: 'macvlan'"),
        (validate.volume, VolumeSpec(name=".."), "name"),
        (validate.volume, VolumeSpec(name="v", driver=Driver(name="nfs")), "driver: 'nfs'"),
        (validate.secret, SecretSpec(name="s", data=b""), "holds 1 to 512000 bytes"),
        (validate.secret, SecretSpec(name="s", data=b"x" * 512_001), "holds 1 to 512000 bytes"),
        (validate.config, ConfigSpec(name="c", data=b"x" * 1_024_001), "holds 1 to 1024000 bytes"),
        (validate.node, NodeSpec(name="a/b"), "name"),
        (validate.node, NodeSpec(labels={"": "x"}), "a label needs a name"),
        (validate.cluster, ClusterSpec(heartbeat_period=0.01), "heartbeat_period"),
        (validate.cluster, ClusterSpec(heartbeat_period=float("nan")), "heartbeat_period"),
        (validate.cluster, ClusterSpec(heartbeat_grace=1.0), "heartbeat_grace"),
        (validate.cluster, ClusterSpec(node_cert_expiry=60.0), "node_cert_expiry"),
        (validate.cluster, ClusterSpec(data_path_port=80), "data_path_port"),
        (
            validate.cluster,
            ClusterSpec(external_cas=(ExternalCA(url="http://ca"),)),
            "external_cas",
        ),
        (validate.cluster, ClusterSpec(default_address_pool=()), "default_address_pool: name at least one"),
        (validate.cluster, ClusterSpec(default_address_pool=("10.0.0.1/8",)), "default_address_pool"),
        (validate.cluster, ClusterSpec(default_address_pool=("10.0.0.0/8", "10.1.0.0/16")), "overlaps"),
    ],
)
def test_other_specs_that_are_refused(check: Any, spec: Any, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        check(spec)
