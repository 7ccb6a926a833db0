"""VIPs: balanced over healthy members, reachable from oneself, refused without members; real namespaces."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from tests.integration.network_lab import Lab, Net, by_id, echo, tables, task, tcp, udp, until

pytestmark = pytest.mark.root


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    lab = Lab()
    try:
        await lab.open()
        yield lab
    finally:
        lab.close()


async def test_vip_is_even_healthy_only_and_keeps_the_client(lab: Lab) -> None:
    machine = lab.machines[0]
    net = Net("n1", 4097, "10.0.1.0/24")
    vip = net.service("web", 2)
    client = net.member("client", "other", machine, 10)
    for number in (11, 12, 13):
        net.member(f"web{number}", "web", machine, number, healthy=number != 13)
    tasks = [task(m.task_id, net) for m in net.members]
    await machine.call("apply", tables(net), (), by_id(*tasks))
    await machine.call("attach_many", tasks)
    with echo(machine, "web11"), echo(machine, "web12"), echo(machine, "web13"):
        answers = machine.in_task("client", lambda: [tcp(vip) for _ in range(200)])
        names = Counter(answer.split()[0] for answer in answers)
        assert set(names) == {"web11", "web12"}
        assert 70 < names["web11"] < 130
        assert {answer.split()[1] for answer in answers} == {client}
        assert machine.in_task("client", lambda: udp(vip)).split()[1] == client
        own = machine.in_task("web11", lambda: Counter(tcp(vip).split()[0] for _ in range(50)))
        assert set(own) == {"web11", "web12"}
        assert machine.in_task("client", lambda: tcp("10.0.1.13")) == f"web13 {client}"
        for name in ("web11", "web12"):
            net.set_health(name, False)
        await machine.call("apply", tables(net), (), by_id(*tasks))
        with pytest.raises(ConnectionRefusedError):
            machine.in_task("client", lambda: tcp(vip))
        with machine.in_task("client", lambda: _udp_socket(vip)) as talking:
            until(lambda: _answer(talking) == "refused")
            net.set_health("web13", True)
            await machine.call("apply", tables(net), (), by_id(*tasks))
            until(lambda: _answer(talking) == f"web13 {client}")
        net.set_health("web13", True)
        await machine.call("apply", tables(net), (), by_id(*tasks))
        assert machine.in_task("client", lambda: tcp(vip)) == f"web13 {client}"
        assert machine.in_task("client", lambda: udp(vip)) == f"web13 {client}"


def _udp_socket(address: str) -> socket.socket:
    item = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    item.settimeout(0.1)
    item.connect((address, 80))
    return item


def _answer(item: socket.socket) -> str:
    """One question on the same connection."""
    try:
        item.send(b"x")
        return item.recv(100).decode()
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError:
        return "silence"
