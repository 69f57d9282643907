"""Applies the rules of `tunemark audit` to own runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunemark.plugin import Finding, hookimpl

if TYPE_CHECKING:
    from tunemark.experiment import Plan
    from tunemark.results import Result


@hookimpl
def tunemark_audit(plan: Plan | None, result: Result) -> Sequence[Finding]:
    """Findings that are invalid or suspect, except those that the run's own statistics already made."""
    # Heavy, and only needed with a result.
    from tunemark.analysis import apply_claim_rules

    return apply_claim_rules(result, plan.model.architecture) if plan else []
