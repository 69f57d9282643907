"""Model FLOPs utilization: which peak it is a share of, and when there is none."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tunemark.plugin.descriptors import Finding
from tunemark.results.result import Estimate, RunIdentity
from tunemark.results.run_rules import check_above_peak
from tunemark.results.stored_attempt import StoredAttempt


def choose_peak_flops(identity: RunIdentity, attempts: Sequence[StoredAttempt]) -> tuple[float | None, str | None]:
    """The accelerator's published peak, else the highest that any attempt measured: a bound, not an average."""
    if identity.peak_flops is not None:
        return identity.peak_flops, identity.peak_flops_source
    best: list[float] = []
    for attempt in attempts:
        flops = [rank.peak.get("flops") if rank.peak else None for rank in attempt.measurement.ranks]
        if flops and all(flops):
            # Ranks measure at the same time, each on its own share of the accelerator.
            best.append(math.fsum(f for f in flops if f))
    return (max(best), "measured") if best else (None, None)


def compute_mfu(
    identity: RunIdentity, slots: Estimate | None, peak_flops: float | None, source: str | None
) -> tuple[float | None, str | None, Finding | None]:
    """MFU, why there is none, and a finding where the rate is above the peak."""
    if slots is None:
        return None, "nothing was timed", None
    if identity.breakdown:
        return None, "a breakdown waits for every part of a step, so its rate is not the run's", None
    if peak_flops is None:
        return None, f"no peak FLOP/s is known of {identity.chip or identity.device} in {identity.precision}", None
    mfu = slots.value * identity.flops_per_token / peak_flops
    finding = check_above_peak(mfu, peak_flops, source == "measured")
    if finding and source == "measured":
        return None, finding.message, finding
    return mfu, None, finding


def compute_hfu(identity: RunIdentity, mfu: float | None) -> float | None:
    """MFU with recomputed FLOPs included; equal to MFU where nothing is recomputed."""
    if mfu is None or identity.hardware_flops_per_token is None:
        return None
    return mfu * identity.hardware_flops_per_token / identity.flops_per_token
