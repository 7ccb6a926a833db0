"""What each node is told: its tasks, what they need, and the tables of its networks and of the ingress.

`assignments_for` is the complete set for one node. `Tracker` remembers what each connected node was told
and, after a commit, says which nodes get which delta: of tables only the members and ports that changed, so
that a network costs what happens on it and not what is on it. Tables and changes are made once per network
and shared by all nodes as the same object, so that a sender can encode each of them once.

Order of things: a task is a healthy member from RUNNING on (the agent reports RUNNING only once its health
check passed) until something other than running is wanted of it: it is out of DNS and of every virtual IP
before it gets its stop signal.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from manager.scheduler.constraints import node_matches
from manager.state import Changed, View
from pyswarm.errors import Invalid
from pyswarm.gotemplate import Template
from pyswarm.objects import (
    Assignments,
    Cluster,
    Config,
    IngressChange,
    IngressPort,
    IngressTarget,
    Member,
    Network,
    NetworkAttachment,
    NetworkChange,
    NetworkTable,
    Node,
    Secret,
    Service,
    ServiceEntry,
    Task,
    TaskState,
    Volume,
    alive,
    ingress_order,
    volume_name,
)
from pyswarm.specs import FileReference, PortConfig
from pyswarm.templating import task_context

# ---------------------------------------------------------------------------------------- what is told of what


def told(task: Task) -> bool:
    """Whether the task's node is told of it: from ASSIGNED on until its record is deleted."""
    return bool(task.node_id) and task.status.state >= TaskState.ASSIGNED


def _live(task: Task) -> bool:
    """Whether the task has, or will have, a container that needs things of its node."""
    return told(task) and alive(task.status.state)


def healthy(task: Task) -> bool:
    """Whether the task gets connections and is in DNS."""
    return (
        task.status.state == TaskState.RUNNING
        and task.desired_state <= TaskState.COMPLETE
        and task.status.health != "unhealthy"
    )


def _bare(cidr: str) -> str:
    return cidr.partition("/")[0]


def member_of(view: View, task: Task, network_id: str) -> Member | None:
    """The task's entry in the table of the network, or None when it is not to be in it."""
    if not _live(task):
        return None
    attachment = next((a for a in task.networks if a.network_id == network_id), None)
    node = view.get(Node, task.node_id)
    if attachment is None or not attachment.addresses or node is None:
        return None
    network = view.get(Network, network_id)
    return Member(
        task_id=task.id,
        service_id=task.service_id,
        node_id=task.node_id,
        node_addr=node.data_path_addr,
        address=_bare(attachment.addresses[0]),
        mac_address=attachment.mac_address,
        healthy=healthy(task),
        names=() if network is not None and network.spec.ingress else _member_names(task, node, attachment),
    )


def _member_names(task: Task, node: Node, attachment: NetworkAttachment) -> tuple[str, ...]:
    """Names for this one address: the task's, its slot's, the host name of its container and the first
    characters of its id. What is a name of its service is the service's alone; a task without a service has
    the aliases itself."""
    names: dict[str, None] = {}
    if task.service_name:
        names[task.name] = None
        if task.slot:
            names[f"{task.service_name}.{task.slot}"] = None
    if hostname := _hostname(task, node):
        names[hostname] = None
    names[task.id[:12]] = None
    if not task.service_id:
        names.update(dict.fromkeys(attachment.aliases))
        return tuple(names)
    of_service = {task.service_name, *attachment.aliases}
    return tuple(name for name in names if name not in of_service)


def _hostname(task: Task, node: Node) -> str:
    """The container's own host name, its template carried out; "" when that fails (the agent says why)."""
    text = task.spec.container.hostname
    if "{{" not in text:
        return text
    try:
        return Template(text).execute(task_context(task, node))
    except Invalid:
        return ""


def service_entries(view: View, network: Network) -> tuple[ServiceEntry, ...]:
    """The services on the network, by name."""
    services = {service.id: service for service in view.services_on_network(network.id)}
    if network.spec.ingress:
        services.update((s.id, s) for s in view.services() if _vip_on(s, network.id))
    entries = [entry for s in services.values() if (entry := _service_entry(s, network)) is not None]
    return tuple(sorted(entries, key=lambda entry: (entry.name, entry.service_id)))


