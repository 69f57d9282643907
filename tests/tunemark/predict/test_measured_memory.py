"""What runs held corrects what plans of the same kind are predicted to need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunemark.experiment import make_experiment, make_grid_points
from tunemark.experiment.planning import make_plan
from tunemark.plugin import Catalog
from tunemark.predict.measured_memory import find_measured_memory, fit_measured_memory, store_measured_memory
from tunemark.predict.memory_fit import predict_formula_memory, predict_plan_memory
from tunemark.predict.plan_prediction import predict_plan


def _plan(**flags: Any):  # type: ignore[no-untyped-def]  # a plan
    (point,) = make_grid_points(make_experiment({"model": "mistral-tiny", "device": "cpu:1", **flags}))
    return make_plan(point, Catalog())


def test_a_line_through_what_was_held() -> None:
    line = fit_measured_memory([(1e9, 2.5e9), (2e9, 4.5e9), (3e9, 6.5e9)])
    assert line is not None
    assert (line.factor, line.base_bytes, line.cells) == (pytest.approx(2.0), pytest.approx(0.5e9), 3)
    one = fit_measured_memory([(1e9, 1.6e9)])
    assert one is not None
    assert one.correct(2e9) == pytest.approx(2.6e9), "one size shows a constant"
    shrinking = fit_measured_memory([(1e9, 2e9), (2e9, 1.9e9)])
    assert shrinking is not None
    assert shrinking.factor == 1.0, "memory never falls with the batch"
    assert fit_measured_memory([]) is None


def test_plans_of_the_same_kind_are_corrected_and_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEMARK_CACHE", str(tmp_path))
    small, large = _plan(sequence="64", micro_batch="2"), _plan(sequence="128", micro_batch="8")
    held = {id(p): 1.5 * (predict_formula_memory(p) or 0) + 3e8 for p in (small, large)}
    line = fit_measured_memory([(predict_formula_memory(p) or 0, held[id(p)]) for p in (small, large)])
    assert line is not None
    store_measured_memory(small, line)
    other = _plan(sequence="256", micro_batch="4")
    assert find_measured_memory(other) == line
    wanted = 1.5 * (predict_formula_memory(other) or 0) + 3e8
    assert predict_plan_memory(other) == pytest.approx(wanted)
    found = predict_plan(other)
    assert not isinstance(found, str)
    assert found.predicted.memory_bytes == pytest.approx(wanted)
    low, high = found.predicted.memory_bounds_bytes
    assert low < wanted < high < 1.1 * wanted
    assert find_measured_memory(_plan(precision="fp32")) is None
    assert find_measured_memory(_plan(method="lora")) is None
