"""The figures that a claim states, or that a log prints line by line: their medians, and of what its rates are.

The first line of a log is left out where there are more: it includes allocation, compilation and kernel loading.
"""

from __future__ import annotations

import math
import statistics
from typing import NamedTuple

from tunemark.plugin.claims import Claim, ClaimScope, LoggedSteps

# A rate whose name does not say of what it is, is that of the job, or of one device, if it is so near to what the
# step's tokens and time make. Rates per device and of the job differ by the count, 2 or more.
_SCOPE_AGREEMENT = 0.15


class SettledScope(NamedTuple):
    """Of what a claim's printed rates are; reason: what shows it where the name does not say so, None if it does."""

    scope: ClaimScope
    reason: str | None = None


def finite_values(steps: LoggedSteps, name: str) -> list[float]:
    """The finite values of a field, without those of the first line that has one if there are more."""
    found = [value for value in steps.column(name) if value is not None and math.isfinite(value)]
    return found[1:] if len(found) > 1 else found


def printed_median(claim: Claim, name: str) -> float | None:
    """The median of a log's printed values after the first."""
    found = finite_values(claim.steps, name)
    return statistics.median(found) if found else None


def claimed_tflops(claim: Claim) -> float | None:
    """TFLOP/s per device: as stated, else printed; None where they are of a job of an unknown count."""
    if claim.tflops_per_device is not None:
        return claim.tflops_per_device
    printed = printed_median(claim, "tflops")
    if printed is None or claim.flops_scope != "job":
        return printed
    return printed / claim.count if claim.count else None


def claimed_mfu(claim: Claim) -> float | None:
    """MFU as a fraction: as stated, else printed."""
    return claim.mfu if claim.mfu is not None else printed_median(claim, "mfu")


def claimed_samples(claim: Claim) -> tuple[float, str] | None:
    """Sequences per second of the whole job, and the arithmetic: as stated, else printed."""
    if claim.samples_per_s is not None:
        return claim.samples_per_s, f"{claim.samples_per_s:,.6g} sequences/s"
    middle = printed_median(claim, "samples_per_s")
    if middle is None:
        return None
    if claim.samples_scope == "device":
        return (middle * claim.count, f"{middle:,.6g} sequences/s x {claim.count}") if claim.count else None
    return middle, f"{middle:,.6g} sequences/s"


def seconds_per_step(claim: Claim) -> tuple[float, str] | None:
    """The time of one step, and from where: printed, stated, or the log's clock."""
    rows = list(zip(claim.steps.column("duration_s"), claim.steps.column("duration_steps"), strict=True))
    found = [s / (n or 1) for s, n in rows[1:] or rows if s is not None and math.isfinite(s) and s > 0]
    if found:
        return statistics.median(found), "its printed step time"
    if claim.step_time_s:
        return claim.step_time_s, "its step time"
    for clock, words in (("arrived_s", "the arrival of its lines"), ("stamp_s", "its clock")):
        points = [
            (number, at)
            for number, at in zip(claim.steps.column("number"), claim.steps.column(clock), strict=True)
            if number is not None and at is not None
        ]
        if len(points) > 2 and points[-1][0] > points[0][0] and points[-1][1] > points[0][1]:
            return (points[-1][1] - points[0][1]) / (points[-1][0] - points[0][0]), words
    return None


def stated_step_tokens(claim: Claim) -> tuple[float, str] | None:
    """Tokens of one step of the whole job: batch x sequence, else as printed, else by the counters of two lines."""
    batch, sequence = claim.layout.global_batch, claim.sequence
    if batch and sequence:
        return batch * sequence, f"{batch} x {sequence}"
    if (printed := printed_median(claim, "step_tokens")) is not None and printed > 0:
        return printed, f"{printed:,.6g} printed"
    for field, factor, words in (("tokens", 1, "tokens"), ("samples", claim.sequence, "sequences")):
        points = [
            (number, value)
            for number, value in zip(claim.steps.column("number"), claim.steps.column(field), strict=True)
            if number is not None and value is not None
        ]
        if factor and len(points) > 1 and points[-1][0] > points[0][0] and points[-1][1] > points[0][1]:
            steps, rise = points[-1][0] - points[0][0], points[-1][1] - points[0][1]
            times = f" x {factor}" if factor > 1 else ""
            return rise * factor / steps, f"{rise:,.6g} {words}{times} in {steps:g} steps"
    return None


def settle_scope(claim: Claim) -> SettledScope:
    """Of what the printed rates are: as the name says, else as the count and the other figures show."""
    if claim.scope != "unknown" or claim.count == 1:
        return SettledScope("job" if claim.scope == "unknown" else claim.scope)
    printed = printed_median(claim, "tokens_per_s")
    if printed is None or not printed > 0 or not claim.count:
        return SettledScope("unknown")
    for figure in claim.figures:
        if figure.quantity == "tokens_per_s" and figure.is_training and figure.scope == "device" and figure.value > 0:
            if _is_near(printed, figure.value * claim.count):
                return SettledScope("job", f"{figure.name} x {claim.count} is the same")
            if _is_near(printed, figure.value):
                return SettledScope("device", f"it is the same as {figure.name}")
    tokens, seconds = stated_step_tokens(claim), seconds_per_step(claim)
    if tokens is None or seconds is None or not seconds[0] > 0:
        return SettledScope("unknown")
    whole = tokens[0] / seconds[0]
    if _is_near(printed, whole):
        return SettledScope("job", f"it is the tokens of a step over {seconds[1]}")
    if _is_near(printed * claim.count, whole):
        words = f"x {claim.count} it is the tokens of a step over {seconds[1]}: {tokens[1]} / {seconds[0]:.4g} s"
        return SettledScope("device", words)
    return SettledScope("unknown")


def _is_near(a: float, b: float) -> bool:
    return abs(math.log(a / b)) <= _SCOPE_AGREEMENT
