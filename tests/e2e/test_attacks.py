"""Attacks on a real manager, none of which may succeed: from strangers, from someone in between, from its own nodes."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import resource
import socket
import ssl
import tarfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyswarm import joining, pki
from pyswarm.api import (
    METHODS,
    AssignmentsRequest,
    Empty,
    GetRequest,
    HeartbeatRequest,
    IssueRequest,
    IssueResponse,
    Method,
    SessionMessage,
    SessionRequest,
    UpdateStatusRequest,
)
from pyswarm.errors import Invalid, NotFound, PermissionDenied
from pyswarm.joining import JoinOptions
from pyswarm.objects import (
    Assignments,
    Node,
    NodeDescription,
    NodeState,
    TaskState,
    TaskStatus,
    TaskStatusUpdate,
)
from pyswarm.rpc import MAX_MESSAGE, OPTIONS, TLS, Stub, channel
from pyswarm.specs import Platform, Resources
from tests.e2e.cluster import Cluster, until
from tests.e2e.test_secrets import files_with

pytestmark = [pytest.mark.e2e, pytest.mark.root]

SECRET = "needle-of-another-node"
FUZZ = settings(
    max_examples=25,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A manager to attack."""
    assert os.geteuid() == 0, "the end-to-end tests need root"
    cluster = Cluster(tmp_path_factory.mktemp("attacks") / "target")
    cluster.directory.mkdir()
    cluster.init()
    pids = [cluster.pid(name) for name in ("manager", "agent", "etcd")]
    try:
        yield cluster
        assert [cluster.pid(name) for name in ("manager", "agent", "etcd")] == pids, (
            "nothing was brought down"
        )
    finally:
        for log in sorted((cluster.state / "log").glob("*.log")):
            print(f"--- {log.name}", *log.read_text(errors="replace").splitlines()[-40:], sep="\n")
        cluster.leave()


def well(target: Cluster) -> None:
    """It answers people and its own agent."""
    assert target.cli("node", "ls", "--filter", "role=manager", "--format", "{{.Status}}") == "Ready\n"


def nodes(target: Cluster) -> list[Node]:
    return list(target.ask(lambda client: client.nodes()))  # type: ignore[call-overload]


# ------------------------------------------------------------------------------------------ strangers


def test_tokens_that_are_not_right(target: Cluster, tmp_path: Path) -> None:
    token = target.cli("join-token", "-q", "worker").strip()
    manager = target.cli("join-token", "-q", "manager").strip()
    assert target.cli("join-token", "--rotate", "-q", "worker").strip() != token
    other = "0" if manager[-1] != "0" else "1"
    before = nodes(target)
    for bad, words in (
        (token, "not valid (any more)"),  # rotated
        (manager[:-1] + other, "not valid (any more)"),  # guessed
        (manager[:-5], "cut short"),
        (manager[:30], "not a join token"),
        (manager.replace("-", "", 1), "not a join token"),
        (f"SWMTKN-1-{'0' * 50}-{manager[-25:]}", "not the one that the join token names"),
        (f"{manager[:-25]}{manager[-25:].upper()}", "characters that no token has"),
        ("", "not a join token"),
    ):
        options = JoinOptions(
            token=bad,
            remote=f"127.0.0.1:{target.config.ports.join}",
            state_dir=tmp_path / "state",
            run_dir=tmp_path / "run",
        )
        with pytest.raises((Invalid, PermissionDenied)) as refused:
            joining.join(options)
        assert words in str(refused.value)
        assert manager[-25:] not in str(refused.value)
        assert not (tmp_path / "state").exists()
    assert nodes(target) == before


@dataclass
class Between:
    """Someone who took the manager's address: ends TLS with a certificate of their own, and passes on what is said."""

    port: int
    server: asyncio.Server
    heard: bytearray
    writers: list[asyncio.StreamWriter]

    async def close(self) -> None:
        self.server.close()
        for writer in self.writers:
            writer.transport.abort()
        for writer in self.writers:
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def between(pair: pki.KeyPair, to: tuple[int, bytes], directory: Path) -> Between:
    (directory / "pair").write_bytes(pair.cert + pair.key)
    facing = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    facing.load_cert_chain(directory / "pair")
    facing.set_alpn_protocols(["h2"])
    onward = ssl.create_default_context(cadata=to[1].decode())
    onward.set_alpn_protocols(["h2"])
    heard = bytearray()
    writers: list[asyncio.StreamWriter] = []

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, note: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if note:
                    heard.extend(data)
                writer.write(data)
                await writer.drain()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = pki.MANAGER_NAME
        writers.append(writer)
        far = await asyncio.open_connection("127.0.0.1", to[0], ssl=onward, server_hostname=name)
        writers.append(far[1])
        await asyncio.gather(pipe(reader, far[1], True), pipe(far[0], writer, False))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=facing)
    return Between(server.sockets[0].getsockname()[1], server, heard, writers)


