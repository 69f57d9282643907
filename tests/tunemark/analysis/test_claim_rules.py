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
from tunemark.plugin.claims import Claim, ClaimedLayout, LogEvent, LoggedStep, LoggedSteps, NamedFigure

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
        # A batch that is not stated may be smaller than what the devices could have at most.
        _row(global_batch=None, dp=None, step_time_s=2.0),
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
        # No batch is stated: 4 x 2 on each of 8 devices is at most 64 x 1024 / 2 s = 32,768; tp=2 halves that.
        (_row(global_batch=None, dp=None, step_time_s=2.0, tokens_per_s=40000.0), "rate-and-time", "invalid"),
        (_row(global_batch=None, dp=None, tp=2, step_time_s=2.0, tokens_per_s=20000.0), "rate-and-time", "invalid"),
        # By no convention: full attention would be 88.6, recomputation 116 and 118.
        (_row(tflops_per_device=150.0), "flops-and-rate", "suspect"),
        (_row(tflops_per_device=300.0), "flops-and-rate", "invalid"),
        (_row(tflops_per_device=115.9), "convention", "note"),
        # No sequence length: 2,000 x 42.66 GFLOP of the weights alone are 85.3 TFLOP/s, 27 % of 312.
        (_row(sequence=None, mfu=0.03), "flops-and-rate", "invalid"),
        (_row(sequence=None, tflops_per_device=65.0), "flops-and-rate", "suspect"),
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
        (_log(tokens_per_s=0.0, duration_s=None), "no-figure", "unknown"),
        (_log(), "few-attempts", "note"),
    ],
)
def test_what_does_not_fit_is_found(claim: Claim, rule: str, severity: str) -> None:
    assert _found(claim).get(rule) == severity


@pytest.mark.parametrize(("lines", "severity"), [(24, "suspect"), (8, "note")])
def test_a_rising_loss_is_suspect_but_for_the_first_steps(lines: int, severity: str) -> None:
    rows = [{"number": n + 1.0, "loss": 2 + 0.1 * n, "tokens_per_s": 8192.0 + n} for n in range(lines)]
    assert _found(replace(_log(), steps=_steps(rows)))["loss-rising"] == severity


@pytest.mark.parametrize(
    ("stated", "rule", "severity"),
    [
        ({"mfu": 0.41}, "not-enough", "unknown"),
        ({"mfu": 0.8}, "above-seen", "suspect"),
        ({"mfu": 1.2}, "above-peak", "invalid"),
        ({"tflops_per_device": 300.0}, "above-seen", "suspect"),
        # 250 / 0.4 = 625: the A100's 624 with sparsity.
        ({"tflops_per_device": 250.0, "mfu": 0.4}, "sparse-peak", "suspect"),
    ],
)
def test_flops_alone_are_held_to_the_peak(stated: dict[str, float], rule: str, severity: str) -> None:
    assert _found(_row(tokens_per_s=None, **stated))[rule] == severity


def test_tflops_alone_below_the_peak_are_not_accused() -> None:
    (audited,) = audit_claims([_row(tokens_per_s=None, tflops_per_device=150.0)], {})
    assert audited.verdict == "valid"
    assert audited.mfu_implied == pytest.approx(150 / 312)


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


def _series(rows: Sequence[dict[str, Any]], **changes: Any) -> Claim:
    """A log of those lines, of which nobody says what its rates count or of what they are."""
    layout = {name: changes.pop(name) for name in list(changes) if name in ClaimedLayout.__dataclass_fields__}
    claim = replace(_log(), counts=None, scope="unknown", steps=_steps(rows), **changes)
    return replace(claim, layout=replace(claim.layout, **layout))


def _lines(count: int = 20, **row: Any) -> list[dict[str, Any]]:
    return [{"number": n + 1.0, "tokens_per_s": 8192.0 + n, "loss": 3 - 0.05 * n, **row} for n in range(count)]


