"""Three managers and a worker on machines of their own: joined, lost, held up, demoted, promoted, and left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from pyswarm import nodeconfig, pki, supervisor
from pyswarm.api import Empty
from pyswarm.client import Client
from pyswarm.errors import PermissionDenied, PyswarmError, Unavailable
from pyswarm.lab import Machine
from pyswarm.objects import NodeState
from pyswarm.rpc import TLS, Stub, channel
from pyswarm.specs import ConfigSpec
from tests.e2e.cluster import SLEEPER, busybox_context, until
from tests.e2e.lab_cluster import LabCluster
from tests.e2e.machine import Machine as Traces

pytestmark = [pytest.mark.e2e, pytest.mark.root]

T = TypeVar("T")
NEXT_WRITE = 10.0
"""Seconds from the death of the leading manager's machine to the next write that is accepted, at most. This only
guards against a fail-over that hangs: the goal is 3, and eight runs on a busy machine took 0.2 to 1.6."""


@pytest.fixture(scope="module")
def swarm() -> Iterator[LabCluster]:
    assert os.geteuid() == 0, "the end-to-end tests need root"
    cluster = LabCluster("psm", 3, 1, "198.18.94.0/24")
    try:
        cluster.init()
        cluster.lab.join_all()
        yield cluster
        for machine in cluster.lab.machines:
            for log in sorted((machine.state / "log").glob("*.log")):
                print(f"--- {machine.name} {log.name}", *log.read_text().splitlines()[-40:], sep="\n")
    finally:
        cluster.leave()
    left = Traces.look(str(cluster.directory))
    assert (left.processes, left.mounts) == ((), ())
    assert not [link for link in left.links if link.startswith("psm")]
    assert not cluster.directory.exists()


def ask(machine: Machine, work: Callable[[Client], Awaitable[T]], timeout: float = 10.0) -> T:
    """Ask one machine's manager."""

    async def go() -> T:
        async with Client.local(machine.run / "pyswarm.sock", timeout) as client:
            return await work(client)

    return asyncio.run(go())


def write(machine: Machine, name: str, timeout: float = 10.0) -> None:
    """A write that is acknowledged when this returns."""

    async def go(client: Client) -> None:
        await asyncio.wait_for(client.create(ConfigSpec(name=name, data=b"x")), timeout)

    ask(machine, go, timeout)


def configs(machine: Machine) -> set[str]:
    return {c.spec.name for c in ask(machine, lambda client: client.configs())}


def standing(machine: Machine) -> dict[str, str]:
    """Name -> `Leader`, `Reachable`, `Unreachable` or "", as this machine's manager tells it."""
    rows = machine.pyswarm("node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}").splitlines()
    return {name: status for name, _, status in (row.partition(" ") for row in rows)}


def leader(swarm: LabCluster) -> Machine:
    """The machine that leads, as any machine that answers tells."""

    def found() -> Machine | None:
        for machine in swarm.lab.machines:
            if "manager" in machine.daemons():
                with contextlib.suppress(PyswarmError):
                    names = [name for name, status in standing(machine).items() if status == "Leader"]
                    return swarm.lab.machine(names[0]) if len(names) == 1 else None
        return None

    return until(found, "a manager leads")


def others(swarm: LabCluster, *but: Machine) -> list[Machine]:
    """The managers besides these."""
    return [m for m in swarm.lab.machines[:3] if m not in but and "manager" in m.daemons()]


def healthy(swarm: LabCluster, *names: str) -> None:
    """Wait until exactly these are managers, one leads, and all can be reached."""

    def settled() -> bool:
        try:
            told = standing(others(swarm)[0])
        except PyswarmError:
            return False  # one that is to be none is just ending
        managers = {name: status for name, status in told.items() if status}
        return set(managers) == set(names) and sorted(managers.values()) == ["Leader"] + ["Reachable"] * (
            len(names) - 1
        )

    until(settled, f"{', '.join(names)} are the managers, and well", 40)


