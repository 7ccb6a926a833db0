"""The plan of a node's networks, as a function of the managers' tables."""

from __future__ import annotations

from dataclasses import replace

import pytest

from node_agent.network import plan
from pyswarm.errors import Invalid, Unavailable
from pyswarm.objects import (
    AllocatedPool,
    IngressPort,
    IngressTarget,
    Member,
    Network,
    NetworkAttachment,
    NetworkTable,
    ServiceEntry,
    Task,
)
from pyswarm.specs import (
    ContainerSpec,
    Driver,
    NetworkAttachmentSpec,
    NetworkSpec,
    PortConfig,
    TaskSpec,
)

HERE, THERE = "192.0.2.1", "192.0.2.2"
NODE = plan.Node(
    id="here", addr=HERE, underlay_mtu=1500, host_address="169.254.9.1", fabric_address="169.254.9.2"
)


def member(
    task_id: str, address: str, *, service: str = "web", addr: str = HERE, healthy: bool = True
) -> Member:
    return Member(
        task_id=task_id,
        service_id=service,
        node_id="here" if addr == HERE else "there",
        node_addr=addr,
        address=address,
        mac_address="",
        healthy=healthy,
        names=(f"{service}.{task_id}",),
    )


def table(*members: Member, services: tuple[ServiceEntry, ...] = (), **spec: object) -> NetworkTable:
    internal = bool(spec.get("internal"))
    network = Network(
        id="n1",
        vni=4097,
        spec=NetworkSpec(name="front", **spec),  # type: ignore[arg-type]  # keywords of the test
        pools=(AllocatedPool(subnet="10.0.1.0/24", gateway="" if internal else "10.0.1.1"),),
    )
    return NetworkTable(network=network, members=members, services=services)


WEB = ServiceEntry(service_id="web", name="web", vip="10.0.1.2", names=("web", "www"))
LOCAL, REMOTE = member("t1", "10.0.1.10"), member("t2", "10.0.1.11", addr=THERE)


def test_macs_are_dockers_and_tell_nodes_apart() -> None:
    assert plan.task_mac("10.0.1.10/24") == "02:42:0a:00:01:0a"
    assert plan.node_mac(HERE) == "02:43:c0:00:02:01"
    assert plan.node_mac("2001:db8::1") != plan.node_mac("2001:db8::2")
    assert plan.node_mac("2001:db8::1").startswith("02:43:0a:")
    assert plan.task_mac("2001:db8::1").startswith("02:42:")


def test_network_with_a_member_here_and_one_there() -> None:
    found = plan.plan_network(table(LOCAL, REMOTE, services=(WEB,)), NODE)
    assert (found.bridge, found.vxlan, found.mtu) == ("br4097", "vx4097", 1450)
    assert found.addresses == {"10.0.1.1/24", "10.0.1.2/32"}
    assert found.forwards == {("02:42:0a:00:01:0b", THERE)}
    assert found.neighbours == {("10.0.1.10", "02:42:0a:00:01:0a"), ("10.0.1.11", "02:42:0a:00:01:0b")}
    assert found.rules.chains == {
        "v_br4097_10.0.1.2": ("dnat to numgen random mod 2 map { 0 : 10.0.1.10, 1 : 10.0.1.11 }",)
    }
    assert found.rules.elements["vips"] == {'"br4097" . 10.0.1.2': "goto v_br4097_10.0.1.2"}
    assert found.rules.elements["own"] == {'"br4097" . 10.0.1.10 . 10.0.1.10': ""}
    assert found.rules.elements["egress"] == {'"br4097"': ""}
    assert found.targets == {"10.0.1.2": ("10.0.1.10", "10.0.1.11")}
    assert not found.peers


def test_only_healthy_members_get_connections_and_without_one_there_is_no_rule() -> None:
    sick = replace(LOCAL, healthy=False)
    found = plan.plan_network(table(sick, REMOTE, services=(WEB,)), NODE)
    assert found.rules.chains == {"v_br4097_10.0.1.2": ("dnat to 10.0.1.11",)}
    found = plan.plan_network(table(sick, services=(WEB,)), NODE)
    assert not found.rules.chains and not found.rules.elements["vips"]
    assert "10.0.1.2/32" in found.addresses, "the fabric still owns the VIP, and refuses"


def test_internal_network_has_a_route_instead_of_a_gateway_and_no_way_out() -> None:
    found = plan.plan_network(table(LOCAL, internal=True), NODE)
    assert found.addresses == frozenset() and found.routes == {"10.0.1.0/24"}
    assert found.rules.elements["egress"] == {} and found.rules.elements["subnets"] == {}


