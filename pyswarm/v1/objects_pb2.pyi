from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TaskState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TASK_STATE_NEW: _ClassVar[TaskState]
    TASK_STATE_PENDING: _ClassVar[TaskState]
    TASK_STATE_ASSIGNED: _ClassVar[TaskState]
    TASK_STATE_ACCEPTED: _ClassVar[TaskState]
    TASK_STATE_PREPARING: _ClassVar[TaskState]
    TASK_STATE_READY: _ClassVar[TaskState]
    TASK_STATE_STARTING: _ClassVar[TaskState]
    TASK_STATE_RUNNING: _ClassVar[TaskState]
    TASK_STATE_COMPLETE: _ClassVar[TaskState]
    TASK_STATE_SHUTDOWN: _ClassVar[TaskState]
    TASK_STATE_FAILED: _ClassVar[TaskState]
    TASK_STATE_REJECTED: _ClassVar[TaskState]
    TASK_STATE_REMOVE: _ClassVar[TaskState]
    TASK_STATE_ORPHANED: _ClassVar[TaskState]

class NodeState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NODE_STATE_UNKNOWN: _ClassVar[NodeState]
    NODE_STATE_DOWN: _ClassVar[NodeState]
    NODE_STATE_READY: _ClassVar[NodeState]
    NODE_STATE_DISCONNECTED: _ClassVar[NodeState]
TASK_STATE_NEW: TaskState
TASK_STATE_PENDING: TaskState
TASK_STATE_ASSIGNED: TaskState
TASK_STATE_ACCEPTED: TaskState
TASK_STATE_PREPARING: TaskState
TASK_STATE_READY: TaskState
TASK_STATE_STARTING: TaskState
TASK_STATE_RUNNING: TaskState
TASK_STATE_COMPLETE: TaskState
TASK_STATE_SHUTDOWN: TaskState
TASK_STATE_FAILED: TaskState
TASK_STATE_REJECTED: TaskState
TASK_STATE_REMOVE: TaskState
TASK_STATE_ORPHANED: TaskState
NODE_STATE_UNKNOWN: NodeState
NODE_STATE_DOWN: NodeState
NODE_STATE_READY: NodeState
NODE_STATE_DISCONNECTED: NodeState

