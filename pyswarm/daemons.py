"""The node's daemons, whoever runs them: systemd's units where systemd is init, else our own supervisor."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from pyswarm import supervisor
from pyswarm.errors import Fatal, Unavailable
from pyswarm.nodeconfig import NodeConfig

STOP_TIMEOUT = 60.0
UNITS = ("pyswarm-manager.service", "pyswarm-agent.service")
UNIT_DIR = Path("/etc/systemd/system")


def systemd_runs() -> bool:
    """Whether systemd is this machine's init."""
    return Path("/run/systemd/system").is_dir()


def start(config: NodeConfig) -> None:
    """Start the daemons; harmless when they run."""
    (config.state / "log").mkdir(mode=0o700, exist_ok=True)
    if config.service_manager != "systemd":
        supervisor.ensure(config.state, config.run)
        return
    names = units(config)
    for name, text in names.items():
        (UNIT_DIR / name).write_text(text)
    _systemctl("daemon-reload")
    _systemctl("enable", "--now", *names)


def units(config: NodeConfig) -> Mapping[str, str]:
    """The systemd units of this node: name -> text."""
    daemons = {"manager": "manager.main", "agent": "node_agent.main"}
    if config.role != "manager":
        del daemons["manager"]
    return {f"pyswarm-{name}.service": _unit(config, name, module) for name, module in daemons.items()}


def _unit_word(text: str) -> str:
    """One word of a command line in a unit: quoted, and nothing in it means anything to systemd."""
    for special, plain in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        text = text.replace(special, plain)
    return f'"{text}"'


def _unit(config: NodeConfig, name: str, module: str) -> str:
    python = _unit_word(sys.executable)
    return f"""[Unit]
Description=pyswarm {name}
After=network-online.target
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
ExecStartPre={python} -m pyswarm.tmpfs {_unit_word(config.run_dir)}
ExecStart={python} -m {module} {_unit_word(config.state_dir)}
Restart=always
RestartSec=100ms
# Containers, their monitors and etcd's data outlive a restart of the daemon.
KillMode={"process" if name == "agent" else "mixed"}
Delegate=yes
LimitNOFILE=infinity
TasksMax=infinity
OOMScoreAdjust=-500

[Install]
WantedBy=multi-user.target
"""


def _systemctl(*arguments: str) -> None:
    result = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)
    if result.returncode:
        raise Fatal(f"systemctl {' '.join(arguments)} failed: {result.stderr.strip()}")


def stop(config: NodeConfig) -> None:
    """End the daemons and wait until they are gone; containers stay."""
    if config.service_manager == "systemd":
        names = [name for name in units(config) if (UNIT_DIR / name).exists()]
        if names:
            _systemctl("disable", "--now", *names)
        for name in names:
            (UNIT_DIR / name).unlink(missing_ok=True)
        _systemctl("daemon-reload")
        return
    deadline = time.monotonic() + STOP_TIMEOUT
    locks = {name: config.run / f"{name}.lock" for name in ("supervisor", "agent", "manager")}
    # Whoever is left brings the others back, so none of the three may hold its lock when this is done.
    while any(map(supervisor.holder, locks.values())):
        for name, lock in locks.items():
            if not (pid := supervisor.holder(lock)):
                continue
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            if not wait_for(lambda pid=pid: not Path(f"/proc/{pid}").exists(), 25.0):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise Unavailable(f"the {name} (process {pid}) does not end: see {config.state / 'log'}")


def follow_role(config: NodeConfig, *, only_if_needed: bool = False) -> None:
    """Start or end this node's manager, as the role in the settings (which are saved already) asks for. A manager
    that ends leaves nothing: what it had, the other managers have."""
    alive = bool(supervisor.holder(config.run / "manager.lock"))
    left = alive or (config.state / "etcd").exists() or (config.state / "manager").exists()
    if only_if_needed and (alive if config.role == "manager" else not left):
        return
    if config.service_manager != "systemd":
        if pid := supervisor.holder(config.run / "supervisor.lock"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGHUP)
    elif config.role == "manager":
        start(config)
    else:
        _systemctl("disable", "--now", UNITS[0])
        (UNIT_DIR / UNITS[0]).unlink(missing_ok=True)
        _systemctl("daemon-reload")
    if config.role == "manager":
        return
    if not wait_for(lambda: not supervisor.holder(config.run / "manager.lock"), STOP_TIMEOUT):
        raise Unavailable(f"the manager does not end: see {config.state / 'log'}")
    for path in (config.state / "etcd", config.state / "manager", config.run / "manager", config.socket):
        delete(path)


def wait_for(condition: Callable[[], object], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())


def last_words(config: NodeConfig) -> str:
    """The last lines of the daemons' logs."""
    words: list[str] = []
    for name in ("supervisor", "manager", "agent"):
        with contextlib.suppress(OSError):
            lines = (config.state / "log" / f"{name}.log").read_text().splitlines()[-3:]
            words += [f"  {name}: {line}" for line in lines]
    return "\n".join(words)


def delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
