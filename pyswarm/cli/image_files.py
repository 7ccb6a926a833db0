"""`pyswarm image history | save | load`: what an image is made of, and images as files."""

from __future__ import annotations

import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from pyswarm.cli import archive, human, nodes
from pyswarm.cli.app import App, connected, format_option, no_trunc_option, quiet_option
from pyswarm.cli.image import ONE_PLATFORM, all_nodes_option, node_option, targets
from pyswarm.cli.lazy import GoCommand, needless_option, refused_option
from pyswarm.cli.table import Layout, formatted, row
from pyswarm.clock import rfc3339
from pyswarm.errors import Invalid
from pyswarm.gotemplate import Struct, Time

if TYPE_CHECKING:
    from pyswarm.client import Client

LAYOUT = Layout(
    columns=("ID", "CreatedSince", "CreatedBy", "Size", "Comment"),
    headers={
        "ID": "IMAGE",
        "CreatedSince": "CREATED",
        "CreatedAt": "CREATED AT",
        "CreatedBy": "CREATED BY",
        "Size": "SIZE",
        "Comment": "COMMENT",
    },
)
COMMAND_WIDTH = 45


@click.command(cls=GoCommand)
@click.argument("name", metavar="IMAGE")
@format_option
@click.option("-H", "--human/--no-human", "readable", default=True, help="Sizes and dates for people.")
@no_trunc_option
@refused_option("--platform", why=ONE_PLATFORM)
@quiet_option("Only show image IDs.")
@node_option
@connected
async def history(
    app: App, client: Client, name: str, format: str, readable: bool, no_trunc: bool, quiet: bool, node: str
) -> None:
    """Show the history of an image."""
    steps = await nodes.ask(client, "image.history", {"name": name}, node=await nodes.chosen(client, node))
    shown = [_row(step, app.now(), readable, no_trunc) for step in steps]
    click.echo(formatted(shown, LAYOUT, format, quiet), nl=False)


def _row(step: dict[str, Any], now: float, readable: bool, full: bool) -> Struct:
    command = " ".join(str(step["CreatedBy"]).split())
    created = step["Created"]
    identifier = str(step["Id"])
    return row(
        ID=identifier if full else human.short(identifier.removeprefix("sha256:")),
        CreatedAt=Time(rfc3339(created)).shown(),
        CreatedSince=human.ago(created, now) if readable else rfc3339(created),
        CreatedBy=command if full else human.ellipsis(command, COMMAND_WIDTH),
        Size=human.decimal_size(step["Size"]) if readable else str(step["Size"]),
        Comment=step["Comment"],
    )


@click.command(cls=GoCommand)
@click.argument("names", nargs=-1, required=True, metavar="IMAGE...")
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Write to a file, instead of stdout.")
@refused_option("--platform", why=ONE_PLATFORM)
@node_option
@connected
async def save(app: App, client: Client, names: tuple[str, ...], output: str | None, node: str) -> None:
    """Save one or more images to a tar archive, as docker's."""
    del app
    if output is None and sys.stdout.isatty():
        raise Invalid("cannot write an archive to a terminal: use --output or redirect")
    target = await nodes.chosen(client, node)
    with _output(output) as file:
        await nodes.receive(client, "image.archive", {"references": list(names)}, file.write, node=target)


@contextmanager
def _output(path: str | None) -> Generator[IO[bytes]]:
    """Standard output, or a file that is there once it is whole."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    fresh = Path(f"{path}.part")
    try:
        with fresh.open("wb") as file:
            yield file
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


@contextmanager
def _input(path: str | None) -> Generator[IO[bytes]]:
    if path is None:
        yield sys.stdin.buffer
        return
    with open(path, "rb") as file:
        yield file


@click.command(cls=GoCommand)
@click.option(
    "-i", "--input", type=click.Path(exists=True, dir_okay=False), help="Read from a file, not stdin."
)
@refused_option("--platform", why=ONE_PLATFORM)
@needless_option("-q", "--quiet")
@node_option
@all_nodes_option
@connected
async def load(app: App, client: Client, input: str | None, node: str, all_nodes: bool) -> None:
    """Load images from a tar archive, as docker's, or from standard input."""
    del app
    if input is None and sys.stdin.isatty():
        raise Invalid("requested load from stdin, but stdin is a terminal: use --input or redirect")
    where = await targets(client, node, all_nodes)
    if input is None and len(where) > 1:
        raise Invalid("standard input can be read only once: --all-nodes needs --input")
    for each, name in where:
        with _input(input) as file:
            answer = await nodes.ask(client, "image.load", {}, node=each, data=archive.pieces(file))
        _loaded(answer["loaded"], name)


def _loaded(names: Sequence[str], node: str) -> None:
    for each in names:
        word = "Loaded image ID" if each.startswith("sha256:") else "Loaded image"
        click.echo(f"{node}: {word}: {each}" if node else f"{word}: {each}")
