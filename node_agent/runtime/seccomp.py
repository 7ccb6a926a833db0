"""Seccomp profiles: from the form of Docker and containers-common to the OCI configuration's.

A profile in Docker's form is a superset of the OCI one: an `archMap` instead of `architectures`, and rules
with `includes` and `excludes` by architecture, capability and kernel version. Conversion is pure;
`Profiles` reads the distribution's default once and keeps the JSON text made for each set of capabilities,
since that text is the larger part of every config.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyswarm.errors import Invalid, MissingProgram

DEFAULT_PATH = Path("/usr/share/containers/seccomp.json")
PACKAGE = "golang-github-containers-common"

Json = dict[str, Any]  # a JSON document's own shape

_SCMP_ARCH: Mapping[str, str] = {
    "x86_64": "SCMP_ARCH_X86_64",
    "aarch64": "SCMP_ARCH_AARCH64",
    "armv7l": "SCMP_ARCH_ARM",
    "i686": "SCMP_ARCH_X86",
    "ppc64le": "SCMP_ARCH_PPC64LE",
    "riscv64": "SCMP_ARCH_RISCV64",
    "s390x": "SCMP_ARCH_S390X",
}
_GO_ARCH: Mapping[str, str] = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "i686": "x86",
}
_ERRNO: Mapping[str, int] = {"EPERM": 1, "EINVAL": 22, "ENOSYS": 38}


_ADMIN = "CAP_SYS_ADMIN"
_ADMIN_NAMES = (
    "clone3 fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree pivot_root setns umount "
    "umount2 unshare"
)
_ADMIN_CALLS = frozenset(_ADMIN_NAMES.split())
"""Calls that Docker's default profile allows only with CAP_SYS_ADMIN, and containers-common's, which is made
for containers in containers, allows to all."""
_KEYRING_CALLS = frozenset(("add_key", "keyctl", "request_key"))
"""The kernel's keyrings are not namespaced: Docker's profile allows them to nobody."""
_CLONE_NAMESPACES = 0x7E020000
"""The CLONE_NEW* flags; in the first argument of clone(2), but for s390, where it is the second."""


def as_strict_as_docker(profile: Json) -> Json:
    """The profile with those calls taken out of its unconditional rules, under Docker's conditions."""
    taken = _ADMIN_CALLS | _KEYRING_CALLS | {"clone"}
    rules: list[Json] = []
    for entry in profile.get("syscalls") or ():
        if entry.get("action") == "SCMP_ACT_ALLOW" and not entry.get("includes"):
            entry = {**entry, "names": [name for name in entry.get("names") or () if name not in taken]}
        if entry.get("names"):
            rules.append(entry)
    admin: list[str] = sorted(_ADMIN_CALLS - {"clone3"})
    flags: Json = {"index": 0, "value": _CLONE_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
    rules += [
        _conditional([*admin, "clone", "clone3"], "includes"),
        {**_conditional(admin, "excludes"), "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
        {**_conditional(["clone3"], "excludes"), "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
        {
            **_conditional(["clone"], "excludes"),
            "args": [flags],
            "excludes": {"caps": [_ADMIN], "arches": ["s390", "s390x"]},
        },
        {
            **_conditional(["clone"], "excludes"),
            "args": [{**flags, "index": 1}],
            "includes": {"arches": ["s390", "s390x"]},
        },
        {"names": sorted(_KEYRING_CALLS), "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
    ]
    return {**profile, "syscalls": rules}


def _conditional(names: Sequence[str], condition: str) -> Json:
    return {"names": list(names), "action": "SCMP_ACT_ALLOW", condition: {"caps": [_ADMIN]}}


@dataclass(frozen=True, slots=True)
class Machine:
    """What the conditions of a profile look at."""

    machine: str
    """As `uname -m` says."""
    kernel: tuple[int, int] = (4, 8)


def convert(profile: Json, machine: Machine, capabilities: frozenset[str]) -> Json:
    """The OCI `linux.seccomp` object for a container with these capabilities on this machine.

    Rules whose condition does not hold are left out, and so are those that only repeat the default action.
    A listener's path is left out too: it would make the runtime, as root, connect to any socket of the node.
    Invalid when the document is no profile.
    """
    default = profile.get("defaultAction")
    if not isinstance(default, str):
        raise Invalid("security_opt seccomp: the profile has no defaultAction")
    result: Json = {"defaultAction": default}
    default_errno = _errno(profile, "defaultErrnoRet", "defaultErrno")
    if default_errno is not None:
        result["defaultErrnoRet"] = default_errno
    architectures = _architectures(profile, machine)
    if architectures:
        result["architectures"] = architectures
    if profile.get("flags"):
        result["flags"] = profile["flags"]
    rules = [
        _rule(entry) for entry in profile.get("syscalls") or () if _applies(entry, machine, capabilities)
    ]
    result["syscalls"] = _unique(
        rule
        for rule in rules
        if not _is_default(rule, default, 1 if default_errno is None else default_errno)
    )
    return result


def _architectures(profile: Json, machine: Machine) -> list[str]:
    native = _SCMP_ARCH.get(machine.machine, "")
    for entry in profile.get("archMap") or ():
        if entry.get("architecture") == native:
            return [native, *(entry.get("subArchitectures") or ())]
    if profile.get("architectures"):
        return list(profile["architectures"])
    return [native] if native and profile.get("archMap") else []


def _applies(entry: Json, machine: Machine, capabilities: frozenset[str]) -> bool:
    includes: Json = entry.get("includes") or {}
    excludes: Json = entry.get("excludes") or {}
    arch = _GO_ARCH.get(machine.machine, machine.machine)
    if includes.get("arches") and arch not in includes["arches"]:
        return False
    if any(name not in capabilities for name in includes.get("caps") or ()):
        return False
    if includes.get("minKernel") and machine.kernel < _version(includes["minKernel"]):
        return False
    if arch in (excludes.get("arches") or ()):
        return False
    if any(name in capabilities for name in excludes.get("caps") or ()):
        return False
    return not (excludes.get("minKernel") and machine.kernel >= _version(excludes["minKernel"]))


def _rule(entry: Json) -> Json:
    names: Sequence[str] = entry.get("names") or ([entry["name"]] if entry.get("name") else [])
    rule: Json = {"names": list(names), "action": entry.get("action", "")}
    errno = _errno(entry, "errnoRet", "errno")
    if errno is not None:
        rule["errnoRet"] = errno
    if entry.get("args"):
        rule["args"] = [
            {key: value for key, value in arg.items() if value is not None} for arg in entry["args"]
        ]
    return rule


def _errno(entry: Json, number: str, name: str) -> int | None:
    """`errnoRet`, or what the newer spelling by name says."""
    if entry.get(number) is not None:
        return int(entry[number])
    text = entry.get(name)
    return _ERRNO.get(text) if isinstance(text, str) else None


def _is_default(rule: Json, default: str, default_errno: int) -> bool:
    if rule["action"] != default or "args" in rule:
        return False
    return default != "SCMP_ACT_ERRNO" or rule.get("errnoRet", 1) == default_errno


def _unique(rules: Any) -> list[Json]:
    """Without the repetitions, which libseccomp would only chew twice."""
    seen: set[str] = set()
    result: list[Json] = []
    for rule in rules:
        key = json.dumps(rule, sort_keys=True)
        if key not in seen:
            seen.add(key)
            result.append(rule)
    return result


def _version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor.partition(".")[0] or 0)


@dataclass(slots=True)
class Profiles:
    """Profiles ready to be pasted into a config.json. Reads the default file at its first use."""

    machine: Machine
    path: Path = DEFAULT_PATH
    _default: Json | None = None
    _texts: dict[tuple[str, frozenset[str]], str] = field(
        default_factory=dict[tuple[str, frozenset[str]], str]
    )

    def text(self, content: str, capabilities: frozenset[str]) -> str:
        """JSON of `linux.seccomp`. `content` is a whole profile as `security_opt` carries it, "" the default.
        MissingProgram when the default profile is not installed; Invalid when `content` cannot be used."""
        key = (content, capabilities)
        text = self._texts.get(key)
        if text is None:
            profile = self._parse(content) if content else self.default()
            if len(self._texts) >= 64:
                self._texts.clear()
            text = self._texts[key] = json.dumps(
                convert(profile, self.machine, capabilities), separators=(",", ":")
            )
        return text

    def default(self) -> Json:
        """The distribution's default profile, made as strict as Docker's."""
        if self._default is None:
            try:
                self._default = as_strict_as_docker(self._parse(self.path.read_text()))
            except FileNotFoundError:
                raise MissingProgram(
                    str(self.path), PACKAGE, "the default seccomp profile of containers"
                ) from None
        return self._default

    @staticmethod
    def _parse(content: str) -> Json:
        try:
            profile = json.loads(content)
        except ValueError as error:
            raise Invalid(
                f"security_opt seccomp: the profile is not JSON ({error}): give the content of a profile, "
                "`unconfined` or `builtin`"
            ) from None
        if not isinstance(profile, dict):
            raise Invalid("security_opt seccomp: the profile must be a JSON object")
        return profile
