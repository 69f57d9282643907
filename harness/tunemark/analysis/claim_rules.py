"""The rules that judge a claim, each a pure function of the known facts; a rule that lacks facts returns None.

Messages are neutral: what happened inside somebody else's run cannot be seen from outside. Each threshold states its
reason; a test compares `docs/audit.md` with this table.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tunemark.analysis import claim_rates
from tunemark.analysis.plausibility import ClaimFacts, parameter_count
from tunemark.physics import train_flops_by_convention
from tunemark.plugin.descriptors import Finding, Severity
from tunemark.units import percent_text
from tunemark_worker import steady_state

# Two figures that were both rounded to three digits differ by 1 % at most; 2 % leaves room for a mean and a median.
AGREEMENT = 0.02
# Beyond this neither rounding nor another choice of steps or clock explains a difference of two figures for one rate.
CONTRADICTION = 0.10
# FLOPs of one model by two tools: biases, norms, position embeddings, padded vocabularies and the counting of the head
# change them by up to 13 % in 195 published rows, beyond what the attention convention explains.
FLOPS_AGREEMENT = 0.15
FLOPS_CONTRADICTION = 0.5
# A convention is recognized if it reproduces the figure this closely (log ratio).
_CONVENTION_TOLERANCE = 0.03
# The whole forward pass recomputed: 8 FLOPs per weight instead of 6 (Korthikanti et al. 2022, section 5).
_RECOMPUTE_FACTOR = 4 / 3
# The highest plausible MFU: no publication was found of a dense transformer's training above it.
PLAUSIBLE_MFU = 0.75
# The same including recomputed FLOPs; the highest published is 79 %.
PLAUSIBLE_HFU = 0.9
# MFU limits by chip family and precision width in bits: 1.3 times the highest MFU (causal) of 375 rows published until
# November 2026, which follows each line with its source.
PLAUSIBLE_MFU_BY_CHIP = {
    ("A100", 16): 0.76,  # 0.585: MPT-13B on 8 A100-80GB, llm-foundry, scripts/train/benchmarking/README.md
    ("H100", 16): 0.58,  # 0.447: MPT-7B on 8 H100-80GB, the same
    ("H100", 8): 0.60,  # 0.465: GPT-3 175B on 512 H100, NVIDIA NeMo 25.02, performance summary
    ("B200", 16): 0.52,  # 0.400: 4 layers of Llama 3 405B on 8 B200, MooreThreads/SimuMax, docs/b200
    ("B200", 8): 0.63,  # 0.481: Llama 3 70B on 64 GB300, NVIDIA Megatron-Bridge, docs/performance-summary
    ("B200", 4): 0.40,  # 0.305: Llama 3.1 405B on 256 GB200, the same
}
_FAMILIES = {"H200": "H100", "GH200": "H100", "GB200": "B200", "B300": "B200", "GB300": "B200"}
# Data sheets round to three digits.
PEAK_ROUNDING = 0.005
# Doubling the devices cannot more than double the rate; 5 % allows for noise and better-fitting caches.
MAX_SCALING = 1.05
# A pause between two lines (evaluation, a checkpoint) is not a step, so medians over consecutive lines are used.
_MIN_LINES = 3


_AS_FULL_TRAINING = ", as if all were trained"


class ClaimRule(NamedTuple):
    """A rule. id: in findings. sentence: what it finds. threshold: the number, and why."""

    id: str
    worst: Severity
    sentence: str
    threshold: str
    check: Callable[[ClaimFacts], Finding | None]


def check_rate_above_peak(facts: ClaimFacts) -> Finding | None:
    implied = _min_mfu(facts)
    if implied is None or implied[0] <= 1 + PEAK_ROUNDING:
        return None
    mfu, words = implied
    top = facts.peak_most
    is_ceiling = top is None or top.is_ceiling
    more = "" if is_ceiling else "; its clock can pass the rated one"
    return _finding(
        "above-peak", "invalid" if is_ceiling else "suspect", f"{words}: {mfu:.2f} times what it can do{more}"
    )


def check_rate_above_published(facts: ClaimFacts) -> Finding | None:
    implied = _mfu(facts)
    if implied is None:
        return None
    mfu, words = implied
    limit = _mfu_limit(facts)
    hardware = mfu * (facts.recomputed or 1)
    if mfu <= limit and hardware <= PLAUSIBLE_HFU:
        return None
    least = _min_mfu(facts)
    if least is not None and least[0] > 1 + PEAK_ROUNDING:
        return None
    shown = f"{percent_text(mfu)} of peak"
    if mfu <= limit:
        shown, limit = f"{shown}, {percent_text(hardware)} with what is computed twice", PLAUSIBLE_HFU
    message = f"{words}: {shown}, more than {percent_text(limit)}, the most that was found published"
    return _finding("above-seen", "suspect", message)


def check_rate_and_figures(facts: ClaimFacts) -> Finding | None:
    """A claim's own figures against each other; a log's clocks have rules of their own."""
    rate = claim_rates.claimed_rate(facts.claim)
    if rate is None:
        return None
    worst: tuple[float, claim_rates.ClaimRate] | None = None
    for way in claim_rates.rederive_rates(facts.claim):
        if way.way in _LOG_DERIVATIONS:
            continue
        difference = _log_difference(facts, rate, way)
        if difference > AGREEMENT + rate.rounding + way.rounding and (worst is None or difference > worst[0]):
            worst = (difference, way)
    if worst is None:
        return None
    apart, way = worst
    ratio = rate.tokens_per_s / way.tokens_per_s
    message = f"{rate.tokens_per_s:,.6g} tokens/s {rate.arithmetic}, but {way.arithmetic} = {way.tokens_per_s:,.6g}: "
    message += f"a factor of {ratio:.4g}{_explain_factor(facts, ratio)}"
    return _finding("rate-and-time", "invalid" if apart > CONTRADICTION else "suspect", message)


def check_rate_and_clock(facts: ClaimFacts) -> Finding | None:
    """A log's printed rates against its time stamps and against the arrival of its lines."""
    claim = facts.claim
    stated, step = claim_rates.claimed_rate(claim), claim_rates.tokens_per_step(claim)
    if stated is None or step is None:
        return None
    for clock in ("arrival", "time-stamps"):
        seconds = claim_rates.seconds_per_step_by_clock(claim, clock)
        way = next((w for w in claim_rates.rederive_rates(claim) if w.way == clock), None)
        if len(seconds) < _MIN_LINES or way is None:
            continue
        middle_s = statistics.median(seconds)
        if middle_s <= 0:
            continue
        # The bound in the claim's favour: pauses between lines slow the sum, coarse stamps blur the median.
        bounds = sorted((step.tokens / middle_s, way.tokens_per_s))
        ratio = stated.tokens_per_s / min(max(stated.tokens_per_s, bounds[0]), bounds[1])
        if abs(ratio - 1) <= AGREEMENT + stated.rounding + 2 * way.rounding:
            continue
        # Lines may be buffered and arrive at once; and a rate without padding is lower than that of all slots.
        if ratio < 1 and (clock == "arrival" or claim.counts != "slots"):
            continue
        words = "time stamps" if clock == "time-stamps" else "arrival of its lines"
        message = f"printed: {stated.tokens_per_s:,.6g} tokens/s; by the {words} {way.arithmetic} = "
        message += f"{way.tokens_per_s:,.6g}, or {step.tokens:,.6g} / {middle_s:.4g} s (median step) = "
        message += f"{step.tokens / middle_s:,.6g}: printed is {ratio:.3g} times what that clock allows"
        printed_s = claim_rates.duration_per_step(claim)
        if printed_s is not None and middle_s > printed_s * (1 + CONTRADICTION):
            message += (
                f"; the durations it prints ({printed_s:.4g} s) cover {percent_text(printed_s / middle_s)} of a step"
            )
        return _finding("rate-and-clock", "invalid" if ratio > 1 + CONTRADICTION else "suspect", message)
    return None


