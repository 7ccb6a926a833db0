"""What a container really is: every field of the spec, seen from inside or in the kernel's files."""

from __future__ import annotations

import asyncio
import ctypes
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from node_agent.ports import BindMount, ImageConfig, Paths
from node_agent.runtime.cgroups import CgroupLayout
from node_agent.runtime.oci import Conmon
from pyswarm.errors import Invalid
from pyswarm.specs import (
    BlkioDevice,
    DeviceMapping,
    ResourceRequirements,
    Resources,
    Ulimit,
)
from tests.integration import containers
from tests.integration.containers import Make, ended, output, run

pytestmark = pytest.mark.root
scratch, rootfs, paths = containers.scratch, containers.rootfs, containers.paths
runtime, make = containers.runtime, containers.make


async def shell(runtime: Conmon, make: Make, script: str, **spec: Any) -> str:
    """What a shell script prints in a container of this spec."""
    return await output(runtime, make.paths, make("/bin/sh", "-c", script, **spec))


# ------------------------------------------------------------------------------------------------ process


async def test_environment(runtime: Conmon, make: Make) -> None:
    image = ImageConfig(id="i", digest="d", env=("A=image", "B=image", "C=image", "D=image"))
    text = await shell(
        runtime,
        make,
        "env",
        env=("C=spec", "D", "HOSTNAME=mine"),
        launch={"image": image, "env": ("B=launch", "C=launch")},
    )
    lines = set(text.splitlines())
    assert {"A=image", "B=launch", "C=spec", "HOSTNAME=mine", "HOME=/root"} <= lines
    assert "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" in lines
    assert not [line for line in lines if line.startswith(("D=", "TERM="))]


async def test_entrypoint_and_command(runtime: Conmon, make: Make) -> None:
    image = ImageConfig(
        id="i", digest="d", entrypoint=("/bin/echo", "entry"), cmd=("cmd",), working_dir="/tmp"
    )
    launch = make(launch={"image": image})

    async def said(**spec: Any) -> str:
        from dataclasses import replace

        made = make(launch={"image": image})
        container = replace(made.task.spec.container, **{"command": None, **spec})
        task = replace(made.task, spec=replace(made.task.spec, container=container))
        return await output(runtime, make.paths, replace(made, task=task))

    assert launch.task.id
    assert await said() == "entry cmd\n"
    assert await said(args=("other",)) == "entry other\n"
    assert await said(command=("/bin/echo", "mine")) == "mine\n"
    with pytest.raises(Invalid, match="no command"):
        await said(command=())


async def test_user_groups_directory(runtime: Conmon, make: Make) -> None:
    text = await shell(
        runtime,
        make,
        "id -u; id -g; id -G; echo $PWD $HOME",
        dir="/tmp",
        launch={"user": (1000, 1001, (7, 2000))},
    )
    assert text == "1000\n1001\n1001 7 2000\n/tmp /tmp\n"


async def test_names(runtime: Conmon, make: Make) -> None:
    text = await shell(runtime, make, "hostname; cat /proc/sys/kernel/domainname", domainname="example.org")
    assert text == "box\nexample.org\n"
    host = await shell(runtime, make, "hostname", uts_mode="host")
    assert host.strip() == os.uname().nodename


async def test_init_is_the_first_process(runtime: Conmon, make: Make) -> None:
    text = await shell(
        runtime, make, "cat /proc/1/cmdline | tr '\\0' ' '; touch /sbin/docker-init", init=True
    )
    assert text.startswith("/sbin/docker-init -- /bin/sh -c ")
    launch = make("/bin/sleep", "1000", init=True)
    task_id = await run(runtime, launch)
    await asyncio.sleep(0)
    async with asyncio.timeout(20):
        while (await runtime.probe(task_id, ("/bin/sh", "-c", "ps | grep -q '[s]leep 1000$'"), 5))[0]:
            pass
    await runtime.kill(task_id, "TERM")
    assert (await ended(runtime, task_id)).code == 143


