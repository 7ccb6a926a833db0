"""rtnetlink and ctnetlink, packed by hand: the few messages that links, addresses, routes, neighbours and
connection tracking need, many to a system call.

Message layouts are those of Linux's `rtnetlink(7)` and `include/uapi/linux/{if_link,rtnetlink,neighbour,
fib_rules,netfilter/nfnetlink_conntrack}.h`. Hand-packed, since a general library spends more time on encoding
one task's messages than the kernel does on all of them. Sockets block: call from worker threads.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pyswarm.errors import PyswarmError

_NETLINK_ROUTE = 0
_NETLINK_NETFILTER = 12
_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11

_NLM_F_REQUEST = 1
_NLM_F_ACK = 4
_NLM_F_DUMP = 0x300
_NLM_F_DUMP_INTR = 0x10
_NLM_F_REPLACE = 0x100
_NLM_F_EXCL = 0x200
_NLM_F_CREATE = 0x400
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLM_F_CAPPED = 0x100

_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK = 16, 17, 18
_RTM_NEWADDR, _RTM_DELADDR, _RTM_GETADDR = 20, 21, 22
_RTM_NEWROUTE, _RTM_DELROUTE = 24, 25
_RTM_NEWNEIGH, _RTM_DELNEIGH, _RTM_GETNEIGH = 28, 29, 30
_RTM_NEWRULE, _RTM_DELRULE, _RTM_GETRULE = 32, 33, 34

_IFF_UP = 1
_NUD_REACHABLE = 0x02
_NUD_NOARP = 0x40
_NUD_PERMANENT = 0x80
_NTF_SELF = 2
_NTF_MASTER = 4
_AF_BRIDGE = 7

_BATCH = 64
"""Messages a send: their acknowledgements have to fit the socket's receive buffer."""

_DUMP_TRIES = 10

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BBHiII")
_ADDR = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_NEIGH = struct.Struct("=BBHiHBB")
_ATTR = struct.Struct("=HH")


class NetlinkError(PyswarmError):
    """The kernel refused a message. `code` is the errno."""

    def __init__(self, code: int, text: str, what: str) -> None:
        self.code = code
        reason = f": {text}" if text else ""
        super().__init__(f"{what}: {os.strerror(code)}{reason}")


class Message(NamedTuple):
    """One request, ready but for its sequence number."""

    type: int
    flags: int
    body: bytes
    what: str = ""
    """For the error message: `add veth`."""
    tolerate: tuple[int, ...] = ()
    """Errnos that mean it is already as wanted."""


