"""Our canonical form beside docker compose's: running both, and the one place that normalises.

What is normalised away, and why:
- key order: Go sorts, we keep what was written;
- `exec: {command: null}` in watches: Go prints the zero value of a struct;
- `Path`, `Rate`, `Weight` in blkio_config: docker compose prints Go's field names and cannot read them back;
- `bind: {}`: docker compose leaves out `create_host_path: false`, which then reads back as unset;
- `x-` keys below the top level: the JSON form of docker compose drops them, its YAML form does not;
- the order of hosts given as a mapping: Go's maps have none.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from compose.errors import ComposeErrors
from compose.load import load_project

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
ENVIRONMENT = {"HOME": "/root", "PATH": "/usr/bin:/bin", "SET": "set", "EMPTY": ""}
Json = Any  # what json.loads gives


@dataclass(frozen=True)
class Case:
    """One project of the corpus."""

    name: str
    files: tuple[Path, ...]
    environment: Mapping[str, str]
    profiles: tuple[str, ...] = ()
    env_files: tuple[Path, ...] = ()
    project: str | None = "p"

    @property
    def directory(self) -> Path:
        return self.files[0].parent


def cases(group: str) -> list[Case]:
    """The cases of a group: each YAML file, and each directory with a `case.json`."""
    found: list[Case] = []
    for path in sorted((CORPUS / group).iterdir()):
        if path.suffix == ".yml":
            found.append(Case(path.stem, (path,), ENVIRONMENT))
        elif (path / "case.json").exists():
            found.append(_case(path))
    return found


def _case(directory: Path) -> Case:
    said = json.loads((directory / "case.json").read_text())
    return Case(
        directory.name,
        tuple(directory / name for name in said.get("files", ["compose.yml"])),
        {**ENVIRONMENT, **said.get("environment", {})},
        tuple(said.get("profiles", ())),
        tuple(directory / name for name in said.get("env_files", ())),
        said.get("project", "p"),
    )


def oracle(program: str = "docker-compose") -> str:
    """A program to compare with (docker-compose or docker); fetched when it is not there."""
    result = subprocess.run([HERE / "get_oracle.sh", program], capture_output=True, text=True, check=False)
    if result.returncode:
        raise AssertionError(f"cannot fetch {program} to compare with:\n{result.stderr}")
    return result.stdout.strip()


_SEEN: dict[str, tuple[Json | None, str]] = {}


def theirs(program: str, case: Case, *, remember: bool = False) -> tuple[Json | None, str]:
    """docker compose's canonical form, or None and its message. `remember` runs a case of the corpus once."""
    key = " ".join(map(str, case.files))
    if not remember:
        return _theirs(program, case)
    if key not in _SEEN:
        _SEEN[key] = _theirs(program, case)
    return _SEEN[key]


def _theirs(program: str, case: Case) -> tuple[Json | None, str]:
    command = [program]
    if case.project:
        command += ["-p", case.project]
    for file in case.files:
        command += ["-f", str(file)]
    for profile in case.profiles:
        command += ["--profile", profile]
    for env_file in case.env_files:
        command += ["--env-file", str(env_file)]
    environment = {**case.environment, "HOME": os.environ.get("HOME", "/root")}
    result = subprocess.run(
        [*command, "config", "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=case.directory,
    )
    if result.returncode:
        return None, result.stderr.strip()
    return json.loads(result.stdout), result.stderr.strip()


def ours(case: Case) -> tuple[Json | None, str]:
    """Our canonical form, or None and the problems."""
    environment = {**case.environment, "HOME": os.environ.get("HOME", "/root")}
    try:
        project = load_project(
            case.files,
            project_name=case.project,
            environ=environment,
            profiles=case.profiles,
            env_files=case.env_files,
        )
    except ComposeErrors as error:
        return None, str(error)
    return json.loads(json.dumps(project.canonical())), ""


def normalise(value: Json, path: str = "") -> Json:
    """The form in which both sides are compared."""
    if isinstance(value, dict):
        entries = cast(dict[str, Json], value)
        done: dict[str, Json] = {}
        for key, child in entries.items():
            if key.startswith("x-") and path:
                continue
            if ".blkio_config" in path:
                key = key.lower()
            if key == "exec" and child == {"command": None}:
                continue
            child = normalise(child, f"{path}.{key}")
            if key == "bind" and isinstance(child, dict):
                child = {name: part for name, part in child.items() if part is not False}
            done[key] = child
        return done
    if isinstance(value, list):
        items = [normalise(item, f"{path}[]") for item in cast(list[Json], value)]
        if path.endswith(".extra_hosts"):
            return sorted(items)
        return items
    return value


def differences(mine: Json, other: Json, path: str = "") -> list[str]:
    """Each place where two normalised values differ."""
    if isinstance(mine, dict) and isinstance(other, dict):
        found: list[str] = []
        for key in sorted({*mine, *other}):
            if key not in mine:
                found.append(f"{path}.{key}: missing here, there {other[key]!r}")
            elif key not in other:
                found.append(f"{path}.{key}: only here: {mine[key]!r}")
            else:
                found += differences(mine[key], other[key], f"{path}.{key}")
        return found
    if isinstance(mine, list) and isinstance(other, list) and len(mine) == len(other):
        return [
            line
            for index, (a, b) in enumerate(zip(mine, other, strict=True))
            for line in differences(a, b, f"{path}[{index}]")
        ]
    return [] if mine == other and type(mine) is type(other) else [f"{path}: {mine!r}, there {other!r}"]


def compare(program: str, case: Case) -> list[str]:
    """How our reading of a case differs from docker compose's."""
    mine, my_error = ours(case)
    other, their_error = theirs(program, case, remember=True)
    if mine is None and other is None:
        return []
    if mine is None:
        return [f"refused here: {my_error}"]
    if other is None:
        return [f"refused there: {their_error}"]
    return differences(normalise(mine), normalise(other))


def known_differences() -> dict[str, str]:
    """Case -> why it differs."""
    return yaml.safe_load((CORPUS / "differences.yml").read_text()) or {}


def group_names(groups: Sequence[str]) -> list[tuple[str, Case]]:
    return [(f"{group}/{case.name}", case) for group in groups for case in cases(group)]
