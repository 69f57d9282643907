"""Where a series of windows becomes steady, and the confidence interval of its rate. Pure functions; Python 3.8.

Step times are autocorrelated and skewed. So changes are judged against a robust scale of successive differences, and
an interval is that of batch means (Law and Kelton, Simulation Modeling and Analysis, ch. 9), whose correlation is
treated as unknown, like their mean (Zellner and Tiao 1964, JASA 59: 763).
"""

from __future__ import annotations

import math
from typing import Callable, NamedTuple, Optional, Sequence, Tuple

# With fewer windows there is no interval: it would be too wide for any conclusion.
MIN_WINDOWS = 6
# Windows without a change after which the warm-up is over.
STEADY_WINDOWS = 8
# Standardised difference of two segments' means that counts as a change. With 4.5, one flat run in thirty seems to
# change, which costs it some windows; a missed warm-up would bias the result.
_CHANGE = 4.5
# Possible correlations of neighbouring batches, with equal prior probability.
_CORRELATIONS = tuple(0.05 * i for i in range(20))
# Windows are grouped into about this many batches.
_BATCHES = 40
# Differences of step times below this fraction of the median do not matter.
_SCALE_FLOOR = 0.005


class Interval(NamedTuple):
    """A value and its bounds, None if unknown. n: number of observations (windows or attempts)."""

    value: float
    low: Optional[float]
    high: Optional[float]
    n: int
    method: str


def window_work(batching: str, steps: Sequence[int], slots: Sequence[int]) -> Sequence[int]:
    """What the seconds of windows are divided by to compare them: their steps, or their slots where steps differ in
    slots."""
    return [max(1, count) for count in slots] if batching == "bucket" else steps


def find_warmup_end(seconds_per_step: Sequence[float]) -> Optional[int]:
    """Number of warm-up windows, known as soon as STEADY_WINDOWS steady ones follow them and not changed by later ones;
    None until then. The seconds may be those of any unit of work: only their ratios matter."""
    for n in range(STEADY_WINDOWS, len(seconds_per_step) + 1):
        prefix = seconds_per_step[:n]
        start = 0
        while n - start >= STEADY_WINDOWS:
            change = _find_change(prefix[start:])
            if change is None:
                return start
            start += change
    return None


