"""Values as people read them: ages, sizes, cut-off ids and texts; pure. The wording is docker's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pyswarm.objects import TaskState
from pyswarm.specs import PortConfig

SHORT_ID = 12
"""Characters of an id in tables."""
NEVER = 0.0


def duration(seconds: float) -> str:
    """Docker's words for a span of time: `Less than a second`, `About an hour`, `3 weeks`."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return "1 second" if whole == 1 else f"{whole} seconds"
    minutes, hours = whole // 60, int(seconds / 3600 + 0.5)
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    for limit, unit, name in (
        (24 * 14, 24, "days"),
        (24 * 60, 24 * 7, "weeks"),
        (24 * 730, 24 * 30, "months"),
    ):
        if hours < limit:
            return f"{hours // unit} {name}"
    return f"{int(seconds / 3600 / 24 / 365)} years"


def ago(stamp: float, now: float) -> str:
    """`5 minutes ago`; `N/A` for a time that never was."""
    return f"{duration(now - stamp)} ago" if stamp else "N/A"


def decimal_size(count: float) -> str:
    """Bytes in powers of 1,000 with 3 digits, as `image ls` shows them: `7.8MB`."""
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        text = f"{count:.3g}"
        if float(text) < 1000 or unit == "PB":
            return text + unit
        count /= 1000
    raise AssertionError("unreachable")


def binary_size(count: float) -> str:
    """Bytes in powers of 1,024 with 4 digits, as `info` and `stats` show them: `1.944GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if count < 1024 or unit == "PiB":
            return f"{count:.4g}{unit}"
        count /= 1024
    raise AssertionError("unreachable")


def state(value: TaskState) -> str:
    """A task state as `ps` writes it: `Running`."""
    return value.name.capitalize()


def current_state(value: TaskState, stamp: float, now: float) -> str:
    """`Running 2 minutes ago`."""
    return f"{state(value)} {duration(now - stamp).lower()} ago"


def short(identifier: str, full: bool = False) -> str:
    """An id cut to the length that tables have, unless `full`."""
    return identifier if full else identifier[:SHORT_ID]


def command(words: Sequence[str]) -> str:
    """A command line as docker's lists have it: words with a space between quotes, as they are."""
    return " ".join(f"'{word}'" if " " in word else word for word in words)


def ellipsis(text: str, width: int) -> str:
    """`text` in at most `width` characters, the last one an ellipsis if some are missing."""
    return text if len(text) <= width else text[: width - 1] + "…"


def image(reference: str, full: bool = False) -> str:
    """An image reference without its digest (unless that is all there is, or `full`)."""
    name, separator, _ = reference.partition("@")
    if full or not separator:
        return reference
    return name


def natural(text: str) -> list[tuple[int, int, str]]:
    """A sort key in which web.2 comes before web.10."""
    parts = re.split(r"(\d+)", text)
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts if part]


def ports(published: Sequence[PortConfig]) -> str:
    """Published ports as `service ls` shows them, neighbours joined: `*:80-81->8080-8081/tcp`."""
    wanted = sorted(
        (port for port in published if port.publish_mode == "ingress"),
        key=lambda port: (port.protocol, port.published_port, port.target_port),
    )
    return ", ".join(_joined(wanted))


def host_ports(published: Iterable[PortConfig]) -> str:
    """Host-mode ports of one task: `*:8080->80/tcp,*:53->53/udp`."""
    return ",".join(f"*:{p.published_port}->{p.target_port}/{p.protocol}" for p in published)


def _joined(ports: Sequence[PortConfig]) -> list[str]:
    runs: list[list[PortConfig]] = []
    for port in ports:
        last = runs[-1][-1] if runs else None
        if (
            last is not None
            and (last.protocol, last.host_ip) == (port.protocol, port.host_ip)
            and last.published_port + 1 == port.published_port
            and last.target_port + 1 == port.target_port
        ):
            runs[-1].append(port)
        else:
            runs.append([port])
    return [_run(run[0], run[-1]) for run in runs]


def _run(first: PortConfig, last: PortConfig) -> str:
    address = first.host_ip or "*"
    if first is last:
        return f"{address}:{first.published_port}->{first.target_port}/{first.protocol}"
    outer = f"{first.published_port}-{last.published_port}"
    return f"{address}:{outer}->{first.target_port}-{last.target_port}/{first.protocol}"
