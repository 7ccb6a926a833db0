"""Networks across machines, isolation, ways out, restart of the agent, drift, and what is left at the end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from node_agent.network import namespaces, netlink, nft
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
    udp,
    until,
)

pytestmark = pytest.mark.root


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    lab = Lab(2)
    try:
        await lab.open()
        yield lab
    finally:
        lab.close()


def _links() -> set[str]:
    with contextlib.closing(netlink.Socket()) as route:
        return {link.name for link in route.links()}


def _host_tables() -> str:
    rules = nft.Nft()
    try:
        return rules.run("list tables")
    finally:
        rules.close()


async def test_two_machines_share_a_network(lab: Lab) -> None:
    one, two = lab.machines
    net = Net("n1", 4097, "10.0.1.0/24")
    vip = net.service("web", 2)
    client = net.member("client", "other", one, 10)
    net.member("web1", "web", one, 11)
    net.member("web2", "web", two, 12)
    tasks = {name: task(name, net) for name in ("client", "web1", "web2")}
    await one.call("apply", tables(net), (), by_id(tasks["client"], tasks["web1"]))
    await two.call("apply", tables(net), (), by_id(tasks["web2"]))
    await one.call("attach_many", [tasks["client"], tasks["web1"]])
    await two.call("attach", tasks["web2"])
    with echo(one, "web1"), echo(two, "web2"):
        assert one.in_task("client", lambda: tcp("10.0.1.12")) == f"web2 {client}"
        assert two.in_task("web2", lambda: tcp("10.0.1.11")) == "web1 10.0.1.12"
        answers = one.in_task("client", lambda: {tcp(vip) for _ in range(40)})
        assert answers == {f"web1 {client}", f"web2 {client}"}
        answers = two.in_task("web2", lambda: {tcp(vip).split()[0] for _ in range(40)})
        assert answers == {"web1", "web2"}
        assert one.in_task("client", lambda: udp("10.0.1.12")) == f"web2 {client}"
        assert one.in_task("client", lambda: _bulk(vip)) == 2_000_000
        assert one.in_task("client", _mtu) == 1450
        net.remove("web1")
        await one.call("apply", tables(net), (), by_id(tasks["client"], tasks["web1"]))
        assert one.in_task("client", lambda: {tcp(vip) for _ in range(10)}) == {f"web2 {client}"}


def _bulk(address: str) -> int:
    """Send two million bytes to an Echo and count what comes back: full-sized packets both ways."""
    with socket.create_connection((address, 80), timeout=5) as connection:
        connection.recv(1000)
        received = 0
        for sent in range(100_000, 2_000_001, 100_000):
            connection.sendall(bytes(100_000))
            while received < sent:
                received += len(connection.recv(65536))
        return received


def _mtu() -> int:
    with contextlib.closing(netlink.Socket()) as route:
        return next(link.mtu for link in route.links() if link.name == "eth0")


async def test_isolation_and_ways_out(lab: Lab) -> None:
    machine = lab.machines[0]
    a, b = Net("a", 4097, "10.0.1.0/24"), Net("b", 4098, "10.0.2.0/24")
    hidden = Net("hidden", 4099, "10.0.3.0/24", internal=True)
    for net in (a, b, hidden):
        net.member(f"in-{net.id}", net.id, machine, 10)
        net.member(f"peer-{net.id}", net.id, machine, 11)
    vip_b = b.service("b", 2)
    vip_hidden = hidden.service("hidden", 2)
    tasks = [task(f"{role}-{net.id}", net) for net in (a, b, hidden) for role in ("in", "peer")]
    tasks.append(task("bare"))
    await machine.call("apply", tables(a, b, hidden), (), by_id(*tasks))
    await machine.call("attach_many", tasks)
    server = lab.in_outside(lambda: Echo("outside"))
    lab.on_close(server.close)
    with (
        echo(machine, "in-b"),
        echo(machine, "peer-b"),
        echo(machine, "peer-hidden"),
        echo(machine, "in-hidden"),
    ):
        assert machine.in_task("in-b", lambda: tcp("10.0.2.11")).split()[0] == "peer-b"
        machine.in_task("in-hidden", lambda: _default_route(vip_hidden))  # what CAP_NET_ADMIN may do
        for address in ("10.0.2.10", vip_b, "10.0.2.1", "10.0.3.10", vip_hidden, OUTSIDE):
            for source in ("in-a", "in-hidden", "bare"):
                own = source == "in-hidden" and address.startswith("10.0.3.")
                if own or (address == OUTSIDE and source != "in-hidden"):
                    continue
                with pytest.raises(OSError) as caught:
                    machine.in_task(source, lambda address=address: tcp(address, timeout=2))
                assert caught.value.errno == errno.EHOSTUNREACH, (source, address)
        for source in ("in-a", "in-b", "bare"):
            assert machine.in_task(source, lambda: tcp(OUTSIDE)) == f"outside {machine.addr}"
            assert machine.in_task(source, lambda: udp(OUTSIDE)) == f"outside {machine.addr}"
        assert machine.in_task("in-hidden", lambda: {tcp(vip_hidden).split()[0] for _ in range(20)}) == {
            "in-hidden",
            "peer-hidden",
        }
        assert machine.in_task("peer-hidden", lambda: tcp("10.0.3.10")).split()[1] == "10.0.3.11"


def _default_route(gateway: str) -> None:
    with contextlib.closing(netlink.Socket()) as route:
        route.run([netlink.route("default", gateway=gateway, index=2)])


async def test_the_default_route_follows_priority_and_never_ingress(lab: Lab) -> None:
    machine = lab.machines[0]
    ingress = Net("ingress", 4096, "10.0.0.0/24", ingress=True)
    hidden = Net("hidden", 4099, "10.0.3.0/24", internal=True)
    app = Net("app", 4097, "10.0.1.0/24")
    for net in (ingress, hidden, app):
        net.member("web", "web", machine, 10)
    web = task("web", ingress, hidden, app)
    await machine.call("apply", tables(ingress, hidden, app), (), by_id(web))
    await machine.call("attach", web)
    text = machine.in_task("web", lambda: Path("/proc/thread-self/net/route").read_text())
    defaults = [line.split()[:3] for line in text.splitlines() if line.split()[1] == "00000000"]
    assert defaults == [["eth2", "00000000", "0101000A"]]


async def test_agent_killed_and_restarted_disturbs_nothing(lab: Lab) -> None:
    machine = lab.machines[0]
    net = Net("n1", 4097, "10.0.1.0/24")
    ingress = Net("ingress", 4096, "10.0.0.0/24", ingress=True)
    vip = net.service("web", 2)
    net.member("client", "other", machine, 10)
    net.member("web1", "web", machine, 11)
    ingress.member("web1", "web", machine, 11)
    tasks = [task("client", net), task("web1", net, ingress)]
    everything = (tables(net, ingress), [ingress_port(ingress, 8080, ["web1"])], by_id(*tasks))
    await machine.call("apply", *everything)
    await machine.call("attach_many", tasks)
    with echo(machine, "web1"):
        connection = machine.in_task("client", lambda: socket.create_connection((vip, 80), timeout=3))
        outside = lab.in_outside(lambda: socket.create_connection((machine.addr, 8080), timeout=3))
        with connection, outside:
            assert connection.recv(100) and outside.recv(100)
            machine.kill()
            for item in (connection, outside):
                item.sendall(b"while away")
                assert item.recv(100) == b"while away"
            assert machine.in_task("client", lambda: tcp(vip)).startswith("web1")
            assert lab.in_outside(lambda: tcp(machine.addr, 8080)).startswith("web1")
            await machine.start()
            assert await machine.call("known") == ["client", "web1"]
            await machine.call("apply", *everything)
            for item in (connection, outside):
                item.sendall(b"back again")
                assert item.recv(100) == b"back again"
            assert machine.in_task("client", lambda: tcp(vip)).startswith("web1")
            assert machine.in_task("client", _resolve_web) == vip
            assert await machine.call("repair") == []
            machine.kill()
            await machine.start()
            await machine.call("apply", everything[0], [], by_id(tasks[0]))
            assert await machine.call("known") == ["client"]


def _resolve_web() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as item:
        item.settimeout(3)
        item.sendto(bytes.fromhex("123401000001000000000000") + b"\x03web\0\0\1\0\1", ("127.0.0.11", 53))
        return socket.inet_ntoa(item.recv(512)[-4:])


async def test_drift_is_repaired(lab: Lab) -> None:
    one, two = lab.machines
    net = Net("n1", 4097, "10.0.1.0/24")
    ingress = Net("ingress", 4096, "10.0.0.0/24", ingress=True, node_addrs=(one.addr, two.addr))
    vip = net.service("web", 2)
    net.member("client", "other", one, 10)
    net.member("web1", "web", two, 11)
    ingress.member("client", "web", one, 10)
    client, web = task("client", net, ingress), task("web1", net)
    for machine, item in ((one, client), (two, web)):
        await machine.call(
            "apply", tables(net, ingress), [ingress_port(ingress, 80, ["client"])], by_id(item)
        )
        await machine.call("attach", item)
    assert await one.call("repair") == []

    def damage() -> None:
        rules = nft.Nft()
        rules.run("flush ruleset")
        rules.close()
        index = (1 << 26) + 4097
        with contextlib.closing(netlink.Socket()) as route:
            route.run(
                [
                    netlink.address(index, f"{vip}/32", delete=True),
                    netlink.neighbour(index, "10.0.1.11", "02:42:0a:00:01:0b", delete=True),
                    netlink.forward((1 << 27) + 4097, "02:42:0a:00:01:0b", two.addr, delete=True),
                    netlink.neighbour(index, "10.0.1.77", "02:42:0a:00:01:4d"),
                    netlink.link_delete(index=(1 << 27) + 4096),
                    netlink.rule(mark=1, table=1, priority=100, delete=True),
                ]
            )

    namespaces.inside(one.paths.run / "network" / "fabric", damage)
    fixed = await one.call("repair")
    assert "packet rules of fabric" in fixed and f"add address {vip}/32" in fixed
    assert "link vx4096" in fixed and "delete neighbour 10.0.1.77" in fixed
    assert await one.call("repair") == []
    namespaces.inside(one.paths.run / "network" / "fabric", lambda: _delete((1 << 26) + 4097))
    assert "network br4097" in await one.call("repair")
    assert await one.call("repair") == []
    with echo(two, "web1"), echo(one, "client"):
        assert one.in_task("client", lambda: tcp(vip)) == "web1 10.0.1.10"
        assert lab.in_outside(lambda: tcp(two.addr)) == f"client {OUTSIDE}"


async def test_drift_is_repaired_by_itself(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = lab.machines[0]
    monkeypatch.setenv("REPAIR_INTERVAL", "0.05")
    machine.kill()
    await machine.start()
    net = Net("n1", 4097, "10.0.1.0/24")
    net.member("a", "a", machine, 10)
    await machine.call("apply", tables(net), [], by_id(task("a", net)))
    await machine.call("attach", task("a", net))
    machine.inside(_flush_rules)
    fabric = machine.paths.run / "network" / "fabric"
    namespaces.inside(fabric, lambda: _delete((1 << 26) + 4097))
    await asyncio.to_thread(until, lambda: machine.inside(_host_tables) == "table ip pyswarm_pst\n")
    await asyncio.to_thread(until, lambda: namespaces.inside(fabric, _plugged))


def _plugged() -> bool:
    """Whether every veth but the transit is under a bridge."""
    with contextlib.closing(netlink.Socket()) as route:
        return all(link.master for link in route.links() if link.kind == "veth" and link.name != "up")


def _flush_rules() -> None:
    rules = nft.Nft()
    rules.run("flush ruleset")
    rules.close()


def _delete(index: int) -> None:
    with contextlib.closing(netlink.Socket()) as route:
        route.run([netlink.link_delete(index=index)])


async def test_network_modes_host_and_none(lab: Lab) -> None:
    machine = lab.machines[0]
    host, none = task("host1", network_mode="host"), task("none1", network_mode="none")
    await machine.call("apply", {}, [], by_id(host, none))
    mounts = await machine.call("attach", host)
    assert [mount.target for mount in mounts] == ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"]
    assert f"nameserver {OUTSIDE}" in Path(mounts[2].source).read_text()
    await machine.call("attach", none)
    assert await machine.call("known") == ["none1"]
    assert machine.in_task("none1", _links) == {"lo"}
    await machine.call("detach", "host1")
    await machine.call("detach", "none1")
    assert await machine.call("known") == []


async def test_files_sysctls_and_repeated_attach(lab: Lab) -> None:
    machine = lab.machines[0]
    net = Net("n1", 4097, "10.0.1.0/24")
    net.member("web1", "web", machine, 11)
    web = task("web1", net, hostname="webby", hosts=("192.0.2.7 db.example db", "host-gateway hostbox"))
    await machine.call("apply", tables(net), [], by_id(web))
    mounts = await machine.call("attach", web)
    inode = machine.paths.netns("web1").stat().st_ino
    assert await machine.call("attach", web) == mounts
    assert machine.paths.netns("web1").stat().st_ino == inode
    machine.kill()
    await machine.start()
    await machine.call("apply", tables(net), [], by_id(web))
    assert await machine.call("attach", web) == mounts
    assert machine.paths.netns("web1").stat().st_ino == inode
    hosts, name, resolv = (Path(mount.source).read_text() for mount in mounts)
    assert "10.0.1.11\twebby\n" in hosts and "192.0.2.7\tdb.example db\n" in hosts
    assert "10.0.1.1\thostbox\n" in hosts and name == "webby\n"
    assert resolv == "nameserver 127.0.0.11\noptions ndots:0\n"

    def sysctl(key: str) -> str:
        return machine.in_task(
            "web1", lambda: Path(f"/proc/thread-self/root/proc/sys/net/{key}").read_text().strip()
        )

    assert sysctl("ipv4/ip_unprivileged_port_start") == "0"
    assert sysctl("ipv6/conf/eth0/disable_ipv6") == "1" and sysctl("ipv6/conf/lo/disable_ipv6") == "0"
    machine.in_task("web1", lambda: socket.create_server(("::1", 80), family=socket.AF_INET6).close())


async def test_removal_leaves_nothing(lab: Lab) -> None:
    machine = lab.machines[0]
    net = Net("n1", 4097, "10.0.1.0/24")
    net.member("web1", "web", machine, 11)
    web = task("web1", net)
    before = machine.inside(_links)
    assert "pst-up" in before
    await machine.call("apply", tables(net), [ingress_port(net, 80, ["web1"])], by_id(web))
    await machine.call("attach", web)
    assert machine.inside(_host_tables) == "table ip pyswarm_pst\n"
    mounts = [
        line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(lab.directory) in line
    ]
    await machine.call("stop", remove=True)
    until(lambda: machine.inside(_links) == {"lo", "eth0"})
    assert machine.inside(_host_tables) == ""
    left = [
        line
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if str(machine.paths.run) in line
    ]
    assert mounts and not left
    assert [path.name for path in machine.paths.run.iterdir()] == ["tasks"]
    forwarding = machine.inside(
        lambda: Path("/proc/thread-self/root/proc/sys/net/ipv4/ip_forward").read_text()
    )
    assert forwarding == "0\n"
    await _again(machine, net)


async def test_removal_without_a_start(lab: Lab) -> None:
    """`leave` after the agent died."""
    machine = lab.machines[0]
    await machine.call("apply", {}, [], {})
    await machine.call("attach", task("bare"))
    machine.kill()
    await machine.start(ready=False)
    await machine.call("stop", remove=True)
    until(lambda: machine.inside(_links) == {"lo", "eth0"})
    left = [
        line
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if str(machine.paths.run) in line
    ]
    assert not left


async def _again(machine: Machine, net: Net) -> None:
    """A removed network can be started again."""
    await machine.call("start")
    await machine.call("apply", tables(net), [], {})
    assert "pst-up" in machine.inside(_links)
