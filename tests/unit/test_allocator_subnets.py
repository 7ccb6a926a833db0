"""Networks that people ask for: what is refused, with the way out."""

from __future__ import annotations

import pytest

from manager.allocator import Allocator, check_network
from pyswarm.errors import Conflict, Invalid, PyswarmError
from pyswarm.objects import Cluster
from pyswarm.specs import Driver, IpamPool, NetworkSpec
from tests.unit.rounds import Rounds, network


def spec(*pools: IpamPool, **fields: object) -> NetworkSpec:
    return NetworkSpec(name="mine", ipam=pools, **fields)  # type: ignore[arg-type]  # fields of NetworkSpec


def pool(subnet: str = "10.9.0.0/24", **fields: object) -> IpamPool:
    return IpamPool(subnet=subnet, **fields)  # type: ignore[arg-type]  # fields of IpamPool


GOOD = [
    spec(),
    spec(pool()),
    spec(pool(gateway="10.9.0.9", ip_range="10.9.0.128/25", aux_addresses={"a": "10.9.0.200"})),
    spec(pool(), pool("fd00:9::/64"), enable_ipv6=True),
    spec(pool("fd00:9::/64"), enable_ipv4=False, enable_ipv6=True),
    spec(pool("not a subnet"), driver=Driver(name="host")),
]

BAD: list[tuple[NetworkSpec, type[PyswarmError], str]] = [
    (spec(pool("10.9.0.0")), Invalid, "has no room for tasks"),
    (spec(pool("10.9.0.7/24")), Invalid, "do you mean 10.9.0.0/24?"),
    (spec(pool("ten")), Invalid, "is not a subnet: write it as 10.10.0.0/24"),
    (spec(pool("10.9.0.0/30")), Invalid, "use /29 or wider"),
    (spec(pool("224.1.0.0/24")), Invalid, "is not for machines"),
    (spec(pool(), pool("10.8.0.0/24")), Invalid, "ipam[1]: a second IPv4 subnet"),
    (spec(pool("fd00:9::/64")), Invalid, "set enable_ipv6"),
    (spec(pool(), enable_ipv4=False, enable_ipv6=True), Invalid, "which enable_ipv4 turned off"),
    (spec(enable_ipv4=False), Invalid, "enable IPv4 or IPv6"),
    (spec(pool("", gateway="10.9.0.1")), Invalid, "gateway 10.9.0.1 needs a subnet"),
    (spec(pool("", ip_range="10.9.0.0/25")), Invalid, "ip_range 10.9.0.0/25 needs a subnet"),
    (spec(pool("", aux_addresses={"a": "10.9.0.1"})), Invalid, "aux_addresses need a subnet"),
    (spec(pool(gateway="10.8.0.1")), Invalid, "gateway: 10.8.0.1 does not lie in the subnet 10.9.0.0/24"),
    (spec(pool(gateway="10.9.0.255")), Invalid, "stands for the subnet"),
    (spec(pool(gateway="gate")), Invalid, "'gate' is not an IP address"),
    (spec(pool(ip_range="10.8.0.0/25")), Invalid, "ip_range: 10.8.0.0/25 does not lie in"),
    (spec(pool(ip_range="10.9.0.0/16")), Invalid, "do you mean 10.9.0.0/16?|does not lie in"),
    (spec(pool(aux_addresses={"a": "10.8.0.1"})), Invalid, "aux_addresses.a: 10.8.0.1 does not lie"),
    (spec(pool("10.0.0.0/16")), Conflict, "overlaps 10.0.0.0/24 of network there"),
    (spec(pool("192.168.7.0/24")), Conflict, "overlaps 192.168.0.0/16 of the machines' own network"),
    (spec(pool("10.77.0.0/16")), Conflict, "overlaps 10.77.0.0/24 of network asking"),
    (spec(ingress=True), Conflict, "ingress is the ingress network already"),
    (spec(ingress=True, internal=True), Invalid, "neither internal nor attachable"),
]


def cluster() -> Rounds:
    rounds = Rounds(Allocator())
    rounds.put(Cluster(id="c"), network("there"), network("ingress", created=2, ingress=True))
    rounds.stage(network("asking", ipam=(IpamPool(subnet="10.77.0.0/24"),)))
    return rounds


@pytest.mark.parametrize("wanted", GOOD)
def test_accepts(wanted: NetworkSpec) -> None:
    check_network(cluster().view, wanted, exclude=("192.168.0.0/16",))


@pytest.mark.parametrize(("wanted", "error", "text"), BAD, ids=[text for _, _, text in BAD])
def test_refuses(wanted: NetworkSpec, error: type[PyswarmError], text: str) -> None:
    with pytest.raises(error) as caught:
        check_network(cluster().view, wanted, exclude=("192.168.0.0/16",))
    assert any(part in str(caught.value) for part in text.split("|"))
    assert str(caught.value).startswith("network mine")


def test_a_network_does_not_clash_with_itself() -> None:
    rounds = cluster()
    check_network(rounds.view, spec(pool("10.0.0.0/24")), network_id="there")
    check_network(rounds.view, spec(ingress=True), network_id="ingress")