def check_tokens_per_step(facts: ClaimFacts) -> Finding | None:
    """Printed rate times printed duration against batch times sequence."""
    claim = facts.claim
    batch, sequence = claim.layout.global_batch, claim.sequence
    implied = claim_rates.implied_step_tokens(claim)
    if not batch or not sequence or not implied:
        return None
    tokens, stated = statistics.median(implied), batch * sequence
    ratio = tokens / stated
    if abs(ratio - 1) <= AGREEMENT or (ratio < 1 and claim.counts != "slots"):
        return None
    message = f"printed rate x printed duration = {tokens:,.6g} tokens a step, but {batch} x {sequence} = {stated:,}: "
    message += f"a factor of {ratio:.4g}{_explain_factor(facts, ratio)}"
    return _finding("tokens-of-a-step", "invalid" if abs(ratio - 1) > CONTRADICTION else "suspect", message)


def check_padding_counted(facts: ClaimFacts) -> Finding | None:
    """Whether the rate counts slots or content, if both are known."""
    claim, stated = facts.claim, claim_rates.claimed_rate(facts.claim)
    batch, sequence, share = claim.layout.global_batch, claim.sequence, claim.padding_fraction
    if stated is None or not batch or not sequence or not share or share <= AGREEMENT:
        return None
    tokens = _tokens_by_clock(facts, stated)
    if tokens is None:
        return None
    slots, content = batch * sequence, batch * sequence * (1 - share)
    if not content <= tokens or abs(math.log(tokens / slots)) >= abs(math.log(tokens / content)):
        return None
    message = (
        f"a step has {slots:,} slots, {percent_text(share)} of them padding, so {content:,.6g} tokens; the rate means "
    )
    message += f"{tokens:,.6g}: padding is counted as work, and without it {stated.tokens_per_s:,.6g} is "
    message += f"{stated.tokens_per_s * (1 - share):,.6g} tokens/s"
    return _finding("padding-counted", "suspect" if share > CONTRADICTION else "note", message)