def _step_times(slow: Sequence[int], seconds: float) -> list[dict[str, Any]]:
    """Thirty steps of 2 s, some of which take longer."""
    return [{"number": n + 1.0, "duration_s": seconds if n in slow else 2.0, "tokens_per_s": 8192.0} for n in range(30)]


@pytest.mark.parametrize(
    ("claim", "rule", "severity"),
    [
        # 2,048 printed x 8 devices = 16,384 = 16 x 1024 / 1 s.
        (_series(_lines(tokens_per_s=2048.0, duration_s=1.0)), "scope-of-rate", "suspect"),
        # Nothing shows of what it is.
        (_series(_lines()), "scope-of-rate", "note"),
        # 131,072 / 4 micro-batches: 32,768 tokens of a step of 131,072.
        (_series(_lines(tokens_per_s=32768.0, duration_s=1.0), global_batch=128, gradient_accumulation=4),
         "tokens-of-a-step", "invalid"),
        (_series(_lines(tokens_per_s=3000.0, duration_s=1.0)), "tokens-of-a-step", "suspect"),
        (_series([{"number": n + 1.0, "tokens_per_s": 500.0 * (n + 1)} for n in range(12)]), "growing-rate", "invalid"),
        (replace(_series(_lines()), events=(LogEvent(90, "out-of-memory", "out of memory"),)), "run-failed", "suspect"),
        (replace(_series(_lines()), events=(LogEvent(2, "communication", "NCCL timeout"),)), "run-failed", "note"),
        (_series(_lines(), steps_total=1881.0), "ended-early", "note"),
        # From step 16 on 22 times slower.
        (_series(_step_times(range(15, 30), 44.0)), "slow-down", "suspect"),
        # One step of thirty takes 60 s.
        (_series(_step_times([9], 60.0)), "slow-steps", "suspect"),
        (_series([{"number": n + 1.0, "stamp_s": 2.0 * n + 7200 * (n > 9), "tokens_per_s": 8192.0} for n in range(20)]),
         "hang", "suspect"),
        (_series(_lines(loss=0.0, gradient_norm=math.nan)), "loss-zero", "invalid"),
        (_series(_lines(gradient_norm=math.nan)), "gradient-not-finite", "invalid"),
        # No rate is printed: 16 x 1024 / 2 s.
        (_series(_lines(tokens_per_s=None, duration_s=2.0)), "rate-derived", "note"),
        # 1,000,000 tokens so far over the 10 s since a resume; 10,000 were trained in them.
        (_series([{"number": n + 1.0, "tokens": 1e6 + 1e4 * n, "stamp_s": 10.0 * (n + 1),
                   "tokens_per_s": (1e6 + 1e4 * n) / (10.0 * (n + 1))} for n in range(8)]), "resumed-clock", "invalid"),
        # The printed rate is four times what is counted.
        (_series([{"number": n + 1.0, "tokens": 1e4 * n, "stamp_s": 10.0 * n, "tokens_per_s": 4000.0 + n}
                  for n in range(8)], global_batch=None), "rate-and-clock", "invalid"),
        # 277 / 0.9 = 308 TFLOP/s, and an H100 has 989; no model is known.
        (_row(architecture=None, device="H100-SXM-80GB", tokens_per_s=None, tflops_per_device=277.0, mfu=0.9),
         "flops-and-mfu", "invalid"),
        # 300 TFLOP/s x 8 over 9e9 tokens/s are 267 kFLOP a token.
        (_row(architecture=None, tokens_per_s=9e9, tflops_per_device=300.0), "size-and-flops", "invalid"),
        (_row(architecture=None, tflops_per_device=300.0), "not-enough", "unknown"),
        # 300e12 x 8 / 16,000 / 6 are 25 billion parameters.
        (_row(architecture=None, tflops_per_device=300.0, parameters=7e9), "size-and-flops", "suspect"),
        (_row(memory_bytes=120e9), "memory-above-chip", "invalid"),
        # At most 16,384 tokens/s, 89 TFLOP/s per device: 300 are more, however long the sequences are.
        (_row(tokens_per_s=None, counts=None, samples_per_s=16.0, tflops_per_device=300.0),
         "flops-and-rate", "invalid"),
        (_row(mfu=0.035), "flops-and-rate", "invalid"),
    ],
)  # fmt: skip
def test_what_a_median_or_a_name_hides_is_found(claim: Claim, rule: str, severity: str) -> None:
    assert _found(claim).get(rule) == severity


