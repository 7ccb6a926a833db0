"""Every command and flag of the real docker compose plugin (2.40.3) is known to `pyswarm compose`, or named here."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import click
import pytest

from pyswarm.cli import compose as module
from pyswarm.cli.main import cli

ORACLE = Path(__file__).parent / "get_oracle.sh"
REFUSED = {"bridge", "commit", "export", "pause", "publish", "unpause"}
"""Commands that pyswarm refuses by name, with the reason."""
_FLAG = re.compile(r"^ {2}(?: {4}|(?P<short>-\w), )(?P<long>--[\w-]+)")


@pytest.fixture(scope="session")
def plugin() -> str:
    return subprocess.run(["bash", str(ORACLE)], capture_output=True, text=True, check=True).stdout.strip()


def _help(plugin: str, *command: str) -> str:
    done = subprocess.run([plugin, *command, "--help"], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def _flags(text: str) -> dict[str, str]:
    """Long name -> short name, or ""."""
    found = (match for line in text.splitlines() if (match := _FLAG.match(line)))
    return {match["long"]: match["short"] or "" for match in found}


def _commands(text: str) -> list[str]:
    at = text.index("Management Commands:")
    return re.findall(r"^  ([a-z]+) {2,}", text[at:], re.MULTILINE)


def _ours(*path: str) -> dict[str, set[str]]:
    """Long name -> every name of the option."""
    command: click.Command = cli
    for name in ("compose", *path):
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), name)
        assert found is not None, name
        command = found
    options = [each for each in command.params if isinstance(each, click.Option)]
    return {
        name: {*each.opts, *each.secondary_opts}
        for each in options
        for name in (*each.opts, *each.secondary_opts)
        if name.startswith("--")
    }


def test_every_command_is_known(plugin: str) -> None:
    theirs = _commands(_help(plugin))
    assert len(theirs) > 25
    entries = {*module.compose.list_commands(click.Context(module.compose))}
    assert set(theirs) - entries == REFUSED
    assert set(module.REFUSED) == REFUSED


def test_options_before_the_command(plugin: str) -> None:
    theirs, ours = _flags(_help(plugin)), _ours()
    assert len(theirs) > 8
    assert {name for name in theirs if name not in ours} == set()
    assert {n for n, short in theirs.items() if short and short not in ours[n]} == set()


def test_every_flag_of_every_command_is_known(plugin: str) -> None:
    commands = [each for each in _commands(_help(plugin)) if each not in REFUSED]
    missing: dict[str, set[str]] = {}
    for name in commands:
        theirs, ours = _flags(_help(plugin, name)), _ours(name)
        unknown = {flag for flag in theirs if flag not in ours}
        unknown |= {f"{s} {flag}" for flag, s in theirs.items() if s and flag in ours and s not in ours[flag]}
        if unknown:
            missing[name] = unknown
    assert missing == {}
