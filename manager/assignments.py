"""What each node is told: its tasks, what they need, and the tables of its networks and of the ingress.

`assignments_for` is the complete set for one node. `Tracker` remembers what each connected node was told
and, after a commit, says which nodes get which delta. Tables are made once per network and shared by all
nodes as the same object, so that a sender can encode each of them once.

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
    IngressPort,
    IngressTarget,
    Member,
    Network,
    NetworkAttachment,
    NetworkTable,
    Node,
    Secret,
    Service,
    ServiceEntry,
    Task,
    TaskState,
    Volume,
    alive,
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


def _port_order(port: IngressPort) -> tuple[str, int, str]:
    return (port.port.protocol, port.port.published_port, port.service_id)


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
    """The table of one network, kept member by member."""

    def __init__(self, view: View, network_id: str) -> None:
        self._id = network_id
        self._members: dict[str, Member] = {}
        self._order: list[str] = []
        self._services: tuple[ServiceEntry, ...] = ()
        self.value: NetworkTable | None = None
        self.stale = True
        """Whether the network itself or a service on it changed."""
        self._moved = True
        for task in view.tasks_of_network(network_id):
            self.update(view, task.id)

    def update(self, view: View, task_id: str) -> None:
        """Take over what the view says of the task."""
        task = view.get(Task, task_id)
        member = member_of(view, task, self._id) if task is not None else None
        before = self._members.get(task_id)
        if member == before:
            return
        self._moved = True
        if member is None:
            del self._members[task_id]
            del self._order[bisect_left(self._order, task_id)]
            return
        if before is None:
            insort(self._order, task_id)
        self._members[task_id] = member

    def make(self, view: View) -> NetworkTable | None:
        """The table now; the same object as before when nothing in it changed."""
        network = view.get(Network, self._id)
        if network is None:
            self.value = None
            return None
        if not self.stale and not self._moved:
            return self.value
        if self.stale:
            self._services = service_entries(view, network)
        moved, self.stale, self._moved = self._moved, False, False
        members = tuple(map(self._members.__getitem__, self._order))
        addresses = node_addresses(view) if network.spec.ingress else ()
        table = NetworkTable(network=network, members=members, services=self._services, node_addrs=addresses)
        if moved or self.value is None or not _same_table(self.value, table):
            self.value = table
        return self.value


def _same_table(one: NetworkTable, other: NetworkTable) -> bool:
    """Whether an agent would do the same for both: the network's version does not matter to it."""
    return (
        one.members == other.members
        and one.services == other.services
        and one.node_addrs == other.node_addrs
        and one.network.spec == other.network.spec
        and one.network.pools == other.network.pools
        and one.network.vni == other.network.vni
    )


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
    """The table of ingress ports, kept service by service and task by task."""

    def __init__(self, view: View) -> None:
        network = ingress_network(view)
        self.network_id = network.id if network is not None else ""
        self._targets: dict[str, _Targets] = {}
        self._ports: dict[str, tuple[IngressPort, ...]] = {}
        self.value: tuple[IngressPort, ...] = ()
        for service in view.services():
            if _mesh_ports(service):
                self.update(view, service.id, [task.id for task in view.tasks_of_service(service.id)])
        self.make()

    def update(self, view: View, service_id: str, task_ids: Iterable[str]) -> None:
        """Take over what the view says of the service and of these of its tasks."""
        service = view.get(Service, service_id)
        ports = _mesh_ports(service) if service is not None else ()
        if not ports:
            self._ports.pop(service_id, None)
            self._targets.pop(service_id, None)
            return
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
        if moved or tuple(entry.port for entry in known) != ports:
            behind = targets.all()
            self._ports[service_id] = tuple(
                IngressPort(service_id=service_id, port=port, targets=behind) for port in ports
            )

    def make(self) -> tuple[IngressPort, ...]:
        """The table now; the same object as before when nothing in it changed."""
        ports = tuple(sorted((p for ports in self._ports.values() for p in ports), key=_port_order))
        if ports != self.value:
            self.value = ports
        return self.value


def _mesh_ports(service: Service) -> tuple[PortConfig, ...]:
    """The service's ports on the routing mesh."""
    ports = service.endpoint.ports if service.endpoint is not None else ()
    return tuple(port for port in ports if port.publish_mode == "ingress" and port.published_port)


class _Tables:
    """All tables, made when first asked for and kept from then on."""

    def __init__(self, view: View) -> None:
        self.networks: dict[str, _Table] = {}
        self.ingress = _Ingress(view)

    def network(self, view: View, network_id: str) -> NetworkTable | None:
        table = self.networks.get(network_id)
        if table is None:
            table = self.networks[network_id] = _Table(view, network_id)
            return table.make(view)
        return table.value


# ----------------------------------------------------------------------------------------------- whole and part


@dataclass(slots=True)
class _Told:
    """What a node knows."""

    tasks: dict[str, Task]
    needs: _Needs
    networks: dict[str, NetworkTable]
    ingress: tuple[IngressPort, ...] | None
    """None: the node does not serve ingress."""


def assignments_for(view: View, node_id: str) -> Assignments:
    """The complete set of the node."""
    return _complete(_look(view, node_id, _Tables(view)))


