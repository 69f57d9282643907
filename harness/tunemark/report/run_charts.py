"""The charts of runs and claims; an unknown value is drawn as a note, not as zero."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from tunemark.analysis.prices import Prices
from tunemark.number_format import GIB, format_percent
from tunemark.report.chart_types import DotPlot, DotRow, StackedBar, StackedBars, StepTimeChart
from tunemark.report.costs import cost_per_million_tokens
from tunemark.report.labels import device_of, make_labels, origin_of
from tunemark.report.translation import Translate
from tunemark.results import Estimate, ImportedClaim, Result
from tunemark.results.trace import Trace

# Rows of a chart that stay readable; the tables in the files have all.
MAX_ROWS = 40


def throughput_charts(results: Sequence[Result], names: Sequence[str], tr: Translate) -> tuple[DotPlot, ...]:
    """Every run's rate of content tokens, grouped by device and size; simulated runs have a chart of their own.
    names: of the runs, here and below."""
    order = {name: i for i, name in enumerate(dict.fromkeys(device_of(r) for r in results))}
    ordered = sorted(results, key=lambda r: order[device_of(r)])
    is_grouped = len(order) > 1
    label_of = dict(
        zip(map(id, results), make_labels(results, tr, without=("device",)) if is_grouped else names, strict=True)
    )
    found = []
    for is_simulated in (False, True):
        rows = [
            make_dot_row(r, r.tokens_per_s, label_of[id(r)], _group(r, tr) if is_grouped else "", tr)
            for r in ordered
            if r.simulated == is_simulated
        ]
        title = tr("Rates of a simulator, which say nothing of speed") if is_simulated else tr("Throughput")
        words = tr(
            "Content tokens (never padding) over the wall time of the timed steps, whole job. The line through a mark "
            "is its 95 % interval: between attempts where there are two or more, else within the one run."
        )
        key = "throughput-simulated" if is_simulated else "throughput"
        found.append(_dot_plot(rows, key, title, words, tr("tokens/s (content)")))
    return tuple(chart for chart in found if chart)


def claims_chart(imported: Sequence[ImportedClaim], tr: Translate) -> DotPlot | None:
    """The rates of imported claims, as their sources state them."""
    rows = [
        DotRow(
            label=claim.id,
            value=claim.tokens_per_s_claimed,
            note="" if claim.tokens_per_s_claimed is not None else tr("no rate is stated"),
            verdict=claim.verdict,
            origin="imported",
        )
        for claim in imported
        if claim.kind == "imported"
    ]
    if not rows:
        return None
    return DotPlot(
        key="claims",
        title=tr("Claimed rates"),
        help=tr("As their sources state them, each by what its tool counts; nothing of it was measured here."),
        unit=tr("tokens/s, as each source counts them"),
        rows=tuple(rows[:MAX_ROWS]),
        left_out=len(rows[MAX_ROWS:]),
    )


def cost_chart(results: Sequence[Result], prices: Prices, names: Sequence[str], tr: Translate) -> DotPlot | None:
    found = [(r, cost_per_million_tokens(r, prices)) for r in results]
    rows = [make_dot_row(r, c, name, "", tr) for (r, c), name in zip(found, names, strict=True) if c is not None]
    words = tr("Price of an hour / 3600 / content tokens per second x 1,000,000, with the interval of the rate.")
    unit = tr("{currency} per million content tokens", currency=prices.currency)
    return _dot_plot(rows, "cost", tr("Cost of a million tokens"), words, unit)


def memory_chart(results: Sequence[Result], names: Sequence[str], tr: Translate) -> DotPlot | None:
    rows = []
    for r, name in zip(results, names, strict=True):
        held = None if r.peak_memory_bytes is None else r.peak_memory_bytes / GIB
        note = ""
        if r.requested_bytes is not None:
            note = tr("{gib} GiB more were refused", gib=f"{r.requested_bytes / GIB:.4g}")
        if held is not None or note:
            rows.append(
                DotRow(label=name, value=held, note=note or ("" if held else "?"), origin=origin_of(r), run_id=r.run_id)
            )
    words = tr("The most that the fullest rank held, as its device says it. A CPU's figure holds the interpreter too.")
    return _dot_plot(rows, "memory", tr("Memory"), words, "GiB")


def step_parts_chart(results: Sequence[Result], tr: Translate) -> StackedBars | None:
    """Mean seconds of each part of a step, of the runs with a breakdown."""
    measured = [r for r in results if r.breakdown_s]
    if not measured:
        return None
    names = tuple(dict.fromkeys(name for r in measured for name in r.breakdown_s or {}))
    rows = tuple(
        StackedBar(
            label=name,
            parts=tuple((r.breakdown_s or {}).get(n, 0.0) for n in names),
            note=f"{sum((r.breakdown_s or {}).values()):.4g} s",
            origin=origin_of(r),
            run_id=r.run_id,
        )
        for r, name in zip(measured, make_labels(measured, tr), strict=True)
    )
    return StackedBars(
        key="step-parts",
        title=tr("Where a step's time goes"),
        help=tr(
            "Mean seconds of each part over the timed steps, every part waited for: their sum is more than a step "
            "takes without waiting, so it is read for shares, not for speed."
        ),
        unit=tr("seconds per step"),
        names=names,
        rows=rows[:MAX_ROWS],
        left_out=len(rows[MAX_ROWS:]),
    )


def slots_chart(results: Sequence[Result], names: Sequence[str], tr: Translate) -> StackedBars | None:
    """Shares of trained, other content and padding tokens in the slots of the timed steps."""
    rows = []
    for r, name in zip(results, names, strict=True):
        if r.tokens is None or not r.tokens.slots:
            continue
        t = r.tokens
        parts = (t.trained / t.slots, (t.content - t.trained) / t.slots, (t.slots - t.content) / t.slots)
        note = tr("{percent} % padding", percent=format_percent(parts[2]))
        rows.append(StackedBar(label=name, parts=parts, note=note, origin=origin_of(r), run_id=r.run_id))
    if not rows:
        return None
    return StackedBars(
        key="slots",
        title=tr("What the slots hold"),
        help=tr(
            "Of all slots (batch x row width) of the timed steps: tokens with a label, content without one, and "
            "padding, which is no work done for anybody."
        ),
        unit=tr("share of slots"),
        names=(tr("trained"), tr("content, not trained"), tr("padding")),
        rows=tuple(rows[:MAX_ROWS]),
        is_share=True,
        left_out=len(rows[MAX_ROWS:]),
    )


def step_time_chart(r: Result, name: str, trace: Trace, number: int, tr: Translate) -> StepTimeChart:
    """One attempt's step times, warm-up included."""
    timed = [w.step_time_s for w in trace.kept if trace.is_timed(w.steps)]
    words = tr(
        "Seconds per step of each window between two synchronised instants. Shaded: the warm-up, which no rate counts; "
        "white: what was timed."
    )
    if len(trace.kept) < trace.windows:
        words += " " + tr(
            "{kept:,} of {windows:,} windows are drawn, the fastest and slowest of each stretch among them.",
            kept=len(trace.kept),
            windows=trace.windows,
        )
    return StepTimeChart(
        key=f"steps-{r.run_id}-{number}",
        title=tr("Step time: {name}, attempt {number}", name=name, number=number),
        help=words,
        x=tr("step"),
        y=tr("seconds per step"),
        points=tuple((float(w.steps), w.step_time_s) for w in trace.kept),
        first=trace.first,
        last=trace.last,
        # A thinned trace keeps its extremes, so its median would be biased.
        median=statistics.median(timed) if timed and len(trace.kept) == trace.windows else None,
        origin=origin_of(r),
        run_id=r.run_id,
    )


