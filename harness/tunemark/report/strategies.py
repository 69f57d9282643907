"""No, manual and automatic parallelization side by side: runs that differ in the strategy alone."""

from __future__ import annotations

from collections.abc import Sequence

from tunemark.analysis.compare import compare_by, ratio_of, takes_no_part
from tunemark.errors import BadExperiment
from tunemark.report.charts import Dots, Row
from tunemark.report.columns import selected
from tunemark.report.figures import STATUS
from tunemark.report.labels import device_of, origin
from tunemark.report.report import Cell, Column, Section, Table
from tunemark.report.words import Say
from tunemark.results import Estimate, Identity, Result
from tunemark.results.ratio import Ratio

# What follows from the strategy.
_FOLLOWS = (
    "run_id", "processes", "threads", "data_ranks", "global_batch", "gradient_accumulation", "parameters",
    "micro_batch", "trainable_parameters", "strategy_requested", "peak_flops", "peak_flops_source",
)  # fmt: skip


def strategies(results: Sequence[Result], say: Say) -> Section:
    groups = _groups(results)
    missing = say(
        "No two strategies were measured alike, so there is nothing to compare. `tunemark run --strategy none,ddp` "
        "measures two."
    )
    return Section(
        key="strategies",
        title=say("None, manual and automatic parallelization"),
        lead=say(
            "Runs that differ in the strategy alone, and what each chose. Searching and queueing are counted in "
            "seconds of their own, never in a rate."
        )
        if groups
        else "",
        charts=(_chart(groups, say),) if groups else (),
        tables=(_table(groups, say), *_worth(results, say)) if groups else (),
        missing=() if groups or not results else (missing,),
    )


def kind(r: Result, say: Say) -> str:
    """Whether a person, a program or nobody chose how to parallelize."""
    name = r.strategy_requested.partition(":")[0]
    return say("none") if name == "none" else say("automatic") if name == "auto" else say("manual")


def _groups(results: Sequence[Result]) -> list[list[Result]]:
    names = [n for n in Identity.__struct_fields__ if n not in _FOLLOWS]
    found: dict[tuple[str, ...], list[Result]] = {}
    for r in results:
        if not r.breakdown:
            found.setdefault(tuple(str(getattr(r, name)) for name in names), []).append(r)
    return [runs for runs in found.values() if len({r.strategy_requested for r in runs}) > 1]


def _title(runs: Sequence[Result], groups: Sequence[Sequence[Result]]) -> str:
    r, firsts = runs[0], [each[0] for each in groups]
    names = ("model", "device", "size", "dataset", "precision", "batching", "sequence", "seed")
    words = [
        str(getattr(r, n)) for n in names if len({getattr(f, n) for f in firsts}) > 1 and n not in ("device", "size")
    ]
    return " · ".join([r.model, device_of(r), *(w for w in words if w != r.model)])


def _chart(groups: Sequence[Sequence[Result]], say: Say) -> Dots:
    rows = [
        Row(
            label=r.strategy_requested,
            value=r.tokens_per_s.value if r.tokens_per_s else None,
            low=r.tokens_per_s.low if r.tokens_per_s else None,
            high=r.tokens_per_s.high if r.tokens_per_s else None,
            note=say(STATUS[r.status]) if r.status != "ok" else "" if r.tokens_per_s else say("nothing was timed"),
            verdict=r.verdict,
            origin=origin(r),
            group=_title(runs, groups),
            run_id=r.run_id,
        )
        for runs in groups
        for r in runs
    ]
    return Dots(
        key="strategies",
        title=say("Rate by strategy"),
        help=say("Content tokens per second with 95 % intervals. A run without a rate says why in its place."),
        unit=say("tokens/s (content)"),
        rows=tuple(rows[:60]),
        left_out=len(rows[60:]),
    )


def _table(groups: Sequence[Sequence[Result]], say: Say) -> Table:
    rows: list[tuple[Cell, ...]] = []
    worked, runs, origins = {}, [], []
    for each in groups:
        base = next((r for r in each if kind(r, lambda text: text) == "none" and r.tokens_per_s), None)
        for r in each:
            ratio = None
            if (
                base is not None
                and base.tokens_per_s
                and r.tokens_per_s
                and not (takes_no_part(base) or takes_no_part(r))
            ):
                ratio = estimate_of(ratio_of(r, base))
                worked[len(rows), "ratio"] = (
                    f"{r.tokens_per_s.value:.6g} / {base.tokens_per_s.value:.6g}; {ratio.method}, n = {ratio.n}"
                )
            rows.append(
                (r.run_id, _title(each, groups), r.strategy_requested, kind(r, say), r.tokens_per_s, ratio,
                 r.global_batch, r.peak_memory_bytes, r.search_s, r.queue_s, selected(r), r.status, r.verdict)
            )  # fmt: skip
            runs.append(r.run_id)
            origins.append(origin(r))
    named = (
        ("run_id", "run", ""), ("group", "measured alike", ""), ("strategy", "strategy", ""), ("kind", "chosen", ""),
        ("tokens_per_s", "content", "tokens/s"), ("ratio", "of none's", "1"),
        ("global_batch", "global batch", "sequences"), ("peak_memory_bytes", "memory", "bytes"),
        ("search_s", "search", "s"), ("queue_s", "queued", "s"), ("selected", "selected", ""),
        ("status", "status", ""), ("verdict", "verdict", ""),
    )  # fmt: skip
    return Table(
        key="strategies",
        title=say("Strategies"),
        columns=tuple(Column(name=n, title=say(title), unit=unit) for n, title, unit in named),
        rows=tuple(rows),
        per_run=False,
        workings=worked,
        runs=tuple(runs),
        origins=tuple(origins),
    )


def estimate_of(ratio: Ratio) -> Estimate:
    """A ratio as a cell of a table; n: of the side that has fewer attempts."""
    return Estimate(value=ratio.value, low=ratio.low, high=ratio.high, n=min(ratio.n), method=ratio.method)


def _worth(results: Sequence[Result], say: Say) -> tuple[Table, ...]:
    """What automatic choice is worth, of the runs that agree in all else."""
    try:
        groups = [group for group in compare_by(results, ["strategy"]).groups if group.worth]
    except BadExperiment:
        return ()
    if not groups:
        return ()
    rows: list[tuple[Cell, ...]] = []
    for group in groups:
        title = " · ".join(str(group.shared[name]) for name in ("model", "device", "size") if name in group.shared)
        for gain in group.worth:
            ratio = estimate_of(gain.ratio) if gain.ratio else None
            against = ", ".join(gain.against) or None
            rows.append((title, gain.over, against, ratio, gain.regret, say(gain.outcome), gain.reason or None))
    named = (
        ("group", "measured alike", ""), ("over", "automatic over", ""), ("against", "which is", ""),
        ("ratio", "ratio of rates", "1"), ("regret", "regret", "1"), ("outcome", "automatic is", ""),
        ("reason", "why there is no interval", ""),
    )  # fmt: skip
    return (
        Table(
            key="worth",
            title=say("What automatic choice is worth"),
            columns=tuple(Column(name=n, title=say(title), unit=unit) for n, title, unit in named),
            rows=tuple(rows),
            per_run=False,
        ),
    )
