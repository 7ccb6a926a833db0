"""`pyswarm context`: create, update, export, import, ls, use, inspect, show, rm."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyswarm.cli import contexts
from pyswarm.cli.app import App, connected, current_app, format_option, inspect_format_option, quiet_option
from pyswarm.cli.inspection import Failures
from pyswarm.cli.lazy import LazyGroup
from pyswarm.cli.table import Layout, formatted, inspected, row
from pyswarm.cli.values import pairs
from pyswarm.errors import Invalid
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


def _endpoint_options(command: Any) -> Any:
    """The options that say where a context leads."""
    option, file = click.option, click.Path(exists=True, dir_okay=False)
    for each in reversed(
        [
            option("--description", help="Description of the context."),
            option("--host", default="", help="Manager's API: tcp://host:2378[,host:2378...]."),
            option("--ca", type=file, help="PEM file of the cluster's CA."),
            option("--cert", type=file, help="PEM file of the client certificate."),
            option("--key", type=file, help="PEM file of the certificate's key."),
            option(
                "--docker",
                "endpoint",
                default="",
                metavar="KEY=VALUE,...",
                help="host=,ca=,cert=,key= in one word.",
            ),
        ]
    ):
        command = each(command)
    return command


def _stored(
    name: str, description: str | None, base: str, endpoint: str, **given: str | None
) -> contexts.Stored:
    """The context that the options describe, with the rest as in the context `base` ("" for none). Raises Invalid
    for what is missing."""
    words = pairs(endpoint.split(",")) if endpoint else {}
    found = {word: value or words.get(word, "") for word, value in given.items()}
    known = contexts.stored(base) if base else None
    missing = [f"--{word}" for word, value in found.items() if not value] if known is None else []
    if missing:
        raise Invalid(
            f"a context needs {', '.join(missing)}: run `pyswarm context export {name}` on a manager, and "
            f"`pyswarm context import {name} FILE` here"
        )
    host = found["host"] or (known.context.host if known else "")
    if not host.startswith("tcp://"):
        raise Invalid(f"invalid host {host!r}: write tcp://address:port")
    if description is None:
        description = known.context.description if known else ""

    def part(word: str, old: bytes) -> bytes:
        return Path(found[word]).read_bytes() if found[word] else old

    old = known or contexts.Stored(contexts.Context(name, host), b"", b"", b"")
    return contexts.Stored(
        contexts.Context(name, host, description),
        part("ca", old.ca),
        part("cert", old.cert),
        part("key", old.key),
    )


@context.command()
@click.argument("name", metavar="CONTEXT")
@_endpoint_options
@click.option(
    "--from", "base", default="", metavar="CONTEXT", help="Take what is not said from this context."
)
def create(name: str, base: str, **options: Any) -> None:
    """Create a context from a manager's address and a client certificate."""
    contexts.create(_stored(name, base=base, **options))
    click.echo(name)
    click.echo(f'Successfully created context "{name}"', err=True)


@context.command()
@click.argument("name", metavar="CONTEXT")
@_endpoint_options
def update(name: str, **options: Any) -> None:
    """Update a context: its description, address or certificate."""
    contexts.update(_stored(name, base=name, **options))
    click.echo(name)
    click.echo(f'Successfully updated context "{name}"', err=True)


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
    made = contexts.Stored(contexts.Context(name, host), answer.ca.encode(), answer.cert.encode(), key)
    data = contexts.packed(made)
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
    found = contexts.unpacked(data)
    contexts.create(replace(found, context=replace(found.context, name=name)))
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
    failures = Failures()
    for name in names:
        with failures.kept():
            contexts.remove(name, force=force)
            click.echo(name)
    failures.finish()
