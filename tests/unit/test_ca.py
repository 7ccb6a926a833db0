"""Who gets a certificate, of which role."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from cryptography import x509

from manager import trust
from manager.ca import Authority, CAService, host_of, node_id_of
from manager.sealer import Sealer, new_key
from manager.store import Delete, Put
from manager.store.memory import MemoryStore
from pyswarm import pki
from pyswarm.api import Empty, IssueRequest, RenewRequest
from pyswarm.errors import Conflict, Invalid, NotFound, PermissionDenied
from pyswarm.objects import Cluster, Node, NodeStatus
from pyswarm.rpc import Peer
from pyswarm.specs import ClusterSpec, NodeSpec

NOW = 1_700_000_000.0


class Clock:
    def now(self) -> float:
        return NOW

    def monotonic(self) -> float:
        return 0.0


@pytest.fixture
def authority() -> Authority:
    return Authority(Sealer(new_key()), Clock())


@pytest.fixture
def cluster(authority: Authority) -> Cluster:
    return authority.create_cluster("cluster1", ClusterSpec())


@pytest.fixture
async def store(cluster: Cluster) -> MemoryStore:
    store = MemoryStore()
    await store.commit([Put(cluster)])
    return store


@pytest.fixture
def service(store: MemoryStore, authority: Authority) -> CAService:
    return CAService(store, authority, Clock(), lambda: ["10.0.0.1:2378"])


ANYONE = Peer("anyone")


def request(token: str, key: bytes | None = None, **fields: str) -> IssueRequest:
    return IssueRequest(csr=pki.create_request(key or pki.new_key()).decode(), token=token, **fields)


def test_new_cluster_keeps_its_key_sealed(authority: Authority, cluster: Cluster) -> None:
    assert b"PRIVATE KEY" not in cluster.root_ca.key
    pki.check_root(authority.root(cluster), NOW)
    assert len({cluster.root_ca.join_tokens.worker, cluster.root_ca.join_tokens.manager}) == 2


def test_a_ca_that_was_brought_is_checked(authority: Authority) -> None:
    root = pki.create_root(NOW, "our own")
    assert authority.create_cluster("c", ClusterSpec(), root).root_ca.cert == root.cert.decode()
    with pytest.raises(Invalid, match="do not belong together"):
        authority.create_cluster("c", ClusterSpec(), pki.KeyPair(root.cert, pki.new_key()))


def test_external_ca_signs_nothing_here(authority: Authority, cluster: Cluster) -> None:
    with pytest.raises(Conflict, match="kept outside"):
        authority.root(replace(cluster, root_ca=replace(cluster.root_ca, key=b"")))


def test_tokens_decide_on_the_role(authority: Authority, cluster: Cluster) -> None:
    worker, manager = authority.tokens(cluster)
    assert authority.admit(cluster, worker) == "worker"
    assert authority.admit(cluster, manager) == "manager"


def test_rotated_token_lets_nobody_in(authority: Authority, cluster: Cluster) -> None:
    worker, manager = authority.tokens(cluster)
    rotated = authority.rotate_tokens(cluster, worker=True, manager=False)
    with pytest.raises(PermissionDenied, match="not valid"):
        authority.admit(rotated, worker)
    assert authority.admit(rotated, manager) == "manager"
    assert authority.admit(rotated, authority.tokens(rotated)[0]) == "worker"


def test_token_of_another_cluster_is_refused(authority: Authority, cluster: Cluster) -> None:
    other = authority.create_cluster("other", ClusterSpec())
    with pytest.raises(PermissionDenied, match="is not the one that the join token names"):
        authority.admit(cluster, authority.tokens(other)[0])


def test_cluster_without_tokens_admits_nobody(authority: Authority, cluster: Cluster) -> None:
    empty = replace(
        cluster, root_ca=replace(cluster.root_ca, join_tokens=type(cluster.root_ca.join_tokens)())
    )
    token = pki.join_token(cluster.root_ca.cert, "0" * 25)
    with pytest.raises(PermissionDenied, match="not valid"):
        authority.admit(empty, token)


def test_revoked_certificates_are_kept_until_they_end(authority: Authority, cluster: Cluster) -> None:
    life = cluster.spec.node_cert_expiry
    once = trust.revoked(cluster, Node(id="a", certificate_serial="aa"), NOW)
    twice = trust.revoked(once, Node(id="b", certificate_serial="bb"), NOW + 10)
    assert [(r.serial, r.until) for r in twice.root_ca.revoked] == [
        ("aa", NOW + life),
        ("bb", NOW + 10 + life),
    ]
    assert trust.revoked(twice, Node(id="c"), NOW) == twice
    later = trust.revoked(twice, Node(id="c", certificate_serial="cc"), NOW + life + 5)
    assert [r.serial for r in later.root_ca.revoked] == ["bb", "cc"]


def test_all_certificates_of_a_node_are_revoked_at_once(authority: Authority, cluster: Cluster) -> None:
    """Renewed ones too: each is good for whoever has its key, until it ends."""
    node, serials = Node(id="a"), list[str]()
    for age in (100.0, 1.0, 0.0):
        who = pki.identity(
            pki.issue(authority.root(cluster), pki.Subject("a", "manager", "c"), NOW - age * 86_400).cert
        )
        node = trust.issued(node, who, NOW)
        serials.append(who.serial)
    assert node.certificate_serial == serials[-1]
    assert [c.serial for c in node.certificates] == serials[1:], "the first one has ended"
    found = trust.revoked(cluster, node, NOW).root_ca.revoked
    assert [(r.serial, r.until) for r in found] == [(c.serial, c.until) for c in node.certificates]


def test_client_certificate_for_a_context(authority: Authority, cluster: Cluster) -> None:
    csr = pki.create_request(pki.new_key(), "laptop").decode()
    who = pki.verify(authority.sign_client(cluster, "laptop", csr).encode(), cluster.root_ca.cert, NOW)
    assert (who.node_id, who.role) == ("laptop", "client")
    with pytest.raises(Invalid, match="needs a name"):
        authority.sign_client(cluster, "", csr)


async def test_joining_makes_the_record_and_the_certificate(
    service: CAService, authority: Authority, cluster: Cluster, store: MemoryStore
) -> None:
    assert (await service.get_root_ca(Empty(), ANYONE)).cert == cluster.root_ca.cert
    worker, manager = authority.tokens(cluster)
    for token, role in ((worker, "worker"), (manager, "manager")):
        answer = await service.issue(request(token, addr="10.0.0.7:2377", availability="pause"), ANYONE)
        who = pki.verify(answer.cert.encode(), cluster.root_ca.cert, NOW)
        assert (who.node_id, who.role, who.cluster_id) == (answer.node_id, role, "cluster1")
        assert answer.managers == ("10.0.0.1:2378",)
        node = await store.get("node", answer.node_id)
        assert isinstance(node, Node)
        assert (node.role, node.spec.role, node.spec.availability) == (role, role, "pause")
        assert node.certificate_serial == who.serial


async def test_asking_twice_makes_one_node(
    service: CAService, authority: Authority, cluster: Cluster, store: MemoryStore
) -> None:
    worker, manager = authority.tokens(cluster)
    again = request(worker, pki.new_key())
    first = await service.issue(again, ANYONE)
    assert (await service.issue(again, ANYONE)).node_id == first.node_id == node_id_of(again.csr)
    assert len((await store.list("node")).objects) == 1
    with pytest.raises(Conflict, match="joined as worker already"):
        await service.issue(replace(again, token=manager), ANYONE)


async def test_bad_requests_leave_no_record(
    service: CAService, authority: Authority, cluster: Cluster, store: MemoryStore
) -> None:
    worker, _ = authority.tokens(cluster)
    good = request(worker)
    for bad, error in (
        (replace(good, token="nonsense"), Invalid),
        (replace(good, token=worker[:-1] + ("0" if worker[-1] != "0" else "1")), PermissionDenied),
        (replace(good, csr="nonsense"), Invalid),
        (replace(good, availability="sometimes"), Invalid),
    ):
        with pytest.raises(error):
            await service.issue(bad, ANYONE)
    assert (await store.list("node")).objects == ()


async def test_renewal_follows_the_role_in_the_spec(
    service: CAService, authority: Authority, cluster: Cluster, store: MemoryStore
) -> None:
    key = pki.new_key()
    answer = await service.issue(request(authority.tokens(cluster)[0], key, addr="10.0.0.7:2377"), ANYONE)
    peer = Peer("worker", answer.node_id, "cluster1")
    renewal = RenewRequest(csr=pki.create_request(key).decode())
    assert (await service.renew(renewal, peer)).role == "worker"
    node = await store.get("node", answer.node_id)
    assert isinstance(node, Node)
    await store.commit([Put(replace(node, spec=replace(node.spec, role="manager")))])
    promoted = await service.renew(renewal, peer)
    assert pki.identity(promoted.cert).role == promoted.role == "manager"
    node = await store.get("node", answer.node_id)
    assert isinstance(node, Node) and node.role == "manager"
    assert node.certificate_serial == pki.identity(promoted.cert).serial


async def test_removed_nodes_and_strangers_get_none(
    service: CAService, authority: Authority, cluster: Cluster, store: MemoryStore
) -> None:
    key = pki.new_key()
    answer = await service.issue(request(authority.tokens(cluster)[0], key), ANYONE)
    renewal = RenewRequest(csr=pki.create_request(key).decode())
    with pytest.raises(PermissionDenied, match="another cluster"):
        await service.renew(renewal, Peer("worker", answer.node_id, "other"))
    node = await store.get("node", answer.node_id)
    assert node is not None
    await store.commit([Delete(node)])
    with pytest.raises(PermissionDenied, match="was removed"):
        await service.renew(renewal, Peer("worker", answer.node_id, "cluster1"))


async def test_concurrent_change_of_the_record_is_not_lost(
    service: CAService, authority: Authority, cluster: Cluster, store: MemoryStore
) -> None:
    key = pki.new_key()
    answer = await service.issue(request(authority.tokens(cluster)[0], key), ANYONE)
    node = await store.get("node", answer.node_id)
    assert isinstance(node, Node)
    latencies = iter([0.01])  # the first read is slow: the record changes in between
    store.latency = lambda: next(latencies, 0.0)
    rival = MemoryStore(store.server)

    async def change() -> None:
        await rival.commit([Put(replace(node, spec=replace(node.spec, labels={"a": "b"})))])

    renewal = RenewRequest(csr=pki.create_request(key).decode())
    await asyncio.gather(service.renew(renewal, Peer("worker", node.id, "cluster1")), change())
    after = await store.get("node", node.id)
    assert isinstance(after, Node)
    assert after.spec.labels == {"a": "b"} and after.certificate_serial != node.certificate_serial


async def test_before_the_cluster_has_a_record(authority: Authority) -> None:
    service = CAService(MemoryStore(), authority, Clock(), lambda: ())
    with pytest.raises(NotFound, match="no record of itself"):
        await service.get_root_ca(Empty(), ANYONE)


def test_managers_certificate_names_its_addresses(authority: Authority, cluster: Cluster) -> None:
    node = Node(
        id="m1",
        spec=NodeSpec(role="manager"),
        status=NodeStatus(addr="10.0.0.1:2377"),
        data_path_addr="10.0.1.1",
    )
    pair = authority.issue_node(cluster, node)
    cert = pki.load_certificates(pair.cert)[0]
    value = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = [str(a) for a in value.get_values_for_type(x509.IPAddress)]
    assert addresses == ["127.0.0.1", "::1", "10.0.0.1", "10.0.1.1"]
    assert "pyswarm-etcd" in value.get_values_for_type(x509.DNSName)


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("10.0.0.1:2377", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.1"),
        ("[fd00::1]:2377", "fd00::1"),
        ("fd00::1", "fd00::1"),
        ("host.example:1", "host.example"),
        ("", ""),
    ],
)
def test_host_of(address: str, host: str) -> None:
    assert host_of(address) == host
