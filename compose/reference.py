"""The table of attributes in `docs/compose.md`, made from the tables that the loader runs by.

`python -m compose.reference docs/compose.md` writes it between the two marks in that file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from compose.schema import PROJECT
from compose.shapes import Custom, ListOf, MapOf, Obj, Shape, ShortOrObj
from compose.support import SUPPORT

BEGIN = "<!-- attributes: made by `python -m compose.reference` -->"
END = "<!-- attributes end -->"


def attributes() -> Iterator[tuple[str, Shape]]:
    """Every attribute by its path (`*` stands for a name or a place in a list), and its shape."""
    yield from _below(PROJECT, "", ())


def _below(shape: Shape, path: str, trail: tuple[Shape, ...]) -> Iterator[tuple[str, Shape]]:
    if shape in trail:
        return
    trail = (*trail, shape)
    if isinstance(shape, Obj):
        for key, child in shape.fields.items():
            place = f"{path}.{key}" if path else key
            yield place, child
            yield from _below(child, place, trail)
    elif isinstance(shape, (ListOf, MapOf)):
        yield from _below(shape.inner, f"{path}.*", trail)
    elif isinstance(shape, (ShortOrObj, Custom)) and shape.inner is not None:
        yield from _below(shape.inner, path, trail)


def table() -> str:
    """The table in Markdown."""
    lines = ["| attribute | value | in a stack |", "|---|---|---|"]
    for path, shape in attributes():
        support = SUPPORT.get(path)
        above = _warned_above(path)
        if path == "version":
            said = "obsolete: ignored, with a warning"
        elif above and (support is None or support.kind != "warned"):
            said = f"**warned** with `{above}`"
        elif support is None:
            said = "runs"
        elif support.kind == "differs":
            said = f"runs differently: {support.text}"
        else:
            said = f"**warned**: {support.text}"
        expected = shape.expected.replace("|", "\\|")
        lines.append(f"| `{path}` | {expected} | {said} |")
    return "\n".join(lines)


def _warned_above(path: str) -> str:
    """The attribute above this one that does nothing, so that this one does nothing either; "" if there is none."""
    steps = path.split(".")
    for count in range(1, len(steps)):
        above = ".".join(steps[:count])
        support = SUPPORT.get(above)
        if support is not None and support.kind == "warned":
            return above
    return ""


def written(document: str) -> str:
    """The document with the table between its marks."""
    head, _, rest = document.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{table()}\n\n{END}{tail}"


def main(path: str) -> None:
    """Write the table into the file."""
    file = Path(path)
    file.write_text(written(file.read_text()))


if __name__ == "__main__":
    main(sys.argv[1])
