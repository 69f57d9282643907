"""What is made of measurements: constants that were put in are found again, and hold only where they were measured."""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

from tunemark.cli.main import main
from tunemark.experiment import make_experiment, make_grid_points, make_plan
from tunemark.physics import make_architecture
from tunemark.plugin import Catalog
from tunemark.predict import DeviceFacts, Efficiency, RankLayout, Workload, predict
from tunemark.predict.calibration import (
    FORMULA_MODULES,
    Calibration,
    CalibrationFingerprint,
    ParallelismCost,
    count_mechanism_units,
    find_calibration,
    predict_calibrated,
    store_calibration,
)
from tunemark.predict.calibration_fit import ProbeStep, compute_residual, fit_calibration, make_facts_from_kernels
from tunemark.predict.search_problem import make_calibration_fingerprint, make_hardware_model

_FACTS = DeviceFacts(
    name="a machine", kind="cpu", peak_flops={"bf16": 4e11, "fp32": 2e11}, memory_bytes=None,
    bandwidth_bytes_per_s=20e9, node=2, intra_bytes_per_s=1e9, inter_bytes_per_s=1e9, intra_s=1e-4, inter_s=1e-4,
    efficiency=Efficiency(
        gemm={"bf16": 1.0, "fp32": 1.0}, gemm_tile=32.0, attention=0.2, memory=1.0, intra=1.0, host_s=2e-5,
        data_hidden=0.0, step_s=2e-3, straggle=0.0,
    ),
)  # fmt: skip
_MODELS = [
    make_architecture(layers=4, hidden=h, intermediate=3 * h, is_gated=True, heads=8, kv_heads=8, vocab=v, sequence=256)
    for h, v in ((256, 8192), (128, 24576))
]
_FINGERPRINT = CalibrationFingerprint(device="cpu", chip="core of a machine", processes=2, threads=1, torch="2.13.0")


def _step(architecture, layout, mechanisms=(), batch=8):
    return ProbeStep(
        name=str(layout),
        work=Workload(architecture=architecture, sequence=256, global_batch=batch),
        layout=layout,
        mechanisms=mechanisms,
        measured_s=0.0,
    )


def _taken(steps, facts, mechanisms=None):
    """The steps as a machine of those facts would take them."""
    return [replace(s, measured_s=predict_calibrated(s.work, s.layout, facts, mechanisms).step_time_s) for s in steps]


def test_kernels_give_peak_bandwidth_and_links():
    # 2 x 1000^3 FLOP in 10 ms are 2e11; 12 MB in 1 ms are 12 GB/s. An all-gather of two passes half its payload.
    records = [
        {"kind": "product", "precision": "fp32", "m": 1000, "k": 1000, "n": 1000, "seconds": 0.01},
        {"kind": "stream", "bytes": 12e6, "seconds": 1e-3},
        {"kind": "launch", "operations": 300, "seconds": 4e-6},
        *({"kind": "all_gather", "size": 2, "bytes": b, "seconds": 1e-4 + b / 2 / 1e9} for b in (1e3, 1e6, 1e7)),
        {"kind": "all_reduce", "size": 2, "bytes": 1e6, "seconds": None, "error": "not offered"},
    ]
    found = make_facts_from_kernels(records, _FACTS)
    assert found.peak_flops["fp32"] == pytest.approx(2e11)
    assert found.bandwidth_bytes_per_s == pytest.approx(12e9)
    assert found.efficiency.host_s == pytest.approx(4e-6)
    assert (found.intra_bytes_per_s, found.intra_s) == pytest.approx((1e9, 1e-4), rel=1e-3)
    assert found.peak_flops["bf16"] == 4e11


def test_whole_steps_correct_what_kernels_have_wrong():
    layouts = [RankLayout(micro_batch=m, recompute=r) for m in (1, 2, 4) for r in ("none", "full")]
    steps = _taken([_step(a, layout) for a in _MODELS for layout in layouts], _FACTS)
    wrong = replace(_FACTS, efficiency=replace(_FACTS.efficiency, gemm={"bf16": 0.6}, memory=0.5, host_s=1e-5))
    found, mechanisms, probes = fit_calibration(wrong, steps)
    assert mechanisms == {}
    assert max(abs(p.predicted_s / p.measured_s - 1) for p in probes) < 0.02
    other = make_architecture(
        layers=6, hidden=192, intermediate=500, is_gated=True, heads=8, kv_heads=8, vocab=16000, sequence=256
    )
    work = Workload(architecture=other, sequence=256, global_batch=8)
    layout = RankLayout(micro_batch=2)
    truth = predict(work, layout, _FACTS).step_time_s
    assert predict(work, layout, found).step_time_s == pytest.approx(truth, rel=0.05)
    assert predict(work, layout, wrong).step_time_s != pytest.approx(truth, rel=0.2)


def test_what_each_mechanism_adds_is_found_again():
    truth = {
        "data": ParallelismCost(communication=2.0, unit_s=0.0),
        "tensor": ParallelismCost(communication=1.5, unit_s=4e-3),
    }
    steps = [_step(a, RankLayout(micro_batch=4)) for a in _MODELS]
    steps += [_step(a, RankLayout(data=2, micro_batch=m), ("data",)) for a in _MODELS for m in (1, 4)]
    steps += [_step(a, RankLayout(tensor=2, micro_batch=m), ("tensor",)) for a in _MODELS for m in (1, 4)]
    # Links so slow that communication is a good part of a step: what cannot be seen stays near the prediction.
    slow = replace(_FACTS, intra_bytes_per_s=5e7)
    _, found, probes = fit_calibration(slow, _taken(steps, slow, truth))
    assert 1.5 < found["data"].communication < 2.2
    assert found["tensor"].unit_s == pytest.approx(4e-3, rel=0.25)
    assert compute_residual(probes) < 0.04


