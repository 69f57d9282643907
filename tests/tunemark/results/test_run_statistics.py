"""Results derived from records that are written by hand, so that every number can be redone on paper."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # published without types
import msgspec
import pytest

from tunemark.analysis import judge
from tunemark.errors import BadStore
from tunemark.experiment import make_experiment, make_grid_points, make_plans
from tunemark.launch.records import read_record
from tunemark.plugin import Catalog
from tunemark.results import (
    JobTokens,
    Result,
    RunIdentity,
    Store,
    StoredAttempt,
    decode_result,
    derive_result,
    encode_result,
    read_measurement,
    result_schema,
)
from tunemark.results.token_recount import TokenDocuments, recount_tokens
from tunemark_worker import contract
from tunemark_worker.contract import Assignment, TokenFile
from tunemark_worker.training_settings import VALUES_BEFORE

ASSIGNMENT = Assignment(**VALUES_BEFORE | {
    "run_id": "0123456789abcdef", "attempt": "a", "model": "toy", "model_runtime": "m:M", "architecture": {},
    "device": "cpu", "size": "1", "device_runtime": "d:D", "strategy": "none", "strategy_runtime": "s:S",
    "strategy_options": {}, "method": "full", "token_file": TokenFile(path="/nowhere/tokens", sha256="ab",
    documents=3, tokens=24, pad_id=0), "precision": "fp32", "batching": "pad", "sequence": 10, "micro_batch": 1,
    "global_batch": 1, "gradient_accumulation": 1, "data_ranks": 1, "weights": "random", "optimizer": "adamw",
    "learning_rate": 1e-4, "schedule": "constant", "clip_norm": 1.0, "seed": 0, "epochs": None, "steps": None,
    "warmup": 2, "budget_s": 60.0, "target_interval": 0.02, "window_s": 1.0, "measure_peak": False, "breakdown":
    False, "checkpointing": "none", "processes": 1, "threads": 1, "device_options": {},
})  # fmt: skip

IDENTITY = RunIdentity(
    run_id="0123456789abcdef", model="toy", dataset="d", device="cpu", size="1", strategy_requested="none",
    method="full", precision="fp32", batching="pad", sequence=10, micro_batch=1, global_batch=1,
    gradient_accumulation=1, train_on="all", weights="random", optimizer="adamw", learning_rate=1e-4,
    schedule="constant", clip_norm=1.0, seed=0, python=None, breakdown=False, epochs=None, steps_requested=None,
    warmup_requested=2, budget_s=60.0, target_interval=0.02, window_s=1.0, chip="c", chips=1, oversubscribed=False,
    learnable=True, processes=1, threads=1, data_ranks=1, parameters=1000, trainable_parameters=1000,
    flops_per_token=6000.0, flops_per_token_full_attention=7000.0, peak_flops=None, peak_flops_source=None,
)  # fmt: skip

# 2 slow steps of warm-up, then 8 steps that alternate between 1.0 and 1.1 s.
SECONDS = (5.0, 3.0, *(1.0, 1.1) * 4)
END = {
    "reason": "steps", "status": "ok", "error": None, "requested_bytes": None, "weights_changed": True,
    "peak_memory_bytes": 1024, "strategy_selected": {"kind": "none"}, "parameters": 1010, "trainable_parameters": 1010,
}  # fmt: skip


def records(
    seconds: Sequence[float] = SECONDS,
    *,
    rank: int = 0,
    data_rank: int = 0,
    content: Callable[[int], int] = lambda step: 8,
    loss: Callable[[int], float] = lambda step: 7.0 - 0.1 * step,
    second_factor: float = 1.0,
    witness_s: float = 1e-5,
    reread_s: float | None = None,
    compiled: Callable[[int], tuple[int, float]] | None = None,
    busy: float = 1.0,
    marks: Callable[[float, float], list[tuple[str, float]] | None] = lambda begin, end: None,
    end: dict[str, Any] | None = END,
    peak: float | None = None,
) -> str:
    """A rank's file: one step a window, begun at 100 s, with the load at each edge."""
    rows: list[tuple[str, float, dict[str, Any]]] = [
        ("start", 91.0, {"pid": 1, "python": "3", "utc": ""}),
        ("phase", 95.0, {"name": "imported"}),
        ("facts", 95.0, {"affinity": [0], "data_rank": data_rank, "torch": "2"}),
    ]
    if peak:
        rows.append(("peak", 96.0, {"precision": "fp32", "flops": peak, "path": "mm", "tried": {}}))

    def edge(window: int, at: float) -> None:
        second_s = 1000.0 + second_factor * at
        fields = {"window": window, "steps": window, "synced": True}
        fields |= {"second_s": second_s, "witness_s": second_s + witness_s}
        if reread_s is not None:
            fields["reread_s"] = second_s + witness_s + reread_s
        if compiled is not None:
            fields["compilations"], fields["compile_s"] = compiled(window)
        rows.append(("edge", at, fields))
        rows.append(("load", at, {"busy_s": busy * at, "own_s": at, "minor_faults": 0}))

    at = 100.0
    edge(0, at)
    for step, lasts in enumerate(seconds):
        fields = {"slots": 10, "content": content(step), "trained": content(step) - 1, "targets": content(step) - 1}
        fields |= {"loss_sum": loss(step) * (content(step) - 1), "gradient_norm": 1.0, "learning_rate": 1e-4}  # type: ignore[dict-item]
        rows.append(("step", at + lasts, {"step": step, **fields, "synced": True, "marks": marks(at, at + lasts)}))
        at += lasts
        edge(step + 1, at)
    if end is not None:
        rows.append(("end", at, end))
    return "".join(contract.encode_record(kind, rank, instant, fields).decode() for kind, instant, fields in rows)


