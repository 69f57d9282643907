"""Scaling of runs that differ only in size: speed-up, parallel efficiency, a fitted law and the best size for a goal.

Strong scaling keeps the global batch at every size; weak scaling keeps the batch of each data-parallel rank, so the
global batch grows with the ranks. The two answer different questions, so a speed-up needs its mode. Pure functions of
results: a sweep, a store and a report's folder give the same scaling.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from tunemark.analysis import comparability
from tunemark.analysis.best_sizes import find_cheapest, find_fastest, find_knee, size_name
from tunemark.analysis.environment import environment_facts
from tunemark.analysis.prices import Prices
from tunemark.analysis.scaling_types import CurvePoint, Scaling, ScalingFit, ScalingPoint
from tunemark.experiment.scaling_batches import ScalingMode
from tunemark.fields import read_fields
from tunemark.number_format import format_significant
from tunemark.plugin.descriptors import Finding
from tunemark.results import Estimate, Result
from tunemark.results.ratio import attempt_rates, rate_ratio

# The knee is where each further unit adds less than half of what the first ones did.
KNEE = 0.5
# The part of a step spent on communication, if a breakdown has it.
COMMUNICATION = "communication"
# Of the curve as it is drawn.
_CURVE_STEPS = 32

# Fields that may differ between the sizes of a group, besides those that follow from the size.
_FREE = comparability.find_free_fields(("size",), ("global_batch", "breakdown", "oversubscribed"))
# Settings of how long to measure do not affect speed, but runs of one size that differ in them would be two points.
_DURATION_FIELDS = ("epochs", "steps_requested", "warmup_requested", "budget_s", "target_interval", "window_s")
_CHECKED_FACTS = (
    "host name", "host governor", "host turbo", "python version", "torch", "transformers", "code", "allocator",
)  # fmt: skip


def compute_scalings(
    results: Sequence[Result],
    mode: ScalingMode,
    *,
    predict: Sequence[float] = (),
    knee: float = KNEE,
    prices: Prices | None = None,
    fits: int | None = None,
) -> tuple[Scaling, ...]:
    """One scaling for each group of results that differ only in size, in order of their first result.

    Groups of one size are skipped. predict: further N to predict, besides twice the largest. prices: if some size has
    none, units are the cost. fits: for how many of the first groups to fit laws and choose sizes; None is all.
    """
    if len({result.size for result in results}) < 2:
        return ()
    groups: dict[tuple[object, ...], list[Result]] = {}
    for result in results:
        groups.setdefault(_key(result, mode), []).append(result)
    found: list[Scaling] = []
    for group in groups.values():
        rated = [r for r in group if not r.breakdown]
        if len({r.size for r in rated}) > 1:
            is_fitted = fits is None or len(found) < fits
            found.append(_scaling(rated, [r for r in group if r.breakdown], mode, predict, knee, prices, is_fitted))
    return tuple(found)


def compute_all_scalings(results: Sequence[Result], **options: Any) -> tuple[Scaling, ...]:
    """The scalings of both modes, for a report. Runs whose data ranks do not grow with the size belong to both modes,
    and are listed as strong only. options: as for `scalings`."""
    weak = [s for s in compute_scalings(results, "weak", **options) if len({p.global_batch for p in s.points}) > 1]
    return (*compute_scalings(results, "strong", **options), *weak)


def describe_nearest_difference(results: Sequence[Result], mode: ScalingMode) -> str:
    """Describe in what the two most similar runs of different sizes differ besides size."""
    pairs = [(a, b) for i, b in enumerate(results) for a in results[:i] if a.size != b.size]
    if not pairs:
        return f"all {len(results)} are of one size" if len(results) > 1 else "it is one run"

    def differs(pair: tuple[Result, Result]) -> dict[str, Sequence[Any]]:
        a, b = pair
        whose = _batch_words(a, mode)
        ends = {name: (getattr(a, name), getattr(b, name)) for name in _DURATION_FIELDS}
        ends[whose] = (_batch(a, mode), _batch(b, mode))
        return {
            **comparability.differing_settings(a, b, _FREE),
            **{name: two for name, two in ends.items() if two[0] != two[1]},
        }

    # A store of thousands of runs has millions of pairs; a few hundred suffice.
    a, b = nearest = min(pairs[:500], key=lambda pair: len(differs(pair)))
    return f"the two nearest, of sizes {a.size} and {b.size}, differ in {comparability.format_fields(differs(nearest))}"


def _key(result: Result, mode: ScalingMode) -> tuple[object, ...]:
    return (
        _batch(result, mode),
        *comparability.comparison_key(result, _FREE),
        *(getattr(result, name) for name in _DURATION_FIELDS),
    )


def _batch(result: Result, mode: ScalingMode) -> Fraction:
    """The global batch (strong), or that of a data rank (weak). For a searched layout it is that of a rank, because the
    number of data ranks was not known when the batch was set."""
    ranks = result.data_ranks if result.search is None else result.search.ranks
    return Fraction(result.global_batch, 1 if mode == "strong" else ranks)


def _batch_words(result: Result, mode: ScalingMode) -> str:
    if mode == "strong":
        return "global batch"
    return "batch per data rank" if result.search is None else "batch per rank"


def _scaling(
    results: Sequence[Result],
    broken_down: Sequence[Result],
    mode: ScalingMode,
    predict: Sequence[float],
    knee: float,
    prices: Prices | None,
    is_fitted: bool,
) -> Scaling:
    first = results[0]
    unit, units = _units(results)
    # Sizes whose units are unknown are ordered by memory, as the device orders them.
    memory = {r.run_id: r.memory_bytes for r in results}
    order = units if unit else memory if all(memory.values()) else {}
    ordered = sorted(results, key=lambda r: order.get(r.run_id) or 0)
    left_out = {r.run_id: _why_left_out(r) for r in ordered}
    rates = {r.run_id: attempt_rates(r) for r in ordered}
    for run_id, measured in rates.items():
        if not measured and left_out[run_id] is None:
            left_out[run_id] = "no attempt ended well"
    good = [r for r in ordered if left_out[r.run_id] is None]
    base = good[0] if good else None
    points = _points(ordered, base, units, rates, left_out, broken_down)
    fitted: ScalingFit | None = None
    no_fit: str | None = "a law is fitted to the first of so many scalings; `tunemark scale --from` fits any"
    if is_fitted:
        fitted, no_fit = _fit_scaling(good, unit, units, rates, mode, predict)
    batch = _batch(first, mode)
    return Scaling(
        mode=mode,
        title=_title(first, mode, batch),
        model=first.model,
        device=first.device,
        strategy=first.strategy_requested,
        batch=float(batch),
        unit=unit,
        chip=first.chip,
        simulated=any(r.simulated for r in results),
        base=base.size if base else None,
        points=points,
        fitted=fitted,
        no_fit=no_fit,
        best=(
            find_fastest(good, rates),
            find_cheapest(good, rates, units, unit, prices),
            find_knee(good, points, unit, knee, fitted),
        )
        if is_fitted
        else (),
        findings=_findings(results, mode, points, base, fitted),
        shared={name: read(first) for name, read in comparability.COMPARED_FIELDS.items() if name not in _FREE},
    )


def _title(result: Result, mode: ScalingMode, batch: Fraction) -> str:
    whose = _batch_words(result, mode)
    words = f"{mode.capitalize()} scaling: {result.model} on {result.device}, {result.strategy_requested}, "
    words += f"{result.precision}, {result.batching}, sequence {result.sequence}, {whose} {batch}"
    return words + (" (simulated)" if result.simulated else "")


def _units(results: Sequence[Result]) -> tuple[str | None, dict[str, float]]:
    """What N counts, and N of each run: chips if known for all, else devices if known for all."""
    for unit, field in (("chips", "chips"), ("devices", "parts")):
        known = {r.run_id: float(n) for r in results if (n := getattr(r, field))}
        if len(known) == len(results):
            return unit, known
    return None, {}


def _why_left_out(result: Result) -> str | None:
    if result.status != "ok":
        return f"its status is {result.status}"
    if result.oversubscribed:
        return "oversubscribed: more was asked for than the machine has"
    if result.verdict == "invalid":
        return "its verdict is invalid"
    return None


# Of a point, as its run has them.
_RUN_FIELDS = (
    "run_id", "size", "processes", "data_ranks", "global_batch", "gradient_accumulation", "status", "verdict",
    "oversubscribed", "simulated", "tokens_per_s", "peak_memory_bytes",
)  # fmt: skip


def _points(
    ordered: Sequence[Result],
    base: Result | None,
    units: Mapping[str, float],
    rates: Mapping[str, Sequence[float]],
    left_out: Mapping[str, str | None],
    broken_down: Sequence[Result],
) -> tuple[ScalingPoint, ...]:
    found: list[ScalingPoint] = []
    for r in ordered:
        n = units.get(r.run_id)
        speedup = efficiency = marginal = None
        # Nothing is derived from sizes that are left out.
        if base and left_out[r.run_id] is None:
            speedup = _base_speedup(base) if r is base else rate_ratio(r, base).as_estimate()
            if n:
                efficiency = speedup.times(units[base.run_id] / n)
                below = [p for p in found if p.speedup and p.units and p.units < n]
                if below:
                    marginal = _marginal(below[-1], speedup, n, units[base.run_id])
        share, reason = _communication(r, broken_down)
        found.append(
            ScalingPoint(
                **read_fields(r, *_RUN_FIELDS),
                units=n,
                is_base=r is base,
                tokens_per_s_per_unit=r.tokens_per_s.value / n if r.tokens_per_s and n else None,
                speedup=speedup,
                efficiency=efficiency,
                marginal_efficiency=marginal,
                communication_share=share,
                communication_reason=reason,
                left_out=left_out[r.run_id],
            )
        )
    return tuple(found)


def _base_speedup(base: Result) -> Estimate:
    n = sum(row.status == "ok" for row in base.each_attempt)
    return Estimate(value=1.0, low=1.0, high=1.0, n=n, method="by definition: it is the base")


def _marginal(below: ScalingPoint, speedup: Estimate, units: float, base_units: float) -> Estimate:
    """The difference of two speed-ups per unit between them; its interval by the method of variance estimates recovery
    (Zou and Donner 2008, Statistics in Medicine 27: 1693)."""
    assert below.speedup is not None and below.units is not None  # noqa: PT018 - one claim: it was measured
    a, b = speedup, below.speedup
    scale = base_units / (units - below.units)
    value = a.value - b.value
    low = high = None
    if a.low is not None and a.high is not None and b.low is not None and b.high is not None:
        low = scale * (value - math.hypot(a.value - a.low, b.high - b.value))
        high = scale * (value + math.hypot(a.high - a.value, b.value - b.low))
    method = "difference of speed-ups, 95 %" if low is not None else "none: one attempt"
    return Estimate(value=scale * value, low=low, high=high, n=min(a.n, b.n), method=method)


def _communication(result: Result, broken_down: Sequence[Result]) -> tuple[float | None, str | None]:
    parts = next((r.breakdown_s for r in broken_down if r.size == result.size and r.breakdown_s), None)
    if result.processes == 1:
        return None, "one process: there is nobody to communicate with, as far as the harness can see"
    if parts is None:
        return None, "not measured: --breakdown times the parts of a step"
    if COMMUNICATION not in parts:
        return None, "its breakdown tells no communication apart: it overlaps with computing"
    return parts[COMMUNICATION] / sum(parts.values()), None


def _findings(
    results: Sequence[Result],
    mode: ScalingMode,
    points: Sequence[ScalingPoint],
    base: Result | None,
    fitted: ScalingFit | None,
) -> tuple[Finding, ...]:
    found = []
    environments = [environment_facts(r) for r in results]
    for name in _CHECKED_FACTS:
        seen = list(dict.fromkeys(str(facts.get(name)) for facts in environments))
        if len(seen) > 1:
            message = f"sizes were not measured under the same {name}: {'; '.join(seen[:4])}"
            found.append(Finding(rule="sizes-differ", severity="suspect", message=message))
    caveats = [size_name(r) for r in results if _why_left_out(r) is None and r.verdict != "valid"]
    if caveats:
        message = f"what is derived from {', '.join(caveats)} is no better than their verdicts"
        found.append(Finding(rule="sizes-not-valid", severity="suspect", message=message))
    first = points[0]
    if base and (smaller := list(itertools.takewhile(lambda p: not p.is_base, points))):
        names = "; ".join(f"{base.device}:{p.size} ({p.left_out})" for p in smaller)
        message = f"smaller than the base and no part of this: {names}. Speed-ups are over {size_name(base)}"
        found.append(Finding(rule="base-is-not-smallest", severity="note", message=message))
    if mode == "weak" and all((p.data_ranks, p.global_batch) == (first.data_ranks, first.global_batch) for p in points):
        message = "the data ranks do not grow with the size, so that neither does the batch: these runs are strong too"
        found.append(Finding(rule="weak-is-strong", severity="note", message=message))
    efficiencies = [(p.size, p.efficiency) for p in points if p.efficiency and not p.is_base]
    above = [size for size, efficiency in efficiencies if efficiency.low is not None and efficiency.low > 1.0]
    if above:
        message = f"{', '.join(above)}: faster than N times the base; a base that lacks memory or cache explains it"
        found.append(Finding(rule="superlinear", severity="note", message=message))
    if fitted and (share := fitted.fits[0].parameters["s"].value) > 1:
        message = (
            f"s = {format_significant(share, 3)} is no share: units beyond the first make it slower from the second "
        )
        message += "on, by a cost that one unit does not have"
        found.append(Finding(rule="slower-than-one", severity="note", message=message))
    if fitted and fitted.is_misfit and fitted.misfit_p is not None:
        message = f"sizes lie off the {fitted.law} curve by more than attempts scatter (p = {fitted.misfit_p:.2g}): "
        message += "the band is of that distance, and no law here describes these sizes"
        found.append(Finding(rule="law-misfit", severity="suspect", message=message))
    return tuple(found)


def _fit_scaling(
    good: Sequence[Result],
    unit: str | None,
    units: Mapping[str, float],
    rates: Mapping[str, Sequence[float]],
    mode: ScalingMode,
    predict: Sequence[float],
) -> tuple[ScalingFit | None, str | None]:
    """The fit, or why there is none. units, rates: of each run, by its id. predict: N beyond the largest size."""
    if unit is None:
        return None, "how many chips or devices each size has is not known, so there is no N to fit over"
    if len({units[r.run_id] for r in good}) < len(good):
        return None, f"several sizes have the same number of {unit}, so that N does not tell them apart"
    # Imported late: importing numpy would slow down every command that only writes a report.
    from tunemark.analysis import speedup_laws

    sizes = [speedup_laws.SizeObservations(units[r.run_id], tuple(map(math.log, rates[r.run_id]))) for r in good]
    reason = speedup_laws.why_no_fit(sizes)
    if reason:
        return None, reason
    smallest, largest = min(s.units for s in sizes), max(s.units for s in sizes)
    beyond = sorted({2 * largest, *(n for n in predict if n > largest)})
    found = speedup_laws.fit_laws(sizes, mode, reach=beyond[-1])

    def at(units: Sequence[float]) -> tuple[CurvePoint, ...]:
        bands = zip(units, found.rates(units), found.speedups(units), strict=True)
        return tuple(
            CurvePoint(units=n, predicted=n > largest, tokens_per_s=x, speedup=s, efficiency=s.times(smallest / n))
            for n, x, s in bands
        )

    curve = (smallest * (beyond[-1] / smallest) ** (i / _CURVE_STEPS) for i in range(_CURVE_STEPS + 1))
    drawn = sorted({*(float(f"{x:.6g}") for x in curve), *(s.units for s in sizes), *beyond})
    fitted = ScalingFit(
        law=found.fits[0].law,
        criterion=speedup_laws.CRITERION,
        fits=found.fits,
        curve=at(drawn),
        predictions=at(beyond),
        **read_fields(found, "band_of", "misfit_p", "is_misfit", "peak_units"),
    )
    return fitted, None
