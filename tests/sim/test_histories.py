"""Random histories of the simulated cluster, and the proof that they find bugs.

More of them: `python -m tests.sim --seeds 100000`, `python -m tests.sim.mutants`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sim.history import play
from tests.sim.mutants import MUTANTS, hunt
from tests.sim.pool import Pool

HISTORIES = 3_000
"""In CI, besides the few of the fast tests."""


@pytest.mark.parametrize("first", range(0, 9, 3))
def test_histories_keep_the_promises(first: int) -> None:
    for seed in range(first, first + 3):
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


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool() as pool:
        yield pool


@pytest.mark.sim
@pytest.mark.parametrize("first", range(100, 100 + HISTORIES, 500))
def test_many_histories(pool: Pool, first: int) -> None:
    for outcome in pool.play(range(first, first + 500)):
        assert outcome.error is None, outcome.story()


@pytest.mark.sim
def test_every_bug_is_found(pool: Pool) -> None:
    """None of the bugs of `tests.sim.mutants`, patched in one at a time, survives 150 histories."""
    hunts = pool.hunt(MUTANTS, range(150))
    assert [name for name, found in hunts.items() if found.result() is None] == []
