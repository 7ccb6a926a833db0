"""A task as an OCI configuration: what Docker would give it, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from node_agent.ports import BindMount, ImageConfig, Launch
from node_agent.runtime import capabilities, oci_spec
from node_agent.runtime.cgroups import CgroupLayout
from node_agent.runtime.oci_spec import DeviceNode, Host
from node_agent.runtime.signals import signal_number
from pyswarm.errors import Invalid
from pyswarm.objects import Task
from pyswarm.specs import (
    BlkioDevice,
    ContainerSpec,
    DeviceMapping,
    DeviceRequest,
    ResourceRequirements,
    Resources,
    TaskSpec,
    Ulimit,
)

V1 = CgroupLayout(
    version="v1",
    v1={name: f"/sys/fs/cgroup/{name}" for name in ("cpu", "memory", "pids", "devices", "blkio")},
    unified="",
)
V2 = CgroupLayout()


def launch_of(**fields: Any) -> Launch:
    """A launch; fields of Launch by their names, `resources`, and the rest of ContainerSpec."""
    own = {name: fields.pop(name) for name in list(fields) if name in Launch.__dataclass_fields__}
    resources = fields.pop("resources", ResourceRequirements())
    values: dict[str, Any] = {"command": ("/bin/app",), **fields}
    container = ContainerSpec(**values)
    base = Launch(
        task=Task(id="t1", spec=TaskSpec(container=container, resources=resources)),
        image=ImageConfig(id="i", digest="d"),
        rootfs=Path("/root/fs"),
        hostname="box",
    )
    return replace(base, **own)


def build(
    *,
    layout: CgroupLayout = V2,
    host: Host | None = None,
    devices: dict[str, list[DeviceNode]] | None = None,
    systemd: bool = False,
    **fields: Any,
) -> oci_spec.Bundle:
    return oci_spec.build(launch_of(**fields), cgroup=layout, host=host, devices=devices, systemd=systemd)


def config(**fields: Any) -> dict[str, Any]:
    return build(**fields).config


def resources(**fields: Any) -> ResourceRequirements:
    return ResourceRequirements(**fields)


# ------------------------------------------------------------------------------------------------ process

IMAGE = ImageConfig(id="i", digest="d", entrypoint=("/entry", "-x"), cmd=("cmd",))


@pytest.mark.parametrize(
    ("command", "args", "expected"),
    [
        (None, None, ["/entry", "-x", "cmd"]),
        (None, ("a", "b"), ["/entry", "-x", "a", "b"]),
        (None, (), ["/entry", "-x"]),
        (("/mine",), None, ["/mine"]),
        (("/mine",), ("a",), ["/mine", "a"]),
        ((), ("/just", "args"), ["/just", "args"]),
    ],
)
def test_command_line(command: Any, args: Any, expected: list[str]) -> None:
    assert config(image=IMAGE, command=command, args=args)["process"]["args"] == expected


@pytest.mark.parametrize("command", [(), ("",)])
def test_nothing_to_run(command: tuple[str, ...]) -> None:
    with pytest.raises(Invalid, match="command"):
        build(image=IMAGE, command=command)


def test_init_goes_in_front() -> None:
    made = config(init=True, host=Host(init="/usr/bin/catatonit"))
    assert made["process"]["args"] == ["/sbin/docker-init", "--", "/bin/app"]
    assert made["mounts"][-1] == {
        "destination": "/sbin/docker-init",
        "type": "bind",
        "source": "/usr/bin/catatonit",
        "options": ["bind", "ro", "rprivate"],
    }
    with pytest.raises(Invalid, match="apt-get install catatonit"):
        build(init=True)


def test_environment_precedence() -> None:
    image = ImageConfig(id="i", digest="d", env=("A=1", "B=1", "C=1", "PATH=/image", "E=a=b"))
    env = config(image=image, env=("A=3", "C"), tty=True)["process"]["env"]
    assert env == ["PATH=/image", "HOSTNAME=box", "TERM=xterm", "A=3", "B=1", "E=a=b"]
    launch = replace(launch_of(env=("B=2", "HOSTNAME=other")), hostname="")
    assert oci_spec.environment(launch) == (oci_spec.DEFAULT_PATH, "B=2", "HOSTNAME=other")
    spec = ContainerSpec(env=("A=spec", "B", "PATH=/spec"))
    task = Task(id="t", spec=TaskSpec(container=spec))
    launch = replace(launch_of(env=("A=launch", "B=launch", "D=launch"), image=image), task=task)
    assert oci_spec.environment(launch) == (
        "PATH=/spec",
        "HOSTNAME=box",
        "A=spec",
        "C=1",
        "E=a=b",
        "D=launch",
    )


def test_user_and_rights_of_a_user() -> None:
    process = config(user=(1000, 50, (50, 7, 8)))["process"]
    assert process["user"] == {"uid": 1000, "gid": 50, "additionalGids": [50, 7, 8]}
    assert list(process["capabilities"]) == ["bounding"]
    assert config()["process"]["capabilities"]["effective"] == sorted(
        capabilities.DEFAULT, key=capabilities.ALL.index
    )


def test_directory() -> None:
    image = replace(IMAGE, working_dir="/image")
    assert config()["process"]["cwd"] == "/"
    assert config(image=image)["process"]["cwd"] == "/image"
    assert config(image=image, dir="/mine")["process"]["cwd"] == "/mine"
    with pytest.raises(Invalid, match="working_dir"):
        build(dir="relative")


def test_names() -> None:
    made = config(domainname="example.org")
    assert made["hostname"] == "box"
    assert made["linux"]["sysctl"] == {"kernel.domainname": "example.org"}
    assert "hostname" not in config(uts_mode="host")
    with pytest.raises(Invalid, match="domainname"):
        build(domainname="example.org", uts_mode="host")


def test_ulimits() -> None:
    limits = (Ulimit(name="nofile", soft=10, hard=20), Ulimit(name="core", soft=-1, hard=-1))
    assert config(ulimits=limits)["process"]["rlimits"] == [
        {"type": "RLIMIT_NOFILE", "hard": 20, "soft": 10},
        {"type": "RLIMIT_CORE", "hard": oci_spec.INFINITY, "soft": oci_spec.INFINITY},
    ]
    assert "rlimits" not in config()["process"]


def test_ulimits_above_the_agents_own() -> None:
    host = Host(hard_limits={"RLIMIT_NOFILE": 1000, "RLIMIT_NPROC": 500, "RLIMIT_CORE": oci_spec.INFINITY})
    limits = (
        Ulimit(name="nofile", soft=2000, hard=3000),
        Ulimit(name="nproc", soft=100, hard=-1),
        Ulimit(name="core", soft=-1, hard=-1),
    )
    made = build(ulimits=limits, host=host)
    assert [(x["soft"], x["hard"]) for x in made.config["process"]["rlimits"]] == [
        (1000, 1000),
        (100, 500),
        (oci_spec.INFINITY, oci_spec.INFINITY),
    ]
    assert len(made.warnings) == 2
    assert "1000 it is instead of 3000" in made.warnings[0]
    assert "unlimited" in made.warnings[1]


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (Ulimit(name="nofiles", soft=1, hard=1), "no such limit"),
        (Ulimit(name="core", soft=2, hard=1), "above"),
    ],
)
def test_bad_ulimits(limit: Ulimit, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        build(ulimits=(limit,))


@pytest.mark.parametrize(
    ("wanted", "least", "expected", "warned"),
    [(0, -1000, 0, False), (500, 0, 500, False), (-500, 0, 0, True), (0, 300, 300, False)],
)
def test_oom_score(wanted: int, least: int, expected: int, warned: bool) -> None:
    made = build(oom_score_adj=wanted, host=Host(oom_score_adj_min=least))
    assert made.config["process"]["oomScoreAdj"] == expected
    assert bool(made.warnings) == warned


# ------------------------------------------------------------------------------------------------ security


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ((), (), set(capabilities.DEFAULT)),
        (("net_admin", "CAP_SYS_TIME"), (), {*capabilities.DEFAULT, "CAP_NET_ADMIN", "CAP_SYS_TIME"}),
        ((), ("CHOWN", "cap_kill"), set(capabilities.DEFAULT) - {"CAP_CHOWN", "CAP_KILL"}),
        ((), ("ALL",), set()),
        (("KILL",), ("all",), {"CAP_KILL"}),
        (("ALL",), (), set(capabilities.ALL)),
        (("ALL",), ("SYS_ADMIN",), set(capabilities.ALL) - {"CAP_SYS_ADMIN"}),
    ],
)
def test_capabilities(add: tuple[str, ...], drop: tuple[str, ...], expected: set[str]) -> None:
    found = config(cap_add=add, cap_drop=drop)["process"]["capabilities"]
    assert set(found["bounding"]) == expected
    assert found["effective"] == found["permitted"] == found["bounding"]


def test_default_capabilities_are_dockers_number() -> None:
    assert capabilities.from_mask(0xA80425FB) == frozenset(capabilities.DEFAULT)
    assert sum(1 << capabilities.ALL.index(name) for name in capabilities.DEFAULT) == 0xA80425FB


def test_capabilities_the_agent_lacks() -> None:
    host = Host(capabilities=frozenset(capabilities.ALL) - {"CAP_SYS_RESOURCE", "CAP_CHOWN"})
    with pytest.raises(Invalid, match="CAP_SYS_RESOURCE"):
        build(cap_add=("SYS_RESOURCE",), host=host)
    assert "CAP_CHOWN" not in build(host=host).capabilities
    assert build(privileged=True, host=host).capabilities == host.capabilities
    assert build(cap_add=("ALL",), host=host).capabilities == host.capabilities
    with pytest.raises(Invalid, match=r"cap_add\[0\]: 'NET_ADMINS'"):
        build(cap_add=("NET_ADMINS",))


def test_paths_hidden_and_protected() -> None:
    linux = config()["linux"]
    assert "/proc/kcore" in linux["maskedPaths"]
    assert "/proc/sys" in linux["readonlyPaths"]
    for fields in ({"security_opt": ("systempaths=unconfined",)}, {"privileged": True}):
        assert not {"maskedPaths", "readonlyPaths"} & set(config(**fields)["linux"])


@pytest.mark.parametrize(
    ("options", "privileged", "expected"),
    [
        ((), False, ""),
        ((), True, None),
        (("seccomp=unconfined",), False, None),
        (("seccomp:unconfined",), False, None),
        (("seccomp=builtin",), True, ""),
        (('seccomp={"defaultAction":"SCMP_ACT_ALLOW"}',), False, '{"defaultAction":"SCMP_ACT_ALLOW"}'),
    ],
)
def test_seccomp_choice(options: tuple[str, ...], privileged: bool, expected: str | None) -> None:
    assert build(security_opt=options, privileged=privileged).seccomp == expected


@pytest.mark.parametrize(
    "option", ["seccomp=./profile.json", "nonsense", "systempaths=some", "no-new-privileges=x"]
)
def test_bad_security_options(option: str) -> None:
    with pytest.raises(Invalid, match=r"security_opt\[0\]"):
        build(security_opt=(option,))


def test_apparmor_and_labels() -> None:
    made = build(security_opt=("apparmor=mine", "label=type:x"))
    assert "apparmorProfile" not in made.config["process"]
    assert len(made.warnings) == 2
    held = build(security_opt=("apparmor=mine",), host=Host(apparmor=True))
    assert held.config["process"]["apparmorProfile"] == "mine"
    free = build(security_opt=("apparmor=unconfined", "label=disable"), host=Host(apparmor=True))
    assert (free.warnings, "apparmorProfile" in free.config["process"]) == ((), False)


def test_no_new_privileges() -> None:
    assert not config()["process"]["noNewPrivileges"]
    assert config(no_new_privileges=True)["process"]["noNewPrivileges"]
    assert config(security_opt=("no-new-privileges:true",))["process"]["noNewPrivileges"]
    assert not config(security_opt=("no-new-privileges=false",))["process"]["noNewPrivileges"]


# ------------------------------------------------------------------------------------------------ mounts


def mounts(**fields: Any) -> dict[str, dict[str, Any]]:
    return {mount["destination"]: mount for mount in config(**fields)["mounts"]}


def test_default_mounts() -> None:
    found = mounts()
    assert list(found) == ["/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm"]
    assert "size=67108864" in found["/dev/shm"]["options"]
    assert "ro" in found["/sys"]["options"]
    assert "ro" in found["/sys/fs/cgroup"]["options"]
    assert "size=1048576" in mounts(shm_size=1 << 20)["/dev/shm"]["options"]


def test_privileged_may_write_sys_and_cgroup() -> None:
    found = mounts(privileged=True)
    assert "rw" in found["/sys"]["options"]
    assert "rw" in found["/sys/fs/cgroup"]["options"]
    assert "rw" in mounts(security_opt=("writable-cgroups",))["/sys/fs/cgroup"]["options"]


def test_own_mounts_replace_defaults() -> None:
    own = (BindMount(source="/a", target="/dev/shm/"), BindMount(source="t", target="/run", type="tmpfs"))
    found = config(mounts=own)["mounts"]
    assert [m["source"] for m in found if m["destination"] == "/dev/shm"] == ["/a"]
    assert found[-1]["type"] == "tmpfs"
    all_dev = mounts(mounts=(BindMount(source="/dev", target="/dev"),))
    assert [path for path in all_dev if path.startswith("/dev")] == ["/dev"]


def test_ipc() -> None:
    assert "/dev/shm" not in mounts(ipc_mode="none")
    assert mounts(ipc_mode="host")["/dev/shm"]["source"] == "/dev/shm"
    assert {"type": "ipc"} not in config(ipc_mode="host")["linux"]["namespaces"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [(("rbind", "rprivate"), None), (("rbind", "rshared"), "shared"), (("bind", "slave"), "rslave")],
)
def test_propagation(options: tuple[str, ...], expected: str | None) -> None:
    made = config(mounts=(BindMount(source="/a", target="/b", options=options),))
    assert made["linux"].get("rootfsPropagation") == expected


# ------------------------------------------------------------------------------------------------ namespaces


def kinds(**fields: Any) -> list[str]:
    return [namespace["type"] for namespace in config(**fields)["linux"]["namespaces"]]


def test_namespaces() -> None:
    assert kinds() == ["mount", "uts", "pid", "ipc", "cgroup"]
    assert kinds(layout=V1) == ["mount", "uts", "pid", "ipc"]
    assert kinds(layout=V1, cgroup_mode="private")[-1] == "cgroup"
    assert kinds(privileged=True) == ["mount", "uts", "pid", "ipc"]
    assert kinds(pids_mode="host", uts_mode="host", ipc_mode="host", cgroup_mode="host") == ["mount"]
    made = config(netns=Path("/ns/t1"))["linux"]["namespaces"]
    assert {"type": "network", "path": "/ns/t1"} in made


@pytest.mark.parametrize(
    "fields",
    [
        {"pids_mode": "service:db"},
        {"ipc_mode": "container:x"},
        {"uts_mode": "other"},
        {"userns_mode": "keep-id"},
        {"isolation": "hyperv"},
        {"device_requests": (DeviceRequest(capabilities=("gpu",)),)},
    ],
)
def test_what_a_node_has_not_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        build(**fields)


def test_sysctls() -> None:
    host = Host(sysctls=frozenset(oci_spec.DEFAULT_SYSCTLS))
    assert config(host=host)["linux"]["sysctl"] == {}
    made = config(host=host, netns=Path("/n"), sysctls={"net.ipv4.ip_unprivileged_port_start": "1024"})
    assert made["linux"]["sysctl"] == {
        "net.ipv4.ip_unprivileged_port_start": "1024",
        "net.ipv4.ping_group_range": "0 2147483647",
    }
    with pytest.raises(Invalid, match=r"sysctls\.net\.core\.somaxconn"):
        build(sysctls={"net.core.somaxconn": "1"})


@pytest.mark.parametrize(
    ("parent", "systemd", "path", "cgroup"),
    [
        ("/pyswarm", False, "/pyswarm/t1", "/pyswarm/t1"),
        ("a/b", False, "/a/b/t1", "/a/b/t1"),
        ("/pyswarm", True, "pyswarm.slice:pyswarm:t1", "/pyswarm.slice/pyswarm-t1.scope"),
        ("x-y.slice", True, "x-y.slice:pyswarm:t1", "/x.slice/x-y.slice/pyswarm-t1.scope"),
    ],
)
def test_cgroup_path(parent: str, systemd: bool, path: str, cgroup: str) -> None:
    made = build(cgroup_parent=parent, systemd=systemd)
    assert made.config["linux"]["cgroupsPath"] == path
    assert made.cgroup == cgroup
    spec = ContainerSpec(command=("/x",), cgroup_parent="other")
    launch = replace(launch_of(), task=Task(id="t1", spec=TaskSpec(container=spec)))
    assert oci_spec.build(launch, cgroup=V2).cgroup == "/other/t1"


# ------------------------------------------------------------------------------------------------ resources


def limits(**fields: Any) -> dict[str, Any]:
    layout = fields.pop("layout", V1)
    found = config(layout=layout, resources=resources(**fields))["linux"]["resources"]
    return {name: value for name, value in found.items() if name != "devices"}


def test_no_limits() -> None:
    assert limits() == {}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"limits": Resources(nano_cpus=500_000_000)}, {"period": 100_000, "quota": 50_000}),
        ({"limits": Resources(nano_cpus=1_000_000)}, {"period": 100_000, "quota": 1000}),
        (
            {"limits": Resources(nano_cpus=2_000_000_000), "cpu_period": 50_000},
            {"period": 50_000, "quota": 100_000},
        ),
        ({"cpu_quota": 30_000, "cpu_period": 60_000}, {"period": 60_000, "quota": 30_000}),
        (
            {"cpu_shares": 256, "cpuset_cpus": "0-1", "cpuset_mems": "0"},
            {"shares": 256, "cpus": "0-1", "mems": "0"},
        ),
    ],
)
def test_cpu(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert limits(**fields)["cpu"] == expected


MIB = 1 << 20


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"limit": 64 * MIB, "swap": 128 * MIB}),
        ({"swap": 0}, {"limit": 64 * MIB, "swap": 64 * MIB}),
        ({"swap": -1}, {"limit": 64 * MIB, "swap": -1}),
        ({"swap": 10 * MIB}, {"limit": 64 * MIB, "swap": 74 * MIB}),
        ({"swappiness": 0}, {"limit": 64 * MIB, "swap": 128 * MIB, "swappiness": 0}),
        ({"memory_low": MIB}, {"limit": 64 * MIB, "swap": 128 * MIB, "reservation": MIB}),
    ],
)
def test_memory(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert limits(limits=Resources(memory=64 * MIB), **fields)["memory"] == expected


def test_memory_reservation_alone() -> None:
    assert limits(reservations=Resources(memory=MIB))["memory"] == {"reservation": MIB}


def test_what_this_kernel_cannot_is_said() -> None:
    bare = replace(V1, swap=False, blkio_weight=False)
    wanted = resources(limits=Resources(memory=MIB), swap=0, blkio_weight=100)
    made = build(layout=bare, resources=wanted)
    assert made.config["linux"]["resources"]["memory"] == {"limit": MIB}
    assert len(made.warnings) == 2
    on_v2 = build(resources=resources(limits=Resources(memory=MIB), swappiness=5), oom_kill_disable=True)
    assert len(on_v2.warnings) == 2
    with pytest.raises(Invalid, match="cpu_rt_runtime"):
        build(resources=resources(cpu_rt_runtime=1000))
    with pytest.raises(Invalid, match="mem_swappiness"):
        build(layout=V1, resources=resources(swappiness=101))
    with pytest.raises(Invalid, match="memswap_limit"):
        build(resources=resources(swap=MIB))


def test_pids_and_oom() -> None:
    assert limits(limits=Resources(pids=5))["pids"] == {"limit": 5}
    assert limits(limits=Resources(pids=-1))["pids"] == {"limit": -1}
    assert config(layout=V1, oom_kill_disable=True)["linux"]["resources"]["memory"] == {
        "disableOOMKiller": True
    }


DISK = DeviceNode(path="/dev/sda", kind="b", major=8, minor=0)
NULL = DeviceNode(path="/dev/null", kind="c", major=1, minor=3)
SOUND = [DeviceNode(path=f"/dev/snd/pcm{n}", kind="c", major=116, minor=n) for n in range(2)]


def test_block_io() -> None:
    disk = (BlkioDevice(path="/dev/sda", value=7),)
    wanted = resources(
        blkio_weight=300,
        blkio_weight_device=disk,
        blkio_read_bps=disk,
        blkio_write_bps=disk,
        blkio_read_iops=disk,
        blkio_write_iops=disk,
    )
    assert oci_spec.device_paths(launch_of(resources=wanted)) == ("/dev/sda",)
    rate = [{"major": 8, "minor": 0, "rate": 7}]
    made = config(layout=V1, resources=wanted, devices={"/dev/sda": [DISK]})
    assert made["linux"]["resources"]["blockIO"] == {
        "weight": 300,
        "weightDevice": [{"major": 8, "minor": 0, "weight": 7}],
        "throttleReadBpsDevice": rate,
        "throttleWriteBpsDevice": rate,
        "throttleReadIOPSDevice": rate,
        "throttleWriteIOPSDevice": rate,
    }
    with pytest.raises(Invalid, match=r"blkio_config\.device_read_bps\[0\]"):
        build(resources=resources(blkio_read_bps=disk))


def test_devices() -> None:
    wanted = (
        DeviceMapping(path_on_host="/dev/sda", path_in_container="/dev/disk", permissions="r"),
        DeviceMapping(path_on_host="/dev/snd"),
    )
    assert oci_spec.device_paths(launch_of(devices=wanted)) == ("/dev/sda", "/dev/snd")
    linux = config(devices={"/dev/sda": [DISK], "/dev/snd": SOUND})["linux"]
    assert "devices" not in linux
    made = oci_spec.build(
        launch_of(devices=wanted), cgroup=V1, devices={"/dev/sda": [DISK], "/dev/snd": SOUND}
    ).config["linux"]
    assert [d["path"] for d in made["devices"]] == ["/dev/disk", "/dev/snd/pcm0", "/dev/snd/pcm1"]
    assert made["resources"]["devices"][0] == {"allow": False, "access": "rwm"}
    assert made["resources"]["devices"][-3] == {
        "allow": True,
        "access": "r",
        "type": "b",
        "major": 8,
        "minor": 0,
    }


@pytest.mark.parametrize(
    "mapping",
    [
        DeviceMapping(path_on_host="/dev/nosuch"),
        DeviceMapping(path_on_host="vendor.com/gpu=0"),
        DeviceMapping(path_on_host="/dev/sda", permissions="x"),
        DeviceMapping(path_on_host="/dev/sda", path_in_container="rel"),
    ],
)
def test_bad_devices(mapping: DeviceMapping) -> None:
    with pytest.raises(Invalid, match=r"devices\[0\]"):
        oci_spec.build(launch_of(devices=(mapping,)), cgroup=V1, devices={"/dev/sda": [DISK]})


def test_privileged_has_every_device() -> None:
    launch = launch_of(privileged=True)
    assert oci_spec.device_paths(launch) == ("/dev",)
    linux = oci_spec.build(launch, cgroup=V1, devices={"/dev": [NULL, DISK]}).config["linux"]
    assert [d["path"] for d in linux["devices"]] == ["/dev/sda"]
    assert linux["resources"]["devices"] == [{"allow": True, "access": "rwm"}]


def test_device_rules() -> None:
    rules = config(device_cgroup_rules=("c 189:* rwm", "b 8:1 r"))["linux"]["resources"]["devices"]
    assert rules[-2:] == [
        {"allow": True, "access": "rwm", "type": "c", "major": 189},
        {"allow": True, "access": "r", "type": "b", "major": 8, "minor": 1},
    ]
    for bad in ("c 1 rwm", "x 1:1 r", "c 1:a r", "c 1:1 rwx", ""):
        with pytest.raises(Invalid, match=r"device_cgroup_rules\[0\]"):
            build(device_cgroup_rules=(bad,))


# ------------------------------------------------------------------------------------------------ text


def test_text_is_the_configuration() -> None:
    made = build(annotations={"a": "ü"})
    assert json.loads(made.text()) == made.config
    pasted = json.loads(made.text('{"defaultAction":"X"}'))
    assert pasted["linux"].pop("seccomp") == {"defaultAction": "X"}
    assert pasted == made.config


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("SIGTERM", 15),
        ("term", 15),
        ("9", 9),
        ("SIGRTMIN", 34),
        ("RTMIN+3", 37),
        ("RTMAX-1", 63),
        ("SIGPOLL", 29),
    ],
)
def test_signals(text: str, number: int) -> None:
    assert signal_number(text) == number


@pytest.mark.parametrize("text", ["", "SIGNOPE", "0", "65", "RTMIN+99", "RTMIN*3", "-9"])
def test_no_signals(text: str) -> None:
    with pytest.raises(Invalid, match="stop_signal"):
        signal_number(text, "stop_signal")
