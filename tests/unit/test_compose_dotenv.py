"""Environment files and variables in values."""

from __future__ import annotations

import pytest

from compose.dotenv import parse, parse_raw
from compose.errors import ComposeErrors, Source
from compose.interpolate import Substitution, TemplateError, Variable, variables
from compose.tree import Node

ENVIRONMENT = {"SET": "set", "EMPTY": ""}


def _parse(text: str, environment: dict[str, str] | None = None) -> dict[str, str]:
    return parse(Source("x.env", text), (environment or {}).get)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("# only a comment", {}),
        ("A=1", {"A": "1"}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("A = spaced ", {"A": "spaced"}),
        ("A: yaml", {"A": "yaml"}),
        ("export A=1", {"A": "1"}),
        ("exported=1", {"exported": "1"}),
        ("A=", {"A": ""}),
        ("A=x # comment", {"A": "x"}),
        ("A=x#y", {"A": "x#y"}),
        ("A='$SET # x'", {"A": "$SET # x"}),
        ('A="$SET" # c', {"A": "set"}),
        ("A=$SET-${NO:-d}", {"A": "set-d"}),
        ("A=1\nB=$A", {"A": "1", "B": "1"}),
        ('A="a\\nb\\t\\"q\\" \\$SET"', {"A": 'a\nb\t"q" $SET'}),
        ('A="two\nlines"\nB=1', {"A": "two\nlines", "B": "1"}),
        ("A='it\\'s'", {"A": "it's"}),
        ("SET", {"SET": "set"}),
        ("NOT_SET", {}),
        ("A=1\nA=2", {"A": "2"}),
        ("1A=x", {}),
        ("A.b-c=1", {"A.b-c": "1"}),
        ('A="\\101"', {"A": "\\101"}),
        ('A="\\0101"', {"A": "A"}),
    ],
)
def test_grammar(text: str, found: dict[str, str]) -> None:
    assert _parse(text, ENVIRONMENT) == found


@pytest.mark.parametrize(
    ("text", "line"),
    [("A=1\nB C=2", 2), ('A=1\n\nB="open', 3), ("A='x\ny", 1), ("!=1", 1), ("A=${", 1), ("A=${B?no}", 1)],
)
def test_mistakes_have_a_line(text: str, line: int) -> None:
    with pytest.raises(ComposeErrors) as caught:
        _parse(text)
    assert caught.value.problems[0].position.line == line
    assert str(caught.value).startswith(f"x.env:{line}:1: ")


def test_raw_format_keeps_values_as_they_stand() -> None:
    text = 'A="quoted"\n# c\n\n B=$SET # c\nSET\nNOT_SET\nC=\n'
    found = parse_raw(Source("x", text), ENVIRONMENT.get)
    assert found == {"A": '"quoted"', "B": "$SET # c", "SET": "set", "C": ""}


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("$SET", "set"),
        ("${SET}x", "setx"),
        ("$$SET", "$SET"),
        ("$$$SET", "$set"),
        ("${NO:-d}", "d"),
        ("${NO-d}", "d"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${SET:+y}", "y"),
        ("${NO:+y}", ""),
        ("${EMPTY:+y}", ""),
        ("${EMPTY+y}", "y"),
        ("${NO:-${NO2:-${SET}}}!", "set!"),
        ("${SET:?must}", "set"),
        ("${EMPTY?must}", ""),
        ("${NO:-a-b:?c}", "a-b:?c"),
        ("${NO:-}}", "}"),
        ("a$", "a$"),
        ("$1", "$1"),
        ("$-", "$-"),
        ("${NO:-$$x}", "$x"),
    ],
)
def test_operators(template: str, filled: str) -> None:
    assert Substitution(ENVIRONMENT).fill(template) == filled


@pytest.mark.parametrize(
    "template", ["${", "${}", "${1}", "${SET", "${SET!x}", "${SET:x}", "${ SET }", "${NO:-${}}"]
)
def test_malformed_templates(template: str) -> None:
    with pytest.raises(TemplateError, match=r"write \$\$ for a dollar sign"):
        Substitution(ENVIRONMENT).fill(template)


def test_required_variables_say_why() -> None:
    with pytest.raises(TemplateError, match="required variable NO is missing a value: see set"):
        Substitution(ENVIRONMENT).fill("${NO:?see $SET}")
    with pytest.raises(TemplateError, match=r"required variable EMPTY is missing a value$"):
        Substitution(ENVIRONMENT).fill("${EMPTY:?}")


def test_nesting_has_a_limit() -> None:
    with pytest.raises(TemplateError, match="nested"):
        Substitution({}).fill("${A:-" * 2000 + "x" + "}" * 2000)


def test_variables_are_listed() -> None:
    tree = Node([Node("$A ${B:-b} ${C?} ${D:+d$E}"), Node({"k": Node("$$F $A")})])
    assert variables(tree) == [
        Variable("A"),
        Variable("B", default="b"),
        Variable("C", required=True),
        Variable("D", alternate="d$E"),
        Variable("E"),
    ]
