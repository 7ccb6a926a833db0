"""What users want: the specs of services, networks, volumes, secrets, configs, nodes and the cluster.

Frozen values, the middle one of the three forms (pydantic for what people write, these for the domain,
protobuf on the wire and in the store). Field names follow the Engine API's, in Python's spelling;
`proto/pyswarm/v1/objects.proto` mirrors each class field for field and a test holds the two equal.

Units, everywhere: durations and times are float seconds, memory and disk are bytes, CPU is in billionths
of a core (`nano_cpus`). Mappings are never mutated after construction. `None` means "not said", so that
defaults are applied in one place, where the value is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

StrMap = Mapping[str, str]

STACK_LABEL = "com.docker.stack.namespace"
VERSION_OF_LABEL = "pyswarm.version-of"
"""On a secret or config that holds new content for a stack: the name that the Compose file gives it."""
"""The label that ties an object to its stack, Swarm's own, so that its tools keep working."""
IMAGE_LABEL = "com.docker.stack.image"
"""The image as the Compose file names it, before its digest was pinned."""


def _map() -> dict[str, str]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """A named driver and its options (network, IPAM, volume, log, secret)."""

    name: str = ""
    options: StrMap = field(default_factory=_map)


# ---------------------------------------------------------------------------------------------- containers


@dataclass(frozen=True, slots=True, kw_only=True)
class Healthcheck:
    """How to tell that a container is healthy. Unset fields take the image's value, then Docker's default
    (interval 30 s, timeout 30 s, retries 3, start_period 0, start_interval 5 s)."""

    test: tuple[str, ...] = ()
    """() inherits the image's; ("NONE",) disables; ("CMD", argv...) or ("CMD-SHELL", command)."""
    interval: float | None = None
    timeout: float | None = None
    retries: int | None = None
    start_period: float | None = None
    start_interval: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One entry of `mounts`: a named volume, a bind, a tmpfs or a read-only image mount."""

    type: Literal["bind", "volume", "tmpfs", "image", "cluster", "npipe"] = "volume"
    source: str = ""
    """Volume name or path on the node; empty for tmpfs and for anonymous volumes."""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_propagation: str = ""
    """"" means rprivate."""
    bind_create_host_path: bool = True
    bind_non_recursive: bool = False
    volume_no_copy: bool = False
    volume_subpath: str = ""
    volume_labels: StrMap = field(default_factory=_map)
    volume_driver: Driver | None = None
    tmpfs_size: int = 0
    """Bytes; 0 is unlimited."""
    tmpfs_mode: int = 0
    """Permission bits; 0 means 1777."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileReference:
    """A secret or config given to a container as a file on tmpfs, or as an environment variable's source."""

    source_id: str = ""
    """Id of the secret or config; resolved by the control API from `source_name` when empty."""
    source_name: str = ""
    target: str = ""
    """File name: absolute, or relative to /run/secrets for a secret and / for a config."""
    uid: str = "0"
    gid: str = "0"
    mode: int = 0o444


