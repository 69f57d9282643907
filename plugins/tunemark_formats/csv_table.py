"""A report's first table, the throughput, as CSV; unknown cells are empty."""

from __future__ import annotations

import csv
import io

from tunemark.report import Report


def render(report: Report) -> bytes:
    """UTF-8 with a header row; a unit follows its column's name in brackets."""
    table = report.tables[0]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([f"{c.name} [{c.unit}]" if c.unit else c.name for c in table.columns])
    writer.writerows([["" if cell is None else cell for cell in row] for row in table.rows])
    return out.getvalue().encode()
