"""Docker's Engine API as JSON: objects to what `inspect` prints, and request bodies to specs.

The one translation, for the command line's `inspect` and for the REST API. Names, nesting and units are the
Engine API's (durations in nanoseconds, times as RFC 3339); an answer is a `Struct`, which dumps as a dict,
leaves out what Go's `omitempty` leaves out, and still answers templates about those fields.

What pyswarm has on top of the Engine API travels beside it under the names that `docker run`'s HostConfig or
the Compose Specification use. A client that does not know these fields drops them when it reads, changes and
writes a service; so `service_spec` takes the spec that is being updated and keeps what the body cannot say.

Reference: https://docs.docker.com/reference/api/engine/version/v1.50/
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

from pyswarm.api import InfoResponse
from pyswarm.clock import rfc3339
from pyswarm.errors import (
    Conflict,
    Fatal,
    Invalid,
    NotFound,
    PermissionDenied,
    PyswarmError,
    Unavailable,
)
from pyswarm.gotemplate import Duration, Struct, Time
from pyswarm.objects import (
    Cluster,
    Config,
    Endpoint,
    Meta,
    Network,
    Node,
    NodeState,
    Secret,
    Service,
    Task,
    TaskState,
    UpdateStatus,
    Volume,
)
from pyswarm.specs import (
    ClusterSpec,
    ConfigSpec,
    ContainerSpec,
    Driver,
    EndpointSpec,
    ExternalCA,
    FileReference,
    GenericResource,
    Healthcheck,
    IpamPool,
    Mount,
    NetworkAttachmentSpec,
    NetworkSpec,
    NodeSpec,
    Placement,
    Platform,
    PortConfig,
    ResourceRequirements,
    Resources,
    RestartPolicy,
    SecretSpec,
    ServiceMode,
    ServiceSpec,
    SpreadPreference,
    TaskSpec,
    Ulimit,
    UpdateConfig,
    VolumeSpec,
)

# A JSON document: nothing narrower than Any describes what a client may send.
Json = Mapping[str, Any]
T = TypeVar("T")

HTTP_STATUS: Sequence[tuple[type[PyswarmError], int]] = (
    (Invalid, 400),
    (NotFound, 404),
    (Conflict, 409),
    (PermissionDenied, 403),
    (Unavailable, 503),
    (Fatal, 500),
    (PyswarmError, 500),
)


def http_status(error: PyswarmError) -> int:
    """The Engine API's status code for an error."""
    return next(code for cls, code in HTTP_STATUS if isinstance(error, cls))


# ------------------------------------------------------------------------------------------- building blocks


def nanos(seconds: float) -> Duration:
    """Seconds as the Engine API's integer nanoseconds."""
    return Duration(round(seconds * 1_000_000_000))


def seconds(value: object, where: str) -> float:
    """The Engine API's nanoseconds as seconds. Raises Invalid."""
    return _int(value, where) / 1_000_000_000


def _time(stamp: float) -> Time:
    """RFC 3339 as Go writes it: no digits of a second that say nothing."""
    text = rfc3339(stamp).removesuffix("Z")
    return Time((text.rstrip("0").rstrip(".") if "." in text else text) + "Z")


def _struct(
    go_type: str,
    always: Mapping[str, Any],
    maybe: Mapping[str, Any] | None = None,
    last: Mapping[str, Any] | None = None,
) -> Struct:
    """A struct with `always`, then those of `maybe` that are not empty, then `last`."""
    kept = {name: value for name, value in (maybe or {}).items() if _present(value)}
    zero = {name: value for name, value in (maybe or {}).items() if name not in kept}
    return Struct({**always, **kept, **(last or {})}, zero, go_type)


def _present(value: object) -> bool:
    """Go's omitempty: false, zero, nil and empty are left out; a struct never is."""
    return isinstance(value, Struct) or (value is not None and value != 0 and value not in ("", [], {}))


def _strings(values: Mapping[str, str]) -> dict[str, str]:
    return {key: values[key] for key in sorted(values)}


def _driver(driver: Driver | None, go_type: str = "*swarm.Driver") -> Struct | None:
    if driver is None or (not driver.name and not driver.options):
        return None
    return _struct(go_type, {}, {"Name": driver.name, "Options": _strings(driver.options)})


# What the Engine API has no field for: (attribute of the dataclass, name in JSON).
_CONTAINER_EXTRA = (
    ("pull_policy", "PullPolicy"),
    ("domainname", "Domainname"),
    ("privileged", "Privileged"),
    ("devices", "Devices"),
    ("device_cgroup_rules", "DeviceCgroupRules"),
    ("device_requests", "DeviceRequests"),
    ("shm_size", "ShmSize"),
    ("pids_mode", "PidMode"),
    ("ipc_mode", "IpcMode"),
    ("uts_mode", "UTSMode"),
    ("cgroup_mode", "CgroupnsMode"),
    ("cgroup_parent", "CgroupParent"),
    ("userns_mode", "UsernsMode"),
    ("oom_kill_disable", "OomKillDisable"),
    ("group_add", "GroupAdd"),
    ("storage_opt", "StorageOpt"),
    ("annotations", "Annotations"),
    ("post_start", "PostStart"),
    ("pre_stop", "PreStop"),
    ("mac_address", "MacAddress"),
    ("network_mode", "NetworkMode"),
    ("volumes_from", "VolumesFrom"),
    ("links", "Links"),
    ("attach_first", "AttachFirst"),
)
_RESOURCES_EXTRA = (
    ("swap", "SwapBytes"),
    ("swappiness", "MemorySwappiness"),
    ("cpu_shares", "CpuShares"),
    ("cpu_period", "CpuPeriod"),
    ("cpu_quota", "CpuQuota"),
    ("cpu_rt_period", "CpuRealtimePeriod"),
    ("cpu_rt_runtime", "CpuRealtimeRuntime"),
    ("cpuset_cpus", "CpusetCpus"),
    ("cpuset_mems", "CpusetMems"),
    ("blkio_weight", "BlkioWeight"),
    ("blkio_weight_device", "BlkioWeightDevice"),
    ("blkio_read_bps", "BlkioDeviceReadBps"),
    ("blkio_write_bps", "BlkioDeviceWriteBps"),
    ("blkio_read_iops", "BlkioDeviceReadIOps"),
    ("blkio_write_iops", "BlkioDeviceWriteIOps"),
    ("memory_low", "MemoryReservation"),
)
_ATTACHMENT_EXTRA = (
    ("addresses", "Addresses"),
    ("mac_address", "MacAddress"),
    ("priority", "Priority"),
    ("gw_priority", "GwPriority"),
    ("interface_name", "InterfaceName"),
)
_RESTART_EXTRA = (("max_delay", "MaxDelay"),)
_UPDATE_EXTRA = (("progress_deadline", "ProgressDeadline"),)
_PLACEMENT_EXTRA = (("strategy", "Strategy"),)
_PORT_EXTRA = (("host_ip", "HostIP"), ("app_protocol", "AppProtocol"))
_TASK_EXTRA = (("runtime", "OCIRuntime"),)
_SERVICE_EXTRA = (
    ("depends_on", "DependsOn"),
    ("cron", "Cron"),
    ("autoscale", "Autoscale"),
    ("volumes_per_slot", "VolumesPerSlot"),
    ("volumes_move_after", "VolumesMoveAfter"),
    ("rebalance", "Rebalance"),
    ("stopped", "Stopped"),
)
_CLUSTER_EXTRA = (
    ("rebalance", "Rebalance"),
    ("heartbeat_grace", "HeartbeatGrace"),
    ("ingress_node_selector", "IngressNodeSelector"),
)
_SECONDS = frozenset(
    ("max_delay", "progress_deadline", "starting_deadline", "cooldown", "volumes_move_after")
)
_SPELLING = {"path_on_host": "PathOnHost", "device_ids": "DeviceIDs", "cpu": "CPU"}


def _camel(name: str) -> str:
    return _SPELLING.get(name) or "".join(part.capitalize() for part in name.split("_"))


def _extra(value: object, table: Iterable[tuple[str, str]]) -> dict[str, Any]:
    return {name: _plain(attribute, getattr(value, attribute)) for attribute, name in table}


