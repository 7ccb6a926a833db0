"""`pyswarm compose exec`, `attach` and `run`: a command in a container that runs, or in one made for it.

A one-off is a service with one task, whose process is the command. In the foreground the node holds the process back
until this client is at its streams, so that it sees all output and the process all input.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from pyswarm.api import ExecInputMessage, ExecStart
from pyswarm.cli import compose_local as local
from pyswarm.cli import nodes, values
from pyswarm.cli.compose_provider import given, providers
from pyswarm.cli.compose_provider import run as provide
from pyswarm.cli.compose_session import ComposeCommand, Scope, in_project, note, say, settings, specs_of
from pyswarm.cli.compose_state import containers, exit_code, stage
from pyswarm.cli.compose_wait import POLL, NotStarted, blocked
from pyswarm.errors import Conflict, Invalid, NotFound, PyswarmError
from pyswarm.objects import Service, Task, TaskState, alive
from pyswarm.specs import Mount, ServiceSpec

if TYPE_CHECKING:
    from compose.convert import StackSpecs
    from compose.project import Project
    from pyswarm.client import Client

CHUNK = 64 * 1024


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
    async with contextlib.aclosing(client.exec(_fed(start, stdin))) as messages:
        async for message in messages:
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
    if not options["no_deps"] and (found := providers(project, [service])):
        whole = given(replace(specs, services=(base,)), project, await provide(project, found, "up"))
        base = whole.services[0]
        needed -= set(found)
    if settings().progress == "auto" and options["quiet"]:
        settings().progress = "quiet"
    if needed and not options["no_deps"]:
        await bring(
            scope, local.only(specs, needed), {**_DEFAULTS, "remove_orphans": options["remove_orphans"]}
        )
    else:
        await _resources(scope, specs)
    tty = not options["no_tty"] and not options["detach"] and terminals()
    stdin = not options["detach"] and bool(options["interactive"]) and (tty or has_input())
    spec = local.one_off(base, project.name, _wanted(scope, project, service, argv, options, tty, stdin))
    if not options["no_deps"]:
        spec = replace(spec, depends_on=base.depends_on)
    say("Container", spec.name, "Creating")
    if settings().dry_run:
        return 0
    made = await _create(scope, spec)
    if options["detach"]:
        click.echo(made.spec.name)
        return 0
    return await _Foreground(scope, made, tty, stdin).run(remove=bool(options["remove"]))


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
    """Whether there is a standard input at all."""
    try:
        os.fstat(0)
    except OSError:
        return False
    return True


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
    scope: Scope,
    project: Project,
    service: str,
    argv: tuple[str, ...],
    options: Mapping[str, Any],
    tty: bool,
    stdin: bool,
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
        tty=tty,
        stdin=stdin,
        attached=not options["detach"],
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


async def _create(scope: Scope, spec: ServiceSpec) -> Service:
    made = await scope.client.create(spec, resolve_image="never")
    assert isinstance(made, Service), "the manager answers with what it made"
    return made


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


class _Foreground:
    """A one-off with this process's streams at it."""

    def __init__(self, scope: Scope, made: Service, tty: bool, stdin: bool) -> None:
        self._scope = scope
        self._made = made
        self._tty = tty
        self._stdin = stdin
        self._task: Task | None = None
        self._interrupts = 0
        self._sending: set[asyncio.Task[None]] = set()

    async def run(self, *, remove: bool) -> int:
        """The command's exit code. The container goes with `remove`, and when it never came to life. The first
        SIGINT or SIGTERM is passed on to the command, the second one kills it."""
        loop = asyncio.get_running_loop()
        work = asyncio.ensure_future(self._work())
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupted, number, work)
        ended = False
        try:
            code = int(await work)
            ended = True
            return code
        except _LeftToItselfError:
            remove = False
            ended = True
            note(f"container {self._made.spec.name} goes on without you")
            return 0
        except asyncio.CancelledError:
            if not self._interrupts:
                raise
            return 128 + signal.SIGINT
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
            for each in self._sending:
                each.cancel()
            if remove or not ended:
                with contextlib.suppress(NotFound):
                    await self._scope.client.remove("service", self._made.id)

    def _interrupted(self, number: int, work: asyncio.Future[int]) -> None:
        self._interrupts += 1
        if self._task is None or self._interrupts > 1:
            work.cancel()
            return
        task = asyncio.ensure_future(self._send(signal.Signals(number).name, self._task))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, name: str, task: Task) -> None:
        with contextlib.suppress(PyswarmError):
            await nodes.ask(
                self._scope.client, "task.kill", {"task": task.id, "signal": name}, node=task.node_id
            )

    async def _work(self) -> int:
        while True:
            task = await _task_of(self._scope, self._made)
            if task is not None and task.status.state >= TaskState.STARTING:
                break
            await asyncio.sleep(POLL)
        if not alive(task.status.state):
            return exit_code(task)
        self._task = task
        streams = asyncio.ensure_future(self._attached(task))
        failure = asyncio.ensure_future(self._failed())
        try:
            await asyncio.wait((streams, failure), return_when=asyncio.FIRST_COMPLETED)
            return await (streams if streams.done() else failure)
        finally:
            for each in (streams, failure):
                each.cancel()
            await asyncio.gather(streams, failure, return_exceptions=True)

    async def _failed(self) -> int:
        """Raise NotStarted when the container cannot be made; else wait for ever."""
        while True:
            task = await _task_of(self._scope, self._made)
            if task is not None and task.status.state >= TaskState.RUNNING:
                await asyncio.Event().wait()
            await asyncio.sleep(POLL)

    async def _attached(self, task: Task) -> int:
        from pyswarm.cli.execute import DETACH_KEYS, Keys, attach

        size = shutil.get_terminal_size()
        start = ExecStart(
            task=task.id,
            attach=True,
            tty=self._tty,
            stdin=self._stdin,
            rows=size.lines if self._tty else 0,
            cols=size.columns if self._tty else 0,
        )
        keys = Keys(DETACH_KEYS)
        try:
            return await attach(self._scope.client, start, keys)
        except Conflict:
            if keys.complete:
                raise _LeftToItselfError from None
            raise


