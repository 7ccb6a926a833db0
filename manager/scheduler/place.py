"""The one ranking: where the next task of a service goes, and which of its tasks goes first.

Spread (the default): the branches of the preference tree are kept even; within a branch nodes on which this
version of the service failed at least `MAX_FAILURES` times lately come last, then the node with the fewest
tasks of the service comes first, then the one with the fewest tasks in total. Binpack: the node of which
most is reserved comes first. Removal is the mirror of placement.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from manager.scheduler.constraints import label_of
from manager.scheduler.filters import Request, dynamic_reason
from manager.scheduler.usage import Usage
from manager.state import View
from pyswarm.objects import Node, NodeState, Service, Task, TaskState, alive

MAX_FAILURES = 5
"""Recent failures on a node from which on it is chosen last."""

Rank = tuple[float, ...]


def branches_of(node: Node, descriptors: Iterable[str]) -> tuple[str, ...]:
    """The node's place in the preference tree: one label value a level, "" for a label it lacks."""
    values = (label_of(descriptor, node) for descriptor in descriptors)
    return tuple(value for value in values if value is not None)


class _Pool(Protocol):
    """Nodes in order of preference. After a `pop` that gave a node, `settle` is called before the next."""

    def pop(self) -> str | None: ...

    def settle(self, node_id: str, *, placed: bool) -> None:
        """`placed`: the node took a task and is ranked anew; otherwise it is left out from now on."""
        ...


class _Ranked:
    """Nodes by an explicit rank."""

    def __init__(self, node_ids: Iterable[str], rank: Callable[[str], Rank]) -> None:
        self._rank = rank
        self._heap = [(rank(node_id), node_id) for node_id in node_ids]
        heapq.heapify(self._heap)

    def pop(self) -> str | None:
        return heapq.heappop(self._heap)[1] if self._heap else None

    def settle(self, node_id: str, *, placed: bool) -> None:
        if placed:
            heapq.heappush(self._heap, (self._rank(node_id), node_id))


class _Lazy:
    """Spread over many nodes without ranking them all: those that have no task of the service and no
    failures come in the order of their totals, which is kept sorted; only the others are ranked."""

    def __init__(
        self,
        order: Sequence[tuple[int, str]],
        eligible: Mapping[str, None],
        special: Iterable[str],
        rank: Callable[[str], Rank],
    ) -> None:
        self._special = dict.fromkeys(special)
        self._ranked = _Ranked((id for id in self._special if id in eligible), rank)
        self._fresh = (id for _, id in order if id in eligible and id not in self._special)

    def pop(self) -> str | None:
        fresh = next(self._fresh, None)
        return fresh if fresh is not None else self._ranked.pop()

    def settle(self, node_id: str, *, placed: bool) -> None:
        self._ranked.settle(node_id, placed=placed)


class _Tree:
    """One level of the preference tree: takes from the branch with the fewest tasks of the service."""

    def __init__(self, branches: Mapping[str, tuple[int, _Pool]]) -> None:
        self._pools = {value: pool for value, (_, pool) in branches.items()}
        self._counts = {value: count for value, (count, _) in branches.items()}
        self._heap = [(count, value) for value, (count, _) in branches.items()]
        heapq.heapify(self._heap)
        self._current = ""

    def pop(self) -> str | None:
        while self._heap:
            _, self._current = heapq.heappop(self._heap)
            node_id = self._pools[self._current].pop()
            if node_id is not None:
                return node_id
        return None

    def settle(self, node_id: str, *, placed: bool) -> None:
        self._pools[self._current].settle(node_id, placed=placed)
        self._counts[self._current] += placed
        heapq.heappush(self._heap, (self._counts[self._current], self._current))


