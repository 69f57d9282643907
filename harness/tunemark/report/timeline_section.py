"""The section on runs that were measured several times: each one's rate over days, with the changes of its level."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from tunemark.analysis.timeline import RunTimeline, TimelinePoint, make_timelines
from tunemark.report.chart_types import ChartLine, ChartPoint, LineChart
from tunemark.report.labels import make_labels, origin_of
from tunemark.report.report import Section, make_own_table
from tunemark.report.table import Cell
from tunemark.report.translation import Translate
from tunemark.results import Result

# Time lines with a chart of their own.
_MAX_CHARTS = 12


def make_timeline_section(results: Sequence[Result], tr: Translate) -> Section:
    """results: every series of every run, which may share a run_id."""
    found = make_timelines(results)
    names = make_labels([one.points[-1].result for one in found], tr)
    rows: list[tuple[Cell, ...]] = []
    for one, name in zip(found, names, strict=True):
        rows += [
            (name, point.started.strftime("%Y-%m-%d %H:%M"), point.code, point.result.tokens_per_s,
             point.result.attempts, _change_text(point), point.result.verdict)
            for point in one.points
        ]  # fmt: skip
    columns = (
        ("run", "run"), ("started", "started (UTC)"), ("code", "code"), ("tokens_per_s", "content", "tokens/s"),
        ("attempts", "attempts"),
        ("change", "change of level", "", "The mean rate from here on over the one before, minus 1; empty where no "
         "change is shown."),
        ("verdict", "verdict"),
    )  # fmt: skip
    missing = tr(
        "No run was measured at two times. `tunemark run --redo` measures again, and `tunemark report RUNS --timeline` "
        "shows every series."
    )
    return Section(
        key="timeline",
        title=tr("Over time"),
        intro=tr(
            "The rate of the same run in each series. A change is marked where the level differs between at least "
            "three series before and three after, at 1 % over all places; fewer series show none. Invalid ones are "
            "left out."
        ),
        charts=tuple(
            _chart(one, name, number, tr)
            for number, (one, name) in enumerate(zip(found[:_MAX_CHARTS], names, strict=False), 1)
        ),
        tables=(make_own_table("timeline", tr("Every series"), columns, rows, tr),) if rows else (),
        missing=() if found else (missing,),
    )


def _change_text(point: TimelinePoint) -> str:
    return "" if point.change is None else f"{100 * point.change:+.1f} %"


def _chart(one: RunTimeline, name: str, number: int, tr: Translate) -> LineChart:
    points = []
    for point in one.points:
        estimate = point.result.tokens_per_s
        assert estimate is not None, "a time line has rates"
        note = f"{point.started:%Y-%m-%d %H:%M}, {point.code}"
        if point.change is not None:
            note += f", {tr('change of level')} {_change_text(point)}"
        points.append(
            ChartPoint(x=round(point.days, 4), y=estimate.value, low=estimate.low, high=estimate.high, note=note,
                       origin=origin_of(point.result))
        )  # fmt: skip
    lines = [ChartLine(label=name, points=tuple(points))]
    # The mean of each level, drawn from its first series to its last.
    edges = [0, *(i for i, point in enumerate(one.points) if point.change is not None), len(points)]
    if len(edges) > 2:
        for start, end in itertools.pairwise(edges):
            level = sum(p.y for p in points[start:end]) / (end - start)
            ends = (points[start].x, points[end - 1].x)
            line = tuple(ChartPoint(x=x, y=level) for x in ends)
            label = f"{tr('level')}: {level:,.0f}"
            lines.append(ChartLine(label=label, points=line, kind="ideal"))
    return LineChart(
        key=f"timeline-{number}",
        title=name,
        help=tr("Marks are the rates of series with their intervals; dashed lines are the levels between changes."),
        x=tr("days since the first series"),
        y=tr("tokens/s (content)"),
        lines=tuple(lines),
    )
