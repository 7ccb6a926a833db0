"""Every attribute of the Compose Specification and the shape of its value: rules as tables.

The tables follow the specification's JSON schema; a test holds the two equal, with the differences
listed. `x-pyswarm` is what pyswarm adds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from compose.errors import Report
from compose.shapes import (
    AnyScalarText,
    Bool,
    Custom,
    Duration,
    Enum,
    Float,
    Int,
    ListOf,
    MapOf,
    MapOrList,
    Microseconds,
    Obj,
    Shape,
    ShortOrObj,
    Size,
    Text,
    shown,
    wrong_type,
    wrong_value,
)
from compose.short import (
    MAX_PORTS,
    PROTOCOLS,
    ShortSyntaxError,
    lift,
    parse_port,
    read_command,
    read_device,
    read_extra_hosts,
    read_mode,
    read_published,
    read_target_port,
    read_test,
    read_volume,
)
from compose.tree import Node, mapping
from pyswarm.specs import AUTOSCALE_METRICS

NAME = r"[a-zA-Z0-9._-]+"
_NAME_WHAT = "a name (letters, digits, dots, dashes, underscores)"
_TEXT = Text()
_BOOL = Bool()
_STRINGS = ListOf(_TEXT, "refused")
_WORDS = ListOf(_TEXT, "dropped")
_ANY_STRINGS = ListOf(_TEXT)
_STRING_OR_LIST = ListOf(_TEXT, "refused", scalar=True)
_WORD_OR_LIST = ListOf(_TEXT, "dropped", scalar=True)
_LABELS = MapOrList("")
_COMMAND = Custom("a string or a list", read_command)
_OPTIONS = MapOf(AnyScalarText())
_MODE = Custom("a file mode such as 0440", read_mode)


# ------------------------------------------------------------------------- shapes with a short form


def _named_list(fields: Obj, default: Mapping[str, object] | None, what: str) -> Custom:
    """A list of names or a mapping from names to settings; canonical: the mapping.

    `default` is what a listed name stands for (None: a null).
    """

    def read(node: Node, path: str, report: Report) -> Node:
        value = node.value
        if isinstance(value, list):
            entries: dict[str, Node] = {}
            keys = {}
            for index, item in enumerate(value):
                if not isinstance(item.value, str):
                    wrong_type("a string", item, f"{path}[{index}]", report)
                    continue
                if item.value in entries:
                    message = f'"{shown(item.value)}" is listed twice'
                    report.error(message, f"{path}[{index}]", item.pos)
                entries[item.value] = lift(default, item)
                keys[item.value] = item.pos
            return Node(entries, node.pos, keys, node.tag)
        if isinstance(value, dict):
            return MapOf(fields, NAME, _NAME_WHAT).read(node, path, report)
        return wrong_type(f"a list of {what} or a mapping", node, path, report)

    return Custom(f"a list of {what} or a mapping", read, MapOf(fields))


def _with_defaults(fields: Obj, defaults: Mapping[str, object]) -> Custom:
    """A mapping whose missing keys get values."""

    def read(node: Node, path: str, report: Report) -> Node:
        done = fields.read(node, path, report)
        if not isinstance(done.value, dict):
            return done
        missing = {key: lift(value, done) for key, value in defaults.items() if key not in done.value}
        return done.replaced({**done.value, **missing}) if missing else done

    return Custom(fields.expected, read, fields)


DEPENDENCY = Obj(
    {
        "condition": Enum("service_started", "service_healthy", "service_completed_successfully"),
        "restart": _BOOL,
        "required": Bool(strict=True),
    },
    required=("condition",),
)
_DEPENDS_ON = _named_list(DEPENDENCY, {"condition": "service_started", "required": True}, "services")
"""What the long form leaves out is filled in after merging: see `compose.normalize`."""

SERVICE_NETWORK = Obj(
    {
        "aliases": _WORDS,
        "interface_name": _TEXT,
        "ipv4_address": _TEXT,
        "ipv6_address": _TEXT,
        "link_local_ips": _WORDS,
        "mac_address": _TEXT,
        "driver_opts": _OPTIONS,
        "priority": Int(strings=False, floats=True),
        "gw_priority": Int(strings=False, floats=True),
    },
    nullable=True,
)
_SERVICE_NETWORKS = _named_list(SERVICE_NETWORK, None, "networks")
SERVICE_MODEL = Obj({"endpoint_var": _TEXT, "model_var": _TEXT}, nullable=True)
_SERVICE_MODELS = _named_list(SERVICE_MODEL, None, "models")

PORT = Obj(
    {
        "name": _TEXT,
        "mode": Enum("ingress", "host"),
        "host_ip": _TEXT,
        "target": Custom("a port number", read_target_port),
        "published": Custom("a port or a range of ports", read_published),
        "protocol": Enum(*PROTOCOLS),
        "app_protocol": _TEXT,
    },
    required=("target",),
)
_LONG_PORT = _with_defaults(PORT, {"mode": "ingress", "protocol": "tcp"})


def _lift_ports(ports: list[dict[str, str | int]], at: Node) -> list[Node]:
    """Ports as nodes; what a range's ports have in common is shared."""
    known: dict[str | int, Node] = {}
    for port in ports[:1]:
        known = {value: Node(value, at.pos, None, "", at.via) for value in port.values()}
    return [
        Node(
            {key: known.get(value) or Node(value, at.pos, None, "", at.via) for key, value in port.items()},
            at.pos,
            None,
            "",
            at.via,
        )
        for port in ports
    ]


