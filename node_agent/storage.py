"""Root file systems, volumes, secrets and config files of tasks.

On disk, below `Paths.task_state`: the writable layer. On tmpfs, below `Paths.task_run`: secrets, configs and
mount points of volume subpaths; no secret touches a disk. Mounts are made by mount(2), nothing is forked.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import posixpath
import shutil
import stat
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from node_agent import mounts
from node_agent.ports import BindMount, ImageConfig, Paths
from node_agent.runtime import users
from node_agent.volumes import LocalVolume, VolumeStore, check_name, copy_tree, from_spec, tree_size
from pyswarm.clock import Clock, SystemClock
from pyswarm.errors import Invalid, NotFound, PyswarmError
from pyswarm.objects import Config, Node, Secret, Task, Volume
from pyswarm.specs import FileReference, Mount
from pyswarm.templating import render_payload

_SECRETS = "/run/secrets"
_PROPAGATIONS = ("", "private", "rprivate", "shared", "rshared", "slave", "rslave")
_MODE_MASK = 0o7777


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeUse:
    """A line of `volume ls` on this node."""

    volume: LocalVolume
    mountpoint: str
    tasks: tuple[str, ...]
    """Ids of the tasks here that have it mounted."""


@dataclass(slots=True)
class _Work:
    """What one `prepare` gathers."""

    task: Task
    image: ImageConfig
    lower: Path
    volumes: Mapping[str, Volume]
    mounts: list[BindMount] = field(default_factory=list[BindMount])
    used: list[str] = field(default_factory=list[str])
    fill: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Volumes to fill with the image's content, and from where in it."""