def no_quorum_refusal(machine: Machine, *command: str) -> str:
    result = machine.exec("pyswarm", *command)
    assert result.returncode == 1, result.stdout
    return result.stderr


# ---------------------------------------------------------------------------------------------- tests


def test_any_manager_answers(swarm: LabCluster) -> None:
    healthy(swarm, "m1", "m2", "m3")
    for machine in swarm.lab.machines[:3]:
        assert standing(machine)["m1"] == "Leader"
        told = machine.pyswarm("info")
        assert f"Is Leader: {'true' if machine.name == 'm1' else 'false'}" in told
        assert all(f"{m.address}:2378" in told for m in swarm.lab.machines[:3])
        write(machine, f"by-{machine.name}")
    for machine in swarm.lab.machines[:3]:
        assert configs(machine) >= {"by-m1", "by-m2", "by-m3"}
    worker = nodeconfig.load(swarm.lab.machine("w1").state)
    assert set(worker.managers) == {f"{m.address}:2378" for m in swarm.lab.machines[:3]}


def test_the_leading_managers_machine_dies(swarm: LabCluster, tmp_path: Path) -> None:
    swarm.build("busybox", busybox_context(tmp_path))
    swarm.cli(
        "service", "create", "-d", "--name", "work", "--constraint", "node.hostname==m1", "busybox", *SLEEPER
    )
    swarm.wait_running("work", 1)
    swarm.cli("service", "rm", "work")
    dead = leader(swarm)
    witness = others(swarm, dead)[0]
    write(witness, "before")
    dead.kill()
    start, tries = time.monotonic(), 0
    while True:
        tries += 1
        with contextlib.suppress(PyswarmError, TimeoutError):
            write(witness, f"after-{tries}", timeout=1.0)
            break
        assert time.monotonic() - start < 30
    took = time.monotonic() - start
    print(f"next accepted write after the leading manager's machine died: {took:.2f} s, at try {tries}")
    assert took < NEXT_WRITE
    assert {"before", f"after-{tries}"} <= configs(witness)
    until(lambda: standing(witness)[dead.name] == "Unreachable", "the dead manager is known to be so", 20)
    until(lambda: _state(witness, dead.name) == NodeState.DOWN, "the dead node is down", 30)
    assert _state(witness, "w1") == NodeState.READY, "the worker has gone to the new leader"
    dead.start()
    healthy(swarm, "m1", "m2", "m3")
    assert {"before", f"after-{tries}"} <= configs(dead)
    until(lambda: _state(witness, dead.name) == NodeState.READY, "it is back", 30)


def _state(machine: Machine, name: str) -> NodeState:
    nodes = ask(machine, lambda client: client.nodes())
    return next(n.status.state for n in nodes if n.description.hostname == name)


def test_a_leader_that_sleeps_past_its_lease_writes_nothing_and_tells_nothing_old(swarm: LabCluster) -> None:
    asleep = leader(swarm)
    witness = others(swarm, asleep)[0]
    pid = supervisor.holder(asleep.run / "manager.lock")
    outcome: list[BaseException | None] = []
    read: list[set[str] | BaseException] = []

    def late() -> None:
        try:
            write(asleep, "late", timeout=60.0)
            outcome.append(None)
        except BaseException as error:
            outcome.append(error)

    def early() -> None:
        """Asked while it sleeps, answered when it wakes."""
        try:
            read.append({c.spec.name for c in ask(asleep, lambda client: client.configs(), timeout=60.0)})
        except BaseException as error:
            read.append(error)

    os.kill(pid, signal.SIGSTOP)
    try:
        writer, reader = threading.Thread(target=late), threading.Thread(target=early)
        writer.start()
        reader.start()
        until(lambda: _leads_elsewhere(witness, asleep), "another manager leads", 30)
        write(witness, "meanwhile")
    finally:
        os.kill(pid, signal.SIGCONT)
    writer.join(60)
    reader.join(60)
    assert outcome, "the late write was answered"
    # Its client may have given up meanwhile; what is answered is not what the sleeper remembers.
    assert isinstance(read[0], Unavailable) or (isinstance(read[0], set) and "meanwhile" in read[0]), read
    for machine in others(swarm):
        seen = until(lambda machine=machine: configs(machine), "the managers answer", 20)
        assert "meanwhile" in seen
        # It was refused, or the sleeper handed it to the leader that there is: never half of each.
        assert ("late" in seen) == (outcome[0] is None), outcome
    assert leader(swarm) != asleep
    healthy(swarm, "m1", "m2", "m3")


