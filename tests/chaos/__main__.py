"""`python -m tests.chaos --seed N --duration SECONDS`: faults on a real cluster, then the judgement; as root.

CHAOS=1h in the environment (or --for 1h) plays one seed after the other, two minutes each, until the time is up.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from pathlib import Path

from tests.chaos.run import Outcome, run

EACH = 120.0
"""Seconds of faults per seed where --duration does not say."""


def seconds(text: str) -> float:
    """`90`, `90s`, `5m`, `1h`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write it as 90s, 5m or 1h")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--seed", type=int, default=1, help="the (first) seed (default 1)")
    parser.add_argument("--duration", type=seconds, help="how long each seed's faults last (default 120s)")
    parser.add_argument("--for", dest="budget", type=seconds, help="go on with further seeds for so long")
    parser.add_argument(
        "--logs", type=Path, default=Path("/tmp/pyswarm-chaos"), help="where logs of failures go"
    )
    options = parser.parse_args()
    budget = options.budget if options.budget is not None else seconds(os.environ.get("CHAOS") or "0")
    end = time.monotonic() + budget
    failed, seed = 0, options.seed
    while True:
        outcome = run(seed, options.duration or EACH, logs=options.logs, show=True)
        failed += _tell(outcome)
        seed += 1
        if time.monotonic() >= end:
            return 1 if failed else 0


def _tell(outcome: Outcome) -> int:
    """1 if it failed."""
    if outcome.error is not None:
        print(f"\nFAILED\n{outcome.story()}\n", flush=True)
        return 1
    print(f"seed {outcome.seed}: all is as it should be\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
