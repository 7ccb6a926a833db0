"""`pyswarm exec`: a command in a running task, on whichever node it is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import termios
import threading
import tty
from collections.abc import AsyncIterator, Generator
from typing import TYPE_CHECKING

import click

from pyswarm.api import ExecInputMessage, ExecStart
from pyswarm.cli import values
from pyswarm.cli.app import App, current_app
from pyswarm.cli.completion import complete
from pyswarm.cli.lazy import GoCommand
from pyswarm.errors import Conflict, Invalid, NotFound
from pyswarm.objects import Service, Task, TaskState

if TYPE_CHECKING:
    from pyswarm.client import Client


DETACH_KEYS = "ctrl-p,ctrl-q"


class Keys:
    """The keys that detach from a terminal, among what is typed."""

    def __init__(self, text: str) -> None:
        """docker's words for them: `ctrl-p,ctrl-q`, `a,b`. Raises Invalid."""
        self._sequence = bytes(_key(word) for word in text.split(","))
        self._typed = 0
        self.complete = False
        """Whether they were typed."""

    def passed(self, data: bytes) -> bytes:
        """What goes on to the command of what was typed: not the keys, nor a beginning of them until it is known
        to be none."""
        out = bytearray()
        for byte in data:
            if byte != self._sequence[self._typed]:
                out += self._sequence[: self._typed]
                self._typed = 0
                if byte != self._sequence[0]:
                    out.append(byte)
                    continue
            self._typed += 1
            if self._typed == len(self._sequence):
                self.complete = True
                return bytes(out)
        return bytes(out)


def _key(word: str) -> int:
    """The byte that a key sends."""
    name = word.strip()
    control = name.removeprefix("ctrl-")
    if name != control and len(control) == 1 and control in "@abcdefghijklmnopqrstuvwxyz[\\]^_":
        return ord(control.upper()) & 0x1F
    if len(name) != 1 or not name.isascii():
        raise Invalid(
            f"unknown key {word!r} in --detach-keys: write a letter, or ctrl- and one of a-z @[\\]^_"
        )
    return ord(name)


@click.command(
    "exec",
    cls=GoCommand,
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": False},
)
@click.option("-d", "--detach", is_flag=True, help="Detached mode: run command in the background.")
@click.option(
    "--detach-keys",
    default=DETACH_KEYS,
    show_default=True,
    metavar="KEYS",
    help="Keys that leave a command with -it to itself.",
)
@click.option("-e", "--env", multiple=True, help="Set environment variables.")
@click.option("--env-file", multiple=True, help="Read in a file of environment variables.")
@click.option("-i", "--interactive", is_flag=True, help="Keep STDIN open even if not attached.")
@click.option("--privileged", is_flag=True, help="Give extended privileges to the command.")
@click.option("-t", "--tty", is_flag=True, help="Allocate a pseudo-TTY.")
@click.option("-u", "--user", default="", help="Username or UID (format: <name|uid>[:<group|gid>]).")
@click.option("-w", "--workdir", default="", help="Working directory inside the container.")
@click.argument("name", metavar="TASK|SERVICE[.N]", shell_complete=complete("task"))
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND [ARG]...")
@click.pass_context
def exec_command(
    ctx: click.Context,
    detach: bool,
    detach_keys: str,
    env: tuple[str, ...],
    env_file: tuple[str, ...],
    interactive: bool,
    privileged: bool,
    tty: bool,
    user: str,
    workdir: str,
    name: str,
    argv: tuple[str, ...],
) -> None:
    """Execute a command in a running task.

    SERVICE.N is the service's N-th task; SERVICE alone is one of those that run.
    """
    if tty and not detach and not sys.stdin.isatty():
        raise Invalid("the input device is not a TTY: leave out -t")
    app: App = current_app()
    keys = Keys(detach_keys)
    size = shutil.get_terminal_size()

    async def work(client: Client) -> int:
        task = await running_task(client, name)
        start = ExecStart(
            task=task.id,
            argv=argv,
            env=values.environment(env, env_file, os.environ),
            user=user,
            working_dir=workdir,
            tty=tty,
            stdin=interactive and not detach,
            privileged=privileged,
            rows=size.lines if tty else 0,
            cols=size.columns if tty else 0,
        )
        return await attach(client, start, keys, detach=detach)

    ctx.exit(app.run(work))


