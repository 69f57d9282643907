"""Judge a run of our own by its statistics, by the rules that other parties' claims are held to, and by plugins.

It is audited as a claim. Rules that lack facts do not lower the verdict, since enough is known of a run that was
measured here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, cast

import msgspec

from tunemark.analysis.audit import AuditedClaim, audit_claims
from tunemark.fields import read_fields
from tunemark.plugin import Catalog
from tunemark.plugin.claims import Claim, ClaimedLayout
from tunemark.plugin.descriptors import Architecture, Finding, Model
from tunemark.results.result import Result
from tunemark.results.verdict import add_findings, decide_verdict

if TYPE_CHECKING:
    from tunemark.experiment import Plan

MEANING = "all slots of the timed steps over their wall time, whole job, as tunemark measured it"


def judge(result: Result, catalog: Catalog, plan: Plan | None = None) -> Result:
    """A derived result with the findings of the claim rules and of plugins, and the verdict that follows from all.

    plan: if the run was just measured; without it the model's dimensions are those of the installed one.
    """
    model = plan.model if plan else catalog.models().get(result.model)
    result = add_findings(result, _apply_claim_rules(result, model.architecture if model else None))
    return add_plugin_findings(result, catalog, plan)


def add_plugin_findings(result: Result, catalog: Catalog, plan: Plan | None = None) -> Result:
    """Add the plugins' findings to a result; a plugin that fails adds a finding that makes the verdict unknown."""
    found: list[Finding] = []
    for plugin, function in catalog.observers("tunemark_audit"):
        try:
            found += [msgspec.convert(f, Finding, from_attributes=True) for f in function(plan=plan, result=result)]
        except KeyboardInterrupt:
            raise
        # Third-party code may raise anything, and may try to end the process.
        except BaseException as error:
            message = f"the plugin {plugin!r} could not audit: {type(error).__name__}: {error}"
            found.append(Finding(rule="audit-failed", severity="unknown", message=message))
    return add_findings(result, found)


def audit_run(result: Result, models: Mapping[str, Model]) -> AuditedClaim:
    """Audit a result: its own findings plus those of the claim rules. Of a run whose rate is not audited no verdict
    says that the rate is good."""
    model = models.get(result.model)
    architecture = model.architecture if model else None
    (one,) = audit_claims([make_claim(result, architecture)], models)
    found = (*result.findings, *_select_new(one, result))
    if one.claim.tokens_per_s is None:
        why = "it was measured part by part, which slows it down" if result.breakdown else "nothing was timed"
        found += (Finding(rule="no-rate", severity="unknown", message=f"there is no rate to audit: {why}"),)
    return replace(one, findings=found, verdict=decide_verdict(found, result.status))


def _apply_claim_rules(result: Result, architecture: Architecture | None) -> list[Finding]:
    """The invalid and suspect findings of the claim rules that the run's own findings do not include."""
    (one,) = audit_claims([make_claim(result, architecture)], {})
    return _select_new(one, result)


def _select_new(one: AuditedClaim, result: Result) -> list[Finding]:
    said = {finding.rule for finding in result.findings}
    return [f for f in one.findings if f.severity in ("invalid", "suspect") and f.rule not in said]


def make_claim(result: Result, architecture: Architecture | None = None) -> Claim:
    """Make a claim of a result, from sums over all attempts: rate is slots over seconds, step time seconds over steps.

    A breakdown's waits slow it down, so its rate is left out; so is that of a run that timed nothing.
    """
    timed = result.tokens is not None and result.interval_s and result.steps_measured and not result.breakdown
    rate = result.tokens.slots / result.interval_s if timed and result.tokens and result.interval_s else None
    return Claim(
        id=result.run_id,
        source=f"run {result.run_id}",
        tool="tunemark",
        meaning=MEANING,
        counts="slots",
        **read_fields(result, "model", "parameters", "trainable_parameters", "precision"),
        # Rows of different widths have no one length that slots follow from.
        sequence=None if result.batching == "bucket" else result.sequence,
        # Without its options, as others state it.
        method=result.method.partition(":")[0],
        architecture=architecture,
        device=result.chip,
        count=result.chips,
        layout=ClaimedLayout(
            **read_fields(result, "global_batch", "micro_batch", "gradient_accumulation"),
            checkpointing=cast("Literal['none', 'selective', 'full']", result.checkpointing),
        ),
        tokens_per_s=rate,
        step_time_s=result.interval_s / result.steps_measured if timed and result.interval_s else None,
        mfu=result.mfu if result.peak_flops_source != "measured" else None,
        memory_bytes=result.peak_memory_bytes,
        padding_fraction=None,
    )
