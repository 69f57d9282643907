"""Formatting of numbers for display: SI values to text in the scale of a unit. The text is never parsed again."""

from __future__ import annotations

GIB = 1 << 30


def format_significant(value: float, digits: int = 4) -> str:
    """`value` with that many significant digits, never in exponent form."""
    if value == 0:
        return "0"
    decimals = digits - 1
    size = abs(value)
    while size >= 10 and decimals > 0:
        size, decimals = size / 10, decimals - 1
    while size < 1 and decimals < 12:
        size, decimals = size * 10, decimals + 1
    return f"{value:,.{decimals}f}"


def format_gib(value_bytes: float) -> str:
    """Bytes as a number of GiB (2^30 bytes), without the unit, for tables."""
    return format_significant(value_bytes / GIB)


def format_giga(value: float) -> str:
    """A count as a number of 10^9, without the unit, for tables."""
    return format_significant(value / 1e9)
