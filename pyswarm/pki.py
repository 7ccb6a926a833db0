"""The cluster's public key infrastructure: root CA, node certificates, requests, join tokens, identities.

A certificate's subject says who its owner is, as in Swarm: CN the node's id, OU the role (`swarm-manager`,
`swarm-worker`, or `swarm-client` for a person's command line), O the cluster's id. Keys are ECDSA P-256.
Nothing here reads the clock: the caller says what time it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pyswarm.clock import base36
from pyswarm.errors import Invalid, PermissionDenied

Role = Literal["worker", "manager", "client"]

ROOT_LIFE = 20 * 365 * 86_400.0
"""Seconds."""
NODE_LIFE = 90 * 86_400.0
MIN_NODE_LIFE = 3600.0
BACKDATE = 3600.0
"""Certificates begin an hour in the past: the clocks of a cluster's machines differ."""
RENEW_FROM, RENEW_TO = 0.5, 0.8
"""A certificate is renewed at a random point between these parts of its life."""

MANAGER_NAME = "swarm-manager"
"""The DNS name that every manager's certificate carries and every client of a manager expects."""
WORKER_NAME = "swarm-worker"
ETCD_NAME = "pyswarm-etcd"
"""In the certificates of managers alone: etcd refuses clients and peers without it."""

_UNITS: Mapping[Role, str] = {"manager": "swarm-manager", "worker": "swarm-worker", "client": "swarm-client"}
_ROLES: Mapping[str, Role] = {unit: role for role, unit in _UNITS.items()}
_TOKEN_PREFIX = "SWMTKN"
_TOKEN_VERSION = "1"
_DIGEST_LENGTH = 50
"""256 bits in base 36."""
_SECRET_LENGTH = 25
"""128 bits in base 36."""


# --------------------------------------------------------------------------------------- keys and names


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate (PEM; after it any intermediates) and its private key (PEM, PKCS #8, not encrypted)."""

    cert: bytes
    key: bytes


def new_key() -> bytes:
    """A fresh private key, PEM."""
    return _key_pem(ec.generate_private_key(ec.SECP256R1()))


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise Invalid(f"not a private key in PEM form: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Invalid("the private key is not an ECDSA key: only those are supported")
    return key


def load_certificates(pem: bytes | str) -> list[x509.Certificate]:
    """All certificates in a PEM text. Raises Invalid if there is none."""
    try:
        return x509.load_pem_x509_certificates(pem.encode() if isinstance(pem, str) else pem)
    except ValueError as error:
        raise Invalid(f"not a certificate in PEM form: {error}") from None


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)


def _subject(common_name: str, unit: str = "", organization: str = "") -> x509.Name:
    parts = [(NameOID.ORGANIZATION_NAME, organization), (NameOID.ORGANIZATIONAL_UNIT_NAME, unit)]
    parts.append((NameOID.COMMON_NAME, common_name))
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts if value])


# ---------------------------------------------------------------------------------------------- the CA


def create_root(now: float, name: str = "swarm-ca", life: float = ROOT_LIFE) -> KeyPair:
    """A self-signed root that may sign end certificates and, for a rotation, one other root."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(name)
    builder = _authority(subject, subject, key.public_key(), now, life, path_length=1)
    return KeyPair(_pem(builder.sign(key, hashes.SHA256())), _key_pem(key))


def _authority(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    now: float,
    life: float,
    path_length: int,
    key_id: bytes = b"",
) -> x509.CertificateBuilder:
    """`key_id` is the name of the key where it has one already."""
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_time(now - BACKDATE))
        .not_valid_after(_time(now + life))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(
            x509.SubjectKeyIdentifier(key_id)
            if key_id
            else x509.SubjectKeyIdentifier.from_public_key(public),
            critical=False,
        )
    )


def cross_sign(new_root: bytes, old: KeyPair, now: float) -> bytes:
    """The new root's key, certified by the old root (PEM): during a rotation nodes that trust only the old
    one accept what the new one signs, as long as this is sent along as an intermediate. Raises Invalid where the
    old root may sign no other CA."""
    target = load_certificates(new_root)[0]
    issuer = load_certificates(old.cert)[0]
    if not _vouches(issuer):
        raise Invalid(
            "the present root CA may sign node certificates alone (its path length is 0), so that it cannot vouch for "
            "another root: back up the cluster and start a new one with `pyswarm init`"
        )
    public = target.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise Invalid("the new root's key is not an ECDSA key: only those are supported")
    life = min(target.not_valid_after_utc, issuer.not_valid_after_utc).timestamp() - now
    name = _subject_key_id(target)
    builder = _authority(target.subject, issuer.subject, public, now, life, path_length=0, key_id=name)
    builder = builder.add_extension(_authority_key_id(issuer), critical=False)
    return _pem(builder.sign(_load_key(old.key), hashes.SHA256()))


def _authority_key_id(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier(_subject_key_id(issuer), None, None)


def _subject_key_id(certificate: x509.Certificate) -> bytes:
    """As the certificate says, or made from its key as RFC 5280 (4.2.1.2) recommends."""
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        public = certificate.public_key()
        if not isinstance(public, ec.EllipticCurvePublicKey):
            raise Invalid("the CA's key is not an ECDSA key: only those are supported") from None
        return x509.SubjectKeyIdentifier.from_public_key(public).digest


def _vouches(root: x509.Certificate) -> bool:
    """Whether a root may sign another CA's certificate."""
    length = root.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
    return length is None or length > 0


