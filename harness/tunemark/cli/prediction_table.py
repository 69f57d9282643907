"""Predictions of step time and memory as Markdown tables: those by formulas, and those of simulated ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunemark.markdown import markdown_table


def predictions_text(found: Sequence[Mapping[str, Any]]) -> str:
    """One row for each prediction by formulas."""
    header = ["id", "strategy", "step time (s)", "tokens/s per device (slots)", "memory of the fullest rank (GB)"]
    rows = []
    for row in found:
        if "reason" in row:
            rows.append([row["id"], f"cannot be expressed: {row['reason']}", "", "", ""])
            continue
        figures = ("step_time{}_s", ".3g", 1), ("tokens_per_s_per_device{}", ",.0f", 1), ("memory{}_bytes", ".3g", 1e9)
        rows.append([row["id"], row["strategy"], *(_format_bounds(row, *figure) for figure in figures)])
    words = "Predicted by formulas, nothing was run; brackets hold bounds of two standard deviations."
    return f"{words}\n\n{markdown_table(header, rows, '<<>')}"


def simulations_text(found: Sequence[Mapping[str, Any]]) -> str:
    """One row for each rank that was stepped under fake tensors."""
    header = ["id", "strategy", "rank", "FLOPs of matrices (GFLOP)", "sent (MB)", "collectives", "memory (GB)",
              "phase of peak memory", "step time (s), analytic"]  # fmt: skip
    rows = []
    for row in found:
        if "reason" in row:
            rows.append([row["id"], row["strategy"], "", row["reason"], *[""] * 5])
            continue
        step = f"unknown: {row.get('step_time_reason', '')}"
        if row["step_time_s"] is not None:
            step = _format_bounds(row, "step_time{}_s", ".3g", 1)
        for rank in row["ranks"]:
            kinds: dict[str, int] = {}
            for each in rank["collectives"]:
                kinds[each["kind"]] = kinds.get(each["kind"], 0) + each["count"]
            rows.append([
                row["id"], row["strategy"], str(rank["rank"]), f"{rank['flops'] / 1e9:,.4g}",
                f"{rank['communicated_bytes'] / 1e6:,.4g}",
                ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "none",
                f"{rank['memory_bytes'] / 1e9:.4g}", f"{rank['peak_phase']} ({rank['peak_operator']})", step,
            ])  # fmt: skip
    words = (
        "FLOPs, bytes sent and memory by the simulated engine: each distinct rank was stepped under fake tensors;\n"
        "memory is what its tensors hold. The step time is the analytic engine's, with bounds of two standard\n"
        "deviations in brackets."
    )
    return f"{words}\n\n{markdown_table(header, rows, '<<>>><><>')}"


def _format_bounds(row: Mapping[str, Any], name: str, spec: str, unit: float) -> str:
    """A predicted figure with its bounds. name: of the figure, with a place for `_low` and `_high`."""
    value, low, high = (format(row[name.format(part)] / unit, spec) for part in ("", "_low", "_high"))
    return f"{value} [{low}, {high}]"
