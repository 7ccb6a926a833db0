"""Images from store to store, with their digest: built ones, those of a registry, forged ones, in parallel."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from node_agent.images.buildah import Fetch, Images
from node_agent.images.transfer import Piece
from pyswarm.errors import Invalid, NotFound
from tests.integration.image_lab import Lab, LocalRegistry, built, images, lab, registry

__all__ = ["images", "lab", "registry"]
pytestmark = pytest.mark.root


@asynccontextmanager
async def another(lab: Lab, number: int, fetch: Fetch | None) -> AsyncGenerator[Images]:
    """The store of another node, empty."""
    paths = type(lab.paths)(state=lab.directory / f"state{number}", run=lab.paths.run / f"node{number}")
    store = Images(paths)
    store.fetch = fetch
    try:
        yield store
    finally:
        await store.stop(remove=True)


async def test_a_built_image_keeps_its_digest(lab: Lab, images: Images) -> None:
    image_id = await built(lab, images)
    digest = await images.resolve("demo:1")
    pinned = f"demo:1@{digest}"
    asked: list[str] = []

    def fetch(reference: str) -> AsyncGenerator[Piece]:
        asked.append(reference)
        return images.export(reference)

    async with another(lab, 2, fetch) as second:
        configs = await asyncio.gather(*(second.ensure(pinned, "", "") for _ in range(3)))
        assert {config.id for config in configs} == {image_id}
        assert asked == [pinned], "who asks for the same image meanwhile waits for the same copy"
        assert await second.resolve("demo:1") == digest
        assert (await second.mount(configs[0]) / "bin" / "busybox").exists()
        assert (await second.ensure(pinned, "never", "")).id == image_id
        async with another(lab, 3, second.export) as third:
            assert (await third.ensure(pinned, "build", "")).id == image_id, "a copy can be passed on"


async def test_an_image_of_a_registry_is_found_by_the_registrys_digest(
    lab: Lab, images: Images, registry: LocalRegistry
) -> None:
    image_id = await built(lab, images)
    name = f"{registry.address}/demo:1"
    await images.tag("demo:1", name)
    digest = await images.push(name)
    assert digest != await images.resolve("demo:1"), "a pushed image is compressed, and has another digest"
    async with another(lab, 2, None) as second:
        await second.ensure(f"{name}@{digest}", "", "")
        gone = f"127.0.0.1:1/demo:1@{digest}"
        async with another(lab, 3, second.export) as third:
            assert (await third.ensure(gone, "", "")).id == image_id, "from a node when the registry is away"
            async with another(lab, 4, third.export) as fourth:
                assert (await fourth.ensure(gone, "", "")).id == image_id
                await fourth.remove("127.0.0.1:1/demo:1")
                with pytest.raises(Invalid, match="no such image"):
                    await fourth.ensure(gone, "never", "")


async def test_what_is_not_the_image_is_refused(lab: Lab, images: Images) -> None:
    await built(lab, images)
    digest = await images.resolve("demo:1")
    wanted = f"demo:1@sha256:{'0' * 64}"

    def another_image(reference: str) -> AsyncGenerator[Piece]:
        del reference
        return images.export("demo:1")

    async def a_path(reference: str) -> AsyncGenerator[Piece]:
        del reference
        yield "../../escaped", b"x"

    async def changed(reference: str) -> AsyncGenerator[Piece]:
        async for name, data in images.export(f"demo:1@{digest}"):
            yield name, data.replace(b"hello", b"HELLO")

    for fetch, reference in ((another_image, wanted), (a_path, wanted), (changed, f"demo:1@{digest}")):
        async with another(lab, 2, fetch) as second:
            with pytest.raises(Invalid):
                await second.ensure(reference, "build", "")
            assert not await second.list(all_images=True)
    assert not list(lab.directory.rglob("escaped"))


async def test_both_reasons_are_told(lab: Lab) -> None:
    async def nobody(reference: str) -> AsyncGenerator[Piece]:
        raise NotFound(f"no other node has the image {reference}")
        yield "", b""

    async with another(lab, 2, nobody) as store:
        with pytest.raises(Invalid, match=r"cannot pull image .*connection refused.*no other node has"):
            await store.ensure(f"127.0.0.1:1/x@sha256:{'1' * 64}", "", "")


async def test_a_copy_that_nobody_reads_any_more_is_deleted(lab: Lab, images: Images) -> None:
    await built(lab, images)
    one, other = images.export("demo:1"), images.export("demo:1")
    assert json.loads((await anext(one))[1])["schemaVersion"] == 2
    await anext(other)
    copies = list((lab.paths.state / "images-tmp").glob("copy-*"))
    assert len(copies) == 1, "both send one copy"
    await one.aclose()
    assert copies[0].exists()
    await other.aclose()
    assert not copies[0].exists()
