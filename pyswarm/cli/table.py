"""What `ls`, `ps` and `inspect` print: tables, templates, JSON, YAML; pure but for the writing.

A row is a Struct of named fields. `--format` is `table`, `json`, `yaml`, `table TEMPLATE` or a template,
evaluated per row as docker does; columns are laid out by the rules of Go's text/tabwriter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyswarm.errors import Invalid
from pyswarm.gotemplate import HEADER_FUNCTIONS, Row, Struct, Template, TemplateError, to_json

MIN_WIDTH, PADDING = 10, 3


@dataclass(frozen=True, slots=True)
class Layout:
    """A noun's table: its default columns, and the header of every field a template may name."""

    columns: tuple[str, ...]
    headers: Mapping[str, str]
    quiet: str = "ID"
    """The field that -q prints."""
    cells: Mapping[str, str] = field(default_factory=dict[str, str])
    """Templates of columns that show more than their field."""

    @property
    def template(self) -> str:
        return "\t".join(self.cells.get(name, "{{." + name + "}}") for name in self.columns)


def row(labels: Mapping[str, str] | None = None, **fields: Any) -> Row:
    """One row. With `labels` come the field Labels (`a=b,c=d`) and the method Label."""
    values = dict(fields)
    if labels is not None:
        values["Labels"] = ",".join(f"{key}={labels[key]}" for key in sorted(labels))
        values["Label"] = label_method(labels)
    return Row(dict(sorted(values.items())), go_type="*formatter.Context")


def label_method(labels: Mapping[str, str]) -> Callable[[str], str]:
    """`{{.Label "name"}}` of these labels."""

    def label(name: str) -> str:
        return labels.get(name, "")

    return label


def _label_header(name: str) -> str:
    return name.split(".")[-1].replace("-", " ").replace("_", " ")


def formatted(rows: Sequence[Struct], layout: Layout, format: str = "", quiet: bool = False) -> str:
    """The text for `rows`, ending in a newline unless it is empty. Raises Invalid for a bad template."""
    if quiet and format in ("", "table"):
        return "".join(f"{each[layout.quiet]}\n" for each in rows)
    if format == "json":
        format = "{{json .}}"
    if format == "yaml":
        return _yaml([_plain(each) for each in rows])
    source = format or "table"
    is_table = source.startswith("table")
    if is_table:
        source = source.removeprefix("table").strip() or layout.template
    template = parsed(source)
    lines = [executed(template, each) for each in rows]
    if not is_table:
        return "".join(f"{line}\n" for line in lines)
    return aligned([_header(source, layout), *lines])


def parsed(source: str, *, strict: bool = False) -> Template:
    """A template as typed on a command line, where `\\t` and `\\n` stand for tab and newline."""
    try:
        return Template(source.replace("\\t", "\t").replace("\\n", "\n"), strict=strict)
    except TemplateError as error:
        raise Invalid(f"template parsing error: {error}") from None


def executed(template: Template, data: object) -> str:
    """The template's text for one element. Raises Invalid."""
    try:
        return template.execute(data)
    except TemplateError as error:
        raise Invalid(f"template parsing error: {error}") from None


def _header(source: str, layout: Layout) -> str:
    template = Template(source.replace("\\t", "\t").replace("\\n", "\n"), functions=HEADER_FUNCTIONS)
    names: dict[str, Any] = {**layout.headers, "Label": _label_header}
    return executed(template, Struct(names, go_type="*formatter.Context"))


def aligned(lines: Sequence[str]) -> str:
    """Tab separated lines in columns. As in text/tabwriter a column is a run of neighbouring lines that have
    a tab there, and the text after a line's last tab belongs to no column."""
    cells = [line.split("\t") for text in lines for line in text.split("\n")]
    widths: list[list[int]] = [[0] * len(line) for line in cells]
    _measure(cells, widths, 0, len(cells), 0)
    out: list[str] = []
    for line, width in zip(cells, widths, strict=True):
        padded = [cell.ljust(width[i]) for i, cell in enumerate(line[:-1])]
        out.append("".join(padded) + line[-1] + "\n")
    return "".join(out)


def _measure(cells: list[list[str]], widths: list[list[int]], start: int, end: int, column: int) -> None:
    at = start
    while at < end:
        if len(cells[at]) - 1 <= column:
            at += 1
            continue
        stop = at
        while stop < end and len(cells[stop]) - 1 > column:
            stop += 1
        width = max(MIN_WIDTH, *(len(cells[i][column]) + PADDING for i in range(at, stop)))
        for i in range(at, stop):
            widths[i][column] = width
        _measure(cells, widths, at, stop, column + 1)
        at = stop


def inspected(elements: Sequence[Struct], format: str = "", *, strict: bool = False) -> str:
    """What `inspect` prints for the elements that were found. `strict`: as for docker's nouns whose templates
    fall back on the raw answer (networks, volumes, images), a missing key is an error."""
    if not format:
        return to_json(list(elements), indent=4) + "\n"
    if format == "yaml":
        return _yaml([_plain(each) for each in elements])
    template = parsed("{{json .}}" if format == "json" else format, strict=strict)
    return "".join(executed(template, each) + "\n" for each in elements)


def _plain(value: Any) -> Any:
    """Structs as dicts and lists that a YAML writer knows."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items() if not callable(each)}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    return value


def _yaml(values: Sequence[Any]) -> str:
    import yaml

    return str(yaml.safe_dump(list(values), sort_keys=False, allow_unicode=True))
