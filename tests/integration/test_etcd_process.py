"""The manager's etcd child: started, watched, restarted, stopped; killed in every way; damaged data."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import shutil
import signal
import socket
import stat
import sys
import textwrap
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from manager.etcd_process import EtcdProcess, find_etcd
from manager.store import Put
from manager.store.etcd import EtcdStore
from manager.store.etcd_client import EtcdClient, Tls
from pyswarm.errors import Fatal, MissingProgram, Unavailable
from pyswarm.pki import KeyPair, Subject, identity, issue
from tests.etcd_rig import CLUSTER, Member, free_port, manager_tls, new_root
from tests.store_contract import task, within

pytestmark = pytest.mark.root
HANG = 20.0
"""Seconds after which a test has hung; how long these things take is what benchmarks/store.py is for."""


@pytest.fixture(scope="module")
def root() -> KeyPair:
    return new_root()


@pytest.fixture
async def member(tmp_path: Path, root: KeyPair) -> AsyncGenerator[Member, None]:
    member = Member(tmp_path, root)
    try:
        yield member
    finally:
        await member.stop()


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what another process does has no event
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


async def write_some(member: Member) -> int:
    store = member.store()
    try:
        return await store.commit([Put(task("t1")), Put(task("t2"))])
    finally:
        await store.close()


async def read_ids(member: Member) -> list[str]:
    store = member.store()
    try:
        return [obj.id for obj in (await store.list()).objects]
    finally:
        await store.close()


async def test_files_are_private(member: Member) -> None:
    await member.start()
    for path in [member.config.directory, *member.config.directory.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.is_dir() and path.parent.name != "member" and path.name != "member":
            assert mode == 0o700, path
        if path.suffix in (".pem", ".log"):
            assert mode == 0o600, path


async def test_killed_etcd_comes_back_with_its_data(member: Member) -> None:
    await member.start()
    await write_some(member)
    for kills in range(1, 4):
        pid = member.process.pid
        member.kill()
        await until(lambda kills=kills: member.process.restarts == kills)
        assert member.process.pid not in (None, pid)
        assert await read_ids(member) == ["t1", "t2"]


async def test_writes_go_on_after_a_kill(member: Member) -> None:
    await member.start()
    store = member.store()
    version = await store.commit([Put(task("t1"))])
    member.kill()
    start = time.monotonic()
    while True:
        try:
            await store.commit([Put(task(f"n{time.monotonic_ns()}"))])
            break
        except Unavailable:
            assert time.monotonic() - start < HANG
    assert time.monotonic() - start < HANG
    found = await store.get("task", "t1")
    assert found is not None and found.meta.version == version
    await store.close()


async def test_leadership_is_kept_or_soon_regained_after_a_kill(member: Member) -> None:
    """etcd may be back before the lease ran out; either way a fenced write works again."""
    await member.start()
    store = member.store()
    start = time.monotonic()
    while True:
        async with store.campaign("a") as leadership:
            if not member.process.restarts:
                member.kill()
                await until(lambda: member.process.restarts == 1)
                start = time.monotonic()
            try:
                await store.commit([Put(task("t1"))], leadership.fence)
                break
            except Unavailable:  # Deposed is one
                assert time.monotonic() - start < HANG
    assert time.monotonic() - start < HANG
    await store.close()


async def test_leadership_is_lost_when_etcd_stands_still(member: Member) -> None:
    await member.start()
    store = member.store()
    pid = member.process.pid
    assert pid is not None
    async with store.campaign("a") as leadership:
        os.kill(pid, signal.SIGSTOP)
        start = time.monotonic()
        await within(leadership.lost(), HANG)
        assert time.monotonic() - start < HANG
        os.kill(pid, signal.SIGCONT)
    async with asyncio.timeout(HANG), store.campaign("a") as leadership:
        await store.commit([Put(task("t1"))], leadership.fence)
    await store.close()


async def test_stop_leaves_nothing_and_start_finds_the_data(member: Member) -> None:
    await member.start()
    await write_some(member)
    pid = member.process.pid
    assert pid is not None
    await member.stop()
    assert not alive(pid)
    await member.start()
    assert await read_ids(member) == ["t1", "t2"]


async def test_stopped_signal_process_is_ended_too(member: Member) -> None:
    await member.start()
    pid = member.process.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    await member.stop()
    assert not alive(pid)


async def test_second_start_on_one_directory_is_refused(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manager.etcd_process._LOCK_WAIT", 0.3)
    await member.start()
    second = EtcdProcess(member.config, member.tls)
    with pytest.raises(Fatal, match=rf"in use by another manager \(pid {os.getpid()}"):
        await second.start()
    assert await read_ids(member) == []


_MANAGER = """
    import asyncio, pathlib, sys
    from manager.etcd_process import EtcdConfig, EtcdProcess
    from manager.store.etcd_client import Tls

    async def main():
        directory, client, peer = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
        pem = [(directory / f"tls/{name}.pem").read_bytes() for name in ("ca", "cert", "key")]
        config = EtcdConfig(
            name="m1", directory=directory, address="127.0.0.1", client_port=client, peer_port=peer
        )
        process = EtcdProcess(config, Tls(*pem))
        await process.start()
        print(process.pid, flush=True)
        await process.supervise()

    asyncio.run(main())
