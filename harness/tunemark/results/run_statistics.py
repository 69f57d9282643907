"""Derive a run's result from its attempts' measurements: rates with intervals, efficiency, findings, verdict.

A rate is the sum of tokens over the sum of seconds of the timed windows, on the slowest rank. The unit of replication
is the attempt; a single attempt gets an interval from its windows, labelled as such. No outlier is removed.
"""

from __future__ import annotations

import bisect
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from tunemark.plugin.descriptors import Finding
from tunemark.predict.search import SearchLog
from tunemark.results import run_rules as rules
from tunemark.results import telemetry as monitored
from tunemark.results.measurement import CpuLoad, JobTokens, Measurement, RankRecords, WindowEdge
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
from tunemark.results.token_recount import TokenDocuments, recount_tokens, sample_digests
from tunemark.results.verdict import decide_verdict, merge_findings
from tunemark_worker import steady_state


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredAttempt:
    """One process life of a run: how it ended, its records, and what the parent process knew (`facts`).

    launched_s: on the clock of rank 0's instants; None where it is not known to be the same clock. telemetry: the
    samples of the device's monitor, None where there was no monitor.
    """

    name: str
    status: Status
    reason: str
    evidence: str
    measurement: Measurement
    launched_s: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    telemetry: monitored.Telemetry | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _TimedPart:
    """The timed windows of one attempt, on its slowest rank. first, last: its steps, last excluded."""

    rank: RankRecords
    edges: tuple[WindowEdge, ...]
    counts: tuple[JobTokens, ...]
    warmup_steps: int
    is_settled: bool

    @property
    def first(self) -> int:
        return self.edges[0].steps

    @property
    def last(self) -> int:
        return self.edges[-1].steps

    @property
    def durations(self) -> list[float]:
        return [b.instant_s - a.instant_s for a, b in itertools.pairwise(self.edges)]

    @property
    def seconds_per_step(self) -> list[float]:
        return [(b.instant_s - a.instant_s) / (b.steps - a.steps) for a, b in itertools.pairwise(self.edges)]

    @property
    def interval_s(self) -> float:
        return self.edges[-1].instant_s - self.edges[0].instant_s

    @property
    def total(self) -> JobTokens:
        return JobTokens(*(sum(column) for column in zip(*self.counts, strict=True)))


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

    timed_parts = {a.name: _timed_part(a.measurement, identity) for a in attempts}
    timed = [t for a in good or attempts if (t := timed_parts[a.name]) is not None]
    timed_with_records = [(t, a.measurement) for a in good or attempts if (t := timed_parts[a.name]) is not None]
    telemetry_of = {a.name: _summarize_telemetry(a, timed_parts[a.name]) for a in attempts}
    rates = [_rate(timed, i) for i in range(len(JobTokens._fields))]
    slots, content, trained = rates
    peak_flops, peak_source = _peak(identity, attempts)
    mfu, mfu_reason, peak_finding = _mfu(identity, slots, peak_flops, peak_source)

    found: list[tuple[int, Finding]] = []
    for number, attempt in enumerate(attempts, 1):
        attempt_findings = _judge_attempt(identity, attempt, timed_parts[attempt.name], documents)
        attempt_findings += rules.check_device(telemetry_of[attempt.name])
        found += [(number, finding) for finding in attempt_findings]
        if attempt.measurement.life:
            found.append((number, rules.make_restarted(attempt.measurement.life)))
        ended = rules.check_status(attempt.status, attempt.reason, attempt.evidence)
        if ended and number - 1 < last_good:
            ended = Finding(rule="retried", severity="note", message=ended.message)
        found += [(number, ended)] if ended else []
    whole = [peak_finding, rules.check_oversubscribed(identity.oversubscribed), rules.check_attempts(len(good))]
    whole.append(rules.check_simulated(identity.simulated))
    whole += [rules.check_restored(a.facts.get("not_put_back")) for a in attempts[-1:]]
    whole.append(rules.check_verification(_first(a.facts.get("verification") for a in attempts)))
    if content:
        few = rules.check_windows(sum(len(t.counts) for t in timed), len(timed))
        whole += [rules.check_interval(content, identity.target_interval), few]
    elif status == "ok":
        whole.append(rules.check_windows(0, 1))
    found += [(0, finding) for finding in whole if finding]
    noted = merge_findings(found, len(attempts))

    sums = JobTokens(*(sum(column) for column in zip(*(t.total for t in timed), strict=True))) if timed else None
    seconds = sorted(s for t in timed for s in t.seconds_per_step)
    ends = [rank.end for a in attempts for rank in a.measurement.ranks if rank.end]
    # What the job's own ranks reported, and what was observed of the device from outside the job.
    watched = [w for a in attempts if (w := a.facts.get("watched")) is not None]
    reported = [*ends, *watched]
    launcher_facts = [a.facts.get("launcher") or {} for a in attempts]
    shown = (failed or attempts[-1]).measurement
    search = _search_log(attempts)
    losses = [x for x in shown.losses if math.isfinite(x)]
    values = {name: getattr(identity, name) for name in RunIdentity.__struct_fields__}
    for name in ("parameters", "trainable_parameters"):
        values[name] = _first(end.get(name) for end in ends) or values[name]
    values.update(peak_flops=peak_flops, peak_flops_source=peak_source)
    return Result(
        **values,
        status=status,
        verdict=decide_verdict(noted, status),
        findings=noted,
        # What the platform reports it selected takes precedence over what the worker requested.
        strategy_selected=_selected(_first(o.get("strategy_selected") for o in (*reversed(watched), *ends)), search),
        attempts=len(attempts),
        each_attempt=tuple(_attempt_row(a, timed_parts[a.name]) for a in attempts),
        steps_measured=sum(t.last - t.first for t in timed),
        warmup_steps=sum(t.warmup_steps for t in timed) if timed else None,
        tokens_per_s=content,
        slot_tokens_per_s=slots,
        trained_tokens_per_s=trained,
        tokens_per_s_per_chip=content.value / identity.chips if content and identity.chips else None,
        tokens=TimedTokens(slots=sums.slots, content=sums.content, trained=sums.trained) if sums else None,
        interval_s=math.fsum(t.interval_s for t in timed) if timed else None,
        padding_fraction=1 - sums.content / sums.slots if sums and sums.slots else None,
        step_time_s=StepTime(p50=_quantile(seconds, 0.5), p95=_quantile(seconds, 0.95)) if seconds else None,
        breakdown_s=_breakdown(timed_with_records) if identity.breakdown else None,
        time_to_first_step_s=_median([_first_step_s(a) for a in attempts]),
        setup_s=_setup_seconds(attempts),
        mfu=mfu,
        mfu_reason=mfu_reason,
        hfu=_hfu(identity, mfu),
        peak_memory_bytes=max((o["peak_memory_bytes"] for o in reported if o.get("peak_memory_bytes")), default=None),
        requested_bytes=_first(o.get("requested_bytes") for o in reported),
        available_bytes=_first(o.get("available_bytes") for o in reported),
        queue_s=_first(w.get("queue_s") for w in (*reversed(watched), *reversed(launcher_facts))),
        search_s=_first(w.get("search_s") for w in reversed(watched)) or (search.search_s if search else None),
        search=search,
        **_telemetry_fields([(timed_parts[a.name], telemetry_of[a.name]) for a in good or attempts]),
        **_untimed_fields(identity, _attempt_with_model(good or attempts)),
        loss_first=losses[0] if losses else None,
        loss_last=losses[-1] if losses else None,
        stop_reason=(failed or attempts[-1]).reason or None,
        data_sha256=attempts[-1].measurement.assignment.token_file.sha256,
        environment=_environment(attempts[-1]),
    )


