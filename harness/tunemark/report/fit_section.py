"""The section on which micro-batches fit: a map, the memory over the micro-batch, and every cell."""

from __future__ import annotations

from collections.abc import Sequence

from tunemark.analysis.fit import FitMap, MeasuredRow
from tunemark.number_format import GIB
from tunemark.predict.measured_memory import fit_measured_memory
from tunemark.report.chart_types import ChartLine, ChartPoint, LineChart
from tunemark.report.fit_text import answer_word, describe_cell, fit_sentence, row_name
from tunemark.report.report import Cell, Column, ReportTable, Section, make_own_table
from tunemark.report.translation import Translate


def make_fit_section(maps: Sequence[FitMap], tr: Translate) -> Section:
    sentences = []
    for found in maps:
        for row in found.rows:
            name = row_name(row, tr)
            sentences.append(f"{name}: {fit_sentence(row, tr)}" if name else fit_sentence(row, tr))
    return Section(
        key="fit",
        title=tr("Which micro-batches fit in memory"),
        intro=" ".join(sentences),
        charts=tuple(chart for number, found in enumerate(maps, 1) for chart in _charts(found, number, tr)),
        tables=tuple(table for number, found in enumerate(maps, 1) for table in _tables(found, number, tr)),
    )


def _charts(found: FitMap, number: int, tr: Translate) -> list[LineChart]:
    memory: list[ChartLine] = []
    rates: list[ChartLine] = []
    for row in found.rows:
        own = row_name(row, tr)
        name = own or tr("measured")
        memory.append(ChartLine(label=name, points=_memory_points(row)))
        predicted = tuple(
            ChartPoint(x=cell.micro_batch, y=cell.predicted_bytes / GIB, origin="predicted", run_id=cell.run_id)
            for cell in row.cells
            if cell.predicted_bytes is not None
        )
        memory.append(ChartLine(label=f"{own} · {tr('predicted')}" if own else tr("predicted"), points=predicted))
        if len(found.rows) == 1:
            memory.append(ChartLine(label=tr("line through the measured"), points=_fitted_points(row), kind="curve"))
        points = tuple(
            ChartPoint(
                x=cell.micro_batch,
                y=cell.tokens_per_s.value,
                low=cell.tokens_per_s.low,
                high=cell.tokens_per_s.high,
                origin="simulated" if cell.simulated else "measured",
                run_id=cell.run_id,
            )
            for cell in row.cells
            if cell.answer == "fits" and cell.tokens_per_s is not None
        )
        rates.append(ChartLine(label=name, points=points))
    xs = [point.x for line in memory for point in line.points]
    if xs and found.limit_bytes is not None:
        ends = tuple(ChartPoint(x=x, y=found.limit_bytes / GIB) for x in (min(xs), max(xs)))
        memory.append(ChartLine(label=tr("limit"), points=ends, kind="ideal"))
    help_words = tr("What the fullest process held, of the micro-batches that ran, and what was predicted.")
    if any(line.kind == "curve" and line.points for line in memory):
        help_words += " " + tr("Later plans of this kind predict memory by the line through the measured.")
    charts = []
    if xs:
        charts.append(
            LineChart(
                key=f"fit-{number}-memory",
                title=f"{tr('Memory by micro-batch')} · {found.title}",
                help=help_words,
                x=tr("micro batch"),
                y="GiB",
                lines=tuple(line for line in memory if line.points),
            )
        )
    if any(line.points for line in rates):
        charts.append(
            LineChart(
                key=f"fit-{number}-rates",
                title=f"{tr('Rate by micro-batch')} · {found.title}",
                help=tr("Content tokens per second of the micro-batches that fit, with their 95 % intervals."),
                x=tr("micro batch"),
                y=tr("tokens/s (content)"),
                lines=tuple(line for line in rates if line.points),
                x_log=max(xs) / min(xs) >= 8,
            )
        )
    return charts


def _memory_points(row: MeasuredRow) -> tuple[ChartPoint, ...]:
    return tuple(
        ChartPoint(
            x=cell.micro_batch,
            y=cell.peak_memory_bytes / GIB,
            origin="simulated" if cell.simulated else "measured",
            run_id=cell.run_id,
        )
        for cell in row.cells
        if cell.peak_memory_bytes is not None and cell.answer == "fits"
    )


def _fitted_points(row: MeasuredRow) -> tuple[ChartPoint, ...]:
    """The line through what the cells held, at every cell with a prediction; empty with fewer than two sizes."""
    told = {cell.micro_batch: cell.predicted_bytes for cell in row.cells if cell.predicted_bytes}
    held = [
        (told[cell.micro_batch], float(cell.peak_memory_bytes))
        for cell in row.cells
        if cell.answer == "fits" and cell.peak_memory_bytes and cell.micro_batch in told
    ]
    line = fit_measured_memory(held)
    if line is None or len({x for x, _ in held}) < 2:
        return ()
    return tuple(ChartPoint(x=size, y=line.correct(x) / GIB) for size, x in sorted(told.items()))


def _tables(found: FitMap, number: int, tr: Translate) -> list[ReportTable]:
    tables = []
    sizes = sorted({cell.micro_batch for row in found.rows for cell in row.cells})
    if len(found.rows) > 1:
        fields = [("row", ""), *((f"micro_batch_{size}", str(size)) for size in sizes)]
        grid: list[tuple[Cell, ...]] = []
        for row in found.rows:
            by_size = {cell.micro_batch: cell for cell in row.cells}
            grid.append((row_name(row, tr), *(describe_cell(by_size.get(size), tr) or None for size in sizes)))
        title = f"{tr('Content tokens/s by micro-batch; ✕ does not fit')} · {found.title}"
        tables.append(_plain_table(f"fit-{number}-map", title, fields, grid))
    fields_of_cells = (
        ("row", "settings"),
        ("micro_batch", "micro batch"),
        ("answer", "answer"),
        ("predicted_bytes", "predicted", "bytes"),
        ("peak_memory_bytes", "memory", "bytes", "of the rank that held most"),
        ("requested_bytes", "refused", "bytes"),
        ("tokens_per_s", "content", "tokens/s", "content tokens (no padding) over wall time"),
        ("slot_tokens_per_s", "slots", "tokens/s", "batch x row width over wall time"),
        ("evidence", "evidence"),
    )
    rows: list[tuple[Cell, ...]] = []
    runs: list[str | None] = []
    for row in found.rows:
        for cell in row.cells:
            rows.append(
                (
                    row_name(row, tr), cell.micro_batch, answer_word(cell.answer, tr), cell.predicted_bytes,
                    cell.peak_memory_bytes,
                    cell.requested_bytes, cell.tokens_per_s, cell.slot_tokens_per_s, cell.evidence or None,
                )
            )  # fmt: skip
            runs.append(cell.run_id)
    title = f"{tr('Every micro-batch that was tried')} · {found.title} · {found.limit}"
    tables.append(make_own_table(f"fit-{number}", title, fields_of_cells, rows, tr, runs=tuple(runs)))
    return tables


def _plain_table(
    key: str, title: str, fields: Sequence[tuple[str, str]], rows: Sequence[tuple[Cell, ...]]
) -> ReportTable:
    """A table whose headings are numbers, which need no translation."""
    columns = tuple(Column(name=name, title=heading) for name, heading in fields)
    return ReportTable(key=key, title=title, columns=columns, rows=tuple(rows), per_run=False)
