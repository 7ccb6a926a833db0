"""Swarm's own use of Go templates: `{{.Service.Name}}` in hostnames, environments, mounts, secrets, configs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from pyswarm.errors import Invalid
from pyswarm.gotemplate import Struct, Template
from pyswarm.objects import Config, Node, Secret, Task, volume_name
from pyswarm.specs import ContainerSpec, FileReference, Mount

Functions = Mapping[str, Callable[..., str]]


def task_context(task: Task, node: Node) -> Struct:
    """What Swarm's templates may see of a task and its node."""
    platform = node.description.platform
    return Struct(
        {
            "Service": Struct(
                {"ID": task.service_id, "Name": task.service_name, "Labels": dict(task.service_labels)}
            ),
            "Node": Struct(
                {
                    "ID": node.id,
                    "Hostname": node.description.hostname,
                    "Platform": Struct({"OS": platform.os, "Architecture": platform.architecture}),
                }
            ),
            "Task": Struct(
                {"ID": task.id, "Name": task.name, "Slot": str(task.slot) if task.slot else task.node_id}
            ),
        }
    )


def _expand(where: str, text: str, context: Struct, functions: Functions | None = None) -> str:
    if "{{" not in text:
        return text
    try:
        return Template(text, functions=functions).execute(context)
    except Invalid as error:
        raise Invalid(f"{where}: {error}") from error


def expand_container(task: Task, node: Node) -> ContainerSpec:
    """The container spec with the templates in `hostname`, `env` and `mounts` carried out, as Swarm does, and
    with the names of the slot's own volumes. Invalid names the field."""
    spec = task.spec.container
    if task.slot_volumes:
        own = [replace(m, source=volume_name(task, m) or m.source) for m in spec.mounts]
        spec = replace(spec, mounts=tuple(own))
    if not any("{{" in text for text in _templates(spec)):
        return spec
    context = task_context(task, node)
    return replace(
        spec,
        hostname=_expand("hostname", spec.hostname, context),
        env=tuple(_expand(f"env[{n}]", text, context) for n, text in enumerate(spec.env)),
        mounts=tuple(_expand_mount(n, mount, context) for n, mount in enumerate(spec.mounts)),
    )


def _templates(spec: ContainerSpec) -> Sequence[str]:
    texts = [spec.hostname, *spec.env]
    for mount in spec.mounts:
        texts += (mount.source, mount.target, *mount.volume_labels.values())
        texts += mount.volume_driver.options.values() if mount.volume_driver else ()
    return texts


def _expand_mount(number: int, mount: Mount, context: Struct) -> Mount:
    def all_of(entries: Mapping[str, str]) -> Mapping[str, str]:
        return {key: _expand(f"mounts[{number}]", value, context) for key, value in entries.items()}

    driver = mount.volume_driver
    return replace(
        mount,
        source=_expand(f"mounts[{number}].source", mount.source, context),
        target=_expand(f"mounts[{number}].target", mount.target, context),
        volume_labels=all_of(mount.volume_labels),
        volume_driver=replace(driver, options=all_of(driver.options)) if driver else None,
    )


def render_payload(
    item: Secret | Config,
    task: Task,
    node: Node,
    secrets: Mapping[str, Secret],
    configs: Mapping[str, Config],
) -> bytes:
    """The content of a secret or config for this task: a template if its spec's `templating` says so, which
    may also use `env "NAME"`, `secret "TARGET"` and `config "TARGET"` of the same task."""
    if item.spec.templating is None:
        return item.spec.data
    where = f"{'secret' if isinstance(item, Secret) else 'config'} {item.spec.name}"
    if item.spec.templating.name != "golang":
        raise Invalid(f"{where}: unknown template driver {item.spec.templating.name!r}: use golang")
    spec = task.spec.container
    environment = {name: value for name, _, value in (entry.partition("=") for entry in spec.env)}
    functions: Functions = {
        "env": partial(_variable, environment),
        "secret": _look_up("secret", spec.secrets, secrets),
        "config": _look_up("config", spec.configs, configs),
    }
    try:
        return _expand(where, item.spec.data.decode(), task_context(task, node), functions).encode()
    except UnicodeDecodeError as error:
        raise Invalid(f"{where}: a template must be UTF-8 text") from error


def _variable(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name, "")


def _look_up(
    kind: str, files: Sequence[FileReference], items: Mapping[str, Secret] | Mapping[str, Config]
) -> Callable[..., str]:
    by_target = {file.target or file.source_name: file.source_id for file in files}

    def content(target: str) -> str:
        found = items.get(by_target.get(target, ""))
        if found is None:
            raise Invalid(f"this task has no {kind} {target!r}")
        return found.spec.data.decode()

    return content
