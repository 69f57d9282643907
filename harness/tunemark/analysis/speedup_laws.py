"""Fit scalability laws to the logarithms of attempts' rates, and predict from them with intervals and bands.

With N units (chips, cores, devices) and rate X, the laws are

    Amdahl      X(N) = X1 N / (1 + s (N - 1))                   Amdahl 1967, AFIPS 30: 483; a fixed problem
    Gustafson   X(N) = X1 (s + (1 - s) N)                       Gustafson 1988, CACM 31: 532; a problem that grows
    USL         X(N) = X1 N / (1 + s (N - 1) + k N (N - 1))     Gunther 1993, CMG; 2007, Guerrilla Capacity Planning

Amdahl's law is the USL (Universal Scalability Law) without coherency cost, k = 0. N / X is linear in the parameters of
the first and the last, X in those of the second, so least squares on log X is nearly linear and Student's t applies.

The curve obeys the laws' bounds (s and k are not negative). Its band does not: estimates at a bound have no t
distribution, unbounded ones do; and a band without k, because the data cannot determine it, would be narrowest where
least is known. So a band is always of the USL, and of Gustafson's law too if that is equally supported.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tunemark.analysis.scaling_types import Band, FittedLaw, Law
from tunemark.experiment.scaling_batches import ScalingMode
from tunemark.results.result import Estimate

Array = NDArray[np.floating[Any]]

LEVEL = 0.95
MIN_SIZES = 4
# AICc with three parameters and a variance is defined from this number of observations on.
MIN_ATTEMPTS = 6
CRITERION = (
    "least AICc of the attempts' log rates (Hurvich and Tsai 1989, Biometrika 76: 297); "
    "strong: Amdahl or USL, weak: Gustafson or USL"
)
# If the p value of the sizes' deviation from the curve against attempts' noise is below this, the band uses the former.
_MISFIT_P = 0.01
# If the p value of equal variances is below this, each size has its own variance.
_UNEQUAL_P = 0.05
# A law with less than this share of the Akaike weights does not widen the band.
_MIN_WEIGHT = 0.01
_DRAWS = 4000
# Relative scatter below this is rounding, not measurement noise.
_NO_NOISE = 1e-9

_CANDIDATES: dict[ScalingMode, tuple[Law, ...]] = {"strong": ("amdahl", "usl"), "weak": ("gustafson", "usl")}


class SizeObservations(NamedTuple):
    """One size: its number of units and the natural logarithms of its attempts' rates."""

    units: float
    logs: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class LawFits:
    """The laws tried, the chosen one first. rates, speedups: functions of N; speed-up is over the smallest size.

    misfit_p: p value of the sizes' deviation from the curve under attempts' noise alone, None if it cannot be tested.
    is_misfit: it is so small that the band uses that deviation. band_of: the laws that the band covers. peak_units: N
    of the highest rate; None if the chosen law has no peak; a high of None if no upper bound can be given."""

    fits: tuple[FittedLaw, ...]
    rates: Callable[[Sequence[float]], list[Band]]
    speedups: Callable[[Sequence[float]], list[Band]]
    misfit_p: float | None
    is_misfit: bool
    band_of: tuple[Law, ...]
    peak_units: Estimate | None


def why_no_fit(sizes: Sequence[SizeObservations]) -> str | None:
    """Why no law can be fitted to these sizes; None if one can."""
    if len({s.units for s in sizes}) < MIN_SIZES:
        return f"a fit needs at least {MIN_SIZES} sizes that were measured well, there are {len(sizes)}"
    if (n := sum(len(s.logs) for s in sizes)) < MIN_ATTEMPTS:
        return f"a choice between laws needs at least {MIN_ATTEMPTS} attempts in all, there are {n}"
    return None


