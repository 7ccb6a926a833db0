"""The kernel's side of the node's networks: makes links, entries and packet rules agree with plans.

Blocking; called from worker threads. `change` and `repair` run one at a time (a lock), attaching tasks runs
beside them. The namespace of the overlay networks survives the agent: the next one opens it again, reads what
is there and goes on from it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from node_agent.network import dns, namespaces, netlink, nft
from node_agent.network.plan import (
    RESOLVER,
    TRANSIT,
    TRANSIT_MARK,
    Interface,
    NetworkPlan,
    Node,
    Peer,
    PortPlan,
    Ruleset,
    TaskPlan,
    local_plan,
    merge,
    sorted_peers,
    transit_addresses,
    veth_name,
)
from pyswarm.errors import Conflict, Fatal, Invalid, PyswarmError

_log = logging.getLogger(__name__)

_RULE_PRIORITY = 100
_SOURCE_TABLE = 1000
_TRANSIT_INDEX = 2
_UDP = socket.IPPROTO_UDP
_FAMILY_TABLE = f"ip {nft.FABRIC_TABLE}"
_MAX_PREFIX = 11

_FABRIC_SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
    "net/ipv4/conf/all/accept_redirects": "0",
    "net/ipv4/conf/default/accept_redirects": "0",
    "net/ipv4/conf/all/arp_ignore": "1",
    "net/ipv4/conf/all/arp_announce": "2",
    "net/bridge/bridge-nf-call-iptables": "1",
    "net/bridge/bridge-nf-call-ip6tables": "0",
    "net/bridge/bridge-nf-call-arptables": "0",
}
_TASK_SYSCTLS = {
    "net/ipv4/ip_unprivileged_port_start": "0",
    "net/ipv4/ping_group_range": "0 2147483647",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "2",
}
_FIREWALLS = (("ip filter", "FORWARD", "policy drop"), ("inet firewalld", "filter_FORWARD", "reject"))
"""Others' chains that may stop forwarded packets, and how to tell that they do."""
_RESOLVER_RULES = netlink.resolver_rules(RESOLVER, dns.RESOLVER_PORT)
_NO_IPV6 = {"net/ipv6/conf/default/disable_ipv6": "1"}
"""For links that are made later: the loopback keeps ::1."""


NOTHING = NetworkPlan(
    network_id="", bridge="", vxlan="", index=0, vxlan_index=0, vni=0, mac="", mtu=0, ipv6=False
)


@dataclass(slots=True)
class State:
    """What the kernel was last told."""

    networks: Mapping[str, NetworkPlan] = field(default_factory=dict[str, NetworkPlan])
    ports: PortPlan = field(default_factory=PortPlan)


@dataclass(frozen=True, slots=True)
class Sockets:
    """A task's resolver sockets."""

    udp: socket.socket
    tcp: socket.socket

    def close(self) -> None:
        self.udp.close()
        self.tcp.close()


class _Inside:
    """What is held open in the fabric's namespace. Made by a thread that is in it."""

    def __init__(self) -> None:
        self.route = netlink.Socket()
        self.nft = nft.Nft()
        self.conntrack = netlink.Conntrack()
        self.descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        self.route.close()
        self.nft.close()
        self.conntrack.close()
        os.close(self.descriptor)


