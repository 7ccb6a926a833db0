"""`.env` and `env_file`: the grammar that Compose reads environment files by.

`NAME=value` or `NAME: value`, `export` in front allowed; a bare `NAME` takes the value of the environment
around. Unquoted values end at the line's end or at ` #`; single quotes are literal; double quotes
know the shell's escapes; unquoted and double-quoted values have their variables filled in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from compose.errors import ComposeErrors, Position, Problem, Source
from compose.interpolate import Substitution, TemplateError

Lookup = Callable[[str], "str | None"]
_SPACES = "\t\v\f\r \x85\xa0"
_EXPORT = re.compile(r"export[\t\v\f\r \x85\xa0]+")
_ESCAPE = re.compile(r"""\\(?:([abcfnrtv$"\\])|(0\d{0,3}))""")
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", '"': '"', "\\": "\\"}


def nothing(_name: str) -> str | None:
    """A lookup that knows no variable."""
    return None


class _Environment(Mapping[str, str]):
    """The variables a value may use: those around first, then those above it in the file."""

    def __init__(self, lookup: Lookup, above: Mapping[str, str]) -> None:
        self._lookup = lookup
        self._above = above

    def __getitem__(self, name: str) -> str:
        value = self._lookup(name)
        return self._above[name] if value is None else value

    def __iter__(self):
        return iter(self._above)

    def __len__(self) -> int:
        return len(self._above)


def parse(source: Source, lookup: Lookup = nothing, above: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of an environment file. `lookup` is the environment around it, which wins in
    expansions; `above` holds those of files read before. Raises ComposeErrors with the line."""
    return _Parser(source, lookup, above or {}).parse()


def parse_raw(source: Source, lookup: Lookup = nothing) -> dict[str, str]:
    """`format: raw`: each line is NAME=value as it stands, without quotes, comments behind or variables."""
    found: dict[str, str] = {}
    for number, line in enumerate(source.text.split("\n"), 1):
        line = line.rstrip("\r").lstrip()
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not name or any(char.isspace() for char in name):
            raise _error(source, number, f'variable name "{name}" is empty or holds white space')
        if equals:
            found[name] = value
        elif (inherited := lookup(name)) is not None:
            found[name] = inherited
    return found


def _error(source: Source, line: int, message: str) -> ComposeErrors:
    return ComposeErrors([Problem(message, "", Position(source, line, 1))])


class _Parser:
    def __init__(self, source: Source, lookup: Lookup, above: Mapping[str, str]) -> None:
        self._source = source
        self._text = source.text
        self._lookup = lookup
        self._above = above
        self._at = 0

    def parse(self) -> dict[str, str]:
        found: dict[str, str] = {}
        known = dict(self._above)
        while self._to_statement():
            name, inherited = self._name()
            if inherited:
                value = self._lookup(name)
                if value is None:
                    continue
            else:
                value = self._value(_Environment(self._lookup, known))
            if not name[:1].isdigit():
                found[name] = known[name] = value
        return found

    def _line(self, at: int) -> int:
        return self._text.count("\n", 0, at) + 1

    def _to_statement(self) -> bool:
        """Skip blank lines and comments; False at the end of the file."""
        text = self._text
        while self._at < len(text):
            if text[self._at].isspace():
                self._at += 1
            elif text[self._at] == "#":
                end = text.find("\n", self._at)
                self._at = len(text) if end < 0 else end
            else:
                return True
        return False

    def _name(self) -> tuple[str, bool]:
        """The name of the statement, and whether it stands alone on its line."""
        text = self._text
        export = _EXPORT.match(text, self._at)
        if export is not None:
            self._at = export.end()
        start = end = self._at
        while end < len(text) and text[end] not in "=:\n":
            char = text[end]
            if char not in _SPACES and char not in "_.-[]" and not char.isalpha() and not char.isnumeric():
                rest = text[start:].split("\n", 1)[0]
                raise _error(
                    self._source,
                    self._line(self._at),
                    f'unexpected character "{char}" in variable name "{rest}": write NAME=value',
                )
            end += 1
        name = text[start:end].rstrip()
        if " " in name:
            raise _error(
                self._source, self._line(self._at), f'variable name "{name}" holds a space: write NAME=value'
            )
        alone = end >= len(text) or text[end] == "\n"
        self._at = min(end + 1, len(text))
        while self._at < len(text) and text[self._at] in _SPACES:
            self._at += 1
        return name, alone

    def _value(self, environment: Mapping[str, str]) -> str:
        quote = self._text[self._at : self._at + 1]
        if quote in ("'", '"'):
            return self._quoted(quote, environment)
        start = self._at
        end = self._text.find("\n", self._at)
        end = len(self._text) if end < 0 else end
        value = self._text[self._at : end].split(" #", 1)[0].rstrip()
        self._at = min(end + 1, len(self._text))
        return self._expand(value, environment, start)

    def _quoted(self, quote: str, environment: Mapping[str, str]) -> str:
        start = self._at
        chars: list[str] = []
        escaped = False
        for index in range(self._at + 1, len(self._text)):
            char = self._text[index]
            if char == quote:
                if not escaped:
                    self._at = index + 1
                    value = "".join(chars)
                    return value if quote == "'" else self._expand(_unescape(value), environment, start)
                escaped = False
                chars.append(char)
            elif char == "\\" and not escaped:
                escaped = True
            else:
                if escaped:
                    chars.append("\\")
                    escaped = False
                chars.append(char)
        shown = self._text[self._at :].split("\n", 1)[0]
        raise _error(self._source, self._line(start), f"quoted value {shown} has no closing {quote}")

    def _expand(self, value: str, environment: Mapping[str, str], start: int) -> str:
        if "$" not in value:
            return value
        try:
            return Substitution(environment).fill(value)
        except TemplateError as error:
            raise _error(self._source, self._line(start), str(error)) from None


def _unescape(value: str) -> str:
    if "\\" not in value:
        return value

    def replace(match: re.Match[str]) -> str:
        char, octal = match.groups()
        if octal is not None:
            digits = octal[1:]
            if len(digits) == 3 and all(digit in "01234567" for digit in digits) and int(digits, 8) < 256:
                return chr(int(digits, 8))
            return match.group()
        if char == "$":
            return "$$"
        return _ESCAPES.get(char, match.group())

    return _ESCAPE.sub(replace, value)
