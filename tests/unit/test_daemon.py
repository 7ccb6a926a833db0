"""What `init` decides before it touches the machine: addresses, ports, units, flags; and settings on disk."""

from __future__ import annotations

import configparser
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pyswarm import daemon, daemons, leaving, nodeconfig
from pyswarm.daemon import InitOptions
from pyswarm.errors import Conflict, Fatal, Invalid, NotFound
from pyswarm.nodeconfig import NodeConfig, Ports, write_private
from pyswarm.specs import ExternalCA


def config(state: Path, **more: Any) -> NodeConfig:
    fields: dict[str, Any] = {"node_id": "n1", "cluster_id": "c1", "role": "manager", **more}
    return NodeConfig(state_dir=str(state), run_dir=str(state / "run"), **fields)


def nothing(*given: object, **named: object) -> None:
    """In the place of a step that would touch the machine."""


def _noting(done: list[str], word: str) -> Callable[[object], None]:
    return lambda config: done.append(word)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("10.0.0.1", "10.0.0.1", 0),
        ("10.0.0.1:2377", "10.0.0.1", 2377),
        ("eth0", "eth0", 0),
        ("eth0:99", "eth0", 99),
        ("[fd00::1]:2377", "fd00::1", 2377),
        ("fd00::1", "fd00::1", 0),
        (":2377", "", 2377),
    ],
)
def test_addresses_with_and_without_port(text: str, host: str, port: int) -> None:
    assert daemon.split_port(text) == (host, port)


