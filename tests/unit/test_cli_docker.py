"""What pyswarm prints and sends, beside what docker's client did with the same cluster (tests/golden)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from pyswarm import engine
from pyswarm.cli.service import BLANK, service
from pyswarm.cli.service_flags import apply
from pyswarm.clock import SystemClock
from pyswarm.objects import Service
from pyswarm.specs import ServiceSpec
from tests.unit import docker_engine
from tests.unit.cli_manager import CliManager
from tests.unit.docker_engine import CREATES, LISTS, UPDATES, words

RECORDED: dict[str, Any] = json.loads(docker_engine.GOLDEN.read_text())


def steady(text: str) -> str:
    """Without what differs from run to run: revisions, and times that are told in relation to now."""
    text = re.sub(r'"Index": \d+', '"Index": N', text)
    return re.sub(r'"(StartedAt|CompletedAt)": "[^"]*"', r'"\1": T', text)


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CliManager]:
    objects = docker_engine.world(SystemClock().now())
    place = tmp_path_factory.mktemp("run")
    with CliManager(place, node_id=docker_engine.NODE1, objects=objects) as manager:
        yield manager


@pytest.mark.parametrize("name", list(LISTS))
def test_prints_what_docker_prints(swarm: CliManager, name: str) -> None:
    recorded = RECORDED["lists"][name]
    result = swarm(*words(LISTS[name]), code=None)
    assert bool(result.exit_code) == bool(recorded["code"])
    if recorded["code"]:
        # docker names the Go types of its own packages.
        assert _untyped(result.stderr) == _untyped(recorded["err"])
    else:
        assert steady(result.stdout) == steady(recorded["out"])


def _untyped(text: str) -> str:
    return text.partition(" in type ")[0].rstrip("\n")


def _spec(arguments: Sequence[str], base: ServiceSpec) -> dict[str, Any]:
    """The spec that these arguments of create or update make, as the Engine API has it."""
    command = service.commands["create" if not base.name else "update"]
    words = [*arguments, *(["web"] if base.name else [])]
    given = command.make_context("service", list(words)).params
    spec = apply(base, given, {})
    return json.loads(json.dumps(engine.service_spec_json(spec)))


def _sorted(body: Any) -> ServiceSpec:
    """A spec from the Engine API with the lists sorted whose order docker's client does not keep."""
    spec = replace(engine.service_spec(body), name="")
    container = spec.task.container
    container = replace(
        container,
        env=tuple(sorted(container.env)),
        mounts=tuple(sorted(container.mounts, key=lambda mount: mount.target)),
        ulimits=tuple(sorted(container.ulimits, key=lambda limit: limit.name)),
    )
    ports = tuple(sorted(spec.endpoint.ports, key=lambda port: (port.protocol, port.target_port)))
    task = replace(spec.task, container=container)
    return replace(spec, task=task, endpoint=replace(spec.endpoint, ports=ports))


@pytest.mark.parametrize("name", list(CREATES))
def test_create_asks_for_what_docker_asks_for(name: str) -> None:
    assert _sorted(_spec(CREATES[name], BLANK)) == _sorted(RECORDED["creates"][name])


@pytest.mark.parametrize("name", list(UPDATES))
def test_update_asks_for_what_docker_asks_for(name: str) -> None:
    web = next(o for o in docker_engine.world(0.0) if isinstance(o, Service) and o.spec.name == "web")
    assert _sorted(_spec(UPDATES[name], web.spec)) == _sorted(RECORDED["updates"][name])
