"""Which faults happen when: a seed's plan. Pure.

A fault begins at some second of the run, lasts for a while and then ends; the next may begin before it has ended.
What it hits is named by role (`leader`: the manager that leads then) or by machine, so that the plan does not depend
on how the cluster behaves.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "kill", "pause", "split", "isolate", "one way", "loss", "delay", "full disk", "clock", "power cut"
]
LEADER = "leader"
PARTS = ("manager", "etcd", "agent", "supervisor", "conmon", "container")
"""What can be killed. The agent and the manager start the supervisor again, it starts them, the manager etcd."""
PAUSED = ("manager", "etcd", "agent", "conmon")
QUIET_START, QUIET_END = 2.0, 4.0
"""Seconds of the run in which no fault begins."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. Times in seconds since the run began."""

    at: float
    lasts: float
    """0: over at once."""
    kind: Kind
    machine: str
    """Name, or LEADER."""
    part: str = ""
    """Of `kill` and `pause`: which process."""
    others: tuple[str, ...] = ()
    """Of partitions and loss: the other side."""
    amount: int = 0
    """Per cent of packets lost, milliseconds of delay, or seconds that the clock is off."""

    def __str__(self) -> str:
        words: list[str] = [self.kind, f"the {self.part} of {self.machine}" if self.part else self.machine]
        if self.others:
            words.append(f"against {', '.join(self.others)}")
        if self.amount:
            words.append(f"by {self.amount:+d}" if self.kind == "clock" else f"by {self.amount}")
        return " ".join(words) + (f" for {self.lasts:.1f} s" if self.lasts else "")


def plan(
    seed: int, duration: float, managers: Sequence[str], workers: Sequence[str], disks: Sequence[str]
) -> tuple[Fault, ...]:
    """The faults of a run, in order of their begin. `disks` are the machines whose disk may be filled."""
    chance = random.Random(seed)
    chooser = _Chooser(chance, tuple(managers), tuple(workers), tuple(disks))
    faults: list[Fault] = []
    now = QUIET_START
    while now < duration - QUIET_END:
        fault = chooser.fault(now)
        lasts = min(fault.lasts, duration - now)
        faults.append(Fault(now, lasts, fault.kind, fault.machine, fault.part, fault.others, fault.amount))
        now += chance.uniform(0.3, 2.0) + (lasts if chance.random() < 0.75 else 0.0)
    return tuple(faults)


class _Chooser:
    def __init__(
        self,
        chance: random.Random,
        managers: tuple[str, ...],
        workers: tuple[str, ...],
        disks: tuple[str, ...],
    ) -> None:
        self._chance = chance
        self._managers = managers
        self._machines = (*managers, *workers)
        self._disks = disks
        self._kinds: tuple[tuple[Kind, int], ...] = (
            ("kill", 8),
            ("pause", 4),
            ("isolate", 3),
            ("split", 2),
            ("one way", 2),
            ("loss", 2),
            ("delay", 1),
            ("clock", 2),
            ("full disk", 2 if disks else 0),
            ("power cut", 2),
        )

    def fault(self, at: float) -> Fault:
        kinds, weights = zip(*self._kinds, strict=True)
        kind: Kind = self._chance.choices(kinds, weights)[0]
        lasts = round(self._chance.choice((0.5, 1.5, 3.0, 6.0)) * self._chance.uniform(0.7, 1.3), 2)
        match kind:
            case "kill":
                part = self._chance.choice(PARTS)
                return Fault(at, 0.0, kind, self._host_of(part), part)
            case "pause":
                part = self._chance.choice(PAUSED)
                return Fault(at, lasts, kind, self._host_of(part), part)
            case "isolate":
                return Fault(at, lasts, kind, self._any())
            case "split":
                side = tuple(sorted(self._chance.sample(self._machines, len(self._machines) // 2)))
                return Fault(at, lasts, kind, side[0], others=side[1:])
            case "one way" | "loss" | "delay":
                one, other = self._chance.sample(self._machines, 2)
                amount = {"loss": self._chance.choice((5, 20, 50)), "delay": 100}.get(kind, 0)
                return Fault(at, lasts, kind, one, others=(other,), amount=amount)
            case "clock":
                amount = self._chance.choice((-120, -20, 20, 120))
                return Fault(at, max(lasts, 3.0), kind, self._any(), amount=amount)
            case "full disk":
                return Fault(at, lasts, kind, self._chance.choice(self._disks))
            case "power cut":
                return Fault(at, lasts, kind, self._any())

    def _host_of(self, part: str) -> str:
        """A machine that has such a process; the leader twice as often as chance would have it."""
        if part in ("manager", "etcd"):
            return self._chance.choice((LEADER, *self._managers))
        return self._chance.choice(self._machines)

    def _any(self) -> str:
        return self._chance.choice((LEADER, *self._machines))
