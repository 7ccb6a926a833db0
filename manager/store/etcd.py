"""The store over etcd: reads by pages, compare-and-set transactions, whole-commit watches, elections."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Protocol

from google.protobuf.message import DecodeError

from manager.store import (
    Batch,
    Change,
    Compacted,
    Deposed,
    Event,
    Fence,
    Leadership,
    Listing,
    Put,
    StaleWrite,
    UntilGone,
)
from manager.store.etcd_client import COMPACT, LEASE_GRANT, LEASE_REVOKE, RANGE, TXN, EtcdClient, Tls
from manager.store.etcd_pb import rpc_pb2 as pb
from manager.store.layout import (
    Keys,
    NameStep,
    ObjectKey,
    check_bytes,
    check_distinct,
    check_operations,
    key_of,
    name_steps,
    name_taken,
    rivals,
    stale,
    successor,
)
from pyswarm.errors import Fatal, NotFound, Unavailable
from pyswarm.objects import Kind, Object, unique_name
from pyswarm.wire import decode, encode

PREFIX = "/pyswarm"
_FIRST_PAGE = 128
_PAGE = 2000
_PAGE_BYTES = 16 * 1024 * 1024
_ATTEMPTS = 4
"""How often a commit is sent when it was refused for a reason that it can mend: a rename, a barrier."""
_OBJECTS_A_SECOND, _MOST_PATIENCE = 1000, 10.0
"""A lease on the lead lives a second longer for so many objects in the store, up to so many seconds."""
_EVICT = 0.4
"""Seconds for one attempt to end another candidate's lease."""
_RETRY = 0.2
"""Seconds between a candidate's attempts while the store cannot be reached."""


class Seal(Protocol):
    """What keeps values unreadable for who has etcd's files alone."""

    def seal(self, data: bytes) -> bytes: ...
    def open(self, sealed: bytes) -> bytes: ...


SEALED = b"\x01"
"""The first byte of a sealed value; no message of protobuf's begins so."""


