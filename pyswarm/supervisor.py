"""Keeps a node's daemons running where no systemd does: starts them, restarts those that die.

Run as `python -m pyswarm.supervisor STATE_DIR`. Imports next to nothing, since it lives as long as the node and should
weigh nothing. Each daemon runs in a session of its own and holds a lock on
`<run>/<name>.lock`; a supervisor that was killed is started again by the daemons (`ensure`), and a new one
adopts daemons that are alive by their pid instead of starting them twice.

SIGTERM ends the daemons (containers stay) and then the supervisor. SIGHUP has it look anew at the node's role,
which says whether there is to be a manager.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from pyswarm import tmpfs

BACKOFF_MIN, BACKOFF_MAX = 0.1, 10.0
STABLE = 10.0
"""Seconds after which a daemon counts as having run well, so that its next restart is at once."""
STOP_TIMEOUT = 20.0
LOG_LIMIT = 10 * 1024 * 1024
"""Bytes of a daemon's log before it is moved to `.1`."""
LOG_CHECK = 60.0
"""Seconds between looks at the logs of running daemons."""
MODULES = {"manager": "manager.main", "agent": "node_agent.main"}


@dataclass(slots=True)
class Daemon:
    name: str
    state: Path
    run: Path
    pid: int = 0
    pidfd: int = -1
    started: float = 0.0
    backoff: float = BACKOFF_MIN
    not_before: float = 0.0
    child: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def log(self) -> Path:
        return self.state / "log" / f"{self.name}.log"

    def start(self) -> None:
        """Adopt the daemon that holds the lock, or start one."""
        self.started = time.monotonic()
        adopted = holder(self.run / f"{self.name}.lock")
        if adopted:
            self.pid, self.child = adopted, None
        else:
            rotate(self.log)
            with self.log.open("ab") as log:
                self.child = subprocess.Popen(
                    [sys.executable, "-m", MODULES[self.name], str(self.state)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    cwd="/",
                )
            self.pid = self.child.pid
        with contextlib.suppress(ProcessLookupError):
            self.pidfd = os.pidfd_open(self.pid)

    def ended(self) -> None:
        """The process is gone: say when the next may start."""
        if self.child is not None:
            self.child.wait()
        if self.pidfd >= 0:
            os.close(self.pidfd)
        ran = time.monotonic() - self.started
        self.backoff = BACKOFF_MIN if ran > STABLE else min(self.backoff * 2, BACKOFF_MAX)
        self.not_before = time.monotonic() + (0.0 if ran > STABLE else self.backoff)
        self.pid, self.pidfd, self.child = 0, -1, None

    def signal(self, number: int) -> None:
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)


_FLOCK = struct.Struct("hhqqi4x")
"""struct flock of 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid."""


def holder(lock: Path) -> int:
    """The pid of the process that holds a daemon's lock; 0 when nobody does. Asks without locking, so that
    a daemon that starts at the same moment is not disturbed. Not for a lock of the calling process: closing
    any descriptor of the file would release it."""
    try:
        with lock.open("r") as file:
            question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(file, fcntl.F_GETLK, question))
            return 0 if kind == fcntl.F_UNLCK else pid
    except FileNotFoundError:
        return 0


