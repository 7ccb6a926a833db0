"""Making a machine a node: what `pyswarm init` does, and `join` in part.

`init` checks everything before it writes anything; when a later step fails, what was written is taken away
again, so that a second try starts from nothing. The daemons run under systemd where it runs, else under a
supervisor of our own.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyswarm import disk, leaving, nodeconfig, supervisor, tmpfs
from pyswarm.clock import RandomIds, SystemClock
from pyswarm.daemons import (
    last_words,
    start,
    stop,
    systemd_runs,
    wait_for,
)
from pyswarm.errors import Conflict, Fatal, Invalid, Locked, PyswarmError, Unavailable
from pyswarm.nodeconfig import CgroupDriver, NodeConfig, Ports
from pyswarm.specs import ClusterSpec, ExternalCA, NodeSpec

if TYPE_CHECKING:
    from manager.backup import Backup

ANY_ADDRESS = "0.0.0.0"
START_TIMEOUT = 60.0
"""Seconds for the daemons to answer after `init`."""

PROGRAMS: Mapping[str, str] = {
    "etcd": "etcd-server",
    "runc": "runc",
    "conmon": "conmon",
    "buildah": "buildah",
    "catatonit": "catatonit",
    "ip": "iproute2",
    "mount": "mount",
}
"""Programs that a manager node needs, and the Debian packages that have them."""
FILES: Mapping[str, str] = {
    "/usr/share/containers/seccomp.json": "golang-github-containers-common",
}
LIBRARY = ("libnftables.so.1", "libnftables1")


@dataclass(frozen=True, slots=True, kw_only=True)
class InitOptions:
    """`pyswarm init`'s flags."""

    advertise_addr: str = ""
    """IP address or interface, with or without port; "" finds the machine's only one."""
    listen_addr: str = ""
    """IP address, with or without port; "" is 0.0.0.0."""
    data_path_addr: str = ""
    data_path_port: int = 4789
    default_addr_pool: tuple[str, ...] = ("10.0.0.0/8",)
    default_addr_pool_mask_length: int = 24
    force_new_cluster: bool = False
    task_history_limit: int = 5
    cert_expiry: float = 7_776_000.0
    dispatcher_heartbeat: float = 1.0
    autolock: bool = False
    external_cas: tuple[ExternalCA, ...] = ()
    availability: str = "active"
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    state_dir: Path = nodeconfig.STATE_DIR
    run_dir: Path = nodeconfig.RUN_DIR
    ports: Ports = field(default_factory=Ports)
    cgroup_parent: str = "/pyswarm"
    cgroup_driver: CgroupDriver = "auto"
    link_prefix: str = "ps"
    insecure_registries: tuple[str, ...] = ()
    generic_resources: tuple[str, ...] = ()
    log_format: str = "text"
    restore: Path | None = None
    """A backup to start the cluster from; its settings are those of the backup."""
    passphrase: str = field(default="", repr=False)
    """Of an encrypted backup."""


@dataclass(frozen=True, slots=True)
class InitResult:
    node_id: str
    worker_token: str
    manager_token: str
    address: str
    """host:port to join."""
    unlock_key: str = ""
    """With autolock."""


# ---------------------------------------------------------------------------------------------- init


def init(options: InitOptions) -> InitResult:
    """Make this machine the first manager of a new cluster; returns once it is ready for work."""
    check_machine()
    if options.force_new_cluster and (options.state_dir / "node.json").exists():
        return _recover(options)
    _check_unused(options.state_dir)
    disk.check_layers(options.state_dir)
    config = _config(options)
    spec = _cluster_spec(options)
    check_ports(config)
    from manager import bootstrap
    from pyswarm.objects import Cluster

    backup = _backup(options.restore, options.passphrase) if options.restore else None
    created = not options.state_dir.exists()
    try:
        options.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        options.state_dir.chmod(0o700)
        tmpfs.ensure(options.run_dir)
        node = NodeSpec(
            role="manager", availability=_availability(options.availability), labels=options.labels
        )
        if backup is None:
            bootstrap.prepare(config, spec, node, SystemClock(), RandomIds())
        else:
            cluster = next(
                (o for o in backup.objects if isinstance(o, Cluster)), Cluster(id=config.cluster_id)
            )
            port = cluster.spec.data_path_port
            config = replace(config, cluster_id=cluster.id, data_path_port=port)
            bootstrap.prepare_restored(config, backup, node, SystemClock())
        start(config)
        return _wait_ready(config)
    except BaseException:
        undo(config, remove_all=created)
        raise


