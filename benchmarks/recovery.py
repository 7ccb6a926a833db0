"""How fast a cluster does what it is asked, and recovers: pyswarm's own, beside Docker Swarm's.

`python benchmarks/recovery.py [--peer] [--only-peer] [--runs N]`, as root. Both run on the same machine, one after
the other, in labs of the same make (`pyswarm lab`), with the same root file system already there, the same services
on an overlay network, the same ways to die. `--peer` needs docker.io (dockerd, containerd).

Three labs, one after the other: one manager and two workers for deploys, scaling, an update, a container's and a
worker's death; three managers for the death of the leader's machine; for pyswarm alone, one manager and four workers,
of which one is drained while a client calls the service through its VIP (Swarm's VIPs need IPVS, which many kernels
lack).

Times are from the request until it shows in the manager's state, except `60 to 3`, which ends when no further
container lives, and the leader's death, which ends with the next write that is accepted by another manager. What is
no work of the orchestrator's is taken off and said: the monitor period of the update, during which a new task must
not fail, and the restart delay.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import itertools
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.floor import busybox_root
from pyswarm.client import Client
from pyswarm.errors import MissingProgram, PyswarmError
from pyswarm.lab import Lab, Machine
from pyswarm.objects import Service, Task, TaskState
from pyswarm.specs import (
    ConfigSpec,
    ContainerSpec,
    EndpointSpec,
    NetworkAttachmentSpec,
    NetworkSpec,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)
from tests.e2e.lab_cluster import LabCluster, containers_of, web_context

NODES = 3
KILLED_WITH = 9
"""Tasks that run when a worker dies."""
MONITOR = 1.0
"""Seconds of monitor period of the rolling update."""
RESTART_DELAY = 1.0
"""Seconds between a container's end and its successor's start."""
DRAINED = 30
"""Tasks on the node that is drained."""
DEADLINE = 120.0
SERVICE, NETWORK, IMAGE = "bench", "bench", "busybox"
SLEEP = ("sleep", "1000000")
SERVE = ("httpd", "-f", "-p", "80", "-h", "/www")
CALLS = (
    "n=0; f=0; while :; do n=$((n+1)); timeout 5 wget -qO- http://web/cgi-bin/who >/dev/null || f=$((f+1)); "
    "echo $n $f; done"
)
"""A client: prints how many requests it has made, and how many of them failed."""
WRITE_TIMEOUT = 1.0
"""Seconds that a write may take before it is tried again."""


class Cluster(Protocol):
    """A three-node cluster whose image is on every node."""

    title: str

    def create(self, replicas: int) -> None: ...
    def scale(self, replicas: int) -> None: ...
    def update(self) -> None:
        """Change the service so that every task is replaced, one after the other."""
        ...

    def updated(self) -> bool: ...
    def running(self) -> int:
        """Tasks that run and are meant to, on nodes that live."""
        ...

    def containers(self) -> int:
        """Containers that live on all machines."""
        ...

    def kill_container(self) -> None:
        """kill -9 the first process of one container; `running` counts it as long as the manager does."""
        ...

    def kill(self) -> None:
        """The last machine is gone."""
        ...

    def kill_leader(self) -> None:
        """The first machine, whose manager leads, is gone."""
        ...

    def write(self) -> bool:
        """Whether another manager accepts a write."""
        ...

    def close(self) -> None: ...


def waited(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {DEADLINE:.0f} s: {what}")
        time.sleep(0.01)


def timed(act: Callable[[], object], done: Callable[[], bool], what: str) -> float:
    start = time.perf_counter()
    act()
    waited(done, what)
    return time.perf_counter() - start


def measured(cluster: Cluster) -> dict[str, float]:
    """Seconds of each step on one manager and two workers, in order."""
    figures: dict[str, float] = {}

    def step(name: str, act: Callable[[], None], done: Callable[[], bool]) -> None:
        figures[name] = timed(act, done, name)

    step("first deploy of 3", lambda: cluster.create(3), lambda: cluster.running() == 3)
    for count in (30, 60):
        step(f"scale to {count}", lambda n=count: cluster.scale(n), lambda n=count: cluster.running() == n)
    step("scale 60 to 3", lambda: cluster.scale(3), lambda: cluster.containers() == 3)
    step("rolling update of 3", cluster.update, cluster.updated)
    figures["  without its monitor"] = figures["rolling update of 3"] - MONITOR
    waited(lambda: cluster.running() == 3 == cluster.containers(), "tasks before the kill")
    start = time.perf_counter()
    cluster.kill_container()
    waited(lambda: cluster.running() == 2, "the container's end is noticed")
    waited(lambda: cluster.running() == 3, "container dies")
    figures["container dies"] = time.perf_counter() - start
    figures["  without its restart delay"] = figures["container dies"] - RESTART_DELAY
    cluster.scale(KILLED_WITH)
    waited(lambda: cluster.running() == KILLED_WITH == cluster.containers(), "tasks before the kill")
    step("worker dies", cluster.kill, lambda: cluster.running() == KILLED_WITH)
    return figures


def leader_dies(cluster: Cluster) -> dict[str, float]:
    """Seconds from the death of the leader's machine to the next accepted write, on three managers."""
    waited(cluster.write, "a write before the kill")
    return {"leader dies": timed(cluster.kill_leader, cluster.write, "leader dies")}


