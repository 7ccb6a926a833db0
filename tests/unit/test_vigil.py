"""Whether another manager still answers: a socket tells the living, the dead, and those that nobody knows."""

from __future__ import annotations

import asyncio
import socket

import pytest

from manager import vigil
from manager.vigil import Sign, knock, until_gone


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vigil, "PERIOD", 0.01)


def listening() -> tuple[socket.socket, str]:
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen(5)
    return server, f"127.0.0.1:{server.getsockname()[1]}"


async def settled(watch: asyncio.Task[None], seconds: float) -> bool:
    done, _ = await asyncio.wait({watch}, timeout=seconds)
    return bool(done)


async def test_one_that_is_held_up_is_there_and_one_that_refuses_is_gone() -> None:
    server, address = listening()  # nobody accepts: the kernel answers all the same
    with server:
        assert knock(address) is Sign.ANSWERED
        watch = asyncio.create_task(until_gone(address))
        assert not await settled(watch, 0.2)
    assert knock(address) is Sign.REFUSED
    assert await settled(watch, 5)


async def test_an_address_that_has_never_answered_says_nothing() -> None:
    server, address = listening()
    server.close()
    watch = asyncio.create_task(until_gone(address))
    try:
        assert not await settled(watch, 0.2)
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)


async def test_silence_counts_when_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs in an order of our own: the network that swallows packets is in the end-to-end tests."""
    signs = iter([Sign.ANSWERED, Sign.SILENT, Sign.ANSWERED, Sign.SILENT, Sign.SILENT])
    seen: list[Sign] = []

    def told(address: str) -> Sign:
        seen.append(next(signs))
        return seen[-1]

    monkeypatch.setattr(vigil, "knock", told)
    async with asyncio.timeout(5):
        await until_gone("10.0.0.1:2378")
    assert len(seen) == 5, "one lost packet is no end"
