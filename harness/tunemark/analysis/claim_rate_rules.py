"""Claim rules that hold a claim's rates, times, batch and clocks against each other."""

from __future__ import annotations

import math
import statistics

from tunemark.analysis import claim_rates
from tunemark.analysis.claim_figures import printed_median
from tunemark.analysis.claim_limits import (
    AGREEMENT,
    CONTRADICTION,
    LEAST_CONTENT,
    MIN_LINES,
    explain_factor,
    factor_text,
    make_finding,
    too_low,
    usual_causes,
)
from tunemark.analysis.plausibility import ClaimFacts
from tunemark.number_format import percent_text
from tunemark.plugin.descriptors import Finding, Severity

_LOG_DERIVATIONS = ("durations", "time-stamps", "arrival", "counters", "stated-time")


def check_rate_and_figures(facts: ClaimFacts) -> Finding | None:
    """A claim's own figures against each other; a log's clocks have rules of their own."""
    rate = claim_rates.claimed_rate(facts.claim)
    if rate is None:
        return None
    worst: tuple[float, claim_rates.ClaimRate, Severity] | None = None
    for way in claim_rates.rederive_rates(facts.claim):
        if way.way in _LOG_DERIVATIONS:
            continue
        ratio = rate.tokens_per_s / way.tokens_per_s
        apart = abs(math.log(ratio))
        if apart <= AGREEMENT + rate.rounding + way.rounding or (rate.is_bound and ratio > 1):
            continue
        severity: Severity | None = "invalid" if apart > CONTRADICTION else "suspect"
        if (
            ratio < 1
            and way.way in ("step-time", "samples", "steps")
            and (way.is_bound or facts.claim.counts != "slots")
        ):
            severity = too_low(facts, ratio, explain_factor(facts, ratio))
            if way.is_bound and severity is not None and not explain_factor(facts, ratio):
                severity = None
        if severity is not None and (worst is None or apart > worst[0]):
            worst = (apart, way, severity)
    if worst is None:
        return None
    _, way, severity = worst
    agreeing = [
        other.way
        for other in claim_rates.rederive_rates(facts.claim)
        if other.way not in (way.way, "per-device")
        and abs(math.log(rate.tokens_per_s / other.tokens_per_s)) < AGREEMENT
    ]
    if agreeing and severity == "invalid" and way.way == "samples":
        # The other figures agree with the rate: it is this one that does not. Sequences of another length do that.
        severity = "note" if "durations" in agreeing and facts.claim.counts == "slots" else "suspect"
    ratio = rate.tokens_per_s / way.tokens_per_s
    message = f"{rate.tokens_per_s:,.6g} tokens/s {rate.arithmetic}, but {way.arithmetic} = {way.tokens_per_s:,.6g}: "
    message += f"{factor_text(ratio)}{explain_factor(facts, ratio)}{usual_causes(facts, ratio)}"
    return make_finding("rate-and-time", severity, message)


def check_largest_batch(facts: ClaimFacts) -> Finding | None:
    """The rate against the largest batch that the stated layout can have: each device, or group of devices that the
    stated degrees make, has its own micro-batches."""
    claim, layout = facts.claim, facts.claim.layout
    rate = claim_rates.stated_rate(claim)
    if rate is None or layout.global_batch or not (layout.micro_batch and layout.gradient_accumulation):
        return None
    if not (claim.sequence and claim.step_time_s and claim.count):
        return None
    groups = layout.dp or claim.count / ((layout.tp or 1) * (layout.pp or 1) * (layout.cp or 1))
    batch = layout.micro_batch * layout.gradient_accumulation * groups
    most = batch * claim.sequence / claim.step_time_s
    if rate.tokens_per_s <= most * (1 + CONTRADICTION):
        return None
    ratio = rate.tokens_per_s / most
    message = f"{rate.tokens_per_s:,.6g} tokens/s {rate.arithmetic}, but at most {layout.micro_batch} x "
    message += f"{layout.gradient_accumulation} x {groups:g} sequences x {claim.sequence} / {claim.step_time_s:.4g} s "
    message += f"= {most:,.6g} is made, however the devices are divided: {factor_text(ratio)}"
    return make_finding("rate-and-time", "invalid", f"{message}{explain_factor(facts, ratio)}")


