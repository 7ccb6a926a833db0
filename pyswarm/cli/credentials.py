"""Registry credentials, kept where docker keeps them: its config.json and its credential helpers."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pyswarm.errors import Invalid, NotFound

HUB = "https://index.docker.io/v1/"
"""The key under which docker keeps Docker Hub's credentials."""
HUB_DOMAINS = ("docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com")
HELPER_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class Login:
    """A user of a registry: a password, or an identity token."""

    username: str = ""
    password: str = ""
    token: str = ""


def config_path() -> Path:
    """Docker's configuration file of this user."""
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"


def domain(image: str) -> str:
    """The registry of an image reference: `docker.io` when it names none."""
    first, separator, _ = image.partition("/")
    if separator and ("." in first or ":" in first or first == "localhost"):
        return first
    return "docker.io"


def key(server: str) -> str:
    """How docker's file names a registry that a person typed."""
    bare = server.removeprefix("https://").removeprefix("http://").rstrip("/")
    host = bare.partition("/")[0]
    return HUB if not host or host in HUB_DOMAINS else host


def _read() -> dict[str, Any]:
    path = config_path()
    try:
        found: Any = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Invalid(f"cannot read docker's configuration {path}: {error}") from None
    if not isinstance(found, dict):
        raise Invalid(f"cannot read docker's configuration {path}: it is not a JSON object")
    return cast("dict[str, Any]", found)


def _write(config: Mapping[str, Any]) -> None:
    path = config_path()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w") as file:
        json.dump(config, file, indent="\t")
    fresh.replace(path)


def _helper(config: Mapping[str, Any], server: str) -> str:
    helpers = cast("Mapping[str, str]", config.get("credHelpers") or {})
    return str(helpers.get(server) or config.get("credsStore") or "")


def _call(helper: str, verb: str, stdin: str) -> str:
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, verb], input=stdin, capture_output=True, text=True, timeout=HELPER_TIMEOUT, check=False
        )
    except FileNotFoundError:
        raise Invalid(f"{program}, which {config_path()} names, is not installed") from None
    except subprocess.TimeoutExpired:
        raise Invalid(f"{program} {verb} gave no answer within {HELPER_TIMEOUT:.0f} s") from None
    if done.returncode:
        text = (done.stdout or done.stderr).strip()
        if "not found" in text:
            raise NotFound(text)
        raise Invalid(f"{program} {verb} failed: {text}")
    return done.stdout


def find(server: str) -> Login:
    """The login for a registry; an empty one when there is none."""
    config, name = _read(), key(server)
    helper = _helper(config, name)
    if helper:
        try:
            answer = json.loads(_call(helper, "get", name))
        except NotFound:
            return Login()
        if answer.get("Username") == "<token>":
            return Login(token=answer.get("Secret", ""))
        return Login(username=answer.get("Username", ""), password=answer.get("Secret", ""))
    auths = cast("Mapping[str, Mapping[str, str]]", config.get("auths") or {})
    for each, entry in auths.items():
        if key(each) == name:
            return _decoded(entry)
    return Login()


def _decoded(entry: Mapping[str, str]) -> Login:
    token = entry.get("identitytoken") or ""
    if not entry.get("auth"):
        return Login(username=entry.get("username", ""), password=entry.get("password", ""), token=token)
    try:
        user, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
    except ValueError as error:
        raise Invalid(f"a login in {config_path()} is damaged: {error}") from None
    return Login(username=user, password=password.rstrip("\0"), token=token)


def store(server: str, login: Login) -> bool:
    """Keep a login; returns whether a helper keeps it (if not, the file has it unencrypted)."""
    config, name = _read(), key(server)
    helper = _helper(config, name)
    auths = dict(cast("Mapping[str, Any]", config.get("auths") or {}))
    if helper:
        secret = {
            "ServerURL": name,
            "Username": login.username or "<token>",
            "Secret": login.token or login.password,
        }
        _call(helper, "store", json.dumps(secret))
        auths[name] = {}
    else:
        auths[name] = {"auth": base64.b64encode(f"{login.username}:{login.password}".encode()).decode()}
    _write({**config, "auths": auths})
    return bool(helper)


def erase(server: str) -> bool:
    """Forget a login; returns whether there was one."""
    config, name = _read(), key(server)
    auths = dict(cast("Mapping[str, Any]", config.get("auths") or {}))
    known = [each for each in auths if key(each) == name]
    if not known:
        return False
    helper = _helper(config, name)
    if helper:
        _call(helper, "erase", name)
    for each in known:
        del auths[each]
    _write({**config, "auths": auths})
    return True


def registry_auth(image: str) -> str:
    """The value of X-Registry-Auth for an image's registry; "" when there is no login for it."""
    server = key(domain(image))
    login = find(server)
    if login == Login():
        return ""
    body = {"username": login.username, "password": login.password, "serveraddress": server}
    if login.token:
        body["identitytoken"] = login.token
    return base64.urlsafe_b64encode(json.dumps(body).encode()).decode()
