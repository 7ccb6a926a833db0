"""A real cluster of several machines for tests: the lab, with the command line and the API of its first manager."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from pyswarm.lab import Lab, Machine
from pyswarm.objects import Node, NodeState, Task
from tests.e2e.cluster import Cluster, busybox_context, until
from tests.e2e.machine import Machine as Traces
from tests.e2e.machine import command_line

WEB = "web"
"""An image whose httpd answers /cgi-bin/who with its node's name and the client's address."""
WHO = '#!/bin/sh\nprintf "Content-Type: text/plain\\r\\n\\r\\n"\necho "$NODE $REMOTE_ADDR $SLOT"\n'
SERVE = ("httpd", "-f", "-p", "80", "-h", "/www")


class LabCluster(Cluster):
    """The cluster that a lab's machines make. Made bare: `init` starts it, `join` lets machines in."""

    def __init__(self, name: str, managers: int, workers: int, subnet: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="pslab-", dir="/var/tmp"))
        self.lab = Lab.up(
            name=name,
            directory=self.directory / "lab",
            managers=managers,
            workers=workers,
            subnet=subnet,
            join=False,
        )
        self.first = self.lab.machines[0]
        self.state, self.run = self.first.state, self.first.run
        self.name = name

    def init(self) -> None:
        self.lab.init()

    def leave(self) -> None:
        """The whole lab goes."""
        self.lab.down()
        shutil.rmtree(self.directory)

    def traces(self) -> list[str]:
        """All that this machine shows of the lab: processes, mounts, links, tables, cgroups, files."""
        seen = Traces.look(str(self.directory))
        links = [link for link in seen.links if link.startswith(f"{self.name}-")]
        tables = [table for table in seen.tables if table.startswith(self.name)]
        cgroups = [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{self.name}-*")]
        files = [str(self.directory)] if self.directory.exists() else []
        return [*seen.processes, *seen.mounts, *links, *tables, *cgroups, *files]

    def run_cli(
        self, *arguments: str, input: str = "", cwd: Path | None = None, seconds: float = 240
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.first.argv(["pyswarm", *arguments]),
            capture_output=True,
            text=True,
            check=False,
            env=self.first.environment,
            input=input,
            cwd=cwd,
            timeout=seconds,
        )

    # ------------------------------------------------------------------------------ nodes

    def nodes(self) -> dict[str, Node]:
        """By machine name; of several records of one machine the newest."""
        found: list[Node] = list(self.ask(lambda client: client.nodes()))  # type: ignore[call-overload]
        return {n.description.hostname: n for n in sorted(found, key=lambda n: n.meta.created_at)}

    def wait_node(self, name: str, state: NodeState, seconds: float = 20.0) -> float:
        """Wait until the managers see a machine so; returns how long it took."""
        start = time.monotonic()
        until(
            lambda: name in self.nodes() and self.nodes()[name].status.state == state,
            f"{name} is {state.name}",
            seconds,
        )
        return time.monotonic() - start

    def where(self, tasks: Sequence[Task]) -> list[str]:
        """The machines that tasks are on, in the tasks' order."""
        names = {node.id: name for name, node in self.nodes().items()}
        return [names[task.node_id] for task in tasks]

    def on(self, service: str, name: str) -> list[Task]:
        """The running tasks of a service on one machine."""
        node = self.nodes()[name].id
        return [task for task in self.running(service) if task.node_id == node]


def containers_of(machine: Machine) -> dict[str, int]:
    """task id -> pid of the container's first process, of those that live on this machine."""
    found: dict[str, int] = {}
    for path in (machine.run / "agent" / "runc").glob("*/state.json"):
        try:
            pid = int(json.loads(path.read_text())["init_process_pid"])
        except (OSError, ValueError, KeyError):
            continue
        if command_line(pid):
            found[path.parent.name] = pid
    return found


def web_context(directory: Path) -> Path:
    """The build context of the image `web`."""
    context = busybox_context(directory)
    (context / "who").write_text(WHO)
    (context / "who").chmod(0o755)
    with (context / "Dockerfile").open("a") as file:
        file.write("COPY who /www/cgi-bin/who\n")
    return context


def fetch(address: str, seconds: float = 3.0) -> str:
    """What `/cgi-bin/who` answers there to a client on the host; "" when nobody does."""
    import http.client

    connection = http.client.HTTPConnection(address, timeout=seconds)
    try:
        connection.request("GET", "/cgi-bin/who")
        return connection.getresponse().read().decode().strip()
    except OSError:
        return ""
    finally:
        connection.close()
