"""The records of all ranks of one attempt, as written: instants and counts, without rates or warm-up.

Ranks of one data rank train on the same batch, so tokens are summed once per data rank. Instants of different ranks
are never compared.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, BinaryIO, NamedTuple

import msgspec

from tunemark.errors import BadStore
from tunemark.launch.records import read_record
from tunemark.results.stored_file import open_stored_file, read_stored_file
from tunemark_worker.contract import Assignment, records_file_name


class JobTokens(NamedTuple):
    """Tokens of some steps, whole job. slots: batch x width. content: without padding. trained: with a label."""

    slots: int
    content: int
    trained: int


# What a computer can have counted; a stranger's store may say anything.
_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]


# A run of many ranks has tens of thousands of the next three records, so each is decoded straight from its line.
class RecordedStep(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="step"):
    """One optimizer step on one rank, with its tokens as in `TokenCounts`. marks: (part, instant) if parts were timed,
    else None. widths: of its micro-batches, where they differ, else empty. samples: for the first steps a digest of
    each row, else empty. gradient_norm: None if another program's loop did not say."""

    number: int = msgspec.field(name="step")
    instant_s: float
    slots: _Count
    content: _Count
    trained: _Count
    loss_sum: float
    gradient_norm: float | None
    marks: tuple[tuple[str, float], ...] | None
    widths: tuple[_Count, ...] = ()
    samples: tuple[str, ...] = ()


class WindowEdge(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="edge"):
    """A window's edge. steps: done so far. second_s, witness_s, reread_s: a second clock, before a value that depends
    on the last update was read, after that, and after one was read that does not; the last is None in stores of
    earlier versions. compilations, compile_s: programs that the device's runtime has compiled so far, and the seconds
    of that; None where it does not count them."""

    instant_s: float
    steps: _Count
    second_s: float
    witness_s: float
    reread_s: float | None = None
    compilations: int | None = None
    compile_s: float | None = None

    @property
    def late_s(self) -> float:
        """Seconds that the device still worked after it was waited for: of the first reading, less those of the
        second."""
        reading_s = 0.0 if self.reread_s is None else self.reread_s - self.witness_s
        return self.witness_s - self.second_s - reading_s


class CpuLoad(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="load"):
    """CPU seconds so far: busy_s of the rank's cores by any process (None if unknown), own_s of its own process;
    minor_faults: page faults of the process without disk access, None if unknown."""

    instant_s: float
    busy_s: float | None
    own_s: float
    minor_faults: int | None = None


_RECORDS_NAME = re.compile(r"records\.(\d{1,9})(?:\.life\d{1,9})?\.jsonl")
_UNTIMED_KINDS = ("model", "evaluation", "sample", "saved", "trainer", "reference", "trainer_end")
_STREAMED_KINDS = ("step", "edge", "load")
_STREAMED: msgspec.json.Decoder[RecordedStep | WindowEdge | CpuLoad] = msgspec.json.Decoder(
    RecordedStep | WindowEdge | CpuLoad
)


@dataclass(frozen=True, kw_only=True)
class RankRecords:
    """The records of one rank. untimed_records: made before and after training (_UNTIMED_KINDS).
    peak: the measured matmul peak, None if not measured. end: None after a kill."""

    rank: int
    data_rank: int
    started_s: float | None
    phases: tuple[tuple[str, float], ...]
    facts: Mapping[str, Any]
    peak: Mapping[str, Any] | None
    steps: tuple[RecordedStep, ...]
    edges: tuple[WindowEdge, ...]
    loads: tuple[CpuLoad, ...]
    untimed_records: tuple[Mapping[str, Any], ...]
    end: Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """All ranks of an attempt that left records. partial_lines: last lines cut off by a kill, which are dropped.
    life: how often its processes were restarted; the records are of the last start."""

    assignment: Assignment
    ranks: tuple[RankRecords, ...]
    partial_lines: int
    life: int = 0

    @property
    def is_whole(self) -> bool:
        """True if every rank left records; otherwise nothing can be summed over ranks."""
        return len(self.ranks) == self.assignment.processes

    @functools.cached_property
    def data_ranks(self) -> tuple[RankRecords, ...]:
        """The first rank of each data rank."""
        first: dict[int, RankRecords] = {}
        for rank in self.ranks:
            first.setdefault(rank.data_rank, rank)
        return tuple(first.values())

    @functools.cached_property
    def step_count(self) -> int:
        """Steps up to the last one that every data rank recorded."""
        return min((len(rank.steps) for rank in self.data_ranks), default=0)

    def slots_of_steps(self) -> Iterator[int]:
        """The job's slots by step."""
        series = [map(attrgetter("slots"), rank.steps) for rank in self.data_ranks]
        return series[0] if len(series) == 1 else map(sum, zip(*series, strict=False))

    @functools.cached_property
    def _token_sums(self) -> tuple[list[int], ...]:
        """For slots, content and trained tokens, the job's sum of the steps before each one, and of all: a run of a
        million steps has few tuples to make then."""
        found = []
        for name in JobTokens._fields:
            series = [map(attrgetter(name), rank.steps) for rank in self.data_ranks]
            tokens = series[0] if len(series) == 1 else map(sum, zip(*series, strict=False))
            found.append(list(itertools.accumulate(tokens, initial=0)))
        return tuple(found)

    @functools.cached_property
    def losses(self) -> tuple[float, ...]:
        """The mean loss per predicted token, by step; steps without a predicted token are left out."""
        if len(self.data_ranks) == 1:
            return tuple([step.loss_sum / step.trained for step in self.data_ranks[0].steps if step.trained])
        found = []
        for row in zip(*(rank.steps for rank in self.data_ranks), strict=False):
            trained = sum(step.trained for step in row)
            if trained:
                found.append(sum(step.loss_sum for step in row) / trained)
        return tuple(found)

    @property
    def gradient_norms(self) -> tuple[float, ...]:
        """The norm of the whole job's gradient before clipping, by step, as rank 0 recorded it; empty if it was not."""
        steps = self.ranks[0].steps if self.ranks else ()
        return tuple(step.gradient_norm for step in steps if step.gradient_norm is not None)

    def counts(self, first: int, last: int) -> JobTokens:
        """The job's tokens of steps first to last - 1."""
        first, last = min(first, self.step_count), min(last, self.step_count)
        return JobTokens(*(sums[last] - sums[first] for sums in self._token_sums))


