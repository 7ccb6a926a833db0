"""How far a job is: read by the jobs themselves, by cron and by what depends on a job."""

from __future__ import annotations

from collections.abc import Iterable

from manager.orchestrator.tasks import is_global, live
from manager.scheduler.constraints import node_matches
from manager.state import View
from pyswarm.objects import Node, NodeState, Service, Task, TaskState


def iteration_of(service: Service) -> int:
    return service.job_status.iteration if service.job_status is not None else 0


def due(service: Service) -> bool:
    """Whether the present iteration is to run at all: a cron job's iteration 0 is not."""
    return service.spec.cron is None or iteration_of(service) > 0


def tasks_of_iteration(tasks: Iterable[Task], iteration: int) -> list[Task]:
    return [t for t in tasks if (t.job_iteration or 0) == iteration and t.desired_state != TaskState.REMOVE]


def job_complete(view: View, service: Service) -> bool:
    """Whether every completion of the present iteration is there."""
    if not due(service):
        return False
    tasks = tasks_of_iteration(view.tasks_of_service(service.id), iteration_of(service))
    done = [t for t in tasks if t.status.state == TaskState.COMPLETE]
    if not is_global(service):
        return len({t.slot for t in done}) >= service.spec.mode.total_completions
    nodes = {t.node_id for t in done}
    want = [node.id for node in view.nodes() if takes_new_tasks(node, service)]
    return bool(nodes) and all(id in nodes for id in want) and not any(live(t) for t in tasks)


def takes_new_tasks(node: Node, service: Service) -> bool:
    """Whether a global service or job puts a new task on the node."""
    return (
        node.status.state == NodeState.READY
        and node.spec.availability == "active"
        and node_matches(service.spec.task.placement.constraints, node)
    )


def busy(tasks: Iterable[Task]) -> bool:
    """Whether anything of these is still going on."""
    return any(live(t) for t in tasks)
