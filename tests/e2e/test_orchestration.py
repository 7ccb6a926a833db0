"""What the managers decide, on real containers: updates, rollbacks, dependencies, jobs, crash loops, drains.

The decisions themselves are proven in `tests/sim` and `tests/golden`; here a handful of them goes the whole way,
by the command line and Compose files, as people do it.
"""

from __future__ import annotations

import http.client
import itertools
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyswarm.objects import Config, Service, Task, TaskState
from tests.e2e.cluster import SLEEPER, Cluster, until

pytestmark = [pytest.mark.e2e, pytest.mark.root]

QUICK = ("--stop-grace-period", "2s", "--update-monitor", "700ms", "--rollback-monitor", "200ms")
BROKEN = 'sh -c "echo cannot start >&2; exit 3"'


@pytest.fixture
def cluster(shared: Cluster) -> Iterator[Cluster]:
    """The shared cluster; stacks and services that the test made are gone afterwards."""
    yield shared
    for stack in _stacks(shared):
        shared.run_cli("stack", "rm", stack)
    names = [service.spec.name for service in _services(shared)]
    if names:
        shared.cli("service", "rm", *names)
    until(lambda: not shared.tasks(), "all tasks are gone")


def _services(cluster: Cluster) -> list[Service]:
    return list(cluster.ask(lambda client: client.services()))  # type: ignore[call-overload]


def _stacks(cluster: Cluster) -> list[str]:
    labels = (service.spec.labels.get("com.docker.stack.namespace") for service in _services(cluster))
    return sorted({label for label in labels if label})


def create(cluster: Cluster, name: str, *flags: str, command: tuple[str, ...] = tuple(SLEEPER)) -> None:
    cluster.cli("service", "create", "--name", name, *QUICK, *flags, "busybox", *command)


def deploy(cluster: Cluster, directory: Path, stack: str, text: str, *flags: str) -> str:
    file = directory / "compose.yml"
    file.write_text(text)
    return cluster.cli("stack", "deploy", *flags, "-c", str(file), stack)


def args(task: Task) -> tuple[str, ...]:
    return tuple(task.spec.container.args or ())


def update_state(cluster: Cluster, name: str) -> str:
    status = cluster.service(name).update_status
    return status.state if status is not None else ""


def ended(cluster: Cluster, name: str, state: TaskState) -> list[Task]:
    return [task for task in cluster.tasks(name) if task.status.state == state]


# ---------------------------------------------------------------------------------------- updates, rollbacks


@pytest.mark.parametrize(
    ("change", "word"),
    [(("--args", BROKEN), "non-zero exit"), (("--image", "127.0.0.1:1/missing:1"), "127.0.0.1:1/missing")],
    ids=["command", "image"],
)
def test_a_failing_update_rolls_itself_back(cluster: Cluster, change: tuple[str, ...], word: str) -> None:
    create(cluster, "web", "--replicas", "3", "--update-delay", "2s", "--update-failure-action", "rollback")
    before = {task.id for task in cluster.wait_running("web", 3)}
    result = cluster.run_cli("service", "update", "--no-resolve-image", *change, "web")
    assert result.returncode == 1, result.stdout + result.stderr
    assert "rolled back" in result.stderr
    assert word in result.stderr
    tasks = cluster.wait_running("web", 3)
    assert all(args(task) == tuple(SLEEPER) for task in tasks)
    assert before & {task.id for task in tasks}, "the update went on after its failure"
    assert update_state(cluster, "web") == "rollback_completed"
    shown = cluster.cli("service", "inspect", "--pretty", "web")
    assert "UpdateStatus" in shown
    assert "rollback_completed" in shown
    assert "rollback completed" in shown


