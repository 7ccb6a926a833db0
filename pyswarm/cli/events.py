"""`pyswarm events`: what changes in the cluster, as it happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pyswarm.api import EventMessage
from pyswarm.cli import values
from pyswarm.cli.app import App, connected, filter_option
from pyswarm.cli.lazy import GoCommand
from pyswarm.cli.logs import moment
from pyswarm.cli.table import executed, parsed
from pyswarm.clock import rfc3339_nanos
from pyswarm.gotemplate import Struct

if TYPE_CHECKING:
    from pyswarm.client import Client


def struct(event: EventMessage) -> Struct:
    """An event as the Engine API shows it."""
    nanos = round(event.time * 1_000_000_000)
    attributes = {"name": event.name} if event.name else {}
    return Struct(
        {
            "Type": event.kind,
            "Action": event.action,
            "Actor": Struct({"ID": event.id, "Attributes": attributes}),
            "scope": "swarm",
            "time": int(event.time),
            "timeNano": nanos,
        },
        {"ID": event.id, "Scope": "swarm", "Time": int(event.time), "TimeNano": nanos},
        "events.Message",
    )


def line(event: EventMessage) -> str:
    """An event as docker prints it without --format."""
    name = f" (name={event.name})" if event.name else ""
    stamp = rfc3339_nanos(round(event.time * 1_000_000_000))
    return f"{stamp} {event.kind} {event.action} {event.id}{name}"


@click.command(cls=GoCommand)
@filter_option
@click.option("--format", default="", metavar="FORMAT", help="json or a Go template.")
@click.option("--since", default="", help="Not before this time; kept events only.")
@click.option("--until", default="", help="Stop at this time.")
@connected
async def events(
    app: App, client: Client, filters: tuple[str, ...], format: str, since: str, until: str
) -> None:
    """Get real time events from the cluster."""
    template = parsed("{{json .}}" if format == "json" else format) if format else None
    now = app.now()
    first, last = moment(since, now), moment(until, now)
    async for event in client.events(values.filters(filters), after=1 if first else 0):
        if event.time < first:
            continue
        if last and event.time > last:
            return
        click.echo(executed(template, struct(event)) if template else line(event))
