"""What the node's network must look like, as a function of the managers' tables: links, forwarding entries,
packet rules, names, and each task's interfaces and files.

The shape. All of a node's overlay networks live in one namespace of their own, the *fabric*: per network a
bridge, a VXLAN device (its outer packets travel in the host's namespace) and a veth end per local task. One
veth pair, the *transit*, joins fabric and host. So the overlays' subnets never appear in the host's routing
table (they may overlap with its LAN), the host's firewall sees one link, and all packet rules for VIPs and
published ports are written once per node, not once per container: attaching a task costs no rule at all.

- VIP: an address of the bridge, so that the fabric receives what is sent to it; translated to a healthy member.
  Bridged answers pass connection tracking (br_netfilter, switched on for the fabric alone) and are translated
  back, so that members see the client's own address. Without a healthy member the fabric itself answers:
  refused.
- Published port: the host translates to the transit address, the fabric from there to a target. The client's
  address is kept all the way, to targets on other nodes too: packets to those are sent to the other node's
  bridge (`node_mac`), whose fabric remembers by which node a connection came in and returns answers that way.
- Connections that came in through the transit are marked, and their answers leave by it whatever the client's
  address is.

Pure: no clock, no I/O, no chance.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import MappingProxyType

from pyswarm.errors import Invalid, Unavailable
from pyswarm.objects import (
    IngressPort,
    Member,
    Network,
    NetworkAttachment,
    NetworkTable,
    ServiceEntry,
    Task,
)
from pyswarm.specs import ContainerSpec, NetworkAttachmentSpec, PortConfig

TRANSIT = "up"
"""Name of the transit's end in the fabric."""
TRANSIT_MARK = 1
"""Connection mark, and routing table, of what came in through the transit."""
LOCAL_SUBNET = ipaddress.IPv4Network("172.31.240.0/20")
"""Node-local bridge for tasks that ask for no network: egress and host-mode ports, nothing else. It exists in
the fabric alone, so it collides with nothing outside."""
LOCAL_BRIDGE = "local"
LOCAL_INDEX = 1 << 28
RESOLVER = "127.0.0.11"
MTU_OPTION = "com.docker.network.driver.mtu"
_MAX_MAP = 0xFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """This node, as its network sees it."""

    id: str
    addr: str
    """Its VXLAN endpoint."""
    underlay_mtu: int
    host_address: str
    """The host's end of the transit, without prefix; its prefix is /24."""
    fabric_address: str

    def bound_address(self, index: int) -> str:
        """Transit address that stands for the `index`-th address of the host with ports of its own."""
        return str(ipaddress.ip_address(self.fabric_address) + 1 + index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruleset:
    """The changing part of a packet rule table: chains by name, elements of named sets and maps by key."""

    chains: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    elements: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])
    """Set or map -> key -> value ("" in a set)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Another node on the ingress network: how answers to what it let in get back to it."""

    mark: int
    """Connection mark and routing table."""
    gateway: str
    """Stands for the node in the routing table."""
    mac: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPlan:
    """What one network needs on this node."""

    network_id: str
    bridge: str
    vxlan: str
    """"" for a network without VNI: it stays on this node."""
    index: int
    """Of the bridge; the VXLAN device has `vxlan_index`. Chosen by us, so that no message has to ask."""
    vxlan_index: int
    vni: int
    mac: str
    mtu: int
    ipv6: bool
    addresses: frozenset[str] = frozenset()
    """CIDRs on the bridge: gateways, and VIPs as /32."""
    routes: frozenset[str] = frozenset()
    """Subnets without a gateway of ours, reached over the bridge all the same."""
    neighbours: frozenset[tuple[str, str]] = frozenset()
    """(address, MAC) of every member."""
    forwards: frozenset[tuple[str, str]] = frozenset()
    """(MAC, VXLAN endpoint) of what is on other nodes."""
    peers: frozenset[Peer] = frozenset()
    rules: Ruleset = field(default_factory=Ruleset)
    targets: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """VIP -> the addresses that may answer for it: connections to others are stale."""


