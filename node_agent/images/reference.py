"""Image references as Docker reads them: `nginx` is `docker.io/library/nginx:latest`. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from pyswarm.errors import Invalid

_PATH = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z|sha512:[0-9a-f]{128}\Z")
_DOMAIN = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]+)?\Z")
_ID = re.compile(r"(?:sha256:)?([0-9a-f]{12,64})\Z")


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference taken apart. `tag` is "" when only a digest was given, else `latest` by default."""

    domain: str
    path: str
    tag: str
    digest: str
    explicit_domain: bool
    """False where `docker.io` was filled in: such a name may be a locally built image's."""

    @property
    def repository(self) -> str:
        return f"{self.domain}/{self.path}"

    @property
    def registry_host(self) -> str:
        """Host (and port) that serves the registry API."""
        return "registry-1.docker.io" if self.domain == "docker.io" else self.domain

    @property
    def pull_name(self) -> str:
        """What a registry is asked for: by digest alone where there is one."""
        return f"{self.repository}@{self.digest}" if self.digest else f"{self.repository}:{self.tag}"

    @property
    def local_names(self) -> Sequence[str]:
        """Names under which the store may hold it, the likeliest first."""
        tag = self.tag or "latest"
        if self.explicit_domain:
            return (f"{self.repository}:{tag}",)
        built = self.path.removeprefix("library/")
        return (f"localhost/{built}:{tag}", f"{self.repository}:{tag}")


def parse(text: str) -> Reference:
    """Take a reference apart; Invalid in the words of the docker command when it is not one."""
    name, _, digest = text.partition("@")
    if digest and not _DIGEST.match(digest):
        raise Invalid(
            f"invalid reference format: {text!r} has a malformed digest (want @sha256:<64 hex digits>)"
        )
    head, slash, rest = name.partition("/")
    explicit = bool(slash) and ("." in head or ":" in head or head == "localhost" or head != head.lower())
    domain, remainder = (head, rest) if explicit else ("docker.io", name)
    if domain in ("index.docker.io", "registry-1.docker.io"):
        domain = "docker.io"
    path, colon, tag = remainder.partition(":")
    if colon and not _TAG.match(tag):
        raise Invalid(f"invalid reference format: {text!r} has a malformed tag")
    if not _DOMAIN.match(domain):
        raise Invalid(f"invalid reference format: {text!r} has a malformed registry name")
    if not _PATH.match(path):
        hint = ": repository name must be lowercase" if path != path.lower() else ""
        raise Invalid(f"invalid reference format{hint}: {text!r}")
    if domain == "docker.io" and "/" not in path:
        path = f"library/{path}"
    return Reference(domain, path, tag or ("" if digest else "latest"), digest, explicit)


def image_id(text: str) -> str:
    """The hexadecimal id, or its beginning, if `text` can be one; else ""."""
    match = _ID.match(text)
    return match.group(1) if match else ""


def familiar(name: str) -> str:
    """A stored name as docker shows it: without `docker.io/library/` or `localhost/`."""
    for prefix in ("docker.io/library/", "docker.io/", "localhost/"):
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def _host_of(domain: str) -> str:
    if domain.startswith("["):
        return domain[1 : domain.index("]")]
    return domain.rsplit(":", 1)[0] if ":" in domain else domain


def insecure(domain: str, allowed: Sequence[str]) -> bool:
    """Whether the registry may be spoken to without verified TLS: loopback addresses (as Docker has it),
    and the hosts, host:ports and networks (CIDR) in `allowed`."""
    host = _host_of(domain)
    if domain in allowed or host in allowed or host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    networks = [ipaddress.ip_network(entry, strict=False) for entry in allowed if "/" in entry]
    return address.is_loopback or any(address in network for network in networks)
