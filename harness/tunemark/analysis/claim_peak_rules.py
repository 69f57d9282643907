"""Claim rules that hold a rate, TFLOP/s or MFU against the chips' peak and against what was ever published."""

from __future__ import annotations

import contextlib
import math

from tunemark.analysis import claim_rates
from tunemark.analysis.claim_figures import claimed_mfu, claimed_tflops
from tunemark.analysis.claim_limits import CONTRADICTION, explain_factor, make_finding
from tunemark.analysis.plausibility import ClaimFacts, sparsest_share
from tunemark.errors import UnknownName
from tunemark.number_format import percent_text
from tunemark.physics import train_flops_by_convention
from tunemark.physics.chip_peaks import PRECISIONS, Peak, find_chip, find_peak
from tunemark.plugin.descriptors import Finding, Severity

# FLOPs of one model by two tools: biases, norms, position embeddings, padded vocabularies and the counting of the head
# change them by up to 13 % in 195 published rows, beyond what the attention convention explains.
FLOPS_AGREEMENT = 0.15
FLOPS_CONTRADICTION = 0.5
# Mixtures of experts of which a table gives the dimensions: shared experts, dense layers and latent attention are in no
# column.
MIXTURE_AGREEMENT = 0.3
# A convention is recognized if it reproduces the figure this closely (log ratio).
_CONVENTION_TOLERANCE = 0.03
# The whole forward pass recomputed: 8 FLOPs per weight instead of 6 (Korthikanti et al. 2022, section 5).
_RECOMPUTE_FACTOR = 4 / 3
# The highest plausible MFU: no publication was found of a dense transformer's training above it.
PLAUSIBLE_MFU = 0.75
# The same including recomputed FLOPs; the highest published is 79 %.
PLAUSIBLE_HFU = 0.9
# MFU limits by chip family and precision width in bits: 1.3 times the highest MFU (causal) of 531 rows published until
# November 2026, which follows each line with its source, and at most PLAUSIBLE_MFU but for chips whose clock passes the
# rated one.
PLAUSIBLE_MFU_BY_CHIP = {
    ("A100", 16): 0.76,  # 0.585: MPT-13B on 8 A100-80GB, llm-foundry, scripts/train/benchmarking/README.md
    ("H100", 16): 0.75,  # 0.609: Qwen2.5-7B on 8 H100, IST-DASLab/llmq, README
    ("RTX", 16): 0.85,  # 0.804: Qwen2.5-3B on one RTX 4090, the same
    ("H100", 8): 0.60,  # 0.465: GPT-3 175B on 512 H100, NVIDIA NeMo 25.02, performance summary
    ("B200", 16): 0.52,  # 0.400: 4 layers of Llama 3 405B on 8 B200, MooreThreads/SimuMax, docs/b200
    ("B200", 8): 0.63,  # 0.481: Llama 3 70B on 64 GB300, NVIDIA Megatron-Bridge, docs/performance-summary
    ("B200", 4): 0.40,  # 0.305: Llama 3.1 405B on 256 GB200, the same
}
_FAMILIES = {"H200": "H100", "GH200": "H100", "GB200": "B200", "B300": "B200", "GB300": "B200"}
# Data sheets round to three digits.
PEAK_ROUNDING = 0.005
_AS_FULL_TRAINING = ", as if all were trained"
_SPARSE = " with sparsity"


def check_rate_above_peak(facts: ClaimFacts) -> Finding | None:
    implied = _min_mfu(facts)
    if implied is None or implied[0] <= 1 + PEAK_ROUNDING:
        return None
    mfu, words = implied
    top = facts.highest_peak
    is_ceiling = top is None or top.is_ceiling
    more = "" if is_ceiling else "; its clock can pass the rated one"
    severity: Severity = "invalid" if is_ceiling else "suspect"
    rate = claim_rates.claimed_rate(facts.claim)
    sequence = facts.claim.sequence or 0
    if rate is not None and rate.is_bound and sequence:
        # Sequences shorter than the longest make less work.
        words += f": {mfu:.2f} times what it can do, if each sequence had {sequence:,} tokens: they have "
        return make_finding("shorter-sequences", "note", f"{words}{sequence / mfu:,.0f} at most, on average")
    if not facts.is_bound and mfu * sparsest_share() <= 1:
        severity = "suspect"
        more += "; a mixture of experts may need less, if its active parameters are stated (--active-params)"
    return make_finding("above-peak", severity, f"{words}: {mfu:.2f} times what it can do{more}")


