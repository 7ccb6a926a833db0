"""The little of the registry API (OCI distribution specification) that buildah has no command for:
which digest a tag has, and whether a login is accepted. Blocking; callers run it in a thread."""

from __future__ import annotations

import base64
import json
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from functools import cached_property
from http.client import HTTPException
from typing import Any, cast

from node_agent.images.auth import Credentials
from node_agent.images.reference import Reference, insecure
from pyswarm.errors import Invalid, NotFound, PermissionDenied, Unavailable

MANIFEST_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_PARAMETER = re.compile(r'(\w+)="?([^",]*)"?')


class Registry:
    """One registry host."""

    def __init__(
        self,
        host: str,
        credentials: Credentials,
        *,
        insecure_registries: Sequence[str] = (),
        timeout: float = 10.0,
    ) -> None:
        self._host = host
        self._credentials = credentials
        self._timeout = timeout
        self._insecure = insecure(host, insecure_registries)

    @cached_property
    def _opener(self) -> urllib.request.OpenerDirector:
        """Made in the thread that asks, since reading the machine's CAs takes a while. Proxies of the
        environment are used, though not to reach this machine itself."""
        context = ssl.create_default_context()
        if self._insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        proxies = [urllib.request.ProxyHandler({})] if insecure(self._host, ()) else []
        return urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), *proxies)

    def digest(self, reference: Reference) -> str:
        """The digest of the manifest (or index) that the reference names. NotFound when the registry has
        no such image, PermissionDenied when it wants a login, Unavailable when it cannot be reached."""
        if reference.digest:
            return reference.digest
        path = f"/v2/{reference.path}/manifests/{reference.tag}"
        scope = f"repository:{reference.path}:pull"
        headers = self._ask("HEAD", path, scope, {"Accept": ", ".join(MANIFEST_TYPES)})
        digest = headers.get("docker-content-digest", "")
        if not digest.startswith("sha"):
            raise Unavailable(f"registry {self._host} gave no digest for {reference.pull_name}")
        return digest

    def check_login(self) -> None:
        """PermissionDenied unless the registry accepts the credentials."""
        self._ask("GET", "/v2/", "", {})

    def _bases(self) -> Sequence[str]:
        return ("https", "http") if self._insecure else ("https",)

    def _ask(self, method: str, path: str, scope: str, headers: Mapping[str, str]) -> Mapping[str, str]:
        problem: Exception | None = None
        for scheme in self._bases():
            try:
                return self._authorized(method, f"{scheme}://{self._host}{path}", scope, headers)
            except (urllib.error.URLError, HTTPException, OSError) as error:
                if isinstance(error, urllib.error.HTTPError):
                    raise self._explain(error, path) from error
                problem = error
        reason = getattr(problem, "reason", problem)
        raise Unavailable(f"cannot reach registry {self._host}: {reason}")

    def _authorized(self, method: str, url: str, scope: str, headers: Mapping[str, str]) -> Mapping[str, str]:
        try:
            return self._open(method, url, headers)[0]
        except urllib.error.HTTPError as error:
            challenge = error.headers.get("WWW-Authenticate", "")
            if error.code != 401 or not challenge:
                raise
        return self._open(method, url, {**headers, "Authorization": self._answer(challenge, scope)})[0]

    def _open(self, method: str, url: str, headers: Mapping[str, str]) -> tuple[Mapping[str, str], bytes]:
        request = urllib.request.Request(url, method=method, headers=dict(headers))
        with self._opener.open(request, timeout=self._timeout) as response:
            return {key.lower(): value for key, value in response.headers.items()}, response.read(1 << 20)

    def _basic(self) -> str:
        pair = f"{self._credentials.username}:{self._credentials.password}"
        return "Basic " + base64.b64encode(pair.encode()).decode()

    def _answer(self, challenge: str, scope: str) -> str:
        """The Authorization header for a WWW-Authenticate challenge (RFC 7235; Docker's token protocol)."""
        kind, _, rest = challenge.partition(" ")
        if kind.lower() == "basic":
            return self._basic()
        if self._credentials.registry_token:
            return f"Bearer {self._credentials.registry_token}"
        parameters = dict(_PARAMETER.findall(rest))
        return "Bearer " + self._token(parameters, scope)

    def _token(self, parameters: Mapping[str, str], scope: str) -> str:
        realm = parameters.get("realm", "")
        if not realm.startswith(("https://", "http://")):
            raise Unavailable(f"registry {self._host} sent no usable token service ({realm!r})")
        query = {"service": parameters.get("service", "")}
        if scope:
            query["scope"] = scope
        if self._credentials.identity_token:
            body = self._oauth(realm, query)
        else:
            headers = {"Authorization": self._basic()} if self._credentials.username else {}
            body = self._open("GET", f"{realm}?{urllib.parse.urlencode(query)}", headers)[1]
        answer = cast("Mapping[str, Any]", json.loads(body))
        return str(answer.get("token") or answer.get("access_token") or "")

    def _oauth(self, realm: str, query: Mapping[str, str]) -> bytes:
        form = {
            **query,
            "grant_type": "refresh_token",
            "refresh_token": self._credentials.identity_token,
            "client_id": "pyswarm",
        }
        request = urllib.request.Request(realm, data=urllib.parse.urlencode(form).encode())
        with self._opener.open(request, timeout=self._timeout) as response:
            return response.read(1 << 20)

    def _explain(self, error: urllib.error.HTTPError, path: str) -> Exception:
        said = _message(error)
        if error.code == 404:
            name = path.removeprefix("/v2/").replace("/manifests/", ":")
            return NotFound(f"registry {self._host} has no image {name}: manifest unknown")
        if error.code in (401, 403):
            return PermissionDenied(
                f"registry {self._host} refused access: {said} (`pyswarm login {self._host}`)"
            )
        if error.code == 429 or error.code >= 500:
            return Unavailable(f"registry {self._host} answered {error.code}: {said}")
        return Invalid(f"registry {self._host} answered {error.code}: {said}")


def _message(error: urllib.error.HTTPError) -> str:
    """The registry's own words: `errors[].message` of its JSON body, else the HTTP reason."""
    try:
        body = cast("Mapping[str, Any]", json.loads(error.read(1 << 16)))
        words = [str(entry.get("message") or entry.get("code")) for entry in body.get("errors", ())]
        return "; ".join(words) or str(error.reason)
    except (ValueError, AttributeError, OSError):
        return str(error.reason)
