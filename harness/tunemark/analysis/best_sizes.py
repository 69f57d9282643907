"""Which size is best for a goal: the fastest, the cheapest, and the knee."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

from tunemark.analysis.prices import Prices
from tunemark.analysis.scaling_types import BestSize, ScalingFit, ScalingPoint, SizeGoal
from tunemark.number_format import format_significant
from tunemark.results.ratio import rate_ratio
from tunemark.results.result import Estimate, Result


def find_fastest(good: Sequence[Result], rates: Mapping[str, Sequence[float]]) -> BestSize:
    """The size with the highest rate."""
    return _best_size("fastest", good, rates, {r.run_id: 1.0 for r in good}, "times as fast as", _per_second)


def _per_second(result: Result, rate: float) -> str:
    return f"{format_significant(rate)} tokens/s"


def find_cheapest(
    good: Sequence[Result],
    rates: Mapping[str, Sequence[float]],
    units: Mapping[str, float],
    unit: str | None,
    prices: Prices | None,
) -> BestSize:
    """The size with the least price per token; without prices, the least time of its units."""
    known = {r.run_id: hour for r in good if prices and (hour := prices.hourly_price(r)) is not None}
    if prices and good and len(known) == len(good):

        def words(result: Result, rate: float) -> str:
            return (
                f"{format_significant(known[result.run_id] / 3600 / rate * 1e6)} {prices.currency} per million tokens"
            )

        return _best_size("cheapest", good, rates, known, "times as cheap as", words)
    if unit is None:
        return BestSize(
            goal="cheapest", size=None, shown=False, evidence="neither prices nor numbers of chips are known"
        )

    def seconds(result: Result, rate: float) -> str:
        needed = format_significant(units[result.run_id] / rate * 1e6)
        return f"{needed} {unit.removesuffix('s')}-seconds per million tokens"

    return _best_size("cheapest", good, rates, {r.run_id: units[r.run_id] for r in good}, "times as cheap as", seconds)


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
    ratios = [(r, rate_ratio(best, r).as_estimate()) for r in others]
    against = [(r, ratio.times(costs[r.run_id] / costs[best.run_id])) for r, ratio in ratios]
    # The closest competitor is the evidence.
    nearest, least = min(against, key=lambda pair: pair[1].low if pair[1].low is not None else -math.inf)
    shown = least.low is not None and least.low > 1
    evidence = f"{words(best, mean(best))}, {_interval(least)} {compared} {size_name(nearest)}"
    if not shown:
        evidence += ": no difference shown" if least.low is not None else ": one attempt each shows no difference"
    caveats = _verdict_caveats([best, *others])
    return BestSize(goal=goal, size=best.size, shown=shown and not caveats, evidence=evidence + caveats)


def size_name(result: Result) -> str:
    """A run's device and size: cuda:8."""
    return f"{result.device}:{result.size}"


def _verdict_caveats(results: Sequence[Result]) -> str:
    """The runs whose verdict is not valid, as the end of a sentence; empty if there are none."""
    found = [f"{size_name(r)} is {r.verdict}" for r in results if r.verdict != "valid"]
    return f"; and {', '.join(found)}" if found else ""


def find_knee(
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
    names = {r.size: size_name(r) for r in good}
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
