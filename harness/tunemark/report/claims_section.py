"""The section on imported claims: their rates as stated and derived anew, and what was noticed about each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tunemark.analysis.claim_scaling import scale_claims
from tunemark.report import columns, run_charts
from tunemark.report.finding_sentences import translate_finding
from tunemark.report.report import Cell, Column, ReportTable, Section, make_columns
from tunemark.report.run_details import finding_columns
from tunemark.report.translation import Translate
from tunemark.results import ImportedClaim


def make_claims_sections(rows: Sequence[ImportedClaim], tr: Translate, *, alone: bool = False) -> tuple[Section, ...]:
    """The section on imported claims; none without claims. alone: the report has no runs."""
    if not rows:
        return ()
    ways = list(dict.fromkeys(way for row in rows for way in row.tokens_per_s_rederived))
    way_columns = [Column(name=_column_name(way), title=tr("by {way}", way=way), unit="tokens/s") for way in ways]
    cells: list[tuple[Cell, ...]] = [
        (
            *(columns.to_cell(getattr(row, name)) for name, *_ in _CLAIM_COLUMNS),
            *(row.tokens_per_s_rederived.get(way) for way in ways),
        )
        for row in rows
    ]
    claims = ReportTable(
        key="claims",
        title=tr("Imported claims"),
        columns=(*make_columns(_CLAIM_COLUMNS, tr), *way_columns),
        rows=tuple(cells),
        per_run=alone,
        derivations={
            (i, _column_name(way)): text for i, row in enumerate(rows) for way, text in row.arithmetic.items()
        },
        origins=tuple(row.kind for row in rows),
    )
    findings = ReportTable(
        key="claim-findings",
        title=tr("Findings on imported claims"),
        columns=finding_columns(tr, "id", "claim"),
        rows=tuple(
            (row.id, f.severity, f.rule, translate_finding(f.message, tr)) for row in rows for f in row.findings
        ),
        per_run=False,
    )
    chart = run_charts.claims_chart(rows, tr)
    return (
        Section(
            key="claims",
            title=tr("Imported claims"),
            intro=tr(
                "Not measured here: read from somebody else's log or table, and derived anew where that is possible."
            ),
            charts=(chart,) if chart else (),
            tables=(claims, findings, *_scaling_table(rows, tr)),
        ),
    )


def _scaling_table(rows: Sequence[ImportedClaim], tr: Translate) -> tuple[ReportTable, ...]:
    """How claims scale that are alike in all but their count; none where no two are."""
    cells: list[tuple[Cell, ...]] = []
    modes: tuple[tuple[Literal["weak", "strong"], str], ...] = (("weak", tr("weak")), ("strong", tr("strong")))
    for mode, words in modes:
        for scaling in scale_claims(rows, mode):
            is_open = scaling.points[0].global_batch is None
            if is_open and mode == "strong":
                # Without a batch it is open of which kind a scaling is: it stands once.
                continue
            for p in scaling.points:
                values = (p.count, p.global_batch, p.tokens_per_s, p.speedup, p.efficiency, p.serial_share, p.verdict)
                kind = tr("batch not stated") if is_open else words
                cells.append((scaling.title, kind, p.id, *values))
    if not cells:
        return ()
    table = ReportTable(
        key="claim-scaling",
        title=tr("How imported claims scale: one published value each, so no interval"),
        columns=make_columns(_SCALING_COLUMNS, tr),
        rows=tuple(cells),
        per_run=False,
        origins=tuple("imported" for _ in cells),
    )
    return (table,)


def _column_name(way: str) -> str:
    return f"tokens_per_s_{way.replace('-', '_')}"


_SCALING_COLUMNS = (
    ("alike", "alike in"), ("mode", "scaling"), ("id", "claim"), ("count", "count"),
    ("global_batch", "global batch", "sequences"), ("tokens_per_s_claimed", "claimed", "tokens/s"),
    ("speedup", "speed-up", "", "rate over that of the base"), ("efficiency", "efficiency", "1", "speed-up x N0 / N"),
    ("serial_share", "serial share", "1"), ("verdict", "verdict"),
)  # fmt: skip
_CLAIM_COLUMNS = (
    ("id", "claim"), ("tokens_per_s_claimed", "claimed", "tokens/s"), ("verdict", "verdict"), ("kind", "origin"),
    ("source", "source"), ("tool", "tool"), ("counts", "counts"),
    ("model", "model"), ("device", "device"), ("count", "count"), ("precision", "precision"),
    ("sequence", "sequence", "tokens"), ("global_batch", "global batch", "sequences"),
    ("mfu_implied", "implied MFU", "1"),
)  # fmt: skip
