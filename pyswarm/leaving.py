"""Leaving a cluster: what `pyswarm leave` does, so that neither the node nor the cluster keeps anything of the other.

A worker ends its containers and tells a manager, so that the node is Down at once. A manager leaves with --force
alone: it has itself demoted before, which takes its member out of Raft and leaves the others a healthy quorum. Where
that cannot be, because it is the last one, or the others have no quorum or would have none, it goes all the same,
and says what is left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pyswarm import nodeconfig, tmpfs
from pyswarm.daemons import delete, stop, systemd_runs, wait_for
from pyswarm.errors import Conflict, Fatal, NotFound, PyswarmError, Unavailable
from pyswarm.nodeconfig import NodeConfig

DEMOTE_TIMEOUT = 60.0
"""Seconds for a manager that leaves to be taken out of Raft and to become a worker."""
TELL_TIMEOUT = 5.0
"""Seconds that each manager has to hear that this node has left."""
KEPT = ("volumes", "images", "images-conf")
"""What stays of the agent's state when a node leaves: data that people may want again."""


def leave(state: Path, run: Path, *, force: bool, purge: bool = False) -> Sequence[str]:
    """Take this node out of its cluster: daemons ended, containers and networks gone, its identity deleted. Returns
    what the cluster could not be told, as sentences for people.

    Volumes and images stay below the state directory, unless `purge`. Raises Conflict on a manager without `force`.
    """
    try:
        config = nodeconfig.load(state)
    except NotFound:
        if not purge:
            raise
        tmpfs.remove(run)
        shutil.rmtree(state, ignore_errors=True)
        return ()
    except Fatal:
        if not force:
            raise
        config = _recovered(state, run)
    if config.role == "manager" and not force:
        raise Conflict(asyncio.run(_why_not(config)))
    untold: list[str] = []
    if config.role == "manager":
        config = _resigned(config, untold)
    stop(config)
    take_down(config, purge=purge)
    if asyncio.run(_tell(config)):
        untold = []
    forget(config, purge=purge)
    return untold


def _recovered(state: Path, run: Path) -> NodeConfig:
    """The settings of a node whose file is damaged, as far as they are known."""
    config = nodeconfig.recovered(run) or NodeConfig(
        node_id="unknown",
        cluster_id="unknown",
        role="manager",
        state_dir=str(state),
        run_dir=str(run),
        service_manager="systemd" if systemd_runs() else "supervisor",
    )
    nodeconfig.save(config)
    return config


# ------------------------------------------------------------------------------------------ a manager


async def _why_not(config: NodeConfig) -> str:
    """Why a manager does not just leave, in Swarm's manner."""
    from pyswarm.client import Client
    from pyswarm.objects import Node

    text = "you are attempting to leave the swarm on a node that is participating as a manager. "
    try:
        async with Client.local(config.socket, timeout=TELL_TIMEOUT) as client:
            own = await client.get(Node, "self")
            managers = [n for n in await client.nodes() if n.manager_status and n.manager_status.raft_id]
    except PyswarmError:
        return (
            text
            + "The managers cannot be asked whether it can be spared: use `--force` to leave all the same"
        )
    staying = [n for n in managers if n.id != own.id]
    if not staying:
        return text + (
            "Removing the last manager erases all current state of the swarm. Use `--force` to leave all the same"
        )
    text += f"Removing it leaves {len(staying)} managers out of {len(managers)}. "
    lost = [n for n in staying if n.manager_status and n.manager_status.reachability != "reachable"]
    if 2 * len(lost) >= len(staying):
        names = ", ".join(sorted(n.description.hostname or n.id for n in lost))
        return text + (
            f"The managers would have no quorum ({names} cannot be reached): bring those back, or demote them, first. "
            "`--force` leaves all the same, and the swarm inaccessible"
        )
    return text + "Demote it first (`pyswarm node demote self`), or use `--force`, which does so"


def _resigned(config: NodeConfig, untold: list[str]) -> NodeConfig:
    """Have this manager demoted, and wait until it is a worker, where there are others who can do without it."""
    if all(address == config.api_address for address in config.managers):
        return config
    try:
        if not asyncio.run(_demote_self(config)):
            return config
        if not wait_for(lambda: nodeconfig.load(config.state).role == "worker", DEMOTE_TIMEOUT):
            raise Unavailable(f"this manager was not taken out within {DEMOTE_TIMEOUT:.0f} s")
    except PyswarmError as error:
        untold.append(
            f"the others still count this node as a manager ({error}): on one of them, run "
            f"`pyswarm node demote {config.node_id}` and `pyswarm node rm {config.node_id}`"
        )
        return config
    return nodeconfig.load(config.state)


async def _demote_self(config: NodeConfig) -> bool:
    """False for the last manager."""
    from pyswarm.client import Client
    from pyswarm.objects import Node

    async with Client.local(config.socket, timeout=2 * TELL_TIMEOUT) as client:
        node = await client.get(Node, "self")
        if node.spec.role != "manager":
            return True
        if not any(n.spec.role == "manager" and n.id != node.id for n in await client.nodes()):
            return False
        await client.update(node, replace(node.spec, role="worker"))
    return True


# ------------------------------------------------------------------------------------------ any node


async def _tell(config: NodeConfig) -> bool:
    """Have the managers know that this node is gone. False where none of them takes it."""
    from pyswarm.api import Empty
    from pyswarm.rpc import TLS, Stub, channel

    for address in config.managers:
        if address == config.api_address and config.role == "manager":
            continue
        with contextlib.suppress(PyswarmError):
            tls = TLS(config.cert("ca.pem"), config.cert("node.pem"), config.cert("node.key"))
            stub = Stub(channel(f"ipv4:{address}", tls=tls), TELL_TIMEOUT)
            try:
                await stub.unary("Dispatcher.Leave", Empty())
                return config.role != "manager"
            finally:
                await stub.close()
    return False


def take_down(config: NodeConfig, *, purge: bool) -> None:
    """End this node's containers and take away its networks, and with `purge` its volumes and images."""
    flags = ["--leave", *(["--purge"] if purge else [])]
    command = [sys.executable, "-m", "node_agent.main", config.state_dir, *flags]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    if result.returncode:
        raise Fatal(f"could not take down this node's containers: {result.stderr.strip()}")


def forget(config: NodeConfig, *, purge: bool) -> None:
    """Delete the node's state; without `purge`, volumes and images stay."""
    tmpfs.remove(config.run)
    if purge:
        shutil.rmtree(config.state, ignore_errors=True)
        return
    agent = config.state / "agent"
    for parent, kept in ((agent, KEPT), (config.state, ("agent",))):
        for path in parent.iterdir() if parent.is_dir() else ():
            if path.name not in kept:
                delete(path)
    for path in (agent, config.state):
        with contextlib.suppress(OSError):
            path.rmdir()