def check_rate_and_clock(facts: ClaimFacts) -> Finding | None:
    """A log's printed rates against its time stamps and against the arrival of its lines."""
    claim = facts.claim
    stated, step = claim_rates.claimed_rate(claim), claim_rates.tokens_per_step(claim)
    if stated is None:
        return None
    if step is None:
        return _check_counters(facts, stated)
    for clock in ("arrival", "time-stamps"):
        seconds = claim_rates.seconds_per_step_by_clock(claim, clock)
        way = next((w for w in claim_rates.rederive_rates(claim) if w.way == clock), None)
        if len(seconds) < MIN_LINES or way is None:
            continue
        middle_s = statistics.median(seconds)
        if middle_s <= 0:
            continue
        # The bound in the claim's favour: pauses between lines slow the sum, coarse stamps blur the median.
        bounds = sorted((step.tokens / middle_s, way.tokens_per_s))
        ratio = stated.tokens_per_s / min(max(stated.tokens_per_s, bounds[0]), bounds[1])
        if abs(ratio - 1) <= AGREEMENT + stated.rounding + 2 * way.rounding:
            continue
        severity: Severity | None = "invalid" if ratio > 1 + CONTRADICTION else "suspect"
        explained = explain_factor(facts, ratio)
        if stated.way == clock or (stated.is_bound and not claim.layout.global_batch):
            continue
        if ratio < 1:
            # Lines may be buffered and arrive at once; and a rate without padding is lower than that of all slots.
            is_buffered = clock == "arrival" and min(seconds) < middle_s / 3
            severity = None if is_buffered else too_low(facts, ratio, explained)
            if stated.way == "samples" and claim.train_s:
                # A mean of all that the run did between its steps.
                severity = None
            if severity == "invalid" and not explained and claim.counts == "slots":
                severity = "suspect"
        if severity is None:
            continue
        words = "time stamps" if clock == "time-stamps" else "arrival of its lines"
        message = f"printed: {stated.tokens_per_s:,.6g} tokens/s; by the {words} {way.arithmetic} = "
        message += f"{way.tokens_per_s:,.6g}, or {step.tokens:,.6g} / {middle_s:.4g} s (median step) = "
        message += f"{step.tokens / middle_s:,.6g}: {_times(ratio, 'what that clock allows')}{explained}"
        message += usual_causes(facts, ratio)
        printed_s = claim_rates.duration_per_step(claim)
        if printed_s is not None and middle_s > printed_s * (1 + CONTRADICTION):
            message += (
                f"; the durations it prints ({printed_s:.4g} s) cover {percent_text(printed_s / middle_s)} of a step"
            )
        return make_finding("rate-and-clock", severity, message)
    return _check_counters(facts, stated)


def _times(ratio: float, of: str) -> str:
    return f"printed is {ratio:.3g} times {of}" if ratio > 1 else f"printed is {1 / ratio:.3g} times too low"


def _check_counters(facts: ClaimFacts, stated: claim_rates.ClaimRate) -> Finding | None:
    """The printed rates against the tokens that the log counts, over its own clock."""
    way = next((w for w in claim_rates.rederive_rates(facts.claim) if w.way == "counters"), None)
    if way is None or stated.is_bound:
        return None
    ratio = stated.tokens_per_s / way.tokens_per_s
    # Pauses between the lines slow the count down, so only much more than it is told of; or a factor that has a name.
    if abs(ratio - 1) <= CONTRADICTION + stated.rounding + 2 * way.rounding:
        return None
    explained = explain_factor(facts, ratio)
    if ratio < 1 and not (explained and ratio < 0.53):
        return None
    if 1 < ratio < 1.5 and not explained:
        return None
    message = f"printed: {stated.tokens_per_s:,.6g} tokens/s; {way.arithmetic} = {way.tokens_per_s:,.6g}: printed is "
    message += f"{ratio:.3g} times what is counted{explained}"
    return make_finding("rate-and-clock", "invalid" if explained or ratio > 2 else "suspect", message)


