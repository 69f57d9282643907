"""Rules that judge one attempt or run, each a pure function of numbers that returns a finding with its arithmetic.

invalid: the number does not measure this training. suspect: something disturbed it. note: worth knowing.
unknown: too little is known for a verdict. A rule that finds nothing, or lacks the data to decide, returns None.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tunemark.number_format import percent_text
from tunemark.plugin.descriptors import Finding, Severity
from tunemark.results.measurement import JobTokens, Measurement
from tunemark.results.result import Estimate, Status
from tunemark.results.seal import SealState
from tunemark.results.telemetry import TelemetrySummary
from tunemark_worker import steady_state
from tunemark_worker.row_packing import WIDTH_MULTIPLE

# Two clocks of one host that agree differ by 0.05 % at most (NTP's slew limit, 500 ppm); a paused or skewed virtual
# machine shows as whole percents.
CLOCK_TOLERANCE = 0.02
# After a real wait nothing is left; after a false one, the window's queued work.
SYNC_TOLERANCE = 0.02
# Beside other programs on the same cores, the device's own threads may wait for their turn with every reading.
SYNC_TOLERANCE_UNDER_LOAD = 0.2
# Both counts are integers of the same tokens: any difference is a bug; 2 % is where it matters to a reader.
TOKEN_TOLERANCE = 0.02
# Standard errors of the losses' slope. Losses of batches are noisy, and 3 happens by chance in 0.1 % of flat runs.
MAX_LOSS_RISE = 3.0
# Over the timed part: a change must be both significant and larger than the usual difference between two attempts.
DRIFT_P = 0.001
MAX_DRIFT = 0.05
# Share of the samples with a device slowed down by heat or a lack of power. Where clocks then fall by a third, 5 % of
# the time costs 2 % of the rate.
MAX_THROTTLED = 0.05
# Share of the timed part in which programs were compiled; the rate without that would differ by as much.
MAX_COMPILING = 0.01
# A scheduler's time slices and a clock's steps are milliseconds: below a second they are percents of what is timed, and
# no interval within it speaks of anything slower.
MIN_TIMED_S = 1.0
# Other processes' share of our cores' time. A job on all cores loses about that share; an idle desktop takes 2 %.
HEAVY_LOAD = 0.10
LIGHT_LOAD = 0.02
# Both must hold: 1.5 times the median matters, and six robust sigmas exclude jitter.
SLOW_STEP = 1.5
SLOW_SIGMAS = 6.0
# Consistent estimate of sigma from the median absolute deviation, for normal values.
_MAD_TO_SIGMA = 1.4826
# With two attempts t has one degree of freedom, so a 95 % interval is 12.7 standard errors each way.
MIN_ATTEMPTS = 3


def check_loss_finite(losses: Sequence[float]) -> Finding | None:
    bad = [i for i, loss in enumerate(losses) if not math.isfinite(loss)]
    if not bad:
        return None
    message = f"{len(bad)} of {len(losses)} steps have a loss that is not finite, step {bad[0]} is the first"
    return Finding(rule="loss-not-finite", severity="invalid", message=message)


def check_gradient_finite(norms: Sequence[float]) -> Finding | None:
    bad = [i for i, norm in enumerate(norms) if not math.isfinite(norm)]
    if not bad:
        return None
    message = f"{len(bad)} of {len(norms)} steps have a gradient norm that is not finite, step {bad[0]} is the first"
    return Finding(rule="gradient-not-finite", severity="invalid", message=message)


def check_weights_changed(changed: Sequence[bool | None], steps: int) -> Finding | None:
    """changed: as each rank's `end` record says; None if the rank cannot tell."""
    if steps == 0 or False not in changed:
        return None
    message = f"no sampled weight differs from the start after {steps} steps on {changed.count(False)} of "
    message += f"{len(changed)} ranks: nothing was trained"
    return Finding(rule="weights-unchanged", severity="invalid", message=message)


