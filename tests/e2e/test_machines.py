"""Several machines: joining, networks between nodes, images, nodes that die, are cut off, drained, leave."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyswarm import nodeconfig, pki
from pyswarm.objects import NodeState, TaskState
from tests.e2e.cluster import SLEEPER, until
from tests.e2e.lab_cluster import SERVE, WEB, LabCluster, containers_of, fetch, web_context

pytestmark = [pytest.mark.e2e, pytest.mark.root]

MOVED_WITHIN = 20.0
"""Seconds from a machine's death to its tasks running elsewhere, after which something hangs. The heartbeat is 1 s
and three may be missed, so it takes a good 3 s: benchmarks/recovery.py measures it."""


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabCluster]:
    """m1 manages, w1 and w2 work, w3 is a machine that has not joined. Afterwards nothing is left."""
    assert os.geteuid() == 0, "the end-to-end tests need root"
    cluster = LabCluster("pst", 1, 3, "198.18.95.0/24")
    try:
        assert len(cluster.traces()) > 10, "the search for what is left is blind"
        cluster.init()
        for name in ("w1", "w2"):
            cluster.lab.join(cluster.lab.machine(name))
        context = web_context(tmp_path_factory.mktemp("web"))
        cluster.build(WEB, context)
        yield cluster
        for machine in cluster.lab.machines:
            for log in sorted((machine.state / "log").glob("*.log")):
                print(f"--- {machine.name} {log.name}", *log.read_text().splitlines()[-40:], sep="\n")
    finally:
        cluster.leave()
    assert cluster.traces() == []


@pytest.fixture(autouse=True)
def tidy(swarm: LabCluster) -> Iterator[None]:
    """Each test begins and ends with no services, all joined machines ready and active, nothing cut."""
    yield
    swarm.lab.heal()
    services = swarm.cli("service", "ls", "-q").split()
    if services:
        swarm.cli("service", "rm", *services)
    until(lambda: not swarm.tasks(), "all tasks are gone")
    for name in ("m1", "w1", "w2"):
        swarm.wait_node(name, NodeState.READY)
        if swarm.nodes()[name].spec.availability != "active":
            swarm.cli("node", "update", "--availability", "active", name)


def serve(swarm: LabCluster, name: str, *flags: str, count: int) -> None:
    """Create a service whose tasks tell where they run, and wait for it."""
    swarm.cli(
        *("service", "create", "-d", "--name", name, "--env", "NODE={{.Node.Hostname}}"),
        *("--env", "SLOT={{.Task.Slot}}", "--stop-grace-period", "0.3s", *flags, WEB, *SERVE),
    )
    swarm.wait_running(name, count, 30)


# ---------------------------------------------------------------------------------------------- joining


def test_machines_join_by_token(swarm: LabCluster) -> None:
    nodes = swarm.nodes()
    assert {"m1", "w1", "w2"} <= set(nodes)
    for name in ("w1", "w2"):
        machine = swarm.lab.machine(name)
        config = nodeconfig.load(machine.state)
        assert nodes[name].status.state == NodeState.READY
        assert nodes[name].status.addr == config.advertise_addr == machine.address
        assert config.data_path_port == swarm.config.data_path_port
        identity = pki.identity(config.cert("node.pem").decode())
        assert (identity.node_id, identity.role) == (nodes[name].id, "worker")
        assert machine.daemons() == ["supervisor", "agent"]


def _tokens(swarm: LabCluster) -> dict[str, str]:
    token = swarm.cli("join-token", "-q", "worker").strip()
    head, digest, secret = token.rsplit("-", 2)
    foreign = digest.translate(str.maketrans("0123456789", "1234567890"))
    return {
        "a wrong secret": f"{head}-{digest}-{secret[::-1]}",
        "a truncated secret": token[:-3],
        "another cluster's": f"{head}-{foreign}-{secret}",
        "no token": "SWMTKN-1",
    }


@pytest.mark.parametrize("kind", ["a wrong secret", "a truncated secret", "another cluster's", "no token"])
def test_a_bad_token_is_refused_and_leaves_nothing(swarm: LabCluster, kind: str) -> None:
    stranger = swarm.lab.machine("w3")
    before = set(swarm.nodes())
    arguments = swarm.lab.join_arguments(stranger, _tokens(swarm)[kind])
    result = stranger.exec("pyswarm", "join", *arguments)
    assert result.returncode == 1
    assert "token" in result.stderr
    assert not stranger.state.exists()
    assert not stranger.run.exists()
    assert stranger.processes() == []
    assert set(swarm.nodes()) == before


def test_joining_where_no_manager_listens_says_so(swarm: LabCluster) -> None:
    stranger = swarm.lab.machine("w3")
    *arguments, _ = swarm.lab.join_arguments(stranger)
    result = stranger.exec("pyswarm", "join", *arguments, "198.18.95.4:2377")
    assert result.returncode == 1
    assert "cannot reach a manager at 198.18.95.4:2377" in result.stderr
    assert not stranger.state.exists()


def test_a_worker_joins_leaves_and_is_removed(swarm: LabCluster) -> None:
    worker = swarm.lab.machine("w3")
    links = worker.exec("ip", "-o", "link").stdout
    assert worker.exec("ip", "addr", "add", "192.0.2.7/32", "dev", "lo").returncode == 0
    assert worker.exec("ip", "link", "add", "pstother", "type", "bridge").returncode == 0
    assert worker.exec("ip", "addr", "add", "192.0.2.8/24", "dev", "pstother").returncode == 0
    assert worker.exec("ip", "link", "set", "pstother", "up").returncode == 0
    arguments = [a for a in swarm.lab.join_arguments(worker) if a not in ("--advertise-addr", worker.address)]
    worker.pyswarm("join", *arguments)
    assert worker.exec("ip", "link", "delete", "pstother").returncode == 0
    node = swarm.nodes()["w3"]
    assert node.status.addr == worker.address, "of several addresses, the one that routes to the manager"
    serve(swarm, "all", "--mode", "global", count=4)
    refused = swarm.run_cli("node", "rm", "w3")
    assert refused.returncode == 1
    assert "down" in refused.stderr
    worker.pyswarm("leave")
    assert not worker.state.exists() or list(worker.state.rglob("*.pem")) == []
    assert worker.processes() == []
    assert worker.exec("ip", "-o", "link").stdout.count("\n") == links.count("\n")
    assert worker.exec("nft", "list", "ruleset").stdout == ""
    assert swarm.nodes()["w3"].status.state == NodeState.DOWN, "it has told so"
    swarm.cli("node", "rm", "w3")
    assert "w3" not in swarm.nodes()
    swarm.wait_running("all", 3)


# ---------------------------------------------------------------------------------------------- networks

TWELVE_TIMES = "for n in 1 2 3 4 5 6 7 8 9 10 11 12; do wget -qO- http://two/cgi-bin/who; done"


def test_networks_span_nodes(swarm: LabCluster) -> None:
    for network in ("front", "back"):
        swarm.cli("network", "create", "-d", "overlay", network)
    try:
        serve(swarm, "one", "--network", "front", "--mode", "global", count=3)
        serve(swarm, "two", "--network", "front", "--mode", "global", count=3)
        serve(swarm, "apart", "--network", "back", "--mode", "global", count=3)
        addresses = {a for t in swarm.running("two") for n in t.networks for a in n.addresses}
        for caller in swarm.running("one"):
            told = swarm.cli("exec", caller.id, "sh", "-c", TWELVE_TIMES).splitlines()
            assert {line.split()[0] for line in told} == {"m1", "w1", "w2"}, "the VIP spreads over the nodes"
            named = swarm.cli("exec", caller.id, "nslookup", "-type=a", "tasks.two.", ok=False)
            assert all(address.partition("/")[0] in named for address in addresses)
        stranger = swarm.on("apart", "w1")[0]
        assert "can't find two" in swarm.cli("exec", stranger.id, "nslookup", "-type=a", "two.", ok=False)
        target = sorted(addresses)[0].partition("/")[0]
        result = swarm.run_cli(
            "exec", stranger.id, *f"timeout 2 wget -qO- http://{target}/cgi-bin/who".split()
        )
        assert "No route to host" in result.stderr
    finally:
        swarm.cli("service", "rm", "one", "two", "apart")
        until(lambda: not swarm.tasks(), "all tasks are gone")
        swarm.cli("network", "rm", "front", "back")


def test_a_published_port_answers_on_every_node(swarm: LabCluster) -> None:
    serve(
        swarm, "web", "--replicas", "2", "--publish", "18095:80", "--constraint", "node.role==worker", count=2
    )
    for machine in swarm.lab.machines[:3]:
        answers = until(
            lambda machine=machine: _from_two_nodes(f"{machine.address}:18095"),
            f"both tasks answer through {machine.name}",
            15,
        )
        clients = {answer.split()[1].strip("[]").removeprefix("::ffff:") for answer in answers}
        assert clients == {swarm.lab.gateway}, "the client's own address is seen"


def _from_two_nodes(address: str) -> list[str]:
    """Ten answers from there, if they come from two nodes."""
    answers = [answer for _ in range(10) if (answer := fetch(address))]
    return answers if len({answer.split()[0] for answer in answers}) == 2 else []


# ---------------------------------------------------------------------------------------------- images


def test_a_stack_that_is_built_runs_on_every_node(swarm: LabCluster, tmp_path: Path) -> None:
    context = web_context(tmp_path)
    (context / "who").write_text((context / "who").read_text() + "echo built\n")
    (context / "compose.yml").write_text(
        "services:\n  site:\n    build: .\n    image: pstbuilt:1\n"
        f"    command: {json.dumps(SERVE)}\n    environment: {{NODE: '{{{{.Node.Hostname}}}}'}}\n"
        "    deploy: {mode: global}\n    stop_grace_period: 300ms\n"
    )
    swarm.cli("stack", "deploy", "-c", "compose.yml", "here", cwd=context)
    tasks = swarm.wait_running("here_site", 3, 30)
    assert sorted(swarm.where(tasks)) == ["m1", "w1", "w2"]
    pinned = {task.spec.container.image for task in tasks}
    assert len(pinned) == 1
    digest = pinned.pop().partition("@")[2]
    assert digest.startswith("sha256:")
    for name in ("w1", "w2"):
        shown = json.loads(swarm.cli("image", "inspect", "--node", name, "pstbuilt:1"))
        assert [each.partition("@")[2] for each in shown[0]["RepoDigests"]] == [digest]
        machine = swarm.lab.machine(name)
        assert list((machine.state / "agent" / "images-tmp").iterdir()) == [], "the copy is cleared away"
    swarm.cli("stack", "rm", "here")


def test_an_image_that_nobody_has_says_so(swarm: LabCluster) -> None:
    image = f"localhost:1/none@sha256:{'0' * 64}"
    swarm.cli("service", "create", "-d", "--name", "none", "--restart-condition", "none", image, "x")

    def failed() -> str:
        return next((t.status.err for t in swarm.tasks("none") if t.status.state > TaskState.RUNNING), "")

    assert "no other node has the image" in until(failed, "the task fails")


# ---------------------------------------------------------------------------------------------- failures


def test_a_dead_machines_tasks_run_elsewhere(swarm: LabCluster) -> None:
    serve(swarm, "web", "--replicas", "6", count=6)
    worker = swarm.lab.machine("w1")
    lost = {task.id for task in swarm.on("web", "w1")}
    assert lost, "the tasks were not spread"
    start = time.monotonic()
    worker.kill()
    until(
        lambda: len({t.slot for t in swarm.running("web") if t.id not in lost}) == 6,
        "all six run elsewhere",
        30,
    )
    took = time.monotonic() - start
    print(f"a machine died; its tasks ran elsewhere after {took:.2f} s")
    assert took < MOVED_WITHIN
    assert swarm.nodes()["w1"].status.state == NodeState.DOWN
    worker.start()
    swarm.wait_node("w1", NodeState.READY)
    until(
        lambda: all(t.status.state > TaskState.RUNNING for t in swarm.tasks("web") if t.id in lost),
        "the machine tells that its former tasks have ended",
    )
    after = swarm.wait_running("web", 6)
    assert sorted(t.slot for t in after) == [1, 2, 3, 4, 5, 6]
    assert containers_of(worker).keys() <= {t.id for t in after}


def test_a_machine_that_was_cut_off_gives_up_what_moved(swarm: LabCluster) -> None:
    serve(swarm, "web", "--replicas", "6", count=6)
    first, worker = swarm.lab.machine("m1"), swarm.lab.machine("w1")
    before = containers_of(worker)
    assert before
    swarm.lab.partition(first, worker)
    assert swarm.lab.cuts(first) == ["w1"]
    swarm.wait_node("w1", NodeState.DOWN)
    until(lambda: len([t for t in swarm.running("web") if t.id not in before]) == 6, "all six run elsewhere")
    assert containers_of(worker) == before, "containers run on while no manager can be reached"
    swarm.lab.heal()
    swarm.wait_node("w1", NodeState.READY, 30)
    until(lambda: not containers_of(worker).keys() & before.keys(), "the moved tasks end here")
    assert len(swarm.wait_running("web", 6)) == 6
    alive = [id for machine in swarm.lab.machines[:3] for id in containers_of(machine)]
    assert sorted(alive) == sorted(t.id for t in swarm.running("web")), "one container for each slot"


def test_containers_outlive_the_manager_and_what_happened_is_told(swarm: LabCluster) -> None:
    serve(swarm, "web", "--replicas", "4", "--constraint", "node.role==worker", count=4)
    first, worker = swarm.lab.machine("m1"), swarm.lab.machine("w1")
    here = containers_of(worker)
    there = containers_of(swarm.lab.machine("w2"))
    assert len(here) == len(there) == 2
    first.kill()
    until(lambda: not nodeconfig.load(worker.state).session_file.exists(), "the agent knows", 30)
    victim, survivor = sorted(here)
    os.kill(here[victim], signal.SIGKILL)
    until(lambda: victim not in containers_of(worker), "the container is gone")
    first.start()
    for name in ("w1", "w2"):
        swarm.wait_node(name, NodeState.READY, 30)
    until(
        lambda: next(t.status.state for t in swarm.tasks("web") if t.id == victim) == TaskState.FAILED,
        "the agent tells what ended while no manager was there",
        30,
    )
    told = next(t for t in swarm.tasks("web") if t.id == victim)
    assert told.status.exit_code == 137
    swarm.wait_running("web", 4)
    assert containers_of(worker)[survivor] == here[survivor]
    assert containers_of(swarm.lab.machine("w2")) == there


# ---------------------------------------------------------------------------------------------- placement


def test_availability(swarm: LabCluster) -> None:
    serve(swarm, "web", "--replicas", "6", count=6)
    swarm.cli("node", "update", "--availability", "drain", "w1")
    until(lambda: not swarm.on("web", "w1"), "a drained node is empty")
    swarm.wait_running("web", 6)
    until(lambda: not containers_of(swarm.lab.machine("w1")), "its containers are gone")
    swarm.cli("node", "update", "--availability", "pause", "w2")
    kept = {t.id for t in swarm.on("web", "w2")}
    assert kept
    swarm.cli("service", "scale", "-d", "web=12")
    swarm.wait_running("web", 12)
    assert {t.id for t in swarm.on("web", "w2")} == kept, "a paused node keeps its tasks and gets no more"
    assert len(swarm.on("web", "m1")) == 12 - len(kept)
    swarm.cli("node", "update", "--availability", "active", "w1")
    swarm.cli("service", "scale", "-d", "web=15")
    swarm.wait_running("web", 15)
    assert len(swarm.on("web", "w1")) == 3


CLIENT = (
    "n=0; f=0; while :; do n=$((n+1)); timeout 5 wget -qO- http://web/cgi-bin/who >/dev/null || f=$((f+1)); "
    "echo $n requests, $f failed; done"
)
"""Calls a service by its name, one request after the other, and says how many failed so far. (The -T of Debian's
static wget breaks it.)"""


def test_a_node_is_drained_and_no_request_fails(swarm: LabCluster) -> None:
    """Thirty tasks, all on one node, of a service whose tasks may overlap."""
    swarm.cli("network", "create", "-d", "overlay", "front")
    try:
        on_w1 = ("--constraint", "node.hostname==w1", "--update-order", "start-first")
        serve(swarm, "web", "--network", "front", "--replicas", "30", *on_w1, count=30)
        before = {task.id for task in swarm.on("web", "w1")}
        swarm.cli("service", "update", "-d", "--constraint-rm", "node.hostname==w1", "web")
        assert {task.id for task in swarm.wait_running("web", 30)} == before, "they may move, but need not"
        swarm.cli(
            *("service", "create", "-d", "--name", "client", "--network", "front"),
            *("--constraint", "node.role==manager", "--stop-grace-period", "0.3s", WEB, "sh", "-c", CLIENT),
        )
        until(lambda: _requests(swarm)[0] > 20, "the client's requests are answered")
        swarm.cli("node", "update", "--availability", "drain", "w1")
        until(lambda: not containers_of(swarm.lab.machine("w1")), "the drained node is empty")
        after = swarm.wait_running("web", 30)
        assert sorted(task.slot for task in after) == list(range(1, 31))
        assert set(swarm.where(after)) <= {"m1", "w2"}
        asked = _requests(swarm)[0]
        until(lambda: _requests(swarm)[0] > asked + 20, "requests go on")
        assert _requests(swarm)[1] == 0
    finally:
        swarm.cli("service", "rm", "web", "client", ok=False)
        until(lambda: not swarm.tasks(), "all tasks are gone")
        swarm.cli("network", "rm", "front")


def _requests(swarm: LabCluster) -> tuple[int, int]:
    """How many the client has made, and how many of them failed."""
    told = swarm.cli("service", "logs", "--tail", "1", "--raw", "client", ok=False).split()
    return (int(told[0]), int(told[2])) if len(told) == 4 else (0, 0)


def test_placement_by_label(swarm: LabCluster) -> None:
    swarm.cli("node", "update", "--label-add", "disk=ssd", "w2")
    flags = ("--replicas", "3", "--constraint", "node.labels.disk==ssd", "--restart-delay", "0s")
    swarm.cli("service", "create", "-d", "--name", "db", *flags, WEB, *SLEEPER)
    assert swarm.where(swarm.wait_running("db", 3)) == ["w2"] * 3
    swarm.cli("node", "update", "--label-rm", "disk", "w2")
    until(lambda: not swarm.running("db"), "tasks leave a node that does not suit any more")
    waiting = until(
        lambda: [t for t in swarm.tasks("db") if t.status.state == TaskState.PENDING and t.status.message],
        "their successors wait",
    )
    assert "node.labels.disk==ssd" in waiting[0].status.err
    swarm.cli("node", "update", "--label-add", "disk=ssd", "w1")
    assert swarm.where(swarm.wait_running("db", 3)) == ["w1"] * 3
    swarm.cli("node", "update", "--label-rm", "disk", "w1")


STATEFUL = """
services:
  db:
    image: web
    command: sh -c "trap 'exit 0' TERM; while :; do sleep 1000 & wait $$!; done"
    volumes: [data:/data]
    deploy: {replicas: 2, placement: {constraints: [node.role==worker]}}
    x-pyswarm: {volumes_per_slot: true}
