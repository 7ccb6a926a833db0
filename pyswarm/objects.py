"""What the cluster knows: node, service, task, network, volume, secret, config, cluster; the state ladders.

One writer per field: users (through the control API) write `spec`; the orchestrator a task's
`desired_state`; the allocator addresses and ports; the scheduler `node_id`; the agent `status`.
Task states only move forward, on both ladders.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

from pyswarm.specs import (
    ClusterSpec,
    ConfigSpec,
    EndpointSpec,
    GenericResource,
    Mount,
    NetworkSpec,
    NodeSpec,
    Platform,
    PortConfig,
    Resources,
    SecretSpec,
    ServiceSpec,
    StrMap,
    TaskSpec,
    VolumeSpec,
)


class TaskState(IntEnum):
    """SwarmKit's ladder, with its numbers."""

    NEW = 0
    PENDING = 64
    ASSIGNED = 192
    ACCEPTED = 256
    PREPARING = 320
    READY = 384
    STARTING = 448
    RUNNING = 512
    COMPLETE = 576
    SHUTDOWN = 640
    FAILED = 704
    REJECTED = 768
    REMOVE = 800
    ORPHANED = 832


class NodeState(IntEnum):
    UNKNOWN = 0
    DOWN = 1
    READY = 2
    DISCONNECTED = 3


def terminal(state: TaskState) -> bool:
    """Whether a task in this observed state will never run again."""
    return state > TaskState.RUNNING


def alive(state: TaskState) -> bool:
    """The opposite of `terminal`."""
    return state <= TaskState.RUNNING


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """Bookkeeping of every stored object. `version` is the store revision of its last write and the
    value that compare-and-set compares; it is 0 until the object was written."""

    version: int = 0
    created_at: float = 0.0
    updated_at: float = 0.0


# ---------------------------------------------------------------------------------------------- nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDescription:
    """What an agent says about its machine."""

    hostname: str = ""
    platform: Platform = field(default_factory=Platform)
    resources: Resources = field(default_factory=Resources)
    """The machine's whole CPU, memory and generic resources."""
    engine_version: str = ""
    engine_labels: StrMap = field(default_factory=dict[str, str])
    plugins: tuple[str, ...] = ()
    """`Network/overlay`, `Volume/local`, `Log/json-file`, ..."""
    root_ca: str = ""
    """PEM of the CA that the node trusts."""
    certificate_issuer: str = ""
    """Key id (hexadecimal) of the CA that signed the certificate in use; "" from agents that do not tell."""
    kernel: str = ""
    os_name: str = ""
    cgroup: str = ""
    """`v1`, `hybrid` or `v2`, and the driver: `v1/cgroupfs`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    state: NodeState = NodeState.UNKNOWN
    message: str = ""
    addr: str = ""
    """Address seen or advertised, for people."""
    since: float = 0.0
    """When `state` was entered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerStatus:
    addr: str = ""
    """host:port at which machines join."""
    api: str = ""
    """host:port of the manager's API."""
    leader: bool = False
    reachability: Literal["unknown", "reachable", "unreachable"] = "unknown"
    raft_id: str = ""
    """etcd's member id, in hexadecimal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedCertificate:
    """A certificate that a node was given."""

    serial: str
    """Hexadecimal."""
    until: float = 0.0
    """When it ends by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    id: str
    meta: Meta = field(default_factory=Meta)
    spec: NodeSpec = field(default_factory=NodeSpec)
    description: NodeDescription = field(default_factory=NodeDescription)
    status: NodeStatus = field(default_factory=NodeStatus)
    manager_status: ManagerStatus | None = None
    role: Literal["worker", "manager"] = "worker"
    """The role its certificate carries; follows `spec.role`."""
    data_path_addr: str = ""
    """Address of the VXLAN endpoint, without port."""
    certificate_serial: str = ""
    """Of the certificate that it is to use; where its own is another, it asks for a new one."""
    certificates: tuple[IssuedCertificate, ...] = ()
    """All that have not ended yet, nor were revoked: each would still be good for whoever has its key."""
    certificate_wanted: str = ""
    """Key id of the CA that is to have signed the node's certificate: where its own is another, it renews."""