def check_labels(tokens: JobTokens, steps: int) -> Finding | None:
    """tokens: of all steps. Needed besides `check_weights_changed`: weight decay changes weights without any label."""
    if steps == 0 or tokens.trained:
        return None
    message = f"none of {tokens.content:,} tokens in {steps} steps has a label, so no loss was taken: where only "
    message += "responses are trained on, a prompt as long as the sequence leaves nothing"
    return Finding(rule="nothing-trained", severity="invalid", message=message)


def check_epoch(epoch: Mapping[str, int], dataset: Mapping[str, Any]) -> list[Finding]:
    """What an epoch does not train on: documents cut at the sequence, documents without a label, texts left out.

    epoch: fields of `EpochTokens`; empty where an older version stored none. dataset: facts of the token file.
    """
    found = [Finding(rule="text-left-out", severity="note", message=words) for words in dataset.get("remarks", ())]
    if not epoch:
        return found
    documents, tokens = epoch["documents"], epoch["tokens"]
    if epoch["truncated_documents"]:
        message = f"{epoch['truncated_documents']:,} of {documents:,} documents are longer than the sequence: "
        message += (
            f"{epoch['cut_tokens']:,} of {tokens:,} tokens ({percent_text(epoch['cut_tokens'] / tokens)}) are cut "
        )
        message += "off and never trained on"
        found.append(Finding(rule="documents-truncated", severity="note", message=message))
    if epoch["untrained_documents"]:
        message = f"{epoch['untrained_documents']:,} of {documents:,} documents have no token to train on within the "
        message += "sequence"
        found.append(Finding(rule="documents-untrained", severity="note", message=message))
    return found


def check_clocks(interval_s: float, second_s: float) -> Finding | None:
    apart = abs(second_s - interval_s) / interval_s
    if apart <= CLOCK_TOLERANCE:
        return None
    message = f"the timed part lasts {interval_s:.3f} s on one clock and {second_s:.3f} s on another, "
    message += f"{percent_text(apart)} apart (limit {percent_text(CLOCK_TOLERANCE)})"
    return Finding(rule="clocks-disagree", severity="invalid", message=message)


def check_duration(interval_s: float) -> Finding | None:
    if interval_s >= MIN_TIMED_S:
        return None
    message = f"{interval_s:.3g} s were timed, and less than {MIN_TIMED_S:g} s is too short to be believed: give more "
    message += "--steps, or a --budget"
    return Finding(rule="too-short", severity="unknown", message=message)


