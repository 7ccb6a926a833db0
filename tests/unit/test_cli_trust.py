"""`ca`, `unlock` and `unlock-key` on the command line, with a manager whose authority is real."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from manager.ca import Authority
from manager.control import Facts
from manager.sealer import Sealer, new_key
from pyswarm import pki
from pyswarm.clock import SystemClock
from pyswarm.objects import Cluster, Node, NodeDescription, NodeState, NodeStatus
from pyswarm.specs import ClusterSpec, NodeSpec
from tests.unit import cli_manager
from tests.unit.cli_manager import NODE, CliManager

AUTHORITY = Authority(Sealer(new_key()), SystemClock())


@pytest.fixture
def swarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CliManager]:
    """One node, which is down: a rotation begins, and waits for it."""
    monkeypatch.setenv("PYSWARM_CONFIG", str(tmp_path / "config"))
    made = cli_manager._facts(NODE)  # pyright: ignore[reportPrivateUsage]

    def locked(cluster: Cluster, rotate: bool) -> Cluster:
        return AUTHORITY.locked(cluster, rotate=rotate)

    def facts(node_id: str) -> Facts:
        return replace(
            made,
            node_id=node_id,
            begin_rotation=AUTHORITY.begin_rotation,
            locked=locked,
            unlock_key=AUTHORITY.unlock_key,
        )

    monkeypatch.setattr(cli_manager, "_facts", facts)
    cluster = AUTHORITY.create_cluster("c" * 25, ClusterSpec())
    said = NodeDescription(
        hostname="host", root_ca=cluster.root_ca.cert, certificate_issuer=pki.key_id(cluster.root_ca.cert)
    )
    node = Node(
        id=NODE, spec=NodeSpec(name="host"), description=said, status=NodeStatus(state=NodeState.DOWN)
    )
    place = tmp_path / "run"
    place.mkdir()
    with CliManager(place, live=True, node_id=NODE, objects=[cluster, node]) as manager:
        yield manager


def cluster(swarm: CliManager) -> Cluster:
    found = swarm.objects(lambda view: view.cluster)
    assert found is not None
    return found


def test_the_root_is_shown_and_replaced(swarm: CliManager, tmp_path: Path) -> None:
    assert swarm("ca").stdout == swarm("swarm", "ca").stdout == cluster(swarm).root_ca.cert
    own = pki.create_root(time.time())
    (tmp_path / "cert").write_bytes(own.cert)
    (tmp_path / "key").write_bytes(own.key)
    files = ("--ca-cert", str(tmp_path / "cert"), "--ca-key", str(tmp_path / "key"))
    assert "needs --rotate" in swarm("ca", *files, code=2).stderr
    assert "cannot read" in swarm("ca", "--rotate", "--ca-cert", "/nonexistent", code=1).stderr
    assert "--ca-key" in swarm("ca", "--rotate", *files[:2], code=1).stderr
    assert swarm("ca", "--rotate", "--detach", *files, "--cert-expiry", "48h").stdout == ""
    rotation = cluster(swarm).root_ca.rotation
    assert rotation is not None and rotation.cert.encode() == own.cert
    assert cluster(swarm).spec.node_cert_expiry == 48 * 3600
    told = swarm("info").stdout
    assert "Root Rotation In Progress: true" in told
    assert "PRIVATE" not in told


def test_the_unlock_key(swarm: CliManager) -> None:
    assert "no unlock key is set" in swarm("unlock-key", code=1).stderr
    assert "not locked" in swarm("unlock-key", "--rotate", code=1).stderr
    told = swarm("swarm", "update", "--autolock=true").stdout
    key = swarm("unlock-key", "-q").stdout.strip()
    assert key.startswith("SWMKEY-1-") and key in told
    assert key in swarm("swarm", "unlock-key").stdout
    new = swarm("unlock-key", "--rotate").stdout
    assert "Successfully rotated manager unlock key." in new and key not in new
    swarm("swarm", "update", "--task-history-limit", "3")
    assert swarm("unlock-key", "-q").stdout.strip() in new, "other settings leave it as it is"
    assert (
        "true"
        in swarm("info", "--format", "{{.Swarm.Cluster.Spec.EncryptionConfig.AutoLockManagers}}").stdout
    )
    swarm("swarm", "update", "--autolock=false")
    assert cluster(swarm).unlock_key == b""
