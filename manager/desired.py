"""What users' requests mean for the desired state: specs in, objects to write out.

Every function is a mutation's body: it reads the transaction's view, checks, and stages objects. Nothing here
waits or does I/O, so a whole stack is one transaction: all of it is valid, or nothing changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from manager import query, trust, validate
from manager.allocator import check_ports
from manager.controller import Transaction
from manager.state import View
from pyswarm.api import DeployAction, DeployRequest, DeployResponse
from pyswarm.errors import Conflict, Invalid, NotFound, PyswarmError
from pyswarm.objects import (
    Cluster,
    Config,
    JobStatus,
    Kind,
    Network,
    Node,
    NodeState,
    Object,
    Secret,
    Service,
    Task,
    TaskState,
    UpdateStatus,
    Volume,
)
from pyswarm.specs import (
    STACK_LABEL,
    VERSION_OF_LABEL,
    ClusterSpec,
    ConfigSpec,
    FileReference,
    NetworkAttachmentSpec,
    NetworkSpec,
    NodeSpec,
    SecretSpec,
    ServiceSpec,
    VolumeSpec,
)

DEFAULT_NETWORK = "bridge"
"""What services that name no network are on, so that they reach the outside as with docker."""

FileT = TypeVar("FileT", Secret, Config)


def is_job(spec: ServiceSpec) -> bool:
    return spec.mode.kind.endswith("-job")


# ---------------------------------------------------------------------------------------------- services


def resolved(view: View, spec: ServiceSpec) -> ServiceSpec:
    """The spec with names of networks, secrets and configs replaced by ids. Raises NotFound with every
    name that does not exist."""
    missing: list[str] = []
    container = spec.task.container
    secrets = _resolve_files(view, Secret, container.secrets, missing)
    configs = _resolve_files(view, Config, container.configs, missing)
    networks = _resolve_networks(view, spec, missing)
    if missing:
        raise NotFound(f"service {spec.name}: " + "; ".join(missing))
    container = replace(container, secrets=secrets, configs=configs)
    return replace(spec, task=replace(spec.task, container=container, networks=networks))


def _resolve_files(
    view: View, cls: type[Secret] | type[Config], files: Iterable[FileReference], missing: list[str]
) -> tuple[FileReference, ...]:
    out: list[FileReference] = []
    for file in files:
        found = view.get(cls, file.source_id) if file.source_id else None
        found = found or view.by_name(cls, file.source_name)
        if found is None:
            what = cls.__name__.lower()
            missing.append(f"{what} {file.source_name or file.source_id} not found: create it first")
            continue
        out.append(replace(file, source_id=found.id, source_name=found.spec.name))
    return tuple(out)


def _resolve_networks(view: View, spec: ServiceSpec, missing: list[str]) -> tuple[NetworkAttachmentSpec, ...]:
    wanted = spec.task.networks
    if not wanted and not spec.task.container.network_mode:
        default = view.by_name(Network, DEFAULT_NETWORK)
        return (NetworkAttachmentSpec(target=default.id),) if default is not None else ()
    out: list[NetworkAttachmentSpec] = []
    for attachment in wanted:
        network = view.get(Network, attachment.target) or view.by_name(Network, attachment.target)
        if network is None or network.pending_delete:
            missing.append(f"network {attachment.target} not found")
        elif network.spec.ingress:
            missing.append(f"network {network.spec.name} is the routing mesh's own: publish a port instead")
        elif any(a.target == network.id for a in out):
            missing.append(f"network {network.spec.name} is named twice")
        else:
            out.append(replace(attachment, target=network.id))
    return tuple(out)


class StillThere(Conflict):
    """An object of that name is on its way out: when it is gone, the same request succeeds."""


def create_service(tx: Transaction, spec: ServiceSpec, id: str = "") -> Service:
    """Conflict when the name or a published port is taken. `id` is for a create that may be repeated."""
    service = _create_service(tx, spec, id)
    check_ports(tx.view, service)
    return service


def _create_service(tx: Transaction, spec: ServiceSpec, id: str = "") -> Service:
    """Without the look at the ports, which waits until all services of a request show theirs."""
    validate.service(spec)
    _free_name(tx.view, Service, spec.name)
    job = JobStatus(iteration=0, last_execution=tx.now) if is_job(spec) else None
    service = Service(id=id or tx.view.new_id(), spec=resolved(tx.view, spec), job_status=job)
    tx.put(service)
    return service


def update_service(tx: Transaction, service: Service, spec: ServiceSpec, *, force: bool = False) -> Service:
    """The service with its new spec; unchanged when it says the same as the old one. Conflict when a port that
    it publishes is taken."""
    changed = _update_service(tx, service, spec, force=force)
    check_ports(tx.view, changed)
    return changed


def _update_service(tx: Transaction, service: Service, spec: ServiceSpec, *, force: bool = False) -> Service:
    validate.service(spec)
    if service.pending_delete:
        raise StillThere(f"service {service.spec.name} is being removed")
    if spec.name != service.spec.name:
        raise Invalid(
            f"service {service.spec.name}: services cannot be renamed: create {spec.name} and remove it"
        )
    if spec.mode.kind != service.spec.mode.kind:
        raise Invalid(
            f"service {spec.name}: the mode cannot change from {service.spec.mode.kind} to {spec.mode.kind}: "
            "remove the service and create it again"
        )
    spec = resolved(tx.view, spec)
    if force:
        spec = replace(spec, task=replace(spec.task, force_update=service.spec.task.force_update + 1))
    if spec == service.spec:
        return service
    changed = replace(
        service,
        spec=spec,
        spec_version=service.spec_version + 1,
        previous_spec=service.spec,
        previous_spec_version=service.spec_version,
        update_status=None,
        job_status=_next_run(service, tx.now),
    )
    tx.put(changed)
    return changed


def _next_run(service: Service, now: float) -> JobStatus | None:
    """An updated job runs again: its next iteration. One with a schedule waits for its time."""
    job = service.job_status
    if job is None or service.spec.cron is not None:
        return job
    return JobStatus(iteration=job.iteration + 1, last_execution=now)


def rollback_service(tx: Transaction, service: Service) -> Service:
    """Swap the spec with the previous one. NotFound when something that it names is gone, Conflict when a port
    that it publishes is taken meanwhile."""
    if service.pending_delete:
        raise Conflict(f"service {service.spec.name} is being removed")
    if service.previous_spec is None:
        raise Invalid(f"service {service.spec.name} has no previous version to go back to")
    changed = replace(
        service,
        spec=resolved(tx.view, service.previous_spec),
        spec_version=service.spec_version + 1,
        previous_spec=service.spec,
        previous_spec_version=service.spec_version,
        update_status=UpdateStatus(
            state="rollback_started", started_at=tx.now, message="manually requested rollback"
        ),
        job_status=_next_run(service, tx.now),
    )
    tx.put(changed)
    check_ports(tx.view, changed)
    return changed


# ---------------------------------------------------------------------------------------------- others


def _free_name(view: View, cls: type[Service | Network | Volume | Secret | Config], name: str) -> None:
    taken = view.by_name(cls, name)
    if taken is None:
        return
    what = cls.__name__.lower()
    if isinstance(taken, (Service, Network)) and taken.pending_delete:
        raise StillThere(f"{what} {name} is still being removed: try again when it is gone")
    raise Conflict(f"{what} {name} already exists")


CheckNetwork = Callable[[View, NetworkSpec], None]
"""Whether the network's subnets are free (`manager.allocator.check_network`); raises if not."""


