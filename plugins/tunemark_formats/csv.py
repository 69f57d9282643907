"""A report as CSV (RFC 4180, UTF-8): one row for each run, every column, unrounded; an unknown cell is empty."""

from __future__ import annotations

import csv
import io

from tunemark.report import Report
from tunemark.report.report import Cell
from tunemark.results import Estimate

_BOUNDS = ("low", "high", "n", "method")


def render(report: Report) -> bytes:
    """The tables that have one row for each run, side by side; a column that several have appears once."""
    header: list[str] = []
    columns: list[list[Cell]] = []
    for table in report.tables:
        if not table.per_run:
            continue
        for i, column in enumerate(table.columns):
            if column.name in header:
                continue
            cells = [row[i] for row in table.rows]
            header.append(column.name)
            columns.append([c.value if isinstance(c, Estimate) else c for c in cells])
            if any(isinstance(c, Estimate) for c in cells):
                header += [f"{column.name}_{bound}" for bound in _BOUNDS]
                columns += [[getattr(c, bound, None) for c in cells] for bound in _BOUNDS]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(zip(*columns, strict=True))
    return text.getvalue().encode()
