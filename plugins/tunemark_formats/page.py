"""A report as one self-contained HTML file: it needs no network and no server, and is readable without scripts.

All inserted texts are escaped, and the content security policy allows only the page's own script, by its hash. Data
that would make the page larger than MAX_BYTES is left to the report's other files, and the page says so.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from tunemark.fields import read_fields
from tunemark.report import Column, Report, ReportTable
from tunemark.report.chart_types import Chart, LineChart
from tunemark.report.report import Headline, RunDetail, Section, make_own_table
from tunemark.report.translation import Translate, make_translator
from tunemark.results import Estimate
from tunemark.results.trace import Trace, thin_windows
from tunemark_formats import cells
from tunemark_formats.chart_data import list_chart_rows
from tunemark_formats.csv import csv_lines
from tunemark_formats.drawing import NARROW, WIDE, Style, draw

MAX_BYTES = 1_900_000
# Tables that paper has no room for: what was considered, and facts of each run that no answer rests on.
_DETAIL_TABLES = frozenset(("search", "automatic", "steps", "set-up", "tokens", "runs"))

# Keys of tables that are left out on paper.
_DETAIL_TABLES = frozenset({"steps", "set-up", "search", "memory", "environment", "runs", "trainers"})


@dataclass(frozen=True, kw_only=True, slots=True)
class _Limits:
    """Limits of a page: rows of a table, runs with details, raw windows in total, bytes of embedded data, rows of a
    chart's data."""

    rows: int
    details: int
    windows: int
    data_bytes: int
    chart_rows: int


# In the order in which they are tried until the page is small enough.
_LIMITS = (
    _Limits(rows=200, details=60, windows=4000, data_bytes=700_000, chart_rows=100),
    _Limits(rows=100, details=30, windows=1500, data_bytes=400_000, chart_rows=40),
    _Limits(rows=40, details=10, windows=300, data_bytes=200_000, chart_rows=12),
    _Limits(rows=20, details=2, windows=40, data_bytes=50_000, chart_rows=0),
)


