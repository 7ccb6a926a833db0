"""A loaded project: typed values for those who run it, and the canonical dictionary for those who look."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import yaml

from compose.errors import Position, Problem
from compose.interpolate import Variable
from compose.model import FileObject, LanguageModel, Network, Service, Volume
from compose.tree import Node, mapping, plain, sequence


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes of a secret or config, or why there are none."""

    data: bytes = b""
    missing: str = ""
    """What went wrong, for the message of whoever needs the data; "" when all is well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """All that the files said, in canonical form. Never changed after loading."""

    name: str
    directory: str
    """Absolute: what relative paths of the first file were resolved against."""
    services: Mapping[str, Service]
    """Those that are enabled, by name."""
    disabled: Mapping[str, Service]
    """Those that no chosen profile enables."""
    networks: Mapping[str, Network]
    volumes: Mapping[str, Volume]
    secrets: Mapping[str, FileObject]
    configs: Mapping[str, FileObject]
    models: Mapping[str, LanguageModel]
    environment: Mapping[str, str]
    """What variables were filled in from: the caller's environment on top of the .env files."""
    warnings: tuple[Problem, ...] = ()
    files: tuple[str, ...] = ()
    """Every Compose file that was read, included and extended ones too."""
    variables: tuple[Variable, ...] = ()
    contents: Mapping[tuple[str, str], Content] = field(default_factory=dict[tuple[str, str], Content])
    """("secret" or "config", key) -> data."""
    tree: Node = field(default_factory=lambda: Node({}), repr=False, compare=False)
    """The canonical tree with places, for messages of later steps."""

    def position(self, *path: str | int) -> Position:
        """Where the value at `path` was written: `position("services", "web", "ports", 0)`."""
        node = self.tree
        position = node.pos
        for key in path:
            if isinstance(key, int):
                items = sequence(node)
                child = items[key] if key < len(items) else None
                below = child.pos if child is not None else position
            else:
                child = node.get(key)
                below = node.key_position(key)
            if child is None:
                break
            node, position = child, below
        return position

    def canonical(self, *, escape: bool = True, keep_env_files: bool = False) -> dict[str, object]:
        """What `docker compose config --format json` prints, as plain values.

        Resources that no enabled service uses are left out, and so are `env_file` entries, whose variables
        stand in `environment`. `escape` doubles dollar signs, so that the output loads to the same again.
        """
        return canonical_form(self.tree, escape=escape, keep_env_files=keep_env_files)

    def hash(self, service: str) -> str:
        """SHA-256 of a service's canonical form; scale and what only decides when to start do not count."""
        value = self.canonical(escape=False)["services"]
        assert isinstance(value, dict)
        mine: dict[str, object] = dict(value[service])  # pyright: ignore[reportUnknownArgumentType]
        for key in ("depends_on", "scale", "profiles", "pull_policy", "build"):
            mine.pop(key, None)
        deploy = mine.get("deploy")
        if isinstance(deploy, dict):
            mine["deploy"] = {key: part for key, part in deploy.items() if key != "replicas"}  # pyright: ignore[reportUnknownVariableType]
        text = json.dumps(mine, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def render(value: object, form: Literal["json", "yaml"]) -> str:
    """A canonical dictionary as text, as `compose config` prints it."""
    if form == "json":
        return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    return yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=4096
    )


class _Dumper(yaml.CSafeDumper):
    """Quotes every string that another reader of YAML might take for something else, and writes no aliases."""

    def ignore_aliases(self, data: object) -> bool:
        return True


_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./@ -]*\Z")
_WORDS = frozenset(["y", "yes", "n", "no", "on", "off", "true", "false", "null"])


def _represent_text(dumper: yaml.CSafeDumper, text: str) -> yaml.ScalarNode:
    plain_text = _PLAIN.match(text) and text.lower() not in _WORDS and not text.endswith(" ")
    style = (
        None if plain_text else "|" if "\n" in text and all(map(str.isprintable, text.split("\n"))) else '"'
    )
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def canonical_form(tree: Node, *, escape: bool, keep_env_files: bool) -> dict[str, object]:
    """A canonical tree as plain values; see `Project.canonical`."""
    return _Printer(tree, escape, keep_env_files).print()


