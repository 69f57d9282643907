"""Draws charts as SVG, for the page (coloured by its style sheet) and for files (with fixed colours).

The drawings use no scripts and no external fonts. The shape of a mark shows its origin and the dashes of a line its
series, so that neither depends on colour. Ticks: Heckbert 1990, "Nice Numbers for Graph Labels" (Graphics Gems, p. 61).
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from tunemark.number_format import format_significant
from tunemark.report.chart_types import (
    Chart,
    ChartLine,
    ChartPoint,
    DotPlot,
    DotRow,
    LineChart,
    Origin,
    StackedBars,
    StepTimeChart,
)
from tunemark.report.estimate_format import format_estimate
from tunemark.report.translation import Translate
from tunemark.results import Estimate

WIDE, NARROW = 900, 358
"""Widths of a chart in pixels: for a page and for a phone."""

FONTS = "Inter, 'Noto Sans', 'DejaVu Sans', 'Liberation Sans', Arial, 'Noto Sans CJK KR', 'Noto Sans KR', sans-serif"

# Roles and their colours in files. The six of series are distinguishable with any colour vision (after Okabe and Ito
# 2008), darkened to a contrast of at least 3 on white; text has at least 4.5.
_PAPER = {
    "ink": "#1b2027",
    "quiet": "#59626e",
    "rule": "#dfe3e8",
    "shade": "#eef1f5",
    "paper": "#ffffff",
    "c1": "#1f5fae",
    "c2": "#b8560f",
    "c3": "#177a5b",
    "c4": "#94508f",
    "c5": "#7a6a00",
    "c6": "#3d7f9c",
}
_SERIES = ("c1", "c2", "c3", "c4", "c5", "c6")
_DASHES = (None, "7 3", "2 3", "9 3 2 3", "12 4", "4 4")
_ROW_HEIGHT = 26.0
_ToPixels = Callable[[float], float]
_SMALL, _TEXT = 12.0, 13.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Style:
    """width: in pixels. linked: in a page, the run_ids to which rows link; None in a file, which has neither links nor
    the page's colour variables."""

    width: int = WIDE
    linked: frozenset[str] | None = None

    @property
    def is_page(self) -> bool:
        return self.linked is not None

    def is_linked(self, run_id: str | None) -> bool:
        return run_id is not None and self.linked is not None and run_id in self.linked

    def colour(self, role: str) -> str:
        return f"var(--{role})" if self.is_page else _PAPER[role]


def draw(chart: Chart, style: Style, tr: Translate) -> str:
    """A chart as one <svg> element."""
    canvas = _Canvas(style, tr, chart.key)
    if isinstance(chart, DotPlot):
        height = _dot_plot(canvas, chart)
    elif isinstance(chart, StackedBars):
        height = _stacked_bars(canvas, chart)
    elif isinstance(chart, LineChart):
        height = _line_chart(canvas, chart)
    else:
        height = _step_times(canvas, chart)
    return canvas.svg(height, chart)


