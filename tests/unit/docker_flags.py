"""What docker's own client says that its commands take: `docker X --help` as data.

`python -m tests.unit.docker_flags` asks the docker that is installed (28 or newer; no daemon is needed) and writes
tests/golden/docker_flags.json: review the difference. The tests hold pyswarm's commands against that file, so they
need no docker.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[1] / "golden" / "docker_flags.json"
NOUNS = (
    "stack",
    "service",
    "node",
    "network",
    "volume",
    "secret",
    "config",
    "swarm",
    "image",
    "context",
    "system",
)
ALONE = (
    *("build", "events", "exec", "history", "images", "info", "inspect", "kill", "load", "login", "logout"),
    *("logs", "ps", "pull", "push", "rmi", "save", "stats", "tag", "version"),
)
"""Commands without a noun; those on one machine's containers (run, start, cp, ...) are no part of a swarm."""

_FLAG = re.compile(
    r"^ {2}(?: {4}|(?P<short>-\w), )(?P<name>--[\w-]+)(?: (?P<type>\S+))?(?: {2,}(?P<text>.*))?$"
)
_DEFAULT = re.compile(r'\(default ("?)(.+?)\1\)')


def _help(*command: str) -> str:
    done = subprocess.run(["docker", *command, "--help"], capture_output=True, text=True, check=True)
    return done.stdout


def _commands(text: str) -> list[str]:
    return re.findall(r"^  ([a-z-]+) {2,}", text.partition("Commands:")[2], re.MULTILINE)


def flags(text: str) -> dict[str, dict[str, str]]:
    """Long name -> its short name, type ("" for a boolean) and default, "" where docker says none."""
    found: dict[str, dict[str, str]] = {}
    last = ""
    for line in text.partition("\nOptions:")[2].splitlines():
        match = _FLAG.match(line)
        if match:
            last = match["name"]
            found[last] = {
                "short": match["short"] or "",
                "type": match["type"] or "",
                "text": match["text"] or "",
            }
        elif last and line.startswith(" " * 12):
            found[last]["text"] += " " + line.strip()
    for flag in found.values():
        default = _DEFAULT.search(flag.pop("text"))
        flag["default"] = default[2] if default else ""
    return found


def command(*path: str) -> dict[str, Any]:
    text = _help(*path)
    usage = re.search(r"^Usage: +(.+)$", text, re.MULTILINE)
    aliases = re.search(r"^Aliases:\n +(.+)$", text, re.MULTILINE)
    return {
        "usage": usage[1].removeprefix(f"docker {' '.join(path)}").strip() if usage else "",
        "aliases": aliases[1].replace("docker ", "").split(", ") if aliases else [],
        "flags": flags(text),
    }


def record() -> dict[str, Any]:
    paths = [(noun, verb) for noun in NOUNS for verb in _commands(_help(noun))] + [(each,) for each in ALONE]
    version = subprocess.run(
        ["docker", "--version"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return {"version": version, "commands": {" ".join(path): command(*path) for path in paths}}


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(record(), indent=1, sort_keys=True) + "\n")
