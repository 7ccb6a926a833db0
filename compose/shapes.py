"""The kinds of values in a Compose file: each checks what was written and returns its canonical form.

A `Shape` takes a node as written (after variables were filled in), reports every mistake in it with its
place, and returns the long form: short syntaxes expanded, numbers and booleans out of strings, sizes in
bytes, durations as Go prints them. The tables in `compose.schema` are made of these.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol, TypeGuard

from compose.errors import Report, near_miss
from compose.tree import Node, child_path, type_name, written
from compose.units import (
    format_duration,
    number_text,
    parse_duration,
    parse_float,
    parse_integer,
    parse_size,
)


class Shape(Protocol):
    """What a value may look like."""

    expected: str
    """What was expected, for messages: "a string", "a list"."""

    def read(self, node: Node, path: str, report: Report) -> Node:
        """The canonical form of `node`. Mistakes are reported; what comes back is then good enough for
        the reading to go on."""
        ...


def wrong_type(shape: str, node: Node, path: str, report: Report, hint: str = "") -> Node:
    """Report a value of the wrong type."""
    via = f", from {node.via}" if node.via else ""
    report.error(f"must be {shape}, not {type_name(node.value)}{via}{hint}", path, node.pos)
    return node


def shown(value: object) -> str:
    """A value in a message, cut to a readable length."""
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def wrong_value(message: str, node: Node, path: str, report: Report) -> Node:
    """Report a value that has the right type and is wrong; names the variables that made it."""
    if report.templates and "$" in node.text():
        return node
    via = f" (from {node.via})" if node.via else ""
    report.error(message + via, path, node.pos)
    return node


def scalar_text(value: object) -> str:
    """A scalar as the string that a container would see."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return number_text(value)
    return "" if value is None else str(value)


class Text:
    """A string. Numbers are refused, as the specification does, with the advice to quote them."""

    expected = "a string"

    def __init__(self, pattern: str = "", what: str = "", nullable: bool = False, empty: bool = True) -> None:
        self._pattern = re.compile(pattern) if pattern else None
        self._what = what
        self._nullable = nullable
        self._empty = empty

    def read(self, node: Node, path: str, report: Report) -> Node:
        value = node.value
        if isinstance(value, str):
            if self._pattern is not None and not self._pattern.search(value):
                return wrong_value(f'"{shown(value)}" is not {self._what}', node, path, report)
            if not value and not self._empty:
                return wrong_value("must not be empty", node, path, report)
            return node
        if value is None and self._nullable:
            return node
        hint = ""
        if isinstance(value, (bool, int, float)):
            hint = f': write "{written(node)}" in quotes'
        return wrong_type(self.expected, node, path, report, hint)


class AnyScalarText:
    """A string, number or boolean, kept as a string."""

    expected = "a string or number"

    def __init__(self, nullable: bool = False, booleans: bool = False) -> None:
        self._nullable = nullable
        self._booleans = booleans

    def read(self, node: Node, path: str, report: Report) -> Node:
        value = node.value
        if isinstance(value, str):
            return node
        if isinstance(value, bool) and not self._booleans:
            return wrong_type(self.expected, node, path, report)
        if isinstance(value, (int, float)):
            return node.replaced(scalar_text(value))
        if value is None and self._nullable:
            return node.replaced("")
        return wrong_type(self.expected, node, path, report)


class Enum:
    """One of some words."""

    def __init__(self, *words: str) -> None:
        self._words = words
        self.expected = "one of " + ", ".join(words)

    def read(self, node: Node, path: str, report: Report) -> Node:
        value = node.value
        if not isinstance(value, str):
            return wrong_type("a string", node, path, report)
        if value in self._words:
            return node
        hint = "" if report.full else near_miss(value, self._words)
        message = f'"{shown(value)}" is not {self.expected}{hint}'
        return wrong_value(message, node, path, report)


_TRUE = frozenset(("true", "y", "yes", "on"))
_FALSE = frozenset(("false", "n", "no", "off"))


