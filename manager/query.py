"""Finding objects: by id, name or beginning of an id, and by `--filter`s, as docker's commands do. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from manager.state import View
from pyswarm.api import Filter
from pyswarm.errors import Conflict, Invalid, NotFound
from pyswarm.objects import (
    KINDS,
    SLOT_OF_LABEL,
    Kind,
    Network,
    Node,
    NodeState,
    Object,
    Secret,
    Service,
    Task,
    TaskState,
    Volume,
    unique_name,
    volume_name,
)

Matcher = Callable[[Object, str, View], bool]


def kind_named(name: str) -> Kind:
    """The kind called `name`; Invalid for any other word."""
    for kind in KINDS:
        if kind == name:
            return kind
    raise Invalid(f"unknown kind of object {name!r}: one of {', '.join(KINDS)}")


def objects(view: View, kind: Kind) -> list[Object]:
    """All objects of a kind."""
    match kind:
        case "service":
            return list(view.services())
        case "task":
            return list(view.tasks())
        case "node":
            return list(view.nodes())
        case "network":
            return list(view.networks())
        case "volume":
            return list(view.volumes())
        case "secret":
            return list(view.secrets())
        case "config":
            return list(view.configs())
        case "cluster":
            return [view.cluster] if view.cluster is not None else []


def display_name(obj: Object) -> str:
    """The name a person knows the object by."""
    if isinstance(obj, Node):
        return obj.spec.name or obj.description.hostname
    if isinstance(obj, Task):
        return f"{obj.service_name}.{obj.slot or obj.node_id}"
    return unique_name(obj) or obj.id


def find(view: View, kind: Kind, ref: str) -> Object:
    """Exactly one object: by full id, then by name, then by the beginning of its id.

    Raises NotFound, or Conflict when several match.
    """
    if not ref:
        raise Invalid(f"name a {kind}: its name or id is empty")
    exact = view.get(kind, ref)
    if exact is not None:
        return exact
    everything = objects(view, kind)
    for matches in (
        [o for o in everything if display_name(o) == ref or (isinstance(o, Task) and o.name == ref)],
        [o for o in everything if ref and o.id.startswith(ref)],
    ):
        live = _live(matches)
        if len(live) == 1:
            return live[0]
        if len(live) > 1:
            raise Conflict(f"{kind} {ref} is ambiguous ({len(live)} matches found): use the id")
    raise NotFound(f"no such {kind}: {ref}")


def _live(matches: list[Object]) -> list[Object]:
    """Of several tasks of one slot, those that are meant to run."""
    if len(matches) > 1:
        running = [o for o in matches if not isinstance(o, Task) or o.desired_state <= TaskState.RUNNING]
        return running or matches
    return matches


# ---------------------------------------------------------------------------------------------- filters


def labels_of(obj: Object) -> Mapping[str, str]:
    return obj.service_labels if isinstance(obj, Task) else obj.spec.labels


def _label(obj: Object, value: str, view: View) -> bool:
    del view
    name, eq, wanted = value.partition("=")
    labels = labels_of(obj)
    return name in labels and (not eq or labels[name] == wanted)


def _id(obj: Object, value: str, view: View) -> bool:
    del view
    return obj.id.startswith(value)


def _name_prefix(obj: Object, value: str, view: View) -> bool:
    del view
    return display_name(obj).startswith(value) or (isinstance(obj, Task) and obj.name.startswith(value))


def _name_contains(obj: Object, value: str, view: View) -> bool:
    del view
    return value in display_name(obj)


def _one_of(key: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise Invalid(f"invalid filter '{key}={value}': one of {', '.join(known)}")


def _mode(obj: Object, value: str, view: View) -> bool:
    del view
    _one_of("mode", value, ("replicated", "global", "replicated-job", "global-job"))
    return isinstance(obj, Service) and obj.spec.mode.kind == value


def _role(obj: Object, value: str, view: View) -> bool:
    del view
    _one_of("role", value, ("worker", "manager"))
    return isinstance(obj, Node) and obj.role == value


def _membership(obj: Object, value: str, view: View) -> bool:
    del obj, view
    _one_of("membership", value, ("accepted", "pending"))
    return value == "accepted"


def _availability(obj: Object, value: str, view: View) -> bool:
    del view
    _one_of("availability", value, ("active", "pause", "drain"))
    return isinstance(obj, Node) and obj.spec.availability == value


def _node_state(obj: Object, value: str, view: View) -> bool:
    del view
    if value.upper() not in NodeState.__members__:
        known = ", ".join(state.name.lower() for state in NodeState)
        raise Invalid(f"unknown state {value!r}: one of {known}")
    return isinstance(obj, Node) and obj.status.state == NodeState[value.upper()]


def _engine_label(obj: Object, value: str, view: View) -> bool:
    del view
    name, eq, wanted = value.partition("=")
    labels = obj.description.engine_labels if isinstance(obj, Node) else {}
    return name in labels and (not eq or labels[name] == wanted)


def _node_label(obj: Object, value: str, view: View) -> bool:
    return isinstance(obj, Node) and _label(obj, value, view)


def _task_node(obj: Object, value: str, view: View) -> bool:
    if not isinstance(obj, Task) or not obj.node_id:
        return False
    node = view.get(Node, obj.node_id)
    return obj.node_id.startswith(value) or (node is not None and display_name(node) == value)


def _task_service(obj: Object, value: str, view: View) -> bool:
    if not isinstance(obj, Task):
        return False
    service = view.get(Service, obj.service_id)
    return obj.service_id.startswith(value) or (service is not None and service.spec.name == value)


def _desired_state(obj: Object, value: str, view: View) -> bool:
    del view
    if value.upper() not in TaskState.__members__:
        known = ", ".join(state.name.lower() for state in TaskState)
        raise Invalid(f"unknown desired-state {value!r}: one of {known}")
    if not isinstance(obj, Task):
        return False
    wanted = TaskState[value.upper()]
    if wanted == TaskState.RUNNING:  # those that are to run later count too
        return obj.desired_state <= wanted
    return obj.desired_state == wanted


def _driver(obj: Object, value: str, view: View) -> bool:
    del view
    return isinstance(obj, (Network, Volume)) and obj.spec.driver.name == value


def _scope(obj: Object, value: str, view: View) -> bool:
    del view
    return isinstance(obj, Network) and obj.spec.scope == value


def _network_type(obj: Object, value: str, view: View) -> bool:
    del view
    _one_of("type", value, ("builtin", "custom"))
    builtin = isinstance(obj, Network) and (obj.spec.ingress or obj.spec.name == "bridge")
    return builtin if value == "builtin" else not builtin


def in_use(obj: Object, view: View) -> bool:
    """Whether a service or a task still needs the network, secret, config or volume."""
    if isinstance(obj, Network):
        return bool(view.services_on_network(obj.id) or view.tasks_of_network(obj.id))
    if isinstance(obj, Volume):
        return bool(services_with_volume(view, obj))
    if isinstance(obj, Secret):
        return any(not s.pending_delete for s in view.services_with_secret(obj.id))
    return any(not s.pending_delete for s in view.services_with_config(obj.id))


def services_with_volume(view: View, volume: Volume) -> list[Service]:
    """Services that mount the volume; one of a slot's own only while the service has that slot."""
    name, base = volume.spec.name, volume.spec.labels.get(SLOT_OF_LABEL)
    if base is None:
        return [s for s in view.services() if _mounts(s, name)]
    services = [s for s in view.services() if s.spec.volumes_per_slot and _mounts(s, base)]
    return [s for s in services if any(_means(task, name) for task in view.tasks_of_service(s.id))]


