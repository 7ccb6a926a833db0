"""The allocator: networks get subnets, services virtual IPs and ports, new tasks their addresses.

Keys: `("network", id)` allocates a network or deletes one that is to go, and looks again at what waited for
it; `("service", id)` allocates a service's endpoint and then its NEW tasks, which move to PENDING;
`("ports", "")` looks again at services that wait for a port. A task that cannot have what it needs stays NEW
and says why in `status.err`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from manager.allocator.addresses import Range, mac_of, to_int
from manager.allocator.ledger import (
    Ledger,
    Owner,
    claims_of,
    holds_addresses,
    is_new,
    ranges_of,
)
from manager.allocator.ports import (
    FIRST_AUTOMATIC_PORT,
    LAST_AUTOMATIC_PORT,
    answers,
    apart,
    publishes,
    still_wanted,
)
from manager.allocator.subnets import SubnetAllocator, has_addresses
from manager.state import Changed, Key, Plan, View
from pyswarm.errors import Conflict, Invalid
from pyswarm.objects import (
    Cluster,
    Endpoint,
    Network,
    NetworkAttachment,
    Service,
    Task,
    TaskState,
    VirtualIP,
)
from pyswarm.specs import ClusterSpec, EndpointSpec, NetworkAttachmentSpec, PortConfig, ServiceSpec

PENDING_MESSAGE = "pending task scheduling"
PORTS: Key = ("ports", "")


class _NotYet(Exception):
    """Why something cannot be allocated now; ends in a task's `status.err`."""


@dataclass(slots=True)
class _Round:
    """One call of `plan`: the view with what was decided so far on top."""

    view: View
    now: float
    plan: Plan = field(default_factory=Plan)
    networks: dict[str, Network] = field(default_factory=dict[str, Network])
    services: dict[str, Service] = field(default_factory=dict[str, Service])
    ranges: dict[str, list[Range]] = field(default_factory=dict[str, list[Range]])
    full: dict[str, str] = field(default_factory=dict[str, str])
    """Networks that had no address left for one task: the reason, for the next."""
    reasons: dict[str, str] = field(default_factory=dict[str, str])
    """Why networks have no subnet."""
    ingress_id: str | None = None

    def network(self, target: str) -> Network | None:
        """By id, or by name for specs that did not go through the control API."""
        found = self.networks.get(target) or self.view.get(Network, target)
        if found is None and (named := self.view.by_name(Network, target)) is not None:
            found = self.networks.get(named.id, named)
        return found

    def service(self, id: str) -> Service | None:
        return self.services.get(id) or self.view.get(Service, id)

    def ranges_of(self, network: Network) -> list[Range]:
        known = self.ranges.get(network.id)
        if known is None:
            known = self.ranges[network.id] = ranges_of(network)
        return known

    def ingress(self) -> Network | None:
        """The network that carries ingress ports, the oldest if a mistake made two."""
        if self.ingress_id is None:
            found = [n for n in self.view.networks() if n.spec.ingress and not n.pending_delete]
            oldest = min(found, key=lambda n: (n.meta.created_at, n.id), default=None)
            self.ingress_id = oldest.id if oldest is not None else ""
        return self.network(self.ingress_id) if self.ingress_id else None


