"""The resolver in real namespaces: names of the task's networks, and forwarding to servers outside."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import AsyncIterator

import dnslib
import pytest

from tests.integration.network_lab import OUTSIDE, Lab, Machine, Net, by_id, tables, task

pytestmark = pytest.mark.root


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    lab = Lab()
    try:
        await lab.open()
        yield lab
    finally:
        lab.close()


class Upstream:
    """A name server outside: A for every name, much text for `big.`, silence for `silent.`."""

    def __init__(self, address: str = "0.0.0.0") -> None:
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind((address, 53))
        self.tcp = socket.create_server((address, 53))
        self.asked: list[str] = []
        self._threads = [threading.Thread(target=f, daemon=True) for f in (self._serve_udp, self._serve_tcp)]
        for thread in self._threads:
            thread.start()

    def answer(self, data: bytes, *, over_tcp: bool) -> bytes:
        request = dnslib.DNSRecord.parse(data)
        name = str(request.q.qname)
        self.asked.append(name)
        reply = request.reply()
        if name.startswith("silent."):
            return b""
        if name.startswith("big."):
            if not over_tcp:
                reply.header.tc = 1
                return bytes(reply.pack())
            for number in range(100):
                reply.add_answer(dnslib.RR(name, rdata=dnslib.A(f"198.51.100.{number}"), ttl=60))
            return bytes(reply.pack())
        reply.add_answer(dnslib.RR(name, rdata=dnslib.A("198.51.100.7"), ttl=60))
        return bytes(reply.pack())

    def _serve_udp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, client = self.udp.recvfrom(4000)
                if not client:
                    return
                if reply := self.answer(data, over_tcp=False):
                    self.udp.sendto(reply, client)

    def _serve_tcp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.tcp.accept()
                with connection:
                    size = struct.unpack("!H", connection.recv(2))[0]
                    reply = self.answer(connection.recv(size), over_tcp=True)
                    connection.sendall(struct.pack("!H", len(reply)) + reply)

    def close(self) -> None:
        for item in (self.udp, self.tcp):
            with contextlib.suppress(OSError):
                item.shutdown(socket.SHUT_RDWR)
            item.close()
        for thread in self._threads:
            thread.join()


def ask(
    machine: Machine, task_id: str, name: str, kind: str = "A", *, tcp: bool = False, timeout: float = 8
) -> dnslib.DNSRecord:
    query = dnslib.DNSRecord.question(name, kind)

    def over_udp() -> bytes:
        """With a connected socket, as libc's resolver does: only the true sender is heard."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as item:
            item.settimeout(timeout)
            item.connect(("127.0.0.11", 53))
            item.send(query.pack())
            return item.recv(4096)

    def over_tcp() -> bytes:
        return query.send("127.0.0.11", 53, tcp=True, timeout=timeout)

    return dnslib.DNSRecord.parse(machine.in_task(task_id, over_tcp if tcp else over_udp))


def found(record: dnslib.DNSRecord) -> list[str]:
    return [str(answer.rdata) for answer in record.rr]


async def test_names_of_the_tasks_networks(lab: Lab) -> None:
    machine = lab.machines[0]
    one, two = Net("one", 4097, "10.0.1.0/24"), Net("two", 4098, "10.0.2.0/24")
    vip = one.service("web", 2, names=("web", "www"))
    one.service("store", 0, mode="dnsrr")
    vip_two = two.service("api", 2)
    one.member("client", "client", machine, 10)
    for number in (11, 12, 13):
        one.member(f"web{number}", "web", machine, number, healthy=number != 13)
        one.member(f"store{number}", "store", machine, number + 10, healthy=number != 13)
    two.member("api1", "api", machine, 11)
    client = task("client", one)
    await machine.call("apply", tables(one, two), (), by_id(client))
    await machine.call("attach", client)

    def names(name: str, kind: str = "A", *, tcp: bool = False) -> list[str]:
        return found(ask(machine, "client", name, kind, tcp=tcp))

    assert names("web") == names("WeB") == names("www") == names("web.one") == [vip]
    assert names("web", tcp=True) == [vip]
    assert sorted(names("tasks.web")) == ["10.0.1.11", "10.0.1.12"]
    assert sorted(names("store")) == sorted(names("tasks.store")) == ["10.0.1.21", "10.0.1.22"]
    assert {names("store")[0] for _ in range(10)} == {"10.0.1.21", "10.0.1.22"}
    assert names("web.web11") == ["10.0.1.11"]
    quiet = ask(machine, "client", "web", "AAAA")
    assert quiet.header.rcode == 0 and not quiet.rr
    assert names("2.1.0.10.in-addr.arpa", "PTR") == ["web.one."]
    assert names("11.1.0.10.in-addr.arpa", "PTR") == ["web.web11.one."]
    assert ask(machine, "client", "99.1.0.10.in-addr.arpa", "PTR").header.rcode == 3
    assert all(answer.ttl <= 5 for answer in ask(machine, "client", "web").rr)
    upstream = lab.in_outside(Upstream)
    lab.on_close(upstream.close)
    assert names("api") == ["198.51.100.7"] != [vip_two], "names of other networks are not known here"
    one.set_health("store11", False)
    await machine.call("apply", tables(one, two), (), by_id(client))
    assert names("store") == ["10.0.1.22"]


async def test_forwarding(lab: Lab) -> None:
    machine = lab.machines[0]
    net, hidden = Net("one", 4097, "10.0.1.0/24"), Net("hidden", 4098, "10.0.2.0/24", internal=True)
    for name in ("client", "own", "dead"):
        net.member(name, name, machine, 10 + len(name))
    hidden.member("inner", "inner", machine, 10)
    tasks = [
        task("client", net),
        task("own", net, dns_nameservers=("10.77.0.200", OUTSIDE)),
        task("dead", net, dns_nameservers=("10.77.0.200",)),
        task("inner", hidden),
        task("bare"),
    ]
    await machine.call("apply", tables(net, hidden), (), by_id(*tasks))
    await machine.call("attach_many", tasks)
    upstream = lab.in_outside(Upstream)
    lab.on_close(upstream.close)
    for task_id in ("client", "bare"):
        assert found(ask(machine, task_id, "example.com")) == ["198.51.100.7"]
    cut = ask(machine, "client", "big.example.com")
    assert cut.header.tc and not cut.rr
    assert len(found(ask(machine, "client", "big.example.com", tcp=True))) == 100
    assert found(ask(machine, "own", "example.com")) == ["198.51.100.7"], "the second server is asked"
    assert ask(machine, "dead", "example.com").header.rcode == 2
    assert ask(machine, "client", "silent.example.com").header.rcode == 2
    before = len(upstream.asked)
    assert ask(machine, "inner", "example.com").header.rcode == 2
    assert len(upstream.asked) == before, "nothing leaves an internal network"
    machine.resolv.write_text("nameserver 10.77.0.200\n")
    assert ask(machine, "client", "example.com").header.rcode == 2, "the host's resolv.conf is read again"