# ---------------------------------------------------------------------------------------------- services


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualIP:
    network_id: str
    addr: str
    """CIDR, as in the Engine API: 10.0.1.2/24."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """What the allocator gave a service for its EndpointSpec."""

    spec: EndpointSpec = field(default_factory=EndpointSpec)
    """The spec this was allocated for."""
    ports: tuple[PortConfig, ...] = ()
    """The same ports with `published_port` filled in."""
    virtual_ips: tuple[VirtualIP, ...] = ()


UpdateState = Literal[
    "updating",
    "paused",
    "completed",
    "rollback_started",
    "rollback_paused",
    "rollback_completed",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateStatus:
    state: UpdateState
    started_at: float = 0.0
    completed_at: float = 0.0
    message: str = ""
    progressed_at: float = 0.0
    """When a task last got further: for the progress deadline."""
    next_at: float = 0.0
    """Not before this time does the next batch start (delay and monitor)."""
    total: int = 0
    """Slots that the update found to replace when it started: failures count against them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    iteration: int = 0
    last_execution: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoscaleStatus:
    """The recommendations of the stabilisation window: (time, replicas), oldest first."""

    at: tuple[float, ...] = ()
    replicas: tuple[int, ...] = ()
    desired: int = 0
    """Replicas in force instead of the spec's; 0 until the autoscaler has decided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    id: str
    meta: Meta = field(default_factory=Meta)
    spec: ServiceSpec = field(default_factory=ServiceSpec)
    spec_version: int = 1
    """Counts the versions of `spec`; a task carries the one it was made from."""
    previous_spec: ServiceSpec | None = None
    previous_spec_version: int = 0
    endpoint: Endpoint | None = None
    update_status: UpdateStatus | None = None
    job_status: JobStatus | None = None
    autoscale_status: AutoscaleStatus | None = None
    pending_delete: bool = False
    """Removed by a user; its tasks are being shut down, then the record goes."""

    @property
    def replicas(self) -> int:
        """How many tasks a replicated service is to have: the autoscaler's word where there is one."""
        scale, status = self.spec.autoscale, self.autoscale_status
        if scale is None:
            return self.spec.mode.replicas
        decided = status.desired if status is not None and status.desired else self.spec.mode.replicas
        return max(scale.min, min(scale.max, decided))


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkAttachment:
    """One task's place on one network, as the allocator gave it."""

    network_id: str
    addresses: tuple[str, ...] = ()
    """CIDR each: 10.0.1.5/24."""
    aliases: tuple[str, ...] = ()
    mac_address: str = ""


