"""Backup and restore of the cluster's state: every object at one revision, in one file.

The file holds objects, not etcd's database: it can be restored into any version of etcd, and read by any
later version of pyswarm. With it go the keys that secrets are sealed under, so it is as secret as they are; or the
whole is encrypted under a passphrase.

    "PYSWARM BACKUP 1\\n", then deflated: a JSON header line, the objects (kind, id and protobuf bytes, each
    behind its length in four bytes), and the SHA-256 of all that
    "PYSWARM SEALED BACKUP 1\\n", a salt of 16 bytes and a nonce of 12, then the above under AES-256-GCM, with a key
    that scrypt (N = 2^16, r = 8, p = 1) makes from the passphrase and the salt
"""

from __future__ import annotations

import hashlib
import json
import secrets
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from google.protobuf.message import DecodeError

from manager.schema import refuse_newer
from manager.store import Put, Store
from manager.store.layout import in_parts
from pyswarm.errors import Conflict, Fatal, Invalid
from pyswarm.nodeconfig import write_private
from pyswarm.objects import KINDS, Kind, Object, kind_of
from pyswarm.wire import decode, encode

MAGIC = b"PYSWARM BACKUP 1\n"
SEALED = b"PYSWARM SEALED BACKUP 1\n"
_SALT, _NONCE = 16, 12
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
            "a backup can only be restored into an empty cluster: leave this one, then `pyswarm restore FILE`"
        )
    fresh = (Put(replace(obj, meta=replace(obj.meta, version=0))) for obj in backup.objects)
    for part in in_parts(fresh):
        await store.commit(part)


def save(backup: Backup, path: Path, passphrase: str = "") -> None:
    """Write the file (0600), whole or not at all; encrypted with a passphrase."""
    data = pack(backup)
    write_private(path, encrypted(data, passphrase) if passphrase else data)


def load(path: Path, passphrase: str = "") -> Backup:
    """Raises Invalid when it is no backup, or damaged, or the passphrase is not its own."""
    data = _read(path)
    try:
        return unpack(decrypted(data, passphrase) if data.startswith(SEALED) else data)
    except Invalid as error:
        raise Invalid(f"{path}: {error}") from None


def is_encrypted(path: Path) -> bool:
    """Whether a backup needs a passphrase. Raises Invalid when it cannot be read."""
    return _read(path).startswith(SEALED)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Invalid(f"cannot read the backup {path}: {error.strerror}") from None


def encrypted(data: bytes, passphrase: str) -> bytes:
    salt, nonce = secrets.token_bytes(_SALT), secrets.token_bytes(_NONCE)
    return SEALED + salt + nonce + AESGCM(_key(passphrase, salt)).encrypt(nonce, data, SEALED)


def decrypted(data: bytes, passphrase: str) -> bytes:
    """Raises Invalid without the right passphrase."""
    if not passphrase:
        raise Invalid("the backup is encrypted: name the file with its passphrase with --passphrase-file")
    body = data[len(SEALED) :]
    salt, nonce, sealed = body[:_SALT], body[_SALT : _SALT + _NONCE], body[_SALT + _NONCE :]
    try:
        return AESGCM(_key(passphrase, salt)).decrypt(nonce, sealed, SEALED)
    except (InvalidTag, ValueError):
        raise Invalid("this is not the passphrase of the backup, or the file is damaged") from None


def _key(passphrase: str, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=2**16, r=8, p=1).derive(passphrase.encode())


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
    try:
        refuse_newer(objects)
    except Fatal as error:
        raise Invalid(str(error)) from None
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
