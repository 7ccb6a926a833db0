"""Variables in values: `$NAME`, `${NAME}` and all of the Compose Specification's operators, nested.

`${A:-x}` unset or empty, `${A-x}` unset; `${A:?x}` and `${A?x}` demand a value; `${A:+x}` and `${A+x}`
replace one; `$$` is a dollar sign, and so is a `$` before anything that cannot start a name. What stands
behind an operator may hold variables itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from compose.errors import Report
from compose.tree import Node, child_path

MAX_NESTING = 50
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BRACE = re.compile(r"\$\{|\}")
_OPERATORS = (":-", ":?", ":+", "-", "?", "+")


class TemplateError(Exception):
    """A template that cannot be filled in. `str()` says why."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable that a file uses: what `compose config --variables` lists."""

    name: str
    required: bool = False
    default: str = ""
    alternate: str = ""


class Substitution:
    """Fills templates from an environment and remembers which variables had no value."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.unset: list[str] = []
        self.used: list[str] = []

    def fill(self, template: str, depth: int = 0) -> str:
        """`template` with its variables replaced. Raises TemplateError."""
        if depth > MAX_NESTING:
            raise TemplateError(f"variables are nested more than {MAX_NESTING} deep")
        parts: list[str] = []
        start = 0
        while (dollar := template.find("$", start)) >= 0:
            parts.append(template[start:dollar])
            text, start = self._one(template, dollar, depth)
            parts.append(text)
        parts.append(template[start:])
        return "".join(parts)

    def _one(self, template: str, dollar: int, depth: int) -> tuple[str, int]:
        """The text for what starts at `dollar`, and where to go on."""
        following = template[dollar + 1 : dollar + 2]
        if following == "$":
            return "$", dollar + 2
        if following == "{":
            end = closing_brace(template, dollar)
            if end < 0:
                raise _malformed(template)
            return self._braced(template, template[dollar + 2 : end], depth), end + 1
        name = _NAME.match(template, dollar + 1)
        if name is None:
            return "$", dollar + 1
        return self._value(name.group()), name.end()

    def _value(self, name: str) -> str:
        self.used.append(name)
        value = self.environment.get(name)
        if value is None:
            self.unset.append(name)
            return ""
        return value

    def _braced(self, template: str, body: str, depth: int) -> str:
        name, operator, rest = split_braced(body)
        if not name:
            raise _malformed(template)
        if not operator:
            return self._value(name)
        self.used.append(name)
        value = self.environment.get(name)
        present = bool(value) if operator.startswith(":") else value is not None
        kind = operator[-1]
        if kind == "+":
            return self.fill(rest, depth + 1) if present else ""
        if present:
            return value or ""
        if kind == "-":
            return self.fill(rest, depth + 1)
        reason = self.fill(rest, depth + 1)
        raise TemplateError(
            f"required variable {name} is missing a value" + (f": {reason}" if reason else "")
        )


def _malformed(template: str) -> TemplateError:
    shown = template if len(template) <= 80 else template[:77] + "..."
    return TemplateError(f'invalid interpolation "{shown}": write $$ for a dollar sign')


def closing_brace(template: str, dollar: int) -> int:
    """Index of the `}` that ends the `${` at `dollar`, or -1."""
    open_braces = 0
    for brace in _BRACE.finditer(template, dollar):
        open_braces += 1 if brace.group() == "${" else -1
        if not open_braces:
            return brace.start()
    return -1


def split_braced(body: str) -> tuple[str, str, str]:
    """Name, operator and operand of what stands between the braces; the name is "" when malformed."""
    name = _NAME.match(body)
    if name is None:
        return "", "", ""
    rest = body[name.end() :]
    if not rest:
        return name.group(), "", ""
    for operator in _OPERATORS:
        if rest.startswith(operator):
            return name.group(), operator, rest[len(operator) :]
    return "", "", ""


def interpolate(node: Node, environment: Mapping[str, str], report: Report, path: str = "") -> Node:
    """The tree with the variables of every string value filled in; keys are left alone.

    Mistakes go to `report`, and so does each variable without a value, once.
    """
    return _Interpolation(environment, report).walk(node, path)


class _Interpolation:
    def __init__(self, environment: Mapping[str, str], report: Report) -> None:
        self._environment = environment
        self._report = report
        self._warned: set[str] = set()

    def walk(self, node: Node, path: str) -> Node:
        value = node.value
        if isinstance(value, str):
            return self._text(node, value, path) if "$" in value else node
        if isinstance(value, dict):
            changed = False
            entries: dict[str, Node] = {}
            for key, child in value.items():
                new = self.walk(child, child_path(path, key))
                changed = changed or new is not child
                entries[key] = new
            return node.replaced(entries) if changed else node
        if isinstance(value, list):
            items = [self.walk(child, f"{path}[{index}]") for index, child in enumerate(value)]
            same = all(new is old for new, old in zip(items, value, strict=True))
            return node if same else node.replaced(items)
        return node

    def _text(self, node: Node, template: str, path: str) -> Node:
        substitution = Substitution(self._environment)
        try:
            filled = substitution.fill(template)
        except TemplateError as error:
            self._report.error(str(error), path, node.pos)
            return Node("", node.pos, None, node.tag)
        for name in substitution.unset:
            if name not in self._warned:
                self._warned.add(name)
                self._report.warn(f'variable "{name}" is not set: it becomes an empty string', path, node.pos)
        via = ", ".join(f"${{{name}}}" for name in dict.fromkeys(substitution.used))
        return Node(filled, node.pos, None, node.tag, via)


def variables(node: Node) -> list[Variable]:
    """Every variable that the tree's values use, in order of first use."""
    found: dict[str, Variable] = {}
    pending = [node]
    while pending:
        current = pending.pop()
        value = current.value
        if isinstance(value, dict):
            pending.extend(reversed(list(value.values())))
        elif isinstance(value, list):
            pending.extend(reversed(value))
        elif isinstance(value, str) and "$" in value:
            _collect(value, found, 0)
    return list(found.values())


def _collect(template: str, found: dict[str, Variable], depth: int) -> None:
    start = 0
    while depth <= MAX_NESTING and (dollar := template.find("$", start)) >= 0:
        start = dollar + 2
        if template.startswith("${", dollar):
            end = closing_brace(template, dollar)
            if end < 0:
                return
            name, operator, rest = split_braced(template[dollar + 2 : end])
            start = end + 1
            if name:
                kind = operator[-1:]
                found.setdefault(
                    name,
                    Variable(
                        name,
                        kind == "?",
                        rest if kind == "-" else "",
                        rest if kind == "+" else "",
                    ),
                )
                _collect(rest, found, depth + 1)
        elif not template.startswith("$$", dollar):
            match = _NAME.match(template, dollar + 1)
            if match is not None:
                found.setdefault(match.group(), Variable(match.group()))
                start = match.end()
