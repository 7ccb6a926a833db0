"""`pyswarm ps` and `pyswarm task`: the cluster's tasks and the containers in them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from pyswarm import engine
from pyswarm.cli import container_filters, human, inspection, values
from pyswarm.cli.app import (
    App,
    connected,
    filter_option,
    format_option,
    inspect_format_option,
    no_trunc_option,
    quiet_option,
    task_options,
)
from pyswarm.cli.completion import complete
from pyswarm.cli.container_filters import state
from pyswarm.cli.lazy import Entry, GoCommand, LazyGroup
from pyswarm.cli.nodes import ask, ready
from pyswarm.cli.service import show_tasks
from pyswarm.cli.table import Layout, formatted, row
from pyswarm.clock import rfc3339
from pyswarm.errors import PyswarmError
from pyswarm.gotemplate import Struct, Time
from pyswarm.objects import Node, Task, TaskState
from pyswarm.specs import ContainerSpec

if TYPE_CHECKING:
    from pyswarm.client import Client

CONTAINERS = Layout(
    columns=("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"),
    headers={
        "ID": "CONTAINER ID",
        "Image": "IMAGE",
        "Command": "COMMAND",
        "CreatedAt": "CREATED AT",
        "RunningFor": "CREATED",
        "Status": "STATUS",
        "State": "STATE",
        "Ports": "PORTS",
        "Names": "NAMES",
        "Labels": "LABELS",
        "Mounts": "MOUNTS",
        "Networks": "NETWORKS",
        "LocalVolumes": "LOCAL VOLUMES",
        "Size": "SIZE",
        "Node": "NODE",
        "Task": "TASK",
    },
)
COMMAND_WIDTH = 20


def status(task: Task, now: float) -> str:
    """`Up 5 minutes (healthy)`, `Exited (1) 2 hours ago`, `Created`."""
    what = task.status
    if what.state == TaskState.STARTING and what.health:
        return f"Up {human.duration(now - (what.started_at or what.timestamp))} (health: starting)"
    match state(task):
        case "running":
            health = f" ({what.health})" if what.health and what.health != "starting" else ""
            return f"Up {human.duration(now - (what.started_at or what.timestamp))}{health}"
        case "created":
            return "Created"
        case "exited":
            ended = what.finished_at or what.timestamp
            return f"Exited ({what.exit_code or 0}) {human.duration(now - ended)} ago"
        case _:
            return "Dead"


Commands = tuple[Sequence[str], Sequence[str]]
"""An image's entrypoint and command."""


def _words(spec: ContainerSpec, image: Commands) -> Sequence[str]:
    """The command line of a container."""
    entrypoint, cmd = image
    if spec.command:
        return [*spec.command, *(spec.args or ())]
    return [*entrypoint, *(spec.args or cmd)]


def container_row(
    task: Task,
    nodes: dict[str, Node],
    networks: dict[str, str],
    now: float,
    full: bool,
    sizes: Mapping[str, int] | None = None,
    images: Mapping[str, Commands] | None = None,
) -> Struct:
    """A row of `ps`; `sizes` are bytes of writable layers by task, `images` what the images run by themselves."""
    spec = task.spec.container
    command = human.command(_words(spec, (images or {}).get(spec.image, ((), ()))))
    shown = command if full else human.ellipsis(command, COMMAND_WIDTH)
    identifier = task.status.container_id or task.id
    node = nodes.get(task.node_id)
    created = task.meta.created_at
    return row(
        {**spec.labels, **task.service_labels},
        ID=human.short(identifier, full),
        Image=human.image(spec.image, full),
        Command=json.dumps(shown, ensure_ascii=False),
        CreatedAt=Time(rfc3339(created)).shown(),
        RunningFor=human.ago(created, now),
        Status=status(task, now),
        State=state(task),
        Ports=", ".join(
            f"0.0.0.0:{p.published_port}->{p.target_port}/{p.protocol}" for p in task.status.ports
        ),
        Names=task.name,
        Mounts=",".join(mount.source or mount.target for mount in spec.mounts),
        Networks=",".join(networks.get(each.network_id, each.network_id) for each in task.networks),
        LocalVolumes=str(sum(mount.type == "volume" for mount in spec.mounts)),
        Size=human.decimal_size((sizes or {}).get(task.id, 0)),
        Node=node.description.hostname if node else task.node_id,
        Task=task.id,
    )


