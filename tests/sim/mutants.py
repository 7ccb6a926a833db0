"""`python -m tests.sim.mutants`: plausible bugs, one by one, and whether the simulation finds each.

A bug is patched into the running code, never into the files. Each is found when some history of the first
`--seeds` fails; a bug that survives means that an invariant, or a kind of trouble, is missing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from unittest.mock import patch

from manager import controller as controller_module
from manager import dispatcher
from manager.orchestrator import (
    constraints,
    cron,
    global_,
    jobs,
    reaper,
    replicated,
    restart,
    services,
    slots,
    tasks,
    update,
)
from manager.scheduler import filters, scheduler
from manager.state import Reconciler, State
from manager.store import Fence, Store
from pyswarm.clock import Clock
from pyswarm.objects import Task, TaskState, TaskStatus
from tests.sim import cluster
from tests.sim.history import Outcome, play

Bug = Callable[[ExitStack], None]
"""Patches the bug in for as long as the stack is open."""


def _set(target: object, name: str, value: object) -> Bug:
    def apply(stack: ExitStack) -> None:
        stack.enter_context(patch.object(target, name, value))

    return apply


def _both(*bugs: Bug) -> Bug:
    def apply(stack: ExitStack) -> None:
        for bug in bugs:
            bug(stack)

    return apply


def _always(answer: object) -> Callable[..., object]:
    """A function that answers the same, whatever it is asked."""

    def function(*args: object, **kwargs: object) -> object:
        del args, kwargs
        return answer

    return function


class _Unfenced(controller_module.Controller):
    """A controller that forgets to prove that it leads."""

    def __init__(
        self,
        store: Store,
        state: State,
        reconcilers: Sequence[Reconciler],
        clock: Clock,
        fence: Fence | None = None,
    ) -> None:
        del fence
        super().__init__(store, state, reconcilers, clock, None)


def _remove_too_many(scene: slots.Scene, every: object, count: int) -> list[slots.Slot]:
    del every
    return [slots.Slot(f"{scene.service.id}/{n}", n, "") for n in range(1, count + 1)]


def _keep_slot_as_history(scene: slots.Scene, slot: slots.Slot) -> None:
    for task in list(slot.tasks):
        scene.say(slot, task, TaskState.SHUTDOWN)


def _replace_at_once(scene: slots.Scene, slot: slots.Slot, start_first: bool) -> None:
    """start-first that forgets to keep the old task."""
    del start_first
    new = slots.create(scene, slot)
    for task in slot.live:
        if task.id != new.id:
            scene.say(slot, task, TaskState.SHUTDOWN)
    slots.release(scene, slot)


def _almost_anything(task: Task) -> bool:
    return task.status.state != TaskState.PREPARING


def _newest_word(old: TaskStatus, new: TaskStatus) -> TaskStatus:
    del old
    return new


MUTANTS: dict[str, Bug] = {
    "a successor does not wait for its predecessor to stop": _set(slots, "_stopped_by", _always(0.0)),
    "alarms are lost": _set(slots.Scene, "wake_at", _always(None)),
    "tasks stay on nodes that are down": _set(constraints, "_leave_down_node", _always([])),
    "tasks stay on drained nodes": _set(constraints, "_shut_down", _always([])),
    "scaling down shuts down, but does not remove": _set(slots.Scene, "remove", _keep_slot_as_history),
    "slot numbers in use are given again": _set(replicated, "new_slots", _remove_too_many),
    "an update ignores its parallelism": _set(update, "_in_flight", _always(None)),
    "start-first stops the old task at once": _set(update, "_replace", _replace_at_once),
    "an update does not see its failures": _both(
        _set(update, "failed_rollout", _always(False)),
        _set(update, "_stuck", _always([])),
    ),
    "an update forgets the slots it did not get to": _set(update, "_outdated", _always(False)),
    "depends_on is not waited for": _set(slots, "unmet", _always("")),
    "running tasks are reaped": _set(reaper, "reapable", _almost_anything),
    "history is kept for ever": _set(reaper, "_reap_slot", _always([])),
    "a removed service's tasks are left": _set(reaper, "_dismiss_service", _always([])),
    "a job forgets the slots that wait for their delay": _set(jobs, "delayed", _always(False)),
    "global services stay where they do not fit any more": _set(global_, "keeps_tasks", _always(True)),
    "a returning node is not noticed": _set(services, "_keys_of_node", _always([])),
    "a new leader looks at nothing": _set(services.ServiceOrchestrator, "everything", _always([])),
    "the alarms of slots are not heard": _set(services, "_reconcile_slot", _always(None)),
    "an ended task keeps its slot": _set(restart, "should_restart", _always(False)),
    "every version of a spec looks the same": _set(tasks, "same_work", _always(True)),
    "the scheduler ignores what nodes can hold": _both(
        _set(filters, "reason_against", _always("")),
        _set(scheduler, "reason_against", _always("")),
        _set(filters, "dynamic_reason", _always("")),
        _set(filters, "resources", _always("")),
    ),
    "nobody writes down where a slot's volumes are": _set(scheduler, "_slot_volumes", _always([])),
    "a slot starts where its volumes are not": _set(filters, "_bound_volumes", _always(())),
    "tasks stay though their volume is elsewhere": _set(constraints, "_has_volumes", _always(True)),
    "reports go back in time": _set(dispatcher, "merged", _newest_word),
    "a deposed leader may write": _set(cluster, "Controller", _Unfenced),
    "a cron job does not wait for the run before": _set(cron, "_may_start", _always(True)),
}
"""Name of the bug: how it is patched in."""


def hunt(bug: Bug, seeds: Sequence[int]) -> Outcome | None:
    """The first history that fails with the bug, or None."""
    with ExitStack() as stack:
        bug(stack)
        for seed in seeds:
            outcome = play(seed)
            if outcome.error is not None:
                return outcome
    return None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.mutants", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="histories tried for each bug (default 200)")
    parser.add_argument("--only", default="", help="bugs whose name has this in it")
    options = parser.parse_args()
    survivors: list[str] = []
    for name, bug in MUTANTS.items():
        if options.only not in name:
            continue
        outcome = hunt(bug, range(options.seeds))
        if outcome is None:
            survivors.append(name)
        found = f"seed {outcome.seed}: {str(outcome.error)[:90]}" if outcome else "SURVIVES"
        print(f"{name:52}  {found}", flush=True)
    print(f"{len(survivors)} survive" if survivors else "all found")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
