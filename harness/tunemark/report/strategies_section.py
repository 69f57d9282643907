"""The section that compares no, manual and automatic parallelization: runs that differ only in the strategy."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from operator import attrgetter

from tunemark.analysis import comparability
from tunemark.analysis.auto_gain import AutoGain
from tunemark.analysis.compare import ComparisonRow as Judged
from tunemark.analysis.compare import compare_by
from tunemark.report.chart_types import DotPlot
from tunemark.report.columns import selected_strategy
from tunemark.report.derivations import format_derivations, format_interval_derivation
from tunemark.report.labels import device_of, origin_of
from tunemark.report.report import Cell, ReportTable, Section, make_own_table
from tunemark.report.run_charts import make_dot_row
from tunemark.report.search_tables import search_charts, search_tables
from tunemark.report.translation import Translate
from tunemark.results import Estimate, Result, RunIdentity
from tunemark.results.ratio import Ratio

# Fields that may differ because they follow from the strategy.
_DERIVED_FIELDS = (
    "run_id", "processes", "threads", "data_ranks", "global_batch", "gradient_accumulation", "parameters",
    "micro_batch", "trainable_parameters", "strategy_requested", "peak_flops", "peak_flops_source",
)  # fmt: skip

_UNDECIDED = "no difference shown"


def make_strategies_section(results: Sequence[Result], tr: Translate) -> tuple[Section, set[frozenset[str]]]:
    """The section, and the run_ids of each pair of runs that it shows no difference of."""
    groups = _groups(results)
    rows, gains, undecided = _compare(groups)
    missing = tr(
        "No two strategies were measured alike, so there is nothing to compare. `tunemark run --strategy none,ddp` "
        "measures two."
    )
    charts = _charts(groups, results, tr)
    intro = tr(
        "Runs that differ in the strategy alone, or in the batch that follows from it, and what each chose. The "
        "baseline is none where it has a rate; faster and slower hold for all ratios together (Holm, 95 %). "
        "Searching and queueing are counted in seconds of their own, never in a rate."
    )
    if groups and not charts:
        intro = f"{intro} {tr('Their rates are drawn in the first section.')}"
    section = Section(
        key="strategies",
        title=tr("None, manual and automatic parallelization"),
        intro=intro if groups else "",
        charts=(*charts, *search_charts(results, tr)),
        tables=(
            *((_table(groups, rows, tr),) if groups else ()),
            *((_gains_table(gains, tr),) if gains else ()),
            *search_tables(results, tr),
        ),
        missing=() if groups or not results else (missing,),
    )
    return section, undecided


def strategy_kind(r: Result, tr: Translate) -> str:
    """Whether parallelization was chosen manually, automatically or not at all, in the report's language."""
    name = r.strategy_requested.partition(":")[0]
    return tr("none") if name == "none" else tr("automatic") if name == "auto" else tr("manual")


def _groups(results: Sequence[Result]) -> list[list[Result]]:
    names = [n for n in RunIdentity.__struct_fields__ if n not in _DERIVED_FIELDS]
    key = attrgetter(*names)
    found: dict[Hashable, list[Result]] = {}
    for r in results:
        if not r.breakdown:
            found.setdefault(key(r), []).append(r)
    return [runs for runs in found.values() if len({r.strategy_requested for r in runs}) > 1]


def _titles(groups: Sequence[Sequence[Result]]) -> list[str]:
    """A title for each group: model, device, and the settings in which groups differ."""
    firsts = [each[0] for each in groups]
    names = ("dataset", "precision", "batching", "sequence", "seed")
    varying = [n for n in names if len({getattr(r, n) for r in firsts}) > 1]
    return [" · ".join([r.model, device_of(r), *(str(getattr(r, n)) for n in varying)]) for r in firsts]


def _charts(groups: Sequence[Sequence[Result]], results: Sequence[Result], tr: Translate) -> tuple[DotPlot, ...]:
    """Charts of rates; simulated rates have a chart of their own. None is drawn that would show what the chart of all
    results does, with the same groups."""
    by_device: dict[str, list[str]] = {}
    for r in results:
        by_device.setdefault(device_of(r), []).append(r.run_id)
    drawn = {frozenset(run_ids) for run_ids in by_device.values()}
    are_drawn = {
        is_simulated: sum(r.simulated == is_simulated for r in results)
        == sum(
            len(runs)
            for runs in groups
            if runs[0].simulated == is_simulated and frozenset(r.run_id for r in runs) in drawn
        )
        for is_simulated in (False, True)
    }
    rows = [
        make_dot_row(r, r.tokens_per_s, r.strategy_requested, title, tr)
        for runs, title in zip(groups, _titles(groups), strict=True)
        for r in runs
    ]
    found = []
    for is_simulated in (False, True):
        chart_rows = [row for row in rows if (row.origin == "simulated") == is_simulated]
        title = tr("Rate by strategy")
        if chart_rows and not are_drawn[is_simulated]:
            found.append(
                DotPlot(
                    key="strategies-simulated" if is_simulated else "strategies",
                    title=f"{title} · {tr('simulated')}" if is_simulated else title,
                    help=tr(
                        "Content tokens per second with 95 % intervals. A run without a rate says why in its place."
                    ),
                    unit=tr("tokens/s (content)"),
                    rows=tuple(chart_rows[:60]),
                    left_out=len(chart_rows[60:]),
                )
            )
    return tuple(found)