class Storage:
    """StoragePort on this machine's kernel."""

    def __init__(self, paths: Paths, node: Node, clock: Clock | None = None) -> None:
        """`node` gives templates in secrets and configs their values."""
        self._paths = paths
        self._node = node
        self._clock = clock or SystemClock()
        self._volumes = VolumeStore(paths.state / "volumes")
        self._filling: dict[str, asyncio.Task[None]] = {}
        self._verified = False

    # ------------------------------------------------------------------------------------ StoragePort

    async def prepare(
        self,
        task: Task,
        image: ImageConfig,
        lower: Path,
        secrets: Mapping[str, Secret],
        configs: Mapping[str, Config],
        volumes: Mapping[str, Volume],
    ) -> tuple[Path, Sequence[BindMount]]:
        """See StoragePort."""
        self._check_run()
        work = _Work(task, image, lower, {volume.spec.name: volume for volume in volumes.values()})
        if _touches_devices(work):
            await asyncio.to_thread(self._volume_mounts, work)
        else:
            self._volume_mounts(work)
        for name, target in work.fill:
            await self._fill_once(name, lower, target)
        self._subpaths(work)
        root = self._layer(task.id, lower)
        self._files(work, secrets, configs)
        _refuse_duplicates(work.mounts)
        return root, sorted(work.mounts, key=lambda mount: mount.target.count("/"))

    async def resolve_user(
        self, task: Task, image: ImageConfig, root: Path
    ) -> tuple[tuple[int, int, tuple[int, ...]], str]:
        """See StoragePort. The image's passwd and group are read without following links out of it."""
        spec = task.spec.container
        wanted = spec.user or image.user
        groups = (*spec.groups, *spec.group_add)
        passwd = users.read_inside(str(root), "/etc/passwd")
        group = users.read_inside(str(root), "/etc/group") if ":" in wanted or wanted or groups else ""
        found = users.resolve(wanted or "0", passwd, group)
        more = [users.resolve(f"{found.uid}:{name}", passwd, group).gid for name in groups]
        extra = tuple(dict.fromkeys((*found.groups, *more)))
        return (found.uid, found.gid, extra), _home(found.uid, passwd)

    async def release(self, task_id: str, *, keep_layer: bool) -> None:
        """See StoragePort. Anonymous volumes go with the layer; named ones stay."""
        await asyncio.to_thread(self._release, task_id, keep_layer)

    async def forget(self, task_id: str) -> None:
        """See StoragePort."""
        await asyncio.to_thread(self._forget, task_id)

    async def known(self) -> Sequence[str]:
        """See StoragePort."""
        found = set[str]()
        for base in (self._paths.state / "tasks", self._paths.run / "tasks"):
            with suppress(FileNotFoundError):
                found.update(entry.name for entry in os.scandir(base))
        return sorted(found)

    def layers(self) -> Mapping[str, tuple[int, bool]]:
        """Of each task's writable layer that is here, the bytes in it (reads its whole tree), and whether its
        container has it mounted."""
        found: dict[str, tuple[int, bool]] = {}
        with suppress(FileNotFoundError):
            for task in (self._paths.state / "tasks").iterdir():
                if (task / "upper").is_dir():
                    found[task.name] = (tree_size(task / "upper"), (task / "merged").is_mount())
        return found

    # ------------------------------------------------------------------------------------ volumes here

    def list_volumes(self) -> Sequence[VolumeUse]:
        """All volumes of this node, by name, with the tasks that have them."""
        users_of = self._users_of_volumes()
        return [self._use(volume, users_of) for volume in self._volumes.list()]

    def inspect_volume(self, name: str) -> VolumeUse:
        """One volume; NotFound when it is not here."""
        return self._use(self._volumes.get(name), self._users_of_volumes())

    def volume_size(self, name: str) -> int:
        """Bytes in a volume (reads its whole tree)."""
        return self._volumes.size(name)

    def create_volume(self, volume: LocalVolume) -> VolumeUse:
        """Make a volume before any task uses it."""
        return self._use(self._volumes.create(volume), self._users_of_volumes())

    def remove_volume(self, name: str) -> None:
        """Delete a volume with its content; Conflict while a task here uses it."""
        self._volumes.remove(name, self._users_of_volumes().get(name, ()))

    def prune_volumes(
        self, *, all_volumes: bool = False, keep: Collection[str] = ()
    ) -> tuple[Sequence[str], int]:
        """Delete anonymous volumes (with `all_volumes`, named ones but `keep` too) that no task here uses;
        their names and the bytes freed."""
        freed, gone = 0, list[str]()
        users_of = self._users_of_volumes()
        for volume in self._volumes.list():
            if volume.name in users_of or volume.name in keep:
                continue
            if volume.anonymous or all_volumes:
                freed += self._volumes.size(volume.name)
                self._volumes.remove(volume.name)
                gone.append(volume.name)
        return gone, freed

    def _use(self, volume: LocalVolume, users_of: Mapping[str, Sequence[str]]) -> VolumeUse:
        return VolumeUse(
            volume=volume,
            mountpoint=str(self._volumes.data(volume.name)),
            tasks=tuple(users_of.get(volume.name, ())),
        )

    def _users_of_volumes(self) -> Mapping[str, Sequence[str]]:
        found: dict[str, list[str]] = {}
        with suppress(FileNotFoundError):
            for entry in sorted(os.scandir(self._paths.state / "tasks"), key=lambda entry: entry.name):
                for name in self._volumes_of(entry.name):
                    found.setdefault(name, []).append(entry.name)
        return found

    def _volumes_of(self, task_id: str) -> Sequence[str]:
        try:
            return [
                str(name) for name in json.loads((self._paths.task_state(task_id) / "volumes").read_bytes())
            ]
        except (FileNotFoundError, ValueError):
            return []

    # ------------------------------------------------------------------------------------ root and layer

    def _check_run(self) -> None:
        if not self._verified:
            mounts.verify_tmpfs(self._paths.run)
            self._verified = True

    def _layer(self, task_id: str, lower: Path) -> Path:
        base = self._paths.task_state(task_id)
        merged = base / "merged"
        if mounts.is_mount(merged):
            return merged
        found = lower.stat()
        self._make_layer(str(base), found)
        try:
            mounts.mount_overlay([lower], base / "upper", base / "work", merged)
        except OSError as error:
            raise Invalid(f"cannot mount the writable layer: {error.strerror} ({merged})") from error
        return merged

    def _make_layer(self, base: str, root: os.stat_result) -> None:
        """The directories of a layer; an upper one that is there is kept, with a new work directory."""
        if not _mkdir(base):
            shutil.rmtree(f"{base}/work", ignore_errors=True)
        for name in ("upper", "work", "merged"):
            _mkdir(f"{base}/{name}")
        upper = Path(base) / "upper"
        os.chown(upper, root.st_uid, root.st_gid)
        upper.chmod(stat.S_IMODE(root.st_mode))

    # ------------------------------------------------------------------------------------ mounts

    def _volume_mounts(self, work: _Work) -> None:
        taken = set[str]()
        for number, mount in enumerate(work.task.spec.container.mounts):
            where = f"mounts[{number}]"
            target = _target(where, mount.target)
            taken.add(target)
            try:
                work.mounts.append(self._mount(work, number, mount, target))
            except OSError as error:
                raise Invalid(f"{where}: {mount.source or target}: {error.strerror}") from error
            except PyswarmError as error:
                text = str(error)
                raise type(error)(text if text.startswith(where) else f"{where}: {text}") from error
        for target in work.image.volumes:
            clean = _clean(target)
            if clean not in taken:
                work.mounts.append(self._anonymous(work, clean, ("rbind", "rprivate")))
        if work.used:
            base = self._paths.task_state(work.task.id)
            base.mkdir(parents=True, exist_ok=True)
            (base / "volumes").write_text(json.dumps(work.used))

    def _mount(self, work: _Work, number: int, mount: Mount, target: str) -> BindMount:
        makers: Mapping[str, Callable[[_Work, Mount, str], BindMount]] = {
            "bind": self._bind,
            "volume": self._volume,
            "tmpfs": self._tmpfs,
        }
        make = makers.get(mount.type)
        if make is None:
            raise Invalid(
                f"mount type {mount.type!r} is not supported here: use bind, volume, tmpfs or image"
            )
        return make(work, mount, target)

    def _bind(self, work: _Work, mount: Mount, target: str) -> BindMount:
        source = Path(mount.source)
        if not source.is_absolute() or ".." in source.parts:
            raise Invalid(f"bind source must be an absolute path without `..`: {mount.source!r}")
        if mount.bind_propagation not in _PROPAGATIONS:
            raise Invalid(f"invalid propagation mode {mount.bind_propagation!r}")
        if not source.exists():
            if not mount.bind_create_host_path:
                raise Invalid(
                    f'invalid mount config for type "bind": bind source path does not exist: {source}'
                )
            source.mkdir(parents=True, exist_ok=True)
        how = "bind" if mount.bind_non_recursive else "rbind"
        return _bound(source, target, mount.read_only, how, mount.bind_propagation or "rprivate")

    def _tmpfs(self, work: _Work, mount: Mount, target: str) -> BindMount:
        options = ["nosuid", "nodev", "noexec", f"mode={(mount.tmpfs_mode or 0o1777) & _MODE_MASK:o}"]
        if mount.tmpfs_size:
            options.append(f"size={mount.tmpfs_size}")
        if mount.read_only:
            options.append("ro")
        return BindMount(source="tmpfs", target=target, type="tmpfs", options=tuple(options))

    def _volume(self, work: _Work, mount: Mount, target: str) -> BindMount:
        if not mount.source:
            return self._anonymous(work, target, _options(mount.read_only), mount)
        volume = self._volumes.create(self._wanted(work, mount))
        return self._mounted(work, volume, mount, target, _options(mount.read_only))

    def _wanted(self, work: _Work, mount: Mount) -> LocalVolume:
        name, now = check_name(mount.source), self._clock.now()
        known, driver = work.volumes.get(name), mount.volume_driver
        if known is not None:
            wanted = from_spec(known.spec, now)
        else:
            wanted = LocalVolume(name=name, labels=dict(mount.volume_labels), created=now)
        if driver is None or (known is not None and not driver.options):
            return wanted
        if driver.name not in ("", "local"):
            raise Invalid(f"volume driver {driver.name!r} is not on this node: use local")
        return LocalVolume(name=name, options=dict(driver.options), labels=wanted.labels, created=now)

    def _anonymous(
        self, work: _Work, target: str, options: tuple[str, ...], mount: Mount | None = None
    ) -> BindMount:
        name = hashlib.sha256(f"{work.task.id} {target}".encode()).hexdigest()
        driver = mount.volume_driver if mount else None
        volume = self._volumes.create(
            LocalVolume(
                name=name,
                options=dict(driver.options) if driver else {},
                labels=dict(mount.volume_labels) if mount else {},
                created=self._clock.now(),
                anonymous=True,
                task_id=work.task.id,
            )
        )
        return self._mounted(work, volume, mount or Mount(target=target), target, options)

    def _mounted(
        self, work: _Work, volume: LocalVolume, mount: Mount, target: str, options: tuple[str, ...]
    ) -> BindMount:
        data = self._volumes.attach(volume)
        work.used.append(volume.name)
        if not mount.volume_no_copy and not mount.volume_subpath and self._volumes.needs_filling(volume.name):
            work.fill.append((volume.name, target))
        return BindMount(source=str(data), target=target, options=options)

    async def _fill_once(self, name: str, lower: Path, target: str) -> None:
        """Fill a volume; tasks that want the same one meanwhile wait for the same copy. A cancelled task
        leaves the copy running: others may need it, and a thread cannot be stopped."""
        task = self._filling.get(name)
        if task is None:
            if not self._volumes.needs_filling(name):
                return
            task = asyncio.create_task(asyncio.to_thread(self._volumes.fill, name, lower, target))
            self._filling[name] = task
            task.add_done_callback(lambda done: self._filled(name, done))
        try:
            await asyncio.shield(task)
        except OSError as error:
            raise Invalid(
                f"volume {name}: cannot copy the image's {target}: {error.strerror} ({error.filename})"
            ) from error

    def _filled(self, name: str, task: asyncio.Task[None]) -> None:
        del self._filling[name]
        if not task.cancelled():
            task.exception()

    def _subpaths(self, work: _Work) -> None:
        """Bind each volume subpath to a place of ours, by descriptor: a link that a container puts into
        the volume meanwhile cannot lead out of it."""
        for number, mount in enumerate(work.task.spec.container.mounts):
            if mount.type == "volume" and mount.volume_subpath:
                made = work.mounts[number]
                place = self._paths.task_run(work.task.id) / "mounts" / str(number)
                try:
                    _bind_subpath(Path(made.source), mount.volume_subpath, place)
                except OSError as error:
                    raise Invalid(
                        f"mounts[{number}]: cannot access path in volume {mount.source}: "
                        f"subpath {mount.volume_subpath!r}: {error.strerror}"
                    ) from error
                work.mounts[number] = BindMount(source=str(place), target=made.target, options=made.options)

    # ------------------------------------------------------------------------------------ files

    def _files(self, work: _Work, secrets: Mapping[str, Secret], configs: Mapping[str, Config]) -> None:
        spec = work.task.spec.container
        if not spec.secrets and not spec.configs:
            return
        run = self._paths.task_run(work.task.id)
        shared, taken = run / "secrets", frozenset[str]()
        for number, reference in enumerate(spec.secrets):
            item = secrets.get(reference.source_id)
            if item is None:
                raise Invalid(f"secrets[{number}]: secret {reference.source_name} is not on this node")
            content = render_payload(item, work.task, self._node, secrets, configs)
            target = _file_target(f"secrets[{number}]", reference, item.spec.name, _SECRETS)
            taken = _taken_once(target, taken, f"secrets[{number}]")
            if target.startswith(_SECRETS + "/"):
                _write(shared / target.removeprefix(_SECRETS + "/"), content, reference, f"secrets[{number}]")
            else:
                self._single(work, f"s{number}", target, content, reference, f"secrets[{number}]")
        if shared.exists():
            work.mounts.append(_bound(shared, _SECRETS, True, "rbind", "rprivate"))
        for number, reference in enumerate(spec.configs):
            config = configs.get(reference.source_id)
            if config is None:
                raise Invalid(f"configs[{number}]: config {reference.source_name} is not on this node")
            content = render_payload(config, work.task, self._node, secrets, configs)
            target = _file_target(f"configs[{number}]", reference, config.spec.name, "/")
            self._single(work, f"c{number}", target, content, reference, f"configs[{number}]")

    def _single(
        self, work: _Work, name: str, target: str, content: bytes, reference: FileReference, where: str
    ) -> None:
        path = self._paths.task_run(work.task.id) / "files" / name
        _write(path, content, reference, where)
        work.mounts.append(_bound(path, target, True, "rbind", "rprivate"))

    # ------------------------------------------------------------------------------------ the end

    def _release(self, task_id: str, keep_layer: bool) -> None:
        state, run = self._paths.task_state(task_id), self._paths.task_run(task_id)
        with suppress(OSError):
            mounts.unmount(state / "merged")
        with suppress(FileNotFoundError):
            for entry in os.scandir(run / "mounts"):
                with suppress(OSError):
                    mounts.unmount(entry.path)
        for name in ("mounts", "secrets", "files"):
            shutil.rmtree(run / name, ignore_errors=True)
        used = self._volumes_of(task_id)
        if not keep_layer:
            for name in ("merged", "upper", "work"):
                shutil.rmtree(state / name, ignore_errors=True)
        (state / "volumes").unlink(missing_ok=True)
        self._let_go(task_id, used, keep_layer)

    def _let_go(self, task_id: str, used: Sequence[str], keep_layer: bool) -> None:
        """Remove the task's anonymous volumes; unmount those from elsewhere that nobody uses now."""
        if not used:
            return
        others = self._users_of_volumes()
        for name in used:
            with suppress(NotFound):
                volume = self._volumes.get(name)
                if volume.anonymous and volume.task_id == task_id and not keep_layer:
                    self._volumes.remove(name)
                elif volume.options and name not in others:
                    self._volumes.detach(name)

    def _forget(self, task_id: str) -> None:
        self._release(task_id, False)
        for volume in self._volumes.list():
            if volume.anonymous and volume.task_id == task_id:
                self._volumes.remove(volume.name)
        for base in (self._paths.task_run(task_id), self._paths.task_state(task_id)):
            shutil.rmtree(base, ignore_errors=True)


