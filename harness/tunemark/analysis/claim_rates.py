"""The ways to derive a claim's rate from its printed figures, each with its arithmetic, without judging them.

All rates are of the whole job, in the tokens that the claim counts. If a log prints a rate per step, the first line is
left out: it includes allocation, compilation and kernel loading.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tunemark.plugin.claims import Claim, LoggedStep, LoggedSteps


class ClaimRate(NamedTuple):
    """A rate with its derivation. way: its name. arithmetic: its calculation. rounding: the relative error that the
    rounding of the printed figures can cause."""

    way: str
    tokens_per_s: float
    arithmetic: str
    rounding: float


def claimed_rate(claim: Claim) -> ClaimRate | None:
    """The rate that the source itself claims: as stated; for a log, the median of the printed rates after the first."""
    if claim.tokens_per_s is not None:
        return ClaimRate("stated", claim.tokens_per_s, "as stated", relative_rounding_error(claim.tokens_per_s))
    if claim.tokens_per_s_per_device is not None and claim.count:
        return _rate_per_device(claim.tokens_per_s_per_device, claim.count, "stated per device")
    printed = [s.tokens_per_s for s in _without_first(claim.steps) if s.tokens_per_s is not None]
    printed = [rate for rate in printed if math.isfinite(rate)]
    if not printed:
        return _implied_claim(claim)
    middle = statistics.median(printed)
    if claim.scope == "device":
        return _rate_per_device(middle, claim.count, "printed per device") if claim.count else None
    many = f"median of {len(printed)} printed rates, {min(printed):,.6g} to {max(printed):,.6g}"
    return ClaimRate("printed", middle, many, relative_rounding_error(middle))


def _implied_claim(claim: Claim) -> ClaimRate | None:
    """The claimed rate of tools that print only sequences per second, or times: the rate that follows from these."""
    ways = {rate.way: rate for rate in _derive(claim)}
    return next((ways[way] for way in ("samples", "durations", "step-time") if way in ways), None)


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
    if batch and sequence and claim.step_time_s:
        found.append(_rate_over("step-time", batch * sequence, f"{batch} x {sequence}", claim.step_time_s, "a step"))
    if claim.samples_per_s is not None and sequence:
        arithmetic = f"{claim.samples_per_s:,.6g} sequences/s x {sequence} slots"
        rounding = relative_rounding_error(claim.samples_per_s)
        found.append(ClaimRate("samples", claim.samples_per_s * sequence, arithmetic, rounding))
    step = tokens_per_step(claim)
    if claim.train_s:
        if claim.tokens_total:
            text = f"{claim.tokens_total:,.6g} tokens"
            found.append(_rate_over("stated-time", claim.tokens_total, text, claim.train_s, "stated"))
        elif step and (steps := claim.steps_done or claim.steps_total):
            text = f"{steps:g} steps x {step.tokens:,.6g}"
            found.append(_rate_over("stated-time", steps * step.tokens, text, claim.train_s, "stated"))
    if step:
        found += [_by_durations(claim, step), _by_clock(claim, step, "time-stamps"), _by_clock(claim, step, "arrival")]
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
    if len(counted) > 1 and _increase(counted, "number") > 0:
        tokens = _increase(counted, "tokens") / _increase(counted, "number")
        text = f"{_increase(counted, 'tokens'):,.6g} tokens in {_increase(counted, 'number'):g} steps"
        return StepTokens(tokens=tokens, arithmetic=text, is_stated=True) if tokens > 0 else None
    implied = implied_step_tokens(claim)
    if not implied:
        return None
    return StepTokens(tokens=statistics.median(implied), arithmetic="printed rate x printed duration", is_stated=False)


def implied_step_tokens(claim: Claim) -> list[float]:
    """Tokens per step, whole job: printed rate times printed duration of each line that has both."""
    ranks = claim.count if claim.scope == "device" else 1
    if not ranks:
        return []
    return [
        s.tokens_per_s * ranks * s.duration_s / (s.duration_steps or 1)
        for s in claim.steps
        if s.tokens_per_s and s.duration_s and math.isfinite(s.tokens_per_s) and math.isfinite(s.duration_s)
    ]


def seconds_per_step_by_clock(claim: Claim, clock: str) -> list[float]:
    """Seconds per step between consecutive lines by a clock ('time-stamps' or 'arrival'), first line included."""
    found = []
    for a, b in itertools.pairwise(_lines_with_clock(claim, clock)):
        steps, seconds = _increase((a, b), "number"), _increase((a, b), _CLOCK_FIELD[clock])
        if steps > 0 and seconds >= 0:
            found.append(seconds / steps)
    return found


def duration_per_step(claim: Claim) -> float | None:
    """The median of the printed durations after the first line, for one step."""
    found = [s.duration_s / (s.duration_steps or 1) for s in _without_first(claim.steps) if s.duration_s]
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


def _without_first(steps: LoggedSteps) -> list[LoggedStep]:
    rows = list(steps)
    return rows[1:] if len(rows) > 1 else rows


def _rate_per_device(rate: float, count: int, words: str) -> ClaimRate:
    return ClaimRate("per-device", rate * count, f"{rate:,.6g} {words} x {count}", relative_rounding_error(rate))


def _rate_over(way: str, tokens: float, words: str, seconds: float, of: str) -> ClaimRate:
    return ClaimRate(way, tokens / seconds, f"{words} / {seconds:,.6g} s {of}", relative_rounding_error(seconds))


def _by_durations(claim: Claim, step: StepTokens) -> ClaimRate | None:
    rows = [s for s in _without_first(claim.steps) if s.duration_s and math.isfinite(s.duration_s)]
    if not rows:
        return None
    seconds = math.fsum(s.duration_s or 0 for s in rows)
    steps = math.fsum(s.duration_steps or 1 for s in rows)
    text = f"{steps:g} steps x {step.tokens:,.6g} / {seconds:,.6g} s of printed durations"
    share = statistics.median(relative_rounding_error(s.duration_s or 0) for s in rows) / math.sqrt(len(rows))
    return ClaimRate("durations", steps * step.tokens / seconds, text, share)


def _lines_with_clock(claim: Claim, clock: str) -> list[LoggedStep]:
    return [s for s in claim.steps if s.number is not None and getattr(s, _CLOCK_FIELD[clock]) is not None]


def _by_clock(claim: Claim, step: StepTokens, clock: str) -> ClaimRate | None:
    rows = _lines_with_clock(claim, clock)
    if len(rows) < 2:
        return None
    steps, seconds = _increase(rows, "number"), _increase(rows, _CLOCK_FIELD[clock])
    if steps <= 0 or seconds <= 0:
        return None
    whole = all((getattr(s, _CLOCK_FIELD[clock]) or 0) % 1 == 0 for s in rows)
    words = "between time stamps" if clock == "time-stamps" else "between arrivals of the lines"
    text = f"{steps:g} steps x {step.tokens:,.6g} / {seconds:,.6g} s {words}"
    # Two stamps, each truncated to a second, or to a millisecond.
    return ClaimRate(clock, steps * step.tokens / seconds, text, (1 if whole else 0.01) / seconds)


def _increase(rows: Sequence[LoggedStep], field: str) -> float:
    return float(getattr(rows[-1], field) - getattr(rows[0], field))
