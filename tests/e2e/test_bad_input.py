"""Bad input by the real command line: a clear error, exit code 1 (2 for usage), and nothing changed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyswarm import daemon, daemons
from pyswarm.objects import KINDS, TaskState
from pyswarm.specs import ContainerSpec, ServiceMode, ServiceSpec, TaskSpec
from tests.e2e.cluster import SLEEPER, Cluster, until

pytestmark = [pytest.mark.e2e, pytest.mark.root]

SLEEP = "command: [sleep, '1000']"


def everything(cluster: Cluster) -> dict[str, list[str]]:
    """All objects of all kinds, by id and version."""
    found: dict[str, list[str]] = {}
    for kind in sorted(set(KINDS) - {"cluster"}):
        answer = cluster.ask(lambda client, kind=kind: client.list(kind))
        objects = getattr(answer, f"{kind}s")
        found[kind] = sorted(o.id if kind == "node" else f"{o.id} {o.meta.version}" for o in objects)
    return found


def refuse(cluster: Cluster, *arguments: str, code: int = 1, input: str = "") -> str:
    """Run a command that must fail and change nothing; its error text."""
    before = everything(cluster)
    result = cluster.run_cli(*arguments, input=input)
    text = result.stderr
    assert result.returncode == code, f"{result.returncode}\n{result.stdout}{text}"
    assert "Traceback" not in text and "a bug in pyswarm" not in text, text
    assert everything(cluster) == before
    return text


def stack(directory: Path, text: str) -> str:
    path = directory / "compose.yml"
    path.write_text(text)
    return str(path)


@pytest.fixture
def program() -> Iterator[int]:
    """A port of this machine that another program serves."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        yield server.getsockname()[1]


# ------------------------------------------------------------------------------------ the Compose file

WRONG_FILES = {
    "unknown key": (
        "services:\n  web:\n    image: busybox\n    enviroment: [A=b]\n",
        ['compose.yml:4:5: services.web: unknown key "enviroment" (did you mean "environment"?)'],
    ),
    "wrong type": (
        "services:\n  web:\n    image: busybox\n    ports: {a: b}\n    deploy: {replicas: many}\n",
        [
            "compose.yml:4:12: services.web.ports: must be a list",
            'compose.yml:5:24: services.web.deploy.replicas: "many" is not a whole number',
        ],
    ),
    "cycle": (
        "services:\n  a: {image: busybox, depends_on: [b]}\n  b: {image: busybox, depends_on: [a]}\n",
        ["depends_on: services wait for each other: a -> b -> a"],
    ),
    "undefined": (
        'services:\n  a: {image: busybox, networks: [x], volumes: ["data:/d"], secrets: [s]}\n',
        ['network "x" is not defined', 'volume "data" is not defined', 'secret "s" is not defined'],
    ),
    "secret without its file": (
        "services:\n  a: {image: busybox, secrets: [s]}\nsecrets:\n  s: {file: ./none.txt}\n",
        ["none.txt"],
    ),
    "not YAML": ("services: [\n", ["compose.yml:"]),
    "missing variable": (
        "services:\n  a: {image: 'x:${PYSWARM_NO_SUCH:?say which}'}\n",
        ["say which"],
    ),
    "overlapping subnets": (
        "services:\n  a: {image: busybox, networks: [n, m]}\nnetworks:\n"
        "  n: {ipam: {config: [{subnet: 10.77.0.0/16}]}}\n  m: {ipam: {config: [{subnet: 10.77.3.0/24}]}}\n",
        ["overlaps 10.77.", "choose another"],
    ),
    "external that is not there": (
        "services:\n  a: {image: busybox, networks: [x]}\nnetworks:\n  x: {external: true}\n",
        ["network x not found"],
    ),
}


@pytest.mark.parametrize("name", sorted(WRONG_FILES))
def test_a_wrong_file_changes_nothing(shared: Cluster, tmp_path: Path, name: str) -> None:
    text, says = WRONG_FILES[name]
    error = refuse(shared, "stack", "deploy", "-c", stack(tmp_path, text), "bad")
    assert error.splitlines()[-1] or error
    for words in says:
        assert words in error