def _vip_on(service: Service, network_id: str) -> str:
    vips = service.endpoint.virtual_ips if service.endpoint is not None else ()
    return next((_bare(vip.addr) for vip in vips if vip.network_id == network_id), "")


def _service_entry(service: Service, network: Network) -> ServiceEntry | None:
    endpoint = service.endpoint
    if endpoint is None:
        return None
    vip = _vip_on(service, network.id)
    mode = endpoint.spec.mode
    if mode == "vip" and not vip:
        return None
    names: dict[str, None] = {} if network.spec.ingress else {service.spec.name: None}
    for wish in service.spec.task.networks:
        if wish.target == network.id:
            names.update(dict.fromkeys(wish.aliases))
    return ServiceEntry(service_id=service.id, name=service.spec.name, mode=mode, vip=vip, names=tuple(names))


def serves_ingress(view: View, node: Node | None) -> bool:
    """Whether the node answers on ingress ports."""
    cluster = view.cluster
    selector = cluster.spec.ingress_node_selector if cluster is not None else ()
    return node is not None and node_matches(selector, node)


def ingress_network(view: View) -> Network | None:
    """The network that carries ingress ports."""
    found = [network for network in view.networks() if network.spec.ingress and network.pools]
    return min(found, key=lambda network: (network.meta.created_at, network.id), default=None)


def ingress_target(view: View, task: Task, network_id: str) -> IngressTarget | None:
    """Where connections to the task's service may go, if they may go to this task."""
    member = member_of(view, task, network_id) if healthy(task) else None
    if member is None:
        return None
    return IngressTarget(
        address=member.address,
        node_addr=member.node_addr,
        mac_address=member.mac_address,
        node_id=member.node_id,
    )


def node_addresses(view: View) -> tuple[str, ...]:
    """The VXLAN endpoints of all nodes, any of which may let in a connection."""
    return tuple(sorted({node.data_path_addr for node in view.nodes() if node.data_path_addr}))


@dataclass(slots=True)
class _Needs:
    """What the live tasks of a node need."""

    secrets: dict[str, Secret] = field(default_factory=dict[str, Secret])
    configs: dict[str, Config] = field(default_factory=dict[str, Config])
    volumes: dict[str, Volume] = field(default_factory=dict[str, Volume])
    networks: dict[str, None] = field(default_factory=dict[str, None])


def _needs_of(view: View, tasks: Iterable[Task]) -> _Needs:
    needs = _Needs()
    for task in tasks:
        if not _live(task):
            continue
        container = task.spec.container
        for reference in container.secrets:
            if (secret := _referenced(view, Secret, reference)) is not None:
                needs.secrets[secret.id] = secret
        for reference in container.configs:
            if (config := _referenced(view, Config, reference)) is not None:
                needs.configs[config.id] = config
        for mount in container.mounts:
            name = volume_name(task, mount)
            volume = view.by_name(Volume, name) if name else None
            if volume is not None:
                needs.volumes[volume.id] = volume
        for attachment in task.networks:
            if view.get(Network, attachment.network_id) is not None:
                needs.networks[attachment.network_id] = None
    return needs


_File = TypeVar("_File", Secret, Config)
_Stored = TypeVar("_Stored", Secret, Config, Volume)


def _referenced(view: View, kind: type[_File], reference: FileReference) -> _File | None:
    if reference.source_id:
        return view.get(kind, reference.source_id)
    return view.by_name(kind, reference.source_name)


# ----------------------------------------------------------------------------------------------- tables, kept


