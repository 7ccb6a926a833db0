"""The registry client against a small registry of our own: tokens, logins, digests, the registry's words."""

from __future__ import annotations

import base64
import json
import threading
import urllib.parse
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from node_agent.images.auth import Credentials
from node_agent.images.reference import Reference, parse
from node_agent.images.registry import Registry
from pyswarm.errors import Invalid, NotFound, PermissionDenied, Unavailable

DIGEST = "sha256:" + "cd" * 32
ALICE = Credentials("alice", "wonderland")
BASIC = "Basic " + base64.b64encode(b"alice:wonderland").decode()


class Handler(BaseHTTPRequestHandler):
    """`mode` says how it wants to be spoken to; `asked` is what it was asked."""

    mode = "open"
    asked: list[str] = []

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        if self.path.startswith("/token"):
            self._token(urllib.parse.urlsplit(self.path).query)
        else:
            self._serve()

    def do_POST(self) -> None:
        self._token(self.rfile.read(int(self.headers["Content-Length"])).decode())

    def _token(self, query: str) -> None:
        self.asked.append(query)
        fields = urllib.parse.parse_qs(query)
        known = self.headers.get("Authorization") == BASIC or fields.get("refresh_token") == ["ident"]
        if self.mode == "private" and not known:
            self._answer(401, json.dumps({"errors": [{"message": "who are you?"}]}))
        elif self.mode == "odd-token":
            self._answer(200, json.dumps({"access_token": "T"}))
        else:
            self._answer(200, json.dumps({"token": "T"}))

    def _serve(self) -> None:
        host = f"http://{self.headers['Host']}"
        given = self.headers.get("Authorization", "")
        if self.mode == "basic" and given != BASIC:
            self._answer(401, "{}", {"WWW-Authenticate": 'Basic realm="x"'})
        elif self.mode in ("token", "private", "odd-token") and given not in ("Bearer T", "Bearer direct"):
            challenge = f'Bearer realm="{host}/token",service="reg",scope="repository:team/app:pull"'
            self._answer(401, "{}", {"WWW-Authenticate": challenge})
        elif self.mode == "bad-realm":
            self._answer(401, "{}", {"WWW-Authenticate": 'Bearer realm="file:///etc/passwd"'})
        elif self.mode == "busy":
            self._answer(429, json.dumps({"errors": [{"message": "pull rate limit"}]}))
        elif self.mode == "teapot":
            self._answer(418, "short and stout")
        elif self.path.endswith("/none"):
            self._answer(404, "{}")
        elif self.mode == "no-digest":
            self._answer(200, "{}")
        else:
            self._answer(200, "{}", {"Docker-Content-Digest": DIGEST})

    def _answer(self, code: int, body: str, headers: dict[str, str] | None = None) -> None:
        data = body.encode()
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@pytest.fixture
def host() -> Generator[str]:
    Handler.mode, Handler.asked = "open", []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def app(host: str, tag: str = "1") -> Reference:
    return parse(f"{host}/team/app:{tag}")


@pytest.mark.parametrize(
    ("mode", "credentials"),
    [
        ("open", Credentials()),
        ("basic", ALICE),
        ("token", Credentials()),
        ("odd-token", Credentials()),
        ("private", ALICE),
        ("private", Credentials(identity_token="ident")),
        ("private", Credentials(registry_token="direct")),
    ],
)
def test_a_digest(host: str, mode: str, credentials: Credentials) -> None:
    Handler.mode = mode
    assert Registry(host, credentials).digest(app(host)) == DIGEST
    for query in Handler.asked:
        assert urllib.parse.parse_qs(query)["scope"] == ["repository:team/app:pull"]
        assert urllib.parse.parse_qs(query)["service"] == ["reg"]


def test_a_given_digest_needs_no_registry() -> None:
    assert Registry("nowhere.invalid", Credentials()).digest(parse(f"a@{DIGEST}")) == DIGEST


@pytest.mark.parametrize(
    ("mode", "tag", "error", "words"),
    [
        ("open", "none", NotFound, "has no image team/app:none: manifest unknown"),
        ("basic", "1", PermissionDenied, "refused access"),
        ("private", "1", PermissionDenied, "who are you"),
        ("bad-realm", "1", Unavailable, "no usable token service"),
        ("busy", "1", Unavailable, "answered 429"),
        ("teapot", "1", Invalid, "answered 418"),
        ("no-digest", "1", Unavailable, "gave no digest"),
    ],
)
def test_refusals(host: str, mode: str, tag: str, error: type[Exception], words: str) -> None:
    Handler.mode = mode
    with pytest.raises(error, match=words):
        Registry(host, Credentials()).digest(app(host, tag))


def test_logins(host: str) -> None:
    Handler.mode = "private"
    Registry(host, ALICE).check_login()
    with pytest.raises(PermissionDenied, match=f"pyswarm login {host}"):
        Registry(host, Credentials("alice", "wrong")).check_login()


def test_an_unreachable_registry() -> None:
    with pytest.raises(Unavailable, match=r"cannot reach registry 127\.0\.0\.1:1"):
        Registry("127.0.0.1:1", Credentials(), timeout=1).check_login()
