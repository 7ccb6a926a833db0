"""What a machine shows of pyswarm: to compare before and after, and to find processes to kill."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, fields
from pathlib import Path


def _lines(*command: str) -> list[str]:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.splitlines()


def command_line(pid: int) -> list[str]:
    """The arguments of a process; [] when it is gone or belongs to the kernel."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def processes(mark: str) -> dict[int, list[str]]:
    """pid -> arguments of the processes that have `mark` in their command line."""
    found: dict[int, list[str]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            arguments = command_line(int(entry.name))
            if any(mark in argument for argument in arguments):
                found[int(entry.name)] = arguments
    return found


@dataclass(frozen=True)
class Machine:
    """Everything that pyswarm makes outside its own directories, as sorted tuples."""

    processes: tuple[str, ...]
    mounts: tuple[str, ...]
    links: tuple[str, ...]
    namespaces: tuple[str, ...]
    tables: tuple[str, ...]
    cgroups: tuple[str, ...]

    @classmethod
    def look(cls, mark: str) -> Machine:
        """`mark` is the directory that the cluster under test lives in; links, tables and cgroups are the
        machine's, all of them."""
        mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if mark in line]
        tables = json.loads("".join(_lines("nft", "-j", "list", "tables")) or "{}").get("nftables", [])
        links = json.loads("".join(_lines("ip", "-j", "link")) or "[]")
        cgroups = {
            str(path.relative_to("/sys/fs/cgroup"))
            for path in Path("/sys/fs/cgroup").glob("*/*")
            if path.is_dir() and "pyswarm" in path.name
        }
        return cls(
            processes=tuple(sorted(" ".join(a) for a in processes(mark).values())),
            mounts=tuple(sorted(mounts)),
            links=tuple(sorted(link["ifname"] for link in links)),
            namespaces=tuple(sorted(_lines("ip", "netns", "list"))),
            tables=tuple(sorted(str(row["table"]["name"]) for row in tables if "table" in row)),
            cgroups=tuple(sorted(cgroups)),
        )

    def difference(self, other: Machine) -> dict[str, tuple[list[str], list[str]]]:
        """Field -> (only in self, only in other), for fields that differ."""
        found: dict[str, tuple[list[str], list[str]]] = {}
        for field in fields(self):
            mine, theirs = set(getattr(self, field.name)), set(getattr(other, field.name))
            if mine != theirs:
                found[field.name] = (sorted(mine - theirs), sorted(theirs - mine))
        return found
