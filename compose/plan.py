"""What a deploy would change: desired specs against what the stack has, in waves that respect dependencies."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import networkx as nx

from compose.convert import StackSpecs
from pyswarm.api import DeployRequest, DeployResponse
from pyswarm.errors import Invalid
from pyswarm.objects import Config, Network, Secret, Service, Volume
from pyswarm.specs import (
    STACK_LABEL,
    VERSION_OF_LABEL,
    ConfigSpec,
    FileReference,
    NetworkSpec,
    SecretSpec,
    ServiceSpec,
    TaskSpec,
    VolumeSpec,
)

Action = Literal["create", "update", "replace", "remove", "keep", "unchanged"]
Kind = Literal["network", "volume", "secret", "config", "service"]
Spec = NetworkSpec | VolumeSpec | SecretSpec | ConfigSpec | ServiceSpec
Object = Network | Volume | Secret | Config | Service
KINDS: tuple[Kind, ...] = ("network", "volume", "secret", "config", "service")
_SIGNS: Mapping[Action, str] = {
    "create": "+",
    "update": "~",
    "replace": "±",
    "remove": "-",
    "keep": "!",
    "unchanged": "=",
}
_COLOURS: Mapping[Action, str] = {
    "create": "green",
    "update": "orange",
    "replace": "red",
    "remove": "red",
    "keep": "grey",
    "unchanged": "black",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StackState:
    """What the cluster has. Objects of other stacks may be among them: their names resolve ids."""

    services: tuple[Service, ...] = ()
    networks: tuple[Network, ...] = ()
    volumes: tuple[Volume, ...] = ()
    secrets: tuple[Secret, ...] = ()
    configs: tuple[Config, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """What the managers say that a deploy would take for a secret or config of the stack, whose contents only
    they can compare."""

    name: str
    """Of the object that services would refer to."""
    id: str = ""
    """Known already, or made up for one that is to be made."""


Versions = Mapping[tuple[Kind, str], Version]
"""By kind, and name in the Compose file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldChange:
    """One field that differs. The values are JSON-like; None is "not there"."""

    path: str
    old: object
    new: object


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What happens to one object."""

    action: Action
    kind: Kind
    name: str
    id: str = ""
    """The existing object's, if any."""
    fields: tuple[FieldChange, ...] = ()
    spec: Spec | None = None
    """What to send: None for removals."""
    reason: str = ""
    """Why it is replaced or kept."""
    unknown: tuple[str, ...] = ()
    """Fields that could not be compared: the data of a secret never leaves the managers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StackPlan:
    stack: str
    waves: tuple[tuple[Change, ...], ...] = ()
    """Changes of one wave do not depend on each other; a wave needs those before it. Removals come last."""
    edges: tuple[tuple[str, str], ...] = ()
    """(what, needs what) as `kind/name`, of all that the stack is to have."""
    changes: tuple[Change, ...] = field(default=(), repr=False)
    """All of them, unchanged ones too, in the order of the waves."""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return all(change.action in ("unchanged", "keep") for change in self.changes)

    def counts(self) -> dict[Action, int]:
        """How many changes of each action."""
        counts: dict[Action, int] = dict.fromkeys(_SIGNS, 0)
        for change in self.changes:
            counts[change.action] += 1
        return counts


def plan_stack(
    desired: StackSpecs, current: StackState, prune: bool, versions: Versions | None = None
) -> StackPlan:
    """What must change for the stack to become `desired`; with `prune`, what it no longer names goes.
    Without `versions` configs are compared here, and the data of secrets is not.

    Raises Invalid, naming the cycle, when services wait for each other.
    """
    graph = dependency_graph(desired)
    order = _waves(graph)
    names = {network.id: network.spec.name for network in current.networks}
    known = versions or {}
    changes: dict[tuple[Kind, str], Change] = {}
    for kind in KINDS:
        have = {object_.spec.name: object_ for object_ in _objects(current, kind)}
        for spec in _specs(desired, kind):
            if (version := known.get((kind, spec.name))) is not None:
                changes[kind, spec.name] = _version_change(kind, spec, version, _objects(current, kind))
            else:
                meant = _renamed(spec, known) if isinstance(spec, ServiceSpec) else spec
                changes[kind, spec.name] = _change(kind, meant, have.get(spec.name), names)
    waves = [tuple(changes[key] for key in wave if key in changes) for wave in order]
    waves += _removals(desired, current, changes) if prune else []
    kept = [wave for wave in waves if wave]
    return StackPlan(
        stack=desired.stack,
        waves=tuple(kept),
        edges=tuple(sorted((_label(a), _label(b)) for a, b in graph.edges)),
        changes=tuple(change for wave in kept for change in wave),
    )


def versions_in(request: DeployRequest, answer: DeployResponse) -> Versions:
    """What the managers' answer to a trial of the request says of its secrets and configs: it names them in
    the request's order."""
    found: dict[tuple[Kind, str], Version] = {}
    asked: tuple[tuple[Kind, Sequence[SecretSpec | ConfigSpec]], ...] = (
        ("secret", request.secrets),
        ("config", request.configs),
    )
    for kind, specs in asked:
        said = [action for action in answer.actions if action.kind == kind and action.action != "remove"]
        for spec, action in zip(specs, said, strict=True):
            found[kind, spec.name] = Version(name=action.name, id=action.id)
    return found


