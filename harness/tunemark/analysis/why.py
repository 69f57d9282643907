"""Explain why one run is slower than another: their differences, ranked by how much each can change the rate.

Nothing is guessed: a cause's weight is computed from the two runs' own figures, bounded by them, or was measured in a
source that its basis names. Without any of the three, the weight is reported as unknown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from tunemark.analysis import comparability
from tunemark.analysis.compare import exclusion_reason
from tunemark.analysis.drift import StepTimeSummary, summarize_step_times
from tunemark.analysis.environment import environment_facts
from tunemark.errors import BadExperiment
from tunemark.physics.peaks import find_peak
from tunemark.results.ratio import Ratio, rate_ratio
from tunemark.results.result import Result, StepTime
from tunemark.results.trace import Trace

# History of the schema (of `why --json`): 1, first form; 2, with the pace.
SCHEMA = 2

# Extra cost of the first access to a 4 KiB page: 2.8 us in a virtual machine on an AMD EPYC (Linux 6.18, November 2026;
# median of nine times 65,536 pages). Hosts without virtualisation pay less.
PAGE_FAULT_S = 2.8e-6

# A smaller relative change of a rate is below the noise of any run.
NEGLIGIBLE = 0.005

CauseKind = Literal["setting", "data", "hardware", "host", "version", "load"]
CauseWeight = Literal["computed", "bound", "seen elsewhere", "unknown"]


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


_Weighed = tuple[CauseWeight, float | None, float | None, str]
"""weight, factor, expected, basis."""
_UNKNOWN: _Weighed = ("unknown", None, None, "no bound is known")


def _computed(expected: float, basis: str) -> _Weighed:
    return "computed", max(expected, 1 / expected), expected, basis


def _causes(a: Result, b: Result, parts: Sequence[StepPart]) -> list[Cause]:
    found = []

    def add(name: str, kind: CauseKind, one: Any, other: Any, judged: _Weighed) -> None:
        weight, factor, expected, basis = judged
        found.append(
            Cause(name=name, kind=kind, a=one, b=other, weight=weight, factor=factor, expected=expected, basis=basis)
        )

    for name, (one, other) in comparability.find_differences([a, b], comparability.COMPARED_FIELDS).items():
        judge = _SETTING_WEIGHTS.get(name)
        judged = judge(a, b) if judge else ("unknown", None, None, _BASES.get(name, _UNKNOWN[-1]))
        add(name, _SETTING_KINDS.get(name, "setting"), one, other, _optimizer(parts) if name == "optimizer" else judged)
    facts = [environment_facts(r) for r in (a, b)]
    for name in dict.fromkeys([*facts[0], *facts[1]]):
        one, other = (each.get(name) for each in facts)
        if one is None or other is None or one == other:
            continue
        weigh = _FACT_WEIGHTS.get(name)
        kind: CauseKind = "version" if name in _VERSION_FACTS else "load" if name in _LOAD_FACTS else "host"
        unknown: _Weighed = ("unknown", None, None, _BASES.get(name, _UNKNOWN[-1]))
        add(name, kind, one, other, weigh(a, b, one, other) if weigh else unknown)
    return _merge_same_arithmetic(found)


def _optimizer(parts: Sequence[StepPart]) -> _Weighed:
    """Bound an optimizer's effect by its share of a step."""
    for part in parts:
        if part.name == "optimizer" and part.a_s and part.b_s:
            rest = [math.fsum(side or 0.0 for p in parts if p is not part for side in [of(p)]) for of in _SIDES]
            shares = [1 + s / r for s, r in zip((part.a_s, part.b_s), rest, strict=True) if r > 0]
            if shares:
                return "bound", max(shares), None, f"its part of a step, {part.a_s:.4g} and {part.b_s:.4g} s"
    return _UNKNOWN


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


def _flops(a: Result, b: Result) -> _Weighed:
    one, other = a.flops_per_token, b.flops_per_token
    if one == other or not one or not other:
        return _UNKNOWN
    words = f"{one / 1e9:.4g} and {other / 1e9:.4g} GFLOP a token, at one rate of FLOP/s"
    return _computed(one / other, words)


