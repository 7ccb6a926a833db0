"""Where the time goes: how often a part was called and how long its calls took, for the benchmarks.

Off unless PYSWARM_SPANS names a directory when a daemon starts; then the parts that a daemon wraps with
`timed` are measured, and SIGUSR1 makes it write what came together since the last time to `<dir>/<name>.json`.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_totals: dict[str, list[float]] = {}
"""Span -> [calls, seconds]."""


def directory() -> Path | None:
    """Where figures go, or None when nothing is measured."""
    text = os.environ.get("PYSWARM_SPANS", "")
    return Path(text) if text else None


def write_on_signal(name: str) -> None:
    """Let SIGUSR1 write and reset this daemon's figures."""
    target = directory()
    if target is None:
        return

    def write(number: int, frame: object) -> None:
        scratch = target / f"{name}.new"
        scratch.write_text(json.dumps({"spans": _totals, "cpu": time.process_time()}))
        scratch.replace(target / f"{name}.json")
        _totals.clear()

    signal.signal(signal.SIGUSR1, write)


def timed(part: T, spans: dict[str, str]) -> T:
    """`part` with those of its methods measured that `spans` names: method name -> span. Returned as it is when
    nothing is measured."""
    if directory() is not None:
        for method, span in spans.items():
            if hasattr(part, method):
                setattr(part, method, _measured(getattr(part, method), span))
    return part


def _measured(call: Callable[..., Any], span: str) -> Callable[..., Any]:  # Any: any method of any part
    def note(start: float) -> None:
        total = _totals.setdefault(span, [0, 0.0])
        total[0] += 1
        total[1] += time.perf_counter() - start

    @functools.wraps(call)
    async def asynchronous(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return await call(*args, **kwargs)
        finally:
            note(start)

    @functools.wraps(call)
    def synchronous(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return call(*args, **kwargs)
        finally:
            note(start)

    return asynchronous if inspect.iscoroutinefunction(call) else synchronous