# ------------------------------------------------------------------------------------------- the graph


def _label(key: tuple[Kind, str]) -> str:
    return f"{key[0]}/{key[1]}"


def dependency_graph(desired: StackSpecs) -> nx.DiGraph[tuple[Kind, str]]:
    """An edge leads from each object to what it needs. Things outside the stack are left out."""
    graph: nx.DiGraph[tuple[Kind, str]] = nx.DiGraph()
    for kind in KINDS:
        graph.add_nodes_from((kind, spec.name) for spec in _specs(desired, kind))
    for service in desired.services:
        me: tuple[Kind, str] = ("service", service.name)
        for target in _needs(service):
            if target in graph and target != me:
                graph.add_edge(me, target)
    return graph


def _needs(service: ServiceSpec) -> list[tuple[Kind, str]]:
    container = service.task.container
    used: tuple[tuple[Kind, list[str]], ...] = (
        ("network", [attachment.target for attachment in service.task.networks]),
        ("volume", [mount.source for mount in container.mounts if mount.type == "volume"]),
        ("secret", [reference.source_name for reference in container.secrets]),
        ("config", [reference.source_name for reference in container.configs]),
        ("service", [dependency.service for dependency in service.depends_on]),
    )
    return [(kind, name) for kind, names in used for name in names if name]


def _waves(graph: nx.DiGraph[tuple[Kind, str]]) -> list[list[tuple[Kind, str]]]:
    try:
        waves = [sorted(wave, key=_rank) for wave in nx.topological_generations(graph.reverse(copy=False))]
    except nx.NetworkXUnfeasible:
        edges = nx.find_cycle(graph)
        trail = [edge[0][1] for edge in edges] + [edges[0][0][1]]
        raise Invalid(
            f"services wait for each other: {' -> '.join(trail)}; remove one of these depends_on"
        ) from None
    return waves


def _rank(key: tuple[Kind, str]) -> tuple[int, str]:
    return KINDS.index(key[0]), key[1]


def _specs(desired: StackSpecs, kind: Kind) -> Sequence[Spec]:
    by_kind: Mapping[Kind, Sequence[Spec]] = {
        "network": desired.networks,
        "volume": desired.volumes,
        "secret": desired.secrets,
        "config": desired.configs,
        "service": desired.services,
    }
    return by_kind[kind]


def _objects(current: StackState, kind: Kind) -> Sequence[Object]:
    by_kind: Mapping[Kind, Sequence[Object]] = {
        "network": current.networks,
        "volume": current.volumes,
        "secret": current.secrets,
        "config": current.configs,
        "service": current.services,
    }
    return by_kind[kind]


