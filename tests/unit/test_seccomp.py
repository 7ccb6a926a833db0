"""Seccomp profiles: conditions, what is left out, and Docker's stricter rules over the distribution's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from node_agent.runtime import capabilities
from node_agent.runtime.seccomp import DEFAULT_PATH, Machine, Profiles, as_strict_as_docker, convert
from pyswarm.errors import Invalid, MissingProgram

X86 = Machine("x86_64", (6, 1))
PROFILE: dict[str, Any] = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrno": "ENOSYS",
    "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": None},
    ],
    "syscalls": [
        {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW", "args": [], "includes": {}, "excludes": {}},
        {"names": ["old"], "action": "SCMP_ACT_ERRNO", "errno": "ENOSYS"},
        {"names": ["bad"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
        {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {
            "names": ["bpf"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": 1,
            "excludes": {"caps": ["CAP_SYS_ADMIN"]},
        },
        {"names": ["arm"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
        {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "6.2"}},
        {"names": ["new"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
        {
            "name": "personality",
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 8, "valueTwo": None, "op": "SCMP_CMP_EQ"}],
        },
    ],
}


def names(profile: dict[str, Any], action: str) -> list[str]:
    return [name for rule in profile["syscalls"] if rule["action"] == action for name in rule["names"]]


def test_conversion() -> None:
    made = convert(PROFILE, X86, frozenset())
    assert made["defaultErrnoRet"] == 38
    assert made["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert names(made, "SCMP_ACT_ALLOW") == ["read", "write", "new", "personality"]
    assert names(made, "SCMP_ACT_ERRNO") == ["bad", "bpf"]
    assert made["syscalls"][-1]["args"] == [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]
    admin = convert(PROFILE, Machine("aarch64", (6, 2)), frozenset({"CAP_SYS_ADMIN"}))
    assert names(admin, "SCMP_ACT_ALLOW") == ["read", "write", "bpf", "arm", "ptrace", "new", "personality"]
    assert admin["architectures"] == ["SCMP_ARCH_AARCH64"]


def test_profile_in_oci_form() -> None:
    plain = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "flags": ["X"]}
    assert convert(plain, X86, frozenset()) == {**plain, "syscalls": []}


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"defaultAction": 3}'])
def test_bad_profiles(content: str) -> None:
    with pytest.raises(Invalid, match="seccomp"):
        Profiles(X86).text(content, frozenset())


def test_missing_default_names_the_package(tmp_path: Path) -> None:
    with pytest.raises(MissingProgram, match="golang-github-containers-common"):
        Profiles(X86, tmp_path / "none").default()


def test_texts_are_kept() -> None:
    profiles = Profiles(X86)
    content = json.dumps(PROFILE)
    assert profiles.text(content, frozenset()) is profiles.text(content, frozenset())
    assert profiles.text(content, frozenset()) != profiles.text(content, frozenset({"CAP_SYS_ADMIN"}))


ADMIN_CALLS = {"mount", "umount2", "unshare", "setns", "pivot_root"}


def test_as_strict_as_docker() -> None:
    allow = sorted({*ADMIN_CALLS, "clone", "clone3", "keyctl", "read"})
    rules = [{"names": allow, "action": "SCMP_ACT_ALLOW"}]
    strict = as_strict_as_docker(
        {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "syscalls": rules}
    )
    common = convert(strict, X86, frozenset())
    whole = [rule for rule in common["syscalls"] if "args" not in rule]
    free = names({"syscalls": whole}, "SCMP_ACT_ALLOW")
    assert free == ["read"]
    clone = next(rule for rule in common["syscalls"] if rule["names"] == ["clone"])
    assert clone["args"] == [{"index": 0, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]
    on_s390 = convert(strict, Machine("s390x"), frozenset())
    assert next(r for r in on_s390["syscalls"] if r["names"] == ["clone"])["args"][0]["index"] == 1
    assert "clone3" not in names(common, "SCMP_ACT_ALLOW")  # the default's ENOSYS makes libc use clone
    admin = convert(strict, X86, frozenset({"CAP_SYS_ADMIN"}))
    assert {*ADMIN_CALLS, "clone", "clone3", "read"} <= set(names(admin, "SCMP_ACT_ALLOW"))
    assert "keyctl" in names(admin, "SCMP_ACT_ERRNO")


def test_the_distributions_profile() -> None:
    if not DEFAULT_PATH.exists():
        pytest.fail("no default seccomp profile: apt-get install golang-github-containers-common")
    made = json.loads(Profiles(X86).text("", frozenset(capabilities.DEFAULT)))
    allowed = set(names(made, "SCMP_ACT_ALLOW"))
    assert {"read", "execve", "openat", "socket", "chroot"} <= allowed
    assert not ADMIN_CALLS & allowed
    assert not {"keyctl", "bpf", "kexec_load", "init_module"} & allowed
