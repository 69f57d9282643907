"""A report as CSV (RFC 4180, UTF-8): one row for each run, every column, unrounded; an unknown cell is empty."""

from __future__ import annotations

import csv
import io

from tunemark.report import Report, flat


def render(report: Report) -> bytes:
    """The tables that have one row for each run, side by side."""
    columns = flat(report)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue().encode()
