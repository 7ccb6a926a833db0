"""The canonical project as typed values: pydantic models of what a service says in its long form."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from compose.units import parse_duration


def _seconds(value: object) -> object:
    if isinstance(value, str):
        span = parse_duration(value)
        if span is None:
            raise ValueError(f'"{value}" is not a duration')
        return span / 1e9
    return value


def _octal(value: object) -> object:
    return int(value, 8) if isinstance(value, str) else value


Seconds = Annotated[float, BeforeValidator(_seconds)]
"""Written as Go prints durations; held in seconds."""
Bytes = int
"""Written as a string of digits; held as a number."""
Mode = Annotated[int, BeforeValidator(_octal)]
StrMap = dict[str, str]
Extras = dict[str, Any]  # x- keys hold whatever YAML can say


def _strings() -> list[str]:
    return []


def _mapping() -> StrMap:
    return {}


class Part(BaseModel):
    """Any mapping of the file. Unknown keys are refused but for `x-` ones, which are kept."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    @property
    def extensions(self) -> Extras:
        """The `x-` keys."""
        return dict(self.model_extra or {})


class Dependency(Part):
    condition: str = "service_started"
    restart: bool = False
    required: bool = True


class ServiceNetwork(Part):
    aliases: list[str] = Field(default_factory=_strings)
    interface_name: str = ""
    ipv4_address: str = ""
    ipv6_address: str = ""
    link_local_ips: list[str] = Field(default_factory=_strings)
    mac_address: str = ""
    driver_opts: StrMap = Field(default_factory=_mapping)
    priority: int = 0
    gw_priority: int = 0


class Port(Part):
    target: int
    published: str = ""
    protocol: str = "tcp"
    mode: str = "ingress"
    host_ip: str = ""
    name: str = ""
    app_protocol: str = ""


class Bind(Part):
    propagation: str = ""
    create_host_path: bool = True
    recursive: str = ""
    selinux: str = ""


class VolumeOptions(Part):
    labels: StrMap = Field(default_factory=_mapping)
    nocopy: bool = False
    subpath: str = ""


class Tmpfs(Part):
    size: Bytes = 0
    mode: int = 0


class ImageOptions(Part):
    subpath: str = ""


class Mount(Part):
    type: str
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind: Bind = Field(default_factory=Bind)
    volume: VolumeOptions = Field(default_factory=VolumeOptions)
    tmpfs: Tmpfs = Field(default_factory=Tmpfs)
    image: ImageOptions = Field(default_factory=ImageOptions)


class Device(Part):
    source: str
    target: str = ""
    permissions: str = "rwm"


class FileMount(Part):
    source: str = ""
    target: str = ""
    uid: str = ""
    gid: str = ""
    mode: Mode | None = None


class DeviceRequest(Part):
    capabilities: list[str] = Field(default_factory=_strings)
    count: int = 0
    device_ids: list[str] = Field(default_factory=_strings)
    driver: str = ""
    options: StrMap = Field(default_factory=_mapping)


class Ulimit(Part):
    soft: int
    hard: int


class EnvFile(Part):
    path: str
    required: bool = True
    format: str = ""


class Hook(Part):
    command: list[str] | None = None
    user: str = ""
    privileged: bool = False
    working_dir: str = ""
    environment: dict[str, str | None] = Field(default_factory=dict[str, "str | None"])


class Build(Part):
    context: str = "."
    dockerfile: str = ""
    dockerfile_inline: str = ""
    entitlements: list[str] = Field(default_factory=_strings)
    args: dict[str, str | None] = Field(default_factory=dict[str, "str | None"])
    ssh: list[str] = Field(default_factory=_strings)
    labels: StrMap = Field(default_factory=_mapping)
    cache_from: list[str] = Field(default_factory=_strings)
    cache_to: list[str] = Field(default_factory=_strings)
    no_cache: bool = False
    no_cache_filter: list[str] = Field(default_factory=_strings)
    additional_contexts: StrMap = Field(default_factory=_mapping)
    network: str = ""
    provenance: str = ""
    sbom: str = ""
    pull: bool = False
    target: str = ""
    shm_size: Bytes = 0
    extra_hosts: list[str] = Field(default_factory=_strings)
    isolation: str = ""
    privileged: bool = False
    secrets: list[FileMount] = Field(default_factory=list[FileMount])
    tags: list[str] = Field(default_factory=_strings)
    ulimits: dict[str, int | Ulimit] = Field(default_factory=dict[str, "int | Ulimit"])
    platforms: list[str] = Field(default_factory=_strings)


class BlkioLimit(Part):
    path: str = ""
    rate: Bytes = 0


class BlkioWeight(Part):
    path: str = ""
    weight: int = 0


