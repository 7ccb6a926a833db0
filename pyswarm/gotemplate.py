"""Go's text/template, as far as people type it after docker's `--format`.

All of the language is here: fields, chains, pipelines, variables, `if`, `range`, `with`, `define`,
`template`, `block`, `break`, `continue`, comments, trim markers, the predefined functions, and docker's own
(`json join split title lower upper pad truncate`). Errors carry Go's wording and positions, so that scripts
and people meet the message they know. The language: https://pkg.go.dev/text/template

Data are plain Python values. A `dict` is a Go map (a missing key prints `<no value>`), a `Struct` is a Go
struct (an unknown field is an error), a callable in either is a method, `Time` and `Duration` print as Go
prints them and stay string and number in JSON.
"""

from __future__ import annotations

import json as jsonlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn
from urllib.parse import quote_plus

from pyswarm.errors import Invalid

# Values of templates are whatever JSON can hold, and callables: nothing narrower than Any describes them.
Value = Any


class TemplateError(Invalid):
    """The template is malformed, or asks for something that the data does not have. Go's message."""


class Struct(dict[str, Value]):
    """A Go struct: a fixed set of fields. `zero` are fields that JSON omits while they are empty."""

    __slots__ = ("go_type", "zero")

    def __init__(
        self,
        fields: Mapping[str, Value] | None = None,
        zero: Mapping[str, Value] | None = None,
        go_type: str = "struct",
    ) -> None:
        super().__init__(fields or {})
        self.zero: Mapping[str, Value] = zero or {}
        self.go_type = go_type


class Row(Struct):
    """A struct that marshals itself through Go's encoder: its JSON has `<`, `>` and `&` escaped. Docker's rows
    of `ls` are such."""

    __slots__ = ()


class Time(str):
    """An RFC 3339 time in UTC: itself in JSON, `2026-01-02 03:04:05 +0000 UTC` when printed."""

    __slots__ = ()

    def shown(self) -> str:
        stamp = self.rstrip("Z").replace("T", " ")
        if "." in stamp:
            stamp = stamp.rstrip("0").rstrip(".")
        return stamp + " +0000 UTC"


class Duration(int):
    """Nanoseconds: a number in JSON, `1m30s` when printed."""

    def shown(self) -> str:
        return duration_text(int(self))


def duration_text(nanos: int) -> str:
    """Nanoseconds as Go's time.Duration prints them: `0s`, `1.5ms`, `1h0m5s`."""
    sign, nanos = ("-", -nanos) if nanos < 0 else ("", nanos)
    if nanos == 0:
        return "0s"
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if nanos < size * 1000:
            return f"{sign}{_fraction(nanos, size)}{unit}"
    minutes, rest = divmod(nanos, 60_000_000_000)
    seconds = _fraction(rest, 1_000_000_000)
    if not minutes:
        return f"{sign}{seconds}s"
    hours, minutes = divmod(minutes, 60)
    return f"{sign}{f'{hours}h' if hours else ''}{minutes}m{seconds}s"


def _fraction(nanos: int, unit: int) -> str:
    whole, rest = divmod(nanos, unit)
    digits = str(rest).rjust(len(str(unit)) - 1, "0").rstrip("0") if rest else ""
    return f"{whole}.{digits}" if digits else str(whole)


class _NoValue:
    """Go's invalid reflect.Value: what a missing key of a map gives."""

    def __repr__(self) -> str:
        return "<no value>"


NO_VALUE = _NoValue()

# ------------------------------------------------------------------------------------------------- lexing


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    pos: int


_SPACE = " \t\r\n"
_NUMBER = re.compile(
    r"[+-]?(?:0[xX][0-9a-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+|[0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][+-]?[0-9]+)?"
    r"|\.[0-9]+(?:[eE][+-]?[0-9]+)?)"
)
_WORD = re.compile(r"[^\W\d]\w*|_\w*")
_KEYWORDS = frozenset(
    ("break", "continue", "block", "define", "else", "end", "if", "range", "template", "with")
)


