"""gRPC on both sides, built from the table of methods: stubs, servers, credentials, errors to codes and back.

Errors travel as a status: the code is chosen by class, the text is the details, and the class name goes
along as trailing metadata, so that the caller gets the very class that was raised.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from pyswarm import errors, wire
from pyswarm.api import METHOD, METHODS, Method, Role
from pyswarm.errors import (
    Conflict,
    Fatal,
    Invalid,
    Locked,
    NotFound,
    PermissionDenied,
    PyswarmError,
    Unavailable,
    Untrusted,
)

T = TypeVar("T")
log = logging.getLogger(__name__)

CODES: Sequence[tuple[type[PyswarmError], grpc.StatusCode]] = (
    (Invalid, grpc.StatusCode.INVALID_ARGUMENT),
    (NotFound, grpc.StatusCode.NOT_FOUND),
    (Locked, grpc.StatusCode.FAILED_PRECONDITION),
    (Conflict, grpc.StatusCode.FAILED_PRECONDITION),
    (Unavailable, grpc.StatusCode.UNAVAILABLE),
    (PermissionDenied, grpc.StatusCode.PERMISSION_DENIED),
    (Fatal, grpc.StatusCode.INTERNAL),
)
CLASS_KEY = "pyswarm-error"
FORWARDED_KEY = "pyswarm-forwarded"
"""Metadata of a call that another manager has handed on."""
FOR_KEY = "pyswarm-for"
"""Metadata of a handed on call in which the caller's certificate matters: `role node cluster` of it."""
UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
"""In what gRPC says of a server whose certificate it does not trust."""
MAX_MESSAGE = 32 * 1024 * 1024
"""Bytes; a deploy of a thousand services is about one."""
MAX_METADATA = 64 * 1024
"""Bytes; an error's text travels in it, percent-encoded."""
MAX_TEXT = 4_000
"""Characters of an error's text, at most twelve bytes each on the wire."""

FIXED_WINDOW: Sequence[tuple[str, Any]] = (
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 1024 * 1024),
)
"""Bytes of a stream that may be under way unread, fixed: gRPC measures the connection otherwise, which costs an
idle one a ping and an answer for every small message."""