class _Table:
    """The table of one network, kept member by member. Whenever it becomes another one its `number` goes up
    by one, and `change` says how the present one came from the one before."""

    def __init__(self, view: View, network: Network) -> None:
        self.number = 0
        self.change: NetworkChange | None = None
        """None when the network itself became another: whoever knows the former table needs the whole."""
        self._network = network
        self._members: dict[str, Member] = {}
        self._services: dict[str, ServiceEntry] = {}
        self._node_addrs: tuple[str, ...] = ()
        self._value: NetworkTable | None = None
        self.renew(view, network, self.tasks(view), stale=True)
        self.number = 0

    def tasks(self, view: View) -> list[str]:
        """Ids of the tasks that are, or may become, members."""
        there = {task.id: None for task in view.tasks_of_network(self._network.id)}
        return list({**there, **dict.fromkeys(self._members)})

    def renew(self, view: View, network: Network, task_ids: Iterable[str], *, stale: bool) -> bool:
        """Take over what the view says of these tasks, and with `stale` of the network and the services on
        it, too; returns whether that changed anything."""
        members, removed = self._renew_members(view, task_ids)
        services, removed_services, node_addrs, same = (), (), None, True
        if stale:
            services, removed_services = self._renew_services(view, network)
            node_addrs = self._renew_node_addrs(view, network)
            same = _same_network(self._network, network)
            self._network = network
        change = NetworkChange(
            network_id=network.id,
            members=members,
            removed_members=removed,
            services=services,
            removed_services=removed_services,
            node_addrs=node_addrs,
        )
        if same and change == NetworkChange(network_id=network.id):
            return False
        self.number += 1
        self.change = change if same else None
        self._value = None
        return True

    def _renew_members(
        self, view: View, task_ids: Iterable[str]
    ) -> tuple[tuple[Member, ...], tuple[str, ...]]:
        members: list[Member] = []
        removed: list[str] = []
        for task_id in sorted(task_ids):
            task = view.get(Task, task_id)
            member = member_of(view, task, self._network.id) if task is not None else None
            before = self._members.get(task_id)
            if member == before:
                continue
            if member is None:
                del self._members[task_id]
                removed.append(task_id)
            else:
                self._members[task_id] = member
                members.append(member)
        return tuple(members), tuple(removed)

    def _renew_services(
        self, view: View, network: Network
    ) -> tuple[tuple[ServiceEntry, ...], tuple[str, ...]]:
        before = self._services
        self._services = {entry.service_id: entry for entry in service_entries(view, network)}
        changed = tuple(entry for id, entry in self._services.items() if before.get(id) != entry)
        return changed, tuple(id for id in before if id not in self._services)

    def _renew_node_addrs(self, view: View, network: Network) -> tuple[str, ...] | None:
        addresses = node_addresses(view) if network.spec.ingress else ()
        if addresses == self._node_addrs:
            return None
        self._node_addrs = addresses
        return addresses

    @property
    def value(self) -> NetworkTable:
        """The whole table; the same object as long as it is the same table."""
        if self._value is None:
            self._value = NetworkTable(
                network=self._network,
                members=tuple(self._members[id] for id in sorted(self._members)),
                services=tuple(self._services.values()),
                node_addrs=self._node_addrs,
            )
        return self._value


def _same_network(one: Network, other: Network) -> bool:
    """Whether an agent would do the same for both: the network's version does not matter to it."""
    return one.spec == other.spec and one.pools == other.pools and one.vni == other.vni


class _Targets:
    """The tasks behind one service's ports on the routing mesh, kept task by task."""

    def __init__(self) -> None:
        self._targets: dict[str, IngressTarget] = {}
        self._order: list[str] = []

    def update(self, task_id: str, target: IngressTarget | None) -> bool:
        """Put the task's target, or take it out; returns whether that changed anything."""
        before = self._targets.get(task_id)
        if target == before:
            return False
        if target is None:
            del self._targets[task_id]
            del self._order[bisect_left(self._order, task_id)]
            return True
        if before is None:
            insort(self._order, task_id)
        self._targets[task_id] = target
        return True

    def all(self) -> tuple[IngressTarget, ...]:
        return tuple(map(self._targets.__getitem__, self._order))


