"""The data of charts, independent of how they are drawn: dot plots, stacked bars, line charts and step times.

Every value has its run and its origin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Origin = Literal["measured", "simulated", "imported", "predicted"]
"""Where a value comes from: this harness, a simulated device, another party's log or table, or a predictor."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DotRow:
    """One row of a `DotPlot`. value, low, high: None if unknown, for the reason in note. group: a heading that
    neighbouring rows share. verdict: empty if there is none. begin: where a bar to the value begins, in a waterfall."""

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    note: str = ""
    verdict: str = ""
    origin: Origin = "measured"
    group: str = ""
    run_id: str | None = None
    begin: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class StackedBar:
    """One bar of a `StackedBars` chart. parts: in the chart's order, 0 for a part that it does not have.

    note: the text after it, such as its sum."""

    label: str
    parts: tuple[float, ...]
    note: str = ""
    origin: Origin = "measured"
    run_id: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ChartPoint:
    x: float
    y: float
    low: float | None = None
    high: float | None = None
    origin: Origin = "measured"
    run_id: str | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChartLine:
    """One line of a `LineChart`. kind: connected "points" that were measured or predicted, a fitted "curve" whose
    points carry its band, or the "ideal"."""

    label: str
    points: tuple[ChartPoint, ...]
    kind: Literal["points", "curve", "ideal"] = "points"


@dataclass(frozen=True, kw_only=True, slots=True)
class DotPlot:
    """A row for each value with its interval, on an axis from zero. unit: as printed."""

    key: str
    title: str
    help: str
    unit: str
    rows: tuple[DotRow, ...]
    left_out: int = 0
    """Number of rows that are not drawn, to keep the chart readable."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StackedBars:
    """Stacked bars. names: of the parts. is_share: the parts are fractions of 1."""

    key: str
    title: str
    help: str
    unit: str
    names: tuple[str, ...]
    rows: tuple[StackedBar, ...]
    is_share: bool = False
    left_out: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class LineChart:
    """y over x. x_log: the x axis is logarithmic. Axes that are not start at zero."""

    key: str
    title: str
    help: str
    x: str
    y: str
    lines: tuple[ChartLine, ...]
    x_log: bool = False
    is_compact: bool = False
    """Drawn lower, below another chart with the same x axis."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTimeChart:
    """A value over the steps of one attempt. first, last: the steps before and at the end of the timed part; None if
    nothing was timed. median: of the timed part."""

    key: str
    title: str
    help: str
    x: str
    y: str
    points: tuple[tuple[float, float], ...]
    first: int | None
    last: int | None
    median: float | None = None
    origin: Origin = "measured"
    run_id: str | None = None


Chart = DotPlot | StackedBars | LineChart | StepTimeChart