class Builder:
    """Creates the objects that need the manager's own parts: subnets checked, payloads sealed."""

    def __init__(
        self, check_network: CheckNetwork, seal: Callable[[bytes], bytes], unseal: Callable[[bytes], bytes]
    ) -> None:
        self._check_network = check_network
        self._seal = seal
        self._unseal = unseal

    def network(self, tx: Transaction, spec: NetworkSpec, id: str = "") -> Network:
        validate.network(spec)
        _free_name(tx.view, Network, spec.name)
        self._check_network(tx.view, spec)
        network = Network(id=id or tx.view.new_id(), spec=spec)
        tx.put(network)
        return network

    def volume(self, tx: Transaction, spec: VolumeSpec, id: str = "") -> Volume:
        validate.volume(spec)
        _free_name(tx.view, Volume, spec.name)
        volume = Volume(id=id or tx.view.new_id(), spec=spec)
        tx.put(volume)
        return volume

    def secret(self, tx: Transaction, spec: SecretSpec, id: str = "") -> Secret:
        validate.secret(spec)
        _free_name(tx.view, Secret, spec.name)
        secret = Secret(id=id or tx.view.new_id(), spec=replace(spec, data=self._seal(spec.data)))
        tx.put(secret)
        return secret

    def config(self, tx: Transaction, spec: ConfigSpec, id: str = "") -> Config:
        validate.config(spec)
        _free_name(tx.view, Config, spec.name)
        config = Config(id=id or tx.view.new_id(), spec=spec)
        tx.put(config)
        return config

    def content(self, obj: Secret | Config) -> bytes:
        """The payload in clear."""
        return self._unseal(obj.spec.data) if isinstance(obj, Secret) else obj.spec.data

    # ------------------------------------------------------------------------------ stacks

    def deploy(self, tx: Transaction, request: DeployRequest) -> DeployResponse:
        """Bring a whole stack to the request's state. Raises with every problem, changing nothing."""
        actions: list[DeployAction] = []
        problems: list[str] = []

        def attempt(work: Callable[[], DeployAction]) -> None:
            try:
                actions.append(work())
            except StillThere:
                raise
            except PyswarmError as error:
                problems.append(str(error))

        for network in request.networks:
            attempt(lambda spec=network: self._deploy_network(tx, spec))
        for volume in request.volumes:
            attempt(lambda spec=volume: self._deploy_volume(tx, spec))
        names: dict[tuple[Kind, str], str] = {}
        for secret in request.secrets:
            attempt(lambda spec=secret: self._deploy_file(tx, Secret, spec, names))
        for config in request.configs:
            attempt(lambda spec=config: self._deploy_file(tx, Config, spec, names))
        for service in request.services:
            attempt(lambda spec=service: _deploy_service(tx, _renamed(spec, names)))
        problems += _port_problems(tx.view, [action.id for action in actions if action.kind == "service"])
        if problems:
            raise Invalid(f"stack {request.stack}: " + "\n".join(problems))
        warnings: list[str] = []
        if request.prune:
            actions += self._prune(tx, request, names, warnings)
        return DeployResponse(actions=tuple(actions), warnings=tuple(warnings))

    def _deploy_network(self, tx: Transaction, spec: NetworkSpec) -> DeployAction:
        found = tx.view.by_name(Network, spec.name)
        if found is not None and not found.pending_delete:
            if found.spec != spec and replace(found.spec, labels=spec.labels) != spec:
                raise Conflict(
                    f"network {spec.name} exists with other settings, and a network cannot be changed: "
                    "remove the stack's services and the network first, or give it another name"
                )
            return DeployAction(kind="network", name=spec.name, id=found.id, action="unchanged")
        network = self.network(tx, spec)
        return DeployAction(kind="network", name=spec.name, id=network.id)

    def _deploy_volume(self, tx: Transaction, spec: VolumeSpec) -> DeployAction:
        found = tx.view.by_name(Volume, spec.name)
        if found is not None:
            return DeployAction(kind="volume", name=spec.name, id=found.id, action="unchanged")
        return DeployAction(kind="volume", name=spec.name, id=self.volume(tx, spec).id)

    def _deploy_file(
        self,
        tx: Transaction,
        cls: type[Secret] | type[Config],
        spec: SecretSpec | ConfigSpec,
        names: dict[tuple[Kind, str], str],
    ) -> DeployAction:
        """A secret or config of a stack: what exists with this content is used, new content becomes a new
        object, since a payload never changes."""
        kind: Kind = "secret" if cls is Secret else "config"
        current = self._version_with(tx.view, cls, spec)
        if current is not None:
            names[kind, spec.name] = current.spec.name
            labels = _labels_of_version(spec, current)
            if labels != current.spec.labels:
                update_labels(tx, current, labels, same=True)
            action = "unchanged" if labels == current.spec.labels else "update"
            return DeployAction(kind=kind, name=current.spec.name, id=current.id, action=action)
        name, action = spec.name, "create"
        if tx.view.by_name(cls, spec.name) is not None:
            name = f"{spec.name}-{_version_mark(tx.view, spec)}"
            spec = replace(spec, name=name, labels={**spec.labels, VERSION_OF_LABEL: spec.name})
            action = "update"
        made = self.secret(tx, spec) if isinstance(spec, SecretSpec) else self.config(tx, spec)
        names[kind, spec.labels.get(VERSION_OF_LABEL, spec.name)] = name
        return DeployAction(kind=kind, name=name, id=made.id, action=action)

    def _version_with(
        self, view: View, cls: type[Secret] | type[Config], spec: SecretSpec | ConfigSpec
    ) -> Secret | Config | None:
        for candidate in _versions(view, cls, spec.name):
            if self.content(candidate) == spec.data:
                return candidate
        return None

    def _prune(
        self,
        tx: Transaction,
        request: DeployRequest,
        names: Mapping[tuple[Kind, str], str],
        warnings: list[str],
    ) -> list[DeployAction]:
        keep: dict[Kind, set[str]] = {
            "service": {s.name for s in request.services},
            "network": {n.name for n in request.networks},
            "secret": _kept_versions(tx.view, request.stack, "secret", names),
            "config": _kept_versions(tx.view, request.stack, "config", names),
        }
        return [
            action
            for kind in ("service", "network", "secret", "config")
            for action in _remove_stack_objects(tx, request.stack, kind, keep[kind], warnings)
        ]


