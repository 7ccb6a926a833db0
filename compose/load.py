"""From files to a project: reads what it must and runs the passes in their order.

For each file: read (`compose.read`), fill in variables (`interpolate`), check and expand (`schema`),
resolve paths (`paths`), `extends`, `include`. Then over all files: merge (`merge`), environment files,
profiles, defaults (`normalize`), consistency (`check`), typed values (`model`). Every pass but the reading of
files is pure, and all of them report into one `Report`, so that a person sees every mistake at once.
"""

from __future__ import annotations

import errno
import gc
import os
import re
import select
import stat
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from compose import dotenv
from compose.check import check
from compose.errors import ComposeErrors, Position, Problem, Report, Source
from compose.interpolate import Variable, interpolate, variables
from compose.merge import drop_repeats, merge_files, merge_service, settle
from compose.model import FileObject, LanguageModel, Network, Service, Volume
from compose.normalize import default_contexts, named_only, normalize, project_name
from compose.paths import Resolver, absolute, is_remote
from compose.project import Content, Project, canonical_form
from compose.read import MAX_BYTES, Budget, decode, documents
from compose.schema import canonical
from compose.tree import Node, child_path, mapping, plain, sequence

DEFAULT_FILES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
OVERRIDE_FILES = (
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)
MAX_ENV_BYTES = 512 * 1024
PIPE_PATIENCE = 0.5
"""Seconds that a pipe in the place of a file may be silent."""
MAX_FILES = 200
"""Files that one project may read, included and extended ones together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """Passes that may be left out, for `compose config`."""

    paths: bool = True
    """Make paths absolute; else those of the project's own files stay, others are relative to its directory."""
    env_files: bool = True
    """Read the services' `env_file` and `label_file`; else the files stay named and unread."""
    defaults: bool = True
    """Spell out what Compose takes for granted."""
    consistency: bool = True
    """Check that what is used is defined and nothing contradicts."""


ALL_PASSES = Passes()
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*\Z")
_M = TypeVar("_M", bound=BaseModel)


def find_files(directory: Path | str, environ: Mapping[str, str]) -> tuple[Path, ...]:
    """The files to load when none were named: `COMPOSE_FILE`, or the default name and its override file in
    `directory` or the nearest directory above that has one. Raises ComposeErrors when there are none."""
    start = Path(directory).absolute()
    named = environ.get("COMPOSE_FILE", "")
    if named:
        separator = environ.get("COMPOSE_PATH_SEPARATOR") or os.pathsep
        return tuple(start / part if part != "-" else Path("-") for part in named.split(separator) if part)
    for place in (start, *start.parents):
        main = next((place / name for name in DEFAULT_FILES if (place / name).is_file()), None)
        if main is not None:
            override = next((place / name for name in OVERRIDE_FILES if (place / name).is_file()), None)
            return (main,) if override is None else (main, override)
    raise ComposeErrors(
        [Problem(f"no Compose file in {start} or above it: name one with -f, or create {DEFAULT_FILES[0]}")]
    )


def load_environment(
    directory: Path | str, env_files: Sequence[Path | str], environ: Mapping[str, str]
) -> dict[str, str]:
    """The variables that files are filled in from: `environ` on top of the environment files (those of
    `COMPOSE_ENV_FILES` when none are named, else `.env` in `directory`), and `PWD`.

    Raises ComposeErrors for files that are named and missing, or malformed.
    """
    named: Sequence[Path | str] = env_files
    if not named:
        named = [part.strip() for part in environ.get("COMPOSE_ENV_FILES", "").split(",") if part.strip()]
    paths = [str(Path(directory) / path) for path in named]
    if not paths and environ.get("COMPOSE_DISABLE_ENV_FILE", "").lower() not in ("1", "t", "true"):
        default = Path(directory) / ".env"
        paths = [str(default)] if default.is_file() else []
    found: dict[str, str] = {}
    for path in paths:
        if path != "/dev/null":
            found.update(dotenv.parse(read_env_file(path, None), environ.get, found))
    return {**found, **environ, "PWD": str(Path.cwd())}