def test_ingress_goes_through_the_other_nodes_bridge() -> None:
    ports = [
        IngressPort(
            service_id="web",
            port=PortConfig(target_port=80, published_port=8080),
            targets=(IngressTarget(address="10.0.1.12", node_addr="192.0.2.3"),),
        )
    ]
    wide = replace(table(LOCAL, REMOTE, ingress=True), node_addrs=(HERE, THERE, "192.0.2.3", "192.0.2.4"))
    found = plan.plan_network(wide, NODE, ports)
    macs = {addr: plan.node_mac(addr) for addr in (THERE, "192.0.2.3", "192.0.2.4")}
    assert found.forwards == {(mac, addr) for addr, mac in macs.items()}
    assert dict(found.neighbours) == {
        "10.0.1.10": "02:42:0a:00:01:0a",
        "10.0.1.11": macs[THERE],
        "10.0.1.12": macs["192.0.2.3"],
    }
    assert {peer.gateway for peer in found.peers} == set(macs)
    assert found.rules.elements["peers"][f'"br4097" . {macs[THERE]}'] == "0xc0000202"
    assert found.rules.elements["ingress"] == {'"br4097"': ""} and found.rules.elements["subnets"] == {}


def test_mtu_option_and_underlay() -> None:
    def mtu(value: str, node: plan.Node = NODE) -> int:
        options = {plan.MTU_OPTION: value} if value else {}
        return plan.overlay_mtu(table(driver=Driver(name="overlay", options=options)).network, node)

    assert mtu("") == 1450 and mtu("9000") == 9000
    assert mtu("", replace(NODE, underlay_mtu=9001)) == 8951
    assert mtu("", replace(NODE, addr="2001:db8::1")) == 1430
    for wrong in ("big", "-5", "10", "70000"):
        with pytest.raises(Invalid, match="68 to 65535"):
            mtu(wrong)


def test_network_without_a_vni_stays_on_the_node() -> None:
    bare = table(LOCAL, REMOTE)
    found = plan.plan_network(replace(bare, network=replace(bare.network, vni=0)), NODE)
    assert found.vxlan == "" and not found.forwards and found.bridge.startswith("br-")
    assert len(found.bridge) <= 15


def ports(**targets: object) -> plan.PortPlan:
    entries = [
        IngressPort(
            service_id=f"s{number}",
            port=port,  # type: ignore[arg-type]
            targets=tuple(IngressTarget(address=a, node_addr=HERE) for a in ("10.0.0.5", "10.0.0.6")),
        )
        for number, port in enumerate(targets.values())
    ]
    return plan.plan_ports(entries, (), NODE)


def test_published_ports_lead_through_the_transit() -> None:
    found = ports(a=PortConfig(target_port=80, published_port=8080, protocol="udp"))
    assert found.host.elements["ports"] == {"udp . 8080": "169.254.9.2 . 8080"}
    assert found.fabric.elements["doors"] == {"169.254.9.2 . udp . 8080": "goto p_169.254.9.2_udp_8080"}
    assert found.fabric.chains["p_169.254.9.2_udp_8080"] == (
        "meta l4proto udp dnat to numgen random mod 2 map { 0 : 10.0.0.5, 1 : 10.0.0.6 }:80",
    )
    assert found.targets["169.254.9.2", "udp", 8080] == ("10.0.0.5", "10.0.0.6")
    assert not found.aliases


def test_ports_of_one_address_of_the_host_get_a_transit_address_of_their_own() -> None:
    found = ports(
        a=PortConfig(target_port=80, published_port=80, host_ip="127.0.0.1"),
        b=PortConfig(target_port=80, published_port=80, host_ip="192.0.2.1"),
        c=PortConfig(target_port=80, published_port=80, host_ip="0.0.0.0"),
        d=PortConfig(target_port=80, published_port=81, host_ip="2001:db8::1"),
    )
    assert found.aliases == {"169.254.9.3/32", "169.254.9.4/32"}
    assert found.host.elements["bound"] == {
        "127.0.0.1 . tcp . 80": "169.254.9.3 . 80",
        "192.0.2.1 . tcp . 80": "169.254.9.4 . 80",
    }
    assert found.host.elements["ports"] == {"tcp . 80": "169.254.9.2 . 80"}


def test_host_mode_ports_and_who_comes_first() -> None:
    port = PortConfig(target_port=80, published_port=8080, publish_mode="host")
    own = plan.Published(task_id="t1", port=port, address="10.0.1.10")
    ingress = IngressPort(service_id="s", port=replace(port, publish_mode="ingress"))
    assert plan.plan_ports((), (own,), NODE).targets["169.254.9.2", "tcp", 8080] == ("10.0.1.10",)
    assert plan.plan_ports((ingress,), (own,), NODE).targets["169.254.9.2", "tcp", 8080] == ()
    assert not plan.plan_ports((ingress,), (), NODE).fabric.elements["doors"], "no target: refused"


