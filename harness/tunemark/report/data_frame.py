"""A report's tables as columns for programs: unrounded, unknown values are None."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunemark.report.report import Cell, Report, ReportTable
from tunemark.report.sections import make_report
from tunemark.results import Estimate, Result

if TYPE_CHECKING:
    import pandas

_BOUNDS = ("low", "high", "n", "method")


def join_run_tables(report: Report, most: int | None = None) -> dict[str, list[Cell]]:
    """Join the tables that have one row for each run; a column of several tables appears once.

    most: maximum number of rows; None is all."""
    columns: dict[str, list[Cell]] = {}
    for table in report.tables:
        if table.per_run:
            columns.update((name, cells) for name, cells in table_columns(table, most).items() if name not in columns)
    return columns


def table_columns(table: ReportTable, most: int | None = None) -> dict[str, list[Cell]]:
    """A table's columns by name. A column of estimates becomes five: value, `_low`, `_high`, `_n` and `_method`."""
    columns: dict[str, list[Cell]] = {}
    values_by_column = zip(*table.rows, strict=True) if table.rows else [()] * len(table.columns)
    for column, values in zip(table.columns, values_by_column, strict=True):
        cells = list(values[:most])
        # Looks at all rows, so that the columns do not depend on `most`.
        if Estimate not in set(map(type, values)):
            columns[column.name] = cells
            continue
        columns[column.name] = [c.value if isinstance(c, Estimate) else c for c in cells]
        for bound in _BOUNDS:
            columns[f"{column.name}_{bound}"] = [getattr(c, bound, None) for c in cells]
    return columns


def make_data_frame(results: Sequence[Result]) -> pandas.DataFrame:
    """One row for each run, with the columns of report.csv."""
    import pandas  # slow to import, and needed only here

    return pandas.DataFrame(join_run_tables(make_report(results)))
