"""Where a row of windows becomes steady, and how well its rate is known. Pure functions; standard library; Python 3.8.

Step times are autocorrelated and skewed, so: changes are judged against a robust scale of successive differences,
and intervals come from batch means with a correction for what correlation is left between batches
(Law and Kelton, Simulation Modeling and Analysis, ch. 9; Chien 1988 on the small-sample bias of the correlation).
"""

from __future__ import annotations

import math
from typing import NamedTuple, Optional, Sequence, Tuple

# Fewer windows than this bear no interval: t with fewer degrees of freedom is wider than any conclusion.
MIN_WINDOWS = 6
# Standardised difference of two segments' means that is a change. 4.5 keeps false alarms below 1 % over all splits of
# 100 windows while the scale itself is estimated.
_CHANGE = 4.5
# Step times that differ by less than this share of the median are the same to any reader.
_SCALE_FLOOR = 0.005


class Interval(NamedTuple):
    """A value with its bounds; None where they cannot be known. n: what the method rests on (windows, attempts)."""

    value: float
    low: Optional[float]
    high: Optional[float]
    n: int
    method: str


def warmup_end(seconds_per_step: Sequence[float]) -> Optional[int]:
    """Windows of warm-up, decided as soon as MIN_WINDOWS steady ones have been seen after them; later ones never
    alter the answer. None where that has not happened."""
    for n in range(MIN_WINDOWS, len(seconds_per_step) + 1):
        prefix = seconds_per_step[:n]
        start = 0
        while n - start >= MIN_WINDOWS:
            change = _change(prefix[start:])
            if change is None:
                return start
            start += change
    return None


