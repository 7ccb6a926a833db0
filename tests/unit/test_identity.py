"""A node's certificate and role: renewed in time, served without a restart, followed, and handed on honestly."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc.aio
import pytest

from manager.ca import Authority, CAService
from manager.main import served_certificate
from manager.sealer import Sealer, new_key
from manager.store import Put
from manager.store.memory import MemoryStore
from manager.switch import Switch
from manager.trust import trust_of
from node_agent import identity as module
from node_agent.identity import Identity, wanted_role
from pyswarm import pki
from pyswarm.api import IssueResponse, RenewRequest, RotateCARequest
from pyswarm.clock import SystemClock
from pyswarm.errors import PermissionDenied, Unavailable
from pyswarm.nodeconfig import NodeConfig, write_private
from pyswarm.objects import ManagerStatus, Node
from pyswarm.rpc import FOR_KEY, FORWARDED_KEY, TLS, Peer, Stub, add_service, channel, identify_tls
from pyswarm.specs import ClusterSpec, NodeSpec

DAY = 86_400.0
STATUS = ManagerStatus(raft_id="a")


@pytest.mark.parametrize(
    ("spec", "status", "now", "wanted"),
    [
        ("manager", None, "worker", "manager"),
        ("worker", STATUS, "manager", "manager"),
        ("worker", None, "manager", "worker"),
        ("worker", None, "worker", "worker"),
    ],
)
def test_a_manager_stays_one_until_raft_has_let_it_go(
    spec: str, status: ManagerStatus | None, now: str, wanted: str
) -> None:
    node = Node(id="n", spec=replace(NodeSpec(), role=spec), manager_status=status)  # type: ignore[arg-type]
    assert wanted_role(node, now) == wanted
    assert wanted_role(None, now) == now


@dataclass
class Ca:
    """A cluster's CA, and one node of it."""

    directory: Path
    authority: Authority = field(default_factory=lambda: Authority(Sealer(new_key()), SystemClock()))

    def __post_init__(self) -> None:
        self.cluster = self.authority.create_cluster("c1", ClusterSpec())

    def pair(self, role: pki.Role = "worker", age: float = 0.0, id: str = "n1") -> pki.KeyPair:
        subject = pki.Subject(id, role, "c1")
        return pki.issue(self.authority.root(self.cluster), subject, SystemClock().now() - age)

    def tls(self, pair: pki.KeyPair) -> TLS:
        return TLS(self.cluster.root_ca.cert.encode(), pair.cert, pair.key)

    def config(self, pair: pki.KeyPair, **settings: str) -> NodeConfig:
        config = NodeConfig(node_id="n1", cluster_id="c1", state_dir=str(self.directory), **settings)  # type: ignore[arg-type]
        config.certs.mkdir(exist_ok=True)
        for name, data in (("ca", self.cluster.root_ca.cert.encode()), ("node", pair.cert)):
            write_private(config.certs / f"{name}.pem", data)
        write_private(config.certs / "node.key", pair.key)
        return config


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY", 0.02)


@pytest.fixture
def ca(tmp_path: Path) -> Ca:
    return Ca(tmp_path)


async def renewed(
    ca: Ca, age: float, known: str | None = None, role: pki.Role = "worker"
) -> tuple[list[str], NodeConfig]:
    """The requests that an agent makes whose certificate is that old, and its settings afterwards. The managers
    know it by its serial, or by `known`."""
    config = replace(ca.config(ca.pair(role, age=age)), run_dir=str(ca.directory / "run"))
    asked: list[str] = []
    changed = asyncio.Event()
    answered = asyncio.Event()
    serial = known if known is not None else pki.identity(config.cert("node.pem")).serial
    node = Node(id="n1", certificate_serial=serial)

    async def renew(csr: str) -> IssueResponse:
        asked.append(csr)
        if len(asked) == 1:
            raise Unavailable("no manager is connected")
        answered.set()
        return IssueResponse(node_id="n1", cert=ca.authority.sign(ca.cluster, csr, node), role="worker")

    identity = Identity(
        config=lambda: config,
        take_role=lambda role: None,
        renew=renew,
        changed=changed.set,
        clock=SystemClock(),
    )
    identity.told(node)
    work = asyncio.ensure_future(identity.run())
    try:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(
                changed.wait(), 5.0 if age or known is not None or role != "worker" else 0.2
            )
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    return asked, config


async def test_an_old_certificate_is_renewed_for_the_same_key(ca: Ca) -> None:
    asked, config = await renewed(ca, 80 * DAY)
    assert len(asked) == 2, "asked again when no manager was connected"
    found = pki.identity(config.cert("node.pem"))
    assert found.not_before > SystemClock().now() - DAY
    ssl_context = ssl.create_default_context(cadata=config.cert("ca.pem").decode())
    ssl_context.load_cert_chain(config.certs / "node.pem", config.certs / "node.key")