def read_file(path: str, asked_at: Position | None) -> Source:
    """A file's text. Raises ComposeErrors that point at whoever named the file."""
    return decode(read_bytes(path, asked_at), _shown(path), str(Path(path).parent))


def read_env_file(path: str, asked_at: Position | None) -> Source:
    """The same for a file of variables, which is smaller."""
    return decode(read_bytes(path, asked_at, MAX_ENV_BYTES), _shown(path), str(Path(path).parent))


def _read_most(path: str, most: int) -> bytes:
    """A file's first bytes. Pipes are read as far as somebody writes: one that is silent for a while is an OSError,
    so that a FIFO in the place of a file holds nobody up."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    with open(descriptor, "rb", buffering=0) as file:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return file.read(most)
        pieces: list[bytes] = []
        left = most
        poll = select.poll()
        poll.register(descriptor, select.POLLIN | select.POLLHUP)
        while left > 0:
            if not poll.poll(PIPE_PATIENCE * 1000):
                raise OSError(errno.ETIMEDOUT, "nobody writes into this pipe")
            piece = os.read(descriptor, min(left, 1 << 20))
            if not piece:
                break
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)


def read_bytes(path: str, asked_at: Position | None, limit: int = MAX_BYTES) -> bytes:
    """A file's bytes, at most `limit`. Raises ComposeErrors."""
    try:
        data = _read_most(path, limit + 1)
    except OSError as error:
        message = f"cannot read {path}: {(error.strerror or str(error)).lower()}"
        position = asked_at if asked_at is not None else Position(Source(path))
        raise ComposeErrors([Problem(message, "", position)]) from None
    except ValueError:
        raise ComposeErrors(
            [Problem(f"{path!r} is not a path", "", asked_at or Position(Source("-")))]
        ) from None
    if len(data) > limit:
        message = f"{path} is larger than {limit} bytes"
        raise ComposeErrors([Problem(message, "", asked_at or Position(Source(path)))])
    return data


def _shown(path: str) -> str:
    """A path as messages show it: relative when it lies below the working directory."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def load_project(
    files: Sequence[Path | str],
    *,
    project_directory: Path | None = None,
    project_name: str | None = None,
    env_files: Sequence[Path] = (),
    environ: Mapping[str, str],
    profiles: Sequence[str] = (),
    strict: bool = False,
    stdin: Callable[[], str] | None = None,
    passes: Passes = ALL_PASSES,
) -> Project:
    """Load the project that `files` describe, later ones over earlier ones; "-" is standard input.

    `environ` is the process's environment. `profiles` defaults to `COMPOSE_PROFILES`. With `strict`,
    warnings are errors. Raises `compose.errors.ComposeErrors` with every problem that was found.
    """
    if not files:
        place = project_directory or Path.cwd()
        files = find_files(
            place, load_environment(place, [Path(path).absolute() for path in env_files], environ)
        )
    with _uncollected():
        return _Loader(files, project_directory, env_files, environ, stdin, passes).load(
            project_name, profiles, strict
        )


def load_template(
    files: Sequence[Path | str],
    *,
    project_directory: Path | None = None,
    project_name: str | None = None,
    env_files: Sequence[Path] = (),
    environ: Mapping[str, str],
    profiles: Sequence[str] = (),
    stdin: Callable[[], str] | None = None,
    passes: Passes = ALL_PASSES,
) -> dict[str, object]:
    """The canonical form with its variables left in place, for `compose config --no-interpolate`: values
    that hold variables are not checked, files of variables are not read, nothing is looked up."""
    if not files:
        files = find_files(project_directory or Path.cwd(), environ)
    with _uncollected():
        loader = _Loader(files, project_directory, env_files, environ, stdin, passes)
        return loader.template(project_name, profiles)


def list_variables(
    files: Sequence[Path | str],
    *,
    project_directory: Path | None = None,
    project_name: str | None = None,
    env_files: Sequence[Path] = (),
    environ: Mapping[str, str],
    stdin: Callable[[], str] | None = None,
) -> tuple[Variable, ...]:
    """Every variable that the files use, those that they include and extend too, each with its default and
    whether it must be set, in order of first use. The files need not be right for that, only readable: raises
    ComposeErrors for broken YAML."""
    if not files:
        files = find_files(project_directory or Path.cwd(), environ)
    with _uncollected():
        return _Loader(files, project_directory, env_files, environ, stdin, ALL_PASSES).variables(
            project_name
        )


@contextmanager
def _uncollected() -> Generator[None, None, None]:
    """No garbage collection meanwhile. Trees have no cycles, and a large file makes a million objects that
    stay: looking through them again and again takes as long as the loading itself."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _bad_name(name: str) -> str:
    return f'project name "{name}" must consist of a-z, 0-9, "-" and "_" and start with a letter or digit'


