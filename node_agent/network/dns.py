"""The resolver at 127.0.0.11 of each task: names of its networks from memory, all others forwarded.

The sockets were opened inside the task's namespace and are served here by the agent's event loop; forwarded
queries leave from the host's namespace, so a resolver on the host's loopback works too. Messages follow
RFC 1035, 2181, 6891 (EDNS) and 7766 (TCP); they are packed by hand, since a query answered from memory has to
cost tens of microseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import secrets
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from node_agent.network import namespaces
from node_agent.network.plan import RESOLVER, Zone, lookup, reverse_lookup

_log = logging.getLogger(__name__)

RESOLVER_PORT = 65053
TTL = 2
"""Seconds. Short, since what a name leads to changes with every task (Swarm's 600 s is a standing complaint)."""
A, PTR, AAAA, OPT, ANY = 1, 12, 28, 41, 255
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = 0, 1, 2, 3, 4, 5
_PLAIN_UDP_LIMIT = 512
_UDP_LIMIT = 1232
"""What we say we take and the most we send over UDP: the size of DNS flag day 2020."""
_UPSTREAM_TIMEOUT = 2.0
"""Seconds for one server; clients themselves give up after 5."""
_MAX_UPSTREAM = 512
"""Forwarded queries at the same time; more are answered SERVFAIL, so that a flood stays cheap."""
_MAX_TCP = 64
"""TCP connections of one task at the same time."""
_TCP_IDLE = 10.0
_BURST = 32
"""Datagrams read per wake-up of one socket, so that one task cannot starve the others."""
_HEADER = struct.Struct("!HHHHHH")


@dataclass(frozen=True, slots=True)
class Query:
    """The parts of a query that an answer needs."""

    id: int
    flags: int
    name: str
    """Lower case, without the final dot."""
    type: int
    question: bytes
    """The question section as it came: its letters' case is kept in the answer."""
    limit: int
    """Largest datagram the client takes."""
    edns: bool


class Malformed(ValueError):
    """Not a query that can be answered. `reply` is the answer to send, or b"" for none."""

    def __init__(self, reply: bytes = b"") -> None:
        super().__init__("malformed DNS query")
        self.reply = reply


def parse(data: bytes) -> Query:
    """Read a query with one question. Raises Malformed."""
    if len(data) < 12:
        raise Malformed
    ident, flags, questions, _answers, _authority, additional = _HEADER.unpack_from(data)
    if flags & 0x8000:
        raise Malformed
    if flags & 0x7800:
        raise Malformed(_error(ident, flags, NOTIMP))
    try:
        if questions != 1:
            raise IndexError
        name, end = _read_name(data, 12)
        kind, _class = struct.unpack_from("!HH", data, end)
        edns, limit = _read_edns(data, end + 4, additional)
    except (IndexError, struct.error):
        raise Malformed(_error(ident, flags, FORMERR)) from None
    return Query(ident, flags, name, kind, data[12 : end + 4], limit, edns)


def _read_name(data: bytes, offset: int) -> tuple[str, int]:
    labels: list[str] = []
    while size := data[offset]:
        if size > 63 or offset + 1 + size >= len(data) or len(labels) > 127:
            raise IndexError
        labels.append(data[offset + 1 : offset + 1 + size].decode("latin-1").lower())
        offset += size + 1
    return ".".join(labels), offset + 1


def _read_edns(data: bytes, offset: int, additional: int) -> tuple[bool, int]:
    """Whether there is an OPT record (it is the first additional one of every known client), and its size."""
    if additional and offset + 11 <= len(data) and data[offset] == 0:
        kind, size = struct.unpack_from("!HH", data, offset + 1)
        if kind == OPT:
            return True, max(_PLAIN_UDP_LIMIT, min(size, _UDP_LIMIT))
    return False, _PLAIN_UDP_LIMIT


def _error(ident: int, flags: int, code: int) -> bytes:
    return _HEADER.pack(ident, 0x8080 | (flags & 0x7900) | code, 0, 0, 0, 0)


def response(query: Query, code: int, records: Sequence[bytes] = (), *, limit: int = 65535) -> bytes:
    """An answer; one that exceeds `limit` is cut to the question with the truncation bit."""
    flags = 0x8480 | (query.flags & 0x0100) | code
    opt = struct.pack("!BHHIH", 0, OPT, _UDP_LIMIT, 0, 0) if query.edns else b""
    body = query.question + b"".join(records) + opt
    count = len(records)
    if len(body) + 12 > limit:
        body, count, flags = query.question + opt, 0, flags | 0x0200
    return _HEADER.pack(query.id, flags, 1, count, 0, int(query.edns)) + body


def address_record(address: str) -> bytes:
    """A or AAAA record that points at the question's name."""
    if ":" in address:
        return struct.pack("!HHHIH", 0xC00C, AAAA, 1, TTL, 16) + socket.inet_pton(socket.AF_INET6, address)
    return struct.pack("!HHHIH", 0xC00C, A, 1, TTL, 4) + socket.inet_aton(address)


def pointer_record(name: str) -> bytes:
    target = encode_name(name)
    return struct.pack("!HHHIH", 0xC00C, PTR, 1, TTL, len(target)) + target


def encode_name(name: str) -> bytes:
    parts = [label.encode("latin-1", "replace")[:63] for label in name.split(".") if label]
    return b"".join(bytes([len(part)]) + part for part in parts) + b"\0"


def reverse_address(name: str) -> str | None:
    """The address that a name under in-addr.arpa or ip6.arpa asks for; None for other names."""
    if name.endswith(".in-addr.arpa"):
        parts = name[: -len(".in-addr.arpa")].split(".")
        text = ".".join(reversed(parts))
    elif name.endswith(".ip6.arpa"):
        nibbles = "".join(reversed(name[: -len(".ip6.arpa")].split(".")))
        text = ":".join(nibbles[start : start + 4] for start in range(0, len(nibbles), 4))
    else:
        return None
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


def answer(query: Query, zones: Sequence[Zone], turn: int, limit: int) -> bytes | None:
    """The answer from the task's networks; None when the name is not theirs and is to be forwarded.

    `turn` rotates the addresses, so that clients that take the first are spread.
    """
    addresses = lookup(zones, query.name)
    if addresses is not None:
        wanted = [a for a in addresses if query.type in ((AAAA, ANY) if ":" in a else (A, ANY))]
        if len(wanted) > 1:
            start = turn % len(wanted)
            wanted = wanted[start:] + wanted[:start]
        return response(query, NOERROR, [address_record(a) for a in wanted], limit=limit)
    if query.type in (PTR, ANY) and (address := reverse_address(query.name)):
        name = reverse_lookup(zones, address)
        if name is not None:
            return response(
                query, NOERROR if name else NXDOMAIN, [pointer_record(name)] if name else [], limit=limit
            )
    return None


@dataclass(slots=True)
class Client:
    """One task's resolver: what it may ask and where its other questions go."""

    task_id: str
    networks: tuple[str, ...] = ()
    """Ids of its networks: their zones are searched in this order."""
    upstream: Sequence[str] = ()
    """Addresses of servers for names outside; () answers SERVFAIL."""
    netns: Path | None = None
    """Namespace that servers of its own are asked from, so that they may be containers on its networks; those
    on a loopback address and the host's own are asked from the host's."""
    udp: socket.socket | None = None
    tcp: socket.socket | None = None
    connections: int = 0
    turn: int = field(default=0)


def open_sockets() -> tuple[socket.socket, socket.socket]:
    """UDP and TCP socket of the resolver in the calling thread's namespace, whose loopback is up: at a port
    that `netlink.resolver_rules` make 127.0.0.11:53, so that port 53 is free for the task.

    (Bound before that, by IP_FREEBIND, the UDP socket would answer from 127.0.0.1 and no stub resolver with a
    connected socket would hear it.)
    """
    opened: list[socket.socket] = []
    try:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            item = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            opened.append(item)
            if kind == socket.SOCK_STREAM:
                item.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            item.bind((RESOLVER, RESOLVER_PORT))
        opened[1].listen(64)
    except BaseException:
        for item in opened:
            item.close()
        raise
    return opened[0], opened[1]


class DnsServer:
    """All tasks' resolvers, on the running event loop."""

    def __init__(self, zones: Mapping[str, Zone], host_upstream: Callable[[], Sequence[str]]) -> None:
        """`zones` by network id is looked into at each query: its owner changes it in place.
        `host_upstream` gives the host's own name servers, for tasks that name none."""
        self._zones = zones
        self._host_upstream = host_upstream
        self._clients: dict[str, Client] = {}
        self._jobs: set[asyncio.Task[None]] = set()
        self._forwarding = 0

    def serve(self, client: Client) -> None:
        """Answer on the client's sockets from now on; they are the server's to close."""
        self.drop(client.task_id)
        self._clients[client.task_id] = client
        loop = asyncio.get_running_loop()
        if client.udp is not None:
            loop.add_reader(client.udp.fileno(), self._on_udp, client)
        if client.tcp is not None:
            loop.add_reader(client.tcp.fileno(), self._on_tcp, client)

    def clients(self) -> Sequence[Client]:
        return list(self._clients.values())

    def client(self, task_id: str) -> Client | None:
        return self._clients.get(task_id)

    def drop(self, task_id: str) -> None:
        """Stop answering the task and close its sockets."""
        client = self._clients.pop(task_id, None)
        if client is None:
            return
        loop = asyncio.get_running_loop()
        for item in (client.udp, client.tcp):
            if item is not None:
                loop.remove_reader(item.fileno())
                item.close()
        client.udp = client.tcp = None

    async def close(self) -> None:
        for task_id in sorted(self._clients):
            self.drop(task_id)
        jobs = list(self._jobs)
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)

    def _spawn(self, job: asyncio.Task[None]) -> None:
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    def _on_udp(self, client: Client) -> None:
        for _ in range(_BURST):
            if client.udp is None:
                return
            try:
                data, sender = client.udp.recvfrom(4096)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as exc:
                _log.debug("task %s: resolver cannot read: %s", client.task_id, exc)
                return
            reply = self._answer(client, data, tcp=False)
            if reply is None:
                self._spawn(asyncio.ensure_future(self._forward_udp(client, data, sender)))
            elif reply:
                _send(client, reply, sender)

    def _answer(self, client: Client, data: bytes, *, tcp: bool) -> bytes | None:
        """The answer from memory, b"" for none at all, None when it is to be forwarded."""
        try:
            query = parse(data)
        except Malformed as exc:
            return exc.reply
        client.turn += 1
        zones = [self._zones[network] for network in client.networks if network in self._zones]
        reply = answer(query, zones, client.turn, 65535 if tcp else query.limit)
        if reply is None and not client.upstream:
            return response(query, SERVFAIL)
        return reply

    async def _forward_udp(self, client: Client, data: bytes, sender: tuple[str, int]) -> None:
        _send(client, await self._forward(client, data, tcp=False), sender)

    async def _forward(self, client: Client, data: bytes, *, tcp: bool) -> bytes:
        """Ask the servers in turn; SERVFAIL when none answers in time."""
        failure = response(parse(data), SERVFAIL)
        if self._forwarding >= _MAX_UPSTREAM:
            return failure
        servers = list(client.upstream)
        if servers == [HOST]:
            servers = list(self._host_upstream())
        self._forwarding += 1
        try:
            for server in servers:
                ask = _ask_tcp if tcp else _ask_udp
                inside = client.netns if servers == list(client.upstream) else None
                with contextlib.suppress(OSError, TimeoutError, EOFError, ValueError):
                    async with asyncio.timeout(_UPSTREAM_TIMEOUT):
                        return await ask(server, data, inside)
        finally:
            self._forwarding -= 1
        return failure

    def _on_tcp(self, client: Client) -> None:
        if client.tcp is None:
            return
        try:
            connection, _ = client.tcp.accept()
        except OSError:
            return
        if client.connections >= _MAX_TCP:
            connection.close()
            return
        connection.setblocking(False)
        client.connections += 1
        self._spawn(asyncio.ensure_future(self._serve_tcp(client, connection)))

    async def _serve_tcp(self, client: Client, connection: socket.socket) -> None:
        writer: asyncio.StreamWriter | None = None
        try:
            reader, writer = await asyncio.open_connection(sock=connection)
            while True:
                async with asyncio.timeout(_TCP_IDLE):
                    size = int.from_bytes(await reader.readexactly(2), "big")
                    data = await reader.readexactly(size)
                reply = self._answer(client, data, tcp=True)
                if reply is None:
                    reply = await self._forward(client, data, tcp=True)
                if not reply:
                    return
                writer.write(len(reply).to_bytes(2, "big") + reply)
                async with asyncio.timeout(_TCP_IDLE):
                    await writer.drain()
        except (OSError, EOFError, TimeoutError):
            return
        finally:
            client.connections -= 1
            if writer is not None:
                writer.close()
            else:
                connection.close()


