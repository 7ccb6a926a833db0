"""Old versions of secrets and configs: collected when neither a service, nor its way back, nor a task needs
them.

A stack whose file changed gets a new version of the object, under a name of its own and with the label
`pyswarm.version-of`; its services refer to it and roll. Keys: `("secret", id)`, `("config", id)`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from manager.state import Changed, Key, Plan, View
from pyswarm.objects import Config, Secret, Service, Task, alive
from pyswarm.specs import STACK_LABEL, VERSION_OF_LABEL, ServiceSpec


class VersionCollector:
    """Removes versions of a stack's secrets and configs that a newer one has replaced."""

    name = "configs"

    def keys(self, change: Changed, view: View) -> Iterable[Key]:
        before, after, obj = change.before, change.after, change.obj
        if isinstance(obj, (Secret, Config)):
            return _siblings(view, obj) if after is not None and before is None else ()
        if isinstance(before, Service):
            if isinstance(after, Service) and _references(after) == _references(before):
                return ()
            return _references(before)
        if isinstance(before, Task) and alive(before.status.state):
            if isinstance(after, Task) and alive(after.status.state):
                return ()
            return _of_spec(ServiceSpec(task=before.spec))
        return ()

    def everything(self, view: View) -> Iterable[Key]:
        objects = [*view.secrets(), *view.configs()]
        return [_key(obj) for obj in objects if STACK_LABEL in obj.spec.labels]

    def plan(self, view: View, keys: Collection[Key], now: float) -> Plan:
        plan = Plan()
        for kind, id in keys:
            obj = view.get(Secret, id) if kind == "secret" else view.get(Config, id)
            if obj is not None and _superseded(view, obj) and not in_use(view, obj):
                plan.delete(obj)
        return plan


def _key(obj: Secret | Config) -> Key:
    return ("secret" if isinstance(obj, Secret) else "config", obj.id)


def _of_spec(spec: ServiceSpec | None) -> list[Key]:
    if spec is None:
        return []
    container = spec.task.container
    return [
        *(("secret", reference.source_id) for reference in container.secrets),
        *(("config", reference.source_id) for reference in container.configs),
    ]


def _references(service: Service) -> list[Key]:
    return [*_of_spec(service.spec), *_of_spec(service.previous_spec)]


def _base_name(obj: Secret | Config) -> str:
    return obj.spec.labels.get(VERSION_OF_LABEL, obj.spec.name)


def _versions(view: View, obj: Secret | Config) -> list[Secret | Config]:
    everything = view.secrets() if isinstance(obj, Secret) else view.configs()
    stack, name = obj.spec.labels.get(STACK_LABEL), _base_name(obj)
    return [o for o in everything if _base_name(o) == name and o.spec.labels.get(STACK_LABEL) == stack]


def _siblings(view: View, obj: Secret | Config) -> list[Key]:
    if VERSION_OF_LABEL not in obj.spec.labels:
        return []
    return [_key(other) for other in _versions(view, obj) if other.id != obj.id]


def _superseded(view: View, obj: Secret | Config) -> bool:
    """Whether a newer version is there. Objects that no stack made are their owner's to remove."""
    if STACK_LABEL not in obj.spec.labels:
        return False
    age = (obj.meta.created_at, obj.id)
    return any((other.meta.created_at, other.id) > age for other in _versions(view, obj))


def in_use(view: View, obj: Secret | Config) -> bool:
    """Whether a service, its previous spec or a task that has not ended refers to it."""
    key = _key(obj)
    users = view.services_with_secret if isinstance(obj, Secret) else view.services_with_config
    if users(obj.id) or any(key in _of_spec(s.previous_spec) for s in view.services()):
        return True
    return any(alive(task.status.state) for task in view.tasks_with_config(obj.id))
