"""One history: a seed becomes steps of users and fate, then the faults end and the cluster must converge."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field, replace

from pyswarm.objects import Node
from tests.sim import clock
from tests.sim.cluster import SimCluster
from tests.sim.faults import STEPS
from tests.sim.invariants import Violated, check_converged

STEPS_PER_HISTORY = 25
PATIENCE = 900.0
"""Virtual seconds in which a cluster without faults must get where it should be."""
LOOK = 17.0
"""Virtual seconds between two looks; no multiple of it is a minute, or each look could meet a cron job as it starts."""


@dataclass(slots=True)
class Outcome:
    """What came of a history."""

    seed: int
    commits: int = 0
    seconds: float = 0.0
    """Virtual."""
    error: BaseException | None = None
    log: list[str] = field(default_factory=list[str])

    def story(self) -> str:
        """What happened, for a person: the log and the violation."""
        lines = [f"seed {self.seed}: replay with `python -m tests.sim --seed {self.seed}`", *self.log]
        return "\n".join([*lines, f"{type(self.error).__name__}: {self.error}"])


def play(seed: int, steps: int = STEPS_PER_HISTORY) -> Outcome:
    """Play the history of this seed, the same each time."""
    outcome = Outcome(seed)
    logging.getLogger("manager").setLevel(logging.CRITICAL)
    try:
        clock.run(_history(outcome, steps))
    except (AssertionError, Exception) as error:
        outcome.error = error
    return outcome


async def _history(outcome: Outcome, steps: int) -> None:
    sim = SimCluster(outcome.seed)
    outcome.log = sim.log
    try:
        await sim.start()
        await asyncio.sleep(2.0)
        weights = [weight for weight, _ in STEPS]
        for _ in range(steps):
            (_, step), *_ = sim.rng.choices(STEPS, weights)
            await step(sim)
            sim.raise_errors()
            await asyncio.sleep(sim.rng.choice((0.0, 0.3, 2.0, 10.0, 30.0)))
            sim.raise_errors()
        await _converge(sim)
    finally:
        outcome.commits = sim.server.commits
        outcome.seconds = asyncio.get_running_loop().time()
        await sim.stop()


async def _converge(sim: SimCluster) -> None:
    """The faults end, all nodes are active again: everything must settle, and stay so."""
    await asyncio.sleep(1.0)
    sim.calm()
    sim.say("the faults end")
    for node_id in sorted(sim.agents):
        await sim.submit(lambda tx, id=node_id: _activate(tx, id))
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while True:
        await asyncio.sleep(LOOK)
        sim.raise_errors()
        try:
            check_converged(sim.server.world)
            sim.check_nothing_left()
            return
        except Violated:
            if asyncio.get_running_loop().time() > deadline:
                raise


def _activate(tx: object, node_id: str) -> None:
    node = tx.view.get(Node, node_id)  # type: ignore[attr-defined]
    if node is not None and node.spec.availability != "active":
        tx.put(replace(node, spec=replace(node.spec, availability="active")))  # type: ignore[attr-defined]
