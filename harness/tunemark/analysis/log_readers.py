"""Offers each line of a log to the readers of all importers, and decides at the end whose reading counts.

A reader has understood a log only if a figure came out of it. So lines that several recognize belong to the one that
found a rate in them, else to the one that found a time; a reader of any program's lines comes last.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from tunemark.plugin.catalog import load_object
from tunemark.plugin.claims import Claim, EventKind, LogEvent, LogLine, LogReader
from tunemark.plugin.descriptors import Importer

# A reader that has understood nothing so far is no longer asked about lines that it has rejected so often, digits
# aside: most lines of a long log are of few kinds, and most readers are of other programs.
_REJECTIONS = 50
_MAX_SHAPES = 4096
_SHAPE_CHARACTERS = 200
_MAX_EVENTS = 50
_DIGITS = re.compile(r"[0-9]+")
_TO_ZERO = str.maketrans("123456789", "000000000")
# Lines of one kind whose numbers have other lengths: so many forms are remembered.
_MAX_FORMS = 1 << 14
# A reader of any program's lines need not read what another has read that long, and found a rate in.
_ENOUGH_LINES = 2000

_FAILURES: Sequence[tuple[EventKind, re.Pattern[str]]] = (
    ("out-of-memory", re.compile(r"out of memory|OutOfMemory|RESOURCE_EXHAUSTED|\boom-kill|\bOOM[- ]?[Kk]ill", re.I)),
    (
        "communication",
        re.compile(
            r"Watchdog caught collective|collective operation timeout|(?:NCCL|RCCL|HCCL|oneCCL|gloo)\b[^|]*"
            r"\b(?:error|timeout|timed out|abort)|ncclSystemError|ncclUnhandledCudaError|ncclRemoteError"
            r"|DistBackendError|Connection reset by peer",
            re.I,
        ),
    ),
    (
        "killed",
        re.compile(
            r"DUE TO (?:TIME LIMIT|PREEMPTION)|\bCANCELLED AT\b|\bSIGKILL\b|\bSIGTERM\b|\bSignal (?:9|15)\b"
            r"|exitcode\s*:\s*-9|^Killed$|\bKilled\s+python"
        ),
    ),
    (
        "error",
        re.compile(
            r"^(?:\[rank[0-9]+\]:\s*)?Traceback \(most recent call last\)|CUDA error:|Segmentation fault"
            r"|^(?:\w+\.)*\w*Error:"
        ),
    ),
)  # fmt: skip
# Every line of a failure contains one of these; testing for them is cheap.
_FAILURE_MARKS = (
    "emory", "MEMORY", "OOM", "oom", "XHAUSTED", "imeout", "timed out", "rror", "ERROR", "bort", "SIG", "Signal",
    "Killed", "CANCELLED", "DUE TO", "Traceback", "exitcode", "fault", "reset by peer", "atchdog",
)  # fmt: skip


# Of a longer log one stretch of lines in so many is read, as `LoggedSteps` keeps a part of its steps.
_READ_WHOLE = 200_000
_STRETCH = 4096
_SHARE = 16


class _Grade(IntEnum):
    """What came out of a reading, from which a rate can be derived, at best."""

    NOTHING = 0
    CLOCK = 1
    TIME = 2
    RATE = 3


@dataclass(slots=True)
class _AskedReader:
    importer: Importer
    reader: LogReader
    lines: int = 0


@dataclass(slots=True)
class _LineKind:
    """All lines that are the same but for their digits.

    asked: the places of the readers that are still offered them. spared: those that read such lines too, and are not
    offered them any more, as bits. taken: those that read the last one, as bits. is_plain: whether
    the next one may be skipped; skipped: how many were. may_fail: whether they may tell of a failure.
    """

    asked: Sequence[int]
    may_fail: bool
    spared: int = 0
    skipped: int = 0
    count: int = 0
    taken: int = 0
    is_plain: bool = False


class LogReading:
    """The reading of one log. importers: those that read logs, asked by their priority. read_whole: of the lines beyond
    so many a part is read."""

    def __init__(self, importers: Sequence[Importer], *, read_whole: int = _READ_WHOLE) -> None:
        self._read_whole = read_whole
        self._readers = [_AskedReader(i, load_object(i.log)()) for i in importers if i.log]
        # By the digits-free shape of a line.
        self._kinds: dict[str, _LineKind] = {}
        # The same by the line with all its digits as 0, which is found faster.
        self._forms: dict[str, _LineKind] = {}
        self._skipped = 0
        # By the set of readers that understood a line, as bits: how many lines, and the first of them.
        self._counts: dict[int, int] = defaultdict(int)
        self._firsts: dict[int, tuple[int, str]] = {}
        self._events: list[LogEvent] = []
        self.lines = 0

    def read(self, line: LogLine) -> None:
        """Offer a line that is not blank to the readers."""
        self.lines += 1
        text = line.text
        form = text if len(text) <= _SHAPE_CHARACTERS else text[:_SHAPE_CHARACTERS]
        form = form.translate(_TO_ZERO)
        kind = self._forms.get(form)
        if kind is None:
            kind = self._find_kind(form)
        elif (
            kind.is_plain
            and self.lines > self._read_whole
            and self.lines // _STRETCH % _SHARE
            and len(text) <= _SHAPE_CHARACTERS
        ):
            # One of many lines like those that were read: of so long a log every reader keeps a part only.
            kind.skipped += 1
            return
        taken = kind.spared
        for at in kind.asked:
            one = self._readers[at]
            if one.reader.read(line):
                if not one.lines:
                    # Whoever has begun to understand is asked about all lines.
                    self._forget(kind, form)
                one.lines += 1
                taken |= 1 << at
        is_failure = (kind.may_fail or len(text) > _SHAPE_CHARACTERS) and self._note_failure(line)
        kind.count += 1
        if kind.count > _REJECTIONS:
            if kind.count == _REJECTIONS + 1:
                kind.asked = tuple(at for at in kind.asked if self._readers[at].lines)
            kind.is_plain = taken == kind.taken and not is_failure and len(text) <= _SHAPE_CHARACTERS
            if kind.count == _ENOUGH_LINES:
                self._spare(kind, taken)
        kind.taken = taken
        self._counts[taken] += 1
        if taken not in self._firsts:
            self._firsts[taken] = (line.number, text)

    def _find_kind(self, form: str) -> _LineKind:
        shape = _DIGITS.sub("0", form)
        kind = self._kinds.get(shape)
        if kind is None:
            if len(self._kinds) >= _MAX_SHAPES:
                self._forget()
            may_fail = any(mark in shape for mark in _FAILURE_MARKS)
            kind = self._kinds[shape] = _LineKind(range(len(self._readers)), may_fail)
        if len(self._forms) >= _MAX_FORMS:
            self._forms.clear()
        self._forms[form] = kind
        return kind

    def _forget(self, kind: _LineKind | None = None, form: str = "") -> None:
        """Forget all kinds of lines but one."""
        self._count_skipped()
        self._kinds.clear()
        self._forms.clear()
        if kind is not None:
            self._kinds[_DIGITS.sub("0", form)] = self._forms[form] = kind

    def _spare(self, kind: _LineKind, taken: int) -> None:
        """Let only the reader of highest priority among those that read such lines read them from here on, if it finds
        a rate or a time in them."""
        takers = [at for at in kind.asked if taken >> at & 1]
        takers.sort(key=lambda at: -self._readers[at].importer.priority)
        priorities = [self._readers[at].importer.priority for at in takers]
        if len(takers) < 2 or priorities[0] == priorities[1]:
            return
        claims = self._readers[takers[0]].reader.claims()
        if max(map(_grade, claims), default=_Grade.NOTHING) >= _Grade.TIME:
            kind.spared = sum(1 << at for at in takers[1:])
            kind.asked = tuple(at for at in kind.asked if at not in takers[1:])

    def _count_skipped(self) -> None:
        """Add what was skipped of each kind to what was read."""
        for kind in self._kinds.values():
            if kind.skipped:
                for at, one in enumerate(self._readers):
                    one.lines += kind.skipped * (kind.taken >> at & 1)
                self._counts[kind.taken] += kind.skipped
                self._skipped += kind.skipped
                kind.skipped = 0

    def claims(self) -> tuple[list[tuple[str, Claim]], int, tuple[int, str] | None]:
        """The claims so far with their importers' names; how many lines these understood; the first one that they did
        not understand."""
        self._count_skipped()
        chosen = self._choose()
        bits = sum(1 << at for at, _ in chosen)
        understood = sum(count for taken, count in self._counts.items() if taken & bits)
        unknown = min((first for taken, first in self._firsts.items() if not taken & bits), default=None)
        named = [(self._readers[at].importer.name, claim) for at, claims in chosen for claim in claims]
        if self._skipped:
            first = f"of the lines beyond the first {self._read_whole:,}"
            text = f"{first} one stretch in {_SHARE} is read, and all that are not like those before"
            named = [(name, replace(claim, notes=(*claim.notes, text))) for name, claim in named]
        return self._add_events(named), understood, unknown

    def _choose(self) -> list[tuple[int, Sequence[Claim]]]:
        """The readers whose claims count, in the order of `_readers`."""
        graded = []
        for at, one in enumerate(self._readers):
            claims = one.reader.claims() if one.lines else ()
            if claims:
                grade = max(_grade(claim) for claim in claims)
                order = (grade >= _Grade.TIME, one.importer.priority, grade, one.lines)
                graded.append((order, grade, at, claims))
        graded.sort(key=lambda found: found[0], reverse=True)
        chosen: list[tuple[int, Sequence[Claim]]] = []
        bits = 0
        for _, grade, at, claims in graded:
            shared = sum(count for taken, count in self._counts.items() if taken >> at & 1 and taken & bits)
            if chosen and (grade < _Grade.TIME or 2 * shared > self._readers[at].lines):
                continue
            chosen.append((at, claims))
            bits |= 1 << at
        return sorted(chosen, key=lambda found: found[0])

    def _note_failure(self, line: LogLine) -> bool:
        """Keep the line if it tells of a failure; whether it does."""
        if len(self._events) < _MAX_EVENTS and any(mark in line.text for mark in _FAILURE_MARKS):
            text = line.text[:1000]
            for kind, pattern in _FAILURES:
                if pattern.search(text):
                    self._events.append(LogEvent(line.number, kind, text.strip()[:200]))
                    return True
        return False

    def _add_events(self, named: Sequence[tuple[str, Claim]]) -> list[tuple[str, Claim]]:
        """Each failure belongs to the run whose steps stand last before it."""
        begins = [next(iter(claim.steps)).line if len(claim.steps) else 0 for _, claim in named]
        found: dict[int, list[LogEvent]] = defaultdict(list)
        for event in self._events:
            before = [at for at, line in enumerate(begins) if line <= event.line]
            if named:
                found[max(before, key=lambda at: begins[at]) if before else 0].append(event)
        return [(name, replace(claim, events=tuple(found[at]))) for at, (name, claim) in enumerate(named)]


def _grade(claim: Claim) -> _Grade:
    def is_printed(*fields: str) -> bool:
        return any(
            value is not None and math.isfinite(value) for field in fields for value in claim.steps.column(field)
        )

    if claim.tokens_per_s or claim.tokens_per_s_per_device or is_printed("tokens_per_s"):
        return _Grade.RATE
    stated = (claim.samples_per_s, claim.step_time_s, claim.tflops_per_device, claim.mfu, claim.train_s)
    if any(stated) or is_printed("samples_per_s", "duration_s", "tflops", "mfu"):
        return _Grade.TIME
    stamps = {value for field in ("stamp_s", "arrived_s") for value in claim.steps.column(field) if value is not None}
    return _Grade.CLOCK if len(stamps) > 1 else _Grade.NOTHING
