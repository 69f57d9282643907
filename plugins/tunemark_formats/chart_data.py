"""A chart's values as rows: for the page, which shows them below the chart, and for files."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from types import SimpleNamespace

from tunemark.report import Report
from tunemark.report.chart_types import Chart, DotPlot, LineChart, StackedBars

_Value = str | float | None


def list_chart_rows(chart: Chart) -> tuple[tuple[str, ...], list[tuple[_Value, ...]]]:
    """(names of the columns, a row for each mark), unrounded; None is unknown."""
    if isinstance(chart, DotPlot):
        return ("group", "label", "value", "low", "high", "origin", "verdict", "note"), [
            (r.group, r.label, r.value, r.low, r.high, r.origin, r.verdict, r.note) for r in chart.rows
        ]
    if isinstance(chart, StackedBars):
        return ("label", *chart.names, "origin", "note"), [(r.label, *r.parts, r.origin, r.note) for r in chart.rows]
    if isinstance(chart, LineChart):
        return ("line", "x", "y", "low", "high", "origin", "note"), [
            (line.label, p.x, p.y, p.low, p.high, "" if line.kind == "ideal" else p.origin, p.note)
            for line in chart.lines
            for p in line.points
        ]
    return ("x", "y", "timed"), [
        (x, y, "yes" if chart.first is not None and chart.first < x <= (chart.last or x) else "no")
        for x, y in chart.points
    ]


def render_csv(report: Report) -> Mapping[str, bytes]:
    """Each chart's values as CSV, by file name (the chart's key); unknown cells are empty."""
    return {f"{chart.key}.csv": _encode(*list_chart_rows(chart)) for chart in report.charts}


def _encode(names: Sequence[str], rows: Sequence[Sequence[_Value]]) -> bytes:
    found: list[str] = []
    writer = csv.writer(SimpleNamespace(write=found.append))
    writer.writerow(names)
    writer.writerows(rows)
    return "".join(found).encode()
