"""The same from Python: results as objects and as a DataFrame."""

from __future__ import annotations

from pathlib import Path

import pytest

import tunemark
from tunemark.errors import BadExperiment

_FEW = {"model": "mistral-tiny", "dataset": "synthetic", "device": "cpu:1", "sequence": 32, "micro_batch": 2}


def test_results_are_objects_and_a_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEMARK_CACHE", str(tmp_path / "cache"))
    results = tunemark.run(
        **_FEW, batching=["pad", "pack"], steps=2, warmup=1, repeats=1, no_measure_peak=True,
        store=str(tmp_path / "runs"), output=str(tmp_path / "out"),
    )  # fmt: skip
    pad, pack = results.runs
    assert (pad.batching, pack.batching) == ("pad", "pack")
    assert pack.status == "ok"
    assert pack.steps_measured == 2
    assert pack.tokens_per_s is not None
    frame = results.frame()
    assert list(frame["run_id"]) == [pad.run_id, pack.run_id]
    assert frame["tokens_per_s"][1] == pack.tokens_per_s.value
    assert frame["tokens_per_s_low"].isna().all()
    assert frame["tokens_per_s_method"][0].startswith("none: fewer than")
    assert (tmp_path / "out/report.md").exists()
    assert not (Path.cwd() / "runs" / pack.run_id).exists()


def test_plans_touch_nothing(tmp_path: Path) -> None:
    plans = tunemark.plan(**_FEW, global_batch=[2, 4], store=str(tmp_path / "runs"))
    assert [p.gradient_accumulation for p in plans] == [1, 2]
    assert not (tmp_path / "runs").exists()


def test_a_setting_that_is_none_is_refused() -> None:
    with pytest.raises(BadExperiment, match="micro_batch"):
        tunemark.plan(micro_bach=2)
    with pytest.raises(BadExperiment, match="plan"):
        tunemark.run(dry_run=True)
    with pytest.raises(BadExperiment, match="dry-run"):
        tunemark.scale(mode="strong", dry_run=True)


def test_a_scaling_of_one_size_is_refused() -> None:
    with pytest.raises(BadExperiment, match="two sizes or more"):
        tunemark.scale(**_FEW, mode="weak")
