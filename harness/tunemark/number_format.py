"""Formatting of numbers for display: SI values to text in the scale of a unit, "-" for an unknown value.

The text is never parsed again."""

from __future__ import annotations

GIB = 1 << 30


def format_number(value: float | None, spec: str, scale: float = 1.0) -> str:
    """`value` times `scale` by a format specification, such as ".1f"."""
    return "-" if value is None else format(value * scale, spec)


def format_significant(value: float | None, digits: int = 4) -> str:
    """`value` with that many significant digits, never in exponent form."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    decimals = digits - 1
    size = abs(value)
    while size >= 10 and decimals > 0:
        size, decimals = size / 10, decimals - 1
    while size < 1 and decimals < 12:
        size, decimals = size * 10, decimals + 1
    return f"{value:,.{decimals}f}"


def format_percent(fraction: float | None, spec: str = ".1f") -> str:
    """A fraction as a number of percent, without the sign, for tables."""
    return format_number(fraction, spec, 100)


def percent_text(fraction: float) -> str:
    """A fraction in percent with up to three digits and the sign: 2.5 %."""
    return f"{100 * fraction:.3g} %"


def format_gib(value_bytes: float | None) -> str:
    """Bytes as a number of GiB (2^30 bytes), without the unit, for tables."""
    return "-" if value_bytes is None else format_significant(value_bytes / GIB)


def format_giga(value: float) -> str:
    """A count as a number of 10^9, without the unit, for tables."""
    return format_significant(value / 1e9)


def format_duration(seconds: float) -> str:
    """Seconds in the unit in which they are said: 40 s, 12 min, 3.5 h, 2.1 days."""
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{format_significant(seconds / size, 2)} {unit}"
    return f"{format_significant(seconds, 2)} s"
