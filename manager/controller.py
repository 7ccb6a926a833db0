"""THE loop: takes requests and what came due, lets every reconciler plan, commits it all as one transaction.

The leader's controller is the only writer. Requests of users, status reports of agents and timers are all
work of the same kind: a *mutation* is staged on the state, the reconcilers then plan on top of it, each
seeing what the former ones staged, until none has anything left to say; the whole round is one fenced
compare-and-set transaction. So a new service is created, given addresses and placed in one write to Raft,
and forty status reports that arrive while one write is on its way share the next one.

A round that could not be committed is rolled back as if it had not been, and its requests are told. When
the outcome is unknown (a time-out), the state is read again from the store before anything else is decided
or answered. A round that is too large for one transaction is committed in several, the requests' own changes
whole in the first.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from manager.state import Changed, Key, Plan, Reconciler, State, View
from manager.store import Change, Delete, Deposed, Fence, Put, StaleWrite, Store
from manager.store.layout import CommitTooLarge
from pyswarm.clock import Clock
from pyswarm.errors import Conflict, Invalid, Unavailable
from pyswarm.objects import Kind, Meta, Object, kind_of
from pyswarm.wire import with_version

log = logging.getLogger(__name__)
T = TypeVar("T")

MAX_CHANGES = 2_000
"""Objects in one transaction; a larger round is committed in this many at a time, requests first."""
MAX_SWEEPS = 20
"""How often the reconcilers may answer each other within a round; what is left waits for the next one."""
NOT_LEADING = "this manager does not lead any more: ask again"
LOST_MEANWHILE = "this manager lost the lead while the write was on its way: look whether it happened"
SHORT_ROUND, LONGEST_BREATH = 0.005, 0.2
"""Seconds: a round that kept the process busy for longer than the first is followed by a pause as long as itself,
but no longer than the second. Heartbeats, the lease on the lead and everybody's streams share the process, and
what arrives meanwhile shares the next round."""
RELOAD_PAUSE = 0.2
"""Seconds between attempts to reach a store that does not answer."""
UNSETTLED_PAUSE = 0.1
"""Seconds before the next round when the reconcilers did not come to rest in the last one."""
LONGEST_WAIT = 10.0
"""Seconds without a look at the clock, which may have been set."""
MAX_ATTEMPTS = 5
"""How often a request is tried that the store finds stale, before its sender is told."""
UNCOMMITTED = -1
"""`meta.version` of a committed object that a request of this round has changed: no version that anybody has
read equals it, so a second request of the round that was made from the old one is refused."""


class Transaction:
    """What a mutation writes: staged on the state at once, committed with its round."""

    def __init__(self, state: State, now: float) -> None:
        self._state = state
        self.now = now
        self.changes: list[Changed] = []

    @property
    def view(self) -> View:
        return self._state.view

    def put(self, obj: Object) -> None:
        """Create or replace. The version that the store must hold is filled in by the controller."""
        known = self.view.get(kind_of(obj), obj.id)
        version = UNCOMMITTED if known is not None and known.meta.version else 0
        self._note(self._state.stage(kind_of(obj), obj.id, stamped(obj, self.now, version)))

    def delete(self, obj: Object) -> None:
        self._note(self._state.stage(kind_of(obj), obj.id, None))

    def _note(self, changed: Changed | None) -> None:
        if changed is not None:
            self.changes.append(changed)

    def undo(self) -> None:
        """Take back what this mutation alone has staged."""
        for changed in reversed(self.changes):
            self._state.stage(kind_of(changed.obj), changed.obj.id, changed.before)
        self.changes.clear()


def stamped(obj: Object, now: float, version: int | None = None) -> Object:
    """With the times of creation and update, and perhaps another version."""
    meta = obj.meta
    return replace(
        obj,
        meta=Meta(
            version=meta.version if version is None else version,
            created_at=meta.created_at or now,
            updated_at=now,
        ),
    )


Mutation = Callable[[Transaction], T]
Observer = Callable[[int, Sequence[Changed]], None]
"""Told of every commit, while the state shows just what is committed: the revision and what it changed, with
final versions. Must not block."""


@dataclass(slots=True)
class _Request(Generic[T]):
    mutation: Mutation[T]
    done: asyncio.Future[T]
    result: T | None = None
    attempts: int = 0


_HEAP_SLACK = 64
"""Alarms that were replaced and still lie in the heap, besides as many as there are alarms."""


class Timers:
    """The reconcilers' alarms: for each (reconciler, key) at most one time."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Key]] = []
        self._at: dict[tuple[int, Key], float] = {}

    def replace(self, index: int, asked: Iterable[Key], plan: Plan) -> None:
        """Take over a plan's answer: a key that was asked about and not named has no alarm any more."""
        for key in asked:
            if key not in plan.wake:
                self._at.pop((index, key), None)
        for key, when in plan.wake.items():
            if self._at.get((index, key)) != when:
                self._at[index, key] = when
                heapq.heappush(self._heap, (when, index, key))
        if len(self._heap) > 2 * len(self._at) + _HEAP_SLACK:
            self._heap = [(when, index, key) for (index, key), when in self._at.items()]
            heapq.heapify(self._heap)

    def due(self, now: float) -> dict[int, set[Key]]:
        """The keys whose time has come, by reconciler; they are forgotten here."""
        keys: dict[int, set[Key]] = {}
        while self._heap and self._heap[0][0] <= now:
            when, index, key = heapq.heappop(self._heap)
            if self._at.get((index, key)) == when:
                del self._at[index, key]
                keys.setdefault(index, set()).add(key)
        return keys

    def next(self) -> float | None:
        """The earliest alarm."""
        while self._heap and self._at.get(self._heap[0][1:]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def clear(self) -> None:
        self._heap.clear()
        self._at.clear()


class Planner:
    """Runs the reconcilers over a staged state: the pure half of the loop, shared with the simulation."""

    def __init__(self, state: State, reconcilers: Sequence[Reconciler]) -> None:
        self._state = state
        self._reconcilers = reconcilers
        self.timers = Timers()
        self._pending: list[set[Key]] = [set() for _ in reconcilers]

    def everything(self) -> None:
        """Ask every reconciler about all there is: a leader starts, or the state was read again."""
        self.timers.clear()
        for index, reconciler in enumerate(self._reconcilers):
            self._pending[index] = set(reconciler.everything(self._state.view))

    def note(self, changes: Iterable[Changed]) -> None:
        """Let the reconcilers see what changed."""
        for changed in changes:
            for index, reconciler in enumerate(self._reconcilers):
                self._pending[index].update(reconciler.keys(changed, self._state.view))

    def wake(self, now: float) -> None:
        for index, keys in self.timers.due(now).items():
            self._pending[index] |= keys

    @property
    def idle(self) -> bool:
        """Whether no reconciler has been left with a question."""
        return not any(self._pending)

    def sweep(self, now: float) -> None:
        """Let the reconcilers plan, in order, until none has a question left (or MAX_SWEEPS)."""
        for _ in range(MAX_SWEEPS):
            if self.idle:
                return
            for index, reconciler in enumerate(self._reconcilers):
                self._ask(index, reconciler, now)
        log.warning("the reconcilers still answer each other after %d sweeps", MAX_SWEEPS)

    def _ask(self, index: int, reconciler: Reconciler, now: float) -> None:
        keys, self._pending[index] = sorted(self._pending[index]), set()
        if not keys:
            return
        plan = reconciler.plan(self._state.view, keys, now)
        self.timers.replace(index, keys, plan)
        self.note(self._stage(plan, now))

    def _stage(self, plan: Plan, now: float) -> list[Changed]:
        changes = [self._state.stage(kind_of(obj), obj.id, stamped(obj, now)) for obj in plan.puts]
        changes += [self._state.stage(kind_of(obj), obj.id, None) for obj in plan.deletes]
        return [changed for changed in changes if changed is not None]


class Controller:
    """The leader's loop over one store. `run` ends with Deposed, or when it is cancelled."""

    def __init__(
        self,
        store: Store,
        state: State,
        reconcilers: Sequence[Reconciler],
        clock: Clock,
        fence: Fence | None = None,
        confirm: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`confirm` makes sure that the fence holds still (`Leadership.confirm`)."""
        self._store = store
        self.state = state
        self._clock = clock
        self._fence = fence
        self._confirm = confirm
        self._planner = Planner(state, reconcilers)
        self._inbox: deque[_Request[Any]] = deque()
        self._wakeup = asyncio.Event()
        self._observers: list[Observer] = []
        self._readers: list[asyncio.Future[None]] = []
        self._in_round = False
        self._closed = False
        self._reload_needed = True
        self._singly = 0
        """Rounds to come that take one request each, since several together were too large."""
        self._stale_in_a_row = 0
        self._busy = 0.0
        """Seconds for which the present round has let nothing else happen in this process."""
        self._written: dict[tuple[Kind, str], Object] = {}
        """What the present round has committed so far."""
        self.loaded = asyncio.Event()
        """Set once the state was read from the store for the first time."""

    async def read(self, question: Callable[[View], T]) -> T:
        """The answer of `question` to what is committed. While a round waits for its commit the view shows
        more than that, and after a commit of unknown outcome perhaps less: so the question waits until that
        is settled. Raises Unavailable once this manager does not lead any more."""
        while (self._in_round or self._reload_needed) and not self._closed:
            settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._readers.append(settled)
            await settled
        if self._closed:
            raise Unavailable(NOT_LEADING)
        return question(self.state.view)

    async def read_latest(self, question: Callable[[View], T]) -> T:
        """As `read`, and linearizable: no other manager had the lead when this was asked, and has written what is not
        known here. A manager that was held up past its lease does not answer from memory. Raises Unavailable."""
        answer = await self.read(question)
        if self._confirm is not None:
            await self._confirm()
        return answer

    def observe(self, observer: Observer) -> None:
        self._observers.append(observer)

    def unobserve(self, observer: Observer) -> None:
        self._observers.remove(observer)

    async def submit(self, mutation: Mutation[T]) -> T:
        """Run `mutation` in the next round; returns its result once the round is committed, or raises
        what the mutation or the commit raised. A mutation may run again when its round failed."""
        if self._closed:
            raise Unavailable(NOT_LEADING)
        request: _Request[T] = _Request(mutation, asyncio.get_running_loop().create_future())
        self._inbox.append(request)
        self._wakeup.set()
        return await request.done

    async def run(self) -> None:
        try:
            while True:
                if self._reload_needed:
                    await self._exclusively(self._reload())
                await self._exclusively(self._round())
                if self._busy > SHORT_ROUND:
                    await asyncio.sleep(min(self._busy, LONGEST_BREATH))
                if self._reload_needed or self._inbox:
                    continue
                if self._planner.idle:
                    await self._wait()
                else:
                    await asyncio.sleep(UNSETTLED_PAUSE)
        finally:
            self._closed = True
            self._answer_readers()
            for request in self._inbox:
                _fail(request, Unavailable(NOT_LEADING))

    async def _exclusively(self, work: Coroutine[None, None, None]) -> None:
        """Hold questions back while `work` has uncommitted changes on the state."""
        self._in_round = True
        try:
            await work
        finally:
            self._in_round = False
            self._answer_readers()

    def _answer_readers(self) -> None:
        readers, self._readers = self._readers, []
        for reader in readers:
            if not reader.done():
                reader.set_result(None)

    async def _wait(self) -> None:
        due = self._planner.timers.next()
        timeout = LONGEST_WAIT if due is None else min(max(0.0, due - self._clock.now()), LONGEST_WAIT)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):  # wait_for of Python 3.11 may swallow a cancellation
                await self._wakeup.wait()
        self._wakeup.clear()

    async def _reload(self) -> None:
        """Read everything again; tells the observers the difference to what they knew."""
        known = {(kind_of(o), o.id): o for o in _all_objects(self.state)}
        if self._stale_in_a_row > 1:
            await asyncio.sleep(RELOAD_PAUSE)
        while True:
            try:
                listing = await self._store.list()
                break
            except Unavailable as error:
                log.warning("the store does not answer: %s", error)
                await asyncio.sleep(RELOAD_PAUSE)
        self.state.load(listing.objects, listing.revision)
        self._planner.everything()
        self._reload_needed = False
        new = {(kind_of(o), o.id): o for o in listing.objects}
        changes = [Changed(known.get(key), obj) for key, obj in new.items() if known.get(key) != obj]
        changes += [Changed(obj, None) for key, obj in known.items() if key not in new]
        if changes:
            self._tell(listing.revision, changes)
        self.loaded.set()

    async def _round(self) -> None:
        now, started = self._clock.now(), self._clock.monotonic()
        accepted: list[_Request[Any]] = []
        self._written = {}
        try:
            self._accept(accepted, now)
            requested = self.state.staging
            self._planner.wake(now)
            self._planner.sweep(now)
            self._busy = self._clock.monotonic() - started
            await self._commit(requested)
            if accepted and not self._written and self._confirm is not None:
                await self._confirm()  # they are answered by what is known here
        except (StaleWrite, CommitTooLarge, Unavailable) as error:
            self._failed(accepted, error)
            if isinstance(error, Deposed):
                raise
            return
        except BaseException:
            # The lead is lost while the commit is on its way: whether it happened, only the next leader knows.
            self._failed(accepted, Unavailable(LOST_MEANWHILE))
            raise
        self._stale_in_a_row = 0
        self._succeeded(accepted)

    def _accept(self, accepted: list[_Request[Any]], now: float) -> None:
        """Stage waiting requests, as many as one transaction may hold; the others wait for the next round."""
        most = 1 if self._singly else len(self._inbox)
        self._singly = max(0, self._singly - 1)
        while self._inbox and len(accepted) < most and self.state.staging < MAX_CHANGES:
            request = self._inbox.popleft()
            if self._stage(request, now):
                accepted.append(request)

    def _succeeded(self, accepted: Iterable[_Request[Any]]) -> None:
        for request in accepted:
            if not request.done.done():
                request.done.set_result(_refreshed(self.state, self._written, request.result))

    def _failed(self, accepted: list[_Request[Any]], error: Exception) -> None:
        """Take the round back, except for what of it is committed: the requests' changes are, if any is."""
        self.state.rollback()
        self._reload_needed = True
        log.warning("a round was not committed: %s", error)
        if self._written:
            self._succeeded(accepted)
        elif isinstance(error, StaleWrite):
            self._stale_in_a_row += 1
            self._again(accepted, error)
        elif isinstance(error, CommitTooLarge) and len(accepted) > 1:
            self._singly = len(accepted)
            self._inbox.extendleft(reversed(accepted))
        elif isinstance(error, CommitTooLarge):
            for request in accepted:
                _fail(request, Invalid(f"this is too much for one transaction, split it: {error}"))
            if not accepted:
                raise error
        else:
            for request in accepted:
                _fail(request, error)

    def _again(self, accepted: list[_Request[Any]], error: StaleWrite) -> None:
        """Try the requests once more on the state as it is now; give up those that were tried too often."""
        for request in reversed(accepted):
            request.attempts += 1
            if request.attempts < MAX_ATTEMPTS:
                self._inbox.appendleft(request)
            else:
                _fail(request, Conflict(f"the objects are being changed all the time: {error}"))

    def _stage(self, request: _Request[Any], now: float) -> bool:
        if request.done.done():
            return False
        transaction = Transaction(self.state, now)
        try:
            request.result = request.mutation(transaction)
        except Exception as error:
            transaction.undo()
            _fail(request, error)
            return False
        self._planner.note(transaction.changes)
        return True

    async def _commit(self, requested: int) -> None:
        """Commit what is staged; the first `requested` rows in one transaction."""
        staged = self.state.staged()
        changes = [(index, change) for index, row in enumerate(staged) if (change := _change(*row[2:]))]
        if not changes:
            self.state.rollback()
            return
        whole = sum(index < requested for index, _ in changes)
        revision = await self._write([change for _, change in changes], whole)
        final = self._written
        self.state.settle([*_untouched(staged, final), *final.values()], revision)
        self._tell(revision, [changed for row in staged if (changed := _final(row, final))])

    async def _write(self, changes: Sequence[Change], whole: int) -> int:
        """Commit in as few transactions as fit; the first holds at least the first `whole` changes."""
        first = max(whole, MAX_CHANGES)
        starts = [0, *range(first, len(changes), MAX_CHANGES)]
        parts = deque(
            changes[start:end] for start, end in zip(starts, [*starts[1:], len(changes)], strict=True)
        )
        revision = 0
        while parts:
            part = parts.popleft()
            try:
                revision = await self._store.commit(part, self._fence)
            except CommitTooLarge:
                cut = len(part) // 2 if not whole else whole if whole < len(part) else 0
                if not cut:
                    raise
                parts.extendleft((part[cut:], part[:cut]))
                continue
            whole = 0
            for change in part:
                if isinstance(change, Put):
                    obj = with_version(change.obj, revision)
                    self._written[kind_of(obj), obj.id] = obj
        return revision

    def _tell(self, revision: int, changes: Sequence[Changed]) -> None:
        for observer in tuple(self._observers):
            observer(revision, changes)


_Staged = tuple[Kind, str, Object | None, Object | None]
_Final = Mapping[tuple[Kind, str], Object]


def _untouched(staged: Iterable[_Staged], final: _Final) -> list[Object]:
    """Objects that were staged back to what is committed: they keep their committed version."""
    return [
        before
        for kind, id, before, after in staged
        if before is not None and after is not None and (kind, id) not in final
    ]


def _final(row: _Staged, final: _Final) -> Changed | None:
    """A staged row as observers are told of it; None when nothing came of it."""
    kind, id, before, after = row
    written = final.get((kind, id))
    if written is None and (after is not None or before is None):
        return None
    return Changed(before, written)


def _all_objects(state: State) -> list[Object]:
    view = state.view
    return [
        obj
        for objects in (
            [view.cluster] if view.cluster else [],
            view.nodes(),
            view.services(),
            view.tasks(),
            view.networks(),
            view.volumes(),
            view.secrets(),
            view.configs(),
        )
        for obj in objects
    ]


def _change(before: Object | None, after: Object | None) -> Change | None:
    """The store's change from what was committed to what is staged; None when there is no difference."""
    version = before.meta.version if before is not None else 0
    if after is None:
        return Delete(before) if before is not None else None
    if before is not None and _same_but_meta(before, after):
        return None
    return Put(with_version(after, version))


def _same_but_meta(one: Object, other: Object) -> bool:
    return one is other or all(
        getattr(one, name) == getattr(other, name) for name in one.__dataclass_fields__ if name != "meta"
    )


def _refreshed(state: State, written: _Final, result: Any) -> Any:  # Any: mutations return what they like
    """A result that is a stored object, as it was committed: with its final version."""
    if hasattr(result, "meta") and hasattr(result, "id"):
        key = (kind_of(result), result.id)
        return written.get(key) or state.view.get(*key) or result
    return result


def _fail(request: _Request[Any], error: Exception) -> None:
    if not request.done.done():
        request.done.set_exception(error)