def test_a_failing_update_pauses_and_the_next_one_goes_on(cluster: Cluster) -> None:
    create(cluster, "web", "--replicas", "2", "--update-delay", "2s")
    result = cluster.run_cli("service", "update", "--args", BROKEN, "web")
    assert result.returncode == 1
    assert "paused" in result.stderr
    assert "cannot start" in result.stderr, "the failing task's last words"
    assert update_state(cluster, "web") == "paused"
    alive = [task for task in cluster.running("web") if args(task) == tuple(SLEEPER)]
    assert len(alive) == 1, "a paused update leaves the other task alone"
    fixed = ("--args", "sleep 1000000", "--stop-signal", "KILL", "--update-delay", "0s")
    cluster.cli("service", "update", *fixed, "web")
    assert {args(task) for task in cluster.wait_running("web", 2)} == {("sleep", "1000000")}
    assert update_state(cluster, "web") == "completed"


def test_a_service_is_rolled_back_by_hand(cluster: Cluster) -> None:
    create(cluster, "web", "--replicas", "2", "--env", "VERSION=1")
    cluster.cli("service", "update", "--env-add", "VERSION=2", "web")
    assert {task.spec.container.env for task in cluster.wait_running("web", 2)} == {("VERSION=2",)}
    cluster.cli("service", "rollback", "web")
    assert {task.spec.container.env for task in cluster.wait_running("web", 2)} == {("VERSION=1",)}
    assert update_state(cluster, "web") == "rollback_completed"


def test_scaling_during_an_update(cluster: Cluster) -> None:
    create(cluster, "web", "--replicas", "3", "--update-delay", "300ms")
    cluster.cli("service", "update", "--detach", "--env-add", "VERSION=2", "web")
    until(lambda: [t for t in cluster.running("web") if t.spec.container.env], "the update has begun")
    cluster.cli("service", "scale", "--detach", "web=5")
    until(
        lambda: [t.spec.container.env for t in cluster.running("web")] == [("VERSION=2",)] * 5,
        "all five have the new version",
    )
    tasks = cluster.wait_running("web", 5)
    assert [task.slot for task in tasks] == [1, 2, 3, 4, 5]
    assert update_state(cluster, "web") in ("completed", "updating", "")


class Visitor(threading.Thread):
    """Asks for a page again and again, each time over a new connection."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._over = threading.Event()
        self.answers: list[str] = []
        self.failures: list[str] = []

    def ask(self) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
        try:
            connection.request("GET", "/")
            return connection.getresponse().read().decode().strip()
        finally:
            connection.close()

    def run(self) -> None:
        while not self._over.wait(0.01):
            try:
                self.answers.append(self.ask())
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))

    def end(self) -> None:
        self._over.set()
        self.join(10)


SERVER = 'echo $VERSION > /www/index.html; trap "sleep 1; exit 0" TERM; httpd -f -p 80 -h /www & wait'
"""A web server that, told to stop, answers for a second more."""


def test_a_start_first_update_fails_no_request(cluster: Cluster) -> None:
    port = 24000 + os.getpid() % 1000
    create(
        cluster,
        "web",
        *("--replicas", "2", "--publish", f"{port}:80", "--update-order", "start-first"),
        *("--env", "VERSION=1", "--health-cmd", "wget -qO- http://127.0.0.1/", "--health-interval", "200ms"),
        command=("sh", "-c", SERVER),
    )
    visitor = Visitor(port)

    def answers() -> bool:
        try:
            return visitor.ask() == "1"
        except (OSError, http.client.HTTPException):
            return False

    until(answers, "the service answers")
    visitor.start()
    try:
        cluster.cli("service", "update", "--env-add", "VERSION=2", "web")
        until(lambda: visitor.answers[-5:] == ["2"] * 5, "the new version answers")
    finally:
        visitor.end()
    assert visitor.failures == []
    assert set(visitor.answers) == {"1", "2"}


# ---------------------------------------------------------------------------------------- dependencies, configs

DEPENDING = """
services:
  web:
    image: busybox
    command: [sh, -c, "trap 'exit 0' TERM; while :; do sleep 1000 & wait $$!; done"]
    stop_grace_period: 2s
    depends_on:
      db: {condition: service_healthy}
  db:
    image: busybox
    command: [sh, -c, "trap 'exit 0' TERM; sleep 3; touch /tmp/ready; while :; do sleep 1000 & wait $$!; done"]
    stop_grace_period: 2s
    healthcheck: {test: [CMD, test, -e, /tmp/ready], interval: 200ms, start_period: 20s, start_interval: 200ms}
    deploy: {restart_policy: {delay: 200ms}}
