"""Containers under conmon and an OCI runtime: the agent's `RuntimePort`.

Everything that must survive the agent lies in files: in `Paths.task_run(id)/bundle` the configuration, the
pids and where the cgroup is; in `run/exits` the exit codes; in `run/runc` the runtime's own state. An object
of this class is only a cache of them: a new one over the same paths finds the same containers, running and
ended. `run` is a tmpfs, so after a reboot nothing is known, as it should be.

Costs are kept near those of the runtime itself: one conmon and one `runc create` per container, nothing else
is forked. Starting writes no more than the runtime's own start does (see `_release`); signals go through
pidfds; ends come from one inotify watch for all; removal takes away the cgroup and the state directly where
that is safe, and leaves everything unusual to `runc delete --force`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import select
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from node_agent import inotify
from node_agent.ports import ExecEvent, ExecInput, ExecRequest, Exit, Launch, Paths
from node_agent.runtime import attach, capabilities, cgroups, conmon, host, oci_spec, seccomp, users
from node_agent.runtime.cgroups import CgroupLayout
from node_agent.runtime.execs import Command, Exec, kill_session
from node_agent.runtime.processes import open_process, read_pid, readable, start_time
from node_agent.runtime.signals import signal_number
from pyswarm.clock import Clock, SystemClock
from pyswarm.errors import Fatal, Invalid, NotFound, Unavailable
from pyswarm.nodeconfig import CgroupDriver
from pyswarm.objects import ContainerStats

log = logging.getLogger(__name__)

Json = dict[str, Any]  # a JSON document's own shape

UNKNOWN_EXIT = 137
"""The exit code of a container whose monitor was killed, so that nobody saw its own."""
KILL_TIMEOUT = 10.0
"""Seconds a killed container may take to be gone (its processes may wait for a disk)."""
MOST_PROBE_OUTPUT = 4096
_FIFO_TIMEOUT = 10.0
_ATTACH_TIMEOUT = 30.0
"""Seconds that a client waits for a container to be made."""
_BROKEN_START = b"write exec fifo"
_RUNTIME_ALIASES: Mapping[str, str] = {"io.containerd.runc.v2": "runc", "oci": "runc"}
_WELL_KNOWN = ("crun", "kata-runtime", "runc", "runsc", "youki")
_PACKAGES: Mapping[str, str] = {"runc": "runc", "crun": "crun", "conmon": "conmon"}


@dataclass(slots=True)
class _Container:
    """What is known of one container; the files in its bundle say the same."""

    task_id: str
    bundle: Path
    runtime: str
    """Path of the OCI runtime."""
    cgroup: str
    systemd: bool
    ended: asyncio.Future[Exit]
    pid: int = 0
    """0 while it does not exist."""
    init: int | None = None
    """pidfd of its first process; None when that has ended."""
    monitor: int | None = None
    """pidfd of conmon; None when that has ended."""
    process: Json | None = None
    """`process` of its configuration, once an exec needed it."""
    attached: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a client has joined its streams."""

    @property
    def known_to_runc(self) -> bool:
        return Path(self.runtime).name == "runc"