def attr(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    size = len(payload) + 4
    return _ATTR.pack(size, kind) + payload + b"\0" * (-size & 3)


def attrs(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """The attributes of a message from `offset` on: (kind without flags, payload)."""
    end = len(data)
    while offset + 4 <= end:
        size, kind = _ATTR.unpack_from(data, offset)
        if size < 4:
            return
        yield kind & 0x3FFF, data[offset + 4 : offset + size]
        offset += (size + 3) & ~3


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def mac_text(data: bytes) -> str:
    return ":".join(f"{byte:02x}" for byte in data)


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _packed(address: str) -> bytes:
    return socket.inet_pton(_family(address), address)


def _u32(value: int) -> bytes:
    return struct.pack("=I", value)


def _name(value: str) -> bytes:
    return value.encode() + b"\0"


# ------------------------------------------------------------------------------------------------ links


def _info(kind: str, data: bytes = b"") -> bytes:
    inner = attr(1, kind.encode())
    if data:
        inner += attr(2, data)
    return attr(18, inner)


def _new_link(
    attributes: bytes,
    *,
    up: bool,
    what: str,
    index: int = 0,
    create: bool = True,
    tolerate: tuple[int, ...] = (),
) -> Message:
    flags = _NLM_F_CREATE | _NLM_F_EXCL if create else 0
    state = _IFF_UP if up else 0
    return Message(_RTM_NEWLINK, flags, _LINK.pack(0, 0, 0, index, state, state) + attributes, what, tolerate)


def bridge(name: str, *, index: int, mac: str, mtu: int) -> Message:
    """A bridge that is up, without STP, forward delay and multicast snooping."""
    data = attr(1, _u32(0)) + attr(5, _u32(0)) + attr(23, b"\0")
    body = attr(3, _name(name)) + attr(1, mac_bytes(mac)) + attr(4, _u32(mtu)) + _info("bridge", data)
    return _new_link(body, up=True, what=f"add bridge {name}", index=index)


def vxlan(
    name: str, *, index: int, vni: int, port: int, local: str, mtu: int, netns: int, mac: str
) -> Message:
    """A VXLAN device whose outer packets travel in the namespace of the socket that sends this message, and
    which itself appears in `netns` (a descriptor): nothing is learned, nothing is flooded."""
    data = attr(1, _u32(vni)) + attr(7, b"\0") + attr(15, struct.pack("!H", port))
    if local:
        data += attr(17 if ":" in local else 4, _packed(local))
    if ":" in local:
        data += attr(19, b"\1") + attr(20, b"\1")
    body = (
        attr(3, _name(name))
        + attr(1, mac_bytes(mac))
        + attr(4, _u32(mtu))
        + attr(28, _u32(netns))
        + _info("vxlan", data)
    )
    return _new_link(body, up=False, what=f"add vxlan {name} (id {vni}, port {port})", index=index)


def enslave(index: int, master: int, *, suppress: bool = False) -> Sequence[Message]:
    """Put a link under a bridge and up; with `suppress` the bridge answers ARP for what lies behind it, and
    neither learns from it nor floods unknown destinations into it."""
    messages = [
        _new_link(attr(10, _u32(master)), up=True, what=f"enslave {index}", index=index, create=False)
    ]
    if suppress:
        port = attr(32, b"\1") + attr(8, b"\0") + attr(9, b"\0") + attr(27, b"\0")
        info = attr(18, attr(4, b"bridge") + attr(5, port))
        messages.append(_new_link(info, up=True, what=f"bridge port {index}", index=index, create=False))
    return messages


def veth(
    name: str,
    peer: str,
    *,
    peer_netns: int,
    mtu: int,
    master: int = 0,
    peer_mac: str = "",
    peer_index: int = 0,
    mac: str = "",
    tolerate: tuple[int, ...] = (),
) -> Message:
    """A pair: this end (up, under `master`) in the socket's namespace, the peer in `peer_netns`, down: the
    kernel refuses to open it (ENOTCONN) before its other end exists."""
    other = _LINK.pack(0, 0, 0, peer_index, 0, 0) + attr(3, _name(peer)) + attr(28, _u32(peer_netns))
    other += attr(4, _u32(mtu)) + _QUEUES
    if peer_mac:
        other += attr(1, mac_bytes(peer_mac))
    body = attr(3, _name(name)) + attr(4, _u32(mtu)) + _QUEUES
    if mac:
        body += attr(1, mac_bytes(mac))
    if master:
        body += attr(10, _u32(master))
    return _new_link(
        body + _info("veth", attr(1, other)), up=True, what=f"add veth {name}", tolerate=tolerate
    )


def hairpin(name: str) -> Message:
    """Let a bridge port get back what came from it: a task that its own VIP leads to itself needs it, since
    br_netfilter bridges translated packets."""
    body = attr(3, _name(name)) + attr(18, attr(4, b"bridge") + attr(5, attr(4, b"\1")))
    return _new_link(body, up=True, what=f"hairpin mode of {name}", create=False)


_QUEUES = attr(31, _u32(1)) + attr(32, _u32(1))


def link_up(index: int) -> Message:
    return _new_link(b"", up=True, what=f"set link {index} up", index=index, create=False)


def link_mtu(index: int, mtu: int) -> Message:
    return _new_link(attr(4, _u32(mtu)), up=True, what=f"set MTU of {index}", index=index, create=False)


def link_mac(index: int, mac: str) -> Message:
    return _new_link(attr(1, mac_bytes(mac)), up=True, what=f"set MAC of {index}", index=index, create=False)


def link_delete(*, index: int = 0, name: str = "") -> Message:
    body = _LINK.pack(0, 0, 0, index, 0, 0) + (attr(3, _name(name)) if name else b"")
    return Message(_RTM_DELLINK, 0, body, f"delete link {name or index}", (19,))


# ------------------------------------------------------------------------------------- addresses, routes


def address(index: int, cidr: str, *, delete: bool = False) -> Message:
    """An address with its prefix (`10.0.1.5/24`) on a link; no duplicate address detection."""
    text, _, prefix = cidr.partition("/")
    packed = _packed(text)
    length = int(prefix) if prefix else len(packed) * 8
    head = _ADDR.pack(_family(text), length, 0x02 if ":" in text else 0, 0, index)
    body = head + attr(2, packed) + attr(1, packed)
    if delete:
        return Message(_RTM_DELADDR, 0, body, f"delete address {cidr}", (99, 19))
    return Message(_RTM_NEWADDR, _NLM_F_CREATE | _NLM_F_REPLACE, body, f"add address {cidr}")


def route(
    destination: str,
    *,
    gateway: str = "",
    index: int = 0,
    table: int = 254,
    onlink: bool = False,
    delete: bool = False,
) -> Message:
    """A route to `destination` (`default`, `::/0` or CIDR)."""
    family = _family(gateway or destination)
    length = 0
    body = b""
    if destination not in ("default", "::/0"):
        net, _, prefix = destination.partition("/")
        packed = _packed(net)
        length = int(prefix) if prefix else len(packed) * 8
        body += attr(1, packed)
    if gateway:
        body += attr(5, _packed(gateway))
    if index:
        body += attr(4, _u32(index))
    body += attr(15, _u32(table))
    scope = 0 if gateway else 253
    head = _ROUTE.pack(family, length, 0, 0, table if table < 256 else 0, 4, scope, 1, 4 if onlink else 0)
    if delete:
        return Message(_RTM_DELROUTE, 0, head + body, f"delete route {destination} table {table}", (3,))
    what = f"add route {destination} via {gateway or index}"
    return Message(_RTM_NEWROUTE, _NLM_F_CREATE | _NLM_F_REPLACE, head + body, what)


def rule(*, table: int, priority: int, mark: int = 0, source: str = "", delete: bool = False) -> Message:
    """A policy rule: packets with the firewall mark, or from the source address, look into `table`."""
    body = attr(6, _u32(priority)) + attr(15, _u32(table))
    family, length = socket.AF_INET, 0
    if mark:
        body += attr(10, _u32(mark))
    if source:
        packed = _packed(source)
        family, length = _family(source), len(packed) * 8
        body += attr(2, packed)
    head = _ROUTE.pack(family, 0, length, 0, table if table < 256 else 0, 0, 0, 1, 0)
    if delete:
        return Message(_RTM_DELRULE, 0, head + body, f"delete rule to table {table}", (2,))
    return Message(
        _RTM_NEWRULE, _NLM_F_CREATE | _NLM_F_EXCL, head + body, f"add rule to table {table}", (17,)
    )


# ------------------------------------------------------------------------------------------- neighbours


def neighbour(index: int, ip: str, mac: str, *, delete: bool = False) -> Message:
    """A permanent ARP or NDP entry."""
    head = _NEIGH.pack(_family(ip), 0, 0, index, _NUD_PERMANENT, 0, 0)
    body = head + attr(1, _packed(ip)) + attr(2, mac_bytes(mac))
    if delete:
        return Message(_RTM_DELNEIGH, 0, body, f"delete neighbour {ip}", (2, 19))
    return Message(_RTM_NEWNEIGH, _NLM_F_CREATE | _NLM_F_REPLACE, body, f"add neighbour {ip}")


def forward(index: int, mac: str, remote: str, *, delete: bool = False) -> Message:
    """MAC address `mac` lies behind the VXLAN endpoint `remote`: told to the device and to its bridge."""
    # The bridge wants NOARP for an entry that is static but not its own, the device REACHABLE or PERMANENT.
    state = _NUD_NOARP | _NUD_REACHABLE
    head = _NEIGH.pack(_AF_BRIDGE, 0, 0, index, state, _NTF_SELF | _NTF_MASTER, 0)
    body = head + attr(2, mac_bytes(mac)) + attr(1, _packed(remote))
    if delete:
        return Message(_RTM_DELNEIGH, 0, body, f"delete forwarding of {mac}", (2, 19))
    return Message(_RTM_NEWNEIGH, _NLM_F_CREATE | _NLM_F_REPLACE, body, f"forward {mac} to {remote}")


# ---------------------------------------------------------------------------------------------- sockets


@dataclass(frozen=True, slots=True)
class Link:
    index: int
    name: str
    mtu: int
    mac: str
    up: bool
    master: int
    kind: str


class Socket:
    """A netlink socket of the namespace it was opened in. Any thread may use it; one request at a time."""

    def __init__(self, protocol: int = _NETLINK_ROUTE) -> None:
        self._lock = threading.Lock()
        self._sequence = 0
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 20, 0))
        self._socket.bind((0, 0))

    def close(self) -> None:
        self._socket.close()

    def run(self, messages: Iterable[Message]) -> None:
        """Have all messages done, in order. The kernel goes on after a refused one; the first refusal that
        its message does not tolerate is raised at the end."""
        todo = list(messages)
        failure: NetlinkError | None = None
        with self._lock:
            for start in range(0, len(todo), _BATCH):
                failure = self._run_batch(todo[start : start + _BATCH]) or failure
        if failure is not None:
            raise failure

    def _run_batch(self, batch: Sequence[Message]) -> NetlinkError | None:
        first = self._sequence + 1
        self._sequence += len(batch)
        parts: list[bytes] = []
        for offset, message in enumerate(batch):
            flags = message.flags | _NLM_F_REQUEST | _NLM_F_ACK
            parts.append(_HEADER.pack(16 + len(message.body), message.type, flags, first + offset, 0))
            parts.append(message.body)
        self._socket.send(b"".join(parts))
        failure: NetlinkError | None = None
        waiting = len(batch)
        while waiting:
            for kind, flags, sequence, body in _messages(self._socket.recv(65536)):
                if kind != _NLMSG_ERROR or not first <= sequence < first + len(batch):
                    continue
                waiting -= 1
                code = -int(struct.unpack_from("=i", body)[0])
                message = batch[sequence - first]
                if code and code not in message.tolerate and failure is None:
                    failure = NetlinkError(code, _ext_ack(flags, body), message.what)
        return failure

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """Everything of one kind: the bodies of the answers. Asked again when it changed meanwhile: the kernel
        then may have left something out."""
        with self._lock:
            answers, torn = self._dump_once(kind, body)
            for _ in range(_DUMP_TRIES):
                if not torn:
                    break
                answers, torn = self._dump_once(kind, body)
            return answers

    def _dump_once(self, kind: int, body: bytes) -> tuple[list[bytes], bool]:
        answers: list[bytes] = []
        torn = False
        self._sequence += 1
        expected = self._sequence
        head = _HEADER.pack(16 + len(body), kind, _NLM_F_REQUEST | _NLM_F_DUMP, expected, 0)
        self._socket.send(head + body)
        while True:
            for answer, flags, sequence, payload in _messages(self._socket.recv(262144)):
                if sequence != expected:
                    continue
                torn = torn or bool(flags & _NLM_F_DUMP_INTR)
                if answer == _NLMSG_DONE:
                    return answers, torn
                if answer == _NLMSG_ERROR:
                    code = -int(struct.unpack_from("=i", payload)[0])
                    raise NetlinkError(code, _ext_ack(flags, payload), f"dump {kind}")
                answers.append(payload)

    def links(self) -> list[Link]:
        """All links of the namespace."""
        return [_link(body) for body in self.dump(_RTM_GETLINK, _LINK.pack(0, 0, 0, 0, 0, 0))]

    def addresses(self) -> list[tuple[int, str]]:
        """(link index, CIDR) of every address of the namespace."""
        found: list[tuple[int, str]] = []
        for body in self.dump(_RTM_GETADDR, _ADDR.pack(0, 0, 0, 0, 0)):
            family, prefix, _flags, _scope, index = _ADDR.unpack_from(body)
            parts = dict(attrs(body, _ADDR.size))
            packed = parts.get(2) or parts.get(1, b"")
            if packed and family in (socket.AF_INET, socket.AF_INET6):
                found.append((index, f"{ipaddress.ip_address(packed)}/{prefix}"))
        return found

    def neighbours(self) -> list[tuple[int, str, str]]:
        """(link index, address, MAC) of the permanent ARP and NDP entries."""
        found: list[tuple[int, str, str]] = []
        for body in self.dump(_RTM_GETNEIGH, _NEIGH.pack(0, 0, 0, 0, 0, 0, 0)):
            _family, _, _, index, state, _flags, _type = _NEIGH.unpack_from(body)
            parts = dict(attrs(body, _NEIGH.size))
            if state & _NUD_PERMANENT and len(parts.get(2, b"")) == 6:
                found.append((index, str(ipaddress.ip_address(parts[1])), mac_text(parts[2])))
        return found

    def forwards(self) -> list[tuple[int, str, str]]:
        """(link index, MAC, VXLAN endpoint) of the forwarding entries of VXLAN devices."""
        found: list[tuple[int, str, str]] = []
        for body in self.dump(_RTM_GETNEIGH, _LINK.pack(_AF_BRIDGE, 0, 0, 0, 0, 0)):
            _family, _, _, index, _state, _flags, _type = _NEIGH.unpack_from(body)
            parts = dict(attrs(body, _NEIGH.size))
            if 1 in parts and 2 in parts:
                found.append((index, mac_text(parts[2]), str(ipaddress.ip_address(parts[1]))))
        return found

    def marks(self) -> list[tuple[int, int]]:
        """(mark, table) of the rules that look at a firewall mark."""
        found: list[tuple[int, int]] = []
        for body in self.dump(_RTM_GETRULE, _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)):
            parts = dict(attrs(body, _ROUTE.size))
            if 10 in parts and 15 in parts:
                found.append((struct.unpack("=I", parts[10])[0], struct.unpack("=I", parts[15])[0]))
        return found


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence, body) of each message in what was received."""
    offset = 0
    while offset + 16 <= len(data):
        size, kind, flags, sequence, _pid = _HEADER.unpack_from(data, offset)
        if size < 16:
            return
        yield kind, flags, sequence, data[offset + 16 : offset + size]
        offset += (size + 3) & ~3


def _ext_ack(flags: int, body: bytes) -> str:
    """The kernel's own words about a refusal, if it has any."""
    if not flags & 0x200:
        return ""
    offset = 20
    if not flags & _NLM_F_CAPPED:
        offset = 4 + ((struct.unpack_from("=I", body, 4)[0] + 3) & ~3)
    for kind, payload in attrs(body, offset):
        if kind == 1:
            return payload.rstrip(b"\0").decode(errors="replace")
    return ""


