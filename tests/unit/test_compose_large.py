"""The loader over a large file, and what importing it brings along (how fast it is: benchmarks/compose.py)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


def test_many_services_load_convert_and_plan(tmp_path: Path) -> None:
    services = 200
    body = "".join(
        SERVICE.format(n=number, port=10_000 + number, before=number - 1) for number in range(1, services)
    )
    file = tmp_path / "compose.yml"
    file.write_text(
        f"services:\n  s0: {{image: x}}\n{body}networks: {{front: , back: }}\nvolumes: {{data: }}\n"
    )
    specs = convert_stack(load_project([file], environ={}, project_name="p"), "s")
    changes = len(plan_stack(specs, StackState(), True).changes)
    assert changes == services + 4  # three networks, a volume


def test_import_brings_no_wire_code() -> None:
    code = (
        "import sys, compose.load, compose.convert, compose.plan; "
        "print('grpc' in sys.modules, 'asyncio' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False False"
