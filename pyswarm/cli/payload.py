"""`pyswarm secret` and `pyswarm config`: create, ls, inspect, rm of small files that the cluster keeps."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

import click

from pyswarm.cli import human, inspection, values
from pyswarm.cli.app import (
    App,
    connected,
    filter_option,
    format_option,
    inspect_format_option,
    quiet_option,
)
from pyswarm.cli.completion import complete
from pyswarm.cli.lazy import LazyGroup
from pyswarm.cli.table import Layout, formatted, row
from pyswarm.gotemplate import Struct
from pyswarm.objects import Config, Secret
from pyswarm.specs import ConfigSpec, Driver, SecretSpec

if TYPE_CHECKING:
    from pyswarm.client import Client

T = TypeVar("T", Secret, Config)
_HEADERS = {
    "ID": "ID",
    "Name": "NAME",
    "Driver": "DRIVER",
    "CreatedAt": "CREATED",
    "UpdatedAt": "UPDATED",
    "Labels": "LABELS",
}


@dataclass(frozen=True, slots=True)
class Noun(Generic[T]):
    """What the two nouns differ in."""

    kind: Literal["secret", "config"]
    cls: type[T]
    struct: Callable[[T], Struct]
    pretty: Callable[[T, float], str]

    @property
    def layout(self) -> Layout:
        driver = ("Driver",) if self.kind == "secret" else ()
        columns = ("ID", "Name", *driver, "CreatedAt", "UpdatedAt")
        return Layout(columns=columns, headers={k: v for k, v in _HEADERS.items() if k != "Driver" or driver})

    def spec(
        self, name: str, labels: Sequence[str], data: bytes, driver: str, templating: str
    ) -> SecretSpec | ConfigSpec:
        template = Driver(name=templating) if templating else None
        if self.kind == "config":
            return ConfigSpec(name=name, labels=values.pairs(labels), data=data, templating=template)
        kept = Driver(name=driver) if driver else None
        return SecretSpec(name=name, labels=values.pairs(labels), data=data, driver=kept, templating=template)

    async def found(self, client: Client, filters: Sequence[str]) -> list[T]:
        wanted = values.filters(filters)
        found = await client.list(self.kind, wanted)
        objects = found.secrets if self.kind == "secret" else found.configs
        return sorted(
            (o for o in objects if isinstance(o, self.cls)), key=lambda o: human.natural(o.spec.name)
        )


def group(noun: Noun[T]) -> LazyGroup:
    """The noun with its commands."""
    made = LazyGroup(noun.kind, help=f"Manage {noun.kind}s.")
    for command in (_create(noun), _ls(noun), _inspect(noun), _rm(noun)):
        made.add_command(command)
    return made


def _create(noun: Noun[T]) -> click.Command:
    driver = click.option("-d", "--driver", default="", help="Secret driver.")

    @click.command(
        "create", cls=LazyGroup.command_class, help=f"Create a {noun.kind} from a file or standard input."
    )
    @click.argument("name", metavar=noun.kind.upper())
    @click.argument("file", required=False, default="-", metavar="[file|-]")
    @click.option("-l", "--label", multiple=True, help=f"{noun.kind.capitalize()} labels.")
    @click.option("--template-driver", default="", help="Template driver.")
    @connected
    async def create(
        app: App,
        client: Client,
        name: str,
        file: str,
        label: tuple[str, ...],
        template_driver: str,
        driver: str = "",
    ) -> None:
        del app
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        spec = noun.spec(name, label, data, driver, template_driver)
        click.echo((await client.create(spec)).id)

    return driver(create) if noun.kind == "secret" else create


def _ls(noun: Noun[T]) -> click.Command:
    @click.command("ls", cls=LazyGroup.command_class, help=f"List {noun.kind}s.")
    @filter_option
    @format_option
    @quiet_option()
    @connected
    async def ls(app: App, client: Client, filters: tuple[str, ...], format: str, quiet: bool) -> None:
        now = app.now()
        shown = [_row(each, now) for each in await noun.found(client, filters)]
        click.echo(formatted(shown, noun.layout, format, quiet), nl=False)

    return ls


def _row(each: Secret | Config, now: float) -> Struct:
    driver = {"Driver": each.spec.driver.name if each.spec.driver else ""} if isinstance(each, Secret) else {}
    return row(
        each.spec.labels,
        ID=each.id,
        Name=each.spec.name,
        CreatedAt=human.ago(each.meta.created_at, now),
        UpdatedAt=human.ago(each.meta.updated_at, now),
        **driver,
    )


def _inspect(noun: Noun[T]) -> click.Command:
    @click.command(
        "inspect", cls=LazyGroup.command_class, help=f"Display detailed information on {noun.kind}s."
    )
    @click.argument(
        "names",
        nargs=-1,
        required=True,
        metavar=f"{noun.kind.upper()}...",
        shell_complete=complete(noun.kind),
    )
    @inspect_format_option
    @click.option("--pretty", "human_friendly", is_flag=True, help="Print the information for people.")
    @connected
    async def inspect(
        app: App, client: Client, names: tuple[str, ...], format: str, human_friendly: bool
    ) -> None:
        async def fetch(ref: str) -> T:
            return await client.get(noun.cls, ref)

        def text(found: T) -> str:
            return noun.pretty(found, app.now())

        await inspection.inspect(names, fetch, noun.struct, format, text if human_friendly else None)

    return inspect


def _rm(noun: Noun[T]) -> click.Command:
    @click.command("rm", cls=LazyGroup.command_class, help=f"Remove one or more {noun.kind}s.")
    @click.argument(
        "names",
        nargs=-1,
        required=True,
        metavar=f"{noun.kind.upper()}...",
        shell_complete=complete(noun.kind),
    )
    @connected
    async def rm(app: App, client: Client, names: tuple[str, ...]) -> None:
        del app
        await inspection.remove_all(client, noun.kind, names)

    return rm
