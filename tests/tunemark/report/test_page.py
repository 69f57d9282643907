"""The page: every number is the stored one, no name runs, what is missing is said, and nothing is drawn falsely."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tunemark.loading import decode_any_schema, load_runs
from tunemark.plugin import Catalog, Finding
from tunemark.report import make_report, write_report
from tunemark.results import Result
from tunemark.results.result import encode_result
from tunemark.results.trace import Trace, TraceWindow, encode_traces, read_traces, thin_windows
from tunemark_formats.chart_files import render_svg
from tunemark_formats.page import MAX_BYTES, render

MadeRun = Callable[..., Result]
_EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>|`*[x](javascript:alert(3))'


class _Page(HTMLParser):
    """Elements by name, and the text of every cell by its column."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[tuple[str, str]] = []
        self._column: str | None = None
        self._skips = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.append((tag, named))
        if "data-c" in named:
            self._column = named["data-c"]
            self.cells.append((self._column or "", ""))
        # The working beside a number is not the number.
        elif tag == "div" and self._column is not None:
            self._skips += 1

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._column = None
        elif tag == "div" and self._skips:
            self._skips -= 1

    def handle_data(self, data: str) -> None:
        if self._column is not None and not self._skips:
            name, text = self.cells[-1]
            self.cells[-1] = (name, text + data.strip())


def page(*results: Result, **options: Any) -> str:
    return render(make_report(results, **options)).decode()


def test_no_name_is_ever_markup(made_run: MadeRun) -> None:
    evil = made_run(
        model=_EVIL, size=_EVIL, strategy_requested=_EVIL, dataset=_EVIL, chip=_EVIL, environment={_EVIL: _EVIL},
        findings=(Finding(rule=_EVIL, severity="note", message=_EVIL),), stop_reason=_EVIL,
    )  # fmt: skip
    other = made_run(run_id="f" * 16, strategy_requested="none", size=_EVIL, breakdown_s={_EVIL: 1.0}, breakdown=True)
    found = _Page(page(evil, other))
    assert [tag for tag, _ in found.tags].count("script") == 4
    assert not [tag for tag, named in found.tags if tag == "img" or any(name.startswith("on") for name in named)]
    assert not [v for _, named in found.tags if (v := named.get("href")) and "javascript" in v]
    for svg in render_svg(make_report([evil, other])).values():
        assert b"<script" not in svg
        assert b"<img" not in svg


def test_a_script_runs_by_its_hash_alone(made_run: MadeRun) -> None:
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page(made_run()))
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.findall(r'(?:src|href)="https?:', page(made_run()))


def test_nothing_at_all_is_a_page_that_says_so() -> None:
    assert "There is no run here" in page()


def test_failed_runs_are_said_and_never_zero(made_run: MadeRun) -> None:
    failed = made_run(
        (), status="oom", verdict="unknown", slot_tokens_per_s=None, trained_tokens_per_s=None, peak_memory_bytes=None,
        requested_bytes=3 << 30, padding_fraction=None, attempts=1,
    )  # fmt: skip
    html = page(failed)
    assert "no rate, out of memory" in html
    assert "✕ out of memory" in html
    assert "No run has a rate" in html
    assert ("requested_bytes", "3.000") in _Page(html).cells
    assert not [text for name, text in _Page(html).cells if name == "tokens_per_s" and text not in ("unknown", "")]


def test_runs_of_three_schemas_are_one_report(made_run: MadeRun, tmp_path: Path) -> None:
    newest = json.loads(encode_result(made_run(run_id="a" * 16)))
    older = {k: v for k, v in newest.items() if k not in ("hfu", "energy_j", "schema", "checkpointing", "setup_s")}
    newer = {**newest, "run_id": "c" * 16, "schema": 99, "flavour": "new"}
    lines = [newest, {**older, "run_id": "b" * 16, "schema": 0}, newer, {"schema": 1, "run_id": "d"}, "no run"]
    (tmp_path / "runs.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n{")
    found = load_runs([tmp_path], lambda result: result)
    assert [r.run_id[0] for r in found.results] == ["a", "b", "c"]
    assert [r.verdict for r in found.results] == ["valid", "unknown", "unknown"]
    assert "flavour" in str(found.results[2].findings)
    assert [each.place[-1] for each in found.unread] == ["4", "5", "6"]
    assert "3 entries could not be read" in page(*found.results, unread=found.unread)


