"""A report's charts as files of their own, for papers and slides: SVG, and PNG of three pixels for each of theirs."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tunemark.report import Report
from tunemark.report.words import words
from tunemark_formats.drawing import FONTS, Style, draw

_ZOOM = 3
# Pixels beyond which a picture is drawn with fewer: a slide shows no more of a long list.
_MANY = 6_000_000


def render_svg(report: Report) -> Mapping[str, bytes]:
    """Each chart's drawing, by its file's name."""
    say = words(report.language)
    head = '<?xml version="1.0" encoding="UTF-8"?>\n'
    return {f"{c.key}.svg": (head + draw(c, Style(), say) + "\n").encode() for c in report.charts}


def render_png(report: Report) -> Mapping[str, bytes]:
    """The same as pixels. Without a font for its letters a picture would be blank: there is then none."""
    drawings = {name.removesuffix(".svg"): svg.decode() for name, svg in render_svg(report).items()}
    if not drawings or not _has_font(report.language):
        return {}
    return {f"{name}.png": _pixels(svg, _zoom(svg)) for name, svg in drawings.items()}


def _zoom(svg: str) -> int:
    """Three pixels for each of the drawing's own, or two where there would be too many."""
    sizes = re.search(r' width="(\d+)" height="(\d+)"', svg)
    many = sizes is not None and int(sizes[1]) * int(sizes[2]) * _ZOOM**2 > _MANY
    return _ZOOM - 1 if many else _ZOOM


def _has_font(language: str) -> bool:
    """Whether this machine's fonts can write the language: two letters then look different."""
    letters = "가나" if language == "ko" else "Ag"
    frame = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"><text y="30" font-family="{}">{}</text></svg>'
    )
    one, other = (_pixels(frame.format(FONTS, letter), 1) for letter in letters)
    return one != other


def _pixels(svg: str, zoom: int) -> bytes:
    import resvg_py  # compiled, and needed by this format alone

    return bytes(resvg_py.svg_to_bytes(svg_string=svg, zoom=zoom))
