"""Shares of the processors, from reports that come now and then."""

from __future__ import annotations

from pyswarm.cli.compose_stats import Shares
from pyswarm.objects import ContainerStats


def report(at: float, seconds: float) -> ContainerStats:
    return ContainerStats(task_id="t", timestamp=at, cpu_nanos=int(seconds * 1e9))


def test_one_report_is_an_average_since_the_start() -> None:
    assert Shares().share(report(110.0, 5.0), 100.0) == 0.5


def test_later_ones_are_compared_and_the_same_one_again_changes_nothing() -> None:
    shares = Shares()
    shares.share(report(110.0, 5.0), 100.0)
    assert shares.share(report(115.0, 10.0), 100.0) == 1.0
    assert shares.share(report(115.0, 10.0), 100.0) == 1.0
    assert shares.share(report(116.0, 9.0), 100.0) == 0.0, "a container that was replaced"


def test_a_report_from_before_the_start_says_nothing() -> None:
    assert Shares().share(report(99.0, 5.0), 100.0) == 0.0
