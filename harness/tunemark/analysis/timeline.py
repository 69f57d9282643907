"""The same run over days and commits: the rate of each of its series in time, and where its level changed.

A change is shown by binary segmentation on the logarithms of the series' rates: of all ways to split a stretch, the one
with the largest t, where its p times the number of ways is below ALPHA (Bonferroni). Each side needs MIN_SERIES series,
because what differs between series (the day, the machine's state) is only seen between series.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from tunemark.results import Result

ALPHA = 0.01
MIN_SERIES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class TimelinePoint:
    """One series of a run. days: since the run's first series. code: the beginning of the hash of the code that ran.
    change: the level from here on over the level before, minus 1; None where none is shown."""

    result: Result
    started: datetime
    days: float
    code: str
    change: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunTimeline:
    """The series of a run that have a rate, by time. run_id: without the number that a report gives a second one."""

    run_id: str
    points: tuple[TimelinePoint, ...]


def make_timelines(results: Sequence[Result]) -> list[RunTimeline]:
    """A time line for each run that has a rate, which is not invalid, at two times or more."""
    by_run: dict[str, list[tuple[datetime, Result]]] = {}
    for result in results:
        started = _started(result)
        has_rate = result.tokens_per_s is not None and result.tokens_per_s.value > 0
        if started is not None and has_rate and result.verdict != "invalid":
            by_run.setdefault(result.run_id.partition("-")[0], []).append((started, result))
    found = []
    for run_id, series in by_run.items():
        series.sort(key=lambda pair: pair[0])
        if len(series) < 2:
            continue
        rates = [math.log(r.tokens_per_s.value) for _, r in series if r.tokens_per_s is not None]
        changes = find_changes(rates)
        begun = series[0][0]
        points = tuple(
            TimelinePoint(
                result=result,
                started=started,
                days=(started - begun).total_seconds() / 86400,
                code=str(result.environment.get("code_sha256") or "")[:8],
                change=changes.get(number),
            )
            for number, (started, result) in enumerate(series)
        )
        found.append(RunTimeline(run_id=run_id, points=points))
    return found


def find_changes(log_rates: Sequence[float]) -> dict[int, float]:
    """By the number of the first value of a new level: that level over the one before, minus 1."""
    starts = sorted(_split(log_rates, 0, len(log_rates)))
    edges = [0, *starts, len(log_rates)]
    levels = [sum(log_rates[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    return {start: math.expm1(levels[i + 1] - levels[i]) for i, start in enumerate(starts)}


def _split(values: Sequence[float], first: int, last: int) -> list[int]:
    """The places in [first, last) at which a new level begins."""
    places = range(first + MIN_SERIES, last - MIN_SERIES + 1)
    best: tuple[float, int] | None = None
    for place in places:
        p = _compare(values[first:place], values[place:last])
        if best is None or p < best[0]:
            best = (p, place)
    if best is None or not best[0] * len(places) < ALPHA:
        return []
    place = best[1]
    return [*_split(values, first, place), place, *_split(values, place, last)]


def _compare(before: Sequence[float], after: Sequence[float]) -> float:
    """The p of Student's t of two means with one variance."""
    from scipy import stats  # slow to import

    means = statistics.fmean(before), statistics.fmean(after)
    squares = sum((x - mean) ** 2 for values, mean in zip((before, after), means, strict=True) for x in values)
    freedom = len(before) + len(after) - 2
    error = math.sqrt(squares / freedom * (1 / len(before) + 1 / len(after)))
    if error == 0:  # no scatter at all: a difference is a change
        return 0.0 if means[0] != means[1] else 1.0
    return float(2 * stats.t.sf(abs(means[1] - means[0]) / error, freedom))


def _started(result: Result) -> datetime | None:
    try:
        return datetime.fromisoformat(str(result.environment.get("started_utc")))
    except ValueError:
        return None
