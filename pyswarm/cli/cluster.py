"""`pyswarm init`, `leave`, `join-token`, `info`, `version`: the cluster and this machine's part in it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import click

from pyswarm.cli import human, values
from pyswarm.cli.app import App, connected, current_app, warn
from pyswarm.cli.lazy import GoCommand, refused_option
from pyswarm.cli.service_flags import DURATION
from pyswarm.cli.table import executed, inspected, parsed
from pyswarm.errors import Locked, NotFound, PyswarmError, Unavailable
from pyswarm.gotemplate import Struct

if TYPE_CHECKING:
    from pyswarm.api import InfoResponse
    from pyswarm.client import Client
    from pyswarm.nodeconfig import CgroupDriver
    from pyswarm.objects import Cluster, Node

ETCD_SNAPSHOTS = "etcd keeps the log of Raft, and decides by itself when to take a snapshot"
JOIN_HINT = """To add a {role} to this swarm, run the following command:

    pyswarm join --token {token} {address}
"""

CGROUP_DRIVER: Mapping[str, Any] = {
    "type": click.Choice(("auto", "cgroupfs", "systemd")),
    "default": "auto",
    "show_default": True,
    "help": "Who makes the cgroups of containers.",
}


def init_options(command: Any) -> Any:
    """The flags of `init`, Swarm's first."""
    option = click.option
    flags = [
        option("--advertise-addr", default="", help="Advertised address (format: <ip|interface>[:port])."),
        option(
            "--autolock",
            is_flag=True,
            help="Lock the managers' keys: after a start they want the unlock key.",
        ),
        option("--availability", type=click.Choice(("active", "pause", "drain")), default="active"),
        option(
            "--cert-expiry",
            type=DURATION,
            default="2160h",
            show_default=True,
            help="Validity of node certificates.",
        ),
        option("--data-path-addr", default="", help="Address or interface for data path traffic."),
        option("--data-path-port", type=click.IntRange(1024, 49151), default=4789, show_default=True),
        option("--default-addr-pool", multiple=True, help="Default address pool in CIDR format."),
        option("--default-addr-pool-mask-length", type=click.IntRange(1, 32), default=24, show_default=True),
        option("--dispatcher-heartbeat", type=DURATION, default="1s", show_default=True),
        option(
            "--force-new-cluster",
            is_flag=True,
            help="Make this manager the only one, with the state that it has.",
        ),
        option(
            "--external-ca",
            multiple=True,
            help="Who signs certificates: protocol=cfssl,url=https://...,cacert=FILE.",
        ),
        refused_option("--max-snapshots", why=ETCD_SNAPSHOTS),
        refused_option("--snapshot-interval", why=ETCD_SNAPSHOTS),
        option("--label", multiple=True, help="Labels of this node (key=value)."),
        option("--listen-addr", default="", help="Listen address, <ip>[:port] (default 0.0.0.0:2377)."),
        option(
            "--task-history-limit", type=int, default=5, show_default=True, help="Ended tasks kept per slot."
        ),
        option("--state-dir", "state", default="", metavar="DIR", help="Where this node keeps its state."),
        option(
            "--run-dir",
            "run",
            default="",
            metavar="DIR",
            help="Where this node keeps what a reboot may lose.",
        ),
        option(
            "--cgroup-parent", default="/pyswarm", show_default=True, help="Parent cgroup of all containers."
        ),
        option("--cgroup-driver", **CGROUP_DRIVER),
        option("--link-prefix", default="ps", hidden=True),
        option("--insecure-registry", multiple=True, help="Registry to use without TLS (host[:port])."),
        option("--generic-resource", multiple=True, help="Resource of this node (kind=value)."),
        option("--log-format", type=click.Choice(("text", "json")), default="text", hidden=True),
    ]
    for flag in reversed(flags):
        command = flag(command)
    return port_options(command)


def port_options(command: Any) -> Any:
    """The flags for a manager's ports."""
    numbers = click.IntRange(1, 65535)
    flags = [
        click.option(
            "--api-port", type=numbers, default=2378, show_default=True, help="Port of the managers' API."
        ),
        click.option("--etcd-client-port", type=numbers, default=2379, show_default=True),
        click.option("--etcd-peer-port", type=numbers, default=2380, show_default=True),
        click.option("--join-port", type=numbers, default=2377, hidden=True),
    ]
    for flag in reversed(flags):
        command = flag(command)
    return command