@lru_cache(maxsize=4096)
def node_key(addr: str) -> int:
    """A number of 32 bits that stands for a node: its IPv4 address, or a digest of its IPv6 one."""
    parsed = ipaddress.ip_address(addr)
    if isinstance(parsed, ipaddress.IPv4Address):
        return int(parsed)
    return 0x0A000000 | int.from_bytes(hashlib.sha256(parsed.packed).digest()[:3], "big")


@lru_cache(maxsize=4096)
def node_mac(addr: str) -> str:
    """MAC of the bridges on the node with this VXLAN endpoint: known everywhere, no exchange needed."""
    return _mac(b"\x02\x43" + node_key(addr).to_bytes(4, "big"))


@lru_cache(maxsize=16384)
def task_mac(address: str) -> str:
    """MAC of an interface from its first address, as Docker derives it: 02:42 and the IPv4 address."""
    parsed = ipaddress.ip_address(address.partition("/")[0])
    if isinstance(parsed, ipaddress.IPv4Address):
        return _mac(b"\x02\x42" + parsed.packed)
    return _mac(b"\x02\x42" + hashlib.sha256(parsed.packed).digest()[:4])


def _mac(data: bytes) -> str:
    return ":".join(f"{byte:02x}" for byte in data)


def transit_addresses(prefix: str, taken: Collection[str] = ()) -> tuple[str, str]:
    """(host, fabric) addresses of the transit: link-local, by the agent's prefix, so that several agents of
    one machine differ; not in a /24 of `taken` (addresses), and never in that of the clouds' metadata
    services. Raises Unavailable when there is none left."""
    first = int.from_bytes(hashlib.sha256(prefix.encode()).digest()[:2], "big")
    used = {address.rpartition(".")[0] for address in taken}
    for step in range(_TRANSIT_SUBNETS):
        base = f"169.254.{1 + (first + step) % _TRANSIT_SUBNETS}"
        if base not in used:
            return f"{base}.1", f"{base}.2"
    raise Unavailable("no link-local subnet (169.254.1.0 to 169.254.160.0) is free for the overlay networks")


_TRANSIT_SUBNETS = 160


def overlay_mtu(network: Network, node: Node) -> int:
    """MTU of a network: its option, or what is left of the underlay's after VXLAN's 50 bytes (70 over IPv6).
    Raises Invalid for an option that is no number."""
    option = network.spec.driver.options.get(MTU_OPTION, "")
    overhead = 70 if ":" in node.addr else 50
    if not option:
        return node.underlay_mtu - overhead
    if not option.isdigit() or not 68 <= int(option) <= 65535:
        raise Invalid(
            f"network {network.spec.name}: option {MTU_OPTION} is {option!r}; give a number from 68 to 65535"
        )
    return int(option)


def encrypted(network: Network) -> bool:
    """Whether the network asks for encryption between nodes (Docker's option: present and not `false`)."""
    return network.spec.driver.options.get("encrypted", "false").lower() not in ("false", "0")


def without_remote(table: NetworkTable, node: Node) -> NetworkTable:
    """The table as if this node were alone."""
    return replace(table, members=tuple(m for m in table.members if m.node_id == node.id), node_addrs=())


def bridge_name(network: Network) -> str:
    return f"br{network.vni}" if network.vni else f"br-{_short(network.id)}"


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@lru_cache(maxsize=16384)
def veth_name(task_id: str, position: int) -> str:
    """Name of the fabric's end of a task's veth."""
    return f"t{hashlib.sha256(task_id.encode()).hexdigest()[:10]}.{position}"


def member_mac(member: Member) -> str:
    return member.mac_address or task_mac(member.address)


def is_v4(address: str) -> bool:
    return ":" not in address


# ---------------------------------------------------------------------------------------------- networks