def _read_ports(node: Node, path: str, report: Report) -> Node:
    """A list of ports; one entry of the short syntax may stand for many."""
    if not isinstance(node.value, list):
        return wrong_type("a list", node, path, report)
    ports: list[Node] = []
    for index, item in enumerate(node.value):
        place = f"{path}[{index}]"
        value = item.value
        if isinstance(value, dict):
            ports.append(_LONG_PORT.read(item, place, report))
        elif isinstance(value, (int, str)) and not isinstance(value, bool):
            try:
                ports.extend(_lift_ports(parse_port(str(value)), item))
                if len(ports) > MAX_PORTS:
                    raise ShortSyntaxError(f"more than {MAX_PORTS} ports of one service")
            except ShortSyntaxError as error:
                wrong_value(str(error), item, place, report)
                if report.templates:
                    ports.append(item)
        else:
            wrong_type("a port, a string or a mapping", item, place, report)
    return Node(ports, node.pos, None, node.tag)


def _one_of(kinds: Mapping[str, str], fields: Obj) -> Custom:
    """A mount: settings that belong to another type than the mount's are reported."""

    def read(node: Node, path: str, report: Report) -> Node:
        done = fields.read(node, path, report)
        kind = mapping(done).get("type")
        for key, needed in kinds.items():
            if (
                kind is not None
                and key in mapping(done)
                and kind.text() in kinds.values()
                and kind.text() != needed
            ):
                report.warn(
                    f'"{key}" is ignored for a mount of type {kind.text()}', path, done.key_position(key)
                )
        return done

    return Custom(fields.expected, read, fields)


MOUNT = Obj(
    {
        "type": Enum("bind", "volume", "tmpfs", "cluster", "npipe", "image"),
        "source": _TEXT,
        "target": _TEXT,
        "read_only": _BOOL,
        "consistency": _TEXT,
        "bind": Obj(
            {
                "propagation": _TEXT,
                "create_host_path": _BOOL,
                "recursive": Enum("enabled", "disabled", "writable", "readonly"),
                "selinux": Enum("z", "Z"),
            }
        ),
        "volume": Obj({"labels": _LABELS, "nocopy": _BOOL, "subpath": _TEXT}),
        "tmpfs": Obj(
            {
                "size": Size(negative=False),
                "mode": Custom("a file mode", lambda n, p, r: _number_mode(n, p, r)),
            }
        ),
        "image": Obj({"subpath": _TEXT}),
    },
    required=("type",),
)