def _kept_versions(view: View, stack: str, kind: Kind, names: Mapping[tuple[Kind, str], str]) -> set[str]:
    """Names of all versions of the secrets or configs that a deploy names: former ones are collected once
    neither a service, nor its way back, nor a task needs them (`manager.orchestrator.configs`)."""
    versions = [o for o in _of_stack(view, kind, stack) if isinstance(o, (Secret, Config))]
    return {
        o.spec.name for o in versions if (kind, o.spec.labels.get(VERSION_OF_LABEL, o.spec.name)) in names
    }


def _port_problems(view: View, service_ids: Iterable[str]) -> list[str]:
    problems: list[str] = []
    for service_id in service_ids:
        service = view.get(Service, service_id)
        assert service is not None
        try:
            check_ports(view, service)
        except Conflict as error:
            problems.append(str(error))
    return problems


def _versions(view: View, cls: type[Secret] | type[Config], name: str) -> list[Secret | Config]:
    """All versions of a stack's secret or config, the newest first."""
    everything = view.secrets() if cls is Secret else view.configs()
    found = [o for o in everything if name in (o.spec.name, o.spec.labels.get(VERSION_OF_LABEL))]
    return sorted(found, key=lambda o: (-o.meta.created_at, o.id))


def _labels_of_version(spec: SecretSpec | ConfigSpec, version: Secret | Config) -> Mapping[str, str]:
    """The labels that the version is to have: those of the Compose file, and whose version it is."""
    base = version.spec.labels.get(VERSION_OF_LABEL)
    return spec.labels if base is None else {**spec.labels, VERSION_OF_LABEL: base}


