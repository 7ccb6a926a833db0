"""Our reading of Compose files beside docker compose's own, over the corpus."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from compose.project import render
from tests.compose import differ
from tests.compose.differ import Case, compare, known_differences, ours, theirs
from tests.compose.random_documents import Documents

pytestmark = pytest.mark.differential
VALID = differ.group_names(["attributes", "merge", "stacks", "stack", "hard"])
INVALID = differ.group_names(["invalid"])
KNOWN = known_differences()
LOCATED = re.compile(r"^[^\n:]+:\d+:\d+: ", re.MULTILINE)


@pytest.fixture(scope="session")
def oracle() -> str:
    return differ.oracle()


@pytest.mark.parametrize(("name", "case"), VALID, ids=[name for name, _ in VALID])
def test_same_canonical_form(oracle: str, name: str, case: Case) -> None:
    found = compare(oracle, case)
    if name in KNOWN:
        assert found, f"{name} no longer differs: take it out of differences.yml ({KNOWN[name]})"
    else:
        assert not found, "\n".join(found)
        mine, problems = ours(case)
        assert mine is not None, f"a case of the valid corpus is refused by both: {problems}"


@pytest.mark.parametrize(("name", "case"), INVALID, ids=[name for name, _ in INVALID])
def test_both_refuse(oracle: str, name: str, case: Case) -> None:
    mine, problems = ours(case)
    other, _ = theirs(oracle, case)
    assert other is None, f"{name} is valid for docker compose"
    assert mine is None, f"{name} is valid here"
    if name not in ("invalid/empty",):
        assert LOCATED.search(problems), problems


@pytest.mark.parametrize("form", ["json", "yaml"])
@pytest.mark.parametrize(("name", "case"), VALID, ids=[name for name, _ in VALID])
def test_canonical_form_is_a_fixed_point(
    name: str, case: Case, form: Literal["json", "yaml"], tmp_path: Path
) -> None:
    first, problems = ours(case)
    assert first is not None, problems
    file = tmp_path / "compose.yml"
    file.write_text(render(first, form))
    environment = {"HOME": os.environ.get("HOME", "/root")}
    second, problems = ours(Case(name, (file,), environment, ("*",), project=first["name"]))
    assert second == first, problems


def test_docker_compose_reads_our_output(oracle: str, tmp_path: Path) -> None:
    """What we print is a Compose file: docker compose reads it as the same project."""
    for name, case in VALID:
        if name in KNOWN:
            continue
        mine, _ = ours(case)
        other, _ = theirs(oracle, case, remember=True)
        file = tmp_path / f"{case.name}.yml"
        reread = Case(name, (file,), {"PATH": "/usr/bin:/bin"}, ("*",), project="p")
        file.write_text(json.dumps(other))
        if theirs(oracle, reread)[0] is None:
            continue  # docker compose cannot read what it printed itself (a limit of -1, blkio_config, ...)
        assert mine is not None
        file.write_text(json.dumps(mine))
        again, problems = theirs(oracle, replace(reread, project=mine["name"]))
        assert again is not None, f"{name}: {problems}"
        assert differ.differences(differ.normalise(mine), differ.normalise(again)) == [], name


@pytest.mark.parametrize("seed", range(12))
def test_random_documents(oracle: str, seed: int, tmp_path: Path) -> None:
    documents = Documents(seed)
    project = documents.project()
    files = (tmp_path / "compose.yml", tmp_path / "override.yml")
    files[0].write_text(json.dumps(project))
    files[1].write_text(json.dumps(documents.override(project)))
    for chosen in (files[:1], files):
        case = Case(f"seed {seed}", chosen, differ.ENVIRONMENT)
        assert compare(oracle, case) == [], f"seed {seed}, {len(chosen)} files"
        mine, problems = ours(case)
        assert mine is not None, problems


def test_known_differences_name_cases() -> None:
    assert set(KNOWN) <= {name for name, _ in VALID}
