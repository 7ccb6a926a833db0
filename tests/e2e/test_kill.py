"""kill -9 of any part, at any moment: what should run runs again, nothing runs twice, no record is lost."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from dataclasses import replace

import pytest

from pyswarm.client import Client
from pyswarm.objects import Service, TaskState
from pyswarm.specs import (
    ConfigSpec,
    ContainerSpec,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)
from tests.e2e.cluster import SLEEPER, Cluster, until

pytestmark = [pytest.mark.e2e, pytest.mark.root]

REPLICAS = 4
PARTS = ("agent", "manager", "etcd", "supervisor", "conmon", "container")


def sleeper(name: str, replicas: int = REPLICAS) -> ServiceSpec:
    container = ContainerSpec(image="busybox", args=tuple(SLEEPER))
    task = TaskSpec(container=container, restart=RestartPolicy(delay=0.2))
    return ServiceSpec(name=name, task=task, mode=ServiceMode(replicas=replicas))


def kill(cluster: Cluster, part: str, chance: random.Random) -> None:
    """kill -9 one process of the kind; a part that is just being restarted counts as killed."""
    if part == "conmon":
        pids = sorted(cluster.conmons().values())
    elif part == "container":
        pids = sorted(cluster.containers().values())
    else:
        pids = [pid for pid in [cluster.pid(part)] if pid]
    if pids:
        victim = chance.choice(pids)
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        if part == "supervisor":
            # Manager and agent bring it back; where all three die at once only a person can.
            until(lambda: cluster.pid(part) not in (0, victim), "the supervisor is started again")


def assert_exactly_desired(cluster: Cluster, service: str, replicas: int) -> None:
    """One container for each slot and no other, and the API says the same."""
    until(lambda: _answers(cluster), "the API answers")

    def settled() -> bool:
        # Asked together: what was killed a moment ago may still be believed to run, and is replaced then.
        wanted = [t for t in cluster.tasks(service) if t.desired_state <= TaskState.RUNNING]
        running = {t.id for t in wanted if t.status.state == TaskState.RUNNING}
        slots = {t.slot for t in wanted}
        return len(slots) == len(wanted) == replicas and running == set(cluster.containers())

    until(settled, "the running containers are exactly the desired ones, one for each slot")
    assert set(cluster.conmons()) <= set(cluster.containers()), "a monitor of a task that is gone"


@pytest.mark.parametrize("part", ["agent", "manager", "etcd", "supervisor"])
def test_containers_do_not_notice_the_death_of_a_daemon(own: Cluster, part: str) -> None:
    own.ask(lambda client: client.create(sleeper("web")))
    own.wait_running("web", REPLICAS)
    before = own.containers()
    assert set(own.conmons()) == set(before)
    pid = own.pid(part)
    assert pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: own.pid(part) not in (0, pid), f"the {part} is started again")
    until(lambda: _answers(own), "the API answers")
    own.wait_running("web", REPLICAS)
    assert own.containers() == before


def _answers(cluster: Cluster) -> bool:
    try:
        cluster.tasks()
    except Exception:
        return False
    return True


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [1, 2])
def test_any_order_any_moment(own: Cluster, seed: int) -> None:
    chance = random.Random(seed)
    print(f"seed {seed}")
    own.ask(lambda client: client.create(sleeper("web")))
    acknowledged: list[str] = []
    replicas = REPLICAS
    for step in range(14):
        kill(own, chance.choice(PARTS), chance)
        time.sleep(chance.uniform(0, 0.4))
        with contextlib.suppress(Exception):
            name = f"record-{step}"
            own.ask(lambda client, name=name: client.create(ConfigSpec(name=name, data=b"x")))
            acknowledged.append(name)
        if step % 5 == 4:
            replicas = chance.randint(2, 6)
            until(lambda n=replicas: _scaled(own, "web", n), "the scale is accepted")
    assert_exactly_desired(own, "web", replicas)
    kept = {c.spec.name for c in own.ask(lambda client: client.configs())}  # type: ignore[attr-defined]
    assert set(acknowledged) <= kept
    assert acknowledged, "no write was ever accepted: the test shows nothing"


def _scaled(cluster: Cluster, name: str, replicas: int) -> bool:
    async def scale(client: Client) -> None:
        service = await client.get(Service, name)
        await client.update(service, replace(service.spec, mode=ServiceMode(replicas=replicas)))

    try:
        cluster.ask(scale)
    except Exception:
        return False
    return True


def test_exit_codes_of_containers_that_end_while_the_agent_is_away(own: Cluster) -> None:
    """The supervisor is stopped, so that the agent stays away while its containers end."""
    script = "trap 'exit 7' TERM; while :; do sleep 1000 & wait $!; done"
    container = ContainerSpec(image="busybox", args=("sh", "-c", script))
    task = TaskSpec(container=container, restart=RestartPolicy(condition="none"))
    own.ask(lambda client: client.create(ServiceSpec(name="seven", task=task)))
    own.wait_running("seven", 1)
    os.kill(own.pid("supervisor"), signal.SIGSTOP)
    supervisor = own.pid("supervisor")
    agent = own.pid("agent")
    os.kill(agent, signal.SIGKILL)
    until(lambda: not own.pid("agent"), "the agent is gone")
    (container_pid,) = own.containers().values()
    os.kill(container_pid, signal.SIGTERM)
    until(lambda: not own.containers(), "the container has ended")
    os.kill(supervisor, signal.SIGCONT)
    ended = until(
        lambda: [t for t in own.tasks("seven") if t.status.exit_code is not None], "the exit code arrives"
    )
    assert ended[0].status.exit_code == 7
