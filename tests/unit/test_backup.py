"""Backups without a server: the file's form, damage, and restoring."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from manager import backup
from manager.backup import MAGIC, Backup
from manager.store import Put
from manager.store.memory import MemoryStore
from pyswarm.errors import Conflict, Invalid
from pyswarm.objects import Cluster, Meta, Node, Object, Secret, Service, Task
from pyswarm.specs import SecretSpec, ServiceSpec

OBJECTS: tuple[Object, ...] = (
    Cluster(id="c"),
    Node(id="n"),
    Secret(id="x", spec=SecretSpec(name="x", data=bytes(range(256)))),
    Service(id="s", spec=ServiceSpec(name="web", labels={"a": "b"})),
    Task(id="t", service_id="s", slot=3, meta=Meta(created_at=1.5)),
)


async def test_restored_store_holds_the_same() -> None:
    store = MemoryStore()
    await store.commit([Put(obj) for obj in OBJECTS])
    taken = await backup.take(store, 5.0, [b"k" * 32])
    assert taken.revision == (await store.list()).revision
    fresh = MemoryStore()
    await backup.restore(fresh, backup.unpack(backup.pack(taken)))
    restored = (await fresh.list()).objects
    plain = [replace(o, meta=replace(o.meta, version=0)) for o in restored]
    assert plain == sorted(OBJECTS, key=lambda o: type(o).__name__.lower())
    with pytest.raises(Conflict, match="empty cluster"):
        await backup.restore(fresh, taken)


def test_file_reads_back(tmp_path: Path) -> None:
    original = Backup(1.5, 7, OBJECTS, (b"k" * 32, b"l" * 32))
    backup.save(original, tmp_path / "b")
    assert backup.load(tmp_path / "b") == original


def test_empty_backup() -> None:
    assert backup.unpack(backup.pack(Backup(0, 0, ()))) == Backup(0, 0, ())


def test_damage_is_found_and_named(tmp_path: Path) -> None:
    good = backup.pack(Backup(1.5, 7, OBJECTS))
    whole = zlib.decompress(good[len(MAGIC) :])
    middle = len(good) // 2
    for bad, reason in (
        (b"hello", "not a backup"),
        (b"", "not a backup"),
        (good[:-5], "damaged or cut short"),
        (good[:middle] + bytes((good[middle] ^ 0x55,)) + good[middle + 1 :], "damaged"),
        (MAGIC + zlib.compress(whole[:100] + b"x" + whole[101:]), "checksum"),
    ):
        path = tmp_path / "b"
        path.write_bytes(bad)
        with pytest.raises(Invalid, match=f"{path}: .*{reason}"):
            backup.load(path)
    with pytest.raises(Invalid, match="No such file"):
        backup.load(tmp_path / "missing")


def test_an_encrypted_backup_opens_with_its_passphrase_alone(tmp_path: Path) -> None:
    original, path = Backup(1.5, 7, OBJECTS, (b"k" * 32,)), tmp_path / "b"
    backup.save(original, path, "correct horse")
    assert backup.is_encrypted(path)
    assert backup.load(path, "correct horse") == original
    for passphrase, reason in (("", "--passphrase-file"), ("wrong", "not the passphrase")):
        with pytest.raises(Invalid, match=reason):
            backup.load(path, passphrase)
    data = path.read_bytes()
    assert data != backup.encrypted(backup.pack(original), "correct horse"), "no two are alike"
    for bad in (data[:40], data[:-1], data[:60] + bytes((data[60] ^ 1,)) + data[61:]):
        path.write_bytes(bad)
        with pytest.raises(Invalid, match="not the passphrase of the backup, or the file is damaged"):
            backup.load(path, "correct horse")


def test_a_plain_backup_needs_no_passphrase(tmp_path: Path) -> None:
    backup.save(Backup(1.5, 7, OBJECTS), tmp_path / "b")
    assert not backup.is_encrypted(tmp_path / "b")
    assert backup.load(tmp_path / "b", "unused") == Backup(1.5, 7, OBJECTS)
    with pytest.raises(Invalid, match="cannot read"):
        backup.is_encrypted(tmp_path / "other")
