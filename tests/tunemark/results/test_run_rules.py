"""Each rule at both sides of its limit, with literals."""

from __future__ import annotations

import pytest

from tunemark.plugin import Finding
from tunemark.results import Estimate, JobTokens
from tunemark.results import run_rules as rules
from tunemark.results.verdict import decide_verdict, merge_findings


def severity(finding: Finding | None) -> str | None:
    return finding.severity if finding else None


def test_clocks_may_differ_by_two_percent() -> None:
    assert rules.check_clocks(100.0, 101.9) is None
    found = rules.check_clocks(100.0, 97.5)
    assert severity(found) == "invalid"
    assert found is not None
    assert "100.000 s" in found.message
    assert "2.5 %" in found.message


def test_waits_that_leave_work_are_invalid() -> None:
    assert rules.check_sync([0.1] * 19, 100.0) is None
    assert severity(rules.check_sync([0.1] * 21, 100.0)) == "invalid"
    # One moment in which another process ran is no false wait.
    assert rules.check_sync([1e-5] * 20 + [5.0], 100.0) is None
    # Beside other programs most readings may be late, and a device that leaves everything undone shows all the same.
    assert rules.check_sync([1e-5] * 6 + [0.5] * 14, 100.0) is None
    assert rules.check_sync([0.5] * 20, 100.0, 0.85) is None
    assert severity(rules.check_sync([1.1] * 20, 100.0, 0.85)) == "invalid"


def test_token_counts_may_differ_by_two_percent_each() -> None:
    assert rules.check_tokens(JobTokens(100, 98, 50), JobTokens(100, 99, 50)) is None
    found = rules.check_tokens(JobTokens(100, 98, 60), JobTokens(100, 98, 50))
    assert found is not None
    assert found.message.startswith("60 trained tokens were recorded, the token file has 50")
    assert severity(rules.check_tokens(JobTokens(100, 50, 0), JobTokens(100, 50, 1))) == "invalid"


def test_a_loss_that_falls_or_cannot_fall_is_no_finding() -> None:
    up = [1.0, 1.1, 1.0, 1.2, 1.3, 1.2, 1.4, 1.5, 1.4, 1.6]
    assert severity(rules.check_loss_rising(up, True)) == "suspect"
    assert rules.check_loss_rising(up, False) is None
    assert rules.check_loss_rising(up[::-1], True) is None


def test_infinite_losses_and_gradients_are_invalid() -> None:
    assert rules.check_loss_finite([1.0, 2.0]) is None
    assert severity(rules.check_loss_finite([1.0, float("inf")])) == "invalid"
    assert severity(rules.check_gradient_finite([float("nan")])) == "invalid"


def test_weights_that_cannot_be_compared_are_no_finding() -> None:
    assert rules.check_weights_changed([None, True], 5) is None
    assert rules.check_weights_changed([False], 0) is None
    assert severity(rules.check_weights_changed([True, False], 5)) == "invalid"


@pytest.mark.parametrize(
    ("others", "expected"), [(None, None), (0.02, None), (0.03, "note"), (0.10, "note"), (0.11, "suspect")]
)
def test_others_load_is_a_note_and_then_suspect(others: float | None, expected: str | None) -> None:
    assert severity(rules.check_machine_load(others, 4)) == expected


def test_a_slow_step_is_half_as_long_again_and_six_sigmas() -> None:
    jitter = [1.0, 1.01, 0.99, 1.02, 0.98]
    assert rules.check_slow_steps([*jitter, 1.45]) is None
    assert severity(rules.check_slow_steps([*jitter, 1.6])) == "note"
    # MAD 0.2, so six sigmas are 1.78 above the median.
    assert rules.check_slow_steps([0.8, 0.8, 1.0, 1.2, 1.2, 2.0]) is None


def test_drift_is_certain_and_large() -> None:
    steady = [1.0 + 0.01 * (i % 2) for i in range(40)]
    assert rules.check_drift(steady) is None
    found = rules.check_drift([s + 0.003 * i for i, s in enumerate(steady)])
    assert found is not None
    assert "+1" in found.message


