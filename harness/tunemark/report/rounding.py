"""Numbers with the digits that their interval supports, and names that cannot break a Markdown table."""

from __future__ import annotations

import math
import re

import msgspec

from tunemark.results.result import Estimate
from tunemark.units import significant

# Share of the value from which on a rate's bounds, equally far as ratios, are no longer so as differences.
_FAR = 0.25


def supported(estimate: Estimate) -> tuple[str, str | None]:
    """(value, half-width), the half-width to two digits and the value to the same place; None without an interval."""
    half = half_width(estimate)
    if half is None or half <= 0:
        return significant(estimate.value, 3 if half is None else 6), None if half is None else "0"
    place = math.floor(math.log10(half)) - 1
    decimals = max(0, -place)
    return f"{round(estimate.value, -place):,.{decimals}f}", f"{round(half, -place):,.{decimals}f}"


def half_width(estimate: Estimate) -> float | None:
    if estimate.low is None or estimate.high is None:
        return None
    return (estimate.high - estimate.low) / 2


def plus_minus(estimate: Estimate, *, percent: bool = False, none: str = "(no interval)", to: str = "to") -> str:
    """The value with its half-width, in percent if asked; with both bounds where they lie far and lopsided.

    none, to: these words in the reader's language."""
    value, half = supported(estimate)
    width = half_width(estimate)
    if half is None or width is None or estimate.low is None or estimate.high is None:
        return f"{value} {none}"
    if width > _FAR * estimate.value:
        low, high = significant(estimate.low, 2), significant(estimate.high, 2)
        return f"{significant(estimate.value, 2)} ({low} {to} {high})"
    return f"{value} ± {significant(100 * width / estimate.value, 2)} %" if percent else f"{value} ± {half}"


def scaled(estimate: Estimate, factor: float) -> Estimate:
    """The same in another unit."""
    low, high = (None if bound is None else bound * factor for bound in (estimate.low, estimate.high))
    return msgspec.structs.replace(estimate, value=estimate.value * factor, low=low, high=high)


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    if _PLAIN(text) and "  " not in text:
        return text
    return re.sub(r"([\\`*_\[\]<>|~])", r"\\\1", re.sub(r"\s+", " ", text))


# Nearly all texts need no search and replace.
_PLAIN = re.compile(r"[A-Za-z0-9 .,:;%/()+=±·-]*").fullmatch
