"""The lock on a manager's keys: what lies on its disk with and without it, and the way back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from manager import lock
from manager.ca import Authority
from manager.lock import Vault
from manager.sealer import Sealer
from manager.sealer import new_key as new_seal_key
from pyswarm import nodeconfig, pki
from pyswarm.clock import SystemClock
from pyswarm.errors import Fatal, Invalid, Locked, PermissionDenied
from pyswarm.nodeconfig import NodeConfig, write_private
from pyswarm.specs import ClusterSpec


@pytest.fixture
def config(tmp_path: Path) -> NodeConfig:
    """A manager's directories, with its keys in clear."""
    made = NodeConfig(
        node_id="m1",
        cluster_id="c1",
        role="manager",
        state_dir=str(tmp_path / "state"),
        run_dir=str(tmp_path / "run"),
    )
    for directory in (made.certs, made.state / "manager", made.run):
        directory.mkdir(parents=True)
    write_private(made.certs / "node.key", pki.new_key())
    Sealer.create(made.state / nodeconfig.SEAL_KEY)
    return made


def vault(config: NodeConfig) -> Vault:
    """As a manager that has just been started sees it."""
    return Vault(config.state, config.run)


def on_disk(config: NodeConfig) -> bytes:
    """All that is in files of the state directory, links not followed."""
    return b"".join(p.read_bytes() for p in config.state.rglob("*") if p.is_file() and not p.is_symlink())


def test_locked_keys_are_on_the_disk_no_more(config: NodeConfig) -> None:
    node_key = config.cert("node.key")
    opened, key = vault(config), lock.as_text(lock.new_key())
    sealer = opened.load()
    assert opened.follow(sealer, key)
    assert not opened.follow(sealer, key), "there is nothing to do the second time"
    held = on_disk(config)
    assert b"PRIVATE KEY" not in held
    assert all(k.hex().encode() not in held and k not in held for k in sealer.keys)
    assert vault(config).locked
    assert config.cert("node.key") == node_key, "the agent works on: the tmpfs has it"
    with pytest.raises(Fatal, match="sealing key"):
        vault(config).load()


def test_only_the_key_opens_it(config: NodeConfig) -> None:
    node_key, first = config.cert("node.key"), vault(config)
    sealer, key = first.load(), lock.as_text(lock.new_key())
    first.follow(sealer, key)
    (config.run / "node.key").unlink()  # as a reboot does
    with pytest.raises(Locked, match="pyswarm unlock"):
        config.cert("node.key")
    for wrong, error in (
        (lock.as_text(lock.new_key()), PermissionDenied),
        (key[:-1], Invalid),
        ("SWMKEY-1-", Invalid),
        (key.removeprefix("SWMKEY-1-"), Invalid),
        ("", Invalid),
    ):
        with pytest.raises(error) as refused:
            vault(config).open(wrong)
        assert wrong[9:] == "" or wrong[9:] not in str(refused.value)
    again = vault(config)
    assert again.open(f" {key}\n").keys == sealer.keys
    assert config.cert("node.key") == node_key
    assert not again.follow(sealer, key)


def test_rotated_key_replaces_the_old_one(config: NodeConfig) -> None:
    opened = vault(config)
    sealer, old, new = opened.load(), lock.as_text(lock.new_key()), lock.as_text(lock.new_key())
    opened.follow(sealer, old)
    assert opened.follow(sealer, new)
    with pytest.raises(PermissionDenied, match="from before"):
        vault(config).open(old)
    assert vault(config).open(new).keys == sealer.keys


def test_without_autolock_they_lie_in_clear_again(config: NodeConfig) -> None:
    node_key, opened = config.cert("node.key"), vault(config)
    sealer = opened.load()
    assert not opened.follow(sealer, "")
    opened.follow(sealer, lock.as_text(lock.new_key()))
    assert opened.follow(sealer, "")
    assert not vault(config).locked
    assert vault(config).load().keys == sealer.keys
    key = config.certs / "node.key"
    assert not key.is_symlink() and key.read_bytes() == node_key and key.stat().st_mode & 0o777 == 0o600
    assert not (config.run / "node.key").exists()
    assert not (config.state / nodeconfig.LOCKED_KEYS).exists()


def test_a_lock_that_was_cut_off_half_way_is_made_up_for(config: NodeConfig) -> None:
    """Killed after the locked file was written and before the clear one was taken away."""
    opened, key = vault(config), lock.as_text(lock.new_key())
    sealer = opened.load()
    opened.follow(sealer, key)
    sealer.save(config.state / nodeconfig.SEAL_KEY)
    started = vault(config)
    assert not started.locked
    assert started.load().keys == sealer.keys
    assert started.follow(sealer, key)
    assert vault(config).locked


def test_a_damaged_file_is_not_taken_for_a_wrong_key_of_another_kind(config: NodeConfig) -> None:
    opened, key = vault(config), lock.as_text(lock.new_key())
    opened.follow(opened.load(), key)
    path = config.state / nodeconfig.LOCKED_KEYS
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(PermissionDenied):
        vault(config).open(key)


def test_the_clusters_record_keeps_the_key_sealed_and_only_while_it_is_wanted() -> None:
    authority = Authority(Sealer(new_seal_key()), SystemClock())
    open_cluster = authority.locked(authority.create_cluster("c1", ClusterSpec()))
    assert authority.unlock_key(open_cluster) == ""
    first = authority.locked(replace(open_cluster, spec=ClusterSpec(autolock=True)))
    key = authority.unlock_key(first)
    assert lock.parse(key) not in first.unlock_key
    assert authority.locked(first) == first
    assert authority.unlock_key(authority.locked(first, rotate=True)) not in ("", key)
    assert authority.locked(replace(first, spec=ClusterSpec())).unlock_key == b""
