"""Published figures by size: speed-up, efficiency and the serial share by hand."""

from __future__ import annotations

import pytest

from tunemark.analysis.claim_scaling import compare_claims, scale_claims
from tunemark.errors import BadExperiment
from tunemark.report import make_report
from tunemark.results import ImportedClaim


def _claim(count: int, rate: float | None, batch: int | None = None, **changes: object) -> ImportedClaim:
    values: dict[str, object] = {
        "id": f"n{count}", "source": "table.csv, line 2", "tool": "claims", "meaning": "", "counts": None, "model": "m",
        "device": "MI250X", "count": count, "precision": "bf16", "sequence": 2048, "global_batch": batch,
        "tokens_per_s_claimed": rate, "tokens_per_s_rederived": {}, "arithmetic": {}, "mfu_implied": None,
        "mfu_convention": None, "mfu_implied_full_attention": None, "peak_flops": None, "peak_source": None,
        "verdict": "valid", "findings": (), "missing": (), "origin": {}, "notes": (), **changes,
    }  # fmt: skip
    return ImportedClaim(**values)  # type: ignore[arg-type]


_ROWS = [
    _claim(1, 1296.0, 8),
    _claim(2, 2072.0, 16),
    _claim(4, 2416.0, 32),
    _claim(8, 2500.0, 64),
    _claim(16, None, 128),
]


def test_weak_scaling_by_hand() -> None:
    (scaling,) = scale_claims(_ROWS, "weak")
    # 2,072 / 2,592 = 80 %, 2,416 / 5,184 = 47 %, 2,500 / 10,368 = 24 %.
    assert [round(p.efficiency, 2) for p in scaling.points] == [1.0, 0.8, 0.47, 0.24]
    # Gustafson: (2 - 1.5988) / 1, (4 - 1.8642) / 3, (8 - 1.9290) / 7.
    assert [p.serial_share and round(p.serial_share, 3) for p in scaling.points] == [None, 0.401, 0.712, 0.867]
    # The batch grows, so it is not strong scaling.
    assert scale_claims(_ROWS, "strong") == []


def test_strong_scaling_by_hand() -> None:
    (scaling,) = scale_claims([_claim(8, 300.0, 64), _claim(4, 200.0, 64)], "strong")
    assert [(p.count, p.speedup, p.efficiency) for p in scaling.points] == [(4, 1.0, 1.0), (8, 1.5, 0.75)]
    # Karp and Flatt: (1 / 1.5 - 1 / 2) / (1 - 1 / 2).
    assert scaling.points[1].serial_share == pytest.approx(1 / 3)


def test_what_differs_in_more_is_no_scaling() -> None:
    assert scale_claims([_claim(1, 100.0, 8), _claim(2, 150.0, 16, device="H100")], "weak") == []
    assert scale_claims([_claim(1, 100.0, 8), _claim(2, 150.0, 16, source="other.csv, line 3")], "weak") == []


def test_ratios_by_an_axis() -> None:
    ((title, ratios),) = compare_claims(_ROWS[:2], "size")
    assert "MI250X" in title
    assert [(r.value, round(r.ratio, 4), r.per_device and round(r.per_device, 4)) for r in ratios] == [
        ("1", 1.0, 1.0), ("2", 1.5988, 0.7994),
    ]  # fmt: skip
    with pytest.raises(BadExperiment, match="cannot be compared by 'colour'"):
        compare_claims(_ROWS, "colour")


def test_a_report_of_claims_shows_how_they_scale() -> None:
    report = make_report([], _ROWS[:2])
    (table,) = [table for section in report.sections for table in section.tables if table.key == "claim-scaling"]
    # 2,072 / 1,296 = 1.599 of 2.
    assert [row[1:5] for row in table.rows] == [("weak", "n1", 1, 8), ("weak", "n2", 2, 16)]
    assert table.rows[1][6:8] == (pytest.approx(1.599, abs=1e-3), pytest.approx(0.799, abs=1e-3))
    rows = [_claim(1, 100.0), _claim(2, 150.0)]
    (table,) = [table for section in make_report([], rows).sections for table in section.tables[2:]]
    assert [row[1] for row in table.rows] == ["batch not stated"] * 2
    assert all(
        table.key != "claim-scaling" for section in make_report([], _ROWS[:1]).sections for table in section.tables
    )