def key_id(root: bytes | str) -> str:
    """The name (hexadecimal) under which certificates refer to the key of a root that signed them."""
    return _key_id_of(root if isinstance(root, str) else root.decode())


@lru_cache(16)
def _key_id_of(root: str) -> str:
    return _subject_key_id(load_certificates(root)[0]).hex()


def issuer_id(certificate: bytes | str, trust: bytes | str) -> str:
    """The `key_id` of the CA that signed a certificate (PEM): as it says itself, or that of the trusted root which
    did; "" where neither is known."""
    leaf = load_certificates(certificate)[0]
    with contextlib.suppress(x509.ExtensionNotFound):
        said = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
        if said is not None:
            return said.hex()
    signers = (root for root in load_certificates(trust) if _signed_by(leaf, root))
    return next((_subject_key_id(root).hex() for root in signers), "")


@lru_cache(256)
def trusts(bundle: str, root: str) -> bool:
    """Whether a root (PEM) is one of those in a bundle."""
    if not bundle:
        return False
    return load_certificates(root)[0] in load_certificates(bundle)


def root_digest(root: bytes | str) -> str:
    """`sha256:` and the digest (hexadecimal) of a root, as docker shows it."""
    return f"sha256:{load_certificates(root)[0].fingerprint(hashes.SHA256()).hex()}"


def check_root(root: KeyPair, now: float) -> None:
    """Whether a CA that a user brought can serve. Raises Invalid with the reason."""
    check_root_certificate(root.cert, now)
    if load_certificates(root.cert)[0].public_key() != _load_key(root.key).public_key():
        raise Invalid("the CA's certificate and key do not belong together")


def check_root_certificate(root: bytes | str, now: float) -> None:
    """Whether the certificate of a CA can be the root that nodes trust. Raises Invalid with the reason."""
    certificates = load_certificates(root)
    if len(certificates) > 1:
        raise Invalid("the file has several certificates: name the root alone")
    certificate = certificates[0]
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        constraints = None
    if constraints is None or not constraints.ca:
        raise Invalid("the certificate is not a CA's: it lacks basicConstraints CA:TRUE")
    if not isinstance(certificate.public_key(), ec.EllipticCurvePublicKey):
        raise Invalid("the CA's key is not an ECDSA key: only those are supported")
    if certificate.not_valid_after_utc <= _time(now):
        raise Invalid(f"the CA's certificate ended on {certificate.not_valid_after_utc:%Y-%m-%d}")


# --------------------------------------------------------------------------------- requests and signing


def create_request(key: bytes, common_name: str = "") -> bytes:
    """A certificate request (PEM) for the key. The signer decides on the subject, whatever is asked for."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_subject(common_name or "new-node"))
    return builder.sign(_load_key(key), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def check_request(pem: bytes) -> ec.EllipticCurvePublicKey:
    """The public key of a request that proves possession of the private one. Raises Invalid."""
    try:
        request = x509.load_pem_x509_csr(pem)
    except ValueError as error:
        raise Invalid(f"not a certificate request in PEM form: {error}") from None
    public = request.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        raise Invalid("the certificate request's key must be ECDSA P-256")
    if not request.is_signature_valid:
        raise Invalid("the certificate request's signature does not fit its key")
    return public


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a certificate is for."""

    node_id: str
    role: Role
    cluster_id: str
    addresses: tuple[str, ...] = ()
    """IP addresses or DNS names at which a manager is reached, besides the loopback addresses."""


