"""What users and fate do in a history, by chance: each is a named step, so that the log reads as a story."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Literal

from manager.controller import Transaction
from manager.desired import bind_volume, create_service, rollback_service, update_service
from manager.store import StaleWrite
from pyswarm.objects import Network, Node, Service, TaskState, Volume
from pyswarm.specs import (
    ContainerSpec,
    CronSchedule,
    Dependency,
    Driver,
    EndpointSpec,
    Mount,
    NetworkAttachmentSpec,
    NetworkSpec,
    Placement,
    PortConfig,
    ResourceRequirements,
    Resources,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)
from tests.sim.cluster import GIB, SimCluster
from tests.sim.invariants import MOVED_LABEL, live

Step = Callable[[SimCluster], Awaitable[None]]

NAMES = ("web", "api", "db", "worker", "agent", "backup")
KINDS: tuple[Literal["replicated", "global", "replicated-job", "global-job"], ...] = (
    "replicated",
    "global",
    "replicated-job",
    "global-job",
)
GOOD = ("ok:1", "ok:2", "ok:3", "slow:1")
BAD = ("crash:1", "late:1", "flaky:1", "missing:1", "stuck:1")


def _update_config(rng: random.Random, rollback: bool = False) -> UpdateConfig:
    return UpdateConfig(
        parallelism=rng.choice((0, 1, 1, 2, 3)),
        delay=rng.choice((0.0, 0.0, 2.0, 8.0)),
        monitor=rng.choice((None, 1.0, 3.0)),
        failure_action=rng.choice(("pause", "continue") if rollback else ("pause", "continue", "rollback")),
        max_failure_ratio=rng.choice((0.0, 0.0, 0.3, 1.0)),
        order=rng.choice(("stop-first", "start-first")),
        progress_deadline=rng.choice((60.0, 120.0)),
    )


def _restart(rng: random.Random, job: bool) -> RestartPolicy:
    condition = rng.choice(
        ("on-failure", "on-failure", "none") if job else ("any", "any", "any", "on-failure")
    )
    return RestartPolicy(
        condition=condition,
        delay=rng.choice((None, 0.0, 1.0)),
        max_attempts=rng.choice((0, 0, 0, 2)),
        window=rng.choice((0.0, 20.0)),
        max_delay=30.0,
    )


def _mode(rng: random.Random) -> ServiceMode:
    (kind,) = rng.choices(KINDS, (5, 2, 2, 1))
    return ServiceMode(
        kind=kind,
        replicas=rng.randint(0, 5),
        max_concurrent=rng.randint(1, 3),
        total_completions=rng.randint(1, 4),
    )


def random_spec(rng: random.Random, name: str, networks: list[str]) -> ServiceSpec:
    """A service that somebody might deploy."""
    mode = _mode(rng)
    job = mode.kind.endswith("job")
    image = (
        rng.choice(("job:1", "job:1", "job:2", "flaky:1", "missing:1"))
        if job
        else rng.choice(GOOD + GOOD + BAD)
    )
    placement = Placement(
        constraints=rng.choice(((), (), (), ("node.labels.disk==ssd",))),
        max_replicas=rng.choice((0, 0, 0, 2)) if mode.kind == "replicated" else 0,
        strategy=rng.choice(("", "", "binpack")),
    )
    ports: tuple[PortConfig, ...] = ()
    if not job and rng.random() < 0.3:
        publish = rng.choice(("ingress", "host"))
        number = (
            rng.choice((0, 8000 + NAMES.index(name))) if publish == "ingress" else 9000 + NAMES.index(name)
        )
        ports = (PortConfig(target_port=80, published_port=number, publish_mode=publish),)
    depends: tuple[Dependency, ...] = ()
    if rng.random() < 0.25 and NAMES.index(name):
        other = NAMES[rng.randrange(NAMES.index(name))]
        depends = (
            Dependency(
                service=other,
                condition=rng.choice(
                    ("service_started", "service_healthy", "service_completed_successfully")
                ),
                restart=rng.random() < 0.3,
                required=rng.random() < 0.8,
            ),
        )
    cron = None
    if mode.kind == "replicated-job" and rng.random() < 0.4:
        cron = CronSchedule(
            schedule=rng.choice(("* * * * *", "@every 30s")),
            concurrency=rng.choice(("allow", "forbid", "replace")),
            history=rng.randint(1, 3),
        )
    stateful = mode.kind == "replicated" and rng.random() < 0.15
    mounts = (Mount(source=f"{name}-data", target="/data"),) if stateful else ()
    task = TaskSpec(
        container=ContainerSpec(image=image, stop_grace_period=rng.choice((None, 1.0)), mounts=mounts),
        resources=ResourceRequirements(
            reservations=Resources(
                memory=rng.choice((0, 0, GIB // 2, GIB)), nano_cpus=rng.choice((0, 0, 500_000_000))
            )
        ),
        restart=_restart(rng, job),
        placement=placement,
        networks=tuple(NetworkAttachmentSpec(target=id) for id in networks if rng.random() < 0.5),
    )
    return ServiceSpec(
        name=name,
        task=task,
        mode=mode,
        update=None if job else _update_config(rng),
        rollback=None if job else _update_config(rng, rollback=True),
        endpoint=EndpointSpec(mode="vip", ports=ports),
        depends_on=depends,
        cron=cron,
        rebalance=rng.choice(("", "", "gentle")),
        volumes_per_slot=stateful,
        volumes_move_after=rng.choice((None, None, 30.0)) if stateful else None,
    )


# ------------------------------------------------------------------------------------------- users


def _services(sim: SimCluster) -> list[Service]:
    return sorted(
        (s for s in sim.server.world.services.values() if not s.pending_delete), key=lambda s: s.spec.name
    )


def _networks(sim: SimCluster) -> list[str]:
    return sorted(
        n.id for n in sim.server.world.networks.values() if not n.pending_delete and not n.spec.ingress
    )


async def deploy(sim: SimCluster) -> None:
    taken = {s.spec.name for s in sim.server.world.services.values()}
    free = [name for name in NAMES if name not in taken]
    if not free:
        await change_image(sim)
        return
    spec = random_spec(sim.rng, sim.rng.choice(free), _networks(sim))
    sim.say(f"create {spec.name} {spec.mode.kind} {spec.task.container.image} x{spec.mode.replicas}")
    await sim.submit(lambda tx: create_service(tx, spec))


async def _update(
    sim: SimCluster, what: str, change: Callable[[ServiceSpec], ServiceSpec], force: bool = False
) -> None:
    services = _services(sim)
    if not services:
        await deploy(sim)
        return
    chosen = sim.rng.choice(services)
    sim.say(f"{what} {chosen.spec.name}")

    def mutation(tx: Transaction) -> None:
        service = tx.view.get(Service, chosen.id)
        if service is not None and not service.pending_delete:
            update_service(tx, service, change(service.spec), force=force)

    await sim.submit(mutation)


async def change_image(sim: SimCluster) -> None:
    image = sim.rng.choice(GOOD + GOOD + BAD)

    def change(spec: ServiceSpec) -> ServiceSpec:
        name = (
            sim.rng.choice(("job:1", "job:2", "missing:1", "flaky:1"))
            if spec.mode.kind.endswith("job")
            else image
        )
        container = replace(spec.task.container, image=name)
        return replace(spec, task=replace(spec.task, container=container))

    await _update(sim, f"image {image}", change)


async def scale(sim: SimCluster) -> None:
    count = sim.rng.randint(0, 6)
    await _update(
        sim, f"scale to {count}", lambda spec: replace(spec, mode=replace(spec.mode, replicas=count))
    )


async def force(sim: SimCluster) -> None:
    await _update(sim, "force", lambda spec: spec, force=True)


async def constrain(sim: SimCluster) -> None:
    said = sim.rng.choice(((), ("node.labels.disk==ssd",), ("node.hostname!=n1",)))
    await _update(
        sim,
        f"constraints {said}",
        lambda spec: replace(
            spec, task=replace(spec.task, placement=replace(spec.task.placement, constraints=said))
        ),
    )


async def roll_back(sim: SimCluster) -> None:
    services = [s for s in _services(sim) if s.previous_spec is not None]
    if not services:
        return
    chosen = sim.rng.choice(services)
    sim.say(f"rollback {chosen.spec.name}")

    def mutation(tx: Transaction) -> None:
        service = tx.view.get(Service, chosen.id)
        if service is not None and not service.pending_delete and service.previous_spec is not None:
            rollback_service(tx, service)

    await sim.submit(mutation)


async def remove_service(sim: SimCluster) -> None:
    services = _services(sim)
    if not services:
        return
    chosen = sim.rng.choice(services)
    sim.say(f"remove {chosen.spec.name}")

    def mutation(tx: Transaction) -> None:
        service = tx.view.get(Service, chosen.id)
        if service is not None:
            tx.put(replace(service, pending_delete=True))

    await sim.submit(mutation)


async def network(sim: SimCluster) -> None:
    ids = _networks(sim)
    if len(ids) >= 3:
        return
    name = f"net{sim.rng.randrange(1000)}"
    sim.say(f"network {name}")

    def mutation(tx: Transaction) -> None:
        if tx.view.by_name(Network, name) is None:
            spec = NetworkSpec(name=name, driver=Driver(name="overlay"))
            tx.put(Network(id=tx.view.new_id(), spec=spec))

    await sim.submit(mutation)


async def availability(sim: SimCluster) -> None:
    node_id = sim.rng.choice(sorted(sim.agents))
    said = sim.rng.choice(("active", "active", "pause", "drain"))
    sim.say(f"node {node_id} {said}")

    def mutation(tx: Transaction) -> None:
        node = tx.view.get(Node, node_id)
        if node is not None:
            tx.put(replace(node, spec=replace(node.spec, availability=said)))

    await sim.submit(mutation)


async def label(sim: SimCluster) -> None:
    node_id = sim.rng.choice(sorted(sim.agents))
    labels = sim.rng.choice(({}, {"disk": "ssd"}))
    sim.say(f"node {node_id} labels {labels}")

    def mutation(tx: Transaction) -> None:
        node = tx.view.get(Node, node_id)
        if node is not None:
            tx.put(replace(node, spec=replace(node.spec, labels=labels)))

    await sim.submit(mutation)


async def move_volume(sim: SimCluster) -> None:
    """A person says that a slot's data is on another node now."""
    volumes = sorted(sim.server.world.volumes.values(), key=lambda volume: volume.spec.name)
    if not volumes:
        await deploy(sim)
        return
    chosen, node_id = sim.rng.choice(volumes), sim.rng.choice([*sorted(sim.agents), ""])
    sim.say(f"volume {chosen.spec.name} is on {node_id or 'any node'}")

    def mutation(tx: Transaction) -> None:
        volume = tx.view.get(Volume, chosen.id)
        if volume is not None and (not node_id or tx.view.get(Node, node_id) is not None):
            bound = bind_volume(tx, volume, node_id)
            labels = {**bound.spec.labels, MOVED_LABEL: node_id}
            tx.put(replace(bound, spec=replace(bound.spec, labels=labels)))

    await sim.submit(mutation)