def _tokens_by_clock(facts: ClaimFacts, stated: claim_rates.ClaimRate) -> float | None:
    """The rate times the step time, by whichever clock is available."""
    implied = claim_rates.implied_step_tokens(facts.claim)
    if implied:
        return statistics.median(implied)
    for clock in ("arrival", "time-stamps"):
        seconds = claim_rates.seconds_per_step_by_clock(facts.claim, clock)
        if len(seconds) >= _MIN_LINES:
            return stated.tokens_per_s * statistics.median(seconds)
    return stated.tokens_per_s * facts.claim.step_time_s if facts.claim.step_time_s else None


def check_stated_time(facts: ClaimFacts) -> Finding | None:
    """Steps and tokens against the stated time of the whole training."""
    stated = claim_rates.claimed_rate(facts.claim)
    way = next((w for w in claim_rates.rederive_rates(facts.claim) if w.way == "stated-time"), None)
    if stated is None or way is None:
        return None
    ratio = stated.tokens_per_s / way.tokens_per_s
    # The total includes set-up, first step and evaluation, so the steady rate may be half as high again.
    if ratio * (1 + way.rounding) >= 1 - CONTRADICTION and ratio <= 1.5 * (1 + way.rounding):
        return None
    message = f"{stated.tokens_per_s:,.6g} tokens/s is stated or printed, {way.arithmetic} = {way.tokens_per_s:,.6g}: "
    message += f"a factor of {ratio:.3g}{_explain_factor(facts, ratio)}"
    return _finding("rate-and-stated-time", "invalid" if ratio > 2 or ratio < 0.5 else "suspect", message)


