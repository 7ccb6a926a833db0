"""`pyswarm compose watch`: `develop.watch`: sync, rebuild, restart when files change.

The kernel says which paths change (inotify); after a short calm what changed is matched with the rules, and each
service gets the most that its rules ask for: rebuild over restart over sync.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import posixpath
import re
import signal
import sys
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

import click

from pyswarm.cli import compose_local as local
from pyswarm.cli.archive import excluded, ignored_by
from pyswarm.cli.compose_copy import NotCopied, unpack
from pyswarm.cli.compose_run import output
from pyswarm.cli.compose_session import ComposeCommand, Scope, in_project, note, settings, specs_of
from pyswarm.cli.compose_state import containers, short_name, stage, wants
from pyswarm.cli.compose_wait import POLL
from pyswarm.errors import Invalid, PyswarmError

if TYPE_CHECKING:
    from compose.convert import StackSpecs
    from compose.project import Project
    from pyswarm.objects import Service, Task

CALM = 0.3
"""Seconds without a change before the changes are acted upon."""
LONGEST = 3.0
"""Seconds after which they are, calm or not."""
_DELETE, _MOVED_FROM, _ATTRIB = 0x200, 0x40, 0x4
_ACTIONS = ("sync", "rebuild", "restart", "sync+restart", "sync+exec")
_TEMPORARY = (
    "*~",
    "*.swp",
    "*.swx",
    ".#*",
    "#*#",
    ".*.sw?",
    "4913",
    "*___jb_tmp___",
    "*___jb_old___",
    ".DS_Store",
)
"""What editors make beside the file that they save."""

Patterns = Sequence[tuple[re.Pattern[str], bool]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One entry of `develop.watch`."""

    service: str
    path: str
    """Absolute: a directory or a file."""
    action: Literal["sync", "rebuild", "restart", "sync+restart", "sync+exec"]
    target: str = ""
    ignore: Patterns = ()
    """Relative to `path`."""
    include: Patterns = ()
    command: tuple[str, ...] = ()
    """For sync+exec."""
    initial: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one service is to get for some changes."""

    service: str
    rebuild: bool = False
    restart: bool = False
    copies: tuple[tuple[str, str], ...] = ()
    """(path here, path in the container); the path here may be gone: so it goes there too."""
    commands: tuple[tuple[str, ...], ...] = ()


def rules(project: Project, names: Sequence[str] = ()) -> list[Rule]:
    """The rules of these services, or of all. Raises Invalid when there are none, or one cannot work."""
    for name in names:
        local.checked(project, name)
    found: list[Rule] = []
    for name, service in sorted(project.services.items()):
        if (names and name not in names) or service.develop is None:
            continue
        context = service.build.context if service.build is not None else ""
        for index, each in enumerate(service.develop.watch):
            place = f"services.{name}.develop.watch[{index}]"
            if each.action not in _ACTIONS:
                raise Invalid(f"{place}.action: {each.action!r} is none of {', '.join(_ACTIONS)}")
            if each.action.startswith("sync") and not each.target:
                raise Invalid(f"{place}: {each.action} needs a target: the path in the container")
            if each.action == "rebuild" and service.build is None:
                raise Invalid(f"{place}: rebuild needs a build section in service {name}")
            if each.action == "sync+exec" and (each.exec is None or not each.exec.command):
                raise Invalid(f"{place}: sync+exec needs exec.command")
            path = os.path.normpath(Path(project.directory) / each.path)
            found.append(
                Rule(
                    service=name,
                    path=path,
                    action=each.action,  # pyright: ignore[reportArgumentType]  # checked above
                    target=each.target,
                    ignore=(*_docker_ignore(context, path), *ignored_by(each.ignore)),
                    include=ignored_by(each.include),
                    command=tuple(each.exec.command or ()) if each.exec is not None else (),
                    initial=each.initial_sync,
                )
            )
    if not found:
        raise Invalid("none of the selected services is configured for watch: add a develop.watch section")
    return found


def _docker_ignore(context: str, path: str) -> Patterns:
    """The context's `.dockerignore` for a rule that watches the context or something in it; the patterns count from
    the context, so they apply to a rule on the context itself alone."""
    file = Path(context) / ".dockerignore" if context.startswith("/") else None
    if file is None or os.path.normpath(context) != path or not file.is_file():
        return ()
    return ignored_by(file.read_text(errors="replace").splitlines())


def matched(rule: Rule, path: str) -> str | None:
    """The path relative to the rule's ("." for the rule's own), or None when the rule does not mean it; pure."""
    relative = os.path.relpath(path, rule.path)
    if relative.startswith(".."):
        return None
    if any(fnmatchcase(Path(path).name, pattern) for pattern in _TEMPORARY):
        return None
    if relative != ".":
        if excluded(relative, rule.ignore) or Path(relative).parts[0] == ".git":
            return None
        if rule.include and not excluded(relative, rule.include):
            return None
    return relative


def plan(rules: Sequence[Rule], paths: Iterable[str]) -> list[Work]:
    """What the changed paths ask for, a Work per service, in order of their names; pure. Of several rules of a
    service that mean one path, the first counts."""
    works: dict[str, dict[str, Rule]] = {}
    for path in sorted(set(paths)):
        for rule in rules:
            if matched(rule, path) is None:
                continue
            works.setdefault(rule.service, {}).setdefault(path, rule)
    return [_work(service, works[service]) for service in sorted(works)]


def _work(service: str, changed: Mapping[str, Rule]) -> Work:
    if any(rule.action == "rebuild" for rule in changed.values()):
        return Work(service=service, rebuild=True)
    copies: list[tuple[str, str]] = []
    for path, rule in changed.items():
        if rule.action.startswith("sync"):
            relative = matched(rule, path) or "."
            target = rule.target if relative == "." else posixpath.join(rule.target, *Path(relative).parts)
            copies.append((path, target))
    commands = dict.fromkeys(rule.command for rule in changed.values() if rule.action == "sync+exec")
    return Work(
        service=service,
        restart=any(rule.action.endswith("restart") for rule in changed.values()),
        copies=tuple(copies),
        commands=tuple(commands),
    )


# ------------------------------------------------------------------------------------------- the tree


class Tree:
    """Directories and all below them under inotify; `changed` holds the paths that changed."""

    def __init__(self, roots: Iterable[str]) -> None:
        from node_agent import inotify

        self._inotify = inotify.Inotify()
        self._mask = inotify.CLOSE_WRITE | inotify.CREATE | inotify.MOVED_TO | _DELETE | _MOVED_FROM | _ATTRIB
        self._watched: set[str] = set()
        self.changed: set[str] = set()
        self.event = asyncio.Event()
        for root in roots:
            if Path(root).is_dir():
                self.add(root)
            else:
                self._one(str(Path(root).parent))

    def add(self, directory: str, *, new: bool = False) -> None:
        """Watch a directory and those below it. What a `new` one holds already counts as changed."""
        for place, folders, files in os.walk(directory):
            folders[:] = [name for name in folders if name != ".git"]
            self._one(place)
            if new:
                self.changed.update(str(Path(place) / name) for name in files)

    def _one(self, place: str) -> None:
        if place in self._watched or not Path(place).is_dir():
            return
        self._watched.add(place)

        def changed(name: str) -> None:
            path = str(Path(place) / name) if name else place
            if not name and not Path(place).is_dir():
                self._watched.discard(place)
            self.changed.add(path)
            if Path(path).is_dir() and path not in self._watched:
                self.add(path, new=True)
            self.event.set()

        try:
            self._inotify.add(Path(place), self._mask, changed)
        except FileNotFoundError:
            self._watched.discard(place)

    async def batch(self) -> set[str]:
        """The changes of the next burst."""
        await self.event.wait()
        loop = asyncio.get_running_loop()
        end = loop.time() + LONGEST
        while loop.time() < end:
            self.event.clear()
            try:
                async with asyncio.timeout(CALM):
                    await self.event.wait()
            except TimeoutError:
                break
        self.event.clear()
        found, self.changed = self.changed, set()
        return found

    def close(self) -> None:
        self._inotify.close()


# ------------------------------------------------------------------------------------------- acting


class Watcher:
    """Acts on changes of one project."""

    def __init__(self, scope: Scope, specs: StackSpecs, found: Sequence[Rule], quiet: bool) -> None:
        self._scope = scope
        self._specs = specs
        self._rules = found
        self._quiet = quiet

    async def run(self) -> None:
        tree = Tree({rule.path for rule in self._rules})
        try:
            await self._initial()
            click.echo("Watch enabled", err=True)
            while True:
                works = plan(self._rules, await tree.batch())
                for work in works:
                    try:
                        await self._act(work)
                    except PyswarmError as error:
                        note(f"{work.service}: {error}")
        finally:
            tree.close()

    async def _initial(self) -> None:
        """Rules with `initial_sync` bring the containers up to date first, once they run."""
        names = sorted({rule.service for rule in self._rules if rule.initial})
        await self._scope.refresh()
        while any(self._starting(name) for name in names):
            await asyncio.sleep(POLL)
            await self._scope.refresh()
        paths = [
            str(Path(place) / name)
            for rule in self._rules
            if rule.initial and rule.action.startswith("sync")
            for place, _, files in os.walk(rule.path)
            for name in files
        ]
        for work in plan([rule for rule in self._rules if rule.initial], paths):
            await self._copy(work)

    async def _act(self, work: Work) -> None:
        if settings().dry_run:
            click.echo(f"DRY-RUN MODE - {work}", err=True)
            return
        await self._scope.refresh()
        if work.rebuild:
            await self._rebuild(work.service)
            return
        await self._copy(work)
        for command in work.commands:
            for task in self._tasks(work.service):
                code, _, errors = await output(self._scope.client, task.id, command)
                if code:
                    note(
                        f"{work.service}: {' '.join(command)}: exit code {code}: {errors.decode(errors='replace')}"
                    )
        if work.restart:
            from pyswarm.cli.compose_up import restarted

            click.echo(f'Restarting service "{work.service}" after changes were detected...', err=True)
            for service in self._services(work.service):
                await restarted(self._scope, service)
            click.echo(f'service "{work.service}" restarted', err=True)

    def _services(self, name: str) -> list[Service]:
        return [each for each in self._scope.chosen(()) if short_name(each) == name]

    def _tasks(self, name: str) -> list[Task]:
        found = containers(self._services(name), self._scope.tasks)
        return [each.task for each in found if stage(each.task) in ("started", "healthy")]

    def _starting(self, name: str) -> bool:
        """Whether a container of the service is on its way."""
        services = self._services(name)
        found = containers(services, self._scope.tasks)
        return any(stage(each.task) == "waiting" for each in found) or (
            not found and any(map(wants, services))
        )

    async def _copy(self, work: Work) -> None:
        if not work.copies:
            return
        click.echo(
            f'Syncing service "{work.service}" after {len(work.copies)} changes were detected', err=True
        )
        gone = [inside for here, inside in work.copies if not os.path.lexists(here)]
        for task in self._tasks(work.service):
            with archive(work.copies) as file:
                await unpack(self._scope, task, file, "/")
            if gone:
                code, _, errors = await output(self._scope.client, task.id, ("rm", "-rf", "--", *gone))
                if code:
                    raise NotCopied(f"rm in the container: {errors.decode(errors='replace').strip()}")

    async def _rebuild(self, name: str) -> None:
        from pyswarm.cli.compose_up import bring
        from pyswarm.cli.compose_wait import until_started

        click.echo(f'Rebuilding service "{name}" after changes were detected...', err=True)
        options = {**_REBUILD, "quiet_build": self._quiet}
        running = next((each.spec.mode.replicas for each in self._services(name)), 1)
        ids = await bring(
            self._scope, local.only(self._specs, [name]), {**options, "scales": (f"{name}={running}",)}
        )
        await until_started(self._scope, ids)
        click.echo(f'service "{name}" successfully built and recreated', err=True)


_REBUILD = {
    "build": True,
    "no_build": False,
    "pull": "policy",
    "quiet_pull": True,
    "no_recreate": False,
    "force_recreate": False,
    "remove_orphans": False,
}


def archive(copies: Sequence[tuple[str, str]]) -> IO[bytes]:
    """The paths that exist as an archive to be unpacked at /, owned by root."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for here, inside in copies:
            if not os.path.lexists(here):
                continue
            try:
                info = tar.gettarinfo(here, arcname=inside.lstrip("/"))
                info.uid = info.gid = 0
                info.uname = info.gname = ""
                if info.isreg():
                    with open(here, "rb") as data:
                        tar.addfile(info, data)
                else:
                    tar.addfile(info)
            except FileNotFoundError:
                continue
    file.seek(0)
    return file


