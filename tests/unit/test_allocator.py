"""The allocator's scenarios: subnets, virtual IPs, ports and addresses, and what waits for them."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest

from manager.allocator import Allocator, check_ports
from manager.allocator.addresses import to_int
from manager.allocator.allocator import PENDING_MESSAGE
from manager.allocator.ledger import Ledger
from pyswarm.errors import Conflict
from pyswarm.objects import Cluster, Network, NetworkAttachment, Service, Task, TaskState
from pyswarm.specs import (
    ClusterSpec,
    ContainerSpec,
    Driver,
    EndpointSpec,
    IpamPool,
    NetworkAttachmentSpec,
    PortConfig,
)
from tests.unit.rounds import Rounds, network, service, tasks_of

HTTP = PortConfig(target_port=8000, published_port=80)
INGRESS = network("ingress", ingress=True, created=0.5)


def start(*networks: Network, cluster: ClusterSpec | None = None, exclude: tuple[str, ...] = ()) -> Rounds:
    rounds = Rounds(Allocator(exclude))
    rounds.put(Cluster(id="c", spec=cluster or ClusterSpec()), *networks)
    return rounds


def new(owner: Service, count: int, first: int = 1, **fields: object) -> list[Task]:
    tasks = tasks_of(owner, count, first=first, state=TaskState.NEW)
    return [replace(task, **fields) for task in tasks]  # type: ignore[arg-type]  # fields of Task


def addresses(rounds: Rounds, owner: Service, net: str = "net") -> list[str]:
    return [
        address
        for task in rounds.tasks(owner)
        for attachment in task.networks
        if attachment.network_id == net
        for address in attachment.addresses
    ]


def reasons(rounds: Rounds, owner: Service) -> list[str]:
    return [task.status.err for task in rounds.tasks(owner) if task.status.state == TaskState.NEW]


def vips(rounds: Rounds, owner: Service) -> dict[str, str]:
    endpoint = rounds.get(owner).endpoint
    return {vip.network_id: vip.addr for vip in endpoint.virtual_ips} if endpoint is not None else {}


def ports(rounds: Rounds, owner: Service) -> list[int]:
    endpoint = rounds.get(owner).endpoint
    return [port.published_port for port in endpoint.ports] if endpoint is not None else []


def with_ports(owner: Service, *wanted: PortConfig) -> Service:
    return replace(owner, spec=replace(owner.spec, endpoint=EndpointSpec(ports=wanted)))


# ------------------------------------------------------------------------------------------------- networks


def test_networks_get_subnets_gateways_and_identifiers_in_order() -> None:
    rounds = start(INGRESS, network("one", created=1), network("two", created=2))
    found = {n.id: (n.pools[0].subnet, n.pools[0].gateway, n.vni) for n in rounds.view.networks()}
    assert found == {
        "ingress": ("10.0.0.0/16", "10.0.0.1", 4096),
        "one": ("10.1.0.0/24", "10.1.0.1", 4097),
        "two": ("10.1.1.0/24", "10.1.1.1", 4098),
    }


@pytest.mark.parametrize(
    ("pool", "subnet"),
    [("10.0.0.0/8", "10.0.0.0/16"), ("10.0.0.0/16", "10.0.0.0/19"), ("10.0.0.0/23", "10.0.0.0/24")],
)
def test_networks_that_all_services_share_are_wide(pool: str, subnet: str) -> None:
    spec = ClusterSpec(default_address_pool=(pool,), subnet_size=24)
    for shared in (INGRESS, network("bridge")):
        rounds = start(shared, cluster=spec)
        assert [n.pools[0].subnet for n in rounds.view.networks()] == [subnet]


def test_pools_and_size_of_the_cluster() -> None:
    spec = ClusterSpec(default_address_pool=("172.20.0.0/23", "172.30.0.0/24"), subnet_size=24)
    rounds = start(*(network(f"n{i}", created=i) for i in range(4)), cluster=spec)
    subnets = [n.pools[0].subnet if n.pools else "" for n in rounds.view.networks()]
    assert subnets == ["172.20.0.0/24", "172.20.1.0/24", "172.30.0.0/24", ""]
    rounds.delete(rounds.get(network("n1")))
    assert rounds.get(network("n3")).pools[0].subnet == "172.20.1.0/24"


def test_excluded_and_asked_for_subnets_are_avoided() -> None:
    asked = network("asked", created=5, ipam=(IpamPool(subnet="10.0.1.0/25"),))
    rounds = start(network("a", created=1), network("b", created=2), asked, exclude=("10.0.0.0/25",))
    assert rounds.get(network("a")).pools[0].subnet == "10.0.2.0/24"
    assert rounds.get(network("b")).pools[0].subnet == "10.0.3.0/24"
    assert rounds.get(asked).pools[0].subnet == "10.0.1.0/25"


def test_a_freed_subnet_and_identifier_come_last() -> None:
    rounds = start(network("a", created=1), network("b", created=2))
    rounds.delete(rounds.get(network("b")))
    rounds.put(network("c"))
    assert rounds.get(network("c")).pools[0].subnet == "10.0.2.0/24"
    assert rounds.get(network("c")).vni == 4098


def test_the_older_of_two_that_ask_for_the_same_gets_it_and_the_other_says_why() -> None:
    first = network("first", created=1, ipam=(IpamPool(subnet="10.9.0.0/24"),))
    second = network("second", created=2, ipam=(IpamPool(subnet="10.9.0.0/16"),))
    rounds = start(second, first)
    assert rounds.get(first).pools[0].subnet == "10.9.0.0/24"
    assert rounds.get(second).pools == ()
    web = service("web", networks=["second"])
    rounds.put(web, *new(web, 1))
    assert reasons(rounds, web) == [
        "network second has no subnet: network second: ipam[0].subnet: 10.9.0.0/16 overlaps 10.9.0.0/24 "
        "of network first: choose another, or none to have one chosen"
    ]
    rounds.delete(rounds.get(first))
    assert rounds.get(second).pools[0].subnet == "10.9.0.0/16"
    assert addresses(rounds, web, "second") == ["10.9.0.3/16"]


def test_given_gateways_and_internal_networks() -> None:
    rounds = start(
        network("given", ipam=(IpamPool(subnet="10.9.0.0/24", gateway="10.9.0.254"),)),
        network("inside", created=2, internal=True),
    )
    assert rounds.get(network("given")).pools[0].gateway == "10.9.0.254"
    assert rounds.get(network("inside")).pools[0].gateway == ""
    web = service("web", networks=["given"])
    rounds.put(web, *new(web, 252))
    found = addresses(rounds, web, "given")
    assert len(set(found)) == 252
    assert "10.9.0.254/24" not in found


def test_ipv6_subnets_are_the_clusters_own() -> None:
    rounds = start(
        network("net", enable_ipv6=True), network("six", created=2, enable_ipv4=False, enable_ipv6=True)
    )
    four, six = rounds.get(network("net")).pools
    assert four.subnet == "10.0.0.0/24"
    assert ipaddress.IPv6Network(six.subnet).subnet_of(ipaddress.IPv6Network("fd00::/8"))
    assert six.subnet.endswith("/64")
    [only] = rounds.get(network("six")).pools
    assert only.subnet != six.subnet
    web = service("web", networks=["net", "six"])
    rounds.put(web, *new(web, 1))
    [task] = rounds.tasks(web)
    assert [len(a.addresses) for a in task.networks] == [2, 1]
    assert task.networks[0].mac_address == "02:42:0a:00:00:03"
    assert all(len(vip.split("/")) == 2 for vip in vips(rounds, web).values())


def test_host_networks_get_nothing() -> None:
    host = network("host", driver=Driver(name="host"))
    rounds = start(host)
    assert (rounds.get(host).pools, rounds.get(host).vni) == ((), 0)
    web = service("web", networks=["host"])
    rounds.put(web, *new(web, 1))
    [task] = rounds.tasks(web)
    assert (task.networks, task.status.state) == ((), TaskState.PENDING)


@pytest.mark.parametrize("holder", ["service", "task", "neither"])
def test_a_network_goes_when_nobody_uses_it(holder: str) -> None:
    rounds = start(network("net"))
    web = service("web", networks=["net"])
    rounds.put(web, *new(web, 1))
    [task] = rounds.tasks(web)
    rounds.set_state(task, state=TaskState.RUNNING)
    rounds.update(network("net"), lambda n: replace(n, pending_delete=True))
    if holder == "task":
        rounds.delete(rounds.get(web))
        assert rounds.view.get(Network, "net") is not None
        rounds.set_state(task, state=TaskState.SHUTDOWN)
    elif holder == "service":
        rounds.delete(rounds.get(task))
        assert rounds.view.get(Network, "net") is not None
        rounds.delete(rounds.get(web))
    else:
        rounds.delete(rounds.get(task), rounds.get(web))
    assert rounds.view.get(Network, "net") is None


# ------------------------------------------------------------------------------------- tasks and addresses


def test_new_tasks_get_addresses_and_become_pending() -> None:
    rounds = start(network("net"))
    wish = NetworkAttachmentSpec(target="net", aliases=("api", "web1"))
    web = service("web", networks=[wish])
    rounds.put(web, *new(web, 2))
    first, second = rounds.tasks(web)
    assert (first.status.state, first.status.message) == (TaskState.PENDING, PENDING_MESSAGE)
    [attachment] = first.networks
    assert attachment.addresses == ("10.0.0.3/24",)
    assert attachment.mac_address == "02:42:0a:00:00:03"
    assert attachment.aliases == ("api", "web1")
    assert second.networks[0].addresses == ("10.0.0.4/24",)
    assert vips(rounds, web) == {"net": "10.0.0.2/24"}


def test_a_task_waits_for_its_service_to_be_there() -> None:
    rounds = start(network("net"))
    web = service("web", networks=["net"])
    rounds.put(*new(web, 1))
    assert [t.status.state for t in rounds.tasks(web)] == [TaskState.NEW]
    rounds.put(web)
    assert [t.status.state for t in rounds.tasks(web)] == [TaskState.PENDING]


def test_a_missing_network_is_named_and_awaited() -> None:
    rounds = start()
    web = service("web", networks=["net"])
    rounds.put(web, *new(web, 1))
    assert reasons(rounds, web) == ["network net does not exist"]
    rounds.put(network("net"))
    assert [t.status.state for t in rounds.tasks(web)] == [TaskState.PENDING]
    assert [t.status.err for t in rounds.tasks(web)] == [""]
    assert vips(rounds, web) == {"net": "10.0.0.2/24"}


def test_networks_by_name() -> None:
    rounds = start(replace(network("backend"), id="abc123"))
    web = service("web", networks=["backend"])
    rounds.put(web, *new(web, 1))
    assert addresses(rounds, web, "abc123") == ["10.0.0.3/24"]


@pytest.mark.parametrize("mode", ["host", "none"])
def test_tasks_without_networks_of_their_own(mode: str) -> None:
    rounds = start(INGRESS, network("net"))
    web = service("web", networks=["net"], container=ContainerSpec(network_mode=mode))
    rounds.put(web, *new(web, 1))
    [task] = rounds.tasks(web)
    assert (task.networks, task.status.state) == ((), TaskState.PENDING)


def test_a_full_network_is_said_and_goes_on_when_an_address_is_free() -> None:
    rounds = start(network("net", ipam=(IpamPool(subnet="10.9.0.0/29"),)))
    web = service("web", networks=["net"])
    rounds.put(web, *new(web, 5))
    assert len(addresses(rounds, web)) == 4
    [reason] = reasons(rounds, web)
    assert reason == (
        "network net is full: no free address in 10.9.0.0/29; "
        "remove tasks from it or use a network with a wider subnet"
    )
    first = rounds.tasks(web)[0]
    rounds.set_state(first, state=TaskState.RUNNING, desired=TaskState.SHUTDOWN)
    assert len(reasons(rounds, web)) == 1
    rounds.set_state(first, state=TaskState.SHUTDOWN)
    assert reasons(rounds, web) == []
    last = rounds.tasks(web)[-1]
    assert last.networks[0].addresses == first.networks[0].addresses


def test_a_virtual_ip_that_cannot_be_had_is_waited_for() -> None:
    rounds = start(network("net", ipam=(IpamPool(subnet="10.9.0.0/29"),)))
    web, late = service("web", networks=["net"]), service("late", networks=["net"], created=2)
    rounds.put(web, *new(web, 4))
    rounds.put(late, *new(late, 1))
    assert "network net is full" in reasons(rounds, late)[0]
    rounds.delete(*rounds.tasks(web)[:2])
    assert reasons(rounds, late) == []
    assert vips(rounds, late)["net"] in {"10.9.0.3/29", "10.9.0.4/29"}


def test_freed_addresses_are_not_given_again_at_once() -> None:
    rounds = start(network("net"))
    web = service("web", networks=["net"])
    rounds.put(web, *new(web, 3))
    rounds.delete(*rounds.tasks(web))
    rounds.put(*new(web, 2, first=10))
    assert addresses(rounds, web) == ["10.0.0.6/24", "10.0.0.7/24"]


def test_a_new_leader_goes_on_behind_the_highest() -> None:
    rounds = start(network("net"))
    web = service("web", networks=["net"])
    rounds.put(web, *new(web, 3))
    rounds.delete(rounds.tasks(web)[0])
    fresh = Rounds(Allocator())
    fresh.state = rounds.state
    fresh.put(*new(web, 1, first=10))
    assert addresses(fresh, web) == ["10.0.0.4/24", "10.0.0.5/24", "10.0.0.6/24"]


def test_addresses_that_were_asked_for() -> None:
    rounds = start(network("net"))
    db = service("db", networks=[NetworkAttachmentSpec(target="net", addresses=("10.0.0.77",))])
    rounds.put(db, *new(db, 2))
    assert addresses(rounds, db) == ["10.0.0.77/24"]
    [reason] = reasons(rounds, db)
    assert reason == f"address 10.0.0.77 of network net is in use by task {rounds.tasks(db)[0].name}"
    rounds.set_state(rounds.tasks(db)[0], state=TaskState.FAILED)
    assert reasons(rounds, db) == []


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("10.0.0.1", "address 10.0.0.1 of network net is reserved: choose another"),
        ("10.7.0.1", "address 10.7.0.1 does not lie in network net (10.0.0.0/24)"),
        ("ten", "'ten' is not an address on network net"),
        ("10.0.0.2", "address 10.0.0.2 of network net is in use by service db"),
    ],
)
def test_addresses_that_cannot_be_had(asked: str, expected: str) -> None:
    rounds = start(network("net"))
    db = service("db", networks=[NetworkAttachmentSpec(target="net", addresses=(asked,))])
    rounds.put(db, *new(db, 1))
    assert reasons(rounds, db) == [expected]


def test_ranges_and_reserved_addresses() -> None:
    pool = IpamPool(subnet="10.9.0.0/24", ip_range="10.9.0.64/29", aux_addresses={"printer": "10.9.0.66"})
    rounds = start(network("net", ipam=(pool,)))
    web = service("web", networks=["net"], mode="dnsrr")
    rounds.put(web, *new(web, 8))
    assert addresses(rounds, web) == [f"10.9.0.{i}/24" for i in (64, 65, 67, 68, 69, 70, 71)]
    assert len(reasons(rounds, web)) == 1


def test_a_mac_address_that_was_asked_for() -> None:
    rounds = start(network("net"))
    wish = NetworkAttachmentSpec(target="net", mac_address="02:00:00:00:00:07")
    db = service("db", networks=[wish])
    rounds.put(db, *new(db, 1))
    assert rounds.tasks(db)[0].networks[0].mac_address == "02:00:00:00:00:07"


def test_a_task_that_was_never_placed_gives_its_address_back() -> None:
    rounds = start(network("net", ipam=(IpamPool(subnet="10.9.0.0/29"),)))
    web = service("web", networks=["net"])
    rounds.put(web, *new(web, 5))
    rounds.update(rounds.tasks(web)[0], lambda task: replace(task, desired_state=TaskState.SHUTDOWN))
    assert reasons(rounds, web) == []


def test_tasks_that_are_not_wanted_get_nothing() -> None:
    rounds = start(network("net"))
    web = service("web", networks=["net"])
    rounds.put(web, *new(web, 1, desired_state=TaskState.SHUTDOWN))
    assert [t.status.state for t in rounds.tasks(web)] == [TaskState.NEW]


# --------------------------------------------------------------------------------------- services and ports


def test_published_ports_are_copied_to_the_tasks_and_put_them_on_the_ingress_network() -> None:
    rounds = start(INGRESS, network("net"))
    web = service("web", networks=["net"], ports=[HTTP, PortConfig(target_port=9000)])
    rounds.put(web, *new(web, 1))
    assert ports(rounds, web) == [80, 30000]
    assert set(vips(rounds, web)) == {"net", "ingress"}
    [task] = rounds.tasks(web)
    assert [a.network_id for a in task.networks] == ["net", "ingress"]
    assert [p.published_port for p in task.endpoint.ports] == [80, 30000]


def test_without_an_ingress_network_the_way_out_is_said() -> None:
    rounds = start(network("net"))
    web = service("web", networks=["net"], ports=[HTTP])
    rounds.put(web, *new(web, 1))
    assert "pyswarm network create --ingress ingress" in reasons(rounds, web)[0]
    rounds.put(INGRESS)
    assert reasons(rounds, web) == []


def test_dnsrr_has_no_virtual_ips() -> None:
    rounds = start(network("net"))
    web = service("web", networks=["net"], mode="dnsrr")
    rounds.put(web, *new(web, 1))
    assert vips(rounds, web) == {}
    assert addresses(rounds, web) == ["10.0.0.2/24"]
    rounds.update(web, lambda s: replace(s, spec=replace(s.spec, endpoint=EndpointSpec(mode="vip"))))
    assert vips(rounds, web) == {"net": "10.0.0.3/24"}
    rounds.update(web, lambda s: replace(s, spec=replace(s.spec, endpoint=EndpointSpec(mode="dnsrr"))))
    assert vips(rounds, web) == {}


def test_networks_that_come_and_go_change_only_their_own_virtual_ip() -> None:
    rounds = start(network("net", created=1), network("two", created=2))
    web = service("web", networks=["net"])
    rounds.put(web)

    def on(*targets: str) -> Service:
        wishes = tuple(NetworkAttachmentSpec(target=target) for target in targets)
        return rounds.update(
            web, lambda s: replace(s, spec=replace(s.spec, task=replace(s.spec.task, networks=wishes)))
        )

    on("net", "two")
    assert vips(rounds, web) == {"net": "10.0.0.2/24", "two": "10.0.1.2/24"}
    on("two")
    assert vips(rounds, web) == {"two": "10.0.1.2/24"}


def test_a_published_port_is_one_services() -> None:
    rounds = start(INGRESS)
    first, second = service("first", ports=[HTTP]), service("second", ports=[HTTP], created=2)
    rounds.put(second, first, *new(second, 2), *new(first, 1))
    assert [t.status.state for t in rounds.tasks(first)] == [TaskState.PENDING]
    assert reasons(rounds, second) == ["port 80/tcp is already published by service first"] * 2
    rounds.delete(rounds.get(first))
    assert reasons(rounds, second) == []
    assert ports(rounds, second) == [80]


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        (HTTP, replace(HTTP, protocol="udp"), False),
        (HTTP, replace(HTTP, publish_mode="host"), True),
        (replace(HTTP, publish_mode="host"), replace(HTTP, publish_mode="host"), False),
        (replace(HTTP, host_ip="10.0.0.1"), replace(HTTP, host_ip="10.0.0.2"), False),
        (replace(HTTP, host_ip="10.0.0.1"), HTTP, True),
    ],
)
def test_which_ports_clash(one: PortConfig, other: PortConfig, clash: bool) -> None:
    rounds = start(INGRESS)
    first, second = service("first", ports=[one]), service("second", ports=[other], created=2)
    rounds.put(first, *new(first, 1))
    rounds.put(second, *new(second, 1))
    assert bool(reasons(rounds, second)) == clash


def test_a_service_that_publishes_a_port_twice_says_so() -> None:
    rounds = start(INGRESS)
    web = service("web", ports=[HTTP, replace(HTTP, target_port=9000)])
    rounds.put(web, *new(web, 1))
    assert reasons(rounds, web) == ["port 80/tcp is published twice by service web itself"]


def test_a_port_moves_from_one_service_to_another_in_one_round() -> None:
    rounds = start(INGRESS)
    first, second = service("first", ports=[HTTP]), service("second", created=0.1)
    rounds.put(first, second)
    other = replace(HTTP, published_port=81)
    rounds.stage(with_ports(rounds.get(first), other))
    rounds.stage(with_ports(rounds.get(second), HTTP))
    rounds.sweep()
    rounds.settle()
    assert (ports(rounds, first), ports(rounds, second)) == ([81], [80])
    rounds.stage(with_ports(rounds.get(first), HTTP))
    rounds.stage(with_ports(rounds.get(second), other))
    rounds.sweep()
    rounds.settle()
    assert (ports(rounds, first), ports(rounds, second)) == ([80], [81])


def test_who_waits_for_a_port_gets_it_when_it_is_dropped() -> None:
    rounds = start(INGRESS)
    first, second = service("first", ports=[HTTP]), service("second", ports=[HTTP], created=2)
    rounds.put(first, second, *new(second, 1))
    assert reasons(rounds, second)
    rounds.put(with_ports(rounds.get(first)))
    assert reasons(rounds, second) == []
    assert (ports(rounds, first), ports(rounds, second)) == ([], [80])


def test_a_service_that_is_being_removed_gives_its_ports_at_once() -> None:
    rounds = start(INGRESS, network("net"))
    first, second = (
        service("first", ports=[HTTP], networks=["net"]),
        service("second", ports=[HTTP], created=2),
    )
    rounds.put(first, second, *new(second, 1))
    before = vips(rounds, first)
    rounds.update(first, lambda s: replace(s, pending_delete=True))
    assert (ports(rounds, first), ports(rounds, second)) == ([], [80])
    assert vips(rounds, first) == before
    assert reasons(rounds, second) == []


def test_automatic_ports_stay_and_are_not_given_twice() -> None:
    rounds = start(INGRESS)
    auto = PortConfig(target_port=9000)
    first, second = service("first", ports=[auto]), service("second", ports=[auto, auto], created=2)
    rounds.put(first, second)
    assert (ports(rounds, first), ports(rounds, second)) == ([30000], [30001, 30002])
    rounds.put(with_ports(rounds.get(first), auto, HTTP))
    assert ports(rounds, first) == [30000, 80]
    third = service("third", ports=[PortConfig(target_port=1, published_port=30003), auto])
    rounds.put(third)
    assert ports(rounds, third) == [30003, 30004]


def test_automatic_ports_can_run_out() -> None:
    rounds = start(INGRESS)
    taken = [PortConfig(target_port=1, published_port=port) for port in range(30000, 32768)]
    rounds.put(service("greedy", ports=taken))
    web = service("web", ports=[PortConfig(target_port=80)], created=2)
    rounds.put(web, *new(web, 1))
    assert reasons(rounds, web) == [
        "every tcp port from 30000 to 32767 is published: name a port for target 80"
    ]


def test_scaling_and_status_do_not_touch_the_endpoint() -> None:
    allocator = Allocator()
    rounds = Rounds(allocator)
    web = service("web", networks=["net"], ports=[PortConfig(target_port=80)])
    rounds.put(INGRESS, network("net"), web, *new(web, 3))
    keys = list(allocator.everything(rounds.view))
    plan = allocator.plan(rounds.view, keys, rounds.now)
    assert (plan.puts, plan.deletes, plan.wake) == ([], [], {})


def test_a_rolled_back_round_leaves_no_trace() -> None:
    rounds = start(INGRESS, network("net"))
    web = service("web", networks=["net"], ports=[HTTP])
    for obj in (web, *new(web, 3)):
        rounds.stage(obj)
    rounds.sweep()
    rounds.rollback()
    rounds.sweep()
    other = service("other", networks=["net"], ports=[HTTP])
    rounds.put(other, *new(other, 251))
    assert reasons(rounds, other) == []
    assert len(set(addresses(rounds, other)) | {vips(rounds, other)["net"]}) == 252


def test_one_port_of_several_is_dropped_and_taken_over() -> None:
    rounds = start(INGRESS)
    more = PortConfig(target_port=1, published_port=81)
    first, second = service("first", ports=[HTTP, more]), service("second", ports=[HTTP], created=2)
    rounds.put(first, second, *new(second, 1))
    rounds.put(with_ports(rounds.get(first), more))
    assert (ports(rounds, first), ports(rounds, second)) == ([81], [80])
    assert reasons(rounds, second) == []


def test_a_service_that_waits_without_new_tasks_is_not_forgotten() -> None:
    rounds = start(INGRESS)
    first, second = service("first", ports=[HTTP]), service("second", created=2)
    rounds.put(first, second, *new(second, 1))
    rounds.put(with_ports(rounds.get(second), HTTP))
    assert ports(rounds, second) == []
    rounds.delete(rounds.get(first))
    assert ports(rounds, second) == [80]


def test_what_was_held_for_a_task_that_got_only_part_is_let_go() -> None:
    rounds = start(
        network("net", created=1), network("tight", created=2, ipam=(IpamPool(subnet="10.9.0.0/29"),))
    )
    web = service("web", networks=["net", "tight"])
    rounds.put(web, *new(web, 6))
    assert len(reasons(rounds, web)) == 2
    late = service("late", networks=["net", "tight"], created=2)
    rounds.put(late, *new(late, 1))
    assert len(reasons(rounds, late)) == 1
    filler = service("filler", networks=["net"], mode="dnsrr", created=3)
    rounds.put(filler, *new(filler, 253 - 5))
    assert reasons(rounds, filler) == []


def test_an_address_that_changed_hands_is_the_new_owners_in_whatever_order_that_is_seen() -> None:
    rounds = Rounds()
    web = service("web", networks=["net"])
    there = NetworkAttachment(network_id="net", addresses=("10.0.0.9/24",))
    old, new_ = (replace(task, node_id="a") for task in tasks_of(web, 2, state=TaskState.RUNNING))
    rounds.put(network("net"), web, replace(old, networks=(there,)), new_)
    for order in ((old, new_), (new_, old)):
        ledger = Ledger()
        rounds.put(replace(old, networks=(there,)), new_)
        ledger.sync(rounds.view)
        assert ledger.owner("net", to_int("10.0.0.9")) == ("task", old.id)
        rounds.put(old, replace(new_, networks=(there,)))
        for task in order:
            ledger.note("task", task.id)
        ledger.sync(rounds.view)
        assert ledger.owner("net", to_int("10.0.0.9")) == ("task", new_.id)


def test_the_check_of_ports_sees_the_whole_request() -> None:
    rounds = start(INGRESS)
    first, second = service("first", ports=[HTTP]), service("second", created=2)
    automatic = service("auto", ports=[PortConfig(target_port=1)], created=3)
    rounds.put(first, second, automatic)
    wants = with_ports(rounds.get(second), PortConfig(target_port=1, published_port=443), HTTP)
    with pytest.raises(Conflict) as caught:
        check_ports(rounds.view, wants)
    assert str(caught.value) == (
        "service second: ports[1]: port 80/tcp is already published by service first: "
        "publish another port, or remove it there first"
    )
    with pytest.raises(Conflict, match="30000/tcp is already published by service auto"):
        check_ports(rounds.view, with_ports(second, PortConfig(target_port=1, published_port=30000)))
    check_ports(rounds.view, rounds.get(first))
    rounds.stage(with_ports(rounds.get(first)))
    check_ports(rounds.view, wants)
    rounds.rollback()
    rounds.stage(replace(rounds.get(first), pending_delete=True))
    check_ports(rounds.view, wants)
