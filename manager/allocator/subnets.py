"""Which subnet and which network identifier a network gets, and whether those that people ask for can be."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from manager.allocator.addresses import IPNetwork
from manager.state import View
from pyswarm.errors import Conflict, Invalid
from pyswarm.objects import AllocatedPool, Network
from pyswarm.specs import ClusterSpec, IpamPool, NetworkSpec

FIRST_VNI = 4096
LAST_VNI = (1 << 24) - 1
IPV6_PREFIX = 64
"""Prefix length of IPv6 subnets that are chosen here."""
WIDE_PREFIX = 16
"""Prefix length of the subnets that tasks of all services share: a /24 would hold 250 tasks of a whole cluster."""
NODE_LOCAL_DRIVERS = frozenset({"host", "none", "null"})
"""Networks of these drivers have no addresses of ours."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A subnet that is in use, and by what, as people know it."""

    subnet: IPNetwork
    by: str


def has_addresses(spec: NetworkSpec) -> bool:
    """Whether networks of this driver get subnets and their tasks addresses."""
    return spec.driver.name not in NODE_LOCAL_DRIVERS


def given_subnets(network: Network) -> list[Taken]:
    """The subnets that the network has."""
    label = f"network {network.spec.name or network.id}"
    return [Taken(ipaddress.ip_network(pool.subnet), label) for pool in network.pools]


def _asked_subnets(network: Network) -> list[Taken]:
    """The subnets that a network without any asks for; those that are none are left out."""
    label = f"network {network.spec.name or network.id}"
    asked: list[Taken] = []
    for pool in network.spec.ipam if not network.pools else ():
        try:
            asked.append(Taken(ipaddress.ip_network(pool.subnet, strict=False), label))
        except ValueError:
            continue
    return asked


def _excluded(exclude: Sequence[str]) -> list[Taken]:
    return [Taken(ipaddress.ip_network(text, strict=False), "the machines' own network") for text in exclude]


def check_network(
    view: View, spec: NetworkSpec, *, exclude: Sequence[str] = (), network_id: str = ""
) -> None:
    """Whether a network of this spec can be made: raises Invalid when the spec is wrong in itself, Conflict
    when it clashes with what is there. `exclude` are subnets that the cluster must not use; `network_id` is
    the network's own id when it exists already."""
    if not has_addresses(spec):
        return
    if not spec.enable_ipv4 and not spec.enable_ipv6:
        raise Invalid(f"network {spec.name}: enable IPv4 or IPv6: without both it can have no addresses")
    others = [network for network in view.networks() if network.id != network_id]
    taken = [*_excluded(exclude), *(t for n in others for t in (*given_subnets(n), *_asked_subnets(n)))]
    for where, subnet in _checked_pools(spec):
        _check_overlap(subnet, taken, where)
    if spec.ingress:
        _check_ingress(view, spec, network_id)


def _checked_pools(spec: NetworkSpec) -> list[tuple[str, IPNetwork]]:
    """The subnets that a spec asks for, each with its place in error messages."""
    seen: list[tuple[str, IPNetwork]] = []
    for number, pool in enumerate(spec.ipam):
        where = f"network {spec.name}: ipam[{number}]"
        subnet = _check_pool(pool, spec, where)
        if subnet is None:
            continue
        if any(other.version == subnet.version for _, other in seen):
            raise Invalid(f"{where}: a second IPv{subnet.version} subnet: a network has one of each family")
        seen.append((f"{where}.subnet", subnet))
    return seen