def check_sync(each_late_s: Sequence[float], interval_s: float, others: float | None = None) -> Finding | None:
    """each_late_s: at each window edge, the seconds that the device still worked after it was waited for. others: the
    share of the cores' time that other processes used, None where unknown."""
    if not each_late_s:
        return None
    # The lower quartile: a false wait is late at every edge, other processes' interruptions only at some.
    late_s = len(each_late_s) * sorted(each_late_s)[(len(each_late_s) - 1) // 4]
    limit = SYNC_TOLERANCE_UNDER_LOAD if others is not None and others > HEAVY_LOAD else SYNC_TOLERANCE
    if late_s <= limit * interval_s:
        return None
    message = f"after {len(each_late_s)} waits for the device its results took {late_s:.3f} s more, "
    message += f"{percent_text(late_s / interval_s)} of the {interval_s:.3f} s timed (limit {percent_text(limit)}): "
    message += "the device had not finished"
    return Finding(rule="sync-does-not-wait", severity="invalid", message=message)


def check_compilations(programs: int, compile_s: float, interval_s: float) -> Finding | None:
    """programs, compile_s: compiled in the timed part, and the seconds of that."""
    if programs <= 0:
        return None
    share = compile_s / interval_s
    what = "a program was" if programs == 1 else f"{programs} programs were"
    message = f"{what} compiled in the timed part, in {compile_s:.3g} s, {percent_text(share)} of "
    message += f"it (limit {percent_text(MAX_COMPILING)}): with more steps of --warmup, what is compiled once is not "
    message += "timed; what is compiled again and again has another shape each time"
    severity: Severity = "suspect" if share > MAX_COMPILING else "note"
    return Finding(rule="compiled", severity=severity, message=message)


def check_tokens(recorded: JobTokens, recounted: JobTokens) -> Finding | None:
    worst: tuple[float, str] = (0.0, "")
    for name, ours, theirs in zip(JobTokens._fields, recounted, recorded, strict=True):
        apart = abs(theirs - ours) / max(ours, 1)
        if apart > worst[0]:
            worst = (apart, f"{theirs:,} {name} tokens were recorded, the token file has {ours:,} in these steps")
    if worst[0] <= TOKEN_TOLERANCE:
        return None
    message = f"{worst[1]}: {percent_text(worst[0])} apart (limit {percent_text(TOKEN_TOLERANCE)})"
    return Finding(rule="tokens-disagree", severity="invalid", message=message)


def check_sealed_tokens(measurement: Measurement, counted: tuple[int, int, int, int] | None) -> Finding | None:
    """Where the token file is gone: compares all recorded steps with what the seal says that it had in them. counted:
    as in `Seal`; None if nobody counted."""
    steps = measurement.step_count
    if counted is not None and counted[0] == steps:
        return check_tokens(measurement.counts(0, steps), JobTokens(*counted[1:]))
    message = "the token file is gone or changed, so nobody could count the tokens again, and no seal says what it held"
    return Finding(rule="not-recounted", severity="unknown", message=message)


def check_slots(measurement: Measurement) -> Finding | None:
    """The slots of a step follow from the settings, with `--batching bucket` from its micro-batches' widths."""
    if measurement.assignment.batching == "bucket":
        return _check_widths(measurement)
    wanted = measurement.assignment.global_batch * measurement.assignment.sequence
    bad = [(number, slots) for number, slots in enumerate(measurement.slots_of_steps()) if slots != wanted]
    if not bad or not measurement.is_whole:
        return None
    message = f"{len(bad)} of {measurement.step_count} steps have not the {wanted:,} slots of global batch x sequence, "
    message += f"step {bad[0][0]} is the first with {bad[0][1]:,}"
    return Finding(rule="slots-disagree", severity="invalid", message=message)


def _check_widths(measurement: Measurement) -> Finding | None:
    """A step's micro-batches are as many as the settings say, and as wide as they allow."""
    a = measurement.assignment
    for rank in measurement.data_ranks:
        for step in rank.steps:
            is_allowed = len(step.widths) == a.gradient_accumulation and all(
                0 < width <= a.sequence and (width == a.sequence or width % WIDTH_MULTIPLE == 0)
                for width in step.widths
            )
            wanted = a.micro_batch * sum(step.widths)
            if is_allowed and step.slots == wanted and step.content <= step.slots:
                continue
            message = f"step {step.number} of rank {rank.rank} has {step.slots:,} slots and {step.content:,} content "
            message += f"tokens: {a.gradient_accumulation} micro-batches of {a.micro_batch} rows, recorded as "
            message += f"{list(step.widths)[:8]} wide (at most {a.sequence}), do not have them"
            return Finding(rule="slots-disagree", severity="invalid", message=message)
    return None


def check_seal(state: SealState, problems: Sequence[str]) -> Finding | None:
    if state != "touched":
        return None
    message = f"what is stored is not what was measured: {'; '.join(problems)}"
    return Finding(rule="touched", severity="invalid", message=message)


def check_load_recorded(loads: Sequence[int]) -> Finding | None:
    """loads: each rank's number of load records; every worker writes them, where it knows the load and where not."""
    if all(loads):
        return None
    message = f"{loads.count(0)} of {len(loads)} ranks have no record of the load: what else ran is unknown"
    return Finding(rule="no-load-record", severity="unknown", message=message)


def check_samples(step: int, trained: Sequence[tuple[int, Sequence[str]]], wanted: Sequence[str]) -> Finding | None:
    """trained: per rank, its data rank and the digests of its samples; wanted: the digests of the step's samples.

    Ranks of one data rank share their samples, and all data ranks together hold each sample of the step once."""
    by_data_rank: dict[int, tuple[str, ...]] = {}
    for rank, (data_rank, rows) in enumerate(trained):
        if by_data_rank.setdefault(data_rank, tuple(rows)) != tuple(rows):
            message = f"in step {step} rank {rank} trained on other samples than the first rank of its data rank "
            message += f"{data_rank}, with which it shares one batch"
            return Finding(rule="samples-differ", severity="invalid", message=message)
    seen = Counter(row for rows in by_data_rank.values() for row in rows)
    expected = Counter(wanted)
    if seen == expected:
        return None
    missing = sum((expected - seen).values())
    message = f"{len(by_data_rank)} data ranks trained in step {step} on {seen.total()} samples, {len(seen)} of them "
    message += f"different; {missing} of the step's {len(wanted)} were trained on by nobody"
    return Finding(rule="samples-differ", severity="invalid", message=message)


def check_above_peak(mfu: float, peak_flops: float, is_measured: bool) -> Finding | None:
    """A rate above a published peak is impossible; a measured peak may be too low."""
    if mfu <= 1:
        return None
    message = f"the rate needs {mfu * peak_flops / 1e12:.4g} TFLOP/s, {percent_text(mfu)} of the "
    if is_measured:
        message += f"measured peak of {peak_flops / 1e12:.4g}: that peak was measured too low"
        return Finding(rule="peak-too-low", severity="note", message=message)
    message += f"chips' {peak_flops / 1e12:.4g}: not all of the counted tokens can have been trained on"
    return Finding(rule="above-peak", severity="invalid", message=message)


def check_loss_rising(losses: Sequence[float], is_learnable: bool) -> Finding | None:
    errors = steady_state.slope_over_error(losses) if is_learnable and all(map(math.isfinite, losses)) else 0.0
    if errors <= MAX_LOSS_RISE:
        return None
    message = f"over {len(losses)} steps the loss rises by {errors:.1f} standard errors of its slope "
    message += f"(limit {MAX_LOSS_RISE:.0f}), from {losses[0]:.4g} to {losses[-1]:.4g}"
    return Finding(rule="loss-rising", severity="suspect", message=message)


def check_drift(seconds_per_step: Sequence[float]) -> Finding | None:
    if len(seconds_per_step) < steady_state.MIN_WINDOWS:
        return None
    change, p = steady_state.theil_sen_trend(seconds_per_step)
    if p >= DRIFT_P or abs(change) <= MAX_DRIFT:
        return None
    message = (
        f"step time changes by {100 * change:+.1f} % over the timed part (limit {percent_text(MAX_DRIFT)}, p = {p:.1g})"
    )
    return Finding(rule="drift", severity="suspect", message=message)


def check_machine_load(others: float | None, cores: int) -> Finding | None:
    """others: the share of the cores' time that other processes used; None where unknown."""
    if others is None or others <= LIGHT_LOAD:
        return None
    is_heavy = others > HEAVY_LOAD
    message = f"other processes used {percent_text(others)} of the time of our {cores} cores "
    message += f"(limit {percent_text(HEAVY_LOAD if is_heavy else LIGHT_LOAD)})"
    if is_heavy:
        return Finding(rule="heavy-load", severity="suspect", message=message)
    return Finding(rule="light-load", severity="note", message=message)


def check_machine_state(spoilt: Sequence[Mapping[str, str]]) -> Finding | None:
    """spoilt: what `tunemark doctor` calls severe, as it was before the attempt."""
    if not spoilt:
        return None
    words = "; ".join(f"{each['check']}: {each['evidence']}" for each in spoilt)
    message = f"the machine was in a state that changes rates: {words}; `tunemark doctor` says how to mend it"
    return Finding(rule="machine-state", severity="suspect", message=message)


def check_slow_steps(seconds_per_step: Sequence[float], work: str = "step") -> Finding | None:
    """seconds_per_step: of windows, for equal steps. work: what such a step is."""
    if not seconds_per_step:
        return None
    median = statistics.median(seconds_per_step)
    sigma = _MAD_TO_SIGMA * statistics.median(abs(s - median) for s in seconds_per_step)
    limit = max(SLOW_STEP * median, median + SLOW_SIGMAS * sigma)
    slow = [s for s in seconds_per_step if s > limit]
    if not slow:
        return None
    message = f"{len(slow)} of {len(seconds_per_step)} windows took more than {limit:.4g} s per {work}, the slowest "
    message += f"{max(slow):.4g} s against a median of {median:.4g} s; they count as they are"
    return Finding(rule="slow-step", severity="note", message=message)


def check_interval(rate: Estimate, target: float) -> Finding | None:
    if rate.low is None or rate.high is None or target <= 0:
        return None
    half = (rate.high - rate.low) / 2 / rate.value
    if half <= target:
        return None
    message = (
        f"the interval is ±{percent_text(half)} wide, ±{percent_text(target)} was wanted ({rate.method}, n = {rate.n})"
    )
    return Finding(rule="wide-interval", severity="note", message=message)


def check_attempts(attempts: int) -> Finding | None:
    if attempts >= MIN_ATTEMPTS:
        return None
    message = f"{attempts} of at least {MIN_ATTEMPTS} attempts: the variation between processes is poorly known"
    return Finding(rule="few-attempts", severity="note", message=message)


def check_oversubscribed(is_oversubscribed: bool) -> Finding | None:
    if not is_oversubscribed:
        return None
    message = "more was requested than the device has: this tests the mechanics, and its rates mean nothing"
    return Finding(rule="oversubscribed", severity="note", message=message)


def check_simulated(is_simulated: bool) -> Finding | None:
    if not is_simulated:
        return None
    message = "the accelerator is a simulator's: no figure here says how fast anything is"
    return Finding(rule="simulated", severity="note", message=message)


def check_restored(why: str | None) -> Finding | None:
    """why: the device's error when its former size was restored; None if it was restored."""
    if why is None:
        return None
    return Finding(rule="not-put-back", severity="note", message=f"the device is not as it was before: {why}")


def check_windows(windows: int, attempts: int) -> Finding | None:
    """attempts: those the rate uses; two or more give an interval between attempts."""
    if attempts > 1 or windows >= steady_state.MIN_WINDOWS:
        return None
    message = f"{windows} windows were timed, an interval needs {steady_state.MIN_WINDOWS}; or repeat the run"
    return Finding(rule="few-windows", severity="unknown", message=message)


def make_no_steady_state(windows: int, warmup_requested: int | None) -> Finding:
    """For runs in which the second half of the windows is used as the timed part."""
    if warmup_requested is None:
        why = f"no steady part was found in {windows} windows"
    else:
        why = f"all {windows} windows lie within the {warmup_requested} steps of warm-up that were asked for"
    return Finding(rule="no-steady-state", severity="unknown", message=f"{why}: the rate is of their second half")


def check_model(parameters: int, trainable: int, built: Mapping[str, Any] | None) -> Finding | None:
    """Compares the module that was built with the parameter counts that FLOPs and memory are computed from."""
    if built is None:
        return None
    got = built["parameters"], built["trainable_parameters"]
    if got == (parameters, trainable):
        return None
    message = (
        f"the model that was built has {got[0]:,} parameters, {got[1]:,} of them trained; the plan said "
        f"{parameters:,} and {trainable:,}: its FLOPs and memory are another model's"
    )
    return Finding(rule="another-model", severity="invalid", message=message)


def check_attention(built: Mapping[str, Any] | None) -> Finding | None:
    """built: what the worker reported of its model. A note if attention was computed otherwise than elsewhere."""
    reported = (built or {}).get("attention") or {}
    if not reported.get("reason"):
        return None
    message = (
        f"attention was computed as {reported['kernel']}: {reported['reason']}. It takes other time and memory than "
        "SDPA, so the run is only compared with runs that did the same"
    )
    return Finding(rule="attention", severity="note", message=message)


def check_verification(found: Mapping[str, Any] | None) -> Finding | None:
    """found: the comparison made before the attempt, as `tunemark.runner.verification` stores it; None if none was
    requested."""
    if not found:
        return None
    reference, failure = found["reference"], found.get("failure")
    if failure:
        message = f"it could not be compared with {reference}: {failure}"
        return Finding(rule="not-verified", severity="unknown", message=message)
    if found["gradient_norm"] is None:
        worst = found["loss"]
        message = (
            f"over {found['steps']} steps the loss differs from that of {reference} by up to {worst:.2g}, relative "
        )
        message += f"(limit {found['tolerance']:g})"
    else:
        worst = max(found["loss"], found["gradient_norm"])
        message = f"over {found['steps']} steps loss and gradient norm differ from those of {reference} by up to "
        message += f"{found['loss']:.2g} and {found['gradient_norm']:.2g}, relative (limit {found['tolerance']:g})"
    if worst <= found["tolerance"]:
        return Finding(rule="verified", severity="note", message=message)
    return Finding(rule="strategy-differs", severity="invalid", message=f"{message}: it trains something else")


def check_device(seen: TelemetrySummary) -> list[Finding]:
    """Findings from the device's monitor: throttling, other processes, a lost device."""
    found = []
    if seen.lost_devices:
        message = (
            f"the device stopped answering ({'; '.join(seen.lost_devices)}): what ran after that did not run on it"
        )
        found.append(Finding(rule="device-lost", severity="invalid", message=message))
    if foreign := seen.foreign_processes:
        words = ", ".join(foreign[:4]) + (f" and {len(foreign) - 4} more" if len(foreign) > 4 else "")
        message = f"another job was on the device before or during the timed part: {words}"
        found.append(Finding(rule="foreign-process", severity="suspect", message=message))
    if seen.throttled_fraction:
        causes = ", ".join(f"{cause} in {count}" for cause, count in sorted(seen.causes.items()))
        message = (
            f"the device was slowed down in {percent_text(seen.throttled_fraction)} of {seen.samples} samples of the "
        )
        message += f"timed part (limit {percent_text(MAX_THROTTLED)}): {causes}"
        severity: Severity = "suspect" if seen.throttled_fraction > MAX_THROTTLED else "note"
        found.append(Finding(rule="throttled", severity=severity, message=message))
    if seen.capped_fraction:
        message = (
            f"the device's power limit held it back in {percent_text(seen.capped_fraction)} of {seen.samples} samples "
        )
        message += "of the timed part: under another limit it would be another rate"
        found.append(Finding(rule="power-capped", severity="note", message=message))
    return found


def make_restarted(lives: int) -> Finding:
    """lives: how often the attempt's processes were restarted before the life that is measured."""
    message = f"its processes were started again {lives} times: what is measured is their last life alone, and the "
    message += "records of the earlier ones are kept beside it"
    return Finding(rule="restarted", severity="note", message=message)


# Parts of the names of libraries that are preloaded for their speed alone.
_ALLOCATORS = ("tcmalloc", "jemalloc", "mimalloc", "libiomp", "libomp", "libgomp")


def check_preloaded(libraries: Sequence[str]) -> Finding | None:
    """libraries: that the loader put before all others in a rank, by name."""
    if fakes := [name for name in libraries if "faketime" in name]:
        message = f"{fakes[0]} was loaded into the timed process: it changes what clocks say"
        return Finding(rule="preloaded", severity="suspect", message=message)
    unknown = [name for name in libraries if not any(word in name for word in _ALLOCATORS)]
    if not unknown:
        return None
    message = f"loaded into the timed process before all other libraries: {', '.join(unknown)}; what that changes is "
    message += "unknown here"
    return Finding(rule="preloaded", severity="note", message=message)


def check_order(orders: Sequence[tuple[str, str]]) -> Finding | None:
    """orders: of each attempt its start by the machine's clock, and its place in the order of attempts."""
    late = [number for number, (started, order) in enumerate(orders, 1) if order != started]
    if not late:
        return None
    message = f"the clock was before an earlier attempt's start when attempt {late[0]} began: attempts are in the "
    message += "order in which they were made, not in that of their dates"
    return Finding(rule="order", severity="note", message=message)


def check_status(status: Status, reason: str, evidence: str) -> Finding | None:
    if status == "ok":
        return None
    return Finding(rule="unfinished", severity="unknown", message=f"{status}, ended by {reason}: {evidence}")