def _recomputed(a: Result, b: Result) -> _Weighed:
    one, other = a.hardware_flops_per_token, b.hardware_flops_per_token
    if not one or not other or one == other:
        return _UNKNOWN
    words = f"{one / 1e9:.4g} and {other / 1e9:.4g} GFLOP a token with what is computed twice, at one rate of FLOP/s"
    return _computed(one / other, words)


def _chips(a: Result, b: Result) -> _Weighed:
    if a.peak_flops and b.peak_flops and a.precision == b.precision:
        words = f"peak of {a.peak_flops / 1e12:.4g} and {b.peak_flops / 1e12:.4g} TFLOP/s, used alike"
        return _computed(b.peak_flops / a.peak_flops, words)
    if a.chip == b.chip and a.chips and b.chips and a.chips != b.chips:
        words = f"{a.chips} and {b.chips} chips, at most in proportion"
        ratio = b.chips / a.chips
        return "bound", max(ratio, 1 / ratio), None, words
    return _UNKNOWN


def _precision(a: Result, b: Result) -> _Weighed:
    peaks = [find_peak(r.chip, r.precision) for r in (a, b)]
    if peaks[0] and peaks[1] and a.chip == b.chip and peaks[0].flops != peaks[1].flops:
        ratio = peaks[1].flops / peaks[0].flops
        words = (
            f"{a.chip}: {peaks[0].flops / 1e12:.4g} and {peaks[1].flops / 1e12:.4g} TFLOP/s at most ({peaks[0].source})"
        )
        return "bound", max(ratio, 1 / ratio), None, words
    if a.peak_flops and b.peak_flops and a.peak_flops != b.peak_flops:
        ratio = b.peak_flops / a.peak_flops
        words = f"peak of {a.peak_flops / 1e12:.4g} and {b.peak_flops / 1e12:.4g} TFLOP/s, as each run has it"
        return "bound", max(ratio, 1 / ratio), None, words
    return _UNKNOWN


def _padding(a: Result, b: Result) -> _Weighed:
    if a.padding_fraction is None or b.padding_fraction is None or a.padding_fraction == b.padding_fraction:
        return _UNKNOWN
    one, other = 1 - a.padding_fraction, 1 - b.padding_fraction
    if not one or not other:
        return _UNKNOWN
    return _computed(other / one, f"{100 * one:.1f} and {100 * other:.1f} % of the slots hold content")


_SETTING_WEIGHTS: Mapping[str, Callable[[Result, Result], _Weighed]] = {
    **dict.fromkeys(("model", "parameters", "trainable_parameters", "method"), _flops),
    "sequence": _flops,
    **dict.fromkeys(("size", "chips", "processes", "threads", "chip", "processor", "device"), _chips),
    "checkpointing": _recomputed,
    "precision": _precision,
    **dict.fromkeys(("batching", "dataset", "data_sha256"), _padding),
    "weights": lambda a, b: (
        "seen elsewhere", 1.0, None, "values of weights change no shape, so the work is the same",
    ),
    "seed": lambda a, b: _padding(a, b) if a.padding_fraction != b.padding_fraction else (
        "bound", 1.0, None, "another order of the same data: no shape changes",
    ),
}  # fmt: skip

_BASES: Mapping[str, str] = {
    "strategy": "no bound is known: it decides what is computed, sent and kept; the parts of a step show where",
    "micro_batch": "no bound is known: larger ones fill a device better, until it is full",
    "global_batch": "no bound is known: its fixed costs are shared by more tokens",
    "oversubscribed": "ranks that take turns on a core measure nothing but that",
    "code": "no bound is known: what ran beside torch, the runtimes of model, device and strategy among it",
    "transformers": "no bound is known: it holds the model's own code, and chooses the kernel of attention",
}

_SETTING_KINDS: Mapping[str, CauseKind] = {
    **dict.fromkeys(("dataset", "data_sha256", "train_on", "batching"), "data"),
    **dict.fromkeys(("device", "size", "chip", "chips", "processor", "oversubscribed"), "hardware"),
    "python": "version",
}


