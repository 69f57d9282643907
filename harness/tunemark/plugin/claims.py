"""What somebody else printed about a training run: figures as they stand there, each with its origin. Nothing derived.

Every field may be unknown (None). A rate is in tokens per second of what `scope` says, counted as `counts` says.
"""

from __future__ import annotations

import array
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from tunemark.plugin.descriptors import Architecture

Counts = Literal["slots", "content", "trained"]
Scope = Literal["job", "device"]

# Beyond this many steps of one log every second one is left out, again and again: 10 columns of 8 bytes each.
_KEPT_STEPS = 200_000


class LoggedStep(NamedTuple):
    """One line about steps, as it was printed.

    line: its number in the file, from 1. number: optimizer steps done when it was printed. epoch: passes over the data.
    duration_s: seconds that the line states for `duration_steps` steps. tokens_per_s, samples_per_s: printed, in the
    claim's scope. tokens: cumulative, whole job. stamp_s: the line's own time stamp, seconds on the writer's calendar.
    arrived_s: when the line was seen, on a monotonic clock of ours. mfu, tflops: per device, as printed.
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


class Steps:
    """The step lines of a log in their order, in bounded memory: of a very long log only every `stride`-th is kept."""

    def __init__(self) -> None:
        self._columns = [array.array("d") for _ in LoggedStep._fields]
        self.stride = 1
        self.seen = 0

    def add(self, step: LoggedStep) -> None:
        """Append a line; the first one and each stride-th after it are kept."""
        if self.seen % self.stride == 0:
            for column, value in zip(self._columns, step, strict=True):
                # A loss or a rate can be printed as nan, or as -nan.
                if value is None:
                    column.append(_UNKNOWN)
                else:
                    column.append(math.nan if math.isnan(value) else value)
            if len(self) > _KEPT_STEPS:
                self._columns = [column[::2] for column in self._columns]
                self.stride *= 2
        self.seen += 1

    def __len__(self) -> int:
        return len(self._columns[0])

    def __iter__(self) -> Iterator[LoggedStep]:
        for row in zip(*self._columns, strict=True):
            line, *values = (None if _is_unknown(value) else value for value in row)
            assert line is not None
            yield LoggedStep(int(line), *values)


# The unknown is told from a nan that was printed by its sign bit.
_UNKNOWN = -math.nan


def _is_unknown(value: float) -> bool:
    return math.isnan(value) and math.copysign(1.0, value) < 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Parallel degrees and batch as stated. micro_batch: sequences per forward and data-parallel rank."""

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
    """One row, log or statement about one run.

    id: the row's own, or the file's name. source: where it stands. tool: what printed it. counts: the tokens of
    `tokens_per_s`, None where the tool leaves it open; meaning: the same in a sentence. device: the chip's name as
    stated; count: packages as they are sold. method: 'full', 'lora' or what is stated.
    tokens_per_s: whole job; tokens_per_s_per_device: what the source calls a device. step_time_s: mean, as stated.
    train_s: stated duration of the whole training; steps_total: planned, steps_done: stated as done;
    tokens_total: stated tokens of the whole training; samples_per_s: sequences, whole job.
    origin: for each field name, the words and the place that it comes from. notes: what an importer could not use.
    """

    id: str
    source: str
    tool: str
    meaning: str = ""
    counts: Counts | None = None
    scope: Scope = "job"
    model: str | None = None
    architecture: Architecture | None = None
    parameters: float | None = None
    trainable_parameters: float | None = None
    method: str | None = None
    device: str | None = None
    count: int | None = None
    precision: str | None = None
    sequence: int | None = None
    layout: Layout = field(default_factory=Layout)
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
    steps: Steps = field(default_factory=Steps)
    origin: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Line(NamedTuple):
    """A line of a log without its end, terminal escapes and control characters; what a carriage return overwrote is
    a line of its own. arrived_s: None where a file was read."""

    number: int
    text: str
    arrived_s: float | None = None


class LogReader(Protocol):
    """Reads one log, line by line; a fresh one for every file."""

    def read(self, line: Line) -> bool:
        """Take a line in; True where it belongs to this tool's format and was understood. Must not raise."""

    def claims(self) -> Sequence[Claim]:
        """What the lines so far amount to; empty where no figure was among them."""