@click.command(cls=GoCommand)
@click.option(
    "-a", "--all", "everything", is_flag=True, help="Show all containers (default shows just running)."
)
@filter_option
@format_option
@click.option(
    "-n", "--last", type=int, default=-1, help="Show n last created containers (includes all states)."
)
@click.option("-l", "--latest", is_flag=True, help="Show the latest created container (includes all states).")
@no_trunc_option
@quiet_option("Only display container IDs.")
@click.option("-s", "--size", is_flag=True, help="Display total file sizes.")
@connected
async def ps(
    app: App,
    client: Client,
    everything: bool,
    filters: tuple[str, ...],
    format: str,
    last: int,
    latest: bool,
    no_trunc: bool,
    quiet: bool,
    size: bool,
) -> None:
    """List the cluster's containers."""
    pairs = values.filters(filters)
    container_filters.check(pairs)
    count = 1 if latest else last
    asked = [(key, value) for key, value in pairs if key in container_filters.MANAGERS]
    networks = {each.id: each.spec.name for each in await client.networks()}
    found = [
        each
        for each in await client.tasks(asked)
        if each.status.container_id and container_filters.matches(each, pairs, networks)
    ]
    chosen = any(key in ("status", "exited") for key, _ in pairs)
    if not everything and not chosen and count < 0:
        found = [task for task in found if task.status.state in (TaskState.STARTING, TaskState.RUNNING)]
    found.sort(key=lambda task: (-task.meta.created_at, task.id))
    if count >= 0:
        found = found[:count]
    nodes = {} if quiet else {node.id: node for node in await client.nodes()}
    sizes = await _sizes(client, {task.node_id for task in found}) if size or ".Size" in format else {}
    images = {} if quiet else await _images(client, found)
    shown = [container_row(task, nodes, networks, app.now(), no_trunc, sizes, images) for task in found]
    layout = replace(CONTAINERS, columns=(*CONTAINERS.columns, "Size")) if size else CONTAINERS
    click.echo(formatted(shown, layout, format, quiet), nl=False)


async def _images(client: Client, tasks: Sequence[Task]) -> Mapping[str, Commands]:
    """What the images of these tasks run, of those tasks that do not say it; what a node does not know is left out."""
    found: dict[str, Commands] = {}
    for each in tasks:
        spec = each.spec.container
        if spec.command or spec.image in found:
            continue
        found[spec.image] = ((), ())
        with contextlib.suppress(PyswarmError):
            config = (await ask(client, "image.inspect", {"name": spec.image}, node=each.node_id))["Config"]
            found[spec.image] = (config.get("Entrypoint") or (), config.get("Cmd") or ())
    return found


async def _sizes(client: Client, wanted: Collection[str]) -> Mapping[str, int]:
    """Bytes of the writable layers on these nodes, by task."""
    sizes: dict[str, int] = {}
    for node in await ready(client):
        if node.id in wanted:
            sizes |= await ask(client, "task.sizes", {}, node=node.id)
    return sizes


@click.group(
    cls=LazyGroup,
    entries={
        "logs": Entry("pyswarm.cli.logs:logs", "Fetch the logs of a service or task"),
        "exec": Entry("pyswarm.cli.execute:exec_command", "Execute a command in a running task"),
    },
)
def task() -> None:
    """Manage tasks."""


@task.command("ls")
@task_options
@connected
async def list_tasks(
    app: App,
    client: Client,
    filters: tuple[str, ...],
    **shown: Any,
) -> None:
    """List the tasks of the cluster."""
    found = await client.tasks(values.filters(filters))
    await show_tasks(app, client, found, **shown)


@task.command()
@click.argument("tasks", nargs=-1, required=True, shell_complete=complete("task"))
@inspect_format_option
@connected
async def inspect(app: App, client: Client, tasks: tuple[str, ...], format: str) -> None:
    """Display detailed information on one or more tasks."""
    del app
    networks = {network.id: network for network in await client.networks()}

    async def fetch(ref: str) -> Task:
        return await client.get(Task, ref)

    def struct(found: Task) -> Struct:
        return engine.task(found, networks)

    await inspection.inspect(tasks, fetch, struct, format)
