"""Who has which address, port and network identifier: an incremental cache over the view.

There is no record of its own: an address is in use because a task or a service in the store says so. `note`
marks an object as changed and `sync` makes the cache agree with the view, whatever happened in between (a
round that was rolled back, changes told twice or in another order).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from manager.allocator.addresses import Range, ipam_of, range_of, to_int
from manager.allocator.ports import FIRST_AUTOMATIC_PORT, LAST_AUTOMATIC_PORT, clash
from manager.state import View
from pyswarm.objects import Kind, Network, Object, Service, Task, TaskState, alive
from pyswarm.specs import PortConfig

Owner = tuple[Kind, str]
PortKey = tuple[str, int]
"""(protocol, port)."""


@dataclass(frozen=True, slots=True)
class _Claims:
    """What one object has."""

    addresses: tuple[tuple[str, int], ...] = ()
    """(network id, address)."""
    ports: tuple[PortConfig, ...] = ()
    """Published by number, a service's only."""
    vni: int = 0
    new_of: str | None = None
    """The service of a task that waits for addresses."""


NOTHING = _Claims()


def is_new(task: Task) -> bool:
    """Whether the task waits for the allocator."""
    return task.status.state == TaskState.NEW and task.desired_state <= TaskState.COMPLETE


def holds_addresses(task: Task) -> bool:
    """A task's addresses are its own until its node reported that it ended, or until it is certain that it
    will never be on one."""
    state = task.status.state
    return alive(state) and (state >= TaskState.ASSIGNED or task.desired_state <= TaskState.COMPLETE)


def claims_of(obj: Object | None) -> _Claims:
    """What the object has, as the store says it."""
    if isinstance(obj, Task):
        addresses: tuple[tuple[str, int], ...] = ()
        if obj.networks and holds_addresses(obj):
            addresses = tuple((a.network_id, to_int(text)) for a in obj.networks for text in a.addresses)
        return _Claims(addresses, new_of=obj.service_id if is_new(obj) else None)
    if isinstance(obj, Service):
        if obj.endpoint is None:
            return NOTHING
        return _Claims(
            tuple((vip.network_id, to_int(vip.addr)) for vip in obj.endpoint.virtual_ips),
            tuple(port for port in obj.endpoint.ports if port.published_port),
        )
    if isinstance(obj, Network):
        return _Claims(vni=obj.vni)
    return NOTHING


def same_claims(before: Object | None, after: Object | None) -> bool:
    return claims_of(before) == claims_of(after)