def check_claimed_flops(facts: ClaimFacts) -> Finding | None:
    """A claimed TFLOP/s or MFU against the rate: finds the convention that reproduces it, if any."""
    claim, stated = facts.claim, claim_rates.claimed_rate(facts.claim)
    tflops, of = _claimed_tflops(facts), "TFLOP/s"
    if tflops is None and claim.mfu is not None and facts.peak is not None:
        tflops, of = claim.mfu * facts.peak.flops / 1e12, "MFU"
    if tflops is None or stated is None or not claim.count or not facts.flops:
        return None
    per_device = stated.tokens_per_s / claim.count
    factors = {"causal attention": facts.flops["causal"], "full attention": facts.flops["full"]}
    if claim.layout.checkpointing != "none":
        factors |= {f"{name}, recomputation counted": f * _RECOMPUTE_FACTOR for name, f in list(factors.items())}
    if claim.method == "lora" and facts.architecture is not None and claim.sequence is not None:
        whole = train_flops_by_convention(facts.architecture, claim.sequence)
        factors |= {f"{name} attention{_AS_FULL_TRAINING}": f for name, f in whole.items()}
    ratios = {name: tflops * 1e12 / (per_device * f) for name, f in factors.items()}
    name, ratio = min(ratios.items(), key=lambda item: abs(math.log(item[1])) if item[1] > 0 else math.inf)
    shown = f"{claim.mfu:.4g} MFU" if of == "MFU" else f"{tflops:,.4g} TFLOP/s per device"
    needed = f"{per_device:,.6g} tokens/s per device x {factors[name] / 1e9:.4g} GFLOP ({name})"
    text = f"{shown} is claimed, {needed} = {per_device * factors[name] / 1e12:,.4g} TFLOP/s"
    difference = abs(math.log(ratio)) if ratio > 0 else math.inf
    if difference <= _CONVENTION_TOLERANCE:
        if name == "causal attention":
            return None
        if name.endswith(_AS_FULL_TRAINING):
            return _finding("lora-as-full", "suspect", f"{text}: adapters alone were trained")
        return _finding("convention", "note", f"{text}: the claim counts {name}")
    if of == "MFU" and abs(math.log(2 * ratio)) <= _CONVENTION_TOLERANCE:
        return _finding("sparse-peak", "suspect", f"{text}: half of it, as against a peak with sparsity")
    if difference <= FLOPS_AGREEMENT:
        within = percent_text(_CONVENTION_TOLERANCE)
        return _finding("convention", "note", f"{text}: no convention known here reproduces it within {within}")
    message = f"{text}: a factor of {ratio:.3g} that no convention explains{_explain_factor(facts, ratio)}"
    return _finding("flops-and-rate", "invalid" if difference > FLOPS_CONTRADICTION else "suspect", message)


def check_flops_above_peak(facts: ClaimFacts) -> Finding | None:
    """A claimed TFLOP/s or MFU against the peak; needs no model."""
    claim = facts.claim
    if claim.mfu is not None and claim.mfu > 1:
        return _finding(
            "above-peak", "invalid", f"an MFU of {percent_text(claim.mfu)} is claimed, and 100 % is all there is"
        )
    top, tflops = facts.peak or facts.peak_most, _claimed_tflops(facts)
    if tflops is None or top is None:
        return None
    share = tflops * 1e12 / top.flops
    if share <= 1 + PEAK_ROUNDING:
        return None
    message = f"{tflops:,.4g} TFLOP/s per device is claimed, {_peak_words(facts)}: {percent_text(share)}"
    return _finding("above-peak", "invalid" if top.is_ceiling else "suspect", message)


def _claimed_tflops(facts: ClaimFacts) -> float | None:
    """TFLOP/s per device as stated, else the median of a log's printed values after the first."""
    printed = [s.tflops for s in facts.claim.steps if s.tflops is not None and math.isfinite(s.tflops)]
    middle = statistics.median(printed[1:] or printed) if printed else None
    return facts.claim.tflops_per_device if facts.claim.tflops_per_device is not None else middle


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
    if _dies(facts) > 1 and product == claim.count * _dies(facts):
        return _finding("ranks-are-dies", "note", f"{message} of {_dies(facts)} dies each: a rank is a die")
    return _finding("layout-and-devices", "suspect", message)


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
    return _finding("layout-and-batch", "suspect", message)


