"""Of what figures are whose names do not say it: the job's or each device's, as the model's FLOPs and the peak show."""

from __future__ import annotations

import math
from dataclasses import replace

from tunemark.analysis.claim_figures import claimed_mfu, claimed_tflops, printed_median, settle_scope
from tunemark.analysis.plausibility import ClaimFacts
from tunemark.plugin.claims import Claim

# Conventions of FLOPs differ by less, the job's rate and each device's by the count, 2 or more.
_NEAR = 0.15
# As `above-peak` allows for data sheets that are rounded.
_ABOVE = 1.005


def settle_by_flops(facts: ClaimFacts) -> ClaimFacts:
    """The facts with the scope of printed TFLOP/s and of the printed rate, where only the FLOPs show them."""
    if not facts.claim.count or facts.claim.count < 2:
        return facts
    return _settle_rate(_settle_tflops(facts))


def _settle_tflops(facts: ClaimFacts) -> ClaimFacts:
    claim, top = facts.claim, facts.highest_peak
    printed = printed_median(claim, "tflops")
    if claim.flops_scope != "unknown" or top is None or printed is None or not claim.count:
        return facts
    if not top.flops / 1e12 * _ABOVE < printed <= top.flops / 1e12 * claim.count:
        return facts
    note = f"{printed:,.6g} TFLOP/s are more than one device can do: they are read as those of all {claim.count}"
    return _with_claim(facts, replace(claim, flops_scope="job"), note)


def _settle_rate(facts: ClaimFacts) -> ClaimFacts:
    claim, top = facts.claim, facts.usual_peak
    printed = printed_median(claim, "tokens_per_s")
    if not printed or not printed > 0 or not facts.flops or not claim.count or settle_scope(claim).scope != "unknown":
        return facts
    tflops, mfu = claimed_tflops(claim), claimed_mfu(claim)
    done = tflops * 1e12 if tflops else mfu * top.flops if mfu and top is not None else None
    if not done or not 0 < done < math.inf:
        return facts
    name, words = claim.rate_name or "its rate", "TFLOP/s" if tflops else "MFU"
    for scope, share in (("device", 1), ("job", claim.count)):
        if any(abs(math.log(printed / share * flops / done)) <= _NEAR for flops in facts.flops.values()):
            of = "each device" if scope == "device" else "the job"
            note = f"{name!r} does not say of what it is; its {words} beside it shows that it is of {of}"
            return _with_claim(facts, replace(claim, scope="device" if scope == "device" else "job"), note)
    return facts


def _with_claim(facts: ClaimFacts, claim: Claim, note: str) -> ClaimFacts:
    return replace(facts, claim=replace(claim, notes=(*claim.notes, note)))