async def test_someone_in_between_hears_no_token(target: Cluster, tmp_path: Path) -> None:
    """The root is passed on and right, so that the digest fits; who has passed it on cannot show its certificate."""
    token = (await asyncio.to_thread(target.cli, "join-token", "-q", "manager")).strip()
    root = target.config.cert("ca.pem")
    liar = pki.issue(pki.create_root(time.time()), pki.Subject("m", "manager", "c"), time.time())
    middle = await between(liar, (target.config.ports.join, root), tmp_path)
    options = JoinOptions(token=token, remote="", state_dir=tmp_path / "state", run_dir=tmp_path / "run")
    try:
        with pytest.raises(PermissionDenied, match=r"someone in between. The token was not sent"):
            await joining._admitted(  # pyright: ignore[reportPrivateUsage]
                "127.0.0.1", middle.port, pki.parse_token(token), options, "127.0.0.1"
            )
    finally:
        await middle.close()
    assert b"pyswarm.v1.CA/GetRootCA" in middle.heard, "the first call did go through the middle"
    assert token[-25:].encode() not in middle.heard
    assert b"CERTIFICATE REQUEST" not in middle.heard


# ------------------------------------------------------------------------------------------ its own nodes


class Insider:
    """A node with a certificate of the cluster, and nothing of the agent's manners."""

    def __init__(self, target: Cluster, name: str) -> None:
        self.target = target
        self.name = name
        self.key = pki.new_key()
        self.id = ""
        self.tls = TLS(b"")

    async def join(self, role: str = "worker") -> None:
        token = await asyncio.to_thread(self.target.cli, "join-token", "-q", role)
        ca = self.target.config.cert("ca.pem")
        stub = Stub(channel(f"ipv4:127.0.0.1:{self.target.config.ports.join}", tls=TLS(ca)), 10.0)
        request = IssueRequest(
            csr=pki.create_request(self.key).decode(), token=token.strip(), addr="127.0.0.1"
        )
        answer: IssueResponse = await stub.unary("CA.Issue", request, wait=True)
        await stub.close()
        self.id = answer.node_id
        self.tls = TLS(ca, answer.cert.encode(), self.key)

    def stub(self) -> Stub:
        return Stub(channel(f"ipv4:127.0.0.1:{self.target.config.ports.api}", tls=self.tls), 10.0)

    def registration(self) -> SessionRequest:
        said = NodeDescription(
            hostname=self.name,
            platform=Platform(architecture="x86_64", os="linux"),
            resources=Resources(nano_cpus=10**9, memory=2**30),
        )
        return SessionRequest(description=said, addr="127.0.0.1", data_path_addr="127.0.0.1")

    async def register(self, stub: Stub) -> tuple[AsyncIterator[SessionMessage], str]:
        stream: AsyncIterator[SessionMessage] = stub.stream("Dispatcher.Session", self.registration())
        return stream, (await anext(stream)).session_id


@contextlib.asynccontextmanager
async def insiders(target: Cluster, *names: str) -> AsyncGenerator[list[Insider]]:
    made = [Insider(target, name) for name in names]
    try:
        for insider in made:
            await insider.join()
        yield made
    finally:
        for insider in made:
            if insider.id:
                await asyncio.to_thread(target.cli, "node", "rm", "--force", insider.id)


