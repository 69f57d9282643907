"""Figures that other tools printed or published about a training run, as stated, each with its origin. None is derived.

Every field may be unknown (None). Rates are in tokens per second of the `scope` (job or device); `counts` says which.
"""

from __future__ import annotations

import array
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from tunemark.plugin.descriptors import Architecture

CountedTokens = Literal["slots", "content", "trained"]
ClaimScope = Literal["job", "device", "unknown"]
"""Of what a rate is. 'unknown': the name does not say it, so the count and the other figures have to."""
FigureQuantity = Literal["tokens_per_s", "samples_per_s", "steps_per_s", "step_time_s", "tflops", "mfu", "memory_bytes"]
EventKind = Literal["out-of-memory", "communication", "killed", "error"]

# Whenever a log has more steps than this, every second one is dropped. A step is 16 columns of 8 bytes.
_KEPT_STEPS = 200_000
_LATEST_STEPS = 512


class LoggedStep(NamedTuple):
    """One log line about steps, with the figures printed there.

    line: line number in the file, from 1. number: optimizer steps done when it was printed. epoch: passes over the
    data. duration_s: stated seconds for `duration_steps` steps. tokens_per_s: in the claim's scope; samples_per_s: in
    its samples_scope. tokens, samples: counted since the start, whole job; step_tokens: of this step, whole job. mfu,
    tflops: per device. gradient_norm: as printed, nan included. stamp_s: the line's own time stamp, seconds on the
    writer's calendar. arrived_s: when the line was read, on this process's monotonic clock.
    """

    line: int
    number: float | None = None
    duration_s: float | None = None
    duration_steps: float | None = None
    tokens_per_s: float | None = None
    samples_per_s: float | None = None
    tokens: float | None = None
    tflops: float | None = None
    mfu: float | None = None
    loss: float | None = None
    epoch: float | None = None
    stamp_s: float | None = None
    arrived_s: float | None = None
    samples: float | None = None
    step_tokens: float | None = None
    gradient_norm: float | None = None


class LoggedSteps:
    """The steps of a log in their order, in bounded memory: of a very long log only every `stride`-th is kept."""

    def __init__(self) -> None:
        self._columns = [array.array("d") for _ in LoggedStep._fields]
        # Steps that are not in the columns yet: many at once are added in less time.
        self._latest: list[LoggedStep] = []
        self.stride = 1
        self.seen = 0

    def add(self, step: LoggedStep) -> None:
        """Append a step; the first one and each stride-th after it are kept."""
        if self.seen % self.stride == 0:
            self._latest.append(step)
            if len(self._latest) >= _LATEST_STEPS:
                self._store()
        self.seen += 1

    def _store(self) -> None:
        for column, values in zip(self._columns, zip(*self._latest, strict=True), strict=False):
            # A printed nan or -nan is stored as a positive nan, so that it differs from _UNKNOWN.
            column.extend([_UNKNOWN if v is None else v if v == v else math.nan for v in values])
        self._latest.clear()
        while len(self._columns[0]) > _KEPT_STEPS:
            self._columns = [column[::2] for column in self._columns]
            self.stride *= 2

    def __len__(self) -> int:
        return len(self._columns[0]) + len(self._latest)

    def column(self, name: str) -> list[float | None]:
        """One field of `LoggedStep` of all steps that were kept."""
        self._store()
        column = self._columns[LoggedStep._fields.index(name)]
        # Only what is not a number can be unknown, and it alone differs from itself.
        return [None if value != value and _is_unknown(value) else value for value in column]

    def __iter__(self) -> Iterator[LoggedStep]:
        self._store()
        for row in zip(*self._columns, strict=True):
            line, *values = (None if _is_unknown(value) else value for value in row)
            assert line is not None
            yield LoggedStep(int(line), *values)


# The sign bit distinguishes an unknown value from a printed nan.
_UNKNOWN = -math.nan