def _version_mark(view: View, spec: SecretSpec | ConfigSpec) -> str:
    """What tells a new version's name from the former ones. A secret's does not come from its content: names are
    shown, and a short password could be guessed from its digest."""
    if isinstance(spec, SecretSpec):
        return view.new_id()[:10]
    return hashlib.sha256(spec.data).hexdigest()[:10]


def _referenced(view: View) -> set[str]:
    """Ids of the secrets and configs that services need, now or to go back to their previous version; those of
    services that are being removed do not count."""
    specs = [
        spec for s in view.services() if not s.pending_delete for spec in (s.spec, s.previous_spec) if spec
    ]
    containers = [spec.task.container for spec in specs]
    return {file.source_id for c in containers for file in (*c.secrets, *c.configs)}


def _renamed(spec: ServiceSpec, names: Mapping[tuple[Kind, str], str]) -> ServiceSpec:
    """With references to the versions that this deploy chose; targets keep the names people wrote."""

    def rename(kind: Kind, files: Sequence[FileReference]) -> tuple[FileReference, ...]:
        return tuple(
            replace(
                f,
                source_name=names.get((kind, f.source_name), f.source_name),
                target=f.target or f.source_name,
            )
            for f in files
        )

    container = spec.task.container
    container = replace(
        container, secrets=rename("secret", container.secrets), configs=rename("config", container.configs)
    )
    return replace(spec, task=replace(spec.task, container=container))