def _link(body: bytes) -> Link:
    _family, _, _type, index, flags, _change = _LINK.unpack_from(body)
    parts = dict(attrs(body, _LINK.size))
    info = dict(attrs(parts.get(18, b"")))
    return Link(
        index=index,
        name=parts.get(3, b"").rstrip(b"\0").decode(),
        mtu=struct.unpack("=I", parts[4])[0] if 4 in parts else 0,
        mac=mac_text(parts.get(1, b"")),
        up=bool(flags & _IFF_UP),
        master=struct.unpack("=I", parts[10])[0] if 10 in parts else 0,
        kind=info.get(1, b"").rstrip(b"\0").decode(),
    )


# ---------------------------------------------------------------------------------- a task's resolver port

_NFT_TABLE, _NFT_CHAIN, _NFT_RULE = 10 << 8 | 0, 10 << 8 | 3, 10 << 8 | 6
_BATCH_BEGIN, _BATCH_END = 16, 17
_HOOK_OUTPUT = 3
_PROTOCOLS = ((socket.IPPROTO_UDP, 6), (socket.IPPROTO_TCP, 16))
"""Protocol, and where its header has the checksum."""
_SOURCE, _DESTINATION = (12, 0), (16, 2)
"""Offsets of address and port in the network and the transport header."""


