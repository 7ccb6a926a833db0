"""The leader's loop over the store in memory: what is committed together, what is told to whom, what is never seen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manager import controller as module
from manager.controller import Controller, Planner, Timers, Transaction
from manager.state import Changed, Key, Plan, Reconciler, State, View
from manager.store import Change, Deposed, Fence, Put, StaleWrite
from manager.store.layout import CommitTooLarge
from manager.store.memory import MemoryStore
from pyswarm.clock import SeededIds, SystemClock
from pyswarm.errors import Conflict, Invalid, Unavailable
from pyswarm.objects import Object, Service, Task, kind_of
from pyswarm.specs import ServiceSpec

Mutation = Callable[[Transaction], Service]


class Store(MemoryStore):
    """With a gate that holds commits back, and a record of them."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.open.set()
        self.waiting = asyncio.Event()
        self.commits: list[int] = []
        self.largest = 1_000_000

    async def commit(self, changes: Sequence[Change], fence: Fence | None = None) -> int:
        self.waiting.set()
        await self.open.wait()
        if len(changes) > self.largest:
            raise CommitTooLarge("too large")
        revision = await super().commit(changes, fence)
        self.commits.append(len(changes))
        return revision


@dataclass
class Rig:
    store: Store
    controller: Controller
    task: asyncio.Task[None]
    told: list[tuple[int, list[Changed]]] = field(default_factory=list[tuple[int, list[Changed]]])

    def names(self) -> list[str]:
        return sorted(s.spec.name for s in self.controller.state.view.services())

    async def stored(self) -> dict[tuple[str, str], Object]:
        listing = await self.store.list()
        return {(kind_of(o), o.id): o for o in listing.objects}

    async def shown(self) -> dict[tuple[str, str], Object]:
        return await self.controller.read(
            lambda view: {(kind_of(o), o.id): o for o in (*view.services(), *view.tasks())}
        )


@asynccontextmanager
async def running(*reconcilers: Reconciler, store: Store | None = None) -> AsyncGenerator[Rig]:
    store = store or Store()
    controller = Controller(store, State(SeededIds()), reconcilers, SystemClock())
    rig = Rig(store, controller, asyncio.ensure_future(controller.run()))
    controller.observe(lambda revision, changes: rig.told.append((revision, list(changes))))
    try:
        async with asyncio.timeout(10):
            await controller.loaded.wait()
            yield rig
    finally:
        store.open.set()
        rig.task.cancel()
        await asyncio.wait({rig.task})
        if not rig.task.cancelled():
            rig.task.exception()


def create(name: str) -> Mutation:
    def mutation(tx: Transaction) -> Service:
        if tx.view.by_name(Service, name) is not None:
            raise Conflict(f"service {name} already exists")
        service = Service(id=tx.view.new_id(), spec=ServiceSpec(name=name))
        tx.put(service)
        return service

    return mutation


def bump(id: str, version: int = 0) -> Mutation:
    def mutation(tx: Transaction) -> Service:
        service = tx.view.get(Service, id)
        assert service is not None
        if version and version != service.meta.version:
            raise Conflict("changed meanwhile")
        changed = replace(service, spec_version=service.spec_version + 1)
        tx.put(changed)
        return changed

    return mutation


class Twin:
    """For each service a task of the same id: something for a reconciler to do."""

    name = "twin"

    def __init__(self) -> None:
        self.fail = False
        self.restless = 0
        self.rested = asyncio.Event()

    def keys(self, change: Changed, view: View) -> Iterable[Key]:
        return [("service", change.obj.id)] if isinstance(change.obj, (Service, Task)) else []

    def everything(self, view: View) -> Iterable[Key]:
        return [("service", s.id) for s in view.services()]

    def plan(self, view: View, keys: Collection[Key], now: float) -> Plan:
        if self.fail:
            raise RuntimeError("a bug in a reconciler")
        plan = Plan()
        for _, id in keys:
            service, task = view.get(Service, id), view.get(Task, id)
            if service is not None and task is None:
                plan.put(Task(id=id, service_id=id))
            elif service is None and task is not None:
                plan.delete(task)
            elif self.restless and task is not None:
                self.restless -= 1
                if not self.restless:
                    self.rested.set()
                plan.put(replace(task, slot=task.slot + 1))
        return plan


async def test_a_result_carries_the_version_it_was_committed_at() -> None:
    async with running() as rig:
        service = await rig.controller.submit(create("web"))
        assert service.meta.version == rig.controller.state.revision > 0
        assert await rig.stored() == await rig.shown()