def _number_mode(node: Node, path: str, report: Report) -> Node:
    """tmpfs mode: canonical is the number, as Compose prints it."""
    done = read_mode(node, path, report)
    return done.replaced(int(done.value, 8)) if isinstance(done.value, str) and done is not node else done


_VOLUMES = ListOf(
    ShortOrObj(
        "a string or a mapping",
        read_volume,
        _one_of({"bind": "bind", "tmpfs": "tmpfs", "volume": "volume", "image": "image"}, MOUNT),
    ),
)

DEVICE = Obj(
    {"source": _TEXT, "target": _TEXT, "permissions": Text("^[rwm]+$", "made of r, w and m")}, ("source",)
)


def _read_long_device(node: Node, path: str, report: Report) -> Node:
    done = DEVICE.read(node, path, report)
    source = mapping(done).get("source")
    if isinstance(done.value, dict) and source is not None and "target" not in done.value:
        return done.replaced({**done.value, "target": source})
    return done


_DEVICES = ListOf(
    ShortOrObj("a string or a mapping", read_device, Custom("a mapping", _read_long_device, DEVICE))
)

FILE_MOUNT = Obj({"source": _TEXT, "target": _TEXT, "uid": _TEXT, "gid": _TEXT, "mode": _MODE})


def _file_mounts(directory: str) -> ListOf:
    """Secrets or configs of a service; `directory` is where the target is by default ("" says nothing)."""

    def finish(node: Node) -> Node:
        entries = mapping(node)
        source = entries.get("source")
        if directory and source is not None and isinstance(source.value, str) and "target" not in entries:
            target = source.replaced(f"{directory}/{source.value}")
            return node.replaced({**entries, "target": target})
        return node

    def short(node: Node, _text: str, _path: str, _report: Report) -> Node:
        return finish(Node({"source": node}, node.pos, {"source": node.pos}))

    def long(node: Node, path: str, report: Report) -> Node:
        return finish(FILE_MOUNT.read(node, path, report))

    return ListOf(ShortOrObj("a name or a mapping", short, Custom("a mapping", long, FILE_MOUNT)))


def _read_count(node: Node, path: str, report: Report) -> Node:
    if node.value == "all":
        return node.replaced(-1)
    return Int(low=-1).read(node, path, report)


_DEVICE_FIELDS: dict[str, Shape] = {
    "capabilities": _STRINGS,
    "count": Custom('a number or "all"', _read_count),
    "device_ids": _STRINGS,
    "driver": _TEXT,
    "options": _LABELS,
}
DEVICE_REQUEST = Obj(_DEVICE_FIELDS, required=("capabilities",))
GPU_REQUEST = Obj(_DEVICE_FIELDS, open_ended=True)


def _read_request(fields: Obj) -> Custom:
    def read(node: Node, path: str, report: Report) -> Node:
        done = fields.read(node, path, report)
        entries = mapping(done)
        if "count" in entries and "device_ids" in entries:
            report.error('"count" and "device_ids" exclude each other', path, done.key_position("count"))
        elif isinstance(done.value, dict) and "count" not in entries and "device_ids" not in entries:
            return done.replaced({**entries, "count": Node(-1, done.pos)})
        return done

    return Custom("a mapping", read, fields)


def _read_gpus(node: Node, path: str, report: Report) -> Node:
    if isinstance(node.value, str):
        if node.value != "all":
            return wrong_value(f'"{shown(node.value)}" is not "all" or a list', node, path, report)
        return lift([{"count": -1}], node)
    return ListOf(_read_request(GPU_REQUEST)).read(node, path, report)


ULIMIT = Obj({"soft": Int(), "hard": Int()}, required=("soft", "hard"))


