"""The report formats: a page to look at, its charts as files, Markdown to read and paste, and CSV to load elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from tunemark.plugin import Format, hookimpl


@hookimpl
def tunemark_formats() -> Sequence[Format]:
    return (
        Format(
            name="html",
            suffix=".html",
            render="tunemark_formats.page:render",
            description="one page that needs nothing else: charts, tables, every run, and the data itself",
        ),
        Format(
            name="svg",
            suffix=".svg",
            folder="charts",
            render="tunemark_formats.figures:render_svg",
            description="the page's charts, for papers",
        ),
        Format(
            name="png",
            suffix=".png",
            folder="charts",
            render="tunemark_formats.figures:render_png",
            description="the same as pixels, for slides",
        ),
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
        Format(
            name="tables",
            suffix=".csv",
            folder="tables",
            render="tunemark_formats.csv:render_tables",
            description="the tables that have not one row for each run, such as scaling and findings",
        ),
    )
