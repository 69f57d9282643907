"""Adds the dictionaries of losses that Hugging Face's Trainer prints to a run, each by the dialect that its names tell.

A rate that a user's callback adds to them is read by the words of its name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tunemark.plugin.claims import LogLine
from tunemark.plugin.log_formats import FigureDescription, FormatDescription
from tunemark_importers.described_log import LogRecord, RecordKeeper, read_value
from tunemark_importers.figure_names import meaning_of
from tunemark_importers.huggingface_formats import DIALECTS, SUMMARY, TRAINER
from tunemark_importers.line_prefixes import Prefix
from tunemark_importers.log_runs import LogRuns
from tunemark_importers.numbers import parse_number

_STEP_OF = "global_step/max_steps"


def is_step(found: Mapping[str, Any]) -> bool:
    """Whether a dictionary is a line of losses: the Trainer's has the learning rate and the epoch, too."""
    return "loss" in found and "epoch" in found and ("learning_rate" in found or _STEP_OF in found)


def parse_figure(value: Any) -> float | None:
    """A JSON number, or the number in a JSON string."""
    if isinstance(value, str):
        return parse_number(value)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


class TrainerSteps:
    """The lines of losses of one log."""

    def __init__(self, runs: LogRuns) -> None:
        self._runs = runs
        self._keepers: dict[tuple[str, ...], tuple[FormatDescription, RecordKeeper]] = {}

    def add(
        self,
        found: Mapping[str, Any],
        prefix: Prefix,
        line: LogLine,
        *,
        has_numbers: bool,
        bar_s: float | None = None,
    ) -> bool:
        """Add a dictionary as a step; False if a figure in it cannot be read. has_numbers: whether it has the number of
        its step; without one the progress bar is the clock, not the seconds in the line. bar_s: of that bar."""
        format, keeper = self._dialect(found)
        record = LogRecord(prefix, line)
        if bar_s is not None:
            record.groups["elapsed"] = bar_s
        for figure in format.figures:
            if figure.name not in found or (figure.quantity == "elapsed" and not has_numbers and figure.unit == "s"):
                continue
            printed = found[figure.name]
            if figure.name == _STEP_OF:
                printed, _, total = str(printed).partition("/")
                if (planned := parse_number(total)) is not None and math.isfinite(planned):
                    record.groups["steps_total"] = planned
            value = read_value(printed, figure.unit) if isinstance(printed, str) else parse_figure(printed)
            if value is None or (figure.quantity in ("step", "epoch") and not math.isfinite(value)):
                return False
            record.found[figure.name] = (value, f"'{figure.name}': {found[figure.name]}", line.number)
        self._add_meaning(format, found, line.number)
        return keeper.add(record)

    def _dialect(self, found: Mapping[str, Any]) -> tuple[FormatDescription, RecordKeeper]:
        format = next((one for one in DIALECTS if all(name in found for name in one.requires)), TRAINER)
        known = {figure.name for figure in format.figures}
        others = [name for name in found if isinstance(name, str) and name not in known]
        added = [figure for name in others if (figure := _figure_of(name)) is not None]
        key = (format.name, *(figure.name for figure in added))
        if key not in self._keepers:
            format = replace(format, figures=(*format.figures, *added))
            self._keepers[key] = (format, RecordKeeper(format, self._runs))
        return self._keepers[key]

    def _add_meaning(self, format: FormatDescription, found: Mapping[str, Any], line: int) -> None:
        """Record what the rates in the lines count, once."""
        if format.name != TRAINER.name:
            self._runs.add_fact("tool", format.name, format.title, line, differing="first")
            self._runs.add_fact("meaning", format.meaning, format.title, line, differing="first")
        elif "train_tokens_per_second" in found:
            self._runs.add_fact("meaning", format.meaning, "train_tokens_per_second", line, differing="first")
        elif any(figure.quantity == "tokens_per_s" for figure in format.figures[len(TRAINER.figures) :]):
            meaning = f"The rate in a line is a user's, by its name alone. {SUMMARY}"
            self._runs.add_fact("meaning", meaning, "a rate in the line", line, differing="first")


def _figure_of(name: str) -> FigureDescription | None:
    """What a user's own figure is, if its name says that it is a rate of the training."""
    meaning = meaning_of(name)
    if meaning is None or not meaning.is_training or meaning.scale != 1.0:
        return None
    if meaning.quantity not in ("tokens_per_s", "samples_per_s", "tflops"):
        return None
    scope = None if meaning.scope == "unknown" else meaning.scope
    return FigureDescription(name, meaning.quantity, "", scope, meaning.counts)
