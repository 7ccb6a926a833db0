"""Command groups that know their commands' names and one-line help, and import a command when it is used."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import click

from pyswarm.errors import Invalid

Command = TypeVar("Command", bound=Callable[..., Any])


_SECTION = "Commands"


@dataclass(frozen=True, slots=True)
class Entry:
    """A command that is not imported yet: `module:attribute`, its line in `--help`, its section."""

    target: str
    help: str
    section: str = _SECTION


ALIASES: Mapping[str, str] = {"list": "ls", "remove": "rm"}
"""docker's other names for the commands of every noun."""

_BOOLEAN = re.compile(r"(--[a-z][a-z0-9-]*)=(true|false|t|f|1|0)", re.IGNORECASE)


class GoCommand(click.Command):
    """A command whose boolean flags may be written as Go's are: `--detach=false`, `--init=true`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, self._rewritten(args))

    def _rewritten(self, args: list[str]) -> list[str]:
        flags = {
            name: (option.secondary_opts or [""])[0]
            for option in self.params
            if isinstance(option, click.Option) and option.is_flag
            for name in option.opts
        }
        out: list[str] = []
        for index, arg in enumerate(args):
            if arg == "--":
                return out + args[index:]
            match = _BOOLEAN.fullmatch(arg)
            if match is None or match.group(1) not in flags:
                out.append(arg)
            elif match.group(2).lower() in ("true", "t", "1"):
                out.append(match.group(1))
            elif flags[match.group(1)]:
                out.append(flags[match.group(1)])
        return out


class LazyGroup(click.Group):
    """A group over a table of entries; listing and helping import none of them."""

    command_class = GoCommand

    def __init__(
        self,
        *args: Any,
        entries: Mapping[str, Entry] | None = None,
        aliases: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        """`aliases` are further names of commands (`down` for `rm`, `run` for `container run`), which `--help` does
        not list."""
        super().__init__(*args, **kwargs)
        self.entries: Mapping[str, Entry] = entries or {}
        self.aliases: Mapping[str, str] = {**ALIASES, **(aliases or {})}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.entries, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self.entries.get(cmd_name)
        if entry is None:
            found = super().get_command(ctx, cmd_name)
            return found if found is not None else self._alias(ctx, cmd_name)
        module, _, attribute = entry.target.partition(":")
        return cast("click.Command", getattr(importlib.import_module(module), attribute))

    def _alias(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command that is meant by one of docker's other names; it may be a group's."""
        words = self.aliases.get(name, "").split()
        found: click.Command | None = self if words else None
        for word in words:
            found = found.get_command(ctx, word) if isinstance(found, click.Group) else None
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = _nearest(args[0], self.list_commands(ctx)) if args else None
            if not near or "Did you mean" in error.message:
                raise
            raise click.UsageError(f"{error.message} Did you mean {near!r}?", ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, entry in self.entries.items():
            sections.setdefault(entry.section, []).append((name, entry.help))
        for name, command in self.commands.items():
            if not command.hidden:
                help = command.get_short_help_str(limit=90).rstrip(".")
                sections.setdefault(_SECTION, []).append((name, help))
        for section, rows in sections.items():
            with formatter.section(section):
                formatter.write_dl(sorted(rows) if section == _SECTION else rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        names = [
            CompletionItem(name, help=entry.help)
            for name, entry in self.entries.items()
            if name.startswith(incomplete)
        ]
        return [*names, *super().shell_complete(ctx, incomplete)] if not self.entries else names


def _nearest(word: str, names: list[str]) -> str | None:
    import difflib

    found = difflib.get_close_matches(word, names, n=1)
    return found[0] if found else None


def group(name: str, entries: Mapping[str, Entry], help: str) -> LazyGroup:
    """A lazy group that is nothing but its entries."""
    return LazyGroup(name, entries=entries, help=help)


def refused(name: str, why: str) -> click.Command:
    """A command of docker's that pyswarm has not: it says why, and what to do in its place."""

    @click.command(
        name,
        cls=GoCommand,
        hidden=True,
        help=f"Not supported: {why}.",
        context_settings={"ignore_unknown_options": True},
    )
    @click.argument("words", nargs=-1, type=click.UNPROCESSED)
    def command(words: tuple[str, ...]) -> None:
        del words
        raise Invalid(f"{click.get_current_context().command_path} is not supported: {why}")

    return command


def refused_option(*names: str, why: str, flag: bool = False) -> Callable[[Command], Command]:
    """An option of docker's that pyswarm has not: given, it says why."""

    def refuse(ctx: click.Context, option: click.Parameter, value: object) -> None:
        del ctx
        if value:
            raise Invalid(f"{option.opts[0]} is not supported: {why}")

    return click.option(
        *names,
        is_flag=flag,
        multiple=not flag,
        hidden=True,
        expose_value=False,
        callback=refuse,
        help=f"Not supported: {why}.",
    )


def needless_option(*names: str) -> Callable[[Command], Command]:
    """A boolean option of docker's that asks for what is so anyhow."""
    return click.option(*names, is_flag=True, hidden=True, expose_value=False)
