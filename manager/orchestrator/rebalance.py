"""Gentle rebalancing: healthy tasks move, few at a time, to nodes that came up or joined.

Off unless the service or the cluster says `gentle`. A move is start-first: the slot gets a second task
(`rollout="moving"`), which the scheduler places as any other; when it runs, the first one is shut down (see
`slots.settle`). A service is moved only while all of it runs and no update goes on, from the node that would
lose a task first to one that has at least two fewer and can take it.

The one key is `("cluster", "rebalance")`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from manager.orchestrator.jobs_state import takes_new_tasks
from manager.orchestrator.services import same_for_placement
from manager.orchestrator.slots import Scene, Slot, create, group, release
from manager.orchestrator.tasks import live, running, updating
from manager.scheduler.filters import reason_against, request_of
from manager.scheduler.place import branches_of, removal_order
from manager.scheduler.usage import Usage
from manager.state import Changed, Key, Plan, View
from pyswarm.objects import Cluster, Node, Service, Task, TaskState

KEY: Key = ("cluster", "rebalance")
MOVES_PER_SERVICE = 1
MOVES_PER_CLUSTER = 2
QUIET = 10.0
"""Seconds that nodes must have been as they are before anything moves."""
PATIENCE = 300.0
"""Seconds that a move may take before it is called off."""


class Rebalancer:
    """Moves tasks where they would be placed today."""

    name = "rebalance"

    def keys(self, change: Changed, view: View) -> Iterable[Key]:
        before, after, obj = change.before, change.after, change.obj
        if isinstance(obj, Node):
            if isinstance(before, Node) and isinstance(after, Node) and same_for_placement(before, after):
                return ()
            return (KEY,) if _any_gentle(view) else ()
        if isinstance(obj, Service):
            changed = not (isinstance(before, Service) and isinstance(after, Service)) or (
                before.spec != after.spec or before.update_status != after.update_status
            )
            return (KEY,) if changed and after is not None and gentle(view, obj) else ()
        if isinstance(obj, Task) and obj.rollout == "moving":
            return (KEY,)
        if isinstance(before, Cluster) and isinstance(after, Cluster):
            return (KEY,) if before.spec.rebalance != after.spec.rebalance else ()
        return ()

    def everything(self, view: View) -> Iterable[Key]:
        return (KEY,)

    def plan(self, view: View, keys: Collection[Key], now: float) -> Plan:
        plan = Plan()
        services = sorted((s for s in view.services() if gentle(view, s)), key=lambda s: s.id)
        scenes = [_Balance(Scene(view, service, now)) for service in services]
        calm = max((n.status.since for n in view.nodes()), default=0.0) + QUIET
        for balance in scenes:
            balance.call_off_late_moves()
        room = MOVES_PER_CLUSTER - sum(len(balance.moves) for balance in scenes)
        if services and calm > now:
            plan.wake_at(KEY, calm)
            room = 0
        for balance in scenes:
            if room > 0 and len(balance.moves) < MOVES_PER_SERVICE and balance.move_one():
                room -= 1
        for balance in scenes:
            balance.scene.write_to(plan)
            if balance.unsettled:
                plan.wake_at(KEY, now + QUIET)
        return plan


def gentle(view: View, service: Service) -> bool:
    """Whether the service's healthy tasks may be moved."""
    default = view.cluster.spec.rebalance if view.cluster is not None else "off"
    return (
        (service.spec.rebalance or default) == "gentle"
        and service.spec.mode.kind == "replicated"
        and not service.pending_delete
        and not service.spec.volumes_per_slot
        and service.spec.task.placement.strategy in ("", "spread")
    )


def _any_gentle(view: View) -> bool:
    return any(gentle(view, service) for service in view.services())


