"""Settings are declared once: what follows from the declarations, what is stored, and former names."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tunemark.experiment import make_experiment, make_grid_points, make_plans, run_id
from tunemark.experiment.settings import ALIASES, SETTINGS_BY_NAME
from tunemark.plugin import Catalog
from tunemark.results import RunIdentity, decode_result
from tunemark.results.store import make_identity
from tunemark_worker.contract import Assignment, TokenFile
from tunemark_worker.training_settings import TRAINING_SETTINGS

_ROOT = Path(__file__).parents[3]
_TOKENS = TokenFile(path="/t", sha256="0", documents=9, tokens=99, pad_id=0)

# As version 0.1.0 stored them.
_PLAN_KEYS = """
allow_pickle architecture attempt axes batching breakdown budget_s calibrate checkpointing clip_norm data_ranks device
device_options device_runtime eos_id epochs evaluate global_batch gradient_accumulation learning_rate method
method_options micro_batch model model_runtime optimizer precision processes run_id sample_ids sample_tokens save
schedule schema seed sequence size steps strategy strategy_options strategy_runtime target_interval threads token_file
trainer trainer_options trainer_runtime trust_remote_code warmup weights window_s
"""
_IDENTITY_KEYS = """
batching breakdown budget_s checkpointing chip chips clip_norm data_ranks dataset device epochs evaluate flops_per_token
flops_per_token_full_attention global_batch gradient_accumulation hardware_flops_per_token learnable learning_rate
memory_bytes method micro_batch model optimizer oversubscribed parameters parts peak_flops peak_flops_source precision
processes python run_id sample save schedule seed sequence simulated size steps_requested strategy_requested
target_interval threads train_on trainable_parameters trainer warmup_requested weights window_s
"""
_RUN_IDS = [
    ({"device": "cpu:1"}, ["af9ee8041d2c7e83"]),
    (
        {"device": "cpu:1", "precision": "fp32,bf16", "sequence": "64", "seed": "1,2", "train_on": "all"},
        ["803bea87ded4849d", "b966e5a672e25ce2", "d26c51b64546b8f2", "e7b92776dbea4efb"],
    ),
    (
        {
            "device": "cpu:2", "strategy": "ddp", "method": "lora:r=8", "checkpointing": "selective",
            "micro_batch": "2", "global_batch": "8", "oversubscribe": True,
        },
        ["8ea80c93bfe468d0"],
    ),
    (
        {
            "device": "cpu:1", "dataset": "synthetic", "optimizer": "sgd,adafactor", "learning_rate": "1e-3",
            "schedule": "cosine", "clip_norm": "0", "steps": "5", "warmup": "1", "batching": "pad",
        },
        ["1fac1fecfcc9e290", "361689aef5f9a79e"],
    ),
    (
        {
            "device": "cpu:1", "budget": "7", "window": "0.5", "target_interval": "0", "evaluate": "4",
            "sample": "def", "breakdown": True,
        },
        ["ced771e31ad385b4", "40533ffa3cabc7e4"],
    ),
    (
        {"device": "cpu:2", "strategy": "auto", "oversubscribe": True, "micro_batch": "2", "trials": "3"},
        ["2cb6b8befd9941b0"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("flags", "run_ids"), _RUN_IDS)
def test_run_ids_and_stored_keys_are_those_of_before(flags: dict[str, object], run_ids: list[str]) -> None:
    plans = make_plans(make_grid_points(make_experiment(flags)), Catalog())
    later = [each for each in TRAINING_SETTINGS if each.unhashed is not None]
    # As they were computed before: packed rows with a mask.
    before = [dataclasses.replace(plan.spec, **{each.name: each.unhashed for each in later}) for plan in plans]
    assert [run_id(spec) for spec in before] == run_ids
    for plan in plans:
        identity = {*_IDENTITY_KEYS.split(), *(each.stored for each in later)}
        assert sorted(msgspec.to_builtins(make_identity(plan))) == sorted(identity)
        if not plan.strategy.is_search:
            stored = json.loads(plan.assignment(_TOKENS, "a", measure_peak=False).to_json())
            keys = _PLAN_KEYS.replace("calibrate", "measure_peak").split()
            assert sorted(stored) == sorted({*keys, *(each.name for each in later)})


def test_a_plan_and_a_result_of_before_are_read() -> None:
    (plan,) = make_plans(make_grid_points(make_experiment({"device": "cpu:1"})), Catalog())
    assignment = plan.assignment(_TOKENS, "a", measure_peak=True)
    stored = json.loads(assignment.to_json())
    stored["calibrate"] = stored.pop("measure_peak")
    del stored["checkpointing"]
    assert Assignment.from_json(json.dumps(stored)) == assignment
    lines = (_ROOT / "reports/example/runs.jsonl").read_text().splitlines()
    raw = json.loads(lines[0])
    raw.pop("checkpointing", None)
    assert decode_result(json.dumps(raw)).checkpointing == "none"
    del raw["precision"]
    with pytest.raises(msgspec.ValidationError, match="precision"):
        decode_result(json.dumps(raw))


def test_settings_of_training_are_fields_of_all_that_tells_of_a_run() -> None:
    names = {each.name for each in TRAINING_SETTINGS}
    assert names <= set(SETTINGS_BY_NAME)
    assert names <= set(Assignment.__dataclass_fields__)
    assert {each.stored for each in TRAINING_SETTINGS} <= set(RunIdentity.__struct_fields__)


def test_former_names_are_still_read(tmp_path: Path) -> None:
    assert ALIASES == {"no_calibrate": "no_measure_peak"}
    file = tmp_path / "e.toml"
    file.write_text("no_calibrate = true\n")
    assert make_experiment({}, file).no_measure_peak
    assert make_experiment({"no_calibrate": True}).no_measure_peak
    assert not make_experiment({"no_measure_peak": False, "no_calibrate": True}).no_measure_peak
    assert make_experiment({"no_measure_peak": None, "no_calibrate": True}).no_measure_peak


_TOY = """
    weight_decay: float = declare(0.5, "a toy of a test", minimum=0, before=0.25)
