"""The lock on a manager's keys (autolock): what lies on its disk is useless without the unlock key.

Without autolock a manager keeps the key that seals the store, and its node's private key, in files of its state
directory. With it both are in one file, encrypted under the unlock key, which is on no manager's disk (in the
store it is sealed). While the machine is up the node's key is on the run directory's tmpfs, so that the agent works
on; the sealing key is in the manager's memory alone, so that a manager that was restarted waits to be unlocked.

    state/manager/seal.key       without autolock
    state/manager/keys.locked    with it: both keys, AES-256-GCM under the unlock key
    state/certs/node.key         a file; with autolock a link to run/node.key
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import secrets
from pathlib import Path

from manager.sealer import KEY_BYTES, Sealer
from pyswarm import nodeconfig
from pyswarm.errors import Fatal, Invalid, PermissionDenied
from pyswarm.nodeconfig import write_private

PREFIX = "SWMKEY-1-"


def new_key() -> bytes:
    """256 bits of chance."""
    return secrets.token_bytes(KEY_BYTES)


def as_text(key: bytes) -> str:
    """`SWMKEY-1-...`, as Swarm writes it."""
    return PREFIX + base64.b64encode(key).decode().rstrip("=")


def parse(text: str) -> bytes:
    """Raises Invalid for what is no unlock key (and does not repeat it)."""
    text = text.strip()
    if not text.startswith(PREFIX):
        raise Invalid(f"not an unlock key: it begins with {PREFIX}")
    body = text.removeprefix(PREFIX)
    try:
        key = base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise Invalid("the unlock key is cut short or damaged: copy it whole")
    return key


class Vault:
    """The keys on one manager's disk."""

    def __init__(self, state: Path, run: Path) -> None:
        """`run` is on a tmpfs."""
        self._seal_key = state / nodeconfig.SEAL_KEY
        self._locked = state / nodeconfig.LOCKED_KEYS
        self._node_key = state / "certs" / "node.key"
        self._open_key = run / "node.key"
        self._key: bytes | None = None
        """What the file on disk is known to be locked with."""

    @property
    def locked(self) -> bool:
        """Whether the unlock key is needed. A change of the lock that was cut off half way leaves the keys in clear,
        and is made up for by the next `follow`."""
        return self._locked.exists() and not self._seal_key.exists()

    def load(self) -> Sealer:
        """The sealing key that lies in clear. Raises Fatal."""
        return Sealer.load(self._seal_key)

    def open(self, text: str) -> Sealer:
        """Unlock: the sealing key for the caller, the node's key for the agent. Raises Invalid for what is no key,
        PermissionDenied for the wrong one, Fatal for damage."""
        key = parse(text)
        try:
            data = Sealer(key).open(self._locked.read_bytes())
        except OSError as error:
            raise Fatal(
                f"cannot read {self._locked}: {error.strerror}: leave the cluster and join again"
            ) from None
        except Fatal:
            raise PermissionDenied(
                "this is not the key that this manager was locked with: where the key was rotated while it was down, "
                "that is the one from before"
            ) from None
        held = json.loads(data)
        write_private(self._open_key, held["node_key"].encode())
        self._key = key
        return Sealer(*(bytes.fromhex(line) for line in held["seal_keys"]))

    def follow(self, sealer: Sealer, text: str) -> bool:
        """Have the disk locked with this unlock key, "" for none. True when that was to be done."""
        if not text:
            return self._in_clear(sealer)
        key = parse(text)
        if key == self._key and not self._seal_key.exists() and self._node_key.is_symlink():
            return False
        node_key = self._node_key.read_text()
        held = {"seal_keys": [k.hex() for k in sealer.keys], "node_key": node_key}
        write_private(self._open_key, node_key.encode())
        write_private(self._locked, Sealer(key).seal(json.dumps(held).encode()))
        if not self._node_key.is_symlink():
            _overwrite(self._node_key)
        _link(self._node_key, self._open_key)
        _overwrite(self._seal_key)
        self._seal_key.unlink(missing_ok=True)
        self._key = key
        return True

    def _in_clear(self, sealer: Sealer) -> bool:
        if not self._locked.exists() and not self._node_key.is_symlink():
            return False
        nodeconfig.keep_node_key(self._node_key)
        sealer.save(self._seal_key)
        self._locked.unlink(missing_ok=True)
        self._open_key.unlink(missing_ok=True)
        self._key = None
        return True


def _link(path: Path, target: Path) -> None:
    """Put a link in the place of a file, at once."""
    scratch = path.with_name(f".{path.name}.link")
    scratch.unlink(missing_ok=True)
    scratch.symlink_to(target)
    scratch.replace(path)


def _overwrite(path: Path) -> None:
    """Write over a file that is about to go. File systems that copy on write, and flash, may keep the old blocks."""
    with contextlib.suppress(FileNotFoundError), open(path, "r+b") as file:
        file.write(secrets.token_bytes(path.stat().st_size))
        file.flush()
        os.fsync(file.fileno())
