"""A task as an OCI runtime configuration (config.json): pure.

`build` gives what Docker gives a container of the same options, so that images behave alike: its default
devices and mounts, masked and read-only paths, capabilities and device rules. Field names and meanings are
those of the OCI runtime specification 1.0.2; defaults are those of Docker Engine.

What the machine cannot do is an `Invalid` where the container would not be what was asked for, and a warning
(in `Bundle.warnings`) where Docker only warns as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from node_agent.ports import BindMount, Launch
from node_agent.runtime import capabilities, cgroups
from node_agent.runtime.cgroups import CgroupLayout
from pyswarm.errors import Invalid
from pyswarm.specs import BlkioDevice, ContainerSpec, DeviceMapping, ResourceRequirements

Json = dict[str, Any]  # a JSON document's own shape

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHM = 64 << 20
INIT_TARGET = "/sbin/docker-init"
INFINITY = (1 << 64) - 1
CPU_PERIOD = 100_000

MASKED: tuple[str, ...] = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READ_ONLY: tuple[str, ...] = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def _mount(target: str, kind: str, source: str, *options: str) -> Json:
    return {"destination": target, "type": kind, "source": source, "options": list(options)}


_PROC = _mount("/proc", "proc", "proc", "nosuid", "noexec", "nodev")
_DEV = _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k")
_DEVPTS = _mount(
    "/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"
)
_SYS = _mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", "ro")
_CGROUP = _mount("/sys/fs/cgroup", "cgroup", "cgroup", "ro", "nosuid", "noexec", "nodev")
_MQUEUE = _mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev")
_SYS_RW = _mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", "rw")
_CGROUP_RW = _mount("/sys/fs/cgroup", "cgroup", "cgroup", "rw", "nosuid", "noexec", "nodev")
_HOST_SHM = _mount("/dev/shm", "bind", "/dev/shm", "rbind")


def _allow(access: str, kind: str = "a", major: int | None = None, minor: int | None = None) -> Json:
    rule: Json = {"allow": True, "access": access}
    if kind != "a":
        rule["type"] = kind
    if major is not None:
        rule["major"] = major
    if minor is not None:
        rule["minor"] = minor
    return rule


_DENY_ALL: Json = {"allow": False, "access": "rwm"}
_DEVICE_RULES: tuple[Json, ...] = (
    _DENY_ALL,
    _allow("m", "c"),
    _allow("m", "b"),
    _allow("rwm", "c", 1, 3),  # null
    _allow("rwm", "c", 1, 5),  # zero
    _allow("rwm", "c", 1, 7),  # full
    _allow("rwm", "c", 1, 8),  # random
    _allow("rwm", "c", 1, 9),  # urandom
    _allow("rwm", "c", 5, 0),  # tty
    _allow("rwm", "c", 5, 1),  # console
    _allow("rwm", "c", 5, 2),  # ptmx
    _allow("rwm", "c", 136),  # pts
)
_STANDARD_DEVICES = frozenset(
    f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty", "console", "ptmx")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceNode:
    """A device as stat(2) of the node shows it."""

    path: str
    kind: str
    """`c` or `b`."""
    major: int
    minor: int
    mode: int = 0o660
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What of the machine and of the agent's own rights decides a configuration."""

    capabilities: frozenset[str] = frozenset(capabilities.ALL)
    """What the agent holds and can so give away."""
    hard_limits: Mapping[str, int] | None = None
    """The agent's hard limits by RLIMIT name, where it may not raise them (no CAP_SYS_RESOURCE)."""
    oom_score_adj_min: int = -1000
    """No lower value can be set."""
    apparmor: bool = False
    sysctls: frozenset[str] = frozenset()
    """Which of DEFAULT_SYSCTLS this kernel has."""
    init: str = ""
    """Path of the static init program; "" when there is none."""


