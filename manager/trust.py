"""Which root CA signs, and which are trusted: now, and while one takes the place of another. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from pyswarm import pki
from pyswarm.objects import RootCA


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
