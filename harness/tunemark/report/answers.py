"""The answer in a sentence: what was reached, how sure that is, and whether it is to be believed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tunemark.report.figures import STATUS
from tunemark.report.labels import device_of, labels, origin
from tunemark.report.report import Answer
from tunemark.report.rounding import plus_minus
from tunemark.report.words import Say
from tunemark.results import Imported, Result
from tunemark.units import significant

# The more a verdict lets one believe, the earlier it comes.
_BELIEF = ("valid", "suspect", "unknown", "invalid")
# Sentences that are still read.
_MOST = 6


def answers(
    results: Sequence[Result], imported: Sequence[Imported], say: Say, named: Sequence[str]
) -> tuple[Answer, ...]:
    """One sentence for each model that was measured or simulated: its fastest run among those best to be believed.
    named: the names of all results."""
    groups: dict[tuple[bool, str], list[Result]] = {}
    for r in results:
        groups.setdefault((r.simulated, r.model), []).append(r)
    # What was measured comes before what a simulator did.
    first = sorted(groups.items(), key=lambda item: item[0][0])[:_MOST]
    # Of one model, runs need no name of it: they are then named among themselves.
    found = [_group(rows, named if len(groups) == 1 else labels(rows, say), say) for _, rows in first]
    if not results:
        found = [Answer(text=say("Nothing was measured here."), detail="", value="", verdict="", origin="measured")]
    if imported:
        text = say("{n} claims of others were audited; none of them was measured here.", n=len(imported))
        if len(imported) == 1:
            text = say("One claim of others was audited; it was not measured here.")
        counts = _counted([row.verdict for row in imported], say)
        claims = Answer(text=text, detail=counts, value="", verdict="", origin="imported")
        found = [*(found if results else ()), claims]
    return tuple(found)


def answer_of(results: Sequence[Result]) -> Result | None:
    """The run of the first sentence; None where no run has a rate."""
    measured = [r for r in results if not r.simulated] or list(results)
    first = [r for r in measured if r.model == measured[0].model] if measured else []
    known = [r for r in first if r.tokens_per_s is not None]
    return _best(known) if known else None


def _best(runs: Sequence[Result]) -> Result:
    # A run that was waited for part by part is no measure of speed.
    whole = [r for r in runs if not r.breakdown] or list(runs)
    belief = min(_BELIEF.index(r.verdict) for r in whole)
    return max((r for r in whole if _BELIEF.index(r.verdict) == belief), key=lambda r: _value(r))


def _value(r: Result) -> float:
    return r.tokens_per_s.value if r.tokens_per_s else 0.0


def _group(runs: Sequence[Result], named: Sequence[str], say: Say) -> Answer:
    known = [r for r in runs if r.tokens_per_s is not None]
    model = runs[0].model
    rest = _counted([r.verdict for r in runs], say) if len(runs) > 1 else ""
    ends = [r.status for r in runs if r.status != "ok"]
    rest += " " + _ended(ends, say) if len(runs) > 1 and ends else ""
    if not known:
        ended = say(STATUS[runs[0].status])
        if len(runs) > 1:
            text = say("None of {n} runs of {model} has a rate.", n=len(runs), model=model)
        else:
            text = say("{model} on {device}: no rate, {ended}.", model=model, device=device_of(runs[0]), ended=ended)
        verdict = runs[0].verdict if len({r.verdict for r in runs}) == 1 else "unknown"
        run_id = runs[0].run_id if len(runs) == 1 else None
        return Answer(text=text, detail=rest.strip(), value="", verdict=verdict, origin=origin(runs[0]), run_id=run_id)
    best = _best(known)
    rate = best.tokens_per_s
    assert rate is not None
    value = plus_minus(rate, none=say("(no interval)"), to=say("to"))
    name = next(name for r, name in zip(runs, named, strict=True) if r is best).replace(" · ", ", ")
    if len(runs) == 1:
        text = say(
            "{model} on {device} trains at {value} tokens per second.", model=model, device=device_of(best), value=value
        )
    elif best.verdict in ("valid", "suspect"):
        text = say(
            "{model} trains at {value} tokens per second in the fastest of {n} runs: {name}.",
            model=model,
            value=value,
            n=len(runs),
            name=name,
        )
    else:
        text = say(
            "No run of {model} can be called valid; the fastest of {n} says {value} tokens per second: {name}.",
            model=model,
            value=value,
            n=len(runs),
            name=name,
        )
    if best.simulated:
        text = say("Simulated, so it says nothing of speed: {text}", text=text)
    detail = f"{_sure(best, say)} {rest}".strip()
    return Answer(text=text, detail=detail, value=value, verdict=best.verdict, origin=origin(best), run_id=best.run_id)


def _sure(r: Result, say: Say) -> str:
    rate = r.tokens_per_s
    assert rate is not None
    if rate.low is None or rate.high is None:
        return say("Content tokens; there is no interval ({method}).", method=rate.method)
    low, high = significant(rate.low), significant(rate.high)
    if rate.method.startswith("between"):
        return say("Content tokens; 95 % interval {low} to {high} between {n} attempts.", low=low, high=high, n=rate.n)
    return say(
        "Content tokens; 95 % interval {low} to {high} within one attempt of {n} windows.", low=low, high=high, n=rate.n
    )


def _counted(verdicts: Sequence[str], say: Say) -> str:
    counts = Counter(verdicts)
    parts = [say("{n} {verdict}", n=counts[v], verdict=say(v)) for v in _BELIEF if counts[v]]
    return say("Of {n}: {parts}.", n=len(verdicts), parts=", ".join(parts))


def _ended(ends: Sequence[str], say: Say) -> str:
    counts = Counter(ends)
    parts = [say("{n} {verdict}", n=n, verdict=say(STATUS[end])) for end, n in counts.items()]
    return say("How others ended: {parts}.", parts=", ".join(parts))
