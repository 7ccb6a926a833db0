"""The connection to etcd: endpoints, TLS, failover, time-outs, resumed watches; etcd's calls and no more.

One gRPC channel for each endpoint, the first preferred. An endpoint that failed (or has no leader, being cut
off from the others) is avoided for a while. Reads are tried on the next endpoint; a write whose outcome is
not known is reported as `Unavailable` and never sent twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import Message

from manager.store import Compacted
from manager.store.etcd_lease import Renewals
from manager.store.etcd_pb import rpc_pb2 as pb
from pyswarm.errors import (
    Conflict,
    Fatal,
    Invalid,
    NotFound,
    PermissionDenied,
    PyswarmError,
    Unavailable,
)
from pyswarm.rpc import FIXED_WINDOW

SERVER_NAME = "pyswarm-etcd"
"""The DNS name in every manager's certificate; all endpoints answer to it."""
AVOID = 2.0
"""Seconds for which a failed endpoint is used only if there is no other."""
ATTEMPT = 1.5
"""Seconds that one endpoint has for a request which may be repeated on another."""
_DOUBT = 0.4
"""Seconds after which, and in which steps, the fate of a write is looked into."""
_METADATA = (("hasleader", "true"),)
"""Asks a member to refuse at once, or to end the stream, while it knows of no leader."""

T = TypeVar("T")
RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM of the cluster's CA, of the certificate that we show, and of its key."""

    ca: bytes
    cert: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Call(Generic[RequestT, ResponseT]):
    """One of etcd's methods."""

    path: str
    request: type[RequestT]
    response: type[ResponseT]


RANGE = Call("/etcdserverpb.KV/Range", pb.RangeRequest, pb.RangeResponse)
PUT = Call("/etcdserverpb.KV/Put", pb.PutRequest, pb.PutResponse)
DELETE_RANGE = Call("/etcdserverpb.KV/DeleteRange", pb.DeleteRangeRequest, pb.DeleteRangeResponse)
TXN = Call("/etcdserverpb.KV/Txn", pb.TxnRequest, pb.TxnResponse)
COMPACT = Call("/etcdserverpb.KV/Compact", pb.CompactionRequest, pb.CompactionResponse)
WATCH = Call("/etcdserverpb.Watch/Watch", pb.WatchRequest, pb.WatchResponse)
LEASE_GRANT = Call("/etcdserverpb.Lease/LeaseGrant", pb.LeaseGrantRequest, pb.LeaseGrantResponse)
LEASE_REVOKE = Call("/etcdserverpb.Lease/LeaseRevoke", pb.LeaseRevokeRequest, pb.LeaseRevokeResponse)
LEASE_KEEP_ALIVE = Call(
    "/etcdserverpb.Lease/LeaseKeepAlive", pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse
)
MEMBER_ADD = Call("/etcdserverpb.Cluster/MemberAdd", pb.MemberAddRequest, pb.MemberAddResponse)
MEMBER_REMOVE = Call("/etcdserverpb.Cluster/MemberRemove", pb.MemberRemoveRequest, pb.MemberRemoveResponse)
MEMBER_UPDATE = Call("/etcdserverpb.Cluster/MemberUpdate", pb.MemberUpdateRequest, pb.MemberUpdateResponse)
MEMBER_LIST = Call("/etcdserverpb.Cluster/MemberList", pb.MemberListRequest, pb.MemberListResponse)
MEMBER_PROMOTE = Call(
    "/etcdserverpb.Cluster/MemberPromote", pb.MemberPromoteRequest, pb.MemberPromoteResponse
)
ALARM = Call("/etcdserverpb.Maintenance/Alarm", pb.AlarmRequest, pb.AlarmResponse)
STATUS = Call("/etcdserverpb.Maintenance/Status", pb.StatusRequest, pb.StatusResponse)
DEFRAGMENT = Call("/etcdserverpb.Maintenance/Defragment", pb.DefragmentRequest, pb.DefragmentResponse)
MOVE_LEADER = Call("/etcdserverpb.Maintenance/MoveLeader", pb.MoveLeaderRequest, pb.MoveLeaderResponse)

# Refusals that a member gives before it proposes anything: certain not to have been carried out.
_REFUSED = ("etcdserver: no leader", "etcdserver: rpc not supported for learner")

_OPTIONS = (
    ("grpc.ssl_target_name_override", SERVER_NAME),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 5000),
    ("grpc.keepalive_timeout_ms", 2000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    *FIXED_WINDOW,
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
)