def _load_of_others(a: Result, b: Result, one: Any, other: Any) -> _Weighed:
    words = f"others had {100 * one:.1f} and {100 * other:.1f} % of the cores' time"
    return _computed((1 - other) / (1 - one), words) if max(one, other) < 1 else _UNKNOWN


def _page_faults(a: Result, b: Result, one: Any, other: Any) -> _Weighed:
    factors, at_once = [], []
    for result, faults in ((a, one), (b, other)):
        if not result.interval_s or not result.steps_measured:
            return _UNKNOWN
        # Processes and threads fault in parallel.
        at_once.append(max(1, result.processes * result.threads))
        share = faults * PAGE_FAULT_S / at_once[-1] * result.steps_measured / result.interval_s
        factors.append(1 / (1 - min(share, 0.99)))
    words = f"{one:,.0f} and {other:,.0f} faults a step, {1e6 * PAGE_FAULT_S:.1f} us each in a virtual machine, "
    return "bound", max(factors), None, f"{words}{at_once[0]} and {at_once[1]} at once"


def _clock(a: Result, b: Result, one: Any, other: Any) -> _Weighed:
    return (
        _computed(other / one, f"mean clock {one / 1e6:,.0f} and {other / 1e6:,.0f} MHz") if one and other else _UNKNOWN
    )


def _max_clock(a: Result, b: Result, one: Any, other: Any) -> _Weighed:
    ratio = other / one if one and other else 1.0
    return "bound", max(ratio, 1 / ratio), None, f"highest clock {one / 1e6:,.0f} and {other / 1e6:,.0f} MHz"


def _governor(a: Result, b: Result, one: Any, other: Any) -> _Weighed:
    for result in (a, b):
        facts = environment_facts(result)
        low, high = facts.get("host clock_min_hz"), facts.get("host clock_max_hz")
        if low and high:
            words = f"it chooses between {low / 1e6:,.0f} and {high / 1e6:,.0f} MHz"
            return "bound", high / low, None, words
    words = "MFU of 26.4 and 19.6 % on two hosts that differed in governor, huge pages and IOMMU"
    return "seen elsewhere", 26.4 / 19.6, None, f"{words} (tenstorrent/tt-metal, issue 54627)"


def _cores(a: Result, b: Result, one: Any, other: Any) -> _Weighed:
    if len(one) != len(other):
        ratio = len(other) / len(one) if one and other else 1.0
        return (
            "bound",
            max(ratio, 1 / ratio),
            None,
            f"{len(one)} and {len(other)} cores in rank 0, at most in proportion",
        )
    return "bound", 2.0, None, "cores may share their units with a sibling thread, or be of another socket"


def _published(factor: float, words: str) -> Callable[[Result, Result, Any, Any], _Weighed]:
    return lambda a, b, one, other: ("seen elsewhere", factor, None, words)


_VERSION_FACTS = ("python version", "torch", "transformers", "code", "interpreter", "host platform")
_LOAD_FACTS = ("load of others", "minor faults per step", "device clock", "throttled")
_FACT_WEIGHTS: Mapping[str, Callable[[Result, Result, Any, Any], _Weighed]] = {
    "allocator": _published(
        2.2, "keeping freed blocks made a step of 60 M parameters 1.5 to 2.2 times as fast on two cores (docs/why.md)"
    ),
    "torch": _published(
        5500 / 3700, "5,500 and 3,700 tokens/s with torch 2.4 and 2.5 (meta-pytorch/torchtune, issue 1879)"
    ),
    "load of others": _load_of_others,
    "minor faults per step": _page_faults,
    "device clock": _clock,
    "throttled": _published(
        1 / 0.85, "heat took 15 % within 100 iterations (flashinfer-ai/flashinfer, pull request 2899)"
    ),
    "host clock_max_hz": _max_clock,
    "host governor": _governor,
    "host turbo": _governor,
    "cores": _cores,
    "host name": _published(1.0, "a name; what it stands for is in the other rows, as far as the hosts tell it"),
    "host memory_bytes": _published(1.0, "what fits, runs as fast"),
    "interpreter": _published(1.0, "a path; the versions found there are rows of their own"),
}
