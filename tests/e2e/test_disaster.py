"""What machines do to a cluster: full and broken disks, damaged data, wrong clocks. Each says what is the matter and
what to do, and nothing that was acknowledged is lost."""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyswarm import nodeconfig, pki
from pyswarm.objects import NodeState
from tests.chaos import clocks, disks
from tests.e2e.cluster import SLEEPER, busybox_context, until
from tests.e2e.lab_cluster import LabCluster, containers_of

pytestmark = [pytest.mark.e2e, pytest.mark.root]

DISK = 256
"""MiB: etcd reserves 64 for each of its logs."""
OFF = {"w1": 120, "w2": -120}
"""Seconds that the workers' clocks are wrong."""


@pytest.fixture(scope="module")
def swarm() -> Iterator[LabCluster]:
    """m1 manages, on a small disk; w1 and w2 are machines that have not joined, and whose clocks are wrong."""
    assert os.geteuid() == 0, "the end-to-end tests need root"
    cluster = LabCluster("psx", 1, 2, "198.18.85.0/24")
    try:
        for name, seconds in OFF.items():
            clocks.give(cluster.lab.machine(name), seconds)
        disks.give(cluster.first, DISK)
        cluster.init()
        cluster.build("busybox", busybox_context(cluster.directory))
        cluster.cli("service", "create", "-d", "--name", "work", "busybox", *SLEEPER)
        cluster.wait_running("work", 1)
        yield cluster
        for machine in cluster.lab.machines:
            for log in sorted((machine.state / "log").glob("*.log")):
                print(f"--- {machine.name} {log.name}", *log.read_text().splitlines()[-40:], sep="\n")
    finally:
        cluster.leave()
        clocks.clear()
    assert cluster.traces() == []


def write(swarm: LabCluster, name: str) -> str:
    """Create a config of half a megabyte; why that failed, "" if it did not."""
    file = swarm.directory / "half-megabyte"
    if not file.exists():
        file.write_bytes(random.Random(1).randbytes(500_000))
    result = swarm.run_cli("config", "create", name, str(file))
    return result.stderr if result.returncode else ""


def write_until_refused(swarm: LabCluster, prefix: str) -> set[str]:
    """What was acknowledged before the first refusal."""
    written: set[str] = set()
    deadline = time.monotonic() + 60
    for number in range(1000):
        if write(swarm, f"{prefix}-{number}"):
            return written
        written.add(f"{prefix}-{number}")
        assert time.monotonic() < deadline
    raise AssertionError("every write was accepted")


def accepted(swarm: LabCluster, prefix: str) -> str:
    """The name of the first write that is accepted again."""
    names = (f"{prefix}-{number}" for number in itertools.count())
    return until(lambda: "" if write(swarm, name := next(names)) else name, "writes are accepted again", 30)


def configs(swarm: LabCluster) -> set[str]:
    return set(swarm.cli("config", "ls", "--format", "{{.Name}}").split())


def test_a_full_disk(swarm: LabCluster) -> None:
    before = containers_of(swarm.first)
    assert write(swarm, "before-full") == ""
    disks.fill(swarm.first)
    written = write_until_refused(swarm, "full")
    log = swarm.state / "log" / "manager.log"
    until(lambda: "is full: free some space" in log.read_text(), "the log says what is the matter", 20)
    assert containers_of(swarm.first) == before, "containers do not notice"
    disks.free(swarm.first)
    after = accepted(swarm, "after-full")
    assert {"before-full", after, *written} <= configs(swarm)
    swarm.wait_running("work", 1)
    assert containers_of(swarm.first) == before


def test_a_disk_that_became_read_only(swarm: LabCluster) -> None:
    assert write(swarm, "before-error") == ""
    before = containers_of(swarm.first)
    os.sync()  # images are not synced when they are built: what is lost of them can be built again
    disks.break_down(swarm.first)
    written = write_until_refused(swarm, "error")
    advice = "see the kernel's log (`dmesg`), repair the disk"
    until(lambda: advice in write(swarm, "refused"), "the command line says what is the matter", 20)
    assert containers_of(swarm.first) == before, "containers do not notice"
    swarm.first.kill()
    disks.repair(swarm.first)
    swarm.first.start()
    after = accepted(swarm, "after-error")
    assert {"before-error", after, *written} <= configs(swarm)
    swarm.wait_running("work", 1)


@pytest.mark.parametrize("name", sorted(OFF))
def test_a_machine_whose_clock_is_two_minutes_wrong_joins_and_works(swarm: LabCluster, name: str) -> None:
    machine = swarm.lab.machine(name)
    shown = int(machine.exec("date", "+%s").stdout)
    assert abs(shown - time.time() - OFF[name]) < 10, "the clock was not wrong: this shows nothing"
    swarm.lab.join(machine)
    swarm.wait_node(name, NodeState.READY)
    certificate = pki.load_certificates(nodeconfig.load(machine.state).cert("node.pem"))[0]
    slack = time.time() - certificate.not_valid_before_utc.timestamp()
    assert slack > 600, "a certificate is good for those whose clocks are slow, too"
    at = ("--constraint", f"node.hostname=={name}", "--restart-delay", "0s")
    swarm.cli(
        "service", "create", "-d", "--name", f"on-{name}", *at, "busybox", "sh", "-c", "sleep 1; exit 3"
    )
    until(lambda: len(swarm.tasks(f"on-{name}")) > 2, "tasks run, end and are started again", 30)
    swarm.cli("service", "rm", f"on-{name}")
    assert swarm.nodes()[name].status.state == NodeState.READY


def test_damaged_data(swarm: LabCluster, tmp_path: Path) -> None:
    kept = configs(swarm)
    assert len(kept) > 3
    backup = tmp_path / "backup"
    swarm.cli("backup", str(backup))
    swarm.first.kill()
    log = sorted((swarm.state / "etcd/data/member/wal").glob("*.wal"))[0]
    with log.open("r+b") as file:
        file.seek(5000)
        file.write(b"\xff" * 200)
    swarm.first.start()

    def told() -> str:
        words = swarm.run_cli("service", "ls").stderr
        return words if "is damaged" in words else ""

    words = until(told, "the command line says what is wrong", 20)
    assert "crc mismatch" in words
    assert str(swarm.state / "etcd") in words
    assert "`pyswarm leave --force`" in words
    assert "`pyswarm restore FILE`" in words
    swarm.cli("leave", "--force")
    first = swarm.first
    place = ("--cgroup-parent", first.cgroup, "--link-prefix", first.link.replace("-", ""))
    swarm.cli("restore", str(backup), "--advertise-addr", first.address, *place)
    assert configs(swarm) == kept
    swarm.wait_running("work", 1)