_CLASSES: dict[grpc.StatusCode, type[PyswarmError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: Invalid,
    grpc.StatusCode.FAILED_PRECONDITION: Conflict,
    grpc.StatusCode.ALREADY_EXISTS: Conflict,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.UNAUTHENTICATED: PermissionDenied,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.OUT_OF_RANGE: Compacted,
    grpc.StatusCode.DATA_LOSS: Fatal,
    grpc.StatusCode.UNIMPLEMENTED: Fatal,
}


def translate(error: grpc.aio.AioRpcError, endpoint: str) -> PyswarmError:
    """The family's error for a failed call, with etcd's own words and the way out where there is one."""
    details = error.details() or error.code().name
    if "database space exceeded" in details:
        return Unavailable(
            f"the store at {endpoint} has reached its disk quota and takes no writes: the managers make room by "
            "themselves, within half a minute: try again then"
        )
    if "corrupt" in details:
        return Fatal(
            f"etcd at {endpoint} has found its data corrupt ({details}): remove this manager from the "
            "cluster and join it again, or restore a backup"
        )
    return _CLASSES.get(error.code(), Unavailable)(f"etcd at {endpoint}: {details}")


async def _replaced(answer: Awaitable[T]) -> T:
    """A call's answer. gRPC pretends that we were cancelled when the call's channel is closed under it (see
    `EtcdClient.configure`): that is Unavailable for us, and another endpoint's turn."""
    try:
        return await answer
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise Unavailable("the connection to etcd was replaced during the call") from None


class _Answer(Protocol):
    """All of etcd's answers have a header."""

    header: pb.ResponseHeader


class _Endpoint:
    """One member's address and the channel to it."""

    def __init__(self, address: str, tls: Tls | None) -> None:
        self.address = address
        self.avoid_until = 0.0
        self.closed = False
        self.term = 0
        """Raft's term as of the last answer; 0 before the first."""
        if tls is None:
            self.channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
            return
        credentials = grpc.ssl_channel_credentials(tls.ca, tls.key, tls.cert)
        self.channel = grpc.aio.secure_channel(address, credentials, options=_OPTIONS)

    async def close(self, grace: float | None = None) -> None:
        self.closed = True
        await self.channel.close(grace)

    def check_open(self) -> None:
        """Before each use of the channel. Raises Unavailable."""
        if self.closed:
            raise Unavailable("the connection to etcd was replaced")

    def ready(self) -> bool:
        return self.channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY

    def failed(self) -> None:
        self.avoid_until = asyncio.get_running_loop().time() + AVOID

    async def unary(self, call: Call[RequestT, ResponseT], request: RequestT, timeout: float) -> ResponseT:
        self.check_open()
        method = self.channel.unary_unary(
            call.path,
            request_serializer=call.request.SerializeToString,
            response_deserializer=call.response.FromString,
        )
        metadata = _METADATA if call.path.startswith(("/etcdserverpb.KV/", "/etcdserverpb.Lease/")) else None
        answer = cast("ResponseT", await _replaced(method(request, timeout=timeout, metadata=metadata)))
        self.term = cast("_Answer", answer).header.raft_term or self.term
        return answer

    async def write(self, call: Call[RequestT, ResponseT], request: RequestT, timeout: float) -> ResponseT:
        """Like `unary`, but gives up early on a write that nobody will answer any more.

        A follower does not tell when the leader that it has passed a write to dies: it lets the client
        wait. So a write that takes long is given up once the term has changed since (or the member does
        not even answer a question); one that is slow because of a slow disk is not.
        """
        term = self.term
        sending = asyncio.ensure_future(self.unary(call, request, timeout))
        try:
            strikes = 0
            while not sending.done() and strikes < 2:
                await asyncio.wait({sending}, timeout=_DOUBT)
                if not sending.done() and await self._lost(term):
                    strikes += 1
            if not sending.done():
                raise Unavailable(
                    f"etcd at {self.address} lost its leader during a write: whether it wrote is not known"
                )
            return sending.result()
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _lost(self, term: int) -> bool:
        """Whether a write sent in that term may have gone astray."""
        try:
            status = await self.unary(STATUS, pb.StatusRequest(), _DOUBT)
        except (grpc.aio.AioRpcError, Unavailable):
            return True
        return status.leader == 0 or status.raftTerm != (term or status.raftTerm)


class EtcdClient:
    """Calls on the first endpoint that answers. Use and close it in one event loop."""

    def __init__(self, endpoints: Sequence[str], tls: Tls | None = None, timeout: float = 5.0) -> None:
        """`endpoints` are host:port, our own member first; `timeout` bounds each call, failover included."""
        if not endpoints:
            raise Invalid("no etcd endpoint was given")
        self._tls = tls
        self.timeout = timeout
        self._addresses = tuple(endpoints)
        self._endpoints: list[_Endpoint] = []
        self._closed = False

    @property
    def endpoints(self) -> tuple[str, ...]:
        return self._addresses

    @property
    def closed(self) -> bool:
        return self._closed

    async def configure(self, endpoints: Sequence[str] | None = None, tls: Tls | None = None) -> None:
        """Use other endpoints or another certificate from now on (None: as before). Watches under way fail
        over; calls have a second to end."""
        same_tls = tls is None or tls == self._tls
        self._tls = tls if tls is not None else self._tls
        self._addresses = tuple(endpoints) if endpoints is not None else self._addresses
        kept = {e.address: e for e in self._endpoints} if same_tls else {}
        old, self._endpoints = self._endpoints, []
        if old:
            self._endpoints = [kept.get(a) or _Endpoint(a, self._tls) for a in self._addresses]
        for endpoint in old:
            if endpoint not in self._endpoints:
                await endpoint.close(grace=1.0)

    async def close(self) -> None:
        self._closed = True
        endpoints, self._endpoints = self._endpoints, []
        for endpoint in endpoints:
            await endpoint.close()

    def _all(self) -> list[_Endpoint]:
        if self._closed:
            raise Unavailable("the connection to etcd is closed")
        if not self._endpoints:
            self._endpoints = [_Endpoint(address, self._tls) for address in self._addresses]
        return self._endpoints

    async def _pick(self, timeout: float) -> _Endpoint:
        """The first connected endpoint, those that failed lately last. Raises Unavailable if none is."""
        now = asyncio.get_running_loop().time()
        endpoints = self._all()
        ready = [e for e in endpoints if e.ready()]
        for endpoint in ready:
            if endpoint.avoid_until <= now:
                return endpoint
        fresh = [e for e in endpoints if e.avoid_until <= now and e not in ready]
        # A healthy but unconnected endpoint gets a moment before we fall back to one that failed lately.
        found = await _first_connected(fresh, min(timeout, 0.3) if ready else timeout) if fresh else None
        if found is None and ready:
            found = min(ready, key=lambda e: e.avoid_until)
        if found is None:
            found = await _first_connected(endpoints, timeout - (asyncio.get_running_loop().time() - now))
        if found is None:
            raise Unavailable(f"no etcd member can be reached at {', '.join(self._addresses)}")
        return found

    async def call(
        self,
        call: Call[RequestT, ResponseT],
        request: RequestT,
        *,
        repeatable: bool = False,
        timeout: float | None = None,
        attempt: float = ATTEMPT,
    ) -> ResponseT:
        """The answer. A `repeatable` request goes to the next endpoint when one fails, or has not answered
        in `attempt` seconds; any other is sent once, and again only where it was refused unread. Raises the
        translated error."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (self.timeout if timeout is None else timeout)
        last: PyswarmError | None = None
        while (left := deadline - loop.time()) > 0:
            try:
                endpoint = await self._pick(left)
            except Unavailable as error:
                raise last or error from None
            left = max(deadline - loop.time(), 0.01)
            try:
                if not repeatable:
                    return await endpoint.write(call, request, left)
                return await endpoint.unary(call, request, min(left, attempt))
            except grpc.aio.AioRpcError as error:
                last = translate(error, endpoint.address)
                if not isinstance(last, Unavailable):
                    raise last from None
                endpoint.failed()
                if not repeatable and (error.details() or "") not in _REFUSED:
                    raise last from None
            except Unavailable as error:
                last = error
                endpoint.failed()
                if not repeatable:
                    raise
            await asyncio.sleep(0.05)
        raise last or Unavailable(f"no answer from etcd in time ({', '.join(self._addresses)})")

    async def call_member(
        self, address: str, call: Call[RequestT, ResponseT], request: RequestT, timeout: float = 2.0
    ) -> ResponseT:
        """Ask one member, which need not be among the endpoints, and no other (status, defragment)."""
        known = next((e for e in self._all() if e.address == address), None)
        endpoint = known or _Endpoint(address, self._tls)
        try:
            return await endpoint.unary(call, request, timeout)
        except grpc.aio.AioRpcError as error:
            raise translate(error, address) from None
        finally:
            if known is None:
                await endpoint.close()

    def keep_alive(self, lease: int, ttl: float, asked: float, lost: Callable[[], None]) -> Renewals:
        """Renews a lease of `ttl` seconds, asked for at `asked` (monotonic), from a thread of its own; close it
        in the end. `lost` is called when the lease is gone or could not be renewed in time."""
        return Renewals(lease, ttl, asked, self._connected, LEASE_KEEP_ALIVE.path, lost)

    def _connected(self, attempt: int) -> grpc.Channel:
        """A channel for threads, with the present endpoints and certificate."""
        address = self._addresses[attempt % len(self._addresses)]
        if self._tls is None:
            return grpc.insecure_channel(address, options=_OPTIONS)
        credentials = grpc.ssl_channel_credentials(self._tls.ca, self._tls.key, self._tls.cert)
        return grpc.secure_channel(address, credentials, options=_OPTIONS)

    async def watch(
        self, key: bytes, range_end: bytes, start: int
    ) -> AsyncGenerator[tuple[int, list[pb.Event]], None]:
        """(revision, its events) of all whole revisions from `start` on, for ever, across failures.

        Raises Compacted when `start`, or the point to resume from, is no longer kept, or when the members
        belong to another cluster than before (a restored backup).
        """
        cluster = 0
        delay = 0.0
        while True:
            try:
                endpoint = await self._pick(self.timeout)
            except Unavailable:
                if self.closed:
                    raise
                continue
            try:
                async with aclosing(_watch_once(endpoint, key, range_end, start)) as responses:
                    async for response in responses:
                        delay = 0.0
                        if response.header.cluster_id != (cluster or response.header.cluster_id):
                            raise Compacted("the store was replaced while it was watched")
                        cluster = response.header.cluster_id
                        if not response.events and not response.created:
                            # Progress: a watch that is up to date has seen all until here.
                            start = max(start, response.header.revision + 1)
                        for revision, events in _by_revision(response.events):
                            if revision >= start:
                                start = revision + 1
                                yield revision, events
            except Unavailable:
                endpoint.failed()
            await asyncio.sleep(delay)
            delay = min(max(0.05, delay * 2), 1.0)


async def _first_connected(endpoints: Sequence[_Endpoint], timeout: float) -> _Endpoint | None:
    """The first of the endpoints to connect (the earlier in the list when several do), or None in time."""
    waits = {asyncio.ensure_future(e.channel.channel_ready()): e for e in endpoints if not e.closed}
    if not waits:
        return None
    try:
        done, _ = await asyncio.wait(waits, timeout=max(timeout, 0), return_when=asyncio.FIRST_COMPLETED)
        connected = [e for wait, e in waits.items() if wait in done and wait.exception() is None]
        return connected[0] if connected else None
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


def _by_revision(events: Sequence[pb.Event]) -> list[tuple[int, list[pb.Event]]]:
    """Events, which come in order, grouped by the revision that made them."""
    groups: list[tuple[int, list[pb.Event]]] = []
    for event in events:
        revision = event.kv.mod_revision
        if not groups or groups[-1][0] != revision:
            groups.append((revision, []))
        groups[-1][1].append(event)
    return groups


async def _watch_once(
    endpoint: _Endpoint, key: bytes, range_end: bytes, start: int
) -> AsyncGenerator[pb.WatchResponse, None]:
    """The responses of one watch on one endpoint, fragments put together. Raises Compacted, Unavailable."""
    endpoint.check_open()
    method = endpoint.channel.stream_stream(
        WATCH.path,
        request_serializer=pb.WatchRequest.SerializeToString,
        response_deserializer=pb.WatchResponse.FromString,
    )
    create = pb.WatchCreateRequest(
        key=key, range_end=range_end, start_revision=start, progress_notify=True, fragment=True
    )
    call = method(None, metadata=_METADATA)
    whole: pb.WatchResponse | None = None
    try:
        await _replaced(call.write(pb.WatchRequest(create_request=create)))
        while True:
            response = await _replaced(call.read())
            if not isinstance(response, pb.WatchResponse):
                raise Unavailable(f"etcd at {endpoint.address} ended the watch")
            if response.canceled:
                if response.compact_revision:
                    raise Compacted(f"the store keeps no changes before revision {response.compact_revision}")
                raise Unavailable(f"etcd at {endpoint.address} ended the watch: {response.cancel_reason}")
            if whole is None:
                whole = response
            else:
                whole.events.extend(response.events)
            if not response.fragment:
                yield whole
                whole = None
    except grpc.aio.AioRpcError as error:
        raise translate(error, endpoint.address) from None
    except asyncio.InvalidStateError:
        raise Unavailable(f"etcd at {endpoint.address} ended the watch") from None
    finally:
        call.cancel()