@click.command(cls=GoCommand)
@init_options
def init(
    advertise_addr: str,
    autolock: bool,
    availability: str,
    cert_expiry: float,
    data_path_addr: str,
    data_path_port: int,
    default_addr_pool: tuple[str, ...],
    default_addr_pool_mask_length: int,
    dispatcher_heartbeat: float,
    external_ca: tuple[str, ...],
    force_new_cluster: bool,
    label: tuple[str, ...],
    listen_addr: str,
    task_history_limit: int,
    state: str,
    run: str,
    api_port: int,
    etcd_client_port: int,
    etcd_peer_port: int,
    join_port: int,
    cgroup_parent: str,
    cgroup_driver: str,
    link_prefix: str,
    insecure_registry: tuple[str, ...],
    generic_resource: tuple[str, ...],
    log_format: str,
) -> None:
    """Start a cluster on this machine, which becomes its first manager."""
    from pathlib import Path

    from pyswarm import daemon
    from pyswarm.cli.trust import UNLOCK_HINT, external_cas
    from pyswarm.nodeconfig import Ports

    app = current_app()
    options = daemon.InitOptions(
        advertise_addr=advertise_addr,
        listen_addr=listen_addr,
        data_path_addr=data_path_addr,
        data_path_port=data_path_port,
        default_addr_pool=default_addr_pool or ("10.0.0.0/8",),
        default_addr_pool_mask_length=default_addr_pool_mask_length,
        force_new_cluster=force_new_cluster,
        task_history_limit=task_history_limit,
        cert_expiry=cert_expiry,
        dispatcher_heartbeat=dispatcher_heartbeat,
        autolock=autolock,
        external_cas=external_cas(external_ca),
        availability=availability,
        labels=values.pairs(label),
        state_dir=Path(state) if state else app.state_dir,
        run_dir=Path(run) if run else app.run_dir,
        ports=Ports(join=join_port, api=api_port, etcd_client=etcd_client_port, etcd_peer=etcd_peer_port),
        cgroup_parent=cgroup_parent,
        cgroup_driver=cast("CgroupDriver", cgroup_driver),
        link_prefix=link_prefix,
        insecure_registries=insecure_registry,
        generic_resources=generic_resource,
        log_format=log_format,
    )
    result = daemon.init(options)
    click.echo(f"Swarm initialized: current node ({result.node_id}) is now a manager.\n")
    click.echo(JOIN_HINT.format(role="worker", token=result.worker_token, address=result.address))
    click.echo(
        "To add a manager to this swarm, run 'pyswarm join-token manager' and follow the instructions.\n"
    )
    if result.unlock_key:
        click.echo(UNLOCK_HINT.format(key=result.unlock_key))


@click.command(cls=GoCommand)
def start() -> None:
    """Start this node's daemons, where they do not run: after a reboot without systemd."""
    from pyswarm import daemon, daemons, nodeconfig

    app = current_app()
    config = nodeconfig.load(app.state_dir)
    daemon.check_machine()
    daemons.start(config)
    daemon.wait_up(config)
    locked = nodeconfig.locked(config)
    click.echo(f"Node {config.node_id} is up" + (", and locked: run `pyswarm unlock`." if locked else "."))


@click.command(cls=GoCommand)
@click.argument("remote", metavar="HOST:PORT")
@click.option("--token", required=True, help="Token for entry into the swarm.")
@click.option("--advertise-addr", default="", help="Advertised address (format: <ip|interface>[:port]).")
@click.option("--availability", type=click.Choice(("active", "pause", "drain")), default="active")
@click.option("--data-path-addr", default="", help="Address or interface for data path traffic.")
@click.option("--listen-addr", default="", help="Listen address, <ip>[:port] (default 0.0.0.0:2377).")
@click.option(
    "--cgroup-parent", default="/pyswarm", show_default=True, help="Parent cgroup of all containers."
)
@click.option("--cgroup-driver", **CGROUP_DRIVER)
@click.option("--link-prefix", default="ps", hidden=True)
@click.option("--insecure-registry", multiple=True, help="Registry to use without TLS (host[:port]).")
@click.option("--generic-resource", multiple=True, help="Resource of this node (kind=value).")
@port_options
def join(
    remote: str,
    token: str,
    advertise_addr: str,
    availability: str,
    data_path_addr: str,
    listen_addr: str,
    cgroup_parent: str,
    cgroup_driver: str,
    link_prefix: str,
    insecure_registry: tuple[str, ...],
    generic_resource: tuple[str, ...],
    api_port: int,
    etcd_client_port: int,
    etcd_peer_port: int,
    join_port: int,
) -> None:
    """Join a cluster, as a worker or a manager: the token says which."""
    from pyswarm import joining
    from pyswarm.nodeconfig import Ports

    app = current_app()
    options = joining.JoinOptions(
        token=token,
        remote=remote,
        advertise_addr=advertise_addr,
        listen_addr=listen_addr,
        data_path_addr=data_path_addr,
        availability=availability,
        state_dir=app.state_dir,
        run_dir=app.run_dir,
        cgroup_parent=cgroup_parent,
        cgroup_driver=cast("CgroupDriver", cgroup_driver),
        link_prefix=link_prefix,
        ports=Ports(join=join_port, api=api_port, etcd_client=etcd_client_port, etcd_peer=etcd_peer_port),
        insecure_registries=insecure_registry,
        generic_resources=generic_resource,
    )
    config = joining.join(options)
    click.echo(f"This node ({config.node_id}) joined a swarm as a {config.role}.")