class Driver(_message.Message):
    __slots__ = ("name", "options")
    class OptionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    options: _containers.ScalarMap[str, str]
    def __init__(self, name: _Optional[str] = ..., options: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Healthcheck(_message.Message):
    __slots__ = ("test", "interval", "timeout", "retries", "start_period", "start_interval")
    TEST_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    RETRIES_FIELD_NUMBER: _ClassVar[int]
    START_PERIOD_FIELD_NUMBER: _ClassVar[int]
    START_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    test: _containers.RepeatedScalarFieldContainer[str]
    interval: float
    timeout: float
    retries: int
    start_period: float
    start_interval: float
    def __init__(self, test: _Optional[_Iterable[str]] = ..., interval: _Optional[float] = ..., timeout: _Optional[float] = ..., retries: _Optional[int] = ..., start_period: _Optional[float] = ..., start_interval: _Optional[float] = ...) -> None: ...

class Mount(_message.Message):
    __slots__ = ("type", "source", "target", "read_only", "consistency", "bind_propagation", "bind_create_host_path", "bind_non_recursive", "volume_no_copy", "volume_subpath", "volume_labels", "volume_driver", "tmpfs_size", "tmpfs_mode")
    class VolumeLabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TYPE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    BIND_PROPAGATION_FIELD_NUMBER: _ClassVar[int]
    BIND_CREATE_HOST_PATH_FIELD_NUMBER: _ClassVar[int]
    BIND_NON_RECURSIVE_FIELD_NUMBER: _ClassVar[int]
    VOLUME_NO_COPY_FIELD_NUMBER: _ClassVar[int]
    VOLUME_SUBPATH_FIELD_NUMBER: _ClassVar[int]
    VOLUME_LABELS_FIELD_NUMBER: _ClassVar[int]
    VOLUME_DRIVER_FIELD_NUMBER: _ClassVar[int]
    TMPFS_SIZE_FIELD_NUMBER: _ClassVar[int]
    TMPFS_MODE_FIELD_NUMBER: _ClassVar[int]
    type: str
    source: str
    target: str
    read_only: bool
    consistency: str
    bind_propagation: str
    bind_create_host_path: bool
    bind_non_recursive: bool
    volume_no_copy: bool
    volume_subpath: str
    volume_labels: _containers.ScalarMap[str, str]
    volume_driver: Driver
    tmpfs_size: int
    tmpfs_mode: int
    def __init__(self, type: _Optional[str] = ..., source: _Optional[str] = ..., target: _Optional[str] = ..., read_only: _Optional[bool] = ..., consistency: _Optional[str] = ..., bind_propagation: _Optional[str] = ..., bind_create_host_path: _Optional[bool] = ..., bind_non_recursive: _Optional[bool] = ..., volume_no_copy: _Optional[bool] = ..., volume_subpath: _Optional[str] = ..., volume_labels: _Optional[_Mapping[str, str]] = ..., volume_driver: _Optional[_Union[Driver, _Mapping]] = ..., tmpfs_size: _Optional[int] = ..., tmpfs_mode: _Optional[int] = ...) -> None: ...

class FileReference(_message.Message):
    __slots__ = ("source_id", "source_name", "target", "uid", "gid", "mode")
    SOURCE_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_NAME_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    GID_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    source_id: str
    source_name: str
    target: str
    uid: str
    gid: str
    mode: int
    def __init__(self, source_id: _Optional[str] = ..., source_name: _Optional[str] = ..., target: _Optional[str] = ..., uid: _Optional[str] = ..., gid: _Optional[str] = ..., mode: _Optional[int] = ...) -> None: ...

class Ulimit(_message.Message):
    __slots__ = ("name", "soft", "hard")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SOFT_FIELD_NUMBER: _ClassVar[int]
    HARD_FIELD_NUMBER: _ClassVar[int]
    name: str
    soft: int
    hard: int
    def __init__(self, name: _Optional[str] = ..., soft: _Optional[int] = ..., hard: _Optional[int] = ...) -> None: ...

class DeviceMapping(_message.Message):
    __slots__ = ("path_on_host", "path_in_container", "permissions")
    PATH_ON_HOST_FIELD_NUMBER: _ClassVar[int]
    PATH_IN_CONTAINER_FIELD_NUMBER: _ClassVar[int]
    PERMISSIONS_FIELD_NUMBER: _ClassVar[int]
    path_on_host: str
    path_in_container: str
    permissions: str
    def __init__(self, path_on_host: _Optional[str] = ..., path_in_container: _Optional[str] = ..., permissions: _Optional[str] = ...) -> None: ...

class DeviceRequest(_message.Message):
    __slots__ = ("driver", "count", "device_ids", "capabilities", "options")
    class OptionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DRIVER_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_IDS_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    driver: str
    count: int
    device_ids: _containers.RepeatedScalarFieldContainer[str]
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    options: _containers.ScalarMap[str, str]
    def __init__(self, driver: _Optional[str] = ..., count: _Optional[int] = ..., device_ids: _Optional[_Iterable[str]] = ..., capabilities: _Optional[_Iterable[str]] = ..., options: _Optional[_Mapping[str, str]] = ...) -> None: ...

class BlkioDevice(_message.Message):
    __slots__ = ("path", "value")
    PATH_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    path: str
    value: int
    def __init__(self, path: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...

class Hook(_message.Message):
    __slots__ = ("command", "user", "privileged", "working_dir", "env")
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    PRIVILEGED_FIELD_NUMBER: _ClassVar[int]
    WORKING_DIR_FIELD_NUMBER: _ClassVar[int]
    ENV_FIELD_NUMBER: _ClassVar[int]
    command: _containers.RepeatedScalarFieldContainer[str]
    user: str
    privileged: bool
    working_dir: str
    env: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, command: _Optional[_Iterable[str]] = ..., user: _Optional[str] = ..., privileged: _Optional[bool] = ..., working_dir: _Optional[str] = ..., env: _Optional[_Iterable[str]] = ...) -> None: ...

class ContainerSpec(_message.Message):
    __slots__ = ("image", "pull_policy", "labels", "command", "args", "hostname", "domainname", "env", "dir", "user", "groups", "init", "tty", "open_stdin", "read_only", "stop_signal", "stop_grace_period", "healthcheck", "mounts", "secrets", "configs", "hosts", "dns_nameservers", "dns_search", "dns_options", "cap_add", "cap_drop", "privileged", "no_new_privileges", "security_opt", "devices", "device_cgroup_rules", "device_requests", "ulimits", "sysctls", "shm_size", "pids_mode", "ipc_mode", "uts_mode", "cgroup_mode", "cgroup_parent", "userns_mode", "isolation", "oom_kill_disable", "oom_score_adj", "group_add", "storage_opt", "annotations", "post_start", "pre_stop", "mac_address", "network_mode", "volumes_from", "links", "attach_first")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class SysctlsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class StorageOptEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class AnnotationsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    PULL_POLICY_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    ARGS_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    DOMAINNAME_FIELD_NUMBER: _ClassVar[int]
    ENV_FIELD_NUMBER: _ClassVar[int]
    DIR_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    INIT_FIELD_NUMBER: _ClassVar[int]
    TTY_FIELD_NUMBER: _ClassVar[int]
    OPEN_STDIN_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    STOP_SIGNAL_FIELD_NUMBER: _ClassVar[int]
    STOP_GRACE_PERIOD_FIELD_NUMBER: _ClassVar[int]
    HEALTHCHECK_FIELD_NUMBER: _ClassVar[int]
    MOUNTS_FIELD_NUMBER: _ClassVar[int]
    SECRETS_FIELD_NUMBER: _ClassVar[int]
    CONFIGS_FIELD_NUMBER: _ClassVar[int]
    HOSTS_FIELD_NUMBER: _ClassVar[int]
    DNS_NAMESERVERS_FIELD_NUMBER: _ClassVar[int]
    DNS_SEARCH_FIELD_NUMBER: _ClassVar[int]
    DNS_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    CAP_ADD_FIELD_NUMBER: _ClassVar[int]
    CAP_DROP_FIELD_NUMBER: _ClassVar[int]
    PRIVILEGED_FIELD_NUMBER: _ClassVar[int]
    NO_NEW_PRIVILEGES_FIELD_NUMBER: _ClassVar[int]
    SECURITY_OPT_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_CGROUP_RULES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    ULIMITS_FIELD_NUMBER: _ClassVar[int]
    SYSCTLS_FIELD_NUMBER: _ClassVar[int]
    SHM_SIZE_FIELD_NUMBER: _ClassVar[int]
    PIDS_MODE_FIELD_NUMBER: _ClassVar[int]
    IPC_MODE_FIELD_NUMBER: _ClassVar[int]
    UTS_MODE_FIELD_NUMBER: _ClassVar[int]
    CGROUP_MODE_FIELD_NUMBER: _ClassVar[int]
    CGROUP_PARENT_FIELD_NUMBER: _ClassVar[int]
    USERNS_MODE_FIELD_NUMBER: _ClassVar[int]
    ISOLATION_FIELD_NUMBER: _ClassVar[int]
    OOM_KILL_DISABLE_FIELD_NUMBER: _ClassVar[int]
    OOM_SCORE_ADJ_FIELD_NUMBER: _ClassVar[int]
    GROUP_ADD_FIELD_NUMBER: _ClassVar[int]
    STORAGE_OPT_FIELD_NUMBER: _ClassVar[int]
    ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    POST_START_FIELD_NUMBER: _ClassVar[int]
    PRE_STOP_FIELD_NUMBER: _ClassVar[int]
    MAC_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    NETWORK_MODE_FIELD_NUMBER: _ClassVar[int]
    VOLUMES_FROM_FIELD_NUMBER: _ClassVar[int]
    LINKS_FIELD_NUMBER: _ClassVar[int]
    ATTACH_FIRST_FIELD_NUMBER: _ClassVar[int]
    image: str
    pull_policy: str
    labels: _containers.ScalarMap[str, str]
    command: StringList
    args: StringList
    hostname: str
    domainname: str
    env: _containers.RepeatedScalarFieldContainer[str]
    dir: str
    user: str
    groups: _containers.RepeatedScalarFieldContainer[str]
    init: bool
    tty: bool
    open_stdin: bool
    read_only: bool
    stop_signal: str
    stop_grace_period: float
    healthcheck: Healthcheck
    mounts: _containers.RepeatedCompositeFieldContainer[Mount]
    secrets: _containers.RepeatedCompositeFieldContainer[FileReference]
    configs: _containers.RepeatedCompositeFieldContainer[FileReference]
    hosts: _containers.RepeatedScalarFieldContainer[str]
    dns_nameservers: _containers.RepeatedScalarFieldContainer[str]
    dns_search: _containers.RepeatedScalarFieldContainer[str]
    dns_options: _containers.RepeatedScalarFieldContainer[str]
    cap_add: _containers.RepeatedScalarFieldContainer[str]
    cap_drop: _containers.RepeatedScalarFieldContainer[str]
    privileged: bool
    no_new_privileges: bool
    security_opt: _containers.RepeatedScalarFieldContainer[str]
    devices: _containers.RepeatedCompositeFieldContainer[DeviceMapping]
    device_cgroup_rules: _containers.RepeatedScalarFieldContainer[str]
    device_requests: _containers.RepeatedCompositeFieldContainer[DeviceRequest]
    ulimits: _containers.RepeatedCompositeFieldContainer[Ulimit]
    sysctls: _containers.ScalarMap[str, str]
    shm_size: int
    pids_mode: str
    ipc_mode: str
    uts_mode: str
    cgroup_mode: str
    cgroup_parent: str
    userns_mode: str
    isolation: str
    oom_kill_disable: bool
    oom_score_adj: int
    group_add: _containers.RepeatedScalarFieldContainer[str]
    storage_opt: _containers.ScalarMap[str, str]
    annotations: _containers.ScalarMap[str, str]
    post_start: _containers.RepeatedCompositeFieldContainer[Hook]
    pre_stop: _containers.RepeatedCompositeFieldContainer[Hook]
    mac_address: str
    network_mode: str
    volumes_from: _containers.RepeatedScalarFieldContainer[str]
    links: _containers.RepeatedScalarFieldContainer[str]
    attach_first: bool
    def __init__(self, image: _Optional[str] = ..., pull_policy: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., command: _Optional[_Union[StringList, _Mapping]] = ..., args: _Optional[_Union[StringList, _Mapping]] = ..., hostname: _Optional[str] = ..., domainname: _Optional[str] = ..., env: _Optional[_Iterable[str]] = ..., dir: _Optional[str] = ..., user: _Optional[str] = ..., groups: _Optional[_Iterable[str]] = ..., init: _Optional[bool] = ..., tty: _Optional[bool] = ..., open_stdin: _Optional[bool] = ..., read_only: _Optional[bool] = ..., stop_signal: _Optional[str] = ..., stop_grace_period: _Optional[float] = ..., healthcheck: _Optional[_Union[Healthcheck, _Mapping]] = ..., mounts: _Optional[_Iterable[_Union[Mount, _Mapping]]] = ..., secrets: _Optional[_Iterable[_Union[FileReference, _Mapping]]] = ..., configs: _Optional[_Iterable[_Union[FileReference, _Mapping]]] = ..., hosts: _Optional[_Iterable[str]] = ..., dns_nameservers: _Optional[_Iterable[str]] = ..., dns_search: _Optional[_Iterable[str]] = ..., dns_options: _Optional[_Iterable[str]] = ..., cap_add: _Optional[_Iterable[str]] = ..., cap_drop: _Optional[_Iterable[str]] = ..., privileged: _Optional[bool] = ..., no_new_privileges: _Optional[bool] = ..., security_opt: _Optional[_Iterable[str]] = ..., devices: _Optional[_Iterable[_Union[DeviceMapping, _Mapping]]] = ..., device_cgroup_rules: _Optional[_Iterable[str]] = ..., device_requests: _Optional[_Iterable[_Union[DeviceRequest, _Mapping]]] = ..., ulimits: _Optional[_Iterable[_Union[Ulimit, _Mapping]]] = ..., sysctls: _Optional[_Mapping[str, str]] = ..., shm_size: _Optional[int] = ..., pids_mode: _Optional[str] = ..., ipc_mode: _Optional[str] = ..., uts_mode: _Optional[str] = ..., cgroup_mode: _Optional[str] = ..., cgroup_parent: _Optional[str] = ..., userns_mode: _Optional[str] = ..., isolation: _Optional[str] = ..., oom_kill_disable: _Optional[bool] = ..., oom_score_adj: _Optional[int] = ..., group_add: _Optional[_Iterable[str]] = ..., storage_opt: _Optional[_Mapping[str, str]] = ..., annotations: _Optional[_Mapping[str, str]] = ..., post_start: _Optional[_Iterable[_Union[Hook, _Mapping]]] = ..., pre_stop: _Optional[_Iterable[_Union[Hook, _Mapping]]] = ..., mac_address: _Optional[str] = ..., network_mode: _Optional[str] = ..., volumes_from: _Optional[_Iterable[str]] = ..., links: _Optional[_Iterable[str]] = ..., attach_first: _Optional[bool] = ...) -> None: ...

class GenericResource(_message.Message):
    __slots__ = ("kind", "value", "string_value")
    KIND_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    STRING_VALUE_FIELD_NUMBER: _ClassVar[int]
    kind: str
    value: int
    string_value: str
    def __init__(self, kind: _Optional[str] = ..., value: _Optional[int] = ..., string_value: _Optional[str] = ...) -> None: ...

class Resources(_message.Message):
    __slots__ = ("nano_cpus", "memory", "pids", "generic")
    NANO_CPUS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    PIDS_FIELD_NUMBER: _ClassVar[int]
    GENERIC_FIELD_NUMBER: _ClassVar[int]
    nano_cpus: int
    memory: int
    pids: int
    generic: _containers.RepeatedCompositeFieldContainer[GenericResource]
    def __init__(self, nano_cpus: _Optional[int] = ..., memory: _Optional[int] = ..., pids: _Optional[int] = ..., generic: _Optional[_Iterable[_Union[GenericResource, _Mapping]]] = ...) -> None: ...

class ResourceRequirements(_message.Message):
    __slots__ = ("limits", "reservations", "swap", "swappiness", "cpu_shares", "cpu_period", "cpu_quota", "cpu_rt_period", "cpu_rt_runtime", "cpuset_cpus", "cpuset_mems", "blkio_weight", "blkio_weight_device", "blkio_read_bps", "blkio_write_bps", "blkio_read_iops", "blkio_write_iops", "memory_low")
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    RESERVATIONS_FIELD_NUMBER: _ClassVar[int]
    SWAP_FIELD_NUMBER: _ClassVar[int]
    SWAPPINESS_FIELD_NUMBER: _ClassVar[int]
    CPU_SHARES_FIELD_NUMBER: _ClassVar[int]
    CPU_PERIOD_FIELD_NUMBER: _ClassVar[int]
    CPU_QUOTA_FIELD_NUMBER: _ClassVar[int]
    CPU_RT_PERIOD_FIELD_NUMBER: _ClassVar[int]
    CPU_RT_RUNTIME_FIELD_NUMBER: _ClassVar[int]
    CPUSET_CPUS_FIELD_NUMBER: _ClassVar[int]
    CPUSET_MEMS_FIELD_NUMBER: _ClassVar[int]
    BLKIO_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    BLKIO_WEIGHT_DEVICE_FIELD_NUMBER: _ClassVar[int]
    BLKIO_READ_BPS_FIELD_NUMBER: _ClassVar[int]
    BLKIO_WRITE_BPS_FIELD_NUMBER: _ClassVar[int]
    BLKIO_READ_IOPS_FIELD_NUMBER: _ClassVar[int]
    BLKIO_WRITE_IOPS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_LOW_FIELD_NUMBER: _ClassVar[int]
    limits: Resources
    reservations: Resources
    swap: int
    swappiness: int
    cpu_shares: int
    cpu_period: int
    cpu_quota: int
    cpu_rt_period: int
    cpu_rt_runtime: int
    cpuset_cpus: str
    cpuset_mems: str
    blkio_weight: int
    blkio_weight_device: _containers.RepeatedCompositeFieldContainer[BlkioDevice]
    blkio_read_bps: _containers.RepeatedCompositeFieldContainer[BlkioDevice]
    blkio_write_bps: _containers.RepeatedCompositeFieldContainer[BlkioDevice]
    blkio_read_iops: _containers.RepeatedCompositeFieldContainer[BlkioDevice]
    blkio_write_iops: _containers.RepeatedCompositeFieldContainer[BlkioDevice]
    memory_low: int
    def __init__(self, limits: _Optional[_Union[Resources, _Mapping]] = ..., reservations: _Optional[_Union[Resources, _Mapping]] = ..., swap: _Optional[int] = ..., swappiness: _Optional[int] = ..., cpu_shares: _Optional[int] = ..., cpu_period: _Optional[int] = ..., cpu_quota: _Optional[int] = ..., cpu_rt_period: _Optional[int] = ..., cpu_rt_runtime: _Optional[int] = ..., cpuset_cpus: _Optional[str] = ..., cpuset_mems: _Optional[str] = ..., blkio_weight: _Optional[int] = ..., blkio_weight_device: _Optional[_Iterable[_Union[BlkioDevice, _Mapping]]] = ..., blkio_read_bps: _Optional[_Iterable[_Union[BlkioDevice, _Mapping]]] = ..., blkio_write_bps: _Optional[_Iterable[_Union[BlkioDevice, _Mapping]]] = ..., blkio_read_iops: _Optional[_Iterable[_Union[BlkioDevice, _Mapping]]] = ..., blkio_write_iops: _Optional[_Iterable[_Union[BlkioDevice, _Mapping]]] = ..., memory_low: _Optional[int] = ...) -> None: ...

class RestartPolicy(_message.Message):
    __slots__ = ("condition", "delay", "max_attempts", "window", "max_delay")
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    DELAY_FIELD_NUMBER: _ClassVar[int]
    MAX_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    MAX_DELAY_FIELD_NUMBER: _ClassVar[int]
    condition: str
    delay: float
    max_attempts: int
    window: float
    max_delay: float
    def __init__(self, condition: _Optional[str] = ..., delay: _Optional[float] = ..., max_attempts: _Optional[int] = ..., window: _Optional[float] = ..., max_delay: _Optional[float] = ...) -> None: ...

class SpreadPreference(_message.Message):
    __slots__ = ("spread_descriptor",)
    SPREAD_DESCRIPTOR_FIELD_NUMBER: _ClassVar[int]
    spread_descriptor: str
    def __init__(self, spread_descriptor: _Optional[str] = ...) -> None: ...

class Platform(_message.Message):
    __slots__ = ("architecture", "os")
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    OS_FIELD_NUMBER: _ClassVar[int]
    architecture: str
    os: str
    def __init__(self, architecture: _Optional[str] = ..., os: _Optional[str] = ...) -> None: ...

class Placement(_message.Message):
    __slots__ = ("constraints", "preferences", "max_replicas", "platforms", "strategy")
    CONSTRAINTS_FIELD_NUMBER: _ClassVar[int]
    PREFERENCES_FIELD_NUMBER: _ClassVar[int]
    MAX_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    PLATFORMS_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    constraints: _containers.RepeatedScalarFieldContainer[str]
    preferences: _containers.RepeatedCompositeFieldContainer[SpreadPreference]
    max_replicas: int
    platforms: _containers.RepeatedCompositeFieldContainer[Platform]
    strategy: str
    def __init__(self, constraints: _Optional[_Iterable[str]] = ..., preferences: _Optional[_Iterable[_Union[SpreadPreference, _Mapping]]] = ..., max_replicas: _Optional[int] = ..., platforms: _Optional[_Iterable[_Union[Platform, _Mapping]]] = ..., strategy: _Optional[str] = ...) -> None: ...

class NetworkAttachmentSpec(_message.Message):
    __slots__ = ("target", "aliases", "addresses", "driver_opts", "mac_address", "priority", "gw_priority", "interface_name")
    class DriverOptsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TARGET_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    DRIVER_OPTS_FIELD_NUMBER: _ClassVar[int]
    MAC_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    GW_PRIORITY_FIELD_NUMBER: _ClassVar[int]
    INTERFACE_NAME_FIELD_NUMBER: _ClassVar[int]
    target: str
    aliases: _containers.RepeatedScalarFieldContainer[str]
    addresses: _containers.RepeatedScalarFieldContainer[str]
    driver_opts: _containers.ScalarMap[str, str]
    mac_address: str
    priority: int
    gw_priority: int
    interface_name: str
    def __init__(self, target: _Optional[str] = ..., aliases: _Optional[_Iterable[str]] = ..., addresses: _Optional[_Iterable[str]] = ..., driver_opts: _Optional[_Mapping[str, str]] = ..., mac_address: _Optional[str] = ..., priority: _Optional[int] = ..., gw_priority: _Optional[int] = ..., interface_name: _Optional[str] = ...) -> None: ...

class TaskSpec(_message.Message):
    __slots__ = ("container", "resources", "restart", "placement", "networks", "log_driver", "force_update", "runtime", "registry_auth")
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    RESTART_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    NETWORKS_FIELD_NUMBER: _ClassVar[int]
    LOG_DRIVER_FIELD_NUMBER: _ClassVar[int]
    FORCE_UPDATE_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    REGISTRY_AUTH_FIELD_NUMBER: _ClassVar[int]
    container: ContainerSpec
    resources: ResourceRequirements
    restart: RestartPolicy
    placement: Placement
    networks: _containers.RepeatedCompositeFieldContainer[NetworkAttachmentSpec]
    log_driver: Driver
    force_update: int
    runtime: str
    registry_auth: str
    def __init__(self, container: _Optional[_Union[ContainerSpec, _Mapping]] = ..., resources: _Optional[_Union[ResourceRequirements, _Mapping]] = ..., restart: _Optional[_Union[RestartPolicy, _Mapping]] = ..., placement: _Optional[_Union[Placement, _Mapping]] = ..., networks: _Optional[_Iterable[_Union[NetworkAttachmentSpec, _Mapping]]] = ..., log_driver: _Optional[_Union[Driver, _Mapping]] = ..., force_update: _Optional[int] = ..., runtime: _Optional[str] = ..., registry_auth: _Optional[str] = ...) -> None: ...

class ServiceMode(_message.Message):
    __slots__ = ("kind", "replicas", "max_concurrent", "total_completions")
    KIND_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    MAX_CONCURRENT_FIELD_NUMBER: _ClassVar[int]
    TOTAL_COMPLETIONS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    replicas: int
    max_concurrent: int
    total_completions: int
    def __init__(self, kind: _Optional[str] = ..., replicas: _Optional[int] = ..., max_concurrent: _Optional[int] = ..., total_completions: _Optional[int] = ...) -> None: ...

class UpdateConfig(_message.Message):
    __slots__ = ("parallelism", "delay", "failure_action", "monitor", "max_failure_ratio", "order", "progress_deadline")
    PARALLELISM_FIELD_NUMBER: _ClassVar[int]
    DELAY_FIELD_NUMBER: _ClassVar[int]
    FAILURE_ACTION_FIELD_NUMBER: _ClassVar[int]
    MONITOR_FIELD_NUMBER: _ClassVar[int]
    MAX_FAILURE_RATIO_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_DEADLINE_FIELD_NUMBER: _ClassVar[int]
    parallelism: int
    delay: float
    failure_action: str
    monitor: float
    max_failure_ratio: float
    order: str
    progress_deadline: float
    def __init__(self, parallelism: _Optional[int] = ..., delay: _Optional[float] = ..., failure_action: _Optional[str] = ..., monitor: _Optional[float] = ..., max_failure_ratio: _Optional[float] = ..., order: _Optional[str] = ..., progress_deadline: _Optional[float] = ...) -> None: ...

class PortConfig(_message.Message):
    __slots__ = ("target_port", "published_port", "protocol", "publish_mode", "name", "host_ip", "app_protocol")
    TARGET_PORT_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_PORT_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    PUBLISH_MODE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    HOST_IP_FIELD_NUMBER: _ClassVar[int]
    APP_PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    target_port: int
    published_port: int
    protocol: str
    publish_mode: str
    name: str
    host_ip: str
    app_protocol: str
    def __init__(self, target_port: _Optional[int] = ..., published_port: _Optional[int] = ..., protocol: _Optional[str] = ..., publish_mode: _Optional[str] = ..., name: _Optional[str] = ..., host_ip: _Optional[str] = ..., app_protocol: _Optional[str] = ...) -> None: ...

class EndpointSpec(_message.Message):
    __slots__ = ("mode", "ports")
    MODE_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    mode: str
    ports: _containers.RepeatedCompositeFieldContainer[PortConfig]
    def __init__(self, mode: _Optional[str] = ..., ports: _Optional[_Iterable[_Union[PortConfig, _Mapping]]] = ...) -> None: ...

class Dependency(_message.Message):
    __slots__ = ("service", "condition", "restart", "required")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    RESTART_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_FIELD_NUMBER: _ClassVar[int]
    service: str
    condition: str
    restart: bool
    required: bool
    def __init__(self, service: _Optional[str] = ..., condition: _Optional[str] = ..., restart: _Optional[bool] = ..., required: _Optional[bool] = ...) -> None: ...

class CronSchedule(_message.Message):
    __slots__ = ("schedule", "time_zone", "concurrency", "history", "starting_deadline")
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    TIME_ZONE_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    STARTING_DEADLINE_FIELD_NUMBER: _ClassVar[int]
    schedule: str
    time_zone: str
    concurrency: str
    history: int
    starting_deadline: float
    def __init__(self, schedule: _Optional[str] = ..., time_zone: _Optional[str] = ..., concurrency: _Optional[str] = ..., history: _Optional[int] = ..., starting_deadline: _Optional[float] = ...) -> None: ...

class Autoscale(_message.Message):
    __slots__ = ("min", "max", "cpu", "memory", "metric", "target", "cooldown")
    MIN_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    CPU_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    COOLDOWN_FIELD_NUMBER: _ClassVar[int]
    min: int
    max: int
    cpu: float
    memory: float
    metric: str
    target: float
    cooldown: float
    def __init__(self, min: _Optional[int] = ..., max: _Optional[int] = ..., cpu: _Optional[float] = ..., memory: _Optional[float] = ..., metric: _Optional[str] = ..., target: _Optional[float] = ..., cooldown: _Optional[float] = ...) -> None: ...

class ServiceSpec(_message.Message):
    __slots__ = ("name", "labels", "task", "mode", "update", "rollback", "endpoint", "depends_on", "cron", "autoscale", "volumes_per_slot", "volumes_move_after", "rebalance", "stopped")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    ROLLBACK_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    DEPENDS_ON_FIELD_NUMBER: _ClassVar[int]
    CRON_FIELD_NUMBER: _ClassVar[int]
    AUTOSCALE_FIELD_NUMBER: _ClassVar[int]
    VOLUMES_PER_SLOT_FIELD_NUMBER: _ClassVar[int]
    VOLUMES_MOVE_AFTER_FIELD_NUMBER: _ClassVar[int]
    REBALANCE_FIELD_NUMBER: _ClassVar[int]
    STOPPED_FIELD_NUMBER: _ClassVar[int]
    name: str
    labels: _containers.ScalarMap[str, str]
    task: TaskSpec
    mode: ServiceMode
    update: UpdateConfig
    rollback: UpdateConfig
    endpoint: EndpointSpec
    depends_on: _containers.RepeatedCompositeFieldContainer[Dependency]
    cron: CronSchedule
    autoscale: Autoscale
    volumes_per_slot: bool
    volumes_move_after: float
    rebalance: str
    stopped: bool
    def __init__(self, name: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., task: _Optional[_Union[TaskSpec, _Mapping]] = ..., mode: _Optional[_Union[ServiceMode, _Mapping]] = ..., update: _Optional[_Union[UpdateConfig, _Mapping]] = ..., rollback: _Optional[_Union[UpdateConfig, _Mapping]] = ..., endpoint: _Optional[_Union[EndpointSpec, _Mapping]] = ..., depends_on: _Optional[_Iterable[_Union[Dependency, _Mapping]]] = ..., cron: _Optional[_Union[CronSchedule, _Mapping]] = ..., autoscale: _Optional[_Union[Autoscale, _Mapping]] = ..., volumes_per_slot: _Optional[bool] = ..., volumes_move_after: _Optional[float] = ..., rebalance: _Optional[str] = ..., stopped: _Optional[bool] = ...) -> None: ...

class IpamPool(_message.Message):
    __slots__ = ("subnet", "ip_range", "gateway", "aux_addresses")
    class AuxAddressesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SUBNET_FIELD_NUMBER: _ClassVar[int]
    IP_RANGE_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    AUX_ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    subnet: str
    ip_range: str
    gateway: str
    aux_addresses: _containers.ScalarMap[str, str]
    def __init__(self, subnet: _Optional[str] = ..., ip_range: _Optional[str] = ..., gateway: _Optional[str] = ..., aux_addresses: _Optional[_Mapping[str, str]] = ...) -> None: ...

class NetworkSpec(_message.Message):
    __slots__ = ("name", "labels", "driver", "internal", "attachable", "ingress", "enable_ipv4", "enable_ipv6", "scope", "ipam_driver", "ipam")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    DRIVER_FIELD_NUMBER: _ClassVar[int]
    INTERNAL_FIELD_NUMBER: _ClassVar[int]
    ATTACHABLE_FIELD_NUMBER: _ClassVar[int]
    INGRESS_FIELD_NUMBER: _ClassVar[int]
    ENABLE_IPV4_FIELD_NUMBER: _ClassVar[int]
    ENABLE_IPV6_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    IPAM_DRIVER_FIELD_NUMBER: _ClassVar[int]
    IPAM_FIELD_NUMBER: _ClassVar[int]
    name: str
    labels: _containers.ScalarMap[str, str]
    driver: Driver
    internal: bool
    attachable: bool
    ingress: bool
    enable_ipv4: bool
    enable_ipv6: bool
    scope: str
    ipam_driver: Driver
    ipam: _containers.RepeatedCompositeFieldContainer[IpamPool]
    def __init__(self, name: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., driver: _Optional[_Union[Driver, _Mapping]] = ..., internal: _Optional[bool] = ..., attachable: _Optional[bool] = ..., ingress: _Optional[bool] = ..., enable_ipv4: _Optional[bool] = ..., enable_ipv6: _Optional[bool] = ..., scope: _Optional[str] = ..., ipam_driver: _Optional[_Union[Driver, _Mapping]] = ..., ipam: _Optional[_Iterable[_Union[IpamPool, _Mapping]]] = ...) -> None: ...

class VolumeSpec(_message.Message):
    __slots__ = ("name", "labels", "driver")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    DRIVER_FIELD_NUMBER: _ClassVar[int]
    name: str
    labels: _containers.ScalarMap[str, str]
    driver: Driver
    def __init__(self, name: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., driver: _Optional[_Union[Driver, _Mapping]] = ...) -> None: ...

class SecretSpec(_message.Message):
    __slots__ = ("name", "labels", "data", "driver", "templating")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    DRIVER_FIELD_NUMBER: _ClassVar[int]
    TEMPLATING_FIELD_NUMBER: _ClassVar[int]
    name: str
    labels: _containers.ScalarMap[str, str]
    data: bytes
    driver: Driver
    templating: Driver
    def __init__(self, name: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., data: _Optional[bytes] = ..., driver: _Optional[_Union[Driver, _Mapping]] = ..., templating: _Optional[_Union[Driver, _Mapping]] = ...) -> None: ...

class ConfigSpec(_message.Message):
    __slots__ = ("name", "labels", "data", "templating")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    TEMPLATING_FIELD_NUMBER: _ClassVar[int]
    name: str
    labels: _containers.ScalarMap[str, str]
    data: bytes
    templating: Driver
    def __init__(self, name: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., data: _Optional[bytes] = ..., templating: _Optional[_Union[Driver, _Mapping]] = ...) -> None: ...

class NodeSpec(_message.Message):
    __slots__ = ("name", "labels", "role", "availability")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    AVAILABILITY_FIELD_NUMBER: _ClassVar[int]
    name: str
    labels: _containers.ScalarMap[str, str]
    role: str
    availability: str
    def __init__(self, name: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., role: _Optional[str] = ..., availability: _Optional[str] = ...) -> None: ...

class ExternalCA(_message.Message):
    __slots__ = ("url", "protocol", "ca_cert")
    URL_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    CA_CERT_FIELD_NUMBER: _ClassVar[int]
    url: str
    protocol: str
    ca_cert: str
    def __init__(self, url: _Optional[str] = ..., protocol: _Optional[str] = ..., ca_cert: _Optional[str] = ...) -> None: ...

class ClusterSpec(_message.Message):
    __slots__ = ("name", "labels", "task_history_limit", "heartbeat_period", "heartbeat_grace", "node_cert_expiry", "default_log_driver", "autolock", "rebalance", "default_address_pool", "subnet_size", "data_path_port", "ingress_node_selector", "external_cas")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TASK_HISTORY_LIMIT_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_PERIOD_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_GRACE_FIELD_NUMBER: _ClassVar[int]
    NODE_CERT_EXPIRY_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_LOG_DRIVER_FIELD_NUMBER: _ClassVar[int]
    AUTOLOCK_FIELD_NUMBER: _ClassVar[int]
    REBALANCE_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_ADDRESS_POOL_FIELD_NUMBER: _ClassVar[int]
    SUBNET_SIZE_FIELD_NUMBER: _ClassVar[int]
    DATA_PATH_PORT_FIELD_NUMBER: _ClassVar[int]
    INGRESS_NODE_SELECTOR_FIELD_NUMBER: _ClassVar[int]
    EXTERNAL_CAS_FIELD_NUMBER: _ClassVar[int]
    name: str
    labels: _containers.ScalarMap[str, str]
    task_history_limit: int
    heartbeat_period: float
    heartbeat_grace: float
    node_cert_expiry: float
    default_log_driver: Driver
    autolock: bool
    rebalance: str
    default_address_pool: _containers.RepeatedScalarFieldContainer[str]
    subnet_size: int
    data_path_port: int
    ingress_node_selector: _containers.RepeatedScalarFieldContainer[str]
    external_cas: _containers.RepeatedCompositeFieldContainer[ExternalCA]
    def __init__(self, name: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., task_history_limit: _Optional[int] = ..., heartbeat_period: _Optional[float] = ..., heartbeat_grace: _Optional[float] = ..., node_cert_expiry: _Optional[float] = ..., default_log_driver: _Optional[_Union[Driver, _Mapping]] = ..., autolock: _Optional[bool] = ..., rebalance: _Optional[str] = ..., default_address_pool: _Optional[_Iterable[str]] = ..., subnet_size: _Optional[int] = ..., data_path_port: _Optional[int] = ..., ingress_node_selector: _Optional[_Iterable[str]] = ..., external_cas: _Optional[_Iterable[_Union[ExternalCA, _Mapping]]] = ...) -> None: ...

class Meta(_message.Message):
    __slots__ = ("version", "created_at", "updated_at")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    version: int
    created_at: float
    updated_at: float
    def __init__(self, version: _Optional[int] = ..., created_at: _Optional[float] = ..., updated_at: _Optional[float] = ...) -> None: ...

class NodeDescription(_message.Message):
    __slots__ = ("hostname", "platform", "resources", "engine_version", "engine_labels", "plugins", "root_ca", "certificate_issuer", "kernel", "os_name", "cgroup")
    class EngineLabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    ENGINE_VERSION_FIELD_NUMBER: _ClassVar[int]
    ENGINE_LABELS_FIELD_NUMBER: _ClassVar[int]
    PLUGINS_FIELD_NUMBER: _ClassVar[int]
    ROOT_CA_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_ISSUER_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    OS_NAME_FIELD_NUMBER: _ClassVar[int]
    CGROUP_FIELD_NUMBER: _ClassVar[int]
    hostname: str
    platform: Platform
    resources: Resources
    engine_version: str
    engine_labels: _containers.ScalarMap[str, str]
    plugins: _containers.RepeatedScalarFieldContainer[str]
    root_ca: str
    certificate_issuer: str
    kernel: str
    os_name: str
    cgroup: str
    def __init__(self, hostname: _Optional[str] = ..., platform: _Optional[_Union[Platform, _Mapping]] = ..., resources: _Optional[_Union[Resources, _Mapping]] = ..., engine_version: _Optional[str] = ..., engine_labels: _Optional[_Mapping[str, str]] = ..., plugins: _Optional[_Iterable[str]] = ..., root_ca: _Optional[str] = ..., certificate_issuer: _Optional[str] = ..., kernel: _Optional[str] = ..., os_name: _Optional[str] = ..., cgroup: _Optional[str] = ...) -> None: ...

class NodeStatus(_message.Message):
    __slots__ = ("state", "message", "addr", "since")
    STATE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ADDR_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    state: NodeState
    message: str
    addr: str
    since: float
    def __init__(self, state: _Optional[_Union[NodeState, str]] = ..., message: _Optional[str] = ..., addr: _Optional[str] = ..., since: _Optional[float] = ...) -> None: ...

class ManagerStatus(_message.Message):
    __slots__ = ("addr", "api", "leader", "reachability", "raft_id")
    ADDR_FIELD_NUMBER: _ClassVar[int]
    API_FIELD_NUMBER: _ClassVar[int]
    LEADER_FIELD_NUMBER: _ClassVar[int]
    REACHABILITY_FIELD_NUMBER: _ClassVar[int]
    RAFT_ID_FIELD_NUMBER: _ClassVar[int]
    addr: str
    api: str
    leader: bool
    reachability: str
    raft_id: str
    def __init__(self, addr: _Optional[str] = ..., api: _Optional[str] = ..., leader: _Optional[bool] = ..., reachability: _Optional[str] = ..., raft_id: _Optional[str] = ...) -> None: ...

class IssuedCertificate(_message.Message):
    __slots__ = ("serial", "until")
    SERIAL_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    serial: str
    until: float
    def __init__(self, serial: _Optional[str] = ..., until: _Optional[float] = ...) -> None: ...

class Node(_message.Message):
    __slots__ = ("id", "meta", "spec", "description", "status", "manager_status", "role", "data_path_addr", "certificate_serial", "certificates", "certificate_wanted")
    ID_FIELD_NUMBER: _ClassVar[int]
    META_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    MANAGER_STATUS_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    DATA_PATH_ADDR_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_SERIAL_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATES_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_WANTED_FIELD_NUMBER: _ClassVar[int]
    id: str
    meta: Meta
    spec: NodeSpec
    description: NodeDescription
    status: NodeStatus
    manager_status: ManagerStatus
    role: str
    data_path_addr: str
    certificate_serial: str
    certificates: _containers.RepeatedCompositeFieldContainer[IssuedCertificate]
    certificate_wanted: str
    def __init__(self, id: _Optional[str] = ..., meta: _Optional[_Union[Meta, _Mapping]] = ..., spec: _Optional[_Union[NodeSpec, _Mapping]] = ..., description: _Optional[_Union[NodeDescription, _Mapping]] = ..., status: _Optional[_Union[NodeStatus, _Mapping]] = ..., manager_status: _Optional[_Union[ManagerStatus, _Mapping]] = ..., role: _Optional[str] = ..., data_path_addr: _Optional[str] = ..., certificate_serial: _Optional[str] = ..., certificates: _Optional[_Iterable[_Union[IssuedCertificate, _Mapping]]] = ..., certificate_wanted: _Optional[str] = ...) -> None: ...

class VirtualIP(_message.Message):
    __slots__ = ("network_id", "addr")
    NETWORK_ID_FIELD_NUMBER: _ClassVar[int]
    ADDR_FIELD_NUMBER: _ClassVar[int]
    network_id: str
    addr: str
    def __init__(self, network_id: _Optional[str] = ..., addr: _Optional[str] = ...) -> None: ...

class Endpoint(_message.Message):
    __slots__ = ("spec", "ports", "virtual_ips")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    VIRTUAL_IPS_FIELD_NUMBER: _ClassVar[int]
    spec: EndpointSpec
    ports: _containers.RepeatedCompositeFieldContainer[PortConfig]
    virtual_ips: _containers.RepeatedCompositeFieldContainer[VirtualIP]
    def __init__(self, spec: _Optional[_Union[EndpointSpec, _Mapping]] = ..., ports: _Optional[_Iterable[_Union[PortConfig, _Mapping]]] = ..., virtual_ips: _Optional[_Iterable[_Union[VirtualIP, _Mapping]]] = ...) -> None: ...

class UpdateStatus(_message.Message):
    __slots__ = ("state", "started_at", "completed_at", "message", "progressed_at", "next_at", "total")
    STATE_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_AT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    PROGRESSED_AT_FIELD_NUMBER: _ClassVar[int]
    NEXT_AT_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    state: str
    started_at: float
    completed_at: float
    message: str
    progressed_at: float
    next_at: float
    total: int
    def __init__(self, state: _Optional[str] = ..., started_at: _Optional[float] = ..., completed_at: _Optional[float] = ..., message: _Optional[str] = ..., progressed_at: _Optional[float] = ..., next_at: _Optional[float] = ..., total: _Optional[int] = ...) -> None: ...

class JobStatus(_message.Message):
    __slots__ = ("iteration", "last_execution")
    ITERATION_FIELD_NUMBER: _ClassVar[int]
    LAST_EXECUTION_FIELD_NUMBER: _ClassVar[int]
    iteration: int
    last_execution: float
    def __init__(self, iteration: _Optional[int] = ..., last_execution: _Optional[float] = ...) -> None: ...

class AutoscaleStatus(_message.Message):
    __slots__ = ("at", "replicas", "desired")
    AT_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    DESIRED_FIELD_NUMBER: _ClassVar[int]
    at: _containers.RepeatedScalarFieldContainer[float]
    replicas: _containers.RepeatedScalarFieldContainer[int]
    desired: int
    def __init__(self, at: _Optional[_Iterable[float]] = ..., replicas: _Optional[_Iterable[int]] = ..., desired: _Optional[int] = ...) -> None: ...

class Service(_message.Message):
    __slots__ = ("id", "meta", "spec", "spec_version", "previous_spec", "previous_spec_version", "endpoint", "update_status", "job_status", "autoscale_status", "pending_delete")
    ID_FIELD_NUMBER: _ClassVar[int]
    META_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    SPEC_VERSION_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_SPEC_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_SPEC_VERSION_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    UPDATE_STATUS_FIELD_NUMBER: _ClassVar[int]
    JOB_STATUS_FIELD_NUMBER: _ClassVar[int]
    AUTOSCALE_STATUS_FIELD_NUMBER: _ClassVar[int]
    PENDING_DELETE_FIELD_NUMBER: _ClassVar[int]
    id: str
    meta: Meta
    spec: ServiceSpec
    spec_version: int
    previous_spec: ServiceSpec
    previous_spec_version: int
    endpoint: Endpoint
    update_status: UpdateStatus
    job_status: JobStatus
    autoscale_status: AutoscaleStatus
    pending_delete: bool
    def __init__(self, id: _Optional[str] = ..., meta: _Optional[_Union[Meta, _Mapping]] = ..., spec: _Optional[_Union[ServiceSpec, _Mapping]] = ..., spec_version: _Optional[int] = ..., previous_spec: _Optional[_Union[ServiceSpec, _Mapping]] = ..., previous_spec_version: _Optional[int] = ..., endpoint: _Optional[_Union[Endpoint, _Mapping]] = ..., update_status: _Optional[_Union[UpdateStatus, _Mapping]] = ..., job_status: _Optional[_Union[JobStatus, _Mapping]] = ..., autoscale_status: _Optional[_Union[AutoscaleStatus, _Mapping]] = ..., pending_delete: _Optional[bool] = ...) -> None: ...

class NetworkAttachment(_message.Message):
    __slots__ = ("network_id", "addresses", "aliases", "mac_address")
    NETWORK_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    MAC_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    network_id: str
    addresses: _containers.RepeatedScalarFieldContainer[str]
    aliases: _containers.RepeatedScalarFieldContainer[str]
    mac_address: str
    def __init__(self, network_id: _Optional[str] = ..., addresses: _Optional[_Iterable[str]] = ..., aliases: _Optional[_Iterable[str]] = ..., mac_address: _Optional[str] = ...) -> None: ...

class TaskStatus(_message.Message):
    __slots__ = ("state", "timestamp", "message", "err", "container_id", "pid", "exit_code", "oom_killed", "health", "ports", "started_at", "finished_at", "running_since")
    STATE_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ERR_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    OOM_KILLED_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    FINISHED_AT_FIELD_NUMBER: _ClassVar[int]
    RUNNING_SINCE_FIELD_NUMBER: _ClassVar[int]
    state: TaskState
    timestamp: float
    message: str
    err: str
    container_id: str
    pid: int
    exit_code: int
    oom_killed: bool
    health: str
    ports: _containers.RepeatedCompositeFieldContainer[PortConfig]
    started_at: float
    finished_at: float
    running_since: float
    def __init__(self, state: _Optional[_Union[TaskState, str]] = ..., timestamp: _Optional[float] = ..., message: _Optional[str] = ..., err: _Optional[str] = ..., container_id: _Optional[str] = ..., pid: _Optional[int] = ..., exit_code: _Optional[int] = ..., oom_killed: _Optional[bool] = ..., health: _Optional[str] = ..., ports: _Optional[_Iterable[_Union[PortConfig, _Mapping]]] = ..., started_at: _Optional[float] = ..., finished_at: _Optional[float] = ..., running_since: _Optional[float] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("id", "meta", "service_id", "slot", "node_id", "spec", "spec_version", "service_name", "service_labels", "endpoint", "status", "desired_state", "networks", "assigned_generic", "job_iteration", "not_before", "restarts", "window_start", "window_restarts", "waiting_for", "slot_volumes", "backoff", "rollout")
    class ServiceLabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    META_FIELD_NUMBER: _ClassVar[int]
    SERVICE_ID_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    SPEC_VERSION_FIELD_NUMBER: _ClassVar[int]
    SERVICE_NAME_FIELD_NUMBER: _ClassVar[int]
    SERVICE_LABELS_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    DESIRED_STATE_FIELD_NUMBER: _ClassVar[int]
    NETWORKS_FIELD_NUMBER: _ClassVar[int]
    ASSIGNED_GENERIC_FIELD_NUMBER: _ClassVar[int]
    JOB_ITERATION_FIELD_NUMBER: _ClassVar[int]
    NOT_BEFORE_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_START_FIELD_NUMBER: _ClassVar[int]
    WINDOW_RESTARTS_FIELD_NUMBER: _ClassVar[int]
    WAITING_FOR_FIELD_NUMBER: _ClassVar[int]
    SLOT_VOLUMES_FIELD_NUMBER: _ClassVar[int]
    BACKOFF_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    id: str
    meta: Meta
    service_id: str
    slot: int
    node_id: str
    spec: TaskSpec
    spec_version: int
    service_name: str
    service_labels: _containers.ScalarMap[str, str]
    endpoint: EndpointSpec
    status: TaskStatus
    desired_state: TaskState
    networks: _containers.RepeatedCompositeFieldContainer[NetworkAttachment]
    assigned_generic: _containers.RepeatedCompositeFieldContainer[GenericResource]
    job_iteration: int
    not_before: float
    restarts: int
    window_start: float
    window_restarts: int
    waiting_for: str
    slot_volumes: bool
    backoff: int
    rollout: str
    def __init__(self, id: _Optional[str] = ..., meta: _Optional[_Union[Meta, _Mapping]] = ..., service_id: _Optional[str] = ..., slot: _Optional[int] = ..., node_id: _Optional[str] = ..., spec: _Optional[_Union[TaskSpec, _Mapping]] = ..., spec_version: _Optional[int] = ..., service_name: _Optional[str] = ..., service_labels: _Optional[_Mapping[str, str]] = ..., endpoint: _Optional[_Union[EndpointSpec, _Mapping]] = ..., status: _Optional[_Union[TaskStatus, _Mapping]] = ..., desired_state: _Optional[_Union[TaskState, str]] = ..., networks: _Optional[_Iterable[_Union[NetworkAttachment, _Mapping]]] = ..., assigned_generic: _Optional[_Iterable[_Union[GenericResource, _Mapping]]] = ..., job_iteration: _Optional[int] = ..., not_before: _Optional[float] = ..., restarts: _Optional[int] = ..., window_start: _Optional[float] = ..., window_restarts: _Optional[int] = ..., waiting_for: _Optional[str] = ..., slot_volumes: _Optional[bool] = ..., backoff: _Optional[int] = ..., rollout: _Optional[str] = ...) -> None: ...

class AllocatedPool(_message.Message):
    __slots__ = ("subnet", "gateway")
    SUBNET_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    subnet: str
    gateway: str
    def __init__(self, subnet: _Optional[str] = ..., gateway: _Optional[str] = ...) -> None: ...

class Network(_message.Message):
    __slots__ = ("id", "meta", "spec", "pools", "vni", "pending_delete")
    ID_FIELD_NUMBER: _ClassVar[int]
    META_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    POOLS_FIELD_NUMBER: _ClassVar[int]
    VNI_FIELD_NUMBER: _ClassVar[int]
    PENDING_DELETE_FIELD_NUMBER: _ClassVar[int]
    id: str
    meta: Meta
    spec: NetworkSpec
    pools: _containers.RepeatedCompositeFieldContainer[AllocatedPool]
    vni: int
    pending_delete: bool
    def __init__(self, id: _Optional[str] = ..., meta: _Optional[_Union[Meta, _Mapping]] = ..., spec: _Optional[_Union[NetworkSpec, _Mapping]] = ..., pools: _Optional[_Iterable[_Union[AllocatedPool, _Mapping]]] = ..., vni: _Optional[int] = ..., pending_delete: _Optional[bool] = ...) -> None: ...

class Volume(_message.Message):
    __slots__ = ("id", "meta", "spec", "node_id")
    ID_FIELD_NUMBER: _ClassVar[int]
    META_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    meta: Meta
    spec: VolumeSpec
    node_id: str
    def __init__(self, id: _Optional[str] = ..., meta: _Optional[_Union[Meta, _Mapping]] = ..., spec: _Optional[_Union[VolumeSpec, _Mapping]] = ..., node_id: _Optional[str] = ...) -> None: ...

class Secret(_message.Message):
    __slots__ = ("id", "meta", "spec")
    ID_FIELD_NUMBER: _ClassVar[int]
    META_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    id: str
    meta: Meta
    spec: SecretSpec
    def __init__(self, id: _Optional[str] = ..., meta: _Optional[_Union[Meta, _Mapping]] = ..., spec: _Optional[_Union[SecretSpec, _Mapping]] = ...) -> None: ...

class Config(_message.Message):
    __slots__ = ("id", "meta", "spec")
    ID_FIELD_NUMBER: _ClassVar[int]
    META_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    id: str
    meta: Meta
    spec: ConfigSpec
    def __init__(self, id: _Optional[str] = ..., meta: _Optional[_Union[Meta, _Mapping]] = ..., spec: _Optional[_Union[ConfigSpec, _Mapping]] = ...) -> None: ...

class JoinTokens(_message.Message):
    __slots__ = ("worker", "manager")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    MANAGER_FIELD_NUMBER: _ClassVar[int]
    worker: str
    manager: str
    def __init__(self, worker: _Optional[str] = ..., manager: _Optional[str] = ...) -> None: ...

class Revoked(_message.Message):
    __slots__ = ("serial", "until")
    SERIAL_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    serial: str
    until: float
    def __init__(self, serial: _Optional[str] = ..., until: _Optional[float] = ...) -> None: ...

class RootRotation(_message.Message):
    __slots__ = ("cert", "key", "cross_signed")
    CERT_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    CROSS_SIGNED_FIELD_NUMBER: _ClassVar[int]
    cert: str
    key: bytes
    cross_signed: str
    def __init__(self, cert: _Optional[str] = ..., key: _Optional[bytes] = ..., cross_signed: _Optional[str] = ...) -> None: ...

class RootCA(_message.Message):
    __slots__ = ("cert", "key", "join_tokens", "revoked", "rotation")
    CERT_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    JOIN_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REVOKED_FIELD_NUMBER: _ClassVar[int]
    ROTATION_FIELD_NUMBER: _ClassVar[int]
    cert: str
    key: bytes
    join_tokens: JoinTokens
    revoked: _containers.RepeatedCompositeFieldContainer[Revoked]
    rotation: RootRotation
    def __init__(self, cert: _Optional[str] = ..., key: _Optional[bytes] = ..., join_tokens: _Optional[_Union[JoinTokens, _Mapping]] = ..., revoked: _Optional[_Iterable[_Union[Revoked, _Mapping]]] = ..., rotation: _Optional[_Union[RootRotation, _Mapping]] = ...) -> None: ...

class Cluster(_message.Message):
    __slots__ = ("id", "meta", "spec", "root_ca", "schema_version", "unlock_key")
    ID_FIELD_NUMBER: _ClassVar[int]
    META_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    ROOT_CA_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    UNLOCK_KEY_FIELD_NUMBER: _ClassVar[int]
    id: str
    meta: Meta
    spec: ClusterSpec
    root_ca: RootCA
    schema_version: int
    unlock_key: bytes
    def __init__(self, id: _Optional[str] = ..., meta: _Optional[_Union[Meta, _Mapping]] = ..., spec: _Optional[_Union[ClusterSpec, _Mapping]] = ..., root_ca: _Optional[_Union[RootCA, _Mapping]] = ..., schema_version: _Optional[int] = ..., unlock_key: _Optional[bytes] = ...) -> None: ...

class TaskStatusUpdate(_message.Message):
    __slots__ = ("task_id", "status")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    status: TaskStatus
    def __init__(self, task_id: _Optional[str] = ..., status: _Optional[_Union[TaskStatus, _Mapping]] = ...) -> None: ...

class ContainerStats(_message.Message):
    __slots__ = ("task_id", "timestamp", "cpu_nanos", "memory", "memory_limit", "pids", "network_rx", "network_tx", "block_read", "block_write")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    CPU_NANOS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    MEMORY_LIMIT_FIELD_NUMBER: _ClassVar[int]
    PIDS_FIELD_NUMBER: _ClassVar[int]
    NETWORK_RX_FIELD_NUMBER: _ClassVar[int]
    NETWORK_TX_FIELD_NUMBER: _ClassVar[int]
    BLOCK_READ_FIELD_NUMBER: _ClassVar[int]
    BLOCK_WRITE_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    timestamp: float
    cpu_nanos: int
    memory: int
    memory_limit: int
    pids: int
    network_rx: int
    network_tx: int
    block_read: int
    block_write: int
    def __init__(self, task_id: _Optional[str] = ..., timestamp: _Optional[float] = ..., cpu_nanos: _Optional[int] = ..., memory: _Optional[int] = ..., memory_limit: _Optional[int] = ..., pids: _Optional[int] = ..., network_rx: _Optional[int] = ..., network_tx: _Optional[int] = ..., block_read: _Optional[int] = ..., block_write: _Optional[int] = ...) -> None: ...

class Member(_message.Message):
    __slots__ = ("task_id", "service_id", "node_id", "node_addr", "address", "mac_address", "healthy", "names")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    SERVICE_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ADDR_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    MAC_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    HEALTHY_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    service_id: str
    node_id: str
    node_addr: str
    address: str
    mac_address: str
    healthy: bool
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, task_id: _Optional[str] = ..., service_id: _Optional[str] = ..., node_id: _Optional[str] = ..., node_addr: _Optional[str] = ..., address: _Optional[str] = ..., mac_address: _Optional[str] = ..., healthy: _Optional[bool] = ..., names: _Optional[_Iterable[str]] = ...) -> None: ...

class ServiceEntry(_message.Message):
    __slots__ = ("service_id", "name", "mode", "vip", "names")
    SERVICE_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    VIP_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    service_id: str
    name: str
    mode: str
    vip: str
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, service_id: _Optional[str] = ..., name: _Optional[str] = ..., mode: _Optional[str] = ..., vip: _Optional[str] = ..., names: _Optional[_Iterable[str]] = ...) -> None: ...

