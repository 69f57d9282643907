"""The results in a sentence each: the rate, its uncertainty, and whether it is valid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from operator import attrgetter

from tunemark.analysis.comparability import comparison_key, exclusion_reason, find_free_fields
from tunemark.number_format import format_significant
from tunemark.report.estimate_format import format_estimate
from tunemark.report.finding_sentences import translate_finding
from tunemark.report.labels import device_of, make_labels, origin_of
from tunemark.report.report import Headline
from tunemark.report.run_charts import STATUS_TEXTS
from tunemark.report.translation import Translate
from tunemark.results import ImportedClaim, Result
from tunemark.results.ratio import LEVEL, adjust_p_values, rate_ratio

# From the most to the least trustworthy.
_VERDICTS = ("valid", "suspect", "unknown", "invalid")
_MAX_HEADLINES = 6


def make_headlines(
    results: Sequence[Result],
    imported: Sequence[ImportedClaim],
    tr: Translate,
    names: Sequence[str],
    undecided: Collection[frozenset[str]] = frozenset(),
) -> tuple[Headline, ...]:
    """One sentence for each model, measured or simulated, on the fastest of its runs with the best verdict.
    names: of all results. undecided: the run_ids of each pair that the report calls no different elsewhere."""
    groups: dict[tuple[bool, str], list[Result]] = {}
    for r in results:
        groups.setdefault((r.simulated, r.model), []).append(r)
    # Measured runs come before simulated ones.
    ordered = sorted(groups.items(), key=lambda item: item[0][0])[:_MAX_HEADLINES]
    # With several models, names within a model leave the model out.
    found = [
        _headline(rows, names if len(groups) == 1 else make_labels(rows, tr), tr, undecided) for _, rows in ordered
    ]
    if not results:
        found = [Headline(text=tr("Nothing was measured here."), detail="", value="", verdict="", origin="measured")]
    if imported:
        text = tr("{n} claims of others were audited; none of them was measured here.", n=len(imported))
        if len(imported) == 1:
            text = tr("One claim of others was audited; it was not measured here.")
        verdicts = _verdict_counts([row.verdict for row in imported], tr)
        claims = Headline(text=text, detail=verdicts, value="", verdict="", origin="imported")
        found = [*(found if results else ()), claims]
    return tuple(found)


def find_headline_run(results: Sequence[Result]) -> Result | None:
    """The run that the first sentence is about; None if no run has a rate."""
    measured = [r for r in results if not r.simulated] or list(results)
    first = [r for r in measured if r.model == measured[0].model] if measured else []
    known = [r for r in first if r.tokens_per_s is not None]
    return _best(known) if known else None


def _best(runs: Sequence[Result]) -> Result:
    # With --breakdown every part of a step is waited for, so its rate does not count.
    candidates = [r for r in runs if not r.breakdown] or list(runs)
    rank = min(_VERDICTS.index(r.verdict) for r in candidates)
    return max((r for r in candidates if _VERDICTS.index(r.verdict) == rank), key=attrgetter("tokens_per_s.value"))


def _headline(
    runs: Sequence[Result], names: Sequence[str], tr: Translate, undecided: Collection[frozenset[str]]
) -> Headline:
    known = [r for r in runs if r.tokens_per_s is not None]
    model = runs[0].model
    counts = _verdict_counts([r.verdict for r in runs], tr) if len(runs) > 1 else ""
    ends = [r.status for r in runs if r.status != "ok"]
    counts += " " + _status_counts(ends, tr) if len(runs) > 1 and ends else ""
    if not known:
        ended = tr(STATUS_TEXTS[runs[0].status])
        if len(runs) > 1:
            text = tr("None of {n} runs of {model} has a rate.", n=len(runs), model=model)
        else:
            text = tr("{model} on {device}: no rate, {ended}.", model=model, device=device_of(runs[0]), ended=ended)
        verdict = runs[0].verdict if len({r.verdict for r in runs}) == 1 else "unknown"
        run_id = runs[0].run_id if len(runs) == 1 else None
        return Headline(
            text=text, detail=counts.strip(), value="", verdict=verdict, origin=origin_of(runs[0]), run_id=run_id
        )
    best = _best(known)
    rate = best.tokens_per_s
    assert rate is not None
    value = format_estimate(rate, no_interval=tr("(no interval)"), to=tr("to"))
    name = next(name for r, name in zip(runs, names, strict=True) if r is best).replace(" · ", ", ")
    alike = _find_alike(best, runs)
    if len(runs) == 1:
        text = tr(
            "{model} on {device} trains at {value} tokens per second.", model=model, device=device_of(best), value=value
        )
    elif best.verdict in ("valid", "suspect") and len(alike) == 1:
        text = tr("{model} trains at {value} tokens per second: {name}.", model=model, value=value, name=name)
    elif best.verdict in ("valid", "suspect"):
        text = tr(
            "{model} trains at {value} tokens per second in the fastest of {n} runs: {name}.",
            model=model,
            value=value,
            n=len(alike),
            name=name,
        )
    else:
        text = tr(
            "No run of {model} can be called valid; the fastest of {n} says {value} tokens per second: {name}.",
            model=model,
            value=value,
            n=len(runs),
            name=name,
        )
    if best.simulated:
        text = tr("Simulated, so it says nothing of speed: {text}", text=text)
    ties = _find_ties(best, alike, undecided)
    tied = [name.replace(" · ", ", ") for r, name in zip(runs, names, strict=True) if r.run_id in ties]
    said = [_interval_sentence(best, tr)]
    said += [tr("No difference from it is shown for: {names}.", names="; ".join(tied))] if tied else []
    others = sum(not r.breakdown for r in runs) - len(alike)
    said += [tr("Not compared with it, because other settings differ: {n}.", n=others)] if others > 0 else []
    detail = " ".join([*said, counts, explain_verdict(best, tr)]).strip()
    return Headline(
        text=text, detail=detail, value=value, verdict=best.verdict, origin=origin_of(best), run_id=best.run_id
    )


def explain_verdict(r: Result, tr: Translate) -> str:
    """The finding that a run's verdict is of, in a sentence; empty for a valid one."""
    why = next((finding.message for finding in r.findings if finding.severity == r.verdict), None)
    if r.verdict == "valid" or why is None:
        return ""
    return tr("Why {verdict}: {why}.", verdict=tr(r.verdict), why=translate_finding(why, tr).rstrip("."))


