"""A short storm of faults on a cluster of five machines; `make chaos` plays longer ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.run import run

pytestmark = [pytest.mark.e2e, pytest.mark.root]


@pytest.mark.timeout(600)
def test_nothing_is_lost_or_left_in_a_storm(tmp_path: Path) -> None:
    outcome = run(seed=1, duration=40.0, logs=tmp_path)
    print(outcome.story())
    if outcome.error is not None:
        raise outcome.error
    assert outcome.record.acknowledged > 50, "the clients wrote next to nothing: this shows little"
