"""What a rung is worth, worked by hand, and which rungs of a ladder can be climbed at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tunemark.analysis.ladder import list_ladders, measure_ladder
from tunemark.errors import BadExperiment, BadStore
from tunemark.experiment import make_experiment
from tunemark.loading import load_runs
from tunemark.plugin import Catalog
from tunemark.report import write_report
from tunemark.report.ladder_text import ladder_sentence, ladder_text
from tunemark.report.translation import make_translator
from tunemark.results.result import Result, TimedTokens
from tunemark.results.studies import LadderRung, LadderStudy, read_studies, store_study
from tunemark.runner.ladder import plan_ladders

Made = Callable[..., Result]
_EN = make_translator("en")
_STUDY = LadderStudy(
    id="plain",
    title="toy",
    recipe="tuned-cpu-1",
    base="plain",
    rungs=(
        LadderRung(setting="batching", value="pack", plain="pad", why="no padding", run_id="pack"),
        LadderRung(setting="attention", value="flash", plain="eager", why="", reason="cpu has none"),
        LadderRung(setting="loss", value="fused", plain="plain", why="", run_id="fused"),
        LadderRung(setting="compile", value="regional", plain="off", why="", run_id="compiled"),
    ),
)


def _runs(made_run: Made) -> list[Any]:
    half, full = TimedTokens(slots=24000, content=12000, trained=1), TimedTokens(slots=24000, content=24000, trained=1)
    rates = (100.0, 102.0, 98.0)
    twice = tuple(2.5 * rate for rate in rates)
    return [
        made_run(rates, run_id="plain", every=4, tokens=half, peak_memory_bytes=4 << 30),
        made_run(twice, run_id="pack", minute=1, every=4, tokens=full, peak_memory_bytes=2 << 30),
        made_run((), run_id="fused", minute=2, status="oom", verdict="unknown"),
        made_run(
            tuple(1.25 * rate for rate in twice), run_id="compiled", minute=3, every=4, tokens=full,
            time_to_first_step_s=35.0,
        ),
    ]  # fmt: skip


def test_each_rung_is_compared_with_the_one_that_it_stands_on(made_run: Made) -> None:
    ladder = measure_ladder(_STUDY, {run.run_id: run for run in _runs(made_run)})
    assert ladder is not None
    plain, pack, flash, fused, compiled = ladder.steps
    assert (plain.ratio, plain.is_climbed) == (None, True)
    assert pack.ratio is not None
    assert pack.ratio.value == pytest.approx(2.5)
    assert pack.ratio.method == "paired t on log 95 %", "attempts were taken in rounds"
    # Half of the padded slots are content, so slots are 2.5 / 2 times as fast.
    assert pack.slot_ratio is not None
    assert pack.slot_ratio.value == pytest.approx(1.25)
    assert pack.memory_ratio == 0.5
    assert (flash.reason, flash.run_id) == ("cpu has none", None)
    assert fused.reason.startswith("it ended with oom")
    # The rung above a failed one stands on the one below it.
    assert compiled.ratio is not None
    assert compiled.ratio.value == pytest.approx(1.25)
    assert compiled.total is not None
    assert compiled.total.value == pytest.approx(3.125)
    assert ladder.total == compiled.total
    # 800 content tokens a step take 3.2 s below and 2.56 s here; the first step ends 32 s later: 50 steps.
    assert compiled.pays_back_steps == pytest.approx(50, rel=0.01)


def test_the_sentence_says_what_each_rung_gives(made_run: Made) -> None:
    (ladder,) = list_ladders([_STUDY], _runs(made_run))
    words = ladder_sentence(ladder, _EN)
    assert words == "batching pack gives 2.5x, compile regional gives 1.2x and pays back after 50 steps; together 3.1x."
    text = ladder_text(ladder, _EN)
    assert "- attention flash was not climbed: cpu has none" in text
    assert "| batching pad → pack | pack | 250" in text
    korean = ladder_sentence(ladder, make_translator("ko"))
    assert "2.5x" in korean
    assert "gives" not in korean


def test_a_rung_without_a_shown_difference_is_not_praised(made_run: Made) -> None:
    same = made_run((101.0, 99.0, 100.0), run_id="pack", minute=1, every=4)
    base = made_run((100.0, 102.0, 98.0), run_id="plain", every=4)
    study = msgspec.structs.replace(_STUDY, rungs=_STUDY.rungs[:1])
    (ladder,) = list_ladders([study], [base, same])
    assert ladder_sentence(ladder, _EN) == "batching pack shows no difference."
    assert list_ladders([study], [same]) == [], "without its base there is no ladder"


def test_a_stored_ladder_is_in_later_reports(made_run: Made, tmp_path: Path) -> None:
    store_study(_STUDY, tmp_path / "runs")
    assert read_studies(tmp_path / "runs") == [_STUDY]
    folder = tmp_path / "report"
    write_report(_runs(made_run), folder, Catalog(), studies=[_STUDY], language="ko")
    assert "2.5x" in (folder / "report.md").read_text()
    assert 'data-region="rung"' in (folder / "report.html").read_text()
    assert (folder / "charts/ladder-1.svg").is_file()
    assert load_runs([folder], lambda result: result).studies == [_STUDY]
    (tmp_path / "runs/studies/plain.json").write_text('{"kind": "ladder"}')
    with pytest.raises(BadStore, match="is no study"):
        read_studies(tmp_path / "runs")


def test_a_rung_that_was_given_or_refused_is_named() -> None:
    flags = {"model": "mistral-tiny", "device": "cpu:1", "sequence": "64", "micro_batch": "1"}
    catalog = Catalog()
    (planned,) = plan_ladders(make_experiment(flags), catalog)
    first = next(rung for rung in planned.rungs if rung.setting == "batching")
    assert planned.base.spec.batching == "pad"
    assert first.reason == ""
    batching = [plan.spec.batching for plan in planned.plans]
    assert set(batching[batching.index("pack") :]) == {"pack"}
    assert len({planned.base.run_id, *(plan.run_id for plan in planned.plans)}) == len(planned.plans) + 1
    given = {rung.setting: "pack" for rung in planned.rungs if rung.setting == "batching"}
    if len(planned.rungs) == 1:
        with pytest.raises(BadExperiment, match="has no rung to climb"):
            plan_ladders(make_experiment({**flags, **given}), catalog)
        return
    (other,) = plan_ladders(make_experiment({**flags, **given}), catalog)
    assert "was given (flag --batching)" in next(r.reason for r in other.rungs if r.setting == "batching")
    assert other.base.spec.batching == "pack"