async def test_what_comes_during_a_commit_shares_the_next_one() -> None:
    async with running(Twin()) as rig:
        rig.store.open.clear()
        first = asyncio.ensure_future(rig.controller.submit(create("first")))
        await rig.store.waiting.wait()
        rest = [asyncio.ensure_future(rig.controller.submit(create(f"s{n}"))) for n in range(40)]
        await asyncio.sleep(0)
        rig.store.open.set()
        await asyncio.gather(first, *rest)
        assert rig.store.commits == [2, 80]
        assert await rig.stored() == await rig.shown()


async def test_a_mutation_that_fails_takes_nothing_else_with_it() -> None:
    def half(tx: Transaction) -> Service:
        tx.put(Service(id="half", spec=ServiceSpec(name="half")))
        raise Invalid("no")

    async with running(Twin()) as rig:
        results = await asyncio.gather(
            *(rig.controller.submit(m) for m in (create("a"), half, create("b"))), return_exceptions=True
        )
        assert isinstance(results[1], Invalid)
        assert rig.names() == ["a", "b"]
        assert await rig.stored() == await rig.shown()


async def test_two_updates_of_one_version_in_one_round_are_not_both_accepted() -> None:
    async with running() as rig:
        service = await rig.controller.submit(create("web"))
        results = await asyncio.gather(
            *(rig.controller.submit(bump(service.id, service.meta.version)) for _ in range(3)),
            return_exceptions=True,
        )
        assert [isinstance(r, Conflict) for r in results] == [False, True, True]
        stored = (await rig.stored())["service", service.id]
        assert isinstance(stored, Service)
        assert stored.spec_version == service.spec_version + 1


async def test_updates_without_a_version_in_one_round_add_up() -> None:
    async with running() as rig:
        service = await rig.controller.submit(create("web"))
        await asyncio.gather(*(rig.controller.submit(bump(service.id)) for _ in range(5)))
        stored = (await rig.stored())["service", service.id]
        assert isinstance(stored, Service)
        assert stored.spec_version == service.spec_version + 5


async def test_a_stale_write_is_tried_again_on_what_is_there_now() -> None:
    async with running(Twin()) as rig:
        service = await rig.controller.submit(create("web"))
        foreign = replace(service, spec_version=70)
        await rig.store.commit([Put(foreign)])
        changed = await rig.controller.submit(bump(service.id))
        assert changed.spec_version == 71
        assert await rig.stored() == await rig.shown()
        assert any(
            isinstance(c.after, Service) and c.after.spec_version == 70 for _, cs in rig.told for c in cs
        )


async def test_a_request_that_stays_stale_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RELOAD_PAUSE", 0.0)
    async with running() as rig:
        for _ in range(module.MAX_ATTEMPTS):
            rig.store.refuse(StaleWrite("a service named web exists already"))
        with pytest.raises(Conflict, match="all the time"):
            await rig.controller.submit(create("web"))
        assert (await rig.controller.submit(create("web"))).spec.name == "web"


@pytest.mark.parametrize("happened", [True, False])
async def test_after_a_commit_of_unknown_outcome_the_state_is_read_again(happened: bool) -> None:
    async with running(Twin()) as rig:
        if happened:
            rig.store.lose_answers()
        else:
            rig.store.refuse(Unavailable("no answer in time"))
        with pytest.raises(Unavailable):
            await rig.controller.submit(create("web"))
        # Nothing else happens in the cluster: the next answer must tell the truth all the same.
        assert await rig.controller.read(lambda view: [s.spec.name for s in view.services()]) == (
            ["web"] if happened else []
        )
        assert await rig.stored() == await rig.shown()
        seen = [c.obj.id for _, changes in rig.told for c in changes if isinstance(c.obj, Service)]
        assert len(seen) == happened


class Late:
    """Makes a task of its own accord, a moment after it was asked for the first time."""

    name = "late"

    def __init__(self) -> None:
        self.asked = False

    def keys(self, change: Changed, view: View) -> Iterable[Key]:
        return []

    def everything(self, view: View) -> Iterable[Key]:
        return [("task", "x")]

    def plan(self, view: View, keys: Collection[Key], now: float) -> Plan:
        plan = Plan()
        if not self.asked:
            self.asked = True
            plan.wake_at(("task", "x"), now + 0.01)
        elif view.get(Task, "x") is None:
            plan.put(Task(id="x", service_id="x"))
        return plan


async def test_a_plan_whose_commit_got_no_answer_is_made_again() -> None:
    async with running(Late()) as rig:
        rig.store.refuse(Unavailable("no answer in time"))
        made = asyncio.Event()
        rig.controller.observe(lambda revision, changes: made.set())
        await made.wait()
        assert ("task", "x") in await rig.stored()


async def test_an_alarm_wakes_the_loop() -> None:
    async with running(Late()) as rig:
        made = asyncio.Event()
        rig.controller.observe(lambda revision, changes: made.set())
        await made.wait()
        assert rig.store.commits == [1]


