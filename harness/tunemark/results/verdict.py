"""The verdict of a run or a claim, from its findings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import get_args

import msgspec

from tunemark.plugin.descriptors import Finding, Severity
from tunemark.results.result import Result, Status, Verdict

_WORST_FIRST: tuple[Severity, ...] = get_args(Severity)


def decide_verdict(findings: Iterable[Finding], status: Status) -> Verdict:
    """The worst of the findings; a run whose status is not ok is unknown unless something makes it invalid."""
    severities = {finding.severity for finding in findings}
    if "invalid" in severities:
        return "invalid"
    if status != "ok":
        return "unknown"
    if "suspect" in severities:
        return "suspect"
    return "unknown" if "unknown" in severities else "valid"


def sort_by_severity(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The worst first; equal ones stay in their order."""
    return tuple(sorted(findings, key=lambda finding: _WORST_FIRST.index(finding.severity)))


def merge_findings(found: Iterable[tuple[int, Finding]], attempts: int) -> tuple[Finding, ...]:
    """Merge (attempt, finding) pairs into one per rule, the worst severity first; attempt 0 is the whole run."""
    by_rule: dict[str, list[tuple[int, Finding]]] = {}
    for number, finding in found:
        by_rule.setdefault(finding.rule, []).append((number, finding))
    merged = []
    for rule, rows in by_rule.items():
        words = (f"attempt {n}: {f.message}" if attempts > 1 and n else f.message for n, f in rows)
        merged.append(Finding(rule=rule, severity=rows[0][1].severity, message="; ".join(words)))
    return sort_by_severity(merged)


def add_findings(result: Result, more: Sequence[Finding]) -> Result:
    """A result with more findings, and the verdict that follows from all of them."""
    every = merge_findings([(0, finding) for finding in (*result.findings, *more)], 1)
    return msgspec.structs.replace(result, findings=every, verdict=decide_verdict(every, result.status))
