"""Every command, short name, flag and default of docker's client is pyswarm's too, or is named here with the reason."""

from __future__ import annotations

import json
from typing import Any

import click
import pytest

from pyswarm.cli.main import cli
from tests.unit.docker_flags import GOLDEN

RECORDED: dict[str, dict[str, Any]] = json.loads(GOLDEN.read_text())["commands"]

OTHER_NAMES = {"builder build": "docker's builder is buildkit; ours is `pyswarm image build`"}
DIFFERENT: dict[tuple[str, str], str] = {
    ("network create", "--driver"): "a network is the whole cluster's, so overlay",
    ("stack deploy", "--detach"): "a deploy waits for what it brought about",
    ("stack rm", "--detach"): "a removal waits until it is over",
    ("swarm init", "--dispatcher-heartbeat"): "1 s, so that a lost node is noticed sooner",
}
"""Flags that differ in their default."""
NO_DEFAULT = ("[]", "map[]", "hides intermediate images", "shows just running")
"""What docker's help calls a default and is none."""


def find(*path: str) -> click.Command | None:
    command: click.Command | None = cli
    for name in path:
        if not isinstance(command, click.Group):
            return None
        command = command.get_command(click.Context(command), name)
    return command


def refused(command: click.Command) -> bool:
    return (command.help or "").startswith("Not supported")


def options(command: click.Command) -> dict[str, click.Option]:
    found = [each for each in command.params if isinstance(each, click.Option)]
    return {name: each for each in found for name in (*each.opts, *each.secondary_opts)}


@pytest.mark.parametrize("name", list(RECORDED))
def test_command_and_other_names(name: str) -> None:
    names = [name, *RECORDED[name]["aliases"]]
    missing = [each for each in names if find(*each.split()) is None and each not in OTHER_NAMES]
    command = find(*name.split())
    assert command is not None
    if refused(command):
        missing = [each for each in missing if len(each.split()) > 1]
    assert missing == []


def _kind(option: click.Option, recorded: dict[str, str]) -> bool:
    """Whether the flag takes a value, or several, where docker's does."""
    if option.is_flag != (recorded["type"] == ""):
        return False
    return option.multiple or recorded["type"] not in ("list", "strings")


UPDATES = ("swarm update", "swarm ca")
"""Commands whose flags change nothing unless they are given, whatever docker's help says of defaults."""


def _default(option: click.Option, recorded: str) -> bool:
    if recorded in ("", *NO_DEFAULT) or option.hidden:
        return True
    said = str(option.default).lower()
    return said == recorded or f"{said}0m0s" == recorded or f"(default {recorded}" in (option.help or "")


@pytest.mark.parametrize("name", list(RECORDED))
def test_flags(name: str) -> None:
    command = find(*name.split())
    assert command is not None
    if refused(command):
        return
    ours, wrong = options(command), list[str]()
    for flag, recorded in RECORDED[name]["flags"].items():
        option = ours.get(flag)
        if option is None:
            wrong.append(f"{flag}: missing")
        elif recorded["short"] and recorded["short"] not in option.opts:
            wrong.append(f"{flag}: no {recorded['short']}")
        elif not option.hidden and not _kind(option, recorded):
            wrong.append(f"{flag}: takes {recorded['type'] or 'nothing'}")
        elif (name, flag) in DIFFERENT or name in UPDATES:
            continue
        elif not _default(option, recorded["default"]):
            wrong.append(f"{flag}: default {recorded['default']}, not {option.default}")
    assert wrong == []


def test_differences_are_still_some() -> None:
    for name, flag in DIFFERENT:
        option = options(find(*name.split()) or cli)[flag]
        assert not _default(option, RECORDED[name]["flags"][flag]["default"]), (name, flag)
