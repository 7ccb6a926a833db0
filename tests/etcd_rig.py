"""Real etcd members for tests: TLS from a CA of their own, directories under a tmp_path, killed by pid."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from manager.etcd_process import EtcdConfig, EtcdProcess
from manager.membership import Membership
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
        self.supervision: asyncio.Task[None] | None = None

    async def start(self, *, force_new_cluster: bool = False, ready: bool = True) -> None:
        await self.process.start(force_new_cluster=force_new_cluster)
        self.supervise()
        if ready:
            await self.process.wait_ready()

    def supervise(self) -> None:
        self.supervision = asyncio.create_task(self.process.supervise())

    async def stop(self) -> None:
        await self.process.stop()
        if self.supervision is not None:
            self.supervision.cancel()
            await asyncio.gather(self.supervision, return_exceptions=True)

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


@dataclass
class Group:
    """Managers' etcds that the test adds one by one, each at an address of its own."""

    directory: Path
    root: KeyPair
    members: list[Member] = field(default_factory=list[Member])
    stores: list[EtcdStore] = field(default_factory=list[EtcdStore])
    said: list[str] = field(default_factory=list[str])

    def new_member(self) -> Member:
        number = len(self.members) + 1
        member = Member(self.directory, self.root, f"m{number}", f"127.0.0.{number + 10}")
        self.members.append(member)
        return member

    async def first(self) -> Member:
        member = self.new_member()
        await member.start()
        return member

    async def join(self) -> Member:
        """What `pyswarm join` does for a manager."""
        membership = self.membership()
        member = self.new_member()
        config = member.config
        plan = await membership.add(config.name, config.peer_url, self.said.append)
        member.config = replace(config, initial_cluster=plan.initial_cluster)
        member.process = EtcdProcess(member.config, member.tls)
        await member.start()
        await membership.promote(plan.member_id, self.said.append)
        return member

    def store(self, *members: Member) -> EtcdStore:
        """A connection that prefers the first of the members (all, in the order they joined)."""
        first, *others = members or self.members
        self.stores.append(first.store(*others))
        return self.stores[-1]

    def membership(self, *members: Member) -> Membership:
        return Membership(self.store(*members).client)

    async def leader(self) -> Member:
        states = await self.membership().status()
        leading = next(state.name for state in states if state.leader)
        return next(member for member in self.members if member.config.name == leading)

    async def close(self) -> None:
        for store in self.stores:
            await store.close()
        await asyncio.gather(*(member.stop() for member in self.members))


async def three(group: Group) -> list[Member]:
    await group.first()
    await group.join()
    await group.join()
    return group.members
