"""Certificates from a CA outside of the cluster, by the protocol that SwarmKit speaks: cfssl's `sign` endpoint.

The manager posts the node's request with the subject that the certificate is to have; the CA's key is nowhere in
the cluster. What comes back is believed only as far as it can be checked: it must be for that key and that
subject, and signed by the root that nodes trust. A CA is called over TLS, with this manager's certificate, and
must show one that the same root has signed.
"""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from pyswarm import pki
from pyswarm.errors import Invalid, PermissionDenied, PyswarmError, Unavailable
from pyswarm.specs import ExternalCA

TIMEOUT = 5.0
"""Seconds that a CA has for its answer (SwarmKit's)."""
MAX_ANSWER = 1024 * 1024
CROSS_SIGN_PROFILE = "CA"
"""The profile under which a CA certifies another root, during a rotation."""
_UNITS: Mapping[pki.Role, str] = {
    "manager": "swarm-manager",
    "worker": "swarm-worker",
    "client": "swarm-client",
}


class Outside(Protocol):
    """Who signs when the cluster has not got the root's key. Blocks until the answer is there."""

    def sign(
        self, cas: Sequence[ExternalCA], root: str, csr: str, subject: pki.Subject, now: float
    ) -> bytes: ...

    def cross_sign(self, cas: Sequence[ExternalCA], root: str, csr: str, now: float) -> bytes: ...


class Cfssl:
    """CAs that speak cfssl's protocol."""

    def __init__(self, certs: Path | None = None) -> None:
        """`certs` holds this manager's `node.pem` and `node.key`, by which the CA knows it; None calls without,
        as the first manager has to for its own certificate."""
        self._certs = certs

    def sign(self, cas: Sequence[ExternalCA], root: str, csr: str, subject: pki.Subject, now: float) -> bytes:
        """A certificate (PEM) of `root` for the request. Raises Unavailable when no CA gives one."""
        body = {
            "hosts": pki.names_of(subject),
            "certificate_request": csr,
            "subject": {
                "CN": subject.node_id,
                "names": [{"OU": _UNITS[subject.role], "O": subject.cluster_id}],
            },
            "profile": "",
            "crl_override": "",
            "label": "",
        }
        return self._asked(cas, root, body, lambda cert: _check(cert, root, csr, subject, now))

    def cross_sign(self, cas: Sequence[ExternalCA], root: str, csr: str, now: float) -> bytes:
        """Another root's key (the request's), certified by `root` (PEM)."""
        body = {"certificate_request": csr, "profile": CROSS_SIGN_PROFILE, "hosts": [], "label": ""}
        return self._asked(cas, root, body, lambda cert: pki.check_cross_signed(cert, root, csr.encode()))

    def _asked(
        self, cas: Sequence[ExternalCA], root: str, body: object, check: Callable[[bytes], None]
    ) -> bytes:
        """The answer of the first CA of that root that gives a good one."""
        mine = [ca for ca in cas if pki.key_id(ca.ca_cert or root) == pki.key_id(root)]
        reasons: list[str] = []
        for ca in mine:
            try:
                cert = self._post(ca.url, root, body)
                check(cert)
            except PyswarmError as error:
                reasons.append(f"{ca.url}: {error}")
            else:
                return cert
        why = "; ".join(reasons) or "none is named for this root (`pyswarm swarm update --external-ca`)"
        raise Unavailable(f"no external CA gave a certificate: {why}")

    def _post(self, url: str, root: str, body: object) -> bytes:
        request = urllib.request.Request(
            url, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
        )
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self._tls(root))
        )
        try:
            with opener.open(request, timeout=TIMEOUT) as answer:
                raw = answer.read(MAX_ANSWER + 1)
        except urllib.error.HTTPError as error:
            with error:
                raise Unavailable(_reason(error.read(MAX_ANSWER)) or f"it answered {error.code}") from None
        except (OSError, ValueError) as error:
            raise Unavailable(f"it cannot be reached: {getattr(error, 'reason', error)}") from None
        return _certificate(raw)

    def _tls(self, root: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=root)
        if self._certs is not None:
            try:
                context.load_cert_chain(self._certs / "node.pem", self._certs / "node.key")
            except OSError as error:
                raise Unavailable(f"this node's own certificate cannot be read: {error}") from None
        return context


def parse(text: str) -> ExternalCA:
    """`protocol=cfssl,url=https://host:port/api/v1/cfssl/sign[,cacert=FILE]`, as docker has it. Raises Invalid."""
    given: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals or key.strip().lower() not in ("protocol", "url", "cacert"):
            raise Invalid(f"--external-ca: {part!r} is none of protocol=cfssl, url=https://..., cacert=FILE")
        given[key.strip().lower()] = value.strip()
    if given.get("protocol", "") != "cfssl":
        raise Invalid(f"--external-ca {text}: say protocol=cfssl, the only one that there is")
    if not given.get("url", "").startswith("https://"):
        raise Invalid(f"--external-ca {text}: url= must begin with https://")
    cert = ""
    if file := given.get("cacert"):
        try:
            cert = Path(file).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise Invalid(f"--external-ca: cannot read cacert {file}: {error}") from None
        pki.load_certificates(cert)
    return ExternalCA(url=given["url"], ca_cert=cert)


def _certificate(raw: bytes) -> bytes:
    if len(raw) > MAX_ANSWER:
        raise Unavailable("its answer is too long")
    try:
        answer = json.loads(raw)
        if answer["success"]:
            return str(answer["result"]["certificate"]).encode()
    except (ValueError, KeyError, TypeError):
        raise Unavailable(f"its answer is not cfssl's: {raw[:200]!r}") from None
    raise Unavailable(_reason(raw) or "it refused, and did not say why")


def _reason(raw: bytes) -> str:
    """What a cfssl server says of its errors; "" when it says nothing that can be read."""
    try:
        return "; ".join(str(error["message"]) for error in json.loads(raw)["errors"])[:1000]
    except (ValueError, KeyError, TypeError):
        return ""


def _check(cert: bytes, root: str, csr: str, subject: pki.Subject, now: float) -> None:
    """That the answer is what was asked for. Raises PermissionDenied."""
    who = pki.verify(cert, root, now)
    if (who.node_id, who.role, who.cluster_id) != (subject.node_id, subject.role, subject.cluster_id):
        raise PermissionDenied(
            f"it gave a certificate for {who.node_id} as {who.role}, not for {subject.node_id} as {subject.role}"
        )
    if not pki.is_for(cert, csr.encode()):
        raise PermissionDenied("it gave a certificate for another key")
    missing = set(pki.names_of(subject)) - set(pki.names_in(cert))
    if missing:
        raise PermissionDenied(f"its certificate lacks the names {', '.join(sorted(missing))}")