def _plain(name: str, value: object) -> Any:
    """A value of the domain as JSON, by the general rule: CamelCase names, tuples as lists."""
    if isinstance(value, float) and name in _SECONDS:
        return nanos(value)
    if isinstance(value, tuple):
        return [_plain(name, each) for each in cast("tuple[object, ...]", value)]
    if isinstance(value, Mapping):
        return _strings(cast("Mapping[str, str]", value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return Struct({_camel(key): _plain(key, each) for key, each in fields.items()})
    return value


def _read_extra(cls: type[Any], body: Json, table: Iterable[tuple[str, str]], where: str) -> dict[str, Any]:
    """Those of the extra fields that `body` names, as keyword arguments for `cls`."""
    hints = typing.get_type_hints(cls)
    return {
        attribute: _parse(hints[attribute], attribute, body[name], f"{where}.{name}")
        for attribute, name in table
        if name in body
    }


def _parse(hint: Any, name: str, value: Any, where: str) -> Any:
    """`_plain` undone, guided by the field's type. Raises Invalid."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        return _parse(next(arg for arg in args if arg is not type(None)), name, value, where)
    if origin is tuple:
        return tuple(
            _parse(args[0], name, each, f"{where}[{index}]") for index, each in enumerate(_list(value, where))
        )
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return _labels(value, where)
    if dataclasses.is_dataclass(hint):
        body, hints = _object(value, where), typing.get_type_hints(hint)
        known = {f.name: _camel(f.name) for f in dataclasses.fields(hint)}
        given = {
            key: _parse(hints[key], key, body[shown], f"{where}.{shown}")
            for key, shown in known.items()
            if shown in body
        }
        try:
            return cast("Callable[..., Any]", hint)(**given)
        except TypeError as error:
            raise Invalid(f"{where}: incomplete: {error}") from None
    if hint is float:
        return seconds(value, where) if name in _SECONDS else float(_number(value, where))
    if hint is bool:
        return _bool(value, where)
    return _int(value, where) if hint is int else _text(value, where)


# ------------------------------------------------------------------------------------------- reading JSON


def _object(value: object, where: str) -> Json:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise Invalid(f"{where} must be an object, not {_named(value)}")
    return cast("Json", value)


def _list(value: object, where: str) -> Sequence[Any]:
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)):
        raise Invalid(f"{where} must be a list, not {_named(value)}")
    return cast("Sequence[Any]", value)


_TYPE_NAMES: Mapping[type, str] = {
    bool: "a boolean",
    str: "a string",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
}


def _named(value: object) -> str:
    return _TYPE_NAMES.get(cast("type", type(value)), "null")


def _text(value: object, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Invalid(f"{where} must be a string, not {_named(value)}")
    return str(value)


def _int(value: object, where: str) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        raise Invalid(f"{where} must be a whole number, not {_named(value)}")
    return int(value)


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Invalid(f"{where} must be a number, not {_named(value)}")
    return float(value)


def _bool(value: object, where: str) -> bool:
    if value is None:
        return False
    if not isinstance(value, bool):
        raise Invalid(f"{where} must be true or false, not {_named(value)}")
    return value


def _texts(value: object, where: str) -> tuple[str, ...]:
    return tuple(_text(each, f"{where}[{index}]") for index, each in enumerate(_list(value, where)))


def _labels(value: object, where: str) -> dict[str, str]:
    return {str(key): _text(each, f"{where}.{key}") for key, each in _object(value, where).items()}


def _choice(value: object, where: str, choices: Sequence[str], default: str) -> Any:
    """One of `choices`; Any because each caller's field is a Literal of exactly these."""
    text = _text(value, where) or default
    if text not in choices:
        raise Invalid(f"{where}: unknown value {text!r}: choose one of {', '.join(choices)}")
    return text


def _data(value: object, where: str) -> bytes:
    try:
        return base64.b64decode(_text(value, where), validate=True)
    except binascii.Error as error:
        raise Invalid(f"{where} must be base64: {error}") from None


def _read_driver(value: object, where: str) -> Driver | None:
    if value is None:
        return None
    body = _object(value, where)
    if not body.get("Name") and not body.get("Options"):
        return None
    return Driver(
        name=_text(body.get("Name"), f"{where}.Name"),
        options=_labels(body.get("Options"), f"{where}.Options"),
    )


def parse_rfc3339(text: str, where: str = "time") -> float:
    """An RFC 3339 time as Unix seconds; nanosecond digits are accepted. Raises Invalid."""
    head, dot, tail = text.partition(".")
    digits = tail[: len(tail) - len(tail.lstrip("0123456789"))]
    zone = (tail[len(digits) :] if dot else "") or ""
    try:
        moment = datetime.fromisoformat(head + (f".{digits[:6].ljust(6, '0')}" if digits else "") + zone)
    except ValueError:
        raise Invalid(f"{where}: {text!r} is not a time such as 2026-01-02T15:04:05Z") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()


# ------------------------------------------------------------------------------------------- containers


def _mount(mount: Mount) -> Struct:
    bind = volume = tmpfs = None
    if mount.type == "bind":
        options = {
            "Propagation": mount.bind_propagation,
            "NonRecursive": mount.bind_non_recursive,
            "CreateMountpoint": mount.bind_create_host_path,
        }
        bind = _struct("*mount.BindOptions", {}, options) if any(options.values()) else None
    if mount.type == "volume":
        options = {
            "NoCopy": mount.volume_no_copy,
            "Labels": _strings(mount.volume_labels),
            "Subpath": mount.volume_subpath,
            "DriverConfig": _driver(mount.volume_driver, "*mount.Driver"),
        }
        volume = _struct("*mount.VolumeOptions", {}, options) if any(options.values()) else None
    if mount.type == "tmpfs" and (mount.tmpfs_size or mount.tmpfs_mode):
        tmpfs = _struct("*mount.TmpfsOptions", {}, {"SizeBytes": mount.tmpfs_size, "Mode": mount.tmpfs_mode})
    return _struct(
        "mount.Mount",
        {},
        {
            "Type": mount.type,
            "Source": mount.source,
            "Target": mount.target,
            "ReadOnly": mount.read_only,
            "Consistency": mount.consistency,
            "BindOptions": bind,
            "VolumeOptions": volume,
            "TmpfsOptions": tmpfs,
        },
    )


def _read_mount(value: object, where: str) -> Mount:
    body = _object(value, where)
    kind = _choice(
        body.get("Type"), f"{where}.Type", ("bind", "volume", "tmpfs", "image", "cluster", "npipe"), "volume"
    )
    bind = _object(body.get("BindOptions"), f"{where}.BindOptions")
    volume = _object(body.get("VolumeOptions"), f"{where}.VolumeOptions")
    tmpfs = _object(body.get("TmpfsOptions"), f"{where}.TmpfsOptions")
    create = _bool(bind.get("CreateMountpoint"), f"{where}.BindOptions.CreateMountpoint")
    return Mount(
        type=kind,
        source=_text(body.get("Source"), f"{where}.Source"),
        target=_text(body.get("Target"), f"{where}.Target"),
        read_only=_bool(body.get("ReadOnly"), f"{where}.ReadOnly"),
        consistency=_text(body.get("Consistency"), f"{where}.Consistency"),
        bind_propagation=_text(bind.get("Propagation"), f"{where}.BindOptions.Propagation"),
        bind_non_recursive=_bool(bind.get("NonRecursive"), f"{where}.BindOptions.NonRecursive"),
        bind_create_host_path=create if kind == "bind" else True,
        volume_no_copy=_bool(volume.get("NoCopy"), f"{where}.VolumeOptions.NoCopy"),
        volume_subpath=_text(volume.get("Subpath"), f"{where}.VolumeOptions.Subpath"),
        volume_labels=_labels(volume.get("Labels"), f"{where}.VolumeOptions.Labels"),
        volume_driver=_read_driver(volume.get("DriverConfig"), f"{where}.VolumeOptions.DriverConfig"),
        tmpfs_size=_int(tmpfs.get("SizeBytes"), f"{where}.TmpfsOptions.SizeBytes"),
        tmpfs_mode=_int(tmpfs.get("Mode"), f"{where}.TmpfsOptions.Mode"),
    )


def _healthcheck(check: Healthcheck | None) -> Struct | None:
    if check is None:
        return None
    times = {
        "Interval": check.interval,
        "Timeout": check.timeout,
        "StartPeriod": check.start_period,
        "StartInterval": check.start_interval,
    }
    shown: dict[str, Any] = {name: nanos(value or 0) for name, value in times.items()}
    return _struct(
        "*container.HealthConfig", {}, {"Test": list(check.test), **shown, "Retries": check.retries or 0}
    )


def _read_healthcheck(value: object, where: str) -> Healthcheck | None:
    if value is None:
        return None
    body = _object(value, where)

    def duration(name: str) -> float | None:
        return seconds(body.get(name), f"{where}.{name}") or None

    return Healthcheck(
        test=_texts(body.get("Test"), f"{where}.Test"),
        interval=duration("Interval"),
        timeout=duration("Timeout"),
        start_period=duration("StartPeriod"),
        start_interval=duration("StartInterval"),
        retries=_int(body.get("Retries"), f"{where}.Retries") or None,
    )


def _reference(ref: FileReference, kind: str) -> Struct:
    file = _struct(
        f"*swarm.{kind}ReferenceFileTarget",
        {"Name": ref.target or ref.source_name, "UID": ref.uid, "GID": ref.gid, "Mode": ref.mode},
    )
    return _struct(
        f"*swarm.{kind}Reference",
        {"File": file, f"{kind}ID": ref.source_id, f"{kind}Name": ref.source_name},
    )


def _read_reference(value: object, kind: str, where: str) -> FileReference:
    body = _object(value, where)
    file = _object(body.get("File"), f"{where}.File")
    name = _text(body.get(f"{kind}Name"), f"{where}.{kind}Name")
    return FileReference(
        source_id=_text(body.get(f"{kind}ID"), f"{where}.{kind}ID"),
        source_name=name,
        target=_text(file.get("Name"), f"{where}.File.Name") or name,
        uid=_text(file.get("UID"), f"{where}.File.UID") or "0",
        gid=_text(file.get("GID"), f"{where}.File.GID") or "0",
        mode=_int(file.get("Mode", 0o444), f"{where}.File.Mode"),
    )


_SELINUX = {"disable": "Disable", "user": "User", "role": "Role", "type": "Type", "level": "Level"}


def _privileges(spec: ContainerSpec) -> tuple[Struct | None, list[str]]:
    """`security_opt` as the Engine API's Privileges, and those entries that it has no words for."""
    selinux: dict[str, Any] = {}
    seccomp = apparmor = None
    rest: list[str] = []
    for option in spec.security_opt:
        key, _, value = option.replace(":", "=", 1).partition("=")
        label, _, setting = value.partition(":")
        if key == "label" and label in _SELINUX:
            selinux[_SELINUX[label]] = setting or True
        elif key == "seccomp" and value == "unconfined":
            seccomp = _struct("*swarm.SeccompOpts", {"Mode": "unconfined"}, {"Profile": ""})
        elif key == "apparmor" and value == "unconfined":
            apparmor = _struct("*swarm.AppArmorOpts", {"Mode": "disabled"})
        else:
            rest.append(option)
    if not (selinux or seccomp or apparmor or spec.no_new_privileges):
        return None, rest
    context = None
    if selinux:
        blank = {"Disable": False, "User": "", "Role": "", "Type": "", "Level": ""}
        context = _struct("*swarm.SELinuxContext", {**blank, **selinux})
    return _struct(
        "*swarm.Privileges",
        {
            "CredentialSpec": None,
            "SELinuxContext": context,
            **({"Seccomp": seccomp} if seccomp else {}),
            **({"AppArmor": apparmor} if apparmor else {}),
            "NoNewPrivileges": spec.no_new_privileges,
        },
    ), rest


def _read_privileges(value: object, where: str) -> tuple[bool, tuple[str, ...]]:
    """(no_new_privileges, security_opt)."""
    body = _object(value, where)
    selinux = _object(body.get("SELinuxContext"), f"{where}.SELinuxContext")
    options = ["label=disable"] if selinux.get("Disable") else []
    options += [
        f"label={key}:{selinux[name]}"
        for key, name in _SELINUX.items()
        if key != "disable" and selinux.get(name)
    ]
    seccomp = _object(body.get("Seccomp"), f"{where}.Seccomp")
    mode = _choice(
        seccomp.get("Mode"), f"{where}.Seccomp.Mode", ("default", "unconfined", "custom"), "default"
    )
    if mode == "unconfined":
        options.append("seccomp=unconfined")
    elif mode == "custom":
        options.append("seccomp=" + _data(seccomp.get("Profile"), f"{where}.Seccomp.Profile").decode())
    apparmor = _object(body.get("AppArmor"), f"{where}.AppArmor")
    if _text(apparmor.get("Mode"), f"{where}.AppArmor.Mode") == "disabled":
        options.append("apparmor=unconfined")
    return _bool(body.get("NoNewPrivileges"), f"{where}.NoNewPrivileges"), tuple(options)


def container_spec(spec: ContainerSpec) -> Struct:
    """A ContainerSpec of the Engine API."""
    privileges, security = _privileges(spec)
    dns = None
    if spec.dns_nameservers or spec.dns_search or spec.dns_options:
        lists = {
            "Nameservers": list(spec.dns_nameservers),
            "Search": list(spec.dns_search),
            "Options": list(spec.dns_options),
        }
        dns = _struct("*swarm.DNSConfig", {}, lists)
    grace = None if spec.stop_grace_period is None else nanos(spec.stop_grace_period)
    ulimits = [
        _struct("*container.Ulimit", {"Name": u.name, "Hard": u.hard, "Soft": u.soft}) for u in spec.ulimits
    ]
    shown: dict[str, Any] = {
        "Image": spec.image,
        "Labels": _strings(spec.labels),
        "Command": list(spec.command or ()),
        "Args": list(spec.args or ()),
        "Hostname": spec.hostname,
        "Env": list(spec.env),
        "Dir": spec.dir,
        "User": spec.user,
        "Groups": list(spec.groups),
        "Privileges": privileges,
        "Init": spec.init,
        "StopSignal": spec.stop_signal,
        "TTY": spec.tty,
        "OpenStdin": spec.open_stdin,
        "ReadOnly": spec.read_only,
        "Mounts": [_mount(mount) for mount in spec.mounts],
        "StopGracePeriod": grace,
        "Healthcheck": _healthcheck(spec.healthcheck),
        "Hosts": list(spec.hosts),
        "DNSConfig": dns,
        "Secrets": [_reference(ref, "Secret") for ref in spec.secrets],
        "Configs": [_reference(ref, "Config") for ref in spec.configs],
        "Isolation": spec.isolation,
        "Sysctls": _strings(spec.sysctls),
        "CapabilityAdd": list(spec.cap_add),
        "CapabilityDrop": list(spec.cap_drop),
        "Ulimits": ulimits,
        "OomScoreAdj": spec.oom_score_adj,
        "SecurityOpt": security,
        **_extra(spec, _CONTAINER_EXTRA),
    }
    struct = _struct("*swarm.ContainerSpec", {}, shown)
    return _keep_pointers(struct, {"Init": spec.init, "StopGracePeriod": grace})


def _keep_pointers(struct: Struct, values: Mapping[str, Any]) -> Struct:
    """Fields that are pointers in Go: there whenever they are not nil, even when false or zero."""
    kept = dict(struct)
    zero = dict(struct.zero)
    for name, value in values.items():
        if value is not None and name in zero:
            kept[name] = zero.pop(name)
    return Struct(kept, zero, struct.go_type)


def _read_container(value: object, base: ContainerSpec, where: str) -> ContainerSpec:
    body = _object(value, where)
    dns = _object(body.get("DNSConfig"), f"{where}.DNSConfig")
    no_new, security = _read_privileges(body.get("Privileges"), f"{where}.Privileges")
    grace = body.get("StopGracePeriod")
    extra = _read_extra(ContainerSpec, body, _CONTAINER_EXTRA, where)
    unknown = body.get("SecurityOpt")
    if unknown is None:
        kept = _privileges(base)[1]
    else:
        kept = list(_texts(unknown, f"{where}.SecurityOpt"))

    def text(name: str) -> str:
        return _text(body.get(name), f"{where}.{name}")

    def texts(name: str) -> tuple[str, ...]:
        return _texts(body.get(name), f"{where}.{name}")

    def flag(name: str) -> bool:
        return _bool(body.get(name), f"{where}.{name}")

    def each(name: str, read: Callable[[object, str], T]) -> tuple[T, ...]:
        place = f"{where}.{name}"
        return tuple(read(item, f"{place}[{i}]") for i, item in enumerate(_list(body.get(name), place)))

    return replace(
        base,
        image=text("Image"),
        labels=_labels(body.get("Labels"), f"{where}.Labels"),
        command=texts("Command") or (base.command if base.command == () else None),
        args=texts("Args") or (base.args if base.args == () else None),
        hostname=text("Hostname"),
        env=texts("Env"),
        dir=text("Dir"),
        user=text("User"),
        groups=texts("Groups"),
        no_new_privileges=no_new,
        security_opt=security + tuple(kept),
        init=None if body.get("Init") is None else flag("Init"),
        stop_signal=text("StopSignal"),
        tty=flag("TTY"),
        open_stdin=flag("OpenStdin"),
        read_only=flag("ReadOnly"),
        mounts=each("Mounts", _read_mount),
        stop_grace_period=None if grace is None else seconds(grace, f"{where}.StopGracePeriod"),
        healthcheck=_read_healthcheck(body.get("Healthcheck"), f"{where}.Healthcheck"),
        hosts=texts("Hosts"),
        dns_nameservers=_texts(dns.get("Nameservers"), f"{where}.DNSConfig.Nameservers"),
        dns_search=_texts(dns.get("Search"), f"{where}.DNSConfig.Search"),
        dns_options=_texts(dns.get("Options"), f"{where}.DNSConfig.Options"),
        secrets=each("Secrets", _read_secret_reference),
        configs=each("Configs", _read_config_reference),
        isolation=text("Isolation"),
        sysctls=_labels(body.get("Sysctls"), f"{where}.Sysctls"),
        cap_add=texts("CapabilityAdd"),
        cap_drop=texts("CapabilityDrop"),
        ulimits=each("Ulimits", _read_ulimit),
        oom_score_adj=_int(body.get("OomScoreAdj"), f"{where}.OomScoreAdj"),
        **extra,
    )


def _read_secret_reference(value: object, where: str) -> FileReference:
    return _read_reference(value, "Secret", where)


def _read_config_reference(value: object, where: str) -> FileReference:
    return _read_reference(value, "Config", where)


def _read_ulimit(value: object, where: str) -> Ulimit:
    body = _object(value, where)
    return Ulimit(
        name=_text(body.get("Name"), f"{where}.Name"),
        soft=_int(body.get("Soft"), f"{where}.Soft"),
        hard=_int(body.get("Hard"), f"{where}.Hard"),
    )


# ------------------------------------------------------------------------------------------- tasks' specs


def _generic(resources: Sequence[GenericResource]) -> list[Struct]:
    return [
        _struct(
            "swarm.GenericResource",
            {
                "NamedResourceSpec": _struct(
                    "*swarm.NamedGenericResource", {}, {"Kind": item.kind, "Value": item.string_value}
                )
            }
            if item.string_value
            else {
                "DiscreteResourceSpec": _struct(
                    "*swarm.DiscreteGenericResource", {}, {"Kind": item.kind, "Value": item.value}
                )
            },
        )
        for item in resources
    ]


def _read_generic(value: object, where: str) -> tuple[GenericResource, ...]:
    found: list[GenericResource] = []
    for index, item in enumerate(_list(value, where)):
        body, place = _object(item, f"{where}[{index}]"), f"{where}[{index}]"
        named = _object(body.get("NamedResourceSpec"), f"{place}.NamedResourceSpec")
        count = _object(body.get("DiscreteResourceSpec"), f"{place}.DiscreteResourceSpec")
        found.append(
            GenericResource(
                kind=_text((named or count).get("Kind"), f"{place}.Kind"),
                string_value=_text(named.get("Value"), f"{place}.Value"),
                value=_int(count.get("Value"), f"{place}.Value"),
            )
        )
    return tuple(found)


def _amounts(amount: Resources, go_type: str, limits: bool) -> Struct:
    last = {"Pids": amount.pids} if limits else {"GenericResources": _generic(amount.generic)}
    return _struct(go_type, {}, {"NanoCPUs": amount.nano_cpus, "MemoryBytes": amount.memory, **last})


def _read_amounts(value: object, where: str) -> Resources:
    body = _object(value, where)
    return Resources(
        nano_cpus=_int(body.get("NanoCPUs"), f"{where}.NanoCPUs"),
        memory=_int(body.get("MemoryBytes"), f"{where}.MemoryBytes"),
        pids=_int(body.get("Pids"), f"{where}.Pids"),
        generic=_read_generic(body.get("GenericResources"), f"{where}.GenericResources"),
    )


def _requirements(resources: ResourceRequirements, defaults: bool) -> Struct | None:
    empty = Resources()
    if not defaults and resources == ResourceRequirements():
        return None
    show_limits = defaults or resources.limits != empty
    show_reservations = defaults or resources.reservations != empty
    extra = _extra(resources, _RESOURCES_EXTRA)
    struct = _struct(
        "*swarm.ResourceRequirements",
        {},
        {
            "Limits": _amounts(resources.limits, "*swarm.Limit", True) if show_limits else None,
            "Reservations": (
                _amounts(resources.reservations, "*swarm.Resources", False) if show_reservations else None
            ),
            **extra,
        },
    )
    return _keep_pointers(struct, {"SwapBytes": resources.swap, "MemorySwappiness": resources.swappiness})


def _read_requirements(value: object, base: ResourceRequirements, where: str) -> ResourceRequirements:
    body = _object(value, where)
    extra = _read_extra(ResourceRequirements, body, _RESOURCES_EXTRA, where)
    return replace(
        base,
        limits=_read_amounts(body.get("Limits"), f"{where}.Limits"),
        reservations=_read_amounts(body.get("Reservations"), f"{where}.Reservations"),
        **extra,
    )


def _restart(policy: RestartPolicy, defaults: bool) -> Struct | None:
    if not defaults and policy == RestartPolicy():
        return None
    delay = nanos(5.0 if policy.delay is None else policy.delay)
    shown: dict[str, Any] = {"Condition": policy.condition}
    if defaults or policy.delay is not None:
        shown["Delay"] = delay
    shown["MaxAttempts"] = policy.max_attempts
    if policy.window:
        shown["Window"] = nanos(policy.window)
    struct = _struct("*swarm.RestartPolicy", shown, _extra(policy, _RESTART_EXTRA))
    return _keep_pointers(struct, {"MaxDelay": policy.max_delay})


def _read_restart(value: object, base: RestartPolicy, where: str) -> RestartPolicy:
    body = _object(value, where)
    delay = body.get("Delay")
    return replace(
        base,
        condition=_choice(body.get("Condition"), f"{where}.Condition", ("none", "on-failure", "any"), "any"),
        delay=None if delay is None else seconds(delay, f"{where}.Delay"),
        max_attempts=_int(body.get("MaxAttempts"), f"{where}.MaxAttempts"),
        window=seconds(body.get("Window"), f"{where}.Window"),
        **_read_extra(RestartPolicy, body, _RESTART_EXTRA, where),
    )


def _placement(placement: Placement, defaults: bool) -> Struct | None:
    if not defaults and placement == Placement():
        return None
    preferences = [
        _struct(
            "swarm.PlacementPreference",
            {"Spread": _struct("*swarm.SpreadOver", {"SpreadDescriptor": p.spread_descriptor})},
        )
        for p in placement.preferences
    ]
    return _struct(
        "*swarm.Placement",
        {},
        {
            "Constraints": list(placement.constraints),
            "Preferences": preferences,
            "MaxReplicas": placement.max_replicas,
            "Platforms": [_platform(p) for p in placement.platforms],
            **_extra(placement, _PLACEMENT_EXTRA),
        },
    )


def _platform(platform: Platform) -> Struct:
    return _struct("swarm.Platform", {}, {"Architecture": platform.architecture, "OS": platform.os})


def _read_placement(value: object, base: Placement, where: str) -> Placement:
    body = _object(value, where)
    preferences: list[SpreadPreference] = []
    for index, item in enumerate(_list(body.get("Preferences"), f"{where}.Preferences")):
        place = f"{where}.Preferences[{index}].Spread"
        spread = _object(_object(item, place).get("Spread"), place)
        descriptor = _text(spread.get("SpreadDescriptor"), f"{place}.SpreadDescriptor")
        preferences.append(SpreadPreference(spread_descriptor=descriptor))
    platforms: list[Platform] = []
    for index, item in enumerate(_list(body.get("Platforms"), f"{where}.Platforms")):
        place = f"{where}.Platforms[{index}]"
        platform = _object(item, place)
        platforms.append(
            Platform(
                architecture=_text(platform.get("Architecture"), f"{place}.Architecture"),
                os=_text(platform.get("OS"), f"{place}.OS"),
            )
        )
    return replace(
        base,
        constraints=_texts(body.get("Constraints"), f"{where}.Constraints"),
        preferences=tuple(preferences),
        max_replicas=_int(body.get("MaxReplicas"), f"{where}.MaxReplicas"),
        platforms=tuple(platforms),
        **_read_extra(Placement, body, _PLACEMENT_EXTRA, where),
    )


def _attachment(wish: NetworkAttachmentSpec) -> Struct:
    return _struct(
        "swarm.NetworkAttachmentConfig",
        {},
        {
            "Target": wish.target,
            "Aliases": list(wish.aliases),
            "DriverOpts": _strings(wish.driver_opts),
            **_extra(wish, _ATTACHMENT_EXTRA),
        },
    )


def _read_attachments(
    value: object, base: Sequence[NetworkAttachmentSpec], where: str
) -> tuple[NetworkAttachmentSpec, ...]:
    before = {wish.target: wish for wish in base}
    found: list[NetworkAttachmentSpec] = []
    for index, item in enumerate(_list(value, where)):
        body, place = _object(item, f"{where}[{index}]"), f"{where}[{index}]"
        target = _text(body.get("Target"), f"{place}.Target")
        if not target:
            raise Invalid(f"{place}.Target is missing: name the network")
        found.append(
            replace(
                before.get(target, NetworkAttachmentSpec(target=target)),
                aliases=_texts(body.get("Aliases"), f"{place}.Aliases"),
                driver_opts=_labels(body.get("DriverOpts"), f"{place}.DriverOpts"),
                **_read_extra(NetworkAttachmentSpec, body, _ATTACHMENT_EXTRA, place),
            )
        )
    return tuple(found)


def task_spec(spec: TaskSpec, *, defaults: bool = False) -> Struct:
    """A TaskSpec of the Engine API. `defaults` fills in what the user did not say."""
    container = container_spec(spec.container)
    if defaults:
        container = _with_defaults(container)
    return _struct(
        "swarm.TaskSpec",
        {},
        {
            "ContainerSpec": container,
            "Resources": _requirements(spec.resources, defaults),
            "RestartPolicy": _restart(spec.restart, defaults),
            "Placement": _placement(spec.placement, defaults),
            "Networks": [_attachment(wish) for wish in spec.networks],
            "LogDriver": _driver(spec.log_driver),
            **_extra(spec, _TASK_EXTRA),
        },
        {"ForceUpdate": spec.force_update, "Runtime": "container"},
    )


def _with_defaults(container: Struct) -> Struct:
    """What the Engine API adds for `insertDefaults`, at the places where Go has these fields."""
    filled: dict[str, Any] = {
        "StopGracePeriod": nanos(10.0),
        "DNSConfig": _struct("*swarm.DNSConfig", {}, {"Nameservers": [], "Search": [], "Options": []}),
        "Isolation": "default",
    }
    order = list(container) + [name for name in container.zero if name not in container]
    names = [name for name in _CONTAINER_ORDER if name in order or name in filled]
    names += [name for name in order if name not in names]
    values = {**container.zero, **container}
    kept = {
        name: values[name] if name in container else filled[name]
        for name in names
        if name in container or name in filled
    }
    zero = {name: value for name, value in container.zero.items() if name not in kept}
    return Struct(kept, zero, container.go_type)


_CONTAINER_ORDER = (
    *("Image", "Labels", "Command", "Args", "Hostname", "Env", "Dir", "User", "Groups", "Privileges"),
    *("Init", "StopSignal", "TTY", "OpenStdin", "ReadOnly", "Mounts", "StopGracePeriod", "Healthcheck"),
    *("Hosts", "DNSConfig", "Secrets", "Configs", "Isolation", "Sysctls"),
)


def _read_task_spec(value: object, base: TaskSpec, where: str) -> TaskSpec:
    body = _object(value, where)
    if body.get("PluginSpec") is not None:
        raise Invalid(f"{where}.PluginSpec: plugins are not run as services; use a container")
    return replace(
        base,
        container=_read_container(body.get("ContainerSpec"), base.container, f"{where}.ContainerSpec"),
        resources=_read_requirements(body.get("Resources"), base.resources, f"{where}.Resources"),
        restart=_read_restart(body.get("RestartPolicy"), base.restart, f"{where}.RestartPolicy"),
        placement=_read_placement(body.get("Placement"), base.placement, f"{where}.Placement"),
        networks=_read_attachments(body.get("Networks"), base.networks, f"{where}.Networks"),
        log_driver=_read_driver(body.get("LogDriver"), f"{where}.LogDriver"),
        force_update=_int(body.get("ForceUpdate"), f"{where}.ForceUpdate"),
        **_read_extra(TaskSpec, body, _TASK_EXTRA, where),
    )


# ------------------------------------------------------------------------------------------- services


@dataclass(frozen=True, slots=True)
class ServiceCounts:
    """How many of a service's tasks run, should run, and have completed (jobs)."""

    running: int = 0
    desired: int = 0
    completed: int = 0


def count_tasks(service: Service, tasks: Iterable[Task]) -> ServiceCounts:
    """The counts that `service ls` shows, from the service's own tasks."""
    mode = service.spec.mode
    iteration = service.job_status.iteration if service.job_status else 0
    job = mode.kind in ("replicated-job", "global-job")
    running = desired = completed = 0
    for task in tasks:
        if task.service_id != service.id or (job and (task.job_iteration or 0) != iteration):
            continue
        running += task.status.state == TaskState.RUNNING and task.desired_state <= TaskState.COMPLETE
        completed += task.status.state == TaskState.COMPLETE
        limit = TaskState.COMPLETE if job else TaskState.RUNNING
        desired += task.desired_state <= limit and not (job and task.status.state == TaskState.COMPLETE)
    if mode.kind == "replicated":
        desired = service.replicas
    elif mode.kind == "replicated-job":
        desired = mode.max_concurrent
    return ServiceCounts(running, desired, completed)


def _mode(mode: ServiceMode) -> Struct:
    if mode.kind == "replicated":
        body = {"Replicated": _struct("*swarm.ReplicatedService", {"Replicas": mode.replicas})}
    elif mode.kind == "global":
        body = {"Global": _struct("*swarm.GlobalService", {})}
    elif mode.kind == "global-job":
        body = {"GlobalJob": _struct("*swarm.GlobalJob", {})}
    else:
        counts = {"MaxConcurrent": mode.max_concurrent, "TotalCompletions": mode.total_completions}
        body = {"ReplicatedJob": _struct("*swarm.ReplicatedJob", counts)}
    kinds = ("Replicated", "Global", "ReplicatedJob", "GlobalJob")
    return _struct("swarm.ServiceMode", body, {kind: None for kind in kinds if kind not in body})


def _read_mode(value: object, where: str) -> ServiceMode:
    body = _object(value, where)
    kinds = [
        kind for kind in ("Replicated", "Global", "ReplicatedJob", "GlobalJob") if body.get(kind) is not None
    ]
    if len(kinds) > 1:
        raise Invalid(f"{where}: must provide one service mode, not {' and '.join(kinds)}")
    if kinds == ["Global"]:
        return ServiceMode(kind="global")
    if kinds == ["GlobalJob"]:
        return ServiceMode(kind="global-job")
    if kinds == ["ReplicatedJob"]:
        job = _object(body["ReplicatedJob"], f"{where}.ReplicatedJob")
        concurrent = job.get("MaxConcurrent")
        most = 1 if concurrent is None else _int(concurrent, f"{where}.ReplicatedJob.MaxConcurrent")
        total = job.get("TotalCompletions")
        return ServiceMode(
            kind="replicated-job",
            max_concurrent=most,
            total_completions=most
            if total is None
            else _int(total, f"{where}.ReplicatedJob.TotalCompletions"),
        )
    replicas = _object(body.get("Replicated"), f"{where}.Replicated").get("Replicas")
    return ServiceMode(replicas=1 if replicas is None else _int(replicas, f"{where}.Replicated.Replicas"))


def _update(config: UpdateConfig | None, defaults: bool) -> Struct | None:
    if config is None:
        if not defaults:
            return None
        config = UpdateConfig()
    monitor = 5.0 if config.monitor is None and defaults else config.monitor
    shown: dict[str, Any] = {"Parallelism": config.parallelism}
    if config.delay:
        shown["Delay"] = nanos(config.delay)
    shown["FailureAction"] = config.failure_action
    if monitor is not None:
        shown["Monitor"] = nanos(monitor)
    shown |= {"MaxFailureRatio": config.max_failure_ratio or 0, "Order": config.order}
    zero = {"Delay": Duration(0), "Monitor": Duration(0), **_extra(config, _UPDATE_EXTRA)}
    struct = _struct("*swarm.UpdateConfig", shown, {k: v for k, v in zero.items() if k not in shown})
    return _keep_pointers(struct, {"ProgressDeadline": config.progress_deadline})


def _read_update(value: object, base: UpdateConfig | None, where: str) -> UpdateConfig | None:
    if value is None:
        return None
    body = _object(value, where)
    actions = ("pause", "continue", "rollback")
    monitor = seconds(body.get("Monitor"), f"{where}.Monitor")
    return replace(
        base or UpdateConfig(),
        parallelism=_int(body.get("Parallelism"), f"{where}.Parallelism"),
        delay=seconds(body.get("Delay"), f"{where}.Delay"),
        failure_action=_choice(body.get("FailureAction"), f"{where}.FailureAction", actions, "pause"),
        monitor=monitor or None,
        max_failure_ratio=_number(body.get("MaxFailureRatio") or 0, f"{where}.MaxFailureRatio"),
        order=_choice(body.get("Order"), f"{where}.Order", ("stop-first", "start-first"), "stop-first"),
        **_read_extra(UpdateConfig, body, _UPDATE_EXTRA, where),
    )


def _port(port: PortConfig) -> Struct:
    return _struct(
        "swarm.PortConfig",
        {},
        {
            "Name": port.name,
            "Protocol": port.protocol,
            "TargetPort": port.target_port,
            "PublishedPort": port.published_port,
            "PublishMode": port.publish_mode,
            **_extra(port, _PORT_EXTRA),
        },
    )


def _read_port(value: object, base: Sequence[PortConfig], where: str) -> PortConfig:
    body = _object(value, where)
    port = PortConfig(
        target_port=_int(body.get("TargetPort"), f"{where}.TargetPort"),
        published_port=_int(body.get("PublishedPort"), f"{where}.PublishedPort"),
        protocol=_choice(body.get("Protocol"), f"{where}.Protocol", ("tcp", "udp", "sctp"), "tcp"),
        publish_mode=_choice(body.get("PublishMode"), f"{where}.PublishMode", ("ingress", "host"), "ingress"),
        name=_text(body.get("Name"), f"{where}.Name"),
    )
    for old in base:
        if replace(old, host_ip="", app_protocol="") == port:
            port = old
    return replace(port, **_read_extra(PortConfig, body, _PORT_EXTRA, where))


def _endpoint_spec(spec: EndpointSpec) -> Struct:
    return _struct(
        "*swarm.EndpointSpec", {}, {"Mode": spec.mode, "Ports": [_port(port) for port in spec.ports]}
    )


def _read_endpoint(value: object, base: EndpointSpec, where: str) -> EndpointSpec:
    body = _object(value, where)
    place = f"{where}.Ports"
    ports = [
        _read_port(item, base.ports, f"{place}[{index}]")
        for index, item in enumerate(_list(body.get("Ports"), place))
    ]
    return EndpointSpec(
        mode=_choice(body.get("Mode"), f"{where}.Mode", ("vip", "dnsrr"), "vip"), ports=tuple(ports)
    )


def service_spec_json(spec: ServiceSpec, *, defaults: bool = False) -> Struct:
    """A ServiceSpec of the Engine API. `defaults` is its `insertDefaults`."""
    return _struct(
        "swarm.ServiceSpec",
        {
            "Name": spec.name,
            "Labels": _strings(spec.labels),
            "TaskTemplate": task_spec(spec.task, defaults=defaults),
            "Mode": _mode(spec.mode),
        },
        {
            "UpdateConfig": _update(spec.update, defaults and "job" not in spec.mode.kind),
            "RollbackConfig": _update(spec.rollback, defaults and "job" not in spec.mode.kind),
            "EndpointSpec": _endpoint_spec(spec.endpoint),
            **_extra(spec, _SERVICE_EXTRA),
        },
    )


def service_spec(body: object, base: ServiceSpec | None = None) -> ServiceSpec:
    """The spec in the body of a create, or of an update of a service whose spec was `base`: fields that the
    Engine API does not have keep their value. Raises Invalid, naming the field."""
    spec = _object(body, "body")
    old = base or ServiceSpec()
    task = _read_task_spec(spec.get("TaskTemplate"), old.task, "TaskTemplate")
    if not task.networks and spec.get("Networks"):
        task = replace(task, networks=_read_attachments(spec["Networks"], old.task.networks, "Networks"))
    mode = _read_mode(spec.get("Mode"), "Mode")
    policy = _object(_object(spec.get("TaskTemplate"), "TaskTemplate").get("RestartPolicy"), "RestartPolicy")
    if mode.kind.endswith("-job") and not policy.get("Condition"):
        # A job that says nothing of when to restart does so on failure: to have completed is its end.
        task = replace(task, restart=replace(task.restart, condition="on-failure"))
    return replace(
        old,
        name=_text(spec.get("Name"), "Name"),
        labels=_labels(spec.get("Labels"), "Labels"),
        task=task,
        mode=mode,
        update=_read_update(spec.get("UpdateConfig"), old.update, "UpdateConfig"),
        rollback=_read_update(spec.get("RollbackConfig"), old.rollback, "RollbackConfig"),
        endpoint=_read_endpoint(spec.get("EndpointSpec"), old.endpoint, "EndpointSpec"),
        **_read_extra(ServiceSpec, spec, _SERVICE_EXTRA, "Service"),
    )


def _head(object_id: str, meta: Meta) -> dict[str, Any]:
    return {
        "ID": object_id,
        "Version": _struct("swarm.Version", {}, {"Index": meta.version}),
        "CreatedAt": _time(meta.created_at),
        "UpdatedAt": _time(meta.updated_at),
    }


def _endpoint(endpoint: Endpoint | None, spec: EndpointSpec) -> Struct:
    if endpoint is None:
        return _struct(
            "swarm.Endpoint", {"Spec": _struct("swarm.EndpointSpec", {}, {"Mode": "", "Ports": []})}
        )
    vips = [
        _struct("swarm.EndpointVirtualIP", {}, {"NetworkID": vip.network_id, "Addr": vip.addr})
        for vip in endpoint.virtual_ips
    ]
    del spec
    return _struct(
        "swarm.Endpoint",
        {"Spec": _endpoint_spec(endpoint.spec)},
        {"Ports": [_port(port) for port in endpoint.ports], "VirtualIPs": vips},
    )


def _update_status(status: UpdateStatus | None) -> Struct | None:
    if status is None:
        return None
    return _struct(
        "*swarm.UpdateStatus",
        {},
        {
            "State": status.state,
            "StartedAt": _time(status.started_at) if status.started_at else None,
            "CompletedAt": _time(status.completed_at) if status.completed_at else None,
            "Message": status.message,
        },
    )


def service(obj: Service, *, defaults: bool = False, counts: ServiceCounts | None = None) -> Struct:
    """A service as the Engine API shows it; `counts` adds ServiceStatus (`?status=true`)."""
    status = job = None
    if counts is not None:
        status = _struct(
            "*swarm.ServiceStatus",
            {
                "RunningTasks": counts.running,
                "DesiredTasks": counts.desired,
                "CompletedTasks": counts.completed,
            },
        )
    if obj.job_status is not None:
        last = obj.job_status.last_execution
        job = _struct(
            "*swarm.JobStatus",
            {"JobIteration": _struct("swarm.Version", {}, {"Index": obj.job_status.iteration})}
            | ({"LastExecution": _time(last)} if last else {}),
        )
    previous = obj.previous_spec
    return _struct(
        "swarm.Service",
        {**_head(obj.id, obj.meta), "Spec": service_spec_json(obj.spec, defaults=defaults)}
        | ({"PreviousSpec": service_spec_json(previous)} if previous else {})
        | {"Endpoint": _endpoint(obj.endpoint, obj.spec.endpoint)},
        {
            "PreviousSpec": None if previous is None else {},
            "UpdateStatus": _update_status(obj.update_status),
            "ServiceStatus": status,
            "JobStatus": job,
        },
    )


# ------------------------------------------------------------------------------------------- tasks, nodes


def _task_status(task: Task) -> Struct:
    status = task.status
    container = None
    if status.container_id:
        container = _struct(
            "*swarm.ContainerStatus",
            {"ContainerID": status.container_id, "PID": status.pid, "ExitCode": status.exit_code or 0},
        )
    message = task.waiting_for or status.message
    return _struct(
        "swarm.TaskStatus",
        {"Timestamp": _time(status.timestamp), "State": status.state.name.lower(), "Message": message}
        | ({"Err": status.err} if status.err else {})
        | ({"ContainerStatus": container} if container else {})
        | {"PortStatus": _struct("swarm.PortStatus", {}, {"Ports": [_port(p) for p in status.ports]})},
        {"Err": status.err, "ContainerStatus": container},
    )


def task(obj: Task, networks: Mapping[str, Network] | None = None) -> Struct:
    """A task as the Engine API shows it. `networks` by id fills in the attachments' networks."""
    known = networks or {}
    attachments = [
        _struct(
            "swarm.NetworkAttachment",
            {},
            {
                "Network": (
                    _attached_network(known[each.network_id])
                    if each.network_id in known
                    else _struct("swarm.Network", {"ID": each.network_id})
                ),
                "Addresses": list(each.addresses),
            },
        )
        for each in obj.networks
    ]
    iteration = None
    if obj.job_iteration is not None:
        iteration = _struct("*swarm.Version", {"Index": obj.job_iteration})
    shown: dict[str, Any] = {
        **_head(obj.id, obj.meta),
        "Labels": {},
        "Spec": task_spec(obj.spec),
        "ServiceID": obj.service_id,
    }
    shown |= {"Slot": obj.slot} if obj.slot else {}
    shown |= {"NodeID": obj.node_id} if obj.node_id else {}
    shown |= {"Status": _task_status(obj), "DesiredState": obj.desired_state.name.lower()}
    return _struct(
        "swarm.Task",
        shown,
        {
            "Name": "",
            **({} if obj.slot else {"Slot": 0}),
            **({} if obj.node_id else {"NodeID": ""}),
            "NetworksAttachments": attachments,
            "GenericResources": _generic(obj.assigned_generic),
            "JobIteration": iteration,
        },
    )


def _attached_network(obj: Network) -> Struct:
    spec = obj.spec
    described = _struct(
        "swarm.NetworkSpec",
        {"Name": spec.name, "Labels": _strings(spec.labels)},
        {
            "DriverConfiguration": _driver(spec.driver),
            "Internal": spec.internal,
            "Attachable": spec.attachable,
            "Ingress": spec.ingress,
            "Scope": spec.scope,
        },
    )
    configs = [{"Subnet": pool.subnet, "Gateway": pool.gateway} for pool in obj.pools]
    return _struct(
        "swarm.Network",
        {**_head(obj.id, obj.meta), "Spec": described, "DriverState": _driver(spec.driver)},
        {"IPAMOptions": _struct("*swarm.IPAMOptions", {"Driver": {"Name": "default"}, "Configs": configs})},
    )


def _plugins(names: Sequence[str]) -> list[Struct]:
    pairs = sorted(name.partition("/")[::2] for name in names)
    return [_struct("swarm.PluginDescription", {"Type": kind, "Name": name}) for kind, name in pairs]


def node_spec_json(spec: NodeSpec) -> Struct:
    """A NodeSpec of the Engine API."""
    return _struct(
        "swarm.NodeSpec",
        ({"Name": spec.name} if spec.name else {})
        | {"Labels": _strings(spec.labels), "Role": spec.role, "Availability": spec.availability},
        {"Name": spec.name},
    )


def node_spec(body: object, base: NodeSpec | None = None) -> NodeSpec:
    """The spec in the body of a node update; fields it does not name keep `base`'s value. Raises Invalid."""
    spec, old = _object(body, "body"), base or NodeSpec()
    states = ("active", "pause", "drain")
    return NodeSpec(
        name=_text(spec.get("Name"), "Name"),
        labels=_labels(spec.get("Labels"), "Labels"),
        role=_choice(spec.get("Role"), "Role", ("worker", "manager"), old.role),
        availability=_choice(spec.get("Availability"), "Availability", states, old.availability),
    )


def node(obj: Node) -> Struct:
    """A node as the Engine API shows it."""
    description, manager = obj.description, None
    if obj.manager_status is not None:
        status = obj.manager_status
        manager = _struct(
            "*swarm.ManagerStatus",
            {"Leader": True} if status.leader else {},
            {"Leader": status.leader, "Reachability": status.reachability, "Addr": status.addr},
        )
    engine = _struct(
        "swarm.EngineDescription",
        {},
        {
            "EngineVersion": description.engine_version,
            "Labels": _strings(description.engine_labels),
            "Plugins": _plugins(description.plugins),
        },
    )
    described = _struct(
        "swarm.NodeDescription",
        {
            "Hostname": description.hostname,
            "Platform": _platform(description.platform),
            "Resources": _amounts(description.resources, "swarm.Resources", False),
            "Engine": engine,
            "TLSInfo": _struct(
                "swarm.TLSInfo",
                {},
                {"TrustRoot": description.root_ca, "CertIssuerSubject": "", "CertIssuerPublicKey": ""},
            ),
        },
    )
    state = "disconnected" if obj.status.state == NodeState.DISCONNECTED else obj.status.state.name.lower()
    return _struct(
        "swarm.Node",
        {
            **_head(obj.id, obj.meta),
            "Spec": node_spec_json(obj.spec),
            "Description": described,
            "Status": _struct(
                "swarm.NodeStatus",
                {"State": state},
                {"Message": obj.status.message, "Addr": obj.status.addr},
            ),
        },
        {"ManagerStatus": manager},
    )


# ------------------------------------------------------------------------------------------- other nouns

VXLAN_OPTION = "com.docker.network.driver.overlay.vxlanid_list"


def network(obj: Network) -> Struct:
    """A network as `GET /networks/{id}` shows it."""
    spec = obj.spec
    pools = [
        _struct(
            "network.IPAMConfig",
            {},
            {
                "Subnet": pool.subnet,
                "IPRange": asked.ip_range,
                "Gateway": pool.gateway,
                "AuxiliaryAddresses": _strings(asked.aux_addresses),
            },
        )
        for pool, asked in _pools(obj)
    ]
    options = _strings(spec.driver.options)
    if obj.vni:
        options[VXLAN_OPTION] = str(obj.vni)
    return _struct(
        "network.Inspect",
        {
            "Name": spec.name,
            "Id": obj.id,
            "Created": _time(obj.meta.created_at),
            "Scope": spec.scope,
            "Driver": spec.driver.name,
            "EnableIPv4": spec.enable_ipv4,
            "EnableIPv6": spec.enable_ipv6,
            "IPAM": _struct(
                "network.IPAM",
                {
                    "Driver": spec.ipam_driver.name or "default",
                    "Options": _strings(spec.ipam_driver.options) or None,
                    "Config": pools,
                },
            ),
            "Internal": spec.internal,
            "Attachable": spec.attachable,
            "Ingress": spec.ingress,
            "ConfigFrom": _struct("network.ConfigReference", {"Network": ""}),
            "ConfigOnly": False,
            "Containers": {},
            "Options": dict(sorted(options.items())),
            "Labels": _strings(spec.labels),
        },
    )


def _pools(obj: Network) -> list[tuple[IpamPool, IpamPool]]:
    """Each pool as allocated (or as asked for, until then), and what was asked for."""
    blank = IpamPool()
    if not obj.pools:
        return [(pool, pool) for pool in obj.spec.ipam]
    asked = obj.spec.ipam + (blank,) * len(obj.pools)
    return [
        (IpamPool(subnet=pool.subnet, gateway=pool.gateway or wish.gateway), wish)
        for pool, wish in zip(obj.pools, asked, strict=False)
    ]


def network_spec(body: object) -> NetworkSpec:
    """The spec in the body of `POST /networks/create`. Raises Invalid."""
    spec = _object(body, "body")
    ipam = _object(spec.get("IPAM"), "IPAM")
    pools: list[IpamPool] = []
    for index, item in enumerate(_list(ipam.get("Config"), "IPAM.Config")):
        place, pool = f"IPAM.Config[{index}]", _object(item, f"IPAM.Config[{index}]")
        pools.append(
            IpamPool(
                subnet=_text(pool.get("Subnet"), f"{place}.Subnet"),
                ip_range=_text(pool.get("IPRange"), f"{place}.IPRange"),
                gateway=_text(pool.get("Gateway"), f"{place}.Gateway"),
                aux_addresses=_labels(pool.get("AuxiliaryAddresses"), f"{place}.AuxiliaryAddresses"),
            )
        )
    ipam_driver = _text(ipam.get("Driver"), "IPAM.Driver")
    ipv4 = spec.get("EnableIPv4")
    return NetworkSpec(
        name=_text(spec.get("Name"), "Name"),
        labels=_labels(spec.get("Labels"), "Labels"),
        driver=Driver(
            name=_text(spec.get("Driver"), "Driver") or "overlay",
            options=_labels(spec.get("Options"), "Options"),
        ),
        internal=_bool(spec.get("Internal"), "Internal"),
        attachable=_bool(spec.get("Attachable"), "Attachable"),
        ingress=_bool(spec.get("Ingress"), "Ingress"),
        enable_ipv4=True if ipv4 is None else _bool(ipv4, "EnableIPv4"),
        enable_ipv6=_bool(spec.get("EnableIPv6"), "EnableIPv6"),
        scope=_text(spec.get("Scope"), "Scope") or "swarm",
        ipam_driver=Driver(
            name="" if ipam_driver == "default" else ipam_driver,
            options=_labels(ipam.get("Options"), "IPAM.Options"),
        ),
        ipam=tuple(pools),
    )


def volume(obj: Volume, mountpoint: str = "") -> Struct:
    """A volume as the Engine API shows it; `mountpoint` is its directory on each node that has it."""
    return _struct(
        "volume.Volume",
        {
            "CreatedAt": _time(obj.meta.created_at),
            "Driver": obj.spec.driver.name or "local",
            "Labels": _strings(obj.spec.labels) or None,
            "Mountpoint": mountpoint,
            "Name": obj.spec.name,
            "Options": _strings(obj.spec.driver.options) or None,
            "Scope": "local",
        },
        {"Status": {"Node": obj.node_id} if obj.node_id else None},
    )


def volume_spec(body: object) -> VolumeSpec:
    """The spec in the body of `POST /volumes/create`. Raises Invalid."""
    spec = _object(body, "body")
    return VolumeSpec(
        name=_text(spec.get("Name"), "Name"),
        labels=_labels(spec.get("Labels"), "Labels"),
        driver=Driver(
            name=_text(spec.get("Driver"), "Driver") or "local",
            options=_labels(spec.get("DriverOpts"), "DriverOpts"),
        ),
    )


def secret(obj: Secret) -> Struct:
    """A secret without its payload."""
    spec = obj.spec
    shown = _struct(
        "swarm.SecretSpec",
        {"Name": spec.name, "Labels": _strings(spec.labels)},
        {"Driver": _driver(spec.driver), "Templating": _driver(spec.templating)},
    )
    return _struct("swarm.Secret", {**_head(obj.id, obj.meta), "Spec": shown})


def secret_spec(body: object) -> SecretSpec:
    """The spec in the body of `POST /secrets/create`. Raises Invalid."""
    spec = _object(body, "body")
    return SecretSpec(
        name=_text(spec.get("Name"), "Name"),
        labels=_labels(spec.get("Labels"), "Labels"),
        data=_data(spec.get("Data"), "Data"),
        driver=_read_driver(spec.get("Driver"), "Driver"),
        templating=_read_driver(spec.get("Templating"), "Templating"),
    )


def config(obj: Config) -> Struct:
    """A config with its payload, base64."""
    spec = obj.spec
    shown = _struct(
        "swarm.ConfigSpec",
        {"Name": spec.name, "Labels": _strings(spec.labels)},
        {"Data": base64.b64encode(spec.data).decode(), "Templating": _driver(spec.templating)},
    )
    return _struct("swarm.Config", {**_head(obj.id, obj.meta), "Spec": shown})


def config_spec(body: object) -> ConfigSpec:
    """The spec in the body of `POST /configs/create`. Raises Invalid."""
    spec = _object(body, "body")
    return ConfigSpec(
        name=_text(spec.get("Name"), "Name"),
        labels=_labels(spec.get("Labels"), "Labels"),
        data=_data(spec.get("Data"), "Data"),
        templating=_read_driver(spec.get("Templating"), "Templating"),
    )


# ------------------------------------------------------------------------------------------- the cluster


def cluster_spec_json(spec: ClusterSpec) -> Struct:
    """The Engine API's swarm Spec. Raft's own tuning is shown as Swarm's defaults: the store has its own."""
    raft = {
        "SnapshotInterval": 10000,
        "KeepOldSnapshots": 0,
        "LogEntriesForSlowFollowers": 500,
        "ElectionTick": 10,
        "HeartbeatTick": 1,
    }
    return _struct(
        "swarm.Spec",
        {
            "Name": spec.name,
            "Labels": _strings(spec.labels),
            "Orchestration": _struct(
                "swarm.OrchestrationConfig", {"TaskHistoryRetentionLimit": spec.task_history_limit}
            ),
            "Raft": _struct("swarm.RaftConfig", raft),
            "Dispatcher": _struct(
                "swarm.DispatcherConfig", {"HeartbeatPeriod": nanos(spec.heartbeat_period)}
            ),
            "CAConfig": _struct(
                "swarm.CAConfig",
                {"NodeCertExpiry": nanos(spec.node_cert_expiry)},
                {"ExternalCAs": [_external_ca(ca) for ca in spec.external_cas]},
            ),
            "TaskDefaults": _struct(
                "swarm.TaskDefaults", {}, {"LogDriver": _driver(spec.default_log_driver)}
            ),
            "EncryptionConfig": _struct("swarm.EncryptionConfig", {"AutoLockManagers": spec.autolock}),
        },
        _extra(spec, _CLUSTER_EXTRA),
    )


def _external_ca(ca: ExternalCA) -> Struct:
    return _struct("swarm.ExternalCA", {"Protocol": ca.protocol, "URL": ca.url}, {"CACert": ca.ca_cert})


def cluster(obj: Cluster, *, join_tokens: tuple[str, str] | None = None) -> Struct:
    """The cluster as `GET /swarm` shows it; `join_tokens` are the whole tokens (worker, manager)."""
    tokens = {}
    if join_tokens is not None:
        worker, manager = join_tokens
        tokens = {"JoinTokens": _struct("swarm.JoinTokens", {"Worker": worker, "Manager": manager})}
    return _struct(
        "swarm.Swarm",
        {
            **_head(obj.id, obj.meta),
            "Spec": cluster_spec_json(obj.spec),
            "TLSInfo": _struct(
                "swarm.TLSInfo",
                {},
                {"TrustRoot": obj.root_ca.cert, "CertIssuerSubject": "", "CertIssuerPublicKey": ""},
            ),
            "RootRotationInProgress": obj.root_ca.rotation is not None,
            "DefaultAddrPool": list(obj.spec.default_address_pool),
            "SubnetSize": obj.spec.subnet_size,
            "DataPathPort": obj.spec.data_path_port,
            **tokens,
        },
    )


def info(found: InfoResponse, own: Node | None, state: str = "active", *, manager: bool = True) -> Struct:
    """`GET /info` of the manager that answers, as far as it has a meaning for a cluster; `own` is its node. Of a
    machine without a manager that answers, `state` says what it is: inactive, locked, or an active worker."""
    description = own.description if own else None
    spec = found.cluster.spec if found.cluster else None
    shown: dict[str, Any] = {}
    if found.cluster is not None and spec is not None:
        whole = cluster(found.cluster)
        names = ("ID", "Version", "CreatedAt", "UpdatedAt", "Spec", "TLSInfo", "RootRotationInProgress")
        shown = {name: whole[name] for name in (*names, "DefaultAddrPool", "SubnetSize", "DataPathPort")}
    swarm = Struct(
        {
            "NodeID": found.node_id,
            "NodeAddr": found.node_addr,
            "LocalNodeState": state,
            "ControlAvailable": manager,
            "Error": "",
            "RemoteManagers": [{"Addr": address} for address in found.manager_addresses],
            "Nodes": found.nodes,
            "Managers": found.managers,
            "Cluster": Struct(shown),
        }
    )
    resources = description.resources if description else None
    return Struct(
        {
            "ID": found.node_id,
            "Name": description.hostname if description else "",
            "Containers": found.tasks,
            "ContainersRunning": found.tasks_running,
            "ContainersPaused": 0,
            "ContainersStopped": max(0, found.tasks - found.tasks_running),
            "ServerVersion": found.version,
            "RaftVersion": found.raft_version,
            "IsLeader": found.is_leader,
            "Services": found.services,
            "NCPU": (resources.nano_cpus // 1_000_000_000) if resources else 0,
            "MemTotal": resources.memory if resources else 0,
            "OSType": "linux",
            "OperatingSystem": description.os_name if description else "",
            "Architecture": description.platform.architecture if description else "",
            "KernelVersion": description.kernel if description else "",
            "DockerRootDir": found.state_dir,
            "RunDir": found.run_dir,
            "Driver": "overlay",
            "LoggingDriver": "json-file",
            "CgroupVersion": description.cgroup.partition("/")[0].removeprefix("v") if description else "",
            "CgroupDriver": description.cgroup.partition("/")[2] if description else "",
            "Labels": [f"{k}={v}" for k, v in sorted(description.engine_labels.items())]
            if description
            else [],
            "Swarm": swarm,
        }
    )


def cluster_spec(body: object, base: ClusterSpec | None = None) -> ClusterSpec:
    """The spec in the body of a swarm update; what it does not name keeps `base`'s value. Raises Invalid."""
    spec, old = _object(body, "body"), base or ClusterSpec()

    def part(name: str, field: str) -> Any:
        return _object(spec.get(name), name).get(field)

    history = part("Orchestration", "TaskHistoryRetentionLimit")
    heartbeat = part("Dispatcher", "HeartbeatPeriod")
    expiry = part("CAConfig", "NodeCertExpiry")
    lock = part("EncryptionConfig", "AutoLockManagers")
    log_driver = part("TaskDefaults", "LogDriver")
    return replace(
        old,
        name=_text(spec.get("Name"), "Name") or old.name,
        labels=_labels(spec.get("Labels"), "Labels"),
        task_history_limit=old.task_history_limit if history is None else _int(history, "Orchestration"),
        heartbeat_period=(seconds(heartbeat, "Dispatcher.HeartbeatPeriod") or old.heartbeat_period),
        node_cert_expiry=(seconds(expiry, "CAConfig.NodeCertExpiry") or old.node_cert_expiry),
        autolock=old.autolock if lock is None else _bool(lock, "EncryptionConfig.AutoLockManagers"),
        default_log_driver=_read_driver(log_driver, "TaskDefaults.LogDriver"),
        **_read_extra(ClusterSpec, spec, _CLUSTER_EXTRA, "Spec"),
    )
