"""Named connections to far managers: a directory each, with the address and the client certificate.

`$PYSWARM_CONFIG` (else `~/.pyswarm`) holds `config.json` with the current one's name, and
`contexts/NAME/{meta.json,ca.pem,cert.pem,key.pem}`. Directories are 0700 and keys 0600. The context
`default` is the local manager's socket and has no directory.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pyswarm.errors import Conflict, Invalid, NotFound

if TYPE_CHECKING:
    from pyswarm.rpc import TLS

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Context:
    name: str
    host: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    """A context with its certificates, in PEM."""

    context: Context
    ca: bytes
    cert: bytes
    key: bytes


def home() -> Path:
    """Where contexts are kept."""
    configured = os.environ.get("PYSWARM_CONFIG")
    return Path(configured) if configured else Path.home() / ".pyswarm"


def _directory(name: str) -> Path:
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.+-]*", name):
        raise Invalid(f"context name {name!r} is invalid: use letters, digits, and _ . + - after the first")
    return home() / "contexts" / name


def current() -> str:
    """Name of the context in use: $PYSWARM_CONTEXT, else what `context use` chose, else `default`."""
    chosen = os.environ.get("PYSWARM_CONTEXT")
    if chosen:
        return chosen
    try:
        stored = json.loads((home() / "config.json").read_text())
    except FileNotFoundError:
        return DEFAULT
    except (OSError, ValueError) as error:
        raise Invalid(f"cannot read {home() / 'config.json'}: {error}") from None
    return cast("dict[str, str]", stored).get("currentContext") or DEFAULT


def load(name: str) -> Context:
    """The context of that name. Raises NotFound."""
    try:
        found = json.loads((_directory(name) / "meta.json").read_text())
    except FileNotFoundError:
        raise NotFound(f"context {name!r}: context not found: see `pyswarm context ls`") from None
    return Context(**cast("dict[str, str]", found))


def tls_of(name: str) -> TLS:
    """The client certificate of a context, for `pyswarm.client.Client`."""
    from pyswarm.rpc import TLS

    place = _directory(load(name).name)
    try:
        ca, cert, key = ((place / f"{part}.pem").read_bytes() for part in ("ca", "cert", "key"))
    except FileNotFoundError as error:
        raise Invalid(f"context {name!r} is incomplete: {error.filename} is missing") from None
    return TLS(ca=ca, cert=cert, key=key)


def names() -> list[str]:
    """All contexts, `default` first."""
    place = home() / "contexts"
    found = sorted(each.name for each in place.iterdir()) if place.is_dir() else []
    return [DEFAULT, *found]


def stored(name: str) -> Stored:
    """A context with its certificates. Raises NotFound, and Invalid for one that is incomplete."""
    context, tls = load(name), tls_of(name)
    return Stored(context, tls.ca, tls.cert, tls.key)


def create(new: Stored) -> None:
    """Store a new context. Raises Conflict if there is one of that name."""
    name = new.context.name
    if name == DEFAULT or _directory(name).exists():
        raise Conflict(f"context {name!r} already exists")
    _directory(name).mkdir(parents=True, mode=0o700)
    home().chmod(0o700)
    update(new)


def update(new: Stored) -> None:
    """Store a context over the one of that name."""
    place = _directory(new.context.name)
    for name, data in (("ca.pem", new.ca), ("cert.pem", new.cert), ("key.pem", new.key)):
        _write(place / name, data)
    _write(place / "meta.json", json.dumps(asdict(new.context), indent=2).encode())


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)


def packed(context: Stored) -> bytes:
    """A context as one file, for another machine."""
    parts = {"ca": context.ca.decode(), "cert": context.cert.decode(), "key": context.key.decode()}
    return json.dumps({**asdict(context.context), **parts}, indent=1).encode() + b"\n"


def unpacked(data: bytes) -> Stored:
    """The inverse. Raises Invalid for anything else."""
    try:
        found = cast("dict[str, str]", json.loads(data))
        context = Context(found["name"], found["host"], found.get("description", ""))
        return Stored(context, found["ca"].encode(), found["cert"].encode(), found["key"].encode())
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Invalid(
            "this is not a context: make one with `pyswarm context export NAME` on a manager"
        ) from None


def write_new(path: Path, data: bytes) -> None:
    """Write a file that nobody else may read. Raises Conflict rather than overwrite one."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Conflict(f"{path} exists already: name another file") from None
    with open(descriptor, "wb") as file:
        file.write(data)


def use(name: str) -> None:
    """Make `name` the current context. Raises NotFound."""
    if name != DEFAULT:
        load(name)
    home().mkdir(parents=True, exist_ok=True, mode=0o700)
    _write(home() / "config.json", json.dumps({"currentContext": name}).encode())


def remove(name: str, *, force: bool = False) -> None:
    """Delete a context. Raises NotFound, and Conflict for the current one unless `force`."""
    if name == DEFAULT:
        raise Invalid('context "default" cannot be removed')
    load(name)
    if name == current():
        if not force:
            raise Conflict(
                f"context {name!r} is in use, set another one with `pyswarm context use` or use --force"
            )
        use(DEFAULT)
    shutil.rmtree(_directory(name))
