"""What runs where and when: the managers' decisions about tasks, as reconcilers over a view of the state.

`reconcilers` lists them in the order in which they are asked within a round: first what takes tasks away from
nodes and what changes how many there are to be, then the services themselves, then what moves healthy tasks
and what takes records away. The allocator and the scheduler come after them.
"""

from __future__ import annotations

from manager.orchestrator.constraints import ConstraintEnforcer
from manager.orchestrator.reaper import TaskReaper
from manager.orchestrator.services import ServiceOrchestrator
from manager.state import Reconciler

__all__ = ["ConstraintEnforcer", "ServiceOrchestrator", "TaskReaper", "reconcilers"]


def reconcilers() -> tuple[Reconciler, ...]:
    """The orchestrator's reconcilers, in order."""
    return (ConstraintEnforcer(), ServiceOrchestrator(), TaskReaper())