DEFAULT_SYSCTLS: Mapping[str, str] = {
    "net.ipv4.ip_unprivileged_port_start": "0",
    "net.ipv4.ping_group_range": "0 2147483647",
}
"""Docker's: with a namespace of its own, any process may listen on port 80 and send a ping."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A configuration but for its seccomp part, which is pasted in as text by `text`."""

    config: Json
    """`linux` is its last key."""
    seccomp: str | None
    """None is unconfined, "" the default profile, else a profile's content."""
    capabilities: frozenset[str]
    cgroup: str
    """The container's cgroup, absolute inside each hierarchy."""
    warnings: tuple[str, ...] = ()

    def text(self, seccomp: str = "") -> str:
        """config.json with this JSON text as `linux.seccomp`."""
        text = json.dumps(self.config, separators=(",", ":"), ensure_ascii=False)
        return f'{text[:-2]},"seccomp":{seccomp}}}}}' if seccomp else text


@dataclass(frozen=True, slots=True)
class _Security:
    """`security_opt`, read."""

    seccomp: str | None = ""
    apparmor: str = ""
    unmasked: bool = False
    no_new_privileges: bool = False
    writable_cgroups: bool = False


@dataclass(slots=True)
class _Context:
    """What every part of the configuration may look at."""

    launch: Launch
    cgroup: CgroupLayout
    systemd: bool
    host: Host
    devices: Mapping[str, Sequence[DeviceNode]]
    security: _Security = field(default_factory=_Security)
    warnings: list[str] = field(default_factory=list[str])

    @property
    def spec(self) -> ContainerSpec:
        return self.launch.task.spec.container

    @property
    def resources(self) -> ResourceRequirements:
        return self.launch.task.spec.resources


def device_paths(launch: Launch) -> tuple[str, ...]:
    """Paths of the node that must be looked up (stat) before `build`; `/dev` stands for every device."""
    container, resources = launch.task.spec.container, launch.task.spec.resources
    if not (
        container.privileged
        or container.devices
        or resources.blkio_weight_device
        or resources.blkio_read_bps
        or resources.blkio_write_bps
        or resources.blkio_read_iops
        or resources.blkio_write_iops
    ):
        return ()
    paths = ["/dev"] if container.privileged else []
    paths += [device.path_on_host for device in container.devices]
    for group in (
        resources.blkio_weight_device,
        resources.blkio_read_bps,
        resources.blkio_write_bps,
        resources.blkio_read_iops,
        resources.blkio_write_iops,
    ):
        paths += [device.path for device in group]
    return tuple(dict.fromkeys(paths))


def build(
    launch: Launch,
    *,
    cgroup: CgroupLayout,
    systemd: bool = False,
    host: Host | None = None,
    devices: Mapping[str, Sequence[DeviceNode]] | None = None,
) -> Bundle:
    """The configuration of a task's container.

    `devices` maps each of `device_paths(launch)` to the devices found there (several for a directory, none
    when it does not exist). Raises Invalid, naming the field, for what cannot be had.
    """
    context = _Context(launch, cgroup, systemd, host or Host(), devices or {})
    spec = launch.task.spec.container
    _refuse_unsupported(spec)
    context.security = _security(context)
    caps = capabilities.effective(
        spec.cap_add, spec.cap_drop, privileged=spec.privileged, available=context.host.capabilities
    )
    parent = spec.cgroup_parent or launch.cgroup_parent
    config: Json = {
        "ociVersion": "1.0.2",
        "process": _process(context, caps),
        "root": {"path": str(launch.rootfs), "readonly": spec.read_only},
        "mounts": _mounts(context),
        "annotations": dict(spec.annotations),
        "linux": _linux(context, cgroups.runtime_path(parent, launch.task.id, systemd=systemd)),
    }
    if spec.uts_mode != "host" and launch.hostname:
        config = {"hostname": launch.hostname, **config}
    return Bundle(
        config=config,
        seccomp=context.security.seccomp,
        capabilities=frozenset(caps),
        cgroup=cgroups.container_path(parent, launch.task.id, systemd=systemd),
        warnings=tuple(context.warnings),
    )


