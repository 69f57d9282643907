"""What a chart shows, whatever draws it: rows with intervals, rows of parts, lines over an axis, and a row of steps.

Every value keeps what it is of: its run, and whether it was measured, simulated, imported or predicted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Origin = Literal["measured", "simulated", "imported", "predicted"]
"""Whence a row is: of this harness, of a simulator, of somebody else's log or table, or of a model's arithmetic."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of a `Dots` chart. value, low, high: None where unknown, which `note` says why. group: a heading that
    neighbouring rows share. verdict: empty where there is none."""

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    note: str = ""
    verdict: str = ""
    origin: Origin = "measured"
    group: str = ""
    run_id: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Whole:
    """One line of a `Parts` chart: what it is divided in, in the chart's order of parts; 0 where it has no such part.

    note: what stands behind it, such as its sum."""

    label: str
    parts: tuple[float, ...]
    note: str = ""
    origin: Origin = "measured"
    run_id: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    x: float
    y: float
    low: float | None = None
    high: float | None = None
    origin: Origin = "measured"
    run_id: str | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One line of a `Lines` chart. kind: "points" that were measured or predicted, joined; a "curve" that was fitted
    to them; an "ideal". A curve's points carry its band."""

    label: str
    points: tuple[Point, ...]
    kind: Literal["points", "curve", "ideal"] = "points"


@dataclass(frozen=True, kw_only=True, slots=True)
class Dots:
    """Values with their intervals, a row each, from zero. unit: as it is printed."""

    key: str
    title: str
    help: str
    unit: str
    rows: tuple[Row, ...]
    left_out: int = 0
    """Rows that there would be more, were a page long enough; what is drawn has the largest and the smallest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """Wholes and their parts, stacked. names: of the parts. is_share: they are fractions of 1."""

    key: str
    title: str
    help: str
    unit: str
    names: tuple[str, ...]
    rows: tuple[Whole, ...]
    is_share: bool = False
    left_out: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Lines:
    """y over x. x_log: powers of two are equally far apart. Both axes begin at zero where they are not logarithmic."""

    key: str
    title: str
    help: str
    x: str
    y: str
    series: tuple[Series, ...]
    x_log: bool = False
    is_low: bool = False
    """It stands below another one over the same axis."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Steps:
    """A measure over the steps of one attempt. first, last: the steps between which was timed, before it the warm-up;
    None where nothing was timed. middle: the median of what was timed."""

    key: str
    title: str
    help: str
    x: str
    y: str
    points: tuple[tuple[float, float], ...]
    first: int | None
    last: int | None
    middle: float | None = None
    origin: Origin = "measured"
    run_id: str | None = None


Chart = Dots | Parts | Lines | Steps
