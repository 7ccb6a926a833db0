"""Signal names and numbers as the Engine API takes them. Pure."""

from __future__ import annotations

import signal
from collections.abc import Mapping

from pyswarm.errors import Invalid

_NAMES: Mapping[str, int] = {
    name[3:]: int(number)
    for name, number in signal.Signals.__members__.items()
    if name not in ("SIGRTMIN", "SIGRTMAX")
}
_RTMIN, _RTMAX = 34, 64
"""The range of glibc and musl on Linux; the kernel's own starts at 32, which the C libraries keep."""


def signal_number(text: str, where: str = "signal") -> int:
    """The number of `SIGTERM`, `term`, `15` or `RTMIN+3`; Invalid for what is no signal of Linux."""
    name = text.strip().upper().removeprefix("SIG")
    if name.isdecimal():
        number = int(name)
    elif name.startswith(("RTMIN", "RTMAX")):
        number = _realtime(name)
    else:
        number = _NAMES.get(name, 0)
    if not 1 <= number <= _RTMAX:
        raise Invalid(f"{where}: {text!r} is no signal: write a name as `SIGTERM` or a number from 1 to 64")
    return number


def _realtime(name: str) -> int:
    base = _RTMIN if name.startswith("RTMIN") else _RTMAX
    offset = name[5:]
    if not offset:
        return base
    if offset[0] not in "+-" or not offset[1:].isdecimal():
        return 0
    number = base + int(offset)
    return number if _RTMIN <= number <= _RTMAX else 0
