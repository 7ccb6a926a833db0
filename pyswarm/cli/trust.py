"""`pyswarm ca`, `unlock` and `unlock-key`: the root that nodes trust, and the lock on the managers' keys."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pyswarm.cli.app import App, connected, current_app, is_terminal
from pyswarm.cli.lazy import GoCommand
from pyswarm.cli.service_flags import DURATION
from pyswarm.errors import Conflict, Invalid, Locked, PyswarmError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyswarm.client import Client
    from pyswarm.objects import Cluster, Node
    from pyswarm.specs import ExternalCA

LOOK = 0.2
"""Seconds between two looks at a rotation."""
UNLOCK_TIMEOUT = 60.0
"""Seconds that a manager has to be at work after it was unlocked."""
BAR = 40
UNLOCK_HINT = """To unlock a swarm manager after it restarts, run the `pyswarm unlock`
command and provide the following key:

    {key}

Please remember to store this key in a password manager, since without it you
will not be able to restart the manager.
"""


# ------------------------------------------------------------------------------------------- the root CA


@dataclass(frozen=True, slots=True)
class Rotation:
    """How far a root CA's replacement has come."""

    digest: str
    """Of the new root."""
    certificates: int
    """Nodes whose certificate it has signed."""
    roots: int
    """Nodes that trust it, and no other."""
    nodes: int
    waiting: tuple[str, ...] = ()
    """Names of the nodes that are down, for which it waits."""

    @property
    def done(self) -> bool:
        return self.certificates == self.roots == self.nodes


def progress(cluster: Cluster, nodes: Sequence[Node]) -> Rotation:
    """How far it is, by what every node says of itself."""
    from pyswarm import pki
    from pyswarm.objects import NodeState

    ca = cluster.root_ca
    root = ca.rotation.cert if ca.rotation is not None else ca.cert
    wanted = pki.key_id(root)
    signed = [node for node in nodes if node.description.certificate_issuer == wanted]
    alone = [node for node in nodes if _trusts_only(node, root)] if ca.rotation is None else []
    down = [n for n in nodes if n.status.state == NodeState.DOWN and (n not in signed or n not in alone)]
    return Rotation(
        digest=pki.root_digest(root),
        certificates=len(signed),
        roots=len(alone),
        nodes=len(nodes),
        waiting=tuple(sorted(node.description.hostname or node.id for node in down)),
    )


def _trusts_only(node: Node, root: str) -> bool:
    from pyswarm import pki

    roots = node.description.root_ca
    return bool(roots) and pki.split(roots) == pki.split(root)


def shown(rotation: Rotation) -> str:
    """The state of a rotation as docker shows it."""
    lines = [f"desired root digest: {rotation.digest}"]
    for what, count in (("TLS certificates", rotation.certificates), ("CA certificates", rotation.roots)):
        filled = BAR * count // max(rotation.nodes, 1)
        bar = ("=" * filled + ">")[:BAR].ljust(BAR)
        lines.append(f"  rotated {what + ':':<18} [{bar}] {count}/{rotation.nodes} nodes")
    lines += [
        f"  waiting for {name}, which is down: if it does not come back, run `pyswarm node rm {name}`"
        for name in rotation.waiting
    ]
    return "\n".join(lines)


