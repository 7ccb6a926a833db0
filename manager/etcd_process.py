"""The manager's own etcd: a child process that is checked, started, watched, restarted and stopped.

No two on one data directory and none left behind, whatever is killed: etcd gets SIGKILL from the kernel when
the manager's thread that started it ends (`setpriv --pdeathsig`; etcd syncs before it answers, so that loses
nothing), and it holds a file lock, inherited from the manager, that the next start waits for. Start it from
the main thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import re
import shutil
import signal
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from manager.store.etcd_client import STATUS, EtcdClient, Tls
from manager.store.etcd_pb import rpc_pb2 as pb
from pyswarm.errors import Fatal, MissingProgram, PyswarmError, Unavailable
from pyswarm.nodeconfig import write_private
from pyswarm.pki import ETCD_NAME, KeyPair, revocation_list

log = logging.getLogger(__name__)

CLIENT_PORT = 2379
PEER_PORT = 2380
QUOTA = 4 * 1024**3
RETAINED_REVISIONS = 100_000
LOG_LIMIT = 16 * 1024**2
LOGS_KEPT = 3

_BACKOFF_FIRST, _BACKOFF_MAX = 0.05, 5.0
_STEADY = 10.0
"""Seconds after which a running etcd counts as well, and the back-off starts anew."""
_FIRST_DAY = 1_600_000_000.0
"""The date of a revocation list without entries: any time in the past."""
_LEAST_SPACE = 64 * 1024
"""Bytes free on its disk, below which etcd can hardly work."""
_LOCK_WAIT = 10.0
_STOP_WAIT = 3.0
_RESTART_WAIT = 30.0


class MemberRemoved(Fatal):
    """The cluster has removed this member for good; its data directory is of no more use."""


class PeersSilent(Unavailable):
    """A joining member could not reach the others in time: it is started again."""


# ------------------------------------------------------------------------------------------- the program


def parse_version(text: str) -> tuple[int, int, int]:
    """From the output of `etcd --version`. Raises Fatal when it is not that."""
    found = re.search(r"etcd Version: (\d+)\.(\d+)\.(\d+)", text)
    if found is None:
        raise Fatal(f"`etcd --version` answered {text.strip()[:80]!r}: is that etcd?")
    return int(found[1]), int(found[2]), int(found[3])


def check_version(version: tuple[int, int, int]) -> None:
    """Raises Fatal for versions that cannot do the work or can lose data."""
    text = ".".join(map(str, version))
    way_out = "install etcd 3.4.x or 3.5.3 and later (`apt-get install etcd-server`)"
    if version < (3, 4, 0):
        raise Fatal(f"etcd {text} is too old, it has no learners: {way_out}")
    if (3, 5, 0) <= version <= (3, 5, 2):
        raise Fatal(f"etcd {text} can corrupt its data (fixed in 3.5.3): {way_out}")
    if version >= (4, 0, 0):
        raise Fatal(f"etcd {text} is newer than this pyswarm knows: {way_out}")


async def find_etcd() -> tuple[str, tuple[int, int, int]]:
    """Path and version of the installed etcd. Raises MissingProgram or Fatal."""
    path = shutil.which("etcd")
    if path is None:
        raise MissingProgram("etcd", "etcd-server", "the managers keep the cluster's state in it")
    if shutil.which("setpriv") is None:
        raise MissingProgram("setpriv", "util-linux", "it ties etcd's life to the manager's")
    process = await asyncio.create_subprocess_exec(
        path, "--version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    version = parse_version(output.decode(errors="replace"))
    check_version(version)
    return path, version


# ---------------------------------------------------------------------------------------- configuration


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdConfig:
    """One member. `initial_cluster` maps names to peer URLs and counts on the first start alone."""

    name: str
    """The node's id."""
    directory: Path
    """Owned by this class: data, TLS files, log, lock."""
    address: str
    """The IP address at which the other managers reach this one."""
    listen_address: str = ""
    """Where to listen besides 127.0.0.1; "" is `address`."""
    client_port: int = CLIENT_PORT
    peer_port: int = PEER_PORT
    initial_cluster: Mapping[str, str] | None = None
    """None: this member alone, a new cluster. Otherwise the member joins an existing one."""
    heartbeat_ms: int = 100
    election_ms: int = 500
    key_file: Path | None = None
    """Where the private key for TLS is put for etcd to read; None is below `directory`. Kept off the disk where
    managers can be locked."""
    quota: int = QUOTA
    retained_revisions: int = RETAINED_REVISIONS

    @property
    def data_dir(self) -> Path:
        return self.directory / "data"

    @property
    def tls_key(self) -> Path:
        return self.key_file if self.key_file is not None else self.directory / "tls/key.pem"

    @property
    def log(self) -> Path:
        return self.directory / "etcd.log"

    @property
    def local_endpoint(self) -> str:
        return f"127.0.0.1:{self.client_port}"

    @property
    def client_endpoint(self) -> str:
        return _host_port(self.address, self.client_port)

    @property
    def peer_url(self) -> str:
        return f"https://{_host_port(self.address, self.peer_port)}"


