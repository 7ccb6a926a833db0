"""The command line in front of a real manager (store in memory, agents played)."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pyswarm import engine, nodeconfig
from pyswarm.api import LogMessage
from pyswarm.cli import contexts, credentials, rows
from pyswarm.cli.execute import Keys
from pyswarm.cli.main import run
from pyswarm.cli.service import service
from pyswarm.cli.service_flags import apply
from pyswarm.errors import Conflict, Invalid, NotFound
from pyswarm.nodeconfig import NodeConfig
from pyswarm.objects import Cluster, Node, Service, Task, TaskState, TaskStatus
from pyswarm.specs import ServiceSpec
from tests.unit import docker_engine
from tests.unit.cli_manager import CliManager


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No configuration of the person who runs the tests is read or written."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("PYSWARM_CONFIG", str(tmp_path / "pyswarm"))
    for name in ("PYSWARM_CONTEXT", "PYSWARM_HOST"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def swarm(home: Path) -> Iterator[CliManager]:
    place = home / "run"
    place.mkdir()
    nodes = [each for each in docker_engine.world(0.0) if isinstance(each, Node)]
    objects = [Cluster(id="c" * 25), *nodes]
    with CliManager(place, live=True, node_id=docker_engine.NODE1, objects=objects) as manager:
        yield manager


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_help_imports_nothing_heavy() -> None:
    code = """
