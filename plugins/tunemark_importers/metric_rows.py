"""Claims from metrics that a tracker keeps by name, step and time, whatever file they come from.

Each step becomes one line of names and values, and these are read like any program's log: the names say what a figure
is, and what only all rows can tell is decided from them. So a metric of a tracker means what the same words in a log
mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tunemark.plugin.claims import Claim, LogLine
from tunemark_importers.figure_names import meaning_of
from tunemark_importers.generic_log import GenericLogReader
from tunemark_importers.numbers import parse_number

# What one line can hold; a run with more metrics of a known meaning keeps those that come first.
_MAX_METRICS = 40
_UNUSED = ("other", "speed", "padding")
_EARLIEST_S = 1e9
"""Seconds since 1970 of September 2001; smaller times are no dates."""


@dataclass(slots=True)
class MetricRow:
    """What was recorded at one step. line: the row's place in the file. step: None where the file has one row per run.
    stamp_s: seconds since 1970. values: as written, by name."""

    line: int
    step: float | None = None
    stamp_s: float | None = None
    values: dict[str, str] = field(default_factory=dict)


def is_metric(name: str) -> bool:
    """Whether the name of a metric says that it is of use here."""
    meaning = meaning_of(name)
    return meaning is not None and meaning.quantity not in _UNUSED


def is_rate(name: str) -> bool:
    """Whether a metric by itself, or with a batch, gives a rate."""
    meaning = meaning_of(name)
    kinds = ("tokens_per_s", "samples_per_s", "steps_per_s", "duration", "tflops", "mfu")
    return meaning is not None and meaning.is_training and meaning.quantity in kinds


def read_seconds(text: str) -> float | None:
    """Seconds since 1970 of a time that is written in seconds or milliseconds; None for anything else."""
    value = parse_number(text)
    if value is None or not math.isfinite(value):
        return None
    value = value / 1000 if value > 1000 * _EARLIEST_S else value
    return value if value > _EARLIEST_S else None


def group_by_step(found: Iterable[tuple[int, float | None, float | None, str, str]]) -> Sequence[MetricRow]:
    """One row per step from (line, step, time stamp, name, value as written), in the order of their steps."""
    rows: dict[float | None, MetricRow] = {}
    for line, step, stamp_s, name, value in found:
        row = rows.setdefault(step, MetricRow(line, step, stamp_s))
        row.values.setdefault(name, value)
    return sorted(rows.values(), key=lambda row: (row.step is not None, row.step or 0.0))


def claims_of_rows(rows: Sequence[MetricRow], *, id: str, source: str, tool: str, meaning: str) -> Sequence[Claim]:
    """The claims of one run's rows; none where no metric is a figure of a training."""
    reader = GenericLogReader()
    kept: dict[str, bool] = {}
    for row in rows:
        pairs = []
        for name, value in row.values.items():
            if name not in kept:
                kept[name] = is_metric(name) and sum(kept.values()) < _MAX_METRICS
            number = parse_number(value) if kept[name] else None
            if number is not None and math.isfinite(number):
                pairs.append(f'"{_quoted(name)}": {value.strip()}')
        if not pairs:
            continue
        if row.step is not None:
            pairs.insert(0, f'"step": {row.step:.15g}')
        stamp = f"{row.stamp_s:.6f} " if row.stamp_s is not None and row.stamp_s < 2 * _EARLIEST_S else ""
        reader.read(LogLine(row.line, f"{stamp}{{{', '.join(pairs)}}}"))
    return [
        replace(claim, id=id, source=source, tool=tool, meaning=meaning)
        for claim in reader.claims()
        if len(claim.steps)
    ]


def _quoted(name: str) -> str:
    return name.replace('"', "'").replace("\n", " ")[:120]


def value_texts(values: Mapping[str, object]) -> dict[str, str]:
    """Numbers of a JSON object as they are written; everything else is left out."""
    return {
        name: repr(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