class NetworkTable(_message.Message):
    __slots__ = ("network", "members", "services", "node_addrs")
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    NODE_ADDRS_FIELD_NUMBER: _ClassVar[int]
    network: Network
    members: _containers.RepeatedCompositeFieldContainer[Member]
    services: _containers.RepeatedCompositeFieldContainer[ServiceEntry]
    node_addrs: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, network: _Optional[_Union[Network, _Mapping]] = ..., members: _Optional[_Iterable[_Union[Member, _Mapping]]] = ..., services: _Optional[_Iterable[_Union[ServiceEntry, _Mapping]]] = ..., node_addrs: _Optional[_Iterable[str]] = ...) -> None: ...

class NetworkChange(_message.Message):
    __slots__ = ("network_id", "members", "removed_members", "services", "removed_services", "node_addrs")
    NETWORK_ID_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    REMOVED_MEMBERS_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    REMOVED_SERVICES_FIELD_NUMBER: _ClassVar[int]
    NODE_ADDRS_FIELD_NUMBER: _ClassVar[int]
    network_id: str
    members: _containers.RepeatedCompositeFieldContainer[Member]
    removed_members: _containers.RepeatedScalarFieldContainer[str]
    services: _containers.RepeatedCompositeFieldContainer[ServiceEntry]
    removed_services: _containers.RepeatedScalarFieldContainer[str]
    node_addrs: StringList
    def __init__(self, network_id: _Optional[str] = ..., members: _Optional[_Iterable[_Union[Member, _Mapping]]] = ..., removed_members: _Optional[_Iterable[str]] = ..., services: _Optional[_Iterable[_Union[ServiceEntry, _Mapping]]] = ..., removed_services: _Optional[_Iterable[str]] = ..., node_addrs: _Optional[_Union[StringList, _Mapping]] = ...) -> None: ...

