"""The tables that the managers tell this node: of its networks, and of the ports on the routing mesh.

Pure: a complete set replaces everything, a delta changes the members, services and ports that it names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from pyswarm.errors import Unavailable
from pyswarm.objects import (
    Assignments,
    IngressChange,
    IngressPort,
    NetworkChange,
    NetworkTable,
    ingress_order,
)

T = TypeVar("T")


class Tables:
    """What the node was told last, whole."""

    def __init__(self) -> None:
        self.networks: dict[str, NetworkTable] = {}
        self.ingress: tuple[IngressPort, ...] = ()

    def take(self, told: Assignments) -> None:
        """Agree with the managers. Unavailable when a change comes to a table that this node does not have:
        the stream is then to be opened again, which begins with the complete set."""
        if told.complete:
            self.networks.clear()
            self.ingress = ()
        self.networks.update({table.network.id: table for table in told.networks})
        for change in told.network_changes:
            table = self.networks.get(change.network_id)
            if table is None:
                raise Unavailable(
                    f"the managers changed network {change.network_id}, which this node was not told"
                )
            self.networks[change.network_id] = changed_table(table, change)
        for network_id in told.removed_networks:
            self.networks.pop(network_id, None)
        if told.ingress is not None:
            self.ingress = told.ingress
        if told.ingress_changes:
            self.ingress = changed_ingress(self.ingress, told.ingress_changes)


def changed_table(table: NetworkTable, change: NetworkChange) -> NetworkTable:
    """The table with the change: members by task id, services by name, as the managers sort them."""
    members = _changed(
        {member.task_id: member for member in table.members},
        {member.task_id: member for member in change.members},
        change.removed_members,
    )
    services = _changed(
        {entry.service_id: entry for entry in table.services},
        {entry.service_id: entry for entry in change.services},
        change.removed_services,
    )
    return replace(
        table,
        members=tuple(members[id] for id in sorted(members)),
        services=tuple(sorted(services.values(), key=lambda entry: (entry.name, entry.service_id))),
        node_addrs=table.node_addrs if change.node_addrs is None else change.node_addrs,
    )


def _changed(known: dict[str, T], news: Mapping[str, T], removed: Iterable[str]) -> dict[str, T]:
    known.update(news)
    for id in removed:
        known.pop(id, None)
    return known


def changed_ingress(
    ports: Iterable[IngressPort], changes: Iterable[IngressChange]
) -> tuple[IngressPort, ...]:
    """The table of ports with other ones for the services that the changes name."""
    news = {change.service_id: change.ports for change in changes}
    kept = [port for port in ports if port.service_id not in news]
    return tuple(sorted((*kept, *(port for own in news.values() for port in own)), key=ingress_order))