def written(folder: Path, *ranks: str, assignment: Assignment = ASSIGNMENT) -> Path:
    folder.mkdir(parents=True)
    plan = replace(assignment, processes=len(ranks))
    (folder / "plan.json").write_text(plan.to_json())
    for rank, text in enumerate(ranks):
        (folder / contract.records_file_name(rank)).write_text(text)
    return folder


def attempt(
    folder: Path, *ranks: str, name: str = "a", assignment: Assignment = ASSIGNMENT, status: Any = "ok"
) -> StoredAttempt:
    measurement = read_measurement(written(folder / name, *ranks, assignment=assignment))
    return StoredAttempt(
        name=name, status=status, reason="steps", evidence="", measurement=measurement, launched_s=90.0
    )


def ids(result: Result) -> set[str]:
    return {finding.rule for finding in result.findings}


def test_a_rate_is_a_ratio_of_sums(tmp_path: Path) -> None:
    # 8 timed steps: 4 of 4 tokens in 1 s, 4 of 8 tokens in 1.1 s. 48 tokens / 8.4 s; the mean of ratios were 5.64.
    result = derive_result(IDENTITY, [attempt(tmp_path, records(content=lambda step: 4 if step % 2 == 0 else 8))])
    assert result.tokens_per_s is not None
    assert result.tokens_per_s.value == pytest.approx(48 / 8.4)
    assert result.slot_tokens_per_s is not None
    assert result.slot_tokens_per_s.value == pytest.approx(80 / 8.4)
    assert result.trained_tokens_per_s is not None
    assert result.trained_tokens_per_s.value == pytest.approx(40 / 8.4)
    assert result.padding_fraction == pytest.approx(1 - 48 / 80)
    assert (result.steps_measured, result.warmup_steps) == (8, 2)
    assert result.interval_s == pytest.approx(8.4)
    assert result.step_time_s is not None
    assert result.step_time_s.p50 == pytest.approx(1.05)
    # The launch is at 90 s, the first step of 5 s begins at 100 s.
    assert result.time_to_first_step_s == pytest.approx(15.0)
    assert result.setup_s == {"start": 1.0, "imported": 4.0}
    assert (result.parameters, result.peak_memory_bytes) == (1010, 1024)
    assert result.loss_first == pytest.approx(7.0)
    # Nobody can count the tokens again.
    assert (result.status, result.verdict) == ("ok", "unknown")
    assert {f.rule for f in result.findings if f.severity == "unknown"} == {"not-recounted"}


def test_a_fixed_number_of_steps_is_the_first_after_the_warm_up(tmp_path: Path) -> None:
    identity = msgspec.structs.replace(IDENTITY, steps_requested=3)
    result = derive_result(identity, [attempt(tmp_path, records())])
    assert result.steps_measured == 3
    assert result.interval_s == pytest.approx(3.1)


