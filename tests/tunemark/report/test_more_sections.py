"""Sections on request: a run's rate over time, and two stores side by side; and charts as data."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tunemark.analysis.timeline import find_changes, make_timelines
from tunemark.cli.main import main
from tunemark.report import make_report
from tunemark.report.chart_types import LineChart
from tunemark.report.timeline_section import make_timeline_section
from tunemark.report.translation import make_translator
from tunemark.results import Estimate, Result
from tunemark_formats.chart_data import render_csv
from tunemark_formats.page import render

MadeRun = Callable[..., Result]


def _rate(value: float) -> Estimate:
    return Estimate(value=value, low=0.99 * value, high=1.01 * value, n=3, method="between-attempt t on log 95 %")


def _day(made_run: MadeRun, day: int, rate: float, **more: object) -> Result:
    started = {"started_utc": f"2026-11-{day:02}T08:00:00+00:00", "code_sha256": f"{day:02}" * 32}
    return made_run(tokens_per_s=_rate(rate), environment=started, **more)


def test_a_change_needs_three_series_on_each_side() -> None:
    levels = [math.log(x) for x in (1000, 1001, 999, 900, 901, 899)]
    assert find_changes(levels) == {3: pytest.approx(-0.1, abs=1e-3)}
    assert find_changes(levels[1:]) == {}
    assert find_changes(levels[:4]) == {}


def test_scatter_is_no_change_and_two_changes_are_two() -> None:
    noise = (0.010, -0.012, 0.003, 0.011, -0.009, -0.004, 0.007, -0.008)
    assert find_changes([math.log(1000) + x for x in noise]) == {}
    steps = [math.log(level) + x for level in (1000, 1200, 1100) for x in noise[:5]]
    found = find_changes(steps)
    assert sorted(found) == [5, 10]
    assert found[5] == pytest.approx(0.2, abs=0.01)


def test_equal_rates_have_no_change() -> None:
    assert find_changes([1.0] * 8) == {}
    assert find_changes([1.0] * 4 + [2.0] * 4) == {4: pytest.approx(math.e - 1)}


def test_a_time_line_is_in_the_order_of_time_without_invalid_series(made_run: MadeRun) -> None:
    days = [_day(made_run, day, 1000 + day) for day in (3, 1, 2)]
    days.append(_day(made_run, 4, 5000, verdict="invalid"))
    (one,) = make_timelines(days)
    assert [point.days for point in one.points] == [0, 1, 2]
    assert [point.code for point in one.points] == ["01010101", "02020202", "03030303"]
    assert make_timelines(days[:1]) == []


@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_page_marks_the_change(made_run: MadeRun, language: str) -> None:
    rates = [1000, 1002, 999, 1001, 900, 901, 899, 902]
    tr = make_translator(language)  # type: ignore[arg-type]  # both are languages
    section = make_timeline_section([_day(made_run, day, rate) for day, rate in enumerate(rates, 1)], tr)
    (chart,) = section.charts
    assert isinstance(chart, LineChart)
    assert [i for i, p in enumerate(chart.lines[0].points) if "-10.0 %" in p.note] == [4]
    assert len([line for line in chart.lines if line.kind == "ideal"]) == 2
    report = make_report([_day(made_run, 8, 902)], language=language, more=[section])  # type: ignore[arg-type]
    html = render(report).decode()
    assert 'data-chart="timeline-1"' in html
    assert html.index('id="timeline"') < html.index('id="throughput"')
    rows = list(csv.DictReader(io.StringIO(render_csv(report)["timeline-1.csv"].decode())))
    assert [float(row["y"]) for row in rows if row["origin"] == "measured"] == rates


def _store(folder: Path, factor: float) -> Path:
    example = Path(__file__).parents[3] / "reports/example/runs.jsonl"
    row = json.loads(example.read_text().splitlines()[0])
    for name in ("tokens_per_s", "slot_tokens_per_s", "trained_tokens_per_s"):
        row[name] = {**row[name], **{key: factor * row[name][key] for key in ("value", "low", "high")}}
    row["tokens_per_s_per_chip"] *= factor
    row["mfu"], row["hfu"], row["interval_s"] = factor * row["mfu"], factor * row["hfu"], row["interval_s"] / factor
    row["step_time_s"] = {key: value / factor for key, value in row["step_time_s"].items()}
    for attempt in row["each_attempt"]:
        attempt.update(name=f"{folder.name}-{attempt['name']}", tokens_per_s=factor * attempt["tokens_per_s"])
        attempt["interval_s"] /= factor
    folder.mkdir()
    (folder / "runs.jsonl").write_text(json.dumps(row) + "\n")
    return folder


def test_two_stores_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = _store(tmp_path / "before", 1.0), _store(tmp_path / "after", 0.8)
    main(["report", str(a), str(b), "--side-by-side", "-o", str(tmp_path / "out")])
    rows = list(csv.DictReader((tmp_path / "out/tables/side-by-side.csv").read_text().splitlines()))
    assert [row["outcome"] for row in rows] == ["slower"]
    assert float(rows[0]["ratio"]) == pytest.approx(0.8)
    assert float(rows[0]["ratio_high"]) < 1
    assert (tmp_path / "out/charts/side-by-side.svg").is_file()
    capsys.readouterr()
    assert main(["report", str(a), "--side-by-side", "-o", str(tmp_path / "x")]) == 2
    assert "give two" in capsys.readouterr().err
    assert main(["report", str(a), "--timeline"]) == 2
    assert "no effect without -o" in capsys.readouterr().err


def test_the_answer_is_shared_as_an_image_and_as_one_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    store = _store(tmp_path / "before", 1.0)
    for name in ("a.png", "a.svg", "a.pdf"):
        assert main(["share", str(store), "-o", str(tmp_path / name)]) == 0
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (1200, 630)
        assert len(image.convert("RGB").getcolors(100_000) or ()) > 10  # not blank
    svg = (tmp_path / "a.svg").read_text()
    stored = json.loads((store / "runs.jsonl").read_text())["tokens_per_s"]
    rate = f"{stored['value']:,.0f} ± {(stored['high'] - stored['low']) / 2:,.0f}"
    assert f">{rate}</text>" in svg
    assert "valid</text>" in svg
    pdf = (tmp_path / "a.pdf").read_bytes()
    assert pdf.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) == 1
    # A4 in points.
    box = re.search(rb"/MediaBox\s*\[\s*0\s+0\s+([\d.]+)\s+([\d.]+)", pdf)
    assert box is not None
    assert [float(side) for side in box.groups()] == pytest.approx([595, 842], abs=1)
    assert main(["share", str(store), "-o", str(tmp_path / "badge.json")]) == 0
    badge = json.loads((tmp_path / "badge.json").read_text())
    assert badge == {"schemaVersion": 1, "label": "tokens/s", "message": f"{rate} valid", "color": "brightgreen"}
    capsys.readouterr()
    assert main(["share", str(store), "-o", str(tmp_path / "a.gif")]) == 2
    assert ".png, .svg, .pdf" in capsys.readouterr().err


def test_a_scaling_is_a_sentence_of_the_answer_and_strategies_lie_over_each_other(made_run: MadeRun) -> None:
    def sizes(strategy: str, rates: tuple[float, float], verdict: str = "valid") -> list[Result]:
        found = []
        for n, rate in ((1, rates[0]), (2, rates[1])):
            attempt = made_run().each_attempt[0]
            attempts = tuple(
                msgspec.structs.replace(attempt, name=f"{strategy}-{n}-{at}", tokens_per_s=rate * factor)
                for at, factor in enumerate((0.99, 1.0, 1.01))
            )
            found.append(
                made_run(run_id=f"{strategy:0<15}{n}", size=str(n), chips=n, strategy_requested=strategy, attempts=3,
                         tokens_per_s=_rate(rate), tokens_per_s_per_chip=rate / n, data_ranks=n,
                         verdict=verdict if n == 1 else "valid", each_attempt=attempts)
            )  # fmt: skip
        return found

    report = make_report([*sizes("ddp", (1000, 1800)), *sizes("fsdp", (1000, 1500), "unknown")])
    sentences = {h.text.split(" · ")[3]: h for h in report.headlines if "an efficiency of" in h.text}
    assert "1.80" in sentences["ddp"].value
    assert "an efficiency of 90" in sentences["ddp"].text
    assert (sentences["ddp"].verdict, sentences["fsdp"].verdict) == ("valid", "unknown")
    (overlay,) = [chart for chart in report.charts if chart.key.startswith("scaling-overlay")]
    assert isinstance(overlay, LineChart)
    assert [(line.label, line.points[-1].y) for line in overlay.lines if line.kind == "points"] == [
        ("ddp", pytest.approx(1.8)), ("fsdp", pytest.approx(1.5)),
    ]  # fmt: skip