import sys
from pyswarm.cli.main import run
assert run(["--help"]) == 0
heavy = {"grpc", "google", "pydantic", "yaml", "rich", "networkx", "asyncio", "cryptography", "compose", "manager"}
print("loaded:", sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
"""
    output = _python(code)
    assert output.endswith("loaded: []\n")
    assert "Management Commands:" in output


def test_every_command_has_help() -> None:
    from pyswarm.cli.main import cli

    def walk(command: Any, path: list[str]) -> Iterator[list[str]]:
        yield path
        if hasattr(command, "list_commands"):
            ctx = command.make_context(path[-1] if path else "pyswarm", [], resilient_parsing=True)
            for name in command.list_commands(ctx):
                found = command.get_command(ctx, name)
                assert found is not None, [*path, name]
                assert found.name is not None and found.help, [*path, name]
                yield from walk(found, [*path, name])

    paths = list(walk(cli, []))
    assert len(paths) > 90
    for path in paths:
        assert run([*path, "--help"]) == 0, path


def test_help_lists_each_command_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["service", "--help"]) == 0
    rows = [line.split()[0] for line in capsys.readouterr().out.partition("Commands:\n")[2].splitlines()]
    assert rows == ["create", "inspect", "logs", "ls", "ps", "rm", "rollback", "scale", "update"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["service", "create"], 2, "Missing argument 'IMAGE'"),
        (["service", "create", "--limit-memory", "x", "nginx"], 2, "invalid size 'x'"),
        (["service", "create", "--bogus", "nginx"], 2, "No such option"),
        (["servce", "ls"], 2, "Did you mean 'service'?"),
        (["service", "scale", "web"], 1, "invalid scale specifier 'web'"),
        (["service", "scale", "web=x"], 1, "web: invalid replicas value x"),
        (
            ["service", "create", "--mode", "global", "--replicas", "2", "nginx"],
            1,
            "replicas can only be used with",
        ),
        (["service", "create", "-p", "x", "nginx"], 1, "invalid port 'x'"),
        (
            ["service", "create", "--no-healthcheck", "--health-cmd", "x", "nginx"],
            1,
            "--no-healthcheck conflicts",
        ),
        (["service", "ls", "--filter", "name"], 1, "invalid filter 'name'"),
        (["node", "ls", "--filter", "colour=red"], 1, "invalid filter 'colour'"),
        (["service", "inspect", "nope"], 1, "Error: No such service: nope"),
        (["service", "inspect", "--pretty", "--format", "x", "nope"], 1, "--format is incompatible"),
        (["service", "logs", "nope"], 1, "Error: No such task or service: nope"),
        (["exec", "nope", "true"], 1, "Error: No such task or service: nope"),
        (["stack", "ps", "nope"], 1, "nothing found in stack: nope"),
        (["stack", "services", "nope"], 0, "Nothing found in stack: nope"),
        (["run", "-it", "--rm", "busybox"], 1, "use `pyswarm service create`, or `pyswarm compose run`"),
        (["container", "stop", "web"], 1, "use `pyswarm service scale SERVICE=0`"),
        (["kill", "nope"], 1, "No such task or service: nope"),
        (["network", "connect", "a", "b"], 1, "use `pyswarm service update --network-add`"),
        (["volume", "create", "--group", "x", "v"], 1, "--group is not supported"),
        (["image", "prune", "--filter", "x=1"], 1, "invalid filter 'x': one of label, label!, until"),
        (["stack", "deploy", "-c", "/nonexistent.yml", "x"], 1, "/nonexistent.yml"),
        (["stack", "deploy", "-c", "/nonexistent.yml", "a b"], 1, "invalid stack name"),
        (["node", "rm", "nope"], 1, "Error: No such node: nope"),
        (["node", "update", "--label-rm", "q", "alpha"], 1, "key q doesn't exist in node's labels"),
        (["network", "inspect", "nope"], 1, "Error: No such network: nope"),
        (["ps", "--filter", "status=odd"], 1, "invalid filter 'status=odd'"),
        (["context", "use", "nope"], 1, "context not found"),
        (["context", "rm", "default"], 1, "cannot be removed"),
        (["--host", "tcp://10.0.0.1:2378", "service", "ls"], 1, "needs a client certificate"),
        (["--host", "ftp://x", "service", "ls"], 1, "invalid host"),
        (["--host", "unix:///nonexistent", "service", "ls"], 1, "cannot connect to the pyswarm manager"),
        (["logs", "--tail", "some", "x"], 1, "No such task or service: x"),
    ],
)
def test_wrong_requests(swarm: CliManager, arguments: list[str], code: int, text: str) -> None:
    result = swarm(*arguments, code=code)
    assert text in result.stderr
    assert "Traceback" not in result.stderr


def test_life_of_a_service(swarm: CliManager) -> None:
    made = swarm(
        "service", "create", "-d", "--name", "web", "--replicas", "2", "nginx", "nginx", "-g", "x"
    ).stdout
    assert len(made.strip()) == 25
    assert (
        swarm("service", "ls", "--format", "{{.Name}} {{.Mode}} {{.Replicas}}").stdout
        == "web replicated 0/2\n"
    )
    assert swarm("service", "scale", "-d", "web=3").stdout == "web scaled to 3\n"
    assert (
        swarm("service", "update", "--detach=true", "--env-add", "A=1", "--image", "nginx:2", "web").stdout
        == "web\n"
    )
    found: Service = swarm.objects(lambda view: next(iter(view.services())))
    assert found.spec.mode.replicas == 3
    assert found.spec.task.container.env == ("A=1",)
    assert found.spec.task.container.image == "nginx:2"
    assert found.spec.task.container.args == ("nginx", "-g", "x")
    assert swarm("service", "rollback", "-d", "web").stdout == "web\n"
    assert swarm("service", "ps", "-q", "web").stdout.count("\n") >= 3
    both = swarm("service", "inspect", "web", "nope", "--format", "{{.Spec.Name}}", code=1)
    assert (both.stdout, both.stderr) == ("web\n", "Error: No such service: nope\n")
    assert swarm("service", "rm", "web", "nope", code=1).stdout == "web\n"
    assert swarm.objects(lambda view: next(iter(view.services())).pending_delete)


def test_create_waits_until_it_converged(swarm: CliManager) -> None:
    """The agents are played: this test is the one that lets the tasks run."""

    def agent() -> None:
        for _ in range(2000):
            tasks: list[Task] = swarm.objects(lambda view: list(view.tasks()))
            for task in tasks:
                if task.status.state < TaskState.RUNNING and task.node_id:
                    swarm.report(task, TaskStatus(state=TaskState.RUNNING, timestamp=1.0, running_since=1.0))
            if len(tasks) == 2 and all(task.status.state == TaskState.RUNNING for task in tasks):
                return
            stop.wait(0.005)

    stop = threading.Event()
    thread = threading.Thread(target=agent)
    thread.start()
    result = swarm("service", "create", "--name", "web", "--replicas", "2", "--update-monitor", "0s", "nginx")
    stop.set()
    thread.join()
    assert "web: 2/2 running\nverify: Service web converged\n" in result.stderr


def test_a_timeout_tells_why_and_shows_the_log(swarm: CliManager) -> None:
    swarm.played.logs = [LogMessage(data=b"starting\ncannot find the database\n")]
    swarm("service", "create", "-d", "--name", "web", "--restart-condition", "none", "nginx")
    task: Task = swarm.wait_for(lambda view: next((t for t in view.tasks() if t.node_id), None))
    swarm.report(
        task, TaskStatus(state=TaskState.FAILED, timestamp=2.0, err="task: non-zero exit (3)", exit_code=3)
    )
    result = swarm("service", "update", "--timeout", "20s", "--label-add", "a=b", "web", code=1)
    assert "Error: service web: web.1: task: non-zero exit (3)" in result.stderr
    assert "    cannot find the database\n" in result.stderr
    result = swarm(
        "service",
        "create",
        "--timeout",
        "0s",
        "--name",
        "slow",
        "--constraint",
        "node.hostname==x",
        "nginx",
        code=1,
    )
    assert "service slow not converged after 0 s" in result.stderr or "not converged" in result.stderr


def test_nodes(swarm: CliManager) -> None:
    swarm(
        "node", "update", "--availability", "drain", "--label-add", "rack=9", "--label-rm", "disk", "beta10"
    )
    shown = json.loads(swarm("node", "inspect", "beta10").stdout)[0]
    assert shown["Spec"] == {"Labels": {"rack": "9", "zone": "a"}, "Role": "worker", "Availability": "drain"}
    assert swarm("node", "ls", "--filter", "role=worker", "--format", "{{.Hostname}}").stdout == "beta10\n"
    assert "is already a manager" in swarm("node", "promote", "alpha").stdout
    assert swarm("node", "inspect", "self", "--format", "{{.Description.Hostname}}").stdout == "alpha\n"


def test_networks_secrets_and_configs(swarm: CliManager, tmp_path: Path) -> None:
    swarm(
        "network",
        "create",
        "--subnet",
        "10.9.0.0/24",
        "--label",
        "a=b",
        "--attachable",
        "--ipv6=false",
        "front",
    )
    shown = json.loads(swarm("network", "inspect", "front").stdout)[0]
    assert (shown["Driver"], shown["Attachable"], shown["Labels"]) == ("overlay", True, {"a": "b"})
    assert shown["IPAM"]["Config"][0]["Subnet"] == "10.9.0.0/24"
    assert json.loads(swarm("network", "inspect", "-v", "front").stdout)[0]["Services"] == {}
    assert "already" in swarm("network", "create", "front", code=1).stderr

    swarm("secret", "create", "-l", "k=v", "password", "-", input="s3cret")
    assert "s3cret" not in swarm("secret", "inspect", "password").stdout
    assert swarm("secret", "ls", "--format", "{{.Name}} {{.Labels}}").stdout == "password k=v\n"

    file = tmp_path / "settings"
    file.write_bytes(b"a = 1\n\xff")
    swarm("config", "create", "settings", str(file))
    shown = json.loads(swarm("config", "inspect", "settings").stdout)[0]
    assert base64.b64decode(shown["Spec"]["Data"]) == b"a = 1\n\xff"
    assert "a = 1" in swarm("config", "inspect", "--pretty", "settings").stdout
    assert "nonexistent" in swarm("config", "create", "x", "/nonexistent", code=1).stderr

    swarm("service", "create", "-d", "--name", "web", "--network", "front", "--secret", "password", "nginx")
    assert "Error:" in swarm("secret", "rm", "password", code=1).stderr
    swarm("service", "update", "-d", "--secret-rm", "password", "--network-rm", "front", "web")
    found: Service = swarm.objects(lambda view: next(iter(view.services())))
    assert (found.spec.task.container.secrets, found.spec.task.networks) == ((), ())
    swarm("service", "rm", "web")
    assert swarm("secret", "rm", "password").stdout == "password\n"
    assert swarm("config", "rm", "settings").stdout == "settings\n"
    swarm("network", "create", "spare")
    assert swarm("network", "prune", "-f").stdout == "Deleted Networks:\nspare\n\n"
    assert swarm("network", "rm", "-f", "gone").stdout == "gone\n"


def test_volumes(swarm: CliManager) -> None:
    assert swarm("volume", "create", "--label", "a=b", "data").stdout == "data\n"
    assert swarm("volume", "ls").stdout == "DRIVER    VOLUME NAME\nlocal     data\n"
    shown = json.loads(swarm("volume", "inspect", "data").stdout)[0]
    assert shown["Mountpoint"] == "/var/lib/pyswarm/agent/volumes/data/_data"
    swarm.played.answers["volume.rm"] = {}
    assert swarm("volume", "rm", "data").stdout == "data\n"
    assert swarm.played.asked == [("volume.rm", {"name": "data", "force": True})]
    swarm("volume", "create", "old")
    swarm.played.answers["volume.prune"] = {"deleted": ["old", "anonymous"], "reclaimed": 2_000_000}
    assert (
        swarm("volume", "prune", "-af").stdout
        == "Deleted Volumes:\nold\nanonymous\n\nTotal reclaimed space: 2MB\n"
    )
    assert swarm("volume", "prune", input="n\n").stdout.startswith("WARNING!")


COMPOSE = """
services:
  web:
    image: nginx
    networks: [front]
    secrets: [password]
networks: {front: {}}
secrets: {password: {file: ./password}}
"""


def test_life_of_a_stack(swarm: CliManager, tmp_path: Path) -> None:
    file = tmp_path / "compose.yml"
    file.write_text(COMPOSE)
    (tmp_path / "password").write_text("x")
    planned = swarm("stack", "plan", "-c", str(file), "--detailed-exitcode", "shop", code=3).stdout
    assert "shop_web" in planned and "3 to create" in planned
    assert swarm("stack", "deploy", "--dry-run", "-c", str(file), "shop").stdout == planned
    assert swarm.objects(lambda view: list(view.services())) == []
    first = swarm("stack", "deploy", "-d", "-c", str(file), "shop").stdout
    assert first.splitlines() == [
        "Creating network shop_front",
        "Creating secret shop_password",
        "Creating service shop_web",
    ]
    assert swarm("stack", "deploy", "-d", "-c", str(file), "shop").stdout == "Stack shop is up to date\n"
    assert "nothing to do" in swarm("stack", "plan", "-c", str(file), "shop").stdout
    assert swarm("stack", "ls").stdout == "NAME      SERVICES\nshop      1\n"
    assert swarm("stack", "services", "shop", "--format", "{{.Name}}").stdout == "shop_web\n"
    assert swarm("stack", "ps", "shop", "--format", "{{.Name}}").stdout == "shop_web.1\n"
    assert "image: nginx" in swarm("stack", "config", "-c", str(file)).stdout
    piped = swarm("stack", "deploy", "-d", "-c", "-", "shop2", input="services: {a: {image: b}}")
    assert "Creating service shop2_a" in piped.stdout
    assert swarm("stack", "rm", "-d", "shop2", "none").stderr == "Nothing found in stack: none\n"


def test_a_bad_compose_file_changes_nothing(swarm: CliManager, tmp_path: Path) -> None:
    file = tmp_path / "compose.yml"
    file.write_text("services:\n  web: {imaje: x, ports: ['x']}\n  api: {image: a, networks: [none]}\n")
    result = swarm("stack", "deploy", "-c", str(file), "shop", code=1)
    assert result.stderr.count("compose.yml:") >= 3
    assert 'did you mean "image"?' in result.stderr
    assert swarm.objects(lambda view: list(view.services())) == []


def test_a_stack_builds_its_images(swarm: CliManager, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "Dockerfile").write_text("FROM scratch\n")
    (project / "app.py").write_text("pass")
    file = project / "compose.yml"
    file.write_text("services: {web: {build: {context: ., args: {A: b}}}}")
    swarm.played.answers["image.build"] = {"id": "sha256:1"}
    swarm("stack", "deploy", "-d", "-c", str(file), "shop")
    verb, args = swarm.played.asked[0]
    assert (verb, args["tags"], args["args"], args["context"]) == (
        "image.build",
        ["shop-web:latest"],
        {"A": "b"},
        "-",
    )
    with tarfile.open(fileobj=io.BytesIO(swarm.played.received)) as tar:
        assert sorted(tar.getnames()) == ["Dockerfile", "app.py", "compose.yml"]
    swarm.played.answers["image.build"] = Invalid("RUN failed")
    failed = swarm("stack", "deploy", "-d", "-c", str(file), "other", code=1)
    assert "services.web.build: RUN failed\n  doing image.build" in failed.stderr
    assert len(swarm.objects(lambda view: list(view.services()))) == 1


def test_logs(swarm: CliManager) -> None:
    swarm("service", "create", "-d", "--name", "web", "nginx")
    common: dict[str, Any] = {
        "task_id": "t" * 25,
        "service_name": "web",
        "slot": 1,
        "node_id": docker_engine.NODE1,
    }
    swarm.played.logs = [
        LogMessage(data=b"one\n", **common),
        LogMessage(data=b"two\n", stream="stderr", **common),
        LogMessage(warning="node beta10 did not answer"),
    ]
    result = swarm("service", "logs", "web")
    assert result.stdout == "web.1.tttttttttttt@alpha    | one\n"
    assert result.stderr == "web.1.tttttttttttt@alpha    | two\nwarning: node beta10 did not answer\n"
    assert swarm("logs", "--raw", "web").stdout == "one\n"
    assert swarm("logs", "--tail", "1", "web").stdout == ""
    assert "write a number or all" in swarm("logs", "--tail", "x", "web", code=1).stderr


def test_exec(swarm: CliManager) -> None:
    swarm("service", "create", "-d", "--name", "web", "nginx")
    assert "has no running task" in swarm("exec", "web", "true", code=1).stderr
    task: Task = swarm.wait_for(lambda view: next((t for t in view.tasks() if t.node_id), None))
    assert "is not running" in swarm("exec", "web.1", "true", code=1).stderr
    swarm.report(task, TaskStatus(state=TaskState.RUNNING, timestamp=1.0))
    swarm.played.exec_code = 7
    result = swarm("exec", "-e", "A=b", "-u", "me", "-w", "/w", "web", "sh", "-c", "exit 7", code=7)
    assert (result.stdout, result.stderr) == ("out\n", "err\n")
    start = swarm.played.execs[0]
    assert (start.task, start.argv, start.env, start.user) == (
        task.id,
        ("sh", "-c", "exit 7"),
        ("A=b",),
        "me",
    )
    assert "not a TTY" in swarm("exec", "-it", "web", "sh", code=1).stderr


def test_an_image_that_is_not_pinned_is_told(swarm: CliManager) -> None:
    words = "image nginx:latest could not be accessed on a registry to record\nits digest."
    assert words in swarm("service", "create", "-d", "--name", "web", "nginx").stderr
    assert "digest" not in swarm("service", "create", "-d", "--no-resolve-image", "nginx").stderr
    assert "digest" not in swarm("service", "update", "-d", "--env-add", "A=1", "web").stderr
    assert "image nginx:2 could" in swarm("service", "update", "-d", "--image", "nginx:2", "web").stderr


def test_kill_and_stats(swarm: CliManager) -> None:
    swarm("service", "create", "-d", "--name", "web", "nginx")
    task: Task = swarm.wait_for(lambda view: next((t for t in view.tasks() if t.node_id), None))
    swarm.report(task, TaskStatus(state=TaskState.RUNNING, timestamp=1.0, container_id=task.id))
    swarm.played.answers["task.kill"] = {}
    assert swarm("kill", "-s", "HUP", "web").stdout == "web\n"
    shown = swarm("stats", "--no-stream", "web", "--format", "{{.Name}} {{.MemPerc}}").stdout
    assert shown == f"{task.name} --\n"


def test_detach_keys() -> None:
    keys = Keys("ctrl-p,ctrl-q")
    assert keys.passed(b"ab\x10") == b"ab" and not keys.complete
    assert keys.passed(b"c\x10\x10") == b"\x10c\x10" and not keys.complete
    assert keys.passed(b"\x11d") == b"" and keys.complete
    assert Keys("a,@").passed(b"aa@") == b"a"
    with pytest.raises(Invalid, match="unknown key 'ctrl-1'"):
        Keys("ctrl-1")


IMAGES = [
    {
        "Id": "sha256:" + "a" * 64,
        "RepoTags": ["nginx:1", "reg:5000/x:2"],
        "RepoDigests": ["nginx@sha256:" + "d" * 64],
        "Created": 100,
        "Size": 7_800_000,
        "Labels": {"l": "1"},
        "Containers": 1,
    },
    {"Id": "sha256:" + "b" * 64, "RepoTags": [], "RepoDigests": [], "Created": 50, "Size": 5, "Labels": {}},
]


def test_images(swarm: CliManager, tmp_path: Path) -> None:
    swarm.played.answers["image.ls"] = IMAGES
    lines = swarm("image", "ls", "--format", "{{.Repository}}:{{.Tag}} {{.ID}} {{.Size}}").stdout.splitlines()
    assert lines == [
        f"nginx:1 {'a' * 12} 7.8MB",
        f"reg:5000/x:2 {'a' * 12} 7.8MB",
        f"<none>:<none> {'b' * 12} 5B",
    ]
    assert swarm("image", "ls", "-q").stdout == f"{'a' * 12}\n{'b' * 12}\n"
    assert swarm("image", "ls", "-q", "-f", "dangling=true").stdout == f"{'b' * 12}\n"
    assert swarm("image", "ls", "-q", "nginx").stdout == f"{'a' * 12}\n"
    assert "invalid filter" in swarm("image", "ls", "-f", "colour=red", code=1).stderr
    swarm.played.answers["image.pull"] = {"id": "sha256:1", "digest": "sha256:2"}
    credentials.store("reg:5000", credentials.Login(username="me", password="pw"))
    result = swarm("image", "pull", "reg:5000/x")
    assert result.stdout == "Using default tag: latest\nDigest: sha256:2\nreg:5000/x:latest\n"
    verb, args = swarm.played.asked[-1]
    assert (verb, args["reference"]) == ("image.pull", "reg:5000/x:latest")
    assert json.loads(base64.urlsafe_b64decode(args["auth"]))["username"] == "me"
    swarm.played.answers["image.pull"] = NotFound("manifest unknown")
    assert "manifest unknown" in swarm("image", "pull", "x", code=1).stderr
    swarm.played.answers["image.rm"] = [{"Untagged": "x:latest"}, {"Deleted": "sha256:1"}]
    assert swarm("image", "rm", "x").stdout == "Untagged: x:latest\nDeleted: sha256:1\n"
    swarm.played.answers["image.prune"] = {"deleted": [], "reclaimed": 0}
    assert swarm("image", "prune", "-f").stdout == "Total reclaimed space: 0B\n"
    (tmp_path / "D").write_text("FROM scratch\n")
    swarm.played.answers["image.build"] = {"id": "sha256:9"}
    assert (
        swarm("image", "build", "-t", "me", "-f", str(tmp_path / "D"), str(tmp_path)).stdout == "sha256:9\n"
    )
    assert swarm.played.asked[-1][1]["dockerfile"] == "D"
    assert "path '/nonexistent' not found" in swarm("image", "build", "/nonexistent", code=1).stderr
    swarm.played.answers["system.df"] = {
        "images": {"total": 2, "active": 1, "size": 1000, "reclaimable": 250}
    }
    df = swarm("system", "df", "--node", "alpha").stdout.splitlines()[1]
    assert df.split() == ["Images", "2", "1", "1kB", "250B", "(25%)"]


def test_containers(home: Path) -> None:
    place = home / "run"
    place.mkdir()
    now = 1_000_000.0
    objects = docker_engine.world(now)
    with CliManager(place, node_id=docker_engine.NODE1, objects=objects) as swarm:
        names = swarm("ps", "--format", "{{.Names}}").stdout.splitlines()
        assert sorted(name.rpartition(".")[0] for name in names) == ["web.1", "web.2"]
        lines = swarm("ps", "-a", "--format", "{{.State}} {{.Node}} {{.Ports}}").stdout.splitlines()
        assert sorted(lines) == ["exited alpha ", "running alpha ", "running beta10 0.0.0.0:9090->90/tcp"]
        assert swarm("ps", "-q", "--filter", "status=exited").stdout == "dddddddddddd\n"
        assert swarm("ps", "-lq").stdout.count("\n") == 1
        shown = json.loads(swarm("task", "inspect", "02" + "t" * 23).stdout)[0]
        assert shown["Status"]["ContainerStatus"]["PID"] == 0
        assert shown["NetworksAttachments"][0]["Network"]["Spec"]["Name"] == "front"


def test_info_of_a_machine_without_a_manager(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYSWARM_CONFIG", str(tmp_path / "config"))
    where = ["--state-dir", str(tmp_path), "--run-dir", str(tmp_path)]
    state = ["info", "-f", "{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}} {{.Swarm.NodeID}}"]
    assert run([*where, *state]) == 0
    assert capsys.readouterr().out == "inactive false \n"
    config = NodeConfig(
        node_id="n1",
        cluster_id="c1",
        service_manager="systemd",
        state_dir=str(tmp_path),
        run_dir=str(tmp_path),
    )
    nodeconfig.save(config)
    assert run([*where, *state]) == 0
    assert run([*where, "info"]) == 0
    assert capsys.readouterr().out.startswith(
        "active false n1\nServer Version: 0.1.0\nSwarm: active\n NodeID: n1\n"
    )
    nodeconfig.save(replace(config, role="manager"))
    assert run([*where, *state]) == 1


def test_info_and_version(swarm: CliManager) -> None:
    assert "Nodes: 2" in swarm("info").stdout
    assert json.loads(swarm("info", "--format", "json").stdout)["Swarm"]["Nodes"] == 2
    assert swarm("version", "--format", "{{.Server.Version}} {{.Client.Context}}").stdout == "1.2.3 default\n"
    result = swarm("--host", "unix:///nonexistent", "version", code=1)
    assert result.stdout.startswith("Client:") and "cannot connect" in result.stderr
    assert swarm("join-token", "-q", "worker").stdout == "SWMTKN-1-a-worker\n"
    assert (
        "pyswarm join --token SWMTKN-1-a-manager 10.0.0.1:2377"
        in swarm("swarm", "join-token", "manager").stdout
    )


# ------------------------------------------------------------------------------------------- no manager needed


def test_contexts(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part in ("ca", "cert", "key"):
        (home / part).write_text(part)
    files = [f"--{part}={home / part}" for part in ("ca", "cert", "key")]
    assert run(["context", "create", "far", "--host", "tcp://10.0.0.9:2378", *files]) == 0
    assert run(["context", "create", "far", "--host", "tcp://10.0.0.9:2378", *files]) == 1
    assert run(["context", "create", "bad", "--host", "tcp://x:1"]) == 1
    assert (home / "pyswarm" / "contexts" / "far" / "key.pem").stat().st_mode & 0o777 == 0o600
    assert run(["context", "use", "far"]) == 0
    assert contexts.current() == "far"
    assert contexts.tls_of("far").key == b"key"
    capsys.readouterr()
    assert run(["context", "ls", "-q"]) == 0
    assert capsys.readouterr().out == "default\nfar\n"
    assert run(["context", "ls", "--format", "{{.Name}} {{.Current}} {{.Endpoint}}"]) == 0
    assert "far true tcp://10.0.0.9:2378" in capsys.readouterr().out
    assert run(["context", "rm", "far"]) == 1
    assert run(["context", "rm", "-f", "far"]) == 0
    assert contexts.current() == "default"
    with pytest.raises(Invalid, match="is invalid"):
        contexts.load("../x")
    with pytest.raises(Conflict, match="already exists"):
        contexts.create(contexts.Stored(contexts.Context("default", "tcp://x"), b"", b"", b""))


def test_credentials_in_dockers_file(home: Path) -> None:
    place = home / "docker"
    place.mkdir()
    entry = base64.b64encode(b"me:p:w").decode()
    (place / "config.json").write_text(
        json.dumps({"auths": {"https://reg.example/v2/": {"auth": entry}}, "x": 1})
    )
    assert credentials.find("reg.example") == credentials.Login(username="me", password="p:w")
    assert credentials.find("other") == credentials.Login()
    assert credentials.registry_auth("other/x") == ""
    assert credentials.store("", credentials.Login(username="hub", password="s")) is False
    assert json.loads((place / "config.json").read_text())["x"] == 1
    assert (place / "config.json").stat().st_mode & 0o777 == 0o600
    decoded = json.loads(base64.urlsafe_b64decode(credentials.registry_auth("nginx")))
    assert decoded == {"username": "hub", "password": "s", "serveraddress": credentials.HUB}
    assert credentials.erase("docker.io") and not credentials.erase("docker.io")
    (place / "config.json").write_text("[")
    with pytest.raises(Invalid, match="cannot read docker's configuration"):
        credentials.find("x")


def test_credential_helpers(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "docker").mkdir()
    kept = home / "kept"
    helper = home / "docker-credential-test"
    helper.write_text(
        "#!/bin/sh\ncase $1 in\nstore) cat > " + str(kept) + ";;\nerase) rm " + str(kept) + ";;\n"
        "get) if [ -f "
        + str(kept)
        + " ]; then cat "
        + str(kept)
        + "; else echo credentials not found; exit 1; fi;;\nesac\n"
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{home}:{os.environ['PATH']}")
    (home / "docker" / "config.json").write_text(
        json.dumps({"credHelpers": {"reg": "test", "odd": "missing"}})
    )
    assert credentials.find("reg") == credentials.Login()
    assert credentials.store("reg", credentials.Login(username="me", password="pw")) is True
    assert credentials.find("reg") == credentials.Login(username="me", password="pw")
    assert "pw" not in (home / "docker" / "config.json").read_text()
    assert credentials.erase("reg") is True
    with pytest.raises(Invalid, match="docker-credential-missing"):
        credentials.find("odd")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    assert "_PYSWARM_COMPLETE" in capsys.readouterr().out


def test_names_complete(swarm: CliManager) -> None:
    swarm("service", "create", "-d", "--name", "web", "nginx")
    environment = {
        **os.environ,
        "_PYSWARM_COMPLETE": "bash_complete",
        "COMP_WORDS": "pyswarm service inspect w",
        "COMP_CWORD": "3",
        "PYSWARM_RUN_DIR": str(swarm.run_dir),
    }
    command = [sys.executable, "-c", "from pyswarm.cli.main import main; main()"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.stdout == "plain,web\n"


def test_compose_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "compose.yml"
    file.write_text("name: demo\nservices: {web: {image: nginx}, api: {build: .}}")
    assert run(["compose", "config", "-f", str(file), "--services"]) == 0
    assert capsys.readouterr().out == "api\nweb\n"
    assert run(["compose", "config", "-f", str(file), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["services"]["web"]["image"] == "nginx"
    assert run(["compose", "check", "-f", str(file)]) == 0
    assert run(["compose", "config", "-f", str(file), "--hash", "nope"]) == 1


@pytest.mark.parametrize("mode", ["replicated-job", "global-job"])
@pytest.mark.parametrize(
    ("said", "condition"), [((), "on-failure"), (("--restart-condition", "none"), "none")]
)
def test_a_job_restarts_on_failure_unless_told_otherwise(
    mode: str, said: tuple[str, ...], condition: str
) -> None:
    words = ["--mode", mode, *said, "--restart-delay", "1s", "busybox"]
    given = service.commands["create"].make_context("create", words).params
    assert apply(ServiceSpec(), given, {}).task.restart.condition == condition
    body = {"TaskTemplate": {}, "Mode": {"GlobalJob": {}}}
    assert engine.service_spec(body).task.restart.condition == "on-failure"


@pytest.mark.parametrize(
    ("crashes", "text"),
    [(0, '"restarts in 5 s"'), (1, '"restarts in 5 s"'), (4, '"restarts in 5 s, after 4 crashes in a row"')],
)
def test_ps_says_how_long_a_crash_loop_is_held_back(crashes: int, text: str) -> None:
    status = TaskStatus(state=TaskState.READY)
    held = Task(id="t", service_id="s", service_name="web", slot=1, not_before=105.0, status=status)
    held = replace(held, backoff=crashes, desired_state=TaskState.READY)
    (row,) = rows.tasks([held], {}, 100.0, full=True)
    assert row["Error"] == text
    (row,) = rows.tasks([held], {}, 106.0, full=True)
    assert not row["Error"]
