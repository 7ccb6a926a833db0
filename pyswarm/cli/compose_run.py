"""`pyswarm compose exec` and `run`: a command in a container that runs, or in one made for it.

A one-off without input runs as the container's own process: its log is its output, its end the exit code. One that
reads input or has a terminal runs beside a process that only sleeps, since the cluster attaches to nothing but what
it starts by `exec`; so the image of such a one-off must have `sleep`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import stat
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from pyswarm.api import ExecInputMessage, ExecStart, LogMessage, LogsRequest
from pyswarm.cli import compose_local as local
from pyswarm.cli import nodes, values
from pyswarm.cli.compose_logs import Following
from pyswarm.cli.compose_session import ComposeCommand, Scope, in_project, note, say, settings, specs_of
from pyswarm.cli.compose_state import containers, exit_code, stage
from pyswarm.cli.compose_wait import POLL, NotStarted, blocked
from pyswarm.errors import Invalid, NotFound
from pyswarm.objects import Service, Task, alive
from pyswarm.specs import Healthcheck, Mount, ServiceSpec

if TYPE_CHECKING:
    from compose.convert import StackSpecs
    from compose.project import Project
    from pyswarm.client import Client

CHUNK = 64 * 1024
HOLDER = ("sleep", "2147483647")
"""What a container of an interactive one-off runs: the longest sleep that every `sleep` understands."""


# ------------------------------------------------------------------------------------------- exec


async def output(
    client: Client,
    task: str,
    argv: Sequence[str],
    *,
    stdin: IO[bytes] | None = None,
    sink: IO[bytes] | None = None,
) -> tuple[int, bytes, bytes]:
    """Run a command in a task; (exit code, output, errors). With `sink` the output goes there."""
    start = ExecStart(task=task, argv=tuple(argv), stdin=stdin is not None)
    out, err, code = bytearray(), bytearray(), 0
    async for message in client.exec(_fed(start, stdin)):
        if message.kind == "exit":
            code = int(message.data or b"0")
            break
        if message.kind == "stderr":
            err += message.data
        elif sink is not None:
            sink.write(message.data)
        else:
            out += message.data
    return code, bytes(out), bytes(err)


async def _fed(start: ExecStart, stdin: IO[bytes] | None) -> AsyncIterator[ExecInputMessage]:
    yield ExecInputMessage(start=start, kind="start")
    if stdin is not None:
        while data := stdin.read(CHUNK):
            yield ExecInputMessage(kind="stdin", data=data)
        yield ExecInputMessage(kind="eof")
    await asyncio.Event().wait()


def terminals() -> bool:
    """Whether this process's input and output are a terminal."""
    with contextlib.suppress(OSError):
        return os.isatty(0) and os.isatty(1)
    return False


@click.command("exec", cls=ComposeCommand, context_settings={"allow_interspersed_args": False})
@click.option("-d", "--detach", is_flag=True, help="Run command in the background.")
@click.option("-e", "--env", multiple=True, help="Set environment variables.")
@click.option("--index", type=int, default=0, help="Index of the container if service has multiple replicas.")
@click.option("-i", "--interactive/--no-interactive", default=True, hidden=True)
@click.option("-T", "--no-tty", "--no-TTY", "no_tty", is_flag=True, help="Disable pseudo-TTY allocation.")
@click.option("-t", "--tty", "want_tty", is_flag=True, hidden=True)
@click.option("--privileged", is_flag=True, help="Give extended privileges to the process.")
@click.option("-u", "--user", default="", help="Run the command as this user.")
@click.option("-w", "--workdir", default="", help="Path to workdir directory for this command.")
@click.argument("name", metavar="SERVICE")
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND [ARGS]...")
@in_project()
async def exec_command(
    scope: Scope,
    detach: bool,
    env: tuple[str, ...],
    index: int,
    interactive: bool,
    no_tty: bool,
    want_tty: bool,
    privileged: bool,
    user: str,
    workdir: str,
    name: str,
    argv: tuple[str, ...],
) -> int:
    """Execute a command in a running container."""
    from pyswarm.cli.compose_look import running
    from pyswarm.cli.execute import attach

    tty = not no_tty and not detach and terminals()
    if want_tty and not tty and not no_tty and not detach:
        raise Invalid("the input device is not a TTY: leave out -t")
    size = shutil.get_terminal_size()
    start = ExecStart(
        task=running(scope, name, index).id,
        argv=argv,
        env=values.environment(env, (), os.environ),
        user=user,
        working_dir=workdir,
        tty=tty,
        stdin=interactive and not detach,
        privileged=privileged,
        rows=size.lines if tty else 0,
        cols=size.columns if tty else 0,
    )
    if settings().dry_run:
        say("Container", f"{scope.name}-{name}", "Executing")
        return 0
    return await attach(scope.client, start, detach=detach)


