"""Shell completion: the script that a shell loads, and names of objects while one types."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from pyswarm.cli.app import App
    from pyswarm.client import Client
    from pyswarm.objects import Kind

TIMEOUT = 1.0
"""Seconds: somebody is waiting with a finger on the tab key."""

Complete = Callable[[click.Context, click.Parameter, str], "list[CompletionItem]"]


def complete(kind: Kind) -> Complete:
    """A completer for the names of one kind of object."""

    async def names(client: Client) -> list[str]:
        found = await client.list(kind)
        if kind == "node":
            return [node.description.hostname for node in found.nodes]
        if kind == "task":
            return sorted({f"{task.service_name}.{task.slot or task.node_id}" for task in found.tasks})
        groups = (found.services, found.networks, found.volumes, found.secrets, found.configs)
        return [each.spec.name for group in groups for each in group]

    return _completer(names)


def complete_stacks() -> Complete:
    """A completer for the names of stacks."""

    async def names(client: Client) -> list[str]:
        from pyswarm.specs import STACK_LABEL

        return sorted(
            {each.spec.labels[STACK_LABEL] for each in await client.services([("label", STACK_LABEL)])}
        )

    return _completer(names)


def _completer(names: Callable[[Client], Any]) -> Complete:
    def completer(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        from pyswarm.errors import PyswarmError

        del param
        try:
            found = _app(ctx).run(lambda client: asyncio.wait_for(names(client), TIMEOUT))
        except (PyswarmError, OSError, TimeoutError):
            return []
        return [CompletionItem(name) for name in found if name.startswith(incomplete)]

    return completer


def _app(ctx: click.Context) -> App:
    """The App that the words before the cursor name: while completing, click runs no command that makes one."""
    from pathlib import Path

    from pyswarm.cli.app import DEFAULT_RUN_DIR, App

    given = ctx.find_root().params
    run_dir = Path(given.get("run_dir") or DEFAULT_RUN_DIR)
    return App(host=given.get("host") or "", context=given.get("context") or "", run_dir=run_dir)


@click.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash:  pyswarm completion bash > /etc/bash_completion.d/pyswarm
    zsh:   pyswarm completion zsh > "${fpath[1]}/_pyswarm"
    fish:  pyswarm completion fish > ~/.config/fish/completions/pyswarm.fish
    """
    from click.shell_completion import get_completion_class

    from pyswarm.cli.main import cli

    found = get_completion_class(shell)
    assert found is not None, "click has all of the choices"
    click.echo(found(cli, {}, "pyswarm", "_PYSWARM_COMPLETE").source())
