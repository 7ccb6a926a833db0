"""An image on its way between two nodes: the files of a `dir:` copy, in pieces, and the proof that it is the right one.

What a node asks for is a digest: of a manifest, or of an index of manifests for several platforms. The layers of an
image in a store are unpacked, so a copy of one that came from a registry has a manifest of its own, with another
digest. Therefore the original manifests travel along. They prove what arrives: the bytes of one have the digest that
was asked for; it names (an index by way of its member) the configuration; the image's id is the digest of its
configuration, which names the digest of every unpacked layer; and these were checked when it was read in. Kept in a
directory, the manifests let the image be found by that digest from then on, and be passed on again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from node_agent.images.store import MANIFEST_LIMIT
from pyswarm.errors import Invalid

Piece = tuple[str, bytes]
"""A file's name, and the next bytes of it."""

CHUNK = 256 * 1024
"""Bytes per piece."""
PROOF = "proof-"
"""Names of the original manifests begin with it."""
MOST_FILES = 1_000
_FILE = re.compile(r"(?:[0-9a-f]{64}|manifest\.json|version|proof-[0-9]{1,3})\Z")


async def pieces(copy: Path, manifests: Iterable[bytes]) -> AsyncGenerator[Piece]:
    """The manifests, then the files of a `dir:` copy."""
    for number, manifest in enumerate(manifests):
        yield f"{PROOF}{number}", manifest
    for path in sorted(copy.iterdir()):
        with path.open("rb") as file:
            yield path.name, b""
            while data := await asyncio.to_thread(file.read, CHUNK):
                yield path.name, data


async def receive(arriving: AsyncIterator[Piece], target: Path) -> Mapping[str, bytes]:
    """Write the files of a copy into `target`; returns the manifests by their digests. Raises Invalid for
    what is no part of an image's copy."""
    proofs: dict[str, bytes] = {}
    seen: set[str] = set()
    async for name, data in arriving:
        if not _FILE.match(name):
            raise Invalid(f"an image's copy has no file {name!r}")
        seen.add(name)
        if len(seen) > MOST_FILES:
            raise Invalid("an image's copy of more than a thousand files is none")
        if name.startswith(PROOF):
            proofs[name] = proofs.get(name, b"") + data
            if len(proofs[name]) > MANIFEST_LIMIT:
                raise Invalid("the image's manifest is too long")
        else:
            await asyncio.to_thread(_append, target / name, data)
    return {f"sha256:{hashlib.sha256(data).hexdigest()}": data for data in proofs.values()}


def _append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def proven(digest: str, image_id: str, manifests: Mapping[str, bytes]) -> Mapping[str, bytes]:
    """The manifests that lead from `digest` to the image with this id; Invalid when they do not."""
    top = manifests.get(digest)
    if top is not None and image_id:
        if config_of(top) == image_id:
            return {digest: top}
        for member in members_of(top):
            if member in manifests and config_of(manifests[member]) == image_id:
                return {digest: top, member: manifests[member]}
    raise Invalid(f"what came is not the image {digest}: its manifests do not lead to what was read in")


def config_of(manifest: bytes) -> str:
    """The image's id that a manifest names; "" for an index, and for what is no manifest."""
    config = _parsed(manifest).get("config")
    digest = config.get("digest") if isinstance(config, dict) else None
    return str(digest).removeprefix("sha256:") if digest else ""


def members_of(index: bytes) -> list[str]:
    """The digests of the manifests that an index names."""
    members = _parsed(index).get("manifests")
    if not isinstance(members, list):
        return []
    return [str(each.get("digest")) for each in cast("list[Any]", members) if isinstance(each, dict)]


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        value: Any = json.loads(data)
    except ValueError:
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
