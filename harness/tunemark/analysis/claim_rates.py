"""The ways to derive a claim's rate from its printed figures, each with its arithmetic, without judging them.

All rates are of the whole job, in the tokens that the claim counts. If a log prints a rate per step, the first line is
left out: it includes allocation, compilation and kernel loading.
"""

from __future__ import annotations

import itertools
import math
import statistics
from dataclasses import dataclass, replace
from typing import NamedTuple

from tunemark.analysis.claim_figures import claimed_samples, finite_values, settle_scope, stated_step_tokens
from tunemark.plugin.claims import Claim


class ClaimRate(NamedTuple):
    """A rate with its derivation. way: its name. arithmetic: its calculation. rounding: the relative error that the
    rounding of the printed figures can cause. is_bound: whether it may be higher than the rate, since it takes each
    sequence for as long as the longest."""

    way: str
    tokens_per_s: float
    arithmetic: str
    rounding: float
    is_bound: bool = False


# Rates that a log's own times make, best first, where it prints none.
_DERIVED_WAYS = ("durations", "arrival", "time-stamps", "step-time", "steps", "counters", "samples", "stated-time")


def claimed_rate(claim: Claim) -> ClaimRate | None:
    """The rate that the source itself claims: as stated; for a log, the median of the printed rates after the first;
    where it prints none, the rate that its sequences per second or its times make."""
    if (rate := stated_rate(claim)) is not None or claim.tokens_per_s_per_device is not None:
        return rate
    if (claim.scope == "device") and finite_values(claim.steps, "tokens_per_s"):
        # Printed per device, and the count is unknown.
        return None
    ways = {rate.way: rate for rate in _derive(claim)}
    if claimed_samples(claim) is not None and "samples" in ways:
        return ways["samples"]
    return next((ways[way] for way in _DERIVED_WAYS if way in ways), None)


def stated_rate(claim: Claim) -> ClaimRate | None:
    """The rate in tokens that the source states or prints; None where it prints none, or the count is unknown."""
    if claim.tokens_per_s is not None:
        return ClaimRate("stated", claim.tokens_per_s, "as stated", relative_rounding_error(claim.tokens_per_s))
    if claim.tokens_per_s_per_device is not None:
        if not claim.count:
            return None
        return _rate_per_device(claim.tokens_per_s_per_device, claim.count, "stated per device")
    printed = finite_values(claim.steps, "tokens_per_s")
    if not printed:
        return None
    middle = statistics.median(printed)
    if not middle > 0:
        # Nothing is trained at 0 tokens/s: the program did not know its rate.
        return None
    settled = settle_scope(claim)
    if settled.scope == "device":
        return _rate_per_device(middle, claim.count, "printed per device") if claim.count else None
    many = f"median of {len(printed)} printed rates, {min(printed):,.6g} to {max(printed):,.6g}"
    return ClaimRate("printed", middle, many, relative_rounding_error(middle))


def of_one_device(claim: Claim) -> Claim:
    """The claim as one of a single device, where it states a rate per device and no count: what one device can do does
    not depend on how many there are. Any other claim comes back as it is."""
    is_printed = claim.scope == "device" and bool(finite_values(claim.steps, "tokens_per_s"))
    if claim.count is None and claim.tokens_per_s is None and (claim.tokens_per_s_per_device or is_printed):
        return replace(claim, count=1)
    return claim


def rederive_rates(claim: Claim) -> list[ClaimRate]:
    """The same rate by every other derivation that the claim's own figures allow."""
    stated = claimed_rate(claim)
    return [rate for rate in _derive(claim) if stated is None or rate.way != stated.way or rate.way == "per-device"]