class Fabric:
    """All links and rules of one agent. `prefix` tells agents of one machine apart."""

    def __init__(self, directory: Path, *, node_id: str, addr: str, port: int, prefix: str) -> None:
        if not prefix.isalnum() or len(prefix) > _MAX_PREFIX:
            raise Invalid(f"network prefix {prefix!r}: letters and digits only, at most {_MAX_PREFIX}")
        try:
            ipaddress.ip_address(addr)
        except ValueError:
            raise Invalid(f"data path address {addr!r}: give this node's IP address for VXLAN") from None
        self._directory = directory
        self._path = directory / "fabric"
        self._old_forwarding = directory / "ip_forward"
        self._transit = f"{prefix}-{TRANSIT}"
        self._host_table = f"ip pyswarm_{prefix}"
        self._port = port
        self._prefix = prefix
        self.node = Node(id=node_id, addr=addr, underlay_mtu=1500, host_address="", fabric_address="")
        self._local = NOTHING
        self._lock = threading.Lock()
        self._stale_targets: _Targets = {}
        self._stale_ports: set[int] = set()
        self._listing: tuple[Sequence[str], Sequence[str]] | None = None
        """Both tables as the kernel lists them, where that is known to be as last written."""
        self._state: State | None = None
        """None until the first `change`."""
        self._exact = False
        """Whether the kernel is known to be as `_state` says: not after a takeover, or a change that failed
        half-way. The next one then goes by what it reads from the kernel."""
        self._in: _Inside | None = None
        self._host_route: netlink.Socket | None = None
        self._host_nft: nft.Nft | None = None
        self._host_conntrack: netlink.Conntrack | None = None

    # ------------------------------------------------------------------------------------ opening, closing

    def open(self) -> None:
        """Take over the fabric of a former agent or make it. Raises Fatal for what the kernel lacks."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._host_route = netlink.Socket()
        self._host_nft = nft.Nft()
        self._host_conntrack = netlink.Conntrack()
        self.node = self._look_at_host()
        self._local = local_plan(self.node)
        _load_bridge_filter()
        fresh = not namespaces.held(self._path)
        enter = namespaces.create if fresh else namespaces.inside
        self._in = enter(self._path, _open_inside)
        self._prepare_transit()
        self._forward_on_host()
        if fresh:
            self._write_tables(State())
            self._make_network(self._local)

    def close(self) -> None:
        """Let go of everything open, once what is under way has ended; the kernel's state stays."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        for item in (self._in, self._host_route, self._host_nft, self._host_conntrack):
            if item is not None:
                item.close()
        self._in = self._host_route = self._host_nft = self._host_conntrack = None
        self._state, self._exact = None, False

    def remove(self) -> None:
        """Remove every link, rule and namespace of the fabric, and the host's former forwarding comes back.
        What a former agent left goes too, without `open` before."""
        if self._in is None:
            self.open()
        with self._lock:
            self._remove_links()
            self._nft_host.delete([self._host_table])
            self._leave_firewall()
            self._restore_forwarding()
            self._close()
            namespaces.drop(self._path)
            with contextlib.suppress(OSError):
                self._directory.rmdir()

    def _remove_links(self) -> None:
        links = self._inside.route.links()
        doomed = sorted(link.index for link in links if link.kind in ("vxlan", "bridge"))
        self._inside.route.run(netlink.link_delete(index=index) for index in doomed)
        self._route_host.run([netlink.link_delete(name=self._transit)])

    @property
    def _inside(self) -> _Inside:
        if self._in is None:
            raise Fatal("the node's network was used before it was started, or after it was stopped")
        return self._in

    @property
    def _route_host(self) -> netlink.Socket:
        if self._host_route is None:
            raise Fatal("the node's network was used before it was started, or after it was stopped")
        return self._host_route

    @property
    def _nft_host(self) -> nft.Nft:
        if self._host_nft is None:
            raise Fatal("the node's network was used before it was started, or after it was stopped")
        return self._host_nft

    def _look_at_host(self) -> Node:
        """This node with the MTU of the link that carries its VXLAN endpoint (1500 when none does, or it is the
        loopback), and free addresses for the transit (those it has, if it is there already)."""
        links = {link.index: link for link in self._route_host.links()}
        mtu, own, taken = 1500, "", list[str]()
        for index, cidr in self._route_host.addresses():
            address, name = cidr.partition("/")[0], links[index].name if index in links else ""
            if name == self._transit and address.startswith("169.254."):
                own = address
            else:
                taken.append(address)
            if address == self.node.addr and name not in ("", "lo"):
                mtu = links[index].mtu
        host, fabric = transit_addresses(self._prefix, taken)
        if own.endswith(".1"):
            host, fabric = own, own[:-1] + "2"
        return replace(self.node, underlay_mtu=mtu, host_address=host, fabric_address=fabric)

    def _prepare_transit(self) -> None:
        """The link between host and fabric, with its addresses, routes and rules: idempotent."""
        outside = {link.name: link for link in self._route_host.links()}
        inner = {link.name for link in self._inside.route.links()}
        if (self._transit in outside) != (TRANSIT in inner):
            self._route_host.run([netlink.link_delete(name=self._transit)])
            self._inside.route.run([netlink.link_delete(name=TRANSIT)])
            outside.pop(self._transit, None)
        if self._transit not in outside:
            pair = netlink.veth(
                self._transit,
                TRANSIT,
                peer_netns=self._inside.descriptor,
                peer_index=_TRANSIT_INDEX,
                mtu=self.node.underlay_mtu,
            )
            self._route_host.run([pair])
            outside = {link.name: link for link in self._route_host.links()}
        host = self.node.host_address
        index = outside[self._transit].index
        self._route_host.run([netlink.link_up(index), netlink.address(index, f"{host}/24")])
        namespaces.write_sysctls({f"net/ipv4/conf/{self._transit}/route_localnet": "1"})
        self._pass_firewall()
        self._inside.route.run(
            [
                netlink.link_up(1),
                netlink.link_up(_TRANSIT_INDEX),
                netlink.address(_TRANSIT_INDEX, f"{self.node.fabric_address}/24"),
                netlink.route("default", gateway=host, index=_TRANSIT_INDEX),
                netlink.route("default", gateway=host, index=_TRANSIT_INDEX, table=TRANSIT_MARK),
                netlink.rule(mark=TRANSIT_MARK, table=TRANSIT_MARK, priority=_RULE_PRIORITY),
            ]
        )

    def _pass_firewall(self) -> None:
        """Let the transit's packets through where iptables' FORWARD chain drops by policy, as Docker and ufw make
        it do, or firewalld refuses: a packet has to pass every table, ours cannot accept it for another."""
        for family_table, chain, sign in _FIREWALLS:
            listing = self._nft_host.listing_of_chain(family_table, chain)
            if sign in listing and f'"{self._transit}"' not in listing:
                rules = [
                    f'insert rule {family_table} {chain} {side} "{self._transit}" accept'
                    for side in ("iifname", "oifname")
                ]
                try:
                    self._nft_host.run("\n".join(rules))
                except nft.NftError as exc:
                    _log.warning("published ports and ways out may be cut by %s: %s", family_table, exc)

    def _leave_firewall(self) -> None:
        for family_table, chain, _ in _FIREWALLS:
            for handle in self._nft_host.handles(family_table, chain, f'"{self._transit}" accept'):
                self._nft_host.run(f"delete rule {family_table} {chain} handle {handle}")

    def _forward_on_host(self) -> None:
        """Turn on forwarding, and remember what it was before the first agent."""
        current = Path("/proc/sys/net/ipv4/ip_forward")
        if not self._old_forwarding.exists():
            self._old_forwarding.write_text(current.read_text())
        if current.read_text().strip() != "1":
            current.write_text("1")

    def _restore_forwarding(self) -> None:
        """Bring the former value back, unless another agent of this machine goes on."""
        try:
            before = self._old_forwarding.read_text()
        except FileNotFoundError:
            return
        if "table ip pyswarm_" not in self._nft_host.run("list tables ip"):
            Path("/proc/sys/net/ipv4/ip_forward").write_text(before)
        self._old_forwarding.unlink()

    # ------------------------------------------------------------------------------------ networks, ports

    def change(
        self, networks: Mapping[str, NetworkPlan], ports: PortPlan, plugs: Mapping[str, int]
    ) -> Mapping[str, str]:
        """Make the kernel agree with these complete plans; only differences are touched. `plugs` are the veth
        ends that tasks have, with the index of their bridge: looked at when the kernel has to be read.

        Returns the networks that could not be made or changed, with the reason; the next change tries again.
        """
        with self._lock:
            before, exact = self._state or State(), self._exact
            self._exact, self._listing = False, None
            wanted = State(networks={"": self._local, **networks}, ports=ports)
            if exact:
                failed = self._advance(before, wanted)
            else:
                failed = self._reconcile(wanted, plugs)[1]
                self._write_tables(wanted)
            self._state = wanted
            self._exact = not failed
            self._note_stale(before, wanted)
            return failed

    def _advance(self, old: State, new: State) -> Mapping[str, str]:
        failed: dict[str, str] = {}
        for network_id in sorted(new.networks):
            before, after = old.networks.get(network_id), new.networks[network_id]
            try:
                if before is None:
                    self._make_network(after)
                elif before is not after:
                    self._inside.route.run(_network_changes(before, after))
            except PyswarmError as exc:
                failed[network_id] = str(exc)
        if old.ports is not new.ports:
            self._inside.route.run(_alias_changes(old.ports.aliases, new.ports.aliases))
        self._inside.nft.run(_rule_changes(old, new))
        self._nft_host.run(nft.change(self._host_table, old.ports.host, new.ports.host))
        for network_id in sorted(old.networks):
            if network_id not in new.networks:
                self._remove_network(old.networks[network_id])
        return failed

    def _make_network(self, plan: NetworkPlan) -> None:
        """A network from nothing; when it cannot be made, nothing of it is left."""
        self._inside.route.run([netlink.bridge(plan.bridge, index=plan.index, mac=plan.mac, mtu=plan.mtu)])
        try:
            if plan.ipv6:
                key = f"net/ipv6/conf/{plan.bridge}/disable_ipv6"
                namespaces.inside(self._path, lambda: namespaces.write_sysctls({key: "0"}))
            if plan.vxlan:
                self._make_vxlan(plan)
            self._inside.route.run(_network_changes(_bare(plan), plan))
        except PyswarmError:
            self._remove_network(plan)
            raise

    def _make_vxlan(self, plan: NetworkPlan) -> None:
        message = netlink.vxlan(
            plan.vxlan,
            index=plan.vxlan_index,
            vni=plan.vni,
            port=self._port,
            local=self.node.addr,
            mtu=plan.mtu,
            netns=self._inside.descriptor,
            mac=plan.mac,
        )
        try:
            self._route_host.run([message])
        except netlink.NetlinkError as exc:
            raise Conflict(
                f"{exc}; another program or agent on this machine may use this id on UDP port {self._port}: "
                "give one of them another data path port"
            ) from exc
        self._inside.route.run(netlink.enslave(plan.vxlan_index, plan.index, suppress=True))

    def _remove_network(self, plan: NetworkPlan) -> None:
        messages = [netlink.link_delete(index=plan.index)]
        if plan.vxlan:
            messages.append(netlink.link_delete(index=plan.vxlan_index))
        messages += [_peer_rule(peer, delete=True) for peer in sorted_peers(plan.peers)]
        self._inside.route.run(messages)

    def _write_tables(self, state: State) -> None:
        """Both tables from nothing, each in one transaction: connections notice nothing."""
        base = nft.fabric_base(self.node.fabric_address)
        rules = _rules(state) if state.networks else merge([self._local.rules])
        self._inside.nft.run(nft.replace(_FAMILY_TABLE, base, rules))
        base = nft.host_base(self._host_table.removeprefix("ip "), self._transit, self.node.host_address)
        self._nft_host.run(nft.replace(self._host_table, base, state.ports.host))

    # ------------------------------------------------------------------------------------------- repair

    def repair(self, plugs: Mapping[str, int]) -> Sequence[str]:
        """Read what the kernel holds, correct what is not as it was last told; returns what was corrected."""
        with self._lock:
            if self._state is None:
                return ()
            found, failed = self._reconcile(self._state, plugs)
            self._exact = not failed
            fixed = [*found, *(f"network {key} cannot be made: {why}" for key, why in failed.items())]
            before = self._list_tables()
            if self._listing is None or before != self._listing:
                self._write_tables(self._state)
                self._listing = self._list_tables()
                changed = zip(("fabric", "host"), before, self._listing, strict=True)
                fixed += [f"packet rules of {name}" for name, was, now in changed if was != now]
            return fixed

    def _list_tables(self) -> tuple[Sequence[str], Sequence[str]]:
        return self._inside.nft.listing(_FAMILY_TABLE), self._nft_host.listing(self._host_table)

    def _reconcile(self, wanted: State, plugs: Mapping[str, int]) -> tuple[Sequence[str], Mapping[str, str]]:
        """Links, addresses and entries as in `wanted`, by reading the kernel's own: what was corrected, and
        the networks that could not be made, with the reason."""
        self._prepare_transit()
        route = self._inside.route
        links = {link.index: link for link in route.links()}
        plans = wanted.networks.values()
        ours = {plan.index for plan in plans} | {plan.vxlan_index for plan in plans if plan.vxlan}
        strangers = [
            i for i, link in sorted(links.items()) if link.kind in ("bridge", "vxlan") and i not in ours
        ]
        route.run(netlink.link_delete(index=index) for index in strangers)
        fixed = [f"link {links[index].name}" for index in strangers]
        failed: dict[str, str] = {}
        actual = _read(route)
        for network_id, plan in sorted(wanted.networks.items()):
            try:
                fixed += self._reconcile_network(plan, links, actual)
            except PyswarmError as exc:
                failed[network_id] = str(exc)
        fixed += self._reconcile_plugs(plugs)
        aliases = [
            cidr for index, cidr in actual.addresses if index == _TRANSIT_INDEX and cidr.endswith("/32")
        ]
        route.run(_alias_changes(frozenset(aliases), wanted.ports.aliases))
        return fixed, failed

    def _reconcile_plugs(self, plugs: Mapping[str, int]) -> Sequence[str]:
        """Tasks' veth ends back under their bridges: a bridge that was made anew has lost them."""
        links = self._inside.route.links()
        bridges = {link.index for link in links if link.kind == "bridge"}
        fixed: list[str] = []
        for link in links:
            bridge = plugs.get(link.name, 0)
            if bridge in bridges and link.master != bridge:
                self._inside.route.run([*netlink.enslave(link.index, bridge), netlink.hairpin(link.name)])
                fixed.append(f"link {link.name}")
        return fixed

    def _reconcile_network(
        self, plan: NetworkPlan, links: Mapping[int, netlink.Link], actual: _Actual
    ) -> Sequence[str]:
        """One network; a VXLAN device of another endpoint (its MAC tells) is made anew."""
        route = self._inside.route
        vxlan = links.get(plan.vxlan_index) if plan.vxlan else None
        if vxlan is not None and (vxlan.mac != plan.mac or plan.index not in links):
            route.run([netlink.link_delete(index=vxlan.index)])
            vxlan = None
        if plan.index not in links:
            self._make_network(plan)
            return [f"network {plan.bridge}"]
        fixed: list[str] = []
        found = actual.plan(plan)
        if links[plan.index].mac != plan.mac or not links[plan.index].up:
            # The kernel forgets a link's neighbours when its MAC changes.
            found = replace(found, neighbours=frozenset(), peers=frozenset())
            route.run([netlink.link_mac(plan.index, plan.mac)])
            fixed.append(f"link {plan.bridge}")
        if plan.vxlan and vxlan is None:
            self._make_vxlan(plan)
            found = replace(found, forwards=frozenset())
            fixed.append(f"link {plan.vxlan}")
        elif vxlan is not None and (vxlan.master != plan.index or not vxlan.up):
            route.run(netlink.enslave(plan.vxlan_index, plan.index, suppress=True))
            fixed.append(f"link {plan.vxlan}")
        messages = _network_changes(found, plan)
        route.run(messages)
        return fixed + [message.what for message in messages if not message.what.startswith("add route")]

    # ---------------------------------------------------------------------------------- stale connections

    def _note_stale(self, old: State, new: State) -> None:
        """Remember whose UDP connections may lead to targets that are no more (or to none, from the time when
        there was no target): their clients would go on talking to nobody."""
        self._stale_targets.update(_changed_targets(old, new))
        before, after = _host_ports(old.ports), _host_ports(new.ports)
        self._stale_ports.update(
            port for port in before.keys() | after.keys() if before.get(port) != after.get(port)
        )

    @property
    def has_stale(self) -> bool:
        return bool(self._stale_targets or self._stale_ports)

    def flush(self) -> None:
        """Forget the stale UDP connections. Costs the kernel a walk through its whole table (9 ms for 262,144
        buckets), so this is not part of `change`: callers let some changes come together."""
        with self._lock:
            if self._in is None:
                return
            targets, self._stale_targets = self._stale_targets, {}
            ports, self._stale_ports = self._stale_ports, set()
            if targets:
                found = self._inside.conntrack.connections(_UDP)
                self._inside.conntrack.delete([c for c in found if _is_stale(targets, c)])
            if ports and self._host_conntrack is not None:
                found = self._host_conntrack.connections(_UDP)
                self._host_conntrack.delete([c for c in found if c.destination_port in ports])

    # -------------------------------------------------------------------------------------------- tasks

    def attach(self, task_id: str, path: Path, plan: TaskPlan) -> Sockets:
        """Make the task's namespace with all that is in it. Nothing is left behind by a failure."""
        if namespaces.held(path):
            sockets = self._resume(task_id, path, plan)
            if sockets is not None:
                return sockets
            namespaces.drop(path)
        return namespaces.create(path, lambda: self._furnish(task_id, plan))

    def _furnish(self, task_id: str, plan: TaskPlan) -> Sockets:
        """In the new namespace: sysctls, resolver sockets, links, addresses and routes."""
        namespaces.write_sysctls(_TASK_SYSCTLS if plan.ipv6 else _TASK_SYSCTLS | _NO_IPV6)
        netlink.transaction(_RESOLVER_RULES)
        with contextlib.closing(netlink.Socket()) as inner:
            self._plug(task_id, plan)
            inner.run(_task_messages(plan))  # last: addresses mean that the namespace is complete
        return Sockets(*dns.open_sockets())

    def _plug(self, task_id: str, plan: TaskPlan) -> None:
        """One veth per interface, from the fabric into the calling thread's namespace."""
        if not plan.interfaces:
            return
        descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            pairs = [
                message
                for position, interface in enumerate(plan.interfaces)
                for message in _task_veth(task_id, position, interface, descriptor)
            ]
            try:
                self._inside.route.run(pairs)
            except netlink.NetlinkError as exc:
                if exc.code != 17:
                    raise
                names = [veth_name(task_id, position) for position in range(len(plan.interfaces))]
                self._inside.route.run(netlink.link_delete(name=name) for name in names)
                self._inside.route.run(pairs)
        finally:
            os.close(descriptor)

    def _resume(self, task_id: str, path: Path, plan: TaskPlan) -> Sockets | None:
        """The sockets of a namespace that an attach before this one finished; None when it did not."""

        def look() -> Sockets | None:
            with contextlib.closing(netlink.Socket()) as inner:
                there = {cidr for _, cidr in inner.addresses()}
            if not all(a in there for interface in plan.interfaces for a in interface.addresses):
                return None
            return Sockets(*dns.open_sockets())

        return namespaces.inside(path, look)

    def adopt(self, path: Path) -> Sockets:
        """The resolver's sockets of a running task that a former agent attached."""
        return namespaces.inside(path, lambda: Sockets(*dns.open_sockets()))


