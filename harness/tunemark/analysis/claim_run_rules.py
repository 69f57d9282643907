"""Claim rules on how a run went, which the median of its rates hides: failures, early ends, slow-downs, dead losses."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence

from tunemark.analysis import claim_rates
from tunemark.analysis.claim_figures import finite_values, printed_median, settle_scope
from tunemark.analysis.claim_limits import MIN_LINES, make_finding
from tunemark.analysis.plausibility import ClaimFacts
from tunemark.number_format import percent_text
from tunemark.plugin.claims import Claim, EventKind
from tunemark.plugin.descriptors import Finding, Severity

# Steps this many times slower than the median one are told of.
_SLOW = 3.0
# From one half of a log to the other, rates of a steady run differ by less.
_SLOW_DOWN = 1.5
# Without these two shares of the time the median rate would not be far from the mean.
_LOST_TOLD, _LOST_SUSPECT = 0.1, 0.3
# A pause this long is no evaluation and no checkpoint.
_HANG_S, _HANG_STEPS = 900.0, 50
_EVENTS: dict[EventKind, str] = {
    "out-of-memory": "runs out of memory", "communication": "fails in communication", "killed": "is killed",
    "error": "ends with an error",
}  # fmt: skip


def check_failure(facts: ClaimFacts) -> Finding | None:
    """Failures that the text of the log tells of."""
    claim = facts.claim
    if not claim.events:
        return None
    event = min(claim.events, key=lambda one: (list(_EVENTS).index(one.kind), one.line))
    lines = claim.steps.column("line")
    went_on = bool(lines) and (lines[-1] or 0) > event.line
    done, planned = _done_and_planned(claim)
    where = f" after step {done:g}" + (f" of {planned:g}" if planned else "") if done is not None else ""
    message = f"the run {_EVENTS[event.kind]}{where} (line {event.line}: {event.text[:120]!r})"
    if went_on:
        return make_finding("run-failed", "note", f"{message}, and goes on")
    message += ": its rate is that of the steps before, and says nothing of a whole training"
    return make_finding("run-failed", "suspect", message)


def check_early_end(facts: ClaimFacts) -> Finding | None:
    """A log that ends long before the planned last step."""
    done, planned = _done_and_planned(facts.claim)
    if done is None or not planned or facts.claim.events or done >= 0.98 * planned or not len(facts.claim.steps):
        return None
    message = f"the log ends at step {done:g} of {planned:g}, {percent_text(done / planned)} of the run"
    return make_finding("ended-early", "note", message)


def _done_and_planned(claim: Claim) -> tuple[float | None, float | None]:
    numbers = [number for number in claim.steps.column("number") if number is not None]
    return (max(numbers) if numbers else claim.steps_done), claim.steps_total


def check_slow_steps(facts: ClaimFacts) -> Finding | None:
    """Steps that take many times as long as the median one."""
    series = _step_seconds(facts.claim)
    if len(series) < 2 * MIN_LINES or not _has_step_seconds(facts.claim):
        return None
    middle = statistics.median(seconds for _, seconds in series)
    slow = [(at, seconds) for at, seconds in series if seconds > _SLOW * middle]
    lost = math.fsum(seconds - middle for _, seconds in slow) / math.fsum(seconds for _, seconds in series)
    if not slow or lost < _LOST_TOLD or _lasting_change(series) is not None:
        return None
    at, worst = max(slow, key=lambda one: one[1])
    message = f"{len(slow)} of {len(series)} lines are more than {_SLOW:g} times slower than the median of "
    message += (
        f"{middle:.4g} s a step, step {at:g} {worst / middle:.3g} times: {percent_text(lost)} of the time, which "
    )
    message += f"the median of the rates leaves out; over all of it the rate is {percent_text(1 - lost)} of that"
    return make_finding("slow-steps", "suspect" if lost > _LOST_SUSPECT else "note", message)


def check_slow_down(facts: ClaimFacts) -> Finding | None:
    """A run that becomes slower and stays so."""
    series = _step_seconds(facts.claim)
    if len(series) < 4 * MIN_LINES or (change := _lasting_change(series)) is None:
        return None
    at, before, after = change
    if _has_step_seconds(facts.claim):
        message = (
            f"from step {at:g} on a step takes {after:.4g} s, {after / before:.3g} times the {before:.4g} s before"
        )
    else:
        message = (
            f"from step {at:g} on the printed rate is {1 / after:,.4g}, {after / before:.3g} times lower than the "
        )
        message += f"{1 / before:,.4g} before"
    message += ": one rate does not describe this run"
    return make_finding("slow-down", "suspect", message)


def _lasting_change(series: Sequence[tuple[float, float]]) -> tuple[float, float, float] | None:
    """Where steps become slower for good: the step, the median seconds before it and after it."""
    if len(series) < 4 * MIN_LINES:
        return None
    seconds = [s for _, s in series]
    best = (_SLOW_DOWN, 0.0, 0)
    for cut in range(MIN_LINES, len(seconds) - MIN_LINES + 1, max(1, len(seconds) // 200)):
        before, after = seconds[:cut], seconds[cut:]
        # A lasting change: nearly all that follow are slower than nearly all before.
        gap = statistics.quantiles(after, n=10)[0] / max(statistics.quantiles(before, n=10)[-1], 1e-12)
        if gap > 1:
            best = max(best, (statistics.median(after) / max(statistics.median(before), 1e-12), gap, cut))
    cut = best[-1]
    if not cut:
        return None
    return series[cut][0], statistics.median(seconds[:cut]), statistics.median(seconds[cut:])


def check_hang(facts: ClaimFacts) -> Finding | None:
    """A gap between two lines that no evaluation and no checkpoint explains."""
    claim = facts.claim
    for field in ("arrived_s", "stamp_s"):
        columns = zip(claim.steps.column("number"), claim.steps.column(field), strict=True)
        points = [(number, at) for number, at in columns if number is not None and at is not None]
        pairs = [(a, b) for a, b in itertools.pairwise(points) if b[0] > a[0]]
        if len(pairs) < 2 * MIN_LINES:
            continue
        # Where lines are missing, more steps lie between two of them.
        usual = statistics.median((b[1] - a[1]) / (b[0] - a[0]) for a, b in pairs)
        middle = statistics.median(b[1] - a[1] for a, b in pairs)
        gaps = [(b[1] - a[1] - usual * (b[0] - a[0]) + middle, a[0], b[0]) for a, b in pairs]
        seconds, first, last = max(gaps)
        if seconds > _HANG_S and seconds > _HANG_STEPS * middle:
            message = (
                f"between steps {first:g} and {last:g} lie {seconds / 60:,.4g} minutes, {seconds / middle:,.3g} times "
            )
            message += f"the {middle:.4g} s that are usual: the run stood still"
            return make_finding("hang", "suspect", message)
    return None


def _has_step_seconds(claim: Claim) -> bool:
    """Whether the log shows how long a step takes, and not only how that changes."""
    return bool(finite_values(claim.steps, "duration_s")) or claim_rates.tokens_per_step(claim) is not None


def _step_seconds(claim: Claim) -> list[tuple[float, float]]:
    """Step number and seconds of one step, of each line after the first: as printed, else by the printed rate. Where
    the tokens of a step are unknown, of one token."""
    step = claim_rates.tokens_per_step(claim)
    tokens = step.tokens if step else 1.0
    columns = [claim.steps.column(name) for name in ("number", "duration_s", "duration_steps", "tokens_per_s")]
    found = []
    for line, (number, seconds, steps, rate) in enumerate(zip(*columns, strict=True), 1):
        at = float(line) if number is None else number
        if seconds and math.isfinite(seconds):
            found.append((at, seconds / (steps or 1)))
        elif rate and math.isfinite(rate):
            found.append((at, tokens / rate))
    return found[1:]


def check_growing_rate(facts: ClaimFacts) -> Finding | None:
    """A printed rate that grows in proportion to the step's number."""
    pairs = zip(facts.claim.steps.column("number"), facts.claim.steps.column("tokens_per_s"), strict=True)
    points = [(number, rate) for number, rate in pairs if number and rate and number > 0 and math.isfinite(rate)]
    if len(points) < 8 or points[-1][0] < 4 * points[0][0]:
        return None
    per_step = [rate / number for number, rate in points]
    if max(per_step) > 1.05 * min(per_step):
        return None
    message = f"the printed rate grows with the step, {statistics.median(per_step):,.6g} times its number, from "
    message += f"{points[0][1]:,.6g} to {points[-1][1]:,.6g}: the tokens since the start over the time of one step"
    return make_finding("growing-rate", "invalid", message)


