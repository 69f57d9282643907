"""Scalings as tables of a report: sizes, fitted laws, predictions, the best size for each goal, and findings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from tunemark.analysis.scaling_types import Band, Scaling, ScalingFit, ScalingPoint
from tunemark.report.chart_types import Origin
from tunemark.report.derivations import format_interval_derivation
from tunemark.report.finding_sentences import translate_finding
from tunemark.report.report import Cell, Column, ReportTable, make_columns, make_own_table
from tunemark.report.scaling_text import LAW_FORMULAS, LAW_NAMES
from tunemark.report.translation import Translate
from tunemark.results.result import Estimate


def scaling_tables(scaling: Scaling, number: int, tr: Translate) -> list[ReportTable]:
    """Tables of the sizes; the laws that were tried and the predictions, if a law was fitted; the best size for each
    goal; and the findings, including why no law was fitted. number: of the scaling in the report."""

    def table(kind: str, title: str, columns: tuple[Column, ...], rows: Iterable[Sequence[Cell]]) -> ReportTable:
        cells = tuple(tuple(map(_to_int, row)) for row in rows)
        return ReportTable(key=f"scaling-{number}-{kind}", title=title, columns=columns, rows=cells, per_run=False)

    sizes = _size_columns(scaling, tr)
    tables = [
        replace(
            table(
                "sizes", scaling_title(scaling, tr), sizes, ([_cell(p, c.name) for c in sizes] for p in scaling.points)
            ),
            derivations=_derivations(scaling, tr),
            runs=tuple(p.run_id for p in scaling.points),
            origins=_origins(scaling.points),
        )
    ]
    if scaling.fitted:
        tables.append(table("laws", tr("Laws tried"), _law_columns(scaling.fitted, tr), _law_rows(scaling.fitted)))
        columns = (
            ("units", "N", scaling.unit or "units"), ("origin", "origin"), ("tokens_per_s", "content", "tokens/s"),
            ("speedup", "speed-up"), ("efficiency", "efficiency", "1"),
        )  # fmt: skip
        rows = _predicted_rows(scaling.fitted)
        tables.append(table("predicted", tr("Predicted, not measured"), make_columns(columns, tr), rows))
    goals = {"fastest": tr("fastest"), "cheapest": tr("cheapest"), "knee": tr("knee")}
    best = [(goals[b.goal], b.size or tr("none"), b.shown, translate_finding(b.evidence, tr)) for b in scaling.best]
    tables.append(table("goals", tr("Which size"), make_columns(_GOAL_COLUMNS, tr), best))
    findings = [("note", "no-fit", translate_finding(scaling.no_fit, tr))] if scaling.no_fit else []
    findings += [(f.severity, f.rule, translate_finding(f.message, tr)) for f in scaling.findings]
    if findings:
        tables.append(table("findings", tr("Findings on these sizes"), make_columns(_FINDING_COLUMNS, tr), findings))
    return tables


def scaling_title(scaling: Scaling, tr: Translate) -> str:
    """Mode, model, device, strategy, settings and batch of a scaling."""
    shared = scaling.shared
    mode = tr("strong scaling") if scaling.mode == "strong" else tr("weak scaling")
    parts = [mode, f"{scaling.model} · {scaling.device}", scaling.strategy]
    parts += [str(shared[name]) for name in ("precision", "batching") if shared.get(name)]
    if scaling.mode == "strong":
        batch = tr("global batch")
    else:
        is_searched = scaling.strategy.partition(":")[0] == "auto"
        batch = tr("batch per rank") if is_searched else tr("batch per data rank")
    parts.append(f"{batch} {scaling.batch:g}")
    parts += [tr("simulated")] if scaling.simulated else []
    return " · ".join(parts)


def more_scalings_table(scalings: Sequence[Scaling], tr: Translate) -> ReportTable:
    """One row for each size of several scalings."""
    points = [(scaling_title(scaling, tr), point) for scaling in scalings for point in scaling.points]
    fields = (
        ("run_id", "run"), ("size", "size"), ("units", "N"), ("tokens_per_s", "content", "tokens/s"),
        ("verdict", "verdict"), ("speedup", "speed-up"), ("efficiency", "efficiency", "1"), ("status", "status"),
    )  # fmt: skip
    rows = ((*(_to_int(getattr(point, name)) for name, *_ in fields), words) for words, point in points)
    runs, origins = tuple(point.run_id for _, point in points), _origins([point for _, point in points])
    columns = (*fields, ("scaling", "Scaling"))
    return make_own_table("scaling-more", tr("More scalings"), columns, rows, tr, runs=runs, origins=origins)


_GOAL_COLUMNS = (
    ("goal", "goal"), ("size", "size"),
    ("shown", "shown", "", "its interval sets it apart from every other size measured"), ("evidence", "evidence"),
)  # fmt: skip
_FINDING_COLUMNS = (("severity", "severity"), ("rule", "rule"), ("message", "what was noticed"))
_PER_UNIT = {"chips": "content per chip", "devices": "content per device", "units": "content per unit"}


def _size_columns(scaling: Scaling, tr: Translate) -> tuple[Column, ...]:
    unit = scaling.unit or "units"
    columns = (
        ("run_id", "run"), ("size", "size"), ("units", "N", unit),
        ("is_base", "N0", "", "the size that the others are held against"),
        ("tokens_per_s", "content", "tokens/s"), ("verdict", "verdict"),
        ("speedup", "speed-up", "", "rate over that of the base"),
        ("efficiency", "efficiency", "1", "speed-up x N0 / N"),
        ("marginal_efficiency", "marginal efficiency", "1", "of the units added last, each"),
        ("tokens_per_s_per_unit", _PER_UNIT[unit], "tokens/s"),
        ("communication_share", "communication", "1", "of a step, where it was measured"),
        ("peak_memory_bytes", "memory", "bytes", "of the rank that held most"),
        ("processes", "processes"), ("data_ranks", "data ranks"), ("global_batch", "global batch", "sequences"),
        ("status", "status"), ("simulated", "simulated"),
        ("left_out", "takes no part", "", "in the fit and in the choices"),
    )  # fmt: skip
    return make_columns(columns if any(p.left_out for p in scaling.points) else columns[:-1], tr)


def _cell(point: ScalingPoint, name: str) -> Cell:
    if point.is_base and name in ("speedup", "efficiency") and getattr(point, name):
        return 1.0
    found: Cell = getattr(point, name)
    return found or "" if name == "left_out" else found


def _law_columns(fitted: ScalingFit, tr: Translate) -> tuple[Column, ...]:
    columns = (
        ("law", "law"), ("formula", "rate"), ("chosen", "chosen"), ("x1", "x1", "tokens/s", "rate of one unit"),
        ("s", "s", "", "serial share"), ("k", "k", "", "coherency cost"), ("aicc", "AICc"),
        ("weight", "Akaike weight", "1"),
        ("residual", "residual", "1", "standard deviation of attempts around the curve"),
    )  # fmt: skip
    # The criterion has no translation.
    return tuple(replace(c, help=fitted.criterion) if c.name == "chosen" else c for c in make_columns(columns, tr))


def _law_rows(fitted: ScalingFit) -> Iterable[Sequence[Cell]]:
    for f in fitted.fits:
        parameters = (f.parameters.get(name) for name in ("x1", "s", "k"))
        yield LAW_NAMES[f.law], LAW_FORMULAS[f.law], f.law == fitted.law, *parameters, f.aicc, f.weight, f.residual


def _predicted_rows(fitted: ScalingFit) -> Iterable[Sequence[Cell]]:
    for p in fitted.predictions:
        bands = (_estimate(band, fitted) for band in (p.tokens_per_s, p.speedup, p.efficiency))
        yield p.units, "predicted", *bands


def _estimate(band: Band, fitted: ScalingFit) -> Estimate:
    method = f"predicted by {LAW_NAMES[fitted.law]}, 95 % at this N"
    n = next(iter(fitted.fits[0].parameters.values())).n
    return Estimate(value=band.value, low=band.low, high=band.high, n=n, method=method)


def _derivations(scaling: Scaling, tr: Translate) -> dict[tuple[int, str], str]:
    base = next((p for p in scaling.points if p.is_base), None)
    found: dict[tuple[int, str], str] = {}
    if base is None or base.tokens_per_s is None:
        return found
    for i, p in enumerate(scaling.points):
        if p.tokens_per_s is None or p.speedup is None:
            continue
        ratio = f"{p.tokens_per_s.value:.6g} / {base.tokens_per_s.value:.6g} tokens/s"
        found[i, "speedup"] = f"{ratio} = {format_interval_derivation(p.speedup, tr)}"
        if p.efficiency is not None and p.units and base.units:
            found[i, "efficiency"] = f"{p.speedup.value:.6g} x {base.units:g} / {p.units:g} = {p.efficiency.value:.6g}"
    return found


def _origins(points: Sequence[ScalingPoint]) -> tuple[Origin, ...]:
    return tuple("simulated" if p.simulated else "measured" for p in points)


def _to_int(cell: Cell) -> Cell:
    """A float with an integral value, such as a number of chips, as an int."""
    return int(cell) if isinstance(cell, float) and cell.is_integer() and abs(cell) < 1e9 else cell
