"""What a commit checks and writes, and where objects lie in etcd's keys. Pure.

<prefix>/obj/<kind>/<id>       the object (pyswarm.wire), without its version: that is etcd's mod_revision
<prefix>/idx/<kind>/<name>     the id of the object that has this name
<prefix>/election/<lease>      a candidate, under its lease; the oldest key leads
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from manager.store import Change, Delete, Put, StaleWrite
from pyswarm.errors import Fatal, Invalid
from pyswarm.objects import KINDS, Kind, kind_of, unique_name
from pyswarm.wire import encode

MAX_OPERATIONS = 10_000
"""Keys that one commit may compare or write: etcd runs with --max-txn-ops of this. An object costs one, a
unique name another, the fence one."""
MAX_BYTES = 10 * 1024 * 1024 - 65_536
"""Bytes of one commit's request: etcd runs with --max-request-bytes=10485760, less room for its envelope."""

ObjectKey = tuple[Kind, str]


class CommitTooLarge(Invalid):
    """The changes do not fit into one transaction: commit them in several."""


def check_operations(count: int) -> None:
    """Raises CommitTooLarge."""
    if count > MAX_OPERATIONS:
        raise CommitTooLarge(
            f"a commit of {count} operations is over the limit of {MAX_OPERATIONS}: commit in smaller parts"
        )


def check_bytes(size: int) -> None:
    """Raises CommitTooLarge."""
    if size > MAX_BYTES:
        raise CommitTooLarge(
            f"a commit of {size} bytes is over the limit of {MAX_BYTES}: commit in smaller parts"
        )


def in_parts(
    changes: Iterable[Change], operations: int = 1000, size: int = 4 * 1024 * 1024
) -> Iterator[list[Change]]:
    """Changes that need not happen together, in commits of a good size: at most that many keys and about
    that many bytes each."""
    part: list[Change] = []
    count = length = 0
    for change in changes:
        cost = 2 if unique_name(change.obj) else 1
        weight = len(encode(change.obj)) if isinstance(change, Put) else 0
        if part and (count + cost > operations or length + weight > size):
            yield part
            part, count, length = [], 0, 0
        part.append(change)
        count += cost
        length += weight
    if part:
        yield part


def key_of(change: Change) -> ObjectKey:
    return kind_of(change.obj), change.obj.id


def check_distinct(changes: Sequence[Change]) -> None:
    """Each object at most once, each with an id and without a slash in it. Raises Invalid."""
    seen: set[ObjectKey] = set()
    for change in changes:
        key = key_of(change)
        if key in seen:
            raise Invalid(f"{key[0]} {key[1]} appears twice in one commit")
        if not key[1] or "/" in key[1]:
            raise Invalid(f"a {key[0]} cannot be stored under the id {key[1]!r}")
        seen.add(key)


@dataclass(frozen=True, slots=True)
class NameStep:
    """One unique name in one commit: who must have it before, and who has it afterwards ("": nobody)."""

    kind: Kind
    name: str
    before: str
    after: str


def name_steps(changes: Sequence[Change], renamed: Mapping[ObjectKey, str]) -> list[NameStep]:
    """The names that the changes take, keep and give back, in the order of the changes.

    `renamed` holds the stored names of objects whose name the store knows to differ from the one in the
    change; all others are taken to keep theirs. Raises StaleWrite if two changes want one name.
    """
    before: dict[tuple[Kind, str], str] = {}
    after: dict[tuple[Kind, str], str] = {}
    for change in changes:
        kind, id = key_of(change)
        new = unique_name(change.obj) if isinstance(change, Put) else ""
        old = renamed.get((kind, id), unique_name(change.obj)) if change.obj.meta.version else ""
        if old:
            before[kind, old] = id
        if new and after.setdefault((kind, new), id) != id:
            raise name_taken(kind, new, id)
    names = dict.fromkeys([*before, *after])
    return [NameStep(*key, before.get(key, ""), after.get(key, "")) for key in names]


def rivals(changes: Sequence[Change]) -> bool:
    """Whether, going by the changes, two objects in the store would have the same name: then one of them at
    least is being renamed, and only the store knows which."""
    seen: set[tuple[Kind, str]] = set()
    for change in changes:
        if change.obj.meta.version and (name := unique_name(change.obj)):
            if (kind_of(change.obj), name) in seen:
                return True
            seen.add((kind_of(change.obj), name))
    return False


def name_taken(kind: Kind, name: str, id: str) -> StaleWrite:
    return StaleWrite(f"a {kind} named {name!r} exists already", kind, id)


def stale(change: Change, found: int) -> StaleWrite:
    """The error for a change whose object is at version `found` (0: not there)."""
    kind, id = key_of(change)
    expected = change.obj.meta.version
    if not found:
        return StaleWrite(f"{kind} {id} was removed since it was read", kind, id)
    if not expected:
        return StaleWrite(f"{kind} {id} exists already", kind, id)
    verb = "removed" if isinstance(change, Delete) else "written"
    text = f"{kind} {id} cannot be {verb}: it is at version {found} now and was read at {expected}"
    return StaleWrite(text, kind, id)


def successor(prefix: bytes) -> bytes:
    """The end of the range of all keys that start with `prefix` (which does not end in 0xff)."""
    return prefix[:-1] + bytes((prefix[-1] + 1,))


class Keys:
    """The names of the keys under one prefix."""

    def __init__(self, prefix: str) -> None:
        self.objects = f"{prefix}/obj/".encode()
        self.names = f"{prefix}/idx/".encode()
        self.election = f"{prefix}/election/".encode()

    def kind(self, kind: Kind) -> bytes:
        return self.objects + f"{kind}/".encode()

    def object(self, kind: Kind, id: str) -> bytes:
        return self.objects + f"{kind}/{id}".encode()

    def name(self, kind: Kind, name: str) -> bytes:
        return self.names + f"{kind}/{name}".encode()

    def candidate(self, lease: int) -> bytes:
        return self.election + f"{lease:016x}".encode()

    def parse(self, key: bytes) -> ObjectKey:
        """The kind and id of an object's key. Raises Fatal for a key that pyswarm does not write."""
        kind, _, id = key[len(self.objects) :].decode(errors="replace").partition("/")
        for known in KINDS:
            if kind == known and id:
                return known, id
        raise Fatal(f"the store holds the key {key!r}, which this version of pyswarm does not know")