def _read_ulimit(node: Node, path: str, report: Report) -> Node:
    if isinstance(node.value, dict):
        return ULIMIT.read(node, path, report)
    return Int().read(node, path, report)


_ULIMITS = MapOf(Custom("a number or a mapping", _read_ulimit, ULIMIT))


def _read_env_file(node: Node, path: str, report: Report) -> Node:
    """Environment files as a list of mappings."""
    items = node.value if isinstance(node.value, list) else [node]
    if isinstance(node.value, dict) or node.value is None:
        return wrong_type("a string or a list", node, path, report)
    files: list[Node] = []
    for index, item in enumerate(items):
        place = f"{path}[{index}]" if isinstance(node.value, list) else path
        if isinstance(item.value, str):
            files.append(Node({"path": item, "required": Node(True, item.pos)}, item.pos))
        elif isinstance(item.value, dict):
            files.append(_LONG_ENV_FILE.read(item, place, report))
        else:
            wrong_type("a string or a mapping", item, place, report)
    return Node(files, node.pos, None, node.tag)


ENV_FILE = Obj({"path": _TEXT, "required": _BOOL, "format": Enum("raw", "")}, ("path",), extensions=False)
_LONG_ENV_FILE = _with_defaults(ENV_FILE, {"required": True})

HOOK = Obj(
    {
        "command": _COMMAND,
        "user": _TEXT,
        "privileged": _BOOL,
        "working_dir": _TEXT,
        "environment": MapOrList(None),
    },
    required=("command",),
)


def _read_ssh(node: Node, path: str, report: Report) -> Node:
    """SSH agents and keys as a list of `id` or `id=path`."""
    value = node.value
    if isinstance(value, dict):
        read = MapOrList(None).read(node, path, report)
        items = [
            child.replaced(key if child.value is None else f"{key}={child.value}")
            for key, child in mapping(read).items()
        ]
        return Node(items, node.pos, None, node.tag)
    return ListOf(_TEXT, "refused", scalar=True).read(node, path, report)


# ------------------------------------------------------------------------------------------ services

BUILD = Obj(
    {
        "context": _TEXT,
        "dockerfile": _TEXT,
        "dockerfile_inline": _TEXT,
        "entitlements": _ANY_STRINGS,
        "args": MapOrList(None),
        "ssh": Custom("a list or a mapping", _read_ssh),
        "labels": _LABELS,
        "cache_from": _ANY_STRINGS,
        "cache_to": _ANY_STRINGS,
        "no_cache": _BOOL,
        "no_cache_filter": _STRING_OR_LIST,
        "additional_contexts": MapOrList(""),
        "network": _TEXT,
        "provenance": AnyScalarText(booleans=True),
        "sbom": AnyScalarText(booleans=True),
        "pull": _BOOL,
        "target": _TEXT,
        "shm_size": Size(),
        "extra_hosts": Custom("a mapping or a list", read_extra_hosts),
        "isolation": _TEXT,
        "privileged": _BOOL,
        "secrets": _file_mounts(""),
        "tags": _ANY_STRINGS,
        "ulimits": _ULIMITS,
        "platforms": _ANY_STRINGS,
    }
)


def _short_build(node: Node, _text: str, _path: str, _report: Report) -> Node:
    return Node({"context": node}, node.pos, {"context": node.pos}, node.tag)


BLKIO_LIMIT = Obj({"path": _TEXT, "rate": Size()}, extensions=False)
BLKIO_WEIGHT = Obj({"path": _TEXT, "weight": Int()}, extensions=False)
_LIMITS = ListOf(BLKIO_LIMIT)
BLKIO = Obj(
    {
        "device_read_bps": _LIMITS,
        "device_read_iops": _LIMITS,
        "device_write_bps": _LIMITS,
        "device_write_iops": _LIMITS,
        "weight": Int(),
        "weight_device": ListOf(BLKIO_WEIGHT),
    },
    extensions=False,
)

