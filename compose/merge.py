"""Several files, or a service and what it extends, become one: the specification's rules of merging.

Mappings merge key by key, lists append, everything else is replaced by the later one. The table `RULES`
holds the exceptions. Both sides are in canonical form. `!reset` removes, `!override` replaces.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence

from compose.errors import Report
from compose.tree import Node, Scalar, child_path, mapping, type_name

Merge = Callable[[Node, Node], Node]
Key = Callable[[Node], object]


# ---------------------------------------------------------------------------------------------- keys


def _value(node: Node) -> object:
    return node.value if not isinstance(node.value, (dict, list)) else id(node)


def _field(node: Node, name: str) -> Scalar:
    child = node.get(name)
    if child is None or isinstance(child.value, (dict, list)):
        return None
    return child.value


def _port(node: Node) -> object:
    host = _field(node, "host_ip") or "0.0.0.0"
    return (host, _field(node, "published") or "", _field(node, "target"), _field(node, "protocol"))


def _target(node: Node) -> object:
    return _field(node, "target")


def _file_target(node: Node) -> object:
    return _field(node, "target") or f"/{_field(node, 'source')}"


def _path(node: Node) -> object:
    return _field(node, "path")


def _subnet(node: Node) -> object:
    return _field(node, "subnet")


# --------------------------------------------------------------------------------------------- rules


def replace(_base: Node, over: Node) -> Node:
    """The later one wins whole."""
    return over


def unique(key: Key) -> Merge:
    """Lists append; an entry with the key of an earlier one takes its place."""

    def merge(base: Node, over: Node) -> Node:
        return over.replaced(without_repeats([*_items(base), *_items(over)], key))

    return merge


def _items(node: Node) -> list[Node]:
    return node.value if isinstance(node.value, list) else []


def without_repeats(items: Sequence[Node], key: Key) -> list[Node]:
    """The items in order of first appearance, each key's last item counting."""
    found: dict[object, Node] = {}
    for item in items:
        if item.tag != "!reset":
            found[key(item) if isinstance(item.value, dict) else _value(item)] = item
    return list(found.values())


def append(base: Node, over: Node) -> Node:
    """Lists append."""
    return over.replaced([*_items(base), *_items(over)])


def _merge_pools(base: Node, over: Node) -> Node:
    """Address pools of the same subnet merge, others append."""
    found = {_subnet(item): item for item in _items(base)}
    for item in _items(over):
        subnet = _subnet(item)
        known = found.get(subnet)
        merged = item if known is None else item.replaced({**mapping(known), **mapping(item)})
        found[subnet] = merged
    return over.replaced(list(found.values()))


_BY_VALUE = unique(_value)
RULES: dict[str, Merge] = {
    "services.*.command": replace,
    "services.*.entrypoint": replace,
    "services.*.healthcheck.test": replace,
    "services.*.ulimits.*": replace,
    "services.*.build.ulimits.*": replace,
    "services.*.ports": unique(_port),
    "services.*.volumes": unique(_target),
    "services.*.devices": unique(_target),
    "services.*.secrets": unique(_file_target),
    "services.*.configs": unique(_file_target),
    "services.*.env_file": unique(_path),
    "services.*.post_start": append,
    "services.*.pre_stop": append,
    "services.*.develop.watch": append,
    "services.*.gpus": append,
    "services.*.deploy.placement.preferences": append,
    "services.*.deploy.placement.constraints": append,
    "services.*.deploy.resources.reservations.devices": append,
    "services.*.deploy.resources.reservations.generic_resources": append,
    "services.*.blkio_config.*": append,
    "services.*.build.cache_from": append,
    "services.*.build.cache_to": append,
    "services.*.build.entitlements": append,
    "services.*.group_add": _BY_VALUE,
    "services.*.security_opt": _BY_VALUE,
    "networks.*.ipam.config": _merge_pools,
}
"""Path pattern -> how two values merge. Lists of plain values that are not named here drop repeats."""


class _Rule:
    """RULES as a tree, so that a walk needs no matching of patterns."""

    __slots__ = ("children", "merge")

    def __init__(self) -> None:
        self.children: dict[str, _Rule] = {}
        self.merge: Merge | None = None


def _compile() -> _Rule:
    root = _Rule()
    for pattern, merge in RULES.items():
        rule = root
        for segment in pattern.split("."):
            rule = rule.children.setdefault(segment, _Rule())
        rule.merge = merge
    return root


