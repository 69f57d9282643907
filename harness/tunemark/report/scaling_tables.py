"""Scalings as tables of a report and as Markdown for a terminal; every title names the mode."""

from __future__ import annotations

from collections.abc import Callable

from tunemark.analysis.scaling_types import Band, Scaling, ScalingFit, ScalingPoint
from tunemark.markdown import escape, markdown_table
from tunemark.report.formatting import format_estimate
from tunemark.report.table import Cell, Column, ReportTable
from tunemark.results.result import Estimate
from tunemark.units import format_gib, format_percent, format_significant

SCALING_NOTES = (
    "Scaling: strong keeps the global batch at every size, weak that of each data rank. N0: the smallest size that "
    "was measured well. Speed-up: rate over that of N0; efficiency: speed-up x N0 / N.",
    "Intervals of speed-ups are of the ratio of attempts, paired where they were taken in rounds. What is predicted "
    "was not measured: its interval is of the fitted law, and holds as far as the law does.",
)

LAW_NAMES = {"amdahl": "Amdahl's law", "gustafson": "Gustafson's law", "usl": "Universal Scalability Law"}
_FORMULAS = {
    "amdahl": "x1 N / (1 + s (N - 1))",
    "gustafson": "x1 (s + (1 - s) N)",
    "usl": "x1 N / (1 + s (N - 1) + k N (N - 1))",
}


def scaling_tables(scaling: Scaling) -> list[ReportTable]:
    """Tables of the sizes; the laws that were tried and the predictions, if a law was fitted; the best size for each
    goal; and the findings, including why no law was fitted."""
    tables = [_sizes(scaling)]
    if scaling.fitted:
        tables += [_laws(scaling, scaling.fitted), _predicted(scaling, scaling.fitted)]
    rows: list[tuple[Cell, ...]] = [(b.goal, b.size or "none", b.shown, b.evidence) for b in scaling.best]
    columns = (
        Column(name="goal", title="goal"),
        Column(name="size", title="size"),
        Column(name="shown", title="shown", help="its interval sets it apart from every other size measured"),
        Column(name="evidence", title="evidence"),
    )
    tables.append(ReportTable(title=f"{scaling.title}: which size", columns=columns, rows=tuple(rows), per_run=False))
    findings: list[tuple[Cell, ...]] = [("note", "no-fit", scaling.no_fit)] if scaling.no_fit else []
    findings += [(f.severity, f.rule, f.message) for f in scaling.findings]
    fields = (("severity", "severity"), ("rule", "rule"), ("message", "what was noticed"))
    header = tuple(Column(name=name, title=words) for name, words in fields)
    if findings:
        tables.append(
            ReportTable(title=f"{scaling.title}: findings", columns=header, rows=tuple(findings), per_run=False)
        )
    return tables


def scaling_text(scaling: Scaling) -> str:
    """A title and a Markdown table, then a line for the law, each prediction, each goal and each finding."""
    s = scaling
    unit = s.unit or "units"
    columns: dict[str, Callable[[ScalingPoint], str]] = {"size": lambda p: escape(f"{s.device}:{p.size}")}
    if s.unit:
        columns[f"N ({unit})"] = lambda p: f"{p.units:g}"
    columns["data ranks"] = lambda p: str(p.data_ranks)
    columns["global batch"] = lambda p: str(p.global_batch)
    columns["tokens/s (content)"] = lambda p: format_estimate(p.tokens_per_s)
    columns["speed-up"] = lambda p: _format_relative(p, p.speedup, 1)
    columns["efficiency (%)"] = lambda p: _format_relative(p, p.efficiency, 100)
    if s.unit:
        columns[f"tokens/s per {unit.removesuffix('s')}"] = lambda p: format_significant(p.tokens_per_s_per_unit)
    if any(p.communication_share is not None for p in s.points):
        columns["communication (%)"] = lambda p: format_percent(p.communication_share)
    columns["memory (GiB)"] = lambda p: format_gib(p.peak_memory_bytes)
    words: dict[str, Callable[[ScalingPoint], str]] = {"status": lambda p: p.status, "verdict": lambda p: p.verdict}
    if any(p.left_out for p in s.points):
        words["left out"] = lambda p: escape(p.left_out or "")
    if s.simulated:
        words["origin"] = lambda p: "simulated" if p.simulated else "measured"
    rows = [[read(p) for read in (columns | words).values()] for p in s.points]
    table = markdown_table([*columns, *words], rows, "<" + ">" * (len(columns) - 1) + "<")
    lines = [f"## {escape(s.title)}", "", table, ""]
    if s.fitted:
        lines += _law_lines(s.fitted, unit)
    else:
        lines.append(f"fit: none: {s.no_fit}")
    for best in s.best:
        size = f"{s.device}:{best.size}" if best.size else "none"
        lines.append(f"{best.goal}: {size}{' (shown)' if best.shown else ' (not shown)'}: {best.evidence}")
    reasons = dict.fromkeys(p.communication_reason for p in s.points if p.processes > 1 and p.communication_reason)
    lines += [f"communication share: {reason}" for reason in reasons]
    lines += [f"{f.severity}: {f.rule}: {f.message}" for f in s.findings]
    return "\n".join([*lines, ""])