def test_a_file_that_is_not_there(shared: Cluster, tmp_path: Path) -> None:
    error = refuse(shared, "stack", "deploy", "-c", str(tmp_path / "none.yml"), "bad")
    assert "none.yml" in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("service", "create"), "Missing argument 'IMAGE'"),
        (("service", "ls", "--nonsense"), "No such option '--nonsense'"),
        (("servce", "ls"), "Did you mean 'service'?"),
        (("service", "scale"), "Missing argument"),
    ],
)
def test_usage(shared: Cluster, arguments: tuple[str, ...], says: str) -> None:
    assert says in refuse(shared, *arguments, code=2)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("service", "scale", "nobody=3"), "nobody"),
        (("service", "rm", "nobody"), "nobody"),
        (("network", "create", "--subnet", "nonsense", "n"), "invalid subnet nonsense"),
        (("network", "create", "--subnet", "10.0.0.0/16", "n"), "overlaps 10.0.0.0/"),
        (("network", "rm", "ingress"), "built in and cannot be removed"),
        (("service", "create", "--network", "nowhere", "busybox"), "network nowhere not found"),
        (("service", "create", "--secret", "nothing", "busybox"), "nothing"),
        (("service", "create", "--publish", "99999:80", "busybox"), "99999"),
        (("service", "create", "--name", "a b", "busybox"), "a b"),
        (("init",), "this node is already part of a swarm"),
    ],
)
def test_a_wrong_request_changes_nothing(shared: Cluster, arguments: tuple[str, ...], says: str) -> None:
    error = refuse(shared, *arguments)
    assert says in error
    assert len(error.strip().splitlines()) == 1, error


# ------------------------------------------------------------------------------------ found out on the way


def test_an_image_that_does_not_exist(shared: Cluster, tmp_path: Path) -> None:
    """The task is rejected with the registry's reason, and the deploy says it when its time is over."""
    file = stack(tmp_path, "services:\n  a: {image: 'localhost:1/no/such:1'}\n")
    try:
        result = shared.run_cli("stack", "deploy", "--timeout", "15s", "-c", file, "bad")
        assert result.returncode == 1
        assert "cannot pull image localhost:1/no/such:1" in result.stderr
        assert "connection refused" in result.stderr
        listed = shared.cli("stack", "ps", "--no-trunc", "--format", "{{.CurrentState}}|{{.Error}}", "bad")
        rejected = [row for row in listed.splitlines() if row.startswith("Rejected")]
        assert rejected and all("connection refused" in row for row in rejected), listed
    finally:
        shared.cli("stack", "rm", "bad")


def test_a_port_of_another_service(shared: Cluster, tmp_path: Path, program: int) -> None:
    del program
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    shared.cli("service", "create", "-q", "--name", "first", "--publish", f"{port}:80", "busybox")
    try:
        text = f"services:\n  a: {{image: busybox, ports: ['{port}:80']}}\n"
        error = refuse(shared, "stack", "deploy", "-c", stack(tmp_path, text), "bad")
        assert f"port {port}/tcp is already published by service first" in error
        error = refuse(shared, "service", "create", "--publish", f"{port}:80", "busybox")
        assert f"port {port}/tcp is already published by service first" in error
    finally:
        shared.cli("service", "rm", "first")


def test_a_port_of_another_program(shared: Cluster, tmp_path: Path, program: int) -> None:
    """The deploy fails with the reason, and the program keeps its clients."""
    text = f"services:\n  a: {{image: busybox, {SLEEP}, ports: ['{program}:80']}}\n"
    try:
        result = shared.run_cli("stack", "deploy", "--timeout", "8s", "-c", stack(tmp_path, text), "bad")
        assert result.returncode == 1, result.stdout + result.stderr
        assert f"port {program}/tcp of this node is in use by " in result.stderr
        assert f"(pid {os.getpid()})" in result.stderr
        with socket.create_connection(("127.0.0.1", program), 5):
            pass
    finally:
        shared.cli("stack", "rm", "bad")


# ------------------------------------------------------------------------------------ the machine


def elsewhere(cluster: Cluster, directory: Path) -> dict[str, str]:
    """The environment of a node that is in no cluster."""
    return {
        **cluster.environment,
        "PYSWARM_STATE_DIR": str(directory / "state"),
        "PYSWARM_RUN_DIR": str(directory / "run"),
        "PYSWARM_CONFIG": str(directory / "config"),
        "HOME": str(directory),
    }


