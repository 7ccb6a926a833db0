"""The store's contract as tests, run over each implementation (see `manager.store`)."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import pytest

from manager.store import Batch, Compacted, Delete, Deposed, Fence, Put, StaleWrite, Store
from manager.store.layout import MAX_OPERATIONS, CommitTooLarge
from pyswarm.errors import Invalid
from pyswarm.objects import Config, Meta, Network, Node, Object, Service, Task
from pyswarm.specs import ConfigSpec, NetworkSpec, ServiceSpec

T = TypeVar("T")
ObjectT = TypeVar("ObjectT", bound=Object)


@dataclass
class Backing:
    """What an implementation gives the contract's tests."""

    connect: Callable[[], Store]
    """Another connection to the same store."""
    crash: Callable[[], Awaitable[None]]
    """The server dies without warning and comes back."""
    compact: Callable[[int], Awaitable[None]]


def task(id: str, **fields: object) -> Task:
    return Task(id=id, **fields)  # type: ignore[arg-type] - keywords of Task


def service(id: str, name: str) -> Service:
    return Service(id=id, spec=ServiceSpec(name=name))


def at(obj: ObjectT, version: int) -> ObjectT:
    return dataclasses.replace(obj, meta=dataclasses.replace(obj.meta, version=version))


async def within(awaitable: Awaitable[T], seconds: float = 10.0) -> T:
    async with asyncio.timeout(seconds):
        return await awaitable


async def take(batches: AsyncIterator[Batch], count: int) -> list[Batch]:
    return [await within(anext(batches)) for _ in range(count)]


