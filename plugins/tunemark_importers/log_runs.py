"""Collects the step lines and facts of each run in a log into claims.

If a launcher prints every rank, each step appears many times: the first rank seen is kept, the others are counted in a
note. A step number that falls back to the beginning starts another run; one that falls back less belongs to the same,
resumed run.
"""

from __future__ import annotations

import array
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tunemark.plugin.claims import (
    Claim,
    ClaimScope,
    CountedTokens,
    FigureQuantity,
    LoggedStep,
    LoggedSteps,
    LogLine,
    NamedFigure,
)
from tunemark_importers.json_documents import pop_layout
from tunemark_importers.line_prefixes import Prefix

Differing = Literal["unknown", "first", "largest"]
"""Which value is kept of a fact that is stated twice with different values."""

# Limits that bound the memory used for malformed logs.
_MAX_RUNS = 64
_MAX_NOTES = 100
_MAX_RANKS = 4096
_MAX_FACTS = 1000
_MAX_FIGURES = 64
# Of the values of one name, so many are kept; then every second is dropped, as of the steps.
_KEPT_VALUES = 20_000
_DAY_S = 86400.0
_STAMP = LoggedStep._fields.index("stamp_s")


class FigureValues:
    """The values of one name, in bounded memory."""

    def __init__(self, figure: NamedFigure) -> None:
        self.figure = figure
        self._values = array.array("d")
        self._stride = 1
        self._seen = 0

    def add(self, value: float) -> None:
        if self._seen % self._stride == 0:
            self._values.append(value)
            if len(self._values) > _KEPT_VALUES:
                self._values = self._values[::2]
                self._stride *= 2
        self._seen += 1

    def summary(self) -> NamedFigure:
        """The figure with the median of its values, the first left out where there are more, as of every rate."""
        values = self._values[1:] if len(self._values) > 1 else self._values
        return replace(
            self.figure, value=statistics.median(values), lowest=min(values), highest=max(values), lines=self._seen
        )


@dataclass(slots=True)
class _LogRun:
    steps: LoggedSteps = field(default_factory=LoggedSteps)
    facts: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    figures: dict[tuple[str, FigureQuantity], FigureValues] = field(default_factory=dict)
    rank: str | None = None
    others: dict[str, int] = field(default_factory=dict)
    repeated: int = 0
    is_ended: bool = False
    first: float | None = None
    last: float | None = None
    before: float | None = None
    first_epoch: float | None = None
    last_epoch: float | None = None
    text: str = ""
    clock: str | None = None
    stamp_s: float | None = None
    days: int = 0

    def add_fact(self, name: str, value: Any, words: str, place: str, differing: Differing = "unknown") -> None:
        where = f"{words.strip()[:120]!r}, {place}"
        if name not in self.facts or (differing == "largest" and self.facts[name] < value):
            self.facts[name] = value
            self.origin[name] = where
        elif differing == "unknown" and self.facts[name] not in (value, None):
            self.note(f"{name} is stated twice, differently, and left unknown: {self.origin.pop(name)}; {where}")
            self.facts[name] = None

    def note(self, text: str) -> None:
        if text not in self.notes and len(self.notes) < _MAX_NOTES:
            self.notes.append(text)

    def stamp(self, prefix: Prefix, elapsed_s: float | None) -> float | None:
        """The line's time stamp in seconds, of the same kind as the run's first: a date, a time of day, continued
        after midnight, or seconds since the start, until that clock is reset."""
        if prefix.stamp_s is not None:
            clock, value = ("date" if prefix.is_dated else "day"), prefix.stamp_s + self.days * _DAY_S
        elif elapsed_s is not None and math.isfinite(elapsed_s):
            clock, value = "elapsed", elapsed_s
        else:
            return None
        self.clock = self.clock or clock
        if clock != self.clock:
            return None
        if self.stamp_s is not None and clock == "day" and value < self.stamp_s - _DAY_S / 2:
            self.days += 1
            value += _DAY_S
        if self.stamp_s is not None and clock == "elapsed" and value < self.stamp_s:
            self.note("the seconds since the start begin again: a resumed run; they are not used from here on")
            self.clock = "none"
            return None
        self.stamp_s = value
        return value

    def restarts_at(self, step: LoggedStep) -> bool:
        """Whether the step is at or before the run's first one, though the run was beyond that."""
        if step.number is not None and self.first is not None and self.last is not None:
            return step.number <= self.first and step.number < self.last
        if step.number is None and step.epoch is not None and self.first_epoch is not None:
            return step.epoch <= self.first_epoch and step.epoch < (self.last_epoch or 0.0)
        return False


def _format_line(number: int) -> str:
    return f"line {number}"