def check_rate_above_published(facts: ClaimFacts) -> Finding | None:
    implied = _mfu(facts)
    rate = claim_rates.claimed_rate(facts.claim)
    if implied is None or rate is None or rate.is_bound or not facts.is_bound:
        return None
    mfu, words = implied
    limit = _mfu_limit(facts.peak or facts.highest_peak)
    top = facts.peak or facts.highest_peak
    # A chip whose clock passes the rated one can do more than its peak, by a share that nobody states.
    hardware = mfu * (facts.recompute_factor or 1) if top is not None and top.is_ceiling else 0.0
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


def check_flops_above_published(facts: ClaimFacts) -> Finding | None:
    """A claimed MFU or TFLOP/s that no rate can be held to, against what was ever published."""
    mfu, tflops = claimed_mfu(facts.claim), claimed_tflops(facts.claim)
    if facts.flops and claim_rates.claimed_rate(facts.claim) is not None:
        return None
    tops = [facts.peak] if facts.peak else _peaks(facts)
    if mfu is not None:
        share, limit = mfu, max((_mfu_limit(top) for top in tops), default=PLAUSIBLE_MFU)
        words = f"an MFU of {percent_text(mfu)} is claimed"
    elif tflops is not None and (top := max(tops, key=lambda one: one.flops, default=None)) is not None:
        # Recomputed FLOP may be counted.
        share, limit = tflops * 1e12 / top.flops, PLAUSIBLE_HFU if top.is_ceiling else math.inf
        words = f"{tflops:,.4g} TFLOP/s per device is claimed, {_peak_words(facts)}: {percent_text(share)}"
    else:
        return None
    if not limit < share <= 1 + PEAK_ROUNDING:
        return None
    message = f"{words}, more than {percent_text(limit)}, the most that was found published"
    return make_finding("above-seen", "suspect", message)


def check_claimed_flops(facts: ClaimFacts) -> Finding | None:
    """A claimed TFLOP/s or MFU against the rate: finds the convention that reproduces it, if any."""
    claim, stated = facts.claim, claim_rates.claimed_rate(facts.claim)
    if stated is None or not claim.count or not facts.flops:
        return None
    per_device = stated.tokens_per_s / claim.count
    claims = _claimed_flops(facts)
    if not claims:
        return None
    factors = _flops_conventions(facts)
    readings = [
        (of, tflops, name, tflops * 1e12 / (per_device * f)) for of, tflops in claims for name, f in factors.items()
    ]
    of, tflops, name, ratio = min(readings, key=lambda one: _distance(one[3]))
    if stated.is_bound and ratio < 1:
        # Its sequences may be shorter, and the rate lower than this one.
        return None
    difference = _distance(ratio)
    is_mixture = facts.architecture is not None and bool(facts.architecture.num_local_experts)
    agreement = MIXTURE_AGREEMENT if is_mixture and claim.architecture is not None else FLOPS_AGREEMENT
    if difference > agreement:
        # A factor that one of the claim's own numbers explains says more than the nearest convention.
        named = [one for one in readings if explain_factor(facts, one[3])]
        plain = [one for one in named if one[2] in ("causal attention", "full attention")]
        of, tflops, name, ratio = min(plain or named or [(of, tflops, name, ratio)], key=lambda one: _distance(one[3]))
    mfu = claimed_mfu(claim)
    shown = f"{mfu:.4g} MFU" if of != "TFLOP/s" else f"{tflops:,.4g} TFLOP/s per device"
    needed = f"{per_device:,.6g} tokens/s per device x {factors[name] / 1e9:.4g} GFLOP ({name})"
    text = f"{shown} is claimed, {needed} = {per_device * factors[name] / 1e12:,.4g} TFLOP/s"
    if difference <= _CONVENTION_TOLERANCE:
        if name == "causal attention":
            return None
        if name.endswith(_AS_FULL_TRAINING):
            return make_finding("lora-as-full", "suspect", f"{text}: adapters alone were trained")
        return make_finding("convention", "note", f"{text}: the claim counts {name}")
    if of != "TFLOP/s" and any(_distance(2 * one[3]) <= _CONVENTION_TOLERANCE for one in readings if one[0] == of):
        more = "" if facts.peak else ", or of half the precision (--precision)"
        return make_finding("sparse-peak", "suspect", f"{text}: half of it, as against a peak with sparsity{more}")
    if difference <= agreement:
        within = percent_text(_CONVENTION_TOLERANCE)
        return make_finding("convention", "note", f"{text}: no convention known here reproduces it within {within}")
    message = f"{text}: a factor of {ratio:.3g} that no convention explains{explain_factor(facts, ratio)}"
    return make_finding("flops-and-rate", "invalid" if difference > FLOPS_CONTRADICTION else "suspect", message)