async def join(sim: SimCluster) -> None:
    if len(sim.agents) < 6:
        sim.say(f"node {await sim.add_node()} joins")


async def remove_node(sim: SimCluster) -> None:
    if len(sim.agents) < 4:
        return
    node_id = sim.rng.choice(sorted(sim.agents))
    sim.say(f"node {node_id} is removed")
    sim.agents.pop(node_id).crash()

    def mutation(tx: Transaction) -> None:
        node = tx.view.get(Node, node_id)
        if node is not None:
            tx.delete(node)

    await sim.submit(mutation)


# -------------------------------------------------------------------------------------------- fate


async def crash_node(sim: SimCluster) -> None:
    agent = sim.agents[sim.rng.choice(sorted(sim.agents))]
    if agent.up:
        sim.say(f"node {agent.node_id} crashes")
        agent.crash()
        await _later(
            sim, sim.rng.uniform(1.0, 90.0), lambda: None if agent.up else agent.start(), agent.node_id
        )


async def cut_node(sim: SimCluster) -> None:
    agent = sim.agents[sim.rng.choice(sorted(sim.agents))]
    sim.say(f"node {agent.node_id} is cut off")
    agent.cut = True

    def heal() -> None:
        agent.cut = False

    await _later(sim, sim.rng.uniform(1.0, 90.0), heal, agent.node_id)


