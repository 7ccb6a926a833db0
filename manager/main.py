"""A manager's process: etcd as its child, the store, the API's listeners, and the lead when it is won.

`python -m manager.main STATE_DIR`. Everything runs in one TaskGroup; a part that fails ends the process, whose
supervisor starts it again. SIGTERM resigns the lead at once and ends etcd.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio

from manager import bootstrap, raft
from manager.bootstrap import SEAL_KEY
from manager.ca import Authority
from manager.control import Facts
from manager.etcd_process import EtcdConfig, EtcdProcess, find_etcd
from manager.gate import Gate
from manager.leadership import Parts, lead
from manager.membership import Membership
from manager.raft import RaftService
from manager.sealer import Sealer
from manager.store import Put, StaleWrite
from manager.store.etcd import EtcdStore
from manager.store.etcd_client import Tls
from manager.store.layout import in_parts
from manager.switch import Switch
from pyswarm import __version__, nodeconfig, supervisor, telemetry, tmpfs
from pyswarm.api import RotateRequest
from pyswarm.clock import RandomIds, SystemClock
from pyswarm.errors import Fatal, PermissionDenied, Unavailable
from pyswarm.nodeconfig import SOCKET_GROUP, NodeConfig
from pyswarm.objects import Cluster
from pyswarm.rpc import (
    SERVER_OPTIONS,
    TLS,
    Peer,
    Stub,
    add_service,
    channel,
    identify_local,
    identify_tls,
)
from pyswarm.spans import write_on_signal

log = logging.getLogger(__name__)

CERTIFICATE_CHECK = 5.0
"""Seconds between two looks at this node's certificate, and at the list of those that were revoked."""
ASK_TIMEOUT = 10.0
FOR_EVER = 1e9