@dataclass(frozen=True, slots=True, kw_only=True)
class Ulimit:
    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMapping:
    """A device of the node, by path, or by CDI name (`vendor.com/class=name`) in `path_on_host`."""

    path_on_host: str
    path_in_container: str = ""
    permissions: str = "rwm"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRequest:
    """Compose's `gpus` and `deploy.resources.reservations.devices`."""

    driver: str = ""
    count: int = 0
    """-1 is all."""
    device_ids: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    options: StrMap = field(default_factory=_map)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlkioDevice:
    """A block device's weight or rate."""

    path: str
    value: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A lifecycle command (`post_start`, `pre_stop`), run in the container."""

    command: tuple[str, ...]
    user: str = ""
    privileged: bool = False
    working_dir: str = ""
    env: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """What runs in a task: the Engine API's ContainerSpec, and the `docker run` fields Swarm leaves out."""

    image: str = ""
    """Reference; pinned as `name:tag@sha256:...` once the control API or the client has resolved it."""
    pull_policy: str = ""
    """Compose's: "" (missing), always, missing, never, build, daily, weekly, every_<duration>."""
    labels: StrMap = field(default_factory=_map)
    """Labels of the container, not of the service."""
    command: tuple[str, ...] | None = None
    """Replaces the image's ENTRYPOINT (Compose: entrypoint). `()` clears it."""
    args: tuple[str, ...] | None = None
    """Replaces the image's CMD (Compose: command)."""
    hostname: str = ""
    domainname: str = ""
    env: tuple[str, ...] = ()
    """`NAME=value`; a bare `NAME` removes the image's."""
    dir: str = ""
    user: str = ""
    groups: tuple[str, ...] = ()
    init: bool | None = None
    tty: bool = False
    open_stdin: bool = False
    read_only: bool = False
    stop_signal: str = ""
    stop_grace_period: float | None = None
    """Seconds between the stop signal and SIGKILL; None means 10."""
    healthcheck: Healthcheck | None = None
    mounts: tuple[Mount, ...] = ()
    secrets: tuple[FileReference, ...] = ()
    configs: tuple[FileReference, ...] = ()
    hosts: tuple[str, ...] = ()
    """Extra hosts, in the form of /etc/hosts: `address name [alias...]`."""
    dns_nameservers: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    no_new_privileges: bool = False
    security_opt: tuple[str, ...] = ()
    """As typed for `docker run` (seccomp=, apparmor=, label=, systempaths=unconfined); no-new-privileges
    goes into the field of that name."""
    devices: tuple[DeviceMapping, ...] = ()
    device_cgroup_rules: tuple[str, ...] = ()
    device_requests: tuple[DeviceRequest, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    sysctls: StrMap = field(default_factory=_map)
    shm_size: int = 0
    """Bytes; 0 means 64 MiB."""
    pids_mode: str = ""
    """"" private, "host", or "service:NAME"."""
    ipc_mode: str = ""
    uts_mode: str = ""
    cgroup_mode: str = ""
    cgroup_parent: str = ""
    userns_mode: str = ""
    isolation: str = ""
    oom_kill_disable: bool = False
    oom_score_adj: int = 0
    group_add: tuple[str, ...] = ()
    storage_opt: StrMap = field(default_factory=_map)
    annotations: StrMap = field(default_factory=_map)
    post_start: tuple[Hook, ...] = ()
    pre_stop: tuple[Hook, ...] = ()
    mac_address: str = ""
    network_mode: str = ""
    """"" (the task's networks), "host", "none"."""
    volumes_from: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    attach_first: bool = False
    """Start the process when a client has attached to its streams (`ExecStart.attach`), so that none of its output
    is missed; the task fails when nobody does within a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenericResource:
    """A countable (`value`) or named (`string_value`) resource of a node,
    or a request for `value` of a kind."""

    kind: str
    value: int = 0
    string_value: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """An amount: a limit or a reservation. Zero means none said."""

    nano_cpus: int = 0
    memory: int = 0
    pids: int = 0
    """Limits only."""
    generic: tuple[GenericResource, ...] = ()
    """Reservations only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceRequirements:
    limits: Resources = field(default_factory=Resources)
    reservations: Resources = field(default_factory=Resources)
    swap: int | None = None
    """Bytes of swap on top of memory; -1 is unlimited (`memswap_limit` minus `mem_limit`)."""
    swappiness: int | None = None
    cpu_shares: int = 0
    cpu_period: int = 0
    """Microseconds; 0 is the kernel's."""
    cpu_quota: int = 0
    cpu_rt_period: int = 0
    cpu_rt_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    blkio_weight: int = 0
    blkio_weight_device: tuple[BlkioDevice, ...] = ()
    blkio_read_bps: tuple[BlkioDevice, ...] = ()
    blkio_write_bps: tuple[BlkioDevice, ...] = ()
    blkio_read_iops: tuple[BlkioDevice, ...] = ()
    blkio_write_iops: tuple[BlkioDevice, ...] = ()
    memory_low: int = 0
    """Compose's mem_reservation where it is a kernel hint; bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    condition: Literal["none", "on-failure", "any"] = "any"
    delay: float | None = None
    """Seconds; None means 5."""
    max_attempts: int = 0
    """0 is without limit."""
    window: float = 0.0
    """Seconds over which attempts count; 0 is unbounded."""
    max_delay: float | None = None
    """Cap of the exponential back-off of crash loops in seconds; None means 300 (or delay if larger)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpreadPreference:
    """Spread evenly over the values of a node label: `node.labels.X` or `engine.labels.X`."""

    spread_descriptor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    architecture: str = ""
    """As uname -m or Go names it (x86_64 and amd64 are the same)."""
    os: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    constraints: tuple[str, ...] = ()
    """`node.labels.disk==ssd`, `node.role!=manager`, ..."""
    preferences: tuple[SpreadPreference, ...] = ()
    max_replicas: int = 0
    """Most tasks of the service on one node; 0 is without limit."""
    platforms: tuple[Platform, ...] = ()
    strategy: str = ""
    """"" or "spread", or "binpack"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkAttachmentSpec:
    """A wish to be on a network."""

    target: str
    """Id or name of the network; the control API stores the id."""
    aliases: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    """Fixed addresses asked for, or empty."""
    driver_opts: StrMap = field(default_factory=_map)
    mac_address: str = ""
    priority: int = 0
    gw_priority: int = 0
    interface_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """What one task is made of; a change of it replaces tasks."""

    container: ContainerSpec = field(default_factory=ContainerSpec)
    resources: ResourceRequirements = field(default_factory=ResourceRequirements)
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    placement: Placement = field(default_factory=Placement)
    networks: tuple[NetworkAttachmentSpec, ...] = ()
    log_driver: Driver | None = None
    force_update: int = 0
    runtime: str = ""
    """OCI runtime by name; "" is the node's default."""
    registry_auth: str = ""
    """Base64 JSON as in X-Registry-Auth; forwarded to agents, never shown."""


# ---------------------------------------------------------------------------------------------- services


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceMode:
    kind: Literal["replicated", "global", "replicated-job", "global-job"] = "replicated"
    replicas: int = 1
    """Replicated only."""
    max_concurrent: int = 1
    """Replicated jobs: tasks at the same time."""
    total_completions: int = 1
    """Replicated jobs: tasks that must complete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateConfig:
    parallelism: int = 1
    """Tasks updated at the same time; 0 is all."""
    delay: float = 0.0
    failure_action: Literal["pause", "continue", "rollback"] = "pause"
    """`rollback` is for updates only: a failed rollback pauses."""
    monitor: float | None = None
    """Seconds a task must survive to count as updated; None means 5."""
    max_failure_ratio: float = 0.0
    order: Literal["stop-first", "start-first"] = "stop-first"
    progress_deadline: float | None = None
    """Seconds without a task becoming RUNNING after which the update counts as failed; None means 600,
    0 waits without limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PortConfig:
    """A published port."""

    target_port: int
    published_port: int = 0
    """0 asks for one of 30000 to 32767 (ingress) or an ephemeral one (host)."""
    protocol: Literal["tcp", "udp", "sctp"] = "tcp"
    publish_mode: Literal["ingress", "host"] = "ingress"
    name: str = ""
    host_ip: str = ""
    """Address of the node to listen on; "" is every one."""
    app_protocol: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSpec:
    mode: Literal["vip", "dnsrr"] = "vip"
    ports: tuple[PortConfig, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    """Compose's depends_on, decided by the managers."""

    service: str
    """Name of the service (in a stack: its full name, `stack_service`)."""
    condition: Literal["service_started", "service_healthy", "service_completed_successfully"] = (
        "service_started"
    )
    restart: bool = False
    """Restart this service's tasks when the dependency was restarted or updated."""
    required: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CronSchedule:
    """`x-pyswarm.schedule`: a job that runs by the clock, with the rules of Kubernetes' CronJob."""

    schedule: str
    """Five fields, or @hourly and the like."""
    time_zone: str = ""
    """IANA name; "" is UTC."""
    concurrency: Literal["allow", "forbid", "replace"] = "forbid"
    history: int = 3
    starting_deadline: float | None = None
    """Seconds after its time that a missed run may still start; None is without limit."""


AUTOSCALE_METRICS = ("network_rx", "network_tx", "block_read", "block_write", "pids")
"""What else than CPU and memory a service can be scaled by: bytes a second of a task, and its processes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Autoscale:
    """`x-pyswarm.autoscale`, with the stabilisation rules of Kubernetes' HPA."""

    min: int = 1
    max: int = 10
    cpu: float | None = None
    """Target use as a fraction of the reservation (or of the limit): 0.7 is 70%."""
    memory: float | None = None
    metric: str = ""
    """One of AUTOSCALE_METRICS; "" for none."""
    target: float | None = None
    """What a task's `metric` should be."""
    cooldown: float = 300.0
    """Seconds over which a scale-down waits for the highest recommendation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSpec:
    """The desired state of a service."""

    name: str = ""
    labels: StrMap = field(default_factory=_map)
    task: TaskSpec = field(default_factory=TaskSpec)
    mode: ServiceMode = field(default_factory=ServiceMode)
    update: UpdateConfig | None = None
    """None means UpdateConfig()."""
    rollback: UpdateConfig | None = None
    endpoint: EndpointSpec = field(default_factory=EndpointSpec)
    depends_on: tuple[Dependency, ...] = ()
    cron: CronSchedule | None = None
    autoscale: Autoscale | None = None
    volumes_per_slot: bool = False
    """Named volumes are made once for each slot, and a slot starts only where its own are."""
    volumes_move_after: float | None = None
    """Seconds for which a slot waits for the node with its volumes; then it starts elsewhere, with empty ones.
    None: it waits for ever."""
    rebalance: str = ""
    """"" the cluster's default, "off" or "gentle"."""
    stopped: bool = False
    """A replicated service's tasks are told to stop and get no successors; its slots and their last tasks stay, to
    be looked at and to be begun anew (`compose stop` and `start`)."""


# ---------------------------------------------------------------------------------------------- other nouns


@dataclass(frozen=True, slots=True, kw_only=True)
class IpamPool:
    subnet: str = ""
    """CIDR; "" asks for one of the cluster's address pools."""
    ip_range: str = ""
    gateway: str = ""
    aux_addresses: StrMap = field(default_factory=_map)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec:
    name: str = ""
    labels: StrMap = field(default_factory=_map)
    driver: Driver = field(default_factory=lambda: Driver(name="overlay"))
    """Option `com.docker.network.driver.mtu` sets the MTU; `encrypted` asks for encryption."""
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    enable_ipv4: bool = True
    enable_ipv6: bool = False
    scope: str = "swarm"
    ipam_driver: Driver = field(default_factory=Driver)
    ipam: tuple[IpamPool, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeSpec:
    """A named volume; the local driver makes one on each node that runs a task with it."""

    name: str = ""
    labels: StrMap = field(default_factory=_map)
    driver: Driver = field(default_factory=lambda: Driver(name="local"))


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretSpec:
    name: str = ""
    labels: StrMap = field(default_factory=_map)
    data: bytes = b""
    """At most 500 KB. Empty in every answer of the API."""
    driver: Driver | None = None
    templating: Driver | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigSpec:
    name: str = ""
    labels: StrMap = field(default_factory=_map)
    data: bytes = b""
    """At most 1,000 KB."""
    templating: Driver | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec:
    name: str = ""
    labels: StrMap = field(default_factory=_map)
    role: Literal["worker", "manager"] = "worker"
    availability: Literal["active", "pause", "drain"] = "active"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalCA:
    """A CA outside of the cluster that signs its certificates."""

    url: str
    """Where requests are posted: https://host:port/api/v1/cfssl/sign"""
    protocol: str = "cfssl"
    ca_cert: str = ""
    """PEM of the root that it signs with; "" is the cluster's present one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSpec:
    """What the whole cluster is told; defaults are Swarm's except where an issue measured better."""

    name: str = "default"
    labels: StrMap = field(default_factory=_map)
    task_history_limit: int = 5
    """Ended tasks kept per slot; negative keeps all."""
    heartbeat_period: float = 1.0
    """Seconds between an agent's heartbeats."""
    heartbeat_grace: float = 3.0
    """Heartbeat periods missed before a node is DOWN."""
    node_cert_expiry: float = 7_776_000.0
    """Seconds; 90 days."""
    default_log_driver: Driver | None = None
    autolock: bool = False
    rebalance: Literal["off", "gentle"] = "off"
    default_address_pool: tuple[str, ...] = ("10.0.0.0/8",)
    subnet_size: int = 24
    """Prefix length of subnets taken from the pools."""
    data_path_port: int = 4789
    ingress_node_selector: tuple[str, ...] = ()
    """Placement constraints of the nodes that answer on ingress ports; () is all."""
    external_cas: tuple[ExternalCA, ...] = ()
    """Asked in this order to sign for their root, when the cluster has not got that root's key."""


def update_config(config: UpdateConfig | None) -> UpdateConfig:
    """The settings of an update or rollback, with Swarm's defaults when none were said."""
    return config if config is not None else UpdateConfig()