class Bool:
    """A boolean; also as a string where a variable may stand."""

    expected = "true or false"

    def __init__(self, strict: bool = False) -> None:
        self._strict = strict

    def read(self, node: Node, path: str, report: Report) -> Node:
        value = node.value
        if isinstance(value, bool):
            return node
        if isinstance(value, str) and (not self._strict or node.via):
            word = value.lower()
            if word in _TRUE or word in _FALSE:
                meant = word in _TRUE
                if word in ("y", "yes", "on", "n", "no", "off") and not node.via:
                    report.warn(
                        f'"{value}" is a string in YAML 1.2: write {str(meant).lower()}', path, node.pos
                    )
                return node.replaced(meant)
            return wrong_value(f'"{shown(value)}" is not true or false', node, path, report)
        return wrong_type(self.expected, node, path, report)


class Int:
    """A whole number; also as a string."""

    expected = "a whole number"

    def __init__(
        self, low: int | None = None, high: int | None = None, strings: bool = True, floats: bool = False
    ) -> None:
        self._low = low
        self._high = high
        self._strings = strings
        self._floats = floats

    def read(self, node: Node, path: str, report: Report) -> Node:
        value = node.value
        if isinstance(value, str) and (self._strings or node.via):
            number = parse_integer(value)
            if number is None:
                return wrong_value(f'"{shown(value)}" is not a whole number', node, path, report)
            value = number
        if isinstance(value, float) and (self._floats or value.is_integer()):
            value = int(value) if abs(value) < 2**63 else 2**63
        if isinstance(value, bool) or not isinstance(value, int):
            return wrong_type(self.expected, node, path, report)
        if self._low is not None and value < self._low:
            return wrong_value(f"{value} is below {self._low}", node, path, report)
        if self._high is not None and value > self._high:
            return wrong_value(f"{value} is above {self._high}", node, path, report)
        if abs(value) >= 2**64:
            return wrong_value(f"{shown(value)} is too large", node, path, report)
        return node if value is node.value else node.replaced(value)


class Float:
    """A number; also as a string."""

    expected = "a number"

    def __init__(self, low: float | None = None) -> None:
        self._low = low

    def read(self, node: Node, path: str, report: Report) -> Node:
        value = node.value
        if isinstance(value, str):
            number = parse_float(value)
            if number is None:
                return wrong_value(f'"{shown(value)}" is not a number', node, path, report)
            value = number
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return wrong_type(self.expected, node, path, report)
        if value != value or abs(value) > 1e300:
            return wrong_value(f"{value} is not a usable number", node, path, report)
        if self._low is not None and value < self._low:
            return wrong_value(f"{number_text(value)} is below {number_text(self._low)}", node, path, report)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return node.replaced(value)


class Size:
    """An amount of bytes: a number, or a string with a unit (b, k, m, g, kb, ...). Canonical: the number
    of bytes, as a string, which is how Compose prints it."""

    expected = "a size such as 64m"

    def __init__(self, numbers: bool = True, negative: bool = True, floats: bool = True) -> None:
        self._numbers = numbers
        self._floats = floats
        self._negative = negative

    def read(self, node: Node, path: str, report: Report) -> Node:
        value = node.value
        if isinstance(value, str):
            size = parse_size(value)
            if size is None:
                message = f'"{shown(value)}" is not a size: write bytes, or a number with k, m or g'
                return wrong_value(message, node, path, report)
        elif self._numbers and self._is_number(value):
            size = int(value) if abs(value) < 2**63 else 2**63
        else:
            hint = f': write "{written(node)}" in quotes' if isinstance(value, (int, float)) else ""
            return wrong_type(self.expected, node, path, report, hint)
        if size < 0 and not self._negative:
            return wrong_value(f"{size} is below 0", node, path, report)
        if abs(size) >= 2**63:
            return wrong_value(f"{shown(value)} is too large", node, path, report)
        return node.replaced(str(size))

    def _is_number(self, value: object) -> TypeGuard[int | float]:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        return self._floats or isinstance(value, int) or value.is_integer()


class Duration:
    """A span of time: `1h30m`, `10s`, `500ms`."""

    expected = "a duration such as 10s"

    def read(self, node: Node, path: str, report: Report) -> Node:
        value = node.value
        if not isinstance(value, str):
            hint = f': write "{value}s" for seconds' if isinstance(value, (int, float)) else ""
            return wrong_type(self.expected, node, path, report, hint)
        span = parse_duration(value)
        if span is None:
            message = f'"{shown(value)}" is not a duration: write a number with ms, s, m or h'
            return wrong_value(message, node, path, report)
        return node.replaced(format_duration(span))