def _refuse_unsupported(spec: ContainerSpec) -> None:
    """Modes that need something a node does not have: better an error than a container of another kind."""
    private = ("", "private", "host")
    for name, value, allowed in (
        ("pid", spec.pids_mode, private),
        ("ipc", spec.ipc_mode, (*private, "shareable", "none")),
        ("uts", spec.uts_mode, private),
        ("cgroup", spec.cgroup_mode, private),
        ("userns_mode", spec.userns_mode, ("", "host")),
        ("isolation", spec.isolation, ("", "default")),
    ):
        if value not in allowed:
            choices = ", ".join(f"`{choice}`" for choice in allowed if choice)
            raise Invalid(f"{name}: {value!r} is not supported: use {choices} or leave it out")
    if spec.device_requests:
        raise Invalid(
            "device_requests: no device driver on this node takes them: name the devices in `devices`"
        )


# ---------------------------------------------------------------------------------------------- security


def _security(context: _Context) -> _Security:
    spec = context.spec
    seccomp: str | None = None if spec.privileged else ""
    apparmor, unmasked, writable = "", spec.privileged, spec.privileged
    no_new_privileges = spec.no_new_privileges
    for index, option in enumerate(spec.security_opt):
        name, value = _option(option)
        where = f"security_opt[{index}]"
        if name == "seccomp":
            seccomp = _seccomp_choice(value, where)
        elif name == "apparmor":
            apparmor = _apparmor_choice(context, value, where)
        elif name == "label":
            if value != "disable":
                context.warnings.append(f"{where}: SELinux labels are not applied on this node")
        elif name == "systempaths" and value == "unconfined":
            unmasked = True
        elif name == "no-new-privileges" and value in ("", "true", "false"):
            no_new_privileges = value != "false"
        elif name == "writable-cgroups" and value in ("", "true", "false"):
            writable = value != "false"
        else:
            raise Invalid(
                f"{where}: {option!r} is no security option: use seccomp=, apparmor=, label=, "
                "systempaths=unconfined, no-new-privileges or writable-cgroups"
            )
    return _Security(seccomp, apparmor, unmasked, no_new_privileges, writable)


def _option(text: str) -> tuple[str, str]:
    """`name=value`, or Docker's old `name:value`, at whichever comes first."""
    cuts = [position for position in (text.find("="), text.find(":")) if position >= 0]
    if not cuts:
        return text, ""
    return text[: min(cuts)], text[min(cuts) + 1 :]


def _seccomp_choice(value: str, where: str) -> str | None:
    if value == "unconfined":
        return None
    if value in ("builtin", "default"):
        return ""
    if not value.lstrip().startswith("{"):
        raise Invalid(
            f"{where}: seccomp takes `unconfined`, `builtin` or the content of a profile; "
            f"{value!r} is none of them (a file is read where the option is typed, not on the node)"
        )
    return value


def _apparmor_choice(context: _Context, value: str, where: str) -> str:
    if value == "unconfined":
        return ""
    if not context.host.apparmor:
        context.warnings.append(f"{where}: this node has no AppArmor: the profile {value!r} is not applied")
        return ""
    return value


# ---------------------------------------------------------------------------------------------- process


def _process(context: _Context, caps: tuple[str, ...]) -> Json:
    launch, spec = context.launch, context.spec
    uid, gid, groups = launch.user
    process: Json = {
        "terminal": spec.tty,
        "user": {"uid": uid, "gid": gid, "additionalGids": list(_groups(gid, groups))},
        "args": list(_arguments(context)),
        "env": list(environment(launch)),
        "cwd": spec.dir or launch.image.working_dir or "/",
        "capabilities": capability_sets(caps, uid),
        "noNewPrivileges": context.security.no_new_privileges,
        "oomScoreAdj": _oom_score_adj(context),
    }
    if spec.tty:
        process["consoleSize"] = {"height": 24, "width": 80}
    limits = _rlimits(context)
    if limits:
        process["rlimits"] = limits
    if context.security.apparmor:
        process["apparmorProfile"] = context.security.apparmor
    if not process["cwd"].startswith("/"):
        raise Invalid(f"working_dir: {process['cwd']!r} is not absolute: it has to begin with /")
    return process


