"""optimum-benchmark's training throughput: samples of all its steps over the mean time of one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import pytest

from tunemark.errors import BadData
from tunemark.plugin.claims import Claim
from tunemark_importers import optimum_benchmark

Printed = Callable[[str], str]
ClaimsOf = Callable[[str, str], Sequence[Claim]]


def test_the_rate_is_too_high_by_the_number_of_steps(printed: Printed, claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("optimum-benchmark", printed("optimum-benchmark.json"))
    assert claim.layout.global_batch == 16
    once = 16 / (claim.step_time_s or 0)
    # 12 steps, 2 of them warm-up.
    assert (claim.samples_per_s or 0) / once == pytest.approx(10)
    assert "too high by a factor of the number of steps" in claim.meaning


def test_the_config_says_what_was_trained_on_what(printed: Printed, claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("optimum-benchmark", printed("optimum-benchmark.json"))
    assert (claim.model, claim.method, claim.precision) == ("openai-community/gpt2", "full", "bf16")
    assert (claim.device, claim.count, claim.sequence) == ("NVIDIA A100-SXM4-80GB", 1, 512)
    assert (claim.layout.micro_batch, claim.layout.gradient_accumulation) == (8, 2)
    assert (claim.steps_total, claim.steps_done, claim.memory_bytes) == (12, 12, 20.48e9)


def test_every_step_has_its_time_the_first_included(printed: Printed, claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("optimum-benchmark", printed("optimum-benchmark.json"))
    steps = list(claim.steps)
    assert (len(steps), steps[0].number, steps[0].duration_s) == (12, 1.0, 4.912332)


def test_a_report_alone_leaves_the_batch_open(printed: Printed, claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("optimum-benchmark", printed("optimum-benchmark_report.json"))
    assert (claim.layout.global_batch, claim.device, claim.count) == (None, None, None)
    # The times may be those of several processes, one after the other.
    assert {s.number for s in claim.steps} == {None}


def test_a_mean_over_processes_is_not_the_jobs_rate(printed: Printed, claims_of: ClaimsOf) -> None:
    whole = json.loads(printed("optimum-benchmark.json"))
    whole["config"]["launcher"] = {"name": "torchrun", "nproc_per_node": 4}
    (claim,) = claims_of("optimum-benchmark", json.dumps(whole))
    assert (claim.samples_per_s, claim.layout.global_batch) == (None, None)
    assert any("mean over 4 processes" in note for note in claim.notes)


def test_a_report_of_inference_is_refused(printed: Printed) -> None:
    report = json.loads(printed("optimum-benchmark_report.json"))
    text = json.dumps({"load": report["warmup"], "forward": report["train"]})
    assert optimum_benchmark.is_document(text)
    with pytest.raises(BadData, match="without figures of training") as caught:
        optimum_benchmark.document("here", "a file", text)
    assert "it holds load, forward" in caught.value.why


def test_a_truncated_report_is_refused_with_its_place(printed: Printed) -> None:
    text = printed("optimum-benchmark.json")
    with pytest.raises(BadData, match="a file is cut off"):
        optimum_benchmark.document("here", "a file", text[:-40])
    with pytest.raises(BadData, match="not JSON") as caught:
        optimum_benchmark.document("here", "a file", text.replace('"report": {', '"report": {{'))
    assert "column" in caught.value.why
