"""Whole logs by every reader: the one that finds the figure reads it, and rates of one log are never mixed."""

from __future__ import annotations

import json
import math
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tunemark.analysis import audit_claims
from tunemark.analysis.claim_reader import read_claims
from tunemark_importers.plugin import tunemark_importers

_IMPORTERS = list(tunemark_importers())
_few = settings(max_examples=20, deadline=None, derandomize=True)


@_few
@given(
    st.permutations(["step", "loss", "lr", "grad_norm", "epoch"]), st.integers(2, 5),
    st.sampled_from([("tokens_per_second", "job?"), ("tokens_per_second_per_gpu", "device"), ("tgs", "device"),
                     ("throughput/device/tokens_per_sec", "device"), ("train/tok_s_total", "job")]),
    st.sampled_from(["json", "repr", "pairs"]), st.integers(1000, 9999),
)  # fmt: skip
def test_a_reader_that_finds_no_rate_leaves_the_lines_to_others(
    order: list[str], kept: int, named: tuple[str, str], form: str, rate: int
) -> None:
    name, scope = named
    lines = []
    for n in range(1, 9):
        values = {"step": n, "loss": round(3 - n / 10, 2), "lr": 1e-5, "grad_norm": 0.5, "epoch": n / 10}
        found = {key: values[key] for key in order if key in order[:kept] or key in ("step", "loss")} | {name: rate + n}
        pairs = " | ".join(f"{key}: {value}" for key, value in found.items())
        lines.append(json.dumps(found) if form == "json" else repr(found) if form == "repr" else pairs)
    text = "\n".join(lines) + "\n"
    reading = read_claims([(text.encode(), None)], "log", "log", _IMPORTERS)
    (claim,) = reading.claims
    (audited,) = audit_claims([replace(claim, count=8)], {})
    assert audited.rate is not None, text
    wanted = (rate + 5) * (8 if scope == "device" else 1)
    assert math.isclose(audited.rate.tokens_per_s, wanted, rel_tol=1e-2), (text, audited.rate)


@_few
@given(st.integers(1, 9), st.sampled_from(["generation tokens/s", "eval tokens/s", "prefill tok/s", "rollout/tok_s"]),
       st.integers(10_000, 99_999), st.booleans())  # fmt: skip
def test_two_rates_in_one_log_share_no_median(share: int, other: str, rate: int, is_first: bool) -> None:
    lines = []
    for n in range(1, 12):
        train, beside = f"step {n} loss {3 - n / 10:.2f} tokens/s {rate + n}", f"{other}: {rate * share * 3}"
        lines += [beside, train] if is_first else [train, beside]
    reading = read_claims([("\n".join(lines).encode() + b"\n", None)], "log", "log", _IMPORTERS)
    (claim,) = reading.claims
    assert {step.tokens_per_s for step in claim.steps} == {float(rate + n) for n in range(1, 12)}, lines[:2]