async def test_another_nodes_secrets_and_sessions(target: Cluster) -> None:
    async with insiders(target, "evil", "good") as (evil, good):
        ours, theirs = evil.stub(), good.stub()
        stream, own = await evil.register(ours)
        other_stream, other = await good.register(theirs)
        await asyncio.to_thread(target.run_cli, "secret", "create", "needle", "-", input=SECRET)
        create = ("service", "create", "-d", "--name", "holder", "--secret", "needle")
        place = ("--constraint", f"node.id=={good.id}", "example/image")
        await asyncio.to_thread(target.cli, *create, "--no-resolve-image", *place)
        try:
            assigned: AsyncIterator[Assignments] = theirs.stream(
                "Dispatcher.WatchAssignments", AssignmentsRequest(session_id=other)
            )
            async with asyncio.timeout(20):
                while not (told := await anext(assigned)).secrets:
                    pass
            assert told.secrets[0].spec.data == SECRET.encode(), "the node that may have it has it"
            task = told.tasks[0]

            with pytest.raises(NotFound, match="session has ended"):
                await anext(ours.stream("Dispatcher.WatchAssignments", AssignmentsRequest(session_id=other)))
            mine: Assignments = await anext(
                ours.stream("Dispatcher.WatchAssignments", AssignmentsRequest(session_id=own))
            )
            assert (mine.tasks, mine.secrets) == ((), ())
            for name, request in (
                ("Dispatcher.Heartbeat", HeartbeatRequest(session_id=other)),
                ("Dispatcher.UpdateStatus", UpdateStatusRequest(session_id=other)),
            ):
                with pytest.raises(NotFound, match="session has ended"):
                    await ours.unary(name, request)
            forged = TaskStatusUpdate(
                task_id=task.id, status=TaskStatus(state=TaskState.FAILED, err="forged")
            )
            with pytest.raises(PermissionDenied, match="not assigned to node"):
                await ours.unary(
                    "Dispatcher.UpdateStatus", UpdateStatusRequest(session_id=own, updates=(forged,))
                )
            for kind, ref in (("secret", "needle"), ("cluster", "")):
                with pytest.raises(PermissionDenied):
                    await ours.unary("Control.Get", GetRequest(kind=kind, ref=ref))
        finally:
            await asyncio.to_thread(target.cli, "service", "rm", "holder")
            for stub in (ours, theirs):
                await stub.close()
            for each in (stream, other_stream):
                await each.aclose()  # type: ignore[attr-defined]
    until(lambda: target.run_cli("secret", "rm", "needle").returncode == 0, "the secret goes")


ROLES: dict[str, str] = {
    **dict.fromkeys(("CA.GetRootCA", "CA.Issue"), "everybody"),
    **dict.fromkeys(("Lock.Unlock", "Vault.SealKeys"), "local"),
    **dict.fromkeys(("Raft.Join",), "managers"),
    "CA.Renew": "nodes",
}
"""Who may call what, written down once more: everybody, nodes, managers, people (and managers for them), or people
at the machine alone. Of the rest, Dispatcher's methods are for nodes and Control's for people."""


async def test_a_workers_certificate_opens_no_managers_method(target: Cluster) -> None:
    async with insiders(target, "worker") as (worker,):
        for method in METHODS:
            name = f"{method.service}.{method.name}"
            default = {"Dispatcher": "nodes", "Control": "people", "Raft": "managers"}.get(method.service, "")
            allowed = ROLES.get(name, default)
            assert allowed, f"{name} is missing in the table of this test"
            found = await _called(worker.tls, target.config.ports.api, method.path, b"")
            refused = found in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED)
            assert refused == (allowed not in ("everybody", "nodes")), (name, found)


async def _called(tls: TLS | None, to: int | str, path: str, payload: bytes) -> grpc.StatusCode:
    """What becomes of a call whose request is these bytes; the first answer of a stream counts."""
    if tls is None:
        opened = grpc.aio.insecure_channel(str(to), options=OPTIONS)
    else:
        opened = channel(f"ipv4:127.0.0.1:{to}", tls=tls)

    async def one() -> AsyncIterator[bytes]:
        yield payload

    call: Any = opened.stream_stream(path, None, None)  # bytes as they are
    try:
        stream = call(one(), timeout=5.0, wait_for_ready=True)
        async for _ in stream:
            return grpc.StatusCode.OK
        return await stream.code()
    except grpc.aio.AioRpcError as error:
        return error.code()
    finally:
        await opened.close(None)


async def test_a_heartbeat_that_is_replayed_keeps_nobody_alive(target: Cluster) -> None:
    async with insiders(target, "ghost") as (ghost,):
        stub = ghost.stub()
        first, old = await ghost.register(stub)
        await stub.unary("Dispatcher.Heartbeat", HeartbeatRequest(session_id=old))
        second, now = await ghost.register(stub)
        assert now != old
        down = asyncio.create_task(
            asyncio.to_thread(until, lambda: _state(target, ghost.id) == NodeState.DOWN, "it is down", 30)
        )
        while not down.done():
            with pytest.raises(NotFound, match="session has ended"):
                await stub.unary("Dispatcher.Heartbeat", HeartbeatRequest(session_id=old))
            await asyncio.wait({down}, timeout=0.2)
        await down
        for each in (first, second):
            await each.aclose()  # type: ignore[attr-defined]
        await stub.close()


def _state(target: Cluster, id: str) -> NodeState:
    return next(node.status.state for node in nodes(target) if node.id == id)


# ------------------------------------------------------------------------------------------ every port


def frame(length: int, kind: int, flags: int, stream: int, body: bytes) -> bytes:
    """One of HTTP/2's, whether its parts fit together or not."""
    return length.to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + body


