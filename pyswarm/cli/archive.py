"""A build context as a tar archive, without what `.dockerignore` leaves out."""

from __future__ import annotations

import io
import os
import re
import tarfile
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import IO

from pyswarm.cli.nodes import CHUNK
from pyswarm.errors import Invalid


def ignored_by(lines: Sequence[str]) -> list[tuple[re.Pattern[str], bool]]:
    """The patterns of a `.dockerignore`: (pattern, whether it is an exception). Later ones win."""
    found: list[tuple[re.Pattern[str], bool]] = []
    for line in lines:
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        exception = text.startswith("!")
        text = os.path.normpath(text.removeprefix("!").strip()).lstrip("/")
        if text != ".":
            found.append((re.compile(_regex(text)), exception))
    return found


def _regex(pattern: str) -> str:
    """Go's filepath.Match with `**` for any number of directories, for a path or anything below it."""
    out, at = "", 0
    while at < len(pattern):
        char = pattern[at]
        if pattern.startswith("**/", at):
            out, at = out + "(?:.*/)?", at + 3
            continue
        if pattern.startswith("**", at):
            out, at = out + ".*", at + 2
            continue
        if char == "[" and "]" in pattern[at + 1 :]:
            end = pattern.index("]", at + 1)
            out, at = out + pattern[at : end + 1].replace("[!", "[^"), end + 1
            continue
        out += "[^/]*" if char == "*" else "[^/]" if char == "?" else re.escape(char)
        at += 1
    return f"{out}(?:/.*)?\\Z"


def excluded(path: str, patterns: Sequence[tuple[re.Pattern[str], bool]]) -> bool:
    """Whether a path, relative to the context, is left out."""
    out = False
    for pattern, exception in patterns:
        if pattern.match(path):
            out = not exception
    return out


def members(context: Path, dockerfile: str) -> Iterator[Path]:
    """The context's files and directories, sorted; the Dockerfile and `.dockerignore` always among them."""
    ignore = context / f"{dockerfile or 'Dockerfile'}.dockerignore"
    if not ignore.is_file():
        ignore = context / ".dockerignore"
    patterns = ignored_by(ignore.read_text().splitlines()) if ignore.is_file() else []
    kept = {dockerfile or "Dockerfile", ".dockerignore"}
    exceptions = any(exception for _, exception in patterns)
    for directory, folders, files in os.walk(context):
        place = Path(directory)
        folders.sort()
        for name in [*folders]:
            relative = (place / name).relative_to(context).as_posix()
            if excluded(relative, patterns):
                if not exceptions:
                    folders.remove(name)
                continue
            yield place / name
        for name in sorted(files):
            relative = (place / name).relative_to(context).as_posix()
            if relative in kept or not excluded(relative, patterns):
                yield place / name


def pack(context: Path, dockerfile: str, extra: Path | None = None) -> IO[bytes]:
    """The archive, in a temporary file that is gone when it is closed. `extra` is a Dockerfile from outside of
    the context: it goes in as `dockerfile`."""
    if not context.is_dir():
        raise Invalid(f"unable to prepare context: path {str(context)!r} not found")
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    try:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for path in members(context, dockerfile):
                tar.add(path, arcname=path.relative_to(context).as_posix(), recursive=False)
            if extra is not None:
                tar.add(extra, arcname=dockerfile)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def pack_dockerfile(text: bytes) -> IO[bytes]:
    """An archive with nothing but a Dockerfile, for `image build -`."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        info = tarfile.TarInfo("Dockerfile")
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
    file.seek(0)
    return file


async def pieces(file: IO[bytes]) -> AsyncIterator[bytes]:
    """The file's bytes in pieces for the wire."""
    while data := file.read(CHUNK):
        yield data
