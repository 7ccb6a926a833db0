"""Node commands: what is refused, what travels along, and that nothing is left behind."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from node_agent.commands import Commands, build_request
from node_agent.images.buildah import BuildRequest
from pyswarm.api import NodeCommand, NodeReply
from pyswarm.errors import Invalid, NotFound


class Images:
    """Stands for buildah, which the integration tests drive: notes what was asked."""

    def __init__(self) -> None:
        self.built: list[tuple[BuildRequest, dict[str, bytes]]] = []

    async def build(self, request: BuildRequest, progress: Any) -> str:
        progress("STEP 1")
        files = {p.name: p.read_bytes() for p in Path(request.context).rglob("*") if p.is_file()}
        self.built.append((request, files))
        return "id"

    async def inspect(self, name: str) -> Mapping[str, Any]:
        raise NotFound(f"no such image: {name}")

    async def pull(self, reference: str, *, auth: str, progress: Any) -> None:
        raise NotFound(reference)

    async def resolve(self, reference: str, auth: str) -> str:
        return "sha256:" + "0" * 64


async def run(
    commands: Commands, verb: str, args: object, pieces: list[bytes] | None = None
) -> list[NodeReply]:
    async def more() -> AsyncIterator[NodeCommand]:
        for piece in pieces or ():
            yield NodeCommand(data=piece)
        yield NodeCommand(eof=True)

    text = args if isinstance(args, str) else json.dumps(args)
    return [reply async for reply in commands.run(NodeCommand(verb=verb, args=text), more())]


def made(path: Path) -> tuple[Commands, Images]:
    images = Images()
    return Commands(cast("Any", images), cast("Any", None), path / "scratch", list), images


def archive(**members: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize(
    ("verb", "args", "words"),
    [
        ("image.fly", {}, "does not know the command 'image.fly'"),
        ("image.pull", "{", "arguments are not JSON"),
        ("image.pull", "[1]", "not a JSON object"),
        ("image.pull", {}, "needs 'reference'"),
        ("image.build", {"context": "/x", "colour": "red"}, "unknown arguments colour"),
        ("image.build", {}, "needs 'context'"),
    ],
)
async def test_what_is_refused_is_an_answer(tmp_path: Path, verb: str, args: object, words: str) -> None:
    commands, _ = made(tmp_path)
    (reply,) = await run(commands, verb, args)
    assert (reply.kind, reply.error_class) == ("error", "Invalid")
    assert words in reply.text


async def test_the_class_of_an_error_goes_along(tmp_path: Path) -> None:
    (reply,) = await run(made(tmp_path)[0], "image.inspect", {"name": "x"})
    assert (reply.kind, reply.error_class, reply.text) == ("error", "NotFound", "no such image: x")


@pytest.mark.parametrize(
    ("reference", "pinned"),
    [("nginx", "nginx:latest"), ("nginx:1", "nginx:1"), ("host:5000/a", "host:5000/a:latest")],
)
async def test_a_pinned_image_has_its_tag_and_digest(tmp_path: Path, reference: str, pinned: str) -> None:
    (reply,) = await run(made(tmp_path)[0], "image.resolve", {"reference": reference})
    assert json.loads(reply.text)["pinned"] == f"{pinned}@sha256:" + "0" * 64


async def test_a_context_that_follows_is_unpacked_built_and_removed(tmp_path: Path) -> None:
    commands, images = made(tmp_path)
    data = archive(Dockerfile=b"FROM scratch", file=b"x" * 5000)
    pieces = [data[n : n + 1000] for n in range(0, len(data), 1000)]
    replies = await run(commands, "image.build", {"context": "-", "tags": ["t"]}, pieces)
    assert [r.kind for r in replies] == ["progress", "result"]
    ((request, files),) = images.built
    assert request.tags == ("t",)
    assert files == {"Dockerfile": b"FROM scratch", "file": b"x" * 5000}
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize("name", ["../outside", "/../../outside"])
async def test_a_member_that_would_leave_the_context_is_refused(tmp_path: Path, name: str) -> None:
    commands, images = made(tmp_path)
    (reply,) = await run(commands, "image.build", {"context": "-"}, [archive(**{name: b"x"})])
    assert (reply.kind, reply.error_class) == ("error", "Invalid")
    assert images.built == []
    assert not list(tmp_path.rglob("outside"))


@pytest.mark.parametrize("to", ["../..", "/"])
async def test_a_member_that_would_leave_the_context_through_a_link_is_refused(
    tmp_path: Path, to: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    to = to if to != "/" else str(outside)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, to
        tar.addfile(link)
        file = tarfile.TarInfo("link/escaped")
        file.size = 1
        tar.addfile(file, io.BytesIO(b"x"))
    commands, images = made(tmp_path)
    (reply,) = await run(commands, "image.build", {"context": "-"}, [out.getvalue()])
    assert (reply.kind, reply.error_class) == ("error", "Invalid")
    assert images.built == []
    assert not list(tmp_path.rglob("escaped"))


async def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (reply,) = await run(made(tmp_path)[0], "image.build", {"context": "-"}, [b"nonsense"])
    assert "not a usable tar archive" in reply.text


def test_a_build_knows_its_arguments() -> None:
    made = build_request(
        {"context": "/x", "tags": ["a"], "secrets": [{"id": "s", "value": "v"}], "auth": "x"}
    )
    assert (made.tags, made.secrets[0].value) == (("a",), b"v")
    with pytest.raises(Invalid):
        build_request({"context": ""})
