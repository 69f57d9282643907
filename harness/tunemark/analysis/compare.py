"""Compare runs that differ only in chosen fields: ratios with intervals, and the gain of automatic parallelization.

A run that is not ok, or invalid, is listed but not compared. All outcomes of a comparison ("faster", "slower") hold
jointly at 95 % by Holm's method; the intervals are 95 % each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from tunemark.analysis import comparability
from tunemark.analysis.auto_gain import SEARCHED_FIELDS, AutoGain, compute_auto_gains
from tunemark.analysis.comparability import ComparedRun, Outcome
from tunemark.analysis.environment import differing_facts
from tunemark.errors import BadExperiment
from tunemark.fields import read_fields
from tunemark.results.ratio import (
    LEVEL,
    Ratio,
    adjust_p_values,
    attempt_rates,
    rate_ratio,
)
from tunemark.results.result import Estimate, Result

# How many runs without a counterpart are listed; each is compared with all others, and nobody reads more.
_MAX_UNMATCHED = 20

# History of the schema (of `compare --json`): 1, first form; 2, gains name the run that they are of.
SCHEMA = 2


class ComparisonRow(msgspec.Struct, frozen=True, kw_only=True):
    """One run against its group's baseline. label: its value of the axis. reason: why it is not compared, or has no
    interval. ratio: its rate over the baseline's. p_holm: the ratio's p, adjusted for all tests of the comparison.
    memory_ratio: peak memory over the baseline's; one figure each, so without an interval."""

    label: str
    run_id: str
    status: str
    verdict: str
    simulated: bool
    outcome: Outcome
    reason: str
    attempts: int
    tokens_per_s: Estimate | None
    ratio: Ratio | None
    p_holm: float | None
    peak_memory_bytes: int | None
    memory_ratio: float | None
    time_to_first_step_s: float | None
    search_s: float | None
    strategy_selected: dict[str, Any] | None
    requested_bytes: int | None
    findings: tuple[str, ...]


class ComparisonGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Runs that are comparable but for the axis. shared: fields in which all agree. despite: overlooked fields that
    differ, with each row's value. surroundings: environment facts that differ, likewise. notes: for the reader."""

    shared: dict[str, Any]
    despite: dict[str, tuple[Any, ...]]
    surroundings: dict[str, tuple[Any, ...]]
    baseline: str | None
    rows: tuple[ComparisonRow, ...]
    worth: tuple[AutoGain, ...]
    notes: tuple[str, ...]


class UnmatchedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run without a counterpart. differs: the fields in which the nearest run differs, each with both values."""

    label: str
    run_id: str
    nearest: str | None
    differs: dict[str, tuple[Any, ...]]


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A whole comparison. by: the axes. despite: fields overlooked on request. claims: number of ratios with an
    interval, whose outcomes hold jointly at `level`."""

    by: tuple[str, ...]
    despite: tuple[str, ...]
    level: float
    claims: int
    groups: tuple[ComparisonGroup, ...]
    alone: tuple[UnmatchedRun, ...]
    notes: tuple[str, ...]
    schema: int = SCHEMA


def compare(
    a: Sequence[Result], b: Sequence[Result], *, despite: Collection[str] = (), names: tuple[str, str] = ("A", "B")
) -> Comparison:
    """Compare each run of `b` with its counterpart in `a`. Raises `BadExperiment` if no two are comparable."""
    free = comparability.find_free_fields((), despite)
    notes: list[str] = []
    a, b = _without_breakdowns(a, notes), _without_breakdowns(b, notes)
    ours, theirs = (_by_key(results, free, name) for results, name in ((a, names[0]), (b, names[1])))
    groups = [
        _group(
            [ComparedRun(label=names[0], result=ours[k]), ComparedRun(label=names[1], result=theirs[k])], (), free, None
        )
        for k in ours
        if k in theirs
    ]
    unmatched = [_Single(label=names[0], result=ours[k], others=b, where=names[1]) for k in ours if k not in theirs]
    unmatched += [_Single(label=names[1], result=theirs[k], others=a, where=names[0]) for k in theirs if k not in ours]
    alone = _alone(unmatched, free, notes)
    if not groups:
        _raise_incomparable(alone, despite)
    return _decide_outcomes(Comparison(
        by=(), despite=tuple(despite), level=LEVEL, claims=0, groups=tuple(groups), alone=tuple(alone),
        notes=tuple(notes),
    ))  # fmt: skip


