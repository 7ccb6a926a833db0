"""What exists only on the leading manager: the controller, the dispatcher, the control service, as one scope.

Winning the election makes it, losing the lead cancels it whole: nothing of it survives, since all that it
knows is in the store.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from manager import trust
from manager.allocator import Allocator, check_network
from manager.assignments import Tracker
from manager.ca import Authority, CAService
from manager.control import Control, Facts
from manager.controller import Controller, Transaction
from manager.desired import Builder
from manager.dispatcher import Dispatcher
from manager.garbage import Garbage
from manager.logbroker import LogBroker
from manager.membership import Membership
from manager.orchestrator import Meter, reconcilers
from manager.raft import Caretaker, Resign
from manager.scheduler.scheduler import Scheduler
from manager.sealer import Sealer
from manager.state import Changed, Reconciler, State, View
from manager.store import Change, Deposed, Fence, Leadership, Listing, Put, StaleWrite, Store
from manager.switch import Switch
from pyswarm.clock import Clock, IdSource
from pyswarm.objects import Kind, ManagerStatus, Node, Object, kind_of
from pyswarm.spans import timed

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """What the process lends to its times of leading."""

    store: Store
    sealer: Sealer
    authority: Authority
    clock: Clock
    ids: IdSource
    facts: Facts
    excluded_subnets: Sequence[str]
    """Subnets of the machine that networks must not take."""
    control: Switch
    dispatcher: Switch
    ca: Switch
    raft: Switch
    membership: Membership
    """The managers' Raft group."""
    may_resign: bool = True
    """Whether this manager leaves the lead to another one when it is to be taken out of the group itself."""


class ControllerStore:
    """The part of a store that the CA needs, through the leader's controller: the only writer stays one."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller

    async def list(self, kind: Kind | None = None) -> Listing:
        def read(view: View) -> Listing:
            assert kind == "cluster"
            found = (view.cluster,) if view.cluster is not None else ()
            return Listing(found, self._controller.state.revision)

        return await self._controller.read(read)

    async def get(self, kind: Kind, id: str) -> Object | None:
        return await self._controller.read(lambda view: view.get(kind, id))

    async def commit(self, changes: Sequence[Change], fence: Fence | None = None) -> int:
        def write(tx: Transaction) -> None:
            for change in changes:
                current = tx.view.get(kind_of(change.obj), change.obj.id)
                if (current.meta.version if current is not None else 0) != change.obj.meta.version:
                    raise StaleWrite(f"{kind_of(change.obj)} {change.obj.id} was changed meanwhile")
                if isinstance(change, Put):
                    tx.put(change.obj)
                else:
                    tx.delete(change.obj)

        await self._controller.submit(write)
        return self._controller.state.revision


async def lead(parts: Parts, leadership: Leadership) -> bool:
    """Lead until the lead is lost; or given up, so that another manager takes this one out of Raft: then True.
    Raises what made leading impossible."""
    resigned = False
    meter = Meter()
    rooms = (*reconcilers(meter), Allocator(parts.excluded_subnets), Scheduler())
    rooms = tuple(timed(room, {"plan": _span(room)}) for room in rooms)
    store = timed(parts.store, {"commit": "store"})
    controller = Controller(store, State(parts.ids), rooms, parts.clock, leadership.fence, leadership.confirm)
    broker = LogBroker(parts.ids)
    tracker = timed(Tracker(), {"collect": "assignments", "changed": "assignments"})
    facts = _facts_of_leader(parts.facts, controller)
    dispatcher = Dispatcher(
        controller, tracker, broker, parts.clock, parts.ids, facts.managers, parts.sealer.open
    )
    meter.stats = dispatcher.stats
    check = partial(check_network, exclude=parts.excluded_subnets)
    builder = Builder(check, parts.sealer.seal, parts.sealer.open)
    control = Control(controller, dispatcher, broker, builder, parts.clock, facts)
    ca = CAService(ControllerStore(controller), parts.authority, parts.clock, facts.managers)
    caretaker = _caretaker(parts, controller)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(controller.run())
            await controller.loaded.wait()
            garbage = Garbage()
            garbage.start()
            controller.observe(garbage.observe)
            await controller.submit(lambda tx: _announce(tx, parts.facts.node_id))
            group.create_task(dispatcher.watch_heartbeats())
            group.create_task(caretaker.run())
            controller.observe(lambda revision, changes: _roles_noticed(caretaker, changes))
            parts.dispatcher.leader_is_self(dispatcher)
            parts.control.leader_is_self(control)
            parts.ca.leader_is_self(ca)
            parts.raft.leader_is_self(caretaker)
            log.info("this manager leads")
            await leadership.lost()
            raise Deposed("the lease on the lead ran out")
    except* Deposed as group:
        log.warning("this manager leads no more: %s", group.exceptions[0])
    except* Resign:
        log.info("this manager gives up the lead: its node is not to be a manager any more")
        resigned = True
    finally:
        for switch in (parts.dispatcher, parts.control, parts.ca, parts.raft):
            switch.resigned()
    return resigned


def _span(room: Reconciler) -> str:
    return (
        "scheduling"
        if isinstance(room, Scheduler)
        else "allocation"
        if isinstance(room, Allocator)
        else "orchestration"
    )


def _facts_of_leader(facts: Facts, controller: Controller) -> Facts:
    """With the addresses of all managers, the leader's own before the others."""
    own = facts.managers()[0], facts.join_addresses()[0]

    def addresses(choose: Callable[[ManagerStatus], str], first: str) -> Sequence[str]:
        found = sorted(
            (status.reachability == "unreachable", node.id, choose(status))
            for node in controller.state.view.nodes()
            if (status := node.manager_status) is not None and node.spec.role == "manager"
        )
        return tuple(dict.fromkeys((first, *(address for _, _, address in found if address))))

    return replace(
        facts,
        managers=lambda: addresses(lambda status: status.api, own[0]),
        join_addresses=lambda: addresses(lambda status: status.addr, own[1]),
    )


