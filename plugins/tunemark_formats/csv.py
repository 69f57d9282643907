"""A report as CSV (RFC 4180, UTF-8): all columns, unrounded, in SI units; unknown cells are empty."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace

from tunemark.report import Report, join_run_tables
from tunemark.report.data_frame import table_columns

# What makes spreadsheets compute a cell. See OWASP, "CSV injection".
_FORMULA = "=+-@\t\r"
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")


def render(report: Report) -> bytes:
    """One row for each run, with the columns of all tables that have one."""
    return "".join(csv_lines(report)).encode()


def csv_lines(report: Report, most: int | None = None) -> list[str]:
    """The header and a line for each run, or for the first `most`, with line ends."""
    return _lines(join_run_tables(report, most))


def render_tables(report: Report) -> Mapping[str, bytes]:
    """The other tables, by file name (the table's key)."""
    tables = [table for table in report.tables if table.key and not table.per_run and table.rows]
    return {f"{table.key}.csv": "".join(_lines(table_columns(table))).encode() for table in tables}


def _lines(columns: Mapping[str, Sequence[object]]) -> list[str]:
    found: list[str] = []
    # The writer calls write once for each row.
    writer = csv.writer(SimpleNamespace(write=found.append))
    writer.writerow(columns)
    texts = [[_spell(cell) if isinstance(cell, str) else cell for cell in column] for column in columns.values()]
    rows: Iterable[Sequence[object]] = zip(*texts, strict=True)
    writer.writerows(rows)
    return found


def _spell(text: str) -> str:
    """The text, which a spreadsheet does not compute: one that would begin a formula begins with an apostrophe."""
    return f"'{text}" if text[:1] in _FORMULA and text[:1] and not _NUMBER.fullmatch(text) else text
