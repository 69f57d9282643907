"""The report formats Markdown, to read and paste, and CSV, to load elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from tunemark.plugin import Format, hookimpl


@hookimpl
def tunemark_formats() -> Sequence[Format]:
    return (
        Format(
            name="markdown",
            suffix=".md",
            render="tunemark_formats.markdown:render",
            description="tables to read and paste, rounded to the digits that intervals support",
        ),
        Format(
            name="csv",
            suffix=".csv",
            render="tunemark_formats.csv:render",
            description="one row for each run with all columns, unrounded, SI units",
        ),
    )
