"""`pyswarm secret`: create, ls, inspect, rm."""

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
from pyswarm.objects import Secret
from pyswarm.specs import Driver, SecretSpec

if TYPE_CHECKING:
    from pyswarm.client import Client

LAYOUT = Layout(
    columns=("ID", "Name", "Driver", "CreatedAt", "UpdatedAt"),
    headers={
        "ID": "ID",
        "Name": "NAME",
        "Driver": "DRIVER",
        "CreatedAt": "CREATED",
        "UpdatedAt": "UPDATED",
        "Labels": "LABELS",
    },
)


@click.group(cls=LazyGroup)
def secret() -> None:
    """Manage secrets."""


@secret.command()
@click.argument("name", metavar="SECRET")
@click.argument("file", required=False, default="-", metavar="[file|-]")
@click.option("-l", "--label", multiple=True, help="Secret labels.")
@click.option("-d", "--driver", default="", help="Secret driver.")
@click.option("--template-driver", default="", help="Template driver.")
@connected
async def create(
    app: App, client: Client, name: str, file: str, label: tuple[str, ...], driver: str, template_driver: str
) -> None:
    """Create a secret from a file or standard input."""
    del app
    data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    spec = SecretSpec(
        name=name,
        labels=values.pairs(label),
        data=data,
        driver=Driver(name=driver) if driver else None,
        templating=Driver(name=template_driver) if template_driver else None,
    )
    click.echo((await client.create(spec)).id)


@secret.command("ls")
@filter_option
@format_option
@quiet_option()
@connected
async def list_secrets(app: App, client: Client, filters: tuple[str, ...], format: str, quiet: bool) -> None:
    """List secrets."""
    found = sorted(
        await client.secrets(values.filters(filters)), key=lambda each: human.natural(each.spec.name)
    )
    now = app.now()
    shown = [
        row(
            each.spec.labels,
            ID=each.id,
            Name=each.spec.name,
            Driver=each.spec.driver.name if each.spec.driver else "",
            CreatedAt=human.ago(each.meta.created_at, now),
            UpdatedAt=human.ago(each.meta.updated_at, now),
        )
        for each in found
    ]
    click.echo(formatted(shown, LAYOUT, format, quiet), nl=False)


@secret.command()
@click.argument("secrets", nargs=-1, required=True, shell_complete=complete("secret"))
@inspect_format_option
@click.option("--pretty", "human_friendly", is_flag=True, help="Print the information for people.")
@connected
async def inspect(
    app: App, client: Client, secrets: tuple[str, ...], format: str, human_friendly: bool
) -> None:
    """Display detailed information on one or more secrets."""

    async def fetch(ref: str) -> Secret:
        return await client.get(Secret, ref)

    def text(found: Secret) -> str:
        return pretty.secret(found, app.now())

    await inspection.inspect(secrets, fetch, engine.secret, format, text if human_friendly else None)


@secret.command("rm")
@click.argument("secrets", nargs=-1, required=True, shell_complete=complete("secret"))
@connected
async def remove(app: App, client: Client, secrets: tuple[str, ...]) -> None:
    """Remove one or more secrets."""
    del app

    async def one(ref: str) -> None:
        await client.remove("secret", ref)

    await inspection.remove_each(secrets, one)