def sign(
    root: KeyPair, request: bytes, subject: Subject, now: float, life: float = NODE_LIFE, chain: bytes = b""
) -> bytes:
    """A certificate (PEM) for the request, valid from an hour ago until `now + life` (at least an hour,
    and never longer than the CA). `chain` (a cross-signed root) is put after it."""
    public = check_request(request)
    issuer = load_certificates(root.cert)[0]
    end = min(_time(now + max(life, MIN_NODE_LIFE)), issuer.not_valid_after_utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_subject(subject.node_id, _UNITS[subject.role], subject.cluster_id))
        .issuer_name(issuer.subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_time(now - BACKDATE))
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_END_USAGE, critical=True)
        .add_extension(_purposes(subject.role), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(_authority_key_id(issuer), critical=False)
    )
    if names := _names(subject):
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return _pem(builder.sign(_load_key(root.key), hashes.SHA256())) + chain


_END_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=True,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


def _purposes(role: Role) -> x509.ExtendedKeyUsage:
    client, server = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
    return x509.ExtendedKeyUsage([client] if role == "client" else [server, client])


def _names(subject: Subject) -> list[x509.GeneralName]:
    """A manager's names and addresses; the others are clients that nobody looks up by name."""
    if subject.role == "client":
        return []
    if subject.role == "worker":
        return [x509.DNSName(WORKER_NAME), x509.DNSName(subject.node_id)]
    names: list[x509.GeneralName] = [
        x509.DNSName(name) for name in (MANAGER_NAME, ETCD_NAME, subject.node_id, "localhost")
    ]
    for address in dict.fromkeys(("127.0.0.1", "::1", *subject.addresses)):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(address)))
        except ValueError:
            names.append(x509.DNSName(address))
    return names


def names_of(subject: Subject) -> list[str]:
    """The DNS names and IP addresses that the subject's certificate carries, as text."""
    return [str(name.value) for name in _names(subject)]


def names_in(certificate: bytes | str) -> list[str]:
    """The DNS names and IP addresses in a certificate (PEM), as text."""
    leaf = load_certificates(certificate)[0]
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in found]


def is_for(certificate: bytes, request: bytes) -> bool:
    """Whether a certificate (PEM) is for the key of a request (PEM)."""
    return load_certificates(certificate)[0].public_key() == check_request(request)