class LogRuns:
    """The runs of one tool's log. counts, scope, meaning, rate_name: of its figure, and samples_scope: of its sequences
    per second, flops_scope: of its TFLOP/s, unless a fact of that name overrides them. place: formats a line number."""

    def __init__(
        self,
        *,
        tool: str,
        meaning: str,
        counts: CountedTokens | None,
        scope: ClaimScope,
        place: Callable[[int], str] = _format_line,
        samples_scope: ClaimScope = "job",
        flops_scope: ClaimScope = "device",
        rate_name: str | None = None,
    ) -> None:
        self.place = place
        self._common: dict[str, Any] = {
            "tool": tool, "meaning": meaning, "counts": counts, "scope": scope, "samples_scope": samples_scope,
            "flops_scope": flops_scope, "rate_name": rate_name,
        }  # fmt: skip
        self._runs: list[_LogRun] = []
        self._header: dict[tuple[str, str], tuple[str, Any, str, int, Differing]] = {}
        self._header_notes: list[str] = []
        self._excess = 0

    @property
    def is_known(self) -> bool:
        """Whether a step or a final figure was seen, which shows that the log is this tool's."""
        return bool(self._runs)

    @property
    def last_number(self) -> float | None:
        """The number of the last step that was kept."""
        return self._runs[-1].last if self._runs else None

    def add_fact(
        self, name: str, value: Any, words: str, line: int, *, final: bool = False, differing: Differing = "unknown"
    ) -> None:
        """Add a fact under the name of a field of `Claim` or `Layout`. words: the text in that line. A fact belongs to
        the steps that follow, a final one to those before. A value that is nan or infinite becomes a note."""
        if isinstance(value, float) and not math.isfinite(value):
            self.note(f"{name} is {value} as stated: {words.strip()[:120]!r}, {self.place(line)}", final=final)
        elif final:
            self._apply_header(self._current())
            self._current().add_fact(name, value, words, self.place(line), differing)
        elif len(self._header) < _MAX_FACTS:
            self._header.setdefault((name, repr(value)), (name, value, words, line, differing))

    def add_figure(self, figure: NamedFigure) -> None:
        """Add a value that one line prints beside the claimed rate; values of one name and quantity make one figure of
        the run. Values that are nan or infinite are left out."""
        if not math.isfinite(figure.value):
            return
        run = self._current()
        key = (figure.name, figure.quantity)
        if key not in run.figures and len(run.figures) < _MAX_FIGURES:
            run.figures[key] = FigureValues(figure)
        if key in run.figures:
            run.figures[key].add(figure.value)

    def note(self, text: str, *, final: bool = False) -> None:
        """Add a note to the run that a fact added here would belong to."""
        if final:
            self._current().note(text)
        elif len(self._header_notes) < _MAX_NOTES:
            self._header_notes.append(text)

    def end(self) -> None:
        """End the run: what follows belongs to the next."""
        if self._runs:
            self._runs[-1].is_ended = True

    def add(self, prefix: Prefix, line: LogLine, step: LoggedStep, elapsed_s: float | None = None) -> bool:
        """Append a step with its line, time stamp and arrival. Returns False if another rank or line had the same step.

        elapsed_s: seconds since the start, as printed; used if lines have no other time stamp.
        """
        run = self._runs[-1] if self._runs else None
        if self._excess:
            self._excess += 1
            return False
        if run and len(run.steps):
            if prefix.rank != run.rank:
                label = "no label" if prefix.rank is None else prefix.rank
                if label in run.others or len(run.others) < _MAX_RANKS:
                    run.others[label] = run.others.get(label, 0) + 1
                return False
            if step.number is None:
                is_repeated = prefix.text == run.text
            else:
                is_repeated = step.number == run.last or (run.repeated > 0 and step.number == run.before)
            if is_repeated and not run.is_ended:
                run.repeated += 1
                return False
            if run.is_ended or run.restarts_at(step):
                if len(self._runs) >= _MAX_RUNS:
                    self._excess += 1
                    return False
                run = None
        if run is None or (run.is_ended and not len(run.steps)):
            self._runs.append(run := _LogRun())
        self._apply_header(run)
        if not len(run.steps):
            run.rank = prefix.rank
        # As `_replace` does, in a third of its time.
        stamp_s = run.stamp(prefix, elapsed_s)
        run.steps.add(LoggedStep._make((line.number, *step[1:_STAMP], stamp_s, line.arrived_s, *step[_STAMP + 2 :])))
        if step.number is not None:
            run.first = step.number if run.first is None else run.first
            run.before, run.last = run.last, step.number
        else:
            run.text = prefix.text
        if step.epoch is not None:
            run.first_epoch = step.epoch if run.first_epoch is None else run.first_epoch
            run.last_epoch = step.epoch
        return True

    def claims(self) -> Sequence[Claim]:
        """One claim per run."""
        if self._runs:
            self._apply_header(self._runs[-1])
            if self._excess:
                self._runs[-1].note(f"{self._excess:,} step lines of runs beyond the first {_MAX_RUNS} are left out")
        return [self._claim(run) for run in self._runs]

    def _current(self) -> _LogRun:
        if not self._runs:
            self._runs.append(_LogRun())
        return self._runs[-1]

    def _apply_header(self, run: _LogRun) -> None:
        for name, value, words, line, differing in self._header.values():
            run.add_fact(name, value, words, self.place(line), differing)
        for text in self._header_notes:
            run.note(text)
        self._header.clear()
        self._header_notes.clear()

    def _claim(self, run: _LogRun) -> Claim:
        facts = {**self._common, **run.facts}
        layout = pop_layout(facts)
        notes = list(run.notes)
        if run.others:
            names = ", ".join(list(run.others)[:8]) + (", ..." if len(run.others) > 8 else "")
            kept = f"rank {run.rank}" if run.rank is not None else "those without a label"
            notes.append(f"{sum(run.others.values()):,} step lines of other ranks ({names}) are left out, {kept} kept")
        if run.repeated:
            notes.append(f"{run.repeated:,} lines repeat a step and are left out")
        return Claim(
            id="",
            source="",
            steps=run.steps,
            figures=tuple(values.summary() for values in run.figures.values()),
            layout=layout,
            origin=run.origin,
            notes=tuple(notes),
            **facts,
        )
