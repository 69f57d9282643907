"""How strategy auto came to its choice: for a terminal in Markdown, and as tables and a chart of a report."""

from __future__ import annotations

from collections.abc import Sequence

from tunemark.predict.search import Option, SearchLog
from tunemark.report.charts import Dots, Row
from tunemark.report.comparison import markdown
from tunemark.report.report import Cell, Column, Table
from tunemark.report.rounding import escaped
from tunemark.report.words import Say
from tunemark.results import Result
from tunemark.units import gib, significant

_PARTS = ("compute", "communication", "bubble", "optimizer", "data")
_TRIED = ("chosen", "tried", "failed")
# Rows of one search in a report's table.
_ROWS = 16


def search_text(log: SearchLog, title: str, *, rows: int = 8) -> str:
    """A search as a person reads it: how many, why the others are not there, and the best with what is expected."""
    lines = [f"{escaped(title)}: {counts(log)}"]
    lines += [f"- {escaped(reason)}: {n} left out" for reason, n in log.rejected.items()]
    if log.source:
        lines.append(f"- predicted from: {escaped(log.source)}")
    # Of each layout the best, and whatever was tried.
    best: dict[str, Option] = {}
    for option in log.options:
        best.setdefault(option.strategy, option)
    shown = [o for o in log.options if o.outcome in _TRIED or (o is best[o.strategy] and o.outcome == "predicted")]
    shown = shown[:rows]
    tried = log.trials > 0
    header = ["layout", "micro-batch", "checkpointing", "outcome", "predicted (slot tokens/s)", "memory (GiB)"]
    header += [f"{name} (s)" for name in _PARTS]
    header += ["tried (slot tokens/s)", "trial (s)"] if tried else []
    cells = [_cells(option, tried, log.memory_bytes) for option in shown]
    lines += ["", markdown(header, cells, 4)]
    lacking = [option for option in log.options if option.outcome == "does not fit"]
    lines += [
        f"- {escaped(o.strategy)} does not fit: {gib(o.memory_bytes)} GiB ({escaped(o.words())}) is {escaped(o.reason)}"
        for o in lacking
    ]
    return "\n".join(lines)


def counts(log: SearchLog) -> str:
    """How many layouts there were, in a sentence."""
    memory = "" if log.memory_bytes is None else f" in the {gib(log.memory_bytes)} GiB that a rank may use"
    words = f"{log.candidates:,} layouts of {log.ranks:,} ranks, {log.possible:,} possible, {log.fitting:,} fit{memory}"
    seconds = f"; looked at in {significant(log.prediction_s, 2)} s"
    return words + seconds + (f", {log.trials} tried in {log.trial_s:.1f} s" if log.trials else ", none tried")


def because(log: SearchLog) -> str:
    """Why the chosen one was chosen, by its predicted parts beside those of the best of another kind."""
    one = log.chosen or next(iter(log.options), None)
    if one is None or not one.seconds:
        return ""
    total = sum(one.seconds.values())
    parts = sorted(one.seconds.items(), key=lambda pair: -pair[1])
    words = ", ".join(f"{name} {100 * s / total:.0f} %" for name, s in parts if s >= 0.005 * total)
    text = f"{one.words()}: its step of {significant(total, 3)} s is {words}"
    other = next((o for o in log.options if o.strategy != one.strategy and o.seconds), None)
    if other is not None:
        slower = sum(other.seconds.values()) / total - 1
        word = "longer" if slower >= 0 else "less"
        text += f"; {other.strategy} is predicted to take {100 * abs(slower):.1f} % {word}"
        apart = sorted(((o - one.seconds[name], name) for name, o in other.seconds.items()), reverse=True)
        told = [
            f"{significant(abs(s), 2)} s {'more' if s > 0 else 'less'} {name}"
            for s, name in apart
            if abs(s) >= 0.002 * total
        ]
        text += f": {', '.join(told)}" if told else ""
        if slower < 0 and log.trials == 0:
            text += "; too near to be told apart, so that the simpler one is taken"
    return text