def _derive(claim: Claim) -> list[ClaimRate]:
    batch, sequence, count = claim.layout.global_batch, claim.sequence, claim.count
    found: list[ClaimRate | None] = []
    if claim.tokens_per_s is not None and claim.tokens_per_s_per_device is not None and count:
        # Both are stated.
        found.append(_rate_per_device(claim.tokens_per_s_per_device, count, "per-device"))
    elif device := _figure_per_device(claim):
        found.append(device)
    if batch and sequence and claim.step_time_s:
        found.append(_rate_over("step-time", batch * sequence, f"{batch} x {sequence}", claim.step_time_s, "a step"))
    if (samples := claimed_samples(claim)) is not None and sequence:
        arithmetic = f"{samples[1]} x {sequence} slots"
        rounding = relative_rounding_error(samples[0])
        is_bound = claim.counts != "slots"
        found.append(ClaimRate("samples", samples[0] * sequence, arithmetic, rounding, is_bound))
    step = tokens_per_step(claim)
    found.append(_by_steps_per_s(claim, step))
    if claim.train_s:
        if claim.tokens_total:
            text = f"{claim.tokens_total:,.6g} tokens"
            found.append(_rate_over("stated-time", claim.tokens_total, text, claim.train_s, "stated"))
        elif step and (steps := claim.steps_done or claim.steps_total):
            text = f"{steps:g} steps x {step.tokens:,.6g}"
            found.append(_rate_over("stated-time", steps * step.tokens, text, claim.train_s, "stated"))
    found.append(_by_counters(claim))
    if step:
        found += [_by_durations(claim, step), _by_clock(claim, step, "time-stamps"), _by_clock(claim, step, "arrival")]
    return [rate for rate in found if rate is not None and rate.tokens_per_s > 0]


def _figure_per_device(claim: Claim) -> ClaimRate | None:
    """The job's rate by a rate per device that is printed beside it under another name."""
    if settle_scope(claim).scope != "job" or not claim.count:
        return None
    for figure in claim.figures:
        if figure.quantity == "tokens_per_s" and figure.scope == "device" and figure.is_training:
            return _rate_per_device(figure.value, claim.count, f"({figure.name})")
    return None


def _by_steps_per_s(claim: Claim, step: StepTokens | None) -> ClaimRate | None:
    """The rate by the steps per second that are printed beside it."""
    if step is None or not step.is_stated:
        return None
    for figure in claim.figures:
        if figure.quantity == "steps_per_s" and figure.is_training and figure.scope != "device" and figure.lines > 1:
            text = f"{step.tokens:,.6g} x {figure.value:,.4g} steps/s ({figure.name!r})"
            return ClaimRate("steps", step.tokens * figure.value, text, relative_rounding_error(figure.value))
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTokens:
    """Tokens of one optimizer step, whole job, and where the figure comes from."""

    tokens: float
    arithmetic: str
    is_stated: bool


def tokens_per_step(claim: Claim) -> StepTokens | None:
    """By batch and sequence, else as printed or by counters, else by printed rate x printed duration."""
    if (stated := stated_step_tokens(claim)) is not None:
        return StepTokens(tokens=stated[0], arithmetic=stated[1], is_stated=True)
    implied = implied_step_tokens(claim)
    if not implied:
        return None
    return StepTokens(tokens=statistics.median(implied), arithmetic="printed rate x printed duration", is_stated=False)


def implied_step_tokens(claim: Claim) -> list[float]:
    """Tokens per step, whole job: printed rate times printed duration of each line that has both."""
    ranks = claim.count if settle_scope(claim).scope == "device" else 1
    if not ranks:
        return []
    columns = (claim.steps.column(name) for name in ("tokens_per_s", "duration_s", "duration_steps"))
    return [
        rate * ranks * seconds / (steps or 1)
        for rate, seconds, steps in zip(*columns, strict=True)
        if rate and seconds and math.isfinite(rate) and math.isfinite(seconds)
    ]


def seconds_per_step_by_clock(claim: Claim, clock: str) -> list[float]:
    """Seconds per step between consecutive lines by a clock ('time-stamps' or 'arrival'), first line included."""
    found = []
    for (first, began), (last, ended) in itertools.pairwise(_points(claim, _CLOCK_FIELD[clock])):
        if last > first and ended >= began:
            found.append((ended - began) / (last - first))
    return found


def duration_per_step(claim: Claim) -> float | None:
    """The median of the printed durations after the first line, for one step."""
    found = [seconds / steps for seconds, steps in _durations(claim)]
    return statistics.median(found) if found else None