def render(report: Report) -> bytes:
    """The page as UTF-8."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(_file("page.html"))
    page = b""
    # Many runs never fit the first limits.
    for limits in _LIMITS if len(report.runs) < 500 else _LIMITS[1:]:
        page = template.render(_values(report, limits)).encode()
        if len(page) <= MAX_BYTES:
            break
    return page


def _values(report: Report, limits: _Limits) -> dict[str, Any]:
    tr = make_translator(report.language)
    details = report.details[: limits.details]
    linked = {detail.run_id for detail in details}
    css, js = _file("page.css"), _file("page.js")
    data, csv, embedded = _data(report, limits.data_bytes, tr)
    names = report.names
    each_windows = max(6, limits.windows // max(1, sum(len(d.traces) for d in details)))
    headlines = [_headline(a, linked) for a in report.headlines]
    return {
        "tr": tr,
        "glyphs": cells.GLYPHS,
        "language": report.language,
        "headline": report.headlines[0].text if report.headlines else report.title,
        "subtitle": tr("{title}, {n:,} runs", title=report.title, n=len(report.runs)),
        "css": Markup(css),
        "js": Markup(js),
        "css_hash": _hash(css),
        "js_hash": _hash(js),
        "headlines": headlines,
        "sections": [
            {
                **read_fields(s, "key", "title", "intro", "missing", "terms"),
                "commands": s.commands[: limits.details],
                "blocks": _blocks(s, names, linked, limits, tr),
            }
            for s in report.sections
        ],
        "details": [_detail(d, linked, each_windows, len(details), tr) for d in details],
        "details_left": len(report.runs) - len(details) if report.runs else 0,
        "notes": report.notes,
        "words": Markup(_in_script(json.dumps(_script_words(tr)))),
        "json": Markup(data),
        "csv": Markup(csv),
        "embedded": embedded,
    }


def _headline(headline: Headline, linked: set[str]) -> dict[str, Any]:
    before, value, after = headline.text.partition(headline.value) if headline.value else (headline.text, "", "")
    return {
        "before": before,
        "value": value,
        "after": after,
        **read_fields(headline, "detail", "verdict", "origin"),
        "link": f"run-{headline.run_id}" if headline.run_id in linked else None,
    }


def _blocks(
    section: Section, names: Mapping[str, str], linked: set[str], limits: _Limits, tr: Translate
) -> list[dict[str, Any]]:
    """Each chart, followed by the charts and tables whose keys start with its key; then the other tables."""
    tables, charts = list(section.tables), list(section.charts)
    found: list[dict[str, Any]] = []
    while charts:
        name = f"{charts[0].key}-"
        while charts:
            found.append({"chart": _chart(charts.pop(0), linked, tr, limits.chart_rows), "table": None})
            if not (charts and charts[0].key.startswith(name)):
                break
        for table in [t for t in tables if t.key.startswith(name)]:
            tables.remove(table)
            found.append({"chart": None, "table": _table(table, names, linked, limits.rows, tr)})
    return found + [{"chart": None, "table": _table(table, names, linked, limits.rows, tr)} for table in tables]


def _chart(chart: Chart, linked: set[str], tr: Translate, most: int = 0) -> dict[str, Any]:
    """most: values that are shown below the chart."""
    columns, rows = list_chart_rows(chart)
    titles = _chart_column_titles(tr)
    # draw escapes the texts.
    wide, narrow = (Markup(draw(chart, Style(width=w, linked=frozenset(linked)), tr)) for w in (WIDE, NARROW))
    return {
        **read_fields(chart, "key", "title", "help"),
        "has_lines": isinstance(chart, LineChart),
        "wide": wide,
        "narrow": narrow,
        "columns": [titles.get(name, name) for name in columns],
        "rows": [[_data_cell(value, tr) for value in row] for row in rows[:most]],
        "rows_left": max(0, len(rows) - most),
    }


def _data_cell(value: str | float | None, tr: Translate) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return tr(value) if value in cells.GLYPHS or value in ("yes", "no") else value
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _chart_column_titles(tr: Translate) -> dict[str, str]:
    return {
        "group": tr("group"), "label": tr("label"), "value": tr("value"), "low": tr("at least"), "high": tr("at most"),
        "origin": tr("origin"), "verdict": tr("verdict"), "note": tr("note"), "line": tr("line"), "timed": tr("timed"),
    }  # fmt: skip


def _script_words(tr: Translate) -> dict[str, str]:
    """What the page's script says; it fills in {n} and {all}."""
    return {
        "filter": tr("Show rows with"),
        "columns": tr("Columns"),
        "count": tr("{n} of {all} rows"),
        "sort": tr("Sort by this column"),
    }


def _table(table: ReportTable, names: Mapping[str, str], linked: set[str], most: int, tr: Translate) -> dict[str, Any]:
    columns, row_numbers = cells.informative_columns(table), cells.informative_rows(table)
    constant = _constant_columns(table, columns, row_numbers)
    columns = [i for i in columns if i not in constant]
    numeric = {i: cells.is_numeric(table, i) for i in columns}
    rows = []
    for number in row_numbers[:most]:
        row = table.rows[number]
        run_id = table.runs[number] if table.runs else None
        origin = table.origins[number] if table.origins else "measured"
        link = f"run-{run_id}" if run_id in linked else None
        found = []
        for place, i in enumerate(columns):
            column, text = table.columns[i], cells.format_cell(row[i], table.columns[i], tr)
            is_name = column.name == "run_id"
            derivation = table.derivations.get((number, column.name))
            found.append(
                {
                    "name": column.name,
                    "tag": "th" if place == 0 and table.runs else "td",
                    "text": _keep_together(names.get(text, text)) if is_name else text,
                    "numeric": numeric[i],
                    "derivation": derivation if row[i] is not None else None,
                    "link": link if is_name or derivation else None,
                    "glyph": cells.GLYPHS.get(text) if column.name in cells.GLYPH_COLUMNS else None,
                    "unknown": row[i] is None,
                    "origin": origin if place == 0 and origin != "measured" else None,
                }
            )
        rows.append({"run": run_id, "cells": found})
    return {
        "key": table.key,
        "title": table.title,
        "is_detail": table.key in _DETAIL_TABLES,
        "columns": [_header(table.columns[i], numeric[i], tr) for i in columns],
        "rows": rows,
        "help": [(cells.format_header(c, tr), c.help) for c in (table.columns[i] for i in columns) if c.help],
        "constant": [
            {
                "name": table.columns[i].name,
                "title": cells.format_header(table.columns[i], tr),
                "text": cells.format_cell(table.rows[row_numbers[0]][i], table.columns[i], tr),
            }
            for i in constant
        ],
        "left": max(0, len(row_numbers) - most),
        "omitted": cells.omitted_rows_text(len(table.rows) - len(row_numbers), tr)
        if 0 < len(row_numbers) < len(table.rows)
        else "",
    }


