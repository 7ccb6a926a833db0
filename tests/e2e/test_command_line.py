"""The command line in front of a real node: deploy, look, log, exec, scale, update, fail, remove."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster, until

pytestmark = pytest.mark.e2e

STACK = """
services:
  migrate:
    image: busybox
    command: [sh, -c, "echo migrated"]
    restart: "no"
  web:
    image: busybox
    command: [sh, -c, "echo up $$HOSTNAME; trap 'exit 0' TERM; while :; do sleep 0.1; done"]
    depends_on: {migrate: {condition: service_completed_successfully}}
    deploy: {replicas: 2, update_config: {monitor: 0s, parallelism: 2}}
"""
LOOP = "trap 'exit 0' TERM; while :; do sleep 0.1; done"


def test_a_stack_from_deploy_to_rm(shared: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "compose.yml"
    file.write_text(STACK)
    deployed = shared.run_cli("stack", "deploy", "-c", str(file), "--timeout", "60s", "shop")
    assert deployed.returncode == 0, deployed.stderr
    assert "Creating service shop_web" in deployed.stdout
    assert "verify: Service shop_web converged" in deployed.stderr
    try:
        assert shared.cli("service", "ls", "-f", "name=shop_web", "--format", "{{.Replicas}}") == "2/2\n"
        states = shared.cli("stack", "ps", "shop", "--format", "{{.Name}} {{.CurrentState}}").splitlines()
        assert [line.split()[:2] for line in states] == [
            ["shop_migrate.1", "Complete"],
            ["shop_web.1", "Running"],
            ["shop_web.2", "Running"],
        ]
        logs = shared.cli("service", "logs", "--no-task-ids", "shop_web").splitlines()
        assert sorted(line.partition("@")[0] for line in logs) == ["shop_web.1", "shop_web.2"]
        assert all(" | up " in line for line in logs)
        assert shared.cli("exec", "-i", "shop_web.1", "cat", input="through\n") == "through\n"
        assert shared.run_cli("exec", "shop_web", "sh", "-c", "exit 5").returncode == 5
        shared.cli("service", "scale", "-q", "shop_web=3")
        assert len(shared.cli("ps", "-q", "-f", "name=shop_web").split()) == 3
        shared.cli("service", "update", "-q", "--env-add", "A=1", "shop_web")
        status = shared.cli("service", "inspect", "--format", "{{.UpdateStatus.State}}", "shop_web")
        assert status == "completed\n"
    finally:
        shared.cli("stack", "rm", "shop")
    assert shared.cli("stack", "ls", "-q") == ""


def test_a_service_that_fails_says_why_with_its_last_lines(shared: Cluster) -> None:
    made = shared.run_cli(
        *("service", "create", "--name", "bad", "--restart-condition", "none", "busybox"),
        *("sh", "-c", "echo the reason; exit 3"),
    )
    try:
        assert made.returncode == 1
        assert "service bad: bad.1: task: non-zero exit (3)" in made.stderr
        assert made.stderr.endswith("    the reason\n")
    finally:
        shared.cli("service", "rm", "bad")


def test_a_terminal_in_a_task(shared: Cluster) -> None:
    shared.cli(
        "service", "create", "-q", "--update-monitor", "0s", "--name", "term", "busybox", "sh", "-c", LOOP
    )
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "pyswarm.cli.main", "exec", "-it", "term", "sh"]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=shared.environment, start_new_session=True
    )
    os.close(theirs)
    try:
        os.write(ours, b"tty; echo $((6*7)); exit 9\n")
        seen = b""
        while b"42" not in seen:
            assert select.select([ours], [], [], 30)[0], seen
            seen += os.read(ours, 4096)
        assert b"/dev/pts/" in seen
        assert process.wait(30) == 9
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        shared.cli("service", "rm", "term")


def test_containers_are_looked_at_left_alone_and_replaced(shared: Cluster) -> None:
    create = ("service", "create", "-d", "--name", "again", "--label", "a=1", "busybox", "sh", "-c", LOOP)
    first = shared.cli(*create).strip()
    try:
        shared.wait_running("again", 1)
        shared.cli("exec", "-d", "again", "sh", "-c", "head -c 5000 /dev/zero >/big; sleep 1000")  # at once
        until(lambda: "5kB" in shared.cli("ps", "-s", "--filter", "name=again"), "its size is told")
        assert shared.run_cli("exec", "-d", "again", "nosuch").returncode == 127
        assert shared.cli("service", "ls", "-q", "--filter", "label=a=1", "--filter", "label=b") == ""
        assert shared.cli("inspect", "-f", "{{.Spec.Name}}", "again") == "again\n"
        shared.cli("service", "rm", "again")
        second = shared.cli(*create).strip()  # though the first has not ended yet
        assert second and second != first
    finally:
        shared.cli("service", "rm", "again")


def test_images_as_files(shared: Cluster, tmp_path: Path) -> None:
    file = str(tmp_path / "images.tar")
    shared.cli("tag", "busybox", "copy:1")
    shared.cli("save", "-o", file, "copy:1", "busybox")
    shared.cli("rmi", "copy:1")
    assert shared.cli("load", "-i", file) == "Loaded image: copy:1\nLoaded image: busybox:latest\n"
    assert "COPY" in shared.cli("history", "--no-trunc", "copy:1")
    assert shared.cli("rmi", "copy:1") == "Untagged: copy:1\n"