class Ledger:
    """The cache. Read it only after `sync` with the view of the moment."""

    def __init__(self) -> None:
        self._view: View | None = None
        self._dirty: dict[Owner, None] = {}
        self._clear()

    def _clear(self) -> None:
        self._claims: dict[Owner, _Claims] = {}
        self._addresses: dict[str, dict[int, Owner]] = {}
        self._ports: dict[PortKey, dict[str, list[PortConfig]]] = {}
        self._vnis: dict[int, str] = {}
        self._new: dict[str, dict[str, None]] = {}
        self._held: dict[Owner, list[tuple[str, int]]] = {}
        self._cursors: dict[tuple[str, str], int] = {}
        self._next_port = 0
        self._dirty.clear()

    # ------------------------------------------------------------------------------------ following the view

    def note(self, kind: Kind, id: str) -> None:
        """The object changed in some way."""
        self._dirty[kind, id] = None

    def rebuild(self, view: View) -> None:
        """Forget everything and read the view from the start."""
        self._clear()
        self._view = view
        for network in view.networks():
            self._add(("network", network.id), claims_of(network))
        for service in view.services():
            self._add(("service", service.id), claims_of(service))
        for task in view.tasks():
            self._add(("task", task.id), claims_of(task))

    def sync(self, view: View) -> None:
        """Agree with `view`. First everything changed is taken out, then put in again: so an address that
        went from one object to another is the second one's in the end, in whatever order they are seen."""
        if self._view is not view:
            self.rebuild(view)
            return
        dirty, self._dirty = self._dirty, {}
        for owner in dirty:
            self._take_out(owner)
        for kind, id in dirty:
            self._add((kind, id), claims_of(view.get(kind, id)))

    def assume(self, kind: Kind, obj: Object) -> None:
        """Count what a plan is about to say; checked against the view at the next `sync`."""
        owner = (kind, obj.id)
        self.let_go(owner)
        self._take_out(owner)
        self._add(owner, claims_of(obj))
        self._dirty[owner] = None

    def _take_out(self, owner: Owner) -> None:
        claims = self._claims.pop(owner, None)
        if claims is None:
            return
        for network_id, number in claims.addresses:
            used = self._addresses[network_id]
            if used.get(number) == owner:
                del used[number]
        for port in claims.ports:
            holders = self._ports[port.protocol, port.published_port]
            holders.pop(owner[1], None)
            if not holders:
                del self._ports[port.protocol, port.published_port]
        if claims.vni and self._vnis.get(claims.vni) == owner[1]:
            del self._vnis[claims.vni]
        if claims.new_of is not None:
            tasks = self._new[claims.new_of]
            del tasks[owner[1]]
            if not tasks:
                del self._new[claims.new_of]

    def _add(self, owner: Owner, claims: _Claims) -> None:
        if claims == NOTHING:
            return
        self._claims[owner] = claims
        for network_id, number in claims.addresses:
            self._addresses.setdefault(network_id, {}).setdefault(number, owner)
        for port in claims.ports:
            key = (port.protocol, port.published_port)
            self._ports.setdefault(key, {}).setdefault(owner[1], []).append(port)
        if claims.vni:
            self._vnis.setdefault(claims.vni, owner[1])
        if claims.new_of is not None:
            self._new.setdefault(claims.new_of, {})[owner[1]] = None

    # ----------------------------------------------------------------------------------------------- reading

    @property
    def vnis(self) -> Mapping[int, str]:
        return self._vnis

    def new_services(self) -> list[str]:
        """Services with tasks that wait for the allocator, sorted ("" for tasks without a service)."""
        return sorted(self._new)

    def new_tasks(self, service_id: str) -> list[str]:
        return list(self._new.get(service_id, ()))

    def owner(self, network_id: str, number: int) -> Owner | None:
        """Who has the address."""
        return self._addresses.get(network_id, {}).get(number)

    def port_holder(self, port: PortConfig, besides: str) -> str | None:
        """The service other than `besides` with whose published port this one clashes."""
        holders = self._ports.get((port.protocol, port.published_port), {})
        for service_id in sorted(holders):
            if service_id != besides and any(clash(port, other) for other in holders[service_id]):
                return service_id
        return None

    # ---------------------------------------------------------------------------------------------- choosing

    def free_port(self, protocol: str, besides: Iterable[int]) -> int | None:
        """A port of the automatic range that no service has, the next one round, or None."""
        size = LAST_AUTOMATIC_PORT - FIRST_AUTOMATIC_PORT + 1
        skip = set(besides)
        for step in range(size):
            candidate = FIRST_AUTOMATIC_PORT + (self._next_port + step) % size
            if candidate not in skip and (protocol, candidate) not in self._ports:
                self._next_port = candidate + 1 - FIRST_AUTOMATIC_PORT
                return candidate
        return None

    def free_address(self, network_id: str, pool: Range) -> int | None:
        """An address of the pool that nobody has, the next one round, or None when all are taken."""
        used = self._addresses.setdefault(network_id, {})
        first, last = pool.dynamic_first, pool.dynamic_last
        cursor = self._cursor(network_id, pool, used)
        for low, high in ((cursor, last), (first, cursor - 1)):
            number = max(low, first)
            while number <= high:
                if number not in used and number not in pool.reserved:
                    self._cursors[network_id, pool.subnet] = number + 1
                    return number
                number += 1
        return None

    def _cursor(self, network_id: str, pool: Range, used: Mapping[int, Owner]) -> int:
        cursor = self._cursors.get((network_id, pool.subnet))
        if cursor is None:
            inside = [n for n in used if pool.dynamic_first <= n <= pool.dynamic_last]
            cursor = max(inside, default=pool.dynamic_first - 1) + 1
        return cursor if cursor <= pool.dynamic_last else pool.dynamic_first

    def hold(self, network_id: str, number: int, owner: Owner) -> None:
        """Keep the address for `owner` until `assume` says what it got, or `let_go`."""
        self._addresses.setdefault(network_id, {})[number] = owner
        self._held.setdefault(owner, []).append((network_id, number))

    def let_go(self, owner: Owner) -> None:
        """Drop what is held for `owner`."""
        for network_id, number in self._held.pop(owner, ()):
            self._addresses[network_id].pop(number, None)

    def snapshot(self) -> object:
        """A comparable value of all that is counted: two caches of the same view have equal ones."""
        return (
            dict(self._claims),
            {id: dict(used) for id, used in self._addresses.items() if used},
            {key: {id: len(ports) for id, ports in holders.items()} for key, holders in self._ports.items()},
            dict(self._vnis),
            {id: sorted(tasks) for id, tasks in self._new.items()},
        )


def ranges_of(network: Network) -> list[Range]:
    """The pools of a network, in numbers, IPv4 first."""
    ranges: list[Range] = []
    for pool in network.pools:
        ipam = ipam_of(pool, network.spec.ipam)
        ranges.append(range_of(pool, ipam.ip_range, tuple(sorted(ipam.aux_addresses.values()))))
    return ranges
