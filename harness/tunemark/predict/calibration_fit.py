"""Fit the cost model's constants of one machine to measured kernels and whole steps."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tunemark.plugin.hardware import DeviceFacts
from tunemark.predict.calibration import (
    MIN_RESIDUAL,
    ParallelismCost,
    ProbeResult,
    count_mechanism_units,
    predict_calibrated,
)
from tunemark.predict.cost_model import predict
from tunemark.predict.layout import RankLayout, Workload
from tunemark.predict.matrix_products import matmul_seconds

# Standard deviation of measurement noise in the logarithm of a step time.
_NOISE = 0.05
# Prior standard deviation of each constant's logarithm around what its kernel measured. `host_s` is wide because an
# operation in a model's modules takes several times as long to launch as one in a loop.
_PRIOR_SPREADS: Mapping[str, float] = {
    "gemm": 0.3, "gemm_tile": 0.7, "attention": 0.7, "memory": 0.5, "host_s": 2.0, "step_s": 1.0, "optimizer": 0.5,
}  # fmt: skip
_MAX_ITERATIONS = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeStep:
    """A measured whole step of a small model. mechanisms: kinds of parallelism in it; empty where each rank works by
    itself."""

    name: str
    work: Workload
    layout: RankLayout
    mechanisms: tuple[str, ...]
    measured_s: float


def make_facts_from_kernels(records: Sequence[Mapping[str, Any]], base: DeviceFacts) -> DeviceFacts:
    """Facts of the machine from its kernels alone; what was not measured stays as in `base`."""
    peaks: dict[str, float] = {}
    for r in _select_records(records, "product"):
        name = "fp32" if r["precision"] == "fp32" else "bf16"
        peaks[name] = max(peaks.get(name, 0.0), 2.0 * r["m"] * r["k"] * r["n"] / r["seconds"])
    streams = [r["bytes"] / r["seconds"] for r in _select_records(records, "stream")]
    facts = replace(
        base,
        peak_flops={**base.peak_flops, **peaks},
        bandwidth_bytes_per_s=streams[-1] if streams else base.bandwidth_bytes_per_s,
    )
    e = replace(
        base.efficiency,
        gemm={**base.efficiency.gemm, **dict.fromkeys(peaks, 1.0)},
        memory=1.0 if streams else base.efficiency.memory,
    )
    e = replace(e, gemm_tile=_fit_tile(_select_records(records, "product"), facts))
    shares = [_attention_share(r, facts) for r in _select_records(records, "attention")]
    if shares:
        e = replace(e, attention=statistics.median(shares), attention_portable=1.0)
    launches = [r["seconds"] for r in _select_records(records, "launch")]
    if launches:
        e = replace(e, host_s=launches[0])
    for r in _select_records(records, "optimizer"):
        # The cost model counts 34 bytes of traffic a parameter for norm and update.
        e = replace(e, optimizer=r["seconds"] * facts.bandwidth_bytes_per_s / (34.0 * r["parameters"]))
    collectives = [r for kind in ("all_gather", "reduce_scatter", "all_reduce") for r in _select_records(records, kind)]
    if collectives:
        rate, latency = _fit_link(collectives)
        e = replace(e, intra=1.0)
        facts = replace(facts, intra_bytes_per_s=rate, intra_s=latency)
    return replace(facts, efficiency=e, source="measured on this machine", is_published=False)


def fit_calibration(
    facts: DeviceFacts, steps: Sequence[ProbeStep]
) -> tuple[DeviceFacts, dict[str, ParallelismCost], tuple[ProbeResult, ...]]:
    """Facts with constants corrected by whole steps, the cost of each mechanism, and the prediction of every probe."""
    alone = [step for step in steps if not step.mechanisms]
    if alone:
        facts = _fit_constants(facts, alone)
    mechanisms: dict[str, ParallelismCost] = {}
    for name in dict.fromkeys(name for step in steps for name in step.mechanisms):
        own = [step for step in steps if step.mechanisms == (name,)]
        if own:
            mechanisms[name] = _fit_mechanism(name, facts, own)
    probes = []
    for step in steps:
        found = predict_calibrated(step.work, step.layout, facts, mechanisms)
        probes.append(ProbeResult(name=step.name, measured_s=step.measured_s, predicted_s=found.step_time_s))
    return replace(facts, residual=compute_residual(probes)), mechanisms, tuple(probes)


def compute_residual(probes: Sequence[ProbeResult]) -> float:
    """Root mean square of the logarithms of measured over predicted."""
    if not probes:
        return 0.2
    errors = [math.log(p.measured_s / p.predicted_s) for p in probes]
    return max(MIN_RESIDUAL, math.sqrt(statistics.fmean(e * e for e in errors)))


def _fit_constants(facts: DeviceFacts, steps: Sequence[ProbeStep]) -> DeviceFacts:
    """Gauss-Newton iterations on logarithms of the constants, with a prior at what the kernels measured."""
    import numpy as np  # heavy, and needed here alone

    names = list(_PRIOR_SPREADS)
    spreads = np.array([_PRIOR_SPREADS[name] for name in names])
    measured = np.array([math.log(step.measured_s) for step in steps])

    def predicted(moved: Any) -> Any:
        here = _scale_constants(facts, dict(zip(names, moved, strict=True)))
        return np.array([math.log(predict(s.work, s.layout, here).step_time_s) for s in steps])

    at = np.zeros(len(names))
    for _ in range(_MAX_ITERATIONS):
        base = predicted(at)
        slopes = np.empty((len(steps), len(names)))
        for i in range(len(names)):
            there = at.copy()
            there[i] += 1e-3
            slopes[:, i] = (predicted(there) - base) / 1e-3
        left = np.vstack([slopes / _NOISE, np.diag(1.0 / spreads)])
        right = np.concatenate([(measured - base) / _NOISE, -at / spreads])
        move = np.linalg.lstsq(left, right, rcond=None)[0]
        at = at + np.clip(move, -0.5, 0.5)
        if float(np.abs(move).max()) < 1e-4:
            break
    return _scale_constants(facts, dict(zip(names, at, strict=True)))


def _scale_constants(facts: DeviceFacts, by: Mapping[str, float]) -> DeviceFacts:
    """The facts with each constant named in `by` multiplied by the exponential of its value."""
    e = facts.efficiency
    shares = {name: share * math.exp(by["gemm"]) for name, share in e.gemm.items()}
    own = {name: getattr(e, name) * math.exp(by[name]) for name in by if name != "gemm"}
    # An optimizer step was measured in seconds, which must not change with the bandwidth fitted to other work.
    own["optimizer"] *= math.exp(by["memory"])
    return replace(facts, efficiency=replace(e, gemm=shares, **own))


def _fit_mechanism(name: str, facts: DeviceFacts, steps: Sequence[ProbeStep]) -> ParallelismCost:
    """Least squares of relative errors in two unknowns, both non-negative. The communication factor has a prior at 1,
    as strong as a communication that takes 2 % of a step."""
    rows = []
    for step in steps:
        found = predict(step.work, step.layout, facts)
        rest = step.measured_s - (found.step_time_s - found.seconds.communication)
        weight = 1.0 / step.measured_s
        units = count_mechanism_units(step.work, step.layout).get(name, 0.0)
        rows.append((found.seconds.communication * weight, units * weight, rest * weight))
    pull = 0.02
    aa = sum(a * a for a, _, _ in rows) + pull**2
    ab = sum(a * b for a, b, _ in rows)
    bb = sum(b * b for _, b, _ in rows) or 1e-30
    ac = sum(a * c for a, _, c in rows) + pull**2
    bc = sum(b * c for _, b, c in rows)
    determinant = aa * bb - ab * ab
    factor, unit = (ac * bb - bc * ab) / determinant, (bc * aa - ac * ab) / determinant
    if unit < 0:
        factor, unit = ac / aa, 0.0
    if factor < 0:
        factor, unit = 0.0, max(0.0, bc / bb)
    return ParallelismCost(communication=factor, unit_s=unit)


def _select_records(records: Sequence[Mapping[str, Any]], kind: str) -> list[Mapping[str, Any]]:
    return [r for r in records if r["kind"] == kind and r["seconds"]]


def _fit_tile(products: Sequence[Mapping[str, Any]], facts: DeviceFacts) -> float:
    """The tile constant, out of a grid, that explains the measured shapes of products best."""
    if not products:
        return facts.efficiency.gemm_tile

    def error(tile: float) -> float:
        here = replace(facts, efficiency=replace(facts.efficiency, gemm_tile=tile))
        total = 0.0
        for r in products:
            precision = "fp32" if r["precision"] == "fp32" else "bf16"
            total += math.log(r["seconds"] / matmul_seconds(here, precision, r["m"], r["k"], r["n"])) ** 2
        return total

    return min((2.0**i for i in range(11)), key=error)


def _attention_share(r: Mapping[str, Any], facts: DeviceFacts) -> float:
    """Share of the peak in attention by the cost model's formula: causal FLOPs only, with its penalty for short
    sequences and narrow heads."""
    precision = "fp32" if r["precision"] == "fp32" else "bf16"
    flops = 4.0 * r["batch"] * r["heads"] * r["sequence"] * (r["sequence"] + 1) / 2 * r["head_dim"]
    ramp = 1.0 + 256.0 / r["sequence"] + 16.0 / r["head_dim"]
    return float(flops * ramp / (facts.peak_flops[precision] * r["seconds"]))


def _fit_link(collectives: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """(bytes/s, latency in seconds) of a ring by least squares of relative errors, both above zero."""
    rows = []
    for r in collectives:
        passes = 2.0 if r["kind"] == "all_reduce" else 1.0
        size = r["size"]
        weight = 1.0 / r["seconds"]
        rows.append((passes * r["bytes"] * (size - 1) / size * weight, passes * (size - 1).bit_length() * weight))
    aa, bb = sum(a * a for a, _ in rows), sum(b * b for _, b in rows)
    ab, a1, b1 = sum(a * b for a, b in rows), sum(a for a, _ in rows), sum(b for _, b in rows)
    determinant = aa * bb - ab * ab
    per_byte = (a1 * bb - b1 * ab) / determinant if determinant else 0.0
    latency = (b1 * aa - a1 * ab) / determinant if determinant else 0.0
    if per_byte <= 0 or latency <= 0:
        largest = max(rows, key=lambda row: row[0] / row[1])
        per_byte, latency = 1.0 / largest[0], max(latency, 1e-7)
    return 1.0 / per_byte, latency
