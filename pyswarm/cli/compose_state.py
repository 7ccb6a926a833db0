"""A project's containers as docker compose sees them: one per slot, its name, and how far it is; pure.

A slot's container is its newest task: the ones before it were replaced.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pyswarm.cli import human
from pyswarm.cli.compose_local import ONEOFF_LABEL, SERVICE_LABEL
from pyswarm.objects import Service, Task, TaskState, terminal
from pyswarm.specs import STACK_LABEL

Stage = Literal["waiting", "started", "healthy", "exited", "failed"]
"""`failed` never had a process: its image is missing, a mount cannot be made, ..."""
_DONE = (TaskState.COMPLETE, TaskState.FAILED, TaskState.SHUTDOWN, TaskState.REMOVE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One of a project's containers."""

    name: str
    """`shop-web-1`, or the name of a one-off."""
    service: str
    """Short name: `web`."""
    task: Task
    one_off: bool = False

    @property
    def short(self) -> str:
        """What stands before its lines of log: `web-1`."""
        return self.name.removeprefix(f"{self.task.service_labels.get(STACK_LABEL, '')}-")


def short_name(service: Service) -> str:
    """The name of a service in its file."""
    stack = service.spec.labels.get(STACK_LABEL, "")
    return service.spec.labels.get(SERVICE_LABEL) or service.spec.name.removeprefix(f"{stack}_")


def is_one_off(service: Service) -> bool:
    return service.spec.labels.get(ONEOFF_LABEL) == "True"


def containers(services: Sequence[Service], tasks: Iterable[Task]) -> list[Container]:
    """The containers of the services, in natural order of their names."""
    by_id = {service.id: service for service in services}
    newest: dict[tuple[str, int, str], Task] = {}
    for task in tasks:
        if task.service_id not in by_id:
            continue
        key = (task.service_id, task.slot, "" if task.slot else task.node_id)
        other = newest.get(key)
        if other is None or (other.meta.created_at, other.id) < (task.meta.created_at, task.id):
            newest[key] = task
    found = [_container(by_id[task.service_id], task) for task in newest.values()]
    return sorted(found, key=lambda each: (human.natural(each.name), each.task.id))


def _container(service: Service, task: Task) -> Container:
    stack = service.spec.labels.get(STACK_LABEL, "")
    short = short_name(service)
    once = is_one_off(service)
    name = service.spec.name if once else f"{stack}-{short}-{task.slot or 1}"
    return Container(name=name, service=short, task=task, one_off=once)


def stage(task: Task) -> Stage:
    """How far a container is."""
    status = task.status
    if terminal(status.state):
        began = status.started_at or status.container_id or status.exit_code is not None
        return "exited" if began and status.state in _DONE else "failed"
    if status.state == TaskState.RUNNING:
        return "healthy"
    if status.state == TaskState.STARTING and (status.started_at or status.pid or status.health):
        return "started"
    return "waiting"


def current(service: Service, task: Task) -> bool:
    """Whether the task is made from the service's spec as it is now."""
    return task.spec_version == service.spec_version or task.spec == service.spec.task


def exit_code(task: Task) -> int:
    """What the container ended with; 1 for one that failed without a code."""
    if task.status.exit_code is not None:
        return task.status.exit_code
    return 0 if task.status.state in (TaskState.COMPLETE, TaskState.SHUTDOWN, TaskState.REMOVE) else 1


def restarts(task: Task) -> bool:
    """Whether another container follows one that has ended so."""
    policy = task.spec.restart
    if task.desired_state > TaskState.RUNNING or policy.condition == "none":
        return False
    if policy.max_attempts and (task.window_restarts or task.restarts) >= policy.max_attempts:
        return False
    return policy.condition == "any" or exit_code(task) != 0


def wants(service: Service) -> int:
    """How many containers the service is to have."""
    return 0 if service.spec.stopped else slots(service)


def slots(service: Service) -> int:
    """How many containers the service has when it is not stopped."""
    return service.spec.mode.replicas if service.spec.mode.kind == "replicated" else 0


def of_service(services: Sequence[Service], tasks: Sequence[Task], service: Service) -> list[Container]:
    """The containers of one service that belong to its slots of now."""
    return [
        each
        for each in containers(services, tasks)
        if each.task.service_id == service.id and each.task.slot <= max(slots(service), 1)
    ]


def ended(service: Service, tasks: Sequence[Task]) -> bool:
    """Whether a service that should have containers has one that ended for good: `up` and `start` begin it
    anew."""
    mine = of_service([service], tasks, service)
    return wants(service) > 0 and any(
        stage(each.task) in ("exited", "failed") and not restarts(each.task) for each in mine
    )


def colour(index: int) -> str:
    """The escape sequence of the index-th service's colour, in docker compose's order: cyan, yellow, green,
    magenta, blue, then the bright ones."""
    codes = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
    return f"\x1b[{codes[index % len(codes)]}m"
