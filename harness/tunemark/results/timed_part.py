"""The timed part of an attempt: which windows count, and what other processes did meanwhile."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from tunemark.results.measurement import CpuLoad, JobTokens, Measurement, RankRecords, WindowEdge
from tunemark.results.result import RunIdentity
from tunemark_worker import steady_state


@dataclass(frozen=True, kw_only=True, slots=True)
class TimedPart:
    """The timed windows of one attempt, on its slowest rank. first, last: its steps, last excluded."""

    rank: RankRecords
    edges: tuple[WindowEdge, ...]
    counts: tuple[JobTokens, ...]
    warmup_steps: int
    is_settled: bool

    @property
    def first(self) -> int:
        return self.edges[0].steps

    @property
    def last(self) -> int:
        return self.edges[-1].steps

    @property
    def durations(self) -> list[float]:
        return [b.instant_s - a.instant_s for a, b in itertools.pairwise(self.edges)]

    @property
    def seconds_per_step(self) -> list[float]:
        return [(b.instant_s - a.instant_s) / (b.steps - a.steps) for a, b in itertools.pairwise(self.edges)]

    @property
    def even_seconds_per_step(self) -> list[float]:
        """`seconds_per_step`, each scaled to the slots that all timed steps have on average: where steps differ in
        width, longer ones are not slower ones."""
        slots = [max(1, counts.slots) for counts in self.counts]
        mean = sum(slots) / (self.last - self.first)
        return [duration * mean / n for duration, n in zip(self.durations, slots, strict=True)]

    @property
    def interval_s(self) -> float:
        return self.edges[-1].instant_s - self.edges[0].instant_s

    @property
    def total(self) -> JobTokens:
        return JobTokens(*(sum(column) for column in zip(*self.counts, strict=True)))

    def edges_of(self, rank: RankRecords) -> tuple[WindowEdge, ...]:
        """The edges of a rank's windows in these steps."""
        # Edges are sorted and this runs for every rank, so bisect.
        first = bisect.bisect_left(rank.edges, self.first, key=_steps_at)
        return rank.edges[first : bisect.bisect_right(rank.edges, self.last, key=_steps_at)]


def find_timed_part(measurement: Measurement, identity: RunIdentity) -> TimedPart | None:
    """The timed part of an attempt; None if no window was completed."""
    if not measurement.is_whole:
        return None
    # Ranks that were killed may have stopped at different windows.
    common = min(len(rank.edges) for rank in measurement.ranks)
    common = min(common, sum(e.steps <= measurement.step_count for e in measurement.ranks[0].edges[:common]))
    if common < 2:
        return None
    # The worker decides on rank 0 when to stop, so rank 0's windows give the same end of warm-up here.
    leader = measurement.ranks[0].edges[:common]
    wanted = identity.warmup_requested
    if wanted is None:
        warm = steady_state.find_warmup_end(_seconds_of_work(measurement, leader))
    else:
        warm = next((i for i, edge in enumerate(leader) if edge.steps >= wanted), None)
        warm = None if warm == common - 1 else warm
    first = warm if warm is not None else (common - 1) // 2
    last = common - 1
    if identity.steps_requested is not None and warm is not None:
        goal = leader[first].steps + identity.steps_requested
        last = next((i for i, edge in enumerate(leader) if i > first and edge.steps >= goal), last)
    slowest = max(measurement.ranks, key=lambda r: r.edges[last].instant_s - r.edges[first].instant_s)
    edges = slowest.edges[first : last + 1]
    counts = tuple(measurement.counts(a.steps, b.steps) for a, b in itertools.pairwise(edges))
    return TimedPart(
        rank=slowest, edges=edges, counts=counts, warmup_steps=leader[first].steps, is_settled=warm is not None
    )


def _seconds_of_work(measurement: Measurement, edges: Sequence[WindowEdge]) -> list[float]:
    """Seconds of each window of rank 0 for each unit of its work, as the worker counts it."""
    pairs = list(itertools.pairwise(edges))
    batching, rank = measurement.assignment.batching, measurement.ranks[0]
    slots = (
        [sum(step.slots for step in rank.steps[a.steps : b.steps]) for a, b in pairs] if batching == "bucket" else []
    )
    work = steady_state.window_work(batching, [b.steps - a.steps for a, b in pairs], slots)
    return [(b.instant_s - a.instant_s) / n for (a, b), n in zip(pairs, work, strict=True)]


def timed_seconds_per_step(measurement: Measurement, identity: RunIdentity) -> tuple[float, ...]:
    """Seconds per step of each timed window of an attempt, on its slowest rank; empty if nothing was timed."""
    timed = find_timed_part(measurement, identity)
    return tuple(timed.seconds_per_step) if timed else ()


def load_of_others(measurement: Measurement, timed: TimedPart) -> tuple[float | None, int]:
    """The share of the job's cores' time that other processes used during the timed part, and the number of cores.

    Ranks on the same cores record the same busy seconds, but each only its own use."""
    groups: dict[tuple[int, ...], list[tuple[float, float, float]]] = {}
    for rank in measurement.ranks:
        cores = tuple(rank.facts.get("affinity") or ())
        edges = timed.edges_of(rank)
        pair = _loads_around(rank.loads, edges[0].instant_s, edges[-1].instant_s)
        if not cores or pair is None or pair[0].busy_s is None or pair[1].busy_s is None:
            return None, 0
        seconds = pair[1].instant_s - pair[0].instant_s
        row = (seconds, pair[1].busy_s - pair[0].busy_s, pair[1].own_s - pair[0].own_s)
        groups.setdefault(cores, []).append(row)
    cores_s = others_s = 0.0
    for cores, rows in groups.items():
        seconds, busy_s, _ = rows[0]
        cores_s += len(cores) * seconds
        others_s += busy_s - sum(own_s * seconds / lasted_s for lasted_s, _, own_s in rows)
    return max(0.0, others_s / cores_s), sum(map(len, groups))


def _loads_around(loads: Sequence[CpuLoad], first_s: float, last_s: float) -> tuple[CpuLoad, CpuLoad] | None:
    """The last load record before the timed part and the first after it, or the nearest there are."""
    before = [load for load in loads if load.instant_s <= first_s] or list(loads[:1])
    after = [load for load in loads if load.instant_s >= last_s] or list(loads[-1:])
    if not before or not after or after[0].instant_s <= before[-1].instant_s:
        return None
    return before[-1], after[0]


def minor_faults_per_step(measurement: Measurement, timed: TimedPart) -> float | None:
    """Minor page faults of all ranks per timed step; None if unknown for a rank."""
    total = 0
    for rank in measurement.ranks:
        edges = timed.edges_of(rank)
        pair = _loads_around(rank.loads, edges[0].instant_s, edges[-1].instant_s)
        if pair is None or pair[0].minor_faults is None or pair[1].minor_faults is None:
            return None
        # The load records lie slightly outside the window edges.
        share = (edges[-1].instant_s - edges[0].instant_s) / (pair[1].instant_s - pair[0].instant_s)
        total += round((pair[1].minor_faults - pair[0].minor_faults) * share)
    return total / (timed.last - timed.first)


def _steps_at(edge: WindowEdge) -> int:
    return edge.steps