def fit_laws(sizes: Sequence[SizeObservations], mode: ScalingMode, *, reach: float | None = None) -> LawFits:
    """Fit the mode's laws. `sizes` are distinct and at least as many as `why_no_fit` requires, in any order.

    reach: the largest N that the simultaneous band covers; twice the largest size by default."""
    assert why_no_fit(sizes) is None
    data = _SizeData(sorted(sizes))
    free = {law: _UnboundedFit(law, data) for law in _CANDIDATES[mode]}
    found = []
    for law, each in free.items():
        coefficients, squares = each.constrained()
        found.append((law, coefficients, squares + data.within, _aicc(squares + data.within, data.n, each.terms)))
    least = min(aicc for *_, aicc in found)
    weights = {law: math.exp((least - aicc) / 2) for law, *_, aicc in found}
    weights = {law: weight / sum(weights.values()) for law, weight in weights.items()}
    found.sort(key=lambda each: each[3])
    chosen, coefficients = found[0][:2]
    supported = [law for law in free if weights[law] >= _MIN_WEIGHT or law == chosen]
    # A law that is a special case of another uses the other's band.
    band_of: tuple[Law, ...] = tuple(dict.fromkeys("usl" if law == "amdahl" else law for law in supported))
    for law in band_of:
        free.setdefault(law, _UnboundedFit(law, data))
    noise = {law: _MeanErrors(free[law], data) for law in free}
    curve = _FittedCurve(chosen, coefficients, [(free[law], noise[law]) for law in band_of], data, reach)
    peak = None
    if chosen == "usl" and coefficients[2] > 0 and coefficients[0] > coefficients[1]:
        peak = _peak(coefficients, free[chosen], noise[chosen])
    method = noise[chosen].method
    return LawFits(
        fits=tuple(
            FittedLaw(
                law=law,
                parameters=_parameters(at, free[law], noise[law], method),
                residual=math.sqrt(squares / max(1, data.n - free[law].terms)),
                aicc=aicc,
                weight=weights[law],
            )
            for law, at, squares, aicc in found
        ),
        rates=curve.rates,
        speedups=curve.speedups,
        misfit_p=noise[chosen].misfit_p,
        is_misfit=noise[chosen].is_misfit,
        band_of=band_of,
        peak_units=peak,
    )


class _SizeData:
    """Sizes in ascending order. counts, means: attempts and mean log rate of each; within: pooled sum of squares."""

    def __init__(self, sizes: Sequence[SizeObservations]) -> None:
        self.units: Array = np.array([s.units for s in sizes], dtype=float)
        self.counts: Array = np.array([len(s.logs) for s in sizes], dtype=float)
        self.means: Array = np.array([math.fsum(s.logs) / len(s.logs) for s in sizes])
        self.squares: Array = np.array(
            [math.fsum((x - m) ** 2 for x in s.logs) for s, m in zip(sizes, self.means, strict=True)]
        )
        self.within = float(self.squares.sum())
        self.n = int(self.counts.sum())


class _UnboundedFit:
    """A law fitted without bounds: coefficients b of v = basis(N) b, where v is N / X, or X for Gustafson's law.

    response: derivative of b by the sizes' mean logs, [terms, sizes]."""

    def __init__(self, law: Law, data: _SizeData) -> None:
        self.law, self.data = law, data
        self.is_inverse = law != "gustafson"
        self.terms = 3 if law == "usl" else 2
        self.goal = np.log(data.units) - data.means if self.is_inverse else data.means
        self.coefficients, self.squares, jacobian = self._least_squares(list(range(self.terms)))
        weighted = jacobian.T * data.counts
        self.spread = np.linalg.pinv(weighted @ jacobian)
        self.response = self.spread @ weighted

    def basis(self, units: Array) -> Array:
        columns = {
            "amdahl": [np.ones_like(units), units - 1],
            "gustafson": [np.ones_like(units), units],
            "usl": [np.ones_like(units), units - 1, units * (units - 1)],
        }
        return np.stack(columns[self.law], axis=-1)

    def constrained(self) -> tuple[Array, float]:
        """Non-negative coefficients, and the sum of squares between sizes."""
        if (self.coefficients >= 0).all():
            return self.coefficients, self.squares
        tried: list[tuple[float, tuple[float, ...]]] = []
        # The first coefficient of an inverse law is the time of one unit, which is never zero.
        subsets = [[0, 1], [0, 2], [0]] if self.terms == 3 else [[0], [1]] if not self.is_inverse else [[0]]
        for kept in subsets:
            b, squares, _ = self._least_squares(kept)
            if (b >= 0).all():
                tried.append((squares, tuple(b)))
        squares, least = min(tried)
        return np.array(least), squares

    def _least_squares(self, kept: list[int]) -> tuple[Array, float, Array]:
        """Coefficients (0 where not kept), squares, and the derivatives of log v by the kept coefficients."""
        from scipy import optimize

        basis = self.basis(self.data.units)[:, kept]
        root = np.sqrt(self.data.counts)
        wanted = np.exp(self.goal)
        # Linear least squares with relative errors starts very close to the solution.
        b = np.linalg.lstsq(basis * (root / wanted)[:, None], root, rcond=None)[0]
        if not (basis @ b > 0).all():
            b = np.zeros(len(kept))
            b[0] = wanted.min() / basis[:, 0].max()
        # Where v is not positive its logarithm is not a number, and the step is shortened.
        with np.errstate(invalid="ignore", divide="ignore"):
            found = optimize.least_squares(
                lambda b: root * (self.goal - np.log(basis @ b)),
                b,
                lambda b: -basis / (basis @ b)[:, None] * root[:, None],
                x_scale="jac", ftol=1e-15, xtol=1e-15, gtol=None,
            )  # fmt: skip
        whole = np.zeros(self.terms)
        whole[kept] = found.x
        return whole, 2 * float(found.cost), basis / (basis @ found.x)[:, None]