class Placer:
    """Gives the nodes for the tasks of one group, one after the other.

    `eligible` are the ids of the nodes that pass the static filters. Between two calls of `next` the caller
    tells `usage` of the task that was placed. `reasons` counts, over the nodes that were tried, why they
    could not take a task; once `next` gave None it is complete.
    """

    def __init__(
        self,
        view: View,
        usage: Usage,
        request: Request,
        eligible: Mapping[str, None],
        *,
        preferences: Sequence[str] = (),
        strategy: str = "",
        now: float,
    ) -> None:
        self.reasons: Counter[str] = Counter()
        self._view = view
        self._usage = usage
        self._request = request
        self._failures = usage.recent_failures(request.service_id, request.spec_version, now)
        self._rank = self._binpack_rank if strategy == "binpack" else self._spread_rank
        self._last: str | None = None
        if preferences:
            self._pool: _Pool = self._tree(eligible, preferences)
        elif strategy == "binpack":
            self._pool = _Ranked(eligible, self._rank)
        else:
            counts = usage.service_counts(request.service_id)
            special = [*counts, *(id for id in self._failures if self._failing(id))]
            self._pool = _Lazy(usage.order(), eligible, special, self._rank)

    def next(self) -> Node | None:
        """The best node that can take one more task now, or None."""
        if self._last is not None:
            self._pool.settle(self._last, placed=True)
            self._last = None
        counts = self._usage.service_counts(self._request.service_id)
        while (node_id := self._pool.pop()) is not None:
            node = self._view.get(Node, node_id)
            reason = (
                dynamic_reason(self._request, node, self._usage.load(node_id), counts.get(node_id, 0))
                if node is not None
                else "down"
            )
            if not reason and node is not None:
                self._last = node_id
                return node
            self.reasons[reason] += 1
            self._pool.settle(node_id, placed=False)
        return None

    def _failing(self, node_id: str) -> int:
        failures = self._failures.get(node_id, 0)
        return failures if failures >= MAX_FAILURES else 0

    def _spread_rank(self, node_id: str) -> Rank:
        own = self._usage.service_counts(self._request.service_id).get(node_id, 0)
        return (self._failing(node_id), own, self._usage.load(node_id).total)

    def _binpack_rank(self, node_id: str) -> Rank:
        load = self._usage.load(node_id)
        node = self._view.get(Node, node_id)
        total = node.description.resources if node is not None else None
        reserved = 0.0
        if total is not None:
            cpu = load.nano_cpus / total.nano_cpus if total.nano_cpus else 0.0
            memory = load.memory / total.memory if total.memory else 0.0
            reserved = max(cpu, memory)
        return (self._failing(node_id), -reserved, -load.total)

    def _tree(self, eligible: Mapping[str, None], preferences: Sequence[str]) -> _Pool:
        counts = self._usage.service_counts(self._request.service_id)
        members = [
            (branches_of(node, preferences), node.id, counts.get(node.id, 0)) for node in self._view.nodes()
        ]
        return self._level(members, eligible, 0)

    def _level(
        self, members: Sequence[tuple[tuple[str, ...], str, int]], eligible: Mapping[str, None], depth: int
    ) -> _Pool:
        if not members or depth == len(members[0][0]):
            return _Ranked((id for _, id, _ in members if id in eligible), self._rank)
        groups: dict[str, list[tuple[tuple[str, ...], str, int]]] = {}
        for member in members:
            groups.setdefault(member[0][depth], []).append(member)
        return _Tree(
            {
                value: (sum(count for _, _, count in group), self._level(group, eligible, depth + 1))
                for value, group in groups.items()
            }
        )


# ------------------------------------------------------------------------------------------------- removal


@dataclass(slots=True)
class _Leaf:
    """One node's candidates; the last goes first."""

    count: int
    """Wanted tasks of the service on the node, candidates or not."""
    total: int
    tasks: list[Task]

    @property
    def left(self) -> int:
        return len(self.tasks)

    def take(self) -> Task:
        self.count -= 1
        self.total -= 1
        return self.tasks.pop()


