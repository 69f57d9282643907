"""Which micro-batches fit, in sentences and as Markdown tables for a terminal."""

from __future__ import annotations

from tunemark.analysis.fit import FitAnswer, FitMap, MeasuredCell, MeasuredRow
from tunemark.experiment.settings import SETTINGS_BY_NAME
from tunemark.markdown import escape, markdown_table
from tunemark.number_format import format_gib, format_significant
from tunemark.report.estimate_format import format_estimate, format_ratio
from tunemark.report.translation import Translate


def fit_sentence(row: MeasuredRow, tr: Translate) -> str:
    """The largest and the fastest micro-batch of a row."""
    if row.largest is None:
        if row.too_large is not None:
            return tr("No micro-batch fits: {n} does not.", n=row.too_large)
        return tr("No micro-batch was measured.")
    if row.too_large is None:
        words = tr("{n} is the largest micro-batch that was measured, and fits.", n=row.largest)
    elif row.is_exact:
        words = tr("{n} is the largest micro-batch that fits: {m} does not.", n=row.largest, m=row.too_large)
    else:
        words = tr("{n} fits and {m} does not; none between them was measured.", n=row.largest, m=row.too_large)
    if row.fastest is None:
        return words
    if row.ratio is None:
        return f"{words} " + tr("{n} is the only one with a rate.", n=row.fastest)
    if row.ratio.contains_one is False:
        factor = format_ratio(row.ratio)
        return f"{words} " + tr(
            "{n} is the fastest: {factor} times {m}.", n=row.fastest, factor=factor, m=row.next_best
        )
    return f"{words} " + tr(
        "{n} has the highest rate; no difference to {m} is shown ({factor} times).",
        n=row.fastest, m=row.next_best, factor=format_ratio(row.ratio),
    )  # fmt: skip


def row_name(row: MeasuredRow, tr: Translate) -> str:
    """The settings of a row, such as "sequence 512"; empty where there is one row."""
    names = []
    for name, value in row.settings.items():
        setting = SETTINGS_BY_NAME.get(name)
        names.append(f"{tr(setting.title) if setting and setting.is_in_label else name} {value}")
    return " · ".join(names)


def describe_cell(cell: MeasuredCell | None, tr: Translate) -> str:
    """A cell of the map: its rate where it fits, else why not."""
    if cell is None:
        return ""
    if cell.answer == "fits":
        return format_significant(cell.tokens_per_s.value, 3) if cell.tokens_per_s else tr("fits")
    return "✕" if cell.answer == "does not fit" else answer_word(cell.answer, tr)


def answer_word(answer: FitAnswer, tr: Translate) -> str:
    words = {"fits": tr("fits"), "does not fit": tr("does not fit"), "failed": tr("failed")}
    return words.get(answer) or tr("not measured")


def fit_text(found: FitMap, tr: Translate) -> str:
    """The map, a table of every cell, and a sentence for each row."""
    sizes = sorted({cell.micro_batch for row in found.rows for cell in row.cells})
    lines = [f"## {escape(found.title)}", "", escape(f"limit of memory: {found.limit}"), ""]
    if len(found.rows) > 1:
        cells = []
        for row in found.rows:
            by_size = {cell.micro_batch: cell for cell in row.cells}
            cells.append([escape(row_name(row, tr)), *(describe_cell(by_size.get(size), tr) for size in sizes)])
        lines += [markdown_table(["tokens/s (content) by micro-batch", *map(str, sizes)], cells, "<>"), ""]
    header = [
        "micro-batch",
        "answer",
        "predicted (GiB)",
        "held (GiB)",
        "predicted/held",
        "tokens/s (content)",
        "run",
        "evidence",
    ]
    for row in found.rows:
        rows = [
            [
                str(cell.micro_batch), cell.answer, format_gib(cell.predicted_bytes),
                format_gib(cell.peak_memory_bytes),
                format_significant(cell.predicted_over_measured, 3), format_estimate(cell.tokens_per_s),
                cell.run_id or "-", escape(cell.evidence) or "-",
            ]
            for cell in row.cells
        ]  # fmt: skip
        name = row_name(row, tr)
        lines += [*([escape(name), ""] if name else []), markdown_table(header, rows, "><>>>><"), ""]
        lines += [escape(fit_sentence(row, tr)), ""]
    return "\n".join(lines)
