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
from pathlib import Path

import grpc
import grpc.aio

from manager import bootstrap
from manager.bootstrap import SEAL_KEY
from manager.ca import Authority
from manager.control import Facts
from manager.etcd_process import EtcdConfig, EtcdProcess, find_etcd
from manager.gate import Gate
from manager.leadership import Parts, lead
from manager.sealer import Sealer
from manager.store import Put, StaleWrite
from manager.store.etcd import EtcdStore
from manager.store.etcd_client import Tls
from manager.switch import Switch
from pyswarm import __version__, nodeconfig, supervisor, telemetry, tmpfs
from pyswarm.api import RotateRequest
from pyswarm.clock import RandomIds, SystemClock
from pyswarm.errors import Fatal
from pyswarm.nodeconfig import SOCKET_GROUP, NodeConfig
from pyswarm.objects import Cluster
from pyswarm.rpc import SERVER_OPTIONS, TLS, Stub, add_service, channel, identify_local, identify_tls
from pyswarm.spans import write_on_signal

log = logging.getLogger(__name__)

CERTIFICATE_CHECK = 60.0


class Manager:
    """One manager's process."""

    def __init__(self, config: NodeConfig) -> None:
        self._config = config
        self._clock = SystemClock()
        self._sealer = Sealer.load(config.state / SEAL_KEY)
        self._etcd = EtcdProcess(self._etcd_config(), self._tls())
        self._store = EtcdStore.connect([self._etcd.config.local_endpoint], self._tls())
        self._control = Switch("Control", self._connect, self._facts())
        self._dispatcher = Switch("Dispatcher", None)
        self._ca = Switch("CA", self._connect)
        self._raft_version = ""

    @property
    def _address(self) -> str:
        """host:port of this manager's API: also its name in elections."""
        return f"{self._config.advertise_addr}:{self._config.ports.api}"

    @property
    def _alone(self) -> Path:
        """There when this manager is to be the only one from now on (`init --force-new-cluster`)."""
        return self._config.state / nodeconfig.FORCE_NEW_CLUSTER

    def _etcd_config(self) -> EtcdConfig:
        config = self._config
        return EtcdConfig(
            name=config.node_id,
            directory=config.state / "etcd",
            address=config.advertise_addr,
            client_port=config.ports.etcd_client,
            peer_port=config.ports.etcd_peer,
        )

    def _tls(self) -> Tls:
        return Tls(self._config.cert("ca.pem"), self._config.cert("node.pem"), self._config.cert("node.key"))

    def _connect(self, address: str) -> Stub:
        tls = TLS(self._config.cert("ca.pem"), self._config.cert("node.pem"), self._config.cert("node.key"))
        return Stub(channel(f"ipv4:{address}", tls=tls), forwards=True)

    # ------------------------------------------------------------------------------ running

    async def run(self) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        _, version = await find_etcd()
        self._raft_version = "etcd " + ".".join(map(str, version))
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
        await self._etcd.wait_ready()
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
                if self._config.service_manager == "supervisor":
                    group.create_task(supervisor.keep(self._config.state, self._config.run))
        finally:
            await gate.stop()
            for server in servers:
                await server.stop(0.2)

    async def _write_first_records(self) -> None:
        objects = bootstrap.first_records(self._config.state)
        if objects:
            with contextlib.suppress(StaleWrite):
                await self._store.commit([Put(obj) for obj in objects])
            bootstrap.records_written(self._config.state)

    def _servers(self, inner: Path) -> list[grpc.aio.Server]:
        inner.unlink(missing_ok=True)
        local = grpc.aio.server(options=SERVER_OPTIONS)
        local.add_insecure_port(f"unix:{inner}")
        add_service(local, "Control", self._control, identify_local)
        api = grpc.aio.server(options=SERVER_OPTIONS)
        self._listen(api, self._config.ports.api, mutual=True)
        for name, switch in (("Control", self._control), ("Dispatcher", self._dispatcher), ("CA", self._ca)):
            add_service(api, name, switch, identify_tls)
        join = grpc.aio.server(options=SERVER_OPTIONS)
        self._listen(join, self._config.ports.join, mutual=False)
        add_service(join, "CA", self._ca, identify_tls)
        return [local, api, join]

    def _listen(self, server: grpc.aio.Server, port: int, *, mutual: bool) -> None:
        pair = [(self._config.cert("node.key"), self._config.cert("node.pem"))]
        root = self._config.cert("ca.pem")
        credentials = grpc.ssl_server_credentials(pair, root if mutual else None, require_client_auth=mutual)
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
        )

    def _facts(self) -> Facts:
        config = self._config
        return Facts(
            node_id=config.node_id,
            node_addr=config.advertise_addr,
            version=__version__,
            raft_version=lambda: self._raft_version,
            managers=lambda: (self._address,),
            join_addresses=lambda: (f"{config.advertise_addr}:{config.ports.join}",),
            state_dir=config.state_dir,
            run_dir=config.run_dir,
            tokens=Authority.tokens,
            rotate=_rotate,
            sign_client=Authority(self._sealer, self._clock).sign_client,
        )


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
    write_on_signal("manager")
    asyncio.run(Manager(config).run())


if __name__ == "__main__":
    raise SystemExit(main())
