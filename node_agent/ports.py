"""What the agent's worker needs of the machine, as Protocols owned by the worker, their user.

`runtime/`, `images/`, `storage.py`, `network/` and `logs.py` implement them; the simulation has a fake set.
All paths are absolute. All calls are coroutines that may run in parallel for different tasks; each is
idempotent for the same task, since an agent that was killed in the middle repeats it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from pyswarm.objects import (
    Config,
    ContainerStats,
    IngressPort,
    NetworkTable,
    Secret,
    Task,
    Volume,
)
from pyswarm.specs import Healthcheck, PortConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Where an agent keeps things. Two agents on one machine differ in every field."""

    state: Path
    """On disk, 0700: `tasks/<id>/` (writable layer, log), `volumes/<name>/_data`, `agent.json`, images."""
    run: Path
    """On a tmpfs that pyswarm mounted, 0700: `tasks/<id>/` (bundle, secrets, hosts, resolv.conf), `netns/`."""
    cgroup_parent: str = "/pyswarm"
    """Parent cgroup of all containers, in every hierarchy in use."""

    def task_state(self, task_id: str) -> Path:
        return self.state / "tasks" / task_id

    def restarting(self, task_id: str) -> Path:
        """A file that is there while the task's process is being restarted: its log goes on."""
        return self.task_run(task_id) / "restarting"

    def task_run(self, task_id: str) -> Path:
        return self.run / "tasks" / task_id

    def log(self, task_id: str) -> Path:
        """The container's log in the k8s-file form that conmon writes; rotated ones have `.1`, `.2` ..."""
        return self.task_state(task_id) / "log"

    def netns(self, task_id: str) -> Path:
        """File onto which the task's network namespace is bind mounted."""
        return self.run / "netns" / task_id


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """What the agent needs of an image's OCI configuration."""

    id: str
    digest: str
    """Of the manifest, `sha256:...`; the image id where the store has no manifest digest."""
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    volumes: tuple[str, ...] = ()
    exposed_ports: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    stop_signal: str = ""
    healthcheck: Healthcheck | None = None
    os: str = "linux"
    architecture: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BindMount:
    """A mount the OCI configuration gets, made ready by storage or network: `options` as in fstab."""

    source: str
    target: str
    type: str = "bind"
    options: tuple[str, ...] = ("rbind", "rprivate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a container ended."""

    code: int
    """128 + signal when a signal ended it."""
    oom_killed: bool = False
    finished_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Everything the runtime needs to make a container: pure data, so `oci_spec.build` is a function of it."""

    task: Task
    image: ImageConfig
    rootfs: Path
    mounts: Sequence[BindMount] = ()
    """Volumes, binds, tmpfs, secrets, configs, /etc/hosts, /etc/hostname, /etc/resolv.conf, in mount order."""
    netns: Path | None = None
    """None runs in the host's network namespace (`network_mode: host`)."""
    hostname: str = ""
    env: Sequence[str] = ()
    """Added after the image's and before the spec's (HOSTNAME, DOCKER_RESOURCE_*)."""
    cgroup_parent: str = "/pyswarm"
    user: tuple[int, int, tuple[int, ...]] = (0, 0, ())
    """uid, gid, additional gids, resolved from the image's passwd and group by storage."""
    home: str = "/root"


ExecEvent = tuple[Literal["stdout", "stderr", "exit"], bytes]
"""A piece of an exec's output; for `exit` the bytes are the decimal exit code."""
ExecInput = tuple[Literal["stdin", "eof", "resize", "detach"], bytes]
"""What goes in; for `resize` the bytes are `ROWSxCOLS`; `detach` leaves the command to itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRequest:
    argv: tuple[str, ...]
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    tty: bool = False
    stdin: bool = False
    privileged: bool = False
    rows: int = 0
    cols: int = 0


class RuntimePort(Protocol):
    """Containers by task id, under conmon and an OCI runtime."""

    async def create(self, launch: Launch) -> int:
        """Make the container and stop just before its process starts; returns the init's pid. Raises
        Invalid with the runtime's own words when the spec cannot be run (no such command, bad mount)."""
        ...

    async def start(self, task_id: str) -> None:
        """Let the created container's process run."""
        ...

    async def kill(self, task_id: str, signal: str) -> None:
        """Send a signal (name or number) to the container's init; NotFound when it is not running."""
        ...

    async def wait(self, task_id: str) -> Exit:
        """Return when the container has ended, at once if it did while nobody looked; for a conmon that was
        killed the exit code is 137 when the container is gone and unknown otherwise."""
        ...

    async def delete(self, task_id: str) -> None:
        """Remove every trace of the container (running or not) but its log and writable layer."""
        ...

    async def running(self, task_id: str) -> bool:
        """Whether the container's init process lives."""
        ...

    async def known(self) -> Sequence[str]:
        """Task ids that have a container here, running or ended, in sorted order: for adoption."""
        ...

    async def exec(
        self, task_id: str, request: ExecRequest, stdin: AsyncIterator[ExecInput]
    ) -> AsyncIterator[ExecEvent]:
        """Run a command in the container; ends with an `exit` event. Cancelling kills it."""
        ...

    async def attach(
        self, task_id: str, *, rows: int, cols: int, inputs: AsyncIterator[ExecInput]
    ) -> AsyncIterator[ExecEvent]:
        """Join the streams of the container's own process, once there is one; ends with an `exit` event.
        Closing it leaves the process to itself. NotFound when there is no container in time."""
        ...

    async def attached(self, task_id: str) -> None:
        """Return when somebody is or was attached to the container."""
        ...

    async def probe(self, task_id: str, argv: Sequence[str], timeout: float) -> tuple[int, str]:
        """One health check: exit code (124 on timeout) and at most 4 KiB of output."""
        ...

    async def stats(self, task_id: str) -> ContainerStats:
        """Read the cgroup; NotFound when there is none."""
        ...


class ImagePort(Protocol):
    """Images by reference, kept by buildah in this agent's own store."""

    async def ensure(self, reference: str, policy: str, auth: str) -> ImageConfig:
        """Have the image locally, pulled if the policy asks for it (`auth` is the task's registry_auth);
        Invalid with the registry's reason when it cannot be had. Answers from memory when nothing is to do."""
        ...

    async def mount(self, image: ImageConfig) -> Path:
        """The image's root file system, mounted read-only, once per image and shared by its tasks."""
        ...

    async def release(self, in_use: Sequence[str]) -> None:
        """Unmount the images (by id) that are not in `in_use`."""
        ...


class StoragePort(Protocol):
    """Root file systems, volumes, secrets and config files of tasks."""

    async def prepare(
        self,
        task: Task,
        image: ImageConfig,
        lower: Path,
        secrets: Mapping[str, Secret],
        configs: Mapping[str, Config],
        volumes: Mapping[str, Volume],
    ) -> tuple[Path, Sequence[BindMount]]:
        """Mount the writable layer, create volumes (copying the image's content into a new one), write
        secrets and configs to tmpfs; returns the root and the mounts in order. Invalid names the mount."""
        ...

    async def resolve_user(
        self, task: Task, image: ImageConfig, root: Path
    ) -> tuple[tuple[int, int, tuple[int, ...]], str]:
        """(uid, gid, extra gids) and home of the user that the task runs as."""
        ...

    async def release(self, task_id: str, *, keep_layer: bool) -> None:
        """Unmount and remove what `prepare` made; the log is kept until `forget`."""
        ...

    async def forget(self, task_id: str) -> None:
        """Remove everything of the task from disk, its log too."""
        ...

    async def known(self) -> Sequence[str]:
        """Task ids that have anything here, sorted."""
        ...


class NetworkPort(Protocol):
    """The node's end of the overlay networks, VIPs, DNS and published ports."""

    async def start(self) -> None:
        """Take over what a former agent left; make the base tables."""
        ...

    async def attach(self, task: Task) -> Sequence[BindMount]:
        """Make the task's namespace at Paths.netns(task.id), with loopback, one veth per network, addresses,
        routes, its part of VIPs and DNS; returns the mounts for hosts, hostname and resolv.conf.
        The networks' tables were given to `apply` before."""
        ...

    async def publish(self, task: Task) -> Sequence[PortConfig]:
        """Open the task's host-mode ports; returns them with the ports in use. Conflict when one is taken."""
        ...

    async def detach(self, task_id: str) -> None:
        """Drop the namespace and all that belongs to it."""
        ...

    async def apply(
        self, networks: Mapping[str, NetworkTable], ingress: Sequence[IngressPort], tasks: Mapping[str, Task]
    ) -> None:
        """Make the kernel and DNS agree with these complete tables (only differences are touched)."""
        ...

    async def repair(self) -> Sequence[str]:
        """Compare the kernel with what was applied and correct it; what was corrected, for the log."""
        ...

    async def known(self) -> Sequence[str]:
        """Task ids that have a namespace here, sorted."""
        ...

    async def stop(self, *, remove: bool) -> None:
        """Stop serving DNS; with `remove`, delete every bridge, link, table and namespace of ours."""
        ...


class LogPort(Protocol):
    """Container logs: conmon's files, rotated, read and followed."""

    def read(
        self, task_id: str, *, follow: bool, tail: int, since: float, until: float, stdout: bool, stderr: bool
    ) -> AsyncIterator[LogLine]:
        """Lines in order, rotated files first; `tail` < 0 is all; times in Unix
        seconds, 0 for none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    task_id: str
    nanos: int
    """Unix time in nanoseconds."""
    stream: Literal["stdout", "stderr"]
    data: bytes
    """Without the newline, unless it ended the line (then with it)."""
