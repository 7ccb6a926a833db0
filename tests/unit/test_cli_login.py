"""`login` against registries that ask for a password, or for a token from elsewhere."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pyswarm.cli import credentials
from tests.unit.cli_manager import Program

GOOD = "Basic " + base64.b64encode(b"me:right").decode()


class Registry(BaseHTTPRequestHandler):
    """/v2/ wants the password itself; with `bearer`, a token that /token gives for it."""

    bearer = False

    def log_message(self, format: str, *args: Any) -> None:
        del format, args

    def do_GET(self) -> None:
        known = self.headers.get("Authorization") == GOOD
        if self.path.startswith("/token"):
            return self._answer(200 if known else 401, {"token": "t"} if known else {})
        if self.bearer:
            realm = f"http://{self.headers['Host']}/token"
            return self._answer(401, {}, f'Bearer realm="{realm}",service="reg"')
        return self._answer(200 if known else 401, {}, 'Basic realm="reg"')

    def _answer(self, status: int, body: object, challenge: str = "") -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        if challenge:
            self.send_header("WWW-Authenticate", challenge)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture(params=[False, True], ids=["basic", "bearer"])
def registry(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("no_proxy", "*")
    handler = type("Handler", (Registry,), {"bearer": request.param})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def pyswarm(*arguments: str, input: str = "") -> Result:
    return CliRunner().invoke(Program("pyswarm"), list(arguments), input=input)


def test_login_and_logout(registry: str) -> None:
    result = pyswarm("login", "-u", "me", "--password-stdin", registry, input="right\n")
    assert (result.exit_code, result.stdout) == (0, "Login Succeeded\n"), result.stderr
    assert "stored unencrypted" in result.stderr
    assert credentials.find(registry) == credentials.Login(username="me", password="right")
    again = pyswarm("login", registry)
    assert again.stdout == "Authenticating with existing credentials...\nLogin Succeeded\n"
    assert pyswarm("logout", registry).stdout == f"Removing login credentials for {registry}\n"
    assert pyswarm("logout", registry).stdout == f"Not logged in to {registry}\n"


def test_a_wrong_password_is_not_kept(registry: str) -> None:
    result = pyswarm("login", "-u", "me", "-p", "wrong", registry)
    assert result.exit_code == 1
    assert "unauthorized: incorrect username or password" in result.stderr
    assert credentials.find(registry) == credentials.Login()


def test_no_registry_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    result = pyswarm("login", "-u", "me", "-p", "x", "127.0.0.1:1")
    assert result.exit_code == 1
    assert "cannot reach the registry 127.0.0.1:1" in result.stderr
    assert "mutually exclusive" in pyswarm("login", "-u", "a", "-p", "b", "--password-stdin", "x").stderr
    assert "Must provide --username" in pyswarm("login", "--password-stdin", "x").stderr
