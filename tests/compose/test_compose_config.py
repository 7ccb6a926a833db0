"""`pyswarm compose config` and its flags beside docker compose's, over the corpus."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from compose.errors import ComposeErrors
from compose.load import Passes, load_project
from pyswarm.cli.main import run
from tests.compose import differ
from tests.compose.differ import Case

pytestmark = pytest.mark.differential
GROUPS = ("merge", "stacks", "hard")
KNOWN = differ.known_differences()
CASES = [(name, case) for name, case in differ.group_names(GROUPS) if name not in KNOWN]
FLAGS = {
    "--no-path-resolution": Passes(paths=False),
    "--no-normalize": Passes(defaults=False),
    "--no-consistency": Passes(consistency=False),
}
LISTS = ("--services", "--images", "--volumes", "--networks", "--profiles", "--variables")
EXCEPT = {
    ("hard/durs", "--no-consistency"): "docker compose copies scale to deploy.replicas while it checks",
}


@pytest.fixture(scope="session")
def oracle() -> str:
    return differ.oracle()


def _arguments(case: Case) -> list[str]:
    said = ["-p", case.project] if case.project else []
    said += [part for file in case.files for part in ("-f", str(file))]
    said += [part for profile in case.profiles for part in ("--profile", profile)]
    return [*said, *(part for file in case.env_files for part in ("--env-file", str(file)))]


def _theirs(oracle: str, case: Case, *flags: str) -> str | None:
    done = subprocess.run(
        [oracle, *_arguments(case), "config", *flags],
        capture_output=True,
        text=True,
        check=False,
        env={**case.environment, "HOME": os.environ.get("HOME", "/root")},
        cwd=case.directory,
    )
    return done.stdout if done.returncode == 0 else None


@pytest.mark.parametrize("flag", FLAGS)
def test_passes_can_be_left_out(oracle: str, flag: str) -> None:
    problems: list[str] = []
    for name, case in CASES:
        other = _theirs(oracle, case, flag, "--format", "json")
        environment = {**case.environment, "HOME": os.environ.get("HOME", "/root")}
        try:
            project = load_project(
                case.files,
                project_name=case.project,
                environ=environment,
                profiles=case.profiles,
                env_files=case.env_files,
                passes=FLAGS[flag],
            )
        except ComposeErrors as error:
            if other is not None:
                problems.append(f"{name}: refused here: {error}")
            continue
        if other is None:
            problems.append(f"{name}: refused there")
            continue
        mine = differ.normalise(json.loads(json.dumps(project.canonical())))
        found = differ.differences(mine, differ.normalise(json.loads(other)))
        if (name, flag) in EXCEPT:
            assert found, f"{name} no longer differs"
            continue
        problems += [f"{name}: {each}" for each in found]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("flag", LISTS)
def test_lists(
    oracle: str, flag: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, case in CASES:
        if name.startswith("hard/"):
            continue
        other = _theirs(oracle, case, flag)
        monkeypatch.chdir(case.directory)
        with pytest.MonkeyPatch.context() as patch:
            for key in list(os.environ):
                if key not in ("HOME", "PYTHONPATH"):
                    patch.delenv(key)
            for key, value in case.environment.items():
                patch.setenv(key, value)
            patch.setenv("HOME", os.environ.get("HOME", "/root"))
            code = run(["compose", *_arguments(case), "config", flag])
        mine = capfd.readouterr()
        if other is None:
            continue
        assert code == 0, f"{name}: {mine.err}"
        if flag == "--variables":  # docker compose leaves out those of the name, and some of included files
            assert {row[0] for row in _rows(other)} <= {row[0] for row in _rows(mine.out)}, name
        else:
            assert _rows(mine.out) == _rows(other), name


def _rows(text: str) -> list[list[str]]:
    """Lines as words, in order: docker compose prints in the order of a Go map."""
    return sorted(line.split() for line in text.splitlines() if line.strip())


def test_environment(
    oracle: str, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in list(os.environ):
        if key not in ("HOME", "PATH"):
            monkeypatch.delenv(key)
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("ONE=1\nTWO=${ONE}2\n")
    (tmp_path / "compose.yml").write_text("services: {a: {image: 'a:${TWO}'}}\n")
    arguments = ["-p", "x", "-f", str(tmp_path / "compose.yml")]
    # A program that pytest starts without a terminal may be told of one that is not there.
    environment = {key: text for key, text in os.environ.items() if key not in ("COLUMNS", "LINES")}
    done = subprocess.run(
        [oracle, *arguments, "config", "--environment"],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert run(["compose", *arguments, "config", "--environment"]) == 0
    mine = set(capfd.readouterr().out.splitlines())
    theirs = {line for line in done.stdout.splitlines() if not line.startswith(("PWD=", "PYTEST_"))}
    assert theirs - mine == set()
    assert {"ONE=1", "TWO=12", "COMPOSE_PROJECT_NAME=x"} <= mine
