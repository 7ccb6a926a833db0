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
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio

from manager import bootstrap, raft
from manager.ca import Authority
from manager.control import Facts
from manager.etcd_process import EtcdConfig, EtcdProcess, MemberRemoved, find_etcd
from manager.external_ca import Cfssl
from manager.gate import Gate
from manager.leadership import Parts, lead
from manager.lock import Vault
from manager.locked import NotLocked, VaultService, unlocked
from manager.membership import Membership
from manager.schema import refuse_newer
from manager.sealer import Sealer
from manager.store import Put, StaleWrite
from manager.store.etcd import EtcdStore
from manager.store.etcd_client import Tls
from manager.store.layout import in_parts
from manager.switch import Switch
from manager.trust import trust_of
from manager.vigil import until_gone
from pyswarm import __version__, nodeconfig, pki, supervisor, telemetry, tmpfs
from pyswarm.api import JoinRaftResponse, RotateRequest
from pyswarm.clock import RandomIds, SystemClock
from pyswarm.errors import Conflict, Fatal, PermissionDenied, PyswarmError, Unavailable
from pyswarm.limits import raise_file_limit
from pyswarm.nodeconfig import SEAL_KEY, SOCKET_GROUP, NodeConfig
from pyswarm.objects import Cluster
from pyswarm.rpc import (
    JOIN_OPTIONS,
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
TURN = "/pyswarm-turn"
"""Where managers queue in etcd that restart theirs, one at a time."""
TURN_WAIT = 30.0
"""Seconds that a manager whose etcd is to restart waits for all others to be up."""
ANY_ADDRESS = "0.0.0.0"
STORE_RETRY = 0.5
"""Seconds between two attempts to read a store that does not answer."""
ASK_TIMEOUT = 10.0
LEASE = 3.0
"""Seconds that the lead outlasts silence, at least: for a manager that is held up on a busy machine. One that is gone
loses it sooner (`manager.vigil`)."""
JOIN_RETRY = 1.0
"""Seconds between the attempts of a manager that the others refuse."""


class Manager:
    """One manager's process."""

    def __init__(
        self, config: NodeConfig, vault: Vault, sealer: Sealer, etcd: EtcdProcess | None = None
    ) -> None:
        """`vault` keeps what `sealer` is made from, which is open. `etcd` runs already where this manager has just
        joined the others."""
        self._config = config
        self._clock = SystemClock()
        self._vault = vault
        self._sealer = sealer
        self._authority = Authority(sealer, self._clock, Cfssl(config.certs))
        self._etcd = etcd or EtcdProcess(etcd_config(config), etcd_tls(config))
        self._store = EtcdStore.connect(
            [self._etcd.config.local_endpoint], etcd_tls(config), seal=self._sealer
        )
        self._membership = Membership(self._store.client)
        self._revoked: frozenset[str] = frozenset()
        self._control = Switch("Control", self._connect, self._facts(), lambda: self._etcd.trouble)
        self._dispatcher = Switch("Dispatcher", None)
        self._ca = Switch("CA", self._connect)
        self._raft = Switch("Raft", self._connect)
        self._resigned = False
        """Whether this manager has given up the lead, for it is to be none; until it leads again."""
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
        try:
            async with asyncio.TaskGroup() as group:
                keeping = group.create_task(self._keep_place())
                if self._etcd.pid is None:
                    await self._etcd.start(force_new_cluster=self._alone.exists())
                work = group.create_task(self._serve())
                group.create_task(self._etcd.supervise())
                await stop.wait()
                keeping.cancel()
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
                group.create_task(self._membership.keep_room(self._etcd.config.local_endpoint))
                if self._config.service_manager == "supervisor":
                    group.create_task(supervisor.keep(self._config.state, self._config.run))
        finally:
            await gate.stop()
            for server in servers:
                await server.stop(0.2)

    async def _wait_ready(self) -> None:
        """Until the managers have a quorum, and this one is of them. One of several serves without too, and says what
        is the matter."""
        try:
            await self._etcd.wait_ready()
            await raft.until_voter(self._etcd.config, etcd_tls(self._config))
        except Unavailable as error:
            if not others(self._config) or self._alone.exists():
                raise
            log.warning("%s", error)

    async def _keep_place(self) -> None:
        """End this process when its member is one no more and nobody tells its etcd so. Raises MemberRemoved."""
        await raft.watch_place(self._etcd.config, lambda: etcd_tls(self._config), ask(self._config))
        raise MemberRemoved("the other managers have taken this one's member out")

    async def _write_first_records(self) -> None:
        objects = bootstrap.first_records(self._config.state, self._sealer)
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
        add_service(local, "Lock", NotLocked(), identify_local)
        vault = grpc.aio.server(options=SERVER_OPTIONS)
        vault_socket(self._config).unlink(missing_ok=True)
        vault.add_insecure_port(f"unix:{vault_socket(self._config)}")
        add_service(vault, "Vault", VaultService(self._sealer), identify_local)
        api = grpc.aio.server(options=SERVER_OPTIONS)
        self._listen(api, self._config.ports.api, mutual=True)
        for name, switch in (
            ("Control", self._control),
            ("Dispatcher", self._dispatcher),
            ("CA", self._ca),
            ("Raft", self._raft),
        ):
            add_service(api, name, switch, self._identify)
        join = grpc.aio.server(options=JOIN_OPTIONS)
        self._listen(join, self._config.ports.join, mutual=False)
        add_service(join, "CA", self._ca, identify_tls)
        return [local, vault, api, join]

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
            await self._know_schema()
            async with self._store.campaign(self._address, LEASE, until_gone) as leadership:
                self._resigned = await lead(self._parts(), leadership)

    async def _know_schema(self) -> None:
        """Who does not know what is stored must not lead. Raises Fatal then; waits while the store cannot be read."""
        while True:
            try:
                refuse_newer((await self._store.list("cluster")).objects)
                return
            except Unavailable:
                await asyncio.sleep(STORE_RETRY)

    async def _follow_leader(self) -> None:
        """Tell the switches which other manager leads."""
        async for leader in self._store.leaders():
            for switch in (self._control, self._dispatcher, self._ca, self._raft):
                switch.leader_is(leader if leader != self._address else None)

    async def _follow_cluster(self) -> None:
        """Refuse revoked certificates, here and in etcd; lock this manager's keys where the cluster asks for it."""
        while True:
            try:
                for cluster in (await self._store.list("cluster")).objects:
                    if isinstance(cluster, Cluster):
                        self._revoke(frozenset(r.serial for r in cluster.root_ca.revoked))
                        self._lock(cluster)
            except Unavailable as error:
                log.debug("the cluster's settings are not known: %s", error)
            except OSError as error:
                log.warning("this manager's files do not follow the cluster's settings yet: %s", error)
            await asyncio.sleep(CERTIFICATE_CHECK)

    def _revoke(self, revoked: frozenset[str]) -> None:
        if revoked != self._revoked:
            self._revoked = revoked
            self._etcd.set_revoked(revoked, self._clock.now())

    def _lock(self, cluster: Cluster) -> None:
        key = self._authority.unlock_key(cluster) if cluster.spec.autolock else ""
        if self._vault.follow(self._sealer, key):
            log.info("this manager's keys on disk are %s", "locked" if key else "not locked any more")

    async def _follow_certificate(self) -> None:
        """Hand etcd, and the connections to it and to other managers, the certificate that the agent renews."""
        used = etcd_tls(self._config)
        trusted = used.ca
        while True:
            await asyncio.sleep(CERTIFICATE_CHECK)
            found = etcd_tls(self._config)
            if found != used:
                log.info("this node's certificate, or what it trusts, is another one")
                used = found
                self._etcd.update_tls(found)
                await self._store.client.configure(tls=found)
                for switch in (self._control, self._ca, self._raft):
                    switch.reconnect()
            if dropped(trusted, found.ca):
                try:
                    await self._restart_etcd()
                    trusted = found.ca
                except (Unavailable, TimeoutError) as error:
                    log.warning("etcd is to forget a root CA that is not trusted any more, but: %s", error)

    async def _restart_etcd(self) -> None:
        """Have etcd trust what nodes trust now: it reads that when it starts. One manager after the other, when all are
        up, so that the others keep their quorum."""
        if not others(self._config):
            await self._etcd.restart()
            return
        # By now another manager may just have a certificate of the new root, which its etcd gets within one look.
        await asyncio.sleep(2 * CERTIFICATE_CHECK)
        async with asyncio.timeout(TURN_WAIT * 4):
            turns = EtcdStore(self._store.client, TURN)
            async with turns.campaign(self._address):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TURN_WAIT):
                        await self._all_up()
                await self._etcd.restart()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TURN_WAIT):
                        await self._all_up()

    async def _all_up(self) -> None:
        while True:
            with contextlib.suppress(Unavailable):
                if all(member.reachable for member in await self._membership.status()):
                    return
            await asyncio.sleep(0.2)

    def _parts(self) -> Parts:
        return Parts(
            store=self._store,
            sealer=self._sealer,
            authority=self._authority,
            clock=self._clock,
            ids=RandomIds(),
            facts=self._facts(),
            excluded_subnets=machine_subnets(),
            control=self._control,
            dispatcher=self._dispatcher,
            ca=self._ca,
            raft=self._raft,
            membership=self._membership,
            may_resign=not self._resigned,
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
            sign_client=self._authority.sign_client,
            trust=lambda cluster: trust_of(cluster.root_ca),
            begin_rotation=self._authority.begin_rotation,
            locked=lambda cluster, rotate: self._authority.locked(cluster, rotate=rotate),
            unlock_key=self._authority.unlock_key,
        )


