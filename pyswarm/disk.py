"""What the disk below the state directory must be able to do."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from pyswarm.errors import Fatal


def check_layers(state: Path) -> None:
    """Raise Fatal where no container's writable layer can lie: the kernel refuses overlays over an overlay (inside a
    container, say), NFS, FAT and others. Tried, not looked up, with a mount at the nearest directory that exists."""
    place = next(path for path in (state, *state.parents) if path.is_dir())
    with tempfile.TemporaryDirectory(prefix=".pyswarm-check-", dir=place) as name:
        lower, upper, work, merged = (Path(name) / part for part in ("lower", "upper", "work", "merged"))
        for path in (lower, upper, work, merged):
            path.mkdir()
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        tried = subprocess.run(
            ["mount", "-t", "overlay", "-o", options, "pyswarm-check", str(merged)],
            capture_output=True,
            text=True,
            check=False,
        )
        if tried.returncode == 0:
            subprocess.run(["umount", str(merged)], check=True, capture_output=True)
            return
    raise Fatal(
        f"{state} cannot hold containers' writable layers: it lies on {_file_system(place)}, over which the kernel "
        "mounts no overlay. Choose a directory on ext4, xfs or btrfs with --state-dir, or mount a volume there "
        f"({tried.stderr.strip().splitlines()[0] if tried.stderr.strip() else 'mount said nothing'})"
    )


def _file_system(path: Path) -> str:
    found = subprocess.run(
        ["stat", "-f", "-c", "%T", str(path)], capture_output=True, text=True, check=False
    ).stdout.strip()
    return found or "a file system that is not known"
