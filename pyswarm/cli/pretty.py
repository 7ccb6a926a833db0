"""`inspect --pretty`: objects in the layout that docker has for people; pure."""

from __future__ import annotations

from collections.abc import Mapping

from pyswarm.cli import human
from pyswarm.gotemplate import duration_text
from pyswarm.objects import Config, Network, Node, Secret, Service
from pyswarm.specs import Autoscale, ContainerSpec, Resources, ServiceSpec, UpdateConfig


def _labels(labels: Mapping[str, str], head: str = "Labels:") -> list[str]:
    if not labels:
        return []
    return [head, *(f" {key}={labels[key]}" for key in sorted(labels))]


def _seconds(value: float) -> str:
    return duration_text(round(value * 1_000_000_000))


def service(found: Service, networks: Mapping[str, Network], now: float) -> str:
    """A service, with the names of its networks."""
    spec = found.spec
    lines = ["", f"ID:\t\t{found.id}", f"Name:\t\t{spec.name}", *_labels(spec.labels), *_mode(found)]
    lines += _update_status(found, now)
    lines += _placement(spec)
    if "job" not in spec.mode.kind:
        lines += _update("UpdateConfig:", "Update", spec.update or UpdateConfig())
        lines += _update("RollbackConfig:", "Rollback", spec.rollback or UpdateConfig())
    lines += _container(spec.task.container)
    lines += _resources(spec)
    if spec.task.networks:
        names = [
            networks[wish.target].spec.name if wish.target in networks else wish.target
            for wish in spec.task.networks
        ]
        lines.append(f"Networks: {' '.join(names)} ")
    lines.append(f"Endpoint Mode:\t{spec.endpoint.mode}")
    lines += _ports(found)
    return "\n".join(lines) + (" \n\n" if spec.endpoint.ports else "\n\n")


def _autoscale(scale: Autoscale | None) -> list[str]:
    """Between which numbers the replicas follow what, for services that are scaled by their use."""
    if scale is None:
        return []
    shares = [
        f"{name} {100 * share:g}%" for name, share in (("cpu", scale.cpu), ("memory", scale.memory)) if share
    ]
    metric = [f"{scale.metric} {scale.target:g}"] if scale.metric and scale.target is not None else []
    return [f" Autoscale:\t{scale.min} to {scale.max}, at {', '.join([*shares, *metric])}"]


def _mode(found: Service) -> list[str]:
    spec, mode = found.spec, found.spec.mode
    if mode.kind == "replicated":
        return ["Service Mode:\tReplicated", f" Replicas:\t{found.replicas}", *_autoscale(spec.autoscale)]
    if mode.kind == "replicated-job":
        return [
            "Service Mode:\tReplicated Job",
            f" Max Concurrent:\t{mode.max_concurrent}",
            f" Total Completions:\t{mode.total_completions}",
        ]
    return [f"Service Mode:\t{'Global' if mode.kind == 'global' else 'Global Job'}"]


def _update_status(found: Service, now: float) -> list[str]:
    status = found.update_status
    if status is None:
        return []
    lines = ["UpdateStatus:", f" State:\t\t{status.state}"]
    if status.started_at:
        lines.append(f" Started:\t{human.ago(status.started_at, now).lower()}")
    if status.completed_at and "completed" in status.state:
        lines.append(f" Completed:\t{human.ago(status.completed_at, now).lower()}")
    return [*lines, f" Message:\t{status.message}"]


def _placement(spec: ServiceSpec) -> list[str]:
    placement = spec.task.placement
    lines = ["Placement:"]
    if placement.constraints:
        lines.append(f" Constraints:\t[{' '.join(placement.constraints)}]")
    if placement.preferences:
        shown = ", ".join(f"spread={each.spread_descriptor}" for each in placement.preferences)
        lines.append(f" Preferences:   [{shown}]")
    if placement.max_replicas:
        lines.append(f" Max Replicas Per Node:   {placement.max_replicas}")
    return lines


def _update(head: str, word: str, config: UpdateConfig) -> list[str]:
    monitor = 5.0 if config.monitor is None else config.monitor
    delay = [f" Delay:\t\t{_seconds(config.delay)}"] if config.delay else []
    return [
        head,
        f" Parallelism:\t{config.parallelism}",
        *delay,
        f" On failure:\t{config.failure_action}",
        f" Monitoring Period: {_seconds(monitor)}",
        f" Max failure ratio: {config.max_failure_ratio:g}",
        f" {word} order:".ljust(20) + config.order,
    ]


def _container(spec: ContainerSpec) -> list[str]:
    lines = ["ContainerSpec:", f" Image:\t\t{spec.image}"]
    if spec.command:
        lines.append(f" Command:\t{' '.join(spec.command)} ")
    if spec.args:
        lines.append(f" Args:\t\t{' '.join(spec.args)} ")
    if spec.env:
        lines.append(f" Env:\t\t{' '.join(spec.env)} ")
    if spec.dir:
        lines.append(f" Dir:\t\t{spec.dir}")
    if spec.init is not None:
        lines.append(f" Init:\t\t{'true' if spec.init else 'false'}")
    if spec.user:
        lines.append(f" User: {spec.user}")
    if spec.mounts:
        lines.append("Mounts:")
    for mount in spec.mounts:
        lines += [
            f" Target:\t{mount.target}",
            f"  Source:\t{mount.source}",
            f"  ReadOnly:\t{'true' if mount.read_only else 'false'}",
            f"  Type:\t\t{mount.type}",
        ]
    for head, refs in (("Configs:", spec.configs), ("Secrets:", spec.secrets)):
        if refs:
            lines.append(head)
        for ref in refs:
            lines += [f" Target:\t{ref.target}", f"  Source:\t{ref.source_name}"]
    return lines


