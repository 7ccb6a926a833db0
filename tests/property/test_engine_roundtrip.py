"""A spec survives the Engine API: written as JSON and read again, it is the same spec."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pyswarm import engine
from pyswarm.specs import (
    Autoscale,
    BlkioDevice,
    ClusterSpec,
    ConfigSpec,
    ContainerSpec,
    CronSchedule,
    Dependency,
    DeviceMapping,
    DeviceRequest,
    Driver,
    EndpointSpec,
    FileReference,
    GenericResource,
    Healthcheck,
    Hook,
    IpamPool,
    Mount,
    NetworkAttachmentSpec,
    NetworkSpec,
    NodeSpec,
    Placement,
    Platform,
    PortConfig,
    ResourceRequirements,
    Resources,
    RestartPolicy,
    SecretSpec,
    ServiceMode,
    ServiceSpec,
    SpreadPreference,
    TaskSpec,
    Ulimit,
    UpdateConfig,
    VolumeSpec,
)

word = st.text("abcxyz", min_size=1, max_size=4)
words = st.lists(word, max_size=2).map(tuple)
maybe_words = st.none() | st.lists(word, min_size=1, max_size=2).map(tuple)
labels = st.dictionaries(word, st.text("ab =", max_size=3), max_size=2)
count = st.integers(0, 1 << 40)
seconds = st.integers(1, 10_000).map(lambda n: n / 4)
maybe_seconds = st.none() | seconds
driver = st.builds(Driver, name=word, options=labels)


def tuples(strategy: st.SearchStrategy[Any], key: Any = None) -> st.SearchStrategy[Any]:
    return st.lists(strategy, max_size=2, unique_by=key).map(tuple)


bind = st.builds(
    Mount,
    type=st.just("bind"),
    source=word,
    target=word,
    read_only=st.booleans(),
    bind_propagation=st.sampled_from(["", "rslave"]),
    bind_create_host_path=st.booleans(),
    bind_non_recursive=st.booleans(),
)
volume = st.builds(
    Mount,
    source=word,
    target=word,
    consistency=st.sampled_from(["", "cached"]),
    volume_no_copy=st.booleans(),
    volume_subpath=st.sampled_from(["", "sub"]),
    volume_labels=labels,
    volume_driver=st.none() | driver,
)
tmpfs = st.builds(
    Mount, type=st.just("tmpfs"), target=word, tmpfs_size=count, tmpfs_mode=st.integers(0, 0o7777)
)
reference = st.builds(
    FileReference,
    source_id=word,
    source_name=word,
    target=word,
    uid=st.sampled_from(["0", "1000"]),
    gid=st.sampled_from(["0", "5"]),
    mode=st.integers(0, 0o777),
)
health = st.builds(
    Healthcheck,
    test=st.sampled_from([(), ("NONE",), ("CMD-SHELL", "x")]),
    interval=maybe_seconds,
    timeout=maybe_seconds,
    retries=st.none() | st.integers(1, 9),
    start_period=maybe_seconds,
    start_interval=maybe_seconds,
)
container = st.builds(
    ContainerSpec,
    image=word,
    labels=labels,
    command=maybe_words,
    args=maybe_words,
    hostname=st.sampled_from(["", "h"]),
    domainname=st.sampled_from(["", "d"]),
    env=words,
    user=st.sampled_from(["", "u"]),
    init=st.sampled_from([None, True, False]),
    tty=st.booleans(),
    open_stdin=st.booleans(),
    read_only=st.booleans(),
    stop_signal=st.sampled_from(["", "SIGINT"]),
    stop_grace_period=st.none() | st.just(0.0) | seconds,
    healthcheck=st.none() | health,
    mounts=tuples(bind | volume | tmpfs),
    secrets=tuples(reference),
    configs=tuples(reference),
    hosts=words,
    dns_nameservers=words,
    dns_search=words,
    cap_add=words,
    cap_drop=words,
    privileged=st.booleans(),
    no_new_privileges=st.booleans(),
    security_opt=st.sampled_from([(), ("label=disable",), ("seccomp=unconfined", "systempaths=unconfined")]),
    devices=tuples(st.builds(DeviceMapping, path_on_host=word, path_in_container=word)),
    device_requests=tuples(
        st.builds(DeviceRequest, driver=word, count=st.integers(-1, 3), capabilities=words)
    ),
    ulimits=tuples(st.builds(Ulimit, name=word, soft=count, hard=count)),
    sysctls=labels,
    shm_size=count,
    oom_score_adj=st.integers(-1000, 1000),
    post_start=tuples(st.builds(Hook, command=words, user=word, env=words)),
    network_mode=st.sampled_from(["", "host"]),
)


def _target(wish: NetworkAttachmentSpec) -> str:
    return wish.target


amounts = st.builds(Resources, nano_cpus=count, memory=count)
resources = st.builds(
    ResourceRequirements,
    limits=st.builds(Resources, nano_cpus=count, memory=count, pids=count),
    reservations=st.builds(
        Resources,
        nano_cpus=count,
        generic=tuples(
            st.builds(GenericResource, kind=word, value=st.integers(1, 9))
            | st.builds(GenericResource, kind=word, string_value=word)
        ),
    ),
    swap=st.sampled_from([None, -1, 0, 5]),
    swappiness=st.sampled_from([None, 0, 60]),
    cpuset_cpus=st.sampled_from(["", "0-1"]),
    blkio_read_bps=tuples(st.builds(BlkioDevice, path=word, value=count)),
)
update = st.builds(
    UpdateConfig,
    parallelism=st.integers(0, 9),
    delay=st.just(0.0) | seconds,
    failure_action=st.sampled_from(["pause", "continue", "rollback"]),
    monitor=maybe_seconds,
    max_failure_ratio=st.sampled_from([0.0, 0.25, 1.0]),
    order=st.sampled_from(["stop-first", "start-first"]),
    progress_deadline=st.sampled_from([None, 0.0, 90.5]),
)
task = st.builds(
    TaskSpec,
    container=container,
    resources=resources,
    restart=st.builds(
        RestartPolicy,
        condition=st.sampled_from(["none", "on-failure", "any"]),
        delay=st.none() | st.just(0.0) | seconds,
        max_attempts=st.integers(0, 5),
        window=st.just(0.0) | seconds,
        max_delay=maybe_seconds,
    ),
    placement=st.builds(
        Placement,
        constraints=words,
        preferences=tuples(st.builds(SpreadPreference, spread_descriptor=word)),
        max_replicas=st.integers(0, 5),
        platforms=tuples(st.builds(Platform, architecture=word, os=word)),
        strategy=st.sampled_from(["", "binpack"]),
    ),
    networks=tuples(
        st.builds(
            NetworkAttachmentSpec,
            target=word,
            aliases=words,
            addresses=words,
            driver_opts=labels,
            priority=count,
        ),
        _target,
    ),
    log_driver=st.none() | driver,
    force_update=count,
    runtime=st.sampled_from(["", "crun"]),
)
port = st.builds(
    PortConfig,
    target_port=st.integers(1, 65535),
    published_port=st.integers(0, 65535),
    protocol=st.sampled_from(["tcp", "udp", "sctp"]),
    publish_mode=st.sampled_from(["ingress", "host"]),
    host_ip=st.sampled_from(["", "127.0.0.1"]),
)


def _port_key(port: PortConfig) -> Any:
    return replace(port, host_ip="")


mode = (
    st.builds(ServiceMode, replicas=st.integers(0, 9))
    | st.sampled_from([ServiceMode(kind="global"), ServiceMode(kind="global-job")])
    | st.builds(
        ServiceMode,
        kind=st.just("replicated-job"),
        max_concurrent=st.integers(0, 9),
        total_completions=st.integers(0, 9),
    )
)
service = st.builds(
    ServiceSpec,
    name=word,
    labels=labels,
    task=task,
    mode=mode,
    update=st.none() | update,
    rollback=st.none() | update,
    endpoint=st.builds(EndpointSpec, mode=st.sampled_from(["vip", "dnsrr"]), ports=tuples(port, _port_key)),
    depends_on=tuples(
        st.builds(Dependency, service=word, condition=st.just("service_healthy"), restart=st.booleans())
    ),
    cron=st.none() | st.builds(CronSchedule, schedule=word, time_zone=word, starting_deadline=maybe_seconds),
    autoscale=st.none()
    | st.builds(Autoscale, cpu=st.sampled_from([None, 0.7]), cooldown=seconds, metric=word),
    volumes_per_slot=st.booleans(),
    rebalance=st.sampled_from(["", "gentle"]),
)


def _as_managers_take_it(spec: ServiceSpec) -> ServiceSpec:
    """A job restarts on failure or not at all."""
    if not spec.mode.kind.endswith("-job") or spec.task.restart.condition != "any":
        return spec
    return replace(spec, task=replace(spec.task, restart=replace(spec.task.restart, condition="on-failure")))


service = service.map(_as_managers_take_it)


def wire(value: object) -> Any:
    """What a client receives and sends."""
    return json.loads(json.dumps(value))


@settings(max_examples=30, deadline=None)
@given(service)
def test_service_spec(spec: ServiceSpec) -> None:
    assert engine.service_spec(wire(engine.service_spec_json(spec))) == spec


EXTENSIONS = (
    frozenset(
        (
            "PullPolicy",
            "Domainname",
            "Privileged",
            "Devices",
            "DeviceRequests",
            "ShmSize",
            "PostStart",
            "NetworkMode",
        )
    )
    | frozenset(
        (
            "SwapBytes",
            "MemorySwappiness",
            "CpusetCpus",
            "BlkioDeviceReadBps",
            "Addresses",
            "Priority",
            "MaxDelay",
        )
    )
    | frozenset(("ProgressDeadline", "Strategy", "HostIP", "OCIRuntime", "SecurityOpt"))
    | frozenset(("DependsOn", "Cron", "Autoscale", "VolumesPerSlot", "Rebalance"))
)


def _as_docker_writes_it(value: Any) -> Any:
    """Without the fields that docker's client does not know, at any depth."""
    if isinstance(value, list):
        return [_as_docker_writes_it(each) for each in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, dict):
        return {k: _as_docker_writes_it(v) for k, v in value.items() if k not in EXTENSIONS}  # pyright: ignore[reportUnknownVariableType]
    return value


