"""Runs of the fixture `tunemark`, as pytest-benchmark saves them, read back as claims."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tunemark.analysis import audit_claims
from tunemark.errors import BadData
from tunemark.plugin import Catalog
from tunemark.plugin.claims import Claim
from tunemark_importers import pytest_benchmark

Printed = Callable[[str], str]
ClaimsOf = Callable[[str, str], Sequence[Claim]]


def test_each_run_is_a_claim_and_its_rounds_are_steps(printed: Printed, claims_of: ClaimsOf) -> None:
    eight, sixteen = claims_of("pytest-benchmark", printed("pytest-benchmark.json"))
    assert (eight.id, sixteen.id) == ("test_speed.py::test_eight", "test_speed.py::test_sixteen")
    assert (eight.model, eight.device, eight.count, eight.method) == ("mistral-7b", "NVIDIA H100 80GB HBM3", 8, "full")
    assert (eight.layout.global_batch, eight.sequence, eight.counts) == (16, 4096, "slots")
    # 16 x 4096 slots in each of 6 steps, which last 12.314 s together.
    assert eight.tokens_per_s == pytest.approx(6 * 16 * 4096 / 12.314, abs=0.1)
    assert eight.step_time_s == pytest.approx(12.314 / 6, abs=1e-5)
    assert [step.duration_s for step in eight.steps] == [2.051, 2.049, 2.06, 2.047, 2.055, 2.052]
    assert eight.notes == ("1 other benchmarks in the file are left out",)
    assert sixteen.notes[1] == "its own verdict was unknown"


def test_the_audit_holds_it_to_the_hardware(printed: Printed, claims_of: ClaimsOf) -> None:
    models = Catalog().models()
    eight, sixteen = audit_claims(claims_of("pytest-benchmark", printed("pytest-benchmark.json")), models)
    assert eight.as_row().kind == "imported"
    assert eight.verdict == "valid"
    # About 46 GFLOP a token; 8 x 989.4 TFLOP/s.
    assert eight.mfu_implied == pytest.approx(0.19, abs=0.01)
    assert {way.way for way in eight.ways} >= {"step-time", "durations", "stated-time"}
    assert all(way.tokens_per_s == pytest.approx(eight.claim.tokens_per_s, rel=0.01) for way in eight.ways)
    assert sixteen.mfu_implied is not None


def test_without_the_rounds_there_are_no_steps(printed: Printed, claims_of: ClaimsOf) -> None:
    whole = json.loads(printed("pytest-benchmark.json"))
    for bench in whole["benchmarks"]:
        del bench["stats"]["data"]
    assert [len(claim.steps) for claim in claims_of("pytest-benchmark", json.dumps(whole))] == [0, 0]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda whole: whole["benchmarks"].__delitem__(slice(0, 2)), "none of its 1 benchmarks is a training run"),
        (lambda whole: whole.update(benchmarks="?"), "none of its 0 benchmarks"),
        (
            lambda whole: [b["extra_info"].get("tunemark", {}).update(schema=9) for b in whole["benchmarks"]],
            "another version of tunemark",
        ),
    ],
)
def test_a_file_without_such_runs_is_refused(printed: Printed, change: Callable[[Any], Any], what: str) -> None:
    whole = json.loads(printed("pytest-benchmark.json"))
    change(whole)
    with pytest.raises(BadData, match=what):
        pytest_benchmark.document("here", "a file", json.dumps(whole))


def test_a_simulators_run_says_so(printed: Printed, claims_of: ClaimsOf) -> None:
    text = printed("pytest-benchmark.json").replace('"simulated": false', '"simulated": true')
    assert any("simulated" in note for note in claims_of("pytest-benchmark", text)[0].notes)


def test_rows_of_different_widths_have_no_sequence(printed: Printed, claims_of: ClaimsOf) -> None:
    text = printed("pytest-benchmark.json").replace('"batching": "pack"', '"batching": "bucket"')
    assert '"batching": "bucket"' in text
    found = claims_of("pytest-benchmark", text)[0]
    assert found.sequence is None
    assert any("differ in width" in note for note in found.notes)