# ------------------------------------------------------------------------------------------- run


@click.command(cls=ComposeCommand, context_settings={"allow_interspersed_args": False})
@click.option("--build", is_flag=True, help="Build image before starting container.")
@click.option("--cap-add", multiple=True, help="Add Linux capabilities.")
@click.option("--cap-drop", multiple=True, help="Drop Linux capabilities.")
@click.option("-d", "--detach", is_flag=True, help="Run container in background and print its name.")
@click.option("--entrypoint", default=None, help="Override the entrypoint of the image.")
@click.option("-e", "--env", multiple=True, help="Set environment variables.")
@click.option("--env-from-file", multiple=True, help="Set environment variables from file.")
@click.option("-i", "--interactive/--no-interactive", default=True, help="Keep STDIN open.")
@click.option("-l", "--label", multiple=True, help="Add or override a label.")
@click.option("--name", default="", help="Assign a name to the container.")
@click.option("-T", "--no-TTY", "--no-tty", "no_tty", is_flag=True, help="Disable pseudo-TTY allocation.")
@click.option("-t", "--tty", "want_tty", is_flag=True, hidden=True)
@click.option("--no-deps", is_flag=True, help="Don't start linked services.")
@click.option("-p", "--publish", multiple=True, help="Publish a container's port(s) to the host.")
@click.option(
    "--pull",
    type=click.Choice(("always", "missing", "never", "policy")),
    default="policy",
    help="Pull image before running.",
)
@click.option("-q", "--quiet", is_flag=True, help="Don't print what is started.")
@click.option("--quiet-build", is_flag=True, help="Suppress progress output from the build process.")
@click.option("--quiet-pull", is_flag=True, help="Pull without printing progress information.")
@click.option(
    "--remove-orphans", is_flag=True, help="Remove containers for services not in the Compose file."
)
@click.option("--rm", "remove", is_flag=True, help="Automatically remove the container when it exits.")
@click.option("-P", "--service-ports", is_flag=True, help="Map all service's ports to the host.")
@click.option("--use-aliases", is_flag=True, help="Use the service's network aliases.")
@click.option("-u", "--user", default="", help="Run as specified username or uid.")
@click.option("-v", "--volume", "mounts", multiple=True, help="Bind mount a volume.")
@click.option("-w", "--workdir", default="", help="Working directory inside the container.")
@click.argument("service", metavar="SERVICE")
@click.argument("argv", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND] [ARGS]...")
@in_project(needed=True)
async def run(scope: Scope, service: str, argv: tuple[str, ...], **options: Any) -> int:
    """Run a one-off command on a service."""
    from pyswarm.cli.compose_up import bring

    project = scope.loaded()
    local.checked(project, service)
    specs = specs_of(project)
    base = await _base(scope, specs, service, options)
    needed = local.closure(project, [service]) - {service}
    if settings().progress == "auto" and options["quiet"]:
        settings().progress = "quiet"
    if needed and not options["no_deps"]:
        await bring(
            scope, local.only(specs, needed), {**_DEFAULTS, "remove_orphans": options["remove_orphans"]}
        )
    else:
        await _resources(scope, specs)
    tty = not options["no_tty"] and not options["detach"] and terminals()
    held = not options["detach"] and (tty or (options["interactive"] and has_input()))
    spec = local.one_off(base, project.name, _wanted(scope, project, service, argv, options, tty))
    if not options["no_deps"]:
        spec = replace(spec, depends_on=base.depends_on)
    say("Container", spec.name, "Creating")
    if settings().dry_run:
        return 0
    if held:
        command = await _command(scope, spec)
        made = await _create(scope, holding(spec))
        return await _finish(scope, made, options, _held(scope, made, spec, command, tty))
    made = await _create(scope, spec)
    if options["detach"]:
        click.echo(made.spec.name)
        return 0
    return await _finish(scope, made, options, _plain(scope, made))