class _LeftToItselfError(Exception):
    """The detach keys were typed."""


# ------------------------------------------------------------------------------------------- attach


@click.command("attach", cls=ComposeCommand)
@click.option("--detach-keys", default="ctrl-p,ctrl-q", help="Override the key sequence for detaching.")
@click.option("--index", type=int, default=0, help="Index of the container if service has multiple replicas.")
@click.option("--no-stdin", is_flag=True, help="Do not attach STDIN.")
@click.option("--sig-proxy/--no-sig-proxy", default=True, help="Proxy all received signals to the process.")
@click.argument("name", metavar="SERVICE")
@in_project()
async def attach_command(
    scope: Scope, detach_keys: str, index: int, no_stdin: bool, sig_proxy: bool, name: str
) -> int:
    """Attach local standard input, output, and error streams to a service's running container."""
    from pyswarm.cli.compose_look import running
    from pyswarm.cli.execute import Keys, attach

    task = running(scope, name, index)
    container = task.spec.container
    tty = container.tty and terminals()
    size = shutil.get_terminal_size()
    start = ExecStart(
        task=task.id,
        attach=True,
        tty=tty,
        stdin=container.open_stdin and not no_stdin,
        rows=size.lines if tty else 0,
        cols=size.columns if tty else 0,
    )
    loop = asyncio.get_running_loop()
    sending: set[asyncio.Future[object]] = set()

    def proxy(number: int) -> None:
        question = {"task": task.id, "signal": signal.Signals(number).name}
        sending.add(asyncio.ensure_future(nodes.ask(scope.client, "task.kill", question, node=task.node_id)))

    if sig_proxy:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, proxy, number)
    try:
        return await attach(scope.client, start, Keys(detach_keys))
    finally:
        if sig_proxy:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                loop.remove_signal_handler(number)
        await asyncio.gather(*sending, return_exceptions=True)
