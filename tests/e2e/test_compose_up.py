"""`pyswarm compose` on a real node: a project with a build, up and looked at, run in, watched, down without trace."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster, until

pytestmark = pytest.mark.e2e

DOCKERFILE = """\
FROM busybox
COPY page /www/page
CMD ["sh", "-c", "trap 'exit 0' TERM; echo serving; while :; do sleep 0.1; done"]
"""
COMPOSE = """\
name: shop
services:
  db:
    image: busybox
    command: [sh, -c, "trap 'exit 0' TERM; echo db is up; touch /data/ready; while :; do sleep 0.1; done"]
    volumes: [data:/data]
    healthcheck: {test: [CMD, test, -e, /data/ready], interval: 1s, start_period: 10s, start_interval: 0.1s}
  web:
    build: .
    depends_on: {db: {condition: service_healthy}}
    environment: {COLOUR: blue}
    volumes: ["./page:/mounted:ro"]
    develop:
      watch:
        - {action: sync, path: ./src, target: /www/src, ignore: ["*.tmp"]}
        - {action: rebuild, path: ./page}
        - {action: sync+restart, path: ./conf, target: /conf, initial_sync: true}
        - {action: sync+exec, path: ./run, target: /run/x, exec: {command: sh -c "cat /run/x/now >> /ran"}}
        - {action: restart, path: ./marker}
volumes:
  data:
"""


@pytest.fixture
def project(shared: Cluster, tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "shop"
    for name in ("src", "conf", "run"):
        (place / name).mkdir(parents=True)
    (place / "page").write_text("hello\n")
    (place / "Dockerfile").write_text(DOCKERFILE)
    (place / "compose.yml").write_text(COMPOSE)
    yield place
    shared.run_cli("compose", "-p", "shop", "down", "-v", "-t", "1", "--rmi", "local", cwd=place)


class Typist:
    """A program on a terminal of its own."""

    def __init__(self, cluster: Cluster, place: Path, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        command = [sys.executable, "-m", "pyswarm.cli.main", *arguments]
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**cluster.environment, "TERM": "xterm"},
            cwd=place,
            start_new_session=True,
            preexec_fn=_controlling,
        )
        os.close(slave)
        self.text = ""

    def expect(self, what: str, seconds: float = 40) -> None:
        end = time.monotonic() + seconds
        while what not in self.text:
            assert time.monotonic() < end, f"never saw {what!r} in:\n{self.text}"
            if not select.select([self._master], [], [], 0.2)[0]:
                continue
            try:
                data = os.read(self._master, 65536)
            except OSError:
                data = b""
            assert data, f"it ended without {what!r}:\n{self.text}"
            self.text += data.decode(errors="replace")

    def text_after_reading(self) -> str:
        """All that was printed until now."""
        while select.select([self._master], [], [], 0)[0]:
            self.text += os.read(self._master, 65536).decode(errors="replace")
        return self.text

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def end(self, seconds: float = 30) -> int:
        """The exit code, after reading everything."""
        end = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < end, f"it does not end:\n{self.text}"
            if select.select([self._master], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):
                    self.text += os.read(self._master, 65536).decode(errors="replace")
        with contextlib.suppress(OSError):
            while select.select([self._master], [], [], 0)[0] and (data := os.read(self._master, 65536)):
                self.text += data.decode(errors="replace")
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._master)


def _controlling() -> None:
    """Makes the terminal that of the new session, so that Ctrl-C is a signal."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_a_project_from_up_to_down(shared: Cluster, project: Path) -> None:
    def compose(*arguments: str, **options: object) -> str:
        return shared.cli("compose", *arguments, cwd=project, **options)  # type: ignore[arg-type]

    up = shared.run_cli("compose", "up", "-d", cwd=project)
    assert up.returncode == 0, up.stderr
    lines = [line.strip() for line in up.stderr.splitlines()]
    assert "Image shop-web:latest  Built" in lines
    assert "Network shop_default  Created" in lines
    assert "Volume shop_data  Created" in lines
    assert lines.index("Container shop-db-1  Started") < lines.index("Container shop-web-1  Started")

    rows = compose("ps", "--format", "{{.Name}} {{.Service}} {{.State}} {{.Image}}").splitlines()
    assert rows == ["shop-db-1 db running busybox", "shop-web-1 web running shop-web"]
    assert compose("ps", "--services").split() == ["db", "web"]
    assert compose("ls", "-q").split() == ["shop"]
    assert until(lambda: "web-1  | serving\n" in (text := compose("logs")) and text, "both have logged")
    assert compose("logs", "db") == "db-1  | db is up\n"

    assert compose("exec", "-T", "web", "cat", "/www/page", "/mounted") == "hello\nhello\n"
    assert shared.run_cli("compose", "exec", "web", "sh", "-c", "exit 7", cwd=project).returncode == 7
    assert compose("exec", "-T", "web", "sh", "-c", "echo $COLOUR") == "blue\n"

    again = shared.run_cli("compose", "up", "-d", cwd=project)
    assert "Service web  Running" in again.stderr and "Recreate" not in again.stderr

    once = shared.run_cli(
        "compose", "run", "--rm", "-T", "-e", "A=1", "web", "sh", "-c", "echo $A$COLOUR; exit 3", cwd=project
    )
    assert (once.returncode, once.stdout) == (3, "1blue\n"), once.stderr
    assert compose("run", "--rm", "-T", "web", "cat", "-", input="through\n") == "through\n"
    until(lambda: "run" not in compose("ps", "-a", "-q", "--format", "{{.Name}}"), "one-offs are removed")

    (project / "given").write_text("copied\n")
    compose("cp", "given", "web:/tmp/")
    compose("cp", "web:/tmp/given", "back")
    assert (project / "back").read_text() == "copied\n"
    assert "sh -c" in compose("top", "web")

    many = shared.run_cli("compose", "run", "--rm", "-T", "web", "wc", "-c", input="x" * 200_000, cwd=project)
    assert (many.returncode, many.stdout) == (0, "200000\n"), many.stderr
    shared.run_cli("compose", "exec", "-T", "web", "touch", "/written", cwd=project)
    compose("restart", "-t", "2", "web")
    assert compose("exec", "-T", "web", "ls", "/written") == "/written\n", "a restart is in place"
    assert compose("logs", "--no-log-prefix", "web").count("serving") == 2

    compose("stop", "-t", "2", "web")
    assert compose("ps", "--services").split() == ["db"]
    assert compose("ps", "-a", "--format", "{{.Name}} {{.State}}").splitlines()[1] == "shop-web-1 exited"
    assert "serving" in compose("logs", "web"), "what has stopped can be looked at"
    compose("start", "web")
    assert compose("ps", "--services").split() == ["db", "web"]
    assert shared.run_cli("compose", "exec", "-T", "web", "ls", "/written", cwd=project).returncode == 1

    before = compose("ps", "-q")
    compose("scale", "db=2")
    assert len(compose("ps", "-q", "db").split()) == 2
    compose("up", "-d", "--scale", "db=1", "--no-recreate")
    assert compose("ps", "-q") == before
    compose("kill", "-s", "KILL", "web")
    assert "Exited (137)" in compose("ps", "-a", "web")
    assert shared.run_cli("compose", "wait", "web", cwd=project).returncode == 137
    compose("rm", "-f")
    assert "web" not in compose("ps", "-a", "--services")

    compose("down", "-v")
    assert compose("ps", "-a", "-q") == ""
    assert shared.cli("volume", "ls", "-q") == ""
    assert "shop_default" not in shared.cli("network", "ls")


def test_a_one_off_has_the_terminal(shared: Cluster, project: Path) -> None:
    typist = Typist(shared, project, "compose", "run", "--rm", "--no-deps", "--build", "web", "sh")
    try:
        typist.expect("# ")
        typist.type("echo $((6*7))$COLOUR; test -t 0 && echo is a terminal; cat /proc/1/cmdline; exit 6\n")
        typist.expect("42blue")
        assert typist.end() == 6, typist.text
        assert "is a terminal\r\nsh" in typist.text, "the command is the container's process"
    finally:
        typist.close()

    script = "trap 'echo got it; exit 9' INT; echo ready; while :; do sleep 0.1; done"
    typist = Typist(shared, project, "compose", "run", "--rm", "--no-deps", "-T", "web", "sh", "-c", script)
    try:
        typist.expect("ready")
        typist.type("\x03")
        typist.expect("got it")
        assert typist.end() == 9, typist.text
    finally:
        typist.close()
    missing = shared.run_cli("compose", "run", "--rm", "--no-deps", "-T", "web", "nosuch", cwd=project)
    assert missing.returncode == 1 and "executable file not found" in missing.stderr
    assert "run" not in shared.cli("compose", "ps", "-a", "--format", "{{.Name}}", cwd=project)