def hold(lock: Path) -> int | None:
    """Take a daemon's lock; None when another process has it. The descriptor must stay open for as long as
    the process lives, and no child inherits the lock."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        os.close(descriptor)
        return None
    return descriptor


def rotate(log: Path) -> None:
    """Move a log that has grown too large aside."""
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > LOG_LIMIT:
            log.replace(log.with_suffix(".log.1"))


def trim(log: Path) -> None:
    """The same for a log that a daemon has open: its text is copied to `.1` and the file emptied, where it goes
    on, since daemons append. Lines that are written between the two are lost."""
    with contextlib.suppress(OSError):
        if log.stat().st_size > LOG_LIMIT:
            shutil.copyfile(log, log.with_suffix(".log.1"))
            os.truncate(log, 0)


def ensure(state: Path, run: Path) -> None:
    """Start the supervisor if none runs: called by the daemons, so that whoever dies, the others bring back."""
    if holder(run / "supervisor.lock"):
        return
    log_dir = state / "log"
    log_dir.mkdir(mode=0o700, exist_ok=True)
    rotate(log_dir / "supervisor.log")
    with (log_dir / "supervisor.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pyswarm.supervisor", str(state)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            env={**os.environ, "PYSWARM_DETACH": "1"},
        )
    process.wait()


async def keep(state: Path, run: Path) -> None:
    """For the daemons: start a supervisor whenever there is none, at once when the present one dies."""
    import asyncio

    loop = asyncio.get_running_loop()
    while True:
        await asyncio.to_thread(ensure, state, run)
        pid = holder(run / "supervisor.lock")
        try:
            descriptor = os.pidfd_open(pid) if pid else -1
        except ProcessLookupError:
            descriptor = -1
        if descriptor < 0:
            await asyncio.sleep(BACKOFF_MIN)
            continue
        gone = asyncio.Event()
        loop.add_reader(descriptor, gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)


def _detach() -> None:
    """Leave the starter: it waits for us, so hand the work to a child and end."""
    if os.environ.pop("PYSWARM_DETACH", "") and os.fork():
        os._exit(0)


def supervise(
    daemons: list[Daemon], stop: Iterable[int], reload: Callable[[list[Daemon]], None] = lambda daemons: None
) -> None:
    """Until a byte comes on `stop`; but one that stands for SIGHUP has the list of daemons made anew."""
    stop = list(stop)
    while True:
        now = time.monotonic()
        for daemon in daemons:
            if not daemon.pid and now >= daemon.not_before:
                daemon.start()
            trim(daemon.log)
        waiting = [d.not_before - now for d in daemons if not d.pid]
        timeout = max(0.0, min([*waiting, LOG_CHECK]))
        descriptors = {d.pidfd: d for d in daemons if d.pidfd >= 0}
        poller = select.poll()
        for descriptor in (*descriptors, *stop):
            poller.register(descriptor, select.POLLIN)
        for descriptor, _ in poller.poll(timeout * 1000 + 1):
            if descriptor in stop:
                if any(number != signal.SIGHUP for number in os.read(descriptor, 64)):
                    return
                reload(daemons)
                break
            descriptors[descriptor].ended()
        for daemon in daemons:
            if daemon.pid and daemon.pidfd < 0:
                daemon.ended()


def stop_all(daemons: list[Daemon]) -> None:
    """End the daemons, the agent first, and wait for them."""
    for daemon in sorted(daemons, key=lambda d: d.name):
        daemon.signal(signal.SIGTERM)
        if daemon.pidfd >= 0:
            poller = select.poll()
            poller.register(daemon.pidfd, select.POLLIN)
            if not poller.poll(STOP_TIMEOUT * 1000):
                daemon.signal(signal.SIGKILL)
            daemon.ended()


def follow_role(daemons: list[Daemon], state: Path, run: Path) -> None:
    """End the daemons that this node's role does not ask for any more, and list those that it asks for now."""
    wanted = _names(state)
    going = [daemon for daemon in daemons if daemon.name not in wanted]
    stop_all(going)
    daemons[:] = [daemon for daemon in daemons if daemon not in going]
    known = {daemon.name for daemon in daemons}
    daemons += [Daemon(name, state, run) for name in wanted if name not in known]


def _names(state: Path) -> list[str]:
    config = json.loads((state / "node.json").read_text())
    return ["manager", "agent"] if config["role"] == "manager" else ["agent"]


def _noted(number: int, frame: FrameType | None) -> None:
    """Signals end the loop through the wake-up descriptor."""


def main() -> int:
    state = Path(sys.argv[1])
    _detach()
    config = json.loads((state / "node.json").read_text())
    run = Path(config["run_dir"])
    tmpfs.ensure(run)
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(write)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _noted)
    lock = hold(run / "supervisor.lock")  # whoever sees it held may send signals
    if lock is None:
        return 0
    daemons = [Daemon(name, state, run) for name in _names(state)]
    supervise(daemons, [read], lambda daemons: follow_role(daemons, state, run))
    stop_all(daemons)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
