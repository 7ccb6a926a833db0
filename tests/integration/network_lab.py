"""Machines for the network tests: network namespaces on one switch, an agent's process in each, and sockets
opened inside any of them. Everything lies under one directory and goes with `Lab.close`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from node_agent.network import namespaces, netlink
from node_agent.network.plan import task_mac
from node_agent.ports import Paths
from pyswarm.objects import (
    AllocatedPool,
    IngressPort,
    IngressTarget,
    Member,
    Network,
    NetworkAttachment,
    NetworkTable,
    ServiceEntry,
    Task,
)
from pyswarm.specs import (
    ContainerSpec,
    EndpointSpec,
    NetworkAttachmentSpec,
    NetworkSpec,
    PortConfig,
    TaskSpec,
)

T = TypeVar("T")
OUTSIDE = "10.77.0.9"
ROOT = Path(__file__).parents[2]


class Machine:
    """One machine: its namespace, its agent's process."""

    def __init__(self, lab: Lab, number: int) -> None:
        self.name = f"m{number}"
        self.addr = f"10.77.0.{number}"
        self.net = lab.directory / f"{self.name}.net"
        self.resolv = lab.directory / f"{self.name}.resolv"
        self.resolv.write_text(f"nameserver {OUTSIDE}\n")
        self.paths = Paths(state=lab.directory / f"{self.name}.state", run=lab.directory / f"{self.name}.run")
        self.prefix, self.port = "pst", 4789
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self, *, ready: bool = True) -> None:
        """The agent's process; `ready` also starts its network."""
        await asyncio.to_thread(self._spawn)
        if ready:
            await self.call("start")

    def _spawn(self) -> None:
        command = [sys.executable, "-m", "tests.integration.network_machine"]
        command += [str(self.paths.state), str(self.paths.run), self.name, self.addr, self.prefix]
        command += [str(self.resolv), str(self.port)]
        self.process = subprocess.Popen(
            ["nsenter", f"--net={self.net}", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )

    async def call(self, name: str, *args: object, **kwargs: object) -> Any:
        return await asyncio.to_thread(self._call, name, args, kwargs)

    def _call(self, name: str, args: object, kwargs: object) -> Any:
        assert self.process and self.process.stdin and self.process.stdout
        data = pickle.dumps((name, args, kwargs))
        self.process.stdin.write(struct.pack("!I", len(data)) + data)
        self.process.stdin.flush()
        size = struct.unpack("!I", self.process.stdout.read(4))[0]
        good, answer = pickle.loads(self.process.stdout.read(size))
        if not good:
            raise answer
        return answer

    def kill(self) -> None:
        """kill -9 of the agent."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdin and self.process.stdout
            with contextlib.suppress(OSError):
                self.process.stdin.close()
            self.process.stdout.close()
            self.process = None

    def inside(self, work: Callable[[], T]) -> T:
        return namespaces.inside(self.net, work)

    def in_task(self, task_id: str, work: Callable[[], T]) -> T:
        return namespaces.inside(self.paths.netns(task_id), work)


class Lab:
    """Some machines and one outside client, on one switch."""

    def __init__(self, machines: int = 1) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="pst-lab-"))
        self.switch = self.directory / "switch.net"
        self.outside = self.directory / "outside.net"
        self.machines = [Machine(self, number + 1) for number in range(machines)]
        self._closers: list[Callable[[], None]] = []

    async def open(self) -> None:
        await asyncio.to_thread(self._wire)
        for machine in self.machines:
            await machine.start()

    def _wire(self) -> None:
        switch = namespaces.create(self.switch, _switch_socket)
        places = [(m.name, m.net, m.addr) for m in self.machines] + [("outside", self.outside, OUTSIDE)]
        for name, path, addr in places:
            namespaces.create(path, lambda name=name, addr=addr: _plug(switch, name, addr))
        switch.close()

    def close(self) -> None:
        for closer in reversed(self._closers):
            closer()
        for machine in self.machines:
            machine.kill()
            netns = machine.paths.run / "netns"
            for path in [
                *(netns.iterdir() if netns.exists() else []),
                machine.paths.run / "network" / "fabric",
            ]:
                namespaces.drop(path)
            namespaces.drop(machine.net)
        namespaces.drop(self.switch)
        namespaces.drop(self.outside)
        shutil.rmtree(self.directory)

    def in_outside(self, work: Callable[[], T]) -> T:
        return namespaces.inside(self.outside, work)

    def on_close(self, closer: Callable[[], None]) -> None:
        self._closers.append(closer)


def _switch_socket() -> netlink.Socket:
    route = netlink.Socket()
    route.run([netlink.bridge("sw", index=100, mac="02:77:00:00:00:fe", mtu=1500)])
    namespaces.write_sysctls({"net/bridge/bridge-nf-call-iptables": "0"})
    return route


def _plug(switch: netlink.Socket, name: str, addr: str) -> None:
    """In the machine's namespace: eth0 on the switch, loopback, a default route to nowhere."""
    descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        switch.run([netlink.veth(name, "eth0", peer_netns=descriptor, mtu=1500, master=100, peer_index=2)])
    finally:
        os.close(descriptor)
    strict = {f"net/ipv4/conf/{which}/rp_filter": "1" for which in ("all", "default")}
    namespaces.write_sysctls({"net/ipv4/ip_forward": "0"} | strict)
    with contextlib.closing(netlink.Socket()) as route:
        route.run(
            [
                netlink.link_up(1),
                netlink.link_up(2),
                netlink.address(2, f"{addr}/24"),
                netlink.route("default", gateway=OUTSIDE, index=2),
            ]
            if name != "outside"
            else [netlink.link_up(1), netlink.link_up(2), netlink.address(2, f"{addr}/24")]
        )


# ------------------------------------------------------------------------------------ servers and clients


class Echo:
    """A TCP and UDP server that answers `NAME CLIENT`, as in a container's log."""

    def __init__(self, name: str, port: int = 80) -> None:
        """Made inside the namespace that it serves."""
        self.name = name
        self.tcp = socket.create_server(("0.0.0.0", port), backlog=256)
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("0.0.0.0", port))
        self._threads = [threading.Thread(target=f, daemon=True) for f in (self._serve_tcp, self._serve_udp)]
        for thread in self._threads:
            thread.start()

    def _serve_tcp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, client = self.tcp.accept()
                threading.Thread(target=self._talk, args=(connection, client), daemon=True).start()

    def _talk(self, connection: socket.socket, client: tuple[str, int]) -> None:
        with connection, contextlib.suppress(OSError):
            connection.sendall(f"{self.name} {client[0]}\n".encode())
            while data := connection.recv(65536):
                connection.sendall(data)

    def _serve_udp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                _, client = self.udp.recvfrom(2000)
                if not client:
                    return  # shut down
                self.udp.sendto(f"{self.name} {client[0]}".encode(), client)

    def __enter__(self) -> Echo:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for item in (self.tcp, self.udp):
            with contextlib.suppress(OSError):
                item.shutdown(socket.SHUT_RDWR)
            item.close()
        for thread in self._threads:
            thread.join()