class _Canvas:
    """SVG elements in drawing order, with texts escaped."""

    def __init__(self, style: Style, tr: Translate, key: str) -> None:
        self.style, self.tr, self.width = style, tr, float(style.width)
        self.hatch = f"hatch-{key}-{style.width}"
        self._parts: list[str] = []

    def add(self, tag: str, content: str | None = None, /, **attributes: object) -> None:
        self._parts.append(_element(tag, content, attributes))

    def open(self, tag: str, **attributes: object) -> None:
        self._parts.append(_element(tag, None, attributes)[:-2] + ">")

    def close(self, tag: str) -> None:
        self._parts.append(f"</{tag}>")

    def text(
        self, x: float, y: float, words: str, *, role: str = "ink", size: float = _TEXT, anchor: str = "start",
        weight: int | None = None, limit: float | None = None,
    ) -> None:  # fmt: skip
        """limit: maximum width in pixels; a longer text is truncated, and complete in its tooltip."""
        shown = words if limit is None else _truncate(words, limit, size)
        content = escape(shown)
        if shown != words:
            content += f"<title>{escape(words)}</title>"
        anchored = None if anchor == "start" else anchor
        self.add(
            "text", content, x=x, y=y, fill=self.style.colour(role), font_size=size, text_anchor=anchored,
            font_weight=weight,
        )  # fmt: skip

    def line(self, x1: float, y1: float, x2: float, y2: float, role: str, width: float = 1.0, **more: object) -> None:
        self.add("line", x1=x1, y1=y1, x2=x2, y2=y2, stroke=self.style.colour(role), stroke_width=width, **more)

    def mark(self, x: float, y: float, origin: Origin, role: str, tip: str, *, is_legend: bool = False) -> None:
        """Filled circle: measured. Hollow diamond: simulated. Hollow square: imported. Hollow triangle: predicted."""
        legend = "" if is_legend else None
        colour, title = self.style.colour(role), f"<title>{escape(tip)}</title>"
        hollow: dict[str, Any] = {
            "fill": self.style.colour("paper"),
            "stroke": colour,
            "stroke_width": "2",
            "data_mark": origin,
            "data_legend": legend,
        }
        if origin == "measured":
            self.add("circle", title, cx=x, cy=y, r=5, fill=colour, data_mark=origin, data_legend=legend)
        elif origin == "simulated":
            self.add("path", title, d=f"M{x:.1f} {y - 6.5:.1f}l6.5 6.5l-6.5 6.5l-6.5 -6.5z", **hollow)
        elif origin == "imported":
            self.add("rect", title, x=x - 5, y=y - 5, width=10, height=10, **hollow)
        else:
            self.add("path", title, d=f"M{x:.1f} {y - 6:.1f}l6 10.5h-12z", **hollow)

    def interval(self, x1: float, x2: float, y: float, role: str) -> None:
        """A horizontal interval with end caps."""
        for at in (x1, x2):
            self.line(at, y - 5, at, y + 5, role, 2)
        self.line(x1, y, x2, y, role, 2)

    def svg(self, height: float, chart: Chart) -> str:
        head: dict[str, object] = {
            "viewBox": f"0 0 {self.style.width} {math.ceil(height)}",
            "width": self.style.width,
            "height": math.ceil(height),
            "font_family": None if self.style.is_page else FONTS,
            "role": "group" if self.style.is_page else "img",
            "aria_label": chart.title,
            "xmlns": None if self.style.is_page else "http://www.w3.org/2000/svg",
        }
        body = "".join(self._parts)
        if not self.style.is_page:
            words = f"<title>{escape(chart.title)}</title><desc>{escape(chart.help)}</desc>"
            paper = _element("rect", None, {"width": "100%", "height": "100%", "fill": _PAPER["paper"]})
            body = words + paper + body
        return _element("svg", body, head)


# -- dot plots


