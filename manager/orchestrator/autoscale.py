"""Autoscaling: replicas that follow use, with the rules of Kubernetes' HorizontalPodAutoscaler.

Every `PERIOD` the use of each running task is compared with its target; the recommendation is
ceil(tasks * use / target), the largest over all targets, nothing within 10% of the target. Tasks without
figures count as idle when it would go up and as at their target when it would go down. Up at once, but at
most to the double or 4 more; down to the highest recommendation of the last `cooldown` seconds.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from manager.orchestrator.tasks import running, wanted
from manager.state import Changed, Key, Plan, View
from pyswarm.objects import AutoscaleStatus, ContainerStats, Service, Task
from pyswarm.specs import AUTOSCALE_METRICS, Autoscale

PERIOD = 15.0
TOLERANCE = 0.1
STEP = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskUse:
    """What a task used lately, averaged by whoever gathers it over about `PERIOD` seconds."""

    at: float = 0.0
    """Unix time of the last sample."""
    nano_cpus: float = 0.0
    """Billionths of a core in use."""
    memory: int = 0
    """Bytes."""
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])


class Meter(Mapping[str, TaskUse]):
    """Every task's use, made from the figures that agents report: CPU time becomes the average rate since
    the task was asked about before, so it covers the time between two looks of the autoscaler."""

    def __init__(self) -> None:
        self.stats: Mapping[str, ContainerStats] = {}
        """The last figures by task id; whoever gathers them puts its own mapping here."""
        self._before: dict[str, ContainerStats] = {}
        self._use: dict[str, TaskUse] = {}

    def __getitem__(self, task_id: str) -> TaskUse:
        stats = self.stats.get(task_id)
        if stats is None:
            self._before.pop(task_id, None)
            self._use.pop(task_id, None)
            raise KeyError(task_id)
        before = self._before.get(task_id)
        if before is None or stats.timestamp > before.timestamp:
            self._before[task_id] = stats
        if before is not None and stats.timestamp > before.timestamp:
            self._use[task_id] = _between(before, stats)
        return self._use[task_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self.stats)

    def __len__(self) -> int:
        return len(self.stats)


def _between(before: ContainerStats, stats: ContainerStats) -> TaskUse:
    """The use from one sample to a later one: rates of what is counted, the last figure of what is not."""
    seconds = stats.timestamp - before.timestamp

    def rate(counter: str) -> float:
        return max(0, getattr(stats, counter) - getattr(before, counter)) / seconds

    metrics = {name: float(stats.pids) if name == "pids" else rate(name) for name in AUTOSCALE_METRICS}
    return TaskUse(at=stats.timestamp, nano_cpus=rate("cpu_nanos"), memory=stats.memory, metrics=metrics)


STALE = 4 * PERIOD
"""Seconds after which a task's figures count as missing."""


class Autoscaler:
    """Sets `autoscale_status` of the services that ask for it. Keys: `("service", id)`.

    `use` maps a task's id to its use; whoever made the mapping keeps it up to date between the rounds.
    """

    name = "autoscale"

    def __init__(self, use: Mapping[str, TaskUse]) -> None:
        self._use = use

    def keys(self, change: Changed, view: View) -> Iterable[Key]:
        before, obj = change.before, change.obj
        if not isinstance(obj, Service) or obj.spec.autoscale is None or change.after is None:
            return ()
        if isinstance(before, Service) and before.spec == obj.spec:
            return ()
        return (("service", obj.id),)

    def everything(self, view: View) -> Iterable[Key]:
        return [("service", s.id) for s in view.services() if s.spec.autoscale is not None]

    def plan(self, view: View, keys: Collection[Key], now: float) -> Plan:
        plan = Plan()
        for key in keys:
            service = view.get(Service, key[1])
            if service is None or service.pending_delete or service.spec.mode.kind != "replicated":
                continue
            if service.spec.autoscale is None:
                continue
            status = self._decide(view, service, service.spec.autoscale, now)
            if status != service.autoscale_status:
                plan.put(replace(service, autoscale_status=status))
            plan.wake_at(key, now + PERIOD)
        return plan

    def _decide(self, view: View, service: Service, spec: Autoscale, now: float) -> AutoscaleStatus | None:
        status = service.autoscale_status or AutoscaleStatus()
        tasks = [t for t in view.tasks_of_service(service.id) if wanted(t) and running(t)]
        uses = {t.id: self._fresh(t, now) for t in tasks}
        ratios = [
            ratio
            for want in _targets(service, spec)
            if (ratio := _ratio([want.of(use) if use else None for use in uses.values()])) is not None
        ]
        if not ratios:
            return service.autoscale_status
        now_has = service.replicas
        ratio = max(ratios)
        raw = now_has if abs(ratio - 1.0) <= TOLERANCE else math.ceil(round(ratio * len(tasks), 6))
        recommended = max(spec.min, min(spec.max, raw, max(2 * now_has, now_has + STEP)))
        status = _remember(status, recommended, now, spec.cooldown)
        desired = recommended if recommended >= now_has else min(now_has, max(status.replicas))
        return replace(status, desired=desired)

    def _fresh(self, task: Task, now: float) -> TaskUse | None:
        use = self._use.get(task.id)
        return use if use is not None and now - use.at <= STALE else None


@dataclass(frozen=True, slots=True)
class _Target:
    """One figure and what it should be, so that 1.0 is on target."""

    kind: str
    value: float

    def of(self, use: TaskUse) -> float | None:
        if self.kind == "cpu":
            return use.nano_cpus / self.value
        if self.kind == "memory":
            return use.memory / self.value
        figure = use.metrics.get(self.kind.removeprefix("metric:"))
        return None if figure is None else figure / self.value


def _targets(service: Service, spec: Autoscale) -> list[_Target]:
    resources = service.spec.task.resources
    cpus = resources.reservations.nano_cpus or resources.limits.nano_cpus
    memory = resources.reservations.memory or resources.limits.memory
    targets: list[_Target] = []
    if spec.cpu and cpus:
        targets.append(_Target("cpu", spec.cpu * cpus))
    if spec.memory and memory:
        targets.append(_Target("memory", spec.memory * memory))
    if spec.metric and spec.target:
        targets.append(_Target(f"metric:{spec.metric}", spec.target))
    return targets


def _ratio(figures: list[float | None]) -> float | None:
    """Average use over target; None when no task has a figure."""
    known = [figure for figure in figures if figure is not None]
    if not known:
        return None
    mean = sum(known) / len(known)
    missing = len(figures) - len(known)
    if not missing:
        return mean
    filled = (sum(known) + missing * (0.0 if mean > 1.0 else 1.0)) / len(figures)
    # Filling in may calm the answer, never turn it round.
    return max(1.0, filled) if mean > 1.0 else min(1.0, filled)


def _remember(status: AutoscaleStatus, recommended: int, now: float, window: float) -> AutoscaleStatus:
    """Add the recommendation if it is news, and drop what ended before the window.

    Each entry holds from its time until that of the next one, so that equal answers cost no write.
    """
    at, replicas = list(status.at), list(status.replicas)
    if not replicas or replicas[-1] != recommended:
        at.append(now)
        replicas.append(recommended)
    while len(at) > 1 and at[1] <= now - window:
        at.pop(0)
        replicas.pop(0)
    return replace(status, at=tuple(at), replicas=tuple(replicas))