def _host_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def arguments(config: EtcdConfig, version: tuple[int, int, int], force_new_cluster: bool) -> list[str]:
    """etcd's flags."""
    listen = config.listen_address or config.address
    loopback = f"https://{config.local_endpoint}"
    clients = [loopback, f"https://{_host_port(listen, config.client_port)}"]
    if listen in ("127.0.0.1", "0.0.0.0", "::"):
        clients = clients[1:]
    peers = {config.name: config.peer_url, **(config.initial_cluster or {})}
    skip_san = "peer-skip-client-san-verification"
    flags = {
        "name": config.name,
        "data-dir": str(config.data_dir),
        "listen-client-urls": ",".join(clients),
        "advertise-client-urls": f"https://{config.client_endpoint}",
        "listen-peer-urls": f"https://{_host_port(listen, config.peer_port)}",
        "initial-advertise-peer-urls": config.peer_url,
        "initial-cluster": ",".join(f"{name}={url}" for name, url in sorted(peers.items())),
        "initial-cluster-state": "new" if config.initial_cluster is None else "existing",
        "initial-cluster-token": "pyswarm",
        **_tls_flags(config.directory / "tls", config.tls_key),
        "heartbeat-interval": str(config.heartbeat_ms),
        "election-timeout": str(config.election_ms),
        # What is committed lies in the log at once; the database may follow later than every 100 ms, at which an
        # idle etcd wakes up only to find nothing to do.
        "backend-batch-interval": "1s",
        "max-txn-ops": "10000",
        "max-request-bytes": "10485760",
        "quota-backend-bytes": str(config.quota),
        "auto-compaction-mode": "revision",
        "auto-compaction-retention": str(config.retained_revisions),
        "snapshot-count": "10000",
        "enable-grpc-gateway": "false",
        "logger": "zap",
        "log-outputs": "stderr",
        "log-level": "warn",
        # A member with several addresses may call from one that its certificate does not list.
        skip_san if version >= (3, 6, 0) else f"experimental-{skip_san}": "true",
    }
    if version < (3, 6, 0):
        flags["enable-v2"] = "false"
        flags["pre-vote"] = "true"
    return [f"--{name}={value}" for name, value in flags.items()] + (
        ["--force-new-cluster"] if force_new_cluster else []
    )


def _tls_flags(directory: Path, key: Path) -> dict[str, str]:
    """Mutual TLS, and only certificates with etcd's name: those of managers, not of workers or people."""
    flags: dict[str, str] = {}
    flags["client-crl-file"] = flags["peer-crl-file"] = str(directory / "crl.pem")
    for prefix in ("", "peer-"):
        flags[f"{prefix}cert-file"] = str(directory / "cert.pem")
        flags[f"{prefix}key-file"] = str(key)
        flags[f"{prefix}trusted-ca-file"] = str(directory / "ca.pem")
        flags[f"{prefix}client-cert-auth"] = "true"
    return flags | {"client-cert-allowed-hostname": ETCD_NAME, "peer-cert-allowed-hostname": ETCD_NAME}


# -------------------------------------------------------------------------------------- why it went away

_CORRUPT = re.compile(
    r"wal: |walpb|proto: |crc mismatch|max entry size limit|freepages|invalid database|checksum error|"
    r"version mismatch|failed to recover|snap: |snapshot file|file size too small|page \d+|"
    r"openBackend|bbolt|wrong wireType|illegal wireType|invalid page type|unexpected EOF|corrupt|WAL|"
    r"mvcc\.\(\*store\)|membership\.|datadir contains"
)
_TROUBLE = re.compile(r'"level":"(fatal|panic)"|^panic: |^fatal error: |^unexpected fault')
_REASONS = (
    (r"listen tcp [^ ]+: bind: address already in use", "another program uses the port"),
    (r"bind: cannot assign requested address", "the machine does not have the address"),
    (r"no space left on device", "the disk is full: free some space"),
    (r"permission denied", "its files cannot be opened"),
    (r"input/output error", "the disk reports errors: look at the kernel's log (dmesg)"),
    (r"read-only file system", "the file system is read-only"),
    (r"too many open files", "too many files are open: raise the limit (ulimit -n)"),
    (r"cannot allocate memory|out of memory", "the machine has no memory left"),
)


