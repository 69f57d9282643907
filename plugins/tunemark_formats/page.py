"""A report as one HTML file that needs nothing else: no network, no server, and no script to be read.

Every name is escaped where it is put in; the page's policy lets no script run but its own, by its hash. What would make
it larger than MOST_BYTES is left to the files beside it, and the page says what.
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

from tunemark.report import Column, Report, Table
from tunemark.report.charts import Chart
from tunemark.report.report import Answer, Detail, Section
from tunemark.report.words import Say, words
from tunemark.results import Estimate
from tunemark.results.trace import Trace, thinned
from tunemark_formats import cells
from tunemark_formats.csv import lines
from tunemark_formats.drawing import NARROW, WIDE, Style, draw

MOST_BYTES = 1_900_000

GLYPHS = {
    "valid": "✓", "suspect": "▲", "invalid": "✕", "unknown": "?", "note": "·",
    "measured": "●", "simulated": "◇", "imported": "□", "predicted": "△",
}  # fmt: skip
# Columns whose words are among GLYPHS.
_GLYPHED = ("verdict", "severity", "kind")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Limits:
    """What a page holds at most: rows of a table, runs one by one, raw windows in all, bytes of embedded data."""

    rows: int
    details: int
    windows: int
    data_bytes: int


# From generous to sparse, until the page is small enough.
_LIMITS = (
    _Limits(rows=200, details=60, windows=4000, data_bytes=700_000),
    _Limits(rows=100, details=30, windows=1500, data_bytes=400_000),
    _Limits(rows=40, details=10, windows=300, data_bytes=200_000),
    _Limits(rows=20, details=2, windows=40, data_bytes=50_000),
)


def render(report: Report) -> bytes:
    """The page as UTF-8."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(_file("page.html"))
    page = b""
    # Thousands of runs never fit at the first.
    for limits in _LIMITS if len(report.runs) < 500 else _LIMITS[1:]:
        page = template.render(_values(report, limits)).encode()
        if len(page) <= MOST_BYTES:
            break
    return page