def _mounts(service: Service, name: str) -> bool:
    return any(m.type == "volume" and m.source == name for m in service.spec.task.container.mounts)


def _means(task: Task, name: str) -> bool:
    wanted = task.desired_state < TaskState.REMOVE
    return wanted and any(volume_name(task, mount) == name for mount in task.spec.container.mounts)


def _dangling(obj: Object, value: str, view: View) -> bool:
    return in_use(obj, view) != (value.lower() in ("true", "1"))


_COMMON: Mapping[str, Matcher] = {"id": _id, "label": _label, "name": _name_contains}
_FILTERS: Mapping[Kind, Mapping[str, Matcher]] = {
    "service": {"id": _id, "label": _label, "name": _name_prefix, "mode": _mode},
    "node": {
        "id": _id,
        "label": _engine_label,
        "node.label": _node_label,
        "name": _name_prefix,
        "membership": _membership,
        "role": _role,
        "availability": _availability,
        "state": _node_state,
    },
    "task": {
        "id": _id,
        "label": _label,
        "name": _name_prefix,
        "node": _task_node,
        "service": _task_service,
        "desired-state": _desired_state,
    },
    "network": {**_COMMON, "driver": _driver, "scope": _scope, "type": _network_type, "dangling": _dangling},
    "volume": {**_COMMON, "driver": _driver, "dangling": _dangling},
    "secret": _COMMON,
    "config": _COMMON,
    "cluster": {},
}


_ALL = ("label", "node.label")
"""Keys of which an object has to match every value that is given."""


def matches(obj: Object, kind: Kind, filters: Sequence[Filter], view: View) -> bool:
    """Whether an object passes every key of the filters: by any of the values given for the key, and by all of
    them for labels."""
    check_filters(kind, filters)
    by_key: dict[str, list[str]] = {}
    for item in filters:
        by_key.setdefault(item.key, []).append(item.value)
    table = _FILTERS[kind]
    return all(
        (all if key in _ALL else any)(table[key](obj, value, view) for value in values)
        for key, values in by_key.items()
    )


def has_filter(kind: Kind, key: str) -> bool:
    """Whether objects of the kind can be filtered by `key`."""
    return key in _FILTERS[kind]


def check_filters(kind: Kind, filters: Sequence[Filter]) -> None:
    """Raise Invalid for a key that the kind does not have."""
    for item in filters:
        if not has_filter(kind, item.key):
            known = ", ".join(_FILTERS[kind]) or "there are none"
            raise Invalid(f"invalid filter {item.key!r} for {kind}s: one of {known}")


def select(view: View, kind: Kind, filters: Sequence[Filter]) -> list[Object]:
    """The objects that pass, in the order in which people expect them."""
    check_filters(kind, filters)
    found: Iterable[Object] = (o for o in objects(view, kind) if matches(o, kind, filters, view))
    return sorted(found, key=_order)


def _order(obj: Object) -> tuple[str, int, float, str]:
    if isinstance(obj, Task):
        return (obj.service_name, obj.slot, -obj.meta.created_at, obj.id)
    return (display_name(obj), 0, 0.0, obj.id)