"""


def test_a_dependency_is_healthy_before_its_dependent_starts(cluster: Cluster, tmp_path: Path) -> None:
    deploy(cluster, tmp_path, "shop", DEPENDING, "--detach")
    waiting = until(
        lambda: [t for t in cluster.tasks("shop_web") if t.waiting_for],
        "the dependent says what it waits for",
    )
    assert waiting[0].waiting_for == "waiting for shop_db (healthy)"
    assert "shop_db (healthy)" in cluster.cli("service", "ps", "--no-trunc", "shop_web")
    (web,) = cluster.wait_running("shop_web", 1)
    (db,) = cluster.wait_running("shop_db", 1)
    assert db.status.health == "healthy"
    assert web.status.started_at > db.status.running_since > db.status.started_at + 2.9
    os.kill(cluster.containers()[db.id], signal.SIGKILL)
    until(lambda: [t for t in cluster.running("shop_db") if t.id != db.id], "the dependency comes back")
    assert [task.id for task in cluster.running("shop_web")] == [web.id], "its dependent runs on"


CONFIGURED = """
services:
  web:
    image: busybox
    command: [sh, -c, "cat /settings; trap 'exit 0' TERM; while :; do sleep 1000 & wait $$!; done"]
    stop_grace_period: 2s
    configs: [{source: settings, target: /settings}]
    deploy: {update_config: {monitor: 500ms}}
configs:
  settings: {file: ./settings.txt}
"""


def test_a_changed_config_rolls_its_service(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "settings.txt").write_text("colour: red\n")
    deploy(cluster, tmp_path, "paint", CONFIGURED)
    (first,) = cluster.wait_running("paint_web", 1)
    (old,) = _configs(cluster)
    deploy(cluster, tmp_path, "paint", CONFIGURED)
    assert [task.id for task in cluster.wait_running("paint_web", 1)] == [first.id], "nothing changed"
    (tmp_path / "settings.txt").write_text("colour: blue\n")
    deploy(cluster, tmp_path, "paint", CONFIGURED)
    (second,) = cluster.wait_running("paint_web", 1)
    assert second.id != first.id
    assert "colour: blue" in cluster.cli("service", "logs", "paint_web")
    cluster.cli("service", "update", "--force", "paint_web")  # what can be rolled back to has the new one now
    until(lambda: len(_configs(cluster)) == 1, "the version that nothing uses is collected")
    assert _configs(cluster)[0].id != old.id


def _configs(cluster: Cluster) -> list[Config]:
    return list(cluster.ask(lambda client: client.configs()))  # type: ignore[call-overload]


# ---------------------------------------------------------------------------------------- jobs


def test_a_job_runs_its_tasks_and_ends(cluster: Cluster) -> None:
    cluster.cli(
        "service",
        "create",
        *("--name", "job", "--mode", "replicated-job", "--replicas", "4", "--max-concurrent", "2"),
        *("busybox", "sh", "-c", "sleep 0.5; echo done"),
    )
    done = ended(cluster, "job", TaskState.COMPLETE)
    assert len(done) == 4
    assert {task.status.exit_code for task in done} == {0}
    moments = sorted(
        [(task.status.started_at, 1) for task in done] + [(task.status.finished_at, -1) for task in done]
    )
    at_once = most = 0
    for _, step in moments:
        at_once += step
        most = max(most, at_once)
    assert most == 2, "two at a time, and no more"
    assert cluster.cli("service", "logs", "job").count("done") == 4


CRON = """
services:
  tick:
    image: busybox
    command: [sh, -c, "echo tick"]
    deploy: {mode: replicated-job}
    x-pyswarm: {schedule: {schedule: "@every 2s", history: 2}}