def plan_network(table: NetworkTable, node: Node, ingress: Sequence[IngressPort] = ()) -> NetworkPlan:
    """What `table` needs on this node; `ingress` only matters for the ingress network."""
    network = table.network
    name = bridge_name(network)
    index = (1 << 26) + network.vni if network.vni else (1 << 29) + int(_short(network.id)[:6], 16)
    members = sorted(table.members, key=lambda member: (member.address, member.task_id))
    targets = _vip_targets(table, members)
    chains, vips = _services(targets, name)
    egress = {} if network.spec.internal else {f'"{name}"': ""}
    local = [m.address for m in members if m.node_id == node.id and is_v4(m.address)]
    own = {f'"{name}" . {address} . {address}': "" for address in local}
    peers = _peers(table, node, ingress) if network.spec.ingress else frozenset[Peer]()
    return NetworkPlan(
        network_id=network.id,
        bridge=name,
        vxlan=f"vx{network.vni}" if network.vni else "",
        index=index,
        vxlan_index=(1 << 27) + network.vni,
        vni=network.vni,
        mac=node_mac(node.addr),
        mtu=overlay_mtu(network, node),
        ipv6=network.spec.enable_ipv6,
        addresses=_bridge_addresses(table),
        routes=frozenset(pool.subnet for pool in network.pools if not pool.gateway and is_v4(pool.subnet)),
        neighbours=_neighbours(table, node, members, ingress),
        forwards=_forwards(table, node, members, peers),
        peers=peers,
        targets=targets,
        rules=Ruleset(
            chains=chains,
            elements={
                "vips": vips,
                "own": own,
                "same": {f'"{name}" . "{name}"': ""},
                "egress": egress,
                "ingress": {f'"{name}"': ""} if network.spec.ingress else {},
                "subnets": {} if network.spec.ingress else _subnets(network, name),
                "peers": {f'"{name}" . {peer.mac}': f"{peer.mark:#x}" for peer in sorted_peers(peers)},
            },
        ),
    )


def _subnets(network: Network, bridge: str) -> dict[str, str]:
    return {
        f'"{bridge}" . {pool.subnet}': "" for pool in network.pools if pool.gateway and is_v4(pool.subnet)
    }


def sorted_peers(peers: Iterable[Peer]) -> list[Peer]:
    return sorted(peers, key=lambda peer: peer.mark)


def local_plan(node: Node) -> NetworkPlan:
    """The node-local bridge of tasks without networks."""
    gateway = str(LOCAL_SUBNET[1])
    return NetworkPlan(
        network_id="",
        bridge=LOCAL_BRIDGE,
        vxlan="",
        index=LOCAL_INDEX,
        vxlan_index=0,
        vni=0,
        mac=node_mac(node.addr),
        mtu=node.underlay_mtu,
        ipv6=False,
        addresses=frozenset({f"{gateway}/{LOCAL_SUBNET.prefixlen}"}),
        rules=Ruleset(
            elements={
                "egress": {f'"{LOCAL_BRIDGE}"': ""},
                "subnets": {f'"{LOCAL_BRIDGE}" . {LOCAL_SUBNET}': ""},
            }
        ),
    )


def _bridge_addresses(table: NetworkTable) -> frozenset[str]:
    found: set[str] = set()
    for pool in table.network.pools:
        if pool.gateway and (is_v4(pool.gateway) or table.network.spec.enable_ipv6):
            found.add(f"{pool.gateway}/{pool.subnet.partition('/')[2]}")
    found.update(f"{entry.vip}/32" for entry in table.services if entry.vip and is_v4(entry.vip))
    return frozenset(found)


def _vip_targets(table: NetworkTable, members: Sequence[Member]) -> dict[str, tuple[str, ...]]:
    backends: dict[str, list[str]] = {}
    for member in members:
        if member.healthy and is_v4(member.address):
            backends.setdefault(member.service_id, []).append(member.address)
    return {
        entry.vip: tuple(backends.get(entry.service_id, ()))
        for entry in sorted(table.services, key=lambda entry: entry.service_id)
        if entry.mode == "vip" and entry.vip and is_v4(entry.vip)
    }


