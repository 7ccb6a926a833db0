"""Whatever happens: nothing is given twice, nothing fits where it does not, and planning again plans nothing."""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, given, settings

from manager.allocator import Allocator
from manager.allocator.ledger import Ledger, holds_addresses
from manager.scheduler.constraints import node_matches
from manager.scheduler.scheduler import Scheduler
from manager.scheduler.usage import Usage
from manager.state import View
from pyswarm.objects import Network, Node, TaskState, alive
from tests.property.histories import HISTORIES, History, Step

MODEST = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def only_once(what: list[object], name: str) -> None:
    twice = [key for key, count in Counter(what).items() if count > 1]
    assert not twice, f"{name} given twice: {twice}"


def nothing_is_given_twice(view: View) -> None:
    only_once([n.vni for n in view.networks() if n.vni], "VNI")
    only_once([pool.subnet for n in view.networks() for pool in n.pools], "subnet")
    addresses: list[object] = [
        (vip.network_id, vip.addr)
        for service in view.services()
        if service.endpoint is not None
        for vip in service.endpoint.virtual_ips
    ]
    addresses += [
        (a.network_id, address)
        for task in view.tasks()
        if holds_addresses(task)
        for a in task.networks
        for address in a.addresses
    ]
    addresses += [
        (n.id, f"{pool.gateway}/{pool.subnet.partition('/')[2]}") for n in view.networks() for pool in n.pools
    ]
    only_once(addresses, "address")
    only_once(
        [
            (port.protocol, port.published_port)
            for service in view.services()
            if service.endpoint is not None
            for port in service.endpoint.ports
            if port.publish_mode == "ingress"
        ],
        "published port",
    )


def nodes_hold_what_they_have(view: View) -> None:
    for node in view.nodes():
        held = [
            task
            for task in view.tasks_of_node(node.id)
            if alive(task.status.state) and task.status.state >= TaskState.ASSIGNED
        ]
        assert sum(t.spec.resources.reservations.memory for t in held) <= node.description.resources.memory
        only_once(
            [resource.string_value for task in held for resource in task.assigned_generic], "generic resource"
        )
        only_once(
            [
                (port.protocol, port.published_port)
                for task in held
                for port in task.endpoint.ports
                if port.publish_mode == "host"
            ],
            "host port",
        )


def placed_tasks_are_complete(view: View) -> None:
    for task in view.tasks():
        if task.status.state < TaskState.PENDING:
            continue
        expected = [wish.target for wish in task.spec.networks]
        if any(port.publish_mode == "ingress" for port in task.endpoint.ports):
            expected.append("ingress")
        assert [a.network_id for a in task.networks] == expected
        assert all(a.addresses and a.mac_address for a in task.networks)
        if task.status.state >= TaskState.ASSIGNED:
            assert task.node_id
            node = view.get(Node, task.node_id)
            assert node is None or node_matches(task.spec.placement.constraints, node)


def planning_again_plans_nothing(history: History) -> None:
    """For the reconcilers that went through it all as well as for those of a new leader."""
    view, now = history.rounds.view, history.rounds.now
    for reconciler in (*history.rounds.reconcilers, Allocator(), Scheduler()):
        plan = reconciler.plan(view, sorted(set(reconciler.everything(view))), now)
        assert (plan.puts, plan.deletes) == ([], [])


def networks_that_should_go_are_gone(view: View) -> None:
    for network in view.networks():
        if network.pending_delete:
            assert view.services_on_network(network.id) or any(
                holds_addresses(task) for task in view.tasks_of_network(network.id)
            )
        else:
            assert network.pools


def check(history: History) -> None:
    view = history.rounds.view
    nothing_is_given_twice(view)
    nodes_hold_what_they_have(view)
    placed_tasks_are_complete(view)
    networks_that_should_go_are_gone(view)


@MODEST
@given(HISTORIES)
def test_invariants(steps: list[Step]) -> None:
    history = History()
    for step in steps:
        history.run(step)
        check(history)
    planning_again_plans_nothing(history)


@MODEST
@given(HISTORIES)
def test_caches_equal_ones_made_anew(steps: list[Step]) -> None:
    """The caches inside the reconcilers, after all rounds and rollbacks."""
    history = History()
    for step in steps:
        history.run(step)
    view = history.rounds.view
    allocator, scheduler = history.rounds.reconcilers
    assert isinstance(allocator, Allocator)
    assert isinstance(scheduler, Scheduler)
    usage, ledger = Usage(), Ledger()
    for kept, made_anew in ((scheduler.usage, usage), (allocator.ledger, ledger)):
        kept.sync(view)
        made_anew.sync(view)
        assert kept.snapshot() == made_anew.snapshot()


@MODEST
@given(HISTORIES)
def test_a_task_waits_only_for_a_reason(steps: list[Step]) -> None:
    history = History()
    for step in steps:
        history.run(step)
    view = history.rounds.view
    for task in view.tasks():
        if task.desired_state > TaskState.COMPLETE or task.status.state > TaskState.PENDING:
            continue
        service = next((s for s in view.services() if s.id == task.service_id), None)
        if service is None or service.pending_delete:
            continue
        assert task.status.err, f"{task.name} is {task.status.state.name} and does not say why"
        assert view.get(Network, "ingress") is not None
