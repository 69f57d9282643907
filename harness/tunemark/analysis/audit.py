"""Audit a claim: its rate by every derivation, the MFU that it implies, findings, verdict."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tunemark.analysis import claim_rates, claim_rules
from tunemark.analysis.claim_figures import claimed_mfu, claimed_tflops
from tunemark.analysis.claim_scope import settle_by_flops
from tunemark.analysis.plausibility import ClaimFacts, look_up_facts
from tunemark.fields import read_fields
from tunemark.plugin.claims import Claim
from tunemark.plugin.descriptors import Finding, Model
from tunemark.results import ImportedClaim
from tunemark.results.result import Verdict
from tunemark.results.verdict import decide_verdict, sort_by_severity


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditedClaim:
    """The audit of a claim. mfu_implied: of the dense peak of the stated precision, causal attention; or of the 16-bit
    peak and the least FLOPs if the claim does not state them; or of claimed FLOP/s, or as claimed, where there is
    no rate (`mfu_convention` says which)."""

    facts: ClaimFacts
    rate: claim_rates.ClaimRate | None
    ways: tuple[claim_rates.ClaimRate, ...]
    mfu_implied: float | None
    mfu_convention: str | None
    mfu_implied_full_attention: float | None
    findings: tuple[Finding, ...]
    verdict: Verdict

    @property
    def claim(self) -> Claim:
        return self.facts.claim

    def as_row(self) -> ImportedClaim:
        """The row that is stored and printed."""
        claim = self.claim
        every = (*([self.rate] if self.rate else []), *self.ways)
        return ImportedClaim(
            kind="measured" if claim.tool == "tunemark" else "imported",
            **read_fields(claim, "id", "source", "tool", "meaning", "counts", "model", "device", "count", "precision"),
            **read_fields(claim, "sequence"),
            notes=(*claim.notes, *_figure_notes(claim)),
            global_batch=claim.layout.global_batch,
            tokens_per_s_claimed=self.rate.tokens_per_s if self.rate else None,
            tokens_per_s_rederived={way.way: way.tokens_per_s for way in self.ways},
            arithmetic={way.way: f"{way.arithmetic} = {way.tokens_per_s:,.6g} tokens/s" for way in every},
            **read_fields(self, "mfu_implied", "mfu_convention", "mfu_implied_full_attention", "verdict", "findings"),
            peak_flops=self.facts.peak.flops if self.facts.peak else None,
            peak_source=self.facts.peak.source if self.facts.peak else None,
            missing=self.facts.missing,
            origin=dict(self.facts.origin),
        )


def _figure_notes(claim: Claim) -> list[str]:
    """What is printed beside the claimed rate, under other names."""
    notes = []
    for figure in claim.figures:
        if figure.quantity in ("tokens_per_s", "samples_per_s") and (figure.lines > 1 or not figure.is_training):
            unit = "tokens/s" if figure.quantity == "tokens_per_s" else "sequences/s"
            apart = "" if figure.is_training else ", which is not shown to be of the training"
            of = {"device": " of each device", "job": " of the job"}.get(figure.scope, "")
            notes.append(f"beside it {figure.name!r}: {figure.value:,.6g} {unit}{of} in {figure.lines:,} lines{apart}")
    return notes


def audit_claims(
    claims: Sequence[Claim], models: Mapping[str, Model], peak_flops: float | None = None
) -> list[AuditedClaim]:
    """Audit each claim by itself, then the claims of one source against each other. peak_flops: of one device, where
    the user gives it instead of the table of chips."""
    audited = [_audit_one(settle_by_flops(look_up_facts(claim, models, peak_flops))) for claim in claims]
    for index, finding in _compare_claims(audited):
        one = audited[index]
        found = sort_by_severity([*one.findings, finding])
        audited[index] = replace(one, findings=found, verdict=decide_verdict(found, "ok"))
    return audited


def _audit_one(facts: ClaimFacts) -> AuditedClaim:
    rate = claim_rates.claimed_rate(facts.claim)
    found = sort_by_severity(claim_rules.apply_rules(facts))
    of_one = claim_rates.of_one_device(facts.claim)
    implied, convention, full = _mfu(replace(facts, claim=of_one), rate or claim_rates.stated_rate(of_one))
    return AuditedClaim(
        facts=facts, rate=rate, ways=tuple(claim_rates.rederive_rates(facts.claim)), mfu_implied=implied,
        mfu_convention=convention, mfu_implied_full_attention=full, findings=found, verdict=decide_verdict(found, "ok"),
    )  # fmt: skip


def _mfu(facts: ClaimFacts, rate: claim_rates.ClaimRate | None) -> tuple[float | None, str | None, float | None]:
    count, top = facts.claim.count, facts.usual_peak
    tflops = claimed_tflops(facts.claim)
    if rate is None and tflops is not None and top is not None:
        # Without a rate, what the claimed FLOP/s are of the peak.
        words = f"the claimed TFLOP/s, dense {top.precision} peak" + (
            "" if facts.peak else ", the precision is not stated"
        )
        return tflops * 1e12 / top.flops, words, None
    if rate is None and tflops is None and (mfu := claimed_mfu(facts.claim)) is not None:
        return mfu, "as claimed", None
    if rate is None or not count or top is None or facts.min_flops is None:
        return None, None, None
    per_device = rate.tokens_per_s / count / top.flops
    words = f"dense {top.precision} peak" + ("" if facts.peak else ", the precision is not stated")
    if facts.flops:
        return per_device * facts.flops["causal"], f"causal attention, {words}", per_device * facts.flops["full"]
    return per_device * facts.min_flops, f"without attention, {words}", None


def _compare_claims(audited: Sequence[AuditedClaim]) -> list[tuple[int, Finding]]:
    return [*_find_same_step_time(audited), *_find_above_linear(audited)]


def _find_same_step_time(audited: Sequence[AuditedClaim]) -> list[tuple[int, Finding]]:
    """A timer that does not wait for the device shows the same time for any amount of work."""
    groups: dict[tuple[str, str | None], list[tuple[int, float, float]]] = defaultdict(list)
    for index, one in enumerate(audited):
        claim = one.claim
        work = _work_per_device(one)
        if claim.step_time_s and work:
            groups[claim.source, claim.device].append((index, claim.step_time_s, work))
    found = []
    for rows in groups.values():
        times, works = [t for _, t, _ in rows], [w for _, _, w in rows]
        if len(rows) < 3 or max(works) < 2 * min(works) or max(times) > claim_rules.MAX_SCALING * min(times):
            continue
        message = (
            f"{len(rows)} rows take {min(times):.4g} to {max(times):.4g} s a step, for work per device that differs "
        )
        message += f"{max(works) / min(works):.3g} times: the time does not follow the work"
        found += [(i, Finding(rule="same-step-time", severity="suspect", message=message)) for i, _, _ in rows]
    return found


def _work_per_device(one: AuditedClaim) -> float | None:
    claim, flops = one.claim, one.facts.flops.get("causal") or one.facts.min_flops
    batch, sequence, count = claim.layout.global_batch, claim.sequence, claim.count
    return flops * batch * sequence / count if flops and batch and sequence and count else None


def _find_above_linear(audited: Sequence[AuditedClaim]) -> list[tuple[int, Finding]]:
    """With more devices and all else equal, the rate per device cannot rise much."""
    groups: dict[tuple[object, ...], list[tuple[int, int, float]]] = defaultdict(list)
    for index, one in enumerate(audited):
        claim, layout = one.claim, one.claim.layout
        if one.rate is None or not claim.count or not layout.global_batch or claim.architecture is None:
            continue
        alike = (
            claim.source, claim.device, claim.precision, claim.sequence, claim.architecture, claim.method,
            replace(layout, dp=None, global_batch=None), layout.global_batch / claim.count, claim.origin.get("version"),
        )  # fmt: skip
        groups[alike].append((index, claim.count, one.rate.tokens_per_s / claim.count))
    found = []
    for rows in groups.values():
        ordered = sorted(rows, key=lambda row: row[1])
        for (_, few, slower), (index, many, faster) in itertools.pairwise(ordered):
            if many > few and faster > claim_rules.MAX_SCALING * slower:
                message = f"on {many} devices each reaches {faster:,.5g} tokens/s, on {few} with all else alike "
                message += f"{slower:,.5g}: an efficiency of {100 * faster / slower:.3g} %"
                found.append((index, Finding(rule="above-linear", severity="suspect", message=message)))
    return found