def _services(
    targets: Mapping[str, tuple[str, ...]], bridge: str
) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Chains and VIP elements: a VIP without a healthy member has neither, and the fabric refuses."""
    chains: dict[str, tuple[str, ...]] = {}
    vips: dict[str, str] = {}
    for vip, addresses in targets.items():
        if addresses:
            chain = f"v_{bridge.replace('-', '_')}_{vip}"
            chains[chain] = (f"dnat to {balance(addresses)}",)
            vips[f'"{bridge}" . {vip}'] = f"goto {chain}"
    return chains, vips


def balance(targets: Sequence[str]) -> str:
    """The nftables expression that picks one of the addresses, each as often as the others."""
    if len(targets) == 1:
        return targets[0]
    choices = ", ".join(f"{number} : {target}" for number, target in enumerate(targets[:_MAX_MAP]))
    return f"numgen random mod {min(len(targets), _MAX_MAP)} map {{ {choices} }}"


def _targets(ingress: Sequence[IngressPort]) -> list[tuple[str, str, str]]:
    """(address, node endpoint, MAC) of every ingress target, once each."""
    found = {
        (target.address, target.node_addr, target.mac_address) for port in ingress for target in port.targets
    }
    return sorted(found)


def _peers(table: NetworkTable, node: Node, ingress: Sequence[IngressPort]) -> frozenset[Peer]:
    addrs = {member.node_addr for member in table.members}
    addrs.update(table.node_addrs)
    addrs.update(addr for _, addr, _ in _targets(ingress))
    addrs -= {"", node.addr}
    return frozenset(
        Peer(
            mark=node_key(addr),
            gateway=str(ipaddress.IPv4Address(node_key(addr))),
            mac=node_mac(addr),
        )
        for addr in addrs
    )


def _neighbours(
    table: NetworkTable, node: Node, members: Sequence[Member], ingress: Sequence[IngressPort]
) -> frozenset[tuple[str, str]]:
    """On the ingress network a remote address is reached through its node, elsewhere directly."""
    found: dict[str, str] = {}
    through_nodes = table.network.spec.ingress
    if through_nodes:
        for address, addr, mac in _targets(ingress):
            found[address] = node_mac(addr) if addr != node.addr else mac or task_mac(address)
    for member in members:
        remote = member.node_addr not in ("", node.addr)
        found[member.address] = node_mac(member.node_addr) if through_nodes and remote else member_mac(member)
    v6 = table.network.spec.enable_ipv6
    return frozenset((ip, mac) for ip, mac in found.items() if v6 or is_v4(ip))


def _forwards(
    table: NetworkTable, node: Node, members: Sequence[Member], peers: frozenset[Peer]
) -> frozenset[tuple[str, str]]:
    if not table.network.vni:
        return frozenset()
    remote = [member for member in members if member.node_addr not in ("", node.addr)]
    if not table.network.spec.ingress:
        return frozenset((member_mac(member), member.node_addr) for member in remote)
    addrs = {member.node_addr for member in remote} | set(table.node_addrs)
    by_mac = {node_mac(addr): addr for addr in addrs if addr and addr != node.addr}
    return frozenset(by_mac.items())


# ------------------------------------------------------------------------------------------------- ports


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A host-mode port that is open: `port.published_port` is the port in use."""

    task_id: str
    port: PortConfig
    address: str
    """Of the task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PortPlan:
    """Published ports: the host's and the fabric's rules, and the transit addresses that stand for those
    addresses of the host that have ports of their own."""

    host: Ruleset = field(default_factory=Ruleset)
    fabric: Ruleset = field(default_factory=Ruleset)
    aliases: frozenset[str] = frozenset()
    """More addresses on the fabric's end of the transit."""
    targets: Mapping[tuple[str, str, int], tuple[str, ...]] = field(
        default_factory=dict[tuple[str, str, int], tuple[str, ...]]
    )
    """(transit address, protocol, port) -> the addresses that may answer for it."""


