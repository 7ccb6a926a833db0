"""What a node may say of itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from manager.registration import MAX_WORDS, believed, check
from pyswarm.api import SessionRequest
from pyswarm.errors import Invalid, NotFound
from pyswarm.objects import NodeDescription, TaskStatus
from pyswarm.specs import GenericResource, Platform, Resources
from tests.unit.leader import leading, node, peer

GOOD = SessionRequest(
    description=NodeDescription(
        hostname="host-1",
        platform=Platform(architecture="x86_64", os="linux"),
        resources=Resources(nano_cpus=2_000_000_000, memory=2**34),
        os_name="Debian GNU/Linux 12 (bookworm)",
        engine_labels={"rack": "a\tb"},
    ),
    addr="10.0.0.1",
    data_path_addr="fd00::1",
    join_addr="10.0.0.1:2377",
    api_addr="[fd00::1]:2378",
)


def described(**fields: Any) -> SessionRequest:
    return replace(GOOD, description=replace(GOOD.description, **fields))


def test_what_nodes_say() -> None:
    check(GOOD)
    check(SessionRequest(description=NodeDescription()))


BAD: list[tuple[SessionRequest, str]] = [
    (replace(GOOD, data_path_addr="10.0.0.1; rm -rf /"), "data_path_addr: not an IP address"),
    (replace(GOOD, addr="x" * 300), "addr: not an IP address"),
    (replace(GOOD, api_addr="10.0.0.1"), "api_addr"),
    (replace(GOOD, api_addr="10.0.0.1:99999"), "api_addr"),
    (replace(GOOD, join_addr="evil.example:2377"), "join_addr"),
    (replace(GOOD, join_addr="10.0.0.1:" + "9" * 5000), "join_addr"),
    (described(hostname="\x1b]0;pwned\x07"), "hostname: must be printable"),
    (described(hostname="a\nb"), "hostname: must be printable"),
    (described(kernel="k" * 256), "kernel"),
    (described(resources=Resources(memory=-1)), "resources"),
    (described(resources=Resources(nano_cpus=2**63 - 1)), "resources"),
    (described(resources=Resources(generic=(GenericResource(kind="gpu", value=-5),))), "resources"),
    (described(engine_labels={"x": "y" * 300_000}), "more than 262144 bytes"),
]


@pytest.mark.parametrize(("request_", "words"), BAD)
async def test_what_is_refused_leaves_no_trace(request_: SessionRequest, words: str) -> None:
    async with leading(objects=[node("n1")]) as leader:
        before = await leader.node("n1")
        with pytest.raises(Invalid, match=words):
            await anext(aiter(leader.dispatcher.session(request_, peer("n1"))))
        assert await leader.node("n1") == before
        with pytest.raises(NotFound):
            leader.dispatcher._session("", peer("n1"))  # pyright: ignore[reportPrivateUsage]


def test_what_an_agent_reports_of_a_task_is_bounded() -> None:
    status = TaskStatus(message="m", err="e", timestamp=1.0)
    assert believed(status) is status
    cut = believed(replace(status, err="e" * 10_000_000))
    assert (cut.message, cut.err) == ("m", "e" * MAX_WORDS)
    for bad in (float("nan"), float("inf")):
        with pytest.raises(Invalid, match="time"):
            believed(replace(status, finished_at=bad))