@click.command(cls=GoCommand)
@click.option("-f", "--force", is_flag=True, help="Force this node to leave the swarm, ignoring warnings.")
@click.option("--purge", is_flag=True, help="Also delete this node's volumes and images.")
def leave(force: bool, purge: bool) -> None:
    """Leave the cluster: this node's containers end, its state is deleted."""
    from pyswarm import leaving

    app = current_app()
    for untold in leaving.leave(app.state_dir, app.run_dir, force=force, purge=purge):
        warn(untold)
    click.echo("Node left the swarm.")


@click.command(cls=GoCommand)
@click.argument("role", type=click.Choice(("worker", "manager")))
@click.option("-q", "--quiet", is_flag=True, help="Only display token.")
@click.option("--rotate", is_flag=True, help="Rotate join token.")
@connected
async def join_token(app: App, client: Client, role: str, quiet: bool, rotate: bool) -> None:
    """Show, or rotate, the token that lets a machine join as a worker or a manager."""
    from pyswarm.api import RotateRequest

    del app
    request = RotateRequest(
        worker_token=rotate and role == "worker", manager_token=rotate and role == "manager"
    )
    tokens = await client.join_tokens(request)
    token = tokens.worker if role == "worker" else tokens.manager
    if quiet:
        click.echo(token)
        return
    if rotate:
        click.echo(f"Successfully rotated {role} join token.\n")
    address = tokens.addresses[0] if tokens.addresses else "HOST:2377"
    click.echo(JOIN_HINT.format(role=role, token=token, address=address))


# ------------------------------------------------------------------------------------------- info, version


@click.command(cls=GoCommand)
@click.option("-f", "--format", default="", metavar="FORMAT", help="json, yaml or a Go template.")
def info(format: str) -> None:
    """Display information about the cluster and the manager that answers; of a machine without one, its part in a
    cluster."""
    from pyswarm import engine
    from pyswarm.objects import Node

    async def ask(client: Client) -> tuple[InfoResponse, Node | None]:
        found = await client.info()
        try:
            return found, await client.get(Node, "self")
        except NotFound:
            warn("WARNING: the manager's own node is not among the cluster's nodes")
            return found, None

    app = current_app()
    try:
        found, node = app.run(ask)
    except (Unavailable, Locked):
        alone = _alone(app)
        if alone is None:
            raise
        state, found = alone
        shown, text = engine.info(found, None, state, manager=False), _alone_text(state, found)
    else:
        shown, text = engine.info(found, node), info_text(found, node)
    click.echo(inspected([shown], format) if format else text, nl=False)


def _alone(app: App) -> tuple[str, InfoResponse] | None:
    """What this machine says of itself where no manager of its own answers, as docker's states: inactive, locked, or
    an active worker. None when a manager should have answered, or this user may not look."""
    from pyswarm import nodeconfig
    from pyswarm.api import InfoResponse
    from pyswarm.cli import contexts

    if app.host or (app.context or contexts.current()) != contexts.DEFAULT:
        return None
    version = client_version()
    try:
        if not (app.state_dir / "node.json").exists():
            return "inactive", InfoResponse(version=version)
        config = nodeconfig.load(app.state_dir)
    except OSError:
        return None
    if config.role == "manager" and not nodeconfig.locked(config):
        return None
    return "locked" if config.role == "manager" else "active", InfoResponse(
        version=version,
        node_id=config.node_id,
        node_addr=config.advertise_addr,
        manager_addresses=config.managers,
        state_dir=config.state_dir,
        run_dir=config.run_dir,
    )


