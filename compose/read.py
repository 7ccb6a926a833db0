"""Text to tree: YAML as Compose reads it, with the place of every node and limits against hostile input.

The parser is libyaml's, by events. Plain scalars get the types that Compose's own YAML library gives them:
YAML 1.2 booleans (only `true` and `false`; `yes`, `no`, `on` and `off` are strings), integers in
base 2, 8, 10 and 16 with underscores (a leading 0 is octal), floats, null. Dates stay strings.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import Any, cast

import yaml

from compose.errors import ComposeErrors, Position, Problem, Source
from compose.tree import Node, Scalar

MAX_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 64
MAX_NODES = 150_000
"""Values of one file after its aliases are followed: a thousand large services are a quarter of it."""
MAX_PROJECT_NODES = 400_000

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLS = {
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9_]*|0[0-7_]+|0o[0-7_]+|0b[01_]+|0x[0-9a-fA-F_]+)\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_SPECIAL_FLOATS = {
    ".inf": float("inf"),
    ".Inf": float("inf"),
    ".INF": float("inf"),
    "+.inf": float("inf"),
    "+.Inf": float("inf"),
    "+.INF": float("inf"),
    "-.inf": float("-inf"),
    "-.Inf": float("-inf"),
    "-.INF": float("-inf"),
    ".nan": float("nan"),
    ".NaN": float("nan"),
    ".NAN": float("nan"),
}
_CORE = "tag:yaml.org,2002:"


def decode(data: bytes, name: str, directory: str = "") -> Source:
    """Bytes of a file as text. UTF-8 (with or without a byte order mark) or UTF-16 with one.

    Raises ComposeErrors with the line and column of the first byte that is not UTF-8.
    """
    if len(data) > MAX_BYTES:
        raise _fatal(Source(name), f"file is too large: {len(data)} bytes, at most {MAX_BYTES} are read")
    encoding = "utf-8"
    for mark, known in _BOMS:
        if data.startswith(mark):
            data, encoding = data[len(mark) :], known
            break
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line = before.count(b"\n") + 1
        column = len(before.rsplit(b"\n", 1)[-1].decode("utf-8", "replace")) + 1
        source = Source(name, data.decode(encoding, "replace"), directory)
        message = f"not valid {encoding.upper()}: byte 0x{data[error.start]:02x}; save the file as UTF-8"
        raise ComposeErrors([Problem(message, "", Position(source, line, column))]) from None
    return Source(name, text, directory)


class Budget:
    """How many values the files of a project may still hold, all together."""

    __slots__ = ("left",)

    def __init__(self, nodes: int = MAX_PROJECT_NODES) -> None:
        self.left = nodes


def documents(source: Source, budget: Budget | None = None) -> list[Node]:
    """The non-empty documents of a file. Raises ComposeErrors at the first mistake in its YAML."""
    reader = _Reader(source, budget or Budget())
    try:
        return list(reader.documents())
    except yaml.MarkedYAMLError as error:
        raise ComposeErrors([_yaml_problem(source, error)]) from None
    except yaml.YAMLError as error:
        raise ComposeErrors([_reader_problem(source, error)]) from None


def _fatal(source: Source, message: str, line: int = 0, column: int = 0) -> ComposeErrors:
    return ComposeErrors([Problem(message, "", Position(source, line, column))])


def _yaml_problem(source: Source, error: yaml.MarkedYAMLError) -> Problem:
    mark: Any = error.problem_mark or error.context_mark  # libyaml's Mark has no stubs
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)
    problem = error.problem or "cannot be read"
    text = source.line(line)
    indent = text[: len(text) - len(text.lstrip())]
    if "\t" in indent or (problem.startswith("found character that cannot start") and "\t" in text):
        message = "tabs cannot indent YAML: use spaces"
        column = text.index("\t") + 1
    else:
        context = f" {error.context}" if error.context else ""
        message = f"invalid YAML: {problem}{context}"
    return Problem(message, "", Position(source, line, column))


def _reader_problem(source: Source, error: yaml.YAMLError) -> Problem:
    position = getattr(error, "position", None)
    if isinstance(position, int):
        before = source.text[:position]
        line = before.count("\n") + 1
        column = position - (before.rfind("\n") + 1) + 1
        found = source.text[position : position + 1]
        return Problem(f"character {found!r} is not allowed in YAML", "", Position(source, line, column))
    return Problem(f"invalid YAML: {error}", "", Position(source))


def resolve_plain(text: str) -> Scalar:
    """The typed value of a plain (unquoted) scalar."""
    first = text[:1]
    if first.isdigit() or first in "+-.":
        return _resolve_number(text)
    if text in _NULLS:
        return None
    return _BOOLS.get(text, text)


def _resolve_number(text: str) -> Scalar:
    if not text:
        return None
    if _INTEGER.match(text):
        return _integer(text)
    if _FLOAT.match(text):
        return float(text.replace("_", ""))
    return _SPECIAL_FLOATS.get(text, text)


def _integer(text: str) -> int | float | str:
    digits = text.replace("_", "").lower()
    if len(digits) > 70:
        return text
    sign = -1 if digits.startswith("-") else 1
    digits = digits.lstrip("+-")
    if digits.startswith(("0x", "0o", "0b")):
        number = int(digits, 0)
    elif len(digits) > 1 and digits.startswith("0"):
        number = int(digits, 8)
    else:
        number = int(digits)
    if number >= 2**64:
        return float(number)
    return sign * number


class _Open:
    """A collection that is being read."""

    __slots__ = (
        "anchor",
        "entries",
        "items",
        "key",
        "keys",
        "merge_at",
        "merges",
        "merging",
        "pos",
        "size",
        "tag",
    )

    def __init__(self, pos: Position, anchor: str | None, tag: str, is_mapping: bool) -> None:
        self.pos = pos
        self.anchor = anchor
        self.tag = tag
        self.entries: dict[str, Node] | None = {} if is_mapping else None
        self.items: list[Node] = []
        self.keys: dict[str, Position] = {}
        self.key: str | None = None
        """The key whose value comes next; with `merging` it is YAML's `<<`."""
        self.merging = False
        self.merge_at: Position | None = None
        self.merges: list[Node] = []
        self.size = 1


