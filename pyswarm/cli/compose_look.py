"""`pyswarm compose ps|ls|top|port|events|volumes|wait|version`: looking at projects."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from pyswarm.cli import human, task
from pyswarm.cli import logs as plain
from pyswarm.cli.app import connected, format_option, no_trunc_option, quiet_option
from pyswarm.cli.compose_local import FILES_LABEL, PROJECT_LABEL
from pyswarm.cli.compose_session import ComposeCommand, Scope, in_project
from pyswarm.cli.compose_state import Container, containers, exit_code, restarts, short_name
from pyswarm.cli.compose_wait import POLL
from pyswarm.cli.table import Layout, formatted, row
from pyswarm.clock import rfc3339, rfc3339_nanos
from pyswarm.errors import Invalid, NotFound
from pyswarm.gotemplate import Struct, Time
from pyswarm.objects import Service, Task, alive
from pyswarm.specs import STACK_LABEL, PortConfig

if TYPE_CHECKING:
    from pyswarm.cli.app import App
    from pyswarm.client import Client

CONTAINERS = Layout(
    columns=("Name", "Image", "Command", "Service", "RunningFor", "Status", "Ports"),
    headers={
        "ID": "CONTAINER ID",
        "Name": "NAME",
        "Image": "IMAGE",
        "Command": "COMMAND",
        "Service": "SERVICE",
        "Project": "PROJECT",
        "CreatedAt": "CREATED AT",
        "RunningFor": "CREATED",
        "Status": "STATUS",
        "State": "STATE",
        "Health": "HEALTH",
        "ExitCode": "EXIT CODE",
        "Ports": "PORTS",
        "Labels": "LABELS",
    },
)
PROJECTS = Layout(
    columns=("Name", "Status", "ConfigFiles"),
    headers={"Name": "NAME", "Status": "STATUS", "ConfigFiles": "CONFIG FILES"},
    quiet="Name",
)
VOLUMES = Layout(
    columns=("Driver", "Name"), headers={"Driver": "DRIVER", "Name": "VOLUME NAME"}, quiet="Name"
)
_STATUSES = ("paused", "restarting", "removing", "running", "dead", "created", "exited")


def ports(published: Sequence[PortConfig], exposed: Sequence[PortConfig] = ()) -> str:
    """`0.0.0.0:8080->80/tcp, 53/udp`."""
    open_ports = {(p.target_port, p.protocol) for p in published}
    shown = [
        f"{p.host_ip or '0.0.0.0'}:{p.published_port}->{p.target_port}/{p.protocol}"
        for p in sorted(published, key=lambda p: (p.target_port, p.protocol, p.published_port))
    ]
    shown += [
        f"{p.target_port}/{p.protocol}" for p in exposed if (p.target_port, p.protocol) not in open_ports
    ]
    return ", ".join(shown)


def container_row(each: Container, now: float, full: bool) -> Struct:
    """A row of `compose ps`."""
    spec, status = each.task.spec.container, each.task.status
    command = shlex.join([*(spec.command or ()), *(spec.args or ())])
    state = "restarting" if restarts(each.task) and not alive(status.state) else task.state(each.task)
    labels = {**spec.labels, **each.task.service_labels}
    return row(
        labels,
        ID=human.short(status.container_id or each.task.id, full),
        Name=each.name,
        Names=each.name,
        Image=human.image(spec.image, full).removesuffix(":latest") if not full else spec.image,
        Command=f'"{command if full else human.ellipsis(command, task.COMMAND_WIDTH)}"',
        Service=each.service,
        Project=labels.get(STACK_LABEL, ""),
        CreatedAt=Time(rfc3339(each.task.meta.created_at)).shown(),
        RunningFor=human.ago(each.task.meta.created_at, now),
        Status=task.status(each.task, now),
        State=state,
        Health=status.health if state == "running" or status.health == "starting" else "",
        ExitCode=exit_code(each.task) if state == "exited" else 0,
        Ports=ports(status.ports) if state == "running" else "",
        Publishers=[
            {
                "URL": p.host_ip or "0.0.0.0",
                "TargetPort": p.target_port,
                "PublishedPort": p.published_port,
                "Protocol": p.protocol,
            }
            for p in status.ports
        ],
    )


@click.command(cls=ComposeCommand)
@click.option("-a", "--all", "everything", is_flag=True, help="Show all stopped containers too.")
@click.option("--filter", "filters", multiple=True, help="Filter services by a property (status).")
@format_option
@no_trunc_option
@click.option("--orphans/--no-orphans", default=True, help="Include orphaned services.")
@quiet_option("Only display IDs.")
@click.option("--services", "only_services", is_flag=True, help="Display services.")
@click.option("--status", "statuses", multiple=True, help="Filter services by status.")
@click.argument("names", nargs=-1, metavar="[SERVICE...]")
@in_project()
async def ps(
    scope: Scope,
    everything: bool,
    filters: tuple[str, ...],
    format: str,
    no_trunc: bool,
    orphans: bool,
    quiet: bool,
    only_services: bool,
    statuses: tuple[str, ...],
    names: tuple[str, ...],
) -> None:
    """List containers."""
    wanted = [*statuses]
    for text in filters:
        key, separator, value = text.partition("=")
        if key != "status" or not separator:
            raise Invalid(f"invalid filter {text!r}: write status=STATUS")
        wanted.append(value)
    for value in wanted:
        if value not in _STATUSES:
            raise Invalid(f"invalid status {value!r}: one of {', '.join(_STATUSES)}")
    services = scope.chosen(names, one_offs=True)
    if not orphans:
        gone = {each.id for each in scope.orphans()}
        services = [each for each in services if each.id not in gone]
    shown = [
        container_row(each, scope.app.now(), no_trunc or quiet) for each in containers(services, scope.tasks)
    ]
    if wanted:
        shown = [each for each in shown if each["State"] in wanted]
    elif not everything:
        shown = [each for each in shown if each["State"] in ("running", "restarting", "created")]
    if only_services:
        found = dict.fromkeys(str(each["Service"]) for each in shown)
        click.echo("".join(f"{name}\n" for name in found), nl=False)
        return
    click.echo(formatted(shown, CONTAINERS, format, quiet), nl=False)


def summary(states: Sequence[str]) -> str:
    """`exited(1), running(2)`."""
    return ", ".join(f"{state}({states.count(state)})" for state in sorted(set(states)))


@click.command("ls", cls=ComposeCommand)
@click.option("-a", "--all", "everything", is_flag=True, help="Show all stopped Compose projects.")
@click.option("--filter", "filters", multiple=True, help="Filter output (name).")
@click.option("--format", type=click.Choice(("table", "json")), default="table", help="Format the output.")
@quiet_option("Only display project names.")
@connected
async def list_projects(
    app: App, client: Client, everything: bool, filters: tuple[str, ...], format: str, quiet: bool
) -> None:
    """List running compose projects."""
    del app
    parts: list[str] = []
    for text in filters:
        key, _, value = text.partition("=")
        if key != "name":
            raise Invalid(f"invalid filter {text!r}: write name=NAME")
        parts.append(value)
    services = await client.services([("label", PROJECT_LABEL)])
    tasks = await client.tasks([("label", PROJECT_LABEL)])
    shown: list[Any] = []
    for name in sorted({each.spec.labels[PROJECT_LABEL] for each in services}):
        if parts and not any(part in name for part in parts):
            continue
        mine = [each for each in services if each.spec.labels[PROJECT_LABEL] == name]
        states = [task.state(each.task) for each in containers(mine, tasks)]
        if not everything and "running" not in states:
            continue
        files = next((each.spec.labels[FILES_LABEL] for each in mine if FILES_LABEL in each.spec.labels), "")
        shown.append(row(Name=name, Status=summary(states) or "stopped", ConfigFiles=files))
    if format == "json":
        found = [{key: each[key] for key in ("Name", "Status", "ConfigFiles")} for each in shown]
        click.echo(json.dumps(found, separators=(",", ":")))
        return
    click.echo(formatted(shown, PROJECTS, "", quiet), nl=False)


def running(scope: Scope, name: str, index: int) -> Task:
    """The running task of a service, its `index`-th (0: the first). Raises NotFound."""
    found = [
        each for each in containers(scope.chosen([name]), scope.tasks) if task.state(each.task) == "running"
    ]
    for each in found:
        if not index or each.task.slot == index:
            return each.task
    what = f'service "{name}" is not running'
    raise NotFound(what + (f" container #{index}" if index else ""))


@click.command(cls=ComposeCommand)
@click.argument("names", nargs=-1, metavar="[SERVICE...]")
@in_project()
async def top(scope: Scope, names: tuple[str, ...]) -> None:
    """Display the running processes, as `ps` in each container shows them."""
    from pyswarm.cli.compose_run import output

    for each in containers(scope.chosen(names, one_offs=True), scope.tasks):
        if task.state(each.task) != "running":
            continue
        code, text, errors = await output(scope.client, each.task.id, ("ps", "-ef"))
        click.echo(each.name)
        if code:
            reason = errors.decode(errors="replace").strip()
            click.echo(f"(cannot say: the image has no working ps: {reason})")
        else:
            click.echo(text.decode(errors="replace").rstrip("\n"))
        click.echo("")


@click.command(cls=ComposeCommand)
@click.option("--index", type=int, default=0, help="Index of the container if service has multiple replicas.")
@click.option("--protocol", type=click.Choice(("tcp", "udp", "sctp")), default="tcp", help="tcp or udp.")
@click.argument("name", metavar="SERVICE")
@click.argument("private", type=int, metavar="PRIVATE_PORT")
@in_project()
async def port(scope: Scope, index: int, protocol: str, name: str, private: int) -> None:
    """Print the public port for a port binding."""
    found = running(scope, name, index)
    for each in found.status.ports:
        if each.target_port == private and each.protocol == protocol:
            click.echo(f"{each.host_ip or '0.0.0.0'}:{each.published_port}")
            return
    raise NotFound(f"no port {private}/{protocol} for container {scope.name}-{name}-{found.slot or 1}")


def _moment(before: Task | None, now: Task) -> str:
    """docker's word for a change of a container; "" for none."""
    was = task.state(before) if before is not None else ""
    state = task.state(now)
    if state == was:
        if before is not None and before.status.health != now.status.health and now.status.health:
            return f"health_status: {now.status.health}"
        return ""
    return {"created": "create", "running": "start", "exited": "die", "dead": "die"}[state]