@pytest.mark.parametrize(("known", "role"), [("", "worker"), ("abc", "worker"), (None, "manager")])
async def test_a_certificate_that_managers_hold_for_void_is_replaced_once(
    ca: Ca, known: str | None, role: pki.Role
) -> None:
    """It was revoked when its node was demoted; or a newer one was signed whose way was cut; or an interrupted
    change of the role has left one of the other."""
    asked, config = await renewed(ca, 0.0, known, role)
    assert len(asked) == 2, "asked again when no manager was connected, and no more once there was a new one"
    assert pki.identity(config.cert("node.pem")).role == "worker"


async def test_a_young_certificate_stays(ca: Ca) -> None:
    asked, _ = await renewed(ca, 0.0)
    assert asked == []


@contextlib.asynccontextmanager
async def served(ca: Ca, handler: object) -> AsyncGenerator[tuple[int, NodeConfig]]:
    """A manager's listener for the CA."""
    config = ca.config(ca.pair("manager"), role="manager")
    server = grpc.aio.server()
    add_service(server, "CA", handler, identify_tls)
    port = server.add_secure_port("127.0.0.1:0", served_certificate(config, mutual=True))
    await server.start()
    try:
        yield port, config
    finally:
        await server.stop(None)


async def test_a_renewed_certificate_is_shown_to_the_next_caller(ca: Ca) -> None:
    async with served(ca, Switch("CA", None)) as (port, config):
        shown = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))
        new = ca.pair("manager")
        write_private(config.certs / "node.key", new.key)
        write_private(config.certs / "node.pem", new.cert)
        other = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))
    assert pki.identity(shown).serial != pki.identity(other).serial == pki.identity(new.cert).serial


async def test_a_renewal_that_is_handed_on_is_the_callers(ca: Ca) -> None:
    store = MemoryStore()
    await store.commit(
        [Put(ca.cluster), Put(Node(id="n1")), Put(Node(id="m2", spec=NodeSpec(role="manager")))]
    )
    leading = Switch("CA", None)
    leading.leader_is_self(CAService(store, ca.authority, SystemClock(), list))
    key = pki.new_key()
    request = RenewRequest(csr=pki.create_request(key).decode())
    async with served(ca, leading) as (port, _):
        stubs: list[Stub] = []

        def connect(address: str) -> Stub:
            stubs.append(
                Stub(channel(f"ipv4:{address}", tls=ca.tls(ca.pair("manager", id="m2"))), forwards=True)
            )
            return stubs[-1]

        following = Switch("CA", connect)
        following.leader_is(f"127.0.0.1:{port}")
        answer = await following.renew(request, Peer("worker", "n1", "c1"))  # type: ignore[attr-defined]
        assert (answer.node_id, answer.role) == ("n1", "worker")
        assert pki.identity(answer.cert).node_id == "n1"
        # A worker that says it were handing on a call of a manager's is what its certificate says.
        liar = channel(f"ipv4:127.0.0.1:{port}", tls=ca.tls(ca.pair("worker")))
        own = Stub(liar)
        own._metadata = ((FORWARDED_KEY, "1"), (FOR_KEY, "manager m2 c1"))  # pyright: ignore[reportPrivateUsage]
        answer = await own.unary("CA.Renew", request)
        assert answer.node_id == "n1"
        own._metadata = ((FORWARDED_KEY, "1"), (FOR_KEY, "root m2 c1"))  # pyright: ignore[reportPrivateUsage]
        assert (await own.unary("CA.Renew", request)).node_id == "n1"
        forger = connect(f"127.0.0.1:{port}")
        forger._metadata = ((FORWARDED_KEY, "1"), (FOR_KEY, "root m2 c1"))  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(PermissionDenied, match="handed on"):
            await forger.unary("CA.Renew", request)
        for stub in (*stubs, own):
            await stub.close()


async def test_a_node_follows_a_new_root(ca: Ca) -> None:
    """It trusts what managers name, and renews when its record asks for a certificate of another root."""
    config = replace(ca.config(ca.pair()), run_dir=str(ca.directory / "run"))
    rotating = ca.authority.begin_rotation(ca.cluster, RotateCARequest())
    assert rotating.root_ca.rotation is not None
    new = rotating.root_ca.rotation.cert
    both = trust_of(rotating.root_ca)
    reached = {both: asyncio.Event(), new: asyncio.Event()}

    def changed() -> None:
        roots, cert = config.cert("ca.pem").decode(), config.cert("node.pem")
        if pki.issuer_id(cert, roots) == pki.key_id(new):
            reached[roots].set()

    async def renew(csr: str) -> IssueResponse:
        cert = ca.authority.sign(rotating, csr, Node(id="n1"))
        return IssueResponse(node_id="n1", cert=cert, role="worker")

    identity = Identity(
        config=lambda: config, take_role=lambda role: None, renew=renew, changed=changed, clock=SystemClock()
    )
    work = asyncio.ensure_future(identity.run())
    for roots in (both, new):
        identity.told(Node(id="n1", certificate_wanted=pki.key_id(new)), roots)
        async with asyncio.timeout(5):
            await reached[roots].wait()
    identity.told(None, "not a certificate")
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    assert config.cert("ca.pem").decode() == new
    pki.verify(config.cert("node.pem"), new, SystemClock().now())
