"""Registry credentials: X-Registry-Auth headers, docker's config.json and short-lived auth files."""

from __future__ import annotations

import base64
import binascii
import json
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pyswarm.errors import Invalid

DOCKER_HUB_KEY = "https://index.docker.io/v1/"


@dataclass(frozen=True, slots=True)
class Credentials:
    """One registry's login: a password, an identity token or a bearer token."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""

    def __bool__(self) -> bool:
        return bool(self.username or self.identity_token or self.registry_token)


def decode_header(value: str) -> Credentials:
    """The credentials of an X-Registry-Auth header (base64url JSON, Engine API). "" gives none."""
    if not value:
        return Credentials()
    try:
        padded = value + "=" * (-len(value) % 4)
        data: Any = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, binascii.Error) as error:
        raise Invalid("registry_auth is not base64 JSON as in X-Registry-Auth") from error
    if not isinstance(data, dict):
        raise Invalid("registry_auth is not a JSON object as in X-Registry-Auth")
    return _from_entry(cast("Mapping[str, Any]", data))


def encode_header(credentials: Credentials, server: str = "") -> str:
    """The X-Registry-Auth header of these credentials."""
    data = {
        "username": credentials.username,
        "password": credentials.password,
        "identitytoken": credentials.identity_token,
        "registrytoken": credentials.registry_token,
        "serveraddress": server,
    }
    text = json.dumps({key: value for key, value in data.items() if value})
    return base64.urlsafe_b64encode(text.encode()).decode()


def _from_entry(entry: Mapping[str, Any]) -> Credentials:
    username, password = str(entry.get("username", "")), str(entry.get("password", ""))
    packed = entry.get("auth")
    if isinstance(packed, str) and packed and not username:
        try:
            username, _, password = base64.b64decode(packed).decode().rstrip("\0").partition(":")
        except (ValueError, binascii.Error) as error:
            raise Invalid("the `auth` field of registry credentials is not base64") from error
    return Credentials(
        username, password, str(entry.get("identitytoken", "")), str(entry.get("registrytoken", ""))
    )


def _entry(credentials: Credentials) -> dict[str, str]:
    packed = base64.b64encode(f"{credentials.username}:{credentials.password}".encode()).decode()
    entry = {"auth": packed}
    if credentials.identity_token:
        entry["identitytoken"] = credentials.identity_token
    if credentials.registry_token:
        entry["registrytoken"] = credentials.registry_token
    return entry


def config_key(domain: str) -> str:
    """Under which key docker's config.json keeps the login of a registry."""
    return DOCKER_HUB_KEY if domain in ("docker.io", "index.docker.io", "registry-1.docker.io") else domain


def _read_config(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return {}
    try:
        data: Any = json.loads(text or "{}")
    except ValueError as error:
        raise Invalid(f"{path} is not valid JSON: {error}") from error
    if not isinstance(data, dict):
        raise Invalid(f"{path} is not a JSON object")
    return cast("dict[str, Any]", data)


def from_docker_config(path: Path, domain: str) -> Credentials:
    """The login that docker's config.json holds for a registry; none if there is none. Entries are found
    with and without `https://`."""
    auths = cast("Mapping[str, Mapping[str, Any]]", _read_config(path).get("auths") or {})
    for key in (config_key(domain), domain, f"https://{domain}", f"https://{domain}/v1/"):
        if auths.get(key):
            return _from_entry(auths[key])
    return Credentials()


def save_docker_config(path: Path, domain: str, credentials: Credentials | None) -> bool:
    """Put a login into docker's config.json (0600), or take it out (None); the rest of the file is kept.
    Returns whether an entry was there before."""
    data = _read_config(path)
    auths: dict[str, Any] = dict(data.get("auths") or {})
    before = auths.pop(config_key(domain), None) is not None
    if credentials is not None:
        auths[config_key(domain)] = _entry(credentials)
    data["auths"] = auths
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=".config-")
    try:
        with open(fd, "w", encoding="utf-8") as file:
            json.dump(data, file, indent="\t")
        Path(name).replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(name).unlink()
        raise
    return before


@contextmanager
def auth_file(directory: Path, domain: str, credentials: Credentials) -> Generator[Path]:
    """An auth file for one command, in `directory` (a tmpfs), gone at the end of the block. Without
    credentials it holds none, so that the machine's own logins are not used by accident."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    entries = {domain: _entry(credentials)} if credentials else {}
    fd, name = tempfile.mkstemp(dir=directory, prefix="auth-", suffix=".json")
    try:
        with open(fd, "w", encoding="utf-8") as file:
            json.dump({"auths": entries}, file)
        yield Path(name)
    finally:
        with suppress(FileNotFoundError):
            Path(name).unlink()