class _Lexer:
    """Splits a template into text and the tokens of its actions."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.tokens: list[_Token] = []
        self._run()

    def line(self, pos: int) -> int:
        return self.source.count("\n", 0, pos) + 1

    def fail(self, pos: int, message: str) -> NoReturn:
        raise TemplateError(f"template: :{self.line(pos)}: {message}")

    def _run(self) -> None:
        pos, trim = 0, False
        while True:
            start = self.source.find("{{", pos)
            text = self.source[pos:] if start < 0 else self.source[pos:start]
            if trim:
                pos += len(text) - len(text.lstrip(_SPACE))
                text = text.lstrip(_SPACE)
            if start < 0:
                self._text(text, pos)
                self.tokens.append(_Token("eof", "", len(self.source)))
                return
            inside = start + 2
            if self.source.startswith("-", inside) and self.source[inside + 1 : inside + 2] in tuple(_SPACE):
                text = text.rstrip(_SPACE)
                inside += 2
            self._text(text, pos)
            pos, trim = self._action(start, inside)

    def _text(self, text: str, pos: int) -> None:
        if text:
            self.tokens.append(_Token("text", text, pos))

    def _closing(self, pos: int) -> tuple[int, bool] | None:
        """Where the action ends if it ends at `pos`, and whether the text after it is trimmed."""
        if self.source.startswith("}}", pos):
            return pos + 2, False
        if self.source[pos : pos + 1] in tuple(_SPACE) and self.source.startswith("-}}", pos + 1):
            return pos + 4, True
        return None

    def _action(self, start: int, pos: int) -> tuple[int, bool]:
        if self.source.startswith("/*", pos):
            return self._comment(pos)
        self.tokens.append(_Token("open", "{{", start))
        depth = 0
        while True:
            closing = self._closing(pos)
            if closing is not None:
                if depth:
                    self.fail(pos, "unclosed left paren")
                self.tokens.append(_Token("close", "}}", pos))
                return closing
            if pos >= len(self.source):
                self.fail(start, "unclosed action")
            token = self._token(pos)
            depth += {"(": 1, ")": -1}.get(token.kind, 0)
            if depth < 0:
                self.fail(pos, "unexpected right paren")
            self.tokens.append(token)
            pos += len(token.text)

    def _comment(self, pos: int) -> tuple[int, bool]:
        end = self.source.find("*/", pos)
        if end < 0:
            self.fail(pos, "unclosed comment")
        closing = self._closing(end + 2)
        if closing is None:
            self.fail(pos, "comment ends before closing delimiter")
        return closing

    def _token(self, pos: int) -> _Token:
        char = self.source[pos]
        if char in _SPACE:
            end = pos + 1
            while self.source[end : end + 1] in tuple(_SPACE) and self._closing(end) is None:
                end += 1
            return _Token("space", self.source[pos:end], pos)
        if self.source.startswith(":=", pos):
            return _Token("declare", ":=", pos)
        if char in "=|(),":
            return _Token(char, char, pos)
        if char in "\"'`":
            return self._quoted(pos, char)
        if char == "." and not self.source[pos + 1 : pos + 2].isdigit():
            return self._dotted(pos)
        if char == "$":
            match = _WORD.match(self.source, pos + 1)
            return _Token("variable", "$" + (match.group() if match else ""), pos)
        if char.isdigit() or char in "+-.":
            return self._number(pos)
        match = _WORD.match(self.source, pos)
        if not match:
            self.fail(pos, f"unrecognized character in action: U+{ord(char):04X} {char!r}")
        word = match.group()
        kind = "keyword" if word in _KEYWORDS else "constant" if word in ("true", "false", "nil") else "word"
        return self._terminated(_Token(kind, word, pos))

    def _dotted(self, pos: int) -> _Token:
        match = _WORD.match(self.source, pos + 1)
        if not match:
            return self._terminated(_Token("dot", ".", pos))
        return self._terminated(_Token("field", "." + match.group(), pos))

    def _number(self, pos: int) -> _Token:
        match = _NUMBER.match(self.source, pos)
        if not match or self.source[match.end() : match.end() + 1].isalnum():
            bad = self.source[pos : (match.end() if match else pos) + 1]
            self.fail(pos, f'bad number syntax: "{bad}"')
        return _Token("number", match.group(), pos)

    def _quoted(self, pos: int, quote: str) -> _Token:
        names = {'"': "quoted string", "'": "character constant", "`": "raw quoted string"}
        end = pos + 1
        while True:
            char = self.source[end : end + 1]
            if not char or (char == "\n" and quote != "`"):
                self.fail(pos, f"unterminated {names[quote]}")
            if char == quote:
                kind = "char" if quote == "'" else "string"
                return _Token(kind, self.source[pos : end + 1], pos)
            end += 2 if char == "\\" and quote != "`" else 1

    def _terminated(self, token: _Token) -> _Token:
        end = token.pos + len(token.text)
        after = self.source[end : end + 1]
        if after and after not in " \t\r\n.,|:()=" and not self.source.startswith("}}", end):
            self.fail(end, f"bad character U+{ord(after):04X} {after!r}")
        return token


# ------------------------------------------------------------------------------------------------- the tree


@dataclass(slots=True)
class _Node:
    pos: int
    text: str
    """The node as Go prints it in errors."""


@dataclass(slots=True)
class _Text(_Node):
    pass


@dataclass(slots=True)
class _Literal(_Node):
    value: Value


@dataclass(slots=True)
class _Dot(_Node):
    pass


@dataclass(slots=True)
class _Nil(_Node):
    pass


@dataclass(slots=True)
class _Field(_Node):
    names: list[str]


@dataclass(slots=True)
class _Variable(_Node):
    name: str
    names: list[str]


@dataclass(slots=True)
class _Function(_Node):
    pass


@dataclass(slots=True)
class _Chain(_Node):
    base: _Node
    names: list[str]


@dataclass(slots=True)
class _Command(_Node):
    args: list[_Node]


@dataclass(slots=True)
class _Pipe(_Node):
    commands: list[_Command]
    declared: list[str] = field(default_factory=list[str])
    assign: bool = False


@dataclass(slots=True)
class _Action(_Node):
    pipe: _Pipe


@dataclass(slots=True)
class _Branch(_Node):
    kind: str
    pipe: _Pipe
    body: list[_Node]
    other: list[_Node]


@dataclass(slots=True)
class _Call(_Node):
    """`{{template "name" pipeline}}`."""

    name: str
    pipe: _Pipe | None


@dataclass(slots=True)
class _Jump(_Node):
    """`{{break}}` or `{{continue}}`."""


_BUILTINS = frozenset(
    ("and", "call", "html", "index", "slice", "js", "len", "not", "or", "print", "printf", "println")
) | frozenset(("urlquery", "eq", "ge", "gt", "le", "lt", "ne"))


class _Parser:
    """Recursive descent over the tokens, after Go's text/template/parse."""

    def __init__(self, source: str, functions: frozenset[str]) -> None:
        self.lexer = _Lexer(source)
        self.tokens = self.lexer.tokens
        self.at = 0
        self.functions = functions
        self.variables = ["$"]
        self.loops = 0
        self.templates: dict[str, list[_Node]] = {}

    def parse(self) -> list[_Node]:
        nodes, end = self._list(top=True)
        if end is not None:
            self.fail(f"unexpected {end.text}")
        return nodes

    def fail(self, message: str) -> NoReturn:
        pos = self.tokens[min(self.at, len(self.tokens) - 1)].pos
        self.lexer.fail(pos, message)

    def _peek(self) -> _Token:
        return self.tokens[self.at]

    def _next(self) -> _Token:
        token = self.tokens[self.at]
        self.at = min(self.at + 1, len(self.tokens) - 1)
        return token

    def _skip_space(self) -> _Token:
        while self._peek().kind == "space":
            self._next()
        return self._peek()

    def _list(self, top: bool = False) -> tuple[list[_Node], _Node | None]:
        """Nodes up to `{{end}}` or `{{else}}`, which is returned as a node (None: end of input)."""
        nodes: list[_Node] = []
        while True:
            token = self._next()
            if token.kind == "eof":
                if not top:
                    self.fail("unexpected EOF")
                return nodes, None
            if token.kind == "text":
                nodes.append(_Text(token.pos, token.text))
                continue
            stop = self._action(token, nodes)
            if stop is not None:
                return nodes, stop

    def _action(self, opening: _Token, nodes: list[_Node]) -> _Node | None:
        word = self._skip_space()
        if word.kind != "keyword":
            nodes.append(self._plain(opening))
            return None
        self._next()
        if word.text == "end":
            self._close("end")
            return _Node(word.pos, "{{end}}")
        if word.text == "else":
            return self._else(word)
        if word.text in ("if", "range", "with"):
            nodes.append(self._branch(word.text, word.pos))
        elif word.text in ("break", "continue"):
            nodes.append(self._jump(word))
        elif word.text == "define":
            self._define()
        else:
            nodes.append(self._template(opening, word.text))
        return None

    def _plain(self, opening: _Token) -> _Node:
        pipe = self._pipeline("command", "close")
        return _Action(pipe.pos if pipe.commands else opening.pos, "{{" + pipe.text + "}}", pipe)

    def _close(self, context: str) -> None:
        token = self._skip_space()
        if token.kind != "close":
            self.fail(f"unexpected {_shown(token)} in {context}")
        self._next()

    def _else(self, word: _Token) -> _Node:
        token = self._skip_space()
        if token.kind == "keyword" and token.text in ("if", "with"):
            self._next()
            return _Branch(token.pos, "{{else}}", token.text, _Pipe(token.pos, "", []), [], [])
        self._close("else")
        return _Node(word.pos, "{{else}}")

    def _branch(self, kind: str, pos: int) -> _Branch:
        scope = len(self.variables)
        pipe = self._pipeline(kind, "close")
        self.loops += kind == "range"
        body, stop = self._list()
        self.loops -= kind == "range"
        other: list[_Node] = []
        if isinstance(stop, _Branch):
            if stop.kind != kind:
                self.fail(f"unexpected <{stop.kind}> in else")
            other = [self._branch(stop.kind, stop.pos)]
        elif stop is not None and stop.text == "{{else}}":
            other, stop = self._list()
            if stop is None or stop.text != "{{end}}":
                self.fail(f"expected end; found {stop.text if stop else 'EOF'}")
        del self.variables[scope:]
        return _Branch(pos, f"{{{{{kind} {pipe.text}}}}}", kind, pipe, body, other)

    def _jump(self, word: _Token) -> _Node:
        if not self.loops:
            self.fail(f"{{{{{word.text}}}}} outside {{{{range}}}}")
        self._close(f"{{{{{word.text}}}}}")
        return _Jump(word.pos, word.text)

    def _name(self, context: str) -> str:
        token = self._skip_space()
        if token.kind != "string":
            self.fail(f"unexpected {_shown(token)} in {context}")
        self._next()
        return _unquote(token.text)

    def _define(self) -> None:
        name = self._name("define clause")
        self._close("define clause")
        outer, self.variables = self.variables, ["$"]
        body, stop = self._list()
        if stop is None or stop.text != "{{end}}":
            self.fail("unexpected {{else}} in define clause")
        self.variables = outer
        self.templates[name] = body

    def _template(self, opening: _Token, kind: str) -> _Node:
        context = "template clause" if kind == "template" else "block clause"
        pos = self._skip_space().pos
        name = self._name(context)
        pipe: _Pipe | None = None
        if self._skip_space().kind == "close":
            self._next()
        else:
            pipe = self._pipeline(context, "close")
        if kind == "block":
            outer, self.variables = self.variables, ["$"]
            body, _ = self._list()
            self.variables = outer
            self.templates[name] = body
        del opening
        shown = f'{{{{template "{name}"' + (f" {pipe.text}" if pipe else "") + "}}"
        return _Call(pos, shown, name, pipe)

    # ------------------------------------------------------------------------------------------ pipelines

    def _pipeline(self, context: str, end: str) -> _Pipe:
        first = self._skip_space()
        declared, assign = self._declaration(context)
        pipe = _Pipe(first.pos, "", [], declared, assign)
        while True:
            token = self._skip_space()
            if token.kind == end:
                self._check(pipe, context)
                self._next()
                names = ", ".join(declared) + (" = " if assign else " := ") if declared else ""
                pipe.text = names + " | ".join(command.text for command in pipe.commands)
                self.variables.extend(name for name in declared if not assign)
                return pipe
            if token.kind in ("=", "declare", ",", "|", "close", ")", "eof", "open"):
                self.fail(f"unexpected {_shown(token)} in {context}")
            pipe.commands.append(self._command())

    def _declaration(self, context: str) -> tuple[list[str], bool]:
        """`$x := `, `$x = ` or `$i, $e := ` at the start of a pipeline."""
        start, names = self.at, list[str]()
        while self._skip_space().kind == "variable":
            names.append(self._next().text)
            token = self._skip_space()
            if token.kind in ("declare", "="):
                assign = self._next().kind == "="
                for name in names if assign else ():
                    self._known(name)
                return names, assign
            if token.kind == "," and context == "range" and len(names) < 2:
                self._next()
                continue
            break
        self.at = start
        return [], False

    def _check(self, pipe: _Pipe, context: str) -> None:
        if not pipe.commands:
            self.fail(f"missing value for {context}")
        for number, command in enumerate(pipe.commands[1:], start=2):
            if isinstance(command.args[0], (_Literal, _Dot, _Nil)):
                self.fail(f"non executable command in pipeline stage {number}")

    def _command(self) -> _Command:
        pos = self._peek().pos
        args: list[_Node] = []
        while True:
            self._skip_space()
            operand = self._operand()
            if operand is not None:
                args.append(operand)
            token = self._peek()
            if token.kind == "space":
                self._next()
                if operand is not None:
                    continue
                token = self._peek()
            if token.kind in ("close", ")"):
                break
            if token.kind == "|":
                self._next()
                break
            self.fail(f"unexpected {_shown(token)} in operand")
        if not args:
            self.fail("empty command")
        return _Command(pos, " ".join(_argument(arg) for arg in args), args)

    def _operand(self) -> _Node | None:
        node = self._term()
        if node is None or self._peek().kind != "field":
            return node
        pos, names = self._peek().pos, list[str]()
        while self._peek().kind == "field":
            names.append(self._next().text[1:])
        suffix = "".join("." + name for name in names)
        if isinstance(node, _Field):
            return _Field(pos, node.text + suffix, node.names + names)
        if isinstance(node, _Variable):
            return _Variable(pos, node.text + suffix, node.name, node.names + names)
        if isinstance(node, (_Literal, _Nil, _Dot)):
            self.fail(f"unexpected . after term {node.text!r}".replace("'", '"'))
        shown = f"({node.text})" if isinstance(node, _Pipe) else node.text
        return _Chain(pos, shown + suffix, node, names)

    def _term(self) -> _Node | None:
        token = self._peek()
        make = _TERMS.get(token.kind)
        if make is None:
            return None
        self._next()
        return make(self, token)

    def word(self, token: _Token) -> _Node:
        if token.text not in self.functions:
            self.at -= 1
            self.fail(f'function "{token.text}" not defined')
        return _Function(token.pos, token.text)

    def constant(self, token: _Token) -> _Node:
        if token.text == "nil":
            return _Nil(token.pos, "nil")
        return _Literal(token.pos, token.text, token.text == "true")

    def dot(self, token: _Token) -> _Node:
        return _Dot(token.pos, ".")

    def field(self, token: _Token) -> _Node:
        return _Field(token.pos, token.text, [token.text[1:]])

    def number(self, token: _Token) -> _Node:
        return _Literal(token.pos, token.text, _number(token.text))

    def char(self, token: _Token) -> _Node:
        return _Literal(token.pos, token.text, ord(_unquote('"' + token.text[1:-1] + '"')))

    def string(self, token: _Token) -> _Node:
        return _Literal(token.pos, token.text, _unquote(token.text))

    def variable(self, token: _Token) -> _Node:
        self._known(token.text)
        return _Variable(token.pos, token.text, token.text, [])

    def _known(self, name: str) -> None:
        if name not in self.variables:
            self.at -= 1
            self.fail(f'undefined variable "{name}"')

    def parens(self, token: _Token) -> _Node:
        del token
        return self._pipeline("parenthesized pipeline", ")")


