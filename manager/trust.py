"""Which root CA signs, and which are trusted: now, and while one takes the place of another; and which
certificates of nodes are good, and which are not any more. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pyswarm import pki
from pyswarm.objects import Cluster, IssuedCertificate, Node, Revoked, RootCA


@dataclass(frozen=True, slots=True)
class Signer:
    """The root that signs now: during a rotation the new one."""

    cert: str
    key: bytes
    """Sealed; empty when an external CA has it."""
    chain: str = ""
    """What goes along with each certificate: the root, certified by the one before it."""


def signer_of(ca: RootCA) -> Signer:
    """The root that signs now."""
    if ca.rotation is not None:
        return Signer(ca.rotation.cert, ca.rotation.key, ca.rotation.cross_signed)
    return Signer(ca.cert, ca.key)


def trust_of(ca: RootCA) -> str:
    """The roots (PEM) that nodes are to trust now: two during a rotation."""
    return ca.cert if ca.rotation is None else pki.bundle([ca.cert, ca.rotation.cert])


NO_CERTIFICATE: Mapping[str, Any] = {"certificate_serial": "", "certificates": ()}
"""The fields of a node whose certificates were revoked: its agent asks for another one. (`Any`: they are of several
types.)"""


def issued(node: Node, who: pki.Identity, now: float) -> Node:
    """The record of a node that was given this certificate."""
    good = [c for c in node.certificates if c.until > now and c.serial != who.serial]
    given = IssuedCertificate(serial=who.serial, until=who.not_after)
    return replace(node, certificate_serial=who.serial, certificates=(*good, given))


def revoked(cluster: Cluster, node: Node, now: float) -> Cluster:
    """The record with all certificates of a node revoked (it was demoted or removed), and without those that have
    ended by themselves."""
    going = {c.serial: c.until for c in node.certificates if c.until > now}
    if node.certificate_serial:
        life = max(cluster.spec.node_cert_expiry, pki.MIN_NODE_LIFE)
        going.setdefault(node.certificate_serial, now + life)
    kept = [r for r in cluster.root_ca.revoked if r.until > now and r.serial not in going]
    kept += [Revoked(serial=serial, until=until) for serial, until in going.items()]
    return replace(cluster, root_ca=replace(cluster.root_ca, revoked=tuple(kept)))
