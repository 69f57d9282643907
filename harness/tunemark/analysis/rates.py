"""The ways in which one rate can be found from what somebody printed, each with its arithmetic. No judgement here.

All rates are of the whole job, in the tokens that the claim counts. Where a log prints the rate step by step, the first
line is left out: it holds allocation, compilation and the loading of kernels.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tunemark.plugin.claims import Claim, LoggedStep, Steps


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """One way's tokens per second, the sum that gives it, and the share by which the rounding of what was printed can
    move it."""

    way: str
    tokens_per_s: float
    arithmetic: str
    rounding: float


def claimed(claim: Claim) -> Rate | None:
    """What the source itself says the rate is: the statement of a row; of a log the median of the printed rates after
    the first."""
    if claim.tokens_per_s is not None:
        return Rate(
            way="stated", tokens_per_s=claim.tokens_per_s, arithmetic="as stated", rounding=rounding(claim.tokens_per_s)
        )
    if claim.tokens_per_s_per_device is not None and claim.count:
        return _per_device(claim.tokens_per_s_per_device, claim.count, "stated per device")
    printed = [s.tokens_per_s for s in _after_the_first(claim.steps) if s.tokens_per_s is not None]
    printed = [rate for rate in printed if math.isfinite(rate)]
    if not printed:
        return _without_a_rate(claim)
    middle = statistics.median(printed)
    if claim.scope == "device":
        return _per_device(middle, claim.count, "printed per device") if claim.count else None
    many = f"median of {len(printed)} printed rates, {min(printed):,.6g} to {max(printed):,.6g}"
    return Rate(way="printed", tokens_per_s=middle, arithmetic=many, rounding=rounding(middle))


def _without_a_rate(claim: Claim) -> Rate | None:
    """Tools that print sequences per second, or only times, claim the rate that follows."""
    ways = {rate.way: rate for rate in _ways(claim)}
    return next((ways[way] for way in ("samples", "durations", "step-time") if way in ways), None)


def rederived(claim: Claim) -> list[Rate]:
    """Every other way to the same rate that the claim's own figures allow."""
    said = claimed(claim)
    return [rate for rate in _ways(claim) if said is None or rate.way != said.way or rate.way == "per-device"]


def _ways(claim: Claim) -> list[Rate]:
    batch, sequence, count = claim.layout.global_batch, claim.sequence, claim.count
    found: list[Rate | None] = []
    if claim.tokens_per_s is not None and claim.tokens_per_s_per_device is not None and count:
        # Stated twice.
        found.append(_per_device(claim.tokens_per_s_per_device, count, "per-device"))
    if batch and sequence and claim.step_time_s:
        found.append(_over("step-time", batch * sequence, f"{batch} x {sequence}", claim.step_time_s, "a step"))
    if claim.samples_per_s is not None and sequence:
        arithmetic = f"{claim.samples_per_s:,.6g} sequences/s x {sequence} slots"
        found.append(Rate(
            way="samples", tokens_per_s=claim.samples_per_s * sequence, arithmetic=arithmetic,
            rounding=rounding(claim.samples_per_s),
        ))  # fmt: skip
    step = tokens_per_step(claim)
    if claim.train_s:
        if claim.tokens_total:
            text = f"{claim.tokens_total:,.6g} tokens"
            found.append(_over("stated-time", claim.tokens_total, text, claim.train_s, "stated"))
        elif step and (steps := claim.steps_done or claim.steps_total):
            text = f"{steps:g} steps x {step.tokens:,.6g}"
            found.append(_over("stated-time", steps * step.tokens, text, claim.train_s, "stated"))
    if step:
        found += [_durations(claim, step), _clock(claim, step, "time-stamps"), _clock(claim, step, "arrival")]
    return [rate for rate in found if rate is not None and rate.tokens_per_s > 0]


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTokens:
    """Tokens of one optimizer step, whole job, and where the figure comes from."""

    tokens: float
    arithmetic: str
    is_stated: bool


def tokens_per_step(claim: Claim) -> StepTokens | None:
    """By batch and sequence, else by the cumulative tokens of two lines, else by printed rate x printed duration."""
    batch, sequence = claim.layout.global_batch, claim.sequence
    if batch and sequence:
        return StepTokens(tokens=batch * sequence, arithmetic=f"{batch} x {sequence}", is_stated=True)
    counted = [s for s in claim.steps if s.tokens is not None and s.number is not None]
    if len(counted) > 1 and _gain(counted, "number") > 0:
        tokens = _gain(counted, "tokens") / _gain(counted, "number")
        text = f"{_gain(counted, 'tokens'):,.6g} tokens in {_gain(counted, 'number'):g} steps"
        return StepTokens(tokens=tokens, arithmetic=text, is_stated=True) if tokens > 0 else None
    implied = implied_step_tokens(claim)
    if not implied:
        return None
    return StepTokens(tokens=statistics.median(implied), arithmetic="printed rate x printed duration", is_stated=False)


