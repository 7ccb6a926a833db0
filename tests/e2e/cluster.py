"""A real one-node cluster for tests: its own directories, ports, cgroup and link names on this machine."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from pyswarm import daemon, leaving, nodeconfig, supervisor
from pyswarm.api import NodeCommand
from pyswarm.client import Client
from pyswarm.errors import Unavailable
from pyswarm.nodeconfig import NodeConfig, Ports
from pyswarm.objects import Service, Task, TaskState
from tests.e2e.machine import command_line, processes

T = TypeVar("T")
_numbers = itertools.count(int(os.environ.get("PYSWARM_TEST_PORTS", "21000")), 10)
DEADLINE = 60.0
"""Seconds that any wait of a test may take."""


def until(condition: Callable[[], T | None], what: str, seconds: float = DEADLINE) -> T:
    """Wait for a condition; its value, or an assertion error that says what never happened. A cluster that is
    unavailable at the moment counts as not yet."""
    end = time.monotonic() + seconds
    reason = ""
    while time.monotonic() < end:
        try:
            value = condition()
        except Unavailable as error:
            value, reason = None, f" ({error})"
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds:.0f} s: {what}{reason}")


class Cluster:
    """One node. `cli` runs the command line as people do; the rest looks behind it."""

    def __init__(self, directory: Path) -> None:
        base = next(_numbers)
        self.directory = directory
        self.state = directory / "state"
        self.run = directory / "run"
        self.name = f"ps{base // 10}"
        self.options = daemon.InitOptions(
            advertise_addr="127.0.0.1",
            listen_addr=f"127.0.0.1:{base}",
            state_dir=self.state,
            run_dir=self.run,
            ports=Ports(join=base, api=base + 1, etcd_client=base + 2, etcd_peer=base + 3),
            data_path_port=base + 4,
            cgroup_parent=f"/pyswarm-{self.name}",
            link_prefix=self.name,
            insecure_registries=("127.0.0.1:*", "localhost:*"),
        )

    def init(self) -> None:
        daemon.init(self.options)

    def leave(self) -> None:
        leaving.leave(self.state, self.run, force=True, purge=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def config(self) -> NodeConfig:
        return nodeconfig.load(self.state)

    # ------------------------------------------------------------------------------ the command line

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYSWARM_STATE_DIR": str(self.state), "PYSWARM_RUN_DIR": str(self.run)}

    def cli(self, *arguments: str, ok: bool = True, input: str = "", cwd: Path | None = None) -> str:
        """Run `pyswarm ARGUMENTS`; its standard output. With `ok` a failure is the test's."""
        result = self.run_cli(*arguments, input=input, cwd=cwd)
        if ok and result.returncode:
            raise AssertionError(
                f"pyswarm {' '.join(arguments)}: {result.returncode}\n{result.stdout}{result.stderr}"
            )
        return result.stdout

    def run_cli(
        self, *arguments: str, input: str = "", cwd: Path | None = None, seconds: float = 240
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pyswarm.cli.main", *arguments]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            env=self.environment,
            input=input,
            cwd=cwd,
            timeout=seconds,
        )

    # ------------------------------------------------------------------------------ the API

    def ask(self, work: Callable[[Client], object]) -> object:
        """Run a coroutine function over a client."""

        async def go() -> object:
            async with Client.local(self.run / "pyswarm.sock") as client:
                return await work(client)  # type: ignore[misc]

        return asyncio.run(go())

    def tasks(self, service: str = "") -> list[Task]:
        filters = [("service", service)] if service else []
        return list(self.ask(lambda client: client.tasks(filters)))  # type: ignore[call-overload]

    def running(self, service: str) -> list[Task]:
        return [
            t
            for t in self.tasks(service)
            if t.status.state == TaskState.RUNNING and t.desired_state == TaskState.RUNNING
        ]

    def service(self, name: str) -> Service:
        return self.ask(lambda client: client.get(Service, name))  # type: ignore[return-value]

    def wait_running(self, service: str, count: int, seconds: float = DEADLINE) -> list[Task]:
        """Wait until exactly `count` tasks run and none else is meant to; returns them by slot."""

        def settled() -> list[Task] | None:
            wanted = [t for t in self.tasks(service) if t.desired_state <= TaskState.RUNNING]
            running = [t for t in wanted if t.status.state == TaskState.RUNNING]
            done = len(running) == len(wanted) == count
            return sorted(running, key=lambda t: t.slot) if done else None

        if count == 0:
            until(
                lambda: not [t for t in self.tasks(service) if t.desired_state <= TaskState.RUNNING],
                f"{service} ends",
            )
            return []
        return until(settled, f"{service} has {count} running tasks", seconds)

    def build(self, tag: str, context: Path) -> None:
        """Build an image into the node's store."""
        arguments = json.dumps({"context": str(context), "tags": [tag]})

        async def go(client: Client) -> None:
            async def command():  # type: ignore[no-untyped-def]
                yield NodeCommand(verb="image.build", args=arguments)

            async for reply in client.command(command()):
                assert reply.kind != "error", reply.text

        self.ask(go)

    # ------------------------------------------------------------------------------ behind it

    def pid(self, daemon_name: str) -> int:
        """Of supervisor, manager, agent or etcd."""
        if daemon_name == "etcd":
            found = [p for p, a in processes(f"{self.state}/etcd").items() if a[0].endswith("etcd")]
            return found[0] if found else 0
        return supervisor.holder(self.run / f"{daemon_name}.lock")

    def conmons(self) -> dict[str, int]:
        """task id -> pid of its monitor."""
        found: dict[str, int] = {}
        for pid, arguments in processes(f"{self.run}/agent").items():
            if arguments[0].endswith("conmon"):
                found[arguments[arguments.index("--cid") + 1]] = pid
        return found

    def containers(self) -> dict[str, int]:
        """task id -> pid of the container's first process, of those that live."""
        found: dict[str, int] = {}
        for path in (self.run / "agent" / "runc").glob("*/state.json"):
            try:
                pid = int(json.loads(path.read_text())["init_process_pid"])
            except (OSError, ValueError, KeyError):
                continue
            if command_line(pid):
                found[path.parent.name] = pid
        return found


def busybox_context(directory: Path) -> Path:
    """A build context for an image with nothing but Debian's static busybox."""
    busybox = shutil.which("busybox")
    assert busybox, "busybox is not installed: apt-get install busybox-static"
    context = directory / "busybox-image"
    context.mkdir()
    shutil.copy(busybox, context / "busybox")
    (context / "Dockerfile").write_text(
        "FROM scratch\n"
        "COPY busybox /bin/busybox\n"
        'RUN ["/bin/busybox", "--install", "-s", "/bin"]\n'
        'RUN ["/bin/mkdir", "-p", "/etc", "/tmp", "/root", "/www"]\n'
        'CMD ["sleep", "1000000"]\n'
    )
    return context


SLEEPER: Sequence[str] = ("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done")
"""A command that obeys SIGTERM at once."""
