"""What is predicted of runs whose rows differ in width: time by the mean of their data, memory by the widest."""

from __future__ import annotations

from typing import Any

import pytest

import tunemark
from tunemark.data import make_row_settings, measure_widths, prepare_data
from tunemark.plugin import Catalog
from tunemark.predict import predict
from tunemark.predict.absent_device import make_absent_device_search
from tunemark.predict.layout import RankLayout, Workload
from tunemark.predict.memory_fit import find_base_facts
from tunemark.predict.plan_conversion import convert_plan
from tunemark.predict.simulation import SimulationFailed, simulate_all

_BASE: dict[str, Any] = {
    "model": "mistral-tiny", "dataset": "synthetic:documents=200", "device": "cpu:1", "sequence": 512,
    "micro_batch": 2, "global_batch": 4, "batching": "bucket",
}  # fmt: skip


def _convert(**settings: Any) -> tuple[Workload, RankLayout]:
    (plan,) = tunemark.plan(**{**_BASE, **settings})
    found = convert_plan(plan)
    assert not isinstance(found, str), found
    return found


def test_time_is_of_the_mean_width_and_memory_of_the_widest(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEMARK_CACHE", str(tmp_path))
    (plan,) = tunemark.plan(**_BASE)
    widths = measure_widths(
        prepare_data(plan.dataset, plan.dataset_options, plan.model, "all"), make_row_settings(plan.spec)
    )
    assert 8 < widths.mean < widths.widest == 512
    facts = find_base_facts(plan)
    ours, mean, widest = (
        predict(*_convert(**settings), facts)
        for settings in ({}, {"batching": "pad", "sequence": round(widths.mean)}, {"batching": "pad"})
    )
    assert ours.seconds == mean.seconds
    assert ours.bytes == widest.bytes
    assert ours.tokens_per_step == 4 * round(widths.mean)
    # Where no document is as long as the sequence, less is held.
    shorter = _convert(dataset="synthetic:documents=200:longest=100")[0]
    assert shorter.widest == 104


def test_chips_that_are_not_here_are_predicted_by_the_same_rows(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEMARK_CACHE", str(tmp_path))
    point, *_ = tunemark.experiment.make_grid_points(
        tunemark.experiment.make_experiment({**_BASE, "device": "H100:2", "strategy": "auto"})
    )
    work = make_absent_device_search(point, Catalog()).question.work
    assert (work.sequence, work.widest) == (_convert()[0].sequence, 512)


def test_data_that_cannot_be_read_leave_the_prediction_open(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEMARK_CACHE", str(tmp_path))
    (plan,) = tunemark.plan(**{**_BASE, "dataset": f"alpaca:path={tmp_path / 'nowhere.json'}"})
    assert "how wide rows are is not known" in str(convert_plan(plan))


def test_one_width_is_not_stepped_for_many() -> None:
    (plan,) = tunemark.plan(**_BASE)
    (found,) = simulate_all([plan])
    assert isinstance(found, SimulationFailed)
    assert "many widths" in str(found.why)
