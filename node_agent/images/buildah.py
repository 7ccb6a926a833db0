"""Images kept by buildah in a store of the agent's own: have, mount, build, push, list, remove.

The agent and the command line open the same store (buildah's own locks make that safe), so an image that
`pyswarm image build` made here is found by a task here with no registry in between.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import tempfile
from collections.abc import (
    AsyncGenerator,
    Callable,
    Collection,
    Coroutine,
    Generator,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from node_agent import mounts
from node_agent.images import archive
from node_agent.images.auth import (
    Credentials,
    auth_file,
    decode_header,
    from_docker_config,
    save_docker_config,
)
from node_agent.images.build import BuildRequest, BuildSecret, build_flags
from node_agent.images.program import Buildah, Progress
from node_agent.images.reference import Reference, familiar, insecure, parse
from node_agent.images.registry import Registry
from node_agent.images.store import ImageStore, StoredImage, unix_time
from node_agent.images.transfer import Piece, pieces, proven, receive
from node_agent.ports import ImageConfig, Paths
from pyswarm.clock import Clock, SystemClock, rfc3339
from pyswarm.errors import Conflict, Invalid, NotFound, PyswarmError, Unavailable

__all__ = ["BuildRequest", "BuildSecret", "ImageSummary", "Images", "Progress"]

_HOLDER = "pyswarm-"
"""Prefix of the working containers that hold an image's mount and keep it from being removed."""
_EVERY = re.compile(r"every_(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?\Z")
_DAY = 86_400.0
_LAZY = ("", "missing", "if_not_present", "never", "build")
"""Policies under which an image that is here is not asked for again."""
_FRESH = {"daily": _DAY, "weekly": 7 * _DAY}
_OLD_ENOUGH = 3600.0
DISK_FULL, DISK_ENOUGH = 0.85, 0.80
"""Parts of a disk: from the first on images are collected, until it is under the second (as kubelet has them)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSummary:
    """A line of `image ls`."""

    id: str
    names: tuple[str, ...]
    """As docker shows them: `nginx:1.27`, `registry:5000/team/app:2`."""
    digests: tuple[str, ...]
    """`repository@sha256:...`."""
    created: float
    size: int
    labels: Mapping[str, str]
    containers: int
    """1 when a task here uses it (or used it a moment ago)."""


Fetch = Callable[[str], AsyncGenerator[Piece]]
"""Asks the managers for a copy of an image, by its reference with a digest; raises NotFound when no node has it."""


class Images:
    """ImagePort over buildah."""

    def __init__(
        self, paths: Paths, *, insecure_registries: Sequence[str] = (), clock: Clock | None = None
    ) -> None:
        self._buildah = Buildah(paths, insecure_registries)
        self._auth_dir = paths.run / "auth"
        self._pulled_file = self._buildah.conf / "pulled.json"
        self._insecure = tuple(insecure_registries)
        self._clock = clock or SystemClock()
        self._store = ImageStore(self._buildah.root, self._buildah.conf / "manifests")
        self.fetch: Fetch | None = None
        """Where images come from that no registry has; None: from nowhere."""
        self._copies: dict[str, tuple[asyncio.Task[Path], list[object]]] = {}
        """By image id: the copy that is being sent, and those who send it."""
        self._answers: dict[str, tuple[tuple[int, int, int] | None, ImageConfig]] = {}
        self._pulls: dict[str, asyncio.Task[None]] = {}
        self._mounted: dict[str, Path] = {}
        self._released: dict[str, float] = {}
        """When tasks here last used an image, since this agent started."""
        self._mounting: dict[str, asyncio.Task[Path]] = {}

    # ------------------------------------------------------------------------------------ ImagePort

    async def ensure(self, reference: str, policy: str, auth: str) -> ImageConfig:
        """See ImagePort. Policies are Compose's; a reference with a digest is never pulled twice."""
        if policy in _LAZY:
            answer = self._answers.get(reference)
            if answer is not None and answer[0] == self._store.stamp():
                return answer[1]
        image = self._store.find(reference)
        if image is None and _from_nodes_first(reference, policy):
            with suppress(PyswarmError):
                await self._fetch_once(reference)
            image = self._store.find(reference)
        if self._wants_pull(reference, policy, image):
            await self._pull_or_fetch(reference, auth)
            image = self._store.find(reference)
        if image is None:
            raise Invalid(_absent(reference, policy))
        config = self._store.config(image)
        self._answers[reference] = (self._store.stamp(), config)
        return config

    def _wants_pull(self, reference: str, policy: str, image: StoredImage | None) -> bool:
        if policy in ("never", "build"):
            return False
        if image is None:
            return True
        if "@" in reference or image.id.startswith(reference.removeprefix("sha256:")):
            return False
        if policy == "always":
            return True
        if policy in ("", "missing", "if_not_present"):
            return False
        return self._clock.now() - self._pull_times().get(reference, 0.0) >= max_age(policy)

    async def _pull_or_fetch(self, reference: str, auth: str) -> None:
        """From the registry; from another node when the registry does not give it."""
        try:
            await self._once(f"{reference} {auth}", lambda: self._pull(reference, decode_header(auth), None))
        except Invalid as refusal:
            if "@" not in reference or self._store.find(reference) is not None:
                raise
            try:
                await self._fetch_once(reference)
            except PyswarmError as error:
                raise Invalid(f"{refusal}; nor does another node give it: {error}") from error

    async def _fetch_once(self, reference: str) -> None:
        await self._once(f"fetch {reference}", lambda: self._fetch(reference))

    async def _once(self, key: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do it; those who ask for the same meanwhile wait for the same work."""
        task = self._pulls.get(key)
        if task is None:
            task = asyncio.create_task(work(), name=f"pull {key}")
            self._pulls[key] = task
            task.add_done_callback(lambda done: self._pull_done(key, done))
        await asyncio.shield(task)

    def _pull_done(self, key: str, task: asyncio.Task[None]) -> None:
        del self._pulls[key]
        if not task.cancelled():
            task.exception()

    async def mount(self, image: ImageConfig) -> Path:
        """See ImagePort. The mount belongs to a working container of buildah's, which outlives this agent
        and keeps the image from being removed."""
        known = self._mounted.get(image.id)
        if known is not None and mounts.is_mount(known):
            return known
        task = self._mounting.get(image.id)
        if task is None:
            task = asyncio.create_task(self._mount(image.id), name=f"mount {image.id[:12]}")
            self._mounting[image.id] = task
            task.add_done_callback(lambda done: self._mount_done(image.id, done))
        return await asyncio.shield(task)

    def _mount_done(self, image_id: str, task: asyncio.Task[Path]) -> None:
        del self._mounting[image_id]
        if not task.cancelled() and task.exception() is None:
            self._mounted[image_id] = task.result()

    async def _mount(self, image_id: str) -> Path:
        name = _HOLDER + image_id[:40]
        try:
            path = await self._hold_and_mount(name, image_id)
        except Invalid:
            with suppress(PyswarmError):
                await self._buildah.run("rm", name)
            path = await self._hold_and_mount(name, image_id)
        mounts.mount("", path, "", mounts.MS_REMOUNT | mounts.MS_BIND | mounts.MS_RDONLY)
        return path

    async def _hold_and_mount(self, name: str, image_id: str) -> Path:
        try:
            await self._buildah.run("from", "--pull=never", "--name", name, image_id)
        except Invalid as error:
            if "already in use" not in str(error):
                raise
        return Path((await self._buildah.run("mount", name)).strip())

    async def release(self, in_use: Sequence[str]) -> None:
        """See ImagePort."""
        keep = set(in_use) | set(self._mounting)
        gone = [name for name, image_id in sorted((await self._holders()).items()) if image_id not in keep]
        for image_id in sorted(set(self._mounted) - keep):
            del self._mounted[image_id]
            self._released[image_id] = self._clock.now()
        if gone:
            await self._buildah.run("rm", *gone)

    async def _holders(self) -> Mapping[str, str]:
        """Working containers of ours: name to image id."""
        if self._store.stamp() is None:
            return {}
        found = json.loads(await self._buildah.run("containers", "--json") or "[]") or []
        return {
            str(entry["containername"]): str(entry["imageid"])
            for entry in found
            if str(entry["containername"]).startswith(_HOLDER)
        }

    async def stop(self, *, remove: bool) -> None:
        """Unmount all images; with `remove`, delete the whole store."""
        for task in (*self._pulls.values(), *self._mounting.values()):
            task.cancel()
        with suppress(PyswarmError):
            await self.release(())
        mounts.unmount_below(self._buildah.root)
        mounts.unmount_below(self._buildah.runroot)
        if remove:
            for directory in (
                self._buildah.root,
                self._buildah.runroot,
                self._buildah.conf,
                self._buildah.tmp,
                self._auth_dir,
            ):
                await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)

    # -------------------------------------------------------------------------------- pull and resolve

    async def pull(
        self,
        reference: str,
        *,
        auth: str = "",
        docker_config: Path | None = None,
        progress: Progress | None = None,
        platform: str = "",
    ) -> ImageSummary:
        """Pull an image whether it is here or not; credentials from an X-Registry-Auth header or docker's
        config.json."""
        credentials = self._credentials(parse(reference), auth, docker_config)
        await self._pull(reference, credentials, progress, platform)
        image = self._store.find(reference)
        if image is None:
            raise Invalid(_absent(reference, "always"))
        return self._summary(image, self._store.sizes(), ())

    async def _pull(
        self, reference: str, credentials: Credentials, progress: Progress | None, platform: str = ""
    ) -> None:
        wanted = parse(reference)
        flags = [f"--platform={platform}"] if platform else []
        with auth_file(self._auth_dir, wanted.domain, credentials) as path:
            try:
                await self._buildah.run(
                    "pull",
                    "--policy=always",
                    f"--authfile={path}",
                    *self._tls(wanted.domain),
                    *flags,
                    f"docker://{wanted.pull_name}",
                    progress=progress,
                )
            except Invalid as error:
                raise Invalid(f"cannot pull image {reference}: {error}") from error
        self._note_pull(reference)

    async def resolve(self, reference: str, auth: str = "", docker_config: Path | None = None) -> str:
        """The digest to pin a reference to: the registry's; for an image that only exists here, its own.
        NotFound, PermissionDenied or Unavailable with the registry's reason when neither has it."""
        wanted = parse(reference)
        if wanted.digest:
            return wanted.digest
        built = self._store.find(reference)
        if built is not None and self.built_here(reference):
            return built.digest
        credentials = self._credentials(wanted, auth, docker_config)
        registry = Registry(wanted.registry_host, credentials, insecure_registries=self._insecure)
        try:
            return await asyncio.to_thread(registry.digest, wanted)
        except PyswarmError:
            if built is not None:
                return built.digest
            raise

    def built_here(self, reference: str) -> tuple[str, float] | None:
        """Digest and time of the making of an image that was built on a node of the cluster, not pulled; None
        when this node has none of that name."""
        built = self._store.find(reference)
        if built is None or not _only_local(built, parse(reference)):
            return None
        return built.digest, built.created

    def _credentials(self, reference: Reference, auth: str, docker_config: Path | None) -> Credentials:
        credentials = decode_header(auth)
        if not credentials and docker_config is not None:
            return from_docker_config(docker_config, reference.domain)
        return credentials

    def _tls(self, domain: str) -> Sequence[str]:
        return ("--tls-verify=false",) if insecure(domain, self._insecure) else ()

    def _pull_times(self) -> dict[str, float]:
        try:
            return cast("dict[str, float]", json.loads(self._pulled_file.read_bytes()))
        except (FileNotFoundError, ValueError):
            return {}

    def _note_pull(self, reference: str) -> None:
        times = {**self._pull_times(), reference: self._clock.now()}
        fresh = self._pulled_file.with_suffix(".new")
        fresh.write_text(json.dumps(times))
        fresh.replace(self._pulled_file)

    # -------------------------------------------------------------------------------- build and push

    async def build(
        self, request: BuildRequest, progress: Progress, docker_config: Path | None = None
    ) -> str:
        """Build an image from a Dockerfile; returns its id. Every line that buildah prints goes to
        `progress`. Invalid with the step that failed."""
        environment = self._buildah.prepare()
        with (
            tempfile.TemporaryDirectory(dir=self._buildah.tmp, prefix="build-") as work,
            self._tmpfs_dir() as private,
        ):
            id_file = Path(work) / "iid"
            argv = [
                "build",
                "--format=docker",
                f"--iidfile={id_file}",
                *build_flags(request),
                *self._build_files(request, Path(work), private),
                *self._build_tls(request),
            ]
            if docker_config is not None and docker_config.exists():
                argv.append(f"--authfile={docker_config}")
            await self._buildah.run(*argv, request.context, progress=progress, environment=environment)
            if len(request.platforms) > 1:
                return ""
            return id_file.read_text().strip().removeprefix("sha256:")

    def _build_files(self, request: BuildRequest, work: Path, private: Path) -> Iterator[str]:
        if request.dockerfile_inline:
            inline = work / "Dockerfile"
            inline.write_text(request.dockerfile_inline)
            yield f"--file={inline}"
        elif request.dockerfile:
            local = Path(request.context) / request.dockerfile
            yield f"--file={local if local.exists() else request.dockerfile}"
        for number, secret in enumerate(request.secrets):
            source = Path(secret.source)
            if secret.value is not None:
                source = private / str(number)
                source.write_bytes(secret.value)
            elif not source.is_file():
                raise Invalid(f"build.secrets[{number}]: secret {secret.id}: no file {secret.source}")
            yield f"--secret=id={secret.id},src={source}"

    @contextmanager
    def _tmpfs_dir(self) -> Generator[Path]:
        """A directory on the tmpfs for secret values of one build."""
        self._auth_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=self._auth_dir, prefix="build-") as path:
            yield Path(path)

    def _build_tls(self, request: BuildRequest) -> Sequence[str]:
        """One flag counts for all registries of a build, so it is given only for an insecure tag or cache;
        base images of insecure registries are covered by registries.conf."""
        names = (*request.tags, *(entry for entry in request.cache_from if "=" not in entry))
        return ("--tls-verify=false",) if any(self._tls(parse(name).domain) for name in names) else ()

    async def push(
        self,
        reference: str,
        *,
        auth: str = "",
        docker_config: Path | None = None,
        progress: Progress | None = None,
    ) -> str:
        """Push an image to the registry in its name; returns the digest it has there."""
        wanted, image = parse(reference), self._get(reference)
        if not wanted.explicit_domain and f"{wanted.repository}:{wanted.tag}" not in image.names:
            await self._buildah.run("tag", image.id, f"{wanted.repository}:{wanted.tag}")
        environment = self._buildah.prepare()
        digest_file = self._buildah.tmp / f"digest-{os.getpid()}-{id(wanted)}"
        with auth_file(self._auth_dir, wanted.domain, self._credentials(wanted, auth, docker_config)) as path:
            try:
                await self._buildah.run(
                    "push",
                    f"--authfile={path}",
                    f"--digestfile={digest_file}",
                    *self._tls(wanted.domain),
                    image.id,
                    f"docker://{wanted.repository}:{wanted.tag}",
                    progress=progress,
                    environment=environment,
                )
                return digest_file.read_text().strip()
            except Invalid as error:
                raise Invalid(f"cannot push image {reference}: {error}") from error
            finally:
                digest_file.unlink(missing_ok=True)

    async def save(self, references: Sequence[str], target: Path) -> None:
        """Write images as one docker archive (`docker save`); one that is named by its id has no name there."""
        self._buildah.prepare()
        with tempfile.TemporaryDirectory(dir=self._buildah.tmp, prefix="save-") as work:
            made: list[Path] = []
            for number, reference in enumerate(references):
                image = self._get(reference)
                named = [familiar(name) for name in _named(image, reference)]
                made.append(Path(work) / f"{number}.tar")
                place = f"docker-archive:{made[-1]}{f':{named[0]}' if named else ''}"
                await self._buildah.run("push", image.id, place)
            if len(made) == 1:
                made[0].replace(target)
            else:
                await asyncio.to_thread(archive.merge, made, target)

    async def load(self, source: Path) -> Sequence[str]:
        """Read a docker archive into the store; returns the names of its images, ids of those without."""
        loaded: list[str] = []
        for number, names in enumerate(await asyncio.to_thread(archive.names, source)):
            output = await self._buildah.run("pull", "--policy=always", f"docker-archive:{source}:@{number}")
            image_id = output.strip().splitlines()[-1].removeprefix("sha256:")
            for name in names:
                await self._buildah.run("tag", image_id, parse(name).local_names[0])
            loaded += [familiar(name) for name in names] or [f"sha256:{image_id}"]
        return loaded

    # -------------------------------------------------------------------------------- from node to node

    async def export(self, reference: str) -> AsyncGenerator[Piece]:
        """A copy of an image for another node, in pieces. NotFound when it is not here."""
        image = self._get(reference)
        async with self._copy(image.id) as directory:
            async with aclosing(pieces(directory, self._store.manifests(image).values())) as parts:
                async for piece in parts:
                    yield piece

    @asynccontextmanager
    async def _copy(self, image_id: str) -> AsyncGenerator[Path]:
        """The image as a directory of blobs; those who send it at the same time share one."""
        if image_id not in self._copies:
            self._copies[image_id] = (asyncio.create_task(self._make_copy(image_id)), [])
        task, users = self._copies[image_id]
        me = object()
        users.append(me)
        try:
            yield await asyncio.shield(task)
        finally:
            users.remove(me)
            if not users:
                del self._copies[image_id]
                await self._drop_copy(task)

    async def _make_copy(self, image_id: str) -> Path:
        self._buildah.prepare()
        directory = Path(tempfile.mkdtemp(dir=self._buildah.tmp, prefix="copy-"))
        try:
            await self._buildah.run("push", "--disable-compression", image_id, f"dir:{directory}")
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        return directory

    async def _drop_copy(self, task: asyncio.Task[Path]) -> None:
        task.cancel()
        with suppress(PyswarmError, asyncio.CancelledError):
            await asyncio.to_thread(shutil.rmtree, await task, True)

    async def _fetch(self, reference: str) -> None:
        """Get an image from another node, by its digest, and give it the name that it is asked for by."""
        wanted = parse(reference)
        if self.fetch is None:
            raise Unavailable("this node is not connected to a manager")
        self._buildah.prepare()
        with tempfile.TemporaryDirectory(dir=self._buildah.tmp, prefix="fetch-") as work:
            async with aclosing(self.fetch(reference)) as arriving:
                manifests = await receive(arriving, Path(work))
            output = await self._buildah.run("pull", "--policy=always", f"dir:{work}")
        image_id = output.strip().splitlines()[-1].removeprefix("sha256:")
        try:
            self._store.keep(image_id, proven(wanted.digest, image_id, manifests))
        except Invalid:
            with suppress(PyswarmError):
                await self._buildah.run("rmi", image_id)
            raise
        if wanted.tag:
            await self._buildah.run("tag", image_id, wanted.local_names[0])

    # -------------------------------------------------------------------------------- list and remove

    async def list(self, *, all_images: bool = False) -> Sequence[ImageSummary]:
        """Images here, newest first; with `all_images`, the steps kept for builds too."""
        used, sizes = set((await self._holders()).values()), self._store.sizes()
        shown = [image for image in self._store.images() if all_images or not image.cache]
        return [self._summary(image, sizes, used) for image in shown]

    def _summary(
        self, image: StoredImage, sizes: Mapping[str, int], used: Sequence[str] | set[str]
    ) -> ImageSummary:
        return ImageSummary(
            id=image.id,
            names=tuple(familiar(name) for name in image.names if "@" not in name),
            digests=_repo_digests(image),
            created=image.created,
            size=sizes.get(image.id, 0),
            labels=self._store.config(image).labels,
            containers=1 if image.id in used else 0,
        )

    async def inspect(self, reference: str) -> Mapping[str, Any]:
        """An image with the Engine API's field names (`docker image inspect`)."""
        image = self._get(reference)
        raw = self._store.raw_config(image)
        return {
            "Id": f"sha256:{image.id}",
            "RepoTags": [familiar(name) for name in image.names if "@" not in name],
            "RepoDigests": list(_repo_digests(image)),
            "Created": rfc3339(image.created),
            "Author": raw.get("author", ""),
            "Architecture": raw.get("architecture", ""),
            "Os": raw.get("os", ""),
            "Size": self._store.sizes().get(image.id, 0),
            "Config": raw.get("config") or {},
            "RootFS": {
                "Type": "layers",
                "Layers": list((raw.get("rootfs") or {}).get("diff_ids") or ()),
            },
        }

    async def history(self, reference: str) -> Sequence[Mapping[str, Any]]:
        """The steps that made an image, the newest first, with the Engine API's field names."""
        image = self._get(reference)
        steps = self._store.raw_config(image).get("history") or ()
        sizes = list(self._store.layer_sizes(image))
        shown: list[Mapping[str, Any]] = []
        for step in steps:
            shown.insert(
                0,
                {
                    "Id": "<missing>",
                    "Created": int(unix_time(str(step.get("created") or ""))),
                    "CreatedBy": str(step.get("created_by") or ""),
                    "Comment": str(step.get("comment") or ""),
                    "Tags": None,
                    "Size": 0 if step.get("empty_layer") or not sizes else sizes.pop(0),
                },
            )
        if shown:
            tags = [familiar(name) for name in image.names if "@" not in name]
            shown[0] = {**shown[0], "Id": f"sha256:{image.id}", "Tags": tags or None}
        return shown

    async def tag(self, source: str, target: str) -> None:
        """Give an image another name."""
        image, name = self._get(source), parse(target)
        if name.digest:
            raise Invalid(f"cannot tag {target}: a tag cannot carry a digest")
        await self._buildah.run("tag", image.id, name.local_names[0])

    async def remove(self, reference: str, *, force: bool = False) -> Sequence[str]:
        """Remove a name, and the image with its last name; Conflict while a task here uses it. Returns
        lines as docker prints them."""
        image = self._get(reference)
        names = _named(image, reference)
        if names and len(image.names) > len(names):
            await self._buildah.run("rmi", *names)
            return [f"Untagged: {familiar(name)}" for name in names]
        if image.id in (await self._holders()).values():
            raise Conflict(
                f"cannot remove image {reference}: a task on this node uses it; remove the service first"
            )
        if not names and len(image.names) > 1 and not force:
            raise Conflict(f"cannot remove image {reference}: it has several names; use --force")
        await self._buildah.run("rmi", *(image.names or (image.id,)))
        return [*(f"Untagged: {familiar(name)}" for name in image.names), f"Deleted: sha256:{image.id}"]

    async def prune(
        self,
        *,
        all_images: bool = False,
        keep: Sequence[str] = (),
        before: float | None = None,
        labels: Sequence[str] = (),
        without: Sequence[str] = (),
    ) -> tuple[Sequence[str], int]:
        """Remove images without a name (with `all_images`, all) that no task here uses and that are not in
        `keep` (references or ids); and the steps of builds older than an hour. Only those that were made `before`
        that Unix time, have each of `labels` (`key` or `key=value`) and none of `without`. Returns the ids removed
        and the bytes freed."""
        size = sum(self._layer_bytes())
        kept = {image.id for image in map(self._store.find, keep) if image is not None}
        used = kept | set((await self._holders()).values()) | set(self._mounting)
        old = self._clock.now() - _OLD_ENOUGH
        doomed = [
            image
            for image in self._store.images()
            if image.id not in used
            and _prunable(image, all_images, old)
            and (before is None or image.created < before)
            and self._labelled(image, labels, without)
        ]
        gone = [image.id for image in doomed if await self._try_remove(image)]
        return gone, max(0, size - sum(self._layer_bytes()))

    def _labelled(self, image: StoredImage, wanted: Sequence[str], unwanted: Sequence[str]) -> bool:
        if not wanted and not unwanted:
            return True
        labels = self._store.config(image).labels
        return all(_has_label(labels, each) for each in wanted) and not any(
            _has_label(labels, each) for each in unwanted
        )

    async def collect(
        self, keep: Sequence[str] = (), full: Callable[[], float] | None = None
    ) -> Sequence[str]:
        """On a disk that fills up, remove images that a registry gave and that nothing here has used for an hour, those
        least recently used first, until there is room again; and old steps of builds before them. What was built
        in the cluster stays: nobody else may have it. Returns the ids removed. `full` tells what part of the disk
        is used."""
        full = full or self._full
        if full() < DISK_FULL:
            return []
        kept = {image.id for image in map(self._store.find, keep) if image is not None}
        used = kept | set((await self._holders()).values()) | set(self._mounting)
        gone: list[str] = []
        for image in self._collectable(used):
            if full() < DISK_ENOUGH:
                break
            if await self._try_remove(image):
                gone.append(image.id)
        return gone

    def _collectable(self, used: Collection[str]) -> Sequence[StoredImage]:
        old = self._clock.now() - _OLD_ENOUGH
        last: dict[str, float] = {}
        for reference, pulled in self._pull_times().items():
            image = self._store.find(reference)
            if image is not None:
                last[image.id] = max(last.get(image.id, 0.0), pulled, self._released.get(image.id, 0.0))
        images = {image.id: image for image in self._store.images() if image.id not in used}
        steps = [image for image in images.values() if image.cache and image.created < old]
        pulled_ids = sorted((when, id) for id, when in last.items() if id in images and when < old)
        return [*steps, *(images[id] for _, id in pulled_ids)]

    def _full(self) -> float:
        """The part of the store's file system that is used, 0 to 1."""
        found = shutil.disk_usage(self._buildah.root if self._buildah.root.exists() else "/")
        return found.used / (found.used + found.free)

    def _layer_bytes(self) -> Sequence[int]:
        seen: dict[str, int] = {}
        sizes = self._store.sizes()
        for image in self._store.images():
            seen[image.layer] = max(seen.get(image.layer, 0), sizes.get(image.id, 0))
        return list(seen.values())

    async def _try_remove(self, image: StoredImage) -> bool:
        """By its names, never by --force: that would remove the working container that holds it too."""
        try:
            await self._buildah.run("rmi", *(image.names or (image.id,)))
        except Invalid:
            return False
        return True

    async def check_login(self, server: str, username: str, password: str) -> None:
        """PermissionDenied unless the registry accepts this login."""
        reference = parse(f"{server}/x")
        registry = Registry(
            reference.registry_host, Credentials(username, password), insecure_registries=self._insecure
        )
        await asyncio.to_thread(registry.check_login)

    async def login(self, server: str, username: str, password: str, docker_config: Path) -> None:
        """Check a login with the registry and keep it in docker's config.json."""
        await self.check_login(server, username, password)
        save_docker_config(docker_config, server, Credentials(username, password))

    async def logout(self, server: str, docker_config: Path) -> bool:
        """Forget a login; False when there was none."""
        return save_docker_config(docker_config, server, None)

    def _get(self, reference: str) -> StoredImage:
        image = self._store.find(reference)
        if image is None:
            raise NotFound(f"no such image: {reference}")
        return image


