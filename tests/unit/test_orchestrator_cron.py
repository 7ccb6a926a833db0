"""Cron schedules: the grammar, the calendar, clocks that jump, and what is made up for."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manager.orchestrator.cron import parse
from pyswarm.errors import Invalid


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def shown(seconds: float | None) -> str:
    assert seconds is not None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


@pytest.mark.parametrize(
    ("schedule", "after", "following"),
    [
        ("* * * * *", "2026-01-01 00:00", "2026-01-01 00:01"),
        ("*/15 * * * *", "2026-01-01 00:01", "2026-01-01 00:15"),
        ("0 3 * * *", "2026-01-01 03:00", "2026-01-02 03:00"),
        ("30 2 1 * *", "2026-01-01 03:00", "2026-02-01 02:30"),
        ("0 0 29 2 *", "2026-01-01 00:00", "2028-02-29 00:00"),
        ("0 12 * * mon-fri", "2026-01-02 13:00", "2026-01-05 12:00"),
        ("0 12 * * 7", "2026-01-01 00:00", "2026-01-04 12:00"),
        ("0 0 13 * fri", "2026-01-01 00:00", "2026-01-02 00:00"),  # either day
        ("0 0 */10 * fri", "2026-01-01 00:00", "2026-05-01 00:00"),  # `*`: both
        ("5,10-12/2 0 1 jan,jul *", "2026-01-01 00:05", "2026-01-01 00:10"),
        ("@hourly", "2026-01-01 00:30", "2026-01-01 01:00"),
        ("@yearly", "2026-01-01 00:00", "2027-01-01 00:00"),
        ("59 23 31 12 *", "2026-12-31 23:58", "2026-12-31 23:59"),
    ],
)
def test_next(schedule: str, after: str, following: str) -> None:
    assert shown(parse(schedule).next_after(at(after))) == following


def test_every() -> None:
    schedule = parse("@every 1m30s")
    assert schedule.next_after(100.0) == 190.0
    assert schedule.latest_until(100.0, 189.0) is None
    assert schedule.latest_until(100.0, 500.0) == 460.0


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("* * * *", "has 4 fields"),
        ("60 * * * *", "minute '60' is not from 0 to 59"),
        ("* 24 * * *", "hour '24'"),
        ("* * 0 * *", "day of month '0'"),
        ("* * * foo *", "month 'foo'"),
        ("* * * * 8", "day of week '8'"),
        ("5-1 * * * *", "ends before it begins"),
        ("*/0 * * * *", "minute '0' is not from 1"),
        ("0 0 30 2 *", "a day that no month has"),
        ("@often", "unknown"),
        ("@every soon", "duration"),
        ("@every 10ms", "shortest"),
        ("", "has 0 fields"),
    ],
)
def test_refused(schedule: str, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        parse(schedule)


def test_unknown_zone() -> None:
    with pytest.raises(Invalid, match="Mars/Base"):
        parse("* * * * *", "Mars/Base")


@pytest.mark.parametrize(
    ("schedule", "after", "following"),
    [
        ("0 3 * * *", "2026-01-01 00:00", "2026-01-01 02:00"),  # winter: UTC+1
        ("0 3 * * *", "2026-07-01 00:00", "2026-07-01 01:00"),  # summer: UTC+2
        ("30 2 * * *", "2026-03-28 12:00", "2026-03-30 00:30"),  # 02:30 does not exist on 29 March
        ("30 2 * * *", "2026-10-24 12:00", "2026-10-25 00:30"),  # 02:30 comes twice on 25 October:
        ("30 2 * * *", "2026-10-25 00:30", "2026-10-26 01:30"),  # once is enough,
        ("30 * * * *", "2026-10-25 00:30", "2026-10-25 01:30"),  # unless every hour is meant
    ],
)
def test_daylight_saving(schedule: str, after: str, following: str) -> None:
    assert shown(parse(schedule, "Europe/Berlin").next_after(at(after))) == following


def test_the_latest_missed() -> None:
    schedule = parse("0 3 * * *")
    assert shown(schedule.latest_until(at("2026-01-01 00:00"), at("2026-01-20 12:00"))) == "2026-01-20 03:00"
    assert schedule.latest_until(at("2026-01-01 03:00"), at("2026-01-02 02:59")) is None
    assert shown(parse("@yearly").latest_until(0.0, at("2026-06-01 00:00"))) == "2026-01-01 00:00"


_SCHEDULES = st.sampled_from(
    [
        "* * * * *",
        "*/7 * * * *",
        "3 */5 * * *",
        "0 3 * * *",
        "15 4 1,15 * *",
        "0 0 * * 1",
        "@hourly",
        "@monthly",
    ]
)


@given(
    schedule=_SCHEDULES,
    zone=st.sampled_from(["", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"]),
    when=st.integers(1_500_000_000, 1_900_000_000),
)
def test_next_is_later_and_is_what_was_missed_then(schedule: str, zone: str, when: int) -> None:
    parsed = parse(schedule, zone)
    following = parsed.next_after(when)
    assert following is not None
    assert following > when
    assert following % 60 == 0
    assert parsed.latest_until(when, following) == following
    assert parsed.latest_until(when, following - 1) is None