class Microseconds:
    """A scheduler period: microseconds as a number, or a duration."""

    expected = "microseconds or a duration"

    def read(self, node: Node, path: str, report: Report) -> Node:
        value = node.value
        if isinstance(value, str):
            number = parse_integer(value)
            if number is None:
                span = parse_duration(value)
                if span is None:
                    return wrong_value(f'"{shown(value)}" is not {self.expected}', node, path, report)
                number = span // 1000
            value = number
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return wrong_type(self.expected, node, path, report)
        return node.replaced(int(value))


class ListOf:
    """A list of one shape."""

    expected = "a list"

    def __init__(
        self,
        item: Shape,
        repeats: Literal["kept", "dropped", "refused"] = "kept",
        scalar: bool = False,
        nullable: bool = False,
    ) -> None:
        """`repeats`: what happens to the same plain value twice. `scalar`: a single item may stand
        without its list. `nullable`: the list may be left empty."""
        self.inner = item
        self._repeats = repeats
        self._scalar = scalar
        self._nullable = nullable
        if scalar:
            self.expected = "a string or a list"

    def read(self, node: Node, path: str, report: Report) -> Node:
        value = node.value
        if isinstance(value, list):
            items = [self.inner.read(item, f"{path}[{i}]", report) for i, item in enumerate(value)]
            if self._repeats == "refused":
                _refuse_repeats(value, path, report)
            elif self._repeats == "dropped":
                items = _drop_repeats(items)
            return node.replaced(items)
        if self._scalar and isinstance(value, str):
            return Node([self.inner.read(node, path, report)], node.pos, None, node.tag)
        if value is None and self._nullable:
            return node
        return wrong_type(self.expected, node, path, report)


def _refuse_repeats(items: Sequence[Node], path: str, report: Report) -> None:
    seen: dict[object, int] = {}
    for index, item in enumerate(items):
        value = item.value
        if isinstance(value, (dict, list)):
            continue
        key = (type(value), value)
        if key in seen:
            message = f'"{shown(value)}" is listed twice (first as item {seen[key]})'
            report.error(message, f"{path}[{index}]", item.pos)
        else:
            seen[key] = index


def _drop_repeats(items: list[Node]) -> list[Node]:
    found: dict[object, Node] = {}
    for item in items:
        value = item.value
        found[id(item) if isinstance(value, (dict, list)) else (type(value), value)] = item
    return list(found.values())


class MapOf:
    """A mapping from names to one shape."""

    expected = "a mapping"

    def __init__(self, item: Shape, key: str = "", what: str = "a name", extensions: bool = False) -> None:
        self.inner = item
        self._key = re.compile(key) if key else None
        self._what = what
        self._extensions = extensions

    def read(self, node: Node, path: str, report: Report) -> Node:
        value = node.value
        if not isinstance(value, dict):
            return wrong_type(self.expected, node, path, report)
        entries: dict[str, Node] = {}
        for key, child in value.items():
            place = child_path(path, key)
            if self._extensions and key.startswith("x-"):
                entries[key] = child
                continue
            if self._key is not None and not self._key.fullmatch(key):
                report.error(f'"{shown(key)}" is not {self._what}', path, node.key_position(key))
                continue
            entries[key] = child if child.tag == "!reset" else self.inner.read(child, place, report)
        return node.replaced(entries)