def check_first_step(facts: ClaimFacts) -> Finding | None:
    """The first step's duration against later ones, in a log that prints durations."""
    rows = list(facts.claim.steps)
    if len(rows) < _MIN_LINES or not rows[0].duration_s:
        return None
    first_s = rows[0].duration_s / (rows[0].duration_steps or 1)
    later_s = claim_rates.duration_per_step(facts.claim)
    if later_s is None or later_s <= 0 or first_s <= 2 * later_s:
        return None
    message = (
        f"the first line's step took {first_s:,.4g} s, later ones {later_s:,.4g} s: {first_s / later_s:.3g} times; "
    )
    message += "it is left out here, and a mean that holds it is lower"
    return _finding("first-step", "note", message)


def check_loss_finite(facts: ClaimFacts) -> Finding | None:
    losses = [(s.line, s.loss) for s in facts.claim.steps if s.loss is not None]
    bad = [(line, loss) for line, loss in losses if not math.isfinite(loss)]
    if not bad:
        return None
    message = f"{len(bad)} of {len(losses)} losses are not finite, first {bad[0][1]} in line {bad[0][0]}"
    return _finding("loss-not-finite", "invalid", message)


def check_loss_rising(facts: ClaimFacts) -> Finding | None:
    losses = [s.loss for s in facts.claim.steps if s.loss is not None and math.isfinite(s.loss)]
    errors = steady_state.slope_over_error(losses)
    if errors <= 3:
        return None
    message = f"over {len(losses)} lines the loss rises by {errors:.3g} standard errors of its slope (limit 3), "
    message += f"from {losses[0]:.4g} to {losses[-1]:.4g}"
    return _finding("loss-rising", "suspect", message)


def check_loss_flat(facts: ClaimFacts) -> Finding | None:
    losses = [s.loss for s in facts.claim.steps if s.loss is not None]
    if len(losses) < 10 or len(set(losses)) > 1 or not math.isfinite(losses[0]):
        return None
    return _finding("loss-flat", "suspect", f"{len(losses)} lines print the very same loss, {losses[0]:.6g}")


def check_constant_rate(facts: ClaimFacts) -> Finding | None:
    """Printed rates that never vary were not measured step by step."""
    printed = [s.tokens_per_s for s in facts.claim.steps if s.tokens_per_s is not None][1:]
    if len(printed) < 10 or len(set(printed)) > 1 or claim_rates.relative_rounding_error(printed[0]) > 1e-4:
        return None
    message = f"{len(printed)} lines print the very same rate, {printed[0]:,.10g}: it was not measured line by line"
    return _finding("same-every-step", "suspect", message)


def check_resumed_clock(facts: ClaimFacts) -> Finding | None:
    """Cumulative tokens of a resumed training divided by the time since the resume."""
    claim = facts.claim
    stated = claim_rates.claimed_rate(claim)
    if not claim.tokens_total or not claim.train_s or stated is None:
        return None
    rows = [s for s in claim.steps if s.tokens is not None]
    if not rows or rows[0].tokens is None or rows[-1].tokens is None or len(rows) < 2:
        return None
    own = rows[-1].tokens - rows[0].tokens
    if (
        own <= 0
        or rows[0].tokens < own
        or abs(stated.tokens_per_s * claim.train_s / claim.tokens_total - 1) > AGREEMENT
    ):
        return None
    message = f"{claim.tokens_total:,.6g} tokens / {claim.train_s:,.6g} s is the rate, but the first line already has "
    message += f"{rows[0].tokens:,.6g} tokens: the tokens of a former run over the clock of this one"
    return _finding("resumed-clock", "invalid", message)


