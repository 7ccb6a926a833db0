"""`pyswarm login` and `pyswarm logout`."""

from __future__ import annotations

import base64
import json
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import click

from pyswarm.cli import credentials
from pyswarm.cli.app import warn
from pyswarm.cli.lazy import GoCommand
from pyswarm.errors import Invalid, PermissionDenied, Unavailable

TIMEOUT = 20.0
_LOCAL = ("localhost", "127.0.0.1", "[::1]")


@click.command(cls=GoCommand)
@click.argument("server", required=False, default="")
@click.option("-u", "--username", default="", help="Username.")
@click.option("-p", "--password", default="", help="Password or personal access token.")
@click.option("--password-stdin", is_flag=True, help="Take the password from stdin.")
def login(server: str, username: str, password: str, password_stdin: bool) -> None:
    """Authenticate to a registry (Docker Hub, unless SERVER is given)."""
    if password and password_stdin:
        raise Invalid("--password and --password-stdin are mutually exclusive")
    if password:
        warn("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
    if password_stdin:
        if not username:
            raise Invalid("Must provide --username with --password-stdin")
        password = sys.stdin.read().rstrip("\r\n")
    known = credentials.find(server)
    if not username and not password and known.username and known.password:
        username, password = known.username, known.password
        click.echo("Authenticating with existing credentials...")
    if not username:
        username = click.prompt("Username", default=known.username or None)
    if not password:
        password = click.prompt("Password", hide_input=True)
    check(server, username, password)
    if not credentials.store(server, credentials.Login(username=username, password=password)):
        warn(f"WARNING! Your credentials are stored unencrypted in '{credentials.config_path()}'.")
    click.echo("Login Succeeded")


@click.command(cls=GoCommand)
@click.argument("server", required=False, default="")
def logout(server: str) -> None:
    """Log out from a registry (Docker Hub, unless SERVER is given)."""
    name = credentials.key(server)
    if credentials.erase(server):
        click.echo(f"Removing login credentials for {name}")
    else:
        click.echo(f"Not logged in to {name}")


def check(server: str, username: str, password: str) -> None:
    """Ask the registry whether it knows the user. Raises PermissionDenied, Unavailable."""
    name = credentials.key(server)
    host = "registry-1.docker.io" if name == credentials.HUB else name
    schemes = ("https", "http") if host.rpartition(":")[0] in _LOCAL or host in _LOCAL else ("https",)
    basic = "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
    for index, scheme in enumerate(schemes):
        try:
            _check(f"{scheme}://{host}/v2/", basic)
        except (urllib.error.URLError, OSError) as error:
            if index == len(schemes) - 1:
                raise Unavailable(f"cannot reach the registry {host}: {error}") from None
        else:
            return


def _check(url: str, basic: str) -> None:
    status, headers, _ = _get(url, basic)
    if status == 200:
        return
    challenge = headers.get("WWW-Authenticate") or headers.get("Www-Authenticate") or ""
    if status == 401 and challenge.lower().startswith("bearer"):
        parts = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        query = urllib.parse.urlencode({"service": parts.get("service", ""), "client_id": "pyswarm"})
        status, _, body = _get(f"{parts.get('realm', '')}?{query}", basic)
        if status == 200:
            found: Any = json.loads(body or b"{}")
            if found.get("token") or found.get("access_token"):
                return
    if status in (401, 403):
        raise PermissionDenied("unauthorized: incorrect username or password")
    raise Unavailable(f"{url} answered with status {status}: is it a registry?")


def _get(url: str, basic: str) -> tuple[int, dict[str, str], bytes]:
    request = urllib.request.Request(url, headers={"Authorization": basic, "User-Agent": "pyswarm"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()
