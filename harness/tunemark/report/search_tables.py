"""How strategy auto chose its layout: Markdown for a terminal, and tables and a chart for a report."""

from __future__ import annotations

from collections.abc import Sequence

from tunemark.markdown import escape, markdown_table
from tunemark.number_format import format_gib, format_number, format_percent, format_significant
from tunemark.predict.search import LayoutOption, SearchLog
from tunemark.report.chart_types import DotPlot, DotRow
from tunemark.report.report import Cell, ReportTable, make_own_table
from tunemark.report.translation import Translate
from tunemark.results import Result

_PARTS = ("compute", "communication", "bubble", "optimizer", "data")
_TRIED = ("chosen", "tried", "failed")
# Rows of one search in a report's table.
_MAX_ROWS = 16


def search_text(log: SearchLog, title: str, *, rows: int = 8) -> str:
    """A search as text: how many layouts, why some were left out, and the best ones with their predictions."""
    lines = [f"{escape(title)}: {counts_text(log)}"]
    lines += [f"- {escape(reason)}: {n} left out" for reason, n in log.rejected.items()]
    if log.source:
        lines.append(f"- predicted from: {escape(log.source)}")
    # The best option of each layout, and all that were tried.
    best: dict[str, LayoutOption] = {}
    for option in log.options:
        best.setdefault(option.strategy, option)
    shown = [o for o in log.options if o.outcome in _TRIED or (o is best[o.strategy] and o.outcome == "predicted")]
    shown = shown[:rows]
    tried = log.trials > 0
    header = ["layout", "micro-batch", "checkpointing", "outcome", "predicted (slot tokens/s)", "memory (GiB)"]
    header += [f"{name} (s)" for name in _PARTS]
    header += ["tried (slot tokens/s)", "trial (s)"] if tried else []
    cells = [_cells(option, tried, log.memory_bytes) for option in shown]
    lines += ["", markdown_table(header, cells, "<<<<>")] if cells else []
    too_large = [option for option in log.options if option.outcome == "does not fit"]
    lines += [
        f"- {escape(o.strategy)} does not fit: {format_gib(o.memory_bytes)} GiB ({escape(o.words())}) "
        f"is {escape(o.reason)}"
        for o in too_large
    ]
    return "\n".join(lines)


def counts_text(log: SearchLog) -> str:
    """One sentence on how many layouts were considered, possible, fitting and tried."""
    memory = "" if log.memory_bytes is None else f" in the {format_gib(log.memory_bytes)} GiB that a rank may use"
    words = f"{log.candidates:,} layouts of {log.ranks:,} ranks, {log.possible:,} possible, {log.fitting:,} fit{memory}"
    seconds = f"; evaluated in {format_significant(log.prediction_s, 2)} s"
    return words + seconds + (f", {log.trials} tried in {log.trial_s:.1f} s" if log.trials else ", none tried")


def explain_choice(log: SearchLog) -> str:
    """Why the chosen option won: its predicted parts of a step, compared with the best other layout."""
    one = log.chosen_option or next(iter(log.options), None)
    if one is None or not one.seconds:
        return ""
    total = sum(one.seconds.values())
    parts = sorted(one.seconds.items(), key=lambda pair: -pair[1])
    words = ", ".join(f"{name} {format_percent(s / total, '.0f')} %" for name, s in parts if s >= 0.005 * total)
    text = f"{one.words()}: its step of {format_significant(total, 3)} s is {words}"
    other = next((o for o in log.options if o.strategy != one.strategy and o.seconds), None)
    if other is not None:
        slower = sum(other.seconds.values()) / total - 1
        word = "longer" if slower >= 0 else "less"
        text += f"; {other.strategy} is predicted to take {format_percent(abs(slower))} % {word}"
        differences = sorted(((o - one.seconds[name], name) for name, o in other.seconds.items()), reverse=True)
        changes = [
            f"{format_significant(abs(s), 2)} s {'more' if s > 0 else 'less'} {name}"
            for s, name in differences
            if abs(s) >= 0.002 * total
        ]
        text += f": {', '.join(changes)}" if changes else ""
        if slower < 0 and log.trials == 0:
            text += "; too close to distinguish, so the simpler one is chosen"
    return text


