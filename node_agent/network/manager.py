"""The node's end of the overlay networks: `NetworkPort` over the fabric, the packet rules and the resolvers.

What must survive the agent is kept by the kernel (namespaces, links, rules) and, where the kernel cannot tell
it, in one small file per task (`records/`): a node-local address and host-mode ports in use.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from node_agent.network import dns, fabric, namespaces, occupants, plan
from node_agent.ports import BindMount, Paths
from pyswarm.errors import Conflict, Invalid, PyswarmError, Unavailable
from pyswarm.objects import IngressPort, NetworkTable, Task
from pyswarm.specs import ContainerSpec, PortConfig

_log = logging.getLogger(__name__)

_FLUSH_PAUSE = 0.1
_SOCKET_KINDS = {
    "tcp": (socket.SOCK_STREAM, 0),
    "udp": (socket.SOCK_DGRAM, 0),
    "sctp": (socket.SOCK_STREAM, 132),
}


@dataclass(slots=True)
class _Record:
    """What is known of one attached task besides its attachments."""

    local_address: str = ""
    ports: tuple[PortConfig, ...] = ()
    address: str = ""
    """That the ports lead to."""


class NetworkManager:
    """Networks, VIPs, names and published ports of one agent; implements `NetworkPort`.

    `prefix` (letters and digits) names what the agent owns in the host's namespace: one link and one nftables
    table. All else is in namespaces of its own under `paths.run`.
    """

    def __init__(
        self,
        paths: Paths,
        *,
        node_id: str,
        data_path_addr: str,
        data_path_port: int = 4789,
        prefix: str = "ps",
        resolv_conf: Path = Path("/etc/resolv.conf"),
        repair_interval: float = 60.0,
    ) -> None:
        """`repair_interval` in seconds: how often drift is looked for; 0 is never."""
        self._paths = paths
        self._directory = paths.run / "network"
        self._records_directory = self._directory / "records"
        self._resolv_path = resolv_conf
        self._fabric = fabric.Fabric(
            self._directory, node_id=node_id, addr=data_path_addr, port=data_path_port, prefix=prefix
        )
        self._zones: dict[str, plan.Zone] = {}
        self._dns = dns.DnsServer(self._zones, self._host_nameservers)
        self._tables: dict[str, NetworkTable] = {}
        self._plans: dict[str, plan.NetworkPlan] = {}
        self._ingress: tuple[IngressPort, ...] = ()
        self._ports = plan.PortPlan()
        self._tasks: Mapping[str, Task] = {}
        self._records: dict[str, _Record] = {}
        self._held: dict[tuple[str, str, int], socket.socket] = {}
        """Sockets bound to published ports, so that no other program takes them: by address, protocol, port."""
        self._not_held: set[tuple[str, str, int]] = set()
        """Those that could not be bound: said once."""
        self._taken: frozenset[tuple[str, str, int]] = frozenset()
        """Those of them that another program serves on this node."""
        self._resolv: tuple[int, plan.ResolvConf] = (0, plan.ResolvConf())
        self._changing = asyncio.Lock()
        self._ready: frozenset[str] = frozenset()
        """Networks that the kernel has."""
        self._kernel_failures: Mapping[str, str] = {}
        self._plan_failures: dict[str, str] = {}
        self._unencrypted: set[str] = set()
        """Networks that ask for encryption in vain: said once."""
        self._told: frozenset[str] = frozenset()
        """Networks of the last `apply`; others are kept only for tasks that are still attached."""
        self._attaching: dict[str, asyncio.Future[tuple[fabric.Sockets, Sequence[BindMount]]]] = {}
        """Attachments under way in a thread: they go on when their caller is cancelled."""
        self._adopted = False
        self._repair_interval = repair_interval
        self._flushing: asyncio.Task[None] | None = None
        self._repairing: asyncio.Task[None] | None = None
        """Ours to end, both: `stop` does."""

    # --------------------------------------------------------------------------------------- life cycle

    async def start(self) -> None:
        """Take over a former agent's fabric, or make it. What running tasks use goes on unchanged until the
        first `apply`, which brings everything up to date and removes what belongs to no task."""
        await asyncio.to_thread(self._open)
        self._plans[""] = plan.local_plan(self._fabric.node)
        if self._repair_interval and self._repairing is None:
            self._repairing = asyncio.create_task(self._repair_regularly(), name="repair the network")

    def _open(self) -> None:
        for directory in (self._paths.run / "netns", self._directory, self._records_directory):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._fabric.open()
        for path in sorted(self._records_directory.glob("*.json")):
            with contextlib.suppress(ValueError, TypeError, KeyError):
                self._records[path.stem] = _load_record(path.read_text())

    async def stop(self, *, remove: bool) -> None:
        """Stop serving names; with `remove`, also drop every namespace, link and rule of ours."""
        await self._dns.close()
        jobs = [job for job in (self._flushing, self._repairing) if job is not None]
        self._flushing = self._repairing = None
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        async with self._changing:
            self._release_ports(frozenset())
            if remove:
                for task_id in await self.known():
                    self._forget(task_id)
                await asyncio.to_thread(self._remove)
            else:
                await asyncio.to_thread(self._fabric.close)
            self._adopted = False

    def _remove(self) -> None:
        for task_id in self._known():
            namespaces.drop(self._paths.netns(task_id))
        for path in sorted(self._records_directory.glob("*")):
            path.unlink()
        with contextlib.suppress(FileNotFoundError):
            self._records_directory.rmdir()
        self._fabric.remove()
        with contextlib.suppress(OSError):
            (self._paths.run / "netns").rmdir()

    async def known(self) -> Sequence[str]:
        """Task ids that have a namespace here, sorted."""
        return await asyncio.to_thread(self._known)

    def _known(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return sorted(path.name for path in (self._paths.run / "netns").iterdir())
        return []

    # ------------------------------------------------------------------------------------------- tables

    async def apply(
        self, networks: Mapping[str, NetworkTable], ingress: Sequence[IngressPort], tasks: Mapping[str, Task]
    ) -> None:
        """Make the kernel and the resolvers agree with these complete tables; only differences are touched.

        The first call after `start` also goes on serving the tasks that a former agent attached, and drops the
        namespaces of tasks that are not in `tasks`.
        """
        async with self._changing:
            self._tasks = tasks
            self._take_tables(networks, tuple(ingress))
            if not self._adopted:
                await self._adopt(tasks)
            self._plan_ports()
            await self._change()

    def _take_tables(self, networks: Mapping[str, NetworkTable], ingress: tuple[IngressPort, ...]) -> None:
        """Plan anew what differs. A network that a task here is still attached to outlives its table."""
        ingress_changed = ingress != self._ingress
        self._ingress = ingress
        self._told = frozenset(networks)
        self._drop_unused()
        for network_id, table in sorted(networks.items()):
            known = self._tables.get(network_id)
            same = known is table or known == table
            if same and not (ingress_changed and table.network.spec.ingress):
                continue
            self._take_table(network_id, table, ingress)

    def _take_table(self, network_id: str, table: NetworkTable, ingress: tuple[IngressPort, ...]) -> None:
        """A table that cannot be planned concerns its own tasks alone: they are told why in `attach`."""
        try:
            seen = self._seen_here(table)
            self._plans[network_id] = plan.plan_network(seen, self._fabric.node, ingress)
            self._zones[network_id] = plan.zone(seen)
            self._tables[network_id] = table
            self._plan_failures.pop(network_id, None)
        except (PyswarmError, ValueError) as exc:
            if self._plan_failures.get(network_id) != str(exc):
                _log.error("network %s cannot be made on this node: %s", network_id, exc)
            self._plan_failures[network_id] = str(exc)

    def _seen_here(self, table: NetworkTable) -> NetworkTable:
        """The table, without other nodes where it asks for encryption: there is none yet, and what was to be
        secret is better not sent than sent in clear."""
        network, node = table.network, self._fabric.node
        if not plan.encrypted(network):
            return table
        seen = plan.without_remote(table, node)
        if len(seen.members) < len(table.members) and network.id not in self._unencrypted:
            self._unencrypted.add(network.id)
            _log.error(
                "network %s asks for encryption, which this version does not have: its tasks on this node do "
                "not reach those on others. Remove the option `encrypted`, and run the nodes on an encrypted "
                "underlay (WireGuard) where it matters",
                network.spec.name,
            )
        return seen

    def _drop_unused(self) -> bool:
        """Forget the networks that nobody tells us of and no task here is attached to; whether there was one."""
        in_use = {network for client in self._dns.clients() for network in client.networks}
        unused = [key for key in sorted(self._tables) if key not in self._told and key not in in_use]
        for network_id in unused:
            for mapping in (self._tables, self._plans, self._zones):
                mapping.pop(network_id, None)
        return bool(unused)

    def _plan_ports(self) -> None:
        """Ports as planned from the ingress table and this node's host-mode ports. An ingress port that another
        program has here is left to it: rules would take away its connections."""
        published = [
            plan.Published(task_id=task_id, port=port, address=record.address)
            for task_id, record in sorted(self._records.items())
            for port in record.ports
        ]
        answers = plan.answer_addresses(self._tasks.values(), self._tables)
        self._hold_ports()
        ingress = [entry for entry in self._ingress if _hold_key(entry.port) not in self._taken]
        self._ports = plan.plan_ports(ingress, published, self._fabric.node, answers)

    async def _change(self) -> None:
        plans = {network_id: p for network_id, p in self._plans.items() if network_id}
        failed = await asyncio.to_thread(self._fabric.change, plans, self._ports, self._plugs())
        for network_id, reason in failed.items():
            if self._kernel_failures.get(network_id) != reason:
                _log.error("network %s cannot be made on this node: %s", network_id, reason)
        self._kernel_failures = failed
        self._ready = frozenset(plans) - frozenset(failed)
        if self._fabric.has_stale and (self._flushing is None or self._flushing.done()):
            self._flushing = asyncio.create_task(self._flush(), name="forget stale connections")

    def _plugs(self) -> Mapping[str, int]:
        """The tasks' veth ends in the fabric, and the bridges that they belong to."""
        return {
            plan.veth_name(client.task_id, position): self._plans[network_id].index
            for client in self._dns.clients()
            for position, network_id in enumerate(client.networks or ("",))
            if network_id in self._plans
        }

    async def _flush(self) -> None:
        """Forget stale connections at once, and those of further changes at most every 100 ms."""
        while self._fabric.has_stale:
            try:
                await asyncio.to_thread(self._fabric.flush)
            except PyswarmError as exc:
                _log.warning("stale UDP connections could not be removed: %s", exc)
            await asyncio.sleep(_FLUSH_PAUSE)

    async def _adopt(self, tasks: Mapping[str, Task]) -> None:
        """Serve names to the tasks that have a namespace already; drop the namespaces of nobody. Tried again
        with the next tables when a resolver's address is still taken, by the former agent in its last moments."""
        complete = True
        for task_id in await self.known():
            if self._dns.client(task_id) is not None or task_id in self._attaching:
                continue
            task = tasks.get(task_id)
            if task is None or not namespaces.held(self._paths.netns(task_id)):
                self._forget(task_id)
                await asyncio.to_thread(namespaces.drop, self._paths.netns(task_id))
                continue
            try:
                sockets = await asyncio.to_thread(self._fabric.adopt, self._paths.netns(task_id))
            except OSError as exc:
                _log.warning("task %s: its resolver cannot be served yet: %s", task_id, exc)
                complete = False
                continue
            self._serve(task, sockets)
        for task_id in sorted(self._records):
            if task_id not in tasks:
                self._forget(task_id)
        self._adopted = complete

    async def repair(self) -> Sequence[str]:
        """Read back what the kernel holds and correct drift (links, entries, rules); returns what was
        corrected. Done by itself every `repair_interval`; costs some 10 ms."""
        async with self._changing:
            if self._told and not self._adopted:
                await self._adopt(self._tasks)
            return await asyncio.to_thread(self._fabric.repair, self._plugs())

    async def _repair_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._repair_interval)
            try:
                await self._claim_freed()
                for what in await self.repair():
                    _log.warning("the network was not as it should be, corrected: %s", what)
            except (PyswarmError, OSError) as exc:
                _log.warning("the network could not be looked at for drift: %s", exc)

    async def _claim_freed(self) -> None:
        """Open the published ports that other programs have given up meanwhile."""
        if self._taken:
            async with self._changing:
                self._plan_ports()
                await self._change()

    # -------------------------------------------------------------------------------------------- tasks

    async def attach(self, task: Task) -> Sequence[BindMount]:
        """The task's namespace, and the mounts of its hosts, hostname and resolv.conf."""
        if task.spec.container.network_mode == "host":
            return await asyncio.to_thread(self._write_files, task, plan.TaskPlan())
        record = self._records.get(task.id) or _Record()
        if not task.networks and task.spec.container.network_mode != "none" and not record.local_address:
            record.local_address = plan.local_address(r.local_address for r in self._records.values())
            self._remember(task.id, record)
        await self._networks_ready(task)
        wanted = plan.plan_task(task, self._tables, self._plans, record.local_address)
        job = asyncio.ensure_future(asyncio.to_thread(self._attach, task, wanted))
        self._attaching[task.id] = job
        try:
            sockets, mounts = await asyncio.shield(job)
        except asyncio.CancelledError:
            job.add_done_callback(_close_unused)
            raise
        finally:
            if job.done():
                self._attaching.pop(task.id, None)
        self._serve(task, sockets, forwards=wanted.forwards_dns)
        return mounts

    async def _networks_ready(self, task: Task) -> None:
        """Wait for a change that is under way to bring the task's networks. Unavailable, with the reason, when
        one cannot be made."""
        missing = [a.network_id for a in task.networks if a.network_id not in self._ready]
        if missing:
            async with self._changing:
                pass
        for network_id in missing:
            reason = self._plan_failures.get(network_id) or self._kernel_failures.get(network_id)
            if reason:
                raise Unavailable(f"network {network_id} cannot be made on this node: {reason}")

    def _attach(self, task: Task, wanted: plan.TaskPlan) -> tuple[fabric.Sockets, Sequence[BindMount]]:
        client = self._dns.client(task.id)
        if client is not None and client.udp is not None and client.tcp is not None:
            sockets = fabric.Sockets(client.udp.dup(), client.tcp.dup())
        else:
            sockets = self._fabric.attach(task.id, self._paths.netns(task.id), wanted)
        try:
            return sockets, self._write_files(task, wanted)
        except BaseException:
            sockets.close()
            raise

    def _serve(self, task: Task, sockets: fabric.Sockets, *, forwards: bool | None = None) -> None:
        if forwards is None:
            forwards = self._forwards(task)
        upstream = task.spec.container.dns_nameservers or (dns.HOST,)
        self._dns.serve(
            dns.Client(
                task_id=task.id,
                networks=tuple(attachment.network_id for attachment in task.networks),
                upstream=tuple(upstream) if forwards else (),
                netns=self._paths.netns(task.id),
                udp=sockets.udp,
                tcp=sockets.tcp,
            )
        )

    def _forwards(self, task: Task) -> bool:
        known = [self._tables[a.network_id] for a in task.networks if a.network_id in self._tables]
        return not task.networks or any(not table.network.spec.internal for table in known)

    async def detach(self, task_id: str) -> None:
        """Drop the namespace; the kernel takes its links away with it. Its ports are closed."""
        job = self._attaching.pop(task_id, None)
        if job is not None:
            await asyncio.wait([job])
        self._dns.drop(task_id)
        record = self._records.get(task_id)
        self._forget(task_id)
        await asyncio.to_thread(self._drop, task_id)
        if self._drop_unused() or (record is not None and record.ports):
            async with self._changing:
                self._plan_ports()
                await self._change()

    def _drop(self, task_id: str) -> None:
        namespaces.drop(self._paths.netns(task_id))
        for name in ("hosts", "hostname", "resolv.conf"):
            (self._paths.task_run(task_id) / name).unlink(missing_ok=True)

    # ------------------------------------------------------------------------------------------- files

    def _write_files(self, task: Task, wanted: plan.TaskPlan) -> Sequence[BindMount]:
        spec = task.spec.container
        host = self._host_resolv()
        if spec.network_mode == "host":
            hosts = _host_hosts(spec)
            resolv = plan.host_resolv_file(spec, host)
            name = spec.hostname or socket.gethostname()
        else:
            hosts = plan.hosts_file(task, wanted)
            name = plan.hostname(task)
            bare = spec.network_mode == "none"
            resolv = plan.host_resolv_file(spec, host) if bare else plan.resolv_file(spec, host)
        directory = self._paths.task_run(task.id)
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        files = {"hosts": hosts, "hostname": name + "\n", "resolv.conf": resolv}
        for file_name, text in files.items():
            _write(directory / file_name, text)
        return [
            BindMount(
                source=str(directory / file_name),
                target=f"/etc/{file_name}",
                options=("rbind", "rprivate", "rw"),
            )
            for file_name in files
        ]

    def _host_resolv(self) -> plan.ResolvConf:
        """The host's resolv.conf, read again when it was changed."""
        try:
            stamp = self._resolv_path.stat().st_mtime_ns
            if stamp != self._resolv[0]:
                self._resolv = (stamp, plan.parse_resolv(self._resolv_path.read_text(errors="replace")))
        except OSError:
            self._resolv = (0, plan.ResolvConf())
        return self._resolv[1]

    def _host_nameservers(self) -> Sequence[str]:
        return self._host_resolv().nameservers

    # ------------------------------------------------------------------------------------ published ports

    async def publish(self, task: Task) -> Sequence[PortConfig]:
        """Open the task's host-mode ports; returns them with the ports in use. Conflict when one of these, or of
        the service's ingress ports, is taken on this node by another program."""
        await self._refuse_taken(port for port in task.endpoint.ports if port.publish_mode == "ingress")
        wanted = [port for port in task.endpoint.ports if port.publish_mode == "host"]
        if not wanted or task.spec.container.network_mode in ("host", "none"):
            return tuple(wanted)
        async with self._changing:
            record = self._records.get(task.id) or _Record()
            if not record.ports:
                record.address = plan.published_address(task, self._tables, record.local_address)
                record.ports = self._reserve(task.id, wanted)
                self._remember(task.id, record)
            self._plan_ports()
            await self._change()
            return record.ports

    async def _refuse_taken(self, ports: Iterable[PortConfig]) -> None:
        taken = [port for port in ports if _hold_key(port) in self._taken]
        if not taken:
            return
        await self._claim_freed()
        for port in taken:
            if _hold_key(port) in self._taken:
                raise Conflict(await asyncio.to_thread(_taken_words, port))

    def _reserve(self, task_id: str, wanted: Sequence[PortConfig]) -> tuple[PortConfig, ...]:
        """Bind all ports, or none."""
        bound: list[PortConfig] = []
        try:
            for port in wanted:
                if holder := self._holder(task_id, port):
                    raise Conflict(f"port {_port_text(port)} of this node is in use by {holder}; {_WAY_OUT}")
                try:
                    item = _bind(port)
                except OSError as exc:
                    if exc.errno == errno.EADDRINUSE and occupants.sockets(port):
                        raise Conflict(_taken_words(port)) from exc
                    raise Conflict(
                        f"port {_port_text(port)} cannot be opened on this node: {exc.strerror}; {_WAY_OUT}"
                    ) from exc
                port = replace(port, published_port=item.getsockname()[1])
                self._held[_hold_key(port)] = item
                bound.append(port)
        except BaseException:
            for port in bound:
                self._held.pop(_hold_key(port)).close()
            raise
        return tuple(bound)

    def _holder(self, task_id: str, port: PortConfig) -> str:
        """Who has the port by way of us: "" for nobody."""
        if not port.published_port:
            return ""
        for other_id, record in sorted(self._records.items()):
            if other_id != task_id and any(_overlap(port, other) for other in record.ports):
                other_task = self._tasks.get(other_id)
                name = other_task.service_name if other_task else ""
                return f"task {other_id}" + (f" of service {name}" if name else "")
        for entry in self._ingress:
            if _overlap(port, entry.port):
                return f"service {entry.service_id}, which publishes it in ingress mode"
        return ""

    def _hold_ports(self) -> None:
        """Keep every published port bound, so that no other program gets a port it would never hear on."""
        wanted = [entry.port for entry in self._ingress if entry.port.published_port]
        wanted += [port for record in self._records.values() for port in record.ports]
        keys = {_hold_key(port): port for port in wanted}
        self._release_ports(frozenset(keys))
        self._not_held &= keys.keys()
        taken: set[tuple[str, str, int]] = set()
        for key, port in sorted(keys.items()):
            if any(_meet(key, other) for other in self._held):
                continue
            try:
                self._held[key] = _bind(port)
                self._not_held.discard(key)
            except (OSError, Invalid) as exc:
                self._warn_not_held(key, port, exc)
                if isinstance(exc, OSError) and exc.errno == errno.EADDRINUSE and occupants.sockets(port):
                    taken.add(key)
        self._taken = frozenset(taken)

    def _warn_not_held(self, key: tuple[str, str, int], port: PortConfig, exc: OSError | Invalid) -> None:
        """Say once why a published port is not ours alone. An address of other nodes is no trouble here."""
        elsewhere = isinstance(exc, OSError) and exc.errno == errno.EADDRNOTAVAIL
        if key not in self._not_held and not elsewhere:
            self._not_held.add(key)
            _log.warning("published port %s cannot be reserved on this node: %s", _port_text(port), exc)

    def _release_ports(self, keep: frozenset[tuple[str, str, int]]) -> None:
        for key in sorted(self._held):
            if key not in keep:
                self._held.pop(key).close()

    # ------------------------------------------------------------------------------------------ records

    def _remember(self, task_id: str, record: _Record) -> None:
        self._records[task_id] = record
        text = json.dumps(
            {
                "local_address": record.local_address,
                "address": record.address,
                "ports": [
                    [p.target_port, p.published_port, p.protocol, p.name, p.host_ip, p.app_protocol]
                    for p in record.ports
                ],
            }
        )
        path = self._records_directory / f"{task_id}.json"
        _write(path.with_suffix(".new"), text)
        path.with_suffix(".new").replace(path)

    def _forget(self, task_id: str) -> None:
        if self._records.pop(task_id, None) is not None:
            (self._records_directory / f"{task_id}.json").unlink(missing_ok=True)


