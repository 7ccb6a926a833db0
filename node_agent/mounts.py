"""mount(2), umount2(2) and openat2(2) through ctypes, and the tmpfs that secrets live on.

No helper program is forked: a mount costs well under a millisecond, `mount` itself ten. All functions
raise OSError with the path in it, as `os` does.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pyswarm.errors import Fatal

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18

MNT_DETACH = 0x2
UMOUNT_NOFOLLOW = 0x8

TMPFS_MAGIC = 0x01021994

FLAGS = {
    "ro": MS_RDONLY,
    "nosuid": MS_NOSUID,
    "nodev": MS_NODEV,
    "noexec": MS_NOEXEC,
    "sync": 0x10,
    "remount": MS_REMOUNT,
    "mand": 0x40,
    "dirsync": 0x80,
    "noatime": 0x400,
    "nodiratime": 0x800,
    "bind": MS_BIND,
    "rbind": MS_BIND | MS_REC,
    "relatime": 1 << 21,
    "strictatime": 1 << 24,
}
"""Options of fstab that are flags of mount(2); the rest is data for the file system."""
NO_FLAGS = frozenset({"rw", "suid", "dev", "exec", "async", "defaults", "atime", "_netdev", "nofail", "auto"})
"""Options of fstab that say what is so anyhow."""

_libc = ctypes.CDLL(None, use_errno=True)
_SYS_OPENAT2 = 437
"""The same number on every architecture."""
_RESOLVE_IN_ROOT = 0x10
_RESOLVE_NO_MAGICLINKS = 0x02
_AT_FDCWD = -100


def mount(source: str, target: Path | str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        fstype.encode() or None,
        ctypes.c_ulong(flags),
        os.fsencode(data) if data else None,
    )
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(target))


def unmount(target: Path | str, *, detach: bool = True) -> None:
    """umount2(2), lazily by default: nothing new sees the mount, and it goes with its last user."""
    if _libc.umount2(os.fsencode(target), (MNT_DETACH if detach else 0) | UMOUNT_NOFOLLOW) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(target))


def split_options(options: str) -> tuple[int, str]:
    """fstab's option list as flags and data of mount(2)."""
    flags, data = 0, list[str]()
    for option in filter(None, (word.strip() for word in options.split(","))):
        if option in FLAGS:
            flags |= FLAGS[option]
        elif option not in NO_FLAGS:
            data.append(option)
    return flags, ",".join(data)


def is_mount(path: Path | str) -> bool:
    """Whether something is mounted on this directory or file; a bind mount from the same device may be
    missed."""
    try:
        here = os.lstat(path)
        above = os.lstat(Path(path).parent)
    except FileNotFoundError:
        return False
    return here.st_dev != above.st_dev or here.st_ino == above.st_ino


def _unescape(field: str) -> str:
    return field.encode().decode("unicode_escape").encode("latin-1").decode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class MountPoint:
    """One line of /proc/self/mountinfo."""

    root: str
    target: str
    fstype: str
    source: str
    options: str
    """Of the file system (`lowerdir=...`), not of the mount."""


def mount_table() -> list[MountPoint]:
    """All mounts of this namespace, in the order in which they were made."""
    table: list[MountPoint] = []
    for line in Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines():
        head, _, tail = line.partition(" - ")
        first, last = head.split(" "), tail.split(" ")
        table.append(
            MountPoint(
                root=_unescape(first[3]),
                target=_unescape(first[4]),
                fstype=last[0],
                source=_unescape(last[1]),
                options=last[2] if len(last) > 2 else "",
            )
        )
    return table


def mounts_below(path: Path) -> list[str]:
    """Mount points at `path` and below it, innermost first."""
    top = str(path)
    below = [m.target for m in mount_table() if m.target == top or m.target.startswith(top + "/")]
    return list(reversed(below))


def unmount_below(path: Path) -> list[str]:
    """Lazily unmount everything at `path` and below it; returns what was unmounted."""
    gone: list[str] = []
    for target in mounts_below(path):
        with suppress(OSError):
            unmount(target)
            gone.append(target)
    return gone


def overlay_escape(path: Path) -> str:
    """A path as an option of overlayfs: backslash, colon and comma need a backslash each."""
    text = str(path)
    for char in ("\\", ":", ","):
        text = text.replace(char, "\\" + char)
    return text


def mount_overlay(lower: Sequence[Path], upper: Path, work: Path, target: Path) -> None:
    """Mount a writable overlay; the topmost of `lower` comes first.

    It is `volatile`: nothing waits for the disk, and unmounting does not sync the whole file system that
    `upper` is on. A layer that was mounted when the machine went down must not be used again; it can be once
    `work` was removed, which is the caller's decision."""
    data = (
        f"lowerdir={':'.join(overlay_escape(path) for path in lower)},"
        f"upperdir={overlay_escape(upper)},workdir={overlay_escape(work)}"
    )
    try:
        mount("overlay", target, "overlay", 0, data + ",volatile")
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        mount("overlay", target, "overlay", 0, data)


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def open_in_root(root: Path | int, path: str, flags: int) -> int:
    """Open `path` as if `root` were /: neither `..` nor a symbolic link leads out of it (openat2(2)).
    `root` is a path or an open directory. The caller closes the descriptor."""
    if isinstance(root, int):
        return _openat2(root, path, flags)
    base = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _openat2(base, path, flags)
    finally:
        os.close(base)


def _openat2(base: int, path: str, flags: int) -> int:
    how = _OpenHow(flags | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    fd = _libc.syscall(
        _SYS_OPENAT2, base, os.fsencode(path.lstrip("/") or "."), ctypes.byref(how), ctypes.sizeof(how)
    )
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    return fd


@contextmanager
def path_in_root(root: Path, path: str, *, directory: bool = False) -> Generator[Path]:
    """A path that reaches `path` inside `root` however its links are changed meanwhile
    (`/proc/self/fd/N`), for the time of the block."""
    fd = open_in_root(root, path, os.O_PATH | (os.O_DIRECTORY if directory else 0))
    try:
        yield Path(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def read_in_root(root: Path, path: str, limit: int = 1 << 20) -> bytes:
    """At most `limit` bytes of a regular file inside `root`; b"" when there is no such file."""
    try:
        fd = open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return os.read(fd, limit) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    finally:
        os.close(fd)


class _StatFs(ctypes.Structure):
    _fields_ = [("f_type", ctypes.c_long), ("rest", ctypes.c_long * 31)]


def filesystem_type(path: Path) -> int:
    """The magic number of the file system that holds `path` (statfs(2))."""
    buffer = _StatFs()
    if _libc.statfs(os.fsencode(path), ctypes.byref(buffer)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(path))
    return int(buffer.f_type) & 0xFFFFFFFF


def verify_tmpfs(path: Path) -> None:
    """Raise Fatal unless `path` is a tmpfs that only we can enter."""
    if filesystem_type(path) != TMPFS_MAGIC:
        raise Fatal(f"{path} is not a tmpfs: no secret is written there")
    found = path.stat()
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise Fatal(f"{path} is open to others (mode {stat.S_IMODE(found.st_mode):04o}): chmod 0700 {path}")