def check_resumed_counter(facts: ClaimFacts) -> Finding | None:
    """Cumulative tokens over the time since a resume, line by line."""
    steps = facts.claim.steps
    columns = [steps.column(name) for name in ("tokens", "tokens_per_s", "stamp_s")]
    rows = [
        (t, r, s) for t, r, s in zip(*columns, strict=True) if t and r and s is not None and math.isfinite(r) and r > 0
    ]
    way = next((way for way in claim_rates.rederive_rates(facts.claim) if way.way == "counters"), None)
    if len(rows) < 4 or way is None:
        return None
    elapsed = [tokens / rate for tokens, rate, _ in rows]
    off = [
        abs((b - a) - (q[2] - p[2]))
        for (a, b), (p, q) in zip(itertools.pairwise(elapsed), itertools.pairwise(rows), strict=True)
    ]
    usual = statistics.median(q[2] - p[2] for p, q in itertools.pairwise(rows))
    if usual <= 0 or statistics.median(off) > max(0.05 * usual, 1.0):
        return None
    # As long as it would have taken to count the tokens of the first line, had they been counted since the start.
    needed = rows[0][0] / way.tokens_per_s
    if needed < 1.5 * elapsed[0] or rows[0][0] < rows[-1][0] - rows[0][0]:
        return None
    message = f"the printed rate is all tokens so far over {elapsed[0]:,.4g} s in the first line, which already has "
    message += f"{rows[0][0]:,.6g} tokens: those of a former run over the clock of this one. {way.arithmetic} = "
    message += f"{way.tokens_per_s:,.6g} tokens/s"
    return make_finding("resumed-clock", "invalid", message)


