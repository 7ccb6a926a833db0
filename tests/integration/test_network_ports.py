"""Published ports: ingress and host mode, TCP and UDP, from outside, from the machine itself and from tasks."""

from __future__ import annotations

import contextlib
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from pyswarm.errors import Conflict, Invalid
from pyswarm.specs import PortConfig
from tests.integration.network_lab import (
    OUTSIDE,
    Lab,
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


def _ingress(lab: Lab) -> Net:
    addrs = tuple(machine.addr for machine in lab.machines)
    return Net("ingress", 4096, "10.0.0.0/24", ingress=True, node_addrs=addrs)


async def test_ingress_keeps_the_clients_address_on_both_machines(lab: Lab) -> None:
    one, two = lab.machines
    ingress, app = _ingress(lab), Net("app", 4097, "10.0.1.0/24")
    ingress.member("web1", "web", one, 11)
    ingress.member("web2", "web", two, 12)
    app.member("web1", "web", one, 11)
    app.member("web2", "web", two, 12)
    tasks = {name: task(name, app, ingress) for name in ("web1", "web2")}
    ports = [ingress_port(ingress, 8080, ["web1", "web2"])]
    ports += [ingress_port(ingress, 8080, ["web1", "web2"], protocol="udp")]
    for machine, name in ((one, "web1"), (two, "web2")):
        await machine.call("apply", tables(ingress, app), ports, {name: tasks[name]})
        await machine.call("attach", tasks[name])
    with echo(one, "web1"), echo(two, "web2"):
        for machine in (one, two):
            answers = lab.in_outside(lambda addr=machine.addr: [tcp(addr, 8080) for _ in range(40)])
            assert set(Counter(a.split()[0] for a in answers)) == {"web1", "web2"}
            assert {a.split()[1] for a in answers} == {OUTSIDE}
            answers = lab.in_outside(lambda addr=machine.addr: [udp(addr, 8080) for _ in range(40)])
            assert set(Counter(a.split()[0] for a in answers)) == {"web1", "web2"}
            assert {a.split()[1] for a in answers} == {OUTSIDE}
        for address in ("127.0.0.1", one.addr):
            found = one.inside(lambda address=address: {tcp(address, 8080).split()[0] for _ in range(20)})
            assert found == {"web1", "web2"}
            assert one.inside(lambda address=address: udp(address, 8080)).split()[0] in ("web1", "web2")
        from_task = one.in_task("web1", lambda: {tcp(one.addr, 8080).split()[0] for _ in range(20)})
        assert from_task == {"web1", "web2"}
        other = one.in_task("web1", lambda: {tcp(two.addr, 8080).split()[0] for _ in range(20)})
        assert other == {"web1", "web2"}


async def test_a_node_without_a_task_forwards_and_refuses_when_nobody_is_left(lab: Lab) -> None:
    one, two = lab.machines
    ingress = _ingress(lab)
    ingress.member("web1", "web", one, 11)
    web = task("web1", ingress)
    await one.call("apply", tables(ingress), [ingress_port(ingress, 80, ["web1"])], by_id(web))
    await one.call("attach", web)
    await two.call("apply", tables(ingress), [ingress_port(ingress, 80, ["web1"])], {})
    with echo(one, "web1"):
        assert lab.in_outside(lambda: tcp(two.addr)) == f"web1 {OUTSIDE}"
        assert lab.in_outside(lambda: tcp(one.addr)) == f"web1 {OUTSIDE}"
        await two.call("apply", tables(ingress), [ingress_port(ingress, 80, [])], {})
        with pytest.raises(ConnectionRefusedError):
            lab.in_outside(lambda: tcp(two.addr))
        await two.call("apply", {}, [], {})
        with pytest.raises(ConnectionRefusedError):
            lab.in_outside(lambda: tcp(two.addr))


async def test_client_in_the_overlays_own_subnet_is_answered(lab: Lab) -> None:
    """The machine's LAN may use the same addresses as the overlay."""
    machine = lab.machines[0]
    ingress = Net("ingress", 4096, "10.77.0.0/24", ingress=True)
    ingress.member("web1", "web", machine, 200)
    web = task("web1", ingress)
    await machine.call("apply", tables(ingress), [ingress_port(ingress, 80, ["web1"])], by_id(web))
    await machine.call("attach", web)
    with echo(machine, "web1"):
        assert lab.in_outside(lambda: tcp(machine.addr)) == f"web1 {OUTSIDE}"


async def test_client_in_the_applications_subnet_is_answered(lab: Lab) -> None:
    machine = lab.machines[0]
    ingress, app = _ingress(lab), Net("app", 4097, "10.77.0.0/24")
    ingress.member("web1", "web", machine, 11)
    app.member("web1", "web", machine, 200)
    web = task("web1", ingress, app)
    await machine.call("apply", tables(ingress, app), [ingress_port(ingress, 80, ["web1"])], by_id(web))
    await machine.call("attach", web)
    with echo(machine, "web1"):
        assert lab.in_outside(lambda: tcp(machine.addr)) == "web1 10.77.0.1"


async def test_host_ip_is_respected(lab: Lab) -> None:
    machine = lab.machines[0]
    ingress = _ingress(lab)
    ingress.member("web1", "web", machine, 11)
    ingress.member("web2", "web", machine, 12)
    tasks = [task("web1", ingress), task("web2", ingress)]
    ports = [
        ingress_port(ingress, 80, ["web1"], host_ip="127.0.0.1"),
        ingress_port(ingress, 80, ["web2"], host_ip=machine.addr),
    ]
    await machine.call("apply", tables(ingress), ports, by_id(*tasks))
    await machine.call("attach_many", tasks)
    with echo(machine, "web1"), echo(machine, "web2"):
        assert machine.inside(lambda: tcp("127.0.0.1")).split()[0] == "web1"
        assert machine.inside(lambda: tcp(machine.addr)).split()[0] == "web2"
        assert lab.in_outside(lambda: tcp(machine.addr)) == f"web2 {OUTSIDE}"
        await machine.call("apply", tables(ingress), ports[:1], by_id(*tasks))
        with pytest.raises(ConnectionRefusedError):
            lab.in_outside(lambda: tcp(machine.addr))


async def test_ports_that_cannot_be_served_here_disturb_nobody(lab: Lab) -> None:
    """An IPv6 address and another node's address."""
    machine = lab.machines[0]
    ingress = _ingress(lab)
    ingress.member("web1", "web", machine, 11)
    web = task("web1", ingress)
    ports = [
        ingress_port(ingress, 80, ["web1"], host_ip="2001:db8::1"),
        ingress_port(ingress, 81, ["web1"], host_ip="192.0.2.200"),
        ingress_port(ingress, 82, ["web1"], host_ip="::"),
        ingress_port(ingress, 83, ["web1"], host_ip="127.0.0.1"),
        ingress_port(ingress, 83, ["web1"]),
    ]
    await machine.call("apply", tables(ingress), ports, by_id(web))
    await machine.call("attach", web)
    with echo(machine, "web1"):
        for port in (82, 83):
            assert lab.in_outside(lambda port=port: tcp(machine.addr, port)) == f"web1 {OUTSIDE}"
        for port in (80, 81):
            with pytest.raises(ConnectionRefusedError):
                lab.in_outside(lambda port=port: tcp(machine.addr, port))


async def test_udp_client_follows_its_service(lab: Lab) -> None:
    """One socket, that is one connection to connection tracking, while targets come and go."""
    machine = lab.machines[0]
    ingress = _ingress(lab)
    for number in (1, 2):
        ingress.member(f"web{number}", "web", machine, 10 + number)
    tasks = [task("web1", ingress), task("web2", ingress)]
    await machine.call("apply", tables(ingress), [], by_id(*tasks))
    await machine.call("attach_many", tasks)

    def client() -> socket.socket:
        item = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        item.bind(("0.0.0.0", 5555))
        item.settimeout(0.05)
        return item

    def ask(item: socket.socket) -> str:
        item.sendto(b"x", (machine.addr, 53))
        with contextlib.suppress(TimeoutError):
            return item.recv(100).decode()
        return ""

    with echo(machine, "web1"), echo(machine, "web2"), lab.in_outside(client) as item:
        item.sendto(b"x", (machine.addr, 53))  # nobody yet: the host itself tracks it
        for targets, expected in ((["web1"], "web1"), (["web2"], "web2"), ([], ""), (["web1"], "web1")):
            ports = [ingress_port(ingress, 53, targets, protocol="udp")]
            await machine.call("apply", tables(ingress), ports, by_id(*tasks))
            if expected:
                until(lambda item=item, expected=expected: ask(item) == f"{expected} {OUTSIDE}")
            else:
                item.sendto(b"x", (machine.addr, 53))


async def test_host_mode_ports(lab: Lab) -> None:
    machine = lab.machines[0]
    net = Net("app", 4097, "10.0.1.0/24")
    net.member("web1", "web", machine, 11)
    net.member("web2", "web", machine, 12)
    fixed = PortConfig(target_port=80, published_port=8081, publish_mode="host")
    free = PortConfig(target_port=80, publish_mode="host", protocol="udp")
    web1, web2 = task("web1", net, ports=[fixed, free]), task("web2", net, ports=[fixed])
    bare = task("bare", ports=[PortConfig(target_port=80, publish_mode="host")])
    await machine.call("apply", tables(net), [], by_id(web1, web2, bare))
    await machine.call("attach_many", [web1, web2, bare])
    opened = await machine.call("publish", web1)
    assert opened == await machine.call("publish", web1)
    assert opened[0] == fixed and opened[1].published_port > 1023
    (bare_port,) = await machine.call("publish", bare)
    with pytest.raises(Conflict, match=r"8081/tcp .* task web1 of service svc"):
        await machine.call("publish", web2)
    with echo(machine, "web1"), echo(machine, "bare"), echo(machine, "web2"):
        assert lab.in_outside(lambda: tcp(machine.addr, 8081)) == f"web1 {OUTSIDE}"
        assert lab.in_outside(lambda: udp(machine.addr, opened[1].published_port)) == f"web1 {OUTSIDE}"
        assert lab.in_outside(lambda: tcp(machine.addr, bare_port.published_port)) == f"bare {OUTSIDE}"
        assert machine.inside(lambda: tcp("127.0.0.1", 8081)).split()[0] == "web1"
        machine.kill()
        await machine.start()
        assert lab.in_outside(lambda: tcp(machine.addr, 8081)) == f"web1 {OUTSIDE}"
        await machine.call("apply", tables(net), [], by_id(web1, web2, bare))
        assert lab.in_outside(lambda: tcp(machine.addr, 8081)) == f"web1 {OUTSIDE}"
        assert await machine.call("publish", web1) == opened
        await machine.call("detach", "web1")
        assert [port.published_port for port in await machine.call("publish", web2)] == [8081]
        assert lab.in_outside(lambda: tcp(machine.addr, 8081)) == f"web2 {OUTSIDE}"


async def test_an_ingress_port_of_another_program_is_left_to_it(lab: Lab) -> None:
    """The task is told, the program keeps its clients; once it is gone the port is the service's."""
    machine = lab.machines[0]
    ingress, app = _ingress(lab), Net("app", 4097, "10.0.1.0/24")
    ingress.member("web1", "web", machine, 11)
    app.member("web1", "web", machine, 11)
    web1 = task("web1", app, ingress, ports=[PortConfig(target_port=80, published_port=8082)])
    ports = [ingress_port(ingress, 8082, ["web1"])]
    with machine.inside(lambda: socket.create_server(("0.0.0.0", 8082))) as program:
        await machine.call("apply", tables(ingress, app), ports, by_id(web1))
        await machine.call("attach", web1)
        with pytest.raises(Conflict, match=rf"8082/tcp of this node is in use by \S+ \(pid {os.getpid()}\)"):
            await machine.call("publish", web1)
        with lab.in_outside(lambda: socket.create_connection((machine.addr, 8082), 5)):
            program.accept()[0].close()
    await machine.call("publish", web1)
    with echo(machine, "web1"):
        assert lab.in_outside(lambda: tcp(machine.addr, 8082)) == f"web1 {OUTSIDE}"


async def test_host_mode_port_of_another_program_and_without_a_way_in(lab: Lab) -> None:
    machine = lab.machines[0]
    net = Net("hidden", 4097, "10.0.1.0/24", internal=True)
    net.member("web1", "web", machine, 11)
    port = PortConfig(target_port=80, published_port=8081, publish_mode="host")
    web1, bare = task("web1", net, ports=[port]), task("bare", ports=[port])
    await machine.call("apply", tables(net), [], by_id(web1, bare))
    await machine.call("attach_many", [web1, bare])
    with pytest.raises(Invalid, match="not internal"):
        await machine.call("publish", web1)
    with machine.inside(lambda: socket.create_server(("0.0.0.0", 8081))):
        with pytest.raises(Conflict, match=rf"8081/tcp of this node is in use by \S+ \(pid {os.getpid()}\)"):
            await machine.call("publish", bare)
    assert len(await machine.call("publish", bare)) == 1
    with pytest.raises(OSError, match="Address already in use"):
        machine.inside(lambda: socket.create_server(("0.0.0.0", 8081)))