def _removals(
    desired: StackSpecs, current: StackState, changes: Mapping[tuple[Kind, str], Change]
) -> list[tuple[Change, ...]]:
    """What belongs to the stack and is no longer named: services first, then what they used. Volumes hold
    data: they stay."""
    found: list[tuple[Change, ...]] = []
    order: tuple[tuple[Kind, ...], ...] = (("service",), ("network", "secret", "config"))
    for kinds in order:
        wave = [
            Change(action="remove", kind=kind, name=object_.spec.name, id=object_.id)
            for kind in kinds
            for object_ in sorted(_objects(current, kind), key=lambda item: item.spec.name)
            if object_.spec.labels.get(STACK_LABEL) == desired.stack
            and (kind, _base_name(object_)) not in changes
        ]
        found.append(tuple(wave))
    return found


# ---------------------------------------------------------------------------------------- comparing


def _version_change(kind: Kind, spec: Spec, version: Version, objects: Sequence[Object]) -> Change:
    """What happens to a secret or config, of which the managers know what a deploy would take."""
    known = next((object_ for object_ in objects if object_.id == version.id), None)
    if known is not None:
        labels = {key: value for key, value in known.spec.labels.items() if key != VERSION_OF_LABEL}
        fields = diff(labels, dict(spec.labels), "labels")
        action: Action = "update" if fields else "unchanged"
        return Change(action=action, kind=kind, name=spec.name, id=known.id, fields=fields, spec=spec)
    former = [object_ for object_ in objects if _base_name(object_) == spec.name]
    if not former:
        return Change(action="create", kind=kind, name=spec.name, spec=spec)
    latest = max(former, key=lambda object_: (object_.meta.created_at, object_.id))
    return Change(
        action="replace",
        kind=kind,
        name=spec.name,
        id=latest.id,
        fields=(FieldChange(path="data", old=_content(latest.spec), new=_content(spec)),),
        spec=spec,
        reason=f"as {version.name}: a {kind} cannot be changed, only made anew",
    )


def _base_name(object_: Object) -> str:
    """The name that the Compose file gives the object."""
    return object_.spec.labels.get(VERSION_OF_LABEL, object_.spec.name)


def _content(spec: object) -> str:
    """Two contents look alike only if they are; of a secret's nothing is told."""
    return _bytes(spec.data) if isinstance(spec, ConfigSpec) else "(secret)"


def _renamed(spec: ServiceSpec, versions: Versions) -> ServiceSpec:
    """With references to the versions of secrets and configs that a deploy would take."""

    def renamed(kind: Kind, references: Sequence[FileReference]) -> tuple[FileReference, ...]:
        return tuple(
            replace(reference, source_name=version.name)
            if (version := versions.get((kind, reference.source_name))) is not None
            else reference
            for reference in references
        )

    container = spec.task.container
    container = replace(
        container,
        secrets=renamed("secret", container.secrets),
        configs=renamed("config", container.configs),
    )
    return replace(spec, task=replace(spec.task, container=container))


def _change(kind: Kind, spec: Spec, have: Object | None, names: Mapping[str, str]) -> Change:
    if have is None:
        return Change(action="create", kind=kind, name=spec.name, spec=spec)
    if isinstance(spec, ServiceSpec) and isinstance(have, Service):
        return _service_change(spec, have, names)
    unknown: tuple[str, ...] = ()
    old: Spec = have.spec
    if isinstance(old, SecretSpec) and isinstance(spec, SecretSpec) and not old.data and spec.data:
        unknown = ("data",)
        old = replace(old, data=spec.data)
    fields = diff(old, spec)
    base = Change(
        action="unchanged", kind=kind, name=spec.name, id=have.id, fields=fields, spec=spec, unknown=unknown
    )
    if not fields:
        return base
    if kind == "volume":
        return replace(
            base, action="keep", reason="a volume that exists is not changed: its data would be lost"
        )
    if all(change.path.startswith("labels") for change in fields):
        return replace(base, action="update")
    return replace(base, action="replace", reason=f"a {kind} cannot be changed, only made anew")


