"""The section that lays two stores side by side: each run of both, with the ratio of its rates."""

from __future__ import annotations

from collections.abc import Sequence

from tunemark.analysis.compare import Comparison, compare
from tunemark.report.chart_types import DotPlot, DotRow
from tunemark.report.labels import make_labels, origin_of
from tunemark.report.report import Section
from tunemark.report.table import Cell, Column, ReportTable
from tunemark.report.translation import Translate
from tunemark.results import Estimate, Result

_MAX_ROWS = 30


def make_side_by_side_section(
    a: Sequence[Result], b: Sequence[Result], names: tuple[str, str], tr: Translate
) -> Section:
    """a, b: the runs of two folders, of these names. Raises `BadExperiment` if no run of one is comparable to one of
    the other."""
    found = compare(a, b, names=names)
    ours, theirs = ({r.run_id: r for r in results} for results in (a, b))
    pairs = [group.rows for group in found.groups]
    labels = make_labels([theirs[rows[1].run_id] for rows in pairs], tr)
    rows: list[tuple[Cell, ...]] = []
    dots = []
    for label, (old, new) in zip(labels, pairs, strict=True):
        ratio = None
        if new.ratio is not None:
            ratio = Estimate(value=new.ratio.value, low=new.ratio.low, high=new.ratio.high, n=new.attempts, method="")
        rows.append((label, old.tokens_per_s, new.tokens_per_s, ratio, tr(new.outcome), new.reason or None))
        for name, row, result in ((names[0], old, ours[old.run_id]), (names[1], new, theirs[new.run_id])):
            rate = row.tokens_per_s
            dots.append(
                DotRow(label=name, group=label, verdict=row.verdict, origin=origin_of(result),
                       value=None if rate is None else rate.value, low=None if rate is None else rate.low,
                       high=None if rate is None else rate.high)
            )  # fmt: skip
    columns = (
        Column(name="run", title=tr("run")),
        Column(name="a", title=names[0], unit="tokens/s"),
        Column(name="b", title=names[1], unit="tokens/s"),
        Column(name="ratio", title=tr("ratio")),
        Column(name="outcome", title=tr("outcome")),
        Column(name="reason", title=tr("why not")),
    )
    return Section(
        key="side-by-side",
        title=tr("{a} and {b}, side by side", a=names[0], b=names[1]),
        intro=tr(
            "Content tokens per second of the same runs in both. The ratio is of the second over the first, with its "
            "95 % interval; faster and slower hold for all ratios together (Holm)."
        ),
        charts=(
            DotPlot(
                key="side-by-side",
                title=tr("Both rates of each run"),
                help=tr("Marks are rates with their 95 % intervals."),
                unit=tr("tokens/s (content)"),
                rows=tuple(dots[: 2 * _MAX_ROWS]),
                left_out=max(0, len(dots) - 2 * _MAX_ROWS),
            ),
        ),
        tables=(ReportTable(key="side-by-side", title=tr("Ratios"), columns=columns, rows=tuple(rows), per_run=False),),
        missing=tuple(_alone(found, tr)),
    )


def _alone(found: Comparison, tr: Translate) -> list[str]:
    if not found.alone:
        return []
    runs = ", ".join(f"{one.label} {one.run_id}" for one in found.alone[:8])
    return [tr("{n} runs have no counterpart: {runs}", n=len(found.alone), runs=runs)]
