"""Derive a run's result from its attempts' measurements: rates with intervals, efficiency, findings, verdict.

A rate is the sum of tokens over the sum of seconds of the timed windows, on the slowest rank. The unit of replication
is the attempt; a single attempt gets an interval from its windows, labelled as such. No outlier is removed.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from tunemark.fields import read_fields
from tunemark.plugin.descriptors import Finding
from tunemark.predict.search import SearchLog
from tunemark.results import run_rules as rules
from tunemark.results import telemetry as monitored
from tunemark.results.measurement import JobTokens, Measurement
from tunemark.results.mfu import choose_peak_flops, compute_hfu, compute_mfu, weigh_flops
from tunemark.results.result import (
    AttemptRow,
    Completion,
    Estimate,
    HeldOutLoss,
    Result,
    RunIdentity,
    SavedModel,
    Status,
    StepTime,
    TimedTokens,
)
from tunemark.results.run_findings import judge_attempt, judge_run
from tunemark.results.seal import worst_state
from tunemark.results.stored_attempt import StoredAttempt
from tunemark.results.timed_part import TimedPart, find_timed_part, load_of_others, minor_faults_per_step
from tunemark.results.token_recount import TokenDocuments
from tunemark.results.trainer_rates import find_own_rate
from tunemark.results.verdict import decide_verdict, merge_findings
from tunemark_worker import steady_state


def derive_result(
    identity: RunIdentity, attempts: Sequence[StoredAttempt], documents: TokenDocuments | None = None
) -> Result:
    """Derive the result of one run from its attempts, in order of time. documents: the token file's, None if missing.

    Rates use the attempts that ended with status ok; if none did, what the others measured before they ended.
    A failed attempt that was followed by a successful one is a note; otherwise the first failure is the run's status.
    """
    assert attempts, "a result needs at least one attempt"
    good = [a for a in attempts if a.status == "ok"]
    last_good = max((i for i, a in enumerate(attempts) if a.status == "ok"), default=-1)
    failed = next((a for a in attempts[last_good + 1 :] if a.status != "ok"), None)
    status: Status = failed.status if failed else "ok"

    used = good or attempts
    timed_parts = {a.name: find_timed_part(a.measurement, identity) for a in attempts}
    timed = [t for a in used if (t := timed_parts[a.name]) is not None]
    telemetry_of = {a.name: _summarize_telemetry(a, timed_parts[a.name]) for a in attempts}
    slots, content, trained = (_rate(timed, kind) for kind in range(len(JobTokens._fields)))
    peak_flops, peak_source = choose_peak_flops(identity, attempts)
    weighed, unknown = weigh_flops(identity, [(a, t) for a in used if (t := timed_parts[a.name]) is not None])
    mfu, mfu_reason, peak_finding = compute_mfu(weighed, slots, None if unknown else peak_flops, peak_source)

    found: list[tuple[int, Finding]] = []
    for number, attempt in enumerate(attempts, 1):
        is_retried = number - 1 < last_good
        timed_part, seen = timed_parts[attempt.name], telemetry_of[attempt.name]
        found += [
            (number, finding)
            for finding in judge_attempt(identity, attempt, timed_part, seen, documents, is_retried=is_retried)
        ]
    whole = [peak_finding, *judge_run(identity, attempts, len(good))]
    if content:
        few = rules.check_windows(sum(len(t.counts) for t in timed), len(timed))
        whole += [rules.check_interval(content, identity.target_interval), few]
    elif status == "ok":
        whole.append(rules.check_windows(0, 1))
    findings = merge_findings([*found, *((0, each) for each in whole if each)], len(attempts))

    shown = (failed or attempts[-1]).measurement
    losses = [x for x in shown.losses if math.isfinite(x)]
    return Result(
        **_identity_fields(weighed, attempts, peak_flops, peak_source),
        status=status,
        verdict=decide_verdict(findings, status),
        findings=findings,
        attempts=len(attempts),
        each_attempt=tuple(_attempt_row(a, timed_parts[a.name]) for a in attempts),
        tokens_per_s=content,
        slot_tokens_per_s=slots,
        trained_tokens_per_s=trained,
        tokens_per_s_per_chip=content.value / identity.chips if content and identity.chips else None,
        **_timed_fields(timed),
        breakdown_s=_breakdown([(t, a.measurement) for a in used if (t := timed_parts[a.name]) is not None])
        if identity.breakdown
        else None,
        time_to_first_step_s=_median([_first_step_s(a) for a in attempts]),
        setup_s=_setup_seconds(attempts),
        **_compilation_fields(timed),
        mfu=mfu,
        mfu_reason=unknown or mfu_reason,
        hfu=compute_hfu(weighed, mfu),
        **_reported_fields(attempts),
        **_telemetry_fields([(timed_parts[a.name], telemetry_of[a.name]) for a in used]),
        **_untimed_fields(identity, _attempt_with_model(used)),
        **_attention_fields(used[-1]),
        **_trainer_fields(used),
        loss_first=losses[0] if losses else None,
        loss_last=losses[-1] if losses else None,
        stop_reason=(failed or attempts[-1]).reason or None,
        data_sha256=attempts[-1].measurement.assignment.token_file.sha256,
        environment=_environment(attempts[-1]),
        seal=worst_state(a.seal.state for a in attempts),
    )


def _identity_fields(
    identity: RunIdentity, attempts: Sequence[StoredAttempt], peak_flops: float | None, peak_source: str | None
) -> dict[str, Any]:
    """The identity's fields, with the parameters that the worker counted and the peak that was measured."""
    values = read_fields(identity, *RunIdentity.__struct_fields__)
    for name in ("parameters", "trainable_parameters"):
        values[name] = _first(end.get(name) for end in _ends(attempts)) or values[name]
    return {**values, "peak_flops": peak_flops, "peak_flops_source": peak_source}