def task(
    *attachments: NetworkAttachment, specs: tuple[NetworkAttachmentSpec, ...] = (), **container: object
) -> Task:
    return Task(
        id="abcdefghijklmnopqrstuvwxy",
        networks=attachments,
        spec=TaskSpec(container=ContainerSpec(**container), networks=specs),  # type: ignore[arg-type]
    )


def attachment(network_id: str, address: str) -> NetworkAttachment:
    return NetworkAttachment(network_id=network_id, addresses=(address,))


def named(network_id: str, number: int, **spec: object) -> NetworkTable:
    made = table(**spec)  # type: ignore[arg-type]
    gateway = "" if spec.get("internal") else f"10.0.{number}.1"
    pools = (AllocatedPool(subnet=f"10.0.{number}.0/24", gateway=gateway),)
    return replace(made, network=replace(made.network, id=network_id, vni=4096 + number, pools=pools))


TABLES = {
    "ingress": named("ingress", 0, ingress=True),
    "a": named("a", 1),
    "b": named("b", 2),
    "hidden": named("hidden", 3, internal=True),
}
PLANS = {key: plan.plan_network(value, NODE) for key, value in TABLES.items()} | {"": plan.local_plan(NODE)}


def way_out(made: Task) -> list[tuple[str, tuple[str, ...]]]:
    return [(i.name, i.gateways) for i in plan.plan_task(made, TABLES, PLANS).interfaces]


@pytest.mark.parametrize(
    ("specs", "expected"),
    [
        ((), "a"),
        ((NetworkAttachmentSpec(target="b", priority=5),), "b"),
        (
            (NetworkAttachmentSpec(target="b", priority=5), NetworkAttachmentSpec(target="a", gw_priority=1)),
            "a",
        ),
        ((NetworkAttachmentSpec(target="hidden", gw_priority=9),), "a"),
        ((NetworkAttachmentSpec(target="ingress", gw_priority=9),), "a"),
    ],
)
def test_default_route(specs: tuple[NetworkAttachmentSpec, ...], expected: str) -> None:
    made = task(
        attachment("ingress", "10.0.0.9/24"),
        attachment("hidden", "10.0.3.9/24"),
        attachment("a", "10.0.1.9/24"),
        attachment("b", "10.0.2.9/24"),
        specs=specs,
    )
    routes = dict(way_out(made))
    position = {"a": "eth2", "b": "eth3"}[expected]
    assert {name for name, gateways in routes.items() if gateways} == {position}


def test_ingress_is_the_way_out_when_nothing_else_is() -> None:
    made = task(attachment("hidden", "10.0.3.9/24"), attachment("ingress", "10.0.0.9/24"))
    assert way_out(made) == [("eth0", ()), ("eth1", ("10.0.0.1",))]
    assert plan.plan_task(made, TABLES, PLANS).interfaces[1].source_gateways == (("10.0.0.9", "10.0.0.1"),)
    assert plan.answer_addresses([made], TABLES) == {}


def test_connections_lead_to_the_address_that_answers() -> None:
    made = task(attachment("ingress", "10.0.0.9/24"), attachment("a", "10.0.1.9/24"))
    assert plan.answer_addresses([made], TABLES) == {"10.0.0.9": "10.0.1.9"}
    assert plan.published_address(made, TABLES, "") == "10.0.1.9"


def test_interface_names() -> None:
    made = task(
        attachment("a", "10.0.1.9/24"),
        attachment("b", "10.0.2.9/24"),
        specs=(NetworkAttachmentSpec(target="a", interface_name="eth1"),),
    )
    assert [i.name for i in plan.plan_task(made, TABLES, PLANS).interfaces] == ["eth1", "eth0"]


def test_a_table_that_is_not_here_is_named() -> None:
    with pytest.raises(Unavailable, match="network missing"):
        plan.plan_task(task(attachment("missing", "10.9.0.9/24")), TABLES, PLANS)


def test_tasks_without_networks_get_the_local_bridge() -> None:
    (interface,) = plan.plan_task(task(), TABLES, PLANS, "172.31.240.2").interfaces
    assert interface.addresses == ("172.31.240.2/20",) and interface.gateways == ("172.31.240.1",)
    assert plan.local_address(["172.31.240.2", "172.31.240.4"]) == "172.31.240.3"
    assert not plan.plan_task(task(network_mode="none"), TABLES, PLANS).interfaces