def _load_bridge_filter() -> None:
    """Load the one kernel module that nothing else would load on its own; if it cannot be, the sysctl that is
    written next says so."""
    if not Path("/proc/sys/net/bridge").exists():
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(["modprobe", "br_netfilter"], capture_output=True, timeout=20, check=False)


def _open_inside() -> _Inside:
    namespaces.write_sysctls(_FABRIC_SYSCTLS | _NO_IPV6)
    liberal = Path("/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal")
    if liberal.exists():
        liberal.write_text("1")
    return _Inside()


def _rules(state: State) -> Ruleset:
    networks = [state.networks[network_id].rules for network_id in sorted(state.networks)]
    return merge([*networks, state.ports.fabric])


def _bare(plan: NetworkPlan) -> NetworkPlan:
    """The plan with its links alone."""
    nothing = frozenset[tuple[str, str]]()
    return replace(
        plan,
        addresses=frozenset(),
        routes=frozenset(),
        neighbours=nothing,
        forwards=nothing,
        peers=frozenset(),
    )


def _rule_changes(old: State, new: State) -> str:
    """By network, since one has no chain or element in common with another."""
    nothing = Ruleset()
    parts: list[str] = []
    for network_id in sorted({*old.networks, *new.networks}):
        before, after = old.networks.get(network_id), new.networks.get(network_id)
        if before is not after:
            was, now = before.rules if before else nothing, after.rules if after else nothing
            parts.append(nft.change(_FAMILY_TABLE, was, now))
    if old.ports is not new.ports:
        parts.append(nft.change(_FAMILY_TABLE, old.ports.fabric, new.ports.fabric))
    return "".join(parts)


