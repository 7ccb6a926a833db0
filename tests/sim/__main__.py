"""`python -m tests.sim --seeds N`: play N histories; `--seed S` replays one and tells its story."""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from tests.sim.history import STEPS_PER_HISTORY, Outcome, play


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many histories (default 100)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--seed", type=int, help="replay this one and print what happened")
    parser.add_argument("--steps", type=int, default=STEPS_PER_HISTORY, help="steps of each history")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--keep-going", action="store_true", help="go on after a failure")
    options = parser.parse_args()
    if options.seed is not None:
        outcome = play(options.seed, options.steps)
        print(outcome.story() if outcome.error else "\n".join(outcome.log))
        print(f"{outcome.commits} commits in {outcome.seconds:.0f} virtual seconds")
        return 1 if outcome.error else 0
    return _many(options)


def _many(options: argparse.Namespace) -> int:
    seeds = range(options.first, options.first + options.seeds)
    started, commits, failed = time.perf_counter(), 0, 0
    work = partial(play, steps=options.steps)
    if options.jobs > 1:
        with ProcessPoolExecutor(options.jobs) as pool:
            outcomes = list(pool.map(partial(_packed, options.steps), seeds, chunksize=4))
    else:
        outcomes = map(work, seeds)
    for outcome in outcomes:
        commits += outcome.commits
        if outcome.error is not None:
            failed += 1
            print(outcome.story() if not options.keep_going else f"seed {outcome.seed}: {outcome.error}")
            if not options.keep_going:
                return 1
    seconds = time.perf_counter() - started
    print(f"{options.seeds} histories, {commits} commits, {failed} failed, {seconds:.1f} s")
    return 1 if failed else 0


def _packed(steps: int, seed: int) -> Outcome:
    """An outcome that can travel between processes: its error as plain text."""
    outcome = play(seed, steps)
    if outcome.error is not None:
        outcome.error = AssertionError(f"{type(outcome.error).__name__}: {outcome.error}")
    return outcome


if __name__ == "__main__":
    sys.exit(main())
