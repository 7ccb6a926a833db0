"""Daemons kept alive: real processes that die, hold locks, are adopted and stopped; logs that stay bounded."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path

import pytest

from pyswarm import supervisor
from pyswarm.supervisor import Daemon, hold, holder

DAEMON = """
import os, sys, time
from pathlib import Path
from pyswarm.supervisor import hold
state = Path(sys.argv[1])
assert hold(state / "run" / "agent.lock") is not None, "another one runs"
with (state / "starts").open("a") as file:
    file.write(f"{os.getpid()}\\n")
time.sleep(60)
"""


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within 10 s"
        time.sleep(0.005)


class Node:
    """A state directory, and a supervisor that runs in a thread of the test."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.state, self.run = directory, directory / "run"
        (directory / "log").mkdir()
        self.run.mkdir()
        (directory / "fakedaemon.py").write_text(DAEMON)
        monkeypatch.setitem(supervisor.MODULES, "agent", "fakedaemon")
        roots = [str(directory), str(Path(__file__).parents[2])]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(roots))
        self.daemon = Daemon("agent", self.state, self.run)
        self._read, self._write = os.pipe()
        self._thread: threading.Thread | None = None

    def supervise(self) -> None:
        self._thread = threading.Thread(target=supervisor.supervise, args=([self.daemon], [self._read]))
        self._thread.start()

    def stop(self) -> None:
        if self._thread is not None:
            os.write(self._write, b"x")
            self._thread.join(10)
            self._thread = None

    def close(self) -> None:
        self.stop()
        supervisor.stop_all([self.daemon])
        for pid in self.starts:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os.close(self._read)
        os.close(self._write)

    @property
    def starts(self) -> list[int]:
        path = self.state / "starts"
        return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Node]:
    made = Node(tmp_path, monkeypatch)
    yield made
    made.close()


def test_a_daemon_that_dies_is_started_again_and_stopped_in_the_end(node: Node) -> None:
    node.supervise()
    until(lambda: len(node.starts) == 1)
    os.kill(node.starts[0], signal.SIGKILL)
    until(lambda: len(node.starts) == 2)
    node.stop()
    supervisor.stop_all([node.daemon])
    assert not Path(f"/proc/{node.starts[1]}").exists()
    assert holder(node.run / "agent.lock") == 0


def test_a_daemon_that_runs_already_is_adopted(node: Node) -> None:
    command = [sys.executable, "-m", "fakedaemon", str(node.state)]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        until(lambda: holder(node.run / "agent.lock") == process.pid)
        node.supervise()
        until(lambda: node.daemon.pid)
        assert node.daemon.pid == process.pid
        assert len(node.starts) == 1
        process.kill()
        process.wait()
        until(lambda: len(node.starts) == 2)
    finally:
        process.kill()
        process.wait()


def test_a_daemon_that_fails_at_once_is_tried_ever_less_often(tmp_path: Path) -> None:
    daemon = Daemon("agent", tmp_path, tmp_path)
    pauses: list[float] = []
    for _ in range(9):
        daemon.started = time.monotonic()
        daemon.ended()
        pauses.append(daemon.not_before - time.monotonic())
    assert all(later > sooner - 0.001 for sooner, later in itertools.pairwise(pauses))
    assert pauses[-1] <= supervisor.BACKOFF_MAX
    daemon.started = time.monotonic() - 60
    daemon.ended()
    assert daemon.not_before <= time.monotonic(), "one that ran well comes back at once"


def test_a_lock_is_held_by_one_process_and_named(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    assert holder(lock) == 0
    code = (
        "import sys; from pathlib import Path; from pyswarm.supervisor import hold\n"
        "assert hold(Path(sys.argv[1])) is not None; print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(lock)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None and process.stdin is not None
        process.stdout.readline()
        assert holder(lock) == process.pid
        assert hold(lock) is None
        process.stdin.close()
    assert holder(lock) == 0
    descriptor = hold(lock)
    assert descriptor is not None
    os.close(descriptor)


def test_logs_stay_bounded_while_a_daemon_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LOG_LIMIT", 100)
    log = tmp_path / "agent.log"
    supervisor.trim(log)  # there is none yet
    with log.open("ab", buffering=0) as file:
        file.write(b"x" * 101)
        supervisor.trim(log)
        assert log.stat().st_size == 0
        file.write(b"more")
    assert log.read_bytes() == b"more", "it goes on at the beginning, without a hole"
    assert (tmp_path / "agent.log.1").stat().st_size == 101
    supervisor.rotate(log)
    assert log.exists(), "a small one stays"
