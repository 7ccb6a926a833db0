"""Published ports: which clash, which the spec still asks for, and the check of the control API."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from manager.state import View
from pyswarm.errors import Conflict
from pyswarm.objects import Endpoint, Service
from pyswarm.specs import EndpointSpec, PortConfig

FIRST_AUTOMATIC_PORT = 30000
LAST_AUTOMATIC_PORT = 32767


def publishes(ports: Iterable[PortConfig]) -> bool:
    """Whether one of the ports is for the routing mesh."""
    return any(port.publish_mode == "ingress" for port in ports)


def clash(one: PortConfig, other: PortConfig) -> bool:
    """Whether two services cannot both have these. Both may publish a port in host mode: the scheduler keeps
    their tasks on different nodes; an ingress port is its service's own on every node."""
    same = (one.published_port, one.protocol) == (other.published_port, other.protocol)
    ingress = "ingress" in (one.publish_mode, other.publish_mode)
    return same and bool(one.published_port) and ingress and not apart(one, other)


def apart(one: PortConfig, other: PortConfig) -> bool:
    """Whether they listen on different addresses of a node."""
    return bool(one.host_ip and other.host_ip) and one.host_ip != other.host_ip


def answers(port: PortConfig, wish: PortConfig) -> bool:
    """Whether `port` was chosen for a wish for any port."""
    return (
        not wish.published_port
        and wish.publish_mode == "ingress"
        and FIRST_AUTOMATIC_PORT <= port.published_port <= LAST_AUTOMATIC_PORT
        and replace(port, published_port=0) == wish
    )


def still_wanted(spec: EndpointSpec, endpoint: Endpoint) -> tuple[PortConfig, ...]:
    """The allocated ports that the spec still asks for."""
    wishes = Counter(spec.ports)
    kept: list[PortConfig] = []
    for port in endpoint.ports:
        wish = (
            port
            if wishes[port] > 0
            else next((w for w in wishes if answers(port, w) and wishes[w] > 0), None)
        )
        if wish is not None:
            wishes[wish] -= 1
            kept.append(port)
    return tuple(kept)


def check_ports(view: View, service: Service) -> None:
    """Whether the service can have the ports that its spec names: raises Conflict when another service of
    the view wants or has one of them. To be asked when the view shows all that a request changes, so that
    a port can move between services of one request."""
    for other in sorted(view.services(), key=lambda s: s.id):
        if other.id == service.id or other.pending_delete:
            continue
        chosen = still_wanted(other.spec.endpoint, other.endpoint) if other.endpoint is not None else ()
        for number, wanted in enumerate(service.spec.endpoint.ports):
            if any(clash(wanted, taken) for taken in (*other.spec.endpoint.ports, *chosen)):
                raise Conflict(
                    f"service {service.spec.name}: ports[{number}]: port {wanted.published_port}/"
                    f"{wanted.protocol} is already published by service {other.spec.name}: "
                    "publish another port, or remove it there first"
                )
