"""Cells formatted for readers: in the unit of the header, with the digits that the interval supports."""

from __future__ import annotations

from tunemark.number_format import GIB, format_significant
from tunemark.report import Column, ReportTable
from tunemark.report.estimate_format import format_estimate
from tunemark.report.report import Cell
from tunemark.report.translation import Translate
from tunemark.results import Estimate

# Unit of a column: (unit in the header, divisor).
_UNITS = {"1": ("%", 0.01), "bytes": ("GiB", GIB), "FLOP/s": ("TFLOP/s", 1e12), "FLOP": ("GFLOP", 1e9)}

# Words that a report translates where they stand in a cell, each with a sign of its own.
GLYPHS = {
    "valid": "✓", "suspect": "▲", "invalid": "✕", "unknown": "?", "note": "·",
    "measured": "●", "simulated": "◇", "imported": "□", "predicted": "△",
}  # fmt: skip
# Columns whose texts are keys of GLYPHS.
GLYPH_COLUMNS = ("verdict", "severity", "kind")


def informative_columns(table: ReportTable) -> list[int]:
    """Indices of the columns with a known value in any row; CSV has the others, too."""
    return [i for i in range(len(table.columns)) if any(row[i] is not None for row in table.rows)]


def informative_rows(table: ReportTable) -> list[int]:
    """Indices of the rows to show: in a table of one row for each run, those with a value besides the run_id."""
    if not table.per_run:
        return list(range(len(table.rows)))
    empty = (None,) * (len(table.columns) - 1)
    return [i for i, row in enumerate(table.rows) if row[1:] != empty]


def omitted_rows_text(n: int, tr: Translate) -> str:
    """A sentence on the n runs that `informative_rows` leaves out."""
    if n == 1:
        return tr("Of one more run none of this is known.")
    return tr("Of {n:,} more runs none of this is known.", n=n)


def is_numeric(table: ReportTable, i: int) -> bool:
    return not {str, bool} & {type(row[i]) for row in table.rows}


def format_header(column: Column, tr: Translate) -> str:
    """The header, with its unit."""
    unit = _UNITS.get(column.unit, (column.unit, 1.0))[0]
    words = tr(unit) if unit in ("tokens", "sequences", "chips", "devices", "units") else unit
    return f"{column.title} ({words})" if unit else column.title


def format_cell(cell: Cell, column: Column, tr: Translate) -> str:
    """The cell's text, not escaped; None becomes the word "unknown"."""
    divisor = _UNITS.get(column.unit, (column.unit, 1.0))[1]
    if cell is None:
        return tr("unknown")
    if isinstance(cell, Estimate):
        return format_estimate(cell.times(1 / divisor), no_interval=tr("(no interval)"), to=tr("to"))
    if isinstance(cell, bool):
        return tr("yes") if cell else tr("no")
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int) and divisor == 1.0:
        return f"{cell:,}"
    return format_significant(cell / divisor)