def _leads_elsewhere(witness: Machine, asleep: Machine) -> bool:
    with contextlib.suppress(PyswarmError):
        return [name for name, status in standing(witness).items() if status == "Leader"] != [asleep.name]
    return False


def test_a_manager_is_demoted_and_promoted(swarm: LabCluster) -> None:
    first = leader(swarm)
    machine = others(swarm, first)[0]
    rest = sorted(m.name for m in others(swarm, machine))
    config = nodeconfig.load(machine.state)
    former = TLS(config.cert("ca.pem"), config.cert("node.pem"), config.cert("node.key"))
    first.pyswarm("node", "demote", machine.name)
    until(lambda: machine.daemons() == ["supervisor", "agent"], "its manager has ended", 40)
    healthy(swarm, *rest)
    until(lambda: not (machine.state / "etcd").exists(), "its copy of the cluster's state is gone", 10)
    assert not (machine.state / "manager").exists()
    assert pki.identity(nodeconfig.load(machine.state).cert("node.pem")).role == "worker"
    until(lambda: _refused(first, former), "its former certificate is a manager's no more", 20)
    until(lambda: _state(first, machine.name) == NodeState.READY, "it is a worker", 20)
    first.pyswarm("node", "promote", machine.name)
    healthy(swarm, "m1", "m2", "m3")
    until(lambda: "by-m1" in configs(machine), "its manager answers", 20)
    assert pki.identity(nodeconfig.load(machine.state).cert("node.pem")).role == "manager"


def _refused(machine: Machine, tls: TLS) -> bool:
    async def go() -> bool:
        stub = Stub(channel(f"ipv4:{machine.address}:2378", tls=tls))
        try:
            await stub.unary("Control.Info", Empty())
        except PermissionDenied:
            return True
        finally:
            await stub.close()
        return False

    return asyncio.run(go())


def test_the_leader_itself_is_demoted(swarm: LabCluster) -> None:
    machine = leader(swarm)
    rest = sorted(m.name for m in others(swarm, machine))
    machine.pyswarm("node", "demote", machine.name)
    until(lambda: machine.daemons() == ["supervisor", "agent"], "its manager has ended", 60)
    healthy(swarm, *rest)
    others(swarm)[0].pyswarm("node", "promote", machine.name)
    healthy(swarm, "m1", "m2", "m3")


def test_a_worker_becomes_a_manager_and_a_worker_again(swarm: LabCluster) -> None:
    worker = swarm.lab.machine("w1")
    others(swarm)[0].pyswarm("node", "promote", "w1")
    healthy(swarm, "m1", "m2", "m3", "w1")
    until(lambda: "by-m1" in configs(worker), "its manager answers", 20)
    worker.pyswarm("node", "demote", "w1")
    until(lambda: worker.daemons() == ["supervisor", "agent"], "its manager has ended", 40)
    healthy(swarm, "m1", "m2", "m3")


