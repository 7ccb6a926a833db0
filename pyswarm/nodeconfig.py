"""What `init` and `join` leave on a node, and its daemons start from: addresses, ports, identity, paths.

<state>/node.json        this file's NodeConfig
<state>/certs/           ca.pem, node.pem, node.key: the node's identity (0600)
<state>/etcd/            the manager's Raft log and data
<state>/manager/         the key that seals the store (0600; under the unlock key with autolock), the first manager's
                         bootstrap record
<state>/agent/           tasks, volumes and images of the node agent
<state>/log/             logs of the daemons
<run>/                   a tmpfs of pyswarm's own: sockets, pid files, bundles, secrets in use
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pyswarm.errors import Fatal, Locked, NotFound

STATE_DIR = Path("/var/lib/pyswarm")
RUN_DIR = Path("/run/pyswarm")
SEAL_KEY = Path("manager/seal.key")
"""Below the state directory: the key that seals what is in the store, in clear."""
LOCKED_KEYS = Path("manager/keys.locked")
"""Below the state directory: that key and the node's, under the unlock key (autolock)."""
FORCE_NEW_CLUSTER = Path("manager/force-new-cluster")
"""Below the state directory: the manager's next start makes a Raft group of itself alone from its data."""
SOCKET_GROUP = "pyswarm"
"""Members of this group may use the local socket."""


CgroupDriver = Literal["auto", "cgroupfs", "systemd"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """TCP ports of a manager."""

    join: int = 2377
    """Joining: TLS without a client certificate, tokens only."""
    api: int = 2378
    """Everything else, over mutual TLS: agents, other managers, contexts."""
    etcd_client: int = 2379
    etcd_peer: int = 2380


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """One node's settings. What changes of them (role, managers) is changed with `update`; the cluster's own
    settings live in the store."""

    node_id: str
    cluster_id: str
    role: str = "worker"
    advertise_addr: str = "127.0.0.1"
    """IP address under which others reach this node."""
    data_path_addr: str = "127.0.0.1"
    """IP address of the VXLAN traffic."""
    data_path_port: int = 4789
    listen_addr: str = "0.0.0.0"
    ports: Ports = field(default_factory=Ports)
    managers: tuple[str, ...] = ()
    """host:port of the managers' API, as last heard."""
    state_dir: str = str(STATE_DIR)
    run_dir: str = str(RUN_DIR)
    cgroup_parent: str = "/pyswarm"
    cgroup_driver: CgroupDriver = "auto"
    """Who makes the containers' cgroups: `cgroupfs` (the OCI runtime), `systemd` (scopes in a slice), or `auto`:
    systemd where it is init and cgroups are of version 2."""
    link_prefix: str = "ps"
    """Start of the names of links and tables, so that several agents share a machine."""
    runtime: str = "runc"
    insecure_registries: tuple[str, ...] = ()
    engine_labels: Mapping[str, str] = field(default_factory=dict[str, str])
    generic_resources: tuple[str, ...] = ()
    """`kind=value` each."""
    log_format: str = "text"
    service_manager: str = "supervisor"
    """Who restarts the daemons: `systemd` or `supervisor`."""

    @property
    def state(self) -> Path:
        return Path(self.state_dir)

    @property
    def run(self) -> Path:
        return Path(self.run_dir)

    @property
    def socket(self) -> Path:
        """The local manager's socket for the command line."""
        return self.run / "pyswarm.sock"

    @property
    def join_address(self) -> str:
        """host:port at which machines join, if this node is a manager."""
        return f"{self.advertise_addr}:{self.ports.join}"

    @property
    def api_address(self) -> str:
        """host:port of the managers' API, if this node is a manager: also its name in elections."""
        return f"{self.advertise_addr}:{self.ports.api}"

    @property
    def session_file(self) -> Path:
        """There while the agent is registered with a manager; names the manager."""
        return self.run / "session"

    @property
    def certs(self) -> Path:
        return self.state / "certs"

    def cert(self, name: str) -> bytes:
        """`ca.pem`, `node.pem` or `node.key`."""
        try:
            return (self.certs / name).read_bytes()
        except OSError as error:
            if locked(self):
                raise Locked from None
            raise Fatal(
                f"cannot read the node's identity {self.certs / name}: {error.strerror}: restore it from a backup, "
                "or let the node leave with `pyswarm leave --force` and join again"
            ) from None


def directories(environ: Mapping[str, str] = os.environ) -> tuple[Path, Path]:
    """The state and run directory in force: PYSWARM_STATE_DIR, PYSWARM_RUN_DIR or the defaults."""
    return Path(environ.get("PYSWARM_STATE_DIR") or STATE_DIR), Path(
        environ.get("PYSWARM_RUN_DIR") or RUN_DIR
    )


def load(state: Path) -> NodeConfig:
    """The node's settings. NotFound when the node is in no cluster, Fatal when the file is damaged."""
    return _read(state / "node.json")


def locked(config: NodeConfig) -> bool:
    """Whether this node's manager, with its keys, has to be unlocked after it was started."""
    return (config.state / LOCKED_KEYS).exists() and not (config.state / SEAL_KEY).exists()


def keep_node_key(path: Path) -> None:
    """Have the node's key in its file, where there is a link to the tmpfs that it is on while managers are locked.
    Raises Fatal when it is on neither."""
    if not path.is_symlink():
        return
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Fatal(f"the node's key {path} is locked, and not open: {error.strerror}") from None
    write_private(path, data)


def log_format(state: Path) -> str:
    """How the daemons are to log, also where the settings cannot be read."""
    try:
        return load(state).log_format
    except (NotFound, Fatal):
        return "text"


def keep_copy(config: NodeConfig) -> None:
    """Keep the settings that the agent runs by in the run directory too, for `recovered`."""
    write_private(config.run / "node.json", _text(config))


def recovered(run: Path) -> NodeConfig | None:
    """The settings by which the agent last ran; None when it has not since the machine started."""
    try:
        return _read(run / "node.json")
    except (NotFound, Fatal):
        return None


def _read(path: Path) -> NodeConfig:
    try:
        raw = json.loads(path.read_text())
        ports = {f.name for f in dataclasses.fields(Ports)}
        raw["ports"] = Ports(**{key: value for key, value in raw["ports"].items() if key in ports})
        for name in ("managers", "insecure_registries", "generic_resources"):
            raw[name] = tuple(raw.get(name, ()))
        known = {f.name for f in dataclasses.fields(NodeConfig)}
        return NodeConfig(**{key: value for key, value in raw.items() if key in known})
    except FileNotFoundError:
        raise NotFound(
            "this node is not part of a cluster: use `pyswarm init` to start one or `pyswarm join` to join one"
        ) from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Fatal(
            f"{path} is damaged ({error}): restore it from a backup, or remove this node's state with "
            "`pyswarm leave --force` and join again"
        ) from None


def save(config: NodeConfig) -> None:
    """Write the settings, atomically."""
    write_private(config.state / "node.json", _text(config))


def update(state: Path, **changes: Any) -> NodeConfig:
    """Change some settings of a node, and nothing else of what others have written meanwhile; returns them all.
    (`Any`: each setting has a type of its own.) Raises what `load` raises."""
    with (state / "node.json.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        config = dataclasses.replace(load(state), **changes)
        save(config)
        return config


def _text(config: NodeConfig) -> bytes:
    return json.dumps(dataclasses.asdict(config), indent=1).encode() + b"\n"


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only root may read, whole or not at all, on disk before this returns."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    scratch = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