class Blkio(Part):
    weight: int = 0
    weight_device: list[BlkioWeight] = Field(default_factory=list[BlkioWeight])
    device_read_bps: list[BlkioLimit] = Field(default_factory=list[BlkioLimit])
    device_read_iops: list[BlkioLimit] = Field(default_factory=list[BlkioLimit])
    device_write_bps: list[BlkioLimit] = Field(default_factory=list[BlkioLimit])
    device_write_iops: list[BlkioLimit] = Field(default_factory=list[BlkioLimit])


class Healthcheck(Part):
    disable: bool = False
    test: list[str] | None = None
    interval: Seconds | None = None
    timeout: Seconds | None = None
    retries: int | None = None
    start_period: Seconds | None = None
    start_interval: Seconds | None = None


class Logging(Part):
    driver: str = ""
    options: StrMap = Field(default_factory=_mapping)


class CredentialSpec(Part):
    config: str = ""
    file: str = ""
    registry: str = ""


class Watch(Part):
    path: str
    action: str
    target: str = ""
    ignore: list[str] = Field(default_factory=_strings)
    include: list[str] = Field(default_factory=_strings)
    exec: Hook | None = None
    initial_sync: bool = False


class Develop(Part):
    watch: list[Watch] = Field(default_factory=list[Watch])


class UpdateConfig(Part):
    parallelism: int | None = None
    delay: Seconds | None = None
    failure_action: str = ""
    monitor: Seconds | None = None
    max_failure_ratio: float = 0.0
    order: str = ""


class DiscreteResource(Part):
    kind: str = ""
    value: int = 0


class GenericResource(Part):
    discrete_resource_spec: DiscreteResource = Field(default_factory=DiscreteResource)


class Limits(Part):
    cpus: float = 0.0
    memory: Bytes = 0
    pids: int = 0


class Reservations(Part):
    cpus: float = 0.0
    memory: Bytes = 0
    generic_resources: list[GenericResource] = Field(default_factory=list[GenericResource])
    devices: list[DeviceRequest] = Field(default_factory=list[DeviceRequest])


class Resources(Part):
    limits: Limits = Field(default_factory=Limits)
    reservations: Reservations = Field(default_factory=Reservations)


class RestartPolicy(Part):
    condition: str = ""
    delay: Seconds | None = None
    max_attempts: int | None = None
    window: Seconds | None = None


class Preference(Part):
    spread: str = ""


class Placement(Part):
    constraints: list[str] = Field(default_factory=_strings)
    preferences: list[Preference] = Field(default_factory=list[Preference])
    max_replicas_per_node: int = 0


class Deploy(Part):
    mode: str = ""
    endpoint_mode: str = ""
    replicas: int | None = None
    labels: StrMap = Field(default_factory=_mapping)
    update_config: UpdateConfig | None = None
    rollback_config: UpdateConfig | None = None
    resources: Resources = Field(default_factory=Resources)
    restart_policy: RestartPolicy | None = None
    placement: Placement = Field(default_factory=Placement)


class Provider(Part):
    type: str
    options: dict[str, list[str]] = Field(default_factory=dict[str, "list[str]"])


class ServiceModel(Part):
    endpoint_var: str = ""
    model_var: str = ""


class Schedule(Part):
    schedule: str = ""
    cron: str = ""
    time_zone: str = ""
    concurrency: str = "forbid"
    history: int = 3
    starting_deadline: Seconds | None = None


class AutoscaleRule(Part):
    min: int = 1
    max: int = 10
    cpu: float | None = None
    memory: float | None = None
    metric: str = ""
    target: float | None = None
    cooldown: Seconds = 300.0


class Pyswarm(Part):
    """`x-pyswarm`: what a cluster adds to a service."""

    schedule: Schedule | None = None
    autoscale: AutoscaleRule | None = None
    volumes_per_slot: bool = False
    volumes_move_after: Seconds | None = None
    rebalance: str = ""
    placement_strategy: str = ""
    progress_deadline: Seconds | None = None
    restart_max_delay: Seconds | None = None


