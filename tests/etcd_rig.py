"""Real etcd members for tests: TLS from a CA of their own, directories under a tmp_path, killed by pid."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from pathlib import Path

from manager.etcd_process import EtcdConfig, EtcdProcess
from manager.store.etcd import EtcdStore
from manager.store.etcd_client import EtcdClient, Tls
from pyswarm.pki import KeyPair, Subject, create_root, issue

CLUSTER = "testcluster"


def free_port(address: str = "127.0.0.1") -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return probe.getsockname()[1]


def manager_tls(root: KeyPair, name: str, *addresses: str) -> Tls:
    pair = issue(root, Subject(name, "manager", CLUSTER, addresses), time.time())
    return Tls(root.cert, pair.cert, pair.key)


class Member:
    """One etcd under an EtcdProcess, supervised."""

    def __init__(
        self, directory: Path, root: KeyPair, name: str = "m1", address: str = "127.0.0.1", **options: object
    ) -> None:
        self.tls = manager_tls(root, name, address)
        self.config = EtcdConfig(
            name=name,
            directory=directory / name,
            address=address,
            client_port=free_port(),
            peer_port=free_port(address),
            **options,  # type: ignore[arg-type] - the test's own keywords
        )
        self.process = EtcdProcess(self.config, self.tls)
        self._supervisor: asyncio.Task[None] | None = None

    async def start(self, *, force_new_cluster: bool = False, ready: bool = True) -> None:
        await self.process.start(force_new_cluster=force_new_cluster)
        self._supervisor = asyncio.create_task(self.process.supervise())
        if ready:
            await self.process.wait_ready()

    async def stop(self) -> None:
        await self.process.stop()
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)

    def kill(self) -> None:
        """kill -9; the supervisor starts it again."""
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGKILL)

    def client(self, *others: Member) -> EtcdClient:
        endpoints = [self.config.local_endpoint, *(m.config.local_endpoint for m in others)]
        return EtcdClient(endpoints, self.tls)

    def store(self, *others: Member, prefix: str = "/pyswarm") -> EtcdStore:
        return EtcdStore(self.client(*others), prefix)


def new_root() -> KeyPair:
    return create_root(time.time())