@click.command(cls=ComposeCommand)
@click.option("--json", "as_json", is_flag=True, help="Output events as a stream of json objects.")
@click.option("--since", default="", help="Show all events created since timestamp (those still kept).")
@click.option("--until", default="", help="Stream events until this timestamp.")
@click.argument("names", nargs=-1, metavar="[SERVICE...]")
@in_project()
async def events(scope: Scope, as_json: bool, since: str, until: str, names: tuple[str, ...]) -> None:
    """Receive real time events from containers."""
    services = {each.id: each for each in scope.chosen(names, one_offs=not names)}
    known = {each.id: each for each in scope.tasks} if not since else {}
    first, last = plain.moment(since, scope.app.now()), plain.moment(until, scope.app.now())
    stream = scope.client.events([("type", "task"), ("type", "service")], after=1 if first else 0)
    async for event in stream:
        if event.time < first:
            continue
        if last and event.time > last:
            return
        new = event.object.service
        if new is not None and _meant(new, scope.name, names):
            services[new.id] = new
        found = event.object.task
        if found is None or found.service_id not in services:
            continue
        before, known[found.id] = known.get(found.id), found
        action = "destroy" if event.action == "remove" else _moment(before, found)
        if action:
            _show_event(containers([services[found.service_id]], [found])[0], action, event.time, as_json)