def root_request(root: KeyPair) -> bytes:
    """A request (PEM) for a certificate of a root's own key under its own name: for another CA to vouch for it."""
    subject = load_certificates(root.cert)[0].subject
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(_load_key(root.key), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def check_cross_signed(certificate: bytes, root: bytes | str, request: bytes) -> None:
    """That a certificate (PEM) is a CA's for the key of the request, and signed by the root. Raises
    PermissionDenied."""
    crossed, issuer = load_certificates(certificate)[0], load_certificates(root)[0]
    if not is_for(certificate, request) or not _signed_by(crossed, issuer):
        raise PermissionDenied("it did not certify the new root under the present one")
    check_root_certificate(_pem(crossed), crossed.not_valid_before_utc.timestamp())


def issue(
    root: KeyPair, subject: Subject, now: float, life: float = NODE_LIFE, chain: bytes = b""
) -> KeyPair:
    """A fresh key and its certificate, for a node that is the CA itself and for command line contexts."""
    key = new_key()
    return KeyPair(sign(root, create_request(key, subject.node_id), subject, now, life, chain), key)


def revocation_list(signer: KeyPair, serials: Iterable[str], now: float, life: float = NODE_LIFE) -> bytes:
    """A certificate revocation list (PEM) of serial numbers (hexadecimal)."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(load_certificates(signer.cert)[0].subject)
        .last_update(_time(now - BACKDATE))
        .next_update(_time(now + life))
    )
    for serial in sorted(set(serials)):
        entry = x509.RevokedCertificateBuilder().serial_number(int(serial, 16)).revocation_date(_time(now))
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(_load_key(signer.key), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


# ------------------------------------------------------------------------------------------ identities


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the owner of a certificate is."""

    node_id: str
    role: Role
    cluster_id: str
    serial: str = ""
    """Hexadecimal."""
    not_before: float = 0.0
    not_after: float = 0.0


def identity(certificate: bytes | str | x509.Certificate) -> Identity:
    """Read a certificate (PEM or parsed). Its trust is not checked: TLS, or `verify`, has done that.
    Raises PermissionDenied if it is not one of ours."""
    if not isinstance(certificate, x509.Certificate):
        certificate = load_certificates(certificate)[0]
    node = _attribute(certificate, NameOID.COMMON_NAME)
    role = _ROLES.get(_attribute(certificate, NameOID.ORGANIZATIONAL_UNIT_NAME))
    if not node or role is None:
        name = certificate.subject.rfc4514_string()
        raise PermissionDenied(f"the certificate of {name!r} is not a swarm node's or client's")
    return Identity(
        node,
        role,
        _attribute(certificate, NameOID.ORGANIZATION_NAME),
        f"{certificate.serial_number:x}",
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
    )


def _attribute(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> str:
    found = certificate.subject.get_attributes_for_oid(oid)
    return str(found[0].value) if found else ""


def peer_identity(auth_context: Mapping[str, Iterable[bytes]]) -> Identity | None:
    """The identity behind a gRPC call, from `context.auth_context()`; None without a client certificate."""
    pem = next(iter(auth_context.get("x509_pem_cert", ())), None)
    return identity(pem) if pem else None


def verify(certificate: bytes, trust: bytes | str, now: float) -> Identity:
    """Check a certificate (PEM, perhaps with intermediates after it) against the trusted roots and the
    time. Returns whose it is; raises PermissionDenied with the reason."""
    leaf, *intermediates = load_certificates(certificate)
    roots = load_certificates(trust)
    moment = _time(now)
    if not leaf.not_valid_before_utc <= moment <= leaf.not_valid_after_utc:
        raise PermissionDenied(
            f"the certificate is valid from {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} to "
            f"{leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC, and now it is {moment:%Y-%m-%d %H:%M}"
        )
    trusted = [*roots, *(i for i in intermediates if any(_signed_by(i, root) for root in roots))]
    if not any(_signed_by(leaf, authority) for authority in trusted):
        raise PermissionDenied("the certificate was not signed by this cluster's CA")
    return identity(leaf)


def _signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        if not issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError, x509.ExtensionNotFound):
        return False
    return True


def renewal_time(who: Identity, chance: float) -> float:
    """When to renew: `chance` (0 to 1) of the way from 50 to 80% of the certificate's life."""
    part = RENEW_FROM + (RENEW_TO - RENEW_FROM) * chance
    return who.not_before + (who.not_after - who.not_before) * part


# ----------------------------------------------------------------------------------------- join tokens


@dataclass(frozen=True, slots=True)
class JoinToken:
    """`SWMTKN-1-<digest>-<secret>`: the digest says which CA to trust, the secret lets the node in."""

    digest: str
    secret: str

    def __str__(self) -> str:
        return f"{_TOKEN_PREFIX}-{_TOKEN_VERSION}-{self.digest}-{self.secret}"


def new_token_secret() -> str:
    """128 bits of chance, in base 36."""
    return base36(secrets.randbits(128), _SECRET_LENGTH)


def ca_digest(trust: bytes | str) -> str:
    """What a token says of the CA: SHA-256 of the certificates (DER, in order), in base 36."""
    der = b"".join(c.public_bytes(serialization.Encoding.DER) for c in load_certificates(trust))
    return base36(int.from_bytes(hashlib.sha256(der).digest(), "big"), _DIGEST_LENGTH)


def join_token(trust: bytes | str, secret: str) -> str:
    """The token to show, for one of the secrets in `Cluster.root_ca.join_tokens`."""
    return str(JoinToken(ca_digest(trust), secret))


def parse_token(text: str) -> JoinToken:
    """Raises Invalid with what is wrong with it (and never repeats the secret)."""
    parts = text.strip().split("-")
    if parts[0] != _TOKEN_PREFIX or len(parts) != 4:
        raise Invalid("not a join token: it has the form SWMTKN-1-<digest>-<secret>; copy it whole")
    _, version, digest, secret = parts
    if version != _TOKEN_VERSION:
        raise Invalid(f"the join token is of version {version!r}: this pyswarm knows version 1 only")
    if len(digest) != _DIGEST_LENGTH or len(secret) != _SECRET_LENGTH:
        raise Invalid("the join token is cut short or damaged: copy it whole")
    if not re.fullmatch("[0-9a-z]*", digest + secret):
        raise Invalid("the join token has characters that no token has: copy it whole")
    return JoinToken(digest, secret)


def check_trust(token: JoinToken, trust: bytes | str) -> None:
    """That the CA which a manager presented is the token's. Raises PermissionDenied."""
    if not hmac.compare_digest(ca_digest(trust), token.digest):
        raise PermissionDenied(
            "the manager's CA is not the one that the join token names: wrong address, a token from before "
            "a CA rotation (get a new one with `pyswarm swarm join-token`), or someone in between"
        )


def same_secret(left: str, right: str) -> bool:
    """Compare in constant time; an empty secret matches nothing."""
    return bool(left) and hmac.compare_digest(left.encode(), right.encode())


def split(bundle: bytes | str) -> list[bytes]:
    """The certificates of a bundle, one PEM text each."""
    return [_pem(certificate) for certificate in load_certificates(bundle)]


def bundle(certificates: Sequence[bytes | str]) -> str:
    """Several PEM texts as one trust bundle, without repetition."""
    seen: dict[bytes, None] = {}
    for text in certificates:
        for certificate in load_certificates(text):
            seen[_pem(certificate)] = None
    return b"".join(seen).decode()
