"""The cluster's objects in memory, indexed, and what a reconciler may see and say of them.

`State` holds the objects and keeps its indexes incrementally, so one change costs one change and never a
scan. A reconciler reads a `View` (the state plus what earlier reconcilers of the same round have planned),
is asked about `keys` (what changed made stale, or a timer that came due), and answers with a `Plan`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, cast, overload

from pyswarm.clock import IdSource
from pyswarm.objects import (
    KINDS,
    Cluster,
    Config,
    Kind,
    Network,
    Node,
    Object,
    Secret,
    Service,
    Task,
    Volume,
    kind_of,
    unique_name,
)

ObjectT = TypeVar("ObjectT", bound=Object)

Key = tuple[str, str]
"""What a reconciler is asked about: (kind, id), e.g. ("service", "k3j..."). Each reconciler defines which
keys it understands in its `keys` method."""


@dataclass(frozen=True, slots=True)
class Changed:
    """One object before and after: `before` is None when it was created, `after` when it was deleted."""

    before: Object | None
    after: Object | None

    @property
    def obj(self) -> Object:
        """Whichever there is, the newer first."""
        obj = self.after if self.after is not None else self.before
        assert obj is not None
        return obj


class Index:
    """Ids of objects by a key that is a function of the object; insertion ordered, so iteration is stable."""

    def __init__(self, keys: Callable[[Object], Iterable[str]]) -> None:
        self._keys = keys
        self._ids: dict[str, dict[str, None]] = defaultdict(dict)

    def replace(self, before: Object | None, after: Object | None) -> None:
        old = list(self._keys(before)) if before is not None else []
        new = list(self._keys(after)) if after is not None else []
        if old == new:
            return
        for key in old:
            ids = self._ids[key]
            assert before is not None
            ids.pop(before.id, None)
            if not ids:
                del self._ids[key]
        for key in new:
            assert after is not None
            self._ids[key][after.id] = None

    def get(self, key: str) -> Collection[str]:
        return self._ids.get(key, {})

    def keys(self) -> Collection[str]:
        return self._ids.keys()


def _task_service(obj: Object) -> Iterable[str]:
    return (obj.service_id,) if isinstance(obj, Task) else ()


def _task_node(obj: Object) -> Iterable[str]:
    return (obj.node_id,) if isinstance(obj, Task) and obj.node_id else ()


def _task_slot(obj: Object) -> Iterable[str]:
    return (slot_key(obj),) if isinstance(obj, Task) else ()


def _task_network(obj: Object) -> Iterable[str]:
    return [a.network_id for a in obj.networks] if isinstance(obj, Task) else ()


def _task_config(obj: Object) -> Iterable[str]:
    if not isinstance(obj, Task):
        return ()
    container = obj.spec.container
    if not container.configs and not container.secrets:
        return ()
    return {r.source_id: None for r in (*container.configs, *container.secrets)}


def _service_network(obj: Object) -> Iterable[str]:
    return [n.target for n in obj.spec.task.networks] if isinstance(obj, Service) else ()


def _service_secret(obj: Object) -> Iterable[str]:
    return [s.source_id for s in obj.spec.task.container.secrets] if isinstance(obj, Service) else ()


def _service_config(obj: Object) -> Iterable[str]:
    return [c.source_id for c in obj.spec.task.container.configs] if isinstance(obj, Service) else ()


def _service_dependency(obj: Object) -> Iterable[str]:
    return [d.service for d in obj.spec.depends_on] if isinstance(obj, Service) else ()


def slot_key(task: Task) -> str:
    """What a task is one shot of: its service's slot, or its node's copy of a global service."""
    return f"{task.service_id}/{task.slot}" if task.slot else f"{task.service_id}/@{task.node_id}"


class Tables:
    """Objects by kind and id, with indexes. Mutable; owned by one `State` or one overlay `View`."""

    def __init__(self) -> None:
        self.objects: dict[Kind, dict[str, Object]] = {kind: {} for kind in KINDS}
        self.names: dict[tuple[Kind, str], str] = {}
        self.tasks_by_service = Index(_task_service)
        self.tasks_by_node = Index(_task_node)
        self.tasks_by_slot = Index(_task_slot)
        self.tasks_by_network = Index(_task_network)
        self.tasks_by_config = Index(_task_config)
        self.services_by_network = Index(_service_network)
        self.services_by_secret = Index(_service_secret)
        self.services_by_config = Index(_service_config)
        self.services_by_dependency = Index(_service_dependency)
        self._task_indexes = (
            self.tasks_by_service,
            self.tasks_by_node,
            self.tasks_by_slot,
            self.tasks_by_network,
            self.tasks_by_config,
        )
        self._service_indexes = (
            self.services_by_network,
            self.services_by_secret,
            self.services_by_config,
            self.services_by_dependency,
        )

    def replace(self, kind: Kind, id: str, after: Object | None) -> Changed | None:
        """Put `after` in the place of the object; None when nothing was and nothing is there."""
        table = self.objects[kind]
        before = table.get(id)
        if before is None and after is None:
            return None
        if after is None:
            del table[id]
        else:
            table[id] = after
        if before is not None and (name := unique_name(before)) and self.names.get((kind, name)) == id:
            del self.names[kind, name]
        if after is not None and (name := unique_name(after)):
            self.names[kind, name] = id
        for index in (
            self._task_indexes if kind == "task" else self._service_indexes if kind == "service" else ()
        ):
            index.replace(before, after)
        return Changed(before, after)


class View:
    """Read access to the state as this round has planned it so far. Valid only during the round."""

    def __init__(self, tables: Tables, ids: IdSource) -> None:
        self._tables = tables
        self._ids = ids

    def new_id(self) -> str:
        """A fresh identifier for an object that a plan creates."""
        return self._ids.new_id()

    def _all(self, kind: Kind, cls: type[ObjectT]) -> Iterator[ObjectT]:
        del cls
        return cast("Iterator[ObjectT]", iter(self._tables.objects[kind].values()))

    def _get(self, kind: Kind, id: str) -> Object | None:
        return self._tables.objects[kind].get(id)

    @property
    def cluster(self) -> Cluster | None:
        return cast("Cluster | None", next(iter(self._tables.objects["cluster"].values()), None))

    def nodes(self) -> Iterator[Node]:
        return self._all("node", Node)

    def services(self) -> Iterator[Service]:
        return self._all("service", Service)

    def tasks(self) -> Iterator[Task]:
        return self._all("task", Task)

    def networks(self) -> Iterator[Network]:
        return self._all("network", Network)

    def volumes(self) -> Iterator[Volume]:
        return self._all("volume", Volume)

    def secrets(self) -> Iterator[Secret]:
        return self._all("secret", Secret)

    def configs(self) -> Iterator[Config]:
        return self._all("config", Config)

    @overload
    def get(self, kind: type[ObjectT], id: str) -> ObjectT | None: ...
    @overload
    def get(self, kind: Kind, id: str) -> Object | None: ...
    def get(self, kind: type[ObjectT] | Kind, id: str) -> Object | None:
        """By class or kind name, and id: `view.get(Task, id)`."""
        name = kind if isinstance(kind, str) else _KIND_NAMES[kind]
        return self._get(name, id)

    def by_name(self, kind: type[ObjectT], name: str) -> ObjectT | None:
        """The named service, network, volume, secret or config."""
        id = self._tables.names.get((_KIND_NAMES[kind], name))
        return cast("ObjectT | None", self._get(_KIND_NAMES[kind], id)) if id else None

    def _tasks_of(self, index: Index, key: str) -> list[Task]:
        table = cast("Mapping[str, Task]", self._tables.objects["task"])
        return [table[id] for id in index.get(key)]

    def tasks_of_service(self, service_id: str) -> list[Task]:
        return self._tasks_of(self._tables.tasks_by_service, service_id)

    def tasks_of_node(self, node_id: str) -> list[Task]:
        return self._tasks_of(self._tables.tasks_by_node, node_id)

    def tasks_of_slot(self, task: Task) -> list[Task]:
        """All tasks, live and ended, of the same slot (see `slot_key`)."""
        return self._tasks_of(self._tables.tasks_by_slot, slot_key(task))

    def tasks_in_slot(self, key: str) -> list[Task]:
        """All tasks, live and ended, of the slot with this `slot_key`."""
        return self._tasks_of(self._tables.tasks_by_slot, key)

    def tasks_with_config(self, config_id: str) -> list[Task]:
        """Tasks made from a spec that has the config or secret of this id."""
        return self._tasks_of(self._tables.tasks_by_config, config_id)

    def tasks_of_network(self, network_id: str) -> list[Task]:
        return self._tasks_of(self._tables.tasks_by_network, network_id)

    def _services_of(self, index: Index, key: str) -> list[Service]:
        table = cast("Mapping[str, Service]", self._tables.objects["service"])
        return [table[id] for id in index.get(key)]

    def services_on_network(self, network_id: str) -> list[Service]:
        return self._services_of(self._tables.services_by_network, network_id)

    def services_with_secret(self, secret_id: str) -> list[Service]:
        return self._services_of(self._tables.services_by_secret, secret_id)

    def services_with_config(self, config_id: str) -> list[Service]:
        return self._services_of(self._tables.services_by_config, config_id)

    def services_depending_on(self, name: str) -> list[Service]:
        """Services whose depends_on names the service called `name`."""
        return self._services_of(self._tables.services_by_dependency, name)


_KIND_NAMES: Mapping[type, Kind] = {cls: kind for kind, cls in KINDS.items()}


@dataclass(slots=True)
class Plan:
    """What a reconciler wants: objects to write, objects to remove, and when to ask again.

    `puts` holds whole objects made with `dataclasses.replace` from what the view showed (or new ones with a
    fresh id); an object may appear once. `wake` maps a key to the Unix time at which the reconciler wants
    to be asked about it again though nothing changed; the last answer for a key counts, so a key that was
    asked about and is not in `wake` has no timer any more.
    """

    puts: list[Object] = field(default_factory=list[Object])
    deletes: list[Object] = field(default_factory=list[Object])
    wake: dict[Key, float] = field(default_factory=dict[Key, float])

    def put(self, obj: Object) -> None:
        self.puts.append(obj)

    def delete(self, obj: Object) -> None:
        self.deletes.append(obj)

    def wake_at(self, key: Key, when: float) -> None:
        """Ask again about `key` at `when`, or earlier if an earlier time was said already."""
        self.wake[key] = min(when, self.wake.get(key, when))


class Reconciler(Protocol):
    """A pure decision: what is, what time it is, what to change. Keeps no state between calls except
    caches that can be rebuilt from the view at any moment."""

    @property
    def name(self) -> str: ...

    def keys(self, change: Changed, view: View) -> Iterable[Key]:
        """What `change` makes stale. Called for each change, by whomever, this reconciler's own included."""
        ...

    def everything(self, view: View) -> Iterable[Key]:
        """All keys: asked for when a leader starts."""
        ...

    def plan(self, view: View, keys: Collection[Key], now: float) -> Plan:
        """Decide about `keys` (sorted by the caller) at Unix time `now`."""
        ...


