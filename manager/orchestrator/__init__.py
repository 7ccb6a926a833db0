"""What runs where and when: the managers' decisions about tasks, as reconcilers over a view of the state.

`reconcilers` lists them in the order in which they are asked within a round: first what takes tasks away from
nodes and what changes how many there are to be, then the services themselves, then what starts by the clock,
what moves healthy tasks and what takes records away; last, what replaces the root CA. The allocator and the
scheduler come after them.
"""

from __future__ import annotations

from collections.abc import Mapping

from manager.orchestrator.autoscale import Autoscaler, Meter, TaskUse
from manager.orchestrator.configs import VersionCollector
from manager.orchestrator.constraints import ConstraintEnforcer
from manager.orchestrator.cron import CronOrchestrator
from manager.orchestrator.reaper import TaskReaper
from manager.orchestrator.rebalance import Rebalancer
from manager.orchestrator.rotation import RootRotation
from manager.orchestrator.services import ServiceOrchestrator
from manager.state import Reconciler

__all__ = ["Meter", "TaskUse", "reconcilers"]


def reconcilers(use: Mapping[str, TaskUse] | None = None) -> tuple[Reconciler, ...]:
    """The orchestrator's reconcilers, in order. `use` is what the autoscaler goes by: each task's use of the
    machine by task id, kept up to date by the caller; without it nothing is scaled."""
    return (
        ConstraintEnforcer(),
        Autoscaler(use if use is not None else {}),
        ServiceOrchestrator(),
        CronOrchestrator(),
        Rebalancer(),
        TaskReaper(),
        VersionCollector(),
        RootRotation(),
    )