def check_least_flops(facts: ClaimFacts) -> Finding | None:
    """A claimed TFLOP/s or MFU below what the rate needs at the very least; needs no sequence length."""
    claim, stated, top = facts.claim, claim_rates.claimed_rate(facts.claim), facts.highest_peak
    if stated is None or stated.is_bound or not claim.count or facts.flops or not facts.min_flops or not facts.is_bound:
        return None
    tflops, mfu = claimed_tflops(claim), claimed_mfu(claim)
    if tflops is None:
        # Of the highest peak, which makes most of it.
        tflops = mfu * top.flops / 1e12 if mfu is not None and top is not None else None
    if not tflops:
        return None
    needed = stated.tokens_per_s / claim.count * facts.min_flops / 1e12
    ratio = tflops / needed
    if ratio >= 1 or _distance(ratio) <= FLOPS_AGREEMENT:
        return None
    shown = f"{tflops:,.4g} TFLOP/s per device" if mfu is None else f"an MFU of {percent_text(mfu)}"
    message = f"{shown} is claimed, and {stated.tokens_per_s / claim.count:,.6g} tokens/s per device x "
    message += f"{facts.min_flops / 1e9:.4g} GFLOP (without attention) = {needed:,.4g} TFLOP/s at least: "
    message += f"a factor of {ratio:.3g}{explain_factor(facts, ratio)}"
    # An MFU of the peak with sparsity is half of what it is.
    worst = FLOPS_CONTRADICTION + (math.log(2) if mfu is not None else 0.0)
    return make_finding("flops-and-rate", "invalid" if _distance(ratio) > worst else "suspect", message)


def _distance(ratio: float) -> float:
    return abs(math.log(ratio)) if ratio > 0 else math.inf


def _claimed_flops(facts: ClaimFacts) -> list[tuple[str, float]]:
    """What is claimed, in TFLOP/s per device: as such, or as an MFU of the peak."""
    tflops, mfu = claimed_tflops(facts.claim), claimed_mfu(facts.claim)
    if tflops is not None:
        return [("TFLOP/s", tflops)]
    if mfu is None:
        return []
    top = facts.usual_peak
    return [] if top is None else [(f"MFU of {top.precision}", mfu * top.flops / 1e12)]


def _peaks(facts: ClaimFacts) -> list[Peak]:
    """Every peak of the claim's device."""
    if facts.peak is not None and facts.peak.source == "--peak-flops":
        return [facts.peak]
    device = facts.claim.device
    return [p for name in PRECISIONS if (p := find_peak(device, name)) is not None] if device else []


def _flops_conventions(facts: ClaimFacts) -> dict[str, float]:
    """FLOP per token by each convention that published figures follow."""
    claim = facts.claim
    factors = {"causal attention": facts.flops["causal"], "full attention": facts.flops["full"]}
    if claim.layout.checkpointing != "none":
        factors |= {f"{name}, recomputation counted": f * _RECOMPUTE_FACTOR for name, f in list(factors.items())}
    if claim.method == "lora" and facts.architecture is not None and claim.sequence is not None:
        whole = train_flops_by_convention(facts.architecture, claim.sequence)
        factors |= {f"{name} attention{_AS_FULL_TRAINING}": f for name, f in whole.items()}
    return factors