_ROOT = _compile()
_SERVICE = _ROOT.children["services"].children["*"]


# --------------------------------------------------------------------------------------------- merge


def merge_files(base: Node, over: Node, report: Report) -> Node:
    """`over`, a later file, on top of `base`."""
    return _Merger(report).merge(base, over, _ROOT, "")


def merge_service(base: Node, over: Node, path: str, report: Report) -> Node:
    """A service on top of the one it extends."""
    return _Merger(report).merge(base, over, _SERVICE, path)


class _Merger:
    def __init__(self, report: Report) -> None:
        self._report = report

    def merge(self, base: Node, over: Node, rule: _Rule | None, path: str) -> Node:
        if over.tag == "!override":
            return over
        if rule is not None and rule.merge is replace:
            return over
        if over.value is None and isinstance(base.value, (dict, list)) and over.tag != "!reset":
            return base
        if rule is not None and rule.merge is not None:
            both = isinstance(base.value, list) and isinstance(over.value, list)
            return rule.merge(base, over) if both else over
        if isinstance(base.value, dict) and isinstance(over.value, dict):
            if path.endswith(".logging") and self._drivers_differ(base, over):
                return over
            return self._mappings(base, over, rule, path)
        if isinstance(base.value, list) and isinstance(over.value, list):
            return _BY_VALUE(base, over)
        if (
            isinstance(base.value, (dict, list)) != isinstance(over.value, (dict, list))
            and base.value is not None
        ):
            self._report.error(
                f"cannot merge {type_name(over.value)} over {type_name(base.value)}",
                path,
                over.pos,
                (("first", base.pos),),
            )
            return base
        return over

    @staticmethod
    def _drivers_differ(base: Node, over: Node) -> bool:
        mine, theirs = base.get("driver"), over.get("driver")
        return mine is not None and theirs is not None and mine.value != theirs.value

    def _mappings(self, base: Node, over: Node, rule: _Rule | None, path: str) -> Node:
        entries = dict(mapping(base))
        keys = dict(base.keys or {})
        for key, child in mapping(over).items():
            if child.tag == "!reset":
                entries.pop(key, None)
                continue
            keys[key] = over.key_position(key)
            if key not in entries or (key.startswith("x-") and key != "x-pyswarm"):
                entries[key] = child
                continue
            below = None
            if rule is not None:
                below = rule.children.get(key) or rule.children.get("*")
            entries[key] = self.merge(entries[key], child, below, child_path(path, key))
        return Node(entries, over.pos, keys, base.tag, over.via)


def settle(node: Node) -> Node:
    """The tree without `!reset` values and without tags: what is left when all files are merged."""
    value = node.value
    if isinstance(value, dict):
        entries = {key: settle(child) for key, child in value.items() if child.tag != "!reset"}
        if not node.tag and len(entries) == len(value) and all(entries[key] is value[key] for key in entries):
            return node
        return Node(entries, node.pos, node.keys, "", node.via)
    if isinstance(value, list):
        items = [settle(item) for item in value if item.tag != "!reset"]
        if not node.tag and len(items) == len(value) and all(map(operator.is_, items, value)):
            return node
        return Node(items, node.pos, None, "", node.via)
    return node if not node.tag else Node(value, node.pos, None, "", node.via)


_UNIQUE_LISTS: dict[str, Key] = {
    "ports": _port,
    "volumes": _target,
    "devices": _target,
    "secrets": _file_target,
    "configs": _file_target,
    "env_file": _path,
}


def drop_repeats(root: Node) -> Node:
    """Within one file too, of two entries with the same key the last counts."""
    services = root.get("services")
    if services is None or not isinstance(services.value, dict):
        return root
    changed: dict[str, Node] = {}
    for name, service in services.value.items():
        new = _unique_service(service)
        if new is not service:
            changed[name] = new
    if not changed:
        return root
    entries = {**mapping(root), "services": services.replaced({**services.value, **changed})}
    return root.replaced(entries)


def _unique_service(service: Node) -> Node:
    entries = mapping(service)
    changed: dict[str, Node] = {}
    for name, key in _UNIQUE_LISTS.items():
        child = entries.get(name)
        if child is None or not isinstance(child.value, list) or len(child.value) < 2:
            continue
        items = without_repeats(child.value, key)
        if len(items) != len(child.value):
            changed[name] = child.replaced(items)
    return service.replaced({**entries, **changed}) if changed else service
