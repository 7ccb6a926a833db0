"""A small disk of its own for a machine of a lab: an ext4 image, mounted at its state directory."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from pathlib import Path

from pyswarm.lab import Machine

MIB = 1024 * 1024
_FILLER = "filler"


def give(machine: Machine, mib: int) -> None:
    """Make and mount it, before anything runs there. `Lab.down` unmounts it and removes the image."""
    image = machine.directory / "disk"
    with image.open("wb") as file:
        file.truncate(mib * MIB)
    _call("mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0", str(image))
    machine.state.mkdir(mode=0o700)
    _call("mount", "-o", "loop", str(image), str(machine.state))
    (machine.state / "lost+found").rmdir()


def fill(machine: Machine, leave: int = 0) -> None:
    """Leave no byte free but `leave`."""
    filler = machine.state / _FILLER
    descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        step = 64 * MIB
        while step >= 4096:
            free = os.statvfs(machine.state)
            step = min(step, max(free.f_bavail * free.f_bsize - leave, 4096))
            if leave and free.f_bavail * free.f_bsize <= leave:
                return
            try:
                os.posix_fallocate(descriptor, size, step)
                size += step
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                step //= 2
    finally:
        os.close(descriptor)


def free(machine: Machine) -> None:
    """Give the space back."""
    with contextlib.suppress(FileNotFoundError):
        (machine.state / _FILLER).unlink()


def remount(machine: Machine, mode: str) -> None:
    """`ro` or `rw`."""
    _call("mount", "-o", f"remount,{mode}", str(machine.state))


def _call(*command: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{' '.join(command)}: {result.stderr}"


def mounted(path: Path) -> bool:
    return any(line.split(" ")[1] == str(path) for line in Path("/proc/self/mounts").read_text().splitlines())
