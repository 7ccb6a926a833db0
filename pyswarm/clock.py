"""Time, identifiers and chance: the only module that asks the machine for them.

Everything else takes a `Clock` or an `IdSource`, so that tests and the simulation decide what time it is.
"""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime
from typing import Protocol

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
ID_LENGTH = 25
"""Identifiers have SwarmKit's form: 25 characters of base 36, over 128 bits of chance."""


class Clock(Protocol):
    """Where the present comes from."""

    def now(self) -> float:
        """Unix time in seconds. May step; use for what is stored or shown."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary start, never going back; use for deadlines in one process."""
        ...


class IdSource(Protocol):
    """Where new identifiers come from."""

    def new_id(self) -> str:
        """A fresh identifier of `ID_LENGTH` characters of `[0-9a-z]`."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


class RandomIds:
    """Identifiers from the operating system's entropy."""

    def __init__(self) -> None:
        self._random = random.SystemRandom()

    def new_id(self) -> str:
        return encode_id(self._random.getrandbits(128))


class SeededIds:
    """Reproducible identifiers for tests and the simulation."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)

    def new_id(self) -> str:
        return encode_id(self._random.getrandbits(128))


def encode_id(number: int) -> str:
    """`number` (below 2**128) in base 36, padded on the left to `ID_LENGTH` characters."""
    return base36(number, ID_LENGTH)


def base36(number: int, length: int) -> str:
    """`number` (not negative) in digits of `[0-9a-z]`, padded with zeros to at least `length`."""
    digits: list[str] = []
    while number:
        number, digit = divmod(number, 36)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits)).rjust(length, "0")


def rfc3339(seconds: float) -> str:
    """Unix seconds as the Engine API writes time: UTC with nanosecond digits; zero time for 0."""
    if not seconds:
        return "0001-01-01T00:00:00Z"
    return rfc3339_nanos(round(seconds * 1_000_000) * 1000)


def rfc3339_nanos(nanos: int) -> str:
    """Unix nanoseconds in the same form."""
    whole, rest = divmod(nanos, 1_000_000_000)
    return datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{rest:09d}Z"
