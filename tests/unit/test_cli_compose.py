"""What `pyswarm compose` decides, and the commands in front of a real manager (store in memory, agents played)."""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from compose.convert import StackSpecs, convert_stack
from compose.load import load_project
from compose.project import Project
from pyswarm.api import LogMessage
from pyswarm.cli import compose_copy, compose_local, compose_run, compose_state, compose_wait, compose_watch
from pyswarm.cli.compose_logs import Printer
from pyswarm.cli.main import run
from pyswarm.errors import Invalid, NotFound
from pyswarm.objects import Cluster, Meta, Node, Service, Task, TaskState, TaskStatus
from pyswarm.specs import Mount, RestartPolicy
from tests.unit import docker_engine
from tests.unit.cli_manager import CliManager

COMPOSE = """
name: shop
services:
  db:
    image: postgres:16
    restart: always
    ports: ["127.0.0.1:5432:5432"]
  web:
    image: nginx
    depends_on: {db: {condition: service_healthy, restart: true}}
    ports: ["80"]
    scale: 2
    deploy: {placement: {constraints: [node.role==worker]}, update_config: {order: start-first}}
    volumes: [data:/data]
  task:
    image: busybox
    depends_on: [web]
    restart: on-failure:3
  tool:
    image: busybox
    profiles: [tools]
volumes: {data: {}}
"""


def project_of(text: str, directory: Path) -> Project:
    file = directory / "compose.yml"
    file.write_text(text)
    return load_project([file], environ={})


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return project_of(COMPOSE, tmp_path)


@pytest.fixture
def specs(project: Project) -> StackSpecs:
    return convert_stack(project, project.name)


# ------------------------------------------------------------------------------------------- decisions


def test_services_and_what_they_need(project: Project) -> None:
    assert compose_local.closure(project, ["task"]) == {"db", "web", "task"}
    assert compose_local.closure(project, ["db"]) == {"db"}
    assert compose_local.dependents(project, ["db"]) == {"db", "web"}
    with pytest.raises(NotFound, match="no such service: nope"):
        compose_local.closure(project, ["nope"])
    with pytest.raises(Invalid, match=r"disabled: enable one of its profiles \(tools\)"):
        compose_local.closure(project, ["tool"])


def test_specs_follow_docker_composes_rules(project: Project, specs: StackSpecs) -> None:
    found = compose_local.localized(specs, project, "node1", {"nginx": "sha256:1"})
    db, task, web = found.services
    assert [each.task.restart.condition for each in (db, task, web)] == ["any", "on-failure", "none"]
    assert task.task.restart.max_attempts == 3
    assert db.task.restart.delay == 0.1
    assert web.mode.replicas == 2
    assert web.task.placement.constraints == ("node.id==node1",)
    assert [port.publish_mode for port in (*db.endpoint.ports, *web.endpoint.ports)] == ["host", "host"]
    assert db.endpoint.ports[0].host_ip == "127.0.0.1"
    assert web.update is not None
    assert (web.update.order, web.update.monitor) == ("start-first", 0.0)
    labels = web.task.container.labels
    assert labels["com.docker.compose.project"] == "shop"
    assert labels["com.docker.compose.service"] == "web"
    assert labels["com.docker.compose.image"] == "sha256:1"
    assert web.labels["com.docker.compose.project.config_files"].endswith("/compose.yml")


@pytest.mark.parametrize(
    ("said", "condition"),
    [
        ("", "none"),
        ("restart: 'no'", "none"),
        ("restart: unless-stopped", "any"),
        ("restart: always", "any"),
        ("deploy: {restart_policy: {condition: on-failure}}", "on-failure"),
        ("restart: 'no'\n    deploy: {restart_policy: {condition: any}}", "none"),
    ],
)
def test_restart(tmp_path: Path, said: str, condition: str) -> None:
    text = f"name: p\nservices:\n  a:\n    image: x\n    {said}\n"
    project = project_of(text, tmp_path)
    found = compose_local.localized(convert_stack(project, "p"), project, "n")
    assert found.services[0].task.restart.condition == condition


def test_a_part_of_the_project_waits_for_nothing_that_is_left_out(specs: StackSpecs) -> None:
    (web,) = compose_local.only(specs, ["web"]).services
    assert web.depends_on == ()
    assert [d.service for d in compose_local.only(specs, ["web", "db"]).services[1].depends_on] == ["shop_db"]