class Allocator:
    """The allocator as a Reconciler. `exclude` are subnets never to choose: the machines' own networks."""

    name = "allocator"

    def __init__(self, exclude: Sequence[str] = ()) -> None:
        self._exclude = tuple(exclude)
        self.ledger = Ledger()
        self._subnets = SubnetAllocator(exclude)
        self._blocked: dict[str, None] = {}
        """Services whose endpoint could not be allocated; more than those does no harm."""

    # ------------------------------------------------------------------------------------------ what is stale

    def keys(self, change: Changed, view: View) -> Iterable[Key]:
        obj = change.obj
        if isinstance(obj, Task):
            self.ledger.note("task", obj.id)
            return self._keys_of_task(change, view)
        if isinstance(obj, Service):
            self.ledger.note("service", obj.id)
            return self._keys_of_service(change, view)
        if isinstance(obj, Network):
            self.ledger.note("network", obj.id)
            return self._keys_of_network(change, view)
        if isinstance(obj, Cluster):
            return [("network", n.id) for n in view.networks() if _unallocated(n)]
        return ()

    def _keys_of_task(self, change: Changed, view: View) -> list[Key]:
        before, after = change.before, change.after
        keys: list[Key] = []
        if isinstance(after, Task) and is_new(after) and not (isinstance(before, Task) and is_new(before)):
            keys.append(("service", after.service_id))
        if isinstance(before, Task) and before.networks and holds_addresses(before):
            gone = not (isinstance(after, Task) and holds_addresses(after))
            keys.extend(self._freed(view, (a.network_id for a in before.networks)) if gone else ())
        return keys

    def _freed(self, view: View, network_ids: Iterable[str]) -> list[Key]:
        """The networks among these for which an address or a user less makes a difference."""
        waited_for = bool(self.ledger.new_services() or self._blocked)
        keys: list[Key] = []
        for id in network_ids:
            network = view.get(Network, id)
            if network is not None and (waited_for or network.pending_delete):
                keys.append(("network", id))
        return keys

    def _keys_of_service(self, change: Changed, view: View) -> list[Key]:
        before, after = change.before, change.after
        keys: list[Key] = []
        if isinstance(after, Service) and not _same_wishes(before, after):
            keys.append(("service", after.id))
        if after is None:
            self._blocked.pop(change.obj.id, None)
        if isinstance(before, Service):
            kept = claims_of(after)
            had = claims_of(before)
            if any(port not in kept.ports for port in had.ports):
                keys.append(PORTS)
            networks = dict.fromkeys(id for id, _ in had.addresses if (id, _) not in kept.addresses)
            networks.update(dict.fromkeys(n.target for n in before.spec.task.networks))
            keys.extend(self._freed(view, networks))
        return keys

    def _keys_of_network(self, change: Changed, view: View) -> list[Key]:
        before, after = change.before, change.after
        if isinstance(after, Network):
            same = isinstance(before, Network) and (
                before.spec == after.spec
                and before.pools == after.pools
                and before.pending_delete == after.pending_delete
            )
            return [] if same else [("network", after.id)]
        keys: list[Key] = [("network", n.id) for n in view.networks() if _unallocated(n)]
        return keys

    def everything(self, view: View) -> Iterable[Key]:
        self.ledger.rebuild(view)
        self._subnets.forget()
        keys: list[Key] = [("network", network.id) for network in view.networks()]
        keys.extend(("service", service.id) for service in view.services())
        known = {id for kind, id in keys if kind == "service"}
        keys.extend(("service", id) for id in self.ledger.new_services() if id not in known)
        return keys

    # --------------------------------------------------------------------------------------------- deciding

    def plan(self, view: View, keys: Collection[Key], now: float) -> Plan:
        self.ledger.sync(view)
        work = _Round(view, now)
        services = {id: None for kind, id in keys if kind == "service"}
        if PORTS in keys:
            services.update(self._blocked)
        networks = [n for kind, id in keys if kind == "network" and (n := view.get(Network, id)) is not None]
        for network in _oldest_first(networks):
            self._plan_network(work, network)
        if networks:
            self._add_waiting(work, networks, services)
        self._plan_services(work, services)
        return work.plan

    def _plan_network(self, work: _Round, network: Network) -> None:
        if network.pending_delete:
            if not _in_use(work.view, network):
                work.plan.delete(network)
        elif _unallocated(network):
            try:
                self._allocate_network(work, network)
            except (Conflict, Invalid) as error:
                work.reasons[network.id] = str(error)

    def _allocate_network(self, work: _Round, network: Network) -> None:
        cluster = work.view.cluster
        pools = network.pools
        if not pools:
            pools = self._subnets.pools(
                [work.networks.get(other.id, other) for other in work.view.networks()],
                network,
                cluster.id if cluster is not None else "",
                cluster.spec if cluster is not None else ClusterSpec(),
            )
        vni = network.vni or self._subnets.vni(self.ledger.vnis)
        allocated = replace(network, pools=pools, vni=vni)
        work.networks[network.id] = allocated
        work.plan.put(allocated)
        self.ledger.assume("network", allocated)

    def _add_waiting(self, work: _Round, networks: Iterable[Network], services: dict[str, None]) -> None:
        """Add the services that waited for one of the networks, or whose virtual IP on it is missing."""
        for id in dict.fromkeys((*self._blocked, *self.ledger.new_services())):
            services[id] = None
        allocated = [network for network in networks if network.id in work.networks]
        for network in allocated:
            services.update((service.id, None) for service in work.view.services_on_network(network.id))
        if any(network.spec.ingress for network in allocated):
            services.update((s.id, None) for s in work.view.services() if publishes(s.spec.endpoint.ports))

    def _plan_services(self, work: _Round, service_ids: Iterable[str]) -> None:
        services = _oldest_first([s for id in service_ids if (s := work.service(id)) is not None])
        for service in services:
            self._release(work, service)
        reasons = {service.id: self._plan_service(work, service) for service in services}
        for service_id in service_ids:
            self._plan_tasks(work, service_id, reasons.get(service_id, ""))

    # --------------------------------------------------------------------------------------------- services

    def _release(self, work: _Round, service: Service) -> None:
        """Let go of the ports and virtual IPs that the spec does not ask for any more, before anybody asks
        for new ones: so a port can move from one service to another in one round."""
        endpoint = service.endpoint
        if endpoint is None:
            self._blocked.pop(service.id, None)
            return
        wanted = {network.id for network in self._vip_networks(work, service)}
        pools = {network_id: work.network(network_id) for network_id in wanted}
        kept = replace(
            endpoint,
            ports=() if service.pending_delete else still_wanted(service.spec.endpoint, endpoint),
            virtual_ips=tuple(
                vip
                for vip in endpoint.virtual_ips
                if service.pending_delete or _still_good(work, vip, pools.get(vip.network_id))
            ),
        )
        if kept != endpoint:
            work.services[service.id] = replace(service, endpoint=kept)
            self.ledger.assume("service", work.services[service.id])

    def _plan_service(self, work: _Round, stored: Service) -> str:
        """Allocate the endpoint; returns why it cannot be, or ""."""
        service = work.services.get(stored.id, stored)
        reason = ""
        if not service.pending_delete:
            try:
                endpoint = self._allocate_endpoint(work, service)
            except _NotYet as error:
                reason = str(error)
                self.ledger.let_go(("service", service.id))
            else:
                service = replace(service, endpoint=endpoint)
                work.services[service.id] = service
                self.ledger.assume("service", service)
        if reason:
            self._blocked[service.id] = None
        else:
            self._blocked.pop(service.id, None)
        if service.endpoint != stored.endpoint:
            work.plan.put(service)
        else:
            work.services.pop(service.id, None)
        return reason

    def _vip_networks(self, work: _Round, service: Service) -> list[Network]:
        """The networks on which the service is to have a virtual IP."""
        spec = service.spec
        if spec.endpoint.mode != "vip" or _no_networks(spec):
            return []
        networks = [work.network(wish.target) for wish in spec.task.networks]
        if publishes(spec.endpoint.ports):
            networks.append(work.ingress())
        found = {n.id: n for n in networks if n is not None and has_addresses(n.spec)}
        return list(found.values())

    def _allocate_endpoint(self, work: _Round, service: Service) -> Endpoint:
        spec = service.spec
        if publishes(spec.endpoint.ports) and work.ingress() is None:
            raise _NotYet(
                "there is no ingress network for the published ports: "
                "create one with `pyswarm network create --ingress ingress`"
            )
        endpoint = service.endpoint if service.endpoint is not None else Endpoint()
        ports = self._allocate_ports(work, service, endpoint)
        have = {vip.network_id: vip for vip in endpoint.virtual_ips}
        vips: list[VirtualIP] = []
        for network in self._vip_networks(work, service):
            vips.append(have.get(network.id) or self._allocate_vip(work, service, network))
        return Endpoint(spec=spec.endpoint, ports=ports, virtual_ips=tuple(vips))

    def _allocate_vip(self, work: _Round, service: Service, network: Network) -> VirtualIP:
        """One virtual IP a network: of its first family, as in the Engine API."""
        addresses, _ = self._take(work, network, (), ("service", service.id), families=1)
        return VirtualIP(network_id=network.id, addr=addresses[0])

    def _allocate_ports(self, work: _Round, service: Service, endpoint: Endpoint) -> tuple[PortConfig, ...]:
        ports: list[PortConfig] = []
        kept = list(endpoint.ports)
        for wanted in service.spec.endpoint.ports:
            port = _pop_kept(kept, wanted) if not wanted.published_port else None
            if port is None:
                port = self._allocate_port(wanted, ports, kept)
            self._check_port(work, service, port, ports)
            ports.append(port)
        return tuple(ports)

    def _allocate_port(
        self, wanted: PortConfig, given: Sequence[PortConfig], kept: Sequence[PortConfig]
    ) -> PortConfig:
        if wanted.published_port or wanted.publish_mode == "host":
            return wanted
        besides = [p.published_port for p in (*given, *kept) if p.protocol == wanted.protocol]
        number = self.ledger.free_port(wanted.protocol, besides)
        if number is None:
            raise _NotYet(
                f"every {wanted.protocol} port from {FIRST_AUTOMATIC_PORT} to {LAST_AUTOMATIC_PORT} is "
                f"published: name a port for target {wanted.target_port}"
            )
        return replace(wanted, published_port=number)

    def _check_port(
        self, work: _Round, service: Service, port: PortConfig, given: Sequence[PortConfig]
    ) -> None:
        if not port.published_port:
            return
        holder = self.ledger.port_holder(port, besides=service.id)
        what = f"port {port.published_port}/{port.protocol}"
        if holder is not None:
            other = work.service(holder)
            raise _NotYet(
                f"{what} is already published by service {other.spec.name if other is not None else holder}"
            )
        for earlier in given:
            same = (earlier.published_port, earlier.protocol) == (port.published_port, port.protocol)
            if same and not apart(earlier, port):
                raise _NotYet(f"{what} is published twice by service {service.spec.name} itself")

    # ------------------------------------------------------------------------------------------------ tasks

    def _plan_tasks(self, work: _Round, service_id: str, reason: str) -> None:
        service = work.service(service_id) if service_id else None
        if service_id and (service is None or service.pending_delete):
            return
        tasks = [work.view.get(Task, id) for id in self.ledger.new_tasks(service_id)]
        for task in sorted((t for t in tasks if t is not None), key=lambda t: (t.slot, t.id)):
            try:
                if reason:
                    raise _NotYet(reason)
                allocated = self._allocate_task(work, task, service)
            except _NotYet as error:
                self.ledger.let_go(("task", task.id))
                if task.status.err != str(error):
                    status = replace(task.status, timestamp=work.now, err=str(error))
                    work.plan.put(replace(task, status=status))
            else:
                work.plan.put(allocated)
                self.ledger.assume("task", allocated)

    def _allocate_task(self, work: _Round, task: Task, service: Service | None) -> Task:
        endpoint = task.endpoint
        if service is not None and service.endpoint is not None:
            endpoint = EndpointSpec(mode=service.endpoint.spec.mode, ports=service.endpoint.ports)
        wishes = [] if task.spec.container.network_mode in ("host", "none") else list(task.spec.networks)
        ingress = work.ingress() if publishes(endpoint.ports) else None
        if ingress is not None and task.spec.container.network_mode not in ("host", "none"):
            wishes.append(NetworkAttachmentSpec(target=ingress.id))
        status = replace(
            task.status, state=TaskState.PENDING, timestamp=work.now, message=PENDING_MESSAGE, err=""
        )
        return replace(task, networks=self._attach_all(work, task, wishes), endpoint=endpoint, status=status)

    def _attach_all(
        self, work: _Round, task: Task, wishes: Iterable[NetworkAttachmentSpec]
    ) -> tuple[NetworkAttachment, ...]:
        attachments: dict[str, NetworkAttachment] = {}
        for wish in wishes:
            network = work.network(wish.target)
            if network is None:
                raise _NotYet(f"network {wish.target} does not exist")
            if not has_addresses(network.spec) or network.id in attachments:
                continue
            addresses, first = self._take(work, network, wish.addresses, ("task", task.id))
            attachments[network.id] = NetworkAttachment(
                network_id=network.id,
                addresses=tuple(addresses),
                aliases=wish.aliases,
                mac_address=wish.mac_address or mac_of(first),
            )
        return tuple(attachments.values())

    def _take(
        self, work: _Round, network: Network, fixed: Sequence[str], owner: Owner, families: int = 2
    ) -> tuple[list[str], int]:
        """Hold an address of each pool of the network (of the first `families`) for the owner; returns them
        as CIDRs, and the first as a number."""
        name = network.spec.name or network.id
        if _unallocated(network) and network.id not in work.reasons:
            self._plan_network(work, network)
            network = work.networks.get(network.id, network)
        if not network.pools:
            reason = work.reasons.get(network.id) or "it is being removed"
            raise _NotYet(f"network {name} has no subnet: {reason}")
        if network.id in work.full and not fixed:
            raise _NotYet(work.full[network.id])
        ranges = work.ranges_of(network)[:families]
        asked = _fixed_addresses(ranges, fixed, name)
        taken: list[int] = []
        for position, pool in enumerate(ranges):
            address = asked.get(position)
            if address is not None:
                self._check_free(work, network, pool, address)
            else:
                address = self._choose(work, network, pool)
            self.ledger.hold(network.id, address, owner)
            taken.append(address)
        return [pool.cidr(address) for pool, address in zip(ranges, taken, strict=True)], taken[0]

    def _choose(self, work: _Round, network: Network, pool: Range) -> int:
        address = self.ledger.free_address(network.id, pool)
        if address is None:
            work.full[network.id] = (
                f"network {network.spec.name or network.id} is full: no free address in {pool.subnet}; "
                "remove tasks from it or use a network with a wider subnet"
            )
            raise _NotYet(work.full[network.id])
        return address

    def _check_free(self, work: _Round, network: Network, pool: Range, number: int) -> None:
        name = network.spec.name or network.id
        text = pool.cidr(number).partition("/")[0]
        if number in pool.reserved:
            raise _NotYet(f"address {text} of network {name} is reserved: choose another")
        owner = self.ledger.owner(network.id, number)
        if owner is None:
            return
        kind, id = owner
        obj = work.view.get(kind, id)
        label = obj.name if isinstance(obj, Task) else obj.spec.name if isinstance(obj, Service) else id
        raise _NotYet(f"address {text} of network {name} is in use by {kind} {label}")


