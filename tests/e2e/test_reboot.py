"""A machine that goes down without warning: at its next start the desired state comes back, nothing is left over."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from pyswarm import daemons
from pyswarm.objects import TaskState
from pyswarm.specs import (
    ContainerSpec,
    Mount,
    NetworkAttachmentSpec,
    NetworkSpec,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)
from tests.e2e.cluster import Cluster, until
from tests.e2e.machine import processes

pytestmark = [pytest.mark.e2e, pytest.mark.root]

COUNT = "echo started >> /data/starts; trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done"


def crash(cluster: Cluster) -> None:
    """What a power cut does: every process gone, every mount and link with it, tmpfs empty."""
    containers = cluster.containers().values()
    for _ in range(3):
        for pid in [*processes(str(cluster.directory)), *containers]:
            if pid != os.getpid():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
    until(lambda: not processes(str(cluster.directory)), "all processes are gone")
    lines = Path("/proc/self/mounts").read_text().splitlines()
    mounts = [line.split(" ")[1] for line in lines if f" {cluster.directory}/" in line]
    for mount in sorted(mounts, reverse=True):
        subprocess.run(["umount", "-l", mount], check=True)
    shutil.rmtree(cluster.run)
    for link in Path("/sys/class/net").glob(f"{cluster.options.link_prefix}*"):
        subprocess.run(["ip", "link", "delete", link.name], check=True)
    subprocess.run(["nft", "delete", "table", "ip", f"pyswarm_{cluster.options.link_prefix}"], check=True)


def test_everything_comes_back(own: Cluster) -> None:
    own.ask(lambda client: client.create(NetworkSpec(name="net")))
    container = ContainerSpec(
        image="busybox", args=("sh", "-c", COUNT), mounts=(Mount(source="data", target="/data"),)
    )
    task = TaskSpec(
        container=container, networks=(NetworkAttachmentSpec(target="net"),), restart=RestartPolicy(delay=0.2)
    )
    own.ask(lambda client: client.create(ServiceSpec(name="web", task=task, mode=ServiceMode(replicas=3))))
    before = {t.id for t in own.wait_running("web", 3)}
    crash(own)
    daemons.start(own.config)
    until(lambda: own.pid("agent") and (own.run / "pyswarm.sock").exists(), "the daemons are up")
    # Until the agent has registered, the managers believe what was true before.
    until(lambda: not before & {t.id for t in own.running("web")}, "the lost tasks are known to be lost")
    after = own.wait_running("web", 3)
    assert not before & {t.id for t in after}, "a container cannot have survived"
    lost = [t for t in own.tasks("web") if t.id in before]
    assert lost, "the history forgot the tasks that the crash ended"
    assert all(t.status.state > TaskState.RUNNING for t in lost)
    starts = (own.state / "agent" / "volumes" / "data" / "_data" / "starts").read_text()
    assert starts.count("started") == 6
    assert set(own.containers()) == {t.id for t in after}
    known = {path.name for path in (own.run / "agent" / "netns").iterdir()}
    assert known == {t.id for t in after}