def _network_changes(old: NetworkPlan, new: NetworkPlan) -> list[netlink.Message]:
    """Messages that turn a network's entries from `old` into `new`: additions first."""
    index = new.index
    messages = [netlink.address(index, cidr) for cidr in _by_prefix(new.addresses - old.addresses)]
    if old.mtu != new.mtu:
        messages += [
            netlink.link_mtu(i, new.mtu) for i in ((index, new.vxlan_index) if new.vxlan else (index,))
        ]
    messages += [netlink.route(subnet, index=index) for subnet in sorted(new.routes - old.routes)]
    gone_forwards = {mac for mac, _ in old.forwards - new.forwards} - {mac for mac, _ in new.forwards}
    old_remote = dict(old.forwards)
    for mac in sorted(gone_forwards):
        messages.append(netlink.forward(new.vxlan_index, mac, old_remote[mac], delete=True))
    for mac, remote in sorted(new.forwards - old.forwards):
        if mac in old_remote:
            messages.append(netlink.forward(new.vxlan_index, mac, old_remote[mac], delete=True))
        messages.append(netlink.forward(new.vxlan_index, mac, remote))
    kept = {ip for ip, _ in new.neighbours}
    gone = sorted((ip, mac) for ip, mac in old.neighbours - new.neighbours if ip not in kept)
    messages += [netlink.neighbour(index, ip, mac, delete=True) for ip, mac in gone]
    messages += [netlink.neighbour(index, ip, mac) for ip, mac in sorted(new.neighbours - old.neighbours)]
    for peer in sorted_peers(old.peers - new.peers):
        messages.append(_peer_rule(peer, delete=True))
        messages.append(netlink.neighbour(index, peer.gateway, peer.mac, delete=True))
    for peer in sorted_peers(new.peers - old.peers):
        messages.append(netlink.neighbour(index, peer.gateway, peer.mac))
        messages.append(
            netlink.route("default", gateway=peer.gateway, index=index, table=peer.mark, onlink=True)
        )
        messages.append(_peer_rule(peer))
    messages += [netlink.address(index, cidr, delete=True) for cidr in sorted(old.addresses - new.addresses)]
    return messages


