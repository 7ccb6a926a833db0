"""`pyswarm swarm`: update and ca; init, join, leave and the tokens by the names that docker has for them."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from pyswarm.cli.app import App, connected
from pyswarm.cli.cluster import ETCD_SNAPSHOTS, NO_EXTERNAL_CA
from pyswarm.cli.lazy import Entry, LazyGroup, needless_option, refused, refused_option
from pyswarm.cli.service_flags import DURATION
from pyswarm.errors import Invalid, Unavailable

if TYPE_CHECKING:
    from pyswarm.client import Client
    from pyswarm.objects import Cluster

NO_LOCK = (
    "the key that seals secrets lies in the state directory, which only root may read; encrypt the disk under it "
    "where that is not enough"
)
NO_ROTATION = "the root CA of a cluster stays: nodes' certificates are renewed by themselves (--cert-expiry)"


@click.group(
    cls=LazyGroup,
    entries={
        "init": Entry("pyswarm.cli.cluster:init", "Start a cluster on this machine"),
        "join": Entry("pyswarm.cli.cluster:join", "Join a cluster as a worker or a manager"),
        "join-token": Entry("pyswarm.cli.cluster:join_token", "Show or rotate the join tokens"),
        "leave": Entry("pyswarm.cli.cluster:leave", "Leave the cluster"),
        "backup": Entry("pyswarm.cli.backup:backup", "Save the cluster's state in a file"),
        "restore": Entry("pyswarm.cli.backup:restore", "Start a cluster from a backup"),
    },
)
def swarm() -> None:
    """Manage the cluster, by the names that docker has for it."""


swarm.add_command(refused("unlock", NO_LOCK))
swarm.add_command(refused("unlock-key", NO_LOCK))


@swarm.command()
@click.option("--autolock/--no-autolock", default=None, hidden=True, help="Not supported.")
@click.option("--cert-expiry", type=DURATION, help="Validity period for node certificates.")
@click.option("--dispatcher-heartbeat", type=DURATION, help="Dispatcher heartbeat period.")
@refused_option("--external-ca", why=NO_EXTERNAL_CA)
@refused_option("--max-snapshots", why=ETCD_SNAPSHOTS)
@refused_option("--snapshot-interval", why=ETCD_SNAPSHOTS)
@click.option("--task-history-limit", type=int, help="Ended tasks kept per slot; negative keeps all.")
@connected
async def update(app: App, client: Client, autolock: bool | None, **given: Any) -> None:
    """Update the settings of the whole cluster."""
    del app
    if autolock:
        raise Invalid(f"--autolock is not supported: {NO_LOCK}")
    names = {"cert_expiry": "node_cert_expiry", "dispatcher_heartbeat": "heartbeat_period"}
    changes = {names.get(flag, flag): value for flag, value in given.items() if value is not None}
    if not changes and autolock is None:
        raise click.UsageError(
            "name a setting to change: --cert-expiry, --dispatcher-heartbeat, --task-history-limit"
        )
    cluster = await _cluster(client)
    await client.update(cluster, replace(cluster.spec, **changes))
    click.echo("Swarm updated.")


@swarm.command()
@refused_option("--rotate", why=NO_ROTATION, flag=True)
@refused_option("--ca-cert", why=NO_ROTATION)
@refused_option("--ca-key", why=NO_ROTATION)
@refused_option("--cert-expiry", why="give it to `pyswarm swarm update`")
@refused_option("--external-ca", why=NO_EXTERNAL_CA)
@needless_option("-d", "--detach")
@needless_option("-q", "--quiet")
@connected
async def ca(app: App, client: Client) -> None:
    """Display the root CA's certificate."""
    del app
    sys.stdout.write((await _cluster(client)).root_ca.cert)


async def _cluster(client: Client) -> Cluster:
    found = (await client.info()).cluster
    if found is None:
        raise Unavailable("the manager has no record of the cluster yet: try again in a moment")
    return found