def conversation(frames: list[bytes]) -> bytes:
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"".join(frames)


FRAMES = st.builds(
    frame,
    st.integers(0, 2**24 - 1),
    st.integers(0, 10),
    st.integers(0, 255),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=200),
)
GARBAGE = st.one_of(
    st.binary(max_size=2000),
    st.lists(FRAMES, max_size=6).map(conversation),
    st.sampled_from(
        [b"\x16\x03\x01\xff\xff" + b"\0" * 70_000, b"GET / HTTP/1.1\r\n" * 5000, b"\xff" * 200_000]
    ),
)


def thrown(connection: socket.socket, data: bytes) -> None:
    """Send it, and read what comes back for a moment, whatever becomes of it."""
    with contextlib.suppress(OSError):
        connection.settimeout(0.05)
        connection.sendall(data)
        connection.recv(65536)


@FUZZ
@given(data=GARBAGE)
def test_garbage_on_every_port(target: Cluster, data: bytes) -> None:
    ports = target.config.ports
    worker = _worker(target)
    for port in (ports.join, ports.api, ports.etcd_client, ports.etcd_peer):
        with socket.create_connection(("127.0.0.1", port), 5) as plain:
            thrown(plain, data)
    for port in (ports.join, ports.api):
        with socket.create_connection(("127.0.0.1", port), 5) as plain, worker.wrap_socket(plain) as secured:
            thrown(secured, data)
    for path in (target.run / "pyswarm.sock", target.run / "manager" / "vault.sock"):
        with socket.socket(socket.AF_UNIX) as local:
            local.connect(str(path))
            thrown(local, data)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        with contextlib.suppress(OSError):
            wire.sendto(data[:1400], ("127.0.0.1", target.config.data_path_port))
    assert target.pid("manager") and target.pid("etcd")


_contexts: dict[str, ssl.SSLContext] = {}


def _worker(target: Cluster) -> ssl.SSLContext:
    """TLS with a certificate that the listeners take, so that what comes after the handshake is tried as well."""
    if target.name not in _contexts:
        config = target.config
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        context.load_cert_chain(config.certs / "node.pem", config.certs / "node.key")
        _contexts[target.name] = context
    return _contexts[target.name]


ORDERS = ("RotateCA", "Leave")
"""Methods whose empty message is a good one, and an order that the other tests would notice."""


@FUZZ
@given(data=st.binary(max_size=3000), method=st.sampled_from([m for m in METHODS if m.name not in ORDERS]))
def test_malformed_messages_to_every_method(target: Cluster, data: bytes, method: Method) -> None:
    """As the roles that get furthest: the manager itself and root on its machine."""
    config, path = target.config, method.path
    own = TLS(config.cert("ca.pem"), config.cert("node.pem"), config.cert("node.key"))
    for tls, to in (
        (own, config.ports.api),
        (TLS(own.ca), config.ports.join),
        (None, f"unix:{target.run / 'pyswarm.sock'}"),
    ):
        asyncio.run(_called(tls, to, path, data))  # type: ignore[arg-type]


async def test_messages_that_are_too_large(target: Cluster) -> None:
    config = target.config
    large = b"\x0a" + (MAX_MESSAGE + 1).to_bytes(4, "little") + b"x" * (MAX_MESSAGE + 1)
    own = TLS(config.cert("ca.pem"), config.cert("node.pem"), config.cert("node.key"))
    too_much = grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await _called(TLS(own.ca), config.ports.join, "/pyswarm.v1.CA/Issue", large[:70_000]) == too_much
    options = [*OPTIONS, ("grpc.max_send_message_length", -1), ("grpc.ssl_target_name_override", own.name)]
    credentials = grpc.ssl_channel_credentials(own.ca, own.key, own.cert)
    for opened in (
        grpc.aio.secure_channel(f"ipv4:127.0.0.1:{config.ports.api}", credentials, options=options),
        grpc.aio.insecure_channel(f"unix:{target.run / 'pyswarm.sock'}", options=options),
    ):
        call: Any = opened.unary_unary("/pyswarm.v1.Control/Create", None, None)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(large, timeout=20)
        assert refused.value.code() == too_much
        await opened.close(None)
    await asyncio.to_thread(well, target)