def implied_step_tokens(claim: Claim) -> list[float]:
    """Of each line that has both, its printed rate times its printed duration, for one step and the whole job."""
    ranks = claim.count if claim.scope == "device" else 1
    if not ranks:
        return []
    return [
        s.tokens_per_s * ranks * s.duration_s / (s.duration_steps or 1)
        for s in claim.steps
        if s.tokens_per_s and s.duration_s and math.isfinite(s.tokens_per_s) and math.isfinite(s.duration_s)
    ]


def seconds_between(claim: Claim, clock: str) -> list[float]:
    """Seconds per step between neighbouring lines by a clock ('time-stamps' or 'arrival'), from the first line on."""
    found = []
    for a, b in itertools.pairwise(_ticked(claim, clock)):
        steps, seconds = _gain((a, b), "number"), _gain((a, b), _FIELD[clock])
        if steps > 0 and seconds >= 0:
            found.append(seconds / steps)
    return found


def duration_per_step(claim: Claim) -> float | None:
    """The median of the printed durations after the first line, for one step."""
    found = [s.duration_s / (s.duration_steps or 1) for s in _after_the_first(claim.steps) if s.duration_s]
    return statistics.median(found) if found else None


def rounding(*values: float) -> float:
    """The share by which figures can have been rounded, summed: half a unit of the last digit that is not a zero."""
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


_FIELD = {"time-stamps": "stamp_s", "arrival": "arrived_s"}


def _after_the_first(steps: Steps) -> list[LoggedStep]:
    rows = list(steps)
    return rows[1:] if len(rows) > 1 else rows


def _per_device(rate: float, count: int, words: str) -> Rate:
    return Rate(
        way="per-device",
        tokens_per_s=rate * count,
        arithmetic=f"{rate:,.6g} {words} x {count}",
        rounding=rounding(rate),
    )


def _over(way: str, tokens: float, words: str, seconds: float, of: str) -> Rate:
    return Rate(
        way=way,
        tokens_per_s=tokens / seconds,
        arithmetic=f"{words} / {seconds:,.6g} s {of}",
        rounding=rounding(seconds),
    )


def _durations(claim: Claim, step: StepTokens) -> Rate | None:
    rows = [s for s in _after_the_first(claim.steps) if s.duration_s and math.isfinite(s.duration_s)]
    if not rows:
        return None
    seconds = math.fsum(s.duration_s or 0 for s in rows)
    steps = math.fsum(s.duration_steps or 1 for s in rows)
    text = f"{steps:g} steps x {step.tokens:,.6g} / {seconds:,.6g} s of printed durations"
    share = statistics.median(rounding(s.duration_s or 0) for s in rows) / math.sqrt(len(rows))
    return Rate(way="durations", tokens_per_s=steps * step.tokens / seconds, arithmetic=text, rounding=share)


def _ticked(claim: Claim, clock: str) -> list[LoggedStep]:
    return [s for s in claim.steps if s.number is not None and getattr(s, _FIELD[clock]) is not None]


def _clock(claim: Claim, step: StepTokens, clock: str) -> Rate | None:
    rows = _ticked(claim, clock)
    if len(rows) < 2:
        return None
    steps, seconds = _gain(rows, "number"), _gain(rows, _FIELD[clock])
    if steps <= 0 or seconds <= 0:
        return None
    whole = all((getattr(s, _FIELD[clock]) or 0) % 1 == 0 for s in rows)
    words = "between time stamps" if clock == "time-stamps" else "between arrivals of the lines"
    text = f"{steps:g} steps x {step.tokens:,.6g} / {seconds:,.6g} s {words}"
    # Two stamps, each cut off to a second, or to a millisecond.
    return Rate(
        way=clock,
        tokens_per_s=steps * step.tokens / seconds,
        arithmetic=text,
        rounding=(1 if whole else 0.01) / seconds,
    )


def _gain(rows: Sequence[LoggedStep], field: str) -> float:
    return float(getattr(rows[-1], field) - getattr(rows[0], field))