def relative_rounding_error(*values: float) -> float:
    """The relative rounding errors of figures, summed: half a unit of the last digit that is not a zero."""
    share = 0.0
    for value in values:
        if not value or not math.isfinite(value):
            continue
        digits, _, exponent = f"{abs(value):.15g}".partition("e")
        whole, _, fraction = digits.partition(".")
        fraction = fraction.rstrip("0")
        zeros = len(whole) - len(whole.rstrip("0")) if not fraction else 0
        unit = 10.0 ** (int(exponent or 0) + (zeros if not fraction else -len(fraction)))
        share += unit / 2 / abs(value)
    return share


_CLOCK_FIELD = {"time-stamps": "stamp_s", "arrival": "arrived_s"}


def _rate_per_device(rate: float, count: int, words: str) -> ClaimRate:
    return ClaimRate("per-device", rate * count, f"{rate:,.6g} {words} x {count}", relative_rounding_error(rate))


def _rate_over(way: str, tokens: float, words: str, seconds: float, of: str) -> ClaimRate:
    return ClaimRate(way, tokens / seconds, f"{words} / {seconds:,.6g} s {of}", relative_rounding_error(seconds))


def _durations(claim: Claim) -> list[tuple[float, float]]:
    """Printed seconds and their steps, of the lines after the first."""
    rows = list(zip(claim.steps.column("duration_s"), claim.steps.column("duration_steps"), strict=True))
    rows = rows[1:] if len(rows) > 1 else rows
    return [(seconds, steps or 1) for seconds, steps in rows if seconds and math.isfinite(seconds)]


def _by_durations(claim: Claim, step: StepTokens) -> ClaimRate | None:
    rows = _durations(claim)
    if not rows:
        return None
    seconds = math.fsum(seconds for seconds, _ in rows)
    steps = math.fsum(steps for _, steps in rows)
    text = f"{steps:g} steps x {step.tokens:,.6g} / {seconds:,.6g} s of printed durations"
    share = statistics.median(relative_rounding_error(seconds) for seconds, _ in rows) / math.sqrt(len(rows))
    return ClaimRate("durations", steps * step.tokens / seconds, text, share)


def _points(claim: Claim, field: str, by: str = "number") -> list[tuple[float, float]]:
    """The lines that have both fields: (by, field)."""
    pairs = zip(claim.steps.column(by), claim.steps.column(field), strict=True)
    found: list[tuple[float, float]] = []
    for at, value in pairs:
        if at is None or value is None:
            continue
        if found and found[-1][1] == value and by == "number":
            # Lines of one instant were written, or read, together: only the last tells how far the program was.
            found.pop()
        found.append((at, value))
    return found


def _by_clock(claim: Claim, step: StepTokens, clock: str) -> ClaimRate | None:
    rows = _points(claim, _CLOCK_FIELD[clock])
    if len(rows) < 2:
        return None
    (first, began), (last, ended) = rows[0], rows[-1]
    if last <= first or ended <= began:
        return None
    words = "between time stamps" if clock == "time-stamps" else "between arrivals of the lines"
    text = f"{last - first:g} steps x {step.tokens:,.6g} / {ended - began:,.6g} s {words}"
    # Two stamps, each truncated to a second, or to a millisecond.
    share = (1 if all(at % 1 == 0 for _, at in rows) else 0.01) / (ended - began)
    return ClaimRate(clock, (last - first) * step.tokens / (ended - began), text, share)


def _by_counters(claim: Claim) -> ClaimRate | None:
    """Tokens counted since the start, differenced over the log's clock: no printed rate and no batch size is needed."""
    for clock in ("arrived_s", "stamp_s"):
        rows = _points(claim, "tokens", by=clock)
        if len(rows) < 3:
            continue
        (began, first), (ended, last) = rows[0], rows[-1]
        if ended > began and last > first:
            text = f"{last - first:,.6g} tokens counted / {ended - began:,.6g} s by its clock"
            share = (1 if all(at % 1 == 0 for at, _ in rows) else 0.01) / (ended - began)
            return ClaimRate("counters", (last - first) / (ended - began), text, share)
    return None
