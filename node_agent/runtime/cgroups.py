"""Control groups: which hierarchies this machine has, where a container's are, what their files say.

Works the same over v1 (one hierarchy per controller), hybrid (v1 with an empty v2 beside it) and v2, and
over both drivers: `cgroupfs`, where the OCI runtime makes the directories, and `systemd`, where it asks
systemd for a scope. Facts about the files: the kernel's admin-guide, cgroup-v1 and cgroup-v2.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Literal

Version = Literal["v1", "hybrid", "v2"]
UNLIMITED = 1 << 62
"""Memory limits at or above this mean: none (v1 writes the largest page-aligned signed number)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupLayout:
    """The hierarchies of a machine. `v1` maps a controller (or `name=systemd`) to its mount point; `unified`
    is the mount point of cgroup2, "" where there is none. The flags say which optional files exist."""

    version: Version = "v2"
    v1: Mapping[str, str] = field(default_factory=dict[str, str])
    unified: str = "/sys/fs/cgroup"
    swap: bool = True
    """Swap can be limited."""
    blkio_weight: bool = True
    realtime: bool = False
    namespaces: bool = True

    def directories(self, path: str) -> list[str]:
        """The directories of the cgroup `path` (absolute inside its hierarchy), one per hierarchy."""
        roots = dict.fromkeys(self.v1.values())
        if self.unified:
            roots[self.unified] = None
        return [root + path for root in roots]

    def directory(self, path: str, controller: str) -> str:
        """The directory of `path` that holds the controller's files."""
        return self.v1.get(controller, self.unified) + path

    def has(self, controller: str) -> bool:
        return controller in self.v1 if self.version != "v2" else True


def detect(mountinfo: str | None = None) -> CgroupLayout:
    """The layout of this machine, from /proc/self/mountinfo and the files at the hierarchies' roots."""
    text = Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo
    v1, unified = parse_mountinfo(text)
    version: Version = "v2" if unified and not v1 else "hybrid" if unified else "v1"
    namespaces = Path("/proc/self/ns/cgroup").exists()
    if version == "v2":
        # The root has no limit files: whether children get them follows from what the controllers offer.
        return CgroupLayout(
            version=version,
            unified=unified,
            swap=_exists_below(unified, "memory.swap.max") or not _exists_below(unified, "memory.max"),
            blkio_weight=_exists_below(unified, "io.weight") or _exists_below(unified, "io.bfq.weight"),
            namespaces=namespaces,
        )
    return CgroupLayout(
        version=version,
        v1=v1,
        unified=unified,
        swap=Path(v1.get("memory", "/nonexistent"), "memory.memsw.limit_in_bytes").exists(),
        blkio_weight=any(
            Path(v1.get("blkio", "/nonexistent"), name).exists()
            for name in ("blkio.weight", "blkio.bfq.weight")
        ),
        realtime=Path(v1.get("cpu", "/nonexistent"), "cpu.rt_runtime_us").exists(),
        namespaces=namespaces,
    )


def parse_mountinfo(text: str) -> tuple[dict[str, str], str]:
    """(controller -> mount point of its v1 hierarchy, mount point of cgroup2 or ""), first mounts winning."""
    v1: dict[str, str] = {}
    unified = ""
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        fields, tail = before.split(), after.split()
        if not separator or len(fields) < 5 or len(tail) < 3:
            continue
        point = fields[4].encode().decode("unicode_escape")
        if tail[0] == "cgroup2":
            unified = unified or point
        elif tail[0] == "cgroup":
            for option in tail[2].split(","):
                if option not in ("rw", "ro", "xattr", "clone_children", "noprefix", "release_agent"):
                    v1.setdefault(option, point)
    return v1, unified


def _exists_below(root: str, name: str) -> bool:
    with suppress(OSError), os.scandir(root) as entries:
        return any(entry.is_dir() and Path(entry.path, name).exists() for entry in entries)
    return False


def systemd_runs() -> bool:
    """Whether systemd is this machine's init (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()


# ---------------------------------------------------------------------------------------------- names


def container_path(parent: str, task_id: str, *, systemd: bool) -> str:
    """The cgroup of a task below `parent`, absolute inside each hierarchy."""
    if not systemd:
        return f"/{parent.strip('/')}/{task_id}".replace("//", "/")
    return f"{_expand(slice_name(parent))}/pyswarm-{task_id}.scope"


def runtime_path(parent: str, task_id: str, *, systemd: bool) -> str:
    """The same as the OCI configuration's `cgroupsPath` wants it: runc's `slice:prefix:name` for systemd."""
    if not systemd:
        return container_path(parent, task_id, systemd=False)
    return f"{slice_name(parent)}:pyswarm:{task_id}"


def slice_name(parent: str) -> str:
    """`/pyswarm` as `pyswarm.slice`; a name that is a slice already stays."""
    last = parent.strip("/").rpartition("/")[2] or "system"
    return last if last.endswith(".slice") else f"{last}.slice"


def _expand(name: str) -> str:
    """`a-b.slice` lies in `/a.slice/a-b.slice` (systemd.slice(5))."""
    stem, path, prefix = name.removesuffix(".slice"), "", ""
    for part in stem.split("-"):
        prefix = f"{prefix}-{part}" if prefix else part
        path += f"/{prefix}.slice"
    return path


# ---------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a cgroup's files say at one moment; bytes and nanoseconds."""

    cpu_nanos: int
    memory: int
    """Without inactive page cache, as `docker stats` counts."""
    memory_limit: int
    """0 is none."""
    pids: int
    block_read: int
    block_write: int


def usage(layout: CgroupLayout, path: str) -> Usage | None:
    """The use of the cgroup at `path`; None when it does not exist. Files that are missing count as 0."""
    return _usage_v2(layout, path) if layout.version == "v2" else _usage_v1(layout, path)