def compare_by(
    results: Sequence[Result], by: Sequence[str], *, despite: Collection[str] = (), baseline: str | None = None
) -> Comparison:
    """Compare each run with the baseline of its group of runs that are comparable but for the axes `by`.

    baseline: its label; by default strategy none, the smallest value, or the first run.
    Raises `BadExperiment` if no two runs are comparable.
    """
    axes = tuple(dict.fromkeys(comparability.parse_field(name) for name in by))
    free = comparability.find_free_fields(axes, despite)
    notes: list[str] = []
    results = _without_breakdowns(results, notes)
    if axes and len(results) > 1 and not comparability.find_differences(results, axes):
        values = "; ".join(f"{axis} {comparability.COMPARED_FIELDS[axis](results[0])}" for axis in axes)
        varying = ", ".join(comparability.find_differences(results, comparability.COMPARED_FIELDS)) or "nothing"
        raise BadExperiment(
            what=f"all {len(results)} runs have {values}",
            why=f"they differ in: {varying}",
            next="give --by an axis that differs, or two folders without --by",
        )
    groups = comparability.group_runs(results, free)
    several = [_label_runs(found, axes) for found in groups.values() if len(found) > 1]
    labels = {member.label for found in several for member in found}
    if baseline is not None and several and baseline not in labels:
        raise BadExperiment(what=f"no run has {'+'.join(axes)} {baseline!r}", next=f"there is: {', '.join(labels)}")
    made = [_group(members, axes, free, baseline) for members in several]
    singles = [found[0] for found in groups.values() if len(found) == 1]
    alone = _alone([_Single(label=_label(r, axes), result=r, others=results, where="") for r in singles], free, notes)
    if not made:
        _raise_incomparable(alone, despite)
    return _decide_outcomes(Comparison(
        by=axes, despite=tuple(despite), level=LEVEL, claims=0, groups=tuple(made), alone=tuple(alone),
        notes=tuple(notes),
    ))  # fmt: skip


def _without_breakdowns(results: Sequence[Result], notes: list[str]) -> list[Result]:
    kept = [result for result in results if not result.breakdown]
    if len(kept) < len(results):
        words = f"{len(results) - len(kept)} runs with every part of a step timed take no part: their rates are not the"
        notes.append(f"{words} runs'; `tunemark why` reads them")
    return kept


def _by_key(results: Sequence[Result], free: Collection[str], name: str) -> dict[tuple[object, ...], Result]:
    found: dict[tuple[object, ...], Result] = {}
    for result in results:
        former = found.setdefault(comparability.comparison_key(result, free), result)
        if former is not result:
            differs = (
                comparability.format_fields(
                    comparability.find_differences([former, result], comparability.COMPARED_FIELDS)
                )
                or "nothing in the key"
            )
            raise BadExperiment(
                what=f"{name} has several runs that are alike",
                why=f"{former.run_id} and {result.run_id} differ in: {differs}",
                next=f"name one: {name}:{result.run_id}, or compare with --by",
            )
    return found


def _label_runs(results: Sequence[Result], axes: Sequence[str]) -> list[ComparedRun]:
    labels = [_label(result, axes) for result in results]
    counts = Counter(labels)
    times: Counter[str] = Counter()
    members = []
    for label, result in zip(labels, results, strict=True):
        times[label] += 1
        name = label if counts[label] == 1 else f"{label} ({times[label]})"
        members.append(ComparedRun(label=name, result=result))
    return members


def _label(result: Result, axes: Sequence[str]) -> str:
    return " ".join(str(comparability.COMPARED_FIELDS[axis](result)) for axis in axes)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Single:
    """A run without a counterpart among `others`, the runs of folder `where`."""

    label: str
    result: Result
    others: Sequence[Result]
    where: str


def _alone(unmatched: Sequence[_Single], free: Collection[str], notes: list[str]) -> list[UnmatchedRun]:
    if len(unmatched) > _MAX_UNMATCHED:
        notes.append(f"{len(unmatched) - _MAX_UNMATCHED} more runs have no counterpart and are not listed")
    return [_find_nearest(one, free) for one in unmatched[:_MAX_UNMATCHED]]


def _find_nearest(unmatched: _Single, free: Collection[str]) -> UnmatchedRun:
    result = unmatched.result
    others = [other for other in unmatched.others if other is not result]
    if not others:
        return UnmatchedRun(label=unmatched.label, run_id=result.run_id, nearest=None, differs={})
    other, differs = comparability.find_nearest(result, others, free)
    name = f"{unmatched.where}:{other.run_id}" if unmatched.where else other.run_id
    return UnmatchedRun(label=unmatched.label, run_id=result.run_id, nearest=name, differs=differs)


def _raise_incomparable(alone: Sequence[UnmatchedRun], despite: Collection[str]) -> None:
    known = [one for one in alone if one.nearest is not None]
    if not known:
        raise BadExperiment(
            what="there is nothing to compare with", why="one run alone", next="give two folders, or more runs"
        )
    least = min(known, key=lambda one: len(one.differs))
    names = list(least.differs)
    if comparability.NEVER_OVERLOOKED in names:
        advice = "a simulator's figures say nothing of speed: measured runs are compared with measured ones"
    else:
        flags = " ".join(f"--despite {name}" for name in (*despite, *names))
        advice = f"`{flags}` compares them all the same, and says so; `tunemark why` ranks what differs"
        if axis := comparability.find_axis(names):
            advice = f"`--by {axis}` compares runs that differ in this and what follows from it; or {advice}"
    raise BadExperiment(
        what=f"no two of these runs are alike: {least.run_id} and {least.nearest} come nearest",
        why=f"they differ in: {comparability.format_fields(least.differs)}",
        next=advice,
    )