def _deploy_service(tx: Transaction, spec: ServiceSpec) -> DeployAction:
    found = tx.view.by_name(Service, spec.name)
    if found is None:
        return DeployAction(kind="service", name=spec.name, id=_create_service(tx, spec).id)
    spec = replace(spec, task=replace(spec.task, force_update=found.spec.task.force_update))
    changed = _update_service(tx, found, spec)
    action = "unchanged" if changed is found else "update"
    return DeployAction(kind="service", name=spec.name, id=found.id, action=action)


def _of_stack(view: View, kind: Kind, stack: str) -> list[Object]:
    return [o for o in query.objects(view, kind) if query.labels_of(o).get(STACK_LABEL) == stack]


def _remove_stack_objects(
    tx: Transaction, stack: str, kind: Kind, keep: set[str], warnings: list[str]
) -> list[DeployAction]:
    """Let the stack's objects of a kind go, but for those to keep and those that other services still need."""
    actions: list[DeployAction] = []
    needed = _referenced(tx.view)
    for obj in _of_stack(tx.view, kind, stack):
        name = query.display_name(obj)
        if name in keep or (isinstance(obj, (Service, Network)) and obj.pending_delete):
            continue
        if users := _users(tx.view, obj):
            warnings.append(f"{kind} {name} stays: it is in use by the service(s) {', '.join(users)}")
            continue
        if isinstance(obj, (Service, Network)):
            tx.put(replace(obj, pending_delete=True))
        elif obj.id not in needed:
            tx.delete(obj)
        else:
            continue
        actions.append(DeployAction(kind=kind, name=name, id=obj.id, action="remove"))
    return actions


def remove_stack(tx: Transaction, stack: str) -> DeployResponse:
    """Let everything of the stack go but its volumes; NotFound when there is nothing."""
    warnings: list[str] = []
    actions = [
        action
        for kind in ("service", "secret", "config", "network")
        for action in _remove_stack_objects(tx, stack, kind, set(), warnings)
    ]
    if (
        not actions
        and not warnings
        and not any(_of_stack(tx.view, kind, stack) for kind in ("service", "network"))
    ):
        raise NotFound(f"nothing found in stack: {stack}")
    return DeployResponse(actions=tuple(actions), warnings=tuple(warnings))


# ---------------------------------------------------------------------------------------------- removal


def remove(tx: Transaction, kind: Kind, ref: str, *, force: bool) -> None:
    """Remove one object; Conflict says what still uses it."""
    obj = query.find(tx.view, kind, ref)
    match obj:
        case Service():
            tx.put(replace(obj, pending_delete=True))
        case Network():
            _remove_network(tx, obj)
        case Node():
            _remove_node(tx, obj, force=force)
        case Task():
            raise Invalid(f"task {ref}: tasks are removed by scaling or removing their service")
        case Cluster():
            raise Invalid("the cluster ends when its last manager leaves: `pyswarm leave --force`")
        case Secret() | Config() | Volume():
            _refuse_in_use(tx.view, obj)
            tx.delete(obj)


def _users(view: View, obj: Object) -> list[str]:
    match obj:
        case Network():
            services: Iterable[Service] = view.services_on_network(obj.id)
        case Secret():
            services = view.services_with_secret(obj.id)
        case Config():
            services = view.services_with_config(obj.id)
        case Volume():
            services = query.services_with_volume(view, obj)
        case _:
            services = ()
    return sorted(s.spec.name for s in services if not s.pending_delete)


