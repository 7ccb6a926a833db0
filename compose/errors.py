"""What goes wrong in a Compose file, and where: positions, problems, and the error that carries them all."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import NamedTuple

from pyswarm.errors import Invalid


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """One file that was read: the name to show and its lines, for excerpts."""

    name: str
    text: str = field(default="", repr=False)
    directory: str = ""
    """Absolute directory of the file; "" for standard input."""

    def line(self, number: int) -> str:
        """Line `number` (from 1) without its end, or "" when there is none."""
        lines = self.text.splitlines()
        return lines[number - 1] if 0 < number <= len(lines) else ""


class Position(NamedTuple):
    """A place in a file. Lines and columns count from 1; 0 means the file as a whole."""

    source: Source
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        if not self.line:
            return self.source.name
        return f"{self.source.name}:{self.line}:{self.column}"


NOWHERE = Position(Source("<none>"))


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake or warning. `str()` is `file:line:col: path: message`."""

    message: str
    path: str = ""
    """Dotted path of the value: `services.web.ports[0]`; "" for the file as a whole."""
    position: Position = field(default=NOWHERE)
    related: tuple[tuple[str, Position], ...] = ()
    """Other places that matter, each with what it is: ("extended here", position)."""

    def __str__(self) -> str:
        place = f"{self.path}: " if self.path else ""
        notes = "".join(f" ({what} at {where})" for what, where in self.related)
        if self.position is NOWHERE:
            return f"{place}{self.message}{notes}"
        return f"{self.position}: {place}{self.message}{notes}"

    def excerpt(self) -> str:
        """The offending line with a caret below, or "" when the place has no line."""
        position = self.position
        line = position.source.line(position.line)
        if not line:
            return ""
        lead = "".join("\t" if char == "\t" else " " for char in line[: position.column - 1])
        number = f"{position.line:>5} | "
        return f"{number}{line}\n{' ' * (len(number) - 2)}| {lead}^"


class ComposeErrors(Invalid):
    """Everything that is wrong with a project's files, in the order of the files."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def pretty(self) -> str:
        """All problems, each with the line it is about and a caret."""
        parts: list[str] = []
        for problem in self.problems:
            parts.append(str(problem))
            excerpt = problem.excerpt()
            if excerpt:
                parts.append(excerpt)
        return "\n".join(parts)


MOST_PROBLEMS = 200
"""A file that is all wrong is cut off here: nobody reads more, and hostile input must not make us."""


class Report:
    """Collects problems and warnings while the passes go on."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.templates = False
        """Whether variables were left in place: values that hold one may be anything yet."""
        self._seen: set[tuple[str, Position, str]] = set()

    def error(
        self,
        message: str,
        path: str = "",
        position: Position = NOWHERE,
        related: tuple[tuple[str, Position], ...] = (),
    ) -> None:
        """Note a mistake; the same mistake at the same place counts once."""
        key = (message, position, path)
        if key in self._seen or len(self.problems) >= MOST_PROBLEMS:
            return
        self._seen.add(key)
        self.problems.append(Problem(message, path, position, related))

    def warn(self, message: str, path: str = "", position: Position = NOWHERE) -> None:
        """Note something valid that a person should know."""
        key = (message, position, path)
        if key in self._seen or len(self.warnings) >= MOST_PROBLEMS:
            return
        self._seen.add(key)
        self.warnings.append(Problem(message, path, position))

    @property
    def full(self) -> bool:
        """Whether further mistakes are no longer noted: no need to look for near misses then."""
        return len(self.problems) >= MOST_PROBLEMS

    def mistaken(self, depth: int) -> frozenset[str]:
        """The first `depth` steps of each path that has a mistake: what follows from it there is better
        left unsaid."""
        return frozenset(".".join(problem.path.split(".")[:depth]) for problem in self.problems)

    def check(self) -> None:
        """Raise `ComposeErrors` if any mistake was noted: file by file, each from top to bottom."""
        if self.problems:
            raise ComposeErrors(in_order(self.problems))


def in_order(problems: Sequence[Problem]) -> list[Problem]:
    """Problems by file, in the order in which the files first turn up, then by line and column."""
    files: dict[str, int] = {}
    for problem in problems:
        files.setdefault(problem.position.source.name, len(files))

    def place(problem: Problem) -> tuple[int, int, int]:
        position = problem.position
        return files[position.source.name], position.line, position.column

    return sorted(problems, key=place)


@functools.lru_cache(maxsize=1024)
def near_miss(word: str, known: tuple[str, ...]) -> str:
    """` (did you mean "environment"?)` for the nearest known word, or "" when none is near."""
    matches = get_close_matches(word, known, n=1, cutoff=0.6)
    if not matches and len(word) > 2:
        squeezed = word.replace("-", "_").replace("_", "").lower()
        matches = [name for name in known if name.replace("_", "") == squeezed]
    return f' (did you mean "{matches[0]}"?)' if matches else ""