async def test_a_deposed_leader_tells_everybody_and_answers_nothing_more() -> None:
    async with running() as rig:
        rig.store.open.clear()
        first = asyncio.ensure_future(rig.controller.submit(create("web")))
        await rig.store.waiting.wait()
        second = asyncio.ensure_future(rig.controller.submit(create("api")))
        reader = asyncio.ensure_future(rig.controller.read(lambda view: 1))
        await asyncio.sleep(0)
        rig.store.refuse(Deposed("another manager leads"))
        rig.store.open.set()
        for future in (first, second, reader):
            with pytest.raises(Unavailable):
                await future
        with pytest.raises(Deposed):
            await rig.task
        for late in (rig.controller.submit(create("late")), rig.controller.read(lambda view: 1)):
            with pytest.raises(Unavailable, match="does not lead"):
                await late
        assert rig.names() == []


async def test_losing_the_lead_during_a_commit_tells_the_sender_that_the_outcome_is_open() -> None:
    async with running() as rig:
        rig.store.open.clear()
        request = asyncio.ensure_future(rig.controller.submit(create("web")))
        await rig.store.waiting.wait()
        rig.task.cancel()
        with pytest.raises(Unavailable, match="look whether it happened"):
            await request
        assert rig.names() == []


async def test_a_bug_in_a_reconciler_leaves_nobody_waiting() -> None:
    twin = Twin()
    async with running(twin) as rig:
        twin.fail = True
        with pytest.raises(Unavailable):
            await rig.controller.submit(create("web"))
        with pytest.raises(RuntimeError):
            await rig.task
        assert rig.names() == []


async def test_a_sender_that_goes_away_before_its_turn_changes_nothing() -> None:
    async with running() as rig:
        rig.store.open.clear()
        first = asyncio.ensure_future(rig.controller.submit(create("first")))
        await rig.store.waiting.wait()
        gone = asyncio.ensure_future(rig.controller.submit(create("gone")))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait({gone})
        rig.store.open.set()
        await first
        await rig.controller.submit(create("last"))
        assert rig.names() == ["first", "last"]


async def test_a_sender_that_goes_away_during_its_commit_does_not_stop_it() -> None:
    async with running() as rig:
        rig.store.open.clear()
        request = asyncio.ensure_future(rig.controller.submit(create("web")))
        await rig.store.waiting.wait()
        request.cancel()
        await asyncio.wait({request})
        rig.store.open.set()
        assert await rig.controller.read(lambda view: [s.spec.name for s in view.services()]) == ["web"]


async def test_a_read_never_sees_what_is_not_committed() -> None:
    async with running() as rig:
        rig.store.open.clear()
        request = asyncio.ensure_future(rig.controller.submit(create("web")))
        await rig.store.waiting.wait()
        assert rig.names() == ["web"], "it is staged"
        read = asyncio.ensure_future(rig.controller.read(lambda view: list(view.services())))
        await asyncio.sleep(0)
        assert not read.done()
        rig.store.refuse(Unavailable("no answer"))
        rig.store.open.set()
        assert await read == []
        with pytest.raises(Unavailable):
            await request


async def test_a_huge_round_is_split_and_the_requests_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CHANGES", 10)

    def many(tx: Transaction) -> None:
        for n in range(14):
            tx.put(Service(id=f"s{n:02}", spec=ServiceSpec(name=f"s{n}")))

    async with running(Twin()) as rig:
        await rig.controller.submit(many)
        assert rig.store.commits == [14, 10, 4]
        assert await rig.stored() == await rig.shown()
        assert len(rig.told) == 1


async def test_a_split_that_fails_half_way_keeps_what_is_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CHANGES", 1)

    class Torn(Store):
        async def commit(self, changes: Sequence[Change], fence: Fence | None = None) -> int:
            if len(self.commits) == 1:
                self.commits.append(0)
                raise StaleWrite("somebody else was here")
            return await super().commit(changes, fence)

    async with running(Twin(), store=Torn()) as rig:
        service = await rig.controller.submit(create("web"))
        assert service.meta.version == 1
        await rig.controller.submit(create("api"))
        assert rig.names() == ["api", "web"]
        assert await rig.stored() == await rig.shown()
        assert len(await rig.stored()) == 4


async def test_requests_that_are_too_large_together_go_one_by_one() -> None:
    def pair(tx: Transaction) -> None:
        for _ in range(2):
            id = tx.view.new_id()
            tx.put(Service(id=id, spec=ServiceSpec(name=id)))

    async with running(Twin()) as rig:
        rig.store.largest = 2
        await asyncio.gather(*(rig.controller.submit(pair) for _ in range(4)))
        assert await rig.stored() == await rig.shown()
        assert len(rig.names()) == 8


