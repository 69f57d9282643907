"""The layout search of strategy auto by prediction: which candidates fit in memory, ranked by predicted throughput.

Nothing runs here: trials of the best few are made elsewhere. The log is stored with the run and shown in its report.
"""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from tunemark.fields import read_fields
from tunemark.number_format import GIB
from tunemark.plugin.hardware import DeviceFacts
from tunemark.predict.calibration import ParallelismCost, predict_calibrated
from tunemark.predict.candidates import Candidate, CandidateSpace, enumerate_candidates
from tunemark.predict.cost_model import find_layout_error
from tunemark.predict.layout import Workload
from tunemark.predict.memory_model import predict_memory
from tunemark.predict.prediction import Prediction

Outcome = Literal["chosen", "tried", "failed", "predicted", "does not fit"]

# Largest number of rows in the log: the best of each kind of layout, and the best of all.
_MAX_ROWS = 24
# Relative difference of predicted rates below which layouts count as equal: prediction errors are several times larger.
PREDICTION_RESOLUTION = 0.02
# Standard deviation of a layout's error around the error that all layouts of one model on one machine share: over 272
# published rows in groups of one model, size and batch.
RELATIVE_RESIDUAL = 0.10
# Largest number of rejection reasons that are listed; rarer ones are counted together.
_MAX_REASONS = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class HardwareModel:
    """The hardware that layouts are predicted on. facts: of one rank of a distributed strategy; memory_bytes: that it
    may use, None where unknown. alone, alone_bytes: the same for a strategy of one process, where it can use this
    size. source: origin of the figures, in words. is_shared: all ranks share one memory, memory_bytes is a rank's
    share. mechanisms: calibrated cost of each kind of parallelism."""

    facts: DeviceFacts
    memory_bytes: float | None
    alone: DeviceFacts | None = None
    alone_bytes: float | None = None
    source: str = ""
    is_shared: bool = False
    mechanisms: Mapping[str, ParallelismCost] = field(default_factory=dict)

    def of(self, candidate: Candidate) -> tuple[DeviceFacts, float | None]:
        if not candidate.axes:
            assert self.alone is not None, "one process is a candidate only where it can use the size"
            return self.alone, self.alone_bytes
        return self.facts, self.memory_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class LayoutOption:
    """One row of a search's log: a layout with its settings. Rates are slot tokens/s of the whole job. low, high: of
    the predicted rate, its bounds. seconds: the predicted step by part. memory_bytes: predicted, of the rank that needs
    most; memory_high_bytes: its upper bound. tried_tokens_per_s: measured over the trial's few steps. trial_s: duration
    of the trial, including start and set-up. reason: why it failed or does not fit."""

    strategy: str
    checkpointing: str
    micro_batch: int
    gradient_accumulation: int
    outcome: Outcome
    predicted_tokens_per_s: float | None
    low: float | None
    high: float | None
    seconds: dict[str, float]
    memory_bytes: float
    memory_high_bytes: float
    tried_tokens_per_s: float | None = None
    trial_s: float | None = None
    reason: str = ""

    def words(self) -> str:
        """Layout and settings as text."""
        return f"{self.strategy}, micro-batch {self.micro_batch}, checkpointing {self.checkpointing}"


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchLog:
    """Log of a search. requested: settings as given or by default; free: those that the search may change. ranks: of
    every distributed layout. candidates: number of all; possible: of those that no strategy refuses; fitting: of those
    that also fit in memory. rejected: number of candidates by reason. memory_bytes: that a rank may use; None where it
    is unknown and not checked. source: origin of the predictions. prediction_s, trial_s: seconds of both parts, in no
    rate. options: the best of each kind of layout and the best of all, by predicted rate."""

    requested: dict[str, int | str]
    free: tuple[str, ...]
    ranks: int
    global_batch: int
    candidates: int
    possible: int
    fitting: int
    rejected: dict[str, int]
    memory_bytes: float | None
    source: str
    prediction_s: float
    trials: int = 0
    trial_s: float = 0.0
    options: tuple[LayoutOption, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def search_s(self) -> float:
        return self.prediction_s + self.trial_s

    @property
    def chosen_option(self) -> LayoutOption | None:
        """The chosen option; None where nothing fits or nothing was chosen yet."""
        return next((option for option in self.options if option.outcome == "chosen"), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class RankedCandidate:
    """A candidate that fits, with its prediction."""

    candidate: Candidate
    prediction: Prediction

    @property
    def rate(self) -> float:
        return self.prediction.tokens_per_s


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchResult:
    """Result of a search: the candidates that fit, fastest first, and the log. least: of the candidates that do not
    fit, the one that needs the least memory."""

    ranked: tuple[RankedCandidate, ...]
    log: SearchLog
    least: Candidate | None = None


def search_layouts(
    work: Workload,
    space: CandidateSpace,
    hardware: HardwareModel,
    *,
    refusal: Callable[[Candidate], str | None],
    requested: Mapping[str, int | str],
    free: Sequence[str] = (),
    clock: Callable[[], float] = time.perf_counter,
) -> SearchResult:
    """Check and rank all candidates of the space. refusal: why a candidate's strategy cannot train the model, or None.

    Raises KeyError where the device's peak in the precision is unknown.
    """
    began_s = clock()
    reasons: Counter[str] = Counter()
    refused: dict[tuple[str, int], str | None] = {}
    count = possible = 0
    ranked: list[RankedCandidate] = []
    too_large: dict[tuple[str, ...], tuple[float, Candidate]] = {}
    for candidate in enumerate_candidates(space):
        count += 1
        asked = candidate.strategy, candidate.gradient_accumulation
        if asked not in refused:
            refused[asked] = refusal(candidate) or find_layout_error(work, candidate.layout)
        if why := refused[asked]:
            reasons[_generalise_reason(why)] += 1
            continue
        possible += 1
        facts, there = hardware.of(candidate)
        needed = predict_memory(work, candidate.layout, facts).total
        if there is not None and needed > there:
            reasons[f"{'+'.join(candidate.names)}: more memory than a rank has"] += 1
            former = too_large.get(candidate.names)
            if former is None or needed < former[0]:
                too_large[candidate.names] = needed, candidate
            continue
        found = predict_calibrated(work, candidate.layout, facts, hardware.mechanisms)
        ranked.append(RankedCandidate(candidate=candidate, prediction=found))
    ranked.sort(key=_sort_key)
    seconds = clock() - began_s
    options = [make_option(each) for each in select_logged(ranked)]
    kinds = {each.candidate.names for each in ranked}
    for names, (_, candidate) in too_large.items():
        if names not in kinds:
            options.append(_make_unfitting_option(work, candidate, hardware))
    log = SearchLog(
        requested=dict(requested),
        free=tuple(free),
        ranks=space.ranks,
        global_batch=space.global_batch,
        candidates=count,
        possible=possible,
        fitting=len(ranked),
        rejected=_summarise_reasons(reasons),
        memory_bytes=hardware.memory_bytes,
        source=hardware.source,
        prediction_s=seconds,
        options=tuple(options),
        notes=tuple(filter(None, [describe_overlap(ranked)])),
    )
    least = min(too_large.values(), key=lambda pair: pair[0])[1] if too_large else None
    return SearchResult(ranked=tuple(ranked), log=log, least=least)


def has_fitting_candidate(
    work: Workload, space: CandidateSpace, hardware: HardwareModel, refusal: Callable[[Candidate], str | None]
) -> bool:
    """Whether any candidate fits in memory; checks each layout only with the settings that need least."""
    frugal = replace(
        space,
        micro_batches=space.micro_batches or (1,),
        checkpointings=("full",) if "full" in space.checkpointings else space.checkpointings,
    )
    for candidate in enumerate_candidates(frugal):
        facts, there = hardware.of(candidate)
        is_small = there is None or predict_memory(work, candidate.layout, facts).total <= there
        if is_small and not find_layout_error(work, candidate.layout) and not refusal(candidate):
            return True
    return False


def select_trials(ranked: Sequence[RankedCandidate], trials: int) -> list[RankedCandidate]:
    """The candidates to try: the best of all, the best of each other kind of layout whose bounds overlap with it (the
    cost model errs more between kinds than within one), then the next best."""
    if not ranked:
        return []
    kinds: dict[tuple[str, ...], RankedCandidate] = {}
    for each in ranked:
        kinds.setdefault(each.candidate.names, each)
    floor = _rate_bounds(ranked[0].prediction)[0]
    first = [each for each in kinds.values() if _rate_bounds(each.prediction)[1] >= floor]
    rest = [each for each in ranked if all(each is not other for other in first)]
    return [*first, *rest][:trials]


def describe_overlap(ranked: Sequence[RankedCandidate]) -> str:
    """How many layouts predictions cannot tell from the fastest, and how many trials would; empty for a single one."""
    if not ranked:
        return ""
    # Errors that two layouts share do not count; what is left of each has this standard deviation.
    own = min(RELATIVE_RESIDUAL, ranked[0].prediction.spread.low)
    margin = math.exp(-2.0 * math.sqrt(2.0) * own)
    near = [each for each in ranked if each.rate >= margin * ranked[0].rate]
    kinds = len({each.candidate.names for each in near})
    if len(near) < 2:
        return ""
    return (
        f"bounds overlap: {len(near):,} layouts of {kinds} kind{'s' if kinds > 1 else ''} are predicted within "
        f"{100 - 100 * margin:.0f} % of the fastest, which predictions cannot tell apart; only trials can: "
        f"--trials {max(kinds, 2)} tries one of each kind, the fastest of all may take {len(near):,}"
    )


def choose_by_prediction(ranked: Sequence[RankedCandidate]) -> int:
    """Index of the candidate that is chosen by prediction alone: among those within the resolution of the fastest, the
    one with the fewest axes, then preferably without a pipeline, then the fastest."""
    near = [number for number, each in enumerate(ranked) if each.rate >= (1 - PREDICTION_RESOLUTION) * ranked[0].rate]
    return min(near, key=lambda n: (len(ranked[n].candidate.axes), ranked[n].candidate.layout.pipeline > 1, n))


def find_micro_batch_neighbours(ranked: Sequence[RankedCandidate], best: RankedCandidate) -> list[RankedCandidate]:
    """The same layout with the next smaller and the next larger micro-batch, the better prediction first; worth a trial
    because the cost model has no processor caches."""
    own = best.candidate
    alike = [
        each
        for each in ranked
        if (each.candidate.strategy, each.candidate.checkpointing) == (own.strategy, own.checkpointing)
    ]
    by_size = {each.candidate.micro_batch: each for each in reversed(alike)}
    smaller = max((size for size in by_size if size < own.micro_batch), default=None)
    larger = min((size for size in by_size if size > own.micro_batch), default=None)
    return sorted((by_size[size] for size in (smaller, larger) if size is not None), key=_sort_key)


def select_logged(ranked: Sequence[RankedCandidate]) -> list[RankedCandidate]:
    """The candidates that a log lists: the best of each kind of layout, and the best of all."""
    kinds: dict[tuple[str, ...], RankedCandidate] = {}
    for each in ranked:
        kinds.setdefault(each.candidate.names, each)
    kept = list(kinds.values())[: _MAX_ROWS // 2]
    kept += [each for each in ranked[:_MAX_ROWS] if all(each is not other for other in kept)]
    return sorted(kept[:_MAX_ROWS], key=_sort_key)


def make_option(each: RankedCandidate, outcome: Outcome = "predicted") -> LayoutOption:
    """The log's row of a candidate."""
    candidate, p = each.candidate, each.prediction
    low, high = _rate_bounds(p)
    return LayoutOption(
        **read_fields(candidate, "strategy", "checkpointing", "micro_batch", "gradient_accumulation"),
        outcome=outcome,
        predicted_tokens_per_s=p.tokens_per_s,
        low=low,
        high=high,
        seconds=read_fields(p.seconds, "compute", "communication", "bubble", "optimizer", "data"),
        memory_bytes=p.bytes.total,
        memory_high_bytes=p.memory_bounds_bytes[1],
    )


def _rate_bounds(p: Prediction) -> tuple[float, float]:
    """Lower and upper bound of the rate."""
    low_s, high_s = p.step_time_bounds_s
    return p.tokens_per_step / high_s, p.tokens_per_step / low_s


def _sort_key(each: RankedCandidate) -> tuple[float, float, int]:
    """Sort key: rate, then less memory, then fewer axes."""
    return -round(each.rate, 6), each.prediction.bytes.total, len(each.candidate.axes)


def _make_unfitting_option(work: Workload, candidate: Candidate, hardware: HardwareModel) -> LayoutOption:
    """The log's row of a kind of layout that does not fit; `candidate` is the one that needs least."""
    facts, there = hardware.of(candidate)
    assert there is not None, "nothing is left out for a memory that is unknown"
    p = predict_calibrated(work, candidate.layout, facts, hardware.mechanisms)
    words = f"the least that {'+'.join(candidate.names)} needs, of {there / GIB:.1f} GiB"
    row = make_option(RankedCandidate(candidate=candidate, prediction=p), "does not fit")
    return replace(row, predicted_tokens_per_s=None, low=None, high=None, seconds={}, reason=words)


def _generalise_reason(reason: str) -> str:
    """A reason without its numbers, which differ between candidates, and without its advice."""
    return re.sub(r"\b\d+\b", "N", reason.partition(": ")[0])


def _summarise_reasons(reasons: Counter[str]) -> dict[str, int]:
    common = reasons.most_common(_MAX_REASONS)
    rest = sum(reasons.values()) - sum(n for _, n in common)
    return dict(common) | ({"other reasons": rest} if rest else {})