def test_a_factor_is_named() -> None:
    def message(claim: Claim, rule: str) -> str:
        (audited,) = audit_claims([claim], {})
        return next(f.message for f in audited.findings if f.rule == rule)

    accumulated = _series(_lines(tokens_per_s=32768.0, duration_s=1.0), global_batch=128, gradient_accumulation=4)
    assert "the gradient accumulation" in message(accumulated, "tokens-of-a-step")
    # 16,000 tokens/s are 27.9 % of 8 A100 at 43.47 GFLOP; 2,000 are 3.48 %, and 27.9 % of one.
    assert "the count of devices" in message(_row(mfu=0.2786, tokens_per_s=2000.0), "flops-and-rate")
    assert "the count of devices" in message(_series(_lines(tokens_per_s=2048.0, duration_s=1.0)), "scope-of-rate")


@pytest.mark.parametrize(
    "claim",
    [
        # 400 sequences/s of 1,024 tokens would be 4.7 times what 4 A100 can do; shorter documents need less.
        replace(_log(), steps=LoggedSteps(), counts=None, samples_per_s=400.0, count=4),
        # The same at 50 TFLOP/s: half of each sequence is missing.
        _row(tokens_per_s=None, counts=None, samples_per_s=16.0, tflops_per_device=50.0),
        # A log with constant times of two digits has constant rates.
        _series(_lines(tokens_per_s=8192.0, duration_s=2.0)),
        # Parameters without one table of embeddings: 7.11e9 of this model's 7.24e9.
        _row(parameters=7.11e9),
        # Adapters by another name: 28.99 GFLOP a token instead of 43.47.
        _row(method="qlora", tflops_per_device=58.3),
        # The job's rate beside each device's.
        _row(tokens_per_s_per_device=2000.0),
        # Two fifths of all slots are padding, as is said; and it may be what is left out.
        replace(_series(_lines(tokens_per_s=4915.0, duration_s=2.0)), padding_fraction=0.4, counts="content"),
    ],
)
def test_the_honest_are_not_accused(claim: Claim) -> None:
    (audited,) = audit_claims([claim], {})
    accused = [f for f in audited.findings if f.severity in ("invalid", "suspect") and f.rule != "same-every-step"]
    assert accused == []


def test_a_mixture_of_unknown_experts_is_unknown_and_not_invalid() -> None:
    # 235 billion parameters: 3,000 tokens/s on an H100 would need 3.8 times its peak if a token used them all.
    row = _row(architecture=None, device="H100-SXM-80GB", tokens_per_s=24000.0, parameters=235e9)
    assert _found(row)["above-peak"] == "suspect"
    assert "above-peak" not in _found(replace(row, active_parameters=22e9))
    # Dimensions of one expert beside the size of all.
    assert _found(_row(parameters=46.7e9)) == {"not-enough": "unknown"}
    # The sparsest mixture would need too much.
    assert _found(replace(row, tokens_per_s=24e5))["above-peak"] == "invalid"


def test_the_size_in_a_name_is_used_where_nothing_else_tells_it() -> None:
    row = _row(architecture=None, model="SomeLab-Foo-70B-Chat", tokens_per_s=400_000.0)
    (audited,) = audit_claims([row], {})
    assert audited.facts.claim.parameters == 70e9
    assert audited.facts.origin["parameters"] == "the name 'SomeLab-Foo-70B-Chat'"
    (audited,) = audit_claims([replace(row, model="Qwen9-30B-A3B")], {})
    assert audited.facts.claim.active_parameters == 3e9