def _group(r: Result, tr: Translate) -> str:
    return f"{device_of(r)} · {tr('simulated')}" if r.simulated else device_of(r)


def make_dot_row(r: Result, estimate: Estimate | None, name: str, group: str, tr: Translate) -> DotRow:
    """The row of a run's value, with how the run ended or that nothing was timed."""
    note = "" if r.status == "ok" else tr(STATUS_TEXTS[r.status])
    if estimate is None:
        note = note or tr("nothing was timed")
    return DotRow(
        label=name,
        value=estimate.value if estimate else None,
        low=estimate.low if estimate else None,
        high=estimate.high if estimate else None,
        note=note,
        verdict=r.verdict,
        origin=origin_of(r),
        group=group,
        run_id=r.run_id,
    )


def _dot_plot(rows: Sequence[DotRow], key: str, title: str, help: str, unit: str) -> DotPlot | None:
    """The plot of the rows that are drawn; None without any."""
    drawn = tuple(_extremes(rows))
    left_out = len(rows) - len(drawn)
    return DotPlot(key=key, title=title, help=help, unit=unit, rows=drawn, left_out=left_out) if rows else None


def _extremes(rows: Sequence[DotRow]) -> list[DotRow]:
    """At most MAX_ROWS rows in their order: the largest, the smallest, and the first ones without a value."""
    if len(rows) <= MAX_ROWS:
        return list(rows)
    known = sorted((i for i, row in enumerate(rows) if row.value is not None), key=lambda i: -(rows[i].value or 0.0))
    unknown = [i for i, row in enumerate(rows) if row.value is None][:5]
    left = MAX_ROWS - len(unknown)
    drawn = {*unknown, *known[: left - left // 3], *known[len(known) - left // 3 :]}
    return [rows[i] for i in sorted(drawn)]


STATUS_TEXTS: Mapping[str, str] = {
    "ok": "ended well",
    "oom": "out of memory",
    "error": "failed",
    "killed": "killed",
    "timeout": "timed out",
}
