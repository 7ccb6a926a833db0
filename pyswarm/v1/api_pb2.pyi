from pyswarm.v1 import objects_pb2 as _objects_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Empty(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SpecBox(_message.Message):
    __slots__ = ("service", "network", "volume", "secret", "config", "node", "cluster")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    VOLUME_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    service: _objects_pb2.ServiceSpec
    network: _objects_pb2.NetworkSpec
    volume: _objects_pb2.VolumeSpec
    secret: _objects_pb2.SecretSpec
    config: _objects_pb2.ConfigSpec
    node: _objects_pb2.NodeSpec
    cluster: _objects_pb2.ClusterSpec
    def __init__(self, service: _Optional[_Union[_objects_pb2.ServiceSpec, _Mapping]] = ..., network: _Optional[_Union[_objects_pb2.NetworkSpec, _Mapping]] = ..., volume: _Optional[_Union[_objects_pb2.VolumeSpec, _Mapping]] = ..., secret: _Optional[_Union[_objects_pb2.SecretSpec, _Mapping]] = ..., config: _Optional[_Union[_objects_pb2.ConfigSpec, _Mapping]] = ..., node: _Optional[_Union[_objects_pb2.NodeSpec, _Mapping]] = ..., cluster: _Optional[_Union[_objects_pb2.ClusterSpec, _Mapping]] = ...) -> None: ...

class ObjectBox(_message.Message):
    __slots__ = ("service", "task", "node", "network", "volume", "secret", "config", "cluster")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    VOLUME_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    service: _objects_pb2.Service
    task: _objects_pb2.Task
    node: _objects_pb2.Node
    network: _objects_pb2.Network
    volume: _objects_pb2.Volume
    secret: _objects_pb2.Secret
    config: _objects_pb2.Config
    cluster: _objects_pb2.Cluster
    def __init__(self, service: _Optional[_Union[_objects_pb2.Service, _Mapping]] = ..., task: _Optional[_Union[_objects_pb2.Task, _Mapping]] = ..., node: _Optional[_Union[_objects_pb2.Node, _Mapping]] = ..., network: _Optional[_Union[_objects_pb2.Network, _Mapping]] = ..., volume: _Optional[_Union[_objects_pb2.Volume, _Mapping]] = ..., secret: _Optional[_Union[_objects_pb2.Secret, _Mapping]] = ..., config: _Optional[_Union[_objects_pb2.Config, _Mapping]] = ..., cluster: _Optional[_Union[_objects_pb2.Cluster, _Mapping]] = ...) -> None: ...

class Filter(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: str
    def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ("kind", "filters")
    KIND_FIELD_NUMBER: _ClassVar[int]
    FILTERS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    filters: _containers.RepeatedCompositeFieldContainer[Filter]
    def __init__(self, kind: _Optional[str] = ..., filters: _Optional[_Iterable[_Union[Filter, _Mapping]]] = ...) -> None: ...

class ListResponse(_message.Message):
    __slots__ = ("services", "tasks", "nodes", "networks", "volumes", "secrets", "configs", "revision")
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    NETWORKS_FIELD_NUMBER: _ClassVar[int]
    VOLUMES_FIELD_NUMBER: _ClassVar[int]
    SECRETS_FIELD_NUMBER: _ClassVar[int]
    CONFIGS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    services: _containers.RepeatedCompositeFieldContainer[_objects_pb2.Service]
    tasks: _containers.RepeatedCompositeFieldContainer[_objects_pb2.Task]
    nodes: _containers.RepeatedCompositeFieldContainer[_objects_pb2.Node]
    networks: _containers.RepeatedCompositeFieldContainer[_objects_pb2.Network]
    volumes: _containers.RepeatedCompositeFieldContainer[_objects_pb2.Volume]
    secrets: _containers.RepeatedCompositeFieldContainer[_objects_pb2.Secret]
    configs: _containers.RepeatedCompositeFieldContainer[_objects_pb2.Config]
    revision: int
    def __init__(self, services: _Optional[_Iterable[_Union[_objects_pb2.Service, _Mapping]]] = ..., tasks: _Optional[_Iterable[_Union[_objects_pb2.Task, _Mapping]]] = ..., nodes: _Optional[_Iterable[_Union[_objects_pb2.Node, _Mapping]]] = ..., networks: _Optional[_Iterable[_Union[_objects_pb2.Network, _Mapping]]] = ..., volumes: _Optional[_Iterable[_Union[_objects_pb2.Volume, _Mapping]]] = ..., secrets: _Optional[_Iterable[_Union[_objects_pb2.Secret, _Mapping]]] = ..., configs: _Optional[_Iterable[_Union[_objects_pb2.Config, _Mapping]]] = ..., revision: _Optional[int] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("kind", "ref")
    KIND_FIELD_NUMBER: _ClassVar[int]
    REF_FIELD_NUMBER: _ClassVar[int]
    kind: str
    ref: str
    def __init__(self, kind: _Optional[str] = ..., ref: _Optional[str] = ...) -> None: ...

class CreateRequest(_message.Message):
    __slots__ = ("spec", "idempotency_key", "resolve_image")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    RESOLVE_IMAGE_FIELD_NUMBER: _ClassVar[int]
    spec: SpecBox
    idempotency_key: str
    resolve_image: str
    def __init__(self, spec: _Optional[_Union[SpecBox, _Mapping]] = ..., idempotency_key: _Optional[str] = ..., resolve_image: _Optional[str] = ...) -> None: ...

class UpdateRequest(_message.Message):
    __slots__ = ("kind", "id", "version", "spec", "rollback", "node", "force", "resolve_image")
    KIND_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    ROLLBACK_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    RESOLVE_IMAGE_FIELD_NUMBER: _ClassVar[int]
    kind: str
    id: str
    version: int
    spec: SpecBox
    rollback: bool
    node: str
    force: bool
    resolve_image: str
    def __init__(self, kind: _Optional[str] = ..., id: _Optional[str] = ..., version: _Optional[int] = ..., spec: _Optional[_Union[SpecBox, _Mapping]] = ..., rollback: _Optional[bool] = ..., node: _Optional[str] = ..., force: _Optional[bool] = ..., resolve_image: _Optional[str] = ...) -> None: ...

class RemoveRequest(_message.Message):
    __slots__ = ("kind", "ref", "force")
    KIND_FIELD_NUMBER: _ClassVar[int]
    REF_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    kind: str
    ref: str
    force: bool
    def __init__(self, kind: _Optional[str] = ..., ref: _Optional[str] = ..., force: _Optional[bool] = ...) -> None: ...

class RotateRequest(_message.Message):
    __slots__ = ("worker_token", "manager_token")
    WORKER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MANAGER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    worker_token: bool
    manager_token: bool
    def __init__(self, worker_token: _Optional[bool] = ..., manager_token: _Optional[bool] = ...) -> None: ...

class RotateCARequest(_message.Message):
    __slots__ = ("cert", "key", "cert_expiry", "external_cas")
    CERT_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    CERT_EXPIRY_FIELD_NUMBER: _ClassVar[int]
    EXTERNAL_CAS_FIELD_NUMBER: _ClassVar[int]
    cert: str
    key: str
    cert_expiry: float
    external_cas: _containers.RepeatedCompositeFieldContainer[_objects_pb2.ExternalCA]
    def __init__(self, cert: _Optional[str] = ..., key: _Optional[str] = ..., cert_expiry: _Optional[float] = ..., external_cas: _Optional[_Iterable[_Union[_objects_pb2.ExternalCA, _Mapping]]] = ...) -> None: ...

class UnlockKeyRequest(_message.Message):
    __slots__ = ("rotate",)
    ROTATE_FIELD_NUMBER: _ClassVar[int]
    rotate: bool
    def __init__(self, rotate: _Optional[bool] = ...) -> None: ...

class UnlockKeyResponse(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: str
    def __init__(self, key: _Optional[str] = ...) -> None: ...

class JoinTokensResponse(_message.Message):
    __slots__ = ("worker", "manager", "addresses")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    MANAGER_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    worker: str
    manager: str
    addresses: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, worker: _Optional[str] = ..., manager: _Optional[str] = ..., addresses: _Optional[_Iterable[str]] = ...) -> None: ...

class IssueClientRequest(_message.Message):
    __slots__ = ("name", "csr")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CSR_FIELD_NUMBER: _ClassVar[int]
    name: str
    csr: str
    def __init__(self, name: _Optional[str] = ..., csr: _Optional[str] = ...) -> None: ...

class IssueClientResponse(_message.Message):
    __slots__ = ("cert", "ca", "managers")
    CERT_FIELD_NUMBER: _ClassVar[int]
    CA_FIELD_NUMBER: _ClassVar[int]
    MANAGERS_FIELD_NUMBER: _ClassVar[int]
    cert: str
    ca: str
    managers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, cert: _Optional[str] = ..., ca: _Optional[str] = ..., managers: _Optional[_Iterable[str]] = ...) -> None: ...

class DeployRequest(_message.Message):
    __slots__ = ("stack", "services", "networks", "volumes", "secrets", "configs", "prune", "dry_run", "resolve_image")
    STACK_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    NETWORKS_FIELD_NUMBER: _ClassVar[int]
    VOLUMES_FIELD_NUMBER: _ClassVar[int]
    SECRETS_FIELD_NUMBER: _ClassVar[int]
    CONFIGS_FIELD_NUMBER: _ClassVar[int]
    PRUNE_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    RESOLVE_IMAGE_FIELD_NUMBER: _ClassVar[int]
    stack: str
    services: _containers.RepeatedCompositeFieldContainer[_objects_pb2.ServiceSpec]
    networks: _containers.RepeatedCompositeFieldContainer[_objects_pb2.NetworkSpec]
    volumes: _containers.RepeatedCompositeFieldContainer[_objects_pb2.VolumeSpec]
    secrets: _containers.RepeatedCompositeFieldContainer[_objects_pb2.SecretSpec]
    configs: _containers.RepeatedCompositeFieldContainer[_objects_pb2.ConfigSpec]
    prune: bool
    dry_run: bool
    resolve_image: str
    def __init__(self, stack: _Optional[str] = ..., services: _Optional[_Iterable[_Union[_objects_pb2.ServiceSpec, _Mapping]]] = ..., networks: _Optional[_Iterable[_Union[_objects_pb2.NetworkSpec, _Mapping]]] = ..., volumes: _Optional[_Iterable[_Union[_objects_pb2.VolumeSpec, _Mapping]]] = ..., secrets: _Optional[_Iterable[_Union[_objects_pb2.SecretSpec, _Mapping]]] = ..., configs: _Optional[_Iterable[_Union[_objects_pb2.ConfigSpec, _Mapping]]] = ..., prune: _Optional[bool] = ..., dry_run: _Optional[bool] = ..., resolve_image: _Optional[str] = ...) -> None: ...

class DeployAction(_message.Message):
    __slots__ = ("kind", "name", "id", "action")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    kind: str
    name: str
    id: str
    action: str
    def __init__(self, kind: _Optional[str] = ..., name: _Optional[str] = ..., id: _Optional[str] = ..., action: _Optional[str] = ...) -> None: ...

class DeployResponse(_message.Message):
    __slots__ = ("actions", "warnings", "revision")
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    actions: _containers.RepeatedCompositeFieldContainer[DeployAction]
    warnings: _containers.RepeatedScalarFieldContainer[str]
    revision: int
    def __init__(self, actions: _Optional[_Iterable[_Union[DeployAction, _Mapping]]] = ..., warnings: _Optional[_Iterable[str]] = ..., revision: _Optional[int] = ...) -> None: ...

class RemoveStackRequest(_message.Message):
    __slots__ = ("stack",)
    STACK_FIELD_NUMBER: _ClassVar[int]
    stack: str
    def __init__(self, stack: _Optional[str] = ...) -> None: ...

class EventsRequest(_message.Message):
    __slots__ = ("filters", "after", "snapshot")
    FILTERS_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    filters: _containers.RepeatedCompositeFieldContainer[Filter]
    after: int
    snapshot: bool
    def __init__(self, filters: _Optional[_Iterable[_Union[Filter, _Mapping]]] = ..., after: _Optional[int] = ..., snapshot: _Optional[bool] = ...) -> None: ...

class EventMessage(_message.Message):
    __slots__ = ("action", "time", "revision", "kind", "id", "name", "object")
    ACTION_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    action: str
    time: float
    revision: int
    kind: str
    id: str
    name: str
    object: ObjectBox
    def __init__(self, action: _Optional[str] = ..., time: _Optional[float] = ..., revision: _Optional[int] = ..., kind: _Optional[str] = ..., id: _Optional[str] = ..., name: _Optional[str] = ..., object: _Optional[_Union[ObjectBox, _Mapping]] = ...) -> None: ...

class LogsRequest(_message.Message):
    __slots__ = ("services", "tasks", "nodes", "follow", "tail", "since", "until", "stdout", "stderr")
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    TAIL_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    STDOUT_FIELD_NUMBER: _ClassVar[int]
    STDERR_FIELD_NUMBER: _ClassVar[int]
    services: _containers.RepeatedScalarFieldContainer[str]
    tasks: _containers.RepeatedScalarFieldContainer[str]
    nodes: _containers.RepeatedScalarFieldContainer[str]
    follow: bool
    tail: int
    since: float
    until: float
    stdout: bool
    stderr: bool
    def __init__(self, services: _Optional[_Iterable[str]] = ..., tasks: _Optional[_Iterable[str]] = ..., nodes: _Optional[_Iterable[str]] = ..., follow: _Optional[bool] = ..., tail: _Optional[int] = ..., since: _Optional[float] = ..., until: _Optional[float] = ..., stdout: _Optional[bool] = ..., stderr: _Optional[bool] = ...) -> None: ...

class LogMessage(_message.Message):
    __slots__ = ("task_id", "service_id", "service_name", "slot", "node_id", "nanos", "stream", "data", "warning")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    SERVICE_ID_FIELD_NUMBER: _ClassVar[int]
    SERVICE_NAME_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    NANOS_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    service_id: str
    service_name: str
    slot: int
    node_id: str
    nanos: int
    stream: str
    data: bytes
    warning: str
    def __init__(self, task_id: _Optional[str] = ..., service_id: _Optional[str] = ..., service_name: _Optional[str] = ..., slot: _Optional[int] = ..., node_id: _Optional[str] = ..., nanos: _Optional[int] = ..., stream: _Optional[str] = ..., data: _Optional[bytes] = ..., warning: _Optional[str] = ...) -> None: ...

class ExecStart(_message.Message):
    __slots__ = ("task", "argv", "env", "user", "working_dir", "tty", "stdin", "privileged", "rows", "cols", "attach")
    TASK_FIELD_NUMBER: _ClassVar[int]
    ARGV_FIELD_NUMBER: _ClassVar[int]
    ENV_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    WORKING_DIR_FIELD_NUMBER: _ClassVar[int]
    TTY_FIELD_NUMBER: _ClassVar[int]
    STDIN_FIELD_NUMBER: _ClassVar[int]
    PRIVILEGED_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLS_FIELD_NUMBER: _ClassVar[int]
    ATTACH_FIELD_NUMBER: _ClassVar[int]
    task: str
    argv: _containers.RepeatedScalarFieldContainer[str]
    env: _containers.RepeatedScalarFieldContainer[str]
    user: str
    working_dir: str
    tty: bool
    stdin: bool
    privileged: bool
    rows: int
    cols: int
    attach: bool
    def __init__(self, task: _Optional[str] = ..., argv: _Optional[_Iterable[str]] = ..., env: _Optional[_Iterable[str]] = ..., user: _Optional[str] = ..., working_dir: _Optional[str] = ..., tty: _Optional[bool] = ..., stdin: _Optional[bool] = ..., privileged: _Optional[bool] = ..., rows: _Optional[int] = ..., cols: _Optional[int] = ..., attach: _Optional[bool] = ...) -> None: ...

class ExecInputMessage(_message.Message):
    __slots__ = ("start", "kind", "data")
    START_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    start: ExecStart
    kind: str
    data: bytes
    def __init__(self, start: _Optional[_Union[ExecStart, _Mapping]] = ..., kind: _Optional[str] = ..., data: _Optional[bytes] = ...) -> None: ...

class ExecOutputMessage(_message.Message):
    __slots__ = ("kind", "data")
    KIND_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    kind: str
    data: bytes
    def __init__(self, kind: _Optional[str] = ..., data: _Optional[bytes] = ...) -> None: ...

class NodeCommand(_message.Message):
    __slots__ = ("node", "verb", "args", "data", "eof")
    NODE_FIELD_NUMBER: _ClassVar[int]
    VERB_FIELD_NUMBER: _ClassVar[int]
    ARGS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    EOF_FIELD_NUMBER: _ClassVar[int]
    node: str
    verb: str
    args: str
    data: bytes
    eof: bool
    def __init__(self, node: _Optional[str] = ..., verb: _Optional[str] = ..., args: _Optional[str] = ..., data: _Optional[bytes] = ..., eof: _Optional[bool] = ...) -> None: ...

class NodeReply(_message.Message):
    __slots__ = ("kind", "text", "data", "error_class")
    KIND_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    ERROR_CLASS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    text: str
    data: bytes
    error_class: str
    def __init__(self, kind: _Optional[str] = ..., text: _Optional[str] = ..., data: _Optional[bytes] = ..., error_class: _Optional[str] = ...) -> None: ...

class StatsRequest(_message.Message):
    __slots__ = ("tasks",)
    TASKS_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, tasks: _Optional[_Iterable[str]] = ...) -> None: ...

class StatsResponse(_message.Message):
    __slots__ = ("stats",)
    STATS_FIELD_NUMBER: _ClassVar[int]
    stats: _containers.RepeatedCompositeFieldContainer[_objects_pb2.ContainerStats]
    def __init__(self, stats: _Optional[_Iterable[_Union[_objects_pb2.ContainerStats, _Mapping]]] = ...) -> None: ...

class InfoResponse(_message.Message):
    __slots__ = ("cluster", "node_id", "node_addr", "is_leader", "version", "raft_version", "managers", "nodes", "services", "tasks_running", "tasks", "manager_addresses", "state_dir", "run_dir")
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ADDR_FIELD_NUMBER: _ClassVar[int]
    IS_LEADER_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RAFT_VERSION_FIELD_NUMBER: _ClassVar[int]
    MANAGERS_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    TASKS_RUNNING_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    MANAGER_ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    STATE_DIR_FIELD_NUMBER: _ClassVar[int]
    RUN_DIR_FIELD_NUMBER: _ClassVar[int]
    cluster: _objects_pb2.Cluster
    node_id: str
    node_addr: str
    is_leader: bool
    version: str
    raft_version: str
    managers: int
    nodes: int
    services: int
    tasks_running: int
    tasks: int
    manager_addresses: _containers.RepeatedScalarFieldContainer[str]
    state_dir: str
    run_dir: str
    def __init__(self, cluster: _Optional[_Union[_objects_pb2.Cluster, _Mapping]] = ..., node_id: _Optional[str] = ..., node_addr: _Optional[str] = ..., is_leader: _Optional[bool] = ..., version: _Optional[str] = ..., raft_version: _Optional[str] = ..., managers: _Optional[int] = ..., nodes: _Optional[int] = ..., services: _Optional[int] = ..., tasks_running: _Optional[int] = ..., tasks: _Optional[int] = ..., manager_addresses: _Optional[_Iterable[str]] = ..., state_dir: _Optional[str] = ..., run_dir: _Optional[str] = ...) -> None: ...

class SessionRequest(_message.Message):
    __slots__ = ("description", "session_id", "data_path_addr", "addr", "join_addr", "api_addr")
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_PATH_ADDR_FIELD_NUMBER: _ClassVar[int]
    ADDR_FIELD_NUMBER: _ClassVar[int]
    JOIN_ADDR_FIELD_NUMBER: _ClassVar[int]
    API_ADDR_FIELD_NUMBER: _ClassVar[int]
    description: _objects_pb2.NodeDescription
    session_id: str
    data_path_addr: str
    addr: str
    join_addr: str
    api_addr: str
    def __init__(self, description: _Optional[_Union[_objects_pb2.NodeDescription, _Mapping]] = ..., session_id: _Optional[str] = ..., data_path_addr: _Optional[str] = ..., addr: _Optional[str] = ..., join_addr: _Optional[str] = ..., api_addr: _Optional[str] = ...) -> None: ...

class SessionMessage(_message.Message):
    __slots__ = ("session_id", "node", "managers", "heartbeat_period", "data_path_port", "root_ca")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    MANAGERS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_PERIOD_FIELD_NUMBER: _ClassVar[int]
    DATA_PATH_PORT_FIELD_NUMBER: _ClassVar[int]
    ROOT_CA_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    node: _objects_pb2.Node
    managers: _containers.RepeatedScalarFieldContainer[str]
    heartbeat_period: float
    data_path_port: int
    root_ca: str
    def __init__(self, session_id: _Optional[str] = ..., node: _Optional[_Union[_objects_pb2.Node, _Mapping]] = ..., managers: _Optional[_Iterable[str]] = ..., heartbeat_period: _Optional[float] = ..., data_path_port: _Optional[int] = ..., root_ca: _Optional[str] = ...) -> None: ...

class HeartbeatRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    def __init__(self, session_id: _Optional[str] = ...) -> None: ...

class HeartbeatResponse(_message.Message):
    __slots__ = ("period",)
    PERIOD_FIELD_NUMBER: _ClassVar[int]
    period: float
    def __init__(self, period: _Optional[float] = ...) -> None: ...

class AssignmentsRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    def __init__(self, session_id: _Optional[str] = ...) -> None: ...

class UpdateStatusRequest(_message.Message):
    __slots__ = ("session_id", "updates", "stats")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    STATS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    updates: _containers.RepeatedCompositeFieldContainer[_objects_pb2.TaskStatusUpdate]
    stats: _containers.RepeatedCompositeFieldContainer[_objects_pb2.ContainerStats]
    def __init__(self, session_id: _Optional[str] = ..., updates: _Optional[_Iterable[_Union[_objects_pb2.TaskStatusUpdate, _Mapping]]] = ..., stats: _Optional[_Iterable[_Union[_objects_pb2.ContainerStats, _Mapping]]] = ...) -> None: ...

class ListenRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    def __init__(self, session_id: _Optional[str] = ...) -> None: ...

class Demand(_message.Message):
    __slots__ = ("id", "logs", "exec", "command")
    ID_FIELD_NUMBER: _ClassVar[int]
    LOGS_FIELD_NUMBER: _ClassVar[int]
    EXEC_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    id: str
    logs: LogsRequest
    exec: ExecStart
    command: NodeCommand
    def __init__(self, id: _Optional[str] = ..., logs: _Optional[_Union[LogsRequest, _Mapping]] = ..., exec: _Optional[_Union[ExecStart, _Mapping]] = ..., command: _Optional[_Union[NodeCommand, _Mapping]] = ...) -> None: ...

class AnswerMessage(_message.Message):
    __slots__ = ("demand_id", "log", "exec", "reply")
    DEMAND_ID_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    EXEC_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    demand_id: str
    log: LogMessage
    exec: ExecOutputMessage
    reply: NodeReply
    def __init__(self, demand_id: _Optional[str] = ..., log: _Optional[_Union[LogMessage, _Mapping]] = ..., exec: _Optional[_Union[ExecOutputMessage, _Mapping]] = ..., reply: _Optional[_Union[NodeReply, _Mapping]] = ...) -> None: ...

class AnswerInput(_message.Message):
    __slots__ = ("exec", "command")
    EXEC_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    exec: ExecInputMessage
    command: NodeCommand
    def __init__(self, exec: _Optional[_Union[ExecInputMessage, _Mapping]] = ..., command: _Optional[_Union[NodeCommand, _Mapping]] = ...) -> None: ...

class FetchImageRequest(_message.Message):
    __slots__ = ("session_id", "reference")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    reference: str
    def __init__(self, session_id: _Optional[str] = ..., reference: _Optional[str] = ...) -> None: ...

class ImagePiece(_message.Message):
    __slots__ = ("file", "data")
    FILE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    file: str
    data: bytes
    def __init__(self, file: _Optional[str] = ..., data: _Optional[bytes] = ...) -> None: ...

class RootCAResponse(_message.Message):
    __slots__ = ("cert",)
    CERT_FIELD_NUMBER: _ClassVar[int]
    cert: str
    def __init__(self, cert: _Optional[str] = ...) -> None: ...

class IssueRequest(_message.Message):
    __slots__ = ("csr", "token", "availability", "addr")
    CSR_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    AVAILABILITY_FIELD_NUMBER: _ClassVar[int]
    ADDR_FIELD_NUMBER: _ClassVar[int]
    csr: str
    token: str
    availability: str
    addr: str
    def __init__(self, csr: _Optional[str] = ..., token: _Optional[str] = ..., availability: _Optional[str] = ..., addr: _Optional[str] = ...) -> None: ...

class IssueResponse(_message.Message):
    __slots__ = ("node_id", "cert", "role", "managers", "cluster_id", "data_path_port")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    CERT_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    MANAGERS_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_PATH_PORT_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    cert: str
    role: str
    managers: _containers.RepeatedScalarFieldContainer[str]
    cluster_id: str
    data_path_port: int
    def __init__(self, node_id: _Optional[str] = ..., cert: _Optional[str] = ..., role: _Optional[str] = ..., managers: _Optional[_Iterable[str]] = ..., cluster_id: _Optional[str] = ..., data_path_port: _Optional[int] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("csr",)
    CSR_FIELD_NUMBER: _ClassVar[int]
    csr: str
    def __init__(self, csr: _Optional[str] = ...) -> None: ...

class JoinRaftRequest(_message.Message):
    __slots__ = ("peer_url", "member_id", "join_addr", "api_addr")
    PEER_URL_FIELD_NUMBER: _ClassVar[int]
    MEMBER_ID_FIELD_NUMBER: _ClassVar[int]
    JOIN_ADDR_FIELD_NUMBER: _ClassVar[int]
    API_ADDR_FIELD_NUMBER: _ClassVar[int]
    peer_url: str
    member_id: str
    join_addr: str
    api_addr: str
    def __init__(self, peer_url: _Optional[str] = ..., member_id: _Optional[str] = ..., join_addr: _Optional[str] = ..., api_addr: _Optional[str] = ...) -> None: ...

class RaftMember(_message.Message):
    __slots__ = ("name", "peer_url")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PEER_URL_FIELD_NUMBER: _ClassVar[int]
    name: str
    peer_url: str
    def __init__(self, name: _Optional[str] = ..., peer_url: _Optional[str] = ...) -> None: ...

class JoinRaftResponse(_message.Message):
    __slots__ = ("member_id", "members", "seal_keys")
    MEMBER_ID_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    SEAL_KEYS_FIELD_NUMBER: _ClassVar[int]
    member_id: str
    members: _containers.RepeatedCompositeFieldContainer[RaftMember]
    seal_keys: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, member_id: _Optional[str] = ..., members: _Optional[_Iterable[_Union[RaftMember, _Mapping]]] = ..., seal_keys: _Optional[_Iterable[bytes]] = ...) -> None: ...

class UnlockRequest(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: str
    def __init__(self, key: _Optional[str] = ...) -> None: ...

class SealKeysResponse(_message.Message):
    __slots__ = ("keys",)
    KEYS_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, keys: _Optional[_Iterable[bytes]] = ...) -> None: ...