def test_scale_stop_and_start(project: Project, specs: StackSpecs) -> None:
    local = compose_local.localized(specs, project, "n")
    web = compose_local.scaled(local, {"web": 5}).services[2]
    assert web.mode.replicas == 5
    off = compose_local.stopped(web)
    assert (off.mode.replicas, off.stopped) == (5, True)
    assert compose_local.stopped(off) == off
    assert compose_local.started(off) == web
    with pytest.raises(NotFound, match="no such service: nope"):
        compose_local.scaled(local, {"nope": 1})
    for text in ("web", "web=x", "=3", "web=-1"):
        with pytest.raises(Invalid, match="invalid scale"):
            compose_local.parse_scales([text])


def test_two_containers_cannot_have_one_port(project: Project, specs: StackSpecs) -> None:
    local = compose_local.localized(specs, project, "n")
    compose_local.check_ports(local)
    assert local.services[0].update is not None
    assert local.services[0].update.order == "stop-first"
    with pytest.raises(
        Invalid, match=r"services\.db: 2 containers cannot all have port 5432/tcp of the node"
    ):
        compose_local.check_ports(compose_local.scaled(local, {"db": 2}))


def test_a_one_off(project: Project, specs: StackSpecs) -> None:
    web = compose_local.localized(specs, project, "n").services[2]
    what = compose_local.OneOff(
        name="shop-web-run-1",
        args=("ls",),
        env=("A=1",),
        mounts=(Mount(type="bind", source="/here", target="/data"),),
        labels={"x": "y"},
    )
    once = compose_local.one_off(web, "shop", what)
    container = once.task.container
    assert (once.name, once.mode.replicas, once.task.restart.condition) == ("shop-web-run-1", 1, "none")
    assert once.endpoint.ports == ()
    assert container.args == ("ls",) and "A=1" in container.env
    assert [(m.type, m.target) for m in container.mounts] == [("bind", "/data")]
    assert all(each.aliases == () for each in once.task.networks)
    assert once.labels["com.docker.compose.oneoff"] == "True"
    named = compose_local.one_off(
        web, "shop", replace(what, service_ports=True, aliases=True, entrypoint=("sh",))
    )
    assert named.endpoint.ports == web.endpoint.ports
    assert named.task.container.command == ("sh",)
    assert named.task.networks == web.task.networks


