"""Words of the command line as values: durations, sizes, mounts, ports, references; pure.

The grammars are docker's own, so that a flag that works there works here. Errors are Invalid and repeat the
word that could not be read.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from pyswarm.errors import Invalid
from pyswarm.specs import (
    Driver,
    FileReference,
    GenericResource,
    Mount,
    NetworkAttachmentSpec,
    PortConfig,
    SpreadPreference,
    Ulimit,
)

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_SIZE = re.compile(r"^(\d+(?:\.\d+)?|\.\d+)\s*([kmgtp]?)i?b?$", re.IGNORECASE)


def duration(text: str) -> float:
    """Go's durations in seconds: `1h30m`, `1.5s`, `250ms`; `0` needs no unit."""
    sign, rest = (-1.0, text[1:]) if text.startswith("-") else (1.0, text.removeprefix("+"))
    if rest == "0":
        return 0.0
    found = list(_DURATION.finditer(rest))
    if not found or "".join(match.group() for match in found) != rest:
        raise Invalid(f"invalid duration {text!r}: write a number with a unit, such as 10s, 500ms or 1h30m")
    return sign * sum(float(match.group(1)) * _UNITS[match.group(2)] for match in found)


def size(text: str) -> int:
    """Bytes from `512m`, `1.5g`, `100`: units are powers of 1,024, as `docker run --memory` takes them."""
    match = _SIZE.match(text.strip())
    if not match:
        raise Invalid(f"invalid size {text!r}: write a number with b, k, m, g or t, such as 512m")
    power = " kmgtp".index(match.group(2).lower() or " ")
    return int(float(match.group(1)) * 1024**power)


def cpus(text: str) -> int:
    """Billionths of a core from a decimal number of cores: `0.5`."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        raise Invalid(f"invalid number of CPUs {text!r}: write a decimal number such as 0.5")
    return round(value * 1_000_000_000)


def tagged(reference: str) -> str:
    """An image reference with docker's default tag."""
    if "@" in reference or ":" in reference.rpartition("/")[2]:
        return reference
    return f"{reference}:latest"


def pairs(entries: Sequence[str]) -> dict[str, str]:
    """`key=value` words as a mapping; a bare key has the empty value. A later one wins."""
    return {key: value for key, _, value in (entry.partition("=") for entry in entries)}


def environment(entries: Sequence[str], files: Sequence[str], environ: Mapping[str, str]) -> tuple[str, ...]:
    """`--env` over `--env-file`: `NAME=value`; a bare NAME takes the caller's value, or is left out."""
    lines = [line for path in files for line in _env_file(path)]
    found: dict[str, str] = {}
    for entry in (*lines, *entries):
        name, separator, _ = entry.partition("=")
        if not name:
            raise Invalid(f"invalid environment variable: {entry}")
        if separator:
            found[name] = entry
        elif name in environ:
            found[name] = f"{name}={environ[name]}"
    return tuple(found.values())