def resolver_rules(address: str, port: int) -> tuple[Message, ...]:
    """nftables messages that lead port 53 of a loopback address to `port`, and answers back, without connection
    tracking: so a task's own name server may have port 53 on all addresses.

    Packed by hand (nf_tables.h): the same bytes for each task, and safe in many threads at once, which
    libnftables is not. Queries are changed after, answers before connection tracking looks at them (-200),
    for tasks that use it themselves.
    """
    table = attr(1, b"resolver\0")
    messages = [_nft_message(_NFT_TABLE, table + attr(2, _be32(0)), "resolver table")]
    for chain, priority in ((b"ask\0", 0), (b"answer\0", -300)):
        hook = _nest(4, attr(1, _be32(_HOOK_OUTPUT)) + attr(2, _be32(priority & 0xFFFFFFFF)))
        body = table + attr(3, chain) + hook + attr(7, b"filter\0")
        messages.append(_nft_message(_NFT_CHAIN, body, "resolver chain"))
    for protocol, checksum in _PROTOCOLS:
        for chain, place, old, new in ((b"ask\0", _DESTINATION, 53, port), (b"answer\0", _SOURCE, port, 53)):
            where = socket.inet_aton(address), place, protocol, checksum
            body = table + attr(2, chain) + _nest(4, _rewrite(*where, old, new))
            messages.append(_nft_message(_NFT_RULE, body, "resolver rule"))
    return tuple(messages)


