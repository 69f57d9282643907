"""The section on ladders: a waterfall of each, its sentence, and a table of the rungs."""

from __future__ import annotations

from collections.abc import Sequence

from tunemark.analysis.ladder import Ladder
from tunemark.report.chart_types import DotPlot, DotRow
from tunemark.report.estimate_format import format_ratio
from tunemark.report.ladder_text import ladder_note, ladder_sentence, step_name
from tunemark.report.report import Cell, ReportTable, Section, make_own_table
from tunemark.report.translation import Translate


def make_ladder_section(ladders: Sequence[Ladder], tr: Translate) -> Section:
    return Section(
        key="ladders",
        title=tr("From plain to tuned, a rung at a time"),
        intro=" ".join([*(ladder_sentence(ladder, tr) for ladder in ladders), ladder_note(tr)]),
        charts=tuple(_waterfall(ladder, number, tr) for number, ladder in enumerate(ladders, 1)),
        tables=tuple(_table(ladder, number, tr) for number, ladder in enumerate(ladders, 1)),
    )


def _waterfall(ladder: Ladder, number: int, tr: Translate) -> DotPlot:
    rows = []
    below: float | None = None
    for step in ladder.steps:
        value, ratio = step.tokens_per_s, step.ratio
        rows.append(
            DotRow(
                label=step_name(step, tr),
                value=value.value if value and step.is_climbed else None,
                low=value.low if value and step.is_climbed else None,
                high=value.high if value and step.is_climbed else None,
                begin=below if step.is_climbed else None,
                note=step.reason or (f"{format_ratio(ratio)} x" if ratio is not None else ""),
                verdict="" if step.verdict == "-" else step.verdict,
                origin="simulated" if step.simulated else "measured",
                run_id=step.run_id,
            )
        )
        if step.is_climbed and value is not None:
            below = value.value
    return DotPlot(
        key=f"ladder-{number}",
        title=f"{tr('Ladder')} · {ladder.title}",
        help=tr(
            "A bar leads from the rate of the rung below to that of each rung, with the factor after it. A rung that "
            "was not climbed says why, and the next one stands on the rung below it."
        ),
        unit=tr("tokens/s (content)"),
        rows=tuple(rows),
    )


def _table(ladder: Ladder, number: int, tr: Translate) -> ReportTable:
    fields = (
        ("rung", "rung"),
        ("tokens_per_s", "content", "tokens/s", "content tokens (no padding) over wall time"),
        ("factor", "factor"),
        ("factor_low", "from"),
        ("factor_high", "to"),
        ("over_plain", "over plain"),
        ("slot_tokens_per_s", "slots", "tokens/s", "batch x row width over wall time"),
        ("slot_factor", "factor on slots"),
        ("peak_memory_bytes", "memory", "bytes", "of the rank that held most"),
        ("memory_ratio", "memory over the rung below"),
        ("time_to_first_step_s", "to first step", "s", "from the launch to the first step's end"),
        ("pays_back_steps", "pays back after", "steps"),
        ("reason", "why it was not climbed"),
    )
    rows: list[tuple[Cell, ...]] = []
    for step in ladder.steps:
        ratio, slots = step.ratio, step.slot_ratio
        rows.append(
            (
                step_name(step, tr), step.tokens_per_s,
                *((ratio.value, ratio.low, ratio.high) if ratio else (None, None, None)),
                step.total.value if step.total else None, step.slot_tokens_per_s, slots.value if slots else None,
                step.peak_memory_bytes, step.memory_ratio, step.time_to_first_step_s, step.pays_back_steps,
                step.reason or None,
            )
        )  # fmt: skip
    title = f"{tr('Rungs')} · {ladder.title} · {ladder.recipe}"
    origins = tuple("simulated" if step.simulated else "measured" for step in ladder.steps)
    runs = tuple(step.run_id for step in ladder.steps)
    return make_own_table(f"ladder-{number}", title, fields, rows, tr, runs=runs, origins=origins)
