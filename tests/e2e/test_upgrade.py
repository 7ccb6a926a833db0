"""Today's code on state that an earlier version has stored, and on state of a version that it does not know."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from manager.main import etcd_config, etcd_tls
from manager.sealer import Sealer
from manager.store import Put
from manager.store.etcd import EtcdStore
from pyswarm import nodeconfig, supervisor
from pyswarm.objects import SCHEMA_VERSION, Cluster
from tests.e2e.cluster import busybox_context, until
from tests.e2e.lab_cluster import LabCluster, fetch

pytestmark = [pytest.mark.e2e, pytest.mark.root]

RECORDED = sorted((Path(__file__).parent.parent / "fixtures").glob("state-*.backup"))


@pytest.fixture(params=RECORDED, ids=lambda path: path.stem)
def swarm(request: pytest.FixtureRequest) -> Iterator[LabCluster]:
    """One machine, on which the recorded state is started; the image is built there, as it was in its time."""
    cluster = LabCluster("psg", 1, 0, "198.18.84.0/24")
    first = cluster.first
    place = ("--cgroup-parent", first.cgroup, "--link-prefix", first.link.replace("-", ""))
    try:
        cluster.cli("restore", str(request.param), "--advertise-addr", first.address, *place)
        cluster.build("busybox", busybox_context(cluster.directory))
        yield cluster
    finally:
        cluster.leave()


def test_recorded_state_starts(swarm: LabCluster, request: pytest.FixtureRequest) -> None:
    path: Path = request.node.callspec.params["swarm"]
    told = json.loads(path.with_suffix(".json").read_text())
    assert sorted(swarm.cli("service", "ls", "--format", "{{.Name}}").split()) == told["names"]["service"]
    swarm.cli(
        "service", "update", "-d", "--image", "busybox", "shop_web"
    )  # the state pins the build of its time
    web = swarm.wait_running("shop_web", 3)
    swarm.wait_running("shop_everywhere", 1)
    assert swarm.cli("exec", web[0].id, "cat", "/run/secrets/pw").strip() == "hunter2", "its key came along"
    assert swarm.cli("exec", web[0].id, "cat", "/etc/settings").strip() == "a=1"
    until(lambda: _answers(f"{swarm.first.address}:18084"), "the published port answers", 20)
    swarm.cli("service", "scale", "-d", "shop_web=1")
    swarm.wait_running("shop_web", 1)
    _newer_state_is_refused(swarm)


def _answers(address: str) -> bool:
    """The web server of the recorded image has one page, that there is none."""
    return "404" in fetch(address)


def _newer_state_is_refused(swarm: LabCluster) -> None:
    """A newer manager has raised the schema: this one must not lead any more, and says why."""
    asyncio.run(_raise_schema(nodeconfig.load(swarm.state)))
    os.kill(supervisor.holder(swarm.run / "manager.lock"), signal.SIGKILL)

    def told() -> bool:
        return f"has schema {SCHEMA_VERSION + 1}" in swarm.run_cli("service", "ls").stderr

    until(told, "the command line says what is wrong", 30)


async def _raise_schema(config: nodeconfig.NodeConfig) -> None:
    """What the leader of a newer version would do."""
    sealer = Sealer.load(config.state / nodeconfig.SEAL_KEY)
    store = EtcdStore.connect([etcd_config(config).client_endpoint], etcd_tls(config), seal=sealer)
    try:
        async with asyncio.timeout(30):
            (cluster,) = (await store.list("cluster")).objects
            assert isinstance(cluster, Cluster)
            await store.commit([Put(replace(cluster, schema_version=SCHEMA_VERSION + 1))])
    finally:
        await store.close()
