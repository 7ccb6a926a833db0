"""A secret lies in clear in the container's tmpfs and nowhere else: no disk, no process list, no answer."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

import pytest

from pyswarm.tmpfs import mounted
from tests.e2e.cluster import SLEEPER, Cluster, until

pytestmark = [pytest.mark.e2e, pytest.mark.root]


def files_with(directory: Path, needle: bytes) -> list[str]:
    """Files below a directory, on its own file system only, that hold the bytes."""
    found: list[str] = []
    device = directory.stat().st_dev
    for parent, names, files in os.walk(directory):
        names[:] = [n for n in names if (Path(parent) / n).lstat().st_dev == device]
        for name in files:
            path = Path(parent) / name
            status = path.lstat()
            if stat.S_ISREG(status.st_mode) and status.st_dev == device and needle in path.read_bytes():
                found.append(str(path))
    return found


def arguments_with(needle: bytes) -> list[str]:
    """Processes that show the bytes in their command line."""
    found: list[str] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if needle in (entry / "cmdline").read_bytes():
                    found.append(entry.name)
            except OSError:
                continue
    return found


def test_a_secret_stays_secret(shared: Cluster) -> None:
    value = secrets.token_hex(24)
    shared.cli("secret", "create", "needle", "-", input=value)
    command = ["service", "create", "-q", "--name", "holder"]
    command += ["--secret", "source=needle,target=/run/keys/db,uid=1000,gid=1001,mode=0400"]
    shared.cli(*command, "busybox", *SLEEPER)
    try:
        shared.wait_running("holder", 1)
        inside = shared.cli(
            "exec", "holder.1", "sh", "-c", "cat /run/keys/db; stat -c ' %u %g %a' /run/keys/db"
        )
        assert inside.strip() == f"{value} 1000 1001 400"
        needle = value.encode()
        assert mounted(shared.run), "the run directory is no tmpfs: the search below would miss it"
        assert files_with(shared.run, needle), "the search is blind: it should find the file on the tmpfs"
        assert files_with(shared.state, needle) == []
        assert arguments_with(needle) == []
        for answer in (
            shared.cli("secret", "inspect", "needle"),
            shared.cli("service", "inspect", "holder"),
            (shared.state / "log" / "manager.log").read_text(),
            (shared.state / "log" / "agent.log").read_text(),
        ):
            assert value not in answer
    finally:
        shared.cli("service", "rm", "holder")
        shared.wait_running("holder", 0)
    shared.cli("secret", "rm", "needle")
    until(lambda: not files_with(shared.run, value.encode()), "the removed secret is gone from the tmpfs")


def test_the_state_is_closed_to_others(shared: Cluster) -> None:
    inner = shared.run / "manager"
    for directory in (shared.state, shared.run, shared.state / "certs", shared.state / "manager", inner):
        assert directory.stat().st_mode & 0o077 == 0, directory
    for key in (shared.state / "certs" / "node.key", shared.state / "manager" / "seal.key"):
        assert key.stat().st_mode & 0o777 == 0o600, key