def _constant_columns(table: ReportTable, columns: list[int], row_numbers: list[int]) -> list[int]:
    """The columns that have the same value for all of several runs; shown once, above the table."""
    if not table.runs or len(row_numbers) < 2:
        return []
    found = []
    for i in columns[1:]:
        first = table.rows[row_numbers[0]][i]
        # Measurements and verdicts are always shown for each run.
        if table.columns[i].name == "verdict" or first is None or isinstance(first, Estimate):
            continue
        if all(table.rows[number][i] == first for number in row_numbers):
            found.append(i)
    return found


def _keep_together(name: str) -> str:
    """A run's name with line breaks allowed only between its settings."""
    return name.replace(" ", "\u00a0").replace("\u00a0·\u00a0", " · ")


def _header(column: Column, is_numeric: bool, tr: Translate) -> dict[str, Any]:
    return {"name": column.name, "title": cells.format_header(column, tr), "help": column.help, "numeric": is_numeric}


def _detail(detail: RunDetail, linked: set[str], windows: int, runs: int, tr: Translate) -> dict[str, Any]:
    # A chart is some 10 kB: show only the first attempt's with many runs, and none with very many.
    charts = detail.charts if runs <= 6 else detail.charts[:1] if runs <= 24 else ()
    return {
        **read_fields(detail, "run_id", "title", "origin", "verdict", "summary", "command", "facts"),
        "attempts": _table(detail.attempts, {}, linked, 20, tr),
        "findings": _table(detail.findings, {}, linked, 60, tr),
        "charts": [_chart(c, set(), tr) for c in charts],
        "steps": [
            _table(_steps_table(trace, number, windows, tr), {}, linked, windows + 4, tr)
            for number, trace in enumerate(detail.traces, 1)
        ],
    }


def _steps_table(trace: Trace, number: int, most: int, tr: Translate) -> ReportTable:
    """The raw windows of an attempt: all, or the first, the last and the extremes of each stretch."""
    kept = thin_windows(trace.kept, most)
    title = tr("Raw steps of attempt {number}", number=number)
    if len(kept) < trace.windows:
        title = tr(
            "Raw steps of attempt {number}: {kept:,} of {windows:,} windows, the extremes among them",
            number=number,
            kept=len(kept),
            windows=trace.windows,
        )
    columns = (
        ("steps", "steps done"), ("end_s", "since the first", "s"), ("step_time_s", "seconds per step", "s"),
        ("slots", "slots"), ("content", "content tokens"), ("trained", "trained tokens"), ("timed", "timed"),
    )  # fmt: skip
    rows = ((w.steps, w.end_s, w.step_time_s, w.slots, w.content, w.trained, trace.is_timed(w.steps)) for w in kept)
    return make_own_table("raw", title, columns, rows, tr)


def _data(report: Report, most: int, tr: Translate) -> tuple[str, str, str]:
    """(runs as JSON, the CSV as a JSON string, a sentence on how many runs they hold), safe inside a <script>.

    report.csv has a row for each run, or for each claim if there are no runs. It is shorter than the JSON."""
    n = sum(size <= most for size in itertools.accumulate(map(len, report.runs)))
    if n < len(report.runs):
        text = tr(
            "This page holds the data of {n:,} of {all:,} runs; all are in runs.jsonl and report.csv beside it.",
            n=n,
            all=len(report.runs),
        )
    else:
        text = tr("This page holds the data of all its runs; nothing is loaded from anywhere.")
    csv = csv_lines(report, n if report.runs else None)
    return _in_script(f"[{','.join(report.runs[:n])}]"), _in_script(json.dumps("".join(csv))), text


def _in_script(text: str) -> str:
    """JSON that cannot end a <script> element: `<` is replaced by its escape."""
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _file(name: str) -> str:
    return resources.files("tunemark_formats").joinpath(name).read_text(encoding="utf-8")