def test_scaling_all_times_divides_rates(tmp_path: Path) -> None:
    once = derive_result(IDENTITY, [attempt(tmp_path, records())])
    thrice = derive_result(IDENTITY, [attempt(tmp_path, records([3 * s for s in SECONDS]), name="b")])
    assert once.tokens_per_s is not None
    assert thrice.tokens_per_s is not None
    assert thrice.tokens_per_s.value == pytest.approx(once.tokens_per_s.value / 3)


def test_accumulation_of_the_same_steps_changes_no_rate(tmp_path: Path) -> None:
    identity = msgspec.structs.replace(IDENTITY, gradient_accumulation=4, micro_batch=1, global_batch=4)
    assignment = replace(ASSIGNMENT, gradient_accumulation=4, global_batch=4)
    whole = derive_result(IDENTITY, [attempt(tmp_path, records())])
    parts = derive_result(identity, [attempt(tmp_path, records(), name="b", assignment=assignment)])
    assert parts.tokens_per_s == whole.tokens_per_s
    assert parts.tokens == whole.tokens


def test_data_ranks_are_summed_and_tensor_ranks_counted_once(tmp_path: Path) -> None:
    slow = [1.5 * s for s in SECONDS]
    both = replace(ASSIGNMENT, data_ranks=2)
    data = derive_result(IDENTITY, [attempt(tmp_path, records(), records(slow, rank=1, data_rank=1), assignment=both)])
    tensor = derive_result(IDENTITY, [attempt(tmp_path, records(), records(slow, rank=1, data_rank=0), name="b")])
    assert data.tokens is not None
    assert tensor.tokens is not None
    assert (data.tokens.content, tensor.tokens.content) == (2 * 8 * 8, 8 * 8)
    # The slowest rank's interval, not the sum and not the mean.
    assert data.interval_s == tensor.interval_s == pytest.approx(1.5 * 8.4)


def test_relabelled_ranks_change_nothing(tmp_path: Path) -> None:
    both = replace(ASSIGNMENT, data_ranks=2)
    rows = [records(content=lambda step: 5), records([1.1 * s for s in SECONDS], content=lambda step: 9, data_rank=1)]
    one = derive_result(IDENTITY, [attempt(tmp_path, *rows, assignment=both)])
    two = derive_result(IDENTITY, [attempt(tmp_path, *rows[::-1], name="b", assignment=both)])
    assert (one.tokens, one.tokens_per_s, one.interval_s) == (two.tokens, two.tokens_per_s, two.interval_s)


def test_several_attempts_have_an_interval_between_them(tmp_path: Path) -> None:
    attempts = [attempt(tmp_path, records([k * s for s in SECONDS]), name=str(k)) for k in (1.0, 1.01, 1.02)]
    result = derive_result(IDENTITY, attempts)
    assert result.tokens_per_s is not None
    assert result.tokens_per_s.n == 3
    assert result.tokens_per_s.low is not None
    assert result.tokens_per_s.low < result.tokens_per_s.value
    # The geometric mean: 64 tokens in 8.4 s times the cube root of 1 x 1.01 x 1.02.
    assert result.tokens_per_s.value == pytest.approx(64 / 8.4 / (1.01 * 1.02) ** (1 / 3))
    assert "few-attempts" not in ids(result)


def test_too_few_windows_leave_the_value_without_bounds(tmp_path: Path) -> None:
    result = derive_result(IDENTITY, [attempt(tmp_path, records(SECONDS[:5]))])
    assert result.tokens_per_s is not None
    assert result.tokens_per_s.value == pytest.approx(24 / 3.1)
    assert (result.tokens_per_s.low, result.tokens_per_s.high) == (None, None)
    assert "few-windows" in ids(result)
    assert result.verdict == "unknown"


def test_no_steady_state_takes_the_second_half_and_says_so(tmp_path: Path) -> None:
    identity = msgspec.structs.replace(IDENTITY, warmup_requested=None)
    falling = [2.0**-i for i in range(12)]
    result = derive_result(identity, [attempt(tmp_path, records(falling, witness_s=0.0))])
    assert "no-steady-state" in ids(result)
    assert result.steps_measured == 6
    assert result.verdict == "unknown"


