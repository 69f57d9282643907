"""Student's t, central and shifted, for any degrees of freedom: what comparisons and gates need of it.

T = (Z + shift) / S, where Z is normal and S the root of an independent chi-squared over its degrees of freedom, so a
tail is the mean of normal tails over S. The integral is taken over log S, where the trapezoidal rule converges
exponentially (Trefethen and Weideman 2014, SIAM Review 56: 385).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable


def exceeds(t: float, df: float, shift: float = 0.0) -> float:
    """The probability that a t of `df` degrees of freedom (1 or more), shifted by `shift`, lies above `t`."""
    return math.fsum(weight * 0.5 * math.erfc((t * s - shift) / math.sqrt(2)) for s, weight in _scales(float(df)))


def two_sided(t: float, df: float) -> float:
    """The probability of a central t further from 0 than `t`."""
    return min(1.0, 2 * exceeds(abs(t), df))


@functools.lru_cache(4096)
def quantile(p: float, df: float) -> float:
    """The value that a central t lies below with probability p, in (0, 1); by bisection to 12 digits."""
    if p < 0.5:
        return -quantile(1 - p, df)
    low, high = 0.0, 1.0
    while exceeds(high, df) > 1 - p:
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if exceeds(middle, df) > 1 - p else (low, middle)
    return high


def scale_above(df: float, confidence: float) -> float:
    """The factor on a standard deviation seen with `df` degrees of freedom that the true one lies below with this
    confidence: 1 over the lower quantile of S."""
    scales = _scales(float(df), finer=32)
    below, former = 0.0, scales[0][0]
    for s, weight in scales:
        if below + weight >= 1 - confidence:
            # Half a step further: a point's weight belongs to the step around it.
            share = (1 - confidence - below) / weight - 0.5
            return math.exp(-math.log(s) - share * math.log(s / former))
        below, former = below + weight, s
    raise AssertionError("the weights sum to 1")


def mean_over_scales(df: float, of: Callable[[float], float]) -> float:
    """The mean of a smooth function of S that lies between 0 and 1, to 6 digits."""
    return math.fsum(weight * of(s) for s, weight in _scales(float(df), finer=0.5) if weight > 1e-8)


@functools.lru_cache(256)
def _scales(df: float, finer: float = 1) -> tuple[tuple[float, float], ...]:
    """Values of S with their weights, which sum to 1, rising."""
    # The density of log S is proportional to S^df exp(-df S^2 / 2): its mode is S = 1, its width about 1 / sqrt(2 df).
    step = 1 / (4 * max(4.0, math.sqrt(df)) * finer)

    def log_density(u: float) -> float:
        return df * (u - math.exp(2 * u) / 2 + 0.5)

    first = last = 0
    while log_density(first * step) > -45:
        first -= 1
    while log_density(last * step) > -45:
        last += 1
    points = [(math.exp(i * step), math.exp(log_density(i * step))) for i in range(first, last + 1)]
    total = math.fsum(density for _, density in points)
    return tuple((s, density / total) for s, density in points)