def _values(report: Report, limits: _Limits) -> dict[str, Any]:
    say = words(report.language)
    shown = report.details[: limits.details]
    linked = {detail.run_id for detail in shown}
    css, js = _file("page.css"), _file("page.js")
    data, csv, embedded = _data(report, limits.data_bytes, say)
    names = report.names
    each_windows = max(6, limits.windows // max(1, sum(len(d.traces) for d in shown)))
    answers = [_answer(a, linked) for a in report.answers]
    return {
        "say": say,
        "glyphs": GLYPHS,
        "language": report.language,
        "headline": report.answers[0].text if report.answers else report.title,
        "subtitle": say("{title}, {n:,} runs", title=report.title, n=len(report.runs)),
        "css": Markup(css),
        "js": Markup(js),
        "css_hash": _hash(css),
        "js_hash": _hash(js),
        "answers": answers,
        "sections": [
            {
                "key": s.key,
                "title": s.title,
                "lead": s.lead,
                "missing": s.missing,
                "terms": s.terms,
                "commands": s.commands[: limits.details],
                "blocks": _blocks(s, names, linked, limits.rows, say),
            }
            for s in report.sections
        ],
        "details": [_detail(d, linked, each_windows, len(shown), say) for d in shown],
        "details_left": len(report.runs) - len(shown) if report.runs else 0,
        "notes": report.notes,
        "json": Markup(data),
        "csv": Markup(csv),
        "embedded": embedded,
    }


def _answer(answer: Answer, linked: set[str]) -> dict[str, Any]:
    before, value, after = answer.text.partition(answer.value) if answer.value else (answer.text, "", "")
    return {
        "before": before,
        "value": value,
        "after": after,
        "detail": answer.detail,
        "verdict": answer.verdict,
        "origin": answer.origin,
        "link": f"run-{answer.run_id}" if answer.run_id in linked else None,
    }


def _blocks(section: Section, names: Mapping[str, str], linked: set[str], rows: int, say: Say) -> list[dict[str, Any]]:
    """Charts, each with the charts and the tables that are named after it, then the other tables."""
    left, charts = list(section.tables), list(section.charts)
    found: list[dict[str, Any]] = []
    while charts:
        name = f"{charts[0].key}-"
        while charts:
            found.append({"chart": _chart(charts.pop(0), linked, say), "table": None})
            if not (charts and charts[0].key.startswith(name)):
                break
        for table in [t for t in left if t.key.startswith(name)]:
            left.remove(table)
            found.append({"chart": None, "table": _table(table, names, linked, rows, say)})
    return found + [{"chart": None, "table": _table(table, names, linked, rows, say)} for table in left]


def _chart(chart: Chart, linked: set[str], say: Say) -> dict[str, Any]:
    # What was drawn has its texts escaped already.
    wide, narrow = (Markup(draw(chart, Style(width=w, linked=frozenset(linked)), say)) for w in (WIDE, NARROW))
    return {"key": chart.key, "title": chart.title, "help": chart.help, "wide": wide, "narrow": narrow}


def _table(table: Table, names: Mapping[str, str], linked: set[str], most: int, say: Say) -> dict[str, Any]:
    kept, told = cells.kept(table), cells.told(table)
    alike = _alike(table, kept, told)
    kept = [i for i in kept if i not in alike]
    numeric = {i: cells.is_numeric(table, i) for i in kept}
    rows = []
    for number in told[:most]:
        row = table.rows[number]
        run_id = table.runs[number] if table.runs else None
        origin = table.origins[number] if table.origins else "measured"
        link = f"run-{run_id}" if run_id in linked else None
        found = []
        for place, i in enumerate(kept):
            column, text = table.columns[i], cells.shown(row[i], table.columns[i], say)
            is_name = column.name == "run_id"
            working = table.workings.get((number, column.name))
            found.append(
                {
                    "name": column.name,
                    "tag": "th" if place == 0 and table.runs else "td",
                    "text": _unbroken(names.get(text, text)) if is_name else text,
                    "numeric": numeric[i],
                    "working": working if row[i] is not None else None,
                    "link": link if is_name or working else None,
                    "glyph": GLYPHS.get(text) if column.name in _GLYPHED else None,
                    "unknown": row[i] is None,
                    "origin": origin if place == 0 and origin != "measured" else None,
                }
            )
        rows.append({"run": run_id, "cells": found})
    return {
        "key": table.key,
        "title": table.title,
        "columns": [_header(table.columns[i], numeric[i], say) for i in kept],
        "rows": rows,
        "help": [(cells.title(c, say), c.help) for c in (table.columns[i] for i in kept) if c.help],
        "alike": [
            {
                "name": table.columns[i].name,
                "title": cells.title(table.columns[i], say),
                "text": cells.shown(table.rows[told[0]][i], table.columns[i], say),
            }
            for i in alike
        ],
        "left": max(0, len(told) - most),
        "silent": cells.silent(len(table.rows) - len(told), say) if 0 < len(told) < len(table.rows) else "",
    }


def _alike(table: Table, kept: list[int], told: list[int]) -> list[int]:
    """Of a table of several runs, the columns that say the same of all: they are told once, above it."""
    if not table.runs or len(told) < 2:
        return []
    found = []
    for i in kept[1:]:
        first = table.rows[told[0]][i]
        # What is measured, and what is thought of it, stands beside each run.
        if table.columns[i].name == "verdict" or first is None or isinstance(first, Estimate):
            continue
        if all(table.rows[number][i] == first for number in told):
            found.append(i)
    return found


def _unbroken(name: str) -> str:
    """A run's name that breaks between its settings alone."""
    return name.replace(" ", "\u00a0").replace("\u00a0·\u00a0", " · ")


def _header(column: Column, is_numeric: bool, say: Say) -> dict[str, Any]:
    return {"title": cells.title(column, say), "help": column.help, "numeric": is_numeric}


def _detail(detail: Detail, linked: set[str], windows: int, runs: int, say: Say) -> dict[str, Any]:
    # A chart is some 10 kB: of many runs, the first attempt's alone, and of very many none.
    charts = detail.charts if runs <= 6 else detail.charts[:1] if runs <= 24 else ()
    return {
        "run_id": detail.run_id,
        "title": detail.title,
        "origin": detail.origin,
        "verdict": detail.verdict,
        "answer": detail.answer,
        "command": detail.command,
        "attempts": _table(detail.attempts, {}, linked, 20, say),
        "findings": _table(detail.findings, {}, linked, 60, say),
        "facts": detail.facts,
        "charts": [_chart(c, set(), say) for c in charts],
        "steps": [
            _table(_raw(trace, number, windows, say), {}, linked, windows + 4, say)
            for number, trace in enumerate(detail.traces, 1)
        ],
    }


def _raw(trace: Trace, number: int, most: int, say: Say) -> Table:
    """The raw windows of an attempt: all, or the first, the last and the extremes of each stretch."""
    kept = thinned(trace.kept, most)
    title = say("Raw steps of attempt {number}", number=number)
    if len(kept) < trace.windows:
        title = say(
            "Raw steps of attempt {number}: {kept:,} of {windows:,} windows, the extremes among them",
            number=number,
            kept=len(kept),
            windows=trace.windows,
        )
    named = (
        ("steps", "steps done", ""), ("end_s", "since the first", "s"), ("step_time_s", "seconds per step", "s"),
        ("slots", "slots", ""), ("content", "content tokens", ""), ("trained", "trained tokens", ""),
    )  # fmt: skip
    timed = Column(name="timed", title=say("timed"))
    return Table(
        key="raw",
        title=title,
        columns=(*(Column(name=n, title=say(t), unit=u) for n, t, u in named), timed),
        rows=tuple(
            (w.steps, w.end_s, w.step_time_s, w.slots, w.content, w.trained, _is_timed(w.steps, trace)) for w in kept
        ),
        per_run=False,
    )


def _is_timed(steps: int, trace: Trace) -> bool:
    return trace.first is not None and trace.last is not None and trace.first < steps <= trace.last


def _data(report: Report, most: int, say: Say) -> tuple[str, str, str]:
    """(runs as JSON, the CSV as a JSON string, what of them the page holds), safe inside a <script>.

    report.csv has a row for each run, or for each claim where there is no run. It is shorter than their JSON."""
    n = sum(size <= most for size in itertools.accumulate(map(len, report.runs)))
    if n < len(report.runs):
        told = say(
            "This page holds the data of {n:,} of {all:,} runs; all are in runs.jsonl and report.csv beside it.",
            n=n,
            all=len(report.runs),
        )
    else:
        told = say("This page holds the data of all its runs; nothing is loaded from anywhere.")
    csv = lines(report, n if report.runs else None)
    return _in_script(f"[{','.join(report.runs[:n])}]"), _in_script(json.dumps("".join(csv))), told


def _in_script(text: str) -> str:
    """JSON that no element can be ended in: `<` is written as its escape."""
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _file(name: str) -> str:
    return resources.files("tunemark_formats").joinpath(name).read_text(encoding="utf-8")