def check_planned_steps(facts: ClaimFacts) -> Finding | None:
    """A rate that counts planned steps as done."""
    claim = facts.claim
    numbers = [s.number for s in claim.steps if s.number is not None]
    done = max(numbers) if numbers else claim.steps_done
    if not claim.steps_total or not done or done >= claim.steps_total or not claim.train_s or not claim.samples_per_s:
        return None
    batch = claim.layout.global_batch
    if not batch:
        return None
    as_planned, as_done = (n * batch / claim.train_s for n in (claim.steps_total, done))
    if abs(claim.samples_per_s / as_planned - 1) > AGREEMENT:
        return None
    message = f"{claim.samples_per_s:,.6g} sequences/s is {claim.steps_total:g} planned steps x {batch} / "
    message += f"{claim.train_s:,.6g} s, but {done:g} steps were done: {as_done:,.6g}, "
    message += f"{claim.steps_total / done:.3g} times less"
    return _finding("planned-steps-counted", "invalid", message)


def check_parameters(facts: ClaimFacts) -> Finding | None:
    claim, ours = facts.claim, parameter_count(facts)
    if claim.parameters is None or ours is None:
        return None
    ratio = claim.parameters / ours
    if 0.85 <= ratio <= 1.15:
        return None
    message = f"{claim.parameters:,.4g} parameters are stated, the dimensions make {ours:,}: a factor of {ratio:.3g}"
    return _finding("parameters-and-dimensions", "suspect", message)


def check_attempts(facts: ClaimFacts) -> Finding | None:
    if not len(facts.claim.steps):
        return None
    return _finding("few-attempts", "note", "one log is one attempt: what differs between processes is not in it")


def check_missing_facts(facts: ClaimFacts) -> Finding | None:
    """For claims whose rate cannot be compared with the hardware."""
    tflops = _claimed_tflops(facts)
    if claim_rates.claimed_rate(facts.claim) is None and tflops is None and facts.claim.mfu is None:
        return _finding("no-figure", "unknown", "no rate of the whole job can be found in it" + _why_no_rate(facts))
    if tflops is not None and (facts.peak or facts.peak_most):
        return None
    if not facts.missing:
        return None
    severity: Severity = "unknown"
    if len(claim_rates.seconds_per_step_by_clock(facts.claim, "arrival")) >= _MIN_LINES:
        # The arrival of lines checked the rate against our own clock, which needs no hardware facts.
        severity = "note"
    return _finding("not-enough", severity, f"to hold it against the hardware it lacks {', '.join(facts.missing)}")


_AGREEING, _CONTRADICTING = percent_text(AGREEMENT), percent_text(CONTRADICTION)

