"""A cluster as objects, the Engine API over it for the real `docker` client, and what that client prints.

`python -m tests.unit.docker_engine` runs docker's client (28 or newer) over the cases below and writes what it
answers to tests/golden/docker_cli.json: review the difference. The tests hold pyswarm's own answers against that
file, so they need no docker.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socketserver
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from pyswarm import engine
from pyswarm.clock import SystemClock
from pyswarm.objects import (
    AllocatedPool,
    Config,
    Endpoint,
    JobStatus,
    ManagerStatus,
    Meta,
    Network,
    NetworkAttachment,
    Node,
    NodeDescription,
    NodeState,
    NodeStatus,
    Object,
    Secret,
    Service,
    Task,
    TaskState,
    TaskStatus,
    UpdateStatus,
    VirtualIP,
    Volume,
)
from pyswarm.specs import (
    ConfigSpec,
    ContainerSpec,
    Driver,
    EndpointSpec,
    FileReference,
    Mount,
    NetworkAttachmentSpec,
    NetworkSpec,
    NodeSpec,
    Placement,
    Platform,
    PortConfig,
    ResourceRequirements,
    Resources,
    SecretSpec,
    ServiceMode,
    ServiceSpec,
    SpreadPreference,
    TaskSpec,
    UpdateConfig,
    VolumeSpec,
)

GOLDEN = Path(__file__).parent.parent / "golden" / "docker_cli.json"
FIXED = 1_760_000_000.0
"""A moment that does not move, for times that are printed whole."""
NODE1, NODE2 = "1" * 25, "2" * 25


def _id(letter: str) -> str:
    return letter * 24 + "0"


def world(now: float) -> list[Object]:
    """Two nodes, services of each mode, tasks with a history, and one of each other noun."""
    ports = (
        PortConfig(target_port=80, published_port=8080),
        PortConfig(target_port=81, published_port=8081),
        PortConfig(target_port=53, published_port=5353, protocol="udp"),
    )
    digest = "sha256:" + "ab" * 32
    web = Service(
        id=_id("w"),
        meta=Meta(version=7, created_at=FIXED, updated_at=FIXED + 3.5),
        spec=ServiceSpec(
            name="web",
            labels={"com.example.tier": "front", "b": "2"},
            task=TaskSpec(
                container=ContainerSpec(
                    image=f"nginx:alpine@{digest}",
                    args=("nginx", "-g", "daemon off;"),
                    env=("A=b", "C=d e"),
                    dir="/srv",
                    user="www",
                    init=True,
                    mounts=(
                        Mount(source="data", target="/data"),
                        Mount(type="bind", source="/etc", target="/e", read_only=True),
                    ),
                    secrets=(FileReference(source_id=_id("s"), source_name="password", target="password"),),
                    configs=(FileReference(source_id=_id("c"), source_name="settings", target="/settings"),),
                ),
                resources=ResourceRequirements(
                    limits=Resources(nano_cpus=500_000_000, memory=512 * 1024 * 1024),
                    reservations=Resources(memory=64 * 1024 * 1024),
                ),
                placement=Placement(
                    constraints=("node.role==worker",),
                    preferences=(SpreadPreference(spread_descriptor="node.labels.zone"),),
                    max_replicas=2,
                ),
                networks=(NetworkAttachmentSpec(target=_id("o")),),
            ),
            mode=ServiceMode(replicas=3),
            update=UpdateConfig(
                parallelism=2, delay=10, monitor=15, max_failure_ratio=0.25, order="start-first"
            ),
            endpoint=EndpointSpec(ports=ports),
        ),
        endpoint=Endpoint(
            spec=EndpointSpec(ports=ports),
            ports=ports,
            virtual_ips=(VirtualIP(network_id=_id("o"), addr="10.0.1.2/24"),),
        ),
        update_status=UpdateStatus(
            state="completed", started_at=now - 200, completed_at=now - 130, message="update completed"
        ),
    )
    agent = Service(
        id=_id("a"),
        meta=Meta(version=8, created_at=FIXED, updated_at=FIXED),
        spec=ServiceSpec(
            name="agent",
            labels={"com.docker.stack.namespace": "shop"},
            task=TaskSpec(container=ContainerSpec(image="registry.example:5000/team/agent")),
            mode=ServiceMode(kind="global"),
        ),
    )
    job = Service(
        id=_id("j"),
        meta=Meta(version=9, created_at=FIXED, updated_at=FIXED),
        spec=ServiceSpec(
            name="job",
            task=TaskSpec(container=ContainerSpec(image="busybox", args=("true",))),
            mode=ServiceMode(kind="replicated-job", max_concurrent=2, total_completions=5),
        ),
        job_status=JobStatus(iteration=1, last_execution=FIXED),
    )
    web10 = Service(
        id=_id("v"),
        spec=ServiceSpec(
            name="web10", task=TaskSpec(container=ContainerSpec(image="x")), mode=ServiceMode(replicas=0)
        ),
    )

    def task(
        number: int, service: Service, slot: int, node: str, state: TaskState, age: float, **more: Any
    ) -> Task:
        wanted = more.pop("desired", TaskState.RUNNING)
        iteration = service.job_status.iteration if service.job_status else None
        return Task(
            id=f"{number:02d}" + "t" * 23,
            meta=Meta(version=number, created_at=now - age - 10),
            service_id=service.id,
            service_name=service.spec.name,
            service_labels=service.spec.labels,
            slot=slot,
            node_id=node,
            spec=service.spec.task,
            status=TaskStatus(state=state, timestamp=now - age, **more),
            desired_state=wanted,
            job_iteration=iteration,
            networks=(NetworkAttachment(network_id=_id("o"), addresses=("10.0.1.5/24",)),),
        )

    tasks = [
        task(1, web, 1, NODE1, TaskState.RUNNING, 3700, container_id="f" * 64, pid=42),
        task(
            2,
            web,
            2,
            NODE2,
            TaskState.RUNNING,
            75,
            ports=(PortConfig(target_port=90, published_port=9090, publish_mode="host"),),
            container_id="e" * 64,
        ),
        task(
            3,
            web,
            2,
            NODE1,
            TaskState.FAILED,
            140,
            desired=TaskState.SHUTDOWN,
            exit_code=1,
            err="task: non-zero exit (1): and a long story about why",
            container_id="d" * 64,
        ),
        task(
            4,
            web,
            3,
            "",
            TaskState.PENDING,
            200,
            err="no suitable node (scheduling constraints not satisfied on 2 nodes)",
        ),
        task(5, agent, 0, NODE1, TaskState.RUNNING, 100_000),
        task(6, agent, 0, NODE2, TaskState.STARTING, 190),
        task(7, job, 1, NODE1, TaskState.COMPLETE, 300, desired=TaskState.COMPLETE),
        task(8, job, 2, NODE1, TaskState.RUNNING, 300, desired=TaskState.COMPLETE),
    ]
    return [
        web,
        agent,
        job,
        web10,
        *tasks,
        _node(NODE1, "alpha", leader=True),
        _node(NODE2, "beta10", leader=None),
        Network(
            id=_id("o"),
            meta=Meta(version=3, created_at=FIXED),
            spec=NetworkSpec(
                name="front",
                attachable=True,
                labels={"x": "y"},
                driver=Driver(name="overlay", options={"encrypted": ""}),
            ),
            pools=(AllocatedPool(subnet="10.0.1.0/24", gateway="10.0.1.1"),),
            vni=4097,
        ),
        Volume(id=_id("d"), meta=Meta(created_at=FIXED), spec=VolumeSpec(name="data", labels={"k": "v"})),
        Secret(
            id=_id("s"),
            meta=Meta(version=9, created_at=now - 3600 * 24 * 21, updated_at=now - 75),
            spec=SecretSpec(name="password", labels={"l": "1"}),
        ),
        Config(
            id=_id("c"),
            meta=Meta(version=10, created_at=now - 7300, updated_at=now - 3600 * 5.2),
            spec=ConfigSpec(name="settings", data=b"key = value\n"),
        ),
    ]


def _node(identifier: str, name: str, leader: bool | None) -> Node:
    manager = None
    if leader is not None:
        manager = ManagerStatus(addr="10.0.0.1:2377", leader=leader, reachability="reachable")
    return Node(
        id=identifier,
        meta=Meta(version=4, created_at=FIXED, updated_at=FIXED),
        spec=NodeSpec(labels={"zone": "a", "disk": "ssd"}, role="manager" if manager else "worker"),
        role="manager" if manager else "worker",
        description=NodeDescription(
            hostname=name,
            platform=Platform(architecture="x86_64", os="linux"),
            resources=Resources(nano_cpus=4_000_000_000, memory=8_131_563_520),
            engine_version="1.2.3",
            engine_labels={"rack": "7"},
            plugins=("Network/overlay", "Network/host", "Volume/local", "Log/json-file"),
        ),
        status=NodeStatus(state=NodeState.READY if manager else NodeState.DOWN, addr="10.0.0.1"),
        manager_status=manager,
    )


LISTS: Mapping[str, Sequence[str]] = {
    name: tuple(text.split(" ")) if "'" not in text else tuple(re.findall(r"'[^']*'|\S+", text))
    for name, text in {
        "service ls": "service ls",
        "service ls -q": "service ls -q",
        "service ls json": "service ls --format json",
        "service ls template": (
            "service ls --format '{{.Name}}: {{.Replicas}} {{upper .Mode}}{{if .Ports}} {{.Ports}}{{end}}'"
        ),
        "service ls table": "service ls --format 'table {{.Name}}\\t{{.Image}}'",
        "service ls unknown field": "service ls --format '{{.Nope}}'",
        "service ls bad template": "service ls --format '{{.Name'",
        "service ps": "service ps web",
        "service ps full": "service ps --no-trunc web",
        "service ps ids": "service ps --no-resolve web agent",
        "service ps -q": "service ps -q web",
        "service ps json": "service ps --format json web",
        "service ps several": "service ps web agent job",
        "service inspect": "service inspect web",
        "service inspect job": "service inspect job",
        "service inspect global": "service inspect agent",
        "service inspect pretty": "service inspect --pretty web",
        "service inspect field": "service inspect --format '{{.Spec.TaskTemplate.ContainerSpec.Image}}' web",
        "service inspect range": (
            "service inspect --format '{{range "
            ".Endpoint.Ports}}{{.PublishedPort}}->{{.TargetPort}}/{{.Protocol}} {{end}}' web"
        ),
        "service inspect zero field": (
            "service inspect --format '[{{.Spec.TaskTemplate.ContainerSpec.Hostname}}]' web"
        ),
        "service inspect duration": (
            "service inspect --format '{{.Spec.UpdateConfig.Delay}} {{.Spec.UpdateConfig.Monitor}}' web"
        ),
        "service inspect time": "service inspect --format '{{.CreatedAt}} {{.UpdatedAt}}' web",
        "service inspect label": (
            "service inspect --format '{{index .Spec.Labels "
            '"com.example.tier"}}/{{index .Spec.Labels "none"}}\' web'
        ),
        "service inspect json labels": "service inspect --format '{{json .Spec.Labels}}' web",
        "service inspect map": "service inspect --format '{{.Spec.Labels}}' web",
        "service inspect pointer": "service inspect --format '{{.Spec.Mode.Replicated.Replicas}}' web",
        "service inspect missing": "service inspect --format '{{.Spec.Nope}}' web",
        "service inspect with": (
            "service inspect --format '{{with .UpdateStatus}}{{.State}}{{else}}none{{end}}' web agent"
        ),
        "service inspect args": (
            "service inspect --format '{{join .Spec.TaskTemplate.ContainerSpec.Args \" \"}}' web"
        ),
        "node ls": "node ls",
        "node ls -q": "node ls -q",
        "node ls json": "node ls --format json",
        "node ls template": "node ls --format '{{.ID}} {{.Self}} {{.Hostname}} {{.Status}}'",
        "node ps": "node ps alpha",
        "node inspect": "node inspect alpha",
        "node inspect pretty": "node inspect --pretty alpha",
        "node inspect pretty worker": "node inspect --pretty beta10",
        "network ls": "network ls",
        "network ls full": "network ls --no-trunc",
        "network inspect": "network inspect front",
        "secret ls": "secret ls",
        "secret inspect": "secret inspect --format '{{.ID}} {{json .Spec}}' password",
        "config ls": "config ls",
        "config ls labels": "config ls --format '{{.Name}} [{{.Labels}}]'",
        "config inspect": "config inspect --format '{{json .Spec}}' settings",
        "volume ls": "volume ls",
        "volume ls -q": "volume ls -q",
        "volume inspect": "volume inspect data",
        "stack ls": "stack ls",
        "stack services": "stack services shop",
        "stack ps": "stack ps shop",
    }.items()
}
"""Command lines that docker and pyswarm answer alike."""

CREATES: Mapping[str, Sequence[str]] = {
    "plain": ("nginx",),
    "args": ("--name", "web", "nginx:alpine", "sh", "-c", "echo $HOME"),
    "entrypoint": ("--entrypoint", "sh -c 'a b'", "nginx"),
    "labels": ("--label", "a=b", "-l", "bare", "--container-label", "c=d=e", "nginx"),
    "env": ("-e", "A=1", "--env", "B=x y", "-e", "A=2", "nginx"),
    "placement": (
        *("--constraint", "node.labels.disk==ssd", "--constraint", "node.role!=manager"),
        *("--placement-pref", "spread=node.labels.zone", "--replicas-max-per-node", "2", "nginx"),
    ),
    "mode global": ("--mode", "global", "nginx"),
    "replicas": ("--replicas", "5", "nginx"),
    "job": ("--mode", "replicated-job", "--replicas", "6", "--max-concurrent", "2", "nginx"),
    "job defaults": ("--mode", "replicated-job", "--replicas", "3", "nginx"),
    "global job": ("--mode", "global-job", "nginx"),
    "ports short": ("-p", "8080:80", "--publish", "53:53/udp", "-p", "9000-9002:90-92", "-p", "81", "nginx"),
    "ports long": ("--publish", "published=8080,target=80,protocol=tcp,mode=host", "nginx"),
    "mounts": (
        *("--mount", "type=volume,source=data,target=/data,readonly,volume-label=a=b,volume-nocopy"),
        *("--mount", "type=bind,source=/etc,target=/e,bind-propagation=rslave"),
        *("--mount", "type=tmpfs,target=/t,tmpfs-size=64m,tmpfs-mode=1770"),
        *("--mount", "type=volume,target=/n,volume-driver=nfs,volume-opt=o=addr=1.2.3.4", "nginx"),
    ),
    "resources": (
        *("--limit-cpu", "0.5", "--limit-memory", "512m", "--limit-pids", "100"),
        *("--reserve-cpu", "0.25", "--reserve-memory", "1g", "--generic-resource", "gpu=2", "nginx"),
    ),
    "restart": (
        *("--restart-condition", "on-failure", "--restart-delay", "1m30s", "--restart-max-attempts", "3"),
        *("--restart-window", "2m", "nginx"),
    ),
    "update": (
        *("--update-parallelism", "3", "--update-delay", "10s", "--update-failure-action", "rollback"),
        *("--update-monitor", "20s", "--update-max-failure-ratio", "0.2", "--update-order", "start-first"),
        *("--rollback-parallelism", "0", "--rollback-order", "stop-first", "nginx"),
    ),
    "health": (
        *("--health-cmd", "curl -f localhost", "--health-interval", "5s", "--health-timeout", "3s"),
        *("--health-retries", "4", "--health-start-period", "1s", "--health-start-interval", "2s", "nginx"),
    ),
    "no healthcheck": ("--no-healthcheck", "nginx"),
    "container": (
        *(
            "--hostname",
            "h",
            "--user",
            "u:g",
            "--workdir",
            "/w",
            "--group",
            "audio",
            "--init",
            "--tty",
            "--read-only",
        ),
        *("--stop-signal", "SIGINT", "--stop-grace-period", "3s", "nginx"),
    ),
    "dns": (
        "--dns",
        "1.1.1.1",
        "--dns-search",
        "corp",
        "--dns-option",
        "ndots:2",
        "--host",
        "db:10.0.0.9",
        "nginx",
    ),
    "kernel": (
        *("--cap-add", "NET_ADMIN", "--cap-drop", "CAP_CHOWN", "--sysctl", "net.core.somaxconn=1024"),
        *("--ulimit", "nofile=1024:2048", "--ulimit", "nproc=5", "--oom-score-adj", "100", "nginx"),
    ),
    "log": ("--log-driver", "json-file", "--log-opt", "max-size=10m", "nginx"),
    "endpoint": ("--endpoint-mode", "dnsrr", "nginx"),
    "detached": ("--detach=true", "--init=false", "nginx"),
}
"""Arguments of `service create` whose specs must be the same."""

UPDATES: Mapping[str, Sequence[str]] = {
    "image": (
        "--image",
        "nginx:2",
    ),
    "args": (
        "--args",
        "a 'b c'",
    ),
    "env": ("--env-add", "A=z", "--env-add", "N=1", "--env-rm", "C"),
    "labels": ("--label-add", "n=1", "--label-rm", "b", "--container-label-add", "q=r"),
    "constraints": ("--constraint-add", "node.labels.x==y", "--constraint-rm", "node.role==worker"),
    "preferences": (
        "--placement-pref-rm",
        "spread=node.labels.zone",
        "--placement-pref-add",
        "spread=node.labels.rack",
    ),
    "mounts": ("--mount-rm", "/e", "--mount-add", "type=volume,source=new,target=/data"),
    "ports": ("--publish-rm", "81", "--publish-add", "9090:90"),
    "replicas": ("--replicas", "7"),
    "resources": ("--limit-memory", "1g", "--reserve-cpu", "1"),
    "update": ("--update-parallelism", "1", "--update-delay", "0s"),
    "restart": ("--restart-condition", "none"),
    "health": ("--health-cmd", "true"),
    "no healthcheck": ("--no-healthcheck",),
    "hosts": ("--host-add", "a:1.2.3.4"),
    "dns": ("--dns-add", "9.9.9.9"),
    "user": ("--user", "root", "--workdir", "/", "--hostname", "x"),
    "log": ("--log-driver", "none"),
    "entrypoint": ("--entrypoint", "sh -c"),
    "read only": ("--read-only", "--tty"),
    "capabilities": ("--cap-add", "SYS_TIME"),
    "stop": ("--stop-signal", "SIGTERM", "--stop-grace-period", "1m"),
    "max per node": ("--replicas-max-per-node", "4"),
    "endpoint": ("--endpoint-mode", "vip"),
}
"""Arguments of `service update` of the service web whose specs must be the same."""


class Engine(BaseHTTPRequestHandler):
    """Just enough of the Engine API for the commands above."""

    objects: Sequence[Object] = ()
    posted: list[tuple[str, Any]] = []

    def log_message(self, format: str, *args: Any) -> None:
        del format, args

    def do_HEAD(self) -> None:
        self._answer({})

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        path = re.sub(r"^/v\d+\.\d+", "", unquote(parts.path))
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        answer = self._get(path, query)
        self._answer(
            answer if answer is not None else {"message": "not found"}, 200 if answer is not None else 404
        )

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")
        path = re.sub(r"^/v\d+\.\d+", "", urlsplit(self.path).path)
        self.posted.append((path, body))
        self._answer(
            {"ID": "created"} if path.endswith("create") else {}, 201 if path.endswith("create") else 200
        )

    def _answer(self, value: object, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Api-Version", "1.50")
        self.send_header("Ostype", "linux")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _all(self, cls: type[Any]) -> list[Any]:
        return [each for each in self.objects if isinstance(each, cls)]

    def _get(self, path: str, query: Mapping[str, str]) -> Any:
        if path in ("/_ping", "/version", "/info"):
            return {"ApiVersion": "1.50", "Swarm": {"NodeID": NODE1}, "Version": "28"}
        filters: dict[str, dict[str, bool]] = json.loads(query.get("filters") or "{}")
        noun, _, ref = path.strip("/").partition("/")
        defaults = query.get("insertDefaults") == "true"
        match noun:
            case "services":
                found = self._matching(Service, ref, filters)
                shown = [
                    engine.service(s, defaults=defaults, counts=None if ref else self._counts(s))
                    for s in found
                ]
            case "nodes":
                shown = [engine.node(n) for n in self._matching(Node, ref, filters)]
            case "networks":
                shown = [engine.network(n) for n in self._matching(Network, ref, filters)]
            case "secrets":
                shown = [engine.secret(s) for s in self._matching(Secret, ref, filters)]
            case "configs":
                shown = [engine.config(c) for c in self._matching(Config, ref, filters)]
            case "tasks":
                shown = [engine.task(t) for t in self._tasks(filters)]
            case "volumes":
                shown = [
                    engine.volume(v, "/var/lib/pyswarm/agent/volumes/data/_data") for v in self._all(Volume)
                ]
                return shown[0] if ref else {"Volumes": shown, "Warnings": None}
            case _:
                return None
        return (shown[0] if shown else None) if ref else shown

    def _counts(self, found: Service) -> engine.ServiceCounts:
        return engine.count_tasks(found, self._all(Task))

    def _matching(self, cls: type[Any], ref: str, filters: Mapping[str, Mapping[str, bool]]) -> list[Any]:
        def name(each: Any) -> str:
            return each.description.hostname if isinstance(each, Node) else each.spec.name

        names = [*filters.get("name", {}), *filters.get("id", {})]
        labels = [text.partition("=") for text in filters.get("label", {})]
        found = [each for each in self._all(cls) if not ref or ref in (each.id, name(each))]
        found = [each for each in found if not names or any(n in (each.id, name(each)) for n in names)]
        return [
            each
            for each in found
            if all(
                key in each.spec.labels and each.spec.labels[key] == (value or each.spec.labels[key])
                for key, _, value in labels
            )
        ]

    def _tasks(self, filters: Mapping[str, Mapping[str, bool]]) -> list[Task]:
        services, nodes = filters.get("service", {}), filters.get("node", {})
        labels = [text.partition("=") for text in filters.get("label", {})]
        return [
            each
            for each in self._all(Task)
            if (not services or each.service_id in services or each.service_name in services)
            and (not nodes or each.node_id in nodes)
            and all(each.service_labels.get(key) == value for key, _, value in labels)
        ]


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def get_request(self) -> Any:
        request, _ = super().get_request()
        return request, ("local", 0)


class DockerClient:
    """The real client in front of the played engine."""

    def __init__(self, objects: Sequence[Object]) -> None:
        if shutil.which("docker") is None:
            raise AssertionError(
                "docker's client is not installed: apt-get install docker-cli (or docker.io)"
            )
        self._directory = tempfile.mkdtemp(prefix="docker-engine-")
        self._socket = f"{self._directory}/s"
        self.handler = type("Handler", (Engine,), {"objects": objects, "posted": []})
        self._server = _Server(self._socket, self.handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> DockerClient:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        shutil.rmtree(self._directory)

    def run(self, *arguments: str) -> dict[str, Any]:
        """Exit code, output and error of one command line."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": self._directory,
            "DOCKER_HOST": f"unix://{self._socket}",
            "DOCKER_CONFIG": self._directory,
        }
        done = subprocess.run(
            ["docker", *arguments], capture_output=True, text=True, check=False, env=environment, timeout=30
        )
        return {"code": done.returncode, "out": done.stdout, "err": done.stderr}

    def posted(self, *arguments: str) -> Any:
        """The body that a command line sends."""
        self.handler.posted.clear()
        done = self.run(*arguments)
        assert self.handler.posted, (arguments, done)
        return self.handler.posted[-1][1]


def words(line: Sequence[str]) -> list[str]:
    """A case's words without the quotes of its templates."""
    return [word[1:-1].replace('\\"', '"') if word.startswith("'") else word for word in line]


def record() -> dict[str, Any]:
    """What docker's client answers to every case."""
    with DockerClient(world(SystemClock().now())) as docker:
        lists = {name: docker.run(*words(line)) for name, line in LISTS.items()}
        common = ("--detach", "--no-resolve-image")
        creates = {name: docker.posted("service", "create", *common, *line) for name, line in CREATES.items()}
        updates = {
            name: docker.posted("service", "update", *common, *line, "web") for name, line in UPDATES.items()
        }
    return {"lists": lists, "creates": creates, "updates": updates}


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(record(), indent=1, sort_keys=True, ensure_ascii=False) + "\n")