class EtcdStore:
    """`manager.store.Store` in etcd. One client may serve several stores; whoever made it closes it. With a seal,
    objects are written sealed, and read sealed or not; names, ids and sizes stay readable."""

    def __init__(self, client: EtcdClient, prefix: str = PREFIX, seal: Seal | None = None) -> None:
        self._client = client
        self._seal = seal
        self._keys = Keys(prefix)
        self._writes: dict[str, int] = {}
        """How often the election key of a fence of ours was written: commits compare it, too."""
        self._doubtful: set[str] = set()
        """Election keys under which a commit was sent whose outcome is not known."""
        self._abandoned: set[int] = set()

    @classmethod
    def connect(
        cls, endpoints: Sequence[str], tls: Tls | None = None, timeout: float = 5.0, seal: Seal | None = None
    ) -> EtcdStore:
        """A store with a client of its own; end it with `close`."""
        return cls(EtcdClient(endpoints, tls, timeout), seal=seal)

    @property
    def client(self) -> EtcdClient:
        return self._client

    async def close(self) -> None:
        await self._client.close()

    # ------------------------------------------------------------------------------------------ reading

    async def list(self, kind: Kind | None = None) -> Listing:
        await self._settle()
        prefix = self._keys.kind(kind) if kind else self._keys.objects
        while True:
            try:
                return await self._list(prefix)
            except Compacted:
                continue  # the revision of the first page went away while the others were read

    async def _list(self, prefix: bytes) -> Listing:
        objects: list[Object] = []
        end = successor(prefix)
        request = pb.RangeRequest(key=prefix, range_end=end, limit=_FIRST_PAGE)
        while True:
            page = await self._client.call(RANGE, request, repeatable=True, attempt=self._client.timeout)
            objects.extend(self._decode(kv) for kv in page.kvs)
            revision = request.revision or page.header.revision
            if not page.more:
                return Listing(tuple(objects), revision)
            size = page.ByteSize() // len(page.kvs) + 1
            request = pb.RangeRequest(
                key=page.kvs[-1].key + b"\0",
                range_end=end,
                revision=revision,
                limit=min(_PAGE, max(16, _PAGE_BYTES // size)),
            )

    async def get(self, kind: Kind, id: str) -> Object | None:
        await self._settle()
        request = pb.RangeRequest(key=self._keys.object(kind, id))
        found = await self._client.call(RANGE, request, repeatable=True)
        return self._decode(found.kvs[0]) if found.kvs else None

    def _decode(self, kv: pb.KeyValue) -> Object:
        kind, id = self._keys.parse(kv.key)
        value = kv.value
        if value.startswith(SEALED):
            if self._seal is None:
                raise Fatal(f"the store's {kind} {id} is sealed, and there is no key to open it")
            value = self._seal.open(value)
        try:
            return decode(kind, value, kv.mod_revision)
        except DecodeError as error:
            raise Fatal(
                f"the store's {kind} {id} cannot be read ({error}): restore a backup with "
                "`pyswarm restore FILE`"
            ) from error

    def _encode(self, obj: Object) -> bytes:
        data = encode(obj)
        return data if self._seal is None else self._seal.seal(data)

    # ------------------------------------------------------------------------------------------ writing

    async def commit(self, changes: Sequence[Change], fence: Fence | None = None) -> int:
        check_distinct(changes)
        await self._settle()
        renamed: Mapping[ObjectKey, str] = await self._stored_names(changes) if rivals(changes) else {}
        for _ in range(_ATTEMPTS):
            steps = name_steps(changes, renamed)
            answer = await self._send(self._transaction(changes, steps, fence), fence)
            if answer.succeeded:
                return answer.header.revision
            if self._renames(answer, changes, steps, fence):
                renamed = await self._stored_names(changes)
        raise StaleWrite("what was written is being changed all the time: read again")

    async def _send(self, request: pb.TxnRequest, fence: Fence | None) -> pb.TxnResponse:
        try:
            return await self._client.call(TXN, request)
        except (Unavailable, asyncio.CancelledError):
            if fence is not None:
                self._doubtful.add(fence.key)
            raise

    async def _settle(self) -> None:
        """After a fenced commit of unknown outcome: make sure that it either has happened already or never
        will, so that what is read next stays true.

        A transaction may travel for seconds (a slow disk, a follower that passes it on) after its sender
        has given up. Every fenced commit compares how often its election key was written; writing the key
        once more refuses all that was sent before and has not arrived.
        """
        for key in sorted(self._doubtful):
            name = key.encode()
            exists = pb.Compare(key=name, target=pb.Compare.VERSION, result=pb.Compare.GREATER, version=0)
            touch = pb.PutRequest(key=name, ignore_value=True, ignore_lease=True)
            request = pb.TxnRequest(
                compare=[exists],
                success=[
                    pb.RequestOp(request_put=touch),
                    pb.RequestOp(request_range=pb.RangeRequest(key=name)),
                ],
            )
            answer = await self._client.call(TXN, request, repeatable=True)
            if answer.succeeded:
                writes = answer.responses[1].response_range.kvs[0].version
                self._writes[key] = max(writes, self._writes.get(key, 1))
            self._doubtful.discard(key)

    def _transaction(
        self, changes: Sequence[Change], steps: Sequence[NameStep], fence: Fence | None
    ) -> pb.TxnRequest:
        """All compares, then the writes; when a compare fails, what is there instead, in the compares'
        order."""
        request = pb.TxnRequest()
        if fence is not None:
            writes = self._writes.get(fence.key, 1)
            _compare_create(request, fence.key.encode(), fence.create_revision)
            request.compare.add(
                key=fence.key.encode(), target=pb.Compare.VERSION, result=pb.Compare.EQUAL, version=writes
            )
        for change in changes:
            key = self._keys.object(*key_of(change))
            _compare_object(request, key, change.obj.meta.version)
            _write(request, key, self._encode(change.obj) if isinstance(change, Put) else None)
        for step in steps:
            key = self._keys.name(step.kind, step.name)
            if step.before:
                _compare_value(request, key, step.before)
            else:
                _compare_create(request, key, 0)
            if step.before != step.after:
                _write(request, key, step.after.encode() if step.after else None)
        check_operations(max(len(request.compare), len(request.success)))
        check_bytes(request.ByteSize())
        return request

    def _renames(
        self,
        answer: pb.TxnResponse,
        changes: Sequence[Change],
        steps: Sequence[NameStep],
        fence: Fence | None,
    ) -> bool:
        """Why a transaction was refused. Raises what was wrong; or returns whether an object in it is being
        renamed, so that its old name must be found out."""
        found = iter([next(iter(r.response_range.kvs), pb.KeyValue()) for r in answer.responses])
        if fence is not None:
            key = next(found)
            if key.create_revision != fence.create_revision:
                raise Deposed("this manager does not lead any more: the write was refused")
            self._writes[fence.key] = key.version  # `_settle` was faster than this commit: send it again
        for change in changes:
            kv = next(found)
            if kv.mod_revision != change.obj.meta.version:
                raise stale(change, kv.mod_revision)
        wrong = [step for step in steps if next(found).value.decode() != step.before]
        if any(step.before for step in wrong):
            return True  # and it may give back a name that seems taken now
        if wrong:
            raise name_taken(wrong[0].kind, wrong[0].name, wrong[0].after)
        return False

    async def _stored_names(self, changes: Sequence[Change]) -> Mapping[ObjectKey, str]:
        """The names that the changed objects have in the store, each still at the version of its change."""
        old = [c for c in changes if c.obj.meta.version and unique_name(c.obj)]
        objects = await asyncio.gather(*(self.get(*key_of(change)) for change in old))
        names: dict[ObjectKey, str] = {}
        for change, obj in zip(old, objects, strict=True):
            if obj is None or obj.meta.version != change.obj.meta.version:
                raise stale(change, obj.meta.version if obj else 0)
            names[key_of(change)] = unique_name(obj)
        return names

    # ----------------------------------------------------------------------------------------- watching

    @asynccontextmanager
    async def watch(self, after: int) -> AsyncGenerator[AsyncIterator[Batch], None]:
        async with aclosing(self._batches(after)) as batches:
            yield batches

    async def _batches(self, after: int) -> AsyncGenerator[Batch, None]:
        prefix = self._keys.objects
        async with aclosing(self._client.watch(prefix, successor(prefix), after + 1)) as revisions:
            async for revision, events in revisions:
                yield Batch(revision, tuple(map(self._event, events)))

    def _event(self, event: pb.Event) -> Event:
        kind, id = self._keys.parse(event.kv.key)
        gone = event.type == pb.Event.DELETE
        return Event(kind, id, None if gone else self._decode(event.kv))

    async def compact(self, revision: int) -> None:
        """Forget what was before `revision` (etcd does this by itself after 100,000 revisions)."""
        await self._client.call(COMPACT, pb.CompactionRequest(revision=revision, physical=True))

    # --------------------------------------------------------------------------------------- leadership

    def campaign(
        self, candidate: str, ttl: float = 1.0, until_gone: UntilGone | None = None
    ) -> AbstractAsyncContextManager[Leadership]:
        return self._campaign(candidate, ttl, until_gone)

    @asynccontextmanager
    async def _campaign(
        self, candidate: str, ttl: float, until_gone: UntilGone | None
    ) -> AsyncGenerator[Leadership, None]:
        while True:
            try:
                await self._revoke_abandoned()
                await self._supersede(candidate)
                lease = await self._grant(max(ttl, await self._patience()))
            except Unavailable:
                await asyncio.sleep(_RETRY)
                continue
            try:
                fence = await self._win(candidate, lease, until_gone)
                if fence is not None:
                    lease.watch_over(self._gone(fence))
                    yield _EtcdLeadership(fence, lease, self._confirm)
                    return
            finally:
                await lease.drop()
                await self._revoke(lease.id)
                self._forget(lease.id)

    async def _patience(self) -> float:
        """Seconds that the lead of a cluster of this size should outlast silence: the larger it is, the more
        its leader, its etcd and their machine have to do, and the more a change of the leader costs."""
        request = pb.RangeRequest(
            key=self._keys.objects, range_end=successor(self._keys.objects), count_only=True
        )
        found = await self._client.call(RANGE, request, repeatable=True)
        return min(_MOST_PATIENCE, 1.0 + found.count / _OBJECTS_A_SECOND)

    def _forget(self, lease: int) -> None:
        key = self._keys.candidate(lease).decode()
        self._writes.pop(key, None)
        self._doubtful.discard(key)

    async def _grant(self, ttl: float) -> _Lease:
        asked = asyncio.get_running_loop().time()
        seconds = max(1, math.ceil(ttl))
        answer = await self._client.call(LEASE_GRANT, pb.LeaseGrantRequest(TTL=seconds))
        return _Lease(self._client, answer.ID, float(answer.TTL or seconds), asked)

    async def _supersede(self, candidate: str) -> None:
        """End what a former process of this candidate left (it was killed): its lease need not run out."""
        for kv in await self._candidates():
            if kv.value == candidate.encode():
                await self._revoke_one(kv.lease, None)

    async def _candidates(self) -> Sequence[pb.KeyValue]:
        """All candidates' keys, the leader's first."""
        request = pb.RangeRequest(
            key=self._keys.election,
            range_end=successor(self._keys.election),
            sort_order=pb.RangeRequest.ASCEND,
            sort_target=pb.RangeRequest.CREATE,
        )
        return (await self._client.call(RANGE, request, repeatable=True)).kvs

    async def _win(self, candidate: str, lease: _Lease, until_gone: UntilGone | None) -> Fence | None:
        """The fence once all older candidates are gone; None if the lease was lost while waiting."""
        turn = asyncio.ensure_future(self._queue(candidate, lease.id, until_gone))
        lost = asyncio.ensure_future(lease.lost.wait())
        try:
            await asyncio.wait({turn, lost}, return_when=asyncio.FIRST_COMPLETED)
            return turn.result() if turn.done() and not lost.done() else None
        finally:
            for future in (turn, lost):
                future.cancel()
            await asyncio.gather(turn, lost, return_exceptions=True)

    async def _queue(self, candidate: str, lease: int, until_gone: UntilGone | None) -> Fence:
        """Stand behind the candidates that are there and wait for each to go."""
        key = self._keys.candidate(lease)
        while True:
            try:
                created = await self._enlist(key, candidate, lease)
                while (ahead := await self._ahead(created)) is not None:
                    await self._outlast(*ahead, until_gone)
                return Fence(key.decode(), created)
            except (Unavailable, Compacted):
                await asyncio.sleep(_RETRY)

    async def _enlist(self, key: bytes, candidate: str, lease: int) -> int:
        """Write the candidate's key unless it is there; returns the revision of its creation."""
        compare = pb.Compare(key=key, target=pb.Compare.CREATE, result=pb.Compare.EQUAL, create_revision=0)
        put = pb.PutRequest(key=key, value=candidate.encode(), lease=lease)
        request = pb.TxnRequest(
            compare=[compare],
            success=[pb.RequestOp(request_put=put)],
            failure=[pb.RequestOp(request_range=pb.RangeRequest(key=key))],
        )
        answer = await self._client.call(TXN, request)
        if answer.succeeded:
            return answer.header.revision
        return answer.responses[0].response_range.kvs[0].create_revision

    async def _outlast(self, ahead: pb.KeyValue, revision: int, until_gone: UntilGone | None) -> None:
        """Until the candidate ahead has gone, or its lease was ended since there is nobody any more to renew it."""
        waits = [asyncio.ensure_future(self._until_deleted(ahead.key, revision))]
        if until_gone is not None:
            waits.append(asyncio.ensure_future(until_gone(ahead.value.decode())))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if not waits[0].done():
                waits[1].result()
                waits.append(asyncio.ensure_future(self._evict(ahead.lease)))
            await waits[0]
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _evict(self, lease: int) -> None:
        """End the lease of a candidate that is gone: again and again, since etcd's members may just be electing
        a leader of their own, and lose what they are asked meanwhile."""
        request = pb.LeaseRevokeRequest(ID=lease)
        while True:
            with contextlib.suppress(Unavailable, NotFound):
                await self._client.call(
                    LEASE_REVOKE, request, repeatable=True, timeout=_EVICT, attempt=_EVICT
                )
                return
            await asyncio.sleep(0.05)

    async def _ahead(self, created: int) -> tuple[pb.KeyValue, int] | None:
        """The candidate just before the one created at that revision, and the revision of this answer."""
        request = pb.RangeRequest(
            key=self._keys.election,
            range_end=successor(self._keys.election),
            max_create_revision=created - 1,
            sort_order=pb.RangeRequest.DESCEND,
            sort_target=pb.RangeRequest.CREATE,
            limit=1,
        )
        answer = await self._client.call(RANGE, request, repeatable=True)
        return (answer.kvs[0], answer.header.revision) if answer.kvs else None

    async def _until_deleted(self, key: bytes, revision: int) -> None:
        async with aclosing(self._client.watch(key, b"", revision + 1)) as revisions:
            async for _, events in revisions:
                if any(event.type == pb.Event.DELETE for event in events):
                    return

    async def _gone(self, fence: Fence) -> None:
        """Returns when the election key was removed, by whomever."""
        with contextlib.suppress(Compacted):
            await self._until_deleted(fence.key.encode(), fence.create_revision)

    async def _confirm(self, fence: Fence) -> None:
        """That the fence holds now: a linearizable read, which a majority of the members answers for."""
        request = pb.RangeRequest(key=fence.key.encode(), keys_only=True)
        found = (await self._client.call(RANGE, request, repeatable=True)).kvs
        if not found or found[0].create_revision != fence.create_revision:
            raise Deposed("this manager does not lead any more: ask again")

    async def _revoke(self, lease: int) -> None:
        """Give the lease back at once; if that fails, remember it for the next campaign."""
        self._abandoned.add(lease)
        revoking = asyncio.ensure_future(self._revoke_abandoned(timeout=1.0))
        try:
            with contextlib.suppress(Unavailable):
                await asyncio.shield(revoking)
        except asyncio.CancelledError:
            await asyncio.gather(revoking, return_exceptions=True)
            raise

    async def _revoke_abandoned(self, timeout: float | None = None) -> None:
        for lease in sorted(self._abandoned):
            await self._revoke_one(lease, timeout)
            self._abandoned.discard(lease)

    async def _revoke_one(self, lease: int, timeout: float | None) -> None:
        request = pb.LeaseRevokeRequest(ID=lease)
        with contextlib.suppress(NotFound):
            await self._client.call(LEASE_REVOKE, request, repeatable=True, timeout=timeout)

    async def leader(self) -> str | None:
        candidates = await self._candidates()
        return candidates[0].value.decode() if candidates else None

    async def leaders(self) -> AsyncGenerator[str | None, None]:
        """The leader now and at each change. Waits while the store cannot be reached."""
        seen: list[str | None] = []
        prefix = self._keys.election
        while True:
            try:
                request = pb.RangeRequest(key=prefix, range_end=successor(prefix))
                answer = await self._client.call(RANGE, request, repeatable=True)
                candidates = {kv.key: (kv.create_revision, kv.value.decode()) for kv in answer.kvs}
                async for leader in self._leaders_from(candidates, answer.header.revision + 1):
                    if seen != [leader]:
                        seen = [leader]
                        yield leader
            except Compacted:
                continue
            except Unavailable:
                if self._client.closed:
                    raise
                await asyncio.sleep(_RETRY)

    async def _leaders_from(
        self, candidates: dict[bytes, tuple[int, str]], start: int
    ) -> AsyncGenerator[str | None, None]:
        prefix = self._keys.election
        yield min(candidates.values())[1] if candidates else None
        async with aclosing(self._client.watch(prefix, successor(prefix), start)) as revisions:
            async for _, events in revisions:
                for event in events:
                    if event.type == pb.Event.DELETE:
                        candidates.pop(event.kv.key, None)
                    else:
                        candidates[event.kv.key] = (event.kv.create_revision, event.kv.value.decode())
                yield min(candidates.values())[1] if candidates else None


def _compare_object(request: pb.TxnRequest, key: bytes, version: int) -> None:
    request.compare.add(key=key, target=pb.Compare.MOD, result=pb.Compare.EQUAL, mod_revision=version)
    request.failure.add().request_range.CopyFrom(pb.RangeRequest(key=key, keys_only=True))


def _compare_value(request: pb.TxnRequest, key: bytes, value: str) -> None:
    request.compare.add(key=key, target=pb.Compare.VALUE, result=pb.Compare.EQUAL, value=value.encode())
    request.failure.add().request_range.CopyFrom(pb.RangeRequest(key=key))


def _compare_create(request: pb.TxnRequest, key: bytes, revision: int) -> None:
    request.compare.add(key=key, target=pb.Compare.CREATE, result=pb.Compare.EQUAL, create_revision=revision)
    request.failure.add().request_range.CopyFrom(pb.RangeRequest(key=key))


def _write(request: pb.TxnRequest, key: bytes, value: bytes | None) -> None:
    """Put, or with None delete."""
    if value is None:
        request.success.add().request_delete_range.CopyFrom(pb.DeleteRangeRequest(key=key))
    else:
        request.success.add().request_put.CopyFrom(pb.PutRequest(key=key, value=value))


class _Lease:
    """A lease that is kept alive until it is dropped. `lost` is set when that could not be done in time."""

    def __init__(self, client: EtcdClient, id: int, ttl: float, asked: float) -> None:
        """`asked` is the event loop's time at which the lease was asked for."""
        self.id = id
        self.lost = asyncio.Event()
        self._renewals = client.keep_alive(id, ttl, asked, self.lost.set)
        self._tasks: list[asyncio.Task[None]] = []

    def watch_over(self, ending: Coroutine[None, None, None]) -> None:
        """The lease counts as lost when `ending` returns."""
        self._tasks.append(asyncio.get_running_loop().create_task(self._until(ending)))

    async def _until(self, ending: Coroutine[None, None, None]) -> None:
        try:
            await ending
        finally:
            self.lost.set()

    async def drop(self) -> None:
        """Stop renewing."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._renewals.close()


class _EtcdLeadership:
    """`Leadership`. Those who ask at the same time whether it holds share a question to etcd, one that is put after
    they have asked."""

    def __init__(
        self, fence: Fence, lease: _Lease, confirm: Callable[[Fence], Coroutine[None, None, None]]
    ) -> None:
        self.fence = fence
        self._lease = lease
        self._confirm = confirm
        self._asked: asyncio.Task[None] | None = None
        """The question that is on its way."""
        self._next: asyncio.Task[None] | None = None
        """The one to be put when that is answered."""

    async def lost(self) -> None:
        await self._lease.lost.wait()

    async def confirm(self) -> None:
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._ask_after(self._asked))
            self._next.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._next)

    async def _ask_after(self, asked: asyncio.Task[None] | None) -> None:
        if asked is not None:
            await asyncio.wait({asked})
        self._asked, self._next = self._next, None
        await self._confirm(self.fence)
