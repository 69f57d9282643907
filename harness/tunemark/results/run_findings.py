"""The findings on one attempt: which rules apply to its records."""

from __future__ import annotations

from collections.abc import Sequence

from tunemark.plugin.descriptors import Finding
from tunemark.results import run_rules as rules
from tunemark.results.measurement import RankRecords
from tunemark.results.result import RunIdentity
from tunemark.results.stored_attempt import StoredAttempt
from tunemark.results.telemetry import TelemetrySummary
from tunemark.results.timed_part import TimedPart, load_of_others
from tunemark.results.token_recount import TokenDocuments, recount_tokens, sample_digests
from tunemark.results.trainer_rates import check_own_rate
from tunemark.results.trainer_rules import has_other_padding, has_own_rows, judge_trainer


def judge_attempt(
    identity: RunIdentity,
    attempt: StoredAttempt,
    timed: TimedPart | None,
    seen: TelemetrySummary,
    documents: TokenDocuments | None,
    *,
    is_retried: bool,
) -> list[Finding]:
    """The findings of one attempt's records, of its device and of its end. is_retried: a later attempt succeeded."""
    measurement = attempt.measurement
    changed = [rank.end.get("weights_changed") for rank in measurement.ranks if rank.end]
    preloaded = {str(name) for rank in measurement.ranks for name in rank.facts.get("preloaded") or ()}
    found = [
        rules.check_seal(attempt.seal.state, attempt.seal.problems),
        rules.check_preloaded(sorted(preloaded)),
        None if has_other_padding(measurement) else rules.check_slots(measurement),
        rules.check_loss_finite(measurement.losses),
        rules.check_gradient_finite(measurement.gradient_norms),
        rules.check_weights_changed(changed, measurement.step_count),
        rules.check_labels(measurement.counts(0, measurement.step_count), measurement.step_count),
        rules.check_loss_rising(measurement.losses, identity.learnable),
        *judge_trainer(measurement),
    ]
    for rank in measurement.ranks[:1]:
        built = next((r for r in rank.untimed_records if r["kind"] == "model"), None)
        found.append(rules.check_model(identity.parameters, identity.trainable_parameters, built))
        found.append(rules.check_attention(built))
    if measurement.partial_lines:
        message = f"{measurement.partial_lines} last lines of records were cut off and are left out"
        found.append(Finding(rule="cut-off", severity="note", message=message))
    if documents is not None and documents.ids is not None and measurement.is_whole:
        for number in range(min(len(rank.steps) for rank in measurement.ranks)):
            trained = [(rank.data_rank, rank.steps[number].samples) for rank in measurement.ranks]
            if not all(rows for _, rows in trained):
                break
            wanted = sample_digests(documents, measurement.assignment, number)
            found.append(rules.check_samples(number, trained, wanted))
    if timed is not None:
        windows, load = len(measurement.ranks[0].edges) - 1, load_of_others(measurement, timed)
        if not timed.is_settled:
            found.append(rules.make_no_steady_state(windows, identity.warmup_requested))
        found.append(check_own_rate(measurement, timed))
        edges = timed.edges_of(measurement.ranks[0])
        found.append(rules.check_duration(edges[-1].instant_s - edges[0].instant_s))
        found += [finding for rank in measurement.ranks if (finding := _check_clocks(rank, timed))][:1]
        found += [finding for rank in measurement.ranks if (finding := _check_sync(rank, timed, load[0]))][:1]
        found += [finding for rank in measurement.ranks if (finding := _check_compilations(rank, timed))][:1]
        is_even = measurement.assignment.batching != "bucket"
        seconds = timed.seconds_per_step if is_even else timed.even_seconds_per_step
        work = "step" if is_even else "step of the mean slots"
        found += [rules.check_drift(seconds), rules.check_slow_steps(seconds, work)]
        found.append(rules.check_machine_load(*load))
        found.append(rules.check_load_recorded([len(rank.loads) for rank in measurement.ranks]))
        if documents is None:
            sealed = attempt.seal.seal if attempt.seal.state == "whole" else None
            found.append(rules.check_sealed_tokens(measurement, sealed.recounted if sealed else None))
        else:
            counted = recount_tokens(documents, measurement.assignment, timed.first, timed.last)
            if has_other_padding(measurement):
                counted = counted._replace(slots=timed.total.slots)
            found.append(None if has_own_rows(measurement) else rules.check_tokens(timed.total, counted))
    found += rules.check_device(seen)
    found.append(rules.make_restarted(measurement.life) if measurement.life else None)
    found.append(rules.check_machine_state(attempt.facts.get("doctor") or ()))
    ended = rules.check_status(attempt.status, attempt.reason, attempt.evidence)
    if ended and is_retried:
        ended = Finding(rule="retried", severity="note", message=ended.message)
    return [finding for finding in (*found, ended) if finding]


def judge_run(identity: RunIdentity, attempts: Sequence[StoredAttempt], good: int) -> list[Finding]:
    """The findings that are of no single attempt. good: how many attempts ended with status ok."""
    dates = [str(a.facts.get("started_utc", "")) for a in attempts]
    orders = [(date, str(a.facts.get("order", date))) for date, a in zip(dates, attempts, strict=True)]
    verified = next((v for a in attempts if (v := a.facts.get("verification")) is not None), None)
    found = [
        rules.check_oversubscribed(identity.oversubscribed),
        rules.check_attempts(good),
        rules.check_order(orders),
        rules.check_simulated(identity.simulated),
        rules.check_restored(attempts[-1].facts.get("not_put_back")),
        rules.check_verification(verified),
        *rules.check_epoch(attempts[-1].facts.get("epoch") or {}, attempts[-1].facts.get("dataset") or {}),
    ]
    return [finding for finding in found if finding]


def _check_clocks(rank: RankRecords, timed: TimedPart) -> Finding | None:
    edges = timed.edges_of(rank)
    return rules.check_clocks(edges[-1].instant_s - edges[0].instant_s, edges[-1].second_s - edges[0].second_s)


def _check_sync(rank: RankRecords, timed: TimedPart, others: float | None) -> Finding | None:
    first, *edges = timed.edges_of(rank)
    return rules.check_sync([e.late_s for e in edges], edges[-1].instant_s - first.instant_s, others)


def _check_compilations(rank: RankRecords, timed: TimedPart) -> Finding | None:
    first, *_, last = timed.edges_of(rank)
    if None in (first.compilations, first.compile_s, last.compilations, last.compile_s):
        return None
    programs = (last.compilations or 0) - (first.compilations or 0)
    seconds = (last.compile_s or 0.0) - (first.compile_s or 0.0)
    return rules.check_compilations(programs, seconds, last.instant_s - first.instant_s)
