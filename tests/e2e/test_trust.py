"""Trust in a working cluster of three managers: a new root CA, keys that are locked, and what lies on the disks."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from manager.sealer import Sealer
from pyswarm import joining, nodeconfig, pki, supervisor
from pyswarm.cli.trust import Rotation, progress
from pyswarm.errors import PermissionDenied
from pyswarm.joining import JoinOptions
from pyswarm.lab import Machine
from pyswarm.objects import NodeState
from pyswarm.rpc import TLS
from tests.cfssl_server import CfsslServer
from tests.e2e.cluster import SLEEPER, Cluster, busybox_context, until
from tests.e2e.lab_cluster import LabCluster, containers_of
from tests.e2e.test_secrets import files_with

pytestmark = [pytest.mark.e2e, pytest.mark.root]


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabCluster]:
    """m1, m2, m3 manage, w1 works; w2 has not joined."""
    assert os.geteuid() == 0, "the end-to-end tests need root"
    cluster = LabCluster("psv", 3, 2, "198.18.90.0/24")
    try:
        cluster.init()
        for machine in cluster.lab.machines[1:4]:
            cluster.lab.join(machine)
        cluster.build("busybox", busybox_context(tmp_path_factory.mktemp("image")))
        cluster.cli(
            *("service", "create", "-d", "--name", "work", "--mode", "global"),
            *("--constraint", "node.role==manager", "busybox", *SLEEPER),
        )
        cluster.wait_running("work", 3)
        yield cluster
        for machine in cluster.lab.machines:
            for log in sorted((machine.state / "log").glob("*.log")):
                print(f"--- {machine.name} {log.name}", *log.read_text().splitlines()[-40:], sep="\n")
    finally:
        cluster.leave()


def managers(swarm: LabCluster) -> tuple[Machine, ...]:
    return swarm.lab.machines[:3]


def rotation(swarm: LabCluster) -> Rotation:
    async def look(client: object) -> Rotation:
        info = await client.info()  # type: ignore[attr-defined]
        return progress(info.cluster, await client.nodes())  # type: ignore[attr-defined]

    return swarm.ask(look)  # type: ignore[return-value]


def healthy(swarm: LabCluster) -> None:
    """Wait until three managers can be reached, one of them leads, and every node is ready."""

    def settled() -> bool:
        told = swarm.run_cli("node", "ls", "--format", "{{.ManagerStatus}}").stdout.split()
        ready = {n.status.state for n in swarm.nodes().values()} == {NodeState.READY}
        return sorted(told) == ["Leader", "Reachable", "Reachable"] and ready

    until(settled, "the managers and nodes are well", 60)


def identity(machine: Machine) -> TLS:
    config = nodeconfig.load(machine.state)
    return TLS(config.cert("ca.pem"), config.cert("node.pem"), config.cert("node.key"))


def lets_in(machine: Machine, port: int, tls: TLS, directory: Path) -> bool:
    """Whether a listener lets in who comes with that certificate, whatever it shows itself."""
    (directory / "pair").write_bytes(tls.cert + tls.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    request = b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n"
    if port != 2380:
        context.set_alpn_protocols(["h2"])
        request = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
    context.load_cert_chain(directory / "pair")
    try:
        with (
            socket.create_connection((machine.address, port), 5) as plain,
            context.wrap_socket(plain) as secured,
        ):
            secured.sendall(request)
            return secured.recv(1) != b""  # with TLS 1.3 the refusal comes when one reads
    except OSError:
        return False


def test_the_root_is_replaced_while_the_cluster_works(swarm: LabCluster, tmp_path: Path) -> None:
    """Held open by a worker that is down, the rotation outlives the leader that began it."""
    healthy(swarm)
    old, token = swarm.cli("ca"), swarm.cli("join-token", "-q", "worker").strip()
    former = identity(swarm.lab.machine("m2"))
    pids = {m.name: containers_of(m) for m in managers(swarm)}
    away = swarm.lab.machine("w1")
    away.kill()
    swarm.wait_node("w1", NodeState.DOWN)
    swarm.cli("ca", "--rotate", "--detach")
    until(lambda: rotation(swarm).certificates == 3, "the managers have renewed their certificates", 30)
    assert rotation(swarm).waiting == ("w1",)
    assert swarm.cli("ca") == old, "the old root is in force as long as a node may come back with it"
    assert lets_in(swarm.lab.machine("m3"), 2378, former, tmp_path)
    os.kill(supervisor.holder(swarm.first.run / "manager.lock"), signal.SIGKILL)
    other = swarm.lab.machine("m2")
    until(lambda: other.exec("pyswarm", "ca").stdout == old, "another manager leads", 30)
    late = swarm.lab.machine("w2")
    late.pyswarm("join", *swarm.lab.join_arguments(late, token)[:-1], f"{other.address}:2377")
    away.start()
    until(lambda: rotation(swarm).done, "the rotation goes on under another leader, and ends", 60)
    new = swarm.cli("ca")
    assert new != old
    for machine in swarm.lab.machines:
        config = nodeconfig.load(machine.state)
        until(lambda config=config: config.cert("ca.pem").decode() == new, f"{machine.name} trusts it", 10)
        assert pki.issuer_id(config.cert("node.pem"), new) == pki.key_id(new)
    own = identity(swarm.lab.machine("m2"))
    for machine in managers(swarm):
        for port in (2378, 2379, 2380):
            until(
                lambda machine=machine, port=port: (
                    lets_in(machine, port, own, tmp_path) and not lets_in(machine, port, former, tmp_path)
                ),
                f"port {port} of {machine.name} refuses the old root's certificates, and takes the new one's",
                120,
            )
    healthy(swarm)
    assert {m.name: containers_of(m) for m in managers(swarm)} == pids, "no container noticed"

    assert swarm.nodes()["w2"].status.state == NodeState.READY, "it has joined in the middle of this"
    stranger = JoinOptions(
        token=token, remote=f"{other.address}:2377", state_dir=tmp_path / "state", run_dir=tmp_path / "run"
    )
    with pytest.raises(PermissionDenied, match="a token from before a CA rotation"):
        joining.join(stranger)


def unlock(machine: Machine, key: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        machine.argv(["pyswarm", "unlock"]),
        env=machine.environment,
        input=f"{key}\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def is_locked(machine: Machine) -> bool:
    result = machine.exec("pyswarm", "node", "ls")
    return (
        result.returncode == 1 and "the cluster is locked; unlock it with `pyswarm unlock`" in result.stderr
    )


def test_a_managers_disk_opens_nothing(swarm: LabCluster) -> None:
    healthy(swarm)
    needle = secrets.token_hex(24)
    swarm.run_cli("config", "create", "needle", "-", input=needle)
    swarm.cli(
        *("service", "create", "-d", "--name", "env", "--env", f"PASSWORD={needle}", "--replicas", "0"),
        *("busybox", *SLEEPER),
    )
    seal_keys = Sealer.load(swarm.first.state / nodeconfig.SEAL_KEY).keys
    node_keys = [nodeconfig.load(m.state).cert("node.key").splitlines()[1] for m in managers(swarm)]
    tokens = [swarm.cli("join-token", "-q", role).strip()[-25:] for role in ("worker", "manager")]
    for machine in managers(swarm):
        assert files_with(machine.state / "etcd", needle.encode()) == [], "etcd holds nothing in clear"
        for token in tokens:
            assert files_with(machine.state, token.encode()) == []
        assert files_with(machine.state, b"PRIVATE KEY"), "the search is blind: without autolock it is there"

    assert "SWMKEY-1-" in swarm.cli("swarm", "update", "--autolock=true")
    for machine in managers(swarm):
        config = nodeconfig.load(machine.state)
        until(lambda config=config: nodeconfig.locked(config), f"{machine.name}'s keys are locked", 20)
        for search in (b"PRIVATE KEY", *node_keys, *seal_keys, *(k.hex().encode() for k in seal_keys)):
            assert files_with(machine.state, search) == []


def test_a_manager_that_was_restarted_waits_for_the_key(swarm: LabCluster) -> None:
    machine = swarm.lab.machine("m3")
    key = swarm.cli("unlock-key", "-q").strip()
    pids = containers_of(machine)
    os.kill(supervisor.holder(machine.run / "manager.lock"), signal.SIGKILL)
    until(lambda: is_locked(machine), "m3 says that it is locked", 30)
    assert swarm.nodes()["m3"].status.state == NodeState.READY, "its agent works on"
    assert containers_of(machine) == pids
    refused = machine.exec("pyswarm", "backup", "/dev/null/backup")
    assert (refused.returncode, "is locked" in refused.stderr) == (1, True)
    wrong = unlock(machine, key[:-3] + ("AAA" if key[-3:] != "AAA" else "BBB"))
    assert wrong.returncode == 1
    assert is_locked(machine)
    assert unlock(machine, key).returncode == 0
    healthy(swarm)
    again = unlock(machine, key)
    assert (again.returncode, "is not locked" in again.stderr) == (1, True)


def test_a_machine_that_was_switched_off_opens_with_the_new_key(swarm: LabCluster) -> None:
    machine = swarm.lab.machine("m3")
    old = swarm.cli("unlock-key", "-q").strip()
    locked = machine.state / nodeconfig.LOCKED_KEYS
    before = locked.read_bytes()
    new = swarm.cli("unlock-key", "--rotate", "-q").strip()
    assert new != old
    until(lambda: locked.read_bytes() != before, "m3's keys are locked anew", 20)
    machine.kill()
    swarm.wait_node("m3", NodeState.DOWN)
    machine.start()
    until(lambda: is_locked(machine), "m3 says that it is locked", 30)
    assert "from before" in unlock(machine, old).stderr
    assert unlock(machine, new).returncode == 0
    healthy(swarm)
    swarm.cli("swarm", "update", "--autolock=false")
    for each in managers(swarm):
        config = nodeconfig.load(each.state)
        until(lambda config=config: not nodeconfig.locked(config), f"{each.name}'s keys are in clear", 20)
        assert not (config.certs / "node.key").is_symlink()
    no_key = swarm.run_cli("unlock-key")
    assert (no_key.returncode, "no unlock key is set" in no_key.stderr) == (1, True)


def test_certificates_from_a_ca_outside(tmp_path: Path) -> None:
    """A cluster without a CA key, locked as it is made; brought home by a rotation."""
    outside = CfsslServer()
    cluster = Cluster(tmp_path / "outside")
    cluster.directory.mkdir()
    cluster.options = replace(cluster.options, external_cas=(outside.spec,), autolock=True)
    try:
        cluster.init()
        assert cluster.cli("ca") == outside.root.cert.decode()
        assert cluster.cli("node", "ls", "--format", "{{.Status}} {{.ManagerStatus}}") == "Ready Leader\n"
        assert [body["subject"]["names"][0]["OU"] for body in outside.requests] == ["swarm-manager"]
        until(lambda: nodeconfig.locked(cluster.config), "the keys are locked from the start", 20)
        assert cluster.cli("unlock-key", "-q").startswith("SWMKEY-1-")
        cluster.cli("ca", "--rotate", "--quiet")
        assert outside.requests[-1]["profile"] == "CA", "the CA outside has vouched for the new root"
        assert outside.callers[-1] == cluster.config.node_id
        new = cluster.cli("ca")
        assert pki.issuer_id(cluster.config.cert("node.pem"), new) == pki.key_id(new)
    finally:
        outside.close()
        cluster.leave()
