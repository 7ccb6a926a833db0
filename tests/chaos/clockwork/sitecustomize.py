"""On the path of processes that run under libfaketime: with its monotonic clock left alone, libfaketime 0.9.10 breaks
the system call that Python's time.sleep makes (EINVAL), so sleep by select, which it does not touch."""

import select
import time


def _sleep(seconds: float) -> None:
    select.select((), (), (), seconds)


time.sleep = _sleep