"""


def test_a_cron_job_runs_by_the_clock(cluster: Cluster, tmp_path: Path) -> None:
    deploy(cluster, tmp_path, "clock", CRON, "--detach")
    until(lambda: _iteration(cluster) >= 3, "the job has run three times")
    until(lambda: len(_iterations(cluster)) <= 3, "the oldest run is forgotten")
    starts = sorted(task.status.started_at for task in ended(cluster, "clock_tick", TaskState.COMPLETE))
    gaps = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert gaps
    assert all(1.0 < gap < 5.0 for gap in gaps), gaps


def _iteration(cluster: Cluster) -> int:
    """The newest iteration that has completed."""
    return max((t.job_iteration or 0 for t in ended(cluster, "clock_tick", TaskState.COMPLETE)), default=0)


def _iterations(cluster: Cluster) -> set[int]:
    return {task.job_iteration or 0 for task in cluster.tasks("clock_tick")}


# ---------------------------------------------------------------------------------------- crashes


def test_a_crash_loop_backs_off_and_says_so(cluster: Cluster) -> None:
    create(
        cluster,
        "crash",
        *("--detach", "--restart-delay", "300ms"),
        command=("sh", "-c", "echo no luck; exit 1"),
    )
    until(lambda: len(ended(cluster, "crash", TaskState.FAILED)) >= 4, "it has crashed four times")
    failed = sorted(ended(cluster, "crash", TaskState.FAILED), key=lambda task: task.status.started_at)
    waits = [
        later.status.started_at - earlier.status.finished_at for earlier, later in itertools.pairwise(failed)
    ]
    for number, wait in enumerate(waits[:3]):
        assert wait >= 0.3 * 2**number, waits
    held = re.compile(r"restarts in \d+ s, after \d crashes in a row")

    def said() -> str:
        shown = cluster.cli("service", "ps", "--no-trunc", "crash")
        return shown if held.search(shown) else ""

    shown = until(said, "ps says that the task is held back")
    assert shown.count("Failed") >= 4
    assert "non-zero exit (1)" in shown


def test_max_attempts_end_a_crash_loop(cluster: Cluster) -> None:
    create(
        cluster,
        "tries",
        *("--detach", "--restart-delay", "100ms", "--restart-max-attempts", "2"),
        command=("sh", "-c", "exit 1"),
    )
    until(lambda: len(ended(cluster, "tries", TaskState.FAILED)) == 3, "one start and two restarts")
    time.sleep(1.0)  # nothing may happen: there is no event to wait for
    tasks = cluster.tasks("tries")
    assert [task.status.state for task in tasks] == [TaskState.FAILED] * 3
    assert "0/1" in cluster.cli("service", "ls")


# ---------------------------------------------------------------------------------------- nodes


def test_a_global_service_leaves_a_drained_node_and_returns(cluster: Cluster) -> None:
    create(cluster, "every", "--mode", "global")
    create(cluster, "some", "--replicas", "2")
    (first,) = cluster.wait_running("every", 1)
    node = cluster.config.node_id
    cluster.cli("node", "update", "--availability", "drain", node)
    try:
        until(lambda: not cluster.containers(), "the node is empty")
        pending = until(
            lambda: [t for t in cluster.tasks("some") if t.status.state == TaskState.PENDING],
            "the replicas wait for a node",
        )
        assert "no suitable node" in (pending[0].status.err or pending[0].status.message)
        assert "drain" in cluster.cli("service", "ps", "--no-trunc", "some").lower()
    finally:
        cluster.cli("node", "update", "--availability", "active", node)
    (second,) = cluster.wait_running("every", 1)
    assert second.id != first.id
    cluster.wait_running("some", 2)
