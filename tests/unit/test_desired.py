"""What requests mean for the desired state: stacks whole or not at all, versions of files, refused removals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from manager import desired
from manager.controller import Transaction
from manager.desired import Builder
from manager.state import State
from pyswarm.api import DeployRequest, DeployResponse
from pyswarm.clock import SeededIds
from pyswarm.errors import Conflict, Invalid, NotFound
from pyswarm.objects import (
    Config,
    Kind,
    Meta,
    Network,
    Node,
    NodeState,
    NodeStatus,
    Object,
    Secret,
    Service,
    Task,
    TaskState,
    kind_of,
)
from pyswarm.specs import (
    STACK_LABEL,
    VERSION_OF_LABEL,
    ConfigSpec,
    ContainerSpec,
    EndpointSpec,
    FileReference,
    Mount,
    NetworkAttachmentSpec,
    NetworkSpec,
    NodeSpec,
    PortConfig,
    SecretSpec,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    VolumeSpec,
)
from tests.unit.leader import SEAL, unseal

LABELS = {STACK_LABEL: "shop"}


class World:
    """A committed state, and requests against it, each committed when it goes well."""

    def __init__(self, *objects: Object) -> None:
        self.state = State(SeededIds(5))
        self.builder = Builder(lambda view, spec: None, lambda data: SEAL + data, unseal)
        self.revision = 1
        bridge = Network(id="bridge", spec=NetworkSpec(name="bridge"))
        self.state.load([replace(o, meta=Meta(version=1)) for o in (bridge, *objects)], 1)

    def do(self, work: Callable[[Transaction], Any]) -> Any:
        tx = Transaction(self.state, float(self.revision))
        try:
            result = work(tx)
        except Exception:
            tx.undo()
            assert all(before == after for _, _, before, after in self.state.staged()), (
                "something was left behind"
            )
            self.state.rollback()
            raise
        self.revision += 1
        written = [
            replace(after, meta=replace(after.meta, version=self.revision))
            for _, _, _, after in self.state.staged()
            if after is not None
        ]
        self.state.settle(written, self.revision)
        return result

    def deploy(self, **parts: Any) -> DeployResponse:
        return self.do(lambda tx: self.builder.deploy(tx, DeployRequest(stack="shop", **parts)))

    def all(self, cls: type[Any]) -> dict[str, Any]:
        kind: Kind = kind_of(cls(id="x"))
        return {desired.query.display_name(o): o for o in desired.query.objects(self.state.view, kind)}

    def remove(self, kind: Kind, ref: str, *, force: bool = False) -> None:
        self.do(lambda tx: desired.remove(tx, kind, ref, force=force))


def service(name: str = "shop_web", *, labels: bool = True, **container: Any) -> ServiceSpec:
    fields: dict[str, Any] = {"image": "web", **container}
    spec = ContainerSpec(**fields)
    return ServiceSpec(name=name, labels=LABELS if labels else {}, task=TaskSpec(container=spec))


def with_port(spec: ServiceSpec, port: int) -> ServiceSpec:
    ports = (PortConfig(target_port=80, published_port=port),)
    return replace(spec, endpoint=EndpointSpec(ports=ports))


def on(spec: ServiceSpec, network: str) -> ServiceSpec:
    return replace(spec, task=replace(spec.task, networks=(NetworkAttachmentSpec(target=network),)))


def files(name: str) -> tuple[FileReference, ...]:
    return (FileReference(source_name=name, target=name),)


def secret(data: bytes, name: str = "shop_pw") -> SecretSpec:
    return SecretSpec(name=name, labels=LABELS, data=data)


def config(data: bytes, name: str = "shop_conf") -> ConfigSpec:
    return ConfigSpec(name=name, labels=LABELS, data=data)


def actions(response: DeployResponse) -> list[tuple[str, str, str]]:
    return [(a.kind, a.name, a.action) for a in response.actions]


def test_a_stack_is_made_whole_with_names_resolved() -> None:
    world = World()
    response = world.deploy(
        networks=(NetworkSpec(name="shop_net", labels=LABELS),),
        volumes=(VolumeSpec(name="shop_data", labels=LABELS),),
        secrets=(secret(b"x"),),
        services=(on(service(secrets=files("shop_pw")), "shop_net"),),
    )
    assert [a.action for a in response.actions] == ["create"] * 4
    web = world.all(Service)["shop_web"]
    assert web.spec.task.networks[0].target == world.all(Network)["shop_net"].id
    assert web.spec.task.container.secrets[0].source_id == world.all(Secret)["shop_pw"].id
    assert world.all(Secret)["shop_pw"].spec.data == b"sealed:x"


def test_one_mistake_and_nothing_of_the_stack_is_made() -> None:
    world = World()
    with pytest.raises(Invalid) as error:
        world.deploy(
            networks=(NetworkSpec(name="shop_net", labels=LABELS),),
            secrets=(secret(b"x"),),
            services=(
                service(),
                service("shop_bad", image=""),
                service("shop_lost", configs=files("nowhere")),
            ),
        )
    assert "shop_bad" in str(error.value), "all problems are named"
    assert "config nowhere not found" in str(error.value)
    assert world.all(Service) == {}
    assert list(world.all(Network)) == ["bridge"]


def test_two_services_of_a_stack_on_one_port_are_refused_and_swapped_ports_are_not() -> None:
    world = World()
    with pytest.raises(Invalid, match="8080"):
        world.deploy(services=(with_port(service("shop_a"), 8080), with_port(service("shop_b"), 8080)))
    world.deploy(services=(with_port(service("shop_a"), 8080), with_port(service("shop_b"), 8081)))
    world.deploy(services=(with_port(service("shop_a"), 8081), with_port(service("shop_b"), 8080)))


def test_the_same_again_changes_nothing() -> None:
    world = World()
    parts: dict[str, Any] = {"secrets": (secret(b"x"),), "services": (service(secrets=files("shop_pw")),)}
    world.deploy(**parts)
    before = {name: o.meta for name, o in world.all(Service).items()}
    assert {a.action for a in world.deploy(**parts).actions} == {"unchanged"}
    assert before == {name: o.meta for name, o in world.all(Service).items()}


def part(kind: str, spec: Any) -> dict[str, Any]:
    """A stack of one file and the service that uses it."""
    container: dict[str, Any] = {kind: files(spec.name)}
    return {kind: (spec,), "services": (service(**container),)}


@pytest.mark.parametrize("make", [secret, config])
def test_new_content_is_a_new_version_and_the_service_moves_to_it(make: Callable[[bytes], Any]) -> None:
    world = World()
    kind = "secrets" if make is secret else "configs"
    cls = Secret if make is secret else Config
    name = make(b"").name
    world.deploy(**part(kind, make(b"one")))
    first = world.all(cls)[name]
    changed = part(kind, make(b"two"))
    response = world.deploy(**changed)
    assert [a.action for a in response.actions] == ["update", "update"]
    new = next(o for o in world.all(cls).values() if o.id != first.id)
    assert new.spec.labels[VERSION_OF_LABEL] == name
    (reference,) = getattr(world.all(Service)["shop_web"].spec.task.container, kind)
    assert (reference.source_id, reference.target) == (new.id, name), (
        "the container sees the name people wrote"
    )
    assert first.id in {o.id for o in world.all(cls).values()}, "the way back needs it"
    assert {a.action for a in world.deploy(**changed).actions} == {"unchanged"}
    world.deploy(**changed, prune=True)
    assert first.id in {o.id for o in world.all(cls).values()}, "pruning keeps the way back too"


def test_a_versions_name_does_not_tell_of_a_secrets_content() -> None:
    names: set[str] = set()
    for seed in (b"a", b"b"):
        world = World(Secret(id="pad" + seed.decode(), spec=SecretSpec(name="pad")))
        for _ in seed * (1 if seed == b"a" else 2):
            world.state.view.new_id()
        world.deploy(secrets=(secret(b"one"),))
        world.deploy(secrets=(secret(b"two"),))
        names |= {n for n in world.all(Secret) if n.startswith("shop_pw-")}
        world.state.view.new_id()
    assert len(names) == 2, "the same content, another name"


def test_prune_takes_what_is_not_named_and_leaves_what_others_use() -> None:
    world = World()
    net = NetworkSpec(name="shop_net", labels=LABELS)
    world.deploy(
        networks=(net,),
        secrets=(secret(b"x"), secret(b"y", "shop_lent")),
        configs=(config(b"x"),),
        services=(service("shop_old"), service("shop_web")),
    )
    world.do(
        lambda tx: desired.create_service(
            tx, on(service("guest", labels=False, secrets=files("shop_lent")), "shop_net")
        )
    )
    response = world.deploy(services=(service("shop_web"),), prune=True)
    assert set(actions(response)) == {
        ("service", "shop_web", "unchanged"),
        ("service", "shop_old", "remove"),
        ("secret", "shop_pw", "remove"),
        ("config", "shop_conf", "remove"),
    }
    assert world.all(Service)["shop_old"].pending_delete
    assert not world.all(Network)["shop_net"].pending_delete
    assert sorted(response.warnings) == [
        "network shop_net stays: it is in use by the service(s) guest",
        "secret shop_lent stays: it is in use by the service(s) guest",
    ]


def test_a_stack_is_removed_but_for_its_volumes_and_what_others_use() -> None:
    world = World()
    world.deploy(
        networks=(NetworkSpec(name="shop_net", labels=LABELS), NetworkSpec(name="shop_lent", labels=LABELS)),
        volumes=(VolumeSpec(name="shop_data", labels=LABELS),),
        secrets=(secret(b"x"),),
        services=(on(service(secrets=files("shop_pw")), "shop_net"),),
    )
    world.do(lambda tx: desired.create_service(tx, on(service("guest", labels=False), "shop_lent")))
    response = world.do(lambda tx: desired.remove_stack(tx, "shop"))
    assert {(a.kind, a.name) for a in response.actions} == {
        ("service", "shop_web"),
        ("secret", "shop_pw"),
        ("network", "shop_net"),
    }
    assert len(response.warnings) == 1
    world.do(lambda tx: desired.remove_stack(tx, "shop"))
    with pytest.raises(NotFound, match="nothing found in stack: other"):
        world.do(lambda tx: desired.remove_stack(tx, "other"))


def test_a_network_of_another_shape_is_refused() -> None:
    world = World()
    world.deploy(networks=(NetworkSpec(name="shop_net", labels=LABELS),))
    assert (
        actions(world.deploy(networks=(NetworkSpec(name="shop_net", labels={"a": "b"}),)))[0][2]
        == "unchanged"
    )
    with pytest.raises(Invalid, match="other settings"):
        world.deploy(networks=(NetworkSpec(name="shop_net", attachable=True),))


Edit = Callable[[ServiceSpec], ServiceSpec]
REFUSED: list[tuple[Edit, type[Exception], str]] = [
    (lambda s: replace(s, name="other"), Invalid, "cannot be renamed"),
    (lambda s: replace(s, mode=ServiceMode(kind="global")), Invalid, "mode cannot change"),
    (lambda s: on(s, "nowhere"), NotFound, "network nowhere not found"),
    (lambda s: replace(s, task=TaskSpec()), Invalid, "image"),
]


@pytest.mark.parametrize(("change", "error", "words"), REFUSED)
def test_updates_that_are_refused(
    change: Callable[[ServiceSpec], ServiceSpec], error: type[Exception], words: str
) -> None:
    world = World()
    made = world.do(lambda tx: desired.create_service(tx, service()))
    with pytest.raises(error, match=words):
        world.do(lambda tx: desired.update_service(tx, made, change(service())))


def test_a_service_without_networks_is_on_the_default_one() -> None:
    world = World()
    made = world.do(lambda tx: desired.create_service(tx, service()))
    assert made.spec.task.networks == (NetworkAttachmentSpec(target="bridge"),)


def test_a_rollback_to_what_is_gone_says_so() -> None:
    world = World()
    world.deploy(secrets=(secret(b"x"),))
    made = world.do(lambda tx: desired.create_service(tx, service(secrets=files("shop_pw"))))
    changed = world.do(lambda tx: desired.update_service(tx, made, service()))
    world.remove("secret", "shop_pw")
    with pytest.raises(NotFound, match="shop_pw"):
        world.do(lambda tx: desired.rollback_service(tx, changed))


def test_a_rollback_to_a_port_that_is_taken_meanwhile_says_so() -> None:
    world = World()
    made = world.do(lambda tx: desired.create_service(tx, with_port(service(), 80)))
    changed = world.do(lambda tx: desired.update_service(tx, made, service()))
    world.do(lambda tx: desired.create_service(tx, with_port(service("other"), 80)))
    with pytest.raises(Conflict, match="80"):
        world.do(lambda tx: desired.rollback_service(tx, changed))


def test_an_updated_job_runs_again_and_a_repeated_one_does_not() -> None:
    job = replace(service(), mode=ServiceMode(kind="replicated-job"))
    job = replace(job, task=replace(job.task, restart=replace(job.task.restart, condition="none")))
    world = World()
    made = world.do(lambda tx: desired.create_service(tx, job))
    assert made.job_status.iteration == 0
    again = world.do(lambda tx: desired.update_service(tx, made, job, force=True))
    assert again.job_status.iteration == 1
    assert world.do(lambda tx: desired.update_service(tx, again, again.spec)) is again


def test_what_is_in_use_is_not_removed() -> None:
    world = World()
    world.deploy(
        networks=(NetworkSpec(name="shop_net", labels=LABELS),),
        volumes=(VolumeSpec(name="shop_data", labels=LABELS),),
        secrets=(secret(b"x"),),
        configs=(config(b"x"),),
        services=(
            on(
                service(
                    secrets=files("shop_pw"),
                    configs=files("shop_conf"),
                    mounts=(Mount(type="volume", source="shop_data", target="/data"),),
                ),
                "shop_net",
            ),
        ),
    )
    pairs: list[tuple[Kind, str]] = [
        ("network", "shop_net"),
        ("volume", "shop_data"),
        ("secret", "shop_pw"),
        ("config", "shop_conf"),
    ]
    for kind, name in pairs:
        with pytest.raises(Conflict, match=r"in use by .*shop_web"):
            world.remove(kind, name)
    world.remove("service", "shop_web")
    for kind, name in pairs:
        world.remove(kind, name)


def test_built_in_networks_stay() -> None:
    world = World(Network(id="i", spec=NetworkSpec(name="ingress", ingress=True)))
    for name in ("bridge", "ingress"):
        with pytest.raises(Conflict, match="built in"):
            world.remove("network", name)


def test_a_node_is_removed_when_it_is_down_and_its_tasks_end() -> None:
    ready = Node(id="n1", spec=NodeSpec(name="n1"), status=NodeStatus(state=NodeState.READY))
    boss = Node(id="m1", spec=NodeSpec(name="m1", role="manager"), role="manager")
    world = World(ready, boss, Task(id="t1", service_id="s", node_id="n1"))
    with pytest.raises(Conflict, match="not down"):
        world.remove("node", "n1")
    with pytest.raises(Conflict, match="demote it first"):
        world.remove("node", "m1")
    with pytest.raises(Conflict, match="the last manager"):
        world.remove("node", "m1", force=True)
    world.remove("node", "n1", force=True)
    task = world.state.view.get(Task, "t1")
    assert task is not None and task.status.state == TaskState.ORPHANED


def test_tasks_and_the_cluster_are_not_removed_by_name() -> None:
    world = World(Task(id="t1", service_id="s"))
    with pytest.raises(Invalid, match="scaling"):
        world.remove("task", "t1")


def test_a_name_that_is_taken_is_refused_and_one_that_is_going_is_told() -> None:
    world = World()
    world.do(lambda tx: desired.create_service(tx, service()))
    with pytest.raises(Conflict, match="already exists"):
        world.do(lambda tx: desired.create_service(tx, service()))
    world.remove("service", "shop_web")
    with pytest.raises(Conflict, match="still being removed"):
        world.do(lambda tx: desired.create_service(tx, service()))