@settings(max_examples=30, deadline=None)
@given(service, service)
def test_what_docker_does_not_know_is_kept(spec: ServiceSpec, other: ServiceSpec) -> None:
    """docker reads a service, changes what it knows and writes it: the rest must be as before."""
    body = _as_docker_writes_it(wire(engine.service_spec_json(spec)))
    again = engine.service_spec(body, replace(spec, labels=other.labels, mode=other.mode))
    assert again == spec


@given(
    st.builds(
        NetworkSpec,
        name=word,
        labels=labels,
        driver=driver,
        internal=st.booleans(),
        attachable=st.booleans(),
        enable_ipv6=st.booleans(),
        ipam=tuples(st.builds(IpamPool, subnet=word, ip_range=word, gateway=word, aux_addresses=labels)),
    )
)
@settings(max_examples=30, deadline=None)
def test_network_spec(spec: NetworkSpec) -> None:
    from pyswarm.objects import Network

    assert engine.network_spec(wire(engine.network(Network(id="n", spec=spec)))) == spec


@given(word, labels, st.binary(max_size=8))
@settings(max_examples=20, deadline=None)
def test_the_other_specs(name: str, labels: dict[str, str], data: bytes) -> None:
    from pyswarm.objects import Config, Secret

    config = ConfigSpec(name=name, labels=labels, data=data, templating=Driver(name="golang"))
    assert engine.config_spec(wire(engine.config(Config(id="c", spec=config)))["Spec"]) == config
    secret = SecretSpec(name=name, labels=labels, data=data)
    shown = wire(engine.secret(Secret(id="s", spec=secret)))["Spec"]
    assert "Data" not in shown
    assert engine.secret_spec(shown) == replace(secret, data=b"")
    node = NodeSpec(name=name, labels=labels, role="manager", availability="drain")
    assert engine.node_spec(wire(engine.node_spec_json(node))) == node
    volume = VolumeSpec(name=name, labels=labels, driver=Driver(name="nfs", options=labels))
    body = {"Name": name, "Labels": labels, "Driver": "nfs", "DriverOpts": labels}
    assert engine.volume_spec(body) == volume
    cluster = ClusterSpec(
        name=name,
        labels=labels,
        task_history_limit=-1,
        heartbeat_period=2.5,
        autolock=True,
        rebalance="gentle",
    )
    assert engine.cluster_spec(wire(engine.cluster_spec_json(cluster))) == cluster