CLAIM_RULES: Sequence[ClaimRule] = (
    ClaimRule(
        "above-peak", "invalid", "The rate, or the FLOP/s claimed, needs more than the chips' dense peak.",
        "100.5 % of the peak: data sheets round it to three digits", check_rate_above_peak,
    ),
    ClaimRule(
        "above-peak", "invalid", "The FLOP/s or the MFU claimed is above the chips' dense peak.", "as above",
        check_flops_above_peak,
    ),
    ClaimRule(
        "above-seen", "suspect", "The rate needs more of the peak than any published training reached.",
        f"{percent_text(PLAUSIBLE_MFU)} of the peak in model FLOPs (90 % with recomputation); of chips with many "
        "published rows their own highest and three tenths more",
        check_rate_above_published,
    ),
    ClaimRule(
        "rate-and-time", "invalid", "Rate, rate per device, step time, batch and sequence are not one number.",
        f"suspect beyond {_AGREEING} and the rounding, invalid beyond {_CONTRADICTING}", check_rate_and_figures,
    ),
    ClaimRule(
        "rate-and-clock", "invalid",
        "The printed rates are not those of the log's own time stamps, or of its lines' arrival.",
        f"suspect beyond {_AGREEING} and the stamps' resolution, "
        f"invalid where printed is {_CONTRADICTING} too high",
        check_rate_and_clock,
    ),
    ClaimRule(
        "padding-counted", "suspect", "The rate counts padding as tokens.",
        f"nearer to all slots than to the content; a note up to {_CONTRADICTING} of padding", check_padding_counted,
    ),
    ClaimRule(
        "rate-and-stated-time", "invalid", "Steps and tokens over the stated training time are another rate.",
        "suspect above 1.5 times (set-up and evaluation are inside), invalid above 2 or below half", check_stated_time,
    ),
    ClaimRule(
        "tokens-of-a-step", "invalid", "Printed rate x printed duration is not batch x sequence.",
        f"suspect beyond {_AGREEING}, invalid beyond {_CONTRADICTING}", check_tokens_per_step,
    ),
    ClaimRule(
        "flops-and-rate", "invalid", "The claimed TFLOP/s or MFU is not that of the rate by any convention; "
        "`convention` and `sparse-peak` name one that reproduces it.",
        f"a note to {percent_text(FLOPS_AGREEMENT)}, suspect beyond, "
        f"invalid beyond a factor of {math.exp(FLOPS_CONTRADICTION):.2g}",
        check_claimed_flops,
    ),
    ClaimRule(
        "layout-and-devices", "suspect", "dp x tp x pp x cp is not the count of devices.", "exact",
        check_layout_and_devices,
    ),
    ClaimRule("layout-and-batch", "suspect", "micro-batch x accumulation x dp is not the batch.", "exact",
              check_layout_and_batch),
    ClaimRule(
        "planned-steps-counted", "invalid", "The rate counts the planned steps of a run that ended early.",
        f"reproduced within {_AGREEING}", check_planned_steps,
    ),
    ClaimRule(
        "resumed-clock", "invalid", "The tokens of a former run are divided by the clock of this one.",
        f"reproduced within {_AGREEING}", check_resumed_clock,
    ),
    ClaimRule(
        "same-every-step", "suspect", "Every line prints the very same rate.", "10 lines of 4 digits",
        check_constant_rate,
    ),
    ClaimRule("loss-not-finite", "invalid", "A loss is nan or infinite.", "one", check_loss_finite),
    ClaimRule("loss-rising", "suspect", "The loss rises.", "3 standard errors of its slope", check_loss_rising),
    ClaimRule("loss-flat", "suspect", "The loss never changes.", "10 lines", check_loss_flat),
    ClaimRule(
        "parameters-and-dimensions", "suspect", "The stated size is not that of the dimensions.",
        "15 %: embeddings are counted or not", check_parameters,
    ),
    ClaimRule(
        "first-step", "note", "The first step took longer; it is left out.", "twice a later one", check_first_step
    ),
    ClaimRule("few-attempts", "note", "A log is one attempt.", "one", check_attempts),
    ClaimRule("not-enough", "unknown", "Facts are missing.", "any of model, device, count, peak", check_missing_facts),
)  # fmt: skip


def apply_rules(facts: ClaimFacts) -> list[Finding]:
    """Apply every rule once and return its findings."""
    found = (rule.check(facts) for rule in CLAIM_RULES)
    return [finding for finding in found if finding is not None]


_LOG_DERIVATIONS = ("durations", "time-stamps", "arrival", "stated-time")


def _finding(rule: str, severity: Severity, message: str) -> Finding:
    return Finding(rule=rule, severity=severity, message=message)


def _log_difference(facts: ClaimFacts, stated: claim_rates.ClaimRate, way: claim_rates.ClaimRate) -> float:
    """Absolute log ratio of two rates; 0 if the claim is lower because it excludes padding."""
    ratio = stated.tokens_per_s / way.tokens_per_s
    if ratio < 1 and way.way in ("step-time", "samples") and facts.claim.counts in ("content", "trained"):
        return 0.0
    return abs(math.log(ratio))


