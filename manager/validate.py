"""What the control API accepts: every spec is checked before anything is written. Pure.

The rules are SwarmKit's (`manager/controlapi`), made complete where Swarm lets a mistake through to the node.
All problems of a spec are reported at once, each with the path of its field.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath
from typing import TypeVar

from manager.orchestrator.cron import parse as parse_schedule
from manager.scheduler.constraints import parse_all
from pyswarm.errors import Invalid
from pyswarm.specs import (
    AUTOSCALE_METRICS,
    Autoscale,
    ClusterSpec,
    ConfigSpec,
    CronSchedule,
    FileReference,
    Healthcheck,
    Mount,
    NetworkSpec,
    NodeSpec,
    PortConfig,
    ResourceRequirements,
    SecretSpec,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
    VolumeSpec,
)

SpecT = TypeVar("SpecT")
Problems = list[str]

MIN_MEMORY = 4 * 1024 * 1024
MIN_NANO_CPUS = 1_000_000
MAX_REPLICAS = 100_000
"""Of one service: far beyond what a cluster carries, and a slip of the finger is told instead of planned."""
MAX_SECRET = 500 * 1024
MAX_CONFIG = 1000 * 1024
_NAME = re.compile(r"[a-zA-Z0-9](?:[-_.a-zA-Z0-9]*[a-zA-Z0-9])?")
_SERVICE_NAME_MAX = 63
_OBJECT_NAME_MAX = 256
_IMAGE = re.compile(
    r"(?:(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]+)?/)?"
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
    r"(?::[\w][\w.-]{0,127})?(?:@[a-z0-9]+:[0-9a-f]{32,})?"
)
_ABSOLUTE_TARGETS = ("bind", "volume", "tmpfs", "image", "cluster")


def check(spec: SpecT, checker: Callable[[SpecT, Problems], None], what: str) -> None:
    """Raise Invalid with all problems that `checker` finds."""
    problems: Problems = []
    checker(spec, problems)
    if problems:
        raise Invalid(f"invalid {what}: " + "; ".join(problems))


def service(spec: ServiceSpec) -> None:
    """Raise Invalid unless the service could be created as it stands."""
    check(spec, _service, f"service {spec.name!r}" if spec.name else "service")


def network(spec: NetworkSpec) -> None:
    check(spec, lambda s, p: _named(s.name, _OBJECT_NAME_MAX, p), f"network {spec.name!r}")
    if spec.driver.name not in ("overlay", "bridge"):
        raise Invalid(
            f"invalid network {spec.name!r}: driver: {spec.driver.name!r} is not known here: use overlay or bridge"
        )


def volume(spec: VolumeSpec) -> None:
    check(spec, lambda s, p: _named(s.name, _OBJECT_NAME_MAX, p), f"volume {spec.name!r}")
    if spec.driver.name not in ("", "local"):
        raise Invalid(
            f"invalid volume {spec.name!r}: driver: {spec.driver.name!r} is not installed: use local"
        )


def secret(spec: SecretSpec) -> None:
    check(spec, lambda s, p: _payload(s.name, len(s.data), MAX_SECRET, "secret", p), f"secret {spec.name!r}")


def config(spec: ConfigSpec) -> None:
    check(spec, lambda s, p: _payload(s.name, len(s.data), MAX_CONFIG, "config", p), f"config {spec.name!r}")


def node(spec: NodeSpec) -> None:
    if spec.name:
        check(spec, lambda s, p: _named(s.name, _OBJECT_NAME_MAX, p), f"node {spec.name!r}")
    if any(not key for key in spec.labels):
        raise Invalid("invalid node: labels: a label needs a name")


def cluster(spec: ClusterSpec) -> None:
    check(spec, _cluster, "cluster")


def _cluster(spec: ClusterSpec, problems: Problems) -> None:
    if not spec.heartbeat_period >= 0.1:  # so that NaN is refused too
        problems.append("heartbeat_period: at least 100 ms")
    if not spec.heartbeat_grace >= 2:
        problems.append("heartbeat_grace: at least 2 periods, or busy nodes count as dead")
    if not spec.node_cert_expiry >= 3600:
        problems.append("node_cert_expiry: at least 1h")
    if not 1024 <= spec.data_path_port <= 49151:
        problems.append("data_path_port: must be from 1024 to 49151")
    for index, ca in enumerate(spec.external_cas):
        if ca.protocol != "cfssl" or not ca.url.startswith("https://"):
            problems.append(
                f"external_cas[{index}]: must be of protocol cfssl, with a URL that begins with https://"
            )
    _pools(spec.default_address_pool, problems)


def _pools(pools: Sequence[str], problems: Problems) -> None:
    """Networks, none of them part of another: a subnet of both would be given away twice."""
    if not pools:
        problems.append("default_address_pool: name at least one network, such as 10.0.0.0/8")
    known: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
    for pool in pools:
        try:
            network = ipaddress.ip_network(pool)
        except ValueError as error:
            problems.append(f"default_address_pool: {error}: write it as 10.20.0.0/16")
            continue
        for other in known:
            if network.version == other.version and network.overlaps(other):
                problems.append(f"default_address_pool: {network} overlaps {other}: name each address once")
        known.append(network)


# ---------------------------------------------------------------------------------------------- parts


def _named(name: str, longest: int, problems: Problems) -> None:
    if not name:
        problems.append("name: must be provided")
    elif len(name) > longest:
        problems.append(f"name: must be {longest} characters or fewer, is {len(name)}")
    elif not _NAME.fullmatch(name):
        problems.append(
            f"name: {name!r} must start and end with a letter or digit and hold only those, '-', '_', '.'"
        )


def _payload(name: str, size: int, limit: int, what: str, problems: Problems) -> None:
    _named(name, _OBJECT_NAME_MAX, problems)
    if not 0 < size <= limit:
        problems.append(f"data: a {what} holds 1 to {limit} bytes, this one {size}")


def _service(spec: ServiceSpec, problems: Problems) -> None:
    _named(spec.name, _SERVICE_NAME_MAX, problems)
    _task(spec.task, problems)
    _mode(spec, problems)
    _updates(spec, problems)
    _endpoint(spec, problems)
    if any(d.service == spec.name for d in spec.depends_on):
        problems.append(f"depends_on: {spec.name} cannot depend on itself")


def _task(task: TaskSpec, problems: Problems) -> None:
    container = task.container
    if not container.image:
        problems.append("image: must be provided")
    elif not _IMAGE.fullmatch(container.image):
        problems.append(
            f"image: {container.image!r} is not a valid reference (name[:tag][@digest], in lower case)"
        )
    _resources(task.resources, problems)
    _restart(task, problems)
    _placement(task, problems)
    _mounts(container.mounts, problems)
    _files("secrets", container.secrets, problems)
    _files("configs", container.configs, problems)
    if container.healthcheck is not None:
        _healthcheck(container.healthcheck, problems)
    if container.stop_grace_period is not None and container.stop_grace_period < 0:
        problems.append("stop_grace_period: cannot be negative")


def _resources(resources: ResourceRequirements, problems: Problems) -> None:
    for where, amount in (("limits", resources.limits), ("reservations", resources.reservations)):
        if amount.nano_cpus and amount.nano_cpus < MIN_NANO_CPUS:
            problems.append(f"resources.{where}.cpus: must be at least 0.001")
        if amount.memory and amount.memory < MIN_MEMORY:
            problems.append(f"resources.{where}.memory: must be at least 4 MiB, is {amount.memory} bytes")
    limits, reserved = resources.limits, resources.reservations
    if limits.memory and reserved.memory > limits.memory:
        problems.append("resources.reservations.memory: more than the limit, so no task could ever use it")
    if limits.nano_cpus and reserved.nano_cpus > limits.nano_cpus:
        problems.append("resources.reservations.cpus: more than the limit, so no task could ever use it")
    if reserved.pids:
        problems.append("resources.reservations.pids: only a limit can be set")
    for generic in reserved.generic:
        if generic.value <= 0:
            problems.append(
                f"resources.reservations.generic: {generic.kind}: ask for a whole number of 1 or more"
            )


def _restart(task: TaskSpec, problems: Problems) -> None:
    restart = task.restart
    for name, value in (
        ("delay", restart.delay),
        ("window", restart.window),
        ("max_attempts", restart.max_attempts),
    ):
        if value is not None and value < 0:
            problems.append(f"restart_policy.{name}: cannot be negative")


def _placement(task: TaskSpec, problems: Problems) -> None:
    try:
        parse_all(task.placement.constraints, "placement.constraints")
    except Invalid as error:
        problems.append(str(error))
    if task.placement.max_replicas < 0:
        problems.append("placement.max_replicas_per_node: cannot be negative")
    for preference in task.placement.preferences:
        if not preference.spread_descriptor.startswith(("node.labels.", "engine.labels.")):
            problems.append(
                f"placement.preferences: spread over {preference.spread_descriptor!r}: node.labels.X or engine.labels.X"
            )
    if task.placement.strategy not in ("", "spread", "binpack"):
        problems.append(f"placement.strategy: {task.placement.strategy!r} is neither spread nor binpack")


def _mounts(mounts: Iterable[Mount], problems: Problems) -> None:
    targets: set[str] = set()
    for index, mount in enumerate(mounts):
        where = f"mounts[{index}]"
        if mount.type not in _ABSOLUTE_TARGETS:
            problems.append(f"{where}: mounts of type {mount.type} do not exist on Linux")
        if not mount.target.startswith("/"):
            problems.append(f"{where}.target: {mount.target!r} must be an absolute path")
        elif posixpath.normpath(mount.target) in ("/", "//"):
            problems.append(f"{where}.target: nothing can be mounted over the container's root")
        if ".." in PurePosixPath(mount.target).parts:
            problems.append(f"{where}.target: {mount.target!r} must not contain '..'")
        if mount.type == "bind" and not mount.source.startswith("/"):
            problems.append(f"{where}.source: a bind mount needs an absolute path, not {mount.source!r}")
        if mount.type == "tmpfs" and mount.source:
            problems.append(f"{where}.source: a tmpfs has no source")
        if mount.type == "volume" and mount.source and not _NAME.fullmatch(mount.source):
            problems.append(f"{where}.source: {mount.source!r} is not a valid volume name")
        if mount.target in targets:
            problems.append(f"{where}.target: {mount.target} is used by another mount too")
        targets.add(mount.target)


def _files(where: str, files: Iterable[FileReference], problems: Problems) -> None:
    targets: dict[str, str] = {}
    for index, file in enumerate(files):
        target = file.target or file.source_name
        if not file.source_id and not file.source_name:
            problems.append(f"{where}[{index}]: names no source")
        if ".." in PurePosixPath(target).parts:
            problems.append(f"{where}[{index}].target: {target!r} must not contain '..'")
        if target in targets:
            problems.append(
                f"{where}[{index}].target: {targets[target]} and {file.source_name} both go to {target}"
            )
        targets[target] = file.source_name
        for name, value in (("uid", file.uid), ("gid", file.gid)):
            if value and not value.isdigit():
                problems.append(f"{where}[{index}].{name}: {value!r} must be a number")
        if file.mode & ~0o7777:
            problems.append(f"{where}[{index}].mode: {file.mode:o} has bits that are not permissions")


def _healthcheck(check: Healthcheck, problems: Problems) -> None:
    if check.test and check.test[0] not in ("NONE", "CMD", "CMD-SHELL"):
        problems.append(f"healthcheck.test: starts with NONE, CMD or CMD-SHELL, not {check.test[0]!r}")
    for name in ("interval", "timeout", "start_period", "start_interval", "retries"):
        value = getattr(check, name)
        if value is not None and value < 0:
            problems.append(f"healthcheck.{name}: cannot be negative")
        if value and name in ("interval", "timeout", "start_interval") and value < 0.001:
            problems.append(f"healthcheck.{name}: at least 1 ms")


def _mode(spec: ServiceSpec, problems: Problems) -> None:
    mode: ServiceMode = spec.mode
    if not 0 <= mode.replicas <= MAX_REPLICAS:
        problems.append(f"mode.replicas: must be from 0 to {MAX_REPLICAS}, is {mode.replicas}")
    if mode.kind in ("replicated-job", "global-job"):
        if spec.update is not None:
            problems.append("update_config: jobs are not updated in steps, they run again")
        if spec.rollback is not None:
            problems.append("rollback_config: jobs cannot be rolled back")
        if spec.task.restart.condition == "any":
            problems.append(
                "restart_policy.condition: a job completes, so it cannot restart on `any`: use on-failure or none"
            )
        if mode.max_concurrent < 0 or mode.total_completions < 0:
            problems.append("mode: max_concurrent and total_completions cannot be negative")
        _schedule(spec.cron, problems)
    elif spec.cron is not None:
        problems.append("schedule: only jobs (replicated-job, global-job) run by a schedule")
    if spec.volumes_per_slot:
        _own_volumes(spec, problems)
    elif spec.volumes_move_after is not None:
        problems.append(
            "volumes_move_after: only slots with volumes_per_slot wait for the node of their volumes"
        )
    if spec.autoscale is not None:
        if mode.kind != "replicated":
            problems.append("autoscale: only replicated services have a number of replicas to change")
        _autoscale(spec, spec.autoscale, problems)


def _autoscale(spec: ServiceSpec, scale: Autoscale, problems: Problems) -> None:
    if not 0 <= scale.min <= scale.max:
        problems.append("autoscale: min must be 0 or more and not above max")
    resources = spec.task.resources
    for share, given, name in (
        (scale.cpu, resources.reservations.nano_cpus or resources.limits.nano_cpus, "cpus"),
        (scale.memory, resources.reservations.memory or resources.limits.memory, "memory"),
    ):
        if share and not given:
            problems.append(
                f"autoscale: a share of {name} needs to know of how much: give deploy.resources.reservations.{name} "
                f"or limits.{name}"
            )
    if scale.metric and scale.metric not in AUTOSCALE_METRICS:
        problems.append(f"autoscale.metric: {scale.metric!r} is none of {', '.join(AUTOSCALE_METRICS)}")


def _schedule(cron: CronSchedule | None, problems: Problems) -> None:
    """That the schedule names a time that comes: one that never does would wait without a word."""
    if cron is None:
        return
    try:
        parse_schedule(cron.schedule, cron.time_zone)
    except Invalid as error:
        problems.append(str(error))
    if cron.history < 0:
        problems.append("schedule: history cannot be negative")


def _own_volumes(spec: ServiceSpec, problems: Problems) -> None:
    sources = [m.source for m in spec.task.container.mounts if m.type == "volume" and m.source]
    if spec.mode.kind != "replicated":
        problems.append("volumes_per_slot: only replicated services have slots: use mode replicated")
    if not sources:
        problems.append(
            "volumes_per_slot: the service mounts no named volume: name one, e.g. data:/var/lib/db"
        )
    for source in sources:
        if "{{" in source:
            problems.append(
                f"volumes_per_slot: volume {source!r} needs no template: write a plain name, and slot 2 gets "
                "NAME.2"
            )
    if spec.volumes_move_after is not None and not spec.volumes_move_after >= 0:
        problems.append("volumes_move_after: cannot be negative")


def _updates(spec: ServiceSpec, problems: Problems) -> None:
    pairs: tuple[tuple[str, UpdateConfig | None], ...] = (
        ("update_config", spec.update),
        ("rollback_config", spec.rollback),
    )
    for where, update in pairs:
        if update is None:
            continue
        if update.parallelism < 0:
            problems.append(f"{where}.parallelism: cannot be negative")
        if update.delay < 0 or (update.monitor is not None and update.monitor < 0):
            problems.append(f"{where}: delay and monitor cannot be negative")
        if not 0 <= update.max_failure_ratio <= 1:
            problems.append(f"{where}.max_failure_ratio: must be from 0 to 1")
    if spec.rollback is not None and spec.rollback.failure_action == "rollback":
        problems.append(
            "rollback_config.failure_action: a failed rollback cannot roll back: use pause or continue"
        )


def _endpoint(spec: ServiceSpec, problems: Problems) -> None:
    ports = spec.endpoint.ports
    if spec.endpoint.mode == "dnsrr" and any(p.publish_mode == "ingress" for p in ports):
        problems.append(
            "ports: endpoint mode dnsrr has no VIP for ingress ports: publish with mode=host or use vip"
        )
    seen: set[tuple[int, str, str]] = set()
    for index, port in enumerate(ports):
        _port(f"ports[{index}]", port, problems)
        key = (port.published_port, port.protocol, port.host_ip)
        if port.published_port and key in seen:
            problems.append(f"ports[{index}]: {port.published_port}/{port.protocol} is published twice")
        seen.add(key)


def _port(where: str, port: PortConfig, problems: Problems) -> None:
    if not 1 <= port.target_port <= 65535:
        problems.append(f"{where}.target: must be from 1 to 65535, is {port.target_port}")
    if not 0 <= port.published_port <= 65535:
        problems.append(f"{where}.published: must be from 0 to 65535, is {port.published_port}")