def _search_log(attempts: Sequence[StoredAttempt]) -> SearchLog | None:
    """The layout search, as recorded by the last attempt that has one."""
    found = _first(a.facts.get("search") for a in reversed(attempts))
    return None if found is None else msgspec.convert(found, SearchLog)


def _selected(truly: dict[str, Any] | None, search: SearchLog | None) -> dict[str, Any] | None:
    """The strategy that the worker built, with the layout that the search chose for it."""
    if search is None or search.chosen is None or truly is None:
        return truly
    one = search.chosen
    return {
        **truly,
        "spelled": one.words(),
        "layout": one.strategy,
        "micro_batch": one.micro_batch,
        "gradient_accumulation": one.gradient_accumulation,
        "checkpointing": one.checkpointing,
    }


def timed_seconds_per_step(measurement: Measurement, identity: RunIdentity) -> tuple[float, ...]:
    """Seconds per step of each timed window of an attempt, on its slowest rank; empty if nothing was timed."""
    timed = _timed_part(measurement, identity)
    return tuple(timed.seconds_per_step) if timed else ()


def _timed_part(measurement: Measurement, identity: RunIdentity) -> _TimedPart | None:
    """The timed part of an attempt; None if no window was completed."""
    if not measurement.is_whole:
        return None
    # Ranks that were killed may have stopped at different windows.
    common = min(len(rank.edges) for rank in measurement.ranks)
    common = min(common, sum(e.steps <= len(measurement.steps) for e in measurement.ranks[0].edges[:common]))
    if common < 2:
        return None
    # The worker decides on rank 0 when to stop, so rank 0's windows give the same end of warm-up here.
    leader = measurement.ranks[0].edges[:common]
    wanted = identity.warmup_requested
    if wanted is None:
        warm = steady_state.find_warmup_end(
            [(b.instant_s - a.instant_s) / (b.steps - a.steps) for a, b in itertools.pairwise(leader)]
        )
    else:
        warm = next((i for i, edge in enumerate(leader) if edge.steps >= wanted), None)
        warm = None if warm == common - 1 else warm
    first = warm if warm is not None else (common - 1) // 2
    last = common - 1
    if identity.steps_requested is not None and warm is not None:
        goal = leader[first].steps + identity.steps_requested
        last = next((i for i, edge in enumerate(leader) if i > first and edge.steps >= goal), last)
    slowest = max(measurement.ranks, key=lambda r: r.edges[last].instant_s - r.edges[first].instant_s)
    edges = slowest.edges[first : last + 1]
    counts = tuple(measurement.counts(a.steps, b.steps) for a, b in itertools.pairwise(edges))
    return _TimedPart(
        rank=slowest, edges=edges, counts=counts, warmup_steps=leader[first].steps, is_settled=warm is not None
    )


