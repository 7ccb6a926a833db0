"""The parts of a service's spec that need nothing but the service: model in, spec values out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, cast

from compose import model
from pyswarm.specs import (
    Autoscale,
    BlkioDevice,
    CronSchedule,
    DeviceRequest,
    Driver,
    GenericResource,
    Healthcheck,
    Hook,
    Placement,
    Platform,
    PortConfig,
    ResourceRequirements,
    Resources,
    RestartPolicy,
    SpreadPreference,
    Ulimit,
    UpdateConfig,
)


def single(service: model.Service) -> bool:
    """Whether a service has at most one task at a time."""
    deploy = service.deploy or model.Deploy()
    count = deploy.replicas if deploy.replicas is not None else service.scale
    return not deploy.mode.startswith("global") and (count is None or count <= 1)


def published(text: str) -> range:
    """The ports that `published` stands for; 0 for one that the managers choose. Every port of a range
    leads to the same container port, as `docker stack deploy` has it."""
    first, _, last = text.partition("-")
    return range(int(first or "0"), int(last or first or "0") + 1)


def port(port: model.Port, published: int) -> PortConfig:
    return PortConfig(
        target_port=port.target,
        published_port=published,
        protocol=cast(Literal["tcp", "udp", "sctp"], port.protocol),
        publish_mode=cast(Literal["ingress", "host"], port.mode),
        name=port.name,
        host_ip="" if port.host_ip in ("0.0.0.0", "::") else port.host_ip,
        app_protocol=port.app_protocol,
    )


def compose_restart(restart: str, once: bool, job: bool) -> RestartPolicy:
    """Compose's `restart` as a policy. Nothing said: any, and on-failure for what is to run once."""
    name, _, attempts = restart.partition(":")
    if name == "no":
        return RestartPolicy(condition="none")
    if name == "on-failure":
        return RestartPolicy(condition="on-failure", max_attempts=int(attempts or "0"))
    if job or (once and not name):
        return RestartPolicy(condition="on-failure")
    return RestartPolicy(condition="any")


def placement(service: model.Service, deploy: model.Deploy, extra: model.Pyswarm) -> Placement:
    platforms: tuple[Platform, ...] = ()
    if service.platform:
        system, _, architecture = service.platform.partition("/")
        platforms = (Platform(os=system, architecture=architecture),)
    return Placement(
        constraints=tuple(deploy.placement.constraints),
        preferences=tuple(
            SpreadPreference(spread_descriptor=preference.spread)
            for preference in deploy.placement.preferences
            if preference.spread
        ),
        max_replicas=deploy.placement.max_replicas_per_node,
        platforms=platforms,
        strategy=extra.placement_strategy,
    )


def _nano(cpus: float) -> int:
    return round(cpus * 1_000_000_000)


def resources(service: model.Service, deploy: model.Deploy) -> ResourceRequirements:
    limits, reservations = deploy.resources.limits, deploy.resources.reservations
    memory = limits.memory or service.mem_limit
    blkio = service.blkio_config or model.Blkio()
    return ResourceRequirements(
        limits=Resources(
            nano_cpus=_nano(limits.cpus or service.cpus),
            memory=memory,
            pids=max(limits.pids or service.pids_limit, 0),
        ),
        reservations=Resources(
            nano_cpus=_nano(reservations.cpus),
            memory=reservations.memory,
            generic=tuple(
                GenericResource(
                    kind=resource.discrete_resource_spec.kind, value=resource.discrete_resource_spec.value
                )
                for resource in reservations.generic_resources
            ),
        ),
        swap=_swap(service.memswap_limit, memory),
        swappiness=service.mem_swappiness,
        cpu_shares=service.cpu_shares,
        cpu_period=service.cpu_period,
        cpu_quota=service.cpu_quota,
        cpu_rt_period=service.cpu_rt_period,
        cpu_rt_runtime=service.cpu_rt_runtime,
        cpuset_cpus=service.cpuset,
        blkio_weight=blkio.weight,
        blkio_weight_device=tuple(
            BlkioDevice(path=device.path, value=device.weight) for device in blkio.weight_device
        ),
        blkio_read_bps=_rates(blkio.device_read_bps),
        blkio_write_bps=_rates(blkio.device_write_bps),
        blkio_read_iops=_rates(blkio.device_read_iops),
        blkio_write_iops=_rates(blkio.device_write_iops),
        memory_low=service.mem_reservation,
    )


