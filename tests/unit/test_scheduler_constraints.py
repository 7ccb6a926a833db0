"""Placement constraints: grammar, errors, and what they match on a node."""

from __future__ import annotations

from dataclasses import replace

import pytest

from manager.scheduler.constraints import node_matches, normal_architecture, parse, parse_all, unmatched
from pyswarm.errors import Invalid
from pyswarm.objects import Node
from tests.unit.rounds import node

PARSED = [
    ("node.labels.disk==ssd", "node.labels.disk", "==", "ssd"),
    ("node.labels.disk != ssd", "node.labels.disk", "!=", "ssd"),
    (" NODE.ROLE ==  Manager ", "node.role", "==", "Manager"),
    ("Node.Labels.Disk==x", "node.labels.Disk", "==", "x"),
    ("engine.labels.com.example.tier==a b", "engine.labels.com.example.tier", "==", "a b"),
    ("node.id==2ivku8v2gvtg4", "node.id", "==", "2ivku8v2gvtg4"),
    ("node.ip!=10.0.0.0/8", "node.ip", "!=", "10.0.0.0/8"),
    ("node.hostname==web-*.example", "node.hostname", "==", "web-*.example"),
]

WRONG = [
    ("node.role", "has no operator"),
    ("node.role=manager", "has no operator"),
    ("node.role==", "has no value"),
    ("==manager", "unknown key"),
    ("node.label.disk==ssd", "did you mean node.labels.disk?"),
    ("node.hostnam==a", "did you mean node.hostname?"),
    ("node.labels.==a", "unknown key"),
    ("node.labels.a b==c", "cannot be the name of a label"),
    ("node.labels.disk==s;d", "has characters"),
    ("node.ip==ten", "neither an address"),
]


def a_node(**changes: object) -> Node:
    made = node(
        "node1",
        labels={"disk": "SSD", "empty": ""},
        engine_labels={"tier": "front"},
        hostname="Web1",
        role="manager",
        addr="192.168.3.4:41000",
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # fields of Node


MATCHES = [
    ("node.id==NODE1", True),
    ("node.id!=node1", False),
    ("node.hostname==web1", True),
    ("node.hostname==web", False),
    ("node.role==manager", True),
    ("node.role!=worker", True),
    ("node.labels.disk==ssd", True),
    ("node.labels.disk!=ssd", False),
    ("node.labels.missing==x", False),
    ("node.labels.missing!=x", True),
    ("node.labels.empty!=x", True),
    ("engine.labels.tier==front", True),
    ("engine.labels.missing==front", False),
    ("node.platform.os==LINUX", True),
    ("node.platform.arch==x86_64", True),
    ("node.platform.arch==amd64", True),
    ("node.platform.arch!=arm64", True),
    ("node.ip==192.168.3.4", True),
    ("node.ip==192.168.3.0/24", True),
    ("node.ip!=192.168.0.0/16", False),
    ("node.ip==10.0.0.0/8", False),
    ("node.ip!=fd00::/8", True),
]


@pytest.mark.parametrize(("text", "key", "operator", "value"), PARSED)
def test_parses(text: str, key: str, operator: str, value: str) -> None:
    constraint = parse(text)
    assert (constraint.key, constraint.operator, constraint.value) == (key, operator, value)


@pytest.mark.parametrize(("text", "expected"), WRONG)
def test_says_what_is_wrong(text: str, expected: str) -> None:
    with pytest.raises(Invalid, match=expected.replace("?", r"\?")):
        parse(text)


def test_names_the_place() -> None:
    with pytest.raises(Invalid, match=r"services\.web\.placement\.constraints\[1\]: constraint 'x==1'"):
        parse_all(["node.role==manager", "x==1"], "services.web.placement")


@pytest.mark.parametrize(("text", "expected"), MATCHES)
def test_matches(text: str, expected: bool) -> None:
    assert node_matches([text], a_node()) is expected


def test_all_must_match_and_the_first_that_does_not_is_named() -> None:
    constraints = parse_all(["node.role==manager", "node.labels.disk==hdd", "node.id==other"])
    failed = unmatched(constraints, a_node())
    assert failed is not None
    assert str(failed) == "node.labels.disk==hdd"
    assert unmatched(constraints[:1], a_node()) is None


def test_what_cannot_be_parsed_matches_no_node() -> None:
    assert not node_matches(["nonsense"], a_node())


def test_ip_of_a_node_without_address() -> None:
    bare = a_node(status=replace(a_node().status, addr=""))
    assert not node_matches(["node.ip==10.0.0.1"], bare)
    assert node_matches(["node.ip!=10.0.0.1"], bare)


def test_ip_of_a_bracketed_ipv6_address() -> None:
    six = a_node(status=replace(a_node().status, addr="[fd00::7]:2377"))
    assert node_matches(["node.ip==fd00::/16"], six)


@pytest.mark.parametrize(
    ("name", "normal"),
    [("x86_64", "amd64"), ("AMD64", "amd64"), ("aarch64", "arm64"), ("riscv64", "riscv64")],
)
def test_architectures(name: str, normal: str) -> None:
    assert normal_architecture(name) == normal
