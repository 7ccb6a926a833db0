"""Who may call what: every method of the API with every kind of certificate, over real TLS; and errors on their way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import pytest

from pyswarm import errors, pki, wire
from pyswarm.api import METHODS, Empty, EventsRequest, GetRequest, Method, Role
from pyswarm.errors import (
    Conflict,
    Fatal,
    Invalid,
    MissingProgram,
    NotFound,
    PermissionDenied,
    PyswarmError,
    Unavailable,
    Untrusted,
)
from pyswarm.pki import KeyPair, Subject
from pyswarm.rpc import (
    MAX_TEXT,
    SERVER_OPTIONS,
    TLS,
    Peer,
    Stub,
    add_service,
    channel,
    identify_local,
    identify_tls,
    snake,
)

NOW = time.time()
ROOT, FOREIGN = pki.create_root(NOW), pki.create_root(NOW)
CERTIFICATES: Mapping[str, KeyPair] = {
    "worker": pki.issue(ROOT, Subject("w1", "worker", "c1"), NOW),
    "manager": pki.issue(ROOT, Subject("m1", "manager", "c1"), NOW),
    "admin": pki.issue(ROOT, Subject("alice", "client", "c1"), NOW),
    "expired": pki.issue(ROOT, Subject("m1", "manager", "c1"), NOW - 3 * 3600, life=3600),
    "foreign": pki.issue(FOREIGN, Subject("m1", "manager", "c1"), NOW),
    "none": KeyPair(b"", b""),
}
SERVICES = tuple(dict.fromkeys(m.service for m in METHODS))


class Recorder:
    """A handler of every method, which notes who called and answers with what is empty."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Peer]] = []
        self.error: Exception | None = None
        for method in METHODS:
            setattr(
                self,
                snake(method.name),
                self._stream(method) if method.server_stream else self._unary(method),
            )

    def _note(self, method: Method, peer: Peer) -> Any:
        self.calls.append((f"{method.service}.{method.name}", peer))
        if self.error is not None:
            raise self.error
        return wire.from_bytes(method.response, b"")

    def _unary(self, method: Method) -> Any:
        async def call(request: object, peer: Peer) -> Any:
            return self._note(method, peer)

        return call

    def _stream(self, method: Method) -> Any:
        async def call(request: object, peer: Peer) -> AsyncIterator[Any]:
            yield self._note(method, peer)

        return call


@dataclass
class Rig:
    recorder: Recorder
    mutual: int
    join: int
    local: str

    def stub(self, certificate: str, port: int | None = None) -> tuple[Stub, grpc.aio.Channel]:
        pair = CERTIFICATES[certificate]
        opened = channel(f"ipv4:127.0.0.1:{port or self.mutual}", tls=TLS(ROOT.cert, pair.cert, pair.key))
        return Stub(opened, 5.0), opened


@pytest.fixture
async def rig(tmp_path: Any) -> AsyncGenerator[Rig]:
    recorder = Recorder()
    pair = CERTIFICATES["manager"]
    servers: list[grpc.aio.Server] = []
    ports: list[int] = []
    for mutual in (True, False):
        server = grpc.aio.server(options=SERVER_OPTIONS)
        credentials = grpc.ssl_server_credentials(
            [(pair.key, pair.cert)], ROOT.cert if mutual else None, require_client_auth=mutual
        )
        ports.append(server.add_secure_port("127.0.0.1:0", credentials))
        for service in SERVICES:
            add_service(server, service, recorder, identify_tls)
        servers.append(server)
    local = grpc.aio.server(options=SERVER_OPTIONS)
    local.add_insecure_port(f"unix:{tmp_path}/sock")
    for service in SERVICES:
        add_service(local, service, recorder, identify_local)
    servers.append(local)
    for server in servers:
        await server.start()
    yield Rig(recorder, ports[0], ports[1], f"unix:{tmp_path}/sock")
    for server in servers:
        await server.stop(None)


async def outcome(stub: Stub, method: Method) -> object:
    """What a call answers, or the class of its error."""
    name = f"{method.service}.{method.name}"
    request = wire.from_bytes(method.request, b"")

    async def requests() -> AsyncIterator[Any]:
        yield request

    try:
        if not method.server_stream:
            return await stub.unary(name, request)
        stream = stub.duplex(name, requests()) if method.client_stream else stub.stream(name, request)
        answers = [answer async for answer in stream]
        assert len(answers) == 1
        return answers[0]
    except PyswarmError as error:
        return type(error)