class State:
    """The objects as committed, and a staging area on top for one round.

    Staged changes are visible through `view` at once; `rollback` undoes them when the commit failed,
    `settle` keeps them, with the revision they got.
    """

    def __init__(self, ids: IdSource) -> None:
        self._tables = Tables()
        self._undo: dict[tuple[Kind, str], Object | None] = {}
        self.view = View(self._tables, ids)
        self.revision = 0

    def load(self, objects: Iterable[Object], revision: int) -> None:
        """Start from a listing, dropping what was there."""
        self.__init__(self.view._ids)  # pyright: ignore[reportPrivateUsage] - its own view
        for obj in objects:
            self._tables.replace(kind_of(obj), obj.id, obj)
        self.revision = revision

    def stage(self, kind: Kind, id: str, after: Object | None) -> Changed | None:
        """Show `after` (None: deleted) from now on; remembers what was committed before."""
        changed = self._tables.replace(kind, id, after)
        if changed is not None:
            self._undo.setdefault((kind, id), changed.before)
        return changed

    def staged(self) -> list[tuple[Kind, str, Object | None, Object | None]]:
        """(kind, id, committed, staged) of all that is staged, in the order it was first staged."""
        return [
            (kind, id, before, self._tables.objects[kind].get(id))
            for (kind, id), before in self._undo.items()
        ]

    @property
    def staging(self) -> int:
        """How many objects are staged."""
        return len(self._undo)

    def settle(self, written: Iterable[Object], revision: int) -> None:
        """The staged changes were committed; `written` carries the objects with their new version."""
        for obj in written:
            self._tables.replace(kind_of(obj), obj.id, obj)
        self._undo.clear()
        self.revision = revision

    def rollback(self) -> None:
        """Nothing of what is staged happened."""
        for (kind, id), before in reversed(self._undo.items()):
            self._tables.replace(kind, id, before)
        self._undo.clear()

    def apply(self, kind: Kind, id: str, after: Object | None, revision: int) -> Changed | None:
        """Take over a change committed elsewhere (a follower's watch). Nothing may be staged."""
        assert not self._undo
        self.revision = max(self.revision, revision)
        return self._tables.replace(kind, id, after)
