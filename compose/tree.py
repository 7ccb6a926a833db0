"""The tree that all passes work on: YAML values that know where they were written."""

from __future__ import annotations

import re

from compose.errors import NOWHERE, Position

Scalar = str | int | float | bool | None


class Node:
    """One value with its place. Passes replace nodes and never change one that they did not make.

    `value` is a scalar, a dict of nodes or a list of nodes. `keys` holds, for a mapping, where each key
    stands. `tag` is `!reset`, `!override` or "". `via` names the variables that made the value.
    """

    __slots__ = ("keys", "pos", "tag", "value", "via")

    def __init__(
        self,
        value: Scalar | dict[str, Node] | list[Node],
        pos: Position = NOWHERE,
        keys: dict[str, Position] | None = None,
        tag: str = "",
        via: str = "",
    ) -> None:
        self.value = value
        self.pos = pos
        self.keys = keys
        self.tag = tag
        self.via = via

    def key_position(self, key: str) -> Position:
        """Where `key` of this mapping was written; the mapping's own place if unknown."""
        if self.keys is not None:
            return self.keys.get(key, self.pos)
        return self.pos

    def get(self, key: str) -> Node | None:
        """The value of `key` when this is a mapping that has it."""
        value = self.value
        return value.get(key) if isinstance(value, dict) else None

    def replaced(self, value: Scalar | dict[str, Node] | list[Node]) -> Node:
        """The same place with another value."""
        return Node(value, self.pos, self.keys, self.tag, self.via)

    def text(self) -> str:
        """The value if it is a string, else ""."""
        return self.value if isinstance(self.value, str) else ""

    def __repr__(self) -> str:
        return f"Node({self.value!r})"


_TOKEN = re.compile(r"[^\s,\]}#]+")


def written(node: Node) -> str:
    """A plain scalar as it stands in its file: `1.0`, where the value is 1.0 and would print as 1."""
    line = node.pos.source.line(node.pos.line)
    token = _TOKEN.match(line, max(node.pos.column - 1, 0))
    return token.group() if token is not None else str(node.value)


def mapping(node: Node | None) -> dict[str, Node]:
    """The entries of a mapping node; an empty dict for anything else."""
    if node is not None and isinstance(node.value, dict):
        return node.value
    return {}


def sequence(node: Node | None) -> list[Node]:
    """The items of a sequence node; an empty list for anything else."""
    if node is not None and isinstance(node.value, list):
        return node.value
    return []


def plain(node: Node) -> object:
    """The value without places, as `json.dumps` takes it."""
    value = node.value
    if isinstance(value, dict):
        return {key: plain(child) for key, child in value.items()}
    if isinstance(value, list):
        return [plain(child) for child in value]
    return value


def type_name(value: object) -> str:
    """The name of a value's type in the words of YAML's users."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "a mapping" if isinstance(value, dict) else "a list"


def child_path(path: str, key: str) -> str:
    """`path.key`, with quotes round keys that hold dots or spaces."""
    if "." in key or " " in key or not key:
        key = f'"{key}"'
    return f"{path}.{key}" if path else key