_TERMS: Mapping[str, Callable[[_Parser, _Token], _Node]] = {
    "word": _Parser.word,
    "dot": _Parser.dot,
    "constant": _Parser.constant,
    "field": _Parser.field,
    "variable": _Parser.variable,
    "number": _Parser.number,
    "char": _Parser.char,
    "string": _Parser.string,
    "(": _Parser.parens,
}


def _argument(node: _Node) -> str:
    return f"({node.text})" if isinstance(node, _Pipe) else node.text


def _shown(token: _Token) -> str:
    if token.kind == "eof":
        return "EOF"
    if token.kind == "keyword":
        return f"<{token.text}>"
    return '"' + token.text.replace('"', '\\"') + '"'


def _number(text: str) -> int | float:
    plain = text.replace("_", "")
    try:
        if re.fullmatch(r"[+-]?0[0-7]+", plain):
            return int(plain, 8)
        return int(plain, 0)
    except ValueError:
        return float(plain)


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


def _unquote(text: str) -> str:
    if text[0] == "`":
        return text[1:-1]

    def replace(match: re.Match[str]) -> str:
        escape = match.group(1)
        if escape[0] in "xuU":
            return chr(int(escape[1:], 16))
        if escape[0].isdigit():
            return chr(int(escape, 8))
        return _ESCAPES.get(escape, escape)

    return re.sub(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}|.)", replace, text[1:-1])