def check_dead_loss(facts: ClaimFacts) -> Finding | None:
    """A loss of exactly zero, or gradients that are not finite to the end: nothing is trained."""
    losses = [loss for loss in facts.claim.steps.column("loss") if loss is not None]
    norms = [norm for norm in facts.claim.steps.column("gradient_norm") if norm is not None]
    zeros = sum(loss == 0 for loss in losses)
    broken = sum(not math.isfinite(norm) for norm in norms)
    ends_broken = bool(norms) and not any(math.isfinite(norm) for norm in norms[-MIN_LINES:])
    if zeros > 1 or (zeros and broken):
        also = f", {broken} of {len(norms)} gradient norms are not finite" if broken else ""
        return make_finding(
            "loss-zero", "invalid", f"{zeros} of {len(losses)} losses are exactly 0{also}: nothing is trained any more"
        )
    if ends_broken and broken > 1:
        message = (
            f"{broken} of {len(norms)} gradient norms are not finite, among them the last: nothing is trained any more"
        )
        return make_finding("gradient-not-finite", "invalid", message)
    return None


def check_constant_rate(facts: ClaimFacts) -> Finding | None:
    """Printed rates that never vary were not measured step by step."""
    printed = finite_values(facts.claim.steps, "tokens_per_s")
    if len(printed) < 10 or len(set(printed)) > 1 or claim_rates.relative_rounding_error(printed[0]) > 1e-4:
        return None
    severity: Severity = "suspect"
    if _has_coarse_clock(facts.claim) or _has_constant_figures(facts.claim):
        # The printed times, or rates of other units, do not vary either: all are of one clock that is no finer.
        severity = "note"
    message = f"{len(printed)} lines print the very same rate, {printed[0]:,.10g}: it was not measured line by line"
    return make_finding("same-every-step", severity, message)