HEALTHCHECK = Obj(
    {
        "disable": _BOOL,
        "interval": Duration(),
        "retries": Int(low=0, floats=True),
        "test": Custom("a string or a list", read_test),
        "timeout": Duration(),
        "start_period": Duration(),
        "start_interval": Duration(),
    }
)
LOGGING = Obj({"driver": _TEXT, "options": MapOf(AnyScalarText(nullable=True))})
CREDENTIAL_SPEC = Obj({"config": _TEXT, "file": _TEXT, "registry": _TEXT})
EXTENDS = Obj({"service": _TEXT, "file": _TEXT}, required=("service",), extensions=False)


def _short_extends(node: Node, _text: str, _path: str, _report: Report) -> Node:
    return Node({"service": node}, node.pos, {"service": node.pos})


WATCH = Obj(
    {
        "ignore": _STRING_OR_LIST,
        "include": _STRING_OR_LIST,
        "path": _TEXT,
        "action": Enum("rebuild", "sync", "restart", "sync+restart", "sync+exec"),
        "target": _TEXT,
        "exec": HOOK,
        "initial_sync": Bool(strict=True),
    },
    required=("path", "action"),
)
DEVELOP = Obj({"watch": ListOf(WATCH)}, nullable=True)

_UPDATE_FIELDS: dict[str, Shape] = {
    "parallelism": Int(low=0),
    "delay": Duration(),
    "failure_action": Enum("pause", "continue", "rollback"),
    "monitor": Duration(),
    "max_failure_ratio": Float(low=0),
    "order": Enum("start-first", "stop-first"),
}
UPDATE_CONFIG = Obj(_UPDATE_FIELDS)
GENERIC_RESOURCE = Obj(
    {"discrete_resource_spec": Obj({"kind": _TEXT, "value": Int(floats=True)})},
)
RESOURCES = Obj(
    {
        "limits": Obj({"cpus": Float(low=0), "memory": Size(numbers=False), "pids": Int()}),
        "reservations": Obj(
            {
                "cpus": Float(low=0),
                "memory": Size(numbers=False),
                "generic_resources": ListOf(GENERIC_RESOURCE),
                "devices": ListOf(_read_request(DEVICE_REQUEST)),
            }
        ),
    }
)
DEPLOY = Obj(
    {
        "mode": Enum("replicated", "global", "replicated-job", "global-job"),
        "endpoint_mode": Enum("vip", "dnsrr"),
        "replicas": Int(low=0),
        "labels": _LABELS,
        "rollback_config": Obj({**_UPDATE_FIELDS, "failure_action": Enum("pause", "continue")}),
        "update_config": UPDATE_CONFIG,
        "resources": RESOURCES,
        "restart_policy": Obj(
            {
                "condition": Enum("none", "on-failure", "any"),
                "delay": Duration(),
                "max_attempts": Int(low=0),
                "window": Duration(),
            }
        ),
        "placement": Obj(
            {
                "constraints": _ANY_STRINGS,
                "preferences": ListOf(Obj({"spread": _TEXT})),
                "max_replicas_per_node": Int(low=0),
            }
        ),
    },
    nullable=True,
)


def _provider_options(node: Node, path: str, report: Report) -> Node:
    if not isinstance(node.value, dict):
        return wrong_type("a mapping", node, path, report)
    item = AnyScalarText(booleans=True)
    entries = {
        key: ListOf(item).read(
            child if isinstance(child.value, list) else Node([child], child.pos), f"{path}.{key}", report
        )
        for key, child in node.value.items()
    }
    return node.replaced(entries)


PROVIDER = Obj({"type": _TEXT, "options": Custom("a mapping", _provider_options)}, required=("type",))


def _read_dns(node: Node, path: str, report: Report) -> Node:
    """Name servers; empty ones, from variables that are not set, do not count."""
    done = _WORD_OR_LIST.read(node, path, report)
    if not isinstance(done.value, list):
        return done
    return done.replaced([item for item in done.value if item.value != ""])


