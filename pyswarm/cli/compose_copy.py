"""`pyswarm compose cp`: files between a container and this machine, as tar through `exec`."""

from __future__ import annotations

import os
import posixpath
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import IO

import click

from pyswarm.cli.compose_look import running
from pyswarm.cli.compose_run import output
from pyswarm.cli.compose_session import ComposeCommand, Scope, in_project, say, settings
from pyswarm.cli.compose_state import containers, stage
from pyswarm.errors import Invalid, NotFound, PyswarmError
from pyswarm.objects import Task


class NotCopied(PyswarmError):
    """The container's tar failed; the text is what it said."""


def parse(source: str, target: str) -> tuple[str, str, str, bool]:
    """(service, path in the container, path here, whether it goes into the container). Raises Invalid."""
    inside, outside = _service(source), _service(target)
    if (inside is None) == (outside is None):
        raise Invalid("one side must be SERVICE:PATH, the other a path here or -")
    if inside is not None:
        return inside[0], inside[1], target, False
    assert outside is not None, "one of them is not None"
    return outside[0], outside[1], source, True


def _service(text: str) -> tuple[str, str] | None:
    """`web:/etc` in its parts; None for a path here."""
    if text == "-" or text.startswith(("/", ".")):
        return None
    name, separator, path = text.partition(":")
    if not separator or "/" in name:
        return None
    if not path:
        raise Invalid(f"{text!r}: a path must follow the colon")
    return name, path


@click.command(cls=ComposeCommand)
@click.option("--all", "everything", is_flag=True, help="Copy into all containers of the service.")
@click.option("-a", "--archive", is_flag=True, help="Archive mode (copy all uid/gid information).")
@click.option("-L", "--follow-link", is_flag=True, help="Always follow symbol link in SRC_PATH.")
@click.option("--index", type=int, default=0, help="Index of the container if service has multiple replicas.")
@click.argument("source", metavar="[SERVICE:]SRC_PATH|-")
@click.argument("target", metavar="[SERVICE:]DEST_PATH|-")
@in_project()
async def cp(
    scope: Scope, everything: bool, archive: bool, follow_link: bool, index: int, source: str, target: str
) -> None:
    """Copy files/folders between a service container and the local filesystem. The container needs `tar`."""
    service, inside, here, into = parse(source, target)
    say("Service", service, f"Copying {source} to {target}")
    tasks = _targets(scope, service, index, everything and into)
    if settings().dry_run:
        return
    for task in tasks:
        if into:
            await _upload(scope, task, here, inside, archive, follow_link)
        else:
            await _download(scope, task, inside, here, archive, follow_link)


def _targets(scope: Scope, service: str, index: int, everything: bool) -> list[Task]:
    if not everything:
        return [running(scope, service, index)]
    found = containers(scope.chosen([service], one_offs=True), scope.tasks)
    return [each.task for each in found if stage(each.task) in ("started", "healthy")]


async def _is_directory(scope: Scope, task: Task, path: str) -> bool:
    code, _, _ = await output(scope.client, task.id, ("test", "-d", path))
    return code == 0


async def _upload(scope: Scope, task: Task, here: str, inside: str, keep: bool, follow: bool) -> None:
    if here == "-":
        await unpack(scope, task, sys.stdin.buffer, inside)
        return
    path = Path(here)
    if not path.exists() and not path.is_symlink():
        raise NotFound(f"no such file or directory: {here}")
    into = inside.endswith("/") or await _is_directory(scope, task, inside)
    place = inside if into else posixpath.dirname(inside) or "/"
    # docker copies what is in a directory when it is written `directory/.`
    name = "." if here.endswith("/.") else path.name if into else posixpath.basename(inside)
    if path.is_dir() and not into:
        place, name = inside, "."
        await output(scope.client, task.id, ("mkdir", "-p", inside))
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w", dereference=follow) as tar:
            tar.add(path, arcname=name, filter=None if keep else _anonymous)
        file.seek(0)
        await unpack(scope, task, file, place)


def _anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Owned by root in the container, as docker compose has it without --archive."""
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


async def unpack(scope: Scope, task: Task, archive: IO[bytes], place: str) -> None:
    """Unpack an archive in a directory of a container. Raises NotCopied."""
    code, _, errors = await output(scope.client, task.id, ("tar", "-xf", "-", "-C", place), stdin=archive)
    if code:
        raise NotCopied(
            f"tar in the container: {errors.decode(errors='replace').strip() or f'exit code {code}'}"
        )


async def _download(scope: Scope, task: Task, inside: str, here: str, keep: bool, follow: bool) -> None:
    path = posixpath.normpath(inside)
    name = posixpath.basename(path)
    flags = "-chf" if follow else "-cf"
    argv = ("tar", flags, "-", "-C", posixpath.dirname(path) or "/", name or ".")
    with tempfile.TemporaryFile() as file:
        code, _, errors = await output(scope.client, task.id, argv, sink=file)
        if code:
            raise NotCopied(f"tar in the container: {errors.decode(errors='replace').strip()}")
        file.seek(0)
        if here == "-":
            while data := file.read(1 << 16):
                sys.stdout.buffer.write(data)
            return
        with tarfile.open(fileobj=file) as tar:
            extract(tar, name or ".", Path(here), contents=inside.endswith("/."), keep=keep)


def extract(
    tar: tarfile.TarFile, name: str, target: Path, *, contents: bool = False, keep: bool = False
) -> None:
    """Unpack the entry `name` as `target`, or below it where that is a directory. Nothing is written outside of
    there, whatever the archive says. Raises Invalid."""
    if target.is_dir():
        place, renamed = target, "." if contents else name
    elif str(target).endswith(os.sep):
        raise Invalid(f"{target} is not a directory")
    else:
        place, renamed = target.parent, target.name
    if not place.is_dir():
        raise Invalid(f"no such directory: {place}")
    for member in tar:
        rest = posixpath.relpath(member.name, name)
        member.name = posixpath.normpath(posixpath.join(renamed, rest))
        if member.islnk():
            member.linkname = posixpath.normpath(
                posixpath.join(renamed, posixpath.relpath(member.linkname, name))
            )
        try:
            safe = tarfile.data_filter(member, str(place))
        except tarfile.FilterError as error:
            raise Invalid(f"refused what the container sent: {error}") from None
        if keep:
            safe.uid, safe.gid = member.uid, member.gid
        tar.extract(safe, place, set_attrs=True, numeric_owner=True, filter="fully_trusted")
