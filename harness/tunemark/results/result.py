"""The result of a run: its settings, measurements with intervals, findings and a verdict.

Unknown is null, never 0; the reason is in a finding or in the field's own `_reason`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from tunemark.plugin.descriptors import Finding
from tunemark.predict.search import SearchLog
from tunemark_worker.training_settings import TRAINING_SETTINGS, TrainingSettings

# History of the schema (of runs.jsonl, result.json and attempt.json):
#   1  first form
SCHEMA = 1

Status = Literal["ok", "oom", "error", "killed", "timeout"]
Verdict = Literal["valid", "suspect", "invalid", "unknown"]


class Estimate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A value with its 95 % interval; low and high are null if n is too small for one. method: how it was computed."""

    value: float
    low: float | None
    high: float | None
    n: int
    method: str

    def times(self, factor: float) -> Estimate:
        """The estimate times a factor above 0, such as one in another unit."""
        low, high = (None if bound is None else bound * factor for bound in (self.low, self.high))
        return msgspec.structs.replace(self, value=self.value * factor, low=low, high=high)


class HeldOutLoss(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The mean loss per predicted token of held-out documents, in nats. tokens: predicted ones."""

    documents: int
    tokens: int
    loss_before: float | None
    loss_after: float | None


class Completion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The model's greedy completion of a prompt, before and after training."""

    prompt: str
    before: str | None
    after: str | None


class SavedModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The trained model's folder, and the size of its files without the tokenizer."""

    path: str
    bytes: int


class TimedTokens(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Tokens of the timed steps, whole job, all attempts."""

    slots: int
    content: int
    trained: int


class StepTime(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Seconds per step of the timed windows, all attempts."""

    p50: float
    p95: float


class AttemptRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One attempt. reason: why it stopped. evidence: what shows it. others_load: the share of its cores' time that
    other processes used; minor_faults_per_step: the job's minor page faults; both over the timed part."""

    name: str
    status: Status
    reason: str
    evidence: str
    tokens_per_s: float | None
    steps_measured: int
    warmup_steps: int | None
    interval_s: float | None
    others_load: float | None = None
    minor_faults_per_step: float | None = None


if TYPE_CHECKING:

    class _StoredTraining(TrainingSettings, msgspec.Struct, frozen=True, kw_only=True):
        """The settings of training as fields of a result."""

        attention_requested: str

else:
    # msgspec reads fields from annotations of its own classes only, so these are made from the declarations.
    _StoredTraining = msgspec.defstruct(
        "_StoredTraining",
        [(s.stored, s.type, *([] if s.before is None else [s.before])) for s in TRAINING_SETTINGS],
        frozen=True,
        kw_only=True,
        forbid_unknown_fields=True,
    )


class RunIdentity(_StoredTraining, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run's settings and planned facts: stored with each attempt, so that deriving a result needs no plugin.

    breakdown: the run waited for every part of a step, so its rates are not comparable. peak_flops: the published peak
    of the accelerator's chips in this precision, null if unknown. learnable: false if the loss cannot fall. simulated:
    measured on a simulated device, so no figure says how fast anything is. parts: physical devices of the accelerator;
    memory_bytes: of all of it; null if unknown. hardware_flops_per_token: model FLOPs plus what checkpointing
    recomputes, causal attention. evaluate: documents held out of training. sample, save: the prompt to complete and the
    folder to save to, if requested.
    """

    run_id: str
    model: str
    dataset: str
    device: str
    size: str
    strategy_requested: str
    gradient_accumulation: int
    train_on: str
    python: str | None
    breakdown: bool
    epochs: int | None
    steps_requested: int | None
    warmup_requested: int | None
    budget_s: float | None
    target_interval: float
    window_s: float
    chip: str
    chips: int | None
    oversubscribed: bool
    learnable: bool
    processes: int
    threads: int
    data_ranks: int
    parameters: int
    trainable_parameters: int
    flops_per_token: float
    flops_per_token_full_attention: float
    peak_flops: float | None
    peak_flops_source: str | None
    simulated: bool = False
    evaluate: int | None = None
    sample: str | None = None
    save: str | None = None
    parts: int | None = None
    memory_bytes: int | None = None
    hardware_flops_per_token: float | None = None


# Inheritance, against the style: both files hold the same flat fields, and two lists of them would diverge.
class Result(RunIdentity, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One run with all its attempts.

    tokens_per_s counts content tokens, slot_tokens_per_s batch x row width, trained_tokens_per_s labels; all of the
    whole job. steps_measured, warmup_steps, tokens and interval_s are sums over the attempts that the rates use.
    setup_s: seconds of each phase since the launch, time_to_first_step_s from the launch to the first step's end;
    medians of attempts. peak_memory_bytes: of the rank that used most. requested_bytes: the allocation that failed,
    available_bytes: the memory available to it. queue_s: waiting for the device, search_s: choosing a parallel
    configuration; both of the last attempt that reports them, and part of no rate. compilations, compile_s: programs
    that the device's runtime compiled until the timed part ended, and the seconds of that, on its slowest rank; medians
    of attempts, null if the device does not count them. search: the layouts considered and tried, if the harness itself
    chose the layout; micro_batch and checkpointing are then the chosen ones. attention: how the worker computed
    attention, null if it did not report it; attention_reason: why otherwise than in other environments, null if it was
    not.

    Of another program's training loop, else null: trainer_version; trainer_differs, what it does otherwise than the
    settings say, by setting; trainer_tokens_per_s, the rate that it states of itself, median of attempts, null if it
    states none; trainer_counts, what that counts by its own account.

    Sampled by the device's monitor over the timed parts that the rates use: energy_j, a difference of counters, all
    devices of the job; energy_per_token_j, per content token; power_w, mean, all devices; temperature_c, highest;
    clock_hz, mean; throttled_fraction, of samples with a device slowed down by heat or lack of power.
    telemetry_reasons: for each of them that is null, why. seal: whether the files of all attempts were what they were
    when each ended; null if nobody compared them.
    """

    status: Status
    verdict: Verdict
    findings: tuple[Finding, ...]
    strategy_selected: dict[str, Any] | None
    attempts: int
    each_attempt: tuple[AttemptRow, ...]
    steps_measured: int
    warmup_steps: int | None
    tokens_per_s: Estimate | None
    slot_tokens_per_s: Estimate | None
    trained_tokens_per_s: Estimate | None
    tokens_per_s_per_chip: float | None
    tokens: TimedTokens | None
    interval_s: float | None
    padding_fraction: float | None
    step_time_s: StepTime | None
    breakdown_s: dict[str, float] | None
    time_to_first_step_s: float | None
    setup_s: dict[str, float]
    mfu: float | None
    mfu_reason: str | None
    peak_memory_bytes: int | None
    requested_bytes: int | None
    loss_first: float | None
    loss_last: float | None
    stop_reason: str | None
    data_sha256: str
    environment: dict[str, Any]
    hfu: float | None = None
    available_bytes: int | None = None
    queue_s: float | None = None
    search_s: float | None = None
    energy_j: float | None = None
    energy_per_token_j: float | None = None
    power_w: float | None = None
    temperature_c: float | None = None
    clock_hz: float | None = None
    throttled_fraction: float | None = None
    telemetry_reasons: dict[str, str] | None = None
    search: SearchLog | None = None
    held_out: HeldOutLoss | None = None
    completion: Completion | None = None
    saved: SavedModel | None = None
    attention: str | None = None  # type: ignore[assignment]  # what was requested is stored under another name
    attention_reason: str | None = None
    compilations: int | None = None
    compile_s: float | None = None
    seal: Literal["whole", "touched", "unsealed"] | None = None
    trainer_version: str | None = None
    trainer_differs: dict[str, str] | None = None
    trainer_tokens_per_s: float | None = None
    trainer_counts: str | None = None
    schema: int = SCHEMA


def encode_result(result: Result) -> str:
    """A result as one line of JSON."""
    return msgspec.json.encode(result).decode()


def decode_result(line: str) -> Result:
    """Decode the result of one line; ValueError if it is not one, or of another schema."""
    try:
        head = msgspec.json.decode(line, type=_SchemaHeader)
    except msgspec.ValidationError as error:
        raise ValueError(f"not a result of schema {SCHEMA}") from error
    if head.schema != SCHEMA:
        raise ValueError(f"not a result of schema {SCHEMA}")
    return msgspec.json.decode(line, type=Result)


class _SchemaHeader(msgspec.Struct):
    """The schema number of a line of any schema."""

    schema: Any = None
