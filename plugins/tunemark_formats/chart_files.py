"""A report's charts as files for papers and slides: SVG, and PNG at up to three times their size."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tunemark.report import Report
from tunemark.report.translation import make_translator
from tunemark_formats.drawing import FONTS, Style, draw

_ZOOM = 3
# Number of pixels above which a PNG is drawn at twice the size only; a slide shows no more.
_MAX_PIXELS = 6_000_000


def render_svg(report: Report) -> Mapping[str, bytes]:
    """Each chart as SVG, by file name."""
    tr = make_translator(report.language)
    head = '<?xml version="1.0" encoding="UTF-8"?>\n'
    return {f"{c.key}.svg": (head + draw(c, Style(), tr) + "\n").encode() for c in report.charts}


def render_png(report: Report) -> Mapping[str, bytes]:
    """The same charts as PNG. Empty if no font has the language's letters, as texts would be blank."""
    drawings = {name.removesuffix(".svg"): svg.decode() for name, svg in render_svg(report).items()}
    if not drawings or not _has_font(report.language):
        return {}
    return {f"{name}.png": rasterize(svg, _zoom(svg)) for name, svg in drawings.items()}


def _zoom(svg: str) -> int:
    """The scale of a PNG: 3, or 2 for a large chart."""
    sizes = re.search(r' width="(\d+)" height="(\d+)"', svg)
    is_large = sizes is not None and int(sizes[1]) * int(sizes[2]) * _ZOOM**2 > _MAX_PIXELS
    return _ZOOM - 1 if is_large else _ZOOM


def _has_font(language: str) -> bool:
    """Whether the installed fonts cover the language: two of its letters must look different."""
    letters = "가나" if language == "ko" else "Ag"
    frame = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"><text y="30" font-family="{}">{}</text></svg>'
    )
    one, other = (rasterize(frame.format(FONTS, letter), 1) for letter in letters)
    return one != other


def rasterize(svg: str, zoom: int) -> bytes:
    """An SVG as PNG, at a multiple of its size."""
    import resvg_py  # a compiled package, needed only by this format

    return bytes(resvg_py.svg_to_bytes(svg_string=svg, zoom=zoom))
