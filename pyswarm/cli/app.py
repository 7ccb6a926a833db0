"""What every command starts from: the global options, the connection they name, and output."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click

from pyswarm.errors import Invalid, Unavailable, Untrusted

if TYPE_CHECKING:
    from pyswarm.client import Client
    from pyswarm.clock import Clock

P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_STATE_DIR = "/var/lib/pyswarm"
DEFAULT_RUN_DIR = "/run/pyswarm"
SOCKET_NAME = "pyswarm.sock"
"""The manager's local socket, in the run directory."""


def _clock() -> Clock:
    from pyswarm.clock import SystemClock

    return SystemClock()


@dataclass(slots=True)
class App:
    """The global options as given; `context` and `host` exclude each other, host wins over environment."""

    host: str = ""
    context: str = ""
    debug: bool = False
    log_level: str = "warning"
    state_dir: Path = Path(DEFAULT_STATE_DIR)
    run_dir: Path = Path(DEFAULT_RUN_DIR)
    clock: Clock = field(default_factory=_clock)

    @property
    def socket(self) -> Path:
        return self.run_dir / SOCKET_NAME

    def now(self) -> float:
        return self.clock.now()

    def client(self) -> Client:
        """A connection to the manager that the options, the environment or the current context name."""
        from pyswarm.cli import contexts

        if self.host:
            return _connect(self.host, contexts.tls_of(self.context) if self.context else None)
        name = self.context or contexts.current()
        if name == contexts.DEFAULT:
            return self._local()
        return _connect(contexts.load(name).host, contexts.tls_of(name))

    def _local(self) -> Client:
        """This node's manager. Where nobody else starts it, this does; where it should run and does not, the error
        says what its log says."""
        from pyswarm.client import Client
        from pyswarm.errors import Unavailable

        if os.geteuid() == 0 and not self.socket.exists() and (self.state_dir / "node.json").exists():
            from pyswarm import daemon

            if daemon.bring_back(self.state_dir):
                warn("pyswarm's daemons did not run on this node: started them")
        try:
            return Client.local(self.socket)
        except Unavailable:
            words = self._last_words()
            if not words:
                raise
            raise Unavailable(f"this node's manager does not run: {words}") from None

    def _last_words(self) -> str:
        """The error in the last line of the manager's log; "" where there is no log, or this user may not read it."""
        log = self.state_dir / "log" / "manager.log"
        try:
            if not (self.state_dir / "node.json").exists():
                return ""
            lines = log.read_bytes()[-8192:].decode(errors="replace").strip().splitlines()
        except OSError:
            return ""
        _, _, text = (lines[-1] if lines else "").partition(" error ")
        return text or f"it starts, or was stopped: try again in a moment, and see {log}"

    def run(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """`work` with a connection, in an event loop of its own."""
        return asyncio.run(self._with_client(work))

    async def _with_client(self, work: Callable[[Client], Awaitable[T]]) -> T:
        async with self.client() as client:
            try:
                return await work(client)
            except Unavailable as error:
                raise _named(error, client.target) from None


def _named(error: Unavailable, target: str) -> Unavailable:
    """gRPC's own words for a manager that cannot be reached, with the manager's address before them."""
    if not str(error).startswith("failed to connect"):
        return error
    address = target.rpartition("///")[2].removeprefix("ipv4:").removeprefix("ipv6:")
    if isinstance(error, Untrusted):
        return Unavailable(
            f"the manager at {address} is not of the root CA that this context was made with: if that was replaced "
            "(`pyswarm ca --rotate`), make the context anew with `pyswarm context export` on a manager; if not, "
            "somebody is in between"
        )
    return Unavailable(
        f"cannot connect to a manager at {address}: is it running, and the port open? ({error})"
    )


def _connect(host: str, tls: Any) -> Client:
    from pyswarm.client import Client

    scheme, separator, rest = host.partition("://")
    if not separator:
        scheme, rest = "tcp", host
    if scheme == "unix":
        return Client.local(Path(rest))
    if scheme != "tcp" or not rest:
        raise Invalid(f"invalid host {host!r}: write unix:///path/to/socket or tcp://address:port")
    if tls is None:
        raise Invalid(
            f"{host}: a far manager needs a client certificate: make a context for it with "
            "`pyswarm context create` and name that with --context"
        )
    return Client(_target(rest), tls=tls)


def _target(addresses: str) -> str:
    """gRPC's name for `host:port[,host:port...]`."""
    import ipaddress

    first = addresses.split(",")[0].rpartition(":")[0].strip("[]")
    try:
        version = ipaddress.ip_address(first).version
    except ValueError:
        return f"dns:///{addresses}"
    return f"ipv{version}:{addresses}"


def connected(
    command: Callable[Concatenate[App, Client, P], Awaitable[None]],
) -> Callable[P, None]:
    """Turn a coroutine of (app, client, options...) into a click callback."""

    @functools.wraps(command)
    def callback(*args: P.args, **kwargs: P.kwargs) -> None:
        app = click.get_current_context().find_object(App)
        assert app is not None, "main() puts it there"

        async def work(client: Client) -> None:
            await command(app, client, *args, **kwargs)

        app.run(work)

    return callback


def current_app() -> App:
    """The App of the command that is running."""
    app = click.get_current_context().find_object(App)
    assert app is not None, "main() puts it there"
    return app


def warn(text: str) -> None:
    """One line on standard error."""
    click.echo(text, err=True)


def is_terminal() -> bool:
    """Whether standard error and output are a terminal that can be redrawn."""
    return os.isatty(1) and os.environ.get("TERM", "dumb") != "dumb"


filter_option = click.option(
    "-f", "--filter", "filters", multiple=True, metavar="KEY=VALUE", help="Only what matches."
)
prune_filter_option = click.option(
    "--filter", "filters", multiple=True, metavar="KEY=VALUE", help="Only what matches."
)
format_option = click.option(
    "--format", default="", metavar="FORMAT", help="table, json, yaml, 'table TEMPLATE' or a Go template."
)
inspect_format_option = click.option(
    "-f", "--format", default="", metavar="FORMAT", help="json, yaml or a Go template."
)
no_trunc_option = click.option("--no-trunc", is_flag=True, help="Do not cut ids and texts short.")


def quiet_option(help: str = "Only display IDs.") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option("-q", "--quiet", is_flag=True, help=help)


def task_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What every list of tasks takes: filters, and how the rows are shown (see `service.show_tasks`)."""
    for option in (
        quiet_option("Only display task IDs."),
        no_trunc_option,
        click.option("--no-resolve", is_flag=True, help="Do not map IDs to Names."),
        format_option,
        filter_option,
    ):
        command = option(command)
    return command
