"""Three managers and fifty nodes in one lab: joining, a stack of 500 tasks, and what it costs the managers.

    python benchmarks/lab50.py [--nodes 50] [--tasks 500]        (as root)

The managers are real machines of a lab (`pyswarm lab`), with their etcds in Raft. The nodes are light: agents of
`benchmarks/simulated_agents.py` in one process, each of which joins with the token, gets a certificate of its own and
speaks the agents' protocol over mutual TLS from a connection of its own, all at once; their containers are made up. The
stack is a Compose file of ten services on an overlay network, deployed with the command line.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.scale import PATIENCE, Fleet
from benchmarks.task import cpu_seconds, resident
from pyswarm import supervisor
from pyswarm.lab import Machine
from tests.e2e.lab_cluster import LabCluster
from tests.e2e.machine import processes

SERVICES = 10
IDLE = 10.0
"""Seconds for which the idle cluster is watched."""


def compose(tasks: int) -> str:
    """A stack of so many tasks."""
    lines = ["services:"]
    for number in range(SERVICES):
        replicas = tasks // SERVICES + (number < tasks % SERVICES)
        lines += [
            f"  s{number}:",
            "    image: none/made-up",
            "    networks: [all]",
            f"    deploy: {{replicas: {replicas}}}",
        ]
    network = "networks: {all: {ipam: {config: [{subnet: 10.99.0.0/16}]}}}"  # the usual /24 has 254 addresses
    return "\n".join([*lines, network, ""])


def pids(machine: Machine) -> tuple[int, int]:
    """Of its manager, and of the etcd of that."""
    (etcd,) = (p for p, a in processes(f"{machine.state}/etcd").items() if a[0].endswith("etcd"))
    return supervisor.holder(machine.run / "manager.lock"), etcd


class Costs:
    """CPU of each manager and its etcd since the last look."""

    def __init__(self, machines: tuple[Machine, ...]) -> None:
        self._pids = {machine.name: pids(machine) for machine in machines}
        self._last = self._now()
        self._at = time.perf_counter()

    def _now(self) -> dict[str, tuple[float, float]]:
        return {
            name: (cpu_seconds([manager]), cpu_seconds([etcd]))
            for name, (manager, etcd) in self._pids.items()
        }

    def tell(self, what: str) -> None:
        now, at = self._now(), time.perf_counter()
        seconds = at - self._at
        told = [
            f"{name} {manager - self._last[name][0]:.2f}+{etcd - self._last[name][1]:.2f}"
            for name, (manager, etcd) in now.items()
        ]
        print(f"{what:34}{seconds:8.2f} s    CPU seconds of manager+etcd: {', '.join(told)}", flush=True)
        self._last, self._at = now, at

    def memory(self) -> None:
        told = [
            f"{name} {resident([manager]):.0f}+{resident([etcd]):.0f}"
            for name, (manager, etcd) in self._pids.items()
        ]
        print(f"{'resident memory':34}{'':12}MiB of manager+etcd: {', '.join(told)}", flush=True)


async def agents(swarm: LabCluster) -> Fleet:
    """The process of light agents, none of which has joined."""
    ca = swarm.directory / "ca.pem"
    ca.write_bytes(swarm.config.cert("ca.pem"))
    token = swarm.cli("join-token", "-q", "worker").strip()
    address = swarm.first.address
    script = Path(__file__).with_name("simulated_agents.py")
    pipe = asyncio.subprocess.PIPE
    where = (str(ca), f"{address}:2377", f"{address}:2378", token)
    return Fleet(
        await asyncio.create_subprocess_exec(sys.executable, str(script), *where, stdin=pipe, stdout=pipe)
    )


async def run(swarm: LabCluster, nodes: int, tasks: int) -> None:
    for machine in swarm.lab.machines:
        swarm.cli("node", "update", "--availability", "drain", machine.name)
    fleet = await agents(swarm)
    try:
        costs = Costs(swarm.lab.machines)
        await fleet.do("join", count=nodes)
        costs.tell(f"{nodes} nodes join at once")
        listed = swarm.cli("node", "ls", "--format", "{{.Status}}").split()
        assert listed == ["Ready"] * (nodes + len(swarm.lab.machines)), listed
        costs.tell("(they are listed)")
        await asyncio.sleep(IDLE)
        costs.tell(f"idle, {nodes} heartbeats a second")
        (swarm.directory / "compose.yml").write_text(compose(tasks))
        deploy = ("stack", "deploy", "-d", "-c", "compose.yml", "--resolve-image", "never", "fifty")
        await asyncio.to_thread(swarm.cli, *deploy, cwd=swarm.directory)
        await fleet.until_running(tasks)
        costs.tell(f"a stack of {tasks} tasks runs")
        told = swarm.cli("stack", "services", "--format", "{{.Replicas}}", "fifty").split()
        assert sum(int(each.partition("/")[0]) for each in told) == tasks, told
        costs.tell("(it is listed)")
        await asyncio.sleep(IDLE)
        costs.tell(f"idle, with {tasks} tasks")
        costs.memory()
        await asyncio.to_thread(swarm.cli, "stack", "rm", "fifty")
        await fleet.until_running(0)
        costs.tell("the stack is removed")
        broken = (await fleet.do("received"))["broken"]
        assert not broken, f"{broken} sessions broke"
    finally:
        await fleet.end()


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--nodes", type=int, default=50)
    options.add_argument("--tasks", type=int, default=500)
    given = options.parse_args()
    swarm = LabCluster("psl", 3, 0, "198.18.82.0/24")
    try:
        swarm.init()
        swarm.lab.join_all()
        asyncio.run(run(swarm, given.nodes, given.tasks))
    finally:
        swarm.leave()
    print(
        f"({os.cpu_count()} cores; load {os.getloadavg()[0]:.1f} at the end; patience was {PATIENCE:.0f} s)"
    )


if __name__ == "__main__":
    main()
