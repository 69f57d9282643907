"""Results in notebooks: tables as Markdown and HTML, and the report's charts as drawings."""

from __future__ import annotations

from collections.abc import Sequence

from tunemark.markdown import escape
from tunemark.plugin import Catalog
from tunemark.plugin.catalog import load_object
from tunemark.report.run_summary import runs_table, verdict_lines
from tunemark.report.sections import make_report
from tunemark.results.result import Result


class ChartDrawings(dict[str, str]):
    """A report's charts as SVG, by name. In a notebook they are shown one below the other."""

    def _repr_html_(self) -> str:
        return "\n".join(f"<div>{svg.partition('?>')[2]}</div>" for svg in self.values())


def results_markdown(results: Sequence[Result]) -> str:
    """The summary that `tunemark run` prints, with one paragraph for each verdict and finding."""
    lines = [escape(line) for verdict in verdict_lines(results) for line in verdict.split("\n")]
    return "\n\n".join([runs_table(results), *lines])


def results_html(results: Sequence[Result]) -> str:
    """The same as HTML; no name in it is markup."""
    from markdown_it import MarkdownIt  # only needed in notebooks

    return str(MarkdownIt("commonmark", {"html": False}).enable("table").render(results_markdown(results)))


def draw_charts(results: Sequence[Result], catalog: Catalog) -> ChartDrawings:
    """Every chart that a report of these results has."""
    rendered = load_object(catalog.formats()["svg"].render)(make_report(results))
    return ChartDrawings({name.removesuffix(".svg"): bytes(svg).decode() for name, svg in rendered.items()})
