"""Leaving takes everything along: processes, mounts, links, namespaces, cgroups, tables and files."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyswarm.specs import ContainerSpec, EndpointSpec, Mount, NetworkSpec, PortConfig, ServiceSpec, TaskSpec
from tests.e2e.cluster import SLEEPER, Cluster, busybox_context
from tests.e2e.machine import Machine

pytestmark = [pytest.mark.e2e, pytest.mark.root]


def test_nothing_is_left(tmp_path: Path) -> None:
    directory = tmp_path / "cluster"
    directory.mkdir()
    before = Machine.look(str(directory))
    cluster = Cluster(directory)
    cluster.init()
    try:
        cluster.build("busybox", busybox_context(directory))
        cluster.ask(lambda client: client.create(NetworkSpec(name="net")))
        container = ContainerSpec(
            image="busybox", args=tuple(SLEEPER), mounts=(Mount(source="data", target="/data"),)
        )
        spec = ServiceSpec(
            name="web",
            task=TaskSpec(container=container),
            endpoint=EndpointSpec(ports=(PortConfig(target_port=80, published_port=28123),)),
        )
        cluster.ask(lambda client: client.create(spec))
        cluster.wait_running("web", 1)
        during = Machine.look(str(directory))
        shown = during.difference(before)
        assert {"processes", "mounts", "links", "tables"} <= set(shown), "the comparison is blind"
    finally:
        cluster.leave()
    assert Machine.look(str(directory)).difference(before) == {}
    assert not directory.exists()