# ---------------------------------------------------------------------------------------- free functions


def _mkdir(path: str) -> bool:
    """Whether the directory is new; parents are made too, but one call is enough for most."""
    try:
        os.mkdir(path)  # noqa: PTH102
    except FileExistsError:
        return False
    except FileNotFoundError:
        Path(path).mkdir(parents=True)
    return True


def _touches_devices(work: _Work) -> bool:
    """Whether a mount may block: a volume of NFS and the like."""
    drivers = [mount.volume_driver for mount in work.task.spec.container.mounts]
    return any(driver and driver.options for driver in drivers) or any(
        volume.spec.driver.options for volume in work.volumes.values()
    )


def _options(read_only: bool) -> tuple[str, ...]:
    return ("rbind", "rprivate", "ro") if read_only else ("rbind", "rprivate")


def _bound(source: Path, target: str, read_only: bool, how: str, propagation: str) -> BindMount:
    options = (how, propagation, "ro") if read_only else (how, propagation)
    return BindMount(source=str(source), target=target, options=options)


def _target(where: str, target: str) -> str:
    """A mount's place in the container: absolute, without `..`, not the root."""
    if not target.startswith("/"):
        raise Invalid(f"{where}: invalid mount target, must be an absolute path in the container: {target!r}")
    if ".." in target.split("/"):
        raise Invalid(f"{where}: invalid mount target, `..` is not allowed: {target!r}")
    clean = _clean(target)
    if clean == "/":
        raise Invalid(f"{where}: invalid mount target, destination can't be '/'")
    return clean


