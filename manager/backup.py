"""Backup and restore of the cluster's state: every object at one revision, in one file.

The file holds objects, not etcd's database: it can be restored into any version of etcd, and read by any
later version of pyswarm. With it go the keys that secrets are sealed under, so it is as secret as they are.

    "PYSWARM BACKUP 1\\n", then deflated: a JSON header line, the objects (kind, id and protobuf bytes, each
    behind its length in four bytes), and the SHA-256 of all that
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from google.protobuf.message import DecodeError

from manager.store import Put, Store
from manager.store.layout import in_parts
from pyswarm.errors import Conflict, Invalid
from pyswarm.nodeconfig import write_private
from pyswarm.objects import KINDS, Kind, Object, kind_of
from pyswarm.wire import decode, encode

MAGIC = b"PYSWARM BACKUP 1\n"
_DIGEST = hashlib.sha256().digest_size


@dataclass(frozen=True, slots=True)
class Backup:
    created_at: float
    revision: int
    """Of the store that it was taken from."""
    objects: tuple[Object, ...]
    seal_keys: tuple[bytes, ...] = ()


async def take(store: Store, now: float, seal_keys: Sequence[bytes] = ()) -> Backup:
    """Everything as of one revision; the cluster works on meanwhile."""
    listing = await store.list()
    return Backup(now, listing.revision, listing.objects, tuple(seal_keys))


async def restore(store: Store, backup: Backup) -> None:
    """Write all objects into an empty store, under new versions. Raises Conflict if it is not empty. A
    restore that failed half way left a store that is not empty: start over on a new one."""
    if (await store.list()).objects:
        raise Conflict(
            "a backup can only be restored into an empty cluster: use `pyswarm init --restore FILE`"
        )
    fresh = (Put(replace(obj, meta=replace(obj.meta, version=0))) for obj in backup.objects)
    for part in in_parts(fresh):
        await store.commit(part)


def save(backup: Backup, path: Path) -> None:
    """Write the file (0600), whole or not at all."""
    write_private(path, pack(backup))


def load(path: Path) -> Backup:
    """Raises Invalid when it is no backup, or damaged."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Invalid(f"cannot read the backup {path}: {error.strerror}") from None
    try:
        return unpack(data)
    except Invalid as error:
        raise Invalid(f"{path}: {error}") from None


def pack(backup: Backup) -> bytes:
    header = {
        "created_at": backup.created_at,
        "revision": backup.revision,
        "objects": len(backup.objects),
        "seal_keys": [key.hex() for key in backup.seal_keys],
    }
    body = bytearray(json.dumps(header).encode() + b"\n")
    for obj in backup.objects:
        for part in (kind_of(obj).encode(), obj.id.encode(), encode(obj)):
            body += struct.pack(">I", len(part)) + part
    return MAGIC + zlib.compress(bytes(body) + hashlib.sha256(body).digest())


def unpack(data: bytes) -> Backup:
    """Raises Invalid with what is wrong."""
    if not data.startswith(MAGIC):
        raise Invalid("not a backup of pyswarm, or one of a newer version")
    try:
        whole = zlib.decompress(data[len(MAGIC) :])
    except zlib.error:
        raise Invalid("the backup is damaged or cut short") from None
    body, digest = whole[:-_DIGEST], whole[-_DIGEST:]
    if hashlib.sha256(body).digest() != digest:
        raise Invalid("the backup is damaged: its checksum does not fit")
    line, _, rest = body.partition(b"\n")
    header = json.loads(line)
    parts = list(_parts(rest))
    objects = [_object(*parts[i : i + 3]) for i in range(0, len(parts), 3)]
    if len(objects) != header["objects"]:
        raise Invalid("the backup is incomplete")
    keys = tuple(bytes.fromhex(key) for key in header["seal_keys"])
    return Backup(header["created_at"], header["revision"], tuple(objects), keys)


def _parts(data: bytes) -> Iterator[bytes]:
    position = 0
    while position < len(data):
        (length,) = struct.unpack_from(">I", data, position)
        position += 4
        yield data[position : position + length]
        position += length


def _object(kind: bytes, id: bytes, data: bytes) -> Object:
    try:
        return decode(_kind(kind.decode()), data)
    except DecodeError as error:
        raise Invalid(f"the backup's {kind.decode()} {id.decode()} cannot be read: {error}") from None


def _kind(name: str) -> Kind:
    for kind in KINDS:
        if kind == name:
            return kind
    raise Invalid(f"the backup holds a {name}, which this version of pyswarm does not know: use a newer one")
