"""Explain why one run is slower than another: their differences, ranked by how much each can change the rate.

Nothing is guessed: a cause's weight is computed from the two runs' own figures, bounded by them, or was measured in a
source that its basis names. Without any of the three, the weight is reported as unknown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from tunemark.analysis import comparability
from tunemark.analysis.cause_weights import (
    UNKNOWN,
    CauseEstimate,
    CauseKind,
    CauseWeight,
    fact_kind,
    setting_kind,
    weigh_fact,
    weigh_setting,
)
from tunemark.analysis.comparability import exclusion_reason
from tunemark.analysis.drift import StepTimeSummary, summarize_step_times
from tunemark.analysis.environment import environment_facts
from tunemark.errors import BadExperiment
from tunemark.results.ratio import Ratio, rate_ratio
from tunemark.results.result import Result, StepTime
from tunemark.results.trace import Trace

# History of the schema (of `why --json`): 1, first form; 2, with the pace.
SCHEMA = 2

# A smaller relative change of a rate is below the noise of any run.
NEGLIGIBLE = 0.005


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """A difference. factor: by how much it can change the rate, 1 or more; null if unknown. expected: B's rate over A's
    by this cause alone, if computable. weight: how the factor is known. basis: its arithmetic or source."""

    name: str
    kind: CauseKind
    a: Any
    b: Any
    weight: CauseWeight
    factor: float | None
    expected: float | None
    basis: str


class StepPart(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a step in seconds, null on a side without it. share: of the whole step's change."""

    name: str
    a_s: float | None
    b_s: float | None
    share: float | None