def _rewrite(
    address: bytes, place: tuple[int, int], protocol: int, checksum: int, old: int, new: int
) -> bytes:
    """Expressions: address, protocol and port are these: then the port becomes the new one."""
    load_address = attr(1, _be32(1)) + attr(2, _be32(1)) + attr(3, _be32(place[0])) + attr(4, _be32(4))
    load_port = attr(1, _be32(1)) + attr(2, _be32(2)) + attr(3, _be32(place[1])) + attr(4, _be32(2))
    write_port = attr(5, _be32(1)) + attr(2, _be32(2)) + attr(3, _be32(place[1])) + attr(4, _be32(2))
    write_port += attr(6, _be32(1)) + attr(7, _be32(checksum))
    return (
        _expression(b"payload\0", load_address)
        + _expression(b"cmp\0", _equals(address))
        + _expression(b"meta\0", attr(1, _be32(1)) + attr(2, _be32(16)))
        + _expression(b"cmp\0", _equals(bytes([protocol])))
        + _expression(b"payload\0", load_port)
        + _expression(b"cmp\0", _equals(struct.pack("!H", old)))
        + _expression(b"immediate\0", attr(1, _be32(1)) + _nest(2, attr(1, struct.pack("!H", new))))
        + _expression(b"payload\0", write_port)
    )


