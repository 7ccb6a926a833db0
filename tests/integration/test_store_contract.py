"""The stores' contract over real etcd."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from manager.store import Store
from manager.store.etcd import EtcdStore
from pyswarm.pki import KeyPair
from tests.etcd_rig import Member, new_root
from tests.store_contract import Backing, StoreContract

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def root() -> KeyPair:
    return new_root()


@pytest.fixture
async def backing(tmp_path: Path, root: KeyPair) -> AsyncGenerator[Backing, None]:
    member = Member(tmp_path, root)
    stores: list[EtcdStore] = []

    def connect() -> Store:
        stores.append(member.store())
        return stores[-1]

    async def crash() -> None:
        member.kill()

    async def compact(revision: int) -> None:
        await stores[0].compact(revision)

    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(member.stop)
        await member.start()
        yield Backing(connect, crash, compact)
        for store in stores:
            await store.close()


class TestEtcdStore(StoreContract):
    pass