def _by_prefix(cidrs: frozenset[str]) -> list[str]:
    """Gateways before VIPs: the first address is the one that the bridge itself speaks with."""
    return sorted(cidrs, key=lambda cidr: (int(cidr.partition("/")[2]), cidr))


def _peer_rule(peer: Peer, *, delete: bool = False) -> netlink.Message:
    return netlink.rule(mark=peer.mark, table=peer.mark, priority=_RULE_PRIORITY, delete=delete)


def _alias_changes(old: frozenset[str], new: frozenset[str]) -> list[netlink.Message]:
    added = [netlink.address(_TRANSIT_INDEX, cidr) for cidr in sorted(new - old)]
    return added + [netlink.address(_TRANSIT_INDEX, cidr, delete=True) for cidr in sorted(old - new)]


def _task_veth(task_id: str, position: int, interface: Interface, descriptor: int) -> list[netlink.Message]:
    name = veth_name(task_id, position)
    pair = netlink.veth(
        name,
        interface.name,
        peer_netns=descriptor,
        peer_mac=interface.mac,
        peer_index=interface.index,
        mtu=interface.mtu,
        master=interface.bridge_index,
    )
    return [pair, netlink.hairpin(name)]


def _task_messages(plan: TaskPlan) -> list[netlink.Message]:
    """Everything inside a task's namespace, but the links themselves."""
    messages = [netlink.link_up(1)]
    for interface in plan.interfaces:
        messages.append(netlink.link_up(interface.index))
        messages += [netlink.address(interface.index, cidr) for cidr in interface.addresses]
    for interface in plan.interfaces:
        for gateway in interface.gateways:
            destination = "::/0" if ":" in gateway else "default"
            messages.append(netlink.route(destination, gateway=gateway, index=interface.index))
        for address, gateway in interface.source_gateways:
            table = _SOURCE_TABLE + interface.index
            messages.append(netlink.route("default", gateway=gateway, index=interface.index, table=table))
            messages.append(netlink.rule(source=address, table=table, priority=_RULE_PRIORITY))
    return messages


