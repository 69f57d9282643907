"""Reads the logs of any program by its description: where a record begins, and the names, units and meaning of its
figures. Nothing here knows a program; see `FormatDescription`.

A line is only read if it begins as described, has every required figure, and each described figure in it can be read
as one number with its unit. Otherwise it is nobody's of this format: a line that was cut off, or of another version.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunemark.plugin.claims import Claim, FigureQuantity, LoggedStep, LogLine, NamedFigure
from tunemark.plugin.log_formats import FigureDescription, FormatDescription, Quantity
from tunemark_importers.line_prefixes import MAX_LINE, Prefix, strip_prefixes
from tunemark_importers.log_runs import Differing, LogRuns
from tunemark_importers.numbers import FIGURE, multiply_exactly, parse_clock, parse_count, parse_number, parse_seconds

# A block that has not ended after so many lines was cut off.
_MAX_BLOCK_LINES = 400

# What may stand behind a value of this unit. A value with any other unit is not read.
_SUFFIXES = {
    "": "",
    "s": r"\s?(?:s|secs?|seconds?)?",
    "ms": r"\s?(?:ms|msec|milliseconds)?",
    "min": r"\s?(?:m|min|minutes)?",
    "%": r"\s?%?",
    "TFLOP/s": r"\s?(?:TFLOP/?s|TFLOPS|TFLOPs/s|TFLOPS/GPU|TFLOP/s/GPU)?",
    "FLOP/s": r"\s?(?:FLOP/?s|FLOPS)?",
    "FLOPS": r"\s?(?P<scale>[KMGTPE]?)FLOPS?",
    "B": r"\s?(?:B|bytes)?",
    "MiB": r"\s?(?:MiB|MB)?",
    "GiB": r"\s?(?:GiB|GB)?",
    "GB": r"\s?(?:GB)?",
    "10^9": "",
    "K": r"\s?(?P<scale>[KMGBT]?)",
    "Kms": r"\s?(?P<scale>[KMGBT]?)",
    "time": r"\s?(?P<scale>us|ms|s|min)",
}
_SCALES = {
    "ms": 1e-3,
    "min": 60.0,
    "%": 0.01,
    "FLOP/s": 1e-12,
    "MiB": 2.0**20,
    "GiB": 2.0**30,
    "GB": 1e9,
    "10^9": 1e9,
}
_FLOPS_SCALES = {"": 1e-12, "K": 1e-9, "M": 1e-6, "G": 1e-3, "T": 1.0, "P": 1e3, "E": 1e6}
_CLOCK = r"(?:[0-9]{1,6} days?, )?(?:[0-9]{1,9}:)?[0-5]?[0-9]:[0-5][0-9](?:[.,][0-9]+)?"
_WORDS = re.compile(r"(?:([0-9]+)d)?\s*(?:([0-9]+)h)?\s*(?:([0-9]+)m)?\s*(?:([0-9]+)s)?")
_WORD_FACTS = ("model", "device", "method", "precision")
_TOKEN_RATE = re.compile(r"\btok(?:en)?s?\s?(?:/|per\b|_per_)|\btps\b|\btgs\b", re.I)
# No letter or digit follows a value, and no second number that is joined to it by a point.
_END = r"(?![\w])(?!\.\w)"

_STEP_FIELDS: Mapping[Quantity, str] = {
    "step": "number", "epoch": "epoch", "loss": "loss", "step_time": "duration_s", "tokens": "tokens", "mfu": "mfu",
    "samples": "samples", "step_tokens": "step_tokens", "gradient_norm": "gradient_norm",
    "tokens_per_s": "tokens_per_s", "samples_per_s": "samples_per_s", "tflops": "tflops",
}  # fmt: skip
# What is kept beside the claimed figure, under its own name.
_NAMED: Mapping[Quantity, FigureQuantity] = {
    "tokens_per_s": "tokens_per_s", "samples_per_s": "samples_per_s", "steps_per_s": "steps_per_s",
    "step_time": "step_time_s", "tflops": "tflops", "mfu": "mfu",
}  # fmt: skip
_FACTS: Mapping[Quantity, tuple[str, Differing]] = {
    "steps_total": ("steps_total", "largest"),
    "memory": ("memory_bytes", "largest"),
    "train_s": ("train_s", "first"),
    "tokens_total": ("tokens_total", "first"),
    "padding": ("padding_fraction", "first"),
    "parameters": ("parameters", "first"),
    "global_batch": ("global_batch", "unknown"),
    "micro_batch": ("micro_batch", "unknown"),
    "gradient_accumulation": ("gradient_accumulation", "unknown"),
    "sequence": ("sequence", "unknown"),
    "count": ("count", "unknown"),
}
_SIGNED = ("loss", "gradient_norm")
_COUNTS = ("global_batch", "micro_batch", "gradient_accumulation", "sequence", "count")


def read_value(text: str, unit: str, scale: str | None = None) -> float | None:
    """The value in SI base units; rates of operations in TFLOP/s, shares as fractions. None if it cannot be read.

    scale: the letter before or in place of the unit, such as K or T.
    """
    if unit == "clock":
        return parse_clock(text)
    if unit == "words":
        match = _WORDS.fullmatch(text.strip())
        if not match or not any(match.groups()):
            return None
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return days * 86400.0 + hours * 3600.0 + minutes * 60.0 + seconds
    if unit == "time":
        return parse_seconds(text, scale or "")
    if unit in ("K", "Kms"):
        count = parse_count(text, scale or "")
        return count if count is None or unit == "K" else multiply_exactly(count, 1e-3)
    value = parse_number(text)
    factor = _FLOPS_SCALES.get(scale or "") if unit == "FLOPS" else _SCALES.get(unit, 1.0)
    if value is None or factor is None:
        return None
    return value if not math.isfinite(value) or factor == 1.0 else multiply_exactly(value, factor)


def _value_pattern(unit: str) -> str:
    """The value and what may follow it."""
    if unit == "clock":
        return rf"[\"']?(?P<value>{_CLOCK})[\"']?{_END}"
    if unit == "words":
        return rf"[\"']?(?P<value>[0-9][0-9dhms ]*)[\"']?{_END}"
    return rf"(?P<value>{FIGURE}){_SUFFIXES[unit]}{_END}"


@dataclass(frozen=True, slots=True)
class _Finder:
    """Finds one figure in a text. longer: what stands before its name in other names that end with it."""

    figure: FigureDescription
    joint: re.Pattern[str]
    value: re.Pattern[str]
    before: re.Pattern[str] | None
    longer: tuple[str, ...]

    def find(self, text: str) -> tuple[bool, float | None, str]:
        """(whether the name is there, the value or None where it cannot be read, the words)."""
        if self.figure.pattern is not None:
            match = self.value.search(text)
            return match is not None, self._read(match), match[0] if match else ""
        name = self.figure.name
        at = text.find(name)
        while at >= 0:
            if self.before is not None:
                # In a block a name begins its line.
                is_word = self.before.fullmatch(text, 0, at) is not None
            else:
                is_word = at == 0 or not (text[at - 1].isalnum() or text[at - 1] in "_/.-")
            is_word = is_word and not (self.longer and text.endswith(self.longer, 0, at))
            joint = self.joint.match(text, at + len(name)) if is_word else None
            if joint:
                match = self.value.match(text, joint.end())
                return True, self._read(match), text[at : match.end() if match else at + 80]
            at = text.find(name, at + 1)
        return False, None, ""

    def _read(self, match: re.Match[str] | None) -> float | None:
        return read_value(match["value"], self.figure.unit, match.groupdict().get("scale")) if match else None


def _finder(figure: FigureDescription, format: FormatDescription) -> _Finder:
    value = _value_pattern(figure.unit)
    if figure.pattern is not None:
        value = figure.pattern.replace("{}", value.removesuffix(_END))
    before = re.compile(format.before) if format.is_block else None
    names = (one.name for one in format.figures if one.name != figure.name and one.name.endswith(figure.name))
    longer = tuple(name.removesuffix(figure.name) for name in names)
    return _Finder(figure, re.compile(format.joint), re.compile(value), before, longer)


@dataclass(slots=True)
class LogRecord:
    """The figures of one record: of a line, or of a block so far. found: by name the value, words and line. groups:
    by quantity what the record began with. lines: how many followed the first."""

    prefix: Prefix
    line: LogLine
    found: dict[str, tuple[float, str, int]] = field(default_factory=dict)
    groups: dict[str, float] = field(default_factory=dict)
    lines: int = 0


def _value_of(record: LogRecord, claimed: Mapping[Quantity, FigureDescription], quantity: Quantity) -> float | None:
    figure = claimed.get(quantity)
    return record.found[figure.name][0] if figure else record.groups.get(quantity)


class RecordKeeper:
    """Adds the records of one format to the runs of a log. step_tokens: those of every step, where a header says so."""

    def __init__(self, format: FormatDescription, runs: LogRuns) -> None:
        self._format = format
        self._runs = runs
        self._last_number: float | None = None
        self._interval: float | None = None
        # The name of each claimed rate: those of two names are never mixed.
        self._rates: dict[Quantity, str] = {}
        self.step_tokens: float | None = None

    def add(self, record: LogRecord) -> bool:
        """Add the record as a step; False if a required figure is missing."""
        if any(name not in record.found for name in self._format.requires):
            return False
        claimed = self._claimed(record)
        values: dict[str, float | None] = {}
        for quantity, name in _STEP_FIELDS.items():
            values[name] = _value_of(record, claimed, quantity)
        if values["number"] is not None and not math.isfinite(values["number"]):
            return False
        self._add_durations(record, claimed, values)
        if values["step_tokens"] is None:
            values["step_tokens"] = self.step_tokens
        rate = claimed.get("tokens_per_s")
        for quantity in ("step_tokens", "tokens"):
            # A count of other tokens than the rate's is none that the rate could be held to.
            counted = claimed.get(quantity)
            if rate and counted and rate.counts != counted.counts:
                values[quantity] = None
        self._add_facts(record, claimed)
        prefix, line = record.prefix, record.line
        elapsed_s = _value_of(record, claimed, "elapsed")
        if self._format.has_other_work:
            prefix, line, elapsed_s = prefix._replace(stamp_s=None), line._replace(arrived_s=None), None
        if self._runs.add(prefix, line, LoggedStep(line.number, **values), elapsed_s=elapsed_s):
            self._add_named(record, claimed)
        return True

    def _add_durations(
        self, record: LogRecord, claimed: Mapping[Quantity, FigureDescription], values: dict[str, float | None]
    ) -> None:
        """How many steps the printed duration is of: one; one of a step's micro-batches; those since the last line."""
        number, last, iteration = values["number"], self._last_number, _value_of(record, claimed, "iteration")
        self._last_number = number
        since_last = _value_of(record, claimed, "line_time")
        if values["duration_s"] is not None:
            values["duration_steps"] = number / iteration if number and iteration and iteration >= number else 1.0
        elif since_last is not None and number is not None and last is not None and number > last:
            # Where lines are missing, the time is not of all steps since the last one that was read.
            if self._interval in (None, number - last):
                values["duration_s"], values["duration_steps"] = since_last, number - last
            self._interval = self._interval or number - last
        elif since_last is not None and number == 1:
            values["duration_s"], values["duration_steps"] = since_last, 1.0

    def _claimed(self, record: LogRecord) -> Mapping[Quantity, FigureDescription]:
        """Of each quantity, the first described figure of training that the record has; TFLOP/s only of a device."""
        found: dict[Quantity, FigureDescription] = {}
        for figure in self._format.figures:
            if (
                figure.name in record.found
                and figure.is_training
                and (figure.quantity, figure.scope) != ("tflops", "job")
            ):
                is_rate = figure.quantity in ("tokens_per_s", "samples_per_s")
                if is_rate and figure.name != self._rates.setdefault(figure.quantity, figure.name):
                    continue
                found.setdefault(figure.quantity, figure)
        return found

    def _add_named(self, record: LogRecord, claimed: Mapping[Quantity, FigureDescription]) -> None:
        """Keep what is printed beside the claimed figures, each under its own name."""
        for figure in self._format.figures:
            is_claimed = figure.quantity in _STEP_FIELDS and claimed.get(figure.quantity) is figure
            if figure.quantity not in _NAMED or figure.name not in record.found or is_claimed:
                continue
            value, _, line = record.found[figure.name]
            named = NamedFigure(
                name=figure.name, quantity=_NAMED[figure.quantity], value=value, unit=figure.unit,
                scope=figure.scope or "unknown", counts=figure.counts, is_training=figure.is_training,
                place=f"line {line}",
            )  # fmt: skip
            self._runs.add_figure(named)

    def _add_facts(self, record: LogRecord, claimed: Mapping[Quantity, FigureDescription]) -> None:
        line = record.line.number
        rate = claimed.get("tokens_per_s")
        if rate is not None:
            scope = rate.scope or "unknown"
            for name, fact in (("scope", scope), ("counts", rate.counts), ("rate_name", rate.name)):
                if fact:
                    self._runs.add_fact(name, fact, rate.name, line, differing="first")
        if (samples := claimed.get("samples_per_s")) and samples.scope:
            self._runs.add_fact("samples_scope", samples.scope, samples.name, line, differing="first")
            if rate is None and samples.counts:
                self._runs.add_fact("counts", samples.counts, samples.name, line, differing="first")
        for figure in self._format.figures:
            if figure.name in record.found:
                value, words, at = record.found[figure.name]
                self.add_fact(figure.quantity, value, words, at)
        for name, value in record.groups.items():
            self.add_fact(name, value, f"{name} {value:g}", line)

    def add_fact(self, quantity: str, value: float, words: str, line: int) -> None:
        """Add what is stated once of a run, if it is that."""
        known: Any = _FACTS
        if quantity not in known:
            return
        name, differing = known[quantity]
        if quantity in _COUNTS:
            if not value.is_integer() or not 0 < value < 1e15:
                return
            self._runs.add_fact(name, int(value), words, line, differing=differing)
        elif math.isfinite(value) and value > 0:
            self._runs.add_fact(name, value, words, line, differing=differing)