def _group(
    members: Sequence[ComparedRun], axes: Sequence[str], free: Collection[str], wanted: str | None
) -> ComparisonGroup:
    results = [member.result for member in members]
    notes: list[str] = []
    base = _baseline(members, axes, wanted, notes)
    rows = [_row(member, base) for member in members]
    # Fields that follow from an axis differ with it: only fields overlooked on request are reported.
    follows = comparability.find_free_fields(axes, ())
    differs = comparability.find_differences(results, [name for name in free if name not in follows])
    varying = comparability.find_differences(results, comparability.COMPARED_FIELDS)
    shared = {name: read(results[0]) for name, read in comparability.COMPARED_FIELDS.items() if name not in varying}
    if any(result.simulated for result in results):
        notes.append("simulated: no figure here says how fast anything is")
    for member in members:
        rules = [f.rule for f in member.result.findings if f.severity in ("suspect", "unknown")]
        if rules and not member.obstacle:
            notes.append(f"{member.label} is {member.result.verdict}: {', '.join(rules)}")
    return ComparisonGroup(
        shared=shared,
        despite=differs,
        surroundings=differing_facts(results),
        baseline=base.label if base else None,
        rows=tuple(rows),
        worth=tuple(compute_auto_gains(members)) if "strategy" in axes and set(axes) <= SEARCHED_FIELDS else (),
        notes=tuple(notes),
    )


def _baseline(
    members: Sequence[ComparedRun], axes: Sequence[str], wanted: str | None, notes: list[str]
) -> ComparedRun | None:
    order = sorted(members, key=lambda m: _rank(m, axes, wanted)) if axes else list(members[:1])
    comparable = [member for member in order if not member.obstacle]
    if order[0].obstacle:
        words = f"{order[0].label} would be the baseline and takes no part ({order[0].obstacle})"
        notes.append(f"{words}: {comparable[0].label} stands for it" if comparable else words)
    return comparable[0] if comparable else None


def _rank(member: ComparedRun, axes: Sequence[str], wanted: str | None) -> tuple[object, ...]:
    """The lowest is the baseline."""
    values = [comparability.COMPARED_FIELDS[axis](member.result) for axis in axes]
    parts: list[object] = [member.label != wanted if wanted is not None else False]
    for axis, value in zip(axes, values, strict=True):
        number = _number(value)
        parts += [value != "none" if axis == "strategy" else number is None, number if number is not None else 0.0]
    return tuple(parts)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _row(member: ComparedRun, base: ComparedRun | None) -> ComparisonRow:
    result, obstacle = member.result, member.obstacle
    ratio = None
    if base is not None and base is not member and not obstacle:
        ratio = rate_ratio(result, base.result)
    memory = None
    if base is not None and result.peak_memory_bytes and base.result.peak_memory_bytes:
        memory = result.peak_memory_bytes / base.result.peak_memory_bytes
    outcome: Outcome = "takes no part" if obstacle else "baseline" if member is base else "no interval"
    return ComparisonRow(
        label=member.label,
        **read_fields(result, "run_id", "status", "verdict", "simulated", "tokens_per_s", "peak_memory_bytes"),
        **read_fields(result, "time_to_first_step_s", "search_s", "strategy_selected", "requested_bytes"),
        outcome=outcome,
        reason=obstacle or (ratio.method if ratio and ratio.low is None else ""),
        attempts=len(attempt_rates(result)) or result.attempts,
        ratio=ratio,
        p_holm=None,
        memory_ratio=memory,
        findings=tuple(f"{f.severity}: {f.rule}" for f in result.findings if f.severity != "note"),
    )


def _decide_outcomes(found: Comparison) -> Comparison:
    """Decide the outcomes of all ratios, jointly at one level."""
    ratios: list[Ratio | None] = []
    for group in found.groups:
        ratios += [*(row.ratio for row in group.rows), *(gain.ratio for gain in group.worth)]
    adjusted = iter(adjust_p_values([ratio.p if ratio else None for ratio in ratios]))
    groups = []
    for group in found.groups:
        rows = tuple(_decide(row, next(adjusted)) for row in group.rows)
        worth = tuple(_decide(gain, next(adjusted)) for gain in group.worth)
        groups.append(msgspec.structs.replace(group, rows=rows, worth=worth))
    claims = sum(ratio is not None and ratio.p is not None for ratio in ratios)
    return msgspec.structs.replace(found, groups=tuple(groups), claims=claims)


_Compared = TypeVar("_Compared", ComparisonRow, AutoGain)


def _decide(row: _Compared, p_holm: float | None) -> _Compared:
    if p_holm is None or row.ratio is None:
        return row
    differs = p_holm <= 1 - LEVEL
    outcome: Outcome = "no difference shown" if not differs else "faster" if row.ratio.value > 1 else "slower"
    return msgspec.structs.replace(row, outcome=outcome, p_holm=p_holm)
