"""Reads any other program's log lines that print an unambiguous rate of tokens.

Used last, and strictly: a rate must have its unit, a duration a name that says it is of one step. What the rate counts
is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tunemark.plugin.claims import Claim, LoggedStep, LogLine
from tunemark_importers import numbers
from tunemark_importers.line_prefixes import MAX_LINE, strip_prefixes
from tunemark_importers.log_runs import LogRuns
from tunemark_importers.logged_options import find_options, find_parameter_counts
from tunemark_importers.numbers import FIGURE

_TOKENS = r"tok(?:en)?s?"
_PER_SECOND = rf"{_TOKENS}(?:\s?/\s?|[ _]per[ _])s(?:ec(?:ond)?s?)?\b"
_PER_DEVICE = r"(?P<{0}>(?:\s?/\s?|[ _]per[ _])(?:gpu|device|rank|chip|npu)\b)?"
_SEPARATOR = r"\s*[:=]\s*|\s+"
_RATE = re.compile(
    rf"(?<![\w.])(?:{_PER_SECOND}{_PER_DEVICE.format('a')}(?:{_SEPARATOR})(?P<after>{FIGURE})\s?(?P<scale_a>[kKM]?)(?![\w.])"
    rf"|\b(?:tps|tgs)\s*[:=]\s*(?P<short>{FIGURE})\s?(?P<scale_s>[kKM]?)(?![\w.])"
    rf"|(?P<before>{FIGURE})\s?(?P<scale_b>[kKM]?)\s?{_PER_SECOND}{_PER_DEVICE.format('b')}(?![\w/]|\s*[:=]))",
    re.I,
)
_QUOTED = re.compile(r"[\"']([A-Za-z_/ ]+)[\"']\s*:")
_STEP = re.compile(
    r"\b(?:global[ _]?)?(?:step|iter(?:ation)?)s?\b\s*[:=#\[(]?\s*(?P<at>[0-9]+)(?:\s*(?:/|of)\s*(?P<of>[0-9]+))?"
)
_LOSS = re.compile(rf"\b(?:train(?:ing)?[ _/])?loss\b\s*[:=]?\s*(?P<loss>{FIGURE})", re.I)
_DURATION = re.compile(
    rf"\b(?:dt|duration|step[ _]time|iter(?:ation)?[ _]time|time[ _]per[ _](?:step|iter(?:ation)?))\b(?:{_SEPARATOR})"
    rf"(?P<value>{FIGURE})\s?(?P<unit>ms|s|sec|seconds)?(?![\w.])",
    re.I,
)
_TOKENS_SEEN = re.compile(
    rf"\b(?:(?:num|total|cumulative)[ _]tokens|tokens[ _]seen)\b(?:[ _]seen)?\s*[:=]\s*(?P<n>{FIGURE})(?![\w.])", re.I
)
_PADDING = re.compile(
    rf"\bpadding(?:[ _](?:fraction|share|ratio))?\s*[:=]?\s*(?P<value>{FIGURE})\s?(?P<percent>%)?(?![\w.])", re.I
)
_RATE_MARKERS = ("tok", "TOK", "Tok", "tps", "tgs", "TPS", "padding", "Padding")
_FLAG_MARKERS = ("--", "Namespace", "batch", "seq", "params", "model")
_FLAGS = {
    "global_batch_size": "global_batch",
    "global_batch": "global_batch",
    "sequence_length": "sequence",
    "seq_length": "sequence",
    "seq_len": "sequence",
    "max_seq_length": "sequence",
    "block_size": "sequence",
}


class GenericLogReader:
    """Reads one log."""

    def __init__(self) -> None:
        self._runs = LogRuns(
            tool="anything",
            meaning="tokens per second as the program prints them; what they count is unknown",
            counts=None,
            scope="job",
        )

    def read(self, line: LogLine) -> bool:
        text = line.text[-MAX_LINE:]
        understood = False
        if any(mark in text for mark in _RATE_MARKERS):
            prefix = strip_prefixes(text)
            # JSON lines have names in quotes.
            words = _QUOTED.sub(r"\1:", prefix.text)
            if match := _PADDING.search(words):
                share = numbers.parse_number(match["value"])
                share = share / 100 if share is not None and match["percent"] else share
                if share is not None and 0 <= share < 1:
                    self._runs.add_fact("padding_fraction", share, match[0], line.number, differing="first")
                    understood = True
            understood = self._rate(words, line, text) or understood
        if not understood and any(mark in text for mark in _FLAG_MARKERS):
            understood = self._flags(text, line)
        return understood

    def claims(self) -> Sequence[Claim]:
        return [claim for claim in self._runs.claims() if len(claim.steps) or claim.tokens_per_s is not None]

    def _rate(self, words: str, line: LogLine, text: str) -> bool:
        found = _RATE.search(words)
        if not found:
            return False
        if found["after"]:
            rate = numbers.parse_count(found["after"], found["scale_a"])
        elif found["short"]:
            rate = numbers.parse_count(found["short"], found["scale_s"])
        else:
            rate = numbers.parse_count(found["before"], found["scale_b"])
        if rate is None:
            return False
        if found["a"] or found["b"]:
            self._runs.add_fact("scope", "device", found[0], line.number, differing="first")
        step, loss, duration, seen = (p.search(words) for p in (_STEP, _LOSS, _DURATION, _TOKENS_SEEN))
        if step and step["of"]:
            self._runs.add_fact("steps_total", float(step["of"]), step[0], line.number, differing="largest")
        duration_s = numbers.parse_seconds(duration["value"], (duration["unit"] or "s").lower()) if duration else None
        at = float(step["at"]) if step else None
        self._runs.add(
            strip_prefixes(text),
            line,
            LoggedStep(
                line.number,
                number=at,
                tokens_per_s=rate,
                loss=numbers.parse_number(loss["loss"]) if loss else None,
                duration_s=duration_s,
                duration_steps=1.0 if duration_s is not None else None,
                tokens=numbers.parse_number(seen["n"]) if seen else None,
            ),
        )
        return True

    def _flags(self, text: str, line: LogLine) -> bool:
        found = False
        for field, count, words in find_parameter_counts(text):
            self._runs.add_fact(field, count, words, line.number)
            found = True
        for name, value, words in find_options(text, _FLAGS):
            if (parsed := numbers.parse_integer(value)) is not None and parsed > 0:
                self._runs.add_fact(name, parsed, words, line.number)
                found = True
        # Other tools have the same options, so the line counts as understood only once the log has a rate.
        return found and self._runs.is_known
