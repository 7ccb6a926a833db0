"""What a project means without saying it: default network, names, builds, implied dependencies."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from compose.errors import Position
from compose.short import lift
from compose.tree import Node, mapping, sequence

_NAMESPACES = ("network_mode", "ipc", "pid", "uts", "cgroup")
_IMPLIED = {"condition": "service_started", "restart": True, "required": True}
_IMPLIED_VOLUMES = {"condition": "service_started", "required": True}


def project_name(text: str) -> str:
    """`text` as a project's name: small letters, digits, dashes and underscores, from a letter or digit."""
    return re.sub(r"[^a-z0-9_-]", "", text.lower()).lstrip("_-")


def named_only(root: Node, name: str, environment: Mapping[str, str]) -> Node:
    """What is left of `normalize` for `compose config --no-normalize`: the project's name, variables that are
    taken from the environment, and the number of containers in its one place."""
    value = dict(mapping(root))
    services = value.get("services")
    if services is not None and isinstance(services.value, dict):
        done = {key: _service_as_said(node, environment) for key, node in services.value.items()}
        value["services"] = services.replaced(done)
    for kind in ("networks", "volumes", "secrets", "configs"):
        if kind in value:
            value[kind] = _spelled_out(value[kind], kind)
    value["name"] = Node(name, value["name"].pos if "name" in value else root.pos)
    return root.replaced(value)


def _spelled_out(node: Node, kind: str) -> Node:
    """Each entry as a mapping."""
    entries: dict[str, Node] = {}
    for key, child in mapping(node).items():
        fields = dict(mapping(child))
        if kind == "networks" and "ipam" not in fields:
            fields["ipam"] = Node({}, child.pos)
        entries[key] = Node(fields, child.pos, child.keys, "", child.via)
    return node.replaced(entries)


def _service_as_said(node: Node, environment: Mapping[str, str]) -> Node:
    if not isinstance(node.value, dict):
        return node
    value = dict(node.value)
    if "environment" in value:
        value["environment"] = _resolved(value["environment"], environment.get)
    if "depends_on" in value:
        said = value["depends_on"]
        value["depends_on"] = said.replaced({key: _required(each) for key, each in mapping(said).items()})
    _complete_deploy(value)
    return node.replaced(value)


def normalize(root: Node, name: str, environment: Mapping[str, str]) -> Node:
    """The project with everything spelled out that Compose takes for granted."""
    value = dict(mapping(root))
    services = value.get("services")
    if services is not None and isinstance(services.value, dict):
        done = {key: _service(node, environment) for key, node in services.value.items()}
        value["services"] = services.replaced(done)
    networks = value.get("networks") or Node({}, root.pos)
    if "default" not in mapping(networks):
        networks = networks.replaced({**mapping(networks), "default": Node(None, root.pos)})
    value["networks"] = networks
    for kind in ("networks", "volumes", "secrets", "configs"):
        if kind in value:
            value[kind] = _named(value[kind], name, kind)
    value["name"] = Node(name, value["name"].pos if "name" in value else root.pos)
    return root.replaced(value)


def _named(node: Node, project: str, kind: str) -> Node:
    """Each entry with its real name: what it says, its key when external, else `project_key`."""
    entries: dict[str, Node] = {}
    for key, child in mapping(_spelled_out(node, kind)).items():
        fields = dict(mapping(child))
        if "name" not in fields or not fields["name"].value:
            external = fields.get("external")
            outside = external is not None and external.value is True
            fields["name"] = Node(key if outside else f"{project}_{key}", child.pos)
        entries[key] = Node(fields, child.pos, child.keys, "", child.via)
    return node.replaced(entries)