def _service_change(spec: ServiceSpec, have: Service, names: Mapping[str, str]) -> Change:
    old, new = _comparable(have.spec, names), _comparable(spec, names)
    if _same_image(old.task.container.image, new.task.container.image):
        old = _with_image(old, new.task.container.image)
    new = replace(new, task=replace(new.task, force_update=old.task.force_update))
    if spec.autoscale is not None and old.autoscale is not None and old.mode.kind == new.mode.kind:
        within = spec.autoscale.min <= old.mode.replicas <= spec.autoscale.max
        new = replace(new, mode=old.mode) if within else new
    fields = diff(old, new)
    base = Change(
        action="update" if fields else "unchanged",
        kind="service",
        name=spec.name,
        id=have.id,
        fields=fields,
        spec=spec,
    )
    if have.spec.mode.kind != spec.mode.kind:
        return replace(base, action="replace", reason="the mode of a service cannot be changed")
    return base


def _comparable(spec: ServiceSpec, names: Mapping[str, str]) -> ServiceSpec:
    """The spec without what the managers add: ids instead of names, credentials."""
    task = spec.task
    container = replace(
        task.container,
        secrets=_by_name(task.container.secrets),
        configs=_by_name(task.container.configs),
    )
    networks = tuple(
        sorted(
            (
                replace(attachment, target=names.get(attachment.target, attachment.target))
                for attachment in task.networks
            ),
            key=lambda attachment: attachment.target,
        )
    )
    cleaned: TaskSpec = replace(task, container=container, networks=networks, registry_auth="")
    return replace(spec, task=cleaned)


def _by_name(references: Sequence[FileReference]) -> tuple[FileReference, ...]:
    plain = [
        replace(reference, source_id="") if reference.source_name else reference for reference in references
    ]
    return tuple(sorted(plain, key=lambda reference: (reference.source_name, reference.target)))


def _same_image(old: str, new: str) -> bool:
    """Whether `old` is `new`, pinned to a digest."""
    return "@" not in new and old.partition("@")[0] == new


def _with_image(spec: ServiceSpec, image: str) -> ServiceSpec:
    container = replace(spec.task.container, image=image)
    return replace(spec, task=replace(spec.task, container=container))


def diff(old: object, new: object, path: str = "") -> tuple[FieldChange, ...]:
    """Every field in which two specs differ, by dotted path."""
    if old == new:
        return ()
    if dataclasses.is_dataclass(old) and dataclasses.is_dataclass(new) and type(old) is type(new):
        found: list[FieldChange] = []
        for item in dataclasses.fields(old):
            found += diff(getattr(old, item.name), getattr(new, item.name), _join(path, item.name))
        return tuple(found)
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return _diff_entries(dict(old), dict(new), path)  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(old, tuple) and isinstance(new, tuple):
        mine, theirs = _keyed(old, path), _keyed(new, path)  # pyright: ignore[reportUnknownArgumentType]
        if mine is not None and theirs is not None:
            return _diff_entries(mine, theirs, path)
    return (FieldChange(path=path, old=shown(old), new=shown(new)),)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _diff_entries(old: Mapping[str, object], new: Mapping[str, object], path: str) -> tuple[FieldChange, ...]:
    found: list[FieldChange] = []
    for key in sorted({*old, *new}):
        if key not in old:
            found.append(FieldChange(path=_join(path, key), old=None, new=shown(new[key])))
        elif key not in new:
            found.append(FieldChange(path=_join(path, key), old=shown(old[key]), new=None))
        else:
            found += diff(old[key], new[key], _join(path, key))
    return tuple(found)


_KEYS: Mapping[str, tuple[str, ...]] = {
    "mounts": ("target",),
    "networks": ("target",),
    "secrets": ("target",),
    "configs": ("target",),
    "ports": ("target_port", "protocol", "published_port"),
    "depends_on": ("service",),
    "ulimits": ("name",),
    "devices": ("path_on_host",),
}
"""Lists whose items have a name: they are compared by it, not by place."""


