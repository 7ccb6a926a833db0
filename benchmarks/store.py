"""What the store costs: `python benchmarks/store.py`. Starts an etcd (or three) of its own; needs root.

Serial commits of one object, 64 commits at a time, transactions of 100, reading everything, watching, and
the same commits on the store in memory for what is Python's share.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from manager.etcd_process import EtcdProcess
from manager.membership import Membership
from manager.store import Put, Store
from manager.store.memory import MemoryStore
from pyswarm.errors import Unavailable
from pyswarm.objects import Task, TaskState, TaskStatus
from tests.etcd_rig import Member, new_root

SERIAL = 500
PARALLEL = 64
WAVES = 30
BATCH = 100
BATCHES = 50


def a_task(id: str) -> Task:
    """About as large as a real one."""
    status = TaskStatus(state=TaskState.RUNNING, message="started", container_id=id * 2)
    return Task(id=id, service_id="s" * 25, node_id="n" * 25, service_name="shop_web", status=status)


def row(what: str, value: str) -> None:
    print(f"  {what:<34}{value:>26}")


async def measure(store: Store) -> None:
    times: list[float] = []
    for n in range(SERIAL):
        start = time.perf_counter()
        await store.commit([Put(a_task(f"serial{n:019}"))])
        times.append((time.perf_counter() - start) * 1000)
    times.sort()
    row("serial commit, p50 / p99", f"{times[SERIAL // 2]:.2f} / {times[SERIAL * 99 // 100]:.2f} ms")

    start = time.perf_counter()
    for wave in range(WAVES):
        await asyncio.gather(
            *(store.commit([Put(a_task(f"wave{wave:03}x{n:017}"))]) for n in range(PARALLEL))
        )
    row(f"{PARALLEL} at a time", f"{WAVES * PARALLEL / (time.perf_counter() - start):.0f} a second")

    start = time.perf_counter()
    for part in range(BATCHES):
        await store.commit([Put(a_task(f"batch{part:03}x{n:016}")) for n in range(BATCH)])
    taken = time.perf_counter() - start
    row(
        f"commit of {BATCH}", f"{taken / BATCHES * 1000:.2f} ms ({taken / BATCHES / BATCH * 1e6:.0f} us each)"
    )

    start = time.perf_counter()
    listing = await store.list()
    row(f"list of {len(listing.objects)}", f"{(time.perf_counter() - start) * 1000:.0f} ms")

    start = time.perf_counter()
    seen = 0
    async with store.watch(0) as batches:
        while seen < len(listing.objects):
            seen += len((await anext(batches)).events)
    row(f"watch of {seen} events", f"{seen / (time.perf_counter() - start):.0f} a second")


async def one(directory: Path) -> None:
    member = Member(directory, new_root())
    await member.start()
    store = member.store()
    try:
        print("etcd, one member")
        await measure(store)
        await footprint(member)
    finally:
        await store.close()
        await member.stop()


async def three(directory: Path) -> None:
    root = new_root()
    members = [Member(directory, root, f"m{n}", f"127.0.0.{n + 20}") for n in (1, 2, 3)]
    await members[0].start()
    store = members[0].store(*members[1:])
    membership = Membership(store.client)
    try:
        for member in members[1:]:
            plan = await membership.add(member.config.name, member.config.peer_url)
            member.config = replace(member.config, initial_cluster=plan.initial_cluster)
            member.process = EtcdProcess(member.config, member.tls)
            await member.start()
            await membership.promote(plan.member_id)
        print("etcd, three members on this machine")
        await measure(store)
        await failover(members, store)
    finally:
        await store.close()
        await asyncio.gather(*(member.stop() for member in members))


async def failover(members: list[Member], store: Store) -> None:
    """Stop etcd's leader and write through the others."""
    states = await Membership(members[0].client()).status()
    leading = next(state.name for state in states if state.leader)
    leader = next(member for member in members if member.config.name == leading)
    rest = [member for member in members if member is not leader]
    other = rest[0].store(rest[1])
    await other.list()
    assert leader.process.pid is not None
    os.kill(leader.process.pid, signal.SIGSTOP)  # killed, its supervisor would bring it back
    start = time.perf_counter()
    while True:
        try:
            await other.commit([Put(a_task(f"after{time.monotonic_ns():020}"))])
            break
        except Unavailable:
            continue
    row("leader stands still, next commit", f"{time.perf_counter() - start:.2f} s")
    await other.close()


async def footprint(member: Member) -> None:
    """etcd's memory, and its share of a core while nothing happens."""
    pid = member.process.pid
    before = ticks(pid)
    await asyncio.sleep(5)
    share = (ticks(pid) - before) / os.sysconf("SC_CLK_TCK") / 5 * 100
    status = Path(f"/proc/{pid}/status").read_text()
    resident = int(status.split("VmRSS:")[1].split()[0]) // 1024
    row("etcd: resident, idle CPU", f"{resident} MiB, {share:.1f}%")


def ticks(pid: int | None) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


async def main() -> None:
    print("in memory")
    await measure(MemoryStore())
    with tempfile.TemporaryDirectory(prefix="pyswarm-bench-store-") as directory:
        await one(Path(directory) / "one")
        if "--three" in sys.argv:
            await three(Path(directory) / "three")


if __name__ == "__main__":
    asyncio.run(main())