def etcd_config(config: NodeConfig) -> EtcdConfig:
    """The Raft member of a manager."""
    return EtcdConfig(
        name=config.node_id,
        directory=config.state / "etcd",
        address=config.advertise_addr,
        listen_address=_etcd_listens(config),
        client_port=config.ports.etcd_client,
        peer_port=config.ports.etcd_peer,
        key_file=config.run / "manager" / "etcd.key",
    )


def _etcd_listens(config: NodeConfig) -> str:
    """Where etcd listens besides the loopback address: not wider than others need it, which is the address that they
    know, unless that is translated on the way."""
    if config.listen_addr != ANY_ADDRESS:
        return config.listen_addr
    with socket.socket() as probe:
        try:
            probe.bind((config.advertise_addr, 0))
        except OSError:
            return ANY_ADDRESS
    return config.advertise_addr


def vault_socket(config: NodeConfig) -> Path:
    """Where root asks a manager on this machine for the keys of the store."""
    return config.run / "manager" / "vault.sock"


def dropped(before: bytes, now: bytes) -> bool:
    """Whether a root that was trusted is not any more."""
    return any(root not in pki.load_certificates(now) for root in pki.load_certificates(before))


def etcd_tls(config: NodeConfig) -> Tls:
    return Tls(config.cert("ca.pem"), config.cert("node.pem"), config.cert("node.key"))


