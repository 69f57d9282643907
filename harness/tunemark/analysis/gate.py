"""Decide whether a run is slower than its baseline: pass, fail, or no verdict where the noise allows none.

fail: a slow-down is shown, with a family-wise false-alarm rate over all runs of at most the promised one (Holm).
pass: none is shown, and one of `change` would be detected with the promised power in the measured noise.
no verdict: no comparable run in the baseline, a baseline of one series, whose noise between series is unknown, nothing
measured, or noise in which such a change would go undetected.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from tunemark.analysis import comparability
from tunemark.analysis.comparability import exclusion_reason
from tunemark.analysis.environment import differing_facts
from tunemark.number_format import percent_text
from tunemark.results import slowdown_test
from tunemark.results.ratio import adjust_p_values, attempt_rates
from tunemark.results.result import Result

GateVerdict = Literal["pass", "fail", "no verdict"]
# History of the schema (of `gate --json`): 1, first form.
SCHEMA = 1

# Two series of a baseline that differ at this level do not share one noise.
_SERIES_DIFFER = 0.01
# The load of other processes is not part of a baseline's noise. Such runs count only on request (--despite).
LOAD_RULE = "heavy-load"


@dataclass(frozen=True, kw_only=True, slots=True)
class GateCriteria:
    """The promises of a gate. change: the slow-down to detect, a fraction of the rate. power: probability of detecting
    it. false_alarms: the probability of failing a run whose speed is unchanged."""

    change: float = 0.05
    power: float = 0.8
    false_alarms: float = 0.05


class SampleSize(msgspec.Struct, frozen=True, kw_only=True):
    """The sample size that detects the change with the promised power in the baseline's noise; null if none up to 1,000
    does. attempts: new ones against this baseline. of_both: of a new baseline and of a run, each; series: of the
    baseline, each measured at another time."""

    attempts: int | None
    of_both: int | None
    series: int | None


class GatedRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run. ratio: its rate over the baseline's, low and high its 95 % interval. p: of no slow-down, adjusted for
    all runs. power: that of detecting a slow-down of the promised size in this noise. noise: standard deviation of log
    throughput between a baseline's attempts, or its series' means, as `unit` says. needed: if the noise allows no
    verdict."""

    label: str
    run_id: str
    verdict: GateVerdict
    reason: str
    simulated: bool
    status: str
    tokens_per_s: float | None
    attempts: int
    baseline: tuple[str, ...]
    baseline_attempts: int
    unit: Literal["attempt", "series"]
    noise: float | None
    ratio: float | None
    low: float | None
    high: float | None
    p: float | None
    power: float | None
    needed: SampleSize | None
    despite: dict[str, tuple[Any, ...]]
    surroundings: dict[str, tuple[Any, ...]]
    notes: tuple[str, ...]


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """The judgements of all runs, and the worst verdict."""

    verdict: GateVerdict
    change: float
    power: float
    false_alarms: float
    despite: tuple[str, ...]
    runs: tuple[GatedRun, ...]
    schema: int = SCHEMA


@dataclass(frozen=True, kw_only=True, slots=True)
class _Case:
    run: Result
    baseline: tuple[Result, ...]
    obstacle: str
    found: slowdown_test.Slowdown | None
    notes: tuple[str, ...]


def gate(
    baseline: Sequence[Result], runs: Sequence[Result], promise: GateCriteria, *, despite: Collection[str] = ()
) -> Gate:
    """Judge each run by the comparable runs of the baseline, which may have several series. despite: fields that may
    differ, and LOAD to include runs whose cores other processes used."""
    free = comparability.find_free_fields((), [name for name in despite if name != LOAD_RULE])
    measured = [run for run in runs if not run.breakdown]
    by_key = comparability.group_runs([result for result in baseline if not result.breakdown], free)
    cases = [_case(run, by_key, free, allow_load=LOAD_RULE in despite) for run in measured]
    adjusted = adjust_p_values([case.found.p if case.found else None for case in cases])
    claims = sum(p is not None for p in adjusted)
    judged = tuple(
        _judge(case, p, promise, promise.false_alarms / max(1, claims), free, _label(case.run, measured))
        for case, p in zip(cases, adjusted, strict=True)
    )
    verdicts = {one.verdict for one in judged}
    worst: GateVerdict = (
        "fail" if "fail" in verdicts else "no verdict" if "no verdict" in verdicts or not judged else "pass"
    )
    return Gate(
        verdict=worst, change=promise.change, power=promise.power, false_alarms=promise.false_alarms,
        despite=tuple(despite), runs=judged,
    )  # fmt: skip


