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
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from node_agent import mounts
from node_agent.images.auth import (
    Credentials,
    auth_file,
    decode_header,
    from_docker_config,
    save_docker_config,
)
from node_agent.images.reference import Reference, familiar, insecure, parse
from node_agent.images.registry import Registry
from node_agent.images.store import ImageStore, StoredImage
from node_agent.ports import ImageConfig, Paths
from pyswarm.clock import Clock, SystemClock, rfc3339
from pyswarm.errors import Conflict, Fatal, Invalid, MissingProgram, NotFound, PyswarmError

Progress = Callable[[str], None]
"""Gets each line that a long command prints."""

_HOLDER = "pyswarm-"
"""Prefix of the working containers that hold an image's mount and keep it from being removed."""
_EVERY = re.compile(r"every_(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?\Z")
_DAY = 86_400.0
_LAZY = ("", "missing", "if_not_present", "never", "build")
"""Policies under which an image that is here is not asked for again."""
_FRESH = {"daily": _DAY, "weekly": 7 * _DAY}
_LOG_LINE = re.compile(r'time="[^"]*" level=(\w+) msg="(.*)"\Z')
_OLD_ENOUGH = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSecret:
    """A secret for `RUN --mount=type=secret,id=...`: from a file or from a value."""

    id: str
    source: str = ""
    value: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """Everything that Compose's `build` can say."""

    context: str = "."
    """Directory, or URL of a git repository or archive."""
    dockerfile: str = ""
    """Path, relative to the context; "" is Dockerfile (or Containerfile)."""
    dockerfile_inline: str = ""
    tags: tuple[str, ...] = ()
    args: Mapping[str, str] = field(default_factory=dict[str, str])
    target: str = ""
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    network: str = ""
    """"", host or default: the node's network; none is refused (see `_network`)."""
    extra_hosts: tuple[str, ...] = ()
    """`name:address` or `name=address`."""
    secrets: tuple[BuildSecret, ...] = ()
    ssh: tuple[str, ...] = ()
    """`default` or `id=path`."""
    additional_contexts: Mapping[str, str] = field(default_factory=dict[str, str])
    platforms: tuple[str, ...] = ()
    no_cache: bool = False
    pull: bool = False
    shm_size: int = 0
    ulimits: tuple[str, ...] = ()
    """`name=soft:hard`."""
    privileged: bool = False


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