class RateFactor(msgspec.Struct, frozen=True, kw_only=True):
    """A factor of the rate; the product of all ratios is the ratio of the rates."""

    name: str
    a: float
    b: float
    ratio: float


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Two runs, their ratio (null if one cannot be compared: `reason`), and their differences.

    step_time_s: of each run, median and 95th percentile; null if nothing was timed. explained: the product of the
    expected ratios. parts: of a step, from the breakdowns of both runs; parts_reason: why there are none. pace: a
    summary of each run's timed steps; null without raw steps. unknown: facts missing on one side or both.
    """

    a: str
    b: str
    a_run: str
    b_run: str
    ratio: Ratio | None
    reason: str
    pieces: tuple[RateFactor, ...]
    step_time_s: tuple[StepTime | None, StepTime | None]
    causes: tuple[Cause, ...]
    explained: float | None
    parts: tuple[StepPart, ...]
    parts_reason: str
    pace: tuple[StepTimeSummary | None, StepTimeSummary | None]
    unknown: tuple[str, ...]
    notes: tuple[str, ...]
    schema: int = SCHEMA


def explain_difference(
    a: Result,
    b: Result,
    *,
    names: tuple[str, str] = ("A", "B"),
    breakdowns: tuple[Result | None, Result | None] = (None, None),
    traces: tuple[Sequence[Trace], Sequence[Trace]] = ((), ()),
) -> Explanation:
    """Find all differences between two runs. breakdowns: the same runs with every part of a step timed, if any.
    traces: of the two runs' attempts, if available.

    Raises `BadExperiment` for a simulated and a measured run.
    """
    if a.simulated != b.simulated:
        raise BadExperiment(
            what="one of the runs is simulated",
            why="a simulator's figures say nothing of how fast anything is",
            next="compare measured runs with measured ones",
        )
    obstacles = [f"{n} takes no part: {o}" for n, r in zip(names, (a, b), strict=True) if (o := exclusion_reason(r))]
    ratio = None if obstacles else rate_ratio(b, a)
    parts, parts_reason = _parts(*breakdowns)
    causes = sorted(_causes(a, b, parts), key=_sort_key)
    worked_out = [cause.expected for cause in causes if cause.expected is not None]
    facts = [environment_facts(r) for r in (a, b)]
    missing = [
        name for name in dict.fromkeys([*facts[0], *facts[1]]) if None in (facts[0].get(name), facts[1].get(name))
    ]
    return Explanation(
        a=names[0], b=names[1], a_run=a.run_id, b_run=b.run_id, ratio=ratio, reason="; ".join(obstacles),
        pieces=_pieces(a, b), step_time_s=(a.step_time_s, b.step_time_s), causes=tuple(causes),
        explained=math.prod(worked_out) if worked_out else None,
        parts=parts, parts_reason=parts_reason,
        pace=(summarize_step_times(traces[0]), summarize_step_times(traces[1])), unknown=tuple(missing),
        notes=tuple(_notes(a, b, names)),
    )  # fmt: skip


def _sort_key(cause: Cause) -> tuple[object, ...]:
    """Sort key: largest factors first, then unknown ones, settings before versions, then negligible ones."""
    kinds = ("setting", "data", "hardware", "version", "host", "load")
    place = 1 if cause.factor is None else 0 if cause.factor > 1 + NEGLIGIBLE else 2
    return place, -(cause.factor or 0.0), kinds.index(cause.kind), cause.name


def _notes(a: Result, b: Result, names: tuple[str, str]) -> list[str]:
    notes = []
    for name, result in zip(names, (a, b), strict=True):
        rules = [f"{f.rule}: {f.message}" for f in result.findings if f.severity in ("invalid", "suspect")]
        notes += [f"{name} is {result.verdict}: {rule}" for rule in rules]
        if result.status != "ok":
            ends = [row for row in result.each_attempt if row.status != "ok"]
            notes.append(f"{name} ended {result.status}" + (f": {ends[-1].evidence}" if ends else ""))
    if a.simulated:
        notes.append("simulated: no figure here says how fast anything is")
    one, other = (_RATE_FACTORS["slots per step"](r) for r in (a, b))
    if one and other and abs(other / one - 1) > NEGLIGIBLE:
        words = f"a step of {names[0]} has {one:,.0f} slots, one of {names[1]} {other:,.0f}"
        notes.append(f"{words}: seconds per step are not of the same work")
    return notes


def _pieces(a: Result, b: Result) -> tuple[RateFactor, ...]:
    """Factor content tokens per second into slots per step, content share of slots, and steps per second."""
    found = []
    for name, of in _RATE_FACTORS.items():
        one, other = of(a), of(b)
        if not one or not other:
            return ()
        found.append(RateFactor(name=name, a=one, b=other, ratio=other / one))
    return tuple(found)


_RATE_FACTORS: Mapping[str, Callable[[Result], float | None]] = {
    "slots per step": lambda r: r.tokens.slots / r.steps_measured if r.tokens and r.steps_measured else None,
    "content share of slots": lambda r: r.tokens.content / r.tokens.slots if r.tokens and r.tokens.slots else None,
    "steps per second": lambda r: r.steps_measured / r.interval_s if r.interval_s else None,
}


def _parts(a: Result | None, b: Result | None) -> tuple[tuple[StepPart, ...], str]:
    if a is None or b is None or not a.breakdown_s or not b.breakdown_s:
        return (), "no parts of a step were timed on both sides (`tunemark run --breakdown` times them)"
    names = list(dict.fromkeys([*a.breakdown_s, *b.breakdown_s]))
    change = math.fsum(b.breakdown_s.values()) - math.fsum(a.breakdown_s.values())
    parts = []
    for name in names:
        one, other = a.breakdown_s.get(name), b.breakdown_s.get(name)
        apart = (other or 0.0) - (one or 0.0)
        parts.append(StepPart(name=name, a_s=one, b_s=other, share=apart / change if change else None))
    return tuple(sorted(parts, key=lambda part: -abs((part.b_s or 0.0) - (part.a_s or 0.0)))), ""


def _causes(a: Result, b: Result, parts: Sequence[StepPart]) -> list[Cause]:
    found = []

    def add(name: str, kind: CauseKind, one: Any, other: Any, judged: CauseEstimate) -> None:
        found.append(Cause(name=name, kind=kind, a=one, b=other, **judged._asdict()))

    for name, (one, other) in comparability.find_differences([a, b], comparability.COMPARED_FIELDS).items():
        judged = _optimizer(parts) if name == "optimizer" else weigh_setting(name, a, b)
        add(name, setting_kind(name), one, other, judged)
    facts = [environment_facts(r) for r in (a, b)]
    for name in dict.fromkeys([*facts[0], *facts[1]]):
        one, other = (each.get(name) for each in facts)
        if one is not None and other is not None and one != other:
            add(name, fact_kind(name), one, other, weigh_fact(name, a, b, one, other))
    return _merge_same_arithmetic(found)


def _optimizer(parts: Sequence[StepPart]) -> CauseEstimate:
    """Bound an optimizer's effect by its share of a step."""
    for part in parts:
        if part.name == "optimizer" and part.a_s and part.b_s:
            rest = [math.fsum(side or 0.0 for p in parts if p is not part for side in [of(p)]) for of in _SIDES]
            shares = [1 + s / r for s, r in zip((part.a_s, part.b_s), rest, strict=True) if r > 0]
            if shares:
                words = f"its part of a step, {part.a_s:.4g} and {part.b_s:.4g} s"
                return CauseEstimate("bound", max(shares), None, words)
    return UNKNOWN


_SIDES: tuple[Callable[[StepPart], float | None], ...] = (lambda part: part.a_s, lambda part: part.b_s)


def _merge_same_arithmetic(causes: Sequence[Cause]) -> list[Cause]:
    """Count differences with the same arithmetic (a size and its chips) once: the others refer to the first."""
    seen: dict[str, str] = {}
    kept = []
    for cause in causes:
        if cause.expected is not None and cause.basis in seen:
            words = f"worked out under {seen[cause.basis]}"
            cause = msgspec.structs.replace(cause, factor=1.0, expected=None, basis=words)
        elif cause.expected is not None:
            seen[cause.basis] = cause.name
        kept.append(cause)
    return kept
