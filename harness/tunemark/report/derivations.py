"""How each value of a run was computed: its formula with the stored numbers, precise enough to recompute it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tunemark.number_format import GIB
from tunemark.report.finding_sentences import translate_finding
from tunemark.report.translation import Translate
from tunemark.results import Estimate, Result
from tunemark.results.result import AttemptRow


def format_derivations(r: Result, tr: Translate) -> Mapping[str, str]:
    """Texts by the column's name; unknown values have none."""
    found: dict[str, str] = {}
    tokens = r.tokens
    for name, what, count in (
        ("tokens_per_s", "content tokens (no padding)", tokens.content if tokens else None),
        ("slot_tokens_per_s", "slots (batch x row width)", tokens.slots if tokens else None),
        ("trained_tokens_per_s", "tokens with a label", tokens.trained if tokens else None),
    ):
        estimate = getattr(r, name)
        if estimate is not None:
            found[name] = _rate_derivation(r, estimate, tr(what), count, tr)
    if r.tokens_per_s and r.tokens_per_s_per_chip is not None and r.chips:
        found["tokens_per_s_per_chip"] = tr(
            "{rate} tokens/s / {chips} chips", rate=f"{r.tokens_per_s.value:.6g}", chips=r.chips
        )
    if tokens and r.padding_fraction is not None:
        found["padding_fraction"] = tr(
            "1 - {content:,} content tokens / {slots:,} slots", content=tokens.content, slots=tokens.slots
        )
    for name, flops in (("mfu", r.flops_per_token), ("hfu", r.hardware_flops_per_token)):
        if getattr(r, name) is not None and r.slot_tokens_per_s and r.peak_flops and flops:
            found[name] = tr(
                "{rate} slots/s x {flops} FLOPs per token / {peak} FLOP/s ({source})",
                rate=f"{r.slot_tokens_per_s.value:.6g}",
                flops=f"{flops:.6g}",
                peak=f"{r.peak_flops:.6g}",
                source=r.peak_flops_source or "?",
            )
    if r.energy_per_token_j is not None and r.energy_j is not None and r.tokens:
        found["energy_per_token_j"] = tr(
            "{joules} J / {content:,} content tokens", joules=f"{r.energy_j:.6g}", content=r.tokens.content
        )
    for name, share in (("step_time_p50_s", "50"), ("step_time_p95_s", "95")):
        if r.step_time_s is not None:
            found[name] = tr(
                "the {share}th percentile of seconds per step over the timed windows of all attempts ({steps:,} steps)",
                share=share,
                steps=r.steps_measured,
            )
    if r.peak_memory_bytes is not None:
        found["peak_memory_bytes"] = tr(
            "{bytes:,} bytes / 2^30, the most of any rank and attempt", bytes=r.peak_memory_bytes
        )
    if r.requested_bytes is not None:
        found["requested_bytes"] = tr("{bytes:,} bytes / 2^30, the allocation that failed", bytes=r.requested_bytes)
    if r.available_bytes is not None:
        found["available_bytes"] = f"{r.available_bytes:,} / {GIB:,}"
    if r.interval_s is not None:
        each = " + ".join(f"{a.interval_s:.3f}" for a in _included_attempts(r) if a.interval_s is not None)
        found["interval_s"] = tr("{each} s, between synchronised window edges on the slowest rank", each=each)
    return found


def format_interval_derivation(estimate: Estimate, tr: Translate) -> str:
    """An estimate with its bounds, and on a second line its method."""
    known = estimate.low is not None and estimate.high is not None
    bounds = f" ({estimate.low:.6g} .. {estimate.high:.6g})" if known else ""
    return f"{estimate.value:.6g}{bounds}\n{translate_finding(estimate.method, tr)}, n = {estimate.n}"


def _included_attempts(r: Result) -> Sequence[AttemptRow]:
    """The attempts that the values are computed from: those with status ok, or all if there are none."""
    return [row for row in r.each_attempt if row.status == "ok"] or r.each_attempt


def _rate_derivation(r: Result, estimate: Estimate, what: str, count: int | None, tr: Translate) -> str:
    lines = []
    if count is not None and r.interval_s:
        lines.append(
            tr(
                "{count:,} {what} / {seconds:.3f} s of {steps:,} timed steps = {rate} per second",
                count=count,
                what=what,
                seconds=r.interval_s,
                steps=r.steps_measured,
                rate=f"{count / r.interval_s:.6g}",
            )
        )
    rates = [f"{row.tokens_per_s:.6g}" for row in _included_attempts(r) if row.tokens_per_s is not None]
    if len(rates) > 1 and estimate is r.tokens_per_s:
        lines.append(tr("attempts: {rates}; the value is their geometric mean", rates=", ".join(rates)))
    bounds = (
        tr("no interval")
        if estimate.low is None or estimate.high is None
        else tr("95 % interval {low} to {high}", low=f"{estimate.low:.6g}", high=f"{estimate.high:.6g}")
    )
    lines.append(f"{estimate.value:.6g}: {bounds}, n = {estimate.n} ({translate_finding(estimate.method, tr)})")
    return "\n".join(lines)
