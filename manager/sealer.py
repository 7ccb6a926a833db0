"""Sealing of secrets at rest: what lies in the store is useless without the managers' key.

AES-256-GCM under a key that every manager keeps in a file of its own state directory (0600). The first byte
of sealed data says the format, the next four which key; so a wrong key is told apart from damage.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pyswarm.errors import Fatal, Invalid
from pyswarm.nodeconfig import write_private

KEY_BYTES = 32
_FORMAT = b"\x01"
_NONCE_BYTES = 12
_ID_BYTES = 4
_HEADER = len(_FORMAT) + _ID_BYTES


def new_key() -> bytes:
    return secrets.token_bytes(KEY_BYTES)


class Sealer:
    """Seals with the first key, opens with any of them (so that a key can be replaced)."""

    def __init__(self, *keys: bytes) -> None:
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise Invalid(f"a sealing key has {KEY_BYTES} bytes")
        self._ciphers = {_key_id(key): AESGCM(key) for key in keys}
        self._keys = keys

    @property
    def keys(self) -> Sequence[bytes]:
        """To hand to a joining manager, over mutual TLS, and into backups."""
        return self._keys

    def seal(self, data: bytes) -> bytes:
        """Empty data stays empty: absence is no secret."""
        if not data:
            return b""
        name, cipher = next(iter(self._ciphers.items()))
        nonce = secrets.token_bytes(_NONCE_BYTES)
        header = _FORMAT + name
        return header + nonce + cipher.encrypt(nonce, data, header)

    def open(self, sealed: bytes) -> bytes:
        """The inverse. Raises Fatal: sealed under a key that is not there, or damaged."""
        if not sealed:
            return b""
        header, rest = sealed[:_HEADER], sealed[_HEADER:]
        if header[:1] != _FORMAT or len(rest) <= _NONCE_BYTES:
            raise Fatal("sealed data in the store is damaged: restore a backup")
        cipher = self._ciphers.get(header[1:])
        if cipher is None:
            raise Fatal(
                "data in the store was sealed under another key than this manager has: put back its file "
                "`seal.key` from a backup, or let this manager leave and join again"
            )
        try:
            return cipher.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], header)
        except InvalidTag:
            raise Fatal("sealed data in the store is damaged: restore a backup") from None

    def save(self, path: Path) -> None:
        """Keep the keys in a file that only its owner may read, written whole or not at all."""
        write_private(path, "".join(f"{key.hex()}\n" for key in self._keys).encode())

    @classmethod
    def load(cls, path: Path) -> Sealer:
        """Raises Fatal when the file is missing, damaged, or open to others."""
        try:
            text = path.read_text()
            mode = path.stat().st_mode
        except OSError as error:
            raise Fatal(
                f"cannot read the sealing key {path} ({error.strerror}): put it back from a backup, or let "
                "this manager leave and join again"
            ) from None
        if mode & 0o077:
            raise Fatal(f"the sealing key {path} is open to others: change that with `chmod 600 {path}`")
        try:
            return cls(*(bytes.fromhex(line) for line in text.split()))
        except (ValueError, Invalid):
            raise Fatal(
                f"the sealing key {path} is damaged: put it back from a backup, or let this manager leave "
                "and join again"
            ) from None

    @classmethod
    def create(cls, path: Path) -> Sealer:
        """A new key in a new file. Raises FileExistsError rather than lose one."""
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        sealer = cls(new_key())
        sealer.save(path)
        return sealer


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"pyswarm sealing key" + key).digest()[:_ID_BYTES]
