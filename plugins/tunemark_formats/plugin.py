"""The report formats: an HTML page, its charts as SVG and PNG files, Markdown, and CSV."""

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
            description="one self-contained page: charts, tables, every run, and the data itself",
        ),
        Format(
            name="svg",
            suffix=".svg",
            folder="charts",
            render="tunemark_formats.chart_files:render_svg",
            description="the page's charts, for papers",
        ),
        Format(
            name="png",
            suffix=".png",
            folder="charts",
            render="tunemark_formats.chart_files:render_png",
            description="the same charts as images, for slides",
        ),
        Format(
            name="markdown",
            suffix=".md",
            render="tunemark_formats.markdown:render",
            description="tables, rounded to the digits that intervals support",
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
            description="the tables without one row for each run, such as scaling and findings",
        ),
    )
