"""Reads what a training leaves in a notebook: Unsloth's box, the bar of a finished cell, and its table of losses.

Source: github.com/unslothai/unsloth, `unsloth/models/_utils.py` and `unsloth/trainer.py`;
github.com/huggingface/transformers, `src/transformers/utils/notebook.py` (NotebookProgressBar). The bar is overwritten
while it runs, so a notebook keeps one reading of its clock.
"""

from __future__ import annotations

import re

from tunemark.plugin.claims import LoggedStep, LogLine
from tunemark_importers.line_prefixes import Prefix
from tunemark_importers.log_runs import LogRuns
from tunemark_importers.numbers import parse_clock, parse_integer, parse_number

_CLOCK = r"[0-9]{1,9}(?::[0-5][0-9]){1,2}"
_BAR = re.compile(
    rf"\s*\[\s*(?P<at>[0-9]{{1,15}})/(?P<total>[0-9]{{1,15}}) (?P<elapsed>{_CLOCK}) < (?:{_CLOCK}|\?)"
    r"(?:, [0-9.]+ (?:it/s|s/it))?(?:, Epoch [0-9.]+/[0-9.]+)?\]\s*"
)
_HEADER = re.compile(r"\s*\|?\s*Step\s*[\t|]\s*Training Loss\s*(?:[\t|].*)?")
_RULE = re.compile(r"\s*\|?[\s:|-]+\|?\s*")
_ROW = re.compile(r"\s*\|?\s*(?P<step>[0-9]{1,15})\s*[\t|]\s*(?P<loss>[0-9]+\.[0-9]+|[0-9]+)\s*(?:[\t|].*)?")
_BOX = "==((====))=="
_BOX_LINES = 5
_PAIR = re.compile(
    r"(?P<name>[A-Z][A-Za-z ]+?)(?: \([^)]*\))? = (?P<value>[0-9][0-9,]*)(?:(?: of |/)(?P<of>[0-9][0-9,]*))?"
)
_DEVICE = re.compile(r"\|\s+(?:GPU: )?(?P<name>[A-Z][^.|=]{2,60})\. (?:Num GPUs = [0-9]+\. )?Max memory")
_FACTS = {
    "Num GPUs used": "count",
    "Num GPUs": "count",
    "Total steps": "steps_total",
    "Batch size per device": "micro_batch",
    "Gradient accumulation steps": "gradient_accumulation",
    "Gradient Accumulation steps": "gradient_accumulation",
    "Total batch size": "global_batch",
    "Trainable parameters": "trainable_parameters",
    "Number of trainable parameters": "trainable_parameters",
}


class NotebookLines:
    """The lines of one notebook's output."""

    def __init__(self, runs: LogRuns) -> None:
        self._runs = runs
        self._box_line: int | None = None
        self._in_table = False

    def read(self, text: str, line: LogLine) -> bool:
        """Read a line, if it is one of these."""
        if self._in_table:
            if (match := _ROW.fullmatch(text)) and (loss := parse_number(match["loss"])) is not None:
                step = LoggedStep(line.number, number=float(match["step"]), loss=loss)
                self._runs.add(Prefix(text), line, step)
                return True
            self._in_table = bool(_RULE.fullmatch(text))
            return self._in_table
        if "Training Loss" in text and _HEADER.fullmatch(text):
            self._in_table = True
            return True
        if " < " in text and (match := _BAR.fullmatch(text)):
            return self._add_bar(match, line.number)
        if _BOX in text:
            self._box_line = line.number
            self._runs.add_fact("tool", "unsloth", text, line.number, differing="first")
        if self._box_line is not None and line.number < self._box_line + _BOX_LINES:
            return self._add_box_line(text, line.number)
        return False

    def _add_bar(self, match: re.Match[str], line: int) -> bool:
        seconds = parse_clock(match["elapsed"])
        if seconds is None or not seconds:
            return False
        for name, value in (
            ("steps_done", float(match["at"])),
            ("steps_total", float(match["total"])),
            ("train_s", seconds),
        ):
            self._runs.add_fact(name, value, match[0].strip(), line, final=True, differing="largest")
        self._runs.note("a notebook keeps one reading of its bar's clock, with set-up and the first step", final=True)
        return True

    def _add_box_line(self, text: str, line: int) -> bool:
        found = False
        if match := _DEVICE.search(text):
            self._runs.add_fact("device", match["name"].strip(), match[0], line, differing="first")
            found = True
        for pair in _PAIR.finditer(text):
            value = parse_integer(pair["value"])
            name = _FACTS.get(pair["name"].strip())
            if name is None or value is None or value < 1:
                continue
            found = True
            self._runs.add_fact(name, float(value) if name == "steps_total" else value, pair[0], line)
            whole = parse_integer(pair["of"]) if pair["of"] else None
            if name == "trainable_parameters" and whole is not None:
                self._runs.add_fact("parameters", float(whole), pair[0], line)
        return found or _BOX in text
