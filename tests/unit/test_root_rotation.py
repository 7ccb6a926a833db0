"""Replacing the root CA: what signs, who is to renew when, when the old root goes, and that TLS holds throughout."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from manager.ca import Authority
from manager.orchestrator.rotation import BATCH, RootRotation
from manager.sealer import Sealer, new_key
from manager.state import State
from manager.trust import signer_of, trust_of
from pyswarm import pki
from pyswarm.api import RotateCARequest
from pyswarm.cli.trust import progress, shown
from pyswarm.clock import SeededIds
from pyswarm.errors import Conflict, Invalid
from pyswarm.objects import Cluster, Node, NodeDescription, NodeState, NodeStatus, Object, kind_of
from pyswarm.specs import ClusterSpec, ExternalCA, NodeSpec

NOW = time.time()


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
    return authority.create_cluster("c1", ClusterSpec())


@pytest.fixture
def rotating(authority: Authority, cluster: Cluster) -> Cluster:
    return authority.begin_rotation(cluster, RotateCARequest())


def new_root(cluster: Cluster) -> str:
    assert cluster.root_ca.rotation is not None
    return cluster.root_ca.rotation.cert


def node(id: str, root: str, trust: str = "", state: NodeState = NodeState.READY) -> Node:
    """One whose certificate `root` has signed."""
    said = NodeDescription(hostname=id, root_ca=trust or root, certificate_issuer=pki.key_id(root))
    return Node(id=id, spec=NodeSpec(name=id), description=said, status=NodeStatus(state=state))


# ------------------------------------------------------------------------------------------ what signs


def test_the_new_root_signs_with_the_old_ones_word_and_both_are_trusted(
    authority: Authority, cluster: Cluster, rotating: Cluster
) -> None:
    assert rotating.root_ca.cert == cluster.root_ca.cert
    assert rotating.root_ca.join_tokens == cluster.root_ca.join_tokens
    assert authority.tokens(rotating) == authority.tokens(cluster)
    assert rotating.root_ca.rotation is not None and b"PRIVATE" not in rotating.root_ca.rotation.key
    cert = authority.sign(rotating, pki.create_request(pki.new_key()).decode(), Node(id="n1")).encode()
    assert pki.issuer_id(cert, "") == pki.key_id(new_root(rotating)) != pki.key_id(cluster.root_ca.cert)
    for trust in (cluster.root_ca.cert, new_root(rotating), trust_of(rotating.root_ca)):
        assert pki.verify(cert, trust, NOW).node_id == "n1"
    assert pki.split(trust_of(rotating.root_ca)) == [
        *pki.split(cluster.root_ca.cert),
        *pki.split(new_root(rotating)),
    ]


@pytest.mark.parametrize("trusted", ["old", "new", "both"])
def test_real_tls_accepts_the_new_certificate_under_either_root(
    authority: Authority, cluster: Cluster, rotating: Cluster, trusted: str, tmp_path: Path
) -> None:
    key = pki.new_key()
    csr = pki.create_request(key).decode()
    manager = Node(id="m1", spec=NodeSpec(role="manager"), status=NodeStatus(addr="127.0.0.1"))
    (tmp_path / "cert").write_text(authority.sign(rotating, csr, manager))
    (tmp_path / "key").write_bytes(key)
    trust = {
        "old": cluster.root_ca.cert,
        "new": new_root(rotating),
        "both": trust_of(rotating.root_ca),
    }[trusted]
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cadata=trust)
    for context in (server, client):
        context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(cadata=trust)
    here, there = socket.socketpair()

    def serve() -> None:
        with server.wrap_socket(there, server_side=True) as served:
            served.sendall(served.recv(10))

    thread = threading.Thread(target=serve)
    thread.start()
    with client.wrap_socket(here, server_hostname=pki.MANAGER_NAME) as asked:
        asked.sendall(b"hello")
        assert asked.recv(10) == b"hello"
    thread.join()


def test_a_root_that_was_brought_is_checked(authority: Authority, cluster: Cluster) -> None:
    own = pki.create_root(NOW, "our own")
    cert, key = own.cert.decode(), own.key.decode()
    taken = authority.begin_rotation(cluster, RotateCARequest(cert=cert, key=key, cert_expiry=7200.0))
    assert (new_root(taken), taken.spec.node_cert_expiry) == (cert, 7200.0)
    for request, words in (
        (RotateCARequest(cert=cert), "--ca-key"),
        (RotateCARequest(key=key), "--ca-cert"),
        (RotateCARequest(cert=cert, key=pki.new_key().decode()), "do not belong together"),
        (RotateCARequest(cert=cert + cluster.root_ca.cert, key=key), "several certificates"),
        (RotateCARequest(cert="x", key=key), "not a certificate"),
        (RotateCARequest(external_cas=(ExternalCA(url="https://x"),)), "--ca-cert"),
    ):
        with pytest.raises(Invalid, match=words):
            authority.begin_rotation(cluster, request)


def test_the_present_root_ends_a_rotation_and_begins_none(
    authority: Authority, cluster: Cluster, rotating: Cluster
) -> None:
    present = authority.root(cluster)
    back = RotateCARequest(cert=present.cert.decode(), key=present.key.decode())
    with pytest.raises(Conflict, match="has already"):
        authority.begin_rotation(cluster, back)
    assert authority.begin_rotation(rotating, back).root_ca == cluster.root_ca


def test_a_rotation_that_goes_on_takes_another_target(authority: Authority, rotating: Cluster) -> None:
    again = authority.begin_rotation(rotating, RotateCARequest())
    assert new_root(again) != new_root(rotating)
    cert = authority.sign(again, pki.create_request(pki.new_key()).decode(), Node(id="n1")).encode()
    pki.verify(cert, again.root_ca.cert, NOW)


def test_a_root_for_leaves_alone_cannot_vouch_for_another(authority: Authority) -> None:
    pair = pki.create_root(NOW)
    crossed = pki.cross_sign(pki.create_root(NOW).cert, pair, NOW)  # has a path length of 0
    with pytest.raises(Invalid, match="path length"):
        pki.cross_sign(pair.cert, pki.KeyPair(crossed, pair.key), NOW)


# ------------------------------------------------------------------------------------------ the reconciler


def planned(objects: Sequence[Object]) -> dict[str, Object]:
    """What the reconciler writes when a leader starts with these objects."""
    state = State(SeededIds(1))
    state.load(objects, 1)
    room = RootRotation()
    plan = room.plan(state.view, list(room.everything(state.view)), NOW)
    return {obj.id: obj for obj in plan.puts}


def carried_through(objects: Sequence[Object]) -> list[dict[str, Object]]:
    """The plans of one leader after the other, each from the stored state alone, until none has anything to say;
    nodes that are up do what they are told in between."""
    stored = {obj.id: obj for obj in objects}
    plans: list[dict[str, Object]] = []
    while plan := planned(list(stored.values())):
        plans.append(plan)
        stored |= plan
        assert len(plans) < 100
        cluster = next(o for o in stored.values() if isinstance(o, Cluster))
        for id, obj in stored.items():
            if isinstance(obj, Node) and obj.status.state == NodeState.READY:
                wanted = obj.certificate_wanted or obj.description.certificate_issuer
                said = replace(obj.description, root_ca=trust_of(cluster.root_ca), certificate_issuer=wanted)
                stored[id] = replace(obj, description=said)
    objects[:] = list(stored.values())  # type: ignore[index]
    return plans


def test_nodes_renew_in_batches_and_then_the_old_root_goes(cluster: Cluster, rotating: Cluster) -> None:
    count = 2 * BATCH + 5
    objects: list[Object] = [rotating, *(node(f"n{i:03}", cluster.root_ca.cert) for i in range(count))]
    plans = carried_through(objects)
    marked = [sum(kind_of(o) == "node" for o in plan.values()) for plan in plans]
    assert marked == [BATCH, BATCH, 5, 0]
    after = next(o for o in objects if isinstance(o, Cluster))
    assert after.root_ca.rotation is None
    assert after.root_ca.cert == new_root(rotating)
    assert signer_of(after.root_ca).key == (rotating.root_ca.rotation or cluster.root_ca).key
    assert pki.join_token(after.root_ca.cert, "s") != pki.join_token(cluster.root_ca.cert, "s")


def test_a_batch_is_not_exceeded_while_it_renews(cluster: Cluster, rotating: Cluster) -> None:
    old, wanted = cluster.root_ca.cert, pki.key_id(new_root(rotating))
    going = [replace(node(f"a{i}", old), certificate_wanted=wanted) for i in range(BATCH - 1)]
    waiting = [node(f"b{i}", old) for i in range(5)]
    assert list(planned([rotating, *going, *waiting])) == ["b0"]


def test_a_node_that_is_down_keeps_the_old_root_in_force(cluster: Cluster, rotating: Cluster) -> None:
    old, new = cluster.root_ca.cert, new_root(rotating)
    done = node("up", new, trust_of(rotating.root_ca))
    down = node("gone", old, state=NodeState.DOWN)
    assert planned([rotating, done, down]) == {}
    assert list(planned([rotating, done])) == ["c1"]
    half = node("half", new, old)  # has its certificate, but has not been told of the root yet
    assert planned([rotating, done, half]) == {}


def test_without_a_rotation_strays_are_called_back(cluster: Cluster, rotating: Cluster) -> None:
    """A rotation that was ended: nodes that had followed it have certificates of a root that is not to come."""
    stray, home = node("a", new_root(rotating), trust_of(rotating.root_ca)), node("b", cluster.root_ca.cert)
    plan = planned([cluster, stray, home])
    assert list(plan) == ["a"]
    assert getattr(plan["a"], "certificate_wanted") == pki.key_id(cluster.root_ca.cert)  # noqa: B009
    old_agent = replace(home, description=NodeDescription(hostname="b"))
    assert planned([cluster, old_agent]) == {}


# ------------------------------------------------------------------------------------------ what people see


def test_progress_counts_certificates_then_roots(cluster: Cluster, rotating: Cluster) -> None:
    old, new, both = cluster.root_ca.cert, new_root(rotating), trust_of(rotating.root_ca)
    begun = progress(
        rotating, [node("a", new, both), node("b", old, both), node("c", old, state=NodeState.DOWN)]
    )
    assert (begun.certificates, begun.roots, begun.nodes, begun.waiting, begun.done) == (
        1,
        0,
        3,
        ("c",),
        False,
    )
    text = shown(begun)
    assert f"desired root digest: {pki.root_digest(new)}" in text
    assert "1/3 nodes" in text and "0/3 nodes" in text
    assert "waiting for c, which is down" in text
    after = replace(rotating, root_ca=replace(rotating.root_ca, cert=new, rotation=None))
    last = progress(after, [node("a", new, new), node("b", new, both)])
    assert (last.certificates, last.roots, last.done) == (2, 1, False)
    assert progress(after, [node("a", new, new), node("b", new, new)]).done
