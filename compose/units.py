"""Durations, sizes and numbers in the spellings that Compose takes and prints (those of Go)."""

from __future__ import annotations

import re

_DURATION_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h|d|w)")
_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
    "w": 604_800_000_000_000,
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?b)?", re.IGNORECASE)
_LONGEST = 64
"""Numbers of more characters are no amounts of anything; Python would refuse them in its own way."""
_FACTORS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}


def parse_duration(text: str) -> int | None:
    """Nanoseconds of `1h30m`, `1.5s`, `2d`; None when it is not a duration."""
    if len(text) > _LONGEST:
        return None
    sign = 1
    rest = text
    if rest[:1] in ("+", "-"):
        sign = -1 if rest[0] == "-" else 1
        rest = rest[1:]
    if rest == "0":
        return 0
    total = 0
    at = 0
    while at < len(rest):
        part = _DURATION_PART.match(rest, at)
        if part is None:
            return None
        total += _scaled(part.group(1), _NANOSECONDS[part.group(2)])
        at = part.end()
    if not rest or total >= 2**63:
        return None
    return sign * total


def _scaled(number: str, unit: int) -> int:
    whole, _, fraction = number.partition(".")
    value = int(whole or "0") * unit
    if fraction:
        fraction = fraction[:18]
        value += int(fraction) * unit // 10 ** len(fraction)
    return value


def format_duration(nanoseconds: int) -> str:
    """As Go prints it: `1h30m0s`, `1m0s`, `1.5s`, `500ms`, `0s`."""
    if nanoseconds == 0:
        return "0s"
    sign = "-" if nanoseconds < 0 else ""
    rest = abs(nanoseconds)
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if rest < size * 1_000:
            return f"{sign}{_decimal(rest, size)}{unit}"
    minutes, rest = divmod(rest, _NANOSECONDS["m"])
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(rest, 1_000_000_000)}s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    if hours:
        text = f"{hours}h{text}"
    return sign + text


def _decimal(value: int, unit: int) -> str:
    whole, fraction = divmod(value, unit)
    if not fraction:
        return str(whole)
    digits = str(fraction).rjust(len(str(unit)) - 1, "0").rstrip("0")
    return f"{whole}.{digits}"


def parse_size(text: str) -> int | None:
    """Bytes of `64m`, `1.5gb`, `1024`, `-1`; powers of 1024; None when it is not a size."""
    if len(text) > _LONGEST:
        return None
    if re.fullmatch(r"-\d+", text):
        return int(text)
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        return None
    number, unit, _ = match.groups()
    factor = _FACTORS[unit.lower()]
    return int(number) * factor if "." not in number else int(float(number) * factor)


def parse_integer(text: str) -> int | None:
    """A whole number in base 10."""
    return int(text) if re.fullmatch(r"[-+]?\d{1,30}", text) else None


def parse_float(text: str) -> float | None:
    """A decimal number."""
    if not re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?", text):
        return None
    return float(text)


def number_text(value: int | float) -> str:
    """A number as Go's %v prints it: 1.5, 1, 100000, 1e+06, 1e-05."""
    if isinstance(value, int):
        return str(value)
    if value != value or value in (float("inf"), float("-inf")):
        return {"inf": "+Inf", "-inf": "-Inf"}.get(str(value), "NaN")
    if not value:
        return "0"
    digits, power = _shortest(abs(value))
    sign = "-" if value < 0 else ""
    if power < -4 or power >= 6:
        fraction = f".{digits[1:]}" if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{fraction}e{'-' if power < 0 else '+'}{abs(power):02d}"
    if power < 0:
        return f"{sign}0.{'0' * (-power - 1)}{digits}"
    digits = digits.ljust(power + 1, "0")
    whole, fraction = digits[: power + 1], digits[power + 1 :]
    return f"{sign}{whole}.{fraction}" if fraction else f"{sign}{whole}"


def _shortest(value: float) -> tuple[str, int]:
    """The fewest significant digits that name `value`, and the power of ten of the first."""
    mantissa, _, exponent = repr(value).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = whole + fraction
    power = len(whole) - 1 + int(exponent or "0")
    stripped = digits.lstrip("0")
    power -= len(digits) - len(stripped)
    return stripped.rstrip("0") or "0", power
