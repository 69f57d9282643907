"""What each rung of a ladder is worth: its factor over the rung below, with the interval of paired attempts.

The factor on content tokens is of attempts, as in `compare`. That on slots is the same one times the change of the
slots for each content token, which the seed and the documents decide and which has no noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from tunemark.results.ratio import Ratio, attempt_rates, rate_ratio
from tunemark.results.result import Estimate, Result
from tunemark.results.studies import LadderRung, LadderStudy

# A first step that comes this much later is compiling or preparing something, which then has to pay back.
_LATER_S = 1.0


class LadderStep(msgspec.Struct, frozen=True, kw_only=True):
    """A run of a ladder. setting, value, plain: of its rung; empty for the base. ratio: of content tokens/s over the
    step below it, slot_ratio: of slots/s; total: over the base. memory_ratio: peak memory over the step below. later_s:
    how much later its first step ends than that of the step below. pays_back_steps: how many of its steps make up for
    that; null where nothing has to be made up for, or nothing does. reason: why it was not climbed; the steps above do
    not stand on it then."""

    setting: str
    value: str
    plain: str
    why: str
    run_id: str | None
    status: str
    verdict: str
    simulated: bool = False
    tokens_per_s: Estimate | None = None
    slot_tokens_per_s: Estimate | None = None
    ratio: Ratio | None = None
    slot_ratio: Ratio | None = None
    total: Ratio | None = None
    peak_memory_bytes: int | None = None
    memory_ratio: float | None = None
    time_to_first_step_s: float | None = None
    later_s: float | None = None
    pays_back_steps: float | None = None
    reason: str = ""

    @property
    def is_climbed(self) -> bool:
        return not self.reason


class Ladder(msgspec.Struct, frozen=True, kw_only=True):
    """A ladder with what each rung is worth. steps: the base first. total: of the last step over the base, content
    tokens/s; slot_total: slots/s."""

    id: str
    title: str
    recipe: str
    steps: tuple[LadderStep, ...]
    total: Ratio | None
    slot_total: Ratio | None


def measure_ladder(study: LadderStudy, results: Mapping[str, Result]) -> Ladder | None:
    """The ladder of a study; None where the run of its base is not among the results. results: by run_id."""
    base = results.get(study.base)
    if base is None:
        return None
    steps = [_step(base, None, base)]
    below = base
    for rung in study.rungs:
        result = results.get(rung.run_id) if rung.run_id else None
        if result is None:
            steps.append(
                LadderStep(
                    setting=rung.setting,
                    value=rung.value,
                    plain=rung.plain,
                    why=rung.why,
                    run_id=rung.run_id,
                    status="-",
                    verdict="-",
                    reason=rung.reason or "its run is not here",
                )
            )
            continue
        reason = rung.reason or _explain_status(result)
        steps.append(_step(result, None if reason else below, base, rung, reason))
        if not reason:
            below = result
    return Ladder(
        id=study.id, title=study.title, recipe=study.recipe, steps=tuple(steps),
        total=None if below is base else _ratio(below, base), slot_total=None if below is base else _slots(below, base),
    )  # fmt: skip


def list_ladders(studies: Sequence[object], results: Sequence[Result]) -> list[Ladder]:
    """The ladders among some studies whose runs are among the results."""
    by_run = {result.run_id: result for result in results}
    found = [measure_ladder(study, by_run) for study in studies if isinstance(study, LadderStudy)]
    return [ladder for ladder in found if ladder is not None]


def _step(
    result: Result, below: Result | None, base: Result, rung: LadderRung | None = None, reason: str = ""
) -> LadderStep:
    later = None if below is None else _difference(below.time_to_first_step_s, result.time_to_first_step_s)
    ratio = None if below is None else _ratio(result, below)
    memory = None
    if below is not None and result.peak_memory_bytes and below.peak_memory_bytes:
        memory = result.peak_memory_bytes / below.peak_memory_bytes
    return LadderStep(
        setting=rung.setting if rung else "",
        value=rung.value if rung else "",
        plain=rung.plain if rung else "",
        why=rung.why if rung else "",
        run_id=result.run_id,
        status=result.status,
        verdict=result.verdict,
        simulated=result.simulated,
        tokens_per_s=result.tokens_per_s,
        slot_tokens_per_s=result.slot_tokens_per_s,
        ratio=ratio,
        slot_ratio=None if below is None else _slots(result, below),
        total=None if below is None else _ratio(result, base),
        peak_memory_bytes=result.peak_memory_bytes,
        memory_ratio=memory,
        time_to_first_step_s=result.time_to_first_step_s,
        later_s=later,
        pays_back_steps=_payback(result, below, ratio, later),
        reason=reason,
    )


def _explain_status(result: Result) -> str:
    """Why a run cannot be stood on; empty where it can."""
    if result.status == "ok" and attempt_rates(result):
        return ""
    ended = next((row for row in reversed(result.each_attempt) if row.status == result.status), None)
    evidence = " ".join(ended.evidence.split()) if ended is not None else ""
    if result.status == "ok":
        return "no step was timed"
    return f"it ended with {result.status}" + (f": {evidence}" if evidence else "")


def _ratio(result: Result, base: Result) -> Ratio | None:
    return rate_ratio(result, base) if attempt_rates(result) and attempt_rates(base) else None


def _slots(result: Result, base: Result) -> Ratio | None:
    """The ratio of content rates times that of the slots that a content token takes."""
    ratio, ours, theirs = _ratio(result, base), result.tokens, base.tokens
    if ratio is None or ours is None or theirs is None or not ours.content or not theirs.content or not theirs.slots:
        return None
    factor = (ours.slots / ours.content) / (theirs.slots / theirs.content)
    low, high = (None if bound is None else bound * factor for bound in (ratio.low, ratio.high))
    # Its p is of a ratio of 1 of the content rates.
    return msgspec.structs.replace(ratio, value=ratio.value * factor, low=low, high=high, p=None)


def _payback(result: Result, below: Result | None, ratio: Ratio | None, later: float | None) -> float | None:
    """Steps after which a rung has made up for its later first step: what the step below takes for the same content
    tokens, less what a step takes."""
    rate, base = result.tokens_per_s, below.tokens_per_s if below is not None else None
    if later is None or later < _LATER_S or ratio is None or ratio.low is None or ratio.low <= 1:
        return None
    if rate is None or base is None or result.tokens is None or not result.steps_measured:
        return None
    content = result.tokens.content / result.steps_measured
    saved = content / base.value - content / rate.value
    return later / saved if saved > 0 else None


def _difference(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else other - one