def _dot_plot(c: _Canvas, chart: DotPlot) -> float:
    is_narrow = c.width < 500
    groups = any(row.group for row in chart.rows)
    values = [_value_text(row, c.tr) for row in chart.rows]
    names = [_remark(row, c.tr) for row in chart.rows]
    label_width = 0.0 if is_narrow else min(0.42 * c.width, max(text_width(r.label, _TEXT) for r in chart.rows) + 14)
    value_width = max((text_width(v, _TEXT) for v in values), default=0.0) + 14
    verdict_width = 0.0 if is_narrow else max((text_width(v, _SMALL) for v in names), default=0.0) + 10
    left, right = label_width + 8, c.width - (8 if is_narrow else value_width + verdict_width)
    top = max((x for r in chart.rows for x in (r.high, r.value, r.begin) if x is not None), default=1.0) or 1.0
    ticks = _ticks(top, 4 if is_narrow else 6)
    scale = (right - left) / ticks[-1]
    height = _row_height(is_narrow)
    y = 8.0
    places, headings, previous = [], [], ""
    for row in chart.rows:
        if groups and row.group != previous:
            headings.append((y + 18, row.group))
            y, previous = y + 28, row.group
        places.append(y)
        y += height
    for tick in ticks:
        x = left + tick * scale
        c.line(x, 8, x, y, "rule")
        _tick_below(c, x, y + 16, _tick(tick, ticks))
    for at, words in headings:
        c.text(0, at, words, size=_SMALL, weight=600, role="quiet", limit=0.92 * c.width)
    for row, at, value, verdict in zip(chart.rows, places, values, names, strict=True):
        _dot_row(c, row, at, left, right, scale, value, verdict, value_width, is_narrow)
    c.text(right, y + 34, chart.unit, role="quiet", size=_SMALL, anchor="end")
    y += 40
    if chart.left_out:
        c.text(0, y + 12, c.tr("{n:,} more are in the tables and files", n=chart.left_out), role="quiet", size=_SMALL)
        y += 18
    return _legend_of_marks(c, [row.origin for row in chart.rows], y)


def _tick_below(c: _Canvas, x: float, y: float, words: str) -> None:
    """A tick's text centred below it, as far as the drawing's edges allow."""
    half = text_width(words, _SMALL) / 2
    anchor, at = ("start", 0.0) if x < half else ("end", c.width) if x > c.width - half else ("middle", x)
    c.text(at, y, words, role="quiet", size=_SMALL, anchor=anchor)


def _dot_row(
    c: _Canvas, row: DotRow, y: float, left: float, right: float, scale: float, value: str, verdict: str,
    value_width: float, is_narrow: bool,
) -> None:  # fmt: skip
    middle = y + (31 if is_narrow else _ROW_HEIGHT / 2)
    words = f"{row.label}: {value}" + (f", {verdict}" if verdict else "")
    is_link = c.style.is_linked(row.run_id)
    if is_link:
        c.open("a", href=f"#run-{row.run_id}", aria_label=words)
    baseline = y + (15 if is_narrow else _ROW_HEIGHT / 2 + 4.5)
    if is_narrow:
        c.text(0, baseline, row.label, limit=c.width - value_width - 6)
        c.text(c.width, baseline, value, anchor="end", weight=600 if row.value is not None else None)
    else:
        c.text(left - 14, baseline, row.label, anchor="end", limit=left - 16)
        c.text(right + value_width - 4, baseline, value, anchor="end", weight=600 if row.value is not None else None)
        c.text(right + value_width + 6, baseline, verdict, role="quiet", size=_SMALL)
    if row.value is not None:
        if row.begin is not None:
            ends = sorted((row.begin, row.value))
            c.add(
                "rect", x=left + ends[0] * scale, y=middle - 7, width=max(1.0, (ends[1] - ends[0]) * scale), height=14,
                fill=c.style.colour("c3" if row.value >= row.begin else "c2"), fill_opacity=0.4, data_region="rung",
            )  # fmt: skip
        c.line(left, middle, left + row.value * scale, middle, "rule", 1, stroke_dasharray="1 3")
        if row.low is not None and row.high is not None:
            c.interval(left + max(0.0, row.low) * scale, left + row.high * scale, middle, "c1")
        c.mark(left + row.value * scale, middle, row.origin, "c1", words)
    else:
        c.text(left + 4, middle + 4.5, f"✕ {row.note}", role="quiet", size=_SMALL, limit=right - left - 8)
    if is_link:
        c.close("a")


def _row_height(is_narrow: bool) -> float:
    return 46.0 if is_narrow else _ROW_HEIGHT


def _value_text(row: DotRow, tr: Translate) -> str:
    if row.value is None:
        return tr("unknown")
    estimate = Estimate(value=row.value, low=row.low, high=row.high, n=0, method="")
    if row.low is None or row.high is None:
        return format_significant(row.value)
    return format_estimate(estimate, no_interval="", to=tr("to"))