class _Layer:
    """What a file's values are seen against: its directory and its variables."""

    __slots__ = ("directory", "environment", "own")

    def __init__(self, directory: str, environment: Mapping[str, str], own: bool = False) -> None:
        """`own`: the project's own files, neither included nor extended."""
        self.directory = directory
        self.environment = environment
        self.own = own


class _Loader:
    def __init__(
        self,
        files: Sequence[Path | str],
        project_directory: Path | None,
        env_files: Sequence[Path],
        environ: Mapping[str, str],
        stdin: Callable[[], str] | None,
        passes: Passes,
    ) -> None:
        self._report = Report()
        self._passes = passes
        self._budget = Budget()
        self._files = [str(file) for file in files]
        self._stdin = stdin
        self._read: list[str] = []
        self._variables: dict[str, Variable] = {}
        self._extended: dict[tuple[str, int], Node] = {}
        self._flat: dict[int, tuple[Node, dict[str, Node | None]]] = {}
        self._directory = self._project_directory(project_directory)
        self._home = environ.get("HOME") or "/"
        self._environment = load_environment(
            self._directory, [Path(path).absolute() for path in env_files], environ
        )

    def _project_directory(self, said: Path | None) -> str:
        if said is not None:
            return str(said.absolute())
        for file in self._files:
            if file != "-":
                return os.path.normpath(str(Path(file).absolute().parent))
        return str(Path.cwd())

    # ------------------------------------------------------------------------------------- the passes

    def load(self, name: str | None, profiles: Sequence[str], strict: bool) -> Project:
        report = self._report
        root, name = self._merged(name)
        environment = self._environment
        root, disabled = self._profiles(root, profiles, environment)
        if self._passes.env_files:
            root = self._environment_files(root, environment)
        finish = normalize if self._passes.defaults else named_only
        root = finish(root, name, environment)
        off = mapping(finish(Node({"services": Node(disabled)}), name, environment).get("services"))
        if not mapping(root.get("services")) and not disabled:
            report.warn('there are no services: "services" is missing or empty', "", root.pos)
        if self._passes.consistency:
            check(root, report, disabled)
        report.check()
        if strict and report.warnings:
            raise ComposeErrors(report.warnings)
        return self._project(root, off, name, environment)

    def template(self, name: str | None, profiles: Sequence[str]) -> dict[str, object]:
        self._report.templates = True
        root, name = self._merged(name)
        root, _ = self._profiles(root, profiles, self._environment)
        self._report.check()
        finish = normalize if self._passes.defaults else named_only
        return canonical_form(finish(root, name, {}), escape=False, keep_env_files=True)

    def variables(self, name: str | None) -> tuple[Variable, ...]:
        self._report.templates = True
        self._merged(name)
        return tuple(self._variables.values())

    def _merged(self, name: str | None) -> tuple[Node, str]:
        """All files as one tree, and the project's name."""
        report = self._report
        sources = [(path, self._documents(path)) for path in self._files]
        name = self._name(name, [document for _, found in sources for document in found])
        self._environment["COMPOSE_PROJECT_NAME"] = name
        layer = _Layer(self._directory, self._environment, own=True)
        root: Node | None = None
        for path, found in sources:
            for document in found:
                tree = self._file(document, layer, [path], report)
                root = tree if root is None else merge_files(root, tree, report)
        if root is None:
            place = Position(Source(_shown(str(Path(self._files[0]).absolute()))))
            raise ComposeErrors([Problem("the file is empty: it must hold services", "", place)])
        here = self._directory if self._passes.paths else "."
        return default_contexts(drop_repeats(settle(root)), here), name

    def _found(self, path: str) -> str:
        """Where a path is that a canonical tree names."""
        return path if self._passes.paths else absolute(path, self._directory, self._home)

    def _documents(self, path: str) -> list[Node]:
        if path == "-":
            text = self._stdin() if self._stdin is not None else ""
            source = decode(text.encode(errors="surrogateescape"), "<stdin>", self._directory)
        else:
            path = str(Path(path).absolute())
            source = read_file(path, None)
        self._read.append(path)
        return self._collect(documents(source, self._budget))

    def _collect(self, found: list[Node]) -> list[Node]:
        for document in found:
            for variable in variables(document):
                self._variables.setdefault(variable.name, variable)
        return found

    def _name(self, said: str | None, found: Sequence[Node]) -> str:
        """The project's name: as told, COMPOSE_PROJECT_NAME, `name:` of the last file, the directory's."""
        if said is None or not said:
            said = self._environment.get("COMPOSE_PROJECT_NAME") or None
        if said:
            if not _NAME.match(said):
                raise ComposeErrors([Problem(_bad_name(said))])
            return said
        named = [node for document in found if (node := document.get("name")) is not None]
        if named:
            node = interpolate(named[-1], self._environment, Report(), "name")
            if isinstance(node.value, str):
                if not _NAME.match(node.value):
                    self._report.error(_bad_name(node.value), "name", node.pos)
                return node.value
        name = project_name(Path(self._directory).name)
        if not name:
            raise ComposeErrors(
                [Problem(f"cannot make a project name of {self._directory}: set one with -p")]
            )
        return name

    def _file(self, document: Node, layer: _Layer, trail: Sequence[str], report: Report) -> Node:
        """One document through its own passes. `trail` holds the files that led here, itself last."""
        tree = self._expand(document, layer, report)
        tree = self._extends(tree, layer, trail[-1], report)
        return self._include(tree, layer, trail, report)

    def _expand(self, document: Node, layer: _Layer, report: Report) -> Node:
        filled = document if report.templates else interpolate(document, layer.environment, report)
        return self._resolver(layer).resolve(canonical(filled, report))

    def _resolver(self, layer: _Layer) -> Resolver:
        project = None if self._passes.paths else self._directory
        return Resolver(layer.directory, self._home, project, layer.own)

    # --------------------------------------------------------------------------------------- extends

    def _extends(self, root: Node, layer: _Layer, path: str, report: Report) -> Node:
        services = root.get("services")
        if services is None or not any("extends" in mapping(child) for child in mapping(services).values()):
            return root
        done: dict[str, Node] = {}
        for name, service in mapping(services).items():
            done[name] = self._extended_service(services, name, layer, [(path, name)], report) or service
        return root.replaced({**mapping(root), "services": services.replaced(done)})

    def _extended_service(
        self, services: Node, name: str, layer: _Layer, trail: list[tuple[str, str]], report: Report
    ) -> Node | None:
        """A service on top of all that it extends; None when that failed and was reported. Each is made
        once, whoever extends it."""
        _, made = self._flat.setdefault(id(services), (services, {}))
        if name not in made:
            made[name] = self._extend(services, name, layer, trail, report)
        return made[name]

    def _extend(
        self, services: Node, name: str, layer: _Layer, trail: list[tuple[str, str]], report: Report
    ) -> Node | None:
        service = mapping(services)[name]
        extends = service.get("extends")
        if extends is None or extends.get("service") is None:
            return service
        target = extends.get("service")
        assert target is not None
        file = extends.get("file")
        place = f"{child_path('services', name)}.extends"
        path, siblings, below = trail[-1][0], services, layer
        if file is not None and file.text():
            path = file.text()
            if is_remote(path):
                report.error(f'"{path}" is remote: fetch it and name the local copy', place, file.pos)
                return None
            path = self._found(path)
            below = _Layer(str(Path(path).parent), layer.environment)
            found = self._extended_file(path, below, file, place, report)
            if found is None:
                return None
            siblings = found.get("services") or Node({})
        step = (path, target.text())
        if step in trail:
            chain = " -> ".join(f"{what} ({_shown(where)})" for where, what in [*trail, step])
            report.error(f"services extend each other: {chain}", place, extends.pos)
            return None
        if target.text() not in mapping(siblings):
            where = f" in {_shown(path)}" if file is not None else ""
            report.error(f'service "{target.text()}" to extend is not defined{where}', place, target.pos)
            return None
        if len(trail) >= 100:
            report.error("extends more than 100 services in a row", place, extends.pos)
            return None
        base = self._extended_service(siblings, target.text(), below, [*trail, step], report)
        if base is None:
            return None
        merged = merge_service(base, service, child_path("services", name), report)
        left = {key: child for key, child in mapping(merged).items() if key != "extends"}
        return merged.replaced(left)

    def _extended_file(
        self, path: str, layer: _Layer, asked: Node, place: str, report: Report
    ) -> Node | None:
        """The canonical tree of a file that holds services to extend; read once."""
        key = (path, id(layer.environment))
        if key in self._extended:
            return self._extended[key]
        found = self._read_more(path, asked, place, report)
        if found is None:
            return None
        root: Node | None = None
        for document in found:
            tree = self._expand(document, layer, report)
            root = tree if root is None else merge_files(root, tree, report)
        if root is None:
            report.error(f"{_shown(path)} is empty", place, asked.pos)
            return None
        self._extended[key] = root
        return root

    def _read_more(self, path: str, asked: Node, place: str, report: Report) -> list[Node] | None:
        """The documents of a file that another one names; None when that failed and was reported."""
        if len(self._read) >= MAX_FILES:
            report.error(f"more than {MAX_FILES} files belong to this project", place, asked.pos)
            return None
        try:
            found = documents(read_file(path, asked.pos), self._budget)
        except ComposeErrors as error:
            for problem in error.problems:
                report.error(problem.message, problem.path or place, problem.position, problem.related)
            return None
        self._read.append(path)
        return self._collect(found)

    # --------------------------------------------------------------------------------------- include

    def _include(self, root: Node, layer: _Layer, trail: Sequence[str], report: Report) -> Node:
        include = root.get("include")
        if include is None:
            return root
        rest = {key: child for key, child in mapping(root).items() if key != "include"}
        root = root.replaced(rest)
        for index, entry in enumerate(sequence(include)):
            included = self._included(entry, f"include[{index}]", layer, trail, report)
            if included is not None:
                root = self._import(root, included, f"include[{index}]", entry, report)
        return root

    def _included(
        self, entry: Node, path: str, layer: _Layer, trail: Sequence[str], report: Report
    ) -> Node | None:
        paths = sequence(entry.get("path"))
        if not paths:
            report.error('key "path" is missing', path, entry.pos)
            return None
        for item in paths:
            if is_remote(item.text()):
                message = f'"{item.text()}" is remote: fetch it and include the local copy'
                report.error(message, path, item.pos)
                return None
        files = [absolute(item.text(), layer.directory, self._home) for item in paths]
        said = entry.get("project_directory")
        if said is not None and said.text():
            directory = absolute(said.text(), layer.directory, self._home)
        else:
            directory = str(Path(files[0]).parent)
        environment = self._included_environment(entry, directory, layer, report)
        if environment is None:
            return None
        below = _Layer(directory, environment)
        root: Node | None = None
        for file, node in zip(files, paths, strict=True):
            if file in [str(Path(step).absolute()) if step != "-" else step for step in trail]:
                chain = " -> ".join(_shown(step) for step in [*trail, file])
                report.error(f"files include each other: {chain}", path, node.pos)
                return None
            for document in self._read_more(file, node, path, report) or []:
                tree = self._file(document, below, [*trail, file], report)
                root = tree if root is None else merge_files(root, tree, report)
        return root if root is None else default_contexts(root, self._resolver(below).place("."))

    def _included_environment(
        self, entry: Node, directory: str, layer: _Layer, report: Report
    ) -> Mapping[str, str] | None:
        """What the included files are filled in from: this project's variables win over its own."""
        said = [item.text() for item in sequence(entry.get("env_file"))]
        files = [absolute(file, layer.directory, self._home) for file in said if file != "/dev/null"]
        if not said:
            default = Path(directory) / ".env"
            files = [str(default)] if default.is_file() else []
        if not files:
            return layer.environment
        found: dict[str, str] = {}
        try:
            for file in files:
                found.update(dotenv.parse(read_env_file(file, entry.pos), layer.environment.get, found))
        except ComposeErrors as error:
            for problem in error.problems:
                report.error(problem.message, problem.path, problem.position, problem.related)
            return None
        return {**found, **layer.environment}

    @staticmethod
    def _import(root: Node, included: Node, path: str, entry: Node, report: Report) -> Node:
        """Add what was included. The same thing twice is fine; two things of one name are not."""
        value = dict(mapping(root))
        for kind, node in mapping(included).items():
            if kind == "name" or kind.startswith("x-"):
                continue
            mine = value.get(kind)
            entries = dict(mapping(mine))
            keys = dict((mine.keys if mine is not None else None) or {})
            for name, child in mapping(node).items():
                known = entries.get(name)
                if known is not None and plain(settle(known)) != plain(settle(child)):
                    report.error(
                        f"{kind[:-1]} {name} is defined by what is included too",
                        f"{path}",
                        entry.pos,
                        (("here", known.pos), ("and", child.pos)),
                    )
                    continue
                entries[name] = child
                keys[name] = node.key_position(name)
            value[kind] = Node(entries, (mine or node).pos, keys)
        return root.replaced(value)

    # ---------------------------------------------------------------- environment files, profiles

    def _environment_files(self, root: Node, environment: Mapping[str, str]) -> Node:
        services = root.get("services")
        if services is None:
            return root
        done: dict[str, Node] = {}
        for name, service in mapping(services).items():
            path = child_path("services", name)
            if "env_file" in mapping(service):
                service = self._with_env_files(service, path, environment)
            if "label_file" in mapping(service):
                service = self._with_label_files(service, path)
            done[name] = service
        return root.replaced({**mapping(root), "services": services.replaced(done)})

    def _with_env_files(self, service: Node, path: str, environment: Mapping[str, str]) -> Node:
        said = service.get("environment")
        own = mapping(said)

        def lookup(name: str) -> str | None:
            if name in environment:
                return environment[name]
            mine = own.get(name)
            return mine.value if mine is not None and isinstance(mine.value, str) else None

        found: dict[str, Node] = {}
        values: dict[str, str] = {}
        for index, entry in enumerate(sequence(service.get("env_file"))):
            file = entry.get("path")
            if file is None:
                continue
            required = entry.get("required")
            must = required is None or required.value is not False
            name = self._found(file.text())
            if not must and not Path(name).exists():
                continue
            raw = entry.get("format")
            try:
                source = read_env_file(name, None)
                if raw is not None and raw.value == "raw":
                    values.update(dotenv.parse_raw(source, lookup))
                else:
                    values.update(dotenv.parse(source, lookup, values))
            except ComposeErrors as error:
                for problem in error.problems:
                    at = problem.position if problem.position.line else file.pos
                    self._report.error(problem.message, f"{path}.env_file[{index}]", at)
            found = {name: Node(value, file.pos) for name, value in values.items()}
        position = said.pos if said is not None else service.pos
        keys = said.keys if said is not None else None
        merged = Node({**found, **own}, position, keys)
        return service.replaced({**mapping(service), "environment": merged})

    def _with_label_files(self, service: Node, path: str) -> Node:
        said = service.get("labels")
        found: dict[str, Node] = {}
        known: dict[str, str] = {}
        for index, file in enumerate(sequence(service.get("label_file"))):
            try:
                values = dotenv.parse(read_env_file(self._found(file.text()), None), known.get)
            except ComposeErrors as error:
                for problem in error.problems:
                    at = problem.position if problem.position.line else file.pos
                    self._report.error(problem.message, f"{path}.label_file[{index}]", at)
                continue
            known.update(values)
            found.update({name: Node(value, file.pos) for name, value in values.items()})
        position = said.pos if said is not None else service.pos
        merged = Node({**found, **mapping(said)}, position, said.keys if said is not None else None)
        return service.replaced({**mapping(service), "labels": merged})

    def _profiles(
        self, root: Node, chosen: Sequence[str], environment: Mapping[str, str]
    ) -> tuple[Node, dict[str, Node]]:
        """The root with the enabled services, and those that no chosen profile enables."""
        if not chosen:
            chosen = [part.strip() for part in environment.get("COMPOSE_PROFILES", "").split(",")]
        services = root.get("services")
        enabled: dict[str, Node] = {}
        disabled: dict[str, Node] = {}
        for name, service in mapping(services).items():
            wanted = [item.text() for item in sequence(service.get("profiles"))]
            on = not wanted or "*" in chosen or any(profile in chosen for profile in wanted)
            (enabled if on else disabled)[name] = service
        if services is None or not disabled:
            return root, {}
        return root.replaced({**mapping(root), "services": services.replaced(enabled)}), disabled

    # ----------------------------------------------------------------------------------- the result

    def _project(
        self, root: Node, disabled: Mapping[str, Node], name: str, environment: Mapping[str, str]
    ) -> Project:
        project = Project(
            name=name,
            directory=self._directory,
            services=self._models(root.get("services"), Service, "services"),
            disabled=self._models(Node(dict(disabled)), Service, "services"),
            networks=self._models(root.get("networks"), Network, "networks"),
            volumes=self._models(root.get("volumes"), Volume, "volumes"),
            secrets=self._models(root.get("secrets"), FileObject, "secrets"),
            configs=self._models(root.get("configs"), FileObject, "configs"),
            models=self._models(root.get("models"), LanguageModel, "models"),
            environment=environment,
            warnings=tuple(self._report.warnings),
            files=tuple(self._read),
            variables=tuple(self._variables.values()),
            contents={
                **self._contents("secret", root.get("secrets"), environment),
                **self._contents("config", root.get("configs"), environment),
            },
            tree=root,
        )
        self._report.check()
        return project

    def _models(self, node: Node | None, model: type[_M], kind: str) -> dict[str, _M]:
        """Typed values of one kind. The shapes have checked everything: a failure here is reported all
        the same, at its place."""
        found: dict[str, _M] = {}
        for name, child in mapping(node).items():
            try:
                found[name] = model.model_validate(plain(child) or {})
            except ValidationError as error:
                for detail in error.errors():
                    at, path = _locate(child, child_path(kind, name), detail["loc"])
                    self._report.error(detail["msg"], path, at)
        return found

    def _contents(
        self, kind: str, node: Node | None, environment: Mapping[str, str]
    ) -> dict[tuple[str, str], Content]:
        return {(kind, name): self._content(child, environment) for name, child in mapping(node).items()}

    def _content(self, node: Node, environment: Mapping[str, str]) -> Content:
        """A secret's or config's bytes. What is missing matters only to whoever deploys it."""
        content, variable, file = node.get("content"), node.get("environment"), node.get("file")
        if content is not None:
            return Content(content.text().encode())
        if variable is not None:
            value = environment.get(variable.text())
            if value is None:
                return Content(missing=f"variable {variable.text()} is not set")
            return Content(value.encode(errors="surrogateescape"))
        if file is not None:
            try:
                return Content(read_bytes(self._found(file.text()), file.pos))
            except ComposeErrors as error:
                return Content(missing=error.problems[0].message)
        return Content()


def _locate(node: Node, path: str, steps: Sequence[int | str]) -> tuple[Position, str]:
    """Where the value at `steps` below `node` stands."""
    for step in steps:
        child: Node | None = None
        if isinstance(step, str):
            child = node.get(step)
            path = child_path(path, step)
        elif isinstance(node.value, list) and step < len(node.value):
            child = node.value[step]
            path = f"{path}[{step}]"
        if child is None:
            break
        node = child
    return node.pos, path
