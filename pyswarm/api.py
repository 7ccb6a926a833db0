"""The gRPC contract: every message that is not an object, and the table of methods with who may call them.

`proto/pyswarm/v1/api.proto` mirrors this module (`proto/generate.py` keeps numbers stable and a test holds
both equal); servers and clients are built from `METHODS` by `pyswarm.rpc`, so a method without a row in the
table of roles cannot exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pyswarm.objects import (
    Assignments,
    Cluster,
    Config,
    ContainerStats,
    Network,
    Node,
    NodeDescription,
    Secret,
    Service,
    Task,
    TaskStatusUpdate,
    Volume,
)
from pyswarm.specs import (
    ClusterSpec,
    ConfigSpec,
    ExternalCA,
    NetworkSpec,
    NodeSpec,
    SecretSpec,
    ServiceSpec,
    VolumeSpec,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Empty:
    """Nothing to say."""


# ---------------------------------------------------------------------------------------------- control


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecBox:
    """Exactly one spec."""

    service: ServiceSpec | None = None
    network: NetworkSpec | None = None
    volume: VolumeSpec | None = None
    secret: SecretSpec | None = None
    config: ConfigSpec | None = None
    node: NodeSpec | None = None
    cluster: ClusterSpec | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectBox:
    """Exactly one object."""

    service: Service | None = None
    task: Task | None = None
    node: Node | None = None
    network: Network | None = None
    volume: Volume | None = None
    secret: Secret | None = None
    config: Config | None = None
    cluster: Cluster | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """One `--filter key=value`; several of one key are alternatives, different keys all apply."""

    key: str
    value: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListRequest:
    kind: str
    filters: tuple[Filter, ...] = ()
    """id, name, label, and what docker has for the noun: mode, role, node, service, desired-state, driver,
    dangling, scope, type, membership, ..."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListResponse:
    """Objects of one kind, sorted by name (tasks by service, slot and age)."""

    services: tuple[Service, ...] = ()
    tasks: tuple[Task, ...] = ()
    nodes: tuple[Node, ...] = ()
    networks: tuple[Network, ...] = ()
    volumes: tuple[Volume, ...] = ()
    secrets: tuple[Secret, ...] = ()
    configs: tuple[Config, ...] = ()
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GetRequest:
    kind: str
    ref: str
    """Id, name, or a unique beginning of an id, tried in that order as docker does; `self` for the node
    that the manager runs on. NotFound and Conflict (several match) say so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRequest:
    spec: SpecBox
    idempotency_key: str = ""
    """Chosen by the client: repeating a create with the same key answers with the first one's object."""
    resolve_image: str = "always"
    """Services: always, changed, never: pin the image to its digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateRequest:
    kind: str
    id: str
    version: int = 0
    """`meta.version` that was read: Conflict when it is not the current one. 0 takes any."""
    spec: SpecBox = field(default_factory=SpecBox)
    rollback: bool = False
    """Services: go back to the previous spec; `spec` is not looked at."""
    node: str | None = None
    """Volumes: the node (name or id) that has the data from now on, "" for none; `spec` is not looked at."""
    force: bool = False
    """Services: replace tasks even if nothing changed."""
    resolve_image: str = "always"
    """As in CreateRequest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveRequest:
    kind: str
    ref: str
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RotateRequest:
    """New join tokens."""

    worker_token: bool = False
    manager_token: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RotateCARequest:
    """Replace the root CA: by one that is made, or that comes along (PEM, both; or the certificate alone when
    `external_cas` signs for it)."""

    cert: str = ""
    key: str = ""
    cert_expiry: float = 0.0
    """Seconds that node certificates are valid from now on; 0 leaves that as it is."""
    external_cas: tuple[ExternalCA, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlockKeyRequest:
    """The key that unlocks managers, a new one with `rotate`."""

    rotate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlockKeyResponse:
    key: str = ""
    """`SWMKEY-1-...`; "" when managers are not locked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinTokensResponse:
    worker: str
    manager: str
    addresses: tuple[str, ...] = ()
    """host:port of the managers' join listener."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueClientRequest:
    """A certificate for a person's command line on another machine."""

    name: str
    csr: str
    """PEM; the key stays with the asker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueClientResponse:
    cert: str
    ca: str
    managers: tuple[str, ...] = ()
    """host:port of the managers' API."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployRequest:
    """A whole stack in one transaction: nothing changes unless all of it is valid."""

    stack: str
    services: tuple[ServiceSpec, ...] = ()
    networks: tuple[NetworkSpec, ...] = ()
    volumes: tuple[VolumeSpec, ...] = ()
    secrets: tuple[SecretSpec, ...] = ()
    configs: tuple[ConfigSpec, ...] = ()
    prune: bool = False
    """Remove the stack's services, networks, secrets and configs that are not named here."""
    dry_run: bool = False
    """Validate and say what would change, change nothing."""
    resolve_image: str = "always"
    """always, changed, never: pin images to digests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployAction:
    kind: str
    name: str
    id: str = ""
    action: Literal["create", "update", "unchanged", "remove"] = "create"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployResponse:
    actions: tuple[DeployAction, ...] = ()
    warnings: tuple[str, ...] = ()
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveStackRequest:
    stack: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsRequest:
    filters: tuple[Filter, ...] = ()
    """type (service, node, ...), and as for lists."""
    after: int = 0
    """Events after this revision that are still kept; 0: from now on."""
    snapshot: bool = False
    """First an `exists` event for every matching object, then one of type `synced`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventMessage:
    action: Literal["create", "update", "remove", "exists", "synced"]
    time: float = 0.0
    revision: int = 0
    kind: str = ""
    id: str = ""
    name: str = ""
    object: ObjectBox = field(default_factory=ObjectBox)
    """New value; the last one for a removal. Payloads of secrets are blank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogsRequest:
    services: tuple[str, ...] = ()
    """Ids."""
    tasks: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    follow: bool = False
    """Also tasks that start later."""
    tail: int = -1
    """Lines per task; -1 is all."""
    since: float = 0.0
    until: float = 0.0
    stdout: bool = True
    stderr: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class LogMessage:
    """A piece of a log; or, with `warning`, why a part of it is missing."""

    task_id: str = ""
    service_id: str = ""
    service_name: str = ""
    slot: int = 0
    node_id: str = ""
    nanos: int = 0
    """Unix time in nanoseconds."""
    stream: str = "stdout"
    data: bytes = b""
    warning: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecStart:
    task: str
    """Task id."""
    argv: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    tty: bool = False
    stdin: bool = False
    privileged: bool = False
    rows: int = 0
    cols: int = 0
    attach: bool = False
    """Join the streams of the container's own process instead of running `argv`; `exit` is the container's code.
    Whoever goes away leaves the process to itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecInputMessage:
    """The first message starts; the next ones feed. `detach` leaves the command to itself: it goes on, and the
    answer is `exit` with 0 at once (with its own code, should it not even start)."""

    start: ExecStart | None = None
    kind: Literal["start", "stdin", "eof", "resize", "detach"] = "stdin"
    data: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecOutputMessage:
    kind: Literal["stdout", "stderr", "exit"]
    data: bytes = b""
    """For `exit` the decimal exit code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCommand:
    """A request to one node's agent: images, volumes, disk use. `verb` names it, `args` is its JSON object.

    The verbs, their arguments (all but the first optional) and the JSON of the result:

    - image.ls {all} -> [Engine API ImageSummary]; image.inspect {name} -> Engine API image;
    - image.pull {reference, auth, platform}, image.push {reference, auth} -> {id, digest}; image.tag {source, target};
    - image.history {name} -> [Engine API HistoryResponseItem];
    - image.build {context, dockerfile, dockerfile_inline, tags, args, target, labels, no_cache, pull, network,
      extra_hosts, secrets, ssh, cache_from, additional_contexts, platforms, shm_size, ulimits, limits} -> {id}:
      `context` is a directory of the node, or "-" when a tar archive follows in `data`;
    - image.rm {references, force} -> [Untagged/Deleted rows];
    - image.prune {all, before, labels, without, keep} -> {deleted, reclaimed}: `before` a Unix time of the image's
      making, `keep` references of images that stay;
    - image.save {reference} -> {}: `data` replies before it, each a piece of the file that `text` names;
    - image.archive {references} -> {}: `data` replies before it, a docker archive of them all; image.load {} ->
      {loaded}: names of the images of the docker archive that follows in `data`;
    - image.resolve {reference, auth, built} -> {pinned, digest, created}: `name:tag@sha256:...`; with `built`
      only what was built in the cluster, with the time of its making;
    - volume.ls {} -> [Engine API volumes]; volume.rm {name, force}; volume.prune {all, keep} -> {deleted, reclaimed};
    - system.df {} -> {images, containers, volumes, build_cache}: counts and bytes;
    - task.kill {task, signal} -> {}: a signal (SIGKILL) to the main process of a task that runs on the node;
    - task.restart {task, timeout} -> {}: stop that process and start it anew in the same container; `timeout` are
      the seconds from the stop signal to SIGKILL.

    `auth` is base64 JSON as in X-Registry-Auth.
    """

    node: str = ""
    """Node id; "" is the node of the manager that is asked."""
    verb: str = ""
    args: str = "{}"
    data: bytes = b""
    """Input that follows the first message, in pieces (a build context as tar)."""
    eof: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReply:
    """Progress lines, then one `result` (JSON), or `error`."""

    kind: Literal["progress", "data", "result", "error"]
    text: str = ""
    data: bytes = b""
    error_class: str = ""
    """Name of the class of pyswarm.errors for `error`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsRequest:
    tasks: tuple[str, ...] = ()
    """() is all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsResponse:
    stats: tuple[ContainerStats, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class InfoResponse:
    """The manager that answers, and counts of what it manages."""

    cluster: Cluster | None = None
    node_id: str = ""
    node_addr: str = ""
    is_leader: bool = False
    version: str = ""
    raft_version: str = ""
    managers: int = 0
    nodes: int = 0
    services: int = 0
    tasks_running: int = 0
    tasks: int = 0
    manager_addresses: tuple[str, ...] = ()
    state_dir: str = ""
    run_dir: str = ""


# ---------------------------------------------------------------------------------------------- dispatcher


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRequest:
    description: NodeDescription
    session_id: str = ""
    """The former session, when reconnecting."""
    data_path_addr: str = ""
    addr: str = ""
    """Advertised address of the node."""
    join_addr: str = ""
    """host:port at which machines join, and of the API, if this node is a manager."""
    api_addr: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionMessage:
    session_id: str
    node: Node | None = None
    managers: tuple[str, ...] = ()
    """host:port of every manager's API, for reconnecting."""
    heartbeat_period: float = 1.0
    data_path_port: int = 4789
    root_ca: str = ""
    """PEM of the roots to trust from now on; "" leaves them as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatRequest:
    session_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatResponse:
    period: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignmentsRequest:
    session_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateStatusRequest:
    session_id: str
    updates: tuple[TaskStatusUpdate, ...] = ()
    stats: tuple[ContainerStats, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenRequest:
    session_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """A manager wants something streamed from this node: the agent opens `Answer` with the id."""

    id: str
    logs: LogsRequest | None = None
    exec: ExecStart | None = None
    command: NodeCommand | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerMessage:
    """The agent's side of a demand. The first message carries the id alone."""

    demand_id: str = ""
    log: LogMessage | None = None
    exec: ExecOutputMessage | None = None
    reply: NodeReply | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerInput:
    """The manager's side: input for an exec or a command."""

    exec: ExecInputMessage | None = None
    command: NodeCommand | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchImageRequest:
    """The node needs an image that it has not, for a task that is assigned to it."""

    session_id: str
    reference: str
    """As in the task, with the digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePiece:
    """The next bytes of one file of the image's copy (see `node_agent.images.transfer`)."""

    file: str
    data: bytes = b""


# ---------------------------------------------------------------------------------------------- CA


@dataclass(frozen=True, slots=True, kw_only=True)
class RootCAResponse:
    cert: str
    """PEM bundle; the caller compares its digest with the token's before it sends the token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueRequest:
    csr: str
    token: str
    availability: str = "active"
    addr: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueResponse:
    node_id: str
    cert: str
    """PEM chain for the CSR's key."""
    role: str
    managers: tuple[str, ...] = ()
    cluster_id: str = ""
    data_path_port: int = 4789


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewRequest:
    csr: str


# ---------------------------------------------------------------------------------------------- Raft


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRaftRequest:
    """A manager, named by its certificate, asks for its place among the members."""

    peer_url: str
    member_id: str = ""
    """The member whose data it has, in hexadecimal; "" when it has none."""
    join_addr: str = ""
    """host:port at which machines join through it."""
    api_addr: str = ""
    """host:port of its API, for agents and other managers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftMember:
    name: str
    peer_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinRaftResponse:
    member_id: str
    members: tuple[RaftMember, ...] = ()
    """All members, the new one too: etcd's initial cluster."""
    seal_keys: tuple[bytes, ...] = ()
    """What secrets at rest are sealed with: for managers alone."""


# ---------------------------------------------------------------------------------------------- a manager's keys


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlockRequest:
    """To a manager that is locked: the key that opens what lies on its disk."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SealKeysResponse:
    """What secrets at rest are sealed with, for a backup. Root alone can ask, on the manager's own machine."""

    keys: tuple[bytes, ...] = ()


# ---------------------------------------------------------------------------------------------- methods

Role = Literal["anyone", "worker", "manager", "admin"]
"""anyone: no certificate needed (the join listener). worker: any node of the cluster, for itself alone.
manager: a manager node. admin: the local socket's group, or a client certificate of a context."""


@dataclass(frozen=True, slots=True)
class Method:
    service: str
    name: str
    request: type
    response: type
    client_stream: bool = False
    server_stream: bool = False
    roles: frozenset[Role] = frozenset()

    @property
    def path(self) -> str:
        return f"/pyswarm.v1.{self.service}/{self.name}"


_ADMIN: frozenset[Role] = frozenset({"admin", "manager"})
_PEOPLE: frozenset[Role] = frozenset({"admin"})
_NODE: frozenset[Role] = frozenset({"worker", "manager"})
_MANAGER: frozenset[Role] = frozenset({"manager"})
_ANYONE: frozenset[Role] = frozenset({"anyone", "worker", "manager", "admin"})

METHODS: tuple[Method, ...] = (
    Method("Control", "Info", Empty, InfoResponse, roles=_ADMIN),
    Method("Control", "List", ListRequest, ListResponse, roles=_ADMIN),
    Method("Control", "Get", GetRequest, ObjectBox, roles=_ADMIN),
    Method("Control", "Create", CreateRequest, ObjectBox, roles=_ADMIN),
    Method("Control", "Update", UpdateRequest, ObjectBox, roles=_ADMIN),
    Method("Control", "Remove", RemoveRequest, Empty, roles=_ADMIN),
    Method("Control", "JoinTokens", RotateRequest, JoinTokensResponse, roles=_ADMIN),
    Method("Control", "RotateCA", RotateCARequest, Empty, roles=_ADMIN),
    Method("Control", "UnlockKey", UnlockKeyRequest, UnlockKeyResponse, roles=_ADMIN),
    Method("Control", "IssueClient", IssueClientRequest, IssueClientResponse, roles=_ADMIN),
    Method("Control", "Deploy", DeployRequest, DeployResponse, roles=_ADMIN),
    Method("Control", "RemoveStack", RemoveStackRequest, DeployResponse, roles=_ADMIN),
    Method("Control", "Events", EventsRequest, EventMessage, server_stream=True, roles=_ADMIN),
    Method("Control", "Logs", LogsRequest, LogMessage, server_stream=True, roles=_ADMIN),
    Method(
        "Control",
        "Exec",
        ExecInputMessage,
        ExecOutputMessage,
        client_stream=True,
        server_stream=True,
        roles=_ADMIN,
    ),
    Method(
        "Control", "Command", NodeCommand, NodeReply, client_stream=True, server_stream=True, roles=_ADMIN
    ),
    Method("Control", "Stats", StatsRequest, StatsResponse, roles=_ADMIN),
    Method("Dispatcher", "Session", SessionRequest, SessionMessage, server_stream=True, roles=_NODE),
    Method("Dispatcher", "Heartbeat", HeartbeatRequest, HeartbeatResponse, roles=_NODE),
    Method(
        "Dispatcher", "WatchAssignments", AssignmentsRequest, Assignments, server_stream=True, roles=_NODE
    ),
    Method("Dispatcher", "UpdateStatus", UpdateStatusRequest, Empty, roles=_NODE),
    Method("Dispatcher", "Leave", Empty, Empty, roles=_NODE),
    Method("Dispatcher", "Listen", ListenRequest, Demand, server_stream=True, roles=_NODE),
    Method(
        "Dispatcher",
        "Answer",
        AnswerMessage,
        AnswerInput,
        client_stream=True,
        server_stream=True,
        roles=_NODE,
    ),
    Method("Dispatcher", "FetchImage", FetchImageRequest, ImagePiece, server_stream=True, roles=_NODE),
    Method("CA", "GetRootCA", Empty, RootCAResponse, roles=_ANYONE),
    Method("CA", "Issue", IssueRequest, IssueResponse, roles=_ANYONE),
    Method("CA", "Renew", RenewRequest, IssueResponse, roles=_NODE),
    Method("Raft", "Join", JoinRaftRequest, JoinRaftResponse, roles=_MANAGER),
    Method("Lock", "Unlock", UnlockRequest, Empty, roles=_PEOPLE),
    Method("Vault", "SealKeys", Empty, SealKeysResponse, roles=_PEOPLE),
)
METHOD: Mapping[str, Method] = {f"{m.service}.{m.name}": m for m in METHODS}
