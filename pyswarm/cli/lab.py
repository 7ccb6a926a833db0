"""`pyswarm lab`: up, down, ls, exec, kill, start, partition, heal, logs: a cluster of many machines on this one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyswarm.cli.app import format_option
from pyswarm.cli.lazy import GoCommand, LazyGroup
from pyswarm.cli.table import Layout, formatted, row

if TYPE_CHECKING:
    from pyswarm.lab import Lab, Machine

LAYOUT = Layout(
    columns=("Name", "Role", "Address", "State", "Daemons", "CutOff"),
    headers={
        "Name": "NAME",
        "Role": "ROLE",
        "Address": "ADDRESS",
        "State": "STATE",
        "Daemons": "DAEMONS",
        "CutOff": "CUT OFF FROM",
        "StateDir": "STATE DIR",
        "RunDir": "RUN DIR",
    },
    quiet="Name",
)


def _lab_option(command: Any) -> Any:  # Any: click's decorators take and return any callable
    command = click.option(
        "--lab-dir",
        "directory",
        default=None,
        type=click.Path(file_okay=False, path_type=Path),
        envvar="PYSWARM_LAB_DIR",
        help="Where its files are (/var/lib/pyswarm-lab/NAME).",
    )(command)
    return click.option(
        "--lab", "name", default="lab", show_default=True, envvar="PYSWARM_LAB", help="Name of the lab."
    )(command)


def _load(name: str, directory: Path | None) -> Lab:
    from pyswarm.lab import Lab

    return Lab.load(name, directory)


@click.group(cls=LazyGroup)
def lab() -> None:
    """Make a cluster of many machines on this one: each is a network namespace with files of its own."""


@lab.command(cls=GoCommand)
@_lab_option
@click.option(
    "--managers", type=click.IntRange(1), default=1, show_default=True, help="Machines that manage."
)
@click.option(
    "--workers", type=click.IntRange(0), default=2, show_default=True, help="Machines that only work."
)
@click.option("--subnet", default="198.18.97.0/24", show_default=True, help="The machines' network.")
@click.option("--internet", is_flag=True, help="Let the machines reach the internet through this one.")
@click.option("--no-join", is_flag=True, help="Only make the machines: no cluster.")
def up(
    name: str,
    directory: Path | None,
    managers: int,
    workers: int,
    subnet: str,
    internet: bool,
    no_join: bool,
) -> None:
    """Make the machines, and a cluster of them."""
    from pyswarm.lab import Lab

    made = Lab.up(
        name=name,
        directory=directory,
        managers=managers,
        workers=workers,
        subnet=subnet,
        internet=internet,
        join=not no_join,
    )
    click.echo(_table(made, "", False), nl=False)
    click.echo("\nTry: pyswarm lab exec m1 pyswarm node ls")


@lab.command(cls=GoCommand)
@_lab_option
def down(name: str, directory: Path | None) -> None:
    """Take the lab away: processes, namespaces, links, files, all of it."""
    _load(name, directory).down()


@lab.command(cls=GoCommand)
@_lab_option
@click.option("-q", "--quiet", is_flag=True, help="Only display names.")
@format_option
def ls(name: str, directory: Path | None, quiet: bool, format: str) -> None:
    """List the lab's machines."""
    click.echo(_table(_load(name, directory), format, quiet), nl=False)


def _table(found: Lab, format: str, quiet: bool) -> str:
    return formatted([_row(found, machine) for machine in found.machines], LAYOUT, format, quiet)


def _row(found: Lab, machine: Machine) -> Any:
    daemons = machine.daemons()
    state = "up" if daemons else "bare" if not (machine.state / "node.json").exists() else "dead"
    return row(
        Name=machine.name,
        Role=machine.role,
        Address=machine.address,
        State=state if machine.connected else f"{state}, unplugged",
        Daemons=",".join(daemons),
        CutOff=",".join(found.cuts(machine)),
        StateDir=str(machine.state),
        RunDir=str(machine.run),
    )


@lab.command(
    "exec", cls=GoCommand, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@_lab_option
@click.argument("machine")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_command(name: str, directory: Path | None, machine: str, command: tuple[str, ...]) -> None:
    """Run a command on a machine, as `pyswarm lab exec w1 pyswarm leave`."""
    found = _load(name, directory).machine(machine)
    argv = found.argv(command)
    os.execvpe(argv[0], argv, found.environment)


@lab.command(cls=GoCommand)
@_lab_option
@click.argument("machine", nargs=-1, required=True)
def kill(name: str, directory: Path | None, machine: tuple[str, ...]) -> None:
    """A machine is gone: cable out, every process killed."""
    found = _load(name, directory)
    for each in [found.machine(which) for which in machine]:
        each.kill()
        click.echo(each.name)


@lab.command(cls=GoCommand)
@_lab_option
@click.argument("machine", nargs=-1, required=True)
def start(name: str, directory: Path | None, machine: tuple[str, ...]) -> None:
    """Boot machines that were killed: they have their disks and nothing else."""
    found = _load(name, directory)
    for each in [found.machine(which) for which in machine]:
        each.start()
        click.echo(each.name)


@lab.command(cls=GoCommand)
@_lab_option
@click.option("--one-way", is_flag=True, help="Only what A sends to B is lost.")
@click.argument("a")
@click.argument("b")
def partition(name: str, directory: Path | None, one_way: bool, a: str, b: str) -> None:
    """Cut the connection between two machines."""
    found = _load(name, directory)
    found.partition(found.machine(a), found.machine(b), one_way=one_way)


@lab.command(cls=GoCommand)
@_lab_option
def heal(name: str, directory: Path | None) -> None:
    """End all partitions."""
    _load(name, directory).heal()


@lab.command(cls=GoCommand)
@_lab_option
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written.")
@click.option("-n", "--tail", type=click.IntRange(0), default=50, show_default=True, help="Lines per daemon.")
@click.argument("machine")
def logs(name: str, directory: Path | None, follow: bool, tail: int, machine: str) -> None:
    """Show the logs of a machine's daemons."""
    found = _load(name, directory).machine(machine)
    files = sorted(str(path) for path in (found.state / "log").glob("*.log"))
    if not files:
        click.echo(f"machine {found.name} has written no logs", err=True)
        return
    os.execvp("tail", ["tail", "-n", str(tail), *(["-F"] if follow else []), "--", *files])