def _find_alike(best: Result, runs: Sequence[Result]) -> list[Result]:
    """The runs that differ from the best one in the size and the layout at most, itself among them."""
    free = find_free_fields(("strategy", "size"), ("micro_batch", "checkpointing"))
    key = comparison_key(best, free)
    return [r for r in runs if r is best or (not r.breakdown and comparison_key(r, free) == key)]


def _find_ties(best: Result, alike: Sequence[Result], undecided: Collection[frozenset[str]]) -> set[str]:
    """The run_ids of those that may be as fast as the best run for all that their attempts show: with all of `alike`
    judged together (Holm), or as judged with others, in `undecided`."""
    others = [r for r in alike if r is not best and not exclusion_reason(r)]
    if exclusion_reason(best):
        return set()
    adjusted = adjust_p_values([rate_ratio(best, r).p for r in others])
    return {
        r.run_id
        for r, p in zip(others, adjusted, strict=True)
        if p is not None and (p > 1 - LEVEL or frozenset((best.run_id, r.run_id)) in undecided)
    }


def _interval_sentence(r: Result, tr: Translate) -> str:
    rate = r.tokens_per_s
    assert rate is not None
    if rate.low is None or rate.high is None:
        return tr("Content tokens; there is no interval ({method}).", method=rate.method)
    low, high = format_significant(rate.low), format_significant(rate.high)
    if rate.method.startswith("between"):
        return tr("Content tokens; 95 % interval {low} to {high} between {n} attempts.", low=low, high=high, n=rate.n)
    return tr(
        "Content tokens; 95 % interval {low} to {high} within one attempt of {n} windows.", low=low, high=high, n=rate.n
    )


def _verdict_counts(verdicts: Sequence[str], tr: Translate) -> str:
    counts = Counter(verdicts)
    parts = [tr("{n} {verdict}", n=counts[v], verdict=tr(v)) for v in _VERDICTS if counts[v]]
    return tr("Of {n}: {parts}.", n=len(verdicts), parts=", ".join(parts))


def _status_counts(ends: Sequence[str], tr: Translate) -> str:
    counts = Counter(ends)
    parts = [tr("{n} {verdict}", n=n, verdict=tr(STATUS_TEXTS[end])) for end, n in counts.items()]
    return tr("How others ended: {parts}.", parts=", ".join(parts))