class Conmon:
    """Containers by task id. Owns `run/exits`, `run/runc`, `run/attach` and each task's `bundle`.

    Make it anywhere, use it in one event loop, and `close` it there: the containers stay.
    """

    def __init__(
        self,
        paths: Paths,
        *,
        runtime: str = "runc",
        runtimes: Mapping[str, str] | None = None,
        driver: CgroupDriver = "auto",
        parallel: int = 0,
        clock: Clock | None = None,
    ) -> None:
        """`runtimes` maps names that a spec may ask for to programs, beside those in PATH; `parallel` is how
        many containers are made at once, 0 for twice the processors. MissingProgram when the runtime, conmon
        or the default seccomp profile is not installed."""
        self._paths = paths
        self._clock = clock or SystemClock()
        self._default_runtime = runtime
        self._runtimes = dict(runtimes or {})
        self._runtime_paths: dict[str, str] = {}
        self._conmon = host.program("conmon", "conmon", "it watches over containers")
        self._runtime_path("")
        self.layout: CgroupLayout = cgroups.detect()
        if driver == "auto":
            driver = "systemd" if self.layout.version == "v2" and cgroups.systemd_runs() else "cgroupfs"
        self._systemd = driver == "systemd"
        self._host = host.read()
        self._profiles = seccomp.Profiles(host.seccomp_machine())
        self._profiles.default()
        self._environment = {
            "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            # Runs of a few milliseconds that never fill the heap: collecting garbage only costs.
            "GOGC": "off",
        }
        self._root = paths.run / "runc"
        self._exits = paths.run / "exits"
        self._sockets = paths.run / "attach"
        self._containers: dict[str, _Container] = {}
        self._inotify: inotify.Inotify | None = None
        self._slots = asyncio.Semaphore(parallel or 2 * (os.cpu_count() or 2))
        self._making = 0
        self._serial = 0
        self._detached: set[asyncio.Task[None]] = set()
        """Commands that nobody waits for any more."""

    @property
    def cgroup(self) -> str:
        """`v1/cgroupfs`, as the node's description says it."""
        return f"{self.layout.version}/{'systemd' if self._systemd else 'cgroupfs'}"

    def runtime_names(self) -> Sequence[str]:
        """The OCI runtimes that a spec may name on this node."""
        installed = (name for name in _WELL_KNOWN if host.installed(name))
        return sorted({self._default_runtime, *self._runtimes, *installed})

    def close(self) -> None:
        """Forget everything and give back descriptors. Containers and their monitors live on."""
        for container in self._containers.values():
            self._drop(container)
            if not container.ended.done():
                container.ended.cancel()
        self._containers.clear()
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None

    # ------------------------------------------------------------------------------------ create

    async def create(self, launch: Launch) -> int:
        """See RuntimePort. A container that a former, interrupted call has made is taken as it is."""
        task_id = launch.task.id
        existing = self._find(task_id)
        if existing is not None:
            await self._settle(existing)
            if existing.pid and not self._never_ran(existing):
                return existing.pid
            await self.delete(task_id)
            self._paths.log(task_id).unlink(missing_ok=True)
        bundle = oci_spec.build(
            launch,
            cgroup=self.layout,
            systemd=self._systemd,
            host=self._host,
            devices=host.devices(oci_spec.device_paths(launch)),
        )
        for warning in bundle.warnings:
            log.warning("task %s: %s", task_id, warning)
        runtime = self._runtime_path(launch.task.spec.runtime)
        async with self._slots:
            self._making += 1
            try:
                return await self._make(launch, bundle, runtime)
            except BaseException:
                await self._discard(task_id)
                raise
            finally:
                self._making -= 1

    async def _make(self, launch: Launch, bundle: oci_spec.Bundle, runtime: str) -> int:
        task_id, spec = launch.task.id, launch.task.spec.container
        self._watch_exits()
        directory = self._bundle(task_id)
        directory.mkdir(0o700, parents=True, exist_ok=True)
        text = self._seccomp(bundle)
        _write(directory / "config.json", bundle.text(text))
        description = {"runtime": runtime, "cgroup": bundle.cgroup, "systemd": self._systemd}
        _write(directory / "container.json", json.dumps(description))
        logfile = self._paths.log(task_id)
        logfile.parent.mkdir(0o700, parents=True, exist_ok=True)
        request = conmon.Start(
            program=self._conmon,
            runtime=runtime,
            runtime_root=self._root,
            task_id=task_id,
            name=launch.task.name,
            bundle=directory,
            log=None if _logless(launch) else logfile,
            exits=self._exits,
            sockets=self._sockets,
            terminal=spec.tty,
            stdin=spec.open_stdin,
            systemd=self._systemd,
        )
        pid = await conmon.start(request, self._environment)
        # conmon is init's parent and reaps it only to write the exit file, so the pid cannot be another's.
        _write(directory / "init", f"{pid} {start_time(pid)}")
        self._adopt(task_id)
        return pid

    def _seccomp(self, bundle: oci_spec.Bundle) -> str:
        if bundle.seccomp is None:
            return ""
        return self._profiles.text(bundle.seccomp, bundle.capabilities)

    def _runtime_path(self, name: str) -> str:
        """The program of an OCI runtime by the name that a spec gives it: only what is meant to be one, since
        it is run as root."""
        wanted = _RUNTIME_ALIASES.get(name, name) or self._default_runtime
        path = self._runtime_paths.get(wanted)
        if path is None:
            names = self.runtime_names()
            if wanted not in names:
                raise Invalid(
                    f"runtime: {wanted!r} is no OCI runtime of this node: it has {', '.join(names)}"
                )
            program = self._runtimes.get(wanted, wanted)
            path = host.program(program, _PACKAGES.get(wanted, wanted), "the OCI runtime")
            self._runtime_paths[wanted] = path
        return path

    async def _settle(self, container: _Container) -> None:
        """Wait for a conmon that a former agent has started and that is still making the container."""
        deadline = self._clock.monotonic() + conmon.CREATE_TIMEOUT
        while not container.pid and container.monitor is not None and self._clock.monotonic() < deadline:
            if not _alive(container.monitor):
                return
            self._read_pids(container)
            if not container.pid:
                await asyncio.sleep(0.005)

    async def _discard(self, task_id: str) -> None:
        """Take back a creation that failed or was cancelled."""
        with suppress(Unavailable, OSError):
            await self.delete(task_id)

    # ------------------------------------------------------------------------------------ start and signals

    async def start(self, task_id: str) -> None:
        """See RuntimePort. Starting one that runs already, or has ended, changes nothing."""
        container = self._need(task_id)
        if container.ended.done():
            return
        if container.known_to_runc:
            fifo = self._fifo(task_id)
            if fifo.exists() and _waits_to_start(container.pid) and await self._release(container, fifo):
                return
            if not _waits_to_start(container.pid):
                # It runs already; an agent that was killed in the middle has left the FIFO.
                fifo.unlink(missing_ok=True)
                return
        code, words = await self._run(container.runtime, "start", task_id)
        if code and not container.ended.done() and "already running" not in words:
            raise Invalid(conmon.runtime_words(words))

    async def _release(self, container: _Container, fifo: Path) -> bool:
        """Let init go the way `runc start` does: it waits for a reader of its FIFO, writes one byte and then
        executes the command; the FIFO is removed, which is how runc tells `created` from `running`.
        False when that does not work out, and runc should try itself."""
        try:
            if not stat.S_ISFIFO(fifo.stat().st_mode):
                return False
            descriptor = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            async with asyncio.timeout(_FIFO_TIMEOUT):
                await readable(descriptor, container.ended)
            data = os.read(descriptor, 16)
        except (TimeoutError, BlockingIOError):
            return container.ended.done()
        finally:
            os.close(descriptor)
        fifo.unlink(missing_ok=True)
        return bool(data) or container.ended.done()

    def _fifo(self, task_id: str) -> Path:
        """Where runc's init waits for a reader before it executes the command."""
        return self._root / task_id / "exec.fifo"

    def _never_ran(self, container: _Container) -> bool:
        """Whether the container ended because an agent was killed just while it let init go: its reader was
        gone before init had written, which init says in the log. Nothing of the command has run."""
        if not container.known_to_runc or not container.ended.done() or container.ended.result().code != 1:
            return False
        if not self._fifo(container.task_id).exists():
            return False
        with suppress(OSError), self._paths.log(container.task_id).open("rb") as file:
            text = file.read(4096)
            return _BROKEN_START in text and text.count(b"\n") == 1
        return False

    async def kill(self, task_id: str, signal: str) -> None:
        """See RuntimePort."""
        self._signal(self._need(task_id), signal_number(signal))

    def _signal(self, container: _Container, number: int) -> None:
        if container.init is not None and not container.ended.done():
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(container.init, number)
                return
        raise NotFound(f"the container of task {container.task_id} is not running")

    # ------------------------------------------------------------------------------------ ends

    async def wait(self, task_id: str) -> Exit:
        """See RuntimePort."""
        return await asyncio.shield(self._need(task_id).ended)

    async def running(self, task_id: str) -> bool:
        """See RuntimePort."""
        container = self._find(task_id)
        return (
            container is not None
            and not container.ended.done()
            and container.init is not None
            and _alive(container.init)
        )

    async def known(self) -> Sequence[str]:
        """See RuntimePort."""
        tasks = self._paths.run / "tasks"
        try:
            found = sorted(entry.name for entry in tasks.iterdir() if (entry / "bundle").is_dir())
        except FileNotFoundError:
            return ()
        return tuple(task_id for task_id in found if not self._is_void(task_id))

    def _is_void(self, task_id: str) -> bool:
        """Whether what is there is no container in the sense of this port: to be made again."""
        if not self._fifo(task_id).exists() or not (self._exits / task_id).exists():
            return False
        container = self._find(task_id)
        return container is not None and self._never_ran(container)

    def _watch_exits(self) -> None:
        if self._inotify is None:
            for directory in (self._exits, self._root, self._sockets):
                directory.mkdir(0o700, parents=True, exist_ok=True)
            watcher = inotify.Inotify()
            try:
                watcher.add(self._exits, inotify.MOVED_TO | inotify.CLOSE_WRITE, self._on_exit_file)
            except BaseException:
                watcher.close()
                raise
            self._inotify = watcher

    def _on_exit_file(self, name: str) -> None:
        for container in [self._containers.get(name)] if name else list(self._containers.values()):
            if container is not None:
                self._look(container)

    def _on_monitor_end(self, container: _Container) -> None:
        """conmon ended: with an exit file beside it if nobody killed it."""
        _forget_descriptor(container.monitor)
        container.monitor = None
        self._look(container)
        if container.ended.done():
            return
        if container.init is None or not _alive(container.init):
            self._lost(container)
            return
        log.warning("task %s: its monitor was killed: the container runs on, without logs", container.task_id)
        asyncio.get_running_loop().add_reader(container.init, self._lost, container)

    def _look(self, container: _Container) -> None:
        """Take note of the exit file, if there is one."""
        if container.ended.done():
            return
        path = self._exits / container.task_id
        try:
            text, finished = path.read_text(), path.stat().st_mtime
        except OSError:
            return
        if text.strip().lstrip("-").isdecimal():
            self._end(container, int(text) & 0xFF if int(text) >= 0 else UNKNOWN_EXIT, finished)

    def _lost(self, container: _Container) -> None:
        """Nobody can know the exit code any more."""
        if not container.ended.done():
            self._end(container, UNKNOWN_EXIT, self._clock.now())

    def _end(self, container: _Container, code: int, finished: float) -> None:
        oom = (container.bundle / "oom").exists() or cgroups.oom_kills(self.layout, container.cgroup) > 0
        _forget_descriptor(container.init)
        container.init = None
        container.ended.set_result(Exit(code=code, oom_killed=oom, finished_at=finished))

    # ------------------------------------------------------------------------------------ adoption

    def _need(self, task_id: str) -> _Container:
        container = self._find(task_id)
        if container is None or (not container.pid and not container.ended.done()):
            raise NotFound(f"task {task_id} has no container on this node")
        return container

    def _find(self, task_id: str) -> _Container | None:
        return self._containers.get(task_id) or self._adopt(task_id)

    def _adopt(self, task_id: str) -> _Container | None:
        """Read a container's files and begin to watch it; None when there is none."""
        directory = self._bundle(task_id)
        if not directory.is_dir():
            return None
        self._watch_exits()
        former = self._containers.pop(task_id, None)
        if former is not None:
            self._drop(former)
        description = self._description(directory, task_id)
        loop = asyncio.get_running_loop()
        container = _Container(
            task_id=task_id,
            bundle=directory,
            runtime=description["runtime"],
            cgroup=description["cgroup"],
            systemd=description["systemd"],
            ended=loop.create_future() if former is None or former.ended.done() else former.ended,
        )
        self._containers[task_id] = container
        monitor = read_pid(_read(directory / "conmon.pid"))
        container.monitor = _open_monitor(monitor, task_id)
        self._read_pids(container)
        self._look(container)
        if container.ended.done():
            _forget_descriptor(container.monitor)
            container.monitor = None
        elif container.monitor is not None:
            loop.add_reader(container.monitor, self._on_monitor_end, container)
        elif container.pid:
            self._on_monitor_end(container)
        self._end_orphaned_execs(container)
        return container

    def _end_orphaned_execs(self, container: _Container) -> None:
        """Kill what an agent that was killed has left running in the container: nobody hears it any more."""
        for document in sorted(container.bundle.glob("exec-*")):
            leader = read_pid(_read(document)) if document.suffix == ".pid" else 0
            if leader:
                kill_session(leader, lambda: cgroups.processes(self.layout, container.cgroup))
            document.unlink(missing_ok=True)

    def _description(self, directory: Path, task_id: str) -> Json:
        with suppress(OSError, ValueError):
            return json.loads((directory / "container.json").read_text())
        return {
            "runtime": self._runtime_path(""),
            "cgroup": cgroups.container_path(self._paths.cgroup_parent, task_id, systemd=self._systemd),
            "systemd": self._systemd,
        }

    def _read_pids(self, container: _Container) -> None:
        """The init process: from the file written after creation, or (if the agent was killed before) from
        the runtime's pid file, which names it surely as long as its parent conmon lives."""
        pid, _, started = _read(container.bundle / "init").partition(" ")
        if started.isdecimal():
            container.pid = int(pid)
            container.init = open_process(container.pid, int(started))
            return
        number = read_pid(_read(container.bundle / "pid"))
        if number and container.monitor is not None and _alive(container.monitor):
            container.pid = number
            container.init = open_process(number, start_time(number))
            _write(container.bundle / "init", f"{number} {start_time(number)}")

    def _drop(self, container: _Container) -> None:
        _forget_descriptor(container.monitor)
        _forget_descriptor(container.init)
        container.monitor = container.init = None

    # ------------------------------------------------------------------------------------ delete

    async def delete(self, task_id: str) -> None:
        """See RuntimePort. Returns when no process, cgroup, state or file of the container is left."""
        container = self._find(task_id)
        if container is None:
            self._remove_files(task_id)
            return
        await self._settle(container)
        await self._finish(container)
        if not self._quick_removal(container):
            await self._thorough_removal(container)
        self._containers.pop(task_id, None)
        self._drop(container)
        self._remove_files(task_id)
        if not container.ended.done():
            container.ended.set_result(Exit(code=UNKNOWN_EXIT, finished_at=self._clock.now()))

    async def _finish(self, container: _Container) -> None:
        """Kill what lives of the container and wait for its end and its monitor's."""
        if not container.ended.done() and container.init is not None:
            with suppress(NotFound):
                self._signal(container, signal.SIGKILL)
            await asyncio.wait((container.ended,), timeout=KILL_TIMEOUT)
            if not container.ended.done():
                raise Unavailable(
                    f"the container of task {container.task_id} does not end {KILL_TIMEOUT:.0f} seconds after "
                    "SIGKILL: a process in it waits for a disk or a network file system"
                )
        monitor = container.monitor
        if monitor is None:
            return
        asyncio.get_running_loop().remove_reader(monitor)
        if not await _ends(monitor, 2.0):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(monitor, signal.SIGKILL)
            await _ends(monitor, 2.0)

    def _quick_removal(self, container: _Container) -> bool:
        """What `runc delete` does for a container that has ended, without its process: remove the cgroups,
        which the kernel refuses while anything runs in them, then runc's record. False when it is not that
        simple (another runtime, systemd's scopes, processes left in the cgroup)."""
        if not container.known_to_runc or container.systemd or not container.ended.done():
            return False
        if not cgroups.remove(self.layout, container.cgroup):
            return False
        shutil.rmtree(self._root / container.task_id, ignore_errors=True)
        return True

    async def _thorough_removal(self, container: _Container) -> None:
        """Kill whatever is left in the cgroup (`pid: host` has no init whose end takes all others along) and
        leave the rest to the runtime."""
        cgroups.kill(self.layout, container.cgroup)
        pause = 0.001
        while pause < 1 and cgroups.processes(self.layout, container.cgroup):
            await asyncio.sleep(pause)
            pause *= 2
        if self._quick_removal(container):
            return
        code, words = await self._run(container.runtime, "delete", "--force", container.task_id)
        left = not cgroups.remove(self.layout, container.cgroup)
        if (code and "does not exist" not in words) or left:
            raise Unavailable(
                f"the container of task {container.task_id} cannot be removed: "
                f"{conmon.runtime_words(words) or 'processes are left in its cgroup'}"
            )

    def _remove_files(self, task_id: str) -> None:
        shutil.rmtree(self._bundle(task_id), ignore_errors=True)
        with suppress(OSError):
            self._paths.task_run(task_id).rmdir()  # unless others have something there
        (self._exits / task_id).unlink(missing_ok=True)
        socket = self._sockets / task_id  # conmon's link to the bundle, or a directory where paths are short
        if socket.is_symlink():
            socket.unlink(missing_ok=True)
        else:
            shutil.rmtree(socket, ignore_errors=True)

    def remove_parent(self) -> bool:
        """Remove the parent cgroup when no container is left in it: for an agent that leaves the machine."""
        if self._making:
            return False
        parent = self._paths.cgroup_parent
        if self._systemd:
            return cgroups.stop_slice(self.layout, cgroups.slice_name(parent))
        return cgroups.remove(self.layout, f"/{parent.strip('/')}")

    # ------------------------------------------------------------------------------------ exec and probes

    async def exec(
        self, task_id: str, request: ExecRequest, stdin: AsyncIterator[ExecInput]
    ) -> AsyncIterator[ExecEvent]:
        """See RuntimePort. The command begins when the first event is asked for."""
        if not request.argv:
            raise Invalid("exec: there is no command to run")
        container = self._need_running(task_id)
        process = self._exec_process(container, request)
        return self._events(container, process, request, stdin)

    async def _events(
        self, container: _Container, process: Json, request: ExecRequest, stdin: AsyncIterator[ExecInput]
    ) -> AsyncIterator[ExecEvent]:
        command, document = self._command(container, process)
        try:
            running = Exec(
                command, terminal=request.tty, stdin=request.stdin, rows=request.rows, cols=request.cols
            )
            events = running.events(stdin)
            try:
                async for event in events:
                    yield event
            finally:
                await events.aclose()
                if running.goes_on:
                    self._let_go(running.finish(), f"exec in {container.task_id}")
        finally:
            document.unlink(missing_ok=True)

    async def attach(
        self, task_id: str, *, rows: int, cols: int, inputs: AsyncIterator[ExecInput]
    ) -> AsyncIterator[ExecEvent]:
        """See RuntimePort."""
        container, stream = await self._attachable(task_id)
        document = json.loads(_read(container.bundle / "config.json") or "{}")
        terminal = bool(document.get("process", {}).get("terminal"))
        if terminal and rows and cols:
            attach.resize(container.bundle, rows, cols)

        async def code() -> int:
            return (await asyncio.shield(container.ended)).code

        joined = attach.Attachment(stream, container.bundle, code, terminal=terminal)
        container.attached.set()
        return self._joined(task_id, joined, inputs)

    async def _joined(
        self, task_id: str, joined: attach.Attachment, inputs: AsyncIterator[ExecInput]
    ) -> AsyncIterator[ExecEvent]:
        events = joined.events(inputs)
        try:
            async for event in events:
                yield event
        finally:
            await events.aclose()
            if joined.detached:
                self._let_go(joined.idle(), f"detached from {task_id}")

    def _let_go(self, work: Coroutine[None, None, None], name: str) -> None:
        """Let what nobody waits for any more go on to its end."""
        rest = asyncio.create_task(work, name=name)
        self._detached.add(rest)
        rest.add_done_callback(self._detached.discard)

    async def _attachable(self, task_id: str) -> tuple[_Container, socket.socket]:
        """The container and its socket; waits for a container that is being made."""
        deadline = self._clock.monotonic() + _ATTACH_TIMEOUT
        while True:
            container = self._find(task_id)
            if container is not None and container.ended.done():
                raise NotFound(f"the container of task {task_id} is not running")
            if container is not None and container.pid:
                with suppress(OSError):
                    return container, attach.connect(self._sockets / task_id)
            if self._clock.monotonic() > deadline:
                raise NotFound(f"task {task_id} has no container on this node that could be attached to")
            await asyncio.sleep(0.01)

    async def attached(self, task_id: str) -> None:
        """See RuntimePort."""
        await self._need(task_id).attached.wait()

    async def probe(self, task_id: str, argv: Sequence[str], timeout: float) -> tuple[int, str]:
        """See RuntimePort."""
        container = self._need_running(task_id)
        process = self._exec_process(container, ExecRequest(argv=tuple(argv)))
        command, document = self._command(container, process)
        try:
            running = Exec(command, terminal=False, stdin=False)
            code, output = await running.output(MOST_PROBE_OUTPUT, timeout)
        finally:
            document.unlink(missing_ok=True)
        return code, output.decode(errors="replace")

    def _need_running(self, task_id: str) -> _Container:
        container = self._need(task_id)
        if container.init is None or container.ended.done():
            raise NotFound(f"the container of task {task_id} is not running")
        return container

    def _command(self, container: _Container, process: Json) -> tuple[Command, Path]:
        self._serial += 1
        document = container.bundle / f"exec-{self._serial}.json"
        pidfile = container.bundle / f"exec-{self._serial}.pid"
        _write(document, json.dumps(process))
        argv = [container.runtime, f"--root={self._root}", "exec", "--process", str(document)]
        argv += ["--pid-file", str(pidfile), container.task_id]
        cgroup = container.cgroup
        command = Command(argv, self._environment, pidfile, lambda: cgroups.processes(self.layout, cgroup))
        return command, document

    def _exec_process(self, container: _Container, request: ExecRequest) -> Json:
        """The container's own process, with what the request changes."""
        if container.process is None:
            config = json.loads((container.bundle / "config.json").read_bytes())
            container.process = config["process"]
        own: Json = container.process or {}
        process = {key: value for key, value in own.items() if key != "consoleSize"}
        process["args"] = list(request.argv)
        process["terminal"] = request.tty
        process["env"] = _merged(own["env"], request)
        if request.working_dir:
            if not request.working_dir.startswith("/"):
                raise Invalid(f"working_dir: {request.working_dir!r} has to begin with /")
            process["cwd"] = request.working_dir
        if request.user:
            process["user"] = self._exec_user(container, request.user)
        self._exec_rights(process, own, request)
        if request.tty and request.rows and request.cols:
            process["consoleSize"] = {"height": request.rows, "width": request.cols}
        return process

    def _exec_user(self, container: _Container, text: str) -> Json:
        root = f"/proc/{container.pid}/root"
        user = users.resolve(
            text, users.read_inside(root, "etc/passwd"), users.read_inside(root, "etc/group")
        )
        return {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)}

    def _exec_rights(self, process: Json, own: Json, request: ExecRequest) -> None:
        names: Sequence[str] = own["capabilities"]["bounding"]
        if request.privileged:
            names = [name for name in capabilities.ALL if name in self._host.capabilities]
        process["capabilities"] = oci_spec.capability_sets(names, process["user"]["uid"])

    # ------------------------------------------------------------------------------------ stats

    async def stats(self, task_id: str) -> ContainerStats:
        """See RuntimePort. Network figures are those of the container's own interfaces but loopback; with
        the machine's network they are 0."""
        container = self._need(task_id)
        used = cgroups.usage(self.layout, container.cgroup)
        if used is None:
            raise NotFound(f"the container of task {task_id} has no cgroup")
        received, sent = _network(container.pid) if container.init is not None else (0, 0)
        return ContainerStats(
            task_id=task_id,
            timestamp=self._clock.now(),
            cpu_nanos=used.cpu_nanos,
            memory=used.memory,
            memory_limit=used.memory_limit,
            pids=used.pids,
            network_rx=received,
            network_tx=sent,
            block_read=used.block_read,
            block_write=used.block_write,
        )

    # ------------------------------------------------------------------------------------ the runtime's program

    async def _run(self, runtime: str, *arguments: str) -> tuple[int, str]:
        """Run the OCI runtime: (exit code, what it printed)."""
        argv = [runtime, f"--root={self._root}"]
        if self._systemd:
            argv.append("--systemd-cgroup")
        process, reader = _spawn([*argv, *arguments], self._environment)
        descriptor = os.pidfd_open(process.pid)
        try:
            await readable(descriptor)
            os.set_blocking(reader, False)
            words = b""
            with suppress(BlockingIOError):
                words = os.read(reader, 1 << 16)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            os.close(descriptor)
            os.close(reader)
        return process.returncode, words.decode(errors="replace")

    def _bundle(self, task_id: str) -> Path:
        return self._paths.task_run(task_id) / "bundle"