class BaselineSensitivity(msgspec.Struct, frozen=True, kw_only=True):
    """What a baseline's noise allows to detect. needed: for each change, the sample size that detects it."""

    label: str
    run_id: str
    series: int
    attempts: int
    unit: Literal["attempt", "series"]
    noise: float | None
    reason: str
    needed: dict[str, SampleSize]


def compute_sensitivities(
    baseline: Sequence[Result], changes: Sequence[float], promise: GateCriteria, *, despite: Collection[str] = ()
) -> list[BaselineSensitivity]:
    """For each run of a baseline, the sample sizes that detect each change, before any is measured."""
    free = comparability.find_free_fields((), [name for name in despite if name != LOAD_RULE])
    groups = comparability.group_runs([result for result in baseline if not result.breakdown], free)
    firsts = [group[0] for group in groups.values()]
    return [
        _outlook(group, changes, promise, _label(group[0], firsts), allow_load=LOAD_RULE in despite)
        for group in groups.values()
    ]


def _outlook(
    group: Sequence[Result], changes: Sequence[float], promise: GateCriteria, label: str, *, allow_load: bool
) -> BaselineSensitivity:
    unfit = functools.partial(_unfit_reason, allow_load=allow_load)
    usable = [result for result in group if not unfit(result)]
    series = [attempt_rates(result) for result in usable]
    noise = slowdown_test.estimate_noise(series)
    unit = _unit(series)
    reason = ""
    if noise is None:
        reason = "; ".join(dict.fromkeys(filter(None, map(unfit, group)))) or "one attempt says nothing of noise"
    needed = {f"{c:g}": _sample_size(c, noise, unit, promise, promise.false_alarms) for c in changes if noise}
    return BaselineSensitivity(
        label=label, run_id=group[0].run_id, series=len(series), attempts=sum(map(len, series)), unit=unit,
        noise=noise.sd if noise else None, reason=reason, needed=needed,
    )  # fmt: skip


def _case(
    run: Result, by_key: Mapping[tuple[object, ...], Sequence[Result]], free: Collection[str], *, allow_load: bool
) -> _Case:
    unfit = functools.partial(_unfit_reason, allow_load=allow_load)
    # A store with baseline and run must not compare a run with itself.
    same = [
        b
        for b in by_key.get(comparability.comparison_key(run, free), ())
        if not (b.run_id == run.run_id and _names(b) & _names(run))
    ]
    usable = tuple(b for b in same if not unfit(b))
    notes = [f"baseline {b.run_id} is left out: {unfit(b)}" for b in same if unfit(b)]
    rules = [f.rule for f in run.findings if f.severity in ("suspect", "unknown") and f.rule != "unfinished"]
    if rules:
        notes.append(f"{run.verdict}: {', '.join(rules)}")
    reasons = "; ".join(dict.fromkeys(filter(None, map(unfit, same))))
    obstacle = f"nothing to judge: {unfit(run)}" if unfit(run) else _obstacle(run, by_key, same, usable, reasons, free)
    found = (
        None if obstacle else slowdown_test.estimate_slowdown([attempt_rates(b) for b in usable], attempt_rates(run))
    )
    if not obstacle and found is None:
        obstacle = "the baseline has one attempt: its noise is not known"
    return _Case(run=run, baseline=usable, obstacle=obstacle, found=found, notes=tuple(notes))


def _obstacle(
    run: Result, by_key: Mapping[tuple[object, ...], Sequence[Result]], same: Sequence[Result],
    usable: Sequence[Result], unfit: str, free: Collection[str],
) -> str:  # fmt: skip
    """Why the run cannot be judged; empty if it can."""
    if not same:
        if comparability.comparison_key(run, free) in by_key:
            return (
                "the baseline holds this very measurement and no other of its kind; `tunemark run --redo` measures it "
                "again"
            )
        # One run of each kind in the baseline: the others of its kind differ in the same fields.
        kinds = [found[0] for found in by_key.values()]
        if not kinds:
            return "the baseline holds no run that can be compared"
        nearest, differs = comparability.find_nearest(run, kinds, free)
        fields = comparability.format_fields(differs)
        return f"nothing like it in the baseline; {nearest.run_id} comes nearest, but for {fields}"
    if not usable:
        return f"no run of the baseline is fit: {unfit}"
    apart = slowdown_test.series_difference_p([attempt_rates(b) for b in usable])
    if apart is not None and apart < _SERIES_DIFFER:
        return (
            f"the baseline's two series differ by more than their attempts explain (p = {apart:.1g}): what differs "
            f"between series is known from {slowdown_test.MIN_SERIES} on"
        )
    return ""


def _unfit_reason(result: Result, *, allow_load: bool = False) -> str:
    """Why a run's rates do not sample its noise; empty if they do."""
    reason = exclusion_reason(result)
    if not reason and not allow_load and any(f.rule == LOAD_RULE for f in result.findings):
        return f"other processes used its cores, which is no noise of its own (--despite {LOAD_RULE} counts it)"
    return reason


