"""Formatting of estimates and ratios to the digits that their interval supports; "-" for an unknown one."""

from __future__ import annotations

import math

from tunemark.number_format import format_significant
from tunemark.results.ratio import Ratio
from tunemark.results.result import Estimate

# Half-width over value from which on two digits are enough, and both bounds are shown: they are visibly asymmetric.
_WIDE = 0.25


def round_to_interval(estimate: Estimate) -> tuple[str, str | None]:
    """(value, half-width): the half-width with two digits, the value to the same decimal; None without an interval."""
    half = half_width(estimate)
    if half is None or half <= 0:
        return format_significant(estimate.value, 3 if half is None else 6), None if half is None else "0"
    place = math.floor(math.log10(half)) - 1
    decimals = max(0, -place)
    return f"{round(estimate.value, -place):,.{decimals}f}", f"{round(half, -place):,.{decimals}f}"


def half_width(estimate: Estimate) -> float | None:
    if estimate.low is None or estimate.high is None:
        return None
    return (estimate.high - estimate.low) / 2


def format_estimate(
    estimate: Estimate | None, *, percent: bool = False, no_interval: str = "(no interval)", to: str = "to"
) -> str:
    """The value with its half-width, in percent if requested; with both bounds where the interval is wide.

    no_interval, to: these texts in the reader's language."""
    if estimate is None:
        return "-"
    value, half = round_to_interval(estimate)
    width = half_width(estimate)
    if half is None or width is None or estimate.low is None or estimate.high is None:
        return f"{value} {no_interval}"
    if width > _WIDE * estimate.value:
        low, high = format_significant(estimate.low, 2), format_significant(estimate.high, 2)
        return f"{format_significant(estimate.value, 2)} ({low} {to} {high})"
    return f"{value} ± {format_significant(100 * width / estimate.value, 2)} %" if percent else f"{value} ± {half}"


def format_ratio(ratio: Ratio | None) -> str:
    """A ratio with both bounds: 1.034 (1.012 to 1.057)."""
    if ratio is None:
        return "-"
    if ratio.low is None or ratio.high is None:
        return f"{format_significant(ratio.value, 3)} (no interval)"
    half = (ratio.high - ratio.low) / 2
    if half > _WIDE * ratio.value:
        value, low, high = (format_significant(x, 2) for x in (ratio.value, ratio.low, ratio.high))
        return f"{value} ({low} to {high})"
    # A width below a millionth is rounding.
    decimals = max(0, 1 - math.floor(math.log10(half))) if half > 1e-6 else 4
    value, low, high = (f"{x:,.{decimals}f}" for x in (ratio.value, ratio.low, ratio.high))
    return f"{value} ({low} to {high})"
