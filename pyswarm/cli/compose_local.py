"""A Compose project as `pyswarm compose` runs it: on one node, by docker compose's rules; pure.

`compose.convert` makes the specs of a stack. Here they become those of a project on one machine: every container
on one node, ports published on that node alone, a container that ends stays ended unless `restart` says otherwise,
and the labels that docker compose's containers carry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from pyswarm.errors import Invalid, NotFound
from pyswarm.specs import (
    STACK_LABEL,
    Mount,
    Placement,
    PortConfig,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    UpdateConfig,
)

if TYPE_CHECKING:
    from compose.convert import StackSpecs
    from compose.model import Service as ComposeService
    from compose.project import Project

PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
ONEOFF_LABEL = "com.docker.compose.oneoff"
FILES_LABEL = "com.docker.compose.project.config_files"
DIRECTORY_LABEL = "com.docker.compose.project.working_dir"
IMAGE_ID_LABEL = "com.docker.compose.image"
"""docker compose's: the id of the image that a container was made of. A new image is a new container."""

RESTART_DELAY = 0.1
"""Docker's first wait before it restarts a container; it doubles up to a minute."""
RESTART_MAX_DELAY = 60.0


# ------------------------------------------------------------------------------------------- which services


def closure(project: Project, names: Iterable[str]) -> frozenset[str]:
    """The services and everything that they depend on. Raises NotFound for a name that the project has not."""
    found: set[str] = set()
    pending = sorted(names, reverse=True)
    while pending:
        name = pending.pop()
        if name in found:
            continue
        found.add(name)
        pending += sorted(checked(project, name).depends_on, reverse=True)
    return frozenset(name for name in found if name in project.services)


def checked(project: Project, name: str) -> ComposeService:
    """The service of that name. Raises NotFound."""
    service = project.services.get(name)
    if service is not None:
        return service
    if name in project.disabled:
        profiles = ", ".join(project.disabled[name].profiles)
        raise Invalid(f"service {name} is disabled: enable one of its profiles ({profiles}) with --profile")
    raise NotFound(f"no such service: {name}")


def dependents(project: Project, names: Iterable[str]) -> frozenset[str]:
    """The services, and those that are to restart with them (`depends_on.X.restart: true`)."""
    found = set(names)
    growing = True
    while growing:
        more = {
            name
            for name, service in project.services.items()
            for target, dependency in service.depends_on.items()
            if dependency.restart and target in found and name not in found
        }
        found |= more
        growing = bool(more)
    return frozenset(found)


def only(specs: StackSpecs, names: Iterable[str]) -> StackSpecs:
    """The specs with these services alone (short names). What waits for a service that is left out does not."""
    wanted = {f"{specs.stack}_{name}" for name in names}
    kept = [each for each in specs.services if each.name in wanted]
    services = tuple(
        replace(each, depends_on=tuple(d for d in each.depends_on if d.service in wanted)) for each in kept
    )
    short = {name.removeprefix(f"{specs.stack}_") for name in wanted}
    return replace(specs, services=services, builds=tuple(b for b in specs.builds if b.service in short))


# ------------------------------------------------------------------------------------------- specs


def localized(
    specs: StackSpecs, project: Project, node_id: str, images: Mapping[str, str] | None = None
) -> StackSpecs:
    """The stack's specs by docker compose's rules, on the node `node_id`. `images` are ids by the images' names,
    for those that the node has."""
    services = tuple(_local(each, specs.stack, project, node_id, images or {}) for each in specs.services)
    return replace(specs, services=services)


def _local(
    spec: ServiceSpec, stack: str, project: Project, node_id: str, images: Mapping[str, str]
) -> ServiceSpec:
    name = spec.name.removeprefix(f"{stack}_")
    service = project.services[name]
    container, labels = spec.task.container, _labels(stack, name, False)
    if container.image in images:
        labels[IMAGE_ID_LABEL] = images[container.image]
    order = spec.update.order if spec.update is not None else "stop-first"
    ports = tuple(replace(port, publish_mode="host") for port in spec.endpoint.ports)
    return replace(
        spec,
        labels={
            **spec.labels,
            **_labels(stack, name, False),
            FILES_LABEL: ",".join(project.files),
            DIRECTORY_LABEL: project.directory,
        },
        task=replace(
            spec.task,
            container=replace(container, labels={**container.labels, **labels}),
            restart=_restart(service, spec),
            placement=Placement(
                constraints=(f"node.id=={node_id}",) if node_id else (),
                platforms=spec.task.placement.platforms,
            ),
        ),
        mode=_mode(spec),
        update=UpdateConfig(
            parallelism=0, monitor=0.0, failure_action="continue", order=_order(order, ports)
        ),
        rollback=None,
        endpoint=replace(spec.endpoint, ports=ports),
    )


def _labels(stack: str, service: str, one_off: bool) -> dict[str, str]:
    return {PROJECT_LABEL: stack, SERVICE_LABEL: service, ONEOFF_LABEL: "True" if one_off else "False"}


def _order(
    said: Literal["stop-first", "start-first"], ports: Sequence[PortConfig]
) -> Literal["stop-first", "start-first"]:
    """Two containers cannot have the same port of the node."""
    return "stop-first" if any(port.published_port for port in ports) else said


