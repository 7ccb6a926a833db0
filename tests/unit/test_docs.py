"""The documents: their links lead somewhere, and the commands that they name exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pyswarm.cli.main import cli

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
CODE = re.compile(r"`([^`\n]+)`|^ {4}(.+)$", re.MULTILINE)
COMMAND = re.compile(
    r"^(?:\$ )?(?:[A-Z_]+=\S+ )*(?:\S*/)?pyswarm (?:--?[a-z-]+ )*([a-z-]+)(?: ([a-z-]+))?(?=\s|$)"
)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert broken == []


def commands(text: str) -> Iterator[tuple[str, str]]:
    for quoted, indented in CODE.findall(text):
        yield from COMMAND.findall((quoted or indented).strip())


def exists(first: str, second: str) -> bool:
    context = click.Context(cli)
    command = cli.get_command(context, first)
    if isinstance(command, click.Group) and second:
        return command.get_command(context, second) is not None
    return command is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_exist(page: Path) -> None:
    named = sorted(set(commands(page.read_text())))
    unknown = [" ".join(words).strip() for words in named if not exists(*words)]
    assert unknown == []


def test_the_search_finds_commands() -> None:
    text = "Use `pyswarm service ls` or\n\n    $ pyswarm --debug stack deploy -c x\n    pyswarm frobnicate\n"
    assert sorted(commands(text)) == [("frobnicate", ""), ("service", "ls"), ("stack", "deploy")]
    assert not exists("frobnicate", "") and not exists("service", "frobnicate") and exists("service", "ls")
