"""`inspect` of any noun: what was found is printed, what was not is an error at the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import click

from pyswarm.cli.table import inspected
from pyswarm.errors import Conflict, Invalid, NotFound, PyswarmError
from pyswarm.gotemplate import Struct

if TYPE_CHECKING:
    from pyswarm.client import Client
    from pyswarm.objects import Kind

T = TypeVar("T")


class Failures:
    """What went wrong with some of several things; the others are done all the same."""

    def __init__(self, kinds: tuple[type[PyswarmError], ...] = (PyswarmError,)) -> None:
        self.errors: list[PyswarmError] = []
        self._kinds = kinds

    @contextmanager
    def kept(self, of: str = "") -> Generator[None]:
        """Keep an error of the block for the end; `of` names the thing where the error does not."""
        try:
            yield
        except self._kinds as error:
            self.errors.append(type(error)(f"{of}: {error}") if of else error)

    def finish(self) -> None:
        """Raise what was kept: see `finish`."""
        finish(self.errors)


async def gather(
    refs: Sequence[str], fetch: Callable[[str], Awaitable[T]]
) -> tuple[list[T], list[PyswarmError]]:
    """What `fetch` finds for each reference, in order, and the errors of the others."""
    found: list[T] = []
    failures = Failures((NotFound, Conflict))
    for ref in refs:
        with failures.kept():
            found.append(await fetch(ref))
    return found, failures.errors


async def inspect(
    refs: Sequence[str],
    fetch: Callable[[str], Awaitable[T]],
    struct: Callable[[T], Struct],
    format: str,
    pretty: Callable[[T], str] | None = None,
    *,
    strict: bool = False,
) -> None:
    """Print each object as JSON, through `format`, or with `pretty` for people. Raises the first error after
    printing what was found."""
    if pretty is not None and format:
        raise Invalid("--format is incompatible with human friendly format")
    found, errors = await gather(refs, fetch)
    if pretty is not None:
        click.echo("\n".join(pretty(each) for each in found), nl=False)
    elif found or not format:
        click.echo(inspected([struct(each) for each in found], format, strict=strict), nl=False)
    finish(errors)


def finish(errors: Sequence[PyswarmError]) -> None:
    """Raise what went wrong: one error as it is, several as one with a line each."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise PyswarmError("\nError: ".join(_capital(str(error)) for error in errors))


def _capital(text: str) -> str:
    return "N" + text[1:] if text.startswith("no such ") else text


async def remove_each(refs: Sequence[str], remove: Callable[[str], Awaitable[None]]) -> None:
    """Remove each, print its name, go on after an error and raise all of them at the end."""
    failures = Failures()
    for ref in refs:
        with failures.kept():
            await remove(ref)
            click.echo(ref)
    failures.finish()


async def remove_all(client: Client, kind: Kind, refs: Sequence[str], *, force: bool = False) -> None:
    """Remove objects of one kind, each as `remove_each` does."""
    await remove_each(refs, lambda ref: client.remove(kind, ref, force=force))


async def unless_gone(removal: Awaitable[None], force: bool) -> None:
    """Await a removal; with `force` an object that does not exist is no error."""
    try:
        await removal
    except NotFound:
        if not force:
            raise