def read_measurement(folder: Path) -> Measurement:
    """Read an attempt's folder; raises `BadStore` with the file and line of an invalid record."""
    plan = folder / "plan.json"
    try:
        assignment = Assignment.from_json(read_stored_file(plan).decode())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _bad_store(plan, None, str(error)) from error
    ranks, partial, life = [], 0, count_restarts(folder)
    # What is there is counted, not what the plan says: it may say billions.
    numbers = [int(match[1]) for path in folder.iterdir() if (match := _RECORDS_NAME.fullmatch(path.name))]
    for rank in sorted({number for number in numbers if number < assignment.processes}):
        path = folder / records_file_name(rank, life)
        if path.exists():
            found, partial_line = _read_rank(path, rank, assignment)
            ranks.append(found)
            partial += partial_line
    return Measurement(assignment=assignment, ranks=tuple(ranks), partial_lines=partial, life=life)


def count_restarts(folder: Path) -> int:
    """How often an attempt's processes were restarted; only the last life is measured."""
    found = (
        re.fullmatch(r"records\.\d+\.life(\d+)\.jsonl", path.name) for path in folder.glob("records.*.life*.jsonl")
    )
    return max((int(match[1]) for match in found if match), default=0)


def _read_rank(path: Path, rank: int, assignment: Assignment) -> tuple[RankRecords, int]:
    try:
        with open_stored_file(path) as lines:
            return _read_lines(lines, path, rank, assignment)
    except OSError as error:
        raise _bad_store(path, None, str(error)) from error


def _read_lines(lines: BinaryIO, path: Path, rank: int, assignment: Assignment) -> tuple[RankRecords, int]:
    """Line by line, since the records of a long run are larger than what is kept of them."""
    phases: list[tuple[str, float]] = []
    steps: list[RecordedStep] = []
    edges: list[WindowEdge] = []
    loads: list[CpuLoad] = []
    untimed: list[Mapping[str, Any]] = []
    once: dict[str, dict[str, Any]] = {}
    rest = b""
    for number, line in enumerate(lines, 1):
        if not line.endswith(b"\n"):
            rest = line
            break
        try:
            row = _decode(line)
            if isinstance(row, RecordedStep):
                if row.number != len(steps):
                    raise ValueError(f"step {row.number} is out of order")
                steps.append(row)
            elif isinstance(row, WindowEdge):
                if edges and not (row.steps > edges[-1].steps and row.instant_s > edges[-1].instant_s):
                    raise ValueError("this window has no step or no duration")
                if row.steps > len(steps):
                    raise ValueError(f"{row.steps} steps are said to be done, {len(steps)} are recorded")
                edges.append(row)
            elif isinstance(row, CpuLoad):
                loads.append(row)
            elif row["kind"] == "phase":
                phases.append((str(row["name"]), float(row["instant_s"])))
            elif row["kind"] in _UNTIMED_KINDS:
                untimed.append(row)
            else:
                once[row["kind"]] = row
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            why = f"no field {error}" if isinstance(error, KeyError) else str(error)
            raise _bad_store(path, number, why) from error
    facts = once.get("facts", {})
    found = RankRecords(
        rank=rank,
        data_rank=_data_rank(path, rank, facts, assignment),
        started_s=once["start"]["instant_s"] if "start" in once else None,
        phases=tuple(phases),
        facts=facts,
        peak=once.get("peak"),
        steps=tuple(steps),
        edges=tuple(edges),
        loads=tuple(loads),
        untimed_records=tuple(untimed),
        end=once.get("end"),
    )
    return found, 1 if rest else 0


def _data_rank(path: Path, rank: int, facts: Mapping[str, Any], assignment: Assignment) -> int:
    if "data_rank" in facts:
        return int(facts["data_rank"])
    if assignment.data_ranks == 1:
        return 0
    if assignment.data_ranks == assignment.processes or not facts:
        return rank
    raise _bad_store(path, None, "its facts do not say which data rank it is, so its tokens cannot be summed")


def _decode(line: bytes) -> RecordedStep | WindowEdge | CpuLoad | dict[str, Any]:
    """Decode one record; ValueError, KeyError or TypeError if it is not one, or lacks a field."""
    try:
        return _STREAMED.decode(line)
    except msgspec.MsgspecError:
        # Another kind of record, or a number that is not finite, which is written as a string.
        row = read_record(line)
    if row["kind"] not in _STREAMED_KINDS:
        return row
    found: RecordedStep | WindowEdge | CpuLoad = msgspec.convert(row, RecordedStep | WindowEdge | CpuLoad, strict=False)
    return found


def _bad_store(path: Path, line: int | None, why: str) -> BadStore:
    return BadStore(
        what=f"{path}{'' if line is None else f', line {line}'} cannot be read",
        why=why,
        next=f"move {path.parent} away, or restore it from where it was copied",
    )