class _Ingress:
    """The table of ingress ports, kept service by service and task by task, with a number as `_Table` has."""

    def __init__(self, view: View) -> None:
        network = ingress_network(view)
        self.network_id = network.id if network is not None else ""
        self.number = 0
        self.change: tuple[IngressChange, ...] = ()
        self._targets: dict[str, _Targets] = {}
        self._ports: dict[str, tuple[IngressPort, ...]] = {}
        self._value: tuple[IngressPort, ...] | None = None
        for service in view.services():
            if _mesh_ports(service):
                self._update(view, service.id, [task.id for task in view.tasks_of_service(service.id)])

    def renew(self, view: View, services: Mapping[str, Iterable[str]]) -> bool:
        """Take over what the view says of these services and of these of their tasks; returns whether that
        changed anything."""
        changed = [id for id, task_ids in sorted(services.items()) if self._update(view, id, task_ids)]
        if not changed:
            return False
        self.number += 1
        self.change = tuple(IngressChange(service_id=id, ports=self._ports.get(id, ())) for id in changed)
        self._value = None
        return True

    def replace(self, other: _Ingress) -> None:
        """Become a table that was made anew; where it says something else, nobody who knows this one can be
        told a change."""
        same = other.value == self.value and other.network_id == self.network_id
        number = self.number if same else self.number + 2
        vars(self).update(vars(other))
        self.number = number

    def _update(self, view: View, service_id: str, task_ids: Iterable[str]) -> bool:
        service = view.get(Service, service_id)
        ports = _mesh_ports(service) if service is not None else ()
        if not ports:
            self._targets.pop(service_id, None)
            return self._ports.pop(service_id, None) is not None
        targets = self._targets.get(service_id)
        if targets is None:
            targets = self._targets[service_id] = _Targets()
            task_ids = [task.id for task in view.tasks_of_service(service_id)]
        moved = False
        for task_id in task_ids:
            task = view.get(Task, task_id)
            target = ingress_target(view, task, self.network_id) if task is not None else None
            moved = targets.update(task_id, target) or moved
        known = self._ports.get(service_id, ())
        if not moved and tuple(entry.port for entry in known) == ports:
            return False
        behind = targets.all()
        self._ports[service_id] = tuple(
            IngressPort(service_id=service_id, port=port, targets=behind) for port in ports
        )
        return True

    def __bool__(self) -> bool:
        """Whether there is any port."""
        return bool(self._ports)

    @property
    def value(self) -> tuple[IngressPort, ...]:
        """The whole table; the same object as long as it is the same table."""
        if self._value is None:
            every = (port for ports in self._ports.values() for port in ports)
            self._value = tuple(sorted(every, key=ingress_order))
        return self._value


def _mesh_ports(service: Service) -> tuple[PortConfig, ...]:
    """The service's ports on the routing mesh."""
    ports = service.endpoint.ports if service.endpoint is not None else ()
    return tuple(port for port in ports if port.publish_mode == "ingress" and port.published_port)


class _Tables:
    """All tables, made when first asked for and kept from then on."""

    def __init__(self, view: View) -> None:
        self.networks: dict[str, _Table] = {}
        self.ingress = _Ingress(view)

    def network(self, view: View, network_id: str) -> _Table | None:
        table = self.networks.get(network_id)
        if table is None:
            network = view.get(Network, network_id)
            if network is None:
                return None
            table = self.networks[network_id] = _Table(view, network)
        return table


# ----------------------------------------------------------------------------------------------- whole and part


@dataclass(slots=True)
class _Told:
    """What a node knows."""

    tasks: dict[str, Task]
    needs: _Needs
    networks: dict[str, int]
    """The number of each network's table."""
    ingress: int | None
    """The number of the ingress ports' table; None: the node does not serve ingress."""


def assignments_for(view: View, node_id: str) -> Assignments:
    """The complete set of the node."""
    tables = _Tables(view)
    return _complete(_look(view, node_id, tables), tables)


def _look(view: View, node_id: str, tables: _Tables) -> _Told:
    tasks = _tasks_of(view, node_id)
    needs = _needs_of(view, tasks.values())
    ingress = tables.ingress.number if serves_ingress(view, view.get(Node, node_id)) else None
    if ingress is not None and tables.ingress:
        needs.networks[tables.ingress.network_id] = None
    found = {id: table for id in sorted(needs.networks) if (table := tables.network(view, id)) is not None}
    return _Told(tasks, needs, {id: table.number for id, table in found.items()}, ingress)


def _tasks_of(view: View, node_id: str) -> dict[str, Task]:
    tasks = sorted((task for task in view.tasks_of_node(node_id) if told(task)), key=lambda task: task.id)
    return {task.id: task for task in tasks}