"""


async def manager_process(member: Member) -> tuple[asyncio.subprocess.Process, int]:
    config = member.config
    manager = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", textwrap.dedent(_MANAGER)),
        *(str(config.directory), str(config.client_port), str(config.peer_port)),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert manager.stdout is not None
    return manager, int(await within(manager.stdout.readline(), 20))


@contextlib.asynccontextmanager
async def manager_running(member: Member) -> AsyncGenerator[tuple[asyncio.subprocess.Process, int], None]:
    """A manager in a process of its own, and its etcd's id; neither is left behind."""
    manager, pid = await manager_process(member)
    try:
        yield manager, pid
    finally:
        for kill in (manager.kill, lambda: os.kill(pid, signal.SIGKILL)):
            with contextlib.suppress(ProcessLookupError):
                kill()
        await manager.wait()


async def test_kill_of_the_manager_takes_etcd_along(member: Member) -> None:
    await member.start()
    await write_some(member)
    await member.stop()
    for _ in range(2):
        async with manager_running(member) as (manager, pid):
            manager.kill()
            await manager.wait()
            await until(lambda pid=pid: not alive(pid), 2.0)
    await member.start()
    assert await read_ids(member) == ["t1", "t2"]


async def test_next_manager_starts_at_once_after_a_kill(member: Member) -> None:
    await member.start()
    await write_some(member)
    await member.stop()
    async with manager_running(member) as (first, first_pid):
        first.kill()
        async with manager_running(member) as (second, second_pid):
            assert not alive(first_pid)
            assert alive(second_pid)
            second.kill()
            await until(lambda: not alive(second_pid), 2.0)


async def test_orphan_is_ended_before_a_new_one_starts(member: Member) -> None:
    """An etcd that outlived its manager (it cannot, but the kernel is not ours) holds the lock."""
    await member.start()
    await write_some(member)
    pid = member.process.pid
    assert pid is not None
    (member.config.directory / "pid").write_text(f"{pid} 999999999\n")
    member.process._stopping = True  # pyright: ignore[reportPrivateUsage] - its supervisor stands aside
    second = EtcdProcess(member.config, member.tls)
    # The first manager's own hold on the lock ends with it.
    lock = member.process._lock  # pyright: ignore[reportPrivateUsage]
    assert lock is not None
    os.close(lock)
    member.process._lock = None  # pyright: ignore[reportPrivateUsage]
    await second.start()
    try:
        await second.wait_ready()
        assert not alive(pid)
        assert await read_ids(member) == ["t1", "t2"]
    finally:
        await second.stop()


async def test_port_in_use_is_named(member: Member) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", member.config.peer_port))
        taken.listen()
        with pytest.raises(Unavailable, match=f"another program uses the port.*{member.config.peer_port}"):
            await member.start()


async def test_address_that_the_machine_lacks_is_named(tmp_path: Path, root: KeyPair) -> None:
    member = Member(tmp_path, root)
    config = dataclasses.replace(member.config, address="192.0.2.1")
    member.process = EtcdProcess(config, member.tls)
    with pytest.raises(Unavailable, match="the machine does not have the address"):
        await member.start()