def test_the_foreground_ends_with_ctrl_c(shared: Cluster, project: Path) -> None:
    typist = Typist(shared, project, "compose", "up", "-t", "3")
    try:
        typist.expect("serving")
        assert "\x1b[36mdb-1   | \x1b[0mdb is up" in typist.text
        assert "\x1b[33mweb-1  | \x1b[0mserving" in typist.text
        typist.type("\x03")
        typist.expect("Gracefully stopping... (press Ctrl+C again to force)")
        assert typist.end() == 130, typist.text
        assert "Container shop-web-1  Stopped" in typist.text
    finally:
        typist.close()
    assert shared.cli("compose", "ps", "-q", cwd=project) == ""


def test_a_second_ctrl_c_kills(shared: Cluster, project: Path) -> None:
    (project / "compose.yml").write_text("""\
name: shop
services:
  deaf:
    image: busybox
    command: [sh, -c, "trap '' TERM; echo here; while :; do sleep 0.1; done"]
    stop_grace_period: 90s
""")
    typist = Typist(shared, project, "compose", "up")
    try:
        typist.expect("here")
        typist.type("\x03")
        typist.expect("Gracefully stopping...")
        typist.type("\x03")
        assert typist.end() == 130, typist.text
        assert "Container shop-deaf-1  Stopped" in typist.text
    finally:
        typist.close()


def test_the_foreground_ends_with_its_containers(shared: Cluster, project: Path) -> None:
    text = """\
name: shop
services:
  first: {image: busybox, command: [sh, -c, "echo one; exit 0"]}
  second: {image: busybox, command: [sh, -c, "echo two; exit 4"], depends_on: [first]}
"""
    (project / "compose.yml").write_text(text)
    result = shared.run_cli("compose", "up", cwd=project)
    assert result.returncode == 0, result.stderr
    assert "second-1  | two\n" in result.stdout
    assert "first-1   | one\n" in result.stdout
    assert "second-1 exited with code 4" in result.stderr

    more = "  third: {image: busybox, command: [sleep, '1000'], stop_grace_period: 0s}\n"
    (project / "compose.yml").write_text(text + more)
    arguments = ("compose", "up", "--exit-code-from", "second", "second", "third", "--no-deps")
    result = shared.run_cli(*arguments, cwd=project)
    assert result.returncode == 4, result.stderr
    assert "Container shop-third-1  Stopped" in result.stderr


def test_watch_syncs_and_rebuilds(shared: Cluster, project: Path) -> None:
    shared.cli("compose", "up", "-d", cwd=project)
    (project / "conf" / "first").write_text("from the start\n")
    typist = Typist(shared, project, "compose", "watch", "--no-up")

    def inside(path: str) -> str:
        return shared.run_cli("compose", "exec", "-T", "web", "cat", path, cwd=project).stdout

    try:
        typist.expect("Watch enabled")
        (project / "src" / "app").mkdir()
        (project / "src" / "app" / "code").write_text("one\n")
        (project / "src" / "no.tmp").write_text("never\n")
        until(lambda: inside("/www/src/app/code") == "one\n", "the new file is there")
        assert inside("/www/src/no.tmp") == ""
        shutil.rmtree(project / "src" / "app")
        until(lambda: inside("/www/src/app/code") == "", "the removed file is gone")
        (project / "conf" / "c").write_text("configured\n")
        typist.expect('service "web" restarted')
        assert inside("/conf/c") == "configured\n", "what was synced is there after the restart"
        assert inside("/conf/first") == "from the start\n"
        (project / "run" / "now").write_text("ran\n")
        until(lambda: inside("/ran") == "ran\n", "the command ran after the sync")
        (project / "marker").write_text("")
        until(lambda: typist.text_after_reading().count('service "web" restarted') == 2, "it is restarted")
        (project / "page").write_text("changed\n")
        typist.expect('service "web" successfully built and recreated')
        assert inside("/www/page") == "changed\n"
        typist.type("\x03")
        assert typist.end() == 130
    finally:
        typist.close()