# ------------------------------------------------------------------------------------------------- execution


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class _CallError(Exception):
    """A function refused its arguments; the executor adds which and where."""


_NOTHING = object()


class Template:
    """A parsed template; parse once, execute per row."""

    def __init__(
        self,
        source: str,
        *,
        strict: bool = False,
        functions: Mapping[str, Callable[..., Value]] | None = None,
    ) -> None:
        """`strict`: a missing key of a map is an error (docker's `inspect`), not `<no value>`."""
        self.source = source
        self.strict = strict
        self.functions = FUNCTIONS if functions is None else {**FUNCTIONS, **functions}
        parser = _Parser(source, frozenset(self.functions) | _BUILTINS)
        self.root = parser.parse()
        self.templates = parser.templates

    def execute(self, data: Value) -> str:
        """The text for `data`. Raises TemplateError."""
        return _Executor(self).run(data)


def render(source: str, data: Value, *, strict: bool = False) -> str:
    """`source` executed over `data`."""
    return Template(source, strict=strict).execute(data)


class _Executor:
    def __init__(self, template: Template) -> None:
        self.template = template
        self.out: list[str] = []
        self.depth = 0

    def run(self, data: Value) -> str:
        self._walk_all(self.template.root, data, [("$", data)])
        return "".join(self.out)

    def _fail(self, node: _Node, message: str) -> NoReturn:
        before = self.template.source[: node.pos]
        line, column = before.count("\n") + 1, node.pos - (before.rfind("\n") + 1)
        text = node.text if len(node.text) <= 20 else node.text[:20] + "..."
        raise TemplateError(f'template: :{line}:{column}: executing "" at <{text}>: {message}')

    # --------------------------------------------------------------------------------------- statements

    def _walk_all(self, nodes: Sequence[_Node], dot: Value, scope: list[tuple[str, Value]]) -> None:
        for node in nodes:
            self._walk(node, dot, scope)

    def _walk(self, node: _Node, dot: Value, scope: list[tuple[str, Value]]) -> None:
        if isinstance(node, _Text):
            self.out.append(node.text)
        elif isinstance(node, _Action):
            value = self._pipe(node.pipe, dot, scope)
            if not node.pipe.declared:
                self.out.append(printed(value))
        elif isinstance(node, _Branch):
            mark = len(scope)
            (self._range if node.kind == "range" else self._if_with)(node, dot, scope)
            del scope[mark:]
        elif isinstance(node, _Call):
            self._call(node, dot, scope)
        elif isinstance(node, _Jump):
            raise _Break if node.text == "break" else _Continue

    def _if_with(self, node: _Branch, dot: Value, scope: list[tuple[str, Value]]) -> None:
        value = self._pipe(node.pipe, dot, scope)
        inner = value if node.kind == "with" else dot
        if truth(value):
            self._walk_all(node.body, inner, scope)
        else:
            self._walk_all(node.other, dot, scope)

    def _range(self, node: _Branch, dot: Value, scope: list[tuple[str, Value]]) -> None:
        value = self._pipe(node.pipe, dot, scope, declare=False)
        mark, some = len(scope), False
        for key, item in self._items(node, value):
            some = True
            names = node.pipe.declared
            if node.pipe.assign:
                for name, each in zip(names, (item,) if len(names) == 1 else (key, item), strict=False):
                    _assign(scope, name, each)
            elif names:
                scope.extend(zip(names, (item,) if len(names) == 1 else (key, item), strict=False))
            try:
                self._walk_all(node.body, item, scope)
            except _Continue:
                pass
            except _Break:
                break
            finally:
                del scope[mark:]
        if not some:
            self._walk_all(node.other, dot, scope)

    def _items(self, node: _Branch, value: Value) -> Iterator[tuple[Value, Value]]:
        if isinstance(value, Mapping) and not isinstance(value, Struct):
            return iter(_pairs(value))
        if isinstance(value, (list, tuple)):
            return iter(enumerate(value))
        if isinstance(value, int) and not isinstance(value, bool):
            return iter((number, number) for number in range(value))
        if value is None or value is NO_VALUE:
            return iter(())
        first = node.pipe.commands[-1].args[0] if node.pipe.commands else node
        return self._fail(first, f"range can't iterate over {printed(value)}")

    def _call(self, node: _Call, dot: Value, scope: list[tuple[str, Value]]) -> None:
        body = self.template.templates.get(node.name)
        if body is None:
            self._fail(node, f'template "{node.name}" not defined')
        if self.depth >= 100:
            self._fail(node, "exceeded maximum template depth (100)")
        inner = self._pipe(node.pipe, dot, scope) if node.pipe else None
        self.depth += 1
        self._walk_all(body, inner, [("$", inner)])
        self.depth -= 1

    # --------------------------------------------------------------------------------------- expressions

    def _pipe(self, pipe: _Pipe, dot: Value, scope: list[tuple[str, Value]], declare: bool = True) -> Value:
        value: Value = _NOTHING
        for command in pipe.commands:
            value = self._command(command, value, dot, scope)
        for name in pipe.declared if declare else ():
            if pipe.assign:
                _assign(scope, name, value)
            else:
                scope.append((name, value))
        return value

    def _command(self, command: _Command, final: Value, dot: Value, scope: list[tuple[str, Value]]) -> Value:
        first, rest = command.args[0], command.args[1:]
        if isinstance(first, _Function):
            return self._function(command, first, rest, final, dot, scope)
        if isinstance(first, (_Field, _Chain, _Variable)):
            return self._access(first, rest, final, dot, scope)
        if rest or final is not _NOTHING:
            self._fail(first, f"can't give argument to non-function {first.text}")
        if isinstance(first, _Nil):
            self._fail(first, "nil is not a command")
        return self._argument(first, dot, scope)

    def _argument(self, node: _Node, dot: Value, scope: list[tuple[str, Value]]) -> Value:
        if isinstance(node, _Literal):
            return node.value
        if isinstance(node, _Dot):
            return dot
        if isinstance(node, _Nil):
            return None
        if isinstance(node, _Pipe):
            return self._pipe(node, dot, scope)
        if isinstance(node, _Function):
            return self._function(node, node, [], _NOTHING, dot, scope)
        return self._access(node, [], _NOTHING, dot, scope)

    def _access(
        self, node: _Node, args: list[_Node], final: Value, dot: Value, scope: list[tuple[str, Value]]
    ) -> Value:
        """A field, variable or chain, its last name called with the arguments if it is a method."""
        if isinstance(node, _Field):
            value, names = dot, node.names
        elif isinstance(node, _Variable):
            value, names = _lookup(scope, node.name), node.names
        else:
            assert isinstance(node, _Chain)
            if isinstance(node.base, _Nil):
                self._fail(node, "indirection through explicit nil in " + node.text)
            value, names = self._argument(node.base, dot, scope), node.names
        for name in names[:-1]:
            value = self._called(node, name, self._field(node, value, name), [])
        given = [self._argument(arg, dot, scope) for arg in args]
        if final is not _NOTHING:
            given.append(final)
        if not names:
            if given:
                self._fail(node, f"can't give argument to non-function {node.text}")
            return value
        return self._called(node, names[-1], self._field(node, value, names[-1]), given)

    def _called(self, node: _Node, name: str, value: Value, args: list[Value]) -> Value:
        if callable(value):
            try:
                return value(*args)
            except TypeError:
                self._fail(node, f"wrong number of args for {name}: got {len(args)}")
        if args:
            self._fail(node, f"wrong number of args for {name}: want 0 got {len(args)}")
        return value

    def _field(self, node: _Node, value: Value, name: str) -> Value:
        if isinstance(value, Struct):
            if name in value:
                return value[name]
            if name in value.zero:
                return value.zero[name]
            if self.template.strict:
                self._fail(node, f'map has no entry for key "{name}"')
            self._fail(node, f"can't evaluate field {name} in type {value.go_type}")
        if isinstance(value, Mapping):
            if name in value:
                return value[name]
            if self.template.strict:
                self._fail(node, f'map has no entry for key "{name}"')
            return NO_VALUE
        if value is None or value is NO_VALUE:
            if self.template.strict:
                self._fail(node, f'nil data; no entry for key "{name}"')
            self._fail(node, f"nil pointer evaluating interface {{}}.{name}")
        return self._fail(node, f"can't evaluate field {name} in type {_go_type(value)}")

    def _function(
        self,
        node: _Node,
        function: _Node,
        args: list[_Node],
        final: Value,
        dot: Value,
        scope: list[tuple[str, Value]],
    ) -> Value:
        name = function.text
        if name in ("and", "or") and name not in self.template.functions:
            return self._shortcut(node, name == "and", args, final, dot, scope)
        given = [self._argument(arg, dot, scope) for arg in args]
        if final is not _NOTHING:
            given.append(final)
        try:
            call = self.template.functions.get(name) or _STANDARD[name]
            return call(*given)
        except _CallError as error:
            self._fail(node, f"error calling {name}: {error}")
        except TypeError:
            self._fail(function, f"wrong number or type of args for {name}: got {len(given)}")

    def _shortcut(
        self,
        node: _Node,
        conjunction: bool,
        args: list[_Node],
        final: Value,
        dot: Value,
        scope: list[tuple[str, Value]],
    ) -> Value:
        """`and` stops at the first empty argument, `or` at the first that is not."""
        value: Value = _NOTHING
        for arg in args:
            value = self._argument(arg, dot, scope)
            if truth(value) != conjunction:
                return value
        if final is not _NOTHING:
            return final
        if value is _NOTHING:
            name = "and" if conjunction else "or"
            self._fail(node, f"wrong number of args for {name}: want at least 1 got 0")
        return value