def _expression(name: bytes, data: bytes) -> bytes:
    return _nest(1, attr(1, name) + _nest(2, data))


def _equals(value: bytes) -> bytes:
    return attr(1, _be32(1)) + attr(2, _be32(0)) + _nest(3, attr(1, value))


def _nest(kind: int, payload: bytes) -> bytes:
    return attr(kind | 0x8000, payload)


def _be32(value: int) -> bytes:
    return struct.pack("!I", value)


def _nft_message(kind: int, body: bytes, what: str) -> Message:
    return Message(kind, _NLM_F_CREATE, struct.pack("=BBH", socket.AF_INET, 0, 0) + body, f"add {what}")


def transaction(messages: Sequence[Message]) -> None:
    """Have nftables do all of the messages, or none, in the calling thread's namespace."""
    item = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    with item:
        item.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        item.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 20, 0))
        item.bind((0, 0))
        edge = struct.pack("=BB", socket.AF_UNSPEC, 0) + struct.pack("!H", 10)
        parts = [_HEADER.pack(20, _BATCH_BEGIN, _NLM_F_REQUEST, 0, 0) + edge]
        for sequence, message in enumerate(messages, 1):
            flags = message.flags | _NLM_F_REQUEST | _NLM_F_ACK
            parts.append(
                _HEADER.pack(16 + len(message.body), message.type, flags, sequence, 0) + message.body
            )
        parts.append(_HEADER.pack(20, _BATCH_END, _NLM_F_REQUEST, len(messages) + 1, 0) + edge)
        item.send(b"".join(parts))
        waiting = len(messages)
        while waiting:
            for kind, _flags, sequence, body in _messages(item.recv(65536)):
                if kind != _NLMSG_ERROR:
                    continue
                waiting -= 1
                if code := -int(struct.unpack_from("=i", body)[0]):
                    raise NetlinkError(code, "", messages[max(sequence, 1) - 1].what)