@pytest.mark.parametrize("text", ["10.0.0.1:x", "10.0.0.1:0", "10.0.0.1:65536", "[::1]:-1"])
def test_ports_that_are_none(text: str) -> None:
    with pytest.raises(Invalid, match="from 1 to 65535"):
        daemon.split_port(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fd00::1", "IPv4 alone"),
        ("0.0.0.0", "not an address that others"),
        ("224.0.0.1", "not an address that others"),
        ("nowhere0", "neither an IP address nor an interface"),
    ],
)
def test_addresses_that_nobody_could_reach(text: str, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        daemon.address_of(text)
    assert daemon.address_of("192.0.2.7") == "192.0.2.7"


def test_an_interface_stands_for_its_only_address(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"eth0": ["192.0.2.1"], "eth1": ["192.0.2.2", "192.0.2.3"]}
    monkeypatch.setattr(daemon, "interface_addresses", lambda: found)
    assert daemon.address_of("eth0") == "192.0.2.1"
    with pytest.raises(Invalid, match=r"several addresses \(192\.0\.2\.2, 192\.0\.2\.3\)"):
        daemon.address_of("eth1")
    with pytest.raises(Invalid, match="--advertise-addr"):
        daemon.default_address()
    found.clear()
    assert daemon.default_address() == "127.0.0.1"


def decided(**flags: Any) -> NodeConfig:
    return daemon._config(InitOptions(advertise_addr="192.0.2.1", **flags))  # pyright: ignore[reportPrivateUsage]


def test_what_init_decides() -> None:
    made = decided()
    assert (made.listen_addr, made.data_path_addr, made.managers) == (
        "0.0.0.0",
        "192.0.2.1",
        ("192.0.2.1:2378",),
    )
    assert decided(listen_addr="127.0.0.1:99").ports.join == 99
    with pytest.raises(Invalid, match="differ from each other"):
        decided(ports=Ports(join=2378))
    with pytest.raises(Invalid, match="neither an IP address"):
        decided(listen_addr="nowhere0")


def test_a_port_in_use_is_named_before_anything_is_written() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        made = replace(decided(), listen_addr="127.0.0.1", ports=Ports(join=port))
        with pytest.raises(Conflict, match=f"port {port} is in use"):
            daemon.check_ports(made)
    elsewhere = replace(made, listen_addr="192.0.2.77")
    with pytest.raises(Invalid, match="not an address of this machine"):
        daemon.check_ports(elsewhere)


def test_a_joining_machine_chooses_where_a_manager_listens_as_the_first_one_does() -> None:
    assert daemon.listening(0, "", Ports()) == ("0.0.0.0", Ports())
    assert daemon.listening(99, "", Ports()) == ("0.0.0.0", Ports(join=99))
    assert daemon.listening(99, "127.0.0.1:98", Ports(api=5)) == ("127.0.0.1", Ports(join=98, api=5))
    with pytest.raises(Invalid, match="differ from each other"):
        daemon.listening(2380, "", Ports())


def test_a_manager_that_cannot_ask_the_others_leaves_by_force_alone(tmp_path: Path) -> None:
    config = NodeConfig(
        node_id="n1", cluster_id="c1", role="manager", state_dir=str(tmp_path), run_dir=str(tmp_path / "run")
    )
    nodeconfig.save(config)
    with pytest.raises(Conflict, match="use `--force` to leave all the same"):
        leaving.leave(tmp_path, tmp_path / "run", force=False)
    assert nodeconfig.load(tmp_path) == config


def test_the_last_manager_waits_for_nobody_when_it_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that cannot reach the others says what they are to be told."""
    for name in ("stop", "take_down"):
        monkeypatch.setattr(leaving, name, nothing)
    monkeypatch.setattr(leaving, "TELL_TIMEOUT", 0.2)
    untold: dict[tuple[str, ...], int] = {}
    for managers in ((), ("127.0.0.1:2378",), ("127.0.0.1:2378", "127.0.0.1:9")):
        config = NodeConfig(
            node_id="n1",
            cluster_id="c1",
            role="manager",
            state_dir=str(tmp_path),
            run_dir=str(tmp_path / "run"),
            managers=managers,
        )
        tmp_path.mkdir(exist_ok=True)
        nodeconfig.save(config)
        untold[managers] = len(leaving.leave(tmp_path, tmp_path / "run", force=True))
        assert not (tmp_path / "node.json").exists()
    assert list(untold.values()) == [0, 0, 1]


def test_a_setting_is_changed_and_no_other_that_was_changed_meanwhile(tmp_path: Path) -> None:
    config = NodeConfig(node_id="n1", cluster_id="c1", state_dir=str(tmp_path))
    nodeconfig.save(config)
    nodeconfig.save(replace(config, log_format="json"))  # by another process
    changed = nodeconfig.update(tmp_path, role="manager")
    assert (changed.role, changed.log_format) == ("manager", "json")
    assert nodeconfig.load(tmp_path) == changed
    changers = [
        threading.Thread(target=nodeconfig.update, args=(tmp_path,), kwargs={name: value})
        for name, value in (("role", "worker"), ("managers", ("a:1",)), ("runtime", "crun"))
    ]
    for changer in changers:
        changer.start()
    for changer in changers:
        changer.join()
    after = nodeconfig.load(tmp_path)
    assert (after.role, after.managers, after.runtime) == ("worker", ("a:1",), "crun")


@pytest.mark.parametrize("pool", ["10.0.0.1/8", "x", "10.0.0.0/28"])
def test_pools_that_are_none_or_too_small(pool: str) -> None:
    with pytest.raises(Invalid, match="--default-addr-pool"):
        daemon._cluster_spec(InitOptions(default_addr_pool=(pool,)))  # pyright: ignore[reportPrivateUsage]


def test_settings_of_the_ca_go_into_the_clusters_spec() -> None:
    ca = ExternalCA(url="https://ca:8888/api/v1/cfssl/sign")
    spec = daemon._cluster_spec(InitOptions(autolock=True, external_cas=(ca,)))  # pyright: ignore[reportPrivateUsage]
    assert (spec.autolock, spec.external_cas) == (True, (ca,))


def test_force_new_cluster_is_for_managers_and_keeps_their_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "check_machine", lambda: None)
    done: list[str] = []
    for name, word in (("stop", "stop"), ("start", "start"), ("_wait_ready", "ready")):
        monkeypatch.setattr(daemon, name, _noting(done, word))
    options = InitOptions(state_dir=tmp_path, force_new_cluster=True)
    (tmp_path / "manager").mkdir()
    nodeconfig.save(config(tmp_path, role="worker"))
    with pytest.raises(Conflict, match="is a worker"):
        daemon.init(options)
    nodeconfig.save(config(tmp_path, advertise_addr="192.0.2.1"))
    with pytest.raises(Invalid, match="cannot change here"):
        daemon.init(replace(options, advertise_addr="192.0.2.2"))
    assert done == []
    daemon.init(options)
    assert done == ["stop", "start", "ready"]
    assert (tmp_path / nodeconfig.FORCE_NEW_CLUSTER).exists()


def test_a_failed_step_takes_everything_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is not touched here: what would touch it is replaced, the files are real."""
    state = tmp_path / "state"
    monkeypatch.setattr(daemon, "check_machine", lambda: None)
    monkeypatch.setattr(daemon, "check_ports", nothing)
    monkeypatch.setattr(daemon.tmpfs, "ensure", nothing)
    monkeypatch.setattr(daemon.tmpfs, "remove", nothing)
    monkeypatch.setattr(daemon, "stop", nothing)
    monkeypatch.setattr(leaving, "take_down", nothing)

    def fails(config: NodeConfig) -> None:
        assert (state / "certs/node.key").exists()
        raise Fatal("no etcd")

    monkeypatch.setattr(daemon, "start", fails)
    options = InitOptions(advertise_addr="127.0.0.1", state_dir=state, run_dir=tmp_path / "run")
    with pytest.raises(Fatal, match="no etcd"):
        daemon.init(options)
    assert not state.exists()
    (state / "agent/volumes").mkdir(parents=True)
    with pytest.raises(Fatal, match="no etcd"):
        daemon.init(options)
    assert [p.name for p in state.rglob("*")] == ["agent", "volumes"], "data from before stays"


# ---------------------------------------------------------------------------------------------- units


def unit(made: NodeConfig, name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=True, delimiters=("=",))
    parser.optionxform = str  # type: ignore[method-assign, assignment]
    parser.read_string(daemons.units(made)[name])
    return parser


def test_units_are_whole_and_a_worker_has_one(tmp_path: Path) -> None:
    assert list(daemons.units(config(tmp_path))) == ["pyswarm-manager.service", "pyswarm-agent.service"]
    assert list(daemons.units(config(tmp_path, role="worker"))) == ["pyswarm-agent.service"]
    agent = unit(config(tmp_path), "pyswarm-agent.service")
    assert agent.sections() == ["Unit", "Service", "Install"]
    service = agent["Service"]
    assert service["Restart"] == "always"
    assert service["KillMode"] == "process", "containers outlive the agent"
    assert shlex.split(service["ExecStart"]) == [sys.executable, "-m", "node_agent.main", str(tmp_path)]
    assert shlex.split(service["ExecStartPre"])[-1] == str(tmp_path / "run")
    manager = unit(config(tmp_path), "pyswarm-manager.service")
    assert manager["Service"]["KillMode"] == "mixed", "etcd ends with its manager"


def test_a_path_in_a_unit_means_nothing_to_systemd() -> None:
    text = daemons.units(config(Path('/srv/a b/100%/$HOME/"x"')))["pyswarm-agent.service"]
    assert '"/srv/a b/100%%/$$HOME/\\"x\\""' in text


def test_systemd_itself_accepts_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        assert not Path("/run/systemd/system").exists(), "install it with `apt-get install systemd`"
        return
    paths: list[str] = []
    for name, text in daemons.units(config(tmp_path)).items():
        (tmp_path / name).write_text(text)
        paths.append(str(tmp_path / name))
    result = subprocess.run(
        ["systemd-analyze", "verify", *paths], capture_output=True, text=True, check=False
    )
    assert not any(name in result.stderr for name in ("pyswarm-manager", "pyswarm-agent")), result.stderr


# ---------------------------------------------------------------------------------------------- settings


def test_settings_come_back_and_newer_ones_are_passed_over(tmp_path: Path) -> None:
    made = config(
        tmp_path, managers=("a:1", "b:2"), engine_labels={"disk": "ssd"}, generic_resources=("gpu=2",)
    )
    nodeconfig.save(made)
    assert nodeconfig.load(tmp_path) == made
    raw = json.loads((tmp_path / "node.json").read_text())
    raw["from_the_future"] = raw["ports"]["quic"] = 1
    (tmp_path / "node.json").write_text(json.dumps(raw))
    assert nodeconfig.load(tmp_path) == made


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"ports": 3}', '{"ports": {}, "node_id": 1, "x'])
def test_damaged_settings_are_told_with_the_way_out(tmp_path: Path, text: str) -> None:
    with pytest.raises(NotFound, match="not part of a cluster"):
        nodeconfig.load(tmp_path)
    (tmp_path / "node.json").write_text(text)
    with pytest.raises(Fatal, match="pyswarm leave --force"):
        nodeconfig.load(tmp_path)
    assert nodeconfig.log_format(tmp_path) == "text"


def test_a_private_file_is_whole_and_nobody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key"
    write_private(path, b"one")
    write_private(path, b"two")
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_private(path, b"three")
    assert path.read_bytes() == b"two"
    assert [p.name for p in tmp_path.iterdir()] == ["key"], "nothing is left over"