class Obj:
    """A mapping with known keys."""

    expected = "a mapping"

    def __init__(
        self,
        fields: Mapping[str, Shape],
        required: Sequence[str] = (),
        nullable: bool = False,
        extensions: bool = True,
        open_ended: bool = False,
        deprecated: Mapping[str, str] | None = None,
    ) -> None:
        self.fields = dict(fields)
        self._required = tuple(required)
        self._nullable = nullable
        self._extensions = extensions
        self._open = open_ended
        self._deprecated = dict(deprecated or {})

    def read(self, node: Node, path: str, report: Report) -> Node:
        value = node.value
        if value is None and self._nullable:
            return node
        if not isinstance(value, dict):
            return wrong_type(self.expected, node, path, report)
        entries: dict[str, Node] = {}
        for key, child in value.items():
            shape = self.fields.get(key)
            if shape is None:
                if (key.startswith("x-") and self._extensions) or self._open:
                    entries[key] = child
                else:
                    self._unknown(node, key, path, report)
                continue
            if child.tag == "!reset":
                entries[key] = child
            else:
                entries[key] = shape.read(child, f"{path}.{key}" if path else key, report)
        for key in self._required:
            if key not in value:
                report.error(f'key "{key}" is missing', path, node.pos)
        return node.replaced(entries)

    def _unknown(self, node: Node, key: str, path: str, report: Report) -> None:
        advice = self._deprecated.get(key)
        hint = f": {advice}" if advice else "" if report.full else near_miss(key, tuple(self.fields))
        report.error(f'unknown key "{shown(key)}"{hint}', path, node.key_position(key))


class MapOrList:
    """A mapping, or a list of `KEY=value`; canonical: a mapping to strings.

    `bare` is what a name without a value gets: None (to be looked up) or "".
    """

    expected = "a mapping or a list of KEY=value"

    def __init__(self, bare: str | None = "", separator: str = "=") -> None:
        self._bare = bare
        self._separator = separator

    def read(self, node: Node, path: str, report: Report) -> Node:
        value = node.value
        if isinstance(value, dict):
            return node.replaced(self._from_mapping(node, value, path, report))
        if isinstance(value, list):
            return self._from_list(node, value, path, report)
        return wrong_type(self.expected, node, path, report)

    def _from_mapping(self, node: Node, value: dict[str, Node], path: str, report: Report) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        for key, child in value.items():
            content = child.value
            if child.tag == "!reset" or isinstance(content, str):
                entries[key] = child
            elif content is None:
                entries[key] = child.replaced(self._bare)
            elif isinstance(content, (dict, list)):
                wrong_type("a string, number, boolean or null", child, child_path(path, key), report)
            else:
                entries[key] = child.replaced(scalar_text(content))
            if not key:
                report.error("a name must not be empty", path, node.key_position(key))
        return entries

    def _from_list(self, node: Node, value: list[Node], path: str, report: Report) -> Node:
        entries: dict[str, Node] = {}
        keys = {}
        for index, item in enumerate(value):
            text = item.value
            place = f"{path}[{index}]"
            if not isinstance(text, str):
                hint = f': write "{written(item)}" in quotes' if isinstance(text, (int, float)) else ""
                wrong_type("a string", item, place, report, hint)
                continue
            name, equals, rest = text.partition(self._separator)
            if not name:
                report.error(f'"{shown(text)}" has no name before "{self._separator}"', place, item.pos)
                continue
            entries[name] = item.replaced(rest if equals else self._bare)
            keys[name] = item.pos
        return Node(entries, node.pos, keys, node.tag)


class Custom:
    """A shape whose whole reading is one function. `inner` is the shape of its long form, if it has one."""

    def __init__(
        self, expected: str, read: Callable[[Node, str, Report], Node], inner: Shape | None = None
    ) -> None:
        self.expected = expected
        self._read = read
        self.inner = inner

    def read(self, node: Node, path: str, report: Report) -> Node:
        return self._read(node, path, report)


class ShortOrObj:
    """A string in a short syntax, or the mapping it stands for."""

    def __init__(self, expected: str, short: Callable[[Node, str, str, Report], Node], obj: Shape) -> None:
        """`short(node, text, path, report)` returns the mapping node that `obj` then reads."""
        self.expected = expected
        self._short = short
        self.inner = obj

    def read(self, node: Node, path: str, report: Report) -> Node:
        value = node.value
        if isinstance(value, str):
            return self._short(node, value, path, report)
        if isinstance(value, dict):
            return self.inner.read(node, path, report)
        return wrong_type(self.expected, node, path, report)


class Anything:
    """Whatever YAML can say."""

    expected = "anything"

    def read(self, node: Node, path: str, report: Report) -> Node:
        return node