def within_run_interval(durations: Sequence[float], tokens: Sequence[float], level: float = 0.95) -> Interval:
    """The rate sum(tokens) / sum(durations) with an interval by batch means.

    The residuals d_i - t_i / rate are grouped into batches, whose mean is that of a first-order autoregression. For
    each possible correlation the mean has Student's t distribution; the interval holds `level` of their mixture,
    weighted by the likelihood of each correlation. It is exact if windows are independent in the long run, and wide if
    there are too few to tell.
    """
    total_s, total = math.fsum(durations), math.fsum(tokens)
    rate = total / total_s
    n = len(durations)
    if n < MIN_WINDOWS:
        return Interval(rate, None, None, n, "none: fewer than {} windows".format(MIN_WINDOWS))
    residuals = [d - t / rate for d, t in zip(durations, tokens)]
    size = max(1, n // _BATCHES)
    batches = [math.fsum(residuals[i : i + size]) / size for i in range(0, n - size + 1, size)]
    # The mean residual per window, times n windows, against the whole interval.
    half = _half_width(batches, level) * n / total_s
    method = "within-run batch means {:.0f} %".format(100 * level)
    return Interval(rate, rate / (1 + half), rate * (1 + half), n, method)


def between_attempts_interval(rates: Sequence[float], level: float = 0.95) -> Interval:
    """The geometric mean of attempts' rates with a t interval on their logarithms; no bounds for fewer than two."""
    n = len(rates)
    logs = [math.log(r) for r in rates]
    mean = math.fsum(logs) / n
    if n < 2:
        return Interval(rates[0], None, None, n, "none: one attempt")
    error = math.sqrt(math.fsum((x - mean) ** 2 for x in logs) / (n - 1) / n)
    half = t_quantile(0.5 + level / 2, n - 1) * error
    method = "between-attempt t on log {:.0f} %".format(100 * level)
    return Interval(math.exp(mean), math.exp(mean - half), math.exp(mean + half), n, method)


def theil_sen_trend(seconds_per_step: Sequence[float]) -> Tuple[float, float]:
    """(change over the whole series relative to its median, by the Theil-Sen slope; two-sided p of Mann-Kendall's test
    with its variance inflated for the lag-1 correlation of the residuals)."""
    values = list(seconds_per_step)
    stride = -(-len(values) // 200)
    values = values[::stride]
    n = len(values)
    if n < MIN_WINDOWS:
        return 0.0, 1.0
    slopes = sorted((values[j] - values[i]) / (j - i) for i in range(n) for j in range(i + 1, n))
    slope = _median(slopes)
    signs = sum((s > 0) - (s < 0) for s in slopes)
    residuals = [x - slope * i for i, x in enumerate(values)]
    correlation = _correlation(residuals)
    variance = n * (n - 1) * (2 * n + 5) / 18 * (1 + correlation) / (1 - correlation)
    z = max(0.0, abs(signs) - 1) / math.sqrt(variance)
    return slope * (n - 1) / _median(sorted(values)), math.erfc(z / math.sqrt(2))


def slope_over_error(values: Sequence[float]) -> float:
    """The least-squares slope divided by its standard error; 0 for fewer than 8 values."""
    n = len(values)
    if n < 8:
        return 0.0
    x_mean, y_mean = (n - 1) / 2, math.fsum(values) / n
    sxx = math.fsum((i - x_mean) ** 2 for i in range(n))
    slope = math.fsum((i - x_mean) * (y - y_mean) for i, y in enumerate(values)) / sxx
    residual = math.fsum((y - y_mean - slope * (i - x_mean)) ** 2 for i, y in enumerate(values))
    error = math.sqrt(residual / (n - 2) / sxx)
    return slope / error if error > 0 else math.copysign(math.inf, slope) if slope else 0.0


def t_quantile(p: float, df: int) -> float:
    """Student's t quantile for p in (0, 1) and integer degrees of freedom, by bisection."""
    if p < 0.5:
        return -t_quantile(1 - p, df)
    return _find_least(lambda t: 0.5 + _t_mass(t, df) / 2 >= p, 1.0)


def _half_width(values: Sequence[float], level: float) -> float:
    """Half width of the interval of a mean, with unknown variance and lag-1 correlation."""
    n = len(values)
    mean = math.fsum(values) / n
    weights, centres, errors = [], [], []
    for phi in _CORRELATIONS:
        # Whitened: the first value, then the part of each that the one before does not predict.
        first, other = math.sqrt(1 - phi * phi), 1 - phi
        weight = first * first + (n - 1) * other * other
        white = [first * values[0], *(b - phi * a for a, b in zip(values, values[1:]))]
        centre = (first * white[0] + other * math.fsum(white[1:])) / weight
        square = (white[0] - first * centre) ** 2 + math.fsum((w - other * centre) ** 2 for w in white[1:])
        if square <= 0:
            return abs(centre - mean)
        weights.append(math.log(first) - 0.5 * math.log(weight) - 0.5 * (n - 1) * math.log(square))
        centres.append(centre - mean)
        errors.append(math.sqrt(square / (n - 1) / weight))
    heaviest = max(weights)
    weights = [math.exp(w - heaviest) for w in weights]
    required = level * math.fsum(weights)

    def is_wide_enough(half: float) -> bool:
        parts = zip(weights, centres, errors)
        share = (w * (_t_mass((half - c) / e, n - 1) + _t_mass((half + c) / e, n - 1)) / 2 for w, c, e in parts)
        return math.fsum(share) >= required

    return _find_least(is_wide_enough, max(errors))


def _find_least(is_enough: Callable[[float], bool], start: float) -> float:
    """The least positive number for which `is_enough` holds, to seven digits, by bisection."""
    low, high = 0.0, start
    while not is_enough(high):
        low, high = high, 2 * high
    while high - low > 1e-7 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def _t_mass(t: float, df: int) -> float:
    """Twice the probability that Student's t lies between 0 and t, with the sign of t, by the finite series for integer
    degrees of freedom (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(df))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    odd = df % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for k in range(odd, df - 1, 2):
        total += term
        term *= square * (k + 1) / (k + 2)
    return (angle + sine * total) * 2 / math.pi if odd else sine * total


def _find_change(values: Sequence[float]) -> Optional[int]:
    """The index at which the level changes most clearly; None if no change is significant."""
    n = len(values)
    differences = [abs(b - a) for a, b in zip(values, values[1:])]
    # Also of the later half alone, because swings of a warm-up would hide its change. The median of |differences| of
    # independent normal values is 0.9539 sigma.
    swing = min(_median(sorted(differences)), _median(sorted(differences[n // 2 :])))
    scale = max(swing / 0.9539, _SCALE_FLOOR * _median(sorted(values)))
    best, change, left = 0.0, None, 0.0
    total = math.fsum(values)
    for k in range(1, n):
        left += values[k - 1]
        difference = abs(left / k - (total - left) / (n - k)) / (scale * math.sqrt(1 / k + 1 / (n - k)))
        if difference > best:
            best, change = difference, k
    return change if best > _CHANGE else None


def _correlation(values: Sequence[float]) -> float:
    """Lag-1 autocorrelation, corrected for small-sample bias and clamped to 0 to 0.8."""
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
