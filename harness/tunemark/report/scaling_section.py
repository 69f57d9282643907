"""The section on scaling: charts and tables of each scaling with its mode in the title, predictions separate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tunemark.analysis.scaling_types import Band, Scaling, ScalingFit
from tunemark.report.chart_types import ChartLine, ChartPoint, LineChart
from tunemark.report.estimate_format import format_estimate
from tunemark.report.headlines import explain_verdict
from tunemark.report.report import Headline, ReportTable, Section
from tunemark.report.scaling_tables import more_scalings_table, scaling_tables, scaling_title
from tunemark.report.scaling_text import LAW_NAMES, SCALING_NOTES
from tunemark.report.translation import Translate
from tunemark.results.result import Estimate, Result

# Scalings with charts and tables of their own; the others share one table.
MAX_SCALINGS = 8
# From the most to the least trustworthy; a ratio is worth what the lesser of its rates is.
_VERDICTS = ("valid", "suspect", "unknown", "invalid")
# Scalings with a sentence in the answer.
_MAX_SENTENCES = 4


def make_scaling_section(scalings: Sequence[Scaling], is_empty: bool, tr: Translate) -> Section:
    """is_empty: the report has no runs, so that this section does not say what is missing."""
    missing = tr(
        "No two sizes of one accelerator were measured alike, so nothing can be said of scaling. "
        "`tunemark scale --mode weak --device cpu:1,2` measures two."
    )
    tables: list[ReportTable] = []
    for number, scaling in enumerate(scalings[:MAX_SCALINGS], 1):
        tables += scaling_tables(scaling, number, tr)
    if scalings[MAX_SCALINGS:]:
        tables.append(more_scalings_table(scalings[MAX_SCALINGS:], tr))
    return Section(
        key="scaling",
        title=tr("Scaling"),
        intro=" ".join(map(tr, SCALING_NOTES)) if scalings else "",
        charts=_overlays(scalings, tr)
        + tuple(
            chart
            for i, s in enumerate(scalings[:MAX_SCALINGS], 1)
            for chart in (_chart(s, i, tr), *_efficiency_chart(s, i, tr))
        ),
        tables=tuple(tables),
        missing=() if scalings or is_empty else (missing,),
    )


def make_scaling_headlines(
    scalings: Sequence[Scaling], results: Sequence[Result], tr: Translate
) -> tuple[Headline, ...]:
    """The speed-up and the efficiency of each scaling at its largest size, a sentence each; measured ones only."""
    found = []
    by_run = {result.run_id: result for result in results}
    for one in scalings:
        base = next((p for p in one.points if p.is_base), None)
        last = max((p for p in one.points if p.speedup and p.efficiency), key=lambda p: p.units or 0.0, default=None)
        if one.simulated or base is None or last is None or last is base or not last.speedup or not last.efficiency:
            continue
        speedup = format_estimate(last.speedup)
        text = tr(
            "{title}: {speedup} times as fast on {n:g} {unit} as on {base:g}, an efficiency of {efficiency} %.",
            title=scaling_title(one, tr), speedup=speedup, n=last.units, unit=tr(one.unit or "units"), base=base.units,
            efficiency=format_estimate(last.efficiency.times(100)),
        )  # fmt: skip
        worse = max(last, base, key=lambda point: _VERDICTS.index(point.verdict))
        verdict = worse.verdict
        why = explain_verdict(by_run[worse.run_id], tr) if worse.run_id in by_run else ""
        found.append(
            Headline(text=text, detail=why, value=speedup, verdict=verdict, origin="measured", run_id=last.run_id)
        )
    return tuple(found[:_MAX_SENTENCES])


def _overlays(scalings: Sequence[Scaling], tr: Translate) -> tuple[LineChart, ...]:
    """For each mode, model and device with several strategies or settings: their speed-ups in one chart."""
    groups: dict[tuple[str, str, str, str | None], list[Scaling]] = {}
    for one in scalings:
        groups.setdefault((one.mode, one.model, one.device, one.unit), []).append(one)
    charts = []
    for number, ((mode, model, device, unit), members) in enumerate(groups.items(), 1):
        lines = [replace(_measured_line(one, "speedup", 1, tr), label=_overlay_label(one, members)) for one in members]
        lines = [line for line in lines if len(line.points) > 1][:6]
        if len(lines) < 2:
            continue
        sizes = sorted({p.x for line in lines for p in line.points})
        ideal = tuple(ChartPoint(x=x, y=x / sizes[0]) for x in sizes)
        lines.append(ChartLine(label=tr("ideal"), points=ideal, kind="ideal"))
        name = tr("strong scaling") if mode == "strong" else tr("weak scaling")
        charts.append(
            LineChart(
                key=f"scaling-overlay-{number}",
                title=f"{tr('Speed-up of each strategy')} · {name} · {model} · {device}",
                help=tr("Each line is relative to its own smallest size, so lines say nothing of which is fastest."),
                x=tr(unit or "units"),
                y=tr("speed-up"),
                lines=tuple(lines),
                x_log=sizes[-1] / sizes[0] >= 8,
            )
        )
    return tuple(charts)


def _overlay_label(one: Scaling, members: Sequence[Scaling]) -> str:
    """The strategy, with the settings and the batch in which the scalings of a chart differ."""
    settings = [name for name in ("precision", "batching") if len({m.shared.get(name) for m in members}) > 1]
    parts = [one.strategy, *(str(one.shared.get(name)) for name in settings)]
    if len({m.batch for m in members}) > 1:
        parts.append(f"{one.batch:g}")
    return " · ".join(parts)


def _chart(scaling: Scaling, number: int, tr: Translate) -> LineChart:
    lines = [_measured_line(scaling, "tokens_per_s", 1, tr)]
    words = tr(
        "Marks are rates with their 95 % intervals; the dashed line is ideal: the smallest size's rate times N / N0."
    )
    if scaling.fitted:
        curve = tuple(
            ChartPoint(x=c.units, y=c.tokens_per_s.value, low=c.tokens_per_s.band_low, high=c.tokens_per_s.band_high)
            for c in scaling.fitted.curve
        )
        law = LAW_NAMES[scaling.fitted.law]
        lines.append(ChartLine(label=f"{tr('fitted')}: {law}", points=curve, kind="curve"))
        lines.append(_predicted_line(scaling.fitted, "tokens_per_s", 1, tr))
        words += " " + tr(
            "The band holds the whole fitted curve with 95 %. Triangles are predicted: nothing ran there."
        )
    elif scaling.no_fit:
        words += " " + tr("No law is fitted: {reason}.", reason=scaling.no_fit)
    base = next((p for p in scaling.points if p.is_base and p.tokens_per_s is not None and p.units), None)
    farthest = max((p.x for line in lines for p in line.points), default=0.0)
    if base is not None and base.units and base.tokens_per_s is not None and farthest > base.units:
        # Enough points for a smooth curve over a logarithmic axis.
        xs = [base.units * (farthest / base.units) ** (i / 32) for i in range(33)]
        ideal = tuple(ChartPoint(x=x, y=base.tokens_per_s.value * x / base.units) for x in xs)
        lines.append(ChartLine(label=tr("ideal"), points=ideal, kind="ideal"))
    return LineChart(
        key=f"scaling-{number}",
        title=scaling_title(scaling, tr),
        help=words,
        x=tr(scaling.unit or "units"),
        y=tr("tokens/s (content)"),
        lines=tuple(lines),
        x_log=bool(base and base.units and farthest / base.units >= 8),
    )


def _efficiency_chart(scaling: Scaling, number: int, tr: Translate) -> tuple[LineChart, ...]:
    """The chart of efficiency over size; none with fewer than two sizes."""
    lines = [_measured_line(scaling, "efficiency", 100, tr)]
    if len(lines[0].points) < 2:
        return ()
    if scaling.fitted:
        lines.append(_predicted_line(scaling.fitted, "efficiency", 100, tr))
    xs = [p.x for line in lines for p in line.points]
    ends = tuple(ChartPoint(x=x, y=100.0) for x in (min(xs), max(xs)))
    lines.append(ChartLine(label=tr("ideal"), points=ends, kind="ideal"))
    return (
        LineChart(
            key=f"scaling-{number}-efficiency",
            title=f"{tr('Parallel efficiency')} · {scaling_title(scaling, tr)}",
            help=tr("Speed-up x N0 / N with its 95 % interval, in percent; the dashed line is ideal."),
            x=tr(scaling.unit or "units"),
            y=tr("efficiency (%)"),
            lines=tuple(lines),
            x_log=max(xs) / min(xs) >= 8,
            is_compact=True,
        ),
    )


def _measured_line(scaling: Scaling, field: str, factor: float, tr: Translate) -> ChartLine:
    """A field of the sizes that were measured, times a factor."""
    points = tuple(
        replace(
            _point(p.units, getattr(p, field), factor),
            origin="simulated" if p.simulated else "measured",
            run_id=p.run_id,
            note=p.left_out or "",
        )
        for p in scaling.points
        if getattr(p, field) is not None and p.units
    )
    return ChartLine(label=tr("simulated") if scaling.simulated else tr("measured"), points=points)


def _predicted_line(fitted: ScalingFit, field: str, factor: float, tr: Translate) -> ChartLine:
    points = (_point(p.units, getattr(p, field), factor) for p in fitted.predictions)
    return ChartLine(label=tr("predicted"), points=tuple(replace(p, origin="predicted") for p in points))


def _point(units: float, value: Estimate | Band, factor: float) -> ChartPoint:
    low, high = (None if bound is None else factor * bound for bound in (value.low, value.high))
    return ChartPoint(x=units, y=factor * value.value, low=low, high=high)