def _keyed(items: tuple[object, ...], path: str) -> dict[str, object] | None:
    """A tuple as a mapping by the items' names; None when they have none or share one."""
    name = path.rsplit(".", 1)[-1]
    if name == "env":
        pairs = [str(item).partition("=") for item in items]
        keyed: dict[str, object] = {key: value if equals else None for key, equals, value in pairs}
    elif name in _KEYS and all(dataclasses.is_dataclass(item) for item in items):
        keyed = {"/".join(str(getattr(item, key)) for key in _KEYS[name]): item for item in items}
    else:
        return None
    return keyed if len(keyed) == len(items) else None


def shown(value: object) -> object:
    """A spec's value as JSON can hold it; unset fields of dataclasses are left out, bytes are counted and
    told by their digest."""
    if isinstance(value, bytes):
        return _bytes(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
        return {
            name: shown(part)
            for name, part in fields.items()
            if part not in (None, "", (), 0, False, {}, b"")
        }
    if isinstance(value, Mapping):
        return {str(key): shown(part) for key, part in sorted(value.items())}  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, (tuple, list)):
        return [shown(part) for part in value]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return value


def _bytes(value: bytes) -> str:
    return f"{len(value)} bytes, sha256 {hashlib.sha256(value).hexdigest()[:12]}"


# ----------------------------------------------------------------------------------------- renderers


def render_text(plan: StackPlan, *, unchanged: bool = False) -> str:
    """The plan for a person: a line for each change, the fields below it, a summary."""
    lines: list[str] = []
    for change in plan.changes:
        if change.action == "unchanged" and not unchanged:
            continue
        reason = f" ({change.reason})" if change.reason else ""
        lines.append(f"{_SIGNS[change.action]} {change.kind} {change.name}{reason}")
        for item in change.fields:
            lines.append(f"    {item.path}: {_text(item.old)} -> {_text(item.new)}")
    counts = plan.counts()
    said = [f"{count} to {action}" for action, count in counts.items() if count and action != "unchanged"]
    same = counts["unchanged"]
    summary = ", ".join(said) if said else "nothing to do"
    lines.append(f"{plan.stack}: {summary}" + (f", {same} unchanged" if same else ""))
    return "\n".join(lines) + "\n"


def _text(value: object) -> str:
    if value is None:
        return "(none)"
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def render_json(plan: StackPlan) -> str:
    """The plan for programs: `{"stack", "waves": [[{"action", "kind", "name", "fields", ...}]], "counts"}`."""
    waves = [
        [
            {
                "action": change.action,
                "kind": change.kind,
                "name": change.name,
                "id": change.id,
                "reason": change.reason,
                "fields": [{"path": item.path, "old": item.old, "new": item.new} for item in change.fields],
                "unknown": list(change.unknown),
            }
            for change in wave
        ]
        for wave in plan.waves
    ]
    return json.dumps({"stack": plan.stack, "waves": waves, "counts": plan.counts()}, indent=2) + "\n"


def render_dot(plan: StackPlan) -> str:
    """The dependency graph for Graphviz, coloured by action."""
    lines = [f"digraph {json.dumps(plan.stack)} {{", "  rankdir=LR;", "  node [shape=box];"]
    for change in plan.changes:
        name = json.dumps(f"{change.kind}/{change.name}")
        text = json.dumps(f"{change.name}\n{change.kind}: {change.action}")
        lines.append(f"  {name} [label={text}, color={_COLOURS[change.action]}];")
    lines += [f"  {json.dumps(a)} -> {json.dumps(b)};" for a, b in plan.edges]
    return "\n".join([*lines, "}"]) + "\n"


def render_graph(plan: StackPlan) -> str:
    """The dependency graph as plain text: each wave, and what each of its members needs."""
    needs: dict[str, list[str]] = {}
    for what, needed in plan.edges:
        needs.setdefault(what, []).append(needed)
    lines: list[str] = []
    for number, wave in enumerate(plan.waves, 1):
        lines.append(f"wave {number}")
        for change in wave:
            label = f"{change.kind}/{change.name}"
            lines.append(f"  {_SIGNS[change.action]} {label}")
            wanted = sorted(needs.get(label, ()))
            for index, needed in enumerate(wanted):
                branch = "└─" if index == len(wanted) - 1 else "├─"
                lines.append(f"      {branch} {needed}")
    return "\n".join(lines) + "\n"