# ----------------------------------------------------------------------------------- connection tracking


@dataclass(frozen=True, slots=True)
class Connection:
    """One tracked IPv4 connection."""

    protocol: int
    source: str
    destination: str
    """As the client sent it: a VIP or an address of the node."""
    destination_port: int
    answers_from: str
    """Who really answers: the source of the reply direction."""
    tuple_attr: bytes
    """The original direction as the kernel named it: what a deletion needs."""


class Conntrack:
    """The connection tracking table of the namespace in which this was made."""

    _GET = 1 << 8 | 1
    _DELETE = 1 << 8 | 2

    def __init__(self) -> None:
        self._socket = Socket(_NETLINK_NETFILTER)

    def close(self) -> None:
        self._socket.close()

    def connections(self, protocol: int) -> list[Connection]:
        """The IPv4 connections of this protocol; the kernel filters where it can (5.8 and later)."""
        head = struct.pack("=BBH", socket.AF_INET, 0, 0)
        wanted = attr(0x8001, attr(0x8002, attr(1, bytes([protocol]))))
        flags = attr(0x8019, attr(1, _u32(1 << 3)) + attr(2, _u32(0)))
        try:
            bodies = self._socket.dump(self._GET, head + wanted + flags)
        except NetlinkError:
            bodies = self._socket.dump(self._GET, head)
        found = [_connection(body) for body in bodies]
        return [item for item in found if item is not None and item.protocol == protocol]

    def delete(self, connections: Sequence[Connection]) -> None:
        """Forget these, so that their next packet is looked at as the first of a new connection."""
        head = struct.pack("=BBH", socket.AF_INET, 0, 0)
        self._socket.run(
            Message(self._DELETE, 0, head + c.tuple_attr, "delete tracked connection", (2,))
            for c in connections
        )


def _connection(body: bytes) -> Connection | None:
    parts = dict(attrs(body, 4))
    original, reply = dict(attrs(parts.get(1, b""))), dict(attrs(parts.get(2, b"")))
    address_of, back = dict(attrs(original.get(1, b""))), dict(attrs(reply.get(1, b"")))
    ports = dict(attrs(original.get(2, b"")))
    if 1 not in address_of or 2 not in address_of or 1 not in back or 1 not in ports:
        return None
    return Connection(
        protocol=ports[1][0],
        source=socket.inet_ntoa(address_of[1]),
        destination=socket.inet_ntoa(address_of[2]),
        destination_port=int.from_bytes(ports.get(3, b"\0\0"), "big"),
        answers_from=socket.inet_ntoa(back[1]),
        tuple_attr=attr(0x8001, parts[1]),
    )