def search_tables(results: Sequence[Result], tr: Translate) -> tuple[ReportTable, ...]:
    """The options that each run's search considered, and how many layouts were left out for which reason."""
    searched = [r for r in results if r.search is not None]
    if not searched:
        return ()
    rows: list[tuple[Cell, ...]] = []
    runs = []
    for r in searched:
        assert r.search is not None
        for o in r.search.options[:_MAX_ROWS]:
            parts = [o.seconds.get(name) for name in _PARTS]
            rows.append(
                (r.run_id, o.strategy, o.micro_batch, o.checkpointing, tr(o.outcome), o.predicted_tokens_per_s, o.low,
                 o.high, o.tried_tokens_per_s, o.trial_s, int(o.memory_bytes), *parts, o.reason)
            )  # fmt: skip
            runs.append(r.run_id)
    columns = (
        ("run_id", "run"), ("layout", "layout"), ("micro_batch", "micro-batch", "sequences"),
        ("checkpointing", "checkpointing"), ("outcome", "outcome"),
        ("predicted", "predicted", "slot tokens/s"), ("low", "at least", "slot tokens/s"),
        ("high", "at most", "slot tokens/s"), ("tried", "tried", "slot tokens/s"), ("trial_s", "trial", "s"),
        ("memory", "memory, predicted", "bytes"), ("compute", "compute", "s"), ("communication", "communication", "s"),
        ("bubble", "bubble", "s"), ("optimizer", "optimizer", "s"), ("data", "data", "s"), ("reason", "reason"),
    )  # fmt: skip
    title = tr("What auto looked at, and what it tried")
    return make_own_table("search", title, columns, rows, tr, runs=tuple(runs)), _counts_table(searched, tr)


def search_charts(results: Sequence[Result], tr: Translate) -> tuple[DotPlot, ...]:
    """Predicted rates with their bounds, each followed by the rate of its trial."""
    rows = []
    for r in results:
        options = r.search.options if r.search is not None else ()
        for o in [o for o in options if o.predicted_tokens_per_s is not None][:_MAX_ROWS]:
            name = f"{o.strategy} x {o.micro_batch}" + (f" {o.checkpointing}" if o.checkpointing != "none" else "")
            rows.append(
                DotRow(label=name, value=o.predicted_tokens_per_s, low=o.low, high=o.high, origin="predicted",
                    group=f"{r.model} · {r.device}:{r.size}", run_id=r.run_id)
            )  # fmt: skip
            if o.tried_tokens_per_s is not None:
                note = tr("chosen") if o.outcome == "chosen" else ""
                rows.append(
                    DotRow(label=f"{name}: {tr('tried')}", value=o.tried_tokens_per_s, note=note,
                        group=f"{r.model} · {r.device}:{r.size}", run_id=r.run_id)
                )  # fmt: skip
    if not rows:
        return ()
    return (
        DotPlot(
            key="search",
            title=tr("Predicted and tried layouts"),
            help=tr("Slot tokens per second: as predicted, with bounds of two standard deviations, and as tried."),
            unit=tr("tokens/s (slots)"),
            rows=tuple(rows[:60]),
            left_out=len(rows[60:]),
        ),
    )


def _counts_table(results: Sequence[Result], tr: Translate) -> ReportTable:
    rows: list[tuple[Cell, ...]] = []
    for r in results:
        log = r.search
        assert log is not None
        rows += [
            (r.run_id, tr("all candidates"), log.candidates, None),
            (r.run_id, tr("possible"), log.possible, None),
            (r.run_id, tr("fit in memory"), log.fitting, log.prediction_s),
            (r.run_id, tr("tried"), log.trials, log.trial_s),
            *((r.run_id, tr("left out: {reason}", reason=reason), n, None) for reason, n in log.rejected.items()),
        ]
    columns = (("run_id", "run"), ("what", "layouts"), ("count", "number"), ("seconds", "took", "s"))
    title = tr("How many layouts there were, and why others were left out")
    return make_own_table("search-counts", title, columns, rows, tr, runs=tuple(str(row[0]) for row in rows))


def memory_text(o: LayoutOption, available: float | None) -> str:
    """Memory of the fullest rank in GiB, with its upper bound where that exceeds the available bytes."""
    is_tight = available is not None and o.memory_high_bytes > available
    return format_gib(o.memory_bytes) + (f" (up to {format_gib(o.memory_high_bytes)})" if is_tight else "")


def format_prediction(value: float) -> str:
    """A prediction with three digits, the most that its bounds justify."""
    return format_significant(float(f"{value:.3g}"), 3)


def _cells(o: LayoutOption, tried: bool, available: float | None) -> list[str]:
    rate = "-"
    if o.predicted_tokens_per_s is not None and o.low is not None and o.high is not None:
        rate = (
            f"{format_prediction(o.predicted_tokens_per_s)} ({format_prediction(o.low)} to {format_prediction(o.high)})"
        )
    seconds = [format_significant(o.seconds[name], 2) if o.seconds.get(name) else "0" for name in _PARTS]
    memory = memory_text(o, available)
    cells = [escape(o.strategy), str(o.micro_batch), o.checkpointing, o.outcome, rate, memory, *seconds]
    if tried:
        measured = format_number(o.tried_tokens_per_s, ",.0f")
        cells += [escape(o.reason) if o.outcome == "failed" else measured]
        cells += [format_number(o.trial_s, ".1f")]
    return cells
