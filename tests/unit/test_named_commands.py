"""Commands that messages and documents tell people to run exist, with the flags that they are told to give."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pyswarm.cli.main import cli

ROOT = Path(__file__).parents[2]
SOURCES = sorted(p for d in ("pyswarm", "compose", "manager", "node_agent") for p in (ROOT / d).rglob("*.py"))
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
QUOTED = re.compile(r"[`']pyswarm ((?:[^`']|'[^`']*'(?=.*`))*)[`']")
LINE = re.compile(r"^(?: {4}|\s*\$ )(?:sudo )?pyswarm (.+)$", re.MULTILINE)


def texts(source: Path) -> Iterator[str]:
    """Every string of a module, what is filled in as X."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(p.value) if isinstance(p, ast.Constant) else "X" for p in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def wrong(words: list[str]) -> str:
    """What of a command line does not exist; "" for nothing."""
    command: click.Command = cli
    known = _flags(command)
    for position, word in enumerate(words):
        name = word.partition("=")[0]
        if word == "--":
            return ""
        if word.startswith("-") and name not in known and not _together(name, known):
            return f"{' '.join(words[: position + 1])}: no such flag"
        if word.startswith("-") or not isinstance(command, click.Group) or not re.fullmatch("[a-z-]+", word):
            continue
        found = command.get_command(click.Context(command), word)
        if found is None:
            return (
                ""
                if words[position - 1] in _valued(command)
                else f"{' '.join(words[: position + 1])}: no such command"
            )
        command = found
        known |= _flags(command)
        if not command.context_settings.get("allow_interspersed_args", True):
            return ""
    return ""


def _flags(command: click.Command) -> set[str]:
    options = [p for p in command.params if isinstance(p, click.Option)]
    return {name for o in options for name in (*o.opts, *o.secondary_opts)} | {"--help", "-h"}


def _valued(command: click.Command) -> set[str]:
    return {n for p in command.params if isinstance(p, click.Option) and not p.is_flag for n in p.opts}


def _together(word: str, known: set[str]) -> bool:
    """`-it` for `-i -t`."""
    return not word.startswith("--") and all(f"-{letter}" in known for letter in word[1:])


def _words(text: str) -> list[str]:
    line = re.split(r" (?:#|\||>|<|&&|;|\.\.\.)", text.replace("\n", " "))[0]
    try:
        return shlex.split(line.replace("[", " ").replace("]", " "))
    except ValueError:
        return line.split()


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_messages(source: Path) -> None:
    named = {each for text in texts(source) for each in QUOTED.findall(text)}
    problems = [problem for each in sorted(named) if (problem := wrong(_words(each)))]
    assert problems == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_documents(page: Path) -> None:
    text = page.read_text()
    named = {*QUOTED.findall(text), *LINE.findall(text)}
    problems = [problem for each in sorted(named) if (problem := wrong(_words(each)))]
    assert problems == []


def test_wrong_ones_are_found() -> None:
    assert wrong(["service", "frobnicate"]) == "service frobnicate: no such command"
    assert wrong(["node", "update", "--colour", "red"]) == "node update --colour: no such flag"
    assert wrong(["exec", "-it", "web", "sh", "--nope"]) == ""
    assert wrong(["--context", "prod", "node", "ls", "-q"]) == ""