def _remark(row: DotRow, tr: Translate) -> str:
    """The text after a value: the verdict unless it is valid, and the note."""
    parts = [] if row.verdict in ("", "valid") else [tr(row.verdict)]
    parts += [row.note] if row.value is not None and row.note else []
    return " · ".join(parts)


def _legend_of_marks(c: _Canvas, origins: Sequence[Origin], y: float) -> float:
    """A legend of the marks' shapes, unless all are measured."""
    kinds = list(dict.fromkeys(origins))
    if kinds in ([], ["measured"]):
        return y + 4
    x = 6.0
    for kind in kinds:
        words = c.tr(kind)
        c.mark(x + 2, y + 10, kind, "c1", words, is_legend=True)
        c.text(x + 14, y + 14.5, words, size=_SMALL)
        x += 34 + text_width(words, _SMALL)
    return y + 26


# -- stacked bars


def _stacked_bars(c: _Canvas, chart: StackedBars) -> float:
    is_narrow = c.width < 500
    label_width = 0.0 if is_narrow else min(0.42 * c.width, max(text_width(r.label, _TEXT) for r in chart.rows) + 14)
    note_width = max((text_width(r.note, _SMALL) for r in chart.rows), default=0.0) + 12
    left, right = label_width + 8, c.width - (8 if is_narrow else note_width)
    top = 1.0 if chart.is_share else max((sum(r.parts) for r in chart.rows), default=1.0) or 1.0
    ticks = [0.0, 0.25, 0.5, 0.75, 1.0] if chart.is_share else _ticks(top, 4 if is_narrow else 6)
    scale = (right - left) / ticks[-1]
    y = _legend(c, [(name, _swatch(i)) for i, name in enumerate(chart.names)], 4.0)
    first = y
    height = _row_height(is_narrow) + 4
    bottom = first + height * len(chart.rows)
    for tick in ticks:
        x = left + tick * scale
        c.line(x, first, x, bottom, "rule", 1, stroke_opacity=0.7)
        words = f"{100 * tick:.0f} %" if chart.is_share else _tick(tick, ticks)
        _tick_below(c, x, bottom + 16, words)
    for row in chart.rows:
        middle = y + (33 if is_narrow else height / 2)
        is_link = c.style.is_linked(row.run_id)
        texts = ", ".join(f"{n} {_part_text(p, chart)}" for n, p in zip(chart.names, row.parts, strict=True))
        if is_link:
            c.open("a", href=f"#run-{row.run_id}", aria_label=f"{row.label}: {texts}")
        if is_narrow:
            c.text(0, y + 16, row.label, limit=c.width - note_width)
            c.text(c.width, y + 16, row.note, role="quiet", size=_SMALL, anchor="end")
        else:
            c.text(left - 14, middle + 4.5, row.label, anchor="end", limit=left - 16)
            c.text(right + 10, middle + 4.5, row.note, role="quiet", size=_SMALL)
        _bar(c, chart, row.parts, row.origin, left, middle, scale)
        if is_link:
            c.close("a")
        y += height
    c.text(right, y + 34, chart.unit, role="quiet", size=_SMALL, anchor="end")
    y += 40
    if chart.left_out:
        c.text(0, y + 12, c.tr("{n:,} more are in the tables and files", n=chart.left_out), role="quiet", size=_SMALL)
        y += 18
    return y + 4


