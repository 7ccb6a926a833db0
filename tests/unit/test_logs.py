"""Container logs: lines, tails, limits, and the order of files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from node_agent import logs
from node_agent.logs import Limits, Logs, Parser
from node_agent.ports import LogLine, Paths
from pyswarm.errors import Invalid
from pyswarm.specs import Driver

SECOND = 1_767_323_045


def stamp(number: int, zone: str = "+00:00") -> str:
    return f"2026-01-02T03:04:05.{number:09d}{zone}"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    made = Paths(state=tmp_path / "state", run=tmp_path / "run")
    made.task_state("t").mkdir(parents=True)
    return made


def write(paths: Paths, name: str, *lines: str) -> None:
    (paths.task_state("t") / name).write_text("".join(f"{line}\n" for line in lines))


async def read(
    paths: Paths,
    *,
    tail: int = -1,
    since: float = 0,
    until: float = 0,
    stdout: bool = True,
    stderr: bool = True,
    follow: bool = False,
) -> list[str]:
    lines: list[str] = []
    async for line in Logs(paths).read(
        "t", follow=follow, tail=tail, since=since, until=until, stdout=stdout, stderr=stderr
    ):
        lines.append(line.data.decode())
    return lines


def numbered(start: int, stop: int, stream: str = "stdout") -> list[str]:
    return [f"{stamp(n)} {stream} F {n}" for n in range(start, stop)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            f"{stamp(7)} stdout F a b",
            LogLine(task_id="t", nanos=SECOND * 10**9 + 7, stream="stdout", data=b"a b\n"),
        ),
        (
            f"{stamp(7)} stderr P a",
            LogLine(task_id="t", nanos=SECOND * 10**9 + 7, stream="stderr", data=b"a"),
        ),
        (f"{stamp(0)} stdout F ", LogLine(task_id="t", nanos=SECOND * 10**9, stream="stdout", data=b"\n")),
        (
            f"{stamp(0, '+02:00')} stdout F x",
            LogLine(task_id="t", nanos=(SECOND - 7200) * 10**9, stream="stdout", data=b"x\n"),
        ),
        ("", None),
        ("garbage stdout F x", None),
        (f"{stamp(0)} stdin F x", None),
        (f"{stamp(0)} stdout", None),
    ],
)
def test_lines(line: str, expected: LogLine | None) -> None:
    assert Parser("t").parse(line.encode()) == expected


async def test_nothing_there(paths: Paths) -> None:
    assert await read(paths) == []
    assert await read(paths, tail=5) == []


async def test_files_in_order(paths: Paths) -> None:
    write(paths, "log", *numbered(20, 25))
    write(paths, "log.1", *numbered(10, 20))
    write(paths, "log.2", *numbered(0, 10))
    assert await read(paths) == [f"{n}\n" for n in range(25)]
    for count in (0, 1, 5, 6, 15, 24, 25, 99):
        assert await read(paths, tail=count) == [f"{n}\n" for n in range(25)][25 - min(25, count) :]


async def test_only_rotated_ones_left(paths: Paths) -> None:
    write(paths, "log.1", *numbered(0, 3))
    assert await read(paths) == ["0\n", "1\n", "2\n"]


async def test_streams(paths: Paths) -> None:
    write(paths, "log", *numbered(0, 3), *numbered(3, 5, "stderr"), *numbered(5, 6))
    assert await read(paths, stderr=False) == ["0\n", "1\n", "2\n", "5\n"]
    assert await read(paths, stdout=False, tail=1) == ["4\n"]
    assert await read(paths, stderr=False, tail=2) == ["2\n", "5\n"]
    assert await read(paths, stdout=False, stderr=False) == []


async def test_times(paths: Paths) -> None:
    write(
        paths,
        "log",
        *(f"2026-01-02T03:04:{second:02d}.500000000+00:00 stdout F {second}" for second in range(10)),
    )
    base = SECOND - 5
    assert await read(paths, since=base + 7) == ["7\n", "8\n", "9\n"]
    assert await read(paths, since=base + 7, until=base + 9) == ["7\n", "8\n"]
    assert await read(paths, until=base + 2, follow=True) == ["0\n", "1\n"]


async def test_pieces_count_as_one_line(paths: Paths) -> None:
    write(
        paths,
        "log",
        f"{stamp(0)} stdout F first",
        f"{stamp(1)} stdout P a",
        f"{stamp(2)} stdout P b",
        f"{stamp(3)} stdout F c",
        f"{stamp(4)} stdout P open",
    )
    assert await read(paths, tail=1) == ["open"]
    assert await read(paths, tail=2) == ["a", "b", "c\n", "open"]
    assert await read(paths, tail=3) == ["first\n", "a", "b", "c\n", "open"]


async def test_torn_last_line_waits(paths: Paths) -> None:
    (paths.task_state("t") / "log").write_text(f"{stamp(0)} stdout F whole\n{stamp(1)} stdout F to")
    assert await read(paths) == ["whole\n"]
    assert await read(paths, tail=1) == ["whole\n"]


async def test_tail_over_many_blocks(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    write(paths, "log.1", *numbered(0, 50))
    write(paths, "log", *numbered(50, 100))
    for size in (7, 64, 300):
        monkeypatch.setattr(logs, "_CHUNK", size)
        for count in (1, 49, 50, 51, 100):
            assert await read(paths, tail=count) == [f"{n}\n" for n in range(100 - count, 100)]


async def test_following_an_ended_task_ends(paths: Paths) -> None:
    write(paths, "log", *numbered(0, 3))
    (paths.run / "exits").mkdir(parents=True)
    (paths.run / "exits/t").write_text("0")
    assert await read(paths, follow=True) == ["0\n", "1\n", "2\n"]
    assert await read(paths, follow=True, tail=1) == ["2\n"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, Limits()),
        ({"max-size": "10m"}, Limits(10 << 20, 5)),
        ({"max-size": "1.5g", "max-file": "2"}, Limits(3 << 29, 2)),
        ({"max-size": "500KB"}, Limits(500 << 10, 5)),
        ({"max-size": "77"}, Limits(77, 5)),
        ({"max-size": "-1"}, Limits(0, 5)),
    ],
)
def test_limits(options: dict[str, str], expected: Limits) -> None:
    assert logs.limits(Driver(name="json-file", options=options)) == expected
    assert logs.limits(None) == Limits()


@pytest.mark.parametrize("options", [{"max-size": "ten"}, {"max-file": "0"}, {"max-file": "x"}])
def test_bad_limits(options: dict[str, str]) -> None:
    with pytest.raises(Invalid, match=r"logging\.options"):
        logs.limits(Driver(options=options))


def test_no_rotation_without_a_monitor(paths: Paths) -> None:
    write(paths, "log", *numbered(0, 100))
    assert not Logs(paths).rotate("t", Limits(10, 3))
    assert not Logs(paths).rotate("t", Limits(0, 3))
    assert os.listdir(paths.task_state("t")) == ["log"]  # noqa: PTH208
