"""Every directory of examples/stacks: deployed by the real command line, asked its question, removed without trace.

An example is a compose.yml whose published ports are `${NAME_PORT:-default}`, and a check.sh that sends requests to
them, prints what came and fails when it is not what the example promises. A new directory is covered by being there.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster, until
from tests.e2e.machine import Machine

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(700)]

ROOT = Path(__file__).parents[2]
STACKS = ROOT / "examples" / "stacks"
CACHE = ROOT / "build" / "examples" / "base"
PORT = re.compile(r"\$\{([A-Z_]*PORT):-\d+\}")
KINDS = ("service", "network", "secret", "config")


def base_context() -> Path:
    """The build context of debian-base; its root file system is made once and kept under build/."""
    made = subprocess.run(
        [ROOT / "examples" / "base" / "rootfs.sh", CACHE], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    shutil.copy(ROOT / "examples" / "base" / "Dockerfile", CACHE)
    return CACHE


@pytest.fixture(scope="module")
def stage(shared: Cluster) -> Iterator[Cluster]:
    """The shared cluster, with the image that all examples stand on."""
    shared.cli("image", "build", "--quiet", "--tag", "debian-base", str(base_context()))
    yield shared


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def names(cluster: Cluster) -> dict[str, list[str]]:
    """What the cluster holds, by kind; volumes outlive their stack on purpose and are not among it."""
    return {kind: sorted(cluster.cli(kind, "ls", "-q").split()) for kind in KINDS}


@pytest.mark.parametrize("name", sorted(path.parent.name for path in STACKS.glob("*/compose.yml")))
def test_example(stage: Cluster, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compose = STACKS / name / "compose.yml"
    ports = dict.fromkeys(PORT.findall(compose.read_text()))
    assert ports, "an example publishes a port, ${NAME_PORT:-default}"
    for variable in ports:
        monkeypatch.setenv(variable, str(free_port()))
    before, machine = names(stage), Machine.look(str(stage.directory))
    volumes = set(stage.cli("volume", "ls", "-q").split())
    try:
        deploy = ("stack", "deploy", "--timeout", "200s", "-c", str(compose), name)
        first = stage.run_cli(*deploy, seconds=500)
        assert first.returncode == 0, first.stdout + first.stderr
        assert check(stage, name), "the check says what it saw"
        again = stage.cli("stack", "deploy", "--timeout", "100s", "-c", str(compose), name)
        assert "is up to date" in again, "a second deploy of the same file changes nothing"
    except BaseException:
        print(stage.run_cli("stack", "ps", "--no-trunc", name).stdout)
        raise
    finally:
        stage.cli("stack", "rm", name)
    assert names(stage) == before
    made = set(stage.cli("volume", "ls", "-q").split()) - volumes
    assert all(volume.startswith(f"{name}_") for volume in made)
    if made:
        stage.cli("volume", "rm", *sorted(made))
    until(lambda: left(stage, machine) == {}, f"nothing of {name} is left on the machine")


def check(cluster: Cluster, name: str) -> str:
    """Run the example's check.sh; what it printed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        [STACKS / name / "check.sh"],
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
        env={**cluster.environment, "PATH": path},
    )
    assert result.returncode == 0, f"check.sh: {result.returncode}\n{result.stdout}{result.stderr}"
    return result.stdout


def left(cluster: Cluster, before: Machine) -> dict[str, list[str]]:
    """What the machine shows now and did not before: the cluster's own processes and links alone. Mounts of images
    that were used stay with the image, and other clusters' links come and go."""
    found = Machine.look(str(cluster.directory)).difference(before)
    mine = {
        "processes": [p for p in found.get("processes", ([], []))[0] if "conmon" in p or "runc" in p],
        "mounts": [m for m in found.get("mounts", ([], []))[0] if "/images/" not in m],
        "links": [n for n in found.get("links", ([], []))[0] if n.startswith(cluster.name)],
    }
    return {what: rows for what, rows in mine.items() if rows}
