"""No, manual and automatic parallelization side by side: runs that differ in the strategy alone."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from operator import attrgetter

from tunemark.analysis import alike
from tunemark.analysis.compare import Gain, compare_by
from tunemark.analysis.compare import Row as Judged
from tunemark.report.charts import Dots, Row
from tunemark.report.columns import selected
from tunemark.report.figures import STATUS
from tunemark.report.labels import device_of, origin
from tunemark.report.report import Cell, Column, Section, Table
from tunemark.report.search import search_charts, search_tables
from tunemark.report.words import Say
from tunemark.report.workings import workings
from tunemark.results import Estimate, Identity, Result
from tunemark.results.ratio import Ratio

# What follows from the strategy.
_FOLLOWS = (
    "run_id", "processes", "threads", "data_ranks", "global_batch", "gradient_accumulation", "parameters",
    "micro_batch", "trainable_parameters", "strategy_requested", "peak_flops", "peak_flops_source",
)  # fmt: skip


def strategies(results: Sequence[Result], say: Say) -> Section:
    groups = _groups(results)
    rows, gains = _judge(groups)
    missing = say(
        "No two strategies were measured alike, so there is nothing to compare. `tunemark run --strategy none,ddp` "
        "measures two."
    )
    return Section(
        key="strategies",
        title=say("None, manual and automatic parallelization"),
        lead=say(
            "Runs that differ in the strategy alone, or in the batch that follows from it, and what each chose. The "
            "baseline is none where it has a rate; faster and slower hold for all ratios together (Holm, 95 %). "
            "Searching and queueing are counted in seconds of their own, never in a rate."
        )
        if groups
        else "",
        charts=(*_charts(groups, say), *search_charts(results, say)),
        tables=(
            *((_table(groups, rows, say),) if groups else ()),
            *((_worth(gains, say),) if gains else ()),
            *search_tables(results, say),
        ),
        missing=() if groups or not results else (missing,),
    )


def kind(r: Result, say: Say) -> str:
    """Whether a person, a program or nobody chose how to parallelize."""
    name = r.strategy_requested.partition(":")[0]
    return say("none") if name == "none" else say("automatic") if name == "auto" else say("manual")


def _groups(results: Sequence[Result]) -> list[list[Result]]:
    names = [n for n in Identity.__struct_fields__ if n not in _FOLLOWS]
    key = attrgetter(*names)
    found: dict[Hashable, list[Result]] = {}
    for r in results:
        if not r.breakdown:
            found.setdefault(key(r), []).append(r)
    return [runs for runs in found.values() if len({r.strategy_requested for r in runs}) > 1]


def _titles(groups: Sequence[Sequence[Result]]) -> list[str]:
    """What each group is of: model, device, and the settings in which groups differ."""
    firsts = [each[0] for each in groups]
    names = ("dataset", "precision", "batching", "sequence", "seed")
    varying = [n for n in names if len({getattr(r, n) for r in firsts}) > 1]
    return [" · ".join([r.model, device_of(r), *(str(getattr(r, n)) for n in varying)]) for r in firsts]


def _charts(groups: Sequence[Sequence[Result]], say: Say) -> tuple[Dots, ...]:
    """A simulator's rates have an axis of their own."""
    rows = _rows(groups, say)
    found = []
    for is_simulated in (False, True):
        own = [row for row in rows if (row.origin == "simulated") == is_simulated]
        title = say("Rate by strategy")
        if own:
            found.append(
                Dots(
                    key="strategies-simulated" if is_simulated else "strategies",
                    title=f"{title} · {say('simulated')}" if is_simulated else title,
                    help=say(
                        "Content tokens per second with 95 % intervals. A run without a rate says why in its place."
                    ),
                    unit=say("tokens/s (content)"),
                    rows=tuple(own[:60]),
                    left_out=len(own[60:]),
                )
            )
    return tuple(found)


def _rows(groups: Sequence[Sequence[Result]], say: Say) -> list[Row]:
    return [
        Row(
            label=r.strategy_requested,
            value=r.tokens_per_s.value if r.tokens_per_s else None,
            low=r.tokens_per_s.low if r.tokens_per_s else None,
            high=r.tokens_per_s.high if r.tokens_per_s else None,
            note=say(STATUS[r.status]) if r.status != "ok" else "" if r.tokens_per_s else say("nothing was timed"),
            verdict=r.verdict,
            origin=origin(r),
            group=title,
            run_id=r.run_id,
        )
        for runs, title in zip(groups, _titles(groups), strict=True)
        for r in runs
    ]