def _groups(gid: int, groups: tuple[int, ...]) -> tuple[int, ...]:
    """The primary group first, as Docker lists it, each once."""
    return tuple(dict.fromkeys((gid, *groups)))


def capability_sets(caps: Sequence[str], uid: int) -> Json:
    """Docker's sets: none inheritable or ambient (CVE-2022-24769), and for a user other than root only the
    bounding set, as execve(2) would leave it."""
    names = list(caps)
    if uid == 0:
        return {"bounding": names, "effective": names, "permitted": names}
    return {"bounding": names}


def _arguments(context: _Context) -> tuple[str, ...]:
    spec, image = context.spec, context.launch.image
    entrypoint = image.entrypoint if spec.command is None else spec.command
    # An entrypoint of one's own makes the image's CMD void, as with `docker run --entrypoint`.
    inherited = image.cmd if spec.command is None else ()
    argv = (*entrypoint, *(inherited if spec.args is None else spec.args))
    if not argv:
        raise Invalid("command: the image names no command to run: give one with `command` or `entrypoint`")
    if not argv[0]:
        raise Invalid("command: the name of the program is empty")
    return (INIT_TARGET, "--", *argv) if spec.init else argv


def environment(launch: Launch) -> tuple[str, ...]:
    """`NAME=value` each, once: Docker's defaults, then image, `launch.env` and spec, later ones winning.
    A bare `NAME` in the spec removes it."""
    spec = launch.task.spec.container
    values: dict[str, str] = {}
    defaults = [DEFAULT_PATH]
    if launch.hostname:
        defaults.append(f"HOSTNAME={launch.hostname}")
    if spec.tty:
        defaults.append("TERM=xterm")
    for entry in (*defaults, *launch.image.env, *launch.env, *spec.env):
        name, separator, _ = entry.partition("=")
        if separator:
            values[name] = entry
        else:
            values.pop(name, None)
    return tuple(values.values())


def _oom_score_adj(context: _Context) -> int:
    wanted, least = context.spec.oom_score_adj, context.host.oom_score_adj_min
    if not -1000 <= wanted <= 1000:
        raise Invalid(f"oom_score_adj: {wanted} is out of range: write a number from -1000 to 1000")
    if wanted >= least:
        return wanted
    if wanted != 0:
        context.warnings.append(
            f"oom_score_adj: {wanted} is lower than the agent may set without CAP_SYS_RESOURCE: {least} it is"
        )
    return least


def _rlimits(context: _Context) -> list[Json]:
    result: list[Json] = []
    for limit in context.spec.ulimits:
        name = f"RLIMIT_{limit.name.upper()}"
        if name not in RLIMITS:
            raise Invalid(f"ulimits.{limit.name}: there is no such limit: see getrlimit(2) for the names")
        soft = INFINITY if limit.soft < 0 else limit.soft
        hard = INFINITY if limit.hard < 0 else limit.hard
        if soft > hard:
            raise Invalid(
                f"ulimits.{limit.name}: the soft limit {limit.soft} is above the hard one {limit.hard}"
            )
        most = None if context.host.hard_limits is None else context.host.hard_limits.get(name)
        if most is not None and hard > most:
            context.warnings.append(
                f"ulimits.{limit.name}: the agent may not raise its own hard limit {most} "
                f"(no CAP_SYS_RESOURCE): {most} it is instead of {_shown(hard)}"
            )
            hard, soft = most, min(soft, most)
        result.append({"type": name, "hard": hard, "soft": soft})
    return result


def _shown(limit: int) -> str:
    return "unlimited" if limit == INFINITY else str(limit)


_LIMITS = "AS CORE CPU DATA FSIZE LOCKS MEMLOCK MSGQUEUE NICE NOFILE NPROC RSS RTPRIO RTTIME SIGPENDING STACK"
RLIMITS: tuple[str, ...] = tuple(f"RLIMIT_{name}" for name in _LIMITS.split())


# ---------------------------------------------------------------------------------------------- mounts


