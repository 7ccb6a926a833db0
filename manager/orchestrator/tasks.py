"""What a task is to its service: wanted or not, made from the present spec or not; and how a new one is made."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from manager.scheduler.constraints import node_matches
from manager.state import View
from pyswarm.objects import Meta, Node, NodeState, Service, Task, TaskState, TaskStatus, alive
from pyswarm.specs import PortConfig, ServiceSpec, TaskSpec

JOB_KINDS = ("replicated-job", "global-job")
GLOBAL_KINDS = ("global", "global-job")
ACTIVE_UPDATE = ("updating", "rollback_started")
PAUSED_UPDATE = ("paused", "rollback_paused")
SELF_ENDED = (TaskState.COMPLETE, TaskState.FAILED, TaskState.REJECTED)
"""States that a task reaches by itself, and not because it was told to stop or its node was lost."""


def is_job(service: Service) -> bool:
    return service.spec.mode.kind in JOB_KINDS


def is_global(service: Service) -> bool:
    return service.spec.mode.kind in GLOBAL_KINDS


def updating(service: Service) -> bool:
    """Whether an update or a rollback of the service is going on (and is not paused)."""
    return service.update_status is not None and service.update_status.state in ACTIVE_UPDATE


def target_state(service: Service) -> TaskState:
    """Where the tasks of the service are to get to."""
    return TaskState.COMPLETE if is_job(service) else TaskState.RUNNING


def wanted(task: Task) -> bool:
    """Whether nothing has been said against the task."""
    return task.desired_state <= TaskState.COMPLETE


def live(task: Task) -> bool:
    """Wanted, and not ended."""
    return wanted(task) and alive(task.status.state)


def running(task: Task) -> bool:
    return task.status.state == TaskState.RUNNING


def age_order(task: Task) -> tuple[float, bool, str]:
    """Sorts the tasks of a slot from the oldest to the newest; of those made at one moment the wanted last."""
    return task.meta.created_at, wanted(task), task.id


def _by_our_clock(task: Task, reported: float) -> float:
    """A time that an agent reported, when its clock is wrong: not before the task was made, nor after the
    managers wrote down what they had heard of it."""
    latest = task.meta.updated_at or reported
    return max(task.meta.created_at, min(reported, latest))


def ended_at(task: Task) -> float:
    """When the task ended, by the managers' clock."""
    return _by_our_clock(task, task.status.finished_at or task.status.timestamp)


def _got_running(task: Task) -> float:
    if task.status.running_since:
        return task.status.running_since
    return task.status.timestamp if running(task) else 0.0


def running_since(task: Task) -> float:
    """When the task got RUNNING, by the managers' clock; 0 if it never did."""
    since = _got_running(task)
    return _by_our_clock(task, since) if since else 0.0


def ran_for(task: Task) -> float | None:
    """Seconds from RUNNING to the end, by its node's clock; None if it never got RUNNING."""
    since = _got_running(task)
    return (task.status.finished_at or task.status.timestamp) - since if since else None


def node_lost(view: View, node_id: str) -> bool:
    """Whether nobody can say any more what the node does."""
    node = view.get(Node, node_id)
    return node is None or node.status.state == NodeState.DOWN


def holds_resources(task: Task) -> bool:
    """Whether the task is, or may still be, on its node."""
    return bool(task.node_id) and TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING


def new_task(
    view: View,
    service: Service,
    now: float,
    *,
    slot: int = 0,
    node_id: str = "",
    iteration: int | None = None,
) -> Task:
    """A task of the service's present spec, held at READY until `slots.release` lets it go."""
    return Task(
        id=view.new_id(),
        meta=Meta(created_at=now, updated_at=now),
        service_id=service.id,
        slot=slot,
        node_id=node_id,
        spec=_with_log_driver(view, service.spec.task),
        spec_version=service.spec_version,
        service_name=service.spec.name,
        service_labels=service.spec.labels,
        endpoint=replace(
            service.spec.endpoint,
            ports=service.endpoint.ports if service.endpoint is not None else service.spec.endpoint.ports,
        ),
        status=TaskStatus(state=TaskState.NEW, timestamp=now, message="created"),
        desired_state=TaskState.READY,
        job_iteration=iteration,
        slot_volumes=service.spec.volumes_per_slot,
    )


def _with_log_driver(view: View, spec: TaskSpec) -> TaskSpec:
    cluster = view.cluster
    if spec.log_driver is not None or cluster is None or cluster.spec.default_log_driver is None:
        return spec
    return replace(spec, log_driver=cluster.spec.default_log_driver)


@dataclass(slots=True)
class Matcher:
    """Tells whether tasks are what a service wants now, comparing each version of its spec only once.

    Not a reason to replace a task: another version of an equal task spec (a scaling, a label of the service),
    credentials of the registry, the restart policy (the managers apply it), ports in ingress mode (the nodes
    apply them), and a placement that the task's node meets.
    """

    view: View
    service: Service
    stale_before: float = 0.0
    """Tasks that run since before this time follow a dependency that was updated (`restart: true`)."""
    _equal: dict[int, tuple[bool, bool]] = field(default_factory=dict[int, tuple[bool, bool]])

    def clean(self, task: Task) -> bool:
        if self.stale_before and 0 < running_since(task) < self.stale_before:
            return False
        if task.spec_version == self.service.spec_version:
            return True
        same, same_placement = self._compared(task)
        return same and (same_placement or self._placed_well(task))

    def _compared(self, task: Task) -> tuple[bool, bool]:
        known = self._equal.get(task.spec_version)
        if known is None:
            known = self._equal[task.spec_version] = (
                same_work(task, self.service.spec)
                and task.slot_volumes == self.service.spec.volumes_per_slot,
                task.spec.placement == self.service.spec.task.placement,
            )
        return known

    def _placed_well(self, task: Task) -> bool:
        if not task.node_id:
            return False
        node = self.view.get(Node, task.node_id)
        return node is not None and node_matches(self.service.spec.task.placement.constraints, node)


def same_work(task: Task, spec: ServiceSpec) -> bool:
    """Whether the task does what `spec` says, its placement aside."""
    said = spec.task
    ours = replace(
        task.spec,
        placement=said.placement,
        restart=said.restart,
        registry_auth=said.registry_auth,
        log_driver=said.log_driver if said.log_driver is None else task.spec.log_driver,
    )
    return ours == said and _same_host_ports(task.endpoint.ports, spec.endpoint.ports)


def _same_host_ports(have: tuple[PortConfig, ...], want: tuple[PortConfig, ...]) -> bool:
    ours = [port for port in have if port.publish_mode == "host"]
    theirs = [port for port in want if port.publish_mode == "host"]
    if len(ours) != len(theirs):
        return False
    return all(
        mine == other or (not other.published_port and replace(mine, published_port=0) == other)
        for mine, other in zip(ours, theirs, strict=True)
    )