def _complete(now: _Told, tables: _Tables) -> Assignments:
    return Assignments(
        complete=True,
        tasks=tuple(now.tasks.values()),
        secrets=tuple(now.needs.secrets[id] for id in sorted(now.needs.secrets)),
        configs=tuple(now.needs.configs[id] for id in sorted(now.needs.configs)),
        volumes=tuple(now.needs.volumes[id] for id in sorted(now.needs.volumes)),
        networks=tuple(tables.networks[id].value for id in now.networks),
        ingress=tables.ingress.value if now.ingress is not None else (),
    )


def _difference(before: _Told, now: _Told, tables: _Tables) -> Assignments | None:
    """What to tell a node that knows `before`; None when it knows all there is to know."""
    whole, changes = _tables_news(before.networks, now.networks, tables)
    ingress, ingress_changes = _ingress_news(before.ingress, now.ingress, tables.ingress)
    delta = Assignments(
        complete=False,
        tasks=tuple(
            task
            for id, task in now.tasks.items()
            if (old := before.tasks.get(id)) is None or not same_for_agent(old, task)
        ),
        secrets=_newer(before.needs.secrets, now.needs.secrets),
        configs=_newer(before.needs.configs, now.needs.configs),
        volumes=_newer(before.needs.volumes, now.needs.volumes),
        networks=whole,
        network_changes=changes,
        ingress=ingress,
        ingress_changes=ingress_changes,
        removed_tasks=_gone(before.tasks, now.tasks),
        removed_secrets=_gone(before.needs.secrets, now.needs.secrets),
        removed_configs=_gone(before.needs.configs, now.needs.configs),
        removed_volumes=_gone(before.needs.volumes, now.needs.volumes),
        removed_networks=_gone(before.networks, now.networks),
    )
    return None if delta == _NOTHING else delta


def _tables_news(
    before: Mapping[str, int], now: Iterable[str], tables: _Tables
) -> tuple[tuple[NetworkTable, ...], tuple[NetworkChange, ...]]:
    """The networks' tables to be told whole, and the changes to those of which the node has the last one."""
    whole: list[NetworkTable] = []
    changes: list[NetworkChange] = []
    for id in now:
        table, known = tables.networks[id], before.get(id)
        if known == table.number:
            continue
        if known == table.number - 1 and table.change is not None:
            changes.append(table.change)
        else:
            whole.append(table.value)
    return tuple(whole), tuple(changes)


def _ingress_news(
    before: int | None, now: int | None, table: _Ingress
) -> tuple[tuple[IngressPort, ...] | None, tuple[IngressChange, ...]]:
    """The ingress ports' table, whole or what changed."""
    if before == now:
        return None, ()
    if now is None:
        return (), ()
    if before == now - 1:
        return None, table.change
    return (table.value, ()) if table or before is not None else (None, ())


_NOTHING = Assignments(complete=False)


def _newer(before: Mapping[str, _Stored], now: Mapping[str, _Stored]) -> tuple[_Stored, ...]:
    return tuple(obj for id, obj in sorted(now.items()) if id not in before or before[id].spec != obj.spec)


