"""The raw steps of an attempt by window: all of them, or thinned for drawing with the extremes kept."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from tunemark.errors import BadStore
from tunemark.results.measurement import Measurement, RankRecords, read_measurement
from tunemark.results.result import AttemptRow
from tunemark.results.stored_file import read_stored_file

TRACE_FILE = "steps.jsonl"
# A chart of 700 points has two for each millimetre of a printed page.
MAX_WINDOWS = 400


class TraceWindow(msgspec.Struct, frozen=True, array_like=True):
    """One window. steps: done at its end, since the start. end_s: since the first edge. Tokens are of the whole job."""

    steps: int
    end_s: float
    step_time_s: float
    slots: int
    content: int
    trained: int


class Trace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One attempt of a run, on its slowest rank, which its rate uses.

    first, last: the steps between which was timed; None if nothing was. windows: how many there were; `kept` has the
    fastest and the slowest of each stretch if there were more than POINTS.
    """

    run_id: str
    attempt: str
    rank: int
    first: int | None
    last: int | None
    windows: int
    kept: tuple[TraceWindow, ...]

    def is_timed(self, steps: int) -> bool:
        """Whether the window that ends after this step was timed."""
        return self.first is not None and self.last is not None and self.first < steps <= self.last


def make_trace(measurement: Measurement, run_id: str, row: AttemptRow, most: int = MAX_WINDOWS) -> Trace | None:
    """Make the trace of one attempt; None if no window was completed. `row` says which part was timed."""
    first = row.warmup_steps
    last = None if first is None else first + row.steps_measured
    ranks = [rank for rank in measurement.ranks if len(rank.edges) > 1]
    if not ranks:
        return None
    slowest = max(ranks, key=lambda rank: _timed_s(rank, first, last))
    start_s = slowest.edges[0].instant_s
    windows = []
    for a, b in itertools.pairwise(slowest.edges):
        slots, content, trained = measurement.counts(a.steps, b.steps)
        window_s = b.instant_s - a.instant_s
        windows.append(
            TraceWindow(b.steps, b.instant_s - start_s, window_s / (b.steps - a.steps), slots, content, trained)
        )
    return Trace(
        run_id=run_id,
        attempt=row.name,
        rank=slowest.rank,
        first=first,
        last=last,
        windows=len(windows),
        kept=tuple(thin_windows(windows, most)),
    )


def thin_windows(windows: Sequence[TraceWindow], most: int) -> list[TraceWindow]:
    """Thin more than `most` windows to the fastest and slowest of each stretch; the first and last are kept."""
    if len(windows) <= most:
        return list(windows)
    stretch = -(-len(windows) // max(1, most // 2 - 1))
    kept = {0, len(windows) - 1}
    for start in range(0, len(windows), stretch):
        some = range(start, min(start + stretch, len(windows)))
        kept |= {min(some, key=lambda i: windows[i].step_time_s), max(some, key=lambda i: windows[i].step_time_s)}
    return [windows[i] for i in sorted(kept)]


def encode_traces(traces: Iterable[Trace]) -> bytes:
    """Encode traces as JSON lines."""
    encoder = msgspec.json.Encoder()
    return b"".join(encoder.encode(each) + b"\n" for each in traces)


def read_traces(folder: Path) -> list[Trace]:
    """Read traces from a report's folder, which may have none; lines of another form are skipped."""
    found = []
    try:
        lines = read_stored_file(folder / TRACE_FILE).splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            each = msgspec.json.decode(line, type=Trace)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            continue
        # A file that another program wrote may have a million windows.
        found.append(msgspec.structs.replace(each, kept=tuple(thin_windows(each.kept, MAX_WINDOWS))))
    return found


def read_trace(folder: Path, run_id: str, row: AttemptRow, most: int = MAX_WINDOWS) -> Trace | None:
    """Read the trace of a stored attempt; None if its records are missing or broken."""
    try:
        return make_trace(read_measurement(folder), run_id, row, most)
    except BadStore:
        return None


def _timed_s(rank: RankRecords, first: int | None, last: int | None) -> float:
    """Seconds of the timed part on one rank; of all its windows if nothing was timed."""
    at = {edge.steps: edge.instant_s for edge in rank.edges if edge.steps in (first, last)}
    if len(at) < 2:
        return rank.edges[-1].instant_s - rank.edges[0].instant_s
    return at[last] - at[first]  # type: ignore[index]  # both are steps of edges
