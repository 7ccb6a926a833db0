"""Which disks can hold containers' layers: real file systems, mounted for the test."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyswarm.disk import check_layers
from pyswarm.errors import Fatal

pytestmark = pytest.mark.root


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[Path]:
    """A directory on an overlay, as inside a container."""
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    merged = tmp_path / "merged"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", merged], check=True)
    yield merged
    subprocess.run(["umount", merged], check=True)


def test_a_disk_that_can_is_left_as_it_was(tmp_path: Path) -> None:
    check_layers(tmp_path / "not" / "yet" / "there")
    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


def test_an_overlay_over_an_overlay_is_refused_before_anything_is_made(overlay: Path) -> None:
    with pytest.raises(Fatal, match=r"it lies on overlayfs.*--state-dir"):
        check_layers(overlay / "state")
    assert list(overlay.iterdir()) == []