# ---------------------------------------------------------------------------------------------- pyswarm


class Pyswarm:
    """A lab's cluster, driven by the API of its manager."""

    title = "pyswarm"

    def __init__(self, managers: int = 1, workers: int = NODES - 1) -> None:
        self._swarm = LabCluster("psr", managers, workers, "198.18.93.0/24")
        self._dead = ""
        self._writes = itertools.count()
        self._loop = asyncio.new_event_loop()
        try:
            self._swarm.init()
            self._swarm.lab.join_all()
            self._swarm.build(IMAGE, web_context(self._swarm.directory))
            self._spread_image()
            self._client = self._do(self._connected())
            self._do(self._client.create(NetworkSpec(name=NETWORK)))
        except BaseException:
            self.close()
            raise

    async def _connected(self) -> Client:
        return Client.local(self._swarm.run / "pyswarm.sock")

    def _spread_image(self) -> None:
        """A global service brings the image to every node; then it goes."""
        self._swarm.cli("service", "create", "-d", "--name", "seed", "--mode", "global", IMAGE, *SLEEP)
        self._swarm.wait_running("seed", len(self._swarm.lab.machines))
        self._swarm.cli("service", "rm", "seed")
        waited(lambda: self.containers() == 0, "the seed's containers end")

    def _do(self, work: Any) -> Any:  # Any: whatever the client's coroutine returns
        return self._loop.run_until_complete(work)

    def create(self, replicas: int) -> None:
        task = TaskSpec(
            container=ContainerSpec(image=IMAGE, args=SLEEP, init=True),
            networks=(NetworkAttachmentSpec(target=NETWORK),),
            restart=RestartPolicy(delay=RESTART_DELAY),
        )
        spec = ServiceSpec(
            name=SERVICE,
            task=task,
            mode=ServiceMode(replicas=replicas),
            endpoint=EndpointSpec(mode="dnsrr"),
            update=UpdateConfig(parallelism=1, monitor=MONITOR),
        )
        self._do(self._client.create(spec))

    def _change(self, change: Callable[[ServiceSpec], ServiceSpec]) -> None:
        service = self._do(self._client.get(Service, SERVICE))
        self._do(self._client.update(service, change(service.spec)))

    def scale(self, replicas: int) -> None:
        self._change(lambda spec: replace(spec, mode=ServiceMode(replicas=replicas)))

    def update(self) -> None:
        def changed(spec: ServiceSpec) -> ServiceSpec:
            container = replace(spec.task.container, env=("CHANGED=1",))
            return replace(spec, task=replace(spec.task, container=container))

        self._change(changed)

    def updated(self) -> bool:
        service = self._do(self._client.get(Service, SERVICE))
        return service.update_status is not None and service.update_status.state == "completed"

    def running(self) -> int:
        tasks: tuple[Task, ...] = self._do(self._client.tasks([("service", SERVICE)]))
        return sum(
            t.status.state == TaskState.RUNNING == t.desired_state and t.node_id != self._dead for t in tasks
        )

    def containers(self) -> int:
        return sum(len(containers_of(machine)) for machine in self._swarm.lab.machines)

    def kill_container(self) -> None:
        pids = [pid for machine in self._swarm.lab.machines for pid in containers_of(machine).values()]
        os.kill(pids[0], signal.SIGKILL)

    def kill(self) -> None:
        self._dead = self._dead_node
        self._swarm.lab.machines[-1].kill()

    def kill_leader(self) -> None:
        self._swarm.lab.machines[0].kill()

    def write(self) -> bool:
        async def create() -> None:
            socket = self._swarm.lab.machines[1].run / "pyswarm.sock"
            async with asyncio.timeout(WRITE_TIMEOUT), Client.local(socket, WRITE_TIMEOUT) as client:
                await client.create(ConfigSpec(name=f"write-{next(self._writes)}", data=b"x"))

        try:
            self._do(create())
        except (PyswarmError, TimeoutError):
            return False
        return True

    def drain(self) -> tuple[float, int, int]:
        """Drain a node with DRAINED tasks while a client calls them through their VIP: seconds until it is empty,
        requests, and how many of them failed."""
        swarm, name = self._swarm, self._swarm.lab.machines[-1].name
        at = f"node.hostname=={name}"
        flags = ("--network", NETWORK, "--update-order", "start-first", "--stop-grace-period", "0.3s")
        swarm.cli("service", "create", "-d", "--name", "web", *flags, "--constraint", at, IMAGE, *SERVE)
        swarm.cli("service", "scale", "-d", f"web={DRAINED}")
        swarm.wait_running("web", DRAINED)
        swarm.cli("service", "update", "-d", "--constraint-rm", at, "web")
        client = ("--network", NETWORK, "--constraint", "node.role==manager", IMAGE, "sh", "-c", CALLS)
        swarm.cli("service", "create", "-d", "--name", "client", *client)
        waited(lambda: self._calls()[0] > 20, "the client's calls are answered")
        took = timed(
            lambda: swarm.cli("node", "update", "--availability", "drain", name),
            lambda: not containers_of(swarm.lab.machines[-1]),
            "the drained node is empty",
        )
        swarm.wait_running("web", DRAINED)
        waited(lambda: self._calls()[0] > 0, "the client tells")
        return took, *self._calls()

    def _calls(self) -> tuple[int, int]:
        told = self._swarm.cli("service", "logs", "--tail", "1", "--raw", "client", ok=False).split()
        return (int(told[0]), int(told[1])) if len(told) == 2 else (0, 0)

    @property
    def _dead_node(self) -> str:
        name = self._swarm.lab.machines[-1].name
        nodes = self._do(self._client.nodes())
        return next(node.id for node in nodes if node.description.hostname == name)

    def close(self) -> None:
        if hasattr(self, "_client"):
            self._do(self._client.close())
        self._loop.close()
        self._swarm.leave()