_PULL_POLICY = r"^(always|never|build|if_not_present|missing|refresh|daily|weekly|every_([0-9]+[wdhms])+)$"
_RESTART = r"^(|no|always|unless-stopped|on-failure(:\d+)?)$"


def _read_restart(node: Node, path: str, report: Report) -> Node:
    if node.value is False:
        return wrong_type("a string", node, path, report, ': write "no" in quotes')
    return Text(_RESTART, "one of no, always, on-failure[:times], unless-stopped").read(node, path, report)


# ------------------------------------------------------------------------------------------ x-pyswarm


def _fraction(node: Node, path: str, report: Report) -> Node:
    """A part of the whole: 0.7 or "70%"."""
    if isinstance(node.value, str) and re.fullmatch(r"\d{1,4}(\.\d+)?%", node.value):
        return node.replaced(float(node.value[:-1]) / 100)
    return Float(low=0).read(node, path, report)


_FRACTION = Custom('a fraction such as 0.7 or "70%"', _fraction)
SCHEDULE = Obj(
    {
        "schedule": _TEXT,
        "cron": _TEXT,
        "time_zone": _TEXT,
        "concurrency": Enum("allow", "forbid", "replace"),
        "history": Int(low=0),
        "starting_deadline": Duration(),
    },
    extensions=False,
)


def _short_schedule(node: Node, _text: str, _path: str, _report: Report) -> Node:
    return Node({"schedule": node}, node.pos, {"schedule": node.pos})


AUTOSCALE = Obj(
    {
        "min": Int(low=0),
        "max": Int(low=1),
        "cpu": _FRACTION,
        "memory": _FRACTION,
        "metric": Enum(*AUTOSCALE_METRICS),
        "target": Float(low=0),
        "cooldown": Duration(),
    },
    extensions=False,
)
X_PYSWARM = Obj(
    {
        "schedule": ShortOrObj("a cron expression or a mapping", _short_schedule, SCHEDULE),
        "autoscale": AUTOSCALE,
        "volumes_per_slot": _BOOL,
        "volumes_move_after": Duration(),
        "rebalance": Enum("off", "gentle"),
        "placement_strategy": Enum("spread", "binpack"),
        "progress_deadline": Duration(),
        "restart_max_delay": Duration(),
    },
    extensions=False,
)

_REMOVED = {
    "log_driver": 'write "logging.driver"',
    "log_opt": 'write "logging.options"',
    "net": 'write "network_mode"',
    "dockerfile": 'write "build.dockerfile"',
    "volume_driver": 'write "driver" under the top-level "volumes"',
    "cpu_quota_period": 'write "cpu_period"',
}