@pytest.mark.parametrize("role", ["worker", "manager", "admin"])
async def test_every_method_lets_in_the_roles_of_its_row_and_no_other(rig: Rig, role: Role) -> None:
    stub, opened = rig.stub(role)
    for method in METHODS:
        rig.recorder.calls.clear()
        found = await outcome(stub, method)
        if role in method.roles:
            assert found == wire.from_bytes(method.response, b""), method.path
            ((_, peer),) = rig.recorder.calls
            assert (peer.role, peer.cluster_id, peer.forwarded) == (role, "c1", False)
            assert peer.node_id == {"worker": "w1", "manager": "m1", "admin": "alice"}[role]
        else:
            assert found is PermissionDenied, method.path
            assert rig.recorder.calls == [], method.path
    await opened.close(None)


async def test_without_a_certificate_only_joining_is_open(rig: Rig) -> None:
    stub, opened = rig.stub("none", rig.join)
    for method in METHODS:
        found = await outcome(stub, method)
        assert (found is PermissionDenied) == ("anyone" not in method.roles), method.path
    assert {name for name, _ in rig.recorder.calls} == {"CA.GetRootCA", "CA.Issue"}
    await opened.close(None)


@pytest.mark.parametrize("certificate", ["none", "expired", "foreign"])
async def test_a_certificate_that_is_not_good_reaches_nothing(rig: Rig, certificate: str) -> None:
    stub, opened = rig.stub(certificate)
    for method in METHODS[:2]:
        with pytest.raises(Unavailable):
            await stub.unary(
                f"{method.service}.{method.name}", wire.from_bytes(method.request, b""), timeout=2
            )
    assert rig.recorder.calls == []
    await opened.close(None)


@pytest.mark.parametrize("certificate", ["expired", "foreign", "worker"])
async def test_a_certificate_on_the_join_listener_gives_no_role(rig: Rig, certificate: str) -> None:
    """It does not ask for one, so what a client offers was never checked."""
    stub, opened = rig.stub(certificate, rig.join)
    with pytest.raises(PermissionDenied):
        await stub.unary("Control.Info", Empty())
    with pytest.raises(PermissionDenied):
        await stub.unary("CA.Renew", wire.from_bytes(METHODS_BY_NAME["CA.Renew"].request, b""))
    await opened.close(None)


METHODS_BY_NAME = {f"{m.service}.{m.name}": m for m in METHODS}


async def test_the_local_socket_is_an_administrators(rig: Rig) -> None:
    opened = channel(rig.local)
    stub = Stub(opened)
    for method in METHODS:
        assert (await outcome(stub, method) is PermissionDenied) == ("admin" not in method.roles), method.path
    await opened.close(None)


async def test_a_worker_cannot_speak_for_another_node(rig: Rig) -> None:
    """Metadata by which managers hand calls on mean nothing from anybody else."""
    pair = CERTIFICATES["worker"]
    opened = channel(f"ipv4:127.0.0.1:{rig.mutual}", tls=TLS(ROOT.cert, pair.cert, pair.key))
    method = METHODS_BY_NAME["Dispatcher.Heartbeat"]
    call: Any = opened.unary_unary(method.path, request_serializer=wire.to_bytes, response_deserializer=bytes)
    await call(
        wire.from_bytes(method.request, b""),
        metadata=(("pyswarm-forwarded", "1"), ("pyswarm-for", "manager m1 c1")),
    )
    ((_, peer),) = rig.recorder.calls
    assert (peer.role, peer.node_id) == ("worker", "w1")
    await opened.close(None)