def _backup(file: Path, passphrase: str) -> Backup:
    from manager import backup

    return backup.load(file, passphrase)


def _recover(options: InitOptions) -> InitResult:
    """Start this manager as the only one of its cluster, from the data it has: more than half of the managers
    are lost for good. Services, nodes and secrets stay as they are; the other managers are out."""
    config = nodeconfig.load(options.state_dir)
    if config.role != "manager":
        raise Conflict("this node is a worker: only a manager has the cluster's data to start it anew from")
    host, _ = split_port(options.advertise_addr)
    if host and address_of(host) != config.advertise_addr:
        raise Invalid(
            f"--advertise-addr {host}: this manager is known as {config.advertise_addr}, which cannot change here"
        )
    stop(config)
    nodeconfig.write_private(config.state / nodeconfig.FORCE_NEW_CLUSTER, b"")
    start(config)
    return _wait_ready(config)


def bring_back(state: Path) -> bool:
    """Start this node's daemons where nothing else does: after a reboot without systemd. True when they were
    not running; returns when they are up, or did not come up in time.
    False when there is nothing to do, or this user may not."""
    try:
        config = nodeconfig.load(state)
    except PyswarmError:
        return False
    locks = ("supervisor", "manager", "agent")
    if (
        os.geteuid() != 0
        or config.service_manager == "systemd"
        or any(supervisor.holder(config.run / f"{name}.lock") for name in locks)
    ):
        return False
    start(config)
    with contextlib.suppress(Unavailable):
        wait_up(config)
    return True


def wait_up(config: NodeConfig) -> None:
    """Until the daemons have begun their work. Raises Unavailable with what their logs say."""
    sign = config.socket if config.role == "manager" else config.run / "agent.lock"
    if not wait_for(sign.exists, START_TIMEOUT):
        raise Unavailable(f"the daemons did not start within {START_TIMEOUT:.0f} s:\n{last_words(config)}")


def undo(config: NodeConfig, *, remove_all: bool) -> None:
    """Take away what a failed `init` or `join` made; with `remove_all` the state directory too, which was not
    there before."""
    with contextlib.suppress(PyswarmError, OSError, subprocess.SubprocessError):
        stop(config)
        leaving.take_down(config, purge=False)
    with contextlib.suppress(PyswarmError, OSError, subprocess.SubprocessError):
        leaving.forget(config, purge=remove_all)


def check_machine() -> None:
    """Raise one error that names all that is missing: root, programs, libraries, kernel parts."""
    if os.geteuid() != 0:
        raise Invalid("this needs root: pyswarm makes namespaces, mounts and containers: try again with sudo")
    missing = {package: name for name, package in PROGRAMS.items() if shutil.which(name) is None}
    missing |= {package: Path(path).name for path, package in FILES.items() if not Path(path).exists()}
    if not _loads(LIBRARY[0]):
        missing[LIBRARY[1]] = LIBRARY[0]
    if missing:
        what = ", ".join(sorted(missing.values()))
        raise Fatal(f"not installed: {what}. Install with: apt-get install {' '.join(sorted(missing))}")


def _loads(library: str) -> bool:
    import ctypes

    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _check_unused(state: Path) -> None:
    if (state / "node.json").exists():
        raise Conflict(
            "this node is already part of a swarm: use `pyswarm leave` to leave it and join another one"
        )


