"""Secrets at rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from manager.sealer import Sealer, new_key
from pyswarm.errors import Fatal, Invalid


@pytest.mark.parametrize("data", [b"x", b"a secret", bytes(500_000)])
def test_what_is_sealed_opens_again_and_does_not_show(data: bytes) -> None:
    sealer = Sealer(new_key())
    sealed = sealer.seal(data)
    assert sealer.open(sealed) == data
    assert data[:8] not in sealed or len(data) == 1
    assert sealer.seal(data) != sealed


def test_nothing_stays_nothing() -> None:
    sealer = Sealer(new_key())
    assert sealer.seal(b"") == b"" == sealer.open(b"")


def test_another_key_and_damage_are_told_apart() -> None:
    sealer = Sealer(new_key())
    sealed = sealer.seal(b"secret")
    with pytest.raises(Fatal, match="under another key"):
        Sealer(new_key()).open(sealed)
    for position in (5, len(sealed) - 1):
        broken = bytearray(sealed)
        broken[position] ^= 1
        with pytest.raises(Fatal, match="damaged"):
            sealer.open(bytes(broken))
    for wrong in (b"plain text that was never sealed", sealed[:10], b"\x01"):
        with pytest.raises(Fatal, match="damaged"):
            sealer.open(wrong)


def test_a_replaced_key_still_opens() -> None:
    old, new = new_key(), new_key()
    sealed = Sealer(old).seal(b"secret")
    both = Sealer(new, old)
    assert both.open(sealed) == b"secret"
    with pytest.raises(Fatal, match="another key"):
        Sealer(old).open(both.seal(b"secret"))


def test_keys_have_their_length() -> None:
    for keys in ((), (b"short",)):
        with pytest.raises(Invalid, match="32 bytes"):
            Sealer(*keys)


def test_file_is_private_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "seal.key"
    sealed = Sealer.create(path).seal(b"secret")
    assert path.stat().st_mode & 0o777 == 0o600
    assert Sealer.load(path).open(sealed) == b"secret"
    with pytest.raises(FileExistsError):
        Sealer.create(path)
    assert Sealer.load(path).open(sealed) == b"secret"


def test_unusable_files_are_fatal_and_say_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "seal.key"
    with pytest.raises(Fatal, match=r"No such file.*backup"):
        Sealer.load(path)
    Sealer.create(path)
    path.chmod(0o644)
    with pytest.raises(Fatal, match=f"chmod 600 {path}"):
        Sealer.load(path)
    path.chmod(0o600)
    for text in ("", "zz", "abcd"):
        path.write_text(text)
        with pytest.raises(Fatal, match="is damaged"):
            Sealer.load(path)