_Aged = TypeVar("_Aged", Network, Service)


def _oldest_first(objects: Sequence[_Aged]) -> list[_Aged]:
    return sorted(objects, key=lambda obj: (obj.meta.created_at, obj.id))


def _unallocated(network: Network) -> bool:
    return not network.pending_delete and has_addresses(network.spec) and not (network.pools and network.vni)


def _no_networks(spec: ServiceSpec) -> bool:
    return spec.task.container.network_mode in ("host", "none")


def _same_wishes(before: object, after: Service) -> bool:
    """Whether nothing that the allocator reads of a service changed."""
    return (
        isinstance(before, Service)
        and before.spec.endpoint == after.spec.endpoint
        and before.spec.task.networks == after.spec.task.networks
        and before.spec.task.container.network_mode == after.spec.task.container.network_mode
        and before.endpoint == after.endpoint
        and before.pending_delete == after.pending_delete
    )


def _pop_kept(kept: list[PortConfig], wish: PortConfig) -> PortConfig | None:
    for port in kept:
        if answers(port, wish):
            kept.remove(port)
            return port
    return None


def _still_good(work: _Round, vip: VirtualIP, network: Network | None) -> bool:
    if network is None:
        return False
    number = to_int(vip.addr)
    return any(pool.holds(number) and number not in pool.reserved for pool in work.ranges_of(network))


def _in_use(view: View, network: Network) -> bool:
    """Whether a service asks for the network, or a task that may have a container is on it."""
    if view.services_on_network(network.id):
        return True
    return any(holds_addresses(task) for task in view.tasks_of_network(network.id))


def _fixed_addresses(ranges: Sequence[Range], fixed: Sequence[str], name: str) -> dict[int, int]:
    """Which pool (by position) each address that was asked for belongs to."""
    asked: dict[int, int] = {}
    for text in fixed:
        try:
            number = to_int(text)
        except ValueError:
            raise _NotYet(f"{text!r} is not an address on network {name}") from None
        position = next((i for i, pool in enumerate(ranges) if pool.holds(number)), None)
        if position is None:
            subnets = ", ".join(pool.subnet for pool in ranges)
            raise _NotYet(f"address {text} does not lie in network {name} ({subnets})")
        asked[position] = number
    return asked
