"""Scalings as Markdown for a terminal; every title names the mode."""

from __future__ import annotations

from collections.abc import Callable

from tunemark.analysis.scaling_types import Band, Scaling, ScalingFit, ScalingPoint
from tunemark.markdown import escape, markdown_table
from tunemark.number_format import format_gib, format_percent, format_significant
from tunemark.report.estimate_format import format_estimate
from tunemark.results.result import Estimate

SCALING_NOTES = (
    "Scaling: strong keeps the global batch at every size, weak that of each data rank. N0: the smallest size that "
    "was measured well. Speed-up: rate over that of N0; efficiency: speed-up x N0 / N.",
    "Intervals of speed-ups are of the ratio of attempts, paired where they were taken in rounds. What is predicted "
    "was not measured: its interval is of the fitted law, and holds as far as the law does.",
)

LAW_NAMES = {"amdahl": "Amdahl's law", "gustafson": "Gustafson's law", "usl": "Universal Scalability Law"}
LAW_FORMULAS = {
    "amdahl": "x1 N / (1 + s (N - 1))",
    "gustafson": "x1 (s + (1 - s) N)",
    "usl": "x1 N / (1 + s (N - 1) + k N (N - 1))",
}


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
    lines = [f"fit: {LAW_NAMES[chosen.law]}, {LAW_FORMULAS[chosen.law]}, with {_parameters(chosen.parameters)}"]
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
