"""Scaling of runs that differ only in size: speed-up, parallel efficiency, a fitted law and the best size for a goal.

Strong scaling keeps the global batch at every size; weak scaling keeps the batch of each data-parallel rank, so the
global batch grows with the ranks. The two answer different questions, so a speed-up needs its mode. Pure functions of
results: a sweep, a store and a report's folder give the same scaling.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from tunemark.analysis import comparability
from tunemark.analysis.environment import environment_facts
from tunemark.analysis.prices import Prices
from tunemark.plugin.descriptors import Finding
from tunemark.results import Estimate, Result
from tunemark.results.ratio import RatioTerm, attempt_rates, estimate_ratio, is_in_rounds
from tunemark.units import format_significant

if TYPE_CHECKING:
    from tunemark.analysis import speedup_laws

ScalingMode = Literal["strong", "weak"]
Law = Literal["amdahl", "gustafson", "usl"]
SizeGoal = Literal["fastest", "cheapest", "knee"]

# History of the schema (of `scale --json`): 1, first form.
SCHEMA = 1
# The knee is where each further unit adds less than half of what the first ones did.
KNEE = 0.5
# The part of a step spent on communication, if a breakdown has it.
COMMUNICATION = "communication"

# Fields that may differ between the sizes of a group, besides those that follow from the size.
_FREE = comparability.find_free_fields(("size",), ("global_batch", "breakdown", "oversubscribed"))
# Settings of how long to measure do not affect speed, but runs of one size that differ in them would be two points.
_DURATION_FIELDS = ("epochs", "steps_requested", "warmup_requested", "budget_s", "target_interval", "window_s")
_CHECKED_FACTS = (
    "host name", "host governor", "host turbo", "python version", "torch", "transformers", "code", "allocator",
)  # fmt: skip


class ScalingPoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One size. units: N, None if unknown. speedup: X(N) / X(N0). efficiency: speedup x N0 / N.

    marginal_efficiency: the rate that each unit above the next smaller size adds, over the rate of one unit at N0. All
    three are None if the size is left out. communication_share: of a step's time, from the breakdown run. left_out: why
    it is excluded from fits and choices, else None. is_base: it is N0.
    """

    run_id: str
    size: str
    units: float | None
    processes: int
    data_ranks: int
    global_batch: int
    gradient_accumulation: int
    status: str
    verdict: str
    oversubscribed: bool
    simulated: bool
    is_base: bool
    tokens_per_s: Estimate | None
    tokens_per_s_per_unit: float | None
    speedup: Estimate | None
    efficiency: Estimate | None
    marginal_efficiency: Estimate | None
    communication_share: float | None
    communication_reason: str | None
    peak_memory_bytes: int | None
    left_out: str | None