# ---------------------------------------------------------------------------------------------- pieces


def _logless(launch: Launch) -> bool:
    driver = launch.task.spec.log_driver
    return driver is not None and driver.name == "none"


def _spawn(argv: Sequence[str], environment: dict[str, str]) -> tuple[subprocess.Popen[bytes], int]:
    """A process, and the descriptor from which all that it prints can be read."""
    reader, writer = os.pipe()
    try:
        process = subprocess.Popen(
            argv, env=environment, stdin=subprocess.DEVNULL, stdout=writer, stderr=writer
        )
    except OSError as error:
        os.close(reader)
        raise Fatal(f"cannot run {argv[0]}: {error.strerror}") from None
    finally:
        os.close(writer)
    return process, reader


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        file.write(text.encode())


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _waits_to_start(pid: int) -> bool:
    """Whether a container's process is still runc's own, which has a name of its own."""
    return _read(Path(f"/proc/{pid}/comm")).startswith("runc:[")


def _alive(descriptor: int) -> bool:
    """Whether the process of a pidfd has not ended (one that has ended can still be signalled until its
    parent has taken note, so the descriptor is asked)."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return not poll.poll(0)


async def _ends(descriptor: int, timeout: float) -> bool:
    """Whether the process of a pidfd ends within `timeout` seconds."""
    try:
        async with asyncio.timeout(timeout):
            await readable(descriptor)
    except TimeoutError:
        return False
    return True


def _open_monitor(pid: int, task_id: str) -> int | None:
    """A pidfd of conmon, if this pid is still the conmon of this task."""
    if not pid:
        return None
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    try:
        if task_id.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _forget_descriptor(descriptor: int | None) -> None:
    if descriptor is not None:
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)


def _merged(own: Sequence[str], request: ExecRequest) -> list[str]:
    """The container's environment under the request's."""
    values = {entry.partition("=")[0]: entry for entry in own}
    if request.tty:
        values.setdefault("TERM", "TERM=xterm")
    for entry in request.env:
        name, separator, _ = entry.partition("=")
        if separator:
            values[name] = entry
        else:
            values.pop(name, None)
    return list(values.values())


def _network(pid: int) -> tuple[int, int]:
    """Bytes received and sent over the interfaces of a process's network namespace, but loopback's."""
    received = sent = 0
    try:
        if Path(f"/proc/{pid}/ns/net").stat().st_ino == Path("/proc/self/ns/net").stat().st_ino:
            return 0, 0
        lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    except OSError:
        return 0, 0
    for line in lines:
        name, _, numbers = line.partition(":")
        fields = numbers.split()
        if name.strip() != "lo" and len(fields) >= 9:
            received += int(fields[0])
            sent += int(fields[8])
    return received, sent