def _check_pool(pool: IpamPool, spec: NetworkSpec, where: str) -> IPNetwork | None:
    if not pool.subnet:
        for name, text in (("ip_range", pool.ip_range), ("gateway", pool.gateway)):
            if text:
                raise Invalid(f"{where}: {name} {text} needs a subnet: say which one it lies in")
        if pool.aux_addresses:
            raise Invalid(f"{where}: aux_addresses need a subnet: say which one they lie in")
        return None
    subnet = _subnet(pool.subnet, f"{where}.subnet")
    if subnet.version == 4 and not spec.enable_ipv4:
        raise Invalid(f"{where}.subnet: {subnet} is IPv4, which enable_ipv4 turned off")
    if subnet.version == 6 and not spec.enable_ipv6:
        raise Invalid(f"{where}.subnet: {subnet} is IPv6: set enable_ipv6 to use it")
    if subnet.num_addresses < 8:
        raise Invalid(
            f"{where}.subnet: {subnet} has no room for tasks: use /{subnet.max_prefixlen - 3} or wider"
        )
    if subnet.is_multicast or subnet.is_loopback:
        raise Invalid(f"{where}.subnet: {subnet} is not for machines: use a private one, e.g. 10.10.0.0/24")
    if pool.ip_range:
        ip_range = _subnet(pool.ip_range, f"{where}.ip_range")
        if ip_range.version != subnet.version or not _within(ip_range, subnet):
            raise Invalid(f"{where}.ip_range: {ip_range} does not lie in the subnet {subnet}")
    if pool.gateway:
        _check_address(pool.gateway, subnet, f"{where}.gateway")
    for name, address in sorted(pool.aux_addresses.items()):
        _check_address(address, subnet, f"{where}.aux_addresses.{name}")
    return subnet


def _subnet(text: str, where: str) -> IPNetwork:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        loose = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise Invalid(f"{where}: {text!r} is not a subnet: write it as 10.10.0.0/24") from None
    raise Invalid(f"{where}: {text} has bits set behind the prefix: do you mean {loose}?")


def _within(inner: IPNetwork, outer: IPNetwork) -> bool:
    return (
        outer.network_address <= inner.network_address and inner.broadcast_address <= outer.broadcast_address  # type: ignore[operator]  # same version, checked by the caller
    )


def _check_address(text: str, subnet: IPNetwork, where: str) -> None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise Invalid(f"{where}: {text!r} is not an IP address") from None
    if address not in subnet:
        raise Invalid(f"{where}: {text} does not lie in the subnet {subnet}")
    if address == subnet.network_address or (subnet.version == 4 and address == subnet.broadcast_address):
        raise Invalid(f"{where}: {text} stands for the subnet {subnet} itself: choose one in between")


def _check_overlap(subnet: IPNetwork, taken: Iterable[Taken], where: str) -> None:
    for other in taken:
        if other.subnet.version == subnet.version and other.subnet.overlaps(subnet):
            raise Conflict(
                f"{where}: {subnet} overlaps {other.subnet} of {other.by}: "
                f"choose another, or none to have one chosen"
            )


def _check_ingress(view: View, spec: NetworkSpec, network_id: str) -> None:
    if spec.internal or spec.attachable:
        raise Invalid(f"network {spec.name}: the ingress network can be neither internal nor attachable")
    for network in view.networks():
        if network.spec.ingress and network.id != network_id and not network.pending_delete:
            raise Conflict(
                f"network {spec.name}: {network.spec.name} is the ingress network already: remove it first"
            )


