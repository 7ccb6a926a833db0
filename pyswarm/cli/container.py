"""`pyswarm stats`, `pyswarm kill` and `pyswarm container`: the cluster's containers by docker's names.

A container is a task, so what starts, ends or changes one is its service: those commands are refused with the
service's command that does it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from pyswarm.cli import inspection, nodes
from pyswarm.cli.app import App, connected, format_option
from pyswarm.cli.completion import complete
from pyswarm.cli.compose_state import Container
from pyswarm.cli.compose_stats import CLEAR, LAYOUT, PAUSE, Shares, figures_row
from pyswarm.cli.container_filters import state
from pyswarm.cli.execute import running_task
from pyswarm.cli.lazy import Entry, GoCommand, LazyGroup, refused
from pyswarm.cli.logs import find
from pyswarm.cli.table import formatted
from pyswarm.objects import Task, TaskState

if TYPE_CHECKING:
    from pyswarm.client import Client

REFUSED: Mapping[str, str] = {
    "attach": "see what it says with `pyswarm logs -f`, and go inside with `pyswarm exec -it`",
    "commit": "build images with `pyswarm image build`",
    "create": "use `pyswarm service create`",
    "pause": "use `pyswarm service scale SERVICE=0`",
    "prune": "ended containers go by themselves: see `pyswarm swarm update --task-history-limit`",
    "restart": "use `pyswarm service update --force`",
    "rm": "use `pyswarm service rm`",
    "run": "use `pyswarm service create`, or `pyswarm compose run` for a command on this node",
    "start": "use `pyswarm service scale`",
    "stop": "use `pyswarm service scale SERVICE=0`; `pyswarm kill` sends a signal",
    "unpause": "use `pyswarm service scale`",
    "update": "use `pyswarm service update`",
}
"""docker's commands that change a container without its service's knowing."""


@click.group(
    cls=LazyGroup,
    entries={
        "exec": Entry("pyswarm.cli.execute:exec_command", "Execute a command in a running task"),
        "inspect": Entry("pyswarm.cli.task:inspect", "Display detailed information on tasks"),
        "kill": Entry("pyswarm.cli.container:kill", "Send a signal to containers"),
        "logs": Entry("pyswarm.cli.logs:logs", "Fetch the logs of a service or task"),
        "ls": Entry("pyswarm.cli.task:ps", "List the cluster's containers"),
        "stats": Entry("pyswarm.cli.container:stats", "Display what containers use"),
    },
    aliases={"ps": "ls"},
)
def container() -> None:
    """Look into the cluster's containers, which are its tasks."""


for _name, _why in REFUSED.items():
    container.add_command(refused(_name, f"a container belongs to its service: {_why}"))


@click.command(cls=GoCommand)
@click.argument(
    "names", nargs=-1, required=True, metavar="TASK|SERVICE[.N]...", shell_complete=complete("task")
)
@click.option("-s", "--signal", default="SIGKILL", show_default=True, help="Signal to send (name or number).")
@connected
async def kill(app: App, client: Client, names: tuple[str, ...], signal: str) -> None:
    """Send a signal to the main process of containers; what ends by it is started anew as its service says."""
    del app

    async def one(ref: str) -> None:
        task = await running_task(client, ref)
        await nodes.ask(client, "task.kill", {"task": task.id, "signal": signal}, node=task.node_id)

    await inspection.remove_each(names, one)


@click.command(cls=GoCommand)
@click.argument("names", nargs=-1, metavar="[TASK|SERVICE...]", shell_complete=complete("task"))
@click.option(
    "-a", "--all", "everything", is_flag=True, help="Show all containers (default shows just running)."
)
@format_option
@click.option("--no-stream", is_flag=True, help="Disable streaming stats and only pull the first result.")
@click.option("--no-trunc", is_flag=True, help="Do not truncate output.")
@connected
async def stats(
    app: App,
    client: Client,
    names: tuple[str, ...],
    everything: bool,
    format: str,
    no_stream: bool,
    no_trunc: bool,
) -> None:
    """Display what containers use of their nodes, live until it is interrupted."""
    del app
    shares = Shares()
    memory = {each.id: each.description.resources.memory for each in await client.nodes()}
    while True:
        found = [each for each in await _tasks(client, names) if everything or state(each) == "running"]
        figures = {each.task_id: each for each in await client.stats([each.id for each in found])}
        shown = [
            figures_row(
                Container(name=each.name, service=each.service_name, task=each),
                use := figures.get(each.id),
                shares.share(use, each.status.started_at) if use is not None else 0.0,
                memory.get(each.node_id, 0),
                no_trunc,
            )
            for each in found
        ]
        live = not no_stream and sys.stdout.isatty()
        click.echo((CLEAR if live else "") + formatted(shown, LAYOUT, format), nl=False)
        if no_stream:
            return
        await asyncio.sleep(PAUSE)


async def _tasks(client: Client, names: Sequence[str]) -> list[Task]:
    """The tasks with a container that are named, or all."""
    found: dict[str, Task] = {}
    for name in names:
        service, task = await find(client, name)
        tasks = [task] if task else await client.tasks([("service", service.id)]) if service else []
        found |= {each.id: each for each in tasks}
    chosen = found.values() if names else await client.tasks()
    ordered = sorted(chosen, key=lambda each: (each.service_name, each.slot, each.node_id, each.id))
    return [each for each in ordered if each.status.container_id and each.status.state >= TaskState.STARTING]