def _timed_fields(timed: Sequence[TimedPart]) -> dict[str, Any]:
    """The result's sums over the timed parts that the rates use."""
    sums = JobTokens(*(sum(column) for column in zip(*(t.total for t in timed), strict=True))) if timed else None
    seconds = [s for t in timed for s in t.seconds_per_step]
    return {
        "steps_measured": sum(t.last - t.first for t in timed),
        "warmup_steps": sum(t.warmup_steps for t in timed) if timed else None,
        "tokens": TimedTokens(slots=sums.slots, content=sums.content, trained=sums.trained) if sums else None,
        "interval_s": math.fsum(t.interval_s for t in timed) if timed else None,
        "padding_fraction": 1 - sums.content / sums.slots if sums and sums.slots else None,
        "step_time_s": _step_time(seconds) if seconds else None,
    }


def _step_time(seconds: Sequence[float]) -> StepTime:
    import numpy as np

    return StepTime(p50=float(np.quantile(seconds, 0.5)), p95=float(np.quantile(seconds, 0.95)))


def _reported_fields(attempts: Sequence[StoredAttempt]) -> dict[str, Any]:
    """What the job's own ranks and its launcher reported, and what was observed of the device from outside the job."""
    ends = _ends(attempts)
    watched = [w for a in attempts if (w := a.facts.get("watched")) is not None]
    reported = [*ends, *watched]
    launcher_facts = [a.facts.get("launcher") or {} for a in attempts]
    search = _search_log(attempts)
    # What the platform reports it selected takes precedence over what the worker requested.
    selected = _first(o.get("strategy_selected") for o in (*reversed(watched), *ends))
    return {
        "strategy_selected": _selected(selected, search),
        "peak_memory_bytes": max((b for o in reported if (b := o.get("peak_memory_bytes"))), default=None),
        "requested_bytes": _first(o.get("requested_bytes") for o in reported),
        "available_bytes": _first(o.get("available_bytes") for o in reported),
        "queue_s": _first(w.get("queue_s") for w in (*reversed(watched), *reversed(launcher_facts))),
        "search_s": _first(w.get("search_s") for w in reversed(watched)) or (search.search_s if search else None),
        "search": search,
    }


def _ends(attempts: Sequence[StoredAttempt]) -> list[Mapping[str, Any]]:
    return [rank.end for a in attempts for rank in a.measurement.ranks if rank.end]


def _search_log(attempts: Sequence[StoredAttempt]) -> SearchLog | None:
    """The layout search, as recorded by the last attempt that has one."""
    found = _first(a.facts.get("search") for a in reversed(attempts))
    return None if found is None else msgspec.convert(found, SearchLog)


def _selected(truly: dict[str, Any] | None, search: SearchLog | None) -> dict[str, Any] | None:
    """The strategy that the worker built, with the layout that the search chose for it."""
    if search is None or search.chosen_option is None or truly is None:
        return truly
    one = search.chosen_option
    return {
        **truly,
        "spelled": one.words(),
        "layout": one.strategy,
        **read_fields(one, "micro_batch", "gradient_accumulation", "checkpointing"),
    }


def _rate(timed: Sequence[TimedPart], kind: int) -> Estimate | None:
    if not timed:
        return None
    rates = [t.total[kind] / t.interval_s for t in timed]
    if len(timed) == 1 or not all(rates):
        windows = timed[0]
        if not all(rates):
            return Estimate(value=statistics.fmean(rates), low=None, high=None, n=len(rates), method="none: no token")
        found = steady_state.within_run_interval(windows.durations, [float(c[kind]) for c in windows.counts])
    else:
        found = steady_state.between_attempts_interval(rates)
    return Estimate(value=found.value, low=found.low, high=found.high, n=found.n, method=found.method)