SERVICE = Obj(
    {
        "develop": DEVELOP,
        "deploy": DEPLOY,
        "annotations": _LABELS,
        "attach": _BOOL,
        "build": ShortOrObj("a path or a mapping", _short_build, BUILD),
        "blkio_config": BLKIO,
        "cap_add": _WORDS,
        "cap_drop": _WORDS,
        "cgroup": Enum("host", "private"),
        "cgroup_parent": _TEXT,
        "command": _COMMAND,
        "configs": _file_mounts(""),
        "container_name": Text("[a-zA-Z0-9][a-zA-Z0-9_.-]+", "a container's name"),
        "cpu_count": Int(low=0),
        "cpu_percent": Float(low=0),
        "cpu_shares": Int(floats=True),
        "cpu_quota": Int(floats=True),
        "cpu_period": Microseconds(),
        "cpu_rt_period": Microseconds(),
        "cpu_rt_runtime": Microseconds(),
        "cpus": Float(low=0),
        "cpuset": _TEXT,
        "credential_spec": CREDENTIAL_SPEC,
        "depends_on": _DEPENDS_ON,
        "device_cgroup_rules": _STRINGS,
        "devices": _DEVICES,
        "dns": Custom("a string or a list", _read_dns),
        "dns_opt": _WORDS,
        "dns_search": _WORD_OR_LIST,
        "domainname": _TEXT,
        "entrypoint": _COMMAND,
        "env_file": Custom("a string or a list", _read_env_file, ListOf(ENV_FILE)),
        "label_file": ListOf(_TEXT, scalar=True),
        "environment": MapOrList(None),
        "expose": ListOf(AnyScalarText(), "dropped"),
        "extends": ShortOrObj("a service or a mapping", _short_extends, EXTENDS),
        "provider": PROVIDER,
        "external_links": _STRINGS,
        "extra_hosts": Custom("a mapping or a list", read_extra_hosts),
        "gpus": Custom('"all" or a list', _read_gpus, ListOf(GPU_REQUEST)),
        "group_add": ListOf(AnyScalarText(), "refused"),
        "healthcheck": HEALTHCHECK,
        "hostname": _TEXT,
        "image": _TEXT,
        "init": _BOOL,
        "ipc": _TEXT,
        "isolation": _TEXT,
        "labels": _LABELS,
        "links": _WORDS,
        "logging": LOGGING,
        "mac_address": _TEXT,
        "mem_limit": Size(),
        "mem_reservation": Size(floats=False),
        "mem_swappiness": Size(floats=False),
        "memswap_limit": Size(),
        "network_mode": _TEXT,
        "models": _SERVICE_MODELS,
        "networks": _SERVICE_NETWORKS,
        "oom_kill_disable": _BOOL,
        "oom_score_adj": Int(low=-1000, high=1000),
        "pid": Text(nullable=True),
        "pids_limit": Int(floats=True),
        "platform": _TEXT,
        "ports": Custom("a list", _read_ports, ListOf(PORT)),
        "post_start": ListOf(HOOK),
        "pre_stop": ListOf(HOOK),
        "privileged": _BOOL,
        "profiles": _WORDS,
        "pull_policy": Text(
            _PULL_POLICY, "a pull policy (always, never, missing, build, daily, weekly, every_<time>)"
        ),
        "pull_refresh_after": _TEXT,
        "read_only": _BOOL,
        "restart": Custom("a string", _read_restart),
        "runtime": _TEXT,
        "scale": Int(low=0),
        "security_opt": _STRINGS,
        "shm_size": Size(),
        "secrets": _file_mounts("/run/secrets"),
        "sysctls": _LABELS,
        "stdin_open": _BOOL,
        "stop_grace_period": Duration(),
        "stop_signal": _TEXT,
        "storage_opt": MapOf(AnyScalarText(nullable=True, booleans=True)),
        "tmpfs": _WORD_OR_LIST,
        "tty": _BOOL,
        "ulimits": _ULIMITS,
        "use_api_socket": Bool(strict=True),
        "user": _TEXT,
        "uts": _TEXT,
        "userns_mode": _TEXT,
        "volumes": _VOLUMES,
        "volumes_from": _STRINGS,
        "working_dir": _TEXT,
        "x-pyswarm": X_PYSWARM,
    },
    deprecated=_REMOVED,
)

# --------------------------------------------------------------------------------------- other nouns


def _maybe_external(fields: Obj, kind: str) -> Custom:
    """A network, volume, secret or config. `external: {name: x}`, the old form, becomes two keys."""

    def read(node: Node, path: str, report: Report) -> Node:
        done = fields.read(node, path, report)
        entries = mapping(done)
        external = entries.get("external")
        if external is None:
            return done
        if isinstance(external.value, dict):
            report.warn(
                f'"external.name" is deprecated: write "name" beside "external: true" for the {kind}',
                path,
                external.pos,
            )
            name = external.value.get("name")
            named = entries.get("name")
            if name is not None and named is not None and name.value != named.value:
                report.error('"name" and "external.name" differ', path, done.key_position("name"))
            entries = {**entries, "external": external.replaced(True)}
            if name is not None:
                entries["name"] = name
        return done.replaced(entries)

    return Custom(fields.expected, read, fields)