def _has_coarse_clock(claim: Claim) -> bool:
    """Whether the very same rate follows from times that the log prints, with digits too few to show a difference."""
    printed, durations = (finite_values(claim.steps, name) for name in ("tokens_per_s", "duration_s"))
    close = 1e-5 + claim_rates.relative_rounding_error(printed[0])
    if durations and len(set(durations)) == 1:
        steps = finite_values(claim.steps, "duration_steps")
        made = printed[0] * durations[0] / (steps[0] if steps else 1)
        batch, sequence = claim.layout.global_batch, claim.sequence
        stated = [*finite_values(claim.steps, "step_tokens")[:1], *([batch * sequence] if batch and sequence else [])]
        return any(
            abs(made / ranks / tokens - 1) <= close for tokens in stated for ranks in (1, 1 / (claim.count or 1))
        )
    # A mean since the start, over seconds that are printed whole.
    columns = [claim.steps.column(name) for name in ("tokens", "stamp_s", "tokens_per_s")]
    rows = [(t, s, r) for t, s, r in zip(*columns, strict=True) if t and s and r]
    return len(rows) > MIN_LINES and all(abs(t / s / r - 1) <= close for t, s, r in rows)


def _has_constant_figures(claim: Claim) -> bool:
    """Whether a log prints sequences or steps per second, too, which never vary either."""
    samples = finite_values(claim.steps, "samples_per_s")
    figures = [one for one in claim.figures if one.quantity in ("samples_per_s", "steps_per_s") and one.lines > 1]
    is_each = len(set(samples)) <= 1 and all(one.lowest == one.highest for one in figures)
    return bool(samples or figures) and is_each


def check_derived_rate(facts: ClaimFacts) -> Finding | None:
    """Where the source prints no rate in tokens, and one is made of its other figures."""
    claim = facts.claim
    rate = claim_rates.claimed_rate(claim)
    if rate is None or claim_rates.stated_rate(claim) is not None or claim.tool == "tunemark":
        return None
    what = "log" if len(claim.steps) else "source"
    most = "; at most, since its sequences may be shorter" if rate.is_bound else ""
    message = f"the {what} prints no rate in tokens; {rate.arithmetic} make {rate.tokens_per_s:,.6g} tokens/s{most}"
    return make_finding("rate-derived", "note", message)


def check_scope(facts: ClaimFacts) -> Finding | None:
    """Where the name of a rate does not say whether it is the job's or each device's."""
    claim = facts.claim
    if claim.scope != "unknown" or not claim.count or claim.count < 2 or claim.tokens_per_s is not None:
        return None
    printed = printed_median(claim, "tokens_per_s")
    if printed is None:
        return None
    settled, name = settle_scope(claim), claim.rate_name or "its rate"
    if settled.scope == "job":
        return None
    if settled.scope == "device":
        message = (
            f"{name!r} does not say of what it is; {settled.reason}: it is the rate of one device, or too low by the "
        )
        message += f"count of devices. Here it is read as {printed:,.6g} of each of {claim.count}"
        return make_finding("scope-of-rate", "suspect", message)
    message = (
        f"{name!r} does not say whether it is of the job or of each device, and no other figure shows it; here it "
    )
    message += f"is read as the job's. If it is each device's, the job makes {printed * claim.count:,.6g} tokens/s"
    return make_finding("scope-of-rate", "note", message)