class Manager:
    """One manager's process."""

    def __init__(self, config: NodeConfig, etcd: EtcdProcess | None = None) -> None:
        """`etcd` runs already where this manager has just joined the others."""
        self._config = config
        self._clock = SystemClock()
        self._sealer = Sealer.load(config.state / SEAL_KEY)
        self._etcd = etcd or EtcdProcess(etcd_config(config), etcd_tls(config))
        self._store = EtcdStore.connect([self._etcd.config.local_endpoint], etcd_tls(config))
        self._membership = Membership(self._store.client)
        self._revoked: frozenset[str] = frozenset()
        self._control = Switch("Control", self._connect, self._facts())
        self._dispatcher = Switch("Dispatcher", None)
        self._ca = Switch("CA", self._connect)
        self._raft_version = ""

    @property
    def _address(self) -> str:
        """host:port of this manager's API: also its name in elections."""
        return self._config.api_address

    @property
    def _alone(self) -> Path:
        """There when this manager is to be the only one from now on (`init --force-new-cluster`)."""
        return self._config.state / nodeconfig.FORCE_NEW_CLUSTER

    def _connect(self, address: str) -> Stub:
        return Stub(channel(f"ipv4:{address}", tls=api_tls(self._config)), forwards=True)

    # ------------------------------------------------------------------------------ running

    async def run(self) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        _, version = await find_etcd()
        self._raft_version = "etcd " + ".".join(map(str, version))
        if self._etcd.pid is None:
            await self._etcd.start(force_new_cluster=self._alone.exists())
        try:
            async with asyncio.TaskGroup() as group:
                work = group.create_task(self._serve())
                group.create_task(self._etcd.supervise())
                await stop.wait()
                work.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await work
                await self._etcd.stop()
        finally:
            await self._store.close()
            await self._etcd.stop()

    async def _serve(self) -> None:
        await self._wait_ready()
        self._alone.unlink(missing_ok=True)
        await self._write_first_records()
        inner = self._config.run / "manager"
        inner.mkdir(mode=0o700, exist_ok=True)
        servers = self._servers(inner / "grpc.sock")
        gate = Gate(self._config.socket, inner / "grpc.sock", SOCKET_GROUP)
        for server in servers:
            await server.start()
        await gate.start()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._lead_for_ever())
                group.create_task(self._follow_leader())
                group.create_task(self._follow_cluster())
                group.create_task(self._follow_certificate())
                group.create_task(self._membership.follow(self._etcd.config.local_endpoint))
                group.create_task(self._become_voter())
                if self._config.service_manager == "supervisor":
                    group.create_task(supervisor.keep(self._config.state, self._config.run))
        finally:
            await gate.stop()
            for server in servers:
                await server.stop(0.2)

    async def _wait_ready(self) -> None:
        """Until the managers have a quorum. One of several serves without too, and says what is the matter."""
        try:
            await self._etcd.wait_ready()
        except Unavailable as error:
            if not others(self._config) or self._alone.exists():
                raise
            log.warning("%s", error)

    async def _become_voter(self) -> None:
        """For a manager that was killed while it joined, or whose promotion had to wait."""
        if others(self._config):
            await raft.ensure_voter(
                self._etcd.config, etcd_tls(self._config), ask(self._config), timeout=FOR_EVER
            )

    async def _write_first_records(self) -> None:
        objects = bootstrap.first_records(self._config.state)
        if objects:
            for part in in_parts(Put(obj) for obj in objects):
                with contextlib.suppress(StaleWrite):
                    await self._store.commit(part)
            bootstrap.records_written(self._config.state)

    def _servers(self, inner: Path) -> list[grpc.aio.Server]:
        inner.unlink(missing_ok=True)
        local = grpc.aio.server(options=SERVER_OPTIONS)
        local.add_insecure_port(f"unix:{inner}")
        add_service(local, "Control", self._control, identify_local)
        api = grpc.aio.server(options=SERVER_OPTIONS)
        self._listen(api, self._config.ports.api, mutual=True)
        for name, switch in (("Control", self._control), ("Dispatcher", self._dispatcher), ("CA", self._ca)):
            add_service(api, name, switch, self._identify)
        add_service(api, "Raft", RaftService(self._membership, self._store, self._sealer), self._identify)
        join = grpc.aio.server(options=SERVER_OPTIONS)
        self._listen(join, self._config.ports.join, mutual=False)
        add_service(join, "CA", self._ca, identify_tls)
        return [local, api, join]

    def _identify(self, context: grpc.aio.ServicerContext[Any, Any]) -> Peer:
        """Who calls; a manager that was demoted is a node like others, whatever its certificate still says."""
        peer = identify_tls(context)
        if not peer.serial or peer.serial not in self._revoked:
            return peer
        if peer.forwarded:
            raise PermissionDenied("the caller's certificate was revoked: its node is not a manager any more")
        return replace(peer, role="worker") if peer.role == "manager" else peer

    def _listen(self, server: grpc.aio.Server, port: int, *, mutual: bool) -> None:
        credentials = served_certificate(self._config, mutual=mutual)
        for address in dict.fromkeys((self._config.listen_addr, *self._loopback())):
            try:
                server.add_secure_port(f"{address}:{port}", credentials)
            except RuntimeError as error:
                raise Fatal(
                    f"cannot listen on {address}:{port}: another program uses it (see `ss -ltnp`): stop that one, "
                    f"or choose another port in {self._config.state / 'node.json'}"
                ) from error

    def _loopback(self) -> tuple[str, ...]:
        return () if self._config.listen_addr in ("0.0.0.0", "127.0.0.1") else ("127.0.0.1",)

    # ------------------------------------------------------------------------------ leading

    async def _lead_for_ever(self) -> None:
        while True:
            async with self._store.campaign(self._address) as leadership:
                await lead(self._parts(), leadership)

    async def _follow_leader(self) -> None:
        """Tell the switches which other manager leads."""
        async for leader in self._store.leaders():
            for switch in (self._control, self._dispatcher, self._ca):
                switch.leader_is(leader if leader != self._address else None)

    async def _follow_cluster(self) -> None:
        """Refuse revoked certificates, here and in etcd."""
        while True:
            try:
                clusters = (await self._store.list("cluster")).objects
                revoked = frozenset(
                    r.serial for c in clusters if isinstance(c, Cluster) for r in c.root_ca.revoked
                )
                if clusters and revoked != self._revoked:
                    self._revoked = revoked
                    self._etcd.set_revoked(revoked, self._clock.now())
            except Unavailable as error:
                log.debug("the list of revoked certificates is not known: %s", error)
            await asyncio.sleep(CERTIFICATE_CHECK)

    async def _follow_certificate(self) -> None:
        """Hand etcd, and the connection to it, the certificate that the agent renews."""
        used = etcd_tls(self._config)
        while True:
            await asyncio.sleep(CERTIFICATE_CHECK)
            found = etcd_tls(self._config)
            if found != used:
                log.info("this node's certificate was renewed")
                used = found
                self._etcd.update_tls(found)
                await self._store.client.configure(tls=found)

    def _parts(self) -> Parts:
        return Parts(
            store=self._store,
            sealer=self._sealer,
            clock=self._clock,
            ids=RandomIds(),
            facts=self._facts(),
            excluded_subnets=machine_subnets(),
            control=self._control,
            dispatcher=self._dispatcher,
            ca=self._ca,
            membership=self._membership,
        )

    def _facts(self) -> Facts:
        config = self._config
        return Facts(
            node_id=config.node_id,
            node_addr=config.advertise_addr,
            version=__version__,
            raft_version=lambda: self._raft_version,
            managers=lambda: (self._address,),
            join_addresses=lambda: (config.join_address,),
            state_dir=config.state_dir,
            run_dir=config.run_dir,
            tokens=Authority.tokens,
            rotate=_rotate,
            sign_client=Authority(self._sealer, self._clock).sign_client,
        )


