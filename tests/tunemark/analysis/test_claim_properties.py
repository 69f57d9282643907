"""Kinds of faults, generated: what contradicts itself is found whatever the figures are, the honest are not accused."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tunemark.analysis import audit_claims
from tunemark.analysis.claim_rules import CLAIM_RULES
from tunemark.physics import count_parameters, find_peak, make_architecture
from tunemark.plugin import Catalog
from tunemark.plugin.claims import Claim, ClaimedLayout, EventKind, LogEvent, LoggedStep, LoggedSteps

_SEVEN = make_architecture(
    layers=32, hidden=4096, intermediate=14336, is_gated=True, heads=32, kv_heads=8, vocab=32000, sequence=32768
)
_CHIPS = ("A100-SXM-80GB", "H100-SXM", "MI300X", "RTX-4090", "TPU-v5p", "B200")
_RULES = {rule.id for rule in CLAIM_RULES}
_few = settings(max_examples=20, deadline=None, derandomize=True)


def _claim(**changes: Any) -> Claim:
    claim = Claim(
        id="row", source="t", tool="t", counts="slots", architecture=_SEVEN, method="full", device="H100-SXM", count=8,
        precision="bf16", sequence=4096, layout=ClaimedLayout(global_batch=64),
    )  # fmt: skip
    return replace(claim, **changes)


def _steps(rows: list[dict[str, Any]]) -> LoggedSteps:
    steps = LoggedSteps()
    for line, row in enumerate(rows, 1):
        steps.add(LoggedStep(line, **row))
    return steps


def _found(claim: Claim) -> dict[str, str]:
    (audited,) = audit_claims([claim], {})
    assert {finding.rule for finding in audited.findings} <= _RULES | {"convention", "sparse-peak", "lora-as-full"}
    return {finding.rule: finding.severity for finding in audited.findings}


def _worst(claim: Claim) -> str:
    return audit_claims([claim], {})[0].verdict


@_few
@given(st.sampled_from(_CHIPS), st.floats(0.1, 0.55), st.sampled_from([0.4, 0.6, 1.0, 1.6, 2.5, 5.0]))
def test_flops_and_mfu_that_stand_side_by_side_mean_a_peak_that_there_is(chip: str, mfu: float, off: float) -> None:
    peak = find_peak(chip, "bf16")
    assert peak is not None
    tflops = mfu * peak.flops / 1e12 * off
    # Of an unknown model, so that nothing else can tell.
    found = _found(_claim(architecture=None, device=chip, tflops_per_device=tflops, mfu=mfu))
    # 2.5 times a dense peak is 1.25 times one with sparsity, which recomputation explains.
    assert bool({"flops-and-mfu", "sparse-peak"} & set(found)) == (off != 1.0), (tflops, mfu, found)


@_few
@given(st.floats(1e3, 1e12), st.floats(1.0, 900.0))
def test_stated_flops_make_no_rate_of_an_unknown_model_valid(rate: float, tflops: float) -> None:
    claim = _claim(architecture=None, model="a model of ours", tokens_per_s=rate, tflops_per_device=tflops)
    assert _worst(claim) in ("unknown", "suspect", "invalid")


@_few
@given(st.integers(2, 64), st.booleans(), st.floats(0.5, 9.0))
def test_a_rate_above_or_below_its_own_step_is_told_with_its_factor(factor: int, is_low: bool, step_s: float) -> None:
    whole = 64 * 4096 / step_s
    rate = whole / factor if is_low else whole * factor
    (audited,) = audit_claims([_claim(architecture=None, tokens_per_s=rate, step_time_s=step_s)], {})
    (finding,) = [finding for finding in audited.findings if finding.rule == "rate-and-time"]
    assert finding.severity == "invalid"
    assert f"{factor if is_low else float(factor):.4g}" in finding.message
    assert "count of devices" in finding.message or factor != 8


@_few
@given(st.integers(8, 40), st.integers(8, 40), st.floats(1.8, 30.0), st.booleans())
def test_a_slow_down_shows_wherever_it_is(before: int, after: int, factor: float, is_down: bool) -> None:
    times = [1.0 + 0.01 * (n % 3) for n in range(before)]
    times += [(factor if is_down else 1.0) * (1.0 + 0.01 * (n % 3)) for n in range(after)]
    rows = [{"number": n + 1.0, "duration_s": t, "duration_steps": 1.0, "tokens_per_s": 1e5 / t, "loss": 3 - n / 99}
            for n, t in enumerate(times)]  # fmt: skip
    found = _found(_claim(steps=_steps(rows), layout=ClaimedLayout()))
    assert bool({"slow-down", "slow-steps"} & set(found)) == is_down, (before, after, factor, found)


@_few
@given(st.integers(3, 30), st.floats(1200.0, 1e5))
def test_a_hang_shows_wherever_it_is(at: int, gap: float) -> None:
    stamps = [1000.0 + 2.0 * n + (gap if n >= at else 0.0) for n in range(36)]
    rows = [
        {"number": n + 1.0, "stamp_s": t, "tokens_per_s": 131072.0, "loss": 3 - n / 99} for n, t in enumerate(stamps)
    ]
    assert "hang" in _found(_claim(steps=_steps(rows)))


@_few
@given(
    st.integers(1, 99), st.integers(100, 10_000),
    st.sampled_from([None, "out-of-memory", "communication", "killed"]), st.booleans(),
)  # fmt: skip
def test_a_run_that_failed_or_ended_early_says_so(
    done: int, planned: int, kind: EventKind | None, goes_on: bool
) -> None:
    rows = [{"number": float(n), "tokens_per_s": 131072.0 + n % 7, "loss": 3 - n / 999} for n in range(1, done + 3)]
    events = (LogEvent(1 if goes_on else done + 9, kind, "what the log says"),) if kind else ()
    found = _found(_claim(steps=_steps(rows), steps_total=float(planned), events=events))
    assert found.get("run-failed") == (None if kind is None else "note" if goes_on else "suspect")
    assert ("ended-early" in found) == (kind is None and done + 2 < 0.98 * planned)


@_few
@given(st.sampled_from(["duration_s", "stamp_s", "arrived_s"]), st.integers(1, 512), st.sampled_from([512, 4096]),
       st.floats(0.05, 60.0))  # fmt: skip
def test_a_clock_without_a_rate_makes_one(clock: str, batch: int, sequence: int, step_s: float) -> None:
    rows: list[dict[str, Any]] = []
    for n in range(12):
        value = step_s if clock == "duration_s" else 1e6 + step_s * n
        rows.append({"number": n + 1.0, "loss": 3 - n / 9, clock: value})
        if clock == "duration_s":
            rows[-1]["duration_steps"] = 1.0
    claim = _claim(architecture=None, steps=_steps(rows), sequence=sequence, layout=ClaimedLayout(global_batch=batch))
    (audited,) = audit_claims([claim], {})
    assert audited.rate is not None
    assert math.isclose(audited.rate.tokens_per_s, batch * sequence / step_s, rel_tol=1e-3)
    assert "rate-derived" in {finding.rule for finding in audited.findings}


@_few
@given(st.floats(0.1, 20.0), st.integers(512, 65536))
def test_sequences_that_may_be_shorter_accuse_nobody(samples: float, sequence: int) -> None:
    claim = _claim(counts=None, samples_per_s=samples, sequence=sequence, device="T4", count=1, precision="fp16",
                   layout=ClaimedLayout())  # fmt: skip
    assert _worst(claim) != "invalid"


def test_parameters_by_any_count_of_embeddings_accuse_no_installed_model() -> None:
    models = Catalog().models()
    for name in sorted(models)[::6]:
        model = models[name]
        counts = count_parameters(model.architecture)
        for stated in (counts.total, counts.total - counts.head, counts.total - counts.head - counts.embedding):
            claim = Claim(
                id="r", source="t", tool="t", model=name, parameters=float(stated), device="H100-SXM", count=8
            )
            (audited,) = audit_claims([claim], models)
            assert "parameters-and-dimensions" not in {finding.rule for finding in audited.findings}, (name, stated)


def test_mixtures_without_columns_of_their_own_are_not_invalid() -> None:
    models = {name: model for name, model in Catalog().models().items() if model.architecture.num_local_experts}
    assert models
    for model in models.values():
        a = model.architecture
        plain = replace(a, num_local_experts=None, num_experts_per_tok=None, traced=None)
        active = count_parameters(a).active
        # A third of the peak by the parameters that a token uses.
        rate = 8 * 989e12 / 3 / (6 * active)
        claim = _claim(architecture=plain, parameters=float(count_parameters(a).total), tokens_per_s=rate,
                       layout=ClaimedLayout())  # fmt: skip
        assert _worst(claim) != "invalid", model.name