async def running_task(client: Client, name: str) -> Task:
    """The task by id or name, or the first one of a service that runs. Raises NotFound, Conflict."""
    try:
        task = await client.get(Task, name)
    except NotFound:
        try:
            service = await client.get(Service, name)
        except NotFound:
            raise NotFound(f"no such task or service: {name}") from None
        tasks = await client.tasks([("service", service.id), ("desired-state", "running")])
        running = [each for each in tasks if each.status.state == TaskState.RUNNING]
        if not running:
            raise Conflict(f"service {name} has no running task") from None
        return min(running, key=lambda each: (each.slot, each.id))
    if task.status.state != TaskState.RUNNING:
        raise Conflict(f"task {name} is not running: it is {task.status.state.name.lower()}")
    return task


@contextlib.contextmanager
def _raw(enabled: bool) -> Generator[None]:
    """The terminal without echo and line editing, as it was afterwards."""
    if not enabled:
        yield
        return
    before = termios.tcgetattr(0)
    try:
        tty.setraw(0, termios.TCSANOW)  # the default would throw away what was typed ahead
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


async def attach(client: Client, start: ExecStart, keys: Keys | None = None, *, detach: bool = False) -> int:
    """Run the command with this process's streams; returns its exit code. With `detach`, or when the `keys` are
    typed on a terminal, it is left to itself."""
    queue: asyncio.Queue[ExecInputMessage | None] = asyncio.Queue(64)
    loop = asyncio.get_running_loop()
    if detach:
        queue.put_nowait(ExecInputMessage(kind="detach"))
    if start.stdin:
        typed = (keys or Keys(DETACH_KEYS)) if start.tty else None
        threading.Thread(target=_pump, args=(loop, queue, typed), daemon=True).start()
    if start.tty:
        loop.add_signal_handler(signal.SIGWINCH, _resize, queue)
    code = 0
    with _raw(start.tty and start.stdin):
        try:
            async with contextlib.aclosing(client.exec(_inputs(start, queue))) as messages:
                async for message in messages:
                    if message.kind == "exit":
                        code = int(message.data or b"0")
                        break
                    out = sys.stderr.buffer if message.kind == "stderr" else sys.stdout.buffer
                    out.write(message.data)
                    out.flush()
        finally:
            if start.tty:
                loop.remove_signal_handler(signal.SIGWINCH)
    if keys is not None and keys.complete:
        raise Conflict("read escape sequence: the command goes on without you")
    return code


async def _inputs(
    start: ExecStart, queue: asyncio.Queue[ExecInputMessage | None]
) -> AsyncIterator[ExecInputMessage]:
    yield ExecInputMessage(start=start, kind="start")
    while True:
        message = await queue.get()
        if message is None:
            yield ExecInputMessage(kind="eof")
            continue
        yield message


def _pump(
    loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[ExecInputMessage | None], keys: Keys | None
) -> None:
    """Standard input into the queue, from a thread of its own: a regular file cannot be waited for."""

    def put(message: ExecInputMessage | None) -> None:
        asyncio.run_coroutine_threadsafe(queue.put(message), loop).result()

    with contextlib.suppress(RuntimeError):
        while data := os.read(0, 32 * 1024):
            data = keys.passed(data) if keys is not None else data
            if data:
                put(ExecInputMessage(kind="stdin", data=data))
            if keys is not None and keys.complete:
                put(ExecInputMessage(kind="detach"))
                return
        put(None)


def _resize(queue: asyncio.Queue[ExecInputMessage | None]) -> None:
    size = shutil.get_terminal_size()
    message = ExecInputMessage(kind="resize", data=f"{size.lines}x{size.columns}".encode())
    with contextlib.suppress(asyncio.QueueFull):
        queue.put_nowait(message)
