"""Specs from a file beside specs from what `docker stack config` makes of the file.

docker's client knows Compose files up to version 3.13 only; what it takes must mean the same here.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from compose.convert import StackSpecs, convert_stack
from compose.load import load_project
from compose.plan import FieldChange, diff
from tests.compose import differ
from tests.compose.differ import Case

pytestmark = pytest.mark.differential
CASES = differ.group_names(["attributes", "merge", "stacks", "stack"])
KNOWN = {
    "attributes/command_list": "docker forgets that a command is empty on purpose",
    "attributes/command_operators": "docker keeps shell operators as arguments; we follow docker compose and warn",
    "attributes/entrypoint": "docker forgets that an entrypoint is empty on purpose",
    "attributes/multi_document": "docker reads the first document only",
    "attributes/ports_short": "docker stack deploy drops the address of a published port",
    "attributes/volume_bind_driver": "docker leaves the path relative: each node would take it from another directory",
    "attributes/volumes_short": "docker does not clean the paths in the container",
    "attributes/volumes_windows": "docker takes a named pipe of Windows for a relative path",
    "merge/Project.Name_2": "docker does not set COMPOSE_PROJECT_NAME",
    "merge/reset_alone": "docker does not know !reset",
    "stacks/traefik": "docker prints $$ as $, which is a variable when read again",
}
"""Case -> why the specs differ."""


@pytest.fixture(scope="session")
def docker() -> str:
    return differ.oracle("docker")


def _specs(files: tuple[Path, ...], environment: dict[str, str]) -> StackSpecs:
    project = load_project(files, project_name="p", environ=environment, profiles=["*"])
    return convert_stack(project, "s")


def _stack_config(docker: str, case: Case, environment: dict[str, str]) -> str | None:
    command = [docker, "stack", "config"]
    for file in case.files:
        command += ["-c", str(file)]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=case.directory
    )
    return None if result.returncode else result.stdout


def test_docker_takes_enough_of_the_corpus(docker: str) -> None:
    """The comparison is worth something."""
    environment = {**differ.ENVIRONMENT, "HOME": os.environ.get("HOME", "/root")}
    taken = [name for name, case in CASES if _stack_config(docker, case, environment) is not None]
    assert len(taken) > 60


@pytest.mark.parametrize(("name", "case"), CASES, ids=[name for name, _ in CASES])
def test_same_specs(docker: str, name: str, case: Case, tmp_path: Path) -> None:
    environment = {
        **case.environment,
        "HOME": os.environ.get("HOME", "/root"),
        "COMPOSE_DISABLE_ENV_FILE": "1",
    }
    if case.env_files or (case.directory / ".env").exists():
        return  # the client knows no environment files for variables
    text = _stack_config(docker, case, environment)
    if text is None:
        return  # newer than the client: nothing to compare
    printed = tmp_path / "compose.yml"
    printed.write_text(text)
    for extra in case.directory.glob("*.env"):
        (tmp_path / extra.name).write_text(extra.read_text())
    found = [
        f"{item.path}: {item.old!r}, docker: {item.new!r}"
        for item in _differences(_specs(case.files, environment), _specs((printed,), environment))
    ]
    if name in KNOWN:
        assert found, f"{name} no longer differs ({KNOWN[name]})"
    else:
        assert not found, "\n".join(found[:20])


def _differences(mine: StackSpecs, other: StackSpecs) -> list[FieldChange]:
    found: list[FieldChange] = []
    for kind in ("services", "networks", "volumes", "secrets", "configs"):
        have = {item.name: item for item in getattr(mine, kind)}
        want = {item.name: item for item in getattr(other, kind)}
        found += diff(have, want, kind)
    return found