def _usage_v1(layout: CgroupLayout, path: str) -> Usage | None:
    memory = layout.directory(path, "memory")
    used = _number(f"{memory}/memory.usage_in_bytes")
    cpu = _number(f"{layout.directory(path, 'cpuacct')}/cpuacct.usage")
    if used is None and cpu is None:
        return None
    inactive = _keys(f"{memory}/memory.stat").get("total_inactive_file", 0)
    limit = _number(f"{memory}/memory.limit_in_bytes") or 0
    blkio = layout.directory(path, "blkio")
    text = _read(f"{blkio}/blkio.throttle.io_service_bytes_recursive") or _read(
        f"{blkio}/blkio.throttle.io_service_bytes"
    )
    read, written = _v1_bytes(text or "")
    return Usage(
        cpu_nanos=cpu or 0,
        memory=max(0, (used or 0) - inactive),
        memory_limit=0 if limit >= UNLIMITED else limit,
        pids=_number(f"{layout.directory(path, 'pids')}/pids.current") or 0,
        block_read=read,
        block_write=written,
    )


def _v1_bytes(text: str) -> tuple[int, int]:
    totals = {"Read": 0, "Write": 0}
    for line in text.splitlines():
        fields = line.split()
        if len(fields) == 3 and fields[1] in totals:
            totals[fields[1]] += int(fields[2])
    return totals["Read"], totals["Write"]


def _usage_v2(layout: CgroupLayout, path: str) -> Usage | None:
    base = layout.unified + path
    cpu = _keys(f"{base}/cpu.stat")
    if not cpu and not Path(base).is_dir():
        return None
    inactive = _keys(f"{base}/memory.stat").get("inactive_file", 0)
    read = written = 0
    for line in (_read(f"{base}/io.stat") or "").splitlines():
        values = dict(item.split("=", 1) for item in line.split()[1:] if "=" in item)
        read += int(values.get("rbytes", 0))
        written += int(values.get("wbytes", 0))
    return Usage(
        cpu_nanos=cpu.get("usage_usec", 0) * 1000,
        memory=max(0, (_number(f"{base}/memory.current") or 0) - inactive),
        memory_limit=_number(f"{base}/memory.max") or 0,
        pids=_number(f"{base}/pids.current") or 0,
        block_read=read,
        block_write=written,
    )


def oom_kills(layout: CgroupLayout, path: str) -> int:
    """How many processes of the cgroup the kernel killed for want of memory; 0 when it is not there."""
    if layout.version == "v2":
        return _keys(f"{layout.unified}{path}/memory.events").get("oom_kill", 0)
    return _keys(f"{layout.directory(path, 'memory')}/memory.oom_control").get("oom_kill", 0)


def processes(layout: CgroupLayout, path: str) -> list[int]:
    """Process ids in the cgroup and below it, sorted."""
    controller = "pids" if layout.has("pids") else "memory"
    found: set[int] = set()
    for directory in _below(layout.directory(path, controller)):
        found.update(int(word) for word in (_read(f"{directory}/cgroup.procs") or "").split())
    return sorted(found)


# ---------------------------------------------------------------------------------------------- ending


def kill(layout: CgroupLayout, path: str) -> None:
    """SIGKILL to every process in the cgroup and below; they may still be there when this returns."""
    if layout.version == "v2":
        with suppress(OSError):
            Path(f"{layout.unified}{path}/cgroup.kill").write_text("1")
            return
    for pid in processes(layout, path):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def remove(layout: CgroupLayout, path: str) -> bool:
    """Remove the cgroup and what is below it from every hierarchy. False when one is still in use."""
    gone = True
    for directory in layout.directories(path):
        gone = _remove_tree(directory) and gone
    return gone


def stop_slice(layout: CgroupLayout, name: str) -> bool:
    """Let systemd forget a slice, and its cgroups with it. False when a process is still in it. (Scopes that are
    empty may be there still: systemd takes them away when it comes to it.)"""
    path = _expand(name)
    members = (Path(top).glob("**/cgroup.procs") for top in layout.directories(path))
    if any(processes.read_text() for processes in chain.from_iterable(members)):
        return False
    stopped = subprocess.run(["systemctl", "stop", name], capture_output=True, check=False)
    # Of version 1 systemd keeps some hierarchies only; the OCI runtime has made the slice in the others.
    return remove(layout, path) and stopped.returncode == 0


def _remove_tree(directory: str) -> bool:
    """rmdir, depth first only where needed: most cgroups have no children."""
    try:
        os.rmdir(directory)  # noqa: PTH106 (a hot path)
        return True
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            return False
    children = list(_below(directory))[1:]
    for child in reversed(children):
        with suppress(OSError):
            os.rmdir(child)  # noqa: PTH106
    if not children:
        return False
    try:
        os.rmdir(directory)  # noqa: PTH106
    except FileNotFoundError:
        pass
    except OSError:
        return False
    return True


def _below(directory: str) -> Iterator[str]:
    """The directory and all below it, parents first."""
    yield directory
    try:
        with os.scandir(directory) as entries:
            names = sorted(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return
    for name in names:
        yield from _below(name)


def _read(name: str) -> str | None:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(descriptor, 1 << 16).decode()
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _number(name: str) -> int | None:
    text = (_read(name) or "").strip()
    return int(text) if text.isdecimal() else None


def _keys(name: str) -> dict[str, int]:
    """Files of `name number` lines."""
    result: dict[str, int] = {}
    for line in (_read(name) or "").splitlines():
        key, _, value = line.partition(" ")
        if value.isdecimal():
            result[key] = int(value)
    return result