def _restart(service: ComposeService, spec: ServiceSpec) -> RestartPolicy:
    """`restart`, else deploy.restart_policy, else docker's own default: never."""
    name, _, attempts = service.restart.partition(":")
    if name in ("always", "unless-stopped"):
        return RestartPolicy(condition="any", delay=RESTART_DELAY, max_delay=RESTART_MAX_DELAY)
    if name == "on-failure":
        return RestartPolicy(
            condition="on-failure",
            delay=RESTART_DELAY,
            max_delay=RESTART_MAX_DELAY,
            max_attempts=int(attempts or "0"),
        )
    if not name and service.deploy is not None and service.deploy.restart_policy is not None:
        return spec.task.restart
    return RestartPolicy(condition="none")


def _mode(spec: ServiceSpec) -> ServiceMode:
    """Replicated, as every service of docker compose is; jobs by the clock stay what they are."""
    if spec.cron is not None:
        return spec.mode
    counts = {
        "replicated": spec.mode.replicas,
        "replicated-job": spec.mode.total_completions,
        "global": 1,
        "global-job": 1,
    }
    return ServiceMode(kind="replicated", replicas=counts[spec.mode.kind])


def scaled(specs: StackSpecs, counts: Mapping[str, int]) -> StackSpecs:
    """With the numbers of containers that `--scale` gives. Raises NotFound."""
    names = {each.name for each in specs.services}
    for name in counts:
        if f"{specs.stack}_{name}" not in names:
            raise NotFound(f"no such service: {name}")
    services = tuple(
        with_replicas(each, counts[short])
        if (short := each.name.removeprefix(f"{specs.stack}_")) in counts
        else each
        for each in specs.services
    )
    return replace(specs, services=services)


def check_ports(specs: StackSpecs) -> None:
    """Raise Invalid where several containers of a service would need the same port of the node."""
    for each in specs.services:
        count = each.mode.replicas if each.mode.kind == "replicated" else 1
        fixed = next((port for port in each.endpoint.ports if port.published_port), None)
        if count > 1 and fixed is not None:
            raise Invalid(
                f"services.{each.name.removeprefix(f'{specs.stack}_')}: {count} containers cannot all have port "
                f"{fixed.published_port}/{fixed.protocol} of the node: publish the container's port alone, and each "
                "gets one of its own"
            )


def parse_scales(entries: Sequence[str]) -> dict[str, int]:
    """`web=3` as a mapping. Raises Invalid."""
    found: dict[str, int] = {}
    for text in entries:
        name, separator, count = text.partition("=")
        if not separator or not name or not count.isdigit():
            raise Invalid(f"invalid scale {text!r}: write SERVICE=NUMBER")
        found[name] = int(count)
    return found


def with_replicas(spec: ServiceSpec, count: int) -> ServiceSpec:
    """So many containers. Raises Invalid for a service that runs by the clock."""
    if spec.mode.kind != "replicated":
        raise Invalid(f"{spec.name}: a job that runs by the clock has no number of containers")
    return replace(spec, mode=replace(spec.mode, replicas=count))


def stopped(spec: ServiceSpec) -> ServiceSpec:
    """The service with its containers ended, and kept to be looked at."""
    return replace(spec, stopped=True)


def started(spec: ServiceSpec) -> ServiceSpec:
    """The service with its containers wanted."""
    return replace(spec, stopped=False)


# ------------------------------------------------------------------------------------------- one-off tasks


@dataclass(frozen=True, slots=True, kw_only=True)
class OneOff:
    """What `compose run` changes of a service."""

    name: str
    """Full name of the new service."""
    args: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    ports: tuple[PortConfig, ...] = ()
    service_ports: bool = False
    labels: Mapping[str, str]
    user: str = ""
    workdir: str = ""
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    aliases: bool = False
    tty: bool = False
    stdin: bool = False
    """Keep the process's input open for a client."""
    attached: bool = False
    """Start the process when a client is at its streams."""


def one_off(spec: ServiceSpec, stack: str, what: OneOff) -> ServiceSpec:
    """A service that runs one container once, made after `spec`. Without `aliases` it answers to no name of the
    service; without `service_ports` it publishes only what it is told to."""
    container = spec.task.container
    service = container.labels.get(SERVICE_LABEL, spec.name.removeprefix(f"{stack}_"))
    labels = {**_labels(stack, service, True), **what.labels}
    args = container.args
    if what.entrypoint is not None:
        args = ()
    if what.args is not None:
        args = what.args
    targets = {mount.target for mount in what.mounts}
    names = {entry.partition("=")[0] for entry in what.env}
    kept = tuple(each for each in container.env if each.partition("=")[0] not in names)
    networks = spec.task.networks
    if not what.aliases:
        networks = tuple(replace(each, aliases=(), addresses=(), mac_address="") for each in networks)
    ports = (*(spec.endpoint.ports if what.service_ports else ()), *what.ports)
    return replace(
        spec,
        name=what.name,
        labels={
            **spec.labels,
            **labels,
            STACK_LABEL: stack,
        },
        task=replace(
            spec.task,
            container=replace(
                container,
                labels={**container.labels, **labels},
                command=container.command if what.entrypoint is None else what.entrypoint,
                args=args,
                env=(*kept, *what.env),
                mounts=(*(m for m in container.mounts if m.target not in targets), *what.mounts),
                user=what.user or container.user,
                dir=what.workdir or container.dir,
                cap_add=(*container.cap_add, *what.cap_add),
                cap_drop=(*container.cap_drop, *what.cap_drop),
                tty=what.tty,
                open_stdin=what.stdin,
                attach_first=what.attached,
            ),
            restart=RestartPolicy(condition="none"),
            networks=networks,
        ),
        mode=ServiceMode(kind="replicated", replicas=1),
        endpoint=replace(spec.endpoint, ports=ports),
        depends_on=(),
        cron=None,
        autoscale=None,
        stopped=False,
    )
