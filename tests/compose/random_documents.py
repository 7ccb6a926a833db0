"""Random Compose files, reproducible by a seed: services made of values that docker compose takes."""

from __future__ import annotations

import random
from typing import Any

Document = dict[str, Any]

PAIRS: list[Any] = [
    {"K": "v", "L.m": 1, "N_1": None},
    {"K": 1.5, "o-p": True, "N_1": "${SET}"},
    {"K": "$$x", "L.m": "yes", "Q": 0o777},
    {"K": "line\nbreak", "L.m": 1e6, "o-p": "2001-01-01"},
    ["K=v", "L=", "M"],
    ["K=w", "N=a=b", "P=${SET}", "Q= s "],
    [],
    {},
]
COMMANDS: list[Any] = [
    None,
    "",
    "a b",
    "a 'b c' \"d\"",
    ["x", "y z", ""],
    [],
    'a \\"b',
    "sh -c 'x; y && z'",
    "a  b\tc",
    "--x='a b'c",
    "a$$b",
    "x && y",
    "x ${SET} y",
    "a\\ b",
    "a\nb",
    "a#b #c",
    "a 1>b",
    "$$(x y) z",
    "`a b`",
]
DURATIONS = ["1s", "90s", "1m30s", "1.5h", "500ms", "0s", "1h0m0s", "100us", "10ns", "1d", "1w"]
SIZES: list[Any] = ["1g", "64m", "1024", "1.5gb", "10kb", "1b", 1024, "1G", "3kib", 0]
WORDS = [["a"], ["b1", "Foo.bar"], ["x-y", "A_B", "zz"], []]
HOSTS: list[Any] = [
    ["a=1.1.1.1", "b:2.2.2.2", "c=::1"],
    {"a": "1.1.1.1", "b": ["1.1.1.1", "::1"]},
    ["v6:[::1]", "g=host-gateway"],
]
ULIMITS: list[Any] = [{"nofile": 5, "nproc": "6"}, {"core": -1}, {"nofile": {"soft": 1, "hard": 2}}]
POOL: dict[str, list[Any]] = {
    "annotations": PAIRS,
    "attach": [True, False],
    "blkio_config": [{"weight": 5}, {}],
    "build": [
        ".",
        "./d",
        "https://x/y.git",
        {"context": "../e", "args": ["A=1", "SET"], "target": "t", "labels": {"a": "b"}},
        {"context": "/x/../y", "dockerfile": "../D", "shm_size": "2MB", "extra_hosts": ["a:1.1.1.1"]},
        {
            "args": {"A": None, "B": 1},
            "cache_from": ["a"],
            "no_cache": "false",
            "pull": True,
            "ssh": ["default"],
        },
        {
            "context": ".",
            "additional_contexts": {"a": "./x", "b": "docker-image://q"},
            "sbom": "x",
            "provenance": False,
        },
    ],
    "cap_add": WORDS,
    "cap_drop": WORDS,
    "cgroup": ["host", "private"],
    "cgroup_parent": ["a"],
    "command": COMMANDS,
    "configs": [["c"], [{"source": "c", "target": "/t", "mode": 0o444}]],
    "cpu_count": [1, "2", 0],
    "cpu_period": [1, "2"],
    "cpu_quota": [5, "6", 7.0],
    "cpu_shares": [5, "6"],
    "cpuset": ["0-1"],
    "depends_on": [
        ["dep"],
        {"dep": {"condition": "service_healthy"}},
        {"dep": {"condition": "service_started", "restart": True, "required": False}},
    ],
    "deploy": [
        None,
        {},
        {
            "replicas": "2",
            "labels": ["a=b"],
            "update_config": {"parallelism": 0, "delay": "90s", "order": "start-first"},
        },
        {
            "mode": "global",
            "resources": {"limits": {"cpus": 0.25, "pids": "5"}, "reservations": {"memory": "5m"}},
        },
        {
            "restart_policy": {"condition": "any", "max_attempts": 0, "window": "1h"},
            "placement": {"constraints": ["a==b"]},
        },
        {"resources": {"reservations": {"devices": [{"capabilities": ["gpu"], "options": ["a=b"]}]}}},
        {"rollback_config": {"max_failure_ratio": "0.25"}, "placement": {"max_replicas_per_node": "2"}},
    ],
    "develop": [None, {"watch": [{"path": "b", "action": "rebuild", "ignore": "x"}]}],
    "devices": [["/dev/a"], ["/dev/a:/dev/b", "/dev/a:/dev/c:r"], ["v.com/x=y"]],
    "dns": ["1.1.1.1", ["1.1.1.1", "2.2.2.2"], [""], []],
    "dns_opt": WORDS,
    "dns_search": ["x", ["x", "y"]],
    "domainname": ["a"],
    "entrypoint": COMMANDS,
    "environment": PAIRS,
    "expose": [[80, "90"], ["1-2", "5/udp"], [80, "80"]],
    "extra_hosts": HOSTS,
    "gpus": [
        [{"count": 2}],
        [{"driver": "n", "count": "all"}],
        [{"device_ids": ["a"], "capabilities": ["x"]}],
        [{}],
    ],
    "healthcheck": [
        {"test": "x y", "interval": "90s", "retries": "2"},
        {"test": ["CMD", "a"], "timeout": "0s", "start_period": "1d"},
        {"test": ["NONE"]},
        {"test": [], "disable": "true"},
        {"test": "", "retries": 0, "start_interval": "100us"},
    ],
    "hostname": ["a", "${SET}"],
    "init": [True, False, "true"],
    "ipc": ["host", "shareable"],
    "labels": PAIRS,
    "links": [["dep"], ["dep", "dep:al"]],
    "logging": [
        {},
        {"driver": "x"},
        {"driver": "none", "options": {"a": 1, "b": None, "c": 1.5, "d": "${SET}"}},
    ],
    "mac_address": ["02:42:ac:11:00:02"],
    "mem_limit": SIZES,
    "mem_reservation": ["5m", 7],
    "mem_swappiness": [10, "20", 0],
    "memswap_limit": ["1g", 5],
    "networks": [
        ["n"],
        ["n", "default"],
        {"n": None},
        {"n": {"aliases": ["q", "q"], "ipv4_address": "10.0.0.5", "priority": 5, "driver_opts": {"a": 1}}},
        {"default": {"mac_address": "x", "gw_priority": -1, "interface_name": "eth9"}},
        [],
    ],
    "oom_kill_disable": [True, "false"],
    "oom_score_adj": [5, "-6", 0],
    "pid": ["host"],
    "pids_limit": [5, "6", -1, 0],
    "platform": ["linux/amd64"],
    "ports": [
        [80, "80", "8080:80"],
        ["80-82", "90-92:80-82", "7000-7002:7"],
        ["127.0.0.1:1:2", "[::1]:1:2", "53:53/udp", "127.0.0.1::7"],
        [{"target": 1}, {"target": "2", "published": 3}],
        [
            {
                "target": 3,
                "published": "4-6",
                "protocol": "udp",
                "mode": "host",
                "host_ip": "1.2.3.4",
                "name": "n",
            }
        ],
        ["${P:-99}:98", "0.0.0.0:5:6"],
    ],
    "post_start": [
        [{"command": "a b", "user": "u", "privileged": True}],
        [{"command": ["x"], "environment": ["A=1"]}],
    ],
    "privileged": [True, False, "yes"],
    "profiles": [[]],
    "pull_policy": ["always", "missing", "if_not_present", "every_5h"],
    "read_only": [True, "no"],
    "restart": ["no", "always", "on-failure:3"],
    "runtime": ["runc"],
    "scale": [0, 1, "3"],
    "secrets": [["s"], [{"source": "s", "target": "t", "mode": "0400"}], ["s", {"source": "s2", "uid": "5"}]],
    "shm_size": SIZES,
    "stdin_open": [True, "true"],
    "stop_grace_period": DURATIONS,
    "stop_signal": ["SIGINT"],
    "storage_opt": [{"size": "1g"}],
    "sysctls": PAIRS,
    "tmpfs": ["/x", ["/x", "/y:size=1m"], ["/x", "/x"]],
    "tty": [True, "true"],
    "ulimits": ULIMITS,
    "user": ["0:0"],
    "userns_mode": ["host"],
    "uts": ["host"],
    "volumes": [
        ["/anon", "vol:/v", "./b:/b"],
        ["./b:/b:ro", "../up:/u/", "~/h:/h", "vol:/w:nocopy"],
        ["/abs//x:/y//z", "./s:/s:z", "./s:/s2:rshared,ro", ".:/dot"],
        [
            {"type": "tmpfs", "target": "/t", "tmpfs": {"size": "1m", "mode": 0o755}},
            {"type": "volume", "target": "/no"},
        ],
        [
            {
                "type": "bind",
                "source": "./x",
                "target": "/b",
                "bind": {"create_host_path": False, "selinux": "z"},
            }
        ],
        [
            {
                "type": "volume",
                "source": "vol",
                "target": "/v",
                "read_only": "true",
                "volume": {"subpath": "s"},
            }
        ],
        [{"type": "image", "source": "i", "target": "/im", "image": {"subpath": "q"}}, "./a/../b:/c/../d"],
    ],
    "working_dir": ["/w"],
    "x-foo": [{"a": 1}],
}
"""Attribute -> values to draw from."""
NOT_MERGED = frozenset(("gpus",))
"""docker compose cannot put one over the other in every form."""


class Documents:
    """Documents from a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def _service(self, names: list[str], most: int) -> Document:
        chosen = self._random.sample(names, self._random.randint(1, most))
        return {name: self._random.choice(POOL[name]) for name in chosen}

    def project(self, services: int = 12) -> Document:
        """A whole project."""
        made = {f"s{n}": {"image": "x:${SET}", **self._service(sorted(POOL), 6)} for n in range(services)}
        return {
            "services": {**made, "dep": {"image": "d"}},
            "networks": {"n": None},
            "volumes": {"vol": None},
            "secrets": {"s": {"file": "./s"}, "s2": {"environment": "HOME"}},
            "configs": {"c": {"content": "a$$b ${SET}"}},
        }

    def override(self, project: Document) -> Document:
        """Another file for the same services: mostly the attributes that they have already."""
        services: Document = {}
        for name, service in project["services"].items():
            said = [key for key in service if key in POOL and key not in NOT_MERGED]
            if said:
                services[name] = self._service(sorted({*said, "tty", "labels"}), len(said))
        return {"services": services}