def check_tokens_per_step(facts: ClaimFacts) -> Finding | None:
    """Printed rate times printed duration against batch times sequence."""
    implied, step = claim_rates.implied_step_tokens(facts.claim), claim_rates.tokens_per_step(facts.claim)
    if not implied or step is None or not step.is_stated:
        return None
    tokens, stated = statistics.median(implied), step.tokens
    ratio = tokens / stated
    explained = explain_factor(facts, ratio)
    severity: Severity | None = "invalid" if abs(ratio - 1) > CONTRADICTION else "suspect"
    if ratio < 1:
        severity = too_low(facts, ratio, explained)
    if abs(ratio - 1) <= AGREEMENT or severity is None:
        return None
    made = f"{step.arithmetic} = {stated:,.10g}" if " x " in step.arithmetic else step.arithmetic
    message = f"printed rate x printed duration = {tokens:,.6g} tokens a step, but {made}: "
    message += f"{factor_text(ratio)}{explained}{usual_causes(facts, ratio)}"
    return make_finding("tokens-of-a-step", severity, message)


def check_batch_and_tokens(facts: ClaimFacts) -> Finding | None:
    """The tokens of a step that a log prints against batch times sequence."""
    claim = facts.claim
    batch, sequence = claim.layout.global_batch, claim.sequence
    printed = printed_median(claim, "step_tokens")
    if not batch or not sequence or not printed:
        return None
    slots = batch * sequence
    ratio = printed / slots
    if abs(ratio - 1) <= AGREEMENT:
        return None
    severity: Severity = "note" if LEAST_CONTENT < ratio < 1 and claim.counts != "slots" else "suspect"
    given = [flag for flag in ("--batch", "--sequence") if flag in claim.origin.values()]
    words = f" as given by {' and '.join(given)}" if given else ""
    message = f"the log prints {printed:,.10g} tokens a step, but {batch} x {sequence}{words} = {slots:,}: "
    message += f"{factor_text(ratio)}{explain_factor(facts, ratio)}; a rate made of the printed tokens is "
    message += f"{ratio:.4g} times that of batch x sequence"
    return make_finding("batch-and-tokens", severity, message)


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
    return make_finding("padding-counted", "suspect" if share > CONTRADICTION else "note", message)


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
    message += f"a factor of {ratio:.3g}{explain_factor(facts, ratio)}"
    return make_finding("rate-and-stated-time", "invalid" if ratio > 2 or ratio < 0.5 else "suspect", message)


def check_first_step(facts: ClaimFacts) -> Finding | None:
    """The first step's duration against later ones, in a log that prints durations."""
    rows = list(facts.claim.steps)
    if len(rows) < MIN_LINES or not rows[0].duration_s:
        return None
    first_s = rows[0].duration_s / (rows[0].duration_steps or 1)
    later_s = claim_rates.duration_per_step(facts.claim)
    if later_s is None or later_s <= 0 or first_s <= 2 * later_s:
        return None
    message = (
        f"the first line's step took {first_s:,.4g} s, later ones {later_s:,.4g} s: {first_s / later_s:.3g} times; "
    )
    message += "it is left out here, and a mean that holds it is lower"
    return make_finding("first-step", "note", message)


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
    return make_finding("resumed-clock", "invalid", message)


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
    return make_finding("planned-steps-counted", "invalid", message)


def _tokens_by_clock(facts: ClaimFacts, stated: claim_rates.ClaimRate) -> float | None:
    """The rate times the step time, by whichever clock is available."""
    implied = claim_rates.implied_step_tokens(facts.claim)
    if implied:
        return statistics.median(implied)
    for clock in ("arrival", "time-stamps"):
        seconds = claim_rates.seconds_per_step_by_clock(facts.claim, clock)
        if len(seconds) >= MIN_LINES:
            return stated.tokens_per_s * statistics.median(seconds)
    return stated.tokens_per_s * facts.claim.step_time_s if facts.claim.step_time_s else None
