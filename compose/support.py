"""What becomes of each attribute in a stack: rules as a table, for warnings and for the documentation.

Every attribute runs as the specification says unless `SUPPORT` names it. A warned one is valid and does
nothing, or something else: the text says what pyswarm does instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from compose.tree import Node

Kind = Literal["differs", "warned"]


@dataclass(frozen=True, slots=True)
class Support:
    """How an attribute that does not simply run is treated."""

    kind: Kind
    text: str


def _differs(text: str) -> Support:
    return Support("differs", text)


def _warned(text: str) -> Support:
    return Support("warned", text)


SUPPORT: Mapping[str, Support] = {
    "services.*.attach": _differs("counts for `compose up`; a stack is not attached to"),
    "services.*.blkio_config.weight_device": _differs("applies on each node that has the device"),
    "services.*.build": _differs("built once with buildah where the deploy runs, then given to the nodes"),
    "services.*.build.cache_to": _warned("build caches are not exported"),
    "services.*.build.entitlements": _warned("builds run without extra entitlements"),
    "services.*.build.isolation": _warned("builds run with buildah's own isolation"),
    "services.*.build.no_cache_filter": _warned("stages cannot be left out of the cache: use no_cache"),
    "services.*.build.privileged": _warned("builds run without extra privileges"),
    "services.*.build.provenance": _warned("no provenance attestation is added"),
    "services.*.build.sbom": _warned("no SBOM attestation is added"),
    "services.*.container_name": _differs(
        "tasks are named service.slot.id; the name is a DNS alias of the service on its networks"
    ),
    "services.*.cpu_count": _warned("it is for Windows containers only: use cpus"),
    "services.*.cpu_percent": _warned("it is for Windows containers only: use cpus"),
    "services.*.credential_spec": _warned("it is for Windows containers only"),
    "services.*.depends_on": _differs(
        "the managers hold tasks back until the condition is met, also after a restart"
    ),
    "services.*.develop": _differs("counts for `compose watch`"),
    "services.*.expose": _differs("says nothing to the network: services of one network reach every port"),
    "services.*.external_links": _warned("containers outside the cluster are not linked: use extra_hosts"),
    "services.*.isolation": _warned("it is for Windows containers only"),
    "services.*.links": _differs("the alias is a DNS name of the linked service, for its whole network"),
    "services.*.models": _warned("language models are not served: give the endpoint in environment"),
    "services.*.provider": _warned("providers are run by `compose up` alone: a stack leaves the service out"),
    "services.*.pull_refresh_after": _warned('write "pull_policy: every_<time>"'),
    "services.*.restart": _differs(
        "no: none; on-failure[:n]: on-failure with n attempts; always and unless-stopped: any; "
        "deploy.restart_policy wins"
    ),
    "services.*.scale": _differs("the same as deploy.replicas"),
    "services.*.use_api_socket": _warned("no API socket is given to containers"),
    "services.*.volumes_from": _differs(
        "the other service's mounts are added; volumes are shared on the same node"
    ),
    "services.*.networks.*.link_local_ips": _warned("no link-local addresses are added"),
    "services.*.volumes.*.bind.selinux": _warned("files are not relabelled"),
    "services.*.volumes.*.consistency": _warned("it is for Docker Desktop only"),
    "networks.*.driver": _differs(
        "an overlay network reaches every node; another driver is warned and replaced by it"
    ),
    "services.*.network_mode": _differs(
        "host and none run; service:x puts the task on the networks of x; container:x and others are warned"
    ),
    "services.*.pid": _differs("host and service:x run; container:x is warned: the namespace is private"),
    "services.*.ipc": _differs("host, private, shareable and service:x run; container:x is warned"),
    "services.*.uts": _differs("host and service:x run; container:x is warned"),
    "services.*.ports.*.published": _differs(
        "every port of a range leads to the container port, as with docker stack deploy"
    ),
    "services.*.volumes": _differs("named volumes are made on each node that runs a task with them"),
    "services.*.image": _differs("pinned to its digest at deploy, so that every node runs the same"),
    "networks.*.ipam.options": _warned("the allocator takes no options"),
    "models": _warned("language models are not served"),
}


class _Rule:
    __slots__ = ("children", "support")

    def __init__(self) -> None:
        self.children: dict[str, _Rule] = {}
        self.support: Support | None = None


def _compile() -> _Rule:
    root = _Rule()
    for pattern, support in SUPPORT.items():
        rule = root
        for segment in pattern.split("."):
            rule = rule.children.setdefault(segment, _Rule())
        rule.support = support
    return root


_ROOT = _compile()


def warned(root: Node) -> Iterator[tuple[str, Node, Node, str]]:
    """Each warned attribute that the canonical tree uses: path, the mapping it stands in, the value, the text."""
    yield from _walk(root, _ROOT, "")


def _walk(node: Node, rule: _Rule, path: str) -> Iterator[tuple[str, Node, Node, str]]:
    value = node.value
    if isinstance(value, dict):
        for key, child in value.items():
            below = rule.children.get(key) or rule.children.get("*")
            if below is None:
                continue
            place = f"{path}.{key}" if path else key
            if below.support is not None and below.support.kind == "warned" and _says_something(child):
                yield place, node, child, below.support.text
            if below.children:
                yield from _walk(child, below, place)
    elif isinstance(value, list):
        below = rule.children.get("*")
        if below is not None:
            for index, child in enumerate(value):
                yield from _walk(child, below, f"{path}[{index}]")


def _says_something(node: Node) -> bool:
    return not (
        node.value is None or node.value is False or node.value == "" or node.value == [] or node.value == {}
    )