def _summarize_telemetry(attempt: StoredAttempt, timed: TimedPart | None) -> monitored.TelemetrySummary:
    """The monitor's samples over the timed part, as delimited by the slowest rank."""
    if timed is None:
        # An attempt without a timed part still reports lost devices and foreign processes.
        whole = monitored.summarize_telemetry(attempt.telemetry, math.inf, math.inf)
        return replace(whole, reasons=dict.fromkeys(monitored.TELEMETRY_FIELDS, "nothing was timed"))
    if attempt.launched_s is None:
        why = "the samples and the records use different clocks"
        return monitored.TelemetrySummary(reasons=dict.fromkeys(monitored.TELEMETRY_FIELDS, why))
    return monitored.summarize_telemetry(attempt.telemetry, timed.edges[0].instant_s, timed.edges[-1].instant_s)


def _telemetry_fields(parts: Sequence[tuple[TimedPart | None, monitored.TelemetrySummary]]) -> dict[str, Any]:
    """The result's telemetry fields: sums and time-weighted means over the timed parts that the rates use; null where
    it is unknown for one of them."""
    counted = [(t, s) for t, s in parts if t is not None]
    reasons: dict[str, str] = {}
    for name in monitored.TELEMETRY_FIELDS:
        unknown = [s.reasons.get(name, "") for _, s in counted if getattr(s, name) is None]
        if unknown or not counted:
            reasons[name] = unknown[0] if unknown else "nothing was timed"
    interval_s = math.fsum(t.interval_s for t, _ in counted)
    tokens = sum(t.total.content for t, _ in counted)

    def over_time(name: str) -> float | None:
        if name in reasons:
            return None
        return math.fsum(getattr(s, name) * t.interval_s for t, s in counted) / interval_s

    energy = None if "energy_j" in reasons else math.fsum(s.energy_j or 0.0 for _, s in counted)
    per_token = energy / tokens if energy is not None and tokens else None
    if per_token is None:
        reasons["energy_per_token_j"] = reasons.get("energy_j", "no content token was timed")
    return {
        "energy_j": energy,
        "energy_per_token_j": per_token,
        "power_w": over_time("power_w"),
        "temperature_c": None if "temperature_c" in reasons else max(s.temperature_c or 0.0 for _, s in counted),
        "clock_hz": over_time("clock_hz"),
        "throttled_fraction": over_time("throttled_fraction"),
        "telemetry_reasons": reasons,
    }


def _breakdown(timed: Sequence[tuple[TimedPart, Measurement]]) -> dict[str, float] | None:
    """Mean seconds per step of each part; a step begins where the previous one ended.

    Averaged over all ranks: their steps last equally long, and which rank waits for the others is irrelevant."""
    sums: dict[str, float] = {}
    steps = 0
    for t, measurement in timed:
        for rank in measurement.ranks:
            for begin, end in itertools.pairwise(t.edges_of(rank)):
                at_s = begin.instant_s
                for step in rank.steps[begin.steps : end.steps]:
                    for name, instant_s in step.marks or ():
                        sums[name] = sums.get(name, 0.0) + instant_s - at_s
                        at_s = instant_s
                    steps += 1
    return {name: seconds / steps for name, seconds in sums.items()} if sums else None


