"""A cluster of many machines on one: every machine is a network namespace with its own address, name and files.

The machines hang on one bridge. Each has a namespace for its network and one for its host name, entered with
nsenter (`ip netns exec` would mount /sys anew and hide the cgroups), and a state directory, run directory, cgroup
parent and link prefix of its own. Everything is named after the lab, and all of it lies below one directory:

<directory>/lab.json              the lab's settings
<directory>/<machine>/net, uts    the namespaces
<directory>/<machine>/state, run  what /var/lib/pyswarm and /run/pyswarm are on a machine of its own
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from pyswarm import supervisor
from pyswarm.errors import Conflict, Fatal, Invalid, MissingProgram, NotFound, Unavailable

DIRECTORY = Path("/var/lib/pyswarm-lab")
DEFAULT_NAME = "lab"
DEFAULT_SUBNET = "198.18.97.0/24"
"""Of the range that RFC 2544 keeps for test networks, so that it is in nobody's way."""
DIE_TIMEOUT = 20.0
"""Seconds that killed processes have to be gone."""
MOST_MACHINES = 100
_NAME = re.compile(r"[a-z][a-z0-9]{0,6}\Z")
"""Links are called after it, and their names have 15 characters at most."""
_CGROUPS = Path("/sys/fs/cgroup")
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_PROGRAMS: Mapping[str, str] = {
    "ip": "iproute2",
    "nft": "nftables",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "umount": "mount",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One machine of a lab."""

    name: str
    """`m1`, `m2`: joins as a manager; `w1`, `w2`: as a worker."""
    address: str
    link: str
    """The bridge's end of its cable."""
    directory: Path

    @property
    def role(self) -> str:
        return "manager" if self.name.startswith("m") else "worker"

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def run(self) -> Path:
        return self.directory / "run"

    @property
    def cgroup(self) -> str:
        """Parent of its containers' cgroups."""
        return f"/{self.link}"

    @property
    def environment(self) -> dict[str, str]:
        """What every program on this machine gets; `environment.json` beside its namespaces adds to it."""
        here = {"PYSWARM_STATE_DIR": str(self.state), "PYSWARM_RUN_DIR": str(self.run)}
        with contextlib.suppress(FileNotFoundError):
            here |= json.loads((self.directory / "environment.json").read_text())
        return {**os.environ, **here}

    def argv(self, command: Sequence[str]) -> list[str]:
        """`command` as it has to be called to run on this machine; `pyswarm` is this very program."""
        program, *arguments = command
        if program == "pyswarm":
            arguments = ["-m", "pyswarm.cli.main", *arguments]
            program = sys.executable
        inside = [f"--net={self.directory / 'net'}", f"--uts={self.directory / 'uts'}"]
        return ["nsenter", *inside, "--", program, *arguments]

    def exec(self, *command: str, timeout: float = 240.0) -> subprocess.CompletedProcess[str]:
        """Run a command on this machine; its output as text, whether it failed or not."""
        return subprocess.run(
            self.argv(command),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )

    def pyswarm(self, *arguments: str, timeout: float = 240.0) -> str:
        """Run `pyswarm ARGUMENTS` here; its output. Raises Fatal with its own words when it fails."""
        result = self.exec("pyswarm", *arguments, timeout=timeout)
        if result.returncode:
            words = (result.stderr.strip() or result.stdout.strip()).removeprefix("Error: ")
            raise Fatal(f"{self.name}: pyswarm {arguments[0]}: {words}")
        return result.stdout

    # ------------------------------------------------------------------------------ what runs on it

    def processes(self) -> list[int]:
        """Every process of this machine: in its namespaces, or in the cgroups of its containers."""
        mine = {path.stat().st_ino for path in self._namespaces()}
        found = {pid for pid in _pids() if mine & _namespaces_of(pid)}
        for group in self.cgroups():
            with contextlib.suppress(OSError):
                found.update(int(line) for line in (group / "cgroup.procs").read_text().split())
        return sorted(found - {os.getpid(), 0})

    def cgroups(self) -> list[Path]:
        """The directories of its containers' cgroups, the deepest first."""
        parent = self.cgroup.strip("/")
        roots = [_CGROUPS / parent, *_CGROUPS.glob(f"*/{parent}")]
        found = [path for root in roots if root.is_dir() for path in (root, *_directories(root))]
        return sorted(found, key=lambda path: (-len(path.parts), str(path)))

    def _namespaces(self) -> list[Path]:
        return [path for name in ("net", "uts") if (path := self.directory / name).exists()]

    @property
    def connected(self) -> bool:
        """Whether its cable is plugged in."""
        try:
            flags = int(Path(f"/sys/class/net/{self.link}/flags").read_text(), 16)
        except OSError:
            return False
        return bool(flags & 1)

    def daemons(self) -> list[str]:
        """Those of its daemons that run."""
        names = ("supervisor", "manager", "agent")
        return [name for name in names if supervisor.holder(self.run / f"{name}.lock")]

    def kill(self) -> None:
        """The machine is gone, as after a power cut: its cable first, so that nobody hears of its end."""
        _call("ip", "link", "set", self.link, "down")
        self.end_processes()

    def end_processes(self) -> None:
        """kill -9 until none is left: they start each other again. None twice, since one that has just started
        another one and ended may be all that a look saw."""
        deadline = time.monotonic() + DIE_TIMEOUT
        quiet = 0
        while quiet < 2:
            pids = self.processes()
            quiet = 0 if pids else quiet + 1
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise Unavailable(f"{self.name}: processes {pids} do not end")
            time.sleep(0.01)

    def clear(self) -> None:
        """What a reboot loses: mounts, the run directory, cgroups, all links but the cable's end. A disk that is
        mounted at the state directory stays."""
        unmount_below(self.state, itself=False)
        unmount_below(self.run)
        shutil.rmtree(self.run, ignore_errors=True)
        for group in self.cgroups():
            with contextlib.suppress(OSError):
                group.rmdir()
        for link in _links(self):
            if link not in ("lo", "eth0"):
                _try(*self.argv(["ip", "link", "delete", link]))
        _call(*self.argv(["nft", "flush", "ruleset"]))

    def start(self) -> None:
        """The machine boots after `kill`: it has its disk and nothing else."""
        if self.daemons():
            raise Conflict(f"machine {self.name} runs already")
        self.clear()
        _call("ip", "link", "set", self.link, "up")
        if not (self.state / "node.json").exists():
            return
        program = [sys.executable, "-c", _START, str(self.state)]
        result = self.exec(*program)
        if result.returncode:
            raise Fatal(f"{self.name}: {result.stderr.strip()}")


_START = """
import sys
from pathlib import Path
from pyswarm import daemons, nodeconfig, tmpfs
config = nodeconfig.load(Path(sys.argv[1]))
tmpfs.ensure(config.run)
daemons.start(config)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """A lab that exists. `Lab.up` makes one, `Lab.load` finds it again."""

    name: str
    directory: Path
    subnet: str
    managers: int
    workers: int
    internet: bool = False
    forwarding: str = ""
    """What ip_forward was before this lab set it; "" when it did not."""

    # ------------------------------------------------------------------------------ its parts

    @property
    def bridge(self) -> str:
        return f"{self.name}-br"

    @property
    def table(self) -> str:
        """The nftables table on the host (for internet), and in each machine (for partitions)."""
        return f"{self.name}_lab"

    @property
    def gateway(self) -> str:
        """The host's address on the bridge: the last one of the subnet."""
        return str(ipaddress.ip_network(self.subnet)[-2])

    @property
    def machines(self) -> tuple[Machine, ...]:
        names = [f"m{n + 1}" for n in range(self.managers)] + [f"w{n + 1}" for n in range(self.workers)]
        network = ipaddress.ip_network(self.subnet)
        return tuple(
            Machine(
                name=name,
                address=str(network[number + 1]),
                link=f"{self.name}-{name}",
                directory=self.directory / name,
            )
            for number, name in enumerate(names)
        )

    def machine(self, which: str) -> Machine:
        """By its name, or by its number in the order of `lab ls`. NotFound names those that there are."""
        for number, machine in enumerate(self.machines):
            if which in (machine.name, str(number + 1), machine.address):
                return machine
        names = ", ".join(machine.name for machine in self.machines)
        raise NotFound(f"no such machine: {which}: the lab has {names}")

    # ------------------------------------------------------------------------------ up and down

    @classmethod
    def load(cls, name: str, directory: Path | None = None) -> Lab:
        """The lab called `name`. NotFound when there is none."""
        _check_name(name)
        directory = directory or DIRECTORY / name
        try:
            raw = json.loads((directory / "lab.json").read_text())
        except FileNotFoundError:
            raise NotFound(f"no such lab: {name}: make one with `pyswarm lab up`") from None
        return cls(directory=directory, **raw)

    @classmethod
    def up(
        cls,
        *,
        name: str = DEFAULT_NAME,
        directory: Path | None = None,
        managers: int = 1,
        workers: int = 2,
        subnet: str = DEFAULT_SUBNET,
        internet: bool = False,
        join: bool = True,
        init_flags: Sequence[str] = (),
    ) -> Lab:
        """Make the machines, start a cluster on the first and let the others join. Whatever fails takes the
        lab down again. Without `join`, the machines are bare. `init_flags` are more flags of `pyswarm init`."""
        _check_name(name)
        _check_machine()
        _check_sizes(managers, workers, subnet)
        directory = directory or DIRECTORY / name
        if (directory / "lab.json").exists():
            raise Conflict(f"lab {name} is up already: `pyswarm lab down` first")
        lab = cls(
            name=name,
            directory=directory,
            subnet=subnet,
            managers=managers,
            workers=workers,
            internet=internet,
            forwarding=_FORWARDING.read_text().strip() if internet else "",
        )
        try:
            lab._build()
            if join:
                lab.init(*init_flags)
                lab.join_all()
        except BaseException:
            lab.down()
            raise
        return lab

    def _build(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        settings = {key: value for key, value in asdict(self).items() if key != "directory"}
        (self.directory / "lab.json").write_text(json.dumps(settings, indent=1) + "\n")
        prefix = ipaddress.ip_network(self.subnet).prefixlen
        _call("ip", "link", "add", self.bridge, "type", "bridge")
        _call("ip", "addr", "add", f"{self.gateway}/{prefix}", "dev", self.bridge)
        _call("ip", "link", "set", self.bridge, "up")
        if self.internet:
            self._open_internet()
        for machine in self.machines:
            self._make(machine, prefix)

    def _make(self, machine: Machine, prefix: int) -> None:
        machine.directory.mkdir()
        net, uts = machine.directory / "net", machine.directory / "uts"
        net.touch()
        uts.touch()
        _call("unshare", f"--net={net}", f"--uts={uts}", "hostname", machine.name)
        _call("ip", "link", "add", machine.link, "type", "veth", "peer", "name", "eth0", "netns", str(net))
        _call("ip", "link", "set", machine.link, "master", self.bridge, "up")
        for command in (
            f"ip addr add {machine.address}/{prefix} dev eth0",
            "ip link set lo up",
            "ip link set eth0 up",
            *([f"ip route add default via {self.gateway}"] if self.internet else []),
        ):
            _call(*machine.argv(command.split()))

    def _open_internet(self) -> None:
        _FORWARDING.write_text("1\n")
        _call(
            "nft",
            f"table ip {self.table} {{ chain out {{ type nat hook postrouting priority 100; "
            f'ip saddr {self.subnet} oifname != "{self.bridge}" masquerade; }} }}',
        )

    def init(self, *flags: str) -> None:
        """`pyswarm init` on the first machine."""
        first = self.machines[0]
        first.pyswarm("init", "--advertise-addr", first.address, *self._flags(first), *flags)

    def join_all(self) -> None:
        """The other machines join: managers one after the other (Raft takes one at a time), workers at once."""
        for machine in self.machines[1 : self.managers]:
            self.join(machine)
        with ThreadPoolExecutor(max_workers=8) as pool:
            list(pool.map(self.join, self.machines[self.managers :]))

    def join(self, machine: Machine) -> None:
        """`pyswarm join` on one machine, with the token of its role."""
        machine.pyswarm("join", *self.join_arguments(machine))

    def join_arguments(self, machine: Machine, token: str = "") -> list[str]:
        """What `pyswarm join` is to be called with there."""
        first = self.machines[0]
        token = token or first.pyswarm("join-token", "-q", machine.role).strip()
        return [
            "--token",
            token,
            "--advertise-addr",
            machine.address,
            *self._flags(machine),
            f"{first.address}:2377",
        ]

    def _flags(self, machine: Machine) -> list[str]:
        return ["--cgroup-parent", machine.cgroup, "--link-prefix", machine.link.replace("-", "")]

    def down(self) -> None:
        """Take everything away: processes, mounts, namespaces, links, tables, cgroups, files."""
        with ThreadPoolExecutor(max_workers=8) as pool:
            list(pool.map(Machine.end_processes, self.machines))
        unmount_below(self.directory)
        for machine in self.machines:
            _try("ip", "link", "delete", machine.link)
            for group in machine.cgroups():
                _remove_cgroup(group)
        _try("ip", "link", "delete", self.bridge)
        if self.internet:
            _try("nft", "delete", "table", "ip", self.table)
            _FORWARDING.write_text(f"{self.forwarding}\n")
        shutil.rmtree(self.directory, ignore_errors=True)
        if self.directory.exists():
            raise Fatal(
                f"{self.directory} could not be deleted: something still uses it (see `fuser -vm` there)"
            )
        if self.directory.parent == DIRECTORY:
            with contextlib.suppress(OSError):
                DIRECTORY.rmdir()

    # ------------------------------------------------------------------------------ faults

    def partition(self, one: Machine, other: Machine, *, one_way: bool = False) -> None:
        """Nothing passes between the two any more; with `one_way` only what `one` sends is lost."""
        self._cut(one, other, hears=one_way)
        if not one_way:
            self._cut(other, one, hears=False)

    def _cut(self, here: Machine, there: Machine, *, hears: bool) -> None:
        """Drop what `here` sends to `there`, and what comes from there unless `here` still hears it. The rules
        come before all others, and see what is forwarded too."""
        out = f"add rule inet {self.table} out ip daddr {there.address} drop"
        arriving = f"add rule inet {self.table} arriving ip saddr {there.address} drop"
        script = [
            f"add table inet {self.table}",
            f"add chain inet {self.table} out {{ type filter hook postrouting priority -400; }}",
            f"add chain inet {self.table} arriving {{ type filter hook prerouting priority -400; }}",
            out,
            *([] if hears else [arriving]),
        ]
        _call(*here.argv(["nft", "; ".join(script)]))

    def heal(self) -> None:
        """All partitions end. Machines that were killed stay dead: `Machine.start` boots them."""
        for machine in self.machines:
            _try(*machine.argv(["nft", "delete", "table", "inet", self.table]))

    def cuts(self, machine: Machine) -> list[str]:
        """Names of the machines that this one cannot send to."""
        result = machine.exec("nft", "-j", "list", "chain", "inet", self.table, "out")
        return [other.name for other in self.machines if f'"{other.address}"' in result.stdout]


# ---------------------------------------------------------------------------------------------- checks


def _check_name(name: str) -> None:
    if not _NAME.match(name):
        raise Invalid(f"lab name {name!r}: a letter and up to six letters or digits, all lower case")


def _check_machine() -> None:
    if os.geteuid() != 0:
        raise Invalid(
            "this needs root: a lab is made of namespaces, mounts and containers: try again with sudo"
        )
    for program, package in _PROGRAMS.items():
        if shutil.which(program) is None:
            raise MissingProgram(program, package, "the lab's machines are made with it")


def _check_sizes(managers: int, workers: int, subnet: str) -> None:
    if managers < 1:
        raise Invalid("a cluster needs at least one manager")
    if managers + workers > MOST_MACHINES:
        raise Invalid(f"{managers + workers} machines are too many: a lab has up to {MOST_MACHINES}")
    try:
        network = ipaddress.IPv4Network(subnet)
    except ValueError as error:
        raise Invalid(f"subnet {subnet}: {error}: write it as {DEFAULT_SUBNET}") from None
    if network.num_addresses < managers + workers + 3:
        raise Invalid(f"subnet {subnet} has no room for {managers + workers} machines")


# ---------------------------------------------------------------------------------------------- the host


def _call(*command: str) -> str:
    """Run a program; its output. Raises Fatal with its words when it fails."""
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if result.returncode:
        raise Fatal(f"{' '.join(command)}: {result.stderr.strip() or result.stdout.strip()}")
    return result.stdout


def _try(*command: str) -> None:
    """Run a program whose failure means that there was nothing to do."""
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _namespaces_of(pid: int) -> set[int]:
    found: set[int] = set()
    for name in ("net", "uts"):
        with contextlib.suppress(OSError):
            found.add(Path(f"/proc/{pid}/ns/{name}").stat().st_ino)
    return found


def _directories(root: Path) -> list[Path]:
    found: list[Path] = []
    for where, names, _ in os.walk(root):
        found += [Path(where) / name for name in names]
    return found


def _links(machine: Machine) -> list[str]:
    output = _call(*machine.argv(["ip", "-j", "link"]))
    return [str(link["ifname"]) for link in json.loads(output or "[]")]


def unmount_below(directory: Path, *, itself: bool = True) -> None:
    """Unmount all that is mounted below a directory, and on it unless `itself` is false, the last first."""
    mark = str(directory)
    while True:
        points = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        below = [point for point in points if (itself and point == mark) or point.startswith(f"{mark}/")]
        if not below:
            return
        for point in reversed(below):
            _call("umount", "-l", point.replace("\\040", " "))


def _remove_cgroup(group: Path) -> None:
    """Processes that were just killed may hold it for a moment."""
    deadline = time.monotonic() + DIE_TIMEOUT
    while group.is_dir():
        try:
            group.rmdir()
        except OSError as error:
            if time.monotonic() > deadline:
                raise Fatal(f"cannot remove the cgroup {group}: {error.strerror}") from error
            time.sleep(0.02)