OPTIONS: Sequence[tuple[str, Any]] = (
    *FIXED_WINDOW,
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.max_metadata_size", MAX_METADATA),
    ("grpc.absolute_max_metadata_size", 2 * MAX_METADATA),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # Despite its name: the least time that an attempt to connect is given, not the pause between two. A TLS
    # handshake takes longer than 100 ms across an ocean, or when a thousand agents come to a new leader at once.
    ("grpc.min_reconnect_backoff_ms", 4_000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.enable_http_proxy", 0),
)
SERVER_OPTIONS: Sequence[tuple[str, Any]] = (
    *OPTIONS,
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.max_concurrent_streams", 10_000),
    # Who connects and says nothing holds a descriptor for so long. TLS across an ocean takes one second.
    ("grpc.server_handshake_timeout_ms", 10_000),
    # Calls that wait for the process while a plan is made: beyond 1,000, gRPC would by itself cancel some of them
    # at random, as when a thousand agents report at once.
    ("grpc.server.max_pending_requests", 100_000),
    ("grpc.server.max_pending_requests_hard_limit", 100_000),
)

_NARROWER: Mapping[str, int] = {
    "grpc.max_receive_message_length": 64 * 1024,
    "grpc.http2.lookahead_bytes": 64 * 1024,
    "grpc.max_concurrent_streams": 16,
    "grpc.max_metadata_size": 8 * 1024,
    "grpc.absolute_max_metadata_size": 8 * 1024,
    "grpc.max_connection_idle_ms": 30_000,
    "grpc.max_connection_age_ms": 60_000,
    "grpc.max_connection_age_grace_ms": 30_000,
}
"""Where callers have shown no certificate: a request to join has a kilobyte, and is answered within seconds."""
JOIN_OPTIONS: Sequence[tuple[str, Any]] = (
    *(option for option in SERVER_OPTIONS if option[0] not in _NARROWER),
    *_NARROWER.items(),
)
"""Of the listener that lets in everybody."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who calls: the role that the method table is checked against; for nodes, the id in the certificate."""

    role: Role
    node_id: str = ""
    cluster_id: str = ""
    forwarded: bool = False
    """Whether another manager has handed this call on; it is not handed on again."""
    serial: str = ""
    """Of the certificate on the connection, in hexadecimal."""


def identify_local(context: grpc.aio.ServicerContext[Any, Any]) -> Peer:
    """Callers on the local socket: whoever the file's mode let in is an administrator."""
    del context
    return Peer("admin")


def identify_tls(context: grpc.aio.ServicerContext[Any, Any]) -> Peer:
    """Callers with a client certificate of the cluster's CA: CN is the node, OU its role, O the cluster."""
    from pyswarm.pki import peer_identity

    identity = peer_identity(cast("Any", context.auth_context()))
    if identity is None:
        return Peer("anyone")
    role: Role = "admin" if identity.role == "client" else identity.role
    metadata = dict(cast("Any", context.invocation_metadata()) or ())
    if FORWARDED_KEY not in metadata:
        return Peer(role, identity.node_id, identity.cluster_id, serial=identity.serial)
    if role == "manager" and FOR_KEY in metadata:
        return _original(str(metadata[FOR_KEY]), identity.serial)
    return Peer(role, identity.node_id, identity.cluster_id, forwarded=True, serial=identity.serial)


def _original(text: str, serial: str) -> Peer:
    """For whom a manager has handed a call on; that is a manager's word, so only a manager is believed."""
    role, node_id, cluster_id = (*text.split(" "), "", "")[:3]
    if role not in ("anyone", "worker", "manager", "admin"):
        raise PermissionDenied(f"no call is handed on for the role {role!r}")
    return Peer(role, node_id, cluster_id, forwarded=True, serial=serial)


def on_behalf_of(peer: Peer) -> tuple[str, str]:
    """The metadata with which a manager hands on a call of `peer`'s."""
    return FOR_KEY, f"{peer.role} {peer.node_id} {peer.cluster_id}".rstrip()


Identify = Callable[[grpc.aio.ServicerContext[Any, Any]], Peer]


class Handler(Protocol):
    """A service's object: one coroutine or async generator per method, named in snake case."""


def snake(name: str) -> str:
    """`RemoveStack` -> `remove_stack`, `GetRootCA` -> `get_root_ca`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


async def _abort(context: grpc.aio.ServicerContext[Any, Any], error: Exception, method: Method) -> None:
    code, name = grpc.StatusCode.INTERNAL, "PyswarmError"
    for cls, its in CODES:
        if isinstance(error, cls):
            code, name = its, cls.__name__
            break
    else:
        log.error("%s failed", method.path, exc_info=error)
    text = str(error) if isinstance(error, PyswarmError) else f"{type(error).__name__}: {error}"
    await context.abort(code, _fitting(text), ((CLASS_KEY, name),))


def _fitting(text: str) -> str:
    """An error's text, cut where it would not fit into the metadata."""
    if len(text) <= MAX_TEXT:
        return text
    return f"{text[:MAX_TEXT]} ... (and {len(text) - MAX_TEXT} characters more)"


def _check(method: Method, peer: Peer) -> None:
    if peer.role not in method.roles:
        raise PermissionDenied(f"{method.service}.{method.name} is not for the role {peer.role!r}")


def _unary(
    method: Method, call: Callable[..., Awaitable[Any]], identify: Identify
) -> grpc.RpcMethodHandler[Any, Any]:
    decode = _decoder(method.request)

    async def handle(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            peer = identify(context)
            _check(method, peer)
            return await call(decode(request), peer)
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception as error:
            return await _abort(context, error, method)

    return grpc.unary_unary_rpc_method_handler(handle, _AS_BYTES, wire.to_bytes)


def _stream(
    method: Method, call: Callable[..., AsyncIterator[Any]], identify: Identify
) -> grpc.RpcMethodHandler[Any, Any]:
    decode = _decoder(method.request)

    async def handle(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        try:
            peer = identify(context)
            _check(method, peer)
            asked = request if method.client_stream else decode(request)
            async with contextlib.aclosing(cast("AsyncGenerator[Any, None]", call(asked, peer))) as messages:
                async for message in messages:
                    yield message
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception as error:
            await _abort(context, error, method)

    if method.client_stream:
        return grpc.stream_stream_rpc_method_handler(handle, decode, wire.to_bytes)
    return grpc.unary_stream_rpc_method_handler(handle, _AS_BYTES, wire.to_bytes)


_AS_BYTES = None
"""gRPC hands a request over as it came: nothing of it is read before the caller's role was checked, and what cannot be
read is the caller's mistake, not a failure of ours in the log."""


def _decoder(cls: type[T]) -> Callable[[bytes], T]:
    def decode(data: bytes) -> T:
        try:
            return wire.from_bytes(cls, data)
        except DecodeError as error:
            raise Invalid(f"a malformed {cls.__name__}: {error}") from None

    return decode


def add_service(server: grpc.aio.Server, service: str, handler: object, identify: Identify) -> None:
    """Serve every method of `service` with `handler`'s coroutines, each checked against the role table."""
    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for method in METHODS:
        if method.service == service:
            make = _stream if method.server_stream else _unary
            methods[method.name] = make(method, getattr(handler, snake(method.name)), identify)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(f"pyswarm.v1.{service}", methods),))


def to_error(error: grpc.aio.AioRpcError) -> PyswarmError:
    """The error that the other side raised, or Unavailable/PyswarmError for gRPC's own."""
    metadata = {str(key): str(value) for key, value in cast("Any", error.trailing_metadata() or ())}
    text = error.details() or error.code().name
    name = metadata.get(CLASS_KEY)
    if name is not None:
        return errors.named(name, text)
    if UNTRUSTED in text:
        return Untrusted(text)
    if error.code() in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
    ):
        return Unavailable(text)
    if error.code() == grpc.StatusCode.UNAUTHENTICATED:
        return PermissionDenied(text)
    return PyswarmError(text)