def _refuse_in_use(view: View, obj: Secret | Config | Volume | Network) -> None:
    users = _users(view, obj)
    if users:
        what = type(obj).__name__.lower()
        raise Conflict(f"{what} {obj.spec.name} is in use by the following service(s): {', '.join(users)}")


def _remove_network(tx: Transaction, network: Network) -> None:
    if network.spec.name == DEFAULT_NETWORK or network.spec.ingress:
        raise Conflict(f"network {network.spec.name} is built in and cannot be removed")
    _refuse_in_use(tx.view, network)
    tx.put(replace(network, pending_delete=True))


def _remove_node(tx: Transaction, node: Node, *, force: bool) -> None:
    name = query.display_name(node)
    if (node.spec.role == "manager" or node.manager_status is not None) and not force:
        raise Conflict(
            f"node {name} is a manager: demote it first (`pyswarm node demote {name}`), or remove it with --force"
        )
    if node.spec.role == "manager":
        check_quorum_without(tx.view, node)
    if node.status.state == NodeState.READY and not force:
        raise Conflict(
            f"node {name} is not down: let it leave (`pyswarm leave` there) or remove it with --force"
        )
    for task in tx.view.tasks_of_node(node.id):
        if task.status.state < TaskState.COMPLETE:
            status = replace(task.status, state=TaskState.ORPHANED, timestamp=tx.now, message="node removed")
            tx.put(replace(task, status=status))
    if tx.view.cluster is not None:
        tx.put(trust.revoked(tx.view.cluster, node, tx.now))
    tx.delete(node)


def update_node(tx: Transaction, node: Node, spec: NodeSpec) -> Node:
    validate.node(spec)
    if spec.name and any(n.id != node.id and n.spec.name == spec.name for n in tx.view.nodes()):
        raise Conflict(f"node {spec.name} already exists")
    if node.spec.role == "manager" and spec.role != "manager":
        check_quorum_without(tx.view, node)
    changed = replace(node, spec=spec)
    tx.put(changed)
    return changed


def check_quorum_without(view: View, leaving: Node) -> None:
    """That the managers go on when one is demoted. Raises Conflict with the reason why they would not."""
    name = query.display_name(leaving)
    others = [n for n in view.nodes() if n.spec.role == "manager" and n.id != leaving.id]
    staying = [n for n in others if n.manager_status is not None and n.manager_status.raft_id]
    if others and (leaving.manager_status is None or not leaving.manager_status.raft_id):
        return  # it is no member (yet)
    if not staying:
        raise Conflict(f"node {name} is the last manager of the cluster: promote another one first")
    well = [
        n for n in staying if n.manager_status is not None and n.manager_status.reachability == "reachable"
    ]
    if 2 * len(well) <= len(staying):
        lost = ", ".join(sorted(query.display_name(n) for n in staying if n not in well))
        raise Conflict(
            f"without node {name} the managers would have no quorum: of the {len(staying)} that stay only "
            f"{len(well)} can be reached (not: {lost}): bring those back, or demote them first"
        )


def update_labels(
    tx: Transaction, obj: Secret | Config, labels: Mapping[str, str], same: bool
) -> Secret | Config:
    """Swarm's rule for secrets and configs; `same` says whether all but the labels is as it was."""
    if not same:
        what = type(obj).__name__.lower()
        raise Invalid(
            f"{what} {obj.spec.name}: only updates to Labels are allowed: create a new one for new content"
        )
    changed = replace(obj, spec=replace(obj.spec, labels=labels))
    tx.put(changed)
    return changed


def bind_volume(tx: Transaction, volume: Volume, node: str) -> Volume:
    """Say which node has the volume's data; "" for none. NotFound when there is no such node."""
    node_id = query.find(tx.view, "node", node).id if node else ""
    changed = replace(volume, node_id=node_id)
    if changed != volume:
        tx.put(changed)
    return changed


def update_cluster(
    tx: Transaction, cluster: Cluster, spec: ClusterSpec, locked: Callable[[Cluster], Cluster]
) -> Cluster:
    """`locked` gives the record the unlock key that its spec asks for."""
    validate.cluster(spec)
    changed = locked(replace(cluster, spec=spec))
    tx.put(changed)
    return changed
