"""The worker: its arithmetic in this process, and a whole short attempt in another."""

import dataclasses
import json
import math
import os
import random
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tunemark_worker.batches import MappedTokens
from tunemark_worker.contract import (
    HEADER_BYTES,
    Assignment,
    TokenFile,
    decode_record,
    encode_record,
    token_file_offsets,
)
from tunemark_worker.row_packing import make_step_rows, schedule_steps
from tunemark_worker.schedule import make_schedule
from tunemark_worker.stop_condition import WindowPlanner
from tunemark_worker.training_loop import cross_entropy_sum
from tunemark_worker.training_settings import VALUES_BEFORE

ROOT = Path(__file__).parents[2]
ARCHITECTURE = {
    "model_type": "mistral",
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "sliding_window": None,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}


def _token_file(path):
    rng = random.Random(0)
    documents = [[rng.randrange(1, 64) for _ in range(rng.randrange(2, 20))] for _ in range(60)]
    ids = [token for document in documents for token in document]
    layout = token_file_offsets(len(documents), len(ids))
    content = bytearray(layout.end)
    content[:HEADER_BYTES] = json.dumps({}).encode().ljust(HEADER_BYTES)
    struct.pack_into(f"<{len(ids)}i", content, layout.ids, *ids)
    content[layout.trained : layout.trained + len(ids)] = bytes([1]) * len(ids)
    offsets = [sum(map(len, documents[:i])) for i in range(len(documents) + 1)]
    struct.pack_into(f"<{len(offsets)}q", content, layout.offsets, *offsets)
    path.write_bytes(content)
    return TokenFile(path=str(path), sha256="", documents=len(documents), tokens=len(ids), pad_id=0)


@pytest.fixture
def assignment(tmp_path):
    return Assignment(
        **VALUES_BEFORE
        | {
            "run_id": "r",
            "attempt": "a",
            "model": "m",
            "model_runtime": "tunemark_models.runtime:CausalLm",
            "architecture": ARCHITECTURE,
            "device": "cpu",
            "size": "1",
            "device_runtime": "tunemark_torch.runtime:CpuRuntime",
            "strategy": "none",
            "strategy_runtime": "tunemark_torch.runtime:NoStrategy",
            "strategy_options": {},
            "method": "full",
            "token_file": _token_file(tmp_path / "tokens"),
            "precision": "fp32",
            "checkpointing": "none",
            "batching": "pack",
            "sequence": 32,
            "micro_batch": 4,
            "global_batch": 4,
            "gradient_accumulation": 1,
            "data_ranks": 1,
            "weights": "random",
            "optimizer": "adamw",
            "learning_rate": 1e-3,
            "schedule": "linear",
            "clip_norm": 1.0,
            "seed": 0,
            "epochs": None,
            "steps": 4,
            "warmup": 1,
            "budget_s": 60.0,
            "target_interval": 0.0,
            "window_s": 1.0,
            "measure_peak": False,
            "breakdown": True,
            "processes": 1,
            "threads": 1,
            "device_options": {},
        }
    )


def _start(assignment, folder):
    folder.mkdir()
    (folder / "plan.json").write_text(assignment.to_json())
    variables = {**os.environ, "PYTHONPATH": f"{ROOT / 'harness'}:{ROOT / 'plugins'}", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "tunemark_worker", "plan.json"], cwd=folder, env=variables, stderr=subprocess.PIPE
    )


def _run(assignment, folder):
    job = _start(assignment, folder)
    _, errors = job.communicate(timeout=100)
    return job.returncode, _records(folder), errors.decode()


def _records(folder):
    path = folder / "records.0.jsonl"
    return [decode_record(line) for line in path.read_text().splitlines()] if path.exists() else []


def _of(records, kind):
    return [r for r in records if r["kind"] == kind]


def test_a_short_attempt_writes_all_records_and_accumulation_changes_nothing(assignment, tmp_path):
    code, whole, errors = _run(assignment, tmp_path / "whole")
    assert (code, errors) == (0, "")
    assert [r["name"] for r in _of(whole, "phase")] == ["imported", "opened", "built", "data", "first_step"]
    steps, edges, (end,) = _of(whole, "step"), _of(whole, "edge"), _of(whole, "end")
    assert (end["reason"], end["status"], end["weights_changed"]) == ("steps", "ok", True)
    # One step of warm-up and four timed: five windows have six edges.
    assert [e["steps"] for e in edges] == [e["window"] for e in edges] == [0, 1, 2, 3, 4, 5]
    assert [name for name, _ in steps[0]["marks"]] == ["data", "transfer", "forward", "backward", "optimizer"]
    assert [s["learning_rate"] for s in steps] == pytest.approx([1e-3, 8e-4, 6e-4, 4e-4, 2e-4])
    assert all(e["second_s"] <= e["witness_s"] for e in edges)

    cut = dataclasses.replace(assignment, micro_batch=1, gradient_accumulation=4)
    code, accumulated, _ = _run(cut, tmp_path / "cut")
    assert code == 0
    for one, other in zip(steps, _of(accumulated, "step"), strict=True):
        assert [one[k] for k in ("slots", "content", "trained")] == [other[k] for k in ("slots", "content", "trained")]
        assert one["loss_sum"] == pytest.approx(other["loss_sum"], rel=1e-5)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-4)