def test_a_mechanism_adds_once_for_each_unit_of_its_work():
    work = Workload(architecture=_MODELS[0], sequence=256, global_batch=8)
    # 4 layers; 8 sequences in micro-batches of 2 on one replica are 4 of them, on two replicas 2.
    assert count_mechanism_units(work, RankLayout(tensor=2, micro_batch=2)) == {"tensor": 16.0}
    # Four layers and the ends: two passes of both micro-batches, and a scatter.
    assert count_mechanism_units(work, RankLayout(data=2, shard=2, zero=3, micro_batch=2)) == {"shard": 25.0}
    assert count_mechanism_units(work, RankLayout(data=2, micro_batch=2)) == {"data": 5.0}
    assert count_mechanism_units(work, RankLayout(pipeline=2, virtual=2, schedule="interleaved", micro_batch=2)) == {
        "pipeline": 8.0
    }
    kept = RankLayout(micro_batch=2, recompute="selective")
    assert count_mechanism_units(work, kept) == {"selective": 16.0}
    plain = predict(work, RankLayout(tensor=2, micro_batch=2), _FACTS).step_time_s
    more = predict_calibrated(
        work, RankLayout(tensor=2, micro_batch=2), _FACTS, {"tensor": ParallelismCost(unit_s=1e-3)}
    ).step_time_s
    assert more - plain == pytest.approx(16e-3)
    again = predict_calibrated(work, kept, _FACTS, {"selective": ParallelismCost(unit_s=1e-3)})
    assert again.seconds.compute - predict(work, kept, _FACTS).seconds.compute == pytest.approx(16e-3)
    assert again.seconds.communication == 0


def test_a_calibration_holds_for_its_fingerprint_alone(tmp_path):
    one = Calibration(
        fingerprint=_FINGERPRINT, facts=_FACTS, mechanisms={"data": ParallelismCost(communication=2.0)}, probes=(),
        made_utc="2026-11-26T00:00:00+00:00", seconds=1.0,
    )  # fmt: skip
    store_calibration(one, tmp_path)
    assert find_calibration(_FINGERPRINT, tmp_path) == one
    for changed in ({"threads": 2}, {"torch": "2.12.0"}, {"chip": "core of another"}, {"allocator": "x"}):
        assert find_calibration(replace(_FINGERPRINT, **changed), tmp_path) is None


def test_a_calibration_is_tied_to_every_formula_of_a_prediction():
    # `predict` and all that it imports; what `predict_calibrated` adds is beside it. Descriptors have no formulas, nor
    # has what a package exports.
    data = {"tunemark.plugin.descriptors", "tunemark.plugin.traced_model", "tunemark.physics"}
    reached, left = set(), ["tunemark.predict.cost_model"]
    while left:
        name = left.pop()
        if name in reached or name in data:
            continue
        reached.add(name)
        source = Path(importlib.util.find_spec(name).origin).read_text()
        imported = [node.module for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
        left += [module for module in imported if module.startswith("tunemark.")]
    assert set(FORMULA_MODULES) == {*reached, "tunemark.predict.calibration"}


def test_a_broken_calibration_is_none(tmp_path):
    (tmp_path / f"{_FINGERPRINT.key}.json").write_text('{"schema": 1')
    assert find_calibration(_FINGERPRINT, tmp_path) is None


def test_what_cannot_be_calibrated_is_refused_before_anything_runs(capsys):
    assert main(["calibrate", "--device", "moon"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "no device named 'moon'" in shown.err
    assert main(["calibrate", "--device", "cpu:1", "--size", "1"]) == 2
    assert "given twice" in capsys.readouterr().err


def test_a_search_stands_on_the_calibration_of_its_own_shape_of_job(tmp_path):
    (point,) = make_grid_points(make_experiment({"device": "cpu:2", "strategy": "auto", "oversubscribe": True}))
    plan = make_plan(point, Catalog())
    before = make_hardware_model(plan, 2, None, tmp_path)
    assert before.mechanisms == {}
    assert "assumed" in before.source
    one = Calibration(
        fingerprint=make_calibration_fingerprint(plan, plan.launch), facts=_FACTS,
        mechanisms={"data": ParallelismCost(unit_s=1e-3)},
        probes=(), made_utc="2026-11-26T00:00:00+00:00", seconds=1.0,
    )  # fmt: skip
    store_calibration(one, tmp_path)
    after = make_hardware_model(plan, 2, None, tmp_path)
    assert (after.facts, after.mechanisms) == (_FACTS, {"data": ParallelismCost(unit_s=1e-3)})
    assert after.source == "measured on this machine (2026-11-26T00:00:00+00:00)"
    # One process with both cores is another shape, which nothing was measured of.
    both = make_hardware_model(plan, 2, Catalog().strategy("none", "cpu"), tmp_path)
    assert both.facts == _FACTS
    assert both.source.endswith("measures this machine")
