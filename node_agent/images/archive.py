"""docker's archives of images (`docker save`): several made one, and what is in one."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from pyswarm.errors import Invalid

INDEX = "manifest.json"
"""The list of an archive's images, by their configuration, names and layers."""


def merge(archives: Sequence[Path], target: Path) -> None:
    """Write one archive with the images of all; what several have is in it once."""
    images: list[dict[str, Any]] = []
    seen: set[str] = {INDEX, "repositories"}
    with tarfile.open(target, "w") as out:
        for path in archives:
            images += _index(path)
            with tarfile.open(path) as source:
                for member in source:
                    if member.name not in seen:
                        seen.add(member.name)
                        out.addfile(member, source.extractfile(member) if member.isfile() else None)
        data = json.dumps(images).encode()
        entry = tarfile.TarInfo(INDEX)
        entry.size = len(data)
        out.addfile(entry, io.BytesIO(data))


def names(archive: Path) -> Sequence[Sequence[str]]:
    """The names of each image, in the archive's order. Raises Invalid for what is no archive of docker's."""
    return [tuple(str(name) for name in image.get("RepoTags") or ()) for image in _index(archive)]


def _index(path: Path) -> list[dict[str, Any]]:
    try:
        with tarfile.open(path) as archive:
            file = archive.extractfile(INDEX)
            found = json.loads(file.read()) if file is not None else None
    except (tarfile.TarError, KeyError, ValueError, EOFError) as error:
        raise Invalid(f"this is no archive of images, as `pyswarm image save` writes them: {error}") from None
    if not isinstance(found, list):
        raise Invalid(f"this is no archive of images: its {INDEX} is no list")
    return cast("list[dict[str, Any]]", found)