def _table(groups: Sequence[Sequence[Result]], judged: Mapping[str, Judged], say: Say) -> Table:
    rows: list[tuple[Cell, ...]] = []
    worked: dict[tuple[int, str], str] = {}
    runs, origins = [], []
    for each in groups:
        for r in each:
            row = judged.get(r.run_id)
            ratio = _estimate(row.ratio) if row and row.ratio else None
            if ratio is not None:
                worked[len(rows), "ratio"] = (
                    f"{ratio.value:.6g} ({ratio.low} .. {ratio.high})\n{ratio.method}, n = {ratio.n}"
                )
            if r.tokens_per_s is not None:
                worked[len(rows), "tokens_per_s"] = workings(r, say)["tokens_per_s"]
            outcome = say(row.outcome) if row else say("batches differ: no ratio")
            rows.append(
                (r.run_id, r.strategy_requested, kind(r, say), r.tokens_per_s, ratio, outcome, r.peak_memory_bytes,
                 r.requested_bytes, r.search_s, r.queue_s, selected(r), r.status, r.verdict, r.global_batch)
            )  # fmt: skip
            runs.append(r.run_id)
            origins.append(origin(r))
    named = (
        ("run_id", "run", ""), ("strategy", "strategy", ""), ("chosen", "chosen", ""),
        ("tokens_per_s", "content", "tokens/s"), ("ratio", "times the baseline", ""), ("outcome", "judged", ""),
        ("peak_memory_bytes", "memory", "bytes"), ("requested_bytes", "memory refused", "bytes"),
        ("search_s", "search", "s"), ("queue_s", "queued", "s"), ("selected", "selected", ""),
        ("status", "status", ""), ("verdict", "verdict", ""), ("global_batch", "global batch", "sequences"),
    )  # fmt: skip
    return Table(
        key="strategies",
        title=say("Strategies side by side"),
        columns=tuple(Column(name=n, title=say(title), unit=unit) for n, title, unit in named),
        rows=tuple(rows),
        per_run=False,
        workings=worked,
        runs=tuple(runs),
        origins=tuple(origins),
    )


def _worth(found: Sequence[tuple[str, Gain]], say: Say) -> Table:
    rows = tuple(
        (name, _over(gain, say), ", ".join(gain.against) or None, _estimate(gain.ratio), gain.regret, gain.paid_back_s,
         say(gain.outcome))
        for name, gain in found
    )  # fmt: skip
    named = (
        ("group", "measured alike", ""), ("over", "over", ""), ("against", "that is", ""),
        ("ratio", "times as fast", ""), ("regret", "left on the table", "1"),
        ("paid_back_s", "search paid back after", "s"), ("outcome", "judged", ""),
    )  # fmt: skip
    return Table(
        key="automatic",
        title=say("What automatic parallelization is worth"),
        columns=tuple(Column(name=n, title=say(title), unit=unit) for n, title, unit in named),
        rows=rows,
        per_run=False,
    )


def _judge(groups: Sequence[Sequence[Result]]) -> tuple[dict[str, Judged], list[tuple[str, Gain]]]:
    """Each run beside its group's baseline, where it is alike but for the strategy; and what choosing was worth."""
    rows: dict[str, Judged] = {}
    gains: list[tuple[str, Gain]] = []
    free = alike.freed(("strategy",), ())
    comparable: list[Result] = []
    titles: dict[str, str] = {}
    for runs, title in zip(groups, _titles(groups), strict=True):
        alike_runs: dict[tuple[object, ...], list[Result]] = {}
        for r in runs:
            alike_runs.setdefault(alike.key(r, free), []).append(r)
        for each in alike_runs.values():
            if len({r.strategy_requested for r in each}) > 1:
                comparable += each
                titles.update((r.run_id, title) for r in each)
    # All at once, so that outcomes hold together.
    for group in compare_by(comparable, ["strategy"]).groups if comparable else ():
        rows.update((row.run_id, row) for row in group.rows)
        title = titles[group.rows[0].run_id]
        several = len({gain.auto for gain in group.worth}) > 1
        gains += [
            (f"{title} · {gain.auto}" if several else title, gain) for gain in group.worth if gain.ratio is not None
        ]
    return rows, gains


def _over(gain: Gain, say: Say) -> str:
    if gain.over.startswith("the median"):
        return say("the median of the manual layouts")
    if gain.over.startswith("the best of all"):
        return say("the best of all others")
    return say("none") if gain.over == "none" else say("the best manual layout")


def _estimate(ratio: Ratio | None) -> Estimate | None:
    if ratio is None:
        return None
    return Estimate(value=ratio.value, low=ratio.low, high=ratio.high, n=min(ratio.n), method=ratio.method)