def _look(view: View, node_id: str, tables: _Tables) -> _Told:
    tasks = _tasks_of(view, node_id)
    needs = _needs_of(view, tasks.values())
    ingress = tables.ingress.value if serves_ingress(view, view.get(Node, node_id)) else None
    if ingress:
        needs.networks[tables.ingress.network_id] = None
    networks = {id: table for id in sorted(needs.networks) if (table := tables.network(view, id)) is not None}
    return _Told(tasks, needs, networks, ingress)


def _tasks_of(view: View, node_id: str) -> dict[str, Task]:
    tasks = sorted((task for task in view.tasks_of_node(node_id) if told(task)), key=lambda task: task.id)
    return {task.id: task for task in tasks}


def _complete(now: _Told) -> Assignments:
    return Assignments(
        complete=True,
        tasks=tuple(now.tasks.values()),
        secrets=tuple(now.needs.secrets[id] for id in sorted(now.needs.secrets)),
        configs=tuple(now.needs.configs[id] for id in sorted(now.needs.configs)),
        volumes=tuple(now.needs.volumes[id] for id in sorted(now.needs.volumes)),
        networks=tuple(now.networks.values()),
        ingress=now.ingress or (),
    )


def _difference(before: _Told, now: _Told) -> Assignments | None:
    """What to tell a node that knows `before`; None when it knows all there is to know."""
    ingress = now.ingress or ()
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
        networks=tuple(
            table for id, table in now.networks.items() if not _known_table(before.networks.get(id), table)
        ),
        ingress=ingress if ingress != (before.ingress or ()) else None,
        removed_tasks=_gone(before.tasks, now.tasks),
        removed_secrets=_gone(before.needs.secrets, now.needs.secrets),
        removed_configs=_gone(before.needs.configs, now.needs.configs),
        removed_volumes=_gone(before.needs.volumes, now.needs.volumes),
        removed_networks=_gone(before.networks, now.networks),
    )
    return None if delta == _NOTHING else delta


_NOTHING = Assignments(complete=False)


def _known_table(known: NetworkTable | None, table: NetworkTable) -> bool:
    return known is table or (known is not None and _same_table(known, table))


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
        return _complete(now)

    def _tables_of(self, view: View) -> _Tables:
        """The tables, made anew when the view is another one: the state was read again, and whatever
        happened meanwhile shows when each node is looked at."""
        if self._view is not view or self._tables is None:
            self._view, self._tables = view, _Tables(view)
            self._forget_changes()
            self._all_nodes = True
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
        ingress_before = tables.ingress.value
        self._update_ingress(view, tables)
        nodes = dict(self._nodes)
        if self._needed:
            nodes.update((id, None) for id, known in self._told.items() if self._uses_changed(known))
        if self._all_nodes or bool(ingress_before) != bool(tables.ingress.value):
            nodes.update(dict.fromkeys(self._told))
        deltas = self._whole(view, nodes)
        moved_ports = ingress_before is not tables.ingress.value
        others = dict.fromkeys(id for network in renewed for id in self._followers.get(network, ()))
        if moved_ports:
            others.update((id, None) for id, known in self._told.items() if known.ingress is not None)
        for node_id in sorted(id for id in others if id not in nodes):
            deltas[node_id] = self._tables_only(
                node_id, renewed, tables.ingress.value if moved_ports else None
            )
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

    def _update_tables(self, view: View, tables: _Tables) -> dict[str, NetworkTable | None]:
        """Bring the tables up to date; returns those that became others, None for one that is gone."""
        stale = dict.fromkeys((*self._members, *self._networks))
        renewed: dict[str, NetworkTable | None] = {}
        for network_id in sorted(stale):
            table = tables.networks.get(network_id)
            if table is None:
                continue
            for task_id in self._members.get(network_id, ()):
                table.update(view, task_id)
            table.stale = table.stale or network_id in self._networks
            before = table.value
            if table.make(view) is not before:
                renewed[network_id] = table.value
            if table.value is None:
                del tables.networks[network_id]
        return renewed

    def _update_ingress(self, view: View, tables: _Tables) -> None:
        network = ingress_network(view)
        if (network.id if network is not None else "") != tables.ingress.network_id:
            before = tables.ingress.value
            tables.ingress = _Ingress(view)
            self._all_nodes = self._all_nodes or before != tables.ingress.value
            return
        for service_id, task_ids in self._services.items():
            tables.ingress.update(view, service_id, task_ids)
        tables.ingress.make()

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
            delta = _difference(before, now)
            if delta is not None:
                deltas[node_id] = delta
        return deltas

    def _tables_only(
        self,
        node_id: str,
        renewed: Mapping[str, NetworkTable | None],
        ingress: tuple[IngressPort, ...] | None,
    ) -> Assignments:
        """Tell the node of tables that became others (and of the ingress, unless None); its own tasks and
        what they need did not change."""
        known = self._told[node_id]
        mine = {id: renewed[id] for id in sorted(renewed) if id in known.networks}
        gone = tuple(id for id, table in mine.items() if table is None)
        for id in gone:
            del known.networks[id]
        self._follow(node_id, gone, ())
        now = {id: table for id, table in mine.items() if table is not None}
        known.networks.update(now)
        if known.ingress is None:
            ingress = None
        elif ingress is not None:
            known.ingress = ingress
        return Assignments(
            complete=False, networks=tuple(now.values()), removed_networks=gone, ingress=ingress
        )


def _same_selector(change: Changed) -> bool:
    before, after = change.before, change.after
    return (
        isinstance(before, Cluster)
        and isinstance(after, Cluster)
        and before.spec.ingress_node_selector == after.spec.ingress_node_selector
    )
