"""When two figures of a claim agree, and what explains a factor between them."""

from __future__ import annotations

from tunemark.analysis.plausibility import ClaimFacts
from tunemark.number_format import percent_text
from tunemark.plugin.descriptors import Finding, Severity

# Two figures that were both rounded to three digits differ by 1 % at most; 2 % leaves room for a mean and a median.
AGREEMENT = 0.02
# Beyond this neither rounding nor another choice of steps or clock explains a difference of two figures for one rate.
CONTRADICTION = 0.10
# A pause between two lines (evaluation, a checkpoint) is not a step, so medians over consecutive lines are used.
MIN_LINES = 3
# Padding is rarely more than half of all slots.
LEAST_CONTENT = 0.53


def make_finding(rule: str, severity: Severity, message: str) -> Finding:
    """A finding of a claim rule."""
    return Finding(rule=rule, severity=severity, message=message)


def explain_factor(facts: ClaimFacts, ratio: float) -> str:
    """Words for the stated numbers, if any, that equal the factor or its inverse."""
    claim, layout = facts.claim, facts.claim.layout
    numbers = {
        "the count of devices": claim.count, "the gradient accumulation": layout.gradient_accumulation,
        "the data-parallel degree": layout.dp, "the tensor-parallel degree": layout.tp,
        "the pipeline degree": layout.pp, "the context-parallel degree": layout.cp,
        "the micro-batch": layout.micro_batch, "the sequence length": claim.sequence,
        "the global batch": layout.global_batch, "a thousand (s and ms)": 1000,
        "devices x gradient accumulation": (claim.count or 0) * (layout.gradient_accumulation or 0),
        "the experts": facts.architecture.num_local_experts if facts.architecture else None,
        "the experts of a token": facts.architecture.num_experts_per_tok if facts.architecture else None,
        "the dies of a package": dies_per_package(facts),
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


def usual_causes(facts: ClaimFacts, ratio: float) -> str:
    """Words for what usually makes a rate too low by such a factor, where no stated number explains it."""
    if ratio > 1 - CONTRADICTION or explain_factor(facts, ratio):
        return ""
    whole = round(1 / ratio)
    causes = [
        "the accumulation" if whole > 1 and abs(whole * ratio - 1) < AGREEMENT else "",
        "devices" if whole > 1 and abs(whole * ratio - 1) < AGREEMENT else "",
        "experts" if facts.architecture and facts.architecture.num_local_experts else "",
        f"padding ({percent_text(1 - ratio)} of the slots)" if ratio > LEAST_CONTENT else "",
    ]
    named = [cause for cause in causes if cause] or ["steps of a window, devices or micro-batches"]
    return f"; what is left out may be {' or '.join(named)}"


def factor_text(ratio: float) -> str:
    """A factor between two figures, in words that show the direction."""
    return f"a factor of {ratio:.4g}" + (f", {1 / ratio:.4g} times too low" if ratio < 0.9 else "")


def dies_per_package(facts: ClaimFacts) -> int:
    """The dies of one package of the claim's device; 1 if unknown."""
    top = facts.peak or facts.highest_peak
    return top.dies if top else 1


def too_low(facts: ClaimFacts, ratio: float, explained: str) -> Severity | None:
    """How grave it is that a rate is lower than another by `ratio`, below 1; explained: what the factor is.

    Slots can differ by rounding alone. What else is counted may be less than all slots: padding is rarely more than
    half, and trained tokens may be any share. A stated share of padding that makes the difference explains it.
    """
    share = facts.claim.padding_fraction
    if share and abs(ratio / (1 - share) - 1) < AGREEMENT and facts.claim.counts != "slots":
        return None
    if facts.claim.counts == "slots":
        return "invalid" if 1 - ratio > CONTRADICTION else "suspect"
    if facts.claim.counts is None:
        if ratio > 1 - CONTRADICTION:
            return None
        return "invalid" if explained and ratio < LEAST_CONTENT else "suspect"
    return "suspect" if facts.claim.counts == "content" and explained and ratio < 0.3 else None
