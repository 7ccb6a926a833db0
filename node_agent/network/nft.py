"""Packet rules: the text of the two tables, and libnftables in this process to load them.

Everything a transaction changes takes effect at once or not at all. libnftables is called through ctypes: a
change costs 0.1 to 1 ms where a forked `nft` takes 16. Its context opens its socket in the namespace of the
thread that makes it, and is used by one thread at a time afterwards.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
import threading
from collections.abc import Generator, Mapping, Sequence

from node_agent.network.plan import TRANSIT, TRANSIT_MARK, Ruleset
from pyswarm.errors import MissingProgram, PyswarmError


class NftError(PyswarmError):
    """nftables refused; the text is its own."""


FABRIC_TABLE = "pyswarm"


def fabric_base(fabric_address: str) -> str:
    """The fabric's table without its changing parts. Everything in it is ours, so it is written whole.

    Invariants: between bridges nothing is forwarded, nor between the tasks of the ingress network; out through
    the transit go only networks that are not internal; in through it come only connections that a published
    port translated. A client outside whose address lies in the very subnet of its target gets the bridge's, or
    it could not be answered.
    """
    return f"""
table ip {FABRIC_TABLE} {{
  map vips {{ type ifname . ipv4_addr : verdict; }}
  map doors {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map peers {{ type ifname . ether_addr : mark; }}
  map arrivals {{ type ipv4_addr : ipv4_addr; }}
  set subnets {{ type ifname . ipv4_addr; flags interval; }}
  set own {{ type ifname . ipv4_addr . ipv4_addr; }}
  set same {{ type ifname . ifname; }}
  set egress {{ type ifname; }}
  set ingress {{ type ifname; }}
  chain mark_connections {{
    type filter hook prerouting priority -150; policy accept;
    iifname "{TRANSIT}" ct state new ct mark set {TRANSIT_MARK}
    iifname @ingress ct state new ct mark set iifname . ether saddr map @peers
    ct direction reply ct mark != 0 meta mark set ct mark
  }}
  chain translate {{
    type nat hook prerouting priority -100; policy accept;
    iifname . ip daddr vmap @vips
    iifname "{TRANSIT}" ip daddr . meta l4proto . th dport vmap @doors
    iifname @ingress ct mark != 0 dnat to ip daddr map @arrivals
  }}
  chain guard {{
    type filter hook input priority 0; policy accept;
    iifname {{ "lo", "{TRANSIT}" }} accept
    fib daddr . iif type != {{ local, broadcast, multicast }} reject with icmp type admin-prohibited
  }}
  chain between {{
    type filter hook forward priority 0; policy drop;
    iifname @ingress oifname @ingress ct state new ct mark 0 drop
    iifname . oifname @same accept
    ct state established,related accept
    iifname @egress oifname "{TRANSIT}" accept
    iifname "{TRANSIT}" ct status dnat accept
    iifname @ingress ct mark != 0 ct status dnat accept
    reject with icmp type admin-prohibited
  }}
  chain hide {{
    type nat hook postrouting priority 100; policy accept;
    ct status dnat oifname . ip saddr . ip daddr @own masquerade
    ct mark != 0 oifname . ip saddr @subnets masquerade
    oifname "{TRANSIT}" ip saddr != {fabric_address} masquerade
  }}
}}
"""


def host_base(table: str, transit: str, host_address: str) -> str:
    """The host's table without its changing parts: `transit` is the host's end of the transit.

    Connections of the host itself get the transit's address (127.0.0.1 could not be answered); all others
    keep theirs. What the fabric sends out gets an address of the host.
    """
    return f"""
table ip {table} {{
  map bound {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
  map ports {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
  chain publish {{
    dnat ip to ip daddr . meta l4proto . th dport map @bound
    dnat ip to meta l4proto . th dport map @ports
  }}
  chain from_outside {{
    type nat hook prerouting priority -100; policy accept;
    fib daddr type local jump publish
  }}
  chain from_here {{
    type nat hook output priority -100; policy accept;
    fib daddr type local jump publish
  }}
  chain guard {{
    type filter hook input priority 0; policy accept;
    iifname "{transit}" ip daddr 127.0.0.0/8 ct state new drop
  }}
  chain between {{
    type filter hook forward priority 0; policy accept;
    oifname "{transit}" ct status dnat accept
    oifname "{transit}" ct state new drop
  }}
  chain hide {{
    type nat hook postrouting priority 100; policy accept;
    oifname "{transit}" fib saddr type local masquerade
    oifname "{transit}" ip saddr {host_address}/24 masquerade
    iifname "{transit}" oifname != "{transit}" masquerade
  }}
}}
"""


def replace(family_table: str, base: str, rules: Ruleset) -> str:
    """Text that replaces the whole table, in one transaction: the base and its changing parts."""
    return f"table {family_table}\ndelete table {family_table}\n{base}\n" + change(
        family_table, Ruleset(), rules
    )


def change(family_table: str, old: Ruleset, new: Ruleset) -> str:
    """Text that turns a table with `old` into one with `new`; "" when they are equal."""
    lines: list[str] = []
    for name in sorted(new.chains):
        if name not in old.chains:
            lines.append(f"add chain {family_table} {name}")
        elif old.chains[name] != new.chains[name]:
            lines.append(f"flush chain {family_table} {name}")
        else:
            continue
        lines += [f"add rule {family_table} {name} {rule}" for rule in new.chains[name]]
    for name in sorted({*old.elements, *new.elements}):
        lines += _change_elements(family_table, name, old.elements.get(name, {}), new.elements.get(name, {}))
    lines += [f"delete chain {family_table} {name}" for name in sorted(old.chains) if name not in new.chains]
    return "\n".join(lines) + "\n" if lines else ""


def _change_elements(
    family_table: str, name: str, old: Mapping[str, str], new: Mapping[str, str]
) -> list[str]:
    lines: list[str] = []
    if gone := [_element(key, value) for key, value in sorted(old.items()) if new.get(key) != value]:
        lines.append(f"delete element {family_table} {name} {{ {', '.join(gone)} }}")
    if added := [_element(key, value) for key, value in sorted(new.items()) if old.get(key) != value]:
        lines.append(f"add element {family_table} {name} {{ {', '.join(added)} }}")
    return lines


def _element(key: str, value: str) -> str:
    return f"{key} : {value}" if value else key


class Nft:
    """libnftables in the namespace of the thread that makes this. Any thread may call; one at a time."""

    def __init__(self) -> None:
        self._library = _load()
        self._lock = threading.Lock()
        context = self._library.nft_ctx_new(0)
        if not context:
            raise NftError("libnftables could not open its netlink socket: is nf_tables in this kernel?")
        self._context: int | None = context
        self._library.nft_ctx_buffer_output(context)
        self._library.nft_ctx_buffer_error(context)
        self._library.nft_ctx_output_set_flags(context, _STATELESS)

    def run(self, text: str) -> str:
        """Load `text`; returns what it prints. Raises NftError, and then nothing was changed."""
        if not text:
            return ""
        with self._lock:
            if self._context is None:
                raise NftError("the packet rules of this node were closed")
            failed = self._library.nft_run_cmd_from_buffer(self._context, text.encode())
            output = self._library.nft_ctx_get_output_buffer(self._context) or b""
            errors = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if failed:
            raise NftError(f"nftables refused: {errors.decode(errors='replace').strip()[:2000]}")
        return output.decode(errors="replace")

    def listing(self, family_table: str) -> Sequence[str]:
        """The table as the kernel has it, in pieces, sorted: the kernel lists elements and chains in the order
        in which they came. Empty when there is none."""
        try:
            text = self.run(f"list table {family_table}")
        except NftError:
            return ()
        return sorted(piece.strip() for piece in re.split(r"[\n,{}]", text) if piece.strip())

    def listing_of_chain(self, family_table: str, chain: str) -> str:
        """One chain; "" when there is none."""
        try:
            return self.run(f"list chain {family_table} {chain}")
        except NftError:
            return ""

    def handles(self, family_table: str, chain: str, text: str) -> Sequence[int]:
        """Handles of the chain's rules that contain `text`."""
        with self._flags(_STATELESS | _HANDLE):
            listing = self.listing_of_chain(family_table, chain)
        return [
            int(line.rpartition("# handle ")[2])
            for line in listing.splitlines()
            if text in line and "# handle " in line
        ]

    @contextlib.contextmanager
    def _flags(self, flags: int) -> Generator[None]:
        self._library.nft_ctx_output_set_flags(self._context, flags)
        try:
            yield
        finally:
            self._library.nft_ctx_output_set_flags(self._context, _STATELESS)

    def delete(self, family_tables: Sequence[str]) -> None:
        """Remove tables, whether they exist or not."""
        for name in family_tables:
            self.run(f"table {name}\ndelete table {name}\n")

    def close(self) -> None:
        with self._lock:
            if self._context is not None:
                self._library.nft_ctx_free(self._context)
                self._context = None


_STATELESS = 1 << 2
_HANDLE = 1 << 3
"""NFT_CTX_OUTPUT_STATELESS and _HANDLE of nftables/libnftables.h."""


def _load() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libnftables.so.1")
    except OSError:
        raise MissingProgram("libnftables.so.1", "libnftables1", "it loads the packet rules") from None
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    for name, result in (
        ("nft_ctx_free", None),
        ("nft_ctx_buffer_output", ctypes.c_int),
        ("nft_ctx_buffer_error", ctypes.c_int),
        ("nft_ctx_get_output_buffer", ctypes.c_char_p),
        ("nft_ctx_get_error_buffer", ctypes.c_char_p),
    ):
        function = getattr(library, name)
        function.restype = result
        function.argtypes = [ctypes.c_void_p]
    library.nft_ctx_output_set_flags.restype = None
    library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    library.nft_run_cmd_from_buffer.restype = ctypes.c_int
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    return library