def _clean(path: str) -> str:
    """An absolute path without doubled slashes; normpath alone keeps two at the start."""
    return "/" + posixpath.normpath("/" + path).strip("/")


def _refuse_duplicates(found: Sequence[BindMount]) -> None:
    seen = set[str]()
    for mount in found:
        if mount.target in seen:
            raise Invalid(f"mounts: duplicate mount point: {mount.target}")
        seen.add(mount.target)


def _file_target(where: str, reference: FileReference, name: str, base: str) -> str:
    target = reference.target or name
    if ".." in target.split("/") or not target.strip("/") or "\0" in target:
        raise Invalid(
            f"{where}: invalid target {target!r}: want a file name, or an absolute path without `..`"
        )
    return _clean(target if target.startswith("/") else f"{base}/{target}")


def _taken_once(target: str, taken: frozenset[str], where: str) -> frozenset[str]:
    """`taken` with the target in it; Invalid when it was in it already."""
    if target in taken:
        raise Invalid(f"{where}: target {target} is used twice")
    return taken | {target}


def _write(path: Path, content: bytes, reference: FileReference, where: str) -> None:
    """A file readable by nobody until owner and mode are right; one that is there is replaced at once, so
    that a container which has its directory mounted never misses it."""
    if not (reference.uid or "0").isdecimal() or not (reference.gid or "0").isdecimal():
        raise Invalid(f"{where}: uid and gid must be numbers, not {reference.uid!r} and {reference.gid!r}")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(content)
        os.fchown(fd, int(reference.uid or "0"), int(reference.gid or "0"))
        os.fchmod(fd, reference.mode & _MODE_MASK)
    fresh.replace(path)


def _bind_subpath(data: Path, subpath: str, place: Path) -> None:
    with mounts.path_in_root(data, subpath) as source:
        if not mounts.is_mount(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                place.mkdir(exist_ok=True)
            else:
                place.touch()
            mounts.mount(str(source), place, "", mounts.MS_BIND | mounts.MS_REC)


def _home(uid: int, passwd: str) -> str:
    for line in passwd.splitlines():
        fields = line.split(":")
        if len(fields) >= 6 and fields[2] == str(uid) and fields[5]:
            return fields[5]
    return "/root" if uid == 0 else "/"


__all__ = ["Storage", "VolumeUse", "copy_tree"]