def test_the_warm_up_is_found_where_steps_settle(tmp_path: Path) -> None:
    identity = msgspec.structs.replace(IDENTITY, warmup_requested=None)
    settled = [5.0, 3.0, *(1.0 + 0.01 * (i % 3) for i in range(20))]
    result = derive_result(identity, [attempt(tmp_path, records(settled))])
    assert result.warmup_steps == 2
    assert result.steps_measured == 20


def test_mfu_counts_slots_and_flops_per_token(tmp_path: Path) -> None:
    # 80 slots in 8.4 s, 6000 FLOPs each, of 100 kFLOP/s.
    identity = msgspec.structs.replace(IDENTITY, peak_flops=1e5, peak_flops_source="a data sheet")
    result = derive_result(identity, [attempt(tmp_path, records())])
    assert result.mfu == pytest.approx(80 / 8.4 * 6000 / 1e5)
    unknown = derive_result(IDENTITY, [attempt(tmp_path, records(), name="b")])
    assert unknown.mfu is None
    assert unknown.mfu_reason is not None
    assert "no peak" in unknown.mfu_reason


def test_a_measured_peak_is_summed_over_ranks_and_may_be_too_low(tmp_path: Path) -> None:
    two = [records(peak=4e5), records(rank=1, data_rank=0, peak=4e5)]
    result = derive_result(IDENTITY, [attempt(tmp_path, *two)])
    assert (result.peak_flops, result.peak_flops_source) == (8e5, "measured")
    assert result.mfu == pytest.approx(80 / 8.4 * 6000 / 8e5)
    low = derive_result(IDENTITY, [attempt(tmp_path, records(peak=1e4), name="b")])
    assert low.mfu is None
    assert low.mfu_reason is not None
    assert "too low" in low.mfu_reason
    assert {f.severity for f in low.findings if f.rule == "peak-too-low"} == {"note"}


def test_a_rate_above_a_published_peak_is_invalid(tmp_path: Path) -> None:
    identity = msgspec.structs.replace(IDENTITY, peak_flops=1e4, peak_flops_source="a data sheet")
    assert derive_result(identity, [attempt(tmp_path, records())]).verdict == "invalid"