def _mounts(context: _Context) -> list[Json]:
    """The defaults that the task's own mounts do not replace, then those, then the init program."""
    own = [_user_mount(mount) for mount in context.launch.mounts]
    taken = {str(mount["destination"]) for mount in own}
    result = [mount for mount in _default_mounts(context) if not _replaced(str(mount["destination"]), taken)]
    result += own
    if context.spec.init:
        if not context.host.init:
            raise Invalid("init: this node has no init program: install it with `apt-get install catatonit`")
        result.append(_mount(INIT_TARGET, "bind", context.host.init, "bind", "ro", "rprivate"))
    return result


def _replaced(target: str, taken: set[str]) -> bool:
    return target in taken or ("/dev" in taken and target.startswith("/dev/"))


def _default_mounts(context: _Context) -> list[Json]:
    spec = context.spec
    mounts = [_PROC, _DEV, _DEVPTS, _SYS_RW if spec.privileged else _SYS]
    mounts.append(_CGROUP_RW if context.security.writable_cgroups else _CGROUP)
    mounts.append(_MQUEUE)
    if spec.ipc_mode == "host":
        return [*mounts, _HOST_SHM]
    if spec.ipc_mode != "none":
        size = spec.shm_size or DEFAULT_SHM
        mounts.append(
            _mount("/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777", f"size={size}")
        )
    return mounts


def _user_mount(mount: BindMount) -> Json:
    return _mount(_clean(mount.target), mount.type, mount.source, *mount.options)


def _clean(target: str) -> str:
    return "/" + "/".join(part for part in target.split("/") if part not in ("", "."))


def _root_propagation(mounts: Sequence[BindMount]) -> str:
    """What the root needs so that a mount's own propagation works (as in Docker): empty is the default."""
    options = {option for mount in mounts for option in mount.options}
    if options & {"shared", "rshared"}:
        return "shared"
    return "rslave" if options & {"slave", "rslave"} else ""


# ---------------------------------------------------------------------------------------------- linux


def _linux(context: _Context, cgroups_path: str) -> Json:
    linux: Json = {
        "namespaces": _namespaces(context),
        "cgroupsPath": cgroups_path,
        "resources": _resources(context),
        "sysctl": _sysctls(context),
    }
    nodes = _device_nodes(context)
    if nodes:
        linux["devices"] = [_device_entry(path, node) for path, node, _ in nodes]
    if not context.security.unmasked:
        linux["maskedPaths"] = list(MASKED)
        linux["readonlyPaths"] = list(READ_ONLY)
    propagation = _root_propagation(context.launch.mounts)
    if propagation:
        linux["rootfsPropagation"] = propagation
    return linux


def _namespaces(context: _Context) -> list[Json]:
    launch, spec = context.launch, context.spec
    result: list[Json] = [{"type": "mount"}]
    if launch.netns is not None:
        result.append({"type": "network", "path": str(launch.netns)})
    if spec.uts_mode != "host":
        result.append({"type": "uts"})
    if spec.pids_mode != "host":
        result.append({"type": "pid"})
    if spec.ipc_mode != "host":
        result.append({"type": "ipc"})
    if _private_cgroup(context):
        result.append({"type": "cgroup"})
    return result


def _private_cgroup(context: _Context) -> bool:
    """Docker's default: a cgroup namespace on v2, the host's on v1; privileged ones see the host's."""
    mode = context.spec.cgroup_mode
    if mode == "private" and not context.cgroup.namespaces:
        raise Invalid("cgroup: this kernel has no cgroup namespaces: leave out `cgroup: private`")
    if not mode:
        return context.cgroup.version == "v2" and context.cgroup.namespaces and not context.spec.privileged
    return mode == "private"


def _sysctls(context: _Context) -> dict[str, str]:
    launch, spec = context.launch, context.spec
    values: dict[str, str] = {}
    if launch.netns is not None:
        values = {name: value for name, value in DEFAULT_SYSCTLS.items() if name in context.host.sysctls}
    if spec.domainname:
        if spec.uts_mode == "host":
            raise Invalid("domainname: with `uts: host` the name is the machine's own: leave one of them out")
        values["kernel.domainname"] = spec.domainname
    for name, value in spec.sysctls.items():
        if name.startswith("net.") and launch.netns is None:
            raise Invalid(f"sysctls.{name}: the container has the machine's own network: set it there")
        values[name] = value
    return values