def _lookup(scope: list[tuple[str, Value]], name: str) -> Value:
    return next(value for known, value in reversed(scope) if known == name)


def _assign(scope: list[tuple[str, Value]], name: str, value: Value) -> None:
    for index in range(len(scope) - 1, -1, -1):
        if scope[index][0] == name:
            scope[index] = (name, value)
            return


# ------------------------------------------------------------------------------------------------- values


def _pairs(value: Mapping[str, Value]) -> list[tuple[str, Value]]:
    return [(str(key), value[key]) for key in sorted(value, key=str)]


def truth(value: Value) -> bool:
    """Go's truth: not false, zero, nil or empty; structs are always true."""
    if isinstance(value, Struct):
        return True
    return value is not NO_VALUE and bool(value)


def printed(value: Value) -> str:
    """A value as Go's fmt.Print prints it (`%v`)."""
    if value is NO_VALUE or value is None:
        return "<no value>" if value is NO_VALUE else "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (Time, Duration)):
        return value.shown()
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, Struct):
        return "{" + " ".join(printed(each) for each in value.values() if not callable(each)) + "}"
    if isinstance(value, Mapping):
        items = _pairs(value)
        return "map[" + " ".join(f"{key}:{printed(each)}" for key, each in items) + "]"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(printed(each) for each in value) + "]"
    return str(value)