class StoreContract:
    """Subclass it beside a fixture `backing`."""

    # ------------------------------------------------------------------------- objects and versions

    async def test_what_was_put_is_read_back_with_its_version(self, backing: Backing) -> None:
        store = backing.connect()
        obj = Service(
            id="s1", spec=ServiceSpec(name="web", labels={"a": "b"}), meta=Meta(created_at=1.5, updated_at=2)
        )
        revision = await store.commit([Put(obj)])
        assert revision > 0
        assert await store.get("service", "s1") == at(obj, revision)
        listing = await store.list("service")
        assert listing.objects == (at(obj, revision),)
        assert listing.revision >= revision

    async def test_missing_object_is_none(self, backing: Backing) -> None:
        assert await backing.connect().get("task", "nobody") is None
        assert (await backing.connect().list()).objects == ()

    async def test_revisions_grow_and_are_shared_by_a_commit(self, backing: Backing) -> None:
        store = backing.connect()
        first = await store.commit([Put(task("t1")), Put(task("t2"))])
        second = await store.commit([Put(at(task("t1", slot=3), first))])
        assert second > first
        versions = {obj.id: obj.meta.version for obj in (await store.list()).objects}
        assert versions == {"t1": second, "t2": first}

    async def test_list_keeps_kinds_apart_and_ids_in_order(self, backing: Backing) -> None:
        store = backing.connect()
        await store.commit([Put(task("b")), Put(task("a")), Put(Node(id="n")), Put(service("c", "c"))])
        assert [o.id for o in (await store.list("task")).objects] == ["a", "b"]
        assert [type(o) for o in (await store.list()).objects] == [Node, Service, Task, Task]

    async def test_creating_twice_is_stale(self, backing: Backing) -> None:
        store = backing.connect()
        await store.commit([Put(task("t1"))])
        with pytest.raises(StaleWrite, match="task t1 exists already") as caught:
            await store.commit([Put(task("t1"))])
        assert (caught.value.kind, caught.value.id) == ("task", "t1")

    async def test_an_old_version_is_stale_and_nothing_is_written(self, backing: Backing) -> None:
        store = backing.connect()
        first = await store.commit([Put(task("t1"))])
        second = await store.commit([Put(at(task("t1", slot=1), first))])
        with pytest.raises(StaleWrite, match=f"at version {second} now and was read at {first}") as caught:
            await store.commit([Put(task("t2")), Put(at(task("t1", slot=2), first))])
        assert (caught.value.kind, caught.value.id) == ("task", "t1")
        assert await store.get("task", "t2") is None
        assert await store.get("task", "t1") == at(task("t1", slot=1), second)

    async def test_writing_what_was_removed_is_stale(self, backing: Backing) -> None:
        store = backing.connect()
        revision = await store.commit([Put(task("t1"))])
        await store.commit([Delete(at(task("t1"), revision))])
        for change in (Put(at(task("t1"), revision)), Delete(at(task("t1"), revision))):
            with pytest.raises(StaleWrite, match="was removed"):
                await store.commit([change])
        assert await store.get("task", "t1") is None

    async def test_delete_compares_the_version(self, backing: Backing) -> None:
        store = backing.connect()
        first = await store.commit([Put(task("t1"))])
        second = await store.commit([Put(at(task("t1", slot=1), first))])
        with pytest.raises(StaleWrite, match="cannot be removed"):
            await store.commit([Delete(at(task("t1"), first))])
        await store.commit([Delete(at(task("t1"), second))])
        assert await store.get("task", "t1") is None

    async def test_one_object_twice_in_a_commit_is_invalid(self, backing: Backing) -> None:
        with pytest.raises(Invalid, match="task t1 appears twice"):
            await backing.connect().commit([Put(task("t1")), Put(task("t1", slot=2))])

    async def test_an_id_that_would_escape_its_place_is_invalid(self, backing: Backing) -> None:
        for id in ("", "a/b"):
            with pytest.raises(Invalid, match="cannot be stored"):
                await backing.connect().commit([Put(task(id))])

    async def test_empty_commit_changes_nothing(self, backing: Backing) -> None:
        store = backing.connect()
        revision = await store.commit([Put(task("t1"))])
        assert await store.commit([]) == revision

    async def test_reads_see_every_commit_acknowledged_before(self, backing: Backing) -> None:
        writer, reader = backing.connect(), backing.connect()
        version = 0
        for number in range(30):
            version = await writer.commit([Put(at(task("t1", slot=number), version))])
            assert await reader.get("task", "t1") == at(task("t1", slot=number), version)
            assert (await reader.list("task")).revision >= version

    async def test_of_parallel_writers_of_one_object_one_wins(self, backing: Backing) -> None:
        stores = [backing.connect() for _ in range(4)]
        version = await stores[0].commit([Put(task("t1"))])
        results = await asyncio.gather(
            *(stores[n % 4].commit([Put(at(task("t1", slot=n + 1), version))]) for n in range(16)),
            return_exceptions=True,
        )
        won = [n for n, result in enumerate(results) if isinstance(result, int)]
        assert len(won) == 1
        assert all(isinstance(r, StaleWrite) for n, r in enumerate(results) if n not in won)
        final = await stores[0].get("task", "t1")
        assert isinstance(final, Task) and final.slot == won[0] + 1

    async def test_counting_with_compare_and_set_loses_nothing(self, backing: Backing) -> None:
        store = backing.connect()
        await store.commit([Put(task("counter"))])

        async def add() -> None:
            for _ in range(5):
                while True:
                    obj = await store.get("task", "counter")
                    assert isinstance(obj, Task)
                    with contextlib.suppress(StaleWrite):
                        await store.commit([Put(dataclasses.replace(obj, slot=obj.slot + 1))])
                        break

        await within(asyncio.gather(*(add() for _ in range(8))), 30)
        obj = await store.get("task", "counter")
        assert isinstance(obj, Task) and obj.slot == 40

    async def test_64_parallel_commits(self, backing: Backing) -> None:
        store = backing.connect()
        async with store.watch((await store.list()).revision) as batches:
            revisions = await asyncio.gather(*(store.commit([Put(task(f"t{n}"))]) for n in range(64)))
            assert len(set(revisions)) == 64
            seen = await take(batches, 64)
        assert [b.revision for b in seen] == sorted(revisions)
        assert len((await store.list("task")).objects) == 64

    async def test_5000_objects_are_read_at_one_revision(self, backing: Backing) -> None:
        store = backing.connect()
        ids = [f"t{n:05}" for n in range(5000)]
        versions: dict[str, int] = {}
        for start in range(0, 5000, 1000):
            part = ids[start : start + 1000]
            versions |= dict.fromkeys(part, await store.commit([Put(task(id)) for id in part]))
        stop = asyncio.Event()

        async def disturb() -> None:
            """Two objects, at both ends of the list, come and go together."""
            version = 0
            while not stop.is_set():
                ends = [at(task(id), version) for id in ("aa", "zz")]
                revision = await store.commit([(Delete if version else Put)(obj) for obj in ends])
                version = 0 if version else revision

        disturbing = asyncio.create_task(disturb())
        await asyncio.sleep(0)
        listing = await within(store.list("task"), 30)
        stop.set()
        await disturbing
        found = {o.id: o.meta.version for o in listing.objects}
        ends = [found.pop("aa", 0), found.pop("zz", 0)]
        assert found == versions
        assert ends[0] == ends[1] <= listing.revision
        # All that happened after the listing's revision, and nothing else, is in a watch from there.
        async with store.watch(listing.revision) as batches:
            end = await store.commit([Put(task("end"))])
            there = bool(ends[0])
            while (batch := await within(anext(batches))).revision != end:
                assert (batch.events[0].obj is not None) is not there
                there = not there
            assert there == (await store.get("task", "aa") is not None)

    # ---------------------------------------------------------------------------------------- names

    async def test_a_name_is_taken_once_per_kind(self, backing: Backing) -> None:
        store = backing.connect()
        await store.commit([Put(service("s1", "web")), Put(Network(id="n1", spec=NetworkSpec(name="web")))])
        with pytest.raises(StaleWrite, match="a service named 'web' exists already") as caught:
            await store.commit([Put(task("t")), Put(service("s2", "web"))])
        assert (caught.value.kind, caught.value.id) == ("service", "s2")
        assert await store.get("service", "s2") is None
        assert await store.get("task", "t") is None

    async def test_of_parallel_creators_of_a_name_one_wins(self, backing: Backing) -> None:
        store = backing.connect()
        results = await asyncio.gather(
            *(store.commit([Put(service(f"s{n}", "web"))]) for n in range(10)), return_exceptions=True
        )
        assert sum(isinstance(r, int) for r in results) == 1
        assert len((await store.list("service")).objects) == 1

    async def test_two_in_one_commit_cannot_share_a_name(self, backing: Backing) -> None:
        with pytest.raises(StaleWrite, match="named 'web'"):
            await backing.connect().commit([Put(service("s1", "web")), Put(service("s2", "web"))])

    async def test_a_deleted_name_is_free_again(self, backing: Backing) -> None:
        store = backing.connect()
        revision = await store.commit([Put(service("s1", "web"))])
        await store.commit([Delete(at(service("s1", "web"), revision))])
        await store.commit([Put(service("s2", "web"))])

    async def test_a_name_passes_from_one_to_the_other_in_one_commit(self, backing: Backing) -> None:
        store = backing.connect()
        revision = await store.commit([Put(service("s1", "web"))])
        await store.commit([Delete(at(service("s1", "web"), revision)), Put(service("s2", "web"))])
        with pytest.raises(StaleWrite, match="named 'web'"):
            await store.commit([Put(service("s3", "web"))])
        assert [o.id for o in (await store.list("service")).objects] == ["s2"]

    async def test_updating_keeps_the_name(self, backing: Backing) -> None:
        store = backing.connect()
        revision = await store.commit([Put(service("s1", "web"))])
        changed = dataclasses.replace(service("s1", "web"), spec_version=2)
        await store.commit([Put(at(changed, revision))])
        with pytest.raises(StaleWrite, match="named 'web'"):
            await store.commit([Put(service("s2", "web"))])

    async def test_a_rename_frees_the_old_name_and_takes_the_new(self, backing: Backing) -> None:
        store = backing.connect()
        first = await store.commit([Put(service("s1", "web")), Put(service("s2", "db"))])
        with pytest.raises(StaleWrite, match="named 'db'"):
            await store.commit([Put(at(service("s1", "db"), first))])
        second = await store.commit([Put(at(service("s1", "api"), first))])
        await store.commit([Put(service("s3", "web"))])
        with pytest.raises(StaleWrite, match="named 'api'"):
            await store.commit([Put(service("s4", "api"))])
        await store.commit([Delete(at(service("s1", "whatever it was"), second))])
        await store.commit([Put(service("s4", "api"))])

    async def test_two_swap_their_names(self, backing: Backing) -> None:
        store = backing.connect()
        first = await store.commit([Put(service("s1", "a")), Put(service("s2", "b"))])
        await store.commit([Put(at(service("s1", "b"), first)), Put(at(service("s2", "a"), first))])
        for name in ("a", "b"):
            with pytest.raises(StaleWrite, match="exists already"):
                await store.commit([Put(service("s3", name))])

    async def test_names_move_up_a_chain_in_one_commit(self, backing: Backing) -> None:
        store = backing.connect()
        first = await store.commit(
            [Put(service("s1", "a")), Put(service("s2", "b")), Put(service("s3", "c"))]
        )
        changes = [
            Put(service("s4", "a")),
            Put(at(service("s1", "b"), first)),
            Put(at(service("s2", "c"), first)),
            Delete(at(service("s3", "c"), first)),
        ]
        await store.commit(changes)
        for name in ("a", "b", "c"):
            with pytest.raises(StaleWrite, match="exists already"):
                await store.commit([Put(service("s5", name))])
        rest = (await store.list("service")).objects
        await store.commit([Delete(obj) for obj in rest])
        await store.commit([Put(service(f"n{name}", name)) for name in ("a", "b", "c")])

    async def test_taking_the_name_of_one_that_goes(self, backing: Backing) -> None:
        store = backing.connect()
        first = await store.commit([Put(service("s1", "a")), Put(service("s2", "b"))])
        await store.commit([Put(at(service("s1", "b"), first)), Delete(at(service("s2", "b"), first))])
        await store.commit([Put(service("s3", "a"))])
        with pytest.raises(StaleWrite, match="named 'b' exists"):
            await store.commit([Put(service("s4", "b"))])

    # --------------------------------------------------------------------------------------- limits

    async def test_a_commit_of_too_many_operations_is_refused(self, backing: Backing) -> None:
        store = backing.connect()
        with pytest.raises(CommitTooLarge, match=f"limit of {MAX_OPERATIONS}"):
            await store.commit([Put(task(f"t{n}")) for n in range(MAX_OPERATIONS + 1)])
        await store.commit([Put(task(f"t{n}")) for n in range(MAX_OPERATIONS)])

    async def test_a_commit_of_too_many_bytes_is_refused(self, backing: Backing) -> None:
        store = backing.connect()

        def config(n: int) -> Config:
            return Config(id=f"c{n}", spec=ConfigSpec(name=f"c{n}", data=b"x" * 1_000_000))

        with pytest.raises(CommitTooLarge, match="bytes"):
            await store.commit([Put(config(n)) for n in range(11)])
        assert (await store.list()).objects == ()
        await store.commit([Put(config(n)) for n in range(10)])
        assert len((await store.list("config")).objects) == 10

    # --------------------------------------------------------------------------------------- watching

    async def test_a_watch_shows_whole_commits_in_order(self, backing: Backing) -> None:
        store = backing.connect()
        before = await store.commit([Put(task("t0"))])
        first = await store.commit([Put(task("t1")), Put(service("s1", "web")), Put(task("t2"))])
        async with store.watch(before) as batches:
            second = await store.commit([Delete(at(task("t2"), first)), Put(at(task("t1", slot=1), first))])
            seen = await take(batches, 2)
        assert [b.revision for b in seen] == [first, second]
        assert {(e.kind, e.id) for e in seen[0].events} == {("task", "t1"), ("task", "t2"), ("service", "s1")}
        events = {e.id: e.obj for e in seen[1].events}
        assert events == {"t1": at(task("t1", slot=1), second), "t2": None}

    async def test_watch_after_now_shows_the_future_alone(self, backing: Backing) -> None:
        store = backing.connect()
        await store.commit([Put(task("t0"))])
        async with store.watch((await store.list()).revision) as batches:
            revision = await store.commit([Put(task("t1"))])
            assert (await take(batches, 1))[0].revision == revision

    async def test_several_watches_see_the_same(self, backing: Backing) -> None:
        store = backing.connect()
        async with store.watch(0) as one, backing.connect().watch(0) as two:
            for n in range(5):
                await store.commit([Put(task(f"t{n}"))])
            assert await take(one, 5) == await take(two, 5)

    async def test_a_slow_watcher_misses_nothing(self, backing: Backing) -> None:
        store = backing.connect()
        async with store.watch(0) as batches:
            await take_first(store, batches)
            revisions = [await store.commit([Put(task(f"t{n}"))]) for n in range(300)]
            assert [b.revision for b in await take(batches, 300)] == revisions

    async def test_a_compacted_start_raises(self, backing: Backing) -> None:
        store = backing.connect()
        revisions = [await store.commit([Put(task(f"t{n}"))]) for n in range(5)]
        await backing.compact(revisions[3])
        async with store.watch(revisions[0]) as batches:
            with pytest.raises(Compacted, match="before revision"):
                await within(anext(batches))
        async with store.watch(revisions[2]) as batches:
            assert [b.revision for b in await take(batches, 2)] == revisions[3:]

    async def test_a_watch_goes_on_over_a_crash(self, backing: Backing) -> None:
        store = backing.connect()
        revisions = [await store.commit([Put(task("t0"))])]
        async with store.watch(revisions[0] - 1) as batches:
            assert (await take(batches, 1))[0].revision == revisions[0]
            revisions.append(await store.commit([Put(task("t1"))]))
            await backing.crash()
            revisions.append(await within(eventually(store, task("t2")), 30))
            seen = await take(batches, 2)
        assert [b.revision for b in seen] == revisions[1:]
        assert [e.id for b in seen for e in b.events] == ["t1", "t2"]

    async def test_acknowledged_commits_survive_a_crash(self, backing: Backing) -> None:
        store = backing.connect()
        objects: list[Object] = []
        for n in range(20):
            objects.append(at(task(f"t{n:02}"), await store.commit([Put(task(f"t{n:02}"))])))
        await backing.crash()
        assert (await within(store.list("task"), 30)).objects == tuple(objects)

    # -------------------------------------------------------------------------------------- leadership

    async def test_one_leads_and_the_next_follows_when_it_resigns(self, backing: Backing) -> None:
        one, two = backing.connect(), backing.connect()
        assert await one.leader() is None
        async with one.campaign("one") as leadership:
            assert await two.leader() == "one"
            waiting = asyncio.create_task(lead_once(two, "two"))
            assert not await is_done(waiting)
            assert not await is_done(asyncio.create_task(leadership.lost()))
        assert await within(waiting, 2.0) == "two"

    async def test_a_fenced_commit_needs_the_lead(self, backing: Backing) -> None:
        one, two = backing.connect(), backing.connect()
        async with one.campaign("one") as leadership:
            old = leadership.fence
            await one.commit([Put(task("t1"))], old)
            with pytest.raises(Deposed):
                await one.commit([Put(task("t2"))], Fence(old.key, old.create_revision + 1))
        with pytest.raises(Deposed):
            await one.commit([Put(task("t2"))], old)
        async with two.campaign("two") as leadership:
            with pytest.raises(Deposed):
                await one.commit([Put(task("t2"))], old)
            await two.commit([Put(task("t3"))], leadership.fence)
        assert {o.id for o in (await one.list()).objects} == {"t1", "t3"}

    async def test_deposed_comes_before_stale(self, backing: Backing) -> None:
        store = backing.connect()
        await store.commit([Put(task("t1"))])
        with pytest.raises(Deposed):
            await store.commit([Put(task("t1"))], Fence("election/none", 7))

    async def test_a_candidate_that_gives_up_is_passed_over(self, backing: Backing) -> None:
        one, two, three = (backing.connect() for _ in range(3))
        async with one.campaign("one"):
            waiting = asyncio.create_task(lead_once(two, "two"))
            assert not await is_done(waiting)
            last = asyncio.create_task(lead_once(three, "three"))
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert not await is_done(last)
        assert await within(last, 3.0) == "three"

    async def test_a_restarted_candidate_does_not_wait_for_its_former_self(self, backing: Backing) -> None:
        killed, again = backing.connect(), backing.connect()
        async with killed.campaign("one", ttl=30) as former:
            async with asyncio.timeout(2), again.campaign("one") as leadership:
                await within(former.lost(), 2.0)
                with pytest.raises(Deposed):
                    await killed.commit([Put(task("t1"))], former.fence)
                await again.commit([Put(task("t1"))], leadership.fence)

    async def test_leaders_shows_each_change(self, backing: Backing) -> None:
        store = backing.connect()
        leaders = store.leaders()
        assert await within(anext(leaders)) is None
        for name in ("one", "two"):
            async with backing.connect().campaign(name):
                assert await within(anext(leaders)) == name
            assert await within(anext(leaders)) is None

    async def test_elections_do_not_show_in_watches(self, backing: Backing) -> None:
        store = backing.connect()
        async with store.watch((await store.list()).revision) as batches:
            async with store.campaign("one"):
                revision = await store.commit([Put(task("t1"))])
            assert (await take(batches, 1))[0] == Batch(
                revision, (await first_events(store, revision, "t1")).events
            )


async def first_events(store: Store, revision: int, id: str) -> Batch:
    async with store.watch(revision - 1) as batches:
        batch = (await take(batches, 1))[0]
        assert [e.id for e in batch.events] == [id]
        return batch


async def take_first(store: Store, batches: AsyncIterator[Batch]) -> None:
    """Make sure that the watch is running."""
    revision = await store.commit([Put(task("first"))])
    assert (await take(batches, 1))[0].revision == revision


async def lead_once(store: Store, name: str) -> str | None:
    async with store.campaign(name):
        return await store.leader()


async def eventually(store: Store, obj: Task) -> int:
    """Create the object however often that takes; an attempt may have worked without saying so."""
    while True:
        try:
            return await store.commit([Put(obj)])
        except StaleWrite:
            found = await store.get("task", obj.id)
            assert found is not None
            return found.meta.version
        except Exception as error:
            assert "Unavailable" in type(error).__name__, error


async def is_done(task: asyncio.Task[T]) -> bool:
    """Whether it ends within a moment."""
    done, _ = await asyncio.wait({task}, timeout=0.2)
    return bool(done)
