"""Whether a result's own figures agree: rates with tokens and seconds, tokens with steps, MFU with rates.

A result that was derived from records agrees by construction. One that was read from a report is somebody's words.
"""

from __future__ import annotations

from collections.abc import Iterator

from tunemark.number_format import percent_text
from tunemark.plugin.descriptors import Finding
from tunemark.results.result import Result

# The rate of several attempts is a mean of their logarithms and lies between them; else only rounding differs.
_TOLERANCE = 0.02


def check_row(result: Result) -> list[Finding]:
    """A finding if figures of a result contradict each other, or if none of them can confirm its rate."""
    findings = []
    if found := list(_find_contradictions(result)):
        message = f"its own figures contradict each other: {'; '.join(found)}"
        findings.append(Finding(rule="row-disagrees", severity="invalid", message=message))
    attempts = [row for row in result.each_attempt if row.tokens_per_s is not None]
    if result.tokens_per_s is not None and not attempts and not (result.tokens and result.interval_s):
        message = "it has neither tokens and seconds nor the rates of its attempts, so nothing confirms its rate"
        findings.append(Finding(rule="row-unconfirmed", severity="unknown", message=message))
    return findings


def _find_contradictions(r: Result) -> Iterator[str]:
    sequences = r.micro_batch * r.gradient_accumulation * r.data_ranks
    if sequences != r.global_batch:
        yield f"a global batch of {r.global_batch:,}, and {sequences:,} sequences in its micro-batches"
    most = r.steps_measured * r.global_batch * r.sequence
    if r.tokens is not None and r.batching != "bucket" and r.tokens.slots != most:
        yield f"{r.tokens.slots:,} slots in {r.steps_measured} steps of {r.global_batch * r.sequence:,}"
    if r.tokens is not None and r.batching == "bucket" and not r.tokens.content <= r.tokens.slots <= most:
        yield f"{r.tokens.slots:,} slots for {r.tokens.content:,} tokens, in steps with {most:,} at most"
    rates = [row.tokens_per_s for row in r.each_attempt if row.tokens_per_s is not None]
    if r.tokens_per_s is not None and r.tokens is not None and r.interval_s:
        overall = r.tokens.content / r.interval_s
        low, high = min([overall, *rates]), max([overall, *rates])
        for name, value in (("tokens/s", r.tokens_per_s.value), ("all tokens over all seconds", overall)):
            used = rates or [overall]
            if not min(used) * (1 - _TOLERANCE) <= value <= max(used) * (1 + _TOLERANCE):
                yield f"{name} are {value:.4g}, its attempts have {low:.4g} to {high:.4g}"
    for name, estimate, tokens in (
        ("slots", r.slot_tokens_per_s, r.tokens.slots if r.tokens else None),
        ("trained tokens", r.trained_tokens_per_s, r.tokens.trained if r.tokens else None),
    ):
        if estimate is None or r.tokens_per_s is None or not tokens or r.tokens is None or not r.tokens_per_s.value:
            continue
        said, counted = estimate.value / r.tokens_per_s.value, tokens / max(r.tokens.content, 1)
        if _differ(said, counted):
            yield f"{said:.4g} {name}/s for each token/s, {counted:.4g} {name} for each token"
    rate, chips = r.tokens_per_s, r.chips
    if rate is not None and chips and r.tokens_per_s_per_chip and _differ(r.tokens_per_s_per_chip * chips, rate.value):
        yield f"{r.tokens_per_s_per_chip:.4g} tokens/s for each of {chips} chips, {rate.value:.4g} in all"
    if r.mfu is not None and r.slot_tokens_per_s is not None and r.peak_flops:
        mfu = r.slot_tokens_per_s.value * r.flops_per_token / r.peak_flops
        if _differ(r.mfu, mfu):
            yield f"an MFU of {percent_text(r.mfu)}, the rate needs {percent_text(mfu)} of the peak"


def _differ(one: float, other: float) -> bool:
    return abs(one - other) > _TOLERANCE * max(abs(one), abs(other))