def _setup_seconds(attempts: Sequence[StoredAttempt]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for attempt in attempts:
        for rank in attempt.measurement.ranks[:1]:
            at_s = attempt.launched_s
            started = [("start", rank.started_s)] if rank.started_s is not None else []
            for name, instant_s in (*started, *rank.phases):
                if at_s is not None:
                    found.setdefault(name, []).append(instant_s - at_s)
                at_s = instant_s
                if name == "first_step":
                    break  # the phases after it are not set-up
    return {name: statistics.median(values) for name, values in found.items()}


def _compilation_fields(timed: Sequence[TimedPart]) -> dict[str, Any]:
    """What each attempt had compiled when its timed part ended; null if its device does not count that."""
    last = [t.edges[-1] for t in timed]
    counts = [edge.compilations for edge in last if edge.compilations is not None]
    return {
        "compilations": statistics.median_high(counts) if counts else None,
        "compile_s": _median([edge.compile_s for edge in last]),
    }


def _first_step_s(attempt: StoredAttempt) -> float | None:
    ranks = attempt.measurement.ranks
    if not ranks or len(ranks[0].edges) < 2 or attempt.launched_s is None:
        return None
    # Evaluation before training is not part of the time to the first step.
    phases = ranks[0].phases
    evaluated_s = sum(b - a for (_, a), (name, b) in itertools.pairwise(phases) if name == "looked_before")
    return ranks[0].edges[1].instant_s - attempt.launched_s - evaluated_s


def _untimed_fields(identity: RunIdentity, attempt: StoredAttempt) -> dict[str, Any]:
    """The result's fields of evaluation, sample text and saved model, made before and after the timed part."""
    rows = _untimed_records(attempt)
    found = {r["moment"]: r for r in rows if r["kind"] == "evaluation"}
    losses = {m: r["loss_sum"] / r["targets"] if r["targets"] else None for m, r in found.items()}
    held_out = None
    if found:
        first = next(iter(found.values()))
        held_out = HeldOutLoss(
            documents=first["documents"],
            tokens=first["targets"],
            loss_before=losses.get("before"),
            loss_after=losses.get("after"),
        )
    texts = attempt.facts.get("samples") or {}
    completion = None
    if texts and identity.sample is not None:
        completion = Completion(prompt=identity.sample, before=texts.get("before"), after=texts.get("after"))
    saved = next((SavedModel(path=r["path"], bytes=r["bytes"]) for r in rows if r["kind"] == "saved"), None)
    return {"held_out": held_out, "completion": completion, "saved": saved}


def _attention_fields(attempt: StoredAttempt) -> dict[str, Any]:
    """How attention was computed, as the first rank reported it."""
    built = next((row for row in _untimed_records(attempt) if row["kind"] == "model"), {})
    reported = built.get("attention") or {}
    return {"attention": reported.get("kernel"), "attention_reason": reported.get("reason")}


def _trainer_fields(attempts: Sequence[StoredAttempt]) -> dict[str, Any]:
    """What another program's loop said of itself; of its rates the median."""
    if not attempts[-1].measurement.assignment.trainer_runtime:
        return {}
    said = next((row for row in _untimed_records(attempts[-1]) if row["kind"] == "trainer"), {})
    own = [found for a in attempts if (found := find_own_rate(a.measurement)) is not None]
    return {
        "trainer_version": said.get("version"),
        "trainer_differs": said.get("differs"),
        "trainer_tokens_per_s": _median([float(each["tokens_per_s"]) for each in own]),
        "trainer_counts": own[-1].get("counts") if own else None,
    }


def _attempt_with_model(attempts: Sequence[StoredAttempt]) -> StoredAttempt:
    """The last attempt that saved a model, if any; else the last."""
    saving = [a for a in attempts if any(row["kind"] == "saved" for row in _untimed_records(a))]
    return [*attempts, *saving][-1]


def _untimed_records(attempt: StoredAttempt) -> Sequence[Mapping[str, Any]]:
    return attempt.measurement.ranks[0].untimed_records if attempt.measurement.ranks else ()


def _attempt_row(attempt: StoredAttempt, timed: TimedPart | None) -> AttemptRow:
    return AttemptRow(
        **read_fields(attempt, "name", "status", "reason", "evidence"),
        tokens_per_s=timed.total.content / timed.interval_s if timed else None,
        steps_measured=timed.last - timed.first if timed else 0,
        warmup_steps=timed.warmup_steps if timed else None,
        interval_s=timed.interval_s if timed else None,
        others_load=load_of_others(attempt.measurement, timed)[0] if timed else None,
        minor_faults_per_step=minor_faults_per_step(attempt.measurement, timed) if timed else None,
    )


# Facts that have their own fields in the result.
_OWN_FIELDS = ("launched_s", "status", "reason", "evidence", "search", "order", "process", "flops_by_width")


def _environment(attempt: StoredAttempt) -> dict[str, Any]:
    kept = {k: v for k, v in attempt.facts.items() if k not in _OWN_FIELDS}
    if attempt.telemetry is not None and not attempt.telemetry.failure:
        # What is constant during a job: names, memory, packages, and the links between devices.
        kept["devices"] = {"monitor": attempt.telemetry.monitor, **attempt.telemetry.opened}
    for rank in attempt.measurement.ranks[:1]:
        kept["weights"] = next((r.get("weights") for r in rank.untimed_records if r["kind"] == "model"), None)
        kept["worker"] = {k: v for k, v in rank.facts.items() if k not in ("kind", "rank", "instant_s")}
        if rank.peak:
            kept["peak"] = {k: rank.peak.get(k) for k in ("precision", "flops", "path", "tried")}
    return kept


def _median(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return statistics.median(known) if known else None


def _first(values: Any) -> Any:
    return next((v for v in values if v is not None), None)
