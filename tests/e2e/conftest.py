"""Fixtures of the end-to-end tests: one cluster for those that leave it as it was, one each for the others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster, busybox_context


def _start(directory: Path) -> Cluster:
    assert os.geteuid() == 0, "the end-to-end tests need root"
    directory.mkdir(exist_ok=True)
    cluster = Cluster(directory)
    cluster.init()
    try:
        cluster.build("busybox", busybox_context(directory))
    except BaseException:
        cluster.leave()
        raise
    return cluster


def _show_logs(cluster: Cluster) -> None:
    """Captured by pytest, and shown when the test has failed."""
    for log in sorted((cluster.state / "log").glob("*.log")):
        print(f"--- {log.name}")
        print("\n".join(log.read_text(errors="replace").splitlines()[-60:]))


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that tests share: each removes the services it made."""
    cluster = _start(tmp_path_factory.mktemp("shared"))
    yield cluster
    _show_logs(cluster)
    cluster.leave()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster of the test's own, to break."""
    cluster = _start(tmp_path / "own")
    yield cluster
    _show_logs(cluster)
    cluster.leave()