# ---------------------------------------------------------------------------------------------- devices


def _device_nodes(context: _Context) -> list[tuple[str, DeviceNode, str]]:
    """(path in the container, device, permissions), each path once, later entries winning."""
    found: dict[str, tuple[str, DeviceNode, str]] = {}
    if context.spec.privileged:
        for node in context.devices.get("/dev", ()):
            if node.path not in _STANDARD_DEVICES:
                found[node.path] = (node.path, node, "rwm")
    for index, mapping in enumerate(context.spec.devices):
        for path, node in _mapped(context, mapping, f"devices[{index}]"):
            found[path] = (path, node, mapping.permissions)
    return list(found.values())


def _mapped(context: _Context, mapping: DeviceMapping, where: str) -> list[tuple[str, DeviceNode]]:
    source, target = mapping.path_on_host, mapping.path_in_container or mapping.path_on_host
    if not source.startswith("/"):
        raise Invalid(f"{where}: {source!r} is not a path: CDI devices are not available on this node")
    if not target.startswith("/"):
        raise Invalid(f"{where}: the path in the container, {target!r}, has to begin with /")
    if not mapping.permissions or set(mapping.permissions) - set("rwm"):
        raise Invalid(
            f"{where}: permissions {mapping.permissions!r} have to be some of the letters r, w and m"
        )
    nodes = context.devices.get(source, ())
    if not nodes:
        raise Invalid(f"{where}: this node has no device {source}")
    if len(nodes) == 1 and nodes[0].path == source:
        return [(target, nodes[0])]
    return [(target.rstrip("/") + node.path[len(source.rstrip("/")) :], node) for node in nodes]


def _device_entry(path: str, node: DeviceNode) -> Json:
    return {
        "path": path,
        "type": node.kind,
        "major": node.major,
        "minor": node.minor,
        "fileMode": node.mode,
        "uid": node.uid,
        "gid": node.gid,
    }


def _device_rules(context: _Context) -> list[Json]:
    if context.spec.privileged:
        return [_allow("rwm")]
    rules = list(_DEVICE_RULES)
    rules += [_allow(access, node.kind, node.major, node.minor) for _, node, access in _device_nodes(context)]
    return rules + [
        _written_rule(text, f"device_cgroup_rules[{index}]")
        for index, text in enumerate(context.spec.device_cgroup_rules)
    ]


def _written_rule(text: str, where: str) -> Json:
    """`c 13:* rwm`, Docker's form."""
    fields = text.split()
    numbers = fields[1].split(":") if len(fields) == 3 else []
    if (
        len(numbers) != 2
        or fields[0] not in ("a", "b", "c")
        or not all(number == "*" or number.isdecimal() for number in numbers)
        or set(fields[2]) - set("rwm")
    ):
        raise Invalid(f"{where}: {text!r} is no device rule: write it as `c 189:* rwm`")
    major, minor = (None if number == "*" else int(number) for number in numbers)
    return _allow(fields[2], fields[0], major, minor)


# ---------------------------------------------------------------------------------------------- resources


def _resources(context: _Context) -> Json:
    result: Json = {"devices": _device_rules(context)}
    for name, part in (("cpu", _cpu(context)), ("memory", _memory(context)), ("blockIO", _blkio(context))):
        if part:
            result[name] = part
    pids = context.resources.limits.pids
    if pids:
        result["pids"] = {"limit": pids if pids > 0 else -1}
    return result