async def _later(sim: SimCluster, seconds: float, action: Callable[[], None], node_id: str) -> None:
    def act() -> None:
        if node_id in sim.agents:
            sim.say(f"node {node_id} is back")
            action()

    asyncio.get_running_loop().call_later(seconds, act)


async def kill_container(sim: SimCluster) -> None:
    running = [(agent, task) for _, agent in sorted(sim.agents.items()) for task in agent.running()]
    if running:
        agent, task = sim.rng.choice(running)
        sim.say(f"container of {task.service_name}.{task.slot} on {agent.node_id} is killed")
        agent.kill_container(task.id)


async def depose(sim: SimCluster) -> None:
    """The leader loses its lease; it may go on for a while before it notices."""
    name = sim.server.leader
    manager = next((m for m in sim.managers if m.name == name), None)
    if manager is None:
        return
    manager.blind = sim.rng.choice((0.0, 0.0, 0.5, 4.0))
    sim.say(f"leader {name} is deposed, blind for {manager.blind}")
    sim.server.expire(manager.name)


async def cut_leader(sim: SimCluster) -> None:
    manager = next((m for m in sim.managers if m.name == sim.server.leader), None)
    if manager is None:
        return
    seconds = sim.rng.uniform(0.1, 5.0)
    sim.say(f"leader {manager.name} loses the store for {seconds:.1f} s")
    manager.store.cut()
    asyncio.get_running_loop().call_later(seconds, manager.store.heal)