async def test_signals_are_as_a_program_expects_them(runtime: Conmon, make: Make) -> None:
    text = await shell(runtime, make, "grep -E 'Sig(Ign|Blk)' /proc/self/status; umask")
    _, blocked, _, ignored, umask = text.split()
    # Signals 32 and 33 are the C library's own: whatever was started by its posix_spawn (make does) ignores them.
    assert (int(blocked, 16), int(ignored, 16) & ~(0b11 << 31), umask) == (0, 0, "0022")


async def test_terminal(runtime: Conmon, make: Make) -> None:
    text = await shell(
        runtime, make, "test -t 0 && test -t 1 && stty size; echo $TERM; readlink /proc/self/fd/1", tty=True
    )
    assert text.replace("\r", "").splitlines()[1:] == ["xterm", "/dev/pts/0"]


async def test_open_stdin(runtime: Conmon, make: Make) -> None:
    assert await shell(runtime, make, "cat; echo end") == "end\n"
    task_id = await run(runtime, make("/bin/sh", "-c", "cat; echo end", open_stdin=True))
    assert await runtime.running(task_id)
    code, _ = await runtime.probe(task_id, ("/bin/true",), 10)
    assert code == 0
    assert await runtime.running(task_id)


async def test_read_only_root(runtime: Conmon, make: Make) -> None:
    text = await shell(runtime, make, "touch /x 2>&1; touch /dev/shm/y && echo shm", read_only=True)
    assert "Read-only file system" in text
    assert "shm" in text


# ------------------------------------------------------------------------------------------------ security

_STATUS = "grep -E '^(CapEff|CapBnd|CapInh|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status | tr '\\t\\n' '= '"


async def test_default_rights(runtime: Conmon, make: Make) -> None:
    text = await shell(runtime, make, _STATUS)
    assert "CapEff:=00000000a80425fb" in text
    assert "CapBnd:=00000000a80425fb" in text
    assert "CapInh:=0000000000000000" in text
    assert "CapAmb:=0000000000000000" in text
    assert "NoNewPrivs:=0" in text
    assert "Seccomp:=2" in text


async def test_changed_rights(runtime: Conmon, make: Make) -> None:
    text = await shell(
        runtime, make, _STATUS, cap_drop=("ALL",), cap_add=("net_admin", "CAP_CHOWN"), no_new_privileges=True
    )
    assert "CapEff:=0000000000001001" in text
    assert "NoNewPrivs:=1" in text
    text = await shell(runtime, make, _STATUS, launch={"user": (1000, 1000, ())})
    assert "CapEff:=0000000000000000" in text
    assert "CapBnd:=00000000a80425fb" in text


@pytest.mark.parametrize(
    ("call", "denied"),
    [
        ("unshare -U true", True),
        ("mount -t tmpfs x /tmp", True),
        ("true", False),
    ],
)
async def test_seccomp_refuses(runtime: Conmon, make: Make, call: str, denied: bool) -> None:
    text = await shell(runtime, make, f"{call} 2>&1 && echo fine")
    assert ("fine" not in text) == denied
    if denied:
        assert "ermi" in text
    if call.startswith("unshare"):
        free = await shell(runtime, make, f"{call} 2>&1 && echo fine", security_opt=("seccomp=unconfined",))
        assert free == "fine\n"


async def test_seccomp_profile_of_ones_own(runtime: Conmon, make: Make) -> None:
    rule = '{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":7}'
    profile = f'{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{rule}]}}'
    text = await shell(
        runtime, make, "mkdir /tmp/x 2>&1; unshare -U true && echo fine", security_opt=(f"seccomp={profile}",)
    )
    assert "Argument list too long" in text
    assert "fine" in text


