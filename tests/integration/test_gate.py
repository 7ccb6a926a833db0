"""The local socket's door with real users: root and the group pass, others do not even find it."""

from __future__ import annotations

import asyncio
import grp
import subprocess
import sys
from pathlib import Path

import pytest

from manager.gate import Gate

pytestmark = pytest.mark.root

GROUP = "nogroup"
NOBODY = 65534
ASK = (
    "import socket, sys\n"
    "s = socket.socket(socket.AF_UNIX); s.settimeout(5); s.connect(sys.argv[1]); s.sendall(b'hello\\n')\n"
    "print(s.recv(100).decode().strip())"
)


async def ask(path: Path, gid: int, groups: str = "") -> subprocess.CompletedProcess[str]:
    """Say hello as nobody, with this group and these supplementary ones."""
    more = f"--groups={groups}" if groups else "--clear-groups"
    command = ["setpriv", f"--reuid={NOBODY}", f"--regid={gid}", more, sys.executable, "-c", ASK, str(path)]
    return await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=False, timeout=20, cwd="/"
    )


async def test_group_members_pass_and_others_do_not(tmp_path: Path) -> None:
    gid = grp.getgrnam(GROUP).gr_gid
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == 0 and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    run = tmp_path / "run"
    run.mkdir(mode=0o700)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    inner = await asyncio.start_unix_server(echo, str(run / "inner.sock"))
    gate = Gate(run / "door.sock", run / "inner.sock", GROUP)
    await gate.start()
    try:
        assert (await ask(run / "door.sock", gid)).stdout == "hello\n"
        assert (await ask(run / "door.sock", 1234, groups=str(gid))).stdout == "hello\n"
        stranger = await ask(run / "door.sock", 1234)
        assert stranger.returncode != 0 and "PermissionError" in stranger.stderr
        assert oct(run.stat().st_mode & 0o777) == "0o710"
    finally:
        await gate.stop()
        inner.close()
        await inner.wait_closed()
