"""The control service over a leader in memory: versions, events, filters, what is never shown, repeated creates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from manager import control as module
from pyswarm import wire
from pyswarm.api import (
    CreateRequest,
    DeployRequest,
    Empty,
    EventMessage,
    EventsRequest,
    ExecInputMessage,
    ExecStart,
    Filter,
    GetRequest,
    ListRequest,
    NodeCommand,
    RemoveRequest,
    RotateRequest,
    SpecBox,
    UpdateRequest,
)
from pyswarm.errors import Conflict, Invalid, NotFound, Unavailable
from pyswarm.objects import Service
from pyswarm.rpc import Peer
from pyswarm.specs import (
    ClusterSpec,
    ConfigSpec,
    ContainerSpec,
    ExternalCA,
    NetworkSpec,
    NodeSpec,
    SecretSpec,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)
from tests.unit.leader import Leader, leading, node, task

ADMIN = Peer("admin")
AUTH = "cmVnaXN0cnktcGFzc3dvcmQ="


def web(name: str = "web", **mode: Any) -> ServiceSpec:
    container = ContainerSpec(image="web@sha256:" + "0" * 64)
    return ServiceSpec(
        name=name, mode=ServiceMode(**mode), task=TaskSpec(container=container, registry_auth=AUTH)
    )


async def create(leader: Leader, key: str = "", **spec: Any) -> Any:
    request = CreateRequest(spec=SpecBox(**spec), idempotency_key=key, resolve_image="never")
    box = await leader.control.create(request, ADMIN)
    return getattr(box, next(iter(spec)))


async def update(leader: Leader, kind: str, obj: Any, version: int | None = None, **more: Any) -> Any:
    spec = more.pop(kind, None)
    request = UpdateRequest(
        kind=kind,
        id=obj.id,
        version=obj.meta.version if version is None else version,
        spec=SpecBox(**{kind: spec}) if spec is not None else SpecBox(),
        resolve_image="never",
        **more,
    )
    return getattr(await leader.control.update(request, ADMIN), kind)


async def test_objects_are_made_found_listed_and_removed() -> None:
    async with leading() as leader:
        service = await create(leader, service=web())
        found = (await leader.control.get(GetRequest(kind="service", ref="web"), ADMIN)).service
        assert found == service
        listed = await leader.control.list(ListRequest(kind="service"), ADMIN)
        assert (listed.services, listed.revision) == ((service,), leader.controller.state.revision)
        await create(leader, config=ConfigSpec(name="c", data=b"x"))
        await leader.control.remove(RemoveRequest(kind="config", ref="c"), ADMIN)
        with pytest.raises(NotFound, match="no such config: c"):
            await leader.control.get(GetRequest(kind="config", ref="c"), ADMIN)


async def test_a_new_service_waits_for_the_one_of_its_name_that_is_being_removed() -> None:
    async with leading() as leader:
        old = await create(leader, service=web())
        await leader.control.remove(RemoveRequest(kind="service", ref="web"), ADMIN)
        waiting = asyncio.create_task(create(leader, service=web()))
        deploying = asyncio.create_task(
            leader.control.deploy(
                DeployRequest(stack="web", services=(web(),), resolve_image="never", dry_run=True), ADMIN
            )
        )
        done, _ = await asyncio.wait((waiting, deploying), timeout=0.3)
        assert not done
        await leader.controller.submit(lambda tx: tx.delete(old))
        assert (await waiting).id != old.id
        await deploying


async def test_an_update_of_an_old_version_is_refused() -> None:
    async with leading() as leader:
        old = await create(leader, service=web())
        new = await update(leader, "service", old, service=web(replicas=2))
        assert new.meta.version > old.meta.version
        with pytest.raises(Conflict, match="changed meanwhile"):
            await update(leader, "service", old, service=web(replicas=3))
        assert (await update(leader, "service", old, 0, service=web(replicas=4))).spec.mode.replicas == 4


async def test_of_two_updates_at_the_same_time_one_is_refused() -> None:
    async with leading(objects=[node("n1")]) as leader:
        service = await create(leader, service=web())
        results = await asyncio.gather(
            *(update(leader, "service", service, service=web(replicas=n)) for n in (2, 3)),
            return_exceptions=True,
        )
        assert [type(r) for r in results] == [Service, Conflict]


async def test_a_create_with_the_same_key_is_the_same_object() -> None:
    async with leading() as leader:
        for kind, spec in (
            ("service", web()),
            ("network", NetworkSpec(name="net")),
            ("secret", SecretSpec(name="s", data=b"x")),
            ("config", ConfigSpec(name="c", data=b"x")),
        ):
            first, second = await asyncio.gather(*(create(leader, "key", **{kind: spec}) for _ in range(2)))
            assert first == second == await create(leader, "key", **{kind: spec})
            assert len(first.id) == 25
            with pytest.raises(Conflict):
                await create(leader, "another", **{kind: spec})


async def test_the_key_holds_over_a_change_of_leader() -> None:
    async with leading() as first:
        made = await create(first, "key", config=ConfigSpec(name="c", data=b"x"))
    async with leading(objects=[replace(made, meta=replace(made.meta, version=0))]) as second:
        again = await create(second, "key", config=ConfigSpec(name="c", data=b"x"))
        assert again.id == made.id


async def test_what_nobody_may_read_back_is_in_no_answer() -> None:
    """Payloads of secrets, keys, join tokens and registry credentials, in every kind of answer."""
    secret = b"very-secret-payload"
    async with leading(objects=[node("n1")]) as leader:
        answers: list[Any] = []
        seen, told = asyncio.Event(), asyncio.Event()

        async def watch() -> None:
            async for event in leader.control.events(EventsRequest(snapshot=True), ADMIN):
                answers.append(event)
                if event.action == "synced":
                    seen.set()
                elif seen.is_set() and event.kind == "cluster":
                    told.set()

        watching = asyncio.ensure_future(watch())
        await seen.wait()
        made = await create(leader, secret=SecretSpec(name="s", data=secret))
        service = await create(leader, service=web())
        with_auth = replace(
            task("t1", "n1", service_id=service.id), spec=replace(task("t1", "n1").spec, registry_auth=AUTH)
        )
        await leader.put(with_auth)
        answers += [made, service, await update(leader, "service", service, service=web(replicas=2))]
        for kind in ("service", "task", "node", "network", "volume", "secret", "config"):
            answers.append(await leader.control.list(ListRequest(kind=kind), ADMIN))
        for kind, ref in (
            ("secret", "s"),
            ("service", "web"),
            ("task", "t1"),
            ("cluster", "c1"),
            ("cluster", ""),
        ):
            answers.append(await leader.control.get(GetRequest(kind=kind, ref=ref), ADMIN))
        cluster = answers[-1].cluster
        answers.append(
            await update(leader, "cluster", cluster, cluster=replace(cluster.spec, task_history_limit=1))
        )
        answers.append(await leader.control.info(Empty(), ADMIN))
        await told.wait()
        async for event in _some(leader.control.events(EventsRequest(after=1), ADMIN), 5):
            answers.append(event)
        watching.cancel()
        for answer in answers:
            data = wire.to_bytes(answer)
            for word in (secret, b"sealed:", b"worker-secret", b"manager-secret", AUTH.encode()):
                assert word not in data, (word, answer)
        stored = await leader.store.get("service", service.id)
        assert isinstance(stored, Service) and stored.spec.task.registry_auth == AUTH, (
            "it is kept for the agents"
        )


async def _some(stream: AsyncIterator[EventMessage], count: int) -> AsyncIterator[EventMessage]:
    for _ in range(count):
        yield await anext(stream)


async def test_events_are_whole_commits_in_order_after_what_exists() -> None:
    async with leading(objects=[node("n1")]) as leader:
        stream = leader.control.events(EventsRequest(snapshot=True), ADMIN)
        first = [await anext(stream) for _ in range(3)]
        assert [(e.action, e.kind) for e in first] == [
            ("exists", "node"),
            ("exists", "cluster"),
            ("synced", ""),
        ]
        config = await create(leader, config=ConfigSpec(name="c", data=b"x"))
        await update(leader, "config", config, config=ConfigSpec(name="c", labels={"a": "b"}))
        await leader.control.remove(RemoveRequest(kind="config", ref="c"), ADMIN)
        events = [await anext(stream) for _ in range(3)]
        assert [e.action for e in events] == ["create", "update", "remove"]
        assert [e.revision for e in events] == sorted({e.revision for e in events})
        assert events[2].object.config is not None
        # And once more for a reader that comes back:
        again = leader.control.events(EventsRequest(after=events[0].revision), ADMIN)
        assert [(await anext(again)).action for _ in range(2)] == ["update", "remove"]


async def test_events_pass_filters_of_kinds_that_have_them() -> None:
    async with leading(objects=[node("n1")]) as leader:
        service = await create(leader, service=web())
        for filters in (
            (Filter(key="service", value="web"),),  # only tasks have it
            (Filter(key="type", value="task"),),
            (Filter(key="type", value="task"), Filter(key="node", value="n1")),
        ):
            stream = leader.control.events(EventsRequest(filters=filters, snapshot=True), ADMIN)
            while (event := await anext(stream)).action != "synced":
                assert event.kind == "task"
            await leader.put(
                replace(
                    await leader.node("n1"),
                    description=replace(node("x").description, kernel=str(id(filters))),
                )
            )
            await leader.put(task(f"t{id(filters)}", "n1", service_id=service.id))
            assert (await anext(stream)).kind == "task"
            await stream.aclose()  # type: ignore[attr-defined]


@pytest.mark.parametrize("key", ["type", "nonsense"])
async def test_an_unknown_filter_is_refused_before_anything_happens(key: str) -> None:
    async with leading() as leader:
        with pytest.raises(Invalid):
            await anext(leader.control.events(EventsRequest(filters=(Filter(key=key, value="x"),)), ADMIN))
        with pytest.raises(Invalid):
            await leader.control.list(ListRequest(kind="config", filters=(Filter(key="nonsense"),)), ADMIN)


async def test_a_reader_of_events_that_is_too_slow_is_told_and_costs_no_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "EVENT_QUEUE", 3)
    async with leading() as leader:
        stream = leader.control.events(EventsRequest(snapshot=True), ADMIN)
        await anext(stream)
        for number in range(6):
            await create(leader, config=ConfigSpec(name=f"c{number}", data=b"x"))
        with pytest.raises(Unavailable, match="not read as fast"):
            async for _ in stream:
                pass
        await create(leader, config=ConfigSpec(name="last", data=b"x"))


async def test_only_labels_of_secrets_and_configs_change() -> None:
    async with leading() as leader:
        secret = await create(leader, secret=SecretSpec(name="s", data=b"x"))
        labelled = await update(leader, "secret", secret, secret=SecretSpec(name="s", labels={"a": "b"}))
        assert labelled.spec.labels == {"a": "b"}
        same = await update(leader, "secret", labelled, secret=SecretSpec(name="s", data=b"x"))
        for spec in (SecretSpec(name="s", data=b"y"), SecretSpec(name="other")):
            with pytest.raises(Invalid, match="only updates to Labels"):
                await update(leader, "secret", same, secret=spec)
        config = await create(leader, config=ConfigSpec(name="c", data=b"x"))
        with pytest.raises(Invalid, match="only updates to Labels"):
            await update(leader, "config", config, config=ConfigSpec(name="c", data=b"y"))


async def test_an_update_without_credentials_keeps_the_old_ones() -> None:
    async with leading() as leader:
        service = await create(leader, service=web())
        spec = replace(web(replicas=2), task=replace(web().task, registry_auth=""))
        await update(leader, "service", service, service=spec)
        stored = await leader.store.get("service", service.id)
        assert isinstance(stored, Service)
        assert stored.spec.task.registry_auth == AUTH
        assert stored.spec.task == web().task or stored.spec_version == service.spec_version + 1


async def test_rollback_and_force() -> None:
    async with leading() as leader:
        service = await create(leader, service=web())
        with pytest.raises(Invalid, match="no previous version"):
            await update(leader, "service", service, rollback=True)
        forced = await update(leader, "service", service, service=web(), force=True)
        assert forced.spec.task.force_update == 1
        back = await update(leader, "service", forced, rollback=True)
        assert back.spec.task.force_update == 0
        assert back.update_status is not None and back.update_status.state == "rollback_started"


async def test_a_dry_run_says_what_would_change_and_changes_nothing() -> None:
    async with leading() as leader:
        request = DeployRequest(stack="shop", services=(web("shop_web"),), resolve_image="never")
        before = leader.controller.state.revision
        tried = await leader.control.deploy(replace(request, dry_run=True), ADMIN)
        assert leader.controller.state.revision == before
        done = await leader.control.deploy(request, ADMIN)
        assert [(a.kind, a.name, a.action) for a in tried.actions] == [
            (a.kind, a.name, a.action) for a in done.actions
        ]
        again = await leader.control.deploy(request, ADMIN)
        assert [a.action for a in again.actions] == ["unchanged"]


async def test_an_image_that_cannot_be_pinned_is_a_warning() -> None:
    async with leading() as leader:
        spec = replace(web("shop_web"), task=replace(web().task, container=ContainerSpec(image="web")))
        response = await leader.control.deploy(DeployRequest(stack="shop", services=(spec,)), ADMIN)
        assert len(response.warnings) == 1
        assert "image web could not be resolved" in response.warnings[0]


async def test_tokens_rotate() -> None:
    async with leading() as leader:
        assert (await leader.control.join_tokens(RotateRequest(), ADMIN)).worker == "worker-secret"
        rotated = await leader.control.join_tokens(RotateRequest(worker_token=True), ADMIN)
        assert (rotated.worker, rotated.manager) == ("new", "manager-secret")


async def test_settings_that_cannot_be_kept_are_refused() -> None:
    async with leading() as leader:
        cluster = (await leader.control.get(GetRequest(kind="cluster", ref=""), ADMIN)).cluster
        bad = ClusterSpec(external_cas=(ExternalCA(url="http://ca.example"),))
        with pytest.raises(Invalid, match="external_cas"):
            await update(leader, "cluster", cluster, cluster=bad)


async def test_a_node_takes_no_other_nodes_name() -> None:
    async with leading(objects=[node("n1"), node("n2")]) as leader:
        with pytest.raises(Conflict):
            await update(leader, "node", await leader.node("n1"), node=NodeSpec(name="n2"))


async def test_streams_begin_with_what_to_do() -> None:
    async def nothing() -> AsyncIterator[Any]:
        return
        yield

    async def start() -> AsyncIterator[ExecInputMessage]:
        yield ExecInputMessage(start=ExecStart(task="t1"), kind="start")

    async def command() -> AsyncIterator[NodeCommand]:
        yield NodeCommand(verb="image.ls", node="n1")

    ended = task("t1", "n1")
    ended = replace(ended, status=replace(ended.status, state=ended.status.state.FAILED))
    async with leading(objects=[node("n1"), ended]) as leader:
        for stream in (leader.control.exec(nothing(), ADMIN), leader.control.command(nothing(), ADMIN)):
            with pytest.raises(Invalid, match="starts with a message"):
                await anext(stream)
        with pytest.raises(Conflict, match="is not running"):
            await anext(leader.control.exec(start(), ADMIN))
        with pytest.raises(Unavailable, match="not connected"):
            await anext(leader.control.command(command(), ADMIN))