class Images:
    """ImagePort over buildah."""

    def __init__(
        self, paths: Paths, *, insecure_registries: Sequence[str] = (), clock: Clock | None = None
    ) -> None:
        self._root = paths.state / "images"
        self._runroot = paths.run / "images"
        self._auth_dir = paths.run / "auth"
        self._conf_dir = paths.state / "images-conf"
        self._tmp = paths.state / "images-tmp"
        self._pulled_file = self._conf_dir / "pulled.json"
        self._insecure = tuple(insecure_registries)
        self._clock = clock or SystemClock()
        self._store = ImageStore(self._root)
        self._answers: dict[str, tuple[tuple[int, int, int] | None, ImageConfig]] = {}
        self._pulls: dict[str, asyncio.Task[None]] = {}
        self._mounted: dict[str, Path] = {}
        self._mounting: dict[str, asyncio.Task[Path]] = {}
        self._environment: dict[str, str] | None = None

    # ------------------------------------------------------------------------------------ ImagePort

    async def ensure(self, reference: str, policy: str, auth: str) -> ImageConfig:
        """See ImagePort. Policies are Compose's; a reference with a digest is never pulled twice."""
        if policy in _LAZY:
            answer = self._answers.get(reference)
            if answer is not None and answer[0] == self._store.stamp():
                return answer[1]
        image = self._store.find(reference)
        if self._wants_pull(reference, policy, image):
            await self._pull_once(reference, auth)
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

    async def _pull_once(self, reference: str, auth: str) -> None:
        """Pull; those who ask for the same image meanwhile wait for the same pull."""
        key = f"{reference} {auth}"
        task = self._pulls.get(key)
        if task is None:
            task = asyncio.create_task(
                self._pull(reference, decode_header(auth), None), name=f"pull {reference}"
            )
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
                await self._run("rm", name)
            path = await self._hold_and_mount(name, image_id)
        mounts.mount("", path, "", mounts.MS_REMOUNT | mounts.MS_BIND | mounts.MS_RDONLY)
        return path

    async def _hold_and_mount(self, name: str, image_id: str) -> Path:
        try:
            await self._run("from", "--pull=never", "--name", name, image_id)
        except Invalid as error:
            if "already in use" not in str(error):
                raise
        return Path((await self._run("mount", name)).strip())

    async def release(self, in_use: Sequence[str]) -> None:
        """See ImagePort."""
        keep = set(in_use) | set(self._mounting)
        gone = [name for name, image_id in sorted((await self._holders()).items()) if image_id not in keep]
        for image_id in sorted(set(self._mounted) - keep):
            del self._mounted[image_id]
        if gone:
            await self._run("rm", *gone)

    async def _holders(self) -> Mapping[str, str]:
        """Working containers of ours: name to image id."""
        if self._store.stamp() is None:
            return {}
        found = json.loads(await self._run("containers", "--json") or "[]") or []
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
        mounts.unmount_below(self._root)
        mounts.unmount_below(self._runroot)
        if remove:
            for directory in (self._root, self._runroot, self._conf_dir, self._tmp, self._auth_dir):
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
                await self._run(
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
        if built is not None and _only_local(built, wanted):
            return built.digest
        credentials = self._credentials(wanted, auth, docker_config)
        registry = Registry(wanted.registry_host, credentials, insecure_registries=self._insecure)
        try:
            return await asyncio.to_thread(registry.digest, wanted)
        except PyswarmError:
            if built is not None:
                return built.digest
            raise

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
        environment = self._prepare()
        if request.shm_size:
            progress("warning: build.shm_size has no effect: steps see the node's own /dev/shm")
        with (
            tempfile.TemporaryDirectory(dir=self._tmp, prefix="build-") as work,
            self._tmpfs_dir() as private,
        ):
            id_file = Path(work) / "iid"
            argv = [
                "build",
                "--isolation=chroot",
                "--format=docker",
                f"--iidfile={id_file}",
                *build_flags(request),
                *self._build_files(request, Path(work), private),
                *self._build_tls(request),
            ]
            if docker_config is not None and docker_config.exists():
                argv.append(f"--authfile={docker_config}")
            await self._run(*argv, request.context, progress=progress, environment=environment)
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
            await self._run("tag", image.id, f"{wanted.repository}:{wanted.tag}")
        environment = self._prepare()
        digest_file = self._tmp / f"digest-{os.getpid()}-{id(wanted)}"
        with auth_file(self._auth_dir, wanted.domain, self._credentials(wanted, auth, docker_config)) as path:
            try:
                await self._run(
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

    async def save(self, reference: str, target: Path) -> None:
        """Write an image as a docker archive (`docker save`)."""
        image, name = self._get(reference), parse(reference)
        await self._run("push", image.id, f"docker-archive:{target}:{name.repository}:{name.tag or 'latest'}")

    async def load(self, source: Path) -> str:
        """Read a docker archive into the store; returns the image's id."""
        return (
            (await self._run("pull", "--policy=always", f"docker-archive:{source}")).strip().splitlines()[-1]
        )

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

    async def tag(self, source: str, target: str) -> None:
        """Give an image another name."""
        image, name = self._get(source), parse(target)
        if name.digest:
            raise Invalid(f"cannot tag {target}: a tag cannot carry a digest")
        await self._run("tag", image.id, name.local_names[0])

    async def remove(self, reference: str, *, force: bool = False) -> Sequence[str]:
        """Remove a name, and the image with its last name; Conflict while a task here uses it. Returns
        lines as docker prints them."""
        image = self._get(reference)
        names = _named(image, reference)
        if names and len(image.names) > len(names):
            await self._run("rmi", *names)
            return [f"Untagged: {familiar(name)}" for name in names]
        if image.id in (await self._holders()).values():
            raise Conflict(
                f"cannot remove image {reference}: a task on this node uses it; remove the service first"
            )
        if not names and len(image.names) > 1 and not force:
            raise Conflict(f"cannot remove image {reference}: it has several names; use --force")
        await self._run("rmi", *(image.names or (image.id,)))
        return [*(f"Untagged: {familiar(name)}" for name in image.names), f"Deleted: sha256:{image.id}"]

    async def prune(self, *, all_images: bool = False, keep: Sequence[str] = ()) -> tuple[Sequence[str], int]:
        """Remove images without a name (with `all_images`, all) that no task here uses and that are not in
        `keep` (references or ids); and the steps of builds older than an hour. Returns the ids removed
        and the bytes freed."""
        before = sum(self._layer_bytes())
        kept = {image.id for image in map(self._store.find, keep) if image is not None}
        used = kept | set((await self._holders()).values()) | set(self._mounting)
        old = self._clock.now() - _OLD_ENOUGH
        doomed = [
            image
            for image in self._store.images()
            if image.id not in used and _prunable(image, all_images, old)
        ]
        gone = [image.id for image in doomed if await self._try_remove(image)]
        return gone, max(0, before - sum(self._layer_bytes()))

    def _layer_bytes(self) -> Sequence[int]:
        seen: dict[str, int] = {}
        sizes = self._store.sizes()
        for image in self._store.images():
            seen[image.layer] = max(seen.get(image.layer, 0), sizes.get(image.id, 0))
        return list(seen.values())

    async def _try_remove(self, image: StoredImage) -> bool:
        """By its names, never by --force: that would remove the working container that holds it too."""
        try:
            await self._run("rmi", *(image.names or (image.id,)))
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

    # -------------------------------------------------------------------------------- the program

    def _prepare(self) -> dict[str, str]:
        """Write the configuration files that make buildah independent of the host's, once."""
        if self._environment is not None:
            return self._environment
        for directory in (self._root, self._conf_dir, self._tmp, self._runroot):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        storage, registries = self._conf_dir / "storage.conf", self._conf_dir / "registries.conf"
        storage.write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{self._root}"\nrunroot = "{self._runroot}"\n'
        )
        registries.write_text(_registries_conf(self._insecure))
        self._environment = {
            **os.environ,
            "CONTAINERS_STORAGE_CONF": str(storage),
            "CONTAINERS_REGISTRIES_CONF": str(registries),
            "TMPDIR": str(self._tmp),
            "LC_ALL": "C.UTF-8",
        }
        return self._environment

    def _argv(self, command: str, arguments: Sequence[str]) -> Sequence[str]:
        program = shutil.which("buildah")
        if program is None:
            raise MissingProgram("buildah", "buildah", "it keeps the images")
        flags = [f"--root={self._root}", f"--runroot={self._runroot}", "--storage-driver=overlay"]
        policy = self._policy() if command in ("pull", "push", "build", "from") else ()
        return [program, *flags, command, *policy, *arguments]

    def _policy(self) -> Sequence[str]:
        """The machine's signature policy is honoured; without one everything is accepted, as docker does."""
        if Path("/etc/containers/policy.json").exists():
            return ()
        policy = self._conf_dir / "policy.json"
        if not policy.exists():
            policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}\n')
        return (f"--signature-policy={policy}",)

    async def _run(
        self,
        command: str,
        *arguments: str,
        progress: Progress | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> str:
        """Run buildah; returns its standard output. Invalid with its own reason when it fails. When
        cancelled, buildah is killed."""
        environment = environment or self._prepare()
        process = await asyncio.create_subprocess_exec(
            *self._argv(command, arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            output, complaints = await asyncio.gather(
                _lines(process.stdout, progress), _lines(process.stderr, progress)
            )
            code = await process.wait()
        except BaseException:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
        if code != 0:
            raise _failure(command, code, complaints)
        return "\n".join(output)


async def _lines(stream: asyncio.StreamReader, progress: Progress | None) -> Sequence[str]:
    """The lines of a stream, each given to `progress` as it comes; long lines are cut into pieces."""
    lines: list[str] = []
    rest = b""
    while chunk := await stream.read(65536):
        *whole, rest = (rest + chunk).replace(b"\r", b"\n").split(b"\n")
        for line in (raw.decode(errors="replace") for raw in whole):
            lines.append(line)
            if progress is not None and line:
                progress(_readable(line))
    if rest:
        lines.append(rest.decode(errors="replace"))
        if progress is not None:
            progress(_readable(lines[-1]))
    return lines


def _readable(line: str) -> str:
    """A log line of buildah's as plain text."""
    match = _LOG_LINE.match(line)
    return f"{match.group(1)}: {match.group(2)}" if match else line


def _failure(command: str, code: int, complaints: Sequence[str]) -> PyswarmError:
    """buildah's own reason: the text from its last `Error:` on."""
    if code < 0:
        return Fatal(f"buildah {command} was ended by signal {-code}")
    start = max((n for n, line in enumerate(complaints) if line.startswith("Error: ")), default=None)
    told = complaints[start:] if start is not None else complaints[-3:]
    text = " ".join(line.strip().removeprefix("Error: ") for line in told if line.strip())
    text = re.sub(r"^1 error occurred:\s*\* ", "", text)
    text = re.sub(r"^initializing source \S+: ", "", text)
    return Invalid(text or f"buildah {command} failed with exit code {code}")


def _registries_conf(insecure_registries: Sequence[str]) -> str:
    lines = ['unqualified-search-registries = ["docker.io"]', 'short-name-mode = "permissive"']
    for location in insecure_registries:
        if "/" not in location:
            lines += ["", "[[registry]]", f'location = "{location}"', "insecure = true"]
    return "\n".join(lines) + "\n"


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


def _absent(reference: str, policy: str) -> str:
    if policy == "build":
        return f"no such image: {reference} is built, not pulled, and was not built on this node"
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


def _network(network: str) -> Sequence[str]:
    if network in ("", "default", "host"):
        return ()
    raise Invalid(
        f"build.network: {network!r} is not supported: "
        "steps run with the node's network (use host or default)"
    )


def _cache_repository(entry: str) -> str:
    """The repository that a cache_from or cache_to entry names; "" for caches that are no registry."""
    if "=" not in entry:
        return parse(entry).repository
    pairs = (part.partition("=") for part in entry.split(","))
    fields = {name: value for name, _, value in pairs}
    return parse(fields["ref"]).repository if fields.get("type") == "registry" and "ref" in fields else ""


def build_flags(request: BuildRequest) -> Sequence[str]:
    """buildah's flags for a request. Pure."""
    flags: list[str] = ["--layers"]
    if len(request.platforms) > 1:
        flags += [f"--platform={','.join(request.platforms)}"]
        flags += [f"--manifest={parse(tag).local_names[0]}" for tag in request.tags[:1]]
    else:
        flags += [f"--platform={platform}" for platform in request.platforms]
        flags += [f"--tag={parse(tag).local_names[0]}" for tag in request.tags]
    flags += [f"--build-arg={name}={value}" for name, value in sorted(request.args.items())]
    flags += [f"--label={name}={value}" for name, value in sorted(request.labels.items())]
    flags += [f"--target={request.target}"] if request.target else []
    flags += [f"--cache-from={name}" for name in filter(None, map(_cache_repository, request.cache_from))]
    flags += [f"--cache-to={name}" for name in filter(None, map(_cache_repository, request.cache_to))]
    flags += [f"--add-host={entry.replace('=', ':', 1)}" for entry in request.extra_hosts]
    flags += [f"--ssh={entry}" for entry in request.ssh]
    flags += [
        f"--build-context={name}={value}" for name, value in sorted(request.additional_contexts.items())
    ]
    flags += [f"--shm-size={request.shm_size}"] if request.shm_size else []
    flags += [f"--ulimit={entry}" for entry in request.ulimits]
    flags += ["--no-cache"] if request.no_cache else []
    flags += ["--cap-add=all"] if request.privileged else []
    flags += _network(request.network)
    flags += ["--pull=always"] if request.pull else ["--pull=false"]
    return flags