async def test_masked_and_read_only_paths(runtime: Conmon, make: Make) -> None:
    script = "cat /proc/timer_list 2>/dev/null | wc -c; ls /sys/firmware | wc -l; "
    script += "echo 1 > /proc/sys/kernel/msgmax && echo written"
    assert (await shell(runtime, make, script)).splitlines()[:2] == ["0", "0"]
    assert "written" not in await shell(runtime, make, script)
    free = await shell(
        runtime,
        make,
        "echo 65536 > /proc/sys/kernel/msgmax && echo written",
        security_opt=("systempaths=unconfined",),
    )
    assert free == "written\n"


async def test_privileged(runtime: Conmon, make: Make) -> None:
    script = (
        f"{_STATUS}; mount -t tmpfs x /tmp && echo mounted; ls /dev | wc -l; "
        "mount | grep -E 'on /(sys|sys/fs/cgroup/pids) '"
    )
    text = await shell(runtime, make, script, privileged=True)
    assert "Seccomp:=0" in text
    assert "mounted" in text
    bound = next(w for w in Path("/proc/self/status").read_text().splitlines() if w.startswith("CapPrm"))
    assert f"CapEff:={bound.split()[1]}" in text
    assert "/sys type sysfs (rw" in text
    devices = [p for p in Path("/dev").iterdir() if stat.S_ISCHR(p.lstat().st_mode)]
    assert int(next(line for line in text.splitlines() if line.isdecimal())) >= len(devices)


# ------------------------------------------------------------------------------------------------ mounts and devices


async def test_default_mounts(runtime: Conmon, make: Make) -> None:
    text = await shell(runtime, make, "mount; ls /dev; df -k /dev/shm", shm_size=8 << 20)
    mounts = {line.split()[2]: line for line in text.splitlines() if " type " in line}
    assert {"/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup"} <= set(
        mounts
    )
    assert "size=8192k" in mounts["/dev/shm"]
    assert "noexec" in mounts["/dev/shm"]
    assert "type mqueue" in mounts["/dev/mqueue"]
    assert "gid=5,mode=620" in mounts["/dev/pts"]
    assert "(ro," in mounts["/sys"]
    words = set(text.split())
    assert {
        "null",
        "zero",
        "full",
        "random",
        "urandom",
        "tty",
        "ptmx",
        "pts",
        "shm",
        "fd",
        "stdin",
        "stdout",
    } <= words


async def test_binds_and_tmpfs(runtime: Conmon, make: Make, scratch: Path) -> None:
    (scratch / "data").mkdir()
    (scratch / "data/file").write_text("content\n")
    mounts = (
        BindMount(source=str(scratch / "data"), target="/data", options=("rbind", "ro", "rprivate")),
        BindMount(source="tmpfs", target="/cache", type="tmpfs", options=("nosuid", "size=1m", "mode=1700")),
        BindMount(source=str(scratch / "data"), target="/dev/shm"),
    )
    text = await shell(
        runtime,
        make,
        "cat /data/file; touch /data/x 2>&1; stat -c %a /cache; mount | grep cache; ls /dev/shm",
        launch={"mounts": mounts},
    )
    assert text.startswith("content\n")
    assert "Read-only" in text
    assert "1700" in text
    assert "size=1024k" in text
    assert text.endswith("file\n")


async def test_ipc_modes(runtime: Conmon, make: Make) -> None:
    marker = Path(f"/dev/shm/{make.paths.cgroup_parent.strip('/')}-marker")
    marker.write_text("x")
    try:
        assert marker.name in await shell(runtime, make, "ls /dev/shm", ipc_mode="host")
        assert await shell(runtime, make, "ls /dev/shm") == ""
        assert "shm" not in (await shell(runtime, make, "ls /dev", ipc_mode="none")).split()
    finally:
        marker.unlink()


async def test_devices(runtime: Conmon, make: Make) -> None:
    device = DeviceMapping(path_on_host="/dev/null", path_in_container="/dev/mine", permissions="r")
    text = await shell(
        runtime, make, "stat -c '%t:%T' /dev/mine; echo x > /dev/null && echo ok", devices=(device,)
    )
    assert text == "1:3\nok\n"
    with pytest.raises(Invalid, match=r"devices\[0\].*/dev/nosuch"):
        await runtime.create(make(devices=(DeviceMapping(path_on_host="/dev/nosuch"),)))


