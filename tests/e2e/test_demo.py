"""`make demo` and `make demo-down`: the script that they run, in directories and on ports of the test's own."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster
from tests.e2e.machine import Machine
from tests.e2e.test_examples import base_context, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]


def init_flags(cluster: Cluster) -> str:
    options = cluster.options
    return (
        f"--advertise-addr {options.advertise_addr} --listen-addr {options.listen_addr} "
        f"--api-port {options.ports.api} --etcd-client-port {options.ports.etcd_client} "
        f"--etcd-peer-port {options.ports.etcd_peer} --data-path-port {options.data_path_port} "
        f"--cgroup-parent {options.cgroup_parent} --link-prefix {options.link_prefix}"
    )


def kept_base(directory: Path) -> Path:
    """A cache for the demo that has the root file system already, as a link: `down` deletes it."""
    cache = directory / "cache"
    (cache / "base").mkdir(parents=True)
    source = base_context() / "rootfs.tar"
    try:
        os.link(source, cache / "base" / "rootfs.tar")
    except OSError:
        (cache / "base" / "rootfs.tar").write_bytes(source.read_bytes())
    return cache


def own_part(cluster: Cluster, found: dict[str, tuple[list[str], list[str]]]) -> dict[str, list[str]]:
    """What of a difference is this cluster's: others come and go meanwhile."""
    marks = (str(cluster.directory), cluster.name)
    rows = {what: [row for row in more if any(m in row for m in marks)] for what, (more, _) in found.items()}
    return {what: more for what, more in rows.items() if more}


def test_up_again_and_down(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "demo")
    cluster.directory.mkdir()
    cache = kept_base(cluster.directory)
    port = free_port()
    environment = {
        **cluster.environment,
        "SHOP_PORT": str(port),
        "DEMO_CACHE": str(cache),
        "PYSWARM_INIT_FLAGS": init_flags(cluster),
    }

    def demo(verb: str) -> str:
        result = subprocess.run(
            [ROOT / "scripts" / "demo.sh", verb],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=500,
        )
        assert result.returncode == 0, f"demo.sh {verb}: {result.returncode}\n{result.stdout}{result.stderr}"
        return result.stdout

    before = Machine.look(str(cluster.directory))
    try:
        first = demo("up")
        assert '"name": "Iron pot"' in first, "the application's answer"
        assert f"http://localhost:{port}/" in first and "make demo-down" in first, "what to try next"
        during = own_part(cluster, Machine.look(str(cluster.directory)).difference(before))
        assert {"processes", "mounts", "links", "tables", "cgroups"} <= set(during), "the comparison is blind"
        containers = cluster.containers()
        began = time.monotonic()
        again = demo("up")
        took = time.monotonic() - began
        assert "Stack shop is up to date" in again and '"name": "Iron pot"' in again
        assert cluster.containers() == containers, "nothing is restarted"
        print(f"the second run took {took:.0f} s")
    finally:
        demo("down")
    assert own_part(cluster, Machine.look(str(cluster.directory)).difference(before)) == {}
    assert not cluster.state.exists() and not cluster.run.exists() and not cache.exists()
    assert demo("down"), "a second time is harmless"
