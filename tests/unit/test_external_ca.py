"""Certificates from a CA outside, over real TLS: what it is asked, what of its answers is believed, and what not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from manager.ca import Authority
from manager.external_ca import Cfssl, parse
from manager.sealer import Sealer, new_key
from pyswarm import pki
from pyswarm.api import RotateCARequest
from pyswarm.clock import SystemClock
from pyswarm.errors import Conflict, Invalid, Unavailable
from pyswarm.objects import Cluster, Node, NodeStatus
from pyswarm.specs import ClusterSpec, ExternalCA, NodeSpec
from tests.cfssl_server import CfsslServer, failure, success

MANAGER = Node(id="m1", spec=NodeSpec(role="manager"), status=NodeStatus(addr="10.0.0.1:2377"))


@pytest.fixture(scope="module")
def servers() -> Iterator[list[CfsslServer]]:
    """Two CAs."""
    made = [CfsslServer(), CfsslServer()]
    yield made
    for server in made:
        server.close()


@pytest.fixture
def server(servers: list[CfsslServer]) -> Iterator[CfsslServer]:
    found = servers[0]
    good = found.answer
    found.requests.clear()
    found.callers.clear()
    yield found
    found.answer = good


def outside(server: CfsslServer, certs: Path | None = None) -> tuple[Authority, Cluster]:
    """A cluster whose certificates that CA signs."""
    authority = Authority(Sealer(new_key()), SystemClock(), Cfssl(certs))
    return authority, authority.create_cluster("c1", ClusterSpec(external_cas=(server.spec,)))


def request() -> str:
    return pki.create_request(pki.new_key()).decode()


def test_it_is_asked_as_swarmkit_asks_and_signs(server: CfsslServer, tmp_path: Path) -> None:
    own = pki.issue(server.root, pki.Subject("m9", "manager", "c1"), time.time())
    (tmp_path / "node.pem").write_bytes(own.cert)
    (tmp_path / "node.key").write_bytes(own.key)
    authority, cluster = outside(server, tmp_path)
    assert cluster.root_ca.key == b""
    csr = request()
    cert = authority.sign(cluster, csr, MANAGER)
    assert pki.verify(cert.encode(), cluster.root_ca.cert, time.time()).role == "manager"
    (body,) = server.requests
    assert body["certificate_request"] == csr
    assert body["subject"] == {"CN": "m1", "names": [{"OU": "swarm-manager", "O": "c1"}]}
    assert {"swarm-manager", "pyswarm-etcd", "10.0.0.1"} <= set(body["hosts"])
    assert server.callers == ["m9"], "the manager shows its own certificate"


async def test_workers_and_people_get_theirs_too(server: CfsslServer) -> None:
    authority, cluster = outside(server)
    cert = await authority.sign_soon(cluster, request(), Node(id="w1"))
    assert pki.identity(cert).role == "worker"
    assert pki.identity(authority.sign_client(cluster, "laptop", request())).role == "client"
    with pytest.raises(Conflict, match="kept outside"):
        authority.root(cluster)


Answer = Callable[[CfsslServer, CfsslServer, dict[str, Any]], tuple[int, bytes]]


def of_another(body: dict[str, Any], **changes: object) -> dict[str, Any]:
    return {**body, **changes}


BAD: dict[str, tuple[Answer, str]] = {
    "refused": (lambda ca, other, body: (200, failure("policy says no")), "policy says no"),
    "refused with a code": (lambda ca, other, body: (403, failure("who are you")), "who are you"),
    "a code alone": (lambda ca, other, body: (500, b"oops"), "answered 500"),
    "not JSON": (lambda ca, other, body: (200, b"<html>"), "not cfssl's"),
    "JSON of another form": (lambda ca, other, body: (200, b"[1]"), "not cfssl's"),
    "not a certificate": (lambda ca, other, body: (200, success(b"hello")), "not a certificate"),
    "too long": (lambda ca, other, body: (200, b"x" * (1024 * 1024 + 1)), "too long"),
    "of another root": (
        lambda ca, other, body: (200, success(other.sign(body))),
        "not signed by this cluster's CA",
    ),
    "of another role": (
        lambda ca, other, body: (
            200,
            success(
                ca.sign(of_another(body, subject={"CN": "m1", "names": [{"OU": "swarm-client", "O": "c1"}]}))
            ),
        ),
        "for m1 as client",
    ),
    "for another node": (
        lambda ca, other, body: (
            200,
            success(
                ca.sign(of_another(body, subject={"CN": "m2", "names": [{"OU": "swarm-manager", "O": "c1"}]}))
            ),
        ),
        "for m2 as manager",
    ),
    "for another key": (
        lambda ca, other, body: (200, success(ca.sign(of_another(body, certificate_request=request())))),
        "another key",
    ),
    "without names": (
        lambda ca, other, body: (200, success(ca.sign(of_another(body, hosts=["10.9.9.9"])))),
        r"lacks the names 10\.0\.0\.1",
    ),
}


@pytest.mark.parametrize("case", list(BAD))
def test_answers_that_are_not_believed(servers: list[CfsslServer], server: CfsslServer, case: str) -> None:
    answer, words = BAD[case]

    def bad(body: dict[str, Any]) -> tuple[int, bytes]:
        return answer(server, servers[1], body)

    server.answer = bad
    authority, cluster = outside(server)
    with pytest.raises(Unavailable, match=words):
        authority.sign(cluster, request(), MANAGER)


def test_one_that_is_not_the_roots_is_not_talked_to(servers: list[CfsslServer]) -> None:
    """Somebody in between, with a certificate of another CA."""
    real, liar = servers
    liar.requests.clear()
    authority, cluster = outside(real)
    spec = ClusterSpec(external_cas=(ExternalCA(url=liar.url, ca_cert=real.root.cert.decode()),))
    with pytest.raises(Unavailable, match="certificate verify failed"):
        authority.sign(Cluster(id="c1", spec=spec, root_ca=cluster.root_ca), request(), MANAGER)
    assert liar.requests == []


def test_the_next_one_is_asked_when_one_is_away(server: CfsslServer) -> None:
    authority, cluster = outside(server)
    away = ExternalCA(url="https://127.0.0.1:1/", ca_cert=server.root.cert.decode())
    both = ClusterSpec(external_cas=(away, server.spec))
    cert = authority.sign(Cluster(id="c1", spec=both, root_ca=cluster.root_ca), request(), MANAGER)
    assert pki.identity(cert).node_id == "m1"
    none = Cluster(id="c1", spec=ClusterSpec(), root_ca=cluster.root_ca)
    with pytest.raises(Unavailable, match="--external-ca"):
        authority.sign(none, request(), MANAGER)


def test_a_root_goes_outside_and_comes_back(server: CfsslServer) -> None:
    """Rotation from a root of our own to an external one, and from that to our own: each vouches for the next."""
    authority = Authority(Sealer(new_key()), SystemClock())
    inside = authority.create_cluster("c1", ClusterSpec())
    cert = server.root.cert.decode()
    going = authority.begin_rotation(
        inside, RotateCARequest(cert=cert, external_cas=(ExternalCA(url=server.url),))
    )
    assert going.root_ca.rotation is not None and going.root_ca.rotation.key == b""
    signed = authority.sign(going, request(), MANAGER).encode()
    for trust in (inside.root_ca.cert, cert):
        pki.verify(signed, trust, time.time())

    _, away = outside(server)
    back = authority.begin_rotation(away, RotateCARequest())
    signed = authority.sign(back, request(), MANAGER).encode()
    assert back.root_ca.rotation is not None
    for trust in (cert, back.root_ca.rotation.cert):
        pki.verify(signed, trust, time.time())
    with pytest.raises(Invalid, match="cannot be replaced by another"):
        other = RotateCARequest(
            cert=pki.create_root(time.time()).cert.decode(), external_cas=(ExternalCA(url=server.url),)
        )
        authority.begin_rotation(away, other)


def test_the_option(tmp_path: Path) -> None:
    root = pki.create_root(time.time()).cert.decode()
    (tmp_path / "ca.pem").write_text(root)
    found = parse(f"protocol=cfssl,url=https://ca:8888/sign,cacert={tmp_path}/ca.pem")
    assert found == ExternalCA(url="https://ca:8888/sign", ca_cert=root)
    for text, words in (
        ("https://ca", "none of protocol"),
        ("protocol=vault,url=https://ca", "protocol=cfssl"),
        ("protocol=cfssl,url=http://ca", "https://"),
        ("protocol=cfssl", "https://"),
        ("protocol=cfssl,url=https://ca,cacert=/nonexistent", "cannot read"),
    ):
        with pytest.raises(Invalid, match=words):
            parse(text)