def diagnose(text: str, directory: Path) -> PyswarmError:
    """What the end of etcd's log says about why it stopped: Fatal where a new start cannot help."""
    if "permanently removed" in text or "member has been removed" in text or "was removed from" in text:
        return MemberRemoved(
            f"the other managers have taken this one out of their group, so its data in {directory} are of no more "
            "use: it joins anew if its node is to be a manager; where no manager knows the node any more, run "
            "`pyswarm leave --force`"
        )
    if "could not retrieve cluster information" in text:
        return PeersSilent("etcd cannot join: the other managers do not answer on their etcd peer port")
    lines = text.splitlines()
    if not lines and (why := disk_trouble(directory)):
        return Unavailable(f"etcd cannot run: {why}")
    first = next((i for i, line in enumerate(lines) if _TROUBLE.search(line)), None)
    trouble = "\n".join(lines[first:]) if first is not None else ""
    said = _gist(lines[first]) if first is not None else "it said nothing"
    for pattern, reason in _REASONS:
        if found := re.search(pattern, trouble):
            return Unavailable(f"etcd cannot run: {reason} ({found[0]})")
    if _CORRUPT.search(trouble):
        return damaged(directory, said)
    return Unavailable(f"etcd stopped ({said})")


def disk_trouble(directory: Path) -> str:
    """Why nothing can be written there, not even etcd's log; "" if it can."""
    try:
        disk = os.statvfs(directory)
    except OSError as error:
        return f"{directory}: {error.strerror}"
    if disk.f_flag & os.ST_RDONLY:
        return f"the file system of {directory} is read-only: look at the kernel's log (dmesg)"
    if disk.f_bavail * disk.f_frsize < _LEAST_SPACE:
        return f"the disk of {directory} is full: free some space"
    return ""


def damaged(directory: Path, why: str) -> Fatal:
    """The error for data that no restart will mend."""
    return Fatal(
        f"etcd's data in {directory} is damaged ({why}). With other managers up: `pyswarm leave --force` "
        "here and join again. Otherwise copy the directory to a safe place, run `pyswarm leave --force` and start "
        "from a backup with `pyswarm restore FILE`"
    )


def _gist(line: str) -> str:
    """The message and error of one of etcd's JSON lines, or the line."""
    with contextlib.suppress(ValueError):
        entry = json.loads(line)
        if isinstance(entry, dict):
            return ": ".join(str(entry[key]) for key in ("msg", "error") if entry.get(key))
    return line[:200]


# ------------------------------------------------------------------------------------------- the process