@pytest.mark.parametrize(
    ("raised", "arrives"),
    [
        (Invalid("ports[0]: no"), Invalid),
        (NotFound("no such service: x"), NotFound),
        (Conflict("taken"), Conflict),
        (Unavailable("later"), Unavailable),
        (PermissionDenied("no"), PermissionDenied),
        (Fatal("corrupt"), Fatal),
        (MissingProgram("runc", "runc"), Fatal),
        (PyswarmError("any"), PyswarmError),
        (RuntimeError("a bug"), PyswarmError),
    ],
)
async def test_the_class_and_text_of_an_error_travel(
    rig: Rig, raised: Exception, arrives: type[PyswarmError], caplog: pytest.LogCaptureFixture
) -> None:
    rig.recorder.error = raised
    stub, opened = rig.stub("admin")
    with pytest.raises(PyswarmError) as unary:
        await stub.unary("Control.Get", GetRequest(kind="service", ref="x"))
    with pytest.raises(PyswarmError) as stream:
        async for _ in stub.stream("Control.Events", EventsRequest()):
            pass
    for found in (unary.value, stream.value):
        assert type(found) is arrives
        assert str(raised) in str(found)
    await opened.close(None)


@pytest.mark.parametrize("text", ["x" * 100_000, "line\n" * 20_000, "\u6f22" * 30_000])
async def test_a_long_error_arrives_cut_not_lost(rig: Rig, text: str) -> None:
    rig.recorder.error = Invalid(text)
    stub, opened = rig.stub("admin")
    with pytest.raises(Invalid) as found:
        await stub.unary("Control.Info", Empty())
    assert str(found.value).startswith(text[:MAX_TEXT])
    assert "characters more" in str(found.value)
    await opened.close(None)


async def test_a_manager_that_is_not_there_is_unavailable(rig: Rig) -> None:
    opened = channel("unix:/nonexistent/socket")
    with pytest.raises(Unavailable):
        await Stub(opened, 5.0).unary("Control.Info", Empty())
    await opened.close(None)


async def test_a_malformed_request_is_the_callers_mistake(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """Told as such, not logged, and not even read where the caller may not ask at all."""
    codes: list[grpc.StatusCode] = []
    for certificate, name in (
        ("admin", "Control.Get"),
        ("admin", "Control.Events"),
        ("worker", "Control.Get"),
    ):
        _, opened = rig.stub(certificate)
        call: Any = opened.stream_stream(METHODS_BY_NAME[name].path, None, None)

        async def garbage() -> AsyncIterator[bytes]:
            yield b"\xff\xff\xff"

        stream = call(garbage())
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await anext(aiter(stream))
        codes.append(refused.value.code())
        await opened.close(None)
    wrong, denied = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED
    assert codes == [wrong, wrong, denied]
    assert rig.recorder.calls == []
    assert [r for r in caplog.records if r.exc_info] == []


async def test_a_server_of_another_root_is_untrusted(rig: Rig) -> None:
    opened = channel(f"ipv4:127.0.0.1:{rig.join}", tls=TLS(FOREIGN.cert))
    with pytest.raises(Untrusted):
        await Stub(opened, 5.0).unary("CA.GetRootCA", Empty())
    await opened.close(None)


async def test_a_reader_that_goes_away_ends_the_handlers_stream(rig: Rig) -> None:
    ended = asyncio.Event()

    async def events(request: object, peer: Peer) -> AsyncIterator[Any]:
        try:
            while True:
                yield wire.from_bytes(METHODS_BY_NAME["Control.Events"].response, b"")
                await asyncio.sleep(0.01)
        finally:
            ended.set()

    server = grpc.aio.server(options=SERVER_OPTIONS)
    port = server.add_insecure_port("127.0.0.1:0")
    handler = Recorder()
    handler.events = events  # type: ignore[attr-defined]
    add_service(server, "Control", handler, identify_local)
    await server.start()
    opened = channel(f"ipv4:127.0.0.1:{port}")
    stream: Any = Stub(opened).stream("Control.Events", EventsRequest())
    await anext(stream)
    await stream.aclose()
    async with asyncio.timeout(5):
        await ended.wait()
    await opened.close(None)
    await server.stop(None)


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("Conflict", Conflict),
        ("MissingProgram", Fatal),
        ("annotations", PyswarmError),
        ("Nonsense", PyswarmError),
    ],
)
def test_an_error_is_made_by_its_name_whatever_the_name(name: str, cls: type[PyswarmError]) -> None:
    error = errors.named(name, "text")
    assert type(error) is cls
    assert str(error) == "text"


def test_names_in_snake_case() -> None:
    assert [snake(n) for n in ("Get", "RemoveStack", "GetRootCA", "UpdateStatus")] == [
        "get",
        "remove_stack",
        "get_root_ca",
        "update_status",
    ]