def _rate(timed: Sequence[_TimedPart], kind: int) -> Estimate | None:
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


def _peak(identity: RunIdentity, attempts: Sequence[StoredAttempt]) -> tuple[float | None, str | None]:
    """The accelerator's published peak, else the highest that any attempt measured: a bound, not an average."""
    if identity.peak_flops is not None:
        return identity.peak_flops, identity.peak_flops_source
    best: list[float] = []
    for attempt in attempts:
        flops = [rank.peak.get("flops") if rank.peak else None for rank in attempt.measurement.ranks]
        if flops and all(flops):
            # Ranks measure at the same time, each on its own share of the accelerator.
            best.append(math.fsum(f for f in flops if f))
    return (max(best), "measured") if best else (None, None)


def _mfu(
    identity: RunIdentity, slots: Estimate | None, peak_flops: float | None, source: str | None
) -> tuple[float | None, str | None, Finding | None]:
    if slots is None:
        return None, "nothing was timed", None
    if identity.breakdown:
        return None, "a breakdown waits for every part of a step, so its rate is not the run's", None
    if peak_flops is None:
        return None, f"no peak FLOP/s is known of {identity.chip or identity.device} in {identity.precision}", None
    mfu = slots.value * identity.flops_per_token / peak_flops
    finding = rules.check_above_peak(mfu, peak_flops, source == "measured")
    if finding and source == "measured":
        return None, finding.message, finding
    return mfu, None, finding


def _hfu(identity: RunIdentity, mfu: float | None) -> float | None:
    """MFU with recomputed FLOPs included; equal to MFU where nothing is recomputed."""
    if mfu is None or identity.hardware_flops_per_token is None:
        return None
    return mfu * identity.hardware_flops_per_token / identity.flops_per_token


