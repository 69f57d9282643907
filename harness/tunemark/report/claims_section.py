"""The section on imported claims: their rates as stated and derived anew, and what was noticed about each."""

from __future__ import annotations

from collections.abc import Sequence

from tunemark.report import columns, run_charts
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
        rows=tuple((row.id, f.severity, f.rule, f.message) for row in rows for f in row.findings),
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
            tables=(claims, findings),
        ),
    )


def _column_name(way: str) -> str:
    return f"tokens_per_s_{way.replace('-', '_')}"


_CLAIM_COLUMNS = (
    ("id", "claim"), ("kind", "origin"), ("source", "source"), ("tool", "tool"), ("counts", "counts"),
    ("model", "model"), ("device", "device"), ("count", "count"), ("precision", "precision"),
    ("sequence", "sequence", "tokens"), ("global_batch", "global batch", "sequences"), ("verdict", "verdict"),
    ("mfu_implied", "implied MFU", "1"), ("tokens_per_s_claimed", "claimed", "tokens/s"),
)  # fmt: skip