def search_tables(results: Sequence[Result], say: Say) -> tuple[Table, ...]:
    """What was looked at, by run; and why layouts were left out."""
    searched = [r for r in results if r.search is not None]
    if not searched:
        return ()
    rows: list[tuple[Cell, ...]] = []
    runs = []
    for r in searched:
        assert r.search is not None
        for o in r.search.options[:_ROWS]:
            parts = [o.seconds.get(name) for name in _PARTS]
            rows.append(
                (r.run_id, o.strategy, o.micro_batch, o.checkpointing, say(o.outcome), o.predicted_tokens_per_s, o.low,
                 o.high, o.tried_tokens_per_s, o.trial_s, int(o.memory_bytes), *parts, o.reason)
            )  # fmt: skip
            runs.append(r.run_id)
    named = (
        ("run_id", "run", ""), ("layout", "layout", ""), ("micro_batch", "micro-batch", "sequences"),
        ("checkpointing", "checkpointing", ""), ("outcome", "outcome", ""),
        ("predicted", "predicted", "slot tokens/s"), ("low", "at least", "slot tokens/s"),
        ("high", "at most", "slot tokens/s"), ("tried", "tried", "slot tokens/s"), ("trial_s", "trial", "s"),
        ("memory", "memory, predicted", "bytes"), ("compute", "compute", "s"), ("communication", "communication", "s"),
        ("bubble", "bubble", "s"), ("optimizer", "optimizer", "s"), ("data", "data", "s"), ("reason", "reason", ""),
    )  # fmt: skip
    looked = Table(
        key="search",
        title=say("What auto looked at, and what it tried"),
        columns=tuple(Column(name=n, title=say(title), unit=unit) for n, title, unit in named),
        rows=tuple(rows),
        per_run=False,
        runs=tuple(runs),
    )
    return looked, _counts(searched, say)


def search_charts(results: Sequence[Result], say: Say) -> tuple[Dots, ...]:
    """Predicted rates with their bounds, and beside each what its trial measured."""
    rows = []
    for r in results:
        options = r.search.options if r.search is not None else ()
        for o in [o for o in options if o.predicted_tokens_per_s is not None][:_ROWS]:
            name = f"{o.strategy} x {o.micro_batch}" + (f" {o.checkpointing}" if o.checkpointing != "none" else "")
            rows.append(
                Row(label=name, value=o.predicted_tokens_per_s, low=o.low, high=o.high, origin="predicted",
                    group=f"{r.model} · {r.device}:{r.size}", run_id=r.run_id)
            )  # fmt: skip
            if o.tried_tokens_per_s is not None:
                note = say("chosen") if o.outcome == "chosen" else ""
                rows.append(
                    Row(label=f"{name}: {say('tried')}", value=o.tried_tokens_per_s, note=note,
                        group=f"{r.model} · {r.device}:{r.size}", run_id=r.run_id)
                )  # fmt: skip
    if not rows:
        return ()
    return (
        Dots(
            key="search",
            title=say("Predicted and tried layouts"),
            help=say("Slot tokens per second: as predicted, with bounds of two standard deviations, and as tried."),
            unit=say("tokens/s (slots)"),
            rows=tuple(rows[:60]),
            left_out=len(rows[60:]),
        ),
    )


def _counts(results: Sequence[Result], say: Say) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for r in results:
        log = r.search
        assert log is not None
        rows += [
            (r.run_id, say("all candidates"), log.candidates, None),
            (r.run_id, say("possible"), log.possible, None),
            (r.run_id, say("fit in memory"), log.fitting, log.prediction_s),
            (r.run_id, say("tried"), log.trials, log.trial_s),
            *((r.run_id, say("left out: {reason}", reason=reason), n, None) for reason, n in log.rejected.items()),
        ]
    named = (("run_id", "run", ""), ("what", "layouts", ""), ("count", "number", ""), ("seconds", "took", "s"))
    return Table(
        key="search-counts",
        title=say("How many layouts there were, and why others were left out"),
        columns=tuple(Column(name=n, title=say(title), unit=unit) for n, title, unit in named),
        rows=tuple(rows),
        per_run=False,
        runs=tuple(str(row[0]) for row in rows),
    )


def memory_words(o: Option, there: float | None) -> str:
    """GiB of the fullest rank, with the upper bound where that is more than there is."""
    is_tight = there is not None and o.memory_high_bytes > there
    return gib(o.memory_bytes) + (f" (up to {gib(o.memory_high_bytes)})" if is_tight else "")


def rounded(value: float) -> str:
    """Three digits of a prediction, as many as its bounds support at best."""
    return significant(float(f"{value:.3g}"), 3)


def _cells(o: Option, tried: bool, there: float | None) -> list[str]:
    rate = "-"
    if o.predicted_tokens_per_s is not None and o.low is not None and o.high is not None:
        rate = f"{rounded(o.predicted_tokens_per_s)} ({rounded(o.low)} to {rounded(o.high)})"
    seconds = [significant(o.seconds[name], 2) if o.seconds.get(name) else "0" for name in _PARTS]
    memory = memory_words(o, there)
    cells = [escaped(o.strategy), str(o.micro_batch), o.checkpointing, o.outcome, rate, memory, *seconds]
    if tried:
        measured = "-" if o.tried_tokens_per_s is None else f"{o.tried_tokens_per_s:,.0f}"
        cells += [escaped(o.reason) if o.outcome == "failed" else measured]
        cells += ["-" if o.trial_s is None else f"{o.trial_s:.1f}"]
    return cells
