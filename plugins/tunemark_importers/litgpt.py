"""Reads LitGPT's iteration lines by their description, and the counts that it prints at the end of a fine-tuning.

Source: github.com/Lightning-AI/litgpt, `litgpt/finetune/lora.py` (fit) and `litgpt/utils.py`
(create_finetuning_performance_report). Its tokens per second are all slots, padding counted, over the training time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from tunemark.plugin.claims import Claim, LogLine
from tunemark_importers.described_log import DescribedLogReader
from tunemark_importers.finetuning_formats import LITGPT
from tunemark_importers.line_prefixes import MAX_LINE, strip_prefixes
from tunemark_importers.numbers import FIGURE, parse_number

_COUNT = re.compile(
    r"\|?\s*- (?P<name>Input Tokens|Tokens w/ Prompt|Total Tokens \(w/ Padding\)|Training Time|Tok/sec)\s*:\s*"
    rf"(?P<value>{FIGURE})(?: s| tok/s)?\s*"
)


class LitgptReader:
    """Reads one log."""

    def __init__(self) -> None:
        self._lines = DescribedLogReader(LITGPT)
        self._counts: dict[str, float] = {}

    def read(self, line: LogLine) -> bool:
        if "- T" not in line.text and "- Input" not in line.text:
            return self._lines.read(line)
        match = _COUNT.fullmatch(strip_prefixes(line.text).text) if len(line.text) <= MAX_LINE else None
        value = parse_number(match["value"]) if match else None
        if match is None or value is None or not math.isfinite(value) or value <= 0:
            return self._lines.read(line)
        self._add_count(match["name"], value, match[0], line.number)
        return True

    def claims(self) -> Sequence[Claim]:
        return self._lines.claims()

    def _add_count(self, name: str, value: float, words: str, line: int) -> None:
        runs = self._lines.runs
        self._counts[name] = value
        fact = {"Training Time": "train_s", "Total Tokens (w/ Padding)": "tokens_total", "Tok/sec": "tokens_per_s"}
        if name in fact:
            runs.add_fact(fact[name], value, words, line, final=True, differing="first")
        if name == "Tok/sec":
            runs.add_fact("counts", "slots", words, line, final=True, differing="first")
            runs.add_fact("rate_name", name, words, line, final=True, differing="first")
        content, slots, seconds = (
            self._counts.get(n) for n in ("Tokens w/ Prompt", "Total Tokens (w/ Padding)", "Training Time")
        )
        if content and slots and content <= slots:
            share = f"1 - {content:g} / {slots:g}"
            runs.add_fact("padding_fraction", 1 - content / slots, share, line, final=True, differing="first")
        if content and slots and seconds and content <= slots:
            without = f"without it {content:,.0f} tokens in {seconds:g} s are {content / seconds:,.6g} tokens/s"
            runs.note(f"its rate counts padding, {1 - content / slots:.1%} of the slots; {without}", final=True)