def test_a_rate_below_its_own_steps_is_told_with_what_may_be_left_out() -> None:
    # 4,915 x 2 s = 9,830 of 16 x 1024 slots: 40 % may be padding, and nobody says what is counted.
    found = audit_claims([_series(_lines(tokens_per_s=4915.0, duration_s=2.0))], {})[0].findings
    (message,) = [f.message for f in found if (f.rule, f.severity) == ("tokens-of-a-step", "suspect")]
    assert "0.6" in message
    assert "padding (40 % of the slots)" in message
    # Half of what a step makes may be accumulated passes or devices, too.
    found = audit_claims([_series(_lines(tokens_per_s=4096.0, duration_s=2.0))], {})[0].findings
    (message,) = [f.message for f in found if (f.rule, f.severity) == ("tokens-of-a-step", "suspect")]
    assert "2 times too low" in message
    assert "the accumulation or devices" in message


def test_the_tokens_of_a_step_that_a_log_prints_are_held_to_the_batch() -> None:
    # 32,768 tokens a step are printed, and 16 x 1024 = 16,384 are given.
    claim = _series(_lines(tokens_per_s=8192.0, step_tokens=32768.0))
    found = {f.rule: f for f in audit_claims([claim], {})[0].findings}
    assert found["batch-and-tokens"].severity == "suspect"
    assert "32,768" in found["batch-and-tokens"].message
    assert "16,384" in found["batch-and-tokens"].message
    alone = replace(claim, layout=replace(claim.layout, global_batch=None))
    # Without a batch the printed tokens are those of a step: 32,768 / 2 s are twice the printed rate.
    steps = _series(_lines(tokens_per_s=8192.0, step_tokens=32768.0, duration_s=2.0)).steps
    found = {f.rule: f for f in audit_claims([replace(alone, steps=steps)], {})[0].findings}
    assert found["tokens-of-a-step"].severity == "suspect"


def test_steps_per_second_beside_a_rate_are_held_to_it() -> None:
    # 0.125 steps/s x 16,384 = 2,048 tokens/s, a quarter of the 8,192 that are printed.
    steps = NamedFigure(name="it/s", quantity="steps_per_s", value=0.125, lines=12)
    claim = replace(_series(_lines(tokens_per_s=8192.0)), figures=(steps,))
    assert _found(claim)["rate-and-time"] == "invalid"
    assert "rate-and-time" not in _found(replace(claim, figures=(replace(steps, value=0.5),)))


def test_a_slow_down_shows_in_rates_alone() -> None:
    claim = _series([*_lines(tokens_per_s=8192.0), *_lines(tokens_per_s=400.0)])
    claim = replace(claim, layout=replace(claim.layout, global_batch=None), sequence=None)
    (message,) = [f.message for f in audit_claims([claim], {})[0].findings if f.rule == "slow-down"]
    assert "20.5 times lower" in message


def test_flops_without_a_rate_are_a_share_of_the_peak() -> None:
    # 156 of 312 TFLOP/s.
    (audited,) = audit_claims([_row(tokens_per_s=None, tflops_per_device=156.0)], {})
    assert audited.mfu_implied == pytest.approx(0.5)
    assert audited.mfu_convention == "the claimed TFLOP/s, dense bf16 peak"
    (audited,) = audit_claims([_row(tokens_per_s=None, tflops_per_device=156.0, device=None)], {})
    assert audited.mfu_implied is None


@pytest.mark.parametrize(("rate", "rule"), [(2000.0, None), (8000.0, "above-peak")])
def test_a_rate_per_device_is_held_to_the_device_without_a_count(rate: float, rule: str | None) -> None:
    claim = _row(tokens_per_s=None, tokens_per_s_per_device=rate, count=None, global_batch=None, dp=None)
    (audited,) = audit_claims([claim], {})
    assert audited.rate is None
    assert audited.mfu_implied == pytest.approx(rate * 43.47e9 / 312e12, rel=1e-3)
    assert {f.rule for f in audited.findings} == {"no-figure", *([rule] if rule else [])}
