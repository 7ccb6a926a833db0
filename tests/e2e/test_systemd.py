"""pyswarm under systemd: its units on a machine that systemd has booted, in namespaces of this one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest

from tests.e2e.cluster import busybox_context, until
from tests.e2e.systemd_machine import SystemdMachine

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

MANAGER, AGENT = "pyswarm-manager.service", "pyswarm-agent.service"
COMPOSE = """
services:
  web:
    image: bb
    command: sh -c "hostname > /www/index.html && exec httpd -f -p 80 -h /www"
    hostname: "{{.Service.Name}}"
    ports: ["8080:80"]
    deploy: {replicas: 2, resources: {limits: {memory: 64m, pids: 50}}}
"""


@pytest.fixture(scope="module", params=["auto", "systemd"])
def machine(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[SystemdMachine]:
    directory = tmp_path_factory.mktemp("systemd")
    machine = SystemdMachine(directory / "machine")
    try:
        machine.boot()
        machine.pyswarm("init", "--advertise-addr", "127.0.0.1", "--cgroup-driver", request.param)
        context = busybox_context(directory)
        # What the machine sees of its disk is its state directory.
        context.rename(machine.directory / "state" / "image")
        machine.pyswarm("image", "build", "-t", "bb", "/var/lib/pyswarm/image")
        (machine.directory / "state" / "compose.yml").write_text(COMPOSE)
        machine.pyswarm("stack", "deploy", "--timeout", "60s", "-c", "/var/lib/pyswarm/compose.yml", "shop")
        yield machine
    finally:
        machine.close()


def containers(machine: SystemdMachine) -> list[str]:
    """The processes of the containers."""
    return sorted(machine.run("pgrep", "-f", "^httpd -f -p 80", ok=False).split())


def monitored(machine: SystemdMachine) -> list[str]:
    """The processes of the containers and their monitors."""
    return containers(machine) + sorted(machine.run("pgrep", "-x", "conmon", ok=False).split())


def answer(machine: SystemdMachine) -> str:
    return machine.run("busybox", "wget", "-qO-", "http://127.0.0.1:8080/", ok=False).strip()


def counts_both(machine: SystemdMachine) -> bool:
    return "2/2" in machine.run(sys.executable, "-m", "pyswarm.cli.main", "service", "ls", ok=False)


def is_replaced(machine: SystemdMachine, unit: str, pid: str) -> bool:
    return machine.unit(unit, "ActiveState") == "active" and machine.unit(unit, "MainPID") not in ("0", pid)


def test_units_are_enabled_and_hold_what_is_theirs(machine: SystemdMachine) -> None:
    for unit in (MANAGER, AGENT):
        assert machine.unit(unit, "ActiveState") == "active"
        assert machine.unit(unit, "UnitFileState") == "enabled"
    assert answer(machine) == "shop_web"
    assert len(containers(machine)) == 2
    groups = machine.run("cat", f"/proc/{containers(machine)[0]}/cgroup")
    assert "pyswarm-agent.service" not in groups, "systemd would count a container with the agent"
    scopes = machine.run("systemctl", "list-units", "--no-legend", "pyswarm-*.scope").splitlines()
    driver = json.loads((machine.directory / "state" / "node.json").read_text())["cgroup_driver"]
    assert (len(scopes), "/pyswarm.slice/pyswarm-" in groups) == (
        (2, True) if driver == "systemd" else (0, False)
    )
    assert "etcd" in machine.run("systemd-cgls", "--no-pager", "-u", MANAGER)
    assert "this manager leads" in machine.run("journalctl", "--no-pager", "-u", MANAGER)


@pytest.mark.parametrize("unit", [AGENT, MANAGER])
def test_a_killed_daemon_is_started_again_and_containers_never_know(
    machine: SystemdMachine, unit: str
) -> None:
    before, pid = monitored(machine), machine.unit(unit, "MainPID")
    machine.run("kill", "-9", pid)
    until(lambda: is_replaced(machine, unit, pid), f"systemd starts {unit} again")
    until(lambda: counts_both(machine), "the manager counts both")
    assert monitored(machine) == before
    assert answer(machine) == "shop_web"


def test_containers_serve_while_the_units_are_stopped(machine: SystemdMachine) -> None:
    before = monitored(machine)
    machine.run("systemctl", "stop", AGENT, MANAGER)
    assert machine.run("pgrep", "-x", "etcd", ok=False) == ""
    assert monitored(machine) == before
    assert answer(machine) == "shop_web"
    machine.run("systemctl", "start", MANAGER, AGENT)
    until(lambda: counts_both(machine), "the manager counts both")
    assert monitored(machine) == before


def test_after_a_power_cut_everything_comes_back_by_itself(machine: SystemdMachine) -> None:
    machine.cut_power()
    machine.boot()
    until(lambda: answer(machine) == "shop_web", "the service answers after the boot", 120)
    until(lambda: len(containers(machine)) == 2, "both containers run")
    assert machine.unit(AGENT, "NRestarts") == machine.unit(MANAGER, "NRestarts") == "0"


def test_leaving_removes_the_units_and_everything_else(machine: SystemdMachine) -> None:
    machine.pyswarm("leave", "--force")
    for unit in (MANAGER, AGENT):
        assert machine.unit(unit, "LoadState") == "not-found"
    assert containers(machine) == []
    assert machine.run("pgrep", "-f", "conmon|etcd|manager.main|node_agent.main", ok=False) == ""
    assert machine.run("find", "/sys/fs/cgroup", "-name", "*pyswarm*", "-not", "-path", "*.service*") == ""
    assert machine.run("ip", "-br", "link").split()[::4] == ["lo"]
    assert "/run/pyswarm" not in machine.run("cat", "/proc/mounts")