def test_a_line_without_a_run_is_refused() -> None:
    with pytest.raises(ValueError, match="no run_id"):
        decode_any_schema("{}")


def test_a_million_steps_keep_their_extremes_and_a_small_page(made_run: MadeRun) -> None:
    windows = [TraceWindow(i + 1, float(i), 1.0 + (i == 777_777) - 0.5 * (i == 42), 8, 8, 8) for i in range(1_000_000)]
    kept = thin_windows(windows, 400)
    assert len(kept) <= 402
    assert {windows[0], windows[42], windows[777_777], windows[-1]} <= set(kept)
    run = made_run()
    trace = Trace(
        run_id=run.run_id,
        attempt=run.each_attempt[0].name,
        rank=0,
        first=2,
        last=10**6,
        windows=10**6,
        kept=tuple(kept),
    )
    html = page(run, traces={run.run_id: [trace]})
    assert f"{len(kept)} of 1,000,000 windows are drawn" in html
    assert len(html.encode()) < MAX_BYTES


def test_all_of_a_million_steps_in_a_file_are_thinned(tmp_path: Path) -> None:
    kept = tuple(TraceWindow(i + 1, float(i), 1.0 + (i == 5), 8, 8, 8) for i in range(20_000))
    trace = Trace(run_id="a", attempt="b", rank=0, first=2, last=20_000, windows=20_000, kept=kept)
    (tmp_path / "steps.jsonl").write_bytes(encode_traces([trace]))
    (found,) = read_traces(tmp_path)
    assert len(found.kept) <= 402
    assert {kept[0], kept[5], kept[-1]} <= set(found.kept)


def test_thousands_of_runs_stay_under_two_megabytes(made_run: MadeRun) -> None:
    runs = [made_run((100.0 + i,), run_id=f"{i:016x}", seed=i) for i in range(1500)]
    html = page(*runs)
    assert len(html.encode()) < 2_000_000
    assert "more rows are in report.csv" in html


def test_what_is_simulated_is_told_in_words_and_shape(made_run: MadeRun) -> None:
    drawn = render_svg(make_report([made_run(simulated=True), made_run(run_id="b", size="2")]))
    assert b'data-mark="simulated"' not in drawn["throughput.svg"]
    svg = drawn["throughput-simulated.svg"].decode()
    assert svg.count('data-mark="simulated"') == 2  # the row and the legend
    assert "simulated</text>" in svg
    assert "Simulated, so it says nothing of speed" in page(made_run(simulated=True))


def test_runs_of_one_id_in_two_stores_are_two(made_run: MadeRun, tmp_path: Path) -> None:
    before, after = made_run(), made_run((200.0, 201.0), minute=30)
    for name, run in (("before", before), ("after", after)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "runs.jsonl").write_text(encode_result(run) + "\n")
        trace = Trace(run_id=run.run_id, attempt=run.each_attempt[0].name, rank=0, first=0, last=1, windows=1,
                      kept=(TraceWindow(1, 1.0, 1.0, 8, 8, 8),))  # fmt: skip
        (tmp_path / name / "steps.jsonl").write_bytes(encode_traces([trace]))
    found = load_runs([tmp_path / "before", tmp_path / "after"], lambda result: result)
    report = make_report(found.results, traces=found.traces)
    assert len(set(report.names.values())) == 2
    assert [detail.traces[0].attempt for detail in report.details] == [r.each_attempt[0].name for r in (before, after)]
    ids = [named["id"] for _, named in _Page(render(report).decode()).tags if "id" in named]
    assert len(set(ids)) == len(ids)


def test_a_report_keeps_no_name_of_its_machine(made_run: MadeRun, tmp_path: Path) -> None:
    environment = {"host": {"name": "secret-host", "processor": "P"}, "interpreter": {"path": "/home/me/python"}}
    for path in write_report([made_run(environment=environment)], tmp_path, Catalog()):
        content = path.read_bytes()
        assert b"secret-host" not in content
        assert b"/home/me" not in content
