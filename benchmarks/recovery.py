"""How fast a cluster of three nodes does what it is asked, and recovers: pyswarm's own, beside Docker Swarm's.

`python benchmarks/recovery.py [--peer] [--only-peer] [--runs N]`, as root. Both run on the same machine, one after
the other, in labs of the same make (`pyswarm lab`): one manager, two workers, the same root file system already
there, the same service on an overlay network, the same ways to die. `--peer` needs docker.io (dockerd, containerd).

Times are from the request until it shows in the manager's state, except `60 to 3`, which ends when no further
container lives. The rolling update has a monitor period, during which a new task must not fail; it is no work of the
orchestrator's, and is said apart.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import shutil
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
from pyswarm.errors import MissingProgram
from pyswarm.lab import Lab, Machine
from pyswarm.objects import Service, Task, TaskState
from pyswarm.specs import (
    ContainerSpec,
    EndpointSpec,
    NetworkAttachmentSpec,
    NetworkSpec,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)
from tests.e2e.lab_cluster import LabCluster, busybox_context, containers_of

NODES = 3
KILLED_WITH = 9
"""Tasks that run when a worker dies."""
MONITOR = 1.0
"""Seconds of monitor period of the rolling update."""
DEADLINE = 120.0
SERVICE, NETWORK, IMAGE = "bench", "bench", "busybox"
SLEEP = ("sleep", "1000000")


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

    def kill(self) -> None:
        """The last worker's machine is gone."""
        ...

    def close(self) -> None: ...


def waited(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {DEADLINE:.0f} s: {what}")
        time.sleep(0.01)


def measured(cluster: Cluster) -> dict[str, float]:
    """Seconds of each step, in order."""
    figures: dict[str, float] = {}

    def step(name: str, act: Callable[[], None], done: Callable[[], bool]) -> None:
        start = time.perf_counter()
        act()
        waited(done, name)
        figures[name] = time.perf_counter() - start

    step("first deploy of 3", lambda: cluster.create(3), lambda: cluster.running() == 3)
    for count in (30, 60):
        step(f"scale to {count}", lambda n=count: cluster.scale(n), lambda n=count: cluster.running() == n)
    step("scale 60 to 3", lambda: cluster.scale(3), lambda: cluster.containers() == 3)
    step("rolling update of 3", cluster.update, cluster.updated)
    cluster.scale(KILLED_WITH)
    waited(lambda: cluster.running() == KILLED_WITH == cluster.containers(), "tasks before the kill")
    step("worker dies", cluster.kill, lambda: cluster.running() == KILLED_WITH)
    return figures


# ---------------------------------------------------------------------------------------------- pyswarm


class Pyswarm:
    """A lab's cluster, driven by the API of its manager."""

    title = "pyswarm"

    def __init__(self) -> None:
        self._swarm = LabCluster("psr", 1, NODES - 1, "198.18.93.0/24")
        self._dead = ""
        self._loop = asyncio.new_event_loop()
        try:
            self._swarm.init()
            self._swarm.lab.join_all()
            self._swarm.build(IMAGE, busybox_context(self._swarm.directory))
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
        self._swarm.wait_running("seed", NODES)
        self._swarm.cli("service", "rm", "seed")
        waited(lambda: self.containers() == 0, "the seed's containers end")

    def _do(self, work: Any) -> Any:  # Any: whatever the client's coroutine returns
        return self._loop.run_until_complete(work)

    def create(self, replicas: int) -> None:
        task = TaskSpec(
            container=ContainerSpec(image=IMAGE, args=SLEEP, init=True),
            networks=(NetworkAttachmentSpec(target=NETWORK),),
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

    def kill(self) -> None:
        self._dead = self._dead_node
        self._swarm.lab.machines[-1].kill()

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
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(60)
        self.sock.connect(str(self._path))


def engine(path: Path, method: str, url: str, body: Any = None, kind: str = "application/json") -> Any:
    """One request to a Docker engine; its JSON. `body` is JSON, or a path to send as it is."""
    connection = _UnixConnection(path)
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

    def __init__(self) -> None:
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
            managers=1,
            workers=NODES - 1,
            subnet="198.18.94.0/24",
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
        token = self._ask("GET", "/swarm")["JoinTokens"]["Worker"]
        for machine in self._lab.machines[1:]:
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
                "TaskTemplate": {"ContainerSpec": container, "Networks": [{"Target": NETWORK}]},
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


def run(make: Callable[[], Cluster], runs: int) -> dict[str, float]:
    """The median of each step over so many fresh clusters."""
    rounds: list[dict[str, float]] = []
    for _ in range(runs):
        cluster = make()
        try:
            rounds.append(measured(cluster))
        finally:
            cluster.close()
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


def report(figures: dict[str, dict[str, float]]) -> None:
    titles = list(figures)
    steps = list(figures[titles[0]])
    print(
        f"{'seconds':28}"
        + "".join(f"{title:>14}" for title in titles)
        + ("    ratio" if len(titles) > 1 else "")
    )
    for name in steps:
        values = [figures[title][name] for title in titles]
        _line(name, values)
        if name.startswith("rolling"):
            # The monitor of the last task runs to its end in both; those before it may overlap with work.
            _line(f"  without its {MONITOR:.0f} s monitor", [value - MONITOR for value in values])
    print(f"({os.cpu_count()} cores; load {os.getloadavg()[0]:.1f} at the end)")


def _line(name: str, values: list[float]) -> None:
    ratio = f"{values[1] / values[0]:8.1f}x" if len(values) > 1 and values[0] > 0 else ""
    print(f"{name:28}" + "".join(f"{value:14.2f}" for value in values) + ratio)


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
    if given.peer or given.only_peer:
        figures[DockerSwarm.title] = run(DockerSwarm, given.runs)
        report(figures)


if __name__ == "__main__":
    main()
