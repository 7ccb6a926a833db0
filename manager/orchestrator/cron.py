"""Cron jobs: jobs whose next iteration begins by the clock.

The schedule is five fields (minute, hour, day of month, month, day of week) as in crontab(5), one of the
macros (`@hourly` ...), or `@every DURATION`. Times are those of the schedule's time zone; a time that the
zone's clock skips does not happen, one that it shows twice happens once, unless every hour is meant.

Late starts follow Kubernetes' CronJob: however many times were missed, the latest of them alone is made up
for, if it is not older than `starting_deadline`; with `concurrency: forbid` a run that is due waits for the
one before it, under the same deadline.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from manager.orchestrator.jobs_state import busy, iteration_of
from manager.orchestrator.tasks import is_job
from manager.state import Changed, Key, Plan, View
from pyswarm.errors import Invalid
from pyswarm.objects import JobStatus, Service, Task
from pyswarm.specs import CronSchedule

MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
HORIZON = timedelta(days=9 * 366)
"""A time that is not within this has no next one (the longest gap, between two 29 February, is 8 years)."""
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()
    first_name: int = 0


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, MONTHS, 1),
    _Field("day of week", 0, 7, DAYS, 0),
)


@dataclass(frozen=True, slots=True)
class Schedule:
    """A parsed schedule."""

    zone: tzinfo
    every: float = 0.0
    """Seconds, for `@every`; the rest does not apply then."""
    minutes: frozenset[int] = frozenset()
    hours: frozenset[int] = frozenset()
    days: frozenset[int] = frozenset()
    months: frozenset[int] = frozenset()
    weekdays: frozenset[int] = frozenset()
    any_hour: bool = False
    any_day: bool = False
    any_weekday: bool = False

    def next_after(self, when: float) -> float | None:
        """The first scheduled time later than `when` (Unix seconds); None when there is none."""
        if self.every:
            return when + self.every
        at = datetime.fromtimestamp(when, UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
        end = at + HORIZON
        while at < end:
            local = at.astimezone(self.zone)
            if not self._on_day(local):
                at = self._next_day(local, at)
            elif local.hour not in self.hours or (local.fold and not self.any_hour):
                at += timedelta(minutes=60 - local.minute)
            elif local.minute not in self.minutes:
                at += timedelta(minutes=1)
            else:
                return at.timestamp()
        return None

    def latest_until(self, after: float, now: float) -> float | None:
        """The last scheduled time in (after, now]; None when there is none."""
        span = max(120.0, 2 * self.every)
        if self.every:
            return after + (now - after) // self.every * self.every if now >= after + self.every else None
        while True:
            start = max(after, now - span)
            found = None
            following = self.next_after(start)
            while following is not None and following <= now:
                found, following = following, self.next_after(following)
            if found is not None or start <= after:
                return found
            span *= 4

    def _on_day(self, local: datetime) -> bool:
        if local.month not in self.months:
            return False
        day = local.day in self.days
        weekday = local.isoweekday() % 7 in self.weekdays
        return (day and weekday) if self.any_day or self.any_weekday else (day or weekday)

    def _next_day(self, local: datetime, at: datetime) -> datetime:
        midnight = local.replace(hour=0, minute=0, tzinfo=None, fold=0) + timedelta(days=1)
        following = midnight.replace(tzinfo=self.zone).astimezone(UTC)
        return max(following, at + timedelta(minutes=1))


@lru_cache(maxsize=1024)
def parse(text: str, time_zone: str = "") -> Schedule:
    """The schedule. Raises Invalid with the field that is wrong."""
    zone = _zone(time_zone)
    said = MACROS.get(text.strip().lower(), text.strip())
    if said.startswith("@every"):
        return Schedule(zone, every=_every(text, said.removeprefix("@every").strip()))
    if said.startswith("@"):
        raise Invalid(f"schedule {text!r}: unknown; there are {', '.join(sorted(MACROS))} and @every 1h30m")
    words = said.split()
    if len(words) != len(_FIELDS):
        raise Invalid(
            f"schedule {text!r} has {len(words)} fields, not 5: minute, hour, day of month, month, day of week"
        )
    sets = [_values(text, word, spec) for word, spec in zip(words, _FIELDS, strict=True)]
    schedule = Schedule(
        zone,
        minutes=sets[0],
        hours=sets[1],
        days=sets[2],
        months=sets[3],
        weekdays=frozenset(day % 7 for day in sets[4]),
        any_hour=words[1].startswith("*"),
        any_day=words[2][0] in "*?",
        any_weekday=words[4][0] in "*?",
    )
    if schedule.next_after(0.0) is None:
        raise Invalid(f"schedule {text!r} names a day that no month has")
    return schedule


def _zone(name: str) -> tzinfo:
    if not name or name.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise Invalid(
            f"time zone {name!r} is not known: use a name such as Europe/Berlin (from the package tzdata)"
        ) from None


def _every(text: str, duration: str) -> float:
    parts = _DURATION.findall(duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration:
        raise Invalid(f"schedule {text!r}: write @every with a duration such as 90s or 1h30m")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if seconds < 1:
        raise Invalid(f"schedule {text!r}: a second is the shortest interval")
    return seconds


def _values(text: str, word: str, spec: _Field) -> frozenset[int]:
    values: set[int] = set()
    for part in word.split(","):
        span, slash, step_word = part.partition("/")
        step = _number(text, step_word, spec, 1, spec.high) if slash else 1
        if span in ("*", "?"):
            low, high = spec.low, spec.high
        elif "-" in span:
            first, _, last = span.partition("-")
            low = _number(text, first, spec, spec.low, spec.high)
            high = _number(text, last, spec, spec.low, spec.high)
        else:
            low = _number(text, span, spec, spec.low, spec.high)
            high = spec.high if slash else low
        if low > high:
            raise Invalid(f"schedule {text!r}: {spec.name} {part!r} ends before it begins")
        values.update(range(low, high + 1, step))
    return frozenset(values)


def _number(text: str, word: str, spec: _Field, low: int, high: int) -> int:
    lower = word.lower()
    if lower in spec.names:
        return spec.names.index(lower) + spec.first_name
    if not word.isdecimal() or not low <= int(word) <= high:
        raise Invalid(f"schedule {text!r}: {spec.name} {word!r} is not from {low} to {high}")
    return int(word)


class CronOrchestrator:
    """Begins the iterations of cron jobs. Keys: `("service", id)`."""

    name = "cron"

    def keys(self, change: Changed, view: View) -> Iterable[Key]:
        obj = change.obj
        if isinstance(obj, Service):
            return (("service", obj.id),) if obj.spec.cron is not None else ()
        if isinstance(obj, Task):
            service = view.get(Service, obj.service_id)
            if service is not None and service.spec.cron is not None:
                return (("service", service.id),)
        return ()

    def everything(self, view: View) -> Iterable[Key]:
        return [("service", service.id) for service in view.services() if service.spec.cron is not None]

    def plan(self, view: View, keys: Collection[Key], now: float) -> Plan:
        plan = Plan()
        for key in keys:
            service = view.get(Service, key[1])
            if service is not None and not service.pending_delete and is_job(service):
                _schedule(view, service, key, plan, now)
        return plan


def _schedule(view: View, service: Service, key: Key, plan: Plan, now: float) -> None:
    cron = service.spec.cron
    if cron is None:
        return
    try:
        schedule = parse(cron.schedule, cron.time_zone)
    except Invalid:
        return  # the control API refuses it; one that came in otherwise never runs
    last = service.job_status.last_execution if service.job_status is not None else 0.0
    last = last or service.meta.created_at or now
    due = schedule.latest_until(last, now)
    if due is not None and _may_start(view, service, cron, due, now):
        status = JobStatus(iteration=iteration_of(service) + 1, last_execution=due)
        plan.put(replace(service, job_status=status))
        last = due
    following = schedule.next_after(max(last, now) if not schedule.every else max(last, due or last))
    if following is not None:
        plan.wake_at(key, following)


def _may_start(view: View, service: Service, cron: CronSchedule, due: float, now: float) -> bool:
    if cron.starting_deadline is not None and now - due > cron.starting_deadline:
        return False
    return cron.concurrency != "forbid" or not busy(view.tasks_of_service(service.id))
