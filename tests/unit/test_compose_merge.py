"""How files merge, attribute by attribute; `!reset` and `!override`."""

from __future__ import annotations

from typing import Any

import pytest

from compose.errors import Report
from compose.merge import drop_repeats, merge_files, settle
from compose.read import decode, documents
from compose.schema import canonical
from compose.tree import Node, plain


def _tree(text: str, report: Report) -> Node:
    return canonical(documents(decode(text.encode(), "f"))[0], report)


def _merged(base: str, over: str) -> Any:  # plain YAML
    report = Report()
    merged = merge_files(_tree(base, report), _tree(over, report), report)
    assert report.problems == []
    return plain(drop_repeats(settle(merged)))


PORT = {"mode": "ingress", "protocol": "tcp"}
CASES: dict[str, tuple[str, str, Any]] = {
    "image": ("image: a", "image: b", "b"),
    "command": ("command: [a, b]", "command: c", ["c"]),
    "entrypoint": ("entrypoint: [a]", "entrypoint: null", None),
    "environment": ("environment: {A: 1, B: 2}", "environment: [B=3, C]", {"A": "1", "B": "3", "C": None}),
    "labels": ("labels: [a=b]", "labels: {a: c, d: e}", {"a": "c", "d": "e"}),
    "dns": ("dns: 1.1.1.1", "dns: [1.1.1.1, 2.2.2.2]", ["1.1.1.1", "2.2.2.2"]),
    "cap_add": ("cap_add: [A]", "cap_add: [B, A]", ["A", "B"]),
    "tmpfs": ("tmpfs: /a", "tmpfs: /b", ["/a", "/b"]),
    "ports": (
        "ports: ['80:80', '81:80/udp']",
        "ports: ['80:80', '127.0.0.1:80:80']",
        [
            {**PORT, "target": 80, "published": "80"},
            {**PORT, "protocol": "udp", "target": 80, "published": "81"},
            {**PORT, "target": 80, "published": "80", "host_ip": "127.0.0.1"},
        ],
    ),
    "volumes": (
        "volumes: ['aa:/x', 'bb:/y']",
        "volumes: ['cc:/x:ro']",
        [
            {"type": "volume", "source": "cc", "target": "/x", "read_only": True, "volume": {}},
            {"type": "volume", "source": "bb", "target": "/y", "volume": {}},
        ],
    ),
    "secrets": (
        "secrets: [a]",
        "secrets: [{source: b, target: /run/secrets/a}, c]",
        [{"source": "b", "target": "/run/secrets/a"}, {"source": "c", "target": "/run/secrets/c"}],
    ),
    "devices": (
        "devices: ['/dev/a:/dev/x']",
        "devices: ['/dev/b:/dev/x:r']",
        [{"source": "/dev/b", "target": "/dev/x", "permissions": "r"}],
    ),
    "ulimits": (
        "ulimits: {nofile: {soft: 1, hard: 2}, core: 0}",
        "ulimits: {nofile: 5}",
        {"nofile": 5, "core": 0},
    ),
    "logging": (
        "logging: {driver: a, options: {x: y}}",
        "logging: {driver: b}",
        {"driver": "b"},
    ),
    "healthcheck": (
        "healthcheck: {test: [CMD, a], interval: 1s}",
        "healthcheck: {test: b}",
        {"test": ["CMD-SHELL", "b"], "interval": "1s"},
    ),
    "depends_on": (
        "depends_on: {b: {condition: service_healthy, required: false}}",
        "depends_on: {b: {condition: service_started}, c: {condition: service_started}}",
        {"b": {"condition": "service_started", "required": False}, "c": {"condition": "service_started"}},
    ),
    "networks": ("networks: [n]", "networks: {n: {aliases: [a]}, m: }", {"n": {"aliases": ["a"]}, "m": None}),
    "build": ("build: ./d", "build: {target: t}", {"context": "./d", "target": "t"}),
    "deploy": (
        "deploy: {replicas: 1, placement: {constraints: [a==b]}}",
        "deploy: {replicas: 2, placement: {constraints: [c==d]}}",
        {"replicas": 2, "placement": {"constraints": ["a==b", "c==d"]}},
    ),
    "blkio_config": (
        "blkio_config: {weight: 1, device_read_bps: [{path: /a, rate: 1}]}",
        "blkio_config: {weight: 2, device_read_bps: [{path: /b, rate: 2}]}",
        {"weight": 2, "device_read_bps": [{"path": "/a", "rate": "1"}, {"path": "/b", "rate": "2"}]},
    ),
    "extra_hosts": (
        "extra_hosts: {a: 1.1.1.1}",
        "extra_hosts: ['a=2.2.2.2', 'a=1.1.1.1']",
        ["a=1.1.1.1", "a=2.2.2.2"],
    ),
    "env_file": (
        "env_file: a",
        "env_file: [{path: a, required: false}, b]",
        [{"path": "a", "required": False}, {"path": "b", "required": True}],
    ),
    "x-list": ("x-list: [1]", "x-list: [2]", [2]),
    "tty": ("tty: true", "tty: !override false", False),
    "expose": ("expose: [1]", "expose: !override [2]", ["2"]),
}


@pytest.mark.parametrize("name", CASES)
def test_attributes(name: str) -> None:
    base, over, expected = CASES[name]
    merged = _merged(f"services: {{a: {{{base}}}}}", f"services: {{a: {{{over}}}}}")
    assert merged["services"]["a"] == {name: expected}


@pytest.mark.parametrize(
    "over",
    [
        "services: {a: {environment: !reset null}}",
        "services: {a: {environment: {A: !reset null}}}",
        "services: {a: {environment: !override {}}}",
        "services: !override {a: {environment: {}}}",
    ],
)
def test_reset_and_override(over: str) -> None:
    merged = _merged("services: {a: {environment: {A: 1}}, b: {image: x}}", over)
    assert not merged["services"]["a"].get("environment")
    assert ("b" in merged["services"]) is ("!override {a" not in over)


def test_resources_at_the_top_merge() -> None:
    merged = _merged(
        "networks: {n: {driver: a, labels: {x: y}, ipam: {config: [{subnet: 10.0.0.0/24, gateway: 10.0.0.1}]}}}",
        "networks: {n: {driver: b, ipam: {config: [{subnet: 10.0.0.0/24, ip_range: 10.0.0.0/25}, "
        "{subnet: 10.1.0.0/24}]}}, m: }",
    )
    assert merged["networks"] == {
        "n": {
            "driver": "b",
            "labels": {"x": "y"},
            "ipam": {
                "config": [
                    {"subnet": "10.0.0.0/24", "gateway": "10.0.0.1", "ip_range": "10.0.0.0/25"},
                    {"subnet": "10.1.0.0/24"},
                ]
            },
        },
        "m": None,
    }


def test_within_one_file_the_last_of_two_counts() -> None:
    report = Report()
    tree = _tree("services: {a: {volumes: ['aa:/x', 'bb:/x'], ports: [80, 80]}}", report)
    service = plain(drop_repeats(settle(tree)))["services"]["a"]  # pyright: ignore[reportIndexIssue, reportUnknownVariableType]
    assert [mount["source"] for mount in service["volumes"]] == ["bb"]
    assert len(service["ports"]) == 1
