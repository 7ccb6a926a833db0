"""Is a history linearizable? The search of Wing and Gong with Lowe's memory, as Porcupine does it. Pure.

A history is what clients saw of one key: operations with the times at which they were called and answered. It is
linearizable if every operation can be given one instant between the two at which it happened, such that the answers
are those that a single copy of the key would have given. An operation without an answer may have happened at any
time after its call, or never.

The search goes through the orders in which that can be: a next operation is any whose call is not later than the
first answer of those that are left. A set of operations done and the state that they led to is tried once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

StateT = TypeVar("StateT", bound=Hashable)
NEVER = math.inf


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of one client. Times are of one clock, in seconds."""

    client: str
    action: Any
    """What was asked, as the model understands it. Any: each model has its own."""
    answer: Any
    """What came back; of no meaning when nothing did."""
    called: float
    answered: float = NEVER

    @property
    def pending(self) -> bool:
        """Whether there was no answer: it may have happened or not."""
        return self.answered == NEVER

    def __str__(self) -> str:
        until = "?" if self.pending else f"{self.answered:.3f}"
        answer = "no answer" if self.pending else f"{self.answer}"
        return f"{self.called:9.3f} .. {until:>9}  {self.client:10} {self.action} -> {answer}"


@dataclass(frozen=True, slots=True)
class Model(Generic[StateT]):
    """A single copy of the key."""

    initial: StateT
    step: Callable[[StateT, Operation], StateT | None]
    """The state after the operation, or None if this state would not have answered so. Never called for an
    operation without an answer: that is what `effect` is for."""
    effect: Callable[[StateT, Operation], StateT]
    """The state after an operation whose answer nobody knows."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the search found. `placed` is the longest order of operations that made sense; if the history is not
    linearizable, `stuck` are those of which one had to come next, and none could, in the state `state`."""

    linearizable: bool
    placed: tuple[Operation, ...]
    stuck: tuple[Operation, ...] = ()
    state: Hashable = None

    def __str__(self) -> str:
        if self.linearizable:
            return f"linearizable: {len(self.placed)} operations"
        lines = ["not linearizable. The last operations that can be put in order:"]
        lines += [f"    {operation}" for operation in self.placed[-8:]]
        lines += [f"then the state is {self.state}, and none of these can come next:"]
        lines += [f"    {operation}" for operation in self.stuck]
        return "\n".join(lines)


def check(history: Iterable[Operation], model: Model[StateT]) -> Verdict:
    """Whether one key's history is linearizable. Takes time linear in its length as long as few operations overlap
    and few have no answer."""
    operations = sorted(history, key=lambda operation: (operation.called, operation.answered))
    return _Search(operations, model).run()


class _Search(Generic[StateT]):
    """Depth first over (operations done, state). `_done` is a bit set over the operations in order of their calls."""

    def __init__(self, operations: Sequence[Operation], model: Model[StateT]) -> None:
        self._operations = operations
        self._model = model
        self._answered = sum(1 << i for i, operation in enumerate(operations) if not operation.pending)
        self._seen: set[tuple[int, StateT]] = set()

    def run(self) -> Verdict:
        done, state = 0, self._model.initial
        path: list[tuple[int, int, StateT]] = []
        """(operation, what was done before it, the state before it)."""
        best: tuple[list[int], int, StateT] = ([], 0, state)
        tries = [iter(self._next(done, state))]
        while self._answered & ~done:
            following = next(tries[-1], None)
            if following is None:
                tries.pop()
                if not tries:
                    return self._refuted(*best)
                _, done, state = path.pop()
                continue
            index, after = following
            if (done | 1 << index, after) in self._seen:
                continue
            path.append((index, done, state))
            done, state = done | 1 << index, after
            self._seen.add((done, state))
            tries.append(iter(self._next(done, state)))
            if len(path) > len(best[0]):
                best = ([i for i, _, _ in path], done, state)
        return Verdict(True, tuple(self._operations[i] for i, _, _ in path))

    def _next(self, done: int, state: StateT) -> Iterable[tuple[int, StateT]]:
        """The operations that may come next, each with the state after it."""
        for index in self._candidates(done):
            operation = self._operations[index]
            if operation.pending:
                after = self._model.effect(state, operation)
                if after != state:  # without an effect it may as well never have happened
                    yield index, after
            elif (answered := self._model.step(state, operation)) is not None:
                yield index, answered

    def _candidates(self, done: int) -> list[int]:
        """Those that were called before any of the remaining was answered."""
        found: list[int] = []
        first_answer = NEVER
        index = _lowest_clear(done)
        while index < len(self._operations):
            operation = self._operations[index]
            if operation.called > first_answer:
                break
            if not done >> index & 1:
                found.append(index)
                first_answer = min(first_answer, operation.answered)
            index += 1
        return [i for i in found if self._operations[i].called <= first_answer]

    def _refuted(self, placed: Sequence[int], done: int, state: StateT) -> Verdict:
        return Verdict(
            False,
            tuple(self._operations[i] for i in placed),
            tuple(self._operations[i] for i in self._candidates(done)),
            state,
        )


def _lowest_clear(bits: int) -> int:
    """The position of the lowest bit that is not set."""
    return (~bits & (bits + 1)).bit_length() - 1
