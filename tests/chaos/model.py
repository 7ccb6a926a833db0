"""One named object as a single copy would be: what its clients may be told. Pure.

The state is the object's value, "" while there is no object. Values are never used twice, so a write that was made
from a value is a compare-and-set on it.

A service that was removed lingers until its containers have ended: it is gone for those who read, but its name is not
free and removing it again is no error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tests.chaos.linear import Model, Operation

Value = str


@dataclass(frozen=True, slots=True)
class Create:
    """Answered `done`; `refused` since there is one of that name; `gone`: there was, and its name is not free yet."""

    value: Value

    def __str__(self) -> str:
        return f"create {self.value}"


@dataclass(frozen=True, slots=True)
class Change:
    """Write over what was read. Answered `done`; `gone`: that very object is, though there may be another of its
    name; or `refused`: it was changed since, be it by the cluster itself (how an update goes on is written into the
    service), so a refusal says nothing about the value."""

    read: Value
    value: Value

    def __str__(self) -> str:
        return f"change {self.read} to {self.value}"


@dataclass(frozen=True, slots=True)
class Remove:
    """Answered `done` or `gone`."""

    def __str__(self) -> str:
        return "remove"


@dataclass(frozen=True, slots=True)
class Read:
    """Answered with the value, or None."""

    def __str__(self) -> str:
        return "read"


Action = Create | Change | Remove | Read
Outcome = Literal["done", "refused", "gone"]


def step(state: Value, operation: Operation) -> Value | None:
    """See Model; "" is the state without an object."""
    answer: Outcome | Value | None = operation.answer
    match operation.action, answer:
        case Create(value), "done" if not state:
            return value
        case Create(), "refused" if state:
            return state
        case Change(read, value), "done" if state == read:
            return value
        case Change(), "refused" if state:
            return state
        case Change(read), "gone" if state != read:
            return state
        case Remove(), "gone" if not state:
            return state
        case Remove(), "done" if state:
            return ""
        case Read(), value if (value or "") == state:
            return state
        case _:
            return None


def effect(state: Value, operation: Operation) -> Value:
    """What an operation without an answer does if it happens in this state."""
    match operation.action:
        case Create(value) if not state:
            return value
        case Change(read, value) if state == read:
            return value
        case Remove():
            return ""
        case _:
            return state


def lingering_step(state: Value, operation: Operation) -> Value | None:
    """The same for an object that lingers after its removal."""
    match operation.action, operation.answer:
        case (Create(), "gone") | (Change(), "refused") | (Remove(), "done") if not state:
            return state
        case _:
            return step(state, operation)


OBJECT: Model[Value] = Model("", step, effect)
"""A named object that does not exist at first."""
LINGERING: Model[Value] = Model("", lingering_step, effect)
"""The same for a service or a network."""