def _env_file(path: str) -> list[str]:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"cannot read the environment file {path}: {error}") from None
    lines = (line.lstrip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _fields(text: str, what: str) -> list[tuple[str, str | None]]:
    """One line of comma separated `key=value` or bare keys, quoted as CSV."""
    rows = list(csv.reader([text]))
    if len(rows) != 1 or not rows[0]:
        raise Invalid(f"invalid {what}: {text!r}")
    found: list[tuple[str, str | None]] = []
    for field in rows[0]:
        key, separator, value = field.partition("=")
        found.append((key.strip().lower(), value if separator else None))
    return found


_TRUE, _FALSE = ("1", "t", "true"), ("0", "f", "false")


def boolean(value: str | None, key: str) -> bool:
    """Go's booleans; a bare key is true."""
    text = "true" if value is None else value.lower()
    if text not in _TRUE and text not in _FALSE:
        raise Invalid(f"invalid value for {key}: {value}: write true or false")
    return text in _TRUE


def mount(text: str) -> Mount:
    """`--mount type=volume,source=data,target=/data,readonly`, with every key that docker has."""
    fields: dict[str, Any] = {"type": "volume", "bind_create_host_path": False}
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    driver = ""
    for key, value in _fields(text, "mount"):
        given = value or ""
        if key in ("readonly", "ro"):
            fields["read_only"] = boolean(value, key)
        elif key in ("volume-nocopy", "bind-nonrecursive", "bind-create-src"):
            name = {"volume-nocopy": "volume_no_copy", "bind-nonrecursive": "bind_non_recursive"}
            fields[name.get(key, "bind_create_host_path")] = boolean(value, key)
        elif value is None:
            raise Invalid(f"invalid field {key!r} in mount {text!r}: must be a key=value pair")
        elif key in _MOUNT_TEXT:
            fields[_MOUNT_TEXT[key]] = given
        elif key == "type":
            fields["type"] = given.lower()
        elif key == "volume-driver":
            driver = given
        elif key in ("volume-label", "volume-opt"):
            (labels if key == "volume-label" else options).update(pairs([given]))
        elif key == "tmpfs-size":
            fields["tmpfs_size"] = size(given)
        elif key == "tmpfs-mode":
            fields["tmpfs_mode"] = _octal(given, key)
        elif key == "bind-recursive":
            fields["bind_non_recursive"] = _recursive(given)
        else:
            raise Invalid(f"unexpected key {key!r} in mount {text!r}")
    if driver or options:
        fields["volume_driver"] = Driver(name=driver, options=options)
    return _checked_mount(
        Mount(volume_labels=labels, **fields), text, {key for key, _ in _fields(text, "mount")}
    )


_MOUNT_TEXT = {
    "source": "source",
    "src": "source",
    "target": "target",
    "dst": "target",
    "destination": "target",
    "consistency": "consistency",
    "bind-propagation": "bind_propagation",
    "volume-subpath": "volume_subpath",
}
_MOUNT_TYPES = ("bind", "volume", "tmpfs", "image", "cluster", "npipe")


def _recursive(value: str) -> bool:
    if value not in ("enabled", "disabled", "writable", "readonly"):
        raise Invalid(
            f"invalid value for bind-recursive: {value}: write enabled, disabled, writable or readonly"
        )
    return value == "disabled"


def _octal(text: str, key: str) -> int:
    try:
        return int(text, 8)
    except ValueError:
        raise Invalid(f"invalid value for {key}: {text}: write an octal mode such as 0400") from None


def _checked_mount(found: Mount, text: str, keys: set[str]) -> Mount:
    if found.type not in _MOUNT_TYPES:
        raise Invalid(
            f"invalid mount type {found.type!r} in {text!r}: choose one of {', '.join(_MOUNT_TYPES)}"
        )
    if not found.target:
        raise Invalid(f"target is required in mount {text!r}")
    for kind in ("volume", "bind", "tmpfs"):
        odd = sorted(key for key in keys if key.startswith(f"{kind}-"))
        if odd and found.type != kind:
            raise Invalid(f"cannot mix {odd[0]} with mount type {found.type!r} in {text!r}")
    if found.type == "bind" and not found.source:
        raise Invalid(f"source is required in bind mount {text!r}")
    if found.type == "bind" and found.source.startswith("."):
        return _with_create(found, source=str(Path(found.source).absolute()))
    return _with_create(found)


def _with_create(found: Mount, source: str = "") -> Mount:
    from dataclasses import replace

    create = found.bind_create_host_path if found.type == "bind" else True
    return replace(found, bind_create_host_path=create, source=source or found.source)


def references(entries: Sequence[str], kind: str) -> tuple[FileReference, ...]:
    """`--secret NAME` or `--secret source=NAME,target=FILE,uid=0,gid=0,mode=0444`; configs alike."""
    found = tuple(_reference(entry, kind) for entry in entries)
    targets = [ref.target for ref in found]
    for target in targets:
        if targets.count(target) > 1:
            raise Invalid(f"duplicate {kind} target for {target} not allowed")
    return found


def _reference(text: str, kind: str) -> FileReference:
    fields = _fields(text, kind)
    if len(fields) == 1 and fields[0][1] is None:
        name = next(iter(csv.reader([text])))[0]
        return FileReference(source_name=name, target=name)
    found: dict[str, Any] = {}
    for key, value in fields:
        if value is None:
            raise Invalid(f"invalid field {key!r} in {kind} {text!r}: must be a key=value pair")
        if key in ("source", "src"):
            found["source_name"] = value
        elif key == "target":
            found["target"] = value
        elif key in ("uid", "gid"):
            found[key] = value
        elif key == "mode":
            found["mode"] = _octal(value, key)
        else:
            raise Invalid(f"invalid field in {kind} request: {key}")
    if not found.get("source_name"):
        raise Invalid(f"source is required in {kind} {text!r}")
    found.setdefault("target", found["source_name"])
    return FileReference(**found)


def network(text: str) -> NetworkAttachmentSpec:
    """`--network NAME` or `--network name=NAME,alias=A,driver-opt=K=V,ip=ADDRESS`."""
    fields = _fields(text, "network")
    if all(value is None for _, value in fields):
        return NetworkAttachmentSpec(target=text)
    target = mac = ""
    aliases: list[str] = []
    addresses: list[str] = []
    options: dict[str, str] = {}
    for key, value in fields:
        if value is None:
            raise Invalid(f"invalid field {key!r} in network {text!r}: must be a key=value pair")
        if key == "name":
            target = value
        elif key == "alias":
            aliases.append(value)
        elif key in ("ip", "ip6"):
            addresses.append(value)
        elif key == "mac-address":
            mac = value
        elif key == "driver-opt":
            options.update(pairs([value]))
        else:
            raise Invalid(f"invalid field key {key!r} in network {text!r}")
    if not target:
        raise Invalid(f"name is required in network {text!r}")
    return NetworkAttachmentSpec(
        target=target,
        aliases=tuple(aliases),
        addresses=tuple(addresses),
        driver_opts=options,
        mac_address=mac,
    )


def ports(text: str) -> tuple[PortConfig, ...]:
    """`--publish`: `8080:80`, `53:53/udp`, `80`, `8000-8002:80-82`, `127.0.0.1:8080:80`, or
    `published=8080,target=80,protocol=tcp,mode=host`."""
    return _long_port(text) if "=" in text else _short_ports(text)


def _long_port(text: str) -> tuple[PortConfig, ...]:
    target: list[int] = []
    published: list[int] = []
    protocol: Any = "tcp"
    mode: Any = "ingress"
    more: dict[str, str] = {}
    for key, value in _fields(text, "port"):
        if value is None:
            raise Invalid(f"invalid field {key!r} in port {text!r}: must be a key=value pair")
        if key == "protocol":
            protocol = _protocol(value, text)
        elif key == "mode":
            if value.lower() not in ("ingress", "host"):
                raise Invalid(f"invalid publish mode value {value!r} (must be either 'ingress' or 'host')")
            mode = value.lower()
        elif key == "target":
            target = _port_range(value, text)
        elif key == "published":
            published = _port_range(value, text)
        elif key in ("name", "host_ip", "app_protocol"):
            more[key] = value
        else:
            raise Invalid(f"invalid field key {key!r} in port {text!r}")
    if not target:
        raise Invalid(f"missing mandatory field 'target' in port {text!r}")
    shared: dict[str, Any] = {"protocol": protocol, "publish_mode": mode, **more}
    return _paired(published, target, text, shared)


def _protocol(value: str, text: str) -> Literal["tcp", "udp", "sctp"]:
    if value.lower() not in ("tcp", "udp", "sctp"):
        raise Invalid(f"invalid protocol value {value!r} in port {text!r}: choose tcp, udp or sctp")
    return cast("Literal['tcp', 'udp', 'sctp']", value.lower())


def _short_ports(text: str) -> tuple[PortConfig, ...]:
    body, _, protocol = text.partition("/")
    address, rest = "", body
    if body.startswith("["):
        address, _, rest = body[1:].partition("]:")
    elif body.count(":") > 1:
        address, _, rest = body.partition(":")
    outer, separator, inner = rest.rpartition(":")
    shared: dict[str, Any] = {"protocol": _protocol(protocol or "tcp", text), "host_ip": address}
    published = _port_range(outer, text) if separator and outer else []
    return _paired(published, _port_range(inner, text), text, shared)


def _port_range(value: str, text: str) -> list[int]:
    low, separator, high = value.partition("-")
    try:
        first, last = int(low), int(high) if separator else int(low)
    except ValueError:
        raise Invalid(
            f"invalid port {value!r} in {text!r}: write a number or a range such as 80-82"
        ) from None
    if not (0 < first <= last <= 65535):
        raise Invalid(f"invalid port {value!r} in {text!r}: ports are 1 to 65535")
    return list(range(first, last + 1))


def _paired(
    published: list[int], target: list[int], text: str, shared: Mapping[str, Any]
) -> tuple[PortConfig, ...]:
    if not published:
        return tuple(PortConfig(target_port=port, **shared) for port in target)
    if len(target) == 1 and len(published) > 1:
        raise Invalid(f"invalid published port {text!r}: a range needs a target range of the same length")
    if len(published) != len(target):
        raise Invalid(f"invalid ranges in port {text!r}: they differ in length")
    return tuple(
        PortConfig(target_port=inner, published_port=outer, **shared)
        for outer, inner in zip(published, target, strict=True)
    )


def preference(text: str) -> SpreadPreference:
    """`--placement-pref spread=node.labels.zone`."""
    strategy, separator, descriptor = text.partition("=")
    if not separator or not descriptor:
        raise Invalid(f'placement preference {text!r} must be of the format "<strategy>=<arg>"')
    if strategy.strip() != "spread":
        raise Invalid(f"unsupported placement preference {strategy} (only spread is supported)")
    return SpreadPreference(spread_descriptor=descriptor.strip())


def generic_resources(entries: Sequence[str]) -> tuple[GenericResource, ...]:
    """`--generic-resource gpu=2`: a service asks for a number of a kind."""
    found: dict[str, GenericResource] = {}
    for entry in (part for text in entries for part in text.split(",")):
        kind, _, value = entry.partition("=")
        if not kind or not value.isdigit():
            raise Invalid(f"invalid generic-resource request {entry!r}: write KIND=NUMBER")
        found[kind] = GenericResource(kind=kind, value=int(value))
    return tuple(found.values())


def ulimit(text: str) -> Ulimit:
    """`--ulimit nofile=1024:2048`; one number sets both, -1 is unlimited."""
    name, separator, value = text.partition("=")
    soft, _, hard = value.partition(":")
    try:
        low, high = int(soft), int(hard or soft)
    except ValueError:
        raise Invalid(f"invalid ulimit argument: {text}: write NAME=SOFT[:HARD]") from None
    if not separator or (high != -1 and (low > high or low == -1)):
        raise Invalid(f"invalid ulimit argument: {text}: soft limit must not exceed the hard limit")
    return Ulimit(name=name, soft=low, hard=high)


def host(text: str) -> str:
    """`--host name:address` as a line of /etc/hosts."""
    name, separator, address = text.partition(":")
    if not separator or not name or not address:
        name, separator, address = text.partition("=")
    if not separator or not name or not address:
        raise Invalid(f"bad format for add-host: {text!r}: write NAME:ADDRESS")
    return f"{address.strip('[]')} {name}"


def filters(entries: Sequence[str]) -> list[tuple[str, str]]:
    """`--filter key=value` words."""
    found: list[tuple[str, str]] = []
    for entry in entries:
        key, separator, value = entry.partition("=")
        if not separator:
            raise Invalid(f"invalid filter {entry!r}: write KEY=VALUE")
        found.append((key.strip().lower(), value.strip()))
    return found
