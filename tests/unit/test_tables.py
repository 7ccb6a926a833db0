"""Tables as a node keeps them: whole, changed, gone."""

from __future__ import annotations

import pytest

from node_agent.tables import Tables
from pyswarm.errors import Unavailable
from pyswarm.objects import (
    Assignments,
    IngressChange,
    IngressPort,
    IngressTarget,
    Member,
    Network,
    NetworkChange,
    NetworkTable,
    ServiceEntry,
)
from pyswarm.specs import PortConfig


def member(task_id: str, *, healthy: bool = False) -> Member:
    return Member(
        task_id=task_id,
        service_id="s",
        node_id="n",
        node_addr="",
        address="10.0.0.2",
        mac_address="",
        healthy=healthy,
    )


def entry(name: str) -> ServiceEntry:
    return ServiceEntry(service_id=f"id-{name}", name=name)


def port(service_id: str, published: int, targets: int = 1) -> IngressPort:
    return IngressPort(
        service_id=service_id,
        port=PortConfig(target_port=80, published_port=published),
        targets=tuple(IngressTarget(address=f"10.0.0.{n}", node_addr="") for n in range(targets)),
    )


def start() -> Tables:
    tables = Tables()
    table = NetworkTable(
        network=Network(id="net"),
        members=(member("b"), member("d")),
        services=(entry("web"),),
        node_addrs=("192.0.2.1",),
    )
    tables.take(Assignments(networks=(table,), ingress=(port("s", 80), port("t", 90))))
    return tables


def change(tables: Tables, **fields: object) -> NetworkTable:
    said = NetworkChange(network_id="net", **fields)  # type: ignore[arg-type]  # fields by name
    tables.take(Assignments(complete=False, network_changes=(said,)))
    return tables.networks["net"]


def test_members_come_change_and_go_in_the_order_of_their_ids() -> None:
    tables = start()
    table = change(tables, members=(member("a"), member("d", healthy=True)), removed_members=("b",))
    assert [(m.task_id, m.healthy) for m in table.members] == [("a", False), ("d", True)]
    assert table.services == (entry("web"),)
    assert table.node_addrs == ("192.0.2.1",)


def test_services_and_node_addresses_change() -> None:
    table = change(start(), services=(entry("api"),), removed_services=("id-none",), node_addrs=())
    assert [s.name for s in table.services] == ["api", "web"]
    assert table.node_addrs == ()


def test_a_change_to_an_unknown_table_asks_for_a_new_stream() -> None:
    with pytest.raises(Unavailable, match="gone"):
        start().take(Assignments(complete=False, network_changes=(NetworkChange(network_id="gone"),)))


def test_ports_of_the_services_that_are_named_are_replaced() -> None:
    tables = start()
    news = (
        IngressChange(service_id="s", ports=(port("s", 85, 3), port("s", 81))),
        IngressChange(service_id="t"),
    )
    tables.take(Assignments(complete=False, ingress_changes=news))
    assert tables.ingress == (port("s", 81), port("s", 85, 3))


def test_a_complete_set_forgets_what_was_before() -> None:
    tables = start()
    tables.take(Assignments(networks=(), ingress=None))
    assert (tables.networks, tables.ingress) == ({}, ())