@dataclass(slots=True)
class _Balance:
    """One service's spread over the nodes."""

    scene: Scene
    slots: Sequence[Slot]
    moves: list[tuple[Slot, Task]]
    unsettled: bool = False
    """Whether it is worth to look again soon."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        tasks = scene.view.tasks_of_service(scene.service.id)
        self.slots = [slot for slot in group(tasks).values() if slot.tasks]
        self.moves = [
            (slot, task)
            for slot in self.slots
            if len(slot.live) > 1
            for task in slot.live
            if task.rollout == "moving" and not running(task)
        ]
        self.unsettled = bool(self.moves)

    def call_off_late_moves(self) -> None:
        """A move that does not get there must not hold up the others for ever."""
        late = [(s, t) for s, t in self.moves if t.meta.created_at + PATIENCE <= self.scene.now]
        for slot, task in late:
            self.scene.say(slot, task, TaskState.SHUTDOWN)
        self.moves = [move for move in self.moves if move not in late]

    def move_one(self) -> bool:
        """Begin the move that helps most; False when none helps, or the service is not at rest."""
        if updating(self.scene.service):
            return False
        if any(len(slot.live) != 1 or not running(slot.live[0]) for slot in self.slots):
            self.unsettled = bool(self.slots)
            return False
        found = self._best_move()
        if found is None:
            return False
        slot, node = found
        task = create(self.scene, slot)
        self.scene.put(slot, replace(task, rollout="moving", node_id=node.id))
        release(self.scene, slot)
        self.unsettled = True
        return True

    def _best_move(self) -> tuple[Slot, Node] | None:
        """The slot to move and the node to move it to, which the scheduler has only to confirm."""
        view, service = self.scene.view, self.scene.service
        tasks = [slot.live[0] for slot in self.slots]
        by_task = {slot.live[0].id: slot for slot in self.slots}
        spread = _Spread(view, service, tasks)
        nodes = sorted(
            (node for node in view.nodes() if takes_new_tasks(node, service)),
            key=lambda node: (spread.loads(node), node.id),
        )
        for task in removal_order(view, service, tasks):
            source = view.get(Node, task.node_id)
            for node in nodes if source is not None else ():
                if spread.helps(source, node) and _fits(view, task, node, spread.on_node[node.id]):
                    return by_task[task.id], node
        return None


class _Spread:
    """How a service's tasks lie over the branches of its preferences and over the nodes."""

    def __init__(self, view: View, service: Service, tasks: Sequence[Task]) -> None:
        self._preferences = [p.spread_descriptor for p in service.spec.task.placement.preferences]
        self._in_branch: Counter[tuple[str, ...]] = Counter()
        self.on_node: Counter[str] = Counter()
        for task in tasks:
            node = view.get(Node, task.node_id)
            if node is not None:
                self.on_node[node.id] += 1
                for branch in self._branches(node):
                    self._in_branch[branch] += 1

    def _branches(self, node: Node) -> list[tuple[str, ...]]:
        """The node's place in the preference tree: each branch from the top, then the one below it."""
        values = branches_of(node, self._preferences)
        return [values[: depth + 1] for depth in range(len(values))]

    def loads(self, node: Node) -> tuple[int, ...]:
        return (*(self._in_branch[branch] for branch in self._branches(node)), self.on_node[node.id])

    def helps(self, source: Node | None, target: Node) -> bool:
        """Whether one task less on `source` and one more on `target` makes the spread more even, at the
        first level of the tree at which the two part."""
        if source is None or source.id == target.id:
            return False
        for mine, other in zip(self._branches(source), self._branches(target), strict=True):
            if mine != other:
                return self._in_branch[mine] - self._in_branch[other] >= 2
        return self.on_node[source.id] - self.on_node[target.id] >= 2


def _fits(view: View, task: Task, node: Node, own: int) -> bool:
    """Whether the scheduler could place a task like this on the node, now."""
    usage = Usage()
    for other in view.tasks_of_node(node.id):
        usage.replace(other.id, other)
    like = replace(task, node_id="")
    return live(task) and not reason_against(request_of(like, view), node, usage.load(node.id), own)
