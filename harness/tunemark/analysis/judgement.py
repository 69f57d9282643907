"""Judge a run of our own by its statistics, by the rules that other parties' claims are held to, and by plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tunemark.analysis.own_runs import apply_claim_rules
from tunemark.plugin import Catalog
from tunemark.plugin.descriptors import Finding
from tunemark.results.result import Result
from tunemark.results.verdict import add_findings

if TYPE_CHECKING:
    from tunemark.experiment import Plan


def judge(result: Result, catalog: Catalog, plan: Plan | None = None) -> Result:
    """A derived result with the findings of the claim rules and of plugins, and the verdict that follows from all.

    plan: if the run was just measured; without it the model's dimensions are those of the installed one.
    """
    model = plan.model if plan else catalog.models().get(result.model)
    result = add_findings(result, apply_claim_rules(result, model.architecture if model else None))
    return add_plugin_findings(result, catalog, plan)


def add_plugin_findings(result: Result, catalog: Catalog, plan: Plan | None = None) -> Result:
    """Add the plugins' findings to a result; a plugin that fails adds a finding that makes the verdict unknown."""
    found: list[Finding] = []
    for plugin, function in catalog.observers("tunemark_audit"):
        try:
            found += [msgspec.convert(f, Finding, from_attributes=True) for f in function(plan=plan, result=result)]
        # Third-party code may raise anything.
        except Exception as error:
            message = f"the plugin {plugin!r} could not audit: {type(error).__name__}: {error}"
            found.append(Finding(rule="audit-failed", severity="unknown", message=message))
    return add_findings(result, found)
