"""Claim rules that hold a rate, TFLOP/s or MFU against the chips' peak and against what was ever published."""

from __future__ import annotations

import math
import statistics

from tunemark.analysis import claim_rates
from tunemark.analysis.claim_limits import explain_factor, make_finding
from tunemark.analysis.plausibility import ClaimFacts
from tunemark.number_format import percent_text
from tunemark.physics import train_flops_by_convention
from tunemark.plugin.descriptors import Finding

# FLOPs of one model by two tools: biases, norms, position embeddings, padded vocabularies and the counting of the head
# change them by up to 13 % in 195 published rows, beyond what the attention convention explains.
FLOPS_AGREEMENT = 0.15
FLOPS_CONTRADICTION = 0.5
# A convention is recognized if it reproduces the figure this closely (log ratio).
_CONVENTION_TOLERANCE = 0.03
# The whole forward pass recomputed: 8 FLOPs per weight instead of 6 (Korthikanti et al. 2022, section 5).
_RECOMPUTE_FACTOR = 4 / 3
# The highest plausible MFU: no publication was found of a dense transformer's training above it.
PLAUSIBLE_MFU = 0.75
# The same including recomputed FLOPs; the highest published is 79 %.
PLAUSIBLE_HFU = 0.9
# MFU limits by chip family and precision width in bits: 1.3 times the highest MFU (causal) of 375 rows published until
# November 2026, which follows each line with its source.
PLAUSIBLE_MFU_BY_CHIP = {
    ("A100", 16): 0.76,  # 0.585: MPT-13B on 8 A100-80GB, llm-foundry, scripts/train/benchmarking/README.md
    ("H100", 16): 0.58,  # 0.447: MPT-7B on 8 H100-80GB, the same
    ("H100", 8): 0.60,  # 0.465: GPT-3 175B on 512 H100, NVIDIA NeMo 25.02, performance summary
    ("B200", 16): 0.52,  # 0.400: 4 layers of Llama 3 405B on 8 B200, MooreThreads/SimuMax, docs/b200
    ("B200", 8): 0.63,  # 0.481: Llama 3 70B on 64 GB300, NVIDIA Megatron-Bridge, docs/performance-summary
    ("B200", 4): 0.40,  # 0.305: Llama 3.1 405B on 256 GB200, the same
}
_FAMILIES = {"H200": "H100", "GH200": "H100", "GB200": "B200", "B300": "B200", "GB300": "B200"}
# Data sheets round to three digits.
PEAK_ROUNDING = 0.005
_AS_FULL_TRAINING = ", as if all were trained"


def check_rate_above_peak(facts: ClaimFacts) -> Finding | None:
    implied = _min_mfu(facts)
    if implied is None or implied[0] <= 1 + PEAK_ROUNDING:
        return None
    mfu, words = implied
    top = facts.highest_peak
    is_ceiling = top is None or top.is_ceiling
    more = "" if is_ceiling else "; its clock can pass the rated one"
    return make_finding(
        "above-peak", "invalid" if is_ceiling else "suspect", f"{words}: {mfu:.2f} times what it can do{more}"
    )


def check_rate_above_published(facts: ClaimFacts) -> Finding | None:
    implied = _mfu(facts)
    if implied is None:
        return None
    mfu, words = implied
    limit = _mfu_limit(facts)
    hardware = mfu * (facts.recompute_factor or 1)
    if mfu <= limit and hardware <= PLAUSIBLE_HFU:
        return None
    least = _min_mfu(facts)
    if least is not None and least[0] > 1 + PEAK_ROUNDING:
        return None
    shown = f"{percent_text(mfu)} of peak"
    if mfu <= limit:
        shown, limit = f"{shown}, {percent_text(hardware)} with what is computed twice", PLAUSIBLE_HFU
    message = f"{words}: {shown}, more than {percent_text(limit)}, the most that was found published"
    return make_finding("above-seen", "suspect", message)


