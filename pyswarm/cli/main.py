"""`pyswarm`: the root command, the global options, and errors as text and exit codes.

Exit codes: 0, 1 for what went wrong, 2 for wrong usage, 130 for an interrupt; `exec` passes on its command's.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from pyswarm.cli.lazy import Entry, LazyGroup

_MAIN, _NOUNS, _ALONE = "Common Commands", "Management Commands", "Commands"
_ENTRIES = {
    "init": Entry("pyswarm.cli.cluster:init", "Start a cluster on this machine", _MAIN),
    "join": Entry("pyswarm.cli.cluster:join", "Join a cluster as a worker or a manager", _MAIN),
    "start": Entry("pyswarm.cli.cluster:start", "Start the daemons of this node after a reboot", _MAIN),
    "leave": Entry("pyswarm.cli.cluster:leave", "Leave the cluster", _MAIN),
    "backup": Entry("pyswarm.cli.backup:backup", "Save the cluster's state in a file", _MAIN),
    "restore": Entry("pyswarm.cli.backup:restore", "Start a cluster from a backup", _MAIN),
    "join-token": Entry("pyswarm.cli.cluster:join_token", "Show or rotate the join tokens", _MAIN),
    "ca": Entry("pyswarm.cli.trust:ca", "Show or replace the root CA", _MAIN),
    "unlock": Entry("pyswarm.cli.trust:unlock", "Unlock this machine's manager", _MAIN),
    "unlock-key": Entry("pyswarm.cli.trust:unlock_key", "Show or rotate the unlock key", _MAIN),
    "ps": Entry("pyswarm.cli.task:ps", "List the cluster's containers", _MAIN),
    "logs": Entry("pyswarm.cli.logs:logs", "Fetch the logs of a service or task", _MAIN),
    "exec": Entry("pyswarm.cli.execute:exec_command", "Execute a command in a running task", _MAIN),
    "events": Entry("pyswarm.cli.events:events", "Get real time events from the cluster", _MAIN),
    "login": Entry("pyswarm.cli.registry:login", "Authenticate to a registry", _MAIN),
    "logout": Entry("pyswarm.cli.registry:logout", "Log out from a registry", _MAIN),
    "info": Entry("pyswarm.cli.cluster:info", "Display information about the cluster", _MAIN),
    "version": Entry("pyswarm.cli.cluster:version", "Show the version information", _MAIN),
    "completion": Entry("pyswarm.cli.completion:completion", "Print a shell completion script", _MAIN),
    "stack": Entry("pyswarm.cli.stack:stack", "Manage stacks", _NOUNS),
    "service": Entry("pyswarm.cli.service:service", "Manage services", _NOUNS),
    "task": Entry("pyswarm.cli.task:task", "Manage tasks", _NOUNS),
    "node": Entry("pyswarm.cli.node:node", "Manage nodes", _NOUNS),
    "network": Entry("pyswarm.cli.network:network", "Manage networks", _NOUNS),
    "volume": Entry("pyswarm.cli.volume:volume", "Manage volumes", _NOUNS),
    "secret": Entry("pyswarm.cli.secret:secret", "Manage secrets", _NOUNS),
    "config": Entry("pyswarm.cli.config:config", "Manage configs", _NOUNS),
    "image": Entry("pyswarm.cli.image:image", "Manage the images of the nodes", _NOUNS),
    "compose": Entry("pyswarm.cli.compose:compose", "Run a Compose project on one node", _NOUNS),
    "context": Entry("pyswarm.cli.context:context", "Manage connections to clusters", _NOUNS),
    "swarm": Entry("pyswarm.cli.swarm:swarm", "Manage the cluster: update, ca, init, join ...", _NOUNS),
    "lab": Entry("pyswarm.cli.lab:lab", "Make a cluster of many machines on this one", _NOUNS),
    "system": Entry("pyswarm.cli.system:system", "Manage the cluster as a whole", _NOUNS),
    "container": Entry("pyswarm.cli.container:container", "Look into the cluster's containers", _NOUNS),
    "build": Entry("pyswarm.cli.image:build", "Build an image from a Dockerfile", _ALONE),
    "history": Entry("pyswarm.cli.image_files:history", "Show the history of an image", _ALONE),
    "images": Entry("pyswarm.cli.image:list_images", "List images", _ALONE),
    "inspect": Entry("pyswarm.cli.inspect_any:inspect", "Return low-level information on any object", _ALONE),
    "kill": Entry("pyswarm.cli.container:kill", "Send a signal to containers", _ALONE),
    "load": Entry("pyswarm.cli.image_files:load", "Load an image from a tar archive or stdin", _ALONE),
    "pull": Entry("pyswarm.cli.image:pull", "Download an image from a registry", _ALONE),
    "push": Entry("pyswarm.cli.image:push", "Upload an image to a registry", _ALONE),
    "rmi": Entry("pyswarm.cli.image:remove", "Remove one or more images", _ALONE),
    "save": Entry("pyswarm.cli.image_files:save", "Save images to a tar archive", _ALONE),
    "stats": Entry("pyswarm.cli.container:stats", "Display what containers use", _ALONE),
    "tag": Entry("pyswarm.cli.image:tag", "Give an image another name", _ALONE),
}
_ALIASES = {
    name: f"container {name}"
    for name in (
        *("attach", "commit", "create", "pause", "restart", "rm", "run"),
        *("start", "stop", "unpause", "update"),
    )
}
"""Refused with the reason."""
_LEVELS = ("debug", "info", "warning", "error", "fatal")


@click.group(
    cls=LazyGroup,
    entries=_ENTRIES,
    aliases=_ALIASES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option("-c", "--context", default="", envvar="PYSWARM_CONTEXT", help="Connection to use.")
@click.option(
    "-H", "--host", default="", envvar="PYSWARM_HOST", help="Manager: unix:///path or tcp://host:port."
)
@click.option("-D", "--debug", is_flag=True, help="Show where an error came from.")
@click.option("-l", "--log-level", default="warning", type=click.Choice(_LEVELS), help="Logging level.")
@click.option("--state-dir", default="", envvar="PYSWARM_STATE_DIR", hidden=True)
@click.option("--run-dir", default="", envvar="PYSWARM_RUN_DIR", hidden=True)
@click.version_option(None, "-v", "--version", package_name="pyswarm", message="pyswarm version %(version)s")
@click.pass_context
def cli(
    ctx: click.Context, context: str, host: str, debug: bool, log_level: str, state_dir: str, run_dir: str
) -> None:
    """Compose files on a cluster of Linux machines."""
    from pyswarm.cli.app import DEFAULT_RUN_DIR, DEFAULT_STATE_DIR, App

    if ctx.obj is None:
        ctx.obj = App()
    app = ctx.find_object(App)
    assert app is not None, "set above"
    app.context, app.host, app.debug, app.log_level = context, host, debug, log_level
    app.state_dir = Path(state_dir or DEFAULT_STATE_DIR)
    app.run_dir = Path(run_dir or DEFAULT_RUN_DIR)
    if debug or log_level != "warning":
        import logging

        logging.basicConfig(level=logging.DEBUG if debug else _python_level(log_level))


def _python_level(name: str) -> int:
    import logging

    return {"fatal": logging.CRITICAL}.get(name) or logging.getLevelNamesMapping()[name.upper()]


def main(args: Sequence[str] | None = None) -> NoReturn:
    """The console script."""
    sys.exit(run(sys.argv[1:] if args is None else list(args)))


def run(args: Sequence[str], obj: object = None) -> int:
    """One command line; returns its exit code."""
    try:
        result = cli.main(list(args), prog_name="pyswarm", standalone_mode=False, obj=obj)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.UsageError as error:
        error.show()
        return 2
    except click.ClickException as error:
        error.show()
        return 1
    except (click.Abort, KeyboardInterrupt):
        click.echo("", err=True)
        return 130
    except BrokenPipeError:
        # The reader of our output went away; keep the interpreter from complaining when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return _failed(error, debug="-D" in args or "--debug" in args)


_DISK_TROUBLE = {
    errno.ENOSPC: ": free some space and try again",
    errno.EROFS: ": see the kernel's log (`dmesg`), repair the disk and mount it again",
}
"""What to do about errors that are no program's fault."""


def _failed(error: Exception, debug: bool) -> int:
    """An error as lines on standard error. One that pyswarm did not raise on purpose names its class."""
    from pyswarm.errors import PyswarmError

    if debug:
        import traceback

        traceback.print_exception(error)
    for each in _flattened(error):
        if isinstance(each, PyswarmError):
            click.echo(_line(str(each)), err=True)
        elif isinstance(each, OSError):
            where, hint = (
                (f"{each.filename}: " if each.filename else ""),
                _DISK_TROUBLE.get(each.errno or 0, ""),
            )
            click.echo(f"Error: {where}{each.strerror or each}{hint}", err=True)
        else:
            text = f"Error: {type(each).__name__}: {each} (a bug in pyswarm; --debug shows where)"
            click.echo(text, err=True)
    return 1


def _flattened(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in _flattened(each)]
    return [error]


def _line(message: str) -> str:
    if message.startswith("no such "):
        message = "N" + message[1:]
    return f"Error: {message}" if not message.startswith("template ") else message


if __name__ == "__main__":
    main()
