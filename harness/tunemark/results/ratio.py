"""The ratio of two runs' rates with its interval, from their attempts, on the log scale.

The unit of replication is the attempt. Attempts taken in rounds are compared in pairs by round, so that a drift of the
machine cancels out; otherwise each side has its own variance (Welch 1947, Biometrika 34: 28, with the degrees of
freedom of Satterthwaite 1946, Biometrics Bulletin 2: 110). Several simultaneous tests share one level by Holm's method
(1979, Scandinavian Journal of Statistics 6: 65).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from tunemark.results.result import AttemptRow, Estimate, Result

LEVEL = 0.95


class Ratio(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A ratio of rates with its 95 % interval. low, high, p: null if a side has only one attempt.

    n: attempts of each side, the compared side first; for a combination of several runs, of each in order.
    method: paired or Welch, or why there is no interval. p: two-sided, of a true ratio of 1.
    """

    value: float
    low: float | None
    high: float | None
    n: tuple[int, ...]
    method: str
    p: float | None

    @property
    def contains_one(self) -> bool | None:
        """Whether the interval contains 1; None without an interval."""
        return None if self.low is None or self.high is None else self.low <= 1 <= self.high

    def as_estimate(self) -> Estimate:
        """The same without its p value; n is that of the side with fewer attempts."""
        return Estimate(value=self.value, low=self.low, high=self.high, n=min(self.n), method=self.method)


class RatioTerm(NamedTuple):
    """One run in a combination of logarithms: its weight and its attempts' rates, all above 0."""

    weight: float
    rates: Sequence[float]


def estimate_ratio(terms: Sequence[RatioTerm], *, in_rounds: bool, level: float = LEVEL) -> Ratio:
    """exp of the weighted sum of mean log rates: weights 1 and -1 make a ratio. Negating every weight gives the
    inverse, and a common factor of all rates cancels if the weights sum to 0.

    in_rounds: attempt i of every run was taken in round i.
    """
    # scipy.stats has the same functions under plainer names and takes three times as long to load.
    from scipy.special import stdtr, stdtrit  # Student's t: probability below t, and its inverse

    n = tuple(len(term.rates) for term in terms)
    logs = [[math.log(rate) for rate in term.rates] for term in terms]
    center = math.fsum(term.weight * math.fsum(values) / len(values) for term, values in zip(terms, logs, strict=True))
    if min(n) < 2:
        few = "one attempt" if max(n) < 2 else "one attempt on a side"
        return Ratio(value=math.exp(center), low=None, high=None, n=n, method=f"none: {few}", p=None)
    if in_rounds:
        assert len(set(n)) == 1, "a round has one attempt of each run"
        rounds = [math.fsum(t.weight * v[i] for t, v in zip(terms, logs, strict=True)) for i in range(n[0])]
        variance, df = _variance(rounds) / n[0], float(n[0] - 1)
        method = f"paired t on log {100 * level:.0f} %"
    else:
        parts = [t.weight**2 * _variance(v) / len(v) for t, v in zip(terms, logs, strict=True)]
        variance = math.fsum(parts)
        squares = math.fsum(part**2 / (len(v) - 1) for part, v in zip(parts, logs, strict=True))
        df = max(1.0, variance**2 / squares) if squares else float(sum(n) - len(n))
        method = f"Welch t on log {100 * level:.0f} %"
    error = math.sqrt(variance)
    half = float(stdtrit(df, 0.5 + level / 2)) * error
    p = 2 * float(stdtr(df, -abs(center) / error)) if error else float(center == 0)
    return Ratio(
        value=math.exp(center), low=math.exp(center - half), high=math.exp(center + half), n=n, method=method, p=p
    )


def _variance(values: Sequence[float]) -> float:
    """The sample variance of two values or more. That of `statistics` computes with fractions, which takes most of the
    time where thousands of runs are compared."""
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def rate_ratio(result: Result, base: Result) -> Ratio:
    """A run's rate over another's; paired if their attempts were taken in rounds."""
    terms = [RatioTerm(1.0, attempt_rates(result)), RatioTerm(-1.0, attempt_rates(base))]
    return estimate_ratio(terms, in_rounds=is_in_rounds([result, base]))


def adjust_p_values(p: Sequence[float | None]) -> list[float | None]:
    """Adjust p values by Holm's method: rejecting those at or below a level has at most that family-wise error rate.
    None values are no tests and are not counted."""
    known = sorted((value, i) for i, value in enumerate(p) if value is not None)
    adjusted: list[float | None] = [None] * len(p)
    largest = 0.0
    for rank, (value, i) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * value))
        adjusted[i] = largest
    return adjusted


def attempt_rates(result: Result) -> list[float]:
    """The content tokens per second of a run's attempts that ended with status ok, in order of time."""
    return [row.tokens_per_s for row in _rated_attempts(result) if row.tokens_per_s]


def is_in_rounds(results: Sequence[Result]) -> bool:
    """True if the runs' attempts were taken in rounds on one host: each run once, in any order, then each again.
    Decided by the attempts' names, which begin with the time of their start."""
    starts = [[row.name.partition("-")[0] for row in _rated_attempts(r)] for r in results]
    hosts = {_host(r) for r in results}
    if len({len(row) for row in starts}) != 1 or len(hosts) != 1 or None in hosts or not all(map(all, starts)):
        return False
    if not all(_is_timestamp(name) for row in starts for name in row):
        return False
    rounds = list(zip(*starts, strict=True))
    return all(max(former) < min(latter) for former, latter in itertools.pairwise(rounds))


def _rated_attempts(result: Result) -> list[AttemptRow]:
    return [row for row in result.each_attempt if row.status == "ok" and row.tokens_per_s]


def _host(result: Result) -> object:
    worker, host = (result.environment.get(name) or {} for name in ("worker", "host"))
    return worker.get("node") or host.get("name")


def _is_timestamp(name: str) -> bool:
    day, separator, time = name.partition("T")
    return bool(separator) and len(day) == 8 and len(time) == 6 and (day + time).isdecimal()