@pytest.mark.parametrize(
    ("rule", "severity", "changes"),
    [
        ("loss-not-finite", "invalid", {"loss": lambda step: float("nan") if step == 4 else 1.0}),
        ("weights-unchanged", "invalid", {"end": {**END, "weights_changed": False}}),
        ("clocks-disagree", "invalid", {"second_factor": 1.03}),
        ("sync-does-not-wait", "invalid", {"witness_s": 0.03}),
        ("sync-does-not-wait", "invalid", {"witness_s": 0.04, "reread_s": 0.01}),
        # A program in each of eight steps of the timed part, which lasts 8.4 s; and one, of 10 ms.
        ("compiled", "suspect", {"compiled": lambda window: (window, 0.3 * window)}),
        ("compiled", "note", {"compiled": lambda window: (window // 6, 0.01 * (window // 6))}),
        ("loss-rising", "suspect", {"loss": lambda step: 1.0 + 0.1 * step + 0.01 * (step % 2)}),
        ("heavy-load", "suspect", {"busy": 1.2}),
        ("light-load", "note", {"busy": 1.05}),
        ("slow-step", "note", {"seconds": [*SECONDS, 4.0, 1.0]}),
        ("too-short", "unknown", {"seconds": [0.05, 0.03, *(0.01 + 0.0001 * (i % 3) for i in range(30))]}),
        ("drift", "suspect", {"seconds": [5.0, 3.0, *(1.0 + 0.01 * i for i in range(30))]}),
    ],
)
def test_records_that_show_a_fault_are_found(tmp_path: Path, rule: str, severity: str, changes: Any) -> None:
    clean = derive_result(IDENTITY, [attempt(tmp_path, records())])
    assert rule not in ids(clean)
    result = derive_result(IDENTITY, [attempt(tmp_path, records(**changes), name="b")])
    assert {f.severity for f in result.findings if f.rule == rule} == {severity}
    if severity != "note":
        assert result.verdict == severity


def test_the_cost_of_reading_is_no_work_of_the_device(tmp_path: Path) -> None:
    # 27 ms for a value that depends on the update, and 27 ms for one that depends on nothing: 2.6 % of the windows.
    result = derive_result(IDENTITY, [attempt(tmp_path, records(witness_s=0.027, reread_s=0.027))])
    assert "sync-does-not-wait" not in ids(result)


def test_what_was_compiled_before_the_timed_part_has_columns_of_its_own(tmp_path: Path) -> None:
    # Two programs in the two steps of the warm-up, of 1.5 s each.
    warm = records(compiled=lambda window: (min(window, 2), 1.5 * min(window, 2)))
    result = derive_result(IDENTITY, [attempt(tmp_path, warm)])
    assert (result.compilations, result.compile_s) == (2, 3.0)
    assert "compiled" not in ids(result)
    uncounted = derive_result(IDENTITY, [attempt(tmp_path, records(), name="b")])
    assert (uncounted.compilations, uncounted.compile_s) == (None, None)


def test_random_ids_may_have_a_rising_loss(tmp_path: Path) -> None:
    identity = msgspec.structs.replace(IDENTITY, learnable=False)
    result = derive_result(
        identity, [attempt(tmp_path, records(loss=lambda step: 1.0 + 0.1 * step + 0.01 * (step % 2)))]
    )
    assert "loss-rising" not in ids(result)


# Documents of 8, 12 and 4 tokens, all trained.
DOCUMENTS = TokenDocuments(offsets=[0, 8, 20, 24], trained=bytes([1] * 24))


def test_a_recount_cuts_at_the_sequence_and_trains_no_first_token() -> None:
    # An epoch, in whatever order: 8 + 10 (cut) + 4 tokens, less one for each document.
    assert recount_tokens(DOCUMENTS, ASSIGNMENT, 0, 3) == JobTokens(30, 22, 19)
    assert recount_tokens(DOCUMENTS, ASSIGNMENT, 3, 9) == JobTokens(60, 44, 38)


def test_a_false_count_of_tokens_is_found(tmp_path: Path) -> None:
    contents = [recount_tokens(DOCUMENTS, ASSIGNMENT, step, step + 1).content for step in range(10)]
    honest = derive_result(IDENTITY, [attempt(tmp_path, records(content=contents.__getitem__))], DOCUMENTS)
    assert "tokens-disagree" not in ids(honest)
    false = derive_result(IDENTITY, [attempt(tmp_path, records(content=lambda step: 10), name="b")], DOCUMENTS)
    assert "tokens-disagree" in ids(false)
    assert false.verdict == "invalid"


def test_a_breakdown_is_a_mean_over_ranks_and_sets_waiting_apart(tmp_path: Path) -> None:
    def waiting(share: float) -> Callable[[float, float], list[tuple[str, float]]]:
        def marks(begin: float, end: float) -> list[tuple[str, float]]:
            return [("forward", end - share * (end - begin)), ("communication", end)]

        return marks

    folder = tmp_path / "a"
    folder.mkdir()
    identity = msgspec.structs.replace(IDENTITY, breakdown=True, processes=2)
    (folder / "plan.json").write_text(replace(ASSIGNMENT, processes=2).to_json())
    for rank, share in enumerate((0.5, 0.1)):
        (folder / f"records.{rank}.jsonl").write_text(records(marks=waiting(share)))
    measured = StoredAttempt(name="a", status="ok", reason="steps", evidence="", measurement=read_measurement(folder))
    parts = derive_result(identity, [measured]).breakdown_s
    assert parts is not None
    # Half and a tenth: three tenths of a step, whichever of the ranks is called the slowest.
    assert parts["communication"] / sum(parts.values()) == pytest.approx(0.3)


def test_a_breakdown_is_seconds_per_step_and_part(tmp_path: Path) -> None:
    def marks(begin: float, end: float) -> list[tuple[str, float]]:
        return [("data", begin + 0.25), ("forward", begin + 0.5), ("forward", begin + 0.75), ("backward", end)]

    identity = msgspec.structs.replace(IDENTITY, breakdown=True)
    result = derive_result(identity, [attempt(tmp_path, records(marks=marks))])
    assert result.breakdown_s == pytest.approx({"data": 0.25, "forward": 0.5, "backward": 1.05 - 0.75})
    assert result.mfu is None


def test_a_failed_attempt_gives_the_run_its_status(tmp_path: Path) -> None:
    oom = {**END, "status": "oom", "reason": "oom", "requested_bytes": 4096}
    good = attempt(tmp_path, records())
    bad = attempt(tmp_path, records(SECONDS[:4], end=oom), name="b", status="oom")
    result = derive_result(IDENTITY, [good, bad])
    assert (result.status, result.verdict, result.requested_bytes) == ("oom", "unknown", 4096)
    assert result.tokens_per_s is not None
    assert result.steps_measured == 8
    # What failed first and then went well is told, and does not count.
    again = derive_result(IDENTITY, [bad, good])
    assert again.status == "ok"
    assert "retried" in ids(again)


def test_an_attempt_without_a_step_is_a_row_of_unknowns(tmp_path: Path) -> None:
    result = derive_result(IDENTITY, [attempt(tmp_path, "", status="error")])
    assert (result.status, result.verdict) == ("error", "unknown")
    assert (result.tokens_per_s, result.padding_fraction, result.mfu, result.loss_first) == (None,) * 4
    assert decode_result(encode_result(result)) == result


def test_what_is_written_satisfies_the_schema(tmp_path: Path) -> None:
    rows = [
        derive_result(IDENTITY, [attempt(tmp_path, records())]),
        derive_result(IDENTITY, [attempt(tmp_path, "", name="b")]),
    ]
    for result in rows:
        jsonschema.validate(json.loads(encode_result(result)), result_schema(), jsonschema.Draft202012Validator)
        assert decode_result(encode_result(result)) == result
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**json.loads(encode_result(rows[0])), "tps": 1}, result_schema())


# -- the folder


def stored(
    root: Path, *ranks: str, name: str = "a", series: str = "s", started: str = "2026-01-01", **facts: Any
) -> None:
    folder = written(root / f"toy-cpu-1-none-{IDENTITY.run_id}" / name, *ranks)
    entry = {"schema": 1, "run": msgspec.to_builtins(IDENTITY), "series": series, "fingerprint": "f"}
    (folder / "attempt.json").write_text(json.dumps({**entry, "started_utc": started, **facts}))


def test_a_store_gives_the_newest_series(tmp_path: Path) -> None:
    stored(tmp_path, records(SECONDS), series="s", status="ok")
    stored(tmp_path, records(), name="b", series="t", started="2026-01-02", status="ok")
    stored(tmp_path, records(), name="c", series="t", started="2026-01-03", status="ok")
    store = Store(tmp_path)
    (result,) = store.results()
    assert [row.name for row in result.each_attempt] == ["b", "c"]
    assert store.finished_attempts(IDENTITY.run_id, "f") == 2
    assert store.finished_attempts(IDENTITY.run_id, "other") == 0
    assert store.finished_attempts(IDENTITY.run_id, "f") >= 2
    assert store.series(IDENTITY.run_id, "f", new=False) == "t"
    assert store.series(IDENTITY.run_id, "f", new=True) != "t"


def test_a_missing_end_is_a_kill_and_a_cut_line_is_dropped(tmp_path: Path) -> None:
    text = records(end=None)
    stored(tmp_path, text + text.splitlines()[-1][:20])
    (result,) = Store(tmp_path).results()
    assert (result.status, result.verdict) == ("killed", "unknown")
    assert "cut-off" in ids(result)
    assert result.steps_measured == 8


def test_a_corrupt_record_names_file_and_line(tmp_path: Path) -> None:
    lines = records().splitlines()
    lines[4] = lines[4][:10]
    stored(tmp_path, "\n".join(lines) + "\n")
    (result,) = Store(tmp_path).results()
    assert (result.status, result.tokens_per_s) == ("error", None)
    assert "records.0.jsonl, line 5" in result.each_attempt[0].evidence


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 99}', '{"schema": 1, "run": {"model": 3}}'])
def test_a_corrupt_attempt_names_its_file(tmp_path: Path, text: str) -> None:
    stored(tmp_path, records())
    (path,) = tmp_path.glob("*/*/attempt.json")
    path.write_text(text)
    with pytest.raises(BadStore, match=r"attempt\.json"):
        Store(tmp_path).results()


