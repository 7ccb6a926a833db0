"""Plans: what would change, in which order, and how it is shown."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from compose.convert import StackSpecs
from compose.plan import (
    Change,
    StackPlan,
    StackState,
    Versions,
    diff,
    plan_stack,
    render_dot,
    render_graph,
    render_json,
    render_text,
    versions_in,
)
from pyswarm.api import DeployAction, DeployRequest, DeployResponse
from pyswarm.errors import Invalid
from pyswarm.objects import Config, Network, Secret, Service, Volume
from pyswarm.specs import (
    STACK_LABEL,
    VERSION_OF_LABEL,
    Autoscale,
    ConfigSpec,
    ContainerSpec,
    Dependency,
    Driver,
    FileReference,
    Mount,
    NetworkAttachmentSpec,
    NetworkSpec,
    SecretSpec,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    VolumeSpec,
)

LABELS = {STACK_LABEL: "shop"}


def _service(name: str, image: str = "x:1", needs: tuple[str, ...] = (), **fields: object) -> ServiceSpec:
    container = ContainerSpec(
        image=image,
        env=("A=1",),
        secrets=(FileReference(source_name="shop_s", target="s"),),
        mounts=(Mount(source="shop_v", target="/v"),),
    )
    return ServiceSpec(
        name=f"shop_{name}",
        labels=LABELS,
        task=TaskSpec(
            container=container, networks=(NetworkAttachmentSpec(target="shop_n", aliases=(name,)),)
        ),
        depends_on=tuple(Dependency(service=f"shop_{need}") for need in needs),
        **fields,  # pyright: ignore[reportArgumentType]
    )


def _desired(*services: ServiceSpec) -> StackSpecs:
    return StackSpecs(
        stack="shop",
        services=services,
        networks=(NetworkSpec(name="shop_n", labels=LABELS),),
        volumes=(VolumeSpec(name="shop_v", labels=LABELS),),
        secrets=(SecretSpec(name="shop_s", labels=LABELS, data=b"secret"),),
        configs=(ConfigSpec(name="shop_c", labels=LABELS, data=b"config"),),
    )


def _state(desired: StackSpecs) -> StackState:
    """The cluster after `desired` was deployed: ids for names, digests, no secret data."""
    return StackState(
        services=tuple(
            Service(
                id=f"id-{spec.name}",
                spec=replace(
                    spec,
                    task=replace(
                        spec.task,
                        container=replace(
                            spec.task.container,
                            image=f"{spec.task.container.image}@sha256:{'0' * 64}",
                            secrets=tuple(
                                replace(reference, source_id="sid")
                                for reference in spec.task.container.secrets
                            ),
                        ),
                        networks=tuple(replace(item, target="nid") for item in spec.task.networks),
                        force_update=3,
                        registry_auth="hidden",
                    ),
                ),
            )
            for spec in desired.services
        ),
        networks=tuple(Network(id="nid", spec=spec) for spec in desired.networks),
        volumes=tuple(Volume(id="vid", spec=spec) for spec in desired.volumes),
        secrets=tuple(Secret(id="sid", spec=replace(spec, data=b"")) for spec in desired.secrets),
        configs=tuple(Config(id="cid", spec=spec) for spec in desired.configs),
    )


def _find(plan: StackPlan, name: str) -> Change:
    return next(change for change in plan.changes if change.name == name)


def test_everything_is_created_in_waves() -> None:
    plan = plan_stack(
        _desired(_service("web", needs=("api",)), _service("api", needs=("db",)), _service("db")),
        StackState(),
        True,
    )
    waves = [[f"{change.kind}/{change.name}" for change in wave] for wave in plan.waves]
    assert waves == [
        ["network/shop_n", "volume/shop_v", "secret/shop_s", "config/shop_c"],
        ["service/shop_db"],
        ["service/shop_api"],
        ["service/shop_web"],
    ]
    assert {change.action for change in plan.changes} == {"create"}


def test_a_deployed_stack_needs_nothing() -> None:
    desired = _desired(_service("web"))
    plan = plan_stack(desired, _state(desired), True)
    assert plan.empty
    assert {change.action for change in plan.changes} == {"unchanged"}
    assert _find(plan, "shop_s").unknown == ("data",)
    assert render_text(plan) == "shop: nothing to do, 5 unchanged\n"


def test_updates_name_their_fields() -> None:
    old = _desired(_service("web"))
    web = _service("web", image="x:2")
    container = replace(
        web.task.container, env=("A=2", "B=3"), mounts=(Mount(source="shop_v", target="/v", read_only=True),)
    )
    web = replace(web, task=replace(web.task, container=container), mode=ServiceMode(replicas=3))
    change = _find(plan_stack(_desired(web), _state(old), False), "shop_web")
    assert change.action == "update"
    assert change.id == "id-shop_web"
    assert [(item.path, item.old, item.new) for item in change.fields] == [
        ("task.container.image", f"x:1@sha256:{'0' * 64}", "x:2"),
        ("task.container.env.A", "1", "2"),
        ("task.container.env.B", None, "3"),
        ("task.container.mounts./v.read_only", False, True),
        ("mode.replicas", 1, 3),
    ]


def test_what_cannot_change_is_replaced_or_kept() -> None:
    old = _desired(_service("web"))
    new = replace(
        _desired(_service("web", mode=ServiceMode(kind="global"))),
        networks=(NetworkSpec(name="shop_n", labels=LABELS, internal=True),),
        volumes=(VolumeSpec(name="shop_v", labels=LABELS, driver=Driver(name="nfs")),),
        configs=(ConfigSpec(name="shop_c", labels=LABELS, data=b"changed!"),),
        secrets=(SecretSpec(name="shop_s", labels={**LABELS, "a": "b"}, data=b"secret"),),
    )
    plan = plan_stack(new, _state(old), False)
    actions = {change.name: change.action for change in plan.changes}
    assert actions == {
        "shop_n": "replace",
        "shop_v": "keep",
        "shop_s": "update",
        "shop_c": "replace",
        "shop_web": "replace",
    }
    assert _find(plan, "shop_web").reason == "the mode of a service cannot be changed"
    (item,) = _find(plan, "shop_c").fields
    assert (item.path, item.old, item.new) == (
        "data",
        "6 bytes, sha256 b79606fb3afe",
        "8 bytes, sha256 9d463bde2a7e",
    )


def _versions(desired: StackSpecs, **names: str) -> Versions:
    """What the managers say: the named versions, for others what is there."""
    request = DeployRequest(stack="shop", secrets=desired.secrets, configs=desired.configs)
    actions = [
        DeployAction(kind=kind, name=names.get(kind, spec.name), id=names.get(kind, id))
        for kind, specs, id in (("secret", desired.secrets, "sid"), ("config", desired.configs, "cid"))
        for spec in specs
    ]
    return versions_in(request, DeployResponse(actions=tuple(actions)))


def test_services_are_updated_for_what_the_managers_say_of_secrets() -> None:
    old = _desired(_service("web"))
    new = replace(old, secrets=(SecretSpec(name="shop_s", labels=LABELS, data=b"other"),))
    assert plan_stack(new, _state(old), False, _versions(old)).empty
    plan = plan_stack(new, _state(old), True, _versions(new, secret="shop_s-2"))
    assert [(c.action, c.name) for c in plan.changes if c.action != "unchanged"] == [
        ("replace", "shop_s"),
        ("update", "shop_web"),
    ]
    assert "(secret)" in render_text(plan)
    assert "sha256" not in render_text(plan)
    (item,) = _find(plan, "shop_web").fields
    assert (item.path, item.old, item.new) == (
        "task.container.secrets.s.source_name",
        "shop_s",
        "shop_s-2",
    )


def test_a_version_that_is_in_use_is_nothing_to_do_and_nothing_to_prune() -> None:
    first = _desired(_service("web"))
    labels = {**LABELS, VERSION_OF_LABEL: "shop_s"}
    second = SecretSpec(name="shop_s-2", labels=labels)
    state = _state(first)
    state = replace(
        state,
        secrets=(*state.secrets, Secret(id="shop_s-2", spec=second)),
        services=tuple(
            replace(
                s,
                spec=replace(
                    s.spec,
                    task=replace(
                        s.spec.task,
                        container=replace(
                            s.spec.task.container,
                            secrets=(
                                FileReference(source_name="shop_s-2", source_id="shop_s-2", target="s"),
                            ),
                        ),
                    ),
                ),
            )
            for s in state.services
        ),
    )
    assert plan_stack(first, state, True, _versions(first, secret="shop_s-2")).empty


def test_prune_removes_what_is_not_named_but_volumes() -> None:
    old = _desired(_service("web"), _service("gone"))
    new = StackSpecs(stack="shop", services=(_service("web"),))
    state = replace(
        _state(old),
        networks=(*_state(old).networks, Network(id="other", spec=NetworkSpec(name="theirs"))),
    )
    assert all(change.action != "remove" for change in plan_stack(new, state, False).changes)
    plan = plan_stack(new, state, True)
    removed = [[change.name for change in wave] for wave in plan.waves if wave[0].action == "remove"]
    assert removed == [["shop_gone"], ["shop_n", "shop_s", "shop_c"]]


def test_autoscaled_replicas_are_left_alone() -> None:
    scale = Autoscale(min=2, max=5)
    old = _desired(_service("web", mode=ServiceMode(replicas=4), autoscale=scale))
    assert plan_stack(_desired(_service("web", autoscale=scale)), _state(old), True).empty
    narrow = _desired(_service("web", autoscale=Autoscale(min=2, max=3)))
    paths = [item.path for item in _find(plan_stack(narrow, _state(old), True), "shop_web").fields]
    assert paths == ["mode.replicas", "autoscale.max"]


def test_cycles_are_named() -> None:
    desired = _desired(_service("a", needs=("b",)), _service("b", needs=("a",)))
    with pytest.raises(Invalid, match="services wait for each other: shop_a -> shop_b -> shop_a"):
        plan_stack(desired, StackState(), False)


def test_renderers() -> None:
    old = _desired(_service("web"))
    plan = plan_stack(
        _desired(_service("web", image="x:2"), _service("api", needs=("web",))), _state(old), True
    )
    assert render_text(plan) == (
        "~ service shop_web\n"
        f'    task.container.image: "x:1@sha256:{"0" * 64}" -> "x:2"\n'
        "+ service shop_api\n"
        "shop: 1 to create, 1 to update, 4 unchanged\n"
    )
    data = json.loads(render_json(plan))
    assert data["counts"]["update"] == 1
    assert data["waves"][1][0]["fields"][0]["path"] == "task.container.image"
    dot = render_dot(plan)
    assert '"service/shop_api" -> "service/shop_web";' in dot
    assert dot.startswith('digraph "shop" {')
    assert render_graph(plan) == (
        "wave 1\n  = network/shop_n\n  = volume/shop_v\n  = secret/shop_s\n  = config/shop_c\n"
        "wave 2\n  ~ service/shop_web\n      ├─ network/shop_n\n      ├─ secret/shop_s\n      └─ volume/shop_v\n"
        "wave 3\n  + service/shop_api\n      ├─ network/shop_n\n      ├─ secret/shop_s\n"
        "      ├─ service/shop_web\n      └─ volume/shop_v\n"
    )


def test_diff_of_equal_values_is_empty() -> None:
    assert diff(_service("a"), _service("a")) == ()