class _Reader:
    """Builds trees from libyaml's events, one pass, no recursion."""

    def __init__(self, source: Source, budget: Budget) -> None:
        self._source = source
        self._budget = budget
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._nodes = 0
        self._recursive: set[str] = set()

    def documents(self) -> Iterator[Node]:
        stack: list[_Open] = []
        root: Node | None = None
        for event in yaml.parse(self._source.text, Loader=yaml.CSafeLoader):
            kind = type(event)
            if kind is yaml.ScalarEvent:
                root = self._scalar(cast(yaml.ScalarEvent, event), stack) or root
            elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
                self._open(event, stack, kind is yaml.MappingStartEvent)
            elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                root = self._close(stack) or root
            elif kind is yaml.AliasEvent:
                root = self._alias(cast(yaml.AliasEvent, event), stack) or root
            elif kind is yaml.DocumentStartEvent:
                root = None
                self._anchors = {}
            elif kind is yaml.DocumentEndEvent and root is not None and root.value is not None:
                yield root

    def _position(self, event: Any) -> Position:  # libyaml's events carry their own Mark type
        mark = event.start_mark
        return Position(self._source, mark.line + 1, mark.column + 1)

    def _fail(self, position: Position, message: str) -> ComposeErrors:
        return ComposeErrors([Problem(message, "", position)])

    def _count(self, amount: int, position: Position) -> None:
        self._nodes += amount
        self._budget.left -= amount
        if self._budget.left < 0:
            message = f"the files of the project hold more than {MAX_PROJECT_NODES} values together"
            raise self._fail(position, message)
        if self._nodes > MAX_NODES:
            raise self._fail(
                position, f"the file holds more than {MAX_NODES} values once its aliases are followed"
            )

    def _scalar(self, event: yaml.ScalarEvent, stack: list[_Open]) -> Node | None:
        position = self._position(event)
        self._count(1, position)
        top = stack[-1] if stack else None
        text: str = event.value
        if top is not None and top.entries is not None and top.key is None and not event.anchor:
            tag = event.tag
            if text == "<<" and event.implicit[0]:
                self._set_merge(top, position)
                return None
            if event.implicit[0] and not tag:
                self._check_key(resolve_plain(text), text, position)
            self._set_key(top, text, position)
            return None
        node = self._scalar_node(event, text, position)
        return self._add(node, 1, event.anchor, stack)

    def _scalar_node(self, event: yaml.ScalarEvent, text: str, position: Position) -> Node:
        tag: str = event.tag or ""
        if not tag:
            return Node(resolve_plain(text) if event.implicit[0] else text, position)
        if tag in ("!reset", "!override"):
            quoted = event.style in ("'", '"', "|", ">")
            return Node(text if quoted else resolve_plain(text), position, None, tag)
        return Node(self._tagged(tag, text, position), position)

    def _tagged(self, tag: str, text: str, position: Position) -> Scalar:
        name = tag.removeprefix(_CORE) if tag.startswith(_CORE) else tag
        if name in ("str", "!", "timestamp"):
            return text
        if name == "binary":
            raise self._fail(position, "binary values are not supported: write text")
        if name in ("int", "float", "bool", "null"):
            value = resolve_plain(text)
            if name == "float" and isinstance(value, int):
                return float(value)
            expected = {"int": int, "float": float, "bool": bool, "null": type(None)}[name]
            if type(value) is not expected:
                raise self._fail(position, f'"{text}" is not a value of type !!{name}')
            return value
        raise self._fail(position, f'unknown tag "{tag}": only !reset and !override are known')

    def _open(self, event: Any, stack: list[_Open], is_mapping: bool) -> None:
        position = self._position(event)
        self._count(1, position)
        if len(stack) >= MAX_DEPTH:
            raise self._fail(position, f"nested more than {MAX_DEPTH} levels deep")
        tag: str = event.tag or ""
        if tag in (_CORE + "map", _CORE + "seq", "!"):
            tag = ""
        if tag not in ("", "!reset", "!override"):
            raise self._fail(position, f'unknown tag "{tag}": only !reset and !override are known')
        if stack and stack[-1].entries is not None and stack[-1].key is None:
            raise self._fail(position, "a mapping's key must be a string, not a collection")
        if event.anchor:
            self._recursive.add(event.anchor)
            self._anchors.pop(event.anchor, None)
        stack.append(_Open(position, event.anchor, tag, is_mapping))

    def _close(self, stack: list[_Open]) -> Node | None:
        done = stack.pop()
        if done.entries is None:
            node = Node(done.items, done.pos, None, done.tag)
        else:
            entries, keys = done.entries, done.keys
            for merged in done.merges:
                self._merge(entries, keys, merged)
            node = Node(entries, done.pos, keys, done.tag)
        if done.anchor:
            self._recursive.discard(done.anchor)
        return self._add(node, done.size, done.anchor, stack)

    def _merge(self, entries: dict[str, Node], keys: dict[str, Position], merged: Node) -> None:
        """YAML's merge key: what is said here wins, then the first of the merged mappings."""
        sources = merged.value if isinstance(merged.value, list) else [merged]
        for origin in sources:
            if not isinstance(origin.value, dict):
                raise self._fail(merged.pos, "<< takes a mapping or a list of mappings")
            for key, child in origin.value.items():
                if key not in entries:
                    entries[key] = child
                    keys[key] = origin.key_position(key)

    def _alias(self, event: yaml.AliasEvent, stack: list[_Open]) -> Node | None:
        position = self._position(event)
        name = event.anchor or ""
        if name in self._recursive:
            raise self._fail(position, f"alias *{name} stands inside its own anchor")
        known = self._anchors.get(name)
        if known is None:
            raise self._fail(position, f"alias *{name} has no anchor &{name} before it")
        node, size = known
        self._count(size, position)
        top = stack[-1] if stack else None
        if top is not None and top.entries is not None and top.key is None:
            self._check_key(node.value, str(node.value), position)
            self._set_key(top, str(node.value), position)
            return None
        return self._add(node, size, None, stack)

    def _check_key(self, value: object, text: str, position: Position) -> None:
        if isinstance(value, (dict, list)):
            raise self._fail(position, "a mapping's key must be a string, not a collection")
        if not isinstance(value, str):
            raise self._fail(position, f'key {text or "null"} is not a string: write "{text}" in quotes')

    def _set_key(self, top: _Open, key: str, position: Position) -> None:
        if key in top.keys:
            raise self._twice(key, position, top.keys[key])
        top.keys[key] = position
        top.key = key

    def _set_merge(self, top: _Open, position: Position) -> None:
        if top.merge_at is not None:
            raise self._twice("<<", position, top.merge_at)
        top.merge_at = position
        top.key = "<<"
        top.merging = True

    @staticmethod
    def _twice(key: str, position: Position, first: Position) -> ComposeErrors:
        message = f'key "{key}" is set twice in one mapping'
        return ComposeErrors([Problem(message, "", position, (("first", first),))])

    def _add(self, node: Node, size: int, anchor: str | None, stack: list[_Open]) -> Node | None:
        """Put a finished node where it belongs; returns it when it is a document's root."""
        if anchor:
            self._anchors[anchor] = (node, size)
        if not stack:
            return node
        top = stack[-1]
        top.size += size
        if top.entries is None:
            top.items.append(node)
        elif top.key is None:  # an anchored scalar as a key
            self._check_key(node.value, str(node.value), node.pos)
            self._set_key(top, str(node.value), node.pos)
        elif top.merging:
            top.merges.append(node)
            top.key, top.merging = None, False
        else:
            top.entries[top.key] = node
            top.key = None
        return None