class Service(Part):
    """One service, in canonical form."""

    annotations: StrMap = Field(default_factory=_mapping)
    attach: bool = True
    blkio_config: Blkio | None = None
    build: Build | None = None
    cap_add: list[str] = Field(default_factory=_strings)
    cap_drop: list[str] = Field(default_factory=_strings)
    cgroup: str = ""
    cgroup_parent: str = ""
    command: list[str] | None = None
    configs: list[FileMount] = Field(default_factory=list[FileMount])
    container_name: str = ""
    cpu_count: int = 0
    cpu_percent: float = 0.0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_rt_period: int = 0
    cpu_rt_runtime: int = 0
    cpu_shares: int = 0
    cpus: float = 0.0
    cpuset: str = ""
    credential_spec: CredentialSpec | None = None
    depends_on: dict[str, Dependency] = Field(default_factory=dict[str, Dependency])
    deploy: Deploy | None = None
    develop: Develop | None = None
    device_cgroup_rules: list[str] = Field(default_factory=_strings)
    devices: list[Device] = Field(default_factory=list[Device])
    dns: list[str] = Field(default_factory=_strings)
    dns_opt: list[str] = Field(default_factory=_strings)
    dns_search: list[str] = Field(default_factory=_strings)
    domainname: str = ""
    entrypoint: list[str] | None = None
    env_file: list[EnvFile] = Field(default_factory=list[EnvFile])
    environment: dict[str, str | None] = Field(default_factory=dict[str, "str | None"])
    expose: list[str] = Field(default_factory=_strings)
    external_links: list[str] = Field(default_factory=_strings)
    extra_hosts: list[str] = Field(default_factory=_strings)
    gpus: list[DeviceRequest] = Field(default_factory=list[DeviceRequest])
    group_add: list[str] = Field(default_factory=_strings)
    healthcheck: Healthcheck | None = None
    hostname: str = ""
    image: str = ""
    init: bool | None = None
    ipc: str = ""
    isolation: str = ""
    label_file: list[str] = Field(default_factory=_strings)
    labels: StrMap = Field(default_factory=_mapping)
    links: list[str] = Field(default_factory=_strings)
    logging: Logging | None = None
    mac_address: str = ""
    mem_limit: Bytes = 0
    mem_reservation: Bytes = 0
    mem_swappiness: Bytes | None = None
    memswap_limit: Bytes = 0
    models: dict[str, ServiceModel | None] = Field(default_factory=dict[str, "ServiceModel | None"])
    network_mode: str = ""
    networks: dict[str, ServiceNetwork | None] = Field(default_factory=dict[str, "ServiceNetwork | None"])
    oom_kill_disable: bool = False
    oom_score_adj: int = 0
    pid: str | None = None
    pids_limit: int = 0
    platform: str = ""
    ports: list[Port] = Field(default_factory=list[Port])
    post_start: list[Hook] = Field(default_factory=list[Hook])
    pre_stop: list[Hook] = Field(default_factory=list[Hook])
    privileged: bool = False
    profiles: list[str] = Field(default_factory=_strings)
    provider: Provider | None = None
    pull_policy: str = ""
    pull_refresh_after: str = ""
    read_only: bool = False
    restart: str = ""
    runtime: str = ""
    scale: int | None = None
    secrets: list[FileMount] = Field(default_factory=list[FileMount])
    security_opt: list[str] = Field(default_factory=_strings)
    shm_size: Bytes = 0
    stdin_open: bool = False
    stop_grace_period: Seconds | None = None
    stop_signal: str = ""
    storage_opt: dict[str, Any] = Field(default_factory=dict[str, Any])  # the driver's own options
    sysctls: StrMap = Field(default_factory=_mapping)
    tmpfs: list[str] = Field(default_factory=_strings)
    tty: bool = False
    ulimits: dict[str, int | Ulimit] = Field(default_factory=dict[str, "int | Ulimit"])
    use_api_socket: bool = False
    user: str = ""
    userns_mode: str = ""
    uts: str = ""
    volumes: list[Mount] = Field(default_factory=list[Mount])
    volumes_from: list[str] = Field(default_factory=_strings)
    working_dir: str = ""
    pyswarm: Pyswarm | None = Field(default=None, alias="x-pyswarm")


class Pool(Part):
    subnet: str = ""
    ip_range: str = ""
    gateway: str = ""
    aux_addresses: StrMap = Field(default_factory=_mapping)


class Ipam(Part):
    driver: str = ""
    config: list[Pool] = Field(default_factory=list[Pool])
    options: StrMap = Field(default_factory=_mapping)


class Network(Part):
    name: str = ""
    driver: str = ""
    driver_opts: StrMap = Field(default_factory=_mapping)
    ipam: Ipam = Field(default_factory=Ipam)
    external: bool = False
    internal: bool = False
    enable_ipv4: bool | None = None
    enable_ipv6: bool | None = None
    attachable: bool = False
    labels: StrMap = Field(default_factory=_mapping)


class Volume(Part):
    name: str = ""
    driver: str = ""
    driver_opts: StrMap = Field(default_factory=_mapping)
    external: bool = False
    labels: StrMap = Field(default_factory=_mapping)


class FileObject(Part):
    """A top-level secret or config."""

    name: str = ""
    file: str = ""
    environment: str = ""
    content: str | None = None
    external: bool = False
    labels: StrMap = Field(default_factory=_mapping)
    driver: str = ""
    driver_opts: StrMap = Field(default_factory=_mapping)
    template_driver: str = ""


class LanguageModel(Part):
    name: str = ""
    model: str = ""
    context_size: int = 0
    runtime_flags: list[str] = Field(default_factory=_strings)
