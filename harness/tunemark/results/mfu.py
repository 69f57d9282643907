"""Model FLOPs utilization: which peak it is a share of, and when there is none."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import msgspec

from tunemark.physics import SlotFlops
from tunemark.plugin.descriptors import Finding
from tunemark.results.result import Estimate, Result, RunIdentity
from tunemark.results.run_rules import check_above_peak
from tunemark.results.stored_attempt import StoredAttempt
from tunemark.results.timed_part import TimedPart

# Peaks that runs of one accelerator measured further apart than this are worth a note.
_PEAKS_VARY = 0.1


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


def weigh_flops(
    identity: RunIdentity, timed: Sequence[tuple[StoredAttempt, TimedPart]]
) -> tuple[RunIdentity, str | None]:
    """The identity with the FLOPs of a slot as the timed steps' rows have them, and why they are unknown.

    Rows of different widths have different attention: the mean over the timed slots, each counted at its row's width.
    """
    if identity.batching != "bucket" or not timed:
        return identity, None
    weights: Counter[int] = Counter()
    for attempt, part in timed:
        for rank in attempt.measurement.data_ranks:
            # All micro-batches have the same number of rows.
            for step in rank.steps[part.first : part.last]:
                weights.update({width: width * count for width, count in Counter(step.widths).items()})
    table = timed[-1][0].facts.get("flops_by_width") or {}
    unknown = [width for width in weights if str(width) not in table]
    if unknown or not weights:
        return identity, f"the FLOPs of rows of {unknown[0] if unknown else 'unrecorded'} slots are not stored"
    flops = [SlotFlops(*map(float, table[str(width)])) for width in weights]
    means = SlotFlops(
        *(math.fsum(f * n for f, n in zip(column, weights.values(), strict=True)) / weights.total()
          for column in zip(*flops, strict=True))
    )  # fmt: skip
    return msgspec.structs.replace(
        identity,
        flops_per_token=means.model,
        flops_per_token_full_attention=means.full_attention,
        hardware_flops_per_token=means.hardware,
    ), None


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


def share_measured_peaks(results: Sequence[Result]) -> list[Result]:
    """The results with MFU and HFU as shares of one peak wherever the accelerator, its threads and the precision are
    the same: the highest that any of these runs measured, since a measured peak is a bound from below."""
    best: dict[tuple[object, ...], tuple[float, float]] = {}
    for result in results:
        if result.peak_flops is not None and result.peak_flops_source == "measured":
            low, high = best.get(_accelerator_key(result), (math.inf, 0.0))
            best[_accelerator_key(result)] = (min(low, result.peak_flops), max(high, result.peak_flops))
    return [_with_peak(result, *best.get(_accelerator_key(result), (0.0, 0.0))) for result in results]


def _accelerator_key(result: Result) -> tuple[object, ...]:
    worker, host = result.environment.get("worker") or {}, result.environment.get("host") or {}
    machine = worker.get("node") or host.get("name"), worker.get("processor") or host.get("processor")
    return (*machine, result.device, result.size, result.chip, result.chips, result.precision,
            result.processes * result.threads)  # fmt: skip


def _with_peak(result: Result, lowest: float, peak: float) -> Result:
    if result.peak_flops is None or result.peak_flops_source != "measured":
        return result
    findings = result.findings
    if peak > lowest * (1 + _PEAKS_VARY) and not any(f.rule == "peaks-vary" for f in findings):
        message = f"the peak of this accelerator was measured between {lowest / 1e12:.3g} and {peak / 1e12:.3g} "
        message += "TFLOP/s; every MFU is a share of the highest"
        findings = (*findings, Finding(rule="peaks-vary", severity="note", message=message))
    if peak <= result.peak_flops:
        return msgspec.structs.replace(result, findings=findings)
    scale = result.peak_flops / peak
    return msgspec.structs.replace(
        result,
        findings=findings,
        peak_flops=peak,
        mfu=None if result.mfu is None else result.mfu * scale,
        hfu=None if result.hfu is None else result.hfu * scale,
    )


def compute_hfu(identity: RunIdentity, mfu: float | None) -> float | None:
    """MFU with recomputed FLOPs included; equal to MFU where nothing is recomputed."""
    if mfu is None or identity.hardware_flops_per_token is None:
        return None
    return mfu * identity.hardware_flops_per_token / identity.flops_per_token