class DescribedLogReader:
    """Reads one log of one format. runs: what was read, for a reader that knows more of its program."""

    def __init__(self, format: FormatDescription) -> None:
        self._format = format
        self._finders = [_finder(figure, format) for figure in format.figures]
        self._begins = re.compile(format.begins)
        self._header = [re.compile(pattern) for pattern in format.header]
        self._others = re.compile(format.others) if format.others else None
        self._is_without_rate = all(figure.quantity != "tokens_per_s" for figure in format.figures)
        self._block: LogRecord | None = None
        self.runs = LogRuns(tool=format.name, meaning=format.meaning, counts=None, scope="job")
        self._keeper = RecordKeeper(format, self.runs)

    def read(self, line: LogLine) -> bool:
        text = line.text
        if len(text) > MAX_LINE:
            return False
        if not any(mark in text for mark in self._format.marks):
            return (self._block is not None and self._add_to_block(text, line)) or self._is_other(text)
        prefix = strip_prefixes(text)
        match = self._begins.match(prefix.text)
        if match and self._format.is_block:
            self._flush_block()
            self._block = self._begin(prefix, line, match)
            if self._block is not None:
                self._read_figures(self._block, prefix.text, line)
            return self._block is not None
        if match:
            if self._is_without_rate and _TOKEN_RATE.search(prefix.text):
                # A fork that prints a rate of its own: whoever reads rates by their names reads it.
                return False
            record = self._begin(prefix, line, match)
            return record is not None and self._read_figures(record, prefix.text, line) and self._keeper.add(record)
        if self._block is not None and self._add_to_block(text, line):
            return True
        return self._read_header(prefix.text, line) or self._is_other(text)

    def claims(self) -> Sequence[Claim]:
        self._flush_block()
        return self.runs.claims() if self.runs.is_known else []

    def _begin(self, prefix: Prefix, line: LogLine, match: re.Match[str]) -> LogRecord | None:
        record = LogRecord(prefix, line)
        for name, text in match.groupdict().items():
            if text is None:
                continue
            value = read_value(text, "clock" if name == "elapsed" else "")
            if value is None or not math.isfinite(value):
                return None
            record.groups[name] = value
        return record

    def _read_figures(self, record: LogRecord, text: str, line: LogLine) -> bool:
        """Add the figures in `text`; False if one of them cannot be read."""
        for finder in self._finders:
            is_there, value, words = finder.find(text)
            if not is_there:
                continue
            if value is None:
                return False
            if value < 0 and finder.figure.quantity not in _SIGNED:
                # No rate, time or count is negative: some programs print so that they do not know it yet.
                continue
            record.found.setdefault(finder.figure.name, (value, words, line.number))
        return True

    def _add_to_block(self, text: str, line: LogLine) -> bool:
        """Read a line in a block: one figure at most, which begins the line."""
        block = self._block
        assert block is not None
        block.lines += 1
        if block.lines > _MAX_BLOCK_LINES:
            self._flush_block()
            return False
        prefix = strip_prefixes(text)
        if prefix.rank != block.prefix.rank:
            return False
        before = len(block.found)
        return self._read_figures(block, prefix.text, line) and len(block.found) > before

    def _is_other(self, text: str) -> bool:
        """Whether the line is this program's, once that is known to be at work, and holds nothing to read."""
        if self._others is None or not (self._block is not None or self.runs.is_known):
            return False
        return self._others.fullmatch(strip_prefixes(text).text) is not None

    def _flush_block(self) -> None:
        if self._block is not None:
            self._keeper.add(self._block)
            self._block = None

    def _read_header(self, text: str, line: LogLine) -> bool:
        for pattern in self._header:
            match = pattern.fullmatch(text)
            if not match:
                continue
            for name, found in match.groupdict().items():
                self._read_group(name, found, match[0], line)
            return True
        return False

    def _read_group(self, name: str, found: str | None, words: str, line: LogLine) -> None:
        if found and name in _WORD_FACTS:
            self.runs.add_fact(name, found[:200], words[:120], line.number, differing="first")
        elif found:
            scale = found[-1] if found[-1] in "KMGBT" else ""
            value = parse_count(found.removesuffix(scale), scale)
            if value is not None and name == "step_tokens":
                self._keeper.step_tokens = value
            elif value is not None:
                self._keeper.add_fact(name, value, words[:120], line.number)