# ---------------------------------------------------------------------------------------------- the peer


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def engine(
    path: Path, method: str, url: str, body: Any = None, kind: str = "application/json", timeout: float = 60
) -> Any:
    """One request to a Docker engine; its JSON. `body` is JSON, or a path to send as it is."""
    connection = _UnixConnection(path, timeout)
    try:
        data = body.read_bytes() if isinstance(body, Path) else json.dumps(body) if body is not None else None
        connection.request(method, f"/v1.41{url}", data, {"Content-Type": kind} if data is not None else {})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {url}: {answer.status} {text.decode(errors='replace')}")
        return json.loads(text) if text.startswith((b"{", b"[", b'"')) and b"\r\n{" not in text else None
    finally:
        connection.close()


def _filters(**filters: str) -> str:
    return "filters=" + urllib.parse.quote(json.dumps({key: [value] for key, value in filters.items()}))


class DockerSwarm:
    """Real Docker engines on bare machines of a lab, one manager and two workers. They have no way to the
    internet, so that the engine's question for a newer image is answered at once."""

    title = "Docker Swarm"

    def __init__(self, managers: int = 1, workers: int = NODES - 1) -> None:
        self._writes = itertools.count()
        for program, package in (
            ("dockerd", "docker.io"),
            ("containerd", "docker.io"),
            ("docker-init", "tini"),
        ):
            if shutil.which(program) is None:
                raise MissingProgram(program, package, "--peer measures a real Docker Swarm")
        self._directory = Path(tempfile.mkdtemp(prefix="pspeer-", dir="/var/tmp"))
        self._lab = Lab.up(
            name="psd",
            directory=self._directory / "lab",
            managers=managers,
            workers=workers,
            subnet="198.18.86.0/24",
            join=False,
        )
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._dead = ""
        try:
            self._start()
            self._load()
            self._join()
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _socket(machine: Machine) -> Path:
        return machine.directory / "docker.sock"

    def _ask(self, method: str, url: str, body: Any = None) -> Any:
        return engine(self._socket(self._lab.machines[0]), method, url, body)

    def _start(self) -> None:
        for machine in self._lab.machines:
            argv = [
                "dockerd",
                f"--data-root={machine.directory}/data",
                f"--exec-root={machine.directory}/exec",
                f"--host=unix://{self._socket(machine)}",
                f"--pidfile={machine.directory}/pid",
                f"--cgroup-parent={machine.cgroup}",
            ]
            with (machine.directory / "log").open("wb") as log:
                self._daemons.append(
                    subprocess.Popen(machine.argv(argv), stdout=log, stderr=log, start_new_session=True)
                )
        for machine in self._lab.machines:
            waited(lambda machine=machine: self._answers(machine), f"dockerd of {machine.name} answers")

    def _answers(self, machine: Machine) -> bool:
        try:
            engine(self._socket(machine), "GET", "/info")
        except (OSError, RuntimeError):
            return False
        return True

    def _load(self) -> None:
        root = busybox_root(self._directory)
        archive = self._directory / "root.tar"
        with tarfile.open(archive, "w") as tar:
            tar.add(root, arcname=".")
        for machine in self._lab.machines:
            url = f"/images/create?fromSrc=-&repo={IMAGE}&tag=latest"
            engine(self._socket(machine), "POST", url, archive, "application/x-tar")

    def _join(self) -> None:
        first = self._lab.machines[0]
        self._ask("POST", "/swarm/init", {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": first.address})
        tokens = self._ask("GET", "/swarm")["JoinTokens"]
        for machine in self._lab.machines[1:]:
            token = tokens[machine.role.capitalize()]
            body = {
                "ListenAddr": "0.0.0.0:2377",
                "AdvertiseAddr": machine.address,
                "RemoteAddrs": [f"{first.address}:2377"],
                "JoinToken": token,
            }
            engine(self._socket(machine), "POST", "/swarm/join", body)
        waited(
            lambda: [n["Status"]["State"] for n in self._ask("GET", "/nodes")] == ["ready"] * NODES,
            "all nodes are ready",
        )
        self._ask("POST", "/networks/create", {"Name": NETWORK, "Driver": "overlay"})

    def create(self, replicas: int) -> None:
        container = {"Image": f"{IMAGE}:latest", "Args": list(SLEEP), "Init": True}
        self._ask(
            "POST",
            "/services/create",
            {
                "Name": SERVICE,
                "TaskTemplate": {
                    "ContainerSpec": container,
                    "Networks": [{"Target": NETWORK}],
                    "RestartPolicy": {"Condition": "any", "Delay": int(RESTART_DELAY * 1e9)},
                },
                "Mode": {"Replicated": {"Replicas": replicas}},
                "EndpointSpec": {"Mode": "dnsrr"},
                "UpdateConfig": {"Parallelism": 1, "Monitor": int(MONITOR * 1e9)},
            },
        )

    def _change(self, change: Callable[[dict[str, Any]], None]) -> None:
        service = self._ask("GET", f"/services/{SERVICE}")
        change(service["Spec"])
        version = service["Version"]["Index"]
        self._ask("POST", f"/services/{service['ID']}/update?version={version}", service["Spec"])

    def scale(self, replicas: int) -> None:
        self._change(lambda spec: spec["Mode"]["Replicated"].update(Replicas=replicas))

    def update(self) -> None:
        self._change(lambda spec: spec["TaskTemplate"]["ContainerSpec"].update(Env=["CHANGED=1"]))

    def updated(self) -> bool:
        return self._ask("GET", f"/services/{SERVICE}").get("UpdateStatus", {}).get("State") == "completed"

    def running(self) -> int:
        tasks = self._ask("GET", f"/tasks?{_filters(service=SERVICE)}")
        return sum(
            t["Status"]["State"] == "running" == t["DesiredState"] and t.get("NodeID") != self._dead
            for t in tasks
        )

    def containers(self) -> int:
        return sum(
            len(engine(self._socket(machine), "GET", "/containers/json")) for machine in self._living()
        )

    def _living(self) -> Iterator[Machine]:
        return (machine for machine in self._lab.machines if machine.connected)

    def kill_container(self) -> None:
        paths = [self._socket(machine) for machine in self._lab.machines]
        path, container = next((p, c["Id"]) for p in paths for c in engine(p, "GET", "/containers/json"))
        os.kill(engine(path, "GET", f"/containers/{container}/json")["State"]["Pid"], signal.SIGKILL)

    def kill_leader(self) -> None:
        self._lab.machines[0].kill()

    def write(self) -> bool:
        spec = {"Name": f"write-{next(self._writes)}", "Data": "eA=="}
        try:
            engine(
                self._socket(self._lab.machines[1]), "POST", "/configs/create", spec, timeout=WRITE_TIMEOUT
            )
        except (OSError, RuntimeError, http.client.HTTPException):
            return False
        return True

    def kill(self) -> None:
        machine = self._lab.machines[-1]
        nodes = self._ask("GET", "/nodes")
        self._dead = next(n["ID"] for n in nodes if n["Status"]["Addr"] == machine.address)
        machine.kill()

    def close(self) -> None:
        self._lab.down()
        for daemon in self._daemons:
            daemon.wait(30)
        shutil.rmtree(self._directory)


# ---------------------------------------------------------------------------------------------- report


def run(make: Callable[[int, int], Cluster], runs: int) -> dict[str, float]:
    """The median of each step over so many fresh clusters."""
    rounds: list[dict[str, float]] = []
    for _ in range(runs):
        figures: dict[str, float] = {}
        for managers, workers, work in ((1, NODES - 1, measured), (NODES, 0, leader_dies)):
            with contextlib.closing(make(managers, workers)) as cluster:
                figures |= work(cluster)
        rounds.append(figures)
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


def drained() -> None:
    """Drain one of five nodes, and tell how it went."""
    with contextlib.closing(Pyswarm(1, 4)) as cluster:
        took, requests, failed = cluster.drain()
    print(
        f"one of five nodes drained of {DRAINED} tasks in {took:.2f} s: {requests} requests, {failed} failed"
    )


def report(figures: dict[str, dict[str, float]]) -> None:
    titles = list(figures)
    print(
        f"{'seconds':28}" + "".join(f"{title:>14}" for title in titles) + ("    ratio" if titles[1:] else "")
    )
    for name in figures[titles[0]]:
        values = [figures[title][name] for title in titles]
        ratio = f"{values[1] / values[0]:8.1f}x" if values[1:] and values[0] > 0 else ""
        print(f"{name:28}" + "".join(f"{value:14.2f}" for value in values) + ratio)
    print(f"({os.cpu_count()} cores; load {os.getloadavg()[0]:.1f} at the end)", flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--peer", action="store_true", help="the same on a real Docker Swarm")
    options.add_argument("--only-peer", action="store_true")
    options.add_argument("--runs", type=int, default=1, help="fresh clusters of each; medians are told")
    given = options.parse_args()
    figures: dict[str, dict[str, float]] = {}
    if not given.only_peer:
        figures[Pyswarm.title] = run(Pyswarm, given.runs)
        report(figures)
        drained()
    if given.peer or given.only_peer:
        figures[DockerSwarm.title] = run(DockerSwarm, given.runs)
        report(figures)


if __name__ == "__main__":
    main()