class _MeanErrors:
    """The errors of the sizes' mean logs, from an unbounded fit's residuals: variances of the means, [sizes].

    Pooled over attempts and sizes; per size if they differ (Bartlett 1937, Proc. R. Soc. A 160: 268); from the sizes'
    deviation from the curve if attempts do not explain it."""

    def __init__(self, law: _UnboundedFit, data: _SizeData) -> None:
        from scipy.special import fdtrc

        between, within = len(data.units) - law.terms, data.n - len(data.units)
        floor = _NO_NOISE**2
        self.misfit_p: float | None = None
        if between > 0 and within > 0:
            excess = (law.squares / between + floor) / (data.within / within + floor)
            self.misfit_p = float(fdtrc(between, within, excess))
        self.is_misfit = self.misfit_p is not None and self.misfit_p < _MISFIT_P
        self.is_own = not self.is_misfit and _has_unequal_variances(data)
        if self.is_own:
            self.freedom: Array = data.counts - 1
            self.variances: Array = (data.squares / self.freedom + floor) / data.counts
        else:
            squares, freedom = law.squares, between
            if not self.is_misfit:
                squares, freedom = law.squares + data.within, between + within
            self.freedom = np.array([freedom], dtype=float)
            self.variances = (squares / freedom + floor) / data.counts

    @property
    def method(self) -> str:
        if self.is_misfit:
            return "t of the sizes' distances from the curve, 95 %"
        return f"t of the {'own' if self.is_own else 'pooled'} variances of attempts' log rates, 95 %"

    def half_width(self, moved: Array) -> Array:
        """Half the interval of each quantity with derivatives `moved` [quantities, sizes] by the sizes' means."""
        from scipy.special import stdtrit

        parts = moved**2 * self.variances
        whole = parts.sum(-1)
        freedom = self.freedom
        if self.is_own:
            # Satterthwaite 1946, Biometrics 2: 110.
            with np.errstate(invalid="ignore", divide="ignore"):
                freedom = np.where(whole > 0, whole**2 / (parts**2 / freedom).sum(-1), freedom.min())
        half: Array = stdtrit(freedom, 0.5 + LEVEL / 2) * np.sqrt(whole)
        return half

    def draws(self) -> tuple[Array, Array]:
        """Random (errors of the sizes' means, estimated variances), [draws, sizes], from a fixed seed."""
        errors = _normal_draws(len(self.variances)) * np.sqrt(self.variances)
        return errors, _variance_draws(tuple(self.freedom.tolist())) * self.variances

    def widening(self, moved: Array) -> float:
        """How many standard errors give a simultaneous 95 % band of several quantities, by simulation."""
        errors, taken = self.draws()
        there = (moved**2 * self.variances).sum(-1) > 0
        off = np.abs(errors @ moved[there].T) / np.sqrt(taken @ (moved[there] ** 2).T)
        return float(np.quantile(off.max(axis=1), LEVEL)) if there.any() else 0.0

    def error(self, moved: Array) -> Array:
        error: Array = np.sqrt((moved**2 * self.variances).sum(-1))
        return error