def check_claimed_flops(facts: ClaimFacts) -> Finding | None:
    """A claimed TFLOP/s or MFU against the rate: finds the convention that reproduces it, if any."""
    claim, stated = facts.claim, claim_rates.claimed_rate(facts.claim)
    tflops, of = claimed_tflops(facts), "TFLOP/s"
    if tflops is None and claim.mfu is not None and facts.peak is not None:
        tflops, of = claim.mfu * facts.peak.flops / 1e12, "MFU"
    if tflops is None or stated is None or not claim.count or not facts.flops:
        return None
    per_device = stated.tokens_per_s / claim.count
    factors = {"causal attention": facts.flops["causal"], "full attention": facts.flops["full"]}
    if claim.layout.checkpointing != "none":
        factors |= {f"{name}, recomputation counted": f * _RECOMPUTE_FACTOR for name, f in list(factors.items())}
    if claim.method == "lora" and facts.architecture is not None and claim.sequence is not None:
        whole = train_flops_by_convention(facts.architecture, claim.sequence)
        factors |= {f"{name} attention{_AS_FULL_TRAINING}": f for name, f in whole.items()}
    ratios = {name: tflops * 1e12 / (per_device * f) for name, f in factors.items()}
    name, ratio = min(ratios.items(), key=lambda item: abs(math.log(item[1])) if item[1] > 0 else math.inf)
    shown = f"{claim.mfu:.4g} MFU" if of == "MFU" else f"{tflops:,.4g} TFLOP/s per device"
    needed = f"{per_device:,.6g} tokens/s per device x {factors[name] / 1e9:.4g} GFLOP ({name})"
    text = f"{shown} is claimed, {needed} = {per_device * factors[name] / 1e12:,.4g} TFLOP/s"
    difference = abs(math.log(ratio)) if ratio > 0 else math.inf
    if difference <= _CONVENTION_TOLERANCE:
        if name == "causal attention":
            return None
        if name.endswith(_AS_FULL_TRAINING):
            return make_finding("lora-as-full", "suspect", f"{text}: adapters alone were trained")
        return make_finding("convention", "note", f"{text}: the claim counts {name}")
    if of == "MFU" and abs(math.log(2 * ratio)) <= _CONVENTION_TOLERANCE:
        return make_finding("sparse-peak", "suspect", f"{text}: half of it, as against a peak with sparsity")
    if difference <= FLOPS_AGREEMENT:
        within = percent_text(_CONVENTION_TOLERANCE)
        return make_finding("convention", "note", f"{text}: no convention known here reproduces it within {within}")
    message = f"{text}: a factor of {ratio:.3g} that no convention explains{explain_factor(facts, ratio)}"
    return make_finding("flops-and-rate", "invalid" if difference > FLOPS_CONTRADICTION else "suspect", message)


def check_flops_above_peak(facts: ClaimFacts) -> Finding | None:
    """A claimed TFLOP/s or MFU against the peak; needs no model."""
    claim = facts.claim
    if claim.mfu is not None and claim.mfu > 1:
        return make_finding(
            "above-peak", "invalid", f"an MFU of {percent_text(claim.mfu)} is claimed, and 100 % is all there is"
        )
    top, tflops = facts.peak or facts.highest_peak, claimed_tflops(facts)
    if tflops is None or top is None:
        return None
    share = tflops * 1e12 / top.flops
    if share <= 1 + PEAK_ROUNDING:
        return None
    message = f"{tflops:,.4g} TFLOP/s per device is claimed, {_peak_words(facts)}: {percent_text(share)}"
    return make_finding("above-peak", "invalid" if top.is_ceiling else "suspect", message)


def claimed_tflops(facts: ClaimFacts) -> float | None:
    """TFLOP/s per device as stated, else the median of a log's printed values after the first."""
    printed = [s.tflops for s in facts.claim.steps if s.tflops is not None and math.isfinite(s.tflops)]
    middle = statistics.median(printed[1:] or printed) if printed else None
    return facts.claim.tflops_per_device if facts.claim.tflops_per_device is not None else middle


def _min_mfu(facts: ClaimFacts) -> tuple[float, str] | None:
    """The lower bound of the share of the highest peak that the rate needs, with its arithmetic."""
    stated, claim = claim_rates.claimed_rate(facts.claim), facts.claim
    if stated is None or facts.min_flops is None or facts.highest_peak is None or not claim.count:
        return None
    share, words = _peak_share(facts, stated, facts.min_flops, facts.highest_peak.flops)
    if claim.method is None:
        words = f"even if adapters alone were trained, {words}"
    return share, words


def _mfu(facts: ClaimFacts) -> tuple[float, str] | None:
    """MFU (causal if the sequence is known) of the stated precision's peak, else the highest, with its arithmetic."""
    stated, claim = claim_rates.claimed_rate(facts.claim), facts.claim
    top = facts.peak or facts.highest_peak
    flops = facts.flops.get("causal") or facts.min_flops
    if stated is None or flops is None or top is None or not claim.count:
        return None
    return _peak_share(facts, stated, flops, top.flops)


def _peak_share(facts: ClaimFacts, stated: claim_rates.ClaimRate, flops: float, peak_flops: float) -> tuple[float, str]:
    count = facts.claim.count or 1
    needed = stated.tokens_per_s * flops / count
    words = f"{stated.tokens_per_s:,.6g} tokens/s x {flops / 1e9:.4g} GFLOP / {count} = {needed / 1e12:,.4g} TFLOP/s, "
    return needed / peak_flops, words + _peak_words(facts)


def _peak_words(facts: ClaimFacts) -> str:
    top = facts.peak or facts.highest_peak
    assert top is not None, "called only if a peak is known"
    return f"{top.chip} has {top.flops / 1e12:,.4g} in {top.precision}, dense"


def _mfu_limit(facts: ClaimFacts) -> float:
    top = facts.peak or facts.highest_peak
    if top is None:
        return PLAUSIBLE_MFU
    family, width = top.chip.split("-")[0].split()[0], int("".join(filter(str.isdigit, top.precision)) or 32)
    return PLAUSIBLE_MFU_BY_CHIP.get((_FAMILIES.get(family, family), width), PLAUSIBLE_MFU)