HealthState = Literal["", "starting", "healthy", "unhealthy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStatus:
    """What the agent (or, before assignment, a manager) saw last."""

    state: TaskState = TaskState.NEW
    timestamp: float = 0.0
    message: str = ""
    """What is going on, for people: `pulling image`, `waiting for db (healthy)`."""
    err: str = ""
    """Why it failed or does not go on; shown in `ps`."""
    container_id: str = ""
    pid: int = 0
    exit_code: int | None = None
    oom_killed: bool = False
    health: HealthState = ""
    ports: tuple[PortConfig, ...] = ()
    """Host-mode ports with the published port in use."""
    started_at: float = 0.0
    finished_at: float = 0.0
    running_since: float = 0.0
    """When RUNNING was entered; 0 if never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One shot at running a slot (or a node's copy of a global service). A task never moves."""

    id: str
    meta: Meta = field(default_factory=Meta)
    service_id: str = ""
    slot: int = 0
    """1 and up for replicated services and jobs; 0 for global ones."""
    node_id: str = ""
    spec: TaskSpec = field(default_factory=TaskSpec)
    spec_version: int = 0
    service_name: str = ""
    service_labels: StrMap = field(default_factory=dict[str, str])
    endpoint: EndpointSpec = field(default_factory=EndpointSpec)
    """Ports as allocated, for host-mode publishing."""
    status: TaskStatus = field(default_factory=TaskStatus)
    desired_state: TaskState = TaskState.RUNNING
    networks: tuple[NetworkAttachment, ...] = ()
    assigned_generic: tuple[GenericResource, ...] = ()
    job_iteration: int | None = None
    not_before: float = 0.0
    """The orchestrator raises `desired_state` from READY to RUNNING no earlier (restart delay)."""
    restarts: int = 0
    """How many tasks of this slot and spec version came before because one ended: back-off and
    max_attempts count it."""
    window_start: float = 0.0
    """Start of the restart window that `window_restarts` counts in."""
    window_restarts: int = 0
    waiting_for: str = ""
    """Why the orchestrator holds it back: `waiting for db (healthy)`; "" if it does not."""
    slot_volumes: bool = False
    """Its named volumes are its slot's own (see `volume_name`)."""
    backoff: int = 0
    """How many tasks of this slot crashed in a row without having run well: the exponent of the delay."""
    rollout: Literal["", "replacing", "failed", "moving"] = ""
    """Its part in an update: it replaces a task (`replacing`), follows one that failed as such (`failed`),
    or is the new home of a healthy task that is being rebalanced (`moving`)."""

    @property
    def name(self) -> str:
        """`service.slot.id`, or `service.node.id` for global ones, as Swarm names containers."""
        return f"{self.service_name}.{self.slot or self.node_id}.{self.id}"


# ---------------------------------------------------------------------------------------------- the rest


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocatedPool:
    """One address family of a network."""

    subnet: str
    gateway: str
    """Address of the bridge on every node (anycast), without prefix length; "" for internal networks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    id: str
    meta: Meta = field(default_factory=Meta)
    spec: NetworkSpec = field(default_factory=NetworkSpec)
    pools: tuple[AllocatedPool, ...] = ()
    """() until allocated."""
    vni: int = 0
    """VXLAN network identifier, 4096 and up; 0 until allocated."""
    pending_delete: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    id: str
    meta: Meta = field(default_factory=Meta)
    spec: VolumeSpec = field(default_factory=VolumeSpec)
    node_id: str = ""
    """The node that has the data, for a volume that is bound to one; "" for one that is made wherever it is
    needed. Those of slots are bound by the scheduler when a task comes to a node, others by people."""


SLOT_OF_LABEL = "pyswarm.slot-of"
"""On a slot's own volume: the volume that the service's spec names."""


def volume_name(task: Task, mount: Mount) -> str:
    """The name of the volume that a mount of the task means: `data.2` for slot 2 of a service that keeps
    volumes per slot; "" for a mount without a named volume."""
    if mount.type not in ("volume", "cluster") or not mount.source:
        return ""
    return f"{mount.source}.{task.slot}" if task.slot_volumes else mount.source


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    id: str
    meta: Meta = field(default_factory=Meta)
    spec: SecretSpec = field(default_factory=SecretSpec)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    id: str
    meta: Meta = field(default_factory=Meta)
    spec: ConfigSpec = field(default_factory=ConfigSpec)


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinTokens:
    worker: str = ""
    """Only the secret part; the CA digest is added when shown."""
    manager: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """A certificate that was good, of a node that was demoted or removed."""

    serial: str
    """Hexadecimal."""
    until: float = 0.0
    """When it would have ended by itself; forgotten then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RootRotation:
    """The CA that is to take the place of the present one. Until every node has a certificate of it, and trusts
    it, both are trusted; what it signs carries `cross_signed` along, so that the present one vouches for it."""

    cert: str
    """PEM."""
    key: bytes = b""
    """PEM, sealed; empty when an external CA signs."""
    cross_signed: str = ""
    """PEM: its key, certified by the present root."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RootCA:
    """The cluster's certificate authority. The key is sealed before it is stored (secrets at rest)."""

    cert: str = ""
    """PEM, the whole trust bundle."""
    key: bytes = b""
    """PEM of the signing key; sealed where a sealing key exists; empty with an external CA."""
    join_tokens: JoinTokens = field(default_factory=JoinTokens)
    revoked: tuple[Revoked, ...] = ()
    rotation: RootRotation | None = None
    """There while the root is being replaced."""


SCHEMA_VERSION = 1
"""The newest schema of stored state that this version knows (see `manager.schema`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The one record of the cluster as a whole; its id is the cluster id."""

    id: str
    meta: Meta = field(default_factory=Meta)
    spec: ClusterSpec = field(default_factory=ClusterSpec)
    root_ca: RootCA = field(default_factory=RootCA)
    schema_version: int = 1
    """See SCHEMA_VERSION. The default stays 1, since state of that schema does not say so."""
    unlock_key: bytes = b""
    """What managers' keys on disk are locked with while the spec says autolock; sealed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStatusUpdate:
    """An agent's report on one task."""

    task_id: str
    status: TaskStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerStats:
    """A container's use of the machine at one moment."""

    task_id: str
    timestamp: float = 0.0
    cpu_nanos: int = 0
    """CPU time used since the start."""
    memory: int = 0
    """Bytes in use without the page cache that can be dropped, as `docker stats` counts."""
    memory_limit: int = 0
    pids: int = 0
    network_rx: int = 0
    network_tx: int = 0
    block_read: int = 0
    block_write: int = 0


# ------------------------------------------------------------------------------ what an agent is told


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One address on a network as every agent must know it: a task's."""

    task_id: str
    service_id: str
    node_id: str
    node_addr: str
    """VXLAN endpoint of its node."""
    address: str
    """Without prefix length."""
    mac_address: str
    healthy: bool
    """RUNNING, healthy and not being shut down: gets connections and is in DNS."""
    names: tuple[str, ...] = ()
    """Names that resolve to this address alone: the task's and its hostname."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceEntry:
    """A service on one network: its VIP and the names that resolve to it."""

    service_id: str
    name: str
    mode: Literal["vip", "dnsrr"] = "vip"
    vip: str = ""
    """Without prefix length; "" for dnsrr."""
    names: tuple[str, ...] = ()
    """The service's name and aliases; `tasks.` is put in front of each for all members."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkTable:
    """All that a node must know of one network: pushed to the nodes that have a task on it."""

    network: Network
    members: tuple[Member, ...] = ()
    services: tuple[ServiceEntry, ...] = ()
    node_addrs: tuple[str, ...] = ()
    """Ingress network only: VXLAN endpoints of all nodes, since any may let in a connection to a task here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkChange:
    """What became different in a network's table since the node was last told of it: members by task id,
    services by id. The network itself is as it was."""

    network_id: str
    members: tuple[Member, ...] = ()
    """New ones, and those that are to be told of differently."""
    removed_members: tuple[str, ...] = ()
    services: tuple[ServiceEntry, ...] = ()
    removed_services: tuple[str, ...] = ()
    node_addrs: tuple[str, ...] | None = None
    """All of them, or None: unchanged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressTarget:
    address: str
    """Address of a task on the ingress network."""
    node_addr: str
    mac_address: str = ""
    node_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressPort:
    """A port published in ingress mode, and the healthy tasks behind it."""

    service_id: str
    port: PortConfig
    targets: tuple[IngressTarget, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressChange:
    """All ingress ports of one service from now on; () when it has none any more."""

    service_id: str
    ports: tuple[IngressPort, ...] = ()


def ingress_order(port: IngressPort) -> tuple[str, int, str]:
    """Sorts the table of ingress ports."""
    return (port.port.protocol, port.port.published_port, port.service_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignments:
    """Everything a node is to hold: the complete set, or a delta (`removed_*` is for deltas only)."""

    complete: bool = True
    sequence: int = 0
    """Counts messages of one stream; a gap means: reconnect."""
    tasks: tuple[Task, ...] = ()
    secrets: tuple[Secret, ...] = ()
    configs: tuple[Config, ...] = ()
    networks: tuple[NetworkTable, ...] = ()
    volumes: tuple[Volume, ...] = ()
    ingress: tuple[IngressPort, ...] | None = None
    """The complete table of ingress ports, or None: no other than `ingress_changes` says."""
    network_changes: tuple[NetworkChange, ...] = ()
    """To tables that the node has, none of them in `networks`."""
    ingress_changes: tuple[IngressChange, ...] = ()
    """To the table of ingress ports that the node has."""
    removed_tasks: tuple[str, ...] = ()
    removed_secrets: tuple[str, ...] = ()
    removed_configs: tuple[str, ...] = ()
    removed_networks: tuple[str, ...] = ()
    removed_volumes: tuple[str, ...] = ()


Object = Cluster | Node | Service | Task | Network | Volume | Secret | Config
Kind = Literal["cluster", "node", "service", "task", "network", "volume", "secret", "config"]

KINDS: Mapping[Kind, type[Object]] = {
    "cluster": Cluster,
    "node": Node,
    "service": Service,
    "task": Task,
    "network": Network,
    "volume": Volume,
    "secret": Secret,
    "config": Config,
}
_KIND_OF: Mapping[type, Kind] = {cls: kind for kind, cls in KINDS.items()}


def kind_of(obj: Object) -> Kind:
    """The kind under which an object is stored."""
    return _KIND_OF[type(obj)]


def unique_name(obj: Object) -> str:
    """The name that no other object of its kind may have; "" for kinds without one (tasks, nodes)."""
    if isinstance(obj, (Task, Node, Cluster)):
        return ""
    return obj.spec.name
