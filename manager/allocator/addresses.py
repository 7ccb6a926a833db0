"""IP addresses as integers, and what a network's pool offers."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache

from pyswarm.objects import AllocatedPool
from pyswarm.specs import IpamPool

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


@lru_cache(maxsize=65536)
def to_int(address: str) -> int:
    """The number of an address, with or without prefix length. Raises ValueError when it is none."""
    return int(ipaddress.ip_address(address.partition("/")[0]))


def to_text(number: int, version: int) -> str:
    """The address, as people write it."""
    if version == 4:
        return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return str(ipaddress.IPv6Address(number))


def mac_of(number: int) -> str:
    """The MAC address that belongs to an address: 02:42 and its last four bytes, as in Docker."""
    low = number & 0xFFFFFFFF
    return f"02:42:{low >> 24:02x}:{low >> 16 & 255:02x}:{low >> 8 & 255:02x}:{low & 255:02x}"


@dataclass(frozen=True, slots=True)
class Range:
    """One pool of a network, in numbers."""

    version: int
    prefix: int
    first: int
    """Lowest address that is ever given out."""
    last: int
    dynamic_first: int
    """Lowest address given to those who ask for none in particular (`ip_range`)."""
    dynamic_last: int
    reserved: frozenset[int]
    """The gateway and the auxiliary addresses."""
    subnet: str

    def holds(self, number: int) -> bool:
        return self.first <= number <= self.last

    def cidr(self, number: int) -> str:
        return f"{to_text(number, self.version)}/{self.prefix}"


@lru_cache(maxsize=4096)
def range_of(pool: AllocatedPool, ip_range: str, aux: tuple[str, ...]) -> Range:
    """The addresses of an allocated pool. In IPv4 the first and the last address of the subnet stand for
    the subnet itself and for everyone on it; the next one is the gateway's, even where there is none."""
    subnet = ipaddress.ip_network(pool.subnet)
    base, top = int(subnet.network_address), int(subnet.broadcast_address)
    first = base + 1
    last = top - 1 if subnet.version == 4 else top
    dynamic = ipaddress.ip_network(ip_range) if ip_range else subnet
    gateway = to_int(pool.gateway) if pool.gateway else first
    return Range(
        version=subnet.version,
        prefix=subnet.prefixlen,
        first=first,
        last=last,
        dynamic_first=max(first, int(dynamic.network_address)),
        dynamic_last=min(last, int(dynamic.broadcast_address)),
        reserved=frozenset({gateway, *(to_int(address) for address in aux)}),
        subnet=pool.subnet,
    )


def ipam_of(pool: AllocatedPool, ipam: tuple[IpamPool, ...]) -> IpamPool:
    """The entry of the network's spec that the pool was allocated for."""
    for entry in ipam:
        if entry.subnet and ipaddress.ip_network(entry.subnet, strict=False) == ipaddress.ip_network(
            pool.subnet
        ):
            return entry
    return IpamPool()