class Stub:
    """Calls of one service over a channel: `await stub.unary("Control.Get", request)`."""

    def __init__(self, channel: grpc.aio.Channel, timeout: float = 10.0, *, forwards: bool = False) -> None:
        """`timeout` in seconds; `forwards` marks the calls as handed on for somebody else."""
        self._channel = channel
        self._timeout = timeout
        self._metadata: tuple[tuple[str, str], ...] | None = ((FORWARDED_KEY, "1"),) if forwards else None
        self._calls: dict[str, Any] = {}

    def _call(self, name: str) -> Any:
        call = self._calls.get(name)
        if call is None:
            method = METHOD[name]
            kind = ("stream_" if method.client_stream else "unary_") + (
                "stream" if method.server_stream else "unary"
            )
            make = getattr(self._channel, kind)
            call = make(
                method.path, request_serializer=wire.to_bytes, response_deserializer=_decoder(method.response)
            )
            self._calls[name] = call
        return call

    async def unary(
        self,
        name: str,
        request: object,
        *,
        timeout: float | None = None,
        wait: bool = False,
        origin: Peer | None = None,
    ) -> Any:
        """One request, one answer. `timeout` in seconds; `wait` waits for the connection to come up; `origin` is
        for whom the call is handed on."""
        metadata = self._metadata
        if origin is not None:
            metadata = (*(metadata or ()), on_behalf_of(origin))
        try:
            return await self._call(name)(
                request, timeout=timeout or self._timeout, wait_for_ready=wait, metadata=metadata
            )
        except grpc.aio.AioRpcError as error:
            raise to_error(error) from None

    async def close(self, grace: float | None = None) -> None:
        """Close the channel; calls on it end, at once or when `grace` seconds are over."""
        await self._channel.close(grace)

    async def stream(self, name: str, request: object) -> AsyncIterator[Any]:
        """One request, many answers."""
        call = self._call(name)(request, metadata=self._metadata)
        try:
            async for message in call:
                yield message
        except grpc.aio.AioRpcError as error:
            raise to_error(error) from None
        finally:
            call.cancel()

    async def duplex(self, name: str, requests: AsyncIterator[Any]) -> AsyncGenerator[Any]:
        """Many requests, many answers."""
        call = self._call(name)(requests, metadata=self._metadata)
        try:
            async for message in call:
                yield message
        except grpc.aio.AioRpcError as error:
            raise to_error(error) from None
        finally:
            call.cancel()


@dataclass(frozen=True, slots=True)
class TLS:
    """PEM bytes of one end of a mutually authenticated connection."""

    ca: bytes
    cert: bytes = b""
    key: bytes = b""
    name: str = "swarm-manager"
    """DNS name that the other end's certificate must carry."""


def channel(target: str, *, tls: TLS | None = None) -> grpc.aio.Channel:
    """A channel to `unix:/path` without TLS, or to `ipv4:a:p,b:p` with the cluster's mutual TLS."""
    if tls is None:
        return grpc.aio.insecure_channel(target, options=OPTIONS)
    credentials = grpc.ssl_channel_credentials(tls.ca, tls.key or None, tls.cert or None)
    options = (*OPTIONS, ("grpc.ssl_target_name_override", tls.name))
    return grpc.aio.secure_channel(target, credentials, options=options)