def check_flops_and_mfu(facts: ClaimFacts) -> Finding | None:
    """A claimed TFLOP/s beside a claimed MFU: their ratio is the peak that was assumed. Needs no model."""
    tflops, mfu = claimed_tflops(facts.claim), claimed_mfu(facts.claim)
    peaks = [facts.peak] if facts.peak else _peaks(facts)
    if not tflops or not mfu or not peaks or tflops <= 0 or mfu <= 0:
        return None
    assumed = tflops / mfu
    known = {f"{p.chip}, {p.precision}": p.flops / 1e12 for p in peaks}
    known |= {f"{p.chip}, {p.precision}{_SPARSE}": p.sparse_flops / 1e12 for p in peaks if p.sparse_flops}
    # Recomputation may be counted in one of the two alone.
    ratios = [(name, assumed / flops / by) for name, flops in known.items() for by in (1.0, _RECOMPUTE_FACTOR)]
    nearest, ratio = min(ratios, key=lambda one: _distance(one[1]))
    if _distance(ratio) <= math.log(1 + CONTRADICTION):
        dense = [one for name, one in ratios if not name.endswith(_SPARSE)]
        if not nearest.endswith(_SPARSE) or any(_distance(one) <= math.log(1 + CONTRADICTION) for one in dense):
            return None
        message = f"{tflops:,.4g} TFLOP/s at {percent_text(mfu)} MFU means a peak of {assumed:,.4g} TFLOP/s, as of "
        message += f"{nearest}, which no training uses; of the dense peak it is "
        message += percent_text(tflops / known[nearest.removesuffix(_SPARSE)])
        return make_finding("sparse-peak", "suspect", message)
    least, most = min(known.values()), max(known.values())
    shown = f"{least:,.4g}" if least == most else f"{least:,.4g} to {most:,.4g}"
    message = f"{tflops:,.4g} TFLOP/s at {percent_text(mfu)} MFU means a peak of {assumed:,.4g} TFLOP/s, and "
    message += f"{peaks[0].chip} has {shown}: a factor of {ratio:.3g}{explain_factor(facts, ratio)}"
    return make_finding("flops-and-mfu", "invalid" if _distance(ratio) > math.log(1.5) else "suspect", message)


def check_size_of_flops(facts: ClaimFacts) -> Finding | None:
    """A claimed TFLOP/s over the rate is the work of a token, which tells the model's size where it is unknown."""
    claim, stated, tflops = facts.claim, claim_rates.claimed_rate(facts.claim), claimed_tflops(facts.claim)
    if stated is None or stated.is_bound or not tflops or not claim.count or facts.flops:
        return None
    work = tflops * 1e12 * claim.count / stated.tokens_per_s
    size = work / 6
    text = f"{tflops:,.4g} TFLOP/s per device over {stated.tokens_per_s / claim.count:,.6g} tokens/s per device are "
    text += f"{work / 1e9:,.4g} GFLOP a token, the work of {size / 1e9:,.4g} billion parameters"
    if size < 1e6:
        return make_finding("size-and-flops", "invalid", f"{text}: no language model is that small")
    parameters = claim.active_parameters or claim.parameters
    if parameters is None or facts.architecture is not None:
        return None
    ratio = size / parameters
    # Adapters need 4 FLOP per parameter, recomputation 8, attention adds; a mixture of experts needs less.
    if 0.5 <= ratio <= 2 or (ratio < 0.5 and claim.active_parameters is None and ratio >= sparsest_share()):
        return None
    message = (
        f"{text}, and it is said to have {parameters / 1e9:,.4g}: a factor of {ratio:.3g}{explain_factor(facts, ratio)}"
    )
    return make_finding("size-and-flops", "suspect", message)


def check_memory(facts: ClaimFacts) -> Finding | None:
    """Stated memory against that of the device."""
    claim = facts.claim
    if claim.memory_bytes is None or claim.device is None:
        return None
    with contextlib.suppress(UnknownName):
        chip = find_chip(claim.device)
        if chip.memory_bytes and claim.memory_bytes > 1.05 * chip.memory_bytes:
            message = f"{claim.memory_bytes / 2**30:,.4g} GiB are stated per device, and {chip.name} has "
            return make_finding("memory-above-chip", "invalid", f"{message}{chip.memory_bytes / 2**30:,.4g}")
    return None


def check_flops_above_peak(facts: ClaimFacts) -> Finding | None:
    """A claimed TFLOP/s or MFU against the peak; needs no model."""
    mfu = claimed_mfu(facts.claim)
    if mfu is not None and mfu > 1:
        return make_finding(
            "above-peak", "invalid", f"an MFU of {percent_text(mfu)} is claimed, and 100 % is all there is"
        )
    top, tflops = facts.peak or facts.highest_peak, claimed_tflops(facts.claim)
    if tflops is None or top is None:
        return None
    share = tflops * 1e12 / top.flops
    if share <= 1 + PEAK_ROUNDING:
        return None
    message = f"{tflops:,.4g} TFLOP/s per device is claimed, {_peak_words(facts)}: {percent_text(share)}"
    return make_finding("above-peak", "invalid" if top.is_ceiling else "suspect", message)


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


def _mfu_limit(top: Peak | None) -> float:
    if top is None:
        return PLAUSIBLE_MFU
    family, width = top.chip.replace("-", " ").split()[0], int("".join(filter(str.isdigit, top.precision)) or 32)
    return PLAUSIBLE_MFU_BY_CHIP.get((_FAMILIES.get(family, family), width), PLAUSIBLE_MFU)