def run(environment: dict[str, str], *arguments: str, nobody: bool = False) -> tuple[int, str]:
    drop = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if nobody else []
    python = sys.executable
    result = subprocess.run(
        [*drop, python, "-m", "pyswarm.cli.main", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd="/",
    )
    return result.returncode, result.stderr


def test_no_cluster(shared: Cluster, tmp_path: Path) -> None:
    code, error = run(elsewhere(shared, tmp_path), "service", "ls")
    assert code == 1
    assert "is this node in a cluster? Start one with `pyswarm init`" in error
    code, error = run(elsewhere(shared, tmp_path), "leave", "--force")
    assert code == 1
    assert "this node is not part of a cluster" in error
    assert list(tmp_path.iterdir()) == []


def test_no_root(shared: Cluster, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    code, error = run(elsewhere(shared, tmp_path), "init", nobody=True)
    assert (code, len(error.strip().splitlines())) == (1, 1)
    assert "this needs root" in error and "sudo" in error
    assert list(tmp_path.iterdir()) == []
    local = {**shared.environment, "HOME": "/nonexistent"}
    code, error = run(local, "service", "ls", nobody=True)
    assert (code, len(error.strip().splitlines())) == (1, 1)
    assert "permission denied" in error and "group pyswarm" in error


@pytest.mark.parametrize(
    ("program", "package"), [("etcd", "etcd-server"), ("buildah", "buildah"), ("runc", "runc")]
)
def test_a_missing_program(shared: Cluster, tmp_path: Path, program: str, package: str) -> None:
    """A PATH with everything but one program."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    for name in daemon.PROGRAMS:
        found = shutil.which(name)
        if found and name != program:
            (binaries / name).symlink_to(found)
    code, error = run({**elsewhere(shared, tmp_path), "PATH": str(binaries)}, "init")
    assert code == 1
    assert f"not installed: {program}. Install with: apt-get install {package}" in error
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--default-addr-pool", "10.0.0.0/33"), "10.0.0.0/33"),
        (
            ("--default-addr-pool", "10.0.0.0/16", "--default-addr-pool", "10.0.1.0/24"),
            "overlaps 10.0.0.0/16",
        ),
        (("--default-addr-pool", "10.0.0.0/28"), "holds no subnet of /24"),
        (("--advertise-addr", "nothing0"), "neither an IP address nor an interface"),
        (("--listen-addr", "192.0.2.77:2377"), "192.0.2.77"),
        (("--advertise-addr", "127.0.0.1:99999"), "from 1 to 65535"),
    ],
)
def test_init_with_wrong_flags(shared: Cluster, tmp_path: Path, flags: tuple[str, ...], says: str) -> None:
    given = ("--advertise-addr", "127.0.0.1") if "--advertise-addr" not in flags else ()
    code, error = run(elsewhere(shared, tmp_path), "init", *given, *flags)
    assert code == 1, error
    assert says in error
    assert list(tmp_path.iterdir()) == []


def test_init_on_ports_that_are_taken(shared: Cluster, tmp_path: Path) -> None:
    port = shared.options.ports.api
    code, error = run(
        elsewhere(shared, tmp_path), "init", "--advertise-addr", "127.0.0.1", "--api-port", str(port)
    )
    assert code == 1
    assert f"port {port} is in use by another program" in error.replace("2377, ", "")
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------ damaged files


def with_two(cluster: Cluster) -> None:
    container = ContainerSpec(image="busybox", args=tuple(SLEEPER))
    spec = ServiceSpec(name="web", task=TaskSpec(container=container), mode=ServiceMode(replicas=2))
    cluster.ask(lambda client: client.create(spec))
    cluster.wait_running("web", 2)


def test_a_damaged_node_file(own: Cluster) -> None:
    """Nothing that runs is disturbed; every command that needs the file names it and the way out, and that works."""
    with_two(own)
    path = own.state / "node.json"
    path.write_text(path.read_text()[:40])
    assert own.cli("service", "ls", "-q"), "the manager goes on"
    result = own.run_cli("leave")
    assert result.returncode == 1
    assert "node.json is damaged" in result.stderr and "pyswarm leave --force" in result.stderr
    assert len(own.containers()) == 2
    own.cli("leave", "--force", "--purge")
    assert own.containers() == {} and own.conmons() == {}
    assert not own.state.exists()


def test_damaged_records_of_the_agent(own: Cluster) -> None:
    """The managers know better anyhow: afterwards just what is desired runs, and once."""
    with_two(own)
    config = own.config
    daemons.stop(config)
    records = [path for path in (own.state / "agent" / "tasks").glob("*/*") if path.is_file()]
    assert records, "no records: the test shows nothing"
    for number, path in enumerate(sorted(records)):
        path.write_bytes(b"" if number % 2 else os.urandom(64))
    daemons.start(config)
    until(lambda: own.run_cli("service", "ls").returncode == 0, "the manager answers")
    tasks = own.wait_running("web", 2)
    until(lambda: sorted(own.containers()) == sorted(t.id for t in tasks), "just the desired containers run")
    assert all(t.status.state == TaskState.RUNNING for t in tasks)


def test_damaged_data_of_etcd(own: Cluster) -> None:
    """Containers go on; commands say what is damaged and how to get out of it."""
    with_two(own)
    config = own.config
    daemons.stop(config)
    data = own.state / "etcd" / "data"
    for path in [*data.rglob("*.wal"), *data.rglob("db")]:
        with path.open("r+b") as file:
            file.write(os.urandom(16384))
    daemons.start(config)

    def told() -> str:
        result = own.run_cli("service", "ls")
        return result.stderr if result.returncode == 1 and "is damaged" in result.stderr else ""

    error = until(told, "the command line says what is wrong")
    assert len(error.strip().splitlines()) == 1
    assert f"etcd's data in {own.state}/etcd is damaged" in error
    assert "restore" in error
    assert len(own.containers()) == 2
