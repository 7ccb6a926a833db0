"""Logs of the daemons: text or JSON lines on standard error, with node, service and task ids bound to them."""

from __future__ import annotations

import contextvars
import json
import logging
import sys
from collections.abc import Callable, Iterator

from pyswarm.clock import rfc3339
from pyswarm.errors import PyswarmError

bound: contextvars.ContextVar[dict[str, str] | None] = contextvars.ContextVar("bound", default=None)
"""Ids that every log line of the current asyncio task carries."""


def bind(**ids: str) -> None:
    """Add ids to the log lines of the current asyncio task."""
    bound.set({**(bound.get() or {}), **ids})


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        ids = "".join(f" {key}={value}" for key, value in (bound.get() or {}).items())
        text = f"{rfc3339(record.created)[:23]}Z {record.levelname.lower()} {record.getMessage()}{ids}"
        return text + ("\n" + self.formatException(record.exc_info) if record.exc_info else "")


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": rfc3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **(bound.get() or {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def setup(daemon: str, log_format: str = "text", level: int = logging.INFO) -> None:
    """Send the process's logs to standard error, where its supervisor keeps them."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if log_format == "json" else _Text())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger(daemon).setLevel(level)


def exit_code(run: Callable[[], None]) -> int:
    """Run a daemon; its end by an error of ours is one log line and exit code 1, anything else a traceback."""
    try:
        run()
    except Exception as error:
        ours = [leaf for leaf in leaves(error) if isinstance(leaf, PyswarmError)]
        if len(ours) != len(list(leaves(error))):
            logging.critical("this daemon has failed", exc_info=error)
        for leaf in ours:
            logging.error("%s", leaf)
        return 1
    return 0


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The single errors of a group, nested ones too."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error