def _bar(
    c: _Canvas, chart: StackedBars, parts: Sequence[float], origin: Origin, left: float, middle: float, scale: float
) -> None:
    x = left
    for i, (name, part) in enumerate(zip(chart.names, parts, strict=True)):
        wide = part * scale
        if wide > 0:
            role = _swatch(i)
            c.add(
                "rect", f"<title>{escape(f'{name}: {_part_text(part, chart)}')}</title>",
                x=x, y=middle - 9, width=max(0.5, wide - (1 if wide > 3 else 0)), height=18,
                fill=c.style.colour(role), fill_opacity=_shade(i), data_mark=origin,
                stroke=c.style.colour(role) if origin != "measured" else None,
                stroke_dasharray="4 2" if origin != "measured" else None,
            )  # fmt: skip
            words = _part_text(part, chart)
            if chart.is_share and text_width(words, 11) + 10 < wide:
                c.text(
                    x + wide / 2,
                    middle + 4,
                    words,
                    role="paper" if _shade(i) > 0.6 else "ink",
                    size=11,
                    anchor="middle",
                )
        x += wide


def _swatch(i: int) -> str:
    return _SERIES[i % len(_SERIES)]


def _shade(i: int) -> float:
    """Opacity of part i: neighbouring parts differ in lightness, so that they differ in greyscale, too."""
    return (1.0, 0.7, 0.4)[i % 3] if i < 3 else (0.85, 0.6)[i % 2]


def _part_text(part: float, chart: StackedBars) -> str:
    return f"{100 * part:.1f} %" if chart.is_share else f"{format_significant(part)} s"


def _legend(c: _Canvas, entries: Sequence[tuple[str, str]], y: float) -> float:
    x = 0.0
    for i, (name, role) in enumerate(entries):
        wide = 20 + text_width(name, _SMALL) + 16
        if x and x + wide > c.width:
            x, y = 0.0, y + 20
        c.add("rect", x=x, y=y + 2, width=12, height=12, fill=c.style.colour(role), fill_opacity=_shade(i))
        c.text(x + 18, y + 12.5, name, size=_SMALL, limit=c.width - x - 20)
        x += wide
    return y + 26


# -- line charts


def _line_chart(c: _Canvas, chart: LineChart) -> float:
    every = [p for s in chart.lines for p in s.points]
    y = _legend_of_lines(c, chart.lines, 4.0)
    high = 130 if chart.is_compact else 230 if c.width < 500 else 300
    top_y, bottom_y = y + 18, y + high
    top = max((v for p in every for v in (p.high, p.y) if v is not None), default=1.0) or 1.0
    ticks = _ticks(top, 5)
    left, right = max(text_width(_tick(t, ticks), _SMALL) for t in ticks) + 12, c.width - 14
    scale_y = (bottom_y - top_y) / ticks[-1]
    xs = sorted({p.x for p in every})
    far = xs[-1] if xs else 1.0

    def place_x(x: float) -> float:
        if chart.x_log and xs[0] > 0 and far > xs[0]:
            return left + 12 + (right - left - 24) * math.log2(x / xs[0]) / math.log2(far / xs[0])
        return left + (right - left - 12) * x / (far or 1.0)

    def place_y(value: float) -> float:
        return bottom_y - value * scale_y

    for tick in ticks:
        c.line(left, place_y(tick), right, place_y(tick), "rule")
        c.text(left - 8, place_y(tick) + 4, _tick(tick, ticks), role="quiet", size=_SMALL, anchor="end")
    last_end = -math.inf
    for x in sorted({p.x for s in chart.lines if s.kind == "points" for p in s.points}) or xs:
        words = f"{x:,g}"
        if place_x(x) - text_width(words, _SMALL) / 2 > last_end:
            c.line(place_x(x), bottom_y, place_x(x), bottom_y + 4, "quiet")
            c.text(place_x(x), bottom_y + 18, words, role="quiet", size=_SMALL, anchor="middle")
            last_end = place_x(x) + text_width(words, _SMALL) / 2 + 6
    c.text(right, bottom_y + 36, chart.x, role="quiet", size=_SMALL, anchor="end")
    c.text(0, top_y - 8, chart.y, role="quiet", size=_SMALL)
    for i, series in enumerate(chart.lines):
        _line(c, series, i, place_x, place_y)
    return _legend_of_marks(c, [p.origin for s in chart.lines if s.kind == "points" for p in s.points], bottom_y + 42)


