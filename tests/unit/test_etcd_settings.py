"""The pure part of running etcd: versions, flags, what its log says; and the layout's parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from manager.etcd_process import (
    EtcdConfig,
    MemberRemoved,
    PeersSilent,
    arguments,
    check_version,
    diagnose,
    parse_version,
)
from manager.store import Change, Delete, Put
from manager.store.layout import Keys, in_parts, name_steps, successor
from pyswarm.errors import Fatal, Unavailable
from pyswarm.objects import Config, Meta, Service, Task
from pyswarm.specs import ConfigSpec, ServiceSpec

HERE = Path("/var/lib/x")


@pytest.mark.parametrize("version", [(3, 4, 0), (3, 4, 23), (3, 5, 3), (3, 5, 16), (3, 6, 1)])
def test_good_versions(version: tuple[int, int, int]) -> None:
    check_version(version)


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ((2, 3, 8), "too old"),
        ((3, 3, 25), "no learners"),
        ((3, 5, 0), "corrupt"),
        ((3, 5, 1), "corrupt"),
        ((3, 5, 2), "corrupt"),
        ((4, 0, 0), "newer"),
    ],
)
def test_bad_versions(version: tuple[int, int, int], reason: str) -> None:
    with pytest.raises(Fatal, match=reason) as caught:
        check_version(version)
    assert ".".join(map(str, version)) in str(caught.value)
    assert "etcd-server" in str(caught.value)


def test_version_is_read_from_the_answer() -> None:
    assert parse_version("etcd Version: 3.4.23\nGit SHA: x\nGo Version: go1.19.8\n") == (3, 4, 23)
    with pytest.raises(Fatal, match="is that etcd"):
        parse_version("bash: etcd: command not found")


def flags(
    config: EtcdConfig, version: tuple[int, int, int] = (3, 4, 23), force: bool = False
) -> dict[str, str]:
    pairs = (flag.removeprefix("--").partition("=") for flag in arguments(config, version, force))
    return {name: value for name, _, value in pairs}


def test_flags_of_a_first_member() -> None:
    found = flags(EtcdConfig(name="m1", directory=HERE, address="10.0.0.1"))
    assert found["listen-client-urls"] == "https://127.0.0.1:2379,https://10.0.0.1:2379"
    assert found["advertise-client-urls"] == "https://10.0.0.1:2379"
    assert found["listen-peer-urls"] == found["initial-advertise-peer-urls"] == "https://10.0.0.1:2380"
    assert found["initial-cluster"] == "m1=https://10.0.0.1:2380"
    assert found["initial-cluster-state"] == "new"
    for side in ("", "peer-"):
        assert found[f"{side}client-cert-auth"] == "true"
    assert found["client-cert-allowed-hostname"] == found["peer-cert-allowed-hostname"] == "pyswarm-etcd"
    assert found["max-txn-ops"] == "10000" and found["max-request-bytes"] == "10485760"
    assert "force-new-cluster" not in found


@pytest.mark.parametrize("listen", ["127.0.0.1", "0.0.0.0"])
def test_one_listener_where_one_covers_both(listen: str) -> None:
    config = EtcdConfig(name="m1", directory=HERE, address="127.0.0.1", listen_address=listen)
    assert flags(config)["listen-client-urls"] == f"https://{listen}:2379"


def test_flags_of_a_joining_member_and_of_ipv6() -> None:
    peers = {"m1": "https://10.0.0.1:2380", "m2": "https://[fd00::2]:2380"}
    config = EtcdConfig(name="m2", directory=HERE, address="fd00::2", initial_cluster=peers)
    found = flags(config, force=True)
    assert found["initial-cluster"] == "m1=https://10.0.0.1:2380,m2=https://[fd00::2]:2380"
    assert found["initial-cluster-state"] == "existing"
    assert found["advertise-client-urls"] == "https://[fd00::2]:2379"
    assert "force-new-cluster" in found


def test_flags_that_newer_versions_call_otherwise() -> None:
    config = EtcdConfig(name="m1", directory=HERE, address="10.0.0.1")
    assert "experimental-peer-skip-client-san-verification" in flags(config, (3, 5, 16))
    new = flags(config, (3, 6, 1))
    assert "peer-skip-client-san-verification" in new
    assert "enable-v2" not in new


@pytest.mark.parametrize(
    ("line", "error", "reason"),
    [
        (
            '{"level":"fatal","msg":"discovery failed","error":"wal: crc mismatch"}',
            Fatal,
            "wal: crc mismatch",
        ),
        (
            "panic: freepages: failed to get all reachable pages (page 2: multiple references)",
            Fatal,
            "freepages",
        ),
        ('{"level":"panic","msg":"failed to recover v3 backend from snapshot"}', Fatal, "failed to recover"),
        ("unexpected fault address 0x7f\nfatal error: fault\nbbolt.(*DB).page", Fatal, "damaged"),
        (
            '{"level":"fatal","msg":"discovery failed","error":"listen tcp 10.0.0.1:2380: bind: address already '
            'in use"}',
            Unavailable,
            "another program uses the port",
        ),
        (
            '{"level":"fatal","msg":"failed to save Raft hard state","error":"write wal: no space left on '
            'device"}',
            Unavailable,
            "the disk is full",
        ),
        (
            '{"level":"error","msg":"the member has been permanently removed from the cluster"}',
            MemberRemoved,
            "",
        ),
        (
            '{"level":"warn","msg":"apply request took too long: crc mismatch"}',
            Unavailable,
            "it said nothing",
        ),
        (
            '{"level":"fatal","msg":"discovery failed","error":"cannot fetch cluster info from peer urls: could '
            'not retrieve cluster information from the given URLs"}',
            PeersSilent,
            "the other managers do not answer",
        ),
        ("", Unavailable, "it said nothing"),
        ('{"level":"fatal","msg":"something new"}', Unavailable, "something new"),
    ],
)
def test_log_is_understood(line: str, error: type[Exception], reason: str) -> None:
    found = diagnose('{"level":"warn","msg":"before"}\n' + line, HERE)
    assert type(found) is error
    assert reason in str(found)
    if issubclass(error, Fatal):
        assert str(HERE) in str(found)


# --------------------------------------------------------------------------------------------- layout


def web(id: str, name: str, version: int = 0) -> Service:
    return Service(id=id, spec=ServiceSpec(name=name), meta=Meta(version=version))


def test_keys() -> None:
    keys = Keys("/p")
    assert keys.object("task", "t1") == b"/p/obj/task/t1"
    assert keys.name("service", "a/b") == b"/p/idx/service/a/b"
    assert keys.parse(b"/p/obj/task/t1") == ("task", "t1")
    for unknown in (b"/p/obj/gadget/x", b"/p/obj/task/", b"/p/obj/"):
        with pytest.raises(Fatal, match="does not know"):
            keys.parse(unknown)
    assert successor(b"/p/obj/") == b"/p/obj0"


def steps(
    changes: list[Change], renamed: dict[tuple[str, str], str] | None = None
) -> list[tuple[str, str, str]]:
    found = name_steps(changes, renamed or {})  # type: ignore[arg-type] - the test's kinds are plain text
    return [(s.name, s.before, s.after) for s in found]


def test_name_steps() -> None:
    assert steps([Put(Task(id="t"))]) == []
    assert steps([Put(web("s", "a"))]) == [("a", "", "s")]
    assert steps([Put(web("s", "a", 3))]) == [("a", "s", "s")]
    assert steps([Delete(web("s", "a", 3))]) == [("a", "s", "")]
    assert steps([Delete(web("s", "a", 3)), Put(web("r", "a"))]) == [("a", "s", "r")]
    assert steps([Put(web("s", "b", 3))], {("service", "s"): "a"}) == [("a", "s", ""), ("b", "", "s")]


def test_parts_are_whole_and_within_limits() -> None:
    tasks: list[Change] = [Put(Task(id=f"t{n}")) for n in range(25)]
    parts = list(in_parts(tasks, operations=10))
    assert [len(part) for part in parts] == [10, 10, 5]
    assert [change for part in parts for change in part] == tasks
    named: list[Change] = [Put(web(f"s{n}", f"n{n}")) for n in range(5)]
    assert [len(part) for part in in_parts(named, operations=5)] == [2, 2, 1]
    big: list[Change] = [Put(Config(id=f"c{n}", spec=ConfigSpec(data=bytes(1000)))) for n in range(4)]
    assert [len(part) for part in in_parts(big, size=2500)] == [2, 2]
    assert [len(part) for part in in_parts(big, size=10)] == [1, 1, 1, 1]
    assert list(in_parts([])) == []
