"""Each rule against figures worked by hand: what it says of a fault, and that it is silent where there is none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tunemark.analysis import UserFacts, audit_claims
from tunemark.analysis.claim_rates import relative_rounding_error
from tunemark.physics import make_architecture
from tunemark.plugin.claims import Claim, ClaimedLayout, LoggedStep, LoggedSteps

# 32 layers of 4096: 7.11e9 weights in products, 43.47 GFLOP for a token at 1,024.
SEVEN = make_architecture(
    layers=32, hidden=4096, intermediate=14336, is_gated=True, heads=32, kv_heads=8, vocab=32000, sequence=32768
)


def _steps(rows: Sequence[dict[str, Any]]) -> LoggedSteps:
    steps = LoggedSteps()
    for line, row in enumerate(rows, 1):
        steps.add(LoggedStep(line, **row))
    return steps


def _log(seconds: float = 2.0, *, stamps: float | None = None, steps: int = 12, **row: Any) -> Claim:
    """16 x 1024 slots a step, 8,192 tokens/s printed for 2 s; the loss falls. stamps: seconds between lines."""
    rows = []
    for n in range(steps):
        printed = {"duration_s": seconds, "duration_steps": 1.0, "tokens_per_s": 8192.0 + n, "loss": 3 - 0.1 * n, **row}
        rows.append({"number": n + 1.0, "stamp_s": None if stamps is None else 1000.0 + stamps * n, **printed})
    return Claim(
        id="log", source="log", tool="t", counts="slots", architecture=SEVEN, method="full", device="A100-SXM-80GB",
        count=8, precision="bf16", sequence=1024, layout=ClaimedLayout(global_batch=16), steps=_steps(rows),
    )  # fmt: skip


def _row(**changes: Any) -> Claim:
    """16,000 tokens/s on 8 A100: 2,000 x 43.47 GFLOP = 86.9 TFLOP/s of 312."""
    claim = Claim(
        id="row", source="table", tool="t", counts="slots", architecture=SEVEN, method="full", device="A100-SXM-80GB",
        count=8, precision="bf16", sequence=1024, tokens_per_s=16000.0,
        layout=ClaimedLayout(global_batch=64, micro_batch=4, gradient_accumulation=2, dp=8),
    )  # fmt: skip
    layout = {name: changes.pop(name) for name in list(changes) if name in ClaimedLayout.__dataclass_fields__}
    return replace(claim, layout=replace(claim.layout, **layout), **changes)


def _found(claim: Claim) -> dict[str, str]:
    """Severity by rule."""
    (audited,) = audit_claims([claim], {})
    return {finding.rule: finding.severity for finding in audited.findings}


@pytest.mark.parametrize(
    "claim",
    [
        _row(),
        _row(tokens_per_s_per_device=2000.0, step_time_s=4.096),
        # 64 x 1024 / 4.1 = 15,984: the step time was rounded.
        _row(step_time_s=4.1),
        # 2,000 x 43.47 GFLOP = 86.9 TFLOP/s, 27.9 % of 312.
        _row(tflops_per_device=86.9, mfu=0.279),
        _log(),
        _log(stamps=2.0),
        # A checkpoint of 60 s between two lines is no step.
        replace(_log(stamps=2.0), steps=_steps([
            {"number": n + 1.0, "stamp_s": 2.0 * n + 60 * (n > 5), "tokens_per_s": 8192.0 + n, "duration_s": 2.0,
             "duration_steps": 1.0, "loss": 3 - 0.1 * n} for n in range(12)])),
    ],
)  # fmt: skip
def test_what_fits_is_valid(claim: Claim) -> None:
    (audited,) = audit_claims([claim], {})
    assert audited.verdict == "valid", audited.findings
    assert {f.severity for f in audited.findings} <= {"note"}


@pytest.mark.parametrize(
    ("claim", "rule", "severity"),
    [
        # 8,000 per device x 43.47 GFLOP = 348 TFLOP/s of 312.
        (_row(tokens_per_s=64000.0), "above-peak", "invalid"),
        # 5,600 x 43.47 = 243 TFLOP/s, 78 % of 312: possible, and never seen.
        (_row(tokens_per_s=44800.0), "above-seen", "suspect"),
        (_row(tflops_per_device=320.0), "above-peak", "invalid"),
        (_row(mfu=1.2), "above-peak", "invalid"),
        (_row(tokens_per_s_per_device=16000.0), "rate-and-time", "invalid"),
        # 64 x 1024 / 3.9 = 16,804: 5 % more, and 3.9 was rounded to 1.3 %. (16,000 may have been rounded to thousands.)
        (_row(step_time_s=3.9, tokens_per_s=16001.0), "rate-and-time", "suspect"),
        (_row(step_time_s=4096.0), "rate-and-time", "invalid"),
        (_row(samples_per_s=31.25), "rate-and-time", "invalid"),
        # By no convention: full attention would be 88.6, recomputation 116 and 118.
        (_row(tflops_per_device=150.0), "flops-and-rate", "suspect"),
        (_row(tflops_per_device=300.0), "flops-and-rate", "invalid"),
        (_row(tflops_per_device=115.9), "convention", "note"),
        # Against 624 TFLOP/s, with sparsity.
        (_row(mfu=0.139), "sparse-peak", "suspect"),
        (_row(method="lora", tflops_per_device=86.9), "lora-as-full", "suspect"),
        (_row(dp=4), "layout-and-devices", "suspect"),
        (_row(tp=2), "layout-and-devices", "suspect"),
        (_row(dp=16, device="MI250", gradient_accumulation=1), "ranks-are-dies", "note"),
        (_row(gradient_accumulation=4), "layout-and-batch", "suspect"),
        (_row(parameters=13.0e9), "parameters-and-dimensions", "suspect"),
        (_row(architecture=None), "not-enough", "unknown"),
        (_row(count=None), "not-enough", "unknown"),
        (_row(device=None), "not-enough", "unknown"),
        (_row(device="a toaster"), "not-enough", "unknown"),
        (_row(tokens_per_s=None), "no-figure", "unknown"),
        # Printed 2 s a step, and the stamps are 5 s apart.
        (_log(stamps=5.0), "rate-and-clock", "invalid"),
        (_log(stamps=2.12), "rate-and-clock", "suspect"),
        # 4 s x 8,192 is twice 16 x 1024.
        (_log(seconds=4.0), "tokens-of-a-step", "invalid"),
        # 16,384 slots with 30 % padding, and the rate means all of them.
        (replace(_log(), padding_fraction=0.3), "padding-counted", "suspect"),
        # 12 steps of 16,384 in 60 s are 3,277 tokens/s.
        (replace(_log(), steps_done=12.0, train_s=60.0), "rate-and-stated-time", "invalid"),
        (_log(loss=math.nan), "loss-not-finite", "invalid"),
        (_log(loss=2.5), "loss-flat", "suspect"),
        (_log(tokens_per_s=8192.25), "same-every-step", "suspect"),
        (_log(), "few-attempts", "note"),
    ],
)
def test_what_does_not_fit_is_found(claim: Claim, rule: str, severity: str) -> None:
    assert _found(claim).get(rule) == severity


def test_a_rising_loss_is_suspect() -> None:
    rows = [{"number": n + 1.0, "loss": 2 + 0.1 * n, "tokens_per_s": 8192.0 + n} for n in range(12)]
    assert _found(replace(_log(), steps=_steps(rows)))["loss-rising"] == "suspect"


def test_a_slow_first_step_is_noted_and_left_out() -> None:
    rows = [{"number": 1.0, "duration_s": 60.0, "tokens_per_s": 273.0}]
    rows += [{"number": n + 2.0, "duration_s": 2.0, "tokens_per_s": 8192.0 + n} for n in range(6)]
    (audited,) = audit_claims([replace(_log(), steps=_steps(rows))], {})
    assert audited.rate is not None
    assert audited.rate.tokens_per_s == 8194.5
    assert "first-step" in {f.rule for f in audited.findings}


def test_planned_steps_that_were_not_done_are_found() -> None:
    # Hugging Face's summary: 1,000 planned steps x 16 in 20 s, and the log ends at step 12.
    claim = replace(_log(), steps_total=1000.0, train_s=20.0, samples_per_s=800.0)
    assert _found(claim)["planned-steps-counted"] == "invalid"


def test_tokens_of_a_former_run_over_this_ones_clock_are_found() -> None:
    rows = [{"number": 900.0 + n, "tokens": (900 + n) * 16384.0, "loss": 2 - 0.01 * n} for n in range(12)]
    total = 911 * 16384.0
    claim = replace(_log(), steps=_steps(rows), tokens_total=total, train_s=24.0, tokens_per_s=total / 24)
    assert _found(claim)["resumed-clock"] == "invalid"


def test_a_rate_without_padding_may_be_lower_than_that_of_all_slots() -> None:
    assert _found(_row(counts="content", step_time_s=2.9)) == {}
    assert _found(_row(counts="slots", step_time_s=2.9))["rate-and-time"] == "invalid"


def test_step_times_that_do_not_follow_the_work_are_suspect() -> None:
    rows = []
    for n in range(3):
        layout, step_s = ClaimedLayout(global_batch=64 * 2**n), 4.0 + 0.01 * n
        claim = _row(step_time_s=step_s, tokens_per_s=64 * 2**n * 1024 / step_s)
        rows.append(replace(claim, id=str(n), layout=layout))
    for audited in audit_claims(rows, {}):
        assert "same-step-time" in {f.rule for f in audited.findings}


def test_more_than_linear_scaling_is_suspect_in_the_larger_row() -> None:
    few = _row()
    many = replace(few, id="many", count=16, tokens_per_s=36000.0, layout=replace(few.layout, dp=16, global_batch=128))
    first, second = audit_claims([few, many], {})
    assert first.verdict == "valid"
    assert {f.rule for f in second.findings} == {"above-linear"}


def test_the_least_that_can_be_meant_is_held_against_the_most_that_can_be_done() -> None:
    # Nothing is said of method, precision and sequence: adapters in bf16 need 28.4 GFLOP a token, 568 TFLOP/s of 312.
    claim = _row(method=None, precision=None, sequence=None, tokens_per_s=160000.0, global_batch=None)
    (audited,) = audit_claims([claim], {})
    assert audited.verdict == "invalid"
    assert "even if adapters alone were trained" in audited.findings[0].message


def test_relabelling_and_rescaling_change_no_verdict() -> None:
    (one,) = audit_claims([_row(step_time_s=4.096)], {})
    (other,) = audit_claims([_row(step_time_s=2.048, tokens_per_s=32000.0, id="another")], {})
    assert one.verdict == other.verdict == "valid"
    assert other.mfu_implied == pytest.approx(2 * (one.mfu_implied or 0))


def test_a_flag_fills_what_is_missing_and_a_contradiction_is_noted() -> None:
    claim = UserFacts(device="A100-SXM-80GB", count=16).apply_to(_row(device=None))
    assert (claim.device, claim.count) == ("A100-SXM-80GB", 16)
    assert claim.origin["device"] == "--device"
    assert claim.notes == ("count is 16 as given here, 8 in the source",)


@pytest.mark.parametrize(
    ("value", "share"),
    [(9.8, 0.05 / 9.8), (390000.0, 5000 / 390000), (1083366.0, 0.5 / 1083366), (0.0, 0.0), (2.05, 0.005 / 2.05)],
)
def test_rounding_is_half_a_unit_of_the_last_digit_that_is_not_a_zero(value: float, share: float) -> None:
    assert relative_rounding_error(value) == pytest.approx(share)