def _service(node: Node, environment: Mapping[str, str]) -> Node:
    if not isinstance(node.value, dict):
        return node
    value = dict(node.value)
    mode = value.get("network_mode")
    if not mapping(value.get("networks")) and (mode is None or not mode.value) and "provider" not in value:
        value["networks"] = lift({"default": None}, node)
    policy = value.get("pull_policy")
    if policy is not None and policy.value == "if_not_present":
        value["pull_policy"] = policy.replaced("missing")
    if "build" in value:
        value["build"] = _build(value["build"], environment)
    if "environment" in value:
        value["environment"] = _resolved(value["environment"], environment.get)
    depends = _dependencies(value)
    if depends is not None:
        value["depends_on"] = depends
    _complete_deploy(value)
    return node.replaced(value)


def _complete_deploy(value: dict[str, Node]) -> None:
    """A service's `deploy` with its sections and the number that `scale` gives."""
    deploy = value.get("deploy")
    if deploy is None:
        return
    if deploy.value is None:
        del value["deploy"]
        return
    missing = {key: Node({}, deploy.pos) for key in ("resources", "placement") if deploy.get(key) is None}
    if "scale" in value and deploy.get("replicas") is None:
        missing["replicas"] = value["scale"]
    value["deploy"] = deploy.replaced({**mapping(deploy), **missing})


def default_contexts(root: Node, directory: str) -> Node:
    """Builds that name no context are built in the project's directory."""
    services = root.get("services")
    entries = dict(mapping(services))
    changed = False
    for name, service in entries.items():
        build = service.get("build")
        if build is not None and isinstance(build.value, dict) and "context" not in build.value:
            context = Node(directory, build.pos)
            mended = build.replaced({"context": context, **build.value})
            entries[name] = service.replaced({**mapping(service), "build": mended})
            changed = True
    if services is None or not changed:
        return root
    return root.replaced({**mapping(root), "services": services.replaced(entries)})


def _resolved(node: Node, lookup: Callable[[str], str | None]) -> Node:
    """Names without a value take the environment's, if it has one."""
    entries: dict[str, Node] = {}
    for name, child in mapping(node).items():
        found = lookup(name) if child.value is None else None
        entries[name] = child if found is None else child.replaced(found)
    return node.replaced(entries)


def _build(node: Node, environment: Mapping[str, str]) -> Node:
    value = dict(mapping(node))
    if "dockerfile" not in value and "dockerfile_inline" not in value:
        value["dockerfile"] = Node("Dockerfile", node.pos)
    if "args" in value:
        resolved = _resolved(value["args"], environment.get)
        known = {name: child for name, child in mapping(resolved).items() if child.value is not None}
        value["args"] = resolved.replaced(known)
    return node.replaced(value)


def implied_dependencies(service: Mapping[str, Node]) -> dict[str, tuple[str, Position]]:
    """Services that links, shared namespaces and `volumes_from` make a service wait for, each with
    the attribute that says so."""
    found: dict[str, tuple[str, Position]] = {}
    for link in sequence(service.get("links")):
        found.setdefault(link.text().split(":")[0], ("links", link.pos))
    for key in _NAMESPACES:
        node = service.get(key)
        if node is not None and node.text().startswith("service:"):
            found.setdefault(node.text().removeprefix("service:"), (key, node.pos))
    for source in sequence(service.get("volumes_from")):
        if not source.text().startswith("container:"):
            found.setdefault(source.text().split(":")[0], ("volumes_from", source.pos))
    return {name: what for name, what in found.items() if name}


def _required(settings: Node) -> Node:
    if not isinstance(settings.value, dict) or "required" in settings.value:
        return settings
    return settings.replaced({**settings.value, "required": Node(True, settings.pos)})


def _dependencies(service: Mapping[str, Node]) -> Node | None:
    implied = implied_dependencies(service)
    said = service.get("depends_on")
    if not implied and said is None:
        return None
    entries = {name: _required(settings) for name, settings in mapping(said).items()}
    keys = dict(said.keys or {}) if said is not None else {}
    for name, (key, position) in implied.items():
        if name not in entries:
            settings = _IMPLIED_VOLUMES if key == "volumes_from" else _IMPLIED
            entries[name] = lift(settings, Node(None, position, None, "", key))
            keys[name] = position
    position = said.pos if said is not None else next(iter(implied.values()))[1]
    return Node(entries, position, keys)