def test_edges_that_go_back_are_refused(tmp_path: Path) -> None:
    lines = records().splitlines(keepends=True)
    edges = [i for i, line in enumerate(lines) if '"edge"' in line]
    lines[edges[3]], lines[edges[4]] = lines[edges[4]], lines[edges[3]]
    stored(tmp_path, "".join(lines))
    (result,) = Store(tmp_path).results()
    assert (result.status, result.tokens_per_s) == ("error", None)
    assert "records.0.jsonl" in result.each_attempt[0].evidence


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ('"content":8,', "", "content"),
        ('"content":8,', '"content":"eight",', "eight|content"),
        ('"step":4,', '"step":5,', "step 5 is out of order"),
        ('"loss_sum"', '"loss"', "loss_sum"),
    ],
)
def test_a_step_that_cannot_be_read_is_named_with_its_line(tmp_path: Path, before: str, after: str, why: str) -> None:
    lines = records().splitlines(keepends=True)
    number = next(i for i, line in enumerate(lines) if '"kind":"step"' in line and '"step":4,' in line)
    assert before in lines[number]
    lines[number] = lines[number].replace(before, after, 1)
    with pytest.raises(BadStore, match=f"records.0.jsonl, line {number + 1} cannot be read") as caught:
        attempt(tmp_path, "".join(lines))
    assert re.search(why, str(caught.value))


