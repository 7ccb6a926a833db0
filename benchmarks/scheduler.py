"""Scheduling decisions per second at 1,000 nodes, and how the cost of one grows with the cluster.

    python benchmarks/scheduler.py [--nodes 1000] [--tasks 30000]

Allocator and scheduler over the real state, with staging and the keys of every change, as in the leader's
loop; without the store. Figures are for one core; compare them within one run only.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from manager.allocator import Allocator
from manager.assignments import Tracker
from manager.scheduler.scheduler import Scheduler
from pyswarm.objects import Service, Task, TaskState
from pyswarm.specs import IpamPool
from tests.unit.rounds import GIB, Rounds, network, node, service, tasks_of

SUBNET = "10.64.0.0/12"


@dataclass(frozen=True)
class Case:
    """One way to fill a cluster."""

    name: str
    services: int
    wave: int
    """Tasks that come in one round."""
    constraint: bool = False
    preference: bool = False
    reserved: bool = True


CASES = (
    Case("services of 1,000, waves of 1,000", 30, 1_000),
    Case("services of 100, waves of 100", 300, 100),
    Case("services of 10, one wave each", 3_000, 10),
    Case("services of 1,000 with a constraint", 30, 1_000, constraint=True),
    Case("services of 1,000 with a spread preference", 30, 1_000, preference=True),
)


def cluster(nodes: int, *reconcilers: object) -> Rounds:
    rounds = Rounds(*reconcilers)  # type: ignore[arg-type]  # Reconcilers
    rounds.put(
        *(
            node(
                f"n{i:05d}",
                labels={"disk": "ssd" if i % 2 else "hdd", "zone": f"z{i % 7}"},
                cpus=64,
                memory=256 * GIB,
                data_path_addr=f"10.1.{i // 250}.{i % 250}",
            )
            for i in range(nodes)
        ),
        network("net", ipam=(IpamPool(subnet=SUBNET),)),
    )
    return rounds


def services_of(case: Case, total: int) -> Iterator[tuple[Service, list[Task]]]:
    """Services with their NEW tasks, `total` tasks in all."""
    each = max(1, total // case.services)
    for number in range(min(case.services, total)):
        owner = service(
            f"s{number:05d}",
            networks=["net"],
            cpus=0.1 if case.reserved else 0,
            memory=GIB // 8 if case.reserved else 0,
            constraints=["node.labels.disk==ssd"] if case.constraint else [],
            preferences=["node.labels.zone"] if case.preference else [],
        )
        yield owner, tasks_of(owner, each, state=TaskState.NEW)


def fill(rounds: Rounds, case: Case, total: int) -> list[tuple[int, float]]:
    """Place `total` tasks; returns (tasks so far, CPU seconds per task) of each wave."""
    points: list[tuple[int, float]] = []
    placed = 0
    for owner, tasks in services_of(case, total):
        for start in range(0, len(tasks), case.wave):
            wave = tasks[start : start + case.wave]
            seconds = timed(lambda wave=wave, owner=owner: rounds.put(owner, *wave))
            placed += len(wave)
            points.append((placed, seconds / len(wave)))
    assert all(task.status.state == TaskState.ASSIGNED for task in rounds.view.tasks())
    return points


def timed(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


class Timed:
    """A reconciler with a stop watch."""

    def __init__(self, inner: object) -> None:
        self._inner = inner
        self.name = getattr(inner, "name", "")
        self.seconds = 0.0

    def keys(self, *arguments: object) -> object:
        return self._measure("keys", arguments)

    def everything(self, *arguments: object) -> object:
        return self._measure("everything", arguments)

    def plan(self, *arguments: object) -> object:
        return self._measure("plan", arguments)

    def _measure(self, method: str, arguments: Sequence[object]) -> object:
        start = time.process_time()
        try:
            return getattr(self._inner, method)(*arguments)
        finally:
            self.seconds += time.process_time() - start


def growth(points: Sequence[tuple[int, float]], total: int) -> float:
    """Cost per task near the end, in terms of the cost per task at the beginning."""
    early = [cost for at, cost in points if at <= max(total // 10, points[0][0])]
    late = [cost for at, cost in points if at > total * 9 // 10]
    return statistics.median(late) / statistics.median(early)


def run_case(case: Case, nodes: int, total: int) -> None:
    scheduler, allocator = Timed(Scheduler()), Timed(Allocator())
    rounds = cluster(nodes, allocator, scheduler)
    scheduler.seconds = allocator.seconds = 0.0
    points = fill(rounds, case, total)
    whole = sum(cost for _, cost in points) / len(points)
    print(
        f"{case.name:45} {total / scheduler.seconds:9,.0f} scheduled/s"
        f" {total / allocator.seconds:9,.0f} allocated/s"
        f" {1 / whole:8,.0f} whole/s   cost x{growth(points, total):.2f}"
    )


def run_reactions(nodes: int, total: int) -> None:
    """One task fails in a full cluster and its replacement is placed; every node is connected."""
    case = CASES[0]
    rounds = cluster(nodes, Allocator(), Scheduler())
    fill(rounds, case, total)
    tasks = list(rounds.view.tasks())
    running = [replace(t, status=replace(t.status, state=TaskState.RUNNING)) for t in tasks]
    rounds.put(*running)
    tracker = Tracker()
    opened = timed(lambda: [tracker.open(rounds.view, n.id) for n in rounds.view.nodes()])
    reactions: list[float] = []
    deltas: list[float] = []
    for number, task in enumerate(tasks[:: max(1, total // 50)]):
        now = rounds.get(task)
        failed = replace(now, status=replace(now.status, state=TaskState.FAILED, timestamp=rounds.now))
        fresh = replace(
            now,
            id=f"again-{number}",
            node_id="",
            networks=(),
            status=replace(now.status, state=TaskState.NEW),
        )
        rounds.committed.clear()
        reactions.append(timed(lambda failed=failed, fresh=fresh: rounds.put(failed, fresh)))

        def deliver() -> None:
            for changed in rounds.committed:
                tracker.changed(changed)
            tracker.collect(rounds.view)

        deltas.append(timed(deliver))
    print(f"one failed task of {total:,} replaced: {statistics.median(reactions) * 1e3:.1f} ms")
    print(f"its deltas to {nodes:,} nodes:          {statistics.median(deltas) * 1e3:.1f} ms")
    print(f"complete sets of {nodes:,} nodes:       {opened * 1e3:.0f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1_000)
    parser.add_argument("--tasks", type=int, default=30_000)
    arguments = parser.parse_args()
    for case in CASES:
        run_case(case, arguments.nodes, arguments.tasks)
    run_reactions(arguments.nodes, arguments.tasks)


if __name__ == "__main__":
    main()
