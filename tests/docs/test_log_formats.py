"""The page that compares what programs' figures count is what the importers' descriptions say."""

from __future__ import annotations

from pathlib import Path

from tunemark.plugin.format_reference import claimed_figure, make_page
from tunemark.plugin.log_formats import FigureDescription, FormatDescription
from tunemark_importers.plugin import tunemark_importers

_PAGE = Path(__file__).parents[2] / "docs/log-formats.md"


def test_the_page_is_what_the_importers_describe() -> None:
    page = make_page(tunemark_importers())
    assert _PAGE.read_text() == page, "python -m tunemark.plugin.format_reference docs/log-formats.md"


def test_every_figure_of_every_importer_is_on_it() -> None:
    page = _PAGE.read_text()
    for importer in tunemark_importers():
        for format in importer.formats:
            assert f"## {format.name}\n" in page
            assert all(f"| `{figure.name}` |" in page for figure in format.figures)


def test_a_rate_of_tokens_is_claimed_before_any_other() -> None:
    rate = FigureDescription("tok/s", "tokens_per_s")
    generated = FigureDescription("generated tok/s", "tokens_per_s", is_training=False)
    time = FigureDescription("dt", "step_time", "ms")
    names = {"name": "x", "title": "", "meaning": "", "sources": ()}
    assert claimed_figure(FormatDescription(**names, figures=(time, generated, rate))) is rate
    assert claimed_figure(FormatDescription(**names, figures=(generated, time))) is time
    assert claimed_figure(FormatDescription(**names, figures=(generated,))) is None
