"""Which nodes a task may run on, and for each other node why not.

A filter looks at what a task asks for and at one node, and answers with a reason, or "" when it has nothing
against the node. Filters of `STATIC` look at the node's record alone, those of `DYNAMIC` at what is taken on
it; the first reason counts. Reasons are phrases that follow a number of nodes: `2 insufficient memory`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from manager.scheduler.constraints import Constraint, normal_architecture, parse_all, unmatched
from manager.scheduler.usage import HostPort, Load, host_ports
from manager.state import View
from pyswarm.errors import Invalid
from pyswarm.objects import Network, Node, NodeState, Task, Volume, volume_name
from pyswarm.specs import GenericResource

BUILT_IN_DRIVERS = {
    "Volume": frozenset({"", "local"}),
    "Network": frozenset({"", "overlay", "bridge", "host", "none", "null"}),
    "Log": frozenset({"", "none", "json-file", "local", "k8s-file"}),
}
"""Drivers that every agent has, whatever it says of its plugins."""


@dataclass(frozen=True, slots=True)
class Static:
    """The part of a request that only a node's record decides; equal ones share their answers."""

    constraints: tuple[Constraint, ...] = ()
    invalid: str = ""
    """A constraint that could not be parsed: no node meets it."""
    platforms: tuple[tuple[str, str], ...] = ()
    """(os, architecture), normalised, "" for any; () for any platform."""
    plugins: tuple[str, ...] = ()
    """`Volume/nfs`, `Log/fluentd`, ..."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the tasks of one group ask of a node."""

    service_id: str
    spec_version: int
    static: Static
    nano_cpus: int = 0
    memory: int = 0
    generic: tuple[tuple[str, int], ...] = ()
    max_replicas: int = 0
    ports: tuple[HostPort, ...] = ()
    volumes: tuple[tuple[str, str], ...] = ()
    """(name, node id) of volumes that are bound to a node."""

    @property
    def dynamic(self) -> bool:
        """Whether what is taken on a node matters at all."""
        return bool(self.nano_cpus or self.memory or self.generic or self.max_replicas or self.ports)


def request_of(task: Task, view: View) -> Request:
    """What `task` asks for."""
    reserved = task.spec.resources.reservations
    return Request(
        service_id=task.service_id,
        spec_version=task.spec_version,
        static=_static(task, view),
        nano_cpus=reserved.nano_cpus,
        memory=reserved.memory,
        generic=_generic(reserved.generic),
        max_replicas=task.spec.placement.max_replicas,
        ports=host_ports(task.endpoint.ports),
        volumes=_bound_volumes(task, view),
    )


def _static(task: Task, view: View) -> Static:
    constraints: tuple[Constraint, ...] = ()
    invalid = ""
    try:
        constraints = parse_all(task.spec.placement.constraints)
    except Invalid as error:
        invalid = str(error)
    platforms = tuple(
        (p.os.lower(), normal_architecture(p.architecture)) for p in task.spec.placement.platforms
    )
    return Static(constraints, invalid, platforms, _plugins(task, view))


def _plugins(task: Task, view: View) -> tuple[str, ...]:
    wanted: dict[str, None] = {}
    for mount in task.spec.container.mounts:
        if mount.type in ("volume", "cluster") and mount.volume_driver is not None:
            _want(wanted, "Volume", mount.volume_driver.name)
    for attachment in task.networks:
        network = view.get(Network, attachment.network_id)
        if network is not None:
            _want(wanted, "Network", network.spec.driver.name)
    if task.spec.log_driver is not None:
        _want(wanted, "Log", task.spec.log_driver.name)
    return tuple(wanted)


def _want(wanted: dict[str, None], kind: str, driver: str) -> None:
    if driver not in BUILT_IN_DRIVERS[kind]:
        wanted[f"{kind}/{driver}"] = None


def _generic(resources: tuple[GenericResource, ...]) -> tuple[tuple[str, int], ...]:
    counts: dict[str, int] = {}
    for resource in resources:
        counts[resource.kind] = counts.get(resource.kind, 0) + (resource.value or 1)
    return tuple(sorted(counts.items()))


def _bound_volumes(task: Task, view: View) -> tuple[tuple[str, str], ...]:
    bound: list[tuple[str, str]] = []
    for mount in task.spec.container.mounts:
        name = volume_name(task, mount)
        volume = view.by_name(Volume, name) if name else None
        if volume is not None and volume.node_id:
            bound.append((name, volume.node_id))
    return tuple(bound)


# ------------------------------------------------------------------------------------- by the node's record

_NOT_READY = {
    NodeState.UNKNOWN: "not ready",
    NodeState.DOWN: "down",
    NodeState.DISCONNECTED: "disconnected",
}
_NOT_ACTIVE = {"pause": "paused", "drain": "drained"}


def ready(static: Static, node: Node) -> str:
    """The node takes new tasks: READY and active."""
    del static
    return _NOT_READY.get(node.status.state, "") or _NOT_ACTIVE.get(node.spec.availability, "")


def constraints(static: Static, node: Node) -> str:
    """Every placement constraint holds."""
    if static.invalid:
        return f"not matching: {static.invalid}"
    failed = unmatched(static.constraints, node)
    return f"not matching {failed}" if failed is not None else ""