def answer_addresses(tasks: Iterable[Task], tables: Mapping[str, NetworkTable]) -> dict[str, str]:
    """For tasks of this node: address on the ingress network -> address that really gets the connections.

    It is the one on the network that carries the default route. A UDP server on all addresses answers from
    the address that the route to its client begins at: with any other its answers would come from a stranger.
    """
    ingress = {key for key, table in tables.items() if table.network.spec.ingress}
    found: dict[str, str] = {}
    for task in tasks:
        if not any(attachment.network_id in ingress for attachment in task.networks):
            continue
        known = all(attachment.network_id in tables for attachment in task.networks)
        way_out = _way_out(task, tables) if known else None
        if way_out is None:
            continue
        own = _v4_addresses(task.networks[way_out].addresses)
        for attachment in task.networks:
            if own and attachment.network_id in ingress:
                found.update(dict.fromkeys(_v4_addresses(attachment.addresses), own[0]))
    return {address: own for address, own in found.items() if address != own}


def _v4_addresses(cidrs: Iterable[str]) -> list[str]:
    return [cidr.partition("/")[0] for cidr in cidrs if is_v4(cidr)]


def plan_ports(
    ingress: Sequence[IngressPort],
    published: Sequence[Published],
    node: Node,
    answers: Mapping[str, str] = MappingProxyType({}),
) -> PortPlan:
    """Rules for all published ports; `answers` are the `answer_addresses` of this node's tasks. Of two that
    want the same port the first in order wins: ingress before host mode (the allocator and `publish` refuse
    such pairs before)."""
    wanted: dict[tuple[str, str, int], tuple[tuple[str, ...], int]] = {}
    for entry in sorted(ingress, key=lambda entry: (entry.service_id, entry.port.target_port)):
        if entry.port.published_port and _serves(entry.port.host_ip):
            found = {answers.get(t.address, t.address) for t in entry.targets if is_v4(t.address)}
            addresses = tuple(sorted(found))
            wanted.setdefault(_key(entry.port), (addresses, entry.port.target_port))
    for item in sorted(published, key=lambda item: (item.task_id, item.port.target_port)):
        if _serves(item.port.host_ip):
            wanted.setdefault(_key(item.port), ((item.address,), item.port.target_port))
    hosts = sorted({host for host, _, _ in wanted if host})
    alias = {host: node.bound_address(number) for number, host in enumerate(hosts)}
    ports: dict[str, str] = {}
    bound: dict[str, str] = {}
    chains: dict[str, tuple[str, ...]] = {}
    doors: dict[str, str] = {}
    allowed: dict[tuple[str, str, int], tuple[str, ...]] = {}
    for (host, protocol, number), (targets, target_port) in sorted(wanted.items()):
        door = alias.get(host, node.fabric_address)
        if host:
            bound[f"{host} . {protocol} . {number}"] = f"{door} . {number}"
        else:
            ports[f"{protocol} . {number}"] = f"{door} . {number}"
        allowed[door, protocol, number] = targets
        if targets:
            chain = f"p_{door}_{protocol}_{number}"
            chains[chain] = (f"meta l4proto {protocol} dnat to {balance(targets)}:{target_port}",)
            doors[f"{door} . {protocol} . {number}"] = f"goto {chain}"
    return PortPlan(
        host=Ruleset(elements={"ports": ports, "bound": bound}),
        fabric=Ruleset(chains=chains, elements={"doors": doors, "arrivals": dict(answers)}),
        aliases=frozenset(f"{address}/32" for address in alias.values()),
        targets=allowed,
    )


def _serves(host_ip: str) -> bool:
    """Ports are published on IPv4; `::` is every address, and so theirs too."""
    return is_v4(bound_host(host_ip))


def _key(port: PortConfig) -> tuple[str, str, int]:
    return (bound_host(port.host_ip), port.protocol, port.published_port)


def bound_host(host_ip: str) -> str:
    """ "" for every address."""
    return "" if host_ip in ("", "0.0.0.0", "::") else host_ip


def merge(rulesets: Iterable[Ruleset]) -> Ruleset:
    """One table out of the parts of all networks and ports."""
    chains: dict[str, tuple[str, ...]] = {}
    elements: dict[str, dict[str, str]] = {}
    for rules in rulesets:
        chains.update(rules.chains)
        for name, values in rules.elements.items():
            elements.setdefault(name, {}).update(values)
    return Ruleset(chains=chains, elements=elements)