"""
_EXPERIMENT = """
model = "mistral-tiny"
dataset = "synthetic"
device = "cpu:1"
sequence = 32
micro_batch = 1
steps = 4
warmup = 1
window = 0.01
repeats = 1
target_interval = 0
no_measure_peak = true
weight_decay = [0.5, 1.5]
"""


@pytest.mark.full
def test_a_setting_is_added_by_its_declaration(tmp_path: Path, tunemark_cache: Path) -> None:
    for name in ("harness", "plugins"):
        shutil.copytree(_ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    declarations = tmp_path / "harness/tunemark_worker/training_settings.py"
    text = declarations.read_text()
    assert text.count("\n\n\nTRAINING_SETTINGS = ") == 1
    declarations.write_text(text.replace("\n\n\nTRAINING_SETTINGS = ", f"{_TOY}\n\nTRAINING_SETTINGS = "))
    (tmp_path / "e.toml").write_text(_EXPERIMENT)
    paths = os.pathsep.join((str(tmp_path / "harness"), str(tmp_path / "plugins")))
    variables = {**os.environ, "PYTHONPATH": paths, "TUNEMARK_CACHE": str(tunemark_cache)}

    def tunemark(*words: str, codes: tuple[int, ...] = (0,)) -> str:
        command = [sys.executable, "-m", "tunemark", *words]
        done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)
        assert done.returncode in codes, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert "--weight-decay X,..." in tunemark("run", "--help")
    assert "weight_decay 2.5" in tunemark("plan", "e.toml", "--weight-decay", "2.5")
    tunemark("run", "e.toml", "-o", "out", codes=(0, 1, 3))
    told = [json.loads(path.read_text())["weight_decay"] for path in sorted(tmp_path.glob("runs/*/*/plan.json"))]
    assert sorted(told) == [0.5, 1.5]
    rows = [json.loads(line) for line in (tmp_path / "out/runs.jsonl").read_text().splitlines()]
    assert [row["weight_decay"] for row in rows] == [0.5, 1.5]
    assert "they differ in: weight_decay" in tunemark("compare", "out", "--by", "strategy", codes=(2,))
    assert "weight_decay" in tunemark("compare", "out", "--by", "weight_decay", codes=(0, 1, 3))
    report = (tmp_path / "out/report.md").read_text()
    assert "weight decay" in report
    assert "--weight-decay 1.5" in report
    # A run from before has the value of before.
    (tmp_path / "old").mkdir()
    shutil.copy(_ROOT / "reports/example/runs.jsonl", tmp_path / "old/runs.jsonl")
    tunemark("report", "old", "-o", "again", codes=(0, 1, 3))
    again = [json.loads(line) for line in (tmp_path / "again/runs.jsonl").read_text().splitlines()]
    assert {row["weight_decay"] for row in again} == {0.25}