def _float(value: float) -> str:
    """Go's %v of a float64: the shortest digits, an exponent below 1e-4 and from 1e21."""
    if value != value or value in (float("inf"), float("-inf")):
        return {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}[str(value)]
    if value and not 1e-4 <= abs(value) < 1e21:
        return re.sub(r"e([+-])(\d)$", r"e\g<1>0\2", repr(value).replace(".0e", "e"))
    text = format(value, "f") if "e" in repr(value) else repr(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


def to_json(value: Value, indent: int | None = None) -> str:
    """JSON as Go's encoder writes it without HTML escapes: maps by sorted key, structs in field order."""
    separators = (",", ": ") if indent else (",", ":")
    text = jsonlib.dumps(_sorted(value), ensure_ascii=False, indent=indent, separators=separators)
    if isinstance(value, Row):
        return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return text


def _sorted(value: Value) -> Value:
    if isinstance(value, Struct):
        return {key: _sorted(each) for key, each in value.items() if not callable(each)}
    if isinstance(value, Mapping):
        return {str(key): _sorted(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, (list, tuple)):
        return [_sorted(each) for each in value]
    return None if value is NO_VALUE else value


def _go_type(value: Value) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, Time):
        return "time.Time"
    if isinstance(value, str):
        return "string"
    if isinstance(value, int):
        return "int"
    if isinstance(value, float):
        return "float64"
    if isinstance(value, (list, tuple)):
        return "[]string" if all(isinstance(each, str) for each in value) else "[]interface {}"
    if isinstance(value, Struct):
        return value.go_type
    return "map[string]interface {}" if isinstance(value, Mapping) else "interface {}"


# ------------------------------------------------------------------------------------------------- functions


def _index(item: Value, *indexes: Value) -> Value:
    for index in indexes:
        if item is None or item is NO_VALUE:
            raise _CallError("index of untyped nil")
        if isinstance(item, Mapping):
            if not isinstance(index, str):
                raise _CallError(f"value has type {_go_type(index)}; should be string")
            text = all(isinstance(each, str) for each in item.values())
            item = item.get(index, "" if text else NO_VALUE)
        elif isinstance(item, (list, tuple, str)):
            if isinstance(index, bool) or not isinstance(index, int):
                raise _CallError(f"cannot index slice/array with type {_go_type(index)}")
            if not 0 <= index < len(item):
                raise _CallError(f"index out of range: {index}")
            item = item.encode()[index] if isinstance(item, str) else item[index]
        else:
            raise _CallError(f"can't index item of type {_go_type(item)}")
    return item


def _slice(item: Value, *indexes: int) -> Value:
    if not isinstance(item, (str, list, tuple)):
        raise _CallError(f"can't slice item of type {_go_type(item)}")
    low = indexes[0] if indexes else 0
    high = indexes[1] if len(indexes) > 1 else len(item)
    for bound in indexes:
        if not 0 <= bound <= len(item):
            raise _CallError(f"index out of range: {bound}")
    if low > high:
        raise _CallError(f"invalid slice index: {low} > {high}")
    return item[low:high]


def _len(item: Value) -> int:
    if item is None or item is NO_VALUE:
        raise _CallError("len of nil pointer")
    if not isinstance(item, (str, list, tuple, Mapping)) or isinstance(item, Struct):
        raise _CallError(f"len of type {_go_type(item)}")
    return len(item.encode()) if isinstance(item, str) else len(item)


def _kind(value: Value) -> str:
    if value is None or value is NO_VALUE:
        return "nil"
    kind = _go_type(value)
    if kind in ("bool", "string", "int", "float64"):
        return kind
    return "string" if isinstance(value, str) else "other"


def _same(left: Value, right: Value) -> bool:
    kinds = {_kind(left), _kind(right)}
    if "other" in kinds:
        raise _CallError("non-comparable type " + printed(left if _kind(left) == "other" else right))
    if kinds == {"nil"}:
        return True
    if "nil" in kinds:
        return False
    if len(kinds) > 1:
        raise _CallError("incompatible types for comparison")
    return bool(left == right)


def _eq(*values: Value) -> bool:
    if len(values) < 2:
        raise _CallError("missing argument for comparison")
    return any(_same(values[0], other) for other in values[1:])


def _lt(left: Value, right: Value) -> bool:
    if _kind(left) != _kind(right):
        raise _CallError("incompatible types for comparison")
    if _kind(left) not in ("string", "int", "float64"):
        raise _CallError("invalid type for comparison")
    return bool(left < right)


def _print(*values: Value) -> str:
    """fmt.Sprint: a space between two operands of which neither is a string."""
    out = ""
    for index, value in enumerate(values):
        if index and not isinstance(value, str) and not isinstance(values[index - 1], str):
            out += " "
        out += printed(value)
    return out


_VERB = re.compile(r"%([-+# 0]*)(\d+|\*)?(?:\.(\d+)?)?([a-zA-Z%])")


def _printf(pattern: Value, *values: Value) -> str:
    """fmt.Sprintf, as far as its verbs apply to strings, numbers, booleans, lists and maps."""
    if not isinstance(pattern, str):
        raise TypeError
    rest = list(values)

    def replace(match: re.Match[str]) -> str:
        flags, width, precision, verb = match.groups()
        if verb == "%":
            return "%"
        if not rest:
            return f"%!{verb}(MISSING)"
        digits = int(precision) if precision else 0 if "." in match.group() else None
        text = _verb(verb, flags, digits, rest.pop(0))
        if not width:
            return text
        if "-" in flags:
            return text.ljust(int(width))
        return text.zfill(int(width)) if "0" in flags else text.rjust(int(width))

    text = _VERB.sub(replace, pattern)
    if rest:
        extra = ", ".join(f"{_go_type(value)}={printed(value)}" for value in rest)
        text += f"%!(EXTRA {extra})"
    return text


def _verb(verb: str, flags: str, precision: int | None, value: Value) -> str:
    if verb in "vs":
        if verb == "s" and isinstance(value, (bool, int, float)) and not isinstance(value, Duration):
            return f"%!s({_go_type(value)}={printed(value)})"
        text = printed(value)
        return text if precision is None or verb == "v" else text[:precision]
    if verb == "q" and isinstance(value, str):
        return jsonlib.dumps(value, ensure_ascii=False)
    if verb == "T":
        return _go_type(value)
    if verb == "t" and isinstance(value, bool):
        return printed(value)
    if verb in "xX" and isinstance(value, str):
        return value.encode().hex() if verb == "x" else value.encode().hex().upper()
    if isinstance(value, int) and not isinstance(value, bool) and verb in "dboxXcU":
        return _integer(verb, flags, value)
    if isinstance(value, float) and verb in "fFgGeE":
        return f"{value:{'+' if '+' in flags else ''}.{6 if precision is None else precision}{verb}}"
    return f"%!{verb}({_go_type(value)}={printed(value)})"


def _integer(verb: str, flags: str, value: int) -> str:
    if verb == "c":
        return chr(value)
    if verb == "U":
        return f"U+{value:04X}"
    sign = "+" if "+" in flags else " " if " " in flags else ""
    prefix = {"x": "0x", "X": "0X", "o": "0", "b": "0b"}.get(verb, "") if "#" in flags else ""
    return prefix + format(int(value), sign + verb)


_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;", "'": "&#39;"}


def _js(text: str) -> str:
    escapes = {"\\": "\\\\", "'": "\\'", '"': '\\"', "<": "\\u003C", ">": "\\u003E", "&": "\\u0026"}
    escapes["="] = "\\u003D"
    return "".join(escapes.get(char, char if char >= " " else f"\\u{ord(char):04X}") for char in text)


def _call_value(function: Value, *args: Value) -> Value:
    if not callable(function):
        raise _CallError(f"non-function of type {_go_type(function)}")
    return function(*args)


def _html(*values: Value) -> str:
    return "".join(_HTML.get(char, char) for char in _print(*values))


def _js_print(*values: Value) -> str:
    return _js(_print(*values))


def _not(value: Value) -> bool:
    return not truth(value)


def _println(*values: Value) -> str:
    return " ".join(printed(value) for value in values) + "\n"


def _urlquery(*values: Value) -> str:
    return quote_plus(_print(*values))


def _ne(left: Value, right: Value) -> bool:
    return not _same(left, right)


def _le(left: Value, right: Value) -> bool:
    return _lt(left, right) or _same(left, right)


def _gt(left: Value, right: Value) -> bool:
    return not _le(left, right)


def _ge(left: Value, right: Value) -> bool:
    return not _lt(left, right)


_STANDARD: Mapping[str, Callable[..., Value]] = {
    "call": _call_value,
    "html": _html,
    "index": _index,
    "slice": _slice,
    "js": _js_print,
    "len": _len,
    "not": _not,
    "print": _print,
    "printf": _printf,
    "println": _println,
    "urlquery": _urlquery,
    "eq": _eq,
    "ne": _ne,
    "lt": _lt,
    "le": _le,
    "gt": _gt,
    "ge": _ge,
}


def _text(value: Value) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _pad(source: str, before: int, after: int) -> str:
    return " " * before + source + " " * after if _text(source) else source


def _join(values: Value, separator: str) -> str:
    if not isinstance(values, (list, tuple)):
        raise TypeError
    return _text(separator).join(printed(value) for value in values)


def _split(text: str, separator: str) -> list[str]:
    return _text(text).split(separator) if separator else list(_text(text))


def _title(text: str) -> str:
    return re.sub(r"(?<!\S)\S", _upper_match, _text(text))


def _upper_match(match: re.Match[str]) -> str:
    return match.group().upper()


def _lower(text: str) -> str:
    return _text(text).lower()


def _upper(text: str) -> str:
    return _text(text).upper()


def _truncate(text: str, length: int) -> str:
    return _text(text)[:length]


def _header(value: Value, *_: Value) -> Value:
    return value


def _header_split(value: Value, *_: Value) -> list[Value]:
    return [value]


def _header_join(value: Value, *_: Value) -> Value:
    return value[0] if isinstance(value, list) else value


FUNCTIONS: Mapping[str, Callable[..., Value]] = {
    "json": to_json,
    "split": _split,
    "join": _join,
    "title": _title,
    "lower": _lower,
    "upper": _upper,
    "pad": _pad,
    "truncate": _truncate,
}
"""Docker's own functions: https://docs.docker.com/engine/cli/formatting/"""

HEADER_FUNCTIONS: Mapping[str, Callable[..., Value]] = {
    **dict.fromkeys(FUNCTIONS, _header),
    "split": _header_split,
    "join": _header_join,
}
"""The same names over a table's header, which none of them may change."""