def test_internal_task_has_no_address_for_host_ports() -> None:
    with pytest.raises(Invalid, match="not internal"):
        plan.published_address(task(attachment("hidden", "10.0.3.9/24")), TABLES, "")


def test_hosts_file() -> None:
    made = task(
        attachment("a", "10.0.1.9/24"),
        hostname="box",
        domainname="example.org",
        hosts=("192.0.2.7 db  db.example", "host-gateway outer"),
    )
    lines = plan.hosts_file(made, plan.plan_task(made, TABLES, PLANS)).splitlines()
    assert "192.0.2.7\tdb db.example" in lines and "10.0.1.1\touter" in lines
    assert lines[-1] == "10.0.1.9\tbox.example.org box"
    assert plan.hostname(task()) == "abcdefghijkl"


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        ({}, "nameserver 127.0.0.11\nsearch lan\noptions timeout:1 ndots:0\n"),
        ({"dns_search": (".",)}, "nameserver 127.0.0.11\noptions timeout:1 ndots:0\n"),
        (
            {"dns_search": ("a", "b"), "dns_options": ("ndots:2",)},
            "nameserver 127.0.0.11\nsearch a b\noptions ndots:2\n",
        ),
    ],
)
def test_resolv_conf(container: dict[str, tuple[str, ...]], expected: str) -> None:
    host = plan.parse_resolv(
        "# c\ndomain x\nsearch lan\nnameserver 10.0.0.53 # y\noptions timeout:1\nnameserver\n"
    )
    assert host.nameservers == ("10.0.0.53",)
    assert plan.resolv_file(ContainerSpec(**container), host) == expected  # type: ignore[arg-type]


def test_resolv_conf_in_the_hosts_namespace() -> None:
    host = plan.ResolvConf(nameservers=("10.0.0.53",), search=("lan",))
    assert plan.host_resolv_file(ContainerSpec(), host) == "nameserver 10.0.0.53\nsearch lan\n"
    spec = ContainerSpec(dns_nameservers=("1.1.1.1",), dns_options=("rotate",), dns_search=(".",))
    assert plan.host_resolv_file(spec, host) == "nameserver 1.1.1.1\noptions rotate\n"


def test_zone() -> None:
    shared = ServiceEntry(service_id="db", name="db", mode="dnsrr", names=("db", "WWW"))
    gone = ServiceEntry(service_id="gone", name="gone", mode="dnsrr", names=("gone",))
    zones = [
        plan.zone(
            table(
                LOCAL,
                REMOTE,
                member("t3", "10.0.1.12", service="db"),
                member("t4", "10.0.1.13", service="db", healthy=False),
                services=(WEB, shared, gone),
            )
        )
    ]
    assert plan.lookup(zones, "web") == plan.lookup(zones, "web.front") == ("10.0.1.2",)
    assert plan.lookup(zones, "www") == ("10.0.1.12", "10.0.1.2"), "an alias of two services is both"
    assert plan.lookup(zones, "tasks.web") == ("10.0.1.10", "10.0.1.11")
    assert plan.lookup(zones, "db.t3") == ("10.0.1.12",)
    assert plan.lookup(zones, "db.t4") is None, "not healthy: not in DNS"
    assert plan.lookup(zones, "gone") == () and plan.lookup(zones, "example.com") is None
    assert plan.reverse_lookup(zones, "10.0.1.2") == "web.front"
    assert plan.reverse_lookup(zones, "10.0.1.99") == "" and plan.reverse_lookup(zones, "10.9.9.9") is None


def test_a_service_without_names_has_none() -> None:
    """On the ingress network services have a VIP and no name."""
    zones = [plan.zone(table(services=(replace(WEB, names=()),)))]
    assert plan.lookup(zones, "web") is None and plan.reverse_lookup(zones, WEB.vip) == ""


def test_the_first_network_that_knows_a_name_answers() -> None:
    first, second = (
        plan.zone(table(services=(WEB,))),
        plan.zone(table(LOCAL, services=(replace(WEB, vip="10.0.1.3"),))),
    )
    assert plan.lookup([first, second], "web") == ("10.0.1.2",)
    assert plan.lookup([second, first], "web") == ("10.0.1.3",)


def test_transit_addresses_differ_by_prefix_and_avoid_metadata() -> None:
    pairs = {plan.transit_addresses(prefix) for prefix in ("ps", "psa", "psb", "pst")}
    assert len(pairs) == 4
    for number in range(500):
        host, fabric = plan.transit_addresses(f"p{number}")
        assert not host.startswith("169.254.169.") and fabric.endswith(".2")
