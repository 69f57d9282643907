"""The rules that judge a claim, each a pure function of the known facts; a rule that lacks facts returns None.

Messages are neutral: what happened inside somebody else's run cannot be seen from outside. Each threshold states its
reason; a test compares `docs/audit.md` with this table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from tunemark.analysis import claim_figures, claim_rates
from tunemark.analysis import claim_peak_rules as peaks
from tunemark.analysis import claim_rate_rules as rates
from tunemark.analysis import claim_run_rules as runs
from tunemark.analysis.claim_limits import AGREEMENT, CONTRADICTION, MIN_LINES, dies_per_package, make_finding
from tunemark.analysis.plausibility import ClaimFacts, parameter_counts
from tunemark.number_format import percent_text
from tunemark.plugin.descriptors import Finding, Severity
from tunemark_worker import steady_state

# Doubling the devices cannot more than double the rate; 5 % allows for noise and better-fitting caches.
MAX_SCALING = 1.05
# The learning rate rises over the first steps, and the loss may rise with it.
_DIVERGING_LINES = 20
_AGREEING, _CONTRADICTING = percent_text(AGREEMENT), percent_text(CONTRADICTION)


class ClaimRule(NamedTuple):
    """A rule. id: in findings. sentence: what it finds. threshold: the number, and why."""

    id: str
    worst: Severity
    sentence: str
    threshold: str
    checks: Sequence[Callable[[ClaimFacts], Finding | None]]


def check_layout_and_devices(facts: ClaimFacts) -> Finding | None:
    claim, layout = facts.claim, facts.claim.layout
    if layout.dp is None or claim.count is None:
        return None
    degrees = {"dp": layout.dp, "tp": layout.tp or 1, "pp": layout.pp or 1, "cp": layout.cp or 1}
    product = math.prod(degrees.values())
    if product == claim.count:
        return None
    words = " x ".join(f"{name} {n}" for name, n in degrees.items() if n > 1 or name == "dp")
    message = f"{words} = {product} ranks, but {claim.count} devices"
    if dies_per_package(facts) > 1 and product == claim.count * dies_per_package(facts):
        return make_finding(
            "ranks-are-dies", "note", f"{message} of {dies_per_package(facts)} dies each: a rank is a die"
        )
    return make_finding("layout-and-devices", "suspect", message)


def check_layout_and_batch(facts: ClaimFacts) -> Finding | None:
    layout = facts.claim.layout
    values = (layout.global_batch, layout.micro_batch, layout.gradient_accumulation, layout.dp)
    if any(v is None for v in values):
        return None
    batch, micro, accumulation, dp = (int(v or 0) for v in values)
    if micro * accumulation * dp == batch:
        return None
    product = micro * accumulation * dp
    message = f"{micro} sequences x {accumulation} accumulated x dp {dp} = {product}, but a batch of {batch}"
    return make_finding("layout-and-batch", "suspect", message)


def check_loss_finite(facts: ClaimFacts) -> Finding | None:
    losses = [(s.line, s.loss) for s in facts.claim.steps if s.loss is not None]
    bad = [(line, loss) for line, loss in losses if not math.isfinite(loss)]
    if not bad:
        return None
    message = f"{len(bad)} of {len(losses)} losses are not finite, first {bad[0][1]} in line {bad[0][0]}"
    return make_finding("loss-not-finite", "invalid", message)


def check_loss_rising(facts: ClaimFacts) -> Finding | None:
    losses = [s.loss for s in facts.claim.steps if s.loss is not None and math.isfinite(s.loss)]
    errors = steady_state.slope_over_error(losses)
    if errors <= 3:
        return None
    message = f"over {len(losses)} lines the loss rises by {errors:.3g} standard errors of its slope (limit 3), "
    message += f"from {losses[0]:.4g} to {losses[-1]:.4g}"
    return make_finding("loss-rising", "suspect" if len(losses) >= _DIVERGING_LINES else "note", message)


def check_loss_flat(facts: ClaimFacts) -> Finding | None:
    losses = [s.loss for s in facts.claim.steps if s.loss is not None]
    if len(losses) < 10 or len(set(losses)) > 1 or not math.isfinite(losses[0]):
        return None
    return make_finding("loss-flat", "suspect", f"{len(losses)} lines print the very same loss, {losses[0]:.6g}")


def check_parameters(facts: ClaimFacts) -> Finding | None:
    claim, ours = facts.claim, parameter_counts(facts)
    if claim.parameters is None or not ours or ("parameters" in facts.origin and "name" in facts.origin["parameters"]):
        return None
    least, most = min(ours), max(ours)
    if 0.85 * least <= claim.parameters <= 1.15 * most:
        return None
    ratio = claim.parameters / most
    message = f"{claim.parameters:,.4g} parameters are stated, the dimensions make {most:,}: a factor of {ratio:.3g}"
    return make_finding("parameters-and-dimensions", "suspect", message)


def check_attempts(facts: ClaimFacts) -> Finding | None:
    if not len(facts.claim.steps):
        return None
    return make_finding("few-attempts", "note", "one log is one attempt: what differs between processes is not in it")


def check_missing_facts(facts: ClaimFacts) -> Finding | None:
    """For claims whose rate cannot be compared with the hardware."""
    tflops, mfu = claim_figures.claimed_tflops(facts.claim), claim_figures.claimed_mfu(facts.claim)
    rate = claim_rates.claimed_rate(facts.claim)
    if rate is None and tflops is None and mfu is None:
        return make_finding("no-figure", "unknown", _why_no_rate(facts))
    if rate is None and tflops is not None and (facts.peak or facts.highest_peak):
        # Nothing but TFLOP/s is claimed, and these need no model.
        return None
    if rate is None and tflops is None and mfu is not None and not facts.missing:
        return make_finding("not-enough", "unknown", _mfu_alone(facts, mfu))
    if not facts.missing:
        return None
    severity: Severity = "unknown"
    if len(claim_rates.seconds_per_step_by_clock(facts.claim, "arrival")) >= MIN_LINES:
        # The arrival of lines checked the rate against our own clock, which needs no hardware facts.
        severity = "note"
    return make_finding("not-enough", severity, f"to hold it against the hardware it lacks {', '.join(facts.missing)}")


def _mfu_alone(facts: ClaimFacts, mfu: float) -> str:
    """What a claimed MFU means where nothing stands beside it."""
    message = f"an MFU of {percent_text(mfu)} is all that is claimed, and nothing stands beside it to hold it to"
    top, flops, count = facts.usual_peak, facts.flops.get("causal") or facts.min_flops, facts.claim.count
    if top is None:
        return message
    message += f"; of {top.flops / 1e12:,.4g} TFLOP/s ({top.chip}, {top.precision}, dense) it makes "
    message += f"{mfu * top.flops / 1e12:,.4g} TFLOP/s per device"
    if flops and count:
        most = "" if facts.flops else " at most"
        message += f", or {mfu * top.flops * count / flops:,.6g} tokens/s{most}"
    return message


def _why_no_rate(facts: ClaimFacts) -> str:
    """Why there is no rate, and what to do about it."""
    claim = facts.claim
    no_rate = "no rate of the whole job can be found in it"
    if (claim.scope == "device" or claim.tokens_per_s_per_device is not None) and not claim.count:
        return f"{no_rate}: its rates are per device, and the count is missing (--count)"
    seconds = claim_figures.seconds_per_step(claim)
    if seconds is not None:
        lacks = [
            flag
            for flag, value in (("--batch", claim.layout.global_batch), ("--sequence", claim.sequence))
            if value is None
        ]
        needs = " and ".join(lacks) or "the tokens of a step"
        return f"{no_rate}; {seconds[1]} makes {seconds[0]:,.4g} s a step, and with {needs} it makes one"
    if claim_figures.claimed_samples(claim) is not None:
        return f"{no_rate}; it prints sequences per second, and with --sequence these make one"
    if len(claim.steps):
        return (
            f"{no_rate}: its {len(claim.steps)} lines have neither a rate nor a clock. To give them one, run the "
            "program under `tunemark audit -- COMMAND`, or pipe its output into `tunemark audit -`: the arrival of the "
            "lines is the clock then"
        )
    return no_rate


CLAIM_RULES: Sequence[ClaimRule] = (
    ClaimRule(
        "above-peak", "invalid", "The rate, the FLOP/s or the MFU claimed needs more than the chips' dense peak.",
        "100.5 % of the peak: data sheets round it to three digits; suspect if the model may be a mixture of experts",
        (peaks.check_rate_above_peak, peaks.check_flops_above_peak),
    ),
    ClaimRule(
        "above-seen", "suspect", "The rate needs more of the peak than any published training reached, or the claimed "
        "MFU or FLOP/s is more of it.",
        f"{percent_text(peaks.PLAUSIBLE_MFU)} of the peak in model FLOPs (90 % with recomputation); of chips with many "
        "published rows their own highest and three tenths more",
        (peaks.check_rate_above_published, peaks.check_flops_above_published),
    ),
    ClaimRule(
        "rate-and-time", "invalid",
        "Rate, rate per device, step time, batch and sequence are not one number; or the rate is above that of the "
        "largest batch that micro-batch, accumulation and devices can make.",
        f"suspect beyond {_AGREEING} and the rounding, invalid beyond {_CONTRADICTING}",
        (rates.check_rate_and_figures, rates.check_largest_batch),
    ),
    ClaimRule(
        "rate-and-clock", "invalid",
        "The printed rates are not those of the log's own time stamps, or of its lines' arrival.",
        f"suspect beyond {_AGREEING} and the stamps' resolution, "
        f"invalid where printed is {_CONTRADICTING} too high",
        (rates.check_rate_and_clock,),
    ),
    ClaimRule(
        "padding-counted", "suspect", "The rate counts padding as tokens.",
        f"nearer to all slots than to the content; a note up to {_CONTRADICTING} of padding",
        (rates.check_padding_counted,),
    ),
    ClaimRule(
        "rate-and-stated-time", "invalid", "Steps and tokens over the stated training time are another rate.",
        "suspect above 1.5 times (set-up and evaluation are inside), invalid above 2 or below half",
        (rates.check_stated_time,),
    ),
    ClaimRule(
        "tokens-of-a-step", "invalid", "Printed rate x printed duration is not batch x sequence.",
        f"suspect beyond {_AGREEING}, invalid beyond {_CONTRADICTING}",
        (rates.check_tokens_per_step,),
    ),
    ClaimRule(
        "batch-and-tokens", "suspect", "The tokens of a step that the log prints are not batch x sequence.",
        f"beyond {_AGREEING}; a note where they may be without padding", (rates.check_batch_and_tokens,),
    ),
    ClaimRule(
        "flops-and-rate", "invalid", "The claimed TFLOP/s or MFU is not that of the rate by any convention, "
        "or, where the sequence length is unknown, below what the weights alone need; `convention` and `sparse-peak` "
        "name one that reproduces it.",
        f"a note to {percent_text(peaks.FLOPS_AGREEMENT)}, suspect beyond, "
        f"invalid beyond a factor of {math.exp(peaks.FLOPS_CONTRADICTION):.2g}",
        (peaks.check_claimed_flops, peaks.check_least_flops),
    ),
    ClaimRule(
        "flops-and-mfu", "invalid", "TFLOP/s over MFU is no peak that the chip has.",
        f"no peak, dense or with sparsity, within {_CONTRADICTING}, recomputation counted or not; invalid beyond a "
        "factor of 1.5", (peaks.check_flops_and_mfu,),
    ),
    ClaimRule(
        "size-and-flops", "invalid", "TFLOP/s over the rate is the work of a model of another size.",
        "suspect beyond a factor of 2 of 6 FLOP per parameter; invalid below a million parameters",
        (peaks.check_size_of_flops,),
    ),
    ClaimRule(
        "memory-above-chip", "invalid", "More memory is stated than the device has.", "5 %",
        (peaks.check_memory,),
    ),
    ClaimRule(
        "layout-and-devices", "suspect", "dp x tp x pp x cp is not the count of devices.", "exact",
        (check_layout_and_devices,),
    ),
    ClaimRule("layout-and-batch", "suspect", "micro-batch x accumulation x dp is not the batch.", "exact",
              (check_layout_and_batch,)),
    ClaimRule(
        "planned-steps-counted", "invalid", "The rate counts the planned steps of a run that ended early.",
        f"reproduced within {_AGREEING}", (rates.check_planned_steps,),
    ),
    ClaimRule(
        "resumed-clock", "invalid", "The tokens of a former run are divided by the clock of this one.",
        f"reproduced within {_AGREEING}; line by line within 5 %",
        (rates.check_resumed_clock, runs.check_resumed_counter),
    ),
    ClaimRule(
        "growing-rate", "invalid", "The printed rate grows with the step's number.",
        "in proportion within 5 %, over 8 lines", (runs.check_growing_rate,),
    ),
    ClaimRule(
        "same-every-step", "suspect", "Every line prints the very same rate.",
        "10 lines of 4 digits; a note if the printed times do not vary either", (runs.check_constant_rate,),
    ),
    ClaimRule(
        "scope-of-rate", "suspect", "The rate's name does not say whether it is the job's or each device's.",
        "a note; suspect if the other figures show that it is each device's", (runs.check_scope,),
    ),
    ClaimRule(
        "rate-derived", "note", "No rate in tokens is printed; it is made of other figures.", "none",
        (runs.check_derived_rate,),
    ),
    ClaimRule(
        "run-failed", "suspect", "The log tells of a failure.", "a note if steps follow", (runs.check_failure,),
    ),
    ClaimRule(
        "ended-early", "note", "The log ends before the last step.", "98 % of the steps", (runs.check_early_end,),
    ),
    ClaimRule(
        "slow-down", "suspect", "Steps become slower for good.",
        "1.5 times, and nearly all after than nearly all before", (runs.check_slow_down,),
    ),
    ClaimRule(
        "slow-steps", "suspect", "Some steps are much slower than the median.",
        "3 times slower: a note from 10 % of the time on, suspect above 30 %", (runs.check_slow_steps,),
    ),
    ClaimRule(
        "hang", "suspect", "The run stood still.", "15 minutes and 50 usual steps between two lines",
        (runs.check_hang,),
    ),
    ClaimRule(
        "loss-zero", "invalid", "The loss is exactly 0, or the gradients are not finite any more.",
        "two losses, or one with a norm that is not finite; the last three norms", (runs.check_dead_loss,),
    ),
    ClaimRule("loss-not-finite", "invalid", "A loss is nan or infinite.", "one", (check_loss_finite,)),
    ClaimRule(
        "loss-rising", "suspect", "The loss rises.",
        f"3 standard errors of its slope; a note below {_DIVERGING_LINES} lines, where warm-up can do it",
        (check_loss_rising,)
    ),
    ClaimRule("loss-flat", "suspect", "The loss never changes.", "10 lines", (check_loss_flat,)),
    ClaimRule(
        "parameters-and-dimensions", "suspect", "The stated size is not that of the dimensions.",
        "15 %: embeddings are counted or not", (check_parameters,),
    ),
    ClaimRule(
        "first-step", "note", "The first step took longer; it is left out.", "twice a later one",
        (rates.check_first_step,)
    ),
    ClaimRule("few-attempts", "note", "A log is one attempt.", "one", (check_attempts,)),
    ClaimRule("not-enough", "unknown", "Facts are missing.", "any of model, device, count, peak",
              (check_missing_facts,)),
)  # fmt: skip


# What holds a device's rate to the device; these need no count where the rate is stated per device.
_OF_A_DEVICE = (
    peaks.check_rate_above_peak, peaks.check_rate_above_published, peaks.check_claimed_flops, peaks.check_least_flops,
    peaks.check_size_of_flops,
)  # fmt: skip


def apply_rules(facts: ClaimFacts) -> list[Finding]:
    """Apply every rule once and return its findings."""
    of_one = replace(facts, claim=claim_rates.of_one_device(facts.claim))
    found = [check(of_one if check in _OF_A_DEVICE else facts) for rule in CLAIM_RULES for check in rule.checks]
    return [finding for finding in found if finding is not None]