def test_a_manager_leaves_and_joins_again(swarm: LabCluster) -> None:
    first = leader(swarm)
    machine = others(swarm, first)[0]
    rest = sorted(m.name for m in others(swarm, machine))
    refused = machine.exec("pyswarm", "leave")
    assert refused.returncode == 1
    assert "Removing it leaves 2 managers out of 3" in refused.stderr
    machine.pyswarm("leave", "--force")
    assert machine.processes() == []
    assert _state(first, machine.name) == NodeState.DOWN, "it has told so"
    assert list(machine.state.rglob("*.pem")) == []
    healthy(swarm, *rest)
    first.pyswarm("node", "rm", machine.name)
    token = first.pyswarm("join-token", "-q", "manager").strip()
    *arguments, _ = swarm.lab.join_arguments(machine, token)
    machine.pyswarm("join", *arguments, f"{first.address}:2377")
    healthy(swarm, "m1", "m2", "m3")
    assert "by-m1" in configs(machine)


def test_roles_may_change_faster_than_anybody_follows(swarm: LabCluster) -> None:
    """Demoted and promoted again and again: wherever each step stands when the next one comes, and whoever dies
    meanwhile, in the end it is what was said last."""
    first = leader(swarm)
    machine, witness = others(swarm, first)
    for number in range(3):
        first.pyswarm("node", "demote", machine.name)
        if number == 1:
            os.kill(supervisor.holder(machine.run / "agent.lock"), signal.SIGKILL)
        first.pyswarm("node", "promote", machine.name)
        if number == 2:
            with contextlib.suppress(ProcessLookupError):
                if pid := supervisor.holder(machine.run / "manager.lock"):
                    os.kill(pid, signal.SIGKILL)
    healthy(swarm, "m1", "m2", "m3")
    until(lambda: "by-m1" in configs(machine), "its manager answers", 20)
    first.pyswarm("node", "demote", machine.name)
    until(lambda: machine.daemons() == ["supervisor", "agent"], "its manager has ended", 40)
    first.pyswarm("node", "promote", machine.name)
    first.pyswarm("node", "demote", machine.name)
    first.pyswarm("node", "promote", machine.name)
    healthy(swarm, "m1", "m2", "m3")
    assert "by-m1" in configs(witness)


def test_the_survivor_of_a_lost_quorum_starts_anew(swarm: LabCluster) -> None:
    """`init --force-new-cluster`. The others come back, find that they are members no more, and join anew."""
    survivor, *lost = swarm.lab.machines[:3]
    write(survivor, "before-the-loss")
    for machine in lost:
        machine.kill()
    until(lambda: "no leader" in survivor.exec("pyswarm", "node", "ls").stderr, "there is no quorum", 30)
    survivor.pyswarm("init", "--force-new-cluster")
    assert "before-the-loss" in configs(survivor)
    write(survivor, "after-the-loss")
    until(
        lambda: standing(survivor)["m2"] == standing(survivor)["m3"] == "Unreachable",
        "the others are out",
        20,
    )
    for machine in lost:
        machine.start()
    healthy(swarm, "m1", "m2", "m3")
    for machine in lost:
        assert {"before-the-loss", "after-the-loss"} <= configs(machine)


def test_a_step_that_would_lose_the_quorum_is_refused(swarm: LabCluster) -> None:
    first = leader(swarm)
    second, third = others(swarm, first)
    third.kill()
    until(lambda: standing(first)[third.name] == "Unreachable", "it is known to be dead", 20)
    for refusal in (
        no_quorum_refusal(first, "node", "demote", second.name),
        no_quorum_refusal(second, "leave"),
        no_quorum_refusal(first, "leave"),
    ):
        assert "would have no quorum" in refusal
        assert third.name in refusal, "the reason is named"
    # The dead one may go, and then the second; the last may not.
    first.pyswarm("node", "demote", third.name)
    healthy(swarm, *sorted((first.name, second.name)))
    until(lambda: _state(first, third.name) == NodeState.DOWN, "its node is down", 30)
    first.pyswarm("node", "rm", third.name)
    first.pyswarm("node", "demote", second.name)
    healthy(swarm, first.name)
    assert "last manager" in no_quorum_refusal(first, "node", "demote", first.name)
    assert "last manager" in no_quorum_refusal(first, "leave")
    write(first, "alone")