def max_age(policy: str) -> float:
    """How old, in seconds, a pull may be under Compose's `daily`, `weekly` and `every_<duration>`."""
    if policy in _FRESH:
        return _FRESH[policy]
    match = _EVERY.match(policy)
    if match is None or not any(match.groups()):
        raise Invalid(
            f"unknown pull policy {policy!r}: "
            "use always, missing, never, build, daily, weekly or every_<duration>"
        )
    amounts = [int(group or 0) for group in match.groups()]
    return sum(n * unit for n, unit in zip(amounts, (7 * _DAY, _DAY, 3600.0, 60.0, 1.0), strict=True))


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    """Whether there is that label, `key` or `key=value`."""
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def _from_nodes_first(reference: str, policy: str) -> bool:
    """Whether the cluster's nodes are asked before a registry is: where the name does not say which registry,
    it may be of an image that was built here; and what another node has need not cross the internet again."""
    if "@" not in reference or policy == "never":
        return False
    return policy == "build" or not parse(reference).explicit_domain


def _absent(reference: str, policy: str) -> str:
    if policy == "build":
        return f"no such image: {reference} is built, not pulled, and no node that can be reached has it"
    if policy == "never":
        return f"no such image: {reference} is not on this node, and pull_policy is never"
    return f"no such image: {reference}"


def _only_local(image: StoredImage, wanted: Reference) -> bool:
    """Whether the reference names an image that was built here: docker.io was not said, and the store
    knows it as `localhost/...`."""
    return not wanted.explicit_domain and wanted.local_names[0] in image.names


def _repo_digests(image: StoredImage) -> tuple[str, ...]:
    def repository(name: str) -> str:
        parsed = parse(name)
        return familiar(parsed.repository)

    repositories = dict.fromkeys(repository(name) for name in image.names)
    return tuple(f"{name}@{image.digest}" for name in repositories if image.digest)


def _named(image: StoredImage, reference: str) -> Sequence[str]:
    """The names of the image that a reference means; () when it means the image by id or digest."""
    try:
        parsed = parse(reference)
    except Invalid:
        return ()
    if parsed.digest:
        return [name for name in image.names if name == parsed.pull_name]
    return [name for name in parsed.local_names if name in image.names][:1]


def _prunable(image: StoredImage, all_images: bool, old: float) -> bool:
    if image.cache:
        return all_images or image.created < old
    return all_images or not image.names
