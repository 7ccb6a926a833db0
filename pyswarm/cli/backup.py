"""`pyswarm backup` and `restore`: the cluster's state in a file, and a cluster from it on an empty machine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pyswarm.cli.app import current_app
from pyswarm.cli.lazy import GoCommand
from pyswarm.errors import Conflict

if TYPE_CHECKING:
    from pyswarm.nodeconfig import NodeConfig


@click.command(cls=GoCommand)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def backup(file: Path) -> None:
    """Save the cluster's state in FILE, with its CA and the keys to its secrets: as secret as those. Runs on a
    manager, as root, while the cluster works. The data in volumes, and images, are not part of it."""
    from pyswarm import nodeconfig

    config = nodeconfig.load(current_app().state_dir)
    if config.role != "manager":
        raise Conflict(
            "this node is a worker, which has no copy of the cluster's state: run this on a manager"
        )
    count = asyncio.run(_saved(config, file))
    click.echo(f"Saved {count} objects in {file}.")


async def _saved(config: NodeConfig, file: Path) -> int:
    from manager import backup
    from manager.bootstrap import SEAL_KEY
    from manager.main import etcd_config, etcd_tls
    from manager.sealer import Sealer
    from manager.store.etcd import EtcdStore
    from pyswarm.clock import SystemClock

    store = EtcdStore.connect([etcd_config(config).local_endpoint], etcd_tls(config))
    try:
        keys = Sealer.load(config.state / SEAL_KEY).keys
        taken = await backup.take(store, SystemClock().now(), keys)
    finally:
        await store.close()
    backup.save(taken, file)
    return len(taken.objects)


@click.command(cls=GoCommand)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--advertise-addr", default="", help="Advertised address (format: <ip|interface>[:port]).")
@click.option("--listen-addr", default="", help="Listen address (format: <ip>[:port]), 0.0.0.0:2377.")
@click.option("--data-path-addr", default="", help="Address or interface for data path traffic.")
@click.option("--api-port", type=click.IntRange(1, 65535), default=2378, show_default=True)
@click.option("--etcd-client-port", type=click.IntRange(1, 65535), default=2379, show_default=True)
@click.option("--etcd-peer-port", type=click.IntRange(1, 65535), default=2380, show_default=True)
@click.option(
    "--cgroup-parent", default="/pyswarm", show_default=True, help="Parent cgroup of all containers."
)
@click.option("--link-prefix", default="ps", hidden=True)
@click.option("--insecure-registry", multiple=True, help="Registry to use without TLS (host[:port]).")
def restore(
    file: Path,
    advertise_addr: str,
    listen_addr: str,
    data_path_addr: str,
    api_port: int,
    etcd_client_port: int,
    etcd_peer_port: int,
    cgroup_parent: str,
    link_prefix: str,
    insecure_registry: tuple[str, ...],
) -> None:
    """Start a cluster from the backup in FILE on this machine, which becomes its only manager: after the old
    managers are lost. Their nodes stay listed, down, until they are removed."""
    from pyswarm import daemon
    from pyswarm.nodeconfig import Ports

    app = current_app()
    options = daemon.InitOptions(
        advertise_addr=advertise_addr,
        listen_addr=listen_addr,
        data_path_addr=data_path_addr,
        state_dir=app.state_dir,
        run_dir=app.run_dir,
        ports=Ports(api=api_port, etcd_client=etcd_client_port, etcd_peer=etcd_peer_port),
        cgroup_parent=cgroup_parent,
        link_prefix=link_prefix,
        insecure_registries=insecure_registry,
        restore=file,
    )
    result = daemon.init(options)
    click.echo(f"Swarm restored: current node ({result.node_id}) is now its manager.")