def _explain_factor(facts: ClaimFacts, ratio: float) -> str:
    """Words for the stated numbers, if any, that equal the factor or its inverse."""
    claim, layout = facts.claim, facts.claim.layout
    numbers = {
        "the count of devices": claim.count, "the gradient accumulation": layout.gradient_accumulation,
        "the data-parallel degree": layout.dp, "the tensor-parallel degree": layout.tp,
        "the pipeline degree": layout.pp, "the context-parallel degree": layout.cp,
        "the micro-batch": layout.micro_batch, "the sequence length": claim.sequence,
        "the global batch": layout.global_batch, "a thousand (s and ms)": 1000, "the dies of a package": _dies(facts),
        "the planned over the finished steps": (
            claim.steps_total / claim.steps_done if claim.steps_total and claim.steps_done else None
        ),
    }  # fmt: skip
    near = [
        words
        for words, number in numbers.items()
        if number and number > 1 and any(abs(r * f - 1) < AGREEMENT for r in (ratio, 1 / ratio) for f in (1 / number,))
    ]
    if claim.padding_fraction:
        slots = 1 / (1 - claim.padding_fraction)
        near += ["the padding counted"] if abs(ratio / slots - 1) < AGREEMENT else []
    return f", which is {' or '.join(near)}" if near else ""


def _min_mfu(facts: ClaimFacts) -> tuple[float, str] | None:
    """The lower bound of the share of the highest peak that the rate needs, with its arithmetic."""
    stated, claim = claim_rates.claimed_rate(facts.claim), facts.claim
    if stated is None or facts.flops_least is None or facts.peak_most is None or not claim.count:
        return None
    share, words = _peak_share(facts, stated, facts.flops_least, facts.peak_most.flops)
    if claim.method is None:
        words = f"even if adapters alone were trained, {words}"
    return share, words


def _mfu(facts: ClaimFacts) -> tuple[float, str] | None:
    """MFU (causal if the sequence is known) of the stated precision's peak, else the highest, with its arithmetic."""
    stated, claim = claim_rates.claimed_rate(facts.claim), facts.claim
    top = facts.peak or facts.peak_most
    flops = facts.flops.get("causal") or facts.flops_least
    if stated is None or flops is None or top is None or not claim.count:
        return None
    return _peak_share(facts, stated, flops, top.flops)


def _peak_share(facts: ClaimFacts, stated: claim_rates.ClaimRate, flops: float, peak_flops: float) -> tuple[float, str]:
    count = facts.claim.count or 1
    needed = stated.tokens_per_s * flops / count
    words = f"{stated.tokens_per_s:,.6g} tokens/s x {flops / 1e9:.4g} GFLOP / {count} = {needed / 1e12:,.4g} TFLOP/s, "
    return needed / peak_flops, words + _peak_words(facts)


def _peak_words(facts: ClaimFacts) -> str:
    top = facts.peak or facts.peak_most
    assert top is not None, "called only if a peak is known"
    return f"{top.chip} has {top.flops / 1e12:,.4g} in {top.precision}, dense"


def _mfu_limit(facts: ClaimFacts) -> float:
    top = facts.peak or facts.peak_most
    if top is None:
        return PLAUSIBLE_MFU
    family, width = top.chip.split("-")[0].split()[0], int("".join(filter(str.isdigit, top.precision)) or 32)
    return PLAUSIBLE_MFU_BY_CHIP.get((_FAMILIES.get(family, family), width), PLAUSIBLE_MFU)


def _dies(facts: ClaimFacts) -> int:
    top = facts.peak or facts.peak_most
    return top.dies if top else 1


def _why_no_rate(facts: ClaimFacts) -> str:
    claim = facts.claim
    if (claim.scope == "device" or claim.tokens_per_s_per_device is not None) and not claim.count:
        return ": its rates are per device, and the count is missing (--count)"
    return ""
