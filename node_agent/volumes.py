"""Volumes of the local driver on this node: `volumes/<name>/_data`, with what is known of each beside it.

Blocking; `Storage` runs what may take long in a thread.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import stat
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from node_agent import mounts
from pyswarm.errors import Conflict, Fatal, Invalid, NotFound
from pyswarm.specs import VolumeSpec

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}\Z")
_RECORD = "volume.json"
_MARKER = "filling"
"""There while the image's content is copied in; found later, the copy was cut short and is done again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalVolume:
    """One volume as this node has it."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict[str, str])
    """`type`, `device` and `o` for volumes that are mounted from elsewhere."""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    created: float = 0.0
    anonymous: bool = False
    """Made for one task, removed with it."""
    task_id: str = ""
    """The task that an anonymous volume belongs to."""


def check_name(name: str) -> str:
    """The name, if it can be a volume's; it becomes a directory, so Invalid for anything with a slash."""
    if not _NAME.match(name):
        raise Invalid(
            f"volume name {name!r} is invalid: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed; "
            "for a directory of the node use an absolute path"
        )
    return name


class VolumeStore:
    """All volumes below one directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def data(self, name: str) -> Path:
        """Where the content is."""
        return self._root / check_name(name) / "_data"

    def get(self, name: str) -> LocalVolume:
        """NotFound when there is none of this name."""
        path = self._root / check_name(name) / _RECORD
        try:
            raw = cast("dict[str, Any]", json.loads(path.read_bytes()))
            return LocalVolume(**raw)
        except FileNotFoundError:
            raise NotFound(f"no such volume: {name}") from None
        except (ValueError, TypeError) as error:
            raise Fatal(
                f"{path} is damaged ({error}): restore it or remove the volume's directory"
            ) from error

    def list(self) -> Sequence[LocalVolume]:
        """All volumes, by name."""
        with suppress(FileNotFoundError):
            names = sorted(entry.name for entry in os.scandir(self._root) if entry.is_dir())
            return [self.get(name) for name in names if (self._root / name / _RECORD).exists()]
        return []

    def create(self, volume: LocalVolume) -> LocalVolume:
        """Have this volume; one that exists is returned as it is. Its record is written last, so that a
        volume without one was never used."""
        with suppress(NotFound):
            return self.get(volume.name)
        _check_options(volume)
        home = self._root / check_name(volume.name)
        (home / "_data").mkdir(parents=True, exist_ok=True)
        fresh = home / (_RECORD + ".new")
        fresh.write_text(json.dumps(asdict(volume)))
        fresh.replace(home / _RECORD)
        return volume

    def attach(self, volume: LocalVolume) -> Path:
        """The directory with the content, mounted first if the volume lives elsewhere."""
        data = self.data(volume.name)
        elsewhere = volume.options.get("device") or volume.options.get("type")
        if elsewhere and not _mounted(data):
            _mount_device(volume, data)
        return data

    def detach(self, name: str) -> None:
        """Unmount a volume that lives elsewhere; called when no task uses it any more."""
        data = self.data(name)
        if _mounted(data):
            with suppress(OSError):
                mounts.unmount(data)

    def needs_filling(self, name: str) -> bool:
        """Whether nothing was ever put into it (or only a part of the image's content)."""
        home = self._root / name
        if (home / _MARKER).exists():
            return True
        with os.scandir(home / "_data") as entries:
            return next(entries, None) is None

    def fill(self, name: str, lower: Path, target: str) -> None:
        """Copy what the image has at `target` into the volume, owner, mode, times and extended attributes
        with it. Killed in the middle, it starts afresh the next time; a target that the image does not
        have leaves the volume empty."""
        home = self._root / name
        data, marker = home / "_data", home / _MARKER
        if marker.exists():
            empty_directory(data)
        try:
            with mounts.path_in_root(lower, target, directory=True) as source:
                marker.touch()
                copy_tree(source, data)
                marker.unlink()
        except (FileNotFoundError, NotADirectoryError):
            marker.unlink(missing_ok=True)

    def remove(self, name: str, users: Iterable[str] = ()) -> None:
        """Delete a volume and its content; Conflict while tasks (`users`) have it."""
        self.get(name)
        using = sorted(users)
        if using:
            raise Conflict(f"volume {name} is in use by {', '.join(using)}: remove the service first")
        self.detach(name)
        home = self._root / name
        if _mounted(home / "_data"):
            raise Conflict(f"volume {name} is still mounted at {home / '_data'}")
        (home / _RECORD).unlink()
        shutil.rmtree(home)

    def size(self, name: str) -> int:
        """Bytes in a volume."""
        return tree_size(self.data(name))


def tree_size(root: Path) -> int:
    """Bytes of the regular files, hard links counted once; 0 for a directory that is not there."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for directory, _, files in os.walk(root):
        for file in files:
            with suppress(FileNotFoundError):
                found = os.lstat(f"{directory}/{file}")
                if stat.S_ISREG(found.st_mode) and (found.st_dev, found.st_ino) not in seen:
                    seen.add((found.st_dev, found.st_ino))
                    total += found.st_size
    return total


def from_spec(spec: VolumeSpec, created: float) -> LocalVolume:
    """A cluster's volume as this node makes it; Invalid for a driver that is not here."""
    if spec.driver.name not in ("", "local"):
        raise Invalid(f"volume {spec.name}: driver {spec.driver.name!r} is not on this node: use local")
    return LocalVolume(
        name=check_name(spec.name),
        options=dict(spec.driver.options),
        labels=dict(spec.labels),
        created=created,
    )


def _check_options(volume: LocalVolume) -> None:
    for key in volume.options:
        if key not in ("type", "device", "o", "size"):
            raise Invalid(
                f"volume {volume.name}: unknown option {key!r}: the local driver has type, device and o"
            )
    if volume.options.get("o") and not volume.options.get("device"):
        raise Invalid(f"volume {volume.name}: option `o` needs `device`")


def _mounted(data: Path) -> bool:
    target = str(data)
    return data.exists() and any(mount.target == target for mount in mounts.mount_table())


def _mount_device(volume: LocalVolume, data: Path) -> None:
    device, fstype = volume.options.get("device", ""), volume.options.get("type", "")
    flags, words = mounts.split_options(volume.options.get("o", ""))
    if fstype in ("nfs", "nfs4", "cifs"):
        words = _with_address(volume.name, words)
    if fstype == "tmpfs":
        flags |= mounts.MS_NOSUID | mounts.MS_NODEV
    try:
        if flags & mounts.MS_BIND:
            mounts.mount(device, data, "", flags & (mounts.MS_BIND | mounts.MS_REC))
            if flags & mounts.MS_RDONLY:
                mounts.mount("", data, "", mounts.MS_REMOUNT | mounts.MS_BIND | mounts.MS_RDONLY)
        else:
            mounts.mount(device or fstype, data, fstype, flags, words)
    except OSError as error:
        options = volume.options.get("o", "")
        raise Invalid(
            f"volume {volume.name}: cannot mount {device or fstype} (type {fstype or 'none'}, options "
            f"{options!r}): {error.strerror}"
        ) from error


def _with_address(name: str, options: str) -> str:
    """The kernel's NFS and CIFS clients want `addr` as a number."""
    words = options.split(",")
    for number, word in enumerate(words):
        if word.startswith("addr="):
            host = word.removeprefix("addr=")
            try:
                found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            except OSError as error:
                raise Invalid(f"volume {name}: cannot resolve addr={host}: {error}") from error
            words[number] = f"addr={found[0][4][0]}"
    return ",".join(words)


# ------------------------------------------------------------------------------------------ copying


def empty_directory(path: Path) -> None:
    """Remove everything in a directory, not the directory."""
    for entry in list(os.scandir(path)):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            Path(entry.path).unlink()


def copy_tree(source: Path, target: Path) -> None:
    """Copy the content of a directory into another that exists, and the directory's own owner and mode;
    links stay links, hard links among the copied stay together, devices and pipes are made anew."""
    _Copy().directory(str(source), str(target))


class _Copy:
    def __init__(self) -> None:
        self._links: dict[tuple[int, int], str] = {}

    def directory(self, source: str, target: str) -> None:
        with os.scandir(source) as entries:
            for entry in entries:
                self._entry(entry, f"{target}/{entry.name}")
        _copy_attributes(source, target, Path(source).stat(), follow=True)

    def _entry(self, entry: os.DirEntry[str], target: str) -> None:
        found = entry.stat(follow_symlinks=False)
        kind = stat.S_IFMT(found.st_mode)
        if kind == stat.S_IFDIR:
            Path(target).mkdir(0o700)
            self.directory(entry.path, target)
            return
        key = (found.st_dev, found.st_ino)
        if found.st_nlink > 1 and key in self._links:
            os.link(self._links[key], target, follow_symlinks=False)
            return
        self._links[key] = target
        if kind == stat.S_IFREG:
            shutil.copyfile(entry.path, target, follow_symlinks=False)
        elif kind == stat.S_IFLNK:
            Path(target).symlink_to(Path(entry.path).readlink())
        elif kind != stat.S_IFSOCK:
            os.mknod(target, found.st_mode, found.st_rdev)
        else:
            return
        _copy_attributes(entry.path, target, found, follow=False)


def _copy_attributes(source: str, target: str, found: os.stat_result, *, follow: bool) -> None:
    """Owner before mode: chown clears the set-user-ID bit."""
    os.chown(target, found.st_uid, found.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(found.st_mode):
        Path(target).chmod(stat.S_IMODE(found.st_mode))
    for name in os.listxattr(source, follow_symlinks=follow):
        if not name.startswith("trusted.overlay."):
            with contextlib.suppress(OSError):
                value = os.getxattr(source, name, follow_symlinks=follow)
                os.setxattr(target, name, value, follow_symlinks=False)
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns), follow_symlinks=False)