@click.command(cls=GoCommand)
@click.option("--rotate", is_flag=True, help="Rotate the swarm CA.")
@click.option("--ca-cert", type=click.Path(path_type=Path), help="PEM file of the root to rotate to.")
@click.option("--ca-key", type=click.Path(path_type=Path), help="PEM file of that root's key.")
@click.option("--cert-expiry", type=DURATION, default=None, help="Validity of node certificates from now on.")
@click.option("--external-ca", multiple=True, help="Who signs: protocol=cfssl,url=https://...,cacert=FILE.")
@click.option("-d", "--detach", is_flag=True, help="Do not wait until all nodes have followed.")
@click.option("-q", "--quiet", is_flag=True, help="Suppress progress output.")
@connected
async def ca(
    app: App,
    client: Client,
    rotate: bool,
    ca_cert: Path | None,
    ca_key: Path | None,
    cert_expiry: float | None,
    external_ca: tuple[str, ...],
    detach: bool,
    quiet: bool,
) -> None:
    """Display the root CA's certificate, or replace it while the cluster works."""
    del app
    if not rotate:
        given = {
            "--ca-cert": ca_cert,
            "--ca-key": ca_key,
            "--cert-expiry": cert_expiry,
            "--external-ca": external_ca,
        }
        if names := [name for name, value in given.items() if value]:
            raise click.UsageError(f"{', '.join(names)} needs --rotate")
        click.echo(await _root(client), nl=False)
        return
    await client.rotate_ca(
        cert=_text(ca_cert, "--ca-cert"),
        key=_text(ca_key, "--ca-key"),
        cert_expiry=cert_expiry or 0.0,
        external_cas=external_cas(external_ca),
    )
    if detach:
        return
    await _follow(client, quiet=quiet)
    click.echo(await _root(client), nl=False)


def external_cas(texts: Sequence[str]) -> tuple[ExternalCA, ...]:
    """`--external-ca`'s values. Raises Invalid."""
    if not texts:
        return ()
    from manager.external_ca import parse

    return tuple(map(parse, texts))


def _text(path: Path | None, option: str) -> str:
    if path is None:
        return ""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{option}: cannot read {path}: {error}") from None


async def _cluster(client: Client) -> Cluster:
    found = (await client.info()).cluster
    if found is None:
        raise Unavailable("the manager has no record of the cluster yet: try again in a moment")
    return found


async def _root(client: Client) -> str:
    return (await _cluster(client)).root_ca.cert


async def _follow(client: Client, *, quiet: bool) -> None:
    """Show how the rotation goes on until it is over. Managers may be away meanwhile: it goes on by itself."""
    last: Rotation | None = None
    drawn = 0
    while last is None or not last.done:
        if last is not None:
            await asyncio.sleep(LOOK)
        try:
            now = progress(await _cluster(client), await client.nodes())
        except Unavailable:
            if last is None:
                raise
            continue
        if now != last and not quiet:
            text = shown(now)
            click.echo((f"\x1b[{drawn}F\x1b[J" if drawn and is_terminal() else "") + text)
            drawn = text.count("\n") + 1
        last = now


# ------------------------------------------------------------------------------------------- autolock


@click.command("unlock-key", cls=GoCommand)
@click.option("-q", "--quiet", is_flag=True, help="Only display token.")
@click.option("--rotate", is_flag=True, help="Rotate unlock key.")
@connected
async def unlock_key(app: App, client: Client, quiet: bool, rotate: bool) -> None:
    """Show, or rotate, the key that unlocks managers after they were started."""
    del app
    key = await client.unlock_key(rotate=rotate)
    if not key:
        raise Conflict("no unlock key is set: `pyswarm swarm update --autolock=true` has managers locked")
    if quiet:
        click.echo(key)
        return
    if rotate:
        click.echo("Successfully rotated manager unlock key.\n")
    click.echo(UNLOCK_HINT.format(key=key), nl=False)


@click.command(cls=GoCommand)
def unlock() -> None:
    """Unlock this machine's manager, which was started with its keys locked; asks for the key, or reads it from
    standard input."""
    app = current_app()
    if sys.stdin.isatty():
        key = click.prompt("Enter unlock key", hide_input=True, err=True)
    else:
        key = sys.stdin.readline()
    app.run(lambda client: client.unlock(key.strip()))
    asyncio.run(_at_work(app))


async def _at_work(app: App) -> None:
    """Until the manager answers as one that is not locked. Raises what it says last."""
    from pyswarm.client import Client

    end = asyncio.get_running_loop().time() + UNLOCK_TIMEOUT
    while True:
        try:
            async with Client.local(app.socket, 5.0) as client:
                await client.info()
                return
        except (Locked, Unavailable) as error:
            if asyncio.get_running_loop().time() > end:
                raise Unavailable(f"the manager was unlocked, but does not answer yet: {error}") from None
        except PyswarmError:
            raise
        await asyncio.sleep(LOOK)