def _judge_attempt(
    identity: RunIdentity, attempt: StoredAttempt, timed: _TimedPart | None, documents: TokenDocuments | None
) -> list[Finding]:
    measurement = attempt.measurement
    changed = [rank.end.get("weights_changed") for rank in measurement.ranks if rank.end]
    found = [
        rules.check_loss_finite(measurement.losses),
        rules.check_gradient_finite(measurement.gradient_norms),
        rules.check_weights_changed(changed, len(measurement.steps)),
        rules.check_labels(measurement.counts(0, len(measurement.steps)), len(measurement.steps)),
        rules.check_loss_rising(measurement.losses, identity.learnable),
    ]
    for rank in measurement.ranks[:1]:
        built = next((r for r in rank.beside if r["kind"] == "model"), None)
        found.append(rules.check_model(identity.parameters, identity.trainable_parameters, built))
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
        windows = len(measurement.ranks[0].edges) - 1
        if not timed.is_settled:
            found.append(rules.make_no_steady_state(windows, identity.warmup_requested))
        found += [finding for rank in measurement.ranks if (finding := _check_clocks(rank, timed))][:1]
        found += [finding for rank in measurement.ranks if (finding := _check_sync(rank, timed))][:1]
        found += [rules.check_drift(timed.seconds_per_step), rules.check_slow_steps(timed.seconds_per_step)]
        found.append(rules.check_machine_load(*_load_of_others(measurement, timed)))
        if documents is None:
            message = "the token file is gone or changed, so the tokens could not be counted again"
            found.append(Finding(rule="not-recounted", severity="note", message=message))
        else:
            counted = recount_tokens(documents, measurement.assignment, timed.first, timed.last)
            found.append(rules.check_tokens(timed.total, counted))
    return [finding for finding in found if finding]


def _timed_edges(rank: RankRecords, timed: _TimedPart) -> tuple[WindowEdge, ...]:
    # Edges are sorted and this runs for every rank, so bisect.
    first = bisect.bisect_left(rank.edges, timed.first, key=_steps_at)
    return rank.edges[first : bisect.bisect_right(rank.edges, timed.last, key=_steps_at)]


def _steps_at(edge: WindowEdge) -> int:
    return edge.steps


def _check_clocks(rank: RankRecords, timed: _TimedPart) -> Finding | None:
    edges = _timed_edges(rank, timed)
    return rules.check_clocks(edges[-1].instant_s - edges[0].instant_s, edges[-1].second_s - edges[0].second_s)


def _check_sync(rank: RankRecords, timed: _TimedPart) -> Finding | None:
    first, *edges = _timed_edges(rank, timed)
    return rules.check_sync([e.witness_s - e.second_s for e in edges], edges[-1].instant_s - first.instant_s)


def _load_of_others(measurement: Measurement, timed: _TimedPart) -> tuple[float | None, int]:
    """The share of the job's cores' time that other processes used during the timed part, and the number of cores.

    Ranks on the same cores record the same busy seconds, but each only its own use."""
    groups: dict[tuple[int, ...], list[tuple[float, float, float]]] = {}
    for rank in measurement.ranks:
        cores = tuple(rank.facts.get("affinity") or ())
        edges = _timed_edges(rank, timed)
        pair = _loads_around(rank.loads, edges[0].instant_s, edges[-1].instant_s)
        if not cores or pair is None or pair[0].busy_s is None or pair[1].busy_s is None:
            return None, 0
        seconds = pair[1].instant_s - pair[0].instant_s
        row = (seconds, pair[1].busy_s - pair[0].busy_s, pair[1].own_s - pair[0].own_s)
        groups.setdefault(cores, []).append(row)
    cores_s = others_s = 0.0
    for cores, rows in groups.items():
        seconds, busy_s, _ = rows[0]
        cores_s += len(cores) * seconds
        others_s += busy_s - sum(own_s * seconds / lasted_s for lasted_s, _, own_s in rows)
    return max(0.0, others_s / cores_s), sum(map(len, groups))


def _loads_around(loads: Sequence[CpuLoad], first_s: float, last_s: float) -> tuple[CpuLoad, CpuLoad] | None:
    """The last load record before the timed part and the first after it, or the nearest there are."""
    before = [load for load in loads if load.instant_s <= first_s] or list(loads[:1])
    after = [load for load in loads if load.instant_s >= last_s] or list(loads[-1:])
    if not before or not after or after[0].instant_s <= before[-1].instant_s:
        return None
    return before[-1], after[0]