def _table(groups: Sequence[Sequence[Result]], outcomes: Mapping[str, Judged], tr: Translate) -> ReportTable:
    rows: list[tuple[Cell, ...]] = []
    derivations: dict[tuple[int, str], str] = {}
    runs, origins = [], []
    for each in groups:
        for r in each:
            row = outcomes.get(r.run_id)
            ratio = _estimate(row.ratio) if row and row.ratio else None
            if ratio is not None:
                derivations[len(rows), "ratio"] = format_interval_derivation(ratio, tr)
            if r.tokens_per_s is not None:
                derivations[len(rows), "tokens_per_s"] = format_derivations(r, tr)["tokens_per_s"]
            outcome = tr(row.outcome) if row else tr("batches differ: no ratio")
            rows.append(
                (r.run_id, r.strategy_requested, r.tokens_per_s, r.verdict, ratio, outcome, strategy_kind(r, tr),
                 r.peak_memory_bytes, r.requested_bytes, r.search_s, r.queue_s, selected_strategy(r), r.status,
                 r.global_batch)
            )  # fmt: skip
            runs.append(r.run_id)
            origins.append(origin_of(r))
    columns = (
        ("run_id", "run"), ("strategy", "strategy"), ("tokens_per_s", "content", "tokens/s"), ("verdict", "verdict"),
        ("ratio", "times the baseline"), ("outcome", "judged"), ("chosen", "chosen"),
        ("peak_memory_bytes", "memory", "bytes"), ("requested_bytes", "memory refused", "bytes"),
        ("search_s", "search", "s"), ("queue_s", "queued", "s"),
        ("selected", "selected"), ("status", "status"),
        ("global_batch", "global batch", "sequences"),
    )  # fmt: skip
    more = {"derivations": derivations, "runs": tuple(runs), "origins": tuple(origins)}
    return make_own_table("strategies", tr("Strategies side by side"), columns, rows, tr, **more)


def _gains_table(found: Sequence[tuple[str, AutoGain]], tr: Translate) -> ReportTable:
    rows = tuple(
        (name, _over(gain, tr), ", ".join(gain.against) or None, _estimate(gain.ratio), gain.regret, gain.paid_back_s,
         tr(gain.outcome))
        for name, gain in found
    )  # fmt: skip
    columns = (
        ("group", "measured alike"), ("over", "over"), ("against", "that is"), ("ratio", "times as fast"),
        ("regret", "left on the table", "1"), ("paid_back_s", "search paid back after", "s"), ("outcome", "judged"),
    )  # fmt: skip
    return make_own_table("automatic", tr("What automatic parallelization is worth"), columns, rows, tr)


def _compare(
    groups: Sequence[Sequence[Result]],
) -> tuple[dict[str, Judged], list[tuple[str, AutoGain]], set[frozenset[str]]]:
    """Compare each run with its group's baseline if only the strategy differs. Also the gains of auto, with titles, and
    the run_ids of each pair without a difference."""
    undecided: set[frozenset[str]] = set()
    rows: dict[str, Judged] = {}
    gains: list[tuple[str, AutoGain]] = []
    free = comparability.find_free_fields(("strategy",), ())
    comparable: list[Result] = []
    titles: dict[str, str] = {}
    for runs, title in zip(groups, _titles(groups), strict=True):
        by_key: dict[tuple[object, ...], list[Result]] = {}
        for r in runs:
            by_key.setdefault(comparability.comparison_key(r, free), []).append(r)
        for each in by_key.values():
            if len({r.strategy_requested for r in each}) > 1:
                comparable += each
                titles.update((r.run_id, title) for r in each)
    # In one call, so that the outcomes hold jointly (Holm).
    for group in compare_by(comparable, ["strategy"]).groups if comparable else ():
        rows.update((row.run_id, row) for row in group.rows)
        run_ids = {row.label: row.run_id for row in group.rows}
        pairs: list[tuple[str, ...]] = [
            (group.baseline or "", row.label) for row in group.rows if row.outcome == _UNDECIDED
        ]
        pairs += [(gain.auto, *gain.against) for gain in group.worth if gain.outcome == _UNDECIDED]
        undecided |= {frozenset(run_ids[label] for label in pair) for pair in pairs if len(pair) == 2}
        title = titles[group.rows[0].run_id]
        several = len({gain.auto for gain in group.worth}) > 1
        gains += [
            (f"{title} · {gain.auto}" if several else title, gain) for gain in group.worth if gain.ratio is not None
        ]
    return rows, gains, undecided


def _over(gain: AutoGain, tr: Translate) -> str:
    if gain.over.startswith("the median"):
        return tr("the median of the manual layouts")
    if gain.over.startswith("the best of all"):
        return tr("the best of all others")
    return tr("none") if gain.over == "none" else tr("the best manual layout")


def _estimate(ratio: Ratio | None) -> Estimate | None:
    if ratio is None:
        return None
    return Estimate(value=ratio.value, low=ratio.low, high=ratio.high, n=min(ratio.n), method=ratio.method)