def test_numbers_that_are_none_are_read_as_such(tmp_path: Path) -> None:
    text = records(loss=lambda step: float("nan") if step == 4 else 1.0)
    (rank,) = attempt(tmp_path, text).measurement.ranks
    assert [step.number for step in rank.steps if math.isnan(step.loss_sum)] == [4]
    assert [step.content for step in rank.steps] == [8] * len(SECONDS)


def test_a_record_is_read_as_the_worker_means_it() -> None:
    fields = {
        "error": 'he said "nan"',
        "loss_sum": float("nan"),
        "gradient_norm": float("-inf"),
        "steps": 3,
        "own_s": 0.1,
    }
    for some in (fields, {"steps": 1, "marks": [["data", 0.25]], "word": "über"}):
        line = contract.encode_record("end", 3, 17.25, some)
        assert repr(read_record(line)) == repr(contract.decode_record(line.decode()))
    for wrong in (
        b"",
        b"{",
        b"[]",
        b'{"kind":"other","instant_s":1}',
        b'{"kind":"end"}',
        b'{"kind":"end","instant_s":"nan"',
    ):
        with pytest.raises(ValueError):  # noqa: PT011 - whatever its words
            read_record(wrong)


def test_an_unwritable_folder_is_refused_early(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(BadStore, match="cannot write"):
            Store(folder).prove_writable()
    Store(tmp_path / "new" / "runs").prove_writable()
    assert list((tmp_path / "new" / "runs").iterdir()) == []


def test_an_attempt_that_found_no_room_is_a_row_as_long_as_its_store_is_known(tmp_path: Path) -> None:
    catalog = Catalog()
    (plan,) = make_plans(make_grid_points(make_experiment({"device": "cpu:1", "steps": 8})), catalog)
    assignment = plan.assignment(ASSIGNMENT.token_file, "a", measure_peak=False)
    store = Store(tmp_path)
    folder = store.attempt_folder(plan, "a")
    facts = {"started_utc": "2026-01-01", "series": "s", "fingerprint": "f"}
    # Nothing can be written below a file, nor to a full disk.
    folder.parent.write_text("")
    with pytest.raises(BadStore, match="cannot write"):
        store.new_attempt(plan, folder, assignment, facts)
    ended = {**facts, "status": "error", "reason": "store", "evidence": "no space left"}
    store.write_attempt(plan, folder, ended, assignment)
    result = judge(store.result(plan.run_id), catalog, plan)
    assert (result.status, result.verdict, result.stop_reason) == ("error", "unknown", "store")
    assert [row.evidence for row in result.each_attempt] == ["no space left"]
    assert result.tokens_per_s is None
    assert store.finished_attempts(plan.run_id, "f") == 0
    # Where there is room again it is measured, and the row is gone from the store that comes after.
    assert Store(tmp_path).results() == []
    folder.parent.unlink()
    store.new_attempt(plan, store.attempt_folder(plan, "b"), assignment, {**facts, "started_utc": "2026-01-02"})
    assert [row.name for row in store.result(plan.run_id).each_attempt] == ["a", "b"]


def test_a_store_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadStore, match="no store"):
        Store(tmp_path / "runs").results()


def test_the_windows_of_an_attempt_are_contiguous(tmp_path: Path) -> None:
    (rank,) = attempt(tmp_path, records()).measurement.ranks
    assert [b.instant_s - a.instant_s for a, b in itertools.pairwise(rank.edges)] == pytest.approx(list(SECONDS))