def etcd_config(config: NodeConfig) -> EtcdConfig:
    """The Raft member of a manager."""
    return EtcdConfig(
        name=config.node_id,
        directory=config.state / "etcd",
        address=config.advertise_addr,
        client_port=config.ports.etcd_client,
        peer_port=config.ports.etcd_peer,
    )


def etcd_tls(config: NodeConfig) -> Tls:
    return Tls(config.cert("ca.pem"), config.cert("node.pem"), config.cert("node.key"))


def api_tls(config: NodeConfig) -> TLS:
    return TLS(config.cert("ca.pem"), config.cert("node.pem"), config.cert("node.key"))


def served_certificate(config: NodeConfig, *, mutual: bool) -> grpc.ServerCredentials:
    """TLS for a listener, which asks for the caller's certificate if `mutual`. The node's own is read anew when it
    was renewed."""
    root = config.cert("ca.pem") if mutual else None
    served = b""

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal served
        try:
            key, cert = config.cert("node.key"), config.cert("node.pem")
        except Fatal as error:
            log.error("%s", error)
            return None
        if cert == served:
            return None
        served = cert
        return grpc.ssl_server_certificate_configuration([(key, cert)], root)

    first = fetch()
    if first is None:
        raise Fatal(f"cannot read the node's identity in {config.certs}")
    renewed = cast("Callable[[], grpc.ServerCertificateConfiguration]", fetch)  # None is allowed: no change
    return grpc.dynamic_ssl_server_credentials(first, renewed, require_client_authentication=mutual)


def others(config: NodeConfig) -> list[str]:
    """The API addresses of the other managers, as last heard."""
    return [address for address in config.managers if address != config.api_address]


def ask(config: NodeConfig) -> raft.Ask:
    """Calls any other manager that answers."""

    async def call(method: str, request: object) -> Any:
        reason = Unavailable("no other manager is known")
        for address in others(config):
            stub = Stub(channel(f"ipv4:{address}", tls=api_tls(config)), ASK_TIMEOUT)
            try:
                return await stub.unary(method, request)
            except Unavailable as error:
                reason = error
            finally:
                await stub.close()
        raise reason

    return call


async def joined(config: NodeConfig) -> EtcdProcess | None:
    """The etcd of a manager that has just joined the others; None where it belongs to them already, or starts a
    cluster."""
    member = etcd_config(config)
    if raft.begun(member) or bootstrap.first_records(config.state) or not others(config):
        return None
    (config.state / SEAL_KEY).parent.mkdir(mode=0o700, exist_ok=True)
    return await raft.join(member, etcd_tls(config), ask(config), config.state / SEAL_KEY)


async def manage(config: NodeConfig) -> None:
    """Join where that is to be done, then work until SIGTERM."""
    await Manager(config, await joined(config)).run()


def _rotate(cluster: Cluster, request: RotateRequest) -> Cluster:
    return Authority.rotate_tokens(cluster, worker=request.worker_token, manager=request.manager_token)


def machine_subnets() -> tuple[str, ...]:
    """The subnets that this machine routes to directly, from `ip -j route`: no network of ours may take one
    of them. Addresses of our own bridges are not among them: those belong to networks that the store knows."""
    result = subprocess.run(["ip", "-j", "-4", "route", "show"], capture_output=True, text=True, check=False)
    if result.returncode:
        return ()
    routes = json.loads(result.stdout or "[]")
    return tuple(
        route["dst"]
        for route in routes
        if "/" in route.get("dst", "") and not route.get("dev", "").startswith("ps")
    )


def main() -> int:
    state = Path(sys.argv[1])
    telemetry.setup("manager", nodeconfig.log_format(state))
    return telemetry.exit_code(lambda: _run(nodeconfig.load(state)))


def _run(config: NodeConfig) -> None:
    tmpfs.ensure(config.run)
    if supervisor.hold(config.run / "manager.lock") is None:
        raise Fatal(f"another manager runs on {config.state}")
    if config.role != "manager":
        raise Fatal("this node is not a manager (any more): `pyswarm node promote` makes it one")
    write_on_signal("manager")
    asyncio.run(manage(config))


if __name__ == "__main__":
    raise SystemExit(main())
