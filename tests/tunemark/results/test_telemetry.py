"""Samples of a device, held to the timed part by literals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunemark.results import run_rules
from tunemark.results.telemetry import TELEMETRY_FIELDS, Telemetry, read_telemetry, summarize_telemetry


def _row(instant_s: float, **fields: Any) -> dict[str, Any]:
    return {"kind": "sample", "instant_s": instant_s, "devices": [{"id": "0", **fields}]}


def _make_telemetry(*rows: dict[str, Any]) -> Telemetry:
    return Telemetry(monitor="nvml", devices=("0",), rows=rows)


def test_energy_is_the_counters_difference_over_the_timed_part_alone() -> None:
    # 100 W until 2 s, then 300 W. From 1.5 to 4.5 s: 0.5 x 100 + 2.5 x 300 = 800 J, 800 / 3 W.
    energies = [0.0, 100.0, 200.0, 500.0, 800.0, 1100.0]
    found = summarize_telemetry(
        _make_telemetry(*(_row(float(t), energy_j=e) for t, e in enumerate(energies))), 1.5, 4.5
    )
    assert found.energy_j == pytest.approx(800.0)
    assert found.power_w == pytest.approx(800.0 / 3)
    assert found.reasons["temperature_c"] == "nvml does not say it of every device"


def test_power_without_a_counter_is_no_energy() -> None:
    found = summarize_telemetry(
        _make_telemetry(*(_row(float(t), power_w=100.0 + t, temperature_c=50 + t, clock_hz=1e9) for t in range(6))),
        1,
        4,
    )
    # Samples at 1, 2, 3 and 4 s.
    assert (found.energy_j, found.power_w, found.temperature_c, found.clock_hz) == (None, 102.5, 54, 1e9)
    assert "no energy counter" in found.reasons["energy_j"]
    assert found.throttled_fraction is None


@pytest.mark.parametrize(
    ("energies", "begin_s", "why"),
    [([0, 1, 2, 3], 1.0, "both sides"), ([0, 9, 8, 1, 0, 0], 0.5, "backwards"), ([0, 1, 2, 3, 4, 5], 4.0, "samples")],
)
def test_energy_that_cannot_be_known_says_why(energies: list[float], begin_s: float, why: str) -> None:
    found = summarize_telemetry(
        _make_telemetry(*(_row(float(t), energy_j=float(e)) for t, e in enumerate(energies))), begin_s, 4.5
    )
    assert found.energy_j is None
    assert why in found.reasons["energy_j"]


def test_slowing_down_others_and_a_loss_are_findings() -> None:
    other = {"pid": 7, "command": "train.py", "is_ours": False}
    rows = [_row(float(t), throttle=["heat"] if t > 2 else [], processes=[other]) for t in range(5)]
    rows.append({"kind": "sample", "instant_s": 5.0, "devices": [{"id": "0", "lost": "GPU is lost"}]})
    rules = {f.rule: f for f in run_rules.check_device(summarize_telemetry(_make_telemetry(*rows), 0.5, 5.5))}
    assert {name: f.severity for name, f in rules.items()} == {
        "device-lost": "invalid",
        "foreign-process": "suspect",
        "throttled": "suspect",
    }
    # Samples 1 to 5 are in the timed part, 3 and 4 of them slowed down.
    assert "40 % of 5 samples" in rules["throttled"].message
    assert "train.py (pid 7) on device 0" in rules["foreign-process"].message


def test_nothing_seen_is_no_finding_and_every_field_has_its_reason() -> None:
    found = summarize_telemetry(None, 0.0, 10.0)
    assert run_rules.check_device(found) == []
    assert set(found.reasons) == set(TELEMETRY_FIELDS)


def test_a_file_of_another_tool_or_half_a_line_is_no_sample(tmp_path: Path) -> None:
    assert read_telemetry(tmp_path) is None
    path = tmp_path / "telemetry.jsonl"
    path.write_text('{"instant_s": 1.0, "devices": []}\n')
    assert read_telemetry(tmp_path) is None
    rows = [{"kind": "open", "monitor": "nvml", "devices": ["0"], "driver": "1"}, _row(1.0)]
    path.write_text("\n".join(json.dumps(row) for row in rows) + '\n{"kind": "sam')
    found = read_telemetry(tmp_path)
    assert found is not None
    assert (found.monitor, len(found.rows), found.opened) == ("nvml", 1, {"driver": "1"})
