"""A far command line: a context with a certificate of its own, over mutual TLS; nobody else gets in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pyswarm import pki
from pyswarm.clock import SystemClock
from tests.e2e.cluster import Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.root]


def far(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`pyswarm` as on a machine that is no node: nothing local but its contexts."""
    environment = {
        **os.environ,
        "PYSWARM_CONFIG": str(home),
        "PYSWARM_STATE_DIR": str(home / "no-state"),
        "PYSWARM_RUN_DIR": str(home / "no-run"),
    }
    command = [sys.executable, "-m", "pyswarm.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)


def test_a_context_reaches_the_cluster(shared: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "laptop.pyswarmcontext"
    shared.cli("context", "export", "laptop", str(file))
    assert file.stat().st_mode & 0o777 == 0o600
    imported = far(tmp_path / "home", "context", "import", "prod", str(file))
    assert imported.returncode == 0, imported.stderr
    listed = far(tmp_path / "home", "--context", "prod", "node", "ls", "-q")
    assert listed.stdout.split() == [shared.config.node_id], listed.stderr
    far(tmp_path / "home", "context", "use", "prod")
    assert far(tmp_path / "home", "node", "ls", "-q").stdout == listed.stdout


def test_a_foreign_certificate_is_refused(shared: Cluster, tmp_path: Path) -> None:
    now = SystemClock().now()
    stranger = pki.create_root(now)
    pair = pki.issue(stranger, pki.Subject("mallory", "client", shared.config.cluster_id), now)
    for name, data in (("ca", shared.config.cert("ca.pem")), ("cert", pair.cert), ("key", pair.key)):
        (tmp_path / f"{name}.pem").write_bytes(data)
    host = f"tcp://127.0.0.1:{shared.config.ports.api}"
    files = [f"--{name}={tmp_path / name}.pem" for name in ("ca", "cert", "key")]
    created = far(tmp_path / "home", "context", "create", "bad", "--host", host, *files)
    assert created.returncode == 0, created.stderr
    refused = far(tmp_path / "home", "--context", "bad", "node", "ls")
    assert refused.returncode == 1
    assert shared.config.node_id not in refused.stdout