def test_a_wide_interval_is_a_note_and_a_missing_one_none() -> None:
    wide = Estimate(value=100.0, low=97.0, high=103.0, n=5, method="m")
    assert severity(rules.check_interval(wide, 0.02)) == "note"
    assert rules.check_interval(wide, 0.04) is None
    assert rules.check_interval(wide, 0.0) is None
    assert rules.check_interval(Estimate(value=1.0, low=None, high=None, n=1, method="m"), 0.02) is None


def test_a_published_peak_cannot_be_beaten_and_a_measured_one_can() -> None:
    assert rules.check_above_peak(0.99, 1e12, False) is None
    assert severity(rules.check_above_peak(1.01, 1e12, False)) == "invalid"
    assert severity(rules.check_above_peak(1.01, 1e12, True)) == "note"


def test_few_windows_matter_only_without_attempts_to_compare() -> None:
    assert severity(rules.check_windows(3, 1)) == "unknown"
    assert rules.check_windows(3, 2) is None
    assert severity(rules.check_attempts(2)) == "note"
    assert rules.check_attempts(3) is None


def finding(kind: str) -> Finding:
    return Finding(rule=kind, severity=kind, message="")  # type: ignore[arg-type]  # the literals below are severities


def test_a_verdict_is_the_worst_finding() -> None:
    everything = [finding(kind) for kind in ("note", "unknown", "suspect", "invalid")]
    assert [decide_verdict(everything[:n], "ok") for n in range(5)] == [
        "valid", "valid", "unknown", "suspect", "invalid",
    ]  # fmt: skip
    assert decide_verdict(everything[:3], "oom") == "unknown"
    assert decide_verdict(everything, "oom") == "invalid"


def test_one_rule_is_told_once_with_its_attempts() -> None:
    rows = [(1, Finding(rule="x", severity="note", message="a")), (2, Finding(rule="x", severity="note", message="b"))]
    (one,) = merge_findings(rows, 2)
    assert one.message == "attempt 1: a; attempt 2: b"


def test_nothing_is_trained_without_a_label() -> None:
    assert rules.check_labels(JobTokens(64, 60, 1), 3) is None
    assert rules.check_labels(JobTokens(0, 0, 0), 0) is None
    found = rules.check_labels(JobTokens(64, 60, 0), 3)
    assert severity(found) == "invalid"


def test_a_strategy_is_verified_within_the_tolerance_and_invalid_beyond() -> None:
    found = {"reference": "cpu:2 none", "steps": 5, "loss": 1e-6, "gradient_norm": 9e-6, "tolerance": 1e-5}
    assert rules.check_verification(None) is None
    assert severity(rules.check_verification(found)) == "note"
    assert severity(rules.check_verification({**found, "loss": 2e-5})) == "invalid"
    assert severity(rules.check_verification({**found, "gradient_norm": 2e-5})) == "invalid"
    assert severity(rules.check_verification({**found, "loss": None, "failure": "it ran out of memory"})) == "unknown"


def test_what_an_epoch_does_not_train_on_is_noted() -> None:
    epoch = {"documents": 40, "tokens": 4000, "truncated_documents": 3, "cut_tokens": 500, "trained_tokens": 3460,
             "untrained_documents": 2}  # fmt: skip
    found = rules.check_epoch(epoch, {"remarks": ["left out is system (40 rows, 90 characters)"]})
    assert [(each.rule, each.severity) for each in found] == [
        ("text-left-out", "note"),
        ("documents-truncated", "note"),
        ("documents-untrained", "note"),
    ]
    assert "3 of 40 documents" in found[1].message
    assert "500 of 4,000 tokens (12.5 %)" in found[1].message
    assert rules.check_epoch({**epoch, "truncated_documents": 0, "untrained_documents": 0}, {}) == []
    # Attempts of earlier versions say nothing of it.
    assert rules.check_epoch({}, {}) == []