@dataclass(frozen=True, slots=True)
class _Actual:
    """What the kernel holds, as dumped."""

    addresses: Sequence[tuple[int, str]]
    neighbours: Sequence[tuple[int, str, str]]
    forwards: Sequence[tuple[int, str, str]]
    marks: Sequence[tuple[int, int]]
    mtus: Mapping[int, int]

    def plan(self, wanted: NetworkPlan) -> NetworkPlan:
        """`wanted` with the entries that are really there. Routes cannot be told: they are set again."""
        present = {mark for mark, table in self.marks if mark == table}
        entries = {(ip, mac) for index, ip, mac in self.neighbours if index == wanted.index}
        peers = frozenset(
            peer for peer in wanted.peers if peer.mark in present and (peer.gateway, peer.mac) in entries
        )
        gateways = {peer.gateway for peer in wanted.peers}
        return replace(
            wanted,
            mtu=self.mtus.get(wanted.index, wanted.mtu),
            addresses=frozenset(cidr for i, cidr in self.addresses if i == wanted.index and _assigned(cidr)),
            routes=frozenset(),
            neighbours=frozenset((ip, mac) for ip, mac in entries if ip not in gateways),
            forwards=frozenset((mac, to) for i, mac, to in self.forwards if i == wanted.vxlan_index),
            peers=peers,
        )


