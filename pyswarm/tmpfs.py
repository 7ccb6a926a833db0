"""A tmpfs of pyswarm's own for everything that may hold a secret: /run is a disk on some machines.

`python -m pyswarm.tmpfs DIR` mounts it (harmless when it is there), as the daemons' units do before they start.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from pyswarm.errors import Fatal


def mounted(path: Path) -> bool:
    """Whether a tmpfs is mounted exactly here."""
    wanted = os.path.realpath(path)
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split(" ")
        if where.replace("\\040", " ") == wanted and kind == "tmpfs":
            return True
    return False


def ensure(path: Path) -> None:
    """Mount a tmpfs, mode 0700, at `path` unless one is there. Raises Fatal with mount's reason."""
    path.mkdir(parents=True, exist_ok=True)
    if mounted(path):
        return
    options = "mode=0700,nosuid,nodev,size=25%"
    result = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "pyswarm", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise Fatal(
            f"cannot mount a tmpfs at {path}, which keeps secrets off the disk: {result.stderr.strip()}"
        )


def remove(path: Path) -> None:
    """Unmount it and remove the directory; harmless when it is not there."""
    while mounted(path):
        subprocess.run(["umount", "-l", str(path)], capture_output=True, check=True)
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()


if __name__ == "__main__":
    ensure(Path(sys.argv[1]))
