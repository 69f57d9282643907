"""How the timed steps of a run went by: evenly, with some slow ones among them, or slower and slower.

A mean step is the median one and what the slower steps add to it, so that a change of the mean is a sum of two: every
step changed, or some did. Neither says why; each rules out the causes of the other.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec

from tunemark.results.trace import Trace

# A window of which each step took this many medians is called slow.
SLOW = 1.5
# Fewer windows have no thirds that could be held against each other.
_FEWEST = 6


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """The timed windows of all attempts. mean_s, median_s: of a step. slow: windows of SLOW medians and more, slow_s:
    seconds that all of them took beyond the median. drift: the median of each attempt's last third over that of its
    first, the median of attempts; null where none has enough windows."""

    windows: int
    mean_s: float
    median_s: float
    slow: int
    slow_s: float
    drift: float | None


def pace(traces: Sequence[Trace]) -> Pace | None:
    """None where nothing was timed, or where not all windows are there: of the extremes alone nothing is typical."""
    if any(len(each.kept) < each.windows for each in traces):
        return None
    rows = [_timed(each) for each in traces]
    every = [window for row in rows for window in row]
    if not every:
        return None
    steps = sum(count for count, _ in every)
    seconds = sum(count * took for count, took in every)
    median = statistics.median(took for _, took in every)
    slow = [(count, took) for count, took in every if took >= SLOW * median]
    drifts = [drift for row in rows if (drift := _drift([took for _, took in row])) is not None]
    return Pace(
        windows=len(every),
        mean_s=seconds / steps,
        median_s=median,
        slow=len(slow),
        slow_s=sum(count * (took - median) for count, took in slow),
        drift=statistics.median(drifts) if drifts else None,
    )


def _timed(trace: Trace) -> list[tuple[int, float]]:
    """(steps, seconds of each) of the timed windows."""
    if trace.first is None or trace.last is None:
        return []
    found = []
    done = 0
    for window in trace.kept:
        if trace.first < window.steps <= trace.last:
            found.append((window.steps - done, window.step_time_s))
        done = window.steps
    return found


def _drift(times: Sequence[float]) -> float | None:
    third = len(times) // 3
    if len(times) < _FEWEST:
        return None
    first, last = statistics.median(times[:third]), statistics.median(times[-third:])
    return last / first if first else None
