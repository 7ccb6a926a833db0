"""A small disk of its own for a machine of a lab: an ext4 image, mounted at its state directory."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from pathlib import Path

from pyswarm.lab import Machine, unmount_below

MIB = 1024 * 1024
_FILLER = "filler"


def give(machine: Machine, mib: int) -> None:
    """Make and mount it, before anything runs there. `Lab.down` unmounts it and removes the image."""
    with _image(machine).open("wb") as file:
        file.truncate(mib * MIB)
    _call("mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0", str(_image(machine)))
    machine.state.mkdir(mode=0o700)
    _mount(machine)
    (machine.state / "lost+found").rmdir()


def fill(machine: Machine) -> None:
    """Leave no byte free."""
    filler = machine.state / _FILLER
    descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        step = 64 * MIB
        while step >= 4096:
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


def break_down(machine: Machine) -> None:
    """The kernel finds an error on it and makes it read-only."""
    Path(f"/sys/fs/ext4/{Path(_device(machine)).name}/trigger_fs_error").write_text("1")


def repair(machine: Machine) -> None:
    """Check and mount it again; nothing may run on the machine."""
    unmount_below(machine.state)
    checked = subprocess.run(
        ("e2fsck", "-y", "-f", str(_image(machine))), capture_output=True, text=True, check=False
    )
    assert checked.returncode in (0, 1), f"the disk could not be repaired: {checked.stdout}"
    _mount(machine)


def _image(machine: Machine) -> Path:
    return machine.directory / "disk"


def _mount(machine: Machine) -> None:
    _call("mount", "-o", "loop,errors=remount-ro", str(_image(machine)), str(machine.state))


def _device(machine: Machine) -> str:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        device, point, *_ = line.split(" ")
        if point == str(machine.state):
            return device
    raise AssertionError(f"{machine.name} has no disk of its own")


def _call(*command: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{' '.join(command)}: {result.stderr}"
