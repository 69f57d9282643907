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


def flat(report: Report, most: int | None = None) -> dict[str, list[Cell]]:
    """The tables that have one row for each run, side by side; a column that several have appears once.

    most: rows; None is all."""
    columns: dict[str, list[Cell]] = {}
    for table in report.tables:
        if table.per_run:
            columns.update((name, cells) for name, cells in columns_of(table, most).items() if name not in columns)
    return columns


def columns_of(table: Table, most: int | None = None) -> dict[str, list[Cell]]:
    """A table's columns by name. An estimate becomes its value and four more: `_low`, `_high`, `_n` and `_method`."""
    columns: dict[str, list[Cell]] = {}
    every = zip(*table.rows, strict=True) if table.rows else [()] * len(table.columns)
    for column, values in zip(table.columns, every, strict=True):
        cells = list(values[:most])
        # Of all rows, so that the columns are the same however many are asked for.
        if Estimate not in set(map(type, values)):
            columns[column.name] = cells
            continue
        columns[column.name] = [c.value if isinstance(c, Estimate) else c for c in cells]
        for bound in _BOUNDS:
            columns[f"{column.name}_{bound}"] = [getattr(c, bound, None) for c in cells]
    return columns


def frame(results: Sequence[Result]) -> pandas.DataFrame:
    """One row for each run, with the columns of report.csv."""
    import pandas  # heavy, and needed by nobody who only reads a report

    return pandas.DataFrame(flat(arrange(results)))