def _cpu(context: _Context) -> Json:
    wanted = context.resources
    cpu: Json = {}
    if wanted.cpu_shares:
        cpu["shares"] = wanted.cpu_shares
    if wanted.limits.nano_cpus and not wanted.cpu_quota:
        period = wanted.cpu_period or CPU_PERIOD
        cpu["period"] = period
        cpu["quota"] = max(1000, wanted.limits.nano_cpus * period // 1_000_000_000)
    else:
        if wanted.cpu_period:
            cpu["period"] = wanted.cpu_period
        if wanted.cpu_quota:
            cpu["quota"] = wanted.cpu_quota
    if wanted.cpu_rt_period:
        cpu["realtimePeriod"] = wanted.cpu_rt_period
    if wanted.cpu_rt_runtime:
        cpu["realtimeRuntime"] = wanted.cpu_rt_runtime
    if wanted.cpuset_cpus:
        cpu["cpus"] = wanted.cpuset_cpus
    if wanted.cpuset_mems:
        cpu["mems"] = wanted.cpuset_mems
    if (wanted.cpu_rt_period or wanted.cpu_rt_runtime) and not context.cgroup.realtime:
        raise Invalid("cpu_rt_runtime: this node's kernel has no real-time group scheduling: leave it out")
    return cpu


def _memory(context: _Context) -> Json:
    wanted, layout = context.resources, context.cgroup
    memory: Json = {}
    limit = wanted.limits.memory
    if limit:
        memory["limit"] = limit
    reservation = wanted.memory_low or wanted.reservations.memory
    if reservation:
        memory["reservation"] = reservation
    _swap(context, memory, limit)
    if wanted.swappiness is not None and wanted.swappiness != -1:
        if layout.version == "v2":
            context.warnings.append("mem_swappiness: cgroup v2 has no such setting: it is left out")
        elif not 0 <= wanted.swappiness <= 100:
            raise Invalid(
                f"mem_swappiness: {wanted.swappiness} is out of range: write a number from 0 to 100"
            )
        else:
            memory["swappiness"] = wanted.swappiness
    if context.spec.oom_kill_disable:
        if layout.version == "v2":
            context.warnings.append("oom_kill_disable: cgroup v2 has no such setting: it is left out")
        else:
            memory["disableOOMKiller"] = True
    return memory


def _swap(context: _Context, memory: Json, limit: int) -> None:
    """OCI counts memory and swap together; without a word about it Docker allows as much swap as memory."""
    swap = context.resources.swap
    if not limit:
        if swap is not None and swap > 0:
            raise Invalid("memswap_limit: a limit of swap needs a limit of memory beside it")
        return
    if not context.cgroup.swap:
        if swap is not None:
            context.warnings.append("memswap_limit: this node cannot limit swap: it is left out")
        return
    memory["swap"] = limit * 2 if swap is None else -1 if swap < 0 else limit + swap


def _blkio(context: _Context) -> Json:
    wanted = context.resources
    result: Json = {}
    if wanted.blkio_weight or wanted.blkio_weight_device:
        if context.cgroup.blkio_weight:
            if wanted.blkio_weight:
                result["weight"] = wanted.blkio_weight
            if wanted.blkio_weight_device:
                result["weightDevice"] = _per_device(
                    context, wanted.blkio_weight_device, "weight", "blkio_config.weight_device"
                )
        else:
            context.warnings.append(
                "blkio_config.weight: this node's kernel has no I/O weights: it is left out"
            )
    for key, name, group in (
        ("throttleReadBpsDevice", "device_read_bps", wanted.blkio_read_bps),
        ("throttleWriteBpsDevice", "device_write_bps", wanted.blkio_write_bps),
        ("throttleReadIOPSDevice", "device_read_iops", wanted.blkio_read_iops),
        ("throttleWriteIOPSDevice", "device_write_iops", wanted.blkio_write_iops),
    ):
        if group:
            result[key] = _per_device(context, group, "rate", f"blkio_config.{name}")
    return result


def _per_device(context: _Context, group: Sequence[BlkioDevice], value: str, where: str) -> list[Json]:
    result: list[Json] = []
    for index, device in enumerate(group):
        nodes = context.devices.get(device.path, ())
        if not nodes:
            raise Invalid(f"{where}[{index}]: this node has no device {device.path}")
        result.append({"major": nodes[0].major, "minor": nodes[0].minor, value: device.value})
    return result
