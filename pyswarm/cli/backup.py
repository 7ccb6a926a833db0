"""`pyswarm backup` and `restore`: the cluster's state in a file, and a cluster from it on an empty machine."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pyswarm.cli.app import current_app
from pyswarm.cli.lazy import GoCommand
from pyswarm.errors import Conflict, Invalid, Locked, Unavailable

if TYPE_CHECKING:
    from manager.sealer import Sealer
    from pyswarm.nodeconfig import NodeConfig


PASSPHRASE = click.option(
    "--passphrase-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File whose first line is the passphrase.",
)


@click.command(cls=GoCommand)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--encrypt", is_flag=True, help="Encrypt it under a passphrase, which is asked for.")
@PASSPHRASE
def backup(file: Path, encrypt: bool, passphrase_file: Path | None) -> None:
    """Save the cluster's state in FILE, with its CA and the keys to its secrets: as secret as those, unless it is
    encrypted (--encrypt or --passphrase-file). Runs on a manager, as root, while the cluster works. The data in
    volumes, and images, are not part of it."""
    from pyswarm import nodeconfig

    passphrase = _passphrase(passphrase_file) if passphrase_file is not None else ""
    if encrypt and not passphrase:
        passphrase = click.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True)
    config = nodeconfig.load(current_app().state_dir)
    if config.role != "manager":
        raise Conflict(
            "this node is a worker, which has no copy of the cluster's state: run this on a manager"
        )
    count = asyncio.run(_saved(config, file, passphrase))
    click.echo(f"Saved {count} objects in {file}.")


def _passphrase(file: Path) -> str:
    """Raises Invalid when there is none in the file."""
    try:
        line = file.read_text().split("\n", 1)[0].rstrip("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"--passphrase-file: cannot read {file}: {error}") from None
    if not line:
        raise Invalid(f"--passphrase-file: the first line of {file} is empty")
    return line


async def _saved(config: NodeConfig, file: Path, passphrase: str) -> int:
    from manager import backup
    from manager.main import etcd_config, etcd_tls
    from manager.store.etcd import EtcdStore
    from pyswarm.clock import SystemClock

    sealer = await _sealer(config)
    store = EtcdStore.connect([etcd_config(config).local_endpoint], etcd_tls(config), seal=sealer)
    try:
        taken = await backup.take(store, SystemClock().now(), sealer.keys)
    finally:
        await store.close()
    backup.save(taken, file, passphrase)
    return len(taken.objects)


async def _sealer(config: NodeConfig) -> Sealer:
    """The key of the store: from its file, or from the manager where that is locked (autolock). Raises Locked when
    the manager has not been unlocked."""
    from manager.lock import Vault
    from manager.main import vault_socket
    from manager.sealer import Sealer
    from pyswarm.api import Empty, SealKeysResponse
    from pyswarm.rpc import Stub, channel

    vault = Vault(config.state, config.run)
    if not vault.locked:
        return vault.load()
    if not vault_socket(config).exists():
        raise Locked
    stub = Stub(channel(f"unix:{vault_socket(config)}"))
    try:
        answer: SealKeysResponse = await stub.unary("Vault.SealKeys", Empty())
    except Unavailable:
        raise Locked from None
    finally:
        await stub.close()
    return Sealer(*answer.keys)


@click.command(cls=GoCommand)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@PASSPHRASE
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
    passphrase_file: Path | None,
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
        passphrase=_asked(file, passphrase_file),
    )
    result = daemon.init(options)
    click.echo(f"Swarm restored: current node ({result.node_id}) is now its manager.")


def _asked(file: Path, passphrase_file: Path | None) -> str:
    """The passphrase of a backup: from its file, or from the terminal where it needs one."""
    from manager import backup

    if passphrase_file is not None:
        return _passphrase(passphrase_file)
    if backup.is_encrypted(file) and sys.stdin.isatty():
        return click.prompt("Passphrase", hide_input=True, err=True)
    return ""
