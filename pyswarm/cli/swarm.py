"""`pyswarm swarm`: update; init, join, leave, ca and the tokens by the names that docker has for them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from pyswarm.cli.app import App, connected
from pyswarm.cli.cluster import ETCD_SNAPSHOTS
from pyswarm.cli.lazy import Entry, LazyGroup, refused_option
from pyswarm.cli.service_flags import DURATION
from pyswarm.cli.trust import UNLOCK_HINT, external_cas
from pyswarm.errors import Unavailable

if TYPE_CHECKING:
    from pyswarm.client import Client
    from pyswarm.objects import Cluster


@click.group(
    cls=LazyGroup,
    entries={
        "init": Entry("pyswarm.cli.cluster:init", "Start a cluster on this machine"),
        "join": Entry("pyswarm.cli.cluster:join", "Join a cluster as a worker or a manager"),
        "join-token": Entry("pyswarm.cli.cluster:join_token", "Show or rotate the join tokens"),
        "leave": Entry("pyswarm.cli.cluster:leave", "Leave the cluster"),
        "ca": Entry("pyswarm.cli.trust:ca", "Show or replace the root CA"),
        "unlock": Entry("pyswarm.cli.trust:unlock", "Unlock this machine's manager"),
        "unlock-key": Entry("pyswarm.cli.trust:unlock_key", "Show or rotate the unlock key"),
        "backup": Entry("pyswarm.cli.backup:backup", "Save the cluster's state in a file"),
        "restore": Entry("pyswarm.cli.backup:restore", "Start a cluster from a backup"),
    },
)
def swarm() -> None:
    """Manage the cluster, by the names that docker has for it."""


@swarm.command()
@click.option("--autolock/--no-autolock", default=None, help="Have managers locked when they start.")
@click.option("--cert-expiry", type=DURATION, help="Validity period for node certificates.")
@click.option("--dispatcher-heartbeat", type=DURATION, help="Dispatcher heartbeat period.")
@click.option("--external-ca", multiple=True, help="Who signs: protocol=cfssl,url=https://...,cacert=FILE.")
@refused_option("--max-snapshots", why=ETCD_SNAPSHOTS)
@refused_option("--snapshot-interval", why=ETCD_SNAPSHOTS)
@click.option(
    "--rebalance",
    type=click.Choice(("off", "gentle")),
    help="Whether healthy tasks move when a node joins or comes back; services may say otherwise.",
)
@click.option("--task-history-limit", type=int, help="Ended tasks kept per slot; negative keeps all.")
@connected
async def update(app: App, client: Client, external_ca: tuple[str, ...], **given: Any) -> None:
    """Update the settings of the whole cluster."""
    del app
    names = {"cert_expiry": "node_cert_expiry", "dispatcher_heartbeat": "heartbeat_period"}
    changes = {names.get(flag, flag): value for flag, value in given.items() if value is not None}
    if external_ca:
        changes["external_cas"] = external_cas(external_ca)
    if not changes:
        raise click.UsageError(
            "name a setting to change: --autolock, --cert-expiry, --dispatcher-heartbeat, --external-ca, "
            "--rebalance, --task-history-limit"
        )
    cluster = await _cluster(client)
    await client.update(cluster, replace(cluster.spec, **changes))
    click.echo("Swarm updated.")
    if changes.get("autolock") and not cluster.spec.autolock:
        click.echo(UNLOCK_HINT.format(key=await client.unlock_key()), nl=False)


async def _cluster(client: Client) -> Cluster:
    found = (await client.info()).cluster
    if found is None:
        raise Unavailable("the manager has no record of the cluster yet: try again in a moment")
    return found
