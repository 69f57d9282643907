"""A report as Markdown: every table with its units in the header, rounded for people."""

from __future__ import annotations

from tunemark.report import Column, Report, Table
from tunemark.report.report import Cell
from tunemark.report.rounding import escaped, plus_minus, scaled
from tunemark.results import Estimate
from tunemark.units import GIB, significant

# Unit in the report: (unit shown, divisor).
_SHOWN = {"1": ("%", 0.01), "bytes": ("GiB", GIB), "FLOP/s": ("TFLOP/s", 1e12), "FLOP": ("GFLOP", 1e9)}


def render(report: Report) -> bytes:
    """The report as UTF-8."""
    parts = [f"# {escaped(report.title)}", "\n".join(f"- {note}" for note in report.notes)]
    for table in report.tables:
        parts += [f"## {escaped(table.title)}", _table(table) if table.rows else "none"]
    return ("\n\n".join(parts) + "\n").encode()


def _table(table: Table) -> str:
    units = [_SHOWN.get(column.unit, (column.unit, 1.0)) for column in table.columns]
    # An empty column says nothing: what is unknown of every run is left to the CSV.
    kept = [i for i in range(len(units)) if any(row[i] is not None for row in table.rows)]
    lines = ["| " + " | ".join(_title(table.columns[i], units[i][0]) for i in kept) + " |"]
    numeric = [not any(isinstance(row[i], (str, bool)) for row in table.rows) for i in kept]
    lines.append("|" + "".join("---:|" if each else "---|" for each in numeric))
    for row in table.rows:
        lines.append("| " + " | ".join(_cell(row[i], units[i][1]) for i in kept) + " |")
    return "\n".join(lines)


def _title(column: Column, unit: str) -> str:
    return escaped(f"{column.title} ({unit})" if unit else column.title)


def _cell(cell: Cell, divisor: float) -> str:
    if cell is None:
        return "unknown"
    if isinstance(cell, Estimate):
        return plus_minus(scaled(cell, 1 / divisor))
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, str):
        return escaped(cell)
    if isinstance(cell, int) and divisor == 1.0:
        return f"{cell:,}"
    return significant(cell / divisor)
