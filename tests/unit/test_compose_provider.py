"""Provider services: the order, the command line, and what a program of the protocol's tells."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pytest

from compose.convert import convert_stack
from compose.load import load_project
from compose.project import Project
from pyswarm.cli import compose_provider
from pyswarm.cli.compose_provider import Metadata, Provided, ProviderFailed
from pyswarm.errors import Invalid, NotFound

COMPOSE = """\
services:
  cache: {provider: {type: cloud, options: {size: 10, zone: [a, b]}}, depends_on: [data-base]}
  data-base: {provider: {type: cloud, options: {size: 20}}}
  web: {image: web, depends_on: [data-base], environment: {DATA_BASE_URL: mine, KEPT: "1"}}
  other: {image: other}
"""
PROGRAM = """\
#!/bin/sh
[ "$2" = metadata ] && exit 1
echo "$*" >> "$CALLS"
echo '{"type":"info","message":"half"}'
echo '{"type":"debug","message":"unseen"}'
echo '{"type":"setenv","message":"URL=http://x?a=b"}'
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "compose.yml").write_text(COMPOSE)
    return load_project([tmp_path / "compose.yml"], project_name="p", environ={})


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "bin" / "docker-cloud"
    path.parent.mkdir()
    path.write_text(PROGRAM)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return path


async def up(project: Project, *names: str) -> Provided:
    with click.Context(click.Command("up")):
        return await compose_provider.run(project, names, "up")


def test_each_comes_after_those_that_it_needs(project: Project) -> None:
    assert compose_provider.providers(project) == ["data-base", "cache"]
    assert compose_provider.providers(project, ["web"]) == ["data-base"]
    assert compose_provider.providers(project, ["other"]) == []


async def test_what_a_provider_sets_reaches_its_dependents(
    project: Project, cloud: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    provided = await up(project, "data-base")
    assert (tmp_path / "calls").read_text() == "compose --project-name=p up --size=20 data-base\n"
    assert "Service data-base  half" in capfd.readouterr().err
    specs = compose_provider.given(convert_stack(project, "p"), project, provided)
    web, other = (next(s for s in specs.services if s.name == f"p_{name}") for name in ("web", "other"))
    assert set(web.task.container.env) == {"KEPT=1", "DATA_BASE_URL=http://x?a=b"}
    assert other.task.container.env == ()


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('{"type":"error","message":"no quota"}', "provider cloud: no quota"),
        ("hello", "printed what is no message: 'hello"),
        ('{"type":"setenv","message":"=x"}', "it must be NAME=value"),
        ('{"type":"dance"}', "unknown message type 'dance'"),
        ("[1]", "printed what is no message"),
    ],
)
async def test_what_goes_wrong_is_said(project: Project, cloud: Path, line: str, text: str) -> None:
    cloud.write_text(f"#!/bin/sh\n[ $2 = metadata ] && exit 1\necho '{line}'\n")
    with pytest.raises(ProviderFailed) as error:
        await up(project, "data-base")
    assert text in str(error.value)


async def test_a_program_that_fails_or_is_not_there(project: Project, cloud: Path) -> None:
    cloud.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(ProviderFailed, match="ended with exit code 3"):
        await up(project, "data-base")
    cloud.unlink()
    with pytest.raises(NotFound, match="install docker-cloud in"):
        await up(project, "data-base")
    with pytest.raises(Invalid, match="is not the name of a program"):
        compose_provider.program("../x")


def test_the_program_says_which_options_it_knows(project: Project) -> None:
    said = b'{"up": {"parameters": [{"name": "size", "required": true}]}, "down": {"parameters": []}}'
    known = compose_provider.parsed_metadata(said, "up")
    assert known == Metadata(frozenset(["size"]), ("size",))
    provider = project.services["cache"].provider
    assert provider is not None
    assert compose_provider.arguments("p", "cache", provider, "up", known)[3:] == ["--size=10", "cache"]
    nothing = compose_provider.parsed_metadata(said, "down")
    assert compose_provider.arguments("p", "cache", provider, "down", nothing)[3:] == ["cache"]
    every = compose_provider.parsed_metadata(b"what?", "up")
    assert compose_provider.arguments("p", "cache", provider, "up", every)[3:] == [
        "--size=10",
        "--zone=a",
        "--zone=b",
        "cache",
    ]
