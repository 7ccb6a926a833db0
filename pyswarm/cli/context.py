"""`pyswarm context`: create, export, import, ls, use, inspect, show, rm."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pyswarm.cli import contexts
from pyswarm.cli.app import App, connected, current_app, format_option, inspect_format_option, quiet_option
from pyswarm.cli.inspection import finish
from pyswarm.cli.lazy import LazyGroup
from pyswarm.cli.table import Layout, formatted, inspected, row
from pyswarm.cli.values import pairs
from pyswarm.errors import Invalid, PyswarmError
from pyswarm.gotemplate import Struct

if TYPE_CHECKING:
    from pyswarm.client import Client

LAYOUT = Layout(
    columns=("Name", "Description", "DockerEndpoint", "Error"),
    headers={
        "Name": "NAME",
        "Description": "DESCRIPTION",
        "DockerEndpoint": "PYSWARM ENDPOINT",
        "Endpoint": "PYSWARM ENDPOINT",
        "Error": "ERROR",
        "Current": "CURRENT",
    },
    quiet="Name",
)


@click.group(cls=LazyGroup)
def context() -> None:
    """Manage connections to clusters."""


@context.command()
@click.argument("name", metavar="CONTEXT")
@click.option("--description", default="", help="Description of the context.")
@click.option("--host", default="", help="Manager's API: tcp://host:2378[,host:2378...].")
@click.option("--ca", type=click.Path(exists=True, dir_okay=False), help="PEM file of the cluster's CA.")
@click.option(
    "--cert", type=click.Path(exists=True, dir_okay=False), help="PEM file of the client certificate."
)
@click.option(
    "--key", type=click.Path(exists=True, dir_okay=False), help="PEM file of the certificate's key."
)
@click.option(
    "--docker", "endpoint", default="", metavar="KEY=VALUE,...", help="host=,ca=,cert=,key= in one word."
)
def create(
    name: str,
    description: str,
    host: str,
    ca: str | None,
    cert: str | None,
    key: str | None,
    endpoint: str,
) -> None:
    """Create a context from a manager's address and a client certificate."""
    given = pairs(endpoint.split(",")) if endpoint else {}
    files = {"host": host, "ca": ca, "cert": cert, "key": key}
    found = {word: value or given.get(word, "") for word, value in files.items()}
    missing = [f"--{word}" for word, value in found.items() if not value]
    if missing:
        raise Invalid(
            f"a context needs {', '.join(missing)}: run `pyswarm context export {name}` on a manager, and "
            f"`pyswarm context import {name} FILE` here"
        )
    if not found["host"].startswith("tcp://"):
        raise Invalid(f"invalid host {found['host']!r}: write tcp://address:port")
    data = [Path(found[word]).read_bytes() for word in ("ca", "cert", "key")]
    contexts.create(contexts.Context(name, found["host"], description), *data)
    click.echo(name)
    click.echo(f'Successfully created context "{name}"', err=True)


@context.command("export")
@click.argument("name", metavar="CONTEXT")
@click.argument("file", metavar="[FILE|-]", default="")
@connected
async def export(app: App, client: Client, name: str, file: str) -> None:
    """Give somebody access to this cluster from another machine: a file with a client certificate of its own,
    to be read there with `pyswarm context import`. Whoever has the file can do everything."""
    from pyswarm import pki

    key = pki.new_key()
    answer = await client.issue_client(name, pki.create_request(key, name).decode())
    host = "tcp://" + ",".join(answer.managers)
    data = contexts.packed(contexts.Context(name, host), answer.ca.encode(), answer.cert.encode(), key)
    if file == "-":
        sys.stdout.buffer.write(data)
        return
    target = Path(file or f"{name}.pyswarmcontext")
    contexts.write_new(target, data)
    click.echo(f'Written file "{target}"', err=True)


@context.command("import")
@click.argument("name", metavar="CONTEXT")
@click.argument("file", metavar="FILE|-")
def import_context(name: str, file: str) -> None:
    """Create a context from a file that `pyswarm context export` made on a manager."""
    data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    found, ca, cert, key = contexts.unpacked(data)
    contexts.create(contexts.Context(name, found.host, found.description), ca, cert, key)
    click.echo(name)
    click.echo(f'Successfully imported context "{name}"', err=True)


def _endpoint(name: str) -> tuple[str, str]:
    """(description, endpoint) of a context."""
    if name == contexts.DEFAULT:
        return "The manager on this machine", f"unix://{current_app().socket}"
    found = contexts.load(name)
    return found.description, found.host


@context.command("ls")
@format_option
@quiet_option("Only show context names.")
def list_contexts(format: str, quiet: bool) -> None:
    """List contexts."""
    used = current_app().context or contexts.current()
    rows: list[Struct] = []
    for name in contexts.names():
        description, host = _endpoint(name)
        shown = f"{name} *" if name == used and not format and not quiet else name
        rows.append(
            row(
                Name=shown,
                Description=description,
                DockerEndpoint=host,
                Endpoint=host,
                Error="",
                Current=name == used,
            )
        )
    click.echo(formatted(rows, LAYOUT, format, quiet), nl=False)


@context.command()
@click.argument("name", metavar="CONTEXT")
def use(name: str) -> None:
    """Set the current context."""
    contexts.use(name)
    click.echo(name)
    click.echo(f'Current context is now "{name}"', err=True)


@context.command()
def show() -> None:
    """Print the name of the current context."""
    click.echo(current_app().context or contexts.current())


@context.command()
@click.argument("names", nargs=-1, metavar="[CONTEXT...]")
@inspect_format_option
def inspect(names: tuple[str, ...], format: str) -> None:
    """Display detailed information on one or more contexts."""
    shown: list[Struct] = []
    for name in names or (contexts.current(),):
        description, host = _endpoint(name)
        place = str(contexts.home() / "contexts" / name) if name != contexts.DEFAULT else "<IN MEMORY>"
        shown.append(
            Struct(
                {
                    "Name": name,
                    "Metadata": {"Description": description},
                    "Endpoints": {"pyswarm": {"Host": host, "SkipTLSVerify": False}},
                    "Storage": {"Path": place},
                }
            )
        )
    click.echo(inspected(shown, format), nl=False)


@context.command("rm")
@click.argument("names", nargs=-1, required=True, metavar="CONTEXT...")
@click.option("-f", "--force", is_flag=True, help="Force the removal of a context in use.")
def remove(names: tuple[str, ...], force: bool) -> None:
    """Remove one or more contexts."""
    errors: list[PyswarmError] = []
    for name in names:
        try:
            contexts.remove(name, force=force)
            click.echo(name)
        except PyswarmError as error:
            errors.append(error)
    finish(errors)
