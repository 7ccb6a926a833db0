"""A machine with systemd as its init, in namespaces of this one: a real systemd that runs real units."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path

from tests.e2e.cluster import until

SYSTEMD = Path("/lib/systemd/systemd")
_BOOT = Path(__file__).with_name("systemd_boot.sh")
_CHECKOUT = Path(__file__).parents[2]
_NAMESPACES = ("--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup")


class SystemdMachine:
    """`boot` starts it and waits until systemd says that it runs; `cut_power` ends everything on it at once, and it
    can boot again from its disk. `close` leaves nothing of it."""

    def __init__(self, directory: Path) -> None:
        if not SYSTEMD.exists():
            raise AssertionError("systemd is not installed: apt-get install systemd")
        self.directory = directory
        for name in ("root", "upper", "work", "state"):
            (directory / name).mkdir(parents=True)
        self._group = f"pyswarm-systemd-{uuid.uuid4().hex[:8]}"
        self._unshare: subprocess.Popen[bytes] | None = None

    # ------------------------------------------------------------------------------ power

    def boot(self) -> None:
        shown = sorted({str(path) for path in (_CHECKOUT, Path(sys.prefix).resolve(), Path(sys.prefix))})
        log = (self.directory / "console").open("ab")
        self._unshare = subprocess.Popen(
            ["unshare", *_NAMESPACES, "--fork", "--kill-child", "bash", _BOOT, self.directory, *shown],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=self._enter_groups,
        )
        log.close()
        until(self._is_up, "systemd runs", 60)

    def cut_power(self) -> None:
        """Every process of the machine is gone when this returns."""
        if self._unshare is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._init() or self._unshare.pid, signal.SIGKILL)
        self._unshare.wait(30)
        self._unshare = None

    def close(self) -> None:
        self.cut_power()
        for top in self._groups():
            for group in sorted((top / self._group).rglob("*/"), reverse=True):
                group.rmdir()
            with contextlib.suppress(FileNotFoundError):
                (top / self._group).rmdir()
        shutil.rmtree(self.directory)

    # ------------------------------------------------------------------------------ on it

    def run(self, *command: str, ok: bool = True) -> str:
        """Run a command on the machine as root; its standard output."""
        done = subprocess.run(
            [
                *("nsenter", "-t", str(self._init()), "-m", "-p", "-n", "-i", "-u", "-C", "-r", "-w"),
                *("env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", *command),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
        if ok and done.returncode:
            raise AssertionError(f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def pyswarm(self, *arguments: str) -> str:
        return self.run(sys.executable, "-m", "pyswarm.cli.main", *arguments)

    def unit(self, name: str, attribute: str) -> str:
        """An attribute of a unit, as `systemctl show` has it."""
        return self.run("systemctl", "show", "--property", attribute, "--value", name).strip()

    # ------------------------------------------------------------------------------ behind it

    def _init(self) -> int:
        """The process id, here, of the machine's process 1; 0 before there is one."""
        assert self._unshare is not None, "the machine is off"
        if self._unshare.poll() is not None:
            raise AssertionError(f"the machine does not boot: {(self.directory / 'console').read_text()}")
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def _is_up(self) -> bool:
        if not self._init():
            return False
        state = self.run("systemctl", "is-system-running", ok=False).strip()
        assert state != "degraded", self.run("systemctl", "list-units", "--failed", "--no-pager")
        return state == "running"

    def _groups(self) -> list[Path]:
        """The roots of the cgroup hierarchies."""
        root = Path("/sys/fs/cgroup")
        return [root] if (root / "cgroup.procs").exists() else sorted(p for p in root.iterdir() if p.is_dir())

    def _enter_groups(self) -> None:
        for top in self._groups():
            group = top / self._group
            group.mkdir(exist_ok=True)
            for name in ("cpuset.cpus", "cpuset.mems"):
                if (group / name).exists() and not (group / "cgroup.controllers").exists():
                    (group / name).write_text((top / name).read_text())
            (group / "cgroup.procs").write_text(str(os.getpid()))