def _names(result: Result) -> set[str]:
    return {row.name for row in result.each_attempt}


def _label(run: Result, runs: Sequence[Result]) -> str:
    """Name a run by the fields in which it differs from the others."""
    varying = [
        name
        for name in comparability.find_differences(list(runs), comparability.COMPARED_FIELDS)
        if name not in ("processes", "threads")
    ]
    parts = [run.model, f"{run.device}:{run.size}", run.strategy_requested]
    # The last is a mark of its own.
    shown = ("model", "device", "size", "strategy", "chip", "chips", "parameters", "trainable_parameters", "simulated")
    parts += [
        f"{name} {comparability.COMPARED_FIELDS[name](run)}" for name in varying if name not in (*shown, "data_sha256")
    ]
    return " ".join(parts)


def _judge(
    case: _Case, p: float | None, promise: GateCriteria, alpha: float, free: Collection[str], label: str
) -> GatedRun:
    run, found = case.run, case.found
    series = [attempt_rates(b) for b in case.baseline]
    noise = slowdown_test.estimate_noise(series)
    unit = _unit(series)
    verdict: GateVerdict = "no verdict"
    reason, chance = case.obstacle, None
    needed: SampleSize | None = None
    notes = list(case.notes)
    if found is not None and noise is not None and p is not None:
        chance = slowdown_test.detection_power(promise.change, found.error, found.df, found.df, alpha)
        change, seen = percent_text(promise.change), percent_text(chance)
        if len(series) == 1:
            seen_change = f"{percent_text(abs(1 - found.ratio))} {'slower' if found.ratio < 1 else 'faster'}"
            reason = (
                f"{seen_change} (p = {p:.2g} within one series), but the baseline is one series: what differs between "
                "series, measured at other times, is unknown; `tunemark run --redo` at another time adds one"
            )
        elif p <= promise.false_alarms:
            verdict, reason = "fail", f"slower by {percent_text(1 - found.ratio)} (p = {p:.2g})"
        elif chance >= promise.power:
            verdict = "pass"
            reason = f"no slow-down is shown, and one of {change} would be with {seen} power"
        else:
            # The new attempts contribute to the noise estimate too.
            needed = _sample_size(
                promise.change, slowdown_test.Noise(found.sd, found.df, noise.units), unit, promise, alpha
            )
            reason = (
                f"a slow-down of {change} would be seen with {seen} power, {percent_text(promise.power)} is promised: "
                f"that takes {format_sample_size(needed, unit)}"
            )
    return GatedRun(
        label=label, run_id=run.run_id, verdict=verdict, reason=reason, simulated=run.simulated, status=run.status,
        tokens_per_s=run.tokens_per_s.value if run.tokens_per_s else None, attempts=len(attempt_rates(run)),
        baseline=tuple(dict.fromkeys(b.run_id for b in case.baseline)), baseline_attempts=sum(map(len, series)),
        unit=unit, noise=noise.sd if noise else None, ratio=found.ratio if found else None,
        low=found.low if found else None, high=found.high if found else None, p=p, power=chance, needed=needed,
        despite=comparability.find_differences([*case.baseline[-1:], run], free),
        surroundings=differing_facts([*case.baseline[-1:], run]),
        notes=tuple(notes),
    )  # fmt: skip


def _sample_size(
    change: float, noise: slowdown_test.Noise, unit: Literal["attempt", "series"], promise: GateCriteria, alpha: float
) -> SampleSize:
    if unit == "series":
        series = slowdown_test.series_needed(change, noise, promise.power, alpha)
        return SampleSize(attempts=None, of_both=None, series=series)
    return SampleSize(
        attempts=slowdown_test.attempts_needed(change, noise, promise.power, alpha),
        of_both=slowdown_test.attempts_needed_of_both(change, noise, promise.power, alpha),
        series=None,
    )


def format_sample_size(needed: SampleSize, unit: Literal["attempt", "series"]) -> str:
    """Format a sample size in a few words."""
    if unit == "series":
        if needed.series is None:
            return "several series of the run: one new series cannot show it, however many the baseline has"
        return f"{needed.series} series of the baseline"
    if needed.attempts is not None:
        return f"{needed.attempts} {'attempt' if needed.attempts == 1 else 'attempts'} against this baseline"
    if needed.of_both is not None:
        return f"{needed.of_both} attempts, and as many of the baseline"
    return f"more than {slowdown_test.MAX_ATTEMPTS} attempts"


def _unit(series: Sequence[Sequence[float]]) -> Literal["attempt", "series"]:
    return "series" if len(series) >= slowdown_test.MIN_SERIES else "attempt"
