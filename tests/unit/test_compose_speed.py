"""The loader's promises of speed, in processor time: 10 services in 60 ms, 1,000 in 2 s."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from compose.convert import convert_stack
from compose.load import load_project
from compose.plan import StackState, plan_stack

SERVICE = """\
  s{n}:
    image: app:{n}
    environment: {{A: 1, B: "two", C: "${{MISSING:-default}}"}}
    ports: ["{port}:80", "9090"]
    volumes: ["data:/data", "./conf:/etc/app:ro"]
    networks: [front, back]
    healthcheck: {{test: curl -f localhost, interval: 10s}}
    depends_on: [s{before}]
    deploy: {{replicas: 2, resources: {{limits: {{cpus: "0.5", memory: 50M}}}}}}
"""


@pytest.mark.parametrize(("services", "seconds"), [(10, 0.06), (1000, 2.0)])
def test_load_convert_plan(tmp_path: Path, services: int, seconds: float) -> None:
    body = "".join(
        SERVICE.format(n=number, port=10_000 + number, before=number - 1) for number in range(1, services)
    )
    file = tmp_path / "compose.yml"
    file.write_text(
        f"services:\n  s0: {{image: x}}\n{body}networks: {{front: , back: }}\nvolumes: {{data: }}\n"
    )
    best, changes = float("inf"), 0
    for _ in range(2):
        start = time.process_time()
        specs = convert_stack(load_project([file], environ={}, project_name="p"), "s")
        changes = len(plan_stack(specs, StackState(), True).changes)
        best = min(best, time.process_time() - start)
        if best < seconds:
            break
    assert changes == services + 4  # three networks, a volume
    assert best < seconds


def test_import_brings_no_wire_code() -> None:
    code = (
        "import sys, compose.load, compose.convert, compose.plan; "
        "print('grpc' in sys.modules, 'asyncio' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False False"