def damage_log(data: Path) -> None:
    log = next((data / "member/wal").glob("*.wal"))
    with open(log, "r+b") as file:
        file.seek(20)
        file.write(b"garbage garbage garbage")


def damage_log_in_the_middle(data: Path) -> None:
    log = next((data / "member/wal").glob("*.wal"))
    with open(log, "r+b") as file:
        file.seek(600)
        file.write(b"\xff" * 64)


def damage_database(data: Path) -> None:
    with open(data / "member/snap/db", "r+b") as file:
        file.write(os.urandom(16_384))


def shorten_database(data: Path) -> None:
    os.truncate(data / "member/snap/db", 5000)


def remove_log(data: Path) -> None:
    shutil.rmtree(data / "member/wal")


def remove_all(data: Path) -> None:
    shutil.rmtree(data / "member")


@pytest.mark.parametrize(
    "damage",
    [damage_log, damage_log_in_the_middle, damage_database, shorten_database, remove_log, remove_all],
)
async def test_damaged_data_is_fatal_and_names_the_way_out(
    member: Member, damage: Callable[[Path], None]
) -> None:
    await member.start()
    await write_some(member)
    await member.stop()
    damage(member.config.data_dir)
    with pytest.raises(Fatal, match="is damaged") as caught:
        await member.process.start()
    assert str(member.config.directory) in str(caught.value)
    assert "pyswarm restore FILE" in str(caught.value)
    assert member.process.pid is None


async def test_damage_while_running_ends_the_supervision(member: Member) -> None:
    await member.start()
    await write_some(member)
    damage_database(member.config.data_dir)
    damage_log(member.config.data_dir)
    member.kill()
    assert member.supervision is not None
    with pytest.raises(Fatal, match="is damaged"):
        await within(member.supervision, 10)


async def test_stop_at_any_moment_of_a_restart_leaves_nothing(member: Member) -> None:
    for turns in range(0, 40, 4):
        await member.start(ready=False)
        member.kill()
        async with asyncio.timeout(5):
            while member.process.pid is not None:  # noqa: ASYNC110
                await asyncio.sleep(0)
        await asyncio.sleep(0.05 + turns * 0.0005)  # about when it is started again
        assert member.supervision is not None
        member.supervision.cancel()
        await member.stop()
        assert member.process.pid is None
        assert not etcds_on(member.config.directory)


async def test_cancelled_start_leaves_nothing(member: Member) -> None:
    for turns in range(0, 60, 6):
        starting = asyncio.create_task(member.process.start())
        await asyncio.sleep(turns * 0.005)
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
            await member.stop()  # it was faster
        assert not etcds_on(member.config.directory)


async def test_missing_etcd_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(MissingProgram, match="apt-get install etcd-server"):
        await find_etcd()