def _is_unknown(value: float) -> bool:
    return math.isnan(value) and math.copysign(1.0, value) < 0


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedFigure:
    """A figure that is printed beside the claimed rate, under a name of its own.

    name, unit: as printed. value: the median of its lines, in tokens, sequences or steps per second, seconds, TFLOP/s,
    a fraction, or bytes, as `quantity` says; lowest, highest: of the same lines. counts: which tokens, None where the
    tool does not define it. is_training: False for generation, evaluation and the like. place: of the first line.
    """

    name: str
    quantity: FigureQuantity
    value: float
    unit: str = ""
    scope: ClaimScope = "unknown"
    counts: CountedTokens | None = None
    lines: int = 1
    lowest: float | None = None
    highest: float | None = None
    is_training: bool = True
    place: str = ""


class LogEvent(NamedTuple):
    """A line that says that something went wrong. line: number in the file, from 1."""

    line: int
    kind: EventKind
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimedLayout:
    """Parallel degrees and batch as stated. micro_batch: sequences per forward pass and data-parallel rank."""

    dp: int | None = None
    fsdp: int | None = None
    tp: int | None = None
    pp: int | None = None
    cp: int | None = None
    ep: int | None = None
    virtual_stages: int | None = None
    global_batch: int | None = None
    micro_batch: int | None = None
    gradient_accumulation: int | None = None
    checkpointing: Literal["none", "selective", "full"] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """What one table row, log or statement says about one run.

    id: the row's own, or the file's name. source: the file or publication. tool: the program that printed it.
    counts: which tokens `tokens_per_s` counts, None where the tool does not define it; meaning: the same in a
    sentence. device: the chip's name as stated; count: packages as they are sold. active_parameters: those that a
    token uses, of a mixture of experts. method: 'full', 'lora' or what is stated. tokens_per_s: whole job;
    tokens_per_s_per_device: per device as the source defines it. step_time_s: mean, as stated. train_s: stated
    duration of the whole training; steps_total: planned, steps_done: stated as done; tokens_total: stated tokens of
    the whole training; samples_per_s: sequences, whole job. scope: of the rates in `steps`, samples_scope: of their
    sequences per second, flops_scope: of their TFLOP/s. rate_name: the printed name of the rate that is claimed;
    figures: what is printed beside it under other names. events: failures that the log tells of. origin: by field
    name, the text and the place it was read from. notes: what an importer could not use.
    """

    id: str
    source: str
    tool: str
    meaning: str = ""
    counts: CountedTokens | None = None
    scope: ClaimScope = "job"
    samples_scope: ClaimScope = "job"
    flops_scope: ClaimScope = "device"
    rate_name: str | None = None
    model: str | None = None
    architecture: Architecture | None = None
    parameters: float | None = None
    active_parameters: float | None = None
    trainable_parameters: float | None = None
    method: str | None = None
    device: str | None = None
    count: int | None = None
    precision: str | None = None
    sequence: int | None = None
    layout: ClaimedLayout = field(default_factory=ClaimedLayout)
    tokens_per_s: float | None = None
    tokens_per_s_per_device: float | None = None
    samples_per_s: float | None = None
    step_time_s: float | None = None
    tflops_per_device: float | None = None
    mfu: float | None = None
    memory_bytes: float | None = None
    train_s: float | None = None
    steps_total: float | None = None
    steps_done: float | None = None
    tokens_total: float | None = None
    padding_fraction: float | None = None
    steps: LoggedSteps = field(default_factory=LoggedSteps)
    figures: tuple[NamedFigure, ...] = ()
    events: tuple[LogEvent, ...] = ()
    origin: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class LogLine(NamedTuple):
    """A log line without line ending, terminal escapes and control characters; text that a carriage return overwrote is
    a separate line. number: from 1. arrived_s: when it was read, on a monotonic clock; None where it is from a file."""

    number: int
    text: str
    arrived_s: float | None = None


class LogReader(Protocol):
    """Reads one log, line by line; every file gets a new instance."""

    def read(self, line: LogLine) -> bool:
        """Read a line; True where it is in this tool's format and was understood. Must not raise."""

    def claims(self) -> Sequence[Claim]:
        """The claims in the lines so far; empty where they have no figures."""
