"""The checker of histories against the definition itself, and on histories that a broken store would give."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import combinations, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.chaos.linear import NEVER, Operation, check
from tests.chaos.model import OBJECT, Action, Change, Create, Read, Remove, effect, step

VALUES = ("a", "b")


def brute_force(history: Sequence[Operation]) -> bool:
    """The definition: some order of all that was answered, and of some of what was not, that keeps to the times and
    to the model."""
    pending = [operation for operation in history if operation.pending]
    answered = [operation for operation in history if not operation.pending]
    for count in range(len(pending) + 1):
        for happened in combinations(pending, count):
            if any(map(_is_legal, permutations([*answered, *happened]))):
                return True
    return False


def _is_legal(order: Sequence[Operation]) -> bool:
    state = ""
    for index, operation in enumerate(order):
        if any(later.answered < operation.called for later in order[index:]):
            return False
        after = effect(state, operation) if operation.pending else step(state, operation)
        if after is None:
            return False
        state = after
    return True


@st.composite
def operations(draw: st.DrawFn) -> Operation:
    action: Action = draw(
        st.one_of(
            st.builds(Create, st.sampled_from(VALUES)),
            st.builds(Change, st.sampled_from(VALUES), st.sampled_from(VALUES)),
            st.just(Remove()),
            st.just(Read()),
        )
    )
    answers = [None, *VALUES] if isinstance(action, Read) else ["done", "refused", "gone"]
    called = draw(st.integers(0, 8))
    answered = draw(st.one_of(st.integers(called, 9), st.just(NEVER)))
    return Operation("client", action, draw(st.sampled_from(answers)), float(called), float(answered))


@settings(max_examples=80, deadline=None)
@given(st.lists(operations(), max_size=5))
def test_the_search_agrees_with_the_definition(history: list[Operation]) -> None:
    verdict = check(history, OBJECT)
    assert verdict.linearizable == brute_force(history)
    if not verdict.linearizable:
        assert verdict.stuck, str(verdict)


# ---------------------------------------------------------------------------------------------- long histories


def played(seed: int, length: int = 120, clients: int = 4, losses: float = 0.1) -> list[Operation]:
    """A history of one true copy: each operation happens at an instant between its call and its answer, and some of
    the answers are lost."""
    chance = random.Random(seed)
    history: list[Operation] = []
    free = [0.0] * clients
    state, known = "", [""] * clients
    now = 0.0
    for number in range(length):
        now += chance.uniform(0.05, 0.5)
        client = chance.randrange(clients)
        called = max(free[client], now - chance.uniform(0, 1.0))
        now = max(now, called)
        action = _action(chance, known[client], f"v{number}")
        answer, state = _happen(state, action)
        if isinstance(action, Read):
            known[client] = answer or ""
        free[client] = now + chance.uniform(0.01, 1.0)
        lost = not isinstance(action, Read) and chance.random() < losses
        history.append(Operation(f"c{client}", action, answer, called, NEVER if lost else free[client]))
    return history


def _action(chance: random.Random, known: str, value: str) -> Action:
    kind = chance.choice(("create", "change", "change", "read", "read", "remove"))
    match kind:
        case "create":
            return Create(value)
        case "change" if known:
            return Change(known, value)
        case "remove":
            return Remove()
        case _:
            return Read()


def _happen(state: str, action: Action) -> tuple[str | None, str]:
    """The answer of a true copy, and its state afterwards."""
    for answer in (state or None,) if isinstance(action, Read) else ("done", "gone", "refused"):
        after = step(state, Operation("", action, answer, 0.0, 0.0))
        if after is not None:
            return answer, after
    raise AssertionError(f"no answer fits {action} in {state!r}")


@pytest.mark.parametrize("seed", range(20))
def test_a_true_copy_is_linearizable(seed: int) -> None:
    verdict = check(played(seed), OBJECT)
    assert verdict.linearizable, str(verdict)


def violations(history: list[Operation]) -> Iterator[tuple[str, list[Operation]]]:
    """The history of a true copy as stores that break a promise would go on with it, one way each: the operations of
    the client `late` do not fit."""
    end = max(o.answered for o in history if not o.pending) + 1
    written = [o.action.value for o in history if isinstance(o.action, Create | Change)]
    changes = [o for o in history if isinstance(o.action, Change) and o.answer == "done"]

    def late(*calls: tuple[Action, str | None]) -> list[Operation]:
        times = [end + 2 * number for number in range(len(calls))]
        return [
            Operation("late", action, answer, at, at + 1)
            for at, (action, answer) in zip(times, calls, strict=True)
        ]

    yield "a value from nowhere", history + late((Read(), "never written"))
    yield "a stale read", history + late((Read(), written[0]))
    for change in changes[-1:]:
        yield "a compare-and-set done twice", history + late((change.action, "done"))
    yield "two who created it", history + late((Create("x"), "done"), (Create("y"), "done"))
    blinking = (Read(), "x"), (Read(), None), (Read(), "x")
    yield "a write that is gone and comes back", history + late(*blinking)
    yield "a removal that did nothing", history + late((Remove(), "done"), (Read(), written[-1]))


@pytest.mark.parametrize("seed", range(20))
def test_broken_promises_are_found(seed: int) -> None:
    for what, broken in violations(played(seed, losses=0.0)):
        verdict = check(broken, OBJECT)
        assert not verdict.linearizable, f"{what}: not found"
        assert {operation.client for operation in verdict.stuck} == {"late"}, f"{what}: {verdict}"


def test_a_thousand_operations_are_no_matter() -> None:
    assert check(played(1, length=1000, clients=6), OBJECT).linearizable


def test_a_verdict_tells_what_went_wrong() -> None:
    history = [
        Operation("w", Create("a"), "done", 0.0, 1.0),
        Operation("r", Read(), None, 2.0, 3.0),
    ]
    told = str(check(history, OBJECT))
    assert "not linearizable" in told
    assert "create a -> done" in told
    assert "then the state is a, and none of these can come next" in told
    assert "read -> None" in told


def test_what_was_read_may_be_gone_and_another_of_its_name_there() -> None:
    history = [
        Operation("w", Create("a"), "done", 0.0, 1.0),
        Operation("w", Remove(), "done", 1.0, 2.0),
        Operation("w", Create("b"), "done", 2.0, 3.0),
        Operation("late", Change("a", "c"), "gone", 4.0, 5.0),
    ]
    assert check(history, OBJECT).linearizable
    assert not check([*history[:1], history[-1]], OBJECT).linearizable, "nobody removed it"