def _resources(spec: ServiceSpec) -> list[str]:
    def amounts(head: str, amount: Resources) -> list[str]:
        lines = [f"  CPU:\t\t{amount.nano_cpus / 1e9:g}"] if amount.nano_cpus else []
        lines += [f"  Memory:\t{human.binary_size(amount.memory)}"] if amount.memory else []
        return [head, *lines] if lines else []

    resources = spec.task.resources
    inside = amounts(" Reservations:", resources.reservations) + amounts(" Limits:", resources.limits)
    return ["Resources:", *inside]


def _ports(found: Service) -> list[str]:
    ports = found.endpoint.ports if found.endpoint else found.spec.endpoint.ports
    lines = ["Ports:"] if ports else []
    for port in ports:
        lines += [
            f" PublishedPort = {port.published_port}",
            f"  Protocol = {port.protocol}",
            f"  TargetPort = {port.target_port}",
            f"  PublishMode = {port.publish_mode}",
        ]
    return lines


def node(found: Node) -> str:
    """A node."""
    description = found.description
    lines = [f"ID:\t\t\t{found.id}", *([f"Name:\t\t\t{found.spec.name}"] if found.spec.name else [])]
    labels = found.spec.labels
    lines += ["Labels:", *(f" - {key}={labels[key]}" for key in sorted(labels))] if labels else []
    lines += [
        f"Hostname:              \t{description.hostname}",
        f"Joined at:             \t{_moment(found.meta.created_at)}",
        "Status:",
        f" State:\t\t\t{found.status.state.name.capitalize()}",
        *([f" Message:              \t{found.status.message}"] if found.status.message else []),
        f" Availability:         \t{found.spec.availability.capitalize()}",
        f" Address:\t\t{found.status.addr}",
    ]
    if found.manager_status is not None:
        manager = found.manager_status
        lines += [
            "Manager Status:",
            f" Address:\t\t{manager.addr}",
            f" Raft Status:\t\t{manager.reachability.capitalize()}",
            f" Leader:\t\t{'Yes' if manager.leader else 'No'}",
        ]
    platform = description.platform
    lines += [
        "Platform:",
        f" Operating System:\t{platform.os}",
        f" Architecture:\t\t{platform.architecture}",
        "Resources:",
        f" CPUs:\t\t\t{description.resources.nano_cpus // 1_000_000_000}",
        f" Memory:\t\t{human.binary_size(description.resources.memory)}",
    ]
    lines += _plugins(found)
    lines.append(f"Engine Version:\t\t{description.engine_version}")
    engine_labels = description.engine_labels
    lines += (
        ["Engine Labels:", *(f" - {k}={engine_labels[k]}" for k in sorted(engine_labels))]
        if engine_labels
        else []
    )
    if description.root_ca:
        lines += ["TLS Info:", " TrustRoot:", description.root_ca.rstrip("\n")]
    return "\n".join(lines) + "\n"


def _plugins(found: Node) -> list[str]:
    kinds: dict[str, list[str]] = {}
    for plugin in sorted(found.description.plugins):
        kind, _, name = plugin.partition("/")
        kinds.setdefault(kind, []).append(name)
    return ["Plugins:", *(f" {kind}:\t\t{', '.join(kinds[kind])}" for kind in sorted(kinds))] if kinds else []


def _moment(stamp: float) -> str:
    """A time as docker writes it for people: `2026-01-02 03:04:05.123 +0000 utc`."""
    from pyswarm.clock import rfc3339
    from pyswarm.gotemplate import Time

    return Time(rfc3339(stamp)).shown().replace("UTC", "utc")


def secret(found: Secret, now: float) -> str:
    """A secret, without its payload."""
    driver = found.spec.driver.name if found.spec.driver else ""
    return _payload(found, [f"Driver:{' ' * 12}{driver}"], now)


def _payload(found: Secret | Config, extra: list[str], now: float) -> str:
    labels = found.spec.labels
    lines = [
        f"ID:\t\t{found.id}",
        f"Name:\t\t{found.spec.name}",
        "Labels:",
        *(f" - {key}={labels[key]}" for key in sorted(labels)),
        *extra,
        f"Created at:            \t{_moment(found.meta.created_at)}",
        f"Updated at:            \t{_moment(found.meta.updated_at)}",
    ]
    del now
    return "\n".join(lines) + "\n"


def config(found: Config, now: float) -> str:
    """A config with its data."""
    data = found.spec.data.decode(errors="replace")
    return _payload(found, [], now) + f"Data:\n{data}\n"
