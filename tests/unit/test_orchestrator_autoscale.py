"""Autoscaling: recommendations, the window, the figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from manager.orchestrator.autoscale import PERIOD, STALE, Autoscaler, Meter, TaskUse
from manager.state import State
from pyswarm.clock import SeededIds
from pyswarm.objects import AutoscaleStatus, ContainerStats, Service, Task, TaskState, TaskStatus
from pyswarm.specs import (
    Autoscale,
    ResourceRequirements,
    Resources,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)

CORE = 1_000_000_000
NOW = 10_000.0


def service(replicas: int, scale: Autoscale) -> Service:
    resources = ResourceRequirements(reservations=Resources(nano_cpus=CORE, memory=1 << 30))
    spec = ServiceSpec(
        name="s", mode=ServiceMode(replicas=replicas), task=TaskSpec(resources=resources), autoscale=scale
    )
    return Service(id="s", spec=spec)


def decide(service: Service, use: Mapping[str, TaskUse], tasks: int, now: float = NOW) -> Service:
    """The service after one look of the autoscaler."""
    up = TaskStatus(state=TaskState.RUNNING)
    state = State(SeededIds(1))
    state.load([service, *(Task(id=f"t{n}", service_id="s", slot=n + 1, status=up) for n in range(tasks))], 1)
    plan = Autoscaler(use).plan(state.view, [("service", "s")], now)
    assert plan.wake == {("service", "s"): now + PERIOD}
    return plan.puts[0] if plan.puts and isinstance(plan.puts[0], Service) else service


def cores(*values: float) -> dict[str, TaskUse]:
    return {f"t{n}": TaskUse(at=NOW, nano_cpus=value * CORE) for n, value in enumerate(values)}


@pytest.mark.parametrize(
    ("use", "replicas"),
    [
        ((1.0, 1.0), 4),  # twice the target
        ((0.5, 0.5), 2),
        ((0.54, 0.54), 2),  # within 10%
        ((0.6, 0.6), 3),
        ((10.0, 10.0), 6),  # at most 4 more (or the double)
        ((0.0, 0.0), 1),
    ],
)
def test_cpu(use: tuple[float, float], replicas: int) -> None:
    assert decide(service(2, Autoscale(max=20, cpu=0.5)), cores(*use), 2).replicas == replicas


def test_bounds() -> None:
    assert decide(service(2, Autoscale(min=2, max=3, cpu=0.5)), cores(5, 5), 2).replicas == 3
    assert decide(service(2, Autoscale(min=2, max=3, cpu=0.5)), cores(0, 0), 2).replicas == 2
    assert service(9, Autoscale(min=1, max=3, cpu=0.5)).replicas == 3


def test_the_larger_of_two_targets_counts() -> None:
    use = {f"t{n}": TaskUse(at=NOW, nano_cpus=0.5 * CORE, memory=1 << 30) for n in range(2)}
    assert decide(service(2, Autoscale(cpu=0.5, memory=0.5)), use, 2).replicas == 4


def test_a_metric() -> None:
    use = {f"t{n}": TaskUse(at=NOW, metrics={"network_rx": 30.0}) for n in range(2)}
    assert decide(service(2, Autoscale(metric="network_rx", target=10.0)), use, 2).replicas == 6


def test_missing_figures_calm() -> None:
    assert decide(service(4, Autoscale(cpu=0.5)), cores(1.0, 1.0), 4).replicas == 4
    assert decide(service(4, Autoscale(cpu=0.5)), cores(0.0), 4).replicas == 3


def test_no_figures_no_change() -> None:
    assert decide(service(4, Autoscale(cpu=0.5)), {}, 4).autoscale_status is None
    old = {id: replace(use, at=NOW - STALE - 1) for id, use in cores(9.0, 9.0).items()}
    assert decide(service(2, Autoscale(cpu=0.5)), old, 2).autoscale_status is None


def test_down_only_to_the_highest_recommendation_of_the_window() -> None:
    scaled = decide(service(2, Autoscale(cpu=0.5, cooldown=60.0)), cores(1.0, 1.0), 2)
    assert scaled.replicas == 4
    idle = cores(0.05, 0.05, 0.05, 0.05)
    calm = decide(scaled, idle, 4, NOW + 15)
    assert calm.replicas == 4
    assert decide(calm, idle, 4, NOW + 74).replicas == 4
    assert decide(calm, {k: replace(u, at=NOW + 76) for k, u in idle.items()}, 4, NOW + 76).replicas == 1


def test_equal_recommendations_are_not_written_again() -> None:
    first = decide(service(2, Autoscale(cpu=0.5)), cores(0.5, 0.5), 2)
    assert first.autoscale_status == AutoscaleStatus(at=(NOW,), replicas=(2,), desired=2)
    assert decide(first, cores(0.5, 0.5), 2, NOW + 15) is first


def test_the_meter_averages_between_looks() -> None:
    meter = Meter()
    meter.stats = stats = {"t": ContainerStats(task_id="t", timestamp=100.0, cpu_nanos=5 * CORE, memory=7)}
    assert meter.get("t") is None, "one figure of CPU time is no rate"
    stats["t"] = ContainerStats(
        task_id="t", timestamp=115.0, cpu_nanos=20 * CORE, memory=8, pids=3, network_rx=1500, block_write=30
    )
    metrics = {"network_rx": 100.0, "network_tx": 0.0, "block_read": 0.0, "block_write": 2.0, "pids": 3.0}
    use = TaskUse(at=115.0, nano_cpus=CORE, memory=8, metrics=metrics)
    assert meter["t"] == use
    assert meter["t"] == use, "nothing new was reported"
    stats["t"] = ContainerStats(task_id="t", timestamp=130.0, cpu_nanos=0, memory=8)
    assert meter["t"].nano_cpus == 0, "the counter began anew"
    del stats["t"]
    assert meter.get("t") is None
    assert list(meter) == [] and len(meter) == 0