def _alone_text(state: str, found: InfoResponse) -> str:
    lines = [f"Server Version: {found.version}", f"Swarm: {state}"]
    if state != "inactive":
        lines += [
            f" NodeID: {found.node_id}",
            " Is Manager: false",
            f" Node Address: {found.node_addr}",
            " Manager Addresses:",
            *(f"  {address}" for address in found.manager_addresses),
            f"State Dir: {found.state_dir}",
            f"Run Dir: {found.run_dir}",
        ]
    return "\n".join(lines) + "\n"


def info_text(found: InfoResponse, node: Node | None) -> str:
    """The cluster for people."""
    lines = [
        f"Server Version: {found.version}",
        f"Raft: {found.raft_version}",
        "Swarm: active",
        f" NodeID: {found.node_id}",
        " Is Manager: true",
        f" Is Leader: {'true' if found.is_leader else 'false'}",
    ]
    lines += _cluster_lines(found.cluster) if found.cluster else []
    lines += [
        f" Managers: {found.managers}",
        f" Nodes: {found.nodes}",
        f" Services: {found.services}",
        f" Tasks: {found.tasks}",
        f"  Running: {found.tasks_running}",
        f" Node Address: {found.node_addr}",
        " Manager Addresses:",
        *(f"  {address}" for address in found.manager_addresses),
    ]
    if node is not None:
        description = node.description
        lines += [
            f"Kernel Version: {description.kernel}",
            f"Operating System: {description.os_name}",
            "OSType: linux",
            f"Architecture: {description.platform.architecture}",
            f"Cgroup: {description.cgroup}",
            f"CPUs: {description.resources.nano_cpus // 1_000_000_000}",
            f"Total Memory: {human.binary_size(description.resources.memory)}",
            f"Name: {description.hostname}",
        ]
    lines += [f"State Dir: {found.state_dir}", f"Run Dir: {found.run_dir}"]
    return "\n".join(lines) + "\n"


def _cluster_lines(cluster: Cluster) -> list[str]:
    spec = cluster.spec
    return [
        f" ClusterID: {cluster.id}",
        f" Default Address Pool: {' '.join(spec.default_address_pool)}",
        f" SubnetSize: {spec.subnet_size}",
        f" Data Path Port: {spec.data_path_port}",
        " Orchestration:",
        f"  Task History Retention Limit: {spec.task_history_limit}",
        " Dispatcher:",
        f"  Heartbeat Period: {human.duration(spec.heartbeat_period)}",
        " CA Configuration:",
        f"  Expiry Duration: {human.duration(spec.node_cert_expiry)}",
        *(["  External CAs:"] if spec.external_cas else []),
        *(f"    {ca.protocol}: {ca.url}" for ca in spec.external_cas),
        f" Root Rotation In Progress: {'true' if cluster.root_ca.rotation is not None else 'false'}",
        f" Autolock Managers: {'true' if spec.autolock else 'false'}",
    ]


def client_version() -> str:
    """The version of this program."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("pyswarm")
    except PackageNotFoundError:
        return "0.1.0"


_VERSION = """Client:
 Version:           {{.Client.Version}}
 Python version:    {{.Client.PythonVersion}}
 OS/Arch:           {{.Client.Os}}/{{.Client.Arch}}
 Context:           {{.Client.Context}}
{{- if .Server}}

Server:
 Manager:
  Version:          {{.Server.Version}}
 etcd:
  Version:          {{.Server.RaftVersion}}
{{- end}}"""


@click.command(cls=GoCommand)
@click.option("-f", "--format", default="", metavar="FORMAT", help="json, yaml or a Go template.")
def version(format: str) -> None:
    """Show the version information of the program and of the manager."""
    from pyswarm.cli import contexts

    app = current_app()
    client = {
        "Version": client_version(),
        "DefaultAPIVersion": "1.50",
        "ApiVersion": "1.50",
        "PythonVersion": platform.python_version(),
        "Os": "linux",
        "Arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        "Context": app.context or contexts.current(),
    }
    server, error = _server(app)
    data = Struct({"Client": Struct(client), "Server": Struct(server) if server else None})
    if format in ("json", "yaml"):
        click.echo(inspected([data], format), nl=False)
    else:
        click.echo(executed(parsed(format or _VERSION), data))
    if error is not None:
        raise error


def _server(app: App) -> tuple[Mapping[str, Any] | None, PyswarmError | None]:
    async def ask(client: Client) -> InfoResponse:
        return await client.info()

    try:
        found = app.run(ask)
    except PyswarmError as error:
        return None, error
    return {
        "Version": found.version,
        "ApiVersion": "1.50",
        "RaftVersion": found.raft_version,
        "Os": "linux",
    }, None