class _Printer:
    def __init__(self, tree: Node, escape: bool, keep_env_files: bool) -> None:
        self._tree = tree
        self._escape = escape
        self._keep_env_files = keep_env_files

    def print(self) -> dict[str, object]:
        services = {
            name: self._service(node) for name, node in sorted(mapping(self._tree.get("services")).items())
        }
        done: dict[str, object] = {
            "name": self._tree.get("name") and plain(self._tree.get("name") or Node(""))
        }
        done["services"] = services
        for kind in ("networks", "volumes", "secrets", "configs", "models"):
            entries = mapping(self._tree.get(kind))
            used = _used(kind, mapping(self._tree.get("services")))
            kept = {key: self._plain(entries[key]) for key in sorted(entries) if key in used}
            if kept:
                done[kind] = {key: _without_empty(entry) for key, entry in kept.items()}
        for key, node in mapping(self._tree).items():
            if key.startswith("x-"):
                done[key] = self._plain(node)
        return done

    def _service(self, node: Node) -> dict[str, object]:
        value = mapping(node)
        done: dict[str, object] = {"command": None, "entrypoint": None}
        for key, child in sorted(value.items()):
            if key == "env_file" and not self._keep_env_files:
                continue
            if key == "label_file" and not self._keep_env_files:
                continue
            if _left_out(key, child.value):
                continue
            printed = self._plain(child, within=key)
            if _is_default(key, printed):
                continue
            done[key] = printed
        return done

    def _plain(self, node: Node, extension: bool = False, within: str = "") -> object:
        """A value without the parts that say nothing. `within` is the key that it stands at."""
        value = node.value
        if isinstance(value, str):
            return value.replace("$", "$$") if self._escape else value
        if isinstance(value, dict):
            entries: dict[str, object] = {}
            for key, child in value.items():
                outside = extension or key.startswith("x-")
                if outside or not (_left_out(key, child.value) or _no_pause(within, key, child.value)):
                    entries[key] = self._plain(child, outside, key)
            return entries
        if isinstance(value, list):
            return [self._plain(child, extension) for child in value]
        return value


_SWITCHES = frozenset(("attach", "init", "enable_ipv4", "enable_ipv6", "required", "create_host_path"))
"""Printed when false too: nothing said is not the same."""
_COUNTS = frozenset(
    ("replicas", "scale", "parallelism", "retries", "max_attempts", "soft", "hard", "value", "target")
)
"""Printed when 0 too."""
_SIZES = frozenset(
    ("mem_limit", "mem_reservation", "mem_swappiness", "memswap_limit", "shm_size", "memory", "size", "rate")
)
_COLLECTIONS = frozenset(
    (
        "additional_contexts",
        "args",
        "aux_addresses",
        "driver_opts",
        "environment",
        "labels",
        "options",
        "ulimits",
    )
)
"""Mappings that say nothing when they are empty; of the others it matters that they are there."""


def _left_out(key: str, value: object) -> bool:
    """Whether an attribute is not printed because it says nothing, as docker compose has it."""
    if value is False:
        return key not in _SWITCHES
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == 0:
        return key not in _COUNTS
    if value == "0":
        return key in _SIZES
    if value == []:
        return key not in ("command", "entrypoint")
    return value == {} and key in _COLLECTIONS


def _no_pause(within: str, key: str, value: object) -> bool:
    """Whether it is a pause of no length in an update: docker compose prints that only for health checks and
    restarts."""
    return value == "0s" and key in ("delay", "monitor") and within in ("update_config", "rollback_config")


_KEPT_WHEN_EMPTY = frozenset(
    (
        "attach",
        "blkio_config",
        "build",
        "command",
        "credential_spec",
        "deploy",
        "develop",
        "entrypoint",
        "healthcheck",
        "init",
        "logging",
        "scale",
    )
)


def _says_nothing(value: object) -> bool:
    return value is None or value == "" or value is False or value == [] or value == {}


def _is_default(key: str, value: object) -> bool:
    """Whether a service's attribute says nothing: empty lists and mappings, null, false and ""."""
    if key in _KEPT_WHEN_EMPTY or key.startswith("x-"):
        return value is None and key in ("healthcheck", "develop")
    return _says_nothing(value)


def _without_empty(entry: object) -> object:
    """A network, volume, secret or config without what says nothing."""
    if not isinstance(entry, dict):
        return entry
    fields: dict[str, object] = entry  # pyright: ignore[reportUnknownVariableType]  # keys are strings here
    kept = ("ipam", "content", "enable_ipv4", "enable_ipv6")
    return {
        key: value
        for key, value in fields.items()
        if key in kept or key.startswith("x-") or not _says_nothing(value)
    }


def _used(kind: str, services: Mapping[str, Node]) -> set[str]:
    """Names of the resources of a kind that the services refer to."""
    used: set[str] = set()
    for service in services.values():
        if kind in ("networks", "models"):
            used.update(mapping(service.get(kind)))
        elif kind == "volumes":
            for mount in _items(service, "volumes"):
                source, form = mount.get("source"), mount.get("type")
                if source is not None and form is not None and form.value == "volume":
                    used.add(source.text())
        else:
            build = service.get("build")
            items = [*_items(service, kind), *(_items(build, kind) if build is not None else [])]
            used.update(source.text() for item in items if (source := item.get("source")) is not None)
            spec = service.get("credential_spec")
            config = spec.get("config") if spec is not None else None
            if kind == "configs" and config is not None:
                used.add(config.text())
    return used


def _items(node: Node, key: str) -> list[Node]:
    child = node.get(key)
    return child.value if child is not None and isinstance(child.value, list) else []
