"""Control groups: which layout a machine has, names of both drivers, and what the files mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from node_agent.runtime import cgroups
from node_agent.runtime.cgroups import CgroupLayout

HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
90 31 0:32 / /other/memory rw,relatime - cgroup cgroup rw,memory
"""


def test_mountinfo() -> None:
    v1, unified = cgroups.parse_mountinfo(HYBRID)
    assert v1 == {
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
        "memory": "/sys/fs/cgroup/memory",
        "name=systemd": "/sys/fs/cgroup/systemd",
    }
    assert unified == "/sys/fs/cgroup/unified"


@pytest.mark.parametrize(
    ("lines", "version"),
    [(HYBRID, "hybrid"), (HYBRID.replace("cgroup2", "tmpfs"), "v1"), (HYBRID.splitlines()[4], "v2")],
)
def test_versions(lines: str, version: str) -> None:
    assert cgroups.detect(lines).version == version


def test_directories_are_one_per_hierarchy() -> None:
    v1, unified = cgroups.parse_mountinfo(HYBRID)
    layout = CgroupLayout(version="hybrid", v1=v1, unified=unified)
    assert layout.directories("/p/t") == [
        "/sys/fs/cgroup/cpu,cpuacct/p/t",
        "/sys/fs/cgroup/memory/p/t",
        "/sys/fs/cgroup/systemd/p/t",
        "/sys/fs/cgroup/unified/p/t",
    ]
    assert layout.directory("/p/t", "cpuacct") == "/sys/fs/cgroup/cpu,cpuacct/p/t"
    assert CgroupLayout().directories("/p") == ["/sys/fs/cgroup/p"]


@pytest.fixture
def v1(tmp_path: Path) -> CgroupLayout:
    names = ("cpuacct", "memory", "pids", "blkio")
    for name in names:
        (tmp_path / name / "p/t").mkdir(parents=True)
    return CgroupLayout(version="v1", v1={name: str(tmp_path / name) for name in names}, unified="")


def test_usage_v1(v1: CgroupLayout, tmp_path: Path) -> None:
    files = {
        "cpuacct/p/t/cpuacct.usage": "12345\n",
        "memory/p/t/memory.usage_in_bytes": "5000\n",
        "memory/p/t/memory.limit_in_bytes": "9000\n",
        "memory/p/t/memory.stat": "cache 1\ninactive_file 7\ntotal_inactive_file 2000\n",
        "memory/p/t/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
        "pids/p/t/pids.current": "4\n",
        "blkio/p/t/blkio.throttle.io_service_bytes_recursive": "8:0 Read 10\n8:0 Write 5\n8:1 Read 1\nTotal 16\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert cgroups.usage(v1, "/p/t") == cgroups.Usage(
        cpu_nanos=12345, memory=3000, memory_limit=9000, pids=4, block_read=11, block_write=5
    )
    assert cgroups.oom_kills(v1, "/p/t") == 3
    (tmp_path / "memory/p/t/memory.limit_in_bytes").write_text("9223372036854771712\n")
    used = cgroups.usage(v1, "/p/t")
    assert used is not None
    assert used.memory_limit == 0
    assert cgroups.usage(v1, "/p/none") is None
    assert cgroups.oom_kills(v1, "/p/none") == 0


def test_usage_v2(tmp_path: Path) -> None:
    layout = CgroupLayout(unified=str(tmp_path))
    (tmp_path / "p/t").mkdir(parents=True)
    files = {
        "cpu.stat": "usage_usec 7\nuser_usec 5\n",
        "memory.current": "5000\n",
        "memory.max": "max\n",
        "memory.stat": "anon 1\ninactive_file 2000\n",
        "memory.events": "low 0\noom 2\noom_kill 1\n",
        "pids.current": "4\n",
        "io.stat": "8:0 rbytes=10 wbytes=5 rios=1\n8:16 rbytes=1 wbytes=0\n",
    }
    for name, text in files.items():
        (tmp_path / "p/t" / name).write_text(text)
    assert cgroups.usage(layout, "/p/t") == cgroups.Usage(
        cpu_nanos=7000, memory=3000, memory_limit=0, pids=4, block_read=11, block_write=5
    )
    assert cgroups.oom_kills(layout, "/p/t") == 1
    (tmp_path / "p/t/memory.max").write_text("64\n")
    used = cgroups.usage(layout, "/p/t")
    assert used is not None
    assert used.memory_limit == 64
    assert cgroups.usage(layout, "/p/none") is None


def test_processes_and_removal(v1: CgroupLayout, tmp_path: Path) -> None:
    (tmp_path / "pids/p/t/inner").mkdir()
    (tmp_path / "pids/p/t/cgroup.procs").write_text("12\n3\n")
    (tmp_path / "pids/p/t/inner/cgroup.procs").write_text("7\n")
    assert cgroups.processes(v1, "/p/t") == [3, 7, 12]
    (tmp_path / "pids/p/t/cgroup.procs").unlink()
    assert not cgroups.remove(v1, "/p/t")  # the file stands for what the kernel would refuse to lose
    (tmp_path / "pids/p/t/inner/cgroup.procs").unlink()
    assert cgroups.remove(v1, "/p/t")
    assert not list(tmp_path.glob("*/p/*"))
    assert cgroups.remove(v1, "/p/t")


def test_weights_of_a_machine_without() -> None:
    layout = cgroups.detect("1 1 0:1 / /nonexistent rw - cgroup cgroup rw,memory,blkio,cpu\n")
    assert (layout.swap, layout.blkio_weight, layout.realtime) == (False, False, False)


@pytest.mark.parametrize(
    ("parent", "name"),
    [("/pyswarm", "pyswarm.slice"), ("/a/b", "b.slice"), ("x.slice", "x.slice"), ("/", "system.slice")],
)
def test_slices(parent: str, name: str) -> None:
    assert cgroups.slice_name(parent) == name
