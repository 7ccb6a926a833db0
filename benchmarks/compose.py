"""How long Compose files take to load, beside docker compose and docker stack config on the same files.

    python benchmarks/compose.py

Each figure is the best of five runs. Ours are without the interpreter's start and imports (shown apart);
the others are whole processes, which start in some 30 ms.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
ROUNDS = 5
SERVICE = """\
  s{n}:
    image: registry.example.com/team/app:{n}
    command: ["serve", "--port", "80", "--name", "s{n}"]
    environment: {{A: 1, B: "two", HOME: "${{HOME}}", C: "${{MISSING:-default}}"}}
    ports: ["{port}:80", "9090"]
    volumes: ["data:/data", "./conf:/etc/app:ro"]
    networks: [front, back]
    healthcheck: {{test: curl -f localhost, interval: 10s, retries: 3}}
    labels: {{team: a, tier: web}}
    deploy: {{replicas: 2, resources: {{limits: {{cpus: "0.5", memory: 50M}}}}, update_config: {{order: start-first}}}}
"""


def document(services: int) -> str:
    """A version 3 file with so many services."""
    body = "".join(SERVICE.format(n=number, port=10_000 + number) for number in range(services))
    return (
        f'version: "3.8"\nservices:\n{body}networks: {{front: {{}}, back: {{}}}}\nvolumes: {{data: {{}}}}\n'
    )


def best(run: Callable[[], object]) -> float:
    """Seconds of the fastest of some runs."""
    times: list[float] = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def program(name: str) -> str:
    """The oracle of that name, from the tests' cache; fetched if need be."""
    script = ROOT / "tests" / "compose" / "get_oracle.sh"
    return subprocess.run([script, name], capture_output=True, text=True, check=True).stdout.strip()


def process(command: list[str]) -> Callable[[], object]:
    """A call that runs the command and fails if it does."""

    def run() -> object:
        return subprocess.run(command, capture_output=True, check=True)

    return run


def main() -> None:
    start = time.perf_counter()
    from compose.convert import convert_stack
    from compose.load import load_project
    from compose.plan import StackState, plan_stack

    print(f"import                       {1000 * (time.perf_counter() - start):8.1f} ms")
    compose, docker = program("docker-compose"), program("docker")
    environ = dict(os.environ)
    for services in (1, 10, 100, 1000):
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "compose.yml"
            file.write_text(document(services))
            project = load_project([file], environ=environ)
            specs = convert_stack(project, "bench")
            rows = {
                "pyswarm load": lambda file=file: load_project([file], environ=environ),
                "pyswarm convert": lambda project=project: convert_stack(project, "bench"),
                "pyswarm plan": lambda specs=specs: plan_stack(specs, StackState(), True),
                "pyswarm canonical": lambda project=project: project.canonical(),
                "docker compose config": process([compose, "-f", str(file), "config"]),
                "docker stack config": process([docker, "stack", "config", "-c", str(file)]),
            }
            print(f"{services} services, {file.stat().st_size // 1024} KiB")
            for name, run in rows.items():
                print(f"  {name:<26} {1000 * best(run):8.1f} ms")


if __name__ == "__main__":
    main()
