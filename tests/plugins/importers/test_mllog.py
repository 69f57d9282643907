"""Result files of MLPerf Training: sequences per second, their counter, and the clock of their lines."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from tunemark.plugin.claims import Claim
from tunemark_importers import mllog

Printed = Callable[[str], str]
ClaimsOf = Callable[[str, str], Sequence[Claim]]


def test_a_result_has_its_batch_its_rate_and_its_time(printed: Printed, claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("mlperf", printed("mlperf-result.txt"))
    assert (claim.layout.global_batch, claim.layout.gradient_accumulation, claim.sequence) == (16, 2, 8192)
    assert (claim.method, claim.samples_scope, claim.counts) == ("lora", "job", "slots")
    # 4 x 64 s between reports, and 9.5 s from the last one to the end.
    assert claim.train_s == 265.5
    steps = list(claim.steps)
    assert [(s.samples_per_s, s.samples) for s in steps] == [(6.01, 384), (6.02, 768), (6.03, 1152), (6.04, 1536)]
    assert {(b.stamp_s or 0) - (a.stamp_s or 0) for a, b in itertools.pairwise(steps)} == {64.0}


def test_in_gpt3_the_rate_is_of_tokens(printed: Printed, claims_of: ClaimsOf) -> None:
    (claim,) = claims_of("mlperf", printed("mlperf-result.txt").replace("llama2_70b_lora", "gpt3"))
    assert next((s.samples_per_s, s.tokens_per_s) for s in claim.steps) == (None, 6.01)


def test_a_broken_line_is_nobodys(understood: Callable[[mllog.MllogReader, str], list[bool]]) -> None:
    reader = mllog.MllogReader()
    lines = [
        ':::MLLOG {"time_ms": 1738403600123, "key": "global_batch_size", "value": 8',
        ':::MLLOG {"time_ms": "soon", "key": "global_batch_size", "value": 8}',
        ":::MLLOG []",
        ":::MLPv0.5.0 transformer 1538403600.123 (train.py:3) run_start",
    ]
    assert understood(reader, "\n".join(lines)) == [False] * 4
    assert not reader.claims()