# ------------------------------------------------------------------------------------------------- tasks


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """One veth of a task."""

    name: str
    index: int
    bridge: str
    bridge_index: int
    mac: str
    mtu: int
    addresses: tuple[str, ...]
    gateways: tuple[str, ...] = ()
    """Gateways of default routes through this interface; () when it is not the way out. IPv4 only: the fabric
    routes no IPv6, and without a route programs turn to IPv4 at once."""
    source_gateways: tuple[tuple[str, str], ...] = ()
    """(own address, gateway): what is sent from that address leaves by this interface (ingress answers)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPlan:
    """A task's namespace."""

    interfaces: tuple[Interface, ...] = ()
    ipv6: bool = False
    forwards_dns: bool = True
    """Whether names outside are resolved for it: it is on a network that is not internal."""


def plan_task(
    task: Task, tables: Mapping[str, NetworkTable], plans: Mapping[str, NetworkPlan], local_address: str = ""
) -> TaskPlan:
    """Interfaces in the order of the attachments. The way out is the non-internal network with the highest
    gw_priority, then priority, then the first; the ingress network only when there is no other.

    `local_address` is for a task without networks. Raises Unavailable when a network's table is not here.
    """
    if task.spec.container.network_mode == "none":
        return TaskPlan(forwards_dns=False)
    if not task.networks:
        return _local_task(local_address, plans)
    for attachment in task.networks:
        if attachment.network_id not in tables:
            raise Unavailable(
                f"task {task.id}: the table of network {attachment.network_id} has not arrived on this node yet"
            )
    way_out = _way_out(task, tables)
    taken = {spec.interface_name for spec in task.spec.networks if spec.interface_name}
    names = (name for name in (f"eth{number}" for number in range(1000)) if name not in taken)
    interfaces: list[Interface] = []
    for position, attachment in enumerate(task.networks):
        network = tables[attachment.network_id].network
        interface = replace(
            _interface(
                attachment, network, plans[attachment.network_id], carries_default=position == way_out
            ),
            name=_attachment_spec(task, attachment.network_id).interface_name or next(names),
            index=position + 2,
        )
        interfaces.append(interface)
    return TaskPlan(
        interfaces=tuple(interfaces),
        ipv6=any(tables[attachment.network_id].network.spec.enable_ipv6 for attachment in task.networks),
        forwards_dns=any(not tables[a.network_id].network.spec.internal for a in task.networks),
    )


def _interface(
    attachment: NetworkAttachment, network: Network, plan: NetworkPlan, *, carries_default: bool
) -> Interface:
    """The interface of an attachment, without name and index."""
    gateways = tuple(pool.gateway for pool in network.pools if pool.gateway and is_v4(pool.gateway))
    addresses = tuple(a for a in attachment.addresses if network.spec.enable_ipv6 or is_v4(a))
    source_gateways: tuple[tuple[str, str], ...] = ()
    if network.spec.ingress and gateways:
        source_gateways = tuple((address, gateways[0]) for address in _v4_addresses(addresses))
    return Interface(
        name="",
        index=0,
        bridge=plan.bridge,
        bridge_index=plan.index,
        mac=attachment.mac_address or (task_mac(addresses[0]) if addresses else ""),
        mtu=plan.mtu,
        addresses=addresses,
        gateways=gateways if carries_default else (),
        source_gateways=source_gateways,
    )


def _local_task(address: str, plans: Mapping[str, NetworkPlan]) -> TaskPlan:
    plan = plans[""]
    interface = Interface(
        name="eth0",
        index=2,
        bridge=plan.bridge,
        bridge_index=plan.index,
        mac=task_mac(address),
        mtu=plan.mtu,
        addresses=(f"{address}/{LOCAL_SUBNET.prefixlen}",),
        gateways=(str(LOCAL_SUBNET[1]),),
    )
    return TaskPlan(interfaces=(interface,))


