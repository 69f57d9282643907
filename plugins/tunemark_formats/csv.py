"""A report as CSV (RFC 4180, UTF-8), every column unrounded in SI units; an unknown cell is empty."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from tunemark.report import Report, flat
from tunemark.report.frame import columns_of


def render(report: Report) -> bytes:
    """One row for each run: the tables that have one, side by side."""
    return _written(flat(report))


def render_tables(report: Report) -> Mapping[str, bytes]:
    """The other tables, a file each, by their keys."""
    tables = [table for table in report.tables if table.key and not table.per_run and table.rows]
    return {f"{table.key}.csv": _written(columns_of(table)) for table in tables}


def _written(columns: Mapping[str, Sequence[object]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    rows: Iterable[Sequence[object]] = zip(*columns.values(), strict=True)
    writer.writerows(rows)
    return text.getvalue().encode()
