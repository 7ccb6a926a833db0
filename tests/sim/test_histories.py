"""Random histories of the simulated cluster, and the proof that they find bugs.

More of them: `python -m tests.sim --seeds 100000`, `python -m tests.sim.mutants`.
"""

from __future__ import annotations

import pytest

from tests.sim.history import play
from tests.sim.mutants import MUTANTS, hunt


@pytest.mark.parametrize("first", range(0, 20, 5))
def test_histories_keep_the_promises(first: int) -> None:
    for seed in range(first, first + 5):
        outcome = play(seed)
        assert outcome.error is None, outcome.story()
        assert outcome.commits > 10


def test_a_seed_is_one_history() -> None:
    one, other = play(3), play(3)
    assert one.log == other.log
    assert (one.commits, one.seconds) == (other.commits, other.seconds)


def test_a_bug_is_found_and_replays() -> None:
    bug = MUTANTS["running tasks are reaped"]
    found = hunt(bug, range(10))
    assert found is not None
    again = hunt(bug, [found.seed])
    assert again is not None
    assert str(again.error) == str(found.error)
    assert f"--seed {found.seed}" in found.story()


@pytest.mark.sim
@pytest.mark.parametrize("first", range(100, 1100, 100))
def test_many_histories(first: int) -> None:
    for seed in range(first, first + 100):
        outcome = play(seed)
        assert outcome.error is None, outcome.story()


@pytest.mark.sim
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", list(MUTANTS))
def test_every_bug_is_found(name: str) -> None:
    assert hunt(MUTANTS[name], range(150)) is not None
