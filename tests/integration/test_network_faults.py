"""What can go wrong around the network: firewalls, broken networks, cancelled attachments, changed addresses."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import dnslib
import pytest

from node_agent.network import namespaces, netlink, nft
from node_agent.network.plan import MTU_OPTION
from pyswarm.errors import Invalid, Unavailable
from pyswarm.objects import NetworkTable, Task
from pyswarm.specs import Driver
from tests.integration.network_lab import (
    OUTSIDE,
    Echo,
    Lab,
    Machine,
    Net,
    by_id,
    echo,
    ingress_port,
    tables,
    task,
    tcp,
    until,
)
from tests.integration.test_network_dns import Upstream

pytestmark = pytest.mark.root


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    lab = Lab(2)
    try:
        await lab.open()
        yield lab
    finally:
        lab.close()


def _nft(text: str) -> str:
    rules = nft.Nft()
    try:
        return rules.run(text)
    finally:
        rules.close()


_DROPPING = """
table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }
table inet firewalld { chain filter_FORWARD { type filter hook forward priority 10; reject; }; }
"""


async def test_a_firewall_that_drops_forwarded_packets_is_passed_and_left_as_it_was(lab: Lab) -> None:
    machine = lab.machines[0]
    machine.inside(lambda: _nft(_DROPPING))
    net = Net("n1", 4097, "10.0.1.0/24")
    net.member("web", "web", machine, 10)
    web = task("web", net)
    await machine.call("apply", tables(net), [ingress_port(net, 8080, ["web"])], by_id(web))
    await machine.call("attach", web)
    await machine.call("repair")
    server = lab.in_outside(lambda: Echo("outside"))
    lab.on_close(server.close)
    with echo(machine, "web"):
        assert machine.in_task("web", lambda: tcp(OUTSIDE)) == f"outside {machine.addr}"
        assert lab.in_outside(lambda: tcp(machine.addr, 8080)) == f"web {OUTSIDE}"
    await machine.call("stop", remove=True)
    left = machine.inside(lambda: _nft("list ruleset"))
    assert "pst-up" not in left and "policy drop" in left and "reject" in left


async def test_one_broken_network_leaves_the_others_alone(lab: Lab) -> None:
    machine = lab.machines[0]
    taken, wrong, good = (Net(f"n{n}", 4096 + n, f"10.0.{n}.0/24") for n in (1, 2, 3))
    for net in (taken, wrong, good):
        net.member(f"t{net.vni}", "web", machine, 10)
    tasks = [task(f"t{net.vni}", net) for net in (taken, wrong, good)]
    wrong_table = wrong.table
    options = Driver(name="overlay", options={MTU_OPTION: "many"})
    everything = tables(taken, good)
    everything[wrong.id] = _with_driver(wrong, options)

    def occupy() -> None:
        descriptor = _own_namespace()
        with contextlib.closing(netlink.Socket()) as route:
            vx = netlink.vxlan(
                "other",
                index=77,
                vni=4097,
                port=4789,
                local="",
                mtu=1450,
                netns=descriptor,
                mac="02:00:00:00:00:01",
            )
            route.run([vx])

    machine.inside(occupy)
    await machine.call("apply", everything, (), by_id(*tasks))
    with pytest.raises(Unavailable, match=r"vxlan vx4097 .* another data path port"):
        await machine.call("attach", tasks[0])
    with pytest.raises((Invalid, Unavailable), match="68 to 65535"):
        await machine.call("attach", tasks[1])
    await machine.call("attach", tasks[2])
    assert machine.in_task("t4099", lambda: _refused("10.0.3.1"))
    machine.inside(lambda: _delete_link("other"))
    everything[wrong.id] = wrong_table
    await machine.call("apply", everything, (), by_id(*tasks))
    await machine.call("attach_many", tasks[:2])
    assert await machine.call("repair") == []


def _with_driver(net: Net, driver: Driver) -> NetworkTable:
    return replace(net.table, network=replace(net.network, spec=replace(net.network.spec, driver=driver)))


def _own_namespace() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _delete_link(name: str) -> None:
    with contextlib.closing(netlink.Socket()) as route:
        route.run([netlink.link_delete(name=name)])


def _refused(address: str) -> bool:
    try:
        tcp(address)
    except ConnectionRefusedError:
        return True
    return False


async def test_tasks_on_the_ingress_network_do_not_reach_each_other(lab: Lab) -> None:
    one, two = lab.machines
    ingress = Net("ingress", 4096, "10.0.0.0/24", ingress=True, node_addrs=(one.addr, two.addr))
    for name, machine, number in (("a", one, 10), ("b", one, 11), ("c", two, 12)):
        ingress.member(name, name, machine, number)
    tasks = {name: task(name, ingress) for name in "abc"}
    ports = [ingress_port(ingress, 8000, ["b"]), ingress_port(ingress, 8001, ["c"])]
    await one.call("apply", tables(ingress), ports, by_id(tasks["a"], tasks["b"]))
    await two.call("apply", tables(ingress), ports, by_id(tasks["c"]))
    await one.call("attach_many", [tasks["a"], tasks["b"]])
    await two.call("attach", tasks["c"])
    with echo(one, "b"), echo(two, "c"):
        for address in ("10.0.0.11", "10.0.0.12"):
            with pytest.raises(OSError):
                one.in_task("a", lambda address=address: tcp(address, timeout=0.5))
        assert one.in_task("a", lambda: tcp(one.addr, 8000)).split()[0] == "b"
        assert one.in_task("a", lambda: tcp(one.addr, 8001)).split()[0] == "c"
        assert lab.in_outside(lambda: tcp(one.addr, 8001)) == f"c {OUTSIDE}"


async def test_ipv6_inside_a_network(lab: Lab) -> None:
    one, two = lab.machines
    net = Net("n1", 4097, "10.0.1.0/24", ipv6=True, subnet6="fd00:1::/64")
    for name, machine, number in (("a", one, 10), ("b", one, 11), ("c", two, 12)):
        net.member(name, name, machine, number)
        net.member6(name, name, machine, number)
    tasks = {name: task(name, net) for name in "abc"}
    await one.call("apply", tables(net), (), by_id(tasks["a"], tasks["b"]))
    await two.call("apply", tables(net), (), by_id(tasks["c"]))
    await one.call("attach_many", [tasks["a"], tasks["b"]])
    await two.call("attach", tasks["c"])

    def listen() -> socket.socket:
        return socket.create_server(("::", 90), family=socket.AF_INET6)

    def connect(address: str) -> str:
        with socket.create_connection((address, 90), timeout=3) as item:
            return str(item.getsockname()[0])

    def resolve() -> list[str]:
        query = dnslib.DNSRecord.question("c.c", "AAAA")
        return [str(rr.rdata) for rr in dnslib.DNSRecord.parse(query.send("127.0.0.11", 53, timeout=3)).rr]

    with one.in_task("b", listen), two.in_task("c", listen):
        assert one.in_task("a", lambda: connect("fd00:1::b")) == "fd00:1::a"
        assert one.in_task("a", lambda: connect("fd00:1::c")) == "fd00:1::a"
        assert one.in_task("a", resolve) == ["fd00:1::c"]
    with pytest.raises(OSError, match="unreachable"):
        one.in_task("a", lambda: connect("2001:db8::1"))


async def test_name_server_in_the_tasks_own_network(lab: Lab) -> None:
    machine = lab.machines[0]
    net = Net("n1", 4097, "10.0.1.0/24", internal=True)
    other = Net("n2", 4098, "10.0.2.0/24")
    for item in (net, other):
        item.member("client", "client", machine, 10)
    net.member("dns", "dns", machine, 53)
    client, server = task("client", net, other, dns_nameservers=("10.0.1.53",)), task("dns", net)
    await machine.call("apply", tables(net, other), (), by_id(client, server))
    await machine.call("attach_many", [client, server])
    upstream = machine.in_task("dns", Upstream)  # on all addresses: port 53 is the task's own
    lab.on_close(upstream.close)

    def ask(tcp_too: bool) -> list[str]:
        query = dnslib.DNSRecord.question("example.com")
        answer = query.send("127.0.0.11", 53, tcp=tcp_too, timeout=5)
        return [str(rr.rdata) for rr in dnslib.DNSRecord.parse(answer).rr]

    assert machine.in_task("client", lambda: ask(False)) == ["198.51.100.7"]
    assert machine.in_task("client", lambda: ask(True)) == ["198.51.100.7"]
    assert machine.in_task("dns", lambda: _addresses("dns.dns")) == ["10.0.1.53"]
    machine.kill()
    await machine.start()
    await machine.call("apply", tables(net, other), (), by_id(client, server))
    assert machine.in_task("dns", lambda: _addresses("dns.dns")) == ["10.0.1.53"]


def _addresses(name: str) -> list[str]:
    answer = dnslib.DNSRecord.question(name).send("127.0.0.11", 53, timeout=5)
    return [str(rr.rdata) for rr in dnslib.DNSRecord.parse(answer).rr]


async def test_the_nodes_address_may_change(lab: Lab) -> None:
    one, two = lab.machines
    net = Net("n1", 4097, "10.0.1.0/24")
    net.member("a", "a", one, 10)
    net.member("b", "b", two, 11)
    a, b = task("a", net), task("b", net)
    for machine, item in ((one, a), (two, b)):
        await machine.call("apply", tables(net), (), by_id(item))
        await machine.call("attach", item)
    one.kill()

    def move() -> None:
        with contextlib.closing(netlink.Socket()) as route:
            route.run([netlink.address(2, f"{old}/24", delete=True), netlink.address(2, "10.77.0.111/24")])
            route.run([netlink.route("default", gateway=OUTSIDE, index=2)])

    old = one.addr
    one.inside(move)
    one.addr = "10.77.0.111"
    await one.start()
    net.members.clear()
    net.member("a", "a", one, 10)
    net.member("b", "b", two, 11)
    await one.call("apply", tables(net), (), by_id(a))
    await two.call("apply", tables(net), (), by_id(b))
    with echo(two, "b"):
        assert one.in_task("a", lambda: tcp("10.0.1.11")) == "b 10.0.1.10"
    server = lab.in_outside(lambda: Echo("outside"))
    lab.on_close(server.close)
    assert one.in_task("a", lambda: tcp(OUTSIDE)) == "outside 10.77.0.111"


async def test_encryption_is_not_feigned(lab: Lab) -> None:
    """A network that asks for it does not leave the node."""
    one, two = lab.machines
    net = Net("n1", 4097, "10.0.1.0/24")
    vip = net.service("web", 2)
    for name, machine, number in (("a", one, 10), ("b", one, 11), ("c", two, 12)):
        net.member(name, "web", machine, number)
    tasks = {name: task(name, net) for name in "abc"}
    table = {net.id: _with_driver(net, Driver(name="overlay", options={"encrypted": ""}))}
    await one.call("apply", table, (), by_id(tasks["a"], tasks["b"]))
    await two.call("apply", table, (), by_id(tasks["c"]))
    await one.call("attach_many", [tasks["a"], tasks["b"]])
    await two.call("attach", tasks["c"])
    with echo(one, "a"), echo(one, "b"), echo(two, "c"):
        assert one.in_task("a", lambda: {tcp(vip).split()[0] for _ in range(30)}) == {"a", "b"}
        with pytest.raises(OSError):
            one.in_task("a", lambda: tcp("10.0.1.12", timeout=0.5))


async def test_a_network_ends_with_its_last_task(lab: Lab) -> None:
    """Its table may be gone before the task has stopped."""
    machine = lab.machines[0]
    net = Net("n1", 4097, "10.0.1.0/24")
    net.member("a", "a", machine, 10)
    net.member("b", "b", machine, 11)
    tasks = [task("a", net), task("b", net)]
    await machine.call("apply", tables(net), (), by_id(*tasks))
    await machine.call("attach_many", tasks)
    await machine.call("apply", {}, (), {})
    with echo(machine, "b"):
        assert machine.in_task("a", lambda: tcp("10.0.1.11")) == "b 10.0.1.10"
    fabric = machine.paths.run / "network" / "fabric"
    await machine.call("detach", "a")
    assert "br4097" in namespaces.inside(fabric, _names)
    await machine.call("detach", "b")
    until(lambda: namespaces.inside(fabric, _names) == {"lo", "up", "local"})


async def test_two_agents_of_one_machine(lab: Lab) -> None:
    """In one namespace, told apart by prefix and port: neither sees nor harms the other."""
    first = lab.machines[0]
    second = Machine(lab, 1)
    second.paths = replace(first.paths, state=lab.directory / "s2", run=lab.directory / "r2")
    second.prefix, second.port = "psu", 4790
    lab.machines.append(second)
    await second.start()
    net = Net("n1", 4097, "10.0.1.0/24")
    net.member("a", "a", first, 10)
    item = task("a", net)
    for machine, port in ((first, 8001), (second, 8002)):
        await machine.call("apply", tables(net), [ingress_port(net, port, ["a"])], by_id(item))
        await machine.call("attach", item)
    with echo(first, "a"), second.in_task("a", lambda: Echo("other")) as other:
        assert lab.in_outside(lambda: tcp(first.addr, 8001)).split()[0] == "a"
        assert lab.in_outside(lambda: tcp(first.addr, 8002)).split()[0] == "other"
        await first.call("stop", remove=True)
        assert lab.in_outside(lambda: tcp(first.addr, 8002)).split()[0] == "other"
        assert other.name == "other"
    assert first.inside(_names) == {"lo", "eth0", "psu-up"}
    forwarding = Path("/proc/thread-self/root/proc/sys/net/ipv4/ip_forward")
    assert first.inside(forwarding.read_text) == "1\n"
    await _leave(second)


@pytest.mark.parametrize("seed", range(3))
async def test_any_order_of_calls_ends_where_it_should(lab: Lab, seed: int) -> None:
    """Attach, detach, apply, cancelled attachments and kills of the agent in random order."""
    print(f"seed {seed}")
    chance = random.Random(seed)
    machine = lab.machines[0]
    nets = [Net(f"n{n}", 4096 + n, f"10.0.{n}.0/24") for n in (1, 2)]
    for number in range(8):
        for net in nets:
            net.member(f"t{number}", "web", machine, 10 + number)
    tasks = [task(f"t{number}", *chance.sample(nets, chance.randint(0, 2))) for number in range(8)]
    wanted: dict[str, Task] = {}
    await machine.call("apply", tables(*nets), (), wanted)
    for _ in range(40):
        item = chance.choice(tasks)
        match chance.choice(["attach", "attach", "attach", "detach", "apply", "cancel", "kill"]):
            case "attach":
                wanted[item.id] = item
                await machine.call("attach", item)
            case "detach":
                wanted.pop(item.id, None)
                await machine.call("detach", item.id)
            case "cancel":
                wanted.pop(item.id, None)
                await machine.call("attach_cancelled", item)
                await machine.call("detach", item.id)
            case "kill":
                machine.kill()
                await machine.start()
                await machine.call("apply", tables(*nets), (), dict(wanted))
            case _:
                await machine.call("apply", tables(*nets), (), dict(wanted))
    assert await machine.call("known") == sorted(wanted)
    assert await machine.call("repair") == []
    fabric = machine.paths.run / "network" / "fabric"
    expected = sum(max(len(item.networks), 1) for item in wanted.values())
    until(lambda: namespaces.inside(fabric, _veths) == expected + 1)
    for item in wanted.values():
        assert machine.in_task(item.id, _has_resolver), item.id
    await _leave(machine)


def _veths() -> int:
    with contextlib.closing(netlink.Socket()) as route:
        return sum(link.kind == "veth" for link in route.links())


def _has_resolver() -> bool:
    query = dnslib.DNSRecord.question("nothing.at.all")
    with contextlib.suppress(TimeoutError):
        return bool(query.send("127.0.0.11", 53, timeout=8))
    return False


async def _leave(machine: Machine) -> None:
    await machine.call("stop", remove=True)
    await asyncio.to_thread(until, lambda: machine.inside(_names) == {"lo", "eth0"})
    assert not [
        line
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if str(machine.paths.run) in line
    ]


def _names() -> set[str]:
    with contextlib.closing(netlink.Socket()) as route:
        return {link.name for link in route.links()}
