"""`python -m tests.sim --seeds N`: play N histories; `--seed S` replays one and tells its story."""

from __future__ import annotations

import argparse
import sys
import time

from tests.sim.history import STEPS_PER_HISTORY, play
from tests.sim.pool import Pool


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many histories (default 100)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--seed", type=int, help="replay this one and print what happened")
    parser.add_argument("--steps", type=int, default=STEPS_PER_HISTORY, help="steps of each history")
    parser.add_argument("--jobs", type=int, help="processes (default: one for each core)")
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
    with Pool(options.jobs) as pool:
        for outcome in pool.play(seeds, options.steps):
            commits += outcome.commits
            if outcome.error is None:
                continue
            failed += 1
            print(outcome.story() if not options.keep_going else f"seed {outcome.seed}: {outcome.error}")
            if not options.keep_going:
                return 1
    seconds = time.perf_counter() - started
    print(f"{options.seeds} histories, {commits} commits, {failed} failed, {seconds:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
