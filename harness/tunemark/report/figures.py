"""Charts of results: what is worth seeing, with the unknown drawn as a sentence instead of a zero."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from tunemark.analysis.prices import Prices
from tunemark.report.charts import Dots, Parts, Row, Steps, Whole
from tunemark.report.costs import cost
from tunemark.report.labels import device_of, labels, origin
from tunemark.report.words import Say
from tunemark.results import Estimate, Imported, Result
from tunemark.results.trace import Trace
from tunemark.units import GIB

# What a page can hold without its reader losing the thread; the tables in the files have all.
ROWS = 40


def throughput(results: Sequence[Result], named: Sequence[str], say: Say) -> tuple[Dots, ...]:
    """Every run's rate of content tokens, by device and size; a simulator's on an axis of their own. named: the runs'
    names, here and below."""
    order = {name: i for i, name in enumerate(dict.fromkeys(device_of(r) for r in results))}
    ordered = sorted(results, key=lambda r: order[device_of(r)])
    is_grouped = len(order) > 1
    words = dict(zip(map(id, results), labels(results, say, without=("device",)) if is_grouped else named, strict=True))
    found = []
    for is_simulated in (False, True):
        rows = [
            _row(r, r.tokens_per_s, words[id(r)], _group(r, say) if is_grouped else "", say)
            for r in ordered
            if r.simulated == is_simulated
        ]
        kept = _extremes(rows)
        if not rows:
            continue
        found.append(
            Dots(
                key="throughput-simulated" if is_simulated else "throughput",
                title=say("Rates of a simulator, which say nothing of speed") if is_simulated else say("Throughput"),
                help=say(
                    "Content tokens (never padding) over the wall time of the timed steps, whole job. The line through "
                    "a mark is its 95 % interval: between attempts where there are two or more, else within the one "
                    "run."
                ),
                unit=say("tokens/s (content)"),
                rows=tuple(kept),
                left_out=len(rows) - len(kept),
            )
        )
    return tuple(found)


def claims(imported: Sequence[Imported], say: Say) -> Dots | None:
    """What others claim, as they state it."""
    rows = [
        Row(
            label=claim.id,
            value=claim.tokens_per_s_claimed,
            note="" if claim.tokens_per_s_claimed is not None else say("no rate is stated"),
            verdict=claim.verdict,
            origin="imported",
        )
        for claim in imported
        if claim.kind == "imported"
    ]
    if not rows:
        return None
    return Dots(
        key="claims",
        title=say("Claimed rates"),
        help=say("As their sources state them, each by what its tool counts; nothing of it was measured here."),
        unit=say("tokens/s, as each source counts them"),
        rows=tuple(rows[:ROWS]),
        left_out=len(rows[ROWS:]),
    )


def costs(results: Sequence[Result], prices: Prices, named: Sequence[str], say: Say) -> Dots | None:
    found = [(r, cost(r, prices)) for r in results]
    rows = [_row(r, c, name, "", say) for (r, c), name in zip(found, named, strict=True) if c is not None]
    kept = _extremes(rows)
    if not rows:
        return None
    return Dots(
        key="cost",
        title=say("Cost of a million tokens"),
        help=say("Price of an hour / 3600 / content tokens per second x 1,000,000, with the interval of the rate."),
        unit=say("{currency} per million content tokens", currency=prices.currency),
        rows=tuple(kept),
        left_out=len(rows) - len(kept),
    )


def memory(results: Sequence[Result], named: Sequence[str], say: Say) -> Dots | None:
    rows = []
    for r, name in zip(results, named, strict=True):
        held = None if r.peak_memory_bytes is None else r.peak_memory_bytes / GIB
        note = ""
        if r.requested_bytes is not None:
            note = say("{gib} GiB more were refused", gib=f"{r.requested_bytes / GIB:.4g}")
        if held is not None or note:
            rows.append(
                Row(label=name, value=held, note=note or ("" if held else "?"), origin=origin(r), run_id=r.run_id)
            )
    kept = _extremes(rows)
    if not rows:
        return None
    return Dots(
        key="memory",
        title=say("Memory"),
        help=say(
            "The most that the fullest rank held, as its device says it. A CPU's figure holds the interpreter too."
        ),
        unit="GiB",
        rows=tuple(kept),
        left_out=len(rows) - len(kept),
    )


def step_parts(results: Sequence[Result], say: Say) -> Parts | None:
    """Mean seconds of each part of a step, of the runs that were measured so."""
    some = [r for r in results if r.breakdown_s]
    if not some:
        return None
    names = tuple(dict.fromkeys(name for r in some for name in r.breakdown_s or {}))
    rows = tuple(
        Whole(
            label=name,
            parts=tuple((r.breakdown_s or {}).get(n, 0.0) for n in names),
            note=f"{sum((r.breakdown_s or {}).values()):.4g} s",
            origin=origin(r),
            run_id=r.run_id,
        )
        for r, name in zip(some, labels(some, say), strict=True)
    )
    return Parts(
        key="step-parts",
        title=say("Where a step's time goes"),
        help=say(
            "Mean seconds of each part over the timed steps, every part waited for: their sum is more than a step "
            "takes without waiting, so it is read for shares, not for speed."
        ),
        unit=say("seconds per step"),
        names=names,
        rows=rows[:ROWS],
        left_out=len(rows[ROWS:]),
    )


def slots(results: Sequence[Result], named: Sequence[str], say: Say) -> Parts | None:
    """What the slots of the timed steps held."""
    rows = []
    for r, name in zip(results, named, strict=True):
        if r.tokens is None or not r.tokens.slots:
            continue
        t = r.tokens
        parts = (t.trained / t.slots, (t.content - t.trained) / t.slots, (t.slots - t.content) / t.slots)
        note = say("{percent} % padding", percent=f"{100 * parts[2]:.1f}")
        rows.append(Whole(label=name, parts=parts, note=note, origin=origin(r), run_id=r.run_id))
    if not rows:
        return None
    return Parts(
        key="slots",
        title=say("What the slots hold"),
        help=say(
            "Of all slots (batch x sequence) of the timed steps: tokens with a label, content without one, and "
            "padding, which is no work done for anybody."
        ),
        unit=say("share of slots"),
        names=(say("trained"), say("content, not trained"), say("padding")),
        rows=tuple(rows[:ROWS]),
        is_share=True,
        left_out=len(rows[ROWS:]),
    )


def steps(r: Result, name: str, trace: Trace, number: int, say: Say) -> Steps:
    """One attempt's step times, the warm-up among them."""
    timed = [
        w.step_time_s
        for w in trace.kept
        if trace.first is not None and trace.last is not None and trace.first < w.steps <= trace.last
    ]
    words = say(
        "Seconds per step of each window between two synchronised instants. Shaded: the warm-up, which no rate counts; "
        "white: what was timed."
    )
    if len(trace.kept) < trace.windows:
        words += " " + say(
            "{kept:,} of {windows:,} windows are drawn, the fastest and slowest of each stretch among them.",
            kept=len(trace.kept),
            windows=trace.windows,
        )
    return Steps(
        key=f"steps-{r.run_id}-{number}",
        title=say("Step time: {name}, attempt {number}", name=name, number=number),
        help=words,
        x=say("step"),
        y=say("seconds per step"),
        points=tuple((float(w.steps), w.step_time_s) for w in trace.kept),
        first=trace.first,
        last=trace.last,
        # Of a part of the windows, chosen by their extremes, a median would be none.
        middle=statistics.median(timed) if timed and len(trace.kept) == trace.windows else None,
        origin=origin(r),
        run_id=r.run_id,
    )


