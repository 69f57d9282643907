"""Parses numbers as other tools print them, without guessing: ambiguous ones are not read.

Handles Python's format, thousands separators (comma, point, blank, apostrophe, underscore), the decimal comma, nan and
inf. A single comma before exactly three digits is ambiguous; the caller says which of the two its tool prints.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Literal

_PLAIN = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_SPECIAL = re.compile(r"[+-]?(?:nan|inf(?:inity)?)", re.I)
# The same separator between groups of three digits, and perhaps the other sign before the decimals.
_GROUPED = re.compile(
    r"([+-]?)([1-9][0-9]{0,2}(?:([,.'_\u2019\u00a0\u2009\u202f ])[0-9]{3})(?:\3[0-9]{3})*)(?:([.,])([0-9]+))?"
)
_DECIMAL_COMMA = re.compile(r"([+-]?[0-9]*),([0-9]+)((?:[eE][+-]?[0-9]+)?)")
_MAX_CHARACTERS = 64

FIGURE = (
    r"(?:[+-]?(?:[0-9](?:[0-9.,'_\u2019\u00a0\u2009\u202f]*[0-9])?\.?|[.,][0-9]+)(?:[eE][+-]?[0-9]+)?"
    r"|[+-]?(?:nan|NaN|NAN|inf|Inf|INF|Infinity))"
)
"""A pattern for a possible number, for use inside others; `number` may still reject the match."""

_SECONDS = {
    **dict.fromkeys(("ns", "nanoseconds"), 1e-9),
    **dict.fromkeys(("us", "µs", "μs", "microseconds"), 1e-6),
    **dict.fromkeys(("ms", "msec", "millisecond", "milliseconds"), 1e-3),
    **dict.fromkeys(("", "s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600.0),
}
_COUNTS = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12}
_BYTES = {
    **{f"{scale}B": _COUNTS[scale.replace("k", "K")] for scale in ("", "k", "K", "M", "G", "T")},
    **{f"{scale}iB": 1024.0**power for power, scale in enumerate("KMGT", 1)},
}


def parse_number(text: str, three: Literal["thousands", "decimals"] | None = "thousands") -> float | None:
    """The number that the whole `text` spells; None if it is not a number or ambiguous.

    three: what follows a single comma with exactly three digits; None rejects it. A point there is never a thousands
    separator, because every tool writes decimals that way.
    """
    text = text.strip().replace("\u2212", "-")
    if not text or len(text) > _MAX_CHARACTERS:
        return None
    if _SPECIAL.fullmatch(text):
        return float(text)
    if _PLAIN.fullmatch(text):
        return _finite(text)
    if match := _GROUPED.fullmatch(text):
        sign, whole, separator, mark, decimals = match.groups()
        if mark == separator:
            return None
        if separator == "," and mark is None and whole.count(",") == 1:
            if three is None:
                return None
            if three == "decimals":
                return _finite(sign + whole.replace(",", "."))
        return _finite(sign + re.sub(r"[^0-9]", "", whole) + (f".{decimals}" if decimals else ""))
    if match := _DECIMAL_COMMA.fullmatch(text):
        whole, decimals, exponent = match.groups()
        return _finite(f"{whole}.{decimals}{exponent}")
    return None


def _finite(text: str) -> float | None:
    """None if the number is too large for a float, which would be read as infinity."""
    value = float(text)
    return value if math.isfinite(value) else None


def parse_integer(text: str) -> int | None:
    """The number in `text` if it is an integer below 10^15 in magnitude, else None."""
    value = parse_number(text)
    return int(value) if value is not None and abs(value) < 1e15 and value.is_integer() else None


def multiply_exactly(value: float, factor: float) -> float:
    """The product in decimal arithmetic, so that 820 ms is exactly 0.82 s."""
    return float(Decimal(repr(value)) * Decimal(repr(factor)))


def parse_seconds(text: str, unit: str) -> float | None:
    """A duration in seconds; unit: as printed, '' for seconds. None if number or unit cannot be read."""
    value, scale = parse_number(text), _SECONDS.get(unit.strip().rstrip("."))
    return None if value is None or scale is None else multiply_exactly(value, scale)


def parse_count(text: str, scale: str = "") -> float | None:
    """A number with the suffix K, M, G, B or T, as in 48.9K tokens."""
    value, factor = parse_number(text), _COUNTS.get(scale.strip())
    return None if value is None or factor is None else multiply_exactly(value, factor)


def parse_bytes(text: str, unit: str) -> float | None:
    """A size in bytes; GB is 10^9, GiB is 2^30."""
    value, factor = parse_number(text), _BYTES.get(unit.strip())
    return None if value is None or factor is None else multiply_exactly(value, factor)


def parse_clock(text: str) -> float | None:
    """Seconds of 12:34, 0:12:34.56, or 1 day, 0:12:34.56 as Python prints a timedelta."""
    match = re.fullmatch(
        r"(?:([0-9]{1,6}) days?, )?(?:([0-9]{1,9}):)?([0-5]?[0-9]):([0-5][0-9](?:[.,][0-9]+)?)", text.strip()
    )
    if not match:
        return None
    days, hours, minutes, rest = match.groups()
    return int(days or 0) * 86400.0 + int(hours or 0) * 3600.0 + int(minutes) * 60.0 + float(rest.replace(",", "."))
