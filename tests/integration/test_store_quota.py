"""The store reaches its quota: it says so, makes room by itself, and has lost nothing."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import pytest

from manager.membership import Membership
from manager.store import Put
from manager.store.etcd import EtcdStore
from pyswarm.errors import Unavailable
from pyswarm.objects import Config
from pyswarm.specs import ConfigSpec
from tests.etcd_rig import Member, new_root

pytestmark = pytest.mark.root

QUOTA = 16 * 1024 * 1024
NOISE = random.Random(1).randbytes(200_000)


@pytest.fixture
async def member(tmp_path: Path) -> AsyncGenerator[Member, None]:
    member = Member(tmp_path, new_root(), quota=QUOTA)
    await member.start()
    try:
        yield member
    finally:
        await member.stop()


async def overwrite(store: EtcdStore, times: int) -> str:
    """Write one object again and again, its history grows; the error that ends it, "" if none does."""
    found = await store.get("config", "c")
    config = found if isinstance(found, Config) else Config(id="c", spec=ConfigSpec(name="c"))
    for number in range(times):
        config = replace(config, spec=replace(config.spec, data=NOISE, labels={"n": str(number)}))
        try:
            revision = await store.commit([Put(config)])
        except Unavailable as error:
            return str(error)
        config = replace(config, meta=replace(config.meta, version=revision))
    return ""


async def test_a_full_store_makes_room_by_itself(member: Member) -> None:
    store = member.store()
    try:
        await store.commit([Put(Config(id="kept", spec=ConfigSpec(name="kept", data=b"x")))])
        refused = await overwrite(store, 2000)
        assert "has reached its disk quota and takes no writes: the managers make room" in refused
        membership = Membership(store.client)
        assert list((await membership.alarms()).values()) == ["NOSPACE"]
        upkeep = asyncio.create_task(membership.keep_room(member.config.local_endpoint, period=0.2))
        try:
            async with asyncio.timeout(20):
                while await overwrite(store, 1):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        finally:
            upkeep.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await upkeep
        assert await membership.alarms() == {}
        assert await overwrite(store, 20) == "", "there is room for more than one write"
        assert await store.get("config", "kept") is not None
    finally:
        await store.close()