def test_a_killed_worker_leaves_whole_rows_and_no_end(assignment, tmp_path):
    folder = tmp_path / "killed"
    job = _start(dataclasses.replace(assignment, steps=10**9), folder)
    deadline = time.monotonic() + 60
    while len(_records_if_whole(folder)) < 30 and time.monotonic() < deadline:
        time.sleep(0.02)
    job.send_signal(signal.SIGKILL)
    job.communicate()
    assert (folder / "records.0.jsonl").read_bytes().endswith(b"\n")
    assert len(_of(_records(folder), "edge")) > 5
    assert not _of(_records(folder), "end")


def _records_if_whole(folder):
    path = folder / "records.0.jsonl"
    return path.read_bytes().splitlines() if path.exists() else []


def test_a_failure_is_recorded_with_its_message(assignment, tmp_path):
    code, records, errors = _run(dataclasses.replace(assignment, optimizer="none such"), tmp_path / "failed")
    assert code == 1
    assert "Traceback" in errors
    assert records[-1]["kind"] == "end"
    assert (records[-1]["status"], records[-1]["requested_bytes"]) == ("error", None)
    assert "none such" in records[-1]["error"]


def test_a_loss_that_is_no_number_is_recorded():
    line = encode_record("step", 0, 1.0, {"loss_sum": float("nan"), "gradient_norm": float("inf")}).decode()
    assert "NaN" not in line
    assert decode_record(line)["gradient_norm"] == float("inf")
    assert math.isnan(decode_record(line)["loss_sum"])


def test_samples_are_the_same_in_any_layout(assignment):
    lengths = MappedTokens(assignment.token_file).lengths()
    one = next(make_step_rows(assignment, lengths, 0))
    halves = dataclasses.replace(assignment, micro_batch=1, gradient_accumulation=2, data_ranks=2)
    split = [next(make_step_rows(halves, lengths, data_rank)) for data_rank in (0, 1)]
    assert one[0] == [*split[0][0], *split[1][0], *split[0][1], *split[1][1]]


def test_epochs_bound_the_horizon(assignment):
    padded = dataclasses.replace(assignment, batching="pad", epochs=2, steps=None)
    lengths = MappedTokens(padded.token_file).lengths()
    assert schedule_steps(padded, lengths) == len(list(make_step_rows(padded, lengths, 0))) == 2 * 60 // 4


def test_the_loss_is_of_the_next_token():
    logits = torch.zeros(1, 3, 4)
    logits[0, 0, 2] = 100.0
    assert cross_entropy_sum(logits, torch.tensor([[-100, 2, -100]])).item() == pytest.approx(0.0)
    assert cross_entropy_sum(logits, torch.tensor([[-100, 1, -100]])).item() == pytest.approx(100.0)


def test_schedules_fall_and_never_reach_zero():
    assert [make_schedule("linear", 4)(s) for s in range(6)] == [1.0, 0.75, 0.5, 0.25, 0.25, 0.25]
    assert [make_schedule("cosine", 2)(s) for s in range(2)] == pytest.approx([1.0, 0.5])
    with pytest.raises(ValueError, match="needs the number"):
        make_schedule("cosine", None)


def test_windows_fill_a_second_where_waiting_costs(assignment):
    timing = WindowPlanner(dataclasses.replace(assignment, steps=None, warmup=0), is_synchronous=False)
    assert timing.length(0) == 1
    timing.add(1, 0.1, 100)
    assert timing.length(1) in (10, 11)
    fixed = WindowPlanner(dataclasses.replace(assignment, steps=40, warmup=3), is_synchronous=False)
    fixed.add(1, 0.001, 100)
    assert (fixed.length(1), fixed.length(3), fixed.length(41)) == (2, 5, 2)


def test_reasons_to_stop(assignment):
    timing = WindowPlanner(
        dataclasses.replace(assignment, steps=None, target_interval=0.05, warmup=0), is_synchronous=True
    )
    for i in range(12):
        assert timing.reason(i, 1.0) == ""
        timing.add(1, 0.1 + 0.0001 * (i % 3), 100)
    assert timing.reason(12, 1.0) == "target-interval"
    assert timing.reason(12, 60.0) == "budget"


def test_a_run_of_so_many_steps_ends_though_it_never_settles(assignment):
    asked = dataclasses.replace(assignment, steps=6, warmup=None, budget_s=None)
    timing = WindowPlanner(asked, is_synchronous=True)
    taken = 0
    while not timing.reason(taken, 1e9):
        timing.add(1, 3.0 ** (taken // 5), 100)
        taken += 1
    assert timing.reason(taken, 1e9) == "steps"
    assert taken == 6 + 32