def test_mounts_of_run(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bind = compose_run.mount("./a:/b:ro", project)
    assert (bind.type, bind.source, bind.target, bind.read_only) == ("bind", f"{tmp_path}/a", "/b", True)
    assert compose_run.mount("data:/d", project).source == "shop_data"
    assert compose_run.mount("other:/d", project).source == "other"
    assert compose_run.mount("/d", project).source == ""
    for text in ("a:b", "a", "a:/b:wild", "a:/b:ro:x"):
        with pytest.raises(Invalid, match="invalid volume"):
            compose_run.mount(text, project)


def _service(name: str, specs: StackSpecs, project: Project) -> Service:
    local = compose_local.localized(specs, project, "n")
    spec = next(each for each in local.services if each.name == f"shop_{name}")
    return Service(id=f"id-{name}", spec=spec, spec_version=1)


def _task(service: Service, slot: int, state: TaskState, age: float = 0.0, **status: object) -> Task:
    return Task(
        id=f"{service.id}-{slot}-{age}",
        meta=Meta(created_at=age),
        service_id=service.id,
        service_name=service.spec.name,
        service_labels=service.spec.labels,
        slot=slot,
        spec=service.spec.task,
        spec_version=1,
        status=TaskStatus(state=state, **status),  # type: ignore[arg-type]
    )


def test_a_slots_container_is_its_newest_task(project: Project, specs: StackSpecs) -> None:
    web = _service("web", specs, project)
    tasks = [
        _task(web, 1, TaskState.FAILED, 1.0),
        _task(web, 1, TaskState.RUNNING, 2.0),
        _task(web, 2, TaskState.PREPARING, 1.5),
    ]
    found = compose_state.containers([web], tasks)
    assert [(each.name, each.short, compose_state.stage(each.task)) for each in found] == [
        ("shop-web-1", "web-1", "healthy"),
        ("shop-web-2", "web-2", "waiting"),
    ]


def test_how_far_services_are(project: Project, specs: StackSpecs) -> None:
    web = _service("web", specs, project)
    up = _task(web, 1, TaskState.RUNNING)
    starting = _task(web, 2, TaskState.STARTING, started_at=5.0)
    found = compose_wait.standing([web], [up, starting], healthy=False)
    assert (len(found.done), found.waiting, found.failed) == (2, (), ())
    found = compose_wait.standing([web], [up, starting], healthy=True)
    assert (len(found.done), len(found.waiting)) == (1, 1)
    found = compose_wait.standing([web], [up], healthy=False)
    assert found.waiting == ("shop_web: no container yet",)
    # a task of the spec before this one does not count
    found = compose_wait.standing(
        [replace(web, spec_version=2)], [replace(up, spec=replace(up.spec, runtime="x"))], healthy=False
    )
    assert len(found.waiting) == 2
    rejected = _task(web, 2, TaskState.REJECTED, err="no such image: nginx")
    found = compose_wait.standing([web], [up, rejected], healthy=False)
    assert found.failed == ("container shop-web-2: no such image: nginx",)
    ended = _task(web, 2, TaskState.COMPLETE, exit_code=0, started_at=1.0)
    assert compose_wait.standing([web], [up, ended], healthy=False).failed == ()
    assert compose_wait.standing([web], [up, ended], healthy=True).failed == (
        "container shop-web-2 exited (0)",
    )


def test_what_is_waited_for_and_will_not_come(project: Project, specs: StackSpecs) -> None:
    db, web = _service("db", specs, project), _service("web", specs, project)
    db = replace(
        db, spec=replace(db.spec, task=replace(db.spec.task, restart=RestartPolicy(condition="none")))
    )
    dead = replace(_task(db, 1, TaskState.FAILED, exit_code=3, started_at=1.0), spec=db.spec.task)
    assert compose_wait.blocked([db, web], [dead]) == [
        "dependency failed to start: container shop-db-1 is not running"
    ]
    assert compose_wait.blocked([db, web], [_task(db, 1, TaskState.RUNNING)]) == []
    back = replace(dead, spec=replace(dead.spec, restart=RestartPolicy(condition="any")))
    assert compose_wait.blocked([db, web], [back]) == []


def test_services_that_up_begins_anew(project: Project, specs: StackSpecs) -> None:
    web, db = _service("web", specs, project), _service("db", specs, project)
    done = _task(web, 1, TaskState.COMPLETE, exit_code=0, started_at=1.0)
    assert compose_state.ended(web, [done])
    assert not compose_state.ended(web, [_task(web, 1, TaskState.RUNNING)])
    assert not compose_state.ended(db, [_task(db, 1, TaskState.FAILED, exit_code=1, started_at=1.0)])


def test_log_lines(project: Project, specs: StackSpecs, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    services = [_service(name, specs, project) for name in ("db", "web")]
    message = LogMessage(service_id="id-db", slot=1, data=b"one\ntwo\n", nanos=1)
    Printer(services).write(message)
    Printer(services, colours=True).write(replace(message, service_id="id-web", slot=2, data=b"x"))
    Printer(services, prefix=False, timestamps=True).write(replace(message, data=b"y\n"))
    out = capfdbinary.readouterr().out
    assert out == (
        b"db-1   | one\ndb-1   | two\n\x1b[33mweb-2  | \x1b[0mx\n1970-01-01T00:00:00.000000001Z y\n"
    )


# ------------------------------------------------------------------------------------------- cp


def test_which_side_of_cp_is_the_container() -> None:
    assert compose_copy.parse("web:/a", "b") == ("web", "/a", "b", False)
    assert compose_copy.parse("./x:y", "web:/a") == ("web", "/a", "./x:y", True)
    assert compose_copy.parse("-", "web:/a") == ("web", "/a", "-", True)
    for source, target in (("a", "b"), ("web:/a", "db:/b"), ("web:", "a")):
        with pytest.raises(Invalid):
            compose_copy.parse(source, target)


def _tar(entries: Mapping[str, bytes | str]) -> tarfile.TarFile:
    """Files; a text is a symbolic link's target."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in entries.items():
            info = tarfile.TarInfo(name)
            if isinstance(data, str):
                info.type, info.linkname = tarfile.SYMTYPE, data
                tar.addfile(info)
            else:
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    file.seek(0)
    return tarfile.open(fileobj=file)


def test_what_a_container_sends_stays_where_it_is_meant(tmp_path: Path) -> None:
    place = tmp_path / "to"
    place.mkdir()
    compose_copy.extract(_tar({"etc/a": b"1", "etc/b/c": b"2"}), "etc", place)
    assert (place / "etc" / "b" / "c").read_bytes() == b"2"
    compose_copy.extract(_tar({"etc/a": b"1"}), "etc", place, contents=True)
    assert (place / "a").read_bytes() == b"1"
    compose_copy.extract(_tar({"a": b"3"}), "a", place / "renamed")
    assert (place / "renamed").read_bytes() == b"3"
    evil: Sequence[Mapping[str, bytes | str]] = (
        {"x/../../out": b""},
        {"/x/../../../out": b""},
        {"x": "/etc"},
        {"x": "../../etc"},
    )
    for entries in evil:
        with pytest.raises(Invalid, match="refused what the container sent"):
            compose_copy.extract(_tar(entries), "x", place)
    assert not (tmp_path / "out").exists()
    with pytest.raises(Invalid, match="no such directory"):
        compose_copy.extract(_tar({"a": b""}), "a", tmp_path / "none" / "a")


# ------------------------------------------------------------------------------------------- watch

WATCH = """
name: p
services:
  web:
    build: .
    develop:
      watch:
        - {action: sync, path: ./src, target: /app, ignore: ["*.tmp", node_modules/]}
        - {action: rebuild, path: package.json}
        - {action: sync+restart, path: ./conf, target: /etc/conf, include: ["*.ini"]}
  api:
    image: x
    develop:
      watch:
        - {action: restart, path: ./src}
"""


def test_what_changes_ask_for(tmp_path: Path) -> None:
    rules = compose_watch.rules(project_of(WATCH, tmp_path))

    def plan(*paths: str) -> list[compose_watch.Work]:
        return compose_watch.plan(rules, [str(tmp_path / path) for path in paths])

    api, web = plan("src/a/b.py")
    assert (api.service, api.restart, api.copies) == ("api", True, ())
    assert web.copies == ((str(tmp_path / "src/a/b.py"), "/app/a/b.py"),)
    assert not web.restart and not web.rebuild
    assert [each.service for each in plan("src/x.tmp", "src/node_modules/y")] == ["api"]
    assert plan("src/.b.py.swp", "src/b.py~", "other", "conf/a.txt") == []
    (web,) = plan("conf/a.ini")
    assert web.restart and web.copies[0][1] == "/etc/conf/a.ini"
    works = plan("package.json", "conf/a.ini")
    assert works == [compose_watch.Work(service="web", rebuild=True)]
    assert [each.service for each in compose_watch.rules(project_of(WATCH, tmp_path), ["api"])] == ["api"]


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("{action: rebuild, path: .}", "rebuild needs a build section"),
        ("{action: sync+exec, path: ., target: /a}", "needs exec.command"),
    ],
)
def test_rules_that_cannot_work(tmp_path: Path, rule: str, text: str) -> None:
    project = project_of(f"name: p\nservices: {{a: {{image: x, develop: {{watch: [{rule}]}}}}}}\n", tmp_path)
    with pytest.raises(Invalid, match=text):
        compose_watch.rules(project)


async def test_the_tree_tells_of_files_in_new_directories(tmp_path: Path) -> None:
    tree = compose_watch.Tree([str(tmp_path)])
    try:
        (tmp_path / "a" / "b").mkdir(parents=True)
        (tmp_path / "a" / "b" / "c").write_text("1")
        assert str(tmp_path / "a" / "b" / "c") in await tree.batch()
        (tmp_path / "a" / "b" / "d").write_text("2")
        assert await tree.batch() == {str(tmp_path / "a" / "b" / "d")}
        (tmp_path / "a" / "b" / "d").unlink()
        assert await tree.batch() == {str(tmp_path / "a" / "b" / "d")}
    finally:
        tree.close()


# ------------------------------------------------------------------------------------------- commands


@pytest.fixture
def swarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CliManager]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("PYSWARM_CONFIG", str(tmp_path / "pyswarm"))
    for name in ("PYSWARM_CONTEXT", "PYSWARM_HOST", "COMPOSE_FILE", "COMPOSE_PROJECT_NAME"):
        monkeypatch.delenv(name, raising=False)
    place = tmp_path / "run"
    place.mkdir()
    (tmp_path / "compose.yml").write_text(COMPOSE)
    monkeypatch.chdir(tmp_path)
    nodes = [each for each in docker_engine.world(0.0) if isinstance(each, Node)]
    objects = [Cluster(id="c" * 25), *nodes]
    with CliManager(place, live=True, node_id=docker_engine.NODE1, objects=objects) as manager:
        manager.played.answers["image.inspect"] = {"Id": "sha256:abc", "Config": {}, "Os": "linux"}
        yield manager


def _run_everything(swarm: CliManager) -> None:
    """Every task runs from now on, until every wanted one does."""
    end = time.monotonic() + 20
    tasks: list[Task] = []
    while time.monotonic() < end:
        tasks = swarm.objects(lambda view: list(view.tasks()))
        wanted = [t for t in tasks if t.desired_state <= TaskState.RUNNING]
        if len(wanted) >= 4 and all(t.status.state == TaskState.RUNNING for t in wanted):
            return
        for each in wanted:
            if (
                TaskState.ASSIGNED <= each.status.state < TaskState.RUNNING
                and each.desired_state == TaskState.RUNNING
            ):
                now = time.time()
                swarm.report(
                    each,
                    TaskStatus(
                        state=TaskState.RUNNING,
                        timestamp=now,
                        container_id=each.id,
                        started_at=now,
                        running_since=now,
                        ports=tuple(
                            replace(port, published_port=port.published_port or 40000 + each.slot)
                            for port in each.endpoint.ports
                        ),
                    ),
                )
        time.sleep(0.02)
    raise AssertionError([(t.service_name, t.status, t.waiting_for) for t in tasks])


def _up(swarm: CliManager) -> None:
    result = swarm("compose", "create")
    assert "Network shop_default  Created" in result.stderr
    assert "Service web  Creating" in result.stderr
    assert swarm.objects(lambda view: len(list(view.tasks()))) == 0
    # what `up` does but for the wait, which no agent would end
    import threading

    runner = threading.Thread(target=_run_everything, args=(swarm,))
    runner.start()
    result = swarm("compose", "up", "--wait", "--wait-timeout", "15")
    runner.join()
    assert "Container shop-web-2  Healthy" in result.stderr


def test_commands_on_a_project(swarm: CliManager) -> None:
    _up(swarm)
    rows = swarm("compose", "ps", "--format", "{{.Name}}|{{.State}}|{{.Ports}}").stdout.splitlines()
    assert rows == [
        "shop-db-1|running|127.0.0.1:5432->5432/tcp",
        "shop-task-1|running|",
        "shop-web-1|running|0.0.0.0:40001->80/tcp",
        "shop-web-2|running|0.0.0.0:40002->80/tcp",
    ]
    header = swarm("compose", "ps").stdout.splitlines()[0].split()
    assert header == ["NAME", "IMAGE", "COMMAND", "SERVICE", "CREATED", "STATUS", "PORTS"]
    value = json.loads(swarm("compose", "ps", "--format", "json", "db").stdout)
    assert value["Publishers"] == [
        {"URL": "127.0.0.1", "TargetPort": 5432, "PublishedPort": 5432, "Protocol": "tcp"}
    ]
    assert swarm("compose", "ps", "--services", "--status", "exited").stdout == ""
    assert json.loads(swarm("compose", "ls", "--format", "json").stdout)[0]["Status"] == "running(4)"
    assert swarm("compose", "port", "db", "5432").stdout == "127.0.0.1:5432\n"
    assert "no port 1/tcp for container shop-db-1" in swarm("compose", "port", "db", "1", code=1).stderr
    assert swarm("compose", "volumes", "-q").stdout == "shop_data\n"
    assert "sha256" not in swarm("compose", "images").stdout

    swarm.played.exec_code = 5
    result = swarm("compose", "exec", "-T", "--index", "2", "web", "ls", "-l", code=5)
    assert result.stdout == "out\n"
    assert swarm.played.execs[-1].argv == ("ls", "-l")
    assert 'service "nope"' not in swarm("compose", "exec", "nope", "ls", code=1).stderr
    assert "not running container #7" in swarm("compose", "exec", "--index", "7", "web", "ls", code=1).stderr

    swarm.played.answers["task.kill"] = {}
    result = swarm("compose", "kill", "-s", "SIGHUP", "web")
    assert "Container shop-web-1  Killed" in result.stderr
    assert [args["signal"] for verb, args in swarm.played.asked if verb == "task.kill"] == [
        "SIGHUP",
        "SIGHUP",
    ]

    result = swarm("compose", "down", "--dry-run", "-v")
    assert "DRY-RUN MODE -  Service web  Removing" in result.stderr
    assert "DRY-RUN MODE -  Volume shop_data  Removing" in result.stderr
    assert swarm.objects(lambda view: len(list(view.services()))) == 3


def test_projects_are_known_by_name_without_their_files(swarm: CliManager, tmp_path: Path) -> None:
    (tmp_path / "compose.yml").unlink()
    assert swarm("compose", "-p", "other", "ps", "-q").stdout == ""
    assert "no Compose file" in swarm("compose", "ps", code=1).stderr
    assert "no Compose file" in swarm("compose", "-p", "other", "up", code=1).stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["pause"], "compose pause is not supported: the node's agent cannot freeze"),
        (["attach", "web"], 'service "web" is not running'),
        (["--all-resources", "ps"], "--all-resources is not supported"),
        (["--compatibility", "ps"], "--compatibility is not supported"),
        (["up", "--build", "--no-build"], "--build and --no-build are incompatible"),
        (["up", "-d", "--exit-code-from", "web"], "--detach and --wait cannot be combined"),
        (["up", "--scale", "web=x"], "invalid scale 'web=x'"),
        (["up", "nope"], "No such service: nope"),
        (["up", "tool"], "service tool is disabled: enable one of its profiles (tools)"),
        (["build", "--sbom", "true"], "--sbom is not supported: images are built by buildah"),
        (["config", "--no-interpolate", "--lock-image-digests"], "--no-interpolate prints the whole model"),
        (["ps", "--status", "odd"], "invalid status 'odd'"),
        (["start"], "project shop has no containers to start"),
        (["watch"], "none of the selected services is configured for watch"),
    ],
)
def test_what_is_refused_is_named(swarm: CliManager, arguments: list[str], text: str) -> None:
    assert text in swarm("compose", *arguments, code=1).stderr


def test_config_lists(swarm: CliManager) -> None:
    assert swarm("compose", "config", "--services").stdout.split() == ["db", "task", "web"]
    assert swarm("compose", "--profile", "tools", "config", "--services").stdout.split()[-1] == "web"
    assert swarm("compose", "config", "--volumes").stdout == "data\n"
    assert swarm("compose", "config", "--networks").stdout == "default\n"
    assert swarm("compose", "config", "--profiles").stdout == "tools\n"
    assert swarm("compose", "config", "--services", "db").stdout == "db\n"
    assert swarm("compose", "-f", "compose.yml", "-p", "x", "config", "--format", "json").stdout.startswith(
        "{"
    )
    (name, digest) = swarm("compose", "config", "--hash", "web").stdout.split()
    assert name == "web" and len(digest) == 64


def test_dry_run_of_up_changes_nothing(swarm: CliManager) -> None:
    result = swarm("compose", "--dry-run", "up", "-d")
    assert "DRY-RUN MODE -  Service web  Creating" in result.stderr
    assert swarm.objects(lambda view: len(list(view.services()))) == 0


def test_check_with_strict_fails_on_what_converting_warns_of(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "compose.yml"
    file.write_text("services:\n  web:\n    image: x\n    credential_spec: {file: y}\n")
    assert run(["compose", "-f", str(file), "check"]) == 0
    assert run(["compose", "--strict", "-f", str(file), "check"]) == 1
    assert "credential_spec" in capfd.readouterr().err