class _FittedCurve:
    """The chosen law's curve and the hull of the supported laws' bands."""

    def __init__(
        self,
        law: Law,
        coefficients: Array,
        bands: list[tuple[_UnboundedFit, _MeanErrors]],
        data: _SizeData,
        reach: float | None,
    ) -> None:
        self._coefficients = coefficients
        self._first, self._last = float(data.units[0]), float(data.units[-1])
        self._bands = []
        grid = np.geomspace(self._first, reach or 2 * self._last, 25)
        for free, noise in bands:
            rate = noise.widening(self._rate_gradient(free, grid)[1])
            # The smallest size's own speed-up is 1, and what rounding leaves of its derivatives is no direction.
            speedup = noise.widening(self._speedup_gradient(free, grid[1:])[1])
            self._bands.append((free, noise, rate, speedup))
        self._central = next((free for free, _ in bands if free.law == law), None) or _UnboundedFit(law, data)

    def rates(self, units: Sequence[float]) -> list[Band]:
        return self._bounds(units, self._rate_gradient, 0)

    def speedups(self, units: Sequence[float]) -> list[Band]:
        return self._bounds(units, self._speedup_gradient, 1)

    def _values(self, units: Array) -> Array:
        v = self._central.basis(units) @ self._coefficients
        return units / v if self._central.is_inverse else v

    def _rate_gradient(self, free: _UnboundedFit, units: Array) -> tuple[Array, Array]:
        """v, and its derivatives by the sizes' mean logs."""
        basis = free.basis(units)
        return basis @ free.coefficients, basis @ free.response

    def _speedup_gradient(self, free: _UnboundedFit, units: Array) -> tuple[Array, Array]:
        """v over that of the smallest size, and its derivatives."""
        v, moved = self._rate_gradient(free, units)
        first, moved_first = self._rate_gradient(free, np.array([self._first]))
        return v / first[0], (moved - (v / first[0])[:, None] * moved_first) / first[0]

    def _bounds(
        self, units: Sequence[float], gradient_of: Callable[[_UnboundedFit, Array], tuple[Array, Array]], which: int
    ) -> list[Band]:
        # The largest size is appended: its upper bound limits the bounds beyond it.
        n = np.array([*units, self._last], dtype=float)
        scale = n / self._first if which else n
        values = self._values(n) / (self._values(np.array([self._first])) if which else 1)
        low, high, band_low, band_high = values.copy(), values.copy(), values.copy(), values.copy()
        for free, noise, *widenings in self._bands:
            v, moved = gradient_of(free, n)
            half = noise.half_width(moved)
            for bottom, top, width in ((low, high, half), (band_low, band_high, widenings[which] * noise.error(moved))):
                # Bounds always contain the curve, and the simultaneous band contains the pointwise interval.
                below, above = v - np.maximum(width, half), v + np.maximum(width, half)
                if free.is_inverse:
                    with np.errstate(divide="ignore"):
                        below, above = (
                            np.where(above > 0, scale / above, 0.0),
                            np.where(below > 0, scale / below, np.inf),
                        )
                np.minimum(bottom, np.maximum(0.0, below), out=bottom)
                np.maximum(top, above, out=top)
        beyond = n > self._last
        for top in (high, band_high):
            # Under no law does efficiency rise again beyond the measured sizes.
            top[beyond] = np.maximum(values[beyond], np.minimum(top, n / self._last * top[-1])[beyond])
        bounds = np.stack([low, high, band_low, band_high], axis=1)[:-1].tolist()
        rows = ((x if math.isfinite(x) else None for x in row) for row in bounds)
        return [
            Band(value=value, low=low, high=high, band_low=band_low, band_high=band_high)
            for value, (low, high, band_low, band_high) in zip(values[:-1].tolist(), rows, strict=True)
        ]