def _line(c: _Canvas, series: ChartLine, i: int, place_x: _ToPixels, place_y: _ToPixels) -> None:
    role = "quiet" if series.kind == "ideal" else _SERIES[i % len(_SERIES)]
    path = [(place_x(p.x), place_y(p.y)) for p in series.points]
    if series.kind == "curve":
        band = [p for p in series.points if p.low is not None and p.high is not None]
        if band:
            over = [(place_x(p.x), place_y(p.high or 0.0)) for p in band]
            under = [(place_x(p.x), place_y(p.low or 0.0)) for p in reversed(band)]
            c.add("path", d=_path([*over, *under]) + "z", fill=c.style.colour(role), fill_opacity=0.14, data_band="")
    dashes = "5 5" if series.kind == "ideal" else _DASHES[i % len(_DASHES)]
    width = 1.5 if series.kind == "ideal" else 2
    c.add(
        "path", d=_path(path), fill="none", stroke=c.style.colour(role), stroke_width=width, stroke_dasharray=dashes,
        data_line=series.kind,
    )  # fmt: skip
    if series.kind != "points":
        return
    for p in series.points:
        x, y = place_x(p.x), place_y(p.y)
        words = f"{series.label}, {p.x:g}: {_point_text(p, c.tr)}"
        is_link = c.style.is_linked(p.run_id)
        if is_link:
            c.open("a", href=f"#run-{p.run_id}", aria_label=words)
        if p.low is not None and p.high is not None:
            for at in (p.low, p.high):
                c.line(x - 5, place_y(at), x + 5, place_y(at), role, 2)
            c.line(x, place_y(p.low), x, place_y(p.high), role, 2)
        c.mark(x, y, p.origin, role, words)
        if is_link:
            c.close("a")


def _point_text(p: ChartPoint, tr: Translate) -> str:
    row = DotRow(label="", value=p.y, low=p.low, high=p.high)
    return _value_text(row, tr) + (f", {p.note}" if p.note else "")


def _legend_of_lines(c: _Canvas, series: Sequence[ChartLine], y: float) -> float:
    x = 0.0
    for i, one in enumerate(series):
        wide = 34 + text_width(one.label, _SMALL) + 18
        if x and x + wide > c.width:
            x, y = 0.0, y + 20
        role = "quiet" if one.kind == "ideal" else _SERIES[i % len(_SERIES)]
        dashes = "5 5" if one.kind == "ideal" else _DASHES[i % len(_DASHES)]
        c.line(x, y + 8, x + 26, y + 8, role, 2, stroke_dasharray=dashes)
        c.text(x + 34, y + 12.5, one.label, size=_SMALL, limit=c.width - x - 36)
        x += wide
    return y + 34


# -- step times


