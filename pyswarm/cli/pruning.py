"""What the `prune` commands share: the question before, and docker's filters (label, label!, until)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import click

from pyswarm.cli import values
from pyswarm.cli.logs import moment
from pyswarm.errors import Invalid


def confirmed(warning: str, force: bool) -> bool:
    """Whether to go on: with --force without a question. To say no is no error, as with docker."""
    if force:
        return True
    click.echo(f"WARNING! This will remove {warning}")
    return click.confirm("Are you sure you want to continue?")


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which of the unused objects go: those made before a time, with all `labels` and none of `without`; labels
    are `key` or `key=value`."""

    before: float | None = None
    labels: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def takes(self, labels: Mapping[str, str], created: float) -> bool:
        """Whether an object with these labels, made at that Unix time, is meant."""
        if self.before is not None and created >= self.before:
            return False
        return all(_has(labels, each) for each in self.labels) and not any(
            _has(labels, each) for each in self.without
        )


def _has(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def chosen(filters: Sequence[str], now: float, *, until: bool = True) -> Chosen:
    """Read `--filter`s. Raises Invalid for others than docker's; `until` where the age of an object counts."""
    known = ("label", "label!", *(("until",) if until else ()))
    pairs = values.filters(filters)
    for key, _ in pairs:
        if key not in known:
            raise Invalid(f"invalid filter {key!r}: one of {', '.join(known)}")
    times = [moment(value, now) for key, value in pairs if key == "until"]
    return Chosen(
        before=min(times) if times else None,
        labels=tuple(value for key, value in pairs if key == "label"),
        without=tuple(value for key, value in pairs if key == "label!"),
    )