class IngressTarget(_message.Message):
    __slots__ = ("address", "node_addr", "mac_address", "node_id")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    NODE_ADDR_FIELD_NUMBER: _ClassVar[int]
    MAC_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    address: str
    node_addr: str
    mac_address: str
    node_id: str
    def __init__(self, address: _Optional[str] = ..., node_addr: _Optional[str] = ..., mac_address: _Optional[str] = ..., node_id: _Optional[str] = ...) -> None: ...

class IngressPort(_message.Message):
    __slots__ = ("service_id", "port", "targets")
    SERVICE_ID_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    service_id: str
    port: PortConfig
    targets: _containers.RepeatedCompositeFieldContainer[IngressTarget]
    def __init__(self, service_id: _Optional[str] = ..., port: _Optional[_Union[PortConfig, _Mapping]] = ..., targets: _Optional[_Iterable[_Union[IngressTarget, _Mapping]]] = ...) -> None: ...

class IngressChange(_message.Message):
    __slots__ = ("service_id", "ports")
    SERVICE_ID_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    service_id: str
    ports: _containers.RepeatedCompositeFieldContainer[IngressPort]
    def __init__(self, service_id: _Optional[str] = ..., ports: _Optional[_Iterable[_Union[IngressPort, _Mapping]]] = ...) -> None: ...

