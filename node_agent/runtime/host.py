"""What of this machine, and of the agent's own rights, decides a container's configuration: read here, once,
so that `oci_spec` stays pure."""

from __future__ import annotations

import os
import resource
import shutil
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from node_agent.runtime import capabilities, oci_spec, seccomp
from node_agent.runtime.oci_spec import DeviceNode, Host
from pyswarm.errors import MissingProgram

INIT_PROGRAMS = ("/usr/bin/catatonit", "/usr/libexec/podman/catatonit", "/usr/bin/tini-static")
"""Static programs that serve as a container's first process, as docker-init does."""

_SKIPPED_DEVICES = frozenset(("pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"))


def read() -> Host:
    """The facts about this machine as they are now."""
    held = _held_capabilities()
    return Host(
        capabilities=held,
        hard_limits=None if "CAP_SYS_RESOURCE" in held else _hard_limits(),
        oom_score_adj_min=-1000 if "CAP_SYS_RESOURCE" in held else _oom_score_adj(),
        apparmor=_apparmor(),
        sysctls=frozenset(
            name for name in oci_spec.DEFAULT_SYSCTLS if Path("/proc/sys", *name.split(".")).exists()
        ),
        init=next((path for path in INIT_PROGRAMS if os.access(path, os.X_OK)), ""),
    )


def seccomp_machine() -> seccomp.Machine:
    """The architecture and kernel version that seccomp profiles have conditions on."""
    name = os.uname()
    numbers = name.release.split("-")[0].split(".")
    return seccomp.Machine(name.machine, (int(numbers[0]), int(numbers[1])))


def program(name: str, package: str, why: str) -> str:
    """The path of a program; MissingProgram, naming the package, when it is not installed."""
    path = installed(name)
    if path is None:
        raise MissingProgram(name, package, why)
    return path


def installed(name: str) -> str | None:
    """The path of a program, looked for where root's programs are too; None when it is not installed."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin")


def devices(paths: Sequence[str]) -> Mapping[str, Sequence[DeviceNode]]:
    """The devices behind each path: itself, or all below it when it is a directory, or none."""
    return {path: _devices_at(path) for path in paths}


def _devices_at(path: str) -> list[DeviceNode]:
    node = _node(path)
    if node is not None:
        return [node]
    found: list[DeviceNode] = []
    for directory, names, files in os.walk(path):
        names[:] = sorted(name for name in names if name not in _SKIPPED_DEVICES)
        for name in sorted(files):
            node = _node(f"{directory.rstrip('/')}/{name}", follow=False)
            if node is not None:
                found.append(node)
    return found


def _node(path: str, *, follow: bool = True) -> DeviceNode | None:
    try:
        status = os.stat(path, follow_symlinks=follow)  # noqa: PTH116 (a device's numbers come from its status)
    except OSError:
        return None
    if not (stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)):
        return None
    return DeviceNode(
        path=path,
        kind="c" if stat.S_ISCHR(status.st_mode) else "b",
        major=os.major(status.st_rdev),
        minor=os.minor(status.st_rdev),
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
    )


def _held_capabilities() -> frozenset[str]:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapPrm:"):
            return capabilities.from_mask(int(line.split()[1], 16))
    return frozenset()


def _hard_limits() -> dict[str, int]:
    limits: dict[str, int] = {}
    for name in oci_spec.RLIMITS:
        number = getattr(resource, name, _UNNAMED_LIMITS.get(name))
        if number is not None:
            hard = resource.getrlimit(number)[1]
            limits[name] = oci_spec.INFINITY if hard == resource.RLIM_INFINITY else hard
    return limits


_UNNAMED_LIMITS = {"RLIMIT_LOCKS": 10}
"""Limits of Linux that Python's resource module has no name for."""


def _oom_score_adj() -> int:
    with suppress(OSError, ValueError):
        return int(Path("/proc/self/oom_score_adj").read_text())
    return 0


def _apparmor() -> bool:
    with suppress(OSError):
        return Path("/sys/module/apparmor/parameters/enabled").read_text().startswith("Y")
    return False