HOST = "host"
"""In Client.upstream: whatever the host uses at that moment."""


def _send(client: Client, reply: bytes, sender: tuple[str, int]) -> None:
    if client.udp is not None:
        with contextlib.suppress(OSError):
            client.udp.sendto(reply, sender)


def _endpoint(server: str) -> tuple[str, int, int]:
    """(address, port, family) of `1.1.1.1`, `2606::1`, `fe80::1%eth0` or `1.1.1.1:5353`, `[2606::1]:5353`."""
    if server.startswith("["):
        host, _, port = server[1:].partition("]")
        return host, int(port.removeprefix(":") or 53), socket.AF_INET6
    if server.count(":") == 1:
        host, _, port = server.partition(":")
        return host, int(port), socket.AF_INET
    return server, 53, socket.AF_INET6 if ":" in server else socket.AF_INET


async def _connect(server: str, kind: int, netns: Path | None) -> socket.socket:
    """A socket connected to the server, from the namespace (the host's for None and for loopback)."""
    host, port, family = _endpoint(server)

    def make() -> socket.socket:
        return socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)

    if netns is None or host.startswith("127.") or host == "::1":
        item = make()
    else:
        item = await asyncio.to_thread(namespaces.inside, netns, make)
    try:
        await asyncio.get_running_loop().sock_connect(item, (host, port))
    except BaseException:
        item.close()
        raise
    return item


async def _ask_udp(server: str, data: bytes, netns: Path | None) -> bytes:
    """One query from a port of its own and under an id of its own, against forged answers."""
    loop = asyncio.get_running_loop()
    ident = secrets.token_bytes(2)
    with await _connect(server, socket.SOCK_DGRAM, netns) as item:
        await loop.sock_sendall(item, ident + data[2:])
        while True:
            reply = await loop.sock_recv(item, 65535)
            if len(reply) >= 12 and reply[:2] == ident and reply[2] & 0x80:
                return data[:2] + reply[2:]


async def _ask_tcp(server: str, data: bytes, netns: Path | None) -> bytes:
    item = await _connect(server, socket.SOCK_STREAM, netns)
    reader, writer = await asyncio.open_connection(sock=item)
    try:
        writer.write(len(data).to_bytes(2, "big") + data)
        await writer.drain()
        size = int.from_bytes(await reader.readexactly(2), "big")
        return await reader.readexactly(size)
    finally:
        writer.close()