async def test_device_rules(runtime: Conmon, make: Make) -> None:
    task_id = await run(runtime, make(device_cgroup_rules=("c 189:* rwm",)))
    if runtime.layout.has("devices") and runtime.layout.version != "v2":
        text = cgroup_file(runtime.layout, make.paths, task_id, "devices", "devices.list")
        assert "c 189:* rwm" in text
        assert "c 1:3 rwm" in text
        assert "a *:* rwm" not in text


async def test_namespaces_of_the_host(runtime: Conmon, make: Make) -> None:
    script = "for n in pid ipc uts cgroup net; do readlink /proc/self/ns/$n; done"
    own = {
        name: str(Path(f"/proc/self/ns/{name}").readlink()) for name in ("pid", "ipc", "uts", "cgroup", "net")
    }
    private = (await shell(runtime, make, script, cgroup_mode="private")).split()
    assert private[4] == own["net"]
    assert not set(private[:4]) & set(own.values())
    shared = (
        await shell(
            runtime, make, script, pids_mode="host", ipc_mode="host", uts_mode="host", cgroup_mode="host"
        )
    ).split()
    assert shared == list(own.values())


async def test_network_namespace_and_sysctls(runtime: Conmon, make: Make, scratch: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    target = scratch / "netns"
    target.touch()

    def namespace() -> None:
        assert libc.unshare(0x40000000) == 0
        source = f"/proc/self/task/{libc.gettid()}/ns/net"
        assert libc.mount(source.encode(), bytes(target), None, 4096, None) == 0

    import threading

    thread = threading.Thread(target=namespace)
    thread.start()
    thread.join()
    try:
        text = await shell(
            runtime,
            make,
            "cd /proc/sys/net/ipv4; readlink /proc/self/ns/net; "
            "cat ip_unprivileged_port_start ping_group_range ip_default_ttl",
            sysctls={"net.ipv4.ip_default_ttl": "33"},
            launch={"netns": target},
        )
        assert text.splitlines()[0] == f"net:[{target.stat().st_ino}]"
        assert text.split()[1:] == ["0", "0", "2147483647", "33"]
    finally:
        assert libc.umount2(bytes(target), 2) == 0


# ------------------------------------------------------------------------------------------------ limits


def cgroup_file(layout: CgroupLayout, paths: Paths, task_id: str, controller: str, name: str) -> str:
    return Path(layout.directory(f"{paths.cgroup_parent}/{task_id}", controller), name).read_text().strip()


_V1_FILES = {
    ("memory", "memory.limit_in_bytes"): str(64 << 20),
    ("memory", "memory.memsw.limit_in_bytes"): str(96 << 20),
    ("memory", "memory.soft_limit_in_bytes"): str(32 << 20),
    ("memory", "memory.swappiness"): "10",
    ("cpu", "cpu.cfs_period_us"): "50000",
    ("cpu", "cpu.cfs_quota_us"): "75000",
    ("cpu", "cpu.shares"): "512",
    ("cpuset", "cpuset.cpus"): "0",
    ("cpuset", "cpuset.mems"): "0",
    ("pids", "pids.max"): "77",
}
_V2_FILES = {
    ("memory", "memory.max"): str(64 << 20),
    ("memory", "memory.swap.max"): str(32 << 20),
    ("memory", "memory.low"): str(32 << 20),
    ("cpu", "cpu.max"): "75000 50000",
    ("cpuset", "cpuset.cpus"): "0",
    ("cpuset", "cpuset.mems"): "0",
    ("pids", "pids.max"): "77",
}


async def test_resource_limits(runtime: Conmon, make: Make) -> None:
    resources = ResourceRequirements(
        limits=Resources(nano_cpus=1_500_000_000, memory=64 << 20, pids=77),
        reservations=Resources(memory=32 << 20),
        swap=32 << 20,
        swappiness=10,
        cpu_period=50_000,
        cpu_shares=512,
        cpuset_cpus="0",
        cpuset_mems="0",
    )
    task_id = await run(runtime, make(resources=resources, oom_score_adj=500))
    expected = _V2_FILES if runtime.layout.version == "v2" else _V1_FILES
    found = {key: cgroup_file(runtime.layout, make.paths, task_id, *key) for key in expected}
    assert found == expected
    pid = (make.paths.task_run(task_id) / "bundle/pid").read_text()
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "500\n"


async def test_swap_defaults_to_as_much_as_memory(runtime: Conmon, make: Make) -> None:
    task_id = await run(runtime, make(resources=ResourceRequirements(limits=Resources(memory=64 << 20))))
    key, value = (
        ("memory.swap.max", 64) if runtime.layout.version == "v2" else ("memory.memsw.limit_in_bytes", 128)
    )
    assert cgroup_file(runtime.layout, make.paths, task_id, "memory", key) == str(value << 20)


async def test_block_io_limits(runtime: Conmon, make: Make) -> None:
    disks = sorted(p.name for p in Path("/sys/block").iterdir() if Path("/dev", p.name).is_block_device())
    if not disks:
        pytest.fail("this machine has no block device: attach one (losetup)")
    path = f"/dev/{disks[0]}"
    resources = ResourceRequirements(
        blkio_weight=300,
        blkio_read_bps=(BlkioDevice(path=path, value=1 << 20),),
        blkio_write_iops=(BlkioDevice(path=path, value=50),),
    )
    task_id = await run(runtime, make(resources=resources))
    device = Path(path).stat().st_rdev
    number = f"{os.major(device)}:{os.minor(device)}"
    if runtime.layout.version == "v2":
        text = cgroup_file(runtime.layout, make.paths, task_id, "io", "io.max")
        assert f"{number} rbps=1048576" in text
        assert "wiops=50" in text
        return
    assert (
        cgroup_file(runtime.layout, make.paths, task_id, "blkio", "blkio.throttle.read_bps_device")
        == f"{number} 1048576"
    )
    assert (
        cgroup_file(runtime.layout, make.paths, task_id, "blkio", "blkio.throttle.write_iops_device")
        == f"{number} 50"
    )


async def test_ulimits(runtime: Conmon, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    limits = (
        Ulimit(name="nofile", soft=100, hard=200),
        Ulimit(name="nproc", soft=-1, hard=-1),
        Ulimit(name="core", soft=0, hard=0),
    )
    text = await shell(runtime, make, "grep -E 'open files|processes|core' /proc/self/limits", ulimits=limits)
    values = {line[:26].strip(): line[26:].split()[:2] for line in text.splitlines()}
    assert values["Max open files"] == ["100", "200"]
    assert values["Max core file size"] == ["0", "0"]
    if "unlimited" not in values["Max processes"]:
        assert "ulimits.nproc" in caplog.text


async def test_oom_score_cannot_always_be_lowered(runtime: Conmon, make: Make) -> None:
    text = await shell(runtime, make, "cat /proc/self/oom_score_adj", oom_score_adj=-500)
    assert int(text) in (-500, int(Path("/proc/self/oom_score_adj").read_text()))


async def test_stats(runtime: Conmon, make: Make) -> None:
    resources = ResourceRequirements(limits=Resources(memory=64 << 20))
    task_id = await run(runtime, make("/bin/sh", "-c", "while :; do :; done", resources=resources))
    async with asyncio.timeout(20):
        first = await runtime.stats(task_id)
        while (await runtime.stats(task_id)).cpu_nanos < first.cpu_nanos + 10_000_000:
            await asyncio.to_thread(os.sched_yield)
    stats = await runtime.stats(task_id)
    assert stats.memory_limit == 64 << 20
    assert 0 < stats.memory < 64 << 20
    assert stats.pids >= 1
