"""The gain of automatic parallelization over no parallelization and over manual layouts."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

import msgspec

from tunemark.analysis.comparability import ComparedRun, Outcome
from tunemark.results.ratio import Ratio, RatioTerm, attempt_rates, estimate_ratio, is_in_rounds
from tunemark.results.result import Estimate

# Fields that auto may choose: it is compared with manual layouts that vary any of these.
SEARCHED_FIELDS = {"strategy", "micro_batch", "checkpointing"}


class AutoGain(msgspec.Struct, frozen=True, kw_only=True):
    """The gain of automatic parallelization over an alternative. auto: label of the run whose layout a search chose.
    over: the alternative. against: labels of its layouts. ratio: auto's rate over theirs. regret: the share of the
    best rate that auto falls short of, with its interval; only in the last row. paid_back_s: seconds of training by
    `against` after which auto with its search has caught up; null if auto is not faster, or did not search. reason:
    why there is no ratio."""

    auto: str
    over: str
    against: tuple[str, ...]
    ratio: Ratio | None
    p_holm: float | None
    outcome: Outcome
    reason: str
    regret: Estimate | None = None
    paid_back_s: float | None = None


def compute_auto_gains(members: Sequence[ComparedRun]) -> list[AutoGain]:
    """The gain of each automatically parallelized run over none, the best and the median manual layout, and the best of
    all others."""
    kinds: Mapping[str, list[ComparedRun]] = {"none": [], "auto": [], "manual": []}
    for member in members:
        name = member.result.strategy_requested.partition(":")[0]
        kinds[name if name in ("none", "auto") else "manual"].append(member)
    return [gain for auto in kinds["auto"] for gain in _gains_of(auto, members, kinds)] if len(members) > 1 else []


def _gains_of(
    auto: ComparedRun, members: Sequence[ComparedRun], kinds: Mapping[str, Sequence[ComparedRun]]
) -> list[AutoGain]:
    manual = sorted((m for m in kinds["manual"] if not m.obstacle), key=_mean_log_rate)
    others = sorted((m for m in members if m is not auto and not m.obstacle), key=_mean_log_rate)
    count = len(manual)
    median = manual[(count - 1) // 2 : count // 2 + 1]
    lost = [m for m in kinds["manual"] if m.obstacle]
    no_manual = "no manual layout was measured" if not lost else f"no manual layout has a rate: {_join_obstacles(lost)}"
    none = sorted((m for m in kinds["none"] if not m.obstacle), key=_mean_log_rate)
    no_none = _join_obstacles(kinds["none"]) or "none was not measured"
    found = [
        _gain("none", auto, none[-1:], no_none),
        _gain("the best manual layout", auto, manual[-1:], no_manual),
        _gain(f"the median of {count} manual layouts", auto, median, no_manual),
    ]
    best = _gain(f"the best of all {len(others)} others", auto, others[-1:], "nothing else has a rate")
    regret = None
    if (r := best.ratio) is not None:
        low, high = (None, None) if r.low is None or r.high is None else (1 - r.high, 1 - r.low)
        regret = Estimate(value=1 - r.value, low=low, high=high, n=min(r.n), method=r.method)
    return [*found, msgspec.structs.replace(best, regret=regret)]


def _join_obstacles(members: Sequence[ComparedRun]) -> str:
    return "; ".join(f"{m.label} {m.obstacle}" for m in members if m.obstacle)


def _mean_log_rate(member: ComparedRun) -> float:
    return statistics.fmean(math.log(rate) for rate in attempt_rates(member.result))


def _gain(over: str, auto: ComparedRun, against: Sequence[ComparedRun], missing: str) -> AutoGain:
    if auto.obstacle or not against:
        reason = f"auto takes no part ({auto.obstacle})" if auto.obstacle else missing
        return AutoGain(
            auto=auto.label, over=over, against=(), ratio=None, p_holm=None, outcome="takes no part", reason=reason
        )
    results = [auto.result, *(member.result for member in against)]
    terms = [RatioTerm(1.0, attempt_rates(auto.result))]
    terms += [RatioTerm(-1.0 / len(against), attempt_rates(member.result)) for member in against]
    ratio = estimate_ratio(terms, in_rounds=is_in_rounds(results))
    reason = ratio.method if ratio.low is None else ""
    names = tuple(member.label for member in against)
    search_s, paid_back_s = auto.result.search_s, None
    if search_s is not None and ratio.value > 1:
        # W tokens at rate x take W/x by `against`, and search + W/(ratio x) by auto.
        paid_back_s = search_s / (1 - 1 / ratio.value)
    return AutoGain(
        auto=auto.label, over=over, against=names, ratio=ratio, p_holm=None, outcome="no interval", reason=reason,
        paid_back_s=paid_back_s,
    )  # fmt: skip
