"""A certificate authority for tests that speaks cfssl's `sign` endpoint over TLS, as a CA outside of the cluster."""

from __future__ import annotations

import json
import ssl
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from pyswarm import pki
from pyswarm.specs import ExternalCA

_ROLES: dict[str, pki.Role] = {
    "swarm-manager": "manager",
    "swarm-worker": "worker",
    "swarm-client": "client",
}


class CfsslServer:
    """Signs whatever it is asked to; `answer` makes another answer of it, `requests` are the bodies it got."""

    def __init__(self, root: pki.KeyPair | None = None, address: str = "127.0.0.1") -> None:
        self.root = root or pki.create_root(time.time(), "outside")
        self.requests: list[dict[str, Any]] = []
        self.callers: list[str] = []
        """Common names in the certificates of the callers; "" without one."""
        self.answer = self._signed
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append(body)
                peer: Any = self.connection
                subject = dict(pair[0] for pair in (peer.getpeercert() or {}).get("subject", ()))
                outer.callers.append(subject.get("commonName", ""))
                code, text = outer.answer(body)
                self.send_response(code)
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: object) -> None:
                del format, args

        self._server = ThreadingHTTPServer((address, 0), Handler)
        self._server.socket = self._context(address).wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"https://{address}:{self._server.server_address[1]}/api/v1/cfssl/sign"

    def _context(self, address: str) -> ssl.SSLContext:
        pair = pki.issue(self.root, pki.Subject("ca", "manager", "outside", (address,)), time.time())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as directory:
            (Path(directory) / "pair").write_bytes(pair.cert + pair.key)
            context.load_cert_chain(Path(directory) / "pair")
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=self.root.cert.decode())
        return context

    @property
    def spec(self) -> ExternalCA:
        return ExternalCA(url=self.url, ca_cert=self.root.cert.decode())

    def _signed(self, body: dict[str, Any]) -> tuple[int, bytes]:
        return 200, success(self.sign(body))

    def sign(self, body: dict[str, Any]) -> bytes:
        """What a good CA gives."""
        csr = body["certificate_request"].encode()
        if body["profile"] == "CA":
            return self._vouched(csr)
        subject = body["subject"]
        names = subject["names"][0]
        role = _ROLES[names["OU"]]
        addresses = tuple(body["hosts"]) if role == "manager" else ()
        return pki.sign(self.root, csr, pki.Subject(subject["CN"], role, names["O"], addresses), time.time())

    def _vouched(self, csr: bytes) -> bytes:
        """Another root's key, certified."""
        request, issuer = x509.load_pem_x509_csr(csr), pki.load_certificates(self.root.cert)[0]
        key = load_pem_private_key(self.root.key, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        name = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        crossed = (
            x509.CertificateBuilder()
            .subject_name(request.subject)
            .issuer_name(issuer.subject)
            .public_key(request.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(issuer.not_valid_before_utc)
            .not_valid_after(issuer.not_valid_after_utc)
            .add_extension(x509.BasicConstraints(True, None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(request.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(name), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        return crossed.public_bytes(Encoding.PEM)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def success(cert: bytes) -> bytes:
    return json.dumps(
        {"success": True, "result": {"certificate": cert.decode()}, "errors": [], "messages": []}
    ).encode()


def failure(message: str) -> bytes:
    error = {"code": 5100, "message": message}
    return json.dumps({"success": False, "result": None, "errors": [error], "messages": []}).encode()