_DEFAULTS: Mapping[str, Any] = {
    "build": False,
    "no_build": False,
    "pull": "policy",
    "quiet_pull": False,
    "scales": (),
    "no_recreate": True,
    "force_recreate": False,
}


def has_input() -> bool:
    """Whether standard input is a pipe, a file or a socket: something that a command may want to read."""
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


async def _base(scope: Scope, specs: StackSpecs, service: str, options: Mapping[str, Any]) -> ServiceSpec:
    """The service's own spec on the project's node, its image there."""
    from pyswarm.cli.compose_images import prepare

    mine = local.only(specs, [service])
    images = await prepare(
        scope,
        mine,
        build=bool(options["build"]),
        pull=str(options["pull"]),
        quiet_build=bool(options["quiet_build"]),
        quiet_pull=bool(options["quiet_pull"]),
    )
    whole = replace(
        mine, services=tuple(each for each in specs.services if each.name == mine.services[0].name)
    )
    return local.localized(whole, scope.loaded(), await scope.node(), images).services[0]


async def _resources(scope: Scope, specs: StackSpecs) -> None:
    """The networks, volumes, secrets and configs of the project, and no service."""
    from pyswarm.api import DeployRequest

    await scope.client.deploy(
        DeployRequest(
            stack=specs.stack,
            networks=specs.networks,
            volumes=specs.volumes,
            secrets=specs.secrets,
            configs=specs.configs,
            resolve_image="never",
            dry_run=settings().dry_run,
        )
    )


def _wanted(
    scope: Scope, project: Project, service: str, argv: tuple[str, ...], options: Mapping[str, Any], tty: bool
) -> local.OneOff:
    """The options as what changes of the service's spec."""
    import shlex

    from pyswarm.clock import RandomIds

    said = options["entrypoint"]
    try:
        entrypoint = None if said is None else tuple(shlex.split(said))
    except ValueError as error:
        raise Invalid(f"--entrypoint {said!r}: {error}") from None
    return local.OneOff(
        name=options["name"] or f"{scope.name}-{service}-run-{RandomIds().new_id()[:12]}",
        args=argv or None,
        entrypoint=entrypoint,
        env=values.environment(options["env"], options["env_from_file"], os.environ),
        mounts=tuple(mount(text, project) for text in options["mounts"]),
        ports=tuple(
            replace(each, publish_mode="host") for text in options["publish"] for each in values.ports(text)
        ),
        service_ports=bool(options["service_ports"]),
        labels=values.pairs(options["label"]),
        user=options["user"],
        workdir=options["workdir"],
        cap_add=_capabilities(options["cap_add"]),
        cap_drop=_capabilities(options["cap_drop"]),
        aliases=bool(options["use_aliases"]),
        tty=False,
    )