async def watching(
    scope: Scope, specs: StackSpecs, names: Sequence[str] = (), *, quiet: bool = False
) -> None:
    """Watch until it is cancelled."""
    await Watcher(scope, specs, rules(scope.loaded(), names), quiet).run()


@click.command(cls=ComposeCommand)
@click.option("--no-up", is_flag=True, help="Do not build & start services before watching.")
@click.option("--prune/--no-prune", default=False, help="Prune dangling images on rebuild: not done here.")
@click.option("--quiet", is_flag=True, help="Hide build output.")
@click.argument("names", nargs=-1, metavar="[SERVICE...]")
@in_project(needed=True)
async def watch(scope: Scope, no_up: bool, prune: bool, quiet: bool, names: tuple[str, ...]) -> None:
    """Watch build context for service and rebuild/refresh containers when files are updated."""
    if prune:
        note("--prune has no effect: `pyswarm image prune` removes dangling images")
    project = scope.loaded()
    found = rules(project, names)
    specs = specs_of(project)
    if not no_up:
        from pyswarm.cli.compose_up import bring
        from pyswarm.cli.compose_wait import until_started

        wanted = local.only(specs, local.closure(project, names)) if names else specs
        ids = await bring(scope, wanted, {**_REBUILD, "build": False, "scales": (), "quiet_build": quiet})
        await until_started(scope, ids)
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, _end)
    await Watcher(scope, specs, found, quiet).run()


def _end() -> None:
    """Ctrl-C ends watching at once, whatever is under way with the cluster: there is nothing to take back."""
    with contextlib.suppress(OSError):
        sys.stderr.write("\n")
        sys.stderr.flush()
    os._exit(130)
