"""`pyswarm config`: create, ls, inspect, rm."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pyswarm import engine
from pyswarm.cli import human, inspection, pretty, values
from pyswarm.cli.app import App, connected, filter_option, format_option, inspect_format_option, quiet_option
from pyswarm.cli.completion import complete
from pyswarm.cli.lazy import LazyGroup
from pyswarm.cli.table import Layout, formatted, row
from pyswarm.objects import Config
from pyswarm.specs import ConfigSpec, Driver

if TYPE_CHECKING:
    from pyswarm.client import Client

LAYOUT = Layout(
    columns=("ID", "Name", "CreatedAt", "UpdatedAt"),
    headers={
        "ID": "ID",
        "Name": "NAME",
        "CreatedAt": "CREATED",
        "UpdatedAt": "UPDATED",
        "Labels": "LABELS",
    },
)


@click.group(cls=LazyGroup)
def config() -> None:
    """Manage configs."""


@config.command()
@click.argument("name", metavar="CONFIG")
@click.argument("file", required=False, default="-", metavar="[file|-]")
@click.option("-l", "--label", multiple=True, help="Config labels.")
@click.option("--template-driver", default="", help="Template driver.")
@connected
async def create(
    app: App, client: Client, name: str, file: str, label: tuple[str, ...], template_driver: str
) -> None:
    """Create a config from a file or standard input."""
    del app
    data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    spec = ConfigSpec(
        name=name,
        labels=values.pairs(label),
        data=data,
        templating=Driver(name=template_driver) if template_driver else None,
    )
    click.echo((await client.create(spec)).id)


@config.command("ls")
@filter_option
@format_option
@quiet_option()
@connected
async def list_configs(app: App, client: Client, filters: tuple[str, ...], format: str, quiet: bool) -> None:
    """List configs."""
    found = sorted(
        await client.configs(values.filters(filters)), key=lambda each: human.natural(each.spec.name)
    )
    now = app.now()
    shown = [
        row(
            each.spec.labels,
            ID=each.id,
            Name=each.spec.name,
            CreatedAt=human.ago(each.meta.created_at, now),
            UpdatedAt=human.ago(each.meta.updated_at, now),
        )
        for each in found
    ]
    click.echo(formatted(shown, LAYOUT, format, quiet), nl=False)


@config.command()
@click.argument("configs", nargs=-1, required=True, shell_complete=complete("config"))
@inspect_format_option
@click.option("--pretty", "human_friendly", is_flag=True, help="Print the information for people.")
@connected
async def inspect(
    app: App, client: Client, configs: tuple[str, ...], format: str, human_friendly: bool
) -> None:
    """Display detailed information on one or more configs."""

    async def fetch(ref: str) -> Config:
        return await client.get(Config, ref)

    def text(found: Config) -> str:
        return pretty.config(found, app.now())

    await inspection.inspect(configs, fetch, engine.config, format, text if human_friendly else None)


@config.command("rm")
@click.argument("configs", nargs=-1, required=True, shell_complete=complete("config"))
@connected
async def remove(app: App, client: Client, configs: tuple[str, ...]) -> None:
    """Remove one or more configs."""
    del app

    async def one(ref: str) -> None:
        await client.remove("config", ref)

    await inspection.remove_each(configs, one)