def _attachment_spec(task: Task, network_id: str) -> NetworkAttachmentSpec:
    for spec in task.spec.networks:
        if spec.target == network_id:
            return spec
    return NetworkAttachmentSpec(target=network_id)


def _way_out(task: Task, tables: Mapping[str, NetworkTable]) -> int | None:
    """Position of the attachment that carries the default route."""
    ranked: list[tuple[bool, int, int, int]] = []
    for position, attachment in enumerate(task.networks):
        network = tables[attachment.network_id].network
        if not network.spec.internal and any(p.gateway and is_v4(p.gateway) for p in network.pools):
            spec = _attachment_spec(task, attachment.network_id)
            ranked.append((network.spec.ingress, -spec.gw_priority, -spec.priority, position))
    return min(ranked)[3] if ranked else None


def published_address(task: Task, tables: Mapping[str, NetworkTable], local_address: str) -> str:
    """The task's address that host-mode ports lead to. Raises Invalid when no network of it is reachable."""
    if not task.networks and local_address:
        return local_address
    way_out = _way_out(task, tables)
    if way_out is not None:
        for address in task.networks[way_out].addresses:
            if is_v4(address):
                return address.partition("/")[0]
    raise Invalid(
        f"task {task.id}: a port in host mode needs a network that is not internal; "
        "add one to the service, or publish the port in ingress mode"
    )


def local_address(taken: Iterable[str]) -> str:
    """The lowest free address of the node-local bridge. Raises Unavailable when all are in use."""
    used = set(taken)
    for number in range(2, LOCAL_SUBNET.num_addresses - 1):
        candidate = str(LOCAL_SUBNET[number])
        if candidate not in used:
            return candidate
    raise Unavailable(f"all addresses of the node-local bridge ({LOCAL_SUBNET}) are in use by tasks")


# ------------------------------------------------------------------------------------------------- files


def hostname(task: Task) -> str:
    """The container's host name: the spec's, or the first 12 characters of the task's id."""
    return task.spec.container.hostname or task.id[:12]


def hosts_file(task: Task, plan: TaskPlan) -> str:
    """/etc/hosts in Docker's form: loopback, extra hosts, then this container's own addresses."""
    spec = task.spec.container
    lines = ["127.0.0.1\tlocalhost"]
    lines += ["::1\tlocalhost ip6-localhost ip6-loopback", "fe00::\tip6-localnet", "ff00::\tip6-mcastprefix"]
    lines += ["ff02::1\tip6-allnodes", "ff02::2\tip6-allrouters"]
    lines += extra_hosts(spec, plan)
    name = hostname(task)
    names = f"{name}.{spec.domainname} {name}" if spec.domainname else name
    own = [cidr.partition("/")[0] for interface in plan.interfaces for cidr in interface.addresses]
    lines += [f"{address}\t{names}" for address in own]
    if not own:
        lines.append(f"127.0.1.1\t{names}")
    return "\n".join(lines) + "\n"


def extra_hosts(spec: ContainerSpec, plan: TaskPlan) -> list[str]:
    """The spec's hosts; the address `host-gateway` stands for the way to the host."""
    gateways = [gateway for interface in plan.interfaces for gateway in interface.gateways if is_v4(gateway)]
    lines: list[str] = []
    for entry in spec.hosts:
        address, _, names = entry.partition(" ")
        if address == "host-gateway":
            address = gateways[0] if gateways else "127.0.0.1"
        lines.append(f"{address}\t{' '.join(names.split())}")
    return lines


def resolv_file(spec: ContainerSpec, host: ResolvConf) -> str:
    """/etc/resolv.conf of a container with the resolver in its namespace: search domains and options are the
    spec's, else the host's; `ndots:0` unless said otherwise. The search domain `.` means none."""
    search = [domain for domain in spec.dns_search or host.search if domain != "."]
    options = list(spec.dns_options or host.options)
    if not any(option.startswith("ndots:") for option in options):
        options.append("ndots:0")
    lines = [f"nameserver {RESOLVER}"]
    if search:
        lines.append(f"search {' '.join(search)}")
    lines.append(f"options {' '.join(options)}")
    return "\n".join(lines) + "\n"


