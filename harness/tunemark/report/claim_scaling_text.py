"""How published figures scale, and their ratios, as tables for a terminal. They have no attempts, so no interval."""

from __future__ import annotations

from collections.abc import Sequence

from tunemark.analysis.claim_scaling import ClaimRatio, ClaimScaling
from tunemark.markdown import escape, markdown_table
from tunemark.number_format import format_percent, format_significant

NO_INTERVAL = "Published figures: one value each, so no interval. Not measured here."


def claim_scaling_text(found: Sequence[ClaimScaling], mode: str) -> str:
    """A table for each scaling."""
    share = "serial share (%)"
    header = ["claim", "devices", "global batch", "tokens/s", "speedup", "efficiency (%)", share, "verdict"]
    lines = [f"{mode.capitalize()} scaling of imported claims. {NO_INTERVAL}"]
    for scaling in found:
        cells = [
            [
                escape(p.id), f"{p.count:,}", "-" if p.global_batch is None else f"{p.global_batch:,}",
                format_significant(p.tokens_per_s), f"{p.speedup:.4g}", format_percent(p.efficiency),
                format_percent(p.serial_share), p.verdict,
            ]
            for p in scaling.points
        ]  # fmt: skip
        lines += ["", escape(scaling.title), "", markdown_table(header, cells, "<>>>>>><")]
    return "\n".join(lines)


def claim_ratio_text(groups: Sequence[tuple[str, Sequence[ClaimRatio]]], by: str) -> str:
    """A table for each group of claims that differ only in one axis."""
    header = ["claim", by, "tokens/s", "ratio", "ratio per device", "verdict"]
    lines = [f"Imported claims by {by}. {NO_INTERVAL}"]
    for title, ratios in groups:
        cells = [
            [
                escape(r.id), escape(r.value), format_significant(r.tokens_per_s), f"{r.ratio:.4g}",
                "-" if r.per_device is None else f"{r.per_device:.4g}", r.verdict,
            ]
            for r in ratios
        ]  # fmt: skip
        lines += ["", escape(title), "", markdown_table(header, cells, "<<>>><")]
    return "\n".join(lines)