def _meant(service: Service, project: str, names: Sequence[str]) -> bool:
    return service.spec.labels.get(STACK_LABEL) == project and (not names or short_name(service) in names)


def _show_event(each: Container, action: str, when: float, as_json: bool) -> None:
    image = each.task.spec.container.image
    stamp = rfc3339_nanos(round(when * 1_000_000_000))
    identifier = each.task.status.container_id or each.task.id
    attributes = {"image": image, "name": each.name}
    if as_json:
        value = {
            "action": action,
            "attributes": attributes,
            "id": identifier,
            "service": each.service,
            "time": stamp,
            "type": "container",
        }
        click.echo(json.dumps(value, separators=(",", ":")))
        return
    click.echo(f"{stamp} container {action} {identifier} (image={image}, name={each.name})")


@click.command(cls=ComposeCommand)
@format_option
@quiet_option("Only display volume names.")
@click.argument("names", nargs=-1, metavar="[SERVICE...]")
@in_project()
async def volumes(scope: Scope, format: str, quiet: bool, names: tuple[str, ...]) -> None:
    """List volumes."""
    used = {
        mount.source
        for each in scope.chosen(names)
        for mount in each.spec.task.container.mounts
        if mount.type == "volume"
    }
    shown = [
        row(each.spec.labels, Driver=each.spec.driver.name, Name=each.spec.name)
        for each in await scope.client.volumes()
        if each.spec.name in used or (not names and each.spec.labels.get(STACK_LABEL) == scope.name)
    ]
    click.echo(formatted(shown, VOLUMES, format, quiet), nl=False)


