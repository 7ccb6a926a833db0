"""What an agent remembers across its own death, and what it must not remember across the machine's.

On the tmpfs (`Paths.run/agent`), since they may hold secrets: the assigned tasks with their last status, and
the rest of the assignment. They are gone after a reboot, as the containers are. On disk
(`Paths.task_state(id)/status`): that a task's container was about to start, and how it ended; so that a
task that ran before a reboot is reported as failed and not run a second time.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from node_agent.ports import Paths
from pyswarm import wire
from pyswarm.objects import Assignments, Task, TaskState, TaskStatus, terminal

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """One task as the former agent left it."""

    task: Task
    status: TaskStatus
    image_ids: tuple[str, ...] = ()
    """Its own image's, then those of images mounted as volumes."""


def _read(path: Path, cls: type[_T]) -> _T | None:
    """None for a file that is missing or damaged; the latter is logged: the managers know better anyhow."""
    try:
        return wire.from_bytes(cls, path.read_bytes())
    except FileNotFoundError:
        return None
    except Exception:  # protobuf raises its own DecodeError, and ValueError for bad text
        _log.warning("%s is damaged and ignored", path)
        return None


def _write(path: str, data: bytes) -> None:
    """Atomic: a reader, and a successor after kill -9, sees the old content or the new. Plain `os` calls:
    this is done six times for each task that starts, and pathlib would cost more than the file system."""
    fresh = path + ".new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    try:
        fd = os.open(fresh, flags, 0o600)
    except FileNotFoundError:
        Path(path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(fresh, flags, 0o600)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
    os.replace(fresh, path)  # noqa: PTH105


def _keep(path: str, data: bytes) -> None:
    """Write what is nice to have: a full disk must not keep tasks from ending."""
    try:
        _write(path, data)
    except OSError as error:
        _log.warning("cannot write %s, a successor of this agent will miss it: %s", path, error)


class Records:
    """The files of one agent. Saving never fails; what cannot be written is logged."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._home = paths.run / "agent"

    def _file(self, task_id: str, kind: str) -> str:
        return f"{self._home}/{task_id}.{kind}"

    def _on_disk(self, task_id: str) -> str:
        return f"{self._paths.task_state(task_id)}/status"

    def save_task(self, task: Task) -> None:
        """On tmpfs only: its environment may hold passwords."""
        _keep(self._file(task.id, "task"), wire.to_bytes(task))

    def save_status(self, task_id: str, status: TaskStatus) -> None:
        """Every change on tmpfs; the start and the end on disk too."""
        data = wire.to_bytes(status)
        _keep(self._file(task_id, "status"), data)
        if status.state == TaskState.STARTING or terminal(status.state):
            _keep(self._on_disk(task_id), data)

    def save_images(self, task_id: str, image_ids: Sequence[str]) -> None:
        """Which images the task's root and mounts are from."""
        _keep(self._file(task_id, "images"), " ".join(image_ids).encode())

    def forget(self, task_id: str) -> None:
        """Drop the task's files on tmpfs; those on disk go with the task's directory."""
        for kind in ("task", "status", "images"):
            Path(self._file(task_id, kind)).unlink(missing_ok=True)

    def load(self) -> Mapping[str, Remembered]:
        """All tasks of the former agent, by id in sorted order."""
        found: dict[str, Remembered] = {}
        with suppress(FileNotFoundError):
            for path in sorted(self._home.glob("*.task")):
                task = _read(path, Task)
                if task is not None and task.id == path.stem:
                    found[task.id] = self._remembered(task)
        return found

    def _remembered(self, task: Task) -> Remembered:
        image_ids: tuple[str, ...] = ()
        with suppress(FileNotFoundError):
            image_ids = tuple(Path(self._file(task.id, "images")).read_text().split())
        status = _read(Path(self._file(task.id, "status")), TaskStatus)
        return Remembered(task=task, status=status or task.status, image_ids=image_ids)

    def status_on_disk(self, task_id: str) -> TaskStatus | None:
        """The start or the end of a task that this machine has had, perhaps before a reboot."""
        return _read(Path(self._on_disk(task_id)), TaskStatus)

    def save_assignment(self, assignment: Assignments) -> None:
        """Secrets, configs, volumes, network tables and ports (no tasks), on tmpfs."""
        _keep(f"{self._home}/assignment", wire.to_bytes(assignment))

    def load_assignment(self) -> Assignments | None:
        """What `save_assignment` kept."""
        return _read(self._home / "assignment", Assignments)
