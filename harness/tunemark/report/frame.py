"""A report's rows as columns, for programs: unrounded, unknown as None."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunemark.report.arrange import arrange
from tunemark.report.report import Cell, Report, Table
from tunemark.results import Estimate, Result

if TYPE_CHECKING:
    import pandas

_BOUNDS = ("low", "high", "n", "method")


def flat(report: Report) -> dict[str, list[Cell]]:
    """The tables that have one row for each run, side by side; a column that several have appears once."""
    columns: dict[str, list[Cell]] = {}
    for table in report.tables:
        if table.per_run:
            columns.update((name, cells) for name, cells in columns_of(table).items() if name not in columns)
    return columns


def columns_of(table: Table) -> dict[str, list[Cell]]:
    """A table's columns by name. An estimate becomes its value and four more: `_low`, `_high`, `_n` and `_method`."""
    columns: dict[str, list[Cell]] = {}
    for i, column in enumerate(table.columns):
        cells = [row[i] for row in table.rows]
        columns[column.name] = [c.value if isinstance(c, Estimate) else c for c in cells]
        if any(isinstance(c, Estimate) for c in cells):
            for bound in _BOUNDS:
                columns[f"{column.name}_{bound}"] = [getattr(c, bound, None) for c in cells]
    return columns


def frame(results: Sequence[Result]) -> pandas.DataFrame:
    """One row for each run, with the columns of report.csv."""
    import pandas  # heavy, and needed by nobody who only reads a report

    return pandas.DataFrame(flat(arrange(results)))
