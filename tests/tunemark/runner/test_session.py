"""A session's runs: what is searched, refused and derived before any device is used."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tunemark.errors import BadExperiment
from tunemark.experiment import derive_plan, make_experiment, make_grid_points, make_plans
from tunemark.plugin import Catalog
from tunemark.predict import layout_choice
from tunemark.runner import run_experiment
from tunemark.runner.device_lock import LOCKS_VARIABLE, hold_devices
from tunemark.runner.observer import RunObserver

CATALOG = Catalog()


def _plans(**settings: Any) -> Any:
    experiment = make_experiment({"model": "mistral-tiny", "dataset": "synthetic", "device": "cpu:1", **settings})
    return experiment, make_plans(make_grid_points(experiment), CATALOG)


def test_a_layout_is_searched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, swept = [], []
    search = layout_choice.search_layouts
    monkeypatch.setattr(layout_choice, "search_layouts", lambda *a, **k: asked.append(a) or search(*a, **k))
    monkeypatch.setattr(run_experiment, "run_sweep", lambda ready, session: swept.extend(ready) or [])
    experiment, plans = _plans(strategy="auto:trials=0", steps=4, store=str(tmp_path))
    run_experiment.run_experiment(experiment, plans, CATALOG, RunObserver())
    assert len(asked) == 1
    (ready,) = swept
    assert (ready.plan.run_id, ready.plan.strategy.name) == (plans[0].run_id, "none")
    assert ready.search is not None


def test_every_run_is_refused_before_any_layout_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []
    monkeypatch.setattr(run_experiment, "choose_layout", lambda *a: tried.append(a))
    settings = {"strategy": ["auto:trials=1", "none"], "steps": 4, "store": str(tmp_path), "python": "/no/such/python"}
    with pytest.raises(BadExperiment):
        run_experiment.run_experiment(*_plans(**settings), CATALOG, RunObserver())
    assert not tried


def test_a_derived_plan_is_what_its_settings_would_give() -> None:
    _, (plan,) = _plans(steps=9, micro_batch=2, global_batch=8)
    _, (wanted,) = _plans(steps=9, micro_batch=4, global_batch=8)
    assert derive_plan(plan, CATALOG, micro_batch=4) == wanted
    assert plan.with_spec(steps=5).spec.steps == 5
    assert plan.with_spec(steps=5).run_id == _plans(steps=5, micro_batch=2, global_batch=8)[1][0].run_id


def _measure_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, between: Callable[[], object], **settings: Any
) -> run_experiment.ExperimentResults:
    """Two attempts of one run, and what happens after the first."""
    monkeypatch.setenv(LOCKS_VARIABLE, str(tmp_path / "locks"))
    monkeypatch.setenv("TUNEMARK_CACHE", str(tmp_path / "cache"))
    words: dict[str, Any] = {"sequence": 16, "steps": 2, "warmup": 0, "repeats": 2, "target_interval": 0.0}
    words.update(no_measure_peak=True, store=str(tmp_path / "runs"))
    experiment, plans = _plans(**words, **settings)
    observer = RunObserver(ended=lambda ready, end: between())
    return run_experiment.run_experiment(experiment, plans, CATALOG, observer)


@pytest.mark.full
def test_a_token_file_that_is_gone_ends_its_attempt_and_not_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remove() -> None:
        for path in tmp_path.glob("cache/tokens/*.tokens*"):
            path.unlink()

    (result,) = _measure_twice(tmp_path, monkeypatch, remove).runs
    assert [each.status for each in result.each_attempt] == ["ok", "error"]
    assert "is not a token file" in result.each_attempt[1].evidence


@pytest.mark.full
def test_a_device_that_is_taken_between_two_attempts_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as held:

        def take() -> None:
            names = [path.stem.removeprefix("tunemark-") for path in tmp_path.glob("locks/*.lock")]
            held.enter_context(hold_devices(names, say=print, is_waiting_allowed=False))

        measured = _measure_twice(tmp_path, monkeypatch, take, no_wait=True)
    assert "another measurement has" in str(measured.refused)
    (result,) = measured.runs
    assert [each.status for each in result.each_attempt] == ["ok"]
