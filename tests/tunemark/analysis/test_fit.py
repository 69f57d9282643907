"""Which micro-batches fit, by their runs, and what is written and drawn of that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import tomllib

from tunemark.analysis.fit import list_fits, map_fit
from tunemark.errors import BadExperiment
from tunemark.experiment import make_experiment, make_grid_points
from tunemark.experiment.planning import make_plan
from tunemark.plugin import Catalog
from tunemark.report import make_report
from tunemark.report.chart_types import LineChart
from tunemark.report.fit_text import fit_sentence, fit_text
from tunemark.report.translation import Language, make_translator
from tunemark.results import Result
from tunemark.results.studies import FitCell, FitRow, FitStudy
from tunemark.runner.fit import make_answer, plan_fit
from tunemark_formats import page

Made = Callable[..., Result]
_EN = make_translator("en")
_GIB = 1 << 30


def _study(*rows: FitRow) -> FitStudy:
    return FitStudy(id="ab", title="toy", limit_bytes=4 * _GIB, limit="4 GiB", rows=rows)


def _cells(*sizes: int, prefix: str = "r") -> tuple[FitCell, ...]:
    return tuple(FitCell(micro_batch=n, predicted_bytes=float(n * _GIB), run_id=f"{prefix}{n}") for n in sizes)


def _runs(made_run: Made, prefix: str = "r") -> list[Result]:
    def cell(size: int, rates: tuple[float, ...], **more: object) -> Result:
        return made_run(rates, run_id=f"{prefix}{size}", micro_batch=size, **more)

    row = made_run((), status="oom").each_attempt
    assert row == ()
    return [
        cell(1, (100.0,), peak_memory_bytes=_GIB),
        cell(2, (150.0, 151.0, 149.0), peak_memory_bytes=2 * _GIB),
        cell(3, (140.0, 141.0, 139.0), peak_memory_bytes=3 * _GIB, minute=1),
        cell(4, (145.0,), peak_memory_bytes=5 * _GIB),
        cell(8, (), status="oom", verdict="unknown", requested_bytes=_GIB, peak_memory_bytes=4 * _GIB),
    ]


def test_a_cell_fits_where_it_ran_and_held_no_more_than_the_limit(made_run: Made) -> None:
    found = map_fit(
        _study(FitRow(settings={}, cells=_cells(1, 2, 3, 4, 8, 16))), {r.run_id: r for r in _runs(made_run)}
    )
    (row,) = found.rows
    assert [cell.answer for cell in row.cells] == ["fits"] * 3 + ["does not fit"] * 2 + ["not measured"]
    assert "more than the 4,294,967,296" in row.cells[3].evidence
    assert (row.largest, row.too_large, row.fastest, row.next_best, row.is_exact) == (3, 4, 2, 3, True)
    assert row.ratio is not None
    assert row.ratio.value == pytest.approx(150 / 140, rel=1e-3)
    assert row.cells[1].predicted_over_measured == 1.0
    words = fit_sentence(row, _EN)
    assert words.startswith("3 is the largest micro-batch that fits: 4 does not. 2 is the fastest: 1.07")


def test_what_is_not_known_is_not_said(made_run: Made) -> None:
    runs = {r.run_id: r for r in _runs(made_run)}
    (gap,) = map_fit(_study(FitRow(settings={}, cells=_cells(2, 3, 5, 8))), runs).rows
    assert not gap.is_exact or gap.too_large == 8
    (alone,) = map_fit(_study(FitRow(settings={}, cells=_cells(1))), runs).rows
    assert fit_sentence(alone, _EN) == (
        "1 is the largest micro-batch that was measured, and fits. 1 is the only one with a rate."
    )
    (none,) = map_fit(_study(FitRow(settings={}, cells=_cells(8))), runs).rows
    assert fit_sentence(none, _EN) == "No micro-batch fits: 8 does not."
    failed = made_run((), run_id="r1", status="error", verdict="unknown")
    (broken,) = map_fit(_study(FitRow(settings={}, cells=_cells(1))), {"r1": failed}).rows
    assert broken.cells[0].answer == "failed", "an error says nothing of memory"
    assert broken.largest is None


@pytest.mark.parametrize("language", ["en", "ko"])
def test_a_map_is_in_reports_of_both_languages(made_run: Made, language: Language) -> None:
    rows = (FitRow(settings={"sequence": "512"}, cells=_cells(1, 2, 8)),
            FitRow(settings={"sequence": "1024"}, cells=_cells(1, 8, prefix="s")))  # fmt: skip
    results = [*_runs(made_run), *_runs(made_run, "s")]
    report = make_report(results, studies=[_study(*rows)], language=language)
    (section,) = (section for section in report.sections if section.key == "fit")
    assert [chart.key for chart in section.charts] == ["fit-1-memory", "fit-1-rates"]
    grid, cells = section.tables
    assert [row[1:] for row in grid.rows] == [("100", "150", "✕"), ("100", None, "✕")]
    assert len(cells.rows) == 5
    assert "✕" in bytes(page.render(report)).decode()


def test_memory_is_drawn_with_the_line_through_it_and_the_limit(made_run: Made) -> None:
    report = make_report(_runs(made_run), studies=[_study(FitRow(settings={}, cells=_cells(1, 2, 3, 8)))])
    (section,) = (section for section in report.sections if section.key == "fit")
    memory = section.charts[0]
    assert isinstance(memory, LineChart)
    drawn = {line.label: (line.kind, [(point.x, point.y) for point in line.points]) for line in memory.lines}
    assert drawn == {
        "measured": ("points", [(1, 1.0), (2, 2.0), (3, 3.0)]),
        "predicted": ("points", [(1, 1.0), (2, 2.0), (3, 3.0), (8, 8.0)]),
        # Also where nothing was held, as far as something is predicted.
        "line through the measured": ("curve", [(1, 1.0), (2, 2.0), (3, 3.0), (8, 8.0)]),
        "limit": ("ideal", [(1, 4.0), (8, 4.0)]),
    }
    alone = make_report(_runs(made_run), studies=[_study(FitRow(settings={}, cells=_cells(1, 8)))])
    (section,) = (section for section in alone.sections if section.key == "fit")
    labels = [line.label for chart in section.charts[:1] if isinstance(chart, LineChart) for line in chart.lines]
    assert labels == ["measured", "predicted", "limit"], "one size is no line"


def test_the_map_on_a_terminal(made_run: Made) -> None:
    rows = (FitRow(settings={"sequence": "512"}, cells=_cells(1, 2, 8)),
            FitRow(settings={"sequence": "1024"}, cells=_cells(1, 8, prefix="s")))  # fmt: skip
    results = [*_runs(made_run), *_runs(made_run, "s")]
    (found,) = list_fits([_study(*rows)], results)
    assert "| sequence 1024 | 100 |  | ✕ |" in fit_text(found, _EN)
    assert list_fits([_study(*rows)], []) == []


def test_memory_without_a_chip_is_a_limit() -> None:
    catalog = Catalog()

    def plan(**flags: object):  # type: ignore[no-untyped-def]  # a plan
        (point,) = make_grid_points(make_experiment({"model": "mistral-tiny", **flags}))
        return make_plan(point, catalog)

    limited, free = plan(device="cpu:1", memory="0.5"), plan(device="cpu:1")
    assert limited.launch.options["memory_limit_bytes"] == _GIB // 2
    assert limited.accelerator.memory_bytes == _GIB // 2
    assert any("beyond 0.5 GiB fails" in note for note in limited.notes)
    assert "memory_limit_bytes" not in free.launch.options
    assert limited.run_id == free.run_id, "it is the same run, which may fail here"
    with pytest.raises(BadExperiment, match="is more than cpu:1 has"):
        plan(device="cpu:1", memory="1e6")
    with pytest.raises(BadExperiment, match="cannot be held to less memory"):
        plan(device="cuda:1", oversubscribe=True, memory="8")
    declared = plan(device="cpu:1", chip="h100", chips="1", memory="2")
    assert "memory_limit_bytes" not in declared.launch.options


def test_rows_and_limits_are_planned_and_answered(tmp_path: Path) -> None:
    flags = {"model": "mistral-tiny", "device": "cpu:1", "sequence": "64,128", "memory": "2", "store": "s"}
    with pytest.raises(BadExperiment, match="cannot be measured in a few steps"):
        plan_fit(make_experiment({**flags, "batching": "pad,bucket"}), Catalog(), None)
    planned = plan_fit(make_experiment(flags), Catalog(), None)
    assert planned.limit_bytes == 2 * _GIB
    assert [row.settings for row in planned.rows] == [{"sequence": "64"}, {"sequence": "128"}]
    assert planned.rows[0].candidates[:3] == (1, 2, 3)
    assert planned.rows[0].first.spec.steps == 8
    answer = tomllib.loads(make_answer(planned.rows[1], 6, ["why"]))
    assert answer == {"device": "cpu", "size": "1", "sequence": 128, "micro_batch": 6}
    (plan,) = (make_plan(point, Catalog()) for point in make_grid_points(_read(tmp_path, planned.rows[1], 6)))
    assert (plan.spec.micro_batch, plan.spec.sequence, plan.spec.steps) == (6, 128, None)
    given = plan_fit(make_experiment({**flags, "micro_batch": "4,1,2", "steps": "3"}), Catalog(), None)
    assert given.rows[0].candidates == (1, 2, 4)
    assert given.rows[0].first.spec.steps == 3
    whole = plan_fit(make_experiment({**flags, "global_batch": "12"}), Catalog(), None)
    assert whole.rows[0].candidates == (1, 2, 3, 4, 6, 12)
    safe = plan_fit(make_experiment({**flags, "memory": None}), Catalog(), 1 << 30)  # type: ignore[dict-item]
    assert safe.limit_bytes is not None
    assert 0.88 * _GIB < safe.limit_bytes < 0.91 * _GIB


def _read(folder: Path, row: object, size: int):  # type: ignore[no-untyped-def]  # an experiment
    path = folder / "fit.toml"
    path.write_text(make_answer(row, size, ["why"]))  # type: ignore[arg-type]
    return make_experiment({}, path)


def test_a_study_is_read_as_it_was_written() -> None:
    study = _study(FitRow(settings={"sequence": "64"}, cells=_cells(1, 2)))
    assert msgspec.json.decode(msgspec.json.encode(study), type=FitStudy) == study
