"""What the network costs: attach and detach of tasks, one changed member among many, a name looked up.

    python benchmarks/network.py [--tasks 40] [--parallel 4] [--services 200]

Run as root. Everything happens in a network namespace of its own, which is gone afterwards; each
task gets one interface per network.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import os
import resource
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from node_agent.network import namespaces, netlink
from node_agent.network.manager import NetworkManager
from node_agent.ports import Paths
from pyswarm.objects import (
    AllocatedPool,
    Member,
    Network,
    NetworkAttachment,
    NetworkTable,
    ServiceEntry,
    Task,
)
from pyswarm.specs import NetworkSpec

ADDR = "10.99.0.1"


def _table(number: int, tasks: int, services: int) -> NetworkTable:
    base = f"10.{number}"
    members = [
        Member(
            task_id=f"task{index:04}",
            service_id=f"s{index % services}",
            node_id="bench",
            node_addr=ADDR,
            address=f"{base}.{100 + index // 250}.{index % 250 + 2}",
            mac_address="",
            healthy=True,
            names=(f"s{index % services}.{index}",),
        )
        for index in range(tasks)
    ]
    entries = [
        ServiceEntry(
            service_id=f"s{index}",
            name=f"s{index}",
            vip=f"{base}.{index // 250}.{index % 250 + 3}",
            names=(f"s{index}",),
        )
        for index in range(services)
    ]
    network = Network(
        id=f"net{number}",
        vni=4096 + number,
        spec=NetworkSpec(name=f"net{number}"),
        pools=(AllocatedPool(subnet=f"{base}.0.0/16", gateway=f"{base}.0.1"),),
    )
    return NetworkTable(network=network, members=tuple(members), services=tuple(entries))


def _task(index: int, tables: Sequence[NetworkTable]) -> Task:
    return Task(
        id=f"task{index:04}",
        service_name="bench",
        slot=index + 1,
        networks=tuple(
            NetworkAttachment(network_id=table.network.id, addresses=(f"{table.members[index].address}/16",))
            for table in tables
        ),
    )


async def _timed(label: str, count: int, work: Callable[[], Awaitable[object]]) -> None:
    before, start = _cpu(), time.perf_counter()
    await work()
    wall, cpu = time.perf_counter() - start, _cpu() - before
    print(f"{label:44} {wall / count * 1000:8.2f} ms wall {cpu / count * 1000:8.2f} ms CPU", flush=True)


def _cpu() -> float:
    use = resource.getrusage(resource.RUSAGE_SELF)
    return use.ru_utime + use.ru_stime


async def _in_parallel(parallel: int, jobs: Sequence[Callable[[], Awaitable[object]]]) -> None:
    todo = list(reversed(jobs))

    async def worker() -> None:
        while todo:
            await todo.pop()()

    async with asyncio.TaskGroup() as group:
        for _ in range(parallel):
            group.create_task(worker())


async def _bench(directory: Path, options: argparse.Namespace) -> None:
    manager = NetworkManager(
        Paths(state=directory / "state", run=directory / "run"),
        node_id="bench",
        data_path_addr=ADDR,
        prefix="bench",
    )
    count = options.tasks
    tables = [
        _table(number + 1, max(count, options.members), options.services)
        for number in range(options.networks)
    ]
    networks = {table.network.id: table for table in tables}
    tasks = [_task(index, tables) for index in range(count)]
    by_id = {task.id: task for task in tasks}
    await _timed("start", 1, manager.start)
    await _timed(f"first apply ({options.services} services)", 1, lambda: manager.apply(networks, (), by_id))
    await _timed(
        f"attach, {options.parallel} at a time",
        count,
        lambda: _in_parallel(options.parallel, [lambda task=task: manager.attach(task) for task in tasks]),
    )
    await _one_member(manager, tables, by_id)
    await _timed("repair", 1, manager.repair)
    await _timed("name lookup through the socket", 500, lambda: _lookups(manager, directory, 500))
    await _timed(
        f"detach, {options.parallel} at a time",
        count,
        lambda: _in_parallel(options.parallel, [lambda task=task: manager.detach(task.id) for task in tasks]),
    )
    await _timed("stop and remove", 1, lambda: manager.stop(remove=True))


async def _one_member(
    manager: NetworkManager, tables: Sequence[NetworkTable], tasks: dict[str, Task]
) -> None:
    rounds = 20

    async def work() -> None:
        first = tables[0]
        for number in range(rounds):
            member = replace(first.members[0], healthy=bool(number % 2))
            changed = replace(first, members=(member, *first.members[1:]))
            await manager.apply({t.network.id: t for t in (changed, *tables[1:])}, (), tasks)

    await _timed("apply, one member changed", rounds, work)


async def _lookups(manager: NetworkManager, directory: Path, count: int) -> None:
    query = bytes.fromhex("123401000001000000000000") + b"\x02s1\0\0\1\0\1"

    def work() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as item:
            item.settimeout(5)
            item.connect(("127.0.0.11", 53))
            for _ in range(count):
                item.send(query)
                item.recv(512)

    await asyncio.to_thread(namespaces.inside, directory / "run" / "netns" / "task0000", work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tasks", type=int, default=40)
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--services", type=int, default=20)
    parser.add_argument("--members", type=int, default=0, help="members of each network (default: the tasks)")
    parser.add_argument("--networks", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="psb-") as directory:
        libc = _isolate(directory)
        try:
            asyncio.run(_bench(Path(directory), options))
        finally:
            libc.umount2(directory.encode(), 2)


def _isolate(directory: str) -> ctypes.CDLL:
    """Namespaces of our own for network and mounts, and a tmpfs, as the agent's run directory is one."""
    libc = ctypes.CDLL(None, use_errno=True)
    private, recursive = 1 << 18, 1 << 14
    for result in (
        libc.unshare(0x40000000 | 0x00020000),
        libc.mount(b"none", b"/", None, private | recursive, None),
        libc.mount(b"tmpfs", directory.encode(), b"tmpfs", 0, None),
    ):
        if result != 0:
            raise SystemExit(f"cannot make namespaces: {os.strerror(ctypes.get_errno())}: run as root")
    route = netlink.Socket()
    route.run([netlink.link_up(1)])
    route.close()
    return libc


if __name__ == "__main__":
    main()