@click.command(cls=ComposeCommand)
@click.option("--down-project", is_flag=True, help="Drop the project when the first container stops.")
@click.argument("names", nargs=-1, required=True, metavar="SERVICE...")
@in_project()
async def wait(scope: Scope, down_project: bool, names: tuple[str, ...]) -> int:
    """Block until containers of services stop; the exit code is that of the last one."""
    services = scope.chosen(names)
    told: dict[str, int] = {}
    while True:
        mine = containers(services, scope.tasks)
        if not mine:
            raise NotFound(f"no containers for project {scope.name}: {', '.join(names)}")
        for each in mine:
            if alive(each.task.status.state) or restarts(each.task) or each.task.id in told:
                continue
            told[each.task.id] = exit_code(each.task)
            click.echo(f'container "{each.name}" exited with status code {exit_code(each.task)}')
        if down_project and told:
            await _drop(scope)
            break
        if all(each.task.id in told for each in mine):
            break
        await asyncio.sleep(POLL)
        await scope.refresh()
        services = _still(services, scope.services)
        if not services:
            break
    return list(told.values())[-1] if told else 0


def _still(before: Sequence[Service], now: Sequence[Service]) -> list[Service]:
    ids = {each.id for each in before}
    return [each for each in now if each.id in ids]


async def _drop(scope: Scope) -> None:
    from pyswarm.cli.compose_down import discard

    await discard(scope, scope.chosen((), one_offs=True))


@click.command(cls=ComposeCommand)
@click.option(
    "-f", "--format", type=click.Choice(("pretty", "json")), default="pretty", help="Format the output."
)
@click.option("--short", is_flag=True, help="Shows only the version number.")
def version(format: str, short: bool) -> None:
    """Show the version information."""
    from importlib.metadata import version as installed

    number = installed("pyswarm")
    if short:
        click.echo(number)
    elif format == "json":
        click.echo(json.dumps({"version": number}))
    else:
        click.echo(f"pyswarm compose version {number}")