def tcp(address: str, port: int = 80, timeout: float = 3.0) -> str:
    """What an Echo says: `NAME CLIENT`. Call inside a namespace."""
    with socket.create_connection((address, port), timeout=timeout) as connection:
        return connection.recv(1000).decode().strip()


def udp(address: str, port: int = 80, timeout: float = 3.0) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as item:
        item.settimeout(timeout)
        item.connect((address, port))
        item.send(b"hello")
        return item.recv(1000).decode()


def until(check: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait for `check` to become true."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


# ------------------------------------------------------------------------------------------------ tables


@dataclass
class Net:
    """A network under construction: machines, tasks and services are added, `table` is what agents get."""

    id: str
    vni: int
    subnet: str
    internal: bool = False
    ingress: bool = False
    node_addrs: tuple[str, ...] = ()
    ipv6: bool = False
    subnet6: str = ""

    def __post_init__(self) -> None:
        self.members: list[Member] = []
        self.services: list[ServiceEntry] = []
        base = self.subnet.partition("/")[0].rpartition(".")[0]
        self.base = base

    @property
    def network(self) -> Network:
        gateway = "" if self.internal else f"{self.base}.1"
        pools = [AllocatedPool(subnet=self.subnet, gateway=gateway)]
        if self.subnet6:
            pools.append(AllocatedPool(subnet=self.subnet6, gateway=self.subnet6.partition("/")[0] + "1"))
        spec = NetworkSpec(name=self.id, internal=self.internal, ingress=self.ingress, enable_ipv6=self.ipv6)
        return Network(id=self.id, spec=spec, pools=tuple(pools), vni=self.vni)

    @property
    def table(self) -> NetworkTable:
        return NetworkTable(
            network=self.network,
            members=tuple(self.members),
            services=tuple(self.services),
            node_addrs=self.node_addrs,
        )

    def service(self, name: str, number: int, *, mode: Any = "vip", names: tuple[str, ...] = ()) -> str:
        vip = f"{self.base}.{number}" if mode == "vip" else ""
        self.services.append(
            ServiceEntry(service_id=f"s-{name}", name=name, mode=mode, vip=vip, names=names or (name,))
        )
        return vip

    def member(
        self, task_id: str, service: str, machine: Machine, number: int, *, healthy: bool = True
    ) -> str:
        address = f"{self.base}.{number}"
        self.members.append(
            Member(
                task_id=task_id,
                service_id=f"s-{service}",
                node_id=machine.name,
                node_addr=machine.addr,
                address=address,
                mac_address="",
                healthy=healthy,
                names=(f"{service}.{task_id}", task_id[:12]),
            )
        )
        return address

    def member6(self, task_id: str, service: str, machine: Machine, number: int) -> None:
        """The IPv6 address of a task that has an IPv4 one: at the same MAC."""
        four = next(m for m in self.members if m.task_id == task_id)
        address = f"{self.subnet6.partition('/')[0]}{number:x}"
        self.members.append(replace(four, address=address, mac_address=task_mac(four.address)))

    def set_health(self, task_id: str, healthy: bool) -> None:
        self.members = [replace(m, healthy=healthy) if m.task_id == task_id else m for m in self.members]

    def remove(self, task_id: str) -> None:
        self.members = [m for m in self.members if m.task_id != task_id]

    def attachment(self, task_id: str) -> NetworkAttachment:
        prefix = self.subnet.partition("/")[2]
        addresses = tuple(
            f"{m.address}/{64 if ':' in m.address else prefix}" for m in self.members if m.task_id == task_id
        )
        return NetworkAttachment(network_id=self.id, addresses=addresses)


def task(task_id: str, *nets: Net, ports: Sequence[PortConfig] = (), **container: Any) -> Task:
    return Task(
        id=task_id,
        service_id="s",
        service_name="svc",
        slot=1,
        spec=TaskSpec(
            container=ContainerSpec(**container),
            networks=tuple(NetworkAttachmentSpec(target=net.id) for net in nets),
        ),
        networks=tuple(net.attachment(task_id) for net in nets),
        endpoint=EndpointSpec(ports=tuple(ports)),
    )


def ingress_port(net: Net, published: int, task_ids: Sequence[str], **port: Any) -> IngressPort:
    members = [m for m in net.members if m.task_id in task_ids]
    return IngressPort(
        service_id="s-web",
        port=PortConfig(target_port=80, published_port=published, **port),
        targets=tuple(
            IngressTarget(address=m.address, node_addr=m.node_addr, node_id=m.node_id) for m in members
        ),
    )


def tables(*nets: Net) -> dict[str, NetworkTable]:
    return {net.id: net.table for net in nets}


def by_id(*tasks: Task) -> dict[str, Task]:
    return {item.id: item for item in tasks}


@contextlib.contextmanager
def echo(machine: Machine, task_id: str, port: int = 80) -> Generator[Echo]:
    server = machine.in_task(task_id, lambda: Echo(task_id, port))
    try:
        yield server
    finally:
        server.close()