def _caretaker(parts: Parts, controller: Controller) -> Caretaker:
    """Who keeps Raft's members those that the nodes' records ask for, and the records true."""

    async def nodes() -> Sequence[Node]:
        return await controller.read(lambda view: list(view.nodes()))

    async def write(changed: Sequence[Node]) -> None:
        await controller.submit(lambda tx: _note_members(tx, changed))

    own = parts.facts.node_id if parts.may_resign else ""
    return Caretaker(parts.membership, nodes, write, lambda: parts.sealer.keys, parts.clock, own=own)


def _roles_noticed(caretaker: Caretaker, changes: Sequence[Changed]) -> None:
    """Tell of nodes that came, went, or are to have another role."""

    def role(obj: Object | None) -> str:
        return obj.spec.role if isinstance(obj, Node) else ""

    if any(role(changed.before) != role(changed.after) for changed in changes):
        caretaker.noticed()


def _note_members(tx: Transaction, changed: Sequence[Node]) -> None:
    """Write what is known of the managers' health; who is a member no more loses the right to be one."""
    for seen in changed:
        node = tx.view.get(Node, seen.id)
        if node is None or node.spec.role != seen.spec.role:
            continue
        if node.manager_status is not None and seen.manager_status is None and tx.view.cluster is not None:
            tx.put(trust.revoked(tx.view.cluster, node, tx.now))
            node = replace(node, **trust.NO_CERTIFICATE)
        tx.put(
            replace(node, manager_status=_merged(node.manager_status, seen.manager_status), role=seen.role)
        )


def _merged(now: ManagerStatus | None, seen: ManagerStatus | None) -> ManagerStatus | None:
    """The health that was seen, with the rest as it is now."""
    if now is None or seen is None:
        return seen
    return replace(
        now,
        addr=seen.addr or now.addr,
        api=seen.api or now.api,
        raft_id=seen.raft_id,
        reachability=seen.reachability,
    )


def _announce(tx: Transaction, node_id: str) -> None:
    """Write down who leads, for `node ls`."""
    for node in list(tx.view.nodes()):
        status = node.manager_status
        if status is not None and status.leader != (node.id == node_id):
            tx.put(replace(node, manager_status=replace(status, leader=node.id == node_id)))
