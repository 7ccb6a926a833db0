"""Placement constraints: `node.labels.disk==ssd`, `node.role!=manager`, ...

The grammar and the meaning are Swarm's: a key, `==` or `!=`, a value; both sides are compared as a whole
and without regard to case; a label that a node does not have counts as empty. `node.ip` takes an address
or a subnet in CIDR form.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from pyswarm.errors import Invalid
from pyswarm.objects import Node

NODE_LABEL = "node.labels."
ENGINE_LABEL = "engine.labels."
PLAIN_KEYS = (
    "node.id",
    "node.hostname",
    "node.ip",
    "node.role",
    "node.platform.os",
    "node.platform.arch",
)
_PARTS = re.compile(r"^\s*(?P<key>.*?)\s*(?P<operator>==|!=)\s*(?P<value>.*?)\s*$", re.DOTALL)
_LABEL = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.\-/]*$")
_VALUE = re.compile(r"^[A-Za-z0-9:\-_\s.*()?+\[\]\\^$|/]+$")

_ARCHITECTURES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "i386": "386",
    "i486": "386",
    "i586": "386",
    "i686": "386",
    "aarch64": "arm64",
    "armv7l": "arm",
    "armv6l": "arm",
    "armhf": "arm",
    "armel": "arm",
}


@dataclass(frozen=True, slots=True)
class Constraint:
    """One parsed constraint."""

    key: str
    """In lower case but for the name of a label."""
    operator: str
    """`==` or `!=`."""
    value: str

    def __str__(self) -> str:
        return f"{self.key}{self.operator}{self.value}"


def normal_architecture(name: str) -> str:
    """The one name of an architecture that has several: x86_64 and amd64 are the same."""
    lower = name.lower()
    return _ARCHITECTURES.get(lower, lower)


@lru_cache(maxsize=4096)
def parse(text: str) -> Constraint:
    """The constraint that `text` says. Raises Invalid, with the way out, when it says none."""
    match = _PARTS.match(text)
    if match is None:
        raise Invalid(
            f"constraint {text!r} has no operator: write key==value or key!=value, e.g. node.labels.disk==ssd"
        )
    key = _known_key(match["key"], text)
    value = match["value"]
    if not value:
        raise Invalid(f"constraint {text!r} has no value: write {key}{match['operator']}VALUE")
    if not _VALUE.match(value):
        raise Invalid(f"constraint {text!r}: the value {value!r} has characters that no node can match")
    if key == "node.ip":
        _check_ip(value, text)
    return Constraint(key, match["operator"], value)


def parse_all(texts: Sequence[str], where: str = "") -> tuple[Constraint, ...]:
    """Every constraint of a placement; `where` names the place in errors, e.g. `services.web.placement`."""
    parsed: list[Constraint] = []
    for number, text in enumerate(texts):
        try:
            parsed.append(parse(text))
        except Invalid as error:
            if not where:
                raise
            raise Invalid(f"{where}.constraints[{number}]: {error}") from None
    return tuple(parsed)


def _known_key(key: str, text: str) -> str:
    lower = key.lower()
    if lower in PLAIN_KEYS:
        return lower
    for prefix in (NODE_LABEL, ENGINE_LABEL):
        if lower.startswith(prefix) and len(key) > len(prefix):
            label = key[len(prefix) :]
            if not _LABEL.match(label):
                raise Invalid(f"constraint {text!r}: {label!r} cannot be the name of a label")
            return prefix + label
    near = _near_miss(lower)
    hint = f"did you mean {near}? " if near else ""
    raise Invalid(
        f"constraint {text!r}: unknown key {key!r} ({hint}"
        f"the keys are {', '.join(PLAIN_KEYS)}, {NODE_LABEL}NAME and {ENGINE_LABEL}NAME)"
    )


def _near_miss(key: str) -> str:
    for wrong, prefix in (("node.label.", NODE_LABEL), ("engine.label.", ENGINE_LABEL)):
        if key.startswith(wrong):
            return prefix + key[len(wrong) :]
    return next(iter(difflib.get_close_matches(key, PLAIN_KEYS, n=1)), "")


def _check_ip(value: str, text: str) -> None:
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise Invalid(
            f"constraint {text!r}: {value!r} is neither an address (10.0.0.7) nor a subnet (10.0.0.0/24)"
        ) from None


def label_of(descriptor: str, node: Node) -> str | None:
    """The value of `node.labels.X` or `engine.labels.X`; "" when the node has no such label, None when the
    descriptor names something else."""
    lower = descriptor.lower()
    if lower.startswith(NODE_LABEL) and len(lower) > len(NODE_LABEL):
        return node.spec.labels.get(descriptor[len(NODE_LABEL) :], "")
    if lower.startswith(ENGINE_LABEL) and len(lower) > len(ENGINE_LABEL):
        return node.description.engine_labels.get(descriptor[len(ENGINE_LABEL) :], "")
    return None


def _holds(constraint: Constraint, node: Node) -> bool:
    key = constraint.key
    if key == "node.ip":
        return _ip_within(node.status.addr, constraint.value) == (constraint.operator == "==")
    found, wanted = _found(key, node), constraint.value
    if key == "node.platform.arch":
        found, wanted = normal_architecture(found), normal_architecture(wanted)
    return (found.casefold() == wanted.casefold()) == (constraint.operator == "==")


def _found(key: str, node: Node) -> str:
    if key == "node.id":
        return node.id
    if key == "node.hostname":
        return node.description.hostname
    if key == "node.role":
        return node.role
    if key == "node.platform.os":
        return node.description.platform.os
    if key == "node.platform.arch":
        return node.description.platform.architecture
    return label_of(key, node) or ""


def _ip_within(address: str, wanted: str) -> bool:
    host = address.removeprefix("[").partition("]")[0] if address.startswith("[") else address
    if host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(wanted, strict=False)
    except ValueError:
        return False


def unmatched(constraints: Sequence[Constraint], node: Node) -> Constraint | None:
    """The first constraint that the node does not meet, or None when it meets all."""
    for constraint in constraints:
        if not _holds(constraint, node):
            return constraint
    return None


def node_matches(texts: Sequence[str], node: Node) -> bool:
    """Whether the node meets all constraints; one that cannot be parsed is met by no node."""
    try:
        return unmatched(parse_all(texts), node) is None
    except Invalid:
        return False