def _gone(before: Mapping[str, object], now: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(sorted(id for id in before if id not in now))


def same_for_agent(one: Task, other: Task) -> bool:
    """Whether two versions of a task ask the same of the agent. What the agent itself reported is not news
    to it, nor is what only managers read."""
    return one is other or (
        one.desired_state == other.desired_state
        and one.spec == other.spec
        and one.networks == other.networks
        and one.endpoint == other.endpoint
        and one.assigned_generic == other.assigned_generic
        and one.service_name == other.service_name
        and one.service_labels == other.service_labels
    )


def _same_for_node(one: Task, other: Task) -> bool:
    """Whether the node is to be told nothing new, of the task or of what it needs."""
    return (
        one.node_id == other.node_id
        and told(one) == told(other)
        and _live(one) == _live(other)
        and same_for_agent(one, other)
    )


class Tracker:
    """What every connected node was told.

    `changed` is given each committed change, before or after the view shows it; `collect` then says, for all
    changes since the last call together, what each node is to be told. A node is followed from `open` to
    `close`.
    """

    def __init__(self) -> None:
        self._told: dict[str, _Told] = {}
        self._view: View | None = None
        self._tables: _Tables | None = None
        self._followers: dict[str, dict[str, None]] = {}
        self._forget_changes()

    def _forget_changes(self) -> None:
        self._nodes: dict[str, None] = {}
        self._members: dict[str, dict[str, None]] = {}
        self._networks: dict[str, None] = {}
        self._services: dict[str, dict[str, None]] = {}
        self._moved_nodes: dict[str, None] = {}
        self._needed: dict[str, None] = {}
        self._all_nodes = False

    # ------------------------------------------------------------------------------------------------ sessions

    def open(self, view: View, node_id: str) -> Assignments:
        """Follow the node from now on; returns its complete set."""
        tables = self._tables_of(view)
        self.close(node_id)
        # Changes not collected yet may be in the tables or not; the node gets them again, which is harmless.
        now = self._told[node_id] = _look(view, node_id, tables)
        self._follow(node_id, (), now.networks)
        return _complete(now, tables)

    def _tables_of(self, view: View) -> _Tables:
        """The tables; looked at whole when the view is another one: the state was read again, and whatever
        happened meanwhile shows when each node is looked at."""
        if self._tables is None:
            self._tables = _Tables(view)
        elif self._view is not view:
            self._forget_changes()
            self._all_nodes = True
            self._tables.ingress.replace(_Ingress(view))
            for network_id, table in list(self._tables.networks.items()):
                network = view.get(Network, network_id)
                if network is None:
                    del self._tables.networks[network_id]
                else:
                    table.renew(view, network, table.tasks(view), stale=True)
        self._view = view
        return self._tables

    def close(self, node_id: str) -> None:
        """The node is not connected any more."""
        known = self._told.pop(node_id, None)
        if known is not None:
            self._follow(node_id, known.networks, ())

    def _follow(self, node_id: str, before: Iterable[str], now: Iterable[str]) -> None:
        for network_id in before:
            self._followers[network_id].pop(node_id, None)
        for network_id in now:
            self._followers.setdefault(network_id, {})[node_id] = None

    # ------------------------------------------------------------------------------------------------- changes

    def changed(self, change: Changed) -> None:
        """Note a committed change."""
        obj = change.obj
        if isinstance(obj, Task):
            self._task_changed(change)
        elif isinstance(obj, Service):
            self._service_changed(change)
        elif isinstance(obj, Node):
            self._node_changed(change)
        elif isinstance(obj, Network):
            self._networks[obj.id] = None
            self._all_nodes = self._all_nodes or obj.spec.ingress
        elif isinstance(obj, (Secret, Config)):
            self._needed[obj.id] = None
        else:
            self._all_nodes = self._all_nodes or isinstance(obj, Volume) or not _same_selector(change)

    def _task_changed(self, change: Changed) -> None:
        before, after = change.before, change.after
        tasks = [task for task in (before, after) if isinstance(task, Task)]
        if len(tasks) < 2 or not _same_for_node(*tasks):
            self._nodes.update((task.node_id, None) for task in tasks if task.node_id)
        for task in tasks:
            self._note_member(task)

    def _note_member(self, task: Task) -> None:
        for attachment in task.networks:
            self._members.setdefault(attachment.network_id, {})[task.id] = None
        if task.endpoint.ports and task.service_id:
            self._services.setdefault(task.service_id, {})[task.id] = None

    def _service_changed(self, change: Changed) -> None:
        before, after = change.before, change.after
        self._services.setdefault(change.obj.id, {})
        if isinstance(before, Service) and isinstance(after, Service):
            same_networks = before.spec.task.networks == after.spec.task.networks
            if before.endpoint == after.endpoint and same_networks:
                return
        for service in (before, after):
            if isinstance(service, Service):
                self._networks.update((wish.target, None) for wish in service.spec.task.networks)
                vips = service.endpoint.virtual_ips if service.endpoint is not None else ()
                self._networks.update((vip.network_id, None) for vip in vips)

    def _node_changed(self, change: Changed) -> None:
        before, after = change.before, change.after
        self._nodes[change.obj.id] = None
        moved = (
            not isinstance(before, Node)
            or not isinstance(after, Node)
            or before.data_path_addr != after.data_path_addr
            or before.description.hostname != after.description.hostname
        )
        if moved:
            self._moved_nodes[change.obj.id] = None

    def collect(self, view: View) -> dict[str, Assignments]:
        """The deltas of the connected nodes for all changes since the last call, by node id."""
        tables = self._tables_of(view)
        self._note_moved_nodes(view, tables)
        renewed = self._update_tables(view, tables)
        had_ports, former = bool(tables.ingress), tables.ingress.number
        self._update_ingress(view, tables)
        nodes = dict(self._nodes)
        if self._needed:
            nodes.update((id, None) for id, known in self._told.items() if self._uses_changed(known))
        if self._all_nodes or had_ports != bool(tables.ingress):
            nodes.update(dict.fromkeys(self._told))
        deltas = self._whole(view, nodes)
        others = dict.fromkeys(id for network in renewed for id in self._followers.get(network, ()))
        if tables.ingress.number != former:
            others.update((id, None) for id, known in self._told.items() if known.ingress is not None)
        for node_id in sorted(id for id in others if id not in nodes):
            deltas[node_id] = self._tables_only(node_id, renewed, tables)
        self._forget_changes()
        return deltas

    def _note_moved_nodes(self, view: View, tables: _Tables) -> None:
        """The addresses of their tasks lie behind another VXLAN endpoint now."""
        for node_id in self._moved_nodes:
            for task in view.tasks_of_node(node_id):
                self._note_member(task)
        if self._moved_nodes and tables.ingress.network_id:
            self._networks[tables.ingress.network_id] = None

    def _uses_changed(self, known: _Told) -> bool:
        needs = known.needs
        return any(id in needs.secrets or id in needs.configs or id in needs.volumes for id in self._needed)

    def _update_tables(self, view: View, tables: _Tables) -> list[str]:
        """Bring the tables up to date; returns the networks of those that became others, or are gone."""
        renewed: list[str] = []
        for network_id in sorted(dict.fromkeys((*self._members, *self._networks))):
            table = tables.networks.get(network_id)
            if table is None:
                continue
            network = view.get(Network, network_id)
            if network is None:
                del tables.networks[network_id]
                renewed.append(network_id)
                continue
            task_ids = self._members.get(network_id, ())
            if table.renew(view, network, task_ids, stale=network_id in self._networks):
                renewed.append(network_id)
        return renewed

    def _update_ingress(self, view: View, tables: _Tables) -> None:
        network = ingress_network(view)
        if (network.id if network is not None else "") != tables.ingress.network_id:
            self._all_nodes = True
            tables.ingress.replace(_Ingress(view))
        else:
            tables.ingress.renew(view, self._services)

    def _whole(self, view: View, nodes: Iterable[str]) -> dict[str, Assignments]:
        """Look again at everything that these nodes are told."""
        assert self._tables is not None
        deltas: dict[str, Assignments] = {}
        for node_id in sorted(nodes):
            before = self._told.get(node_id)
            if before is None:
                continue
            now = self._told[node_id] = _look(view, node_id, self._tables)
            self._follow(node_id, before.networks, now.networks)
            delta = _difference(before, now, self._tables)
            if delta is not None:
                deltas[node_id] = delta
        return deltas

    def _tables_only(self, node_id: str, renewed: Iterable[str], tables: _Tables) -> Assignments:
        """Tell the node of tables that became others; its own tasks and what they need did not change."""
        known = self._told[node_id]
        mine = [id for id in renewed if id in known.networks]
        gone = tuple(id for id in mine if id not in tables.networks)
        stay = [id for id in mine if id in tables.networks]
        whole, changes = _tables_news(known.networks, stay, tables)
        for id in gone:
            del known.networks[id]
        self._follow(node_id, gone, ())
        known.networks.update((id, tables.networks[id].number) for id in stay)
        ingress, ingress_changes = None, ()
        if known.ingress is not None:
            ingress, ingress_changes = _ingress_news(known.ingress, tables.ingress.number, tables.ingress)
            known.ingress = tables.ingress.number
        return Assignments(
            complete=False,
            networks=whole,
            network_changes=changes,
            removed_networks=gone,
            ingress=ingress,
            ingress_changes=ingress_changes,
        )


def _same_selector(change: Changed) -> bool:
    before, after = change.before, change.after
    return (
        isinstance(before, Cluster)
        and isinstance(after, Cluster)
        and before.spec.ingress_node_selector == after.spec.ingress_node_selector
    )
