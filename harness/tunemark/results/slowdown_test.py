"""Tests whether a run is slower than its baseline, and how many attempts it takes to detect a change.

One-sided Student's t test on log throughput with the variance of both sides pooled: if nothing changed it is the same
noise, and the baseline's alone suffices to judge a single new attempt. Since that noise is itself an estimate, power is
averaged over the values that the estimate leaves possible (the assurance of O'Hagan, Stevens and Campbell 2005,
Pharmaceutical Statistics 4: 187), so that few attempts do not promise too much: sd / S, where S is the root of a
chi-squared over its degrees of freedom.
"""

from __future__ import annotations

import bisect
import math
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

# Nobody measures more often; a change that needs more attempts counts as undetectable in this noise.
MAX_ATTEMPTS = 1000
# From this many series on, the variation between series is estimated from the series themselves.
MIN_SERIES = 3


class Noise(NamedTuple):
    """Standard deviation of log throughput of one unit (an attempt, or a series' mean), with `df` degrees of freedom.
    units: how many the baseline has."""

    sd: float
    df: int
    units: int


class Slowdown(NamedTuple):
    """The new rate over the baseline's. low, high: 95 % interval, two-sided. p: one-sided, of a ratio of 1 or more.
    sd: the pooled noise of one unit, with df degrees of freedom. error: standard error of the ratio's logarithm."""

    ratio: float
    low: float
    high: float
    p: float
    sd: float
    df: int
    error: float


def estimate_noise(series: Sequence[Sequence[float]]) -> Noise | None:
    """Estimate the noise of a baseline from the rates of its series' attempts; None with fewer than two attempts.

    With three series or more the units are the series, which then show their variation. With fewer, the units are all
    attempts pooled.
    """
    logs = [_logs(rates) for rates in series]
    units = [statistics.fmean(row) for row in logs] if len(series) >= MIN_SERIES else [x for row in logs for x in row]
    return Noise(statistics.stdev(units), len(units) - 1, len(units)) if len(units) > 1 else None


def estimate_slowdown(series: Sequence[Sequence[float]], new: Sequence[float], level: float = 0.95) -> Slowdown | None:
    """Test a run's attempts against a baseline's series; None if the noise is unknown."""
    from scipy.special import stdtr, stdtrit  # Student's t: probability below t, and its inverse

    noise = estimate_noise(series)
    if noise is None or not new:
        return None
    old, logs = [_logs(rates) for rates in series], _logs(new)
    if len(series) >= MIN_SERIES:
        base = statistics.fmean(map(statistics.fmean, old))
        sd, df, error = noise.sd, noise.df, _series_error(old, noise, len(new))
    else:
        base = statistics.fmean(x for row in old for x in row)
        df = noise.df + len(logs) - 1
        sd = math.sqrt((noise.sd**2 * noise.df + _sum_of_squares(logs)) / df)
        error = sd * math.sqrt(1 / noise.units + 1 / len(logs))
    difference = statistics.fmean(logs) - base
    half = float(stdtrit(df, 0.5 + level / 2)) * error
    p = float(stdtr(df, difference / error)) if error else float(difference >= 0)
    return Slowdown(math.exp(difference), math.exp(difference - half), math.exp(difference + half), p, sd, df, error)


def detection_power(change: float, error: float, noise_df: int, test_df: int, alpha: float) -> float:
    """The probability that a rate lower by the fraction `change` is detected at level alpha, if the standard error of
    the ratio's logarithm is estimated as `error` with `noise_df` degrees of freedom."""
    if error <= 0:
        return 1.0
    import numpy as np
    from scipy import stats

    # The mean over S is an integral over log S, whose density is e^(df (u - e^(2u) / 2)) but for a factor. There the
    # trapezoidal rule converges exponentially (Trefethen and Weideman 2014, SIAM Review 56: 385).
    u = np.linspace(-20, 7, 129) / math.sqrt(noise_df)
    density = np.exp(noise_df * (u - np.exp(2 * u) / 2 + 0.5))
    seen = density > 1e-9
    shift = -math.log1p(-change) / error
    powers = stats.nct.sf(stats.t.ppf(1 - alpha, test_df), test_df, shift * np.exp(u[seen]))
    return float(np.average(powers, weights=density[seen]))


def attempts_needed(change: float, noise: Noise, wanted: float, alpha: float) -> int | None:
    """New attempts against this baseline that detect the change with the wanted power; None if no number does."""
    return _least(change, noise, wanted, alpha, lambda n: (1 / noise.units + 1 / n, noise.units + n - 2))


def attempts_needed_of_both(change: float, noise: Noise, wanted: float, alpha: float) -> int | None:
    """Attempts of the baseline and of the new run, equally many, that detect the change in this noise."""
    return _least(change, noise, wanted, alpha, lambda n: (2 / n, 2 * n - 2), first=2)


def series_needed(change: float, noise: Noise, wanted: float, alpha: float) -> int | None:
    """Series of a baseline against which one new series detects the change, in this noise between series."""
    return _least(change, noise, wanted, alpha, lambda k: (1 + 1 / k, k - 1), first=MIN_SERIES)


def series_difference_p(series: Sequence[Sequence[float]]) -> float | None:
    """p of two series' attempts having one mean, by Student's t; None unless there are two with two attempts each."""
    if len(series) != 2 or min(map(len, series)) < 2:
        return None
    from scipy.special import stdtr

    one, other = map(_logs, series)
    df = len(one) + len(other) - 2
    error = math.sqrt((_sum_of_squares(one) + _sum_of_squares(other)) / df * (1 / len(one) + 1 / len(other)))
    difference = statistics.fmean(one) - statistics.fmean(other)
    return 2 * float(stdtr(df, -abs(difference) / error)) if error else float(difference == 0)


def _series_error(logs: Sequence[Sequence[float]], noise: Noise, attempts: int) -> float:
    """Standard error of a new series' mean against the mean of the baseline's series. With fewer attempts than they
    have it is noisier by the variance within a series; more attempts earn no credit."""
    within = math.fsum(map(_sum_of_squares, logs))
    df = sum(len(row) - 1 for row in logs)
    usual = statistics.harmonic_mean(map(len, logs))
    more = within / df * max(0.0, 1 / attempts - 1 / usual) if df else 0.0
    return math.sqrt(noise.sd**2 * (1 + 1 / len(logs)) + more)


def _least(
    change: float, noise: Noise, wanted: float, alpha: float, test: Callable[[int], tuple[float, int]], first: int = 1
) -> int | None:
    """The least number of units, from `first` on, with the wanted power; None above MAX_ATTEMPTS. test: by that number,
    the variance of the ratio's logarithm over the noise's, and the test's degrees of freedom."""

    def is_enough(n: int) -> bool:
        variance, df = test(n)
        return detection_power(change, noise.sd * math.sqrt(variance), noise.df, df, alpha) >= wanted

    least = first + bisect.bisect_left(range(first, MAX_ATTEMPTS + 1), True, key=is_enough)
    return least if least <= MAX_ATTEMPTS else None


def _logs(rates: Sequence[float]) -> list[float]:
    return [math.log(rate) for rate in rates]


def _sum_of_squares(values: Sequence[float]) -> float:
    mean = statistics.fmean(values)
    return math.fsum((x - mean) ** 2 for x in values)
