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
    """What is invalid or suspect, unless the run's own statistics have said it."""
    # Heavy, and needed only where there is a result.
    from tunemark.analysis import findings_on

    return findings_on(result, plan.model.architecture) if plan else []
