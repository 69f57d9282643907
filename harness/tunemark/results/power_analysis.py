"""Tests whether a run is slower than its baseline, and how many attempts it takes to detect a change.

One-sided Student's t test on log throughput with the variance of both sides pooled: if nothing changed it is the same
noise, and the baseline's alone suffices to judge a single new attempt. Since that noise is itself an estimate, power is
averaged over the values that the estimate leaves possible, sd / S as in `tunemark.results.student` (the assurance of
O'Hagan, Stevens and Campbell 2005, Pharmaceutical Statistics 4: 187), so that few attempts do not promise too much.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tunemark.results import student

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
    if len(series) >= MIN_SERIES:
        means = [math.fsum(map(math.log, rates)) / len(rates) for rates in series]
        return Noise(math.sqrt(_sum_of_squares(means) / (len(means) - 1)), len(means) - 1, len(means))
    logs = [math.log(rate) for rates in series for rate in rates]
    if len(logs) < 2:
        return None
    return Noise(math.sqrt(_sum_of_squares(logs) / (len(logs) - 1)), len(logs) - 1, len(logs))


def estimate_slowdown(series: Sequence[Sequence[float]], new: Sequence[float], level: float = 0.95) -> Slowdown | None:
    """Test a run's attempts against a baseline's series; None if the noise is unknown."""
    noise = estimate_noise(series)
    if noise is None or not new:
        return None
    logs = [math.log(rate) for rate in new]
    mean = math.fsum(logs) / len(logs)
    if len(series) >= MIN_SERIES:
        means = [math.fsum(map(math.log, rates)) / len(rates) for rates in series]
        base = math.fsum(means) / len(means)
        sd, df, error = noise.sd, noise.df, _series_error(series, noise, len(new))
    else:
        every = [math.log(rate) for rates in series for rate in rates]
        base = math.fsum(every) / len(every)
        df = noise.df + len(logs) - 1
        sd = math.sqrt((noise.sd**2 * noise.df + _sum_of_squares(logs)) / df)
        error = sd * math.sqrt(1 / len(every) + 1 / len(logs))
    difference = mean - base
    half = student.quantile(0.5 + level / 2, df) * error
    p = student.exceeds(-difference / error, df) if error else float(difference >= 0)
    return Slowdown(math.exp(difference), math.exp(difference - half), math.exp(difference + half), p, sd, df, error)


def detection_power(change: float, error: float, noise_df: int, test_df: int, alpha: float) -> float:
    """The probability that a rate lower by the fraction `change` is detected at level alpha, if the standard error of
    the ratio's logarithm is estimated as `error` with `noise_df` degrees of freedom."""
    if error <= 0:
        return 1.0
    critical = student.quantile(1 - alpha, test_df)
    shift = -math.log1p(-change) / error
    return student.mean_over_scales(noise_df, lambda s: student.exceeds(critical, test_df, shift * s))


def attempts_needed(change: float, noise: Noise, wanted: float, alpha: float) -> int | None:
    """New attempts against this baseline that detect the change with the wanted power; None if no number does."""

    def is_enough(n: int) -> bool:
        error = noise.sd * math.sqrt(1 / noise.units + 1 / n)
        return detection_power(change, error, noise.df, noise.units + n - 2, alpha) >= wanted

    return _least(is_enough)


def attempts_needed_of_both(change: float, noise: Noise, wanted: float, alpha: float) -> int | None:
    """Attempts of the baseline and of the new run, equally many, that detect the change in this noise."""

    def is_enough(n: int) -> bool:
        return detection_power(change, noise.sd * math.sqrt(2 / n), noise.df, 2 * n - 2, alpha) >= wanted

    return _least(is_enough, first=2)


def series_needed(change: float, noise: Noise, wanted: float, alpha: float) -> int | None:
    """Series of a baseline against which one new series detects the change, in this noise between series."""

    def is_enough(k: int) -> bool:
        return detection_power(change, noise.sd * math.sqrt(1 + 1 / k), noise.df, k - 1, alpha) >= wanted

    return _least(is_enough, first=MIN_SERIES)


def series_difference_p(series: Sequence[Sequence[float]]) -> float | None:
    """p of two series' attempts having one mean, by Student's t; None unless there are two with two attempts each."""
    if len(series) != 2 or min(map(len, series)) < 2:
        return None
    one, other = ([math.log(rate) for rate in rates] for rates in series)
    df = len(one) + len(other) - 2
    error = math.sqrt((_sum_of_squares(one) + _sum_of_squares(other)) / df * (1 / len(one) + 1 / len(other)))
    difference = math.fsum(one) / len(one) - math.fsum(other) / len(other)
    return student.two_sided(difference / error, df) if error else float(difference == 0)


def _series_error(series: Sequence[Sequence[float]], noise: Noise, attempts: int) -> float:
    """Standard error of a new series' mean against the mean of the baseline's series. With fewer attempts than they
    have it is noisier by the variance within a series; more attempts earn no credit."""
    within = math.fsum(_sum_of_squares([math.log(rate) for rate in rates]) for rates in series)
    df = sum(len(rates) - 1 for rates in series)
    usual = len(series) / math.fsum(1 / len(rates) for rates in series)
    more = within / df * max(0.0, 1 / attempts - 1 / usual) if df else 0.0
    return math.sqrt(noise.sd**2 * (1 + 1 / len(series)) + more)


def _least(is_enough: Callable[[int], bool], first: int = 1) -> int | None:
    """The least number for which it is true, by doubling and bisection; None above MOST."""
    low, high = first - 1, first
    while not is_enough(high):
        if high >= MAX_ATTEMPTS:
            return None
        low, high = high, min(MAX_ATTEMPTS, 2 * high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def _sum_of_squares(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((x - mean) ** 2 for x in values)
