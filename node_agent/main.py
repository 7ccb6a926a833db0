"""The agent's process: `python -m node_agent.main STATE_DIR`, or with `--leave` to take down what is here.

SIGTERM ends the agent and leaves the containers running; the next agent adopts them.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import platform
import shutil
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from node_agent.answers import Answers
from node_agent.commands import Commands
from node_agent.identity import Identity
from node_agent.images.buildah import Images
from node_agent.logs import Logs, limits
from node_agent.network.manager import NetworkManager
from node_agent.ports import Paths
from node_agent.runtime.oci import Conmon
from node_agent.session import Outbox, Session
from node_agent.storage import Storage
from node_agent.worker import Worker
from pyswarm import __version__, nodeconfig, pki, supervisor, telemetry, tmpfs
from pyswarm.clock import SystemClock
from pyswarm.errors import Fatal, Invalid, PyswarmError
from pyswarm.limits import raise_file_limit
from pyswarm.nodeconfig import NodeConfig
from pyswarm.objects import ContainerStats, Node, NodeDescription, TaskState
from pyswarm.rpc import TLS
from pyswarm.spans import timed, write_on_signal
from pyswarm.specs import GenericResource, NodeSpec, Platform, Resources

log = logging.getLogger(__name__)

ROTATE_PERIOD = 1.0
COLLECT_PERIOD = 300.0
PLUGINS = ("Log/json-file", "Network/bridge", "Network/overlay", "Volume/local")

SPANS = {
    "create": "runtime: create",
    "start": "runtime: start",
    "delete": "runtime: delete",
    "ensure": "image",
    "mount": "image",
    "prepare": "mount",
    "attach": "network: attach",
    "apply": "network: tables",
    "detach": "network: detach",
}
"""Methods of the worker's ports, and the names under which their time is counted."""


class Agent:
    """One node's agent over its parts."""

    def __init__(self, config: NodeConfig) -> None:
        self._config = config
        self._clock = SystemClock()
        self._paths = Paths(
            state=config.state / "agent", run=config.run / "agent", cgroup_parent=config.cgroup_parent
        )
        for directory in (self._paths.state, self._paths.run):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._outbox = Outbox()
        self._runtime = Conmon(
            self._paths, runtime=config.runtime, driver=config.cgroup_driver, clock=self._clock
        )
        self._description = describe(config, self._runtime.cgroup)
        node = Node(
            id=config.node_id,
            spec=NodeSpec(name=self._description.hostname),
            description=self._description,
            data_path_addr=config.data_path_addr,
        )
        self._images = Images(self._paths, insecure_registries=config.insecure_registries, clock=self._clock)
        self._storage = Storage(self._paths, node, self._clock)
        self._network = NetworkManager(
            self._paths,
            node_id=config.node_id,
            data_path_addr=config.data_path_addr,
            data_path_port=config.data_path_port,
            prefix=config.link_prefix,
        )
        self._logs = Logs(self._paths, clock=self._clock)
        self._worker = Worker(
            paths=self._paths,
            node=node,
            runtime=timed(self._runtime, SPANS),
            images=timed(self._images, SPANS),
            storage=timed(self._storage, SPANS),
            network=timed(self._network, SPANS),
            clock=self._clock,
            report=self._outbox.put,
        )

    def _session(self) -> Session:
        commands = Commands(
            self._images,
            self._storage,
            self._paths.state / "scratch",
            self._images_in_use,
            self._runtime.kill,
            self._worker.restart,
            self._worker.release_images,
        )
        session = Session(
            worker=self._worker,
            answerer=Answers(self._runtime, self._logs, commands),
            outbox=self._outbox,
            managers=self._config.managers,
            tls=self._tls,
            describe=self._described,
            stats=self._stats,
            clock=self._clock,
            addr=self._config.advertise_addr,
            data_path_addr=self._config.data_path_addr,
            remember_managers=self._remember_managers,
            registered=self._note_session,
            told=self._told,
            manager_addresses=self._manager_addresses,
        )
        self._identity = Identity(
            config=lambda: self._config,
            take_role=lambda role: self._keep(role=role),
            renew=session.renew,
            changed=session.reconnect,
            clock=self._clock,
        )
        self._images.fetch = session.fetch_image
        return session

    def _tls(self) -> TLS:
        return TLS(self._config.cert("ca.pem"), self._config.cert("node.pem"), self._config.cert("node.key"))

    def _remember_managers(self, managers: Sequence[str]) -> None:
        self._keep(managers=tuple(managers))

    def _told(self, node: Node | None, roots: str) -> None:
        self._identity.told(node, roots)

    def _described(self) -> NodeDescription:
        """The machine, and the certificate that is in use now."""
        roots, cert = self._config.cert("ca.pem"), self._config.cert("node.pem")
        return replace(
            self._description, root_ca=roots.decode(), certificate_issuer=pki.issuer_id(cert, roots)
        )

    def _keep(self, **changes: Any) -> None:
        """Settings that have changed while the agent runs. (`Any`: each has a type of its own.) Where the file of the
        settings is damaged, those that the agent runs by take its place."""
        try:
            self._config = nodeconfig.update(self._config.state, **changes)
        except Fatal:
            self._config = replace(self._config, **changes)
            nodeconfig.save(self._config)
        nodeconfig.keep_copy(self._config)

    def _manager_addresses(self) -> tuple[str, str]:
        """Of this node's manager: where machines join, and of its API."""
        config = self._config
        return (config.join_address, config.api_address) if config.role == "manager" else ("", "")

    def _note_session(self, manager: str) -> None:
        if manager:
            self._config.session_file.write_text(f"{manager}\n")
        else:
            self._config.session_file.unlink(missing_ok=True)

    def _images_in_use(self) -> list[str]:
        return [task.spec.container.image for task in self._worker.tasks().values()]

    async def _stats(self) -> Sequence[ContainerStats]:
        figures: list[ContainerStats] = []
        for task_id, task in self._worker.tasks().items():
            if task.status.state == TaskState.RUNNING:
                with contextlib.suppress(PyswarmError):
                    figures.append(await self._runtime.stats(task_id))
        return figures

    # ------------------------------------------------------------------------------ running

    async def run(self) -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        try:
            async with self._worker:
                gc.freeze()
                session = self._session()
                parts = [session.run(), self._identity.run(), self._rotate_logs(), self._collect_images()]
                if self._config.service_manager == "supervisor":
                    parts.append(supervisor.keep(self._config.state, self._config.run))
                async with asyncio.TaskGroup() as group:
                    work = [group.create_task(part) for part in parts]
                    await stop.wait()
                    for task in work:
                        task.cancel()
        finally:
            await self._network.stop(remove=False)
            self._runtime.close()

    async def _collect_images(self) -> None:
        """Make room on a disk that fills up."""
        while True:
            await asyncio.sleep(COLLECT_PERIOD)
            try:
                if gone := await self._images.collect(self._images_in_use()):
                    log.warning(
                        "the disk is nearly full: removed %d images that nothing here uses", len(gone)
                    )
            except PyswarmError as error:
                log.warning("cannot make room on the disk: %s", error)

    async def _rotate_logs(self) -> None:
        while True:
            await asyncio.sleep(ROTATE_PERIOD)
            for task_id, task in self._worker.tasks().items():
                with contextlib.suppress(Invalid):
                    self._logs.rotate(task_id, limits(task.spec.log_driver))

    async def leave(self, *, purge: bool) -> None:
        """Take down every container and all that belongs to it; with `purge`, volumes and images too."""
        async with self._worker:
            await self._worker.remove_all()
        await self._images.stop(remove=purge)
        self._runtime.remove_parent()
        self._runtime.close()
        if purge:
            await asyncio.to_thread(shutil.rmtree, self._paths.state, True)