def _law_lines(fitted: ScalingFit, unit: str) -> list[str]:
    chosen, *others = fitted.fits
    lines = [f"fit: {LAW_NAMES[chosen.law]}, {_FORMULAS[chosen.law]}, with {_parameters(chosen.parameters)}"]
    weights = "; ".join(f"{LAW_NAMES[f.law]} {format_percent(f.weight)} %" for f in (chosen, *others))
    lines.append(f"  chosen by {fitted.criterion}; Akaike weights: {weights}")
    lines.append(f"  intervals are of: {' and '.join(LAW_NAMES[law] for law in fitted.band_of)}")
    for p in fitted.predictions:
        rate, speedup, efficiency = (
            _format_band(p.tokens_per_s),
            _format_band(p.speedup),
            _format_band(p.efficiency, 100),
        )
        lines.append(f"predicted at {p.units:g} {unit}: {rate} tokens/s, speed-up {speedup}, efficiency {efficiency} %")
    return lines


def _parameters(parameters: dict[str, Estimate]) -> str:
    return ", ".join(f"{name} = {_format_interval(e.value, e.low, e.high)}" for name, e in parameters.items())


def _format_band(band: Band, factor: float = 1.0) -> str:
    low, high = (None if b is None else b * factor for b in (band.low, band.high))
    return _format_interval(band.value * factor, low, high)


def _format_interval(value: float, low: float | None, high: float | None) -> str:
    above = "no bound" if high is None else format_significant(high, 3)
    return f"{format_significant(value, 3)} ({format_significant(low or 0.0, 3)} to {above})"


def _format_relative(point: ScalingPoint, estimate: Estimate | None, factor: float) -> str:
    if point.is_base and estimate is not None:
        return f"{factor:g} (base)"
    return format_estimate(estimate and estimate.times(factor))


_PER_UNIT = {"chips": "content per chip", "devices": "content per device", "units": "content per unit"}


def _sizes(scaling: Scaling) -> ReportTable:
    unit, is_partial = scaling.unit or "units", any(p.left_out for p in scaling.points)
    columns = (
        Column(name="run_id", title="run"),
        Column(name="size", title="size"),
        Column(name="units", title="N", unit=unit),
        Column(name="is_base", title="N0", help="the size that the others are held against"),
        Column(name="processes", title="processes"),
        Column(name="data_ranks", title="data ranks"),
        Column(name="global_batch", title="global batch", unit="sequences"),
        Column(name="tokens_per_s", title="content", unit="tokens/s"),
        Column(name="speedup", title="speed-up", help="rate over that of the base"),
        Column(name="efficiency", title="efficiency", unit="1", help="speed-up x N0 / N"),
        Column(name="marginal_efficiency", title="marginal efficiency", unit="1", help="of the units added last, each"),
        Column(name="tokens_per_s_per_unit", title=_PER_UNIT[unit], unit="tokens/s"),
        Column(name="communication_share", title="communication", unit="1", help="of a step, where it was measured"),
        Column(name="peak_memory_bytes", title="memory", unit="bytes", help="of the rank that held most"),
        Column(name="status", title="status"),
        Column(name="verdict", title="verdict"),
        Column(name="simulated", title="simulated"),
        *([Column(name="left_out", title="takes no part", help="in the fit and in the choices")] if is_partial else []),
    )
    rows = tuple(tuple(_cell(point, column.name) for column in columns) for point in scaling.points)
    return ReportTable(title=scaling.title, columns=columns, rows=rows, per_run=False)


def _cell(point: ScalingPoint, name: str) -> Cell:
    if point.is_base and name in ("speedup", "efficiency") and getattr(point, name):
        return 1.0
    found: Cell = getattr(point, name)
    return found or "" if name == "left_out" else found


def _laws(scaling: Scaling, fitted: ScalingFit) -> ReportTable:
    columns = (
        Column(name="law", title="law"),
        Column(name="formula", title="rate"),
        Column(name="chosen", title="chosen", help=fitted.criterion),
        Column(name="x1", title="x1", unit="tokens/s", help="rate of one unit"),
        Column(name="s", title="s", help="serial share"),
        Column(name="k", title="k", help="coherency cost"),
        Column(name="aicc", title="AICc"),
        Column(name="weight", title="Akaike weight", unit="1"),
        Column(name="residual", title="residual", unit="1", help="standard deviation of attempts around the curve"),
    )
    rows: list[tuple[Cell, ...]] = []
    for f in fitted.fits:
        parameters = (f.parameters.get(name) for name in ("x1", "s", "k"))
        rows.append(
            (LAW_NAMES[f.law], _FORMULAS[f.law], f.law == fitted.law, *parameters, f.aicc, f.weight, f.residual)
        )
    return ReportTable(title=f"{scaling.title}: laws tried", columns=columns, rows=tuple(rows), per_run=False)


def _predicted(scaling: Scaling, fitted: ScalingFit) -> ReportTable:
    columns = (
        Column(name="units", title="N", unit=scaling.unit or "units"),
        Column(name="origin", title="origin"),
        Column(name="tokens_per_s", title="content", unit="tokens/s"),
        Column(name="speedup", title="speed-up"),
        Column(name="efficiency", title="efficiency", unit="1"),
    )
    rows: list[tuple[Cell, ...]] = []
    for p in fitted.predictions:
        bands = (_estimate(band, fitted) for band in (p.tokens_per_s, p.speedup, p.efficiency))
        rows.append((p.units, "predicted", *bands))
    return ReportTable(title=f"{scaling.title}: predicted", columns=columns, rows=tuple(rows), per_run=False)


def _estimate(band: Band, fitted: ScalingFit) -> Estimate:
    method = f"predicted by {LAW_NAMES[fitted.law]}, 95 % at this N"
    n = next(iter(fitted.fits[0].parameters.values())).n
    return Estimate(value=band.value, low=band.low, high=band.high, n=n, method=method)
