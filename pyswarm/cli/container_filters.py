"""The filters of `ps`, as docker has them for containers; pure. Of several values of a key one has to match, of labels
all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pyswarm.cli.human import image
from pyswarm.errors import Invalid
from pyswarm.objects import Task, TaskState

STATES = ("created", "restarting", "running", "removing", "paused", "exited", "dead")
HEALTH = ("starting", "healthy", "unhealthy", "none")


_VALUES: Mapping[str, Sequence[str]] = {"status": STATES, "health": HEALTH}


def state(task: Task) -> str:
    """A container's state in docker's words."""
    if task.status.state == TaskState.RUNNING:
        return "running"
    if task.status.state < TaskState.RUNNING:
        return "created"
    return "exited" if task.status.started_at or task.status.exit_code is not None else "dead"


def _status(task: Task, value: str, networks: Mapping[str, str]) -> bool:
    del networks
    return state(task) == value


def _health(task: Task, value: str, networks: Mapping[str, str]) -> bool:
    del networks
    return (task.status.health or "none") == value


def _exited(task: Task, value: str, networks: Mapping[str, str]) -> bool:
    del networks
    return state(task) == "exited" and str(task.status.exit_code or 0) == value


def _ancestor(task: Task, value: str, networks: Mapping[str, str]) -> bool:
    del networks
    full = task.spec.container.image
    named = value if ":" in value.rpartition("/")[2] or "@" in value else f"{value}:latest"
    return value in (full, full.partition("@")[2]) or image(full) == named


def _network(task: Task, value: str, networks: Mapping[str, str]) -> bool:
    ids = [each.network_id for each in task.networks]
    return any(id.startswith(value) or networks.get(id) == value for id in ids)


def _volume(task: Task, value: str, networks: Mapping[str, str]) -> bool:
    del networks
    return any(value in (mount.source, mount.target) for mount in task.spec.container.mounts)


def _name(task: Task, value: str, networks: Mapping[str, str]) -> bool:
    del networks
    return value.removeprefix("/") in task.name


def _label(task: Task, value: str, networks: Mapping[str, str]) -> bool:
    del networks
    key, equals, wanted = value.partition("=")
    labels = {**task.spec.container.labels, **task.service_labels}
    return key in labels and (not equals or labels[key] == wanted)


_MATCHERS: Mapping[str, Callable[[Task, str, Mapping[str, str]], bool]] = {
    "ancestor": _ancestor,
    "exited": _exited,
    "health": _health,
    "label": _label,
    "name": _name,
    "network": _network,
    "status": _status,
    "volume": _volume,
}
MANAGERS = ("id", "node", "service", "desired-state")
"""Those that the managers answer."""


def check(pairs: Sequence[tuple[str, str]]) -> None:
    """Raise Invalid for a key that containers cannot be filtered by, and for a value that it cannot have."""
    for key, value in pairs:
        if key in _VALUES and value not in _VALUES[key]:
            raise Invalid(f"invalid filter '{key}={value}': choose one of {', '.join(_VALUES[key])}")
        if key not in _MATCHERS and key not in MANAGERS:
            raise Invalid(f"invalid filter {key!r}: one of {', '.join(sorted((*_MATCHERS, *MANAGERS)))}")


def matches(task: Task, pairs: Sequence[tuple[str, str]], networks: Mapping[str, str]) -> bool:
    """Whether a container passes all filters; `networks` are names by id."""
    keys = dict.fromkeys(key for key, _ in pairs if key in _MATCHERS)
    return all(
        (all if key == "label" else any)(
            _MATCHERS[key](task, value, networks) for other, value in pairs if other == key
        )
        for key in keys
    )