def _availability(text: str) -> Any:  # Any: checked here, a Literal for the spec
    if text not in ("active", "pause", "drain"):
        raise Invalid(f"availability {text!r}: it is one of active, pause, drain")
    return text


def _cluster_spec(options: InitOptions) -> ClusterSpec:
    from manager import validate

    for pool in options.default_addr_pool:
        try:
            network = ipaddress.ip_network(pool)
        except ValueError as error:
            raise Invalid(f"--default-addr-pool {pool}: {error}: write it as 10.20.0.0/16") from None
        if network.prefixlen > options.default_addr_pool_mask_length:
            raise Invalid(
                f"--default-addr-pool {pool} holds no subnet of /{options.default_addr_pool_mask_length}: "
                "use a larger pool or a longer --default-addr-pool-mask-length"
            )
    spec = ClusterSpec(
        labels=options.labels,
        task_history_limit=options.task_history_limit,
        heartbeat_period=options.dispatcher_heartbeat,
        node_cert_expiry=options.cert_expiry,
        default_address_pool=options.default_addr_pool,
        subnet_size=options.default_addr_pool_mask_length,
        data_path_port=options.data_path_port,
        autolock=options.autolock,
        external_cas=options.external_cas,
    )
    validate.cluster(spec)
    return spec


def _config(options: InitOptions) -> NodeConfig:
    ids = RandomIds()
    host, port = split_port(options.advertise_addr)
    advertise = address_of(host) if host else default_address()
    listen, ports = listening(port, options.listen_addr, options.ports)
    data_path = address_of(options.data_path_addr) if options.data_path_addr else advertise
    return NodeConfig(
        node_id=ids.new_id(),
        cluster_id=ids.new_id(),
        role="manager",
        advertise_addr=advertise,
        data_path_addr=data_path,
        data_path_port=options.data_path_port,
        listen_addr=listen,
        ports=ports,
        managers=(f"{advertise}:{ports.api}",),
        state_dir=str(options.state_dir),
        run_dir=str(options.run_dir),
        cgroup_parent=options.cgroup_parent,
        cgroup_driver=options.cgroup_driver,
        link_prefix=options.link_prefix,
        insecure_registries=options.insecure_registries,
        generic_resources=options.generic_resources,
        log_format=options.log_format,
        service_manager="systemd" if systemd_runs() else "supervisor",
    )


# ---------------------------------------------------------------------------------------------- addresses


def listening(advertise_port: int, listen_addr: str, ports: Ports) -> tuple[str, Ports]:
    """The address that a manager is to listen on, and its ports: for joining that of --listen-addr, or else that of
    --advertise-addr, where either names one. Raises Invalid."""
    listen, port = split_port(listen_addr)
    ports = replace(ports, join=port or advertise_port or ports.join)
    numbers = [ports.join, ports.api, ports.etcd_client, ports.etcd_peer]
    if len(set(numbers)) < len(numbers):
        raise Invalid(f"the ports {', '.join(map(str, numbers))} of this manager must differ from each other")
    return ANY_ADDRESS if listen in ("", ANY_ADDRESS) else address_of(listen), ports