class EtcdProcess:
    """One etcd child. `start`, then `supervise` in a task of the manager's, and `stop` at the end."""

    def __init__(self, config: EtcdConfig, tls: Tls) -> None:
        self.config = config
        self.restarts = 0
        self.trouble = ""
        """Why it stopped last, if that was a moment ago."""
        self._tls = tls
        self._program: tuple[str, tuple[int, int, int]] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._spawning: asyncio.Task[None] | None = None
        self._started_at = 0.0
        self._log_start = 0
        self._lock: int | None = None
        self._stopping = False

    @property
    def pid(self) -> int | None:
        """The child's process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self, *, force_new_cluster: bool = False, timeout: float = 30.0) -> None:
        """Start it and wait until it answers. Being without a quorum is no failure here: see `wait_ready`.

        Raises MissingProgram, Fatal (damaged data, another manager on this directory) or Unavailable.
        """
        self._stopping = False
        self._program = await find_etcd()
        self._prepare()
        try:
            await self._acquire()
            self._check_data()
            await self._launch(force_new_cluster)
            await self._wait_answer(timeout)
        except BaseException:
            await self.stop()
            raise

    async def wait_ready(self, timeout: float = 30.0) -> None:
        """Wait until this member knows of a leader. Raises Unavailable: too few managers are up."""
        async with self._client() as client:
            loop = asyncio.get_running_loop()
            deadline = loop.time() + timeout
            while loop.time() < deadline:
                with contextlib.suppress(Unavailable):
                    status = await client.call_member(self.config.local_endpoint, STATUS, pb.StatusRequest())
                    if status.leader:
                        return
                await asyncio.sleep(0.05)
        raise Unavailable(
            "the managers have no quorum: more than half of them must be up; start the others, or if they "
            "are lost for good run `pyswarm init --force-new-cluster` on this one"
        )

    async def supervise(self) -> None:
        """Restart it whenever it ends, with a growing pause; turn over its log. Runs until cancelled or
        stopped; raises Fatal when a restart cannot help."""
        delay = _BACKOFF_FIRST
        loop = asyncio.get_running_loop()
        while not self._stopping:
            await self._until_exit()
            if self._stopping:
                return
            reason = diagnose(self._new_log(), self.config.directory)
            if isinstance(reason, Fatal):
                raise reason
            log.warning("%s; starting it again", reason)
            self.trouble = str(reason)
            delay = _BACKOFF_FIRST if loop.time() - self._started_at > _STEADY else delay
            await asyncio.sleep(delay)
            delay = min(delay * 2, _BACKOFF_MAX)
            if self._stopping:
                return
            await self._launch(False)
            self.restarts += 1

    async def stop(self) -> None:
        """End it: gracefully, after 3 seconds by force. Harmless when it does not run."""
        self._stopping = True
        if self._spawning is not None:
            await asyncio.gather(self._spawning, return_exceptions=True)
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            await asyncio.shield(_end(process))
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def update_tls(self, tls: Tls) -> None:
        """Use a renewed certificate: etcd reads the files anew for each connection. What it trusts it reads when it
        starts: see `restart`."""
        self._tls = tls
        self._write_tls()

    async def restart(self) -> None:
        """End the child, gracefully; `supervise` starts it anew, and this waits until it answers. Raises Unavailable
        when it does not."""
        process = self._process
        if process is None or self._stopping:
            return
        await asyncio.shield(_end(process))
        deadline = asyncio.get_running_loop().time() + _RESTART_WAIT
        async with self._client() as client:
            while asyncio.get_running_loop().time() < deadline and not self._stopping:
                if self._process is not process:
                    with contextlib.suppress(Unavailable):
                        await client.call_member(self.config.local_endpoint, STATUS, pb.StatusRequest(), 1.0)
                        return
                await asyncio.sleep(0.03)
        raise Unavailable(f"etcd has not come back within {_RESTART_WAIT:g} s; its log is {self.config.log}")

    def set_revoked(self, serials: Iterable[str], now: float) -> None:
        """Refuse new connections with these certificates (serial numbers, hexadecimal), and with no others.
        etcd reads the list anew for each connection; it survives restarts."""
        # etcd does not ask who signed the list, so our own key will do: few managers have opened the CA's.
        signer = KeyPair(self._tls.cert, self._tls.key)
        _write_changed(self.config.directory / "tls/crl.pem", revocation_list(signer, serials, now))

    # ------------------------------------------------------------------------------------- preparation

    def _prepare(self) -> None:
        for directory in (self.config.directory, self.config.data_dir, self.config.directory / "tls"):
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o700)
        self._write_tls()
        if not (self.config.directory / "tls/crl.pem").exists():
            self.set_revoked((), _FIRST_DAY)

    def _write_tls(self) -> None:
        tls = self.config.directory / "tls"
        if self.config.tls_key != tls / "key.pem":
            (tls / "key.pem").unlink(missing_ok=True)
            self.config.tls_key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path, data in (
            (tls / "ca.pem", self._tls.ca),
            (self.config.tls_key, self._tls.key),
            (tls / "cert.pem", self._tls.cert),
        ):
            _write_changed(path, data)

    async def _acquire(self) -> None:
        """Take the directory's lock, which an etcd that is still ending holds. Kills an orphaned one."""
        path = self.config.directory / "lock"
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _LOCK_WAIT
        try:
            while not _try_lock(lock):
                holder = _read_pids(self.config.directory / "pid")
                if holder is not None and _is_orphan(*holder, self.config.data_dir):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(holder[0], signal.SIGKILL)
                if loop.time() > deadline:
                    raise Fatal(
                        f"{self.config.directory} is in use by another manager"
                        + (f" (pid {holder[1]}, etcd {holder[0]})" if holder else "")
                        + ": stop that one first"
                    )
                await asyncio.sleep(0.02)
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock

    def _check_data(self) -> None:
        """etcd without its log would start empty instead of complaining. Raises Fatal."""
        wal = self.config.data_dir / "member/wal"
        if (self.config.directory / "begun").exists() and not any(wal.glob("*.wal")):
            raise damaged(self.config.directory, f"no log in {wal}")

    # -------------------------------------------------------------------------------------- the child

    async def _launch(self, force_new_cluster: bool) -> None:
        """Start the child. Who is cancelled meanwhile leaves no child that nobody knows of: `stop` waits
        for it."""
        self._spawning = asyncio.get_running_loop().create_task(self._spawn(force_new_cluster))
        await asyncio.shield(self._spawning)

    async def _spawn(self, force_new_cluster: bool) -> None:
        assert self._program is not None and self._lock is not None
        path, version = self._program
        flags = arguments(self.config, version, force_new_cluster)
        output = os.open(self.config.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self._log_start = os.fstat(output).st_size
            self._process = await asyncio.create_subprocess_exec(
                *("setpriv", "--pdeathsig", "KILL", path, *flags),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={k: v for k, v in os.environ.items() if not k.startswith("ETCD_")},
                cwd=self.config.directory,
                start_new_session=True,
                pass_fds=(self._lock,),
            )
        finally:
            os.close(output)
        self._started_at = asyncio.get_running_loop().time()
        (self.config.directory / "pid").write_text(f"{self._process.pid} {os.getpid()}\n")

    async def _wait_answer(self, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        async with self._client() as client:
            while loop.time() < deadline:
                if self.pid is None:
                    reason = diagnose(self._new_log(), self.config.directory)
                    if not isinstance(reason, PeersSilent):
                        raise reason
                    await asyncio.sleep(0.2)
                    await self._launch(False)
                with contextlib.suppress(Unavailable):
                    status = await client.call_member(
                        self.config.local_endpoint, STATUS, pb.StatusRequest(), 1.0
                    )
                    self._note_begun(f"{status.header.member_id:x}")
                    return
                await asyncio.sleep(0.03)
        raise Unavailable(f"etcd did not answer within {timeout:g} s; its log is {self.config.log}")

    def _note_begun(self, member_id: str) -> None:
        """Remember that the data are good, and whose they are."""
        member = self.config.directory / "member"
        if not member.exists():
            write_private(member, member_id.encode())
        (self.config.directory / "begun").touch()

    @asynccontextmanager
    async def _client(self) -> AsyncGenerator[EtcdClient, None]:
        client = EtcdClient([self.config.local_endpoint], self._tls)
        try:
            yield client
        finally:
            await client.close()

    async def _until_exit(self) -> None:
        """Until the child ends; looks after its log meanwhile."""
        while (process := self._process) is not None:
            self._turn_log()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STEADY):
                    await process.wait()
                    return
            self.trouble = ""

    def _new_log(self) -> str:
        """What the last child wrote, at most the last 64 KiB."""
        with contextlib.suppress(FileNotFoundError), open(self.config.log, "rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(min(self._log_start, end), end - 65_536))
            return file.read().decode(errors="replace")
        return ""

    def _turn_log(self) -> None:
        """Copy a log that has grown and empty it: etcd keeps its file open (for appending)."""
        log = self.config.log
        if not log.exists() or log.stat().st_size < LOG_LIMIT:
            return
        for number in range(LOGS_KEPT - 1, 0, -1):
            older = log.with_suffix(f".log.{number}")
            if older.exists():
                older.replace(log.with_suffix(f".log.{number + 1}"))
        shutil.copyfile(log, log.with_suffix(".log.1"))
        log.with_suffix(".log.1").chmod(0o600)
        os.truncate(log, 0)
        self._log_start = 0


async def _end(process: asyncio.subprocess.Process) -> None:
    for how in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(how)
        # A stopped process takes a SIGTERM only once it is continued.
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_WAIT):
                await process.wait()
                return


def _write_changed(path: Path, data: bytes) -> None:
    """Write a file of etcd's, unless it is so already."""
    if not path.exists() or path.read_bytes() != data:
        write_private(path, data)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_pids(path: Path) -> tuple[int, int] | None:
    """(etcd, the manager that started it) as last written."""
    try:
        etcd, manager = path.read_text().split()
        return int(etcd), int(manager)
    except (OSError, ValueError):
        return None


def _is_orphan(etcd: int, manager: int, data_dir: Path) -> bool:
    """Whether that process is an etcd on the directory whose manager is gone."""
    try:
        command = Path(f"/proc/{etcd}/cmdline").read_bytes().split(b"\0")
        stat = Path(f"/proc/{etcd}/stat").read_text()
    except OSError:
        return False
    parent = int(stat.rpartition(")")[2].split()[1])
    return f"--data-dir={data_dir}".encode() in command and parent != manager