def _capabilities(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(
        each if each.startswith("CAP_") or each == "ALL" else f"CAP_{each}" for each in map(str.upper, names)
    )


def mount(text: str, project: Project) -> Mount:
    """`-v SOURCE:TARGET[:ro]`: a path here, or a volume, by its key in the project or its own name; `-v TARGET` is a
    volume without a name. Raises Invalid."""
    parts = text.split(":")
    if len(parts) > 3 or not parts[-1 if len(parts) == 1 else 1].startswith("/"):
        raise Invalid(f"invalid volume {text!r}: write SOURCE:/TARGET[:ro]")
    if len(parts) == 1:
        return Mount(type="volume", target=parts[0])
    options = set(parts[2].split(",")) if len(parts) == 3 else set[str]()
    unknown = sorted(options - {"ro", "rw", "z", "Z", "nocopy"})
    if unknown:
        raise Invalid(f"invalid volume {text!r}: option {unknown[0]!r} is not known here: ro, rw or nocopy")
    source, target, read_only = parts[0], parts[1], "ro" in options
    if source.startswith(("/", ".", "~")):
        path = os.path.normpath(Path.cwd() / Path(source).expanduser())
        return Mount(type="bind", source=path, target=target, read_only=read_only)
    declared = project.volumes.get(source)
    name = source if declared is None else declared.name or f"{project.name}_{source}"
    return Mount(
        type="volume", source=name, target=target, read_only=read_only, volume_no_copy="nocopy" in options
    )


def holding(spec: ServiceSpec) -> ServiceSpec:
    """The one-off whose process only sleeps, until the command that runs beside it has ended."""
    container = replace(
        spec.task.container,
        command=HOLDER,
        args=(),
        healthcheck=Healthcheck(test=("NONE",)),
        stop_signal="SIGKILL",
    )
    return replace(spec, task=replace(spec.task, container=container))


async def _command(scope: Scope, spec: ServiceSpec) -> tuple[str, ...]:
    """What the container would run by itself: entrypoint and command of the spec, else of the image."""
    container = spec.task.container
    found = await nodes.ask(scope.client, "image.inspect", {"name": container.image}, node=await scope.node())
    config: Mapping[str, Any] = found.get("Config") or {}
    entrypoint = container.command
    args = container.args
    if entrypoint is None:
        entrypoint = tuple(config.get("Entrypoint") or ())
        args = tuple(config.get("Cmd") or ()) if args is None else args
    whole = (*entrypoint, *(args or ()))
    if not whole:
        raise Invalid(f"{container.image} has no command: give one after the service's name")
    return whole


async def _create(scope: Scope, spec: ServiceSpec) -> Service:
    made = await scope.client.create(spec, resolve_image="never")
    assert isinstance(made, Service), "the manager answers with what it made"
    return made


async def _finish(scope: Scope, made: Service, options: Mapping[str, Any], work: Any) -> int:
    """The exit code of `work`; the container goes afterwards with --rm, and when it was interrupted."""
    loop = asyncio.get_running_loop()
    running = asyncio.ensure_future(work)
    interrupted: list[int] = []

    def stop(number: int) -> None:
        interrupted.append(number)
        running.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        return int(await running)
    except asyncio.CancelledError:
        if not interrupted:
            raise
        return 128 + interrupted[0]
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        if options["remove"] or interrupted:
            with contextlib.suppress(NotFound):
                await scope.client.remove("service", made.id)


async def _task_of(scope: Scope, made: Service) -> Task | None:
    """The one-off's task, once there is one. Raises NotStarted for what cannot start."""
    await scope.refresh()
    problems = [text for text in blocked(scope.services, scope.tasks) if made.spec.depends_on and text]
    if problems:
        raise NotStarted("\n".join(problems))
    found = containers([made], [each for each in scope.tasks if each.service_id == made.id])
    if not found:
        return None
    task = found[0].task
    if stage(task) == "failed" or (
        not alive(task.status.state) and task.status.exit_code is None and task.status.err
    ):
        raise NotStarted(f"container {made.spec.name}: {task.status.err or 'could not be started'}")
    return task


async def _plain(scope: Scope, made: Service) -> int:
    """Show the log until the container ends."""
    following = Following(scope.client, LogsRequest(services=(made.id,), follow=True), _raw)
    try:
        while True:
            task = await _task_of(scope, made)
            if task is not None and not alive(task.status.state):
                await following.drain()
                return exit_code(task)
            await asyncio.sleep(POLL)
    finally:
        await following.close()


def _raw(message: LogMessage) -> None:
    if message.warning:
        note(message.warning)
        return
    out = sys.stderr.buffer if message.stream == "stderr" else sys.stdout.buffer
    out.write(message.data if message.data.endswith(b"\n") else message.data + b"\n")
    out.flush()


async def _held(scope: Scope, made: Service, spec: ServiceSpec, command: tuple[str, ...], tty: bool) -> int:
    """Run the command beside the sleeping process, this process's input and output attached."""
    from pyswarm.cli.execute import attach

    while True:
        try:
            task = await _task_of(scope, made)
        except NotStarted as error:
            text = f"{error} (a command that reads input needs `sleep` in the image: give it </dev/null)"
            raise NotStarted(text) from None
        if task is not None and stage(task) == "healthy":
            break
        if task is not None and not alive(task.status.state):
            raise NotStarted(
                f"container {made.spec.name} ended with code {exit_code(task)}: has the image `sleep`?"
            )
        await asyncio.sleep(POLL)
    size = shutil.get_terminal_size()
    start = ExecStart(
        task=task.id,
        argv=command,
        user=spec.task.container.user,
        working_dir=spec.task.container.dir,
        tty=tty,
        stdin=True,
        rows=size.lines if tty else 0,
        cols=size.columns if tty else 0,
    )
    try:
        return await attach(scope.client, start)
    finally:
        with contextlib.suppress(NotFound):
            await nodes.ask(
                scope.client, "task.kill", {"task": task.id, "signal": "SIGKILL"}, node=task.node_id
            )
