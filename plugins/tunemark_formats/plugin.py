"""The report formats: an HTML page, its charts as SVG and PNG files, Markdown, and CSV."""

from __future__ import annotations

from collections.abc import Sequence

from tunemark.plugin import Format, hookimpl


@hookimpl
def tunemark_formats() -> Sequence[Format]:
    offered = (
        ("html", ".html", None, "page:render",
         "one self-contained page: charts, tables, every run, and the data itself"),
        ("svg", ".svg", "charts", "chart_files:render_svg", "the page's charts, for papers"),
        ("png", ".png", "charts", "chart_files:render_png", "the same charts as images, for slides"),
        ("chart-data", ".csv", "charts", "chart_data:render_csv", "the values of each chart, unrounded"),
        ("markdown", ".md", None, "markdown:render", "tables, rounded to the digits that intervals support"),
        ("csv", ".csv", None, "csv:render", "one row for each run with all columns, unrounded, SI units"),
        ("tables", ".csv", "tables", "csv:render_tables",
         "the tables without one row for each run, such as scaling and findings"),
    )  # fmt: skip
    return [
        Format(name=name, suffix=suffix, folder=folder, render=f"tunemark_formats.{render}", description=description)
        for name, suffix, folder, render, description in offered
    ]