def _step_times(c: _Canvas, chart: StepTimeChart) -> float:
    top_y, bottom_y = 40.0, 210.0 if c.width < 500 else 230.0
    top = max((y for _, y in chart.points), default=1.0) or 1.0
    ticks = _ticks(top, 4)
    left, right = max(text_width(_tick(t, ticks), _SMALL) for t in ticks) + 12, c.width - 10
    last = max((x for x, _ in chart.points), default=1.0) or 1.0
    scale_x, scale_y = (right - left) / last, (bottom_y - top_y) / ticks[-1]
    quiet = c.style.colour("quiet")
    if chart.first is not None and chart.last is not None:
        begin, end = left + chart.first * scale_x, left + chart.last * scale_x
        shade = c.style.colour("shade")
        for x1, x2 in ((left, begin), (end, right)):
            if x2 > x1:
                c.add("rect", x=x1, y=top_y, width=x2 - x1, height=bottom_y - top_y, fill=shade, data_region="untimed")
        c.line(begin, top_y - 6, begin, bottom_y, "quiet")
        c.line(begin, top_y - 6, end, top_y - 6, "c1", 3)
        words = c.tr("timed: steps {first:,} to {last:,}", first=chart.first + 1, last=chart.last)
        anchor = "start" if begin + text_width(words, _SMALL) < c.width else "end"
        c.text(begin if anchor == "start" else end, top_y - 12, words, size=_SMALL, anchor=anchor)
        warm = c.tr("warm-up")
        if begin - left > text_width(warm, _SMALL) + 8:
            c.text(left + 4, bottom_y - 8, warm, size=_SMALL, role="quiet")
    for tick in ticks:
        y = bottom_y - tick * scale_y
        c.line(left, y, right, y, "rule")
        c.text(left - 8, y + 4, _tick(tick, ticks), role="quiet", size=_SMALL, anchor="end")
    if chart.median is not None:
        y = bottom_y - chart.median * scale_y
        words = c.tr("median {value} s", value=format_significant(chart.median))
        c.line(left, y, right, y, "c2", 1.5, stroke_dasharray="6 4")
        c.text(right, y - 6, words, role="c2", size=_SMALL, anchor="end")
    path = [(left + x * scale_x, bottom_y - y * scale_y) for x, y in chart.points]
    c.add("path", d=_path(path), fill="none", stroke=c.style.colour("c1"), stroke_width=1.5, data_line="steps")
    if len(path) <= 120:
        for (x, y), (step, seconds) in zip(path, chart.points, strict=True):
            text = c.tr("step {n:,.0f}: {seconds} s", n=step, seconds=format_significant(seconds))
            c.add(
                "circle",
                f"<title>{escape(text)}</title>",
                cx=x,
                cy=y,
                r=2.5,
                fill=c.style.colour("c1"),
                data_mark=chart.origin,
            )
    c.add("line", x1=left, y1=bottom_y, x2=right, y2=bottom_y, stroke=quiet)
    for tick in _ticks(last, 6):
        if tick <= last:
            x = left + tick * scale_x
            c.text(x, bottom_y + 17, f"{tick:,g}", role="quiet", size=_SMALL, anchor="middle")
    c.text(right, bottom_y + 34, chart.x, role="quiet", size=_SMALL, anchor="end")
    c.text(0, 12, chart.y, role="quiet", size=_SMALL)
    return bottom_y + 40


# -- numbers and texts


def _ticks(top: float, about: int) -> list[float]:
    """About `about` round numbers from zero to at least `top`."""
    if not math.isfinite(top) or top <= 0:
        top = 1.0
    rough = top / about
    size = 10 ** math.floor(math.log10(rough))
    step = next(size * nice for nice in (1, 2, 2.5, 5, 10) if size * nice >= rough * 0.999)
    return [i * step for i in range(math.ceil(top / step - 1e-9) + 1)]


def _tick(value: float, ticks: Sequence[float]) -> str:
    step = ticks[1] - ticks[0]
    decimals = max(0, -math.floor(math.log10(step))) + (1 if str(f"{step:e}").startswith("2.5") else 0)
    return f"{value:,.{decimals if step < 10 else 0}f}"


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) if points else ""


def text_width(words: str, size: float) -> float:
    """Approximate width of a text in pixels: 1 em for wide characters, 0.61 em for others."""
    return sum(1.0 if unicodedata.east_asian_width(ch) in "WF" else 0.61 for ch in words) * size


def _truncate(words: str, limit: float, size: float) -> str:
    if text_width(words, size) <= limit:
        return words
    text = words
    while text and text_width(text + "…", size) > limit:
        text = text[:-1]
    return text.rstrip(" ·") + "…"


def _element(tag: str, content: str | None, attributes: Mapping[str, object]) -> str:
    words = [tag]
    for name, value in attributes.items():
        if value is None:
            continue
        shown = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
        # Attribute names have hyphens; viewBox has none.
        words.append(f'{name.replace("_", "-")}="{escape(shown)}"')
    start = "<" + " ".join(words)
    return f"{start}/>" if content is None else f"{start}>{content}</{tag}>"
