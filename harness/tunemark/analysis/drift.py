"""Whether the timed steps of a run were even, had some slow ones among them, or drifted.

The mean step time is the median plus what slow steps add, so a change of the mean splits into two: all steps changed,
or some did. Neither says why; each rules out the causes of the other. Where steps differ in slots, each counts as one
of the mean number of slots would, so that a wide one is not a slow one.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec

from tunemark.results.trace import Trace

# A window whose steps took at least this many medians is slow.
SLOW_WINDOW = 1.5
# With fewer windows the thirds cannot be compared.
_MIN_WINDOWS = 6


class StepTimeSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The timed windows of all attempts. mean_s, median_s: of a step. slow: windows of SLOW medians or more; slow_s:
    seconds that they took in total beyond the median. drift: the median of an attempt's last third over that of its
    first, the median of attempts; null if none has enough windows."""

    windows: int
    mean_s: float
    median_s: float
    slow: int
    slow_s: float
    drift: float | None


def summarize_step_times(traces: Sequence[Trace]) -> StepTimeSummary | None:
    """Summarize step times; None if nothing was timed, or if windows are missing: thinned ones keep only extremes."""
    if any(len(each.kept) < each.windows for each in traces):
        return None
    rows = [_timed_windows(each) for each in traces]
    every = [window for row in rows for window in row]
    if not every:
        return None
    steps = sum(count for count, _ in every)
    seconds = sum(count * seconds_per_step for count, seconds_per_step in every)
    median = statistics.median(seconds_per_step for _, seconds_per_step in every)
    slow = [(count, seconds_per_step) for count, seconds_per_step in every if seconds_per_step >= SLOW_WINDOW * median]
    drifts = [drift for row in rows if (drift := _drift([seconds_per_step for _, seconds_per_step in row])) is not None]
    return StepTimeSummary(
        windows=len(every),
        mean_s=seconds / steps,
        median_s=median,
        slow=len(slow),
        slow_s=sum(count * (seconds_per_step - median) for count, seconds_per_step in slow),
        drift=statistics.median(drifts) if drifts else None,
    )


def _timed_windows(trace: Trace) -> list[tuple[int, float]]:
    """(steps, seconds per step) of each timed window, scaled to the mean slots of a step."""
    if trace.first is None or trace.last is None:
        return []
    found = []
    done = 0
    for window in trace.kept:
        if trace.first < window.steps <= trace.last:
            found.append((window.steps - done, window.step_time_s, window.slots))
        done = window.steps
    if not all(slots for _, _, slots in found):
        return [(steps, seconds) for steps, seconds, _ in found]
    mean = sum(slots for _, _, slots in found) / max(1, sum(steps for steps, _, _ in found))
    return [(steps, seconds * (mean * steps / slots)) for steps, seconds, slots in found]


def _drift(times: Sequence[float]) -> float | None:
    third = len(times) // 3
    if len(times) < _MIN_WINDOWS:
        return None
    first, last = statistics.median(times[:third]), statistics.median(times[-third:])
    return last / first if first else None