def host_resolv_file(spec: ContainerSpec, host: ResolvConf) -> str:
    """/etc/resolv.conf of a container in the host's namespace, or without a network."""
    servers = spec.dns_nameservers or host.nameservers
    search = [domain for domain in spec.dns_search or host.search if domain != "."]
    options = spec.dns_options or host.options
    lines = [f"nameserver {server}" for server in servers]
    if search:
        lines.append(f"search {' '.join(search)}")
    if options:
        lines.append(f"options {' '.join(options)}")
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvConf:
    """What a resolv.conf says (resolv.conf(5)); the last `search` or `domain` wins."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def parse_resolv(text: str) -> ResolvConf:
    """Read a resolv.conf; lines that mean nothing here are skipped, as resolvers do."""
    servers: list[str] = []
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0][0] in "#;":
            continue
        if words[0] == "nameserver":
            servers.append(words[1])
        elif words[0] in ("search", "domain"):
            search = tuple(words[1:])
        elif words[0] == "options":
            options += words[1:]
    return ResolvConf(nameservers=tuple(servers), search=search, options=tuple(options))


# ------------------------------------------------------------------------------------------------- names


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """The names of one network."""

    network: str
    """Its name: `web.NETWORK` is the same as `web`."""
    names: Mapping[str, tuple[str, ...]]
    """Lower-case name -> addresses; () for a name that exists without a healthy member."""
    reverse: Mapping[str, str]
    """Address -> name."""
    subnets: tuple[str, ...] = ()


def zone(table: NetworkTable) -> Zone:
    """Names of a network: services (VIP, or all healthy members), `tasks.NAME`, tasks and host names."""
    names: dict[str, dict[str, None]] = {}
    reverse: dict[str, str] = {}
    healthy: dict[str, list[str]] = {}
    for member in sorted(table.members, key=lambda member: (member.address, member.task_id)):
        if not member.healthy:
            continue
        healthy.setdefault(member.service_id, []).append(member.address)
        for name in member.names:
            names.setdefault(name.lower(), {})[member.address] = None
        if member.names:
            reverse[member.address] = member.names[0]
    for entry in sorted(table.services, key=lambda entry: entry.service_id):
        members = healthy.get(entry.service_id, [])
        front = [entry.vip] if entry.mode == "vip" and entry.vip else members
        for name in _service_names(entry):
            names.setdefault(name, {}).update(dict.fromkeys(front))
            names.setdefault(f"tasks.{name}", {}).update(dict.fromkeys(members))
        if entry.vip and entry.names:
            reverse[entry.vip] = entry.name
    return Zone(
        network=table.network.spec.name.lower(),
        names={name: tuple(addresses) for name, addresses in names.items()},
        reverse=reverse,
        subnets=tuple(pool.subnet for pool in table.network.pools),
    )


def _service_names(entry: ServiceEntry) -> list[str]:
    return list(dict.fromkeys(name.lower() for name in entry.names if name))


def lookup(zones: Sequence[Zone], name: str) -> tuple[str, ...] | None:
    """Addresses of a lower-case name without its final dot: from the first network that has it, in the task's
    order. None when it is no name of these networks."""
    for candidate in zones:
        found = candidate.names.get(name)
        if found is None and candidate.network and name.endswith("." + candidate.network):
            found = candidate.names.get(name[: -len(candidate.network) - 1])
        if found is not None:
            return found
    return None


def reverse_lookup(zones: Sequence[Zone], address: str) -> str | None:
    """`NAME.NETWORK` of an address; "" when it lies in one of the networks and has no name; else None."""
    for candidate in zones:
        if address in candidate.reverse:
            return f"{candidate.reverse[address]}.{candidate.network}".rstrip(".")
    parsed = ipaddress.ip_address(address)
    for candidate in zones:
        if any(parsed in ipaddress.ip_network(subnet) for subnet in candidate.subnets):
            return ""
    return None
