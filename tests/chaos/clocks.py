"""A wall clock of its own for a machine of a lab, set while its programs run.

There are no namespaces for the wall clock, so this is libfaketime's work, for pyswarm's own processes (and their TLS).
It does not reach etcd: Go asks the kernel past the C library. The monotonic clock is everybody's and never set, as on
a real machine.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from pyswarm.errors import MissingProgram
from pyswarm.lab import Machine

LIBRARY = "faketime/libfaketimeMT.so.1"
DELAY = 1.0
"""Seconds until running programs see a new time."""
_CLOCKWORK = Path(__file__).parent / "clockwork"
_SHARED = Path("/dev/shm")


def give(machine: Machine, seconds: int = 0) -> None:
    """Give a machine a clock, before anything runs on it; it is `seconds` off."""
    library = next(iter(sorted(Path("/usr/lib").glob(f"*/{LIBRARY}"))), None)
    if library is None:
        raise MissingProgram("libfaketime", "faketime", "it sets the clocks of a lab's machines")
    path = [str(_CLOCKWORK), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(_file(machine)),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_CACHE_DURATION": str(int(DELAY)),
        "FAKETIME_SKIP_CMDS": "conmon,runc,crun,etcd,buildah",
        "PYTHONPATH": os.pathsep.join(path),
    }
    step(machine, seconds)
    (machine.directory / "environment.json").write_text(json.dumps(variables))


def step(machine: Machine, seconds: int) -> None:
    """Set its clock: so many seconds fast or slow."""
    fresh = _file(machine).with_suffix(".new")
    fresh.write_text(f"{seconds:+d}\n")
    fresh.replace(_file(machine))


def _file(machine: Machine) -> Path:
    return machine.directory / "clock"


def clear() -> None:
    """Remove the shared memory that libfaketime leaves behind in processes that were killed."""
    for path in (*_SHARED.glob("faketime_shm_*"), *_SHARED.glob("sem.faketime_sem_*")):
        if not Path(f"/proc/{path.name.rpartition('_')[2]}").exists():
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