@pytest.mark.parametrize("version", ["3.3.25", "3.5.1"])
async def test_bad_versions_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    fake = tmp_path / "etcd"
    fake.write_text(f"#!/bin/sh\necho 'etcd Version: {version}'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(Fatal, match=rf"etcd {version} .*apt-get install etcd-server"):
        await find_etcd()


async def test_only_managers_certificates_get_in(member: Member, root: KeyPair) -> None:
    await member.start()
    stranger = new_root()
    now = time.time()

    async def refused(tls: Tls | None) -> None:
        client = EtcdClient([member.config.local_endpoint], tls, timeout=1.0)
        try:
            with pytest.raises(Unavailable):
                await EtcdStore(client).list()
        finally:
            await client.close()

    pair = issue(root, Subject("w1", "worker", CLUSTER), now)
    await refused(Tls(root.cert, pair.cert, pair.key))
    pair = issue(root, Subject("me", "client", CLUSTER), now)
    await refused(Tls(root.cert, pair.cert, pair.key))
    pair = issue(stranger, Subject("m1", "manager", CLUSTER, ("127.0.0.1",)), now)
    await refused(Tls(root.cert, pair.cert, pair.key))
    await refused(Tls(stranger.cert, member.tls.cert, member.tls.key))
    await refused(None)


async def test_revoked_certificates_are_refused_across_restarts(member: Member, root: KeyPair) -> None:
    await member.start()
    await write_some(member)
    former = manager_tls(root, "m2", "127.0.0.1")

    async def tries(tls: Tls) -> bool:
        client = EtcdClient([member.config.local_endpoint], tls, timeout=2.0)
        try:
            return len((await EtcdStore(client).list()).objects) == 2
        except Unavailable:
            return False
        finally:
            await client.close()

    assert await tries(former)
    member.process.set_revoked([identity(former.cert).serial, "abcdef"], time.time())
    assert not await tries(former)
    assert await tries(member.tls)
    assert await tries(manager_tls(root, "m3", "127.0.0.1"))
    member.kill()
    await until(lambda: member.process.restarts == 1)
    await member.process.wait_ready()
    assert not await tries(former)
    await member.stop()
    await member.start()
    assert not await tries(former)
    member.process.set_revoked([], time.time())
    assert await tries(former)


async def test_renewed_certificate_is_used_without_a_restart(member: Member, root: KeyPair) -> None:
    await member.start()
    pid = member.process.pid
    await write_some(member)
    pair = issue(root, Subject("m1", "manager", CLUSTER, ("127.0.0.1",)), time.time())
    renewed = Tls(root.cert, pair.cert, pair.key)
    client = member.client()
    store = EtcdStore(client)
    assert len((await store.list()).objects) == 2
    async with (
        store.watch((await store.list()).revision) as batches,
        store.campaign("one") as leadership,
    ):
        lost = asyncio.create_task(leadership.lost())
        watching = asyncio.ensure_future(anext(batches))
        leaders = store.leaders()
        assert await anext(leaders) == "one"
        following = asyncio.ensure_future(anext(leaders))
        await asyncio.sleep(0.3)  # all of them are under way
        member.process.update_tls(renewed)
        await client.configure(tls=renewed)
        await store.commit([Put(task("t3"))], leadership.fence)
        assert (await within(watching)).events[0].id == "t3"
        await asyncio.sleep(1.5)  # longer than the lease
        assert not lost.done() and not following.done()
        lost.cancel()
    assert await within(following) is None
    assert member.process.pid == pid
    await client.close()


async def test_log_is_turned_over(member: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manager.etcd_process.LOG_LIMIT", 1000)
    monkeypatch.setattr("manager.etcd_process._STEADY", 0.05)
    member.config.directory.mkdir(parents=True)
    member.config.log.write_text("x" * 2000 + "\n")
    await member.start()
    older = member.config.directory / "etcd.log.1"
    await until(older.exists)
    await until(lambda: member.config.log.stat().st_size < 1000)
    assert older.read_text().startswith("x" * 2000)


async def test_full_store_says_so_and_recovers(tmp_path: Path, root: KeyPair) -> None:
    from manager.membership import Membership
    from manager.store import Delete
    from pyswarm.objects import Config
    from pyswarm.specs import ConfigSpec

    member = Member(tmp_path, root, quota=4 * 1024**2)
    try:
        await member.start()
        store = member.store()
        membership = Membership(store.client)
        with pytest.raises(Unavailable, match=r"disk quota .*make room by themselves"):
            for n in range(600):  # etcd knows its size when it writes its database: each second
                spec = ConfigSpec(name=f"c{n}", data=os.urandom(900_000))
                await store.commit([Put(Config(id=f"c{n}", spec=spec))])
        assert list((await membership.alarms()).values()) == ["NOSPACE"]
        listing = await store.list()
        assert listing.objects
        await store.commit([Delete(obj) for obj in listing.objects])
        await store.compact(listing.revision + 1)
        await membership.defragment()
        assert not await membership.alarms()
        await store.commit([Put(task("t1"))])
        await store.close()
    finally:
        await member.stop()


async def test_environment_variables_do_not_reach_etcd(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ETCD_LISTEN_METRICS_URLS", f"http://127.0.0.1:{free_port()}")
    await member.start()
    environ = Path(f"/proc/{member.process.pid}/environ").read_bytes()
    assert b"ETCD_" not in environ


async def test_no_process_is_left(member: Member) -> None:
    await member.start()
    await member.stop()
    assert not etcds_on(member.config.directory)


def etcds_on(directory: Path) -> list[bytes]:
    """The command lines of processes that have to do with the directory."""
    found: list[bytes] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            command = path.read_bytes()
            if str(directory).encode() in command and b"etcd" in command:
                found.append(command)
    return found