volumes: {data: {}}
"""


def test_a_slot_stays_with_its_volume_until_a_person_moves_it(swarm: LabCluster, tmp_path: Path) -> None:
    (tmp_path / "compose.yml").write_text(STATEFUL)
    try:
        swarm.cli("stack", "deploy", "-c", str(tmp_path / "compose.yml"), "st")
        home, other = swarm.where(swarm.wait_running("st_db", 2))
        assert {home, other} == {"w1", "w2"}
        swarm.cli("exec", "st_db.1", "sh", "-c", "echo first > /data/who")
        assert swarm.cli("exec", "st_db.2", "ls", "/data") == ""

        swarm.cli("node", "update", "--availability", "drain", home)
        reason = f"waiting for node {home}, which holds the volume st_data.1: drained"
        until(
            lambda: [t for t in swarm.tasks("st_db") if t.status.err == reason], "slot 1 waits and says why"
        )
        swarm.cli("volume", "update", "--node", other, "st_data.1")
        assert swarm.where(swarm.wait_running("st_db", 2)) == [other, other]
        assert swarm.cli("exec", "st_db.1", "ls", "/data") == "", "nothing is copied"

        swarm.cli("node", "update", "--availability", "active", home)
        swarm.cli("volume", "update", "--node", home, "st_data.1")
        until(lambda: swarm.where(swarm.wait_running("st_db", 2)) == [home, other], "slot 1 is at home again")
        assert swarm.cli("exec", "st_db.1", "cat", "/data/who") == "first\n"
    finally:
        swarm.cli("stack", "rm", "st", ok=False)
        until(lambda: not swarm.tasks(), "all tasks are gone")
        swarm.cli("volume", "rm", "st_data", "st_data.1", "st_data.2", ok=False)