class Assignments(_message.Message):
    __slots__ = ("complete", "sequence", "tasks", "secrets", "configs", "networks", "volumes", "ingress", "network_changes", "ingress_changes", "removed_tasks", "removed_secrets", "removed_configs", "removed_networks", "removed_volumes")
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    SECRETS_FIELD_NUMBER: _ClassVar[int]
    CONFIGS_FIELD_NUMBER: _ClassVar[int]
    NETWORKS_FIELD_NUMBER: _ClassVar[int]
    VOLUMES_FIELD_NUMBER: _ClassVar[int]
    INGRESS_FIELD_NUMBER: _ClassVar[int]
    NETWORK_CHANGES_FIELD_NUMBER: _ClassVar[int]
    INGRESS_CHANGES_FIELD_NUMBER: _ClassVar[int]
    REMOVED_TASKS_FIELD_NUMBER: _ClassVar[int]
    REMOVED_SECRETS_FIELD_NUMBER: _ClassVar[int]
    REMOVED_CONFIGS_FIELD_NUMBER: _ClassVar[int]
    REMOVED_NETWORKS_FIELD_NUMBER: _ClassVar[int]
    REMOVED_VOLUMES_FIELD_NUMBER: _ClassVar[int]
    complete: bool
    sequence: int
    tasks: _containers.RepeatedCompositeFieldContainer[Task]
    secrets: _containers.RepeatedCompositeFieldContainer[Secret]
    configs: _containers.RepeatedCompositeFieldContainer[Config]
    networks: _containers.RepeatedCompositeFieldContainer[NetworkTable]
    volumes: _containers.RepeatedCompositeFieldContainer[Volume]
    ingress: IngressPortList
    network_changes: _containers.RepeatedCompositeFieldContainer[NetworkChange]
    ingress_changes: _containers.RepeatedCompositeFieldContainer[IngressChange]
    removed_tasks: _containers.RepeatedScalarFieldContainer[str]
    removed_secrets: _containers.RepeatedScalarFieldContainer[str]
    removed_configs: _containers.RepeatedScalarFieldContainer[str]
    removed_networks: _containers.RepeatedScalarFieldContainer[str]
    removed_volumes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, complete: _Optional[bool] = ..., sequence: _Optional[int] = ..., tasks: _Optional[_Iterable[_Union[Task, _Mapping]]] = ..., secrets: _Optional[_Iterable[_Union[Secret, _Mapping]]] = ..., configs: _Optional[_Iterable[_Union[Config, _Mapping]]] = ..., networks: _Optional[_Iterable[_Union[NetworkTable, _Mapping]]] = ..., volumes: _Optional[_Iterable[_Union[Volume, _Mapping]]] = ..., ingress: _Optional[_Union[IngressPortList, _Mapping]] = ..., network_changes: _Optional[_Iterable[_Union[NetworkChange, _Mapping]]] = ..., ingress_changes: _Optional[_Iterable[_Union[IngressChange, _Mapping]]] = ..., removed_tasks: _Optional[_Iterable[str]] = ..., removed_secrets: _Optional[_Iterable[str]] = ..., removed_configs: _Optional[_Iterable[str]] = ..., removed_networks: _Optional[_Iterable[str]] = ..., removed_volumes: _Optional[_Iterable[str]] = ...) -> None: ...

class StringList(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, values: _Optional[_Iterable[str]] = ...) -> None: ...

class IngressPortList(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedCompositeFieldContainer[IngressPort]
    def __init__(self, values: _Optional[_Iterable[_Union[IngressPort, _Mapping]]] = ...) -> None: ...
