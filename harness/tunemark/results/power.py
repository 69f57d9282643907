"""Whether a run has become slower than its baseline, and how many attempts it takes to see a change.

One-sided Student's t on log throughput with the noise of both sides taken together: where nothing has changed it is the
same noise, and a baseline's alone allows a claim on a single new attempt. The power of a test under a noise that is
itself only estimated is its mean over what the estimate leaves possible, sd / S as in `tunemark.results.student`
(the assurance of O'Hagan, Stevens and Campbell 2005, Pharmaceutical Statistics 4: 187), so that few attempts promise
less than they seem to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tunemark.results import student

# Nobody measures more often than this; beyond it a change is out of reach of this noise.
MOST = 1000
# From so many series on, what differs between them is measured by themselves.
SERIES = 3


class Noise(NamedTuple):
    """Standard deviation of log throughput of one unit (an attempt, or a series' mean), known to `df` degrees of
    freedom. units: as many as the baseline has."""

    sd: float
    df: int
    units: int


class Slowdown(NamedTuple):
    """The new rate over the baseline's. low, high: 95 %, two-sided. p: one-sided, of a ratio of 1 or more.
    sd: the noise of one unit, of both sides, known to
    df degrees of freedom. error: of the ratio's logarithm."""

    ratio: float
    low: float
    high: float
    p: float
    sd: float
    df: int
    error: float


def noise_of(series: Sequence[Sequence[float]]) -> Noise | None:
    """The noise of a baseline from its series' attempts' rates; None where there are not two attempts.

    Three series or more are the units themselves, since what differs between series then shows. Of fewer, the attempts
    are, all taken together.
    """
    if len(series) >= SERIES:
        means = [math.fsum(map(math.log, rates)) / len(rates) for rates in series]
        return Noise(math.sqrt(_square(means) / (len(means) - 1)), len(means) - 1, len(means))
    logs = [math.log(rate) for rates in series for rate in rates]
    if len(logs) < 2:
        return None
    return Noise(math.sqrt(_square(logs) / (len(logs) - 1)), len(logs) - 1, len(logs))


def slowdown(series: Sequence[Sequence[float]], new: Sequence[float], level: float = 0.95) -> Slowdown | None:
    """The test of a run's attempts against a baseline's series; None where the noise is not known."""
    noise = noise_of(series)
    if noise is None or not new:
        return None
    logs = [math.log(rate) for rate in new]
    mean = math.fsum(logs) / len(logs)
    if len(series) >= SERIES:
        middles = [math.fsum(map(math.log, rates)) / len(rates) for rates in series]
        base = math.fsum(middles) / len(middles)
        sd, df, error = noise.sd, noise.df, _series_error(series, noise, len(new))
    else:
        every = [math.log(rate) for rates in series for rate in rates]
        base = math.fsum(every) / len(every)
        df = noise.df + len(logs) - 1
        sd = math.sqrt((noise.sd**2 * noise.df + _square(logs)) / df)
        error = sd * math.sqrt(1 / len(every) + 1 / len(logs))
    apart = mean - base
    half = student.quantile(0.5 + level / 2, df) * error
    p = student.exceeds(-apart / error, df) if error else float(apart >= 0)
    return Slowdown(math.exp(apart), math.exp(apart - half), math.exp(apart + half), p, sd, df, error)


def power(change: float, error: float, noise_df: int, test_df: int, alpha: float) -> float:
    """The probability that a rate lower by the fraction `change` is called slower at the level alpha, where the
    error of the ratio's logarithm is estimated as `error` with `noise_df` degrees of freedom."""
    if error <= 0:
        return 1.0
    critical = student.quantile(1 - alpha, test_df)
    shift = -math.log1p(-change) / error
    return student.mean_over_scales(noise_df, lambda s: student.exceeds(critical, test_df, shift * s))


def attempts_needed(change: float, noise: Noise, wanted: float, alpha: float) -> int | None:
    """New attempts against this baseline that see the change with the wanted power; None where no number does."""

    def sees(n: int) -> bool:
        error = noise.sd * math.sqrt(1 / noise.units + 1 / n)
        return power(change, error, noise.df, noise.units + n - 2, alpha) >= wanted

    return _least(sees)


def attempts_of_both(change: float, noise: Noise, wanted: float, alpha: float) -> int | None:
    """Attempts of the baseline and of the new run, as many of each, that see the change in noise like this."""

    def sees(n: int) -> bool:
        return power(change, noise.sd * math.sqrt(2 / n), noise.df, 2 * n - 2, alpha) >= wanted

    return _least(sees, first=2)


def series_needed(change: float, noise: Noise, wanted: float, alpha: float) -> int | None:
    """Series of a baseline against which one new series sees the change, in noise like this between series."""

    def sees(k: int) -> bool:
        return power(change, noise.sd * math.sqrt(1 + 1 / k), noise.df, k - 1, alpha) >= wanted

    return _least(sees, first=SERIES)


def series_differ(series: Sequence[Sequence[float]]) -> float | None:
    """p of two series' attempts having one mean, by Student's t; None where there are not two to tell."""
    if len(series) != 2 or min(map(len, series)) < 2:
        return None
    one, other = ([math.log(rate) for rate in rates] for rates in series)
    df = len(one) + len(other) - 2
    error = math.sqrt((_square(one) + _square(other)) / df * (1 / len(one) + 1 / len(other)))
    apart = math.fsum(one) / len(one) - math.fsum(other) / len(other)
    return student.two_sided(apart / error, df) if error else float(apart == 0)


def _series_error(series: Sequence[Sequence[float]], noise: Noise, attempts: int) -> float:
    """Of a new series' mean against the mean of the baseline's series. One of fewer attempts than theirs is noisier by
    what attempts differ within a series; one of more is credited nothing."""
    within = math.fsum(_square([math.log(rate) for rate in rates]) for rates in series)
    df = sum(len(rates) - 1 for rates in series)
    usual = len(series) / math.fsum(1 / len(rates) for rates in series)
    more = within / df * max(0.0, 1 / attempts - 1 / usual) if df else 0.0
    return math.sqrt(noise.sd**2 * (1 + 1 / len(series)) + more)


def _least(sees: Callable[[int], bool], first: int = 1) -> int | None:
    """The least number for which it is true, found by doubling and halving; None above MOST."""
    low, high = first - 1, first
    while not sees(high):
        if high >= MOST:
            return None
        low, high = high, min(MOST, 2 * high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if sees(middle) else (middle, high)
    return high


def _square(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((x - mean) ** 2 for x in values)
