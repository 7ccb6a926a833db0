"""A leader in doubt, over a real etcd: it answers nothing from memory, and who waits for its lead waits not long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from manager.controller import Controller
from manager.state import State
from manager.store import Deposed, Leadership, Put
from manager.store.etcd import EtcdStore
from pyswarm.clock import SeededIds, SystemClock
from pyswarm.objects import Task
from tests.etcd_rig import Group, new_root
from tests.store_contract import task, within

pytestmark = pytest.mark.root
LONG = 60.0
"""Seconds of a lease that is not to run out by itself."""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncGenerator[EtcdStore, None]:
    group = Group(tmp_path, new_root())
    try:
        yield group.store(await group.first())
    finally:
        await group.close()


@asynccontextmanager
async def controlling(store: EtcdStore, leadership: Leadership) -> AsyncGenerator[Controller, None]:
    controller = Controller(
        store, State(SeededIds(1)), (), SystemClock(), leadership.fence, leadership.confirm
    )
    work = asyncio.create_task(controller.run())
    try:
        await within(controller.loaded.wait())
        yield controller
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def never(candidate: str) -> None:
    await asyncio.Event().wait()


async def at_once(candidate: str) -> None:
    assert candidate == "first"


async def test_a_deposed_leader_does_not_answer_from_memory(store: EtcdStore) -> None:
    """Its lease was ended by another one, and nothing has told it yet: as after it was held up."""
    async with store.campaign("first", LONG) as first, controlling(store, first) as controller:
        assert await controller.read_latest(lambda view: view.get(Task, "t1")) is None
        async with store.campaign("second", LONG, until_gone=at_once) as second:
            await store.commit([Put(task("t1"))], second.fence)
            assert await controller.read(lambda view: view.get(Task, "t1")) is None, (
                "what it remembers is old"
            )
            with pytest.raises(Deposed):
                await controller.read_latest(lambda view: view.get(Task, "t1"))
            with pytest.raises(Deposed):
                await controller.submit(lambda tx: tx.view.get(Task, "t1"))
            await within(first.lost())


async def test_those_who_ask_together_share_a_question_that_is_put_after_they_have_asked(
    store: EtcdStore,
) -> None:
    async with store.campaign("first", LONG) as first:
        await asyncio.gather(*(first.confirm() for _ in range(50)))
        async with store.campaign("second", LONG, until_gone=at_once):
            answers = await asyncio.gather(*(first.confirm() for _ in range(50)), return_exceptions=True)
            assert all(isinstance(answer, Deposed) for answer in answers)


async def test_the_lead_of_one_that_is_gone_is_taken_before_its_lease_ends(store: EtcdStore) -> None:
    async with store.campaign("first", LONG) as first:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5), store.campaign("second", LONG, until_gone=never):
                raise AssertionError("two lead")
        start = time.monotonic()
        async with store.campaign("second", LONG, until_gone=at_once) as second:
            assert time.monotonic() - start < LONG / 2
            with pytest.raises(Deposed):
                await store.commit([Put(task("t1"))], first.fence)
            await store.commit([Put(task("t1"))], second.fence)