def _summarize_telemetry(attempt: StoredAttempt, timed: _TimedPart | None) -> monitored.TelemetrySummary:
    """The monitor's samples over the timed part, as delimited by the slowest rank."""
    if timed is None:
        # An attempt without a timed part still reports lost devices and foreign processes.
        whole = monitored.summarize_telemetry(attempt.telemetry, math.inf, math.inf)
        return replace(whole, reasons=dict.fromkeys(monitored.TELEMETRY_FIELDS, "nothing was timed"))
    if attempt.launched_s is None:
        why = "the samples and the records use different clocks"
        return monitored.TelemetrySummary(reasons=dict.fromkeys(monitored.TELEMETRY_FIELDS, why))
    return monitored.summarize_telemetry(attempt.telemetry, timed.edges[0].instant_s, timed.edges[-1].instant_s)


def _telemetry_fields(parts: Sequence[tuple[_TimedPart | None, monitored.TelemetrySummary]]) -> dict[str, Any]:
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


def _breakdown(timed: Sequence[tuple[_TimedPart, Measurement]]) -> dict[str, float] | None:
    """Mean seconds per step of each part; a step begins where the previous one ended.

    Averaged over all ranks: their steps last equally long, and which rank waits for the others is irrelevant."""
    sums: dict[str, float] = {}
    steps = 0
    for t, measurement in timed:
        for rank in measurement.ranks:
            for begin, end in itertools.pairwise(_timed_edges(rank, t)):
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


def _attempt_with_model(attempts: Sequence[StoredAttempt]) -> StoredAttempt:
    """The last attempt that saved a model, if any; else the last."""
    saving = [a for a in attempts if any(row["kind"] == "saved" for row in _untimed_records(a))]
    return [*attempts, *saving][-1]


def _untimed_records(attempt: StoredAttempt) -> Sequence[Mapping[str, Any]]:
    return attempt.measurement.ranks[0].beside if attempt.measurement.ranks else ()


def _attempt_row(attempt: StoredAttempt, timed: _TimedPart | None) -> AttemptRow:
    return AttemptRow(
        name=attempt.name,
        status=attempt.status,
        reason=attempt.reason,
        evidence=attempt.evidence,
        tokens_per_s=timed.total.content / timed.interval_s if timed else None,
        steps_measured=timed.last - timed.first if timed else 0,
        warmup_steps=timed.warmup_steps if timed else None,
        interval_s=timed.interval_s if timed else None,
        others_load=_load_of_others(attempt.measurement, timed)[0] if timed else None,
        minor_faults_per_step=_minor_faults_per_step(attempt.measurement, timed) if timed else None,
    )


def _minor_faults_per_step(measurement: Measurement, timed: _TimedPart) -> float | None:
    """Minor page faults of all ranks per timed step; None if unknown for a rank."""
    total = 0
    for rank in measurement.ranks:
        edges = _timed_edges(rank, timed)
        pair = _loads_around(rank.loads, edges[0].instant_s, edges[-1].instant_s)
        if pair is None or pair[0].minor_faults is None or pair[1].minor_faults is None:
            return None
        # The load records lie slightly outside the window edges.
        share = (edges[-1].instant_s - edges[0].instant_s) / (pair[1].instant_s - pair[0].instant_s)
        total += round((pair[1].minor_faults - pair[0].minor_faults) * share)
    return total / (timed.last - timed.first)


# Facts that have their own fields in the result.
_OWN_FIELDS = ("launched_s", "status", "reason", "evidence", "search")


def _environment(attempt: StoredAttempt) -> dict[str, Any]:
    kept = {k: v for k, v in attempt.facts.items() if k not in _OWN_FIELDS}
    if attempt.telemetry is not None and not attempt.telemetry.failure:
        # What is constant during a job: names, memory, packages, and the links between devices.
        kept["devices"] = {"monitor": attempt.telemetry.monitor, **attempt.telemetry.opened}
    for rank in attempt.measurement.ranks[:1]:
        kept["weights"] = next((r.get("weights") for r in rank.beside if r["kind"] == "model"), None)
        kept["worker"] = {k: v for k, v in rank.facts.items() if k not in ("kind", "rank", "instant_s")}
        if rank.peak:
            kept["peak"] = {k: rank.peak.get(k) for k in ("precision", "flops", "path", "tried")}
    return kept


def _quantile(ordered: Sequence[float], q: float) -> float:
    """Linear interpolation of order statistics (type 7 of Hyndman and Fan 1996, numpy's default)."""
    at = q * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


def _median(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return statistics.median(known) if known else None


def _first(values: Any) -> Any:
    return next((v for v in values if v is not None), None)