def api_tls(config: NodeConfig) -> TLS:
    return TLS(config.cert("ca.pem"), config.cert("node.pem"), config.cert("node.key"))


def served_certificate(config: NodeConfig, *, mutual: bool) -> grpc.ServerCredentials:
    """TLS for a listener, which asks for the caller's certificate if `mutual`. The node's own, and the roots to trust,
    are read anew when they have changed."""
    served: tuple[bytes, bytes] | None = None

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal served
        try:
            key, cert, root = config.cert("node.key"), config.cert("node.pem"), config.cert("ca.pem")
        except PyswarmError as error:
            log.error("%s", error)
            return None
        if (cert, root) == served:
            return None
        served = cert, root
        return grpc.ssl_server_certificate_configuration([(key, cert)], root if mutual else None)

    first = fetch()
    if first is None:
        raise Fatal(f"cannot read the node's identity in {config.certs}")
    renewed = cast("Callable[[], grpc.ServerCertificateConfiguration]", fetch)  # None is allowed: no change
    return grpc.dynamic_ssl_server_credentials(first, renewed, require_client_authentication=mutual)


def others(config: NodeConfig) -> list[str]:
    """The API addresses of the other managers, as last heard."""
    return [address for address in config.managers if address != config.api_address]


def ask(config: NodeConfig) -> raft.Ask:
    """Calls any other manager that answers, of those that the agent has heard of last."""

    async def call(method: str, request: object) -> Any:
        reason = Unavailable("no other manager is known")
        for address in others(nodeconfig.load(config.state)):
            stub = Stub(channel(f"ipv4:{address}", tls=api_tls(config)), ASK_TIMEOUT)
            try:
                return await stub.unary(method, request)
            except Unavailable as error:
                reason = error
            finally:
                await stub.close()
        raise reason

    return call


async def joined(config: NodeConfig) -> tuple[EtcdProcess, Sealer] | None:
    """The etcd of a manager that has just become one of the voters, and the store's key; None where it was one
    before, or starts a cluster. Waits for as long as the others refuse: it is for the agent to end a manager that
    is to be none."""
    member = etcd_config(config)
    if raft.begun(member) or bootstrap.is_first(config.state):
        return None
    (config.state / SEAL_KEY).parent.mkdir(mode=0o700, exist_ok=True)
    kept: list[Sealer] = []

    def keep(answer: JoinRaftResponse) -> None:
        sealer = Sealer(*answer.seal_keys)
        sealer.save(config.state / SEAL_KEY)
        kept.append(sealer)

    said = ""
    addresses = config.join_address, config.api_address
    while True:
        try:
            process = await raft.join(member, lambda: etcd_tls(config), ask(config), keep, addresses)
            return process, kept[-1]
        except (PermissionDenied, Conflict) as error:
            if str(error) != said:
                log.warning("this manager cannot join the others: %s", error)
            said = str(error)
        await asyncio.sleep(JOIN_RETRY)


async def manage(config: NodeConfig) -> None:
    """Join where that is to be done, wait to be unlocked where the keys are locked, then work until SIGTERM. A manager
    whose member was taken out remembers that, and joins anew at its next start."""
    vault = Vault(config.state, config.run)
    try:
        found = await joined(config)
        etcd, sealer = found if found is not None else (None, await unlocked(config, vault))
        if sealer is not None:
            await Manager(config, vault, sealer, etcd).run()
    except* MemberRemoved:
        raft.removed(etcd_config(config))
        raise


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
    raise_file_limit()
    write_on_signal("manager")
    asyncio.run(manage(config))


if __name__ == "__main__":
    raise SystemExit(main())