async def test_a_request_that_alone_is_too_large_is_refused_and_the_leader_goes_on() -> None:
    def three(tx: Transaction) -> None:
        for n in range(3):
            tx.put(Service(id=f"s{n}", spec=ServiceSpec(name=f"s{n}")))

    async with running(Twin()) as rig:
        rig.store.largest = 2
        with pytest.raises(Invalid, match="split it"):
            await rig.controller.submit(three)
        await rig.controller.submit(create("web"))
        assert rig.names() == ["web"]


async def test_reconcilers_that_do_not_come_to_rest_do_not_stop_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "UNSETTLED_PAUSE", 0.001)
    twin = Twin()
    async with running(twin) as rig:
        twin.restless = 100
        await rig.controller.submit(create("web"))
        await rig.controller.submit(create("api"))
        await twin.rested.wait()


def test_timers_keep_the_last_time_that_was_said() -> None:
    timers, key = Timers(), ("service", "x")
    timers.replace(0, [key], Plan(wake={key: 5.0}))
    timers.replace(0, [key], Plan(wake={key: 9.0}))
    assert timers.next() == 9.0
    assert timers.due(8.0) == {}
    assert timers.due(9.0) == {0: {key}}
    timers.replace(0, [key], Plan(wake={key: 20.0}))
    timers.replace(0, [key], Plan())
    assert timers.next() is None
    assert timers.due(99.0) == {}


def test_timers_do_not_grow_with_what_was_replaced() -> None:
    timers, key = Timers(), ("service", "x")
    for n in range(10_000):
        timers.replace(0, [key], Plan(wake={key: 1e9 + n}))
    assert len(timers._heap) < 200  # pyright: ignore[reportPrivateUsage] - what is promised is not to grow
    assert timers.next() == 1e9 + 9_999


def test_a_planner_that_starts_asks_about_everything() -> None:
    state = State(SeededIds())
    state.load([Service(id="a", spec=ServiceSpec(name="a"))], 1)
    planner = Planner(state, [Twin()])
    planner.everything()
    planner.sweep(1.0)
    assert state.view.get(Task, "a") is not None
    assert planner.idle


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["create", "bump", "delete", "fail", "cancel", "lose", "refuse", "stale"]),
        st.integers(0, 3),
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, size=st.integers(1, 4))
def test_whatever_happens_the_state_is_what_the_store_holds(
    monkeypatch: pytest.MonkeyPatch, steps: list[tuple[str, int]], size: int
) -> None:
    monkeypatch.setattr(module, "RELOAD_PAUSE", 0.0)
    monkeypatch.setattr(module, "MAX_CHANGES", size)

    def delete(name: str) -> Callable[[Transaction], None]:
        def mutation(tx: Transaction) -> None:
            if (service := tx.view.by_name(Service, name)) is not None:
                tx.delete(service)

        return mutation

    def failing(name: str) -> Callable[[Transaction], None]:
        def mutation(tx: Transaction) -> None:
            delete(name)(tx)
            tx.put(Service(id=tx.view.new_id(), spec=ServiceSpec(name=name)))
            raise Invalid("no")

        return mutation

    async def history() -> None:
        known: dict[tuple[str, str], Object] = {}
        async with running(Twin()) as rig:

            def follow(revision: int, changes: Sequence[Changed]) -> None:
                for changed in changes:
                    key = (kind_of(changed.obj), changed.obj.id)
                    assert known.get(key) == changed.before
                    if changed.after is None:
                        del known[key]
                    else:
                        known[key] = changed.after

            rig.controller.observe(follow)
            pending: list[asyncio.Future[Any]] = []
            for step, number in steps:
                name = f"s{number}"
                match step:
                    case "create":
                        pending.append(asyncio.ensure_future(rig.controller.submit(create(name))))
                    case "bump":
                        found = next((s for s in rig.controller.state.view.services()), None)
                        if found is not None:
                            pending.append(asyncio.ensure_future(rig.controller.submit(bump(found.id))))
                    case "delete":
                        pending.append(asyncio.ensure_future(rig.controller.submit(delete(name))))
                    case "fail":
                        pending.append(asyncio.ensure_future(rig.controller.submit(failing(name))))
                    case "cancel" if pending:
                        pending[-1].cancel()
                    case "lose":
                        rig.store.lose_answers()
                    case "refuse":
                        rig.store.refuse(Unavailable("no answer"))
                    case "stale":
                        rig.store.refuse(StaleWrite("somebody else"))
                    case _:
                        pass
                for _ in range(number):
                    await asyncio.sleep(0)
            await asyncio.gather(*pending, return_exceptions=True)
            for _ in range(60):  # faults that are left hit the reconcilers' own commits
                await asyncio.sleep(0)
            shown = await rig.shown()
            assert shown == await rig.stored() == known

    asyncio.run(history())