async def lose_answer(sim: SimCluster) -> None:
    for manager in sim.managers:
        manager.store.lose_answers(1)
    sim.say("the store's next answers are lost")


async def stale_write(sim: SimCluster) -> None:
    manager = next((m for m in sim.managers if m.name == sim.server.leader), None)
    if manager is not None:
        sim.say("the next commit is stale")
        manager.store.refuse(StaleWrite("by chance"))


async def store_down(sim: SimCluster) -> None:
    seconds = sim.rng.uniform(0.1, 4.0)
    sim.say(f"the store is down for {seconds:.1f} s")
    sim.server.set_down(True)
    asyncio.get_running_loop().call_later(seconds, lambda: sim.server.set_down(False))


async def storm(sim: SimCluster) -> None:
    sim.weather.delay = sim.rng.choice((0.02, 0.5, 2.0))
    sim.weather.lose = sim.rng.choice((0.0, 0.05, 0.2))
    sim.weather.duplicate = sim.rng.choice((0.0, 0.3))
    sim.say(f"weather {sim.weather}")


async def nothing(sim: SimCluster) -> None:
    del sim


STEPS: tuple[tuple[int, Step], ...] = (
    (10, deploy),
    (10, change_image),
    (6, scale),
    (3, force),
    (3, constrain),
    (4, roll_back),
    (3, remove_service),
    (2, network),
    (5, availability),
    (3, label),
    (3, move_volume),
    (1, join),
    (1, remove_node),
    (4, crash_node),
    (4, cut_node),
    (4, kill_container),
    (3, depose),
    (2, cut_leader),
    (2, lose_answer),
    (2, stale_write),
    (1, store_down),
    (2, storm),
    (6, nothing),
)


def settled(sim: SimCluster) -> bool:
    """Whether every wanted task has got where it can get, as far as tasks tell."""
    return all(
        t.status.state == TaskState.RUNNING or t.status.state > TaskState.RUNNING
        for t in sim.server.world.tasks.values()
        if live(t)
    )