@dataclass(slots=True)
class _Branch:
    """A level of the preference tree, or the nodes below its last level."""

    children: Mapping[str, _Branch | _Leaf]
    count: int
    sign: int
    """1 takes from the fullest child, -1 from the emptiest."""
    total: int = 0
    left: int = 0
    heap: list[tuple[int, int, str]] = field(default_factory=list[tuple[int, int, str]])

    def start(self) -> None:
        """Rank the children that have candidates."""
        self.left = sum(child.left for child in self.children.values())
        self.heap = [self._entry(key, child) for key, child in self.children.items() if child.left]
        heapq.heapify(self.heap)

    def _entry(self, key: str, child: _Branch | _Leaf) -> tuple[int, int, str]:
        return (-self.sign * child.count, -self.sign * child.total, key)

    def take(self) -> Task:
        key = heapq.heappop(self.heap)[2]
        child = self.children[key]
        task = child.take()
        self.count -= 1
        self.left -= 1
        if child.left:
            heapq.heappush(self.heap, self._entry(key, child))
        return task


def removal_order(view: View, service: Service, tasks: Sequence[Task]) -> list[Task]:
    """`tasks` of the service in the order in which to remove them: the first goes first.

    Tasks that do not run, and those whose node is down or drained, before those that run; among equals from
    the fullest branch of the preference tree, then from the node with the most tasks of the service, then
    with the most tasks in total, then the highest slot. (Binpack empties the emptiest node first.)
    """
    running = {task.id: _runs(view, task) for task in tasks}
    counts = Counter(
        task.node_id
        for task in view.tasks_of_service(service.id)
        if task.desired_state <= TaskState.COMPLETE and alive(task.status.state)
    )
    ordered: list[Task] = []
    for wanted in (False, True):
        candidates = [task for task in tasks if running[task.id] == wanted]
        if candidates:
            tree = _removal_tree(view, service, candidates, counts)
            taken = [tree.take() for _ in candidates]
            counts.subtract(task.node_id for task in taken)
            ordered.extend(taken)
    return ordered


def _runs(view: View, task: Task) -> bool:
    node = view.get(Node, task.node_id) if task.node_id else None
    return (
        node is not None
        and task.status.state == TaskState.RUNNING
        and node.status.state == NodeState.READY
        and node.spec.availability != "drain"
    )


def _removal_tree(
    view: View, service: Service, candidates: Sequence[Task], counts: Mapping[str, int]
) -> _Branch:
    placement = service.spec.task.placement
    sign = -1 if placement.strategy == "binpack" else 1
    by_node: dict[str, list[Task]] = {}
    for task in sorted(candidates, key=lambda task: (task.slot, task.meta.created_at, task.id)):
        by_node.setdefault(task.node_id, []).append(task)
    descriptors = [preference.spread_descriptor for preference in placement.preferences]
    entries: list[tuple[tuple[str, ...], str, _Leaf]] = []
    for node_id in sorted({*by_node, *(id for id, count in counts.items() if count > 0)}):
        leaf = _Leaf(counts.get(node_id, 0), _wanted_on(view, node_id), by_node.get(node_id, []))
        node = view.get(Node, node_id)
        path = branches_of(node, descriptors) if node is not None else ()
        entries.append((path or ("",) * len(descriptors), node_id, leaf))
    return _removal_level(entries, sign, 0)


def _removal_level(entries: Sequence[tuple[tuple[str, ...], str, _Leaf]], sign: int, depth: int) -> _Branch:
    children: dict[str, _Branch | _Leaf] = {}
    if depth >= max(len(path) for path, _, _ in entries):
        children.update((node_id, leaf) for _, node_id, leaf in entries)
    else:
        groups: dict[str, list[tuple[tuple[str, ...], str, _Leaf]]] = {}
        for entry in entries:
            groups.setdefault(entry[0][depth] if depth < len(entry[0]) else "", []).append(entry)
        # Levels of the preference tree are kept even whatever the strategy below them is.
        children.update((value, _removal_level(group, sign, depth + 1)) for value, group in groups.items())
        sign = 1
    branch = _Branch(children, sum(child.count for child in children.values()), sign)
    branch.start()
    return branch


def _wanted_on(view: View, node_id: str) -> int:
    if not node_id:
        return 0
    return sum(
        1
        for task in view.tasks_of_node(node_id)
        if task.desired_state <= TaskState.COMPLETE and alive(task.status.state)
    )