def test_a_slow_loris(target: Cluster) -> None:
    """Hundreds of connections that say nothing, or begin a sentence, on every port: others are served meanwhile, and
    strangers are shown the door."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ports = target.config.ports
    before = _descriptors(target)
    held: list[socket.socket] = []
    try:
        for number in range(1200):
            port = (ports.join, ports.api)[number % 2]
            connection = socket.create_connection(("127.0.0.1", port), 5)
            held.append(connection)
            if number % 3 == 0:
                connection.sendall(b"\x16\x03\x01")
        until(lambda: _descriptors(target) > before + 1000, "they are really held", 10)
        well(target)
        asyncio.run(_root_of(target))
        until(lambda: _descriptors(target) < before + 100, "those that said nothing are gone", 40)
    finally:
        for connection in held:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    well(target)


def _descriptors(target: Cluster) -> int:
    return len(list(Path(f"/proc/{target.pid('manager')}/fd").iterdir()))


async def _root_of(target: Cluster) -> None:
    config = target.config
    stub = Stub(channel(f"ipv4:127.0.0.1:{config.ports.join}", tls=TLS(config.cert("ca.pem"))), 10.0)
    assert (await stub.unary("CA.GetRootCA", Empty(), wait=True)).cert.encode() == config.cert("ca.pem")
    await stub.close()


# ------------------------------------------------------------------------------------------ paths


def hostile_layers() -> Iterator[tuple[str, bytes]]:
    """Layers that would write outside of an image, each under its own name."""

    def layer(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as tar:
            for info, data in members:
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return file.getvalue()

    def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, to
        return info, b""

    mark = b"escaped-from-its-layer"
    up = "../" * 12
    yield "dots", layer((tarfile.TarInfo(f"{up}var/tmp/pyswarm-escaped"), mark))
    yield "absolute", layer((tarfile.TarInfo("/var/tmp/pyswarm-escaped"), mark))
    yield "link", layer(link("out", f"{up}var/tmp"), (tarfile.TarInfo("out/pyswarm-escaped"), mark))
    yield "absolute link", layer(link("out", "/var/tmp"), (tarfile.TarInfo("out/pyswarm-escaped"), mark))
    yield (
        "hard link",
        layer(
            link("x", f"{up}etc/hostname", tarfile.LNKTYPE),
            (tarfile.TarInfo("var/tmp/inside"), mark),
        ),
    )
    yield "whiteout", layer((tarfile.TarInfo(f"{up}var/tmp/.wh.pyswarm-victim"), b""))


def archive_of(layer: bytes) -> bytes:
    """A `docker save` archive of an image with that layer."""
    import hashlib

    digest = hashlib.sha256(layer).hexdigest()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/x"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    index = [{"Config": "config.json", "RepoTags": ["evil:latest"], "Layers": ["layer.tar"]}]
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in (
            ("layer.tar", layer),
            ("config.json", json.dumps(config).encode()),
            ("manifest.json", json.dumps(index).encode()),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def test_layers_and_archives_stay_where_they_belong(target: Cluster, tmp_path: Path) -> None:
    victim, escaped = Path("/var/tmp/pyswarm-victim"), Path("/var/tmp/pyswarm-escaped")
    victim.write_text("here")
    links = Path("/etc/hostname").stat().st_nlink
    path = tmp_path / "image.tar"
    taken: list[str] = []
    try:
        for name, layer in hostile_layers():
            path.write_bytes(archive_of(layer))
            result = target.run_cli("image", "load", "-i", str(path))
            taken.append(f"{name}: {result.returncode} {result.stdout}{result.stderr}")
            assert not escaped.exists(), name
            assert victim.read_text() == "here", name
            assert Path("/etc/hostname").stat().st_nlink == links, name
        print(*taken, sep="\n")
        assert sum("Loaded image" in words for words in taken) >= 2, (
            taken
        )  # or these archives are not read at all
        for bad in (b"", b"\0" * 10_240, b"x" * 5000, archive_of(b"no tar")[:-3000]):
            path.write_bytes(bad)
            assert target.run_cli("image", "load", "-i", str(path)).returncode == 1
    finally:
        victim.unlink()
        escaped.unlink(missing_ok=True)
    well(target)


def test_names_are_no_paths(target: Cluster, tmp_path: Path) -> None:
    evil = "../../../../var/tmp/pyswarm-escaped"
    for command in (
        ("volume", "create", evil),
        ("network", "create", evil),
        ("secret", "create", evil, "-"),
        ("config", "create", evil, "-"),
        ("service", "create", "--name", evil, "busybox"),
        ("service", "create", "--mount", f"type=volume,source={evil},target=/x", "busybox"),
        ("service", "create", "--secret", f"source=x,target={evil}", "busybox"),
        ("node", "update", "--label-add", "=x", "self"),
    ):
        result = target.run_cli(*command, input="x")
        assert result.returncode in (1, 2), command
        assert "Traceback" not in result.stderr, command
    assert files_with(target.state / "agent", b"pyswarm-escaped") == []
