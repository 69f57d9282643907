"""A comparison as Markdown for a terminal, with the digits that intervals support."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tunemark.analysis import comparability
from tunemark.analysis.auto_gain import AutoGain
from tunemark.analysis.compare import Comparison, ComparisonGroup, ComparisonRow, UnmatchedRun
from tunemark.markdown import escape, markdown_table
from tunemark.number_format import format_gib, format_number, format_percent, format_significant
from tunemark.report.estimate_format import format_estimate, format_ratio

# The shared settings of a group that are shown, in this order.
_SHARED_FIELDS = (
    "model", "dataset", "device", "size", "chip", "strategy", "method", "precision", "batching", "sequence",
    "micro_batch", "global_batch", "train_on", "optimizer", "seed",
)  # fmt: skip

_LEVEL_WORDS = (
    "ratio: of content tokens/s over the baseline's, with its 95 % interval; paired where attempts were taken in "
    "rounds, else Welch's t, both on logarithms"
)
_WORTH_WORDS = (
    "The best of several is partly the luckiest of them, so that auto's gain over it is understated. Regret: the share "
    "of the best other layout's rate that auto leaves; of the layouts measured here."
)


def comparison_text(found: Comparison) -> str:
    """All groups, the runs without a counterpart, and notes on how to read the outcomes."""
    parts = [_group(group, found.by) for group in found.groups]
    if found.alone:
        parts.append("\n".join(["Not compared:", "", *(_not_compared(one) for one in found.alone)]))
    notes = [_LEVEL_WORDS + "."]
    if found.claims > 1:
        notes.append(
            f"{found.claims} ratios are judged together: faster or slower is said where Holm's rule allows it at 5 % "
            "for all of them; an interval that leaves out 1 by itself is not enough."
        )
    else:
        notes.append("faster or slower is said where the interval leaves out 1.")
    notes += [note + "." for note in found.notes]
    return "\n\n".join([*parts, "\n".join(escape(note) for note in notes)])


def _group(group: ComparisonGroup, by: Sequence[str]) -> str:
    shared = "; ".join(
        f"{name.replace('_', ' ')} {_format_value(group.shared[name])}"
        for name in _SHARED_FIELDS
        if name in group.shared
    )
    columns = dict(_COLUMNS)
    rows = group.rows
    if not any(row.search_s is not None for row in rows):
        del columns["search (s)"]
    if not any(row.strategy_selected for row in rows) or "strategy" not in by:
        del columns["selected"]
    if not any(row.simulated for row in rows):
        del columns["simulated"]
    base = escape(group.baseline) if group.baseline is not None else "nothing"
    header = [" ".join(by) or "run", *(name.format(base=base) for name in columns)]
    cells = [[escape(row.label), *(read(row) for read in columns.values())] for row in rows]
    lines = [escape(shared), "", markdown_table(header, cells, "<>")]
    if group.worth:
        lines += ["", "What automatic parallelization is worth:"]
        for name in dict.fromkeys(gain.auto for gain in group.worth):
            lines += ["", *_gains_table([gain for gain in group.worth if gain.auto == name])]
        lines += ["", _WORTH_WORDS]
    notes = [f"compared despite {comparability.format_fields(group.despite)}"] if group.despite else []
    notes += [f"{row.label}: {row.reason}" for row in rows if row.reason]
    notes += group.notes
    if group.surroundings:
        notes.append(f"also different: {comparability.format_fields(group.surroundings)}; `tunemark why` ranks it")
    return "\n".join([*lines, "", *(f"- {escape(note)}" for note in notes)]) if notes else "\n".join(lines)


def _gains_table(worth: Sequence[AutoGain]) -> list[str]:
    rows = []
    for gain in worth:
        regret = "-"
        if gain.regret is not None:
            r = gain.regret
            regret = format_percent(r.value)
            if r.low is not None and r.high is not None:
                regret += f" ({format_percent(r.low)} to {format_percent(r.high)})"
        against = escape(", ".join(gain.against)) or "-"
        paid = format_number(gain.paid_back_s, ",.0f")
        rows.append([escape(gain.over), against, format_ratio(gain.ratio), regret, paid, gain.outcome])
    name = escape(worth[0].auto)
    header = [f"{name} over", "which is", "ratio (95 %)", "regret (%)", "search paid back (s)", f"{name} is"]
    lines = [markdown_table(header, rows, "<<>")]
    lines += [f"- {escape(gain.over)}: {escape(gain.reason)}" for gain in worth if gain.reason]
    return lines


def _not_compared(one: UnmatchedRun) -> str:
    if one.nearest is None:
        return f"- {escape(one.label)} ({one.run_id}): nothing to compare with"
    return f"- {escape(one.label)} ({one.run_id}): {escape(one.nearest)} comes nearest, but for " + escape(
        comparability.format_fields(one.differs)
    )


def _memory(row: ComparisonRow) -> str:
    parts = []
    if row.peak_memory_bytes is not None:
        known = row.memory_ratio is not None and row.outcome != "baseline"
        ratio = f" ({format_significant(row.memory_ratio or 0, 3)} x)" if known else ""
        parts.append(f"{format_gib(row.peak_memory_bytes)}{ratio}")
    if row.requested_bytes is not None:
        parts.append(f"{format_gib(row.requested_bytes)} refused")
    return ", ".join(parts) or "-"


_COLUMNS: dict[str, Callable[[ComparisonRow], str]] = {
    "tokens/s (content)": lambda row: format_estimate(row.tokens_per_s),
    "attempts": lambda row: str(row.attempts),
    "ratio to {base} (95 %)": lambda row: format_ratio(row.ratio),
    "outcome": lambda row: row.outcome,
    "memory (GiB)": _memory,
    "to first step (s)": lambda row: format_number(row.time_to_first_step_s, ".1f"),
    "search (s)": lambda row: format_number(row.search_s, ".1f"),
    "selected": lambda row: escape(_selected(row.strategy_selected)),
    "status": lambda row: row.status,
    "verdict": lambda row: row.verdict,
    "simulated": lambda row: "SIMULATED" if row.simulated else "no",
}


def _selected(selected: dict[str, Any] | None) -> str:
    if not selected:
        return "-"
    spelled = selected.get("spelled")
    return str(spelled) if spelled else ", ".join(f"{name}={value}" for name, value in selected.items())


def _format_value(value: object) -> str:
    return "unknown" if value is None or value == "" else str(value)
