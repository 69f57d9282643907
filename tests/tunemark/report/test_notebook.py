"""Results in notebooks: every run is in the table, no name is markup, and charts are drawings."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from tunemark.loading import decode_any_schema
from tunemark.plugin import Catalog
from tunemark.report.notebook import draw_charts, results_html, results_markdown
from tunemark.results import Result
from tunemark.runner.run_experiment import ExperimentResults

_RUNS = Path(__file__).parents[3] / "reports/example/runs.jsonl"


@pytest.fixture(scope="module")
def runs() -> tuple[Result, ...]:
    lines = [line for line in _RUNS.read_text().splitlines() if not json.loads(line)["simulated"]]
    return tuple(map(decode_any_schema, lines))


def test_tables_hold_every_run_and_verdict(runs: tuple[Result, ...]) -> None:
    results = ExperimentResults(runs=runs)
    assert results._repr_markdown_() == results_markdown(runs)
    table = ElementTree.fromstring(f"<div>{results._repr_html_().replace('<br>', '<br/>')}</div>").find("table")
    assert table is not None
    assert len(table.findall("tbody/tr")) == len(runs)
    assert results_html(runs).count("<p>") >= len(runs)


def test_no_name_is_markup(runs: tuple[Result, ...]) -> None:
    evil = msgspec.structs.replace(runs[0], model="<script>alert(1)</script>|**x**")
    page = results_html([evil])
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "<strong>" not in page


def test_charts_are_drawings_that_a_notebook_shows(runs: tuple[Result, ...]) -> None:
    charts = draw_charts(runs, Catalog())
    assert charts
    for svg in charts.values():
        assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert charts._repr_html_().count("<svg") == len(charts)
    assert "<?xml" not in charts._repr_html_()