def _parameters(at: Array, free: _UnboundedFit, noise: _MeanErrors, method: str) -> dict[str, Estimate]:
    """The parameters within their bounds; the interval is of the unbounded estimate, clipped to the bounds."""
    b, terms = free.coefficients, free.terms
    if free.is_inverse:
        # Derivatives by b of x1 = 1 / b0, s = b1 / b0 and k = b2 / b0.
        rows = [np.array([-1 / b[0] ** 2, *[0.0] * (terms - 1)])]
        values = [1 / b[0]]
        for i in range(1, terms):
            row = np.zeros(terms)
            row[0], row[i] = -b[i] / b[0] ** 2, 1 / b[0]
            rows.append(row)
            values.append(b[i] / b[0])
        bounded = [1 / at[0], *(at[i] / at[0] for i in range(1, terms))]
    else:
        whole = b[0] + b[1]
        rows = [np.ones(2), np.array([b[1], -b[0]]) / whole**2]
        values = [whole, b[0] / whole]
        bounded = [at[0] + at[1], at[0] / (at[0] + at[1])]
    halves = noise.half_width(np.array(rows) @ free.response)
    found = {}
    for name, value, kept, half in zip(("x1", "s", "k"), values, bounded, halves, strict=False):
        low, high = max(0.0, float(value - half)), max(0.0, float(value + half))
        if not free.is_inverse and name == "s":
            low, high = min(1.0, low), min(1.0, high)
        kept = float(kept)
        found[name] = Estimate(value=kept, low=min(low, kept), high=max(high, kept), n=free.data.n, method=method)
    return found


def _peak(at: Array, free: _UnboundedFit, noise: _MeanErrors) -> Estimate:
    """sqrt((1 - s) / k) with quantiles of its draws; no upper bound if too many draws have no peak."""
    errors, taken = noise.draws()
    # As in Student's t, errors are scaled by their estimated size.
    errors = errors * np.sqrt(noise.variances / taken)
    b = free.coefficients + errors @ free.response.T
    with np.errstate(invalid="ignore", divide="ignore"):
        there = (b[:, 2] > 0) & (b[:, 0] > b[:, 1])
        peaks = np.where(there, np.sqrt(np.maximum(0.0, b[:, 0] - b[:, 1]) / np.abs(b[:, 2])), np.inf)
    value = math.sqrt((at[0] - at[1]) / at[2])
    low = float(np.quantile(peaks, (1 - LEVEL) / 2, method="lower"))
    high = float(np.quantile(peaks, (1 + LEVEL) / 2, method="higher"))
    top = max(high, value) if math.isfinite(high) else None
    return Estimate(value=value, low=min(low, value), high=top, n=free.data.n, method="draws of the parameters, 95 %")


@functools.lru_cache(32)
def _normal_draws(sizes: int) -> Array:
    return np.random.default_rng(20071967).standard_normal((_DRAWS, sizes))


@functools.lru_cache(32)
def _variance_draws(freedom: tuple[float, ...]) -> Array:
    """Ratios of estimated to true variances, [draws, 1 or sizes]."""
    draws: Array = np.random.default_rng(19671988).chisquare(freedom, (_DRAWS, len(freedom))) / np.array(freedom)
    return draws


def _aicc(squares: float, n: int, terms: int) -> float:
    """Akaike's information criterion for normal errors of unknown variance, corrected for small samples."""
    k = terms + 1
    return n * math.log(max(squares / n, _NO_NOISE**2)) + 2 * k + 2 * k * (k + 1) / (n - k - 1)


def _has_unequal_variances(data: _SizeData) -> bool:
    """Bartlett's test of equal variances."""
    from scipy.special import chdtrc

    freedom = data.counts - 1
    if (freedom < 1).any():
        return False
    variances = data.squares / freedom + _NO_NOISE**2
    groups = len(freedom)
    pooled = float((freedom * variances).sum() / freedom.sum())
    statistic = float(freedom.sum() * math.log(pooled) - (freedom * np.log(variances)).sum())
    correction = 1 + float((1 / freedom).sum() - 1 / freedom.sum()) / (3 * (groups - 1))
    return bool(chdtrc(groups - 1, statistic / correction) < _UNEQUAL_P)