def _rates(limits: Sequence[model.BlkioLimit]) -> tuple[BlkioDevice, ...]:
    return tuple(BlkioDevice(path=limit.path, value=limit.rate) for limit in limits)


def _swap(total: int, memory: int) -> int | None:
    """Swap on top of memory: `memswap_limit` is the sum of both."""
    if total == 0:
        return None
    return -1 if total < 0 else max(total - memory, 0)


def update(said: model.UpdateConfig | None, extra: model.Pyswarm | None) -> UpdateConfig | None:
    deadline = extra.progress_deadline if extra is not None else None
    if said is None:
        return None if deadline is None else UpdateConfig(progress_deadline=deadline)
    return UpdateConfig(
        parallelism=1 if said.parallelism is None else said.parallelism,
        delay=said.delay or 0.0,
        failure_action=cast(Literal["pause", "continue", "rollback"], said.failure_action or "pause"),
        monitor=said.monitor,
        max_failure_ratio=said.max_failure_ratio,
        order=cast(Literal["stop-first", "start-first"], said.order or "stop-first"),
        progress_deadline=deadline,
    )


def log_driver(said: model.Logging | None) -> Driver | None:
    if said is None or not (said.driver or said.options):
        return None
    return Driver(name=said.driver, options=said.options)


def cron(said: model.Schedule | None) -> CronSchedule | None:
    if said is None:
        return None
    return CronSchedule(
        schedule=said.schedule or said.cron,
        time_zone=said.time_zone,
        concurrency=cast(Literal["allow", "forbid", "replace"], said.concurrency),
        history=said.history,
        starting_deadline=said.starting_deadline,
    )


def autoscale(said: model.AutoscaleRule | None) -> Autoscale | None:
    if said is None:
        return None
    return Autoscale(
        min=said.min,
        max=said.max,
        cpu=said.cpu,
        memory=said.memory,
        metric=said.metric,
        target=said.target,
        cooldown=said.cooldown,
    )


def environment(environment: Mapping[str, str | None]) -> tuple[str, ...]:
    return tuple(sorted(name if value is None else f"{name}={value}" for name, value in environment.items()))


def healthcheck(said: model.Healthcheck | None) -> Healthcheck | None:
    if said is None:
        return None
    if said.disable:
        return Healthcheck(test=("NONE",))
    return Healthcheck(
        test=tuple(said.test or ()),
        interval=said.interval,
        timeout=said.timeout,
        retries=said.retries,
        start_period=said.start_period,
        start_interval=said.start_interval,
    )


def host(entry: str) -> str:
    name, _, address = entry.partition("=")
    return f"{address} {name}"


def capability(name: str) -> str:
    upper = name.upper()
    return upper if upper in ("ALL", "CAP_ALL") or upper.startswith("CAP_") else f"CAP_{upper}"


def security(options: Sequence[str]) -> tuple[bool, tuple[str, ...]]:
    """Whether no-new-privileges is asked for, and the other options."""
    flag = False
    rest: list[str] = []
    for option in options:
        key, _, value = option.replace("=", ":", 1).partition(":")
        if key == "no-new-privileges":
            flag = value.lower() not in ("false", "0")
        else:
            rest.append(option)
    return flag, tuple(rest)


def device_requests(service: model.Service) -> tuple[DeviceRequest, ...]:
    deploy = service.deploy
    said = [*service.gpus, *(deploy.resources.reservations.devices if deploy is not None else [])]
    gpus = len(service.gpus)
    return tuple(
        DeviceRequest(
            driver=request.driver,
            count=request.count,
            device_ids=tuple(request.device_ids),
            capabilities=tuple(request.capabilities) or (("gpu",) if index < gpus else ()),
            options=request.options,
        )
        for index, request in enumerate(said)
    )


def ulimit(name: str, value: int | model.Ulimit) -> Ulimit:
    if isinstance(value, int):
        return Ulimit(name=name, soft=value, hard=value)
    return Ulimit(name=name, soft=value.soft, hard=value.hard)


def build_ulimit(name: str, value: int | model.Ulimit) -> str:
    limit = ulimit(name, value)
    return f"{limit.name}={limit.soft}:{limit.hard}"


def hook(hook: model.Hook) -> Hook:
    return Hook(
        command=tuple(hook.command or ()),
        user=hook.user,
        privileged=hook.privileged,
        working_dir=hook.working_dir,
        env=environment(hook.environment),
    )