def _close_unused(job: asyncio.Future[tuple[fabric.Sockets, Sequence[BindMount]]]) -> None:
    """The sockets of an attachment that nobody waits for any more."""
    if not job.cancelled() and job.exception() is None:
        job.result()[0].close()


_WAY_OUT = "choose another port, publish it in ingress mode, or limit the service to one task per node"


def _load_record(text: str) -> _Record:
    data = json.loads(text)
    return _Record(
        local_address=str(data["local_address"]),
        address=str(data["address"]),
        ports=tuple(
            PortConfig(
                target_port=target,
                published_port=published,
                protocol=protocol,
                publish_mode="host",
                name=name,
                host_ip=host_ip,
                app_protocol=app_protocol,
            )
            for target, published, protocol, name, host_ip, app_protocol in data["ports"]
        ),
    )


def _write(path: Path, text: str) -> None:
    """Write a file that every user of a container may read, whatever the umask."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.fchmod(descriptor, 0o644)
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _host_hosts(spec: ContainerSpec) -> str:
    """The host's own /etc/hosts and the spec's extra hosts."""
    own = (
        Path("/etc/hosts").read_text(errors="replace")
        if Path("/etc/hosts").exists()
        else "127.0.0.1\tlocalhost\n"
    )
    return own.rstrip("\n") + "\n" + "".join(f"{line}\n" for line in plan.extra_hosts(spec, plan.TaskPlan()))


def _bind(port: PortConfig) -> socket.socket:
    """A socket bound to the port on the host (not listening): proof that it is free, and a claim on it."""
    if port.host_ip and not plan.is_v4(port.host_ip) and plan.bound_host(port.host_ip):
        raise Invalid(f"port {_port_text(port)}: only IPv4 addresses of the node can be published on")
    kind, protocol = _SOCKET_KINDS[port.protocol]
    item = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC, protocol)
    try:
        item.bind((plan.bound_host(port.host_ip), port.published_port))
    except BaseException:
        item.close()
        raise
    return item


def _taken_words(port: PortConfig) -> str:
    return (
        f"port {_port_text(port)} of this node is in use by {occupants.who(port)}: stop that (`ss -ltnup` shows "
        "it), or publish another port"
    )


def _hold_key(port: PortConfig) -> tuple[str, str, int]:
    return plan.bound_host(port.host_ip), port.protocol, port.published_port


def _overlap(one: PortConfig, other: PortConfig) -> bool:
    """Whether both cannot be open on one node: same protocol and port, and addresses that meet."""
    return _meet(_hold_key(one), _hold_key(other))


def _meet(one: tuple[str, str, int], other: tuple[str, str, int]) -> bool:
    hosts = {one[0], other[0]}
    return one[1:] == other[1:] and (len(hosts) == 1 or "" in hosts)


def _port_text(port: PortConfig) -> str:
    host = f"{port.host_ip}:" if port.host_ip else ""
    return f"{host}{port.published_port}/{port.protocol}"