def _group(r: Result, say: Say) -> str:
    return f"{device_of(r)} · {say('simulated')}" if r.simulated else device_of(r)


def _row(r: Result, estimate: Estimate | None, name: str, group: str, say: Say) -> Row:
    note = "" if r.status == "ok" else say(STATUS[r.status])
    if estimate is None:
        note = note or say("nothing was timed")
    return Row(
        label=name,
        value=estimate.value if estimate else None,
        low=estimate.low if estimate else None,
        high=estimate.high if estimate else None,
        note=note,
        verdict=r.verdict,
        origin=origin(r),
        group=group,
        run_id=r.run_id,
    )


def _extremes(rows: Sequence[Row]) -> list[Row]:
    """At most ROWS: the largest, the smallest and the first that have no value, in the order that they had."""
    if len(rows) <= ROWS:
        return list(rows)
    known = sorted((i for i, row in enumerate(rows) if row.value is not None), key=lambda i: -(rows[i].value or 0.0))
    unknown = [i for i, row in enumerate(rows) if row.value is None][:5]
    left = ROWS - len(unknown)
    kept = {*unknown, *known[: left - left // 3], *known[len(known) - left // 3 :]}
    return [rows[i] for i in sorted(kept)]


STATUS: Mapping[str, str] = {
    "ok": "ended well",
    "oom": "out of memory",
    "error": "failed",
    "killed": "killed",
    "timeout": "timed out",
}
