"""Scenarios as text: commands, `----`, and what is to be seen then; blocks are separated by empty lines.

Rewrite the expected parts with `pytest tests/golden --rewrite`, and review the difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.golden.stage import Stage

HERE = Path(__file__).parent
SEPARATOR = "----"


def blocks(text: str) -> Iterator[tuple[list[str], str]]:
    """(lines up to the separator, expected output) of each block."""
    for block in text.strip("\n").split("\n\n"):
        commands, found, expected = block.partition(f"\n{SEPARATOR}\n")
        if not found:
            commands, expected = block.removesuffix(f"\n{SEPARATOR}"), ""
        yield commands.splitlines(), expected


def play(text: str) -> str:
    """The scenario with what really happens."""
    stage = Stage()
    out: list[str] = []
    for lines, _ in blocks(text):
        commands = [line for line in lines if line and not line.startswith("#")]
        for command in commands:
            stage.do(command)
        shown = [SEPARATOR, stage.table()] if commands else []
        out.append("\n".join([*lines, *shown]))
    return "\n\n".join(out) + "\n"


@pytest.mark.parametrize("path", sorted(HERE.glob("*.txt")), ids=lambda path: path.stem)
def test_scenario(path: Path, request: pytest.FixtureRequest) -> None:
    expected = path.read_text()
    happened = play(expected)
    if request.config.getoption("--rewrite", default=False):
        path.write_text(happened)
        return
    assert happened == expected