# ---------------------------------------------------------------------------------------------- the machine


def describe(config: NodeConfig, cgroup: str) -> NodeDescription:
    """What this machine is and has."""
    return NodeDescription(
        hostname=socket.gethostname(),
        platform=Platform(architecture=platform.machine(), os="linux"),
        resources=Resources(
            nano_cpus=len(os.sched_getaffinity(0)) * 1_000_000_000,
            memory=memory_total(Path("/proc/meminfo").read_text()),
            generic=tuple(generic_resource(text) for text in config.generic_resources),
        ),
        engine_version=__version__,
        engine_labels=config.engine_labels,
        plugins=PLUGINS,
        kernel=platform.release(),
        os_name=os_name(),
        cgroup=cgroup,
    )


def memory_total(meminfo: str) -> int:
    """Bytes of memory, from the text of /proc/meminfo."""
    for line in meminfo.splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    raise Fatal("/proc/meminfo does not say how much memory there is")


def os_name() -> str:
    """`Debian GNU/Linux 12 (bookworm)`."""
    with contextlib.suppress(OSError):
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    return "Linux"


def generic_resource(text: str) -> GenericResource:
    """`gpu=2` (discrete) or `gpu=UUID1` (named)."""
    kind, equals, value = text.partition("=")
    if not kind or not equals or not value:
        raise Fatal(f"generic resource {text!r}: write it as kind=number or kind=name")
    return (
        GenericResource(kind=kind, value=int(value))
        if value.isdigit()
        else GenericResource(kind=kind, string_value=value)
    )


def main() -> int:
    state = Path(sys.argv[1])
    telemetry.setup("node_agent", nodeconfig.log_format(state))
    return telemetry.exit_code(lambda: _run(nodeconfig.load(state), sys.argv[2:]))


def _run(config: NodeConfig, flags: Sequence[str]) -> None:
    if os.geteuid() != 0:
        raise Fatal("the agent needs root: it makes namespaces, mounts and containers")
    tmpfs.ensure(config.run)
    if supervisor.hold(config.run / "agent.lock") is None:
        raise Fatal(f"another agent runs on {config.state}")
    nodeconfig.keep_copy(config)
    raise_file_limit()
    write_on_signal("agent")
    agent = Agent(config)
    asyncio.run(agent.leave(purge="--purge" in flags) if "--leave" in flags else agent.run())


if __name__ == "__main__":
    raise SystemExit(main())