def split_port(text: str) -> tuple[str, int]:
    """`10.0.0.1:2377` -> ("10.0.0.1", 2377); the port is 0 where none is said."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, _port(rest.removeprefix(":"), text)
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return host, _port(port, text)
    return text, 0


def _port(port: str, text: str) -> int:
    if not port:
        return 0
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise Invalid(f"address {text!r}: the port must be a number from 1 to 65535")
    return int(port)


def address_of(text: str) -> str:
    """An IPv4 address as it is, or the only one of the interface of that name."""
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(text)
        if address.version != 4:
            raise Invalid(f"{text}: nodes reach each other over IPv4 alone: name an IPv4 address")
        if address.is_unspecified or address.is_multicast:
            raise Invalid(f"{text} is not an address that others could reach: name one of this machine")
        return str(address)
    found = interface_addresses().get(text)
    if not found:
        raise Invalid(f"{text!r} is neither an IP address nor an interface of this machine that has one")
    if len(found) > 1:
        raise Invalid(f"interface {text} has several addresses ({', '.join(found)}): name one of them")
    return found[0]


def interface_addresses() -> dict[str, list[str]]:
    """Global IPv4 addresses by interface, from `ip -j`; bridges and tunnels of container engines left out."""
    result = subprocess.run(
        ["ip", "-j", "-4", "addr", "show", "up"], capture_output=True, text=True, check=True
    )
    found: dict[str, list[str]] = {}
    for link in json.loads(result.stdout or "[]"):
        if "LOOPBACK" in link["flags"] or link["ifname"].startswith(
            ("docker", "br-", "veth", "cni", "virbr")
        ):
            continue
        addresses = [a["local"] for a in link["addr_info"] if a["scope"] == "global"]
        if addresses:
            found[link["ifname"]] = addresses
    return found


def address_towards(host: str, port: int) -> str:
    """The address that this machine shows to a peer: the one that the route to it starts from. Raises
    Unavailable when there is no route, or no such host."""
    try:
        family, kind, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(target)
            return str(probe.getsockname()[0])
    except OSError as error:
        raise Unavailable(
            f"cannot reach {host}:{port}: {error.strerror}: is the address right, and is there a route to it?"
        ) from None


def default_address() -> str:
    """The machine's only address. Raises Invalid when there are several, as Swarm does; a machine with none
    gets the loopback address, so that a single node works offline."""
    found = [
        address
        for addresses in interface_addresses().values()
        for address in addresses
        if not ipaddress.ip_address(address).is_link_local
    ]
    if len(found) > 1:
        raise Invalid(
            f"could not choose an IP address to advertise since this system has multiple addresses "
            f"({', '.join(found)}): specify one with --advertise-addr"
        )
    return found[0] if found else "127.0.0.1"


def check_ports(config: NodeConfig) -> None:
    """That a manager's ports are free. Raises Conflict, or Invalid for an address that is not this machine's."""
    ports = config.ports
    taken = [
        port for port in (ports.join, ports.api, ports.etcd_client, ports.etcd_peer) if _taken(config, port)
    ]
    if taken:
        raise Conflict(
            f"port {', '.join(map(str, taken))} is in use by another program: see `ss -ltnp`, stop it, or choose "
            "other ports (--listen-addr for joining, --api-port, --etcd-client-port, --etcd-peer-port)"
        )


def _taken(config: NodeConfig, port: int) -> bool:
    for address in dict.fromkeys((config.listen_addr, "127.0.0.1")):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL:
                    raise Invalid(f"{address} is not an address of this machine (--listen-addr)") from None
                return True
    return False


def _wait_ready(config: NodeConfig) -> InitResult:
    import asyncio

    return asyncio.run(_ready(config))


async def _ready(config: NodeConfig) -> InitResult:
    import asyncio

    from pyswarm.client import Client
    from pyswarm.objects import Node, NodeState

    deadline = time.monotonic() + START_TIMEOUT
    reason = "it does not answer"
    while time.monotonic() < deadline:
        try:
            async with Client.local(config.socket, timeout=5.0) as client:
                node = await client.get(Node, "self")
                if node.status.state == NodeState.READY:
                    tokens = await client.join_tokens()
                    key = await client.unlock_key()
                    return InitResult(config.node_id, tokens.worker, tokens.manager, tokens.addresses[0], key)
                reason = "its agent has not registered"
        except Locked:
            raise
        except PyswarmError as error:
            reason = str(error)
        await asyncio.sleep(0.05)
    raise Unavailable(f"the node was not ready within {START_TIMEOUT:.0f} s: {reason}\n{last_words(config)}")
