"""The answer of a report as one picture: an image of 1200 x 630 pixels, as links show it, and a page of A4.

Both are drawn as SVG and turned into pixels, with the fonts of this machine.
"""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass, field
from html import escape

from tunemark.report import Report
from tunemark.report.report import Headline
from tunemark.report.translation import Translate, make_translator
from tunemark_formats import cells
from tunemark_formats.chart_files import rasterize
from tunemark_formats.drawing import FONTS, Style, draw, text_width

IMAGE = (1200, 630)
PAGE = (794, 1123)  # A4 at 96 pixels per inch
_PDF_ZOOM = 3  # 288 pixels per inch
_INK, _QUIET, _RULE = "#1b2027", "#59626e", "#dfe3e8"
_COLOURS = {"valid": "#146c43", "suspect": "#8a5300", "unknown": "#8a5300", "invalid": "#a4262c"}


def render_image_svg(report: Report) -> bytes:
    """The answer at the size of a link's preview."""
    tr, sheet = make_translator(report.language), _Sheet(*IMAGE, margin=56)
    sheet.line(report.title, size=24, colour=_QUIET)
    for headline in report.headlines[:1]:
        if headline.value:
            sheet.paragraph(headline.value, size=110, weight=700)
            sheet.paragraph(tr("tokens/s (content)"), size=26, colour=_QUIET)
        sheet.headline(headline, tr, size=32, most=3)
    sheet.foot(tr("Measured with tunemark"))
    return sheet.svg()


def render_image(report: Report) -> bytes:
    """The same as PNG."""
    return rasterize(render_image_svg(report).decode(), 1)


def render_pdf(report: Report) -> bytes:
    """The answers, the first chart, what the report says of its figures, and the command, on one page."""
    from PIL import Image  # only needed here

    tr, sheet = make_translator(report.language), _Sheet(*PAGE, margin=56)
    sheet.line(report.title, size=13, colour=_QUIET)
    for number, headline in enumerate(report.headlines[:3]):
        sheet.headline(headline, tr, size=26 if number == 0 else 15, most=4)
    if report.charts:
        sheet.chart(report, width=680, bottom=sheet.y + 380)
    for note in report.notes:
        sheet.paragraph(note, size=10.5, colour=_QUIET, most=3)
    commands = [command for section in report.sections for _, command in section.commands]
    if commands:
        sheet.paragraph(tr("The exact command"), size=12, weight=700)
        sheet.paragraph(commands[0], size=10.5, most=4)
    sheet.foot(tr("Measured with tunemark"))
    picture = Image.open(io.BytesIO(rasterize(sheet.svg().decode(), _PDF_ZOOM))).convert("RGB")
    found = io.BytesIO()
    picture.save(found, "PDF", resolution=96 * _PDF_ZOOM, title=report.headlines[0].text if report.headlines else "")
    return found.getvalue()


def render_badge(report: Report) -> bytes:
    """The answer for an endpoint badge of shields.io.

    Source: https://shields.io/badges/endpoint-badge, the fields schemaVersion, label, message and color."""
    (headline, *_) = report.headlines
    colours = {"valid": "brightgreen", "suspect": "yellow", "invalid": "red"}
    message = f"{headline.value or 'unknown'} {headline.verdict}".strip()
    if headline.origin != "measured":
        message += f" ({headline.origin})"
    colour = colours.get(headline.verdict, "lightgrey") if headline.origin == "measured" else "lightgrey"
    found = {"schemaVersion": 1, "label": "tokens/s", "message": message, "color": colour}
    return (json.dumps(found, ensure_ascii=False) + "\n").encode()


@dataclass(slots=True)
class _Sheet:
    """A sheet of paper that is filled from top to bottom. y: where the next line goes."""

    width: float
    height: float
    margin: float
    y: float = 0.0
    parts: list[str] = field(default_factory=list)

    def line(self, words: str, *, size: float, colour: str = _INK, weight: int = 400) -> None:
        self.y = (self.y or self.margin) + 1.35 * size
        self.parts.append(
            f'<text x="{self.margin}" y="{self.y:.1f}" font-size="{size}" fill="{colour}" font-weight="{weight}">'
            f"{escape(words)}</text>"
        )

    def paragraph(self, words: str, *, size: float, colour: str = _INK, weight: int = 400, most: int = 9) -> None:
        """Lines within the margins; the last of `most` ends in an ellipsis if there is more."""
        lines = _wrap(words, self.width - 2 * self.margin, size)
        if len(lines) > most:
            lines = [*lines[: most - 1], lines[most - 1] + " …"]
        self.y += 0.4 * size
        for each in lines:
            self.line(each, size=size, colour=colour, weight=weight)

    def headline(self, headline: Headline, tr: Translate, *, size: float, most: int) -> None:
        self.paragraph(headline.text, size=size, weight=700, most=most)
        origin = [] if headline.origin == "measured" else [tr(headline.origin)]
        if headline.verdict:
            sign = f"{cells.GLYPHS[headline.verdict]} {tr(headline.verdict)}"
            self.paragraph(" · ".join([sign, *origin]), size=0.55 * size + 5, weight=700,
                           colour=_COLOURS.get(headline.verdict, _INK))  # fmt: skip
        self.paragraph(headline.detail, size=0.45 * size + 5, colour=_QUIET, most=2)

    def chart(self, report: Report, *, width: int, bottom: float) -> None:
        """The first chart, as large as there is room for."""
        drawn = draw(report.charts[0], Style(width=width), make_translator(report.language))
        found = re.search(r'^<svg[^>]* width="([\d.]+)" height="([\d.]+)"', drawn)
        assert found is not None, "a drawing has a size"
        wide, high = float(found[1]), float(found[2])
        top = self.y + 18
        scale = min((self.width - 2 * self.margin) / wide, (bottom - top - 24) / high, 1.6)
        if scale < 0.6:  # nothing could be read
            return
        self.parts.append(f'<g transform="translate({self.margin} {top:.1f}) scale({scale:.4f})">{drawn}</g>')
        self.y = top + scale * high

    def foot(self, words: str) -> None:
        self.parts.append(
            f'<text x="{self.width - self.margin}" y="{self.height - 0.5 * self.margin:.1f}" font-size="13" '
            f'text-anchor="end" fill="{_QUIET}">{escape(words)}</text>'
        )

    def svg(self) -> bytes:
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width}" height="{self.height}" '
            f'viewBox="0 0 {self.width} {self.height}" font-family="{escape(FONTS)}">'
            f'<rect width="100%" height="100%" fill="#ffffff"/>'
            f'<rect width="100%" height="10" fill="{_RULE}"/>{"".join(self.parts)}</svg>'
        ).encode()


def _wrap(words: str, width: float, size: float) -> list[str]:
    lines: list[str] = []
    for word in words.split():
        if lines and text_width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
