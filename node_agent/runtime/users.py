"""Users and groups by name, looked up in a container's own /etc/passwd and /etc/group."""

from __future__ import annotations

import ctypes
import os
import struct
from contextlib import suppress
from dataclasses import dataclass

from pyswarm.errors import Invalid

_OPENAT2 = 437
"""The number of openat2(2), the same on every architecture."""
_RESOLVE_IN_ROOT, _RESOLVE_NO_MAGICLINKS = 0x10, 0x02
_libc = ctypes.CDLL(None, use_errno=True)
_MAX_FILE = 4 << 20


@dataclass(frozen=True, slots=True)
class User:
    uid: int
    gid: int
    groups: tuple[int, ...] = ()


def resolve(text: str, passwd: str, group: str) -> User:
    """`user`, `uid`, `user:group` or `uid:gid` by the two files' text, as Docker reads them: an unknown
    number stands for itself, an unknown name is Invalid; without a group the user's own and its others."""
    name, separator, group_name = text.partition(":")
    entry = _passwd_entry(name, passwd)
    if entry is None and not name.isdecimal():
        raise Invalid(f"user: there is no user {name!r} in the container's /etc/passwd")
    login, uid, gid = entry or ("", int(name), 0)
    if separator and group_name:
        return User(uid, _gid(group_name, group))
    others = [number for names, number in _groups(group) if login in names and login]
    return User(uid, gid, tuple(dict.fromkeys(others)))


def _passwd_entry(name: str, passwd: str) -> tuple[str, int, int] | None:
    """A login name wins over a number, as in Docker."""
    by_number: tuple[str, int, int] | None = None
    for line in passwd.splitlines():
        fields = line.split(":")
        if len(fields) < 4 or not fields[2].isdecimal() or not fields[3].isdecimal():
            continue
        found = (fields[0], int(fields[2]), int(fields[3]))
        if fields[0] == name:
            return found
        if fields[2] == name and by_number is None:
            by_number = found
    return by_number


def _gid(name: str, group: str) -> int:
    for line in group.splitlines():
        fields = line.split(":")
        if len(fields) >= 3 and fields[0] == name and fields[2].isdecimal():
            return int(fields[2])
    if name.isdecimal():
        return int(name)
    raise Invalid(f"user: there is no group {name!r} in the container's /etc/group")


def _groups(group: str) -> list[tuple[list[str], int]]:
    """(members, gid) of each line."""
    result: list[tuple[list[str], int]] = []
    for line in group.splitlines():
        fields = line.split(":")
        if len(fields) >= 4 and fields[2].isdecimal():
            result.append((fields[3].split(","), int(fields[2])))
    return result


def read_inside(root: str, path: str) -> str:
    """The text of a file as seen from inside `root`: links in it cannot lead out. "" when there is none."""
    try:
        directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        how = struct.pack(
            "QQQ", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS
        )
        descriptor: int = _libc.syscall(_OPENAT2, directory, os.fsencode(path), how, len(how))
    finally:
        os.close(directory)
    if descriptor < 0:
        return ""
    with suppress(OSError), os.fdopen(descriptor, "rb") as file:
        return file.read(_MAX_FILE).decode(errors="replace")
    return ""
