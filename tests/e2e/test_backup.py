"""A backup, restored on an empty machine with another address."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pyswarm import nodeconfig
from pyswarm.objects import NodeState
from pyswarm.specs import NodeSpec
from tests.e2e.cluster import until
from tests.e2e.lab_cluster import LabCluster

pytestmark = [pytest.mark.e2e, pytest.mark.root]


@pytest.fixture
def swarm() -> Iterator[LabCluster]:
    """m1 manages; w1 is a machine that has not joined."""
    cluster = LabCluster("psb", 1, 1, "198.18.92.0/24")
    try:
        cluster.init()
        yield cluster
    finally:
        cluster.leave()


def test_a_backup_is_restored_on_another_machine(swarm: LabCluster, tmp_path: Path) -> None:
    """It is encrypted, and the managers' keys are locked when it is taken."""
    file, passphrase = tmp_path / "backup", tmp_path / "passphrase"
    passphrase.write_text("correct horse\n")
    wrong = tmp_path / "wrong"
    wrong.write_text("battery staple\n")
    swarm.cli("swarm", "update", "--autolock=true")
    until(lambda: not (swarm.state / nodeconfig.SEAL_KEY).exists(), "the manager's keys are locked", 20)
    swarm.run_cli("secret", "create", "password", "-", input="hunter2")
    swarm.cli("service", "create", "-d", "--name", "web", "--secret", "password", "busybox", "sleep", "1000")
    assert "Saved" in swarm.cli("backup", str(file), "--passphrase-file", str(passphrase))
    assert file.stat().st_mode & 0o777 == 0o600
    tokens = swarm.cli("join-token", "-q", "worker")
    refused = swarm.run_cli("restore", str(file))
    assert refused.returncode == 1
    assert "already part of a swarm" in refused.stderr
    swarm.first.kill()

    other = swarm.lab.machine("w1")
    flags = ("--advertise-addr", other.address, "--cgroup-parent", other.cgroup)
    flags = (*flags, "--link-prefix", other.link.replace("-", ""))
    for without, reason in (((), "is encrypted"), (("--passphrase-file", str(wrong)), "not the passphrase")):
        refused = other.exec("pyswarm", "restore", str(file), *flags, *without)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert reason in refused.stderr
        assert not other.state.exists()
    other.pyswarm("restore", str(file), *flags, "--passphrase-file", str(passphrase))
    swarm.first, swarm.state, swarm.run = other, other.state, other.run
    assert swarm.cli("secret", "ls", "--format", "{{.Name}}").split() == ["password"]
    assert swarm.cli("service", "ls", "--format", "{{.Name}}").split() == ["web"]
    assert swarm.cli("join-token", "-q", "worker") == tokens, "the CA and its secrets are the same"
    until(lambda: nodeconfig.locked(nodeconfig.load(other.state)), "its keys are locked as they were", 20)
    nodes = swarm.nodes()
    assert nodes["w1"].status.state == NodeState.READY
    assert nodes["w1"].spec.role == "manager"
    assert nodes["m1"].spec == NodeSpec(role="worker")
    assert nodes["m1"].manager_status is None
    swarm.wait_node("m1", NodeState.DOWN, 30)
    swarm.cli("node", "rm", "m1")
    until(
        lambda: all(task.node_id != nodes["m1"].id or task.status.state > 9 for task in swarm.tasks()),
        "moved",
    )
    config = swarm.lab.machine("m1")
    assert config.daemons() == []