def _assigned(cidr: str) -> bool:
    """Not the link-local address that IPv6 gives itself."""
    return not cidr.startswith("fe80:")


def _read(route: netlink.Socket) -> _Actual:
    return _Actual(
        addresses=route.addresses(),
        neighbours=route.neighbours(),
        forwards=route.forwards(),
        marks=route.marks(),
        mtus={link.index: link.mtu for link in route.links()},
    )


_Targets = dict[tuple[str, int], frozenset[str]]
"""(address, port, or 0 for every port) -> who may answer."""


def _changed_targets(old: State, new: State) -> _Targets:
    found: _Targets = {}
    for network_id in sorted({*old.networks, *new.networks}):
        before, after = old.networks.get(network_id), new.networks.get(network_id)
        if before is after:
            continue
        was, now = before.targets if before else {}, after.targets if after else {}
        for vip in sorted({*was, *now}):
            if was.get(vip) != now.get(vip):
                found[vip, 0] = frozenset(now.get(vip, ()))
    if old.ports is not new.ports:
        for key in sorted({*old.ports.targets, *new.ports.targets}):
            if key[1] == "udp" and old.ports.targets.get(key) != new.ports.targets.get(key):
                found[key[0], key[2]] = frozenset(new.ports.targets.get(key, ()))
    return found


def _is_stale(targets: _Targets, connection: netlink.Connection) -> bool:
    """Whether it goes to one of the changed addresses and is answered by none of those that may."""
    for key in ((connection.destination, connection.destination_port), (connection.destination, 0)):
        if key in targets:
            return connection.answers_from not in targets[key]
    return False


def _host_ports(ports: PortPlan) -> dict[int, str]:
    """UDP ports that are published on the host, and all that they lead to."""
    found: dict[int, str] = {}
    for name in ("bound", "ports"):
        for key, value in sorted(ports.host.elements.get(name, {}).items()):
            words = key.split(" . ")
            if words[-2] == "udp":
                found[int(words[-1])] = found.get(int(words[-1]), "") + f"{key}:{value};"
    return found