def _read_external(open_ended: bool) -> Custom:
    old = Obj({"name": _TEXT}, open_ended=open_ended)

    def read(node: Node, path: str, report: Report) -> Node:
        if isinstance(node.value, dict):
            return old.read(node, path, report)
        return _BOOL.read(node, path, report)

    return Custom("true or false", read)


_AUX = MapOf(_TEXT)
NETWORK = Obj(
    {
        "name": _TEXT,
        "driver": _TEXT,
        "driver_opts": _OPTIONS,
        "ipam": Obj(
            {
                "driver": _TEXT,
                "config": ListOf(
                    Obj({"subnet": _TEXT, "ip_range": _TEXT, "gateway": _TEXT, "aux_addresses": _AUX})
                ),
                "options": _AUX,
            }
        ),
        "external": _read_external(False),
        "internal": _BOOL,
        "enable_ipv4": _BOOL,
        "enable_ipv6": _BOOL,
        "attachable": _BOOL,
        "labels": _LABELS,
    },
    nullable=True,
)
VOLUME = Obj(
    {
        "name": _TEXT,
        "driver": _TEXT,
        "driver_opts": _OPTIONS,
        "external": _read_external(False),
        "labels": _LABELS,
    },
    nullable=True,
)
SECRET = Obj(
    {
        "name": _TEXT,
        "environment": _TEXT,
        "file": _TEXT,
        "external": _read_external(True),
        "labels": _LABELS,
        "driver": _TEXT,
        "driver_opts": _OPTIONS,
        "template_driver": _TEXT,
        "content": _TEXT,
    }
)
CONFIG = Obj(
    {
        "name": _TEXT,
        "content": _TEXT,
        "environment": _TEXT,
        "file": _TEXT,
        "external": _read_external(True),
        "labels": _LABELS,
        "template_driver": _TEXT,
    }
)
MODEL = Obj(
    {"name": _TEXT, "model": _TEXT, "context_size": Int(strings=False), "runtime_flags": _ANY_STRINGS},
    required=("model",),
)

INCLUDE = Obj(
    {"path": _STRING_OR_LIST, "env_file": _STRING_OR_LIST, "project_directory": _TEXT},
    extensions=False,
)


def _short_include(node: Node, _text: str, _path: str, _report: Report) -> Node:
    return Node({"path": Node([node], node.pos)}, node.pos, {"path": node.pos})


_VERSION = Text()

PROJECT = Obj(
    {
        "version": _VERSION,
        "name": _TEXT,
        "include": ListOf(ShortOrObj("a path or a mapping", _short_include, INCLUDE), nullable=True),
        "services": MapOf(SERVICE, NAME, _NAME_WHAT),
        "models": MapOf(MODEL, NAME, _NAME_WHAT),
        "networks": MapOf(_maybe_external(NETWORK, "network"), NAME, _NAME_WHAT),
        "volumes": MapOf(_maybe_external(VOLUME, "volume"), NAME, _NAME_WHAT),
        "secrets": MapOf(_maybe_external(SECRET, "secret"), NAME, _NAME_WHAT),
        "configs": MapOf(_maybe_external(CONFIG, "config"), NAME, _NAME_WHAT),
    }
)
"""The root of a Compose file."""


def canonical(root: Node, report: Report) -> Node:
    """One file's tree, checked and in canonical form."""
    if not isinstance(root.value, dict):
        report.error("the file must hold a mapping with services", "", root.pos)
        return root.replaced({})
    done = PROJECT.read(root, "", report)
    version = done.get("version")
    if version is not None and isinstance(done.value, dict):
        report.warn('"version" is obsolete and ignored: remove it', "version", root.key_position("version"))
        done = done.replaced({key: child for key, child in done.value.items() if key != "version"})
    return done