class Band(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A curve at one N. low, high: pointwise 95 % interval. band_low, band_high: simultaneous 95 % band of the whole
    curve, from the smallest size to the farthest prediction. None is unbounded."""

    value: float
    low: float | None
    high: float | None
    band_low: float | None
    band_high: float | None


class CurvePoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fitted law at one N. predicted: N lies beyond the measured sizes."""

    units: float
    predicted: bool
    tokens_per_s: Band
    speedup: Band
    efficiency: Band


class FittedLaw(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A law that was tried. parameters: x1, the rate of one unit in tokens/s; s, the serial share (contention); k, the
    coherency cost of the USL. residual: relative standard deviation of attempts around it. weight: Akaike weight."""

    law: Law
    parameters: dict[str, Estimate]
    residual: float
    aicc: float
    weight: float


class ScalingFit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The laws that were tried, the chosen one first, and its curve.

    curve: for drawing, from the smallest size to the farthest prediction. predictions: at sizes beyond those measured.
    band_of: the laws that the intervals cover. misfit_p: p value of the sizes' deviation from the curve under attempts'
    noise alone. peak_units: N of the highest rate; high is None if no upper bound is shown.
    """

    law: Law
    criterion: str
    fits: tuple[FittedLaw, ...]
    curve: tuple[CurvePoint, ...]
    predictions: tuple[CurvePoint, ...]
    band_of: tuple[Law, ...]
    misfit_p: float | None
    is_misfit: bool
    peak_units: Estimate | None


class BestSize(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The best size for a goal. size: None if there is none. shown: its intervals separate it from every other measured
    size. evidence: the figures."""

    goal: SizeGoal
    size: str | None
    shown: bool
    evidence: str


class Scaling(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes of one experiment. batch: the global batch (strong) or that of one data rank (weak), sequences.

    unit: what N counts: chips, or devices if chips are unknown; None if both are. base: the size N0, the smallest that
    is not left out; None if all are. no_fit: why there is no fit. shared: fields in which all runs agree, by their
    names in results.
    """

    mode: ScalingMode
    title: str
    model: str
    device: str
    strategy: str
    batch: float
    unit: str | None
    chip: str
    simulated: bool
    base: str | None
    points: tuple[ScalingPoint, ...]
    fitted: ScalingFit | None
    no_fit: str | None
    best: tuple[BestSize, ...]
    findings: tuple[Finding, ...]
    shared: dict[str, Any]
    schema: int = SCHEMA


def encode_scaling(scaling: Scaling) -> str:
    """A scaling as one line of JSON."""
    return msgspec.json.encode(scaling).decode()


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
        fitted, no_fit = _fit_laws(good, unit, units, rates, mode, predict)
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
            _fastest(good, rates),
            _cheapest(good, rates, units, unit, prices),
            _knee(good, points, unit, knee, fitted),
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
            speedup = _base_speedup(base) if r is base else _rate_ratio(r, base)
            if n:
                efficiency = _scale_estimate(speedup, units[base.run_id] / n)
                below = [p for p in found if p.speedup and p.units and p.units < n]
                if below:
                    marginal = _marginal(below[-1], speedup, n, units[base.run_id])
        share, reason = _communication(r, broken_down)
        found.append(
            ScalingPoint(
                run_id=r.run_id,
                size=r.size,
                units=n,
                processes=r.processes,
                data_ranks=r.data_ranks,
                global_batch=r.global_batch,
                gradient_accumulation=r.gradient_accumulation,
                status=r.status,
                verdict=r.verdict,
                oversubscribed=r.oversubscribed,
                simulated=r.simulated,
                is_base=r is base,
                tokens_per_s=r.tokens_per_s,
                tokens_per_s_per_unit=r.tokens_per_s.value / n if r.tokens_per_s and n else None,
                speedup=speedup,
                efficiency=efficiency,
                marginal_efficiency=marginal,
                communication_share=share,
                communication_reason=reason,
                peak_memory_bytes=r.peak_memory_bytes,
                left_out=left_out[r.run_id],
            )
        )
    return tuple(found)


def _base_speedup(base: Result) -> Estimate:
    n = sum(row.status == "ok" for row in base.each_attempt)
    return Estimate(value=1.0, low=1.0, high=1.0, n=n, method="by definition: it is the base")


def _rate_ratio(of: Result, to: Result) -> Estimate:
    """How many times as fast; paired if the attempts were taken in rounds."""
    found = estimate_ratio(
        [RatioTerm(1, attempt_rates(of)), RatioTerm(-1, attempt_rates(to))], in_rounds=is_in_rounds([of, to])
    )
    return Estimate(value=found.value, low=found.low, high=found.high, n=min(found.n), method=found.method)


def _scale_estimate(estimate: Estimate, factor: float) -> Estimate:
    low, high = (None if b is None else b * factor for b in (estimate.low, estimate.high))
    return msgspec.structs.replace(estimate, value=estimate.value * factor, low=low, high=high)


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


def _fit_laws(
    good: Sequence[Result],
    unit: str | None,
    units: Mapping[str, float],
    rates: Mapping[str, Sequence[float]],
    mode: ScalingMode,
    predict: Sequence[float],
) -> tuple[ScalingFit | None, str | None]:
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
    n = sum(len(s.logs) for s in sizes)

    def at(units: Sequence[float]) -> tuple[CurvePoint, ...]:
        return tuple(
            CurvePoint(
                units=n,
                predicted=n > largest,
                tokens_per_s=_band(rate),
                speedup=_band(speedup),
                efficiency=_band(speedup, smallest / n),
            )
            for n, rate, speedup in zip(units, found.rates(units), found.speedups(units), strict=True)
        )

    steps = 32
    curve = [smallest * (beyond[-1] / smallest) ** (i / steps) for i in range(steps + 1)]
    curve = sorted({*(float(f"{x:.6g}") for x in curve), *(s.units for s in sizes), *beyond})
    method = f"t of the {'own' if found.own_variances else 'pooled'} variances of attempts' log rates, 95 %"
    if found.is_misfit:
        method = "t of the sizes' distances from the curve, 95 %"
    peak = None
    if found.peak_units:
        value, low, high = found.peak_units
        peak = Estimate(value=value, low=low, high=high, n=n, method="draws of the parameters, 95 %")
    return (
        ScalingFit(
            law=found.fits[0].law,
            criterion=speedup_laws.CRITERION,
            fits=tuple(
                FittedLaw(
                    law=each.law,
                    parameters={
                        name: Estimate(value=p.value, low=p.low, high=p.high, n=n, method=method)
                        for name, p in each.parameters.items()
                    },
                    residual=each.residual,
                    aicc=each.aicc,
                    weight=each.weight,
                )
                for each in found.fits
            ),
            curve=at(curve),
            predictions=at(beyond),
            band_of=found.band_of,
            misfit_p=found.misfit_p,
            is_misfit=found.is_misfit,
            peak_units=peak,
        ),
        None,
    )


def _band(bounds: speedup_laws.CurveBounds, factor: float = 1.0) -> Band:
    value, *others = bounds
    low, high, band_low, band_high = (None if b is None else b * factor for b in others)
    return Band(value=value * factor, low=low, high=high, band_low=band_low, band_high=band_high)


def _fastest(good: Sequence[Result], rates: Mapping[str, Sequence[float]]) -> BestSize:
    return _best_size("fastest", good, rates, {r.run_id: 1.0 for r in good}, "as fast as", _per_second)


def _per_second(result: Result, rate: float) -> str:
    return f"{format_significant(rate)} tokens/s"


def _cheapest(
    good: Sequence[Result],
    rates: Mapping[str, Sequence[float]],
    units: Mapping[str, float],
    unit: str | None,
    prices: Prices | None,
) -> BestSize:
    known = {r.run_id: hour for r in good if prices and (hour := prices.of(r)) is not None}
    if prices and good and len(known) == len(good):

        def words(result: Result, rate: float) -> str:
            return (
                f"{format_significant(known[result.run_id] / 3600 / rate * 1e6)} {prices.currency} per million tokens"
            )

        return _best_size("cheapest", good, rates, known, "as cheap as", words)
    if unit is None:
        return BestSize(
            goal="cheapest", size=None, shown=False, evidence="neither prices nor numbers of chips are known"
        )

    def seconds(result: Result, rate: float) -> str:
        needed = format_significant(units[result.run_id] / rate * 1e6)
        return f"{needed} {unit.removesuffix('s')}-seconds per million tokens"

    return _best_size("cheapest", good, rates, {r.run_id: units[r.run_id] for r in good}, "as cheap as", seconds)


def _best_size(
    goal: SizeGoal,
    good: Sequence[Result],
    rates: Mapping[str, Sequence[float]],
    costs: Mapping[str, float],
    compared: str,
    words: Callable[[Result, float], str],
) -> BestSize:
    """The size with the highest rate per cost, and whether its ratio to every other has an interval above 1."""
    if len(good) < 2:
        return BestSize(
            goal=goal, size=None, shown=False, evidence=f"{_sizes(len(good))} measured well: nothing to choose"
        )

    def mean(r: Result) -> float:
        return math.exp(math.fsum(map(math.log, rates[r.run_id])) / len(rates[r.run_id]))

    best, *others = sorted(good, key=lambda r: -mean(r) / costs[r.run_id])
    against = [(r, _scale_estimate(_rate_ratio(best, r), costs[r.run_id] / costs[best.run_id])) for r in others]
    # The closest competitor is the evidence.
    nearest, least = min(against, key=lambda pair: pair[1].low if pair[1].low is not None else -math.inf)
    shown = least.low is not None and least.low > 1
    evidence = f"{words(best, mean(best))}, {_interval(least)} times {compared} {_name(nearest)}"
    if not shown:
        evidence += ": no difference shown" if least.low is not None else ": one attempt each shows no difference"
    caveats = _verdict_caveats([best, *others])
    return BestSize(goal=goal, size=best.size, shown=shown and not caveats, evidence=evidence + caveats)


def _name(result: Result) -> str:
    return f"{result.device}:{result.size}"


def _verdict_caveats(results: Sequence[Result]) -> str:
    """The runs whose verdict is not valid, as the end of a sentence; empty if there are none."""
    found = [f"{_name(r)} is {r.verdict}" for r in results if r.verdict != "valid"]
    return f"; and {', '.join(found)}" if found else ""


def _knee(
    good: Sequence[Result],
    points: Sequence[ScalingPoint],
    unit: str | None,
    threshold: float,
    fitted: ScalingFit | None,
) -> BestSize:
    """The size after which further units add less than `threshold` of what the first ones did."""
    rest = _verdict_caveats(good)
    if fitted and fitted.peak_units:
        at = fitted.peak_units
        high = "with no upper bound" if at.high is None else f"to {format_significant(at.high, 3)}"
        bounds = f"{format_significant(at.low or 0, 3)} {high}"
        rest += f"; the law's rate peaks at a predicted {format_significant(at.value, 3)} {unit} ({bounds})"
    steps = [p for p in points if p.left_out is None]
    rated = [(a, b, b.marginal_efficiency) for a, b in itertools.pairwise(steps) if b.marginal_efficiency]
    if not rated:
        why = "no N" if unit is None else "fewer than two sizes were measured well"
        return BestSize(goal="knee", size=None, shown=False, evidence=why + rest)
    names = {r.size: _name(r) for r in good}
    below = f"{100 * threshold:g} %"
    for a, b, marginal in rated:
        words = (
            f"from {names[a.size]} to {names[b.size]} each {_singular(unit)} adds {_interval(marginal, 100)} % of what "
        )
        words += f"one gives at {names[steps[0].size]}"
        if marginal.high is not None and marginal.high < threshold:
            shown = not _verdict_caveats(good)
            return BestSize(goal="knee", size=a.size, shown=shown, evidence=f"{words}, below {below}{rest}")
        if marginal.value < threshold:
            evidence = f"{words}: not shown to be below {below}{rest}"
            return BestSize(goal="knee", size=a.size, shown=False, evidence=evidence)
    a, b, marginal = rated[-1]
    words = f"no knee up to {names[b.size]}: its {unit} still add {_interval(marginal, 100)} % each, "
    return BestSize(goal="knee", size=None, shown=False, evidence=f"{words}and a knee is below {below}{rest}")


def _singular(unit: str | None) -> str:
    return (unit or "units").removesuffix("s")


def _interval(estimate: Estimate, scale: float = 1.0) -> str:
    value = format_significant(scale * estimate.value, 3)
    if estimate.low is None or estimate.high is None:
        return f"{value} (no interval)"
    return f"{value} ({format_significant(scale * estimate.low, 3)} to {format_significant(scale * estimate.high, 3)})"


def _sizes(n: int) -> str:
    return "no size was" if n == 0 else "one size was" if n == 1 else f"{n} sizes were"


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
    caveats = [f"{r.device}:{r.size}" for r in results if _why_left_out(r) is None and r.verdict != "valid"]
    if caveats:
        message = f"what is derived from {', '.join(caveats)} is no better than their verdicts"
        found.append(Finding(rule="sizes-not-valid", severity="suspect", message=message))
    first = points[0]
    if base and (smaller := list(itertools.takewhile(lambda p: not p.is_base, points))):
        names = "; ".join(f"{base.device}:{p.size} ({p.left_out})" for p in smaller)
        message = f"smaller than the base and no part of this: {names}. Speed-ups are over {_name(base)}"
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
