"""Our own runs pass through the rules of `tunemark audit` as everybody's do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunemark.plugin import Finding, hookimpl

if TYPE_CHECKING:
    from tunemark.experiment import Plan
    from tunemark.results import Result


@hookimpl
def tunemark_audit(plan: Plan | None, result: Result) -> Sequence[Finding]:
    """What is invalid or suspect, unless the run's own statistics have said it. Missing facts change nothing: of a
    run that was measured here enough is known by itself."""
    # Heavy, and needed only where there is a result.
    from tunemark.analysis import audit, claim_of

    if plan is None:
        return []
    architecture = plan.model.architecture
    (audited,) = audit([claim_of(result, architecture)], {})
    said = {finding.rule for finding in result.findings}
    return [f for f in audited.findings if f.severity in ("invalid", "suspect") and f.rule not in said]