def within_run(durations: Sequence[float], tokens: Sequence[float], level: float = 0.95) -> Interval:
    """The rate sum(tokens) / sum(durations) with an interval by batch means.

    The residuals d_i - t_i / rate are grouped into batches; their variance is inflated for the lag-1 correlation
    between batches, its bias corrected, and the degrees of freedom are reduced accordingly.
    """
    total_s, total = math.fsum(durations), math.fsum(tokens)
    rate = total / total_s
    n = len(durations)
    if n < MIN_WINDOWS:
        return Interval(rate, None, None, n, "none: fewer than {} windows".format(MIN_WINDOWS))
    residuals = [d - t / rate for d, t in zip(durations, tokens)]
    size = max(1, n // 20)
    batches = [math.fsum(residuals[i : i + size]) / size for i in range(0, n - size + 1, size)]
    b = len(batches)
    mean = math.fsum(batches) / b
    variance = math.fsum((x - mean) ** 2 for x in batches) / (b - 1)
    correlation = _correlation(batches)
    inflation = (1 + correlation) / (1 - correlation)
    freedom = max(2.0, (b - 1) / inflation)
    # The mean residual per window, times n windows, against the whole interval.
    error = math.sqrt(variance * inflation / b) * n / total_s
    half = t_quantile(0.5 + level / 2, freedom) * error
    method = "within-run batch means {:.0f} %".format(100 * level)
    return Interval(rate, rate / (1 + half), rate * (1 + half), n, method)


def between_attempts(rates: Sequence[float], level: float = 0.95) -> Interval:
    """The geometric mean of attempts' rates with t on their logarithms; no bounds for fewer than two."""
    n = len(rates)
    logs = [math.log(r) for r in rates]
    mean = math.fsum(logs) / n
    if n < 2:
        return Interval(rates[0], None, None, n, "none: one attempt")
    error = math.sqrt(math.fsum((x - mean) ** 2 for x in logs) / (n - 1) / n)
    half = t_quantile(0.5 + level / 2, n - 1) * error
    method = "between-attempt t on log {:.0f} %".format(100 * level)
    return Interval(math.exp(mean), math.exp(mean - half), math.exp(mean + half), n, method)


def trend(seconds_per_step: Sequence[float]) -> Tuple[float, float]:
    """(change over the whole part relative to its median by the Theil-Sen slope, two-sided p of Mann-Kendall's test
    with its variance inflated for the lag-1 correlation of what the slope leaves)."""
    values = list(seconds_per_step)
    stride = -(-len(values) // 200)
    values = values[::stride]
    n = len(values)
    if n < MIN_WINDOWS:
        return 0.0, 1.0
    slopes = sorted((values[j] - values[i]) / (j - i) for i in range(n) for j in range(i + 1, n))
    slope = _median(slopes)
    signs = sum((s > 0) - (s < 0) for s in slopes)
    left = [x - slope * i for i, x in enumerate(values)]
    correlation = _correlation(left)
    variance = n * (n - 1) * (2 * n + 5) / 18 * (1 + correlation) / (1 - correlation)
    z = max(0.0, abs(signs) - 1) / math.sqrt(variance)
    return slope * (n - 1) / _median(sorted(values)), math.erfc(z / math.sqrt(2))


def rising(values: Sequence[float]) -> float:
    """The least-squares slope over its standard error; 0 for fewer than 8 values."""
    n = len(values)
    if n < 8:
        return 0.0
    x_mean, y_mean = (n - 1) / 2, math.fsum(values) / n
    sxx = math.fsum((i - x_mean) ** 2 for i in range(n))
    slope = math.fsum((i - x_mean) * (y - y_mean) for i, y in enumerate(values)) / sxx
    rest = math.fsum((y - y_mean - slope * (i - x_mean)) ** 2 for i, y in enumerate(values))
    error = math.sqrt(rest / (n - 2) / sxx)
    return slope / error if error > 0 else math.copysign(math.inf, slope) if slope else 0.0


def t_quantile(p: float, df: float) -> float:
    """Student's t quantile, by bisection on its distribution function (regularised incomplete beta)."""
    if p < 0.5:
        return -t_quantile(1 - p, df)
    low, high = 0.0, 1.0
    while _t_cdf(high, df) < p:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        if _t_cdf(middle, df) < p:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _change(values: Sequence[float]) -> Optional[int]:
    """Where the segment most clearly changes its level; None where nowhere significantly."""
    n = len(values)
    differences = sorted(abs(b - a) for a, b in zip(values, values[1:]))
    # Median of |differences| of independent normal values is 0.9539 sigma.
    scale = max(_median(differences) / 0.9539, _SCALE_FLOOR * _median(sorted(values)))
    best, where, left = 0.0, None, 0.0
    total = math.fsum(values)
    for k in range(1, n):
        left += values[k - 1]
        apart = abs(left / k - (total - left) / (n - k)) / (scale * math.sqrt(1 / k + 1 / (n - k)))
        if apart > best:
            best, where = apart, k
    return where if best > _CHANGE else None


def _correlation(values: Sequence[float]) -> float:
    """Lag-1 autocorrelation with its small-sample bias corrected, between 0 and 0.8."""
    n = len(values)
    mean = math.fsum(values) / n
    square = math.fsum((x - mean) ** 2 for x in values)
    if square == 0:
        return 0.0
    raw = math.fsum((a - mean) * (b - mean) for a, b in zip(values, values[1:])) / square
    return min(0.8, max(0.0, raw + (1 + 3 * max(0.0, raw)) / n))


def _median(ordered: Sequence[float]) -> float:
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _t_cdf(t: float, df: float) -> float:
    return 1 - 0.5 * _beta(df / (df + t * t), df / 2, 0.5)


def _beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function, by its continued fraction (DLMF 8.17.22)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta(1 - x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    return front / _continued(x, a, b)


def _continued(x: float, a: float, b: float) -> float:
    """1 + d1 / (1 + d2 / (1 + ...)), evaluated from the back with enough terms for 1e-12."""
    value = 1.0
    for i in range(200, 0, -1):
        m = i // 2
        if i % 2 == 0:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        value = 1 + term / value
    return value