def platform(static: Static, node: Node) -> str:
    """One of the image's platforms is the node's. A node that did not say what it is may run anything."""
    if not static.platforms:
        return ""
    os = node.description.platform.os.lower()
    architecture = normal_architecture(node.description.platform.architecture)
    for wanted_os, wanted_architecture in static.platforms:
        if wanted_os in ("", os) and wanted_architecture in ("", architecture):
            return ""
    names = " or ".join(f"{os or 'any'}/{arch or 'any'}" for os, arch in static.platforms)
    return f"not of platform {names}"


def plugins(static: Static, node: Node) -> str:
    """The node has every driver that is asked for. Only kinds of plugin that the node lists are judged."""
    for plugin in static.plugins:
        kind = plugin.partition("/")[0] + "/"
        known = [p.removesuffix(":latest") for p in node.description.plugins if p.startswith(kind)]
        if known and plugin.removesuffix(":latest") not in known:
            return f"missing plugin {plugin}"
    return ""


STATIC: tuple[Callable[[Static, Node], str], ...] = (ready, constraints, platform, plugins)


def static_reason(static: Static, node: Node) -> str:
    """The first static filter's reason against the node, or ""."""
    for check in STATIC:
        if reason := check(static, node):
            return reason
    return ""


# ---------------------------------------------------------------------------------- by what is taken on it


def volumes(request: Request, node: Node, load: Load, own: int) -> str:
    """Volumes that are bound to a node are on this one."""
    del load, own
    for name, node_id in request.volumes:
        if node_id != node.id:
            return f"not holding the volume {name}"
    return ""


def resources(request: Request, node: Node, load: Load, own: int) -> str:
    """What the tasks on the node reserved leaves enough for one more."""
    del own
    total = node.description.resources
    if request.nano_cpus and total.nano_cpus - load.nano_cpus < request.nano_cpus:
        return "insufficient CPU"
    if request.memory and total.memory - load.memory < request.memory:
        return "insufficient memory"
    for kind, count in request.generic:
        if free_generic(node, load, kind) < count:
            return f"insufficient {kind}"
    return ""


def max_replicas(request: Request, node: Node, load: Load, own: int) -> str:
    """Fewer tasks of the service than `max_replicas_per_node` are on the node."""
    del node, load
    if request.max_replicas and own >= request.max_replicas:
        return f"at max_replicas_per_node ({request.max_replicas})"
    return ""


def ports(request: Request, node: Node, load: Load, own: int) -> str:
    """No task on the node has opened one of the host-mode ports."""
    del node, own
    for port, protocol, address in request.ports:
        for (taken, taken_protocol, taken_address), count in load.ports.items():
            same = taken == port and taken_protocol == protocol and count > 0
            if same and (not address or not taken_address or address == taken_address):
                return f"host port {port}/{protocol} in use"
    return ""


DYNAMIC: tuple[Callable[[Request, Node, Load, int], str], ...] = (volumes, resources, max_replicas, ports)


def dynamic_reason(request: Request, node: Node, load: Load, own: int) -> str:
    """The first dynamic filter's reason, or ""; `own` is the number of the service's tasks on the node."""
    for check in DYNAMIC:
        if reason := check(request, node, load, own):
            return reason
    return ""


def reason_against(request: Request, node: Node, load: Load, own: int) -> str:
    """Why the node cannot take one more of these tasks, or ""."""
    return static_reason(request.static, node) or dynamic_reason(request, node, load, own)


# ------------------------------------------------------------------------------------- generic resources


def free_generic(node: Node, load: Load, kind: str) -> int:
    """How many of a generic resource nobody has on the node."""
    offered = [r for r in node.description.resources.generic if r.kind == kind]
    names = [r.string_value for r in offered if r.string_value]
    if names:
        return sum(1 for name in names if load.named[kind, name] <= 0)
    return sum(r.value for r in offered) - load.discrete[kind]


def claim_generic(node: Node, load: Load, wanted: tuple[tuple[str, int], ...]) -> tuple[GenericResource, ...]:
    """The generic resources that a task gets: names in the node's order, or a count."""
    claimed: list[GenericResource] = []
    for kind, count in wanted:
        names = [
            r.string_value for r in node.description.resources.generic if r.kind == kind and r.string_value
        ]
        if names:
            free = [name for name in names if load.named[kind, name] <= 0]
            claimed.extend(GenericResource(kind=kind, string_value=name) for name in free[:count])
        else:
            claimed.append(GenericResource(kind=kind, value=count))
    return tuple(claimed)


def explain(reasons: Mapping[str, int]) -> str:
    """`no suitable node (3 nodes: 2 insufficient memory, 1 not matching node.labels.disk==ssd)`."""
    total = sum(reasons.values())
    if not total:
        return "no suitable node (the cluster has no nodes)"
    counted = sorted(Counter(reasons).items(), key=lambda item: (-item[1], item[0]))
    listed = ", ".join(f"{count} {reason}" for reason, count in counted if count)
    return f"no suitable node ({total} {'node' if total == 1 else 'nodes'}: {listed})"
