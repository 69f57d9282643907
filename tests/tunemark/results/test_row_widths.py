"""Runs whose steps differ in slots (`--batching bucket`): records by hand, judged, recounted and read again."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tunemark.analysis import judge
from tunemark.plugin import Catalog
from tunemark.results import Result, RunIdentity, StoredAttempt, derive_result, read_measurement
from tunemark.results.row_consistency import check_row
from tunemark.results.token_recount import TokenDocuments, recount_tokens
from tunemark_worker import contract, row_packing
from tunemark_worker.contract import Assignment, TokenFile
from tunemark_worker.training_settings import VALUES_BEFORE

_CHANCE = random.Random(3)
_LENGTHS = [_CHANCE.randint(2, 90) for _ in range(203)]
_OFFSETS = [sum(_LENGTHS[:i]) for i in range(len(_LENGTHS) + 1)]
_DOCUMENTS = TokenDocuments(offsets=_OFFSETS, trained=bytes([1] * _OFFSETS[-1]))
_ASSIGNMENT = Assignment(**VALUES_BEFORE | {
    "run_id": "0123456789abcdef", "attempt": "a", "model": "toy", "model_runtime": "m:M", "architecture": {},
    "device": "cpu", "size": "1", "device_runtime": "d:D", "strategy": "none", "strategy_runtime": "s:S",
    "strategy_options": {}, "method": "full", "token_file": TokenFile(path="/nowhere/tokens", sha256="ab",
    documents=203, tokens=_OFFSETS[-1], pad_id=0), "precision": "fp32", "batching": "bucket", "sequence": 64,
    "micro_batch": 2, "global_batch": 4, "gradient_accumulation": 2, "data_ranks": 1, "weights": "random",
    "optimizer": "adamw", "learning_rate": 1e-4, "schedule": "constant", "clip_norm": 1.0, "seed": 0, "epochs": None,
    "steps": None, "warmup": 2, "budget_s": 60.0, "target_interval": 0.02, "window_s": 1.0, "measure_peak": False,
    "breakdown": False, "checkpointing": "none", "processes": 1, "threads": 1, "device_options": {},
})  # fmt: skip
_IDENTITY = RunIdentity(
    run_id="0123456789abcdef", model="toy", dataset="d", device="cpu", size="1", strategy_requested="none",
    method="full", precision="fp32", batching="bucket", sequence=64, micro_batch=2, global_batch=4,
    gradient_accumulation=2, train_on="all", weights="random", optimizer="adamw", learning_rate=1e-4,
    schedule="constant", clip_norm=1.0, seed=0, python=None, breakdown=False, epochs=None, steps_requested=None,
    warmup_requested=2, budget_s=60.0, target_interval=0.02, window_s=1.0, chip="c", chips=1, oversubscribed=False,
    learnable=True, processes=1, threads=1, data_ranks=1, parameters=1000, trainable_parameters=1000,
    flops_per_token=6640.0, flops_per_token_full_attention=7280.0, hardware_flops_per_token=8640.0, peak_flops=None,
    peak_flops_source=None,
)  # fmt: skip
_END = {
    "reason": "steps", "status": "ok", "error": None, "weights_changed": True, "peak_memory_bytes": 1024,
    "strategy_selected": {"kind": "none"}, "parameters": 1000, "trainable_parameters": 1000,
}  # fmt: skip
# Seconds that a slot takes, whatever its row.
_SLOT_S = 0.01


def _widths(assignment: Assignment, data_rank: int, steps: int) -> list[list[int]]:
    """Of the micro-batches of each step of a data rank, as the worker forms them."""
    rows = row_packing.make_step_rows(assignment, _LENGTHS, data_rank)
    a = assignment
    return [
        [row_packing.micro_batch_width(micro, a.sequence, a.batching) for micro in next(rows)] for _ in range(steps)
    ]


def _records(steps: int = 30, widths: Sequence[list[int]] | None = None, slow: int | None = None) -> str:
    """One rank whose every slot takes as long. slow: a step that takes three times as long."""
    found = _widths(_ASSIGNMENT, 0, steps) if widths is None else widths
    rows: list[tuple[str, float, dict[str, Any]]] = [
        ("start", 91.0, {"pid": 1, "python": "3", "utc": ""}),
        ("facts", 95.0, {"affinity": [0], "data_rank": 0, "torch": "2"}),
    ]
    at = 100.0
    for step in range(steps + 1):
        edge = {"window": step, "steps": step, "synced": True, "second_s": at, "witness_s": at}
        if step:
            counted = recount_tokens(_DOCUMENTS, _ASSIGNMENT, step - 1, step)
            at += 2 * sum(found[step - 1]) * _SLOT_S * (3 if step - 1 == slow else 1)
            fields: dict[str, Any] = {"step": step - 1, "slots": 2 * sum(found[step - 1]), "content": counted.content}
            fields |= {"trained": counted.trained, "widths": found[step - 1], "loss_sum": counted.trained * 6.0}
            fields |= {"gradient_norm": 1.0, "learning_rate": 1e-4, "synced": True, "marks": None}
            rows.append(("step", at, fields))
            edge |= {"second_s": at, "witness_s": at}
        rows.append(("edge", at, edge))
        rows.append(("load", at, {"busy_s": at, "own_s": at, "minor_faults": 0}))
    rows.append(("end", at, _END))
    return "".join(contract.encode_record(kind, 0, instant, fields).decode() for kind, instant, fields in rows)


def _attempt(folder: Path, text: str, **facts: object) -> StoredAttempt:
    (folder / "plan.json").write_text(_ASSIGNMENT.to_json())
    (folder / contract.records_file_name(0)).write_text(text)
    found = read_measurement(folder)
    return StoredAttempt(name="a", status="ok", reason="steps", evidence="", measurement=found, facts=facts)


def _rules(result: Result) -> set[str]:
    return {finding.rule for finding in result.findings}


def _derive(folder: Path, text: str, **facts: object) -> Result:
    return derive_result(_IDENTITY, [_attempt(folder, text, **facts)], _DOCUMENTS)


@pytest.mark.parametrize(("data_ranks", "micro_batch"), [(1, 4), (1, 2), (2, 2), (2, 1), (4, 1)])
def test_what_all_ranks_of_a_layout_form_is_what_is_recounted(data_ranks: int, micro_batch: int) -> None:
    accumulation = 4 // data_ranks // micro_batch
    a = replace(_ASSIGNMENT, data_ranks=data_ranks, micro_batch=micro_batch, gradient_accumulation=accumulation)
    every = [_widths(a, data_rank, 60) for data_rank in range(data_ranks)]
    for step in range(60):
        slots = micro_batch * sum(width for rank in every for width in rank[step])
        assert recount_tokens(_DOCUMENTS, a, step, step + 1).slots == slots
    # The rows are the same in every layout, so their tokens are.
    assert recount_tokens(_DOCUMENTS, a, 0, 60)[1:] == recount_tokens(_DOCUMENTS, _ASSIGNMENT, 0, 60)[1:]


def test_steps_that_differ_in_width_neither_drift_nor_lag(tmp_path: Path) -> None:
    result = _derive(tmp_path, _records())
    assert result.step_time_s is not None
    assert result.step_time_s.p95 > 1.2 * result.step_time_s.p50 > 0
    assert not _rules(result) & {"drift", "slow-step", "no-steady-state", "slots-disagree", "tokens-disagree"}
    assert result.slot_tokens_per_s is not None
    assert result.slot_tokens_per_s.value == pytest.approx(1 / _SLOT_S)
    counted = recount_tokens(_DOCUMENTS, _ASSIGNMENT, 2, 30)
    assert result.tokens == msgspec.convert(counted._asdict(), type(result.tokens))
    assert result.padding_fraction == pytest.approx(1 - counted.content / counted.slots)
    assert check_row(result) == []
    # As a claim it has no sequence by which a step's slots would be another number.
    assert not _rules(judge(result, Catalog())) & {"rate-and-time", "tokens-of-a-step", "batch-and-tokens"}


def test_the_warm_up_is_found_by_slots(tmp_path: Path) -> None:
    identity = msgspec.structs.replace(_IDENTITY, warmup_requested=None)
    result = derive_result(identity, [_attempt(tmp_path, _records())], _DOCUMENTS)
    assert (result.warmup_steps, result.steps_measured) == (0, 30)


def test_a_step_that_is_slow_for_its_slots_is_said(tmp_path: Path) -> None:
    assert "slow-step" in _rules(_derive(tmp_path, _records(slow=20)))


@pytest.mark.parametrize("change", [1, 8, 1000, "missing", "more"])
def test_widths_that_cannot_be_are_found(tmp_path: Path, change: int | str) -> None:
    widths = _widths(_ASSIGNMENT, 0, 30)
    # 8 more than the sequence.
    step = next(i for i, row in enumerate(widths) if row[0] == 64) if change == 8 else 5
    one = widths[step]
    widths[step] = [*one, 8] if change == "more" else one[:1] if change == "missing" else [one[0] + int(change), one[1]]
    result = _derive(tmp_path, _records(widths=widths))
    assert "slots-disagree" in _rules(result)
    assert result.verdict == "invalid"


def test_widths_that_could_be_and_are_not_those_of_the_rows_are_found(tmp_path: Path) -> None:
    widths = [[64, 64] for _ in range(30)]
    assert _rules(_derive(tmp_path, _records(widths=widths))) >= {"tokens-disagree"}


def test_flops_are_those_of_each_row(tmp_path: Path) -> None:
    # As if a slot took 6000 FLOPs and attention 10 for each slot of its row.
    table = {str(width): [6000 + 10 * width, 6000 + 20 * width, 8000 + 10 * width] for width in range(8, 65, 8)}
    identity = msgspec.structs.replace(_IDENTITY, peak_flops=1e7, peak_flops_source="declared")
    one = _attempt(tmp_path, _records(), flops_by_width=table)
    result = derive_result(identity, [one], _DOCUMENTS)
    rows = [width for step in _widths(_ASSIGNMENT, 0, 30)[2:] for width in step]
    slots, work = sum(rows), sum(width * (6000 + 10 * width) for width in rows)
    assert result.flops_per_token == pytest.approx(work / slots)
    assert result.mfu == pytest.approx(work / slots / _SLOT_S / 1e7)
    assert result.hfu == pytest.approx((work / slots + 2000) / _SLOT_S / 1e7)
    assert check_row(result) == []
    unknown = derive_result(identity, [replace(one, facts={})], _DOCUMENTS)
    assert (unknown.mfu, unknown.hfu) == (None, None)
    assert "slots are not stored" in str(unknown.mfu_reason)


def test_a_row_with_more_slots_than_its_steps_hold_contradicts_itself(tmp_path: Path) -> None:
    result = _derive(tmp_path, _records())
    assert result.tokens is not None
    for slots in (result.steps_measured * 4 * 64 + 1, result.tokens.content - 1):
        wrong = msgspec.structs.replace(result, tokens=msgspec.structs.replace(result.tokens, slots=slots))
        assert check_row(wrong), slots