class SubnetAllocator:
    """Chooses subnets and network identifiers, going round so that what was just freed comes last.

    Where it stands is a cache: after a restart it goes on behind the highest in use.
    """

    def __init__(self, exclude: Sequence[str] = ()) -> None:
        self._exclude = tuple(exclude)
        self._next: dict[str, int] = {}
        self._last_vni = 0

    def forget(self) -> None:
        """Go on behind the highest in use."""
        self._next.clear()
        self._last_vni = 0

    def vni(self, used: Iterable[int]) -> int:
        """An identifier that no network has. Raises Conflict when all are taken."""
        taken = set(used)
        behind = max(self._last_vni, max(taken, default=0), FIRST_VNI - 1) + 1
        for candidates in (range(behind, LAST_VNI + 1), range(FIRST_VNI, LAST_VNI + 1)):
            candidate = next((vni for vni in candidates if vni not in taken), None)
            if candidate is not None:
                self._last_vni = candidate
                return candidate
        raise Conflict("all VXLAN network identifiers are in use: remove a network")

    def pools(
        self, networks: Sequence[Network], network: Network, cluster_id: str, cluster: ClusterSpec
    ) -> tuple[AllocatedPool, ...]:
        """The pools of a network without any, beside all the others of `networks`. A subnet that was asked
        for must not overlap one that another network has; one that is chosen keeps clear of those that are
        only asked for, too. Raises Invalid or Conflict with the reason why there can be none now."""
        spec = network.spec
        others = [other for other in networks if other.id != network.id]
        taken = [*_excluded(self._exclude), *(t for other in others for t in given_subnets(other))]
        asked = {subnet.version: (where, subnet) for where, subnet in _checked_pools(spec)}
        pools: list[AllocatedPool] = []
        for version in (4, 6):
            if not (spec.enable_ipv4 if version == 4 else spec.enable_ipv6):
                continue
            gateway = ""
            if version in asked:
                where, subnet = asked[version]
                _check_overlap(subnet, taken, where)
                gateway = next(p.gateway for p in spec.ipam if p.subnet and _same(p.subnet, subnet))
            else:
                avoid = [*taken, *(t for other in others for t in _asked_subnets(other))]
                sources, prefix = tuple(cluster.default_address_pool), cluster.subnet_size
                wide = min(prefix, WIDE_PREFIX) if _for_everybody(spec) else 0
                if version == 6:
                    sources, prefix, wide = (*sources, _unique_local(cluster_id)), IPV6_PREFIX, 0
                subnet = self._choose(sources, version, prefix, avoid, others, wide)
            gateway = "" if spec.internal else gateway or str(subnet[1])
            pools.append(AllocatedPool(subnet=str(subnet), gateway=gateway))
        return tuple(pools)

    def _choose(
        self,
        sources: Sequence[str],
        version: int,
        prefix: int,
        taken: Sequence[Taken],
        others: Sequence[Network],
        wide: int = 0,
    ) -> IPNetwork:
        """With `wide`, a subnet of that prefix where the pool can spare it: no more than an eighth of it."""
        for text in sources:
            source = ipaddress.ip_network(text, strict=False)
            if source.version != version:
                continue
            wanted = max(prefix, source.prefixlen)
            if wide:
                wanted = min(wanted, max(wide, source.prefixlen + 3))
            blocked = sorted(_interval(t.subnet) for t in taken if t.subnet.version == version)
            start = self._next.get(text)
            if start is None:
                start = _behind_chosen(others, source)
            found = _first_gap(source, wanted, blocked, start)
            if found is None:
                found = _first_gap(source, wanted, blocked, int(source.network_address))
            if found is not None:
                size = 1 << (source.max_prefixlen - wanted)
                self._next[text] = found + size
                return ipaddress.ip_network((found, wanted))
        listed = ", ".join(
            text for text in sources if ipaddress.ip_network(text, strict=False).version == version
        )
        raise Conflict(
            f"no free IPv{version} subnet of /{prefix} in the address pools ({listed or 'none'}): "
            "remove a network, or give this one a subnet of its own"
        )


def _for_everybody(spec: NetworkSpec) -> bool:
    """Whether tasks of all services share the network: the routing mesh, and the network of services that name
    none."""
    return spec.ingress or spec.name == "bridge"


def _same(text: str, subnet: IPNetwork) -> bool:
    return ipaddress.ip_network(text, strict=False) == subnet


def _interval(subnet: IPNetwork) -> tuple[int, int]:
    return int(subnet.network_address), int(subnet.broadcast_address)


def _behind_chosen(networks: Iterable[Network], source: IPNetwork) -> int:
    """The address behind the highest subnet that was chosen from `source` so far."""
    low, high = _interval(source)
    behind = low
    for network in networks:
        if any(pool.subnet for pool in network.spec.ipam):
            continue
        for pool in network.pools:
            subnet = ipaddress.ip_network(pool.subnet)
            if subnet.version == source.version and low <= int(subnet.network_address) <= high:
                behind = max(behind, int(subnet.broadcast_address) + 1)
    return behind


def _first_gap(source: IPNetwork, prefix: int, blocked: Sequence[tuple[int, int]], start: int) -> int | None:
    """The first aligned subnet of that prefix length at or behind `start` that no interval touches."""
    size = 1 << (source.max_prefixlen - prefix)
    candidate = -(-start // size) * size
    for low, high in blocked:
        if low > candidate + size - 1:
            break
        if high >= candidate:
            candidate = -(-(high + 1) // size) * size
    return candidate if candidate + size - 1 <= int(source.broadcast_address) else None


def _unique_local(cluster_id: str) -> str:
    """The cluster's own /48 of fd00::/8 (RFC 4193), from its id so that every manager knows the same."""
    digest = hashlib.sha256(cluster_id.encode()).digest()[:5]
    return f"{ipaddress.IPv6Address(bytes([0xFD]) + digest + bytes(10))}/48"
